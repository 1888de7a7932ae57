//! Mounts that only this process and its children see.

use crate::ContainerError;
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, mount_bind_recursive, mount_change};
use std::path::Path;

/// Gives this process mounts of its own: what it mounts from now on ends with it and its children. What the machine
/// mounts and unmounts is still seen.
///
/// # Errors
/// The system refuses; only root may.
pub fn own_mounts() -> Result<(), ContainerError> {
    let failed = || ContainerError::io("have mounts of its own at", "/");
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| failed()(error.into()))?;
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", flags).map_err(|error| failed()(error.into()))
}

/// Shows the machine's own root file system at a directory, with all that is mounted in it.
///
/// # Errors
/// The system refuses.
pub fn bind_root(target: &Path) -> Result<(), ContainerError> {
    mount_bind_recursive("/", target).map_err(|error| ContainerError::io("mount / at", target)(error.into()))
}
