//! What `GET /state` costs where nobody else needs the cores: `cargo bench -p muster-master`.
//!
//! A tenth as many agents as running and as completed tasks; descriptions of about 300 bytes. What is measured is all but
//! the socket.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use muster_model::{
    AgentId, AgentInfo, Capabilities, ClusterId, FrameworkId, FrameworkInfo, Hello, Index, LaunchNumber,
    MachineId, OfferId, Resources, Role, Sealed, Source, Status, StatusUpdate, TaskId, TaskKey, TaskSpec,
    TaskState, Term, Timestamp, Uuid, WallTime,
};
use muster_proto::mesos;
use muster_registry::{Command, Entry, Launch, Outcome, Registry, Subscribe};
use prost::Message;
use std::io::{self, Write};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const AGENTS: usize = 2_000;
const FRAMEWORKS: usize = 20;
/// Of each framework, those that run and those that are over: no registry keeps more of the latter.
const TASKS: usize = 1_000;

fn commit(registry: &mut Registry, command: Command) -> Outcome {
    let index = registry.applied().0 + 1;
    let wall = WallTime(1_790_000_000_000 + index);
    let entry = Entry { at: Timestamp(index), wall, commands: vec![command], ..Entry::default() };
    registry.apply(Index(index), Term(0), &entry).outcomes.remove(0)
}

fn subscribe(registry: &mut Registry, n: usize) {
    let name = format!("framework {n}");
    let info = mesos::FrameworkInfo { user: "root".into(), name: name.clone(), ..Default::default() };
    let info = FrameworkInfo {
        name: name.as_str().into(),
        user: "root".into(),
        principal: None,
        roles: vec![Role::any()],
        failover_timeout_ms: 1_000_000,
        capabilities: Capabilities::default(),
        sealed: Sealed::new(info.encode_to_vec()),
    };
    commit(
        registry,
        Command::Subscribe(Subscribe { framework_id: None, info, suppressed_roles: Vec::new() }),
    );
}

fn admit(registry: &mut Registry, n: usize) {
    let resources = Resources::parse("cpus:64;mem:262144;disk:1000000;ports:[31000-32000]").unwrap();
    let hostname = format!("10.0.{}.{}", n / 250, n % 250);
    let info = mesos::AgentInfo {
        hostname: hostname.clone(),
        port: Some(5051),
        resources: muster_proto::wire_resources(&resources),
        ..Default::default()
    };
    let hello = Hello {
        agent_id: None,
        info: AgentInfo {
            machine_id: MachineId::new(format!("m{n}")),
            hostname: hostname.as_str().into(),
            port: 5051,
            resources,
            attributes: Vec::new(),
        },
        tasks: Vec::new(),
        sealed: Sealed::new(info.encode_to_vec()),
    };
    commit(registry, Command::AdmitAgent(Box::new(hello)));
}

/// As `muster bench` describes tasks, or with labels of its own.
fn spec(id: &str, agent_id: &AgentId, own_label: bool) -> TaskSpec {
    let needs = Resources::of(10, 1);
    let value = if own_label { id } else { "a value of some length" };
    let label = |n: usize| mesos::Label { key: format!("label-{n}"), value: Some(value.into()) };
    let info = mesos::TaskInfo {
        name: format!("bench {id}"),
        task_id: mesos::TaskId { value: id.into() },
        agent_id: mesos::AgentId { value: agent_id.to_string() },
        resources: muster_proto::wire_resources(&needs),
        command: Some(mesos::CommandInfo { value: Some("sleep 1000".into()), ..Default::default() }),
        labels: Some(mesos::Labels { labels: (0..4).map(label).collect() }),
        ..Default::default()
    };
    TaskSpec {
        task_id: TaskId::new(id),
        name: info.name.as_str().into(),
        resources: needs,
        executor: None,
        grace_ms: None,
        sealed: Sealed::new(info.encode_to_vec()),
    }
}

fn update(registry: &mut Registry, key: &TaskKey, agent_id: &AgentId, state: TaskState, seq: u32) {
    let launch: LaunchNumber = registry.task(key).unwrap().launch;
    let uuid = Uuid::of(launch, seq);
    let status = Status {
        state,
        source: Source::Executor,
        reason: None,
        message: "".into(),
        wall: WallTime(1_790_000_000_123),
        sealed: Sealed::default(),
    };
    let update = StatusUpdate { launch, task: key.clone(), seq, uuid, status };
    commit(registry, Command::Status { agent_id: agent_id.clone(), update: Box::new(update) });
    commit(registry, Command::Acknowledge { task: key.clone(), uuid });
}

fn cluster(own_labels: bool) -> Registry {
    let mut registry = Registry::new(ClusterId::new("3f0c1d2e5b6a4978"), 1);
    (0..FRAMEWORKS).for_each(|n| subscribe(&mut registry, n));
    (0..AGENTS).for_each(|n| admit(&mut registry, n));
    let frameworks: Vec<FrameworkId> = registry.frameworks().map(|it| it.id.clone()).collect();
    let agents: Vec<AgentId> = registry.agents().map(|it| it.id.clone()).collect();
    for n in 0..2 * FRAMEWORKS * TASKS {
        let (framework_id, agent_id) = (&frameworks[n % FRAMEWORKS], &agents[n * 7 % AGENTS]);
        let id = format!("f{}-{n}", n % FRAMEWORKS);
        let launch = Launch {
            framework_id: framework_id.clone(),
            agent_id: agent_id.clone(),
            role: Role::any(),
            offer_ids: vec![OfferId::new(format!("o{n}"))],
            offered: Resources::of(64_000, 1 << 10),
            tasks: vec![spec(&id, agent_id, own_labels)],
        };
        commit(&mut registry, Command::Launch(launch));
        let key = TaskKey { framework_id: framework_id.clone(), task_id: TaskId::new(&id) };
        update(&mut registry, &key, agent_id, TaskState::Running, 1);
        if n % (2 * FRAMEWORKS) < FRAMEWORKS {
            update(&mut registry, &key, agent_id, TaskState::Finished, 2);
        }
    }
    assert_eq!(registry.task_count(), FRAMEWORKS * TASKS);
    assert_eq!(registry.completed_tasks().count(), FRAMEWORKS * TASKS);
    registry
}

/// Takes bytes as the way to a socket does: it copies them.
struct Piece(Vec<u8>);

impl Write for Piece {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.0.len() >= 64 << 10 {
            self.0.clear();
        }
        self.0.extend_from_slice(data);
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn state(c: &mut Criterion) {
    let mut group = c.benchmark_group("state");
    group.throughput(Throughput::Elements(2 * (FRAMEWORKS * TASKS) as u64));
    for (name, own_labels) in [("of a kind", false), ("each its own", true)] {
        let registry = cluster(own_labels);
        let mut out = Piece(Vec::new());
        group.bench_function(name, |b| {
            b.iter(|| muster_master::write_state(registry.clone(), &mut out).unwrap());
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = state
}
criterion_main!(benches);
