//! Executors that speak the Mesos v1 API, as processes of their own (`executor.py`).

use crate::{
    master::AgentStream,
    runner::cases,
    world::{World, alive, key, launch, parent, signal},
};
use muster_model::{
    AgentCall, AgentEvent, ExecutorId, ExecutorOrder, FrameworkId, LaunchNumber, Reason, Resources, Sealed,
    StatusUpdate, TaskGroup, TaskState, VolumeMount, VolumeNumber, event::RunOrder,
};
use muster_proto::mesos::{self, CommandInfo, ExecutorInfo, TaskInfo, command_info};
use prost::Message;
use rustix::process::Signal;
use std::{collections::VecDeque, fs, path::PathBuf};

cases!(
    tasks_share_an_executor_that_keeps_what_they_say,
    a_group_is_told_at_once_or_not_at_all,
    a_task_whose_volume_cannot_be_mounted_is_not_handed,
    an_executor_outlives_its_agent,
    an_update_that_no_agent_heard_is_said_again,
    an_executor_that_does_not_subscribe_is_ended,
    an_executor_that_does_not_come_back_is_ended,
    an_executor_that_dies_takes_its_tasks_with_it,
    an_executor_is_asked_to_end_and_made_to,
    what_a_command_names_is_fetched,
    what_cannot_be_fetched_is_said,
    an_agent_killed_at_any_moment_hands_nothing_twice,
    calls_are_checked_as_mesos_checks_them,
);

use TaskState::{Dropped, Failed, Finished, Gone, Killed, Running};

fn script() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/agent/executor.py")
}

pub(crate) fn executor_info(command: CommandInfo) -> ExecutorInfo {
    ExecutorInfo {
        executor_id: mesos::ExecutorId { value: "e1".into() },
        command: Some(command),
        data: Some(b"own data".to_vec().into()),
        ..Default::default()
    }
}

pub(crate) fn python(words: &str) -> CommandInfo {
    let value = format!("exec python3 {} {words}", script().display());
    CommandInfo { value: Some(value), ..Default::default() }
}

pub(crate) fn in_executor(n: u64, executor: &ExecutorInfo, what: &str) -> RunOrder {
    let info = TaskInfo {
        name: format!("task {n}"),
        task_id: mesos::TaskId { value: format!("t{n}") },
        agent_id: mesos::AgentId { value: "c1-S1".into() },
        executor: Some(executor.clone()),
        data: Some(what.as_bytes().to_vec().into()),
        ..Default::default()
    };
    let framework = mesos::FrameworkInfo { user: "nobody".into(), name: "fw".into(), ..Default::default() };
    RunOrder {
        launch: launch(n),
        task: key(n),
        resources: Resources::of(100, 32),
        grace_ms: None,
        user: "".into(),
        killed: false,
        sealed: Sealed::new(info.encode_to_vec()),
        framework: Sealed::new(framework.encode_to_vec()),
        executor: Some(Box::new(ExecutorOrder {
            executor_id: ExecutorId::new("e1"),
            resources: Resources::of(100, 32),
            grace_ms: None,
            built_in: false,
            sealed: Sealed::new(executor.encode_to_vec()),
        })),
        group: None,
        volumes: Vec::new(),
        starting: true, // which only the executor can tell
        terms: Default::default(),
    }
}

/// A leader's ear: what comes is taken in the order in which it is waited for.
pub(crate) struct Ear {
    stream: AgentStream,
    early: VecDeque<AgentCall>,
}

impl Ear {
    pub(crate) fn new(stream: AgentStream) -> Self {
        Self { stream, early: VecDeque::new() }
    }

    pub(crate) async fn run(&mut self, order: RunOrder) {
        self.stream.say(&AgentEvent::Run(Box::new(order))).await;
    }

    async fn next<T>(&mut self, wanted: impl Fn(&AgentCall) -> Option<T>) -> T {
        if let Some((i, found)) = self.early.iter().enumerate().find_map(|(i, call)| Some((i, wanted(call)?)))
        {
            self.early.remove(i);
            return found;
        }
        loop {
            let (_, call) = self.stream.hear().await.expect("an open stream");
            match wanted(&call) {
                Some(found) => return found,
                None => self.early.push_back(call),
            }
        }
    }

    /// The next update of a launch; it is confirmed.
    async fn update(&mut self, n: u64) -> StatusUpdate {
        let update = self
            .next(|call| match call {
                AgentCall::Status(update) if update.launch == launch(n) => Some(update.clone()),
                _ => None,
            })
            .await;
        self.stream.say(&AgentEvent::Confirm { launch: launch(n), seq: update.seq }).await;
        update
    }

    /// The next update of this state; those before it are passed over.
    pub(crate) async fn reaches(&mut self, n: u64, state: TaskState) -> StatusUpdate {
        loop {
            let update = self.update(n).await;
            assert!(update.status.state == state || !update.status.state.is_terminal(), "{update:?}");
            if update.status.state == state {
                return update;
            }
        }
    }

    /// The end of an executor's run, which is confirmed.
    pub(crate) async fn executor_ends(&mut self) -> (LaunchNumber, i32) {
        let ended = self
            .next(|call| match call {
                AgentCall::Executors { executors, .. } => {
                    executors.iter().find_map(|known| known.ended.map(|status| (known.number, status)))
                }
                _ => None,
            })
            .await;
        self.stream.say(&AgentEvent::ConfirmExecutor(ended.0)).await;
        ended
    }

    pub(crate) async fn shut_down(&mut self) {
        let (framework_id, executor_id) = (FrameworkId::new("f1"), ExecutorId::new("e1"));
        self.stream.say(&AgentEvent::ShutdownExecutor { framework_id, executor_id }).await;
    }
}

impl World {
    /// The sandbox of the executor that was started for a launch.
    pub(crate) fn executors(&self, n: u64) -> PathBuf {
        self.work_dir().join(format!("sandboxes/f1/e1/1.{n}.0"))
    }

    fn lines(&self, n: u64, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.executors(n).join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn add_to_config(&self, line: &str) {
        let text = fs::read_to_string(self.config()).unwrap();
        fs::write(self.config(), format!("{text}{line}\n")).unwrap();
    }
}

fn whole(update: &StatusUpdate) -> mesos::TaskStatus {
    mesos::TaskStatus::decode(&*update.status.sealed).unwrap()
}

async fn tasks_share_an_executor_that_keeps_what_they_say(mut world: World) {
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    let executor = executor_info(python(""));
    ear.run(in_executor(1, &executor, "run")).await;
    ear.run(in_executor(2, &executor, "finish")).await;
    let first = ear.reaches(1, Running).await;
    let status = whole(&first);
    assert_eq!(status.data(), b"up t1");
    assert_eq!(status.uuid(), first.uuid.0);
    assert_eq!((status.healthy(), status.labels.unwrap().labels[0].key.as_str()), (true, "a"));
    assert_eq!(status.executor_id, None, "it was not said");
    let container = status.container_status.unwrap().container_id.unwrap().value;
    assert_eq!(container, muster_proto::executor_api::container_id(launch(1)));
    let over = ear.reaches(2, Finished).await;
    assert_eq!(&*over.status.message, "all done");
    assert_eq!(whole(&over).container_status.unwrap().container_id.unwrap().value, container, "the same");

    let subscribed: Vec<String> = world.lines(1, "subscribed");
    assert_eq!(subscribed.len(), 1);
    let told = &subscribed[0];
    for part in [
        r#""executor_id": {"value": "e1"}"#,
        r#""id": {"value": "f1"}"#,
        r#""id": {"value": "c1-S1"}"#,
        r#""hostname": "here""#,
        &format!(r#""container_id": {{"value": "{container}"}}"#),
    ] {
        assert!(told.contains(part), "{part} is not in {told}");
    }

    let (framework_id, executor_id) = (FrameworkId::new("f1"), ExecutorId::new("e1"));
    let data = b"hello".to_vec();
    ear.stream.say(&AgentEvent::Message { framework_id, executor_id, data }).await;
    let heard = ear
        .next(|call| match call {
            AgentCall::Message { data, .. } => Some(data.clone()),
            _ => None,
        })
        .await;
    assert_eq!(heard, b"olleh");

    let kill = |grace_ms| AgentEvent::Kill { launch: launch(1), task: key(1), grace_ms };
    ear.stream.say(&kill(Some(7_000))).await;
    ear.reaches(1, Killed).await;
    assert!(world.lines(1, "kills")[0].contains("7000000000"), "{:?}", world.lines(1, "kills"));
    // It lives on, and is given more.
    ear.run(in_executor(3, &executor, "finish")).await;
    ear.reaches(3, Finished).await;
    ear.shut_down().await;
    assert_eq!(ear.executor_ends().await, (launch(1), 0));
    assert_eq!(world.lines(1, "launches"), ["t1", "t2", "t3"]);
    assert_eq!(world.lines(1, "refusals"), [""; 0]);
    // Another run, with a sandbox of its own.
    ear.run(in_executor(4, &executor, "finish")).await;
    ear.reaches(4, Finished).await;
    assert_eq!(world.lines(4, "launches"), ["t4"]);
}

/// One of two tasks that were launched together as the `n`th.
fn in_group(n: u64, place: u32, executor: &ExecutorInfo, what: &str) -> RunOrder {
    let first = launch(n);
    let mut order = in_executor(10 * n + u64::from(place), executor, what);
    order.launch = LaunchNumber { n: place, ..first };
    order.group = Some(TaskGroup { first, size: 2 });
    order
}

/// A volume at a place in the sandbox.
fn volume(number: u64, at: &str) -> VolumeMount {
    VolumeMount {
        number: VolumeNumber(1 << 40 | number),
        container_path: at.into(),
        read_only: false,
        executor: false,
    }
}

async fn a_task_whose_volume_cannot_be_mounted_is_not_handed(mut world: World) {
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    let executor = executor_info(python(""));
    ear.run(in_executor(1, &executor, "run")).await;
    ear.reaches(1, Running).await;
    // What it wants to be seen at is a file of the executor's.
    let order = in_executor(2, &executor, "run");
    ear.run(RunOrder { volumes: vec![volume(5, "launches")], ..order }).await;
    let failed = ear.reaches(2, Failed).await;
    assert_eq!(failed.status.reason, Some(Reason::ContainerLaunchFailed));
    assert!(failed.status.message.contains("'launches'"), "{}", failed.status.message);
    // Nor is any task that was launched with such a one.
    let (one, other) = (in_group(3, 0, &executor, "run"), in_group(3, 1, &executor, "run"));
    ear.run(RunOrder { volumes: vec![volume(6, "well")], ..one }).await;
    ear.run(RunOrder { volumes: vec![volume(7, "launches")], ..other }).await;
    for place in [0, 1] {
        let of = LaunchNumber { n: place, ..launch(3) };
        let failed = |call: &AgentCall| match call {
            AgentCall::Status(update) if update.launch == of => Some(update.status.clone()),
            _ => None,
        };
        let status = ear.next(failed).await;
        assert_eq!((status.state, status.reason), (Failed, Some(Reason::ContainerLaunchFailed)));
    }
    // The executor goes on, and one that can be mounted is there when its task is told of.
    let order = in_executor(4, &executor, "write there/file");
    ear.run(RunOrder { volumes: vec![volume(8, "there")], ..order }).await;
    ear.reaches(4, Running).await;
    assert_eq!(world.lines(1, "launches"), ["t1", "t4"]);
    let kept = world.work_dir().join(format!("volumes/{}/file", 1u64 << 40 | 8));
    assert_eq!(fs::read_to_string(kept).unwrap(), "t4\n");
}

async fn a_group_is_told_at_once_or_not_at_all(mut world: World) {
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    let executor = executor_info(python(""));
    ear.run(in_group(1, 0, &executor, "run")).await;
    // It subscribes, and is told of nothing.
    world.line(&world.executors(1).join("subscribed")).await;
    let waiting = world.post("GET /state HTTP/1.1", "").await.1;
    assert!(waiting.contains(r#""tasks":[],"queued_tasks":[{"id":"t10""#), "{waiting}");
    ear.run(in_group(1, 1, &executor, "run")).await;
    let of = |n, place, state| {
        move |call: &AgentCall| match call {
            AgentCall::Status(update)
                if update.launch == LaunchNumber { n: place, ..launch(n) }
                    && update.status.state == state =>
            {
                Some(update.clone())
            }
            _ => None,
        }
    };
    for place in [0, 1] {
        ear.next(of(1, place, Running)).await;
    }
    assert_eq!(world.lines(1, "groups"), ["t10 t11"]);
    // One of the next is killed before the other comes.
    ear.run(in_group(2, 0, &executor, "run")).await;
    let first = launch(2);
    ear.stream.say(&AgentEvent::Kill { launch: first, task: key(20), grace_ms: None }).await;
    ear.run(in_group(2, 1, &executor, "run")).await;
    for place in [0, 1] {
        let update = ear.next(of(2, place, Killed)).await;
        assert_eq!(update.status.reason, Some(Reason::TaskKilledDuringLaunch));
    }
    // Also by an agent that died between.
    ear.run(in_group(3, 1, &executor, "run")).await;
    ear.next(|call| match call {
        AgentCall::Accepted(launches) if launches.iter().any(|it| it.index == launch(3).index) => Some(()),
        _ => None,
    })
    .await;
    world.kill_agent();
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    ear.run(in_group(3, 0, &executor, "finish")).await;
    ear.next(of(3, 1, Running)).await;
    ear.next(of(3, 0, Finished)).await;
    assert_eq!(world.lines(1, "groups"), ["t10 t11", "t30 t31"]);
    assert_eq!(world.lines(1, "launches"), ["t10", "t11", "t30", "t31"], "each once");
}

async fn an_executor_outlives_its_agent(mut world: World) {
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    let executor = executor_info(python(""));
    ear.run(in_executor(1, &executor, "run")).await;
    ear.run(in_executor(2, &executor, "silence")).await;
    ear.reaches(1, Running).await;
    while world.lines(1, "launches").len() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let number = world.line(&world.executors(1).join("up")).await;
    world.kill_agent();
    assert!(alive(&number));

    let (stream, hello) = world.join().await;
    assert_eq!(hello.tasks.iter().filter(|task| task.alive).count(), 2);
    let mut ear = Ear::new(stream);
    let lives = ear
        .next(|call| match call {
            AgentCall::Executors { executors, all: true } => Some(executors[0].number),
            _ => None,
        })
        .await;
    assert_eq!(lives, launch(1));
    // One more joins the run that came back.
    ear.run(in_executor(3, &executor, "finish")).await;
    ear.reaches(3, Finished).await;
    // The one that never said a word was not lost, since its executor listed it.
    for n in [1, 2] {
        ear.stream.say(&AgentEvent::Kill { launch: launch(n), task: key(n), grace_ms: None }).await;
        ear.reaches(n, Killed).await;
    }
    assert_eq!(world.lines(1, "launches"), ["t1", "t2", "t3"], "each once");
    assert_eq!(world.line(&world.executors(1).join("up")).await, number, "the same process");
}

async fn an_update_that_no_agent_heard_is_said_again(mut world: World) {
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    let executor = executor_info(python(""));
    ear.run(in_executor(1, &executor, "run")).await;
    ear.reaches(1, Running).await;
    let number = world.line(&world.executors(1).join("up")).await;
    // Stopped, the executor is told of the kill when no agent is there any more to hear of it. It has read all that came before.
    world.line(&world.executors(1).join("acknowledged")).await;
    world.halt(&number).await;
    ear.stream.say(&AgentEvent::Kill { launch: launch(1), task: key(1), grace_ms: None }).await;
    world.has_unread(&number).await;
    world.kill_agent();
    signal(&number, Signal::CONT);
    let (stream, _) = world.join().await;
    Ear::new(stream).reaches(1, Killed).await;
}

async fn an_executor_that_does_not_subscribe_is_ended(mut world: World) {
    world.add_to_config("executor-registration-ms = 200");
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    ear.run(in_executor(1, &executor_info(python("late")), "run")).await;
    let update = ear.reaches(1, Failed).await;
    assert_eq!(update.status.reason, Some(Reason::ExecutorRegistrationTimeout));
    assert_eq!(ear.executor_ends().await, (launch(1), 9));
    // On a busy machine it may have been ended before it said who it is.
    let number = fs::read_to_string(world.executors(1).join("up")).unwrap_or_default();
    assert!(!alive(number.trim()));
}

async fn an_executor_that_does_not_come_back_is_ended(mut world: World) {
    world.add_to_config("executor-reregistration-ms = 200");
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    ear.run(in_executor(1, &executor_info(python("")), "run")).await;
    ear.reaches(1, Running).await;
    let pid = world.line(&world.executors(1).join("up")).await;
    let number = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(number, rustix::process::Signal::STOP).unwrap();
    world.kill_agent();
    let (stream, _) = world.join().await;
    let update = Ear::new(stream).reaches(1, Gone).await;
    assert_eq!(update.status.reason, Some(Reason::ExecutorReregistrationTimeout));
    world.gone(&pid).await;
}

async fn an_executor_that_dies_takes_its_tasks_with_it(mut world: World) {
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    let executor = executor_info(python(""));
    ear.run(in_executor(1, &executor, "run")).await;
    ear.reaches(1, Running).await;
    ear.run(in_executor(2, &executor, "die")).await;
    for n in [1, 2] {
        let update = ear.reaches(n, Failed).await;
        assert_eq!(update.status.reason, Some(Reason::ExecutorTerminated));
        assert_eq!(&*update.status.message, "Executor exited with status 3");
    }
    assert_eq!(ear.executor_ends().await, (launch(1), 3 << 8));
}

async fn an_executor_is_asked_to_end_and_made_to(mut world: World) {
    world.add_to_config("executor-grace-ms = 100");
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    let executor = executor_info(python("stays"));
    ear.run(in_executor(1, &executor, "run")).await;
    ear.reaches(1, Running).await;
    // Its supervisor stands still, so that it is made to end only when it was asked and all else was seen.
    let supervisor = parent(&world.line(&world.executors(1).join("up")).await);
    world.halt(&supervisor).await;
    ear.shut_down().await;
    // A task for one that is about to end.
    ear.run(in_executor(2, &executor, "run")).await;
    let update = ear.reaches(2, Dropped).await;
    assert_eq!(update.status.reason, Some(Reason::ExecutorTerminated));
    world.line(&world.executors(1).join("shutdowns")).await;
    signal(&supervisor, Signal::CONT);
    assert_eq!(ear.executor_ends().await, (launch(1), 9));
    assert_eq!(ear.reaches(1, Failed).await.status.reason, Some(Reason::ExecutorTerminated));
    assert_eq!(world.lines(1, "shutdowns"), ["asked"]);
}

async fn what_a_command_names_is_fetched(mut world: World) {
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    let uri = command_info::Uri {
        value: format!("file://{}", script().display()),
        output_file: Some("run.py".into()),
        ..Default::default()
    };
    let command = CommandInfo {
        value: Some("python3".into()),
        shell: Some(false),
        arguments: vec!["python3".into(), "run.py".into()],
        uris: vec![uri],
        ..Default::default()
    };
    ear.run(in_executor(1, &executor_info(command), "finish")).await;
    ear.reaches(1, Finished).await;
}

async fn what_cannot_be_fetched_is_said(mut world: World) {
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    let uris = vec![command_info::Uri { value: "hdfs://host/run".into(), ..Default::default() }];
    let command = CommandInfo { uris, ..python("") };
    ear.run(in_executor(1, &executor_info(command), "run")).await;
    let update = ear.reaches(1, Failed).await;
    assert_eq!(update.status.reason, Some(Reason::ContainerLaunchFailed));
    assert!(
        update.status.message.contains("hdfs://host/run': hdfs is not supported"),
        "{}",
        update.status.message
    );
    ear.executor_ends().await;
}

/// The agent dies at ever later moments of a hand-over: each task is handed once, or is said not to have been.
async fn an_agent_killed_at_any_moment_hands_nothing_twice(mut world: World) {
    let executor = executor_info(python(""));
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    ear.run(in_executor(1, &executor, "run")).await;
    ear.reaches(1, Running).await;
    for n in 2..14_u64 {
        ear.run(in_executor(n, &executor, "finish")).await;
        let moment = std::time::Duration::from_micros((n - 2) * 1_500);
        let _ = tokio::time::timeout(moment, async { while ear.stream.hear().await.is_some() {} }).await;
        world.kill_agent();
        let (stream, hello) = world.join().await;
        ear = Ear::new(stream);
        if !hello.tasks.iter().any(|task| task.launch == launch(n)) {
            // As a leader does that never heard of it.
            ear.run(in_executor(n, &executor, "finish")).await;
        }
        loop {
            let update = match hello.tasks.iter().find(|task| task.launch == launch(n)) {
                Some(known) if known.state.is_terminal() => break,
                _ => ear.update(n).await,
            };
            if update.status.state.is_terminal() {
                assert!(matches!(update.status.state, Finished | Dropped), "{update:?}");
                break;
            }
        }
    }
    let mut launches = world.lines(1, "launches");
    let count = launches.len();
    launches.sort();
    launches.dedup();
    assert_eq!(launches.len(), count, "one was handed twice");
}

async fn calls_are_checked_as_mesos_checks_them(mut world: World) {
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    ear.run(in_executor(1, &executor_info(python("late")), "run")).await;
    world.line(&world.executors(1).join("up")).await;
    let post = "POST /slave(1)/api/v1/executor HTTP/1.1\r\nContent-Type: application/json";
    let who = r#""framework_id":{"value":"f1"},"executor_id":{"value":"e1"}"#;
    let status = |more: &str| {
        format!(r#"{{"type":"UPDATE",{who},"update":{{"status":{{"task_id":{{"value":"t1"}}{more}}}}}}}"#)
    };
    let uuid = r#","uuid":"jhsbsOVmQ3C1zXX1nqHvZA==""#;
    let good = r#","state":"TASK_RUNNING","source":"SOURCE_EXECUTOR","uuid":"jhsbsOVmQ3C1zXX1nqHvZA==""#;
    for (head, body, code, text) in [
        ("GET /api/v1/executor HTTP/1.1", String::new(), 405, "Expecting one of"),
        ("POST /api/v2/executor HTTP/1.1", String::new(), 404, "404 Not Found."),
        ("POST /api/v1/executor HTTP/1.1", "{}".into(), 400, "Expecting 'Content-Type' to be present"),
        (
            "POST /slave%281%29/api/v1/executor HTTP/1.1\r\nContent-Type: text/plain",
            "{}".into(),
            415,
            "Expecting 'Content-Type' of application/json or application/x-protobuf",
        ),
        (post, "{".into(), 400, "Failed to parse body into JSON"),
        (post, format!(r#"{{"type":"FROB",{who}}}"#), 400, "Failed to validate Executor::Call: Expecting 'type' to be present"),
        (post, format!(r#"{{"type":"UPDATE",{who}}}"#), 400, "Expecting 'update' to be present"),
        (post, format!(r#"{{"type":"SUBSCRIBE",{who}}}"#), 400, "Expecting 'subscribe' to be present"),
        (post, status(r#","state":"TASK_RUNNING""#), 400, "Expecting 'uuid' to be present"),
        (post, status(r#","state":"TASK_RUNNING","uuid":"AAAA""#), 400, "Not a valid UUID"),
        (post, status(&format!(r#","state":"TASK_RUNNING"{uuid}"#)), 400, "with invalid source"),
        (post, status(&good.replace("RUNNING", "STAGING")), 400, "TASK_STAGING"),
        (post, status(&format!(r#"{good},"executor_id":{{"value":"e2"}}"#)), 400, "does not match"),
        (
            post,
            r#"{"type":"MESSAGE","framework_id":{"value":"f1"},"executor_id":{"value":"nope"},"message":{"data":"aGk="}}"#.into(),
            400,
            "Executor cannot be found",
        ),
        (
            post,
            r#"{"type":"SUBSCRIBE","framework_id":{"value":"f9"},"executor_id":{"value":"e1"},"subscribe":{}}"#.into(),
            400,
            "Framework cannot be found",
        ),
        (post, status(good), 403, "Executor is not subscribed"),
        (post, format!(r#"{{"type":"HEARTBEAT",{who}}}"#), 202, ""),
    ] {
        let (answered, said) = world.post(head, &body).await;
        assert_eq!(answered, code, "{head} {body}: {said}");
        assert!(said.contains(text), "{head} {body}: {said}");
    }
    let nothing = "POST /api/v1/executor HTTP/1.1\r\nContent-Type: application/json\r\nAccept: text/html";
    let (answered, said) =
        world.post(nothing, &format!(r#"{{"type":"SUBSCRIBE",{who},"subscribe":{{}}}}"#)).await;
    assert_eq!(answered, 406, "{said}");
}
