//! A registry that commands made, for tests of what is shown of it.
#![allow(clippy::unwrap_used)]

use muster_model::{
    AgentId, AgentInfo, Attribute, AttributeValue, Capabilities, ClusterId, FrameworkId, FrameworkInfo,
    Hello, Index, MachineId, OfferId, Resources, Role, Sealed, Source, Status, StatusUpdate, TaskId, TaskKey,
    TaskOutcome, TaskSpec, TaskState, Term, Timestamp, Uuid, WallTime, task::ExecutorSpec,
};
use muster_proto::mesos;
use muster_registry::{Applied, BeginTerm, Change, Command, Entry, Launch, Outcome, Registry, Subscribe};
use prost::Message;

/// Applies commands, an entry each.
pub(super) struct World {
    pub(super) registry: Registry,
    pub(super) index: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self { registry: Registry::new(ClusterId::new("c"), 1), index: 0 };
        world.commit(Command::BeginTerm(BeginTerm { reconnect_grace_ms: 1_000 }));
        world
    }

    /// Applies a command, which may be refused.
    pub(super) fn apply(&mut self, command: Command) -> Applied {
        self.index += 1;
        let entry = Entry {
            term: Term(1),
            at: Timestamp(self.index),
            wall: WallTime(1_000_000 + 500 * self.index),
            first_ticket: 0,
            commands: vec![command],
        };
        self.registry.apply(Index(self.index), Term(1), &entry)
    }

    /// Applies a command that is carried out.
    pub(super) fn commit(&mut self, command: Command) -> Outcome {
        let outcome = self.apply(command).outcomes.remove(0);
        assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        outcome
    }

    /// Launches tasks of the first framework on the first agent; what that changed.
    pub(super) fn launch(&mut self, tasks: Vec<TaskSpec>) -> Vec<Change> {
        let offered = Resources::parse("cpus:4;mem:1024;ports:[31000-32000]").unwrap();
        let mut applied = self.apply(Command::Launch(Launch {
            framework_id: FrameworkId::new("c-0000"),
            agent_id: AgentId::new("c-S0"),
            role: Role::parse("web").unwrap(),
            offer_ids: vec![OfferId::new(format!("o{}", self.index))],
            offered,
            tasks,
        }));
        let outcome = applied.outcomes.remove(0);
        let Outcome::Launched(it) = &outcome else { panic!("{outcome:?}") };
        let is_launched = |became: &TaskOutcome| matches!(became, TaskOutcome::Launched(_));
        assert!(it.tasks.iter().all(|(_, became)| is_launched(became)), "{outcome:?}");
        applied.changes
    }

    pub(super) fn status(&mut self, task: &str, state: TaskState, seq: u32) {
        let key = key(task);
        let launch = self.registry.task(&key).unwrap().launch;
        let whole = mesos::TaskStatus {
            timestamp: Some(1_234.25),
            container_status: Some(mesos::ContainerStatus {
                container_id: Some(mesos::ContainerId { value: "box".into(), ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let update = StatusUpdate {
            launch,
            task: key,
            seq,
            uuid: Uuid([seq as u8; 16]),
            status: Status {
                state,
                source: Source::Executor,
                reason: None,
                message: "".into(),
                wall: WallTime(1_234_250),
                sealed: Sealed::new(whole.encode_to_vec()),
            },
        };
        self.commit(Command::Status { agent_id: AgentId::new("c-S0"), update: Box::new(update) });
    }

    pub(super) fn acknowledge(&mut self, task: &str, seq: u32) {
        self.commit(Command::Acknowledge { task: key(task), uuid: Uuid([seq as u8; 16]) });
    }
}

pub(super) fn key(task: &str) -> TaskKey {
    TaskKey { framework_id: FrameworkId::new("c-0000"), task_id: TaskId::new(task) }
}

pub(super) fn label() -> mesos::Labels {
    mesos::Labels { labels: vec![mesos::Label { key: "a".into(), value: Some("b".into()) }] }
}

pub(super) fn spec(id: &str, executor: Option<ExecutorSpec>) -> TaskSpec {
    let info = mesos::TaskInfo {
        name: id.into(),
        task_id: mesos::TaskId { value: id.into() },
        labels: (id == "run").then(label),
        discovery: (id == "run").then(|| mesos::DiscoveryInfo {
            visibility: mesos::discovery_info::Visibility::External.into(),
            name: Some("www".into()),
            ..Default::default()
        }),
        command: Some(mesos::CommandInfo {
            value: Some("sleep 9".into()),
            user: Some("nobody".into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    TaskSpec {
        task_id: TaskId::new(id),
        name: id.into(),
        resources: Resources::parse("cpus:0.5;mem:64;ports:[31000-31001]")
            .unwrap()
            .minus(&Resources::parse(if id == "run" { "" } else { "ports:[0-65535]" }).unwrap()),
        executor,
        grace_ms: None,
        sealed: Sealed::new(info.encode_to_vec()),
    }
}

pub(super) fn framework(name: &str) -> Subscribe {
    use mesos::framework_info::capability::Type;
    let capability = |kind: Type| mesos::framework_info::Capability { r#type: Some(kind.into()) };
    let info = mesos::FrameworkInfo {
        name: name.into(),
        user: "root".into(),
        roles: vec!["web".into()],
        hostname: Some("h".into()),
        webui_url: Some("http://h:1/".into()),
        principal: Some("p".into()),
        checkpoint: Some(true),
        capabilities: vec![capability(Type::MultiRole), capability(Type::PartitionAware)],
        labels: Some(label()),
        ..Default::default()
    };
    Subscribe {
        framework_id: None,
        info: FrameworkInfo {
            name: name.into(),
            user: "root".into(),
            principal: Some("p".into()),
            roles: vec![Role::parse("web").unwrap()],
            failover_timeout_ms: 60_000,
            capabilities: Capabilities { partition_aware: true, multi_role: true, ..Default::default() },
            sealed: Sealed::new(info.encode_to_vec()),
        },
        suppressed_roles: Vec::new(),
    }
}

/// An agent with a task that runs, one that is staging in an executor, and one that is over; and a framework that is over.
pub(super) fn world() -> World {
    let mut world = World::new();
    world.commit(Command::Subscribe(framework("test")));
    world.commit(Command::Subscribe(framework("former")));
    let resources = Resources::parse("cpus:4;mem:1024;ports:[31000-32000]").unwrap();
    world.commit(Command::AdmitAgent(Box::new(Hello {
        agent_id: None,
        info: AgentInfo {
            machine_id: MachineId::new("m"),
            hostname: "10.0.0.5".into(),
            port: 5051,
            resources,
            attributes: vec![Attribute { name: "rack".into(), value: AttributeValue::Text("r1".into()) }],
        },
        tasks: Vec::new(),
        sealed: Sealed::default(),
    })));
    world.launch(vec![spec("run", None), spec("ok", None)]);
    let executor = mesos::ExecutorInfo {
        executor_id: mesos::ExecutorId { value: "e".into() },
        name: Some("an executor".into()),
        ..Default::default()
    };
    world.launch(vec![spec(
        "wait",
        Some(ExecutorSpec {
            executor_id: muster_model::ExecutorId::new("e"),
            resources: Resources::parse("cpus:0.25").unwrap(),
            sealed: Sealed::new(executor.encode_to_vec()),
        }),
    )]);
    world.status("run", TaskState::Running, 1);
    world.status("ok", TaskState::Finished, 1);
    world.acknowledge("ok", 1);
    world.commit(Command::Teardown { framework_id: FrameworkId::new("c-0001") });
    world
}
