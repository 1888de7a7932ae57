//! Tasks that have a terminal, and who joins it.

use crate::{
    containers::{busybox, nothing_is_left, runtimes},
    pods::{self, in_pod},
    runner::cases,
    sessions::Stream,
    world::{World, launch, order, shell},
};
use muster_model::{AgentEvent, LaunchNumber, TaskState, event::RunOrder};
use muster_proto::{
    executor_api::{container_id, nested_container},
    mesos::{ContainerInfo, TaskInfo, TtyInfo, container_info, tty_info::WindowSize},
};
use prost::Message;
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt};

cases!(
    a_task_has_a_terminal_that_is_joined,
    a_terminal_is_joined_again_after_its_agent,
    who_does_not_read_a_terminal_is_cut_off,
    a_terminal_is_its_users,
    a_task_of_a_pod_has_a_terminal,
    a_container_has_a_terminal,
    a_task_without_a_terminal_is_not_joined,
);

fn terminal(rows: u32, columns: u32) -> ContainerInfo {
    ContainerInfo {
        r#type: container_info::Type::Mesos.into(),
        tty_info: Some(TtyInfo { window_size: Some(WindowSize { rows, columns }) }),
        ..Default::default()
    }
}

fn with_terminal(text: &str) -> TaskInfo {
    TaskInfo { container: Some(terminal(40, 100)), ..shell(text) }
}

fn task(n: u64) -> Value {
    json!({"value": container_id(launch(n))})
}

fn attach(id: &Value) -> Value {
    json!({"type": "ATTACH_CONTAINER_OUTPUT", "attach_container_output": {"container_id": id}})
}

/// Says its size, then what it reads, and ends when it is interrupted.
const TALKS: &str = "trap 'exit 7' INT; test -t 0 && test -t 1 && test -t 2 && stty -echo; stty size; read line; stty size; \
                     echo got $line >&2; cat; echo no more; while true; do sleep 0.01; done";

async fn talk(world: &World, id: &Value) -> Stream {
    let mut out = world.look(&attach(id)).await;
    let input = world.input(id).await;
    input.resize(50, 200).await;
    input.give("a line\n").await;
    assert_eq!(out.until(Some("line\r\n")).await.0, "50 200\r\ngot a line\r\n");
    // The end of what is read, as if it were typed, and with it `cat`; then what interrupts.
    input.give("").await;
    assert_eq!(out.until(Some("more\r\n")).await.0, "no more\r\n");
    input.give("\u{3}").await;
    assert_eq!(input.end().await, (200, String::new()));
    out
}

async fn a_task_has_a_terminal_that_is_joined(mut world: World) {
    let (mut stream, _) = world.join().await;
    stream.say(&AgentEvent::Run(Box::new(order(1, &with_terminal(TALKS))))).await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, TaskState::Running);
    world.line(&world.sandbox(1).join("stdout")).await;
    let mut out = talk(&world, &task(1)).await;
    let (states, message) = world.outcome(&mut stream, 1).await;
    assert_eq!((states.last(), message.contains("status 7")), (Some(&TaskState::Failed), true), "{message}");
    out.until(None).await;
    // All of it is in the sandbox.
    assert!(
        world.stdout(1).starts_with("40 100\r\n50 200\r\ngot a line\r\nno more\r\n"),
        "{:?}",
        world.stdout(1)
    );
    assert_eq!(fs::read_to_string(world.sandbox(1).join("stderr")).unwrap(), "");
    assert_eq!(world.stream(&attach(&task(1))).await.err().unwrap().0, 404, "it is over");
}

async fn a_terminal_is_joined_again_after_its_agent(mut world: World) {
    let (mut stream, _) = world.join().await;
    stream.say(&AgentEvent::Run(Box::new(order(1, &with_terminal(TALKS))))).await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, TaskState::Running);
    world.line(&world.sandbox(1).join("stdout")).await;
    let mut out = world.look(&attach(&task(1))).await;
    world.kill_agent();
    assert!(out.is_broken().await, "it did not end");
    let (mut stream, _) = world.join().await;
    talk(&world, &task(1)).await;
    assert_eq!(world.outcome(&mut stream, 1).await.0.last(), Some(&TaskState::Failed));
}

async fn who_does_not_read_a_terminal_is_cut_off(mut world: World) {
    let (mut stream, _) = world.join().await;
    let text = "until [ -e go ]; do sleep 0.01; done; head -c 20000000 /dev/zero; echo; echo written > written; sleep 1000";
    stream.say(&AgentEvent::Run(Box::new(order(1, &with_terminal(text))))).await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, TaskState::Running);
    let mut sleeper = world.look(&attach(&task(1))).await;
    let sandbox = world.sandbox(1);
    fs::write(sandbox.join("go"), "").unwrap();
    // It is no reason for the task to wait.
    world.line(&sandbox.join("written")).await;
    world.kill_task(&mut stream, 1).await;
    assert_eq!(sandbox.join("stdout").metadata().unwrap().len(), 20_000_002);
    assert!(sleeper.is_broken().await, "it is not told as an end");
}

async fn a_terminal_is_its_users(mut world: World) {
    if !crate::limits::may_run() {
        return;
    }
    fs::set_permissions(world.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let (mut stream, _) = world.join().await;
    let info = with_terminal("id -u; test -w $(tty) && echo own");
    let run = RunOrder { user: "nobody".into(), ..order(1, &info) };
    stream.say(&AgentEvent::Run(Box::new(run))).await;
    assert_eq!(world.outcome(&mut stream, 1).await.0.last(), Some(&TaskState::Finished));
    assert_eq!(world.stdout(1), "65534\r\nown\r\n");
}

async fn a_task_of_a_pod_has_a_terminal(mut world: World) {
    let (stream, _) = world.join().await;
    let mut ear = pods::Ear::new(stream);
    let order = in_pod(1, 0, 1, TALKS);
    let mut info = TaskInfo::decode(&*order.sealed).unwrap();
    info.container = Some(terminal(40, 100));
    ear.run(RunOrder { sealed: muster_model::Sealed::new(info.encode_to_vec()), ..order }).await;
    ear.states(1, 0, TaskState::Running).await;
    let sandbox = world.work_dir().join("sandboxes/f1/pod/1.1.0/tasks/t10");
    world.line(&sandbox.join("stdout")).await;
    let id = nested_container(launch(1), LaunchNumber { n: 0, ..launch(1) });
    let id = json!({"value": id.value, "parent": {"value": id.parent.unwrap().value}});
    talk(&world, &id).await;
    ear.states(1, 0, TaskState::Failed).await;
}

async fn a_container_has_a_terminal(_of_its_own: World) {
    for runtime in runtimes() {
        let (mut world, images) = crate::containers::world(runtime).await;
        let (mut stream, _) = world.join().await;
        let container = ContainerInfo { tty_info: terminal(40, 100).tty_info, ..busybox(&images) };
        stream.say(&crate::containers::in_container(5, TALKS, container)).await;
        let running = world.update(&mut stream, 5).await;
        assert_eq!(running.status.state, TaskState::Running, "{runtime}: {}", running.status.message);
        world.line(&world.sandbox(5).join("stdout")).await;
        talk(&world, &task(5)).await;
        let (states, message) = world.outcome(&mut stream, 5).await;
        assert_eq!(
            (states.last(), message.contains("status 7")),
            (Some(&TaskState::Failed), true),
            "{message}"
        );
        assert!(world.stdout(5).starts_with("40 100\r\n50 200\r\n"), "{:?}", world.stdout(5));
        // It is its user's, too.
        let container = ContainerInfo { tty_info: terminal(40, 100).tty_info, ..busybox(&images) };
        let mut info =
            TaskInfo { container: Some(container), ..shell("id -u; echo own > /dev/tty; stty size") };
        info.command.as_mut().unwrap().user = Some("app".into());
        stream.say(&AgentEvent::Run(Box::new(order(6, &info)))).await;
        let (states, message) = world.outcome(&mut stream, 6).await;
        assert_eq!(states.last(), Some(&TaskState::Finished), "{message} {:?}", world.stdout(6));
        assert_eq!(world.stdout(6), "123\r\nown\r\n40 100\r\n", "{runtime}");
        nothing_is_left(&world, &images).await;
    }
}

async fn a_task_without_a_terminal_is_not_joined(mut world: World) {
    let (mut stream, _) = world.join().await;
    world.run(&mut stream, 1, "sleep 1000").await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, TaskState::Running);
    let (code, why) = world.stream(&attach(&task(1))).await.err().unwrap();
    assert_eq!((code, why.contains("the task has no terminal")), (500, true), "{why}");
    assert_eq!(world.input(&task(1)).await.end().await.0, 500);
}
