//! Resources: never more in use than there is.

use crate::history::{Amounts, Entry, Event, Phase, Usage};
use crate::model::Truth;
use std::collections::{BTreeMap, BTreeSet};

/// No sample shows an agent with more used than it has.
pub fn overcommitted_by_samples(history: &[Entry], _: &Truth) -> Vec<String> {
    let mut wrong = Vec::new();
    for entry in history {
        let Event::Agents { agents } = &entry.event else { continue };
        for (agent, usage) in agents {
            if !usage.over().is_empty() {
                wrong.push(format!("{agent} at {} us: {usage:?}", entry.at_us));
            }
        }
    }
    wrong
}

/// What tasks between their first and their last line need together is no more than the agent has. A task
/// without a last line is left out: when it ended is not known.
pub fn overcommitted_by_marks(history: &[Entry], truth: &Truth) -> Vec<String> {
    let needs: BTreeMap<&str, &Amounts> = history
        .iter()
        .filter_map(|entry| match &entry.event {
            Event::Launch { phase: Phase::Invoked, task, needs, .. } => Some((&**task, needs)),
            _ => None,
        })
        .collect();
    let mut wrong = Vec::new();
    for (agent, marks) in &truth.marks {
        let ended: BTreeSet<_> = marks.iter().filter(|mark| !mark.starts).map(|mark| &mark.task).collect();
        let mut usage =
            Usage { total: truth.totals.get(agent).cloned().unwrap_or_default(), ..Default::default() };
        for mark in marks.iter().filter(|mark| ended.contains(&mark.task)) {
            for (kind, amount) in needs.get(&*mark.task).copied().into_iter().flatten() {
                let used = usage.used.entry(kind.clone()).or_default();
                *used = if mark.starts { *used + amount } else { used.saturating_sub(*amount) };
            }
            if mark.starts && !usage.over().is_empty() {
                wrong.push(format!("{agent} when {} started: {usage:?}", mark.task));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::samples::{entry, mark, refuses};

    #[test]
    fn a_sample_with_too_much_in_use_is_seen() {
        refuses(overcommitted_by_samples, "a1", |history, _| {
            let total: Amounts = [("cpus".into(), 1000), ("mem".into(), 9)].into();
            let used: Amounts = [("cpus".into(), 1001)].into();
            history.push(entry(
                "sampler",
                Event::Agents { agents: [("a1".into(), Usage { total, used })].into() },
            ));
        });
        refuses(overcommitted_by_samples, "a1", |history, _| {
            let used: Amounts = [("gpus".into(), 1)].into();
            let usage = Usage { used, ..Default::default() };
            history.push(entry("sampler", Event::Agents { agents: [("a1".into(), usage)].into() }));
        });
    }

    #[test]
    fn tasks_that_overlap_beyond_the_total_are_seen() {
        refuses(overcommitted_by_marks, "when t2 started", |_, truth| {
            let marks = vec![mark("t1", true), mark("t2", true), mark("t1", false), mark("t2", false)];
            truth.marks.insert("a1".into(), marks);
        });
    }
}
