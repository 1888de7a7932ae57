//! The registry as a sequence of records, and back.

use crate::{
    Agent, Carved, CompletedFramework, DoneOperation, Duty, EventStream, Framework, Group, Limits, Newcomer,
    Registry, RoleSettings, Spent, Task,
    registry::{Executor, ExecutorKey, Indexes},
    task::{ByLaunch, Known},
};
use imbl::OrdSet;
use muster_model::{
    AgentId, ClusterId, FrameworkId, Index, LaunchNumber, MachineName, OperationOutcome, Resources, Role,
    Sealed, TaskKey, Term, Timestamp, WallTime, Window,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, hash::Hasher, net::IpAddr, sync::Arc};
use xxhash_rust::xxh3::Xxh3Default;

/// What there is one of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Header {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// Raised by an explicit recovery.
    pub incarnation: u32,
    /// The last index applied.
    pub applied: Index,
    /// The term of the last entry applied.
    pub term: Term,
    /// Registry time.
    pub clock: Timestamp,
    /// The wall time that travelled with it.
    pub wall: WallTime,
    /// Frameworks counted so far.
    pub frameworks_counted: u64,
    /// Agents counted so far.
    pub agents_counted: u64,
    /// Sessions counted so far.
    pub sessions_counted: u64,
    /// Completed and spent records counted so far.
    pub records_counted: u64,
    /// The replicated limits.
    pub limits: Limits,
}

impl Header {
    pub(crate) fn new(cluster_id: ClusterId, incarnation: u32) -> Self {
        Self {
            cluster_id,
            incarnation,
            applied: Index(0),
            term: Term(0),
            clock: Timestamp(0),
            wall: WallTime(0),
            frameworks_counted: 0,
            agents_counted: 0,
            sessions_counted: 0,
            records_counted: 0,
            limits: Limits::default(),
        }
    }

    pub(crate) fn state_hash(&self) -> u64 {
        let mut hasher = Xxh3Default::new();
        std::hash::Hash::hash(self, &mut hasher);
        hasher.finish()
    }
}

/// One record of a snapshot. Append-only, like commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// First, once.
    Header(Box<Header>),
    /// A framework.
    Framework(Box<Framework>),
    /// An agent.
    Agent(Box<Agent>),
    /// A task.
    Task(Box<Task>),
    /// An executor.
    Executor(Box<Executor>),
    /// A completed task and its place in the order.
    CompletedTask(u64, Box<Task>),
    /// A completed framework and its place in the order.
    CompletedFramework(u64, Box<CompletedFramework>),
    /// The id of a removed framework, and since when.
    RemovedFramework(FrameworkId, Timestamp),
    /// A spent ACCEPT and its place in the order.
    Spent(u64, Box<Spent>),
    /// A client that came with a token, and its place in the order.
    Newcomer(u64, Box<Newcomer>),
    /// A framework's event stream.
    EventStream(FrameworkId, EventStream),
    /// An executor that lives, and which run of it.
    Living(Box<ExecutorKey>, LaunchNumber),
    /// What operators set for a role.
    RoleSettings(Role, Box<RoleSettings>),
    /// An agent that is not to be offered.
    Duty(AgentId, Duty),
    /// An agent's address.
    Address(AgentId, IpAddr),
    /// A window of the maintenance schedule and its place.
    Window(u32, Box<Window>),
    /// A machine that is down, and since when.
    DownMachine(Box<MachineName>, WallTime),
    /// What was made of an agent's resources.
    Carved(AgentId, Box<Carved>),
    /// An operation that is done and not acknowledged.
    Operation(Box<DoneOperation>),
    /// What became of the operations of a spent ACCEPT, and its place in the order.
    SpentOperations(u64, Vec<OperationOutcome>),
    /// Tasks that were launched together, by the first launch.
    Group(LaunchNumber, Group),
    /// What was told of a task last.
    Told(Box<TaskKey>, Sealed),
}

/// Why records do not make a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoreError {
    /// The first record is not the header, or another one is.
    Header,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the snapshot's header is missing or not in its place")
    }
}
impl std::error::Error for RestoreError {}

impl Registry {
    /// All there is to store, header first.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let header = std::iter::once(Record::Header(Box::new(self.header.clone())));
        header
            .chain(self.frameworks.values().map(|it| Record::Framework(Box::new((**it).clone()))))
            .chain(self.agents.values().map(|it| Record::Agent(Box::new((**it).clone()))))
            .chain(self.executors.values().map(|it| Record::Executor(Box::new((**it).clone()))))
            .chain(self.tasks.values().map(|it| Record::Task(Box::new((**it).clone()))))
            .chain(
                self.completed_tasks
                    .iter()
                    .map(|(seq, it)| Record::CompletedTask(*seq, Box::new((**it).clone()))),
            )
            .chain(
                self.completed_frameworks
                    .iter()
                    .map(|(seq, it)| Record::CompletedFramework(*seq, Box::new((**it).clone()))),
            )
            .chain(self.removed_frameworks.iter().map(|(id, at)| Record::RemovedFramework(id.clone(), **at)))
            .chain(self.spent.iter().map(|(seq, it)| Record::Spent(*seq, Box::new((**it).clone()))))
            .chain(self.newcomers.iter().map(|(seq, it)| Record::Newcomer(*seq, Box::new((**it).clone()))))
            .chain(self.streams.iter().map(|(id, it)| Record::EventStream(id.clone(), (**it).clone())))
            .chain(self.living.iter().map(|(key, it)| Record::Living(Box::new(key.clone()), **it)))
            .chain(
                self.roles
                    .iter()
                    .map(|(role, it)| Record::RoleSettings(role.clone(), Box::new((**it).clone()))),
            )
            .chain(self.duties.iter().map(|(id, it)| Record::Duty(id.clone(), (**it).clone())))
            .chain(self.addresses.iter().map(|(id, it)| Record::Address(id.clone(), **it)))
            .chain(self.windows.iter().map(|(place, it)| Record::Window(*place, Box::new((**it).clone()))))
            .chain(
                self.down_machines
                    .iter()
                    .map(|(name, since)| Record::DownMachine(Box::new(name.clone()), **since)),
            )
            .chain(self.carved.iter().map(|(id, it)| Record::Carved(id.clone(), Box::new((**it).clone()))))
            .chain(self.operations.values().map(|it| Record::Operation(Box::new((**it).clone()))))
            .chain(
                self.spent_operations.iter().map(|(seq, it)| Record::SpentOperations(*seq, (**it).clone())),
            )
            .chain(self.groups.iter().map(|(first, it)| Record::Group(*first, (**it).clone())))
            .chain(self.told.iter().map(|(framework_id, task_id, it)| {
                let (framework_id, task_id) = (framework_id.clone(), task_id.clone());
                Record::Told(Box::new(TaskKey { framework_id, task_id }), it.clone())
            }))
    }

    /// The registry that these records were taken of.
    pub fn restore(records: impl IntoIterator<Item = Record>) -> Result<Self, RestoreError> {
        let mut records = records.into_iter();
        let Some(Record::Header(header)) = records.next() else { return Err(RestoreError::Header) };
        let mut all = Self::new(header.cluster_id.clone(), header.incarnation);
        all.header = *header;
        let mut known = Known::default();
        for record in records {
            match record {
                Record::Header(_) => return Err(RestoreError::Header),
                Record::Framework(it) => drop(all.frameworks.put(it.id.clone(), *it)),
                Record::Agent(it) => drop(all.agents.put(it.id.clone(), *it)),
                Record::Task(mut it) => {
                    known.share(&mut it, &mut all.alike);
                    let it = Arc::new(*it);
                    all.tasks.put(&it.key, it.clone());
                }
                Record::Executor(it) => drop(all.executors.put(it.key.clone(), *it)),
                Record::CompletedTask(seq, mut it) => {
                    known.share(&mut it, &mut all.alike);
                    all.completed_tasks.put(seq, *it);
                }
                Record::CompletedFramework(seq, it) => drop(all.completed_frameworks.put(seq, *it)),
                Record::RemovedFramework(id, at) => drop(all.removed_frameworks.put(id, at)),
                Record::Spent(seq, it) => drop(all.spent.put(seq, *it)),
                Record::Newcomer(seq, it) => drop(all.newcomers.put(seq, *it)),
                Record::EventStream(id, it) => drop(all.streams.put(id, it)),
                Record::Living(key, number) => drop(all.living.put(*key, number)),
                Record::RoleSettings(role, it) => drop(all.roles.put(role, *it)),
                Record::Duty(id, it) => drop(all.duties.put(id, it)),
                Record::Address(id, ip) => drop(all.addresses.put(id, ip)),
                Record::Window(place, it) => drop(all.windows.put(place, *it)),
                Record::DownMachine(name, since) => drop(all.down_machines.put(*name, since)),
                Record::Carved(id, it) => drop(all.carved.put(id, *it)),
                Record::Operation(it) => {
                    let key = (it.framework_id.clone(), it.operation_id.clone());
                    all.operations.put(key, *it);
                }
                Record::SpentOperations(seq, it) => drop(all.spent_operations.put(seq, it)),
                Record::Group(first, it) => drop(all.groups.put(first, it)),
                Record::Told(key, it) => all.told.put(&key, it),
            }
        }
        all.index = Indexes::of(&all);
        Ok(all)
    }
}

impl Indexes {
    /// Everything derived, from the tables alone.
    pub(crate) fn of(all: &Registry) -> Self {
        let mut index = Self::default();
        let mut on_agents: BTreeMap<&AgentId, (OrdSet<ByLaunch>, Resources)> = BTreeMap::new();
        for task in all.tasks.values() {
            let (tasks, held) = on_agents.entry(&task.agent_id).or_default();
            tasks.insert(ByLaunch(task.origin.clone()));
            if task.held {
                held.add(&task.resources);
            }
        }
        for executor in all.executors.values() {
            let (_, held) = on_agents.entry(&executor.key.agent_id).or_default();
            held.add(&executor.spec.resources);
        }
        for agent in all.agents.values().filter(|agent| !agent.strays.is_empty()) {
            let (_, held) = on_agents.entry(&agent.id).or_default();
            agent.strays.values().for_each(|stray| held.add(&stray.resources));
        }
        for (id, (tasks, held)) in on_agents {
            if !tasks.is_empty() {
                index.tasks_of_agent.insert(id.clone(), tasks);
            }
            if !held.is_empty() {
                index.held_on_agent.insert(id.clone(), held);
            }
        }
        for agent in all.agents.values() {
            if let Some(since) = agent.lost_since() {
                index.lost_agents.insert((since, agent.id.clone()));
            }
            if !matches!(agent.state, crate::AgentState::Gone { .. }) {
                index.agent_of_machine.insert(agent.info.machine_id.clone(), agent.id.clone());
            }
        }
        for (seq, spent) in all.spent.iter() {
            for offer_id in &spent.offer_ids {
                index.spent_offers.insert(offer_id.clone(), *seq);
            }
            index.spent_of_framework.entry(spent.framework_id.clone()).or_default().insert(*seq);
        }
        for (seq, task) in all.completed_tasks.iter() {
            index.completed_of_framework.entry(task.key.framework_id.clone()).or_default().insert(*seq);
        }
        index.newcomers = all.newcomers.iter().map(|(seq, newcomer)| (newcomer.token, *seq)).collect();
        index.scheduled = crate::apply::scheduled(all.windows.iter().map(|(place, it)| (*place, &**it)));
        index
    }
}
