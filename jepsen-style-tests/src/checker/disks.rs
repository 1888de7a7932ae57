//! What members may call an error because of a fault: masters because of their disks, agents that were marked gone.

use crate::history::{Entry, Event};
use crate::nemesis::{
    DAMAGE, DISK_DIES, DISK_FULL, DISK_LOST, GONE, POWER_CUT, READ_ONLY, SYNC_FAILS, SYNC_KILLS, SYNC_LIES,
};
use std::collections::BTreeMap;

/// An ERROR line with one of these words; by fault, of the members that it hit.
const OF_TARGETS: &[(&str, &[&str])] = &[
    (SYNC_FAILS, &[FAILED, AT_THE_END]),
    (DISK_FULL, &[NO_ROOM]),
    // Whatever was on its way when the device failed has failed with it.
    (READ_ONLY, &[NO_WRITES, FAILED, AT_THE_END]),
    // A file system without power fails whatever is asked of it.
    (POWER_CUT, &[FAILED, AT_THE_END]),
    (SYNC_KILLS, &[FAILED, AT_THE_END]),
    (SYNC_LIES, &[FAILED, AT_THE_END, SET_ASIDE, UNREADABLE]),
    (DISK_DIES, &[FAILED, NO_ROOM, AT_THE_END, SET_ASIDE, UNREADABLE]),
    (DAMAGE, &[SET_ASIDE, UNREADABLE]),
    (GONE, &[REFUSED]),
];
/// The kernel's words.
const FAILED: &str = "Input/output error";
const NO_ROOM: &str = "No space left on device";
const NO_WRITES: &str = "Read-only file system";
/// sled syncs once more as it is closed, and panics if that fails; what was acknowledged is not touched by it.
const AT_THE_END: &str = "/sled-0.34.7/src/pagecache/logger.rs:467:";
/// What an agent says that is refused because it was marked gone, and ends.
const REFUSED: &str = "the leader refuses this agent";
/// Damage that was noticed, and what sled says of it before.
const SET_ASIDE: &str = " ERROR muster_raft::store: the data directory is damaged; setting it aside";
const UNREADABLE: &str = " ERROR sled::";
/// What openraft says besides as it is being stopped; of members that a fault may end.
const ENDING: &[&[&str]] = &[
    // To whoever waits for an answer.
    &[" ERROR openraft::raft::", " raft stopped"],
    &[" ERROR openraft::raft::raft_inner: failed to receive from RaftCore: None"],
    &[" ERROR openraft::core::raft_core: failed to report metrics, error: watch channel closed"],
    &[" ERROR openraft::core::heartbeat::worker: HeartbeatWorker("],
    // What applies was stopped before what tells it to.
    &[" ERROR openraft::core::raft_core: RaftCore::main error: when Write Apply(", "): channel closed"],
];
const ENDED: &[&str] = &[SYNC_FAILS, DISK_DIES, DISK_FULL, READ_ONLY, POWER_CUT, SYNC_KILLS, SYNC_LIES];
/// What openraft says when its leader had no quorum for a moment while it changed the members. It is tried again.
const LATER: &[&str] =
    &[" ERROR openraft::raft::api::management: the ", " step error: has to forward request to: None"];
/// What a leader says of a member whose disk forgot what it had synced.
const FORGOT: &str = " ERROR muster_raft::peer::client: a master has lost what it had acknowledged";
/// Faults after which members change.
const REPLACED: &[&str] = &[DAMAGE, DISK_DIES, DISK_LOST, SYNC_LIES];

/// Lines that faults explain, and how often each.
#[derive(Debug)]
pub(super) struct Excuses<'a>(BTreeMap<(&'a str, &'a str), usize>);

impl<'a> Excuses<'a> {
    /// Those of a history: what was said while a fault was on.
    pub(super) fn of(history: &'a [Entry]) -> Self {
        let mut excused: BTreeMap<_, usize> = BTreeMap::new();
        // By fault: whom it is on.
        let mut on: Vec<(&str, &str)> = Vec::new();
        for entry in history {
            match &entry.event {
                Event::Nemesis { fault, target, begins: true, .. } => on.push((fault, target)),
                Event::Nemesis { fault, target, .. } => on.retain(|one| *one != (fault, target)),
                Event::Said { fault, member, line } => {
                    let targets = on.iter().find(|(name, _)| name == fault).map(|(_, target)| *target);
                    let hit = targets.map(|targets| targets.split(',').any(|target| target == member));
                    if hit.is_some_and(|hit| explains(fault, hit, line)) {
                        *excused.entry((member.as_str(), line.as_str())).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
        Self(excused)
    }

    /// Whether a line, `m1: ...`, is one of them. Each excuse counts once.
    pub(super) fn take(&mut self, line: &'a str) -> bool {
        let left = line.split_once(": ").and_then(|said| self.0.get_mut(&said)).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    }
}

/// Whether a fault that is on explains a line of a member that it hit, or of another one.
fn explains(fault: &str, hit: bool, line: &str) -> bool {
    if fault == SYNC_LIES && line.contains(FORGOT) {
        return true;
    }
    if REPLACED.contains(&fault) && LATER.iter().all(|words| line.contains(words)) {
        return true;
    }
    let words = OF_TARGETS.iter().find(|(name, _)| *name == fault).map_or(&[] as &[_], |(_, words)| words);
    let ending = |all: &&[&str]| all.iter().all(|words| line.contains(words));
    hit && (words.iter().any(|words| line.contains(words))
        || ENDED.contains(&fault) && ENDING.iter().any(ending))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::logs_and_leftovers;
    use crate::checker::samples::{entry, good};

    fn fault(fault: &str, target: &str, begins: bool) -> Entry {
        let bit = (!begins).then(|| "it bit".into());
        entry("nemesis", Event::Nemesis { fault: fault.into(), target: target.into(), begins, bit })
    }

    fn said(fault: &str, member: &str, line: &str) -> Entry {
        entry("nemesis", Event::Said { fault: fault.into(), member: member.into(), line: line.into() })
    }

    /// What the checker says of some lines after these events.
    fn left(events: Vec<Entry>, lines: &[String]) -> usize {
        let (mut history, mut truth) = good();
        history.extend(events);
        truth.error_lines.extend_from_slice(lines);
        logs_and_leftovers(&history, &truth).len()
    }

    #[test]
    fn an_error_is_excused_by_a_fault_of_its_own_member_at_its_time_alone() {
        let line = "t ERROR openraft::core::raft_core: RaftCore::main error: Input/output error";
        let lines = [format!("m1: {line}")];
        let during = |name, target, member| {
            vec![fault(name, target, true), said(name, member, line), fault(name, target, false)]
        };
        for name in [SYNC_FAILS, READ_ONLY, POWER_CUT, SYNC_KILLS, SYNC_LIES] {
            assert_eq!(left(during(name, "m3,m1", "m1"), &lines), 0, "{name}");
        }
        // Another fault, another target, another member's line.
        for name in [DISK_FULL, DAMAGE, DISK_LOST, "kill", "sync-slow"] {
            assert_eq!(left(during(name, "m1", "m1"), &lines), 1, "{name}");
        }
        assert_eq!(left(during(POWER_CUT, "m2,m11", "m1"), &lines), 1);
        assert_eq!(left(during(POWER_CUT, "m1", "m2"), &lines), 1);
        // Before it, after it, or not known to have been said then.
        let late = |at: usize| {
            let mut events = vec![fault(POWER_CUT, "m1", true), fault(POWER_CUT, "m1", false)];
            events.insert(at, said(POWER_CUT, "m1", line));
            events
        };
        assert_eq!([left(late(0), &lines), left(late(1), &lines), left(late(2), &lines)], [1, 0, 1]);
        assert_eq!(left(vec![fault(POWER_CUT, "m1", true), fault(POWER_CUT, "m1", false)], &lines), 1);
        // Said once, logged twice.
        assert_eq!(left(late(1), &[lines[0].clone(), lines[0].clone()]), 1);
    }

    #[test]
    fn only_the_words_of_a_fault_are_excused_by_it() {
        let damaged = "t ERROR muster_raft::store: the data directory is damaged; setting it aside";
        let panic = "thread 'muster-log' panicked at src/x.rs:1";
        let wrong = "t ERROR muster_master: something else";
        let excused = |name: &str, line: &str| {
            let events = vec![fault(name, "m1", true), said(name, "m1", line), fault(name, "m1", false)];
            left(events, &[format!("m1: {line}")]) == 0
        };
        assert!(excused(DAMAGE, damaged) && excused(SYNC_LIES, damaged));
        for name in [POWER_CUT, SYNC_FAILS, SYNC_KILLS, DISK_FULL, READ_ONLY, DISK_LOST] {
            assert!(!excused(name, damaged), "{name}");
        }
        for name in [POWER_CUT, SYNC_FAILS, DISK_FULL, READ_ONLY, DAMAGE, DISK_LOST, SYNC_LIES] {
            assert!(!excused(name, panic) && !excused(name, wrong), "{name}");
        }
        let at_the_end = format!("thread 'muster-log' panicked at x{AT_THE_END}41:");
        assert!(excused(POWER_CUT, &at_the_end) && !excused(DAMAGE, &at_the_end));
        assert!(excused(DISK_FULL, "muster: its data cannot be stored: No space left on device"));
        assert!(!excused(DISK_FULL, "t ERROR sled::tree: Read-only file system"));
        let apply = "t ERROR openraft::core::raft_core: RaftCore::main error: when Write Apply(index: 9): ";
        let (stopped, broken) = (format!("{apply}channel closed"), format!("{apply}a record is unreadable"));
        assert!(excused(POWER_CUT, &stopped) && !excused(POWER_CUT, &broken) && !excused(DAMAGE, &stopped));
        let waited = "t ERROR openraft::raft::raft_inner: RaftInner<_>::recv_msg: error: raft stopped";
        assert!(excused(POWER_CUT, waited) && !excused(DAMAGE, waited));
        let refused = "t ERROR muster_agent::service: agent stops reason=\"the leader refuses this agent: it was gone\"";
        assert!(excused(GONE, refused) && !excused(GONE, wrong) && !excused(DAMAGE, refused));
    }

    #[test]
    fn a_leader_may_say_that_a_disk_forgot_while_one_lies() {
        let line = format!("t{FORGOT} and is sent it again");
        let excused = |name: &str| {
            let events = vec![fault(name, "m1", true), said(name, "m2", &line), fault(name, "m1", false)];
            left(events, &[format!("m2: {line}")]) == 0
        };
        assert!(excused(SYNC_LIES));
        for name in [POWER_CUT, SYNC_FAILS, SYNC_KILLS, DISK_FULL, DISK_DIES, DAMAGE, DISK_LOST] {
            assert!(!excused(name), "{name}");
        }
    }

    #[test]
    fn a_leader_may_have_to_change_members_twice_while_one_is_replaced() {
        let line = format!("t{}first{}, None", LATER[0], LATER[1]);
        let excused = |name: &str| {
            let events = vec![fault(name, "m1", true), said(name, "m2", &line), fault(name, "m1", false)];
            left(events, &[format!("m2: {line}")]) == 0
        };
        assert!(excused(DISK_LOST) && excused(DAMAGE) && excused(SYNC_LIES));
        assert!(!excused(POWER_CUT) && !excused(SYNC_FAILS));
    }
}
