//! A run drawn over time: who led, what was broken, what frameworks did.

use super::html::escape;
use crate::history::{Entry, Event, Phase};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Where the drawing begins and how wide it is; the names stand left of it.
const LEFT: f64 = 110.0;
const WIDTH: f64 = 1080.0;
/// A row, and what is drawn in it.
const ROW: f64 = 26.0;
const BAR: f64 = 18.0;
/// Columns of what is counted.
const BINS: usize = 270;
/// Leaders, faults and breaks that are drawn; a drawing of more shows nothing.
const DRAWN_MAX: usize = 3_000;

/// The time line of a history as SVG. A mark stands where it goes bad.
pub(super) fn draw(history: &[Entry], bad_at_us: Option<u64>) -> String {
    let end_us = history.last().map_or(1, |entry| entry.at_us.max(1));
    let mut drawing = Drawing { svg: String::new(), end_us, y: 24.0 };
    drawing.leaders(history);
    drawing.faults(history);
    drawing.frameworks(history);
    drawing.axis();
    if let Some(at) = bad_at_us {
        drawing.line("bad", drawing.x(at), (10.0, drawing.y), "here it goes bad");
    }
    let (width, height) = (LEFT + WIDTH + 20.0, drawing.y + 24.0);
    format!(
        r#"<svg viewBox="0 0 {width} {height}" role="img" aria-label="what happened over time">{}</svg>"#,
        drawing.svg
    )
}

struct Drawing {
    svg: String,
    end_us: u64,
    /// Where the next row begins.
    y: f64,
}

impl Drawing {
    fn x(&self, at_us: u64) -> f64 {
        LEFT + WIDTH * at_us as f64 / self.end_us as f64
    }

    fn name(&mut self, name: &str) {
        let (x, y) = (LEFT - 8.0, self.y + BAR - 5.0);
        let name = escape(name);
        let _ = writeln!(self.svg, r#"<text class="name" x="{x}" y="{y:.1}">{name}</text>"#);
    }

    fn bar(&mut self, class: &str, from_us: u64, to_us: u64, label: &str, title: &str) {
        let (x, y) = (self.x(from_us), self.y);
        let width = (self.x(to_us) - x).max(1.5);
        self.rect(class, (x, y), (width, BAR), title);
        // Only where there is room for it.
        if width > 7.0 * label.chars().count() as f64 {
            let (x, y, label) = (x + 4.0, y + BAR - 5.0, escape(label));
            let _ = writeln!(self.svg, r#"<text class="label" x="{x:.1}" y="{y:.1}">{label}</text>"#);
        }
    }

    /// A rectangle in the present row that says what it stands for when pointed at.
    fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64), title: &str) {
        let (class, title) = (escape(class), escape(title));
        let place = format!(r#"x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}""#);
        let _ = writeln!(self.svg, r#"<rect class="{class}" {place}><title>{title}</title></rect>"#);
    }

    /// An upright line that does.
    fn line(&mut self, class: &str, x: f64, (from, to): (f64, f64), title: &str) {
        let (class, title) = (escape(class), escape(title));
        let place = format!(r#"x1="{x:.1}" y1="{from:.1}" x2="{x:.1}" y2="{to:.1}""#);
        let _ = writeln!(self.svg, r#"<line class="{class}" {place}><title>{title}</title></line>"#);
    }

    fn tick(&mut self, class: &str, at_us: u64, title: &str) {
        self.line(class, self.x(at_us), (self.y, self.y + BAR), title);
    }

    fn leaders(&mut self, history: &[Entry]) {
        let leads = history.iter().filter_map(|entry| match &entry.event {
            Event::Leads { leader, term } => Some((entry.at_us, leader, term)),
            _ => None,
        });
        let leads: Vec<_> = leads.take(DRAWN_MAX).collect();
        self.name("leader");
        for (i, (at, leader, term)) in leads.iter().enumerate() {
            let until = leads.get(i + 1).map_or(self.end_us, |(next, ..)| *next);
            let class = if i % 2 == 0 { "lead" } else { "lead other" };
            let title = format!("{leader} led in term {term}, seen at {}", seconds(*at));
            self.bar(class, *at, until, &format!("{leader} t{term}"), &title);
        }
        self.y += ROW;
    }

    fn faults(&mut self, history: &[Entry]) {
        let faults = faults(history);
        let targets: BTreeSet<&str> = faults.iter().flat_map(|fault| fault.target.split(',')).collect();
        for target in targets {
            self.name(target);
            for fault in faults.iter().filter(|fault| fault.target.split(',').any(|one| one == target)) {
                let title = format!(
                    "{} of {}, {} to {}: {}",
                    fault.fault,
                    fault.target,
                    seconds(fault.from_us),
                    fault.to_us.map_or_else(|| "the end".into(), seconds),
                    fault.bit
                );
                let class = format!("fault {}", fault.fault);
                self.bar(&class, fault.from_us, fault.to_us.unwrap_or(self.end_us), fault.fault, &title);
            }
            self.y += ROW;
        }
    }

    fn frameworks(&mut self, history: &[Entry]) {
        let mut counts: BTreeMap<(&str, &str), Vec<u32>> = BTreeMap::new();
        let mut breaks: BTreeMap<&str, Vec<(u64, &str)>> = BTreeMap::new();
        for entry in history {
            let (kind, process) = match &entry.event {
                Event::Launch { phase: Phase::Invoked, .. } => ("launches", entry.process.as_str()),
                Event::Launch { phase: Phase::Refused, .. } => ("refused", entry.process.as_str()),
                Event::Launch { phase: Phase::Unknown, .. } => ("unknown", entry.process.as_str()),
                Event::Update { terminal: true, durable: true, .. } => ("ends", entry.process.as_str()),
                Event::Disconnected | Event::Reregistered => {
                    let lost = matches!(entry.event, Event::Disconnected);
                    let word = if lost { "disconnected" } else { "reregistered" };
                    breaks.entry(&entry.process).or_default().push((entry.at_us, word));
                    continue;
                }
                _ => continue,
            };
            let bin = (entry.at_us as f64 / self.end_us as f64 * BINS as f64) as usize;
            let bins = counts.entry((process, kind)).or_insert_with(|| vec![0; BINS]);
            bins[bin.min(BINS - 1)] += 1;
        }
        let most = counts.values().flatten().copied().max().unwrap_or(1).max(1);
        for ((process, kind), bins) in &counts {
            self.name(&format!("{process} {kind}"));
            self.bins(kind, bins, most);
            if *kind == "launches" {
                for (at, word) in breaks.get(process).into_iter().flatten().take(DRAWN_MAX) {
                    self.tick(word, *at, &format!("{process} {word} at {}", seconds(*at)));
                }
            }
            self.y += ROW;
        }
    }

    fn bins(&mut self, kind: &str, bins: &[u32], most: u32) {
        let width = WIDTH / BINS as f64;
        for (i, count) in bins.iter().enumerate().filter(|(_, count)| **count > 0) {
            let height = (BAR * f64::from(*count) / f64::from(most)).max(1.5);
            let (x, y) = (LEFT + width * i as f64, self.y + BAR - height);
            let from = seconds(self.end_us / BINS as u64 * i as u64);
            self.rect(kind, (x, y), (width, height), &format!("{count} from {from}"));
        }
    }

    fn axis(&mut self) {
        let y = self.y + 14.0;
        for tenth in 0..=10 {
            let at = self.end_us / 10 * tenth;
            let (x, text) = (self.x(at), seconds(at));
            let _ = writeln!(self.svg, r#"<text class="axis" x="{x:.1}" y="{y:.1}">{text}</text>"#);
        }
    }
}

struct Drawn<'a> {
    fault: &'a str,
    target: &'a str,
    bit: &'a str,
    from_us: u64,
    to_us: Option<u64>,
}

/// Each fault from its begin to its end.
fn faults(history: &[Entry]) -> Vec<Drawn<'_>> {
    let mut all: Vec<Drawn<'_>> = Vec::new();
    for entry in history {
        let Event::Nemesis { fault, target, begins, bit } = &entry.event else { continue };
        if *begins {
            if all.len() < DRAWN_MAX {
                all.push(Drawn { fault, target, bit: "it did not end", from_us: entry.at_us, to_us: None });
            }
            continue;
        }
        let open =
            all.iter_mut().rev().find(|it| it.to_us.is_none() && it.fault == fault && it.target == target);
        if let Some(open) = open {
            open.to_us = Some(entry.at_us);
            open.bit = bit.as_deref().unwrap_or("it did nothing, as far as is known");
        }
    }
    all
}

/// A time as people read it.
pub(super) fn seconds(us: u64) -> String {
    format!("{:.1} s", us as f64 / 1e6)
}
