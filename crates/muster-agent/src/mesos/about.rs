//! What this agent says of itself: its address, its settings in Mesos' words.

use crate::{
    AgentConfig, Containerizer, history::COMPLETED_OF_FRAMEWORK_MAX, launches::LaunchTimes, limits::Enforcer,
};
use muster_http::machine::duration;
use muster_model::{AgentInfo, Sealed};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::{Instant, SystemTime},
};

/// What this agent is, for as long as it runs.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) info: AgentInfo,
    /// The whole `mesos.v1.AgentInfo`.
    pub(crate) sealed: Sealed,
    /// When it started, by its wall clock.
    pub(crate) started: SystemTime,
    /// The same, to count from.
    pub(crate) since: Instant,
    /// How long it took to find again what was there, in seconds.
    pub(crate) recovery_secs: f64,
    /// Its settings by the names of Mesos' flags, where they mean the same. By name.
    pub(crate) flags: BTreeMap<&'static str, String>,
    /// What it makes containers with, or why it does not.
    pub(crate) containers: Vec<(&'static str, Result<String, String>)>,
    /// The groups of its containers, and the limits that it can enforce.
    pub(crate) enforcer: Arc<Enforcer>,
    /// The file that it logs to.
    pub(crate) log_file: Option<PathBuf>,
    /// All sandboxes: `<framework>/<task or executor>/<launch>` below it.
    pub(crate) sandboxes: PathBuf,
    /// All persistent volumes, by number.
    pub(crate) volumes: PathBuf,
    /// What was fetched for commands.
    pub(crate) fetched: Arc<Fetched>,
    /// What became of sandboxes.
    pub(crate) gone: Arc<Gone>,
    /// How long launches take.
    pub(crate) launches: Arc<LaunchTimes>,
}

/// Commands whose files were fetched, or could not be; and what is kept of such files.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    pub(crate) succeeded: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// In bytes: what may be kept.
    pub(crate) cache_total: AtomicU64,
    /// In bytes: what is, or is about to be.
    pub(crate) cache_used: AtomicU64,
}

/// Sandboxes of what is over.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    /// Kept as yet.
    pub(crate) kept: AtomicU64,
    pub(crate) removed: AtomicU64,
    /// Could not be removed.
    pub(crate) failed: AtomicU64,
}

impl About {
    /// As Mesos names the process of an agent.
    pub(crate) fn pid(&self) -> String {
        let ip = muster_proto::agent::ip(&self.sealed, &self.info.hostname);
        let host = ip.map_or_else(|| self.info.hostname.to_string(), |ip| ip.to_string());
        format!("slave(1)@{host}:{}", self.info.port)
    }
}

/// An agent's settings.
pub(crate) fn flags(config: &AgentConfig, info: &AgentInfo) -> BTreeMap<&'static str, String> {
    let mut flags = BTreeMap::from([
        ("authenticate_http_executors", config.auth.executors.to_string()),
        ("authenticate_http_readonly", config.auth.readonly.to_string()),
        ("authenticate_http_readwrite", config.auth.readwrite.to_string()),
        ("cgroups_enable_cfs", config.cgroup_cpu_quota.to_string()),
        ("cgroups_root", config.cgroup_root.display().to_string()),
        ("default_role", "*".into()),
        ("executor_registration_timeout", duration(config.executor_registration_ms)),
        ("executor_reregistration_timeout", duration(config.executor_reregistration_ms)),
        ("executor_shutdown_grace_period", duration(config.executor_grace_ms)),
        ("fetcher_cache_dir", config.work_dir.join("fetched").display().to_string()),
        ("fetcher_cache_size", format!("{}MB", config.fetch_cache_mb)),
        ("fetcher_stall_timeout", duration(config.fetch_ms_max)),
        ("gc_delay", duration(config.sandbox_keep_ms)),
        ("gc_disk_headroom", (config.disk_headroom_percent as f64 / 100.0).to_string()),
        ("hostname", info.hostname.to_string()),
        ("ip", config.listen_ip.to_string()),
        ("launcher", "posix".into()),
        ("master", config.masters.join(",")),
        ("max_completed_executors_per_framework", COMPLETED_OF_FRAMEWORK_MAX.to_string()),
        ("port", info.port.to_string()),
        ("recover", "reconnect".into()),
        ("resources", info.resources.to_string()),
        ("switch_user", config.switch_user.to_string()),
        ("work_dir", config.work_dir.display().to_string()),
    ]);
    for (name, path) in [
        ("acls", &config.auth.acls),
        ("http_credentials", &config.auth.credentials),
        ("jwt_secret_key", &config.auth.jwt_secret_key),
    ] {
        if !path.as_os_str().is_empty() {
            flags.insert(name, path.display().to_string());
        }
    }
    if config.containerizers.contains(&Containerizer::Docker) {
        flags.insert("docker", config.docker.program.clone());
        flags.insert("docker_socket", config.docker.socket.display().to_string());
    }
    if !config.attributes.is_empty() {
        flags.insert("attributes", config.attributes.clone());
    }
    if !config.runtime_dir.as_os_str().is_empty() {
        flags.insert("runtime_dir", config.runtime_dir.display().to_string());
    }
    flags
}
