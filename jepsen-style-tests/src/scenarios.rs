//! The scenarios there are.

use crate::needs::Need;
use crate::nemesis::{self, Dice, SLOW_SYNC, Side};
use crate::run::Field;
use anyhow::bail;
use std::pin::Pin;
use std::time::Duration;

/// One round of faults, while it is done.
pub type Round<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

/// What goes wrong in a run, and how often.
#[derive(Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Lines added to the masters' configuration.
    pub master_config: &'static str,
    /// What it needs of the machine and of the cluster.
    pub needs: &'static [Need],
    /// Rounds in a run that is not given a time.
    pub rounds: u32,
    /// Does one round.
    pub round: for<'a> fn(&'a Field, &'a mut Dice) -> Round<'a>,
}

/// Agents that are silent for two seconds count as disconnected, so that a run need not wait long for it.
const QUICK_PINGS: &str = "[session]\nping-ms = 500\nmissed-pings-max = 4\n";
/// Whoever a leader change cut off is not waited for long.
const QUICK_GRACE: &str = "[session]\nreconnect-grace-ms = 3000\n";
/// Both.
const QUICK: &str = "[session]\nping-ms = 500\nmissed-pings-max = 4\nreconnect-grace-ms = 3000\n";
/// All that is short, and snapshots besides.
const COMPOSED: &str = "[raft]\nsnapshot-entries = 50\n\
     [session]\nping-ms = 500\nmissed-pings-max = 4\nreconnect-grace-ms = 3000\n";
/// Agents that are silent for two seconds count as disconnected, and may stay away for three more.
const SHORT_ABSENCE: &str = "[session]\nping-ms = 500\nmissed-pings-max = 4\nreconnect-grace-ms = 2000\n\
     agent-timeout-ms = 3000\n";
/// Longer than an election takes.
const PAUSE: Duration = Duration::from_secs(2);
/// Longer than quick pings may be missed.
const AGENT_PAUSE: Duration = Duration::from_secs(3);

/// Longer than an election takes, and than clients are left without a leader.
const CUT: Duration = Duration::from_secs(3);
/// Several times what a launch takes then.
const DELAYED: Duration = Duration::from_secs(4);

/// Any master carries the streams of the Mesos API, across changes of leader.
const FORWARD: &str = "[api]\nfollower-streams = \"forward\"\n";

/// What is on a disk is more than a log: snapshots are taken every few seconds.
const QUICK_SNAPSHOTS: &str = "[raft]\nsnapshot-entries = 50\n";
/// Snapshots are taken often, and no log is kept behind them.
const NO_TAIL: &str = "[raft]\nsnapshot-entries = 60\nlog-tail-mib = 0\n";

impl Scenario {
    /// Why it cannot run on this machine; nothing if it can.
    pub fn missing(&self) -> Option<String> {
        let missing: Vec<_> = self.needs.iter().filter_map(|need| need.missing()).collect();
        (!missing.is_empty()).then(|| missing.join("; "))
    }
}

/// All of them.
pub static ALL: &[Scenario] = &[
    Scenario {
        name: "leader-kills",
        about: "the leader is killed with SIGKILL, again and again",
        master_config: "",
        needs: &[],
        rounds: 10,
        round: |field, _| Box::pin(nemesis::kill_leader(field)),
    },
    Scenario {
        name: "leader-pauses",
        about: "the leader stands still for 2 s, longer than an election takes, and goes on",
        master_config: "",
        needs: &[],
        rounds: 3,
        round: |field, _| Box::pin(nemesis::pause_leader(field, PAUSE)),
    },
    Scenario {
        name: "leader-hangs",
        about: "the leader stands still until launches go on under another, then it goes on",
        master_config: "",
        needs: &[],
        rounds: 2,
        round: |field, _| Box::pin(nemesis::hang_leader(field)),
    },
    Scenario {
        name: "master-kills",
        about: "some masters, but a minority, are killed at once, whoever leads",
        master_config: "",
        needs: &[],
        rounds: 5,
        round: |field, dice| {
            Box::pin(async move {
                let names = field.cluster.master_names();
                let count = dice.count(names.len().saturating_sub(1) / 2);
                nemesis::kill_masters(field, &dice.pick(names, count)).await
            })
        },
    },
    Scenario {
        name: "all-masters-killed",
        about: "all masters are killed at once and started again",
        master_config: "",
        needs: &[],
        rounds: 3,
        round: |field, _| {
            Box::pin(async move { nemesis::kill_masters(field, &field.cluster.master_names()).await })
        },
    },
    Scenario {
        name: "master-pauses",
        about: "a master, leader or not, stands still for 2 s and goes on",
        master_config: "",
        needs: &[],
        rounds: 4,
        round: |field, dice| {
            Box::pin(async move {
                let name = dice.pick_one(&field.cluster.master_names())?;
                nemesis::pause_master(field, &name, PAUSE).await
            })
        },
    },
    Scenario {
        name: "http-forward-kills",
        about: "masters carry the event streams of the Mesos API, and one of them, leader or not, is killed",
        master_config: FORWARD,
        needs: &[],
        rounds: 6,
        round: |field, dice| {
            Box::pin(async move {
                let name = dice.pick_one(&field.cluster.master_names())?;
                nemesis::kill_masters(field, &[name]).await
            })
        },
    },
    Scenario {
        name: "http-forward-pauses",
        about: "masters carry the event streams of the Mesos API, and one of them, leader or not, stands still for 2 s",
        master_config: FORWARD,
        needs: &[],
        rounds: 4,
        round: |field, dice| {
            Box::pin(async move {
                let name = dice.pick_one(&field.cluster.master_names())?;
                nemesis::pause_master(field, &name, PAUSE).await
            })
        },
    },
    Scenario {
        name: "snapshots",
        about: "a follower is dead until only a snapshot brings it back",
        master_config: NO_TAIL,
        needs: &[],
        rounds: 3,
        round: |field, dice| {
            Box::pin(async move {
                let leader = field.cluster.leader().await?;
                let mut followers = field.cluster.master_names();
                followers.retain(|name| *name != leader);
                nemesis::fall_behind(field, &dice.pick_one(&followers)?).await
            })
        },
    },
    Scenario {
        name: "rolling-restart",
        about: "every master and every agent is asked to end and started again, one after the other",
        master_config: QUICK_PINGS,
        needs: &[],
        rounds: 1,
        round: |field, _| Box::pin(nemesis::restart_all(field)),
    },
    Scenario {
        name: "agent-kills",
        about: "some agents, or all, are killed with SIGKILL; their tasks go on and are found again",
        master_config: QUICK_PINGS,
        needs: &[],
        rounds: 4,
        round: |field, dice| {
            Box::pin(async move {
                let names = field.cluster.agent_names();
                let count = dice.count(names.len());
                let dead = dice.time(Duration::ZERO, AGENT_PAUSE);
                nemesis::kill_agents(field, &dice.pick(names, count), dead).await
            })
        },
    },
    Scenario {
        name: "agent-pauses",
        about: "some agents, or all, stand still for 3 s, longer than they may be silent, and go on",
        master_config: QUICK_PINGS,
        needs: &[],
        rounds: 3,
        round: |field, dice| {
            Box::pin(async move {
                let names = field.cluster.agent_names();
                let count = dice.count(names.len());
                nemesis::pause_agents(field, &dice.pick(names, count), AGENT_PAUSE).await
            })
        },
    },
    Scenario {
        name: "agent-timeouts",
        about: "some agents are dead, stand still or are cut off for longer than they may be away, and come back late",
        master_config: SHORT_ABSENCE,
        needs: &[Need::Proxies],
        rounds: 6,
        round: |field, dice| Box::pin(nemesis::stay_away(field, dice)),
    },
    Scenario {
        name: "agent-gone",
        about: "an operator says that an agent never comes back: one that lives, is dead, or was away for too long",
        master_config: SHORT_ABSENCE,
        needs: &[],
        rounds: 3,
        round: |field, dice| Box::pin(nemesis::mark_gone(field, dice)),
    },
    Scenario {
        name: "leader-isolated",
        about: "the leader and everybody else hear nothing of each other for 3 s",
        master_config: "",
        needs: &[Need::Proxies],
        rounds: 3,
        round: |field, _| Box::pin(nemesis::cut_leader(field, Side::Both, CUT)),
    },
    Scenario {
        name: "leader-half-cut",
        about: "the leader is heard and hears nobody, or hears all and is not heard, for 3 s",
        master_config: "",
        needs: &[Need::Proxies],
        rounds: 4,
        round: |field, dice| {
            let side = dice.deal_half();
            Box::pin(nemesis::cut_leader(field, side, CUT))
        },
    },
    Scenario {
        name: "power-cut-one",
        about: "the power of one master is cut: what it did not sync is gone",
        master_config: QUICK_SNAPSHOTS,
        needs: &[Need::Disks],
        rounds: 5,
        round: |field, dice| {
            Box::pin(async move {
                let name = dice.pick_one(&field.cluster.master_names())?;
                nemesis::cut_power(field, dice, &[name]).await
            })
        },
    },
    Scenario {
        name: "power-cut-minority",
        about: "the power of some masters, but a minority, is cut at once",
        master_config: QUICK_SNAPSHOTS,
        needs: &[Need::Disks],
        rounds: 5,
        round: |field, dice| {
            Box::pin(async move {
                let names = field.cluster.master_names();
                let count = dice.count(names.len().saturating_sub(1) / 2);
                let names = dice.pick(names, count);
                nemesis::cut_power(field, dice, &names).await
            })
        },
    },
    Scenario {
        name: "power-cut-all",
        about: "the power of all masters is cut at once",
        master_config: QUICK_SNAPSHOTS,
        needs: &[Need::Disks],
        rounds: 5,
        round: |field, dice| {
            Box::pin(async move {
                let names = field.cluster.master_names();
                nemesis::cut_power(field, dice, &names).await
            })
        },
    },
    Scenario {
        name: "disk-sync-fails",
        about: "a master's disk does not sync (EIO): it ends, and comes back when the disk is well",
        master_config: QUICK_SNAPSHOTS,
        needs: &[Need::Tracing],
        rounds: 3,
        round: |field, dice| {
            Box::pin(async move {
                let name = dice.pick_one(&field.cluster.master_names())?;
                nemesis::sync_fails(field, &name).await
            })
        },
    },
    Scenario {
        name: "disk-sync-slow",
        about: "each sync takes 50 ms more, a follower's first, then the leader's",
        master_config: QUICK_SNAPSHOTS,
        needs: &[Need::Tracing],
        rounds: 2,
        round: |field, dice| {
            Box::pin(async move {
                let leader = field.cluster.leader().await?;
                let mut followers = field.cluster.master_names();
                followers.retain(|name| *name != leader);
                nemesis::slow_syncs(field, &dice.pick_one(&followers)?, SLOW_SYNC).await?;
                let leader = field.cluster.leader().await?;
                nemesis::slow_syncs(field, &leader, SLOW_SYNC).await
            })
        },
    },
    Scenario {
        name: "disk-sync-kills",
        about: "a master is killed as it begins the 1st to 24th of its next syncs, and its power is cut",
        master_config: QUICK_SNAPSHOTS,
        needs: &[Need::Disks, Need::Tracing],
        rounds: 24,
        round: |field, dice| {
            Box::pin(async move {
                let name = dice.pick_one(&field.cluster.master_names())?;
                nemesis::sync_kills(field, &name, dice.deal_sync()).await
            })
        },
    },
    Scenario {
        name: "disk-full",
        about: "a master has no room left on its disk",
        master_config: QUICK_SNAPSHOTS,
        needs: &[Need::Disks],
        rounds: 3,
        round: |field, dice| {
            Box::pin(async move {
                let name = dice.pick_one(&field.cluster.master_names())?;
                nemesis::disk_full(field, &name).await
            })
        },
    },
    Scenario {
        name: "disk-read-only",
        about: "the disk of a master takes no writes any more",
        master_config: QUICK_SNAPSHOTS,
        needs: &[Need::Disks],
        rounds: 3,
        round: |field, dice| {
            Box::pin(async move {
                let name = dice.pick_one(&field.cluster.master_names())?;
                nemesis::disk_read_only(field, &name).await
            })
        },
    },
    Scenario {
        name: "disk-dies",
        about: "a master's disk has less room than it says: what is written gets lost on its way, and a sync says so once",
        master_config: QUICK_SNAPSHOTS,
        needs: &[Need::Disks],
        rounds: 3,
        round: |field, dice| {
            Box::pin(async move {
                let name = dice.pick_one(&field.cluster.master_names())?;
                nemesis::disk_dies(field, &name).await
            })
        },
    },
    Scenario {
        name: "disk-lies",
        about: "the syncs of one master lie for a while, then its power is cut",
        master_config: QUICK_SNAPSHOTS,
        needs: &[Need::Disks, Need::Tracing],
        rounds: 3,
        round: |field, dice| {
            Box::pin(async move {
                let name = dice.pick_one(&field.cluster.master_names())?;
                nemesis::lie_about_syncs(field, &name).await
            })
        },
    },
    Scenario {
        name: "disk-damaged",
        about: "a bit is flipped, or a file cut off, in what a stopped master has",
        master_config: QUICK_SNAPSHOTS,
        needs: &[],
        rounds: 10,
        round: |field, dice| {
            Box::pin(async move {
                let name = dice.pick_one(&field.cluster.master_names())?;
                nemesis::damage_disk(field, dice, &name).await
            })
        },
    },
    Scenario {
        name: "disk-lost",
        about: "a master loses all that it had; it is let back in as a new member",
        master_config: QUICK_SNAPSHOTS,
        needs: &[],
        rounds: 3,
        round: |field, dice| {
            Box::pin(async move {
                let name = dice.pick_one(&field.cluster.master_names())?;
                nemesis::lose_disk(field, &name).await
            })
        },
    },
    Scenario {
        name: "mixed-disks",
        about: "all of these faults of disks, in an order that the seed decides; each once before any comes again",
        master_config: QUICK_SNAPSHOTS,
        needs: &[Need::Disks, Need::Tracing],
        rounds: 11,
        round: |field, dice| Box::pin(nemesis::mixed_disks(field, dice)),
    },
    Scenario {
        name: "partitions",
        about: "the network is cut in seven shapes, leader, agents and frameworks on either side; each once before any comes again",
        master_config: QUICK_PINGS,
        needs: &[Need::Proxies],
        rounds: 7,
        round: |field, dice| Box::pin(nemesis::partitions(field, dice)),
    },
    Scenario {
        name: "resets",
        about: "all connections of a master, often the leader, are broken again and again under load",
        master_config: QUICK_PINGS,
        needs: &[Need::Proxies],
        rounds: 4,
        round: |field, dice| Box::pin(nemesis::reset_connections(field, dice)),
    },
    Scenario {
        name: "delays",
        about: "all that the leader sends and is sent is late, by chance more or less, for 4 s",
        master_config: "",
        needs: &[Need::Proxies],
        rounds: 4,
        round: |field, dice| Box::pin(nemesis::delay_leader(field, dice, DELAYED)),
    },
    Scenario {
        name: "host-partitions",
        about: "as partitions, but between hosts of their own, by dropped packets (root)",
        master_config: QUICK_PINGS,
        needs: &[Need::Hosts],
        rounds: 7,
        round: |field, dice| Box::pin(nemesis::partitions(field, dice)),
    },
    Scenario {
        name: "host-half-cuts",
        about: "as leader-half-cut, but between hosts: TCP carries nothing either way for long then (root)",
        master_config: "",
        needs: &[Need::Hosts],
        rounds: 4,
        round: |field, dice| {
            let side = dice.deal_half();
            Box::pin(nemesis::cut_leader(field, side, CUT))
        },
    },
    Scenario {
        name: "host-resets",
        about: "as resets, but the kernel ends the connections between hosts (root)",
        master_config: QUICK_PINGS,
        needs: &[Need::Hosts],
        rounds: 4,
        round: |field, dice| Box::pin(nemesis::reset_connections(field, dice)),
    },
    Scenario {
        name: "host-faults",
        about: "the leader's host loses packets, its cable is pulled, its line is too thin; each once before any comes again (root)",
        master_config: QUICK_PINGS,
        needs: &[Need::Hosts],
        rounds: 6,
        round: |field, dice| Box::pin(nemesis::host_faults(field, dice, DELAYED)),
    },
    Scenario {
        name: "host-weather",
        about: "packets into one host or two are late, overtake each other and get lost for 4 s (root)",
        master_config: QUICK_PINGS,
        needs: &[Need::Hosts, Need::Weather],
        rounds: 4,
        round: |field, dice| Box::pin(nemesis::storms(field, dice, DELAYED)),
    },
    Scenario {
        name: "clocks",
        about: "all wall clocks jump about by up to two hours; a framework dies meanwhile and comes back",
        master_config: "",
        needs: &[Need::Clocks],
        rounds: 3,
        round: |field, dice| Box::pin(nemesis::skew_clocks(field, dice)),
    },
    Scenario {
        name: "few-files",
        about: "clients dial a leader that may open few files more for 4 s: it keeps those for itself",
        master_config: QUICK_PINGS,
        needs: &[],
        rounds: 3,
        round: |field, _| Box::pin(nemesis::exhaust_files(field, DELAYED)),
    },
    Scenario {
        name: "starved-leader",
        about: "the leader has a twentieth of a processor for 4 s (root)",
        master_config: QUICK_PINGS,
        needs: &[Need::Cgroups],
        rounds: 3,
        round: |field, _| Box::pin(nemesis::starve(field, DELAYED)),
    },
    Scenario {
        name: "little-memory",
        about: "a master takes more memory than it may, at work or as it begins, and the kernel kills it (root)",
        master_config: QUICK_PINGS,
        needs: &[Need::Cgroups],
        rounds: 3,
        round: |field, dice| Box::pin(nemesis::little_memory(field, dice)),
    },
    Scenario {
        name: "transfers",
        about: "leadership is handed on five times in a row under load",
        master_config: "",
        needs: &[],
        rounds: 3,
        round: |field, dice| Box::pin(nemesis::transfer_leadership(field, dice)),
    },
    Scenario {
        name: "framework-failovers",
        about: "a framework's process dies, at times the leader with it, and another goes on under its id",
        master_config: "",
        needs: &[],
        rounds: 6,
        round: |field, dice| {
            let leader_dies = dice.count(3) == 1;
            Box::pin(nemesis::fail_over_framework(field, dice, leader_dies))
        },
    },
    Scenario {
        name: "framework-duplicates",
        about: "a second scheduler subscribes as a framework that is there; the first is told, and ends",
        master_config: "",
        needs: &[],
        rounds: 5,
        round: |field, dice| Box::pin(nemesis::duplicate_framework(field, dice)),
    },
    Scenario {
        name: "framework-blocks",
        about: "a framework asks for much and reads none of it; the others go on",
        master_config: "",
        needs: &[],
        rounds: 3,
        round: |field, dice| Box::pin(nemesis::block_framework(field, dice)),
    },
    Scenario {
        name: "framework-expiry",
        about: "a framework is gone for longer than it may be, every other time the leader too: it is torn down once",
        master_config: QUICK_GRACE,
        needs: &[],
        rounds: 4,
        round: |field, dice| {
            let leader_dies = dice.deal("leader", 2) == 1;
            Box::pin(nemesis::expire_framework(field, dice, leader_dies))
        },
    },
    Scenario {
        name: "mixed",
        about: "all of these faults, in an order that the seed decides; each once before any comes again",
        master_config: QUICK,
        needs: &[Need::Proxies],
        rounds: 18,
        round: |field, dice| Box::pin(nemesis::mixed(field, dice)),
    },
    Scenario {
        name: "composed",
        about: "two faults at once: one of a master, and one of agents, frameworks, the network, clocks, processors (root)",
        master_config: COMPOSED,
        needs: &[Need::Proxies, Need::Disks, Need::Tracing, Need::Clocks, Need::Cgroups],
        rounds: 8,
        round: |field, dice| Box::pin(nemesis::composed(field, dice)),
    },
];

/// The one of this name.
pub fn named(name: &str) -> anyhow::Result<&'static Scenario> {
    let Some(found) = ALL.iter().find(|scenario| scenario.name == name) else {
        let known: Vec<_> = ALL.iter().map(|scenario| scenario.name).collect();
        bail!("there is no scenario {name:?}; there are {}", known.join(", "));
    };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_may_be_away_for_as_long_as_the_nemesis_has_it() {
        let set = format!("agent-timeout-ms = {}\n", nemesis::AGENT_TIMEOUT.as_millis());
        assert!(SHORT_ABSENCE.contains(&set), "{SHORT_ABSENCE}");
    }

    #[test]
    fn scenarios_are_found_by_their_names_and_others_are_told_of() {
        for scenario in ALL {
            assert!(
                std::ptr::eq(named(scenario.name).unwrap(), scenario),
                "{} is there twice",
                scenario.name
            );
        }
        let error = named("leader-kill").unwrap_err().to_string();
        assert!(
            error.contains("\"leader-kill\"") && error.contains("leader-kills, leader-pauses"),
            "{error}"
        );
    }
}
