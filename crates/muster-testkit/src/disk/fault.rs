//! Faults of a disk that last as long as their handle.

use super::Disk;
use crate::history::Fault;
use crate::process::Running;
use anyhow::Context;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

/// What fills a disk.
const FILLER: &str = "filler";
/// The smallest piece that is asked for, no more than a block.
const PIECE_BYTES_MIN: u64 = 512;

/// A disk that has no room. It has again when this is dropped.
#[derive(Debug)]
#[must_use = "there is room again at once"]
pub struct FullDisk {
    filler: PathBuf,
    bytes: u64,
    pub(crate) recorded: Fault,
}

impl FullDisk {
    pub(crate) fn fill(disk: &Disk) -> anyhow::Result<Self> {
        let filler = disk.seen().join(FILLER);
        let file = File::create(&filler).with_context(|| format!("cannot make {}", filler.display()))?;
        let mut this = Self { filler, bytes: 0, recorded: Fault::default() };
        let mut piece = super::DISK_BYTES;
        while piece >= PIECE_BYTES_MIN {
            match fallocate(&file, FallocateFlags::empty(), this.bytes, piece) {
                Ok(()) => this.bytes += piece,
                Err(Errno::NOSPC) => piece /= 2,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot fill the disk"),
            }
        }
        Ok(this)
    }

    /// How much room it took.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        // It went with the disk, perhaps. That it is gone must not be forgotten by an error or a power cut that comes next.
        let _ = std::fs::remove_file(&self.filler);
        if let Some(disk) = self.filler.parent() {
            let _ = File::open(disk).and_then(|disk| disk.sync_all());
        }
    }
}

/// A disk that takes no writes, after an error that it met. When this is dropped its master is ended, if it still
/// runs, and the disk is mounted anew.
#[derive(Debug)]
#[must_use = "it takes writes again at once"]
pub struct ReadOnlyDisk {
    disk: Arc<Disk>,
    master: Arc<Running>,
    pub(crate) recorded: Fault,
}

impl ReadOnlyDisk {
    pub(crate) fn make(disk: Arc<Disk>, master: Arc<Running>) -> anyhow::Result<Self> {
        disk.abort()?;
        Ok(Self { disk, master, recorded: Fault::default() })
    }
}

impl Drop for ReadOnlyDisk {
    fn drop(&mut self) {
        let undone = self.master.kill().and_then(|()| self.disk.remount());
        if let Err(error) = undone {
            eprintln!("a disk stays read-only: {error:#}");
        }
    }
}
