//! Frameworks that do what a workload asks, and write down what they are told. A framework outlives its
//! schedulers: each has the streams of one process, and another one may take over what it knew.

use crate::churn::Churning;
use crate::history::{Amounts, Event, Phase, Recorder};
use crate::set::Keeping;
use crate::workload::{Load, Workload};
use anyhow::{Context, bail};
use muster_model::Value;
use muster_sdk::{
    Framework, FrameworkId, Offer, Reason, Resources, Scheduler, SchedulerDriver, SdkError, TaskId,
    TaskState, TaskUpdate,
};
use muster_testkit::TestCluster;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How long the masters keep a framework that is gone: longer than any fault of it.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a scheduler may take to end that was told to.
const END_TIME: Duration = Duration::from_secs(20);
/// Tasks that nobody launched are called so, with a number behind.
const NOBODYS: &str = "nobodys-";

/// What a framework does. Its callbacks come one at a time, of its present scheduler alone, and what it is told has
/// been recorded before.
pub(crate) trait Work: fmt::Debug + Send {
    /// Another scheduler goes on with it, or the first one begins. What a former one asked may never have been said.
    fn registered(&mut self, driver: &SchedulerDriver);

    /// Another leader.
    fn reregistered(&mut self, _: &SchedulerDriver) {}

    /// Resources.
    fn offers(&mut self, driver: &SchedulerDriver, offers: &[Offer]);

    /// What became of a task.
    fn update(&mut self, driver: &SchedulerDriver, task: &str, told: Told);

    /// Asks what became of all the tasks that it holds for running, now.
    fn ask(&mut self, driver: &SchedulerDriver);

    /// No more changes of its own: it waits until all is as it is meant to be.
    fn settle(&mut self) {}

    /// Ends all its tasks.
    fn wind_up(&mut self, _: &SchedulerDriver) {}
}

/// What a framework is told of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) state: TaskState,
    /// It waits for an acknowledgement.
    pub(crate) durable: bool,
    /// It answers a question.
    pub(crate) answer: bool,
}

impl Told {
    /// Whether it says that a task of which nothing was known is launched: a task that the registry has was.
    pub(crate) fn is_launched(self) -> bool {
        self.durable || (self.answer && self.state != TaskState::Unknown)
    }
}

/// Who a framework is, and where it writes.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    pub(crate) name: String,
    pub(crate) marks: PathBuf,
    pub(crate) load: Arc<Load>,
    recorder: Recorder,
}

impl Desk {
    pub(crate) fn record(&self, event: Event) {
        self.recorder.record(&self.name, event);
    }

    /// A launch is decided.
    pub(crate) fn decided(&self, task: &str, is_launched: bool) {
        let (agent, needs) = (String::new(), Amounts::new());
        let phase = if is_launched { Phase::Ok } else { Phase::Refused };
        self.record(Event::Launch { phase, task: task.into(), agent, needs });
    }

    /// A launch is asked for.
    pub(crate) fn launches(&self, task: &str, offer: &Offer, needs: &Resources) {
        let (task, agent) = (task.to_owned(), offer.hostname.to_string());
        self.record(Event::Launch { phase: Phase::Invoked, task, agent, needs: amounts(needs) });
    }

    /// When it is, for what is told later.
    pub(crate) fn now_us(&self) -> u64 {
        self.recorder.now_us()
    }

    /// An offer of which it was told then is about to be used.
    pub(crate) fn accepts(&self, offer: &Offer, since_us: u64) {
        let (agent, holds) = (offer.hostname.to_string(), amounts(&offer.resources));
        self.record(Event::Accepts { offer: offer.id.to_string(), agent, holds, since_us });
    }

    /// A kill is asked for. Whether it was: a full queue is no fault, it is tried again.
    pub(crate) fn kill(&self, driver: &SchedulerDriver, task: &str) -> bool {
        self.record(Event::Kill { task: task.into() });
        driver.kill(&TaskId::new(task)).is_ok()
    }

    /// A scheduler that was killed asks nothing more, and the next one asks what became of it.
    pub(crate) fn asked(&self, done: Result<(), SdkError>) {
        match done {
            Ok(()) | Err(SdkError::Stopped) => {}
            Err(error) => self.record(Event::Error { message: error.to_string() }),
        }
    }

    fn updated(&self, update: &TaskUpdate) -> Told {
        let (state, durable) = (update.status.state, update.uuid.is_some());
        let reason = update.status.reason.map_or("", |reason| reason.name());
        let message = &update.status.message;
        self.record(Event::Update {
            task: update.task_id.to_string(),
            state: state.name().into(),
            terminal: state.is_terminal(),
            durable,
            reason: if reason.is_empty() { message.to_string() } else { format!("{reason} {message}") },
            uuid: update.uuid.map(|uuid| uuid.to_string()),
        });
        Told { state, durable, answer: !durable && update.status.reason == Some(Reason::Reconciliation) }
    }
}

/// What all frameworks of a run have in common.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The file that tasks write to.
    pub marks: PathBuf,
    /// What they do.
    pub workload: Workload,
    /// How far they are.
    pub load: Arc<Load>,
    /// Where they write what they are told.
    pub recorder: Recorder,
    /// How long the masters keep one that is gone.
    pub failover_timeout: Duration,
}

impl Setting {
    /// For frameworks that load the cluster to the end.
    pub fn lasting(marks: PathBuf, workload: Workload, load: Arc<Load>, recorder: Recorder) -> Self {
        Self { marks, workload, load, recorder, failover_timeout: FAILOVER_TIMEOUT }
    }
}

/// A framework. Its connections break when this is dropped.
#[derive(Debug)]
pub struct Client {
    desk: Desk,
    failover_timeout: Duration,
    shared: Arc<Shared>,
    /// The newest of its schedulers.
    driver: Mutex<SchedulerDriver>,
}

/// What the schedulers of one framework share.
#[derive(Debug)]
struct Shared {
    known: Mutex<Known>,
    /// Whether callbacks wait.
    shut: Mutex<bool>,
    opened: Condvar,
    /// The last task that was asked about in vain, until it is told of.
    in_vain: watch::Sender<Option<TaskId>>,
}

impl Client {
    /// Subscribes, and loads the cluster until the load is stopped. A name that has a place in the network is
    /// dialled from there.
    pub fn start(name: &str, cluster: &TestCluster, setting: Setting, seed: u64) -> anyhow::Result<Self> {
        let Setting { marks, workload, load, recorder, failover_timeout } = setting;
        let desk = Desk { name: name.into(), marks, load, recorder };
        let rng = SmallRng::seed_from_u64(seed);
        let work: Box<dyn Work> = match workload {
            Workload::Churn(churn) => Box::new(Churning::new(desk.clone(), churn, rng)),
            Workload::Set(set) => Box::new(Keeping::new(desk.clone(), set, rng)),
        };
        let known = Known { desk: desk.clone(), work, framework_id: None, schedulers: 0, current: 0 };
        let shared = Arc::new(Shared {
            known: Mutex::new(known),
            shut: Mutex::new(false),
            opened: Condvar::new(),
            in_vain: watch::Sender::new(None),
        });
        let driver = Mutex::new(subscribe(name, failover_timeout, &shared, cluster)?);
        Ok(Self { desk, failover_timeout, shared, driver })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.desk.name
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
        let driver = subscribe(&self.desk.name, self.failover_timeout, &self.shared, cluster)?;
        let mut newest = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut *newest, driver))
    }

    /// Waits until a scheduler of it has ended; the error that it ended with.
    pub async fn ended(&self, driver: &SchedulerDriver) -> anyhow::Result<Option<SdkError>> {
        match tokio::time::timeout(END_TIME, driver.ended()).await {
            Ok(ended) => Ok(ended.err()),
            Err(_) => bail!("a scheduler of {} did not end within {} s", self.desk.name, END_TIME.as_secs()),
        }
    }

    /// The newest of its schedulers.
    pub fn newest(&self) -> SchedulerDriver {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks what became of all tasks that it holds for running, and waits until it was told of each.
    pub async fn reconcile(&self, within: Duration) -> anyhow::Result<()> {
        for again in [true, false] {
            if !self.desk.load.answered(&self.desk.name, within).await {
                bail!(
                    "{} was not told within {} s what became of its tasks",
                    self.desk.name,
                    within.as_secs()
                );
            }
            if again {
                self.shared.lock().work.ask(&self.newest());
            }
        }
        Ok(())
    }

    /// Changes nothing more, and waits until all is as it is meant to be. What is not yet.
    pub async fn settle(&self, within: Duration) -> Vec<String> {
        self.shared.lock().work.settle();
        self.desk.load.idle(within).await
    }

    /// Ends all its tasks. Those that did not end.
    pub async fn wind_up(&self, within: Duration) -> Vec<String> {
        self.desk.load.stop();
        self.shared.lock().work.wind_up(&self.newest());
        self.desk.load.idle(within).await
    }

    /// Makes its callbacks wait until the handle is dropped, so that it stops reading once its buffers are full.
    pub fn block(&self) -> Blocked {
        self.shared.shut(true);
        Blocked(self.shared.clone())
    }

    /// Asks for the state of so many tasks that nobody launched: that many updates come back.
    pub fn ask_in_vain(&self, tasks: u32) -> Result<(), SdkError> {
        let name = |n| TaskId::new(format!("{NOBODYS}{n}"));
        self.shared.in_vain.send_replace(tasks.checked_sub(1).map(name));
        self.newest().reconcile((0..tasks).map(|n| (name(n), None)))
    }

    /// Waits until it was told of the last of these.
    pub async fn told_in_vain(&self, within: Duration) -> anyhow::Result<()> {
        let mut waits = self.shared.in_vain.subscribe();
        let told = tokio::time::timeout(within, waits.wait_for(Option::is_none)).await;
        let told = told.with_context(|| format!("not all was answered within {} s", within.as_secs()))?;
        Ok(told.map(drop)?)
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
    let (framework_id, number, begun_us) = {
        let mut known = shared.lock();
        known.schedulers += 1;
        (known.framework_id.clone(), known.schedulers, known.desk.now_us())
    };
    let has_place = cluster.framework_names().iter().any(|framework| framework == name);
    let masters = if has_place { cluster.masters_of(name)? } else { cluster.masters() };
    let mut builder = SchedulerDriver::builder(masters);
    if let Some(id) = framework_id {
        builder = builder.framework_id(id);
    }
    let framework = Framework::new(name).failover_timeout(failover_timeout);
    let scheduler = OneOfThem { number, begun_us, shared: shared.clone() };
    let start = || builder.start(framework, scheduler);
    let started = if has_place { cluster.within(name, start)? } else { start() };
    started.with_context(|| format!("cannot start a scheduler of {name}"))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// When it was started.
    begun_us: u64,
    shared: Arc<Shared>,
}

impl OneOfThem {
    /// What the framework knows; nothing once a later scheduler has taken over.
    fn now(&self) -> Option<MutexGuard<'_, Known>> {
        self.shared.pass();
        let known = self.shared.lock();
        (known.current == self.number).then_some(known)
    }
}

impl Scheduler for OneOfThem {
    fn registered(&mut self, driver: &SchedulerDriver, framework_id: &FrameworkId, _: &str) {
        self.shared.pass();
        let mut known = self.shared.lock();
        if known.current > self.number {
            return;
        }
        known.current = self.number;
        let begun_us = Some(self.begun_us);
        known.desk.record(Event::Registered { framework_id: framework_id.to_string(), begun_us });
        known.framework_id = Some(framework_id.clone());
        known.work.registered(driver);
    }

    fn reregistered(&mut self, driver: &SchedulerDriver, _: &str) {
        if let Some(mut known) = self.now() {
            known.desk.record(Event::Reregistered);
            known.work.reregistered(driver);
        }
    }

    fn disconnected(&mut self, _: &SchedulerDriver) {
        self.now().into_iter().for_each(|known| known.desk.record(Event::Disconnected));
    }

    fn resource_offers(&mut self, driver: &SchedulerDriver, offers: Vec<Offer>) {
        self.now().into_iter().for_each(|mut known| known.work.offers(driver, &offers));
    }

    fn status_update(&mut self, driver: &SchedulerDriver, update: TaskUpdate) {
        let Some(mut known) = self.now() else { return };
        if !update.task_id.as_str().starts_with(NOBODYS) {
            let told = known.desk.updated(&update);
            known.work.update(driver, update.task_id.as_str(), told);
        } else if self.shared.in_vain.borrow().as_ref() == Some(&update.task_id) {
            self.shared.in_vain.send_replace(None);
        }
    }

    fn error(&mut self, _: &SchedulerDriver, message: &str) {
        // Also of one that was taken over from.
        self.shared.lock().desk.record(Event::Error { message: message.into() });
    }
}

/// What a framework knows, whichever scheduler speaks for it.
#[derive(Debug)]
struct Known {
    desk: Desk,
    work: Box<dyn Work>,
    framework_id: Option<FrameworkId>,
    /// How many schedulers it has had, and the newest that was registered.
    schedulers: u64,
    current: u64,
}

/// The scalars of resources, in thousandths.
pub(crate) fn amounts(resources: &Resources) -> Amounts {
    let scalar = |(name, value): (&str, &Value)| match value {
        Value::Scalar(milli) => Some((name.to_owned(), *milli)),
        Value::Ranges(_) | Value::Set(_) => None,
    };
    resources.iter().filter_map(scalar).collect()
}
