//! From what a task asks for to what its supervisor makes of it: images are pulled, root file systems prepared, and the
//! bundle written down.

use super::{
    Asked, Containers, Maker, SANDBOX,
    asked::{From, Wanted},
};
use crate::{
    command::Unfit,
    supervisor::{Contained, SecretFile, Spec, Staged},
};
use muster_container::{Base, Bind, Bundle, DEFAULT_CAPABILITIES, Ids, Pids, Process};
use muster_image::{Image, ImageConfig, ImageError, Rootfs};
use muster_model::{Resources, Value, VolumeMount};
use muster_proto::mesos::CommandInfo;
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};
use tokio::task::spawn_blocking;

/// Files of the machine that a container with an image has, too: it has the machine's network.
const OF_THE_MACHINE: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// What is known of a task beside its container.
pub(crate) struct Around<'a> {
    pub(crate) command: &'a CommandInfo,
    /// The variables of the command itself.
    pub(crate) has_path: bool,
    /// The persistent volumes of it, and where all of them are.
    pub(crate) volumes: &'a [VolumeMount],
    pub(crate) volumes_dir: &'a Path,
    /// The sandbox of the executor that it is within.
    pub(crate) parent: Option<&'a Path>,
    /// Whether it may run as another user than the agent's.
    pub(crate) switch_user: bool,
    /// What it holds.
    pub(crate) resources: &'a Resources,
    /// Whether that changes while it runs.
    pub(crate) grows: bool,
}

impl Around<'_> {
    /// Whether it holds a port of the machine.
    pub(super) fn has_port(&self, port: u16) -> bool {
        let port = u64::from(port);
        match self.resources.get("ports") {
            Some(Value::Ranges(ranges)) => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&port))
            }
            _ => false,
        }
    }
}

/// What a bundle is put together of.
#[derive(Default)]
struct Parts {
    binds: Vec<Bind>,
    staged: Vec<Staged>,
    secrets: Vec<SecretFile>,
    mounts: Vec<muster_image::Mount>,
}

impl Containers {
    /// Makes what a task asks for part of what its supervisor is told. What was made is removed by
    /// [`Containers::clear`].
    pub(crate) async fn prepare(
        &self,
        asked: &Asked,
        around: Around<'_>,
        spec: &mut Spec,
    ) -> Result<(), Unfit> {
        if asked.engine.is_some() {
            self.look_for_engine().await;
        }
        let kind = match self.maker(asked, around.parent.is_some())? {
            Maker::Engine(docker) => return self.prepare_by_engine(&docker, asked, &around, spec).await,
            Maker::Runtime(kind) => kind,
        };
        let _making = self.making.read().await;
        let place = self.place(spec.launch);
        self.clear(spec.launch); // of an attempt before
        new_dir(&place)?;
        let image = match &asked.image {
            Some(name) => Some(self.pull(name).await?),
            None => None,
        };
        let mut parts = Parts::default();
        let (root, base) = match &image {
            Some(image) => (self.rootfs(image, &place.join("rootfs"), &mut parts).await?, Base::Image),
            None => {
                let root = place.join("host");
                new_dir(&root)?;
                (root, Base::Host)
            }
        };
        let sandbox = if image.is_some() { PathBuf::from(SANDBOX) } else { spec.sandbox.clone() };
        let (process, user) = process(image.as_ref(), asked, &around, spec, &sandbox)?;
        if image.is_some() {
            parts.binds.push(bind(&spec.sandbox, &sandbox, false));
            for path in OF_THE_MACHINE.map(Path::new) {
                if path.is_file() && asked.volumes.iter().all(|it| it.target != path) {
                    parts.binds.push(bind(path, path, true));
                }
            }
            // Their links in the sandbox lead to where they are.
            for mount in around.volumes {
                let path = around.volumes_dir.join(mount.number.to_string());
                parts.binds.push(bind(&path, &path, mount.read_only));
            }
        }
        for (i, wanted) in asked.volumes.iter().enumerate() {
            self.volume(i, wanted, &place, &sandbox, base, &around, spec, &mut parts).await?;
        }
        let limits = spec.limits.of_a_bundle();
        let pids = if asked.shares_pids { Pids::Host } else { Pids::Own };
        let bundle = Bundle {
            process,
            root,
            read_only: false,
            base,
            binds: parts.binds,
            hostname: asked.hostname.clone(),
            limits,
            cgroup: Some(self.groups.join(spec.launch.to_string())),
            pids,
        };
        spec.container = Some(Box::new(Contained {
            kind,
            dir: place,
            bundle,
            mounts: parts.mounts,
            staged: parts.staged,
            secrets: parts.secrets,
            user,
        }));
        Ok(())
    }

    async fn pull(&self, name: &str) -> Result<Image, Unfit> {
        let failed = |why: String| Unfit::Here(format!("Failed to pull the image '{name}': {why}"));
        let store = self.store.as_ref().map_err(|why| failed(why.clone()))?;
        store.pull(name).await.map_err(|error| match error {
            // It is wrong wherever it is tried.
            ImageError::Name { .. } => failed(error.to_string()),
            error => failed(error.told()),
        })
    }

    /// Prepares a root file system of an image. Returns where it will be seen.
    async fn rootfs(&self, image: &Image, dir: &Path, parts: &mut Parts) -> Result<PathBuf, Unfit> {
        let (image, dir, overlay) = (image.clone(), dir.to_owned(), self.overlay.is_ok());
        let made = spawn_blocking(move || Rootfs::prepare(&image, &dir, overlay)).await;
        let failed = |why: String| Unfit::Here(format!("Failed to prepare a root file system: {why}"));
        let made = made.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.told()))?;
        parts.mounts.extend(made.mounts);
        Ok(made.root)
    }

    #[expect(clippy::too_many_arguments, reason = "all that one volume depends on")]
    async fn volume(
        &self,
        number: usize,
        wanted: &Wanted,
        place: &Path,
        sandbox: &Path,
        base: Base,
        around: &Around<'_>,
        spec: &Spec,
        parts: &mut Parts,
    ) -> Result<(), Unfit> {
        let failed = |why: String| {
            Unfit::Here(format!("Failed to mount a volume at '{}': {why}", wanted.target.display()))
        };
        if base == Base::Host && wanted.target.is_absolute() && !wanted.target.exists() {
            let why = "it must be there where the container has the machine's files; name an image, or a path below \
                       the sandbox";
            return Err(failed(why.into()));
        }
        let target = sandbox.join(&wanted.target);
        let staged = place.join("staged").join(number.to_string());
        let source = match &wanted.source {
            From::Host(path) => {
                let (root, path) = self.host_path(path).map_err(failed)?;
                parts.staged.push(Staged { root, path, make: false, target: staged.clone() });
                staged
            }
            From::Image(name) => {
                let image = self.pull(name).await?;
                self.rootfs(&image, &place.join(format!("volume-{number}")), parts).await?
            }
            From::Named { .. } => return Err(failed("only a Docker engine has volumes by name".into())),
            From::Secret(bytes) => {
                parts.secrets.push(SecretFile { number, bytes: bytes.clone() });
                place.join("secrets").join(number.to_string())
            }
            From::Sandbox(path) => {
                let root = spec.sandbox.clone();
                parts.staged.push(Staged { root, path: path.clone(), make: true, target: staged.clone() });
                staged
            }
            From::Parent(path) => {
                let root = around.parent.map(Path::to_owned).ok_or_else(|| {
                    failed("its sandbox has no parent: the task is within no executor".into())
                })?;
                parts.staged.push(Staged { root, path: path.clone(), make: true, target: staged.clone() });
                staged
            }
        };
        parts.binds.push(bind(&source, &target, wanted.read_only));
        Ok(())
    }

    /// A path of the machine, if tasks may see it: the directory that allows it, and what is below that. Neither has a
    /// link in it; what becomes one meanwhile is refused when it is made visible.
    pub(super) fn host_path(&self, path: &Path) -> Result<(PathBuf, PathBuf), String> {
        let refused =
            || format!("{} is not below what host-path-volumes of this agent names", path.display());
        if !self.host_paths.iter().any(|allowed| path.starts_with(allowed)) {
            return Err(refused());
        }
        let real = fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut allowed = self.host_paths.iter().filter_map(|allowed| fs::canonicalize(allowed).ok());
        let found = allowed.find_map(|root| {
            let below = real.strip_prefix(&root).ok()?.to_owned();
            Some((root, below))
        });
        found.ok_or_else(refused)
    }
}

fn bind(source: &Path, target: &Path, read_only: bool) -> Bind {
    Bind { source: source.to_owned(), target: target.to_owned(), read_only }
}

pub(super) fn new_dir(path: &Path) -> Result<(), Unfit> {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.map_err(|error| Unfit::Here(format!("Failed to make the directory {}: {error}", path.display())))
}

/// What runs, and the user that is to be found in the image.
fn process(
    image: Option<&Image>,
    asked: &Asked,
    around: &Around<'_>,
    spec: &mut Spec,
    sandbox: &Path,
) -> Result<(Process, Option<String>), Unfit> {
    let mut env: BTreeMap<String, String> = spec.env.iter().cloned().collect();
    env.insert("MESOS_SANDBOX".into(), sandbox.display().to_string());
    let cwd = sandbox.display().to_string();
    let groups = || spec.groups.clone();
    let ids = spec.user.map_or_else(Ids::default, |(uid, gid)| Ids { uid, gid, groups: groups() });
    let all = DEFAULT_CAPABILITIES.map(str::to_owned).to_vec();
    let capabilities = asked.capabilities.clone().unwrap_or(all);
    let rlimits = asked.rlimits.clone();
    let Some(image) = image else {
        let args = std::iter::once(spec.arg0.clone()).chain(spec.args.iter().cloned()).collect();
        let program = spec.program.clone();
        return Ok((Process { program, args, env, cwd, ids, rlimits, capabilities }, None));
    };
    if !around.has_path {
        env.remove("PATH"); // the image's, or the usual one
    }
    let config: &ImageConfig = image.config();
    let command = muster_image::Command {
        shell: around.command.shell(),
        value: around.command.value.clone(),
        arguments: around.command.arguments.clone(),
        environment: env,
        user: around.command.user.clone(),
    };
    let runs = muster_image::process(config, &command).map_err(Unfit::Invalid)?;
    (spec.program, spec.env) = (runs.program.clone(), runs.env.clone().into_iter().collect());
    // Who is named neither by the task nor by the image is the framework's user, and of this machine.
    let user = Some(runs.user).filter(|user| around.switch_user && !user.is_empty());
    let cwd = runs.working_dir.unwrap_or(cwd);
    let (program, args, env) = (runs.program, runs.args, runs.env);
    Ok((Process { program, args, env, cwd, ids, rlimits, capabilities }, user))
}
