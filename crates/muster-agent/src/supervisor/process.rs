//! Facts about processes, from `/proc`.

use super::MARK;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::{fs, io, time::Duration};

/// The environment variable by which processes are found that were run beside a task and are not this machine's
/// supervisors' own: the task's mark, `.` and a number.
pub(crate) const BESIDE: &str = "MUSTER_BESIDE_MARK";

/// Field 22 of `/proc/PID/stat`: with the boot id it tells a process from a later one of the same number.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    stat_field(pid, 22)?.parse().ok()
}

/// A numbered field (from 3 on) of `/proc/PID/stat`.
fn stat_field(pid: u32, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses, and may itself hold any character.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(field.checked_sub(3)?).map(str::to_owned)
}

/// A process as its number.
pub(crate) fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

/// The identity of this boot.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The children of this process, which must have one thread.
pub(crate) fn children() -> Vec<u32> {
    let own = std::process::id();
    match fs::read_to_string(format!("/proc/self/task/{own}/children")) {
        Ok(list) => list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect(),
        Err(_) => children_by_search(own), // a kernel without that file
    }
}

fn children_by_search(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| stat_field(*pid, 4).is_some_and(|found| found == parent.to_string());
    pids().into_iter().filter(is_child).collect()
}

/// Kills every process whose mark is wanted, until none is left or time is up. Only processes of this user
/// (all, for root) can be seen. Returns whether none is left.
pub(crate) fn end_marked(wanted: impl Fn(&str) -> bool, patience: Duration) -> bool {
    let mut waited = Duration::ZERO;
    let pause = Duration::from_millis(10);
    loop {
        let has = |pid| mark(pid, MARK).is_some_and(|mark| wanted(&mark));
        let found: Vec<u32> = pids().into_iter().filter(|pid| has(*pid)).collect();
        if found.is_empty() {
            return true;
        }
        if waited >= patience {
            return false;
        }
        for pid in found {
            signal_if(pid, Signal::KILL, has);
        }
        std::thread::sleep(pause);
        waited += pause;
    }
}

/// Signals all processes that were run beside a task and have this mark.
pub(crate) fn signal_beside(wanted: &str, signal: Signal) {
    let has = |pid| mark(pid, BESIDE).is_some_and(|mark| mark == wanted);
    pids().into_iter().filter(|pid| has(*pid)).for_each(|pid| signal_if(pid, signal, has));
}

/// The mark of this name in a process's environment. A process that ended but is not reaped has none.
fn mark(pid: u32, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment.split(|byte| *byte == 0).find_map(|variable| {
        let mark = std::str::from_utf8(variable).ok()?.strip_prefix(name)?.strip_prefix('=')?;
        Some(mark.to_owned())
    })
}

/// Kills all processes of the session that this one leads, itself too: also where it was forked a moment ago, and leads
/// none yet. It must not be reaped yet, so that its number is its own.
pub(crate) fn kill_session(leader: Pid) {
    let session = leader.as_raw_nonzero().get().to_string();
    let is_in = |pid: u32| pid == number(leader) || stat_field(pid, 6).as_ref() == Some(&session);
    pids().into_iter().filter(|pid| is_in(*pid)).for_each(|pid| signal_if(pid, Signal::KILL, is_in));
}

/// Signals a process if it still is what it was: asked again when its descriptor is held.
fn signal_if(pid: u32, signal: Signal, same: impl Fn(u32) -> bool) {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let Ok(descriptor) = pidfd_open(number, PidfdFlags::empty()) else { return };
    if same(pid) {
        // It may end by itself meanwhile: no error worth a word.
        let _ = pidfd_send_signal(&descriptor, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn processes_are_found_told_apart_and_ended_by_their_mark() {
        let mark = format!("/test-{}:1.2.3", std::process::id());
        let mut child = Command::new("sleep").arg("1000").env(MARK, &mark).spawn().unwrap();
        assert!(children_by_search(std::process::id()).contains(&child.id()));
        assert!(start_time(child.id()).unwrap() > 0);
        assert!(end_marked(|found| found == "/another:1.2.3", Duration::ZERO), "nothing to end");
        assert!(child.try_wait().unwrap().is_none(), "another mark's");
        let ended = std::thread::spawn(move || end_marked(|found| found == mark, Duration::from_secs(10)));
        assert!(!child.wait().unwrap().success());
        assert!(ended.join().unwrap());
    }
}
