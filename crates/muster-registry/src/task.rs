//! A task's record.

use muster_model::{
    AgentId, ExecutorId, Index, LaunchNumber, Resources, Role, Sealed, Status, TaskKey, TaskState, Uuid,
    WallTime,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A task from its launch until it is over, acknowledged and holds nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Task {
    /// Its name.
    pub key: TaskKey,
    /// Its display name.
    pub name: Arc<str>,
    /// Its launch.
    pub launch: LaunchNumber,
    /// Where.
    pub agent_id: AgentId,
    /// In which role it was launched.
    pub role: Role,
    /// What it needs.
    pub resources: Resources,
    /// Its executor, if it asked for one.
    pub executor_id: Option<ExecutorId>,
    /// Its own kill grace, in ms.
    pub grace_ms: Option<u64>,
    /// Its whole `mesos.v1.TaskInfo`.
    pub sealed: Sealed,
    /// Its latest state.
    pub state: TaskState,
    /// Whether its agent has it on disk or has said anything of it.
    pub accepted: bool,
    /// Whether it holds its resources: until its agent says that its processes ended.
    pub held: bool,
    /// Whether its framework wants it ended.
    pub kill: Option<Kill>,
    /// The number of the agent's last update that was taken.
    pub last_seq: u32,
    /// How many updates the registry itself made for it.
    pub own_updates: u32,
    /// Updates that the framework has not acknowledged, in order; the first counts as sent.
    pub updates: Vec<QueuedUpdate>,
    /// What was said last, for people.
    pub message: Arc<str>,
    /// When it was launched, for display.
    pub launched: WallTime,
    /// When it last changed, for display.
    pub updated: WallTime,
}

impl Task {
    /// Whether nothing is left to do: terminal, acknowledged, nothing held.
    pub fn is_done(&self) -> bool {
        self.state.is_terminal() && self.updates.is_empty() && !self.held
    }
}

/// An update that waits for its framework's acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct QueuedUpdate {
    /// What is acknowledged.
    pub uuid: Uuid,
    /// The status.
    pub status: Status,
}

/// A framework's wish to end a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Kill {
    /// Where the wish was committed.
    pub index: Index,
    /// How long the task may take to end by itself, in ms; none = its own policy.
    pub grace_ms: Option<u64>,
}
