//! Commands that are run beside a task for who looks into it, their streams over a connection of their own.
//!
//! # Laws
//! - A session ends with its connection, with its task and with this process, and all that it started with it, but for
//!   what made a session of its own: that ends with the task. What an engine begins later ends when it is seen.
//! - Nothing is waited for: what is not taken is kept up to a limit, and beyond it nothing more is read.

mod start;

use super::{
    Found, FromSupervisor, SessionSpec, Spec, ToSupervisor,
    client::{Client, pour},
    encode,
    held::Held,
    process::{kill_session, number, signal_beside},
    stragglers::Stragglers,
    terminal::{self, END_OF_INPUT},
};
use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process_group, waitid, waitpid},
};
use start::spawn;
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
};

/// Sessions of one task at once.
const SESSIONS_MAX: usize = 16;
/// Bytes of input that may wait for a command to read them.
const GIVEN_BYTES_MAX: usize = 64 << 10;
/// Bytes that may wait for the agent to read them.
const SAID_BYTES_MAX: usize = 256 << 10;
/// What is read of a stream at a time.
const PIECE_BYTES: usize = 16 << 10;

/// All sessions of a task.
#[derive(Default)]
pub(super) struct Sessions {
    running: Vec<Session>,
}

struct Session {
    /// None: it is gone, and the session goes.
    client: Option<Client>,
    pid: Pid,
    /// By what others of it are known.
    mark: Option<String>,
    pidfd: OwnedFd,
    /// Standard input, or the terminal; none once it is closed.
    input: Option<File>,
    is_tty: bool,
    /// For its input.
    given: VecDeque<u8>,
    /// The input ends after what is given.
    is_last: bool,
    outputs: Vec<(From, File)>,
    /// Why the command could not be run.
    failure: Vec<u8>,
    /// Frames for the agent.
    said: VecDeque<u8>,
    /// How its process ended.
    found: Option<Found>,
    /// That was said.
    is_told: bool,
}

/// Where something comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Stdout,
    Stderr,
    /// Why the command could not be run; closed when it could.
    Report,
}

impl Sessions {
    /// Runs a command whose streams go over this connection.
    pub(super) fn start(&mut self, spec: &Spec, held: &dyn Held, mut client: Client, what: &SessionSpec) {
        let started = match self.running.len() {
            0..SESSIONS_MAX => spawn(spec, held, what),
            _ => Err(io::Error::other("too many sessions of the task are open")),
        };
        match started {
            Ok(session) => self.running.push(Session { client: Some(client), ..session }),
            Err(error) => {
                let why = format!("Failed to run {}: {error}", what.program);
                let _ = client.say(&FromSupervisor::SessionEnded(Found::Failed(why))); // who asked may be gone
            }
        }
    }

    /// A connection that wants no session.
    pub(super) fn refuse(mut client: Client, why: &str) {
        let _ = client.say(&FromSupervisor::SessionEnded(Found::Failed(why.into()))); // who asked may be gone
    }

    pub(super) fn has(&self, pid: u32) -> bool {
        self.running.iter().any(|session| number(session.pid) == pid)
    }

    /// What to wait for.
    pub(super) fn fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.running.iter().flat_map(Session::fds)
    }

    /// Does all that can be done without waiting.
    pub(super) fn settle(&mut self, stragglers: &mut Stragglers) {
        self.running.iter_mut().for_each(|session| session.settle(stragglers));
        self.running.retain(|session| !session.is_over());
    }

    /// Says what there is to say of those that ended with the task, of which no process is left.
    pub(super) fn end(&mut self) {
        for mut session in self.running.drain(..) {
            session.found.get_or_insert(Found::Signaled(Signal::KILL.as_raw()));
            session.read();
            session.flush(); // what is not taken now is lost
        }
    }
}

impl Session {
    fn fds(&self) -> Vec<PollFd<'_>> {
        let mut fds = Vec::new();
        if self.found.is_none() {
            fds.push(PollFd::new(&self.pidfd, PollFlags::IN));
        }
        let Some(client) = &self.client else { return fds };
        // Where nothing is read or written, that the other side is gone is seen all the same.
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, self.takes_input());
        wanted.set(PollFlags::OUT, !self.said.is_empty());
        fds.push(PollFd::new(&client.stream, wanted));
        if let Some(input) = self.input.as_ref().filter(|_| !self.given.is_empty()) {
            fds.push(PollFd::new(input, PollFlags::OUT));
        }
        if self.takes_output() {
            fds.extend(self.outputs.iter().map(|(_, output)| PollFd::new(output, PollFlags::IN)));
        }
        fds
    }

    fn takes_input(&self) -> bool {
        self.given.len() < GIVEN_BYTES_MAX
    }

    fn takes_output(&self) -> bool {
        self.said.len() < SAID_BYTES_MAX
    }

    fn is_over(&self) -> bool {
        self.found.is_some() && (self.client.is_none() || self.is_told && self.said.is_empty())
    }

    fn settle(&mut self, stragglers: &mut Stragglers) {
        if !self.hear() {
            self.leave(stragglers);
        }
        self.give();
        self.bury(stragglers);
        self.read();
        if !self.flush() {
            self.leave(stragglers);
        }
    }

    /// Nobody wants it any more.
    fn leave(&mut self, stragglers: &mut Stragglers) {
        if self.client.take().is_some() && self.found.is_none() {
            self.kill(stragglers);
        }
        (self.input, self.outputs) = (None, Vec::new());
        self.given.clear();
        self.said.clear();
    }

    /// Kills all of it. Its process is not reaped yet, so the number is its own.
    fn kill(&self, stragglers: &mut Stragglers) {
        kill_session(self.pid);
        if let Some(mark) = &self.mark {
            stragglers.kill(mark);
        }
    }

    /// Takes in what the agent says. False: it is gone.
    fn hear(&mut self) -> bool {
        let takes = self.takes_input();
        let Some(client) = &mut self.client else { return true };
        if !takes {
            return !client.is_gone();
        }
        let is_open = client.fill();
        loop {
            match client.frames.next() {
                Ok(Some(ToSupervisor::Input(bytes))) if bytes.is_empty() => self.is_last = true,
                Ok(Some(ToSupervisor::Input(bytes))) if !self.is_last => self.given.extend(bytes),
                Ok(Some(ToSupervisor::Resize { rows, columns })) => {
                    if let Some(terminal) = self.input.as_ref().filter(|_| self.is_tty) {
                        let _ = terminal::resize(terminal, (rows, columns)); // it may be closed
                    }
                }
                Ok(Some(ToSupervisor::Signal(signal))) => {
                    if let Some(signal) = Signal::from_named_raw(signal)
                        && self.found.is_none()
                    {
                        match &self.mark {
                            Some(mark) => signal_beside(|found| found == mark, signal),
                            // It may have ended meanwhile.
                            None => drop(kill_process_group(self.pid, signal)),
                        }
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => return is_open,
                Err(_) => return false,
            }
        }
    }

    /// Hands input on.
    fn give(&mut self) {
        while let Some(input) = &mut self.input {
            if self.given.is_empty() {
                match (self.is_last, self.is_tty) {
                    (true, false) => self.input = None,
                    (true, true) => {
                        self.is_last = false;
                        self.given.push_back(END_OF_INPUT);
                        continue;
                    }
                    (false, _) => {}
                }
                return;
            }
            match pour(&mut self.given, input) {
                Ok(()) if self.given.is_empty() => {}
                Ok(()) => return,
                Err(_) => self.input = None, // nobody reads it any more
            }
        }
        self.given.clear();
    }

    /// Sees whether its process ended, and ends what it left.
    fn bury(&mut self, stragglers: &mut Stragglers) {
        if self.found.is_some() {
            return;
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(self.pid), options) {
            Ok(None) | Err(Errno::INTR) => return,
            Ok(Some(_)) => {}
            Err(error) => {
                self.found = Some(Found::Failed(error.to_string()));
                return;
            }
        }
        self.kill(stragglers);
        self.found = match waitpid(Some(self.pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => Some(match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Found::Exited(code),
                (None, Some(signal)) => Found::Signaled(signal),
                (None, None) => Found::Exited(status.as_raw()),
            }),
            Ok(None) | Err(Errno::INTR) => None, // the next time
            Err(error) => Some(Found::Failed(error.to_string())),
        };
    }

    /// Reads what was written, as far as there is room. What its process wrote is there once it ended.
    fn read(&mut self) {
        let mut bytes = vec![0; PIECE_BYTES];
        let mut at = 0;
        while at < self.outputs.len() {
            if !self.takes_output() {
                return;
            }
            let (from, output) = &mut self.outputs[at];
            let from = *from;
            match output.read(&mut bytes) {
                Ok(n) if n > 0 => match from {
                    From::Report => self.failure.extend_from_slice(&bytes[..n]),
                    From::Stdout | From::Stderr => {
                        let is_error = from == From::Stderr;
                        self.say(&FromSupervisor::Output { is_error, bytes: bytes[..n].to_vec() });
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Until it runs nothing of it is told.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && from == From::Report => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => at += 1,
                // Its end; a terminal's is an error, as nobody has it open any more.
                Ok(_) | Err(_) => {
                    self.outputs.remove(at);
                    if from == From::Report && self.failure.is_empty() {
                        self.say(&FromSupervisor::SessionRuns);
                    }
                }
            }
        }
        if let Some(found) = self.found.clone().filter(|_| !self.is_told) {
            self.is_told = true;
            let found = match self.failure.is_empty() {
                true => found,
                false => Found::Failed(String::from_utf8_lossy(&self.failure).into_owned()),
            };
            (self.input, self.outputs) = (None, Vec::new());
            self.say(&FromSupervisor::SessionEnded(found));
        }
    }

    fn say(&mut self, message: &FromSupervisor) {
        if self.client.is_some() {
            self.said.extend(encode(message).unwrap_or_default()); // far below what a frame may have
        }
    }

    /// Sends what was said, as far as it is taken. False: the agent is gone.
    fn flush(&mut self) -> bool {
        self.client.as_mut().is_none_or(|client| client.flush(&mut self.said))
    }
}
