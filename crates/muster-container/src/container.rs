//! One container, whichever runtime made it.

use crate::{Bundle, ContainerError, Io, Kind, Pause, Pids, Place, Process, Runtime, Started};
use oci_spec::runtime::Spec;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::Path,
};

/// What is asked for, and how it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made<'a> {
    /// The runtime.
    pub kind: &'a Kind,
    /// A directory of this container's alone; made, and to be removed by whoever asks.
    pub dir: &'a Path,
    /// The container's name.
    pub id: &'a str,
    /// What it is.
    pub bundle: &'a Bundle,
    /// Arguments that make this executable [`pause_main`](crate::pause_main); used where the bundle has pids of its own
    /// and `init` is asked for.
    pub pause: &'a [String],
    /// Whether process 1 is [`pause_main`](crate::pause_main), rather than the command itself; which then, with a runtime
    /// that is a program, does not end with who created it.
    pub init: bool,
}

/// A container that was made. Its command is held until it is started.
pub struct Container {
    place: Place,
    runtime: Box<dyn Runtime>,
    pause: Option<Pause>,
    pid: u32,
    terminal: Option<OwnedFd>,
    pidfd: OwnedFd,
}

impl Container {
    /// Makes a container.
    ///
    /// # Errors
    /// It cannot be made; nothing of it is left but its directory.
    pub fn create(made: &Made<'_>, io: Io) -> Result<Self, ContainerError> {
        let place = Place::new(made.dir, made.id);
        let _ = fs::remove_dir_all(&place.state); // of an attempt before, whose supervisor is gone
        for dir in [made.dir, &place.state, &made.dir.join("empty")] {
            let new = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            new.map_err(ContainerError::io("create", dir))?;
        }
        let mut bundle = made.bundle.clone();
        let pause = match (&bundle.pids, made.init) {
            (Pids::Own, true) => Some(Pause::new(made.pause, &made.dir.join("empty"))?),
            _ => None,
        };
        if let Some(pause) = &pause {
            bundle.pids = Pids::Of(pause.namespace());
        }
        let runtime = made.kind.runtime();
        let created = bundle.spec().and_then(|spec| {
            write(&place, &spec)?;
            let Started { pid, terminal } = runtime.create(&place, &spec, &bundle.process, io)?;
            let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let number = number.ok_or_else(|| io::Error::other("no pid"));
            let open = number.and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?));
            Ok((pid, terminal, open.map_err(ContainerError::io("have hold of the process of", made.dir))?))
        });
        match created {
            Ok((pid, terminal, pidfd)) => Ok(Self { place, runtime, pause, pid, terminal, pidfd }),
            Err(error) => {
                if let Some(pause) = pause {
                    pause.end();
                }
                let _ = runtime.delete(&place); // there may be nothing
                Err(error)
            }
        }
    }

    /// Its process, a child of this one.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Our end of its process's terminal, where the runtime has made that; once.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Process 1 of its namespace, a child of this one; none if it has no such namespace of its own.
    pub fn pause_pid(&self) -> Option<u32> {
        self.pause.as_ref().map(Pause::pid)
    }

    /// Readable once its process ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Lets its command go.
    ///
    /// # Errors
    /// In the runtime's own words.
    pub fn start(&self) -> Result<(), ContainerError> {
        self.runtime.start(&self.place)
    }

    /// Signals its process.
    ///
    /// # Errors
    /// It has ended, or the system refuses.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.pidfd, signal)?)
    }

    /// Ends all of it, without waiting.
    pub fn kill(&self) {
        let _ = self.signal(Signal::KILL); // it may have ended by itself
        if let Some(pause) = &self.pause {
            pause.kill();
        }
    }

    /// Runs another process in it.
    ///
    /// # Errors
    /// In the runtime's own words.
    pub fn exec(&self, process: &Process, io: Io) -> Result<Started, ContainerError> {
        self.runtime.exec(&self.place, process, io)
    }

    /// Removes it once its process has been reaped: ends what is left of it, and has the runtime forget it. Of other
    /// children of this process nobody is told how they end meanwhile.
    ///
    /// # Errors
    /// In the runtime's own words.
    pub fn delete(mut self) -> Result<(), ContainerError> {
        if let Some(pause) = self.pause.take() {
            pause.end();
        }
        self.runtime.delete(&self.place)
    }
}

/// The bundle's file; it holds the whole environment, secrets included.
pub(crate) fn write(place: &Place, spec: &Spec) -> Result<(), ContainerError> {
    let path = place.bundle.join("config.json");
    let bytes = serde_json::to_vec(spec).map_err(|error| ContainerError::Bundle(error.to_string()))?;
    let _ = fs::remove_file(&path); // of an attempt before
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(&bytes)).map_err(ContainerError::io("write", path))
}
