//! What is measured of containers: the processes of a task or executor, as `/proc` shows them. Sums over all of them, so
//! that memory which they share counts several times, as with Mesos' isolators of plain processes.

use super::seen::{Executor, Seen};
use muster_http::show::Raw;
use muster_model::Resources;
use muster_node::Process;
use muster_proto::mesos;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs,
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
pub(super) struct Machine {
    processes: BTreeMap<u32, Stat>,
    children: BTreeMap<u32, Vec<u32>>,
    taken: SystemTime,
    ticks: f64,
    page: u64,
}

impl Machine {
    pub(super) fn now() -> Self {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let read = |pid: u32| {
            let line = fs::read(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, stat(&String::from_utf8_lossy(&line))?))
        };
        Self::of_processes(numbers.filter_map(read).collect())
    }

    fn of_processes(processes: BTreeMap<u32, Stat>) -> Self {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (pid, stat) in &processes {
            children.entry(stat.parent).or_default().push(*pid);
        }
        let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
        Self { processes, children, taken: SystemTime::now(), ticks, page: rustix::param::page_size() as u64 }
    }

    /// The processes of a task or executor; none if it is not there any more. Its supervisor is the parent of all that
    /// lost theirs: so all that descend from that belong to it.
    fn group(&self, process: &Process) -> Option<(&Stat, Vec<&Stat>)> {
        let first = self.processes.get(&process.pid).filter(|it| it.start_time == process.start_time)?;
        let supervisor = self.processes.get(&first.parent)?;
        let (mut group, mut next) = (Vec::new(), vec![first.parent]);
        while let Some(pid) = next.pop() {
            for child in self.children.get(&pid).into_iter().flatten() {
                group.extend(self.processes.get(child));
                next.push(*child);
            }
        }
        Some((supervisor, group))
    }

    /// What is measured of a task or executor that holds these resources.
    pub(super) fn of(&self, process: &Process, holds: &Resources) -> Option<mesos::ResourceStatistics> {
        let (supervisor, group) = self.group(process)?;
        // What ended below the supervisor is in its own sum.
        let time = |own: fn(&Stat) -> u64, ended: fn(&Stat) -> u64| {
            let ticks = group.iter().map(|it| own(it) + ended(it)).sum::<u64>() + ended(supervisor);
            ticks as f64 / self.ticks
        };
        let bytes = |name| holds.scalar(name).saturating_mul(1 << 20) / 1_000;
        Some(mesos::ResourceStatistics {
            timestamp: self.taken.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            cpus_user_time_secs: Some(time(|it| it.user, |it| it.user_of_children)),
            cpus_system_time_secs: Some(time(|it| it.system, |it| it.system_of_children)),
            cpus_soft_limit: Some(holds.scalar("cpus") as f64 / 1_000.0),
            mem_limit_bytes: Some(bytes("mem")),
            mem_soft_limit_bytes: Some(bytes("mem")),
            mem_rss_bytes: Some(group.iter().map(|it| it.resident.saturating_mul(self.page)).sum()),
            ..Default::default()
        })
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
#[derive(Debug, Serialize)]
struct Numbers {
    cpus_soft_limit: Option<f64>,
    cpus_system_time_secs: Option<f64>,
    cpus_user_time_secs: Option<f64>,
    mem_limit_bytes: Option<u64>,
    mem_rss_bytes: Option<u64>,
    mem_soft_limit_bytes: Option<u64>,
    timestamp: f64,
}

impl From<mesos::ResourceStatistics> for Numbers {
    fn from(it: mesos::ResourceStatistics) -> Self {
        Self {
            cpus_soft_limit: it.cpus_soft_limit,
            cpus_system_time_secs: it.cpus_system_time_secs,
            cpus_user_time_secs: it.cpus_user_time_secs,
            mem_limit_bytes: it.mem_limit_bytes,
            mem_rss_bytes: it.mem_rss_bytes,
            mem_soft_limit_bytes: it.mem_soft_limit_bytes,
            timestamp: it.timestamp,
        }
    }
}

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
    let machine = Machine::now();
    live(seen, |framework_id, it, process| {
        Some(Monitored {
            executor_id: it.id().into(),
            executor_name: it.info.name().into(),
            framework_id: framework_id.into(),
            source: it.info.source().into(),
            statistics: machine.of(process?, &it.resources())?.into(),
        })
    })
}

/// `/containers`: all that live, or the one that is meant.
pub(super) fn containers(seen: &Seen, only: Option<&str>) -> Vec<Container> {
    let machine = Machine::now();
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
            statistics: process.and_then(|it_runs| machine.of(it_runs, &it.resources())).map(Into::into),
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
        let machine = Machine::of_processes(BTreeMap::from([
            (1, one(0, 1_000, 0, 1, 1)),
            (10, one(1, 5, 7, 2, 100)), // the supervisor: only what ended below it
            (11, one(10, 20, 3, 3, 10)),
            (12, one(11, 40, 0, 4, 20)),
            (13, one(10, 80, 0, 5, 40)), // lost its parent
            (14, one(1, 160, 0, 6, 80)),
        ]));
        let process = |start_time| Process { pid: 11, start_time, boot_id: "b".into() };
        let of = machine.of(&process(3), &Resources::of(500, 64)).unwrap();
        let seconds = |ticks: u64| Some(ticks as f64 / machine.ticks);
        assert_eq!(of.cpus_user_time_secs, seconds(20 + 3 + 40 + 80 + 7));
        assert_eq!(of.cpus_system_time_secs, seconds(3));
        assert_eq!(of.mem_rss_bytes, Some(70 * machine.page));
        assert_eq!((of.cpus_soft_limit, of.mem_limit_bytes), (Some(0.5), Some(64 << 20)));
        assert_eq!(machine.of(&process(4), &Resources::none()), None, "another process of that number");
    }
}
