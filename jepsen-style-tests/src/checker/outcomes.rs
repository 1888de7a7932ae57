//! Calls that were answered as done, by whichever leader: what is answered is in the log.

use super::logs::{committed, last_committed, launch_number, launch_of, launched, uuid, whole};
use crate::direct::{ACCEPT, ACKNOWLEDGE, KILL};
use crate::history::{Entry, Event, Phase};
use crate::model::Truth;
use muster_testkit::LogEntry;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The number of a launch that was answered, as far as it names a place in the log.
fn index_of(number: &str) -> Option<u64> {
    number.split('.').nth(1)?.parse().ok()
}

/// What is wrong with a log about a launch that was acknowledged under this number. A log that does not reach to its
/// entry, or has forgotten it behind a snapshot, says nothing.
fn missing(log: &[LogEntry], task: &str, number: &str) -> Option<String> {
    let Some(index) = index_of(number) else { return Some(format!("{number:?} is no launch number")) };
    if !(log.first()?.index..=last_committed(log)?).contains(&index) {
        return None;
    }
    let at = log.binary_search_by_key(&index, |entry| entry.index).ok();
    let Some(entry) = at.map(|at| &log[at]).filter(|entry| entry.committed) else {
        return Some(format!("there is no entry {index}"));
    };
    let is_named = if entry.outcomes.is_empty() {
        // A snapshot covers it: what became of it is not replayed.
        entry.commands.iter().filter_map(launch_of).any(|launch| names_task(launch, task))
    } else {
        let all = entry.outcomes.iter().flat_map(launched);
        all.filter(|(name, _)| *name == task).any(|(_, it)| launch_number(it).as_deref() == Some(number))
    };
    (!is_named).then(|| format!("entry {index} does not launch it so"))
}

fn names_task(launch: &Value, task: &str) -> bool {
    let tasks = launch.get("tasks").and_then(Value::as_array);
    tasks.into_iter().flatten().any(|it| it.get("task_id").is_some_and(|id| id == task))
}

/// What a log says was asked for, and took its course: the call, as its answer names it.
type Asked<'a> = (&'a str, &'a str, &'a str, String);

/// The kills and acknowledgements of a log, by call, framework, task and update. A kill of what is not there any more is
/// done, too; what was decided in another term never is.
fn asked(log: &[LogEntry]) -> BTreeSet<Asked<'_>> {
    let mut all = BTreeSet::new();
    for (command, outcome) in committed(log).flat_map(LogEntry::decided) {
        let (call, asked, which) = if let Some(kill) = command.get("Kill") {
            let is_stale = outcome.pointer("/Refused/StaleTerm").is_some();
            (KILL, kill, (!is_stale).then(String::new))
        } else if let Some(acknowledge) = command.get("Acknowledge") {
            let is_done = outcome == "Done";
            (ACKNOWLEDGE, acknowledge, acknowledge.get("uuid").and_then(uuid).filter(|_| is_done))
        } else {
            continue;
        };
        let text = |pointer| asked.pointer(pointer).and_then(Value::as_str);
        let task = text("/task/framework_id").zip(text("/task/task_id"));
        all.extend(task.zip(which).map(|((framework_id, task), which)| (call, framework_id, task, which)));
    }
    all
}

/// A call that a framework was told is done is in the log: a launch in the log of every master, under the number that was
/// told, and its end was told as well, or the registry has the task; a kill and an acknowledgement in the log that is
/// whole. Of a run that broke off nothing is known but the logs, which may not reach to their end.
pub fn answered_as_logged(history: &[Entry], truth: &Truth) -> Vec<String> {
    let mut ids: BTreeMap<&str, &str> = BTreeMap::new();
    let mut wrong = Vec::new();
    let ends = history.iter().filter_map(|entry| match &entry.event {
        Event::Update { task, terminal: true, durable: true, .. } => Some(&**task),
        _ => None,
    });
    let ended: BTreeSet<&str> = ends.collect();
    let known: BTreeSet<&str> = truth.tasks.iter().map(|task| &*task.task).collect();
    let at_rest = truth.broken_off.is_none();
    let asked = whole(truth).filter(|_| at_rest).map(asked);
    for entry in history {
        let (call, task, which, by) = match &entry.event {
            Event::Registered { framework_id, .. } => {
                ids.insert(&entry.process, framework_id);
                continue;
            }
            Event::Answered { call, task, which, by } => (&**call, &**task, &**which, &**by),
            _ => continue,
        };
        let said = format!("{by} answered that the {call} of {task} is done, at {} us", entry.at_us);
        if call == ACCEPT {
            let logs = truth.logs.iter();
            let lacking = logs.filter_map(|(name, log)| Some((name, missing(log, task, which)?)));
            wrong.extend(lacking.map(|(name, why)| format!("{said}, under {which}: by {name}'s log {why}")));
            if at_rest && !ended.contains(task) && !known.contains(task) {
                wrong.push(format!("{said}: it has no end, and is not there"));
            }
            continue;
        }
        let framework_id = ids.get(&*entry.process).copied().unwrap_or_default();
        let sought = (call, framework_id, task, which.to_owned());
        if asked.as_ref().is_some_and(|asked| !asked.contains(&sought)) {
            wrong.push(format!("{said} {which}: by the log it is not"));
        }
    }
    wrong
}

/// A master that was deposed is asked at once to do what only a leader may: nothing, or what the log says, is what it
/// answers.
pub fn deposed_as_logged(history: &[Entry], truth: &Truth) -> Vec<String> {
    let Some(log) = whole(truth) else { return Vec::new() };
    let asked = committed(log).flat_map(LogEntry::decided).filter_map(|(command, outcome)| {
        let id = command.pointer("/Teardown/framework_id")?.as_str()?;
        (outcome.pointer("/Refused/UnknownFramework")?.as_str()? == id).then_some(id)
    });
    let refused: BTreeSet<&str> = asked.collect();
    let mut wrong = Vec::new();
    for entry in history {
        if let Event::Probe { phase: Phase::Ok, master, target } = &entry.event
            && !refused.contains(&**target)
        {
            wrong.push(format!(
                "{master} was deposed, and answered for the log about {target}, at {} us",
                entry.at_us
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::samples::{entry, good, known, logged, refuses};
    use serde_json::json;

    const UUID: &str = "00010000000000030000000000000001";

    fn answered(call: &str, task: &str, which: &str) -> Entry {
        let (call, task, which, by) = (call.into(), task.into(), which.into(), "m1".into());
        entry("f1", Event::Answered { call, task, which, by })
    }

    fn decided(truth: &mut Truth, command: &Value, outcome: &Value) {
        for log in truth.logs.values_mut() {
            let (commands, outcomes) = (vec![command.clone()], vec![outcome.clone()]);
            log.push(LogEntry { index: log.len() as u64, commands, outcomes, ..logged()[2].clone() });
        }
    }

    fn task(name: &str) -> Value {
        json!({"framework_id": "x-0001", "task_id": name})
    }

    /// What a framework was told that the log holds.
    fn kept(history: &mut Vec<Entry>, truth: &mut Truth) {
        let uuid = json!([0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1]);
        decided(truth, &json!({"Kill": {"task": task("t2"), "grace_ms": null}}), &json!("Done"));
        decided(truth, &json!({"Acknowledge": {"task": task("t1"), "uuid": uuid}}), &json!("Done"));
        history.extend([answered("accept", "t1", "1.3.0"), answered("accept", "t2", "1.4.0")]);
        history.extend([answered("kill", "t2", ""), answered("acknowledge", "t1", UUID)]);
    }

    #[track_caller]
    fn refuses_of(names: &str, spoil: impl FnOnce(&mut Vec<Entry>, &mut Truth)) {
        refuses(answered_as_logged, names, |history, truth| {
            kept(history, truth);
            spoil(history, truth);
        });
    }

    #[test]
    fn what_the_log_holds_is_good() {
        let (mut history, mut truth) = good();
        kept(&mut history, &mut truth);
        // A kill of what was not there any more.
        let unknown = json!({"Refused": "UnknownTask"});
        decided(&mut truth, &json!({"Kill": {"task": task("t9"), "grace_ms": null}}), &unknown);
        history.push(answered("kill", "t9", ""));
        assert_eq!(answered_as_logged(&history, &truth), Vec::<String>::new());
        // A master that is behind says nothing, nor does one that has a snapshot of it.
        truth.logs.get_mut("m1").unwrap().truncate(4);
        truth.logs.get_mut("m2").unwrap()[3].outcomes.clear();
        truth.logs.get_mut("m2").unwrap()[3].commands[0]["Launch"]["tasks"] = json!([{"task_id": "t1"}]);
        assert_eq!(answered_as_logged(&history, &truth), Vec::<String>::new());
        truth.logs.get_mut("m2").unwrap().drain(..4);
        assert_eq!(answered_as_logged(&history, &truth), Vec::<String>::new());
    }

    #[test]
    fn a_launch_that_is_not_in_the_log_of_every_master_is_seen() {
        refuses_of("done, at 0 us, under 1.5.0: by m1's log entry 5 does not launch it so", |history, _| {
            history.push(answered("accept", "t2", "1.5.0"));
        });
        refuses_of("by m2's log entry 3 does not launch it so", |_, truth| {
            truth.logs.get_mut("m2").unwrap()[3].outcomes = vec![json!({"Launched": {"tasks": []}})];
        });
        refuses_of("by m2's log there is no entry 3", |_, truth| {
            truth.logs.get_mut("m2").unwrap().remove(3);
        });
        refuses_of("by m2's log entry 3 does not launch it so", |_, truth| {
            truth.logs.get_mut("m2").unwrap()[3].outcomes.clear();
        });
        // One that is stored, and was replaced in the end.
        refuses_of("by m2's log there is no entry 3", |_, truth| {
            truth.logs.get_mut("m2").unwrap()[3].committed = false;
        });
        refuses_of("\"?\" is no launch number", |history, _| history.push(answered("accept", "t1", "?")));
    }

    #[test]
    fn of_a_run_that_broke_off_only_what_the_logs_must_have_is_asked_for() {
        let (mut history, mut truth) = good();
        kept(&mut history, &mut truth);
        truth.broken_off = Some("it stood still".into());
        history.push(answered("kill", "t9", ""));
        history.retain(|entry| !matches!(entry.event, Event::Update { .. }));
        assert_eq!(answered_as_logged(&history, &truth), Vec::<String>::new());
        history.push(answered("accept", "t2", "1.5.0"));
        assert_eq!(answered_as_logged(&history, &truth).len(), truth.logs.len());
    }

    #[test]
    fn a_launch_that_has_no_end_and_is_not_there_is_seen() {
        let launched = |truth: &mut Truth| {
            let number = json!({"incarnation": 1, "index": 8, "n": 0});
            let command =
                json!({"Launch": {"framework_id": "x-0001", "offer_ids": ["x-O1-0-9"], "tasks": []}});
            decided(truth, &command, &json!({"Launched": {"tasks": [["t9", {"Launched": number}]]}}));
        };
        refuses_of("accept of t9 is done, at 0 us: it has no end, and is not there", |history, truth| {
            launched(truth);
            history.push(answered("accept", "t9", "1.8.0"));
        });
        let (mut history, mut truth) = good();
        kept(&mut history, &mut truth);
        launched(&mut truth);
        history.push(answered("accept", "t9", "1.8.0"));
        truth.tasks.push(known("t9", false));
        assert_eq!(answered_as_logged(&history, &truth), Vec::<String>::new());
    }

    #[test]
    fn a_kill_or_an_acknowledgement_that_is_not_in_the_log_is_seen() {
        refuses_of("m1 answered that the kill of t1 is done", |history, _| {
            history.push(answered("kill", "t1", ""));
        });
        refuses_of("m1 answered that the kill of t9 is done", |history, truth| {
            let stale = json!({"Refused": {"StaleTerm": {"decided": 1, "written": 2}}});
            decided(truth, &json!({"Kill": {"task": task("t9"), "grace_ms": null}}), &stale);
            history.push(answered("kill", "t9", ""));
        });
        refuses_of("the acknowledge of t2 is done", |history, _| {
            history.push(answered("acknowledge", "t2", UUID));
        });
        refuses_of("the acknowledge of t1 is done", |_, truth| {
            for log in truth.logs.values_mut() {
                log.last_mut().unwrap().outcomes = vec![json!({"Refused": "NotTheHead"})];
            }
        });
    }

    #[test]
    fn a_deposed_leader_that_speaks_for_the_log_is_seen() {
        let probe = |phase| {
            let (master, target) = ("m1".into(), "nobody-1".into());
            entry("nemesis", Event::Probe { phase, master, target })
        };
        refuses(
            deposed_as_logged,
            "m1 was deposed, and answered for the log about nobody-1",
            |history, _| {
                history.extend([probe(Phase::Invoked), probe(Phase::Ok)]);
            },
        );
        let (mut history, mut truth) = good();
        history.extend([probe(Phase::Invoked), probe(Phase::Refused)]);
        history.extend([probe(Phase::Invoked), probe(Phase::Unknown)]);
        assert_eq!(deposed_as_logged(&history, &truth), Vec::<String>::new());
        // It leads again, or the leader answered by it.
        let unknown = json!({"Refused": {"UnknownFramework": "nobody-1"}});
        decided(&mut truth, &json!({"Teardown": {"framework_id": "nobody-1"}}), &unknown);
        history.extend([probe(Phase::Invoked), probe(Phase::Ok)]);
        assert_eq!(deposed_as_logged(&history, &truth), Vec::<String>::new());
    }
}
