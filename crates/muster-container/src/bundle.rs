//! What is asked for, and the OCI specification that says it.

use crate::ContainerError;
use oci_spec::{
    OciSpecError,
    runtime::{
        Capabilities, Capability, LinuxBuilder, LinuxCapabilities, LinuxCapabilitiesBuilder, LinuxCpuBuilder,
        LinuxDeviceCgroupBuilder, LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder,
        LinuxNamespaceType, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder, Mount, MountBuilder,
        PosixRlimit, PosixRlimitBuilder, PosixRlimitType, ProcessBuilder, RootBuilder, Spec, SpecBuilder,
        UserBuilder, get_default_maskedpaths, get_default_readonly_paths,
    },
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// What root in a container may do unless something else is asked for: what docker allows but for making devices, which
/// not every runtime keeps from being used.
pub const DEFAULT_CAPABILITIES: [&str; 13] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// A container that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// What runs in it.
    pub process: Process,
    /// The directory of its root file system.
    pub root: PathBuf,
    /// Whether that can only be read.
    pub read_only: bool,
    /// What is mounted in it before anything that is asked for.
    pub base: Base,
    /// What of the machine is seen in it, in this order.
    pub binds: Vec<Bind>,
    /// Its name for itself; none: the machine's.
    pub hostname: Option<String>,
    /// What it may use.
    pub limits: Limits,
    /// The path of its control group below each hierarchy; none: the runtime's own choice.
    pub cgroup: Option<PathBuf>,
    /// Whose processes it sees.
    pub pids: Pids,
}

/// What runs in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The program, found along the container's own PATH.
    pub program: String,
    /// All arguments, beginning with what the program is told to be called.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Where it runs.
    pub cwd: String,
    /// Who it runs as.
    pub ids: Ids,
    /// Limits of each process.
    pub rlimits: Vec<Rlimit>,
    /// What it may do as root, and what its programs may gain.
    pub capabilities: Vec<String>,
}

/// Who a process runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// The user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Other groups.
    pub groups: Vec<u32>,
}

/// A limit of each process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE` and so on.
    pub name: String,
    /// What holds.
    pub soft: u64,
    /// What it can be raised to.
    pub hard: u64,
}

/// What is mounted before anything that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Base {
    /// The root is an image's: `/proc`, `/dev` and `/sys` are the container's own.
    Image,
    /// The root is the machine's: `/proc` and `/dev` are its own. A runtime fills `/dev` anew, so that it cannot be the
    /// machine's.
    Host,
}

/// A file or directory of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Where it is.
    pub source: PathBuf,
    /// Where it is seen in the container; made if it is not there.
    pub target: PathBuf,
    /// Whether it can only be read. What is mounted in it is not seen then, since it could be written.
    pub read_only: bool,
}

/// What a container may use; nothing where there is no such limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Weight of its processor time, by version 1's scale: 1024 for a whole one.
    pub cpu_shares: Option<u64>,
    /// Processor time of each period of 100 ms, in us.
    pub cpu_quota_us: Option<u64>,
    /// Memory, page cache included, in bytes. There is no swap beside it.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// The time over which a quota of processor time is counted, in us.
const PERIOD_US: u64 = 100_000;

/// Whose processes a container sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pids {
    /// All of the machine.
    Host,
    /// Its own; its command is process 1, and must reap what is left to it.
    Own,
    /// Those of the namespace that is behind this path.
    Of(PathBuf),
}

impl Bundle {
    /// The specification of it.
    ///
    /// # Errors
    /// A name of a capability or of a limit is none, or a limit is beyond what can be said.
    pub fn spec(&self) -> Result<Spec, ContainerError> {
        self.build().map_err(|error| ContainerError::Bundle(error.to_string()))
    }

    fn build(&self) -> Result<Spec, OciSpecError> {
        let mut mounts = base(self.base)?;
        for bind in &self.binds {
            let how = if bind.read_only { ["bind", "ro"] } else { ["rbind", "rw"] };
            let options = how.into_iter().chain(["rprivate"]).map(str::to_owned).collect::<Vec<_>>();
            let one = MountBuilder::default().typ("bind").source(&bind.source).destination(&bind.target);
            mounts.push(one.options(options).build()?);
        }
        let root = RootBuilder::default().path(&self.root).readonly(self.read_only).build()?;
        let mut process = self.process.build()?;
        // Where the machine's own programs are seen beside files of the task's choice, none of them may make it another
        // user: a password file of its own, and it would be root.
        process.set_no_new_privileges(Some(self.base == Base::Host && self.process.ids.uid != 0));
        let spec = SpecBuilder::default()
            .version("1.0.2")
            .process(process)
            .root(root)
            .mounts(mounts)
            .linux(self.linux()?);
        // A name of its own takes a namespace of its own.
        let mut spec = spec.build()?;
        spec.set_hostname(self.hostname.clone());
        Ok(spec)
    }

    fn linux(&self) -> Result<oci_spec::runtime::Linux, OciSpecError> {
        let mut namespaces = vec![namespace(LinuxNamespaceType::Mount)?, namespace(LinuxNamespaceType::Ipc)?];
        if self.hostname.is_some() {
            namespaces.push(namespace(LinuxNamespaceType::Uts)?);
        }
        match &self.pids {
            Pids::Host => {}
            Pids::Own => namespaces.push(namespace(LinuxNamespaceType::Pid)?),
            Pids::Of(path) => namespaces
                .push(LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Pid).path(path).build()?),
        }
        let (masked, read_only) = match self.base {
            Base::Image => (get_default_maskedpaths(), get_default_readonly_paths()),
            Base::Host => (Vec::new(), Vec::new()),
        };
        let linux = LinuxBuilder::default()
            .namespaces(namespaces)
            .resources(self.limits.build()?)
            .masked_paths(masked)
            .readonly_paths(read_only)
            .rootfs_propagation("private");
        let mut linux = linux.build()?;
        linux.set_cgroups_path(self.cgroup.clone());
        // Those that every container has are made by the runtime itself.
        linux.set_devices(None);
        Ok(linux)
    }
}

fn namespace(kind: LinuxNamespaceType) -> Result<LinuxNamespace, OciSpecError> {
    LinuxNamespaceBuilder::default().typ(kind).build()
}

impl Process {
    /// The part of a specification that says it.
    ///
    /// # Errors
    /// As [`Bundle::spec`].
    pub fn spec(&self) -> Result<oci_spec::runtime::Process, ContainerError> {
        self.build().map_err(|error| ContainerError::Bundle(error.to_string()))
    }

    fn build(&self) -> Result<oci_spec::runtime::Process, OciSpecError> {
        let ids = &self.ids;
        let user = UserBuilder::default().uid(ids.uid).gid(ids.gid).additional_gids(ids.groups.clone());
        let named = std::iter::once(self.program.clone());
        let rlimits: Result<Vec<_>, _> = self.rlimits.iter().map(Rlimit::build).collect();
        let process = ProcessBuilder::default()
            .terminal(false)
            .user(user.build()?)
            .args(named.chain(self.args.iter().skip(1).cloned()).collect::<Vec<_>>())
            .env(self.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>())
            .cwd(&self.cwd)
            .capabilities(self.capabilities()?)
            .rlimits(rlimits?)
            .no_new_privileges(false);
        process.build()
    }

    /// Another user than root has none to begin with, and what it starts may have them.
    fn capabilities(&self) -> Result<LinuxCapabilities, OciSpecError> {
        let all: Result<Capabilities, _> = self
            .capabilities
            .iter()
            .map(|name| {
                serde_json::from_value::<Capability>(name.clone().into())
                    .map_err(|_| OciSpecError::Other(format!("there is no capability {name:?}")))
            })
            .collect();
        let all = all?;
        let own = if self.ids.uid == 0 { all.clone() } else { Capabilities::new() };
        LinuxCapabilitiesBuilder::default()
            .bounding(all)
            .effective(own.clone())
            .permitted(own)
            .inheritable(Capabilities::new())
            .ambient(Capabilities::new())
            .build()
    }
}

impl Rlimit {
    fn build(&self) -> Result<PosixRlimit, OciSpecError> {
        let kind = serde_json::from_value::<PosixRlimitType>(self.name.clone().into())
            .map_err(|_| OciSpecError::Other(format!("there is no limit {:?}", self.name)))?;
        PosixRlimitBuilder::default().typ(kind).soft(self.soft).hard(self.hard).build()
    }
}

impl Limits {
    fn build(&self) -> Result<LinuxResources, OciSpecError> {
        let signed = |value: u64| {
            i64::try_from(value).map_err(|_| OciSpecError::Other(format!("the limit {value} is too large")))
        };
        let none = LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build()?;
        let mut all = LinuxResourcesBuilder::default().devices(vec![none]).build()?;
        if let Some(bytes) = self.memory_bytes {
            let bytes = signed(bytes)?;
            // Memory and swap together: none is left for swap.
            all.set_memory(Some(LinuxMemoryBuilder::default().limit(bytes).swap(bytes).build()?));
        }
        if self.cpu_shares.is_some() || self.cpu_quota_us.is_some() {
            let mut cpu = LinuxCpuBuilder::default().build()?;
            cpu.set_shares(self.cpu_shares);
            if let Some(quota) = self.cpu_quota_us {
                cpu.set_quota(Some(signed(quota)?)).set_period(Some(PERIOD_US));
            }
            all.set_cpu(Some(cpu));
        }
        if let Some(pids) = self.pids {
            all.set_pids(Some(LinuxPidsBuilder::default().limit(signed(pids)?).build()?));
        }
        Ok(all)
    }
}

fn base(base: Base) -> Result<Vec<Mount>, OciSpecError> {
    const ALL: [(&str, &str, &str, &[&str]); 6] = [
        ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        (
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    let all = match base {
        Base::Image => &ALL[..],
        Base::Host => &ALL[..5],
    };
    let each = all.iter().map(|(target, kind, source, options)| {
        let options = options.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        MountBuilder::default().destination(*target).typ(*kind).source(*source).options(options).build()
    });
    each.collect()
}
