//! What is sent down a client's stream.

use crate::{
    AgentId, ExecutorId, FrameworkId, Index, InverseOffer, LaunchNumber, Offer, OfferId, OperationStatus,
    Reason, Sealed, Session, Status, TaskId, TaskKey, TaskState, Unavailability, Uuid, VolumeNumber,
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
    /// Agents on which the framework has something will be away.
    InverseOffers(Vec<InverseOffer>),
    /// An inverse offer is void.
    RescindInverse(OfferId),
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
    /// An operation's status; with a uuid it must be acknowledged.
    Operation(Box<OperationStatus>),
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
    /// When the agent will be away, if that is planned.
    pub unavailability: Option<Unavailability>,
    /// The framework's executors there, by id.
    pub executor_ids: Vec<ExecutorId>,
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
    /// Its tasks are not known to be as its hello said: it says hello again, and lists them.
    ListAll,
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
    /// End an executor: it is asked to, and made to after its grace.
    ShutdownExecutor {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        executor_id: ExecutorId,
    },
    /// The registry knows that this run of an executor ended: forget it.
    ConfirmExecutor(LaunchNumber),
    /// The persistent volumes that there are on this agent, by number: the directories of all others may go.
    Volumes {
        /// Their numbers, ascending.
        keep: Vec<VolumeNumber>,
    },
}

/// What an executor is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecutorEvent {
    /// It is subscribed.
    Subscribed {
        /// Names its run.
        number: LaunchNumber,
        /// Its whole `mesos.v1.ExecutorInfo`.
        executor: Sealed,
        /// Whose it is.
        framework_id: FrameworkId,
        /// The framework's whole `mesos.v1.FrameworkInfo`.
        framework: Sealed,
        /// On which agent.
        agent_id: AgentId,
    },
    /// Start a task.
    Launch {
        /// The whole `mesos.v1.TaskInfo`.
        task: Sealed,
    },
    /// Start tasks that were launched together.
    LaunchGroup {
        /// Of each, in their order, the whole `mesos.v1.TaskInfo`.
        tasks: Vec<Sealed>,
    },
    /// End a task.
    Kill {
        /// Which.
        task_id: TaskId,
        /// How long it may take to end by itself, in ms; none = its own policy.
        grace_ms: Option<u64>,
    },
    /// An update is kept: the executor need not repeat it.
    Acknowledged {
        /// Of which task.
        task_id: TaskId,
        /// Which update.
        uuid: Uuid,
    },
    /// Bytes from its framework.
    Message(Vec<u8>),
    /// End all tasks, and then.
    Shutdown,
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
    /// The whole `mesos.v1.FrameworkInfo`, which its agent shows and its executor is told.
    pub framework: Sealed,
    /// The executor that it runs in; none for a task with a process of its own.
    pub executor: Option<Box<ExecutorOrder>>,
    /// The group that it was launched in; its executor is told of all members at once.
    pub group: Option<TaskGroup>,
    /// The persistent volumes that it and its executor use.
    pub volumes: Vec<VolumeMount>,
    /// Whether its framework is told that it is starting before it runs, as Mesos tells of tasks with a process of their
    /// own; of one that runs in an executor only that can tell.
    pub starting: bool,
    /// What its agent keeps to if it runs the task itself. Read where the order is, from the sealed parts.
    pub terms: crate::TaskTerms,
}

/// Tasks that were launched together: all of them or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskGroup {
    /// Its first launch; the others follow it and differ in their `n` alone.
    pub first: LaunchNumber,
    /// How many they are, at least one.
    pub size: u32,
}

impl TaskGroup {
    /// Whether a launch is one of its members.
    pub fn has(self, launch: LaunchNumber) -> bool {
        let in_entry = (launch.incarnation, launch.index) == (self.first.incarnation, self.first.index);
        in_entry && launch.n.checked_sub(self.first.n).is_some_and(|n| n < self.size)
    }

    /// All members, in their order.
    pub fn launches(self) -> impl Iterator<Item = LaunchNumber> {
        let numbers = (0..self.size).filter_map(move |n| self.first.n.checked_add(n));
        numbers.map(move |n| LaunchNumber { n, ..self.first })
    }
}

/// A persistent volume as a task or its executor uses it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolumeMount {
    /// Names the directory on the agent.
    pub number: VolumeNumber,
    /// Where it is seen, from the sandbox.
    pub container_path: Arc<str>,
    /// It may not be written to.
    pub read_only: bool,
    /// It is seen in the executor's sandbox, not in the task's.
    pub executor: bool,
}

/// The executor that an ordered task runs in, as its agent needs it to start it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutorOrder {
    /// Its id: tasks of one framework that name the same share it.
    pub executor_id: ExecutorId,
    /// What it holds itself.
    pub resources: crate::Resources,
    /// How long it may take to end once it is asked to, in ms; none = the agent's default.
    pub grace_ms: Option<u64>,
    /// The agent itself runs its tasks: it has no process. Read where the order is, as the grace is.
    pub built_in: bool,
    /// The whole `mesos.v1.ExecutorInfo`.
    pub sealed: Sealed,
}
