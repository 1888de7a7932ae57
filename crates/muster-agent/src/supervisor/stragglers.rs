//! Commands that an engine begins beside a task though whoever wanted them is gone: it was asked before, and its client's
//! end stops nothing. They are killed once they are seen.

use super::process::signal_beside;
use rustix::process::Signal;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Before the first look, and before a later one at most; each pause is three times the one before.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long an engine may take to begin what it was asked for.
const LATE: Duration = Duration::from_secs(30);
/// What is looked for at once: beyond, the oldest is no longer.
const MARKS_MAX: usize = 1000;

/// The marks of what was killed.
#[derive(Default)]
pub(super) struct Stragglers {
    /// With when that was, the oldest first.
    marks: VecDeque<(String, Instant)>,
    /// When to look again, and the pause before that.
    next: Option<(Instant, Duration)>,
}

impl Stragglers {
    /// Kills all that has this mark, and what will have it.
    pub(super) fn kill(&mut self, mark: &str) {
        signal_beside(|found| found == mark, Signal::KILL);
        let now = Instant::now();
        self.marks.retain(|(known, _)| known != mark);
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
        let pause = PAUSE_MAX.min(3 * pause);
        self.next = (!self.marks.is_empty()).then(|| (now + pause, pause));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::process::BESIDE, *};
    use std::process::Command;

    #[test]
    fn what_begins_after_it_was_killed_ends() {
        let mark = format!("/test-{}:late", std::process::id());
        let mut stragglers = Stragglers::default();
        assert_eq!(stragglers.patience(), None);
        stragglers.kill(&mark);
        let mut child = Command::new("sleep").arg("1000").env(BESIDE, &mark).spawn().unwrap();
        let mut another = Command::new("sleep").arg("1000").env(BESIDE, format!("{mark}r")).spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            std::thread::sleep(stragglers.patience().unwrap());
            stragglers.settle();
        }
        assert!(another.try_wait().unwrap().is_none(), "another mark's");
        another.kill().unwrap();
        another.wait().unwrap();
    }
}
