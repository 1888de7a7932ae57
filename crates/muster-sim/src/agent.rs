//! An agent: the real node machine over an imitated disk and imitated processes.

use crate::cluster::{Client, DownFrame, Event, World};
use muster_model::{
    AgentInfo, Call, Event as Frame, Fence, LaunchNumber, MachineId, Resources, Sealed, Session,
};
use muster_node::{Down, Effect, End, Input, Node, NodeConfig, Process, Record, Saved, Signal};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Debug, Clone)]
pub(crate) enum AgentEvent {
    Wake(u64),
    /// The disk syncs what waits, up to a ticket. Void after a crash.
    Sync(u64, u64),
    /// A supervisor reports. Void after a crash.
    Report(u64, Box<Input>),
    /// A released command ends by itself.
    End(LaunchNumber, i32),
    Dial(u64),
    /// The agent starts again after a crash.
    Boot,
    /// It is no longer cut off.
    Resume,
}

/// A supervisor with its command.
#[derive(Debug, Clone)]
struct Running {
    released: bool,
    end: Option<End>,
}

#[derive(Debug)]
pub(crate) struct Agent {
    n: usize,
    node: Option<Node>,
    /// Counts boots: what was on its way before a crash is void.
    life: u64,
    synced: Saved,
    waiting: VecDeque<(u64, Vec<Record>)>,
    processes: BTreeMap<LaunchNumber, Running>,
    /// Every launch whose command was let go.
    pub(crate) started: BTreeSet<LaunchNumber>,
    pub(crate) crashes: u64,
    stream: Option<u64>,
    /// Whether its machine knows of the stream.
    is_open: bool,
    is_isolated: bool,
    wants_stream: bool,
    wake_at: Option<u64>,
}

fn config(n: usize) -> NodeConfig {
    NodeConfig {
        info: AgentInfo {
            machine_id: MachineId::new(format!("machine-{n}")),
            hostname: format!("host-{n}").into(),
            port: 5051,
            resources: Resources::of(4_000, 4_000),
            attributes: Vec::new(),
        },
        sealed: Sealed::default(),
        grace_ms: 1_000,
        repeat_ms: 10_000,
        repeat_ms_max: 60_000,
        welcome_ms: 3_000,
        tasks_max: 1_000,
        answered_max: 1_000,
        wall_at_zero_ms: 0,
    }
}

fn process(launch: LaunchNumber) -> Process {
    Process { pid: launch.index.0 as u32 + 1, start_time: 1, boot_id: "boot".into() }
}

impl Agent {
    pub(crate) fn new(n: usize) -> Self {
        Self {
            n,
            node: None,
            life: 0,
            synced: Saved::default(),
            waiting: VecDeque::new(),
            processes: BTreeMap::new(),
            started: BTreeSet::new(),
            crashes: 0,
            stream: None,
            is_open: false,
            is_isolated: false,
            wants_stream: false,
            wake_at: None,
        }
    }

    /// Starts from what is on the disk.
    pub(crate) fn boot(&mut self, world: &mut World) {
        let node = Node::recover(config(self.n), self.synced.clone());
        let recorded: Vec<LaunchNumber> = node.processes().map(|(launch, _)| launch).collect();
        self.node = Some(node);
        for launch in recorded {
            let running = self.processes.get(&launch).cloned();
            let fact = match running {
                Some(Running { end: Some(end), .. }) => Input::Ended { launch, end },
                Some(Running { released: true, end: None }) => Input::Released { launch },
                _ => Input::Ended { launch, end: End::NotReleased },
            };
            self.step(world, fact);
        }
        self.step(world, Input::Begin);
    }

    /// SIGKILL: what was not synced is lost or not, held commands end, running ones go on.
    pub(crate) fn crash(&mut self, world: &mut World) {
        if self.node.take().is_none() {
            return;
        }
        self.crashes += 1;
        self.life += 1;
        let kept = world.dice.between(0, self.waiting.len() as u64 + 1);
        for (_, records) in std::mem::take(&mut self.waiting).into_iter().take(kept as usize) {
            records.iter().for_each(|record| self.synced.apply(record));
        }
        self.processes.values_mut().filter(|it| !it.released && it.end.is_none()).for_each(|it| {
            it.end = Some(End::NotReleased);
        });
        self.wants_stream = false;
        self.wake_at = None;
        if let Some(stream) = self.stream.take() {
            world.give_up(stream);
        }
        let down_ms = world.dice.between(1, 3_000);
        world.at(world.now_ms + down_ms, Event::Agent(self.n, AgentEvent::Boot));
    }

    /// Cut off from all masters for a while; its tasks go on.
    pub(crate) fn isolate(&mut self, world: &mut World, ms: u64) {
        if self.is_isolated {
            return;
        }
        self.is_isolated = true;
        if let Some(stream) = self.stream {
            world.give_up(stream);
            self.broken(world, stream);
        }
        world.at(world.now_ms + ms, Event::Agent(self.n, AgentEvent::Resume));
    }

    pub(crate) fn resume(&mut self, world: &mut World) {
        self.is_isolated = false;
        self.dial(world);
    }

    fn dial(&mut self, world: &mut World) {
        if self.wants_stream && !self.is_isolated && self.stream.is_none() {
            self.wants_stream = false;
            world.open(Client::Agent(self.n));
            self.stream = world.stream_of(Client::Agent(self.n));
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
        let (session, down) = match frame {
            DownFrame::Leader => (Session(0), Down::Leader { name: "m".into(), address: "m:1".into() }),
            DownFrame::Event(event) => match *event {
                Frame::Agent { session, event } => (session, Down::Event(event)),
                Frame::Scheduler(_) => return,
            },
        };
        self.step(world, Input::Frame { stream, fence, session, down });
    }

    pub(crate) fn happen(&mut self, world: &mut World, event: AgentEvent) {
        match event {
            AgentEvent::Boot => self.boot(world),
            AgentEvent::Resume => self.resume(world),
            AgentEvent::Dial(life) if life == self.life => self.dial(world),
            AgentEvent::Wake(life) if life == self.life => self.step(world, Input::Wake),
            AgentEvent::Sync(life, ticket) if life == self.life => self.sync(world, ticket),
            AgentEvent::Report(life, input) if life == self.life => self.step(world, *input),
            AgentEvent::Dial(_) | AgentEvent::Wake(_) | AgentEvent::Sync(..) | AgentEvent::Report(..) => {}
            AgentEvent::End(launch, status) => self.end(world, launch, End::Exited(status)),
        }
    }

    fn step(&mut self, world: &mut World, input: Input) {
        let Some(node) = self.node.as_mut() else { return };
        let mut effects = Vec::new();
        node.step(world.now_ms, input, &mut effects);
        let wake = node.wake_at();
        for effect in effects {
            self.perform(world, effect);
        }
        if let Some(at) = wake
            && self.wake_at.is_none_or(|waits| waits > at || waits <= world.now_ms)
        {
            let at = at.max(world.now_ms + 1);
            self.wake_at = Some(at);
            world.at(at, Event::Agent(self.n, AgentEvent::Wake(self.life)));
        }
    }

    fn sync(&mut self, world: &mut World, ticket: u64) {
        let mut last = None;
        while self.waiting.front().is_some_and(|(waits, _)| *waits <= ticket) {
            let Some((done, records)) = self.waiting.pop_front() else { break };
            records.iter().for_each(|record| self.synced.apply(record));
            last = Some(done);
        }
        if let Some(ticket) = last {
            self.step(world, Input::Synced { ticket });
        }
    }

    fn perform(&mut self, world: &mut World, effect: Effect) {
        let life = self.life;
        match effect {
            Effect::Checkpoint { ticket, records } => {
                self.waiting.push_back((ticket, records));
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
            Effect::Start(start) => {
                let launch = start.launch;
                self.processes.insert(launch, Running { released: false, end: None });
                let started = Input::Started { launch, process: process(launch) };
                world.soon(5, Event::Agent(self.n, AgentEvent::Report(life, Box::new(started))));
            }
            Effect::Release { launch } => self.release(world, launch),
            Effect::Abandon { launch } => self.end(world, launch, End::NotReleased),
            Effect::Signal { launch, signal } => {
                let deaf = signal == Signal::Term && world.dice.percent(30);
                if !deaf && self.processes.get(&launch).is_some_and(|it| it.released) {
                    let number = if signal == Signal::Term { 15 } else { 9 };
                    self.end(world, launch, End::Signaled(number));
                }
            }
            Effect::Remove { .. } => {}
            Effect::Stop(why) => panic!("agent {} stopped at {} ms: {why}", self.n, world.now_ms),
        }
    }

    fn release(&mut self, world: &mut World, launch: LaunchNumber) {
        let Some(it) = self.processes.get_mut(&launch).filter(|it| it.end.is_none()) else { return };
        it.released = true;
        assert!(self.started.insert(launch), "launch {launch} was started twice on agent {}", self.n);
        let running = self.processes.values().filter(|it| it.released && it.end.is_none()).count();
        // Every task of the simulation takes one of the agent's four cpus.
        assert!(running <= 4, "agent {} runs {running} tasks at {} ms", self.n, world.now_ms);
        let released = Input::Released { launch };
        world.soon(3, Event::Agent(self.n, AgentEvent::Report(self.life, Box::new(released))));
        let ms = world.dice.between(10, 8_000);
        let status = i32::from(world.dice.percent(20));
        world.at(world.now_ms + ms, Event::Agent(self.n, AgentEvent::End(launch, status)));
    }

    fn end(&mut self, world: &mut World, launch: LaunchNumber, end: End) {
        let Some(it) = self.processes.get_mut(&launch).filter(|it| it.end.is_none()) else { return };
        it.end = Some(end.clone());
        let ended = Input::Ended { launch, end };
        world.at(world.now_ms + 4, Event::Agent(self.n, AgentEvent::Report(self.life, Box::new(ended))));
    }
}
