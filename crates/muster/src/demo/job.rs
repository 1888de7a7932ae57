//! The framework of the demonstration: one task for each file.

use crate::sandbox;
use muster_sdk::{
    Filters, FrameworkId, Offer, Resources, Scheduler, SchedulerDriver, SdkError, Task, TaskId, TaskState,
    TaskUpdate,
};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio::sync::mpsc;

/// What the scheduler is told, and when.
pub(super) enum Heard {
    Registered { framework_id: FrameworkId },
    Reregistered { at: Instant },
    Offers { at: Instant, offers: Vec<Offer> },
    Update(TaskUpdate),
    Error(String),
}

/// Passes all on: decisions are made in one place.
pub(super) struct Teller(pub(super) mpsc::Sender<Heard>);

impl Teller {
    fn tell(&self, heard: Heard) {
        // Fails only when the demonstration is over.
        let _ = self.0.blocking_send(heard);
    }
}

impl Scheduler for Teller {
    fn registered(&mut self, _: &SchedulerDriver, framework_id: &FrameworkId, _: &str) {
        self.tell(Heard::Registered { framework_id: framework_id.clone() });
    }
    fn reregistered(&mut self, _: &SchedulerDriver, _: &str) {
        self.tell(Heard::Reregistered { at: Instant::now() });
    }
    fn resource_offers(&mut self, _: &SchedulerDriver, offers: Vec<Offer>) {
        self.tell(Heard::Offers { at: Instant::now(), offers });
    }
    fn status_update(&mut self, _: &SchedulerDriver, update: TaskUpdate) {
        self.tell(Heard::Update(update));
    }
    fn error(&mut self, _: &SchedulerDriver, message: &str) {
        self.tell(Heard::Error(message.into()));
    }
}

/// Says that it runs, takes long enough for some to run while the leader dies, and sums the file.
const COMMAND: &str =
    r#"echo "$MUSTER_DEMO_TASK" >> "$MUSTER_DEMO_RUNS"; sleep 0.2; exec sha256sum < "$MUSTER_DEMO_FILE""#;

/// Tasks of one call.
const LAUNCHES_MAX: usize = 1_000;

struct Sum {
    file: PathBuf,
    /// None: to be launched.
    state: Option<TaskState>,
    message: String,
    work_dir: Option<PathBuf>,
}

pub(super) struct Job {
    driver: SchedulerDriver,
    framework_id: Option<FrameworkId>,
    tasks: BTreeMap<TaskId, Sum>,
    need: Resources,
    /// Each task adds a line when it runs.
    runs: PathBuf,
    steps: u64,
    /// Launches that were answered "never started", and made again.
    pub(super) repeated: u64,
}

/// What became of all tasks.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) tasks: usize,
    pub(super) equal: usize,
    /// Task and what is wrong.
    pub(super) lost: Vec<(String, String)>,
    /// Task and how often it ran.
    pub(super) doubled: Vec<(String, usize)>,
    pub(super) different: Vec<String>,
    pub(super) repeated: u64,
}

impl Job {
    pub(super) fn new(driver: SchedulerDriver, files: Vec<PathBuf>, runs: PathBuf) -> Self {
        let sum = |(n, file)| {
            let task = Sum { file, state: None, message: String::new(), work_dir: None };
            (TaskId::new(format!("sum-{n:05}")), task)
        };
        let tasks = files.into_iter().enumerate().map(sum).collect();
        Self { driver, framework_id: None, tasks, need: Resources::of(500, 32), runs, steps: 0, repeated: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Counts all that happened.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    fn count(&self, which: impl Fn(Option<TaskState>) -> bool) -> usize {
        self.tasks.values().filter(|task| which(task.state)).count()
    }

    pub(super) fn done(&self) -> usize {
        self.count(|state| state.is_some_and(TaskState::is_terminal))
    }

    pub(super) fn is_over(&self) -> bool {
        self.done() == self.len()
    }

    pub(super) fn line(&self) -> String {
        let waiting = self.count(|state| state.is_none());
        let staging = self.count(|state| matches!(state, Some(TaskState::Staging | TaskState::Starting)));
        let running = self.count(|state| state == Some(TaskState::Running));
        format!("{waiting} waiting, {staging} staging, {running} running, {} done", self.done())
    }

    pub(super) fn take(&mut self, heard: Heard) -> anyhow::Result<()> {
        match heard {
            Heard::Registered { framework_id } => self.framework_id = Some(framework_id),
            Heard::Reregistered { .. } => {}
            Heard::Offers { offers, .. } => self.use_offers(&offers)?,
            Heard::Update(update) => self.update(&update)?,
            Heard::Error(why) => anyhow::bail!("the masters ended the framework: {why}"),
        }
        Ok(())
    }

    fn use_offers(&mut self, offers: &[Offer]) -> Result<(), SdkError> {
        for offer in offers {
            let mut rest = offer.resources.clone();
            let work_dir = sandbox::work_dir(offer);
            let mut launches = Vec::new();
            for (task_id, task) in self.tasks.iter_mut().filter(|(_, task)| task.state.is_none()) {
                if !rest.contains(&self.need) || launches.len() >= LAUNCHES_MAX {
                    break;
                }
                rest.subtract(&self.need);
                task.state = Some(TaskState::Staging);
                task.work_dir = work_dir.clone();
                let launch = Task::command(task_id.as_str(), COMMAND)
                    .resources(&self.need)
                    .env("MUSTER_DEMO_TASK", task_id.as_str())
                    .env("MUSTER_DEMO_RUNS", self.runs.to_string_lossy())
                    .env("MUSTER_DEMO_FILE", task.file.to_string_lossy());
                launches.push(launch);
                self.steps += 1;
            }
            if launches.is_empty() {
                self.driver.decline([offer], Filters::default())?;
            } else {
                self.driver.accept([offer], launches, Filters::none())?;
            }
        }
        Ok(())
    }

    fn update(&mut self, update: &TaskUpdate) -> Result<(), SdkError> {
        let Some(task) = self.tasks.get_mut(&update.task_id) else { return Ok(()) };
        let state = update.status.state;
        if task.state.is_some_and(TaskState::is_terminal) || task.state == Some(state) {
            return Ok(());
        }
        self.steps += 1;
        if state == TaskState::Dropped {
            // Never started, for example since its offer was the dead leader's: launched again.
            task.state = None;
            self.repeated += 1;
            return self.driver.revive(&[]);
        }
        task.state = Some(state);
        task.message = update.status.message.to_string();
        Ok(())
    }

    /// Compares what the tasks wrote with our own sums.
    pub(super) fn compare(&self) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome { tasks: self.tasks.len(), repeated: self.repeated, ..Default::default() };
        let runs = std::fs::read_to_string(&self.runs).unwrap_or_default();
        let mut ran: BTreeMap<&str, usize> = BTreeMap::new();
        for line in runs.lines() {
            *ran.entry(line).or_default() += 1;
        }
        for (task_id, task) in &self.tasks {
            let id = task_id.to_string();
            if let Some(times) = ran.get(task_id.as_str()).filter(|times| **times > 1) {
                outcome.doubled.push((id.clone(), *times));
            }
            if task.state != Some(TaskState::Finished) {
                let state = task.state.map_or("never launched", TaskState::name);
                outcome.lost.push((id, format!("{state} {}", task.message)));
                continue;
            }
            match self.written(task_id, task) {
                None => outcome.lost.push((id, "finished, but its sandbox holds no digest".into())),
                Some(written) if written == digest(&task.file)? => outcome.equal += 1,
                Some(_) => outcome.different.push(id),
            }
        }
        Ok(outcome)
    }

    /// The digest that a task wrote.
    fn written(&self, task_id: &TaskId, task: &Sum) -> Option<String> {
        let framework_id = self.framework_id.as_ref()?;
        let sandbox = sandbox::find(task.work_dir.as_ref()?, framework_id, task_id)?;
        let text = std::fs::read_to_string(sandbox.join("stdout")).ok()?;
        text.lines().last()?.split_whitespace().next().map(str::to_owned)
    }

    pub(super) async fn stop(self) {
        self.driver.stop(false);
        if let Err(error) = self.driver.ended().await {
            tracing::warn!(%error, "the framework was not ended in order");
        }
    }
}

fn digest(file: &Path) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut file = std::fs::File::open(file)?;
    let mut chunk = vec![0; 64 << 10];
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            n => hasher.update(&chunk[..n]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_digest_is_sha256() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("abc");
        std::fs::write(&file, "abc").unwrap();
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest(&file).unwrap(), known);
    }
}
