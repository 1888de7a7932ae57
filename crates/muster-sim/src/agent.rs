//! An agent: the real node machine over an imitated disk and imitated processes.

use crate::{
    dice::{Dice, token},
    executor::Executor,
    fault::{Fault, Step, What, When},
    forge::{Heard, Present},
    plan::{Law, Plan, Planted},
    world::{Client, DownFrame, Event, World},
};
use muster_model::{
    AgentEvent as Word, AgentId, AgentInfo, Call, CheckKind, CheckResult, CheckTerms, Event as Frame, Fence,
    HealthTerms, LaunchNumber, MachineId, Resources, RunOrder, Sealed, Session, TaskId, TaskState, TaskTerms,
};
use muster_node::{Down, Effect, End, Input, Node, NodeConfig, Process, Record, Saved, Signal};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Every task of the simulation takes one of an agent's cpus.
const CPUS: u64 = 4;

#[derive(Debug, Clone)]
pub(crate) enum AgentEvent {
    Wake(u64),
    /// The disk syncs what waits, up to a ticket. Void after a crash.
    Sync(u64, u64),
    /// A supervisor reports. Void after a crash.
    Report(u64, Box<Input>),
    /// A released command ends by itself.
    End(LaunchNumber, i32),
    /// An executor reads what it was told, or looks for its agent.
    ExecutorActs(LaunchNumber),
    /// An executor looks whether it has something to do.
    ExecutorIdle(LaunchNumber),
    /// A task in an executor ends by itself.
    TaskOver(LaunchNumber, TaskId),
    Dial(u64),
    /// The agent starts again after a crash.
    Boot(u64),
    /// It is no longer cut off.
    Resume,
}

/// A supervisor with its command.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) released: bool,
    pub(crate) end: Option<End>,
    /// It ends only when it is killed.
    is_endless: bool,
    /// It ends with a status that is none of success.
    fails: bool,
}

#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) n: usize,
    pub(crate) dice: Dice,
    planted: Option<Planted>,
    pub(crate) node: Option<Node>,
    /// Counts boots: what was on its way before a crash is void.
    pub(crate) life: u64,
    synced: Saved,
    waiting: VecDeque<(u64, Vec<Record>)>,
    /// The disk syncs nothing before this.
    stall_until: u64,
    pub(crate) processes: BTreeMap<LaunchNumber, Running>,
    /// What executors remember, by the number of their process.
    pub(crate) executors: BTreeMap<LaunchNumber, Executor>,
    /// Calls of executors so far, and the SUBSCRIBE that is being asked.
    pub(crate) calls: u64,
    pub(crate) calling: Option<(u64, LaunchNumber)>,
    /// Every launch that an executor was handed.
    pub(crate) handed: BTreeSet<LaunchNumber>,
    /// Every launch whose command was let go.
    started: BTreeSet<LaunchNumber>,
    /// The newest session it was welcomed in.
    session: Session,
    stream: Option<u64>,
    /// Whether its machine knows of the stream.
    is_open: bool,
    is_isolated: bool,
    wants_stream: bool,
    wake_at: Option<u64>,
    /// Operators asked that it be marked gone.
    is_condemned: bool,
    /// Its recovery is over.
    begun: bool,
}

fn config(n: usize, life: u64) -> NodeConfig {
    NodeConfig {
        info: AgentInfo {
            machine_id: MachineId::new(format!("machine-{n}")),
            hostname: format!("host-{n}").into(),
            port: 5051,
            resources: Resources::of(1_000 * CPUS, 4_000),
            attributes: Vec::new(),
        },
        sealed: Sealed::default(),
        token: token(0, n, life),
        grace_ms: 1_000,
        repeat_ms: 3_000,
        repeat_ms_max: 20_000,
        welcome_ms: 3_000,
        executor_registration_ms: 10_000,
        executor_reregistration_ms: 5_000,
        executor_grace_ms: 1_000,
        probes_max: 4,
        // Nobody here reads more of a status than its state.
        seal: |_| Sealed::default(),
        tasks_max: 1_000,
        // Few, so that low marks are asked for.
        answered_max: 20,
        wall_at_zero_ms: 0,
    }
}

fn process(launch: LaunchNumber) -> Process {
    Process { pid: launch.index.0 as u32 + 1, start_time: 1, boot_id: "boot".into() }
}

/// What a real shell reads of an order's sealed parts.
fn read(order: &mut RunOrder) {
    if let Some(executor) = &mut order.executor {
        executor.built_in = *executor.sealed == *BUILT_IN;
    }
    let text = String::from_utf8_lossy(&order.sealed);
    let check = CheckTerms { kind: CheckKind::Command, delay_ms: 100, interval_ms: 500, timeout_ms: 100 };
    match text.split_once(':').map_or(&*text, |(kind, _)| kind) {
        "watched" => {
            let health = HealthTerms { check, grace_ms: 300, failures_max: 2 };
            order.terms = TaskTerms { health: Some(health), check: Some(check), ..TaskTerms::default() };
        }
        "hurried" => order.terms = TaskTerms { completion_ms: Some(1_000), ..TaskTerms::default() },
        _ => {}
    }
}

/// The description of the executor that agents have built in.
pub(crate) const BUILT_IN: &[u8; 8] = b"built-in";

impl Agent {
    pub(crate) fn new(n: usize, plan: &Plan) -> Self {
        Self {
            n,
            dice: Dice::of(plan.seed, "agent", n),
            planted: plan.planted,
            node: None,
            life: 0,
            synced: Saved::default(),
            waiting: VecDeque::new(),
            stall_until: 0,
            processes: BTreeMap::new(),
            executors: BTreeMap::new(),
            calls: 0,
            calling: None,
            handed: BTreeSet::new(),
            started: BTreeSet::new(),
            session: Session(0),
            stream: None,
            is_open: false,
            is_isolated: false,
            wants_stream: false,
            wake_at: None,
            is_condemned: false,
            begun: false,
        }
    }

    /// Starts from what is on the disk.
    pub(crate) fn boot(&mut self, world: &mut World) {
        self.begun = false;
        let node = Node::recover(config(self.n, self.life), self.synced.clone());
        let recorded: Vec<LaunchNumber> = node.processes().map(|(launch, _)| launch).collect();
        self.node = Some(node);
        let life = self.life;
        for launch in recorded {
            let fact = match self.processes.get(&launch).cloned() {
                Some(Running { end: Some(end), .. }) => Input::Ended { launch, end },
                Some(Running { released: true, .. }) => Input::Released { launch },
                _ => Input::Ended { launch, end: End::NotReleased },
            };
            self.step(world, fact);
            if self.life != life {
                return; // killed while it recovered
            }
        }
        self.step(world, Input::Begin);
    }

    /// SIGKILL: of what was not synced a part is lost, held commands end, running ones go on.
    pub(crate) fn crash(&mut self, world: &mut World, fault: Fault) {
        if self.node.take().is_none() {
            return;
        }
        let mut dice = fault.dice();
        world.counts.crashes += 1;
        self.life += 1;
        let kept = dice.between(0, self.waiting.len() as u64 + 1);
        for (_, records) in std::mem::take(&mut self.waiting).into_iter().take(kept as usize) {
            records.iter().for_each(|record| self.synced.apply(record));
        }
        self.processes.values_mut().filter(|it| !it.released && it.end.is_none()).for_each(|it| {
            it.end = Some(End::NotReleased);
        });
        for (number, executor) in &mut self.executors {
            executor.cut_off();
            let at = world.now_ms + dice.between(50, 2_000);
            world.at(at, Event::Agent(self.n, AgentEvent::ExecutorActs(*number)));
        }
        self.wants_stream = false;
        self.wake_at = None;
        self.session = Session(0);
        if let Some(stream) = self.stream.take() {
            world.give_up(stream);
        }
        let at = world.now_ms + dice.between(1, 3_000);
        world.at(at, Event::Agent(self.n, AgentEvent::Boot(self.life)));
    }

    /// Comes back with an empty disk; whatever ran was ended before.
    pub(crate) fn wipe(&mut self, world: &mut World, fault: Fault) {
        self.crash(world, fault);
        self.synced = Saved::default();
        self.processes.values_mut().for_each(|it| {
            it.end.get_or_insert(End::Unknown);
        });
    }

    /// The id that it was given, if it was.
    pub(crate) fn id(&self) -> Option<AgentId> {
        self.node.as_ref()?.saved().agent_id.clone()
    }

    /// Operators say that it never comes back, if it has an id; that.
    pub(crate) fn condemn(&mut self) -> Option<AgentId> {
        let id = self.id()?;
        self.is_condemned = true;
        Some(id)
    }

    /// Cut off from all masters for a while; its tasks go on.
    pub(crate) fn isolate(&mut self, world: &mut World, ms: u64) {
        if self.is_isolated {
            return;
        }
        self.is_isolated = true;
        world.at(world.now_ms + ms, Event::Agent(self.n, AgentEvent::Resume));
        if let Some(stream) = self.stream {
            world.give_up(stream);
            self.broken(world, stream);
        }
    }

    pub(crate) fn stall(&mut self, world: &World, ms: u64) {
        self.stall_until = self.stall_until.max(world.now_ms + ms);
    }

    pub(crate) fn resume(&mut self, world: &mut World) {
        self.is_isolated = false;
        self.dial(world);
    }

    /// What its machine holds for true, if it has a stream that its machine knows of.
    pub(crate) fn present(&self) -> Option<Present> {
        let (node, stream) = (self.node.as_ref()?, self.stream.filter(|_| self.is_open)?);
        Some(Present {
            client: Client::Agent(self.n),
            stream,
            fence: node.saved().fence,
            session: self.session,
        })
    }

    fn dial(&mut self, world: &mut World) {
        if self.wants_stream && !self.is_isolated && self.stream.is_none() {
            self.wants_stream = false;
            self.stream = Some(world.open(Client::Agent(self.n)));
            self.is_open = false;
        }
    }

    pub(crate) fn opened(&mut self, world: &mut World, stream: u64) {
        if self.stream == Some(stream) {
            self.is_open = true;
            self.step(world, Input::StreamOpened { stream });
        }
    }

    pub(crate) fn broken(&mut self, world: &mut World, stream: u64) {
        if self.stream == Some(stream) {
            self.stream = None;
            if self.is_open {
                self.step(world, Input::StreamClosed { stream });
            } else {
                // As the real shell: it dials until a stream is open.
                self.perform(world, Effect::Dial);
            }
        }
    }

    pub(crate) fn frame(&mut self, world: &mut World, stream: u64, fence: Fence, frame: DownFrame) {
        let (session, mut down) = match frame {
            DownFrame::Leader => (Session(0), Down::Leader { name: "m".into(), address: "m:1".into() }),
            DownFrame::Event(event) => match &*event {
                Frame::Agent { session, event } => (*session, Down::Event(event.clone())),
                Frame::Scheduler(_) => return,
            },
        };
        if let Down::Event(Word::Run(order)) = &mut down {
            read(order);
        }
        if let Down::Event(word) = &down {
            self.hear(world, stream, fence, session, word);
        }
        self.step(world, Input::Frame { stream, fence, session, down });
    }

    /// A frame that does not come from where it seems to.
    pub(crate) fn forged(&mut self, world: &mut World, heard: Heard) {
        let Heard { stream, fence, frame, .. } = heard;
        self.frame(world, stream, fence, frame);
    }

    /// What is checked of what it is told.
    fn hear(&mut self, world: &mut World, stream: u64, fence: Fence, session: Session, word: &Word) {
        let is_present = self.present().is_some_and(|now| now.stream == stream && now.fence == fence);
        match word {
            Word::Welcome { agent_id, .. } if is_present && session >= self.session => {
                self.session = session;
                // An id that is not on the disk yet may be forgotten: nothing was taken on under it.
                let id = self.synced.agent_id.as_ref();
                world.demand(id.is_none_or(|id| id == agent_id), Law::Ids, || {
                    format!("agent {} is {id:?} and is welcomed as {agent_id}", self.n)
                });
            }
            // A shell that would start whatever it is told to.
            Word::Run(order)
                if is_present
                    && self.planted == Some(Planted::StartsTwice)
                    && self
                        .processes
                        .get(&order.launch)
                        .is_some_and(|it| it.released && it.end.is_none()) =>
            {
                self.release(world, order.launch);
            }
            _ => {}
        }
    }

    pub(crate) fn happen(&mut self, world: &mut World, event: AgentEvent) {
        match event {
            AgentEvent::Resume => self.resume(world),
            AgentEvent::Boot(life) if life == self.life => self.boot(world),
            AgentEvent::Dial(life) if life == self.life => self.dial(world),
            // One that was set for later and overtaken by an earlier one is void.
            AgentEvent::Wake(life) if life == self.life && self.wake_at == Some(world.now_ms) => {
                self.wake_at = None;
                self.step(world, Input::Wake);
            }
            AgentEvent::Sync(life, ticket) if life == self.life => self.sync(world, ticket),
            AgentEvent::Report(life, input) if life == self.life => self.step(world, *input),
            AgentEvent::Boot(_)
            | AgentEvent::Dial(_)
            | AgentEvent::Wake(_)
            | AgentEvent::Sync(..)
            | AgentEvent::Report(..) => {}
            AgentEvent::End(launch, status) => self.end(world, launch, End::Exited(status)),
            AgentEvent::ExecutorActs(number) => self.executor_acts(world, number),
            AgentEvent::ExecutorIdle(number) => self.executor_idle(world, number),
            AgentEvent::TaskOver(number, task_id) => {
                self.executor_ends_task(world, number, &task_id, TaskState::Finished);
            }
        }
    }

    /// Whether a fault struck that ended this life.
    fn struck(&mut self, world: &mut World, step: Step) -> bool {
        let Some(fault) = world.strike(step) else { return false };
        match fault.what {
            What::Cut => {
                if let Some(stream) = self.stream {
                    world.breaks(stream);
                }
                false
            }
            _ => {
                self.crash(world, fault);
                true
            }
        }
    }

    pub(crate) fn step(&mut self, world: &mut World, input: Input) {
        let Some(node) = self.node.as_mut() else { return };
        let mut effects = Vec::new();
        self.begun |= input == Input::Begin;
        node.step(world.now_ms, input, &mut effects);
        let wake = node.wake_at();
        self.check_rule(world);
        let life = self.life;
        for effect in effects {
            let step = match &effect {
                Effect::Checkpoint { .. } => Some(Step::Checkpoint),
                Effect::Send { .. } => Some(Step::Said),
                Effect::Start(_) | Effect::StartExecutor(_) => Some(Step::Started),
                Effect::Release { .. } => Some(Step::Released),
                Effect::Abandon { .. } | Effect::Signal { .. } => Some(Step::Signalled),
                Effect::Remove { .. } | Effect::RemoveExit { .. } => Some(Step::Removed),
                Effect::Probe(_)
                | Effect::Mount { .. }
                | Effect::KeepVolumes { .. }
                | Effect::Resize { .. }
                | Effect::Dial
                | Effect::Redial { .. }
                | Effect::Answer { .. }
                | Effect::Tell { .. }
                | Effect::HangUp { .. }
                | Effect::Stop(_) => None,
            };
            self.perform(world, effect);
            if self.life != life || step.is_some_and(|step| self.struck(world, step)) {
                return;
            }
        }
        if let Some(at) = wake
            && self.wake_at.is_none_or(|waits| waits > at.max(world.now_ms + 1))
        {
            let at = at.max(world.now_ms + 1);
            self.wake_at = Some(at);
            world.at(at, Event::Agent(self.n, AgentEvent::Wake(self.life)));
        }
    }

    fn sync(&mut self, world: &mut World, ticket: u64) {
        if world.now_ms < self.stall_until {
            return world.at(self.stall_until, Event::Agent(self.n, AgentEvent::Sync(self.life, ticket)));
        }
        let mut last = None;
        while self.waiting.front().is_some_and(|(waits, _)| *waits <= ticket) {
            let Some((done, records)) = self.waiting.pop_front() else { break };
            records.iter().for_each(|record| self.synced.apply(record));
            last = Some(done);
        }
        if let Some(ticket) = last
            && !self.struck(world, Step::Synced)
        {
            self.step(world, Input::Synced { ticket });
        }
    }

    fn perform(&mut self, world: &mut World, effect: Effect) {
        let life = self.life;
        match effect {
            Effect::Checkpoint { ticket, records } => {
                self.waiting.push_back((ticket, records));
                if self.planted == Some(Planted::SyncsLate) {
                    let report = AgentEvent::Report(life, Box::new(Input::Synced { ticket }));
                    world.at(world.now_ms, Event::Agent(self.n, report));
                }
                world.soon(8, Event::Agent(self.n, AgentEvent::Sync(life, ticket)));
            }
            Effect::Send { stream, session, call } => {
                if self.stream == Some(stream) {
                    world.up(stream, Call::Agent { session, call });
                }
            }
            Effect::Dial => {
                self.wants_stream = true;
                world.soon(100, Event::Agent(self.n, AgentEvent::Dial(life)));
            }
            Effect::Redial { stream, .. } => {
                world.give_up(stream);
                self.stream = None;
                self.wants_stream = true;
                world.soon(100, Event::Agent(self.n, AgentEvent::Dial(life)));
            }
            // There are no files here.
            Effect::Mount { launch, .. } => {
                let mounted = Input::Mounted { launch, failed: None };
                world.soon(3, Event::Agent(self.n, AgentEvent::Report(life, Box::new(mounted))));
            }
            Effect::KeepVolumes { .. } | Effect::Resize { .. } => {}
            Effect::Start(start) => {
                let launch = start.launch;
                let text = String::from_utf8_lossy(&start.sealed).into_owned();
                let (kind, _) = text.split_once(':').unwrap_or((&text, ""));
                let (is_endless, fails) = (kind == "endless", kind == "failing");
                self.processes.insert(launch, Running { released: false, end: None, is_endless, fails });
                let started = Input::Started { launch, process: process(launch) };
                world.soon(5, Event::Agent(self.n, AgentEvent::Report(life, Box::new(started))));
            }
            Effect::Release { launch } => self.release(world, launch),
            Effect::Abandon { launch } => self.end(world, launch, End::NotReleased),
            Effect::Signal { launch, signal } => {
                let deaf = signal == Signal::Term && self.dice.percent(30);
                if !deaf && self.processes.get(&launch).is_some_and(|it| it.released) {
                    let number = if signal == Signal::Term { 15 } else { 9 };
                    self.end(world, launch, End::Signaled(number));
                }
            }
            Effect::Remove { .. } | Effect::RemoveExit { .. } => {}
            Effect::Probe(probe) => {
                let found = if self.dice.percent(70) { 0 } else { 1 };
                let (launch, which, number) = (probe.launch, probe.which, probe.number);
                let result = Ok(CheckResult::Exit(found));
                let probed = Input::Probed { launch, which, number, result };
                world.soon(20, Event::Agent(self.n, AgentEvent::Report(life, Box::new(probed))));
            }
            Effect::StartExecutor(start) => {
                let launch = start.intent.number;
                self.executors.insert(launch, Executor::new(start.intent.name.clone()));
                let held = Running { released: false, end: None, is_endless: true, fails: false };
                self.processes.insert(launch, held);
                let started = Input::Started { launch, process: process(launch) };
                world.soon(5, Event::Agent(self.n, AgentEvent::Report(life, Box::new(started))));
            }
            Effect::Answer { call, answer } => self.answered(call, answer),
            Effect::Tell { stream, event } => self.told(world, stream, event),
            // What was sent before is read all the same.
            Effect::HangUp { .. } => {}
            Effect::Stop(_) if self.is_condemned => {
                self.is_condemned = false;
                let when = When::At(world.now_ms);
                self.wipe(world, Fault { when, what: What::Wipe, pick: self.life });
            }
            Effect::Stop(why) => {
                world.demand(false, Law::Served, || format!("agent {} stopped: {why}", self.n));
            }
        }
    }

    fn release(&mut self, world: &mut World, launch: LaunchNumber) {
        let Some(it) = self.processes.get_mut(&launch).filter(|it| it.end.is_none()) else { return };
        it.released = true;
        let (is_endless, fails) = (it.is_endless, it.fails);
        self.check_pod(world, launch);
        let is_new = self.started.insert(launch);
        world.demand(is_new, Law::Started, || format!("launch {launch} started twice on agent {}", self.n));
        if self.executors.contains_key(&launch) {
            world.soon(400, Event::Agent(self.n, AgentEvent::ExecutorActs(launch)));
        } else {
            world.counts.started += 1;
        }
        self.check_room(world);
        let released = Input::Released { launch };
        world.soon(3, Event::Agent(self.n, AgentEvent::Report(self.life, Box::new(released))));
        let ms = self.dice.between(10, 4_000);
        let status = i32::from(self.dice.percent(20) || fails);
        if !is_endless {
            world.at(world.now_ms + ms, Event::Agent(self.n, AgentEvent::End(launch, status)));
        }
    }

    /// Of a group that the agent runs itself none runs on for ever when one failed: each is over, or about to be.
    fn check_rule(&self, world: &mut World) {
        let Some(saved) = self.node.as_ref().map(Node::saved).filter(|_| self.begun) else { return };
        let is_pod = |launch| {
            saved.executors.tasks.get(launch).is_some_and(|it| saved.built_in.contains(&it.executor))
        };
        for (launch, group) in saved.groups.iter().filter(|(launch, _)| is_pod(launch)) {
            let state = saved.tasks.get(launch).map(|task| task.state);
            if !state.is_some_and(|it| it.is_terminal() && it != TaskState::Finished) {
                continue;
            }
            let goes_on = group.launches().find(|other| {
                saved.tasks.get(other).is_some_and(|it| !it.state.is_terminal() && it.kill_grace_ms.is_none())
            });
            world.demand(goes_on.is_none(), Law::Group, || {
                format!("agent {}: {launch} is {state:?}, and {goes_on:?} of its group goes on", self.n)
            });
        }
    }

    /// Of a group that the agent runs itself none is let go before all are held.
    fn check_pod(&self, world: &mut World, launch: LaunchNumber) {
        let Some(saved) = self.node.as_ref().map(Node::saved) else { return };
        let is_pod =
            saved.executors.tasks.get(&launch).is_some_and(|it| saved.built_in.contains(&it.executor));
        let Some(group) = saved.groups.get(&launch).filter(|_| is_pod) else { return };
        let missing = group.launches().find(|it| {
            !self.processes.contains_key(it)
                || self.synced.tasks.get(it).is_none_or(|it| it.process.is_none())
        });
        world.demand(missing.is_none(), Law::Started, || {
            format!("agent {} starts {launch} of {group:?} before {missing:?} is held", self.n)
        });
    }

    /// It runs no more tasks than it has cpus.
    pub(crate) fn check_room(&self, world: &mut World) {
        let live = self.processes.iter().filter(|(_, it)| it.released && it.end.is_none());
        let running: u64 =
            live.map(|(number, _)| self.executors.get(number).map_or(1, Executor::running)).sum();
        world.demand(running <= CPUS, Law::Room, || format!("agent {} runs {running} tasks", self.n));
    }

    pub(crate) fn end(&mut self, world: &mut World, launch: LaunchNumber, end: End) {
        let Some(it) = self.processes.get_mut(&launch).filter(|it| it.end.is_none()) else { return };
        it.end = Some(end.clone());
        let ended = Input::Ended { launch, end };
        world.at(world.now_ms + 4, Event::Agent(self.n, AgentEvent::Report(self.life, Box::new(ended))));
        self.struck(world, Step::Ended);
    }

    /// Nothing runs any more.
    pub(crate) fn check_end(&self, world: &mut World) {
        let left: Vec<_> =
            self.processes.iter().filter(|(_, it)| it.released && it.end.is_none()).map(|it| *it.0).collect();
        world.demand(left.is_empty(), Law::End, || format!("agent {} still runs {left:?}", self.n));
    }
}
