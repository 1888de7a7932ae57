//! Three registries over a toy log, and the leader's machine with its shards. A deposed leader goes on for a
//! while without knowing it; what it proposes never commits.

use crate::cluster::{Client, DownFrame, Event, World};
use muster_allocator::{Policy, Shard, ShardId, ShardInput, ShardOutput, View};
use muster_leader::{Committed, Config, Effect, Input, Leader};
use muster_model::{
    Call, ClusterId, Fence, Index, LaunchNumber, Resources, TaskKey, TaskOutcome, Term, Timestamp, WallTime,
};
use muster_registry::{Command, Entry, Outcome, Registry};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// All laws of the registry are checked at each so many entries: they look at everything.
const LAWS_EVERY: u64 = 16;

#[derive(Debug, Clone)]
pub(crate) enum MasterEvent {
    /// A reign's proposer makes an entry of what waits.
    Flush(u64),
    /// The oldest entry of a reign that is not committed commits, and its leader applies it.
    Commit(u64),
    /// A shard's pass ends.
    Allocated(u64, u32, Box<ShardOutput>),
    /// A reign's leader wants to be woken.
    Wake(u64),
    /// A deposed leader learns of it.
    Over(u64),
    /// A follower applies what it has not.
    Follow(usize),
}

/// A leader's term in one process.
#[derive(Debug)]
struct Reign {
    term: u64,
    machine: Leader,
    /// As of the newest entry it applied.
    registry: Registry,
    applied_at: u64,
    shards: Vec<Shard>,
    proposals: VecDeque<Command>,
    tickets: u64,
    flush_waits: bool,
    appended: VecDeque<Entry>,
    serving: bool,
    wake_at: Option<u64>,
    deposed: bool,
    /// Whom it serves.
    streams: BTreeMap<u64, Client>,
}

#[derive(Debug)]
pub(crate) struct Masters {
    shards: u32,
    log: Vec<(Term, Entry)>,
    /// Replicas and how much of the log each has applied.
    replicas: Vec<(Registry, usize)>,
    reigns: Vec<Reign>,
    terms: u64,
    /// Every launch that was committed.
    pub(crate) launched: BTreeMap<LaunchNumber, TaskKey>,
}

impl Masters {
    pub(crate) fn new(shards: u32) -> Self {
        let replica = || (Registry::new(ClusterId::new("sim"), 1), 0);
        Self {
            shards,
            log: Vec::new(),
            replicas: (0..3).map(|_| replica()).collect(),
            reigns: Vec::new(),
            terms: 0,
            launched: BTreeMap::new(),
        }
    }

    pub(crate) fn terms(&self) -> u64 {
        self.terms
    }

    /// The registry with everything that is committed.
    pub(crate) fn registry(&self) -> &Registry {
        match self.reigns.iter().find(|reign| !reign.deposed) {
            Some(reign) => &reign.registry,
            None => &self.replicas[0].0,
        }
    }

    fn commit(&mut self, term: Term, entry: Entry) {
        self.log.push((term, entry));
    }

    fn follow(&mut self, n: usize) {
        let (registry, applied) = &mut self.replicas[n];
        for (term, entry) in self.log.iter().skip(*applied) {
            *applied += 1;
            let outcomes = registry.apply(Index(*applied as u64), *term, entry).outcomes;
            note_launches(&mut self.launched, &entry.commands, &outcomes);
        }
    }

    /// A new leader is elected: the former may not know yet; of what it had not committed a part is lost.
    pub(crate) fn elect(&mut self, world: &mut World) {
        for n in 0..self.reigns.len() {
            if self.reigns[n].deposed {
                continue;
            }
            self.reigns[n].deposed = true;
            let term = self.reigns[n].term;
            let kept = world.dice.between(0, self.reigns[n].appended.len() as u64 + 1);
            for _ in 0..kept {
                if let Some(entry) = self.reigns[n].appended.pop_front() {
                    self.commit(Term(term), entry);
                }
            }
            // Killed at once, or paused and unaware for a while.
            let over = if world.dice.percent(50) { 0 } else { world.dice.between(1, 400) };
            world.at(world.now_ms + over, Event::Masters(MasterEvent::Over(term)));
        }
        self.terms += 1;
        let on = world.dice.between(0, 3) as usize;
        self.follow(on);
        for (n, _) in self.replicas.iter().enumerate() {
            world.at(world.now_ms + 7 + n as u64, Event::Masters(MasterEvent::Follow(n)));
        }
        let registry = self.replicas[on].0.clone();
        let mut effects = Vec::new();
        let config = Config { shards: self.shards, ..Config::default() };
        let machine = Leader::new(config, Term(self.terms), &mut effects);
        let shard = |index| Shard::new(View::empty(ShardId { index, count: self.shards }), Policy::default());
        self.reigns.push(Reign {
            term: self.terms,
            machine,
            registry,
            applied_at: world.now_ms,
            shards: (0..self.shards).map(shard).collect(),
            proposals: VecDeque::new(),
            tickets: 0,
            flush_waits: false,
            appended: VecDeque::new(),
            serving: false,
            wake_at: None,
            deposed: false,
            streams: BTreeMap::new(),
        });
        self.perform(world, self.terms, effects);
    }

    fn reign(&mut self, term: u64) -> Option<&mut Reign> {
        self.reigns.iter_mut().find(|reign| reign.term == term)
    }

    fn step(&mut self, world: &mut World, term: u64, input: Input) {
        let Some(reign) = self.reign(term) else { return };
        let mut effects = Vec::new();
        let now = reign.now(world);
        reign.machine.step(now, &reign.registry, input, &mut effects);
        self.perform(world, term, effects);
    }

    fn perform(&mut self, world: &mut World, term: u64, effects: Vec<Effect>) {
        for effect in effects {
            let Some(reign) = self.reign(term) else { return };
            match effect {
                Effect::Propose(command) => {
                    reign.proposals.push_back(command);
                    if !std::mem::replace(&mut reign.flush_waits, true) {
                        world.soon(2, Event::Masters(MasterEvent::Flush(term)));
                    }
                }
                Effect::Send(stream, event) => {
                    if reign.streams.contains_key(&stream) {
                        world.down(stream, fence(term), DownFrame::Event(Box::new(event)));
                    }
                }
                Effect::Close(stream) => {
                    if reign.streams.remove(&stream).is_some() {
                        world.cut(stream, true);
                        self.step(world, term, Input::Closed(stream));
                    }
                }
                Effect::Allocate { shard, now, inputs } => {
                    let output = reign.allocate(shard, now, inputs);
                    world.soon(2, Event::Masters(MasterEvent::Allocated(term, shard, Box::new(output))));
                }
                Effect::Answer { .. } => {}
                Effect::Serve => {
                    reign.serving = true;
                    self.serve(world, term);
                }
            }
        }
        let Some(reign) = self.reign(term) else { return };
        let Some(at) = reign.machine.wake_at() else { return };
        let due = world.now_ms + at.since_ms(reign.now(world)).max(1);
        if reign.wake_at.is_none_or(|waits| waits > due || waits <= world.now_ms) {
            reign.wake_at = Some(due);
            world.at(due, Event::Masters(MasterEvent::Wake(term)));
        }
    }

    /// All open streams learn who leads: those on a link keep their stream, those of the dead master lost it.
    fn serve(&mut self, world: &mut World, term: u64) {
        let streams: Vec<(u64, u64)> = world.streams.iter().map(|(id, it)| (*id, it.reign)).collect();
        for (stream, former) in streams {
            if former != 0 && former != term && world.dice.percent(33) {
                world.cut(stream, true);
                self.closed(world, stream, former);
                continue;
            }
            if former != 0 && former != term {
                self.closed(world, stream, former);
            }
            self.attach(world, stream);
        }
    }

    /// A stream is attached to the reign that serves.
    pub(crate) fn attach(&mut self, world: &mut World, stream: u64) {
        let Some(reign) = self.reigns.iter_mut().rev().find(|reign| reign.serving && !reign.deposed) else {
            return;
        };
        let Some(it) = world.streams.get_mut(&stream).filter(|it| it.reign != reign.term) else { return };
        it.reign = reign.term;
        reign.streams.insert(stream, it.client);
        let term = reign.term;
        world.down(stream, fence(term), DownFrame::Leader);
    }

    /// A stream that belonged to a reign is gone.
    pub(crate) fn closed(&mut self, world: &mut World, stream: u64, term: u64) {
        let known = self.reign(term).is_some_and(|reign| reign.streams.remove(&stream).is_some());
        if known {
            self.step(world, term, Input::Closed(stream));
        }
    }

    pub(crate) fn call(&mut self, world: &mut World, stream: u64, term: u64, call: Call) {
        let known = self.reign(term).is_some_and(|reign| reign.streams.contains_key(&stream));
        if known {
            self.step(world, term, Input::Call { conn: stream, call });
        }
    }

    pub(crate) fn happen(&mut self, world: &mut World, event: MasterEvent) {
        match event {
            MasterEvent::Flush(term) => {
                let Some(reign) = self.reign(term) else { return };
                reign.flush_waits = false;
                let first_ticket = reign.tickets + 1;
                let commands: Vec<_> = reign.proposals.drain(..).collect();
                reign.tickets += commands.len() as u64;
                let at = match commands.first() {
                    Some(Command::BeginTerm(_)) => reign.registry.clock(),
                    _ => reign.now(world),
                };
                // A wall clock that jumps about decides nothing.
                let wall = WallTime(world.dice.between(0, u64::MAX));
                reign.appended.push_back(Entry { term: Term(term), at, wall, first_ticket, commands });
                let slow = if world.is_calm { 3 } else { 12 };
                world.soon(slow, Event::Masters(MasterEvent::Commit(term)));
            }
            MasterEvent::Commit(term) => self.commit_next(world, term),
            MasterEvent::Allocated(term, shard, output) => {
                self.step(world, term, Input::Allocated(shard, *output));
            }
            MasterEvent::Wake(term) => self.step(world, term, Input::Wake),
            MasterEvent::Over(term) => {
                let Some(at) = self.reigns.iter().position(|reign| reign.term == term) else { return };
                let reign = self.reigns.remove(at);
                let (mut effects, streams) = (Vec::new(), reign.streams);
                reign.machine.resign(&mut effects);
                for effect in effects {
                    if let Effect::Send(stream, event) = effect
                        && streams.contains_key(&stream)
                    {
                        world.down(stream, fence(term), DownFrame::Event(Box::new(event)));
                    }
                }
                for stream in streams.into_keys() {
                    if let Some(it) = world.streams.get_mut(&stream).filter(|it| it.reign == term) {
                        it.reign = 0;
                        self.attach(world, stream);
                    }
                }
            }
            MasterEvent::Follow(n) => {
                self.follow(n);
            }
        }
    }

    fn commit_next(&mut self, world: &mut World, term: u64) {
        let Some(reign) = self.reign(term).filter(|reign| !reign.deposed) else { return };
        let Some(entry) = reign.appended.pop_front() else { return };
        let now_ms = world.now_ms;
        self.commit(Term(term), entry.clone());
        let index = self.log.len() as u64;
        let Some(reign) = self.reign(term) else { return };
        let applied = reign.registry.apply(Index(index), Term(term), &entry);
        reign.applied_at = now_ms;
        if index.is_multiple_of(LAWS_EVERY) {
            reign.registry.check_laws().unwrap_or_else(|law| panic!("at {now_ms} ms: {law}"));
        }
        note_launches(&mut self.launched, &entry.commands, &applied.outcomes);
        let changes = Arc::new(applied.changes);
        let committed = Committed {
            index: Index(index),
            first_ticket: Some(entry.first_ticket),
            outcomes: applied.outcomes,
            changes,
        };
        self.step(world, term, Input::Applied(vec![committed]));
    }

    /// No resource is in two live offers, nor in an offer and in use.
    pub(crate) fn check_offers(&self, seed: u64, now_ms: u64) {
        for reign in self.reigns.iter().filter(|reign| !reign.deposed) {
            let mut offered: BTreeMap<_, Resources> = BTreeMap::new();
            for offer in reign.machine.offers() {
                offered.entry(offer.agent_id.clone()).or_default().add(&offer.resources);
            }
            for (agent_id, offered) in offered {
                let Some(agent) = reign.registry.agent(&agent_id).filter(|agent| agent.strays.is_empty())
                else {
                    continue;
                };
                let free = agent.info.resources.minus(&reign.registry.held_on(&agent_id));
                assert!(
                    free.contains(&offered),
                    "seed {seed} at {now_ms} ms: {agent_id} has {free} free, but {offered} is offered"
                );
            }
        }
    }

    /// All replicas come to the same state.
    pub(crate) fn check_replicas(&mut self, seed: u64) {
        for n in 0..self.replicas.len() {
            self.follow(n);
        }
        let hash = self.registry().state_hash();
        for (n, (registry, _)) in self.replicas.iter().enumerate() {
            assert_eq!(registry.state_hash(), hash, "seed {seed}: replica {n} differs");
        }
    }
}

impl Reign {
    /// Registry time as this leader sees it.
    fn now(&self, world: &World) -> Timestamp {
        self.registry.clock().plus_ms((world.now_ms - self.applied_at).min(2_000))
    }

    fn allocate(&mut self, shard: u32, now: Timestamp, inputs: Vec<ShardInput>) -> ShardOutput {
        self.shards[shard as usize].step(now, inputs)
    }
}

/// Takes down what was launched: on whichever replica it is seen first, it is the same.
fn note_launches(launched: &mut BTreeMap<LaunchNumber, TaskKey>, commands: &[Command], outcomes: &[Outcome]) {
    for (outcome, command) in outcomes.iter().zip(commands) {
        let (Outcome::Launched(outcome), Command::Launch(launch)) = (outcome, command) else { continue };
        for (task_id, became) in &outcome.tasks {
            if let TaskOutcome::Launched(number) = became {
                let key = TaskKey { framework_id: launch.framework_id.clone(), task_id: task_id.clone() };
                let before = launched.insert(*number, key.clone());
                assert!(before.is_none_or(|it| it == key), "launch {number} names two tasks");
            }
        }
    }
}

fn fence(term: u64) -> Fence {
    Fence { incarnation: 1, term: Term(term) }
}
