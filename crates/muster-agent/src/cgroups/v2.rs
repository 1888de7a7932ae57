//! The files of version 2.

use super::{Controller, Limits, Oom, Part, files, v1};
use std::{io, path::Path};

/// The weight of a share of the processors, by version 2's scale. As runc and systemd have it, so that a share means
/// the same beside theirs.
fn weight(milli: u64) -> u64 {
    let shares = v1::shares(milli).min(262_144);
    1 + ((shares - 2) * 9_999) / 262_142
}

pub(super) fn set(part: &Part, limits: &Limits) -> io::Result<()> {
    let dir = &part.dir;
    if part.has(Controller::Cpu) {
        if let Some(milli) = limits.cpu_milli {
            files::write(dir, "cpu.weight", &weight(milli).to_string())?;
        }
        let quota = limits.cpu_quota_milli.map_or("max".to_owned(), |milli| v1::quota_us(milli).to_string());
        files::write(dir, "cpu.max", &format!("{quota} {}", v1::PERIOD_US))?;
    }
    if part.has(Controller::Memory)
        && let Some(bytes) = limits.memory()
    {
        // A smaller limit would kill where version 1's is refused: what was promised once is kept.
        if files::number(dir, "memory.max").is_none_or(|former| former < bytes) {
            files::write(dir, "memory.max", &bytes.to_string())?;
        }
        if files::has(dir, "memory.swap.max") {
            files::write(dir, "memory.swap.max", "0")?;
        }
        if files::has(dir, "memory.oom.group") {
            files::write(dir, "memory.oom.group", "1")?;
        }
    }
    if part.has(Controller::Pids) {
        let max = limits.pids.map_or("max".to_owned(), |pids| pids.to_string());
        files::write(dir, "pids.max", &max)?;
    }
    Ok(())
}

/// Whether the kernel killed for the group's own limit.
pub(super) fn oom(dir: &Path) -> Option<Oom> {
    let event = |name| files::keyed(dir, "memory.events", name);
    let is_own = event("oom_kill")? > 0 && event("oom").is_none_or(|n| n > 0);
    let memory = |name| files::number(dir, name).unwrap_or_default();
    is_own.then(|| Oom { limit_bytes: memory("memory.max"), peak_bytes: memory("memory.peak") })
}

/// The group's limit, if it may have been reached: older kernels do not tell.
pub(super) fn full(dir: &Path) -> Option<Oom> {
    let limit_bytes = files::number(dir, "memory.max")?;
    let peak_bytes = files::number(dir, "memory.peak").unwrap_or_default();
    let was_full = peak_bytes == 0 || peak_bytes.saturating_add(v1::NEARLY_BYTES) >= limit_bytes;
    was_full.then_some(Oom { limit_bytes, peak_bytes })
}

pub(super) fn freeze(dir: &Path, is_frozen: bool) -> io::Result<()> {
    files::write(dir, "cgroup.freeze", if is_frozen { "1" } else { "0" })
}

/// Kills all of the group and below in one go, where the kernel can.
pub(super) fn kill(dir: &Path) -> io::Result<()> {
    files::write(dir, "cgroup.kill", "1")
}

/// Lets the groups below have a controller.
pub(super) fn hand_down(dir: &Path, controller: Controller) -> io::Result<()> {
    let is_down = |text: String| text.split_whitespace().any(|it| it == controller.name());
    if files::text(dir, "cgroup.subtree_control").is_some_and(is_down) {
        return Ok(());
    }
    files::write(dir, "cgroup.subtree_control", &format!("+{}", controller.name()))
}
