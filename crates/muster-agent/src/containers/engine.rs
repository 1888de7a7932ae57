//! Containers that a Docker engine makes: what it is asked for is put together here, images are pulled, and what nobody
//! looks after any more is removed.

use super::{
    Asked, Containers, SANDBOX,
    asked::{From, Wanted},
    config::DockerSection,
    prepare::{Around, new_dir},
};
use crate::{
    command::Unfit,
    supervisor::{ByEngine, Spec},
};
use muster_container::{
    Engine, EngineAbout, EngineError, EngineImage, EngineMount, EngineSource, EngineSpec, find_program,
    fits_a_line,
};
use muster_model::LaunchNumber;
use muster_proto::mesos::{CommandInfo, environment};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{process::Command, sync::Semaphore, task::spawn_blocking, time::timeout};
use tracing::{info, warn};

/// By which an agent knows its containers: the fingerprint of its work directory.
const AGENT: &str = "muster.agent";
/// The launch that one is of.
const LAUNCH: &str = "muster.launch";
/// In the directory of a container that an engine may have.
const MARKER: &str = "engine";
/// Attempts to have the container of a lost supervisor removed, and the pause between them.
const REMOVALS: usize = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// How many tasks ask an engine for an image at once, and how many have one pulled; others wait for their turn.
const ASKS_MAX: usize = 16;
const PULLS_MAX: usize = 8;

/// The turns of who wants an image of an engine.
#[derive(Debug)]
pub(super) struct Turns {
    pub(super) asks: Semaphore,
    pulls: Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        Self { asks: Semaphore::new(ASKS_MAX), pulls: Semaphore::new(PULLS_MAX) }
    }
}

/// An engine that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Docker {
    pub(crate) engine: Engine,
    pub(crate) about: EngineAbout,
}

impl Docker {
    /// Asks the configured engine what it is like.
    pub(crate) fn find(config: &DockerSection) -> Result<Self, String> {
        let engine = engine(config)
            .ok_or_else(|| format!("docker.program: there is no program {:?}", config.program))?;
        let about = engine.about().map_err(|error| error.to_string())?;
        Ok(Self { engine, about })
    }

    /// In words.
    pub(crate) fn found(&self) -> String {
        let groups = if self.about.has_own_groups { "cgroupfs" } else { "systemd" };
        format!("engine {} at {}, cgroup driver {groups}", self.about.version, self.engine.socket.display())
    }
}

fn engine(config: &DockerSection) -> Option<Engine> {
    Some(Engine { program: find_program(&config.program)?, socket: config.socket.clone() })
}

impl Containers {
    fn engine_name(&self, launch: &str) -> String {
        format!("muster-{}-{launch}", self.key)
    }

    /// Makes what a task asks for part of what its supervisor tells the engine.
    pub(super) async fn prepare_by_engine(
        &self,
        docker: &Docker,
        asked: &Asked,
        around: &Around<'_>,
        spec: &mut Spec,
    ) -> Result<(), Unfit> {
        let Some(of_engine) = &asked.engine else {
            return Err(Unfit::Invalid("container.docker: is missing".into()));
        };
        if let Some(why) = asked.not_by_engine() {
            return Err(Unfit::Invalid(why));
        }
        let refused = |field: &str, key: &str| {
            Err(Unfit::Invalid(format!(
                "container.docker.{field}: docker.{key} of this agent does not allow it"
            )))
        };
        if of_engine.privileged && !self.docker.privileged {
            return refused("privileged", "privileged");
        }
        if !of_engine.parameters.is_empty() && !self.docker.parameters {
            return refused("parameters", "parameters");
        }
        let has_options =
            |wanted: &Wanted| matches!(&wanted.source, From::Named { options, .. } if !options.is_empty());
        if let Some(i) = asked.volumes.iter().position(has_options).filter(|_| !self.docker.parameters) {
            // The engine's own driver mounts any path of the machine by them.
            return Err(Unfit::Invalid(format!(
                "container.volumes[{i}].source.docker_volume.driver_options: docker.parameters of this agent does not \
                 allow it"
            )));
        }
        if let Some(port) = of_engine.ports.iter().find(|it| !around.has_port(it.host)) {
            return Err(Unfit::Invalid(format!(
                "container.docker.port_mappings: host_port {} is not among the ports that the task holds",
                port.host
            )));
        }
        if around.grows && !docker.about.has_own_groups {
            return Err(Unfit::Here(
                "container.docker: the limits of an executor change, and an engine with the cgroup driver systemd \
                 keeps them; set its driver to cgroupfs, or use type MESOS"
                    .into(),
            ));
        }
        let place = self.place(spec.launch);
        self.clear(spec.launch); // of an attempt before
        new_dir(&place)?;
        let name = asked.image.as_deref().unwrap_or_default();
        let image = self.pull_by_engine(docker, name, of_engine.force_pull).await?;
        let (entrypoint, args) = runs(around.command)?;
        let launch = spec.launch.to_string();
        let own_name = self.engine_name(&launch);
        let env = env(around, spec, &own_name)?;
        let mut mounts = vec![mount(EngineSource::Path(spec.sandbox.clone()), SANDBOX, false)];
        for volume in around.volumes {
            let path = around.volumes_dir.join(volume.number.to_string());
            mounts.push(mount(EngineSource::Path(path.clone()), path, volume.read_only));
        }
        let mut within = Vec::new();
        for wanted in &asked.volumes {
            mounts.push(self.mount_by_engine(wanted, spec, &mut within)?);
        }
        let (user, groups, owner) = user(around, &image, spec);
        let cgroup = self.groups.join(spec.launch.to_string());
        if !docker.about.has_own_groups {
            spec.parts.clear(); // they are the engine's
        }
        let cgroup_parent = (!spec.parts.is_empty()).then(|| cgroup.clone());
        // What grows is limited by the agent's group alone.
        let limits = match cgroup_parent.is_some() && around.grows {
            true => muster_container::Limits::default(),
            false => spec.limits.of_a_bundle(),
        };
        let container = EngineSpec {
            name: own_name,
            labels: [(AGENT.to_owned(), self.key.clone()), (LAUNCH.to_owned(), launch)].into(),
            image: name.to_owned(),
            entrypoint,
            args,
            env,
            user,
            groups,
            working_dir: image.working_dir.is_empty().then(|| SANDBOX.into()),
            hostname: asked.hostname.clone(),
            network: of_engine.network.clone(),
            ports: of_engine.ports.clone(),
            privileged: of_engine.privileged,
            capabilities: asked.capabilities.clone(),
            shares_pids: asked.shares_pids,
            mounts,
            volume_driver: of_engine.volume_driver.clone(),
            rlimits: asked.rlimits.clone(),
            limits,
            cgroup_parent,
            parameters: of_engine.parameters.clone(),
        };
        let marker = place.join(MARKER);
        fs::write(&marker, b"")
            .map_err(|error| Unfit::Here(format!("Failed to write {}: {error}", marker.display())))?;
        spec.engine = Some(Box::new(ByEngine {
            engine: docker.engine.clone(),
            container,
            marker,
            user: owner,
            dir: place,
            within,
            cgroup,
        }));
        Ok(())
    }

    /// Has the engine pull an image that it does not have, or that is to be pulled all the same. Given up with this
    /// future.
    async fn pull_by_engine(&self, docker: &Docker, name: &str, force: bool) -> Result<EngineImage, Unfit> {
        let failed =
            |why: &dyn std::fmt::Display| Unfit::Here(format!("Failed to pull the image '{name}': {why}"));
        let look = async || {
            let _turn = self.turns.asks.acquire().await; // never closed
            let (engine, name) = (docker.engine.clone(), name.to_owned());
            let found = spawn_blocking(move || engine.image(&name)).await.map_err(|error| failed(&error))?;
            found.map_err(|error| failed(&error))
        };
        if !force && let Some(image) = look().await? {
            return Ok(image);
        }
        let _turn = self.turns.pulls.acquire().await; // never closed
        let mut command = Command::from(docker.engine.command());
        command.args(["pull", "--quiet", name]).stdin(Stdio::null()).kill_on_drop(true);
        let after = Duration::from_millis(self.docker.pull_ms_max);
        let pulled = timeout(after, command.output()).await;
        let late = |_| failed(&format!("it took longer than docker.pull-ms-max, {} ms", after.as_millis()));
        let output = pulled.map_err(late)?.map_err(|error| failed(&error))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            return Err(failed(&EngineError::of_words("pull it", &words)));
        }
        look().await?.ok_or_else(|| failed(&"the engine does not have it afterwards"))
    }

    fn mount_by_engine(
        &self,
        wanted: &Wanted,
        spec: &Spec,
        within: &mut Vec<PathBuf>,
    ) -> Result<EngineMount, Unfit> {
        let failed = |why: String| {
            Unfit::Here(format!("Failed to mount a volume at '{}': {why}", wanted.target.display()))
        };
        let source = match &wanted.source {
            From::Host(path) => {
                let (root, below) = self.host_path(path).map_err(failed)?;
                EngineSource::Path(root.join(below))
            }
            From::Sandbox(path) => {
                within.push(path.clone());
                EngineSource::Path(spec.sandbox.join(path))
            }
            From::Named { name, driver, options } => {
                EngineSource::Volume { name: name.clone(), driver: driver.clone(), options: options.clone() }
            }
            From::Secret(_) | From::Image(_) | From::Parent(_) => {
                return Err(failed("a Docker engine does not give it".into())); // refused before
            }
        };
        Ok(mount(source, Path::new(SANDBOX).join(&wanted.target), wanted.read_only))
    }

    /// Has the engine remove what it may have of a launch, before anybody says that this has ended.
    pub(crate) fn end_by_engine(&self, launch: LaunchNumber) {
        let place = self.place(launch);
        for _ in 0..REMOVALS {
            match self.remove_of_place(&place) {
                Ok(()) => return,
                Err(error) => warn!(%launch, %error, "a container of the Docker engine stays"),
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Has the engine remove what it may have of a container.
    pub(super) fn remove_of_place(&self, place: &Path) -> Result<(), EngineError> {
        let marker = place.join(MARKER);
        let Some(launch) = place.file_name().and_then(|name| name.to_str()).filter(|_| may_have(place))
        else {
            return Ok(());
        };
        let none = || EngineError::Io(io::ErrorKind::NotFound.into());
        engine(&self.docker).ok_or_else(none)?.remove(&self.engine_name(launch))?;
        let _ = fs::remove_file(marker); // it goes with its directory
        Ok(())
    }

    /// Has the engine remove all containers of this agent but these, also such as nothing here is left of.
    pub(super) fn clear_engine(&self, alive: &BTreeSet<LaunchNumber>) {
        let Some(docker) = self.docker() else { return };
        let spared: BTreeSet<String> =
            alive.iter().map(|launch| self.engine_name(&launch.to_string())).collect();
        let all = match docker.engine.labelled(AGENT, &self.key, LAUNCH) {
            Ok(all) => all,
            Err(error) => {
                warn!(%error, "the Docker engine does not say what is left of former tasks");
                return;
            }
        };
        for (name, launch) in all.into_iter().filter(|(name, _)| !spared.contains(name)) {
            info!(name, launch, "removing a container that no task has");
            if let Err(error) = docker.engine.remove(&name) {
                warn!(name, %error, "a container of the Docker engine stays");
            }
        }
    }
}

/// Whether an engine may have what is left here.
pub(super) fn may_have(place: &Path) -> bool {
    place.join(MARKER).exists()
}

fn mount(source: EngineSource, target: impl Into<PathBuf>, read_only: bool) -> EngineMount {
    EngineMount { source, target: target.into(), read_only }
}

/// What is run in the place of the image's entry point, and the arguments: as Mesos has it, a shell takes the place of
/// the entry point, and all else is told to it.
fn runs(command: &CommandInfo) -> Result<(Option<String>, Vec<String>), Unfit> {
    let value = command.value.clone().filter(|value| !value.is_empty());
    let (entrypoint, args) = match (command.shell(), value) {
        (true, None) => {
            return Err(Unfit::Invalid(
                "the command has shell = true and no value for the shell to run".into(),
            ));
        }
        (true, Some(line)) => (Some("/bin/sh".to_owned()), vec!["-c".to_owned(), line]),
        (false, value) => (None, value.into_iter().chain(command.arguments.iter().cloned()).collect()),
    };
    match args.iter().any(|it| it.contains('\0')) {
        true => Err(Unfit::Invalid("The command contains a NUL character".into())),
        false => Ok((entrypoint, args)),
    }
}

/// The variables of a container.
fn env(around: &Around<'_>, spec: &mut Spec, own_name: &str) -> Result<BTreeMap<String, String>, Unfit> {
    let mut env: BTreeMap<String, String> = spec.env.iter().cloned().collect();
    env.insert("MESOS_SANDBOX".into(), SANDBOX.into());
    env.insert("MESOS_CONTAINER_NAME".into(), own_name.into());
    if !around.has_path {
        env.remove("PATH"); // the image's
    }
    // What a file of variables cannot say stands among arguments, which everybody on the machine can read.
    let variables = around.command.environment.iter().flat_map(|it| &it.variables);
    for variable in variables.filter(|it| it.r#type() == environment::variable::Type::Secret) {
        let value = env.get(&variable.name).map(String::as_str).unwrap_or_default();
        if !fits_a_line(&variable.name, value) {
            return Err(Unfit::Invalid(format!(
                "The variable {:?} cannot be set: its secret has a line break, which a Docker engine is not told in \
                 secret; use type MESOS",
                variable.name
            )));
        }
    }
    spec.env = env.clone().into_iter().collect();
    Ok(env)
}

/// Who a container runs as, other groups of that, and whom of the image's users the sandbox is given to. As in other
/// containers: the task's user is one of the image, and who is named by neither is the framework's user.
fn user(around: &Around<'_>, image: &EngineImage, spec: &Spec) -> (Option<String>, Vec<u32>, Option<String>) {
    let filled = |user: &String| !user.is_empty();
    let own = around.command.user.clone().filter(filled).filter(|_| around.switch_user);
    let of_image = Some(image.user.clone()).filter(filled);
    match (own, of_image, spec.user) {
        (Some(own), ..) => (Some(own.clone()), Vec::new(), Some(own)),
        (None, Some(of_image), _) => (None, Vec::new(), Some(of_image)),
        (None, None, Some((uid, gid))) => (Some(format!("{uid}:{gid}")), spec.groups.clone(), None),
        (None, None, None) => (None, Vec::new(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_the_place_of_the_entry_point_and_all_else_is_told_to_it() {
        let command = |shell, value: Option<&str>, arguments: &[&str]| CommandInfo {
            shell: Some(shell),
            value: value.map(str::to_owned),
            arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
            ..Default::default()
        };
        let texts = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let of = |command| runs(&command).unwrap();
        assert_eq!(of(command(true, Some("a $B"), &["c"])), (Some("/bin/sh".into()), texts(&["-c", "a $B"])));
        assert_eq!(of(command(false, Some("a"), &["b", "c"])), (None, texts(&["a", "b", "c"])));
        assert_eq!(of(command(false, None, &["b"])), (None, texts(&["b"])));
        assert_eq!(of(command(false, None, &[])), (None, Vec::new()));
        assert!(matches!(runs(&command(true, None, &[])), Err(Unfit::Invalid(why)) if why.contains("shell")));
    }
}
