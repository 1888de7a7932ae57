//! Where disks are mounted: a mount namespace of the cluster's own.
//!
//! Nobody else on the machine sees these mounts, and the kernel undoes them when the last process in it has ended,
//! however it ends. One process keeps it until then: it reads from a pipe whose other end is here, so that it
//! ends with this process, too.

use anyhow::{Context, bail};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

#[derive(Debug)]
pub(super) struct MountSpace {
    keeper: Child,
}

impl MountSpace {
    pub(super) fn new() -> anyhow::Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut this = Self { keeper: command.spawn().context("cannot run unshare")? };
        // It echoes once it is where it should be.
        let sent = this.keeper.stdin.as_mut().map(|stdin| stdin.write_all(b"\n"));
        let mut echo = [0];
        let heard = this.keeper.stdout.as_mut().map(|stdout| stdout.read_exact(&mut echo));
        match (sent, heard) {
            (Some(Ok(())), Some(Ok(()))) => Ok(this),
            _ => bail!("cannot make a mount namespace; a container needs CAP_SYS_ADMIN for it"),
        }
    }

    /// What starts a program in here.
    pub(super) fn enter(&self) -> Vec<String> {
        ["nsenter", "--mount", "--target", &self.keeper.id().to_string()].map(str::to_owned).into()
    }

    /// A path in here, for somebody who is not.
    pub(super) fn seen(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

impl Drop for MountSpace {
    fn drop(&mut self) {
        // It has ended already, or does now.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
