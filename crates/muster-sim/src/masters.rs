//! Three registries over a toy log, and the leader's machine with its shards. A deposed leader goes on for a
//! while without knowing it; what it proposes never commits.

use crate::{
    dice::Dice,
    fault::{Fault, Step, What},
    forge::{Said, Spoken},
    plan::{Law, Plan},
    world::{Client, DownFrame, Event, World},
};
use muster_allocator::{Policy, Shard, ShardId, ShardInput, ShardOutput, View};
use muster_leader::{Committed, Config, Effect, Input, Leader, OperatorCall};
use muster_model::{
    AgentId, Call, CallOutcome, ClusterId, Event as Frame, Fence, FrameworkId, Index, LaunchNumber, OfferId,
    Reason, Resources, SchedulerCall, SchedulerEvent, TaskKey, TaskOutcome, TaskState, Term, Timestamp, Uuid,
    WallTime,
};
use muster_registry::{Change, Command, Entry, Limits, Outcome, Registry};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// All laws of the registry are checked at each so many entries: they look at everything.
const LAWS_EVERY: u64 = 64;

/// Short times, so that each of them runs out in a run.
fn limits() -> Limits {
    Limits { agent_timeout_ms: 8_000, spent_offers_ms: 20_000, ..Limits::default() }
}

fn config(shards: u32) -> Config {
    Config {
        shards,
        reconnect_grace_ms: 5_000,
        agent_timeout_ms: limits().agent_timeout_ms,
        offer_timeout_ms: 4_000,
        heartbeat_ms: 1_000,
        ping_ms: 1_000,
        ..Config::default()
    }
}

#[derive(Debug, Clone)]
pub(crate) enum MasterEvent {
    /// A reign's proposer makes an entry of what waits.
    Flush(u64),
    /// The oldest entry of a reign that is not committed commits, and its leader applies it.
    Commit(u64),
    /// A reign's machine hears of the entries that were applied meanwhile.
    Told(u64),
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
    /// As of the newest entry it applied: its machine may not have heard of all.
    registry: Registry,
    applied_at: u64,
    /// Applied, and not told to the machine.
    untold: Vec<Committed>,
    told_waits: bool,
    /// Agents of which operators made something else in this term.
    reshaped: BTreeSet<AgentId>,
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
    /// Who began a session, and on which stream.
    begun: Vec<(Client, u64)>,
}

#[derive(Debug)]
pub(crate) struct Masters {
    shards: u32,
    dice: Dice,
    log: Vec<(Term, Entry)>,
    /// Replicas and how much of the log each has applied.
    replicas: Vec<(Registry, usize)>,
    reigns: Vec<Reign>,
    terms: u64,
    /// Nothing commits before this.
    stall_until: u64,
    /// Every launch that was committed.
    pub(crate) launched: BTreeMap<LaunchNumber, TaskKey>,
    /// How much of the log was looked at, whichever replica applied it first.
    seen: usize,
    /// What each offer launched.
    spent: BTreeMap<OfferId, BTreeSet<LaunchNumber>>,
    /// Updates that were acknowledged, and where.
    acknowledged: BTreeMap<Uuid, Index>,
    /// Frameworks that were torn down, not looked at yet.
    pub(crate) removed: Vec<FrameworkId>,
    all_removed: BTreeSet<FrameworkId>,
    /// What operators asked, by number, and were not answered.
    asked: BTreeMap<u64, OperatorCall>,
    asked_count: u64,
}

impl Masters {
    pub(crate) fn new(plan: &Plan) -> Self {
        let replica = || (Registry::new(ClusterId::new("sim"), 1), 0);
        let first = Entry { commands: vec![Command::Configure(limits())], ..Entry::default() };
        Self {
            shards: plan.shards.max(1),
            dice: Dice::of(plan.seed, "masters", 0),
            log: vec![(Term(0), first)],
            replicas: (0..3).map(|_| replica()).collect(),
            reigns: Vec::new(),
            terms: 0,
            stall_until: 0,
            launched: BTreeMap::new(),
            seen: 0,
            spent: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            removed: Vec::new(),
            all_removed: BTreeSet::new(),
            asked: BTreeMap::new(),
            asked_count: 0,
        }
    }

    pub(crate) fn terms(&self) -> u64 {
        self.terms
    }

    pub(crate) fn entries(&self) -> u64 {
        self.log.len() as u64
    }

    /// The registry with everything that is committed, as far as the leader has applied it.
    pub(crate) fn registry(&self) -> &Registry {
        match self.reigns.iter().find(|reign| !reign.deposed) {
            Some(reign) => &reign.registry,
            None => &self.replicas[0].0,
        }
    }

    /// Whether a leader serves that has applied all that is committed.
    pub(crate) fn is_led(&self) -> bool {
        let leader = self.reigns.iter().find(|reign| !reign.deposed && reign.serving);
        leader.is_some_and(|reign| reign.registry.applied().0 == self.entries())
    }

    pub(crate) fn stall(&mut self, world: &World, ms: u64) {
        self.stall_until = self.stall_until.max(world.now_ms + ms);
    }

    fn follow(&mut self, world: &mut World, n: usize) {
        while self.replicas[n].1 < self.log.len() {
            let (registry, applied) = &mut self.replicas[n];
            let (term, entry) = &self.log[*applied];
            *applied += 1;
            let index = Index(*applied as u64);
            let done = registry.apply(index, *term, entry);
            if *applied > self.seen {
                self.look(world, index, &done.outcomes, &done.changes);
            }
        }
    }

    /// A new leader is elected: the former may not know yet; of what it had not committed a part is lost.
    pub(crate) fn elect(&mut self, world: &mut World, pick: u64) {
        let mut dice = Dice::of(pick, "election", 0);
        for n in 0..self.reigns.len() {
            if self.reigns[n].deposed {
                continue;
            }
            let reign = &mut self.reigns[n];
            reign.deposed = true;
            let term = reign.term;
            let kept = dice.between(0, reign.appended.len() as u64 + 1) as usize;
            self.log.extend(reign.appended.drain(..kept).map(|entry| (Term(term), entry)));
            // Killed at once, or paused and unaware for a while.
            let over = if dice.percent(50) { 0 } else { dice.between(1, 400) };
            world.at(world.now_ms + over, Event::Masters(MasterEvent::Over(term)));
        }
        self.terms += 1;
        let on = dice.between(0, 3) as usize;
        // It may be behind: then it applies the rest before its first own entry.
        if dice.percent(50) {
            self.follow(world, on);
        }
        self.snapshot(world, on, &mut Dice::of(pick, "snapshot", 0));
        for n in 0..self.replicas.len() {
            world.at(world.now_ms + 7 + n as u64, Event::Masters(MasterEvent::Follow(n)));
        }
        let registry = self.replicas[on].0.clone();
        let mut effects = Vec::new();
        let machine = Leader::new(config(self.shards), Term(self.terms), &mut effects);
        let shard = |index| Shard::new(View::empty(ShardId { index, count: self.shards }), Policy::default());
        self.reigns.push(Reign {
            term: self.terms,
            machine,
            registry,
            applied_at: world.now_ms,
            untold: Vec::new(),
            told_waits: false,
            reshaped: BTreeSet::new(),
            shards: (0..self.shards).map(shard).collect(),
            proposals: VecDeque::new(),
            tickets: 0,
            flush_waits: false,
            appended: VecDeque::new(),
            serving: false,
            wake_at: None,
            deposed: false,
            streams: BTreeMap::new(),
            begun: Vec::new(),
        });
        self.perform(world, self.terms, effects);
    }

    /// A replica may have what it has from a snapshot: of its own, as after a restart, or of one that is further.
    fn snapshot(&mut self, world: &mut World, to: usize, dice: &mut Dice) {
        let from = dice.between(0, 2 * self.replicas.len() as u64) as usize;
        let Some((registry, applied)) = self.replicas.get(from) else { return };
        if *applied < self.replicas[to].1 {
            return;
        }
        match Registry::restore(registry.records()) {
            Ok(restored) => {
                let is_same = restored == *registry && restored.state_hash() == registry.state_hash();
                world
                    .demand(is_same, Law::Replicas, || format!("a snapshot of entry {applied} is not alike"));
                world.counts.restored += 1;
                self.replicas[to] = (restored, *applied);
            }
            Err(error) => {
                world.demand(false, Law::Registry, || format!("no registry in a snapshot: {error}"))
            }
        }
    }

    /// Operators ask for something: one or two of them, each by way of a leader that may be deposed.
    pub(crate) fn operate(&mut self, world: &mut World, call: &OperatorCall, dice: &mut Dice) {
        for _ in 0..dice.between(1, 3) {
            let terms: Vec<u64> = self.reigns.iter().map(|reign| reign.term).collect();
            let Some(term) = dice.one_of(&terms) else { return };
            self.asked_count += 1;
            let id = self.asked_count;
            self.asked.insert(id, call.clone());
            self.step(world, term, Input::Operator { id, call: call.clone() });
        }
    }

    /// What an operator is told is so in the log that is committed.
    fn answered(&mut self, world: &mut World, term: u64, id: u64, outcome: &CallOutcome) {
        let Some(call) = self.asked.remove(&id) else {
            return world
                .demand(false, Law::Acknowledged, || format!("an operator is answered twice: {outcome:?}"));
        };
        let Some(registry) = self.reign(term).map(|reign| &reign.registry) else { return };
        let is_done = match &call {
            OperatorCall::Teardown(id) => registry.is_removed(id),
            OperatorCall::MarkGone(id) => {
                registry.agent(id).is_some_and(|agent| agent.state_name() == "gone")
            }
            // Another operator may have asked for something else since.
            _ => true,
        };
        let told_done = *outcome == CallOutcome::Done;
        world.counts.operated += u64::from(told_done);
        world.demand(is_done || !told_done, Law::Acknowledged, || {
            format!("term {term}: {call:?} is told to be done, and is not")
        });
    }

    fn reign(&mut self, term: u64) -> Option<&mut Reign> {
        self.reigns.iter_mut().find(|reign| reign.term == term)
    }

    fn is_deposed(&mut self, term: u64) -> bool {
        self.reign(term).is_none_or(|reign| reign.deposed)
    }

    /// Whether a fault struck this leader that ended its term.
    fn struck(&mut self, world: &mut World, term: u64, step: Step, stream: Option<u64>) -> bool {
        if self.is_deposed(term) {
            return false;
        }
        let Some(Fault { what, pick, .. }) = world.strike(step) else { return false };
        match (what, stream) {
            (What::Cut, Some(stream)) => {
                world.breaks(stream);
                false
            }
            _ => {
                self.elect(world, pick);
                true
            }
        }
    }

    fn step(&mut self, world: &mut World, term: u64, input: Input) {
        let is_applied = matches!(input, Input::Applied(_));
        let Some(reign) = self.reign(term) else { return };
        let mut effects = Vec::new();
        let now = reign.now(world);
        reign.machine.step(now, &reign.registry, input, &mut effects);
        if is_applied && self.struck(world, term, Step::Applied, None) {
            return; // what follows from it is never sent
        }
        self.perform(world, term, effects);
    }

    fn perform(&mut self, world: &mut World, term: u64, effects: Vec<Effect>) {
        for effect in effects {
            let Some(reign) = self.reign(term) else { return };
            let over = match effect {
                Effect::Propose(command) => {
                    reign.proposals.push_back(command);
                    if !std::mem::replace(&mut reign.flush_waits, true) {
                        world.soon(2, Event::Masters(MasterEvent::Flush(term)));
                    }
                    self.struck(world, term, Step::Proposed, None)
                }
                Effect::Send(stream, event) => {
                    self.send(world, term, stream, event);
                    self.struck(world, term, Step::Answered, Some(stream))
                }
                Effect::Close(stream) => {
                    if reign.streams.remove(&stream).is_some() {
                        world.close(stream);
                        self.step(world, term, Input::Closed(stream));
                    }
                    false
                }
                Effect::Allocate { shard, now, inputs } => {
                    let output = reign.allocate(shard, now, inputs);
                    world.soon(2, Event::Masters(MasterEvent::Allocated(term, shard, Box::new(output))));
                    false
                }
                Effect::Answer { id, outcome } => {
                    self.answered(world, term, id, &outcome);
                    false
                }
                Effect::Serve => {
                    reign.serving = true;
                    self.serve(world, term);
                    false
                }
            };
            if over {
                return;
            }
        }
        let Some(reign) = self.reign(term) else { return };
        let Some(at) = reign.machine.wake_at() else { return };
        let due = world.now_ms + at.since_ms(reign.now(world)).max(1);
        if reign.wake_at.is_none_or(|waits| waits > due) {
            reign.wake_at = Some(due);
            world.at(due, Event::Masters(MasterEvent::Wake(term)));
        }
    }

    /// Sends an event down a stream, if it may be said.
    fn send(&mut self, world: &mut World, term: u64, stream: u64, event: Frame) {
        let Some(reign) = self.reigns.iter().find(|reign| reign.term == term) else { return };
        if !reign.streams.contains_key(&stream) {
            return;
        }
        match &event {
            Frame::Scheduler(SchedulerEvent::Outcome { outcome: CallOutcome::Accepted(outcome), .. }) => {
                for (task_id, became) in &outcome.tasks {
                    let TaskOutcome::Launched(number) = became else { continue };
                    let known = self.launched.get(number).is_some_and(|key| key.task_id == *task_id);
                    world.demand(known, Law::Acknowledged, || {
                        format!(
                            "term {term}: {task_id} is answered as launch {number}, which is not committed"
                        )
                    });
                }
            }
            Frame::Scheduler(SchedulerEvent::Update { task_id, uuid: Some(uuid), .. }) => {
                let done = self.acknowledged.get(uuid).is_some_and(|at| *at <= reign.registry.applied());
                world.demand(!done || !reign.untold.is_empty(), Law::Once, || {
                    format!("term {term}: update {uuid} of {task_id} is sent again, and was acknowledged")
                });
            }
            _ => {}
        }
        world.down(stream, fence(term), DownFrame::Event(Arc::new(event)));
    }

    /// All open streams learn who leads: those on a link keep their stream, those of the dead master lost it.
    fn serve(&mut self, world: &mut World, term: u64) {
        let streams: Vec<(u64, u64)> = world.streams.iter().map(|(id, it)| (*id, it.reign)).collect();
        for (stream, former) in streams {
            if former != 0 && former != term && self.dice.percent(33) {
                world.cut(stream);
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
        let known = self.reign(term).and_then(|reign| {
            let client = *reign.streams.get(&stream)?;
            if call.begins_a_session() {
                reign.begun.push((client, stream));
            }
            Some(())
        });
        if known.is_some() {
            self.step(world, term, Input::Call { conn: stream, call });
        }
    }

    /// A call that nobody makes at present, perhaps on a stream that is over.
    pub(crate) fn forged(&mut self, world: &mut World, said: Said) {
        let Some(reign) = self.reign(said.reign).filter(|reign| reign.serving) else { return };
        let has_begun = |(client, stream): &(Client, u64)| *client == said.client && *stream > said.stream;
        if said.call.begins_a_session() && !reign.begun.iter().any(has_begun) {
            return; // it is not late yet, and a stream brings nothing twice
        }
        if let Call::Scheduler { call: SchedulerCall::Subscribe { framework_id: None, token, .. }, .. } =
            &*said.call
            && token.is_none_or(|token| reign.registry.framework_of(token).is_none())
        {
            return; // it would be a framework of nobody
        }
        self.step(world, said.reign, Input::Call { conn: said.stream, call: (*said.call).clone() });
        if said.call.begins_a_session() {
            // The stream is over: that comes after what came late.
            self.step(world, said.reign, Input::Closed(said.stream));
        }
    }

    pub(crate) fn happen(&mut self, world: &mut World, event: MasterEvent) {
        match event {
            MasterEvent::Flush(term) => self.flush(world, term),
            MasterEvent::Commit(term) => self.commit_next(world, term),
            MasterEvent::Told(term) => self.tell(world, term),
            MasterEvent::Allocated(term, shard, output) => {
                let granted = !output.grants.is_empty();
                self.step(world, term, Input::Allocated(shard, *output));
                if granted {
                    self.struck(world, term, Step::Granted, None);
                }
                self.check_offers(world, term);
            }
            MasterEvent::Wake(term) => {
                // One that was set for later and overtaken by an earlier one is void.
                let is_due = |reign: &&mut Reign| reign.wake_at == Some(world.now_ms);
                if let Some(reign) = self.reign(term).filter(is_due) {
                    reign.wake_at = None;
                    self.step(world, term, Input::Wake);
                }
            }
            MasterEvent::Over(term) => self.over(world, term),
            MasterEvent::Follow(n) => self.follow(world, n),
        }
    }

    fn flush(&mut self, world: &mut World, term: u64) {
        let wall = WallTime(self.dice.between(0, u64::MAX)); // a wall clock that jumps about decides nothing
        let Some(reign) = self.reign(term) else { return };
        reign.flush_waits = false;
        let first_ticket = reign.tickets + 1;
        let commands: Vec<_> = reign.proposals.drain(..).collect();
        reign.tickets += commands.len() as u64;
        let at = match commands.first() {
            Some(Command::BeginTerm(_)) => reign.registry.clock(),
            _ => reign.now(world),
        };
        reign.appended.push_back(Entry { term: Term(term), at, wall, first_ticket, commands });
        let slow = if world.is_calm { 3 } else { 12 };
        world.soon(slow, Event::Masters(MasterEvent::Commit(term)));
        self.struck(world, term, Step::Appended, None);
    }

    /// A deposed leader learns of it: its clients look for the next one.
    fn over(&mut self, world: &mut World, term: u64) {
        let Some(at) = self.reigns.iter().position(|reign| reign.term == term) else { return };
        let reign = self.reigns.remove(at);
        let (mut effects, streams) = (Vec::new(), reign.streams);
        reign.machine.resign(&mut effects);
        for effect in effects {
            if let Effect::Send(stream, event) = effect
                && streams.contains_key(&stream)
            {
                world.down(stream, fence(term), DownFrame::Event(Arc::new(event)));
            }
        }
        for stream in streams.into_keys() {
            if let Some(it) = world.streams.get_mut(&stream).filter(|it| it.reign == term) {
                it.reign = 0;
                self.attach(world, stream);
            }
        }
    }

    fn commit_next(&mut self, world: &mut World, term: u64) {
        if world.now_ms < self.stall_until && !world.is_calm {
            return world.at(self.stall_until, Event::Masters(MasterEvent::Commit(term)));
        }
        let Some(reign) = self.reigns.iter_mut().find(|it| it.term == term && !it.deposed) else { return };
        let Some(entry) = reign.appended.pop_front() else { return };
        self.log.push((Term(term), entry));
        if self.struck(world, term, Step::Committed, None) {
            return; // committed, and its own leader never hears of it
        }
        self.apply(world, term);
    }

    /// A leader applies what is committed; its machine hears of it a little later, of several entries at
    /// once.
    fn apply(&mut self, world: &mut World, term: u64) {
        let log = self.log.len();
        let Some(at) = self.reigns.iter().position(|it| it.term == term && !it.deposed) else { return };
        while self.reigns[at].registry.applied().0 < log as u64 {
            let reign = &mut self.reigns[at];
            let index = Index(reign.registry.applied().0 + 1);
            let (written, entry) = &self.log[index.0 as usize - 1];
            let applied = reign.registry.apply(index, *written, entry);
            reign.applied_at = world.now_ms;
            if index.0.is_multiple_of(LAWS_EVERY) {
                let lawful = reign.registry.check_laws();
                world.demand(lawful.is_ok(), Law::Registry, || lawful.err().unwrap_or_default());
            }
            let first_ticket = (entry.term.0 == term).then_some(entry.first_ticket);
            let is_new = index.0 as usize > self.seen;
            let changes = Arc::new(applied.changes);
            let outcomes = applied.outcomes;
            let told =
                Committed { index, first_ticket, outcomes: outcomes.clone(), changes: changes.clone() };
            reign.untold.push(told);
            reign.reshaped.extend(changes.iter().filter_map(|change| match change {
                Change::TotalChanged { agent_id, .. } => Some(agent_id.clone()),
                _ => None,
            }));
            if !std::mem::replace(&mut reign.told_waits, true) {
                world.soon(3, Event::Masters(MasterEvent::Told(term)));
            }
            if is_new {
                self.look(world, index, &outcomes, &changes);
            }
        }
    }

    fn tell(&mut self, world: &mut World, term: u64) {
        let Some(reign) = self.reign(term) else { return };
        reign.told_waits = false;
        let entries = std::mem::take(&mut reign.untold);
        self.step(world, term, Input::Applied(entries));
        self.check_offers(world, term);
    }

    /// Takes down what came of an entry: on whichever replica it is seen first, it is the same.
    fn look(&mut self, world: &mut World, index: Index, outcomes: &[Outcome], changes: &[Change]) {
        self.seen = index.0 as usize;
        let (term, entry) = &self.log[self.seen - 1];
        for (outcome, command) in outcomes.iter().zip(&entry.commands) {
            let launched = match (outcome, command) {
                (Outcome::Launched(outcome), Command::Launch(launch)) => {
                    Some((outcome, &launch.framework_id, &launch.offer_ids))
                }
                (Outcome::Operated(outcome), Command::Operate(operate)) => {
                    Some((&outcome.tasks, &operate.framework_id, &operate.offer_ids))
                }
                (Outcome::Done, Command::Acknowledge { uuid, .. }) => {
                    world.counts.acknowledged += 1;
                    self.acknowledged.insert(*uuid, index);
                    None
                }
                _ => None,
            };
            if let Some((outcome, framework_id, offer_ids)) = launched {
                let mut numbers = BTreeSet::new();
                for (task_id, became) in &outcome.tasks {
                    let TaskOutcome::Launched(number) = became else { continue };
                    numbers.insert(*number);
                    let framework_id = framework_id.clone();
                    let key = TaskKey { framework_id, task_id: task_id.clone() };
                    let before = self.launched.insert(*number, key.clone());
                    world.demand(before.as_ref().is_none_or(|it| *it == key), Law::Numbers, || {
                        format!("launch {number} is {before:?} and {key}")
                    });
                }
                let is_new = numbers.iter().any(|number| number.index == index);
                for offer_id in offer_ids {
                    let before = self.spent.entry(offer_id.clone()).or_insert_with(|| numbers.clone());
                    let alike = before.is_superset(&numbers);
                    world.demand(alike, Law::Spent, || {
                        format!("offer {offer_id} launched {before:?} and {numbers:?}")
                    });
                    let own = offer_id.as_str().contains(&format!("-O{term}-"));
                    world.demand(own || !is_new, Law::Spent, || {
                        format!("offer {offer_id} launched {numbers:?} in term {term}")
                    });
                }
            }
        }
        for change in changes {
            match change {
                Change::FrameworkRemoved(id) => {
                    world.counts.removed += 1;
                    let is_new = self.all_removed.insert(id.clone());
                    world.demand(is_new, Law::Failover, || format!("framework {id} is torn down twice"));
                    self.removed.push(id.clone());
                }
                // Agents' disks are never lost here: whatever an agent took on it still knows.
                Change::UpdateDue { task, status, .. } => {
                    let given_up = status.state == TaskState::Lost
                        && matches!(status.reason, Some(Reason::Reconciliation | Reason::AgentRestarted));
                    world.demand(!given_up, Law::Kept, || format!("{task} is given up: {}", status.message));
                }
                _ => {}
            }
        }
    }

    /// No resource is in two live offers, nor in an offer and in use.
    fn check_offers(&self, world: &mut World, term: u64) {
        let Some(reign) = self.reigns.iter().find(|it| it.term == term && !it.deposed) else { return };
        let mut offered: BTreeMap<_, Resources> = BTreeMap::new();
        for offer in reign.machine.offers() {
            offered.entry(&offer.agent_id).or_default().add(&offer.resources);
        }
        for (agent_id, offered) in offered {
            let agent = reign.registry.agent(agent_id).filter(|agent| agent.strays.is_empty());
            // What operators reserve is known to the log before the leader hears of it; it refuses what was on its way.
            let Some(agent) = agent.filter(|agent| !reign.reshaped.contains(&agent.id)) else { continue };
            let free = reign.registry.total_of(agent).minus(&reign.registry.held_on(agent_id));
            world.demand(free.contains(&offered), Law::Offers, || {
                format!("{agent_id} has {free} free, but {offered} is offered")
            });
        }
    }

    /// All replicas come to the same state, and it is lawful.
    pub(crate) fn check_end(&mut self, world: &mut World) {
        for n in 0..self.replicas.len() {
            self.follow(world, n);
        }
        world.demand(self.is_led(), Law::End, || "no leader serves".into());
        let registry = self.registry();
        let lawful = registry.check_laws();
        let hash = registry.state_hash();
        world.demand(lawful.is_ok(), Law::Registry, || lawful.err().unwrap_or_default());
        for (n, (registry, _)) in self.replicas.iter().enumerate() {
            world.demand(registry.state_hash() == hash, Law::Replicas, || format!("replica {n} differs"));
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

fn fence(term: u64) -> Fence {
    Fence { incarnation: 1, term: Term(term) }
}
