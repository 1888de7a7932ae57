//! The bytes of every persisted type, compared with the files in `golden/v1`, which are never edited.
//!
//! A new variant gets a new file: run the tests once with `UPDATE_GOLDEN=1`, which writes only what is missing.

use crate::{codec, types::LogPayload};
use muster_model::*;
use muster_registry::{
    BeginTerm, Command, Entry, Launch, Limits, Operate, Quota, Record, Registry, Subscribe,
};
use std::{fmt::Write, path::PathBuf};

fn check(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/v1").join(format!("{name}.hex"));
    let hex = bytes.chunks(32).fold(String::new(), |mut text, line| {
        line.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text + "\n"
    });
    if !path.exists() && std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &hex).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(
        hex, golden,
        "{name} is stored in other bytes than it was released with: append a variant instead"
    );
}

fn framework_id() -> FrameworkId {
    FrameworkId::new("c1-0000")
}

fn agent_id() -> AgentId {
    AgentId::new("c1-S0")
}

fn launch_number() -> LaunchNumber {
    LaunchNumber { incarnation: 1, index: Index(300), n: 2 }
}

fn task_key(name: &str) -> TaskKey {
    TaskKey { framework_id: framework_id(), task_id: TaskId::new(name) }
}

fn resources() -> Resources {
    Resources::of(1_500, 1_024).with("ports", Value::ranges([(31_000, 31_010)]))
}

fn framework() -> FrameworkInfo {
    FrameworkInfo {
        name: "hello".into(),
        user: "root".into(),
        principal: Some("someone".into()),
        roles: vec![Role::any()],
        failover_timeout_ms: 60_000,
        capabilities: Capabilities { partition_aware: true, ..Capabilities::default() },
        sealed: Sealed::new([1, 2, 3]),
    }
}

fn update(launch: LaunchNumber, task: &str, state: TaskState) -> StatusUpdate {
    StatusUpdate {
        launch,
        task: task_key(task),
        seq: 1,
        uuid: Uuid::of(launch, 1),
        status: Status {
            state,
            source: Source::Executor,
            reason: Some(Reason::ContainerLaunchFailed),
            message: "done".into(),
            wall: WallTime(1_700_000_000_000),
            sealed: Sealed::new([9]),
        },
    }
}

fn hello() -> Hello {
    let known = KnownTask {
        launch: launch_number(),
        task: task_key("t1"),
        state: TaskState::Running,
        alive: true,
        resources: resources(),
        updates: vec![update(launch_number(), "t1", TaskState::Running)],
    };
    let attribute = |name: &str, value| agent::Attribute { name: name.into(), value };
    let info = AgentInfo {
        machine_id: MachineId::new("machine-1"),
        hostname: "node1".into(),
        port: 5_051,
        resources: Resources::of(8_000, 16_384).with("ports", Value::ranges([(31_000, 32_000)])),
        attributes: vec![
            attribute("rack", AttributeValue::Text("r1".into())),
            attribute("slots", AttributeValue::Ranges(vec![(1, 4)])),
            attribute("speed", AttributeValue::Scalar(2_500)),
        ],
    };
    Hello { agent_id: Some(agent_id()), info, tasks: vec![known], sealed: Sealed::new([4, 5]) }
}

fn launch(names: &[&str], executor: bool) -> Launch {
    let executor = executor.then(|| task::ExecutorSpec {
        executor_id: ExecutorId::new("e1"),
        resources: Resources::of(100, 32),
        sealed: Sealed::new([8]),
    });
    let task = |name: &&str| TaskSpec {
        task_id: TaskId::new(name),
        name: "sleep".into(),
        resources: Resources::of(500, 128),
        executor: executor.clone(),
        grace_ms: Some(3_000),
        sealed: Sealed::new([7, 7]),
    };
    Launch {
        framework_id: framework_id(),
        agent_id: agent_id(),
        role: Role::any(),
        offer_ids: vec![OfferId::new(format!("c1-O2-0-{}", names.len()))],
        offered: Resources::of(4_000, 4_096),
        tasks: names.iter().map(task).collect(),
    }
}

fn first_subscribe() -> Command {
    let subscribe = Subscribe { framework_id: None, info: framework(), suppressed_roles: Vec::new() };
    Command::FirstSubscribe(Token([5; 16]), subscribe)
}

fn stream_subscribe() -> Command {
    let subscribe = Subscribe { framework_id: None, info: framework(), suppressed_roles: Vec::new() };
    Command::StreamSubscribe(Token([7; 16]), subscribe)
}

fn executors() -> Command {
    let executor = KnownExecutor {
        number: launch_number(),
        framework_id: framework_id(),
        executor_id: ExecutorId::new("e1"),
        resources: Resources::of(100, 32),
        ended: None,
    };
    Command::Executors { agent_id: agent_id(), executors: vec![executor], all: true }
}

/// Disk that is reserved in a stack of reservations, and a volume if it is one.
fn reserved_disk(volume: bool) -> Resources {
    let reservation = |role: &str, dynamic: bool| Reservation {
        dynamic,
        role: Role::parse(role).unwrap(),
        principal: dynamic.then(|| "someone".into()),
        labels: vec![("key".into(), Some("value".into())), ("only".into(), None)],
    };
    let volume = volume.then(|| Volume {
        id: VolumeId::new("db"),
        principal: Some("someone".into()),
        container_path: "data".into(),
        read_only: false,
    });
    let label = Label { reservations: vec![reservation("web", true), reservation("web/db", true)], volume };
    let mut all = Resources::none();
    all.insert_labelled("disk", Some(std::sync::Arc::new(label)), Value::Scalar(512_000));
    all
}

fn reserve_outer() -> Conversion {
    let inner = Conversion::Reserve(reserved_disk(false));
    Conversion::Reserve(inner.consumed())
}

fn rereserve() -> Conversion {
    let to = reserved_disk(false);
    Conversion::Rereserve { from: reserve_outer().converted(), to }
}

/// A framework's way to a volume, and a group of tasks beside.
fn operate() -> Command {
    let convert = |id: Option<&str>, conversion| Operation::Convert {
        id: id.map(OperationId::new),
        conversion,
        sealed: Sealed::new([3, 3]),
    };
    let operations = vec![
        convert(None, reserve_outer()),
        convert(Some("refine"), Conversion::Reserve(reserved_disk(false))),
        convert(Some("create"), Conversion::Create(reserved_disk(true))),
        Operation::LaunchGroup { tasks: launch(&["g1", "g2"], true).tasks, bad: Vec::new() },
        Operation::Launch {
            tasks: launch(&["t4"], false).tasks,
            bad: vec![task::BadTask { at: 1, task_id: TaskId::new("t5"), why: "no command".into() }],
        },
        Operation::Bad { id: Some(OperationId::new("grow")), why: "not supported".into() },
        convert(None, Conversion::Destroy(reserved_disk(true))),
        convert(None, Conversion::Unreserve(reserved_disk(false))),
    ];
    Command::Operate(Box::new(Operate {
        framework_id: framework_id(),
        agent_id: agent_id(),
        role: Role::any(),
        offer_ids: vec![OfferId::new("c1-O2-0-9")],
        offered: resources(),
        operations,
    }))
}

/// One of each.
fn commands() -> Vec<(&'static str, Command)> {
    let (framework_id, agent_id) = (framework_id(), agent_id());
    vec![
        ("begin-term", Command::BeginTerm(BeginTerm { reconnect_grace_ms: 60_000 })),
        ("tick", Command::Tick),
        (
            "subscribe",
            Command::Subscribe(Subscribe {
                framework_id: Some(framework_id.clone()),
                info: framework(),
                suppressed_roles: vec![Role::any()],
            }),
        ),
        (
            "disconnect-framework",
            Command::DisconnectFramework { framework_id: framework_id.clone(), session: Session(7) },
        ),
        (
            "expire-framework",
            Command::ExpireFramework { framework_id: framework_id.clone(), disconnected: Index(70_000) },
        ),
        ("teardown", Command::Teardown { framework_id: framework_id.clone() }),
        ("admit-agent", Command::AdmitAgent(Box::new(hello()))),
        ("disconnect-agent", Command::DisconnectAgent { agent_id: agent_id.clone(), session: Session(8) }),
        ("mark-unreachable", Command::MarkUnreachable { agent_id: agent_id.clone(), disconnected: Index(9) }),
        ("mark-gone", Command::MarkGone { agent_id: agent_id.clone() }),
        ("launch", Command::Launch(launch(&["t1", "t2"], true))),
        ("accepted", Command::Accepted { agent_id: agent_id.clone(), launches: vec![launch_number()] }),
        (
            "status",
            Command::Status {
                agent_id: agent_id.clone(),
                update: Box::new(update(launch_number(), "t1", TaskState::Failed)),
            },
        ),
        ("ended", Command::Ended { agent_id, launch: launch_number() }),
        ("acknowledge", Command::Acknowledge { task: task_key("t1"), uuid: Uuid::of(launch_number(), 1) }),
        ("kill", Command::Kill { task: task_key("t1"), grace_ms: Some(5_000) }),
        ("configure", Command::Configure(Limits::default())),
        (
            "launch-some",
            Command::LaunchSome(
                launch(&["t1"], false),
                vec![task::BadTask { at: 1, task_id: TaskId::new("t2"), why: "no command".into() }],
            ),
        ),
        ("first-subscribe", first_subscribe()),
        ("first-hello", Command::FirstHello(Token([6; 16]), Box::new(Hello { agent_id: None, ..hello() }))),
        ("stream-subscribe", stream_subscribe()),
        (
            "update-framework",
            Command::UpdateFramework { framework_id, info: framework(), suppressed_roles: vec![Role::any()] },
        ),
        ("executors", executors()),
        ("set-weights", Command::SetWeights(vec![(role("web"), 2_500)])),
        ("set-quotas", set_quotas()),
        ("remove-quota", Command::RemoveQuota(role("web"))),
        ("deactivate-agent", Command::DeactivateAgent { agent_id: self::agent_id() }),
        ("reactivate-agent", Command::ReactivateAgent { agent_id: self::agent_id() }),
        ("drain-agent", drain()),
        ("set-schedule", Command::SetSchedule(vec![window()])),
        ("start-maintenance", Command::StartMaintenance(vec![machine()])),
        ("stop-maintenance", Command::StopMaintenance(vec![machine()])),
        ("hello-from", hello_from()),
        ("hello-as-known", hello_as_known()),
        ("operate", operate()),
        ("convert", Command::Convert { agent_id: self::agent_id(), conversion: reserve_outer() }),
        ("convert-source", Command::Convert { agent_id: self::agent_id(), conversion: rereserve() }),
        (
            "acknowledge-operation",
            Command::AcknowledgeOperation {
                framework_id: self::framework_id(),
                operation_id: OperationId::new("create"),
                uuid: Uuid::of_operation(launch_number()),
            },
        ),
    ]
}

fn role(name: &str) -> Role {
    Role::parse(name).unwrap()
}

fn set_quotas() -> Command {
    let limits = [("cpus".into(), 2_000)].into_iter().collect();
    let quota = Quota { guarantees: Resources::of(1_000, 0), limits };
    Command::SetQuotas { quotas: vec![(role("web"), quota)], force: true, new: false }
}

fn drain() -> Command {
    Command::DrainAgent { agent_id: agent_id(), max_grace_ms: Some(5_000), mark_gone: true }
}

fn machine() -> MachineName {
    MachineName { hostname: Some("node1".into()), ip: Some([10, 0, 0, 9].into()) }
}

fn window() -> Window {
    let unavailability = Unavailability { start_ns: 1_900_000_000_000_000_000, duration_ns: Some(3_600) };
    Window { machines: vec![machine()], unavailability }
}

fn hello_from() -> Command {
    let hello = Hello { agent_id: None, tasks: Vec::new(), ..hello() };
    Command::HelloFrom { ip: [10, 0, 0, 5].into(), token: Some(Token([8; 16])), hello: Box::new(hello) }
}

fn hello_as_known() -> Command {
    let mut hello = Box::new(hello());
    let mut known = std::mem::take(&mut hello.tasks);
    known.iter_mut().for_each(|task| task.updates.clear());
    let tasks = LaunchSum::of_living(&known).unwrap();
    Command::HelloAsKnown { ip: Some([10, 0, 0, 5].into()), hello, tasks }
}

/// Fails to compile when a variant is added, so that it is not forgotten above.
fn is_sampled(command: &Command) {
    match command {
        Command::BeginTerm(_)
        | Command::Tick
        | Command::Subscribe(_)
        | Command::DisconnectFramework { .. }
        | Command::ExpireFramework { .. }
        | Command::Teardown { .. }
        | Command::AdmitAgent(_)
        | Command::DisconnectAgent { .. }
        | Command::MarkUnreachable { .. }
        | Command::MarkGone { .. }
        | Command::Launch(_)
        | Command::Accepted { .. }
        | Command::Status { .. }
        | Command::Ended { .. }
        | Command::Acknowledge { .. }
        | Command::Kill { .. }
        | Command::Configure(_)
        | Command::LaunchSome(..)
        | Command::FirstSubscribe(..)
        | Command::FirstHello(..)
        | Command::StreamSubscribe(..)
        | Command::UpdateFramework { .. }
        | Command::Executors { .. }
        | Command::SetWeights(_)
        | Command::SetQuotas { .. }
        | Command::RemoveQuota(_)
        | Command::DeactivateAgent { .. }
        | Command::ReactivateAgent { .. }
        | Command::DrainAgent { .. }
        | Command::SetSchedule(_)
        | Command::StartMaintenance(_)
        | Command::StopMaintenance(_)
        | Command::HelloFrom { .. }
        | Command::HelloAsKnown { .. }
        | Command::Operate(_)
        | Command::Convert { .. }
        | Command::AcknowledgeOperation { .. } => {}
    }
}

#[test]
fn entries_keep_their_bytes() {
    for (name, command) in commands() {
        is_sampled(&command);
        let entry = Entry {
            term: Term(3),
            at: Timestamp(123_456),
            wall: WallTime(1_700_000_000_000),
            first_ticket: 400,
            commands: vec![command],
        };
        let bytes = codec::encode_entry(&entry).unwrap();
        check(&format!("entry-{name}"), &bytes);
        let decoded = codec::decode_entry(crate::types::log_id(3, 1), bytes).unwrap();
        assert!(matches!(decoded.payload, LogPayload::Normal(again) if *again.entry() == entry), "{name}");
    }
}

#[test]
fn blanks_and_memberships_keep_their_bytes() {
    check("blank", &codec::encode_payload(&LogPayload::Blank).unwrap());
    let nodes: std::collections::BTreeMap<u64, crate::Member> = (1..=3)
        .map(|n| (n << 40, crate::Member { name: format!("m{n}"), address: format!("10.0.0.{n}:5050") }))
        .collect();
    let membership = crate::types::Membership::new(vec![nodes.keys().copied().collect()], nodes).unwrap();
    check("membership", &codec::encode_payload(&LogPayload::Membership(membership)).unwrap());
}

/// A registry that holds a record of every kind, but of clients with a token, of event streams, of executors
/// that live and of what operators set.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::new(ClusterId::new("c1"), 1);
    let mut index = 0;
    let mut apply = |commands: Vec<Command>| {
        index += 1;
        let entry = Entry { term: Term(1), at: Timestamp(index * 1_000), commands, ..Entry::default() };
        registry.apply(Index(index), Term(1), &entry);
        Index(index)
    };
    let subscribe = || {
        Command::Subscribe(Subscribe { framework_id: None, info: framework(), suppressed_roles: Vec::new() })
    };
    apply(vec![subscribe(), subscribe()]);
    apply(vec![Command::AdmitAgent(Box::new(Hello { agent_id: None, tasks: Vec::new(), ..hello() }))]);
    let launched =
        apply(vec![Command::Launch(launch(&["t1"], true)), Command::Launch(launch(&["t2", "t3"], false))]);
    let number = LaunchNumber { incarnation: 1, index: launched, n: 1 };
    let over = update(number, "t2", TaskState::Finished);
    let uuid = over.uuid;
    apply(vec![
        Command::Status { agent_id: agent_id(), update: Box::new(over) },
        Command::Acknowledge { task: task_key("t2"), uuid },
        Command::Teardown { framework_id: FrameworkId::new("c1-0001") },
    ]);
    registry
}

#[test]
fn the_record_of_a_newcomer_keeps_its_bytes() {
    let mut registry = Registry::new(ClusterId::new("c1"), 1);
    let entry =
        Entry { term: Term(1), at: Timestamp(9), commands: vec![first_subscribe()], ..Entry::default() };
    registry.apply(Index(1), Term(1), &entry);
    let records: Vec<_> = registry.records().map(|record| codec::encode(&record).unwrap()).collect();
    let again = records.iter().map(|bytes| codec::decode::<Record>(bytes).unwrap());
    assert_eq!(Registry::restore(again).unwrap(), registry);
    check("record-newcomer", records.last().unwrap());
}

#[test]
fn the_record_of_an_event_stream_keeps_its_bytes() {
    let mut registry = Registry::new(ClusterId::new("c1"), 1);
    let entry =
        Entry { term: Term(1), at: Timestamp(9), commands: vec![stream_subscribe()], ..Entry::default() };
    registry.apply(Index(1), Term(1), &entry);
    let records: Vec<_> = registry.records().map(|record| codec::encode(&record).unwrap()).collect();
    let again = records.iter().map(|bytes| codec::decode::<Record>(bytes).unwrap());
    assert_eq!(Registry::restore(again).unwrap(), registry);
    check("record-event-stream", records.last().unwrap());
}

#[test]
fn the_record_of_an_executor_that_lives_keeps_its_bytes() {
    let mut registry = Registry::new(ClusterId::new("c1"), 1);
    let admit = Command::AdmitAgent(Box::new(Hello { agent_id: None, tasks: Vec::new(), ..hello() }));
    let commands = vec![admit, executors()];
    let entry = Entry { term: Term(1), at: Timestamp(9), commands, ..Entry::default() };
    registry.apply(Index(1), Term(1), &entry);
    let records: Vec<_> = registry.records().map(|record| codec::encode(&record).unwrap()).collect();
    let again = records.iter().map(|bytes| codec::decode::<Record>(bytes).unwrap());
    assert_eq!(Registry::restore(again).unwrap(), registry);
    check("record-living", records.last().unwrap());
}

#[test]
fn the_records_of_what_operators_set_keep_their_bytes() {
    let mut registry = Registry::new(ClusterId::new("c1"), 1);
    let commands = vec![
        hello_from(),
        Command::SetWeights(vec![(role("web"), 2_500)]),
        set_quotas(),
        Command::DeactivateAgent { agent_id: agent_id() },
        Command::SetSchedule(vec![window()]),
        Command::StartMaintenance(vec![machine()]),
        Command::AdmitAgent(Box::new(Hello { agent_id: None, tasks: Vec::new(), ..other_hello() })),
        Command::DrainAgent { agent_id: AgentId::new("c1-S1"), max_grace_ms: None, mark_gone: false },
    ];
    let (at, wall) = (Timestamp(9), WallTime(1_700_000_000_000));
    let entry = Entry { term: Term(1), at, wall, commands, ..Entry::default() };
    registry.apply(Index(1), Term(1), &entry);
    let (mut again, mut kinds) = (Vec::new(), Vec::new());
    for record in registry.records() {
        let kind = match &record {
            Record::RoleSettings(..) => "role-settings",
            Record::Duty(_, duty) if duty.drain.is_some() => "duty-drained",
            Record::Duty(..) => "duty",
            Record::Address(..) => "address",
            Record::Window(..) => "window",
            Record::DownMachine(..) => "down-machine",
            _ => "",
        };
        let bytes = codec::encode(&record).unwrap();
        again.push(codec::decode::<Record>(&bytes).unwrap());
        if !kind.is_empty() {
            kinds.push(kind);
            check(&format!("record-{kind}"), &bytes);
        }
    }
    assert_eq!(kinds, ["role-settings", "duty", "duty-drained", "address", "window", "down-machine"]);
    assert_eq!(Registry::restore(again).unwrap(), registry);
}

/// Of an agent on another machine.
fn other_hello() -> Hello {
    let info =
        AgentInfo { machine_id: MachineId::new("machine-2"), hostname: "node2".into(), ..hello().info };
    Hello { info, ..hello() }
}

#[test]
fn the_records_of_operations_keep_their_bytes() {
    let mut registry = Registry::new(ClusterId::new("c1"), 1);
    let given = Resources::parse("cpus:8;mem:4096;disk:1024").unwrap();
    let info = AgentInfo { resources: given.clone(), ..hello().info };
    let admit = Command::AdmitAgent(Box::new(Hello { agent_id: None, info, tasks: Vec::new(), ..hello() }));
    let mut info = framework();
    info.roles = vec![Role::parse("web").unwrap(), Role::parse("web/db").unwrap()];
    info.capabilities.reservation_refinement = true;
    let subscribe = Command::Subscribe(Subscribe { framework_id: None, info, suppressed_roles: Vec::new() });
    let Command::Operate(operate) = operate() else { panic!() };
    let operate = |offer: &str, role: &str, from: usize, to: usize, offered: Resources| {
        Command::Operate(Box::new(Operate {
            role: Role::parse(role).unwrap(),
            offer_ids: vec![OfferId::new(offer)],
            offered,
            operations: operate.operations[from..to].to_vec(),
            ..(*operate).clone()
        }))
    };
    let outer = reserve_outer().converted();
    let commands = vec![
        admit,
        subscribe,
        operate("o1", "web", 0, 1, given.clone()),
        operate("o2", "web/db", 1, 4, outer.plus(&Resources::of(8_000, 4_000))),
    ];
    let entry = Entry { term: Term(1), at: Timestamp(9), commands, ..Entry::default() };
    registry.apply(Index(1), Term(1), &entry);
    registry.check_laws().unwrap();
    let records: Vec<Record> = registry.records().collect();
    let again = records.iter().map(|it| codec::decode::<Record>(&codec::encode(it).unwrap()).unwrap());
    assert_eq!(Registry::restore(again).unwrap(), registry);
    let sample = |name: &str, is: fn(&Record) -> bool| {
        let record = records.iter().rev().find(|it| is(it)).unwrap_or_else(|| panic!("no {name}"));
        check(&format!("record-{name}"), &codec::encode(record).unwrap());
    };
    sample("carved", |it| matches!(it, Record::Carved(..)));
    sample("operation", |it| matches!(it, Record::Operation(..)));
    sample("spent-operations", |it| matches!(it, Record::SpentOperations(..)));
    sample("group", |it| matches!(it, Record::Group(..)));
}

#[test]
fn the_record_of_what_was_told_keeps_its_bytes() {
    let mut registry = registry();
    let launch = registry.task(&task_key("t1")).unwrap().launch;
    let mut told = update(launch, "t1", TaskState::Running);
    told.status.sealed = Sealed::new([4, 5, 6]);
    let commands = vec![Command::Status { agent_id: agent_id(), update: Box::new(told) }];
    let entry = Entry { term: Term(1), at: Timestamp(9_000), commands, ..Entry::default() };
    registry.apply(Index(9), Term(1), &entry);
    let records: Vec<_> = registry.records().map(|record| codec::encode(&record).unwrap()).collect();
    let again = records.iter().map(|bytes| codec::decode::<Record>(bytes).unwrap());
    assert_eq!(Registry::restore(again).unwrap(), registry);
    check("record-told", records.last().unwrap());
}

#[test]
fn snapshot_records_keep_their_bytes() {
    let registry = registry();
    let mut kinds = std::collections::BTreeMap::new();
    let mut again = Vec::new();
    for record in registry.records() {
        let kind = match &record {
            Record::Header(_) => "header",
            Record::Framework(_) => "framework",
            Record::Agent(_) => "agent",
            Record::Task(_) => "task",
            Record::Executor(_) => "executor",
            Record::CompletedTask(..) => "completed-task",
            Record::CompletedFramework(..) => "completed-framework",
            Record::RemovedFramework(..) => "removed-framework",
            Record::Spent(..) => "spent",
            Record::Newcomer(..) => "newcomer",
            Record::EventStream(..) => "event-stream",
            Record::Living(..) => "living",
            Record::RoleSettings(..) => "role-settings",
            Record::Duty(..) => "duty",
            Record::Address(..) => "address",
            Record::Window(..) => "window",
            Record::DownMachine(..) => "down-machine",
            Record::Carved(..) => "carved",
            Record::Operation(..) => "operation",
            Record::SpentOperations(..) => "spent-operations",
            Record::Group(..) => "group",
            Record::Told(..) => "told",
        };
        let bytes = codec::encode(&record).unwrap();
        again.push(codec::decode::<Record>(&bytes).unwrap());
        kinds.entry(kind).or_insert(bytes);
    }
    assert_eq!(kinds.len(), 9, "a kind of record has no sample: {:?}", kinds.keys());
    kinds.iter().for_each(|(kind, bytes)| check(&format!("record-{kind}"), bytes));
    assert_eq!(Registry::restore(again).unwrap().state_hash(), registry.state_hash());
}
