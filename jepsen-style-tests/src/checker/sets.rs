//! Long-running sets: what nobody ends runs on, and each slot has one task.

use super::faults::{ended_frameworks, gone, killed};
use crate::history::{Entry, Event, Listed, Phase};
use crate::model::{Truth, slot_of};
use std::collections::{BTreeMap, BTreeSet};

/// A set as it was when it was counted.
struct Counted<'a> {
    set: &'a str,
    slots: u32,
    alive: BTreeSet<&'a str>,
    listed: &'a [Listed],
    /// The kills that were asked for by then.
    killed: BTreeSet<&'a str>,
    /// The ends that were told by then.
    ended: BTreeSet<&'a str>,
    /// The agent that each task was meant for.
    meant: BTreeMap<&'a str, &'a str>,
}

/// Those that were counted, and the names of those that were not. A set that is torn down is none.
fn counted(history: &[Entry]) -> (Vec<Counted<'_>>, Vec<&str>) {
    let torn_down = ended_frameworks(history);
    let (mut counted, mut uncounted) = (Vec::new(), Vec::new());
    let sets = history.iter().filter_map(|entry| match &entry.event {
        Event::Keeps { slots } => Some((&*entry.process, *slots)),
        _ => None,
    });
    for (set, slots) in sets.filter(|(set, _)| !torn_down.contains(set)) {
        let (mut killed, mut ended, mut meant) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        let mut census = None;
        for entry in history.iter().filter(|entry| entry.process == set) {
            match &entry.event {
                Event::Kill { task } => _ = killed.insert(&**task),
                Event::Update { task, terminal: true, durable: true, .. } => _ = ended.insert(&**task),
                Event::Launch { phase: Phase::Invoked, task, agent, .. } => {
                    _ = meant.insert(&**task, &**agent)
                }
                Event::Census { alive, listed } => {
                    census = Some((alive, listed));
                    break;
                }
                _ => {}
            }
        }
        match census {
            Some((alive, listed)) => {
                let alive = alive.iter().map(|task| &**task).collect();
                counted.push(Counted { set, slots, alive, listed, killed, ended, meant });
            }
            None => uncounted.push(set),
        }
    }
    (counted, uncounted)
}

/// In the end each slot of a set has one task: it has a process, and the leader lists it, and no other, as running on the
/// agent that it was launched on, which is there.
pub fn slots_filled(history: &[Entry], _: &Truth) -> Vec<String> {
    let (counted, uncounted) = counted(history);
    let mut wrong: Vec<String> =
        uncounted.iter().map(|set| format!("nobody counted in the end what there is of {set}")).collect();
    for it in counted {
        for slot in 1..=it.slots {
            let is_of = |task: &str| slot_of(task) == Some((it.set, slot));
            let alive: Vec<&str> = it.alive.iter().copied().filter(|task| is_of(task)).collect();
            let listed: Vec<&Listed> = it.listed.iter().filter(|one| is_of(&one.task)).collect();
            let is_good = match (alive.as_slice(), listed.as_slice()) {
                ([task], [one]) => {
                    one.task == *task
                        && one.state == "TASK_RUNNING"
                        && one.agent_state == "registered"
                        && it.meant.get(task) == Some(&&*one.agent)
                }
                _ => false,
            };
            if !is_good {
                wrong.push(format!(
                    "slot {slot} of {} has the processes {alive:?}, the leader lists {listed:?}",
                    it.set
                ));
            }
        }
    }
    wrong
}

/// A task of a set that nobody asked to end goes on: it wrote no last line, and in the end it is there. One that was asked
/// to end, or whose end was told, or whose agent was marked gone, is not.
pub fn runs_on(history: &[Entry], truth: &Truth) -> Vec<String> {
    let mut wrong = Vec::new();
    let gone = gone(history);
    for it in counted(history).0 {
        let is_of = |task: &str| slot_of(task).is_some_and(|(set, _)| set == it.set);
        let own = truth.slots.iter().filter(|mark| mark.starts && is_of(&mark.task));
        let started: BTreeSet<&str> = own.map(|mark| &*mark.task).collect();
        for task in &started {
            match (it.killed.contains(task), it.ended.contains(task), it.alive.contains(task)) {
                (false, false, false) => wrong.push(format!("nobody asked {task} to end, and it is gone")),
                (false, true, false) if gone.contains(task) => {}
                (false, true, false) => {
                    wrong.push(format!("nobody asked {task} to end, and its end was told"));
                }
                (_, true, true) => wrong.push(format!("the end of {task} was told, and it runs on")),
                (true, false, true) => wrong.push(format!("{task} was asked to end, and runs on")),
                (false, false, true) | (true, _, false) => {}
            }
        }
        let known: BTreeSet<&str> = it.listed.iter().map(|one| &*one.task).collect();
        wrong.extend(
            it.alive.difference(&known).map(|task| format!("{task} runs, and the leader does not know")),
        );
    }
    // Who was never asked to end wrote no last line, whoever counted.
    let killed = killed(history);
    let torn_down = ended_frameworks(history);
    for mark in truth.slots.iter().filter(|mark| !mark.starts && !killed.contains(&*mark.task)) {
        if slot_of(&mark.task).is_some_and(|(set, _)| !torn_down.contains(set)) {
            wrong.push(format!("{} wrote its last line, and nobody asked it to end", mark.task));
        }
    }
    wrong
}

/// A framework fills a slot when it was told of the former task's end: so by the tasks' own words that one has written its
/// last line before the next one writes its first. One without a last line is left out: when it ended is not known. So is
/// one whose agent was marked gone: it may outlast that.
pub fn one_in_a_slot(history: &[Entry], truth: &Truth) -> Vec<String> {
    let gone = gone(history);
    let ends = truth.slots.iter().filter(|mark| !mark.starts).map(|mark| &*mark.task);
    let ends: BTreeSet<&str> = ends.filter(|task| !gone.contains(task)).collect();
    let mut running: BTreeMap<(&str, u32), BTreeSet<&str>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for mark in truth.slots.iter().filter(|mark| ends.contains(&*mark.task)) {
        let Some(slot) = slot_of(&mark.task) else { continue };
        let in_slot = running.entry(slot).or_default();
        if mark.starts {
            wrong.extend(in_slot.iter().map(|other| format!("{} started while {other} ran", mark.task)));
            in_slot.insert(&mark.task);
        } else {
            in_slot.remove(&*mark.task);
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::samples::{entry, good, mark, refuses};

    fn of_set(event: Event) -> Entry {
        entry("s1", event)
    }

    fn launched(task: &str) -> [Entry; 2] {
        let launch = |phase, agent: &str| {
            let (task, agent) = (task.to_owned(), agent.to_owned());
            of_set(Event::Launch { phase, task, agent, needs: [("cpus".to_owned(), 100)].into() })
        };
        [launch(Phase::Invoked, "a1"), launch(Phase::Ok, "")]
    }

    fn killed(task: &str) -> Entry {
        of_set(Event::Kill { task: task.into() })
    }

    fn ended(task: &str, state: &str) -> Entry {
        let (task, state, reason) = (task.to_owned(), state.to_owned(), String::new());
        of_set(Event::Update { task, state, terminal: true, durable: true, reason, uuid: None })
    }

    fn census(alive: &[&str], listed: &[&str]) -> Entry {
        let listed = listed.iter().map(|task| Listed {
            task: (*task).into(),
            state: "TASK_RUNNING".into(),
            agent: "a1".into(),
            agent_state: "registered".into(),
        });
        let listed = listed.collect();
        of_set(Event::Census { alive: alive.iter().map(|task| (*task).into()).collect(), listed })
    }

    /// Two slots; the task of the second was killed and replaced.
    fn keeps(history: &mut Vec<Entry>, truth: &mut Truth) {
        history.push(of_set(Event::Registered { framework_id: "x-0002".into(), begun_us: None }));
        history.push(of_set(Event::Keeps { slots: 2 }));
        for task in ["s1-1.1", "s1-2.2"] {
            history.extend(launched(task));
        }
        history.extend([killed("s1-2.2"), ended("s1-2.2", "TASK_KILLED")]);
        history.extend(launched("s1-2.3"));
        history.push(census(&["s1-1.1", "s1-2.3"], &["s1-1.1", "s1-2.3"]));
        for task in ["s1-1.1", "s1-2.3"] {
            history.extend([killed(task), ended(task, "TASK_KILLED")]);
        }
        let lines = [("s1-1.1", true), ("s1-2.2", true), ("s1-2.2", false), ("s1-2.3", true)];
        let last = [("s1-1.1", false), ("s1-2.3", false)];
        truth.slots = lines.into_iter().chain(last).map(|(task, starts)| mark(task, starts)).collect();
        truth.marks.get_mut("a1").unwrap().extend(truth.slots.clone());
        truth.frameworks.insert("x-0002".into(), "s1".into());
        // Nobody kept the masters' logs.
        truth.logs.clear();
    }

    #[track_caller]
    fn spoils(checker: crate::checker::Checker, names: &str, spoil: fn(&mut Vec<Entry>, &mut Truth)) {
        refuses(checker, names, |history, truth| {
            keeps(history, truth);
            spoil(history, truth);
        });
    }

    /// Another census in the place of the good one.
    fn recount(history: &mut [Entry], alive: &[&str], listed: &[&str]) {
        let is_census = |entry: &&mut Entry| matches!(entry.event, Event::Census { .. });
        *history.iter_mut().find(is_census).unwrap() = census(alive, listed);
    }

    #[test]
    fn a_set_that_is_kept_is_good() {
        let (mut history, mut truth) = good();
        keeps(&mut history, &mut truth);
        for (name, wrong) in crate::checker::check(&history, &truth) {
            assert!(wrong.is_empty(), "{name}: {wrong:?}");
        }
    }

    #[test]
    fn a_slot_with_no_task_two_or_another_than_is_listed_is_seen() {
        const BOTH: [&str; 2] = ["s1-1.1", "s1-2.3"];
        spoils(slots_filled, "slot 1 of s1 has the processes [], the leader lists [Listed", |history, _| {
            recount(history, &["s1-2.3"], &BOTH);
        });
        spoils(slots_filled, "slot 2 of s1 has the processes [\"s1-2.2\", \"s1-2.3\"]", |history, _| {
            recount(history, &["s1-1.1", "s1-2.2", "s1-2.3"], &BOTH);
        });
        spoils(
            slots_filled,
            "slot 1 of s1 has the processes [\"s1-1.1\"], the leader lists []",
            |history, _| {
                recount(history, &BOTH, &["s1-2.3"]);
            },
        );
        spoils(slots_filled, "slot 2 of s1", |history, _| recount(history, &BOTH, &["s1-1.1", "s1-2.2"]));
        spoils(slots_filled, "slot 1 of s1", |history, _| {
            for entry in history {
                if let Event::Census { listed, .. } = &mut entry.event {
                    listed[0].agent_state = "unreachable".into();
                }
            }
        });
        spoils(slots_filled, "nobody counted", |history, _| {
            history.retain(|entry| !matches!(entry.event, Event::Census { .. }));
        });
    }

    #[test]
    fn a_task_that_ended_unasked_or_did_not_when_asked_is_seen() {
        spoils(runs_on, "nobody asked s1-1.1 to end, and it is gone", |history, _| {
            recount(history, &["s1-2.3"], &["s1-1.1", "s1-2.3"]);
        });
        spoils(runs_on, "nobody asked s1-2.2 to end, and its end was told", |history, _| {
            history.retain(|entry| *entry != killed("s1-2.2"));
        });
        // That it is gone with its agent is an end only where an operator said so.
        spoils(runs_on, "nobody asked s1-2.2 to end, and its end was told", |history, _| {
            history.retain(|entry| *entry != killed("s1-2.2") && *entry != ended("s1-2.2", "TASK_KILLED"));
            let census = history.iter().position(|entry| matches!(entry.event, Event::Census { .. }));
            history.insert(census.unwrap(), ended("s1-2.2", "TASK_GONE_BY_OPERATOR"));
        });
        spoils(runs_on, "s1-2.2 wrote its last line, and nobody asked", |history, _| {
            history.retain(|entry| *entry != killed("s1-2.2"));
        });
        spoils(runs_on, "the end of s1-2.2 was told, and it runs on", |history, _| {
            recount(history, &["s1-1.1", "s1-2.2", "s1-2.3"], &["s1-1.1", "s1-2.3"]);
        });
        spoils(runs_on, "s1-2.2 was asked to end, and runs on", |history, _| {
            history.retain(|entry| *entry != ended("s1-2.2", "TASK_KILLED"));
            recount(history, &["s1-1.1", "s1-2.2"], &["s1-1.1", "s1-2.2"]);
        });
        spoils(runs_on, "s1-2.3 runs, and the leader does not know", |history, _| {
            recount(history, &["s1-1.1", "s1-2.3"], &["s1-1.1"]);
        });
    }

    #[test]
    fn two_tasks_in_a_slot_at_once_are_seen() {
        spoils(one_in_a_slot, "s1-2.3 started while s1-2.2 ran", |_, truth| truth.slots.swap(2, 3));
    }
}
