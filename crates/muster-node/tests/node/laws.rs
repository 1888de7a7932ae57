//! The laws under random interleavings: whatever is delivered twice, delayed, killed, cut off or crashed, each
//! launch is released at most once, nothing is said that a crash could take back, and each launch that a leader
//! ordered comes to a terminal status that is repeated until it is confirmed. Of a group in the built-in executor none
//! is let go before all are held, one that does not end well ends the others, and the executor ends with the last. A
//! task is looked at only while it runs, one probe of each of its checks at a time.

use crate::world::{config, executor, key, process};
use muster_model::{
    AgentCall, AgentEvent, AgentId, CheckKind, CheckResult, CheckTerms, ExecutorOrder, Fence, HealthTerms,
    Hello, Index, LaunchNumber, LaunchSum, Resources, Sealed, Session, TaskGroup, TaskState, TaskTerms, Term,
    event::RunOrder,
};
use muster_node::{Down, Effect, End, Input, Node, Probe, Record, Saved, Signal};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The last two are a group.
const LAUNCHES: u64 = 5;

#[derive(Debug, Clone)]
enum Op {
    Run(u64),
    RunKilled(u64),
    Kill(u64),
    Confirm(u64),
    /// The disk syncs this many of the checkpoints that wait.
    Sync(usize),
    /// The supervisor of a launch does the next of what it was asked.
    Work(u64),
    /// The next report of a launch's supervisor arrives.
    Report(u64),
    /// A released command ends by itself, well or not.
    End(u64, bool),
    /// The first probe of a launch comes to its end, and finds it well or not.
    Probed(u64, bool),
    /// The agent dies; of the checkpoints that wait, this many are on the disk all the same.
    Crash(usize),
    /// The stream breaks; the next leader is of this much a later term.
    Reconnect(u64),
    /// Time passes.
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let n = || 1..=LAUNCHES;
    prop_oneof![
        4 => n().prop_map(Op::Run),
        1 => n().prop_map(Op::RunKilled),
        2 => n().prop_map(Op::Kill),
        2 => n().prop_map(Op::Confirm),
        8 => (1..4usize).prop_map(Op::Sync),
        8 => n().prop_map(Op::Work),
        8 => n().prop_map(Op::Report),
        3 => (n(), any::<bool>()).prop_map(|(n, well)| Op::End(n, well)),
        4 => (n(), any::<bool>()).prop_map(|(n, well)| Op::Probed(n, well)),
        2 => (0..4usize).prop_map(Op::Crash),
        2 => (0..2u64).prop_map(Op::Reconnect),
        2 => (0..20_000u64).prop_map(Op::Wait),
    ]
}

fn launch(n: u64) -> LaunchNumber {
    let (index, n) = if n < LAUNCHES { (n, 0) } else { (n - 1, 1) };
    LaunchNumber { incarnation: 1, index: Index(index), n }
}

fn group(n: u64) -> Option<TaskGroup> {
    (n >= LAUNCHES - 1).then(|| TaskGroup { first: launch(LAUNCHES - 1), size: 2 })
}

/// Whoever is launched together with one, itself too.
fn together(launch: LaunchNumber) -> Vec<LaunchNumber> {
    let all = group(LAUNCHES).filter(|group| group.launches().any(|it| it == launch));
    all.map_or(vec![launch], |group| group.launches().collect())
}

/// The third has both kinds of checks and not much time, the last a health check.
fn terms(n: u64) -> TaskTerms {
    let check = CheckTerms { kind: CheckKind::Command, delay_ms: 50, interval_ms: 100, timeout_ms: 1_000 };
    let health = HealthTerms { check, grace_ms: 0, failures_max: 2 };
    match n {
        3 => TaskTerms {
            completion_ms: Some(15_000),
            health: Some(health),
            check: Some(check),
            ..TaskTerms::default()
        },
        LAUNCHES => TaskTerms { health: Some(health), tells_killing: true, ..TaskTerms::default() },
        _ => TaskTerms::default(),
    }
}

/// A supervisor and its command, as the operating system has them.
#[derive(Debug, Default)]
struct Supervisor {
    /// Asked, not done.
    asked: VecDeque<Asked>,
    /// To be reported to the agent that lives.
    reports: VecDeque<Input>,
    held: bool,
    release_asked: bool,
    released: bool,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Asked {
    Hold,
    Release,
    Abandon,
    Kill,
}

/// What the registry knows of a launch.
#[derive(Debug, Default)]
struct Known {
    ordered: bool,
    kill: bool,
    accepted: bool,
    /// The last update taken, in order.
    seq: u32,
    terminal: bool,
    /// What it came to.
    state: Option<TaskState>,
    confirmed: u32,
}

struct Sim {
    node: Node,
    now_ms: u64,
    synced: Saved,
    waiting: VecDeque<(u64, Vec<Record>)>,
    supervisors: BTreeMap<LaunchNumber, Supervisor>,
    /// How often each launch's command was let go.
    releases: BTreeMap<LaunchNumber, u32>,
    /// A kill was delivered before the release was asked for: it must never come.
    doomed: BTreeSet<LaunchNumber>,
    registry: BTreeMap<LaunchNumber, Known>,
    /// Those that run.
    probes: Vec<Probe>,
    /// Runs of the built-in executor that were said to have ended.
    ended: BTreeSet<LaunchNumber>,
    fence: Fence,
    session: Session,
    stream: u64,
    dialled: bool,
    /// The present leader was said hello to.
    greeted: bool,
    /// What the agent said without listing it is not what the leader knows.
    list_all: bool,
}

impl Sim {
    fn new() -> Self {
        let mut sim = Self {
            node: Node::recover(config(), Saved::default()),
            now_ms: 0,
            synced: Saved::default(),
            waiting: VecDeque::new(),
            supervisors: BTreeMap::new(),
            releases: BTreeMap::new(),
            doomed: BTreeSet::new(),
            registry: BTreeMap::new(),
            probes: Vec::new(),
            ended: BTreeSet::new(),
            fence: Fence { incarnation: 1, term: Term(1) },
            session: Session(0),
            stream: 0,
            dialled: false,
            greeted: false,
            list_all: false,
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
        let mut ask = |launch, asked| self.supervisors.entry(launch).or_default().asked.push_back(asked);
        match effect {
            Effect::Probe(probe) => {
                assert!(self.supervisors[&probe.launch].released, "{} does not run", probe.launch);
                let is_same = |it: &Probe| (it.launch, it.which) == (probe.launch, probe.which);
                assert!(!self.probes.iter().any(is_same), "{probe:?} runs already");
                self.probes.push(*probe);
                assert!(self.probes.len() <= config().probes_max, "{:?}", self.probes);
            }
            Effect::Mount { .. } | Effect::KeepVolumes { .. } => {} // no task here uses one
            Effect::Checkpoint { ticket, records } => self.waiting.push_back((ticket, records)),
            Effect::Send { stream, session, call } => {
                assert_eq!(stream, self.stream);
                match call {
                    AgentCall::Hello(hello, ..) => self.hello(&hello),
                    AgentCall::HelloAsKnown(_, living, _) => self.hello_as_known(living),
                    call => {
                        assert_eq!(session, self.session);
                        self.hear(call);
                    }
                }
            }
            Effect::Dial | Effect::Redial { .. } => self.dialled = true,
            Effect::Start(start) => {
                // The former attempt of an agent that died was never released, and ended by itself.
                let former = self.supervisors.insert(start.launch, Supervisor::default());
                assert!(
                    former.is_none_or(|former| !former.released),
                    "{} starts after a release",
                    start.launch
                );
                self.supervisors.entry(start.launch).or_default().asked.push_back(Asked::Hold);
            }
            Effect::Release { launch } => {
                for launch in together(launch) {
                    let known = &self.synced.tasks[&launch];
                    assert!(known.process.is_some(), "before the process of {launch} is on the disk");
                }
                ask(launch, Asked::Release);
                self.supervisors.entry(launch).or_default().release_asked = true;
            }
            Effect::Abandon { launch } => ask(launch, Asked::Abandon),
            Effect::Signal { launch, signal } => {
                let known = self.synced.tasks.get(&launch).and_then(|task| task.kill_grace_ms);
                assert!(known.is_some(), "{launch} is signalled, and a crash would forget why");
                if signal == Signal::Kill {
                    ask(launch, Asked::Kill);
                }
            }
            Effect::Remove { .. } | Effect::RemoveExit { .. } => {}
            Effect::Resize { .. } => {}
            Effect::StartExecutor(_)
            | Effect::Answer { .. }
            | Effect::Tell { .. }
            | Effect::HangUp { .. } => {
                unreachable!("no executor with a process was ordered")
            }
            Effect::Stop(why) => panic!("stopped: {why}"),
        }
    }

    fn durable(&self, launch: LaunchNumber) {
        assert!(self.synced.answered.contains(&launch), "{launch} is spoken of, but could be forgotten");
    }

    fn hello(&mut self, hello: &Hello) {
        self.greeted = true;
        for task in &hello.tasks {
            self.durable(task.launch);
            self.registry.entry(task.launch).or_default().accepted = true;
            for update in &task.updates {
                self.take(update);
            }
        }
        for (launch, known) in &self.registry {
            let listed = hello.tasks.iter().any(|task| task.launch == *launch);
            assert!(listed || !known.accepted || known.terminal, "{launch} was accepted and is lost");
        }
    }

    /// Taken for what it lists if that is what is known to be there.
    fn hello_as_known(&mut self, living: LaunchSum) {
        let mut known = LaunchSum::default();
        let accepted = self.registry.iter().filter(|(_, it)| it.accepted && !it.terminal);
        accepted.for_each(|(launch, _)| known.add(*launch));
        self.greeted = known == living;
        self.list_all = !self.greeted;
    }

    fn hear(&mut self, call: AgentCall) {
        match call {
            AgentCall::Accepted(launches) => {
                for launch in launches {
                    self.durable(launch);
                    self.registry.entry(launch).or_default().accepted = true;
                }
            }
            AgentCall::Status(update) => self.take(&update),
            AgentCall::Ended(launch) => {
                assert!(self.registry[&launch].terminal, "{launch} ended without a word")
            }
            AgentCall::Executors { executors, .. } => {
                for known in executors.iter().filter(|known| known.ended.is_some()) {
                    let is_over = |launch| {
                        let Some(one) = self.supervisors.get(&launch) else { return true };
                        !one.released || one.end.is_some()
                    };
                    let mut all = group(LAUNCHES).into_iter().flat_map(TaskGroup::launches);
                    assert!(all.all(is_over), "the executor ends before its tasks");
                    self.ended.insert(known.number);
                }
            }
            AgentCall::Hello(..) | AgentCall::HelloAsKnown(..) => unreachable!("they have no session"),
            AgentCall::Pong(_) | AgentCall::Message { .. } => {}
        }
    }

    fn take(&mut self, update: &muster_model::StatusUpdate) {
        self.durable(update.launch);
        let saved = self.synced.tasks.get(&update.launch);
        assert!(saved.is_some_and(|task| task.updates.contains(update)), "{update:?} is not on the disk");
        let known = self.registry.entry(update.launch).or_default();
        known.accepted = true;
        assert!(update.seq <= known.seq + 1, "an update is missing before {update:?}");
        if update.seq == known.seq + 1 {
            assert!(!known.terminal, "{update:?} after the end");
            known.seq = update.seq;
            known.terminal = update.status.state.is_terminal();
            known.state = Some(update.status.state);
        }
    }

    fn event(&mut self, event: AgentEvent) {
        let (stream, fence, session) = (self.stream, self.fence, self.session);
        self.step(Input::Frame { stream, fence, session, down: Down::Event(event) });
    }

    /// A new stream, a leader, its welcome, and the orders and kills that are due.
    fn connect(&mut self) {
        self.dialled = false;
        self.greeted = false;
        self.stream += 1;
        let (stream, fence) = (self.stream, self.fence);
        self.step(Input::StreamOpened { stream });
        let down = Down::Leader { name: String::new(), address: String::new() };
        self.step(Input::Frame { stream, fence, session: Session(0), down });
        if !self.greeted {
            self.sync(usize::MAX); // the hello waits for the fence
        }
        if std::mem::take(&mut self.list_all) {
            let down = Down::Event(AgentEvent::ListAll);
            self.step(Input::Frame { stream, fence, session: Session(0), down });
        }
        assert!(self.greeted);
        self.session = Session(self.session.0 + 1);
        let low_mark = Index(0);
        self.event(AgentEvent::Welcome {
            agent_id: AgentId::new("S1"),
            forget: Vec::new(),
            low_mark,
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

    /// Tasks of a group are launched together, though they are ordered one by one.
    fn launched(&mut self, n: u64) -> &mut Known {
        for launch in together(launch(n)) {
            self.registry.entry(launch).or_default().ordered = true;
        }
        self.registry.entry(launch(n)).or_default()
    }

    fn order(&mut self, n: u64, killed: bool) {
        self.launched(n).kill |= killed;
        if killed {
            self.doom(n);
        }
        self.event(AgentEvent::Run(Box::new(RunOrder {
            launch: launch(n),
            task: key(launch(n)),
            resources: Resources::none(),
            grace_ms: Some(100),
            user: "".into(),
            killed,
            sealed: Sealed::default(),
            framework: Sealed::new([u8::from(killed)]),
            executor: group(n).map(|_| Box::new(ExecutorOrder { built_in: true, ..executor("pod") })),
            group: group(n),
            volumes: Vec::new(),
            starting: n.is_multiple_of(2),
            terms: terms(n),
        })));
    }

    fn kill(&mut self, n: u64) {
        self.launched(n).kill = true;
        self.doom(n);
        self.event(AgentEvent::Kill { launch: launch(n), task: key(launch(n)), grace_ms: None });
    }

    fn doom(&mut self, n: u64) {
        if !self.supervisors.get(&launch(n)).is_some_and(|supervisor| supervisor.release_asked) {
            self.doomed.extend(together(launch(n)));
        }
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
        let launch = launch(n);
        let Some(supervisor) = self.supervisors.get_mut(&launch) else { return };
        let Some(asked) = supervisor.asked.pop_front() else { return };
        match asked {
            _ if supervisor.end.is_some() => {}
            Asked::Hold => {
                supervisor.held = true;
                supervisor.reports.push_back(Input::Started { launch, process: process(launch) });
            }
            Asked::Release => {
                assert!(!self.doomed.contains(&launch), "{launch} is released after its kill");
                supervisor.released = true;
                supervisor.reports.push_back(Input::Released { launch });
                *self.releases.entry(launch).or_default() += 1;
            }
            Asked::Abandon => supervisor.finish(launch, End::NotReleased),
            Asked::Kill if supervisor.released => supervisor.finish(launch, End::Signaled(9)),
            Asked::Kill => {}
        }
    }

    fn report(&mut self, n: u64) {
        if let Some(report) = self.supervisors.get_mut(&launch(n)).and_then(|one| one.reports.pop_front()) {
            self.step(report);
        }
    }

    fn finish(&mut self, n: u64, well: bool) {
        if let Some(supervisor) = self.supervisors.get_mut(&launch(n)).filter(|one| one.released) {
            supervisor.finish(launch(n), End::Exited(i32::from(!well)));
        }
    }

    fn probed(&mut self, n: u64, well: bool) {
        let Some(at) = self.probes.iter().position(|probe| probe.launch == launch(n)) else { return };
        let Probe { launch, which, number, .. } = self.probes.remove(at);
        let result = Ok(CheckResult::Exit(i32::from(!well)));
        self.step(Input::Probed { launch, which, number, result });
    }

    fn confirm(&mut self, n: u64) {
        let Some(known) = self.registry.get_mut(&launch(n)).filter(|known| known.seq > 0) else { return };
        known.confirmed = known.seq;
        let seq = known.seq;
        self.event(AgentEvent::Confirm { launch: launch(n), seq });
    }

    fn crash(&mut self, kept: usize) {
        for (_, records) in self.waiting.drain(..).take(kept) {
            records.iter().for_each(|record| self.synced.apply(record));
        }
        self.node = Node::recover(config(), self.synced.clone());
        self.probes.clear(); // they ended with it
        let mut facts = Vec::new();
        for (launch, supervisor) in &mut self.supervisors {
            supervisor.asked.clear();
            supervisor.reports.clear();
            if !supervisor.released && supervisor.end.is_none() {
                supervisor.end = Some(End::NotReleased); // its socket closed
            }
            facts.push((*launch, supervisor.end.clone()));
        }
        let processes: Vec<LaunchNumber> = self.node.processes().map(|(launch, _)| launch).collect();
        for launch in processes {
            let end = facts.iter().find(|(other, _)| *other == launch).and_then(|(_, end)| end.clone());
            self.step(match end {
                Some(end) => Input::Ended { launch, end },
                None => Input::Released { launch },
            });
        }
        self.step(Input::Begin);
        self.connect();
    }

    fn obey(&mut self, op: &Op) {
        match *op {
            Op::Run(n) => {
                // A leader orders until the order is accepted; a late duplicate may come at any time.
                self.order(n, false);
            }
            Op::RunKilled(n) => self.order(n, true),
            Op::Kill(n) => self.kill(n),
            Op::Confirm(n) => self.confirm(n),
            Op::Sync(most) => self.sync(most),
            Op::Work(n) => self.work(n),
            Op::Report(n) => self.report(n),
            Op::End(n, well) => self.finish(n, well),
            Op::Probed(n, well) => self.probed(n, well),
            Op::Crash(kept) => self.crash(kept),
            Op::Reconnect(later) => {
                self.fence.term.0 += later;
                self.step(Input::StreamClosed { stream: self.stream });
                assert!(self.dialled);
                self.connect();
            }
            Op::Wait(ms) => {
                self.now_ms += ms;
                self.step(Input::Wake);
            }
        }
        assert!(self.releases.values().all(|count| *count <= 1), "released twice: {:?}", self.releases);
    }

    /// All works from here: everything comes to its end.
    fn heal(&mut self) {
        self.obey(&Op::Reconnect(0));
        for _ in 0..80 {
            self.sync(usize::MAX);
            for n in 1..=LAUNCHES {
                self.work(n);
                self.report(n);
                self.probed(n, true);
                // One whose group has to end is ended.
                let failed = |it: &LaunchNumber| {
                    let state = self.registry.get(it).filter(|known| known.terminal).and_then(|it| it.state);
                    state.is_some_and(|state| state != TaskState::Finished)
                };
                if !together(launch(n)).iter().any(failed) {
                    self.finish(n, true);
                }
            }
            self.obey(&Op::Wait(100));
        }
        for (launch, known) in &self.registry {
            assert!(known.terminal, "{launch} came to no end: {known:?}");
        }
        for n in 1..=LAUNCHES {
            self.confirm(n);
        }
        let left: Vec<LaunchNumber> = self.node.saved().executors.runs.keys().copied().collect();
        for number in left {
            assert!(self.ended.contains(&number), "the end of {number} was not said");
            self.event(AgentEvent::ConfirmExecutor(number));
        }
        self.sync(usize::MAX);
        assert!(self.node.saved().tasks.is_empty(), "kept: {:?}", self.node.saved().tasks);
        assert!(self.node.saved().executors.is_empty(), "kept: {:?}", self.node.saved().executors);
        assert!(self.node.saved().watched.is_empty(), "kept: {:?}", self.node.saved().watched);
        assert!(self.node.saved().groups.is_empty(), "kept: {:?}", self.node.saved().groups);
        assert_eq!(self.node.saved(), &self.synced, "the machine is the fold of its records");
    }
}

impl Supervisor {
    fn finish(&mut self, launch: LaunchNumber, end: End) {
        if self.end.is_none() {
            self.end = Some(end.clone());
            self.reports.push_back(Input::Ended { launch, end });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn each_launch_is_released_at_most_once_and_comes_to_a_confirmed_end(ops in prop::collection::vec(op(), 0..60)) {
        let mut sim = Sim::new();
        for op in &ops {
            sim.obey(op);
        }
        sim.heal();
    }
}
