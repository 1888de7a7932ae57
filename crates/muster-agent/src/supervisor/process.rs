//! Facts about processes, from `/proc`.

use super::MARK;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

/// The environment variable by which processes are found that were run beside a task and are not this machine's
/// supervisors' own: the task's mark, `.` and a number.
pub(crate) const BESIDE: &str = "MUSTER_BESIDE_MARK";

/// The field of `/proc/PID/stat` that says where the code of a program begins: not 0 once that has its environment. (Field
/// 51, where that ends, is said before it is all there.)
const CODE: usize = 26;

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
    let begun = Instant::now();
    loop {
        let has = |pid| mark(pid, MARK).is_some_and(|mark| wanted(&mark));
        let found: Vec<u32> = pids().into_iter().filter(|pid| has(*pid)).collect();
        if found.is_empty() {
            return true;
        }
        if begun.elapsed() >= patience {
            return false;
        }
        for pid in found {
            signal_if(pid, Signal::KILL, has);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Signals all processes that were run beside a task and whose mark is wanted.
pub(crate) fn signal_beside(wanted: impl Fn(&str) -> bool, signal: Signal) {
    let has = |pid| mark(pid, BESIDE).is_some_and(|mark| wanted(&mark));
    if signal == Signal::KILL {
        return kill_all(has);
    }
    for pid in pids().into_iter().filter(|pid| has(*pid)) {
        signal_if(pid, signal, has);
    }
}

/// The mark of this name in a process's environment. A process that ended but is not reaped has none.
fn mark(pid: u32, name: &str) -> Option<String> {
    environment(pid)?.split(|byte| *byte == 0).find_map(|variable| {
        let mark = std::str::from_utf8(variable).ok()?.strip_prefix(name)?.strip_prefix('=')?;
        Some(mark.to_owned())
    })
}

/// A process's environment; none if it has no memory of its own. Of one that becomes another program a part is read, or
/// nothing: it is looked at until it is whole.
fn environment(pid: u32) -> Option<Vec<u8>> {
    /// For a second: on a busy machine it may be interrupted meanwhile.
    const LOOKS: usize = 5000;
    /// Looks in a row at a program that shows none: the file may be of the program before, each time.
    const LOOKS_EMPTY: usize = 5;
    const PAUSE: Duration = Duration::from_micros(200);
    let mut empty = 0;
    for _ in 0..LOOKS {
        let is_program = stat_field(pid, CODE)? != "0";
        let mut environment = Vec::new();
        let mut file = File::open(format!("/proc/{pid}/environ")).ok()?;
        file.read_to_end(&mut environment).ok()?;
        // The file is of one program's memory: until that has one, and when it is gone, it ends wherever it is read.
        let is_there = file.read_at(&mut [0], 0).ok()? == 1;
        empty = if is_program && environment.is_empty() && !is_there { empty + 1 } else { 0 };
        if is_there && !environment.is_empty() || empty == LOOKS_EMPTY {
            return Some(environment);
        }
        fs::read_link(format!("/proc/{pid}/exe")).ok()?; // the kernel's have none, nor those that ended
        std::thread::sleep(PAUSE);
    }
    None
}

/// Kills all processes of the session that this one leads, itself too: also where it was forked a moment ago, and leads
/// none yet. It must not be reaped yet, so that its number is its own.
pub(crate) fn kill_session(leader: Pid) {
    let session = leader.as_raw_nonzero().get().to_string();
    kill_all(|pid| pid == number(leader) || stat_field(pid, 6).as_ref() == Some(&session));
}

/// Kills all such processes, and those that they start meanwhile: who was killed starts none any more, so all are once a
/// look at every process finds none but those.
fn kill_all(is_one: impl Fn(u32) -> bool) {
    /// What starts processes faster than they are killed ends with its task.
    const LOOKS_MAX: usize = 100;
    let mut killed = BTreeSet::new();
    for _ in 0..LOOKS_MAX {
        let found: Vec<u32> =
            pids().into_iter().filter(|pid| !killed.contains(pid) && is_one(*pid)).collect();
        if found.is_empty() {
            return;
        }
        killed.extend(found.into_iter().filter(|pid| signal_if(*pid, Signal::KILL, &is_one)));
    }
}

/// Signals a process if it still is what it was: asked again when its descriptor is held. Whether it was.
fn signal_if(pid: u32, signal: Signal, same: impl Fn(u32) -> bool) -> bool {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    let Ok(descriptor) = pidfd_open(number, PidfdFlags::empty()) else { return false };
    let is_same = same(pid);
    if is_same {
        // It may end by itself meanwhile: no error worth a word.
        let _ = pidfd_send_signal(&descriptor, signal);
    }
    is_same
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

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

    /// A script at the head of a session.
    fn at_the_head_of_a_session(script: &str, env: (&str, &str)) -> Child {
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", script]).env(env.0, env.1).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// Those of a session that have not ended.
    fn alive(session: u32) -> Vec<u32> {
        let is_alive = |pid: &u32| {
            stat_field(*pid, 6).is_some_and(|it| it == session.to_string())
                && stat_field(*pid, 3).is_some_and(|it| it != "Z" && it != "X")
        };
        pids().into_iter().filter(is_alive).collect()
    }

    #[test]
    fn a_session_that_starts_processes_ends_with_all_of_them() {
        let script = "i=0; while [ $i -lt 300 ]; do sleep 1000 & i=$((i + 1)); done; wait";
        for round in 0..10 {
            let mut leader = at_the_head_of_a_session(script, ("A", "b"));
            while alive(leader.id()).len() < 10 {
                std::thread::yield_now();
            }
            kill_session(Pid::from_child(&leader));
            leader.wait().unwrap();
            // Those that were killed are given the time to end.
            let deadline = Instant::now() + Duration::from_secs(10);
            while Instant::now() < deadline && !alive(leader.id()).is_empty() {
                std::thread::yield_now();
            }
            let left = alive(leader.id());
            for pid in &left {
                signal_if(*pid, Signal::KILL, |_| true);
            }
            assert!(left.is_empty(), "{left:?} in round {round}");
        }
    }

    #[test]
    fn a_process_is_found_by_its_mark_while_it_becomes_another_program() {
        for round in 0..50 {
            let mark = format!("/test-{}:{round}", std::process::id());
            let script = "again='exec sh -c \"$again\"'; export again; eval \"$again\"";
            let mut child = at_the_head_of_a_session(script, (BESIDE, &mark));
            while alive(child.id()).is_empty() {
                std::thread::yield_now();
            }
            signal_beside(|found| found == mark, Signal::KILL);
            let deadline = Instant::now() + Duration::from_secs(10);
            while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            let ended = child.try_wait().unwrap();
            let _ = child.kill(); // where it was not
            assert!(ended.is_some(), "round {round}");
        }
    }
}
