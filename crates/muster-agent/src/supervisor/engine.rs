//! Containers that a Docker engine makes: the engine is the parent of the command, and what is held here is a process of
//! ours (`runner.rs`) that has the engine start it, and ends as it ended.

use super::{
    Spec,
    contained::{give_away, open_below},
    held::{Beside, Held, Inside, News, Ran},
    output::{self, Output, Streams},
    process::{BESIDE, end_marked},
    runner::{self, Runner},
    sandbox, sys,
};
use crate::cgroups::{Group, Oom, PATIENCE};
use muster_container::{
    Engine, EngineError, EngineSpec, EngineState, Io, env_memory, fits_a_line, remove_groups,
};
use rustix::{
    fs::{Gid, Uid},
    process::{Pid, Signal, getpid, getppid, ioctl_tiocsctty, set_parent_process_death_signal, setsid},
};
use serde::{Deserialize, Serialize};
use std::{
    cell::Cell,
    collections::BTreeMap,
    convert::Infallible,
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{fs::chown, net::UnixStream, process::CommandExt},
    },
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    time::Duration,
};

/// Between two attempts to have a container removed.
const PAUSE: Duration = Duration::from_secs(1);
/// Attempts after which the container of a command that ran, and of which no process is left, stays for the agent to
/// remove: it cannot start again.
const REMOVALS: usize = 5;

/// How often an engine is asked whether the kernel killed a container for want of memory, and between two of these looks: it
/// hears of that, and of the end, in different ways.
const LOOKS: usize = 10;
const LOOK: Duration = Duration::from_millis(100);

/// What makes a command a container of an engine. It is said only to supervisors of the agent's own executable, and so may
/// change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ByEngine {
    pub(crate) engine: Engine,
    pub(crate) container: EngineSpec,
    /// A file that says that the engine may have the container; it goes with that.
    pub(crate) marker: PathBuf,
    /// The user to be found in its image, who gets the sandbox.
    pub(crate) user: Option<String>,
    /// A directory for what has to be known of the image, which is there.
    pub(crate) dir: PathBuf,
    /// Directories below the sandbox that it sees elsewhere, too, and which are made.
    pub(crate) within: Vec<PathBuf>,
    /// Its control group, below each hierarchy.
    pub(crate) cgroup: PathBuf,
}

/// A container of an engine.
pub(super) struct InEngine {
    pid: Pid,
    output: Output,
    by: ByEngine,
    /// The mark of all its processes.
    mark: String,
    group: Option<Group>,
    memory_bytes: Option<u64>,
    /// To the runner; none once it is abandoned.
    hold: Option<UnixStream>,
    /// What the runner said until it was told.
    said: Vec<u8>,
    is_told: bool,
    ran: bool,
    /// Its start has failed.
    never_runs: bool,
    /// Commands that were run beside it.
    besides: Cell<u64>,
    /// By us: then no other reason is waited for.
    was_killed: Cell<bool>,
    /// The groups that the engine makes are gone with the container.
    oom_seen: Cell<Option<Oom>>,
}

impl InEngine {
    pub(super) fn create(spec: &Spec, by: &ByEngine) -> io::Result<Self> {
        let group =
            (!spec.parts.is_empty()).then(|| Group::make(spec.parts.clone(), &spec.limits)).transpose()?;
        let made = make(spec, by, group.clone());
        if made.is_err() {
            if by.engine.remove(&by.container.name).is_ok() {
                let _ = fs::remove_file(&by.marker); // with the container of the next attempt
            }
            if let Some(group) = &group {
                group.end(PATIENCE);
                let _ = group.remove(); // what stays is removed at the agent's next start
            }
            remove_groups(&by.cgroup);
        }
        made
    }
}

fn make(spec: &Spec, by: &ByEngine, group: Option<Group>) -> io::Result<InEngine> {
    // Before the container: what is seen in it must be there.
    let (Streams { stdout, stderr, .. }, output) = output::open(spec)?;
    let outputs = [File::from(stdout), File::from(stderr)];
    for path in &by.within {
        open_below(&spec.sandbox, path, true, spec.user)
            .map_err(|error| io::Error::other(format!("Failed to mount {path:?}: {error}")))?;
    }
    by.engine.create(&by.container).map_err(said)?;
    if let Some(named) = &by.user {
        let (uid, gid) = user(by, named)?;
        chown(&spec.sandbox, Some(uid), Some(gid))
            .and_then(|()| give_away(&spec.sandbox, Uid::from_raw(uid), Gid::from_raw(gid)))
            .map_err(sandbox::doing(spec, "give away the sandbox"))?;
    }
    let (ours, theirs) = UnixStream::pair()?;
    let parent = getpid();
    let pid = match sys::fork().map_err(sandbox::doing(spec, "start a process in"))? {
        sys::Forked::Child => {
            drop(ours); // or it would never see the other end close
            // Nothing may return from here: all above is the supervisor's.
            let ended = catch_unwind(AssertUnwindSafe(|| hold(by, parent, outputs, theirs)));
            sys::exit_now(match ended {
                Ok(Ok(code)) => code,
                _ => runner::LOST,
            })
        }
        sys::Forked::Parent(pid) => pid,
    };
    drop((outputs, theirs));
    ours.set_nonblocking(true)?;
    Ok(InEngine {
        pid,
        output,
        by: by.clone(),
        mark: spec.place.mark(Some(spec.launch)),
        group,
        memory_bytes: spec.limits.of_a_bundle().memory_bytes,
        hold: Some(ours),
        said: Vec::new(),
        is_told: false,
        ran: false,
        never_runs: false,
        besides: Cell::new(0),
        was_killed: Cell::new(false),
        oom_seen: Cell::new(None),
    })
}

/// The held child.
fn hold(by: &ByEngine, parent: Pid, outputs: [File; 2], socket: UnixStream) -> io::Result<i32> {
    rustix::stdio::dup2_stdout(rustix::stdio::stdin())?; // with which its copy of the helper's lock is gone
    setsid()?;
    let _ = rustix::thread::set_name(c"muster-docker"); // only to be seen
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Some(parent) {
        return Err(io::Error::other("its supervisor is gone")); // before it was asked to tell
    }
    Runner::new(by.engine.clone(), by.container.name.clone(), outputs, socket).run()
}

fn said(error: EngineError) -> io::Error {
    io::Error::other(format!("Failed to make the container: {error}"))
}

/// The number of a user, by the files of the container.
fn user(by: &ByEngine, named: &str) -> io::Result<(u32, u32)> {
    let etc = by.dir.join("etc");
    let _ = fs::remove_dir_all(&etc); // of an attempt before
    fs::create_dir(&etc)?;
    for name in ["passwd", "group"] {
        let copied = by.engine.copy_out(&by.container.name, &format!("/etc/{name}"), &etc.join(name));
        if copied.as_ref().is_err_and(EngineError::is_unsure) {
            copied.map_err(said)?; // an image may have none
        }
    }
    let user = muster_image::user(&by.dir, named)
        .map_err(|why| io::Error::other(format!("Failed to run as user {named:?}: {why}")))?;
    Ok((user.uid, user.gid))
}

impl InEngine {
    fn say(&self, byte: u8) {
        if let Some(mut hold) = self.hold.as_ref() {
            let _ = hold.write_all(&[byte]); // a runner that is gone is seen by its descriptor
        }
    }

    /// What there is to say of its memory, once it ended: what was seen while it ran, or what the engine says, where that can
    /// be.
    fn oom_at_end(&self) -> Option<Oom> {
        if let Some(seen) = self.oom() {
            return Some(seen);
        }
        let oom = match &self.group {
            Some(group) => group.oom_of_all(),
            None => self.memory_bytes.map(|limit_bytes| Oom { limit_bytes, peak_bytes: 0 }),
        }?;
        for _ in 0..LOOKS {
            match self.by.engine.state(&self.by.container.name) {
                Ok(EngineState::Ended { out_of_memory: true, .. }) => return Some(oom),
                // The kernel's own way to kill.
                Ok(EngineState::Ended { code: runner::KILLED, .. }) if !self.was_killed.get() => {
                    std::thread::sleep(LOOK);
                }
                _ => return None,
            }
        }
        None
    }

    /// Has the engine remove it. Where it does not answer, or does not remove it, no process of it is left, nor will be:
    /// by a control group of the agent's that is known for certain.
    fn remove(&self) {
        for tried in 1.. {
            match self.by.engine.remove(&self.by.container.name) {
                Ok(()) => {
                    let _ = fs::remove_file(&self.by.marker); // else the agent asks once more
                    return;
                }
                Err(_) => {
                    let is_none_left = end_marked(|found| found == self.mark, PATIENCE);
                    let is_over = self.never_runs || (self.ran && self.group.is_some());
                    if is_over && is_none_left && tried >= REMOVALS {
                        return;
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }
}

impl Held for InEngine {
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
        self.say(runner::RELEASE);
    }

    fn abandon(&mut self) {
        self.hold = None;
    }

    fn news_fd(&self) -> Option<BorrowedFd<'_>> {
        self.hold.as_ref().filter(|_| !self.is_told).map(AsFd::as_fd)
    }

    fn news(&mut self) -> News {
        let Some(hold) = self.hold.as_mut().filter(|_| !self.is_told) else { return News::None };
        let mut bytes = [0; 4096];
        let is_over = loop {
            match hold.read(&mut bytes) {
                Ok(0) => break true,
                Ok(n) => self.said.extend_from_slice(&bytes[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
            }
        };
        match self.said.split_first() {
            Some((&runner::RUNS, _)) => {
                (self.is_told, self.ran) = (true, true);
                News::Runs
            }
            Some((_, why)) if is_over => {
                (self.is_told, self.never_runs) = (true, true);
                News::Failed(String::from_utf8_lossy(why).into_owned())
            }
            None if is_over => {
                self.is_told = true; // its end says more
                News::None
            }
            _ => News::None,
        }
    }

    fn signal(&self, signal: Signal) {
        self.say(if signal == Signal::KILL { runner::KILL } else { runner::TERM });
    }

    fn kill(&self) {
        self.was_killed.set(true);
        self.signal(Signal::KILL);
        if let Some(group) = &self.group {
            group.kill(); // whether or not the engine answers
        }
    }

    fn oom(&self) -> Option<Oom> {
        self.oom_seen.set(self.oom_seen.get().or_else(|| self.group.as_ref()?.oom_below()));
        self.oom_seen.get()
    }

    fn inside(&self) -> Option<&dyn Inside> {
        Some(self)
    }

    fn destroy(&mut self) -> Option<Oom> {
        self.hold = None;
        let oom = self.oom_at_end();
        self.remove();
        if let Some(group) = &self.group {
            while !group.end(PATIENCE) {} // it has not ended as long as something is in there
            let _ = group.remove(); // what stays is removed at the agent's next start
        }
        remove_groups(&self.by.cgroup);
        oom
    }
}

impl Inside for InEngine {
    /// What is run here is the command line, which tells the engine nothing of its own end: so what it has the engine run
    /// is marked.
    fn run(&self, what: &Beside<'_>, io: Io) -> io::Result<Ran> {
        self.besides.set(self.besides.get() + 1);
        let mark = format!("{}.{}", self.mark, self.besides.get());
        let mut env: BTreeMap<String, String> = what.env.iter().cloned().collect();
        env.insert(BESIDE.into(), mark.clone());
        if let Some((name, _)) = env.iter().find(|(name, value)| !fits_a_line(name, value)) {
            // It may be a secret, and everybody sees arguments.
            return Err(io::Error::other(format!(
                "the variable {name:?} has a line break, or is too long, for a command beside a task of a Docker engine"
            )));
        }
        let (file, path) = env_memory(&env)?;
        let mut command = self.by.engine.command();
        command.args(["exec", "--interactive", &format!("--env-file={path}")]);
        if io.terminal.is_some() {
            command.arg("--tty");
        }
        command.arg(&self.by.container.name).arg(what.program).args(what.args);
        let parent = getpid();
        let pid = match sys::fork()? {
            sys::Forked::Child => {
                // Nothing may return from here: all above is the supervisor's.
                let _ = catch_unwind(AssertUnwindSafe(|| become_client(command, parent, io)));
                sys::exit_now(127)
            }
            sys::Forked::Parent(pid) => pid,
        };
        drop(file);
        Ok(Ran { pid, mark: Some(mark), terminal: None })
    }
}

/// The child becomes the command line.
fn become_client(mut command: std::process::Command, parent: Pid, io: Io) -> io::Result<Infallible> {
    setsid()?;
    if io.terminal.is_some() {
        ioctl_tiocsctty(&io.stdin)?;
    }
    rustix::stdio::dup2_stdin(io.stdin.as_fd())?;
    rustix::stdio::dup2_stdout(io.stdout.as_fd())?;
    rustix::stdio::dup2_stderr(io.stderr.as_fd())?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    match getppid() == Some(parent) {
        true => Err(command.exec()),
        false => Err(io::Error::other("its supervisor is gone")),
    }
}
