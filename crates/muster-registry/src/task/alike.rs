//! What tasks have alike is kept once.

use super::{Description, Origin, Shape, StoredTask, Task, description};
use crate::table::hash_of;
use muster_model::{AgentId, FrameworkId, TaskId, TaskKey};
use std::{borrow::Borrow, collections::BTreeSet, fmt, sync::Arc};

/// How many of a sort are remembered: a power of two. What is forgotten is kept once more for the tasks that come then.
const REMEMBERED: usize = 1_024;

/// The shapes and descriptions of the tasks that came last, so that the next ones of a kind share theirs.
///
/// It changes nothing but what memory tasks need: a copy of a registry begins without it.
#[derive(Default)]
pub(crate) struct Alike {
    shapes: Memory<Arc<Shape>>,
    descriptions: Memory<Description>,
}

impl Alike {
    /// Lets a task have in common with others what it has alike.
    pub(crate) fn share(&mut self, origin: &mut Origin) {
        origin.shape = self.shapes.take::<Shape, _>(hash_of(&(), &*origin.shape), origin.shape.clone());
        if let Some(mark) = description::mark(origin.description.borrow()) {
            origin.description = self.descriptions.take::<[u8], _>(mark, origin.description.clone());
        }
    }

    fn shape(&mut self, shape: Shape) -> Arc<Shape> {
        self.shapes.take::<Shape, _>(hash_of(&(), &shape), shape)
    }

    fn description(&mut self, bytes: &[u8]) -> Description {
        match description::mark(bytes) {
            Some(mark) => self.descriptions.take::<[u8], _>(mark, bytes),
            None => bytes.into(),
        }
    }
}

impl Clone for Alike {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl fmt::Debug for Alike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Alike")
    }
}

/// Values by a few bits of their hashes.
struct Memory<T>(Vec<Option<T>>);

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Clone> Memory<T> {
    /// What is remembered and equal to this, or else this, which is remembered now.
    fn take<B, V>(&mut self, hash: u64, it: V) -> T
    where
        B: PartialEq + ?Sized,
        T: Borrow<B>,
        V: Borrow<B> + Into<T>,
    {
        if self.0.is_empty() {
            self.0.resize(REMEMBERED, None);
        }
        let place = &mut self.0[hash as usize % REMEMBERED];
        match place {
            Some(known) if (*known).borrow() == it.borrow() => known.clone(),
            _ => place.insert(it.into()).clone(),
        }
    }
}

/// Ids up to this length, in bytes, stand where they are used: nothing is saved by having them in common.
const IN_PLACE: usize = 23;

/// The names that records of a snapshot have in common, and what their tasks have alike: each was read anew.
#[derive(Default)]
pub struct Known {
    frameworks: BTreeSet<FrameworkId>,
    agents: BTreeSet<AgentId>,
    alike: Alike,
    /// Room for a description.
    cut: Vec<u8>,
}

impl Known {
    /// What tasks that come later may have in common with those that came.
    pub(crate) fn into_alike(self) -> Alike {
        self.alike
    }

    /// The task of a record, which has its parts in common with others.
    pub(crate) fn task(&mut self, mut stored: StoredTask<'_>) -> Task {
        let names = [&*stored.agent_id, &*stored.key.task_id, &*stored.name];
        description::cut(&stored.sealed.0, names, &mut self.cut);
        let origin = Origin {
            key: TaskKey {
                framework_id: once(&mut self.frameworks, &stored.key.framework_id, FrameworkId::new),
                task_id: TaskId::new(&stored.key.task_id),
            },
            name: (*stored.name).into(),
            launch: stored.launch,
            agent_id: once(&mut self.agents, &stored.agent_id, AgentId::new),
            launched: stored.launched,
            shape: self.alike.shape(stored.take_shape()),
            description: self.alike.description(&self.cut),
        };
        stored.with(origin)
    }

    /// The same of a task that was made already.
    pub(crate) fn share(&mut self, mut task: Task) -> Task {
        let origin = Arc::make_mut(&mut task.origin);
        origin.key.framework_id =
            once(&mut self.frameworks, origin.key.framework_id.as_str(), FrameworkId::new);
        origin.agent_id = once(&mut self.agents, origin.agent_id.as_str(), AgentId::new);
        self.alike.share(origin);
        task
    }
}

fn once<'a, T: Ord + Clone + Borrow<str>>(
    known: &mut BTreeSet<T>,
    id: &'a str,
    new: impl FnOnce(&'a str) -> T,
) -> T {
    if id.len() <= IN_PLACE {
        return new(id);
    }
    if let Some(known) = known.get(id) {
        return known.clone();
    }
    let id = new(id);
    known.insert(id.clone());
    id
}
