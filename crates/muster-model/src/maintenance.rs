//! Maintenance: which machines will be away, and when.

use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr, sync::Arc};

/// A machine as operators name it: by its name, its address or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MachineName {
    /// The name its agent goes by. Its case does not matter.
    pub hostname: Option<Arc<str>>,
    /// The address its agent says.
    pub ip: Option<IpAddr>,
}

impl MachineName {
    /// The same machine, written as all that mean it are.
    pub fn folded(&self) -> Self {
        let hostname = self.hostname.as_ref().map(|name| name.to_lowercase().into());
        Self { hostname, ip: self.ip }
    }

    /// All names, folded, that mean the machine of an agent with this name and address.
    pub fn all_of(hostname: &str, ip: Option<IpAddr>) -> impl Iterator<Item = Self> {
        let hostname: Arc<str> = hostname.to_lowercase().into();
        let with = |ip| Self { hostname: Some(hostname.clone()), ip };
        let names = [ip.map(|ip| with(Some(ip))), Some(with(None)), ip.map(Self::of_ip)];
        names.into_iter().flatten()
    }

    fn of_ip(ip: IpAddr) -> Self {
        Self { hostname: None, ip: Some(ip) }
    }
}

impl fmt::Display for MachineName {
    /// As operators of the Mesos API write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.hostname, &self.ip) {
            (Some(hostname), Some(ip)) => write!(f, "{{\"hostname\":{hostname:?},\"ip\":\"{ip}\"}}"),
            (Some(hostname), None) => write!(f, "{{\"hostname\":{hostname:?}}}"),
            (None, Some(ip)) => write!(f, "{{\"ip\":\"{ip}\"}}"),
            (None, None) => f.write_str("{}"),
        }
    }
}

/// When something will be away, for people and frameworks: nothing happens by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Unavailability {
    /// From when on, in nanoseconds since the Unix epoch.
    pub start_ns: i64,
    /// For how long, in nanoseconds, 0 or more; none = for good.
    pub duration_ns: Option<i64>,
}

/// Machines that will be away together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    /// Which, at least one.
    pub machines: Vec<MachineName>,
    /// When.
    pub unavailability: Unavailability,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(hostname: Option<&str>, ip: Option<&str>) -> MachineName {
        MachineName { hostname: hostname.map(Into::into), ip: ip.map(|ip| ip.parse().unwrap()) }
    }

    #[test]
    fn what_is_named_must_agree() {
        let all: Vec<_> = MachineName::all_of("Node1", Some("10.0.0.1".parse().unwrap())).collect();
        for good in
            [name(Some("NODE1"), None), name(None, Some("10.0.0.1")), name(Some("node1"), Some("10.0.0.1"))]
        {
            assert!(all.contains(&good.folded()), "{good}");
        }
        for bad in
            [name(Some("node2"), None), name(None, Some("10.0.0.2")), name(Some("node1"), Some("10.0.0.2"))]
        {
            assert!(!all.contains(&bad.folded()), "{bad}");
        }
        // An agent that says no address is not on a machine of which one is named.
        let all: Vec<_> = MachineName::all_of("node1", None).collect();
        assert_eq!(all, [name(Some("node1"), None)]);
    }

    #[test]
    fn names_are_written_as_operators_write_them() {
        let both = name(Some("m1"), Some("127.0.0.9"));
        assert_eq!(both.to_string(), r#"{"hostname":"m1","ip":"127.0.0.9"}"#);
        assert_eq!(name(Some("m1"), None).to_string(), r#"{"hostname":"m1"}"#);
    }
}
