//! The framework whose tasks are real.

use anyhow::{Context, bail, ensure};
use muster_sdk::{
    Filters, Framework, FrameworkId, Offer, OfferId, Resources, Scheduler, SchedulerDriver, Task, TaskId,
    TaskState, TaskUpdate,
};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    time::{Instant as Until, timeout_at},
};

/// Tasks of one call.
const LAUNCHES_MAX: usize = 1_000;

enum Told {
    Offers(Vec<Offer>),
    Rescinded(OfferId),
    Update(TaskUpdate),
    Error(String),
}

/// Passes all on.
struct Teller(mpsc::Sender<Told>);

impl Teller {
    fn tell(&self, told: Told) {
        // Fails only when the measurement is over.
        let _ = self.0.blocking_send(told);
    }
}

impl Scheduler for Teller {
    fn registered(&mut self, _: &SchedulerDriver, _: &FrameworkId, _: &str) {}
    fn reregistered(&mut self, _: &SchedulerDriver, _: &str) {}
    fn disconnected(&mut self, _: &SchedulerDriver) {}
    fn resource_offers(&mut self, _: &SchedulerDriver, offers: Vec<Offer>) {
        self.tell(Told::Offers(offers));
    }
    fn offer_rescinded(&mut self, _: &SchedulerDriver, offer_id: OfferId) {
        self.tell(Told::Rescinded(offer_id));
    }
    fn status_update(&mut self, _: &SchedulerDriver, update: TaskUpdate) {
        self.tell(Told::Update(update));
    }
    fn error(&mut self, _: &SchedulerDriver, message: &str) {
        self.tell(Told::Error(message.into()));
    }
}

/// All tasks of the measurement.
pub(super) struct Tasks {
    driver: SchedulerDriver,
    told: mpsc::Receiver<Told>,
    command: Vec<String>,
    need: Resources,
    offers: Vec<Offer>,
    launched: usize,
    /// Those that are not over, and whether they were seen to run.
    open: HashMap<TaskId, bool>,
    ended: HashMap<TaskId, TaskState>,
    lost: u64,
    doubled: u64,
}

impl Tasks {
    pub(super) fn start(masters: Vec<String>, command: &[String]) -> anyhow::Result<Self> {
        let (tell, told) = mpsc::channel(1_024);
        let framework = Framework::new("bench spawn").failover_timeout(Duration::from_secs(10));
        let driver = SchedulerDriver::builder(masters).start(framework, Teller(tell))?;
        Ok(Self {
            driver,
            told,
            command: command.to_vec(),
            need: Resources::of(10, 1),
            offers: Vec::new(),
            launched: 0,
            open: HashMap::new(),
            ended: HashMap::new(),
            lost: 0,
            doubled: 0,
        })
    }

    /// Launches one, and returns how long it took until it was seen to run. Returns once it has ended.
    pub(super) async fn launch_one(&mut self, patience: Duration) -> anyhow::Result<Duration> {
        let until = Until::now() + patience;
        while self.offers.is_empty() {
            self.hear(until).await?;
        }
        let begun = Instant::now();
        ensure!(self.accept(1)? == 1, "an offer has no room for a task");
        let mut seen = None;
        while !self.open.is_empty() {
            self.hear(until).await?;
            if seen.is_none() && self.open.values().all(|runs| *runs) {
                seen = Some(begun.elapsed());
            }
        }
        seen.context("a task ended before it was seen to run")
    }

    /// Launches so many, on so many agents, and returns once all have ended.
    pub(super) async fn launch(
        &mut self,
        count: usize,
        agents: usize,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let until = Until::now() + patience;
        let (mut left, share) = (count, count.div_ceil(agents));
        // Offers that it had for long may be void by now.
        while let Ok(told) = self.told.try_recv() {
            self.take(told)?;
        }
        while left > 0 || !self.open.is_empty() {
            while left > 0 && !self.offers.is_empty() {
                left -= self.accept(left.min(share).min(LAUNCHES_MAX))?;
            }
            self.hear(until).await?;
        }
        Ok(())
    }

    /// Launches up to so many with all that is offered of one agent: what ended tasks had comes as offers of its own.
    /// Returns how many.
    fn accept(&mut self, count: usize) -> anyhow::Result<usize> {
        let agent_id = self.offers.last().context("no offer")?.agent_id.clone();
        let (used, others) = self.offers.drain(..).partition(|it: &Offer| it.agent_id == agent_id);
        self.offers = others;
        let mut left = Resources::none();
        used.iter().for_each(|offer| left.add(&offer.resources));
        let mut tasks = Vec::new();
        while tasks.len() < count && left.contains(&self.need) {
            left.subtract(&self.need);
            self.launched += 1;
            let id = format!("t{}", self.launched);
            self.open.insert(TaskId::new(&id), false);
            tasks.push(Task::program(&id, &self.command[0], &self.command).resources(&self.need));
        }
        let launched = tasks.len();
        self.driver.accept(&used, tasks, Filters::none())?;
        Ok(launched)
    }

    async fn hear(&mut self, until: Until) -> anyhow::Result<()> {
        let told = timeout_at(until, self.told.recv()).await;
        let told = told.with_context(|| format!("{} tasks do not end", self.open.len()))?;
        self.take(told.context("the framework ended")?)
    }

    fn take(&mut self, told: Told) -> anyhow::Result<()> {
        match told {
            Told::Offers(offers) => self.offers.extend(offers),
            Told::Rescinded(offer_id) => self.offers.retain(|offer| offer.id != offer_id),
            Told::Update(update) => self.update(update),
            Told::Error(why) => bail!("the masters ended the framework: {why}"),
        }
        Ok(())
    }

    fn update(&mut self, update: TaskUpdate) {
        let state = update.status.state;
        if state == TaskState::Running
            && let Some(runs) = self.open.get_mut(&update.task_id)
        {
            *runs = true;
        }
        if !state.is_terminal() {
            return;
        }
        self.open.remove(&update.task_id);
        if state != TaskState::Finished {
            if self.lost == 0 {
                eprintln!("{} is {}: {}", update.task_id, state.name(), update.status.message);
            }
            self.lost += 1;
        }
        if self.ended.insert(update.task_id, state).is_some_and(|before| before != state) {
            self.doubled += 1;
        }
    }

    /// Ends the framework. How many tasks did not finish, and how many ended twice.
    pub(super) async fn end(self) -> anyhow::Result<(u64, u64)> {
        self.driver.stop(false);
        drop(self.told);
        self.driver.ended().await?;
        Ok((self.lost, self.doubled))
    }
}
