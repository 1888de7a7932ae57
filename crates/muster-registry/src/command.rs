//! All that can be asked of the registry. Append-only: bincode stores a variant's position.

use crate::Quota;
use muster_model::{
    AgentId, BadTask, Conversion, FrameworkId, FrameworkInfo, Hello, Index, KnownExecutor, LaunchNumber,
    LaunchSum, MachineName, OfferId, Operation, OperationId, Role, Session, StatusUpdate, TaskId, TaskKey,
    TaskSpec, Term, Timestamp, Token, Uuid, WallTime, Window,
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// One Raft log record: a stamp and a batch of commands, decided under one leadership.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The term whose leader decided it. Apply refuses all of an entry whose log id has another term.
    pub term: Term,
    /// Registry time (`protocol` B6).
    pub at: Timestamp,
    /// The leader's wall clock, for display.
    pub wall: WallTime,
    /// The ticket of the first command; the rest count on. Means something only to the leader of `term`.
    pub first_ticket: u64,
    /// What to do, in order.
    pub commands: Vec<Command>,
}

/// A checked intent, fit to replicate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first command of every leader.
    BeginTerm(BeginTerm),
    /// Time passes.
    Tick,
    /// A framework subscribes: new, again, or another scheduler of it.
    Subscribe(Subscribe),
    /// A framework's stream ended.
    DisconnectFramework {
        /// Which.
        framework_id: FrameworkId,
        /// The session that ended; a newer one is not touched.
        session: Session,
    },
    /// A framework's failover timeout ran out.
    ExpireFramework {
        /// Which.
        framework_id: FrameworkId,
        /// The disconnection it ran out for; refused when that one has ended.
        disconnected: Index,
    },
    /// End a framework and all its tasks.
    Teardown {
        /// Which.
        framework_id: FrameworkId,
    },
    /// An agent says hello: new, or again.
    AdmitAgent(Box<Hello>),
    /// An agent's stream ended or its pings were missed.
    DisconnectAgent {
        /// Which.
        agent_id: AgentId,
        /// The session that ended.
        session: Session,
    },
    /// An agent stayed away too long.
    MarkUnreachable {
        /// Which.
        agent_id: AgentId,
        /// The disconnection it stayed away for.
        disconnected: Index,
    },
    /// An operator says that an agent never comes back.
    MarkGone {
        /// Which.
        agent_id: AgentId,
    },
    /// Launch a batch of tasks on one agent, against offers.
    Launch(Launch),
    /// An agent has these orders on its disk.
    Accepted {
        /// Which agent.
        agent_id: AgentId,
        /// Which launches.
        launches: Vec<LaunchNumber>,
    },
    /// A task's status, from its agent.
    Status {
        /// Which agent.
        agent_id: AgentId,
        /// The update.
        update: Box<StatusUpdate>,
    },
    /// A stray (a process the registry holds resources for, but no live task) ended.
    Ended {
        /// Which agent.
        agent_id: AgentId,
        /// Which launch.
        launch: LaunchNumber,
    },
    /// A framework has an update.
    Acknowledge {
        /// Whose task.
        task: TaskKey,
        /// Which update.
        uuid: Uuid,
    },
    /// A framework wants a task ended.
    Kill {
        /// Which.
        task: TaskKey,
        /// How long it may take to end by itself, in ms; none = its own policy.
        grace_ms: Option<u64>,
    },
    /// Change the replicated limits.
    Configure(Limits),
    /// Launch those tasks of an ACCEPT that are described well; the others are refused, and remembered so.
    LaunchSome(Launch, Vec<BadTask>),
    /// The first SUBSCRIBE of a framework without an id, which has drawn a token: asked again, it is the same framework.
    FirstSubscribe(Token, Subscribe),
    /// The first hello of an agent without an id, likewise.
    FirstHello(Token, Box<Hello>),
    /// A framework subscribes over an event stream of the Mesos API, which the token names from now on. Of a framework
    /// without an id it is the first SUBSCRIBE as well: asked again with the same token, it is the same framework.
    StreamSubscribe(Token, Subscribe),
    /// A framework describes itself anew, without a new session.
    UpdateFramework {
        /// Which.
        framework_id: FrameworkId,
        /// Its description.
        info: FrameworkInfo,
        /// Roles it wants no offers for.
        suppressed_roles: Vec<Role>,
    },
    /// An agent says which executors live, and how others ended.
    Executors {
        /// Which agent.
        agent_id: AgentId,
        /// What it says.
        executors: Vec<KnownExecutor>,
        /// Whether it knows of no other.
        all: bool,
    },
    /// An operator sets weights of roles, in thousandths.
    SetWeights(Vec<(Role, u64)>),
    /// An operator sets quotas of roles; an empty one takes the former away.
    SetQuotas {
        /// The quotas, each within its own limits.
        quotas: Vec<(Role, Quota)>,
        /// Also where roles have more already, or the cluster has less.
        force: bool,
        /// Only of roles that have none.
        new: bool,
    },
    /// An operator takes a role's quota away.
    RemoveQuota(Role),
    /// An operator wants an agent not to be offered.
    DeactivateAgent {
        /// Which.
        agent_id: AgentId,
    },
    /// An operator wants an agent to be offered again.
    ReactivateAgent {
        /// Which.
        agent_id: AgentId,
    },
    /// An operator wants an agent emptied.
    DrainAgent {
        /// Which.
        agent_id: AgentId,
        /// The longest time that a task may take to end by itself, in ms; none = as long as it says.
        max_grace_ms: Option<u64>,
        /// Whether it is marked gone once it is empty.
        mark_gone: bool,
    },
    /// An operator says which machines will be away, in the place of all that was said before.
    SetSchedule(Vec<Window>),
    /// An operator says that machines in the schedule are down.
    StartMaintenance(Vec<MachineName>),
    /// An operator says that machines that were down are up.
    StopMaintenance(Vec<MachineName>),
    /// An agent that says its address says hello, new or again; with a token, for the first time.
    HelloFrom {
        /// Its address.
        ip: IpAddr,
        /// What it has drawn, if it has no id yet.
        token: Option<Token>,
        /// What it says.
        hello: Box<Hello>,
    },
    /// Carry out the operations of an ACCEPT that has more than launches of single tasks.
    Operate(Box<Operate>),
    /// An operator converts resources of an agent that are free.
    Convert {
        /// Which agent.
        agent_id: AgentId,
        /// How.
        conversion: Conversion,
    },
    /// A framework has an operation's status.
    AcknowledgeOperation {
        /// Whose operation.
        framework_id: FrameworkId,
        /// Which.
        operation_id: OperationId,
        /// Which status.
        uuid: Uuid,
    },
    /// An agent says hello again, and that all of its tasks go on, as they should: they need not be listed. Refused if they
    /// have changed by then.
    HelloAsKnown {
        /// Its address, if it says one.
        ip: Option<IpAddr>,
        /// What it says, without its tasks.
        hello: Box<Hello>,
        /// Its tasks.
        tasks: LaunchSum,
    },
}

/// The first command of a leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginTerm {
    /// How long those whom this change cut off have at least to come back, in ms.
    pub reconnect_grace_ms: u64,
}

/// A framework subscribes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribe {
    /// None for a new framework.
    pub framework_id: Option<FrameworkId>,
    /// Its description.
    pub info: FrameworkInfo,
    /// Roles it wants no offers for as yet.
    pub suppressed_roles: Vec<Role>,
}

/// Launch tasks on one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Whose.
    pub framework_id: FrameworkId,
    /// On which agent.
    pub agent_id: AgentId,
    /// In which role.
    pub role: Role,
    /// The offers that this uses up.
    pub offer_ids: Vec<OfferId>,
    /// What the offers hold together: the tasks must fit in it.
    pub offered: muster_model::Resources,
    /// The tasks, in order.
    pub tasks: Vec<TaskSpec>,
}

impl Launch {
    /// The ids of its tasks, in order.
    pub fn task_ids(&self) -> impl Iterator<Item = &TaskId> {
        self.tasks.iter().map(|task| &task.task_id)
    }
}

/// Carry out operations on one agent, in order, each out of what those before it left of the offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operate {
    /// Whose.
    pub framework_id: FrameworkId,
    /// On which agent.
    pub agent_id: AgentId,
    /// In which role.
    pub role: Role,
    /// The offers that this uses up.
    pub offer_ids: Vec<OfferId>,
    /// What the offers hold together.
    pub offered: muster_model::Resources,
    /// What to do.
    pub operations: Vec<Operation>,
}

/// Replicated limits (`protocol` G25).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limits {
    /// Completed tasks kept for each framework.
    pub completed_tasks_per_framework: u32,
    /// Completed tasks kept in all.
    pub completed_tasks: u32,
    /// Completed frameworks kept with their description.
    pub completed_frameworks: u32,
    /// How long the ids of completed frameworks are remembered, in ms.
    pub completed_framework_ids_ms: u64,
    /// Unreachable and gone agents kept.
    pub lost_agents: u32,
    /// How long unreachable and gone agents are kept, in ms.
    pub lost_agents_ms: u64,
    /// How long spent offers are remembered, in ms.
    pub spent_offers_ms: u64,
    /// Spent accepts remembered for each framework.
    pub spent_offers_per_framework: u32,
    /// How long a disconnected agent may stay away before it is unreachable, in ms.
    pub agent_timeout_ms: u64,
    /// Status updates kept unacknowledged for each task.
    pub updates_per_task: u32,
}

/// Two weeks in milliseconds.
const TWO_WEEKS_MS: u64 = 14 * 24 * 3600 * 1000;

impl Default for Limits {
    fn default() -> Self {
        Self {
            completed_tasks_per_framework: 1_000,
            completed_tasks: 100_000,
            completed_frameworks: 50,
            completed_framework_ids_ms: TWO_WEEKS_MS,
            lost_agents: 102_400,
            lost_agents_ms: TWO_WEEKS_MS,
            spent_offers_ms: 10 * 60 * 1000,
            spent_offers_per_framework: 1_024,
            agent_timeout_ms: 75_000,
            updates_per_task: 16,
        }
    }
}
