//! The laws under random interleavings: whatever is delivered twice, delayed, killed, cut off or crashed, each
//! launch is released at most once, nothing is said that a crash could take back, and each launch that a leader
//! ordered comes to a terminal status that is repeated until it is confirmed.

use crate::world::{config, key, process};
use muster_model::{
    AgentCall, AgentEvent, AgentId, Fence, Hello, Index, LaunchNumber, Resources, Sealed, Session, Term,
    event::RunOrder,
};
use muster_node::{Down, Effect, End, Input, Node, Record, Saved, Signal};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const LAUNCHES: u64 = 3;

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
    /// A released command ends by itself.
    End(u64),
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
        3 => n().prop_map(Op::End),
        2 => (0..4usize).prop_map(Op::Crash),
        2 => (0..2u64).prop_map(Op::Reconnect),
        2 => (0..20_000u64).prop_map(Op::Wait),
    ]
}

fn launch(n: u64) -> LaunchNumber {
    LaunchNumber { incarnation: 1, index: Index(n), n: 0 }
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
    fence: Fence,
    session: Session,
    stream: u64,
    dialled: bool,
    /// The present leader was said hello to.
    greeted: bool,
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
            fence: Fence { incarnation: 1, term: Term(1) },
            session: Session(0),
            stream: 0,
            dialled: false,
            greeted: false,
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
            // No task here has a check, is in a built-in executor or uses a volume.
            Effect::Probe(_) | Effect::RemoveExit { .. } => panic!("nothing asks for it"),
            Effect::Mount { .. } | Effect::KeepVolumes { .. } => {} // no task here uses one
            Effect::Checkpoint { ticket, records } => self.waiting.push_back((ticket, records)),
            Effect::Send { stream, session, call } => {
                assert_eq!(stream, self.stream);
                match call {
                    AgentCall::Hello(hello, ..) => self.hello(&hello),
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
                let known = &self.synced.tasks[&launch];
                assert!(known.process.is_some(), "{launch} is released before its process is on the disk");
                ask(launch, Asked::Release);
                self.supervisors.entry(launch).or_default().release_asked = true;
            }
            Effect::Abandon { launch } => ask(launch, Asked::Abandon),
            Effect::Signal { launch, signal: Signal::Kill } => ask(launch, Asked::Kill),
            Effect::Signal { .. } | Effect::Remove { .. } => {}
            Effect::StartExecutor(_)
            | Effect::Resize { .. }
            | Effect::Answer { .. }
            | Effect::Tell { .. }
            | Effect::HangUp { .. } => {
                unreachable!("no executor was ordered")
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
            AgentCall::Executors { executors, .. } => assert!(executors.is_empty()),
            AgentCall::Pong(_) | AgentCall::Hello(..) | AgentCall::Message { .. } => {}
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

    fn order(&mut self, n: u64, killed: bool) {
        let known = self.registry.entry(launch(n)).or_default();
        known.ordered = true;
        known.kill |= killed;
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
            executor: None,
            group: None,
            volumes: Vec::new(),
            starting: n.is_multiple_of(2),
            terms: Default::default(),
        })));
    }

    fn kill(&mut self, n: u64) {
        let known = self.registry.entry(launch(n)).or_default();
        known.ordered = true;
        known.kill = true;
        self.doom(n);
        self.event(AgentEvent::Kill { launch: launch(n), task: key(launch(n)), grace_ms: None });
    }

    fn doom(&mut self, n: u64) {
        if !self.supervisors.get(&launch(n)).is_some_and(|supervisor| supervisor.release_asked) {
            self.doomed.insert(launch(n));
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

    fn finish(&mut self, n: u64) {
        if let Some(supervisor) = self.supervisors.get_mut(&launch(n)).filter(|one| one.released) {
            supervisor.finish(launch(n), End::Exited(0));
        }
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
            Op::End(n) => self.finish(n),
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
        for _ in 0..50 {
            self.sync(usize::MAX);
            for n in 1..=LAUNCHES {
                self.work(n);
                self.report(n);
                self.finish(n);
            }
            self.obey(&Op::Wait(100));
        }
        for (launch, known) in &self.registry {
            assert!(known.terminal, "{launch} came to no end: {known:?}");
        }
        for n in 1..=LAUNCHES {
            self.confirm(n);
        }
        self.sync(usize::MAX);
        assert!(self.node.saved().tasks.is_empty(), "kept: {:?}", self.node.saved().tasks);
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
