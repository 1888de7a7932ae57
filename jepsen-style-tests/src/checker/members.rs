//! Members: replicas, agents, logs, and whether anything was tested at all.

use super::disks::Excuses;
use crate::history::{Entry, Event};
use crate::model::Truth;
use crate::nemesis::GONE;
use std::collections::{BTreeMap, BTreeSet};

/// All replicas have the same state hash at the same index.
pub fn replicas_equal(_: &[Entry], truth: &Truth) -> Vec<String> {
    let states: BTreeSet<_> = truth.replicas.iter().map(|(_, applied, hash)| (applied, hash)).collect();
    if states.len() == 1 { Vec::new() } else { vec![format!("{:x?}", truth.replicas)] }
}

/// Nothing runs any more by the registry's word.
pub fn tasks_left(_: &[Entry], truth: &Truth) -> Vec<String> {
    let left = truth.tasks.iter().filter(|task| !task.ended);
    left.map(|task| format!("{} of {} is still there", task.task, task.framework_id)).collect()
}

/// An agent keeps its id, whoever leads; another one takes its place when an operator said that it never comes back, once
/// for each time.
pub fn agent_ids(history: &[Entry], _: &Truth) -> Vec<String> {
    let mut ids: BTreeMap<&str, &str> = BTreeMap::new();
    let mut gone: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for entry in history {
        match &entry.event {
            Event::Nemesis { fault, target, begins: true, .. } if fault == GONE => {
                target.split(',').for_each(|agent| *gone.entry(agent).or_default() += 1);
            }
            Event::AgentId { agent, agent_id } => {
                let former = ids.insert(agent, agent_id).filter(|former| former != agent_id);
                match (former, gone.get_mut(&**agent)) {
                    (None, _) => {}
                    (Some(_), Some(left @ 1..)) => *left -= 1,
                    (Some(former), _) => wrong.push(format!("{agent} was {former} and became {agent_id}")),
                }
            }
            _ => {}
        }
    }
    wrong
}

/// No two masters ever led in one term: as they said when they were asked, or wrote down when they began, which nobody may
/// have been in time to ask about.
pub fn two_leaders(history: &[Entry], truth: &Truth) -> Vec<String> {
    let mut leaders: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for entry in history {
        if let Event::Leads { leader, term } = &entry.event {
            leaders.entry(*term).or_default().insert(leader);
        }
    }
    for (leader, term) in &truth.led {
        leaders.entry(*term).or_default().insert(leader);
    }
    let wrong = leaders.into_iter().filter(|(_, leaders)| leaders.len() > 1);
    wrong
        .map(|(term, leaders)| {
            format!("{} led in term {term}", leaders.into_iter().collect::<Vec<_>>().join(" and "))
        })
        .collect()
}

/// No log tells of an error, and no process was left. Only a member whose disk was at fault may have named that.
pub fn logs_and_leftovers(history: &[Entry], truth: &Truth) -> Vec<String> {
    let mut excuses = Excuses::of(history);
    let errors = truth.error_lines.iter().filter(|line| !excuses.take(line)).cloned();
    let errors: Vec<_> = errors.collect();
    errors.into_iter().chain(truth.left.iter().map(|command| format!("left over: {command}"))).collect()
}

/// Faults were done, each ended, and each says what shows that it bit.
pub fn nemeses_bit(history: &[Entry], _: &Truth) -> Vec<String> {
    let (mut begun, mut done) = (0, 0);
    let mut wrong = Vec::new();
    for entry in history {
        let Event::Nemesis { fault, target, begins, bit } = &entry.event else { continue };
        match (begins, bit) {
            (true, _) => begun += 1,
            (false, Some(_)) => done += 1,
            (false, None) => wrong.push(format!("{fault} of {target} did nothing, as far as is known")),
        }
    }
    if begun == 0 {
        wrong.push("there was no fault at all".into());
    } else if begun != done {
        wrong.push(format!("{begun} faults began, {done} bit"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::samples::{entry, known, refuses};

    #[test]
    fn replicas_that_differ_are_seen() {
        refuses(replicas_equal, "m2", |_, truth| truth.replicas[1].2 = 8);
        refuses(replicas_equal, "m2", |_, truth| truth.replicas[1].1 = 8);
        refuses(replicas_equal, "[]", |_, truth| truth.replicas.clear());
    }

    #[test]
    fn a_task_that_is_left_is_seen() {
        refuses(tasks_left, "t9", |_, truth| truth.tasks.push(known("t9", false)));
    }

    #[test]
    fn an_agent_with_a_new_id_is_seen() {
        refuses(agent_ids, "a1 was x-S1 and became x-S2", |history, _| {
            history.push(entry("sampler", Event::AgentId { agent: "a1".into(), agent_id: "x-S2".into() }));
        });
        // One for each that was marked gone.
        refuses(agent_ids, "a1 was x-S2 and became x-S3", |history, _| {
            let (fault, target) = (GONE.to_owned(), "a1".to_owned());
            history.push(entry("nemesis", Event::Nemesis { fault, target, begins: true, bit: None }));
            for agent_id in ["x-S2", "x-S3"] {
                let (agent, agent_id) = ("a1".to_owned(), agent_id.to_owned());
                history.push(entry("sampler", Event::AgentId { agent, agent_id }));
            }
        });
        refuses(agent_ids, "a1 was x-S1 and became x-S2", |history, _| {
            let (fault, target) = (GONE.to_owned(), "a2".to_owned());
            history.push(entry("nemesis", Event::Nemesis { fault, target, begins: true, bit: None }));
            history.push(entry("sampler", Event::AgentId { agent: "a1".into(), agent_id: "x-S2".into() }));
        });
    }

    #[test]
    fn a_second_leader_in_a_term_is_seen() {
        refuses(two_leaders, "m1 and m2 led in term 1", |history, _| {
            history.push(entry("sampler", Event::Leads { leader: "m2".into(), term: 1 }));
        });
        // Nobody asked the one or the other.
        refuses(two_leaders, "m1 and m2 led in term 1", |_, truth| truth.led.push(("m2".into(), 1)));
        refuses(two_leaders, "m2 and m3 led in term 9", |_, truth| {
            truth.led.extend([("m3".into(), 9), ("m2".into(), 9), ("m1".into(), 8)]);
        });
    }

    #[test]
    fn an_error_line_or_a_process_left_over_is_seen() {
        refuses(logs_and_leftovers, "ERROR", |_, truth| truth.error_lines.push("m1: ERROR x".into()));
        refuses(logs_and_leftovers, "sleep", |_, truth| truth.left.push("sleep 9".into()));
    }

    #[test]
    fn a_fault_that_did_nothing_is_seen() {
        let nemesis = |begins, bit| {
            entry("nemesis", Event::Nemesis { fault: "kill".into(), target: "m1".into(), begins, bit })
        };
        refuses(nemeses_bit, "did nothing", |history, _| history.push(nemesis(false, None)));
        refuses(nemeses_bit, "2 faults began, 1 bit", |history, _| history.push(nemesis(true, None)));
        refuses(nemeses_bit, "no fault at all", |history, _| {
            history.retain(|entry| !matches!(entry.event, Event::Nemesis { .. }));
        });
    }
}
