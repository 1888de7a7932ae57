//! Frameworks that do what a workload asks, and write down what they are told. A framework outlives its
//! schedulers: each has the streams of one process, and another one may take over what it knew.

use crate::history::{Amounts, Event, Phase, Recorder};
use crate::model::marking_command;
use crate::workload::{Churn, Load};
use anyhow::{Context, bail};
use muster_model::Value;
use muster_sdk::{
    Filters, Framework, FrameworkId, Offer, Reason, Resources, Scheduler, SchedulerDriver, SdkError, Task,
    TaskId, TaskState, TaskUpdate,
};
use muster_testkit::TestCluster;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a task needs at least; offers with less are declined.
const TASK_CPUS_MILLI: u64 = 100;
const TASK_MEM_MB: u64 = 16;
/// How long the masters keep a framework that is gone: longer than any fault of it.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a scheduler may take to end that was told to.
const END_TIME: Duration = Duration::from_secs(20);
/// How long tasks run that are to be killed: longer than a run waits for them.
const ENDLESS_MS: u64 = 600_000;
/// Offers kept that were used, and how often one is tried again.
const SPENT_MAX: usize = 4;
const SPENT_ONE_IN: u32 = 20;
/// Tasks that are open for longer keep nobody from launching others: their agent may be out of reach.
const OVERDUE: Duration = Duration::from_secs(5);
/// Tasks that nobody launched are called so, with a number behind.
const NOBODYS: &str = "nobodys-";

/// What all frameworks of a run have in common.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The file that tasks write to.
    pub marks: PathBuf,
    /// What they do.
    pub churn: Churn,
    /// How far they are.
    pub load: Arc<Load>,
    /// Where they write what they are told.
    pub recorder: Recorder,
    /// How long the masters keep one that is gone.
    pub failover_timeout: Duration,
}

impl Setting {
    /// For frameworks that load the cluster to the end.
    pub fn lasting(marks: PathBuf, churn: Churn, load: Arc<Load>, recorder: Recorder) -> Self {
        Self { marks, churn, load, recorder, failover_timeout: FAILOVER_TIMEOUT }
    }
}

/// A framework. Its connections break when this is dropped.
#[derive(Debug)]
pub struct Client {
    name: String,
    failover_timeout: Duration,
    shared: Arc<Shared>,
    /// The newest of its schedulers.
    driver: Mutex<SchedulerDriver>,
}

/// What the schedulers of one framework share.
#[derive(Debug)]
struct Shared {
    churning: Mutex<Churning>,
    /// Whether callbacks wait.
    shut: Mutex<bool>,
    opened: Condvar,
}

impl Client {
    /// Subscribes, and loads the cluster until the load is stopped. A name that has a place in the network is
    /// dialled from there.
    pub fn start(name: &str, cluster: &TestCluster, setting: Setting, seed: u64) -> anyhow::Result<Self> {
        let Setting { marks, churn, load, recorder, failover_timeout } = setting;
        let churning = Churning {
            name: name.into(),
            marks,
            churn,
            load,
            recorder,
            rng: SmallRng::seed_from_u64(seed),
            begun: Instant::now(),
            launched: 0,
            tasks: BTreeMap::new(),
            spent: VecDeque::new(),
            framework_id: None,
            schedulers: 0,
            current: 0,
        };
        let shared = Arc::new(Shared {
            churning: Mutex::new(churning),
            shut: Mutex::new(false),
            opened: Condvar::new(),
        });
        let driver = Mutex::new(subscribe(name, failover_timeout, &shared, cluster)?);
        Ok(Self { name: name.into(), failover_timeout, shared, driver })
    }

    /// Its id, once it has one.
    pub fn framework_id(&self) -> Option<String> {
        self.shared.lock().framework_id.as_ref().map(ToString::to_string)
    }

    /// Ends its scheduler as if its process had been killed, and waits until no callback of it runs.
    pub async fn kill(&self) -> anyhow::Result<()> {
        let driver = self.newest();
        driver.abort();
        // It says nothing more than that it was told to.
        self.ended(&driver).await.map(drop)
    }

    /// Starts another scheduler under the same id, whether or not there is one; the former if there is.
    pub fn start_another(&self, cluster: &TestCluster) -> anyhow::Result<SchedulerDriver> {
        let driver = subscribe(&self.name, self.failover_timeout, &self.shared, cluster)?;
        let mut newest = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut *newest, driver))
    }

    /// Waits until a scheduler of it has ended; the error that it ended with.
    pub async fn ended(&self, driver: &SchedulerDriver) -> anyhow::Result<Option<SdkError>> {
        match tokio::time::timeout(END_TIME, driver.ended()).await {
            Ok(ended) => Ok(ended.err()),
            Err(_) => bail!("a scheduler of {} did not end within {} s", self.name, END_TIME.as_secs()),
        }
    }

    /// The newest of its schedulers.
    pub fn newest(&self) -> SchedulerDriver {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes its callbacks wait until the handle is dropped, so that it stops reading once its buffers are full.
    pub fn block(&self) -> Blocked {
        self.shared.shut(true);
        Blocked(self.shared.clone())
    }

    /// Asks for the state of so many tasks that nobody launched: that many updates come back.
    pub fn ask_in_vain(&self, tasks: u32) -> Result<(), SdkError> {
        let names = (0..tasks).map(|n| (TaskId::new(format!("{NOBODYS}{n}")), None));
        self.newest().reconcile(names)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.newest().abort();
        self.shared.shut(false);
    }
}

/// A framework whose callbacks wait. They go on when this is dropped.
#[derive(Debug)]
#[must_use = "the callbacks go on at once"]
pub struct Blocked(Arc<Shared>);

impl Drop for Blocked {
    fn drop(&mut self) {
        self.0.shut(false);
    }
}

fn subscribe(
    name: &str,
    failover_timeout: Duration,
    shared: &Arc<Shared>,
    cluster: &TestCluster,
) -> anyhow::Result<SchedulerDriver> {
    let (framework_id, number) = {
        let mut churning = shared.lock();
        churning.schedulers += 1;
        (churning.framework_id.clone(), churning.schedulers)
    };
    let has_place = cluster.framework_names().iter().any(|framework| framework == name);
    let masters = if has_place { cluster.masters_of(name)? } else { cluster.masters() };
    let mut builder = SchedulerDriver::builder(masters);
    if let Some(id) = framework_id {
        builder = builder.framework_id(id);
    }
    let framework = Framework::new(name).failover_timeout(failover_timeout);
    let scheduler = OneOfThem { number, shared: shared.clone() };
    let start = || builder.start(framework, scheduler);
    let started = if has_place { cluster.within(name, start)? } else { start() };
    started.with_context(|| format!("cannot start a scheduler of {name}"))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Churning> {
        self.churning.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shut(&self, shut: bool) {
        *self.shut.lock().unwrap_or_else(PoisonError::into_inner) = shut;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let shut = self.shut.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.opened.wait_while(shut, |shut| *shut));
    }
}

/// One scheduler of a framework.
struct OneOfThem {
    number: u64,
    shared: Arc<Shared>,
}

impl OneOfThem {
    /// What the framework knows; nothing once a later scheduler has taken over.
    fn now(&self) -> Option<MutexGuard<'_, Churning>> {
        self.shared.pass();
        let churning = self.shared.lock();
        (churning.current == self.number).then_some(churning)
    }
}

impl Scheduler for OneOfThem {
    fn registered(&mut self, driver: &SchedulerDriver, framework_id: &FrameworkId, _: &str) {
        self.shared.pass();
        let mut churning = self.shared.lock();
        if churning.current > self.number {
            return;
        }
        churning.current = self.number;
        churning.registered(driver, framework_id);
    }

    fn reregistered(&mut self, driver: &SchedulerDriver, _: &str) {
        self.now().into_iter().for_each(|mut churning| churning.reregistered(driver));
    }

    fn disconnected(&mut self, _: &SchedulerDriver) {
        self.now().into_iter().for_each(|churning| churning.record(Event::Disconnected));
    }

    fn resource_offers(&mut self, driver: &SchedulerDriver, offers: Vec<Offer>) {
        self.now().into_iter().for_each(|mut churning| churning.resource_offers(driver, &offers));
    }

    fn status_update(&mut self, driver: &SchedulerDriver, update: TaskUpdate) {
        self.now().into_iter().for_each(|mut churning| churning.status_update(driver, &update));
    }

    fn error(&mut self, _: &SchedulerDriver, message: &str) {
        // Also of one that was taken over from.
        self.shared.lock().record(Event::Error { message: message.into() });
    }
}

/// What a framework knows.
#[derive(Debug)]
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
    /// Offers that were used, or that a former leader made. Nothing must come of them any more.
    spent: VecDeque<Offer>,
    framework_id: Option<FrameworkId>,
    /// How many schedulers it has had, and the newest that was registered.
    schedulers: u64,
    current: u64,
}

#[derive(Debug)]
struct Open {
    epoch: u64,
    launched: Instant,
    agent: String,
    /// Nothing was heard of it.
    undecided: bool,
    /// It never ends by itself.
    kill: bool,
    /// The present scheduler has asked for its kill.
    kill_asked: bool,
}

impl Churning {
    fn record(&self, event: Event) {
        self.recorder.record(&self.name, event);
    }

    fn launch_phase(&self, task: &str, phase: Phase) {
        let (agent, needs) = (String::new(), Amounts::new());
        self.record(Event::Launch { phase, task: task.into(), agent, needs });
    }

    /// What a former scheduler launched may have come to nothing, so a later one asks.
    fn registered(&mut self, driver: &SchedulerDriver, framework_id: &FrameworkId) {
        self.record(Event::Registered { framework_id: framework_id.to_string() });
        self.framework_id = Some(framework_id.clone());
        // The former scheduler may have been killed with its calls unsaid.
        self.tasks.values_mut().for_each(|open| open.kill_asked = false);
        if self.tasks.is_empty() {
            return;
        }
        self.asked(driver.reconcile(self.tasks.keys().map(|task| (TaskId::new(task.as_str()), None))));
    }

    /// Another leader: offers of the former one are tried once more.
    fn reregistered(&mut self, driver: &SchedulerDriver) {
        self.record(Event::Reregistered);
        self.try_spent(driver);
    }

    /// Launches a task on an offer that must not be taken.
    fn try_spent(&mut self, driver: &SchedulerDriver) {
        let Some(offer) = self.spent.pop_front().filter(|_| self.may_launch()) else { return };
        if let Some(task) = self.task_for(&offer, &mut offer.resources.clone()) {
            self.asked(driver.accept([&offer], [task], Filters::refuse(Duration::ZERO)));
        }
    }

    /// Keeps an offer that was used.
    fn keep_spent(&mut self, offer: &Offer) {
        self.spent.push_back(offer.clone());
        if self.spent.len() > SPENT_MAX {
            self.spent.pop_front();
        }
    }

    /// A scheduler that was killed asks nothing more, and the next one asks what became of it.
    fn asked(&self, done: Result<(), SdkError>) {
        match done {
            Ok(()) | Err(SdkError::Stopped) => {}
            Err(error) => self.record(Event::Error { message: error.to_string() }),
        }
    }

    fn may_launch(&self) -> bool {
        !self.load.is_stopping()
            && self.tasks.values().filter(|open| open.launched.elapsed() < OVERDUE).count()
                < self.churn.open_max
            && self.launched < self.churn.tasks_max
            && self.churn.pace.saturating_mul(u32::try_from(self.launched).unwrap_or(u32::MAX))
                <= self.begun.elapsed()
    }

    /// Asks for a task's kill, once. A full queue is no fault: it is tried again.
    fn kill(&mut self, driver: &SchedulerDriver, task: &str) {
        self.record(Event::Kill { task: task.into() });
        let asked = driver.kill(&TaskId::new(task)).is_ok();
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
        let id = format!("{}-{}", self.name, self.launched);
        let kill = self.rng.random_ratio(1, self.churn.kill_one_in);
        let (shortest, longest) = self.churn.run_ms;
        let ms = if kill { ENDLESS_MS } else { self.rng.random_range(shortest..=longest) };
        let task = Task::command(&id, marking_command(&self.marks, &id, ms)).resources(&needs);
        self.load.opened(&id);
        self.record(Event::Launch {
            phase: Phase::Invoked,
            task: id.clone(),
            agent: offer.hostname.to_string(),
            needs: amounts(&needs),
        });
        let (epoch, agent) = (self.load.epoch(), offer.hostname.to_string());
        let launched = Instant::now();
        self.tasks.insert(id, Open { epoch, launched, agent, undecided: true, kill, kill_asked: false });
        Some(task)
    }

    fn resource_offers(&mut self, driver: &SchedulerDriver, offers: &[Offer]) {
        for offer in offers {
            let mut left = offer.resources.clone();
            let mut tasks = Vec::new();
            while self.may_launch() {
                match self.task_for(offer, &mut left) {
                    Some(task) => tasks.push(task),
                    None => break,
                }
            }
            let refuse = self.rng.random_range(0..=self.churn.refuse_ms_max);
            let filters = Filters::refuse(Duration::from_millis(refuse));
            if tasks.is_empty() {
                // A declined offer comes back by itself when it times out.
                let _ = driver.decline([offer], Filters::refuse(Duration::from_millis(50 + refuse)));
                continue;
            }
            self.asked(driver.accept([offer], tasks, filters));
            self.keep_spent(offer);
            if self.rng.random_ratio(1, SPENT_ONE_IN) {
                self.try_spent(driver);
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
    }

    fn status_update(&mut self, driver: &SchedulerDriver, update: &TaskUpdate) {
        let task = update.task_id.to_string();
        if task.starts_with(NOBODYS) {
            return;
        }
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
        // The answer to what a later scheduler asked: a task that the registry has was launched.
        let answer = !durable && update.status.reason == Some(Reason::Reconciliation);
        let launched = durable || (answer && state != TaskState::Unknown);
        let was_undecided = std::mem::replace(&mut open.undecided, false);
        let kill = open.kill;
        if was_undecided {
            if durable {
                self.load.launched(open.epoch, &self.name, &open.agent);
            }
            self.launch_phase(&task, if launched { Phase::Ok } else { Phase::Refused });
        }
        if (durable && state.is_terminal()) || (was_undecided && !launched) {
            self.tasks.remove(&task);
            self.load.closed(&task);
        } else if kill && !answer {
            self.kill(driver, &task);
        }
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
