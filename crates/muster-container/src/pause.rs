//! Process 1 of a container's pid namespace.

use crate::ContainerError;
use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{
        DumpableBehavior, Pid, PidfdFlags, Signal as ProcessSignal, WaitOptions, chdir, chroot, pidfd_open,
        pidfd_send_signal, set_dumpable_behavior, setsid, wait,
    },
};
use std::{
    ffi::{OsStr, OsString},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

const READY: u8 = b'p';
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A pid namespace, kept by a process 1 that ends with this value, and all of it with that.
#[derive(Debug)]
pub struct Pause {
    pid: u32,
    pidfd: OwnedFd,
    /// Its end is what the process waits for.
    socket: UnixStream,
}

impl Pause {
    /// Makes a namespace. This executable with `args` and a path must run [`pause_main`] with that path; `empty` is a
    /// directory without anything in it, which is all that the process sees.
    ///
    /// # Errors
    /// The system refuses; only root may.
    pub fn new(args: &[String], empty: &Path) -> Result<Self, ContainerError> {
        let failed = |error: io::Error| ContainerError::io("make a pid namespace for", empty)(error);
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let exe = std::fs::read_link("/proc/self/exe").map_err(failed)?;
        // What is unshared is the thread's: children of others stay where they are.
        let spawned = thread::scope(|scope| {
            let make = || {
                unshare(CloneFlags::CLONE_NEWPID)?;
                let mut command = Command::new("/proc/self/exe");
                command.args(args).arg(empty).stdin(OwnedFd::from(theirs)).env_clear();
                command.stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/").spawn()
            };
            scope.spawn(make).join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))
        });
        let child = spawned.map_err(ContainerError::io("start process 1 of a namespace from", exe))?;
        let number = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = number.ok_or_else(|| failed(io::Error::other("no pid")))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| failed(error.into()))?;
        let made = Self { pid: child.id(), pidfd, socket: ours };
        match made.wait_ready() {
            Ok(()) => Ok(made),
            Err(error) => {
                made.end();
                Err(failed(error))
            }
        }
    }

    fn wait_ready(&self) -> io::Result<()> {
        self.socket.set_read_timeout(Some(READY_TIMEOUT))?;
        let mut text = [0; 512];
        let n = (&self.socket).read(&mut text)?;
        match text[..n].split_first() {
            Some((&READY, _)) => Ok(()),
            None => Err(io::Error::other("process 1 of it ended")),
            Some(_) => Err(io::Error::other(String::from_utf8_lossy(&text[..n]).into_owned())),
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The namespace.
    pub fn namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/pid", self.pid).into()
    }

    /// Ends all that is in the namespace. Its process 1 is not over before those of the namespace whose parent is this
    /// process are reaped: so all children are that end meanwhile, and nobody is told how.
    pub fn end(self) {
        self.kill();
        loop {
            match wait(WaitOptions::empty()) {
                Ok(Some((pid, _))) if pid.as_raw_nonzero().get().unsigned_abs() == self.pid => return,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return, // there are no children
            }
        }
    }

    /// Ends all that is in the namespace, without waiting.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(&self.pidfd, ProcessSignal::KILL); // it may have ended by itself
    }
}

/// The main function of process 1, with a socket as its standard input and the path of an empty directory as its last
/// argument. It returns when the other end is closed.
pub fn pause_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    let mut socket = UnixStream::from(socket);
    match pause(args.into_iter().last().as_deref(), &mut socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = write!(socket, "Failed to make process 1: {error}");
            ExitCode::FAILURE
        }
    }
}

fn pause(empty: Option<&OsStr>, socket: &mut UnixStream) -> io::Result<()> {
    let empty = empty.ok_or_else(|| io::Error::other("no directory"))?;
    if std::process::id() != 1 {
        return Err(io::Error::other("it is not process 1"));
    }
    setsid()?;
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block()?;
    let ended = SignalFd::with_flags(&children, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    // A container's root could look through /proc/1 otherwise, at this program and at the machine's files.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    chroot(Path::new(empty))?;
    chdir("/")?;
    socket.write_all(&[READY])?;
    loop {
        let mut fds = [PollFd::new(&*socket, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !fds[0].revents().is_empty() {
            return Ok(());
        }
        while ended.read_signal().is_ok_and(|it| it.is_some()) {}
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
}
