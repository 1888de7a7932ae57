//! Opening a copy of the log first. sled rewrites its file as it opens it, a damaged one too, and where nobody else
//! has the data that file is all that is left: it must stay as it is until it is known to be sound.
//!
//! The copy is opened in its place and thrown away. The log itself is not written meanwhile, so that a crash at any
//! moment, or a disk that fills, leaves at worst a copy that the next start removes. It costs one pass over the
//! file, which the kernel makes without a copy where the file system shares blocks; the log is kept short by
//! snapshots (tens of megabytes by default, a few hundred at most).

use super::{
    StoreOptions,
    disk::{Disk, Scan},
};
use crate::error::OpenError;
use muster_fault::Point;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The copy's folder in the data directory.
const PROOF_DIR: &str = "log.proof";

/// A copy of the log; dropping it removes it.
pub(super) struct Proof {
    path: PathBuf,
}

impl Proof {
    /// Copies the log.
    pub(super) fn of(dir: &Path, log_dir: &Path, options: &StoreOptions) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Proof { path: dir.into(), source };
        discard(dir).map_err(failed)?;
        let this = Self { path: dir.join(PROOF_DIR) };
        copy(log_dir, &this.path).and_then(|()| options.step(Point::ProofCopied)).map_err(failed)?;
        Ok(this)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the copy and reads all of it, as the log would be.
    pub(super) fn scan(&self, first: u64, options: &StoreOptions) -> io::Result<Scan> {
        let (disk, scan) = Disk::open(&self.path, first, options.clone())?;
        disk.sync()?;
        Ok(scan)
    }
}

impl Drop for Proof {
    fn drop(&mut self) {
        // The next start tries again.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes what a crash left behind.
pub(super) fn discard(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir.join(PROOF_DIR)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        let target = to.join(file.file_name());
        if file.file_type()?.is_dir() {
            copy(&file.path(), &target)?;
        } else {
            fs::copy(file.path(), target)?;
        }
    }
    Ok(())
}
