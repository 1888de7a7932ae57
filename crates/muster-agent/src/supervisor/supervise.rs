//! The supervisor's loop. One thread, no runtime: it starts in milliseconds and there is one for each task.

use super::{
    Ending, Exit, Found, Frames, FromSupervisor, Place, Spec, ToSupervisor, encode,
    hold::{FAILED, READY, RELEASE},
    probe::Probes,
    process::{children, start_time},
};
use crate::cgroups::{Group, Oom, PATIENCE};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{
        Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getrlimit, kill_process,
        kill_process_group, pidfd_open, set_child_subreaper, setrlimit, setsid, wait, waitpid,
    },
};
use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, chown},
            net::{UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    process::{Child, Command, ExitCode},
    time::Duration,
};

/// How long a held child may take to say that it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often children that were left to this process are reaped while the task runs.
const REAP: Duration = Duration::from_secs(5);
/// Connections at once; an agent needs one.
const CLIENTS_MAX: usize = 8;

/// The main function of the hidden `supervise` subcommand, with a socket to the agent as standard input. It
/// must be called from a process with one thread.
pub fn supervise_main(_args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Ok(control) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    let mut control = Client::new(UnixStream::from(control), 0);
    match begin(&mut control).and_then(|task| task.map_or(Ok(()), |task| task.run(control))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE, // the agent sees the socket close without an ending
    }
}

/// A connection to an agent.
struct Client {
    stream: UnixStream,
    frames: Frames,
    /// The first one, 0, may release.
    number: u64,
}

impl Client {
    fn new(stream: UnixStream, number: u64) -> Self {
        Self { stream, frames: Frames::default(), number }
    }

    fn is_first(&self) -> bool {
        self.number == 0
    }

    /// Reads what is there; false when the other side is gone.
    fn fill(&mut self) -> bool {
        let mut bytes = [0; 16 << 10];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(n) => {
                self.frames.push(&bytes[..n]);
                true
            }
            Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }

    fn say(&mut self, message: &FromSupervisor) -> io::Result<()> {
        self.stream.write_all(&encode(message)?)
    }
}

struct Task {
    spec: Spec,
    /// Where there are any.
    group: Option<Group>,
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
    start_time: u64,
    /// To the held child; none once it runs or is abandoned.
    hold: Option<UnixStream>,
    /// What the held child wrote after its release: nothing, or why it failed.
    failure: Vec<u8>,
    released: bool,
    running: bool,
    listener: UnixListener,
    /// Connections so far.
    clients: u64,
    probes: Probes,
}

/// Reads the spec, makes the sandbox and starts the held child. None: the agent has the reason already.
fn begin(control: &mut Client) -> io::Result<Option<Task>> {
    setsid()?;
    set_child_subreaper(Some(rustix::process::getpid()))?;
    let spec = loop {
        match control.frames.next()? {
            Some(ToSupervisor::Spec(spec)) => break *spec,
            Some(_) => return Err(io::Error::other("no spec")),
            None if control.fill() => {}
            None => return Ok(None), // the agent is gone, and nothing was begun
        }
    };
    match prepare(spec) {
        Ok(task) => {
            control.stream.set_nonblocking(true)?;
            control.say(&task.here())?;
            Ok(Some(task))
        }
        Err(error) => {
            control.say(&FromSupervisor::Ended(Ending::StartFailed(error.to_string())))?;
            Ok(None)
        }
    }
}

fn prepare(spec: Spec) -> io::Result<Task> {
    let group =
        (!spec.parts.is_empty()).then(|| Group::make(spec.parts.clone(), &spec.limits)).transpose()?;
    let held = hold(spec, group.clone());
    if let (Err(_), Some(group)) = (&held, &group) {
        group.end(PATIENCE);
        let _ = group.remove(); // what stays is removed at the agent's next start
    }
    held
}

/// Starts the held child, in its group.
fn hold(spec: Spec, group: Option<Group>) -> io::Result<Task> {
    let doing = |what: &str| {
        let what = format!("{what} {}", spec.sandbox.display());
        move |error: io::Error| io::Error::new(error.kind(), format!("Failed to {what}: {error}"))
    };
    make_sandbox(&spec).map_err(doing("make the sandbox"))?;
    let log = |name: &str| -> io::Result<File> {
        let path = spec.sandbox.join(name);
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        if let Some((uid, gid)) = spec.user {
            chown(&path, Some(uid), Some(gid))?;
        }
        Ok(file)
    };
    let stdout = log("stdout").map_err(doing("open stdout in"))?;
    let stderr = log("stderr").map_err(doing("open stderr in"))?;
    if let Some(current) = spec.open_files {
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum })?;
    }
    let (hold, theirs) = UnixStream::pair()?;
    let mut command = Command::new("/proc/self/exe");
    command.args(&spec.hold_args).arg(&spec.program).arg(&spec.arg0).args(&spec.args);
    command.env_clear().envs(spec.env.iter().map(|(name, value)| (name, value)));
    command.current_dir(&spec.sandbox).stdin(OwnedFd::from(theirs)).stdout(stdout).stderr(stderr);
    if let Some((uid, gid)) = spec.user {
        command.uid(uid).gid(gid);
    }
    let child = command.spawn().map_err(doing("start a process in"))?;
    drop(command); // with it our copy of the child's end
    wait_ready(&hold)?;
    let number = child.id();
    // Before it is anything: what it becomes is in there from its first instruction on.
    group.as_ref().map_or(Ok(()), |group| group.join(number))?;
    let pid = i32::try_from(number).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("no pid"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let start_time = start_time(number).ok_or_else(|| io::Error::other("the held process is gone"))?;
    // It may have been cleaned away while it was empty.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&spec.place.runtime)?;
    // A socket's whole path has at most 107 bytes: hence by its name alone.
    std::env::set_current_dir(&spec.place.runtime)?;
    let listener = UnixListener::bind(Place::socket_name(spec.launch, number))?;
    listener.set_nonblocking(true)?;
    hold.set_nonblocking(true)?;
    let hold = Some(hold);
    Ok(Task {
        spec,
        group,
        child,
        pid,
        pidfd,
        start_time,
        hold,
        failure: Vec::new(),
        released: false,
        running: false,
        listener,
        clients: 0,
        probes: Probes::default(),
    })
}

fn make_sandbox(spec: &Spec) -> io::Result<()> {
    if let Some(parent) = spec.sandbox.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o755).create(&spec.sandbox) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    match spec.user {
        Some((uid, gid)) => chown(&spec.sandbox, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

fn wait_ready(hold: &UnixStream) -> io::Result<()> {
    hold.set_read_timeout(Some(READY_TIMEOUT))?;
    let mut byte = [0];
    let read = (&*hold).read_exact(&mut byte);
    match read {
        Ok(()) if byte[0] == READY => Ok(()),
        _ => Err(io::Error::other(
            "Failed to hold the command: its process ended or hangs before it was ready",
        )),
    }
}

impl Task {
    fn here(&self) -> FromSupervisor {
        FromSupervisor::Here {
            launch: self.spec.launch,
            pid: self.child.id(),
            start_time: self.start_time,
            running: self.running,
        }
    }

    fn run(mut self, control: Client) -> io::Result<()> {
        let mut clients = vec![control];
        let ending = self.supervise(&mut clients)?;
        let exit = self.spec.place.exit_path(self.spec.launch, self.child.id());
        let written = Exit { launch: self.spec.launch, ending: ending.clone() }.write(&exit);
        // An agent that listens keeps the ending itself, so it is told even when the file could not be written.
        for client in &mut clients {
            let _ = client.say(&FromSupervisor::Ended(ending.clone())); // one that is gone reads the file
        }
        let _ = fs::remove_file(Place::socket_name(self.spec.launch, self.child.id())); // swept at the next start
        written
    }

    /// Until no process of the task is left.
    fn supervise(&mut self, clients: &mut Vec<Client>) -> io::Result<Ending> {
        loop {
            let ready = self.wait_for_something(clients)?;
            if ready.hold {
                self.hear_hold(clients)?;
            }
            if ready.child {
                return self.bury();
            }
            if ready.listener {
                self.accept(clients);
            }
            for i in ready.clients.into_iter().rev() {
                self.serve(clients, i);
            }
            for (client, number, found) in self.probes.settle() {
                if let Some(asked) = clients.iter_mut().find(|it| it.number == client) {
                    let _ = asked.say(&FromSupervisor::Found { number, found }); // one that is gone is seen by a poll
                }
            }
            self.reap()?;
            if self.oom().is_some() {
                self.kill(); // one that lost a process is no whole one: version 2 of control groups does so itself
            }
        }
    }

    fn wait_for_something(&self, clients: &[Client]) -> io::Result<Ready> {
        let hold = self.hold.as_ref().filter(|_| self.released);
        let mut fds = vec![
            PollFd::new(&self.pidfd, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
            PollFd::from_borrowed_fd(hold.map_or(self.pidfd.as_fd(), AsFd::as_fd), PollFlags::IN),
        ];
        fds.extend(clients.iter().map(|client| PollFd::new(&client.stream, PollFlags::IN)));
        let known = fds.len();
        fds.extend(self.probes.fds());
        let patience = self.probes.patience().map_or(REAP, |it| it.min(REAP));
        // Rounded up, or the last moment before a deadline would be spent awake.
        let patience = Timespec::try_from(patience + Duration::from_millis(1)).ok();
        match poll(&mut fds, patience.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        Ok(Ready {
            child: ready[0],
            listener: ready[1],
            // When both the command's exec and its end are there, the first is heard first.
            hold: hold.is_some() && (ready[2] || ready[0]),
            clients: (3..known).filter(|i| ready[*i]).map(|i| i - 3).collect(),
        })
    }

    fn accept(&mut self, clients: &mut Vec<Client>) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        self.clients += 1;
        let mut client = Client::new(stream, self.clients);
        let welcome = client.stream.set_nonblocking(true).and_then(|()| client.say(&self.here()));
        if welcome.is_ok() && clients.len() < CLIENTS_MAX {
            clients.push(client);
        }
    }

    fn serve(&mut self, clients: &mut Vec<Client>, i: usize) {
        let client = &mut clients[i];
        let mut open = client.fill();
        loop {
            match client.frames.next() {
                Ok(Some(ToSupervisor::Look(look))) => {
                    let found = match self.running {
                        true => self.probes.start(&self.spec, self.group.as_ref(), &look, client.number),
                        false => Some(Found::Failed("the task does not run".into())),
                    };
                    if let Some(found) = found {
                        let _ = client.say(&FromSupervisor::Found { number: look.number, found });
                    }
                }
                Ok(Some(message)) => self.obey(&message, client.is_first()),
                Ok(None) => break,
                Err(_) => {
                    open = false;
                    break;
                }
            }
        }
        if !open {
            let gone = clients.remove(i);
            self.probes.forget(gone.number);
            if gone.is_first() && !self.released {
                self.hold = None; // nobody can release it any more: the child ends by itself
            }
        }
    }

    fn obey(&mut self, message: &ToSupervisor, first: bool) {
        match message {
            ToSupervisor::Release if first && !self.released => {
                if let Some(hold) = &mut self.hold {
                    self.released = true;
                    let _ = hold.write_all(&[RELEASE]); // a child that is gone is seen by its descriptor
                }
            }
            ToSupervisor::Abandon if first && !self.released => self.hold = None,
            ToSupervisor::Term if self.released => self.signal(Signal::TERM),
            ToSupervisor::Kill if self.released => self.kill(),
            ToSupervisor::End => {
                self.kill();
                if !self.released {
                    self.hold = None;
                }
            }
            _ => {}
        }
    }

    /// Kills all there is.
    fn kill(&self) {
        self.signal(Signal::KILL);
        if let Some(group) = &self.group {
            group.kill();
        }
    }

    /// What the kernel killed of it for want of memory.
    fn oom(&self) -> Option<Oom> {
        self.group.as_ref()?.oom()
    }

    /// The child is not reaped yet, so the group is the task's.
    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.pid, signal); // it may have ended meanwhile
    }

    /// The held child's word after its release: its end closed means that the command runs.
    fn hear_hold(&mut self, clients: &mut [Client]) -> io::Result<()> {
        let Some(hold) = &mut self.hold else { return Ok(()) };
        let mut bytes = [0; 4096];
        loop {
            match hold.read(&mut bytes) {
                Ok(0) => break,
                Ok(n) => self.failure.extend_from_slice(&bytes[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => break, // reset: the child was killed between
            }
        }
        self.hold = None;
        if self.failure.is_empty() {
            self.running = true;
            for client in clients {
                let _ = client.say(&FromSupervisor::Running); // a client that is gone is seen by the next poll
            }
        }
        Ok(())
    }

    /// Reaps children of the task that were left to this process. Never the task's own: its number stays
    /// taken until its group is signalled for the last time.
    fn reap(&self) -> io::Result<()> {
        for pid in children() {
            if pid == self.child.id() || self.probes.has(pid) {
                continue;
            }
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                match waitpid(Some(pid), WaitOptions::NOHANG) {
                    Ok(_) | Err(Errno::INTR | Errno::CHILD) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// The command ended: ends all that it left, and says how.
    fn bury(&mut self) -> io::Result<Ending> {
        self.signal(Signal::KILL);
        let status = loop {
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Ok(Some((_, status))) => break status,
                Ok(None) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        end_children()?;
        let mut oom = None;
        if let Some(group) = &self.group {
            while !group.end(PATIENCE) {} // it has not ended as long as something is in there
            oom = group.oom();
            let _ = group.remove(); // what stays is removed at the agent's next start
        }
        Ok(match (self.failure.split_first(), oom) {
            _ if !self.released => Ending::NotReleased,
            (_, Some(oom)) => out_of_memory(status, oom),
            (Some((&FAILED, reason)), _) => Ending::StartFailed(String::from_utf8_lossy(reason).into_owned()),
            _ => ending(status),
        })
    }
}

struct Ready {
    child: bool,
    listener: bool,
    hold: bool,
    clients: Vec<usize>,
}

fn out_of_memory(status: WaitStatus, oom: Oom) -> Ending {
    Ending::OutOfMemory { status: status.as_raw(), limit: oom.limit_bytes, peak: oom.peak_bytes }
}

fn ending(status: WaitStatus) -> Ending {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ending::Exited(code),
        (None, Some(signal)) => Ending::Signaled(signal),
        (None, None) => Ending::Exited(status.as_raw()),
    }
}

/// Kills children until there are none: those of a killed child become ours, since this is their reaper.
fn end_children() -> io::Result<()> {
    loop {
        for pid in children() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL); // ours and not reaped: the number is its own
            }
        }
        match wait(WaitOptions::NOHANG) {
            Err(Errno::CHILD) => return Ok(()),
            // Killed, but not gone yet.
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
