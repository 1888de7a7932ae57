//! Commands that an engine begins beside a task though whoever wanted them is gone: it was asked before, and its client's
//! end stops nothing. They are killed once they are seen.

use super::process::signal_beside;
use rustix::process::Signal;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Until it is looked for them for the first time; from then on three times as long each time.
const PAUSE: Duration = Duration::from_millis(100);
/// How long an engine may take to begin what it was asked for.
const LATE: Duration = Duration::from_secs(30);
/// What is looked for at once: beyond, the oldest is no longer.
const MARKS_MAX: usize = 1000;

/// The marks of what was killed.
#[derive(Default)]
pub(super) struct Stragglers {
    /// With when that was, the oldest first.
    marks: VecDeque<(String, Instant)>,
    /// When to look again, and how long after that the next time.
    next: Option<(Instant, Duration)>,
}

impl Stragglers {
    /// Kills all that has this mark, and what will have it.
    pub(super) fn kill(&mut self, mark: &str) {
        signal_beside(|found| found == mark, Signal::KILL);
        let now = Instant::now();
        if self.marks.len() >= MARKS_MAX {
            self.marks.pop_front();
        }
        self.marks.push_back((mark.to_owned(), now));
        let at = now + PAUSE;
        self.next = Some((self.next.map_or(at, |(next, _)| next.min(at)), PAUSE));
    }

    /// How long until the next look; none: there is nothing to look for.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.next.map(|(next, _)| next.saturating_duration_since(Instant::now()))
    }

    /// Looks, if it is time.
    pub(super) fn settle(&mut self) {
        let now = Instant::now();
        let Some((_, pause)) = self.next.filter(|(next, _)| *next <= now) else { return };
        signal_beside(|found| self.marks.iter().any(|(mark, _)| mark == found), Signal::KILL);
        while self.marks.front().is_some_and(|(_, killed)| now.duration_since(*killed) > LATE) {
            self.marks.pop_front();
        }
        self.next = (!self.marks.is_empty()).then(|| (now + 3 * pause, 3 * pause));
    }
}
