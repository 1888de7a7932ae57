//! What the test does to the masters' disks.

use super::TestCluster;
use super::history::Lasting;
use crate::disk::damage::{self, Damage, Damaged};
use crate::disk::fault::{FullDisk, ReadOnlyDisk};
use crate::disk::sync::{BadSyncs, SyncFault};
use crate::disk::thin::ThinDisk;
use crate::disk::{Disk, Disks};
use anyhow::{Context, bail};
use muster_proto::v1;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;

/// Disks that lose their power, fill up, fail, lie, lose what they had, or all of it. Those calls that need
/// [`Plan::disks`](crate::Plan::disks) say so; they fail without it.
impl TestCluster {
    fn disks(&self) -> anyhow::Result<&Disks> {
        self.disks.as_ref().context("masters have no disks of their own: start it with Plan::disks")
    }

    fn disk(&self, name: &str) -> anyhow::Result<&Arc<Disk>> {
        self.process(name).and_then(|_| self.disks()?.of(name))
    }

    /// The data directory of a master, running or not, as this process sees it.
    pub fn data_dir(&self, name: &str) -> anyhow::Result<PathBuf> {
        if !self.masters.iter().any(|master| master.name == name) {
            bail!("there is no master {name} in this cluster");
        }
        self.disks.as_ref().map_or_else(|| Ok(self.dir().join(name)), |disks| Ok(disks.of(name)?.seen()))
    }

    fn stopped(&self, name: &str) -> anyhow::Result<PathBuf> {
        if self.process(name)?.pid().is_some() {
            bail!("{name} runs; kill or stop it first");
        }
        self.data_dir(name)
    }

    /// Cuts the power of these masters, of all at once: what they did not sync is gone. They are down then, and
    /// their file systems, with their journals replayed, are ready for [`Self::restart`]. Whatever was
    /// acknowledged before this is called must be there afterwards. It fails when something is there that was not
    /// synced. Needs disks of their own. It blocks for some tenths of a second for each.
    pub fn power_cut(&self, names: impl IntoIterator<Item = impl AsRef<str>>) -> anyhow::Result<()> {
        let processes = self.named(names)?;
        let names: Vec<_> = processes.iter().map(|process| &*process.name).collect();
        let disks = names.iter().map(|name| self.disk(name)).collect::<anyhow::Result<Vec<_>>>()?;
        names.iter().for_each(|name| self.goes_down("power-cut", name));
        // A master may find out about its disk before it is killed.
        processes.iter().for_each(|process| process.may_end());
        self.disks()?.cut(&names)?;
        processes.iter().for_each(|process| process.strike());
        processes.iter().try_for_each(|process| process.kill())?;
        disks.iter().try_for_each(|disk| disk.power_returns())
    }

    /// Fills a master's disk until the handle is dropped; the master may end of it. Needs disks of their own.
    pub fn fill_disk(&self, name: &str) -> anyhow::Result<FullDisk> {
        let disk = self.disk(name)?;
        self.process(name)?.may_end();
        self.lasting("full-disk", [name], || FullDisk::fill(disk))
    }

    /// Makes a master's disk read-only, as an error of the device does, until the handle is dropped; the master
    /// may end of it. It must be down when the handle is dropped, or is killed. Needs disks of their own.
    pub fn read_only(&self, name: &str) -> anyhow::Result<ReadOnlyDisk> {
        let disk = self.disk(name)?;
        let process = self.process(name)?;
        process.may_end();
        self.lasting("read-only-disk", [name], || ReadOnlyDisk::make(disk.clone(), process.running()))
    }

    /// Moves what a stopped master has to a disk that fails when a few blocks more were written to it, until the
    /// handle is dropped: a real error of writing back, which a sync tells of once. Start the master then; it may end
    /// of it. Needs disks of their own.
    pub fn thin_disk(&self, name: &str) -> anyhow::Result<ThinDisk> {
        self.stopped(name)?;
        let (disk, process) = (self.disk(name)?, self.process(name)?);
        self.lasting("thin-disk", [name], || ThinDisk::make(disk.clone(), process.running()))
    }

    /// Interferes with the syncs of a running master until the handle is dropped; of some faults it may end. Needs
    /// strace, and that this process may trace the master.
    pub async fn fault_syncs(&self, name: &str, fault: SyncFault) -> anyhow::Result<BadSyncs> {
        let process = self.process(name)?;
        let pid = process.pid().with_context(|| format!("{name} does not run"))?;
        if fault.may_end_it() {
            process.may_end();
        }
        let recorded = self.fault("syncs", [name, &format!("{fault:?}")]);
        let mut syncs = BadSyncs::attach(pid, fault, self.dir().join(format!("{name}.strace"))).await?;
        syncs.keep(recorded);
        Ok(syncs)
    }

    /// Damages a file of a stopped master at a place that holds data; the seed chooses both.
    pub fn damage(&self, name: &str, damage: Damage, seed: u64) -> anyhow::Result<Damaged> {
        let dir = self.stopped(name)?;
        let _recorded = self.fault("damage", [name]);
        damage::damage(&dir, damage, seed)
    }

    /// Takes everything that a stopped master had, as when its disk is exchanged. It must not vote again before it
    /// was let back in: [`Self::replace`].
    pub fn lose_disk(&self, name: &str) -> anyhow::Result<()> {
        let dir = self.stopped(name)?;
        let _recorded = self.fault("lost-disk", [name]);
        damage::lose(&dir)
    }

    /// Waits until a member has ended by itself, of a fault that it may end of; how. It can be started again then.
    pub async fn ends(&self, name: &str) -> anyhow::Result<ExitStatus> {
        let process = self.process(name)?;
        process.may_end();
        self.wait(&format!("{name} still runs"), async || {
            let status = process.bury().map_err(|error| error.to_string())?;
            status.ok_or_else(|| process.last_words())
        })
        .await
    }

    /// How a member ended that nobody ended, if it did; it can be started again then.
    pub fn ended(&self, name: &str) -> anyhow::Result<Option<ExitStatus>> {
        self.process(name)?.bury()
    }

    /// Waits until this master has caught up and votes, by the leader's word, under the node id of the disk that it
    /// has now.
    pub async fn votes(&self, name: &str) -> anyhow::Result<()> {
        self.process(name)?;
        self.wait(&format!("{name} does not vote"), async || votes(&self.statuses().await, name)).await?;
        self.caught_up(name).await
    }

    /// Lets a running master back in that lost its disk, or set what was damaged aside: says on the operator's
    /// behalf that the old one will never come back, and waits until it votes as a new member. One that is well is
    /// refused.
    pub async fn replace(&self, name: &str) -> anyhow::Result<()> {
        self.process(name)?;
        let well = async || membership(&self.statuses().await, name).map(|why_not| why_not.is_none());
        if self.wait(&format!("whether {name} votes is not known"), well).await? {
            bail!("{name} votes with the disk that it has: there is nothing to replace");
        }
        let mut refused = String::new();
        self.wait(&format!("{name} is not let back in"), async || {
            // The word is lost with the leader that it was given to, so it may have to be said again.
            if let Err(error) = self.operator().replace_member(name, true).await {
                refused = format!(", {error}");
            }
            votes(&self.statuses().await, name).map_err(|why| format!("{why}{refused}"))
        })
        .await?;
        self.caught_up(name).await
    }
}

/// Fails unless a master votes with the disk that it has; with what is known of it.
fn votes(said: &[(String, v1::GetRaftStatusResponse)], name: &str) -> Result<(), String> {
    membership(said, name)?.map_or(Ok(()), Err)
}

/// Why a master does not vote with the disk that it has, by its own and the leader's word; nothing if it votes. An error
/// where one of the two says nothing.
fn membership(said: &[(String, v1::GetRaftStatusResponse)], name: &str) -> Result<Option<String>, String> {
    let own = said.iter().find(|(other, _)| other == name).map(|(_, status)| status);
    let own = own.ok_or("it does not answer")?;
    let leader = said.iter().find(|(_, status)| status.state == "leader").ok_or("nobody leads")?;
    let member = leader.1.members.iter().find(|member| member.name == name && member.node_id == own.node_id);
    Ok(match member {
        Some(member) if member.voter => None,
        Some(_) => Some(format!("it learns, state {}, {}", own.state, own.note)),
        None => Some(format!("the leader does not know its disk, state {}, {}", own.state, own.note)),
    })
}
