//! The registry and its one function.

use crate::{
    Agent, Carved, Change, Command, CompletedFramework, DoneOperation, Duty, Entry, Framework, Group, Header,
    Limits, Origin, Outcome, Refusal, RoleSettings, Task,
    table::Table,
    task::{AgentTasks, Alike, Shape},
    task_table::TaskTable,
};
use imbl::{OrdMap, OrdSet};
use muster_model::{
    AcceptOutcome, AgentId, ClusterId, ExecutorId, FrameworkId, Index, LaunchNumber, MachineId, MachineName,
    OfferId, OperationId, OperationOutcome, Resources, Role, Sealed, Session, TaskKey, Term, Timestamp,
    Token, WallTime, Window,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// Frameworks, agents, tasks and what must be remembered of offers. Cloning shares structure.
#[derive(Debug, Clone)]
pub struct Registry {
    pub(crate) header: Header,
    pub(crate) frameworks: Table<FrameworkId, Framework>,
    pub(crate) agents: Table<AgentId, Agent>,
    pub(crate) tasks: TaskTable<Arc<Task>>,
    pub(crate) executors: Table<ExecutorKey, Executor>,
    /// Tasks that are over, by the order in which they ended.
    pub(crate) completed_tasks: Table<u64, Task>,
    /// Frameworks that are over, likewise.
    pub(crate) completed_frameworks: Table<u64, CompletedFramework>,
    /// The ids of frameworks that are over, and since when.
    pub(crate) removed_frameworks: Table<FrameworkId, Timestamp>,
    /// Spent offers by the order in which they were spent.
    pub(crate) spent: Table<u64, Spent>,
    /// Clients that came with a token, by the order in which they came.
    pub(crate) newcomers: Table<u64, Newcomer>,
    /// Event streams of the Mesos API, of frameworks whose newest session is one.
    pub(crate) streams: Table<FrameworkId, EventStream>,
    /// Executors of which their agent says that they live, and which run of them.
    pub(crate) living: Table<ExecutorKey, LaunchNumber>,
    /// What operators set for roles.
    pub(crate) roles: Table<Role, RoleSettings>,
    /// Agents that are not to be offered.
    pub(crate) duties: Table<AgentId, Duty>,
    /// The addresses that agents say.
    pub(crate) addresses: Table<AgentId, IpAddr>,
    /// The maintenance schedule, by place in it.
    pub(crate) windows: Table<u32, Window>,
    /// Machines of the schedule that are down, by their folded names, and since when.
    pub(crate) down_machines: Table<MachineName, WallTime>,
    /// What was made of agents' resources while they were there.
    pub(crate) carved: Table<AgentId, Carved>,
    /// Operations that are done and not acknowledged.
    pub(crate) operations: Table<(FrameworkId, OperationId), DoneOperation>,
    /// What became of the operations of spent ACCEPTs, by their place among those.
    pub(crate) spent_operations: Table<u64, Vec<OperationOutcome>>,
    /// Tasks that were launched together, by the first launch of each group.
    pub(crate) groups: Table<LaunchNumber, Group>,
    /// What the last status of a task's executor or agent carried beside its state, as it was sealed.
    pub(crate) told: TaskTable<Sealed>,
    /// So that tasks share what they have in common: no part of what there is.
    pub(crate) alike: Alike,
    pub(crate) index: Indexes,
}

/// What is derived from the tables: rebuilt on restore, never stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Indexes {
    pub(crate) tasks_of_agent: OrdMap<AgentId, AgentTasks>,
    pub(crate) held_on_agent: OrdMap<AgentId, Resources>,
    pub(crate) agent_of_machine: OrdMap<MachineId, AgentId>,
    pub(crate) spent_offers: OrdMap<OfferId, u64>,
    pub(crate) spent_of_framework: OrdMap<FrameworkId, OrdSet<u64>>,
    pub(crate) completed_of_framework: OrdMap<FrameworkId, OrdSet<u64>>,
    pub(crate) lost_agents: OrdSet<(Timestamp, AgentId)>,
    pub(crate) newcomers: OrdMap<Token, u64>,
    /// Machines of the schedule by their folded names, and in which window each is.
    pub(crate) scheduled: OrdMap<MachineName, u32>,
}

/// An executor's full name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExecutorKey {
    pub(crate) agent_id: AgentId,
    pub(crate) framework_id: FrameworkId,
    pub(crate) executor_id: ExecutorId,
}

/// An executor on an agent. It is held while any task of it is, and while it lives.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Executor {
    pub(crate) key: ExecutorKey,
    pub(crate) role: Role,
    pub(crate) spec: muster_model::task::ExecutorSpec,
    /// How many held tasks run in it.
    pub(crate) tasks: u32,
}

/// An ACCEPT that was carried out, so that a repetition is answered alike (`protocol` C10).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Spent {
    /// Whose.
    pub framework_id: FrameworkId,
    /// The offers it used up.
    pub offer_ids: Vec<OfferId>,
    /// What became of its tasks.
    pub outcome: AcceptOutcome,
    /// When.
    pub at: Timestamp,
}

/// A client that came without an id and with a token. By the token it is known again when it comes without an id once
/// more, since the answer did not reach it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Newcomer {
    /// Its token.
    pub token: Token,
    /// What it became.
    pub client: Client,
    /// When.
    pub at: Timestamp,
}

/// A framework's session over the Mesos API. Its calls come as requests of their own and name the stream: so that any
/// leader can tell whose they are, the registry keeps the name (`protocol` E23).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EventStream {
    /// The session.
    pub session: Session,
    /// Drawn at random for the stream; its text is the `Mesos-Stream-Id`.
    pub token: Token,
}

/// A framework or an agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Client {
    /// A framework.
    Framework(FrameworkId),
    /// An agent.
    Agent(AgentId),
}

/// On whose account resources are held: a framework, in one of its roles.
pub type Account = (FrameworkId, Role);

/// Resources that a task, an executor or a stray holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// On which agent.
    pub agent_id: AgentId,
    /// On whose account; none for a stray.
    pub account: Option<Account>,
    /// What.
    pub resources: Resources,
}

/// What applying an entry did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// One for each command, in order.
    pub outcomes: Vec<Outcome>,
    /// What changed, in order.
    pub changes: Vec<Change>,
}

/// Where in the log a command is carried out, and where what it does is written down.
pub(crate) struct Context<'a> {
    pub(crate) index: Index,
    pub(crate) now: Timestamp,
    /// Launches so far in this entry.
    pub(crate) launches: u32,
    /// A hello is being settled: of the agent's executors nothing is known before it says so.
    pub(crate) settling: bool,
    /// Agents on which something ended: who drains may be empty.
    pub(crate) emptied: Vec<AgentId>,
    pub(crate) changes: &'a mut Vec<Change>,
}

impl Registry {
    /// An empty registry of a new cluster, or of a recovered one in its new incarnation.
    pub fn new(cluster_id: ClusterId, incarnation: u32) -> Self {
        Self {
            header: Header::new(cluster_id, incarnation),
            frameworks: Table::default(),
            agents: Table::default(),
            tasks: TaskTable::default(),
            executors: Table::default(),
            completed_tasks: Table::default(),
            completed_frameworks: Table::default(),
            removed_frameworks: Table::default(),
            spent: Table::default(),
            newcomers: Table::default(),
            streams: Table::default(),
            living: Table::default(),
            roles: Table::default(),
            duties: Table::default(),
            addresses: Table::default(),
            windows: Table::default(),
            down_machines: Table::default(),
            carved: Table::default(),
            operations: Table::default(),
            spent_operations: Table::default(),
            groups: Table::default(),
            told: TaskTable::default(),
            alike: Alike::default(),
            index: Indexes::default(),
        }
    }

    /// Carries out an entry that was committed at `index` under `term`. Never fails: what cannot be done is
    /// refused, alike on every replica.
    pub fn apply(&mut self, index: Index, term: Term, entry: &Entry) -> Applied {
        let mut applied = Applied::default();
        self.header.applied = self.header.applied.max(index);
        if entry.term != term {
            let refusal = Refusal::StaleTerm { decided: entry.term, written: term };
            applied.outcomes = vec![Outcome::Refused(refusal); entry.commands.len()];
            return applied;
        }
        self.header.clock = self.header.clock.max(entry.at); // time never runs backward
        self.header.wall = entry.wall;
        self.header.term = term;
        let mut context = Context {
            index,
            now: self.header.clock,
            launches: 0,
            settling: false,
            emptied: Vec::new(),
            changes: &mut applied.changes,
        };
        let to = &mut context;
        for command in &entry.commands {
            let outcome = match command {
                Command::BeginTerm(begin) => self.begin_term(begin, to),
                Command::Tick => Outcome::Done,
                Command::Subscribe(subscribe) => self.subscribe(subscribe, to),
                Command::DisconnectFramework { framework_id, session } => {
                    self.disconnect_framework(framework_id, *session, to)
                }
                Command::ExpireFramework { framework_id, disconnected } => {
                    self.expire_framework(framework_id, *disconnected, to)
                }
                Command::Teardown { framework_id } => self.teardown(framework_id, to),
                Command::AdmitAgent(hello) => self.admit_agent(hello, None, to),
                Command::DisconnectAgent { agent_id, session } => {
                    self.disconnect_agent(agent_id, *session, to)
                }
                Command::MarkUnreachable { agent_id, disconnected } => {
                    self.mark_unreachable(agent_id, *disconnected, to)
                }
                Command::MarkGone { agent_id } => self.mark_gone(agent_id, to),
                Command::Launch(launch) => self.launch(launch, &[], to),
                Command::LaunchSome(launch, bad) => self.launch(launch, bad, to),
                Command::Accepted { agent_id, launches } => self.accepted(agent_id, launches),
                Command::Status { agent_id, update } => self.status(agent_id, update, to),
                Command::Ended { agent_id, launch } => self.ended(agent_id, *launch, to),
                Command::Acknowledge { task, uuid } => self.acknowledge(task, *uuid, to),
                Command::Kill { task, grace_ms } => self.kill(task, *grace_ms, to),
                Command::Configure(limits) => self.configure(*limits),
                Command::FirstSubscribe(token, subscribe) => self.first_subscribe(*token, subscribe, to),
                Command::FirstHello(token, hello) => self.first_hello(*token, hello, None, to),
                Command::StreamSubscribe(token, subscribe) => self.stream_subscribe(*token, subscribe, to),
                Command::UpdateFramework { framework_id, info, suppressed_roles } => {
                    self.update_framework(framework_id, info, suppressed_roles, to)
                }
                Command::Executors { agent_id, executors, all } => {
                    self.executors_of(agent_id, executors, *all, to)
                }
                Command::SetWeights(weights) => self.set_weights(weights, to),
                Command::SetQuotas { quotas, force, new } => self.set_quotas(quotas, *force, *new, to),
                Command::RemoveQuota(role) => self.remove_quota(role, to),
                Command::DeactivateAgent { agent_id } => self.deactivate_agent(agent_id, to),
                Command::ReactivateAgent { agent_id } => self.reactivate_agent(agent_id, to),
                Command::DrainAgent { agent_id, max_grace_ms, mark_gone } => {
                    self.drain_agent(agent_id, *max_grace_ms, *mark_gone, to)
                }
                Command::SetSchedule(windows) => self.set_schedule(windows, to),
                Command::StartMaintenance(machines) => self.start_maintenance(machines, to),
                Command::StopMaintenance(machines) => self.stop_maintenance(machines, to),
                Command::HelloFrom { ip, token: None, hello } => self.admit_agent(hello, Some(*ip), to),
                Command::HelloFrom { ip, token: Some(token), hello } => {
                    self.first_hello(*token, hello, Some(*ip), to)
                }
                Command::Operate(operate) => self.operate(operate, to),
                Command::Convert { agent_id, conversion } => self.convert_free(agent_id, conversion, to),
                Command::AcknowledgeOperation { framework_id, operation_id, uuid } => {
                    self.acknowledge_operation(framework_id, operation_id, *uuid)
                }
                Command::HelloAsKnown { ip, hello, tasks } => self.admit_as_known(hello, *tasks, *ip, to),
            };
            self.finish_drains(to);
            applied.outcomes.push(outcome);
        }
        self.prune(&mut Context {
            index,
            now: self.header.clock,
            launches: 0,
            settling: false,
            emptied: Vec::new(),
            changes: &mut applied.changes,
        });
        applied
    }

    /// Takes note of an index that holds no entry of ours (a blank or a membership change).
    pub fn skip(&mut self, index: Index) {
        self.header.applied = self.header.applied.max(index);
    }

    fn configure(&mut self, limits: Limits) -> Outcome {
        self.header.limits = limits;
        Outcome::Done
    }

    /// Registry time.
    pub fn clock(&self) -> Timestamp {
        self.header.clock
    }
    /// The wall time that travelled with the last entry, for display.
    pub fn wall(&self) -> WallTime {
        self.header.wall
    }
    /// The last index applied; 0 before the first.
    pub fn applied(&self) -> Index {
        self.header.applied
    }
    /// The term of the last entry applied.
    pub fn term(&self) -> Term {
        self.header.term
    }
    /// The cluster.
    pub fn cluster_id(&self) -> &ClusterId {
        &self.header.cluster_id
    }
    /// 1 at creation, raised by an explicit recovery.
    pub fn incarnation(&self) -> u32 {
        self.header.incarnation
    }
    /// The replicated limits.
    pub fn limits(&self) -> &Limits {
        &self.header.limits
    }
    /// The sum of the hashes of all records: equal on all replicas at an equal index.
    pub fn state_hash(&self) -> u64 {
        [
            self.header.state_hash(),
            self.frameworks.hash(),
            self.agents.hash(),
            self.tasks.hash(),
            self.executors.hash(),
            self.completed_tasks.hash(),
            self.completed_frameworks.hash(),
            self.removed_frameworks.hash(),
            self.spent.hash(),
            self.newcomers.hash(),
            self.streams.hash(),
            self.living.hash(),
            self.roles.hash(),
            self.duties.hash(),
            self.addresses.hash(),
            self.windows.hash(),
            self.down_machines.hash(),
            self.carved.hash(),
            self.operations.hash(),
            self.spent_operations.hash(),
            self.groups.hash(),
            self.told.hash(),
        ]
        .into_iter()
        .fold(0, u64::wrapping_add)
    }

    /// A framework that lives.
    pub fn framework(&self, id: &FrameworkId) -> Option<&Framework> {
        self.frameworks.get(id).map(|framework| &**framework)
    }
    /// All frameworks that live, by id.
    pub fn frameworks(&self) -> impl Iterator<Item = &Framework> {
        self.frameworks.values().map(|framework| &**framework)
    }
    /// How many frameworks live.
    pub fn framework_count(&self) -> usize {
        self.frameworks.len()
    }
    /// The session of a framework's event stream, if this token names it and no newer one was begun since.
    pub fn stream_session(&self, id: &FrameworkId, token: Token) -> Option<Session> {
        let stream = self.streams.get(id).filter(|stream| stream.token == token)?;
        self.framework(id).map(|framework| framework.session).filter(|session| *session == stream.session)
    }
    /// Whether a framework subscribed over the Mesos API when it last did.
    pub fn speaks_mesos(&self, id: &FrameworkId) -> bool {
        self.streams.contains(id)
    }
    /// Whether the id belonged to a framework that was removed.
    pub fn is_removed(&self, id: &FrameworkId) -> bool {
        self.removed_frameworks.contains(id)
    }
    /// Frameworks that are over, newest first.
    pub fn completed_frameworks(&self) -> impl Iterator<Item = &CompletedFramework> {
        self.completed_frameworks.values().rev().map(|framework| &**framework)
    }
    /// An agent that is not forgotten.
    pub fn agent(&self, id: &AgentId) -> Option<&Agent> {
        self.agents.get(id).map(|agent| &**agent)
    }
    /// The agent of a machine, unless it is gone.
    pub fn agent_of_machine(&self, id: &MachineId) -> Option<&AgentId> {
        self.index.agent_of_machine.get(id)
    }
    /// All agents that are not forgotten, by id.
    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.agents.values().map(|agent| &**agent)
    }
    /// Those of a greater id than this, by id.
    pub fn agents_after<'a>(&'a self, id: &AgentId) -> impl Iterator<Item = &'a Agent> + use<'a> {
        let after = (std::ops::Bound::Excluded(id.clone()), std::ops::Bound::Unbounded);
        self.agents.range(after).map(|(_, agent)| &**agent)
    }
    /// How many agents are not forgotten.
    pub fn agent_count(&self) -> usize {
        self.agents.len()
    }
    /// Whether an agent may be offered: it answers, and no operator wants it otherwise.
    pub fn is_offerable(&self, id: &AgentId) -> bool {
        self.offerable(id).is_some()
    }
    /// The agent, if it may be offered.
    pub fn offerable(&self, id: &AgentId) -> Option<&Agent> {
        self.agent(id).filter(|agent| agent.is_connected() && !self.duties.contains(id))
    }
    /// The address that an agent says, if it does.
    pub fn address(&self, id: &AgentId) -> Option<IpAddr> {
        self.addresses.get(id).map(|ip| **ip)
    }
    /// The whole `mesos.v1.TaskStatus` that a task's executor or agent said last, also once it is acknowledged, unless it
    /// carried nothing of its own or is longer than [`TOLD_BYTES_MAX`](crate::TOLD_BYTES_MAX).
    pub fn told(&self, key: &TaskKey) -> Option<&Sealed> {
        self.told.get(key)
    }
    /// What an operator set for an agent that is not to be offered.
    pub fn duty(&self, id: &AgentId) -> Option<&Duty> {
        self.duties.get(id).map(|duty| &**duty)
    }
    /// What operators set for roles, by role.
    pub fn role_settings(&self) -> impl Iterator<Item = (&Role, &RoleSettings)> {
        self.roles.iter().map(|(role, settings)| (role, &**settings))
    }
    /// A task that is not over.
    pub fn task(&self, key: &TaskKey) -> Option<&Task> {
        self.tasks.get(key).map(|task| &**task)
    }
    /// All tasks that are not over, by framework and id.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values().map(|task| &**task)
    }
    /// How many tasks are not over.
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }
    /// How many tasks of a framework are not over.
    pub fn task_count_of_framework(&self, id: &FrameworkId) -> usize {
        self.tasks.len_of_framework(id)
    }
    /// How many tasks of an agent are not over.
    pub fn task_count_of_agent(&self, id: &AgentId) -> usize {
        self.index.tasks_of_agent.get(id).map_or(0, AgentTasks::len)
    }
    /// Tasks from `start` on, by framework and id.
    pub fn tasks_from(&self, start: TaskKey) -> impl Iterator<Item = &Task> {
        self.tasks.from(start).map(|task| &**task)
    }
    /// A framework's tasks, by id.
    pub fn tasks_of_framework<'a>(&'a self, id: &FrameworkId) -> impl Iterator<Item = &'a Task> + use<'a> {
        self.tasks.of_framework(id).map(|task| &**task)
    }
    /// An agent's tasks that are not over, in the order of their launches.
    pub fn tasks_of_agent(&self, id: &AgentId) -> impl Iterator<Item = &Task> {
        let tasks = self.index.tasks_of_agent.get(id);
        tasks.into_iter().flat_map(AgentTasks::iter).filter_map(|it| self.task(&it.key))
    }
    /// Copies of an agent's tasks, by framework and id: the order in which what becomes of all of them is numbered.
    pub(crate) fn copies_of_agent(&self, id: &AgentId) -> Vec<Task> {
        let mut tasks: Vec<Task> = self.tasks_of_agent(id).cloned().collect();
        tasks.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        tasks
    }
    /// Tasks that are over, newest first.
    pub fn completed_tasks(&self) -> impl DoubleEndedIterator<Item = &Task> {
        self.completed_tasks.values().rev().map(|task| &**task)
    }
    /// A framework's tasks that are over, newest first.
    pub fn completed_tasks_of_framework<'a>(
        &'a self,
        id: &FrameworkId,
    ) -> impl Iterator<Item = &'a Task> + use<'a> {
        let mine = self.index.completed_of_framework.get(id).into_iter().flat_map(|mine| mine.iter().rev());
        mine.filter_map(|seq| self.completed_tasks.get(seq)).map(|task| &**task)
    }
    /// What an agent's tasks, executors and strays hold.
    pub fn held_on(&self, id: &AgentId) -> Resources {
        self.index.held_on_agent.get(id).cloned().unwrap_or_default()
    }
    /// The spent ACCEPT that used this offer.
    pub fn spent(&self, offer_id: &OfferId) -> Option<&Spent> {
        self.index.spent_offers.get(offer_id).and_then(|seq| self.spent.get(seq)).map(|spent| &**spent)
    }
    /// Executors that are held: on which agent, of which framework, in which role, and as they are described.
    pub fn executors(
        &self,
    ) -> impl Iterator<Item = (&AgentId, &FrameworkId, &Role, &muster_model::task::ExecutorSpec)> {
        self.executors.values().map(|it| (&it.key.agent_id, &it.key.framework_id, &it.role, &it.spec))
    }
    /// The run of an executor, once its agent said which.
    pub fn run_of_executor(
        &self,
        agent_id: &AgentId,
        framework_id: &FrameworkId,
        executor_id: &ExecutorId,
    ) -> Option<LaunchNumber> {
        let (agent_id, framework_id) = (agent_id.clone(), framework_id.clone());
        let key = ExecutorKey { agent_id, framework_id, executor_id: executor_id.clone() };
        self.living.get(&key).map(|run| **run).filter(|run| *run != LaunchNumber::default())
    }
    /// What is held on accounts, as resources and how often they are held: tasks of a kind, of which there may be a million,
    /// are counted.
    pub fn held_by_accounts(&self) -> impl Iterator<Item = (Account, &Resources, u64)> {
        let tasks = self.tasks.iter_by_framework().flat_map(|(framework_id, tasks)| {
            let kinds = by_kind(tasks.filter(|task| task.held).map(|task| &*task.origin.shape));
            kinds.map(|(role, resources, n)| ((framework_id.clone(), role.clone()), resources, n))
        });
        let executors = self.executors.values().map(|executor| {
            let account = (executor.key.framework_id.clone(), executor.role.clone());
            (account, &executor.spec.resources, 1)
        });
        tasks.chain(executors)
    }
    /// What a framework's tasks hold: in a role, so many times these resources.
    pub fn held_by_tasks_of<'a>(
        &'a self,
        id: &FrameworkId,
    ) -> impl Iterator<Item = (&'a Role, &'a Resources, u64)> + use<'a> {
        by_kind(self.tasks_of_framework(id).filter(|task| task.held).map(|task| &*task.origin.shape))
    }
    /// What the tasks on an agent hold: in a role, so many times these resources.
    pub fn held_by_tasks_on<'a>(
        &'a self,
        id: &AgentId,
    ) -> impl Iterator<Item = (&'a Role, &'a Resources, u64)> + use<'a> {
        let tasks = self.index.tasks_of_agent.get(id);
        // As a rule all do, and need not be looked up.
        let all_hold = tasks.is_some_and(AgentTasks::all_hold);
        let hold =
            move |origin: &&Arc<Origin>| all_hold || self.task(&origin.key).is_some_and(|task| task.held);
        by_kind(tasks.into_iter().flat_map(AgentTasks::iter).filter(hold).map(|origin| &*origin.shape))
    }
    /// Everything that is held, and on whose account.
    pub fn holdings(&self) -> Vec<Holding> {
        let tasks = self.tasks.values().filter(|task| task.held).map(|task| Holding {
            agent_id: task.agent_id.clone(),
            account: Some((task.key.framework_id.clone(), task.role.clone())),
            resources: task.resources.clone(),
        });
        let executors = self.executors.values().map(|executor| Holding {
            agent_id: executor.key.agent_id.clone(),
            account: Some((executor.key.framework_id.clone(), executor.role.clone())),
            resources: executor.spec.resources.clone(),
        });
        let strays = self.agents.values().flat_map(|agent| {
            agent.strays.values().map(|stray| Holding {
                agent_id: agent.id.clone(),
                account: None,
                resources: stray.resources.clone(),
            })
        });
        tasks.chain(executors).chain(strays).collect()
    }
}

impl PartialEq for Registry {
    fn eq(&self, other: &Self) -> bool {
        self.header == other.header
            && self.frameworks == other.frameworks
            && self.agents == other.agents
            && self.tasks == other.tasks
            && self.executors == other.executors
            && self.completed_tasks == other.completed_tasks
            && self.completed_frameworks == other.completed_frameworks
            && self.removed_frameworks == other.removed_frameworks
            && self.newcomers == other.newcomers
            && self.streams == other.streams
            && self.living == other.living
            && self.roles == other.roles
            && self.duties == other.duties
            && self.addresses == other.addresses
            && self.windows == other.windows
            && self.down_machines == other.down_machines
            && self.carved == other.carved
            && self.operations == other.operations
            && self.spent_operations == other.spent_operations
            && self.groups == other.groups
            && self.told == other.told
            && self.spent == other.spent
            && self.index == other.index
    }
}
impl Eq for Registry {}

/// Roles and resources of tasks, with how many tasks have just these; in the order in which they first come, whichever tasks
/// have theirs in common on this replica: so any sum of them is what it would be of all tasks one by one.
fn by_kind<'a>(
    shapes: impl Iterator<Item = &'a Shape>,
) -> impl Iterator<Item = (&'a Role, &'a Resources, u64)> {
    let mut kinds: Vec<(&Shape, u64)> = Vec::new();
    let mut places: BTreeMap<*const Shape, usize> = BTreeMap::new();
    for shape in shapes {
        let place = *places.entry(std::ptr::from_ref(shape)).or_insert(kinds.len());
        match kinds.get_mut(place) {
            Some((_, n)) => *n += 1,
            None => kinds.push((shape, 1)),
        }
    }
    kinds.into_iter().map(|(shape, n)| (&shape.role, &shape.resources, n))
}
