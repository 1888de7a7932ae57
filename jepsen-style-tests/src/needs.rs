//! What a scenario needs beside a cluster, and whether this machine has it.

use muster_testkit::{Plan, cgroups_missing, clocks, disks_missing, hosts, tracing_missing};

/// Something that not every machine has, or not every cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Members reach each other through proxies, for faults of the network without root.
    Proxies,
    /// A disk for each master whose power can be cut, which needs root.
    Disks,
    /// strace, to interfere with the syncs of a live master.
    Tracing,
    /// Members and frameworks are on hosts of their own, for faults of packets and cables: network namespaces.
    Hosts,
    /// Packets into hosts can be late: iptables.
    Weather,
    /// Members' wall clocks can be set off: libfaketime.
    Clocks,
    /// Processor time and memory can be shared out: cgroups of version 1, and root.
    Cgroups,
}

impl Need {
    /// Why a scenario with this need cannot run here; nothing if it can.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Proxies => None,
            Self::Disks => disks_missing(),
            Self::Tracing => tracing_missing(),
            Self::Hosts => hosts::missing(),
            Self::Weather => hosts::weather_missing(),
            Self::Clocks => clocks::missing(),
            Self::Cgroups => cgroups_missing(),
        }
    }

    /// What the program must do for it before it does anything else: it may begin again.
    pub fn prepare(self) -> anyhow::Result<()> {
        match self {
            Self::Hosts => hosts::enter(),
            Self::Proxies | Self::Disks | Self::Tracing | Self::Weather | Self::Clocks | Self::Cgroups => {
                Ok(())
            }
        }
    }

    /// Adds it to a cluster that is to be started.
    pub fn add_to(self, plan: &mut Plan) {
        match self {
            Self::Proxies => plan.proxied = true,
            Self::Disks => plan.disks = true,
            Self::Hosts => plan.hosts = true,
            Self::Clocks => plan.clocks = true,
            Self::Tracing | Self::Weather | Self::Cgroups => {}
        }
    }
}
