//! The world outside of the machines: time, the network, and the faults that wait for a step.

use crate::{
    agent::AgentEvent,
    dice::Dice,
    fault::{Fault, Step, When},
    forge::History,
    framework::FrameworkEvent,
    masters::MasterEvent,
    plan::{Counts, Failure, Law, Plan},
};
use muster_model::{Call, Event as Frame, Fence};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
};

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
    Event(Arc<Frame>),
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
        call: Arc<Call>,
    },
    /// A frame arrives at a client.
    Down {
        stream: u64,
        fence: Fence,
        frame: DownFrame,
        sent_at: u64,
    },
    /// The client hears that its stream broke.
    Broken {
        stream: u64,
        client: Client,
    },
    /// The masters ended a stream: its client hears so after what was sent.
    Ended {
        stream: u64,
    },
    /// The masters hear that a client gave a stream up while it stood still.
    Noticed {
        stream: u64,
    },
    Masters(MasterEvent),
    Agent(usize, AgentEvent),
    Framework(usize, FrameworkEvent),
    /// Something goes wrong.
    Fault(Fault),
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
    /// A master on its way stands still: nothing passes before this.
    stuck_until: u64,
    /// It is slow until then, by up to so much.
    lag: (u64, u64),
}

/// An event and its turn.
#[derive(Debug)]
struct Due {
    at: u64,
    n: u64,
    event: Event,
}

impl Ord for Due {
    /// The heap gives the greatest first: that is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.n).cmp(&(self.at, self.n))
    }
}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.n == other.n
    }
}
impl Eq for Due {}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now_ms: u64,
    dice: Dice,
    pub(crate) streams: BTreeMap<u64, Stream>,
    /// Streams that their clients gave up while they stood still: what they hold still comes.
    half_open: BTreeMap<u64, Stream>,
    queue: BinaryHeap<Due>,
    counted: u64,
    streams_counted: u64,
    /// Nothing goes wrong any more.
    pub(crate) is_calm: bool,
    /// Streams that ended, and the reign they belonged to: the masters have to forget them.
    pub(crate) ended: Vec<(u64, u64)>,
    /// Faults that wait for a step.
    waiting: BTreeMap<(Step, u64), Fault>,
    pub(crate) steps: BTreeMap<Step, u64>,
    pub(crate) struck: Vec<Fault>,
    pub(crate) counts: Counts,
    pub(crate) failure: Option<Failure>,
    pub(crate) history: History,
}

impl World {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut world = Self {
            now_ms: 0,
            dice: Dice::of(plan.seed, "network", 0),
            streams: BTreeMap::new(),
            half_open: BTreeMap::new(),
            queue: BinaryHeap::new(),
            counted: 0,
            streams_counted: 0,
            is_calm: false,
            ended: Vec::new(),
            waiting: BTreeMap::new(),
            steps: BTreeMap::new(),
            struck: Vec::new(),
            counts: Counts::default(),
            failure: None,
            history: History::default(),
        };
        for fault in &plan.faults {
            match fault.when {
                When::At(ms) => world.at(ms, Event::Fault(*fault)),
                When::Step(step, n) => drop(world.waiting.insert((step, n), *fault)),
            }
        }
        world
    }

    /// A law must hold.
    pub(crate) fn demand(&mut self, holds: bool, law: Law, what: impl FnOnce() -> String) {
        if !holds && self.failure.is_none() {
            self.failure = Some(Failure { law, at_ms: self.now_ms, what: what() });
        }
    }

    /// A machine makes a step: the fault that strikes it now, if any.
    pub(crate) fn strike(&mut self, step: Step) -> Option<Fault> {
        if self.is_calm {
            return None;
        }
        let n = self.steps.entry(step).or_default();
        *n += 1;
        let fault = self.waiting.remove(&(step, *n))?;
        self.struck.push(fault);
        Some(fault)
    }

    pub(crate) fn at(&mut self, at: u64, event: Event) {
        self.counted += 1;
        self.queue.push(Due { at: at.max(self.now_ms), n: self.counted, event });
    }

    /// The next event up to a time, which is then now.
    pub(crate) fn next(&mut self, until: u64) -> Option<Event> {
        let due = self.queue.peek().filter(|due| due.at <= until)?.at;
        self.now_ms = due;
        self.queue.pop().map(|due| due.event)
    }

    /// In a few milliseconds.
    pub(crate) fn soon(&mut self, most_ms: u64, event: Event) {
        let at = self.now_ms + self.dice.between(0, most_ms + 1);
        self.at(at, event);
    }

    fn delay(&mut self, lag: (u64, u64)) -> u64 {
        let (until, most_ms) = lag;
        let most_ms = if self.now_ms < until { most_ms } else { 4 };
        self.dice.between(0, most_ms)
    }

    pub(crate) fn open(&mut self, client: Client) -> u64 {
        self.streams_counted += 1;
        let stream = self.streams_counted;
        let it = Stream { client, reign: 0, up_at: 0, down_at: 0, stuck_until: 0, lag: (0, 0) };
        self.streams.insert(stream, it);
        let at = self.now_ms + 1 + self.delay((0, 0));
        self.at(at, Event::Opened { stream });
        stream
    }

    pub(crate) fn up(&mut self, stream: u64, call: Call) {
        let Some(lag) = self.streams.get(&stream).map(|it| it.lag) else { return };
        let at = self.now_ms + self.delay(lag);
        let Some(it) = self.streams.get_mut(&stream) else { return };
        it.up_at = it.up_at.max(at);
        let (at, reign, client, call) = (it.up_at, it.reign, it.client, Arc::new(call));
        self.history.said(client, stream, reign, &call);
        self.at(at, Event::Up { stream, reign, call });
    }

    pub(crate) fn down(&mut self, stream: u64, fence: Fence, frame: DownFrame) {
        let Some(lag) = self.streams.get(&stream).map(|it| it.lag) else { return };
        let at = self.now_ms + self.delay(lag);
        let Some(it) = self.streams.get_mut(&stream) else { return };
        it.down_at = it.down_at.max(at);
        let (at, client) = (it.down_at, it.client);
        self.history.heard(client, stream, fence, &frame);
        self.at(at, Event::Down { stream, fence, frame, sent_at: self.now_ms });
    }

    /// Whether a frame of a stream has to wait because a master stands still; until when.
    pub(crate) fn held_back(&self, stream: u64) -> Option<u64> {
        let it = self.streams.get(&stream).or_else(|| self.half_open.get(&stream))?;
        (self.now_ms < it.stuck_until).then_some(it.stuck_until)
    }

    /// Whether frames of a stream still reach the masters.
    pub(crate) fn reaches_masters(&self, stream: u64) -> bool {
        self.streams.contains_key(&stream) || self.half_open.contains_key(&stream)
    }

    /// A client ends its stream. If a master on its way stands still, that is noticed only later.
    pub(crate) fn give_up(&mut self, stream: u64) {
        let Some(it) = self.streams.remove(&stream) else { return };
        if self.now_ms < it.stuck_until {
            self.at(it.stuck_until, Event::Noticed { stream });
            self.half_open.insert(stream, it);
        } else {
            self.ended.push((stream, it.reign));
        }
    }

    /// The masters hear that a client gave its stream up.
    pub(crate) fn noticed(&mut self, stream: u64) {
        if let Some(it) = self.half_open.remove(&stream) {
            self.ended.push((stream, it.reign));
        }
    }

    /// Ends a stream: frames on their way are lost, and both ends hear of it.
    pub(crate) fn cut(&mut self, stream: u64) {
        let Some(it) = self.streams.remove(&stream) else { return self.noticed(stream) };
        let at = (self.now_ms + 1).max(it.stuck_until);
        self.at(at, Event::Broken { stream, client: it.client });
        self.ended.push((stream, it.reign));
    }

    /// The masters end a stream, after what was sent.
    pub(crate) fn close(&mut self, stream: u64) {
        if let Some(it) = self.streams.get(&stream) {
            self.at(it.down_at, Event::Ended { stream });
        }
    }

    /// A stream breaks.
    pub(crate) fn breaks(&mut self, stream: u64) {
        self.counts.breaks += 1;
        self.cut(stream);
    }

    /// A master on a stream's way stands still for a while.
    pub(crate) fn sticks(&mut self, stream: u64, ms: u64) {
        let until = self.now_ms + ms;
        if let Some(it) = self.streams.get_mut(&stream) {
            it.stuck_until = it.stuck_until.max(until);
            self.counts.breaks += 1;
        }
    }

    /// A stream is slow for a while, by up to `most_ms`.
    pub(crate) fn lags(&mut self, stream: u64, ms: u64, most_ms: u64) {
        let until = self.now_ms + ms;
        if let Some(it) = self.streams.get_mut(&stream) {
            it.lag = (until, most_ms);
        }
    }

    /// Nothing stands still or lags any more.
    pub(crate) fn calm(&mut self) {
        self.is_calm = true;
        for it in self.streams.values_mut() {
            it.lag = (0, 0);
        }
    }
}
