//! Plain processes: a forked child becomes the command when it is told to, and ends when nobody can tell it any more.

use super::{
    Spec,
    held::{Beside, Held, News},
    output::{self, Output, Streams},
    sandbox, sys,
};
use crate::cgroups::{Group, Oom, PATIENCE};
use muster_container::Io;
use rustix::{
    process::{
        Gid, Pid, Resource, Rlimit, Signal, Uid, getpid, getppid, getrlimit, ioctl_tiocsctty,
        kill_process_group, set_parent_process_death_signal, setrlimit, setsid,
    },
    thread::{set_thread_gid, set_thread_groups, set_thread_uid},
};
use std::{
    convert::Infallible,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
    time::Duration,
};

/// How long a held child may take to say that it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Said once the child is all that it shall be, but for the command.
const READY: u8 = b'r';
/// The byte that releases.
const RELEASE: u8 = b'g';
/// Begins the reason why the command could not be run, or held.
const FAILED: u8 = b'E';

/// A plain process.
pub(super) struct Posix {
    pid: Pid,
    group: Option<Group>,
    /// To the held child; none once it runs or is abandoned.
    hold: Option<UnixStream>,
    /// What the held child wrote after its release: nothing, or why it failed.
    failure: Vec<u8>,
    output: Output,
}

impl Posix {
    pub(super) fn create(spec: &Spec) -> io::Result<Self> {
        let group =
            (!spec.parts.is_empty()).then(|| Group::make(spec.parts.clone(), &spec.limits)).transpose()?;
        let held = fork(spec, group.clone());
        if let (Err(_), Some(group)) = (&held, &group) {
            group.end(PATIENCE);
            let _ = group.remove(); // what stays is removed at the agent's next start
        }
        held
    }
}

/// Forks the held child.
fn fork(spec: &Spec, group: Option<Group>) -> io::Result<Posix> {
    let (streams, output) = output::open(spec)?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new(&spec.program);
    command.arg0(&spec.arg0).args(&spec.args);
    command.env_clear().envs(spec.env.iter().map(|(name, value)| (name, value)));
    let parent = getpid();
    let pid = match sys::fork().map_err(sandbox::doing(spec, "start a process in"))? {
        sys::Forked::Child => {
            drop(ours); // or it would never see the other end close
            // Nothing may return from here: all above is the supervisor's.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                hold(spec, group.as_ref(), command, parent, streams, theirs)
            }));
            // The status is looked at only before the release, where it means nothing.
            sys::exit_now(127)
        }
        sys::Forked::Parent(pid) => pid,
    };
    drop((command, streams, theirs));
    wait_ready(&ours)?;
    ours.set_nonblocking(true)?;
    Ok(Posix { pid, group, hold: Some(ours), failure: Vec::new(), output })
}

/// The held child.
fn hold(
    spec: &Spec,
    group: Option<&Group>,
    mut command: Command,
    parent: Pid,
    streams: Streams,
    mut socket: UnixStream,
) -> io::Result<Infallible> {
    if let Err(error) = become_held(spec, group, parent, streams) {
        return fail(&mut socket, sandbox::doing(spec, "start a process in")(error));
    }
    socket.write_all(&[READY])?;
    let mut byte = [0];
    socket.read_exact(&mut byte)?; // the supervisor is gone: never run
    if byte[0] != RELEASE {
        return Err(io::Error::other("not released"));
    }
    let error = command.exec();
    let why = format!("Failed to run {}: {error}", spec.program);
    fail(&mut socket, io::Error::new(error.kind(), why))
}

fn fail(socket: &mut UnixStream, error: io::Error) -> io::Result<Infallible> {
    let mut said = vec![FAILED];
    said.extend_from_slice(error.to_string().as_bytes());
    socket.write_all(&said)?;
    Err(error)
}

/// A session of its own with the task's streams, and the rest of what the task is.
fn become_held(spec: &Spec, group: Option<&Group>, parent: Pid, streams: Streams) -> io::Result<()> {
    rustix::stdio::dup2_stdout(streams.stdout)?; // with which its copy of the helper's lock is gone
    rustix::stdio::dup2_stderr(streams.stderr)?;
    setsid()?;
    if let Some(terminal) = streams.terminal {
        ioctl_tiocsctty(&terminal)?;
        rustix::stdio::dup2_stdin(terminal)?;
    }
    enter(spec, group, parent)
}

/// Starts a process that becomes a command beside the task's own: as one of the task's, at the head of a session. If it
/// cannot, why is written to `report`, which is closed without a word when it can.
pub(super) fn run(
    spec: &Spec,
    group: Option<&Group>,
    what: &Beside<'_>,
    io: Io,
    report: OwnedFd,
) -> io::Result<Pid> {
    let mut command = Command::new(what.program);
    command.arg0(what.arg0).args(what.args);
    command.env_clear().envs(spec.env.iter().chain(what.env).map(|(name, value)| (name, value)));
    let parent = getpid();
    match sys::fork()? {
        sys::Forked::Child => {
            // Nothing may return from here: all above is the supervisor's.
            let _ = catch_unwind(AssertUnwindSafe(|| -> io::Result<()> {
                let error = match become_one(spec, group, parent, io) {
                    Ok(()) => command.exec(),
                    Err(error) => error,
                };
                File::from(report).write_all(format!("Failed to run {}: {error}", what.program).as_bytes())
            }));
            sys::exit_now(127)
        }
        sys::Forked::Parent(pid) => Ok(pid),
    }
}

/// A session of its own with these streams, and the rest of what the task is.
fn become_one(spec: &Spec, group: Option<&Group>, parent: Pid, io: Io) -> io::Result<()> {
    setsid()?;
    if io.terminal.is_some() {
        ioctl_tiocsctty(&io.stdin)?;
    }
    rustix::stdio::dup2_stdin(io.stdin)?;
    rustix::stdio::dup2_stdout(io.stdout)?;
    rustix::stdio::dup2_stderr(io.stderr)?;
    enter(spec, group, parent)
}

/// Makes this process, a child of `parent`, one of the task's: its group, limits, user and directory, and an end with the
/// supervisor.
fn enter(spec: &Spec, group: Option<&Group>, parent: Pid) -> io::Result<()> {
    // Before it is anything: what it becomes is in there from its first instruction on. And as the agent's user.
    group.map_or(Ok(()), Group::enter)?;
    if let Some(current) = spec.open_files {
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum })?;
    }
    if let Some((uid, gid)) = spec.user {
        // There is one thread, so it is the whole process that changes.
        let groups: Vec<Gid> = spec.groups.iter().copied().map(Gid::from_raw).collect();
        set_thread_groups(&groups)?;
        set_thread_gid(Gid::from_raw(gid))?;
        set_thread_uid(Uid::from_raw(uid))?;
    }
    std::env::set_current_dir(&spec.sandbox)?;
    // Only now: it is forgotten when the user changes.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    match getppid() == Some(parent) {
        true => Ok(()),
        false => Err(io::Error::other("its supervisor is gone")), // before it was asked to tell
    }
}

fn wait_ready(hold: &UnixStream) -> io::Result<()> {
    hold.set_read_timeout(Some(READY_TIMEOUT))?;
    let mut byte = [0];
    let read = (&*hold).read_exact(&mut byte);
    match (read, byte[0]) {
        (Ok(()), READY) => Ok(()),
        (Ok(()), FAILED) => {
            let mut why = String::new();
            let _ = (&*hold).read_to_string(&mut why); // what was cut off says something, too
            Err(io::Error::other(why))
        }
        _ => Err(io::Error::other(
            "Failed to hold the command: its process ended or hangs before it was ready",
        )),
    }
}

impl Held for Posix {
    fn pid(&self) -> Pid {
        self.pid
    }

    fn take_output(&mut self) -> Output {
        std::mem::take(&mut self.output)
    }

    fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    fn release(&mut self) {
        if let Some(hold) = &mut self.hold {
            let _ = hold.write_all(&[RELEASE]); // a child that is gone is seen by its descriptor
        }
    }

    fn abandon(&mut self) {
        self.hold = None;
    }

    fn news_fd(&self) -> Option<BorrowedFd<'_>> {
        self.hold.as_ref().map(AsFd::as_fd)
    }

    /// The child's end is closed by its exec.
    fn news(&mut self) -> News {
        let Some(hold) = &mut self.hold else { return News::None };
        let mut bytes = [0; 4096];
        loop {
            match hold.read(&mut bytes) {
                Ok(0) => break,
                Ok(n) => self.failure.extend_from_slice(&bytes[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return News::None,
                Err(_) => break, // reset: the child was killed between
            }
        }
        self.hold = None;
        match self.failure.split_first() {
            Some((&FAILED, why)) => News::Failed(String::from_utf8_lossy(why).into_owned()),
            _ => News::Runs,
        }
    }

    /// The child is not reaped yet, so the group is the task's.
    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.pid, signal); // it may have ended meanwhile
    }

    fn kill(&self) {
        self.signal(Signal::KILL);
        if let Some(group) = &self.group {
            group.kill();
        }
    }

    fn oom(&self) -> Option<Oom> {
        self.group.as_ref()?.oom()
    }

    fn destroy(&mut self) -> Option<Oom> {
        let group = self.group.as_ref()?;
        let oom = group.oom();
        if group.remove_empty() {
            return oom;
        }
        while !group.end(PATIENCE) {} // it has not ended as long as something is in there
        let oom = oom.or_else(|| group.oom());
        let _ = group.remove(); // what stays is removed at the agent's next start
        oom
    }
}
