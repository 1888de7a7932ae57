//! One container's group.

use super::{Controller, Limits, PATIENCE, Part, Version, files, v1, v2};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const PAUSE: Duration = Duration::from_millis(2);

/// The group of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    parts: Vec<Part>,
}

/// The kernel killed a process of a group since its memory was full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Oom {
    /// The limit, in bytes.
    pub(crate) limit_bytes: u64,
    /// The most that it had at a time, in bytes; 0 where the kernel does not tell.
    pub(crate) peak_bytes: u64,
}

impl Group {
    /// The group that is there.
    pub(crate) fn at(parts: Vec<Part>) -> Self {
        Self { parts }
    }

    /// Makes a group with limits. What was made is removed again if it cannot be.
    pub(crate) fn make(parts: Vec<Part>, limits: &Limits) -> io::Result<Self> {
        let group = Self { parts };
        let made = group.parts.iter().try_for_each(new).and_then(|()| group.set(limits));
        if made.is_err() {
            group.parts.iter().for_each(|part| drop(fs::remove_dir(&part.dir)));
        }
        made.map(|()| group)
    }

    /// Sets other limits. What a limit cannot shrink to stays as it was, and is no error.
    pub(crate) fn set(&self, limits: &Limits) -> io::Result<()> {
        let set = |part: &Part| match part.version {
            Version::V1 => v1::set(part, limits),
            Version::V2 => v2::set(part, limits),
        };
        // One that refuses keeps no other from being set.
        self.parts.iter().map(set).fold(Ok(()), Result::and)
    }

    /// Takes a process in, before it does anything.
    pub(crate) fn join(&self, pid: u32) -> io::Result<()> {
        self.parts.iter().try_for_each(|part| files::write(&part.dir, "cgroup.procs", &pid.to_string()))
    }

    /// Takes this process in, which must have one thread. In version 1 that costs nothing, while for another process the
    /// kernel first stops all forks and ends of the machine, and may wait 10 ms for that.
    pub(crate) fn enter(&self) -> io::Result<()> {
        let file = |part: &Part| match part.version {
            Version::V1 => "tasks",
            Version::V2 => "cgroup.procs",
        };
        self.parts.iter().try_for_each(|part| files::write(&part.dir, file(part), "0"))
    }

    /// The processes in it and below it.
    pub(crate) fn processes(&self) -> BTreeSet<u32> {
        self.parts.iter().flat_map(|part| files::processes(&part.dir)).collect()
    }

    /// One of its directories, to name it by.
    pub(crate) fn dir(&self) -> PathBuf {
        self.parts.first().map(|part| part.dir.clone()).unwrap_or_default()
    }

    /// It has no directory at all.
    pub(super) fn is_nowhere(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) fn part(&self, controller: Controller) -> Option<&Part> {
        self.parts.iter().find(|part| part.has(controller))
    }

    /// Whether the kernel killed for want of the group's memory.
    pub(crate) fn oom(&self) -> Option<Oom> {
        let part = self.part(Controller::Memory)?;
        match part.version {
            Version::V1 => v1::oom(&part.dir),
            Version::V2 => v2::oom(&part.dir),
        }
    }

    /// Likewise where its processes are in groups below it, with limits of their own: version 1 counts there alone.
    pub(crate) fn oom_below(&self) -> Option<Oom> {
        let part = self.part(Controller::Memory)?;
        match part.version {
            Version::V1 => files::tree(&part.dir).iter().find_map(|dir| v1::oom(dir)),
            Version::V2 => v2::oom(&part.dir),
        }
    }

    /// What there is to say of its memory once somebody else knows that the kernel killed of it; none where it was not
    /// full.
    pub(crate) fn oom_of_all(&self) -> Option<Oom> {
        let part = self.part(Controller::Memory)?;
        match part.version {
            Version::V1 => v1::full(&part.dir),
            Version::V2 => v2::full(&part.dir),
        }
    }

    /// Kills all that is in it now. Frozen meanwhile, where that can be, so that none escapes by forking.
    pub(crate) fn kill(&self) {
        let freezer = self.part(Controller::Freezer);
        if let Some(part) = freezer
            && part.version == Version::V2
            && v2::kill(&part.dir).is_ok()
        {
            return;
        }
        let freeze = |is_frozen| {
            let Some(part) = freezer else { return };
            // Where it fails, killing is repeated until none is left.
            let _ = match part.version {
                Version::V1 => v1::freeze(&part.dir, is_frozen),
                Version::V2 => v2::freeze(&part.dir, is_frozen),
            };
        };
        freeze(true);
        self.processes().into_iter().for_each(|pid| self.kill_one(pid));
        freeze(false);
    }

    /// Kills a process if it is in the group when its descriptor is held: its number may be another's by then.
    fn kill_one(&self, pid: u32) {
        let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
        let Ok(descriptor) = pidfd_open(number, PidfdFlags::empty()) else { return };
        if self.parts.iter().any(|part| is_below(pid, &part.dir)) {
            let _ = pidfd_send_signal(&descriptor, Signal::KILL); // it may have ended by itself
        }
    }

    /// Kills until it is empty. False: something was still in it after that long.
    pub(crate) fn end(&self, patience: Duration) -> bool {
        let begun = Instant::now();
        while !self.processes().is_empty() {
            if begun.elapsed() >= patience {
                return false;
            }
            self.kill();
            std::thread::sleep(PAUSE);
        }
        true
    }

    /// Removes it if nothing is in it, neither a process nor a group: the kernel refuses else, and false is returned.
    pub(crate) fn remove_empty(&self) -> bool {
        let is_gone = |part: &Part| match fs::remove_dir(&part.dir) {
            Err(error) => error.kind() == io::ErrorKind::NotFound,
            Ok(()) => true,
        };
        self.parts.iter().all(is_gone)
    }

    /// Removes it, and what is below it. The kernel may still be busy with the last process for a moment.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let begun = Instant::now();
        self.parts.iter().try_for_each(|part| remove_patiently(&part.dir, begun))
    }
}

fn remove_patiently(dir: &Path, begun: Instant) -> io::Result<()> {
    loop {
        match remove_tree(dir) {
            Err(error) if begun.elapsed() >= PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(PAUSE),
            Ok(()) => return Ok(()),
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for dir in files::tree(dir) {
        match fs::remove_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("cannot remove the control group {}: {error}", dir.display()),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes an empty group. One that is there is a leftover, whose counts would be taken for the new one's.
fn new(part: &Part) -> io::Result<()> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot make the control group {}: {error}", part.dir.display()))
    };
    match fs::create_dir(&part.dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !files::processes(&part.dir).is_empty() {
                return Err(io::Error::other(format!(
                    "the control group {} has processes of a former run in it",
                    part.dir.display()
                )));
            }
            remove_patiently(&part.dir, Instant::now())?;
            fs::create_dir(&part.dir).map_err(named)?;
        }
        Err(error) => return Err(named(error)),
        Ok(()) => {}
    }
    if part.version == Version::V1 { v1::fill(part) } else { Ok(()) }
}

/// Whether a process is in the group of this directory, or below it.
fn is_below(pid: u32, dir: &Path) -> bool {
    files::processes(dir).contains(&pid)
}
