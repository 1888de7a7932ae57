//! The agent's directories, and the lock that makes them one agent's.

use super::{LOCKED_MAX, lock_patiently};
use crate::{AgentConfig, AgentError, supervisor::Place};
use muster_model::{LaunchNumber, TaskKey};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

/// The directories of one agent. The lock lasts as long as this value.
#[derive(Debug)]
pub(crate) struct WorkDir {
    root: PathBuf,
    /// A short text for this directory, the same at each start.
    pub(crate) fingerprint: String,
    pub(crate) place: Place,
    _lock: File,
}

impl WorkDir {
    /// Makes what is missing and locks it.
    pub(crate) fn open(config: &AgentConfig) -> Result<Self, AgentError> {
        make(&config.work_dir, 0o755)?;
        let root =
            fs::canonicalize(&config.work_dir).map_err(prepare("find the directory", &config.work_dir))?;
        let lock = lock(&root)?;
        make(&root.join("meta"), 0o700)?;
        make(&root.join("sandboxes"), 0o755)?;
        let exits = root.join("meta/exits");
        make(&exits, 0o700)?;
        // Two agents of one machine never share a runtime directory; an agent whose disk was wiped finds the
        // same one again.
        let path = root.as_os_str().as_encoded_bytes();
        let fingerprint = format!("{:08x}{:08x}", crc32c::crc32c(path), crc32c::crc32c_append(!0, path));
        let base = runtime_base(config);
        make(&base, 0o700)?;
        own(&base)?;
        let runtime = base.join(&fingerprint);
        make(&runtime, 0o700)?;
        let runtime = fs::canonicalize(&runtime).map_err(prepare("find the directory", &runtime))?;
        Ok(Self { root, fingerprint, place: Place { runtime, exits }, _lock: lock })
    }

    /// The checkpoint log.
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("meta/agent.log")
    }

    /// The lock of launch helpers.
    pub(crate) fn launching(&self) -> PathBuf {
        self.root.join("meta/launching")
    }

    /// All sandboxes: `<framework>/<task>/<launch>` below it.
    pub(crate) fn sandboxes(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    /// All persistent volumes, by number.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// What was fetched and is kept.
    pub(crate) fn fetched(&self) -> PathBuf {
        self.root.join("fetched")
    }

    /// The store of images.
    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// What belongs to containers: `<launch>` below it.
    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// A launch's sandbox. Ids are file names, as they were checked where they came in.
    pub(crate) fn sandbox(&self, task: &TaskKey, launch: LaunchNumber) -> PathBuf {
        let mut path = self.sandboxes();
        path.extend([task.framework_id.as_str(), task.task_id.as_str(), &launch.to_string()]);
        path
    }
}

fn prepare(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> AgentError {
    let path = path.to_owned();
    move |source| AgentError::Prepare { doing, path, source }
}

fn make(path: &Path, mode: u32) -> Result<(), AgentError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(prepare("make the directory", path))
}

fn lock(root: &Path) -> Result<File, AgentError> {
    let path = root.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(prepare("open the lock file", &path))?;
    match lock_patiently(&file, LOCKED_MAX) {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(AgentError::WorkDirInUse(root.to_owned())),
        Err(TryLockError::Error(source)) => Err(prepare("lock", &path)(source)),
    }
}

/// Where sockets go: they need not outlive a reboot, and must be found when the work directory was wiped.
fn runtime_base(config: &AgentConfig) -> PathBuf {
    if !config.runtime_dir.as_os_str().is_empty() {
        return config.runtime_dir.clone();
    }
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return "/run/muster".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir).join("muster"),
        _ => std::env::temp_dir().join(format!("muster-{}", uid.as_raw())),
    }
}

/// Whoever owns the runtime directory can release commands: it must be ours.
fn own(path: &Path) -> Result<(), AgentError> {
    let owner = fs::metadata(path).map_err(prepare("look at", path))?.uid();
    if owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(AgentError::Config(format!(
        "runtime-dir {} belongs to user {owner}, not to the user of this agent; choose another",
        path.display()
    )))
}
