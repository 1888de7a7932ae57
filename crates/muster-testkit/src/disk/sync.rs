//! Syncs of a live master that fail, lie, take long, or are the last thing that it does. strace makes them so.

use super::programs_missing;
use crate::history::Fault;
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The calls that a store syncs with: sled's own, and ours.
const CALLS: &str = "fsync,fdatasync,sync_file_range";
/// The thread of a master that syncs its log and its mark, one after the other.
const STORE_THREAD: &str = "muster-log";
/// How long strace may take to attach, and to let go.
const ATTACH_TIME: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// Why syncs cannot be interfered with here; nothing if they can.
pub fn tracing_missing() -> Option<String> {
    programs_missing(&["strace"], "strace")
}

/// What becomes of a master's syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncFault {
    /// Each says that the device failed (EIO).
    Fails,
    /// Each says that it is done, and nothing is.
    Lies,
    /// Each begins so much later.
    Slow(Duration),
    /// The store's thread begins so many, counted from 1, and the last one kills the process (SIGKILL).
    Kills(u16),
}

impl SyncFault {
    /// Whether the master may end of it.
    pub(crate) fn may_end_it(self) -> bool {
        matches!(self, Self::Fails | Self::Kills(_))
    }

    /// strace counts calls for each thread: only a count within one thread means anything.
    fn of_one_thread(self) -> bool {
        matches!(self, Self::Kills(_))
    }

    fn injection(self) -> String {
        match self {
            Self::Fails => "error=EIO".into(),
            // A thread that is let go between a call's two halves sees the answer of the call that stands in for it: that
            // is 0 too (for root), where the one that strace takes by itself would be an error (ENOSYS).
            Self::Lies => "retval=0:syscall=getuid".into(),
            Self::Slow(time) => format!("delay_enter={}us", time.as_micros()),
            Self::Kills(nth) => format!("signal=KILL:when={nth}"),
        }
    }
}

/// Syncs that are not what they should be. They are again when this is dropped.
#[derive(Debug)]
#[must_use = "it is over at once"]
pub struct BadSyncs {
    tracer: Child,
    trace: PathBuf,
    pub(crate) recorded: Fault,
}

impl BadSyncs {
    /// Attaches to a process; its faults have begun when this returns.
    pub(crate) async fn attach(pid: u32, fault: SyncFault, trace: PathBuf) -> anyhow::Result<Self> {
        if let Some(missing) = tracing_missing() {
            bail!("{missing}");
        }
        let mut command = Command::new("strace");
        if fault.of_one_thread() {
            command.args(["-p", &store_thread(pid)?.to_string()]);
        } else {
            command.args(["-f", "-p", &pid.to_string()]);
        }
        command.args([
            "-e",
            &format!("trace={CALLS}"),
            "-e",
            &format!("inject={CALLS}:{}", fault.injection()),
        ]);
        let said = trace.with_extension("strace-said");
        let stderr = File::create(&said).with_context(|| format!("cannot make {}", said.display()))?;
        command.arg("-o").arg(&trace).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let tracer = command.spawn().context("cannot run strace")?;
        let mut this = Self { tracer, trace, recorded: Fault::default() };
        let until = Instant::now() + ATTACH_TIME;
        loop {
            let words = std::fs::read_to_string(&said).unwrap_or_default();
            if words.contains("attached") {
                return Ok(this);
            }
            if this.tracer.try_wait()?.is_some() || Instant::now() >= until {
                bail!("strace does not attach to process {pid}: {}", words.trim());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How many syncs it failed, lied about or made late.
    pub fn count(&self) -> usize {
        let text = std::fs::read_to_string(&self.trace).unwrap_or_default();
        text.lines().filter(|line| line.contains("(INJECTED)") || line.contains("(DELAYED)")).count()
    }
}

impl Drop for BadSyncs {
    fn drop(&mut self) {
        let until = Instant::now() + ATTACH_TIME;
        // Asked to end it detaches; it has ended by itself if the process has.
        let _ = kill_process(Pid::from_child(&self.tracer), Signal::TERM);
        while matches!(self.tracer.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
        let _ = self.tracer.kill();
        let _ = self.tracer.wait();
    }
}

/// The number of the thread that syncs the store.
fn store_thread(pid: u32) -> anyhow::Result<u32> {
    let tasks = Path::new("/proc").join(pid.to_string()).join("task");
    for task in std::fs::read_dir(&tasks).with_context(|| format!("process {pid} is gone"))? {
        let task = task?;
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if name.trim_end() == STORE_THREAD {
            return task.file_name().to_string_lossy().parse().context("no thread's number");
        }
    }
    bail!("process {pid} has no thread {STORE_THREAD}: it has no store open")
}
