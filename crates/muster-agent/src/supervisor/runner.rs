//! The process that is held in the place of a command which an engine runs: it has the engine start the container once it
//! is told to, writes down what that says, passes signals on, and ends with the status of the container.
//!
//! # Laws
//! - A container is started by one call, which is never repeated.
//! - The word of the engine counts, and not how its command line ended: as long as the container runs, or nobody knows,
//!   this one goes on.
//! - Nothing is waited for without a deadline but the end of the container.

use muster_container::{Engine, EngineError, EngineState};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

/// Lets the container start.
pub(super) const RELEASE: u8 = b'g';
/// SIGTERM for its command.
pub(super) const TERM: u8 = b't';
/// SIGKILL.
pub(super) const KILL: u8 = b'k';
/// Said once it runs.
pub(super) const RUNS: u8 = b'R';
/// Begins the reason why it cannot.
const FAILED: u8 = b'E';

/// The status of what SIGKILL ended.
pub(super) const KILLED: i32 = 137;
/// The status of what ended without one.
pub(super) const LOST: i32 = KILLED;
/// That of a container that did not start; a reason is told beside it.
const NOT_STARTED: i32 = 127;

/// The first pause between two looks, and the longest that it grows to: while it starts, and else.
const PAUSE: Duration = Duration::from_millis(50);
const STARTING_MAX: Duration = Duration::from_millis(400);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a signal may take.
const SIGNALLING: Duration = Duration::from_secs(30);
/// How long the rest of what it wrote may take to come after its end.
const FLUSHING: Duration = Duration::from_secs(10);
/// How long an engine that does not answer may take to say what became of a container that was killed.
const ANSWERING: Duration = Duration::from_secs(60);

/// A process of the engine's command line.
struct Client {
    child: Child,
    pidfd: OwnedFd,
    /// None: as long as the container runs.
    deadline: Option<Instant>,
}

impl Client {
    /// Whether it did what it was to, once it is over, which it is after its deadline.
    fn over(&mut self, now: Instant) -> io::Result<Option<bool>> {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.child.kill()?;
            self.child.wait()?;
            return Ok(Some(false));
        }
        Ok(self.child.try_wait()?.map(|status| status.success()))
    }
}

pub(super) struct Runner {
    engine: Engine,
    name: String,
    outputs: [File; 2],
    socket: UnixStream,
    /// What writes its output down.
    attached: Option<Client>,
    signals: Vec<Client>,
    /// When the engine is asked next; none: once something happened.
    look: Option<Instant>,
    pause: Duration,
    /// What writes its output down is not what began to.
    again: bool,
    runs: bool,
    /// A SIGTERM waits until it runs, or the engine answers.
    terms: bool,
    killed: Option<Instant>,
    ended: Option<i32>,
}

impl Runner {
    pub(super) fn new(engine: Engine, name: String, outputs: [File; 2], socket: UnixStream) -> Self {
        Self {
            engine,
            name,
            outputs,
            socket,
            attached: None,
            signals: Vec::new(),
            look: None,
            pause: PAUSE,
            again: false,
            runs: false,
            terms: false,
            killed: None,
            ended: None,
        }
    }

    /// Until the container has ended. Returns its status.
    pub(super) fn run(mut self) -> io::Result<i32> {
        let mut byte = [0];
        self.socket.read_exact(&mut byte)?; // the supervisor is gone, or wants none: never run
        if byte[0] != RELEASE {
            return Err(io::Error::other("not released"));
        }
        self.socket.set_nonblocking(true)?;
        match self.client(&["start", "--attach"], None, true) {
            Ok(client) => self.attached = Some(client),
            Err(error) => return self.fail(&format!("docker cannot be run: {error}")),
        }
        self.later(STARTING_MAX);
        loop {
            self.wait()?;
            self.hear()?;
            self.settle()?;
            if self.look.is_some_and(|at| at <= Instant::now()) {
                self.look = None;
                if let Some(code) = self.ask()? {
                    return Ok(code);
                }
            }
        }
    }

    fn client(&self, args: &[&str], deadline: Option<Duration>, attached: bool) -> io::Result<Client> {
        let mut command = self.engine.command();
        command.args(args).arg(&self.name).stdin(Stdio::null());
        let [stdout, stderr] = &self.outputs;
        match attached {
            true => command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?),
            false => command.stdout(Stdio::null()).stderr(Stdio::null()),
        };
        let child = command.spawn()?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        Ok(Client { child, pidfd, deadline: deadline.map(|it| Instant::now() + it) })
    }

    fn wait(&self) -> io::Result<()> {
        let clients = || self.attached.iter().chain(&self.signals);
        let mut fds = vec![PollFd::new(&self.socket, PollFlags::IN)];
        fds.extend(clients().map(|client| PollFd::new(&client.pidfd, PollFlags::IN)));
        let until = clients().filter_map(|client| client.deadline).chain(self.look).min();
        // Rounded up, or the last moment before it would be spent awake.
        let left = until.map(|it| it.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        let left = left.and_then(|it| Timespec::try_from(it).ok());
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What the supervisor says.
    fn hear(&mut self) -> io::Result<()> {
        let (mut bytes, mut asked) = ([0; 64], false);
        loop {
            match self.socket.read(&mut bytes) {
                Ok(0) => return Err(io::Error::other("the supervisor is gone")),
                Ok(n) => {
                    asked |= bytes[..n].contains(&TERM);
                    if bytes[..n].contains(&KILL) {
                        self.killed.get_or_insert_with(Instant::now);
                        (self.look, self.pause) = (Some(Instant::now()), PAUSE);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        match asked && self.killed.is_none() {
            true if self.runs => self.signal("TERM"),
            more => self.terms |= more,
        }
        Ok(())
    }

    fn signal(&mut self, name: &str) {
        // One that cannot be sent is no more than one that is not heeded.
        if let Ok(client) = self.client(&["kill", &format!("--signal={name}")], Some(SIGNALLING), false) {
            self.signals.push(client);
        }
    }

    /// Buries what ended.
    fn settle(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let mut i = 0;
        while let Some(client) = self.signals.get_mut(i) {
            match client.over(now)? {
                Some(true) => drop(self.signals.swap_remove(i)),
                Some(false) => {
                    // It has ended, or the engine is asked and told once more.
                    self.signals.swap_remove(i);
                    self.terms = self.killed.is_none();
                    self.later(PAUSE_MAX);
                }
                None => i += 1,
            }
        }
        if let Some(client) = &mut self.attached
            && client.over(now)?.is_some()
        {
            self.attached = None;
            // A client that ends at once is not begun again at once.
            self.look = Some(if self.again { now + self.pause } else { now });
        }
        Ok(())
    }

    /// Asks the engine. The status of a container that ended, and of which all is written down.
    fn ask(&mut self) -> io::Result<Option<i32>> {
        if let Some(code) = self.ended {
            if self.attached.is_none() {
                return Ok(Some(code));
            }
            return Ok(None);
        }
        match self.engine.state(&self.name) {
            Ok(EngineState::Ended { code, .. }) => {
                self.tell_running()?;
                let Some(client) = &mut self.attached else { return Ok(Some(code)) };
                client.deadline = Some(Instant::now() + FLUSHING);
                self.ended = Some(code);
            }
            Ok(EngineState::Runs) => {
                self.tell_running()?;
                if self.killed.is_some() {
                    if self.signals.is_empty() {
                        self.signal("KILL");
                    }
                    self.later(PAUSE_MAX);
                } else if std::mem::take(&mut self.terms) {
                    self.signal("TERM");
                }
                if self.attached.is_none() {
                    // The engine was restarted, or the client was ended by somebody: the container goes on.
                    self.attached =
                        self.client(&["attach", "--no-stdin", "--sig-proxy=false"], None, true).ok();
                    self.again = true;
                    self.later(PAUSE_MAX);
                }
            }
            Ok(EngineState::Created(why)) if self.attached.is_none() => {
                let why = if why.is_empty() { "the engine did not start it" } else { &why };
                return self.fail(&format!("Failed to start the container: {why}")).map(Some);
            }
            // It is removed, which waits for a start that is under way.
            Ok(EngineState::Created(_)) if self.killed.is_some() => return Ok(Some(LOST)),
            Ok(EngineState::Created(_)) => self.later(STARTING_MAX),
            // Removed by somebody else, and killed with that.
            Err(EngineError::NoSuch) => {
                self.tell_running()?;
                return Ok(Some(LOST));
            }
            Err(_) if self.killed.is_some_and(|since| since.elapsed() >= ANSWERING) => return Ok(Some(LOST)),
            Err(_) => self.later(PAUSE_MAX),
        }
        Ok(None)
    }

    fn later(&mut self, max: Duration) {
        let at = Instant::now() + self.pause.min(max);
        self.look = Some(self.look.map_or(at, |sooner| sooner.min(at)));
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    fn tell_running(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.runs, true) {
            self.socket.write_all(&[RUNS])?;
        }
        Ok(())
    }

    fn fail(&mut self, why: &str) -> io::Result<i32> {
        self.socket.set_nonblocking(false)?;
        self.socket.write_all(&[&[FAILED], why.as_bytes()].concat())?;
        Ok(NOT_STARTED)
    }
}
