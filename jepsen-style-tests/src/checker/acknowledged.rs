//! Updates that were acknowledged: they are not sent again.

use super::logs::{committed, uuid, whole};
use crate::direct::ACKNOWLEDGE;
use crate::history::{Entry, Event};
use crate::model::Truth;
use crate::over_http::OVER_HTTP;
use muster_testkit::LogEntry;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What a log says of updates, by uuid.
#[derive(Debug, Default)]
struct Updates {
    /// The first entry that speaks of it other than to acknowledge it: it was not known before. Of an update that the
    /// registry made itself there is none.
    known: BTreeMap<String, u64>,
    /// The entry that acknowledged it, and took effect.
    acknowledged: BTreeMap<String, u64>,
}

impl Updates {
    fn of(log: &[LogEntry]) -> Self {
        let mut updates = Self::default();
        for entry in committed(log) {
            for (at, command) in entry.commands.iter().enumerate() {
                match command.get("Acknowledge") {
                    Some(acknowledge) if entry.outcomes.get(at).is_some_and(|outcome| outcome == "Done") => {
                        let uuid = acknowledge.get("uuid").and_then(uuid);
                        updates.acknowledged.extend(uuid.map(|uuid| (uuid, entry.index)));
                    }
                    Some(_) => {}
                    None => updates.mentions(command, entry.index),
                }
            }
        }
        updates
    }

    /// Wherever a command speaks of an update: in a status, or in an agent's hello.
    fn mentions(&mut self, value: &Value, index: u64) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match uuid(value).filter(|_| name == "uuid") {
                        Some(uuid) => _ = self.known.entry(uuid).or_insert(index),
                        None => self.mentions(value, index),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.mentions(value, index)),
            _ => {}
        }
    }
}

/// An update that its framework acknowledged is not sent to it again, once that is committed.
///
/// What is on its way meanwhile may still come, and a wall clock does not tell that from what is sent too late. The log's
/// own order does. A leader tells of an update only when it has applied the entry that brought it, and what a scheduler
/// is told comes in the order in which it was sent: down one stream as the leader applied, and down a later one from a
/// leader that had applied the SUBSCRIBE, which the scheduler said after all that it had been told before. So whoever
/// tells a scheduler anything has applied each entry that brought what the scheduler was told earlier. If one of those
/// is later than the acknowledgement of an update, the update was not in the registry any more when it was sent: that is
/// wrong. The same holds for the first words to a new scheduler, and for all that anybody was told before that one was
/// started.
///
/// A framework that hears of each call what became of it knows more: after the answer to its acknowledgement nothing that
/// comes down to it was sent before.
pub fn not_sent_again(history: &[Entry], truth: &Truth) -> Vec<String> {
    let updates = whole(truth).map(Updates::of).unwrap_or_default();
    // Acknowledgements that were answered, with their framework.
    let mut answered: BTreeSet<(&str, &str)> = BTreeSet::new();
    // What the leader that spoke last had applied at least: to all, with the time, and to the scheduler of each framework.
    let mut by_anybody: Vec<(u64, u64)> = Vec::new();
    let mut by_framework: BTreeMap<&str, u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for entry in history {
        match &entry.event {
            Event::Registered { begun_us, .. } => {
                let before =
                    by_anybody.partition_point(|(at_us, _)| begun_us.is_some_and(|begun| *at_us < begun));
                let applied = before.checked_sub(1).map_or(0, |last| by_anybody[last].1);
                by_framework.insert(&entry.process, applied);
            }
            // Over HTTP the answer to a call and what comes down the stream overtake each other.
            Event::Answered { call, which, .. } if call == ACKNOWLEDGE && entry.process != OVER_HTTP => {
                answered.insert((&entry.process, which));
            }
            Event::Update { task, uuid: Some(uuid), .. } => {
                if answered.contains(&(&*entry.process, &**uuid)) {
                    wrong.push(format!(
                        "{task}: that update {uuid} was acknowledged was answered, and it was sent again, at {} us",
                        entry.at_us
                    ));
                }
                let applied = by_framework.entry(&entry.process).or_default();
                if let Some(acknowledged) = updates.acknowledged.get(uuid).filter(|index| **index < *applied)
                {
                    wrong.push(format!(
                        "{task}: update {uuid} was acknowledged by entry {acknowledged}, and was sent again, at {} us, by \
                         a leader that had applied entry {applied}",
                        entry.at_us
                    ));
                }
                let known = updates.known.get(uuid).copied().unwrap_or_default();
                *applied = known.max(*applied);
                let most = by_anybody.last().map_or(0, |(_, most)| *most).max(known);
                by_anybody.push((entry.at_us, most));
            }
            _ => {}
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::samples::{entry, good, logged, registered, update};
    use serde_json::json;

    fn bytes(n: u8) -> Value {
        json!([0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, n])
    }

    fn commands(truth: &mut Truth, command: &Value, outcome: &str) {
        for log in truth.logs.values_mut() {
            let (commands, outcomes) = (vec![command.clone()], vec![json!(outcome)]);
            log.push(LogEntry { index: log.len() as u64, commands, outcomes, ..logged()[2].clone() });
        }
    }

    fn status(truth: &mut Truth, n: u8) {
        commands(truth, &json!({"Status": {"agent_id": "x-S1", "update": {"uuid": bytes(n)}}}), "Confirmed");
    }

    fn acknowledge(truth: &mut Truth, n: u8, outcome: &str) {
        let task = json!({"framework_id": "x-0001", "task_id": "t9"});
        commands(truth, &json!({"Acknowledge": {"task": task, "uuid": bytes(n)}}), outcome);
    }

    /// What a framework is told at a time.
    fn told(framework: &str, at_us: u64, n: u8) -> Entry {
        let mut entry = update("t9", "TASK_RUNNING", true);
        if let Event::Update { uuid: told, .. } = &mut entry.event {
            *told = uuid(&bytes(n));
        }
        Entry { at_us, process: framework.into(), ..entry }
    }

    fn begun(at_us: u64, begun_us: u64) -> Entry {
        let framework_id = "x-0001".into();
        Entry { at_us, ..entry("f1", Event::Registered { framework_id, begun_us: Some(begun_us) }) }
    }

    /// Entries 6 to 8: an update is known, is acknowledged, and another is known.
    fn complaints(history: impl IntoIterator<Item = Entry>) -> Vec<String> {
        let (mut before, mut truth) = good();
        status(&mut truth, 1);
        acknowledge(&mut truth, 1, "Done");
        status(&mut truth, 2);
        before.extend(history);
        not_sent_again(&before, &truth)
    }

    #[test]
    fn what_is_sent_after_a_later_update_is_sent_again() {
        let wrong = complaints([told("f1", 1, 1), told("f1", 2, 2), told("f1", 3, 1)]);
        let expected = "t9: update 00010000000000030000000000000001 was acknowledged by entry 7, and was sent again, at 3 \
                        us, by a leader that had applied entry 8";
        assert_eq!(wrong, [expected]);
        // Another stream of the same scheduler begins in between.
        let again = entry("f1", Event::Reregistered);
        assert_eq!(complaints([told("f1", 1, 2), again, told("f1", 3, 1)]).len(), 1);
    }

    #[test]
    fn what_a_new_scheduler_is_told_is_later_than_all_that_was_told_before_it_was_started() {
        let before = [told("f1", 10, 1), told("f2", 20, 2)];
        let then = |begun_us| before.clone().into_iter().chain([begun(30, begun_us), told("f1", 40, 1)]);
        assert_eq!(complaints(then(25)).len(), 1);
        // It may have subscribed before that, or nobody knows when.
        assert_eq!(complaints(then(15)), Vec::<String>::new());
        assert_eq!(
            complaints(before.into_iter().chain([registered("f1"), told("f1", 40, 1)])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn what_was_on_its_way_may_come_and_what_was_not_acknowledged_comes_again() {
        // Twice, before anything later.
        assert_eq!(complaints([told("f1", 1, 1), told("f1", 2, 1), told("f1", 3, 2)]), Vec::<String>::new());
        // After something later was told to others.
        assert_eq!(complaints([told("f2", 1, 2), told("f1", 2, 1)]), Vec::<String>::new());
        // The one that was never acknowledged.
        assert_eq!(complaints([told("f1", 1, 2), told("f1", 2, 2)]), Vec::<String>::new());
        let (mut history, mut truth) = good();
        status(&mut truth, 1);
        acknowledge(&mut truth, 1, "NotDone");
        status(&mut truth, 2);
        history.extend([told("f1", 1, 1), told("f1", 2, 2), told("f1", 3, 1)]);
        assert_eq!(not_sent_again(&history, &truth), Vec::<String>::new());
    }

    #[test]
    fn what_is_sent_after_its_acknowledgement_was_answered_is_seen() {
        let answered = |framework: &str, n| {
            let (call, task, by) = (ACKNOWLEDGE.into(), "t9".into(), "m1".into());
            let which = uuid(&bytes(n)).unwrap();
            entry(framework, Event::Answered { call, task, which, by })
        };
        let history = [told("d1", 1, 1), told("d1", 2, 1), answered("d1", 1), told("d1", 4, 1)];
        let wrong = complaints(history);
        assert!(wrong.len() == 1 && wrong[0].contains("sent again, at 4 us"), "{wrong:?}");
        // Another update, or another framework.
        assert_eq!(complaints([told("d1", 1, 1), answered("d1", 1), told("d1", 4, 2)]), Vec::<String>::new());
        assert_eq!(complaints([told("f1", 1, 1), answered("d1", 1), told("f1", 4, 1)]), Vec::<String>::new());
    }

    #[test]
    fn an_update_is_known_from_the_hello_on_that_brought_it() {
        let (mut history, mut truth) = good();
        commands(&mut truth, &json!({"AdmitAgent": {"tasks": [{"updates": [{"uuid": bytes(2)}]}]}}), "Done");
        status(&mut truth, 1);
        acknowledge(&mut truth, 1, "Done");
        // The agent says it again: that tells nothing of when it was known.
        status(&mut truth, 2);
        history.extend([told("f1", 1, 1), told("f1", 2, 2), told("f1", 3, 1)]);
        assert_eq!(not_sent_again(&history, &truth), Vec::<String>::new());
        // Nor does a log whose beginning was forgotten.
        let (mut history, mut truth) = good();
        status(&mut truth, 1);
        acknowledge(&mut truth, 1, "Done");
        status(&mut truth, 2);
        truth.logs.values_mut().for_each(|log| _ = log.drain(..4));
        history.extend([told("f1", 1, 2), told("f1", 2, 1)]);
        assert_eq!(not_sent_again(&history, &truth), Vec::<String>::new());
    }
}
