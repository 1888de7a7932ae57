//! A framework that does what a workload asks, and writes down what it is told.

use crate::history::{Amounts, Event, Phase, Recorder};
use crate::model::marking_command;
use crate::workload::{Churn, Load};
use muster_model::Value;
use muster_sdk::{
    Filters, Framework, FrameworkId, Offer, Resources, Scheduler, SchedulerDriver, SdkError, Task, TaskId,
    TaskUpdate,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a task needs at least; offers with less are declined.
const TASK_CPUS_MILLI: u64 = 100;
const TASK_MEM_MB: u64 = 16;

/// A running framework. Its connection breaks when this is dropped.
#[derive(Debug)]
pub struct Client(SchedulerDriver);

impl Client {
    /// Subscribes, and loads the cluster until the load is stopped.
    pub fn start(
        name: &str,
        masters: Vec<String>,
        marks: PathBuf,
        churn: Churn,
        load: Arc<Load>,
        recorder: Recorder,
        seed: u64,
    ) -> Result<Self, SdkError> {
        let scheduler = Churning {
            name: name.into(),
            marks,
            churn,
            load,
            recorder,
            rng: SmallRng::seed_from_u64(seed),
            begun: Instant::now(),
            launched: 0,
            tasks: BTreeMap::new(),
        };
        let framework = Framework::new(name).failover_timeout(Duration::from_secs(600));
        Ok(Self(SchedulerDriver::builder(masters).start(framework, scheduler)?))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Churning {
    name: String,
    marks: PathBuf,
    churn: Churn,
    load: Arc<Load>,
    recorder: Recorder,
    rng: SmallRng,
    begun: Instant,
    launched: u64,
    /// Those that have not ended.
    tasks: BTreeMap<String, Open>,
}

struct Open {
    epoch: u64,
    agent: String,
    /// Nothing was heard of it.
    undecided: bool,
    /// It is to be killed once it runs.
    kill: bool,
}

impl Churning {
    fn record(&self, event: Event) {
        self.recorder.record(&self.name, event);
    }

    fn launch_phase(&self, task: &str, phase: Phase) {
        let (agent, needs) = (String::new(), Amounts::new());
        self.record(Event::Launch { phase, task: task.into(), agent, needs });
    }

    fn may_launch(&self) -> bool {
        !self.load.is_stopping()
            && self.tasks.len() < self.churn.open_max
            && self.launched < self.churn.tasks_max
            && self.churn.pace.saturating_mul(u32::try_from(self.launched).unwrap_or(u32::MAX))
                <= self.begun.elapsed()
    }

    fn kill(&self, driver: &SchedulerDriver, task: &str) {
        self.record(Event::Kill { task: task.into() });
        // A full queue is no fault: the task ends by itself.
        let _ = driver.kill(&TaskId::new(task));
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
        let id = format!("{}-{}", self.name, self.launched);
        let kill = self.rng.random_ratio(1, self.churn.kill_one_in);
        // The killed ones run long enough to be met alive.
        let longest = if kill { self.churn.run_ms_max * 20 } else { self.churn.run_ms_max };
        let ms = self.rng.random_range(longest / 2 * u64::from(kill)..=longest);
        let task = Task::command(&id, marking_command(&self.marks, &id, ms)).resources(&needs);
        self.load.opened(&id);
        self.record(Event::Launch {
            phase: Phase::Invoked,
            task: id.clone(),
            agent: offer.hostname.to_string(),
            needs: amounts(&needs),
        });
        let (epoch, agent) = (self.load.epoch(), offer.hostname.to_string());
        self.tasks.insert(id, Open { epoch, agent, undecided: true, kill });
        Some(task)
    }
}

impl Scheduler for Churning {
    fn registered(&mut self, _: &SchedulerDriver, framework_id: &FrameworkId, _: &str) {
        self.record(Event::Registered { framework_id: framework_id.to_string() });
    }

    fn reregistered(&mut self, _: &SchedulerDriver, _: &str) {
        self.record(Event::Reregistered);
    }

    fn disconnected(&mut self, _: &SchedulerDriver) {
        self.record(Event::Disconnected);
    }

    fn resource_offers(&mut self, driver: &SchedulerDriver, offers: Vec<Offer>) {
        for offer in offers {
            let mut left = offer.resources.clone();
            let mut tasks = Vec::new();
            while self.may_launch() {
                match self.task_for(&offer, &mut left) {
                    Some(task) => tasks.push(task),
                    None => break,
                }
            }
            let refuse = self.rng.random_range(0..=self.churn.refuse_ms_max);
            let filters = Filters::refuse(Duration::from_millis(refuse));
            if tasks.is_empty() {
                // A declined offer comes back by itself when it times out.
                let _ = driver.decline([&offer], Filters::refuse(Duration::from_millis(50 + refuse)));
                continue;
            }
            let ids: Vec<_> =
                self.tasks.iter().filter(|(_, open)| open.undecided).map(|(id, _)| id.clone()).collect();
            if let Err(error) = driver.accept([&offer], tasks, filters) {
                self.record(Event::Error { message: error.to_string() });
            }
            // Some are killed before anything is heard of them.
            for id in ids {
                if self.tasks.get(&id).is_some_and(|open| open.kill) && self.rng.random_ratio(1, 4) {
                    self.kill(driver, &id);
                }
            }
        }
    }

    fn status_update(&mut self, driver: &SchedulerDriver, update: TaskUpdate) {
        let task = update.task_id.to_string();
        let (state, durable) = (update.status.state, update.uuid.is_some());
        let reason = update.status.reason.map_or("", |reason| reason.name());
        let message = &update.status.message;
        self.record(Event::Update {
            task: task.clone(),
            state: state.name().into(),
            terminal: state.is_terminal(),
            durable,
            reason: if reason.is_empty() { message.to_string() } else { format!("{reason} {message}") },
        });
        let Some(open) = self.tasks.get_mut(&task) else { return };
        let kill = open.kill;
        if std::mem::replace(&mut open.undecided, false) {
            if durable {
                self.load.launched(open.epoch, &open.agent);
            }
            self.launch_phase(&task, if durable { Phase::Ok } else { Phase::Refused });
        }
        if state.is_terminal() {
            self.tasks.remove(&task);
            self.load.closed(&task);
        } else if kill {
            self.kill(driver, &task);
        }
    }

    fn error(&mut self, _: &SchedulerDriver, message: &str) {
        self.record(Event::Error { message: message.into() });
    }
}

/// The scalars of resources, in thousandths.
pub(crate) fn amounts(resources: &Resources) -> Amounts {
    let scalar = |(name, value): (&str, &Value)| match value {
        Value::Scalar(milli) => Some((name.to_owned(), *milli)),
        Value::Ranges(_) | Value::Set(_) => None,
    };
    resources.iter().filter_map(scalar).collect()
}
