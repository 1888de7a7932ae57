//! A hello fits a frame, however much is unconfirmed.

use crate::world::{self, key, launch};
use muster_model::{
    AgentCall, AgentEvent, AgentId, Fence, Hello, Index, KnownTask, Label, Reservation, Resources, Role,
    Sealed, Session, Source, Status, StatusUpdate, TaskId, TaskKey, TaskState, Uuid, Value, WallTime,
    event::RunOrder,
};
use muster_node::{Down, Effect, Input, Intent, Node, NodeConfig, Record, Saved};
use std::{collections::BTreeSet, sync::Arc};

const TASKS: u64 = 2_000;

fn saved(tasks: u64, id_bytes: usize, resources: &Resources) -> Saved {
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
            resources: resources.clone(),
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

fn config() -> NodeConfig {
    NodeConfig { tasks_max: 10_000, ..world::config() }
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

fn welcome() -> Input {
    let welcome = AgentEvent::Welcome {
        agent_id: AgentId::new("S1"),
        forget: Vec::new(),
        low_mark: Index(0),
        ping_ms: 60_000,
    };
    frame(Session(1), Down::Event(welcome))
}

fn message_bytes(hello: &Hello) -> usize {
    hello.tasks.iter().flat_map(|task| &task.updates).map(|one| one.status.message.len()).sum()
}

/// Four kinds that are reserved.
fn reserved() -> Resources {
    let reservation = Reservation {
        dynamic: true,
        role: Role::parse("a-role-of-some-length").unwrap(),
        principal: Some("a-principal-of-some-length".into()),
        labels: Vec::new(),
    };
    let mut all = Resources::none();
    let label = Arc::new(Label::reserved(reservation));
    for name in ["cpus", "mem", "disk", "gpus"] {
        all.insert_labelled(name, Some(label.clone()), Value::Scalar(1_000));
    }
    all
}

#[test]
fn updates_leave_room_for_all_tasks() {
    for (tasks, id_bytes, resources, each) in
        [(10_000, 200, Resources::of(100, 32), 120), (5_000, 100, reserved(), 420)]
    {
        let (_, hello) = says_hello(saved(tasks, id_bytes, &resources));
        assert_eq!(hello.tasks.len() as u64, tasks);
        // A frame has 4 MiB, and so much is said of a task beside its id.
        let (tasks, messages) = (hello.tasks.len() * (id_bytes + each), message_bytes(&hello));
        assert!(0 < messages && tasks + messages < 4 << 20, "{tasks} and {messages} bytes");
    }
}

#[test]
fn tasks_that_no_hello_would_have_room_for_are_dropped() {
    let (mut node, _) = says_hello(Saved { agent_id: Some(AgentId::new("S1")), ..Saved::default() });
    let mut effects = Vec::new();
    node.step(0, welcome(), &mut effects);
    effects.clear();
    let order = |n: u64| RunOrder {
        launch: launch(&n.to_string()),
        task: TaskKey { task_id: TaskId::new(format!("{n:0200}")), ..key(launch("1")) },
        resources: reserved(),
        grace_ms: None,
        user: "".into(),
        killed: false,
        sealed: Sealed::default(),
        framework: Sealed::default(),
        executor: None,
        group: None,
        volumes: Vec::new(),
        starting: false,
        terms: Default::default(),
    };
    for n in 1..=10_000 {
        node.step(0, frame(Session(1), Down::Event(AgentEvent::Run(Box::new(order(n))))), &mut effects);
    }
    let (mut taken, mut last_ticket) = (0, 0);
    for effect in effects.drain(..) {
        if let Effect::Checkpoint { ticket, records } = effect {
            last_ticket = ticket;
            taken += records.iter().filter(|record| matches!(record, Record::Intent(_))).count();
        }
    }
    // Each takes some 600 bytes.
    assert!((5_000..7_000).contains(&taken), "{taken} tasks");
    // Nor are all that were refused listed, where they are too many.
    node.step(0, Input::Synced { ticket: last_ticket }, &mut effects);
    node.step(0, Input::StreamClosed { stream: 1 }, &mut effects);
    node.step(0, Input::StreamOpened { stream: 2 }, &mut effects);
    effects.clear();
    let leader = Down::Leader { name: String::new(), address: String::new() };
    for down in [leader, Down::Event(AgentEvent::ListAll)] {
        let frame = Input::Frame { stream: 2, fence: Fence::default(), session: Session(0), down };
        node.step(0, frame, &mut effects);
    }
    let hello = hello(&effects);
    let listed = |task: &&KnownTask| !task.resources.is_empty();
    assert_eq!(hello.tasks.iter().filter(listed).count(), taken);
    let refused = hello.tasks.len() - taken;
    let bytes = taken * (200 + 380) + refused * (200 + 60);
    assert!(
        0 < refused && refused < 10_000 - taken && bytes < 4 << 20,
        "{refused} beside {taken}: {bytes} bytes"
    );
}

#[test]
fn what_does_not_fit_follows_the_welcome() {
    let (mut node, hello) = says_hello(saved(TASKS, 0, &Resources::none()));
    let bytes = message_bytes(&hello);
    assert!(bytes <= 1 << 20, "{bytes} bytes of messages");
    assert_eq!(hello.tasks.len() as u64, TASKS);
    let (whole, rest): (Vec<_>, Vec<_>) = hello.tasks.iter().partition(|task| !task.updates.is_empty());
    assert!(whole.iter().all(|task| !task.alive && task.state == TaskState::Failed));
    // Not yet known to have ended, or the registry would take it for lost.
    assert!(rest.iter().all(|task| task.alive && task.state == TaskState::Staging));

    let mut effects = Vec::new();
    node.step(0, welcome(), &mut effects);
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
    // Who stands still meanwhile repeats a part at a time, too: no sooner than after the first pause.
    let mut late_ms = last_ms + config().repeat_ms;
    assert!(
        node.wake_at().is_some_and(|at| config().repeat_ms <= at && at < late_ms),
        "{:?}",
        node.wake_at()
    );
    let mut again = BTreeSet::new();
    while again.len() < hello.tasks.len() {
        node.step(late_ms, Input::Wake, &mut effects);
        let part = said(&mut effects);
        assert!((1..=250).contains(&part.len()), "{} updates at once", part.len());
        again.extend(part);
        late_ms = node.wake_at().unwrap();
    }
}
