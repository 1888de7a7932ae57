//! The agent's side of its tasks' supervisors: starts them, finds them again, talks to them, and knows what
//! they left behind.

mod helper;
mod leftovers;
mod talk;

pub use helper::Launcher;
pub use leftovers::end_tasks;

use crate::{
    AgentConfig, AgentError,
    command::{Described, Surroundings, Unfit, Work, spec},
    containers::{self, Containers},
    disk::WorkDir,
    fetch::{Fetcher, make},
    limits::{self, Enforcer},
    mesos::Fetched,
    supervisor::{Ending, Found, Frames, FromSupervisor, Look, Place, Spec, ToSupervisor, boot_id, encode},
    volumes,
};
use futures::{FutureExt, StreamExt, stream};
use helper::Helper;
use leftovers::{AT_ONCE, PATIENCE, end_group};
use muster_http::auth::Auth;
use muster_model::{LaunchNumber, Resources};
use muster_node::{End, Input, Process, Signal};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    fs::{self, File},
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use talk::Talk;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::{JoinSet, spawn_blocking},
    time::timeout,
};
use tracing::warn;

/// How long a supervisor may take to hold a command: a runtime has a container to make.
const HOLDING: Duration = Duration::from_secs(120);
/// How many supervisors are asked for one launch.
const HOLDS_MAX: usize = 32;
/// Orders that may wait for a supervisor; more are dropped, and the machine repeats its signals.
const ORDERS_WAITING_MAX: usize = 16;
/// What the machine orders of a supervisor.
#[derive(Debug)]
pub(crate) enum Order {
    Release,
    Abandon,
    Signal(Signal),
    /// The ending that was told is durable.
    Kept,
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
    /// Launches that ended, by the checkpoint that says so, until that is durable.
    keeping: VecDeque<(u64, LaunchNumber)>,
    /// The held process of each launch, for its exit file's name.
    pids: BTreeMap<LaunchNumber, u32>,
    /// One for each supervisor; they end with this value, and what was not released by then never is.
    talks: JoinSet<()>,
}

/// What commands are limited with, and what makes containers of them.
#[derive(Debug, Clone)]
pub(crate) struct Means {
    pub(crate) enforcer: Arc<Enforcer>,
    pub(crate) containers: Arc<Containers>,
}

struct Shared {
    place: Place,
    /// Where persistent volumes are.
    volumes: PathBuf,
    helper: Helper,
    /// The file that helpers have locked.
    launching: PathBuf,
    around: Surroundings,
    fetcher: Fetcher,
    containers: Arc<Containers>,
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
        means: Means,
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
                enforcer: means.enforcer,
                switch_user: config.switch_user,
                endpoint,
                executor_grace_ms: config.executor_grace_ms,
                auth,
                logs: config.logs.clone(),
            },
            place,
            containers: means.containers,
            volumes: dir.volumes(),
            helper: Helper::new(launcher),
            launching: dir.launching(),
            fetcher: Fetcher::open(config, &dir.fetched())?,
            open_files: raise_open_files(),
            directory,
            boot_id,
            starts: Semaphore::new(config.starts_max),
            inputs,
        };
        let (orders, pids, talks, keeping) = Default::default();
        let (giving, given) = mpsc::channel(1);
        Ok(Self { shared: Arc::new(shared), orders, giving, given, keeping, pids, talks })
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
            let mut waiting = waiting;
            match shared.launch(work, sandbox, &mut waiting).await {
                Ok((talk, pid)) => shared.follow(launch, pid, talk, waiting, false).await,
                Err(end) => {
                    shared.tell(Input::Ended { launch, end }).await;
                    shared.clear(launch).await;
                }
            }
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

    /// A supervisor's task is over, which this checkpoint says; none, and its supervisor has to write it down.
    pub(crate) fn ended(&mut self, launch: LaunchNumber, ticket: Option<u64>) {
        match ticket {
            Some(ticket) => self.keeping.push_back((ticket, launch)),
            None => drop(self.orders.remove(&launch)),
        }
        while self.talks.try_join_next().is_some() {}
    }

    /// Checkpoints up to this one are durable.
    pub(crate) fn synced(&mut self, ticket: u64) {
        while let Some((_, launch)) = self.keeping.pop_front_if(|(of, _)| *of <= ticket) {
            if let Some(orders) = self.orders.remove(&launch) {
                // One that was never held, or whose supervisor is gone, has nobody to hear it.
                let _ = orders.try_send((Order::Kept, self.giving.clone()));
            }
        }
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
        let lock = self.shared.lock_launching().await?;
        let started = self.shared.helper.start(lock).await;
        started.map_err(|source| AgentError::System { doing: "start the launch helper", source })?;
        let mut inputs = Vec::new();
        let mut alive = BTreeSet::new();
        let shared = &self.shared;
        let look = async |(launch, process): (LaunchNumber, Process)| {
            let found = match shared.find(launch, &process).await {
                Some(found) => Ok(found),
                None => {
                    let same_boot = process.boot_id == shared.boot_id;
                    Err(shared.end_of(launch, process.pid, true, same_boot).await)
                }
            };
            (launch, process, found)
        };
        let found: Vec<_> = stream::iter(processes).map(look).buffered(AT_ONCE).collect().await;
        for (launch, process, found) in found {
            self.started(launch, &process);
            match found {
                Ok((stream, running)) => {
                    alive.insert(launch);
                    let (orders, waiting) = mpsc::channel(ORDERS_WAITING_MAX);
                    self.orders.insert(launch, orders);
                    if running {
                        inputs.push(Input::Released { launch });
                    }
                    let shared = self.shared.clone();
                    self.talks.spawn(async move {
                        shared.follow(launch, process.pid, stream, waiting, running).await;
                    });
                }
                Err(end) => inputs.push(Input::Ended { launch, end }),
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

    /// Removes what was made for a container that is over.
    async fn clear(&self, launch: LaunchNumber) {
        let containers = self.containers.clone();
        let _ = spawn_blocking(move || containers.clear(launch)).await; // what stays is removed at the next start
    }

    /// What is done for a command until it is held.
    async fn launch(
        &self,
        work: Work,
        sandbox: PathBuf,
        orders: &mut mpsc::Receiver<Given>,
    ) -> Result<(Talk, u32), End> {
        let within = work.executor_sandbox(&sandbox);
        let failed = |error: &dyn std::fmt::Display| {
            End::StartFailed(format!("Failed to start the task's supervisor: {error}").into())
        };
        let (around, mounts) = (self.around.clone(), work.volumes().to_vec());
        let (resources, grows) = (work.resources().clone(), matches!(work, Work::Executor(_)));
        let described = spawn_blocking(move || spec(&work, sandbox, &around)).await;
        let Described { mut spec, command, asked } = match described {
            Ok(Ok(described)) => described,
            Ok(Err(Unfit::Invalid(why))) => return Err(End::Invalid(why.into())),
            Ok(Err(Unfit::Here(why))) => return Err(End::StartFailed(why.into())),
            Err(error) => return Err(failed(&error)),
        };
        if !mounts.is_empty() {
            // Before anything else is in the sandbox.
            let (root, sandbox, user) = (self.volumes.clone(), spec.sandbox.clone(), spec.user);
            let (mounts, within) = (mounts.clone(), within.clone());
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
                Ok(Err(why)) => return Err(End::StartFailed(why.into())),
                Err(error) => return Err(failed(&error)),
            }
        }
        tokio::select! {
            fetched = self.fetcher.fetch(&command.uris, &spec.sandbox, spec.user) => {
                if let Err(why) = fetched {
                    return Err(End::StartFailed(why.into()));
                }
            }
            // Before there is anything to release it can only be abandoned.
            _ = orders.recv() => return Err(End::NotReleased),
        }
        if let Some(asked) = asked {
            let around = containers::Around {
                has_path: command.environment.iter().flat_map(|it| &it.variables).any(|it| it.name == "PATH"),
                command: &command,
                volumes: &mounts,
                volumes_dir: &self.volumes,
                parent: within.as_deref(),
                switch_user: self.around.switch_user,
                resources: &resources,
                grows,
            };
            tokio::select! {
                prepared = self.containers.prepare(&asked, around, &mut spec) => match prepared {
                    Ok(()) => {}
                    Err(Unfit::Invalid(why)) => return Err(End::Invalid(why.into())),
                    Err(Unfit::Here(why)) => return Err(End::StartFailed(why.into())),
                },
                // Before there is anything to release it can only be abandoned.
                _ = orders.recv() => return Err(End::NotReleased),
            }
        }
        let permit = tokio::select! {
            biased;
            // Before there is anything to release it can only be abandoned.
            _ = orders.recv() => return Err(End::NotReleased),
            permit = self.starts.acquire() => match permit {
                Ok(permit) => permit,
                Err(_) => return Err(End::NotReleased), // never closed
            },
        };
        spec.open_files = self.open_files;
        let held = self.hold(spec, orders).await;
        drop(permit);
        held
    }

    /// Has the command held by a supervisor. One that is gone before it said so has not let the command go, nor can
    /// anybody else: so another is asked.
    async fn hold(&self, spec: Spec, orders: &mut mpsc::Receiver<Given>) -> Result<(Talk, u32), End> {
        let (launch, is_grouped) = (spec.launch, !spec.parts.is_empty());
        let failed = |error: io::Error| {
            End::StartFailed(format!("Failed to start the task's supervisor: {error}").into())
        };
        let frame = encode(&ToSupervisor::Spec(Box::new(spec))).map_err(failed)?;
        let mut tried = 0;
        loop {
            let stream = self.helper.launch().await.map_err(failed)?;
            let mut talk = Talk { stream, frames: Frames::default() };
            let (heard, is_abandoned) = {
                // One that hangs (a runtime, a file system) must not keep others from their turn.
                let begun = timeout(HOLDING, talk.begin(&frame));
                let begun = begun.map(|heard| heard.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())));
                let mut begun = std::pin::pin!(begun);
                tokio::select! {
                    heard = &mut begun => (heard, false),
                    // Before there is anything to release it can only be abandoned. What it began ends first.
                    _ = orders.recv() => (begun.await, true),
                }
            };
            if is_abandoned {
                if let Ok(Some(FromSupervisor::Here { .. })) = heard {
                    talk.abandon().await;
                } else if is_grouped {
                    end_group(&self.around.enforcer, launch).await;
                }
                return Err(End::NotReleased);
            }
            tried += 1;
            let lost = match heard {
                Ok(Some(FromSupervisor::Here { pid, start_time, .. })) => {
                    let process = Process { pid, start_time, boot_id: self.boot_id.clone() };
                    self.tell(Input::Started { launch, process }).await;
                    return Ok((talk, pid));
                }
                Ok(Some(FromSupervisor::Ended(ending))) => return Err(end(launch, ending)),
                Ok(Some(_)) => io::ErrorKind::InvalidData.into(),
                Ok(None) => io::ErrorKind::UnexpectedEof.into(),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    let why =
                        format!("Failed to hold the command: it took longer than {} s", HOLDING.as_secs());
                    return Err(End::StartFailed(why.into()));
                }
                Err(error) => error,
            };
            // What it began is ended with it, by the kernel; its group may still be there.
            if tried == HOLDS_MAX || (is_grouped && !end_group(&self.around.enforcer, launch).await) {
                let why = format!("Failed to hold the command: its supervisor is lost: {lost}");
                return Err(End::StartFailed(why.into()));
            }
            warn!(%launch, %lost, "a supervisor is gone before it held its command: trying once more");
        }
    }

    /// Carries orders and news until the task has ended, and then the word that its ending is kept.
    async fn follow(
        &self,
        launch: LaunchNumber,
        pid: u32,
        mut talk: Talk,
        mut orders: mpsc::Receiver<Given>,
        released: bool,
    ) {
        let end = self.serve(launch, pid, &mut talk, &mut orders, released).await;
        self.tell(Input::Ended { launch, end }).await;
        let kept = async {
            while let Some((order, _given)) = orders.recv().await {
                if matches!(order, Order::Kept) {
                    let _ = talk.say(&ToSupervisor::Kept).await; // one that is gone has written it down
                }
            }
        };
        tokio::join!(kept, self.clear(launch));
    }

    /// Carries orders and news until the task has ended.
    async fn serve(
        &self,
        launch: LaunchNumber,
        pid: u32,
        talk: &mut Talk,
        orders: &mut mpsc::Receiver<Given>,
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
                    Ok(Some(_)) => {}
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
                        Order::Kept => ToSupervisor::Kept,
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
}

/// Raises this process's limit of open files to what it may have: each task needs one. Returns what it was, for
/// the tasks.
fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).ok()?;
    limit.current
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
