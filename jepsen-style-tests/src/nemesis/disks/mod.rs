//! Faults of the masters' disks.

mod power;
mod rest;
mod room;
mod syncs;

pub use power::cut_power;
pub use rest::{damage_disk, lose_disk};
pub use room::{disk_dies, disk_full, disk_read_only};
pub use syncs::{lie_about_syncs, slow_syncs, sync_fails, sync_kills};

use super::{Dice, Fault, PROGRESS_TASKS, PROGRESS_TIME, SLOW_SYNC};
use crate::history::Event;
use crate::run::Field;
use anyhow::{Context, bail};
use muster_testkit::v1::GetRaftStatusResponse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// How long two masters may take to be seen at one index. Each applies a tick a second at least.
const EQUAL_TIME: Duration = Duration::from_secs(30);
/// Faults to deal.
const CARDS: usize = 11;

/// One fault of a disk. Each kind comes once before any comes again.
pub async fn mixed_disks(field: &Field, dice: &mut Dice) -> anyhow::Result<()> {
    let masters = field.cluster.master_names();
    let one = dice.pick_one(&masters)?;
    let minority = dice.count(masters.len().saturating_sub(1) / 2);
    let minority = dice.pick(masters.clone(), minority);
    match dice.deal("disk", CARDS) {
        0 => cut_power(field, dice, &minority).await,
        1 => cut_power(field, dice, &masters).await,
        2 => sync_fails(field, &one).await,
        3 => slow_syncs(field, &one, SLOW_SYNC).await,
        4 => sync_kills(field, &one, dice.deal_sync()).await,
        5 => disk_full(field, &one).await,
        6 => disk_read_only(field, &one).await,
        7 => lie_about_syncs(field, &one).await,
        8 => damage_disk(field, dice, &one).await,
        9 => disk_dies(field, &one).await,
        _ => lose_disk(field, &one).await,
    }
}

/// A fault of the disks of some masters.
struct DiskFault<'a> {
    fault: Fault<'a>,
    names: Vec<String>,
    /// How many errors each master had logged before.
    errors: BTreeMap<String, usize>,
    /// The node id of each before.
    node_ids: Vec<u64>,
}

impl<'a> DiskFault<'a> {
    async fn begins(field: &'a Field, fault: &'static str, names: &[String]) -> anyhow::Result<Self> {
        let (mut errors, mut node_ids) = (BTreeMap::new(), Vec::new());
        for name in field.cluster.master_names() {
            let before = field.cluster.error_lines_of(&name)?.len();
            errors.insert(name, before);
        }
        for name in names {
            node_ids.push(field.cluster.status(name).await?.node_id);
        }
        Ok(Self { fault: Fault::begins(field, fault, names), names: names.to_vec(), errors, node_ids })
    }

    /// Fails unless all have the disk with which they voted before: none was taken for damaged.
    async fn same_disks(&self) -> anyhow::Result<()> {
        for (name, before) in self.names.iter().zip(&self.node_ids) {
            self.fault.field.cluster.votes(name).await?;
            let now = self.fault.field.cluster.status(name).await?.node_id;
            if now != *before {
                bail!("{name} was well, and is a new member: node id {before:x} became {now:x}");
            }
        }
        Ok(())
    }

    /// Whether the only one has another disk now.
    async fn new_disk(&self) -> anyhow::Result<bool> {
        let name = self.names.first().context("a fault of nobody")?;
        Ok(self.node_ids.first() != Some(&self.fault.field.cluster.status(name).await?.node_id))
    }

    /// What one has said of errors since.
    fn said(&self, name: &str) -> anyhow::Result<Vec<String>> {
        let lines = self.fault.field.cluster.error_lines_of(name)?;
        Ok(lines.into_iter().skip(self.errors.get(name).copied().unwrap_or(0)).collect())
    }

    /// What the only one has said of errors since, in one line.
    fn words(&self) -> anyhow::Result<String> {
        Ok(self.said(self.names.first().context("a fault of nobody")?)?.join(" | "))
    }

    /// Writes down what the masters said of errors meanwhile.
    fn ends(self, bit: String) -> anyhow::Result<()> {
        for member in self.errors.keys() {
            for line in self.said(member)? {
                let (fault, member) = (self.fault.name.into(), member.clone());
                self.fault.field.recorder.record("nemesis", Event::Said { fault, member, line });
            }
        }
        self.fault.ends(bit);
        Ok(())
    }
}

fn status<'a>(said: &'a [(String, GetRaftStatusResponse)], name: &str) -> Option<&'a GetRaftStatusResponse> {
    said.iter().find(|(other, _)| other == name).map(|(_, status)| status)
}

/// Waits until launches that are asked for from now on run.
async fn progress(field: &Field, when: &'static str) -> anyhow::Result<()> {
    field.load.begin_epoch();
    field.load.progress(PROGRESS_TASKS, PROGRESS_TIME).await.context(when)
}

/// Waits until a master is seen at the index of another one, and fails unless it holds the same there. The load
/// goes on meanwhile.
async fn equal(field: &Field, name: &str) -> anyhow::Result<()> {
    let until = Instant::now() + EQUAL_TIME;
    loop {
        let said = field.cluster.statuses().await;
        if let Some(own) = status(&said, name) {
            let others = said.iter().filter(|(other, _)| other != name);
            let at_one = others.filter(|(_, other)| other.applied_index == own.applied_index);
            let mut seen = false;
            for (other, status) in at_one {
                seen = true;
                if status.state_hash != own.state_hash {
                    bail!(
                        "{name} and {other} differ at index {}: {:x} and {:x}",
                        own.applied_index,
                        own.state_hash,
                        status.state_hash
                    );
                }
            }
            if seen {
                return Ok(());
            }
        }
        if Instant::now() >= until {
            bail!("{name} is never seen at the index of another master");
        }
        tokio::time::sleep(LOOK).await;
    }
}
