//! Starting commands and reporting their ends.

use crate::{
    runner::cases,
    world::{World, launch, order, shell, variable},
};
use muster_model::{AgentCall, AgentEvent, Reason, Session, TaskState, Uuid, event::RunOrder};
use muster_proto::mesos::{CommandInfo, Environment, TaskInfo};
use std::fs;

cases!(
    a_command_runs_and_its_end_is_reported,
    a_task_is_told_to_be_starting_where_its_order_says_so,
    the_environment_is_the_tasks,
    ends_are_told_apart,
    what_cannot_run_says_why,
    many_at_once,
    another_user_runs_it,
);

use TaskState::{Error, Failed, Finished, Running, Starting};

async fn a_command_runs_and_its_end_is_reported(mut world: World) {
    let (mut stream, hello) = world.join().await;
    assert_eq!(hello.agent_id, None);
    assert_eq!(&*hello.info.hostname, "here");
    assert_eq!(hello.info.resources.scalar("cpus"), 4_000);
    assert!(hello.info.resources.scalar("disk") > 0, "probed");
    assert!(hello.tasks.is_empty());

    let executors = AgentCall::Executors { executors: Vec::new(), all: true };
    assert_eq!(stream.hear().await, Some((Session(1), executors)), "after each welcome");
    world.run(&mut stream, 7, "echo Hello, World!; echo oops >&2").await;
    assert_eq!(stream.hear().await, Some((Session(1), AgentCall::Accepted(vec![launch(7)]))));
    let running = world.unconfirmed(&mut stream, 7).await;
    assert_eq!((running.seq, running.status.state), (1, Running));
    assert_eq!(running.uuid, Uuid::of(launch(7), 1));
    let mut finished = world.unconfirmed(&mut stream, 7).await;
    while finished == running {
        finished = world.unconfirmed(&mut stream, 7).await; // the first came again before it
    }
    assert_eq!((finished.seq, finished.status.state), (2, Finished));
    assert_eq!(&*finished.status.message, "Command exited with status 0");
    assert_eq!(world.stdout(7), "Hello, World!\n");
    assert_eq!(fs::read_to_string(world.sandbox(7).join("stderr")).unwrap(), "oops\n");

    // Unconfirmed, so both come again; confirmed, so the next hello knows nothing of it.
    assert_eq!(world.unconfirmed(&mut stream, 7).await, running);
    assert_eq!(world.unconfirmed(&mut stream, 7).await, finished);
    stream.say(&AgentEvent::Confirm { launch: launch(7), seq: 2 }).await;
    stream.say(&AgentEvent::Ping(5)).await;
    while stream.hear().await != Some((Session(1), AgentCall::Pong(5))) {}
    stream.leader(2).await;
    match stream.hear().await {
        Some((_, AgentCall::Hello(hello, ..))) => {
            assert_eq!((hello.agent_id.unwrap().as_str(), hello.tasks.len()), ("c1-S1", 0))
        }
        other => panic!("{other:?} instead of a hello"),
    }
}

async fn a_task_is_told_to_be_starting_where_its_order_says_so(mut world: World) {
    let (mut stream, _) = world.join().await;
    for (n, what) in [(1, "true"), (2, "exit 3")] {
        let order = RunOrder { starting: true, ..order(n, &shell(what)) };
        stream.say(&AgentEvent::Run(Box::new(order))).await;
    }
    world.run(&mut stream, 3, "true").await;
    assert_eq!(world.outcome(&mut stream, 3).await.0, [Running, Finished]);
    assert_eq!(world.outcome(&mut stream, 1).await.0, [Starting, Running, Finished]);
    assert_eq!(world.outcome(&mut stream, 2).await.0, [Starting, Running, Failed]);
}

async fn the_environment_is_the_tasks(mut world: World) {
    let (mut stream, _) = world.join().await;
    let variables = vec![variable("MINE", "a b"), variable("MESOS_TASK_ID", "another")];
    let info = TaskInfo {
        command: Some(CommandInfo {
            value: Some("echo $MINE,$MESOS_TASK_ID,$MESOS_FRAMEWORK_ID,$MESOS_AGENT_ID,$HOME; pwd; echo $MESOS_SANDBOX; cat; ps -o sid= -p $$; echo $$".into()),
            environment: Some(Environment { variables }),
            ..Default::default()
        }),
        ..Default::default()
    };
    stream.say(&AgentEvent::Run(Box::new(order(3, &info)))).await;
    let (states, _) = world.outcome(&mut stream, 3).await;
    assert_eq!(states, [Running, Finished]);
    let stdout = world.stdout(3);
    let lines: Vec<&str> = stdout.lines().map(str::trim).collect();
    let sandbox = world.sandbox(3).display().to_string();
    assert_eq!(lines[..3], ["a b,t3,f1,c1-S1,", sandbox.as_str(), sandbox.as_str()]);
    assert_eq!(lines[3], lines[4], "a session of its own");
}

async fn ends_are_told_apart(mut world: World) {
    let (mut stream, _) = world.join().await;
    for (n, text, state, message) in [
        (1, "exit 0", Finished, "Command exited with status 0"),
        (2, "exit 3", Failed, "Command exited with status 3"),
        (3, "kill -TERM $$", Failed, "Command terminated with signal SIGTERM"),
        (4, "kill -KILL $$", Failed, "Command terminated with signal SIGKILL"),
    ] {
        world.run(&mut stream, n, text).await;
        let outcome = world.outcome(&mut stream, n).await;
        assert_eq!(outcome, (vec![Running, state], message.to_owned()), "{text}");
    }
}

async fn what_cannot_run_says_why(mut world: World) {
    let (mut stream, _) = world.join().await;
    let plain = |value: &str| TaskInfo {
        command: Some(CommandInfo { value: Some(value.into()), shell: Some(false), ..Default::default() }),
        ..Default::default()
    };
    let container = TaskInfo { container: Some(Default::default()), ..shell("true") };
    for (n, info, state, reason, part) in [
        (1, TaskInfo::default(), Error, Reason::TaskInvalid, "no command"),
        (2, container, Error, Reason::TaskInvalid, "container"),
        (3, plain("/does/not/exist"), Failed, Reason::ContainerLaunchFailed, "/does/not/exist"),
        (4, plain("/etc/passwd"), Failed, Reason::ContainerLaunchFailed, "ermission denied"),
    ] {
        stream.say(&AgentEvent::Run(Box::new(order(n, &info)))).await;
        let update = world.update(&mut stream, n).await;
        assert_eq!((update.status.state, update.status.reason), (state, Some(reason)));
        assert!(update.status.message.contains(part), "{}", update.status.message);
    }
}

async fn many_at_once(mut world: World) {
    let (mut stream, _) = world.join().await;
    let start = std::time::Instant::now();
    for n in 1..=100 {
        world.run(&mut stream, n, "echo $MESOS_TASK_ID").await;
    }
    for n in 1..=100 {
        assert_eq!(world.outcome(&mut stream, n).await.0, [Running, Finished], "task {n}");
        assert_eq!(world.stdout(n), format!("t{n}\n"));
    }
    println!("100 tasks from order to end in {:?}", start.elapsed());
}

async fn another_user_runs_it(mut world: World) {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can run tasks as another user");
    }
    // The directories above the sandbox must be passable for that user.
    fs::set_permissions(world.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (mut stream, _) = world.join().await;
    let mut mine = order(1, &shell("id -un; touch made; ulimit -n"));
    mine.user = "nobody".into();
    stream.say(&AgentEvent::Run(Box::new(mine))).await;
    assert_eq!(world.outcome(&mut stream, 1).await.0, [Running, Finished]);
    let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap();
    assert_eq!(world.stdout(1), format!("nobody\n{open_files}\n"));
    assert!(world.sandbox(1).join("made").exists());
    let mut unknown = order(2, &shell("true"));
    unknown.user = "no-such-user".into();
    stream.say(&AgentEvent::Run(Box::new(unknown))).await;
    let update = world.update(&mut stream, 2).await;
    assert_eq!((update.status.state, update.status.reason), (Failed, Some(Reason::ContainerLaunchFailed)));
    assert!(update.status.message.contains("no-such-user"));
}
