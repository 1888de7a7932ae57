//! How the command of a session begins, and its streams.

use super::{
    super::{
        SessionSpec, Spec,
        held::{Beside, Held, Ran},
        posix, terminal,
    },
    From, Session,
};
use muster_container::Io;
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    pipe::{PipeFlags, pipe_with},
    process::{PidfdFlags, pidfd_open},
};
use std::{collections::VecDeque, fs::File, io};

pub(super) fn spawn(spec: &Spec, held: &dyn Held, what: &SessionSpec) -> io::Result<Session> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let (report, their_report) = pipe()?;
    let mut outputs = vec![(From::Report, report)];
    let (mut input, io) = match what.tty {
        None => {
            let ((stdin, input), (output, stdout), (error, stderr)) = (pipe()?, pipe()?, pipe()?);
            outputs.extend([(From::Stdout, output), (From::Stderr, error)]);
            (input, Io { stdin, stdout, stderr, terminal: None })
        }
        Some(size) => {
            let (terminal, stdin) = terminal::open(size, spec.user)?;
            outputs.push((From::Stdout, terminal.try_clone()?));
            let (stdout, stderr) = (stdin.try_clone()?, stdin.try_clone()?);
            (terminal, Io { stdin, stdout, stderr, terminal: Some(size) })
        }
    };
    let SessionSpec { program, arg0, args, env, .. } = what;
    let beside = Beside { program, arg0, args, env };
    let Ran { pid, mark, terminal } = match held.inside() {
        Some(container) => {
            drop(their_report); // it says itself why it cannot
            container.run(&beside, io)?
        }
        None => {
            let pid = posix::run(spec, held.group(), &beside, io, their_report)?;
            Ran { pid, mark: None, terminal: None }
        }
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
