//! A long-running set: as many tasks as there are slots, each to run on until it is killed. When one ends, and not
//! before its framework is told so, its slot is filled anew.

use crate::client::{Desk, Told, Work};
use crate::history::Event;
use crate::model::marking_command;
use crate::questions::Questions;
use crate::workload::Set;
use muster_sdk::{Filters, Offer, Resources, SchedulerDriver, Task, TaskState};
use rand::RngExt;
use rand::rngs::SmallRng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What each task needs.
const TASK_CPUS_MILLI: u64 = 100;
const TASK_MEM_MB: u64 = 16;
/// Longer than any run.
const FOREVER_MS: u64 = 1_000_000_000;
/// How many are launched on one offer, so that no agent has them all.
const TOGETHER_MAX: usize = 2;
/// How long an offer is not wanted: they are what it lives by, even when it launches nothing.
const REFUSE: Duration = Duration::from_millis(500);

/// The framework of a set.
#[derive(Debug)]
pub(crate) struct Keeping {
    desk: Desk,
    set: Set,
    rng: SmallRng,
    launched: u64,
    /// By number, from 1.
    slots: BTreeMap<u32, Option<Held>>,
    killed: Instant,
    /// It changes nothing more.
    is_settling: bool,
    questions: Questions,
}

/// What a slot holds.
#[derive(Debug)]
struct Held {
    task: String,
    /// Nothing was heard of it.
    undecided: bool,
    /// It is to end.
    kill: bool,
    /// The present scheduler has asked for that.
    kill_asked: bool,
}

impl Keeping {
    pub(crate) fn new(desk: Desk, set: Set, rng: SmallRng) -> Self {
        desk.record(Event::Keeps { slots: set.slots });
        let slots: BTreeMap<u32, Option<Held>> = (1..=set.slots).map(|slot| (slot, None)).collect();
        let keeping = Self {
            desk,
            set,
            rng,
            launched: 0,
            slots,
            killed: Instant::now(),
            is_settling: false,
            questions: Questions::default(),
        };
        keeping.slots.keys().for_each(|slot| keeping.is_open(*slot));
        keeping
    }

    fn slot_name(&self, slot: u32) -> String {
        format!("{}-{slot}", self.desk.name)
    }

    /// A slot is not as it is meant to be.
    fn is_open(&self, slot: u32) {
        self.desk.load.opened(&self.slot_name(slot));
    }

    fn held(&self) -> impl Iterator<Item = &Held> {
        self.slots.values().flatten()
    }

    /// Those that were acknowledged as launched and have not ended.
    fn known(&self) -> BTreeSet<String> {
        self.held().filter(|held| !held.undecided).map(|held| held.task.clone()).collect()
    }

    fn task_for(&mut self, slot: u32, offer: &Offer, left: &mut Resources) -> Option<Task> {
        let needs = Resources::of(TASK_CPUS_MILLI, TASK_MEM_MB);
        if !left.contains(&needs) {
            return None;
        }
        left.subtract(&needs);
        self.launched += 1;
        let id = format!("{}.{}", self.slot_name(slot), self.launched);
        let task = Task::command(&id, marking_command(&self.desk.marks, &id, FOREVER_MS)).resources(&needs);
        self.desk.launches(&id, offer, &needs);
        let held = Held { task: id, undecided: true, kill: false, kill_asked: false };
        self.slots.insert(slot, Some(held));
        Some(task)
    }

    /// Uses an offer of which it was told then, or declines it.
    fn launch(&mut self, driver: &SchedulerDriver, offer: &Offer, told_us: u64) {
        let empty: Vec<u32> = match self.desk.load.is_stopping() {
            true => Vec::new(),
            false => self.slots.iter().filter(|(_, held)| held.is_none()).map(|(slot, _)| *slot).collect(),
        };
        let mut left = offer.resources.clone();
        let some = empty.into_iter().take(TOGETHER_MAX);
        let tasks: Vec<Task> = some.filter_map(|slot| self.task_for(slot, offer, &mut left)).collect();
        if tasks.is_empty() {
            // A declined offer comes back by itself when it times out.
            let _ = driver.decline([offer], Filters::refuse(REFUSE));
        } else {
            self.desk.accepts(offer, told_us);
            self.desk.asked(driver.accept([offer], tasks, Filters::refuse(REFUSE)));
        }
    }

    /// One of those that are to be killed now and then is, unless the last one's slot is still open.
    fn choose_kill(&mut self) {
        let is_quiet = self.is_settling || self.desk.load.is_stopping();
        if is_quiet || self.killed.elapsed() < self.set.kill_pause {
            return;
        }
        let first = self.set.slots - self.set.killed.min(self.set.slots) + 1;
        let mut chosen: Vec<u32> = self.slots.range(first..).map(|(slot, _)| *slot).collect();
        chosen.retain(|slot| self.slots[slot].as_ref().is_some_and(|held| !held.undecided && !held.kill));
        if chosen.is_empty() {
            return;
        }
        let slot = chosen.swap_remove(self.rng.random_range(0..chosen.len()));
        self.killed = Instant::now();
        self.wants_end(slot);
    }

    fn wants_end(&mut self, slot: u32) {
        self.is_open(slot);
        if let Some(Some(held)) = self.slots.get_mut(&slot) {
            held.kill = true;
        }
    }

    /// Asks for the kills that the present scheduler has not asked for.
    fn kill(&mut self, driver: &SchedulerDriver) {
        let Self { desk, slots, .. } = self;
        for held in slots.values_mut().flatten().filter(|held| held.kill && !held.kill_asked) {
            held.kill_asked = desk.kill(driver, &held.task);
        }
    }
}

impl Work for Keeping {
    fn registered(&mut self, driver: &SchedulerDriver) {
        self.slots.values_mut().flatten().for_each(|held| held.kill_asked = false);
        self.questions.void(&self.desk);
        let all = self.held().map(|held| held.task.clone()).collect();
        self.questions.ask_about(&self.desk, driver, all);
        self.kill(driver);
    }

    fn offers(&mut self, driver: &SchedulerDriver, offers: &[Offer]) {
        let told_us = self.desk.now_us();
        offers.iter().for_each(|offer| self.launch(driver, offer, told_us));
        self.choose_kill();
        self.kill(driver);
        if self.questions.is_due() && !self.is_settling {
            self.questions.ask_in_turn(&self.desk, driver, self.known(), []);
        }
    }

    fn update(&mut self, driver: &SchedulerDriver, task: &str, told: Told) {
        let is_over = told.durable && told.state.is_terminal();
        if told.answer || is_over {
            self.questions.told(&self.desk, task);
        }
        let of = |held: &Option<Held>| held.as_ref().is_some_and(|held| held.task == task);
        let Some((slot, Some(held))) = self.slots.iter_mut().find(|(_, held)| of(held)) else { return };
        let slot = *slot;
        let was_undecided = std::mem::replace(&mut held.undecided, false);
        let (kill, is_launched) = (held.kill, told.is_launched());
        if was_undecided {
            self.desk.decided(task, is_launched);
        }
        if is_over || (was_undecided && !is_launched) {
            self.slots.insert(slot, None);
            if self.desk.load.is_stopping() {
                self.desk.load.closed(&self.slot_name(slot));
            } else {
                self.is_open(slot);
            }
        } else if kill {
            self.kill(driver);
        } else if told.state == TaskState::Running {
            self.desk.load.closed(&self.slot_name(slot));
        }
    }

    fn ask(&mut self, driver: &SchedulerDriver) {
        self.questions.ask_about(&self.desk, driver, self.known());
    }

    fn settle(&mut self) {
        self.is_settling = true;
    }

    fn wind_up(&mut self, driver: &SchedulerDriver) {
        for slot in self.slots.keys().copied().collect::<Vec<_>>() {
            match self.slots[&slot] {
                Some(_) => self.wants_end(slot),
                None => self.desk.load.closed(&self.slot_name(slot)),
            }
        }
        self.kill(driver);
    }
}
