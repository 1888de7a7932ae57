//! The event queue, the network, and what goes wrong.

use crate::{
    agent::{Agent, AgentEvent},
    dice::Dice,
    framework::Framework,
    masters::{MasterEvent, Masters},
};
use muster_model::{Call, Event as Frame, Fence};
use std::collections::BTreeMap;

/// Who is at a stream's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    Agent(usize),
    Framework(usize),
}

/// What comes down a stream.
#[derive(Debug, Clone)]
pub(crate) enum DownFrame {
    Leader,
    Event(Box<Frame>),
}

/// Everything that can happen.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A stream is open: its client hears so.
    Opened {
        stream: u64,
    },
    /// A frame arrives at the masters, for the reign that the stream belonged to when it was sent.
    Up {
        stream: u64,
        reign: u64,
        call: Box<Call>,
    },
    /// A frame arrives at a client.
    Down {
        stream: u64,
        fence: Fence,
        frame: DownFrame,
    },
    /// The client hears that its stream broke.
    Broken {
        stream: u64,
        client: Client,
    },
    Masters(MasterEvent),
    Agent(usize, AgentEvent),
    WakeFramework(usize),
    /// Something goes wrong.
    Chaos,
}

/// A stream between a client and the masters.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) client: Client,
    /// The reign it is attached to, 0 for none.
    pub(crate) reign: u64,
    /// Frames of one stream arrive in order, each way.
    up_at: u64,
    down_at: u64,
}

/// The world outside of the machines.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now_ms: u64,
    pub(crate) dice: Dice,
    pub(crate) streams: BTreeMap<u64, Stream>,
    queue: BTreeMap<(u64, u64), Event>,
    counted: u64,
    streams_counted: u64,
    pub(crate) is_calm: bool,
    /// Streams that their clients ended, and the reign they belonged to.
    given_up: Vec<(u64, u64)>,
}

impl World {
    pub(crate) fn at(&mut self, at: u64, event: Event) {
        self.counted += 1;
        self.queue.insert((at.max(self.now_ms), self.counted), event);
    }

    /// In a few milliseconds.
    pub(crate) fn soon(&mut self, most_ms: u64, event: Event) {
        let at = self.now_ms + self.dice.between(0, most_ms + 1);
        self.at(at, event);
    }

    fn delay(&mut self) -> u64 {
        // Now and then a frame takes long.
        let long = !self.is_calm && self.dice.percent(2);
        if long { self.dice.between(50, 1500) } else { self.dice.between(0, 4) }
    }

    pub(crate) fn open(&mut self, client: Client) {
        self.streams_counted += 1;
        let stream = self.streams_counted;
        self.streams.insert(stream, Stream { client, reign: 0, up_at: 0, down_at: 0 });
        let at = self.now_ms + 1 + self.delay();
        self.at(at, Event::Opened { stream });
    }

    /// A client's own stream, if it is open.
    pub(crate) fn stream_of(&self, client: Client) -> Option<u64> {
        self.streams.iter().rev().find(|(_, it)| it.client == client).map(|(id, _)| *id)
    }

    pub(crate) fn up(&mut self, stream: u64, call: Call) {
        let delay = self.delay();
        let now = self.now_ms;
        let Some(it) = self.streams.get_mut(&stream) else { return };
        it.up_at = it.up_at.max(now + delay);
        let (at, reign) = (it.up_at, it.reign);
        self.at(at, Event::Up { stream, reign, call: Box::new(call) });
    }

    pub(crate) fn down(&mut self, stream: u64, fence: Fence, frame: DownFrame) {
        let delay = self.delay();
        let now = self.now_ms;
        let Some(it) = self.streams.get_mut(&stream) else { return };
        it.down_at = it.down_at.max(now + delay);
        let at = it.down_at;
        self.at(at, Event::Down { stream, fence, frame });
    }

    /// A client ends its stream.
    pub(crate) fn give_up(&mut self, stream: u64) {
        if let Some(it) = self.cut(stream, false) {
            self.given_up.push((stream, it.reign));
        }
    }

    /// Ends a stream: frames on their way are lost. The client hears of it if it is to be told.
    pub(crate) fn cut(&mut self, stream: u64, tell: bool) -> Option<Stream> {
        let it = self.streams.remove(&stream)?;
        self.queue.retain(|_, event| match event {
            Event::Up { stream: s, .. } | Event::Down { stream: s, .. } | Event::Opened { stream: s } => {
                *s != stream
            }
            _ => true,
        });
        if tell {
            self.at(self.now_ms + 1, Event::Broken { stream, client: it.client });
        }
        Some(it)
    }
}

/// How often something goes wrong, in ms of virtual time.
const CHAOS_MS: (u64, u64) = (50, 1_500);

/// A cluster and its seed.
#[derive(Debug)]
pub struct Cluster {
    seed: u64,
    world: World,
    masters: Masters,
    agents: Vec<Agent>,
    frameworks: Vec<Framework>,
    /// A running hash of all that happened.
    trace: u64,
}

impl Cluster {
    /// Three masters, and as many agents, frameworks and offer loops as are asked for.
    pub fn new(seed: u64, agents: usize, frameworks: usize, shards: u32) -> Self {
        let world = World {
            now_ms: 0,
            dice: Dice::new(seed),
            streams: BTreeMap::new(),
            queue: BTreeMap::new(),
            counted: 0,
            streams_counted: 0,
            is_calm: false,
            given_up: Vec::new(),
        };
        let mut cluster = Self {
            seed,
            world,
            masters: Masters::new(shards),
            agents: (0..agents).map(Agent::new).collect(),
            frameworks: (0..frameworks).map(|n| Framework::new(n, seed)).collect(),
            trace: 0,
        };
        let world = &mut cluster.world;
        cluster.masters.elect(world);
        for agent in &mut cluster.agents {
            agent.boot(world);
        }
        for framework in &mut cluster.frameworks {
            framework.start(world);
        }
        cluster.world.at(100, Event::Chaos);
        cluster
    }

    /// Lets this much virtual time pass, in ms, while things go wrong.
    pub fn run(&mut self, ms: u64) {
        let until = self.world.now_ms + ms;
        while let Some((&(at, n), _)) = self.world.queue.first_key_value() {
            if at > until {
                break;
            }
            let Some(event) = self.world.queue.remove(&(at, n)) else { break };
            self.world.now_ms = at;
            self.note(at, &event);
            self.happen(event);
            self.check();
        }
        self.world.now_ms = until;
    }

    /// Nothing goes wrong any more, nothing new is launched: everything must come to its end.
    ///
    /// Returns how many tasks lived in all.
    pub fn heal(&mut self) -> usize {
        self.world.is_calm = true;
        for framework in &mut self.frameworks {
            framework.is_done = true;
        }
        for n in 0..self.agents.len() {
            self.agents[n].resume(&mut self.world);
        }
        for _ in 0..60 {
            self.run(10_000);
            if self.masters.registry().task_count() == 0 && self.frameworks.iter().all(Framework::is_settled)
            {
                break;
            }
        }
        self.masters.check_replicas(self.seed);
        let registry = self.masters.registry();
        registry.check_laws().unwrap_or_else(|law| panic!("seed {}: {law}", self.seed));
        let left: Vec<_> =
            registry.tasks().map(|task| format!("{} {} {:?}", task.key, task.state, task.launch)).collect();
        assert!(left.is_empty(), "seed {}: these tasks came to no end: {left:?}", self.seed);
        for framework in &self.frameworks {
            framework.check_end(self.seed, &self.masters.launched);
        }
        for agent in registry.agents().filter(|agent| agent.lost_since().is_none()) {
            let held = registry.held_on(&agent.id);
            assert!(held.is_empty(), "seed {}: {} still holds {held}", self.seed, agent.id);
        }
        self.masters.launched.len()
    }

    /// A hash of everything that happened, in order.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// Leaders so far, launches that were started, and agents' crashes: that something happened at all.
    pub fn counts(&self) -> (u64, usize, u64) {
        let started = self.agents.iter().map(|agent| agent.started.len()).sum();
        (self.masters.terms(), started, self.agents.iter().map(|agent| agent.crashes).sum())
    }

    fn note(&mut self, at: u64, event: &Event) {
        // FNV over the event's text: slow, exact, and only for tests.
        for byte in format!("{at} {event:?}").bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn happen(&mut self, event: Event) {
        let world = &mut self.world;
        match event {
            Event::Opened { stream } => {
                let Some(it) = world.streams.get(&stream) else { return };
                match it.client {
                    Client::Agent(n) => self.agents[n].opened(world, stream),
                    Client::Framework(n) => self.frameworks[n].opened(world, stream),
                }
                self.masters.attach(world, stream);
            }
            Event::Up { stream, reign, call } => self.masters.call(world, stream, reign, *call),
            Event::Down { stream, fence, frame } => {
                let Some(it) = world.streams.get(&stream) else { return };
                match it.client {
                    Client::Agent(n) => self.agents[n].frame(world, stream, fence, frame),
                    Client::Framework(n) => self.frameworks[n].frame(world, stream, fence, frame),
                }
            }
            Event::Broken { stream, client } => match client {
                Client::Agent(n) => self.agents[n].broken(world, stream),
                Client::Framework(n) => self.frameworks[n].broken(world, stream),
            },
            Event::Masters(event) => self.masters.happen(world, event),
            Event::Agent(n, event) => self.agents[n].happen(world, event),
            Event::WakeFramework(n) => self.frameworks[n].wake(world),
            Event::Chaos => self.chaos(),
        }
        // Streams that clients gave up are the masters' to forget.
        for (stream, reign) in std::mem::take(&mut self.world.given_up) {
            self.masters.closed(&mut self.world, stream, reign);
        }
    }

    /// Something goes wrong.
    fn chaos(&mut self) {
        let world = &mut self.world;
        if world.is_calm {
            return;
        }
        let next = world.now_ms + world.dice.between(CHAOS_MS.0, CHAOS_MS.1);
        world.at(next, Event::Chaos);
        match world.dice.between(0, 12) {
            0 | 1 => self.masters.elect(world),
            2..=4 => {
                // A stream breaks.
                let streams: Vec<u64> = world.streams.keys().copied().collect();
                let stream =
                    streams.get(world.dice.between(0, streams.len().max(1) as u64) as usize).copied();
                if let Some((stream, it)) = stream.and_then(|stream| Some((stream, world.cut(stream, true)?)))
                {
                    self.masters.closed(world, stream, it.reign);
                }
            }
            5..=7 => {
                let n = world.dice.between(0, self.agents.len() as u64) as usize;
                self.agents[n].crash(world);
            }
            8 => {
                // An agent is cut off for so long that it may become unreachable.
                let n = world.dice.between(0, self.agents.len() as u64) as usize;
                let ms = world.dice.between(1_000, 120_000);
                self.agents[n].isolate(world, ms);
            }
            9 => {
                let n = world.dice.between(0, self.frameworks.len() as u64) as usize;
                self.frameworks[n].kill_some(world);
            }
            _ => {}
        }
    }

    fn check(&self) {
        self.masters.check_offers(self.seed, self.world.now_ms);
    }
}
