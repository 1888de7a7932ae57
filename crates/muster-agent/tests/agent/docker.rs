//! What a Docker engine does beside what all containers can.

use crate::{
    containers::{
        Images, busybox, host_volume, in_container, is_refused, last, makers, nothing_is_left, run, world,
    },
    executor::{executor_info, in_executor},
    limits::group_of,
    runner::cases,
    world::{World, launch, shell},
};
use muster_model::{
    AgentEvent, ExecutorId, FrameworkId, Reason, Resources, TaskState, Value, event::RunOrder,
};
use muster_proto::mesos::{
    self, ContainerInfo, TaskInfo, Volume,
    container_info::docker_info::{Network, PortMapping},
    volume,
};
use std::{fs, path::Path, time::Duration};
use tokio::time::sleep;

cases!(
    what_only_an_engine_does_is_done,
    a_network_of_the_engine_has_ports_that_the_task_holds,
    who_is_privileged_may_do_all,
    what_an_engine_does_not_do_is_refused,
    who_is_no_root_has_the_sandbox,
    a_task_of_an_engine_is_measured_and_limited,
    an_executor_is_limited_by_the_agents_group_alone,
    an_engine_with_groups_of_systemd_limits_alone,
);

/// A world with an engine; none where there is none.
pub(crate) async fn world_with_engine() -> Option<(World, Images)> {
    match makers().contains(&"docker") {
        true => Some(world("docker").await),
        false => None,
    }
}

fn with(images: &Images, change: impl FnOnce(&mut mesos::container_info::DockerInfo)) -> ContainerInfo {
    let mut info = busybox(images);
    change(info.docker.as_mut().unwrap());
    info
}

fn parameter(key: &str, value: &str) -> mesos::Parameter {
    mesos::Parameter { key: key.into(), value: value.into() }
}

/// The name of the one container of the engine.
pub(crate) fn only(images: &Images) -> String {
    let mut all = images.engine.as_ref().unwrap().containers();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

async fn what_only_an_engine_does_is_done(_of_its_own: World) {
    let Some((mut world, images)) = world_with_engine().await else { return };
    let (mut stream, _) = world.join().await;
    let given = world.dir.path().join("given");
    fs::create_dir(&given).unwrap();
    fs::write(given.join("file"), "given\n").unwrap();
    let named = |target: &str| Volume {
        mode: volume::Mode::Rw.into(),
        container_path: target.into(),
        source: Some(volume::Source {
            r#type: Some(volume::source::Type::DockerVolume.into()),
            docker_volume: Some(volume::source::DockerVolume { name: "data".into(), ..Default::default() }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let own = Volume {
        mode: volume::Mode::Rw.into(),
        container_path: "/part".into(),
        source: Some(volume::Source {
            r#type: Some(volume::source::Type::SandboxPath.into()),
            sandbox_path: Some(volume::source::SandboxPath {
                r#type: Some(volume::source::sandbox_path::Type::Self_.into()),
                path: "own/part".into(),
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut container = with(&images, |it| {
        it.network = Some(Network::None.into());
        it.parameters = vec![parameter("label", "of=test"), parameter("ulimit", "nofile=77:77")];
    });
    container.hostname = Some("inside".into());
    container.volumes = vec![host_volume(&given, "/given", volume::Mode::Ro), named("/a"), named("/b"), own];
    let text = "hostname; tail -n +3 /proc/net/dev | wc -l; ulimit -n; cat /given/file
        (echo x > /given/file) 2>/dev/null || echo read-only; echo shared > /a/x; cat /b/x
        echo y > /part/y; cat own/part/y; [ $(pwd) = $MESOS_SANDBOX ] && echo sandbox; echo wrong >&2
        printf '%s\\n' \"$LINES\"; exit 4";
    let mut info = shell(text);
    let lines = crate::world::variable("LINES", "two\nlines");
    info.command.as_mut().unwrap().environment = Some(mesos::Environment { variables: vec![lines] });
    stream.say(&run(5, TaskInfo { container: Some(container), ..info })).await;
    let (states, message) = world.outcome(&mut stream, 5).await;
    let errors = fs::read_to_string(world.sandbox(5).join("stderr")).unwrap_or_default();
    assert_eq!(states.last(), Some(&TaskState::Failed), "{message} {errors}");
    assert!(message.contains("status 4"), "{message} {errors}");
    let expected = "inside\n1\n77\ngiven\nread-only\nshared\ny\nsandbox\ntwo\nlines\n";
    assert_eq!(world.stdout(5), expected, "{errors}");
    assert_eq!(errors, "wrong\n");
    nothing_is_left(&world, &images).await;
    // The image's own command line counts where no shell is asked for.
    let mut info = TaskInfo { container: Some(busybox(&images)), ..shell("") };
    info.command = Some(mesos::CommandInfo {
        shell: Some(false),
        value: Some("echo".into()),
        arguments: vec!["a".into(), "b".into()],
        ..Default::default()
    });
    stream.say(&run(6, info)).await;
    let (states, message) = world.outcome(&mut stream, 6).await;
    assert_eq!(states.last(), Some(&TaskState::Finished), "{message}");
    assert_eq!(world.stdout(6), "a b\n");
    nothing_is_left(&world, &images).await;
}

async fn a_network_of_the_engine_has_ports_that_the_task_holds(_of_its_own: World) {
    let Some((mut world, images)) = world_with_engine().await else { return };
    let (mut stream, _) = world.join().await;
    let engine = images.engine.as_ref().unwrap();
    engine.said(&["network", "create", "--internal", "own"]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut container = with(&images, |it| {
        it.network = Some(Network::User.into());
        let host_port = free.into();
        it.port_mappings.push(PortMapping { host_port, container_port: 80, protocol: Some("udp".into()) });
    });
    container.network_infos.push(mesos::NetworkInfo { name: Some("own".into()), ..Default::default() });
    let info =
        TaskInfo { container: Some(container), ..shell(&format!("tail -n +3 /proc/net/dev; {STAYS}")) };
    let ports = Value::ranges([(u64::from(free), u64::from(free))]);
    let resources = Resources::of(100, 64).with("ports", ports);
    let order = RunOrder { resources, ..crate::world::order(5, &info) };
    stream.say(&AgentEvent::Run(Box::new(order))).await;
    let running = world.update(&mut stream, 5).await;
    assert_eq!(running.status.state, TaskState::Running, "{}", running.status.message);
    let format = "--format={{.HostConfig.NetworkMode}} {{json .HostConfig.PortBindings}}";
    let expected = format!(r#"own {{"80/udp":[{{"HostIp":"","HostPort":"{free}"}}]}}"#);
    assert_eq!(engine.said(&["inspect", format, &only(&images)]), expected);
    fs::write(world.sandbox(5).join("go"), "").unwrap();
    let (states, message) = world.outcome(&mut stream, 5).await;
    assert_eq!(states.last(), Some(&TaskState::Failed), "{message}");
    let said = world.stdout(5);
    assert!(said.contains(" lo:") && said.contains(" eth0:"), "{said}");
    assert_eq!(said.matches(':').count(), 2, "its own devices, and no others: {said}");
    nothing_is_left(&world, &images).await;
}

/// A privileged container has all capabilities; where this machine itself has not all of them none can be made.
async fn who_is_privileged_may_do_all(_of_its_own: World) {
    let Some((mut world, images)) = world_with_engine().await else { return };
    let (mut stream, _) = world.join().await;
    let all = |status: &str| {
        let named = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap().trim().to_owned();
        let last: u32 = fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap();
        u64::from_str_radix(&named, 16).unwrap() == (2_u64 << last) - 1
    };
    let here = all(&fs::read_to_string("/proc/self/status").unwrap());
    for privileged in [false, true] {
        let n = 5 + u64::from(privileged);
        let container = with(&images, |it| it.privileged = Some(privileged));
        stream.say(&in_container(n, "grep CapBnd /proc/self/status", container)).await;
        let (states, message) = world.outcome(&mut stream, n).await;
        if privileged && !here {
            assert!(message.contains("unable to apply caps"), "{message}");
            continue;
        }
        assert_eq!(states.last(), Some(&TaskState::Finished), "{message}");
        assert_eq!(all(&world.stdout(n)), privileged);
    }
    nothing_is_left(&world, &images).await;
}

async fn what_an_engine_does_not_do_is_refused(_of_its_own: World) {
    let Some((mut world, images)) = world_with_engine().await else { return };
    let more = "parameters = false\nprivileged = false\n";
    fs::write(world.config(), fs::read_to_string(world.config()).unwrap() + more).unwrap();
    let (mut stream, _) = world.join().await;
    let mapped = with(&images, |it| {
        it.network = Some(Network::Bridge.into());
        it.port_mappings.push(PortMapping { host_port: 31_000, container_port: 80, protocol: None });
    });
    // Of a registry that answers nobody.
    let here = "127.0.0.1:1/busybox:1";
    images.engine.as_ref().unwrap().said(&["tag", "busybox:1", here]);
    let mut outside = busybox(&images);
    outside.volumes = vec![host_volume(Path::new("/etc"), "/machine", volume::Mode::Ro)];
    for (n, container, state, parts) in [
        (5, mapped, TaskState::Error, &["port_mappings: host_port 31000 is not among the ports"] as &[_]),
        (
            6,
            with(&images, |it| it.privileged = Some(true)),
            TaskState::Error,
            &["privileged", "docker.privileged"],
        ),
        (
            7,
            with(&images, |it| it.parameters.push(parameter("init", "true"))),
            TaskState::Error,
            &["parameters", "docker.parameters"],
        ),
        (
            8,
            with(&images, |it| it.image = "127.0.0.1:1/none:1".into()),
            TaskState::Failed,
            &["pull the image '127.0.0.1:1/none:1'"],
        ),
        (
            9,
            with(&images, |it| (it.image, it.force_pull_image) = (here.into(), Some(true))),
            TaskState::Failed,
            &["pull the image '127.0.0.1:1/busybox:1'"],
        ),
        (10, outside, TaskState::Failed, &["/machine", "host-path-volumes"]),
    ] {
        is_refused(&mut world, &mut stream, n, container, state, parts).await;
    }
    let mut info = TaskInfo { container: Some(busybox(&images)), ..Default::default() };
    info.command = Some(mesos::CommandInfo {
        shell: Some(false),
        value: Some("no-such-program".into()),
        ..Default::default()
    });
    stream.say(&run(11, info)).await;
    let last = last(&mut world, &mut stream, 11).await;
    assert_eq!(last.status.state, TaskState::Failed);
    assert!(last.status.message.contains("no-such-program"), "{}", last.status.message);
    nothing_is_left(&world, &images).await;
}

async fn who_is_no_root_has_the_sandbox(_of_its_own: World) {
    let Some((mut world, images)) = world_with_engine().await else { return };
    let (mut stream, _) = world.join().await;
    let as_user = |user: &str| {
        let mut info = TaskInfo { container: Some(busybox(&images)), ..shell("id -u; id -g; touch mine") };
        info.command.as_mut().unwrap().user = Some(user.into());
        info
    };
    for (n, user, expected) in [(5, "app", "123\n234\n"), (6, "77:88", "77\n88\n")] {
        stream.say(&run(n, as_user(user))).await;
        let (states, message) = world.outcome(&mut stream, n).await;
        let errors = fs::read_to_string(world.sandbox(n).join("stderr")).unwrap_or_default();
        assert_eq!(states.last(), Some(&TaskState::Finished), "{message} {errors}");
        assert_eq!(world.stdout(n), expected);
        assert!(world.sandbox(n).join("mine").exists());
    }
    stream.say(&run(7, as_user("nobody-of-the-image"))).await;
    let (states, message) = world.outcome(&mut stream, 7).await;
    assert_eq!(states.last(), Some(&TaskState::Failed));
    assert!(message.contains("nobody-of-the-image"), "{message}");
    nothing_is_left(&world, &images).await;
}

/// Says so once it is asked to end, and again and again until then.
const STAYS: &str =
    "trap 'echo asked; exit 7' TERM; echo begun; while [ ! -e go ]; do sleep 0.05; done; echo last; exit 6";

pub(crate) async fn begun(world: &mut World, images: &Images, stream: &mut crate::master::AgentStream) {
    stream.say(&in_container(5, STAYS, busybox(images))).await;
    let running = world.update(stream, 5).await;
    assert_eq!(running.status.state, TaskState::Running, "{}", running.status.message);
    assert_eq!(world.line(&world.sandbox(5).join("stdout")).await, "begun");
}

/// Has the agent's calls of the engine go through a script that does this first.
pub(crate) fn through(world: &World, first: &str) {
    let program = world.dir.path().join("docker");
    fs::write(&program, format!("#!/bin/sh\n{first}\nexec docker \"$@\"\n")).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let more = format!("program = {program:?}\n");
    fs::write(world.config(), fs::read_to_string(world.config()).unwrap() + &more).unwrap();
}

async fn a_task_of_an_engine_is_measured_and_limited(_of_its_own: World) {
    let Some((mut world, images)) = world_with_engine().await else { return };
    let more = fs::read_to_string(world.config()).unwrap();
    fs::write(world.config(), format!("pids-max = 20\n{more}")).unwrap();
    let (mut stream, _) = world.join().await;
    let info = TaskInfo { container: Some(busybox(&images)), ..shell(STAYS) };
    let resources = Resources::of(100, 64);
    let order = RunOrder { resources, ..crate::world::order(5, &info) };
    stream.say(&AgentEvent::Run(Box::new(order))).await;
    assert_eq!(world.update(&mut stream, 5).await.status.state, TaskState::Running);
    world.line(&world.sandbox(5).join("stdout")).await;
    let shown = world.get("/monitor/statistics").await;
    let shown = &shown[0]["statistics"];
    assert_eq!(shown["mem_limit_bytes"], 64 << 20, "{shown}");
    assert!(
        shown["processes"].as_u64().unwrap() >= 1 && shown["mem_total_bytes"].as_u64().unwrap() > 0,
        "{shown}"
    );
    let own = only(&images);
    let engine = images.engine.as_ref().unwrap();
    let format = "--format={{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.CpuShares}} \
                  {{.HostConfig.PidsLimit}}";
    assert_eq!(engine.said(&["inspect", format, &own]), format!("{0} {0} 102 20", 64 << 20));
    let grace_ms = Some(60_000);
    stream.say(&AgentEvent::Kill { launch: launch(5), task: crate::world::key(5), grace_ms }).await;
    let (states, message) = world.outcome(&mut stream, 5).await;
    assert_eq!(states.last(), Some(&TaskState::Killed), "{message}");
    assert!(world.stdout(5).ends_with("asked\n"), "{}", world.stdout(5));
    let text = "for i in $(seq 40); do sleep 1000 & done; exit 5";
    stream.say(&in_container(6, text, busybox(&images))).await;
    let (_, message) = world.outcome(&mut stream, 6).await;
    let errors = fs::read_to_string(world.sandbox(6).join("stderr")).unwrap();
    assert!(errors.contains("can't fork"), "{message} {errors}");
    nothing_is_left(&world, &images).await;
}

/// What it may use changes with its tasks, so that nobody else limits it.
async fn an_executor_is_limited_by_the_agents_group_alone(_of_its_own: World) {
    let Some((mut world, images)) = world_with_engine().await else { return };
    let more = fs::read_to_string(world.config()).unwrap();
    fs::write(world.config(), format!("executor-grace-ms = 100\n{more}")).unwrap();
    let (mut stream, _) = world.join().await;
    let command = mesos::CommandInfo { value: Some("sleep 1000".into()), ..Default::default() };
    let executor = mesos::ExecutorInfo { container: Some(busybox(&images)), ..executor_info(command) };
    stream.say(&AgentEvent::Run(Box::new(in_executor(5, &executor, "")))).await;
    let engine = images.engine.as_ref().unwrap();
    while engine.said(&["ps", "--quiet"]).is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    let format = "--format={{.HostConfig.Memory}} {{.HostConfig.CgroupParent}}";
    let said = engine.said(&["inspect", format, &only(&images)]);
    assert!(said.starts_with("0 /") && said.ends_with("/1.5.0"), "{said}");
    let group = group_of(&world, "memory", 5);
    let limit = ["memory.limit_in_bytes", "memory.max"];
    let limit = limit.iter().find_map(|name| fs::read_to_string(group.join(name)).ok()).unwrap();
    assert_eq!(limit.trim().parse::<u64>().unwrap(), 32 << 20);
    let (framework_id, executor_id) = (FrameworkId::new("f1"), ExecutorId::new("e1"));
    stream.say(&AgentEvent::ShutdownExecutor { framework_id, executor_id }).await;
    let status = last(&mut world, &mut stream, 5).await.status; // it is not subscribed, so nobody asks it
    let expected = (TaskState::Failed, Some(Reason::ExecutorTerminated));
    assert_eq!((status.state, status.reason), expected, "{}", status.message);
    nothing_is_left(&world, &images).await;
}

/// Its containers are not in the agent's groups; here an engine only says that it is one such.
async fn an_engine_with_groups_of_systemd_limits_alone(_of_its_own: World) {
    let Some((mut world, images)) = world_with_engine().await else { return };
    through(&world, "[ \"$2\" != info ] || exec echo 20.10.24 linux systemd");
    let (mut stream, _) = world.join().await;
    let shown = world.get("/state").await["containerizers"]["docker"].as_str().unwrap().to_owned();
    assert!(shown.contains("engine 20.10.24") && shown.ends_with("cgroup driver systemd"), "{shown}");
    let text = "until [ -e go ]; do sleep 0.05; done; tail /dev/zero; echo over; sleep 1000";
    let info = TaskInfo { container: Some(busybox(&images)), ..shell(text) };
    let order = RunOrder { resources: Resources::of(100, 32), ..crate::world::order(5, &info) };
    stream.say(&AgentEvent::Run(Box::new(order))).await;
    assert_eq!(world.update(&mut stream, 5).await.status.state, TaskState::Running);
    fs::write(world.sandbox(5).join("go"), "").unwrap();
    let format = "--format={{.HostConfig.Memory}} {{.HostConfig.CgroupParent}}";
    let said = images.engine.as_ref().unwrap().said(&["inspect", format, &only(&images)]);
    assert!(said.starts_with(&(32 << 20).to_string()) && !said.ends_with("/1.5.0"), "{said}");
    world.line(&world.sandbox(5).join("stdout")).await; // a process of it was killed, which is told at its end
    images.engine.as_ref().unwrap().hears_of_memory().await;
    stream.say(&AgentEvent::Kill { launch: launch(5), task: crate::world::key(5), grace_ms: Some(1) }).await;
    let first = last(&mut world, &mut stream, 5).await;
    let message = "Memory limit exceeded: Requested: 32.0 MB Maximum Used: unknown";
    assert_eq!(&*first.status.message, message);
    let command = mesos::CommandInfo { value: Some("sleep 1000".into()), ..Default::default() };
    let executor = mesos::ExecutorInfo { container: Some(busybox(&images)), ..executor_info(command) };
    stream.say(&AgentEvent::Run(Box::new(in_executor(6, &executor, "")))).await;
    let second = last(&mut world, &mut stream, 6).await;
    assert!(second.status.message.contains("set its driver to cgroupfs"), "{}", second.status.message);
    nothing_is_left(&world, &images).await;
}
