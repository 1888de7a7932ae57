//! Members that are short of something: open files, processor time, or memory.

use crate::history::Fault;
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
    pub(crate) recorded: Fault,
}

impl FewFiles {
    pub(crate) fn new(pid: u32, spare: u64) -> anyhow::Result<Self> {
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process id")?;
        let limit = room_for(&open_files(pid)?, spare);
        // The hard limit stays: not everybody may raise it again.
        let maximum = hard_limit(process)?;
        let former = prlimit(Some(process), Resource::Nofile, Rlimit { current: Some(limit), maximum })?;
        Ok(Self { pid, process, former, limit, recorded: Fault::default() })
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

/// A kind of control groups, of version 1.
#[derive(Debug, Clone, Copy)]
struct Groups {
    /// Where they are.
    root: &'static str,
    /// What the kernel calls it.
    controller: &'static str,
    /// A file that each of them has.
    limit: &'static str,
}

const CPU: Groups = Groups { root: "/sys/fs/cgroup/cpu", controller: "cpu", limit: "cpu.cfs_quota_us" };
const MEMORY: Groups =
    Groups { root: "/sys/fs/cgroup/memory", controller: "memory", limit: "memory.limit_in_bytes" };
/// In what time a share is counted, in microseconds.
const PERIOD_US: u32 = 100_000;
/// How often a limit is tried that what it is for outgrows in the same moment.
const TRIES: u32 = 1_000;

impl Groups {
    /// Whether they are there; the root of some has no limit.
    fn are_there(self) -> bool {
        let has = |dir: &Path| dir.join(self.limit).is_file();
        let below = || fs::read_dir(self.root).is_ok_and(|all| all.flatten().any(|entry| has(&entry.path())));
        has(Path::new(self.root)) || below()
    }

    /// The one that this process is in, as all are that it started.
    fn own(self) -> anyhow::Result<PathBuf> {
        let text = fs::read_to_string("/proc/self/cgroup")?;
        let of = |line: &str| {
            let mut parts = line.splitn(3, ':');
            let (_, kinds, path) = (parts.next()?, parts.next()?, parts.next()?);
            kinds.split(',').any(|kind| kind == self.controller).then(|| path.to_owned())
        };
        let path = text.lines().find_map(of);
        let path = path.with_context(|| format!("this process is in no group of {}", self.controller))?;
        Ok(Path::new(self.root).join(path.trim_start_matches('/')))
    }
}

/// What this machine lacks for members that are short of processor time or memory; nothing if it lacks nothing.
pub fn cgroups_missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("sharing out processor time and memory takes root".into());
    }
    let lost: Vec<_> = [CPU, MEMORY].into_iter().filter(|groups| !groups.are_there()).collect();
    let roots: Vec<_> = lost.iter().map(|groups| groups.root).collect();
    (!lost.is_empty())
        .then(|| format!("there are no cgroups of version 1 with limits in {}", roots.join(", ")))
}

/// A control group for one member. Whoever is in it when this is dropped is where this process is, then.
#[derive(Debug)]
struct Group {
    dir: PathBuf,
    home: PathBuf,
}

impl Group {
    fn new(groups: Groups, name: &str) -> anyhow::Result<Self> {
        let dir = Path::new(groups.root).join(format!("muster-test-{}-{name}", std::process::id()));
        let home = groups.own()?;
        fs::create_dir(&dir).with_context(|| format!("cannot make the group {}", dir.display()))?;
        Ok(Self { dir, home })
    }

    fn set(&self, what: &str, value: u64) -> anyhow::Result<()> {
        let file = self.dir.join(what);
        fs::write(&file, value.to_string()).with_context(|| format!("cannot write {}", file.display()))
    }

    fn get(&self, what: &str) -> anyhow::Result<String> {
        let file = self.dir.join(what);
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    }

    /// A number in a file that has one for each of several words.
    fn count(&self, file: &str, word: &str) -> anyhow::Result<u64> {
        let text = self.get(file)?;
        let count = text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
        count.and_then(|count| count.trim().parse().ok()).with_context(|| format!("no {word} in {text:?}"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for pid in self.get("cgroup.procs").unwrap_or_default().lines() {
            // It may end at this moment.
            let _ = fs::write(self.home.join("cgroup.procs"), pid);
        }
        if let Err(error) = fs::remove_dir(&self.dir) {
            eprintln!("the group {} stays: {error}", self.dir.display());
        }
    }
}

/// A member with little processor time. It has as much as all others when this is dropped.
#[derive(Debug)]
#[must_use = "it is over at once"]
pub struct Starved(Group, pub(crate) Fault);

impl Starved {
    pub(crate) fn new(pid: u32, name: &str, percent: u32) -> anyhow::Result<Self> {
        if !(1..=100).contains(&percent) {
            bail!("{percent} hundredths of a processor cannot be given: say 1 to 100");
        }
        let group = Group::new(CPU, name)?;
        group.set("cpu.cfs_period_us", PERIOD_US.into())?;
        group.set("cpu.cfs_quota_us", (PERIOD_US / 100 * percent).into())?;
        group.set("cgroup.procs", pid.into())?;
        Ok(Self(group, Fault::default()))
    }

    /// How often it was made to wait because its share was used up.
    pub fn waited(&self) -> anyhow::Result<u64> {
        self.0.count("cpu.stat", "nr_throttled")
    }
}

/// A member that is killed by the kernel when it takes more memory than it may. It may take as much as all others when
/// this is dropped.
#[derive(Debug)]
#[must_use = "it is over at once"]
pub struct LittleMemory(Group, pub(crate) Fault);

impl LittleMemory {
    pub(crate) fn new(name: &str, bytes: u64) -> anyhow::Result<Self> {
        let group = Group::new(MEMORY, name)?;
        // What it has is neither moved elsewhere nor waited for.
        group.set("memory.swappiness", 0)?;
        group.set(MEMORY.limit, bytes)?;
        Ok(Self(group, Fault::default()))
    }

    /// What begins a member in it: memory is charged to the group that its taker is in at that moment, and stays so.
    pub(crate) fn words(&self) -> Vec<String> {
        let door = self.0.dir.join("cgroup.procs").to_string_lossy().into_owned();
        vec!["sh".into(), "-c".into(), r#"echo $$ >"$0" && exec "$@""#.into(), door]
    }

    /// The bytes that it has taken, among them what the kernel keeps of its files and could do without.
    pub fn used(&self) -> anyhow::Result<u64> {
        let text = self.0.get("memory.usage_in_bytes")?;
        text.trim().parse().with_context(|| format!("no number of bytes: {text:?}"))
    }

    /// Lowers its limit to what it has taken; how much that is. What it takes then is its end, unless the kernel finds
    /// something that it can do without.
    pub fn squeeze(&self) -> anyhow::Result<u64> {
        let mut refused = None;
        for _ in 0..TRIES {
            // It takes more, or gives some back, at any moment.
            let used = self.used()?;
            match self.0.set(MEMORY.limit, used) {
                Ok(()) => return Ok(used),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.context("the limit was never tried")?)
    }

    /// How many processes the kernel has killed because they took more.
    pub fn killed(&self) -> anyhow::Result<u64> {
        self.0.count("memory.oom_control", "oom_kill")
    }
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
