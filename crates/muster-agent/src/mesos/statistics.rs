//! What is measured of containers: what the kernel counts in their control groups, as with Mesos' isolators of these. What
//! it does not count there comes of the processes of a task or executor, as `/proc` shows them: sums over all of them, so
//! that memory which they share counts several times, as with Mesos' isolators of plain processes.

use super::seen::{Executor, Seen};
use crate::{cgroups::Usage, limits::Enforcer};
use muster_http::show::Raw;
use muster_model::{LaunchNumber, Resources};
use muster_node::Process;
use muster_proto::mesos;
use serde::Serialize;
use std::{
    cell::OnceCell,
    collections::BTreeMap,
    fs,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// One line of `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// In ticks: its own time, and that of its children that it waited for.
    user: u64,
    system: u64,
    user_of_children: u64,
    system_of_children: u64,
    /// In ticks since the machine's start.
    start_time: u64,
    /// In pages.
    resident: u64,
}

/// Reads a line. The name in it may contain anything, brackets and spaces too.
fn stat(line: &str) -> Option<Stat> {
    let fields: Vec<&str> = line.rsplit_once(") ")?.1.split(' ').collect();
    // The first of these is the third of the line: its state.
    let number = |at: usize| fields.get(at - 3)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(4)?).ok()?,
        user: number(14)?,
        system: number(15)?,
        // Negative is not, whatever its type says.
        user_of_children: number(16)?,
        system_of_children: number(17)?,
        start_time: number(22)?,
        resident: number(24)?,
    })
}

/// All processes of this machine at one moment.
struct Processes {
    all: BTreeMap<u32, Stat>,
    children: BTreeMap<u32, Vec<u32>>,
    ticks: f64,
    page: u64,
}

impl Processes {
    fn now() -> Self {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let read = |pid: u32| {
            let line = fs::read(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, stat(&String::from_utf8_lossy(&line))?))
        };
        Self::of(numbers.filter_map(read).collect())
    }

    fn of(all: BTreeMap<u32, Stat>) -> Self {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (pid, stat) in &all {
            children.entry(stat.parent).or_default().push(*pid);
        }
        let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
        Self { all, children, ticks, page: rustix::param::page_size() as u64 }
    }

    /// The processes of a task or executor; none if it is not there any more. Its supervisor is the parent of all that
    /// lost theirs: so all that descend from that belong to it.
    fn group(&self, process: &Process) -> Option<(&Stat, Vec<&Stat>)> {
        let first = self.all.get(&process.pid).filter(|it| it.start_time == process.start_time)?;
        let supervisor = self.all.get(&first.parent)?;
        let (mut group, mut next) = (Vec::new(), vec![first.parent]);
        while let Some(pid) = next.pop() {
            for child in self.children.get(&pid).into_iter().flatten() {
                group.extend(self.all.get(child));
                next.push(*child);
            }
        }
        Some((supervisor, group))
    }

    /// What these have used and have. None of it is their group's.
    fn usage(&self, process: &Process) -> Option<Usage> {
        let (supervisor, group) = self.group(process)?;
        // What ended below the supervisor is in its own sum.
        let time = |own: fn(&Stat) -> u64, ended: fn(&Stat) -> u64| {
            let ticks = group.iter().map(|it| own(it) + ended(it)).sum::<u64>() + ended(supervisor);
            Some((ticks as f64 * 1e6 / self.ticks) as u64)
        };
        Some(Usage {
            user_us: time(|it| it.user, |it| it.user_of_children),
            system_us: time(|it| it.system, |it| it.system_of_children),
            anonymous: Some(group.iter().map(|it| it.resident.saturating_mul(self.page)).sum()),
            ..Usage::default()
        })
    }
}

/// This machine at one moment.
pub(super) struct Machine {
    enforcer: Arc<Enforcer>,
    taken: SystemTime,
    /// Looked for when something is measured that has no group.
    processes: OnceCell<Processes>,
}

impl Machine {
    pub(super) fn now(seen: &Seen) -> Self {
        Self { enforcer: seen.about.enforcer.clone(), taken: SystemTime::now(), processes: OnceCell::new() }
    }

    /// What is measured of a task or executor that holds these resources; none if it is not there any more.
    pub(super) fn of(
        &self,
        number: LaunchNumber,
        process: &Process,
        holds: &Resources,
    ) -> Option<mesos::ResourceStatistics> {
        let mut usage = self.enforcer.cgroups().group(&number.to_string()).usage();
        if usage.user_us.is_none() || usage.system_us.is_none() || usage.anonymous.is_none() {
            let of_processes = self.processes.get_or_init(Processes::now).usage(process)?;
            usage.user_us = usage.user_us.or(of_processes.user_us);
            usage.system_us = usage.system_us.or(of_processes.system_us);
            usage.anonymous = usage.anonymous.or(of_processes.anonymous);
        }
        Some(self.told(&usage, holds))
    }

    /// As Mesos tells it.
    fn told(&self, usage: &Usage, holds: &Resources) -> mesos::ResourceStatistics {
        let secs = |us: Option<u64>| us.map(|us| us as f64 / 1e6);
        let count = |n: Option<u64>| n.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let mem = holds.scalar("mem").saturating_mul(1 << 20) / 1_000;
        mesos::ResourceStatistics {
            timestamp: self.taken.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            cpus_user_time_secs: secs(usage.user_us),
            cpus_system_time_secs: secs(usage.system_us),
            cpus_soft_limit: Some(holds.scalar("cpus") as f64 / 1_000.0),
            cpus_limit: usage.quota_milli.map(|milli| milli as f64 / 1_000.0),
            cpus_nr_periods: count(usage.periods),
            cpus_nr_throttled: count(usage.throttled),
            cpus_throttled_time_secs: secs(usage.throttled_us),
            mem_limit_bytes: Some(usage.memory_limit.unwrap_or(mem)),
            mem_soft_limit_bytes: Some(mem),
            mem_total_bytes: usage.memory,
            mem_total_memsw_bytes: usage.memory_and_swap,
            mem_rss_bytes: usage.anonymous,
            // What is counted in no group is not known to be no file's.
            mem_anon_bytes: usage.memory.and(usage.anonymous),
            mem_cache_bytes: usage.cache,
            mem_file_bytes: usage.cache,
            mem_mapped_file_bytes: usage.mapped,
            mem_swap_bytes: usage.swap,
            mem_unevictable_bytes: usage.unevictable,
            processes: count(usage.processes),
            threads: count(usage.threads),
            ..Default::default()
        }
    }
}

/// What is told of a container beside what is measured.
pub(super) fn status(container_id: mesos::ContainerId, process: Option<&Process>) -> mesos::ContainerStatus {
    mesos::ContainerStatus {
        container_id: Some(container_id),
        executor_pid: process.map(|process| process.pid),
        ..Default::default()
    }
}

/// What is measured, with the names of its numbers in order.
macro_rules! numbers {
    ($($name:ident: $kind:ty),* $(,)?) => {
        #[derive(Debug, Serialize)]
        struct Numbers {
            $(#[serde(skip_serializing_if = "Option::is_none")] $name: Option<$kind>,)*
            timestamp: f64,
        }

        impl From<mesos::ResourceStatistics> for Numbers {
            fn from(it: mesos::ResourceStatistics) -> Self {
                Self { $($name: it.$name,)* timestamp: it.timestamp }
            }
        }
    };
}

numbers!(
    cpus_limit: f64,
    cpus_nr_periods: u32,
    cpus_nr_throttled: u32,
    cpus_soft_limit: f64,
    cpus_system_time_secs: f64,
    cpus_throttled_time_secs: f64,
    cpus_user_time_secs: f64,
    mem_anon_bytes: u64,
    mem_cache_bytes: u64,
    mem_file_bytes: u64,
    mem_limit_bytes: u64,
    mem_mapped_file_bytes: u64,
    mem_rss_bytes: u64,
    mem_soft_limit_bytes: u64,
    mem_swap_bytes: u64,
    mem_total_bytes: u64,
    mem_total_memsw_bytes: u64,
    mem_unevictable_bytes: u64,
    processes: u32,
    threads: u32,
);

/// One entry of `/monitor/statistics`.
#[derive(Debug, Serialize)]
pub(super) struct Monitored {
    executor_id: String,
    executor_name: String,
    framework_id: String,
    source: String,
    statistics: Numbers,
}

/// One entry of `/containers`.
#[derive(Debug, Serialize)]
pub(super) struct Container {
    container_id: String,
    executor_id: String,
    executor_name: String,
    framework_id: String,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    statistics: Option<Numbers>,
    #[serde(serialize_with = "as_message")]
    status: mesos::ContainerStatus,
}

fn as_message<S: serde::Serializer>(it: &mesos::ContainerStatus, serializer: S) -> Result<S::Ok, S::Error> {
    Raw(it).serialize(serializer)
}

/// What lives, with whose it is.
fn live<T>(seen: &Seen, mut shown: impl FnMut(&str, &Executor<'_>, Option<&Process>) -> Option<T>) -> Vec<T> {
    let mut all = Vec::new();
    for framework in seen.frameworks() {
        for executor in framework.executors.iter().filter(|it| it.process.is_some() || it.built_in) {
            all.extend(shown(framework.id.as_str(), executor, executor.process));
        }
    }
    all
}

/// `/monitor/statistics`.
pub(super) fn monitored(seen: &Seen) -> Vec<Monitored> {
    let machine = Machine::now(seen);
    live(seen, |framework_id, it, process| {
        Some(Monitored {
            executor_id: it.id().into(),
            executor_name: it.info.name().into(),
            framework_id: framework_id.into(),
            source: it.info.source().into(),
            statistics: machine.of(it.number, process?, &it.resources())?.into(),
        })
    })
}

/// `/containers`: all that live, or the one that is meant.
pub(super) fn containers(seen: &Seen, only: Option<&str>) -> Vec<Container> {
    let machine = Machine::now(seen);
    live(seen, |framework_id, it, process| {
        let container_id = it.container_id();
        if only.is_some_and(|only| only != container_id) {
            return None;
        }
        Some(Container {
            executor_id: it.id().into(),
            executor_name: it.info.name().into(),
            framework_id: framework_id.into(),
            source: it.info.source().into(),
            statistics: process
                .and_then(|it_runs| machine.of(it.number, it_runs, &it.resources()))
                .map(Into::into),
            status: status(mesos::ContainerId { value: container_id.clone(), ..Default::default() }, process),
            container_id,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_name_is() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 0 1 2 3 4 11 12 13 14 20 0 1 0 999 1000 55 0 0";
        let read = stat(line).unwrap();
        assert_eq!((read.parent, read.user, read.system), (7, 11, 12));
        assert_eq!((read.user_of_children, read.system_of_children), (13, 14));
        assert_eq!((read.start_time, read.resident), (999, 55));
        for bad in ["", "42", "42 (a", "42 (a) S", "42 (a) S x 1"] {
            assert_eq!(stat(bad), None, "{bad}");
        }
    }

    #[test]
    fn all_that_descends_from_the_supervisor_counts_and_nothing_else() {
        let one = |parent, user, ended, start_time, resident| Stat {
            parent,
            user,
            system: 1,
            user_of_children: ended,
            system_of_children: 0,
            start_time,
            resident,
        };
        let processes = Processes::of(BTreeMap::from([
            (1, one(0, 1_000, 0, 1, 1)),
            (10, one(1, 5, 7, 2, 100)), // the supervisor: only what ended below it
            (11, one(10, 20, 3, 3, 10)),
            (12, one(11, 40, 0, 4, 20)),
            (13, one(10, 80, 0, 5, 40)), // lost its parent
            (14, one(1, 160, 0, 6, 80)),
        ]));
        let process = |start_time| Process { pid: 11, start_time, boot_id: "b".into() };
        let of = processes.usage(&process(3)).unwrap();
        let micros = |ticks: u64| Some((ticks as f64 * 1e6 / processes.ticks) as u64);
        assert_eq!(of.user_us, micros(20 + 3 + 40 + 80 + 7));
        assert_eq!(of.system_us, micros(3));
        assert_eq!(of.anonymous, Some(70 * processes.page));
        assert_eq!(processes.usage(&process(4)), None, "another process of that number");
    }
}
