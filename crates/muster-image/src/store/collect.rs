//! Removing layers that nothing uses.
//!
//! A layer is used if the caller names it, because a container of its list has it in its root file system, or if somebody
//! holds it: a pull that goes on, an [`Image`](super::Image). Of the others those go that were not used for
//! longer than [`Keep::unused`], and while the disk has less free than [`Keep::free_bytes`] more of them, the one that was
//! not used for longest first. Images of which a layer is gone are forgotten with it.

use super::{Inner, Store, record::Record};
use crate::{Digest, ImageError};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::PoisonError,
    time::{Duration, SystemTime},
};

/// What is kept of what nothing uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// How long a layer that nothing uses is kept.
    pub unused: Duration,
    /// Bytes that should be free on the disk of the store: with less, layers go before their time.
    pub free_bytes: u64,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// The layers.
    pub layers: Vec<Digest>,
    /// Those that nothing uses and that are still there.
    pub unused: usize,
}

impl Store {
    /// Removes what is not to be kept. `used` is what containers use: [`Rootfs::layers`](crate::Rootfs) of each, also of
    /// those that a former process of this agent started.
    ///
    /// # Errors
    /// The store cannot be read, or a layer cannot be removed.
    pub fn collect(
        &self,
        used: &BTreeSet<Digest>,
        keep: Keep,
        now: SystemTime,
    ) -> Result<Collected, ImageError> {
        let inner = self.inner();
        let dir = inner.dir.join("layers");
        let mut unused: Vec<(SystemTime, Digest)> = Vec::new();
        for path in entries(&dir)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match Digest::parse(&format!("sha256:{name}")) {
                Ok(diff_id) if used.contains(&diff_id) => {}
                Ok(diff_id) => {
                    // One whose record is gone is as old as can be.
                    let last = inner.layer_used(&diff_id).unwrap_or(SystemTime::UNIX_EPOCH);
                    unused.push((last, diff_id));
                }
                Err(_) => tracing::warn!(path = %path.display(), "no layer, and not ours to remove"),
            }
        }
        unused.sort();
        let mut done = Collected::default();
        for (last, diff_id) in unused {
            let is_old = now.duration_since(last).is_ok_and(|age| age > keep.unused);
            if (is_old || free_bytes(&inner.dir)? < keep.free_bytes) && inner.remove_layer(&diff_id)? {
                done.layers.push(diff_id);
            } else {
                done.unused += 1;
            }
        }
        if !done.layers.is_empty() {
            inner.forget_images()?;
        }
        Ok(done)
    }
}

impl Inner {
    /// Removes a layer that nobody holds. Whether it could be.
    fn remove_layer(&self, diff_id: &Digest) -> Result<bool, ImageError> {
        let Some(_turn) = self.flights().try_turn(&diff_id.to_string()) else { return Ok(false) };
        let from = self.dir.join("layers").join(diff_id.hex());
        let to = self.tmp();
        {
            // Nobody takes it in hand between this look and the rename.
            let leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
            if leases.get(diff_id).is_some_and(|lease| lease.strong_count() > 0) {
                return Ok(false);
            }
            fs::rename(&from, &to).map_err(ImageError::io("remove", &from))?;
        }
        fs::remove_dir_all(&to).map_err(ImageError::io("remove", &to))?;
        Ok(true)
    }

    /// Forgets images that have not all their layers.
    fn forget_images(&self) -> Result<(), ImageError> {
        for path in entries(&self.dir.join("images"))? {
            let whole = self.read_json::<Record>(&path)?.is_some_and(|record| {
                record.layers.iter().all(|diff_id| self.dir.join("layers").join(diff_id.hex()).exists())
            });
            if !whole {
                fs::remove_file(&path).map_err(ImageError::io("remove", &path))?;
            }
        }
        Ok(())
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let list =
        || fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<_>>();
    list().map_err(ImageError::io("list", dir))
}

fn free_bytes(dir: &Path) -> Result<u64, ImageError> {
    let about = rustix::fs::statvfs(dir).map_err(|error| ImageError::io("look at", dir)(error.into()))?;
    Ok(about.f_bavail.saturating_mul(about.f_frsize))
}
