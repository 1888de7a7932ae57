//! Launches: none lost, none doubled, none invented.

use crate::history::{Entry, Event, Phase};
use crate::model::Truth;
use std::collections::{BTreeMap, BTreeSet};

fn starts(truth: &Truth) -> impl Iterator<Item = (&str, &str)> {
    truth.marks.iter().flat_map(|(agent, marks)| {
        marks.iter().filter(|mark| mark.starts).map(|mark| (&*mark.task, &**agent))
    })
}

fn in_phase(history: &[Entry], wanted: Phase) -> BTreeSet<&str> {
    let task = |entry: &'_ Entry| matches!(&entry.event, Event::Launch { phase, .. } if *phase == wanted);
    history.iter().filter(|entry| task(entry)).filter_map(task_of).collect()
}

fn task_of(entry: &Entry) -> Option<&str> {
    match &entry.event {
        Event::Launch { task, .. } => Some(task),
        _ => None,
    }
}

/// A launch that its framework was told of ran, or ended without; one that finished ran for certain.
pub fn lost_launches(history: &[Entry], truth: &Truth) -> Vec<String> {
    let started: BTreeSet<_> = starts(truth).map(|(task, _)| task).collect();
    let mut ends: BTreeMap<&str, &str> = BTreeMap::new();
    for entry in history {
        if let Event::Update { task, state, terminal: true, durable: true, .. } = &entry.event {
            ends.insert(task, state);
        }
    }
    let mut wrong = Vec::new();
    for task in in_phase(history, Phase::Ok) {
        match ends.get(task) {
            _ if started.contains(task) => {}
            None => wrong.push(format!("{task} was launched, but neither ran nor ended")),
            Some(&"TASK_FINISHED") => wrong.push(format!("{task} finished without having run")),
            Some(&("TASK_LOST" | "TASK_DROPPED" | "TASK_GONE")) => {
                wrong.push(format!("{task} was launched and dropped, though no agent failed"));
            }
            Some(_) => {}
        }
    }
    wrong
}

/// Each task's first line occurs once.
pub fn started_twice(_: &[Entry], truth: &Truth) -> Vec<String> {
    let mut seen: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (task, agent) in starts(truth) {
        seen.entry(task).or_default().push(agent);
    }
    let twice = seen.into_iter().filter(|(_, agents)| agents.len() > 1);
    twice.map(|(task, agents)| format!("{task} was started {} times, on {agents:?}", agents.len())).collect()
}

/// What ran was asked for and not refused.
pub fn phantom_starts(history: &[Entry], truth: &Truth) -> Vec<String> {
    let (asked, refused) = (in_phase(history, Phase::Invoked), in_phase(history, Phase::Refused));
    let mut wrong = Vec::new();
    for (task, agent) in starts(truth) {
        if refused.contains(task) {
            wrong.push(format!("{task} was refused and ran on {agent}"));
        } else if !asked.contains(task) {
            wrong.push(format!("{task} ran on {agent} and nobody asked for it"));
        }
    }
    wrong
}

/// What ran, ran where it was meant to.
pub fn wrong_agent(history: &[Entry], truth: &Truth) -> Vec<String> {
    let meant: BTreeMap<&str, &str> = history
        .iter()
        .filter_map(|entry| match &entry.event {
            Event::Launch { phase: Phase::Invoked, task, agent, .. } => Some((&**task, &**agent)),
            _ => None,
        })
        .collect();
    let elsewhere = starts(truth).filter(|(task, agent)| meant.get(task).is_some_and(|meant| meant != agent));
    elsewhere.map(|(task, agent)| format!("{task} ran on {agent}, not on {}", meant[task])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::samples::{launch, mark, refuses, update};

    #[test]
    fn a_launch_that_vanished_is_seen() {
        refuses(lost_launches, "t9 was launched, but", |history, _| history.push(launch("t9", Phase::Ok)));
        refuses(lost_launches, "t1 finished without", |_, truth| truth.marks.clear());
        refuses(lost_launches, "t9 was launched and dropped", |history, _| {
            history.push(launch("t9", Phase::Ok));
            history.push(update("t9", "TASK_DROPPED", true));
        });
    }

    #[test]
    fn a_second_start_is_seen_on_any_agent() {
        refuses(started_twice, "t1", |_, truth| truth.marks.get_mut("a1").unwrap().push(mark("t1", true)));
        refuses(started_twice, "t1", |_, truth| {
            truth.marks.insert("a2".into(), vec![mark("t1", true)]);
        });
    }

    #[test]
    fn a_start_without_a_launch_is_seen() {
        refuses(phantom_starts, "t3 was refused", |_, truth| {
            truth.marks.get_mut("a1").unwrap().push(mark("t3", true));
        });
        refuses(phantom_starts, "nobody asked", |_, truth| {
            truth.marks.get_mut("a1").unwrap().push(mark("t9", true));
        });
    }

    #[test]
    fn a_start_on_another_agent_is_seen() {
        refuses(wrong_agent, "t1 ran on a2, not on a1", |_, truth| {
            let marks = truth.marks.remove("a1").unwrap();
            truth.marks.insert("a2".into(), marks);
        });
    }
}
