//! What was acknowledged to frameworks, and what was started on agents: the two must agree.

use muster_model::{Fence, LaunchNumber};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// What an agent has to tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It starts a launch.
    Started(LaunchNumber, usize),
    /// This leader has taken it in.
    TakenIn(Fence, usize),
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Where each launch was started.
    started: Mutex<HashMap<LaunchNumber, usize>>,
    acknowledged: Mutex<Vec<LaunchNumber>>,
    doubled: AtomicU64,
    /// The newest leader that any agent was taken in by, and those that it took in.
    taken_in: Mutex<(Fence, HashSet<usize>)>,
    /// What was not told elsewhere yet, where that is to be done.
    untold: Option<Mutex<Vec<Told>>>,
    /// What broke in the benchmark itself, the first of it.
    failure: Mutex<Option<String>>,
    pub(crate) offers: AtomicU64,
    pub(crate) running: AtomicU64,
    /// Tasks that frameworks saw finished, and tasks that they saw end in another way.
    pub(crate) finished: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// Tasks that were taken over the Mesos API, where no launch has a number, and those that were heard of since.
    pub(crate) accepted: AtomicU64,
    pub(crate) told: AtomicU64,
    /// Whether agents alone tell of those: nothing more becomes of tasks than that an agent takes their order.
    agents_tell: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// One of which all is told elsewhere.
    pub(crate) fn telling() -> Self {
        Self { untold: Some(Mutex::default()), ..Self::default() }
    }

    /// From now on tasks are launched of which agents alone tell.
    pub(crate) fn trust_agents(&self) {
        self.agents_tell.store(true, Ordering::Relaxed);
    }

    /// What came since this was asked before.
    pub(crate) fn take_untold(&self) -> Vec<Told> {
        self.untold.as_ref().map(|untold| std::mem::take(&mut *lock(untold))).unwrap_or_default()
    }

    /// A part of the benchmark broke: what was measured says nothing.
    pub(crate) fn fail(&self, why: String) {
        eprintln!("{why}");
        lock(&self.failure).get_or_insert(why);
    }

    /// An agent starts a launch that it had not heard of before.
    pub(crate) fn started(&self, launch: LaunchNumber, agent: usize) {
        if let Some(untold) = &self.untold {
            lock(untold).push(Told::Started(launch, agent));
        }
        if lock(&self.started).insert(launch, agent).is_some() {
            self.doubled.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// This leader has taken an agent in.
    pub(crate) fn taken_in(&self, fence: Fence, agent: usize) {
        if let Some(untold) = &self.untold {
            lock(untold).push(Told::TakenIn(fence, agent));
        }
        let mut newest = lock(&self.taken_in);
        if fence > newest.0 {
            *newest = (fence, HashSet::new());
        }
        if fence == newest.0 {
            newest.1.insert(agent);
        }
    }

    /// How many agents the newest leader after this one has taken in.
    pub(crate) fn taken_in_after(&self, fence: Fence) -> usize {
        let newest = lock(&self.taken_in);
        if newest.0 > fence { newest.1.len() } else { 0 }
    }

    pub(crate) fn acknowledged(&self, launch: LaunchNumber) {
        lock(&self.acknowledged).push(launch);
    }

    pub(crate) fn started_count(&self) -> usize {
        lock(&self.started).len()
    }

    /// What moves as long as anything is on its way.
    pub(crate) fn progress(&self) -> [u64; 5] {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [self.started_count() as u64, self.launched(), of(&self.told), of(&self.finished), of(&self.failed)]
    }

    /// Tasks that frameworks were told to be launched, by either API.
    pub(crate) fn launched(&self) -> u64 {
        lock(&self.acknowledged).len() as u64 + self.accepted.load(Ordering::Relaxed)
    }

    /// Tasks that were launched and that no framework saw end.
    pub(crate) fn open(&self) -> u64 {
        let ended = self.finished.load(Ordering::Relaxed) + self.failed.load(Ordering::Relaxed);
        self.launched().saturating_sub(ended)
    }

    /// Whether a part of the benchmark broke.
    pub(crate) fn is_broken(&self) -> bool {
        lock(&self.failure).is_some()
    }

    /// Acknowledged launches that no agent started, tasks that were taken and never heard of, and launches that were started twice.
    /// Where a part of the benchmark broke nobody knows, which counts as one that is lost.
    pub(crate) fn judge(&self) -> (u64, u64) {
        let started = lock(&self.started);
        let acknowledged = lock(&self.acknowledged);
        let lost = acknowledged.iter().filter(|launch| !started.contains_key(launch)).count();
        let by_agents = match self.agents_tell.load(Ordering::Relaxed) {
            true => (started.len() + lost).saturating_sub(acknowledged.len()),
            false => 0,
        };
        let told = self.told.load(Ordering::Relaxed) + by_agents as u64;
        let unheard = self.accepted.load(Ordering::Relaxed).saturating_sub(told);
        let unknown = u64::from(lock(&self.failure).is_some());
        (lost as u64 + unheard + unknown, self.doubled.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_model::Index;

    fn launch(n: u32) -> LaunchNumber {
        LaunchNumber { incarnation: 1, index: Index(7), n }
    }

    #[test]
    fn a_task_that_no_agent_tells_of_is_lost_by_either_api() {
        let ledger = Ledger::default();
        ledger.trust_agents();
        ledger.acknowledged(launch(0));
        ledger.accepted.fetch_add(2, Ordering::Relaxed);
        assert_eq!(ledger.judge(), (3, 0));
        ledger.started(launch(0), 1);
        assert_eq!(ledger.judge(), (2, 0), "what one API acknowledged is not taken for the other's");
        ledger.started(launch(1), 1);
        assert_eq!(ledger.judge(), (1, 0));
        ledger.started(launch(2), 2);
        assert_eq!(ledger.judge(), (0, 0));
        ledger.started(launch(2), 1);
        assert_eq!(ledger.judge(), (0, 1));
    }

    #[test]
    fn where_frameworks_are_told_of_tasks_their_agents_word_is_not_enough() {
        let ledger = Ledger::default();
        ledger.accepted.fetch_add(1, Ordering::Relaxed);
        ledger.started(launch(0), 1);
        assert_eq!(ledger.judge(), (1, 0));
        ledger.told.fetch_add(1, Ordering::Relaxed);
        assert_eq!(ledger.judge(), (0, 0));
    }
}
