//! The agent's side of its tasks' supervisors: starts them, finds them again, talks to them, and knows what
//! they left behind.

use crate::{
    AgentConfig, AgentError,
    command::{Surroundings, Unfit, Work, spec},
    disk::WorkDir,
    fetch::{Fetcher, make},
    limits::{self, Enforcer},
    mesos::Fetched,
    supervisor::{
        Ending, Found, Frames, FromSupervisor, Look, Place, Spec, ToSupervisor, boot_id, encode, end_marked,
        read_exit,
    },
    volumes,
};
use muster_http::auth::Auth;
use muster_model::{LaunchNumber, Resources};
use muster_node::{End, Input, Process, Signal};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fs::{self, File},
    io,
    net::SocketAddr,
    os::{fd::AsRawFd, fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{Semaphore, mpsc, oneshot},
    task::{JoinSet, spawn_blocking},
    time::{sleep, timeout},
};
use tracing::{error, info, warn};

/// Orders that may wait for a supervisor; more are dropped, and the machine repeats its signals.
const ORDERS_WAITING_MAX: usize = 16;
/// How long a supervisor may take to answer on its socket when it is looked for.
const ANSWER: Duration = Duration::from_secs(10);
/// How long one attempt to end what a lost supervisor left may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the hidden subcommands are called: `EXE SUPERVISE-ARGS...` and `/proc/self/exe HOLD-ARGS... PROGRAM ...`.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The executable.
    pub exe: PathBuf,
    /// Arguments that make it call [`crate::supervise_main`].
    pub supervise_args: Vec<String>,
    /// Arguments that make it call [`crate::hold_main`] with the arguments that follow.
    pub hold_args: Vec<String>,
}

impl Launcher {
    /// This executable, with `supervise` and `hold` as first arguments. Its main function must look for these
    /// before it starts a thread.
    pub fn this_executable() -> Self {
        Self {
            exe: "/proc/self/exe".into(),
            supervise_args: vec!["supervise".into()],
            hold_args: vec!["hold".into()],
        }
    }
}

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
    let supervisors = Supervisors::new(&dir, launcher, &config, enforcer.clone(), nowhere, nobody, inputs)?;
    supervisors.shared.end_all_but(&BTreeSet::new(), &BTreeMap::new()).await?;
    enforcer.cgroups().remove();
    let _ = tokio::fs::remove_dir(&dir.place.runtime).await; // empty now, unless a socket's owner is slow
    Ok(())
}

/// What the machine orders of a supervisor.
#[derive(Debug)]
pub(crate) enum Order {
    Release,
    Abandon,
    Signal(Signal),
    /// Look at the task, and say what was found; dropped when the supervisor is gone.
    Look(Box<Look>, oneshot::Sender<Found>),
}

/// An order on its way; the other part is dropped when its supervisor was told, or cannot be.
type Given = (Order, mpsc::Sender<Infallible>);

/// All supervisors of this agent.
pub(crate) struct Supervisors {
    shared: Arc<Shared>,
    orders: BTreeMap<LaunchNumber, mpsc::Sender<Given>>,
    /// Goes with each order, and ends when none is on its way.
    giving: mpsc::Sender<Infallible>,
    given: mpsc::Receiver<Infallible>,
    /// The held process of each launch, for its exit file's name.
    pids: BTreeMap<LaunchNumber, u32>,
    /// One for each supervisor; they end with this value, and what was not released by then never is.
    talks: JoinSet<()>,
}

struct Shared {
    place: Place,
    /// Where persistent volumes are.
    volumes: PathBuf,
    launcher: Launcher,
    around: Surroundings,
    fetcher: Fetcher,
    /// The limit of open files that tasks shall have: the agent raised its own.
    open_files: Option<u64>,
    /// The runtime directory: a socket's whole path may be longer than an address can be.
    directory: File,
    boot_id: Arc<str>,
    starts: Semaphore,
    inputs: mpsc::Sender<Input>,
}

impl Supervisors {
    pub(crate) fn new(
        dir: &WorkDir,
        launcher: Launcher,
        config: &AgentConfig,
        enforcer: Arc<Enforcer>,
        endpoint: SocketAddr,
        auth: Arc<Auth>,
        inputs: mpsc::Sender<Input>,
    ) -> Result<Self, AgentError> {
        let place = dir.place.clone();
        let directory = File::open(&place.runtime).map_err(|source| AgentError::Prepare {
            doing: "open the runtime directory",
            path: place.runtime.clone(),
            source,
        })?;
        let boot_id =
            boot_id().map_err(|source| AgentError::System { doing: "read the boot id", source })?.into();
        let shared = Shared {
            around: Surroundings {
                place: place.clone(),
                enforcer,
                hold_args: launcher.hold_args.clone(),
                switch_user: config.switch_user,
                endpoint,
                executor_grace_ms: config.executor_grace_ms,
                auth,
            },
            place,
            volumes: dir.volumes(),
            launcher,
            fetcher: Fetcher::open(config, &dir.fetched())?,
            open_files: raise_open_files(),
            directory,
            boot_id,
            starts: Semaphore::new(config.starts_max),
            inputs,
        };
        let (orders, pids, talks) = Default::default();
        let (giving, given) = mpsc::channel(1);
        Ok(Self { shared: Arc::new(shared), orders, giving, given, pids, talks })
    }

    /// What was fetched for commands.
    pub(crate) fn fetched(&self) -> Arc<Fetched> {
        self.shared.fetcher.counts()
    }

    /// Starts a supervisor that holds a command.
    pub(crate) fn start(&mut self, work: Work, sandbox: PathBuf) {
        let launch = work.number();
        let (orders, waiting) = mpsc::channel(ORDERS_WAITING_MAX);
        self.orders.insert(launch, orders);
        let shared = self.shared.clone();
        self.talks.spawn(async move {
            let end = shared.launch(work, sandbox, waiting).await;
            shared.tell(Input::Ended { launch, end }).await;
        });
    }

    pub(crate) fn order(&mut self, launch: LaunchNumber, order: Order) {
        if let Some(orders) = self.orders.get(&launch)
            && let Err(error) = orders.try_send((order, self.giving.clone()))
        {
            let (order, _) = error.into_inner();
            warn!(%launch, ?order, "a supervisor does not take its orders");
        }
    }

    /// Waits a while until the supervisors were told all orders: what is on its way is lost with this value.
    pub(crate) async fn settle(mut self) {
        drop(self.giving);
        // Nothing is ever sent: it ends when the last order was told.
        let _ = timeout(PATIENCE, self.given.recv()).await; // the next agent is told to order it again
    }

    /// An executor that runs may use this from now on.
    pub(crate) fn resize(&self, number: LaunchNumber, resources: &Resources) {
        self.shared.around.enforcer.resize(number, resources);
    }

    /// A supervisor holds a command: where its exit file will be.
    pub(crate) fn started(&mut self, launch: LaunchNumber, process: &Process) {
        self.pids.insert(launch, process.pid);
    }

    /// A supervisor's task is over.
    pub(crate) fn ended(&mut self, launch: LaunchNumber) {
        self.orders.remove(&launch);
        while self.talks.try_join_next().is_some() {}
    }

    /// The exit file has served its purpose.
    pub(crate) fn remove(&mut self, launch: LaunchNumber) {
        if let Some(pid) = self.pids.remove(&launch) {
            let path = self.shared.place.exit_path(launch, pid);
            drop(spawn_blocking(move || fs::remove_file(path))); // what stays is removed at the next start
        }
    }

    /// Finds out what became of recorded processes, and ends whatever of this runtime directory is not among
    /// them. The inputs are for the machine, before it begins.
    pub(crate) async fn recover(
        &mut self,
        processes: Vec<(LaunchNumber, Process)>,
    ) -> Result<Vec<Input>, AgentError> {
        let mut inputs = Vec::new();
        let mut alive = BTreeSet::new();
        for (launch, process) in processes {
            self.started(launch, &process);
            match self.shared.find(launch, &process).await {
                Some((stream, running)) => {
                    alive.insert(launch);
                    let (orders, waiting) = mpsc::channel(ORDERS_WAITING_MAX);
                    self.orders.insert(launch, orders);
                    if running {
                        inputs.push(Input::Released { launch });
                    }
                    let shared = self.shared.clone();
                    self.talks.spawn(async move {
                        let end = shared.serve(launch, process.pid, stream, waiting, running).await;
                        shared.tell(Input::Ended { launch, end }).await;
                    });
                }
                None => {
                    let same_boot = process.boot_id == self.shared.boot_id;
                    let end = self.shared.end_of(launch, process.pid, true, same_boot).await;
                    inputs.push(Input::Ended { launch, end });
                }
            }
        }
        self.shared.end_all_but(&alive, &self.pids).await?;
        self.shared.remove_exits_but(&self.pids).await;
        Ok(inputs)
    }
}

impl Shared {
    async fn tell(&self, input: Input) {
        // The loop is gone when this fails, and the process about to end.
        let _ = self.inputs.send(input).await;
    }

    async fn launch(&self, work: Work, sandbox: PathBuf, mut orders: mpsc::Receiver<Given>) -> End {
        let launch = work.number();
        let within = work.executor_sandbox(&sandbox);
        let failed = |error: &dyn std::fmt::Display| {
            End::StartFailed(format!("Failed to start the task's supervisor: {error}").into())
        };
        let (around, mounts) = (self.around.clone(), work.volumes().to_vec());
        let described = spawn_blocking(move || spec(&work, sandbox, &around)).await;
        let (mut spec, uris) = match described {
            Ok(Ok(described)) => described,
            Ok(Err(Unfit::Invalid(why))) => return End::Invalid(why.into()),
            Ok(Err(Unfit::Here(why))) => return End::StartFailed(why.into()),
            Err(error) => return failed(&error),
        };
        if !mounts.is_empty() {
            // Before anything else is in the sandbox.
            let (root, sandbox, user) = (self.volumes.clone(), spec.sandbox.clone(), spec.user);
            let mounted = spawn_blocking(move || {
                make(&sandbox, user).map_err(|error| format!("Failed to make the sandbox: {error}"))?;
                // Within an executor that has no process, what is its own is seen in its own sandbox.
                let (own, of_task): (Vec<_>, Vec<_>) =
                    mounts.into_iter().partition(|mount| mount.executor && within.is_some());
                if let Some(executor) = within {
                    volumes::mount(&root, &executor, &own, &BTreeSet::new())?;
                }
                volumes::mount(&root, &sandbox, &of_task, &BTreeSet::new())
            });
            match mounted.await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => return End::StartFailed(why.into()),
                Err(error) => return failed(&error),
            }
        }
        tokio::select! {
            fetched = self.fetcher.fetch(&uris, &spec.sandbox, spec.user) => {
                if let Err(why) = fetched {
                    return End::StartFailed(why.into());
                }
            }
            // Before there is anything to release it can only be abandoned.
            _ = orders.recv() => return End::NotReleased,
        }
        let permit = tokio::select! {
            biased;
            // Before there is anything to release it can only be abandoned.
            _ = orders.recv() => return End::NotReleased,
            permit = self.starts.acquire() => match permit {
                Ok(permit) => permit,
                Err(_) => return End::NotReleased, // never closed
            },
        };
        let launcher = self.launcher.clone();
        let (socket, child) = match spawn_blocking(move || spawn(&launcher)).await {
            Ok(Ok(spawned)) => spawned,
            Ok(Err(error)) => return failed(&error),
            Err(error) => return failed(&error),
        };
        spec.open_files = self.open_files;
        let held = match UnixStream::from_std(socket) {
            Ok(stream) => self.hold(spec, stream, &mut orders, permit).await,
            Err(error) => Err(failed(&error)),
        };
        let end = match held {
            Ok((talk, pid)) => self.serve(launch, pid, talk, orders, false).await,
            Err(end) => end,
        };
        // It ends by itself once its socket is closed, or has ended.
        drop(spawn_blocking(move || reap(child)));
        end
    }

    /// Hands the spec over and waits until the command is held.
    async fn hold(
        &self,
        spec: Spec,
        mut stream: UnixStream,
        orders: &mut mpsc::Receiver<Given>,
        permit: tokio::sync::SemaphorePermit<'_>,
    ) -> Result<(Talk, u32), End> {
        let launch = spec.launch;
        let lost = |error: io::Error| {
            End::StartFailed(format!("Failed to hold the command: its supervisor is lost: {error}").into())
        };
        let frame = encode(&ToSupervisor::Spec(Box::new(spec))).map_err(lost)?;
        stream.write_all(&frame).await.map_err(lost)?;
        let mut talk = Talk { stream, frames: Frames::default() };
        let heard = tokio::select! {
            heard = talk.hear() => heard.map_err(lost)?,
            _ = orders.recv() => return Err(End::NotReleased), // abandoned: closing the socket does it
        };
        drop(permit);
        match heard {
            Some(FromSupervisor::Here { pid, start_time, .. }) => {
                let process = Process { pid, start_time, boot_id: self.boot_id.clone() };
                self.tell(Input::Started { launch, process }).await;
                Ok((talk, pid))
            }
            Some(FromSupervisor::Ended(ending)) => Err(end(launch, ending)),
            Some(FromSupervisor::Running | FromSupervisor::Found { .. }) | None => {
                Err(lost(io::ErrorKind::UnexpectedEof.into()))
            }
        }
    }

    /// Carries orders and news until the task has ended.
    async fn serve(
        &self,
        launch: LaunchNumber,
        pid: u32,
        mut talk: Talk,
        mut orders: mpsc::Receiver<Given>,
        mut released: bool,
    ) -> End {
        // Two at most that wait to be answered, and such as are not waited for any more.
        let mut looks: BTreeMap<u64, oneshot::Sender<Found>> = BTreeMap::new();
        loop {
            tokio::select! {
                heard = talk.hear() => match heard {
                    Ok(Some(FromSupervisor::Running)) => self.tell(Input::Released { launch }).await,
                    Ok(Some(FromSupervisor::Ended(ending))) => return end(launch, ending),
                    Ok(Some(FromSupervisor::Found { number, found })) => {
                        if let Some(look) = looks.remove(&number) {
                            let _ = look.send(found); // who asked may be gone
                        }
                    }
                    Ok(Some(FromSupervisor::Here { .. })) => {}
                    Ok(None) | Err(_) => return self.end_of(launch, pid, released, true).await,
                },
                Some((order, _given)) = orders.recv() => {
                    released |= matches!(order, Order::Release);
                    let message = match order {
                        Order::Look(look, answer) => {
                            looks.retain(|_, answer| !answer.is_closed());
                            looks.insert(look.number, answer);
                            ToSupervisor::Look(look)
                        }
                        Order::Release => ToSupervisor::Release,
                        Order::Abandon => ToSupervisor::Abandon,
                        Order::Signal(Signal::Term) => ToSupervisor::Term,
                        Order::Signal(Signal::Kill) => ToSupervisor::Kill,
                    };
                    // One that cannot be told is gone, and the next read says so.
                    let _ = talk.say(&message).await;
                }
            }
        }
    }

    /// How a launch ended whose supervisor does not answer: what it left is ended first.
    async fn end_of(&self, launch: LaunchNumber, pid: u32, released: bool, same_boot: bool) -> End {
        let path = self.place.exit_path(launch, pid);
        if let Ok(Some(ending)) = spawn_blocking(move || read_exit(&path, launch)).await {
            return end(launch, ending);
        }
        if same_boot {
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
        }
        match released {
            true => End::Unknown,
            false => End::StartFailed("Failed to hold the command: its supervisor ended".into()),
        }
    }

    async fn connect(&self, name: &str) -> io::Result<Talk> {
        let path = format!("/proc/self/fd/{}/{name}", self.directory.as_raw_fd());
        Ok(Talk { stream: UnixStream::connect(path).await?, frames: Frames::default() })
    }

    /// The supervisor of a recorded process, if it lives: it answers with the launch number. Also whether its
    /// command runs.
    async fn find(&self, launch: LaunchNumber, process: &Process) -> Option<(Talk, bool)> {
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
    async fn end_all_but(
        &self,
        alive: &BTreeSet<LaunchNumber>,
        known: &BTreeMap<LaunchNumber, u32>,
    ) -> Result<(), AgentError> {
        let sockets: BTreeSet<String> = known
            .iter()
            .filter(|(launch, _)| alive.contains(launch))
            .map(|(launch, pid)| Place::socket_name(*launch, *pid))
            .collect();
        for name in names(&self.place.runtime).await {
            if sockets.contains(&name) {
                continue;
            }
            if let Ok(mut talk) = self.connect(&name).await {
                info!(socket = name, "ending a supervisor that no checkpoint names");
                let _ = talk.say(&ToSupervisor::End).await;
                let _ = timeout(PATIENCE, async { while let Ok(Some(_)) = talk.hear().await {} }).await;
            }
            let _ = tokio::fs::remove_file(self.place.runtime.join(name)).await; // it may have removed it itself
        }
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
        Ok(())
    }

    /// Removes the exit files that no record asks for.
    async fn remove_exits_but(&self, known: &BTreeMap<LaunchNumber, u32>) {
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

/// Raises this process's limit of open files to what it may have: each task needs one. Returns what it was, for
/// the tasks.
fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).ok()?;
    limit.current
}

fn spawn(launcher: &Launcher) -> io::Result<(StdUnixStream, Child)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let child = Command::new(&launcher.exe)
        .args(&launcher.supervise_args)
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok((ours, child))
}

/// Ends what is in the group of a launch, if there is one. False: something of it does not end.
async fn end_group(enforcer: &Arc<Enforcer>, launch: LaunchNumber) -> bool {
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

fn reap(mut child: Child) {
    let _ = child.wait(); // only to free its number
}

fn end(launch: LaunchNumber, ending: Ending) -> End {
    match ending {
        Ending::OutOfMemory { status, limit, peak } => {
            End::Limited(Box::new(limits::out_of_memory(launch, status, limit, peak)))
        }
        Ending::Exited(code) => End::Exited(code),
        Ending::Signaled(signal) => End::Signaled(signal),
        Ending::NotReleased => End::NotReleased,
        Ending::StartFailed(why) => End::StartFailed(why.into()),
    }
}

/// A conversation with a supervisor.
struct Talk {
    stream: UnixStream,
    frames: Frames,
}

impl Talk {
    /// The next message; none when the other side is gone. May be dropped while it waits.
    async fn hear(&mut self) -> io::Result<Option<FromSupervisor>> {
        loop {
            if let Some(message) = self.frames.next()? {
                return Ok(Some(message));
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes).await? {
                0 => return Ok(None),
                n => self.frames.push(&bytes[..n]),
            }
        }
    }

    async fn say(&mut self, message: &ToSupervisor) -> io::Result<()> {
        self.stream.write_all(&encode(message)?).await
    }
}
