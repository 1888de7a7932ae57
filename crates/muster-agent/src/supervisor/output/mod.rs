//! What a task writes, on its way to the files of its sandbox.
//!
//! A stream of which all is kept is a file that the task itself writes. One with a limit is a pipe, and a task with a
//! terminal has the other end of ours: what comes out of either is copied here, by the loop that does everything else.
//!
//! # Laws
//! - A task does not wait for room on the disk: what cannot be written is dropped, counted, and told where it is missing.
//! - What a task wrote before it ended is in its files before its ending is told, and nothing that outlives it delays that.
//! - Who has joined a terminal holds up nobody: who does not read is cut off.

mod log;
mod terminal;

use super::{Ending, FromSupervisor, Outputs, Rotation, Spec, client::Client, sandbox, session::Sessions};
use log::Log;
use rustix::{
    event::{PollFd, PollFlags},
    fs::{Gid, OFlags, Uid, fchown, fcntl_getfl, fcntl_setfl},
    io::ioctl_fionread,
    pipe::{PipeFlags, pipe_with},
};
use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    rc::Rc,
};
use terminal::Terminal;

/// What is read of a stream at a time.
const PIECE_BYTES: usize = 64 << 10;

/// The task's ends of its streams.
#[derive(Debug)]
pub(super) struct Streams {
    /// Its terminal, to become its own and its standard input; none: it reads nothing.
    pub(super) terminal: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// The supervisor's ends, and where what comes from there goes.
#[derive(Default)]
pub(super) struct Output {
    copies: Vec<Piped>,
    terminal: Option<Terminal>,
}

/// A pipe and its file.
struct Piped {
    from: File,
    to: Log,
}

/// Makes the sandbox of a command and its streams.
pub(super) fn open(spec: &Spec) -> io::Result<(Streams, Output)> {
    let dir = Rc::new(sandbox::open(spec)?);
    let mut output = Output::default();
    if let Some(size) = spec.output.terminal {
        let log = Log::open(&dir, "stdout", spec.user, spec.output.stdout)
            .map_err(sandbox::doing(spec, "open stdout in"))?;
        // There is nothing to go there, but there is one of each task.
        sandbox::log(&dir, "stderr", spec.user).map_err(sandbox::doing(spec, "open stderr in"))?;
        let (terminal, end) =
            Terminal::open(size, spec.user, log).map_err(sandbox::doing(spec, "make a terminal for"))?;
        output.terminal = Some(terminal);
        let (stdout, stderr) = (end.try_clone()?, end.try_clone()?);
        return Ok((Streams { terminal: Some(end), stdout, stderr }, output));
    }
    let mut open = |name: &'static str, rotation: Option<Rotation>| -> io::Result<OwnedFd> {
        if rotation.is_none() {
            return Ok(sandbox::log(&dir, name, spec.user)?.into());
        }
        let to = Log::open(&dir, name, spec.user, rotation)?;
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&ours, fcntl_getfl(&ours)? | OFlags::NONBLOCK)?;
        if let Some((uid, gid)) = spec.user {
            // Or it could not open what `/dev/stdout` leads to.
            fchown(&theirs, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        output.copies.push(Piped { from: ours.into(), to });
        Ok(theirs)
    };
    let stdout = open("stdout", spec.output.stdout).map_err(sandbox::doing(spec, "open stdout in"))?;
    let stderr = open("stderr", spec.output.stderr).map_err(sandbox::doing(spec, "open stderr in"))?;
    Ok((Streams { terminal: None, stdout, stderr }, output))
}

impl Output {
    /// The task has another terminal than it was given: this is our end of it.
    pub(super) fn own(&mut self, ours: OwnedFd, of: &Outputs) -> io::Result<()> {
        match (&mut self.terminal, of.terminal) {
            (Some(terminal), Some(size)) => terminal.own(ours, size),
            _ => Ok(()),
        }
    }

    /// What to wait for.
    pub(super) fn fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let pipes = self.copies.iter().map(|copy| PollFd::new(&copy.from, PollFlags::IN));
        pipes.chain(self.terminal.iter().flat_map(Terminal::fds))
    }

    /// Does all that can be done without waiting.
    pub(super) fn settle(&mut self) {
        self.copies.retain_mut(|copy| {
            let is_open = read(&mut copy.from, PIECE_BYTES, |bytes| copy.to.write(bytes));
            if !is_open {
                copy.to.tell_lost();
            }
            is_open
        });
        if let Some(terminal) = &mut self.terminal {
            terminal.settle();
        }
    }

    /// Joins a connection to the terminal. If there is none, that is what is said.
    pub(super) fn attach(&mut self, client: Client, output: bool) {
        match &mut self.terminal {
            Some(terminal) => terminal.attach(client, output),
            None => Sessions::refuse(client, "the task has no terminal"),
        }
    }

    /// No process of the task is left: takes in what they wrote. Who still has the other end of a pipe, and is none of
    /// them, adds nothing.
    pub(super) fn finish(&mut self) {
        for copy in &mut self.copies {
            let written = ioctl_fionread(&copy.from).unwrap_or_default();
            read(&mut copy.from, usize::try_from(written).unwrap_or_default(), |bytes| copy.to.write(bytes));
            copy.to.tell_lost();
        }
        if let Some(terminal) = &mut self.terminal {
            terminal.finish();
        }
    }

    /// Tells who joined the terminal how the task ended.
    pub(super) fn leave(&mut self, ending: &Ending) {
        if let Some(terminal) = self.terminal.take() {
            terminal.leave(&FromSupervisor::SessionEnded(ending.found()));
        }
    }
}

/// Reads at most so many bytes, as far as they are there. False: there are none any more.
fn read(from: &mut File, most: usize, mut take: impl FnMut(&[u8])) -> bool {
    let mut bytes = vec![0; most.min(PIECE_BYTES)];
    let mut left = most;
    while left > 0 {
        let piece = left.min(PIECE_BYTES);
        match from.read(&mut bytes[..piece]) {
            Ok(0) => return false,
            Ok(n) => {
                take(&bytes[..n]);
                left -= n;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, path::Path};

    pub(super) fn log(dir: &Path) -> Log {
        let fd: OwnedFd = File::open(dir).unwrap().into();
        Log::open(&Rc::new(fd), "stdout", None, Some(Rotation { bytes: 1 << 20, keep: 0 })).unwrap()
    }

    fn copy(dir: &Path) -> (Output, File) {
        let to = log(dir);
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        fcntl_setfl(&ours, OFlags::NONBLOCK).unwrap();
        (Output { copies: vec![Piped { from: ours.into(), to }], terminal: None }, theirs.into())
    }

    #[test]
    fn all_that_is_in_a_pipe_is_taken_in_though_somebody_keeps_it_open() {
        let dir = tempfile::tempdir().unwrap();
        let (mut output, mut theirs) = copy(dir.path());
        theirs.write_all(&[b'x'; 60_000]).unwrap();
        output.finish();
        let stdout = dir.path().join("stdout");
        assert_eq!(stdout.metadata().unwrap().len(), 60_000);
        output.settle();
        assert_eq!(output.fds().count(), 1, "it is open");
        drop(theirs);
        output.settle();
        assert_eq!(output.fds().count(), 0);
    }
}
