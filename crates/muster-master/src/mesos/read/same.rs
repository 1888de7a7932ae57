//! Tasks are written as a serializer would write all that is known of them.

#![allow(clippy::unwrap_used)]

use super::show::task::Task as Shown;
use super::task::Writer;
use crate::mesos::{
    records::statuses,
    world::{World, key, world},
};
use mesos::health_check::Type as HealthCheckType;
use muster_model::{
    AgentId, AgentInfo, ExecutorId, FrameworkId, Hello, KnownExecutor, LaunchNumber, MachineId, OfferId,
    Resources, Role, Sealed, Source, Status, StatusUpdate, TaskId, TaskSpec, TaskState, Uuid, WallTime,
    task::ExecutorSpec,
};
use muster_proto::mesos;
use muster_registry::{Command, Launch, Registry, Task};
use proptest::{collection::vec, option, prelude::*, sample::select};
use prost::Message;

/// Where tasks run: agents with an address of each sort, and one whose host has a name.
const AGENTS: [&str; 3] = ["c-S0", "c-S1", "c-S2"];

/// A task as a serializer writes it.
fn plainly(task: &Task, registry: &Registry) -> String {
    let shown = Shown {
        id: task.key.task_id.as_str(),
        name: &task.name,
        framework_id: task.key.framework_id.as_str(),
        executor_id: task.executor_id.as_ref().map_or("", |id| id.as_str()),
        agent_id: task.agent_id.as_str(),
        state: task.state,
        resources: &task.resources,
        role: task.role.as_str(),
        statuses: &statuses(task, registry),
        info: &muster_proto::container::shown_task(&task.sealed()),
    };
    serde_json::to_string(&shown).unwrap()
}

/// What is drawn for a task.
#[derive(Debug, Clone)]
struct Drawn {
    agent_id: &'static str,
    name: String,
    resources: &'static str,
    in_executor: bool,
    info: mesos::TaskInfo,
    statuses: Vec<(TaskState, mesos::TaskStatus)>,
    is_acknowledged: bool,
}

fn text() -> impl Strategy<Value = String> {
    select(vec!["", "a", "web.1", "\"quoted\"\\ \n\u{1}", "\u{e4}\u{1f680}", "f0-1"]).prop_map(Into::into)
}

fn labels() -> impl Strategy<Value = mesos::Labels> {
    let label = (text(), option::of(text())).prop_map(|(key, value)| mesos::Label { key, value });
    vec(label, 0..3).prop_map(|labels| mesos::Labels { labels })
}

fn command() -> impl Strategy<Value = mesos::CommandInfo> {
    (option::of(text()), text(), any::<bool>()).prop_map(|(user, value, has_secret)| mesos::CommandInfo {
        user,
        environment: has_secret.then(|| mesos::Environment {
            variables: vec![mesos::environment::Variable {
                name: value.clone(),
                secret: Some(mesos::Secret {
                    value: Some(mesos::secret::Value { data: b"hidden".to_vec().into() }),
                    ..Default::default()
                }),
                ..Default::default()
            }],
        }),
        value: Some(value),
        ..Default::default()
    })
}

fn container() -> impl Strategy<Value = mesos::ContainerInfo> {
    (text(), option::of(text())).prop_map(|(image, hostname)| mesos::ContainerInfo {
        r#type: mesos::container_info::Type::Docker.into(),
        docker: Some(mesos::container_info::DockerInfo { image, ..Default::default() }),
        hostname,
        ..Default::default()
    })
}

fn info() -> impl Strategy<Value = mesos::TaskInfo> {
    let limit = select(vec![0.5, 64.0, f64::INFINITY]);
    let limits = vec((text(), limit), 0..3);
    let discovery = text().prop_map(|name| mesos::DiscoveryInfo {
        visibility: mesos::discovery_info::Visibility::Cluster.into(),
        name: Some(name),
        ..Default::default()
    });
    let health_check = option::of(command()).prop_map(|command| mesos::HealthCheck {
        r#type: Some(HealthCheckType::Command.into()),
        command,
        ..Default::default()
    });
    let of_executor = command().prop_map(|command| mesos::ExecutorInfo {
        command: Some(command),
        labels: Some(mesos::Labels::default()),
        ..Default::default()
    });
    let all = (
        (option::of(command()), option::of(of_executor), option::of(labels()), limits),
        (option::of(discovery), option::of(container()), option::of(health_check), any::<bool>()),
    );
    all.prop_map(|((command, executor, labels, limits), (discovery, container, health_check, has_data))| {
        let limit = |(key, value)| mesos::task_info::LimitsEntry {
            key: Some(key),
            value: Some(mesos::value::Scalar { value }),
        };
        mesos::TaskInfo {
            command,
            executor,
            labels,
            limits: limits.into_iter().map(limit).collect(),
            discovery,
            container,
            health_check,
            data: has_data.then(|| vec![0xff; 3].into()),
            ..Default::default()
        }
    })
}

fn status() -> impl Strategy<Value = (TaskState, mesos::TaskStatus)> {
    use TaskState::{Failed, Finished, Killing, Running, Starting};
    let network = (option::of(text()), any::<bool>()).prop_map(|(ip, has_id)| mesos::ContainerStatus {
        container_id: has_id.then(|| mesos::ContainerId { value: "box".into(), ..Default::default() }),
        network_infos: ip
            .map(|ip| mesos::NetworkInfo {
                ip_addresses: vec![mesos::network_info::IpAddress {
                    ip_address: Some(ip),
                    ..Default::default()
                }],
                ..Default::default()
            })
            .into_iter()
            .collect(),
        ..Default::default()
    });
    let sealed = (option::of(any::<bool>()), option::of(labels()), option::of(network), any::<bool>());
    let sealed = sealed.prop_map(|(healthy, labels, container_status, is_timed)| mesos::TaskStatus {
        healthy,
        labels,
        container_status,
        timestamp: is_timed.then_some(1_234.25),
        ..Default::default()
    });
    (select(vec![Starting, Running, Killing, Failed, Finished]), sealed)
}

fn drawn() -> impl Strategy<Value = Drawn> {
    // One kind of resources for most of them, so that neighbours share it.
    let resources = prop_oneof![
        3 => Just("cpus:0.01;mem:1"),
        1 => select(vec!["cpus:0.01;mem:1;ports:[31000-31001]", "mem:0.001"]),
    ];
    ((select(AGENTS.to_vec()), text(), resources, any::<bool>(), info()), vec(status(), 0..3), any::<bool>())
        .prop_map(|((agent_id, name, resources, in_executor, info), statuses, is_acknowledged)| {
            let resources = if name.is_empty() { resources } else { "cpus:0.01;mem:1" };
            Drawn { agent_id, name, resources, in_executor, info, statuses, is_acknowledged }
        })
}

impl World {
    fn admit(&mut self, machine: &str, hostname: &str) {
        let info = AgentInfo {
            machine_id: MachineId::new(machine),
            hostname: hostname.into(),
            port: 5051,
            resources: Resources::parse("cpus:4;mem:1024;ports:[31000-32000]").unwrap(),
            attributes: Vec::new(),
        };
        let hello = Hello { agent_id: None, info, tasks: Vec::new(), sealed: Sealed::default() };
        self.commit(Command::AdmitAgent(Box::new(hello)));
    }

    /// Launches a task that may be refused, and lets it come to its states.
    fn live(&mut self, n: usize, drawn: Drawn) {
        let id = format!("f0-{n}");
        let agent_id = AgentId::new(drawn.agent_id);
        let info = mesos::TaskInfo {
            name: drawn.name.clone(),
            task_id: mesos::TaskId { value: id.clone() },
            agent_id: mesos::AgentId { value: agent_id.to_string() },
            ..drawn.info
        };
        let executor = ExecutorSpec {
            executor_id: ExecutorId::new("e"),
            resources: Resources::none(),
            sealed: Sealed::default(),
        };
        let spec = TaskSpec {
            task_id: TaskId::new(&id),
            name: drawn.name.as_str().into(),
            resources: Resources::parse(drawn.resources).unwrap(),
            executor: drawn.in_executor.then_some(executor),
            grace_ms: None,
            sealed: Sealed::new(info.encode_to_vec()),
        };
        self.apply(Command::Launch(Launch {
            framework_id: FrameworkId::new("c-0000"),
            agent_id: agent_id.clone(),
            role: Role::parse("web").unwrap(),
            offer_ids: vec![OfferId::new(format!("o-{n}"))],
            offered: Resources::parse("cpus:4;mem:1024;ports:[31000-32000]").unwrap(),
            tasks: vec![spec],
        }));
        let Some(launch) = self.registry.task(&key(&id)).map(|task| task.launch) else { return };
        for (seq, (state, whole)) in (1..).zip(drawn.statuses) {
            let uuid = Uuid::of(launch, seq);
            let status = Status {
                state,
                source: Source::Executor,
                reason: None,
                message: "".into(),
                wall: WallTime(1_234_250),
                sealed: Sealed::new(whole.encode_to_vec()),
            };
            let update = StatusUpdate { launch, task: key(&id), seq, uuid, status };
            self.apply(Command::Status { agent_id: agent_id.clone(), update: Box::new(update) });
            if drawn.is_acknowledged {
                self.apply(Command::Acknowledge { task: key(&id), uuid });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_task_is_written_as_a_serializer_writes_it(
        tasks in vec(drawn(), 1..40),
        executor_lives in any::<bool>(),
        loses_agent in any::<bool>(),
    ) {
        let mut world = world();
        world.admit("m1", "fd00::1");
        world.admit("m2", "host");
        for (n, drawn) in tasks.into_iter().enumerate() {
            // A second one is of the same kind, and shares what is remembered of the first.
            world.live(2 * n, drawn.clone());
            world.live(2 * n + 1, drawn);
        }
        if executor_lives {
            let executor = KnownExecutor {
                number: LaunchNumber { n: 7, ..Default::default() },
                framework_id: FrameworkId::new("c-0000"),
                executor_id: ExecutorId::new("e"),
                resources: Resources::none(),
                ended: None,
            };
            let agent_id = AgentId::new("c-S0");
            world.apply(Command::Executors { agent_id, executors: vec![executor], all: false });
        }
        if loses_agent {
            world.apply(Command::MarkGone { agent_id: AgentId::new("c-S1") });
        }
        let registry = &world.registry;
        let mut writer = Writer::new(registry);
        for task in registry.tasks().chain(registry.completed_tasks()) {
            let mut out = Vec::new();
            writer.write(task, &mut out).unwrap();
            prop_assert_eq!(std::str::from_utf8(&out).unwrap(), plainly(task, registry));
        }
    }
}
