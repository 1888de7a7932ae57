//! What a client asked: decoded, bounded, not yet trusted.

use crate::{
    AgentId, BadTask, ExecutorId, FrameworkId, FrameworkInfo, Hello, KnownExecutor, LaunchNumber, LaunchSum,
    OfferId, Operation, OperationId, RefusedTask, Resources, Role, RoleWants, Session, Status, StatusUpdate,
    TaskId, TaskSpec, Token, Uuid,
};
use std::{net::IpAddr, sync::Arc};

/// A call of any client that holds a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// From a framework's scheduler; `id` comes back with the outcome, 0 asks for none.
    Scheduler {
        /// Chosen by the client.
        id: u64,
        /// The call.
        call: SchedulerCall,
    },
    /// To go on with a framework's event stream of the Mesos API that is held elsewhere, or was held by a leader that is
    /// gone: what is called on this stream from now on is carried out as if it came on that one. It is told outcomes
    /// and nothing else.
    Resume {
        /// Chosen by the client.
        id: u64,
        /// Whose.
        framework_id: FrameworkId,
        /// Names the event stream.
        stream: Token,
    },
    /// From an agent, in the session it believes to hold (0 before its first welcome).
    Agent {
        /// Its session.
        session: Session,
        /// The call.
        call: AgentCall,
    },
}

/// What a scheduler may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchedulerCall {
    /// Subscribe, or subscribe again with the id of before.
    Subscribe {
        /// None for a new framework.
        framework_id: Option<FrameworkId>,
        /// Drawn by a new framework, and repeated with its SUBSCRIBE until that is answered: it becomes one framework,
        /// however often it asks. Without one, as over the Mesos API, each time that it asks it becomes another.
        token: Option<Token>,
        /// Over an event stream of the Mesos API, which the token names: it is drawn by the master that holds the stream.
        stream: bool,
        /// Its description.
        info: FrameworkInfo,
        /// Roles it wants no offers for as yet.
        suppressed_roles: Vec<Role>,
        /// What it wants of offers.
        wants: Box<RoleWants>,
    },
    /// Use offers of one agent to launch tasks; what is left comes back, filtered for `refuse_ms`.
    Accept {
        /// The offers, all of one agent and one role.
        offer_ids: Vec<OfferId>,
        /// The tasks.
        tasks: Vec<TaskSpec>,
        /// Whom the tasks name, in their order; none where the caller vouches for them.
        named: Vec<Named>,
        /// Tasks that are described wrongly, by place; the others are launched without them.
        bad: Vec<BadTask>,
        /// How long not to offer the rest again, in ms.
        refuse_ms: u64,
    },
    /// Use offers of one agent for more than launches, in order; what is left comes back, filtered for `refuse_ms`.
    Operate {
        /// The offers, all of one agent and one role.
        offer_ids: Vec<OfferId>,
        /// What to do, and for each of it whom its tasks name, in their order.
        operations: Vec<(Operation, Vec<Named>)>,
        /// How long not to offer the rest again, in ms.
        refuse_ms: u64,
    },
    /// Give offers back.
    Decline {
        /// The offers.
        offer_ids: Vec<OfferId>,
        /// How long not to offer the same again, in ms.
        refuse_ms: u64,
    },
    /// Want offers again, without filters. No roles = all.
    Revive {
        /// The roles.
        roles: Vec<Role>,
    },
    /// Want no offers. No roles = all.
    Suppress {
        /// The roles.
        roles: Vec<Role>,
    },
    /// End a task.
    Kill {
        /// The task.
        task_id: TaskId,
        /// Its agent, if known.
        agent_id: Option<AgentId>,
        /// How long it may take to end by itself, in ms; none = its own policy.
        grace_ms: Option<u64>,
    },
    /// Take an update as received.
    Acknowledge {
        /// Of which task.
        task_id: TaskId,
        /// Which update.
        uuid: Uuid,
    },
    /// Ask for the latest state of tasks; none listed = all.
    Reconcile {
        /// The tasks, with the agent where known.
        tasks: Vec<(TaskId, Option<AgentId>)>,
    },
    /// Say what is needed, so that agents are ranked for it by the affinity score.
    Request {
        /// One entry for each placement needed; empty takes the needs back.
        needs: Vec<Resources>,
    },
    /// Hand bytes to an executor. At most once.
    Message {
        /// On which agent.
        agent_id: AgentId,
        /// Which executor.
        executor_id: ExecutorId,
        /// The bytes.
        data: Vec<u8>,
    },
    /// Parts of an ACCEPT that a master refused on its way here, because they are not authorised: their framework is told.
    Refused {
        /// Tasks.
        tasks: Vec<RefusedTask>,
        /// Operations that are named, and why they are refused.
        operations: Vec<(OperationId, Arc<str>)>,
    },
    /// End an executor: it is asked to, and made to after its grace. At most once.
    Shutdown {
        /// On which agent.
        agent_id: AgentId,
        /// Which executor.
        executor_id: ExecutorId,
    },
    /// Answer inverse offers.
    AnswerInverse {
        /// The inverse offers.
        offer_ids: Vec<OfferId>,
        /// Whether it is all right that the agents will be away.
        accepted: bool,
        /// How long not to ask the same again, in ms.
        refuse_ms: u64,
    },
    /// Take an operation's status as received.
    AcknowledgeOperation {
        /// Of which operation.
        operation_id: OperationId,
        /// Which status.
        uuid: Uuid,
    },
    /// Ask for the state of operations; none listed = all.
    ReconcileOperations {
        /// The operations.
        operations: Vec<AskedOperation>,
    },
    /// End the framework and all its tasks.
    Teardown,
    /// Describe the framework anew, on the same stream.
    Update {
        /// Its description.
        info: FrameworkInfo,
        /// Roles it wants no offers for.
        suppressed_roles: Vec<Role>,
        /// What it wants of offers.
        wants: Box<RoleWants>,
    },
}

/// Whom a task's description names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The agent to run on.
    pub agent_id: AgentId,
    /// The framework of its executor, where that says so.
    pub framework_id: Option<FrameworkId>,
}

impl From<AgentId> for Named {
    fn from(agent_id: AgentId) -> Self {
        Self { agent_id, framework_id: None }
    }
}

/// An operation whose state a framework asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedOperation {
    /// Its name.
    pub id: OperationId,
    /// On which agent, where the framework says so.
    pub agent_id: Option<AgentId>,
    /// Of which resource provider, where the framework says so.
    pub provider: Option<Arc<str>>,
}

/// What an agent may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentCall {
    /// Who it is and what it knows; one that has no id yet adds a token that it drew, and becomes one agent however
    /// often it says so. The address is the one in its description, if there is one.
    Hello(Hello, Option<Token>, Option<IpAddr>),
    /// The same of an agent with an id, without its tasks: it has no more to say of any than that it lives.
    HelloAsKnown(Hello, LaunchSum, Option<IpAddr>),
    /// These orders are on its disk and will be answered by updates.
    Accepted(Vec<LaunchNumber>),
    /// A task's status.
    Status(StatusUpdate),
    /// A launch it holds no more process of, though no update of its own says so (a stray that ended).
    Ended(LaunchNumber),
    /// Answer to a ping.
    Pong(u64),
    /// Bytes from an executor to its framework. At most once.
    Message {
        /// Whose.
        framework_id: FrameworkId,
        /// From which executor.
        executor_id: ExecutorId,
        /// The bytes.
        data: Vec<u8>,
    },
    /// Executors that live here or are about to, and such as ended: that is repeated until it is confirmed.
    Executors {
        /// The executors.
        executors: Vec<KnownExecutor>,
        /// Whether these are all of which there is a record, as after each welcome.
        all: bool,
    },
}

/// What an executor may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecutorCall {
    /// It wants its events on a stream.
    Subscribe {
        /// Tasks it has of which no update was acknowledged.
        tasks: Vec<TaskId>,
        /// Updates that were not acknowledged, in order.
        updates: Vec<ExecutorUpdate>,
    },
    /// A task's status.
    Update(ExecutorUpdate),
    /// Bytes for its framework.
    Message(Vec<u8>),
}

/// A status in an executor's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutorUpdate {
    /// Of which task.
    pub task_id: TaskId,
    /// Drawn by the executor; the framework acknowledges it.
    pub uuid: Uuid,
    /// The status.
    pub status: Status,
}
