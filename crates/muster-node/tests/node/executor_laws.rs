//! The laws of executors under random interleavings: a task is sent at most once, and not before its record as handed
//! is on the disk; an update is told to be kept when it is; a kill reaches the executor or comes before the launch; each
//! task comes to its end, each executor is released at most once, and its end is said until it is confirmed.

use crate::world::{config, executor, key, name, process};
use muster_model::{
    AgentCall, AgentEvent, AgentId, ExecutorCall, ExecutorEvent, ExecutorUpdate, Fence, Index, LaunchNumber,
    Resources, Sealed, Session, Source, Status, StatusUpdate, TaskGroup, TaskId, TaskState, Term, Uuid,
    WallTime, event::RunOrder,
};
use muster_node::{Down, Effect, End, ExecutorAnswer, Input, Node, Record, Saved, Signal};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const LAUNCHES: u64 = 5;
const EXECUTORS: [&str; 2] = ["e0", "e1"];

#[derive(Debug, Clone)]
enum Op {
    Run(u64),
    Kill(u64),
    Confirm(u64),
    Sync(usize),
    /// The supervisor of a run does what it was asked, and reports.
    Work(u64),
    /// An executor's process subscribes, again or for the first time.
    Subscribe(usize),
    /// Its stream breaks, with all that was on the way.
    Break(usize),
    /// It reads what it was told, this many events.
    Read(usize, usize),
    /// One of its tasks comes to its end.
    Finish(usize),
    /// It says again what it was not told to be kept.
    Repeat(usize),
    /// It ends by itself.
    Die(usize),
    /// The framework wants it ended.
    Shutdown(usize),
    Crash(usize),
    Reconnect,
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let n = || 1..=LAUNCHES;
    let e = || 0..EXECUTORS.len();
    prop_oneof![
        6 => n().prop_map(Op::Run),
        2 => n().prop_map(Op::Kill),
        2 => n().prop_map(Op::Confirm),
        8 => (1..4usize).prop_map(Op::Sync),
        8 => n().prop_map(Op::Work),
        5 => e().prop_map(Op::Subscribe),
        2 => e().prop_map(Op::Break),
        8 => (e(), 1..4usize).prop_map(|(e, many)| Op::Read(e, many)),
        3 => e().prop_map(Op::Finish),
        2 => e().prop_map(Op::Repeat),
        1 => e().prop_map(Op::Die),
        1 => e().prop_map(Op::Shutdown),
        2 => (0..4usize).prop_map(Op::Crash),
        1 => Just(Op::Reconnect),
        1 => (0..4_000u64).prop_map(Op::Wait),
    ]
}

/// The last two were launched together.
fn launch(n: u64) -> LaunchNumber {
    let (index, n) = if n < LAUNCHES { (n, 0) } else { (n - 1, 1) };
    LaunchNumber { incarnation: 1, index: Index(index), n }
}

fn group(n: u64) -> Option<TaskGroup> {
    (n >= LAUNCHES - 1).then(|| TaskGroup { first: launch(LAUNCHES - 1), size: 2 })
}

/// Which executor a launch names.
fn of(n: u64) -> &'static str {
    EXECUTORS[if group(n).is_some() { 0 } else { n % 2 } as usize]
}

/// A run of an executor as the operating system has it, and what it holds in its memory.
#[derive(Debug, Default)]
struct Process {
    asked: VecDeque<Asked>,
    reports: VecDeque<Input>,
    name: &'static str,
    released: bool,
    end: Option<End>,
    stream: Option<u64>,
    /// Told and not read.
    inbox: VecDeque<ExecutorEvent>,
    /// Its tasks, and whether they are over.
    tasks: BTreeMap<TaskId, bool>,
    /// Tasks of which an update was acknowledged.
    acknowledged: BTreeSet<TaskId>,
    updates: Vec<ExecutorUpdate>,
}

#[derive(Debug, Clone, Copy)]
enum Asked {
    Hold,
    Release,
    Abandon,
    Kill,
}

#[derive(Debug, Default)]
struct Known {
    ordered: bool,
    kill: bool,
    accepted: bool,
    seq: u32,
    terminal: bool,
}

struct Sim {
    node: Node,
    now_ms: u64,
    synced: Saved,
    waiting: VecDeque<(u64, Vec<Record>)>,
    runs: BTreeMap<LaunchNumber, Process>,
    /// Tasks whose LAUNCH was put on a stream.
    sent: BTreeSet<TaskId>,
    registry: BTreeMap<LaunchNumber, Known>,
    /// Runs that were said to have ended.
    ended: BTreeSet<LaunchNumber>,
    answers: Vec<ExecutorAnswer>,
    fence: Fence,
    session: Session,
    stream: u64,
    calls: u64,
    uuids: u8,
    /// A hello came that does not list its tasks.
    list_all: bool,
}

impl Sim {
    fn new() -> Self {
        let mut sim = Self {
            node: Node::recover(config(), Saved::default()),
            now_ms: 0,
            synced: Saved::default(),
            waiting: VecDeque::new(),
            runs: BTreeMap::new(),
            sent: BTreeSet::new(),
            registry: BTreeMap::new(),
            ended: BTreeSet::new(),
            answers: Vec::new(),
            list_all: false,
            fence: Fence { incarnation: 1, term: Term(1) },
            session: Session(0),
            stream: 0,
            calls: 0,
            uuids: 0,
        };
        sim.step(Input::Begin);
        sim.connect();
        sim
    }

    fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.node.step(self.now_ms, input, &mut effects);
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        let mut ask = |number, asked| self.runs.entry(number).or_default().asked.push_back(asked);
        match effect {
            Effect::Resize { .. } => {}
            Effect::Probe(_) | Effect::RemoveExit { .. } => panic!("nothing asks for it"),
            Effect::Mount { .. } | Effect::KeepVolumes { .. } => {} // no task here uses one
            Effect::Checkpoint { ticket, records } => self.waiting.push_back((ticket, records)),
            Effect::Send { call, .. } => self.hear(call),
            Effect::Dial | Effect::Redial { .. } | Effect::Remove { .. } => {}
            Effect::Start(start) => panic!("{} has no process of its own", start.launch),
            Effect::StartExecutor(start) => {
                let number = start.intent.number;
                let id = start.intent.name.executor_id.as_str();
                let name = EXECUTORS.into_iter().find(|name| *name == id).unwrap();
                for (other, run) in &self.runs {
                    let gone = run.end.is_some() || !run.released;
                    assert!(run.name != name || gone, "{number} starts while {other} of {name} lives");
                }
                self.runs.insert(number, Process { name, ..Process::default() });
                self.runs.entry(number).or_default().asked.push_back(Asked::Hold);
            }
            Effect::Release { launch } => {
                let known = &self.synced.executors.runs[&launch];
                assert!(known.process.is_some(), "{launch} is released before its process is on the disk");
                ask(launch, Asked::Release);
            }
            Effect::Abandon { launch } => ask(launch, Asked::Abandon),
            Effect::Signal { launch, signal: Signal::Kill } => ask(launch, Asked::Kill),
            Effect::Signal { .. } => panic!("an executor is asked by its stream"),
            Effect::Answer { answer, .. } => self.answers.push(answer),
            Effect::Tell { stream, event } => self.tell(stream, event),
            Effect::HangUp { stream } => {
                if let Some(run) = self.runs.values_mut().find(|run| run.stream == Some(stream)) {
                    run.stream = None; // it reads what was sent before
                }
            }
            Effect::Stop(why) => panic!("stopped: {why}"),
        }
    }

    /// A task is put on a stream.
    fn sent(&mut self, task: &[u8]) -> LaunchNumber {
        let id = TaskId::new(std::str::from_utf8(task).unwrap());
        let launch = *self.synced.tasks.iter().find(|(_, task)| task.task.task_id == id).unwrap().0;
        assert!(self.synced.executors.tasks[&launch].handed, "{id} is sent before that is on the disk");
        assert!(self.sent.insert(id.clone()), "{id} is sent twice");
        launch
    }

    fn tell(&mut self, stream: u64, event: ExecutorEvent) {
        match &event {
            ExecutorEvent::Launch { task } => {
                let launch = self.sent(task);
                assert!(!self.synced.groups.contains_key(&launch), "{launch} is sent without its group");
            }
            ExecutorEvent::LaunchGroup { tasks } => {
                let launches: Vec<LaunchNumber> = tasks.iter().map(|task| self.sent(task)).collect();
                let whole: Vec<LaunchNumber> = group(LAUNCHES).unwrap().launches().collect();
                assert_eq!(launches, whole, "a group is sent as a whole");
            }
            ExecutorEvent::Acknowledged { task_id, uuid } => {
                let found = self.synced.tasks.iter().find(|(_, task)| task.task.task_id == *task_id);
                let known = found.is_none_or(|(launch, task)| {
                    self.synced.executors.tasks[launch].uuids.contains(uuid) || task.state.is_terminal()
                });
                assert!(known, "an update of {task_id} is said to be kept and is not on the disk");
            }
            _ => {}
        }
        let open = self.runs.values_mut().find(|run| run.stream == Some(stream) && run.end.is_none());
        if let Some(run) = open {
            run.inbox.push_back(event);
        }
    }

    fn hear(&mut self, call: AgentCall) {
        match call {
            AgentCall::Hello(hello, ..) => {
                for task in &hello.tasks {
                    self.registry.entry(task.launch).or_default().accepted = true;
                    task.updates.iter().for_each(|update| self.take(update));
                }
            }
            AgentCall::HelloAsKnown(..) => self.list_all = true,
            AgentCall::Accepted(launches) => {
                for launch in launches {
                    assert!(self.synced.tasks.contains_key(&launch));
                    self.registry.entry(launch).or_default().accepted = true;
                }
            }
            AgentCall::Status(update) => self.take(&update),
            AgentCall::Ended(launch) => assert!(self.registry[&launch].terminal, "{launch} ended unsaid"),
            AgentCall::Executors { executors, .. } => {
                for known in executors {
                    let record = &self.synced.executors.runs[&known.number];
                    if known.ended.is_some() {
                        assert!(record.ended.is_some(), "an end is said that a crash could take back");
                        self.ended.insert(known.number);
                    }
                }
            }
            AgentCall::Pong(_) | AgentCall::Message { .. } => {}
        }
    }

    fn take(&mut self, update: &StatusUpdate) {
        let saved = self.synced.tasks.get(&update.launch);
        assert!(saved.is_some_and(|task| task.updates.contains(update)), "{update:?} is not on the disk");
        let known = self.registry.entry(update.launch).or_default();
        known.accepted = true;
        assert!(update.seq <= known.seq + 1, "an update is missing before {update:?}");
        if update.seq == known.seq + 1 {
            assert!(!known.terminal, "{update:?} after the end");
            known.seq = update.seq;
            known.terminal = update.status.state.is_terminal();
        }
    }

    fn event(&mut self, event: AgentEvent) {
        let (stream, fence, session) = (self.stream, self.fence, self.session);
        self.step(Input::Frame { stream, fence, session, down: Down::Event(event) });
    }

    fn connect(&mut self) {
        self.stream += 1;
        let (stream, fence) = (self.stream, self.fence);
        self.step(Input::StreamOpened { stream });
        let down = Down::Leader { name: String::new(), address: String::new() };
        self.step(Input::Frame { stream, fence, session: Session(0), down });
        self.sync(usize::MAX); // the hello may wait for it
        if std::mem::take(&mut self.list_all) {
            let down = Down::Event(AgentEvent::ListAll);
            self.step(Input::Frame { stream, fence, session: Session(0), down });
        }
        self.session = Session(self.session.0 + 1);
        self.event(AgentEvent::Welcome {
            agent_id: AgentId::new("S1"),
            forget: Vec::new(),
            low_mark: Index(0),
            ping_ms: 1 << 40,
        });
        for n in 1..=LAUNCHES {
            let Some(known) = self.registry.get(&launch(n)) else { continue };
            let (kill, order) = (known.kill && !known.terminal, known.ordered && !known.accepted);
            if order {
                self.order(n, kill);
            } else if kill {
                self.kill(n);
            }
        }
    }

    /// Tasks of a group are launched together, though they may be ordered one by one.
    fn launched(&mut self, n: u64) {
        let others = group(n).into_iter().flat_map(TaskGroup::launches);
        for launch in others.chain([launch(n)]) {
            self.registry.entry(launch).or_default().ordered = true;
        }
    }

    fn order(&mut self, n: u64, killed: bool) {
        self.launched(n);
        let task = key(launch(n));
        let sealed = Sealed::new(task.task_id.as_str().as_bytes());
        self.event(AgentEvent::Run(Box::new(RunOrder {
            launch: launch(n),
            task,
            resources: Resources::none(),
            grace_ms: None,
            user: "".into(),
            killed,
            sealed,
            framework: Sealed::new(*b"f"),
            executor: Some(Box::new(executor(of(n)))),
            group: group(n),
            volumes: Vec::new(),
            starting: false,
            terms: Default::default(),
        })));
    }

    fn kill(&mut self, n: u64) {
        self.launched(n);
        self.registry.entry(launch(n)).or_default().kill = true;
        self.event(AgentEvent::Kill { launch: launch(n), task: key(launch(n)), grace_ms: None });
    }

    fn sync(&mut self, most: usize) {
        let mut last = None;
        for _ in 0..most.min(self.waiting.len()) {
            let Some((ticket, records)) = self.waiting.pop_front() else { break };
            records.iter().for_each(|record| self.synced.apply(record));
            last = Some(ticket);
        }
        if let Some(ticket) = last {
            self.step(Input::Synced { ticket });
        }
    }

    fn work(&mut self, n: u64) {
        let number = launch(n);
        let Some(run) = self.runs.get_mut(&number) else { return };
        if let Some(asked) = run.asked.pop_front()
            && run.end.is_none()
        {
            match asked {
                Asked::Hold => {
                    run.reports.push_back(Input::Started { launch: number, process: process(number) });
                }
                Asked::Release => {
                    assert!(!run.released, "{number} is released twice");
                    run.released = true;
                    run.reports.push_back(Input::Released { launch: number });
                }
                Asked::Abandon if !run.released => run.finish(number, End::NotReleased),
                Asked::Kill if run.released => run.finish(number, End::Signaled(9)),
                Asked::Abandon | Asked::Kill => {}
            }
        }
        if let Some(report) = self.runs.get_mut(&number).and_then(|run| run.reports.pop_front()) {
            self.step(report);
        }
    }

    /// The run of this name that lives.
    fn living(&mut self, e: usize) -> Option<(LaunchNumber, &mut Process)> {
        let found = self
            .runs
            .iter_mut()
            .find(|(_, run)| run.name == EXECUTORS[e] && run.released && run.end.is_none());
        found.map(|(number, run)| (*number, run))
    }

    fn call(&mut self, e: usize, said: ExecutorCall) -> Option<ExecutorAnswer> {
        self.calls += 1;
        self.answers.clear();
        let call = self.calls;
        if matches!(said, ExecutorCall::Subscribe { .. })
            && let Some((_, run)) = self.living(e)
        {
            // Told before the answer is read; should it be refused, nothing is.
            run.stream = Some(call);
            run.inbox.clear(); // of the former stream, which it reads no more
        }
        self.step(Input::Executor { call, from: name(EXECUTORS[e]), said });
        assert_eq!(self.answers.len(), 1, "each call is answered once");
        let answer = self.answers.pop();
        if !matches!(answer, Some(ExecutorAnswer::Subscribed))
            && let Some((_, run)) = self.living(e)
            && run.stream == Some(call)
        {
            run.stream = None;
        }
        answer
    }

    fn subscribe(&mut self, e: usize) {
        let Some((_, run)) = self.living(e) else { return };
        let said = ExecutorCall::Subscribe {
            tasks: run.tasks.keys().filter(|id| !run.acknowledged.contains(*id)).cloned().collect(),
            updates: run.updates.clone(),
        };
        self.call(e, said);
    }

    fn say(&mut self, e: usize, task_id: TaskId, state: TaskState) {
        self.uuids = self.uuids.wrapping_add(1);
        let update = ExecutorUpdate {
            task_id,
            uuid: Uuid([self.uuids; 16]),
            status: Status {
                state,
                source: Source::Executor,
                reason: None,
                message: "".into(),
                wall: WallTime(0),
                sealed: Sealed::default(),
            },
        };
        let Some((_, run)) = self.living(e) else { return };
        run.updates.push(update.clone());
        if run.stream.is_some() {
            self.call(e, ExecutorCall::Update(update));
        }
    }

    fn begin(&mut self, e: usize, task: &[u8]) {
        let id = TaskId::new(std::str::from_utf8(task).unwrap());
        let Some((_, run)) = self.living(e) else { return };
        assert!(run.tasks.insert(id.clone(), false).is_none());
        self.say(e, id, TaskState::Running);
    }

    fn read(&mut self, e: usize) {
        let Some((number, run)) = self.living(e) else { return };
        let Some(event) = run.inbox.pop_front() else { return };
        match event {
            ExecutorEvent::Subscribed { number: told, .. } => assert_eq!(told, number),
            ExecutorEvent::Launch { task } => self.begin(e, &task),
            ExecutorEvent::LaunchGroup { tasks } => tasks.iter().for_each(|task| self.begin(e, task)),
            ExecutorEvent::Kill { task_id, .. } => {
                // A kill of a task that it never had, or that is over, is nothing to it.
                if let Some(over) = run.tasks.get_mut(&task_id)
                    && !std::mem::replace(over, true)
                {
                    self.say(e, task_id, TaskState::Killed);
                }
            }
            ExecutorEvent::Acknowledged { task_id, uuid } => {
                run.updates.retain(|update| update.uuid != uuid);
                run.acknowledged.insert(task_id);
            }
            ExecutorEvent::Message(_) => {}
            ExecutorEvent::Shutdown => run.finish(number, End::Exited(0)),
        }
    }

    fn finish(&mut self, e: usize) {
        let Some((_, run)) = self.living(e) else { return };
        let Some((id, over)) = run.tasks.iter_mut().find(|(_, over)| !**over) else { return };
        *over = true;
        let id = id.clone();
        self.say(e, id, TaskState::Finished);
    }

    fn crash(&mut self, kept: usize) {
        for (_, records) in self.waiting.drain(..).take(kept) {
            records.iter().for_each(|record| self.synced.apply(record));
        }
        self.node = Node::recover(config(), self.synced.clone());
        for run in self.runs.values_mut() {
            run.asked.clear();
            run.reports.clear();
            run.stream = None;
            run.inbox.clear();
            if !run.released && run.end.is_none() {
                run.end = Some(End::NotReleased);
            }
        }
        let recorded: Vec<LaunchNumber> = self.node.processes().map(|(number, _)| number).collect();
        for number in recorded {
            let end = self.runs.get(&number).and_then(|run| run.end.clone());
            self.step(match end {
                Some(end) => Input::Ended { launch: number, end },
                None => Input::Released { launch: number },
            });
        }
        self.step(Input::Begin);
        self.connect();
    }

    fn obey(&mut self, op: &Op) {
        match *op {
            Op::Run(n) => self.order(n, false),
            Op::Kill(n) => self.kill(n),
            Op::Confirm(n) => self.confirm(n),
            Op::Sync(most) => self.sync(most),
            Op::Work(n) => self.work(n),
            Op::Subscribe(e) => self.subscribe(e),
            Op::Break(e) => {
                if let Some((_, run)) = self.living(e)
                    && let Some(stream) = run.stream.take()
                {
                    run.inbox.clear();
                    self.step(Input::ExecutorGone { stream });
                }
            }
            Op::Read(e, many) => (0..many).for_each(|_| self.read(e)),
            Op::Finish(e) => self.finish(e),
            Op::Repeat(e) => {
                if let Some((_, run)) = self.living(e)
                    && run.stream.is_some()
                    && let Some(update) = run.updates.first().cloned()
                {
                    self.call(e, ExecutorCall::Update(update));
                }
            }
            Op::Die(e) => {
                if let Some((number, run)) = self.living(e) {
                    run.finish(number, End::Exited(1));
                }
            }
            Op::Shutdown(e) => self.shut_down(e),
            Op::Crash(kept) => self.crash(kept),
            Op::Reconnect => {
                self.step(Input::StreamClosed { stream: self.stream });
                self.connect();
            }
            Op::Wait(ms) => {
                self.now_ms += ms;
                self.step(Input::Wake);
            }
        }
    }

    fn confirm(&mut self, n: u64) {
        let Some(known) = self.registry.get(&launch(n)).filter(|known| known.seq > 0) else { return };
        let seq = known.seq;
        self.event(AgentEvent::Confirm { launch: launch(n), seq });
    }

    fn shut_down(&mut self, e: usize) {
        let name = name(EXECUTORS[e]);
        let (framework_id, executor_id) = (name.framework_id, name.executor_id);
        self.event(AgentEvent::ShutdownExecutor { framework_id, executor_id });
    }

    /// All works from here: everything comes to its end.
    fn heal(&mut self) {
        self.obey(&Op::Reconnect);
        for round in 0..60 {
            self.sync(usize::MAX);
            for n in 1..=LAUNCHES {
                self.work(n);
            }
            for e in 0..EXECUTORS.len() {
                if self.living(e).is_some_and(|(_, run)| run.stream.is_none()) {
                    self.subscribe(e);
                }
                (0..8).for_each(|_| self.read(e));
                self.finish(e);
            }
            // By then all tasks are over, and their executors are of no more use.
            if round > 40 {
                (0..EXECUTORS.len()).for_each(|e| self.shut_down(e));
            }
            self.obey(&Op::Wait(100));
        }
        for (launch, known) in &self.registry {
            assert!(known.terminal, "{launch} came to no end: {known:?}");
        }
        for n in 1..=LAUNCHES {
            self.confirm(n);
        }
        for (number, run) in &self.runs {
            assert!(run.end.is_some() || !run.released, "{number} lives on");
        }
        let left: Vec<LaunchNumber> = self.node.saved().executors.runs.keys().copied().collect();
        for number in left {
            assert!(self.ended.contains(&number), "the end of {number} was not said");
            self.event(AgentEvent::ConfirmExecutor(number));
        }
        self.sync(usize::MAX);
        assert!(self.node.saved().tasks.is_empty(), "kept: {:?}", self.node.saved().tasks);
        assert!(self.node.saved().executors.is_empty(), "kept: {:?}", self.node.saved().executors);
        assert!(self.node.saved().groups.is_empty(), "kept: {:?}", self.node.saved().groups);
        assert_eq!(self.node.saved(), &self.synced, "the machine is the fold of its records");
    }
}

impl Process {
    fn finish(&mut self, number: LaunchNumber, end: End) {
        if self.end.is_none() {
            self.end = Some(end.clone());
            self.reports.push_back(Input::Ended { launch: number, end });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn each_task_is_sent_at_most_once_and_comes_to_a_confirmed_end(ops in prop::collection::vec(op(), 0..80)) {
        let mut sim = Sim::new();
        for op in &ops {
            sim.obey(op);
        }
        sim.heal();
    }
}
