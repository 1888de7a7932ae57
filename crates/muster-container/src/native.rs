//! The runtime of youki, as a library in this process.

use crate::{ContainerError, Io, Place, Process, Runtime, Started};
use libcontainer::{
    container::{Container, builder::ContainerBuilder},
    error::LibcontainerError,
    syscall::syscall::SyscallType,
    workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError},
};
use oci_spec::runtime::Spec;
use rustix::process::{Signal, set_parent_process_death_signal};
use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    fs, io,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Command,
};

/// libcontainer. It needs root, and nothing that is installed.
#[derive(Debug, Clone, Copy)]
pub struct Native;

fn failed(doing: &'static str) -> impl FnOnce(LibcontainerError) -> ContainerError {
    move |error| {
        let mut why = error.to_string();
        let mut source = error.source();
        while let Some(next) = source {
            // Some say again what they stand for.
            let text = next.to_string();
            if !why.contains(&text) {
                why = format!("{why}: {text}");
            }
            source = next.source();
        }
        ContainerError::Runtime { runtime: "native".into(), doing, why }
    }
}

impl Native {
    fn builder(place: &Place, process: &Process, io: Io) -> Result<ContainerBuilder, LibcontainerError> {
        let builder = ContainerBuilder::new(place.id.clone(), SyscallType::Linux).validate_id()?;
        let run = Run { terminal: io.terminal.is_some(), ..Run::new(process) };
        let builder = builder.with_root_path(&place.state)?.with_executor(run);
        Ok(builder.with_stdin(io.stdin).with_stdout(io.stdout).with_stderr(io.stderr))
    }
}

impl Runtime for Native {
    fn name(&self) -> String {
        "native".into()
    }

    fn create(
        &self,
        place: &Place,
        _spec: &Spec,
        process: &Process,
        io: Io,
    ) -> Result<Started, ContainerError> {
        let made = Self::builder(place, process, io)
            .and_then(|builder| builder.as_init(&place.bundle).with_systemd(false).build());
        let made = made.map_err(failed("create"))?;
        let pid = made.pid().and_then(|pid| u32::try_from(pid.as_raw()).ok());
        let pid = pid.ok_or_else(|| ContainerError::Bundle("the container has no process".into()))?;
        Ok(Started { pid, terminal: None })
    }

    fn start(&self, place: &Place) -> Result<(), ContainerError> {
        Container::load(place.state.join(&place.id)).and_then(|mut it| it.start()).map_err(failed("start"))
    }

    fn exec(&self, place: &Place, process: &Process, io: Io) -> Result<Started, ContainerError> {
        let path = place.write_process(process, None)?; // it has one
        let pid = Self::builder(place, process, io)
            .and_then(|builder| builder.as_tenant().with_detach(true).with_process(Some(&path)).build());
        let _ = fs::remove_file(path); // it holds an environment
        let pid = pid.map_err(failed("run a process in"))?;
        let pid = u32::try_from(pid.as_raw()).map_err(|error| ContainerError::Bundle(error.to_string()))?;
        Ok(Started { pid, terminal: None })
    }

    fn delete(&self, place: &Place) -> Result<(), ContainerError> {
        let state = place.state.join(&place.id);
        if !state.exists() {
            return Ok(()); // it was never made
        }
        Container::load(state).and_then(|mut it| it.delete(true)).map_err(failed("remove"))
    }
}

/// Becomes the command, with the name that it is to have for itself.
#[derive(Clone)]
struct Run {
    program: String,
    path: String,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    terminal: bool,
}

impl Run {
    fn new(process: &Process) -> Self {
        Self {
            program: process.program.clone(),
            path: process.env.get("PATH").cloned().unwrap_or_default(),
            args: process.args.clone(),
            env: process.env.clone(),
            terminal: false,
        }
    }

    /// Where the program may be, as a shell looks for it.
    fn candidates(&self) -> Vec<String> {
        if self.program.contains('/') {
            return vec![self.program.clone()];
        }
        let dirs = self.path.split(':').map(|dir| if dir.is_empty() { "." } else { dir });
        dirs.map(|dir| format!("{dir}/{}", self.program)).collect()
    }

    /// Becomes the program, found as a shell does, with signals as programs expect them. Returns only why it cannot.
    fn run(&self) -> io::Error {
        let mut command = Command::new(&self.program);
        command.args(self.args.iter().skip(1)).env_clear().envs(&self.env);
        if let Some(arg0) = self.args.first() {
            command.arg0(arg0);
        }
        command.exec()
    }
}

impl Executor for Run {
    fn exec(&self, _spec: &Spec) -> Result<(), ExecutorError> {
        if self.terminal {
            // It leads a session by now.
            let own = rustix::process::ioctl_tiocsctty(rustix::stdio::stdin());
            own.map_err(|error| ExecutorError::Other(format!("Failed to have the terminal: {error}")))?;
        }
        let why = self.run();
        Err(ExecutorError::Other(format!("Failed to run {}: {why}", self.program)))
    }

    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        let is_program = |path: &String| {
            fs::metadata(Path::new(path))
                .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
        };
        // It holds copies of all that its supervisor has, until it becomes the command: so nothing that it waits for would
        // tell it that the supervisor is gone. If that was before this, what is said to it next fails.
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| ExecutorValidationError::ArgValidationError(error.to_string()))?;
        match self.candidates().iter().any(is_program) {
            true => Ok(()),
            false => Err(ExecutorValidationError::ArgValidationError(format!(
                "there is no program {:?} in the container (PATH={})",
                self.program, self.path
            ))),
        }
    }

    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(()) // it is handed over with the command
    }
}
