//! What applying costs: `cargo bench -p muster-registry`. An entry of launches holds 64 commands.
//!
//! `--example apply` measures the same over many tasks, and their memory.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use muster_model::{
    AgentId, AgentInfo, Capabilities, ClusterId, FrameworkId, FrameworkInfo, Hello, Index, MachineId,
    OfferId, Resources, Role, Sealed, TaskId, TaskSpec, Term,
};
use muster_registry::{BeginTerm, Command, Entry, Launch, Registry, Subscribe};

const COMMANDS: usize = 64;
const AGENTS: usize = 1_000;

fn apply(registry: &mut Registry, commands: Vec<Command>) {
    let index = Index(registry.applied().0 + 1);
    registry.apply(index, Term(0), &Entry { commands, ..Entry::default() });
}

fn cluster() -> Registry {
    let mut registry = Registry::new(ClusterId::new("3f0c1d2e5b6a4978"), 1);
    let info = FrameworkInfo {
        name: "bench".into(),
        user: "bench".into(),
        principal: None,
        roles: vec![Role::any()],
        failover_timeout_ms: 0,
        capabilities: Capabilities::default(),
        sealed: Sealed::default(),
    };
    let subscribe = Subscribe { framework_id: None, info, suppressed_roles: Vec::new() };
    apply(&mut registry, vec![Command::Subscribe(subscribe)]);
    (0..AGENTS).for_each(|n| apply(&mut registry, vec![hello(n, None)]));
    registry
}

fn hello(n: usize, agent_id: Option<AgentId>) -> Command {
    let info = AgentInfo {
        machine_id: MachineId::new(format!("m{n}")),
        hostname: format!("h{n}").as_str().into(),
        port: 5051,
        resources: Resources::of(64_000_000, 1 << 30),
        attributes: Vec::new(),
    };
    let sealed = Sealed::new(vec![7; 300]);
    Command::AdmitAgent(Box::new(Hello { agent_id, info, tasks: Vec::new(), sealed }))
}

fn launch(n: usize, framework_id: &FrameworkId, agent_id: &AgentId) -> Command {
    Command::Launch(Launch {
        framework_id: framework_id.clone(),
        agent_id: agent_id.clone(),
        role: Role::any(),
        offer_ids: vec![OfferId::new(format!("o{n}"))],
        offered: Resources::of(64_000_000, 1 << 30),
        tasks: vec![TaskSpec {
            task_id: TaskId::new(format!("t{n}")),
            name: "task".into(),
            resources: Resources::of(10, 1),
            executor: None,
            grace_ms: None,
            sealed: Sealed::new(vec![7; 300]),
        }],
    })
}

fn launches(c: &mut Criterion) {
    let mut registry = cluster();
    let framework_id = registry.frameworks().next().unwrap().id.clone();
    let agents: Vec<AgentId> = registry.agents().map(|it| it.id.clone()).collect();
    let mut counted = 0;
    let mut group = c.benchmark_group("apply");
    group.throughput(Throughput::Elements(COMMANDS as u64));
    group.bench_function("launch", |b| {
        b.iter_batched(
            || {
                counted += COMMANDS;
                let all = counted - COMMANDS..counted;
                all.map(|n| launch(n, &framework_id, &agents[n % AGENTS])).collect()
            },
            |commands| apply(&mut registry, commands),
            BatchSize::SmallInput,
        );
    });
    group.finish();
    assert_eq!(registry.task_count(), counted, "each was launched");
}

/// What a change of leader costs each replica: all agents are to be heard of again, and are.
fn terms(c: &mut Criterion) {
    let registry = cluster();
    let ids: Vec<AgentId> = registry.agents().map(|it| it.id.clone()).collect();
    let hellos = || {
        let number = |id: &AgentId| id.as_str().rsplit_once('S').unwrap().1.parse().unwrap();
        ids.iter().map(|id| hello(number(id), Some(id.clone()))).collect()
    };
    let begin = || vec![Command::BeginTerm(BeginTerm { reconnect_grace_ms: 1_000 })];
    let mut begun = registry.clone();
    apply(&mut begun, begin());
    let mut group = c.benchmark_group("term");
    group.throughput(Throughput::Elements(AGENTS as u64));
    // Of each, others keep a frozen copy meanwhile.
    group.bench_function("begin", |b| {
        b.iter_batched(
            || (registry.clone(), begin()),
            |(mut registry, commands)| {
                apply(&mut registry, commands);
                registry
            },
            BatchSize::LargeInput,
        );
    });
    group.bench_function("hellos", |b| {
        b.iter_batched(
            || (begun.clone(), hellos()),
            |(mut registry, commands)| {
                apply(&mut registry, commands);
                registry
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
    let mut back = begun.clone();
    apply(&mut back, hellos());
    assert!(
        begun.agents().all(|agent| !agent.is_connected()) && back.agents().all(|agent| agent.is_connected())
    );
    assert_eq!(back.agent_count(), AGENTS);
}

criterion_group!(benches, launches, terms);
criterion_main!(benches);
