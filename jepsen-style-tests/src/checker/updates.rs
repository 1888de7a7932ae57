//! Updates: every end is told, in order, and every launch has an outcome.

use super::faults::ended_frameworks;
use crate::history::{Entry, Event, Phase};
use crate::model::Truth;
use std::collections::{BTreeMap, BTreeSet};

/// The end of each task that the registry knows as ended, or that its framework knew as launched, was told; but for
/// those of frameworks that were torn down, to whom nobody can tell anything.
pub fn missing_terminals(history: &[Entry], truth: &Truth) -> Vec<String> {
    let expired = ended_frameworks(history);
    let gone: BTreeSet<&str> =
        truth.removed.iter().filter(|(_, name)| expired.contains(&**name)).map(|(id, _)| &**id).collect();
    let told_of = truth.tasks.iter().filter(|task| task.ended && !gone.contains(&*task.framework_id));
    let mut launched: BTreeSet<&str> = told_of.map(|task| &*task.task).collect();
    let mut told = BTreeSet::new();
    for entry in history {
        match &entry.event {
            Event::Launch { phase: Phase::Ok, task, .. } if !expired.contains(&*entry.process) => {
                launched.insert(task);
            }
            Event::Update { task, terminal: true, durable: true, .. } => {
                told.insert(&**task);
            }
            _ => {}
        }
    }
    launched.difference(&told).map(|task| format!("the end of {task} was never told")).collect()
}

fn rank(state: &str) -> Option<u8> {
    match state {
        "TASK_STAGING" => Some(0),
        "TASK_STARTING" => Some(1),
        "TASK_RUNNING" => Some(2),
        "TASK_KILLING" => Some(3),
        // An agent that was out of reach may come back with anything.
        "TASK_UNREACHABLE" | "TASK_UNKNOWN" => None,
        _ => Some(4),
    }
}

/// Durable updates of a task never go back, and its end is one end. The same one may come twice.
pub fn out_of_order(history: &[Entry], _: &Truth) -> Vec<String> {
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    let mut wrong = Vec::new();
    for entry in history {
        let Event::Update { task, state, durable: true, .. } = &entry.event else { continue };
        let before = last.insert(task, state);
        let (Some(before), Some(now)) = (before, rank(state)) else { continue };
        let back = rank(before).is_some_and(|was| was > now);
        let two_ends = now == 4 && rank(before) == Some(4) && before != state;
        if back || two_ends {
            wrong.push(format!("{task}: {state} after {before}, at {} us", entry.at_us));
        }
    }
    wrong
}

/// Each launch came to be done or refused, and none came to be both.
pub fn undecided(history: &[Entry], _: &Truth) -> Vec<String> {
    let mut open: BTreeMap<&str, Phase> = BTreeMap::new();
    let mut wrong = Vec::new();
    for entry in history {
        let Event::Launch { phase, task, .. } = &entry.event else { continue };
        let before = open.insert(task, *phase);
        let allowed = match phase {
            Phase::Invoked => before.is_none(),
            Phase::Ok | Phase::Refused | Phase::Unknown => before == Some(Phase::Invoked),
        };
        if !allowed {
            wrong.push(format!("{task} is {phase:?} after {before:?}"));
        }
    }
    let never = open.into_iter().filter(|(_, phase)| matches!(phase, Phase::Invoked | Phase::Unknown));
    wrong.extend(never.map(|(task, _)| format!("nobody ever said what became of {task}")));
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::samples::{known, launch, refuses, update};

    #[test]
    fn an_end_that_was_not_told_is_seen() {
        refuses(missing_terminals, "t2", |history, _| {
            history.pop();
        });
        // The registry knows of a task that its framework never heard of.
        refuses(missing_terminals, "t9", |_, truth| truth.tasks.push(known("t9", true)));
        // A word of the driver is no update.
        refuses(missing_terminals, "t9", |history, _| {
            history.extend([launch("t9", Phase::Ok), update("t9", "TASK_FINISHED", false)]);
        });
    }

    #[test]
    fn an_update_that_goes_back_is_seen() {
        refuses(out_of_order, "t1: TASK_RUNNING after TASK_FINISHED", |history, _| {
            history.push(update("t1", "TASK_RUNNING", true));
        });
        refuses(out_of_order, "t1: TASK_LOST after TASK_FINISHED", |history, _| {
            history.push(update("t1", "TASK_LOST", true));
        });
    }

    #[test]
    fn a_launch_without_or_with_two_outcomes_is_seen() {
        refuses(undecided, "became of t9", |history, _| history.push(launch("t9", Phase::Invoked)));
        refuses(undecided, "became of t9", |history, _| {
            history.extend([launch("t9", Phase::Invoked), launch("t9", Phase::Unknown)]);
        });
        refuses(undecided, "t3 is Ok after", |history, _| history.push(launch("t3", Phase::Ok)));
    }
}
