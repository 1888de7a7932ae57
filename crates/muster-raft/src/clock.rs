//! Registry time at this replica (`protocol` B6): it advances through applied entries, and between them with
//! the monotonic clock, at most two seconds beyond the last one.

use crate::store::lock;
use muster_fault::advanced_ms;
use muster_model::Timestamp;
use std::{
    collections::VecDeque,
    sync::Mutex,
    time::{Duration, Instant},
};

/// How far a stamp may run ahead of the last applied entry.
const AHEAD_MAX: Duration = Duration::from_secs(2);
/// Stamps remembered until their entries are applied: more than can be in flight.
const STAMPS_MAX: usize = 1_024;

/// Stamps entries, and says what time it is.
pub(crate) struct Clock(Mutex<Inner>);

struct Inner {
    /// The registry's clock at the last applied entry.
    clock: Timestamp,
    /// When that entry was stamped here, or applied here if another master stamped it. Counting from the
    /// stamp keeps registry time at pace with real time however long replication takes.
    since: Instant,
    stamps: VecDeque<((u64, u64), Instant)>,
    /// Time shown here never runs backward.
    shown: Timestamp,
}

impl Inner {
    fn at(&self, now: Instant) -> Timestamp {
        let ahead = now.saturating_duration_since(self.since).min(AHEAD_MAX);
        self.clock.plus_ms(ahead.as_millis() as u64)
    }
}

impl Clock {
    pub(crate) fn new(clock: Timestamp) -> Self {
        Self(Mutex::new(Inner { clock, since: Instant::now(), stamps: VecDeque::new(), shown: clock }))
    }

    pub(crate) fn now(&self) -> Timestamp {
        let mut inner = lock(&self.0);
        let now = inner.at(Instant::now());
        inner.shown = inner.shown.max(now);
        inner.shown
    }

    /// The stamp of an entry that is proposed now. The first of a leader is stamped with the clock as it
    /// stands: what passed without a leader does not count.
    pub(crate) fn stamp(&self, term: u64, first_ticket: u64, begins: bool) -> Timestamp {
        self.stamp_at(Instant::now(), term, first_ticket, begins)
    }

    fn stamp_at(&self, now: Instant, term: u64, first_ticket: u64, begins: bool) -> Timestamp {
        let mut inner = lock(&self.0);
        if inner.stamps.len() == STAMPS_MAX {
            inner.stamps.pop_front();
        }
        inner.stamps.push_back(((term, first_ticket), now));
        if begins { inner.clock } else { inner.at(now).plus_ms(advanced_ms!()) }
    }

    /// An entry was applied; the registry's clock is now this.
    pub(crate) fn applied(&self, clock: Timestamp, term: u64, first_ticket: u64) {
        self.applied_at(Instant::now(), clock, term, first_ticket);
    }

    fn applied_at(&self, now: Instant, clock: Timestamp, term: u64, first_ticket: u64) {
        let mut inner = lock(&self.0);
        while inner.stamps.front().is_some_and(|(key, _)| *key < (term, first_ticket)) {
            inner.stamps.pop_front();
        }
        inner.since = match inner.stamps.front() {
            Some((key, stamped)) if *key == (term, first_ticket) => *stamped,
            _ => now,
        };
        inner.clock = clock;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_keeps_pace_under_load_and_stops_without_commits() {
        let clock = Clock::new(Timestamp(1_000));
        let start = Instant::now();
        clock.applied_at(start, Timestamp(1_000), 1, 0);
        // Entries stamped every 10 ms, each applied 50 ms later.
        let mut applied = VecDeque::new();
        for n in 1..=100 {
            let now = start + Duration::from_millis(n * 10);
            while applied.front().is_some_and(|(due, _, _)| *due <= now) {
                let (due, at, ticket) = applied.pop_front().unwrap();
                clock.applied_at(due, at, 1, ticket);
            }
            applied.push_back((now + Duration::from_millis(50), clock.stamp_at(now, 1, n, false), n));
        }
        let last = applied.back().unwrap().1;
        assert_eq!(last, Timestamp(2_000), "a second of load is a second of registry time");
        for (due, at, ticket) in applied {
            clock.applied_at(due, at, 1, ticket);
        }
        let hour = start + Duration::from_secs(3_600);
        assert_eq!(clock.stamp_at(hour, 1, 101, false), Timestamp(4_000), "at most two seconds beyond");
        assert_eq!(
            clock.stamp_at(hour, 2, 1, true),
            Timestamp(2_000),
            "a new leader starts as the clock stands"
        );
    }

    #[test]
    fn an_entry_of_another_master_counts_from_its_apply() {
        let clock = Clock::new(Timestamp(0));
        let start = Instant::now();
        clock.stamp_at(start, 3, 1, false);
        clock.applied_at(start + Duration::from_millis(500), Timestamp(77), 4, 1);
        assert_eq!(clock.stamp_at(start + Duration::from_millis(600), 5, 1, false), Timestamp(177));
    }
}
