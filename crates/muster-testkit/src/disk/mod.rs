//! A disk for each master: an ext4 of its own on a loop device, so that one can lose its power, fill up or fail
//! while the others are well. Needs root.

pub(crate) mod damage;
pub(crate) mod fault;
mod power;
mod space;
pub(crate) mod sync;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
pub(crate) mod thin;

use anyhow::{Context, bail};
use space::MountSpace;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How large a disk is. The image is sparse: it takes what was written.
const DISK_BYTES: u64 = 256 << 20;
/// How long a file system may be in use after the last process on it was killed.
const UNMOUNT_TIME: Duration = Duration::from_secs(20);
/// Between two tries.
const LOOK: Duration = Duration::from_millis(10);
/// What is written and not synced before a power cut: at most its name may be there afterwards.
const WITNESS: &str = "unsynced";
/// What disks are made with.
const PROGRAMS: [&str; 6] = ["unshare", "nsenter", "mkfs.ext4", "mount", "umount", "python3"];

/// Why [`Plan::disks`](crate::Plan::disks) cannot be had here; nothing if it can.
pub fn disks_missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("disks of their own need root, for mounts: run this as root".into());
    }
    programs_missing(&PROGRAMS, "util-linux, e2fsprogs and python3")
}

/// Which of some programs are not there.
pub(crate) fn programs_missing(programs: &[&str], packages: &str) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&str| std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    let missing: Vec<_> = programs.iter().filter(|program| !is_there(program)).copied().collect();
    (!missing.is_empty()).then(|| format!("{} cannot be found: install {packages}", missing.join(", ")))
}

/// The disks of a cluster.
#[derive(Debug)]
pub(crate) struct Disks {
    space: Arc<MountSpace>,
    disks: BTreeMap<String, Arc<Disk>>,
}

impl Disks {
    /// One for each name, mounted at the directory of that name.
    pub(crate) fn make(dir: &Path, names: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        if let Some(missing) = disks_missing() {
            bail!("{missing}");
        }
        let space = Arc::new(MountSpace::new()?);
        let mut this = Self { space: space.clone(), disks: BTreeMap::new() };
        for name in names {
            let (image, at) = (dir.join(format!("{name}.img")), dir.join(&name));
            let disk = Arc::new(Disk { space: space.clone(), image, at });
            this.disks.insert(name, disk.clone());
            disk.format()?;
            disk.mount()?;
        }
        Ok(this)
    }

    /// What a process is started by that is to see the disks.
    pub(crate) fn enter(&self) -> Vec<String> {
        self.space.enter()
    }

    pub(crate) fn of(&self, name: &str) -> anyhow::Result<&Arc<Disk>> {
        self.disks.get(name).with_context(|| format!("{name} has no disk of its own: masters do"))
    }

    /// Cuts the power of these, all at once: nothing that was not synced reaches them any more. Before it something is
    /// written that is not, for [`Disk::power_returns`].
    pub(crate) fn cut(&self, names: &[&str]) -> anyhow::Result<()> {
        let seen = names.iter().map(|name| Ok(self.of(name)?.seen())).collect::<anyhow::Result<Vec<_>>>()?;
        for disk in &seen {
            std::fs::write(disk.join(WITNESS), WITNESS).context("cannot write to a disk")?;
        }
        power::cut(&seen)
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for disk in self.disks.values() {
            // What does not unmount now does so with the end of the mount space.
            let _ = disk.unmount();
        }
    }
}

/// The disk of one master.
#[derive(Debug)]
pub(crate) struct Disk {
    space: Arc<MountSpace>,
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    /// Its root as this process sees it.
    pub(crate) fn seen(&self) -> PathBuf {
        self.space.seen(&self.at)
    }

    fn format(&self) -> anyhow::Result<()> {
        let image = std::fs::File::create(&self.image).and_then(|image| image.set_len(DISK_BYTES));
        image.with_context(|| format!("cannot make the disk {}", self.image.display()))?;
        std::fs::create_dir_all(&self.at)?;
        // Root may not use more of it than others: a full disk is full.
        done(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&self.image))
    }

    fn mount(&self) -> anyhow::Result<()> {
        let (image, at) = (self.image.as_os_str(), self.at.as_os_str());
        self.inside("mount", &["-o".as_ref(), "loop".as_ref(), image, at])
    }

    /// The whole of what writes to it must have ended.
    fn unmount(&self) -> anyhow::Result<()> {
        let until = Instant::now() + UNMOUNT_TIME;
        loop {
            match self.inside("umount", &[self.at.as_os_str()]) {
                Err(error) if Instant::now() >= until => return Err(error),
                Err(_) => std::thread::sleep(LOOK),
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Lets it go and takes it again, as when a machine starts: its journal is replayed.
    pub(crate) fn remount(&self) -> anyhow::Result<()> {
        self.unmount().and_then(|()| self.mount())
    }

    /// Takes it again after its power was cut. Fails if what was not synced is there.
    pub(crate) fn power_returns(&self) -> anyhow::Result<()> {
        self.remount()?;
        let witness = self.seen().join(WITNESS);
        match std::fs::read(&witness) {
            Ok(bytes) if bytes.is_empty() => Ok(std::fs::remove_file(witness)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => bail!("the power cut of {} kept what was not synced", self.at.display()),
        }
    }

    /// Makes it read-only as a file system does by itself when it meets an error of its device.
    pub(crate) fn abort(&self) -> anyhow::Result<()> {
        self.inside("mount", &["-o".as_ref(), "remount,abort".as_ref(), self.at.as_os_str()])
    }

    fn inside(&self, program: &str, arguments: &[&OsStr]) -> anyhow::Result<()> {
        let enter = self.space.enter();
        done(Command::new(&enter[0]).args(&enter[1..]).arg(program).args(arguments))
    }
}

/// Runs a program to its end.
fn done(command: &mut Command) -> anyhow::Result<()> {
    let program = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
