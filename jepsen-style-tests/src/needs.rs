//! What a scenario needs beside a cluster, and whether this machine has it.

use muster_testkit::{Plan, disks_missing, tracing_missing};

/// Something that not every machine has, or not every cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Members reach each other through proxies, for faults of the network without root.
    Proxies,
    /// A disk for each master whose power can be cut, which needs root.
    Disks,
    /// strace, to interfere with the syncs of a live master.
    Tracing,
}

impl Need {
    /// Why a scenario with this need cannot run here; nothing if it can.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Proxies => None,
            Self::Disks => disks_missing(),
            Self::Tracing => tracing_missing(),
        }
    }

    /// Adds it to a cluster that is to be started.
    pub fn add_to(self, plan: &mut Plan) {
        match self {
            Self::Proxies => plan.proxied = true,
            Self::Disks => plan.disks = true,
            Self::Tracing => {}
        }
    }
}
