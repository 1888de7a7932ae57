//! The files of version 1.

use super::{Controller, Limits, Oom, Part, files};
use std::{io, path::Path};

/// The time over which a quota of processor time is counted, in us.
pub(super) const PERIOD_US: u64 = 100_000;
/// The least that the kernel takes.
const QUOTA_US_MIN: u64 = 1_000;
const SHARES_MIN: u64 = 2;
/// Memory is charged in batches: what lacks less than this to its limit has reached it.
pub(super) const NEARLY_BYTES: u64 = 1 << 20;

/// The weight of a share of the processors, by version 1's scale: 1024 for a whole one.
pub(super) fn shares(milli: u64) -> u64 {
    (milli.saturating_mul(1024) / 1000).max(SHARES_MIN)
}

/// Of each period, in us.
pub(super) fn quota_us(milli: u64) -> u64 {
    (milli.saturating_mul(PERIOD_US) / 1000).max(QUOTA_US_MIN)
}

/// Fills a new group where processes cannot join an empty one.
pub(super) fn fill(part: &Part) -> io::Result<()> {
    if !part.has(Controller::Cpuset) {
        return Ok(());
    }
    let Some(parent) = part.dir.parent() else { return Ok(()) };
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let of_parent = files::text(parent, name).unwrap_or_default();
        if files::text(&part.dir, name).is_none_or(|own| own.is_empty()) {
            files::write(&part.dir, name, &of_parent)?;
        }
    }
    Ok(())
}

pub(super) fn set(part: &Part, limits: &Limits) -> io::Result<()> {
    let dir = &part.dir;
    if part.has(Controller::Cpu) {
        if let Some(milli) = limits.cpu_milli {
            files::write(dir, "cpu.shares", &shares(milli).to_string())?;
        }
        match limits.cpu_quota_milli {
            Some(milli) => {
                files::write(dir, "cpu.cfs_period_us", &PERIOD_US.to_string())?;
                files::write(dir, "cpu.cfs_quota_us", &quota_us(milli).to_string())?;
            }
            // A kernel may have none.
            None if files::has(dir, "cpu.cfs_quota_us") => files::write(dir, "cpu.cfs_quota_us", "-1")?,
            None => {}
        }
    }
    if part.has(Controller::Memory)
        && let Some(bytes) = limits.memory()
    {
        set_memory(dir, bytes)?;
    }
    if part.has(Controller::Pids) {
        let max = limits.pids.map_or("max".to_owned(), |pids| pids.to_string());
        files::write(dir, "pids.max", &max)?;
    }
    Ok(())
}

/// Memory with swap is never less than without: what grows is set the other way round than what shrinks. A kernel that
/// cannot take enough back refuses the smaller limit, and nothing is killed.
fn set_memory(dir: &Path, bytes: u64) -> io::Result<()> {
    const MEMORY: &str = "memory.limit_in_bytes";
    const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
    let value = bytes.to_string();
    if !files::has(dir, WITH_SWAP) {
        return files::write(dir, MEMORY, &value);
    }
    let grows = files::number(dir, WITH_SWAP).is_some_and(|former| former < bytes);
    let (first, last) = if grows { (WITH_SWAP, MEMORY) } else { (MEMORY, WITH_SWAP) };
    files::write(dir, first, &value)?;
    files::write(dir, last, &value)
}

/// Whether the kernel killed for the group's own limit.
pub(super) fn oom(dir: &Path) -> Option<Oom> {
    files::keyed(dir, "memory.oom_control", "oom_kill").filter(|killed| *killed > 0)?;
    full(dir)
}

/// The group's limit, if it was reached.
pub(super) fn full(dir: &Path) -> Option<Oom> {
    let limit_bytes = files::number(dir, "memory.limit_in_bytes")?;
    let peak_bytes = files::number(dir, "memory.max_usage_in_bytes").unwrap_or_default();
    // `memory.failcnt` would say so, but newer kernels do not count there.
    let was_full = peak_bytes.saturating_add(NEARLY_BYTES) >= limit_bytes;
    was_full.then_some(Oom { limit_bytes, peak_bytes })
}

pub(super) fn freeze(dir: &Path, is_frozen: bool) -> io::Result<()> {
    files::write(dir, "freezer.state", if is_frozen { "FROZEN" } else { "THAWED" })
}
