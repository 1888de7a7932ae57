//! Task groups in the executor that agents have built in.

use crate::{
    master::AgentStream,
    runner::cases,
    world::{World, alive, key, launch, order, shell},
};
use futures::future::join_all;
use muster_model::{
    AgentCall, AgentEvent, ExecutorId, ExecutorOrder, LaunchNumber, Reason, Resources, RunOrder, Sealed,
    StatusUpdate, TaskGroup, TaskState,
};
use muster_proto::{
    executor_api::{container_id, nested_container},
    mesos,
};
use prost::Message;
use serde_json::json;
use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::PathBuf,
};

cases!(
    a_pod_runs_within_its_executor_and_ends_with_it,
    whoever_waits_for_what_never_ran_is_answered,
    a_task_that_fails_ends_its_group_and_no_other,
    a_pod_of_which_one_cannot_start_starts_none,
    a_pod_outlives_its_agent_and_keeps_its_rule,
    a_pod_of_an_agent_killed_at_any_moment_comes_to_its_end,
);

use TaskState::{Failed, Finished, Killed, Killing, Running, Starting};

const WAITS: &str = "echo $$ > up; while [ ! -e go ]; do sleep 0.01; done";

/// One of the tasks that were launched together as the `n`th.
pub(crate) fn in_pod(n: u64, place: u32, size: u32, what: &str) -> RunOrder {
    let executor = mesos::ExecutorInfo {
        r#type: Some(mesos::executor_info::Type::Default.into()),
        executor_id: mesos::ExecutorId { value: "pod".into() },
        ..Default::default()
    };
    let info = mesos::TaskInfo { executor: Some(executor.clone()), ..shell(what) };
    let kind = mesos::framework_info::capability::Type::TaskKillingState;
    let capability = mesos::framework_info::Capability { r#type: Some(kind.into()) };
    let framework = mesos::FrameworkInfo { capabilities: vec![capability], ..Default::default() };
    let first = launch(n);
    RunOrder {
        launch: LaunchNumber { n: place, ..first },
        task: key(10 * n + u64::from(place)),
        group: Some(TaskGroup { first, size }),
        framework: Sealed::new(framework.encode_to_vec()),
        executor: Some(Box::new(ExecutorOrder {
            executor_id: ExecutorId::new("pod"),
            resources: Resources::of(100, 32),
            grace_ms: None,
            built_in: true,
            sealed: Sealed::new(executor.encode_to_vec()),
        })),
        starting: true,
        ..order(n, &info)
    }
}

/// Where a task of the group that the executor was started for, or of a later one, works.
fn sandbox(world: &World, run: u64, task: u64) -> PathBuf {
    world.work_dir().join(format!("sandboxes/f1/pod/1.{run}.0/tasks/t{task}"))
}

/// A stream, and what came on it and was not asked for yet.
pub(crate) struct Ear {
    stream: AgentStream,
    early: VecDeque<AgentCall>,
    /// The last update of each launch that was told. It comes again as long as its confirmation is not durable.
    confirmed: BTreeMap<LaunchNumber, u32>,
}

impl Ear {
    pub(crate) fn new(stream: AgentStream) -> Self {
        Self { stream, early: VecDeque::new(), confirmed: BTreeMap::new() }
    }

    pub(crate) fn into_stream(self) -> AgentStream {
        self.stream
    }

    pub(crate) async fn run(&mut self, order: RunOrder) {
        self.stream.say(&AgentEvent::Run(Box::new(order))).await;
    }

    async fn kill(&mut self, n: u64, place: u32, grace_ms: Option<u64>) {
        let launch = LaunchNumber { n: place, ..launch(n) };
        let task = key(10 * n + u64::from(place));
        self.stream.say(&AgentEvent::Kill { launch, task, grace_ms }).await;
    }

    async fn next<T>(&mut self, wanted: impl Fn(&AgentCall) -> Option<T>) -> T {
        if let Some((i, found)) = self.early.iter().enumerate().find_map(|(i, it)| Some((i, wanted(it)?))) {
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

    /// What is told of a task from now on to this state, each once and confirmed.
    async fn told(&mut self, n: u64, place: u32, until: TaskState) -> Vec<StatusUpdate> {
        let of = LaunchNumber { n: place, ..launch(n) };
        let mut all: Vec<StatusUpdate> = Vec::new();
        loop {
            let update = self
                .next(|call| match call {
                    AgentCall::Status(update) if update.launch == of => Some(update.clone()),
                    _ => None,
                })
                .await;
            self.stream.say(&AgentEvent::Confirm { launch: of, seq: update.seq }).await;
            if self.confirmed.get(&of).is_none_or(|last| *last < update.seq) {
                self.confirmed.insert(of, update.seq);
                let state = update.status.state;
                all.push(update);
                assert!(state == until || !state.is_terminal(), "{all:?}");
                if state == until {
                    return all;
                }
            }
        }
    }

    pub(crate) async fn states(&mut self, n: u64, place: u32, until: TaskState) -> Vec<TaskState> {
        self.told(n, place, until).await.iter().map(|update| update.status.state).collect()
    }

    /// The number of the executor's run that ends next, and its status.
    async fn executor_ends(&mut self) -> (LaunchNumber, i32) {
        self.next(|call| match call {
            AgentCall::Executors { executors, .. } => {
                executors.iter().find_map(|it| Some((it.number, it.ended?)))
            }
            _ => None,
        })
        .await
    }
}

async fn a_pod_runs_within_its_executor_and_ends_with_it(mut world: World) {
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    let tells = format!("echo $MESOS_SANDBOX $MESOS_EXECUTOR_ID $MESOS_TASK_ID; {WAITS}");
    ear.run(in_pod(1, 0, 2, &tells)).await;
    ear.run(in_pod(1, 1, 2, &tells)).await;
    let (first, second) = (sandbox(&world, 1, 10), sandbox(&world, 1, 11));
    for place in [0, 1] {
        let told = ear.told(1, place, Running).await;
        assert_eq!(told.iter().map(|it| it.status.state).collect::<Vec<_>>(), [Starting, Running]);
        let status = mesos::TaskStatus::decode(&*told[1].status.sealed).unwrap();
        assert_eq!(status.executor_id.unwrap().value, "pod");
        let container = status.container_status.unwrap().container_id.unwrap();
        assert_eq!(container.parent.unwrap().value, container_id(launch(1)));
    }
    world.line(&first.join("up")).await;
    world.line(&second.join("up")).await;
    let said = fs::read_to_string(second.join("stdout")).unwrap();
    assert_eq!(said, format!("{} pod t11\n", second.display()));

    // It is shown as one executor with a container, and those of its tasks within.
    let containers = world.answer(json!({"type": "GET_CONTAINERS"})).await;
    let found = containers["get_containers"]["containers"].as_array().unwrap().clone();
    assert_eq!(found.len(), 1, "{containers}");
    assert_eq!(found[0]["container_id"], json!({"value": container_id(launch(1))}));
    let call = json!({"type": "GET_CONTAINERS", "get_containers": {"show_nested": true}});
    let containers = world.answer(call).await;
    let found = containers["get_containers"]["containers"].as_array().unwrap().clone();
    assert_eq!(found.len(), 3, "{containers}");
    let nested = nested_container(launch(1), LaunchNumber { n: 1, ..launch(1) });
    let id = json!({"value": nested.value, "parent": {"value": container_id(launch(1))}});
    assert!(found.iter().any(|it| it["container_id"] == id), "{containers}");
    let path = "/frameworks/f1/executors/pod/runs/latest/tasks/t11/stdout";
    let read = json!({"type": "READ_FILE", "read_file": {"path": path, "offset": 0}});
    assert_eq!(world.answer(read).await["read_file"]["size"], said.len());
    let state = world.post("GET /state HTTP/1.1", "").await.1;
    assert!(state.contains(r#""type":"DEFAULT""#), "{state}");

    // Another group joins it; it ends with the last of all.
    ear.run(in_pod(2, 0, 1, "exit 0")).await;
    assert_eq!(ear.states(2, 0, Finished).await.last(), Some(&Finished));
    fs::write(first.join("go"), "").unwrap();
    assert_eq!(ear.states(1, 0, Finished).await, [Finished]);
    let wait = json!({"type": "WAIT_NESTED_CONTAINER", "wait_nested_container": {"container_id": id}});
    let (waited, ()) = tokio::join!(world.answer(wait), async {
        fs::write(second.join("go"), "").unwrap();
    });
    assert_eq!(waited["wait_nested_container"]["exit_status"], 0, "{waited}");
    assert_eq!(ear.states(1, 1, Finished).await, [Finished]);
    assert_eq!(ear.executor_ends().await, (launch(1), 0));
    // The next run of that name has a sandbox of its own.
    ear.run(in_pod(3, 0, 1, "echo x")).await;
    assert_eq!(ear.states(3, 0, Finished).await.last(), Some(&Finished));
    assert_eq!(fs::read_to_string(sandbox(&world, 3, 30).join("stdout")).unwrap(), "x\n");
}

async fn whoever_waits_for_what_never_ran_is_answered(mut world: World) {
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    // The other of the two does not come.
    ear.run(in_pod(1, 0, 2, "true")).await;
    world.until("/state", |state| state.to_string().contains("t10").then_some(())).await;
    let nested = nested_container(launch(1), launch(1));
    let id = json!({"value": nested.value, "parent": {"value": container_id(launch(1))}});
    let wait = json!({"type": "WAIT_NESTED_CONTAINER", "wait_nested_container": {"container_id": id}});
    let (answers, ()) =
        tokio::join!(join_all((0..20).map(|_| world.call(wait.clone()))), ear.kill(1, 0, None));
    for (code, answer) in answers {
        // Whoever came after its end is told so.
        assert!(code == 404 || (code == 200 && !answer.contains("exit_status")), "{code}: {answer}");
    }
    ear.told(1, 0, Killed).await;
}

async fn a_task_that_fails_ends_its_group_and_no_other(mut world: World) {
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    let stubborn = "trap '' TERM; echo $$ > up; sleep 1000; sleep 1000";
    for (n, place, what) in [
        (1, 0, format!("{WAITS}; exit 3")),
        (1, 1, stubborn.into()),
        (2, 0, WAITS.into()),
        (2, 1, WAITS.into()),
    ] {
        ear.run(in_pod(n, place, 2, &what)).await;
    }
    let [failing, stubborn, other, killed] = [10, 11, 20, 21].map(|task| sandbox(&world, 1, task));
    let number = world.line(&stubborn.join("up")).await;
    for sandbox in [&failing, &other, &killed] {
        world.line(&sandbox.join("up")).await;
    }
    fs::write(failing.join("go"), "").unwrap();
    let told = ear.told(1, 0, Failed).await;
    assert_eq!(&*told.last().unwrap().status.message, "Command exited with status 3");
    // Asked first, forced after the grace.
    let told = ear.told(1, 1, Killed).await;
    let states: Vec<_> = told.iter().map(|update| update.status.state).collect();
    assert_eq!(states, [Starting, Running, Killing, Killed]);
    assert_eq!(&*told.last().unwrap().status.message, "Command terminated with signal SIGKILL");
    assert!(!alive(&number));
    // The other group runs on, until one of it is killed.
    assert!(alive(&world.line(&other.join("up")).await));
    ear.kill(2, 1, None).await;
    assert_eq!(ear.states(2, 1, Killed).await, [Starting, Running, Killing, Killed]);
    assert_eq!(ear.states(2, 0, Killed).await, [Starting, Running, Killing, Killed]);
    assert_eq!(ear.executor_ends().await, (launch(1), 0));
}

async fn a_pod_of_which_one_cannot_start_starts_none(mut world: World) {
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    ear.run(in_pod(1, 0, 2, "echo ran")).await;
    let uri = mesos::command_info::Uri { value: "/no/such/file".into(), ..Default::default() };
    let mut bad = in_pod(1, 1, 2, "echo ran");
    let mut info = mesos::TaskInfo::decode(&*bad.sealed).unwrap();
    info.command.as_mut().unwrap().uris = vec![uri];
    bad.sealed = Sealed::new(info.encode_to_vec());
    ear.run(bad).await;
    let failed = ear.told(1, 1, Failed).await;
    assert_eq!(failed.last().unwrap().status.reason, Some(Reason::ContainerLaunchFailed));
    let killed = ear.told(1, 0, Killed).await;
    assert_eq!(killed.last().unwrap().status.reason, Some(Reason::TaskKilledDuringLaunch));
    let out = fs::read_to_string(sandbox(&world, 1, 10).join("stdout")).unwrap_or_default();
    assert_eq!(out, "");
    assert_eq!(ear.executor_ends().await, (launch(1), 0));
}

async fn a_pod_outlives_its_agent_and_keeps_its_rule(mut world: World) {
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    ear.run(in_pod(1, 0, 2, &format!("{WAITS}; exit 1"))).await;
    ear.run(in_pod(1, 1, 2, WAITS)).await;
    let (first, second) = (sandbox(&world, 1, 10), sandbox(&world, 1, 11));
    for place in [0, 1] {
        ear.states(1, place, Running).await;
    }
    let [one, two] = [world.line(&first.join("up")).await, world.line(&second.join("up")).await];
    world.kill_agent();
    assert!(alive(&one) && alive(&two));
    // One fails while no agent is there.
    fs::write(first.join("go"), "").unwrap();
    world.gone(&one).await;
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    // What was told before may be told again, or with the hello.
    ear.states(1, 0, Failed).await;
    ear.states(1, 1, Killed).await;
    assert!(!alive(&two));
    assert_eq!(ear.executor_ends().await, (launch(1), 0));
}

async fn a_pod_of_an_agent_killed_at_any_moment_comes_to_its_end(mut world: World) {
    let runs = world.dir.path().join("runs");
    for n in 1..=12u64 {
        let (stream, _) = world.join().await;
        let mut ear = Ear::new(stream);
        let fails = format!("echo {n}.0 >> {0}; exit 1", runs.display());
        let waits = format!("echo {n}.1 >> {0}; sleep 1000", runs.display());
        ear.run(in_pod(n, 0, 2, &fails)).await;
        ear.run(in_pod(n, 1, 2, &waits)).await;
        // A little later each time: from before anything is held to after all is over.
        tokio::time::sleep(std::time::Duration::from_millis(4 * n)).await;
        world.kill_agent();
        let (stream, _) = world.join().await;
        let mut ear = Ear::new(stream);
        // What was not heard of is ordered again, as a leader does.
        ear.run(in_pod(n, 0, 2, &fails)).await;
        ear.run(in_pod(n, 1, 2, &waits)).await;
        for place in [0, 1] {
            let of = LaunchNumber { n: place, ..launch(n) };
            let state = ear
                .next(|call| match call {
                    AgentCall::Status(it) if it.launch == of && it.status.state.is_terminal() => {
                        Some(it.status.state)
                    }
                    AgentCall::Ended(it) if *it == of => Some(Finished),
                    _ => None,
                })
                .await;
            assert!(state != Finished, "{of} came to {state}");
        }
        world.kill_agent();
    }
    let ran = fs::read_to_string(&runs).unwrap_or_default();
    let mut lines: Vec<&str> = ran.lines().collect();
    let all = lines.len();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), all, "each starts once at most: {ran}");
}
