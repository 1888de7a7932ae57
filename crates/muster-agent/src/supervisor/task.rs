//! The supervisor's loop. One thread, no runtime: there is one for each task.

use super::{
    Ending, Exit, Found, FromSupervisor, Place, Spec, ToSupervisor,
    client::Client,
    held::{Held, News},
    output::Output,
    probe::Probes,
    process::{children, number, start_time},
    session::Sessions,
    stragglers::Stragglers,
};
use crate::cgroups::Oom;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, kill_process, pidfd_open,
        wait, waitid, waitpid,
    },
};
use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::DirBuilderExt, net::UnixListener},
    },
    time::{Duration, Instant},
};

/// How often children that were left to this process are reaped while the task runs.
const REAP: Duration = Duration::from_secs(5);
/// How long an agent may take to keep an ending that it was told.
const KEEPING: Duration = Duration::from_secs(10);
/// Connections at once; an agent needs one.
const CLIENTS_MAX: usize = 8;

/// A command that is held, and then a task that runs.
pub(super) struct Task {
    spec: Spec,
    held: Box<dyn Held>,
    pid: Pid,
    pidfd: OwnedFd,
    start_time: u64,
    /// Why the command could not be run after its release.
    failure: Option<String>,
    released: bool,
    abandoned: bool,
    running: bool,
    listener: UnixListener,
    /// Connections so far.
    clients: u64,
    probes: Probes,
    sessions: Sessions,
    stragglers: Stragglers,
    output: Output,
    /// When it was looked for what children have become.
    looked: Instant,
}

impl Task {
    /// Makes a held command one that later agents find.
    pub(super) fn new(spec: Spec, held: Box<dyn Held>) -> io::Result<Self> {
        let mut held = held;
        match Self::find_place(&spec, held.pid()) {
            Ok((pidfd, start_time, listener)) => Ok(Self {
                pid: held.pid(),
                output: held.take_output(),
                looked: Instant::now(),
                spec,
                held,
                pidfd,
                start_time,
                failure: None,
                released: false,
                abandoned: false,
                running: false,
                listener,
                clients: 0,
                probes: Probes::default(),
                sessions: Sessions::default(),
                stragglers: Stragglers::default(),
            }),
            Err(error) => {
                held.abandon();
                held.kill();
                end_children()?;
                held.destroy();
                Err(error)
            }
        }
    }

    fn find_place(spec: &Spec, pid: Pid) -> io::Result<(OwnedFd, u64, UnixListener)> {
        let number = number(pid);
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let start_time = start_time(number).ok_or_else(|| io::Error::other("the held process is gone"))?;
        // It may have been cleaned away while it was empty.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&spec.place.runtime)?;
        // A socket's whole path has at most 107 bytes: hence by its name alone.
        std::env::set_current_dir(&spec.place.runtime)?;
        let listener = UnixListener::bind(Place::socket_name(spec.launch, number))?;
        listener.set_nonblocking(true)?;
        Ok((pidfd, start_time, listener))
    }

    pub(super) fn here(&self) -> FromSupervisor {
        FromSupervisor::Here {
            launch: self.spec.launch,
            pid: number(self.pid),
            start_time: self.start_time,
            running: self.running,
        }
    }

    /// Until the task has ended and all that want to know it do.
    pub(super) fn run(mut self, control: Client) -> io::Result<()> {
        let mut clients = vec![control];
        let ending = self.supervise(&mut clients)?;
        for client in &mut clients {
            let _ = client.say(&FromSupervisor::Ended(ending.clone())); // one that is gone is seen by a poll
        }
        // Durable it is in either way before this process ends. An agent syncs the endings of many tasks at once.
        let written = match is_kept(clients) {
            true => Ok(()),
            false => {
                let exit = self.spec.place.exit_path(self.spec.launch, number(self.pid));
                Exit { launch: self.spec.launch, ending }.write(&exit)
            }
        };
        let _ = fs::remove_file(Place::socket_name(self.spec.launch, number(self.pid))); // swept at the next start
        written
    }

    /// Until no process of the task is left.
    fn supervise(&mut self, clients: &mut Vec<Client>) -> io::Result<Ending> {
        loop {
            let ready = self.wait_for_something(clients)?;
            if ready.news {
                self.hear_news(clients);
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
            for (client, number, found) in self.probes.settle(&mut self.stragglers) {
                if let Some(asked) = clients.iter_mut().find(|it| it.number == client) {
                    let _ = asked.say(&FromSupervisor::Found { number, found }); // one that is gone is seen by a poll
                }
            }
            self.sessions.settle(&mut self.stragglers);
            self.stragglers.settle();
            self.output.settle();
            // A task that writes much wakes this often.
            if !ready.others && self.looked.elapsed() < REAP {
                continue;
            }
            self.looked = Instant::now();
            self.reap()?;
            if self.held.oom().is_some() {
                self.held.kill(); // one that lost a process is no whole one: version 2 of control groups does so itself
            }
        }
    }

    fn wait_for_something(&self, clients: &[Client]) -> io::Result<Ready> {
        let news = self.held.news_fd().filter(|_| self.released);
        let mut fds = vec![
            PollFd::new(&self.pidfd, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
            PollFd::from_borrowed_fd(news.unwrap_or(self.pidfd.as_fd()), PollFlags::IN),
        ];
        fds.extend(clients.iter().map(|client| PollFd::new(&client.stream, PollFlags::IN)));
        let known = fds.len();
        fds.extend(self.probes.fds());
        fds.extend(self.sessions.fds());
        let others = fds.len();
        fds.extend(self.output.fds());
        let waits = [self.probes.patience(), self.stragglers.patience()];
        let patience = waits.into_iter().flatten().min().map_or(REAP, |it| it.min(REAP));
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
            news: news.is_some() && (ready[2] || ready[0]),
            clients: (3..known).filter(|i| ready[*i]).map(|i| i - 3).collect(),
            others: ready[..others].contains(&true) || !ready.contains(&true),
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
                        true => self.probes.start(&self.spec, &*self.held, &look, client.number),
                        false => Some(Found::Failed("the task does not run".into())),
                    };
                    if let Some(found) = found {
                        let _ = client.say(&FromSupervisor::Found { number: look.number, found });
                    }
                }
                Ok(Some(ToSupervisor::Session(session))) if !client.is_first() => {
                    let client = clients.remove(i); // from now on it is for that alone
                    return match self.running {
                        true => self.sessions.start(&self.spec, &*self.held, client, &session),
                        false => Sessions::refuse(client, "the task does not run"),
                    };
                }
                Ok(Some(ToSupervisor::Attach { output })) if !client.is_first() => {
                    return self.output.attach(clients.remove(i), output);
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
            self.probes.forget(gone.number, &mut self.stragglers);
            if gone.is_first() {
                self.abandon(); // nobody can release it any more
            }
        }
    }

    fn obey(&mut self, message: &ToSupervisor, first: bool) {
        match message {
            ToSupervisor::Release if first && !self.released && !self.abandoned => {
                self.released = true;
                self.held.release();
            }
            ToSupervisor::Abandon if first => self.abandon(),
            ToSupervisor::Term if self.released => self.held.signal(Signal::TERM),
            ToSupervisor::Kill if self.released => self.held.kill(),
            ToSupervisor::End => {
                self.held.kill();
                self.abandon();
            }
            _ => {}
        }
    }

    fn abandon(&mut self) {
        if !self.released {
            self.abandoned = true;
            self.held.abandon();
        }
    }

    /// What came of the release.
    fn hear_news(&mut self, clients: &mut [Client]) {
        match self.held.news() {
            News::None => {}
            News::Failed(why) => self.failure = Some(why),
            News::Runs => {
                self.running = true;
                for client in clients {
                    let _ = client.say(&FromSupervisor::Running); // a client that is gone is seen by the next poll
                }
            }
        }
    }

    /// Reaps children of the task that were left to this process. Never the task's own: its number stays
    /// taken until its group is signalled for the last time.
    fn reap(&self) -> io::Result<()> {
        let looks = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if matches!(waitid(WaitId::All, looks), Ok(None) | Err(Errno::CHILD)) {
            return Ok(()); // the usual
        }
        for pid in children() {
            if pid == number(self.pid) || self.probes.has(pid) || self.sessions.has(pid) {
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
        self.held.signal(Signal::KILL);
        let status = loop {
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Ok(Some((_, status))) => break status,
                Ok(None) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        end_children()?;
        self.sessions.end();
        let oom = self.held.destroy();
        self.output.finish();
        let ending = match (self.failure.take(), oom) {
            _ if !self.released => Ending::NotReleased,
            (_, Some(oom)) => out_of_memory(status, oom),
            (Some(why), None) => Ending::StartFailed(why),
            (None, None) => ending(status),
        };
        self.output.leave(&ending);
        Ok(ending)
    }
}

/// Whether an agent says that it keeps the ending, before all are gone or time is up.
fn is_kept(mut clients: Vec<Client>) -> bool {
    let until = Instant::now() + KEEPING;
    while !clients.is_empty() {
        let Some(left) = until.checked_duration_since(Instant::now()) else { return false };
        let mut fds: Vec<_> = clients.iter().map(|it| PollFd::new(&it.stream, PollFlags::IN)).collect();
        let left = Timespec::try_from(left + Duration::from_millis(1)).ok();
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return false,
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut kept = false;
        let mut ready = ready.into_iter();
        clients.retain_mut(|client| {
            if !ready.next().unwrap_or(false) {
                return true;
            }
            let open = client.fill();
            loop {
                match client.frames.next() {
                    Ok(Some(ToSupervisor::Kept)) => kept = true,
                    Ok(Some(_)) => {} // too late for anything else
                    Ok(None) => return open,
                    Err(_) => return false,
                }
            }
        });
        if kept {
            return true;
        }
    }
    false
}

struct Ready {
    child: bool,
    listener: bool,
    news: bool,
    clients: Vec<usize>,
    /// Something other than what the task writes, or nothing for long.
    others: bool,
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
        match wait(WaitOptions::NOHANG) {
            Err(Errno::CHILD) => return Ok(()),
            Ok(None) => {
                for pid in children() {
                    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                        let _ = kill_process(pid, Signal::KILL); // ours and not reaped: the number is its own
                    }
                }
                std::thread::sleep(Duration::from_millis(1)); // killed, but not gone yet
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
