//! How a task starts, is killed, ends and is reported.

use crate::{
    connection::part_at,
    effect::{Effect, Signal},
    group::Failed,
    hello::task_bytes,
    input::{End, Limited},
    node::{After, Node},
    record::{Cause, InExecutor, Intent, Process, Record, TaskRecord},
};
use muster_fault::planted;
use muster_model::{
    AgentCall, CheckResult, LaunchNumber, Reason, Resources, Sealed, Source, Status, StatusUpdate, TaskKey,
    TaskState, Told, Uuid, WallTime, event::RunOrder, task::MESSAGE_BYTES_MAX,
};
use std::sync::Arc;

/// Where a launch stands on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Found on the disk without a process: never released. Waits for a leader that still wants it.
    Pending,
    /// Its intent is on the way to the disk.
    Intending,
    /// Its intent came to the disk after a hello that could not list it, since that asked for a low mark in the midst of
    /// orders: the registry may have settled it without us. Waits for the order to be repeated, or for the next hello,
    /// which lists it.
    Unlisted,
    /// A supervisor was asked for.
    Starting,
    /// The command is held; its process is on the way to the disk.
    Holding,
    /// Held, and on the disk: waits for the others of its group.
    Held,
    /// Released, or recorded and so perhaps released.
    Live {
        /// The supervisor said that it runs.
        released: bool,
    },
    /// Killed before its release; waits for the supervisor's end.
    Abandoned,
    /// Waits for its executor to subscribe.
    Queued,
    /// Its executor subscribed; its volumes are being made visible to it.
    Mounting,
    /// Its record as handed to its executor is on the way to the disk.
    Handing,
    /// Handed to its executor, or recorded so and perhaps handed.
    Handed {
        /// This agent sent it.
        sent: bool,
    },
    /// No process of it is left.
    Ended,
}

/// What is known of a launch beside its record.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) phase: Phase,
    /// Its record is synced, so that it may be spoken of.
    pub(crate) durable: bool,
    /// Updates up to this number are synced.
    pub(crate) durable_seq: u32,
    /// The state of the last of them.
    pub(crate) durable_state: TaskState,
    /// A hello was said while its intent was on the way to the disk.
    pub(crate) unlisted: bool,
    /// Its order says that it is told to be starting. Not on the disk: one that an agent which restarted found there
    /// before it was started is told to be running alone.
    starting: bool,
    /// Its volumes are visible to its executor.
    pub(crate) mounted: bool,
    /// Accepted while no leader listened, and not listed in a hello since.
    pub(crate) accept_due: bool,
    /// The last update said on the present connection.
    pub(crate) said_seq: u32,
    /// When its whole group is killed.
    kill_at: Option<u64>,
    /// That it shall end is on its way to the disk: it is not signalled yet.
    unkept: bool,
    /// When it has run for as long as it may.
    complete_by: Option<u64>,
    /// About what it takes in a hello.
    pub(crate) bytes: usize,
    /// When its updates are said again.
    repeat_at: Option<u64>,
    repeat_ms: u64,
}

impl Run {
    fn new(phase: Phase, bytes: usize) -> Self {
        Self {
            phase,
            bytes,
            durable: false,
            durable_seq: 0,
            durable_state: TaskState::Staging,
            unlisted: false,
            starting: false,
            mounted: false,
            accept_due: false,
            said_seq: 0,
            kill_at: None,
            unkept: false,
            complete_by: None,
            repeat_at: None,
            repeat_ms: 0,
        }
    }

    /// What a record read from the disk means for a machine that just began.
    pub(crate) fn recover(task: &TaskRecord, in_executor: Option<&InExecutor>) -> Self {
        let phase = match (&task.process, task.state) {
            (_, state) if state.is_terminal() => Phase::Ended,
            _ if in_executor.is_some_and(|task| task.handed) => Phase::Handed { sent: false },
            (Some(_), _) if planted!(RestartLaunch) => Phase::Pending,
            (Some(_), _) => Phase::Live { released: false },
            (None, _) => Phase::Pending,
        };
        let none = Resources::none();
        let bytes = task_bytes(&task.task, task.intent.as_ref().map_or(&none, |intent| &intent.resources));
        Self { durable: true, durable_seq: task.seq, durable_state: task.state, ..Self::new(phase, bytes) }
    }

    fn timer(&self) -> Option<u64> {
        [self.kill_at.filter(|_| !self.unkept), self.complete_by, self.repeat_at].into_iter().flatten().min()
    }
}

impl Node {
    /// The facts of recovery are in: carry kills on, and dial.
    pub(crate) fn begin(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let launches: Vec<_> = self.runs.iter().map(|(launch, run)| (*launch, run.phase)).collect();
        for (launch, phase) in launches {
            let Some(task) = self.saved.tasks.get(&launch) else { continue };
            match (phase, task.kill_grace_ms) {
                (Phase::Pending, _) if task.intent.is_none() => {
                    self.end(
                        now_ms,
                        launch,
                        TaskState::Dropped,
                        Source::Agent,
                        Some(Reason::AgentRestarted),
                        RESTARTED,
                    );
                }
                (Phase::Pending, Some(_)) => self.killed_during_launch(now_ms, launch),
                (Phase::Live { .. }, Some(grace_ms)) => self.terminate(now_ms, launch, grace_ms, effects),
                _ => {}
            }
        }
        self.begun = true;
        self.begin_pods(now_ms, effects);
        self.begin_groups(now_ms, effects);
        self.begin_executors(now_ms, effects);
        effects.push(Effect::Dial);
    }

    pub(crate) fn run(&mut self, now_ms: u64, order: RunOrder, effects: &mut Vec<Effect>) {
        let launch = order.launch;
        let bytes = task_bytes(&order.task, &order.resources);
        if let Some(run) = self.runs.get_mut(&launch) {
            let (durable, ended) = (run.durable, run.phase == Phase::Ended);
            run.unlisted = false; // whatever the last hello left out is ordered after it
            run.starting |= order.starting;
            if ended {
                // The leader has not heard of the end, or it would not order.
                run.said_seq = 0;
                return self.say_updates(launch, effects);
            }
            if order.killed {
                self.kill(now_ms, launch, order.task, order.grace_ms, effects);
            } else {
                self.start(now_ms, launch, Phase::Unlisted, effects);
            }
            if durable {
                self.say(AgentCall::Accepted(vec![launch]), effects);
            }
        } else if self.saved.answered.contains(&launch) || self.saved.low_mark.refuses(launch) {
            self.say(AgentCall::Ended(launch), effects);
        } else if order.killed {
            self.refuse(launch, order.task);
            self.killed_during_launch(now_ms, launch);
            if let Some(group) = order.group {
                self.fail_group(now_ms, group, Failed::KILLED, effects);
            }
        } else if let Some(failed) = order.group.and_then(|group| self.group_failed(group, launch)) {
            self.refuse(launch, order.task);
            self.end(now_ms, launch, failed.state, Source::Agent, Some(failed.reason), failed.message);
        } else if self.runs.len() >= self.config.tasks_max || !self.can_list(bytes) {
            let message = format!("The agent holds {} tasks, its limit", self.runs.len());
            self.refuse(launch, order.task);
            self.end(
                now_ms,
                launch,
                TaskState::Dropped,
                Source::Agent,
                Some(Reason::ContainerLaunchFailed),
                &message,
            );
            if let Some(group) = order.group {
                self.fail_group(now_ms, group, Failed::NO_ROOM, effects);
            }
        } else {
            self.know_framework(&order);
            let executor = order.executor.as_ref().map(|executor| self.executor_for(&order, executor));
            if executor == Some(None) {
                self.refuse(launch, order.task);
                let reason = Some(Reason::ExecutorTerminated);
                let message = "The task's executor is about to end, or the agent holds too many";
                self.end(now_ms, launch, TaskState::Dropped, Source::Agent, reason, message);
                if let Some(group) = order.group {
                    self.fail_group(now_ms, group, Failed::NO_EXECUTOR, effects);
                }
                return;
            }
            let task_id = order.task.task_id.clone();
            let volumes = order.volumes;
            let runs_here = order.executor.as_ref().is_none_or(|executor| executor.built_in);
            let terms = Some(order.terms).filter(|terms| runs_here && !terms.is_empty());
            self.listed_bytes += bytes;
            self.runs.insert(launch, Run { starting: order.starting, ..Run::new(Phase::Intending, bytes) });
            self.keep(Record::Intent(Box::new(Intent {
                launch,
                task: order.task,
                resources: order.resources,
                grace_ms: order.grace_ms,
                user: order.user,
                sealed: order.sealed,
            })));
            if !volumes.is_empty() {
                self.keep(Record::Mounts { launch, volumes });
            }
            if let Some(terms) = terms {
                self.keep(Record::Terms { launch, terms: Box::new(terms) });
            }
            if let Some(executor) = executor.flatten() {
                self.join_executor(launch, task_id, executor);
                if let Some(group) = order.group {
                    self.join_group(now_ms, launch, group);
                }
            }
            self.after(After::Intent(launch));
        }
    }

    /// Keeps how the framework of an order describes itself, if that is news.
    fn know_framework(&mut self, order: &RunOrder) {
        let framework_id = &order.task.framework_id;
        if !order.framework.is_empty() && self.saved.frameworks.get(framework_id) != Some(&order.framework) {
            let (framework_id, sealed) = (framework_id.clone(), order.framework.clone());
            self.keep(Record::Framework { framework_id, sealed });
        }
    }

    /// Puts a launch on the answered list without a start.
    fn refuse(&mut self, launch: LaunchNumber, task: TaskKey) {
        let bytes = task_bytes(&task, &Resources::none());
        self.listed_bytes += bytes;
        self.runs.insert(launch, Run::new(Phase::Ended, bytes));
        self.keep(Record::Refused { launch, task });
        self.after(After::Refused(launch));
    }

    pub(crate) fn kill(
        &mut self,
        now_ms: u64,
        launch: LaunchNumber,
        task: TaskKey,
        grace_ms: Option<u64>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get_mut(&launch) else {
            if self.saved.answered.contains(&launch) || self.saved.low_mark.refuses(launch) {
                return self.say(AgentCall::Ended(launch), effects);
            }
            let group = self.group_with(launch);
            self.refuse(launch, task);
            self.killed_during_launch(now_ms, launch);
            if let Some(group) = group {
                self.fail_group(now_ms, group, Failed::KILLED, effects);
            }
            return;
        };
        match run.phase {
            Phase::Pending | Phase::Intending | Phase::Unlisted | Phase::Queued | Phase::Mounting => {
                let group = self.group_of(launch);
                self.killed_during_launch(now_ms, launch);
                self.task_not_handed(now_ms, launch, effects);
                if let Some(group) = group {
                    self.fail_group(now_ms, group, Failed::KILLED, effects);
                }
            }
            Phase::Handing | Phase::Handed { .. } => self.kill_in_executor(launch, grace_ms, effects),
            Phase::Starting | Phase::Holding | Phase::Held => self.abandon(launch, effects),
            Phase::Live { .. } => {
                let grace_ms = grace_ms.unwrap_or_else(|| self.own_grace_ms(launch));
                self.kill_live(now_ms, launch, grace_ms, effects);
            }
            Phase::Abandoned | Phase::Ended => {}
        }
    }

    /// A command that is about to be held, or is, is never let go.
    pub(crate) fn abandon(&mut self, launch: LaunchNumber, effects: &mut Vec<Effect>) {
        if let Some(run) = self.runs.get_mut(&launch) {
            run.phase = Phase::Abandoned;
            self.keep(Record::KillWanted { launch, grace_ms: 0 });
            effects.push(Effect::Abandon { launch });
        }
    }

    /// How long a task may take to end by itself where the kill does not say, in ms.
    pub(crate) fn own_grace_ms(&self, launch: LaunchNumber) -> u64 {
        let intent = self.saved.tasks.get(&launch).and_then(|task| task.intent.as_ref());
        intent.and_then(|intent| intent.grace_ms).unwrap_or(self.config.grace_ms)
    }

    /// Kills a task that was let go. A shorter grace than a former one takes its place.
    pub(crate) fn kill_live(
        &mut self,
        now_ms: u64,
        launch: LaunchNumber,
        grace_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(task) = self.saved.tasks.get(&launch) else { return };
        let (former, state) = (task.kill_grace_ms, task.state);
        if former.is_none_or(|former| grace_ms < former) {
            self.keep(Record::KillWanted { launch, grace_ms });
        }
        let tells = self.saved.watched.get(&launch).is_some_and(|it| it.terms.tells_killing);
        if former.is_none() && tells && state == TaskState::Running {
            self.report(now_ms, launch, TaskState::Killing, Source::Executor, None, "");
        }
        self.terminate(now_ms, launch, grace_ms, effects);
    }

    pub(crate) fn complete_by(&mut self, launch: LaunchNumber, at: u64) {
        self.with_timer(launch, |run| run.complete_by = Some(at));
    }

    /// TERM, and KILL after the grace, but neither before that it is wanted is durable, or an agent that comes after a
    /// crash would find a task that ended by itself. A former deadline is only ever brought forward.
    fn terminate(&mut self, now_ms: u64, launch: LaunchNumber, grace_ms: u64, effects: &mut Vec<Effect>) {
        let at = now_ms.saturating_add(grace_ms);
        let (mut is_new, unkept) = (false, !self.is_all_durable());
        self.checks.end(launch);
        self.with_timer(launch, |run| {
            run.complete_by = None;
            is_new = run.kill_at.is_none();
            run.unkept |= is_new && unkept;
            run.kill_at = Some(run.kill_at.map_or(at, |former| former.min(at)));
        });
        match is_new {
            true if unkept => self.after_all(After::Term(launch)),
            true => self.term(launch, effects),
            false => {}
        }
    }

    /// Asks a task that runs to end.
    pub(crate) fn term(&mut self, launch: LaunchNumber, effects: &mut Vec<Effect>) {
        self.with_timer(launch, |run| {
            run.unkept = false;
            if matches!(run.phase, Phase::Live { .. }) {
                effects.push(Effect::Signal { launch, signal: Signal::Term });
            }
        });
    }

    /// Asks all tasks to end that wait for that.
    pub(crate) fn term_unkept(&mut self, effects: &mut Vec<Effect>) {
        let waiting = self.runs.iter().filter(|(_, run)| run.unkept);
        for launch in waiting.map(|(launch, _)| *launch).collect::<Vec<_>>() {
            self.term(launch, effects);
        }
    }

    pub(crate) fn killed_during_launch(&mut self, now_ms: u64, launch: LaunchNumber) {
        let reason = Some(Reason::TaskKilledDuringLaunch);
        let message = "Task was killed before its command was started";
        self.end(now_ms, launch, TaskState::Killed, Source::Agent, reason, message);
    }

    pub(crate) fn started(&mut self, now_ms: u64, launch: LaunchNumber, process: Process) {
        let Some(run) = self.runs.get_mut(&launch).filter(|run| run.phase == Phase::Starting) else { return };
        run.phase = Phase::Holding;
        let starting = run.starting;
        self.keep(Record::Started { launch, process });
        if starting {
            self.report(now_ms, launch, TaskState::Starting, Source::Executor, None, "");
        }
        self.after(After::Release(launch));
    }

    pub(crate) fn release(&mut self, launch: LaunchNumber, effects: &mut Vec<Effect>) {
        let group = self.pod_of(launch).and_then(|_| self.group_of(launch));
        let Some(run) = self.runs.get_mut(&launch).filter(|run| run.phase == Phase::Holding) else { return };
        if let Some(group) = group {
            run.phase = Phase::Held;
            return self.release_pod(group, effects);
        }
        run.phase = Phase::Live { released: false };
        effects.push(Effect::Release { launch });
    }

    pub(crate) fn released(&mut self, now_ms: u64, launch: LaunchNumber) {
        let Some(run) = self.runs.get_mut(&launch) else { return };
        if run.phase != (Phase::Live { released: false }) {
            return;
        }
        run.phase = Phase::Live { released: true };
        let is_told = |state| matches!(state, TaskState::Running | TaskState::Killing);
        if !self.saved.tasks.get(&launch).is_some_and(|task| is_told(task.state)) {
            self.report(now_ms, launch, TaskState::Running, Source::Executor, None, "");
        }
        self.watch(now_ms, launch);
    }

    pub(crate) fn ended(&mut self, now_ms: u64, launch: LaunchNumber, end: End) {
        let Some(run) = self.runs.get(&launch) else { return };
        use Phase::*;
        let is_none_of_its_own = matches!(run.phase, Queued | Mounting | Handing | Handed { .. });
        if is_none_of_its_own || matches!(run.phase, Ended | Pending | Intending | Unlisted) {
            return;
        }
        let Some(task) = self.saved.tasks.get(&launch) else { return };
        let killed = task.kill_grace_ms.is_some();
        if killed && matches!(end, End::NotReleased | End::StartFailed(_)) {
            return self.killed_during_launch(now_ms, launch);
        }
        if let End::Limited(limited) = &end {
            self.run_ended(launch);
            return self.report_limited(now_ms, launch, limited);
        }
        let cause = self.saved.watched.get(&launch).and_then(|it| it.cause);
        let (state, source, reason, message) = verdict(&end, killed, cause);
        self.end(now_ms, launch, state, source, reason, &message);
    }

    /// No process is left: the terminal update.
    pub(crate) fn end(
        &mut self,
        now_ms: u64,
        launch: LaunchNumber,
        state: TaskState,
        source: Source,
        reason: Option<Reason>,
        message: &str,
    ) {
        self.run_ended(launch);
        self.report(now_ms, launch, state, source, reason, message);
    }

    /// No process is left; the terminal update is about to be reported.
    pub(crate) fn run_ended(&mut self, launch: LaunchNumber) {
        if self.runs.get(&launch).is_some_and(|run| run.phase != Phase::Ended) {
            self.shrink(launch);
        }
        self.checks.end(launch);
        self.with_timer(launch, |run| {
            run.phase = Phase::Ended;
            run.kill_at = None;
            run.complete_by = None;
        });
        if self.pod_of(launch).is_some() {
            self.execs.over.push(launch);
        }
    }

    pub(crate) fn report(
        &mut self,
        now_ms: u64,
        launch: LaunchNumber,
        state: TaskState,
        source: Source,
        reason: Option<Reason>,
        message: &str,
    ) {
        let wall = WallTime(self.config.wall_at_zero_ms.saturating_add(now_ms));
        let sealed = match source {
            Source::Executor => self.told(launch, wall),
            Source::Agent | Source::Master => Sealed::default(),
        };
        let message = cut(message).into();
        self.report_status(launch, None, Status { state, source, reason, message, wall, sealed });
    }

    /// What is told of a task beside its state, where that is more than its own executor's would be.
    fn told(&self, launch: LaunchNumber, wall: WallTime) -> Sealed {
        let Some(task) = self.saved.tasks.get(&launch) else { return Sealed::default() };
        let pod = self.pod_of(launch).and_then(|number| {
            let executor = self.saved.executors.runs.get(&number)?;
            Some((number, &executor.intent.name.executor_id))
        });
        let watched = self.saved.watched.get(&launch);
        let told = Told {
            launch,
            task_id: &task.task.task_id,
            within: pod,
            healthy: watched.and_then(|it| it.healthy),
            check: watched.and_then(|it| {
                let kind = it.terms.check.as_ref()?.kind;
                Some(it.found.unwrap_or(CheckResult::Nothing(kind)))
            }),
            wall,
        };
        match (pod, told.healthy, told.check) {
            (None, None, None) => Sealed::default(),
            _ => (self.config.seal)(&told),
        }
    }

    /// Ended since it used more than it may, whether it was to end or not.
    pub(crate) fn report_limited(&mut self, now_ms: u64, launch: LaunchNumber, limited: &Limited) {
        let status = Status {
            state: TaskState::Failed,
            source: Source::Agent,
            reason: Some(limited.reason),
            message: cut(&limited.message).into(),
            wall: WallTime(self.config.wall_at_zero_ms.saturating_add(now_ms)),
            sealed: limited.sealed.clone(),
        };
        self.report_status(launch, None, status);
    }

    /// Keeps a status, to be sent once it is durable. Without a uuid of its executor's it gets one of its own.
    pub(crate) fn report_status(&mut self, launch: LaunchNumber, uuid: Option<Uuid>, status: Status) {
        let Some(task) = self.saved.tasks.get(&launch) else { return };
        let (seq, state) = (task.seq + 1, status.state);
        let task = task.task.clone();
        let update =
            StatusUpdate { launch, task, seq, uuid: uuid.unwrap_or_else(|| Uuid::of(launch, seq)), status };
        self.keep(Record::Update(Box::new(update)));
        self.after(After::Update(launch, seq, state));
    }

    pub(crate) fn update_durable(
        &mut self,
        now_ms: u64,
        launch: LaunchNumber,
        seq: u32,
        state: TaskState,
        effects: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get_mut(&launch) else { return };
        run.durable_seq = seq;
        run.durable_state = state;
        self.say_updates(launch, effects);
        self.repeat_from(now_ms, launch, self.config.repeat_ms);
    }

    /// Says the durable updates that were not said on this connection.
    pub(crate) fn say_updates(&mut self, launch: LaunchNumber, effects: &mut Vec<Effect>) {
        if !self.connection.welcomed {
            return;
        }
        let (Some(run), Some(task)) = (self.runs.get_mut(&launch), self.saved.tasks.get(&launch)) else {
            return;
        };
        let from = std::mem::replace(&mut run.said_seq, run.durable_seq);
        let due = task.updates.iter().filter(|update| update.seq > from && update.seq <= run.durable_seq);
        let due: Vec<StatusUpdate> = due.cloned().collect();
        for update in due {
            self.say(AgentCall::Status(update), effects);
        }
    }

    /// Sets the next repeat, if there is something to repeat and someone to tell.
    pub(crate) fn repeat_from(&mut self, now_ms: u64, launch: LaunchNumber, pause_ms: u64) {
        self.repeat_at(now_ms.saturating_add(pause_ms), launch, pause_ms);
    }

    /// The same, of what is said or repeated at a time, and then after that pause.
    pub(crate) fn repeat_at(&mut self, at_ms: u64, launch: LaunchNumber, pause_ms: u64) {
        let due = self.connection.welcomed
            && self.saved.tasks.get(&launch).is_some_and(|task| !task.updates.is_empty());
        self.with_timer(launch, |run| {
            run.repeat_ms = pause_ms;
            run.repeat_at = due.then_some(at_ms);
        });
    }

    /// What is due of a task. So many updates were said in this step before, and are said after it.
    pub(crate) fn run_wake(
        &mut self,
        now_ms: u64,
        launch: LaunchNumber,
        said: &mut usize,
        effects: &mut Vec<Effect>,
    ) {
        let waiting = self.saved.tasks.get(&launch).map_or(0, |task| task.updates.len());
        let (mut repeat, mut is_over) = (None, false);
        self.with_timer(launch, |run| {
            if run.complete_by.is_some_and(|at| at <= now_ms) {
                run.complete_by = None;
                is_over = true;
            }
            if run.kill_at.is_some_and(|at| at <= now_ms) && !run.unkept {
                // Asked again each second until the supervisor reports the end.
                run.kill_at = Some(now_ms + 1_000);
                effects.push(Effect::Signal { launch, signal: Signal::Kill });
            }
            if run.repeat_at.is_some_and(|at| at <= now_ms) {
                let at = part_at(now_ms, *said);
                *said += waiting;
                run.repeat_at = Some(at).filter(|at| *at > now_ms);
                if run.repeat_at.is_none() {
                    // What is said for the first time, and then again, or what was all said before.
                    let is_said = run.said_seq == run.durable_seq;
                    run.said_seq = if is_said { 0 } else { run.said_seq };
                    repeat = Some(run.repeat_ms.saturating_mul(if is_said { 2 } else { 1 }));
                }
            }
        });
        if let Some(pause_ms) = repeat {
            self.say_updates(launch, effects);
            self.repeat_from(now_ms, launch, pause_ms.min(self.config.repeat_ms_max));
        }
        if is_over {
            self.completion_over(now_ms, launch, effects);
        }
    }

    pub(crate) fn confirm(&mut self, launch: LaunchNumber, seq: u32) {
        let (Some(run), Some(task)) = (self.runs.get(&launch), self.saved.tasks.get(&launch)) else { return };
        if !task.updates.iter().any(|update| update.seq <= seq) {
            return;
        }
        if run.phase == Phase::Ended && task.seq <= seq {
            return self.drop_task(launch);
        }
        self.keep(Record::Confirmed { launch, seq });
        if self.saved.tasks.get(&launch).is_some_and(|task| task.updates.is_empty()) {
            self.with_timer(launch, |run| run.repeat_at = None);
        }
    }

    /// The registry wants no word of this launch any more. What lives is not forgotten, whoever says so.
    pub(crate) fn forget(&mut self, now_ms: u64, launch: LaunchNumber, effects: &mut Vec<Effect>) {
        let phase = self.runs.get(&launch).map(|run| run.phase);
        if matches!(phase, Some(Phase::Ended | Phase::Pending | Phase::Unlisted)) {
            let executor = self.saved.executors.tasks.get(&launch).map(|task| task.executor);
            let group = self.group_of(launch).filter(|_| phase != Some(Phase::Ended));
            self.drop_task(launch);
            if let Some(executor) = executor {
                self.end_if_of_no_use(now_ms, executor, effects);
            }
            if let Some(group) = group {
                self.fail_group(now_ms, group, Failed::ONE_LOST, effects);
            }
        }
    }

    fn drop_task(&mut self, launch: LaunchNumber) {
        self.with_timer(launch, |run| {
            run.kill_at = None;
            run.repeat_at = None;
        });
        if let Some(run) = self.runs.remove(&launch) {
            self.listed_bytes -= run.bytes;
        }
        let Some(task) = self.saved.tasks.get(&launch).map(|task| task.task.clone()) else { return };
        self.leave_executor(launch, &task);
        // The sandbox of a task in an executor is the executor's.
        let has_sandbox = !self.saved.executors.tasks.contains_key(&launch);
        let has_exit = self.pod_of(launch).is_some();
        self.keep(Record::Forgotten { launch });
        if has_sandbox {
            self.after(After::Remove(launch, task));
        } else if has_exit {
            self.after(After::RemoveExit(launch));
        }
    }

    /// Changes a run and keeps the timers in step with it.
    fn with_timer(&mut self, launch: LaunchNumber, change: impl FnOnce(&mut Run)) {
        let Some(run) = self.runs.get_mut(&launch) else { return };
        let former = run.timer();
        change(run);
        let timer = run.timer();
        if let Some(at) = former {
            self.timers.remove(&(at, launch));
        }
        if let Some(at) = timer {
            self.timers.insert((at, launch));
        }
    }
}

const RESTARTED: &str = "The agent restarted before the command was started";

/// An end in words, as in `Command exited with status 1`.
pub(crate) fn how_it_ended(end: &End) -> String {
    match end {
        End::Exited(code) => format!("exited with status {code}"),
        End::Signaled(signal) => format!("terminated with signal {}", signal_name(*signal)),
        End::NotReleased => "was never started".into(),
        End::StartFailed(why) | End::Invalid(why) => format!("could not be started: {why}"),
        End::Unknown => "is gone and left no exit status".into(),
        End::Limited(limited) => format!("was ended by a limit: {}", limited.message),
    }
}

fn verdict(end: &End, killed: bool, cause: Option<Cause>) -> (TaskState, Source, Option<Reason>, Arc<str>) {
    use TaskState::*;
    let (state, source, reason, message): (_, _, _, Arc<str>) = match end {
        End::Exited(0) => (Finished, Source::Executor, None, "Command exited with status 0".into()),
        End::Exited(n) => (Failed, Source::Executor, None, format!("Command exited with status {n}").into()),
        End::Signaled(n) => {
            let message = format!("Command terminated with signal {}", signal_name(*n));
            (Failed, Source::Executor, None, message.into())
        }
        End::NotReleased => (Dropped, Source::Agent, Some(Reason::AgentRestarted), RESTARTED.into()),
        End::StartFailed(why) => (Failed, Source::Agent, Some(Reason::ContainerLaunchFailed), why.clone()),
        End::Invalid(why) => (Error, Source::Agent, Some(Reason::TaskInvalid), why.clone()),
        End::Unknown => {
            let message = "The command's supervisor is gone and left no exit status".into();
            (Gone, Source::Agent, Some(Reason::ExecutorTerminated), message)
        }
        End::Limited(limited) => (Failed, Source::Agent, Some(limited.reason), limited.message.clone()),
    };
    if cause == Some(Cause::Completion) && reason.is_none() {
        (Failed, source, Some(Reason::MaxCompletionTimeReached), message)
    } else if killed && reason.is_none() {
        (Killed, source, reason, message)
    } else {
        (state, source, reason, message)
    }
}

/// The name of a signal on Linux, or its number.
fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 32] = [
        "",
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    match usize::try_from(signal).ok().and_then(|n| NAMES.get(n)) {
        Some(name) if !name.is_empty() => (*name).to_owned(),
        _ => signal.to_string(),
    }
}

fn cut(message: &str) -> &str {
    &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)]
}
