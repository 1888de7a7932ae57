//! What this agent shows of its tasks: a fold of the same records that are kept on its disk, with what is over for a
//! while, and what was said of each task.
//!
//! # Laws
//! - For eyes only: nothing is decided by it, and it is lost when the agent ends, but for what the disk still has.
//! - What is over is bounded, the oldest goes first.

use muster_model::{
    AgentId, FrameworkId, LaunchNumber, Reason, Sealed, Source, StatusUpdate, TaskState, VolumeMount,
};
use muster_node::{End, ExecutorIntent, Intent, Process, Record, Saved};
use muster_proto::mesos;
use prost::Message;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// Executors that are over and shown, of all frameworks together; a command task counts as one.
const COMPLETED_MAX: usize = 1_000;
/// Of one framework (Mesos).
pub(crate) const COMPLETED_OF_FRAMEWORK_MAX: usize = 150;
/// Tasks of one executor that are over and shown (Mesos).
const DONE_MAX: usize = 200;
/// Statuses that are shown of a task.
const STATUSES_MAX: usize = 16;
/// A longer status is kept without its data, in bytes.
const STATUS_BYTES: usize = 2 << 10;
/// A wait status that nobody knows.
pub(crate) const UNKNOWN: i32 = -1;
/// Who may wait for ends at a time.
const WAITING_MAX: usize = 1_000;

/// A task.
#[derive(Debug, Clone)]
pub(crate) struct TaskSeen {
    pub(crate) intent: Arc<Intent>,
    /// The run of the executor that it is in; none with a process of its own.
    pub(crate) executor: Option<LaunchNumber>,
    pub(crate) process: Option<Process>,
    /// Its executor was told of it.
    pub(crate) handed: bool,
    pub(crate) state: TaskState,
    /// What was said of it, the last of each run of one state.
    pub(crate) statuses: Vec<StatusUpdate>,
    /// Its process' wait status, once it ended, if this agent heard of it.
    status: Option<i32>,
    /// The persistent volumes that it and its executor use.
    volumes: Vec<VolumeMount>,
}

impl TaskSeen {
    fn new(intent: Arc<Intent>) -> Self {
        Self {
            intent,
            executor: None,
            process: None,
            handed: false,
            state: TaskState::Staging,
            statuses: Vec::new(),
            status: None,
            volumes: Vec::new(),
        }
    }

    /// It waits to be started, or to be handed to its executor.
    pub(crate) fn is_queued(&self) -> bool {
        !self.handed && self.process.is_none() && !self.state.is_terminal()
    }

    fn said(&mut self, update: &StatusUpdate) {
        self.state = update.status.state;
        let mut update = update.clone();
        if update.status.sealed.len() > STATUS_BYTES {
            update.status.sealed = without_data(&update.status.sealed);
        }
        match self.statuses.last_mut() {
            Some(last) if last.status.state == update.status.state => *last = update,
            _ => self.statuses.push(update),
        }
        if self.statuses.len() > STATUSES_MAX {
            self.statuses.remove(0);
        }
    }
}

/// Those of the volumes of a task that are its executor's.
fn of_executor(volumes: &[VolumeMount]) -> Vec<VolumeMount> {
    volumes.iter().filter(|volume| volume.executor).cloned().collect()
}

fn without_data(sealed: &[u8]) -> Sealed {
    let mut status = mesos::TaskStatus::decode(sealed).unwrap_or_default();
    status.data = None;
    Sealed::new(status.encode_to_vec())
}

/// What runs in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contained {
    /// A run of an executor, or a task with a process of its own.
    Alone(LaunchNumber),
    /// A task within a built-in executor.
    Within(LaunchNumber),
}

impl Contained {
    /// The launch that it goes by.
    pub(crate) fn launch(self) -> LaunchNumber {
        let (Self::Alone(launch) | Self::Within(launch)) = self;
        launch
    }
}

/// A run of an executor.
#[derive(Debug, Clone)]
pub(crate) struct RunSeen {
    pub(crate) intent: Arc<ExecutorIntent>,
    /// It has no process: this agent runs its tasks.
    pub(crate) built_in: bool,
    pub(crate) process: Option<Process>,
    pub(crate) subscribed: bool,
    pub(crate) unwanted: bool,
    /// Its wait status, once it ended.
    ended: Option<i32>,
    /// Its tasks that are forgotten.
    pub(crate) done: VecDeque<Arc<TaskSeen>>,
    /// Its tasks that are not.
    tasks: usize,
    forgotten: bool,
    /// The persistent volumes that it uses itself.
    volumes: Vec<VolumeMount>,
}

impl RunSeen {
    /// No process of it is left.
    pub(crate) fn is_over(&self) -> bool {
        self.ended.is_some()
    }
}

/// What ran and is over.
#[derive(Debug, Clone)]
pub(crate) enum Completed {
    Task(Arc<TaskSeen>),
    Run(Arc<RunSeen>),
}

impl Completed {
    pub(crate) fn framework_id(&self) -> &FrameworkId {
        match self {
            Self::Task(task) => &task.intent.task.framework_id,
            Self::Run(run) => &run.intent.name.framework_id,
        }
    }
}

/// What happened since this agent began.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// Tasks that came to an end, by how.
    pub(crate) ended: BTreeMap<TaskState, u64>,
    /// Statuses that executors and commands told.
    pub(crate) updates: u64,
    pub(crate) launch_errors: u64,
    /// Executors that ended; a command task counts as one.
    pub(crate) executors_ended: u64,
    /// Messages of frameworks that were sent on to executors.
    pub(crate) messages: u64,
}

/// All that is shown; the parts are shared, so that a copy costs little.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) agent_id: Option<AgentId>,
    /// The leader's address, while there is one.
    pub(crate) leader: Option<String>,
    pub(crate) frameworks: BTreeMap<FrameworkId, Sealed>,
    /// What is not forgotten.
    pub(crate) tasks: BTreeMap<LaunchNumber, Arc<TaskSeen>>,
    pub(crate) runs: BTreeMap<LaunchNumber, Arc<RunSeen>>,
    /// What is, the newest last.
    pub(crate) completed: VecDeque<Completed>,
    pub(crate) counts: Counts,
}

impl History {
    /// What the disk has.
    pub(crate) fn of(saved: &Saved) -> Self {
        let mut all = Self { agent_id: saved.agent_id.clone(), ..Self::default() };
        all.frameworks.clone_from(&saved.frameworks);
        for (launch, record) in &saved.tasks {
            let Some(intent) = &record.intent else { continue };
            let mut task = TaskSeen::new(intent.clone());
            task.process.clone_from(&record.process);
            task.volumes = saved.volumes.get(launch).cloned().unwrap_or_default();
            record.updates.iter().for_each(|update| task.said(update));
            task.state = record.state;
            if let Some(within) = saved.executors.tasks.get(launch) {
                (task.executor, task.handed) = (Some(within.executor), within.handed);
            }
            all.tasks.insert(*launch, Arc::new(task));
        }
        for (number, record) in &saved.executors.runs {
            let tasks: Vec<_> = all.tasks.values().filter(|task| task.executor == Some(*number)).collect();
            let volumes = tasks.first().map(|task| of_executor(&task.volumes)).unwrap_or_default();
            let tasks = tasks.len();
            let run = RunSeen {
                intent: record.intent.clone(),
                built_in: saved.built_in.contains(number),
                process: record.process.clone(),
                subscribed: false,
                unwanted: record.unwanted,
                ended: record.ended,
                done: VecDeque::new(),
                tasks,
                forgotten: false,
                volumes,
            };
            all.runs.insert(*number, Arc::new(run));
        }
        all
    }

    /// Takes a record in.
    pub(crate) fn fold(&mut self, record: &Record) {
        match record {
            Record::Identity(agent_id) => self.agent_id = Some(agent_id.clone()),
            Record::Framework { framework_id, sealed } => self.framework(framework_id, sealed),
            Record::Intent(intent) => {
                let task = TaskSeen::new(Arc::new((**intent).clone()));
                self.tasks.insert(intent.launch, Arc::new(task));
            }
            Record::Started { launch, process } => {
                self.task(*launch, |task| task.process = Some(process.clone()));
            }
            Record::Update(update) => self.update(update),
            Record::Forgotten { launch } => self.forgotten(*launch),
            Record::Executor(intent) => {
                let run = RunSeen {
                    intent: Arc::new((**intent).clone()),
                    built_in: false,
                    process: None,
                    subscribed: false,
                    unwanted: false,
                    ended: None,
                    done: VecDeque::new(),
                    tasks: 0,
                    forgotten: false,
                    volumes: Vec::new(),
                };
                self.runs.insert(intent.number, Arc::new(run));
            }
            Record::InExecutor { launch, executor } => {
                self.task(*launch, |task| task.executor = Some(*executor));
                let volumes =
                    self.tasks.get(launch).map(|task| of_executor(&task.volumes)).unwrap_or_default();
                self.run(*executor, |run| {
                    run.tasks += 1;
                    if !volumes.is_empty() {
                        run.volumes = volumes;
                    }
                });
            }
            Record::BuiltIn { executor } => self.run(*executor, |run| run.built_in = true),
            Record::Mounts { launch, volumes } => self.task(*launch, |task| task.volumes.clone_from(volumes)),
            Record::Handed { launch } => self.task(*launch, |task| task.handed = true),
            Record::HandedGroup { launches } => {
                launches.iter().for_each(|launch| self.task(*launch, |task| task.handed = true));
            }
            Record::ExecutorHeld { executor, process } => {
                self.run(*executor, |run| run.process = Some(process.clone()));
            }
            Record::ExecutorUnwanted { executor } => self.run(*executor, |run| run.unwanted = true),
            Record::ExecutorEnded { executor, status } => {
                self.counts.executors_ended += 1;
                self.run(*executor, |run| run.ended = Some(*status));
            }
            Record::ExecutorForgotten { executor } => {
                self.run(*executor, |run| run.forgotten = true);
                self.settle(*executor);
            }
            Record::Snapshot(_)
            | Record::Executors(_)
            | Record::Frameworks(_)
            | Record::Groups(_)
            | Record::KilledGroups(_)
            | Record::KilledGroup { .. }
            | Record::Volumes(_)
            | Record::AllWatched(_)
            | Record::AllBuiltIn(_)
            | Record::Terms { .. }
            | Record::Ran { .. }
            | Record::Health { .. }
            | Record::Found { .. }
            | Record::EndedFor { .. }
            | Record::InGroup { .. }
            | Record::Fence(_)
            | Record::LowMark(_)
            | Record::Refused { .. }
            | Record::KillWanted { .. }
            | Record::Confirmed { .. } => {}
        }
    }

    /// An executor has a stream.
    pub(crate) fn subscribed(&mut self, number: LaunchNumber) {
        self.run(number, |run| run.subscribed = true);
    }

    fn task(&mut self, launch: LaunchNumber, change: impl FnOnce(&mut TaskSeen)) {
        if let Some(task) = self.tasks.get_mut(&launch) {
            change(Arc::make_mut(task));
        }
    }

    fn run(&mut self, number: LaunchNumber, change: impl FnOnce(&mut RunSeen)) {
        if let Some(run) = self.runs.get_mut(&number) {
            change(Arc::make_mut(run));
        }
    }

    fn framework(&mut self, framework_id: &FrameworkId, sealed: &Sealed) {
        if !self.frameworks.contains_key(framework_id) {
            // Those of which nothing is shown any more.
            let shown: BTreeSet<&FrameworkId> = self
                .tasks
                .values()
                .map(|task| &task.intent.task.framework_id)
                .chain(self.runs.values().map(|run| &run.intent.name.framework_id))
                .chain(self.completed.iter().map(Completed::framework_id))
                .collect();
            self.frameworks.retain(|id, _| shown.contains(id));
        }
        self.frameworks.insert(framework_id.clone(), sealed.clone());
    }

    fn update(&mut self, update: &StatusUpdate) {
        let status = &update.status;
        self.counts.updates += u64::from(status.source == Source::Executor);
        self.counts.launch_errors += u64::from(status.reason == Some(Reason::ContainerLaunchFailed));
        if status.state.is_terminal() {
            *self.counts.ended.entry(status.state).or_default() += 1;
            let is_own = self.tasks.get(&update.launch).is_some_and(|task| task.executor.is_none());
            self.counts.executors_ended += u64::from(is_own);
        }
        self.task(update.launch, |task| task.said(update));
    }

    fn forgotten(&mut self, launch: LaunchNumber) {
        let Some(task) = self.tasks.remove(&launch) else { return };
        match task.executor {
            None => self.complete(Completed::Task(task)),
            Some(number) => {
                self.run(number, |run| {
                    run.tasks = run.tasks.saturating_sub(1);
                    run.done.push_back(task);
                    if run.done.len() > DONE_MAX {
                        run.done.pop_front();
                    }
                });
                self.settle(number);
            }
        }
    }

    /// A run is over when its end is confirmed and all that was said of its tasks is.
    fn settle(&mut self, number: LaunchNumber) {
        if self.runs.get(&number).is_some_and(|run| run.forgotten && run.tasks == 0)
            && let Some(run) = self.runs.remove(&number)
        {
            self.complete(Completed::Run(run));
        }
    }

    fn complete(&mut self, it: Completed) {
        let of_it = |other: &Completed| other.framework_id() == it.framework_id();
        if self.completed.iter().filter(|other| of_it(other)).count() >= COMPLETED_OF_FRAMEWORK_MAX
            && let Some(at) = self.completed.iter().position(of_it)
        {
            self.completed.remove(at);
        }
        self.completed.push_back(it);
        if self.completed.len() > COMPLETED_MAX {
            self.completed.pop_front();
        }
    }

    /// The container of a task, if it has one: within its executor's, where that is built in.
    pub(crate) fn container_of(&self, launch: LaunchNumber) -> Option<Contained> {
        match self.tasks.get(&launch)?.executor {
            None => Some(Contained::Alone(launch)),
            Some(number) => {
                self.runs.get(&number).filter(|run| run.built_in).map(|_| Contained::Within(launch))
            }
        }
    }

    /// Whether what is in this container is there or about to be: then also its process.
    pub(crate) fn lives(&self, it: Contained) -> Option<Option<&Process>> {
        if let Contained::Alone(number) = it
            && let Some(run) = self.runs.get(&number)
        {
            return (!run.is_over()).then_some(run.process.as_ref());
        }
        let (Contained::Alone(launch) | Contained::Within(launch)) = it;
        let task = self.tasks.get(&launch).filter(|_| self.container_of(launch) == Some(it))?;
        (!task.state.is_terminal()).then_some(task.process.as_ref())
    }

    /// The volumes that are used in a sandbox at present: of the task with a process of its own, or of the executor and
    /// its tasks, of this framework, name and run.
    fn volumes(&self, framework: &str, name: &str, number: LaunchNumber) -> Vec<VolumeMount> {
        let uses = |task: &&Arc<TaskSeen>| !task.state.is_terminal();
        if let Some(run) = self.runs.get(&number).filter(|run| !run.is_over()) {
            let of = &run.intent.name;
            if (of.framework_id.as_str(), of.executor_id.as_str()) != (framework, name) {
                return Vec::new();
            }
            let is_here = |task: &&Arc<TaskSeen>| task.handed || task.process.is_some();
            let tasks = self.tasks.values().filter(|task| task.executor == Some(number));
            let of_tasks = tasks.filter(is_here).filter(uses).flat_map(|task| {
                let own = task.volumes.iter().filter(|it| !it.executor).cloned();
                own.map(|mut volume| {
                    if run.built_in {
                        let (id, path) = (&task.intent.task.task_id, &volume.container_path);
                        volume.container_path = format!("tasks/{id}/{path}").into();
                    }
                    volume
                })
            });
            return run.volumes.iter().cloned().chain(of_tasks).collect();
        }
        let own = self.tasks.get(&number).filter(uses).filter(|task| {
            let of = &task.intent.task;
            task.executor.is_none() && (of.framework_id.as_str(), of.task_id.as_str()) == (framework, name)
        });
        own.map(|task| task.volumes.clone()).unwrap_or_default()
    }

    /// Whether a process of it is left that this agent will hear the end of.
    fn has_yet_to_end(&self, it: Contained) -> bool {
        self.tasks.get(&it.launch()).is_some_and(|task| task.process.is_some() && task.status.is_none())
    }

    /// How one ended that is not forgotten.
    fn status(&self, it: Contained) -> Option<i32> {
        let (Contained::Alone(number) | Contained::Within(number)) = it;
        let run = self.runs.get(&number).filter(|_| it == Contained::Alone(number)).map(|run| run.ended);
        run.or_else(|| self.tasks.get(&number).map(|task| task.status)).flatten()
    }
}

/// The history that the loop writes and requests read, and who waits for an end.
#[derive(Clone, Default)]
pub(crate) struct Shown(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    history: History,
    waiting: BTreeMap<Contained, Vec<oneshot::Sender<i32>>>,
}

impl Inner {
    fn tell(&mut self, it: Contained, status: i32) {
        for waiting in self.waiting.remove(&it).into_iter().flatten() {
            let _ = waiting.send(status); // who asked may be gone
        }
    }
}

/// The end of something.
pub(crate) enum Wait {
    /// For its wait status.
    For(oneshot::Receiver<i32>),
    /// It ended so.
    Over(i32),
    /// Nothing is known of it.
    Unknown,
    /// Too many wait.
    TooMany,
}

impl Shown {
    pub(crate) fn new(history: History) -> Self {
        Self(Arc::new(Mutex::new(Inner { history, waiting: BTreeMap::new() })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut History)) {
        change(&mut self.inner().history);
    }

    /// All as it is.
    pub(crate) fn now(&self) -> History {
        self.inner().history.clone()
    }

    /// The volumes that are used in a sandbox at present.
    pub(crate) fn volumes(&self, framework: &str, name: &str, run: LaunchNumber) -> Vec<VolumeMount> {
        self.inner().history.volumes(framework, name, run)
    }

    /// No process of it is left: before it is shown as over, or who asks between the two is told that it never was.
    pub(crate) fn ends(&self, number: LaunchNumber, end: &End) {
        self.inner().history.task(number, |task| task.status = Some(end.wait_status()));
    }

    /// It is shown as over: after that, or who asks between the two waits for ever.
    pub(crate) fn ended(&self, number: LaunchNumber, end: &End) {
        let mut inner = self.inner();
        let it = inner.history.container_of(number).unwrap_or(Contained::Alone(number));
        inner.tell(it, end.wait_status());
    }

    /// A built-in executor has no task any more.
    pub(crate) fn emptied(&self, number: LaunchNumber, status: i32) {
        self.inner().tell(Contained::Alone(number), status);
    }

    /// Tells whoever waits for what is over without having had a process, after a step.
    pub(crate) fn settle(&self) {
        let inner = &mut *self.inner();
        let is_over =
            |it: &Contained| inner.history.lives(*it).is_none() && !inner.history.has_yet_to_end(*it);
        let over: Vec<_> = inner.waiting.keys().copied().filter(is_over).collect();
        for it in over {
            let status = inner.history.status(it).unwrap_or(UNKNOWN);
            inner.tell(it, status);
        }
    }

    /// Waits for the end of what is in a container.
    pub(crate) fn wait(&self, number: Contained) -> Wait {
        let mut inner = self.inner();
        if inner.history.lives(number).is_none() {
            return inner.history.status(number).map_or(Wait::Unknown, Wait::Over);
        }
        inner.waiting.values_mut().for_each(|all| all.retain(|it| !it.is_closed()));
        inner.waiting.retain(|_, all| !all.is_empty());
        if inner.waiting.values().map(Vec::len).sum::<usize>() >= WAITING_MAX {
            return Wait::TooMany;
        }
        let (ended, wait) = oneshot::channel();
        inner.waiting.entry(number).or_default().push(ended);
        Wait::For(wait)
    }
}
