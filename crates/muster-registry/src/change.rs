//! Committed facts about the registry, in log order. Views fold them; the leader tells clients of them.

use crate::{Account, Agent, DoneOperation, Framework, RoleSettings, Task};
use muster_model::{
    AgentId, ExecutorId, FrameworkId, LaunchNumber, Resources, Role, Session, Status, TaskKey, Uuid,
};
use std::sync::Arc;

/// One committed fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A leader began its term: all sessions are void.
    TermBegan,
    /// A framework subscribed; the record is as it is now. Its former session is void.
    FrameworkSubscribed(Arc<Framework>),
    /// A framework described itself anew; the record is as it is now.
    FrameworkUpdated(Arc<Framework>),
    /// A framework's session ended.
    FrameworkDisconnected(FrameworkId, Session),
    /// A framework is over; its tasks follow as changes of their own.
    FrameworkRemoved(FrameworkId),
    /// An agent was admitted, new or again; the record is as it is now.
    AgentAdmitted(Arc<Agent>),
    /// An agent's session ended.
    AgentDisconnected(AgentId, Session),
    /// An agent is unreachable.
    AgentUnreachable(AgentId),
    /// An agent is gone for ever: marked by an operator, replaced by another of its machine, or forgotten.
    AgentRemoved(AgentId),
    /// What an agent's tasks and strays hold changed.
    HeldChanged {
        /// Of which agent.
        agent_id: AgentId,
        /// On whose account, and in which role; none for a stray.
        account: Option<Account>,
        /// What was let go.
        freed: Resources,
        /// What was taken.
        taken: Resources,
    },
    /// A task was launched, or its agent came back without having heard of it: the agent must be told.
    RunDue(Arc<Task>),
    /// An update became the head of its task's queue: its framework must be told.
    UpdateDue {
        /// Of which task.
        task: TaskKey,
        /// On which agent.
        agent_id: AgentId,
        /// What to acknowledge.
        uuid: Uuid,
        /// The status.
        status: Status,
    },
    /// A kill must be sent to the task's agent.
    KillDue(Arc<Task>),
    /// A launch that the agent lists as alive has no live task: it must be ended.
    StrayFound {
        /// Where.
        agent_id: AgentId,
        /// Which launch.
        launch: LaunchNumber,
        /// What it was called.
        task: TaskKey,
    },
    /// A task is over and acknowledged: it left the live tasks.
    TaskCompleted(TaskKey),
    /// An executor ended: its framework is told.
    ExecutorEnded {
        /// Where.
        agent_id: AgentId,
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        executor_id: ExecutorId,
        /// Its wait status.
        status: i32,
    },
    /// An executor of a framework that is over lives: its agent must end it.
    ExecutorUnwanted {
        /// Where.
        agent_id: AgentId,
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        executor_id: ExecutorId,
    },
    /// An operator set how a role shares: the record is as it is now, empty where nothing is set any more.
    RoleSettings(Role, Arc<RoleSettings>),
    /// By an operator's word a connected agent may be offered from now on, or may not.
    AgentOfferable {
        /// Which.
        agent_id: AgentId,
        /// Whether it may.
        offerable: bool,
    },
    /// An agent's machine goes down: it must be told to stop. That it is unreachable follows.
    AgentShutDown(AgentId),
    /// When an agent will be away is another time by now, or none.
    UnavailabilityChanged(AgentId),
    /// What there is of an agent changed its shape: it was reserved, became a volume, or what it was before.
    TotalChanged {
        /// Of which agent.
        agent_id: AgentId,
        /// All that there is of it now.
        total: Resources,
    },
    /// A persistent volume ceased to be: its agent may remove it.
    VolumesDestroyed(AgentId),
    /// A named operation is done: its framework must be told.
    OperationDue(Arc<DoneOperation>),
}
