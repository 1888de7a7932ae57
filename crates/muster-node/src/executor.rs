//! Executors: processes of a framework that run its tasks and speak the executor API.
//!
//! A run of an executor has a supervisor as a command task has, and is started as one: record -> supervisor that
//! holds its command -> process recorded -> released. It is named by the launch of the task that it was started for,
//! and it is said to the leader with that task's acceptance. Tasks that name the same executor join the run that
//! lives; each waits (`Queued`) until the executor has subscribed, and its volumes are visible to that (`Mounting`), is
//! recorded as handed (`Handing`), and is sent once that is durable (`Handed`); members of a group all together
//! (`group.rs`).
//!
//! ```text
//! Waiting -> Starting -> Holding -> Live (registering -> subscribed <-> away) -> Ended -> confirmed, forgotten
//! ```
//!
//! # Laws
//! - A task is sent at most once, after its record `handed` is synced, whatever streams break or agents end between.
//!   What became of one whose sending is in doubt, the executor says when it subscribes: one that it does not list, and
//!   of which it never said anything, did not reach it and is DROPPED.
//! - A kill is sent to whoever subscribes, as long as the task is not over.
//! - An executor is told that its update is kept when it is synced; one that it repeats is known by its uuid.
//! - All executors are said to each leader after the welcome, and an end until it is confirmed: what an executor holds
//!   is held until no process of it is left.
//! - When a run ended, so have its tasks.
//!
//! # Nevers
//! - No second run while one of that name lives: a task for one that is about to end is DROPPED.

use crate::{
    effect::{Effect, ExecutorAnswer, Signal, StartExecutor},
    group::Failed,
    input::End,
    node::{After, Node},
    record::{ExecutorIntent, ExecutorRecord, InExecutor, Process, Record},
    task::{Phase, how_it_ended},
};
use muster_model::{
    AgentCall, ExecutorCall, ExecutorEvent, ExecutorName, ExecutorOrder, ExecutorUpdate, KnownExecutor,
    LaunchNumber, Reason, RunOrder, Source, TaskGroup, TaskId, TaskKey, TaskState, Uuid,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Unconfirmed updates of one task; the executor is told to come again with more, but for a terminal one.
const UPDATES_WAITING_MAX: usize = 128;

/// Where a run of an executor stands on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Never released: its record is on the way to the disk, or was found there without a process. Started for the
    /// first task that is queued for it.
    Waiting,
    /// A supervisor was asked for.
    Starting,
    /// The command is held; its process is on the way to the disk.
    Holding,
    /// Released, or recorded and so perhaps released.
    Live,
    /// Unwanted before its release; waits for the supervisor's end.
    Abandoned,
    /// No process of it is left.
    Ended,
}

/// Why an executor is made to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It did not subscribe in time.
    Unregistered,
    /// It did not come back in time after the agent did.
    NotBack,
}

/// What is known of a run of an executor beside its record.
#[derive(Debug)]
pub(crate) struct Exec {
    stage: Stage,
    /// Its record is synced, so that it may be spoken of; likewise its end.
    durable: bool,
    end_durable: bool,
    /// Its stream, while it is subscribed.
    stream: Option<u64>,
    /// A task was handed to it, or it was found on the disk: otherwise it is of no use once it waits for nothing.
    used: bool,
    /// Its tasks that are not forgotten.
    tasks: BTreeMap<TaskId, LaunchNumber>,
    fault: Option<Fault>,
    /// When it is made to end unless it subscribed.
    subscribe_by: Option<u64>,
    /// When its whole group is killed.
    kill_at: Option<u64>,
    /// When its end is said again.
    repeat_at: Option<u64>,
    repeat_ms: u64,
}

impl Exec {
    fn new() -> Self {
        Self {
            stage: Stage::Waiting,
            durable: false,
            end_durable: false,
            stream: None,
            used: false,
            tasks: BTreeMap::new(),
            fault: None,
            subscribe_by: None,
            kill_at: None,
            repeat_at: None,
            repeat_ms: 0,
        }
    }

    /// What a record read from the disk means for a machine that just began.
    fn recover(record: &ExecutorRecord, is_built_in: bool) -> Self {
        let stage = match (record.ended, &record.process) {
            (Some(_), _) => Stage::Ended,
            (None, Some(_)) => Stage::Live,
            (None, None) if is_built_in => Stage::Live,
            (None, None) => Stage::Waiting,
        };
        let used = record.process.is_some();
        Self { stage, durable: true, end_durable: record.ended.is_some(), used, ..Self::new() }
    }

    fn timer(&self) -> Option<u64> {
        [self.subscribe_by, self.kill_at, self.repeat_at].into_iter().flatten().min()
    }
}

/// All runs of executors.
#[derive(Debug, Default)]
pub(crate) struct Execs {
    runs: BTreeMap<LaunchNumber, Exec>,
    /// The run of each name that did not end.
    names: BTreeMap<ExecutorName, LaunchNumber>,
    /// Who holds a stream.
    streams: BTreeMap<u64, LaunchNumber>,
    /// When which run wants a wake.
    timers: BTreeSet<(u64, LaunchNumber)>,
    /// Groups that are not whole, by their first member, and when they are not waited for any more.
    pub(crate) group_waits: BTreeMap<LaunchNumber, (u64, TaskGroup)>,
    /// Groups that are not handed any more, and why.
    pub(crate) failed: BTreeMap<LaunchNumber, Failed>,
    /// Tasks that just ended: what follows for their group and their built-in executor is not settled.
    pub(crate) over: Vec<LaunchNumber>,
}

impl Execs {
    pub(crate) fn recover(saved: &crate::Saved) -> Self {
        let mut all = Self::default();
        for (number, record) in &saved.executors.runs {
            all.runs.insert(*number, Exec::recover(record, saved.built_in.contains(number)));
            if record.ended.is_none() {
                all.names.insert(record.intent.name.clone(), *number);
            }
        }
        for (launch, InExecutor { executor, .. }) in &saved.executors.tasks {
            if let (Some(run), Some(task)) = (all.runs.get_mut(executor), saved.tasks.get(launch)) {
                run.tasks.insert(task.task.task_id.clone(), *launch);
            }
        }
        all
    }

    /// Whether this is the number of a run of an executor.
    pub(crate) fn has(&self, number: LaunchNumber) -> bool {
        self.runs.contains_key(&number)
    }

    /// The tasks of a run that are not forgotten.
    pub(crate) fn tasks_of(&self, number: LaunchNumber) -> impl Iterator<Item = LaunchNumber> {
        self.runs.get(&number).into_iter().flat_map(|run| run.tasks.values().copied())
    }

    /// The run of this name that did not end.
    pub(crate) fn number(&self, name: &ExecutorName) -> Option<LaunchNumber> {
        self.names.get(name).copied()
    }

    /// Whether this run's recorded process may live, or may have ended unreported.
    pub(crate) fn is_live(&self, number: LaunchNumber) -> bool {
        self.runs.get(&number).is_some_and(|run| run.stage == Stage::Live)
    }

    /// Whether it has an event stream.
    pub(crate) fn is_subscribed(&self, number: LaunchNumber) -> bool {
        self.runs.get(&number).is_some_and(|run| run.stream.is_some())
    }

    pub(crate) fn wake_at(&self) -> Option<u64> {
        let group = self.group_waits.values().map(|(at, _)| *at).min();
        [self.timers.first().map(|(at, _)| *at), group].into_iter().flatten().min()
    }

    /// Something is handed to a run: it is of use from now on. Its stream, if it has one.
    pub(crate) fn used_by(&mut self, number: LaunchNumber) -> Option<u64> {
        let run = self.runs.get_mut(&number)?;
        run.used = true;
        run.stream
    }

    /// Changes a run and keeps the timers in step with it.
    fn with<T>(&mut self, number: LaunchNumber, change: impl FnOnce(&mut Exec) -> T) -> Option<T> {
        let run = self.runs.get_mut(&number)?;
        let former = run.timer();
        let changed = change(run);
        let timer = run.timer();
        if former != timer {
            if let Some(at) = former {
                self.timers.remove(&(at, number));
            }
            if let Some(at) = timer {
                self.timers.insert((at, number));
            }
        }
        Some(changed)
    }
}

impl Node {
    /// The facts of recovery are in: runs that live are waited for, unwanted ones are made to end.
    pub(crate) fn begin_executors(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        for number in self.execs.runs.keys().copied().collect::<Vec<_>>() {
            if self.is_built_in(number) {
                continue;
            }
            let unwanted = self.saved.executors.runs.get(&number).is_some_and(|run| run.unwanted);
            match self.execs.runs.get(&number).map(|run| run.stage) {
                Some(Stage::Live) if unwanted => self.kill_executor_in(now_ms, number),
                Some(Stage::Live) => {
                    let by = now_ms.saturating_add(self.config.executor_reregistration_ms);
                    self.execs.with(number, |run| run.subscribe_by = Some(by));
                }
                Some(Stage::Waiting) => self.end_if_of_no_use(now_ms, number, effects),
                _ => {}
            }
        }
    }

    /// The run that an order's task joins; none when the one of that name is about to end, or there are too many.
    pub(crate) fn executor_for(
        &mut self,
        order: &RunOrder,
        executor: &ExecutorOrder,
    ) -> Option<LaunchNumber> {
        let name = ExecutorName {
            framework_id: order.task.framework_id.clone(),
            executor_id: executor.executor_id.clone(),
        };
        if let Some(number) = self.execs.names.get(&name).copied() {
            let unwanted = self.saved.executors.runs.get(&number).is_none_or(|run| run.unwanted);
            let run = self.execs.runs.get(&number)?;
            let ends = unwanted || run.fault.is_some() || run.stage == Stage::Abandoned;
            return (!ends).then_some(number);
        }
        if self.execs.runs.len() >= self.config.tasks_max {
            return None;
        }
        let number = order.launch;
        self.execs.runs.insert(number, Exec::new());
        self.execs.names.insert(name.clone(), number);
        self.keep(Record::Executor(Box::new(ExecutorIntent {
            number,
            name,
            resources: executor.resources.clone(),
            grace_ms: executor.grace_ms,
            user: order.user.clone(),
            framework: order.framework.clone(),
            sealed: executor.sealed.clone(),
        })));
        if executor.built_in {
            self.begin_pod(number);
            if let Some(run) = self.execs.runs.get_mut(&number) {
                run.stage = Stage::Live;
            }
        }
        Some(number)
    }

    /// A task that was just taken on runs in this one.
    pub(crate) fn join_executor(&mut self, launch: LaunchNumber, task_id: TaskId, executor: LaunchNumber) {
        self.keep(Record::InExecutor { launch, executor });
        self.grow(launch, executor);
        if let Some(run) = self.execs.runs.get_mut(&executor) {
            run.tasks.insert(task_id, launch);
        }
    }

    /// The record of the task that a run was started for is durable, and so is the run's own.
    pub(crate) fn executor_durable(&mut self, number: LaunchNumber, effects: &mut Vec<Effect>) {
        let Some(run) = self.execs.runs.get_mut(&number).filter(|run| !run.durable) else { return };
        run.durable = true;
        self.say_executor(number, effects);
    }

    /// How a run stands, once that may be said.
    fn known_executor(&self, number: LaunchNumber) -> Option<KnownExecutor> {
        let run = self.execs.runs.get(&number).filter(|run| run.durable)?;
        let record = self.saved.executors.runs.get(&number)?;
        Some(KnownExecutor {
            number,
            framework_id: record.intent.name.framework_id.clone(),
            executor_id: record.intent.name.executor_id.clone(),
            resources: record.intent.resources.clone(),
            ended: record.ended.filter(|_| run.end_durable),
        })
    }

    fn say_executor(&mut self, number: LaunchNumber, effects: &mut Vec<Effect>) {
        if let Some(known) = self.known_executor(number) {
            self.say(AgentCall::Executors { executors: vec![known], all: false }, effects);
        }
    }

    /// A leader welcomed this agent: all runs that are not forgotten, also if there are none.
    pub(crate) fn say_executors(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let numbers: Vec<LaunchNumber> = self.execs.runs.keys().copied().collect();
        let executors = numbers.iter().filter_map(|number| self.known_executor(*number)).collect();
        self.say(AgentCall::Executors { executors, all: true }, effects);
        for number in numbers {
            if self.execs.runs.get(&number).is_some_and(|run| run.end_durable) {
                self.repeat_end(now_ms, number, self.config.repeat_ms);
            }
        }
    }

    fn repeat_end(&mut self, now_ms: u64, number: LaunchNumber, pause_ms: u64) {
        let due = self.connection.welcomed.then(|| now_ms.saturating_add(pause_ms));
        self.execs.with(number, |run| {
            run.repeat_ms = pause_ms;
            run.repeat_at = due;
        });
    }

    /// A task whose record is durable, and that a leader wants, waits for its executor.
    pub(crate) fn queue_in_executor(
        &mut self,
        now_ms: u64,
        launch: LaunchNumber,
        expected: Phase,
        effects: &mut Vec<Effect>,
    ) {
        let Some(number) = self.saved.executors.tasks.get(&launch).map(|task| task.executor) else { return };
        let Some(run) = self.runs.get_mut(&launch).filter(|run| run.phase == expected) else { return };
        run.phase = Phase::Queued;
        match self.execs.runs.get(&number).map(|run| (run.stage, run.stream)) {
            Some((stage, _)) if stage != Stage::Ended && self.is_built_in(number) => {
                self.queue_in_pod(now_ms, launch, effects);
            }
            None | Some((Stage::Ended, _)) => {
                let why = "The task's executor ended before the task was handed to it";
                let reason = Some(Reason::ExecutorTerminated);
                self.end(now_ms, launch, TaskState::Dropped, Source::Agent, reason, why);
                if let Some(group) = self.group_of(launch) {
                    self.fail_group(now_ms, group, Failed::NO_EXECUTOR, effects);
                }
            }
            Some((Stage::Waiting, _)) => self.start_executor(number, effects),
            Some((Stage::Live, Some(_))) => self.hand(launch, effects),
            Some(_) => {}
        }
    }

    fn start_executor(&mut self, number: LaunchNumber, effects: &mut Vec<Effect>) {
        let Some(agent_id) = self.saved.agent_id.clone() else { return };
        let Some(record) = self.saved.executors.runs.get(&number) else { return };
        let intent = record.intent.clone();
        if let Some(run) = self.execs.runs.get_mut(&number) {
            run.stage = Stage::Starting;
            let volumes = self.saved.volumes.get(&number).cloned().unwrap_or_default();
            let resources = self.size(number);
            let start = StartExecutor { intent, agent_id, resources, volumes };
            effects.push(Effect::StartExecutor(Box::new(start)));
        }
    }

    pub(crate) fn executor_held(&mut self, number: LaunchNumber, process: Process) {
        let Some(run) = self.execs.runs.get_mut(&number).filter(|run| run.stage == Stage::Starting) else {
            return;
        };
        run.stage = Stage::Holding;
        self.keep(Record::ExecutorHeld { executor: number, process });
        self.after(After::ReleaseExecutor(number));
    }

    pub(crate) fn release_executor(&mut self, now_ms: u64, number: LaunchNumber, effects: &mut Vec<Effect>) {
        let by = now_ms.saturating_add(self.config.executor_registration_ms);
        let released = self.execs.with(number, |run| {
            let due = run.stage == Stage::Holding;
            if due {
                run.stage = Stage::Live;
                run.subscribe_by = Some(by);
            }
            due
        });
        if released == Some(true) {
            effects.push(Effect::Release { launch: number });
        }
    }

    /// Records that a queued task is handed, once its volumes are there; it is sent once that is durable.
    pub(crate) fn hand(&mut self, launch: LaunchNumber, effects: &mut Vec<Effect>) {
        if let Some(group) = self.group_of(launch) {
            return self.hand_group(group, effects);
        }
        if self.mounts(launch, effects) {
            return;
        }
        let Some(run) = self.runs.get_mut(&launch).filter(|run| run.phase == Phase::Queued) else { return };
        run.phase = Phase::Handing;
        self.keep(Record::Handed { launch });
        self.after(After::Handed(launch));
    }

    pub(crate) fn handed(&mut self, launch: LaunchNumber, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&launch).filter(|run| run.phase == Phase::Handing) else { return };
        run.phase = Phase::Handed { sent: false };
        let Some(number) = self.saved.executors.tasks.get(&launch).map(|task| task.executor) else { return };
        let Some(exec) = self.execs.runs.get_mut(&number) else { return };
        exec.used = true;
        let stream = exec.stream;
        let Some(run) = self.runs.get_mut(&launch) else { return };
        let Some(stream) = stream else { return };
        let Some(task) = self.saved.tasks.get(&launch).and_then(|task| task.intent.clone()) else { return };
        run.phase = Phase::Handed { sent: true };
        effects.push(Effect::Tell { stream, event: ExecutorEvent::Launch { task: task.sealed.clone() } });
        self.tell_kill(launch, stream, effects);
    }

    /// Tells the executor to end a task, if that is wanted.
    pub(crate) fn tell_kill(&self, launch: LaunchNumber, stream: u64, effects: &mut Vec<Effect>) {
        let Some(task) = self.saved.tasks.get(&launch) else { return };
        let Some(grace_ms) = task.kill_grace_ms else { return };
        let own = task.intent.as_ref().and_then(|intent| intent.grace_ms);
        let usual = own.unwrap_or(self.config.grace_ms);
        let event = ExecutorEvent::Kill {
            task_id: task.task.task_id.clone(),
            grace_ms: (grace_ms != usual).then_some(grace_ms),
        };
        effects.push(Effect::Tell { stream, event });
    }

    /// A task that was handed, or is about to be, shall end. Said again each time that the leader says so.
    pub(crate) fn kill_in_executor(
        &mut self,
        launch: LaunchNumber,
        grace_ms: Option<u64>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(task) = self.saved.tasks.get(&launch) else { return };
        let own = task.intent.as_ref().and_then(|intent| intent.grace_ms);
        let grace_ms = grace_ms.or(own).unwrap_or(self.config.grace_ms);
        if task.kill_grace_ms.is_none_or(|former| grace_ms < former) {
            self.keep(Record::KillWanted { launch, grace_ms });
        }
        let number = self.saved.executors.tasks.get(&launch).map(|task| task.executor);
        let stream = number.and_then(|number| self.execs.runs.get(&number)?.stream);
        let is_sent = self.runs.get(&launch).is_some_and(|run| matches!(run.phase, Phase::Handed { .. }));
        if let Some(stream) = stream.filter(|_| is_sent) {
            self.tell_kill(launch, stream, effects);
        }
    }

    /// Takes an executor's call in.
    pub(crate) fn executor_call(
        &mut self,
        now_ms: u64,
        call: u64,
        from: &ExecutorName,
        said: ExecutorCall,
        effects: &mut Vec<Effect>,
    ) {
        let number = self.execs.names.get(from).copied();
        let number = number.filter(|number| self.execs.is_live(*number) && !self.is_built_in(*number));
        let Some(number) = number else {
            let known = self.execs.names.keys().any(|name| name.framework_id == from.framework_id)
                || self.saved.tasks.values().any(|it| it.task.framework_id == from.framework_id);
            let answer = if known { ExecutorAnswer::NoExecutor } else { ExecutorAnswer::NoFramework };
            return effects.push(Effect::Answer { call, answer });
        };
        let is_subscribed = self.execs.runs.get(&number).is_some_and(|run| run.stream.is_some());
        let answer = match said {
            ExecutorCall::Subscribe { tasks, updates } => {
                effects.push(Effect::Answer { call, answer: ExecutorAnswer::Subscribed });
                return self.executor_subscribes(now_ms, number, call, &tasks, updates, effects);
            }
            _ if !is_subscribed => ExecutorAnswer::NotSubscribed,
            ExecutorCall::Update(update) => self.executor_update(number, update, effects),
            ExecutorCall::Message(data) => {
                let (framework_id, executor_id) = (from.framework_id.clone(), from.executor_id.clone());
                self.say(AgentCall::Message { framework_id, executor_id, data }, effects);
                ExecutorAnswer::Accepted
            }
        };
        effects.push(Effect::Answer { call, answer });
    }

    fn executor_subscribes(
        &mut self,
        now_ms: u64,
        number: LaunchNumber,
        stream: u64,
        listed: &[TaskId],
        updates: Vec<ExecutorUpdate>,
        effects: &mut Vec<Effect>,
    ) {
        let (Some(record), Some(agent_id)) =
            (self.saved.executors.runs.get(&number), self.saved.agent_id.clone())
        else {
            return effects.push(Effect::HangUp { stream });
        };
        let (intent, unwanted) = (record.intent.clone(), record.unwanted);
        let former = self.execs.with(number, |run| {
            run.subscribe_by = None;
            run.stream.replace(stream)
        });
        if let Some(former) = former.flatten() {
            self.execs.streams.remove(&former);
            effects.push(Effect::HangUp { stream: former });
        }
        self.execs.streams.insert(stream, number);
        let is_over = unwanted || self.execs.runs.get(&number).is_some_and(|run| run.fault.is_some());
        let event = ExecutorEvent::Subscribed {
            number,
            executor: intent.sealed.clone(),
            framework_id: intent.name.framework_id.clone(),
            framework: intent.framework.clone(),
            agent_id,
        };
        effects.push(Effect::Tell { stream, event });
        for update in updates {
            // Beyond the bound the executor keeps it, and says it when it comes again.
            self.executor_update(number, update, effects);
        }
        if is_over {
            // What it had to say of its tasks was taken; new ones it does not get.
            return effects.push(Effect::Tell { stream, event: ExecutorEvent::Shutdown });
        }
        let launches: Vec<(TaskId, LaunchNumber)> = self
            .execs
            .runs
            .get(&number)
            .map(|run| run.tasks.iter().map(|(id, launch)| (id.clone(), *launch)).collect())
            .unwrap_or_default();
        for (task_id, launch) in launches {
            match self.runs.get(&launch).map(|run| run.phase) {
                Some(Phase::Handed { .. }) if !self.is_heard_of(launch) && !listed.contains(&task_id) => {
                    let why = "The task did not reach its executor";
                    let reason = Some(Reason::AgentRestarted);
                    self.end(now_ms, launch, TaskState::Dropped, Source::Agent, reason, why);
                }
                Some(Phase::Handed { .. }) => self.tell_kill(launch, stream, effects),
                Some(Phase::Queued) => self.hand(launch, effects),
                _ => {}
            }
        }
        self.end_if_of_no_use(now_ms, number, effects);
    }

    /// Whether an executor ever said anything of a task that was handed to it.
    fn is_heard_of(&self, launch: LaunchNumber) -> bool {
        self.saved.executors.tasks.get(&launch).is_some_and(|task| !task.uuids.is_empty())
    }

    fn executor_update(
        &mut self,
        number: LaunchNumber,
        update: ExecutorUpdate,
        effects: &mut Vec<Effect>,
    ) -> ExecutorAnswer {
        let ExecutorUpdate { task_id, uuid, status } = update;
        let launch = self.execs.runs.get(&number).and_then(|run| run.tasks.get(&task_id)).copied();
        // What was not handed yet it cannot mean.
        let phase = |launch: &LaunchNumber| self.runs.get(launch).map(|run| run.phase);
        let launch = launch.filter(|it| matches!(phase(it), Some(Phase::Handed { .. } | Phase::Ended)));
        let found = launch.and_then(|launch| Some((launch, self.saved.tasks.get(&launch)?)));
        let Some((launch, task)) = found else {
            // Of a task that is over and forgotten: nobody waits for it any more.
            self.acknowledge_after_all(number, task_id, uuid, effects);
            return ExecutorAnswer::Accepted;
        };
        let is_known = self.saved.executors.tasks.get(&launch).is_some_and(|it| it.uuids.contains(&uuid));
        let is_over = self.runs.get(&launch).is_none_or(|run| run.phase == Phase::Ended);
        if is_known || is_over {
            self.acknowledge_after_all(number, task_id, uuid, effects);
            return ExecutorAnswer::Accepted;
        }
        if task.updates.len() >= UPDATES_WAITING_MAX && !status.state.is_terminal() {
            return ExecutorAnswer::Busy;
        }
        if status.state.is_terminal() {
            self.run_ended(launch);
        }
        self.report_status(launch, Some(uuid), status);
        self.after(After::Acknowledge(number, task_id, uuid));
        ExecutorAnswer::Accepted
    }

    /// Acknowledges an update again once all that was kept so far is durable.
    fn acknowledge_after_all(
        &mut self,
        number: LaunchNumber,
        task_id: TaskId,
        uuid: Uuid,
        effects: &mut Vec<Effect>,
    ) {
        if self.is_all_durable() {
            self.acknowledge(number, task_id, uuid, effects);
        } else {
            self.after_all(After::Acknowledge(number, task_id, uuid));
        }
    }

    pub(crate) fn acknowledge(
        &self,
        number: LaunchNumber,
        task_id: TaskId,
        uuid: Uuid,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(stream) = self.execs.runs.get(&number).and_then(|run| run.stream) {
            effects.push(Effect::Tell { stream, event: ExecutorEvent::Acknowledged { task_id, uuid } });
        }
    }

    pub(crate) fn executor_gone(&mut self, stream: u64) {
        let Some(number) = self.execs.streams.remove(&stream) else { return };
        self.execs.with(number, |run| run.stream = None);
    }

    /// Bytes of a framework for its executor; without a stream they are dropped, as at-most-once allows.
    pub(crate) fn tell_message(&self, name: &ExecutorName, data: Vec<u8>, effects: &mut Vec<Effect>) {
        let run = self.execs.names.get(name).and_then(|number| self.execs.runs.get(number));
        if let Some(stream) = run.and_then(|run| run.stream) {
            effects.push(Effect::Tell { stream, event: ExecutorEvent::Message(data) });
        }
    }

    /// The framework, or its end, wants an executor ended.
    pub(crate) fn shut_down(&mut self, now_ms: u64, name: &ExecutorName, effects: &mut Vec<Effect>) {
        if let Some(number) = self.execs.names.get(name).copied() {
            self.unwanted(now_ms, number, effects);
        }
    }

    fn unwanted(&mut self, now_ms: u64, number: LaunchNumber, effects: &mut Vec<Effect>) {
        let Some(stage) = self.execs.runs.get(&number).map(|run| run.stage) else { return };
        if self.saved.executors.runs.get(&number).is_some_and(|run| !run.unwanted) && stage != Stage::Ended {
            self.keep(Record::ExecutorUnwanted { executor: number });
        }
        match stage {
            Stage::Waiting => self.executor_ended(now_ms, number, &End::NotReleased, effects),
            Stage::Starting | Stage::Holding => {
                self.execs.with(number, |run| run.stage = Stage::Abandoned);
                effects.push(Effect::Abandon { launch: number });
            }
            Stage::Live if self.is_built_in(number) => self.end_pod(now_ms, number, effects),
            Stage::Live => {
                if let Some(stream) = self.execs.runs.get(&number).and_then(|run| run.stream) {
                    effects.push(Effect::Tell { stream, event: ExecutorEvent::Shutdown });
                }
                self.kill_executor_in(now_ms, number);
            }
            Stage::Abandoned | Stage::Ended => {}
        }
    }

    /// Kills an executor's group after its grace; a former deadline is only ever brought forward.
    fn kill_executor_in(&mut self, now_ms: u64, number: LaunchNumber) {
        let own = self.saved.executors.runs.get(&number).and_then(|run| run.intent.grace_ms);
        let at = now_ms.saturating_add(own.unwrap_or(self.config.executor_grace_ms));
        self.execs.with(number, |run| {
            run.subscribe_by = None;
            run.kill_at = Some(run.kill_at.map_or(at, |former| former.min(at)));
        });
    }

    /// Ends a run that never got a task and has none to wait for.
    pub(crate) fn end_if_of_no_use(&mut self, now_ms: u64, number: LaunchNumber, effects: &mut Vec<Effect>) {
        let Some(run) = self.execs.runs.get(&number) else { return };
        let waits =
            |launch: &LaunchNumber| self.runs.get(launch).is_some_and(|run| run.phase != Phase::Ended);
        if run.used || run.tasks.values().any(waits) || self.is_built_in(number) {
            return;
        }
        let is_due = match run.stage {
            Stage::Waiting => true,
            Stage::Live => run.stream.is_some(),
            _ => false, // it ends when it has subscribed
        };
        if is_due {
            self.unwanted(now_ms, number, effects);
        }
    }

    /// A task that is not wanted any more was never handed: its executor may be of no use now.
    pub(crate) fn task_not_handed(&mut self, now_ms: u64, launch: LaunchNumber, effects: &mut Vec<Effect>) {
        if let Some(number) = self.saved.executors.tasks.get(&launch).map(|task| task.executor) {
            self.end_if_of_no_use(now_ms, number, effects);
        }
    }

    /// A task is about to be forgotten.
    pub(crate) fn leave_executor(&mut self, launch: LaunchNumber, task: &TaskKey) {
        let number = self.saved.executors.tasks.get(&launch).map(|task| task.executor);
        if let Some(run) = number.and_then(|number| self.execs.runs.get_mut(&number))
            && run.tasks.get(&task.task_id) == Some(&launch)
        {
            run.tasks.remove(&task.task_id);
        }
    }

    /// No process of an executor is left: nor is any task of it.
    pub(crate) fn executor_ended(
        &mut self,
        now_ms: u64,
        number: LaunchNumber,
        end: &End,
        effects: &mut Vec<Effect>,
    ) {
        let Some(record) = self.saved.executors.runs.get(&number) else { return };
        let name = record.intent.name.clone();
        let ended = self.execs.with(number, |run| {
            if run.stage == Stage::Ended {
                return None;
            }
            run.stage = Stage::Ended;
            run.subscribe_by = None;
            run.kill_at = None;
            let launches: Vec<LaunchNumber> = run.tasks.values().copied().collect();
            Some((run.stream.take(), run.fault, launches))
        });
        let Some((stream, fault, launches)) = ended.flatten() else { return };
        if let Some(stream) = stream {
            self.execs.streams.remove(&stream);
            effects.push(Effect::HangUp { stream });
        }
        if self.execs.names.get(&name) == Some(&number) {
            self.execs.names.remove(&name);
        }
        self.keep(Record::ExecutorEnded { executor: number, status: end.wait_status() });
        self.after(After::ExecutorEnded(number));
        let is_built_in = self.is_built_in(number);
        let waiting: Vec<TaskGroup> = launches
            .iter()
            .filter(|_| !is_built_in)
            .filter(|launch| self.saved.executors.tasks.get(launch).is_some_and(|task| !task.handed))
            .filter_map(|launch| self.group_of(*launch))
            .collect();
        for launch in launches {
            self.end_with_executor(now_ms, launch, fault, end);
        }
        for group in waiting {
            self.fail_group(now_ms, group, Failed::NO_EXECUTOR, effects);
        }
    }

    fn end_with_executor(&mut self, now_ms: u64, launch: LaunchNumber, fault: Option<Fault>, end: &End) {
        let Some(phase) = self.runs.get(&launch).map(|run| run.phase).filter(|it| *it != Phase::Ended) else {
            return;
        };
        let is_handed = matches!(phase, Phase::Handed { .. });
        let is_killed = self.saved.tasks.get(&launch).is_some_and(|task| task.kill_grace_ms.is_some());
        if is_killed && !is_handed {
            return self.killed_during_launch(now_ms, launch);
        }
        if phase == (Phase::Handed { sent: false }) && !self.is_heard_of(launch) {
            let why = "The task's executor ended, and perhaps never had the task";
            let reason = Some(Reason::ExecutorTerminated);
            return self.end(now_ms, launch, TaskState::Dropped, Source::Agent, reason, why);
        }
        let (state, reason, why): (_, _, Arc<str>) = match (fault, end) {
            (Some(Fault::Unregistered), _) => (
                TaskState::Failed,
                Reason::ExecutorRegistrationTimeout,
                "Executor did not register within its time".into(),
            ),
            (Some(Fault::NotBack), _) => (
                TaskState::Gone,
                Reason::ExecutorReregistrationTimeout,
                "Executor did not re-register after the agent restarted".into(),
            ),
            (None, End::StartFailed(why)) => (TaskState::Failed, Reason::ContainerLaunchFailed, why.clone()),
            (None, End::Invalid(why)) => (TaskState::Error, Reason::TaskInvalid, why.clone()),
            (None, End::NotReleased) => {
                (TaskState::Dropped, Reason::AgentRestarted, "The task's executor was never started".into())
            }
            (None, End::Limited(limited)) => {
                self.run_ended(launch);
                return self.report_limited(now_ms, launch, limited);
            }
            (None, end) => (
                TaskState::Failed,
                Reason::ExecutorTerminated,
                format!("Executor {}", how_it_ended(end)).into(),
            ),
        };
        self.end(now_ms, launch, state, Source::Agent, Some(reason), &why);
    }

    /// The end of a run is durable: the leader may hear of it.
    pub(crate) fn executor_end_durable(
        &mut self,
        now_ms: u64,
        number: LaunchNumber,
        effects: &mut Vec<Effect>,
    ) {
        if self.execs.with(number, |run| run.end_durable = true).is_some() {
            self.say_executor(number, effects);
            self.repeat_end(now_ms, number, self.config.repeat_ms);
        }
    }

    /// The registry knows that a run ended.
    pub(crate) fn confirm_executor(&mut self, number: LaunchNumber) {
        if self.execs.runs.get(&number).is_none_or(|run| !run.end_durable) {
            return;
        }
        self.execs.with(number, |run| run.repeat_at = None);
        self.execs.runs.remove(&number);
        self.sizes.forget(number);
        let Some(record) = self.saved.executors.runs.get(&number) else { return };
        let name = &record.intent.name;
        let task = TaskKey {
            framework_id: name.framework_id.clone(),
            task_id: TaskId::new(name.executor_id.as_str()),
        };
        self.keep(Record::ExecutorForgotten { executor: number });
        self.after(After::Remove(number, task));
    }

    pub(crate) fn wake_executors(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        while let Some((at, number)) = self.execs.timers.first().copied().filter(|(at, _)| *at <= now_ms) {
            self.execs.timers.remove(&(at, number));
            self.executor_wake(now_ms, number, effects);
        }
    }

    fn executor_wake(&mut self, now_ms: u64, number: LaunchNumber, effects: &mut Vec<Effect>) {
        let is_due = |at: Option<u64>| at.is_some_and(|at| at <= now_ms);
        let recovered = self.execs.runs.get(&number).is_some_and(|run| run.used);
        let mut repeat = None;
        self.execs.with(number, |run| {
            if is_due(run.subscribe_by) {
                run.subscribe_by = None;
                run.fault = Some(if recovered { Fault::NotBack } else { Fault::Unregistered });
                run.kill_at = Some(now_ms);
            }
            if is_due(run.kill_at) {
                // Asked again each second until the supervisor reports the end.
                run.kill_at = Some(now_ms.saturating_add(1_000));
                effects.push(Effect::Signal { launch: number, signal: Signal::Kill });
            }
            if is_due(run.repeat_at) {
                run.repeat_at = None;
                repeat = Some(run.repeat_ms.saturating_mul(2));
            }
        });
        // What `with` took for the former timer is not there any more: set it anew.
        if let Some(at) = self.execs.runs.get(&number).and_then(Exec::timer) {
            self.execs.timers.insert((at, number));
        }
        if let Some(pause_ms) = repeat {
            self.say_executor(number, effects);
            self.repeat_end(now_ms, number, pause_ms.min(self.config.repeat_ms_max));
        }
    }
}
