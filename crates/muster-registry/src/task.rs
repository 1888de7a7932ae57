//! A task's record.
//!
//! There may be a million of them, so that what does not change is kept apart from what does, what many have in common
//! is kept once, and what most have not takes no room. On disk it is one flat record (`stored.rs`).

mod alike;
mod description;
mod standing;
mod stored;

pub(crate) use alike::Alike;
pub use alike::Known;
pub(crate) use standing::{AgentTasks, Standing, Standings};
pub use stored::StoredTask;

use description::{Description, Whole};

use muster_model::{
    AgentId, ExecutorId, Index, LaunchNumber, Resources, Role, Sealed, Status, TaskKey, TaskState, Uuid,
    WallTime,
};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::{borrow::Borrow, cmp::Ordering, ops::Deref, sync::Arc};

/// A task from its launch until it is over, acknowledged and holds nothing.
///
/// What its launch settled, and what it has in common with others, is read through it: `task.key`, `task.resources`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub(crate) origin: Arc<Origin>,
    /// When it last changed, for display.
    pub updated: WallTime,
    /// The number of the agent's last update that was taken.
    pub last_seq: u32,
    /// How many updates the registry itself made for it.
    pub own_updates: u32,
    /// Its latest state.
    pub state: TaskState,
    /// Whether its agent has it on disk or has said anything of it.
    pub accepted: bool,
    /// Whether it holds its resources: until its agent says that its processes ended.
    pub held: bool,
    /// None where all of it would be empty.
    rest: Option<Box<Rest>>,
}

/// What a task's launch settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Its name.
    pub key: TaskKey,
    /// Its display name.
    pub name: SmolStr,
    /// Its launch.
    pub launch: LaunchNumber,
    /// Where.
    pub agent_id: AgentId,
    /// When it was launched, for display.
    pub launched: WallTime,
    pub(crate) shape: Arc<Shape>,
    description: Description,
}

/// What many tasks have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    /// In which role it was launched.
    pub role: Role,
    /// What it needs.
    pub resources: Resources,
    /// Its executor, if it asked for one.
    pub executor_id: Option<ExecutorId>,
    /// Its own kill grace, in ms.
    pub grace_ms: Option<u64>,
}

/// What a task has at times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rest {
    /// Whether its framework wants it ended.
    pub(crate) kill: Option<Kill>,
    /// Updates that the framework has not acknowledged, in order; the first counts as sent.
    pub(crate) updates: Vec<QueuedUpdate>,
    /// What was said last, for people.
    pub(crate) message: Arc<str>,
}

impl Deref for Task {
    type Target = Origin;
    fn deref(&self) -> &Origin {
        &self.origin
    }
}

impl Origin {
    /// A launch of now.
    pub(crate) fn new(
        (key, name): (TaskKey, SmolStr),
        launch: LaunchNumber,
        agent_id: AgentId,
        shape: Shape,
        sealed: &Sealed,
        launched: WallTime,
    ) -> Self {
        let description = Description::of(sealed, [agent_id.as_str(), key.task_id.as_str(), &name]);
        Self { key, name, launch, agent_id, launched, shape: Arc::new(shape), description }
    }

    /// Its whole `mesos.v1.TaskInfo`.
    pub fn sealed(&self) -> Sealed {
        self.whole().into()
    }

    /// Appends the bytes of [`sealed`](Self::sealed) to `out`: for those who read many, one after the other.
    pub fn append_sealed(&self, out: &mut Vec<u8>) {
        self.description.append(self.names(), out);
    }

    fn whole(&self) -> Whole<'static> {
        self.description.whole(self.names())
    }

    fn names(&self) -> [&str; 3] {
        [self.agent_id.as_str(), self.key.task_id.as_str(), &self.name]
    }
}

impl Deref for Origin {
    type Target = Shape;
    fn deref(&self) -> &Shape {
        &self.shape
    }
}

impl Task {
    /// As it is when it is launched.
    pub(crate) fn new(origin: Origin) -> Self {
        Self {
            updated: origin.launched,
            origin: Arc::new(origin),
            last_seq: 0,
            own_updates: 0,
            state: TaskState::Staging,
            accepted: false,
            held: true,
            rest: None,
        }
    }

    /// Whether nothing is left to do: terminal, acknowledged, nothing held.
    pub fn is_done(&self) -> bool {
        self.state.is_terminal() && self.updates().is_empty() && !self.held
    }

    /// Whether its framework wants it ended.
    pub fn kill(&self) -> Option<Kill> {
        self.rest.as_ref().and_then(|rest| rest.kill)
    }

    /// Updates that the framework has not acknowledged, in order; the first counts as sent.
    pub fn updates(&self) -> &[QueuedUpdate] {
        self.rest.as_ref().map_or(&[], |rest| &rest.updates)
    }

    /// What was said last, for people.
    pub fn message(&self) -> &str {
        self.rest.as_ref().map_or("", |rest| &rest.message)
    }

    /// Changes what it has at times.
    pub(crate) fn change<R>(&mut self, change: impl FnOnce(&mut Rest) -> R) -> R {
        let mut rest = self.rest.take().unwrap_or_default();
        let result = change(&mut rest);
        if rest.kill.is_some() || !rest.updates.is_empty() || !rest.message.is_empty() {
            self.rest = Some(rest);
        }
        result
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

/// A task in an index, in the order of its launch and found by it.
#[derive(Debug, Clone)]
pub(crate) struct ByLaunch(pub(crate) Arc<Origin>);

impl Borrow<LaunchNumber> for ByLaunch {
    fn borrow(&self) -> &LaunchNumber {
        &self.0.launch
    }
}
impl PartialEq for ByLaunch {
    fn eq(&self, other: &Self) -> bool {
        self.0.launch == other.0.launch
    }
}
impl Eq for ByLaunch {}
impl PartialOrd for ByLaunch {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for ByLaunch {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.launch.cmp(&other.0.launch)
    }
}
