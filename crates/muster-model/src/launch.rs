//! The numbers that fence and deduplicate.

use crate::KnownTask;
use serde::{Deserialize, Serialize};
use std::fmt;
use xxhash_rust::xxh3::xxh3_64;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A Raft log index.
    Index
);
number!(
    /// A persistent volume of an agent, counted by the registry: one that is made again under an old name is another.
    VolumeNumber
);
number!(
    /// A Raft term.
    Term
);
number!(
    /// A session of a framework or an agent, counted by the registry; the newest wins. 0 is none.
    Session
);

/// What whoever listens to a leader remembers: the highest seen, anything older is dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fence {
    /// 1 at a cluster's creation, raised only by an explicit recovery.
    pub incarnation: u32,
    /// The Raft term of the leader that speaks.
    pub term: Term,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.term)
    }
}

/// Names one launch for ever: where in which log it was committed, and its place in that entry.
/// Orders, checkpoints, status updates and kills carry it; agents deduplicate by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LaunchNumber {
    /// The cluster's incarnation when it was committed.
    pub incarnation: u32,
    /// The log index of its entry.
    pub index: Index,
    /// Its place among the launches of that entry.
    pub n: u32,
}

/// A set of launches, as their number and the sum of their hashes: the same for the same set, and by chance for
/// one in 2^64 of all others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LaunchSum {
    count: u32,
    sum: u64,
}

impl LaunchSum {
    /// With this number of launches and sum of hashes.
    pub fn new(count: u32, sum: u64) -> Self {
        Self { count, sum }
    }

    /// The launches of tasks of which no more is to be said than that they live. None if there is more to say of any.
    pub fn of_living<'a>(tasks: impl IntoIterator<Item = &'a KnownTask>) -> Option<Self> {
        let mut all = Self::default();
        for task in tasks {
            if !task.alive || !task.updates.is_empty() {
                return None;
            }
            all.add(task.launch);
        }
        Some(all)
    }

    /// How many launches there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The sum of their hashes: XXH3 (64 bits, no seed) of index, incarnation and n, little-endian, one after the other.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Another one.
    pub fn add(&mut self, launch: LaunchNumber) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(hash(launch));
    }

    /// One that was added.
    pub fn remove(&mut self, launch: LaunchNumber) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(hash(launch));
    }
}

fn hash(launch: LaunchNumber) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&launch.index.0.to_le_bytes());
    bytes[8..12].copy_from_slice(&launch.incarnation.to_le_bytes());
    bytes[12..].copy_from_slice(&launch.n.to_le_bytes());
    xxh3_64(&bytes)
}

impl fmt::Display for LaunchNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.incarnation, self.index, self.n)
    }
}

impl std::str::FromStr for LaunchNumber {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a launch number (incarnation.index.n)");
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or_else(bad);
        let number = Self {
            incarnation: next()?.parse().map_err(|_| bad())?,
            index: Index(next()?.parse().map_err(|_| bad())?),
            n: next()?.parse().map_err(|_| bad())?,
        };
        if parts.next().is_some() { Err(bad()) } else { Ok(number) }
    }
}

/// Drawn by a client before it has an id, so that its first SUBSCRIBE or hello is known again when it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub [u8; 16]);

/// The number of an operation's own uuid: updates of tasks are counted from 1.
const OPERATION: u32 = 0;

/// Names one status update; 16 bytes on the Mesos wire.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// The uuid of update `seq` of a launch. Needs no chance: launches are unique in their cluster
    /// (index below 2^48) and updates are counted within their launch.
    pub fn of(launch: LaunchNumber, seq: u32) -> Self {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&(launch.incarnation as u16).to_be_bytes());
        bytes[2..8].copy_from_slice(&launch.index.0.to_be_bytes()[2..]);
        bytes[8..12].copy_from_slice(&launch.n.to_be_bytes());
        bytes[12..].copy_from_slice(&seq.to_be_bytes());
        Self(bytes)
    }

    /// The uuid of the status of an operation, which took a launch's number.
    pub fn of_operation(number: LaunchNumber) -> Self {
        Self::of(number, OPERATION)
    }

    /// The launch that a uuid of [`Uuid::of`] names; its incarnation is told up to 65,535.
    pub fn launch(&self) -> LaunchNumber {
        let [a, b, rest @ ..] = self.0;
        let (index, rest) = rest.split_at(6);
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let (n, _) = rest.split_at(4);
        LaunchNumber {
            incarnation: u32::from(u16::from_be_bytes([a, b])),
            index: Index(number(index)),
            n: number(n) as u32,
        }
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launch_numbers_round_trip_as_text() {
        let launch = LaunchNumber { incarnation: 1, index: Index(205), n: 3 };
        assert_eq!(launch.to_string().parse(), Ok(launch));
        assert!("1.2".parse::<LaunchNumber>().is_err());
        assert!("1.2.3.4".parse::<LaunchNumber>().is_err());
    }

    #[test]
    fn uuids_of_different_updates_differ() {
        let a = LaunchNumber { incarnation: 1, index: Index(7), n: 0 };
        let b = LaunchNumber { n: 1, ..a };
        assert_ne!(Uuid::of(a, 1), Uuid::of(a, 2));
        assert_ne!(Uuid::of(a, 1), Uuid::of(b, 1));
        let launch = LaunchNumber { incarnation: 3, index: Index(0x0102_0304_0506), n: 70_000 };
        assert_eq!(Uuid::of(launch, 9).launch(), launch);
    }
}
