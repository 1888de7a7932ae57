//! How a task's first process is made, let go, signalled, and taken away with all that it left. The supervisor's loop
//! knows nothing else of it; each way to run a command is one [`Held`] in a file of its own.

use super::{Spec, contained::InContainer, engine::InEngine, output::Output, posix::Posix};
use crate::cgroups::{Group, Oom};
use muster_container::Io;
use rustix::process::{Pid, Signal};
use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

/// What came of a release.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing yet.
    None,
    /// The command runs.
    Runs,
    /// It cannot be run; this says why. The held process ends by itself.
    Failed(String),
}

/// What is run beside a task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beside<'a> {
    pub(super) program: &'a str,
    pub(super) arg0: &'a str,
    /// The arguments after that.
    pub(super) args: &'a [String],
    /// Variables beside the task's own, which they replace.
    pub(super) env: &'a [(String, String)],
}

/// A process that was started beside a task.
#[derive(Debug)]
pub(super) struct Ran {
    /// A child of this process, which leads a session.
    pub(super) pid: Pid,
    /// By what the processes are known that do not end with it ([`BESIDE`](super::process::BESIDE)); none: it has none
    /// such.
    pub(super) mark: Option<String>,
    /// Our end of its terminal, where another one was made than was given.
    pub(super) terminal: Option<OwnedFd>,
}

/// Where a command is that is not among the machine's own processes and files.
pub(super) trait Inside {
    /// Runs a program there.
    fn run(&self, what: &Beside<'_>, io: Io) -> io::Result<Ran>;
}

/// A command that is held, and then a task that runs.
///
/// Whatever is started must not keep the supervisor's standard output: see the launch helper's lock (`helper.rs`). The
/// supervisor has one thread and is the parent of what is left to it (a subreaper), so that an implementation may
/// fork, and may have its process started by another program that ends.
pub(super) trait Held {
    /// The held process, which becomes the command: this process's child, reaped by the supervisor's loop when it
    /// ended. It leads a session and a process group.
    fn pid(&self) -> Pid;

    /// What copies what the command writes, if it does not write to its files itself. Called once.
    fn take_output(&mut self) -> Output {
        Output::default()
    }

    /// The control group, where there is any, for what is run beside the task.
    fn group(&self) -> Option<&Group>;

    /// Lets the command go. Called once. One that cannot be let go has ended, and is seen by that.
    fn release(&mut self);

    /// Never lets it go: the held process ends by itself.
    fn abandon(&mut self);

    /// What can be read when there is news of the release; none when none is expected.
    fn news_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Takes the news in, without waiting for any.
    fn news(&mut self) -> News;

    /// Signals the command and its process group; one that ended is none.
    fn signal(&self, signal: Signal);

    /// Kills all processes of the task that there are.
    fn kill(&self);

    /// What the kernel killed of the task for want of memory.
    fn oom(&self) -> Option<Oom>;

    /// Where the command is; none: where any process of this machine in the task's group and sandbox is.
    fn inside(&self) -> Option<&dyn Inside> {
        None
    }

    /// Ends all that the held process left, once that was reaped, and removes what was made for it. As long as anything
    /// is left this does not return. Also what [`Held::oom`] had to say before.
    fn destroy(&mut self) -> Option<Oom>;
}

/// Makes what is needed to run the command of a spec, and holds it. What was made is removed again if it cannot be.
pub(super) fn create(spec: &Spec) -> io::Result<Box<dyn Held>> {
    match (&spec.engine, &spec.container) {
        (Some(by), _) => Ok(Box::new(InEngine::create(spec, by)?)),
        (None, Some(contained)) => Ok(Box::new(InContainer::create(spec, contained)?)),
        (None, None) => Ok(Box::new(Posix::create(spec)?)),
    }
}
