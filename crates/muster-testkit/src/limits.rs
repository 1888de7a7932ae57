//! Members that are short of something: open files, or processor time.

use anyhow::{Context, bail};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A member that can open few files more. It has its former limit when this is dropped.
#[derive(Debug)]
#[must_use = "it is over at once"]
pub struct FewFiles {
    pid: u32,
    process: Pid,
    former: Rlimit,
    limit: u64,
}

impl FewFiles {
    pub(crate) fn new(pid: u32, spare: u64) -> anyhow::Result<Self> {
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process id")?;
        let limit = room_for(&open_files(pid)?, spare);
        // The hard limit stays: not everybody may raise it again.
        let maximum = hard_limit(process)?;
        let former = prlimit(Some(process), Resource::Nofile, Rlimit { current: Some(limit), maximum })?;
        Ok(Self { pid, process, former, limit })
    }

    /// Whether it has as many open as it may have.
    pub fn is_short(&self) -> anyhow::Result<bool> {
        let open = open_files(self.pid)?;
        let below = open.iter().filter(|number| **number < self.limit).count();
        Ok(u64::try_from(below)? >= self.limit)
    }

    /// How many files it may have open.
    pub fn limit(&self) -> u64 {
        self.limit
    }
}

impl Drop for FewFiles {
    fn drop(&mut self) {
        // It may have ended.
        let _ = prlimit(Some(self.process), Resource::Nofile, self.former);
    }
}

fn hard_limit(process: Pid) -> anyhow::Result<Option<u64>> {
    let text = fs::read_to_string(format!("/proc/{}/limits", process.as_raw_nonzero()))?;
    let line =
        text.lines().find(|line| line.starts_with("Max open files")).context("no limit of open files")?;
    // Max open files, soft, hard, files.
    let hard = line.split_whitespace().nth(4).context("no hard limit of open files")?;
    Ok(hard.parse().ok())
}

/// The limit below which so many numbers are free: a new file takes the lowest that is.
fn room_for(open: &BTreeSet<u64>, spare: u64) -> u64 {
    let mut free = (0..).filter(|number| !open.contains(number));
    usize::try_from(spare).ok().and_then(|spare| free.nth(spare)).unwrap_or(u64::MAX)
}

/// The numbers of the files that a process has open.
fn open_files(pid: u32) -> anyhow::Result<BTreeSet<u64>> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).with_context(|| format!("process {pid} is gone"))?;
    Ok(open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Where the groups are that share out processor time.
const CPU_GROUPS: &str = "/sys/fs/cgroup/cpu";
/// In what time a share is counted, in microseconds.
const PERIOD_US: u32 = 100_000;

/// What this machine lacks for members that are starved; nothing if it lacks nothing.
pub fn cgroups_missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("sharing out processor time takes root".into());
    }
    let quota = Path::new(CPU_GROUPS).join("cpu.cfs_quota_us");
    let is_there = quota.is_file()
        || fs::read_dir(CPU_GROUPS)
            .is_ok_and(|all| all.flatten().any(|entry| entry.path().join("cpu.cfs_quota_us").is_file()));
    (!is_there).then(|| format!("there are no cgroups of version 1 with quotas in {CPU_GROUPS}"))
}

/// A member with little processor time. It has as much as all others when this is dropped.
#[derive(Debug)]
#[must_use = "it is over at once"]
pub struct Starved {
    group: PathBuf,
    pid: u32,
    former: PathBuf,
}

impl Starved {
    pub(crate) fn new(pid: u32, name: &str, percent: u32) -> anyhow::Result<Self> {
        if !(1..=100).contains(&percent) {
            bail!("{percent} hundredths of a processor cannot be given: say 1 to 100");
        }
        let former = Path::new(CPU_GROUPS).join(own_group(pid)?.trim_start_matches('/'));
        let group = Path::new(CPU_GROUPS).join(format!("muster-test-{}-{name}", std::process::id()));
        fs::create_dir(&group).with_context(|| format!("cannot make the group {}", group.display()))?;
        // From here on dropping it undoes what was done.
        let starved = Self { group, pid, former };
        let set = |what: &str, value: u32| {
            let file = starved.group.join(what);
            fs::write(&file, value.to_string()).with_context(|| format!("cannot write {}", file.display()))
        };
        set("cpu.cfs_period_us", PERIOD_US)?;
        set("cpu.cfs_quota_us", PERIOD_US / 100 * percent)?;
        set("cgroup.procs", pid)?;
        Ok(starved)
    }

    /// How often it was made to wait because its share was used up.
    pub fn waited(&self) -> anyhow::Result<u64> {
        let text = fs::read_to_string(self.group.join("cpu.stat"))?;
        let count = text.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        count.and_then(|count| count.trim().parse().ok()).with_context(|| format!("no count in {text:?}"))
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        // It may have ended.
        let _ = fs::write(self.former.join("cgroup.procs"), self.pid.to_string());
        if let Err(error) = fs::remove_dir(&self.group) {
            eprintln!("the group {} stays: {error}", self.group.display());
        }
    }
}

/// The group of a process that shares out its processor time.
fn own_group(pid: u32) -> anyhow::Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let of = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let (_, kinds, path) = (parts.next()?, parts.next()?, parts.next()?);
        kinds.split(',').any(|kind| kind == "cpu").then(|| path.to_owned())
    };
    text.lines().find_map(of).context("the process is in no group that shares out processor time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_between_open_files_count_as_room() {
        let open = [0, 1, 2, 4, 9].into();
        assert_eq!((room_for(&open, 0), room_for(&open, 1), room_for(&open, 3)), (3, 5, 7));
        assert_eq!(room_for(&BTreeSet::new(), 2), 2);
    }
}
