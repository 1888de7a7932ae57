//! A task as it is stored and hashed: one flat record, as it was before its parts were kept apart.

use super::{Description, Kill, Origin, QueuedUpdate, Rest, Shape, Task, Whole};
use muster_model::{
    AgentId, ExecutorId, FrameworkId, LaunchNumber, Resources, Role, TaskId, TaskKey, TaskState, WallTime,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{
    borrow::Cow,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// The record's fields, in order. Both forms have the same ones.
#[derive(Hash, Serialize)]
#[serde(rename = "Task")]
struct Lent<'a> {
    key: &'a TaskKey,
    name: &'a str,
    launch: LaunchNumber,
    agent_id: &'a AgentId,
    role: &'a Role,
    resources: &'a Resources,
    executor_id: &'a Option<ExecutorId>,
    grace_ms: Option<u64>,
    sealed: Whole<'static>,
    state: TaskState,
    accepted: bool,
    held: bool,
    kill: Option<Kill>,
    last_seq: u32,
    own_updates: u32,
    updates: &'a [QueuedUpdate],
    message: &'a str,
    launched: WallTime,
    updated: WallTime,
}

/// A task as it stands in a record: what it has in common with others is not kept anew for it.
#[derive(Hash, Deserialize)]
#[serde(rename = "Task")]
pub struct StoredTask<'a> {
    #[serde(borrow)]
    pub(crate) key: StoredKey<'a>,
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    pub(super) launch: LaunchNumber,
    #[serde(borrow)]
    pub(super) agent_id: Cow<'a, str>,
    pub(super) role: Role,
    pub(super) resources: Resources,
    pub(super) executor_id: Option<ExecutorId>,
    pub(super) grace_ms: Option<u64>,
    pub(super) sealed: Whole<'a>,
    state: TaskState,
    accepted: bool,
    held: bool,
    kill: Option<Kill>,
    last_seq: u32,
    own_updates: u32,
    updates: Vec<QueuedUpdate>,
    #[serde(borrow)]
    message: Cow<'a, str>,
    pub(super) launched: WallTime,
    updated: WallTime,
}

/// Its name.
#[derive(Hash, Deserialize)]
#[serde(rename = "TaskKey")]
pub(crate) struct StoredKey<'a> {
    #[serde(borrow)]
    pub(super) framework_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) task_id: Cow<'a, str>,
}

impl<'a> From<&'a Task> for Lent<'a> {
    fn from(task: &'a Task) -> Self {
        Self {
            key: &task.key,
            name: &task.name,
            launch: task.launch,
            agent_id: &task.agent_id,
            role: &task.role,
            resources: &task.resources,
            executor_id: &task.executor_id,
            grace_ms: task.grace_ms,
            sealed: task.whole(),
            state: task.state,
            accepted: task.accepted,
            held: task.held,
            kill: task.kill(),
            last_seq: task.last_seq,
            own_updates: task.own_updates,
            updates: task.updates(),
            message: task.message(),
            launched: task.launched,
            updated: task.updated,
        }
    }
}

impl StoredTask<'_> {
    /// What its launch settled, with nothing in common with others.
    fn origin(&mut self) -> Origin {
        let shape = self.take_shape();
        let names = [&*self.agent_id, &*self.key.task_id, &*self.name];
        Origin {
            description: Description::of(&self.sealed.0, names),
            shape: Arc::new(shape),
            key: TaskKey {
                framework_id: FrameworkId::new(&self.key.framework_id),
                task_id: TaskId::new(&self.key.task_id),
            },
            name: (*self.name).into(),
            launch: self.launch,
            agent_id: AgentId::new(&self.agent_id),
            launched: self.launched,
        }
    }

    /// Takes out what it may have in common with others; what is left has none.
    pub(super) fn take_shape(&mut self) -> Shape {
        Shape {
            role: self.role.clone(),
            resources: std::mem::take(&mut self.resources),
            executor_id: self.executor_id.take(),
            grace_ms: self.grace_ms,
        }
    }

    /// The task, once it is known what its launch settled.
    pub(super) fn with(self, origin: Origin) -> Task {
        let mut task = Task {
            origin: Arc::new(origin),
            updated: self.updated,
            last_seq: self.last_seq,
            own_updates: self.own_updates,
            state: self.state,
            accepted: self.accepted,
            held: self.held,
            rest: None,
        };
        if self.kill.is_some() || !self.updates.is_empty() || !self.message.is_empty() {
            let message = Arc::from(&*self.message);
            task.rest = Some(Box::new(Rest { kill: self.kill, updates: self.updates, message }));
        }
        task
    }
}

impl From<StoredTask<'_>> for Task {
    fn from(mut stored: StoredTask<'_>) -> Self {
        let origin = stored.origin();
        stored.with(origin)
    }
}

impl Serialize for Task {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Lent::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Task {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        StoredTask::deserialize(deserializer).map(Self::from)
    }
}

impl Hash for Task {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Lent::from(self).hash(state);
    }
}
