//! What the masters' own logs say, entry by entry.

use crate::history::{Entry, Event, Phase};
use crate::model::Truth;
use muster_model::{LaunchNumber, Uuid};
use muster_testkit::LogEntry;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The entries that a master knew to be committed.
pub(super) fn committed(log: &[LogEntry]) -> impl Iterator<Item = &LogEntry> {
    log.iter().filter(|entry| entry.committed)
}

/// The log that knows most of what was committed; empty if none was read.
pub(super) fn longest(truth: &Truth) -> &[LogEntry] {
    truth.logs.values().max_by_key(|log| last_committed(log)).map_or(&[], Vec::as_slice)
}

/// A log in which nothing is missing of what is known to be committed, nor of what became of it. None, if all that know
/// the end have a snapshot of the beginning, or none was read.
pub(super) fn whole(truth: &Truth) -> Option<&[LogEntry]> {
    let end = last_committed(longest(truth))?;
    let is_whole = |log: &&Vec<LogEntry>| {
        let begins = log.first().is_some_and(|first| first.index <= 1);
        let is_replayed = || committed(log).all(|entry| entry.commands.len() == entry.outcomes.len());
        begins && last_committed(log) == Some(end) && is_replayed()
    };
    truth.logs.values().find(is_whole).map(Vec::as_slice)
}

/// The last entry that a master knew to be committed.
pub(super) fn last_committed(log: &[LogEntry]) -> Option<u64> {
    log.iter().rev().find(|entry| entry.committed).map(|entry| entry.index)
}

/// An update's uuid, as frameworks are told it.
pub(super) fn uuid(value: &Value) -> Option<String> {
    let byte = |value: &Value| u8::try_from(value.as_u64()?).ok();
    let bytes = value.as_array()?.iter().map(byte).collect::<Option<Vec<u8>>>()?;
    Some(Uuid(bytes.try_into().ok()?).to_string())
}

/// The number of a launch, as frameworks are told it.
pub(super) fn launch_number(value: &Value) -> Option<String> {
    serde_json::from_value::<LaunchNumber>(value.clone()).ok().map(|number| number.to_string())
}

/// The arguments of a command, if it is this one.
fn arguments<'a>(command: &'a Value, name: &str) -> Option<&'a Value> {
    command.get(name)
}

/// What a launch command says, whichever of the two it is.
pub(super) fn launch_of(command: &Value) -> Option<&Value> {
    arguments(command, "Launch").or_else(|| arguments(command, "LaunchSome").and_then(|some| some.get(0)))
}

/// The tasks that were launched by a command, each with the number of its launch.
pub(super) fn launched<'a>(outcome: &'a Value) -> Vec<(&'a str, &'a Value)> {
    let tasks = outcome.pointer("/Launched/tasks").and_then(Value::as_array);
    let number = |task: &'a Value| Some((task.get(0)?.as_str()?, task.get(1)?.get("Launched")?));
    tasks.into_iter().flatten().filter_map(number).collect()
}

/// Each log is gapless, in ascending terms, and what two masters know to be committed is the same, and did the same.
pub fn logs_agree(_: &[Entry], truth: &Truth) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut known: BTreeMap<u64, (&str, &LogEntry)> = BTreeMap::new();
    for (name, log) in &truth.logs {
        for pair in log.windows(2) {
            if pair[1].index != pair[0].index + 1 || pair[1].term < pair[0].term {
                let (one, next) = (&pair[0], &pair[1]);
                let (index, term) = (next.index, next.term);
                wrong.push(format!(
                    "{name}: entry {} of term {} is followed by entry {index} of term {term}",
                    one.index, one.term
                ));
            }
        }
        let differs = committed(log).find_map(|entry| match known.get(&entry.index) {
            Some((other, theirs)) => difference(entry, theirs).map(|what| (entry.index, *other, what)),
            None => None,
        });
        if let Some((index, other, what)) = differs {
            wrong.push(format!("{name} and {other} differ at entry {index}: {what}"));
        }
        committed(log).for_each(|entry| _ = known.entry(entry.index).or_insert((name, entry)));
    }
    wrong
}

fn difference(one: &LogEntry, other: &LogEntry) -> Option<String> {
    if one.term != other.term {
        return Some(format!("it is of term {} and of term {}", one.term, other.term));
    }
    if one.commands != other.commands {
        return Some("it says two things".into());
    }
    match (&one.state_hash, &other.state_hash) {
        (Some(hash), Some(theirs)) if hash != theirs => {
            Some(format!("the registry's hash after it is {hash} and {theirs}"))
        }
        _ => None,
    }
}

/// An offer is used in the term that issued it, and by one launch.
pub fn offers_once(_: &[Entry], truth: &Truth) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut used: BTreeMap<&str, (u64, BTreeSet<String>)> = BTreeMap::new();
    for entry in committed(longest(truth)) {
        for (command, outcome) in entry.decided() {
            let (Some(launch), tasks) = (launch_of(command), launched(outcome)) else { continue };
            if tasks.is_empty() {
                continue;
            }
            let numbers: BTreeSet<String> = tasks.iter().map(|(_, number)| number.to_string()).collect();
            let offers = launch.get("offer_ids").and_then(Value::as_array);
            for offer in offers.into_iter().flatten().filter_map(Value::as_str) {
                let issued = term_of(offer);
                if issued != Some(entry.term) {
                    wrong.push(format!(
                        "offer {offer} was used in term {}, by entry {}",
                        entry.term, entry.index
                    ));
                }
                match used.get(offer) {
                    // An ACCEPT that is repeated is answered as before: with the same launches.
                    Some((_, before)) if numbers.is_subset(before) => {}
                    Some((before, _)) => {
                        wrong.push(format!(
                            "offer {offer} was used by entry {before} and by entry {}",
                            entry.index
                        ));
                    }
                    None => _ = used.insert(offer, (entry.index, numbers.clone())),
                }
            }
        }
    }
    wrong
}

/// The term in an offer's id, `CLUSTER-O<term>-<shard>-<n>`.
pub(super) fn term_of(offer: &str) -> Option<u64> {
    let (_, rest) = offer.rsplit_once("-O")?;
    rest.split('-').next()?.parse().ok()
}

/// What a framework was told of its launches is what the log says of them.
pub fn launches_as_logged(history: &[Entry], truth: &Truth) -> Vec<String> {
    let log = longest(truth);
    if log.first().is_none_or(|first| first.index > 1) {
        return Vec::new(); // its beginning was forgotten behind a snapshot, or it was not read
    }
    let outcomes = committed(log).flat_map(LogEntry::decided).flat_map(|(_, outcome)| launched(outcome));
    let logged: BTreeSet<&str> = outcomes.map(|(task, _)| task).collect();
    let mut wrong = Vec::new();
    for entry in history {
        let Event::Launch { phase, task, .. } = &entry.event else { continue };
        match (phase, logged.contains(&**task)) {
            (Phase::Ok, false) => {
                wrong.push(format!("{task} was launched by its framework's word, not by the log's"))
            }
            (Phase::Refused, true) => {
                wrong.push(format!("{task} was refused by its framework's word, and launched by the log's"))
            }
            _ => {}
        }
    }
    wrong
}

/// A framework is torn down once, and its id does not come back.
pub fn removed_once(_: &[Entry], truth: &Truth) -> Vec<String> {
    let mut removed: BTreeMap<&str, u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for entry in committed(longest(truth)) {
        for (command, outcome) in entry.decided() {
            let ends = arguments(command, "Teardown").or_else(|| arguments(command, "ExpireFramework"));
            let ended = ends.filter(|_| outcome == "Done").and_then(framework);
            if let Some(id) = ended
                && let Some(before) = removed.insert(id, entry.index)
            {
                wrong.push(format!(
                    "framework {id} was torn down by entry {before} and by entry {}",
                    entry.index
                ));
            }
            let subscribed = outcome.get("Subscribed").and_then(framework);
            if let Some((id, before)) = subscribed.and_then(|id| removed.get_key_value(id)) {
                wrong.push(format!(
                    "framework {id} was torn down by entry {before} and is back with entry {}",
                    entry.index
                ));
            }
        }
    }
    wrong
}

fn framework(fields: &Value) -> Option<&str> {
    fields.get("framework_id")?.as_str()
}

/// A term begins once, and later than all before it.
pub fn terms_ascend(_: &[Entry], truth: &Truth) -> Vec<String> {
    let mut last = 0;
    let mut wrong = Vec::new();
    for entry in committed(longest(truth)) {
        let begins = entry.commands.iter().any(|command| arguments(command, "BeginTerm").is_some());
        if begins && entry.term <= last {
            wrong.push(format!(
                "term {} begins with entry {}, after term {last} began",
                entry.term, entry.index
            ));
        }
        if begins {
            last = entry.term;
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::samples::{launch, refuses};
    use serde_json::json;

    fn log<'a>(truth: &'a mut Truth, name: &str) -> &'a mut Vec<LogEntry> {
        truth.logs.get_mut(name).unwrap()
    }

    fn all(truth: &mut Truth, spoil: impl Fn(&mut Vec<LogEntry>)) {
        truth.logs.values_mut().for_each(spoil);
    }

    #[test]
    fn logs_that_differ_are_seen() {
        refuses(logs_agree, "m2 and m1 differ at entry 3: it says two things", |_, truth| {
            log(truth, "m2")[3].commands = vec![json!("Tick")];
        });
        refuses(logs_agree, "differ at entry 2: it is of term 1 and of term 2", |_, truth| {
            for entry in log(truth, "m1") {
                entry.term = if entry.index >= 2 { 2 } else { entry.term };
            }
        });
        refuses(logs_agree, "the registry's hash after it is 08 and 07", |_, truth| {
            log(truth, "m2").last_mut().unwrap().state_hash = Some("08".into());
            log(truth, "m1").last_mut().unwrap().state_hash = Some("07".into());
        });
        refuses(logs_agree, "m1: entry 1 of term 1 is followed by entry 3", |_, truth| {
            log(truth, "m1").remove(2);
        });
        // What one of them only stored may be replaced by something else.
        let (history, mut truth) = crate::checker::samples::good();
        let end = log(&mut truth, "m2").last_mut().unwrap();
        (end.committed, end.commands) = (false, vec![json!("Tick")]);
        assert_eq!(logs_agree(&history, &truth), Vec::<String>::new());
    }

    #[test]
    fn an_offer_of_another_term_or_used_twice_is_seen() {
        refuses(offers_once, "offer x-O7-0-1 was used in term 1", |_, truth| {
            all(truth, |log| log[3].commands[0]["Launch"]["offer_ids"] = json!(["x-O7-0-1"]));
        });
        refuses(offers_once, "offer x-O1-0-1 was used by entry 3 and by entry 4", |_, truth| {
            all(truth, |log| log[4].commands[0]["Launch"]["offer_ids"] = json!(["x-O1-0-1"]));
        });
        // An ACCEPT that came twice is no second use.
        let (history, mut truth) = crate::checker::samples::good();
        all(&mut truth, |log| {
            let mut again = log[3].clone();
            again.index = log.len() as u64;
            log.push(again);
        });
        assert_eq!(offers_once(&history, &truth), Vec::<String>::new());
    }

    #[test]
    fn a_launch_that_the_log_does_not_know_is_seen() {
        refuses(launches_as_logged, "t9 was launched by its framework's word", |history, _| {
            history.push(launch("t9", Phase::Ok));
        });
        refuses(launches_as_logged, "t1 was refused by its framework's word", |history, _| {
            history.push(launch("t1", Phase::Refused));
        });
    }

    #[test]
    fn a_framework_that_is_removed_twice_or_comes_back_is_seen() {
        let removed = |index| LogEntry {
            index,
            commands: vec![json!({"ExpireFramework": {"framework_id": "x-0001", "disconnected": 4}})],
            outcomes: vec![json!("Done")],
            ..crate::checker::samples::logged()[2].clone()
        };
        refuses(removed_once, "x-0001 was torn down by entry 6 and by entry 7", |_, truth| {
            all(truth, |log| log.extend([removed(6), removed(7)]));
        });
        refuses(removed_once, "x-0001 was torn down by entry 6 and is back with entry 7", |_, truth| {
            let again = LogEntry { index: 7, ..crate::checker::samples::logged()[2].clone() };
            all(truth, |log| log.extend([removed(6), again.clone()]));
        });
    }

    #[test]
    fn a_term_that_begins_twice_is_seen() {
        refuses(terms_ascend, "term 1 begins with entry 6, after term 1 began", |_, truth| {
            let again = LogEntry { index: 6, ..crate::checker::samples::logged()[1].clone() };
            all(truth, |log| log.push(again.clone()));
        });
    }
}
