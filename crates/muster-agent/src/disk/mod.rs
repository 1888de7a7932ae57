//! The agent's disk: its directories, the checkpoint log, and the one thread that writes it.

mod log;
mod workdir;
mod writer;

pub(crate) use log::{Log, Opened};
pub(crate) use workdir::WorkDir;
pub(crate) use writer::{Durable, Writer};

use std::{
    fs::{File, TryLockError},
    time::Duration,
};

/// Locks what is one agent's. A former agent that was killed while it started a program leaves a process that has all of
/// its locks until it is that program: this is waited for, up to two seconds.
pub(crate) fn lock_patiently(file: &File) -> Result<(), TryLockError> {
    const TRIES: usize = 400;
    const PAUSE: Duration = Duration::from_millis(5);
    for _ in 0..TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            locked => return locked,
        }
    }
    Err(TryLockError::WouldBlock)
}
