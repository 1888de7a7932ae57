//! A member's process, as the kernel shows it.

use anyhow::{Context, bail};
use muster_testkit::TestCluster;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::sync::Arc;
use std::time::Duration;

/// A member's process. It keeps its number until somebody buries it, which only the cluster does.
pub(super) struct MemberProcess {
    name: String,
    pid: u32,
    /// Readable once it has ended.
    fd: Arc<OwnedFd>,
}

impl MemberProcess {
    pub(super) fn of(cluster: &TestCluster, name: &str) -> anyhow::Result<Self> {
        let pid = cluster.pid(name)?.with_context(|| format!("{name} does not run"))?;
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process id")?;
        let fd = pidfd_open(number, PidfdFlags::empty()).with_context(|| format!("cannot open {name}"))?;
        Ok(Self { name: name.into(), pid, fd: Arc::new(fd) })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks it to end and waits until it has. Fails when it takes longer, or says that something went wrong.
    pub(super) async fn end_in_order(&self, within: Duration) -> anyhow::Result<()> {
        pidfd_send_signal(&*self.fd, Signal::TERM).with_context(|| format!("cannot ask {}", self.name))?;
        let (fd, timeout) = (self.fd.clone(), Timespec::try_from(within)?);
        let ended = tokio::task::spawn_blocking(move || {
            poll(&mut [PollFd::new(&*fd, PollFlags::IN)], Some(&timeout)).map(|ready| ready > 0)
        });
        if !ended.await?? {
            bail!("{} did not end within {within:?} of being asked", self.name);
        }
        match self.stat()?.exit_status {
            0 => Ok(()),
            status => bail!("{} was asked to end, and ended with wait status {status}", self.name),
        }
    }

    /// Fails unless it stands still at this moment.
    pub(super) fn stands_still(&self) -> anyhow::Result<()> {
        match self.stat()?.state {
            'T' => Ok(()),
            other => bail!("{} was to stand still, and is in state {other}", self.name),
        }
    }

    fn stat(&self) -> anyhow::Result<Stat> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid));
        Stat::parse(&text.with_context(|| format!("{} is gone", self.name))?)
    }
}

/// What is of interest in `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    /// As wait(2) gives it; of a process that has ended.
    exit_status: i32,
}

impl Stat {
    fn parse(text: &str) -> anyhow::Result<Self> {
        // The second field, the name, is in brackets and may hold anything, brackets and spaces too.
        let (_, rest) = text.rsplit_once(") ").context("no process state")?;
        let mut words = rest.split_whitespace();
        let state = words.next().and_then(|word| word.chars().next()).context("no process state")?;
        let exit_status = words.next_back().and_then(|word| word.parse().ok()).context("no exit status")?;
        Ok(Self { state, exit_status })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_found_behind_any_name() {
        let stat = Stat::parse("12 (a) b (c) T 1 2 3 256\n").unwrap();
        assert_eq!(stat, Stat { state: 'T', exit_status: 256 });
        assert!(Stat::parse("12 (muster").is_err());
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert!(matches!(Stat::parse(&own).unwrap().state, 'R' | 'S'));
    }
}
