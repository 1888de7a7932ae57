//! A runtime that is a program: runc, crun, or another one with their command line.

use crate::{
    ContainerError, Io, Place, Process, Runtime, Started, console::Console, container::write,
    runtime::with_terminal,
};
use oci_spec::runtime::Spec;
use serde::Deserialize;
use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Bytes of what a runtime says that are told.
const WORDS_BYTES_MAX: usize = 4_096;

/// An OCI runtime by its command line.
#[derive(Debug, Clone)]
pub struct Oci {
    program: PathBuf,
}

/// A line of a runtime's log.
#[derive(Deserialize)]
struct Line {
    level: String,
    msg: String,
}

impl Oci {
    /// The runtime at a path.
    pub fn new(program: &Path) -> Self {
        Self { program: program.to_owned() }
    }

    fn run(
        &self,
        place: &Place,
        doing: &'static str,
        args: &[&str],
        io: Option<Io>,
    ) -> Result<(), ContainerError> {
        let log = place.bundle.join("runtime.log");
        let _ = fs::remove_file(&log); // of what was done before
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&place.state).arg("--log").arg(&log).args(["--log-format", "json"]);
        command.args(args);
        match io {
            Some(io) => command.stdin(io.stdin).stdout(io.stdout).stderr(io.stderr),
            None => command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()),
        };
        let status = command.status().map_err(ContainerError::io("run", &self.program))?;
        if status.success() {
            return Ok(());
        }
        let said = fs::read_to_string(&log).unwrap_or_default();
        let why = words(&said).unwrap_or_else(|| format!("it ended with {status}"));
        Err(ContainerError::Runtime { runtime: self.name(), doing, why })
    }

    /// The same for what has streams: a terminal the runtime makes itself, and hands it over.
    fn run_with(
        &self,
        place: &Place,
        doing: &'static str,
        args: &[&str],
        last: &str,
        io: Io,
    ) -> Result<Option<OwnedFd>, ContainerError> {
        if io.terminal.is_none() {
            self.run(place, doing, &[args, &[last]].concat(), Some(io))?;
            return Ok(None);
        }
        let console = Console::listen(&place.bundle)?;
        self.run(place, doing, &[args, &["--console-socket", console.path(), last]].concat(), None)?;
        console.take().map(Some)
    }

    fn pid(place: &Place, name: &str) -> Result<u32, ContainerError> {
        let path = place.bundle.join(name);
        let text = fs::read_to_string(&path).map_err(ContainerError::io("read", &path))?;
        let none = |_| ContainerError::Bundle(format!("{} holds no process id", path.display()));
        text.trim().parse().map_err(none)
    }
}

/// What a runtime says of its failure: its last error.
fn words(log: &str) -> Option<String> {
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let error = lines.rfind(|line| line.level == "error" || line.level == "fatal")?;
    Some(error.msg.chars().take(WORDS_BYTES_MAX).collect())
}

fn text(path: &Path) -> Result<&str, ContainerError> {
    path.to_str().ok_or_else(|| ContainerError::Bundle(format!("the path {} is no text", path.display())))
}

impl Runtime for Oci {
    fn name(&self) -> String {
        self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy().into_owned()
    }

    fn create(
        &self,
        place: &Place,
        spec: &Spec,
        process: &Process,
        io: Io,
    ) -> Result<Started, ContainerError> {
        // The command line knows no other name for a program than its own.
        if let Some(arg0) = process.args.first()
            && *arg0 != process.program
            && Path::new(arg0).file_name() != Path::new(&process.program).file_name()
        {
            return Err(ContainerError::Runtime {
                runtime: self.name(),
                doing: "create",
                why: format!(
                    "it cannot tell {:?} that its name is {arg0:?}; let the first argument be the program's name, or \
                     use the native containerizer",
                    process.program
                ),
            });
        }
        if io.terminal.is_some() {
            let mut spec = spec.clone();
            spec.process_mut().iter_mut().for_each(|it| with_terminal(it, io.terminal));
            write(place, &spec)?;
        }
        let pid = place.bundle.join("pid");
        let args = ["create", "--bundle", text(&place.bundle)?, "--pid-file", text(&pid)?];
        let terminal = self.run_with(place, "create", &args, &place.id, io)?;
        Ok(Started { pid: Self::pid(place, "pid")?, terminal })
    }

    fn start(&self, place: &Place) -> Result<(), ContainerError> {
        self.run(place, "start", &["start", &place.id], None)
    }

    fn exec(&self, place: &Place, process: &Process, io: Io) -> Result<Started, ContainerError> {
        let (path, pid) = (place.write_process(process, io.terminal)?, place.bundle.join("exec.pid"));
        let args = ["exec", "--detach", "--process", text(&path)?, "--pid-file", text(&pid)?];
        let done = self.run_with(place, "run a process in", &args, &place.id, io);
        let _ = fs::remove_file(path); // it holds an environment
        let terminal = done?;
        Ok(Started { pid: Self::pid(place, "exec.pid")?, terminal })
    }

    fn delete(&self, place: &Place) -> Result<(), ContainerError> {
        self.run(place, "remove", &["delete", "--force", &place.id], None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtimes_last_error_is_what_it_says() {
        let log = r#"{"level":"warning","msg":"old","time":"x"}
{"level":"error","msg":"runc create failed: no such file","time":"x"}
not json
"#;
        assert_eq!(words(log).unwrap(), "runc create failed: no such file");
        assert_eq!(words(""), None);
    }
}
