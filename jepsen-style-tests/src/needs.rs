//! What a scenario needs beside a cluster, and whether this machine has it.

use muster_testkit::Plan;

/// Something that not every machine has, or not every cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Members reach each other through proxies, for faults of the network without root.
    Proxies,
}

impl Need {
    /// Why a scenario with this need cannot run here; nothing if it can.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Proxies => None,
        }
    }

    /// Adds it to a cluster that is to be started.
    pub fn add_to(self, plan: &mut Plan) {
        match self {
            Self::Proxies => plan.proxied = true,
        }
    }
}
