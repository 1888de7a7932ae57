//! A disk that claims more room than there is behind it, as thin provisioning or a dying device does: what was written
//! and is not synced yet gets lost on its way there. A sync says so once; the next one says that all is well.

use super::{DISK_BYTES, Disk, damage};
use crate::history::Fault;
use crate::process::Running;
use anyhow::Context;
use rustix::fs::statvfs;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

/// How much may be written before it fails.
const SLACK_BYTES: u64 = 64 << 10;

/// A disk that fails once a little more was written to it. When this is dropped its master is ended, if it still runs,
/// and what can be read of it is moved to a sound disk.
#[derive(Debug)]
#[must_use = "the disk is sound again at once"]
pub struct ThinDisk {
    disk: Arc<Disk>,
    master: Arc<Running>,
    /// What is behind it: a file system in memory.
    store: PathBuf,
    /// Whether the master has it.
    in_use: bool,
    pub(crate) recorded: Fault,
}

impl ThinDisk {
    /// Moves all that the master has there; it must not run.
    pub(crate) fn make(disk: Arc<Disk>, master: Arc<Running>) -> anyhow::Result<Self> {
        let store = disk.image.with_extension("thin");
        std::fs::create_dir_all(&store).with_context(|| format!("cannot make {}", store.display()))?;
        let mut this = Self { disk, master, store, in_use: false, recorded: Fault::default() };
        let enough = format!("size={}", 2 * DISK_BYTES);
        this.run("mount", ["-t", "tmpfs", "-o", &enough, "thin"], [&this.store])?;
        let image = std::fs::File::create(this.disk.space.seen(&this.image()))?;
        image.set_len(DISK_BYTES)?;
        this.run("mkfs.ext4", ["-q", "-m", "0", "-O", "^has_journal"], [&this.image()])?;
        std::fs::create_dir(this.disk.space.seen(&this.beside()))?;
        this.run("mount", ["-o", "loop"], [&this.image(), &this.beside()])?;
        this.run("cp", ["-a"], [&this.disk.at.join("."), &this.beside()])?;
        this.run("umount", [], [&this.beside()])?;
        this.disk.unmount()?;
        this.in_use = true;
        this.run("mount", ["-o", "loop"], [&this.image(), &this.disk.at])?;
        let behind = statvfs(this.disk.space.seen(&this.store))?;
        let used = (behind.f_blocks - behind.f_bfree) * behind.f_frsize;
        this.run("mount", ["-o", &format!("remount,size={}", used + SLACK_BYTES)], [&this.store])?;
        Ok(this)
    }

    fn image(&self) -> PathBuf {
        self.store.join("image")
    }

    fn beside(&self) -> PathBuf {
        self.store.join("data")
    }

    fn run<const N: usize, const M: usize>(
        &self,
        program: &str,
        words: [&str; N],
        paths: [&PathBuf; M],
    ) -> anyhow::Result<()> {
        let words = words.iter().map(OsStr::new);
        let arguments: Vec<&OsStr> = words.chain(paths.iter().map(|path| path.as_os_str())).collect();
        self.disk.inside(program, &arguments)
    }

    /// Moves what can be read to the sound disk.
    fn move_back(&self) -> anyhow::Result<()> {
        self.master.kill()?;
        self.disk.unmount()?;
        self.disk.mount()?;
        damage::lose(&self.disk.seen())?;
        // What memory still had of it is gone by now.
        self.run("mount", ["-o", "loop,ro"], [&self.image(), &self.beside()])?;
        // Some of it may be beyond reading, which is what its master has to find out.
        let _ = self.run("cp", ["-a"], [&self.beside().join("."), &self.disk.at]);
        self.run("umount", [], [&self.beside()])
    }
}

impl Drop for ThinDisk {
    fn drop(&mut self) {
        if self.in_use
            && let Err(error) = self.move_back()
        {
            eprintln!("a disk stays bad: {error:#}");
        }
        // If it is in use still it goes with the mount space.
        let _ = self.run("umount", [], [&self.store]);
    }
}
