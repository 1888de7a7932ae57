//! Limits that the kernel holds. They take root: without it each says so and passes.

use crate::{
    executor::{executor_info, in_executor},
    runner::cases,
    world::{World, launch, order, shell},
};
use muster_model::{
    AgentCall, AgentEvent, ExecutorId, FrameworkId, Reason, Resources, StatusUpdate, TaskState,
    event::RunOrder,
};
use muster_proto::mesos::{self, TaskInfo, task_info::LimitsEntry};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::sleep;

cases!(
    a_task_without_memory_left_is_ended_with_the_limit_and_the_peak,
    memory_is_freed_for_nobody_else_by_a_child_that_is_killed,
    a_quota_of_processor_time_holds,
    a_limit_of_processes_holds,
    what_a_group_used_is_shown,
    a_task_may_use_more_than_it_holds_where_its_limits_say_so,
    an_executor_grows_with_its_tasks,
    an_agent_that_is_killed_finds_its_task_under_the_same_limits,
    what_a_task_leaves_in_its_group_ends_with_it,
    orphans_of_the_own_groups_end_and_no_others,
    two_agents_never_share_a_group,
    without_groups_a_task_is_refused_unless_that_is_allowed,
);

/// Whether the test can be done here. Where all must be done it fails if it cannot.
pub(crate) fn may_run() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must run this as root");
    println!("skipped: making control groups takes root");
    false
}

fn configure(world: &World, more: &str) {
    let text = fs::read_to_string(world.config()).unwrap();
    fs::write(world.config(), text + more).unwrap();
}

fn task(n: u64, cpus_milli: u64, mem_mb: u64, command: &str) -> AgentEvent {
    let resources = Resources::of(cpus_milli, mem_mb);
    AgentEvent::Run(Box::new(RunOrder { resources, ..order(n, &shell(command)) }))
}

/// Where the group of a launch is in the hierarchy of a controller.
pub(crate) fn group_of(world: &World, controller: &str, n: u64) -> PathBuf {
    let named = |dir: &PathBuf| {
        let mount = dir.parent().and_then(Path::file_name).unwrap_or_default();
        mount.to_string_lossy().split(',').any(|name| name == controller)
            || fs::read_to_string(dir.join("cgroup.controllers"))
                .is_ok_and(|all| all.split_whitespace().any(|name| name == controller))
    };
    let root = world.group_dirs().into_iter().find(named).expect("the controller");
    let mut keys =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    keys.next().expect("the agent's group").join(launch(n).to_string())
}

/// What `/proc/PID/cgroup` calls that group.
pub(crate) fn name_of_group(world: &World, controller: &str, n: u64) -> String {
    let group = group_of(world, controller, n);
    let below = group.strip_prefix("/sys/fs/cgroup").unwrap();
    below.iter().skip(1).collect::<PathBuf>().to_string_lossy().into_owned()
}

/// The first of these files that is there, as version 1 and 2 have them.
fn read(dir: &Path, names: [&str; 2]) -> String {
    let text = names.iter().find_map(|name| fs::read_to_string(dir.join(name)).ok());
    text.unwrap_or_else(|| panic!("none of {names:?} in {}", dir.display())).trim_end().to_owned()
}

const MEMORY: [&str; 2] = ["memory.limit_in_bytes", "memory.max"];

/// No group of a container is left.
fn assert_no_groups(world: &World) {
    for root in world.group_dirs() {
        for key in
            fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
        {
            let left: Vec<_> = fs::read_dir(&key)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.is_dir())
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

async fn ended(world: &mut World, stream: &mut crate::master::AgentStream, n: u64) -> StatusUpdate {
    loop {
        let update = world.update(stream, n).await;
        if update.status.state.is_terminal() {
            return update;
        }
    }
}

/// Takes 200 MB and would tell.
const HOG: &str = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo had ${#x}";

async fn a_task_without_memory_left_is_ended_with_the_limit_and_the_peak(mut world: World) {
    if !may_run() {
        return;
    }
    let (mut stream, _) = world.join().await;
    stream.say(&task(1, 100, 32, &format!("exec /bin/sh -c \"{}\"", HOG.replace('$', "\\$")))).await;
    let update = ended(&mut world, &mut stream, 1).await;
    let status = &update.status;
    let message = &*status.message;
    assert_eq!((status.state, status.reason), (TaskState::Failed, Some(Reason::ContainerLimitationMemory)));
    assert!(message.contains("Memory limit exceeded: Requested: 32.0 MB Maximum Used: 32.0 MB"), "{message}");
    let whole = muster_proto::mesos_status(&update.task.task_id, None, status, Some(&update.uuid)).unwrap();
    let limited = whole.limitation.unwrap().resources;
    assert_eq!(limited.len(), 1);
    assert_eq!((limited[0].name.as_str(), limited[0].scalar.unwrap().value), ("mem", 32.0));
    assert!(whole.container_status.unwrap().container_id.is_some() && whole.timestamp.unwrap() > 0.0);
    assert_eq!(world.stdout(1), "");
    assert_no_groups(&world);
}

async fn memory_is_freed_for_nobody_else_by_a_child_that_is_killed(mut world: World) {
    if !may_run() {
        return;
    }
    let (mut stream, _) = world.join().await;
    // Its child is what the kernel kills; the task itself would go on for ever.
    let command = "head -c 200000000 /dev/zero | tail -c 200000000 > never; while true; do sleep 1; done";
    stream.say(&task(1, 100, 32, command)).await;
    let update = ended(&mut world, &mut stream, 1).await;
    assert_eq!(update.status.reason, Some(Reason::ContainerLimitationMemory), "{}", update.status.message);
    assert_no_groups(&world);
}

async fn a_quota_of_processor_time_holds(mut world: World) {
    if !may_run() {
        return;
    }
    configure(&world, "cgroup-cpu-quota = true\n");
    let (mut stream, _) = world.join().await;
    stream.say(&task(1, 50, 32, "while true; do :; done")).await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, TaskState::Running);
    let cpu = group_of(&world, "cpu", 1);
    let used_us = || match fs::read_to_string(group_of(&world, "cpuacct", 1).join("cpuacct.usage")) {
        Ok(nanos) => nanos.trim().parse::<u64>().unwrap() / 1_000,
        Err(_) => stat(&cpu, "usage_usec"),
    };
    // Both are counted by the kernel alone: periods that passed while it wanted to run, and what it got.
    while stat(&cpu, "nr_periods") < 20 {
        sleep(Duration::from_millis(20)).await;
    }
    // In each period it gets 5 ms; the kernel hands time out in slices, and a period may have begun meanwhile.
    let used = used_us();
    let periods = stat(&cpu, "nr_periods");
    assert!(used <= (periods + 2) * 5_000 + 30_000, "{used} us in {periods} periods");
    assert!(stat(&cpu, "nr_throttled") >= 10, "it was held back");
    world.kill_task(&mut stream, 1).await;
    assert_no_groups(&world);
}

fn stat(dir: &Path, key: &str) -> u64 {
    let text = fs::read_to_string(dir.join("cpu.stat")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{key} in {text}")).parse().unwrap()
}

async fn what_a_group_used_is_shown(mut world: World) {
    if !may_run() {
        return;
    }
    configure(&world, "cgroup-cpu-quota = true\n");
    let (mut stream, _) = world.join().await;
    let command = "head -c 3000000 /dev/zero > file; sleep 1000 & sleep 1000 & while true; do :; done";
    stream.say(&task(1, 50, 48, command)).await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, TaskState::Running);
    let used = |it: &serde_json::Value| {
        let it = it[0]["statistics"].clone();
        // The two are counted one after the other, while it may still be forking.
        let all = it["processes"] == 3 && it["threads"] == 3;
        // The kernel counts times when it is let go on and at a tick of the clock, and memory now and then.
        let counted = |name: &str| it[name].as_f64() > Some(0.0);
        let times = counted("cpus_throttled_time_secs")
            && (counted("cpus_user_time_secs") || counted("cpus_system_time_secs"));
        let memory = it["mem_cache_bytes"].as_f64() >= Some(3e6) && counted("mem_rss_bytes");
        (counted("cpus_nr_throttled") && times && memory && all).then_some(it)
    };
    let it = world.until("/monitor/statistics", used).await;
    for (name, value) in [
        ("cpus_limit", 0.05),
        ("cpus_soft_limit", 0.05),
        ("mem_limit_bytes", f64::from(48 << 20)),
        ("mem_soft_limit_bytes", f64::from(48 << 20)),
    ] {
        assert_eq!(it[name].as_f64(), Some(value), "{name}: {it}");
    }
    let number = |name: &str| it[name].as_f64().unwrap_or_else(|| panic!("{name}: {it}"));
    assert!(number("mem_total_bytes") >= number("mem_cache_bytes"));
    // The same by the other ways.
    let shown = world.get("/containers").await;
    assert_eq!(shown[0]["statistics"]["processes"], 3);
    let shown = world.answer(serde_json::json!({"type": "GET_CONTAINERS"})).await;
    assert_eq!(shown["get_containers"]["containers"][0]["resource_statistics"]["cpus_limit"], 0.05);
}

async fn a_limit_of_processes_holds(mut world: World) {
    if !may_run() {
        return;
    }
    configure(&world, "pids-max = 12\n");
    let (mut stream, _) = world.join().await;
    let forks = "mkfifo wait; (i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i+1)); done) 2> forks; \
                 echo full > full; read never < wait";
    stream.say(&task(1, 100, 64, forks)).await;
    world.line(&world.sandbox(1).join("full")).await;
    let pids = group_of(&world, "pids", 1);
    let current: u64 = read(&pids, ["pids.current", "pids.current"]).parse().unwrap();
    assert!((2..=12).contains(&current), "{current}");
    assert_eq!(read(&pids, ["pids.max", "pids.max"]), "12");
    let events = fs::read_to_string(pids.join("pids.events")).unwrap();
    assert!(!events.starts_with("max 0\n"), "forks failed: {events}");
    world.kill_task(&mut stream, 1).await;
    assert_no_groups(&world);
}

async fn a_task_may_use_more_than_it_holds_where_its_limits_say_so(mut world: World) {
    if !may_run() {
        return;
    }
    let (mut stream, _) = world.join().await;
    let limit = |name: &str, value| LimitsEntry {
        key: Some(name.into()),
        value: Some(mesos::value::Scalar { value }),
    };
    let limits = vec![limit("mem", 512.0), limit("cpus", 1.5)];
    let info = TaskInfo { limits, ..shell("while [ ! -e go ]; do sleep 0.01; done") };
    let resources = Resources::of(250, 64);
    stream.say(&AgentEvent::Run(Box::new(RunOrder { resources, ..order(1, &info) }))).await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, TaskState::Running);
    assert_eq!(read(&group_of(&world, "memory", 1), MEMORY), (512 << 20).to_string());
    let cpu = group_of(&world, "cpu", 1);
    assert!(["150000", "150000 100000"].contains(&&*read(&cpu, ["cpu.cfs_quota_us", "cpu.max"])));
    assert!(["256", "10"].contains(&&*read(&cpu, ["cpu.shares", "cpu.weight"])));
    fs::write(world.sandbox(1).join("go"), "").unwrap();
    assert_eq!(ended(&mut world, &mut stream, 1).await.status.state, TaskState::Finished);
}

async fn an_executor_grows_with_its_tasks(mut world: World) {
    if !may_run() {
        return;
    }
    let (mut stream, _) = world.join().await;
    let command = mesos::CommandInfo { value: Some("exec sleep 1000".into()), ..Default::default() };
    let resources = muster_proto::wire_resources(&Resources::of(100, 40));
    let info = mesos::ExecutorInfo { resources, ..executor_info(command) };
    let executor = |n: u64| RunOrder { resources: Resources::of(200, 24), ..in_executor(n, &info, "") };
    stream.say(&AgentEvent::Run(Box::new(executor(1)))).await;
    let memory = |world: &World| {
        let dirs = world.group_dirs();
        let is_there = !dirs.is_empty() && group_of(world, "memory", 1).is_dir();
        is_there.then(|| read(&group_of(world, "memory", 1), MEMORY))
    };
    let until = async |world: &World, mb: u64| {
        while memory(world) != Some((mb << 20).to_string()) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    until(&world, 64).await;
    stream.say(&AgentEvent::Run(Box::new(executor(2)))).await;
    until(&world, 88).await;
    // On the disk, or the next agent knows nothing of it.
    let is_second =
        |launches: &[muster_model::LaunchNumber]| launches.iter().any(|it| it.index == launch(2).index);
    while !matches!(stream.hear().await.unwrap().1, AgentCall::Accepted(launches) if is_second(&launches)) {}
    // Also by an agent that finds it there.
    world.kill_agent();
    let (mut stream, _) = world.join().await;
    stream.say(&AgentEvent::Run(Box::new(executor(3)))).await;
    until(&world, 112).await;
    let (framework_id, executor_id) = (FrameworkId::new("f1"), ExecutorId::new("e1"));
    stream.say(&AgentEvent::ShutdownExecutor { framework_id, executor_id }).await;
    loop {
        match stream.hear().await.unwrap().1 {
            AgentCall::Executors { executors, .. } if executors.iter().any(|it| it.ended.is_some()) => break,
            _ => {}
        }
    }
    assert_no_groups(&world);
}

async fn an_agent_that_is_killed_finds_its_task_under_the_same_limits(mut world: World) {
    if !may_run() {
        return;
    }
    let (mut stream, _) = world.join().await;
    let command = format!("echo up > up; while [ ! -e go ]; do sleep 0.01; done; {HOG}");
    stream.say(&task(1, 100, 48, &command)).await;
    world.line(&world.sandbox(1).join("up")).await;
    world.kill_agent();
    let (mut stream, hello) = world.join().await;
    assert_eq!(hello.tasks.iter().filter(|task| task.alive).count(), 1);
    assert_eq!(read(&group_of(&world, "memory", 1), MEMORY), (48 << 20).to_string());
    // It is ended by its limit also while no agent is there, and the next one tells.
    world.kill_agent();
    fs::write(world.sandbox(1).join("go"), "").unwrap();
    while group_of(&world, "memory", 1).is_dir() {
        sleep(Duration::from_millis(5)).await;
    }
    drop(stream);
    (stream, _) = world.join().await;
    let update = ended(&mut world, &mut stream, 1).await;
    assert_eq!(update.status.reason, Some(Reason::ContainerLimitationMemory), "{}", update.status.message);
    assert!(update.status.message.contains("48.0 MB"), "{}", update.status.message);
    assert_no_groups(&world);
}

async fn what_a_task_leaves_in_its_group_ends_with_it(mut world: World) {
    if !may_run() {
        return;
    }
    let (mut stream, _) = world.join().await;
    // A session of its own, and none of the supervisor's children: only the group knows it.
    let command = "setsid sh -c 'echo $$ > left; exec sleep 1000' < /dev/null & while [ ! -s left ]; do sleep 0.01; done";
    stream.say(&task(1, 100, 32, command)).await;
    assert_eq!(ended(&mut world, &mut stream, 1).await.status.state, TaskState::Finished);
    let left = world.line(&world.sandbox(1).join("left")).await;
    assert!(!crate::world::alive(&left), "it is told to have ended when nothing is left of it");
    assert_no_groups(&world);
}

async fn orphans_of_the_own_groups_end_and_no_others(mut world: World) {
    if !may_run() {
        return;
    }
    let (mut stream, _) = world.join().await;
    stream.say(&task(1, 100, 32, "echo up > up; sleep 1000")).await;
    world.line(&world.sandbox(1).join("up")).await;
    world.kill_agent();
    let own = group_of(&world, "memory", 1);
    let (key, root) = (own.parent().unwrap(), own.parent().unwrap().parent().unwrap());
    let put = |dir: PathBuf| {
        fs::create_dir_all(&dir).unwrap();
        let child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        fs::write(dir.join("cgroup.procs"), child.id().to_string()).unwrap();
        child
    };
    let mut orphan = put(key.join("1.77.0/nested"));
    let mut others = put(root.join("another-agent/1.77.0"));
    let (_stream, hello) = world.join().await;
    assert!(hello.tasks.iter().any(|task| task.alive), "its own task lives");
    assert!(!orphan.wait().unwrap().success(), "ended before the agent said hello");
    assert!(!key.join("1.77.0").exists());
    assert!(others.try_wait().unwrap().is_none(), "another agent's");
    others.kill().unwrap();
    others.wait().unwrap();
}

async fn two_agents_never_share_a_group(mut world: World) {
    if !may_run() {
        return;
    }
    let (_stream, _) = world.join().await;
    // The same directory under another name, as in a container: the lock file is another, the groups are not.
    let text = fs::read_to_string(world.config()).unwrap();
    fs::write(world.config(), text.replace(&format!("port = {}", world.port), "port = 0")).unwrap();
    fs::remove_file(world.work_dir().join("lock")).unwrap();
    let second = world.command().output().unwrap();
    assert!(!second.status.success());
    let log = fs::read_to_string(world.dir.path().join("log")).unwrap();
    assert!(log.contains("is in use by another agent") && log.contains("cgroup-root of its own"), "{log}");
}

async fn without_groups_a_task_is_refused_unless_that_is_allowed(mut world: World) {
    let text = fs::read_to_string(world.config()).unwrap();
    let text = text.replace(&format!("{:?}", world.groups), "''").replace("limits = true", "limits = false");
    fs::write(world.config(), &text).unwrap();
    let (mut stream, _) = world.join().await;
    stream.say(&task(1, 100, 32, "echo ran")).await;
    let update = ended(&mut world, &mut stream, 1).await;
    let status = &update.status;
    assert_eq!((status.state, status.reason), (TaskState::Failed, Some(Reason::ContainerLaunchFailed)));
    assert!(
        status.message.contains("cannot limit memory") && status.message.contains("cgroup-root is empty"),
        "{}",
        status.message
    );
    assert!(!world.sandbox(1).join("stdout").exists());
    world.kill_agent();
    fs::write(world.config(), text.replace("limits = false", "limits = true")).unwrap();
    let (mut stream, _) = world.join().await;
    stream.say(&task(2, 100, 32, "echo ran")).await;
    assert_eq!(ended(&mut world, &mut stream, 2).await.status.state, TaskState::Finished);
    assert_eq!(world.stdout(2), "ran\n");
}
