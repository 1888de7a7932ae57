//! What was acknowledged to frameworks, and what was started on agents: the two must agree.

use muster_model::LaunchNumber;
use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Where each launch was started.
    started: Mutex<HashMap<LaunchNumber, usize>>,
    acknowledged: Mutex<Vec<LaunchNumber>>,
    doubled: AtomicU64,
    /// Launches that were started and not told elsewhere yet, where that is to be done.
    untold: Option<Mutex<Vec<(LaunchNumber, usize)>>>,
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
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// One whose started launches are told elsewhere.
    pub(crate) fn telling() -> Self {
        Self { untold: Some(Mutex::default()), ..Self::default() }
    }

    /// Launches that were started since this was asked before.
    pub(crate) fn take_untold(&self) -> Vec<(LaunchNumber, usize)> {
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
            lock(untold).push((launch, agent));
        }
        if lock(&self.started).insert(launch, agent).is_some() {
            self.doubled.fetch_add(1, Ordering::Relaxed);
        }
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
        let lost = lock(&self.acknowledged).iter().filter(|launch| !started.contains_key(launch)).count();
        let unheard = self.accepted.load(Ordering::Relaxed).saturating_sub(self.told.load(Ordering::Relaxed));
        let unknown = u64::from(lock(&self.failure).is_some());
        (lost as u64 + unheard + unknown, self.doubled.load(Ordering::Relaxed))
    }
}
