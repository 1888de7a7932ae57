//! The registry as a sequence of records; `restore.rs` is the way back.

use crate::{
    Agent, Carved, CompletedFramework, DoneOperation, Duty, EventStream, Framework, Group, Limits, Newcomer,
    Registry, RoleSettings, Spent, Task,
    registry::{Executor, ExecutorKey},
};
use muster_model::{
    AgentId, ClusterId, FrameworkId, Index, LaunchNumber, MachineName, OperationOutcome, Role, Sealed,
    TaskKey, Term, Timestamp, WallTime, Window,
};
use serde::{Deserialize, Serialize};
use std::{fmt, hash::Hasher, net::IpAddr};
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

/// One record of a snapshot, with its tasks as they are there. Append-only, like commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record<T = Box<Task>> {
    /// First, once.
    Header(Box<Header>),
    /// A framework.
    Framework(Box<Framework>),
    /// An agent.
    Agent(Box<Agent>),
    /// A task.
    Task(T),
    /// An executor.
    Executor(Box<Executor>),
    /// A completed task and its place in the order.
    CompletedTask(u64, T),
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

impl<T> Record<T> {
    /// The same with its task as it becomes, which is told its place in the order of those that are over.
    pub(crate) fn with_task<U>(self, task: impl FnOnce(Option<u64>, T) -> U) -> Record<U> {
        match self {
            Self::Header(it) => Record::Header(it),
            Self::Task(it) => Record::Task(task(None, it)),
            Self::CompletedTask(seq, it) => Record::CompletedTask(seq, task(Some(seq), it)),
            Self::Framework(it) => Record::Framework(it),
            Self::Agent(it) => Record::Agent(it),
            Self::Executor(it) => Record::Executor(it),
            Self::CompletedFramework(seq, it) => Record::CompletedFramework(seq, it),
            Self::RemovedFramework(id, at) => Record::RemovedFramework(id, at),
            Self::Spent(seq, it) => Record::Spent(seq, it),
            Self::Newcomer(seq, it) => Record::Newcomer(seq, it),
            Self::EventStream(id, it) => Record::EventStream(id, it),
            Self::Living(key, number) => Record::Living(key, number),
            Self::RoleSettings(role, it) => Record::RoleSettings(role, it),
            Self::Duty(id, it) => Record::Duty(id, it),
            Self::Address(id, ip) => Record::Address(id, ip),
            Self::Window(place, it) => Record::Window(place, it),
            Self::DownMachine(name, since) => Record::DownMachine(name, since),
            Self::Carved(id, it) => Record::Carved(id, it),
            Self::Operation(it) => Record::Operation(it),
            Self::SpentOperations(seq, it) => Record::SpentOperations(seq, it),
            Self::Group(first, it) => Record::Group(first, it),
            Self::Told(key, it) => Record::Told(key, it),
        }
    }
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
}
