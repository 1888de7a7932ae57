//! One call of the command line.

use super::{Engine, spec::env_file};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, memfd_create},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::AsRawFd,
    process::{Child, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use thiserror::Error;

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Characters of what it says that are told.
const WORDS_MAX: usize = 2_048;

/// Why an engine did not do something.
#[derive(Debug, Error)]
pub enum EngineError {
    /// It did not answer in time.
    #[error("docker did not {doing} within {} s", .after.as_secs())]
    Late {
        /// What it was to do.
        doing: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// Nobody answers.
    #[error("the Docker engine does not answer: {0}")]
    Unreachable(String),
    /// It has no such container or image.
    #[error("the Docker engine has no such container or image")]
    NoSuch,
    /// It says no.
    #[error("docker cannot {doing}: {why}")]
    Refused {
        /// What it was to do.
        doing: &'static str,
        /// Its own words.
        why: String,
    },
    /// It says something that is not understood.
    #[error("docker was to {doing} and says something strange: {said:?}")]
    Strange {
        /// What it was to do.
        doing: &'static str,
        /// Its own words.
        said: String,
    },
    /// Its command line cannot be run.
    #[error("docker cannot be run: {0}")]
    Io(io::Error),
}

impl EngineError {
    /// What the command line said of its failure.
    pub fn of_words(doing: &'static str, words: &str) -> Self {
        let has = |part: &str| words.contains(part);
        if has("Cannot connect to the Docker daemon")
            || has("error during connect")
            || has("connection refused")
        {
            return Self::Unreachable(told(words));
        }
        if has("No such container") || has("No such object") || has("No such image") {
            return Self::NoSuch;
        }
        Self::Refused { doing, why: told(words) }
    }

    /// Whether it may be done another time, or has been done unseen.
    pub fn is_unsure(&self) -> bool {
        matches!(self, Self::Late { .. } | Self::Unreachable(_) | Self::Io(_) | Self::Strange { .. })
    }
}

/// The end of what was said, which is where it says why, on one line.
fn told(words: &str) -> String {
    let words = words.replace("Error response from daemon: ", "");
    let lines: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let all = lines.join("; ");
    let from = all.chars().count().saturating_sub(WORDS_MAX);
    match all.is_empty() {
        true => "it does not say why".into(),
        false => all.chars().skip(from).collect(),
    }
}

/// Ends with its value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

impl Engine {
    /// Runs its command line, and returns what that says.
    pub(super) fn call(
        &self,
        doing: &'static str,
        args: &[&str],
        after: Duration,
    ) -> Result<String, EngineError> {
        let memory = || -> io::Result<File> { Ok(memfd_create("docker", MemfdFlags::CLOEXEC)?.into()) };
        let run = || -> io::Result<(Option<ExitStatus>, String, String)> {
            let (stdout, stderr) = (memory()?, memory()?);
            let mut command = self.command();
            command.args(args).stdin(Stdio::null());
            command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
            let mut child = Running(command.spawn()?);
            let status = if wait(&child.0, after)? { Some(child.0.wait()?) } else { None };
            Ok((status, text(stdout)?, text(stderr)?))
        };
        match run().map_err(EngineError::Io)? {
            (None, ..) => Err(EngineError::Late { doing, after }),
            (Some(status), said, _) if status.success() => Ok(said.trim().to_owned()),
            (Some(_), _, words) => Err(EngineError::of_words(doing, &words)),
        }
    }
}

/// Waits until a process ended. False: it did not in time.
fn wait(child: &Child, after: Duration) -> io::Result<bool> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let begun = Instant::now();
    loop {
        let left = after.saturating_sub(begun.elapsed());
        let patience = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], patience.as_ref()) {
            Ok(0) if begun.elapsed() >= after => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

fn text(mut file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Variables in memory, where the programs that this process starts as long as it has the file can read them, and nobody
/// else; and the path by which they do.
///
/// # Errors
/// The system refuses.
pub fn env_memory(env: &BTreeMap<String, String>) -> io::Result<(File, String)> {
    let mut file: File = memfd_create("env", MemfdFlags::empty())?.into();
    file.write_all(env_file(env).as_bytes())?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok((file, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::fs::OpenOptionsExt, path::Path};

    fn engine(dir: &Path, script: &str) -> Engine {
        let program = dir.join("docker");
        let file = File::options().create_new(true).write(true).mode(0o755).open(&program);
        file.unwrap().write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
        Engine { program, socket: dir.join("socket") }
    }

    fn called(script: &str, after: Duration) -> Result<String, EngineError> {
        let dir = tempfile::tempdir().unwrap();
        engine(dir.path(), script).call("try", &["one", "two"], after)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn an_answer_is_what_it_says() {
        let said = called("echo \"$2 $3\"; echo $1 >&2", LONG).unwrap();
        assert_eq!(said, "one two");
        let long = called("head -c 300000 /dev/zero | tr '\\0' x", LONG).unwrap();
        assert_eq!(long.len(), 300_000, "more than a pipe has room for");
    }

    #[test]
    fn what_went_wrong_is_known_by_its_words() {
        for (words, expected) in [
            (
                "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
                "the Docker engine does not answer: Cannot connect",
            ),
            ("Error: No such object: x", "no such container"),
            ("Error response from daemon: No such container: x", "no such container"),
            ("Error response from daemon: Minimum memory limit\n", "docker cannot try: Minimum memory limit"),
            ("", "docker cannot try: it does not say why"),
        ] {
            let error = called(&format!("echo '{words}' >&2; exit 1"), LONG).unwrap_err().to_string();
            assert!(error.contains(expected), "{words}: {error}");
        }
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        let begun = Instant::now();
        let error = called("exec sleep 1000", Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, EngineError::Late { .. }) && error.is_unsure(), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(500));
        let none = Engine { program: "/none".into(), socket: "/none".into() };
        assert!(matches!(none.call("try", &[], LONG), Err(EngineError::Io(_))));
    }

    #[test]
    fn variables_are_read_from_memory() {
        let env = [("A".to_owned(), "b c".to_owned())].into();
        let (file, path) = env_memory(&env).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let said = engine(dir.path(), "cat $2").call("try", &[&path], LONG).unwrap();
        assert_eq!(said, "A=b c");
        drop(file);
    }
}
