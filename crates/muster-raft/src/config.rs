//! What a replica is told at its start.

use crate::error::OpenError;
use std::{collections::BTreeSet, path::PathBuf};

/// Names and addresses become part of the durable mark.
const NAME_BYTES_MAX: usize = 255;
/// More voters only slow every commit down.
const MEMBERS_MAX: usize = 9;

/// What a replica is told at its start. Times are in milliseconds, sizes in bytes.
#[derive(Debug, Clone)]
pub struct RaftConfig {
    /// Which of `members` this is.
    pub name: String,
    /// Every master: name and host:port. The first one creates the cluster, no other privilege.
    pub members: Vec<(String, String)>,
    /// Where everything durable is.
    pub data_dir: PathBuf,
    /// Refuse a directory of another cluster.
    pub cluster_id: Option<String>,
    /// How often the leader is heard.
    pub heartbeat_ms: u64,
    /// The shortest silence after which a follower campaigns.
    pub election_ms_min: u64,
    /// The longest one; also how long a leader without a quorum may still act.
    pub election_ms_max: u64,
    /// Entries after which a snapshot is taken.
    pub snapshot_entries: u64,
    /// Bytes of log after which a snapshot is taken.
    pub snapshot_bytes: u64,
    /// Bytes of log kept behind a snapshot, for followers that lag a little.
    pub log_tail_bytes: u64,
    /// Commands in one entry.
    pub max_entry_commands: usize,
    /// Bytes in one entry, unless one command alone has more.
    pub max_entry_bytes: usize,
    /// Commands that may wait for the proposer.
    pub propose_queue: usize,
    /// Entries proposed and not yet applied.
    pub entries_in_flight: usize,
    /// While entries are in flight another one goes out only when so many commands wait for each of them.
    pub pipelined_commands: usize,
    /// How long an old node id must have been silent before another takes its place unasked.
    pub replace_silence_ms: u64,
    /// How often a master that is not in a cluster yet asks the others.
    pub ask_ms: u64,
    /// Acknowledge what is not durable: only for the test that must then lose data.
    #[cfg(feature = "fault-no-sync")]
    pub no_sync: bool,
}

impl RaftConfig {
    /// The defaults, for a LAN.
    pub fn new(
        name: impl Into<String>,
        members: Vec<(String, String)>,
        data_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            name: name.into(),
            members,
            data_dir: data_dir.into(),
            cluster_id: None,
            heartbeat_ms: 50,
            election_ms_min: 150,
            election_ms_max: 300,
            snapshot_entries: 100_000,
            snapshot_bytes: 256 << 20,
            log_tail_bytes: 64 << 20,
            max_entry_commands: 1_024,
            max_entry_bytes: 1 << 20,
            propose_queue: 65_536,
            entries_in_flight: 4,
            pipelined_commands: 64,
            replace_silence_ms: 60_000,
            ask_ms: 200,
            #[cfg(feature = "fault-no-sync")]
            no_sync: false,
        }
    }

    /// Says what contradicts itself.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let wrong = |what: String| Err(OpenError::Config(what));
        if !self.members.iter().any(|(name, _)| *name == self.name) {
            let names: Vec<&str> = self.members.iter().map(|(name, _)| name.as_str()).collect();
            return wrong(format!(
                "this master is called {}, but the list has only {}",
                self.name,
                names.join(", ")
            ));
        }
        if self.members.len() > MEMBERS_MAX {
            return wrong(format!(
                "it has {} masters, at most {MEMBERS_MAX} are allowed",
                self.members.len()
            ));
        }
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for (name, address) in &self.members {
            if name.is_empty() || name.len() > NAME_BYTES_MAX || address.len() > NAME_BYTES_MAX {
                return wrong(format!(
                    "{name:?} at {address:?} is empty or longer than {NAME_BYTES_MAX} bytes"
                ));
            }
            if !names.insert(name) {
                return wrong(format!("two masters are called {name}; give each its own name"));
            }
            if !addresses.insert(address) {
                return wrong(format!("two masters have the address {address}; give each its own"));
            }
            if endpoint(address).is_err() {
                return wrong(format!("the address {address:?} of {name} is not host:port"));
            }
        }
        let steps = [self.heartbeat_ms, self.election_ms_min, self.election_ms_max];
        if self.heartbeat_ms == 0 || self.heartbeat_ms * 2 > self.election_ms_min || steps[1] >= steps[2] {
            return wrong(format!(
                "the times {steps:?} ms do not fit: the heartbeat must be at most half of the shortest election \
                 timeout, and that one shorter than the longest"
            ));
        }
        Ok(())
    }

    /// The configured address of a master.
    pub(crate) fn address_of(&self, name: &str) -> Option<&str> {
        self.members.iter().find(|(known, _)| known == name).map(|(_, address)| address.as_str())
    }
}

/// How to dial host:port.
pub(crate) fn endpoint(address: &str) -> Result<tonic::transport::Endpoint, tonic::transport::Error> {
    let authority_only = address.contains(':') && !address.contains('/');
    tonic::transport::Endpoint::from_shared(if authority_only {
        format!("http://{address}")
    } else {
        String::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, members: &[(&str, &str)]) -> Result<(), String> {
        let members = members.iter().map(|(name, address)| (name.to_string(), address.to_string())).collect();
        RaftConfig::new(name, members, "/nowhere").check().map_err(|error| error.to_string())
    }

    #[test]
    fn a_wrong_master_list_is_named() {
        assert_eq!(check("m1", &[("m1", "127.0.0.1:1"), ("m2", "127.0.0.1:2")]), Ok(()));
        let said = |name, members: &[_], what: &str| {
            let error = check(name, members).unwrap_err();
            assert!(error.contains(what), "{error}");
        };
        said("m9", &[("m1", "a:1")], "m9");
        said("m1", &[("m1", "a:1"), ("m1", "a:2")], "two masters are called m1");
        said("m1", &[("m1", "a:1"), ("m2", "a:1")], "two masters have the address a:1");
        said("m1", &[("m1", "nonsense")], "not host:port");
    }
}
