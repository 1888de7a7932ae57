//! Containers: which runtimes this agent has, and from what a task asks for to what its supervisor makes.
//!
//! ```text
//! <work-dir>/images/                  the store
//! <work-dir>/containers/<launch>/     one container: its root file systems, and its bundle
//! ```
//!
//! The agent pulls images and prepares root file systems; all mounts are made by the supervisor, in a mount namespace of
//! its own, so that what the agent removes was never mounted where it could see it.

mod asked;
mod config;
mod prepare;
#[cfg(test)]
mod tests;

pub(crate) use asked::{Asked, terminal_size, value};
pub use config::{Containerizer, ImageSection};
pub(crate) use prepare::Around;

use crate::{AgentConfig, AgentError, command::Unfit, disk::WorkDir};
use muster_container::{Kind, find_program, remove_empty_groups, remove_groups};
use muster_image::{Keep, Rootfs, Store, probe_overlay};
use muster_model::LaunchNumber;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{sync::RwLock, task::spawn_blocking, time::sleep};
use tracing::warn;

/// How often unused layers are looked for.
const COLLECT: Duration = Duration::from_secs(600);
/// Where the sandbox of a container with an image is seen in it.
const SANDBOX: &str = "/mnt/mesos/sandbox";

/// What makes this agent's containers.
#[derive(Debug)]
pub(crate) struct Containers {
    dir: PathBuf,
    store: Result<Store, String>,
    kinds: Vec<(Containerizer, Result<Kind, String>)>,
    /// Whether layers can be seen through one another, or why they are copied.
    overlay: Result<(), String>,
    /// Below which paths of the machine may be seen.
    host_paths: Vec<PathBuf>,
    /// The control group that those of containers are in, below each hierarchy.
    groups: PathBuf,
    keep: Keep,
    /// Read while a container is being made: its layers are named by nothing yet.
    making: RwLock<()>,
}

impl Containers {
    /// Finds out what this machine lets the agent make.
    pub(crate) fn open(config: &AgentConfig, dir: &WorkDir) -> Result<Self, AgentError> {
        let containers = dir.containers();
        fs::create_dir_all(&containers).map_err(|source| AgentError::Prepare {
            doing: "make the directory",
            path: containers.clone(),
            source,
        })?;
        private(&containers)?;
        let kinds = kinds(config);
        let can = kinds.iter().any(|(_, kind)| kind.is_ok());
        // Nothing is made or tried for what is not used.
        let (store, overlay) = match can {
            false => (Err("no containerizer here makes containers of images".into()), Ok(())),
            true => {
                let store = Store::open(&dir.images(), config.images.settings());
                let overlay = probe_overlay(&containers).map_err(|error| error.told());
                (store.map_err(|error| error.told()), overlay)
            }
        };
        let root = if config.cgroup_root.as_os_str().is_empty() {
            Path::new("muster")
        } else {
            config.cgroup_root.strip_prefix("/").unwrap_or(&config.cgroup_root)
        };
        Ok(Self {
            dir: containers,
            store,
            kinds,
            overlay,
            host_paths: config.host_path_volumes.clone(),
            groups: Path::new("/").join(root).join(&dir.fingerprint),
            keep: config.images.keep(),
            making: RwLock::default(),
        })
    }

    /// What it makes containers with, in order of preference, or why it does not.
    pub(crate) fn abilities(&self) -> Vec<(&'static str, Result<String, String>)> {
        let mut all: Vec<_> = self
            .kinds
            .iter()
            .map(|(name, kind)| {
                let found = kind.clone().map(|kind| match kind {
                    Kind::Native => "built in".to_owned(),
                    Kind::Oci(path) => path.display().to_string(),
                });
                (name.name(), found)
            })
            .collect();
        all.push(match (&self.store, &self.overlay) {
            (Err(why), _) => ("images", Err(why.clone())),
            (Ok(_), Ok(())) => ("images", Ok("layers are overlaid".into())),
            (Ok(_), Err(why)) => ("images", Ok(format!("layers are copied: {why}"))),
        });
        all
    }

    /// The first that works here.
    fn kind(&self) -> Result<&Kind, Unfit> {
        if let Some((_, Ok(kind))) = self.kinds.iter().find(|(_, kind)| kind.is_ok()) {
            return Ok(kind);
        }
        let all: Vec<String> = self
            .kinds
            .iter()
            .filter_map(|(name, kind)| Some(format!("{}: {}", name.name(), kind.as_ref().err()?)))
            .collect();
        Err(Unfit::Here(match all.is_empty() {
            true => "This agent makes no containers: its containerizers name neither native nor oci".into(),
            false => format!("This agent cannot make containers: {}", all.join("; ")),
        }))
    }

    /// The directory of one container.
    fn place(&self, launch: LaunchNumber) -> PathBuf {
        self.dir.join(launch.to_string())
    }

    /// Removes what is left of a container that has ended.
    pub(crate) fn clear(&self, launch: LaunchNumber) {
        let place = self.place(launch);
        if place.exists() {
            self.clear_place(&place);
        }
    }

    /// Removes what is left of all containers but these, and the layers that nothing has used for long.
    pub(crate) fn clear_all_but(&self, alive: &BTreeSet<LaunchNumber>) {
        let alive: BTreeSet<PathBuf> = alive.iter().map(|launch| self.place(*launch)).collect();
        let dead = entries(&self.dir).into_iter().filter(|place| !alive.contains(place));
        dead.for_each(|place| self.clear_place(&place));
        self.collect();
    }

    /// Looks after the store of images for as long as the agent lives.
    pub(crate) async fn tend(self: Arc<Self>) {
        loop {
            sleep(COLLECT).await;
            let containers = self.clone();
            let _ = spawn_blocking(move || containers.collect()).await; // tried again the next time
        }
    }

    /// Removes layers that nothing has used for long, unless a container is being made.
    fn collect(&self) {
        let Ok(_none_is_made) = self.making.try_write() else { return };
        let roots = entries(&self.dir).into_iter().flat_map(|place| rootfs(&place));
        let used: BTreeSet<_> = roots.flat_map(|rootfs| rootfs.layers).collect();
        if let Ok(store) = &self.store
            && let Err(error) = store.collect(&used, self.keep, SystemTime::now())
        {
            warn!(error = error.told(), "unused layers of images stay");
        }
    }

    fn clear_place(&self, place: &Path) {
        for rootfs in rootfs(place) {
            if let Err(error) = rootfs.undo() {
                warn!(error = error.told(), "a root file system stays");
            }
        }
        if let Some(name) = place.file_name() {
            for group in remove_groups(&self.groups.join(name)) {
                warn!(group = %group.display(), "a control group stays");
            }
        }
        if let Err(error) = fs::remove_dir_all(place) {
            warn!(path = %place.display(), %error, "what is left of a container stays");
        }
    }

    /// Removes the groups that runtimes made above those of containers, once nothing is in them.
    pub(crate) fn remove_groups(&self) {
        for path in self.groups.ancestors().take(2) {
            remove_empty_groups(path);
        }
    }
}

fn private(dir: &Path) -> Result<(), AgentError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(|source| AgentError::Prepare {
        doing: "close to others the directory",
        path: dir.to_owned(),
        source,
    })
}

/// What makes containers here, in order of preference, or why it does not.
pub(crate) fn kinds(config: &AgentConfig) -> Vec<(Containerizer, Result<Kind, String>)> {
    let is_root = rustix::process::geteuid().is_root();
    let one = |name: &Containerizer| {
        let kind = match name {
            Containerizer::Posix => return None,
            _ if !is_root => Err("the agent is not root".into()),
            Containerizer::Native => Ok(Kind::Native),
            Containerizer::Oci => runtime(&config.oci_runtime).map(Kind::Oci),
        };
        Some((*name, kind))
    };
    config.containerizers.iter().filter_map(one).collect()
}

/// The OCI runtime of this name, or the first that there is.
fn runtime(name: &str) -> Result<PathBuf, String> {
    match name {
        "" => ["runc", "crun"]
            .into_iter()
            .find_map(find_program)
            .ok_or_else(|| "neither runc nor crun is on the PATH".into()),
        name => find_program(name).ok_or_else(|| format!("oci-runtime: there is no program {name:?}")),
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The root file systems of a container: its own, and those of its volumes.
fn rootfs(place: &Path) -> Vec<Rootfs> {
    let own = entries(place).into_iter().filter(|path| path.is_dir());
    own.filter_map(|dir| Rootfs::read(&dir).ok().flatten()).collect()
}

/// How long what nothing uses is kept, by default: a week.
pub(crate) const KEEP: Duration = Duration::from_secs(7 * 24 * 3_600);
