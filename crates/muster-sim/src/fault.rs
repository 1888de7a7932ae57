//! What goes wrong, and when: a list that is drawn from the seed before anything happens, so that each fault
//! can be left out and the rest stays as it is.

use crate::dice::Dice;
use std::{fmt, str::FromStr};

/// An enum of words, each with its name in a replay line.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $word:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$of])* $word,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$word,)*];

            /// Its name in a replay line.
            pub fn name(self) -> &'static str {
                match self { $(Self::$word => $text,)* }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                let found = Self::ALL.iter().find(|it| it.name() == text);
                found.copied().ok_or_else(|| {
                    let all: Vec<_> = Self::ALL.iter().map(|it| it.name()).collect();
                    format!("{text:?} is none of {}", all.join(", "))
                })
            }
        }
    };
}

pub(crate) use words;

words! {
    /// A step of a machine at which a fault can strike: each is counted from 1.
    Step {
        /// An agent handed records to its disk.
        Checkpoint = "checkpoint",
        /// An agent's records are on the disk, its machine has not heard of it.
        Synced = "synced",
        /// An agent said something.
        Said = "said",
        /// An agent's supervisor holds a command, its machine has not heard of it.
        Started = "started",
        /// An agent let a command go, its machine has not heard of it.
        Released = "released",
        /// A command ended, the agent's machine has not heard of it.
        Ended = "ended",
        /// An agent signalled a command or told its supervisor never to let it go.
        Signalled = "signalled",
        /// An agent forgot a launch.
        Removed = "removed",
        /// The leader proposed a command; its proposer has not written it.
        Proposed = "proposed",
        /// The leader's entry is appended, not committed.
        Appended = "appended",
        /// The leader's entry is committed; its machine has not heard of it.
        Committed = "committed",
        /// The leader's machine heard of an entry; nothing that follows from it was sent.
        Applied = "applied",
        /// The leader sent something.
        Answered = "answered",
        /// A shard granted.
        Granted = "granted",
        /// A scheduler's driver sent a call.
        Called = "called",
        /// A scheduler was told something.
        Told = "told",
    }
}

words! {
    /// What goes wrong.
    What {
        /// A new leader; the former one dies at once or goes on for a while, and a part of what it had not
        /// committed is lost.
        Elect = "elect",
        /// A stream breaks, with all that is on its way.
        Cut = "cut",
        /// A master on a stream's way stands still: nothing passes, and what it holds passes later, also when
        /// the client has gone to another master meanwhile.
        Stick = "stick",
        /// A stream is slow for a while.
        Lag = "lag",
        /// An agent is killed: what it had not synced is lost, or a part of it.
        Crash = "crash",
        /// An agent's machine is set up anew: its disk is empty and nothing runs.
        Wipe = "wipe",
        /// An agent is cut off from all masters, perhaps long enough to be unreachable.
        Isolate = "isolate",
        /// An agent's disk stalls.
        Disk = "disk",
        /// The log stalls: nothing commits.
        Log = "log",
        /// A scheduler dies; another one goes on under its id, perhaps after the failover timeout or not at
        /// all. Or it stops for good and tears its framework down.
        Away = "away",
        /// Operators tear a framework down: one or two of them, by way of leaders that may be deposed.
        Teardown = "teardown",
        /// Operators mark an agent gone, likewise. It is set up anew when it hears of it.
        Gone = "gone",
        /// Operators take an agent out of use, drain it or take it back, likewise.
        Duty = "duty",
        /// Operators reserve room of an agent for a role, or take a reservation back, likewise.
        Carve = "carve",
        /// Operators set or remove a role's quota, likewise.
        Quota = "quota",
        /// A client gets a frame of a deposed leader, of an older session or of a stream it gave up.
        Stale = "stale",
        /// A client gets a frame of its present session again.
        Again = "again",
        /// The leader gets a call of an older session or of a stream that is over.
        Late = "late",
        /// The leader gets a call of a present session again.
        Twice = "twice",
    }
}

/// When a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// At this virtual time, in ms.
    At(u64),
    /// At a step, the so-many-th of its kind.
    Step(Step, u64),
}

/// One thing that goes wrong. `5120/elect.3` and `released.4/crash.9` are faults as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// When.
    pub when: When,
    /// What.
    pub what: What,
    /// Decides all that is left open: who, how long, how much is lost.
    pub pick: u64,
}

impl Fault {
    /// The fault's own dice.
    pub(crate) fn dice(&self) -> Dice {
        Dice::of(self.pick, self.what.name(), 0)
    }
}

impl Step {
    /// What can strike whoever makes the step; the rest would be as well at any other time.
    pub fn whats(self) -> &'static [What] {
        match self {
            Self::Checkpoint
            | Self::Synced
            | Self::Started
            | Self::Released
            | Self::Ended
            | Self::Signalled
            | Self::Removed => &[What::Crash],
            Self::Said => &[What::Crash, What::Cut],
            Self::Proposed | Self::Appended | Self::Committed | Self::Applied | Self::Granted => {
                &[What::Elect]
            }
            Self::Answered => &[What::Elect, What::Cut],
            Self::Called | Self::Told => &[What::Away, What::Cut],
        }
    }
}

/// How often each fault is drawn, among a hundred or so.
const SHARES: &[(What, u64)] = &[
    (What::Elect, 12),
    (What::Cut, 14),
    (What::Stick, 8),
    (What::Lag, 8),
    (What::Crash, 14),
    (What::Wipe, 2),
    (What::Isolate, 5),
    (What::Disk, 5),
    (What::Log, 3),
    (What::Away, 4),
    (What::Teardown, 2),
    (What::Gone, 2),
    (What::Duty, 4),
    (What::Carve, 5),
    (What::Quota, 3),
    (What::Stale, 10),
    (What::Again, 8),
    (What::Late, 8),
    (What::Twice, 8),
];

/// Draws the faults of a run of `ms`, one in each `every_ms` on average.
pub(crate) fn draw(dice: &mut Dice, ms: u64, every_ms: u64) -> Vec<Fault> {
    let count = ms / every_ms.max(1);
    let mut faults: Vec<Fault> = (0..count).map(|_| draw_one(dice, ms)).collect();
    faults.sort_unstable();
    faults.dedup_by_key(|fault| fault.when);
    faults
}

fn draw_one(dice: &mut Dice, ms: u64) -> Fault {
    let pick = dice.between(0, 1_000);
    if dice.percent(40) {
        let step = dice.one_of(Step::ALL).unwrap_or(Step::Said);
        let what = dice.one_of(step.whats()).unwrap_or(What::Crash);
        // Early steps are reached by most runs, and what is struck early has time to come back.
        let most = 1 + dice.between(0, 200);
        return Fault { when: When::Step(step, dice.between(1, most + 1)), what, pick };
    }
    let mut left = dice.between(0, SHARES.iter().map(|(_, share)| share).sum());
    let what = SHARES.iter().find(|(_, share)| {
        let is_it = left < *share;
        left = left.saturating_sub(*share);
        is_it
    });
    let what = what.map_or(What::Cut, |(what, _)| *what);
    Fault { when: When::At(dice.between(100, ms.max(101))), what, pick }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.when {
            When::At(ms) => write!(f, "{ms}")?,
            When::Step(step, n) => write!(f, "{}.{n}", step.name())?,
        }
        write!(f, "/{}.{}", self.what.name(), self.pick)
    }
}

impl FromStr for Fault {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a fault: write TIME/WHAT.N or STEP.N/WHAT.N");
        let number = |text: &str| text.parse::<u64>().map_err(|_| bad());
        let (when, what) = text.split_once('/').ok_or_else(bad)?;
        let (what, pick) = what.split_once('.').ok_or_else(bad)?;
        let when = match when.split_once('.') {
            None => When::At(number(when)?),
            Some((step, n)) => When::Step(step.parse()?, number(n)?),
        };
        Ok(Self { when, what: what.parse()?, pick: number(pick)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_round_trip_as_text() {
        let faults = draw(&mut Dice::of(1, "test", 0), 100_000, 100);
        assert!(faults.len() > 500);
        for fault in faults {
            assert_eq!(fault.to_string().parse(), Ok(fault));
        }
        for bad in ["", "5", "5/elect", "5/none.1", "none.1/cut.1", "x/cut.1", "5/cut.x"] {
            assert!(bad.parse::<Fault>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_step_and_every_fault_is_drawn() {
        let faults = draw(&mut Dice::of(1, "test", 0), 1_000_000, 100);
        for what in What::ALL {
            assert!(faults.iter().any(|fault| fault.what == *what), "{}", what.name());
        }
        for step in Step::ALL {
            let strikes = |fault: &Fault| matches!(fault.when, When::Step(it, _) if it == *step);
            assert!(faults.iter().any(strikes), "{}", step.name());
        }
    }
}
