//! A run on one page, which needs nothing but itself.

use super::{text, timeline};
use crate::history::{Entry, Event};
use crate::recording::Recording;
use std::fmt::Write;

/// Wrong things, faults and entries that are listed.
const WRONG_MAX: usize = 50;
const FAULTS_MAX: usize = 1_000;
const TAIL_MAX: usize = 40;

const STYLE: &str = include_str!("report.css");

/// The page.
pub(super) fn render(title: &str, recording: &Recording) -> String {
    let history = &recording.history;
    let found = recording.smallest.as_ref();
    let bad = found.map(|found| found.entries).filter(|entries| *entries > 0).map(|entries| entries - 1);
    let bad_at = bad.and_then(|bad| history.get(bad)).map(|entry| entry.at_us);
    let (class, word) = if recording.is_good() { ("good", "kept") } else { ("broken", "BROKEN") };
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n\
         <p class=\"verdict {class}\">Promises: {word}</p>\n<p>{}</p>\n",
        escape(text::counts(recording).trim()),
        title = escape(title),
    );
    // A string takes whatever is written to it.
    let _ = writeln!(page, "<h2>Time</h2>\n{}", timeline::draw(history, bad_at));
    promises(&mut page, recording);
    if let Some(found) = found {
        let words = escape(&text::smallest(history, found));
        let _ = writeln!(page, "<h2>Smallest bad prefix</h2>\n<pre>{words}</pre>");
        if let Some(bad) = bad {
            tail(&mut page, history, bad);
        }
    }
    faults(&mut page, history);
    page.push_str("</body></html>\n");
    page
}

/// Text as it may stand anywhere in the page, between tags and in quotes.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() && c != '\n' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

fn promises(page: &mut String, recording: &Recording) {
    page.push_str("<h2>Promises</h2>\n<table><tr><th>promise</th><th></th><th>what is wrong</th></tr>\n");
    for (promise, wrong) in &recording.verdict {
        let (class, word) = if wrong.is_empty() { ("good", "kept") } else { ("broken", "BROKEN") };
        let mut listed: Vec<_> = wrong.iter().take(WRONG_MAX).map(|one| escape(one)).collect();
        if wrong.len() > WRONG_MAX {
            listed.push(format!("and {} more", wrong.len() - WRONG_MAX));
        }
        let (promise, listed) = (escape(promise), listed.join("<br>"));
        let _ =
            writeln!(page, "<tr><td>{promise}</td><td class=\"{class}\">{word}</td><td>{listed}</td></tr>");
    }
    page.push_str("</table>\n");
}

fn faults(page: &mut String, history: &[Entry]) {
    page.push_str("<h2>Faults</h2>\n<table>");
    page.push_str("<tr><th>at</th><th>fault</th><th>of</th><th>what shows it</th></tr>\n");
    let ends = history.iter().filter_map(|entry| match &entry.event {
        Event::Nemesis { fault, target, begins: false, bit } => Some((entry.at_us, fault, target, bit)),
        _ => None,
    });
    for (at, fault, target, bit) in ends.take(FAULTS_MAX) {
        let bit = escape(bit.as_deref().unwrap_or("nothing"));
        let (at, fault, target) = (timeline::seconds(at), escape(fault), escape(target));
        let _ = writeln!(page, "<tr><td>{at}</td><td>{fault}</td><td>{target}</td><td>{bit}</td></tr>");
    }
    page.push_str("</table>\n");
}

/// What led up to the entry where it goes bad. Samples are many and say little.
fn tail(page: &mut String, history: &[Entry], bad: usize) {
    let said = history.iter().enumerate().take(bad + 1);
    let is_sample = |entry: &Entry| matches!(entry.event, Event::Agents { .. } | Event::Logs { .. });
    let mut said: Vec<_> = said.rev().filter(|(i, entry)| *i == bad || !is_sample(entry)).collect();
    said.truncate(TAIL_MAX);
    page.push_str("<table><tr><th>entry</th><th>at</th><th>who</th><th>what</th></tr>\n");
    for (i, entry) in said.into_iter().rev() {
        let event = escape(&serde_json::to_string(&entry.event).unwrap_or_default());
        let (at, who) = (timeline::seconds(entry.at_us), escape(&entry.process));
        let _ =
            writeln!(page, "<tr><td>{i}</td><td>{at}</td><td>{who}</td><td><code>{event}</code></td></tr>");
    }
    page.push_str("</table>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::samples::{entry, good, update};

    #[test]
    fn nothing_that_was_recorded_becomes_markup() {
        let (mut history, mut truth) = good();
        let evil = "<script>alert(1)</script>\"'&";
        let fault = |begins| Event::Nemesis {
            fault: evil.into(),
            target: evil.into(),
            begins,
            bit: (!begins).then(|| evil.to_owned()),
        };
        history.push(entry(evil, Event::Leads { leader: evil.into(), term: 2 }));
        history.extend([entry(evil, fault(true)), entry(evil, fault(false))]);
        history.push(entry(evil, Event::Disconnected));
        history.push(update(evil, evil, true));
        history.push(update("t1", "TASK_RUNNING", true));
        history.push(entry(evil, Event::Error { message: evil.into() }));
        truth.error_lines.push(evil.into());
        let recording = Recording::complete(history, truth);
        let page = render(evil, &recording);
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;"));
        assert!(page.contains("BROKEN") && page.contains("Smallest bad prefix"));
    }

    #[test]
    fn the_page_needs_nothing_but_itself() {
        let (history, truth) = good();
        let page = render("a run", &Recording::complete(history, truth));
        for outside in ["http:", "https:", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("m1 led in term 1") && page.contains("kill of m1") && !page.contains("BROKEN"));
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }

    #[test]
    fn an_empty_history_has_a_page_too() {
        let truth = crate::model::Truth { broken_off: Some("no leader".into()), ..Default::default() };
        let page = render("broke off", &Recording::complete(Vec::new(), truth));
        assert!(page.contains("no leader") && !page.contains("NaN"), "{page}");
    }
}
