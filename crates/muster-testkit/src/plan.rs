//! What a cluster is made of.

use crate::fail_points::{ADDRESS, PLANT};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A cluster to start.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The binary under test; else the one that `MUSTER_BIN` names or the one beside the test.
    pub exe: Option<PathBuf>,
    /// How many masters, `m1` and on: 1, 3 or 5.
    pub masters: u16,
    /// How many agents, `a1` and on.
    pub agents: u16,
    /// How many frameworks of the test's own have a place in the network, `f1` and on: faults of the network can
    /// name them. The others are part of no fault.
    pub frameworks: u16,
    /// What each agent has to give, `cpus:4;mem:4096`; what is not named is found.
    pub resources: String,
    /// Lines added to each master's configuration, as in `config/master.toml`.
    pub master_config: String,
    /// What masters and agents log, as `--log` takes it.
    pub log: String,
    /// Whether members reach each other through proxies, one for each pair and direction of dialling, so that
    /// the network between them can be cut. It costs a copy of every byte, so it is off unless asked for.
    pub proxied: bool,
    /// Whether each member has a debug endpoint, by which its fail points are set. Takes a binary that was built with
    /// the feature `faults`; another one runs as it always does.
    pub faults: bool,
    /// A bug that all members are to have, by a binary with that feature; `docs/chaos.md` lists them.
    pub planted: Option<String>,
    /// Whether each master has a disk of its own, a loop-mounted ext4 of 256 MiB, so that its power can be cut and
    /// it can fill up. Needs root; [`disks_missing`](crate::disks_missing) says what is not there.
    pub disks: bool,
    /// Whether each member, and each framework with a place in the network, has a host of its own: a network
    /// namespace. Takes root, Linux's tools for it ([`crate::hosts::missing`]), and a process that has called
    /// [`crate::hosts::enter`].
    pub hosts: bool,
    /// Whether each member's wall clock can be set off. Takes libfaketime ([`crate::clocks::missing`]).
    pub clocks: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            exe: None,
            masters: 3,
            agents: 3,
            frameworks: 0,
            resources: "cpus:2;mem:1024;disk:1024".into(),
            master_config: String::new(),
            log: "info".into(),
            proxied: false,
            faults: false,
            planted: None,
            disks: false,
            hosts: false,
            clocks: false,
        }
    }
}

impl Plan {
    /// Lines of [`Plan::master_config`] for masters that a busy machine or a slow disk does not part from their leader:
    /// nobody is elected for a silence of less than 2.5 seconds. A leader that is killed is found out as soon as ever. For
    /// tests that name a leader and go on for a while.
    pub const STEADY: &str = "[raft]\nelection-ms-min = 2500\nelection-ms-max = 3000\n";

    /// The default, of masters that are [`Self::STEADY`].
    pub fn steady() -> Self {
        Self { master_config: Self::STEADY.into(), ..Self::default() }
    }

    /// What a member is started by for its faults.
    pub(crate) fn faults(&self, debug: Option<&SocketAddr>) -> Vec<String> {
        let debug = debug.map(|address| format!("{ADDRESS}={address}"));
        let planted = self.planted.as_ref().map(|bug| format!("{PLANT}={bug}"));
        let set: Vec<_> = debug.into_iter().chain(planted).collect();
        if set.is_empty() { set } else { ["env".to_owned()].into_iter().chain(set).collect() }
    }

    /// The arguments of a master; its configuration file must exist.
    pub(crate) fn master(&self, dir: &Path, name: &str, members: &str) -> Vec<String> {
        let path = |name: String| dir.join(name).to_string_lossy().into_owned();
        let config = path(format!("{name}.toml"));
        let data_dir = path(name.into());
        ["master", "--config", &config, "--name", name, "--members", members, "--data-dir", &data_dir]
            .map(str::to_owned)
            .into()
    }

    /// The arguments of an agent.
    pub(crate) fn agent(&self, dir: &Path, name: &str, port: u16, masters: &str) -> Vec<String> {
        let path = |name: String| dir.join(name).to_string_lossy().into_owned();
        let (work_dir, runtime_dir) = (path(name.into()), path(format!("run-{name}")));
        let port = port.to_string();
        let mut arguments = vec!["agent", "--masters", masters, "--hostname", name, "--port", &port];
        arguments.extend(["--work-dir", &work_dir, "--runtime-dir", &runtime_dir]);
        // Members die at any moment, and control groups outlive them: these have none.
        arguments.extend(["--cgroup-root", "", "--allow-unenforced-limits"]);
        if !self.resources.is_empty() {
            arguments.extend(["--resources", &self.resources]);
        }
        arguments.into_iter().map(str::to_owned).collect()
    }
}
