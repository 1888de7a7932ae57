//! The agent's loop: one input at a time into the machine, and its effects performed.

use crate::{
    AgentConfig, AgentError,
    checks::{self, How},
    command::Work,
    containers::Containers,
    disk::{Durable, Log, Opened, WorkDir, Writer},
    doctor::enforced,
    executors::{self, Executors},
    history::{History, Shown},
    launches::LaunchTimes,
    limits::Enforcer,
    link::Link,
    mesos::{About, Reads, flags},
    probe,
    sandbox::{Policy, Sandboxes},
    sessions::Sessions,
    supervisors::{Launcher, Means, Order, Supervisors},
    volumes,
};
use muster_fault::{Point, point_async};
use muster_http::auth::Auth;
use muster_model::{
    AgentInfo, ExecutorCall, ExecutorEvent, ExecutorName, Sealed, TaskId, TaskKey, TaskState, Token,
};
use muster_node::{Down, Effect, Input, Node, NodeConfig, Probe, Record, Saved, Within};
use muster_proto::{check::told_status, executor_api::with_container};
use std::{
    collections::{BTreeSet, VecDeque},
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::{JoinSet, spawn_blocking},
    time,
};
use tracing::{error, info, warn};

/// Inputs that may wait for the loop.
const INPUTS_WAITING_MAX: usize = 1_024;

/// Answered orders kept before the leader is asked for a higher low mark.
const ANSWERED_MAX: usize = 50_000;
/// A wake that is not due does no harm, and a time that is no time (a grace of many years) none either.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Runs an agent until `shutdown` is ready or it cannot go on. Its tasks keep running; the next agent of the
/// same work directory finds them.
pub async fn run(
    config: AgentConfig,
    launcher: Launcher,
    shutdown: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    let mut config = config;
    config.check()?;
    let settings = config.auth.settings();
    let auth = blocking(move || Ok(Auth::load("mesos-agent", &settings)?)).await?;
    let for_dir = config.clone();
    let dir = blocking(move || WorkDir::open(&for_dir)).await?;
    let (listener, endpoint) = executors::listen(&config).await?;
    config.port = endpoint.port();
    let mut agent = Agent::begin(Arc::new(config), dir, launcher, listener, endpoint, auth).await?;
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        if let Some(stopped) = agent.work().await {
            agent.supervisors.settle().await; // kills that came with the word to stop
            return Err(AgentError::Stopped(stopped));
        }
        let wake = agent.wake();
        let input = tokio::select! {
            () = &mut shutdown => {
                agent.end().await;
                return Ok(());
            }
            Some(input) = agent.inputs.recv() => input,
            durable = agent.writer.durable() => match durable {
                Durable { failed: Some(why), .. } => Input::CheckpointFailed(why),
                Durable { ticket, .. } => Input::Synced { ticket },
            },
            () = time::sleep(wake) => Input::Wake,
        };
        agent.queue.push_back(input);
    }
}

/// What is read from the disk before the loop begins.
struct Ground {
    dir: WorkDir,
    log: Log,
    saved: Saved,
    info: AgentInfo,
    sealed: Sealed,
    sandboxes: Sandboxes,
    enforcer: Enforcer,
    containers: Containers,
}

/// Does what may block apart from the loop.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AgentError> + Send + 'static,
) -> Result<T, AgentError> {
    let done = spawn_blocking(work).await;
    done.map_err(|error| AgentError::Stopped(format!("cannot prepare: {error}")))?
}

fn prepare(config: &AgentConfig, dir: WorkDir) -> Result<Ground, AgentError> {
    let (log, opened) = Log::open(&dir.log())?;
    let saved = match opened {
        Opened::Read(saved) => *saved,
        Opened::New => Saved::default(),
        Opened::Damaged => {
            warn!(log = %dir.log().display(), "the checkpoints are damaged: ending all tasks, and beginning as a new agent");
            Saved::default()
        }
    };
    let (info, sealed) = probe::describe(config, &dir)?;
    let tasks = saved.tasks.iter().map(|(launch, task)| dir.sandbox(&task.task, *launch));
    let executors =
        saved.executors.runs.iter().map(|(number, run)| dir.sandbox(&sandbox_key(&run.intent.name), *number));
    let live: BTreeSet<PathBuf> = tasks.chain(executors).collect();
    let policy = Policy {
        max: config.sandboxes_max,
        delay: Duration::from_millis(config.sandbox_keep_ms),
        headroom: config.disk_headroom_percent as f64 / 100.0,
    };
    let sandboxes = Sandboxes::find(&dir.sandboxes(), policy, |path| live.contains(path));
    let enforcer = Enforcer::open(config, &dir.fingerprint)?;
    let containers = Containers::open(config, &dir)?;
    Ok(Ground { dir, log, saved, info, sealed, sandboxes, enforcer, containers })
}

/// The name of an executor in the place of a task's.
fn sandbox_key(name: &ExecutorName) -> TaskKey {
    TaskKey { framework_id: name.framework_id.clone(), task_id: TaskId::new(name.executor_id.as_str()) }
}

struct Agent {
    dir: WorkDir,
    node: Node,
    started: Instant,
    inputs: mpsc::Receiver<Input>,
    sender: mpsc::Sender<Input>,
    /// Inputs that are next, before those of the channel.
    queue: VecDeque<Input>,
    writer: Writer,
    link: Link,
    supervisors: Supervisors,
    executors: Executors,
    sandboxes: Sandboxes,
    shown: Shown,
    enforcer: Arc<Enforcer>,
    times: Arc<LaunchTimes>,
    containers: Arc<Containers>,
    /// What goes on beside the loop, and ends with it.
    _beside: JoinSet<()>,
}

impl Agent {
    async fn begin(
        config: Arc<AgentConfig>,
        dir: WorkDir,
        launcher: Launcher,
        listener: TcpListener,
        endpoint: SocketAddr,
        auth: Auth,
    ) -> Result<Self, AgentError> {
        let since = Instant::now();
        let for_ground = config.clone();
        let ground = blocking(move || prepare(&for_ground, dir)).await?;
        let (sender, inputs) = mpsc::channel(INPUTS_WAITING_MAX);
        let auth = Arc::new(auth);
        let enforcer = Arc::new(ground.enforcer);
        let containers = Arc::new(ground.containers);
        let means = Means { enforcer: enforcer.clone(), containers: containers.clone() };
        let (for_auth, for_inputs) = (auth.clone(), sender.clone());
        let mut supervisors =
            Supervisors::new(&ground.dir, launcher, &config, means, endpoint, for_auth, for_inputs)?;
        let agent_info = bytes::Bytes::copy_from_slice(&ground.sealed);
        let mut executors = Executors::new(agent_info, sender.clone());
        let writer = Writer::start(ground.log)
            .map_err(|source| AgentError::System { doing: "start the checkpoint thread", source })?;
        // One moment on both clocks: what lies between them would be missing from every time that the machine tells.
        let (started, now) = (Instant::now(), SystemTime::now());
        let wall = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        info!(
            agent_id = ground.saved.agent_id.as_ref().map(tracing::field::display),
            machine_id = %ground.info.machine_id,
            resources = %ground.info.resources,
            tasks = ground.saved.tasks.len(),
            work_dir = %config.work_dir.display(),
            "agent starts"
        );
        let can: Vec<String> = enforced(enforcer.can())
            .into_iter()
            .map(|(name, ability)| format!("{name}: {}", ability.err().unwrap_or("yes")))
            .collect();
        info!(cgroups = enforcer.can().layout.name(), can = can.join("; "), "limits that can be enforced");
        let made: Vec<String> = containers
            .abilities()
            .into_iter()
            .map(|(name, found)| format!("{name}: {}", found.unwrap_or_else(|why| why)))
            .collect();
        info!(can = made.join("; "), "containers that can be made");
        let times = Arc::<LaunchTimes>::default();
        let mut about = About {
            enforcer: enforcer.clone(),
            containers: containers.abilities(),
            flags: flags(&config, &ground.info),
            info: ground.info.clone(),
            sealed: ground.sealed.clone(),
            started: now,
            since,
            recovery_secs: 0.0,
            log_file: config.log_file.clone(),
            sandboxes: ground.dir.sandboxes(),
            volumes: ground.dir.volumes(),
            fetched: supervisors.fetched(),
            gone: ground.sandboxes.counts(),
            launches: times.clone(),
        };
        let shown = Shown::new(History::of(&ground.saved));
        let node_config = NodeConfig {
            info: ground.info,
            sealed: ground.sealed,
            token: Token(rand::random()),
            grace_ms: config.kill_grace_ms,
            repeat_ms: config.repeat_ms,
            repeat_ms_max: config.repeat_ms_max,
            welcome_ms: config.welcome_ms,
            executor_registration_ms: config.executor_registration_ms,
            executor_reregistration_ms: config.executor_reregistration_ms,
            executor_grace_ms: config.executor_grace_ms,
            probes_max: config.probes_max,
            seal: told_status,
            tasks_max: config.tasks_max,
            answered_max: ANSWERED_MAX,
            wall_at_zero_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        };
        let node = Node::recover(node_config, ground.saved);
        let processes = node.processes().map(|(launch, process)| (launch, process.clone()));
        let mut queue: VecDeque<Input> = supervisors.recover(processes.collect()).await?.into();
        queue.push_back(Input::Begin);
        about.recovery_secs = since.elapsed().as_secs_f64();
        let sessions = Sessions::new(&ground.dir.place).map_err(|source| AgentError::Prepare {
            doing: "open the runtime directory",
            path: ground.dir.place.runtime.clone(),
            source,
        })?;
        let reads = Reads::new(Arc::new(about), shown.clone(), executors.api(), auth, sessions);
        executors.serve(listener, reads.routes());
        let mut beside = JoinSet::new();
        beside.spawn(ground.sandboxes.clone().tend());
        beside.spawn(containers.clone().tend());
        Ok(Self {
            link: Link::new(config, sender.clone(), times.clone()),
            times,
            dir: ground.dir,
            node,
            started,
            inputs,
            sender,
            queue,
            writer,
            supervisors,
            executors,
            sandboxes: ground.sandboxes,
            shown,
            enforcer,
            containers,
            _beside: beside,
        })
    }

    /// Steps through what is queued. Returns why the agent must stop, if it must.
    async fn work(&mut self) -> Option<String> {
        let mut effects = Vec::new();
        while let Some(mut input) = self.queue.pop_front() {
            if let Input::Executor { call, from, .. } = &input
                && !self.executors.is_its_own(*call, from, self.node.executor_number(from))
            {
                continue;
            }
            self.complete(&mut input);
            let mut ended = None;
            match &input {
                Input::Synced { ticket } => self.supervisors.synced(*ticket),
                Input::Started { launch, process } => self.supervisors.started(*launch, process),
                Input::Released { launch } => self.times.runs(*launch),
                Input::Ended { launch, end } => {
                    self.times.ended(*launch);
                    self.shown.ends(*launch, end);
                    ended = Some((*launch, end.clone()));
                }
                Input::Frame { down: Down::Leader { address, .. }, .. } => {
                    self.shown.change(|it| it.leader = Some(address.clone()));
                }
                Input::StreamClosed { .. } => self.shown.change(|it| it.leader = None),
                Input::ExecutorGone { stream } => self.executors.hang_up(*stream),
                _ => {}
            }
            self.node.step(self.now_ms(), input, &mut effects);
            if let Some((launch, _)) = &ended {
                let ticket = effects.iter().find_map(|effect| match effect {
                    Effect::Checkpoint { ticket, .. } => Some(*ticket),
                    _ => None,
                });
                self.supervisors.ended(*launch, ticket);
            }
            for effect in effects.drain(..) {
                if let Some(stopped) = self.perform(effect).await {
                    return Some(stopped);
                }
            }
            if let Some((launch, end)) = ended {
                self.shown.ended(launch, &end);
            }
            self.shown.settle();
        }
        None
    }

    /// What an executor says of its tasks, with the container that they run in.
    fn complete(&self, input: &mut Input) {
        let Input::Executor { from, said, .. } = input else { return };
        let updates = match said {
            ExecutorCall::Subscribe { updates, .. } => updates.as_mut_slice(),
            ExecutorCall::Update(update) => std::slice::from_mut(update),
            ExecutorCall::Message(_) => return,
        };
        let Some(number) = self.node.executor_number(from) else { return };
        for update in updates {
            update.status.sealed = with_container(&update.status.sealed, number);
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How long until the machine wants a wake.
    fn wake(&self) -> Duration {
        let due = self.node.wake_at().map(|at| Duration::from_millis(at.saturating_sub(self.now_ms())));
        due.map_or(PAUSE_MAX, |due| due.min(PAUSE_MAX))
    }

    async fn perform(&mut self, effect: Effect) -> Option<String> {
        match effect {
            Effect::Checkpoint { ticket, records } => {
                records.iter().for_each(log_record);
                self.shown.change(|it| records.iter().for_each(|record| it.fold(record)));
                for record in &records {
                    if let Record::ExecutorEnded { executor, status } = record {
                        self.shown.emptied(*executor, *status); // nobody waits any more where it had a process
                    }
                }
                self.writer.checkpoint(ticket, records).await;
            }
            Effect::Send { stream, session, call } => {
                if !self.link.send(stream, self.node.saved().fence, session, call) {
                    self.queue.push_back(Input::StreamClosed { stream });
                }
            }
            Effect::Dial => self.link.dial(),
            Effect::Redial { reason, .. } => {
                self.shown.change(|it| it.leader = None);
                info!(reason, "dialling another master");
                self.link.dial();
            }
            Effect::Start(start) => {
                if let Err(error) = point_async!(Point::TaskStart).await {
                    return Some(error.to_string());
                }
                let sandbox = match &start.within {
                    None => self.dir.sandbox(&start.task, start.launch),
                    Some(Within { executor }) => {
                        let of = self.dir.sandbox(&sandbox_key(&executor.name), executor.number);
                        of.join("tasks").join(start.task.task_id.as_str())
                    }
                };
                self.supervisors.start(Work::Task(start), sandbox);
            }
            Effect::StartExecutor(start) => {
                if let Err(error) = point_async!(Point::TaskStart).await {
                    return Some(error.to_string());
                }
                let sandbox = self.dir.sandbox(&sandbox_key(&start.intent.name), start.intent.number);
                self.supervisors.start(Work::Executor(start), sandbox);
            }
            Effect::Mount { launch, number, name, volumes, used } => {
                let (root, inputs) = (self.dir.volumes(), self.sender.clone());
                let sandbox = self.dir.sandbox(&sandbox_key(&name), number);
                tokio::spawn(async move {
                    let done = spawn_blocking(move || volumes::mount(&root, &sandbox, &volumes, &used)).await;
                    let done = done.unwrap_or_else(|error| Err(format!("Failed to mount a volume: {error}")));
                    let failed = done.err().map(Into::into);
                    let _ = inputs.send(Input::Mounted { launch, failed }).await; // refused when the agent ends
                });
            }
            Effect::Resize { number, resources } => self.supervisors.resize(number, &resources),
            Effect::KeepVolumes { incarnation, keep } => {
                let gone = volumes::set_aside(&self.dir.volumes(), incarnation, &keep);
                if !gone.is_empty() {
                    drop(spawn_blocking(move || volumes::remove(&gone)));
                }
            }
            Effect::Answer { call, answer } => self.executors.answer(call, answer),
            Effect::Tell { stream, event } => {
                match &event {
                    ExecutorEvent::Subscribed { number, .. } => {
                        self.shown.change(|it| it.subscribed(*number))
                    }
                    ExecutorEvent::Message(_) => self.shown.change(|it| it.counts.messages += 1),
                    _ => {}
                }
                if !self.executors.tell(stream, &event) {
                    self.queue.push_back(Input::ExecutorGone { stream });
                }
            }
            Effect::HangUp { stream } => self.executors.hang_up(stream),
            Effect::Release { launch } => {
                if let Err(error) = point_async!(Point::TaskRelease).await {
                    return Some(error.to_string());
                }
                self.supervisors.order(launch, Order::Release);
            }
            Effect::Abandon { launch } => self.supervisors.order(launch, Order::Abandon),
            Effect::Signal { launch, signal } => {
                info!(%launch, ?signal, "signalling a task");
                self.supervisors.order(launch, Order::Signal(signal));
            }
            Effect::Probe(probe) => self.look(&probe),
            Effect::RemoveExit { launch } => self.supervisors.remove(launch),
            Effect::Remove { launch, task } => {
                self.supervisors.remove(launch);
                let (sandboxes, path) = (self.sandboxes.clone(), self.dir.sandbox(&task, launch));
                drop(spawn_blocking(move || sandboxes.ended(path)));
            }
            Effect::Stop(reason) => {
                error!(reason, "agent stops");
                return Some(reason);
            }
        }
        None
    }

    /// Runs a probe, and has its result told.
    fn look(&mut self, probe: &Probe) {
        let Probe { launch, which, number, timeout_ms, .. } = *probe;
        let how = checks::how(probe);
        let mut asked = None;
        if let Ok(How::Command(look)) = &how {
            let (answer, answered) = oneshot::channel();
            self.supervisors.order(launch, Order::Look(Box::new(look.clone()), answer));
            asked = Some(answered);
        }
        let inputs = self.sender.clone();
        tokio::spawn(async move {
            let result = match how {
                Ok(How::Command(_)) => checks::commanded(asked, timeout_ms).await,
                Ok(how) => checks::reached(how, timeout_ms).await,
                Err(why) => Err(why.into()),
            };
            let _ = inputs.send(Input::Probed { launch, which, number, result }).await; // refused when the agent ends
        });
    }

    /// Leaves the tasks to their supervisors, and the disk to the next agent.
    async fn end(self) {
        info!(tasks = self.node.saved().tasks.len(), "agent ends; its tasks go on");
        drop((self.link, self.supervisors, self.executors));
        self.writer.end().await;
        self.enforcer.cgroups().remove();
        self.containers.remove_groups();
        // Refused while a socket is in it, which is when it is needed.
        let _ = tokio::fs::remove_dir(&self.dir.place.runtime).await;
    }
}

/// State transitions, as the machine keeps them.
fn log_record(record: &Record) {
    match record {
        Record::Identity(agent_id) => info!(%agent_id, "registered"),
        Record::Fence(fence) => info!(term = fence.term.0, incarnation = fence.incarnation, "a new leader"),
        Record::Intent(intent) => {
            info!(launch = %intent.launch, task_id = %intent.task.task_id, framework_id = %intent.task.framework_id, "task accepted")
        }
        Record::Executor(intent) => {
            info!(number = %intent.number, executor = %intent.name, "executor accepted");
        }
        Record::ExecutorEnded { executor, status } => info!(number = %executor, status, "executor ended"),
        Record::Update(update) => {
            let (launch, state) = (update.launch, update.status.state);
            let message = &*update.status.message;
            match state {
                TaskState::Error | TaskState::Gone | TaskState::Dropped => {
                    warn!(%launch, task_id = %update.task.task_id, %state, message, "task lost");
                }
                _ => info!(%launch, task_id = %update.task.task_id, %state, message, "task state"),
            }
        }
        _ => {}
    }
}
