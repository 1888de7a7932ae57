//! What a group has used and has, as the kernel counts it. What is not counted where it is asked for is left out.

use super::{Controller, Group, Part, Version, files};

/// A limit of version 1 above this is none.
const NO_LIMIT: u64 = 1 << 60;

/// What one container has used and has. Times are in us, memory in bytes, both with what is in groups below it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) user_us: Option<u64>,
    pub(crate) system_us: Option<u64>,
    /// Processor time that it never gets more of, in thousandths of a processor.
    pub(crate) quota_milli: Option<u64>,
    /// Periods of its quota in which it wanted to run, those of them in which it had to wait, and how long it did.
    pub(crate) periods: Option<u64>,
    pub(crate) throttled: Option<u64>,
    pub(crate) throttled_us: Option<u64>,
    /// All that is charged to it, and with what of it is swapped out.
    pub(crate) memory: Option<u64>,
    pub(crate) memory_and_swap: Option<u64>,
    pub(crate) memory_limit: Option<u64>,
    /// Memory that is no file's, and that of files.
    pub(crate) anonymous: Option<u64>,
    pub(crate) cache: Option<u64>,
    pub(crate) mapped: Option<u64>,
    pub(crate) swap: Option<u64>,
    pub(crate) unevictable: Option<u64>,
    pub(crate) processes: Option<u64>,
    pub(crate) threads: Option<u64>,
}

impl Group {
    /// What it has used and has by now.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for (controller, read) in [
            (Controller::Cpuacct, times as fn(&Part, &mut Usage)),
            (Controller::Cpu, quota),
            (Controller::Memory, memory),
            (Controller::Pids, threads),
        ] {
            if let Some(part) = self.part(controller) {
                read(part, &mut usage);
            }
        }
        if !self.is_nowhere() {
            usage.processes = Some(self.processes().len() as u64);
        }
        usage
    }
}

fn times(part: &Part, usage: &mut Usage) {
    let dir = &part.dir;
    if part.version == Version::V2 {
        usage.user_us = files::keyed(dir, "cpu.stat", "user_usec");
        usage.system_us = files::keyed(dir, "cpu.stat", "system_usec");
        return;
    }
    let nanos = |name| files::number(dir, name).map(|nanos| nanos / 1_000);
    // What older kernels have counts in ticks.
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let ticked = |name| Some(files::keyed(dir, "cpuacct.stat", name)?.saturating_mul(1_000_000) / ticks);
    usage.user_us = nanos("cpuacct.usage_user").or_else(|| ticked("user"));
    usage.system_us = nanos("cpuacct.usage_sys").or_else(|| ticked("system"));
}

fn quota(part: &Part, usage: &mut Usage) {
    let dir = &part.dir;
    let stat = |name| files::keyed(dir, "cpu.stat", name);
    usage.periods = stat("nr_periods");
    usage.throttled = stat("nr_throttled");
    let (quota, period) = match part.version {
        Version::V1 => {
            usage.throttled_us = stat("throttled_time").map(|nanos| nanos / 1_000);
            // Below zero is none, and no number here.
            (files::number(dir, "cpu.cfs_quota_us"), files::number(dir, "cpu.cfs_period_us"))
        }
        Version::V2 => {
            usage.throttled_us = stat("throttled_usec");
            let text = files::text(dir, "cpu.max").unwrap_or_default();
            let mut numbers = text.split(' ').map(|it| it.parse().ok());
            (numbers.next().flatten(), numbers.next().flatten())
        }
    };
    let milli = |(quota, period): (u64, u64)| quota.saturating_mul(1_000).checked_div(period);
    usage.quota_milli = quota.zip(period).and_then(milli);
}

fn memory(part: &Part, usage: &mut Usage) {
    let dir = &part.dir;
    let text = files::text(dir, "memory.stat").unwrap_or_default();
    let stat = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse::<u64>().ok())
    };
    match part.version {
        Version::V1 => {
            usage.memory = files::number(dir, "memory.usage_in_bytes");
            usage.memory_and_swap = files::number(dir, "memory.memsw.usage_in_bytes");
            usage.memory_limit = files::number(dir, "memory.limit_in_bytes").filter(|it| *it < NO_LIMIT);
            usage.anonymous = stat("total_rss");
            usage.cache = stat("total_cache");
            usage.mapped = stat("total_mapped_file");
            usage.swap = stat("total_swap");
            usage.unevictable = stat("total_unevictable");
        }
        Version::V2 => {
            usage.memory = files::number(dir, "memory.current");
            usage.memory_limit = files::number(dir, "memory.max");
            usage.swap = files::number(dir, "memory.swap.current");
            usage.memory_and_swap = usage.memory.zip(usage.swap).map(|(memory, swap)| memory + swap);
            usage.anonymous = stat("anon");
            usage.cache = stat("file");
            usage.mapped = stat("file_mapped");
            usage.unevictable = stat("unevictable");
        }
    }
}

fn threads(part: &Part, usage: &mut Usage) {
    usage.threads = files::number(&part.dir, "pids.current");
}
