//! What a run is made of, and what came of it.

use crate::{
    dice::Dice,
    fault::{self, Fault, Step},
};
use std::{collections::BTreeMap, fmt};

/// Everything that decides a run: the same plan gives the same run, to the last event. As text it is the
/// arguments that replay it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where all chance comes from but the faults'.
    pub seed: u64,
    /// How many agents, of four cpus each.
    pub agents: usize,
    /// How many frameworks.
    pub frameworks: usize,
    /// How many offer loops.
    pub shards: u32,
    /// How long faults strike and tasks are launched, in ms of virtual time. After that nothing goes wrong
    /// and everything must come to its end.
    pub ms: u64,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Whether some tasks share executors.
    pub executors: bool,
    /// What is wrong with the imitated shells, to see whether it is found.
    pub planted: Option<Planted>,
}

/// A bug of an imitated shell, for tests of the simulation itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// An agent's shell starts the command again when the order for a launch that lives comes again.
    StartsTwice,
    /// An agent's shell reports records as synced before they are on the disk.
    SyncsLate,
}

/// One fault in each so many ms of a drawn plan, on average.
const FAULT_EVERY_MS: u64 = 500;

impl Plan {
    /// The plan of a seed: one to four agents, one to three frameworks and shards, 10 to 30 s, a fault in
    /// each half second.
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::of(seed, "plan", 0);
        let mut plan = Self {
            seed,
            agents: dice.between(1, 5) as usize,
            frameworks: dice.between(1, 4) as usize,
            shards: dice.between(1, 4) as u32,
            ms: 1_000 * dice.between(10, 31),
            faults: Vec::new(),
            executors: false,
            planted: None,
        };
        plan.faults = fault::draw(&mut dice, plan.ms, FAULT_EVERY_MS);
        plan
    }

    /// A small plan in which nothing goes wrong: 2 agents, 2 frameworks, 5 s. What [`crate::sweep`] begins
    /// with.
    pub fn calm(seed: u64) -> Self {
        let (agents, frameworks, shards, ms) = (2, 2, 1, 5_000);
        Self { seed, agents, frameworks, shards, ms, faults: Vec::new(), executors: false, planted: None }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, agents, frameworks, shards, ms, faults, executors, planted: _ } = self;
        write!(f, "--replay {seed} --agents {agents} --frameworks {frameworks} --shards {shards} --ms {ms}")?;
        if *executors {
            write!(f, " --executors")?;
        }
        let faults: Vec<String> = faults.iter().map(Fault::to_string).collect();
        write!(f, " --faults {}", if faults.is_empty() { "none".into() } else { faults.join(",") })
    }
}

fault::words! {
    /// What must hold, whatever goes wrong.
    Law {
        /// The registry's own laws ([`muster_registry::Registry::check_laws`]).
        Registry = "registry",
        /// All replicas come to the same state.
        Replicas = "replicas",
        /// A launch number names one task.
        Numbers = "numbers",
        /// No resource is in two offers that stand, nor offered and in use.
        Offers = "offers",
        /// An offer launches once, and only in its term.
        Spent = "spent",
        /// What is acknowledged is committed.
        Acknowledged = "acknowledged",
        /// A launch is started at most once.
        Started = "started",
        /// No agent runs more than it has room for.
        Room = "room",
        /// No task of a group that its agent runs itself goes on when another failed.
        Group = "group",
        /// No task is given up that its agent has on its disk: disks are never lost here.
        Kept = "kept",
        /// A framework's updates of a task come in order, the newest perhaps again.
        Order = "order",
        /// An update that is acknowledged is not sent again.
        Once = "once",
        /// Frameworks and agents keep their ids, and nobody has two.
        Ids = "ids",
        /// A framework is torn down once, when its failover timeout ran out, and not before.
        Failover = "failover",
        /// Once nothing goes wrong any more, each task ends, its framework hears of it, and nothing stays
        /// held.
        End = "end",
        /// No client is turned away by a master.
        Served = "served",
        /// No machine panics.
        Panic = "panic",
    }
}

/// A law that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub law: Law,
    /// When, in ms of virtual time.
    pub at_ms: u64,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "law {:?} at {} ms: {}", self.law.name(), self.at_ms, self.what)
    }
}

/// How much happened: a simulation in which nothing happens proves nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Virtual time, in ms, healing included.
    pub virtual_ms: u64,
    /// Events.
    pub events: u64,
    /// Log entries.
    pub entries: u64,
    /// Leaders.
    pub terms: u64,
    /// Launches that were committed.
    pub launches: u64,
    /// Commands that were started.
    pub started: u64,
    /// Agents killed.
    pub crashes: u64,
    /// Streams that broke or stood still.
    pub breaks: u64,
    /// Schedulers that died.
    pub failovers: u64,
    /// Frameworks that were torn down.
    pub removed: u64,
    /// Frames delivered that were forged: stale, of another stream, or again.
    pub forged: u64,
    /// Updates acknowledged.
    pub acknowledged: u64,
    /// Operators' calls that were answered as done.
    pub operated: u64,
    /// Replicas whose registry came out of a snapshot.
    pub restored: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.virtual_ms += other.virtual_ms;
        self.events += other.events;
        self.entries += other.entries;
        self.terms += other.terms;
        self.launches += other.launches;
        self.started += other.started;
        self.crashes += other.crashes;
        self.breaks += other.breaks;
        self.failovers += other.failovers;
        self.removed += other.removed;
        self.forged += other.forged;
        self.acknowledged += other.acknowledged;
        self.operated += other.operated;
        self.restored += other.restored;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} s of virtual time, {} events, {} entries, {} leaders, {} launches, {} started, {} updates \
             acknowledged, {} agent crashes, {} broken streams, {} scheduler failovers, {} frameworks removed, {} \
             forged frames, {} operators' calls done, {} registries restored",
            self.virtual_ms / 1_000,
            self.events,
            self.entries,
            self.terms,
            self.launches,
            self.started,
            self.acknowledged,
            self.crashes,
            self.breaks,
            self.failovers,
            self.removed,
            self.forged,
            self.operated,
            self.restored,
        )
    }
}

/// What came of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// A hash of everything that happened, in order.
    pub trace: u64,
    /// How much happened.
    pub counts: Counts,
    /// How often each step was made while faults struck.
    pub steps: BTreeMap<Step, u64>,
    /// The faults that struck; the others met nobody.
    pub struck: Vec<Fault>,
    /// The first law that did not hold.
    pub failure: Option<Failure>,
}
