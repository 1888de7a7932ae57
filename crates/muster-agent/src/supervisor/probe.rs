//! Commands that look whether a task is well: run beside it, as its user, in its sandbox and with its environment.

use super::{
    Spec,
    held::{Beside, Held, Ran},
    posix,
    stragglers::Stragglers,
    wire::{Found, Look},
};
use muster_container::Io;
use rustix::{
    event::{PollFd, PollFlags},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, kill_process_group, pidfd_open, waitpid},
};
use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

/// Probes of one task at a time; an agent needs two.
const PROBES_MAX: usize = 8;

/// A probe that runs.
struct Probe {
    number: u64,
    /// The connection that asked for it: with that it ends.
    client: u64,
    pid: Pid,
    mark: Option<String>,
    pidfd: OwnedFd,
    /// Why it could not be run.
    report: File,
    deadline: Instant,
    timed_out: bool,
}

/// All probes that run.
#[derive(Default)]
pub(super) struct Probes {
    running: Vec<Probe>,
}

impl Probes {
    /// Starts one; what it found where it could not be started.
    pub(super) fn start(&mut self, spec: &Spec, held: &dyn Held, look: &Look, client: u64) -> Option<Found> {
        if self.running.len() >= PROBES_MAX {
            return Some(Found::Failed("too many checks of the task run at once".into()));
        }
        match self.spawn(spec, held, look, client) {
            Ok(()) => None,
            Err(error) => Some(Found::Failed(format!("Failed to run {}: {error}", look.program))),
        }
    }

    fn spawn(&mut self, spec: &Spec, held: &dyn Held, look: &Look, client: u64) -> io::Result<()> {
        let Look { program, arg0, args, env, .. } = look;
        let what = Beside { program, arg0, args, env };
        let io = Io::null().map_err(io::Error::other)?;
        let (report, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        let Ran { pid, mark, terminal: _ } = match held.inside() {
            Some(container) => {
                drop(theirs); // it says itself why it cannot
                container.run(&what, io)?
            }
            None => {
                Ran { pid: posix::run(spec, held.group(), &what, io, theirs)?, mark: None, terminal: None }
            }
        };
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?; // not reaped: else with all that the task leaves
        let deadline = Instant::now() + Duration::from_millis(look.timeout_ms);
        let number = look.number;
        let report = File::from(report);
        self.running.push(Probe { number, client, pid, mark, pidfd, report, deadline, timed_out: false });
        Ok(())
    }

    pub(super) fn has(&self, pid: u32) -> bool {
        self.running.iter().any(|probe| probe.pid.as_raw_nonzero().get().unsigned_abs() == pid)
    }

    /// What to wait for.
    pub(super) fn fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.running.iter().map(|probe| PollFd::new(&probe.pidfd, PollFlags::IN))
    }

    /// How long until the next one has run for too long; none if there is none.
    pub(super) fn patience(&self) -> Option<Duration> {
        let now = Instant::now();
        let waits = self.running.iter().filter(|probe| !probe.timed_out);
        waits.map(|probe| probe.deadline.saturating_duration_since(now)).min()
    }

    /// Who asked is gone, and with it whoever would want to know.
    pub(super) fn forget(&mut self, client: u64, stragglers: &mut Stragglers) {
        let theirs = self.running.iter_mut().filter(|probe| probe.client == client);
        for probe in theirs {
            probe.timed_out = true;
            probe.kill(stragglers);
        }
    }

    /// Ends those that ran for too long, and tells of those that ended: whom, which, what.
    pub(super) fn settle(&mut self, stragglers: &mut Stragglers) -> Vec<(u64, u64, Found)> {
        let (now, mut found) = (Instant::now(), Vec::new());
        self.running.retain_mut(|probe| {
            if !probe.timed_out && probe.deadline <= now {
                probe.timed_out = true;
                probe.kill(stragglers);
            }
            // Others of its group end with it.
            match waitpid(Some(probe.pid), WaitOptions::NOHANG) {
                Ok(None) => return true,
                Ok(Some((_, status))) => found.push((
                    probe.client,
                    probe.number,
                    match (probe.timed_out, status.exit_status(), status.terminating_signal()) {
                        (true, ..) => Found::TimedOut,
                        (_, Some(code), _) => probe.failure().map_or(Found::Exited(code), Found::Failed),
                        (_, None, Some(signal)) => Found::Signaled(signal),
                        (_, None, None) => Found::Exited(status.as_raw()),
                    },
                )),
                Err(rustix::io::Errno::INTR) => return true,
                Err(error) => {
                    found.push((probe.client, probe.number, Found::Failed(error.to_string())));
                }
            }
            false
        });
        found
    }
}

impl Probe {
    /// Why it could not be run; nothing if it could. It has ended, so that this is whole.
    fn failure(&mut self) -> Option<String> {
        let mut why = String::new();
        let _ = self.report.read_to_string(&mut why); // what was cut off says something, too
        Some(why).filter(|why| !why.is_empty())
    }

    /// Not reaped yet, so the group is its own.
    fn kill(&self, stragglers: &mut Stragglers) {
        // It may have ended meanwhile, or lead no group yet.
        let _ = kill_process_group(self.pid, Signal::KILL);
        let _ = kill_process(self.pid, Signal::KILL);
        if let Some(mark) = &self.mark {
            stragglers.kill(mark);
        }
    }
}
