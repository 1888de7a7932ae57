//! What a run found, in words.

use crate::history::{Entry, Event, Phase};
use crate::model::Truth;
use anyhow::{Context, bail};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Wrong things that are named, for each promise.
const NAMED_MAX: usize = 10;

/// A run's verdict and what it rests on.
#[derive(Debug)]
pub struct Report {
    /// For people.
    pub text: String,
    good: bool,
    dir: PathBuf,
}

impl Report {
    pub(crate) fn new(
        name: &str,
        seed: u64,
        took: Duration,
        history: &[Entry],
        truth: &Truth,
        verdict: Vec<(&'static str, Vec<String>)>,
        dir: PathBuf,
    ) -> anyhow::Result<Self> {
        let launches = |wanted: Phase| {
            let one = |entry: &&Entry| matches!(entry.event, Event::Launch { phase, .. } if phase == wanted);
            history.iter().filter(one).count()
        };
        let starts = truth.marks.values().flatten().filter(|mark| mark.starts).count();
        let samples = history.iter().filter(|entry| matches!(entry.event, Event::Agents { .. })).count();
        let kills = history.iter().filter(|entry| matches!(entry.event, Event::Kill { .. })).count();
        let mut text = format!("{name}, seed {seed}, {:.1} s\n", took.as_secs_f64());
        writeln!(
            text,
            "launches: {} asked for, {} done, {} refused, {} unknown; {starts} starts, {kills} kills, {samples} samples",
            launches(Phase::Invoked),
            launches(Phase::Ok),
            launches(Phase::Refused),
            launches(Phase::Unknown),
        )?;
        for entry in history {
            if let Event::Nemesis { fault, target, bit: Some(bit), .. } = &entry.event {
                writeln!(text, "{:>9.3} s {fault} {target}: {bit}", entry.at_us as f64 / 1e6)?;
            }
        }
        let good = verdict.iter().all(|(_, wrong)| wrong.is_empty());
        for (promise, wrong) in &verdict {
            writeln!(text, "{} {promise}", if wrong.is_empty() { "ok    " } else { "BROKEN" })?;
            for one in wrong.iter().take(NAMED_MAX) {
                writeln!(text, "         {one}")?;
            }
            if wrong.len() > NAMED_MAX {
                writeln!(text, "         and {} more", wrong.len() - NAMED_MAX)?;
            }
        }
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("truth.json", serde_json::to_string_pretty(truth)?)?;
        write("report.txt", text.clone())?;
        Ok(Self { text, good, dir })
    }

    /// Prints the report; fails when a promise is broken. What a good run wrote is removed, unless
    /// `MUSTER_KEEP` is set.
    pub fn verdict(self) -> anyhow::Result<()> {
        eprintln!("{}", self.text);
        if !self.good {
            bail!("a promise is broken:\n{}\nits history is in {}", self.text, self.dir.display());
        }
        if std::env::var_os("MUSTER_KEEP").is_none() {
            std::fs::remove_dir_all(&self.dir)?;
        }
        Ok(())
    }
}
