//! Operators' calls: done once, for all to see, or not at all.

use super::logs::{committed, longest};
use crate::history::{Entry, Event, Phase};
use crate::model::Truth;
use serde_json::Value;
use std::collections::BTreeMap;

/// What became of a call, or of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Became {
    Done,
    /// Refused, for it was done before.
    Already,
    /// Nobody told.
    Unknown,
    SeenThere,
    SeenGone,
}

/// From its call to its answer, by places in the history.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: usize,
    to: usize,
    became: Became,
}

/// The calls and looks at each framework; what was refused outright, or not answered by a look, is left out.
fn spans(history: &[Entry]) -> BTreeMap<&str, Vec<Span>> {
    let mut open: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut spans: BTreeMap<&str, Vec<Span>> = BTreeMap::new();
    for (at, entry) in history.iter().enumerate() {
        let (target, phase, became) = match &entry.event {
            Event::Operate { phase: Phase::Ok, target, .. } => (target, Phase::Ok, Some(Became::Done)),
            Event::Operate { phase: Phase::Refused, target, already, .. } => {
                (target, Phase::Refused, already.then_some(Became::Already))
            }
            Event::Operate { phase, target, .. } => (target, *phase, Some(Became::Unknown)),
            Event::Look { phase, target, there, .. } => {
                let seen = |there| if there { Became::SeenThere } else { Became::SeenGone };
                (target, *phase, there.map(seen))
            }
            _ => continue,
        };
        let own = spans.entry(target).or_default();
        if phase == Phase::Invoked {
            open.insert((&entry.process, target), at);
            // A call is unknown until it is heard of.
            own.extend(became.map(|became| Span { from: at, to: usize::MAX, became }));
            continue;
        }
        let Some(from) = open.remove(&(&*entry.process, &**target)) else { continue };
        if phase == Phase::Unknown {
            continue;
        }
        own.retain(|span| span.from != from);
        own.extend(became.map(|became| Span { from, to: at, became }));
    }
    spans
}

/// A framework that operators tear down is there for every current read before the first of their calls, and for none
/// after the first answer that says that it is done; it is done once, by a call whose outcome is told as done or is not
/// known, and so says the log. What was refused took no effect.
pub fn operators_obeyed(history: &[Entry], truth: &Truth) -> Vec<String> {
    let log = longest(truth);
    let is_whole = log.first().is_some_and(|first| first.index <= 1);
    let mut wrong = Vec::new();
    for (target, spans) in spans(history) {
        let all = |wanted: &[Became]| {
            let wanted = wanted.to_vec();
            spans.iter().filter(move |span| wanted.contains(&span.became))
        };
        let who = |span: &Span| history.get(span.to).map_or("", |entry| &entry.process);
        let done: Vec<&Span> = all(&[Became::Done]).collect();
        if done.len() > 1 {
            wrong.push(format!("{} calls were told that they had {target} torn down", done.len()));
        }
        let effects: Vec<&Span> = all(&[Became::Done, Became::Unknown]).collect();
        for span in all(&[Became::Already, Became::SeenGone]) {
            if !effects.iter().any(|effect| effect.from < span.to) {
                wrong.push(format!(
                    "{} was told that {target} is gone (entry {}), and no call can have done it",
                    who(span),
                    span.to
                ));
            }
        }
        let known = all(&[Became::Done, Became::Already, Became::SeenGone]).map(|span| span.to).min();
        let Some(known) = known else { continue };
        for span in all(&[Became::Done, Became::SeenThere]).filter(|span| span.from > known) {
            wrong.push(format!(
                "{}: {target} is there by an answer (entry {}) to what was asked after it was known to be gone (entry \
                 {known})",
                who(span),
                span.to
            ));
        }
        if !is_whole {
            continue;
        }
        let commands = committed(log).flat_map(|entry| entry.decided());
        let own = commands.filter(|(command, _)| {
            command.pointer("/Teardown/framework_id").and_then(Value::as_str) == Some(target)
        });
        let outcomes: Vec<&Value> = own.map(|(_, outcome)| outcome).collect();
        let times = outcomes.iter().filter(|outcome| **outcome == "Done").count();
        if times != 1 {
            wrong.push(format!(
                "{target} was torn down by its operators' word, and {times} times by the log's"
            ));
        }
        let asked = all(&[Became::Done, Became::Already, Became::Unknown]).count();
        let removed = |outcome: &&&Value| outcome.pointer("/Refused/FrameworkRemoved").is_some();
        let decided = times + outcomes.iter().filter(removed).count();
        if decided > asked {
            wrong.push(format!("{asked} calls to tear {target} down may be in the log, and {decided} are"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::samples::{entry, good, logged, refuses};
    use muster_testkit::LogEntry;
    use serde_json::json;

    const ID: &str = "x-0007";

    fn call(process: &str, phase: Phase, already: bool) -> Entry {
        let (call, framework, target) = ("teardown".into(), "o1".into(), ID.into());
        entry(process, Event::Operate { phase, call, framework, target, already })
    }

    fn calls(process: &str, phase: Phase, already: bool) -> [Entry; 2] {
        [call(process, Phase::Invoked, false), call(process, phase, already)]
    }

    fn looks(process: &str, there: bool) -> [Entry; 2] {
        let look = |phase, there| entry(process, Event::Look { phase, target: ID.into(), there });
        [look(Phase::Invoked, None), look(Phase::Ok, Some(there))]
    }

    fn logs(truth: &mut Truth, outcomes: &[Value]) {
        for log in truth.logs.values_mut() {
            for outcome in outcomes {
                log.push(LogEntry {
                    index: log.len() as u64,
                    commands: vec![json!({"Teardown": {"framework_id": ID}})],
                    outcomes: vec![outcome.clone()],
                    ..logged()[2].clone()
                });
            }
        }
    }

    fn removed() -> Value {
        json!({"Refused": {"FrameworkRemoved": ID}})
    }

    #[test]
    fn calls_that_are_refused_unknown_or_done_before_are_good() {
        let (mut history, mut truth) = good();
        history.extend(looks("r", true));
        history.extend(calls("w0", Phase::Refused, false));
        history.extend(calls("w0", Phase::Unknown, false));
        history.extend(looks("r", true));
        history.extend(looks("r", false));
        history.extend(calls("w1", Phase::Refused, true));
        logs(&mut truth, &[json!("Done"), removed()]);
        assert_eq!(operators_obeyed(&history, &truth), Vec::<String>::new());
    }

    #[test]
    fn a_framework_that_is_there_after_it_was_torn_down_is_seen() {
        refuses(operators_obeyed, "r: x-0007 is there by an answer", |history, truth| {
            history.extend(calls("w0", Phase::Ok, false));
            history.extend(looks("r", true));
            logs(truth, &[json!("Done")]);
        });
        // By a replica that is behind, after another one was up to date.
        refuses(operators_obeyed, "r2: x-0007 is there by an answer", |history, truth| {
            history.push(call("w0", Phase::Invoked, false));
            history.extend(looks("r1", false));
            history.extend(looks("r2", true));
            logs(truth, &[json!("Done")]);
        });
    }

    #[test]
    fn a_call_that_is_done_twice_or_is_not_in_the_log_is_seen() {
        refuses(operators_obeyed, "2 calls were told that they had x-0007 torn down", |history, truth| {
            history.extend(calls("w0", Phase::Ok, false));
            history.extend(calls("w1", Phase::Ok, false));
            logs(truth, &[json!("Done"), json!("Done")]);
        });
        refuses(operators_obeyed, "by its operators' word, and 0 times by the log's", |history, _| {
            history.extend(calls("w0", Phase::Ok, false));
        });
        refuses(
            operators_obeyed,
            "1 calls to tear x-0007 down may be in the log, and 2 are",
            |history, truth| {
                history.extend(calls("w0", Phase::Ok, false));
                logs(truth, &[json!("Done"), removed()]);
            },
        );
    }

    #[test]
    fn a_call_that_was_refused_and_took_effect_is_seen() {
        refuses(operators_obeyed, "no call can have done it", |history, truth| {
            history.extend(calls("w0", Phase::Refused, false));
            history.extend(looks("r", false));
            logs(truth, &[json!("Done")]);
        });
        // It cannot have been removed before by the call that was told so.
        refuses(operators_obeyed, "no call can have done it", |history, truth| {
            history.extend(calls("w0", Phase::Refused, true));
            logs(truth, &[json!("Done"), removed()]);
        });
    }
}
