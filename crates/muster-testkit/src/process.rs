//! One process of a cluster.

use crate::history::Fault;
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// A master or an agent, running or not.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) log: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// What it is started by, which becomes it; nothing if it is started as it is.
    started_by: Vec<String>,
    environment: Vec<(String, String)>,
    running: Arc<Running>,
}

/// The child, shared with the handles of its faults, so that no signal goes to a number that was given away.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<Life>);

#[derive(Debug, Default)]
struct Life {
    child: Option<Child>,
    /// Whether somebody has told it to end, or a fault is why it may.
    told: bool,
}

/// A process that stands still. It goes on when this is dropped.
#[derive(Debug)]
#[must_use = "the process goes on at once"]
pub struct Paused(Arc<Running>, pub(crate) Fault);

impl Drop for Paused {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _ = self.0.signal(Signal::CONT);
    }
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, Life> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        match &self.lock().child {
            Some(child) => Ok(kill_process(Pid::from_child(child), signal)?),
            None => bail!("it does not run"),
        }
    }

    /// Ends it at once, paused or not.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        if let Some(mut child) = std::mem::take(&mut *self.lock()).child {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }
}

impl Process {
    pub(crate) fn new(name: String, address: String, log: PathBuf, arguments: Vec<String>) -> Self {
        let (started_by, environment, running) = Default::default();
        Self { name, address, log, arguments, started_by, environment, running }
    }

    /// To be started by these words, which end in running it in their place, under the same number: in another
    /// namespace for instance. What was said before is outside of that.
    pub(crate) fn started_by(mut self, words: Vec<String>) -> Self {
        self.started_by.extend(words);
        self
    }

    /// Has it begin with these variables.
    pub(crate) fn with(self, environment: Vec<(String, String)>) -> Self {
        Self { environment, ..self }
    }

    pub(crate) fn start(&self, exe: &Path) -> anyhow::Result<()> {
        self.start_by(&[], exe)
    }

    /// Starts it by these words this once, outside of all that it is always started by.
    pub(crate) fn start_by(&self, words: &[String], exe: &Path) -> anyhow::Result<()> {
        let mut life = self.running.lock();
        if life.child.is_some() {
            bail!("{} runs already; kill it first", self.name);
        }
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot write the log {}", self.log.display()))?;
        let mut command = self.command_by(words, exe);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .arg(format!("--die-with={}", std::process::id()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let child = spawn(command).with_context(|| format!("cannot start {}", exe.display()))?;
        *life = Life { child: Some(child), told: false };
        Ok(())
    }

    /// The program, to be started where it sees what this process sees.
    pub(crate) fn command(&self, exe: &Path) -> Command {
        self.command_by(&[], exe)
    }

    fn command_by(&self, words: &[String], exe: &Path) -> Command {
        match [words, &self.started_by].concat().split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(exe);
                command
            }
            None => Command::new(exe),
        }
    }

    /// The process behind it, for the handle of a fault.
    pub(crate) fn running(&self) -> Arc<Running> {
        self.running.clone()
    }

    /// A fault begins that it may end of.
    pub(crate) fn may_end(&self) {
        self.running.lock().told = true;
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.running.lock().child.as_ref().map(Child::id)
    }

    /// How it ended, if it did without being told to.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        let mut life = self.running.lock();
        let told = life.told;
        life.child.as_mut().filter(|_| !told).and_then(|child| child.try_wait().ok().flatten())
    }

    /// Whether it runs and has not ended.
    pub(crate) fn is_alive(&self) -> bool {
        let mut life = self.running.lock();
        life.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(Some(_))))
    }

    /// How it ended, if it did; it can be started again then.
    pub(crate) fn bury(&self) -> anyhow::Result<Option<ExitStatus>> {
        let mut life = self.running.lock();
        let status = life.child.as_mut().context("somebody else has ended it")?.try_wait()?;
        if status.is_some() {
            *life = Life::default();
        }
        Ok(status)
    }

    /// Ends it at once, paused or not, without waiting until it is gone: [`Self::kill`] does.
    pub(crate) fn strike(&self) {
        self.running.lock().told = true;
        // It may have ended by itself.
        let _ = self.running.signal(Signal::KILL);
    }

    /// Ends it at once, paused or not.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        self.running.kill()
    }

    pub(crate) fn pause(&self) -> anyhow::Result<Paused> {
        self.running.signal(Signal::STOP).with_context(|| format!("cannot pause {}", self.name))?;
        Ok(Paused(self.running.clone(), Fault::default()))
    }

    pub(crate) fn ask_to_end(&self) {
        self.running.lock().told = true;
        // It may have ended by itself.
        let _ = self.running.signal(Signal::TERM);
    }

    /// The lines that tell of an error or a panic.
    pub(crate) fn error_lines(&self) -> Vec<String> {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let tells = |line: &&str| {
            line.contains(" ERROR ") || line.contains("panicked at") || line.starts_with("muster: ")
        };
        text.lines().filter(tells).map(str::to_owned).collect()
    }

    /// The last line it said.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        last.unwrap_or("it said nothing").to_owned()
    }
}

type Order = (Command, SyncSender<std::io::Result<Child>>);

/// Children die with the *thread* that started them: this one lives as long as the test's process.
static SPAWNER: LazyLock<SyncSender<Order>> = LazyLock::new(|| {
    let (orders, taken) = sync_channel::<Order>(1);
    std::thread::spawn(move || {
        for (mut command, answer) in taken {
            // Fails only when nobody waits any more.
            let _ = answer.send(command.spawn());
        }
    });
    orders
});

fn spawn(command: Command) -> anyhow::Result<Child> {
    let (answer, answered) = sync_channel(1);
    SPAWNER.send((command, answer)).ok().context("the thread that starts processes is gone")?;
    Ok(answered.recv().context("the thread that starts processes is gone")??)
}
