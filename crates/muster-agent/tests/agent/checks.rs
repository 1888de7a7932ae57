//! Health checks, checks and completion times of tasks that the agent runs itself.

use crate::{
    limits::name_of_group,
    master::AgentStream,
    runner::cases,
    world::{World, alive, launch, order, shell},
};
use mesos::{CheckInfo, CommandInfo, HealthCheck, TaskInfo, check_info, health_check};
use muster_model::{AgentEvent, Reason, RunOrder, StatusUpdate, TaskState};
use muster_proto::mesos;
use prost::Message;
use std::{
    fs,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

cases!(
    an_unhealthy_task_is_killed_and_says_so,
    a_task_is_healthy_by_http_and_tcp,
    a_probe_that_hangs_is_ended_and_counts_as_failed,
    a_check_tells_what_it_finds,
    a_check_is_in_the_group_and_of_the_user_of_its_task,
    a_check_whose_program_is_gone_finds_nothing,
    checks_go_on_after_a_restart,
    a_task_has_its_time_and_no_more,
    a_time_goes_on_while_the_agent_is_away,
    a_check_that_cannot_be_run_is_refused,
);

use TaskState::{Error, Failed, Killed, Running};

const LIVES: &str = "echo $$ > up; while :; do sleep 0.02; done";

fn command(text: &str) -> CommandInfo {
    CommandInfo { value: Some(text.into()), ..Default::default() }
}

/// A health check that is eager.
fn health(check: HealthCheck) -> HealthCheck {
    HealthCheck {
        delay_seconds: Some(0.0),
        interval_seconds: Some(0.05),
        grace_period_seconds: Some(0.0),
        consecutive_failures: Some(2),
        ..check
    }
}

async fn run(stream: &mut AgentStream, n: u64, info: &TaskInfo) {
    stream.say(&AgentEvent::Run(Box::new(order(n, info)))).await;
}

fn whole(update: &StatusUpdate) -> mesos::TaskStatus {
    mesos::TaskStatus::decode(&*update.status.sealed).unwrap()
}

/// How the command of a check ended last.
fn exit_code(status: &mesos::TaskStatus) -> Option<i32> {
    status.check_status.as_ref().unwrap().command.as_ref().unwrap().exit_code
}

/// The next update for a reason.
async fn told(world: &mut World, stream: &mut AgentStream, n: u64, reason: Reason) -> mesos::TaskStatus {
    loop {
        let update = world.update(stream, n).await;
        assert!(!update.status.state.is_terminal(), "{update:?}");
        if update.status.reason == Some(reason) {
            assert_eq!(update.status.state, Running);
            return whole(&update);
        }
    }
}

async fn an_unhealthy_task_is_killed_and_says_so(mut world: World) {
    let (mut stream, _) = world.join().await;
    // The check runs in the sandbox, with the task's variables and its own.
    let variable = crate::world::variable("ITS", "own");
    let environment = Some(mesos::Environment { variables: vec![variable] });
    let text = "echo $MESOS_TASK_ID $ITS >> looks; test -e well";
    let check =
        HealthCheck { command: Some(CommandInfo { environment, ..command(text) }), ..Default::default() };
    // It may be looked at before it is well, which does not count then.
    let check = HealthCheck { grace_period_seconds: Some(60.0), ..health(check) };
    let info = TaskInfo { health_check: Some(check), ..shell(&format!("touch well; {LIVES}")) };
    run(&mut stream, 1, &info).await;
    let reason = Reason::TaskHealthCheckStatusUpdated;
    assert_eq!(told(&mut world, &mut stream, 1, reason).await.healthy, Some(true));
    let number = world.line(&world.sandbox(1).join("up")).await;
    fs::remove_file(world.sandbox(1).join("well")).unwrap();
    for _ in 0..2 {
        assert_eq!(told(&mut world, &mut stream, 1, reason).await.healthy, Some(false));
    }
    let ended = loop {
        let update = world.update(&mut stream, 1).await;
        if update.status.state.is_terminal() {
            break update;
        }
    };
    assert_eq!((ended.status.state, whole(&ended).healthy), (Killed, Some(false)));
    assert!(!alive(&number));
    assert_eq!(world.line(&world.sandbox(1).join("looks")).await.lines().next(), Some("t1 own"));
}

async fn a_task_is_healthy_by_http_and_tcp(mut world: World) {
    let (mut stream, _) = world.join().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = u32::from(listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 1024];
            let n = client.read(&mut bytes).await.unwrap_or(0);
            let code = if bytes[..n].starts_with(b"GET /well ") { "302 Found" } else { "500 Bad" };
            let answer = format!("HTTP/1.1 {code}\r\nContent-Length: 0\r\n\r\n");
            let _ = client.write_all(answer.as_bytes()).await; // one that only connects is gone
        }
    });
    let http =
        |path: &str| health_check::HttpCheckInfo { port, path: Some(path.into()), ..Default::default() };
    let tcp = health_check::TcpCheckInfo { port, ..Default::default() };
    let kind = Some(health_check::Type::Tcp.into());
    for (n, check, expected) in [
        (1, HealthCheck { http: Some(http("/well")), ..Default::default() }, true),
        (2, HealthCheck { http: Some(http("/ill")), ..Default::default() }, false),
        (3, HealthCheck { tcp: Some(tcp), r#type: kind, ..Default::default() }, true),
    ] {
        run(&mut stream, n, &TaskInfo { health_check: Some(health(check)), ..shell(LIVES) }).await;
        let status = told(&mut world, &mut stream, n, Reason::TaskHealthCheckStatusUpdated).await;
        assert_eq!(status.healthy, Some(expected), "task {n}: {status:?}");
    }
    server.abort();
}

async fn a_probe_that_hangs_is_ended_and_counts_as_failed(mut world: World) {
    let (mut stream, _) = world.join().await;
    let check = HealthCheck {
        command: Some(command("echo $$ >> hangs; sleep 1000")),
        timeout_seconds: Some(3.0), // enough for one of two to say that it hangs
        ..Default::default()
    };
    let info = TaskInfo { health_check: Some(health(check)), ..shell(LIVES) };
    run(&mut stream, 1, &info).await;
    let status = told(&mut world, &mut stream, 1, Reason::TaskHealthCheckStatusUpdated).await;
    assert_eq!(status.healthy, Some(false));
    assert_eq!(world.outcome(&mut stream, 1).await.0.last(), Some(&Killed));
    let numbers = fs::read_to_string(world.sandbox(1).join("hangs")).unwrap();
    for number in numbers.lines() {
        assert!(!alive(number), "{number} was left over");
    }
}

async fn a_check_tells_what_it_finds(mut world: World) {
    let (mut stream, _) = world.join().await;
    let check = CheckInfo {
        r#type: Some(check_info::Type::Command.into()),
        command: Some(check_info::Command { command: command("exit $(cat code)") }),
        delay_seconds: Some(0.0),
        interval_seconds: Some(0.05),
        ..Default::default()
    };
    let text = format!("echo 3 > code; {LIVES}");
    run(&mut stream, 1, &TaskInfo { check: Some(check), ..shell(&text) }).await;
    let first = world.update(&mut stream, 1).await;
    assert_eq!((first.status.state, first.status.reason), (Running, None));
    assert_eq!(exit_code(&whole(&first)), None, "before it ran");
    let reason = Reason::TaskCheckStatusUpdated;
    while exit_code(&told(&mut world, &mut stream, 1, reason).await) != Some(3) {}
    fs::write(world.sandbox(1).join("code"), "7").unwrap();
    while exit_code(&told(&mut world, &mut stream, 1, reason).await) != Some(7) {}
    // What it found last is told with the end, too.
    stream.say(&AgentEvent::Kill { launch: launch(1), task: crate::world::key(1), grace_ms: None }).await;
    let ended = loop {
        let update = world.update(&mut stream, 1).await;
        if update.status.state.is_terminal() {
            break update;
        }
    };
    assert_eq!((ended.status.state, exit_code(&whole(&ended))), (Killed, Some(7)));
}

async fn a_check_is_in_the_group_and_of_the_user_of_its_task(mut world: World) {
    if !crate::limits::may_run() {
        return;
    }
    fs::set_permissions(world.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (mut stream, _) = world.join().await;
    let script = "id -u > of; cat /proc/self/cgroup >> of; mv of is";
    let check = CheckInfo {
        r#type: Some(check_info::Type::Command.into()),
        command: Some(check_info::Command { command: command(script) }),
        delay_seconds: Some(0.0),
        ..Default::default()
    };
    let info = TaskInfo { check: Some(check), ..shell(LIVES) };
    let run = RunOrder { user: "nobody".into(), ..order(1, &info) };
    stream.say(&AgentEvent::Run(Box::new(run))).await;
    let reason = Reason::TaskCheckStatusUpdated;
    while exit_code(&told(&mut world, &mut stream, 1, reason).await) != Some(0) {}
    let is = fs::read_to_string(world.sandbox(1).join("is")).unwrap();
    assert_eq!(is.lines().next(), Some("65534"));
    let below = name_of_group(&world, "memory", 1);
    assert!(is.contains(&below), "{is} has no {below}");
}

async fn a_check_whose_program_is_gone_finds_nothing(mut world: World) {
    let (mut stream, _) = world.join().await;
    // None that another program reads: that would not find it, and say so with a status.
    let look = CommandInfo {
        shell: Some(false),
        value: Some("./look".into()),
        arguments: ["sh", "-c", "exit 3"].map(Into::into).to_vec(),
        ..Default::default()
    };
    let check = CheckInfo {
        r#type: Some(check_info::Type::Command.into()),
        command: Some(check_info::Command { command: look }),
        delay_seconds: Some(0.0),
        interval_seconds: Some(0.05),
        ..Default::default()
    };
    let text = format!("cp /bin/sh of; mv of look; {LIVES}");
    run(&mut stream, 1, &TaskInfo { check: Some(check), ..shell(&text) }).await;
    let reason = Reason::TaskCheckStatusUpdated;
    while exit_code(&told(&mut world, &mut stream, 1, reason).await) != Some(3) {}
    fs::remove_file(world.sandbox(1).join("look")).unwrap();
    let status = told(&mut world, &mut stream, 1, reason).await;
    assert_eq!(exit_code(&status), None, "not the status of a process that ran: {status:?}");
}

async fn checks_go_on_after_a_restart(mut world: World) {
    let (mut stream, _) = world.join().await;
    let check = HealthCheck { command: Some(command("test ! -e ill")), ..Default::default() };
    let info = TaskInfo { health_check: Some(health(check)), ..shell(LIVES) };
    run(&mut stream, 1, &info).await;
    let reason = Reason::TaskHealthCheckStatusUpdated;
    assert_eq!(told(&mut world, &mut stream, 1, reason).await.healthy, Some(true));
    world.kill_agent();
    fs::write(world.sandbox(1).join("ill"), "").unwrap();
    let (mut stream, _) = world.join().await;
    let status = told(&mut world, &mut stream, 1, reason).await;
    assert_eq!(status.healthy, Some(false));
    assert_eq!(world.outcome(&mut stream, 1).await.0.last(), Some(&Killed));
}

fn limited(seconds: f64, text: &str) -> TaskInfo {
    let max_completion_time = Some(mesos::DurationInfo { nanoseconds: (seconds * 1e9) as i64 });
    TaskInfo { max_completion_time, ..shell(text) }
}

async fn a_task_has_its_time_and_no_more(mut world: World) {
    let (mut stream, _) = world.join().await;
    run(&mut stream, 1, &limited(0.3, &format!("trap '' TERM; {LIVES}"))).await;
    run(&mut stream, 2, &limited(600.0, "exit 0")).await;
    for (n, state, reason) in
        [(1, Failed, Some(Reason::MaxCompletionTimeReached)), (2, TaskState::Finished, None)]
    {
        let ended = loop {
            let update = world.update(&mut stream, n).await;
            if update.status.state.is_terminal() {
                break update;
            }
        };
        assert_eq!((ended.status.state, ended.status.reason), (state, reason));
    }
}

async fn a_time_goes_on_while_the_agent_is_away(mut world: World) {
    const LIMIT: Duration = Duration::from_secs(2);
    let (mut stream, _) = world.join().await;
    let began = Instant::now();
    run(&mut stream, 1, &limited(LIMIT.as_secs_f64(), LIVES)).await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, Running);
    let number = world.line(&world.sandbox(1).join("up")).await;
    world.kill_agent();
    assert!(alive(&number) || began.elapsed() >= LIMIT);
    let (mut stream, _) = world.join().await;
    let (states, _) = world.outcome(&mut stream, 1).await;
    assert_eq!(states.last(), Some(&Failed));
    let took = began.elapsed();
    assert!(took >= LIMIT, "{took:?}: not at once because the agent came back");
}

async fn a_check_that_cannot_be_run_is_refused(mut world: World) {
    let (mut stream, _) = world.join().await;
    let check = HealthCheck { command: Some(command("test\0")), ..Default::default() };
    let order: RunOrder = order(1, &TaskInfo { health_check: Some(check), ..shell("true") });
    stream.say(&AgentEvent::Run(Box::new(order))).await;
    let update = world.update(&mut stream, 1).await;
    assert_eq!((update.status.state, update.status.reason), (Error, Some(Reason::TaskInvalid)));
    assert!(update.status.message.contains("NUL"), "{}", update.status.message);
}
