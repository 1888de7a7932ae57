//! What is sent down a client's stream.

use crate::{
    AgentId, ExecutorId, FrameworkId, Index, LaunchNumber, Offer, OfferId, Reason, Sealed, Session, Status,
    TaskId, TaskKey, TaskState, Uuid,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// An event to any client that holds a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// To a scheduler.
    Scheduler(SchedulerEvent),
    /// To an agent, in the session it belongs to.
    Agent {
        /// The agent's session; it drops what is of another.
        session: Session,
        /// The event.
        event: AgentEvent,
    },
}

/// What a scheduler is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchedulerEvent {
    /// The subscription holds.
    Subscribed {
        /// Its id from now on.
        framework_id: FrameworkId,
        /// The subscription's number.
        session: Session,
        /// A heartbeat comes at least this often, in ms.
        heartbeat_ms: u64,
    },
    /// Resources to use.
    Offers(Vec<OfferWithAgent>),
    /// An offer is void.
    Rescind(OfferId),
    /// A task's status; with a uuid it must be acknowledged.
    Update {
        /// The task.
        task_id: TaskId,
        /// Its agent, where known.
        agent_id: Option<AgentId>,
        /// Its status.
        status: Status,
        /// What to acknowledge, or none (answers to reconcile, refusals).
        uuid: Option<Uuid>,
    },
    /// Bytes from an executor.
    Message {
        /// On which agent.
        agent_id: AgentId,
        /// Which executor.
        executor_id: ExecutorId,
        /// The bytes.
        data: Vec<u8>,
    },
    /// An agent is lost; its tasks have updates of their own.
    AgentLost(AgentId),
    /// An executor ended.
    ExecutorLost {
        /// On which agent.
        agent_id: AgentId,
        /// Which.
        executor_id: ExecutorId,
        /// Its wait status.
        status: i32,
    },
    /// The stream ends; this says why.
    Error(String),
    /// The leader lives.
    Heartbeat,
    /// What became of call `id`.
    Outcome {
        /// The call's number.
        id: u64,
        /// What became of it.
        outcome: CallOutcome,
    },
}

/// An offer with what a scheduler chooses by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferWithAgent {
    /// The offer.
    pub offer: Offer,
    /// The agent's name.
    pub hostname: Arc<str>,
    /// The agent's port.
    pub port: u16,
    /// The agent's `mesos.v1.AgentInfo` (attributes).
    pub agent: Sealed,
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallOutcome {
    /// Done; for durable calls: committed and applied.
    Done,
    /// Of an ACCEPT: what became of each task.
    Accepted(AcceptOutcome),
    /// Not done, and why.
    Refused(String),
    /// Too many calls wait; try again.
    Busy,
    /// Leadership ended before the outcome was known: it may or may not be done.
    Unknown,
}

/// What became of each task of an ACCEPT, in the order asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AcceptOutcome {
    /// Each task and what became of it.
    pub tasks: Vec<(TaskId, TaskOutcome)>,
}

/// What became of one task of an ACCEPT.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TaskOutcome {
    /// Launched, with this number.
    Launched(LaunchNumber),
    /// Not launched.
    Refused {
        /// The state the framework is shown: ERROR or DROPPED.
        state: TaskState,
        /// Why, by name.
        reason: Reason,
        /// Why, in words.
        message: Arc<str>,
    },
}

/// What an agent is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentEvent {
    /// Its hello is committed. Orders and kills that are due follow.
    Welcome {
        /// Its id.
        agent_id: AgentId,
        /// The launches it may forget: ended and confirmed.
        forget: Vec<LaunchNumber>,
        /// No launch below this log index will ever be ordered again.
        low_mark: Index,
        /// A ping comes at least this often, in ms.
        ping_ms: u64,
    },
    /// Start a task.
    Run(Box<RunOrder>),
    /// End a task.
    Kill {
        /// Which launch.
        launch: LaunchNumber,
        /// Which task, so that the agent can answer for a launch it never heard of.
        task: TaskKey,
        /// How long it may take to end by itself, in ms; none = its own policy.
        grace_ms: Option<u64>,
    },
    /// The registry has this update (and all before it): forget it.
    Confirm {
        /// Of which launch.
        launch: LaunchNumber,
        /// Its number.
        seq: u32,
    },
    /// Answer with a pong of the same number.
    Ping(u64),
    /// Bytes to an executor.
    Message {
        /// Whose.
        framework_id: FrameworkId,
        /// Which executor.
        executor_id: ExecutorId,
        /// The bytes.
        data: Vec<u8>,
    },
    /// This agent may not register; it should stop and tell its operator.
    Rejected(String),
}

/// An order to start a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOrder {
    /// Its launch number.
    pub launch: LaunchNumber,
    /// Its name.
    pub task: TaskKey,
    /// What it may use.
    pub resources: crate::Resources,
    /// Its kill grace in ms, if it has its own.
    pub grace_ms: Option<u64>,
    /// The user to run as when the task names none.
    pub user: Arc<str>,
    /// A kill that came before the order: answer TASK_KILLED without starting it.
    pub killed: bool,
    /// The whole `mesos.v1.TaskInfo`.
    pub sealed: Sealed,
}
