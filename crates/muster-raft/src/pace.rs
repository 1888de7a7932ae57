//! How closely rounds of few commands follow one another.
//!
//! A round costs every replica about as much with one command as with fifty: messages, two syncs, threads to wake. At
//! a load that is above a round's time and far below a full entry, one small round would follow the other without a
//! break, and all processors and disks would be busy with little. So once some have gone out in a row, small rounds
//! begin no sooner than [`SPACING`] times the time that one takes after the one before, and carry what came meanwhile.
//! A command waits for less than one round longer on average, and one that comes alone does not wait at all.

use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// From the beginning of a small round to the next, in the time that rounds take.
const SPACING: u32 = 2;
/// Rounds that may follow one another without a break: what becomes of one launch takes about five.
const BURST: u32 = 8;
/// A round that takes longer waits for something else than this machine.
const ROUND_MAX: Duration = Duration::from_millis(10);
/// The newest round counts for one in so many.
const SMOOTHING: u32 = 8;

#[derive(Debug)]
pub(crate) struct Pace {
    /// When the rounds in flight began.
    in_flight: VecDeque<Instant>,
    /// How long one takes, smoothed.
    round: Duration,
    /// When the last one began.
    last: Instant,
    /// Time that was left between rounds, up to what [`BURST`] of them need.
    saved: Duration,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self { in_flight: VecDeque::new(), round: Duration::ZERO, last: now, saved: Duration::ZERO }
    }

    fn spacing(&self) -> Duration {
        self.round * SPACING
    }

    /// A round begins.
    pub(crate) fn begins(&mut self, now: Instant) {
        self.in_flight.push_back(now);
        let spacing = self.spacing();
        let saved = self.saved + now.saturating_duration_since(self.last);
        self.saved = saved.min(spacing * BURST).saturating_sub(spacing);
        self.last = now;
    }

    /// The oldest round in flight is over.
    pub(crate) fn ends(&mut self, now: Instant) {
        let Some(began) = self.in_flight.pop_front() else { return };
        let took = now.saturating_duration_since(began).min(ROUND_MAX);
        self.round = (self.round * (SMOOTHING - 1) + took) / SMOOTHING;
    }

    /// What is in flight was refused: it says nothing of how long a round takes.
    pub(crate) fn forget(&mut self) {
        self.in_flight.clear();
    }

    /// Until when a small round is to wait; none if it may begin.
    pub(crate) fn rest(&self, now: Instant) -> Option<Instant> {
        let until = self.last + self.spacing().saturating_sub(self.saved);
        (now < until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_millis(2);

    /// One round after the other, as soon as each may begin; when each began.
    fn rounds(pace: &mut Pace, mut now: Instant, count: usize) -> Vec<Instant> {
        let mut began = Vec::new();
        for _ in 0..count {
            now = pace.rest(now).unwrap_or(now);
            began.push(now);
            pace.begins(now);
            now += ROUND;
            pace.ends(now);
        }
        began
    }

    /// One that knows how long a round takes, and has not had any for a while.
    fn settled(start: Instant) -> (Pace, Instant) {
        let mut pace = Pace::new(start);
        let last = rounds(&mut pace, start, 100)[99];
        (pace, last + Duration::from_secs(1))
    }

    #[test]
    fn rounds_in_a_row_get_a_break_after_the_first_ones() {
        let (mut pace, start) = settled(Instant::now());
        let began = rounds(&mut pace, start, 200);
        let gaps: Vec<_> = began.windows(2).map(|two| two[1] - two[0]).collect();
        let free = gaps.iter().take_while(|gap| **gap <= ROUND).count();
        assert!((BURST as usize..=3 * BURST as usize).contains(&free), "{free} without a break");
        let last = gaps[gaps.len() - 1];
        assert!(last > ROUND * 3 / 2 && last <= ROUND * SPACING, "{last:?} between rounds of {ROUND:?}");
    }

    #[test]
    fn rounds_with_time_between_them_do_not_wait() {
        let (mut pace, mut now) = settled(Instant::now());
        for _ in 0..100 {
            assert_eq!(pace.rest(now), None);
            pace.begins(now);
            pace.ends(now + ROUND);
            now += ROUND * (SPACING + 1);
        }
    }

    #[test]
    fn a_round_that_hangs_makes_nobody_wait_for_as_long() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut now = start;
        for _ in 0..100 {
            pace.begins(now);
            now += Duration::from_secs(60);
            pace.ends(now);
        }
        let (mut pace, now) = (pace, now + ROUND);
        rounds(&mut pace, now, 50);
        let waits = pace.rest(pace.last).map_or(Duration::ZERO, |until| until - pace.last);
        assert!(waits <= ROUND_MAX * SPACING, "{waits:?}");
    }
}
