//! A task as it is stored and hashed: one flat record, as it was before its parts were kept apart.

use super::{Kill, Origin, QueuedUpdate, Rest, Shape, Task, Whole};
use muster_model::{
    AgentId, ExecutorId, LaunchNumber, Resources, Role, Sealed, TaskKey, TaskState, WallTime,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;
use std::{
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
    sealed: Whole,
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

#[derive(Deserialize)]
#[serde(rename = "Task")]
struct Owned {
    key: TaskKey,
    name: SmolStr,
    launch: LaunchNumber,
    agent_id: AgentId,
    role: Role,
    resources: Resources,
    executor_id: Option<ExecutorId>,
    grace_ms: Option<u64>,
    sealed: Sealed,
    state: TaskState,
    accepted: bool,
    held: bool,
    kill: Option<Kill>,
    last_seq: u32,
    own_updates: u32,
    updates: Vec<QueuedUpdate>,
    message: SmolStr,
    launched: WallTime,
    updated: WallTime,
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

impl From<Owned> for Task {
    fn from(stored: Owned) -> Self {
        let shape = Shape {
            role: stored.role,
            resources: stored.resources,
            executor_id: stored.executor_id,
            grace_ms: stored.grace_ms,
        };
        let origin = Origin::new(
            (stored.key, stored.name),
            stored.launch,
            stored.agent_id,
            shape,
            &stored.sealed,
            stored.launched,
        );
        let mut task = Self {
            origin: Arc::new(origin),
            updated: stored.updated,
            last_seq: stored.last_seq,
            own_updates: stored.own_updates,
            state: stored.state,
            accepted: stored.accepted,
            held: stored.held,
            rest: None,
        };
        if stored.kill.is_some() || !stored.updates.is_empty() || !stored.message.is_empty() {
            let message = Arc::from(stored.message.as_str());
            task.rest = Some(Box::new(Rest { kill: stored.kill, updates: stored.updates, message }));
        }
        task
    }
}

impl Serialize for Task {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Lent::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Task {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Owned::deserialize(deserializer).map(Self::from)
    }
}

impl Hash for Task {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Lent::from(self).hash(state);
    }
}
