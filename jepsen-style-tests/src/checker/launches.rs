//! Launches: none lost, none doubled, none invented.

use super::faults::{GONE_BY_OPERATOR, Outages, ended_frameworks, gone, killed};
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

/// The ends that frameworks were told, and where in the history.
fn ends(history: &[Entry]) -> BTreeMap<&str, (usize, &str)> {
    let mut ends = BTreeMap::new();
    for (at, entry) in history.iter().enumerate() {
        if let Event::Update { task, state, terminal: true, durable: true, .. } = &entry.event {
            ends.insert(&**task, (at, &**state));
        }
    }
    ends
}

/// Where in the history each launch was asked for, and the agent that it was meant for.
fn launches(history: &[Entry]) -> BTreeMap<&str, (usize, &str)> {
    let asked = history.iter().enumerate().filter_map(|(at, entry)| match &entry.event {
        Event::Launch { phase: Phase::Invoked, task, agent, .. } => Some((&**task, (at, &**agent))),
        _ => None,
    });
    asked.collect()
}

/// The tasks of frameworks that were torn down that ended by the registry's word: nobody is told of those.
fn ended_untold<'a>(history: &'a [Entry], truth: &Truth) -> BTreeSet<&'a str> {
    let torn_down = ended_frameworks(history);
    let ended: BTreeSet<&str> =
        truth.tasks.iter().filter(|task| task.ended).map(|task| &*task.task).collect();
    let own = history.iter().filter(|entry| torn_down.contains(&*entry.process)).filter_map(task_of);
    own.filter(|task| ended.contains(task)).collect()
}

/// A launch that its framework was told of ran, or was killed before it did, as its framework or, when that was torn
/// down, the registry says. Only one whose agent was ended or away for too long meanwhile may have been dropped, and only
/// if it did not run; and only one whose agent was marked gone may be gone.
pub fn lost_launches(history: &[Entry], truth: &Truth) -> Vec<String> {
    let started: BTreeSet<_> = starts(truth).map(|(task, _)| task).collect();
    let (ends, launches, outages) = (ends(history), launches(history), Outages::of(history));
    let (untold, gone) = (ended_untold(history, truth), gone(history));
    let mut wrong = Vec::new();
    for task in in_phase(history, Phase::Ok) {
        match ends.get(task) {
            _ if started.contains(task) => {}
            None if untold.contains(task) => {}
            None => wrong.push(format!("{task} was launched, but neither ran nor ended")),
            Some((_, "TASK_KILLED")) => {}
            Some((_, GONE_BY_OPERATOR)) if gone.contains(task) => {}
            Some((_, "TASK_FINISHED")) => wrong.push(format!("{task} finished without having run")),
            Some((at, "TASK_LOST" | "TASK_DROPPED" | "TASK_GONE")) => {
                let hit = launches.get(task).is_some_and(|(from, agent)| outages.hit(agent, *from, *at));
                if !hit {
                    wrong.push(format!("{task} was launched and dropped, though its agent did not fail"));
                }
            }
            Some((_, state)) => wrong.push(format!("{task} came to {state} without having run")),
        }
    }
    wrong
}

/// What ran ended by itself, or was killed because its framework wanted it: whatever happened to its agent,
/// which finds it again, unless an operator said that it never comes back. One that finished wrote its last line.
pub fn ended_otherwise(history: &[Entry], truth: &Truth) -> Vec<String> {
    let ends = ends(history);
    let (killed, gone) = (killed(history), gone(history));
    let last_lines = truth.marks.values().flatten().filter(|mark| !mark.starts);
    let last_lines: BTreeSet<&str> = last_lines.map(|mark| &*mark.task).collect();
    let mut wrong = Vec::new();
    for (task, _) in starts(truth) {
        match ends.get(task) {
            // That its end is told is another promise.
            None => {}
            Some((_, "TASK_FINISHED")) if last_lines.contains(task) => {}
            Some((_, "TASK_FINISHED")) => wrong.push(format!("{task} finished without its last line")),
            Some((_, "TASK_KILLED")) if killed.contains(task) => {}
            Some((_, GONE_BY_OPERATOR)) if gone.contains(task) => {}
            Some((_, state)) => wrong.push(format!("{task} ran and came to {state}")),
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
    let meant = launches(history);
    let elsewhere = starts(truth).filter_map(|(task, agent)| {
        let (_, meant) = meant.get(task).filter(|(_, meant)| *meant != agent)?;
        Some(format!("{task} ran on {agent}, not on {meant}"))
    });
    elsewhere.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::samples::{entry, good, known, launch, mark, refuses, update};
    use crate::nemesis::{AWAY, GONE, KILL, PAUSE};

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
    fn a_task_that_died_with_its_framework_as_it_began_is_not_lost() {
        let of = |framework: &str, ended| {
            let (mut history, mut truth) = good();
            let operate = |phase| {
                let (call, framework, target) = ("teardown".into(), "f1".into(), "x-0001".into());
                entry("w0", Event::Operate { phase, call, framework, target, already: false })
            };
            let launched = [Phase::Invoked, Phase::Ok].map(|phase| launch("t9", phase));
            history.extend(launched.map(|launch| Entry { process: framework.into(), ..launch }));
            history.extend([operate(Phase::Invoked), operate(Phase::Ok)]);
            truth.tasks.push(known("t9", ended));
            lost_launches(&history, &truth).len()
        };
        assert_eq!([of("f1", true), of("f1", false), of("f2", true)], [0, 1, 1]);
    }

    #[test]
    fn a_drop_is_excused_by_an_outage_of_its_own_agent_alone() {
        let outage = |target: &str, begins| {
            let (fault, target) = (KILL.into(), target.into());
            entry("nemesis", Event::Nemesis { fault, target, begins, bit: None })
        };
        let dropped = |target| {
            let (mut history, truth) = good();
            let fault = [outage(target, true), outage(target, false)];
            history.push(launch("t9", Phase::Invoked));
            history.extend(fault);
            history.extend([launch("t9", Phase::Ok), update("t9", "TASK_DROPPED", true)]);
            lost_launches(&history, &truth)
        };
        assert_eq!(dropped("a1"), Vec::<String>::new());
        assert_eq!(dropped("a3,a1"), Vec::<String>::new());
        for other in ["m1", "a2", "a11"] {
            assert!(dropped(other).iter().any(|one| one.contains("t9 was launched and dropped")), "{other}");
        }
        // An outage before the launch or after the end explains nothing, nor does standing still.
        refuses(lost_launches, "t9 was launched and dropped", |history, _| {
            history.extend([outage("a1", true), outage("a1", false)]);
            history.extend([launch("t9", Phase::Invoked), launch("t9", Phase::Ok)]);
            history.extend([update("t9", "TASK_DROPPED", true), outage("a1", true)]);
        });
        refuses(lost_launches, "t9 was launched and dropped", |history, _| {
            history.extend([launch("t9", Phase::Invoked), launch("t9", Phase::Ok)]);
            let (fault, target) = (PAUSE.into(), "a1".into());
            history.push(entry("nemesis", Event::Nemesis { fault, target, begins: true, bit: None }));
            history.push(update("t9", "TASK_LOST", true));
        });
    }

    #[test]
    fn a_drop_is_excused_by_an_absence_that_was_too_long() {
        let (mut history, truth) = good();
        let (fault, target) = (AWAY.to_owned(), "a1".to_owned());
        history.extend([launch("t9", Phase::Invoked), launch("t9", Phase::Ok)]);
        history.push(entry("nemesis", Event::Nemesis { fault, target, begins: true, bit: None }));
        history.extend([update("t9", "TASK_UNREACHABLE", true), update("t9", "TASK_DROPPED", true)]);
        assert_eq!(lost_launches(&history, &truth), Vec::<String>::new());
    }

    #[test]
    fn a_task_is_gone_only_with_its_own_agent() {
        let of = |target: &str| {
            let (mut history, mut truth) = good();
            let (fault, target) = (GONE.to_owned(), target.to_owned());
            for task in ["t8", "t9"] {
                history.extend([launch(task, Phase::Invoked), launch(task, Phase::Ok)]);
            }
            history.push(entry("nemesis", Event::Nemesis { fault, target, begins: true, bit: None }));
            history.extend(["t8", "t9"].map(|task| update(task, GONE_BY_OPERATOR, true)));
            truth.marks.get_mut("a1").unwrap().push(mark("t8", true));
            [lost_launches(&history, &truth).len(), ended_otherwise(&history, &truth).len()]
        };
        assert_eq!([of("a1"), of("a2")], [[0, 0], [1, 1]]);
        // Without an operator's word.
        refuses(ended_otherwise, "t1 ran and came to TASK_GONE_BY_OPERATOR", |history, _| {
            history.push(update("t1", GONE_BY_OPERATOR, true));
        });
    }

    #[test]
    fn an_end_that_is_not_the_tasks_own_is_seen() {
        for state in ["TASK_LOST", "TASK_DROPPED", "TASK_GONE", "TASK_FAILED"] {
            refuses(ended_otherwise, &format!("t1 ran and came to {state}"), |history, _| {
                history.push(update("t1", state, true));
            });
        }
        // Nobody asked for it.
        refuses(ended_otherwise, "t1 ran and came to TASK_KILLED", |history, _| {
            history.push(update("t1", "TASK_KILLED", true));
        });
        refuses(ended_otherwise, "t1 finished without its last line", |_, truth| {
            truth.marks.get_mut("a1").unwrap().retain(|mark| mark.starts || mark.task != "t1");
        });
        refuses(lost_launches, "t9 came to TASK_FAILED without", |history, _| {
            history.extend([launch("t9", Phase::Ok), update("t9", "TASK_FAILED", true)]);
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
