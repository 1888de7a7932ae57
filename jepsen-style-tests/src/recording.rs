//! What a run left behind: its history, the ground truth, and so its verdict, any time again.

use crate::checker::{self, Verdict};
use crate::history::{self, Entry};
use crate::model::Truth;
use crate::shrink::{self, Smallest};
use anyhow::Context;
use muster_testkit::LogEntry;
use std::collections::BTreeMap;
use std::path::Path;

/// The history's file.
pub const HISTORY: &str = "history.jsonl";
/// The ground truth's.
pub const TRUTH: &str = "truth.json";

/// What the masters' logs end with, `m1-log.jsonl`.
const LOG: &str = "-log.jsonl";

/// Writes a master's log, an entry a line.
pub(crate) fn write_log(dir: &Path, name: &str, log: &[LogEntry]) -> anyhow::Result<()> {
    let path = dir.join(format!("{name}{LOG}"));
    let mut text = String::new();
    for entry in log {
        text.push_str(&serde_json::to_string(entry)?);
        text.push('\n');
    }
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn read_logs(dir: &Path) -> anyhow::Result<BTreeMap<String, Vec<LogEntry>>> {
    let mut logs = BTreeMap::new();
    for file in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = file?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(LOG)) else { continue };
        let text = std::fs::read_to_string(&path)?;
        let entries = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        let entries = entries.with_context(|| format!("{} is not what a run writes", path.display()))?;
        logs.insert(name.to_owned(), entries);
    }
    Ok(logs)
}

/// A history and the truth that belongs to it.
#[derive(Debug)]
pub struct Recording {
    /// What was seen.
    pub history: Vec<Entry>,
    /// What it is compared with.
    pub truth: Truth,
    /// What each checker says.
    pub verdict: Verdict,
    /// Where the history goes bad, if it does.
    pub smallest: Option<Smallest>,
}

impl Recording {
    /// Judges a run. One that broke off is judged by what is known of it all the same.
    pub fn complete(history: Vec<Entry>, truth: Truth) -> Self {
        let verdict = checker::check(&history, &truth);
        let smallest = shrink::smallest(&history, &truth);
        Self { history, truth, verdict, smallest }
    }

    /// Reads one: from a run's directory, or from a history file that the truth lies beside.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let (history, beside) = if path.is_dir() {
            (path.join(HISTORY), path.to_owned())
        } else {
            (path.to_owned(), path.parent().map(Path::to_owned).unwrap_or_default())
        };
        let history = history::read(&history)?;
        let truth = beside.join(TRUTH);
        let text = std::fs::read_to_string(&truth).with_context(|| {
            format!("cannot read {}: without what the masters held there is no verdict", truth.display())
        })?;
        let mut truth: Truth = serde_json::from_str(&text)
            .with_context(|| format!("{} is not what a run writes", truth.display()))?;
        truth.logs = read_logs(&beside)?;
        Ok(Self::complete(history, truth))
    }

    /// Whether every promise was kept.
    pub fn is_good(&self) -> bool {
        self.verdict.iter().all(|(_, wrong)| wrong.is_empty())
    }
}
