//! Launch and finish: a framework with short tasks, some of which it kills.

use crate::client::{Desk, Told, Work};
use crate::model::marking_command;
use crate::questions::Questions;
use crate::workload::Churn;
use muster_sdk::{Filters, Offer, Resources, SchedulerDriver, Task};
use rand::RngExt;
use rand::rngs::SmallRng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// What a task needs at least; offers with less are declined.
const TASK_CPUS_MILLI: u64 = 100;
const TASK_MEM_MB: u64 = 16;
/// How long tasks run that are to be killed: longer than a run waits for them.
const ENDLESS_MS: u64 = 600_000;
/// Offers kept that were used, and how often one is tried again.
const SPENT_MAX: usize = 4;
const SPENT_ONE_IN: u32 = 20;
/// Tasks that are open for longer keep nobody from launching others: their agent may be out of reach.
const OVERDUE: Duration = Duration::from_secs(5);
/// Tasks that ended and are asked about again.
const ENDED_MAX: usize = 4;

/// A framework that launches short tasks without end, kills some, and asks what became of them.
#[derive(Debug)]
pub(crate) struct Churning {
    desk: Desk,
    churn: Churn,
    rng: SmallRng,
    begun: Instant,
    launched: u64,
    /// Those that have not ended.
    tasks: BTreeMap<String, Open>,
    /// Offers that were used. Nothing must come of them any more.
    spent: VecDeque<Offer>,
    /// The last that was declined: no log knows of it, so that only its term keeps a later leader from taking it.
    declined: Option<Offer>,
    /// One that was declined under a former leader: tried when its agent is offered again, for before that the agent may
    /// not be back, or be full, and a refusal for that shows nothing.
    former: Option<Offer>,
    questions: Questions,
    /// The last that ended: they are asked about, too.
    ended: VecDeque<String>,
}

#[derive(Debug)]
struct Open {
    epoch: u64,
    launched: Instant,
    agent: String,
    /// Nothing was heard of it.
    undecided: bool,
    /// No update of it was heard.
    unseen: bool,
    /// It never ends by itself.
    kill: bool,
    /// The present scheduler has asked for its kill.
    kill_asked: bool,
}

impl Churning {
    pub(crate) fn new(desk: Desk, churn: Churn, rng: SmallRng) -> Self {
        Self {
            desk,
            churn,
            rng,
            begun: Instant::now(),
            launched: 0,
            tasks: BTreeMap::new(),
            spent: VecDeque::new(),
            declined: None,
            former: None,
            questions: Questions::default(),
            ended: VecDeque::new(),
        }
    }

    /// Those that were acknowledged as launched and have not ended.
    fn known(&self) -> BTreeSet<String> {
        self.tasks.iter().filter(|(_, open)| !open.undecided).map(|(task, _)| task.clone()).collect()
    }

    /// Launches a task on an offer that must not be taken, however many are open: nothing is to come of it.
    fn try_void(&mut self, driver: &SchedulerDriver, offer: Option<Offer>) {
        if self.desk.load.is_stopping() || self.launched >= self.churn.tasks_max {
            return;
        }
        let Some(offer) = offer else { return };
        if let Some(task) = self.task_for(&offer, &mut offer.resources.clone()) {
            self.desk.asked(driver.accept([&offer], [task], Filters::refuse(Duration::ZERO)));
        }
    }

    /// Keeps an offer that was used.
    fn keep_spent(&mut self, offer: &Offer) {
        self.spent.push_back(offer.clone());
        if self.spent.len() > SPENT_MAX {
            self.spent.pop_front();
        }
    }

    fn may_launch(&self) -> bool {
        !self.desk.load.is_stopping()
            && self.tasks.values().filter(|open| open.launched.elapsed() < OVERDUE).count()
                < self.churn.open_max
            && self.launched < self.churn.tasks_max
            && self.churn.pace.saturating_mul(u32::try_from(self.launched).unwrap_or(u32::MAX))
                <= self.begun.elapsed()
    }

    /// Asks for a task's kill, once. A full queue is no fault: it is tried again.
    fn kill(&mut self, driver: &SchedulerDriver, task: &str) {
        let asked = self.desk.kill(driver, task);
        if let Some(open) = self.tasks.get_mut(task) {
            open.kill_asked = asked;
        }
    }

    /// A task for what is left of an offer, if it has room.
    fn task_for(&mut self, offer: &Offer, left: &mut Resources) -> Option<Task> {
        let most = left.scalar("cpus").min(600);
        if most < TASK_CPUS_MILLI || !left.contains(&Resources::of(TASK_CPUS_MILLI, TASK_MEM_MB)) {
            return None;
        }
        let needs = Resources::of(self.rng.random_range(TASK_CPUS_MILLI..=most), TASK_MEM_MB);
        left.subtract(&needs);
        self.launched += 1;
        let id = format!("{}-{}", self.desk.name, self.launched);
        let kill = self.rng.random_ratio(1, self.churn.kill_one_in);
        let (shortest, longest) = self.churn.run_ms;
        let ms = if kill { ENDLESS_MS } else { self.rng.random_range(shortest..=longest) };
        let task = Task::command(&id, marking_command(&self.desk.marks, &id, ms)).resources(&needs);
        self.desk.load.opened(&id);
        self.desk.launches(&id, offer, &needs);
        let (epoch, agent) = (self.desk.load.epoch(), offer.hostname.to_string());
        let launched = Instant::now();
        self.tasks.insert(
            id,
            Open { epoch, launched, agent, undecided: true, unseen: true, kill, kill_asked: false },
        );
        Some(task)
    }
}

impl Work for Churning {
    /// What a former scheduler launched may have come to nothing, so a later one asks.
    fn registered(&mut self, driver: &SchedulerDriver) {
        // The former scheduler may have been killed with its calls unsaid.
        self.tasks.values_mut().for_each(|open| open.kill_asked = false);
        self.questions.void(&self.desk);
        self.questions.ask_about(&self.desk, driver, self.tasks.keys().cloned().collect());
    }

    /// Offers of the former leader are tried once more.
    fn reregistered(&mut self, driver: &SchedulerDriver) {
        self.former = self.declined.take().or(self.former.take());
        let spent = self.spent.pop_front();
        self.try_void(driver, spent);
    }

    fn offers(&mut self, driver: &SchedulerDriver, offers: &[Offer]) {
        let told_us = self.desk.now_us();
        for offer in offers {
            let former = self.former.take_if(|former| former.agent_id == offer.agent_id);
            self.try_void(driver, former);
            let mut left = offer.resources.clone();
            let mut tasks = Vec::new();
            // The first of each leader is declined, so that there is one for the next.
            while self.declined.is_some() && self.may_launch() {
                match self.task_for(offer, &mut left) {
                    Some(task) => tasks.push(task),
                    None => break,
                }
            }
            let refuse = self.rng.random_range(0..=self.churn.refuse_ms_max);
            let filters = Filters::refuse(Duration::from_millis(refuse));
            if tasks.is_empty() {
                self.declined = Some(offer.clone());
                // A declined offer comes back by itself when it times out.
                let _ = driver.decline([offer], Filters::refuse(Duration::from_millis(50 + refuse)));
                continue;
            }
            self.desk.accepts(offer, told_us);
            self.desk.asked(driver.accept([offer], tasks, filters));
            self.keep_spent(offer);
            if self.rng.random_ratio(1, SPENT_ONE_IN) {
                let spent = self.spent.pop_front();
                self.try_void(driver, spent);
            }
        }
        let to_kill = self.tasks.iter().filter(|(_, open)| open.kill && !open.kill_asked);
        for id in to_kill.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            // Some are killed before anything is heard of them.
            let undecided = self.tasks.get(&id).is_some_and(|open| open.undecided);
            if !undecided || self.rng.random_ratio(1, 4) {
                self.kill(driver, &id);
            }
        }
        if self.questions.is_due() && !self.desk.load.is_stopping() {
            self.questions.ask_in_turn(&self.desk, driver, self.known(), self.ended.iter().cloned());
        }
    }

    fn update(&mut self, driver: &SchedulerDriver, task: &str, told: Told) {
        if told.answer || (told.durable && told.state.is_terminal()) {
            self.questions.told(&self.desk, task);
        }
        let Some(open) = self.tasks.get_mut(task) else { return };
        let was_undecided = std::mem::replace(&mut open.undecided, false);
        let (kill, is_launched) = (open.kill, told.is_launched());
        if told.durable && std::mem::replace(&mut open.unseen, false) {
            self.desk.load.launched(open.epoch, &self.desk.name, &open.agent);
        }
        if was_undecided {
            self.desk.decided(task, is_launched);
        }
        if (told.durable && told.state.is_terminal()) || (was_undecided && !is_launched) {
            self.tasks.remove(task);
            self.desk.load.closed(task);
            self.ended.push_back(task.into());
            if self.ended.len() > ENDED_MAX {
                self.ended.pop_front();
            }
        } else if kill && !told.answer {
            self.kill(driver, task);
        }
    }

    fn ask(&mut self, driver: &SchedulerDriver) {
        self.questions.ask_about(&self.desk, driver, self.known());
    }
}
