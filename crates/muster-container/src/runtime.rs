//! What runtimes differ in.

use crate::{ContainerError, Native, Oci, Process};
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};
use std::{
    env,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

/// Which runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The library in this process.
    Native,
    /// The program at this path.
    Oci(PathBuf),
}

impl Kind {
    /// The runtime.
    pub fn runtime(&self) -> Box<dyn Runtime> {
        match self {
            Self::Native => Box::new(Native),
            Self::Oci(path) => Box::new(Oci::new(path)),
        }
    }
}

/// One container of a runtime: where it keeps what, and its name there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The bundle: a directory of this container's alone, with `config.json`.
    pub bundle: PathBuf,
    /// What the runtime writes down, a directory in it.
    pub state: PathBuf,
    /// The container's name: letters, digits, `_`, `+`, `-` and `.`.
    pub id: String,
}

impl Place {
    /// A container with this directory.
    pub fn new(bundle: &Path, id: &str) -> Self {
        Self { bundle: bundle.to_owned(), state: bundle.join("state"), id: id.to_owned() }
    }

    /// Writes down a process that is to be run in it, and the size of the terminal that the runtime makes for it; the file
    /// holds its environment, and goes when it runs.
    pub(crate) fn write_process(
        &self,
        process: &Process,
        terminal: Option<(u16, u16)>,
    ) -> Result<PathBuf, ContainerError> {
        let path = self.bundle.join("process.json");
        let mut spec = process.spec()?;
        with_terminal(&mut spec, terminal);
        let bytes = serde_json::to_vec(&spec).map_err(|error| ContainerError::Bundle(error.to_string()))?;
        let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(&bytes));
        written.map_err(ContainerError::io("write", &path))?;
        Ok(path)
    }
}

/// Has the runtime make a terminal of a size.
pub(crate) fn with_terminal(process: &mut oci_spec::runtime::Process, size: Option<(u16, u16)>) {
    let Some((rows, columns)) = size else { return };
    let console = oci_spec::runtime::BoxBuilder::default().height(rows).width(columns).build();
    process.set_terminal(Some(true)).set_console_size(console.ok()); // nothing of it is required
}

/// A process that a runtime has started.
#[derive(Debug)]
pub struct Started {
    /// Its number; it is a child of the process that called the runtime.
    pub pid: u32,
    /// Our end of its terminal, where the runtime has made that: then the one that it was given is not used.
    pub terminal: Option<OwnedFd>,
}

/// What a process in a container reads from and writes to.
#[derive(Debug)]
pub struct Io {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
    /// Standard input is a terminal of so many lines and characters of a line, which becomes the process's own.
    pub terminal: Option<(u16, u16)>,
}

impl Io {
    /// From and to nothing.
    ///
    /// # Errors
    /// `/dev/null` cannot be opened.
    pub fn null() -> Result<Self, ContainerError> {
        let open = |write: bool| -> io::Result<OwnedFd> {
            Ok(File::options().read(!write).write(write).open("/dev/null")?.into())
        };
        let all =
            || Ok(Self { stdin: open(false)?, stdout: open(true)?, stderr: open(true)?, terminal: None });
        all().map_err(ContainerError::io("open", "/dev/null"))
    }
}

/// An OCI runtime. All are called from a process with one thread, which is a subreaper.
pub trait Runtime {
    /// Its name.
    fn name(&self) -> String;

    /// Makes the container of a bundle whose `config.json` is written. Its command is held, and returned.
    ///
    /// # Errors
    /// In the runtime's own words.
    fn create(
        &self,
        place: &Place,
        spec: &Spec,
        process: &Process,
        io: Io,
    ) -> Result<Started, ContainerError>;

    /// Lets the command go.
    ///
    /// # Errors
    /// In the runtime's own words.
    fn start(&self, place: &Place) -> Result<(), ContainerError>;

    /// Runs another process in a container whose command runs.
    ///
    /// # Errors
    /// In the runtime's own words.
    fn exec(&self, place: &Place, process: &Process, io: Io) -> Result<Started, ContainerError>;

    /// Removes a container whose processes are over, with its control groups.
    ///
    /// # Errors
    /// In the runtime's own words.
    fn delete(&self, place: &Place) -> Result<(), ContainerError>;
}

/// The program of this name along this process's PATH, or at this path.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(is_program);
    }
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(is_program)
}
