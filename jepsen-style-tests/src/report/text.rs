//! A verdict in words.

use crate::history::{Entry, Event, Phase};
use crate::recording::Recording;
use crate::shrink::Smallest;
use std::fmt::Write;

/// Wrong things that are named, for each promise.
const NAMED_MAX: usize = 10;

/// What was done, what went wrong on purpose, and what each checker says.
pub fn render(recording: &Recording) -> String {
    let mut text = counts(recording);
    for entry in &recording.history {
        if let Event::Nemesis { fault, target, bit: Some(bit), .. } = &entry.event {
            // A string takes whatever is written to it.
            let _ = writeln!(text, "{:>9.3} s {fault} {target}: {bit}", entry.at_us as f64 / 1e6);
        }
    }
    for (promise, wrong) in &recording.verdict {
        let _ = writeln!(text, "{} {promise}", if wrong.is_empty() { "ok    " } else { "BROKEN" });
        for one in wrong.iter().take(NAMED_MAX) {
            let _ = writeln!(text, "         {one}");
        }
        if wrong.len() > NAMED_MAX {
            let _ = writeln!(text, "         and {} more", wrong.len() - NAMED_MAX);
        }
    }
    if let Some(found) = &recording.smallest {
        text.push_str(&smallest(&recording.history, found));
    }
    text
}

/// How much of what there was, in one line.
pub(super) fn counts(recording: &Recording) -> String {
    let count =
        |is: &dyn Fn(&Event) -> bool| recording.history.iter().filter(|entry| is(&entry.event)).count();
    let launches = |wanted| count(&|event| matches!(event, Event::Launch { phase, .. } if *phase == wanted));
    let starts = recording.truth.marks.values().flatten().filter(|mark| mark.starts).count();
    format!(
        "launches: {} asked for, {} done, {} refused, {} unknown; {starts} starts, {} kills, {} samples; {} updates to \
         acknowledge, {} offers used, {} calls answered as done, {} masters asked when deposed\n",
        launches(Phase::Invoked),
        launches(Phase::Ok),
        launches(Phase::Refused),
        launches(Phase::Unknown),
        count(&|event| matches!(event, Event::Kill { .. })),
        count(&|event| matches!(event, Event::Agents { .. })),
        count(&|event| matches!(event, Event::Update { uuid: Some(_), .. })),
        count(&|event| matches!(event, Event::Accepts { .. })),
        count(&|event| matches!(event, Event::Answered { .. })),
        count(&|event| matches!(event, Event::Probe { phase: Phase::Invoked, .. })),
    )
}

/// Where a history goes bad.
pub fn smallest(history: &[Entry], found: &Smallest) -> String {
    let Smallest { promise, complaint, entries } = found;
    let (all, head) =
        (history.len(), format!("checker: {promise}\nit says: {complaint}\nsmallest bad prefix:"));
    let Some(last) = entries.checked_sub(1).and_then(|last| history.get(last)) else {
        return format!("{head} none of {all} entries: the truth alone shows it\n");
    };
    let line = serde_json::to_string(last).unwrap_or_default();
    let at = last.at_us as f64 / 1e6;
    format!("{head} {entries} of {all} entries, to {at:.3} s; the last is\n{line}\n")
}
