//! One process of a cluster.

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
    running: Arc<Running>,
}

/// The child, shared with the handles of its faults, so that no signal goes to a number that was given away.
#[derive(Debug, Default)]
struct Running(Mutex<Option<Child>>);

/// A process that stands still. It goes on when this is dropped.
#[derive(Debug)]
#[must_use = "the process goes on at once"]
pub struct Paused(Arc<Running>);

impl Drop for Paused {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _ = self.0.signal(Signal::CONT);
    }
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        match &*self.lock() {
            Some(child) => Ok(kill_process(Pid::from_child(child), signal)?),
            None => bail!("it does not run"),
        }
    }
}

impl Process {
    pub(crate) fn new(name: String, address: String, log: PathBuf, arguments: Vec<String>) -> Self {
        Self { name, address, log, arguments, running: Arc::default() }
    }

    pub(crate) fn start(&self, exe: &Path) -> anyhow::Result<()> {
        let mut child = self.running.lock();
        if child.is_some() {
            bail!("{} runs already; kill it first", self.name);
        }
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot write the log {}", self.log.display()))?;
        let mut command = Command::new(exe);
        command
            .args(&self.arguments)
            .arg(format!("--die-with={}", std::process::id()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        *child = Some(spawn(command).with_context(|| format!("cannot start {}", exe.display()))?);
        Ok(())
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.running.lock().as_ref().map(Child::id)
    }

    /// How it ended, if it did without being told to.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        self.running.lock().as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// Ends it at once, paused or not.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        if let Some(mut child) = self.running.lock().take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    pub(crate) fn pause(&self) -> anyhow::Result<Paused> {
        self.running.signal(Signal::STOP).with_context(|| format!("cannot pause {}", self.name))?;
        Ok(Paused(self.running.clone()))
    }

    pub(crate) fn ask_to_end(&self) {
        // It may have ended by itself.
        let _ = self.running.signal(Signal::TERM);
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
