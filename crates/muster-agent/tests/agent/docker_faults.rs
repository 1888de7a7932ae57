//! What becomes of a Docker engine's containers when it, its command line or the agent goes, hangs or comes late.

use crate::{
    containers::{FILLS, Images, busybox, fill, in_container, last, nothing_is_left},
    docker::{begun, only, through, world_with_engine},
    runner::cases,
    sessions::{id, session},
    world::{World, children, launch, shell, signal},
};
use muster_model::{AgentEvent, Reason, Resources, TaskState, event::RunOrder};
use muster_proto::mesos::TaskInfo;
use rustix::process::Signal;
use std::{fs, time::Duration};
use tokio::time::sleep;

cases!(
    a_task_goes_on_without_its_client,
    a_task_goes_on_without_its_engine,
    an_engine_that_hangs_holds_up_nobody,
    an_engine_that_comes_late_is_found,
    a_status_is_kept_while_no_agent_is_there,
    what_the_engine_has_of_former_tasks_is_removed,
    a_container_that_somebody_removes_has_ended,
    a_container_that_somebody_pauses_is_killed,
    what_an_engine_begins_for_one_who_is_gone_ends,
    an_engine_that_hears_late_of_memory_is_asked_again,
);

/// The engine's command line that follows the output of a world's task.
fn clients(world: &World, images: &Images) -> Vec<String> {
    let host = format!("--host=unix://{}", images.engine.as_ref().unwrap().socket().display());
    let place = world.runtime_dir();
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|it| it.file_name().into_string().ok());
    let supervisors =
        all.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&place)));
    let runners = supervisors.flat_map(|pid| children(&pid));
    let clients = runners.flat_map(|pid| children(&pid));
    clients
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            arguments.contains(&host.as_bytes())
                && (arguments.contains(&b"start".as_slice()) || arguments.contains(&b"attach".as_slice()))
        })
        .collect()
}

async fn a_task_goes_on_without_its_client(_of_its_own: World) {
    let Some((mut world, images)) = world_with_engine().await else { return };
    let (mut stream, _) = world.join().await;
    begun(&mut world, &images, &mut stream).await;
    let former = clients(&world, &images);
    assert_eq!(former.len(), 1, "{former:?}");
    signal(&former[0], Signal::KILL);
    let next = loop {
        match &*clients(&world, &images) {
            [next] if *next != former[0] => break next.clone(),
            _ => sleep(Duration::from_millis(5)).await,
        }
    };
    assert_ne!(next, former[0], "another one follows it");
    only(&images);
    let attached = || fs::read(format!("/proc/{next}/cmdline")).unwrap_or_default();
    assert!(String::from_utf8_lossy(&attached()).contains("attach"));
    fs::write(world.sandbox(5).join("go"), "").unwrap();
    let (states, message) = world.outcome(&mut stream, 5).await;
    assert_eq!(states.last(), Some(&TaskState::Failed), "{message}");
    assert!(message.contains("status 6"), "{message}");
    nothing_is_left(&world, &images).await;
}

async fn a_task_goes_on_without_its_engine(_of_its_own: World) {
    let Some((mut world, mut images)) = world_with_engine().await else { return };
    let (mut stream, _) = world.join().await;
    begun(&mut world, &images, &mut stream).await;
    images.engine.as_mut().unwrap().kill();
    while !clients(&world, &images).is_empty() {
        sleep(Duration::from_millis(5)).await; // what followed it is gone with the engine
    }
    images.engine.as_mut().unwrap().start_again();
    while clients(&world, &images).is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    fs::write(world.sandbox(5).join("go"), "").unwrap();
    let (states, message) = world.outcome(&mut stream, 5).await;
    assert_eq!(states.last(), Some(&TaskState::Failed), "{message}");
    assert!(message.contains("status 6"), "{message}");
    nothing_is_left(&world, &images).await;
}

/// Neither its agent, nor its end, nor anything else waits for it; only what became of the task is told once it answers.
async fn an_engine_that_hangs_holds_up_nobody(_of_its_own: World) {
    let Some((mut world, images)) = world_with_engine().await else { return };
    let hangs = world.dir.path().join("hangs");
    through(&world, &format!("while [ -e {hangs:?} ]; do sleep 0.05; done"));
    let (mut stream, _) = world.join().await;
    begun(&mut world, &images, &mut stream).await;
    fs::write(&hangs, "").unwrap();
    world.kill_agent();
    let (mut stream, _) = world.join().await; // it asks the engine, and gives up
    world.run(&mut stream, 6, "true").await;
    let (states, message) = world.outcome(&mut stream, 6).await;
    assert_eq!(states.last(), Some(&TaskState::Finished), "{message}");
    stream.say(&AgentEvent::Kill { launch: launch(5), task: crate::world::key(5), grace_ms: Some(1) }).await;
    let engine = images.engine.as_ref().unwrap();
    while !engine.said(&["ps", "--quiet"]).is_empty() {
        sleep(Duration::from_millis(5)).await; // killed without its word
    }
    assert_eq!(engine.containers().len(), 1, "nobody could have it removed");
    fs::remove_file(&hangs).unwrap();
    let (states, message) = world.outcome(&mut stream, 5).await;
    assert_eq!(states.last(), Some(&TaskState::Killed), "{message}");
    nothing_is_left(&world, &images).await;
}

async fn an_engine_that_comes_late_is_found(_of_its_own: World) {
    let Some((mut world, mut images)) = world_with_engine().await else { return };
    images.engine.as_mut().unwrap().kill();
    let (mut stream, _) = world.join().await;
    stream.say(&in_container(5, "true", busybox(&images))).await;
    let last = last(&mut world, &mut stream, 5).await;
    assert_eq!(last.status.state, TaskState::Failed);
    let message = &last.status.message;
    assert!(message.contains("docker: the Docker engine does not answer: Cannot connect"), "{message}");
    let shown = world.get("/state").await["containerizers"]["docker"].as_str().unwrap().to_owned();
    assert!(shown.starts_with("no: the Docker engine does not answer"), "{shown}");
    images.engine.as_mut().unwrap().start_again();
    stream.say(&in_container(6, "exit 3", busybox(&images))).await;
    let (_, message) = world.outcome(&mut stream, 6).await;
    assert!(message.contains("status 3"), "{message}");
    nothing_is_left(&world, &images).await;
}

async fn a_status_is_kept_while_no_agent_is_there(_of_its_own: World) {
    let Some((mut world, images)) = world_with_engine().await else { return };
    let (mut stream, _) = world.join().await;
    begun(&mut world, &images, &mut stream).await;
    world.kill_agent();
    fs::write(world.sandbox(5).join("go"), "").unwrap();
    while !images.engine.as_ref().unwrap().containers().is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    let (mut stream, _) = world.join().await;
    let (states, message) = world.outcome(&mut stream, 5).await;
    assert_eq!(states.last(), Some(&TaskState::Failed), "{message}");
    assert!(message.contains("status 6"), "{message}");
    assert_eq!(world.stdout(5), "begun\nlast\n");
    nothing_is_left(&world, &images).await;
}

async fn what_the_engine_has_of_former_tasks_is_removed(_of_its_own: World) {
    let Some((mut world, images)) = world_with_engine().await else { return };
    let (mut stream, _) = world.join().await;
    begun(&mut world, &images, &mut stream).await;
    let engine = images.engine.as_ref().unwrap();
    let own = only(&images);
    let key = engine.said(&["inspect", "--format={{index .Config.Labels \"muster.agent\"}}", &own]);
    let more = |name: &str, key: &str| {
        let label = format!("--label=muster.agent={key}");
        engine.said(&[
            "run",
            "--detach",
            "--network=none",
            "--name",
            name,
            &label,
            "busybox:1",
            "sleep",
            "1000",
        ]);
    };
    more("former", &key);
    more("others", "another");
    world.kill_agent();
    let (mut stream, _) = world.join().await;
    let mut left = engine.containers();
    left.sort();
    assert_eq!(left, [own, "others".to_owned()], "its own goes on, and another's is not touched");
    fs::write(world.sandbox(5).join("go"), "").unwrap();
    let (states, message) = world.outcome(&mut stream, 5).await;
    assert_eq!(states.last(), Some(&TaskState::Failed), "{message}");
    engine.said(&["rm", "--force", "others"]);
    nothing_is_left(&world, &images).await;
}

async fn a_container_that_somebody_removes_has_ended(_of_its_own: World) {
    let Some((mut world, images)) = world_with_engine().await else { return };
    let (mut stream, _) = world.join().await;
    begun(&mut world, &images, &mut stream).await;
    images.engine.as_ref().unwrap().said(&["rm", "--force", &only(&images)]);
    let (states, message) = world.outcome(&mut stream, 5).await;
    assert_eq!(states.last(), Some(&TaskState::Failed), "{message}");
    assert!(message.contains("137"), "{message}");
    nothing_is_left(&world, &images).await;
}

async fn a_container_that_somebody_pauses_is_killed(_of_its_own: World) {
    let Some((mut world, images)) = world_with_engine().await else { return };
    let (mut stream, _) = world.join().await;
    begun(&mut world, &images, &mut stream).await;
    images.engine.as_ref().unwrap().said(&["pause", &only(&images)]);
    stream.say(&AgentEvent::Kill { launch: launch(5), task: crate::world::key(5), grace_ms: Some(1) }).await;
    let (states, message) = world.outcome(&mut stream, 5).await;
    assert_eq!(states.last(), Some(&TaskState::Killed), "{message}");
    nothing_is_left(&world, &images).await;
}

/// An engine that was asked for a command begins it though its client was killed meanwhile.
async fn what_an_engine_begins_for_one_who_is_gone_ends(_of_its_own: World) {
    let Some((mut world, images)) = world_with_engine().await else { return };
    let (asked, goes_on) = (world.dir.path().join("asked"), world.dir.path().join("goes-on"));
    let late = format!(
        "if [ \"$1\" = LATE ]; then shift; echo asked > {asked:?}; until [ -e {goes_on:?} ]; do sleep 0.01; done; exec docker \"$@\"; fi\n\
         case \" $* \" in *' exec '*) setsid \"$0\" LATE \"$@\" & exec sleep 1000;; esac"
    );
    through(&world, &late);
    let (mut stream, _) = world.join().await;
    begun(&mut world, &images, &mut stream).await;
    let out = world.look(&session(&id("s", 5), "echo begun > began; sleep 999 & exec sleep 999")).await;
    world.line(&asked).await;
    drop(out);
    world.wait_status(&id("s", 5)).await;
    fs::write(&goes_on, "").unwrap();
    world.line(&world.sandbox(5).join("began")).await;
    let engine = images.engine.as_ref().unwrap();
    let name = engine.containers().pop().unwrap();
    while engine.said(&["top", &name, "-o", "pid,args"]).contains("sleep 999") {
        sleep(Duration::from_millis(5)).await;
    }
    fs::write(world.sandbox(5).join("go"), "").unwrap();
    world.outcome(&mut stream, 5).await;
    nothing_is_left(&world, &images).await;
}

/// It says first that a container has ended, and a moment later why.
async fn an_engine_that_hears_late_of_memory_is_asked_again(_of_its_own: World) {
    let Some((mut world, images)) = world_with_engine().await else { return };
    let told = world.dir.path().join("told");
    let late = format!(
        "case \" $* \" in *' inspect '*)\n\
           said=$(docker \"$@\") || exit\n\
           case $said in *'\"OOMKilled\":true'*)\n\
             echo >> {told:?}; [ $(wc -l < {told:?}) -gt 2 ] || said=$(echo \"$said\" | sed 's/\"OOMKilled\":true/\"OOMKilled\":false/');;\n\
           esac\n\
           echo \"$said\"; exit;;\n\
         esac"
    );
    through(&world, &late);
    let (mut stream, _) = world.join().await;
    let info = TaskInfo { container: Some(busybox(&images)), ..shell(FILLS) };
    let order = RunOrder { resources: Resources::of(100, 32), ..crate::world::order(5, &info) };
    stream.say(&AgentEvent::Run(Box::new(order))).await;
    assert_eq!(world.update(&mut stream, 5).await.status.state, TaskState::Running);
    fill(&world, 5, &images).await;
    let last = last(&mut world, &mut stream, 5).await;
    assert_eq!(last.status.reason, Some(Reason::ContainerLimitationMemory), "{}", last.status.message);
    assert!(fs::read_to_string(&told).unwrap().lines().count() > 2);
    nothing_is_left(&world, &images).await;
}
