//! What a supervisor is told to run, and what it leaves behind.

use super::{ByEngine, Contained, Found};
use crate::cgroups::{Limits, Part};
use muster_fault::{Point, point};
use muster_model::LaunchNumber;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// The environment variable by which processes of a task are found whatever became of their supervisor:
/// `RUNTIME-DIR:LAUNCH`.
pub(crate) const MARK: &str = "MUSTER_TASK_MARK";

const EXIT_FORMAT: u8 = 1;

/// All that a supervisor needs. It is said only to supervisors of the agent's own executable, and so may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// The launch.
    pub(crate) launch: LaunchNumber,
    /// The program, found on the task's PATH.
    pub(crate) program: String,
    /// What the program is told its own name is.
    pub(crate) arg0: String,
    /// The arguments after that.
    pub(crate) args: Vec<String>,
    /// Its whole environment.
    pub(crate) env: Vec<(String, String)>,
    /// Its working directory, made by the supervisor.
    pub(crate) sandbox: PathBuf,
    /// User and group to run as, if not the agent's.
    pub(crate) user: Option<(u32, u32)>,
    /// All groups of that user.
    pub(crate) groups: Vec<u32>,
    /// The soft limit of open files, if not the agent's.
    pub(crate) open_files: Option<u64>,
    /// Its control group, made by the supervisor with these limits; no directories, no group.
    pub(crate) parts: Vec<Part>,
    pub(crate) limits: Limits,
    /// What becomes of what it writes.
    pub(crate) output: Outputs,
    /// Where sockets and exit files go.
    pub(crate) place: Place,
    /// What makes it a container; none: a plain process.
    pub(crate) container: Option<Box<Contained>>,
    /// What makes it a container of a Docker engine.
    pub(crate) engine: Option<Box<ByEngine>>,
}

/// What becomes of what a command writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outputs {
    /// How much is kept of its standard output, or of what its terminal shows; none: all of it.
    pub(crate) stdout: Option<Rotation>,
    /// Likewise of its standard error.
    pub(crate) stderr: Option<Rotation>,
    /// The lines and the characters of a line of its terminal, at first; none: it has none.
    pub(crate) terminal: Option<(u16, u16)>,
}

/// How much of a stream is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rotation {
    /// Bytes of one file.
    pub(crate) bytes: u64,
    /// Older files that are kept beside the one that is written.
    pub(crate) keep: u32,
}

/// Where an agent and its supervisors meet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Sockets.
    pub(crate) runtime: PathBuf,
    /// Exit files; on a disk that outlives a reboot.
    pub(crate) exits: PathBuf,
}

/// A launch may be held more than once (never released more than once), so the pid is part of the names.
fn name(launch: LaunchNumber, pid: u32) -> String {
    format!("{launch}-{pid}")
}

impl Place {
    pub(crate) fn socket_name(launch: LaunchNumber, pid: u32) -> String {
        name(launch, pid) + ".sock"
    }

    pub(crate) fn exit_path(&self, launch: LaunchNumber, pid: u32) -> PathBuf {
        self.exits.join(name(launch, pid))
    }

    /// The mark of one launch's processes.
    pub(crate) fn mark(&self, launch: Option<LaunchNumber>) -> String {
        match launch {
            Some(launch) => format!("{}:{launch}", self.runtime.display()),
            None => format!("{}:", self.runtime.display()),
        }
    }
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ending {
    /// With this status.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// It was never released.
    NotReleased,
    /// It could not be started.
    StartFailed(String),
    /// The kernel killed a process of it since its memory was full, and then all of it was ended.
    OutOfMemory {
        /// As `wait` gives it.
        status: i32,
        /// In bytes.
        limit: u64,
        /// The most that it had at a time, in bytes; 0 where the kernel does not tell.
        peak: u64,
    },
}

impl Ending {
    /// As it is told to who looks on.
    pub(crate) fn found(&self) -> Found {
        match self {
            Self::Exited(code) => Found::Exited(*code),
            Self::Signaled(signal) => Found::Signaled(*signal),
            Self::NotReleased => Found::Failed("it was never started".into()),
            Self::StartFailed(why) => Found::Failed(why.clone()),
            Self::OutOfMemory { .. } => Found::Signaled(rustix::process::Signal::KILL.as_raw()),
        }
    }
}

/// The content of an exit file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    pub(crate) launch: LaunchNumber,
    pub(crate) ending: Ending,
}

impl Exit {
    /// Written and synced, file and directory. A file that was cut short by a crash does not read as one.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let body =
            bincode::serde::encode_to_vec(self, bincode::config::standard()).map_err(io::Error::other)?;
        let mut bytes = vec![EXIT_FORMAT];
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        point!(Point::ExitWrite)?;
        let mut file = File::create(path)?;
        file.write_all(&bytes)?;
        point!(Point::ExitSync)?;
        file.sync_all()?;
        point!(Point::ExitSynced)?;
        match path.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }
}

/// The ending of a launch, if its exit file is there and whole.
pub(crate) fn read_exit(path: &Path, launch: LaunchNumber) -> Option<Ending> {
    let bytes = fs::read(path).ok()?;
    let (&EXIT_FORMAT, rest) = bytes.split_first()? else { return None };
    let (sum, body) = rest.split_first_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*sum) {
        return None;
    }
    let (exit, _): (Exit, _) = bincode::serde::decode_from_slice(body, bincode::config::standard()).ok()?;
    (exit.launch == launch).then_some(exit.ending)
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_model::Index;

    #[test]
    fn a_cut_exit_file_does_not_read_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exit");
        let launch = LaunchNumber { incarnation: 1, index: Index(700), n: 2 };
        Exit { launch, ending: Ending::StartFailed("why".into()) }.write(&path).unwrap();
        assert_eq!(read_exit(&path, launch), Some(Ending::StartFailed("why".into())));
        assert_eq!(read_exit(&path, LaunchNumber::default()), None, "of another launch");
        let whole = fs::read(&path).unwrap();
        let hex: String = whole.iter().map(|byte| format!("{byte:02x}")).collect();
        expect_test::expect_file!["golden/exit-1.hex"].assert_eq(&hex);
        let out_of_memory = Ending::OutOfMemory { status: 9, limit: 32 << 20, peak: 32 << 20 };
        Exit { launch, ending: out_of_memory.clone() }.write(&path).unwrap();
        assert_eq!(read_exit(&path, launch), Some(out_of_memory));
        let later: String = fs::read(&path).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        expect_test::expect_file!["golden/exit-2.hex"].assert_eq(&later);
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(read_exit(&path, launch), None, "cut at {cut}");
        }
    }
}
