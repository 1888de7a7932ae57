//! Agents as they describe themselves.

use crate::{
    AgentId, ExecutorId, FrameworkId, LaunchNumber, MachineId, Resources, Sealed, StatusUpdate, TaskKey,
    TaskState,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What an attribute of an agent holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AttributeValue {
    /// Thousandths.
    Scalar(u64),
    /// Ranges, both ends included.
    Ranges(Vec<(u64, u64)>),
    /// A text.
    Text(Arc<str>),
}

/// A named property of an agent that frameworks choose by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attribute {
    /// Its name.
    pub name: Arc<str>,
    /// Its value.
    pub value: AttributeValue,
}

/// An agent's description.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AgentInfo {
    /// The machine it runs on. A new agent of a known machine replaces the old one (`protocol` D20).
    pub machine_id: MachineId,
    /// The name others reach it by.
    pub hostname: Arc<str>,
    /// Its port.
    pub port: u16,
    /// All it has to give.
    pub resources: Resources,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
}

/// A task that an agent holds a record of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KnownTask {
    /// Its launch.
    pub launch: LaunchNumber,
    /// Its name.
    pub task: TaskKey,
    /// Its latest state there.
    pub state: TaskState,
    /// Whether a process of it is or may be alive (also true between acceptance and start).
    pub alive: bool,
    /// What it holds while alive.
    pub resources: Resources,
    /// Updates not yet confirmed, in order.
    pub updates: Vec<StatusUpdate>,
}

/// A run of an executor that an agent holds a record of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KnownExecutor {
    /// Names the run: the launch of the task that it was started for.
    pub number: LaunchNumber,
    /// Whose.
    pub framework_id: FrameworkId,
    /// Its id.
    pub executor_id: ExecutorId,
    /// What it holds while it lives.
    pub resources: Resources,
    /// Its wait status, once no process of it is left.
    pub ended: Option<i32>,
}

/// An agent's first word on a stream, and its answer to "the leader is ...": all that is unconfirmed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Hello {
    /// The id it was given before, or none.
    pub agent_id: Option<AgentId>,
    /// Its description.
    pub info: AgentInfo,
    /// The tasks it knows, ended ones until they are confirmed.
    pub tasks: Vec<KnownTask>,
    /// The whole `mesos.v1.AgentInfo`.
    pub sealed: Sealed,
}
