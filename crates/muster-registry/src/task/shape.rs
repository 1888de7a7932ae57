//! What is equal is kept once.

use super::{Shape, Task};
use crate::table::hash_of;
use muster_model::{AgentId, FrameworkId};
use std::{collections::BTreeSet, fmt, sync::Arc};

/// How many are remembered: a power of two. One that is forgotten is kept once more for the tasks that come then.
const REMEMBERED: usize = 1_024;

/// The shapes of the tasks that came last, so that the next ones of a kind share theirs.
///
/// It changes nothing but what memory tasks need: a copy of a registry begins without it.
#[derive(Default)]
pub(crate) struct Shapes(Vec<Option<Arc<Shape>>>);

impl Shapes {
    /// The same shape, shared where it is known.
    pub(crate) fn shared(&mut self, shape: Arc<Shape>) -> Arc<Shape> {
        if self.0.is_empty() {
            self.0.resize(REMEMBERED, None);
        }
        let place = &mut self.0[hash_of(&(), &*shape) as usize % REMEMBERED];
        match place {
            Some(known) if *known == shape => known.clone(),
            _ => place.insert(shape).clone(),
        }
    }
}

impl Clone for Shapes {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl fmt::Debug for Shapes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shapes({})", self.0.iter().flatten().count())
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
    pub(crate) fn share(&mut self, task: &mut Task, shapes: &mut Shapes) {
        let origin = Arc::make_mut(&mut task.origin);
        once(&mut self.frameworks, &mut origin.key.framework_id);
        once(&mut self.agents, &mut origin.agent_id);
        origin.shape = shapes.shared(origin.shape.clone());
    }
}

fn once<T: Ord + Clone>(known: &mut BTreeSet<T>, it: &mut T) {
    match known.get(it) {
        Some(known) => it.clone_from(known),
        None => drop(known.insert(it.clone())),
    }
}
