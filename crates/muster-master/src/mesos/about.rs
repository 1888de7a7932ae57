//! What this master says of itself: its name, its address, its settings in Mesos' words.

use crate::MasterConfig;
use muster_http::machine::duration;
pub(crate) use muster_http::machine::seconds;
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Instant, SystemTime},
};

/// What this master is, for as long as it runs.
#[derive(Debug)]
pub(crate) struct About {
    /// Where clients reach it, `host:port`.
    pub(crate) address: String,
    /// When it started, by its wall clock.
    pub(crate) started: SystemTime,
    /// The same, to count from.
    pub(crate) since: Instant,
    /// How many masters there are.
    pub(crate) masters: usize,
    /// Its settings by the names of Mesos' flags, where they mean the same. By name.
    pub(crate) flags: BTreeMap<&'static str, String>,
    /// The file that it logs to.
    pub(crate) log_file: Option<std::path::PathBuf>,
    /// The claims of roles against each other; 1.0 where none is given.
    pub(crate) weights: BTreeMap<String, f64>,
}

impl About {
    pub(crate) fn of(config: &MasterConfig) -> Self {
        let address = config.address().unwrap_or_default().to_owned();
        Self {
            flags: flags(config, &address),
            address,
            started: SystemTime::now(),
            since: Instant::now(),
            masters: config.members.len(),
            log_file: config.log_file.clone(),
            weights: config.allocator.weights.clone(),
        }
    }

    /// Its host, and its port.
    pub(crate) fn host(&self) -> (&str, u16) {
        host(&self.address)
    }

    /// As Mesos names the process of a master.
    pub(crate) fn pid(&self) -> String {
        format!("master@{}", self.address)
    }
}

fn host(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    (host, port.parse().unwrap_or(5050))
}

fn flags(config: &MasterConfig, address: &str) -> BTreeMap<&'static str, String> {
    let (host, port) = host(address);
    let limits = muster_registry::Limits::default();
    let mut flags = BTreeMap::from([
        ("agent_ping_timeout", duration(config.session.ping_ms)),
        ("agent_reregister_timeout", duration(config.session.agent_timeout_ms)),
        ("authenticate_agents", "false".into()),
        ("authenticate_frameworks", "false".into()),
        ("authenticate_http_frameworks", config.auth.frameworks.to_string()),
        ("authenticate_http_readonly", config.auth.readonly.to_string()),
        ("authenticate_http_readwrite", config.auth.readwrite.to_string()),
        ("hostname", host.into()),
        ("max_agent_ping_timeouts", config.session.missed_pings_max.to_string()),
        ("max_completed_frameworks", limits.completed_frameworks.to_string()),
        ("max_completed_tasks_per_framework", limits.completed_tasks_per_framework.to_string()),
        ("max_operator_event_stream_subscribers", super::events::SUBSCRIBERS.to_string()),
        ("offer_timeout", duration(config.allocator.offer_timeout_ms)),
        ("port", port.to_string()),
        ("quorum", (config.members.len() / 2 + 1).to_string()),
        ("registry", "replicated_log".into()),
        ("registry_max_agent_age", duration(limits.lost_agents_ms)),
        ("registry_max_agent_count", limits.lost_agents.to_string()),
        ("work_dir", config.data_dir.display().to_string()),
    ]);
    if host.parse::<Ipv4Addr>().is_ok() {
        flags.insert("ip", host.into());
    }
    if config.auth.frameworks {
        flags.insert("http_framework_authenticators", "basic".into());
    }
    for (name, path) in [("acls", &config.auth.acls), ("credentials", &config.auth.credentials)] {
        if !path.as_os_str().is_empty() {
            flags.insert(name, path.display().to_string());
        }
    }
    if !config.allocator.weights.is_empty() {
        let weights = config.allocator.weights.iter().map(|(role, weight)| format!("{role}={weight}"));
        flags.insert("weights", weights.collect::<Vec<_>>().join(","));
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_the_names_of_flags() {
        let about = About::of(&MasterConfig::default());
        assert_eq!(about.flags["port"], "5050");
        assert_eq!(about.flags["agent_ping_timeout"], "5secs");
        assert_eq!(about.pid(), "master@127.0.0.1:5050");
    }
}
