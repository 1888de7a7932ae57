//! What a `mesos.v1.ContainerInfo` asks for, as far as agents do it. The rest is refused in words that name the field.

use super::docker::{OfEngine, PARAMETER_BYTES_MAX, PARAMETERS_MAX, is_driver, is_name};
use muster_container::{DEFAULT_CAPABILITIES, Rlimit};
use muster_proto::mesos::{
    CapabilityInfo, ContainerInfo, Image, LinuxInfo, RLimitInfo, Secret, TtyInfo, Volume, container_info,
    image, linux_info, mount_propagation, r_limit_info::r_limit, secret, volume,
};
use std::path::{Component, Path, PathBuf};

/// Volumes of one container.
const VOLUMES_MAX: usize = 256;
/// Bytes of a secret.
const SECRET_BYTES_MAX: usize = 1 << 20;
/// A host's name (Linux).
const HOSTNAME_BYTES_MAX: usize = 64;

/// A container that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The name of its image; none: it has the machine's files.
    pub(crate) image: Option<String>,
    pub(crate) volumes: Vec<Wanted>,
    pub(crate) hostname: Option<String>,
    pub(crate) rlimits: Vec<Rlimit>,
    /// None: the usual ones.
    pub(crate) capabilities: Option<Vec<String>>,
    /// Whether it sees the machine's processes.
    pub(crate) shares_pids: bool,
    /// The size of its terminal; none: it has none.
    pub(crate) terminal: Option<(u16, u16)>,
    /// What a Docker engine may be asked for: it is of type DOCKER.
    pub(crate) engine: Option<OfEngine>,
}

/// A volume that is asked for.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) source: From,
    /// Absolute, or below the sandbox.
    pub(crate) target: PathBuf,
    pub(crate) read_only: bool,
}

/// What is seen in a volume.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum From {
    /// A path of the machine; absolute.
    Host(PathBuf),
    /// A path of the sandbox.
    Sandbox(PathBuf),
    /// A path of the sandbox of the executor that the task is within.
    Parent(PathBuf),
    /// A file of these bytes.
    Secret(Vec<u8>),
    /// All of an image.
    Image(String),
    /// A volume of a Docker engine.
    Named { name: String, driver: Option<String>, options: Vec<(String, String)> },
}

/// Secrets are not shown.
impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let source = match &self.source {
            From::Host(path) => format!("host {}", path.display()),
            From::Sandbox(path) => format!("sandbox {}", path.display()),
            From::Parent(path) => format!("parent {}", path.display()),
            From::Secret(_) => "a secret".into(),
            From::Image(name) => format!("image {name}"),
            From::Named { name, .. } => format!("volume {name}"),
        };
        write!(f, "{source} at {}{}", self.target.display(), if self.read_only { " (read only)" } else { "" })
    }
}

impl Asked {
    /// Reads a description. The error names the field and says what would be right.
    pub(crate) fn read(info: &ContainerInfo) -> Result<Self, String> {
        let (image, engine) = match info.r#type() {
            container_info::Type::Docker => {
                let (image, engine) = OfEngine::read(info)?;
                (Some(image), Some(engine))
            }
            container_info::Type::Mesos => {
                let image = info.mesos.as_ref().and_then(|mesos| mesos.image.as_ref());
                let image = image.map(image_name).transpose();
                (image.map_err(|why| format!("container.mesos.image{why}"))?, None)
            }
        };
        if engine.is_none()
            && let Some(name) = info.network_infos.iter().find_map(|it| it.name.as_ref())
        {
            return Err(format!(
                "container.network_infos: there is no network {name:?}; containers have the machine's network"
            ));
        }
        if info.network_infos.iter().any(|it| !it.port_mappings.is_empty()) {
            return Err(
                "container.network_infos: ports are not mapped; containers have the machine's network".into(),
            );
        }
        let (capabilities, shares_pids) = match &info.linux_info {
            None => (None, false),
            Some(linux) => linux_part(linux)?,
        };
        if info.volumes.len() > VOLUMES_MAX {
            return Err(format!(
                "container.volumes: {} are named, at most {VOLUMES_MAX} are allowed",
                info.volumes.len()
            ));
        }
        let volumes = info.volumes.iter().enumerate();
        let volumes: Result<Vec<_>, _> = volumes
            .map(|(i, one)| {
                wanted(one, engine.as_ref()).map_err(|why| format!("container.volumes[{i}]{why}"))
            })
            .collect();
        Ok(Self {
            image,
            volumes: volumes?,
            hostname: info.hostname.as_deref().map(hostname).transpose()?,
            rlimits: info.rlimit_info.as_ref().map(rlimits).transpose()?.unwrap_or_default(),
            capabilities,
            shares_pids,
            terminal: info.tty_info.as_ref().map(terminal_size),
            engine,
        })
    }

    /// Whether it takes more than a process.
    pub(crate) fn is_more_than_a_process(&self) -> bool {
        *self != Self { terminal: self.terminal, ..Self::default() }
    }
}

/// The size of a terminal of which none is told.
const TERMINAL: (u16, u16) = (24, 80);

/// The lines and the characters of a line of a terminal.
pub(crate) fn terminal_size(info: &TtyInfo) -> (u16, u16) {
    let of = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    info.window_size.as_ref().map_or(TERMINAL, |it| (of(it.rows), of(it.columns)))
}

/// The name of an image. The error goes on after the name of its field.
fn image_name(image: &Image) -> Result<String, String> {
    if image.r#type() == image::Type::Appc {
        return Err(".appc: images of APPC are not supported; name a docker or OCI image".into());
    }
    let docker = image.docker.as_ref().ok_or(".docker: is missing")?;
    #[expect(deprecated, reason = "frameworks still send it")]
    if docker.config.is_some() || docker.credential.is_some() {
        return Err(".docker.config: agents show registries no credentials; leave it out".into());
    }
    match docker.name.is_empty() {
        true => Err(".docker.name: is empty".into()),
        false => Ok(docker.name.clone()),
    }
}

/// Capabilities, and whether it sees the machine's processes.
fn linux_part(linux: &LinuxInfo) -> Result<(Option<Vec<String>>, bool), String> {
    if linux.seccomp.as_ref().is_some_and(|seccomp| seccomp.profile_name.is_some()) {
        return Err("container.linux_info.seccomp: this agent has no profiles; leave it out".into());
    }
    if linux.shm_size.is_some() {
        return Err("container.linux_info.shm_size: /dev/shm has 64 MB; leave it out".into());
    }
    if linux.ipc_mode() == linux_info::IpcMode::ShareParent {
        return Err("container.linux_info.ipc_mode: containers have their own; leave it out".into());
    }
    let bounding = linux.bounding_capabilities.as_ref().map(|it| (it, "bounding_capabilities"));
    let effective = linux.effective_capabilities.as_ref().map(|it| (it, "effective_capabilities"));
    #[expect(deprecated, reason = "frameworks still send it")]
    let old = linux.capability_info.as_ref().map(|it| (it, "capability_info"));
    // What is effective must be in what bounds it.
    let named = effective.or(bounding).or(old);
    let capabilities = named.map(|(info, field)| capabilities(info, field)).transpose()?;
    Ok((capabilities, linux.share_pid_namespace()))
}

fn capabilities(info: &CapabilityInfo, field: &str) -> Result<Vec<String>, String> {
    let each = info.capabilities().map(|one| {
        let name = format!("CAP_{}", one.as_str_name());
        match DEFAULT_CAPABILITIES.contains(&&*name) {
            true => Ok(name),
            false => Err(format!(
                "container.linux_info.{field}: {} is not given to tasks; those that are: {}",
                one.as_str_name(),
                DEFAULT_CAPABILITIES.join(", ")
            )),
        }
    });
    each.collect()
}

fn hostname(name: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    match !name.is_empty() && name.len() <= HOSTNAME_BYTES_MAX && name.chars().all(fits) {
        true => Ok(name.to_owned()),
        false => Err(format!(
            "container.hostname: is {name:?}, must be 1 to {HOSTNAME_BYTES_MAX} letters, digits, '-', '.' and '_'"
        )),
    }
}

fn rlimits(info: &RLimitInfo) -> Result<Vec<Rlimit>, String> {
    let each = info.rlimits.iter().map(|limit| {
        let name = limit.r#type().as_str_name();
        let Some(kind) = name.strip_prefix("RLMT_").filter(|_| limit.r#type() != r_limit::Type::Unknown)
        else {
            return Err("container.rlimit_info: a limit has no type".to_owned());
        };
        let (soft, hard) = match (limit.soft, limit.hard) {
            (Some(soft), Some(hard)) if soft <= hard => (soft, hard),
            (None, None) => (u64::MAX, u64::MAX),
            _ => {
                return Err(format!(
                    "container.rlimit_info: {name} needs both soft and hard, or neither for none, and soft no more \
                     than hard"
                ));
            }
        };
        Ok(Rlimit { name: format!("RLIMIT_{kind}"), soft, hard })
    });
    each.collect()
}

/// A volume. The error goes on after the name of its field.
fn wanted(volume: &Volume, engine: Option<&OfEngine>) -> Result<Wanted, String> {
    use volume::source::Type;
    let named = [volume.host_path.is_some(), volume.image.is_some(), volume.source.is_some()];
    if named.into_iter().filter(|it| *it).count() != 1 {
        return Err(": needs exactly one of host_path, image and source".into());
    }
    let source = match (&volume.host_path, &volume.image, &volume.source) {
        // With a driver of volumes it is a name, and else below the sandbox, as in Mesos.
        (Some(name), ..) if let Some(of_engine) = engine.filter(|_| !name.starts_with('/')) => {
            match &of_engine.volume_driver {
                Some(driver) if is_name(name) => {
                    From::Named { name: name.clone(), driver: Some(driver.clone()), options: Vec::new() }
                }
                Some(_) => {
                    return Err(format!(
                        ".host_path: is {name:?}, must be a path from / on, or the name of a volume: letters, digits, \
                         '_', '.' and '-'"
                    ));
                }
                None => From::Sandbox(relative(name).ok_or_else(|| {
                    format!(".host_path: is {name:?}, must be a path from / on, or one below the sandbox")
                })?),
            }
        }
        (Some(path), ..) => host(path, ".host_path")?,
        (_, Some(image), _) => From::Image(image_name(image).map_err(|why| format!(".image{why}"))?),
        (_, _, Some(source)) => match source.r#type() {
            Type::HostPath => {
                let host_path = source.host_path.as_ref().ok_or(".source.host_path: is missing")?;
                let mode = host_path.mount_propagation.as_ref().map(|it| it.mode());
                if mode == Some(mount_propagation::Mode::Bidirectional) {
                    return Err(
                        ".source.host_path.mount_propagation: BIDIRECTIONAL is not given to tasks".into()
                    );
                }
                host(&host_path.path, ".source.host_path.path")?
            }
            Type::SandboxPath => {
                let inner = source.sandbox_path.as_ref().ok_or(".source.sandbox_path: is missing")?;
                let path = relative(&inner.path).ok_or_else(|| {
                    format!(
                        ".source.sandbox_path.path: is {:?}, must be a path below the sandbox",
                        inner.path
                    )
                })?;
                match inner.r#type() {
                    volume::source::sandbox_path::Type::Self_ => From::Sandbox(path),
                    volume::source::sandbox_path::Type::Parent => From::Parent(path),
                    volume::source::sandbox_path::Type::Unknown => {
                        return Err(".source.sandbox_path.type: is missing; name SELF or PARENT".into());
                    }
                }
            }
            Type::Secret => {
                let inner = source.secret.as_ref().ok_or(".source.secret: is missing")?;
                From::Secret(value(inner).map_err(|why| format!(".source.secret: {why}"))?)
            }
            Type::DockerVolume if let Some(of_engine) = engine => {
                let inner = source.docker_volume.as_ref().ok_or(".source.docker_volume: is missing")?;
                let driver = inner.driver.clone().filter(|driver| !driver.is_empty());
                let driver = driver.or_else(|| of_engine.volume_driver.clone());
                if let Some(driver) = driver.as_ref().filter(|driver| !is_driver(driver)) {
                    return Err(format!(".source.docker_volume.driver: {driver:?} is no name of a driver"));
                }
                if !is_name(&inner.name) {
                    return Err(format!(
                        ".source.docker_volume.name: is {:?}, must be letters, digits, '_', '.' and '-'",
                        inner.name
                    ));
                }
                let options = inner.driver_options.iter().flat_map(|it| &it.parameter);
                let options = options.map(|it| (it.key.clone(), it.value.clone()));
                let options: Vec<_> = options.take(PARAMETERS_MAX + 1).collect();
                let is_odd = |text: &String| text.contains('\0') || text.len() > PARAMETER_BYTES_MAX;
                if options.len() > PARAMETERS_MAX
                    || options.iter().any(|(key, value)| is_odd(key) || is_odd(value))
                {
                    return Err(format!(
                        ".source.docker_volume.driver_options: must be at most {PARAMETERS_MAX}, without NUL and of at \
                         most {PARAMETER_BYTES_MAX} bytes each"
                    ));
                }
                From::Named { name: inner.name.clone(), driver, options }
            }
            other => {
                return Err(format!(
                    ".source.type: {} is not supported; name HOST_PATH, SANDBOX_PATH or SECRET (a container of type \
                     DOCKER also DOCKER_VOLUME)",
                    other.as_str_name()
                ));
            }
        },
        (None, None, None) => return Err(": has no source".into()),
    };
    let target = Path::new(&volume.container_path);
    let is_absolute = target.is_absolute() && is_plain(target) && target != Path::new("/");
    let target = match is_absolute {
        true => target.to_owned(),
        false => relative(&volume.container_path).ok_or_else(|| {
            format!(
                ".container_path: is {:?}, must be an absolute path or one below the sandbox, without '..'",
                volume.container_path
            )
        })?,
    };
    // What all containers of an image have must stay as it is, and a secret is told, not asked.
    let is_shared = matches!(source, From::Image(_) | From::Secret(_));
    Ok(Wanted { source, target, read_only: is_shared || volume.mode() == volume::Mode::Ro })
}

/// The bytes of a secret that is said.
pub(crate) fn value(secret: &Secret) -> Result<Vec<u8>, String> {
    match (secret.r#type(), &secret.value) {
        (secret::Type::Value, Some(value)) if value.data.len() <= SECRET_BYTES_MAX => Ok(value.data.to_vec()),
        (secret::Type::Value, Some(_)) => Err(format!("has more than {SECRET_BYTES_MAX} bytes")),
        (secret::Type::Value, None) => Err("is of type VALUE and has no value".into()),
        (secret::Type::Reference, _) => {
            Err("is a reference, and this agent resolves none; send its value".into())
        }
        (secret::Type::Unknown, _) => Err("has no type; name VALUE".into()),
    }
}

fn host(path: &str, field: &str) -> Result<From, String> {
    let named = Path::new(path);
    match named.is_absolute() && is_plain(named) {
        true => Ok(From::Host(named.to_owned())),
        false => Err(format!("{field}: is {path:?}, must be an absolute path without '..'")),
    }
}

fn is_plain(path: &Path) -> bool {
    !path.as_os_str().as_encoded_bytes().contains(&0)
        && path.components().all(|part| matches!(part, Component::Normal(_) | Component::RootDir))
}

fn relative(path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    (!path.is_absolute() && is_plain(path) && !path.as_os_str().is_empty()).then(|| path.to_owned())
}
