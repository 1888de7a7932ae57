//! How long launches take here: from the order that reaches the agent to the command that runs.

use muster_model::LaunchNumber;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Launches that are told of.
const LAST_MAX: usize = 1_000;
/// Orders whose command is waited for; the oldest are given up first.
const WAITING_MAX: usize = 50_000;

/// The times of this agent's last launches.
#[derive(Debug, Default)]
pub(crate) struct LaunchTimes(Mutex<Times>);

#[derive(Debug, Default)]
struct Times {
    waiting: BTreeMap<LaunchNumber, Instant>,
    last: VecDeque<Duration>,
    count: u64,
}

impl LaunchTimes {
    fn times(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An order came. One that comes again counts from the first time.
    pub(crate) fn ordered(&self, launch: LaunchNumber) {
        let mut times = self.times();
        times.waiting.entry(launch).or_insert_with(Instant::now);
        if times.waiting.len() > WAITING_MAX {
            times.waiting.pop_first();
        }
    }

    /// Its command runs.
    pub(crate) fn runs(&self, launch: LaunchNumber) {
        let mut times = self.times();
        let Some(since) = times.waiting.remove(&launch) else { return }; // ordered from a former agent
        times.count += 1;
        times.last.push_back(since.elapsed());
        if times.last.len() > LAST_MAX {
            times.last.pop_front();
        }
    }

    /// It is over, whether its command ran or not.
    pub(crate) fn ended(&self, launch: LaunchNumber) {
        self.times().waiting.remove(&launch);
    }

    /// How many commands ran, and of the last of them these quantiles, each from 0 to 1. None before the first.
    pub(crate) fn quantiles<const N: usize>(&self, wanted: [f64; N]) -> Option<(u64, [Duration; N])> {
        let (count, mut last) = {
            let times = self.times();
            (times.count, times.last.iter().copied().collect::<Vec<_>>())
        };
        last.sort_unstable();
        let end = last.len().checked_sub(1)?;
        Some((count, wanted.map(|it| last[((end as f64 * it).round() as usize).min(end)])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_model::Index;

    fn launch(n: u64) -> LaunchNumber {
        LaunchNumber { incarnation: 1, index: Index(n), n: 0 }
    }

    #[test]
    fn a_launch_is_timed_once_from_its_first_order() {
        let times = LaunchTimes::default();
        assert_eq!(times.quantiles([0.5]), None);
        let begun = Instant::now();
        times.ordered(launch(1));
        std::thread::sleep(Duration::from_millis(2));
        times.ordered(launch(1));
        times.runs(launch(1));
        times.runs(launch(1));
        times.runs(launch(2));
        let (count, [median]) = times.quantiles([0.5]).unwrap();
        assert_eq!(count, 1);
        assert!(median >= Duration::from_millis(2) && median <= begun.elapsed());
    }

    #[test]
    fn nothing_grows_without_bound() {
        let times = LaunchTimes::default();
        for n in 0..=WAITING_MAX as u64 {
            times.ordered(launch(n));
        }
        assert_eq!(times.times().waiting.len(), WAITING_MAX);
        times.runs(launch(0));
        assert_eq!(times.quantiles([0.5]), None, "given up");
        for n in 1..=LAST_MAX as u64 + 1 {
            times.runs(launch(n));
        }
        assert_eq!(times.times().last.len(), LAST_MAX);
        times.ended(launch(WAITING_MAX as u64));
        assert_eq!(times.times().waiting.len(), WAITING_MAX - LAST_MAX - 2);
    }
}
