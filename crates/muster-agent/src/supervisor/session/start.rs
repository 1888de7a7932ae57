//! How the command of a session begins: its streams, its group, its user.

use super::{
    super::{
        SessionSpec, Spec,
        held::{Beside, Held, Ran},
        posix::enter,
        sys, terminal,
    },
    From, Session,
};
use crate::cgroups::Group;
use muster_container::Io;
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, getpid, ioctl_tiocsctty, pidfd_open, setsid},
};
use std::{
    collections::VecDeque,
    convert::Infallible,
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
};

/// The command's ends of its streams.
struct Theirs {
    input: OwnedFd,
    output: OwnedFd,
    error: OwnedFd,
    report: OwnedFd,
}

pub(super) fn spawn(spec: &Spec, held: &dyn Held, what: &SessionSpec) -> io::Result<Session> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let (report, their_report) = pipe()?;
    let mut outputs = vec![(From::Report, report)];
    let (input, theirs) = match what.tty {
        None => {
            let ((their_input, input), (stdout, output), (stderr, error)) = (pipe()?, pipe()?, pipe()?);
            outputs.extend([(From::Stdout, stdout), (From::Stderr, stderr)]);
            (input, Theirs { input: their_input, output, error, report: their_report })
        }
        Some(tty) => {
            let (terminal, end) = terminal::open(tty, spec.user)?;
            outputs.push((From::Stdout, terminal.try_clone()?));
            let (output, error) = (end.try_clone()?, end.try_clone()?);
            (terminal, Theirs { input: end, output, error, report: their_report })
        }
    };
    let SessionSpec { program, arg0, args, env, tty } = what;
    let (mut input, mut outputs) = (input, outputs);
    let Ran { pid, mark, terminal } = match held.inside() {
        Some(container) => {
            let Theirs { input: stdin, output: stdout, error: stderr, report: _ } = theirs;
            let io = Io { stdin, stdout, stderr, terminal: *tty };
            container.run(&Beside { program, arg0, args, env }, io)?
        }
        None => Ran { pid: fork(spec, held.group(), what, theirs)?, mark: None, terminal: None },
    };
    if let Some(terminal) = terminal {
        outputs.retain(|(from, _)| *from == From::Report);
        outputs.push((From::Stdout, terminal.try_clone()?));
        input = terminal;
    }
    for fd in outputs.iter().map(|(_, fd)| fd).chain([&input]) {
        fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
    }
    Ok(Session {
        client: None,
        pid,
        mark,
        pidfd: pidfd_open(pid, PidfdFlags::empty())?, // not reaped: else with all that the task leaves
        input: Some(File::from(input)),
        is_tty: what.tty.is_some(),
        given: VecDeque::new(),
        is_last: false,
        outputs: outputs.into_iter().map(|(from, fd)| (from, File::from(fd))).collect(),
        failure: Vec::new(),
        said: VecDeque::new(),
        found: None,
        is_told: false,
    })
}

/// Forks a process that becomes the command, in the task's group and sandbox.
fn fork(spec: &Spec, group: Option<&Group>, what: &SessionSpec, theirs: Theirs) -> io::Result<Pid> {
    let mut command = Command::new(&what.program);
    command.arg0(&what.arg0).args(&what.args);
    command.env_clear().envs(spec.env.iter().chain(&what.env).map(|(name, value)| (name, value)));
    let parent = getpid();
    match sys::fork()? {
        sys::Forked::Child => {
            // Nothing may return from here: all above is the supervisor's.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                run(spec, group, command, parent, what.tty.is_some(), theirs)
            }));
            sys::exit_now(127)
        }
        sys::Forked::Parent(pid) => Ok(pid),
    }
}

/// The child: it becomes the command, or says why it cannot.
fn run(
    spec: &Spec,
    group: Option<&Group>,
    mut command: Command,
    parent: Pid,
    is_tty: bool,
    theirs: Theirs,
) -> io::Result<Infallible> {
    let mut report = File::from(theirs.report);
    let become_it = || -> io::Result<()> {
        setsid()?;
        if is_tty {
            ioctl_tiocsctty(&theirs.input)?;
        }
        rustix::stdio::dup2_stdin(theirs.input.as_fd())?;
        rustix::stdio::dup2_stdout(theirs.output.as_fd())?;
        rustix::stdio::dup2_stderr(theirs.error.as_fd())?;
        enter(spec, group, parent)
    };
    let error = match become_it() {
        Ok(()) => command.exec(),
        Err(error) => error,
    };
    let program = command.get_program().to_string_lossy().into_owned();
    report.write_all(format!("Failed to run {program}: {error}").as_bytes())?;
    Err(error)
}
