//! How tasks stand with their agents: one that comes back with what is known of it needs no look at each of its tasks.

use super::{ByLaunch, Origin, Task};
use imbl::OrdSet;
use muster_model::{LaunchNumber, LaunchSum};
use std::sync::Arc;

/// How a task stands with its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It holds nothing: whether its agent lists it does not matter.
    Free,
    /// Its agent may have to be told something of it: that it is to run, or to end.
    Open,
    /// Its agent has it, and it is to go on.
    Settled,
}

impl Task {
    pub(crate) fn standing(&self) -> Standing {
        match self.held {
            false => Standing::Free,
            true if self.accepted && !self.state.is_terminal() && self.kill().is_none() => Standing::Settled,
            true => Standing::Open,
        }
    }
}

/// How the tasks of an agent stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Standings {
    settled: LaunchSum,
    open: u32,
}

impl Standings {
    /// Another one.
    pub(crate) fn add(&mut self, launch: LaunchNumber, standing: Standing) {
        match standing {
            Standing::Free => {}
            Standing::Open => self.open += 1,
            Standing::Settled => self.settled.add(launch),
        }
    }

    fn remove(&mut self, launch: LaunchNumber, standing: Standing) {
        match standing {
            Standing::Free => {}
            Standing::Open => self.open -= 1,
            Standing::Settled => self.settled.remove(launch),
        }
    }
}

/// The tasks of an agent that are not over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AgentTasks {
    launches: OrdSet<ByLaunch>,
    standings: Standings,
}

impl AgentTasks {
    /// All of them, with how they stand.
    pub(crate) fn new(launches: OrdSet<ByLaunch>, standings: Standings) -> Self {
        Self { launches, standings }
    }

    pub(crate) fn insert(&mut self, task: &Task) {
        self.launches.insert(ByLaunch(task.origin.clone()));
        self.standings.add(task.launch, task.standing());
    }

    /// One is over, which stood like this.
    pub(crate) fn remove(&mut self, launch: LaunchNumber, before: Standing) {
        self.launches.remove(&launch);
        self.standings.remove(launch, before);
    }

    /// One stands in another way.
    pub(crate) fn restand(&mut self, launch: LaunchNumber, before: Standing, after: Standing) {
        self.standings.remove(launch, before);
        self.standings.add(launch, after);
    }

    pub(crate) fn get(&self, launch: &LaunchNumber) -> Option<&Arc<Origin>> {
        self.launches.get(launch).map(|it| &it.0)
    }

    /// In the order of their launches.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Origin>> {
        self.launches.iter().map(|it| &it.0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.launches.is_empty()
    }

    /// Whether each holds its resources.
    pub(crate) fn all_hold(&self) -> bool {
        let Standings { settled, open } = self.standings;
        settled.count() as usize + open as usize == self.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.launches.len()
    }

    /// Whether its agent may have to be told something of any.
    pub(crate) fn any_open(&self) -> bool {
        self.standings.open > 0
    }

    /// Whether these are all that hold anything, and nothing is to be said of them.
    pub(crate) fn are_settled(&self, living: LaunchSum) -> bool {
        !self.any_open() && self.standings.settled == living
    }
}
