//! Processes that a cluster's agents left running: supervisors and tasks outlive their agent by design.

use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long killed processes may take to be gone.
const GONE_TIME: Duration = Duration::from_secs(10);

/// A process whose working directory or arguments lie in the cluster's own directory.
#[derive(Debug)]
pub(crate) struct Leftover {
    pid: Pid,
    /// Its command line.
    pub(crate) command: String,
}

/// All there are. The directory is the cluster's alone, so that nothing else is found.
pub(crate) fn of(dir: &Path) -> Vec<Leftover> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let me = std::process::id();
    let mut found = Vec::new();
    for entry in processes.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        let Some(pid) = number.filter(|pid| *pid != me) else { continue };
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        // The dead that nobody has buried yet have no command line and no directory.
        let inside = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        if inside || names(&command, dir) {
            let command = String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned();
            found.push(Leftover { pid, command });
        }
    }
    found
}

/// Whether an argument is a path below the directory.
fn names(command: &[u8], dir: &Path) -> bool {
    let dir = dir.as_os_str().as_bytes();
    command.split(|byte| *byte == 0).any(|argument| argument.starts_with(dir))
}

/// Ends all of them, and what they start meanwhile.
pub(crate) fn end(dir: &Path) {
    let until = Instant::now() + GONE_TIME;
    while Instant::now() < until {
        let left = of(dir);
        if left.is_empty() {
            return;
        }
        for process in left {
            // It may be gone by now.
            let _ = kill_process(process.pid, Signal::KILL);
        }
        std::thread::yield_now();
    }
}
