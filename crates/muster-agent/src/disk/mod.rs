//! The agent's disk: its directories, the checkpoint log, and the one thread that writes it.

mod log;
mod workdir;
mod writer;

pub(crate) use log::{Log, Opened};
pub(crate) use workdir::WorkDir;
pub(crate) use writer::{Durable, Writer};

use std::{
    fs::{File, TryLockError},
    time::{Duration, Instant},
};

/// How long what is one agent's may be locked by a former one: where that was killed while it started a program, a process
/// is left that has all of its locks until it is that program.
pub(crate) const LOCKED_MAX: Duration = Duration::from_secs(2);

/// Locks a file that somebody else may have locked for this long.
pub(crate) fn lock_patiently(file: &File, patience: Duration) -> Result<(), TryLockError> {
    const PAUSE: Duration = Duration::from_millis(2);
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if begun.elapsed() < patience => std::thread::sleep(PAUSE),
            locked => return locked,
        }
    }
}
