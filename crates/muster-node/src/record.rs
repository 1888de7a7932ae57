//! What the agent keeps on its disk, as records in a log, and their fold. Append-only: bincode stores a
//! variant's position.

use muster_model::{
    AgentId, CheckResult, ExecutorName, Fence, FrameworkId, Index, LaunchNumber, Resources, Sealed,
    StatusUpdate, TaskGroup, TaskKey, TaskState, TaskTerms, Uuid, VolumeMount, WallTime,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// One fact to keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// All that came before, in one record: the first of a compacted log.
    Snapshot(Box<Saved>),
    /// The id that the registry gave this agent.
    Identity(AgentId),
    /// The highest fence seen.
    Fence(Fence),
    /// No launch below this will ever be ordered again.
    LowMark(LowMark),
    /// An order that shall be carried out.
    Intent(Box<Intent>),
    /// An order, or a kill of a launch never heard of, that is answered without a start.
    Refused {
        /// The launch, never to be started.
        launch: LaunchNumber,
        /// Its name.
        task: TaskKey,
    },
    /// The task's command exists, held by its supervisor.
    Started {
        /// Of which launch.
        launch: LaunchNumber,
        /// The held process.
        process: Process,
    },
    /// A kill was asked for.
    KillWanted {
        /// Of which launch.
        launch: LaunchNumber,
        /// How long the task may take to end by itself, in ms.
        grace_ms: u64,
    },
    /// A status to report.
    Update(Box<StatusUpdate>),
    /// The registry has the updates up to this one.
    Confirmed {
        /// Of which launch.
        launch: LaunchNumber,
        /// The last confirmed.
        seq: u32,
    },
    /// The launch's record is of no more use; its number stays on the answered list.
    Forgotten {
        /// Which.
        launch: LaunchNumber,
    },
    /// All that came before of executors, in one record: the second of a compacted log that has any.
    Executors(Box<Executors>),
    /// An executor shall be started for the task of an order.
    Executor(Box<ExecutorIntent>),
    /// A task runs in an executor.
    InExecutor {
        /// Which task.
        launch: LaunchNumber,
        /// Which run of an executor.
        executor: LaunchNumber,
    },
    /// A task is handed to its executor, and never again.
    Handed {
        /// Which.
        launch: LaunchNumber,
    },
    /// An executor's command exists, held by its supervisor.
    ExecutorHeld {
        /// Which run.
        executor: LaunchNumber,
        /// The held process.
        process: Process,
    },
    /// An executor shall end.
    ExecutorUnwanted {
        /// Which run.
        executor: LaunchNumber,
    },
    /// No process of an executor is left.
    ExecutorEnded {
        /// Which run.
        executor: LaunchNumber,
        /// Its wait status.
        status: i32,
    },
    /// The registry knows that the executor ended.
    ExecutorForgotten {
        /// Which run.
        executor: LaunchNumber,
    },
    /// The frameworks of what came before: the last record of a compacted log that has any.
    Frameworks(Box<BTreeMap<FrameworkId, Sealed>>),
    /// How a framework describes itself.
    Framework {
        /// Which.
        framework_id: FrameworkId,
        /// Its whole `mesos.v1.FrameworkInfo`.
        sealed: Sealed,
    },
    /// The groups of what came before: in a compacted log that has any, after its executors.
    Groups(Box<BTreeMap<LaunchNumber, TaskGroup>>),
    /// A task was launched in a group.
    InGroup {
        /// Which.
        launch: LaunchNumber,
        /// The group.
        group: TaskGroup,
    },
    /// All members of a group are handed to their executor, and never again.
    HandedGroup {
        /// Which.
        launches: Vec<LaunchNumber>,
    },
    /// The volumes of what came before: in a compacted log that has any, after its executors.
    Volumes(Box<BTreeMap<LaunchNumber, Vec<VolumeMount>>>),
    /// A task and its executor use persistent volumes.
    Mounts {
        /// Which task.
        launch: LaunchNumber,
        /// The volumes.
        volumes: Vec<VolumeMount>,
    },
    /// The killed groups of what came before: in a compacted log that has any, after its groups.
    KilledGroups(Box<BTreeSet<LaunchNumber>>),
    /// A task was killed before all of its group were handed: so are those whose order comes later.
    KilledGroup {
        /// The group's first launch.
        first: LaunchNumber,
    },
    /// How the tasks of what came before are looked after: in a compacted log that has any, after its executors.
    AllWatched(Box<BTreeMap<LaunchNumber, Watched>>),
    /// What the agent keeps to of a task that it runs itself.
    Terms {
        /// Which.
        launch: LaunchNumber,
        /// What.
        terms: Box<TaskTerms>,
    },
    /// A task runs since then, by the agent's wall clock.
    Ran {
        /// Which.
        launch: LaunchNumber,
        /// When.
        wall: WallTime,
    },
    /// What a task's health check says of it.
    Health {
        /// Which.
        launch: LaunchNumber,
        /// Whether it is healthy.
        healthy: bool,
    },
    /// What a task's check found.
    Found {
        /// Which.
        launch: LaunchNumber,
        /// What.
        found: CheckResult,
    },
    /// A task is killed by its agent for this.
    EndedFor {
        /// Which.
        launch: LaunchNumber,
        /// For what.
        cause: Cause,
    },
    /// The built-in executors of what came before: in a compacted log that has any, after its executors.
    AllBuiltIn(Box<BTreeSet<LaunchNumber>>),
    /// An executor has no process: the agent is it.
    BuiltIn {
        /// Which run.
        executor: LaunchNumber,
    },
}

/// For what an agent kills a task by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// It ran for as long as it may.
    Completion,
    /// Its health check failed too often.
    Unhealthy,
}

/// How a task is looked after.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// What the agent keeps to.
    pub terms: TaskTerms,
    /// Since when it runs, by the agent's wall clock.
    pub since: Option<WallTime>,
    /// What its health check last said.
    pub healthy: Option<bool>,
    /// What its check last found.
    pub found: Option<CheckResult>,
    /// For what it was killed.
    pub cause: Option<Cause>,
}

/// Killed groups that are remembered, whatever the low mark says; the oldest go first.
const KILLED_GROUPS_MAX: usize = 10_000;

/// Frameworks that are remembered; beyond, those of which nothing is left here are forgotten.
const FRAMEWORKS_MAX: usize = 128;

/// A leader's word that no launch below a log index will ever be ordered of this agent again. It holds for
/// launches of its own and of former incarnations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LowMark {
    /// The incarnation of the leader that said so.
    pub incarnation: u32,
    /// The log index.
    pub index: Index,
}

impl LowMark {
    /// Whether a launch lies below, so that it must be refused.
    pub fn refuses(&self, launch: LaunchNumber) -> bool {
        launch.incarnation <= self.incarnation && launch.index < self.index
    }

    /// Whether this one replaces another: it is higher, or of a later incarnation.
    pub fn replaces(&self, other: &Self) -> bool {
        (self.incarnation, self.index) > (other.incarnation, other.index)
    }
}

/// An order as it was taken on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Its number.
    pub launch: LaunchNumber,
    /// Its name.
    pub task: TaskKey,
    /// What it may use.
    pub resources: Resources,
    /// Its own kill grace in ms.
    pub grace_ms: Option<u64>,
    /// The user to run as when the task names none.
    pub user: Arc<str>,
    /// The whole `mesos.v1.TaskInfo`.
    pub sealed: Sealed,
}

/// A held or released command: enough to tell it from a later process of the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid, which is also its process group and session.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`.
    pub start_time: u64,
    /// The machine's boot it lives in.
    pub boot_id: Arc<str>,
}

/// A launch that is not forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Its name.
    pub task: TaskKey,
    /// The order; none for a launch that was refused.
    pub intent: Option<Arc<Intent>>,
    /// Its process, once there is one. From then on it is never started again.
    pub process: Option<Process>,
    /// A kill was asked for, with this grace.
    pub kill_grace_ms: Option<u64>,
    /// The state of its last update, Staging before any.
    pub state: TaskState,
    /// The number of its last update, 0 before any.
    pub seq: u32,
    /// Updates that are not confirmed, in order.
    pub updates: Vec<StatusUpdate>,
}

impl TaskRecord {
    fn new(task: TaskKey, intent: Option<Arc<Intent>>) -> Self {
        Self {
            task,
            intent,
            process: None,
            kill_grace_ms: None,
            state: TaskState::Staging,
            seq: 0,
            updates: Vec::new(),
        }
    }
}

/// An executor as it was taken on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorIntent {
    /// Names the run: the launch of the task that it is started for.
    pub number: LaunchNumber,
    /// Whose, and its id there.
    pub name: ExecutorName,
    /// What it holds itself.
    pub resources: Resources,
    /// How long it may take to end once it is asked to, in ms; none = the agent's default.
    pub grace_ms: Option<u64>,
    /// The user to run as when it names none.
    pub user: Arc<str>,
    /// The whole `mesos.v1.FrameworkInfo`.
    pub framework: Sealed,
    /// The whole `mesos.v1.ExecutorInfo`.
    pub sealed: Sealed,
}

/// A run of an executor that is not forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorRecord {
    /// What it was started as.
    pub intent: Arc<ExecutorIntent>,
    /// Its process, once there is one. From then on it is never started again.
    pub process: Option<Process>,
    /// It shall end.
    pub unwanted: bool,
    /// Its wait status, once it ended.
    pub ended: Option<i32>,
}

/// Where a task of an executor stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InExecutor {
    /// The run of its executor.
    pub executor: LaunchNumber,
    /// It was handed, and never is again.
    pub handed: bool,
    /// The newest updates that came from the executor: it repeats what it was not told to be kept.
    pub uuids: VecDeque<Uuid>,
}

/// Updates of one task by which a repeated one is known.
const UUIDS_MAX: usize = 256;

/// The fold of what is kept of executors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executors {
    /// The runs that are not forgotten.
    pub runs: BTreeMap<LaunchNumber, ExecutorRecord>,
    /// The tasks that run in one, until they are forgotten.
    pub tasks: BTreeMap<LaunchNumber, InExecutor>,
}

impl Executors {
    /// Whether there is nothing to keep.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.tasks.is_empty()
    }
}

/// The fold of the records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// This agent's id, once it was given one.
    pub agent_id: Option<AgentId>,
    /// The highest fence seen.
    pub fence: Fence,
    /// Launches below this are refused.
    pub low_mark: LowMark,
    /// Every order answered, at or above the low mark.
    pub answered: BTreeSet<LaunchNumber>,
    /// The launches that are not forgotten.
    pub tasks: BTreeMap<LaunchNumber, TaskRecord>,
    /// Their executors: a record of their own ([`Record::Executors`]), for the form of this one is settled.
    #[serde(skip)]
    pub executors: Executors,
    /// The frameworks of these, as they described themselves last; a record of its own likewise.
    #[serde(skip)]
    pub frameworks: BTreeMap<FrameworkId, Sealed>,
    /// The tasks that were launched in a group, until they are forgotten; likewise.
    #[serde(skip)]
    pub groups: BTreeMap<LaunchNumber, TaskGroup>,
    /// The persistent volumes that tasks and their executors use, until the tasks are forgotten; likewise.
    #[serde(skip)]
    pub volumes: BTreeMap<LaunchNumber, Vec<VolumeMount>>,
    /// Groups of which a task was killed before all were handed, by their first launch, at or above the low mark;
    /// likewise.
    #[serde(skip)]
    pub killed_groups: BTreeSet<LaunchNumber>,
    /// How tasks that the agent runs itself are looked after, until they are forgotten; likewise.
    #[serde(skip)]
    pub watched: BTreeMap<LaunchNumber, Watched>,
    /// The runs of executors that have no process, until they are forgotten; likewise.
    #[serde(skip)]
    pub built_in: BTreeSet<LaunchNumber>,
}

impl Saved {
    /// Takes one more record in. Total: a record about a launch that is not here changes nothing.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Snapshot(saved) => *self = (**saved).clone(),
            Record::Identity(agent_id) => self.agent_id = Some(agent_id.clone()),
            Record::Fence(fence) => self.fence = self.fence.max(*fence),
            Record::LowMark(mark) => {
                if mark.replaces(&self.low_mark) {
                    self.low_mark = *mark;
                    let tasks = &self.tasks;
                    self.answered.retain(|launch| !mark.refuses(*launch) || tasks.contains_key(launch));
                    self.killed_groups.retain(|first| !mark.refuses(*first));
                }
            }
            Record::Intent(intent) => {
                self.answered.insert(intent.launch);
                let record = TaskRecord::new(intent.task.clone(), Some(Arc::new((**intent).clone())));
                self.tasks.insert(intent.launch, record);
            }
            Record::Refused { launch, task } => {
                self.answered.insert(*launch);
                self.tasks.insert(*launch, TaskRecord::new(task.clone(), None));
            }
            Record::Started { launch, process } => {
                if let Some(task) = self.tasks.get_mut(launch) {
                    task.process = Some(process.clone());
                }
            }
            Record::KillWanted { launch, grace_ms } => {
                if let Some(task) = self.tasks.get_mut(launch) {
                    task.kill_grace_ms = Some(*grace_ms);
                }
            }
            Record::Update(update) => {
                if let Some(task) = self.tasks.get_mut(&update.launch) {
                    task.state = update.status.state;
                    task.seq = update.seq;
                    task.updates.push((**update).clone());
                }
                if let Some(task) = self.executors.tasks.get_mut(&update.launch) {
                    task.uuids.push_back(update.uuid);
                    if task.uuids.len() > UUIDS_MAX {
                        task.uuids.pop_front();
                    }
                }
            }
            Record::Confirmed { launch, seq } => {
                if let Some(task) = self.tasks.get_mut(launch) {
                    task.updates.retain(|update| update.seq > *seq);
                }
            }
            Record::Forgotten { launch } => {
                self.tasks.remove(launch);
                self.executors.tasks.remove(launch);
                self.groups.remove(launch);
                self.volumes.remove(launch);
                self.watched.remove(launch);
                if self.low_mark.refuses(*launch) {
                    self.answered.remove(launch);
                }
            }
            Record::Executors(executors) => self.executors = (**executors).clone(),
            Record::Groups(groups) => self.groups = (**groups).clone(),
            Record::Volumes(volumes) => self.volumes = (**volumes).clone(),
            Record::KilledGroups(groups) => self.killed_groups = (**groups).clone(),
            Record::AllWatched(watched) => self.watched = (**watched).clone(),
            Record::Terms { launch, terms } => {
                let watched = Watched { terms: (**terms).clone(), ..Watched::default() };
                self.watched.insert(*launch, watched);
            }
            Record::Ran { launch, wall } => self.watch(launch, |it| it.since = Some(*wall)),
            Record::Health { launch, healthy } => self.watch(launch, |it| it.healthy = Some(*healthy)),
            Record::Found { launch, found } => self.watch(launch, |it| it.found = Some(*found)),
            Record::EndedFor { launch, cause } => self.watch(launch, |it| it.cause = Some(*cause)),
            Record::AllBuiltIn(built_in) => self.built_in = (**built_in).clone(),
            Record::BuiltIn { executor } => drop(self.built_in.insert(*executor)),
            Record::KilledGroup { first } => {
                self.killed_groups.insert(*first);
                if self.killed_groups.len() > KILLED_GROUPS_MAX {
                    self.killed_groups.pop_first();
                }
            }
            Record::Mounts { launch, volumes } => {
                self.volumes.insert(*launch, volumes.clone());
            }
            Record::InGroup { launch, group } => {
                self.groups.insert(*launch, *group);
            }
            Record::HandedGroup { launches } => {
                for launch in launches {
                    self.executors.apply(&Record::Handed { launch: *launch });
                }
            }
            Record::Frameworks(frameworks) => self.frameworks = (**frameworks).clone(),
            Record::Framework { framework_id, sealed } => {
                if self.frameworks.len() >= FRAMEWORKS_MAX {
                    self.forget_frameworks();
                }
                self.frameworks.insert(framework_id.clone(), sealed.clone());
            }
            Record::Executor(_)
            | Record::InExecutor { .. }
            | Record::Handed { .. }
            | Record::ExecutorHeld { .. }
            | Record::ExecutorUnwanted { .. }
            | Record::ExecutorEnded { .. } => self.executors.apply(record),
            Record::ExecutorForgotten { executor } => {
                self.executors.apply(record);
                self.built_in.remove(executor);
            }
        }
    }

    fn watch(&mut self, launch: &LaunchNumber, change: impl FnOnce(&mut Watched)) {
        if let Some(watched) = self.watched.get_mut(launch) {
            change(watched);
        }
    }

    /// Forgets those of which nothing is left.
    fn forget_frameworks(&mut self) {
        let tasks = self.tasks.values().map(|task| &task.task.framework_id);
        let runs = self.executors.runs.values().map(|run| &run.intent.name.framework_id);
        let left: BTreeSet<&FrameworkId> = tasks.chain(runs).collect();
        self.frameworks.retain(|id, _| left.contains(id));
    }

    /// All that is here, as the first records of a log.
    pub fn snapshot(&self) -> Vec<Record> {
        let mut records = vec![Record::Snapshot(Box::new(self.clone()))];
        if !self.executors.is_empty() {
            records.push(Record::Executors(Box::new(self.executors.clone())));
        }
        if !self.groups.is_empty() {
            records.push(Record::Groups(Box::new(self.groups.clone())));
        }
        if !self.killed_groups.is_empty() {
            records.push(Record::KilledGroups(Box::new(self.killed_groups.clone())));
        }
        if !self.volumes.is_empty() {
            records.push(Record::Volumes(Box::new(self.volumes.clone())));
        }
        if !self.watched.is_empty() {
            records.push(Record::AllWatched(Box::new(self.watched.clone())));
        }
        if !self.built_in.is_empty() {
            records.push(Record::AllBuiltIn(Box::new(self.built_in.clone())));
        }
        if !self.frameworks.is_empty() {
            records.push(Record::Frameworks(Box::new(self.frameworks.clone())));
        }
        records
    }
}

impl Executors {
    fn apply(&mut self, record: &Record) {
        match record {
            Record::Executor(intent) => {
                let intent = Arc::new((**intent).clone());
                let record =
                    ExecutorRecord { intent: intent.clone(), process: None, unwanted: false, ended: None };
                self.runs.insert(intent.number, record);
            }
            Record::InExecutor { launch, executor } => {
                let task = InExecutor { executor: *executor, handed: false, uuids: VecDeque::new() };
                self.tasks.insert(*launch, task);
            }
            Record::Handed { launch } => {
                if let Some(task) = self.tasks.get_mut(launch) {
                    task.handed = true;
                }
            }
            Record::ExecutorHeld { executor, process } => {
                if let Some(run) = self.runs.get_mut(executor) {
                    run.process = Some(process.clone());
                }
            }
            Record::ExecutorUnwanted { executor } => {
                if let Some(run) = self.runs.get_mut(executor) {
                    run.unwanted = true;
                }
            }
            Record::ExecutorEnded { executor, status } => {
                if let Some(run) = self.runs.get_mut(executor) {
                    run.ended = Some(*status);
                }
            }
            Record::ExecutorForgotten { executor } => drop(self.runs.remove(executor)),
            _ => {}
        }
    }
}
