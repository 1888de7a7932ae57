//! The disk by itself.

use super::Done;
use crate::bench::report::{record, times};
use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

const BLOCK_BYTES: usize = 4 << 10;
const BLOCKS: u64 = 2_048;

/// A file of a fixed length, written once, so that writing over it changes no metadata; written from its start again at
/// its end.
pub(super) struct Preallocated {
    file: File,
    bytes: u64,
    at: u64,
}

impl Preallocated {
    pub(super) fn new(path: &Path, bytes: u64) -> io::Result<Self> {
        let mut file = File::create(path)?;
        let zeros = vec![0; 1 << 20];
        let mut left = bytes;
        while left > 0 {
            let some = left.min(zeros.len() as u64) as usize;
            file.write_all(&zeros[..some])?;
            left -= some as u64;
        }
        file.sync_all()?;
        Ok(Self { file, bytes, at: 0 })
    }

    /// Writes, and returns once it is on the disk. Nothing longer than the file.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.at + bytes.len() as u64 > self.bytes {
            self.at = 0;
        }
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        self.file.sync_data()
    }
}

/// 4 KiB written over and synced, again and again.
pub(super) fn syncs(dir: &Path, each: Duration) -> io::Result<Done> {
    let path = dir.join("syncs");
    let mut file = Preallocated::new(&path, BLOCKS * BLOCK_BYTES as u64)?;
    let block = [7; BLOCK_BYTES];
    let mut took = times();
    let begun = Instant::now();
    while begun.elapsed() < each {
        let at = Instant::now();
        file.append(&block)?;
        record(&mut took, at.elapsed());
    }
    let per_second = took.len() as f64 / begun.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(Done { per_second, took })
}
