//! What each run of an executor may use: its own share and those of its tasks that are not over.

use crate::{effect::Effect, node::Node, record::Saved};
use muster_model::{LaunchNumber, Resources};
use std::collections::{BTreeMap, BTreeSet};

/// The sizes of the runs that are not forgotten.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    /// What the tasks of each hold together.
    tasks: BTreeMap<LaunchNumber, Resources>,
    /// Those that changed since it was said.
    changed: BTreeSet<LaunchNumber>,
}

impl Sizes {
    pub(crate) fn recover(saved: &Saved) -> Self {
        let mut all = Self::default();
        for (launch, task) in &saved.executors.tasks {
            if let Some(task_record) = saved.tasks.get(launch).filter(|it| !it.state.is_terminal())
                && let Some(intent) = &task_record.intent
            {
                all.join(task.executor, &intent.resources);
            }
        }
        // Another version may have set other limits.
        all.changed = saved.executors.runs.keys().copied().collect();
        all
    }

    fn join(&mut self, number: LaunchNumber, resources: &Resources) {
        self.tasks.entry(number).or_default().add(resources);
        self.changed.insert(number);
    }

    fn leave(&mut self, number: LaunchNumber, resources: &Resources) {
        if let Some(holds) = self.tasks.get_mut(&number) {
            holds.subtract(resources);
            self.changed.insert(number);
        }
    }

    /// The run is over.
    pub(crate) fn forget(&mut self, number: LaunchNumber) {
        self.tasks.remove(&number);
        self.changed.remove(&number);
    }
}

impl Node {
    /// A task was taken on for a run.
    pub(crate) fn grow(&mut self, launch: LaunchNumber, number: LaunchNumber) {
        if let Some(intent) = self.saved.tasks.get(&launch).and_then(|task| task.intent.clone()) {
            self.sizes.join(number, &intent.resources);
        }
    }

    /// A task is over; called once for each.
    pub(crate) fn shrink(&mut self, launch: LaunchNumber) {
        let Some(number) = self.saved.executors.tasks.get(&launch).map(|task| task.executor) else { return };
        if let Some(intent) = self.saved.tasks.get(&launch).and_then(|task| task.intent.clone()) {
            self.sizes.leave(number, &intent.resources);
        }
    }

    /// All that a run may use.
    pub(crate) fn size(&self, number: LaunchNumber) -> Resources {
        let own = self.saved.executors.runs.get(&number).map(|run| run.intent.resources.clone());
        let mut all = own.unwrap_or_default();
        if let Some(tasks) = self.sizes.tasks.get(&number) {
            all.add(tasks);
        }
        all
    }

    /// Says the sizes that changed, of the runs that live: others are told theirs when they are started, or let go.
    pub(crate) fn say_sizes(&mut self, effects: &mut Vec<Effect>) {
        if self.sizes.changed.is_empty() {
            return;
        }
        let live: Vec<_> = self.sizes.changed.iter().copied().filter(|it| self.execs.is_live(*it)).collect();
        let (built_in, live): (Vec<_>, Vec<_>) = live.into_iter().partition(|it| self.is_built_in(*it));
        // Without a process it has no limits: each of its tasks has its own.
        self.sizes.changed.retain(|number| !built_in.contains(number));
        for number in live {
            self.sizes.changed.remove(&number);
            effects.push(Effect::Resize { number, resources: self.size(number) });
        }
    }
}
