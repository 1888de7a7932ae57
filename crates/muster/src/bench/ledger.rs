//! What was acknowledged to frameworks, and what was started on agents: the two must agree.

use muster_model::{Fence, LaunchNumber};
use std::{
    collections::{HashMap, HashSet},
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
    /// The newest leader that any agent was taken in by, and those that it took in.
    taken_in: Mutex<(Fence, HashSet<usize>)>,
    pub(crate) offers: AtomicU64,
    pub(crate) running: AtomicU64,
    /// Tasks that were taken over the Mesos API, where no launch has a number, and those that were heard of since.
    pub(crate) accepted: AtomicU64,
    pub(crate) told: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// An agent starts a launch that it had not heard of before.
    pub(crate) fn started(&self, launch: LaunchNumber, agent: usize) {
        if lock(&self.started).insert(launch, agent).is_some() {
            self.doubled.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// This leader has taken an agent in.
    pub(crate) fn taken_in(&self, fence: Fence, agent: usize) {
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

    /// Acknowledged launches that no agent started, tasks that were taken and never heard of, and launches that were started twice.
    pub(crate) fn judge(&self) -> (u64, u64) {
        let started = lock(&self.started);
        let lost = lock(&self.acknowledged).iter().filter(|launch| !started.contains_key(launch)).count();
        let unheard = self.accepted.load(Ordering::Relaxed).saturating_sub(self.told.load(Ordering::Relaxed));
        (lost as u64 + unheard, self.doubled.load(Ordering::Relaxed))
    }
}
