//! Containers: which runtimes this agent has, and from what a task asks for to what its supervisor makes.
//!
//! ```text
//! <work-dir>/images/                  the store
//! <work-dir>/containers/<launch>/     one container: its root file systems, and its bundle; or `engine`, as long as a
//!                                     Docker engine may have it
//! ```
//!
//! The agent pulls images and prepares root file systems; all mounts are made by the supervisor, in a mount namespace of
//! its own, so that what the agent removes was never mounted where it could see it.

mod asked;
mod config;
mod docker;
mod engine;
mod prepare;
#[cfg(test)]
mod tests;

pub(crate) use asked::{Asked, terminal_size, value};
pub use config::{Containerizer, DockerSection, ImageSection};
pub(crate) use prepare::Around;

use crate::{AgentConfig, AgentError, command::Unfit, disk::WorkDir};
use engine::{Docker, Turns};
use muster_container::{Kind, find_program, remove_empty_groups, remove_groups};
use muster_image::{Keep, Rootfs, Store, probe_overlay};
use muster_model::LaunchNumber;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};
use tokio::{sync::RwLock, task::spawn_blocking, time::sleep};
use tracing::{info, warn};

/// How often unused layers are looked for.
const COLLECT: Duration = Duration::from_secs(600);
/// Where the sandbox of a container with an image is seen in it.
const SANDBOX: &str = "/mnt/mesos/sandbox";

/// What makes containers.
#[derive(Debug, Clone)]
pub(crate) enum Maker {
    /// A supervisor, with a runtime.
    Runtime(Kind),
    /// An engine.
    Engine(Docker),
}

impl Maker {
    /// In words.
    pub(crate) fn found(&self) -> String {
        match self {
            Self::Runtime(Kind::Native) => "built in".into(),
            Self::Runtime(Kind::Oci(path)) => path.display().to_string(),
            Self::Engine(docker) => docker.found(),
        }
    }
}

/// What makes this agent's containers.
#[derive(Debug)]
pub(crate) struct Containers {
    dir: PathBuf,
    store: Result<Store, String>,
    kinds: Vec<(Containerizer, Result<Maker, String>)>,
    docker: DockerSection,
    /// An engine that did not answer at the start, and does now.
    late: OnceLock<Docker>,
    turns: Turns,
    /// By which the agent's containers are known.
    key: String,
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
        let can = kinds.iter().any(|(_, kind)| matches!(kind, Ok(Maker::Runtime(_))));
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
            docker: config.docker.clone(),
            late: OnceLock::new(),
            turns: Turns::default(),
            key: dir.fingerprint.clone(),
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
            .map(|(name, kind)| (name.name(), kind.as_ref().map(Maker::found).map_err(String::clone)))
            .collect();
        all.push(match (&self.store, &self.overlay) {
            (Err(why), _) => ("images", Err(why.clone())),
            (Ok(_), Ok(())) => ("images", Ok("layers are overlaid".into())),
            (Ok(_), Err(why)) => ("images", Ok(format!("layers are copied: {why}"))),
        });
        all
    }

    /// The engine, if one is configured and answers.
    fn docker(&self) -> Option<&Docker> {
        let found = self.kinds.iter().find(|(name, _)| *name == Containerizer::Docker)?;
        match &found.1 {
            Ok(Maker::Engine(docker)) => Some(docker),
            _ => self.late.get(),
        }
    }

    fn maker(&self, asked: &Asked, is_within: bool) -> Result<Maker, Unfit> {
        choose(&self.kinds, self.docker(), asked, is_within)
    }

    /// Asks an engine once more that did not answer at the start.
    async fn look_for_engine(&self) {
        let is_missing =
            |(name, kind): &(Containerizer, Result<_, _>)| *name == Containerizer::Docker && kind.is_err();
        if !rustix::process::geteuid().is_root()
            || self.late.get().is_some()
            || !self.kinds.iter().any(is_missing)
        {
            return;
        }
        let Ok(_turn) = self.turns.asks.acquire().await else { return };
        if self.late.get().is_some() {
            return;
        }
        let config = self.docker.clone();
        if let Ok(Ok(docker)) = spawn_blocking(move || Docker::find(&config)).await {
            info!(found = docker.found(), "the Docker engine answers now");
            let _ = self.late.set(docker); // another one has found it, too
        }
    }

    /// The directory of one container.
    fn place(&self, launch: LaunchNumber) -> PathBuf {
        self.dir.join(launch.to_string())
    }

    /// Removes what is left of a container that has ended.
    pub(crate) fn clear(&self, launch: LaunchNumber) {
        let place = self.place(launch);
        if place.exists() {
            self.end_by_engine(launch); // which its supervisor may just do
            self.clear_place(&place);
        }
    }

    /// Removes what is left of all containers but these, and the layers that nothing has used for long.
    pub(crate) fn clear_all_but(&self, alive: &BTreeSet<LaunchNumber>) {
        let spared: BTreeSet<PathBuf> = alive.iter().map(|launch| self.place(*launch)).collect();
        let dead = entries(&self.dir).into_iter().filter(|place| !spared.contains(place));
        let mut answers = true;
        for place in dead {
            // An engine that does not answer is not asked for each.
            if answers || !engine::may_have(&place) {
                answers &= self.clear_place(&place);
            }
        }
        self.clear_engine(alive);
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

    /// Removes what is left of a container. False: an engine has it and does not answer, and it is tried again at the next
    /// start.
    fn clear_place(&self, place: &Path) -> bool {
        if let Err(error) = self.remove_of_place(place) {
            warn!(place = %place.display(), %error, "a container of the Docker engine stays");
            return false;
        }
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
        true
    }

    /// Removes the groups that runtimes made above those of containers, once nothing is in them.
    pub(crate) fn remove_groups(&self) {
        for path in self.groups.ancestors().take(2) {
            remove_empty_groups(path);
        }
    }
}

/// The first of those that work here which does what is asked for; within an executor no engine does.
fn choose(
    kinds: &[(Containerizer, Result<Maker, String>)],
    docker: Option<&Docker>,
    asked: &Asked,
    is_within: bool,
) -> Result<Maker, Unfit> {
    let only = asked.only_by_engine();
    let is_of_engine = asked.engine.is_some() && !is_within;
    // What the engine's client shows of a terminal is not ours to hand on.
    let is_for_engine = is_of_engine && asked.terminal.is_none();
    let found = kinds.iter().find_map(|(name, kind)| match (name, kind) {
        (Containerizer::Docker, _) if is_for_engine => docker.cloned().map(Maker::Engine),
        (_, Ok(Maker::Runtime(kind))) if only.is_none() => Some(Maker::Runtime(kind.clone())),
        _ => None,
    });
    if let Some(found) = found {
        return Ok(found);
    }
    if is_of_engine && asked.terminal.is_some() && docker.is_some() {
        let why = "container.tty_info: tasks of a Docker engine have no terminal here; leave it out";
        return Err(Unfit::Invalid(why.into()));
    }
    let all: Vec<String> = kinds
        .iter()
        .filter_map(|(name, kind)| Some(format!("{}: {}", name.name(), kind.as_ref().err()?)))
        .collect();
    let has_engine = kinds.iter().any(|(name, _)| *name == Containerizer::Docker);
    Err(match (only, all.is_empty()) {
        (Some(field), _) if is_within => {
            Unfit::Invalid(format!("{field}: a Docker engine runs no tasks within an executor"))
        }
        (Some(field), _) if !has_engine => Unfit::Invalid(format!(
            "{field}: only a Docker engine does this, and containerizers of this agent name no docker"
        )),
        (Some(field), _) => Unfit::Here(format!(
            "{field}: only a Docker engine does this, and this agent's does not: {}",
            all.join("; ")
        )),
        (None, true) => Unfit::Here(
            "This agent makes no such containers: its containerizers name neither native nor oci, nor docker for \
             what is of type DOCKER"
                .into(),
        ),
        (None, false) => Unfit::Here(format!("This agent cannot make containers: {}", all.join("; "))),
    })
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
pub(crate) fn kinds(config: &AgentConfig) -> Vec<(Containerizer, Result<Maker, String>)> {
    let is_root = rustix::process::geteuid().is_root();
    let one = |name: &Containerizer| {
        let kind = match name {
            Containerizer::Posix => return None,
            _ if !is_root => Err("the agent is not root".into()),
            Containerizer::Native => Ok(Maker::Runtime(Kind::Native)),
            Containerizer::Oci => runtime(&config.oci_runtime).map(|path| Maker::Runtime(Kind::Oci(path))),
            Containerizer::Docker => Docker::find(&config.docker).map(Maker::Engine),
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
