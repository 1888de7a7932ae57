//! Control groups: what a container may use is set before its first process is in it, and whoever is in it is found
//! and ended whatever its parents are.
//!
//! ```text
//! <mount of each controller>/<cgroup-root>/<agent's key>/<launch>
//! ```
//!
//! Both versions are spoken, also side by side (a hybrid host): a controller is used where it is, and a container has
//! one directory, a [`Part`], in each hierarchy that one of its controllers is in. `v1.rs` and `v2.rs` know the files,
//! `find.rs` the mounts, `own.rs` what is the agent's and what it can enforce, `group.rs` one container's.
//!
//! # Laws
//! - Limits are set before a process joins.
//! - Nothing outside of `<cgroup-root>/<agent's key>` is written, but for the switches that hand controllers down to it.
//! - One agent uses a key at a time: it holds a lock on its directories.

mod files;
mod find;
mod group;
mod own;
#[cfg(test)]
mod tests;
mod usage;
mod v1;
mod v2;

pub(crate) use find::{Layout, Mounts};
pub(crate) use group::{Group, Oom};
pub(crate) use own::{Ability, Can, Cgroups};
pub(crate) use usage::Usage;

use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, path::PathBuf};

/// A version of the kernel's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Version {
    V1,
    V2,
}

/// The controllers that are used. In version 2 freezing and the sum of CPU time belong to every group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Controller {
    Cpu,
    Cpuacct,
    /// Not used, but where it is mounted together with another one its groups must be filled before anybody can join.
    Cpuset,
    Memory,
    Pids,
    Freezer,
}

impl Controller {
    const ALL: [Self; 6] = [Self::Cpu, Self::Cpuacct, Self::Cpuset, Self::Memory, Self::Pids, Self::Freezer];

    /// The kernel's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Freezer => "freezer",
        }
    }

    fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// A directory of one hierarchy, and what is controlled there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) version: Version,
    pub(crate) dir: PathBuf,
    pub(crate) controllers: BTreeSet<Controller>,
}

impl Part {
    fn has(&self, controller: Controller) -> bool {
        self.controllers.contains(&controller)
    }

    /// The directory of this name below.
    fn below(&self, name: &str) -> Self {
        Self { dir: self.dir.join(name), ..self.clone() }
    }
}

/// What a container may use; nothing where it has no such limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Its share of the processors when there are not enough for all, in thousandths of one.
    pub(crate) cpu_milli: Option<u64>,
    /// Processor time that it never gets more of, in thousandths of a processor.
    pub(crate) cpu_quota_milli: Option<u64>,
    /// Memory, page cache included, in bytes. There is no swap beside it.
    pub(crate) memory_bytes: Option<u64>,
    /// Processes and threads.
    pub(crate) pids: Option<u64>,
}

impl Limits {
    /// Less memory than this no process starts with: a smaller limit counts as this one, as in Mesos.
    const MEMORY_BYTES_MIN: u64 = 32 << 20;

    /// What the bundle of a container says of them.
    pub(crate) fn of_a_bundle(&self) -> muster_container::Limits {
        muster_container::Limits {
            cpu_shares: self.cpu_milli.map(v1::shares),
            cpu_quota_us: self.cpu_quota_milli.map(v1::quota_us),
            memory_bytes: self.memory(),
            pids: self.pids,
        }
    }

    fn memory(&self) -> Option<u64> {
        self.memory_bytes.map(|bytes| bytes.max(Self::MEMORY_BYTES_MIN))
    }
}

/// How long a group that lost its last process may take to be removable.
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
