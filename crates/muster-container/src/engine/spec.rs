//! What an engine is asked for, and the command line that asks for it.

use crate::{Limits, Rlimit};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt::Write,
    path::{Path, PathBuf},
};

/// The longest line that the command line reads of a file of variables, with room for what comes before it, in bytes.
const LINE_BYTES_MAX: usize = 60_000;
/// Processor time is counted over this time, in us.
const PERIOD_US: u64 = 100_000;

/// A container that an engine is asked for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineSpec {
    /// Its name at the engine, which has one of each.
    pub name: String,
    /// What it is found by.
    pub labels: BTreeMap<String, String>,
    /// The name of its image, which the engine has.
    pub image: String,
    /// What is run in the place of the image's entry point; none: that.
    pub entrypoint: Option<String>,
    /// The arguments; none: the image's.
    pub args: Vec<String>,
    /// Variables beside the image's, which they replace.
    pub env: BTreeMap<String, String>,
    /// The user, by name or number, with a group or not; none: the image's.
    pub user: Option<String>,
    /// Other groups of the user, by number.
    pub groups: Vec<u32>,
    /// Where it runs; none: where the image says.
    pub working_dir: Option<PathBuf>,
    /// Its name for itself.
    pub hostname: Option<String>,
    /// Its network.
    pub network: Network,
    /// Ports of the machine that lead to it.
    pub ports: Vec<Port>,
    /// Whether it may do all that root may.
    pub privileged: bool,
    /// Capabilities, `CAP_CHOWN` and so on; none: the engine's usual ones.
    pub capabilities: Option<Vec<String>>,
    /// Whether it sees the machine's processes.
    pub shares_pids: bool,
    /// What is seen in it.
    pub mounts: Vec<EngineMount>,
    /// The driver of volumes that name none.
    pub volume_driver: Option<String>,
    /// Limits of each process.
    pub rlimits: Vec<Rlimit>,
    /// What it may use.
    pub limits: Limits,
    /// The control group that it is made below; none: the engine's choice.
    pub cgroup_parent: Option<PathBuf>,
    /// Other options of the command line, without their dashes. What is said above counts where both say it.
    pub parameters: Vec<(String, String)>,
}

/// The variables may be secret.
impl std::fmt::Debug for EngineSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} with {} variables", self.name, self.image, self.env.len())
    }
}

/// What network a container has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The machine's.
    Host,
    /// None but its own loopback.
    None,
    /// The engine's bridge.
    Bridge,
    /// One that the engine has by this name.
    Named(String),
}

/// A port of the machine that leads to one of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// On the machine.
    pub host: u16,
    /// In the container.
    pub container: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// What is seen somewhere in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineMount {
    /// What.
    pub source: EngineSource,
    /// Where.
    pub target: PathBuf,
    /// Whether it can only be read.
    pub read_only: bool,
}

/// What an engine can show in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineSource {
    /// A path of the machine, which is there.
    Path(PathBuf),
    /// A volume of the engine, made if there is none.
    Volume {
        /// Its name.
        name: String,
        /// What keeps it; none: the container's driver, or the engine's own.
        driver: Option<String>,
        /// What the driver is told.
        options: Vec<(String, String)>,
    },
}

impl EngineSpec {
    /// The arguments that have it created. `env_file` is where its variables can be read
    /// ([`env_memory`](crate::env_memory)): unlike arguments nobody else sees that. Those that a line cannot say are
    /// arguments.
    pub fn arguments(&self, env_file: &str) -> Vec<String> {
        let mut all = vec!["create".to_owned()];
        let mut put = |option: &str, value: &str| all.push(format!("--{option}={value}"));
        // First, so that what follows counts.
        for (key, value) in &self.parameters {
            put(key, value);
        }
        put("name", &self.name);
        put("pull", "never");
        for (key, value) in &self.labels {
            put("label", &format!("{key}={value}"));
        }
        put("env-file", env_file);
        for (name, value) in self.env.iter().filter(|(name, value)| !fits_a_line(name, value)) {
            put("env", &format!("{name}={value}"));
        }
        // What a container says is in its sandbox, and there alone.
        if self.parameters.iter().all(|(key, _)| key != "log-driver") {
            put("log-driver", "none");
        }
        match &self.network {
            Network::Host => put("network", "host"),
            Network::None => put("network", "none"),
            Network::Bridge => put("network", "bridge"),
            Network::Named(name) => put("network", name),
        }
        for Port { host, container, protocol } in &self.ports {
            put("publish", &format!("{host}:{container}/{protocol}"));
        }
        put("privileged", if self.privileged { "true" } else { "false" });
        if let Some(capabilities) = &self.capabilities {
            put("cap-drop", "ALL");
            capabilities.iter().for_each(|name| put("cap-add", name));
        }
        if self.shares_pids {
            put("pid", "host");
        }
        for mount in &self.mounts {
            put("mount", &mount.option());
        }
        for (option, value) in [
            ("volume-driver", &self.volume_driver),
            ("hostname", &self.hostname),
            ("user", &self.user),
            ("entrypoint", &self.entrypoint),
        ] {
            if let Some(value) = value {
                put(option, value);
            }
        }
        self.groups.iter().for_each(|group| put("group-add", &group.to_string()));
        for (option, path) in [("workdir", &self.working_dir), ("cgroup-parent", &self.cgroup_parent)] {
            if let Some(path) = path {
                put(option, &path.to_string_lossy());
            }
        }
        for limit in &self.rlimits {
            let name = limit.name.strip_prefix("RLIMIT_").unwrap_or(&limit.name).to_lowercase();
            put("ulimit", &format!("{name}={}:{}", ulimit(limit.soft), ulimit(limit.hard)));
        }
        let limits = &self.limits;
        let mut limit = |option: &str, value: Option<u64>| {
            if let Some(value) = value {
                put(option, &value.to_string());
            }
        };
        limit("memory", limits.memory_bytes);
        limit("memory-swap", limits.memory_bytes); // both together: none beside it
        limit("cpu-shares", limits.cpu_shares);
        limit("cpu-period", limits.cpu_quota_us.map(|_| PERIOD_US));
        limit("cpu-quota", limits.cpu_quota_us);
        limit("pids-limit", limits.pids);
        all.push(self.image.clone());
        all.extend(self.args.iter().cloned());
        all
    }
}

/// Variables as a file that the command line reads. Those that [`fits_a_line`] says no of are left out.
pub(super) fn env_file(env: &BTreeMap<String, String>) -> String {
    let lines = env.iter().filter(|(name, value)| fits_a_line(name, value));
    lines.fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name}={value}"); // a string takes all
        text
    })
}

/// Whether a file of variables can say this one.
pub fn fits_a_line(name: &str, value: &str) -> bool {
    !name.starts_with('#')
        && !name.contains(|c: char| c.is_whitespace())
        && !value.contains('\n')
        && !value.ends_with('\r')
        && name.len() + value.len() < LINE_BYTES_MAX
}

impl EngineMount {
    /// Comma-separated values.
    fn option(&self) -> String {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let mut all = Vec::new();
        match &self.source {
            EngineSource::Path(source) => {
                all.push("type=bind".to_owned());
                all.push(format!("source={}", path(source)));
            }
            EngineSource::Volume { name, driver, options } => {
                all.push("type=volume".to_owned());
                all.push(format!("source={name}"));
                all.extend(driver.iter().map(|driver| format!("volume-driver={driver}")));
                all.extend(options.iter().map(|(key, value)| format!("volume-opt={key}={value}")));
            }
        }
        all.push(format!("target={}", path(&self.target)));
        if self.read_only {
            all.push("readonly".to_owned());
        }
        let quoted = all.iter().map(|one| match one.contains(['"', ',', '\n', '\r']) {
            true => format!("\"{}\"", one.replace('"', "\"\"")),
            false => one.clone(),
        });
        quoted.collect::<Vec<_>>().join(",")
    }
}

/// No limit has a number of its own.
fn ulimit(value: u64) -> String {
    if value == u64::MAX { "-1".into() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> EngineSpec {
        EngineSpec {
            name: "muster-k-1.5.0".into(),
            labels: [("muster.agent".to_owned(), "k".to_owned())].into(),
            image: "busybox:1".into(),
            entrypoint: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            user: None,
            groups: Vec::new(),
            working_dir: None,
            hostname: None,
            network: Network::Host,
            ports: Vec::new(),
            privileged: false,
            capabilities: None,
            shares_pids: false,
            mounts: Vec::new(),
            volume_driver: None,
            rlimits: Vec::new(),
            limits: Limits::default(),
            cgroup_parent: None,
            parameters: Vec::new(),
        }
    }

    #[test]
    fn what_asks_for_nothing_says_little() {
        let expected = [
            "create",
            "--name=muster-k-1.5.0",
            "--pull=never",
            "--label=muster.agent=k",
            "--env-file=/f",
            "--log-driver=none",
            "--network=host",
            "--privileged=false",
            "busybox:1",
        ];
        assert_eq!(plain().arguments("/f"), expected);
    }

    #[test]
    fn all_that_is_asked_for_is_said() {
        let volume = EngineSource::Volume {
            name: "data".into(),
            driver: Some("rexray".into()),
            options: vec![("size".into(), "5,6".into())],
        };
        let spec = EngineSpec {
            entrypoint: Some("/bin/sh".into()),
            args: vec!["-c".into(), "exit 1".into()],
            env: [("A", "1"), ("B", "two\nlines"), ("C", "a=b")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            user: Some("1:2".into()),
            groups: vec![3],
            working_dir: Some("/w".into()),
            hostname: Some("h".into()),
            network: Network::Named("net".into()),
            ports: vec![Port { host: 31_000, container: 80, protocol: "udp".into() }],
            privileged: true,
            capabilities: Some(vec!["CAP_CHOWN".into()]),
            shares_pids: true,
            mounts: vec![
                EngineMount {
                    source: EngineSource::Path("/a,\"b".into()),
                    target: "/x".into(),
                    read_only: true,
                },
                EngineMount { source: volume, target: "/y".into(), read_only: false },
            ],
            volume_driver: Some("local".into()),
            rlimits: vec![Rlimit { name: "RLIMIT_NOFILE".into(), soft: 5, hard: u64::MAX }],
            limits: Limits {
                cpu_shares: Some(102),
                cpu_quota_us: Some(50_000),
                memory_bytes: Some(32 << 20),
                pids: Some(9),
            },
            cgroup_parent: Some("/muster/k/1.5.0".into()),
            parameters: vec![
                ("log-driver".into(), "journald".into()),
                ("memory".into(), "1g".into()),
                ("init".into(), "true".into()),
            ],
            ..plain()
        };
        let expected = [
            "create",
            "--log-driver=journald",
            "--memory=1g",
            "--init=true",
            "--name=muster-k-1.5.0",
            "--pull=never",
            "--label=muster.agent=k",
            "--env-file=/f",
            "--env=B=two\nlines",
            "--network=net",
            "--publish=31000:80/udp",
            "--privileged=true",
            "--cap-drop=ALL",
            "--cap-add=CAP_CHOWN",
            "--pid=host",
            "--mount=type=bind,\"source=/a,\"\"b\",target=/x,readonly",
            "--mount=type=volume,source=data,volume-driver=rexray,\"volume-opt=size=5,6\",target=/y",
            "--volume-driver=local",
            "--hostname=h",
            "--user=1:2",
            "--entrypoint=/bin/sh",
            "--group-add=3",
            "--workdir=/w",
            "--cgroup-parent=/muster/k/1.5.0",
            "--ulimit=nofile=5:-1",
            "--memory=33554432",
            "--memory-swap=33554432",
            "--cpu-shares=102",
            "--cpu-period=100000",
            "--cpu-quota=50000",
            "--pids-limit=9",
            "busybox:1",
            "-c",
            "exit 1",
        ];
        assert_eq!(spec.arguments("/f"), expected);
        assert_eq!(env_file(&spec.env), "A=1\nC=a=b\n");
    }

    #[test]
    fn what_a_line_cannot_say_is_known() {
        assert!(fits_a_line("A", " spaces \" and 'quotes' # and all "));
        for (name, value) in [("A", "a\nb"), ("A", "a\r"), ("#A", ""), ("A B", "")] {
            assert!(!fits_a_line(name, value), "{name}={value:?}");
        }
        assert!(!fits_a_line("A", &"x".repeat(LINE_BYTES_MAX)));
    }

    #[test]
    fn variables_are_not_shown() {
        let spec = EngineSpec { env: [("A".to_owned(), "hidden".to_owned())].into(), ..plain() };
        assert!(!format!("{spec:?}").contains("hidden"));
    }
}
