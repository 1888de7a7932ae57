//! What former agents left: supervisors that are found again, and those that nobody knows any more.

use super::{Launcher, Means, Shared, Supervisors, end, talk::Talk};
use crate::{
    AgentConfig, AgentError,
    containers::Containers,
    disk::{WorkDir, lock_patiently},
    limits::Enforcer,
    supervisor::{Ending, Frames, FromSupervisor, Place, end_marked, read_exit},
};
use futures::{StreamExt, stream};
use muster_http::auth::Auth;
use muster_model::LaunchNumber;
use muster_node::{End, Process};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::UnixStream,
    sync::mpsc,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tracing::{error, info, warn};

/// How long a supervisor may take to answer on its socket when it is looked for.
const ANSWER: Duration = Duration::from_secs(10);
/// Between two looks whether the helper of an agent that is gone has ended: it takes a moment, and cannot tell.
const PAUSE: Duration = Duration::from_millis(2);
/// How many supervisors are looked for, or ended, at once: each may take its time.
pub(super) const AT_ONCE: usize = 32;
/// How long one attempt to end what a lost supervisor left may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Ends every task of an agent that does not run, as a cluster for a trial does when it is taken down. The next
/// agent of the work directory reports them killed by a signal.
pub async fn end_tasks(config: AgentConfig) -> Result<(), AgentError> {
    config.check()?;
    let (inputs, _) = mpsc::channel(1);
    let for_dir = config.clone();
    let dir = spawn_blocking(move || WorkDir::open(&for_dir)).await;
    let dir =
        dir.map_err(|error| AgentError::Stopped(format!("cannot open the work directory: {error}")))??;
    // No command is started, so none is told of an address.
    let nowhere = (config.listen_ip, config.port).into();
    let launcher = Launcher::this_executable();
    let nobody = Arc::new(Auth::open("mesos-agent"));
    let (for_groups, key) = (config.clone(), dir.fingerprint.clone());
    let enforcer = spawn_blocking(move || Enforcer::open(&for_groups, &key)).await;
    let enforcer = enforcer
        .map_err(|error| AgentError::Stopped(format!("cannot open the control groups: {error}")))??;
    let enforcer = Arc::new(enforcer);
    let containers = Arc::new(Containers::open(&config, &dir)?);
    let means = Means { enforcer: enforcer.clone(), containers: containers.clone() };
    let supervisors = Supervisors::new(&dir, launcher, &config, means, nowhere, nobody, inputs)?;
    let _lock = supervisors.shared.lock_launching().await?;
    supervisors.shared.end_all_but(&BTreeSet::new(), &BTreeMap::new()).await?;
    enforcer.cgroups().remove();
    containers.remove_groups();
    let _ = tokio::fs::remove_dir(&dir.place.runtime).await; // empty now, unless a socket's owner is slow
    Ok(())
}

impl Shared {
    /// The lock of launch helpers, once those of former agents and all that they launch can be found.
    pub(super) async fn lock_launching(&self) -> Result<File, AgentError> {
        let prepare = |source| AgentError::Prepare { doing: "lock", path: self.launching.clone(), source };
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.launching);
        let file = file.map_err(prepare)?;
        let locked = spawn_blocking(move || lock_patiently(&file, PATIENCE).map(|()| file)).await;
        match locked.map_err(|error| prepare(error.into()))? {
            Ok(file) => Ok(file),
            Err(TryLockError::Error(source)) => Err(prepare(source)),
            Err(TryLockError::WouldBlock) => Err(AgentError::Launching(self.launching.clone())),
        }
    }

    /// How a launch ended whose supervisor does not answer: what it left is ended first.
    pub(super) async fn end_of(
        &self,
        launch: LaunchNumber,
        pid: u32,
        released: bool,
        same_boot: bool,
    ) -> End {
        let path = self.place.exit_path(launch, pid);
        if let Ok(Some(ending)) = spawn_blocking(move || read_exit(&path, launch)).await {
            return end(launch, ending);
        }
        if same_boot {
            // First, or it could still start what nobody finds then.
            let containers = self.containers.clone();
            let _ = spawn_blocking(move || containers.end_by_engine(launch)).await; // what stays is ended by its marks
            let enforcer = self.around.enforcer.clone();
            while !end_group(&enforcer, launch).await {
                error!(%launch, "processes in the control group of a task whose supervisor is gone do not end");
                sleep(PATIENCE).await;
            }
            let mark = self.place.mark(Some(launch));
            loop {
                let mark = mark.clone();
                let ended = spawn_blocking(move || end_marked(|found| found == mark, PATIENCE)).await;
                if ended.unwrap_or(false) {
                    break;
                }
                error!(%launch, "processes of a task whose supervisor is gone do not end");
                sleep(PATIENCE).await;
            }
            if let Some(ending) = self.written_late(launch, pid).await {
                return end(launch, ending);
            }
        }
        match released {
            true => End::Unknown,
            false => End::StartFailed("Failed to hold the command: its supervisor ended".into()),
        }
    }

    /// What a supervisor writes down that was just about to: nothing of its task holds it up any more.
    async fn written_late(&self, launch: LaunchNumber, pid: u32) -> Option<Ending> {
        let begun = Instant::now();
        loop {
            let is_there = self.connect(&Place::socket_name(launch, pid)).await.is_ok();
            let path = self.place.exit_path(launch, pid);
            if let Ok(Some(ending)) = spawn_blocking(move || read_exit(&path, launch)).await {
                return Some(ending);
            }
            if !is_there || begun.elapsed() >= PATIENCE {
                return None;
            }
            sleep(PAUSE).await;
        }
    }

    pub(super) async fn connect(&self, name: &str) -> io::Result<Talk> {
        let path = format!("/proc/self/fd/{}/{name}", self.directory.as_raw_fd());
        Ok(Talk { stream: UnixStream::connect(path).await?, frames: Frames::default() })
    }

    /// The supervisor of a recorded process, if it lives: it answers with the launch number. Also whether its
    /// command runs.
    pub(super) async fn find(&self, launch: LaunchNumber, process: &Process) -> Option<(Talk, bool)> {
        if process.boot_id != self.boot_id {
            return None;
        }
        let mut talk = self.connect(&Place::socket_name(launch, process.pid)).await.ok()?;
        match timeout(ANSWER, talk.hear()).await {
            Ok(Ok(Some(FromSupervisor::Here { launch: answered, pid, start_time, running })))
                if (answered, pid, start_time) == (launch, process.pid, process.start_time) =>
            {
                Some((talk, running))
            }
            _ => None,
        }
    }

    /// Ends every supervisor and marked process of this runtime directory that is not one of these.
    pub(super) async fn end_all_but(
        &self,
        alive: &BTreeSet<LaunchNumber>,
        known: &BTreeMap<LaunchNumber, u32>,
    ) -> Result<(), AgentError> {
        let sockets: BTreeSet<String> = known
            .iter()
            .filter(|(launch, _)| alive.contains(launch))
            .map(|(launch, pid)| Place::socket_name(*launch, *pid))
            .collect();
        let unknown = names(&self.place.runtime).await.into_iter().filter(|name| !sockets.contains(name));
        let end = async |name: String| {
            if let Ok(mut talk) = self.connect(&name).await {
                info!(socket = name, "ending a supervisor that no checkpoint names");
                let _ = timeout(PATIENCE, talk.end()).await;
            }
            let _ = tokio::fs::remove_file(self.place.runtime.join(name)).await; // it may have removed it itself
        };
        stream::iter(unknown).for_each_concurrent(AT_ONCE, end).await;
        let enforcer = self.around.enforcer.clone();
        let spared: BTreeSet<String> = alive.iter().map(ToString::to_string).collect();
        let groups = spawn_blocking(move || end_groups_but(&enforcer, &spared));
        groups.await.map_err(|error| AgentError::Stopped(format!("cannot end old tasks: {error}")))??;
        let spared: BTreeSet<String> = alive.iter().map(|launch| self.place.mark(Some(*launch))).collect();
        let ours = self.place.mark(None);
        let wanted = move |mark: &str| mark.starts_with(&ours) && !spared.contains(mark);
        if !spawn_blocking(move || end_marked(wanted, PATIENCE)).await.unwrap_or(false) {
            return Err(AgentError::Leftovers(self.place.runtime.clone()));
        }
        let (containers, alive) = (self.containers.clone(), alive.clone());
        let _ = spawn_blocking(move || containers.clear_all_but(&alive)).await; // tried again at the next start
        Ok(())
    }

    /// Removes the exit files that no record asks for.
    pub(super) async fn remove_exits_but(&self, known: &BTreeMap<LaunchNumber, u32>) {
        let kept: BTreeSet<PathBuf> =
            known.iter().map(|(launch, pid)| self.place.exit_path(*launch, *pid)).collect();
        for name in names(&self.place.exits).await {
            let path = self.place.exits.join(name);
            if !kept.contains(&path) {
                let _ = tokio::fs::remove_file(path).await; // tried again at the next start
            }
        }
    }
}

async fn names(directory: &Path) -> Vec<String> {
    let directory = directory.to_owned();
    let names = spawn_blocking(move || {
        let entries = fs::read_dir(directory).into_iter().flatten();
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    });
    names.await.unwrap_or_default()
}

/// Ends what is in the group of a launch, if there is one. False: something of it does not end.
pub(super) async fn end_group(enforcer: &Arc<Enforcer>, launch: LaunchNumber) -> bool {
    let enforcer = enforcer.clone();
    let ended = spawn_blocking(move || {
        let group = enforcer.cgroups().group(&launch.to_string());
        let is_over = group.end(PATIENCE);
        let _ = group.remove(); // what stays is removed at the next start
        is_over
    });
    ended.await.unwrap_or(false)
}

/// Ends all that is in groups of this agent that are none of these.
fn end_groups_but(enforcer: &Enforcer, spared: &BTreeSet<String>) -> Result<(), AgentError> {
    for name in enforcer.cgroups().names().difference(spared) {
        info!(group = name, "ending what is left in a control group");
        let group = enforcer.cgroups().group(name);
        if !group.end(PATIENCE) {
            return Err(AgentError::Leftovers(group.dir()));
        }
        if let Err(error) = group.remove() {
            warn!(%error, "a control group stays");
        }
    }
    Ok(())
}
