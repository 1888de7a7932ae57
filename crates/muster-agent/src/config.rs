//! The agent's configuration: plain values, checked once at the start.

use crate::{
    AgentError,
    containers::{Containerizer, DockerSection, ImageSection},
    logs::LogSection,
};
use muster_http::auth::{Realm, Settings};
use muster_model::{Attribute, AttributeValue, MachineId, Resources};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Component, Path, PathBuf},
};

/// The keys of `agent.toml`; `config/agent.toml` says what each means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct AgentConfig {
    /// Masters to dial, `host:port`.
    pub masters: Vec<String>,
    /// Checkpoints and sandboxes.
    pub work_dir: PathBuf,
    /// Sockets of supervisors; empty = a place of this user.
    pub runtime_dir: PathBuf,
    /// The name others reach this agent by; empty = the machine's.
    pub hostname: String,
    /// The address it is shown with; empty = what the name stands for, or where it listens.
    pub ip: String,
    /// The address that the executor API listens on.
    pub listen_ip: IpAddr,
    /// The port that it listens on and this agent is shown with; 0 = any that is free.
    pub port: u16,
    /// The file that this process logs to, which it shows over HTTP; none if it is no file. Whoever starts it knows.
    #[serde(skip)]
    pub log_file: Option<PathBuf>,
    /// What it has to give; kinds that are missing are probed.
    pub resources: String,
    /// What frameworks choose by.
    pub attributes: String,
    /// The machine; empty = found.
    pub machine_id: String,
    /// Whether tasks run as the user their framework names (needs root).
    pub switch_user: bool,
    /// Kill grace where nobody names one, in ms.
    pub kill_grace_ms: u64,
    /// How long an executor that was started may take to subscribe, in ms.
    pub executor_registration_ms: u64,
    /// How long an executor may take to come back after the agent did, in ms.
    pub executor_reregistration_ms: u64,
    /// How long an executor may take to end once it is asked to, in ms.
    pub executor_grace_ms: u64,
    /// How long all that one command names may take to fetch, in ms.
    pub fetch_ms_max: u64,
    /// The longest file that is fetched, in MB.
    pub fetch_mb_max: u64,
    /// What a fetched archive may unpack to, in MB.
    pub fetch_unpacked_mb_max: u64,
    /// What is kept of fetched files that may be, in MB; 0 = nothing.
    pub fetch_cache_mb: u64,
    /// Files that may be fetched at once; others wait for their turn.
    pub fetches_max: usize,
    /// Certificates in PEM that servers are trusted by, beside the system's; empty = none.
    pub fetch_ca_file: PathBuf,
    /// The control group that the agents of this machine have theirs below; empty = none, and so no limits.
    pub cgroup_root: PathBuf,
    /// Whether what a task holds of the processors is also a quota that it never gets more than.
    pub cgroup_cpu_quota: bool,
    /// Processes and threads of one task or executor; 0 = as many as it likes.
    pub pids_max: u64,
    /// Whether tasks run here whose limits cannot be enforced.
    pub allow_unenforced_limits: bool,
    /// What runs tasks; of those that make containers the first that works here does.
    pub containerizers: Vec<Containerizer>,
    /// The OCI runtime, a path or a name on the PATH; empty = runc or crun.
    pub oci_runtime: String,
    /// Below which paths of this machine tasks may be given volumes.
    pub host_path_volumes: Vec<PathBuf>,
    /// Tasks held at once, at most 10,000: fewer where their names and resources are so long that a hello, which lists
    /// them all in one frame, would have no room for so many.
    pub tasks_max: usize,
    /// Supervisors that may be starting at once.
    pub starts_max: usize,
    /// Checks of tasks that may run at once; others wait for their turn.
    pub probes_max: usize,
    /// Sandboxes of ended tasks that are kept.
    pub sandboxes_max: usize,
    /// How long they are kept on an empty disk, in ms.
    pub sandbox_keep_ms: u64,
    /// The part of the disk that they leave free, in percent.
    pub disk_headroom_percent: u64,
    /// How long a hello may stay unanswered, in ms.
    pub welcome_ms: u64,
    /// First pause before an unconfirmed update is repeated, in ms.
    pub repeat_ms: u64,
    /// Longest pause between repeats, in ms.
    pub repeat_ms_max: u64,
    /// First pause before dialling again, in ms.
    pub dial_ms: u64,
    /// Longest pause before dialling again, in ms.
    pub dial_ms_max: u64,
    /// How much is kept of what tasks write.
    pub logs: LogSection,
    /// Where images come from, and how much of them is kept.
    pub images: ImageSection,
    /// The Docker engine, and what it may be asked for.
    pub docker: DockerSection,
    /// Who may ask what over HTTP.
    pub auth: AuthSection,
}

/// Who may ask what over HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct AuthSection {
    /// The file of principals and their secrets; empty = none.
    pub credentials: PathBuf,
    /// The file of rules; empty = everybody may do everything.
    pub acls: PathBuf,
    /// The file of the key that executors' tokens are signed with.
    pub jwt_secret_key: PathBuf,
    /// Whether who only reads must show who it is.
    pub readonly: bool,
    /// Whether who uses the operator API must.
    pub readwrite: bool,
    /// Whether executors must.
    pub executors: bool,
}

impl AuthSection {
    pub(crate) fn settings(&self) -> Settings {
        let closed = [
            (self.readonly, Realm::Readonly),
            (self.readwrite, Realm::Readwrite),
            (self.executors, Realm::Executor),
            (self.executors, Realm::ResourceProvider),
        ];
        Settings {
            closed: closed.into_iter().filter_map(|(is_closed, realm)| is_closed.then_some(realm)).collect(),
            credentials: self.credentials.clone(),
            acls: self.acls.clone(),
            token_key: self.jwt_secret_key.clone(),
        }
    }
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            masters: vec!["127.0.0.1:5050".into(), "127.0.0.1:5051".into(), "127.0.0.1:5052".into()],
            work_dir: "/var/lib/muster/agent".into(),
            runtime_dir: PathBuf::new(),
            hostname: String::new(),
            ip: String::new(),
            listen_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 5150,
            log_file: None,
            resources: String::new(),
            attributes: String::new(),
            machine_id: String::new(),
            switch_user: true,
            kill_grace_ms: 3_000,
            executor_registration_ms: 60_000,
            executor_reregistration_ms: 15_000,
            executor_grace_ms: 5_000,
            fetch_ms_max: 60_000,
            fetch_mb_max: 1_024,
            fetch_unpacked_mb_max: 16_384,
            fetch_cache_mb: 2_048,
            fetches_max: 64,
            fetch_ca_file: PathBuf::new(),
            cgroup_root: "muster".into(),
            cgroup_cpu_quota: false,
            pids_max: 0,
            allow_unenforced_limits: false,
            containerizers: vec![Containerizer::Posix, Containerizer::Native, Containerizer::Oci],
            oci_runtime: String::new(),
            host_path_volumes: vec!["/".into()],
            tasks_max: 10_000,
            starts_max: 16,
            probes_max: 64,
            sandboxes_max: 10_000,
            sandbox_keep_ms: 7 * 24 * 3_600_000,
            disk_headroom_percent: 10,
            welcome_ms: 15_000,
            repeat_ms: 10_000,
            repeat_ms_max: 600_000,
            dial_ms: 50,
            dial_ms_max: 2_000,
            logs: LogSection::default(),
            images: ImageSection::default(),
            docker: DockerSection::default(),
            auth: AuthSection::default(),
        }
    }
}

impl AgentConfig {
    /// Reads a file. The error names the file, the line and what is wrong there.
    pub fn read(path: &Path) -> Result<Self, AgentError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| AgentError::ReadConfig { path: path.to_owned(), source })?;
        let wrong = |what: String| AgentError::Config(format!("{}: {what}", path.display()));
        let config: Self = toml::from_str(&text).map_err(|error| wrong(problem(&text, &error)))?;
        config.check().map_err(|error| match error {
            AgentError::Config(what) => wrong(what),
            other => other,
        })?;
        Ok(config)
    }

    /// Checks all values; [`crate::run`] does so too.
    pub fn check(&self) -> Result<(), AgentError> {
        fn wrong<T>(text: String) -> Result<T, AgentError> {
            Err(AgentError::Config(text))
        }
        if self.masters.is_empty() {
            return wrong("masters is empty; list the masters as host:port".into());
        }
        for (i, master) in self.masters.iter().enumerate() {
            let port =
                master.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse());
            if !matches!(port, Some(Ok(1..=u16::MAX))) {
                return wrong(format!("masters: {master:?} is not host:port, for example 10.0.0.1:5050"));
            }
            if self.masters[..i].contains(master) {
                return wrong(format!("masters: {master:?} occurs twice"));
            }
        }
        if self.work_dir.as_os_str().is_empty() {
            return wrong("work-dir is empty; name a directory that this agent may use alone".into());
        }
        let is_name = |part| matches!(part, Component::Normal(_) | Component::RootDir);
        if !self.cgroup_root.components().all(is_name) {
            return wrong(format!(
                "cgroup-root: {:?} must be a path below the mounts of control groups, for example muster",
                self.cgroup_root
            ));
        }
        if self.cgroup_root == Path::new("/") {
            return wrong("cgroup-root is all control groups; name one for muster alone".into());
        }
        if !self.ip.is_empty() && self.ip.parse::<std::net::IpAddr>().is_err() {
            return wrong(format!("ip: {:?} is no address, for example 10.0.0.5", self.ip));
        }
        for (i, name) in self.containerizers.iter().enumerate() {
            if self.containerizers[..i].contains(name) {
                return wrong(format!("containerizers: {:?} occurs twice", name.name()));
            }
        }
        if !self.containerizers.contains(&Containerizer::Posix) {
            return wrong("containerizers: posix is missing, which runs what asks for no container".into());
        }
        if let Some(path) = self.host_path_volumes.iter().find(|path| !path.is_absolute()) {
            return wrong(format!("host-path-volumes: {path:?} must be an absolute path"));
        }
        self.logs.check()?;
        self.images.check()?;
        self.docker.check()?;
        Resources::parse(&self.resources).or_else(|why| wrong(format!("resources: {why}")))?;
        parse_attributes(&self.attributes).or_else(|why| wrong(format!("attributes: {why}")))?;
        if !self.machine_id.is_empty() {
            MachineId::parse(&self.machine_id)
                .map_err(|error| AgentError::Config(format!("machine-id {:?} {error}", self.machine_id)))?;
        }
        for (name, value, max) in [
            ("kill-grace-ms", self.kill_grace_ms, 7 * 24 * 3_600_000),
            ("executor-registration-ms", self.executor_registration_ms, 3_600_000),
            ("executor-reregistration-ms", self.executor_reregistration_ms, 3_600_000),
            ("executor-grace-ms", self.executor_grace_ms, 7 * 24 * 3_600_000),
            ("fetch-ms-max", self.fetch_ms_max, 3_600_000),
            ("fetch-mb-max", self.fetch_mb_max, 1 << 20),
            ("fetch-unpacked-mb-max", self.fetch_unpacked_mb_max, 1 << 20),
            ("fetch-cache-mb", self.fetch_cache_mb, 1 << 24),
            ("fetches-max", self.fetches_max as u64, 256),
            ("welcome-ms", self.welcome_ms, 3_600_000),
            ("repeat-ms", self.repeat_ms, 3_600_000),
            ("repeat-ms-max", self.repeat_ms_max, 24 * 3_600_000),
            ("dial-ms", self.dial_ms, 60_000),
            ("dial-ms-max", self.dial_ms_max, 600_000),
            ("pids-max", self.pids_max, 4_194_304),
            ("tasks-max", self.tasks_max as u64, 10_000),
            ("starts-max", self.starts_max as u64, 1_024),
            ("sandbox-keep-ms", self.sandbox_keep_ms, 365 * 24 * 3_600_000),
            ("disk-headroom-percent", self.disk_headroom_percent, 100),
            ("probes-max", self.probes_max as u64, 10_000),
        ] {
            let may_be_none = [
                "kill-grace-ms",
                "executor-grace-ms",
                "fetch-cache-mb",
                "pids-max",
                "sandbox-keep-ms",
                "disk-headroom-percent",
            ];
            let least = u64::from(!may_be_none.contains(&name));
            if !(least..=max).contains(&value) {
                return wrong(format!("{name} is {value}, must be {least} to {max}"));
            }
        }
        for (name, first, max) in
            [("repeat-ms", self.repeat_ms, self.repeat_ms_max), ("dial-ms", self.dial_ms, self.dial_ms_max)]
        {
            if first > max {
                return wrong(format!("{name} is {first}, more than {name}-max, which is {max}"));
            }
        }
        Ok(())
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

/// Reads `rack:r1;cores:16;ports:[1-9]`. Errors name the item.
pub(crate) fn parse_attributes(text: &str) -> Result<Vec<Attribute>, String> {
    let mut all: Vec<Attribute> = Vec::new();
    for item in text.split(';').map(str::trim).filter(|item| !item.is_empty()) {
        let (name, value) = item
            .split_once(':')
            .map(|(name, value)| (name.trim(), value.trim()))
            .filter(|(name, value)| !name.is_empty() && !value.is_empty())
            .ok_or_else(|| format!("attribute {item:?}: write NAME:VALUE, for example rack:r1"))?;
        if all.iter().any(|attribute| &*attribute.name == name) {
            return Err(format!("attribute {item:?}: the name occurs twice"));
        }
        // Numbers and ranges are read as resources are; what is neither is a text.
        let value = match Resources::parse(&format!("value:{value}"))
            .ok()
            .as_ref()
            .and_then(|one| one.get("value"))
        {
            Some(muster_model::Value::Scalar(n)) => AttributeValue::Scalar(*n),
            Some(muster_model::Value::Ranges(ranges)) => AttributeValue::Ranges(ranges.clone()),
            _ => AttributeValue::Text(value.into()),
        };
        all.push(Attribute { name: name.into(), value });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/agent.toml");

    #[test]
    fn the_documented_file_holds_every_key_and_its_default() {
        let text = std::fs::read_to_string(FILE).unwrap();
        let from_file: toml::Table = toml::from_str(&text).unwrap();
        let from_code = toml::Table::try_from(AgentConfig::default()).unwrap();
        assert_eq!(from_file, from_code);
        let undocumented: Vec<&str> = text
            .split("\n\n")
            .filter(|block| !block.trim().is_empty() && !block.trim_start().starts_with('#'))
            .collect();
        assert!(undocumented.is_empty(), "keys without a sentence: {undocumented:?}");
    }

    #[test]
    fn a_wrong_file_is_refused_with_the_key_and_the_fix() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        for (text, parts) in [
            ("master = ['a:1']", &["agent.toml", "unknown field", "master"] as &[_]),
            ("masters = []", &["masters is empty"]),
            ("masters = ['localhost']", &["localhost", "host:port"]),
            ("masters = ['a:1', 'a:1']", &["a:1", "twice"]),
            ("kill-grace-ms = '5s'", &["kill-grace-ms", "u64"]),
            ("dial-ms = 5000", &["dial-ms is 5000", "dial-ms-max"]),
            ("resources = 'cpus:four'", &["resources", "cpus:four", "not a number"]),
            ("attributes = 'rack'", &["attributes", "rack", "NAME:VALUE"]),
            ("machine-id = 'a/b'", &["machine-id", "not allowed"]),
            ("tasks-max = 0", &["tasks-max is 0"]),
            ("tasks-max = 10001", &["tasks-max is 10001", "10000"]),
            ("cgroup-root = '../other'", &["cgroup-root", "../other"]),
            ("cgroup-root = '/'", &["cgroup-root", "name one"]),
            ("pids-max = 5000000", &["pids-max is 5000000"]),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = AgentConfig::read(&path).unwrap_err().to_string();
            assert!(error.contains("agent.toml"), "{text}: {error}");
            for part in parts {
                assert!(error.contains(part), "{text}: {error}");
            }
        }
        let error = AgentConfig::read(&dir.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("none"), "{error}");
    }

    #[test]
    fn attributes_are_numbers_ranges_or_texts() {
        let attributes = parse_attributes("rack:r1; cores:16 ;ports:[1-9]").unwrap();
        let values: Vec<_> = attributes.into_iter().map(|attribute| attribute.value).collect();
        let expected = [
            AttributeValue::Text("r1".into()),
            AttributeValue::Scalar(16_000),
            AttributeValue::Ranges(vec![(1, 9)]),
        ];
        assert_eq!(values, expected);
    }
}
