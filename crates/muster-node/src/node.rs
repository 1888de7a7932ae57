//! The machine: its state, the step, and what waits for the disk.

use crate::{
    check::Checks,
    connection::Connection,
    effect::{Effect, Start},
    executor::Execs,
    input::Input,
    record::{Process, Record, Saved},
    sizes::Sizes,
    task::{Phase, Run},
};
use muster_model::{
    AgentCall, AgentInfo, ExecutorName, LaunchNumber, Sealed, TaskGroup, TaskId, TaskState, Token, Told, Uuid,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Writes that as the parts of a `mesos.v1.TaskStatus`, whose form this crate does not know. Pure: the same for the same.
pub type Seal = fn(&Told<'_>) -> Sealed;

/// What an agent is told once, at its start.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Its description.
    pub info: AgentInfo,
    /// The whole `mesos.v1.AgentInfo`.
    pub sealed: Sealed,
    /// Drawn for this run: by it an agent that has no id yet is known again when it repeats its hello.
    pub token: Token,
    /// Kill grace where neither the kill nor the task names one, in ms.
    pub grace_ms: u64,
    /// An unconfirmed update is first repeated after this long, then after twice as long each time, in ms.
    pub repeat_ms: u64,
    /// The longest pause between repeats, in ms.
    pub repeat_ms_max: u64,
    /// How long a hello may stay unanswered before another master is dialled, in ms.
    pub welcome_ms: u64,
    /// How long an executor that was started may take to subscribe, in ms.
    pub executor_registration_ms: u64,
    /// How long an executor may take to come back after the agent did, in ms.
    pub executor_reregistration_ms: u64,
    /// How long an executor may take to end once it is asked to, where its description does not say, in ms.
    pub executor_grace_ms: u64,
    /// Probes of checks that run at once; others wait for their turn.
    pub probes_max: usize,
    /// How what is told of tasks is written.
    pub seal: Seal,
    /// Tasks held at once; an order beyond is answered TASK_DROPPED.
    pub tasks_max: usize,
    /// Beyond this many answered orders a hello is said unasked, for the welcome brings the low mark that prunes
    /// their list.
    pub answered_max: usize,
    /// The wall clock (ms since 1970) when the step clock stood at 0. For display only.
    pub wall_at_zero_ms: u64,
}

/// What waits for a checkpoint to be durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum After {
    /// Say hello on this stream.
    Hello(u64),
    /// Answer an order that is to be carried out, and start it.
    Intent(LaunchNumber),
    /// An order that is not carried out is on the answered list.
    Refused(LaunchNumber),
    /// Let the held command go.
    Release(LaunchNumber),
    /// Ask a task to end.
    Term(LaunchNumber),
    /// Send an update.
    Update(LaunchNumber, u32, TaskState),
    /// Nothing of the launch is needed any more but its sandbox.
    RemoveExit(LaunchNumber),
    /// Nothing of the launch is needed any more.
    Remove(LaunchNumber, muster_model::TaskKey),
    /// Let an executor's held command go.
    ReleaseExecutor(LaunchNumber),
    /// Send a task to its executor.
    Handed(LaunchNumber),
    /// Send a group to its executor.
    HandedGroup(TaskGroup),
    /// Tell an executor that its update is kept.
    Acknowledge(LaunchNumber, TaskId, Uuid),
    /// Say that an executor ended.
    ExecutorEnded(LaunchNumber),
}

/// The agent's machine.
#[derive(Debug)]
pub struct Node {
    pub(crate) config: NodeConfig,
    /// The fold of all records, synced or on their way.
    pub(crate) saved: Saved,
    /// What is not on the disk about each of its tasks.
    pub(crate) runs: BTreeMap<LaunchNumber, Run>,
    /// What they take in a hello together.
    pub(crate) listed_bytes: usize,
    pub(crate) connection: Connection,
    /// When which run wants a wake.
    pub(crate) timers: BTreeSet<(u64, LaunchNumber)>,
    pub(crate) execs: Execs,
    pub(crate) sizes: Sizes,
    pub(crate) checks: Checks,
    /// The facts of recovery are in.
    pub(crate) begun: bool,
    /// The last checkpoint's ticket.
    ticket: u64,
    /// The last that is durable.
    synced: u64,
    /// This step's records.
    records: Vec<Record>,
    after: VecDeque<(u64, After)>,
    pub(crate) stopped: bool,
}

impl Node {
    /// A machine that carries on from what was kept, or a new one from `Saved::default()`. The shell then
    /// reports what became of each task in [`Node::processes`], and `Begin`.
    pub fn recover(config: NodeConfig, saved: Saved) -> Self {
        let in_executors = &saved.executors.tasks;
        let runs = saved
            .tasks
            .iter()
            .map(|(launch, task)| (*launch, Run::recover(task, in_executors.get(launch))))
            .collect::<BTreeMap<_, _>>();
        let listed_bytes = runs.values().map(|run: &Run| run.bytes).sum();
        Self {
            config,
            execs: Execs::recover(&saved),
            sizes: Sizes::recover(&saved),
            checks: Checks::default(),
            begun: false,
            saved,
            runs,
            listed_bytes,
            connection: Connection::default(),
            timers: BTreeSet::new(),
            ticket: 0,
            synced: 0,
            records: Vec::new(),
            after: VecDeque::new(),
            stopped: false,
        }
    }

    /// The fold of all records so far.
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// Launches, and runs of executors, whose recorded process may live, or may have ended unreported.
    pub fn processes(&self) -> impl Iterator<Item = (LaunchNumber, &Process)> {
        let live = self.runs.iter().filter(|(_, run)| matches!(run.phase, Phase::Live { .. }));
        let tasks = live.filter_map(|(launch, _)| {
            let process = self.saved.tasks.get(launch)?.process.as_ref()?;
            Some((*launch, process))
        });
        let runs = self.saved.executors.runs.iter().filter(|(number, _)| self.execs.is_live(**number));
        tasks.chain(runs.filter_map(|(number, run)| Some((*number, run.process.as_ref()?))))
    }

    /// The run of the executor of this name, unless it ended.
    pub fn executor_number(&self, name: &ExecutorName) -> Option<LaunchNumber> {
        self.execs.number(name)
    }

    /// When the next `Wake` is due, if nothing else happens.
    pub fn wake_at(&self) -> Option<u64> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.execs.wake_at(), self.checks.wake_at(), self.connection.deadline]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes one input in. `now_ms` is monotonic.
    pub fn step(&mut self, now_ms: u64, input: Input, effects: &mut Vec<Effect>) {
        if self.stopped {
            return;
        }
        match input {
            Input::Begin => self.begin(now_ms, effects),
            Input::StreamOpened { stream } => self.stream_opened(now_ms, stream),
            Input::StreamClosed { stream } => self.stream_closed(stream, effects),
            Input::Frame { stream, fence, session, down } => {
                self.frame(now_ms, stream, fence, session, down, effects);
            }
            Input::Synced { ticket } => self.synced(now_ms, ticket, effects),
            Input::CheckpointFailed(why) => self.stop(format!("cannot keep a checkpoint: {why}"), effects),
            // The first task of an executor has its number, and no process.
            Input::Started { launch, process } if self.has_process(launch) => {
                self.executor_held(launch, process);
            }
            Input::Released { launch } if self.has_process(launch) => {}
            Input::Ended { launch, end } if self.has_process(launch) => {
                self.executor_ended(now_ms, launch, &end, effects);
            }
            Input::Started { launch, process } => self.started(now_ms, launch, process),
            Input::Released { launch } => self.released(now_ms, launch),
            Input::Ended { launch, end } => self.ended(now_ms, launch, end),
            Input::Probed { launch, which, number, result } => {
                self.probed(now_ms, launch, which, number, result, effects);
            }
            Input::Mounted { launch, failed } => self.mounted(now_ms, launch, failed, effects),
            Input::Executor { call, from, said } => self.executor_call(now_ms, call, &from, said, effects),
            Input::ExecutorGone { stream } => self.executor_gone(stream),
            Input::Wake => self.wake(now_ms, effects),
        }
        self.say_sizes(effects);
        if self.begun {
            self.settle_pods(now_ms, effects);
        }
        if !self.records.is_empty() && !self.stopped {
            self.ticket += 1;
            let records = std::mem::take(&mut self.records);
            effects.push(Effect::Checkpoint { ticket: self.ticket, records });
        }
    }

    /// Whether this number is a run of an executor's that has a process.
    fn has_process(&self, number: LaunchNumber) -> bool {
        self.execs.has(number) && !self.is_built_in(number)
    }

    pub(crate) fn stop(&mut self, reason: String, effects: &mut Vec<Effect>) {
        self.stopped = true;
        // Nothing becomes durable any more, and what shall end is not to run on until an agent is back.
        self.term_unkept(effects);
        effects.push(Effect::Stop(reason));
    }

    /// Takes a record in and has it kept.
    pub(crate) fn keep(&mut self, record: Record) {
        self.saved.apply(&record);
        self.records.push(record);
    }

    /// Does this once this step's records are durable.
    pub(crate) fn after(&mut self, after: After) {
        self.after.push_back((self.ticket + 1, after));
    }

    /// Does this once all that was kept so far is durable.
    pub(crate) fn after_all(&mut self, after: After) {
        let last = self.ticket + u64::from(!self.records.is_empty());
        self.after.push_back((last, after));
    }

    /// Whether nothing that was kept is on its way to the disk.
    pub(crate) fn is_all_durable(&self) -> bool {
        self.records.is_empty() && self.synced == self.ticket
    }

    /// Whether an order, or the word of a leader, is on its way to the disk.
    pub(crate) fn orders_wait(&self) -> bool {
        let waits = |after: &After| matches!(after, After::Intent(_) | After::Refused(_) | After::Hello(_));
        self.after.iter().any(|(_, after)| waits(after))
    }

    /// Says hello once all that was kept so far is durable.
    pub(crate) fn hello_after_all(&mut self, stream: u64) {
        self.after.retain(|(_, after)| !matches!(after, After::Hello(_)));
        self.after_all(After::Hello(stream));
    }

    fn synced(&mut self, now_ms: u64, ticket: u64, effects: &mut Vec<Effect>) {
        self.synced = self.synced.max(ticket);
        let ready = self.after.iter().take_while(|(at, _)| *at <= ticket).count();
        let due: Vec<After> = self.after.drain(..ready).map(|(_, after)| after).collect();
        let mut accepted = Vec::new();
        for after in &due {
            let (After::Intent(launch) | After::Refused(launch)) = after else { continue };
            self.executor_durable(*launch, effects);
            let Some(run) = self.runs.get_mut(launch) else { continue };
            run.durable = true;
            if run.unlisted && run.phase == Phase::Intending {
                run.phase = Phase::Unlisted;
            } else if matches!(after, After::Intent(_)) {
                run.accept_due = !self.connection.welcomed;
                accepted.push(*launch);
            }
        }
        if !accepted.is_empty() {
            self.say(AgentCall::Accepted(accepted), effects);
        }
        for after in due {
            match after {
                After::Hello(stream) => self.say_hello(now_ms, stream, effects),
                After::Intent(launch) => self.start(now_ms, launch, Phase::Intending, effects),
                After::Refused(_) => {}
                After::Release(launch) => self.release(launch, effects),
                After::Term(launch) => self.term(launch, effects),
                After::RemoveExit(launch) => effects.push(Effect::RemoveExit { launch }),
                After::Update(launch, seq, state) => self.update_durable(now_ms, launch, seq, state, effects),
                After::Remove(launch, task) => effects.push(Effect::Remove { launch, task }),
                After::ReleaseExecutor(number) => self.release_executor(now_ms, number, effects),
                After::Handed(launch) => self.handed(launch, effects),
                After::HandedGroup(group) => self.group_handed(group, effects),
                After::Acknowledge(number, task_id, uuid) => {
                    self.acknowledge(number, task_id, uuid, effects);
                }
                After::ExecutorEnded(number) => self.executor_end_durable(now_ms, number, effects),
            }
        }
        self.ask_for_a_low_mark(now_ms, effects);
    }

    /// Starts a launch whose intent is durable, if it still stands where it is expected to.
    pub(crate) fn start(
        &mut self,
        now_ms: u64,
        launch: LaunchNumber,
        expected: Phase,
        effects: &mut Vec<Effect>,
    ) {
        if self.saved.executors.tasks.contains_key(&launch) {
            return self.queue_in_executor(now_ms, launch, expected, effects);
        }
        self.hold(launch, expected, effects);
    }

    /// Has a command held.
    pub(crate) fn hold(&mut self, launch: LaunchNumber, expected: Phase, effects: &mut Vec<Effect>) {
        let Some(agent_id) = self.saved.agent_id.clone() else { return };
        let Some(intent) = self.saved.tasks.get(&launch).and_then(|task| task.intent.clone()) else { return };
        let within = self.within(launch);
        let Some(run) = self.runs.get_mut(&launch).filter(|run| run.phase == expected) else { return };
        run.phase = Phase::Starting;
        effects.push(Effect::Start(Box::new(Start {
            launch,
            task: intent.task.clone(),
            agent_id,
            user: intent.user.clone(),
            resources: intent.resources.clone(),
            sealed: intent.sealed.clone(),
            volumes: self.saved.volumes.get(&launch).cloned().unwrap_or_default(),
            within,
        })));
    }

    fn wake(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.connection_wake(now_ms, effects);
        let mut said = 0;
        while let Some((at, launch)) = self.timers.first().copied().filter(|(at, _)| *at <= now_ms) {
            self.timers.remove(&(at, launch));
            self.run_wake(now_ms, launch, &mut said, effects);
        }
        self.wake_checks(now_ms, effects);
        self.wake_executors(now_ms, effects);
        self.wake_groups(now_ms, effects);
    }
}
