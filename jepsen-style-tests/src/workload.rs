//! What frameworks are to do, and how far they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// What a framework does. Another workload is a variant here, and a [`Work`](crate::client) that does it.
#[derive(Debug, Clone)]
pub enum Workload {
    /// Launch and finish.
    Churn(Churn),
    /// A set of tasks that run on and on.
    Set(Set),
}

/// A long-running set: so many slots, and in each one task that runs until it is killed.
#[derive(Debug, Clone)]
pub struct Set {
    /// How many slots.
    pub slots: u32,
    /// The tasks of how many of them are killed and replaced now and then; the others are to outlast all faults.
    pub killed: u32,
    /// The shortest time between two kills.
    pub kill_pause: Duration,
}

impl Default for Set {
    fn default() -> Self {
        Self { slots: 4, killed: 2, kill_pause: Duration::from_millis(1_500) }
    }
}

/// Launch and finish: short tasks without end, some of them killed.
#[derive(Debug, Clone)]
pub struct Churn {
    /// Tasks of one framework that may be open at once.
    pub open_max: usize,
    /// Tasks of one framework in all. Beyond 1,000 the registry forgets the oldest that ended; what became of
    /// those is then known from the history alone.
    pub tasks_max: u64,
    /// The shortest time between two launches of one framework, on average.
    pub pace: Duration,
    /// The shortest and the longest that a task runs.
    pub run_ms: (u64, u64),
    /// One in so many tasks is killed.
    pub kill_one_in: u32,
    /// The longest that an offer's rest is not wanted.
    pub refuse_ms_max: u64,
}

impl Default for Churn {
    fn default() -> Self {
        Self {
            open_max: 8,
            tasks_max: 2_400,
            pace: Duration::ZERO,
            run_ms: (0, 200),
            kill_one_in: 8,
            refuse_ms_max: 200,
        }
    }
}

impl Churn {
    /// Not as fast as can be, with longer tasks: for a run that is to last so long.
    pub fn lasting(time: Duration) -> Self {
        let pace = Duration::from_millis(100);
        // The faults begin only when the load has, and the last of them may end after the time is over.
        let spare = Duration::from_secs(300);
        let tasks_max = (time + spare).as_millis() / pace.as_millis();
        let tasks_max = u64::try_from(tasks_max).unwrap_or(u64::MAX);
        Self { pace, tasks_max, run_ms: (0, 800), ..Self::default() }
    }
}

/// Who launched, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Launch {
    framework: String,
    agent: String,
}

/// How far all frameworks of a run are.
#[derive(Debug, Default)]
pub struct Load {
    stopping: AtomicBool,
    epoch: AtomicU64,
    running_in_epoch: watch::Sender<BTreeMap<Launch, u64>>,
    open: watch::Sender<BTreeSet<String>>,
    /// Frameworks whose question is not answered.
    asking: watch::Sender<BTreeSet<String>>,
    /// Questions of each framework that were answered.
    answers: watch::Sender<BTreeMap<String, u64>>,
}

impl Load {
    /// No more launches.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Whether no more launches are wanted.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// A new epoch: only what is launched from now on counts as progress.
    pub fn begin_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.running_in_epoch.send_replace(BTreeMap::new());
    }

    /// The epoch that a launch belongs to.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Waits until so many tasks run, or ran, that were launched in this epoch.
    pub async fn progress(&self, tasks: u64, within: Duration) -> anyhow::Result<()> {
        self.launches(tasks, "", |_| true, within).await
    }

    /// Waits until so many tasks run, or ran, on one agent that were launched in this epoch.
    pub async fn progress_on(&self, agent: &str, tasks: u64, within: Duration) -> anyhow::Result<()> {
        self.launches(tasks, &format!(" on {agent}"), |launch| launch.agent == agent, within).await
    }

    /// Waits until so many tasks of one framework run, or ran, that were launched in this epoch.
    pub async fn progress_of(&self, framework: &str, tasks: u64, within: Duration) -> anyhow::Result<()> {
        self.launches(tasks, &format!(" of {framework}"), |launch| launch.framework == framework, within)
            .await
    }

    async fn launches(
        &self,
        tasks: u64,
        whose: &str,
        counts: impl Fn(&Launch) -> bool,
        within: Duration,
    ) -> anyhow::Result<()> {
        let enough = |running: &BTreeMap<Launch, u64>| {
            running.iter().filter(|(launch, _)| counts(launch)).map(|(_, n)| n).sum::<u64>() >= tasks
        };
        let mut running = self.running_in_epoch.subscribe();
        let waited = tokio::time::timeout(within, running.wait_for(enough)).await;
        waited
            .map(drop)
            .map_err(|_| anyhow::anyhow!("fewer than {tasks} launches{whose} within {} s", within.as_secs()))
    }

    /// Waits until no question of a framework is open; whether none is.
    pub async fn answered(&self, framework: &str, within: Duration) -> bool {
        let mut asking = self.asking.subscribe();
        let waited =
            tokio::time::timeout(within, asking.wait_for(|asking| !asking.contains(framework))).await;
        waited.is_ok()
    }

    /// Waits until a framework was answered once more.
    pub async fn answers_again(&self, framework: &str, within: Duration) -> anyhow::Result<()> {
        let count = |answers: &BTreeMap<String, u64>| answers.get(framework).copied().unwrap_or(0);
        let mut answers = self.answers.subscribe();
        let before = count(&answers.borrow());
        let waited = tokio::time::timeout(within, answers.wait_for(|answers| count(answers) > before)).await;
        waited.map(drop).map_err(|_| {
            anyhow::anyhow!("no question of {framework} was answered within {} s", within.as_secs())
        })
    }

    /// Waits until no question of any framework is open.
    pub async fn all_answered(&self, within: Duration) {
        let mut asking = self.asking.subscribe();
        // What is open is in the history.
        let _ = tokio::time::timeout(within, asking.wait_for(BTreeSet::is_empty)).await;
    }

    pub(crate) fn asks(&self, framework: &str) {
        self.asking.send_modify(|asking| _ = asking.insert(framework.into()));
    }

    pub(crate) fn asks_no_more(&self, framework: &str) {
        self.asking.send_modify(|asking| _ = asking.remove(framework));
    }

    pub(crate) fn is_answered(&self, framework: &str) {
        self.asks_no_more(framework);
        self.answers.send_modify(|answers| *answers.entry(framework.into()).or_default() += 1);
    }

    /// Waits until nothing is open: each task was refused or has ended, each slot of a set is as it is meant to be.
    /// Gives back what still is.
    pub async fn idle(&self, within: Duration) -> Vec<String> {
        let mut open = self.open.subscribe();
        // The answer is what is open.
        let _ = tokio::time::timeout(within, open.wait_for(BTreeSet::is_empty)).await;
        self.open.borrow().iter().cloned().collect()
    }

    pub(crate) fn opened(&self, task: &str) {
        self.open.send_modify(|open| _ = open.insert(task.into()));
    }

    pub(crate) fn closed(&self, task: &str) {
        self.open.send_modify(|open| _ = open.remove(task));
    }

    pub(crate) fn launched(&self, epoch: u64, framework: &str, agent: &str) {
        if epoch == self.epoch() {
            let launch = Launch { framework: framework.into(), agent: agent.into() };
            self.running_in_epoch.send_modify(|running| *running.entry(launch).or_default() += 1);
        }
    }
}
