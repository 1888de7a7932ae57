//! A master's settings: `config/master.toml` lists every key with its default; a test keeps them equal.

use crate::MasterError;
use muster_http::auth::{Realm, Settings};
use muster_model::Role;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

/// Two weeks: for longer no unreachable agent is remembered.
const AGENT_TIMEOUT_MS_MAX: u64 = 14 * 24 * 3_600_000;

/// All settings. Units stand last in a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MasterConfig {
    /// This master's name among the members.
    pub name: String,
    /// All masters: name = "host:port" that the others and clients reach it by.
    pub members: BTreeMap<String, String>,
    /// The first of them in the order of creation: it founds the cluster. Empty = the first by name.
    pub creator: String,
    /// Where the log and the snapshots are. One directory for each master.
    pub data_dir: PathBuf,
    /// What to listen on. Empty = this master's own address among the members.
    pub listen: String,
    /// The file that this process logs to, which it shows over HTTP; none if it is no file. Whoever starts it knows.
    #[serde(skip)]
    pub log_file: Option<PathBuf>,
    /// Consensus.
    pub raft: RaftSection,
    /// Offers.
    pub allocator: AllocatorSection,
    /// Sessions of frameworks and agents.
    pub session: SessionSection,
    /// The Mesos v1 HTTP API.
    pub api: ApiSection,
    /// Who may ask what.
    pub auth: AuthSection,
}

/// Consensus: how fast a dead leader is replaced, and how much log is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RaftSection {
    /// How often a leader is heard of.
    pub heartbeat_ms: u64,
    /// A follower that heard nothing for between this ...
    pub election_ms_min: u64,
    /// ... and this stands for election.
    pub election_ms_max: u64,
    /// A snapshot is taken after this many entries ...
    pub snapshot_entries: u64,
    /// ... or this many MiB of log.
    pub snapshot_mib: u64,
    /// How much log is kept behind the newest snapshot, for masters that lag a little.
    pub log_tail_mib: u64,
}

/// Offers: how agents are shared out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct AllocatorSection {
    /// Offer loops. 0 = one for each core.
    pub shards: u32,
    /// How affinity weighs against balance when a framework said what it needs: 0.0 to 1.0.
    pub affinity_weight: f64,
    /// How long an offer stands.
    pub offer_timeout_ms: u64,
    /// The claims of roles against each other; 1.0 where none is given.
    pub weights: BTreeMap<String, f64>,
}

/// Sessions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SessionSection {
    /// How long whoever a leader change cut off has at least to come back.
    pub reconnect_grace_ms: u64,
    /// How long an agent that is disconnected may stay away before it is unreachable. The newest leader's word counts.
    pub agent_timeout_ms: u64,
    /// How often schedulers hear that the leader lives.
    pub heartbeat_ms: u64,
    /// How often agents are pinged.
    pub ping_ms: u64,
    /// How many pings in a row an agent may miss.
    pub missed_pings_max: u32,
    /// How many commands may wait for the log before calls are answered Busy.
    pub in_flight_max: usize,
}

/// The Mesos v1 HTTP API.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ApiSection {
    /// What a master that does not lead does with a scheduler that subscribes.
    pub follower_streams: FollowerStreams,
    /// How many calls of schedulers are taken in a second, by principal; `*` = all others together. Each master counts for
    /// itself.
    pub calls_per_second: BTreeMap<String, NonZeroU32>,
}

/// Who may ask what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct AuthSection {
    /// The file of principals and their secrets; empty = none.
    pub credentials: PathBuf,
    /// The file of rules; empty = everybody may do everything.
    pub acls: PathBuf,
    /// Whether schedulers must show who they are.
    pub frameworks: bool,
    /// Whether who only reads must.
    pub readonly: bool,
    /// Whether who sets something must, and who uses the operator API.
    pub readwrite: bool,
}

impl AuthSection {
    pub(crate) fn settings(&self) -> Settings {
        let closed = [
            (self.frameworks, Realm::Scheduler),
            (self.readonly, Realm::Readonly),
            (self.readwrite, Realm::Readwrite),
        ];
        Settings {
            closed: closed.into_iter().filter_map(|(is_closed, realm)| is_closed.then_some(realm)).collect(),
            credentials: self.credentials.clone(),
            acls: self.acls.clone(),
            ..Default::default()
        }
    }
}

/// What a master that does not lead does with a scheduler that subscribes over the Mesos API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FollowerStreams {
    /// Sends it to the leader, as Mesos does. Its stream ends with the reign.
    #[default]
    Redirect,
    /// Carries its stream, across changes of leader as well.
    Forward,
}

impl Default for MasterConfig {
    fn default() -> Self {
        Self {
            name: "m1".into(),
            members: BTreeMap::from([("m1".into(), "127.0.0.1:5050".into())]),
            creator: String::new(),
            data_dir: "muster-master".into(),
            listen: String::new(),
            log_file: None,
            raft: RaftSection::default(),
            allocator: AllocatorSection::default(),
            session: SessionSection::default(),
            api: ApiSection::default(),
            auth: AuthSection::default(),
        }
    }
}

impl Default for RaftSection {
    fn default() -> Self {
        Self {
            heartbeat_ms: 50,
            election_ms_min: 150,
            election_ms_max: 300,
            snapshot_entries: 100_000,
            snapshot_mib: 256,
            log_tail_mib: 64,
        }
    }
}

impl Default for AllocatorSection {
    fn default() -> Self {
        Self { shards: 0, affinity_weight: 0.6, offer_timeout_ms: 60_000, weights: BTreeMap::new() }
    }
}

impl Default for SessionSection {
    fn default() -> Self {
        let machine = muster_leader::Config::default();
        Self {
            reconnect_grace_ms: machine.reconnect_grace_ms,
            agent_timeout_ms: machine.agent_timeout_ms,
            heartbeat_ms: machine.heartbeat_ms,
            ping_ms: machine.ping_ms,
            missed_pings_max: machine.missed_pings_max,
            in_flight_max: machine.in_flight_max,
        }
    }
}

impl MasterConfig {
    /// Reads a file. An error names the key.
    pub fn read(path: &Path) -> Result<Self, MasterError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| MasterError::ReadConfig { path: path.into(), source })?;
        toml::from_str(&text)
            .map_err(|error| MasterError::ParseConfig { path: path.into(), problem: problem(&text, &error) })
    }

    /// Reads `m1=host:port,m2=host:port`.
    pub fn parse_members(text: &str) -> Result<BTreeMap<String, String>, String> {
        let mut members = BTreeMap::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, address) = item.split_once('=').ok_or_else(|| {
                format!("member {item:?}: write NAME=HOST:PORT, for example m1=10.0.0.1:5050")
            })?;
            if members.insert(name.trim().to_owned(), address.trim().to_owned()).is_some() {
                return Err(format!("member {name:?} is listed twice: give each master its own name"));
            }
        }
        Ok(members)
    }

    /// This master's own address.
    pub fn address(&self) -> Result<&str, MasterError> {
        self.members.get(&self.name).map(String::as_str).ok_or_else(|| {
            let known: Vec<_> = self.members.keys().map(String::as_str).collect();
            MasterError::Config(format!(
                "name {:?} is not among the members ({}): add it there, or correct --name",
                self.name,
                known.join(", ")
            ))
        })
    }

    /// Checks that the settings fit together.
    pub fn check(&self) -> Result<(), MasterError> {
        let wrong = |text: String| Err(MasterError::Config(text));
        self.address()?;
        for (name, address) in &self.members {
            if address
                .rsplit_once(':')
                .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
            {
                return wrong(format!("members.{name} {address:?} is not HOST:PORT"));
            }
            if let Some((other, _)) = self.members.iter().find(|(n, a)| *n != name && *a == address) {
                return wrong(format!(
                    "members {name} and {other} have one address {address}: correct one of them"
                ));
            }
        }
        if !self.creator.is_empty() && !self.members.contains_key(&self.creator) {
            return wrong(format!("creator {:?} is not among the members: name one of them", self.creator));
        }
        if self.data_dir.as_os_str().is_empty() {
            return wrong("data-dir is empty: name a directory for this master alone".into());
        }
        if !matches!(self.members.len(), 1 | 3 | 5) {
            return wrong(format!("{} members: run 1, 3 or 5 masters", self.members.len()));
        }
        let raft = &self.raft;
        if raft.heartbeat_ms == 0 || raft.election_ms_min < 2 * raft.heartbeat_ms {
            return wrong(
                "raft.election-ms-min must be at least twice raft.heartbeat-ms, which must not be 0".into(),
            );
        }
        if raft.election_ms_max <= raft.election_ms_min {
            return wrong("raft.election-ms-max must be greater than raft.election-ms-min".into());
        }
        if raft.election_ms_max > 60_000 {
            return wrong("raft.election-ms-max must be at most 60000: nobody leads for so long".into());
        }
        if raft.snapshot_entries == 0 || !(1..=65_536).contains(&raft.snapshot_mib) {
            return wrong("raft.snapshot-entries must not be 0, raft.snapshot-mib must be 1 to 65536".into());
        }
        if raft.log_tail_mib > 65_536 {
            return wrong("raft.log-tail-mib must be at most 65536".into());
        }
        if self.allocator.offer_timeout_ms == 0 {
            return wrong("allocator.offer-timeout-ms must not be 0: no offer could be used".into());
        }
        if !(0.0..=1.0).contains(&self.allocator.affinity_weight) {
            return wrong("allocator.affinity-weight must lie between 0.0 and 1.0".into());
        }
        if self.allocator.shards > 256 {
            return wrong(
                "allocator.shards must be at most 256; more than there are cores gain nothing".into(),
            );
        }
        for (role, weight) in &self.allocator.weights {
            if let Err(problem) = Role::parse(role) {
                return wrong(format!("allocator.weights: {problem}"));
            }
            if !(0.001..=1_000_000.0).contains(weight) {
                return wrong(format!("allocator.weights.{role} must lie between 0.001 and 1000000"));
            }
        }
        if self.session.ping_ms == 0 || self.session.heartbeat_ms == 0 || self.session.missed_pings_max == 0 {
            return wrong(
                "session.ping-ms, session.heartbeat-ms and session.missed-pings-max must not be 0".into(),
            );
        }
        if !(1_000..=AGENT_TIMEOUT_MS_MAX).contains(&self.session.agent_timeout_ms) {
            return wrong(format!(
                "session.agent-timeout-ms must lie between 1000, since time passes once a second, and \
                 {AGENT_TIMEOUT_MS_MAX}"
            ));
        }
        if !(16..=32_768).contains(&self.session.in_flight_max) {
            return wrong("session.in-flight-max must lie between 16 and 32768".into());
        }
        Ok(())
    }

    /// What to listen on.
    pub fn listen_address(&self) -> Result<&str, MasterError> {
        if self.listen.is_empty() { self.address() } else { Ok(&self.listen) }
    }

    pub(crate) fn leader(&self) -> muster_leader::Config {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
        let milli = |x: &f64| (x * 1000.0).round() as u64;
        let weights = self
            .allocator
            .weights
            .iter()
            .filter_map(|(role, weight)| Role::parse(role).ok().map(|role| (role, milli(weight))));
        muster_leader::Config {
            shards: if self.allocator.shards == 0 { cores } else { self.allocator.shards },
            policy: muster_allocator::Policy {
                weights: weights.collect(),
                affinity_weight_milli: milli(&self.allocator.affinity_weight),
                ..Default::default()
            },
            reconnect_grace_ms: self.session.reconnect_grace_ms,
            agent_timeout_ms: self.session.agent_timeout_ms,
            offer_timeout_ms: self.allocator.offer_timeout_ms,
            heartbeat_ms: self.session.heartbeat_ms,
            ping_ms: self.session.ping_ms,
            missed_pings_max: self.session.missed_pings_max,
            in_flight_max: self.session.in_flight_max,
        }
    }

    pub(crate) fn raft(&self) -> muster_raft::RaftConfig {
        let mut members: Vec<_> = self.members.clone().into_iter().collect();
        if let Some(at) = members.iter().position(|(name, _)| *name == self.creator) {
            members.swap(0, at); // the first one founds the cluster
        }
        muster_raft::RaftConfig {
            heartbeat_ms: self.raft.heartbeat_ms,
            election_ms_min: self.raft.election_ms_min,
            election_ms_max: self.raft.election_ms_max,
            snapshot_entries: self.raft.snapshot_entries,
            snapshot_bytes: self.raft.snapshot_mib << 20,
            log_tail_bytes: self.raft.log_tail_mib << 20,
            ..muster_raft::RaftConfig::new(self.name.clone(), members, self.data_dir.clone())
        }
    }
}

/// What is wrong in a file, and where.
fn problem(text: &str, error: &toml::de::Error) -> String {
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return error.message().to_owned();
    };
    let number = before.matches('\n').count();
    let line = text.lines().nth(number).unwrap_or_default().trim();
    format!("line {}, {line:?}: {}", number + 1, error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> MasterConfig {
        let members = MasterConfig::parse_members("m1=127.0.0.1:1,m2=127.0.0.1:2,m3=127.0.0.1:3").unwrap();
        MasterConfig { members, ..Default::default() }
    }

    fn problem(config: MasterConfig) -> String {
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn the_documented_file_is_the_default() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/master.toml");
        assert_eq!(MasterConfig::read(Path::new(path)).unwrap(), MasterConfig::default());
        let text = std::fs::read_to_string(path).unwrap();
        let keys: toml::Table = toml::from_str(&text).unwrap();
        let all: toml::Table = toml::from_str(&toml::to_string(&MasterConfig::default()).unwrap()).unwrap();
        fn names(table: &toml::Table, prefix: &str, into: &mut Vec<String>) {
            for (key, value) in table {
                match value {
                    toml::Value::Table(inner) if prefix.is_empty() && !inner.is_empty() => {
                        names(inner, &format!("{key}."), into);
                    }
                    _ => into.push(format!("{prefix}{key}")),
                }
            }
        }
        let (mut written, mut known) = (Vec::new(), Vec::new());
        names(&keys, "", &mut written);
        names(&all, "", &mut known);
        written.sort();
        known.sort();
        assert_eq!(written, known, "config/master.toml lists every key");
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(three().check().is_ok());
        assert!(
            problem(MasterConfig { name: "m9".into(), ..three() })
                .contains("\"m9\" is not among the members")
        );
        let mut one_address = three();
        one_address.members.insert("m2".into(), "127.0.0.1:1".into());
        assert!(problem(one_address).contains("have one address"));
        let mut two = three();
        two.members.remove("m3");
        assert!(problem(two).contains("run 1, 3 or 5"));
        let mut slow = three();
        slow.raft.heartbeat_ms = 100;
        assert!(problem(slow).contains("election-ms-min"));
        let mut hasty = three();
        hasty.session.agent_timeout_ms = 999;
        assert!(problem(hasty).contains("session.agent-timeout-ms"));
        assert!(MasterConfig::parse_members("m1=a:1,m1=b:2").unwrap_err().contains("twice"));
        assert!(MasterConfig::parse_members("m1").unwrap_err().contains("NAME=HOST:PORT"));
    }

    #[test]
    fn an_unknown_key_or_a_wrong_unit_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.toml");
        std::fs::write(&path, "[raft]\nheartbeat-s = 1\n").unwrap();
        let error = MasterConfig::read(&path).unwrap_err().to_string();
        assert!(error.contains("heartbeat-s") && error.contains("heartbeat-ms"), "{error}");
        std::fs::write(&path, "[raft]\nheartbeat-ms = \"50ms\"\n").unwrap();
        let error = MasterConfig::read(&path).unwrap_err().to_string();
        assert!(error.contains("heartbeat-ms"), "{error}");
    }
}
