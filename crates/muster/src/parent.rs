//! Children that die with the process that started them, however it dies.

use anyhow::bail;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use std::process::Command;

/// The hidden flag that names the parent to the child.
pub(crate) const FLAG: &str = "die-with";

/// Makes the command, this program, a child that dies with this process.
pub(crate) fn tie(command: &mut Command) -> &mut Command {
    command.arg(format!("--{FLAG}={}", std::process::id()))
}

/// Arranges for this process to die with its parent. What it starts itself is not tied.
pub(crate) fn die_with(parent: u32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before the line above.
    if getppid().is_none_or(|pid| i64::from(pid.as_raw_nonzero().get()) != i64::from(parent)) {
        bail!("the process that started this one is gone");
    }
    Ok(())
}
