//! Answers to questions (RECONCILE): each comes, and none contradicts what the framework knows for certain.

use super::faults::ended_frameworks;
use crate::history::{Entry, Event, Phase};
use crate::model::Truth;
use std::collections::{BTreeMap, BTreeSet};

/// What an answer's reason begins with. An answer waits for no acknowledgement.
const ANSWER: &str = "REASON_RECONCILIATION";
/// What is answered of a task that the registry does not have.
const UNKNOWN: &str = "TASK_UNKNOWN";

/// What a framework knows of a task.
#[derive(Debug, Default)]
struct Known<'a> {
    is_launched: bool,
    is_refused: bool,
    /// By an update that waits for an acknowledgement.
    end: Option<&'a str>,
    /// By an answer, which may come before the update.
    answered_end: Option<&'a str>,
}

impl<'a> Known<'a> {
    /// What is wrong with an answer.
    fn contradicted(&mut self, state: &'a str, terminal: bool) -> Option<String> {
        let before = self.end.or(self.answered_end);
        match before {
            _ if state == UNKNOWN => {
                // Its end may be forgotten once that is acknowledged.
                let known = self.is_launched && self.end.is_none();
                return known.then(|| "was launched, its end was not told, and it is not known".into());
            }
            _ if self.is_refused => return Some(format!("was refused, and is {state}")),
            Some(end) if end != state => return Some(format!("ended as {end}, and is {state}")),
            _ => {}
        }
        self.is_launched = true;
        if terminal {
            self.answered_end = Some(state);
        }
        None
    }
}

/// What is answered of a task agrees with what its framework was told before and is told later: a task that was
/// acknowledged as launched is known until its end is told, one that ended does not run, one that was refused is not
/// there, and there is one end.
pub fn answers_agree(history: &[Entry], _: &Truth) -> Vec<String> {
    let mut tasks: BTreeMap<&str, Known> = BTreeMap::new();
    let mut wrong = Vec::new();
    for entry in history {
        let (task, what) = match &entry.event {
            Event::Launch { phase: Phase::Ok, task, .. } => {
                tasks.entry(task).or_default().is_launched = true;
                continue;
            }
            Event::Launch { phase: Phase::Refused, task, .. } => {
                tasks.entry(task).or_default().is_refused = true;
                continue;
            }
            Event::Update { task, state, terminal, durable: true, .. } => {
                let known = tasks.entry(task).or_default();
                known.is_launched = true;
                if !terminal {
                    continue;
                }
                known.end = Some(state);
                let differs = known.answered_end.filter(|answered| answered != state);
                (task, differs.map(|answered| format!("is answered to be {answered}, and came to {state}")))
            }
            Event::Update { task, state, terminal, durable: false, reason, .. }
                if reason.starts_with(ANSWER) =>
            {
                (task, tasks.entry(task).or_default().contradicted(state, *terminal))
            }
            _ => continue,
        };
        wrong.extend(what.map(|what| format!("{task} {what}, at {} us", entry.at_us)));
    }
    wrong
}

/// Each question is answered: each task that was named, and where none was each that the framework knew as launched, is
/// told of, or its end. A scheduler that another one took over from waits for nothing more.
pub fn questions_answered(history: &[Entry], _: &Truth) -> Vec<String> {
    let ended = ended_frameworks(history);
    let mut live: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut over: BTreeSet<&str> = BTreeSet::new();
    let mut open: BTreeMap<&str, Vec<(u64, BTreeSet<&str>)>> = BTreeMap::new();
    for entry in history {
        let process = &*entry.process;
        let told = match &entry.event {
            Event::Registered { .. } => {
                open.remove(process);
                continue;
            }
            Event::Asks { tasks } => {
                let named: BTreeSet<&str> = tasks.iter().map(|task| &**task).collect();
                let all = || live.get(process).cloned().unwrap_or_default();
                let asked = if named.is_empty() { all() } else { named };
                if !asked.is_empty() {
                    open.entry(process).or_default().push((entry.at_us, asked));
                }
                continue;
            }
            Event::Launch { phase: Phase::Ok, task, .. } => {
                // Its end may be the first that was heard of it.
                if !over.contains(&**task) {
                    live.entry(process).or_default().insert(task);
                }
                continue;
            }
            Event::Update { task, terminal: true, durable: true, .. } => {
                over.insert(&**task);
                live.entry(process).or_default().remove(&**task);
                task
            }
            Event::Update { task, durable: false, reason, .. } if reason.starts_with(ANSWER) => task,
            _ => continue,
        };
        let questions = open.entry(process).or_default();
        questions.iter_mut().for_each(|(_, left)| _ = left.remove(&**told));
        questions.retain(|(_, left)| !left.is_empty());
    }
    open.retain(|process, _| !ended.contains(process));
    let unanswered = open.into_iter().flat_map(|(process, questions)| {
        questions
            .into_iter()
            .map(move |(at, left)| format!("{process} asked at {at} us, and was never told of {left:?}"))
    });
    unanswered.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::samples::{entry, good, launch, refuses, registered, update};

    fn answer(task: &str, state: &str) -> Entry {
        let mut answer = update(task, state, false);
        if let Event::Update { reason, terminal, .. } = &mut answer.event {
            *reason = format!("{ANSWER} Reconciliation: Latest task state");
            *terminal &= state != UNKNOWN;
        }
        answer
    }

    fn asks(tasks: &[&str]) -> Entry {
        entry("f1", Event::Asks { tasks: tasks.iter().map(|task| (*task).to_owned()).collect() })
    }

    fn launched(task: &str) -> [Entry; 2] {
        [launch(task, Phase::Invoked), launch(task, Phase::Ok)]
    }

    #[test]
    fn an_answer_that_contradicts_what_was_told_is_seen() {
        refuses(answers_agree, "t1 ended as TASK_FINISHED, and is TASK_RUNNING", |history, _| {
            history.push(answer("t1", "TASK_RUNNING"));
        });
        refuses(answers_agree, "t1 ended as TASK_FINISHED, and is TASK_LOST", |history, _| {
            history.push(answer("t1", "TASK_LOST"));
        });
        refuses(answers_agree, "t3 was refused, and is TASK_STAGING", |history, _| {
            history.push(answer("t3", "TASK_STAGING"));
        });
        refuses(answers_agree, "t9 was launched, its end was not told, and it is not known", |history, _| {
            history.extend(launched("t9"));
            history.push(answer("t9", UNKNOWN));
        });
        // Known by an answer alone.
        refuses(answers_agree, "t9 was launched, its end was not told", |history, _| {
            history.extend([
                launch("t9", Phase::Invoked),
                answer("t9", "TASK_STAGING"),
                answer("t9", UNKNOWN),
            ]);
        });
        refuses(answers_agree, "t9 is answered to be TASK_KILLED, and came to TASK_LOST", |history, _| {
            history.extend(launched("t9"));
            history.extend([answer("t9", "TASK_KILLED"), update("t9", "TASK_LOST", true)]);
        });
        refuses(answers_agree, "t9 ended as TASK_KILLED, and is TASK_RUNNING", |history, _| {
            history.extend(launched("t9"));
            history.extend([answer("t9", "TASK_KILLED"), answer("t9", "TASK_RUNNING")]);
        });
    }

    #[test]
    fn an_answer_may_be_ahead_of_the_updates_and_forget_what_is_over() {
        let (mut history, truth) = good();
        history.extend([answer("t1", UNKNOWN), answer("t2", "TASK_KILLED"), answer("t3", UNKNOWN)]);
        history.extend(launched("t9"));
        history.extend([answer("t9", "TASK_FINISHED"), update("t9", "TASK_RUNNING", true)]);
        history.extend([update("t9", "TASK_FINISHED", true), answer("t9", UNKNOWN)]);
        assert_eq!(answers_agree(&history, &truth), Vec::<String>::new());
    }

    #[test]
    fn a_question_that_is_not_answered_is_seen() {
        refuses(questions_answered, r#"f1 asked at 0 us, and was never told of {"t1"}"#, |history, _| {
            history.push(asks(&["t1"]));
        });
        // About all: those that are known then.
        refuses(questions_answered, r#"told of {"t8"}"#, |history, _| {
            history.extend(launched("t8"));
            history.extend(launched("t9"));
            history.extend([asks(&[]), update("t9", "TASK_RUNNING", true), answer("t9", "TASK_RUNNING")]);
        });
        // By whom it may not be: an answer to another framework.
        refuses(questions_answered, r#"told of {"t1"}"#, |history, _| {
            history.push(asks(&["t1"]));
            history.push(Entry { process: "f2".into(), ..answer("t1", UNKNOWN) });
        });
    }

    #[test]
    fn an_end_answers_and_a_scheduler_that_is_gone_waits_for_nothing() {
        let (mut history, truth) = good();
        history.extend(launched("t9"));
        history.extend([asks(&[]), update("t9", "TASK_KILLED", true)]);
        history.extend([asks(&["t1"]), registered("f1")]);
        history.extend([asks(&["t1", "t3"]), answer("t3", UNKNOWN), answer("t1", UNKNOWN), asks(&[])]);
        assert_eq!(questions_answered(&history, &truth), Vec::<String>::new());
    }
}
