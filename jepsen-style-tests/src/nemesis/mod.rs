//! What goes wrong, on purpose. Each fault records its begin, makes trouble, waits for service and progress,
//! undoes the trouble, and records its end with what shows that it bit.

mod agents;
mod away;
mod behind;
mod composed;
mod deposed;
mod disks;
pub(crate) mod frameworks;
mod hosts;
mod leadership;
mod limits;
mod masters;
mod members;
mod mixed;
mod network;
mod partitions;
mod process;
mod weather;

pub use agents::{kill_agents, pause_agents};
pub use away::{AGENT_TIMEOUT, mark_gone, stay_away};
pub use behind::{BEHIND, fall_behind};
pub use composed::composed;
pub use disks::{
    cut_power, damage_disk, disk_dies, disk_full, disk_read_only, lie_about_syncs, lose_disk, mixed_disks,
    slow_syncs, sync_fails, sync_kills,
};
pub use frameworks::{block_framework, duplicate_framework, expire_framework, fail_over_framework};
pub use hosts::{host_faults, lose_packets, pull_cable, storms, throttle};
pub use leadership::transfer_leadership;
pub use limits::{exhaust_files, little_memory, skew_clocks, starve};
pub use masters::{hang_leader, kill_leader, kill_masters, pause_leader, pause_master};
pub use members::{restart_all, restart_member};
pub use mixed::mixed;
pub use network::{Side, cut_leader};
pub use partitions::{SHAPES, Shape, partition, partitions};
pub use weather::{delay_leader, delay_leader_a_little, reset_connections, strike_leader};

use crate::history::Event;
use crate::run::Field;
use muster_testkit::TestCluster;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::time::Duration;

/// A member ends without a warning.
pub const KILL: &str = "kill";
/// A member stands still, and goes on.
pub const PAUSE: &str = "pause";
/// A member is asked to end, and is started again.
pub const RESTART: &str = "restart";

/// The network of a member is cut, and mended.
pub const CUT: &str = "cut";
/// Connections of a member are broken.
pub const RESET: &str = "reset";
/// What a member sends and is sent is late.
pub const DELAY: &str = "delay";
/// Packets of a host are lost.
pub const LOSS: &str = "loss";
/// Packets are late, overtake each other and are lost.
pub const WEATHER: &str = "weather";
/// A host's cable is pulled.
pub const CABLE: &str = "cable";
/// A host is sent less than it is meant to be.
pub const THROTTLE: &str = "throttle";
/// Wall clocks are wrong.
pub const CLOCKS: &str = "clocks";
/// A member can open no more files.
pub const FILES: &str = "files";
/// A member gets hardly any processor time.
pub const STARVE: &str = "starve";
/// A member takes more memory than it may, and the kernel kills it.
pub const MEMORY: &str = "memory";
/// Leadership is handed on.
pub const TRANSFER: &str = "transfer";
/// A framework dies, and another process goes on with it.
pub const FAILOVER: &str = "failover";
/// Another scheduler subscribes as a framework that is there.
pub const DUPLICATE: &str = "duplicate";
/// A framework does not read what it is told.
pub const BLOCK: &str = "block";
/// A framework is gone for longer than it may be.
pub const EXPIRE: &str = "expire";
/// An agent is away for longer than it may be.
pub const AWAY: &str = "away";
/// An operator says that an agent never comes back.
pub const GONE: &str = "gone";

/// The power of masters is cut: what they did not sync is gone.
pub const POWER_CUT: &str = "power-cut";
/// The syncs of a master fail.
pub const SYNC_FAILS: &str = "sync-fails";
/// They take long.
pub const SYNC_SLOW: &str = "sync-slow";
/// A master is killed as it begins one, and its power is cut.
pub const SYNC_KILLS: &str = "sync-kills";
/// They do nothing and say that they are done; then the power is cut.
pub const SYNC_LIES: &str = "sync-lies";
/// The disk of a master has no room.
pub const DISK_FULL: &str = "disk-full";
/// It takes no writes.
pub const READ_ONLY: &str = "read-only";
/// It has less room behind it than it says: what is written gets lost on its way.
pub const DISK_DIES: &str = "disk-dies";
/// What a stopped master has is damaged.
pub const DAMAGE: &str = "damage";
/// It is gone.
pub const DISK_LOST: &str = "disk-lost";

/// Launches that count as progress after a fault.
const PROGRESS_TASKS: u64 = 15;
/// How long service may take to come back. An election takes less than a second; the machine may be busy.
const PROGRESS_TIME: Duration = Duration::from_secs(30);

/// How much later slow syncs are.
pub const SLOW_SYNC: Duration = Duration::from_millis(50);
/// The latest of a master's next syncs that may be its last: as many as the rounds of a run that has them all.
const SYNCS: usize = 24;

/// The most that a framework is gone that comes back.
const GONE_MAX: Duration = Duration::from_secs(3);

/// What chance decides in a run: the same for the same seed.
#[derive(Debug)]
pub struct Dice {
    rng: SmallRng,
    decks: BTreeMap<&'static str, Vec<usize>>,
}

impl Dice {
    /// New ones.
    pub fn new(seed: u64) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed), decks: BTreeMap::new() }
    }

    /// A number from 1 to `most`.
    pub fn count(&mut self, most: usize) -> usize {
        self.rng.random_range(1..=most.max(1))
    }

    /// A time between two.
    pub fn time(&mut self, least: Duration, most: Duration) -> Duration {
        self.rng.random_range(least..=most)
    }

    /// So many of these.
    pub fn pick(&mut self, mut from: Vec<String>, count: usize) -> Vec<String> {
        let mut picked = Vec::new();
        while picked.len() < count && !from.is_empty() {
            picked.push(from.swap_remove(self.rng.random_range(0..from.len())));
        }
        picked
    }

    /// One of these.
    pub fn pick_one(&mut self, from: &[String]) -> anyhow::Result<String> {
        self.pick(from.to_vec(), 1).pop().ok_or_else(|| anyhow::anyhow!("there is nobody to pick"))
    }

    /// A seed for other dice.
    pub fn seed(&mut self) -> u64 {
        self.rng.random()
    }

    /// A card of this deck, which has so many. Each comes once before any comes again.
    pub fn deal(&mut self, deck: &'static str, cards: usize) -> usize {
        let left = self.decks.entry(deck).or_default();
        if left.is_empty() {
            left.extend(0..cards.max(1));
        }
        left.swap_remove(self.rng.random_range(0..left.len()))
    }

    /// One of the ways in which half of a leader's network can be cut. Each comes once before any comes again.
    pub fn deal_half(&mut self) -> Side {
        [Side::Hearing, Side::Speaking][self.deal("half", 2)]
    }

    /// Which of a master's next syncs is its last, from 1 on. Each comes once before any comes again.
    pub fn deal_sync(&mut self) -> usize {
        1 + self.deal("sync", SYNCS)
    }
}

/// All of these but one.
fn but(names: &[String], one: &str) -> Vec<String> {
    names.iter().filter(|name| *name != one).cloned().collect()
}

/// A fault that has begun.
struct Fault<'a> {
    field: &'a Field,
    name: &'static str,
    target: String,
}

impl<'a> Fault<'a> {
    fn begins(field: &'a Field, name: &'static str, targets: &[String]) -> Self {
        let fault = Self { field, name, target: targets.join(",") };
        fault.record(true, None);
        fault
    }

    fn ends(self, bit: String) {
        self.record(false, Some(bit));
    }

    fn record(&self, begins: bool, bit: Option<String>) {
        let (fault, target) = (self.name.into(), self.target.clone());
        self.field.recorder.record("nemesis", Event::Nemesis { fault, target, begins, bit });
    }
}

/// Members that are down. They are started again when this is dropped, which is for a fault that broke off.
struct Down<'a> {
    cluster: &'a TestCluster,
    names: Vec<String>,
}

impl<'a> Down<'a> {
    /// Will start these again; whoever makes it ends them.
    fn of(cluster: &'a TestCluster, names: &[String]) -> Self {
        Self { cluster, names: names.to_vec() }
    }

    fn kill(cluster: &'a TestCluster, names: &[String]) -> anyhow::Result<Self> {
        let down = Self::of(cluster, names);
        names.iter().try_for_each(|name| cluster.kill(name))?;
        Ok(down)
    }

    /// They are not down any more.
    fn are_up(mut self) {
        self.names.clear();
    }

    fn restart(mut self) -> anyhow::Result<()> {
        while let Some(name) = self.names.pop() {
            self.cluster.restart(&name)?;
        }
        Ok(())
    }
}

impl Drop for Down<'_> {
    fn drop(&mut self) {
        for name in &self.names {
            // The run has failed already; whoever ended by itself is buried first.
            let _ = self.cluster.kill(name).and_then(|()| self.cluster.restart(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_throws_the_same_dice() {
        let names: Vec<String> = ["m1", "m2", "m3", "m4", "m5"].map(Into::into).into();
        let throw = |seed| {
            let mut dice = Dice::new(seed);
            let cards: Vec<_> = (0..20).map(|_| dice.deal("a", 9)).collect();
            (cards, dice.pick(names.clone(), 3), dice.count(9), dice.time(Duration::ZERO, PROGRESS_TIME))
        };
        assert_eq!(throw(7), throw(7));
        assert_ne!(throw(7), throw(8));
    }

    #[test]
    fn each_card_comes_once_before_any_comes_again() {
        let mut dice = Dice::new(1);
        for _ in 0..3 {
            let (mut cards, mut syncs) = (Vec::new(), Vec::new());
            for _ in 0..SYNCS {
                cards.push(dice.deal("a", SYNCS));
                // Another deck, in the midst of that.
                syncs.push(dice.deal_sync());
            }
            cards.sort_unstable();
            syncs.sort_unstable();
            assert_eq!(cards, (0..SYNCS).collect::<Vec<_>>());
            assert_eq!(syncs, (1..=SYNCS).collect::<Vec<_>>());
        }
        assert_eq!(dice.pick(vec!["m1".into()], 3), ["m1"]);
    }
}
