//! Tasks and their states.

use crate::{AgentId, ExecutorId, LaunchNumber, Resources, Sealed, TaskId, Uuid, WallTime};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// A task's state, with the names and numbers of Mesos v1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskState {
    /// Launched, nothing heard yet.
    Staging,
    /// The executor has it.
    Starting,
    /// Its process runs.
    Running,
    /// A kill was begun.
    Killing,
    /// Ended well.
    Finished,
    /// Ended badly.
    Failed,
    /// Ended by a kill.
    Killed,
    /// Its description was refused.
    Error,
    /// Gone, cause unknown (what frameworks that are not partition-aware are told).
    Lost,
    /// Never started.
    Dropped,
    /// Its agent does not answer; it may run on.
    Unreachable,
    /// Ended with its agent or its agent's memory.
    Gone,
    /// Ended by an operator's word that its agent is gone.
    GoneByOperator,
    /// Not known here.
    Unknown,
}

impl TaskState {
    /// Whether the task can never change state again by its executor's word.
    pub fn is_terminal(self) -> bool {
        use TaskState::*;
        matches!(self, Finished | Failed | Killed | Error | Lost | Dropped | Gone | GoneByOperator)
    }

    /// The Mesos name, `TASK_RUNNING`.
    pub fn name(self) -> &'static str {
        use TaskState::*;
        match self {
            Staging => "TASK_STAGING",
            Starting => "TASK_STARTING",
            Running => "TASK_RUNNING",
            Killing => "TASK_KILLING",
            Finished => "TASK_FINISHED",
            Failed => "TASK_FAILED",
            Killed => "TASK_KILLED",
            Error => "TASK_ERROR",
            Lost => "TASK_LOST",
            Dropped => "TASK_DROPPED",
            Unreachable => "TASK_UNREACHABLE",
            Gone => "TASK_GONE",
            GoneByOperator => "TASK_GONE_BY_OPERATOR",
            Unknown => "TASK_UNKNOWN",
        }
    }

    /// What a framework without the PARTITION_AWARE capability is shown (Mesos v1 contract).
    pub fn for_partition_unaware(self) -> Self {
        use TaskState::*;
        match self {
            Dropped | Unreachable | Gone | GoneByOperator | Unknown => Lost,
            other => other,
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who made a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Source {
    /// The master.
    Master,
    /// The agent.
    Agent,
    /// The task's executor.
    Executor,
}

/// Why a task came to its state: the Mesos v1 reasons that muster gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// REASON_AGENT_DISCONNECTED
    AgentDisconnected,
    /// REASON_AGENT_REMOVED
    AgentRemoved,
    /// REASON_AGENT_REMOVED_BY_OPERATOR
    AgentRemovedByOperator,
    /// REASON_AGENT_REREGISTERED
    AgentReregistered,
    /// REASON_AGENT_RESTARTED
    AgentRestarted,
    /// REASON_CONTAINER_LAUNCH_FAILED
    ContainerLaunchFailed,
    /// REASON_EXECUTOR_TERMINATED
    ExecutorTerminated,
    /// REASON_FRAMEWORK_REMOVED
    FrameworkRemoved,
    /// REASON_INVALID_OFFERS
    InvalidOffers,
    /// REASON_RECONCILIATION
    Reconciliation,
    /// REASON_TASK_INVALID
    TaskInvalid,
    /// REASON_TASK_KILLED_DURING_LAUNCH
    TaskKilledDuringLaunch,
    /// REASON_EXECUTOR_REGISTRATION_TIMEOUT
    ExecutorRegistrationTimeout,
    /// REASON_EXECUTOR_REREGISTRATION_TIMEOUT
    ExecutorReregistrationTimeout,
    /// REASON_AGENT_DRAINING
    AgentDraining,
    /// REASON_TASK_GROUP_INVALID
    TaskGroupInvalid,
    /// REASON_TASK_UNAUTHORIZED
    TaskUnauthorized,
    /// REASON_TASK_GROUP_UNAUTHORIZED
    TaskGroupUnauthorized,
    /// REASON_CONTAINER_LIMITATION_MEMORY
    ContainerLimitationMemory,
    /// REASON_TASK_CHECK_STATUS_UPDATED
    TaskCheckStatusUpdated,
    /// REASON_TASK_HEALTH_CHECK_STATUS_UPDATED
    TaskHealthCheckStatusUpdated,
    /// REASON_MAX_COMPLETION_TIME_REACHED
    MaxCompletionTimeReached,
}

impl Reason {
    /// The Mesos name, `REASON_TASK_INVALID`.
    pub fn name(self) -> &'static str {
        use Reason::*;
        match self {
            AgentDisconnected => "REASON_AGENT_DISCONNECTED",
            AgentRemoved => "REASON_AGENT_REMOVED",
            AgentRemovedByOperator => "REASON_AGENT_REMOVED_BY_OPERATOR",
            AgentReregistered => "REASON_AGENT_REREGISTERED",
            AgentRestarted => "REASON_AGENT_RESTARTED",
            ContainerLaunchFailed => "REASON_CONTAINER_LAUNCH_FAILED",
            ExecutorTerminated => "REASON_EXECUTOR_TERMINATED",
            FrameworkRemoved => "REASON_FRAMEWORK_REMOVED",
            InvalidOffers => "REASON_INVALID_OFFERS",
            Reconciliation => "REASON_RECONCILIATION",
            TaskInvalid => "REASON_TASK_INVALID",
            TaskKilledDuringLaunch => "REASON_TASK_KILLED_DURING_LAUNCH",
            ExecutorRegistrationTimeout => "REASON_EXECUTOR_REGISTRATION_TIMEOUT",
            ExecutorReregistrationTimeout => "REASON_EXECUTOR_REREGISTRATION_TIMEOUT",
            AgentDraining => "REASON_AGENT_DRAINING",
            TaskGroupInvalid => "REASON_TASK_GROUP_INVALID",
            TaskUnauthorized => "REASON_TASK_UNAUTHORIZED",
            TaskGroupUnauthorized => "REASON_TASK_GROUP_UNAUTHORIZED",
            ContainerLimitationMemory => "REASON_CONTAINER_LIMITATION_MEMORY",
            TaskCheckStatusUpdated => "REASON_TASK_CHECK_STATUS_UPDATED",
            TaskHealthCheckStatusUpdated => "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED",
            MaxCompletionTimeReached => "REASON_MAX_COMPLETION_TIME_REACHED",
        }
    }
}

/// What is said of a task at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Status {
    /// The state it came to.
    pub state: TaskState,
    /// Who says so.
    pub source: Source,
    /// Why, where a reason is due.
    pub reason: Option<Reason>,
    /// For people; at most [`MESSAGE_BYTES_MAX`] bytes.
    pub message: Arc<str>,
    /// When, by the speaker's wall clock.
    pub wall: WallTime,
    /// The speaker's whole `mesos.v1.TaskStatus`, or empty where the fields above are all there is.
    pub sealed: Sealed,
}

/// The longest message of a status, in bytes; longer ones are cut at the agent.
pub const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// The longest sealed status, in bytes (its `data` is at most 64 KiB).
pub const STATUS_BYTES_MAX: usize = 80 << 10;

/// A status on its way to the framework, repeated by the agent until the registry confirms it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StatusUpdate {
    /// Of which launch. An update that carries another number than the task's is ignored.
    pub launch: LaunchNumber,
    /// The task's full name, so that an update of a forgotten task can still be answered.
    pub task: crate::TaskKey,
    /// Counted from 1 within the launch; the registry takes each number once, in order.
    pub seq: u32,
    /// What the framework acknowledges.
    pub uuid: Uuid,
    /// The status.
    pub status: Status,
}

/// A task as its framework described it: the dozen fields that are decided on, and the rest sealed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Its id.
    pub task_id: TaskId,
    /// Its display name.
    pub name: Arc<str>,
    /// What it needs, executor not included.
    pub resources: Resources,
    /// The executor it asks for, or none for a command task.
    pub executor: Option<ExecutorSpec>,
    /// Kill grace from its kill policy, in ms; none = the agent's default.
    pub grace_ms: Option<u64>,
    /// The whole `mesos.v1.TaskInfo`.
    pub sealed: Sealed,
}

/// A task of an ACCEPT that is launched on no offer: its description is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BadTask {
    /// Its place among all tasks of the ACCEPT, from 0.
    pub at: u32,
    /// Its id.
    pub task_id: TaskId,
    /// What is wrong.
    pub why: Arc<str>,
}

impl BadTask {
    /// The tasks of an ACCEPT in the order they were asked for; `bad` is in order of place.
    pub fn among<'a, T>(
        bad: &'a [Self],
        good: impl IntoIterator<Item = T> + 'a,
    ) -> impl Iterator<Item = Result<T, &'a Self>> + 'a {
        let (mut bad, mut good) = (bad.iter().peekable(), good.into_iter());
        (0..).map_while(move |at| match bad.next_if(|it| it.at == at) {
            Some(it) => Some(Err(it)),
            None => good.next().map(Ok).or_else(|| bad.next().map(Err)),
        })
    }
}

/// A task that was refused before the leader heard of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedTask {
    /// Its id.
    pub task_id: TaskId,
    /// The agent that it names.
    pub agent_id: Option<AgentId>,
    /// Why.
    pub reason: Reason,
    /// The same, for people.
    pub why: Arc<str>,
}

/// The executor a task asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExecutorSpec {
    /// Its id, shared by the tasks that run in it.
    pub executor_id: ExecutorId,
    /// What it needs itself, held once however many tasks it runs.
    pub resources: Resources,
    /// The whole `mesos.v1.ExecutorInfo`; tasks that share an executor must send equal bytes.
    pub sealed: Sealed,
}
