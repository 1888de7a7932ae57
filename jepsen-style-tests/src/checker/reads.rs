//! Whether reads that claim to be current are, by the checker of `todc-utils` (Wing and Gong's search with Lowe's memory).

use crate::history::{Entry, Event, Phase};
use crate::model::Truth;
use std::collections::{BTreeMap, BTreeSet};
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::register::{RegisterOperation, RegisterSpecification};

type Op = RegisterOperation<u64>;

/// One operation: when it was called, and when it was answered; never, if its outcome is unknown.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: usize,
    to: usize,
    op: Op,
}

/// The operations on the register. Those that were not done are left out, and so are reads without an answer.
fn spans(history: &[Entry]) -> Vec<Span> {
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    let mut spans = Vec::new();
    let mut unknown = Vec::new();
    for (at, entry) in history.iter().enumerate() {
        let (phase, op) = match &entry.event {
            Event::Write { phase, value } => (phase, RegisterOperation::Write(*value)),
            Event::Read { phase, value } => (phase, RegisterOperation::Read(*value)),
            _ => continue,
        };
        if *phase == Phase::Invoked {
            open.insert(&entry.process, at);
            // Until it is heard of.
            unknown.push((at, op));
            continue;
        }
        let Some(from) = open.remove(&*entry.process) else { continue };
        if *phase != Phase::Unknown {
            unknown.retain(|(begun, _)| *begun != from);
        }
        if *phase == Phase::Ok {
            spans.push(Span { from, to: at, op });
        }
    }
    // A write of which nothing is known and that nobody read may as well come after everything else.
    let read: BTreeSet<u64> = spans.iter().filter_map(|span| read_value(&span.op)).collect();
    for (from, op) in unknown {
        if matches!(op, RegisterOperation::Write(value) if read.contains(&value)) {
            spans.push(Span { from, to: usize::MAX, op });
        }
    }
    spans
}

fn read_value(op: &Op) -> Option<u64> {
    match op {
        RegisterOperation::Read(value) => *value,
        RegisterOperation::Write(_) => None,
    }
}

fn is_linearizable(spans: &[Span]) -> bool {
    if spans.is_empty() {
        return true;
    }
    let mut actions: Vec<(usize, usize, Action<Op>)> = Vec::new();
    for (process, span) in spans.iter().enumerate() {
        actions.push((span.from, process, Action::Call(span.op)));
        actions.push((span.to, process, Action::Response(span.op)));
    }
    actions.sort_by_key(|(at, ..)| *at);
    let actions = actions.into_iter().map(|(_, process, action)| (process, action)).collect();
    WGLChecker::<RegisterSpecification<u64>>::is_linearizable(History::from_actions(actions))
}

/// There is an order of all writes and reads, each somewhere between its call and its answer, in which every read gives
/// what was written last.
pub fn reads_current(history: &[Entry], _: &Truth) -> Vec<String> {
    let spans = spans(history);
    if is_linearizable(&spans) {
        return Vec::new();
    }
    // The first answer without which there would be an order: found by halving.
    let mut by_answer = spans;
    by_answer.sort_by_key(|span| span.to);
    let (mut good, mut bad) = (0, by_answer.len());
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        let answered = &by_answer[..middle];
        let (last, rest) = (answered.last().map_or(0, |span| span.to), &by_answer[middle..]);
        // What was called by then and not answered is there, its answer outstanding.
        let called = rest.iter().filter(|span| span.from < last && read_value(&span.op).is_none());
        let outstanding = called.map(|span| Span { to: usize::MAX, ..*span });
        let prefix: Vec<Span> = answered.iter().copied().chain(outstanding).collect();
        *(if is_linearizable(&prefix) { &mut good } else { &mut bad }) = middle;
    }
    let span = by_answer[bad - 1];
    let (who, what) = (history.get(span.to).map_or("", |entry| &entry.process), span.op);
    vec![format!(
        "{who}: {what:?}, called as entry {} and answered as entry {}, fits into no order",
        span.from, span.to
    )]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::samples::{entry, good, refuses};

    fn write(process: &str, phase: Phase, value: u64) -> Entry {
        entry(process, Event::Write { phase, value })
    }

    fn read(process: &str, phase: Phase, value: Option<u64>) -> Entry {
        entry(process, Event::Read { phase, value })
    }

    fn reads(process: &str, value: u64) -> [Entry; 2] {
        [read(process, Phase::Invoked, None), read(process, Phase::Ok, Some(value))]
    }

    fn writes(process: &str, phase: Phase, value: u64) -> [Entry; 2] {
        [write(process, Phase::Invoked, value), write(process, phase, value)]
    }

    #[test]
    fn a_read_of_what_was_overwritten_is_seen() {
        refuses(reads_current, "r: Read(Some(1)), called as entry", |history, _| {
            history.extend(writes("w", Phase::Ok, 1));
            history.extend(writes("w", Phase::Ok, 2));
            history.extend(reads("r", 1));
            history.extend(reads("r", 2));
        });
        // From a replica that is behind, after another one was up to date.
        refuses(reads_current, "r2: Read(Some(0))", |history, _| {
            history.push(write("w", Phase::Invoked, 1));
            history.extend(reads("r1", 1));
            history.extend(reads("r2", 0));
            history.push(write("w", Phase::Ok, 1));
        });
    }

    #[test]
    fn a_read_of_what_was_never_done_is_seen() {
        refuses(reads_current, "Read(Some(1))", |history, _| {
            history.extend(writes("w", Phase::Refused, 1));
            history.extend(reads("r", 1));
        });
        refuses(reads_current, "Read(Some(9))", |history, _| history.extend(reads("r", 9)));
    }

    #[test]
    fn what_is_unknown_may_be_done_at_any_time_or_never() {
        let (mut history, truth) = good();
        history.extend(writes("w", Phase::Unknown, 1));
        history.extend(reads("r", 0));
        history.extend(writes("w", Phase::Ok, 2));
        history.extend(reads("r", 2));
        history.extend(reads("r", 1));
        history.extend(writes("w", Phase::Unknown, 3));
        history.extend(reads("r", 1));
        history.push(read("r", Phase::Invoked, None));
        assert_eq!(reads_current(&history, &truth), Vec::<String>::new());
        // But not twice.
        history.extend(writes("w", Phase::Ok, 4));
        history.extend([read("s", Phase::Invoked, None), read("s", Phase::Ok, Some(1))]);
        assert_eq!(reads_current(&history, &truth).len(), 1);
    }
}
