//! What tasks have alike is kept once.

use super::{Description, Origin, Shape, Task};
use crate::table::hash_of;
use muster_model::{AgentId, FrameworkId};
use std::{collections::BTreeSet, fmt, sync::Arc};

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
        self.shapes.share(hash_of(&(), &*origin.shape), &mut origin.shape);
        if let Some(mark) = origin.description.mark() {
            self.descriptions.share(mark, &mut origin.description);
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

impl<T: Clone + PartialEq> Memory<T> {
    fn share(&mut self, hash: u64, it: &mut T) {
        if self.0.is_empty() {
            self.0.resize(REMEMBERED, None);
        }
        let place = &mut self.0[hash as usize % REMEMBERED];
        match place {
            Some(known) if known == it => it.clone_from(known),
            _ => *place = Some(it.clone()),
        }
    }
}

/// The names that records of a snapshot have in common: each was read anew.
#[derive(Default)]
pub(crate) struct Known {
    frameworks: BTreeSet<FrameworkId>,
    agents: BTreeSet<AgentId>,
}

impl Known {
    /// Lets a task that was just read have its parts in common with others.
    pub(crate) fn share(&mut self, task: &mut Task, alike: &mut Alike) {
        let origin = Arc::make_mut(&mut task.origin);
        once(&mut self.frameworks, &mut origin.key.framework_id);
        once(&mut self.agents, &mut origin.agent_id);
        alike.share(origin);
    }
}

fn once<T: Ord + Clone>(known: &mut BTreeSet<T>, it: &mut T) {
    match known.get(it) {
        Some(known) => it.clone_from(known),
        None => drop(known.insert(it.clone())),
    }
}
