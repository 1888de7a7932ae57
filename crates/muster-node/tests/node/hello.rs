//! A hello fits a frame, however much is unconfirmed.

use crate::world::{config, key, launch};
use muster_model::{
    AgentCall, AgentEvent, AgentId, Fence, Hello, Index, Sealed, Session, Source, Status, StatusUpdate,
    TaskId, TaskKey, TaskState, Uuid, WallTime,
};
use muster_node::{Down, Effect, Input, Intent, Node, Record, Saved};

const TASKS: u64 = 2_000;

fn saved(tasks: u64, id_bytes: usize) -> Saved {
    let mut saved = Saved::default();
    for n in 1..=tasks {
        let launch = launch(&n.to_string());
        let task = TaskKey { task_id: TaskId::new(format!("{n:0id_bytes$}")), ..key(launch) };
        let status = Status {
            state: TaskState::Failed,
            source: Source::Executor,
            reason: None,
            message: "x".repeat(4 << 10).into(),
            wall: WallTime(0),
            sealed: Sealed::default(),
        };
        saved.apply(&Record::Intent(Box::new(Intent {
            launch,
            task: task.clone(),
            resources: Default::default(),
            grace_ms: None,
            user: "".into(),
            sealed: Sealed::default(),
        })));
        let update = StatusUpdate { launch, task, seq: 1, uuid: Uuid::of(launch, 1), status };
        saved.apply(&Record::Update(Box::new(update)));
    }
    saved
}

fn hello(effects: &[Effect]) -> &Hello {
    let hello = effects.iter().find_map(|effect| match effect {
        Effect::Send { call: AgentCall::Hello(hello, ..), .. } => Some(hello),
        _ => None,
    });
    hello.expect("a hello")
}

/// An agent that has said its hello.
fn says_hello(saved: Saved) -> (Node, Hello) {
    let mut node = Node::recover(config(), saved);
    let mut effects = Vec::new();
    node.step(0, Input::Begin, &mut effects);
    node.step(0, Input::StreamOpened { stream: 1 }, &mut effects);
    let leader = Down::Leader { name: String::new(), address: String::new() };
    node.step(0, frame(Session(0), leader), &mut effects);
    let hello = hello(&effects).clone();
    (node, hello)
}

fn frame(session: Session, down: Down) -> Input {
    Input::Frame { stream: 1, fence: Fence::default(), session, down }
}

fn message_bytes(hello: &Hello) -> usize {
    hello.tasks.iter().flat_map(|task| &task.updates).map(|one| one.status.message.len()).sum()
}

#[test]
fn updates_leave_room_for_all_tasks() {
    let (_, hello) = says_hello(saved(10_000, 250));
    assert_eq!(hello.tasks.len(), 10_000);
    // A frame has 4 MiB, and what else is said of a task takes some 100 bytes.
    let (tasks, messages) = (10_000 * (250 + 100), message_bytes(&hello));
    assert!(0 < messages && tasks + messages < 4 << 20, "{tasks} and {messages} bytes");
}

#[test]
fn what_does_not_fit_follows_the_welcome() {
    let (mut node, hello) = says_hello(saved(TASKS, 0));
    let bytes = message_bytes(&hello);
    assert!(bytes <= 1 << 20, "{bytes} bytes of messages");
    assert_eq!(hello.tasks.len() as u64, TASKS);
    let (whole, rest): (Vec<_>, Vec<_>) = hello.tasks.iter().partition(|task| !task.updates.is_empty());
    assert!(whole.iter().all(|task| !task.alive && task.state == TaskState::Failed));
    // Not yet known to have ended, or the registry would take it for lost.
    assert!(rest.iter().all(|task| task.alive && task.state == TaskState::Staging));

    let mut effects = Vec::new();
    let welcome = AgentEvent::Welcome {
        agent_id: AgentId::new("S1"),
        forget: Vec::new(),
        low_mark: Index(0),
        ping_ms: 1_000,
    };
    node.step(0, frame(Session(1), Down::Event(welcome)), &mut effects);
    // A part at a time, for a stream's queue is bounded too, and each once before any is repeated.
    let said = |effects: &mut Vec<Effect>| {
        let launch = |effect| match effect {
            Effect::Send { call: AgentCall::Status(update), .. } => Some(update.launch),
            _ => None,
        };
        effects.drain(..).filter_map(launch).collect::<Vec<_>>()
    };
    let mut all = said(&mut effects);
    let (first, mut last_ms) = (all.len(), 0);
    while all.len() < rest.len() {
        last_ms = node.wake_at().unwrap();
        node.step(last_ms, Input::Wake, &mut effects);
        let part = said(&mut effects);
        assert!(part.len() <= 250, "{} updates at once", part.len());
        all.extend(part);
    }
    assert!((1..=250).contains(&first) && last_ms <= TASKS / 250 * 20, "the last at {last_ms} ms");
    assert_eq!(all, rest.iter().map(|task| task.launch).collect::<Vec<_>>());
}
