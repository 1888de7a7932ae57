//! What the test does to the members.

use super::{END_TIME, LOOK, TestCluster};
use crate::process::Process;
use crate::{FewFiles, LittleMemory, Paused, Skewed, Starved, ask};
use anyhow::{Context, bail};
use std::process::ExitStatus;
use std::time::Instant;

/// Members that are killed, stopped, paused and started again.
impl TestCluster {
    /// The process id of a member that runs.
    pub fn pid(&self, name: &str) -> anyhow::Result<Option<u32>> {
        self.process(name).map(Process::pid)
    }

    /// Ends a member with SIGKILL. Tasks of an agent go on.
    pub fn kill(&self, name: &str) -> anyhow::Result<()> {
        let process = self.process(name)?;
        self.goes_down("kill", name);
        process.kill()
    }

    /// Ends several members at once, as when their power goes.
    pub fn kill_all(&self, names: impl IntoIterator<Item = impl AsRef<str>>) -> anyhow::Result<()> {
        let processes = self.named(names)?;
        processes.iter().for_each(|process| self.goes_down("kill", &process.name));
        processes.iter().for_each(|process| process.strike());
        processes.iter().try_for_each(|process| process.kill())
    }

    /// Asks a member to end, as an init system does (SIGTERM), and waits until it has: a leader hands over
    /// first.
    pub async fn stop(&self, name: &str) -> anyhow::Result<ExitStatus> {
        let process = self.process(name)?;
        if process.pid().is_none() {
            bail!("{name} does not run");
        }
        self.goes_down("stop", name);
        process.ask_to_end();
        let until = Instant::now() + END_TIME;
        loop {
            if let Some(status) = process.bury()? {
                return Ok(status);
            }
            if Instant::now() >= until {
                let words = process.last_words();
                bail!("{name} has not ended {} s after it was asked to: {words}", END_TIME.as_secs());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Makes a member stand still until the handle is dropped.
    pub fn pause(&self, name: &str) -> anyhow::Result<Paused> {
        let process = self.process(name)?;
        self.lasting("pause", [name], || process.pause())
    }

    /// Sets a member's wall clock off by so many seconds, its own and its tasks'; its monotonic clock stays true.
    /// Takes [`Plan::clocks`](crate::Plan::clocks).
    pub fn skew(&self, name: &str, seconds: i64) -> anyhow::Result<Skewed> {
        self.process(name)?;
        self.lasting("clock", [name], || Skewed::new(self.dir(), name, seconds))
    }

    /// Leaves a running member no more than so many open files beyond those that it has; those that it has stay open.
    pub fn few_files(&self, name: &str, spare: u64) -> anyhow::Result<FewFiles> {
        let process = self.process_id(name)?;
        self.lasting("few-files", [name], || FewFiles::new(process, spare))
    }

    /// Leaves a running master so many hundredths of one processor. Takes root and cgroups of version 1
    /// ([`crate::cgroups_missing`]).
    pub fn starve(&self, name: &str, percent: u32) -> anyhow::Result<Starved> {
        self.only_a_master(name)?;
        let process = self.process_id(name)?;
        self.lasting("starve", [name], || Starved::new(process, name, percent))
    }

    /// Starts a master that was killed or stopped with a limit to the memory that it may take; the kernel kills it when
    /// it takes more ([`Self::ends`]). Takes root and cgroups of version 1 ([`crate::cgroups_missing`]).
    pub fn little_memory(&self, name: &str, bytes: u64) -> anyhow::Result<LittleMemory> {
        self.only_a_master(name)?;
        let process = self.process(name)?;
        if process.pid().is_some() {
            bail!("{name} runs: what it has taken already could not be counted; kill it first");
        }
        let little = self.lasting("little-memory", [name], || LittleMemory::new(name, bytes))?;
        process.start_by(&little.words(), &self.exe)?;
        self.comes_up(name);
        process.may_end();
        Ok(little)
    }

    /// Limits for a whole group of processes are for masters alone.
    fn only_a_master(&self, name: &str) -> anyhow::Result<()> {
        if !self.masters.iter().any(|master| master.name == name) {
            bail!("there is no master {name} in this cluster; an agent's tasks would be limited with it");
        }
        Ok(())
    }

    fn process_id(&self, name: &str) -> anyhow::Result<u32> {
        self.pid(name)?.with_context(|| format!("{name} does not run"))
    }

    /// A member that was started again may end of a fault that is still on: waits do not fail when it does.
    pub fn may_end(&self, name: &str) -> anyhow::Result<()> {
        self.process(name).map(Process::may_end)
    }

    /// Takes the work directory of an agent that does not run, as when its disk is exchanged: started again it is a new
    /// agent, which ends what still runs of the old one. Until then tasks go on, in what was theirs.
    pub fn lose_work_dir(&self, name: &str) -> anyhow::Result<()> {
        let agent = self.agents.iter().find(|agent| agent.name == name);
        let agent = agent.with_context(|| format!("there is no agent {name} in this cluster"))?;
        if agent.pid().is_some() {
            bail!("{name} runs; kill or stop it first");
        }
        let mut places = (1..=u16::MAX).map(|n| self.dir().join(format!("{name}-lost-{n}")));
        let lost = places.find(|path| !path.exists()).context("too many were lost already")?;
        let dir = self.dir().join(name);
        std::fs::rename(&dir, lost).with_context(|| format!("cannot move {}", dir.display()))
    }

    /// Starts a member again that was killed or stopped.
    pub fn restart(&self, name: &str) -> anyhow::Result<()> {
        self.process(name)?.start(&self.exe)?;
        self.comes_up(name);
        Ok(())
    }

    /// Starts several members again.
    pub fn restart_all(&self, names: impl IntoIterator<Item = impl AsRef<str>>) -> anyhow::Result<()> {
        self.named(names)?.iter().try_for_each(|process| self.restart(&process.name))
    }

    /// Hands leadership to this master and waits until it serves; the term in which it does. Whoever leads is asked again
    /// while it hands nothing over: because that master stands still, or somebody else was elected meanwhile.
    pub async fn transfer_leadership(&self, to: &str) -> anyhow::Result<u64> {
        let heir = self.process(to)?;
        let mut recorded = None;
        let what = format!("{to} does not lead");
        let serves = self.wait(&what, async || {
            let (leader, term) = self.says_it_leads().await?;
            if leader == to {
                self.agents_by(to).await?;
                return Ok(Some(term));
            }
            if !heir.is_alive() {
                return Ok(None);
            }
            recorded.get_or_insert_with(|| self.fault("transfer", [&*leader, to]));
            let address = &self.process(&leader).map_err(|error| error.to_string())?.address;
            let handed_over = ask::transfer(address, to).await;
            Err(handed_over
                .map_or_else(|why| format!("{leader}: {why}"), |to| format!("{to} has yet to serve")))
        });
        serves.await?.with_context(|| format!("{to} has ended: it cannot lead"))
    }

    /// Fails when a member has ended that nobody killed or stopped.
    pub fn check(&self) -> anyhow::Result<()> {
        for process in self.processes() {
            if let Some(status) = process.ended() {
                bail!("{} ended by itself ({status}): {}", process.name, process.last_words());
            }
        }
        Ok(())
    }

    /// The last line that a member said.
    pub fn last_words(&self, name: &str) -> anyhow::Result<String> {
        self.process(name).map(Process::last_words)
    }

    pub(super) fn named(
        &self,
        names: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> anyhow::Result<Vec<&Process>> {
        names.into_iter().map(|name| self.process(name.as_ref())).collect()
    }
}
