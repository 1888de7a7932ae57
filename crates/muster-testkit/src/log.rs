//! What a master has in its log, entry by entry, and what each entry did.

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

/// One entry of a master's log, as `muster raft log -o json` gives it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its index.
    pub index: u64,
    /// The term in which it was written.
    pub term: u64,
    /// Whether the master knew that it is committed. What follows may have been replaced in the end.
    pub committed: bool,
    /// The term whose leader decided its commands. None if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_in_term: Option<u64>,
    /// What was to be done, by the registry's own words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<Value>,
    /// What became of each command; nothing for entries that a snapshot covers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<Value>,
    /// The hash of the registry after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_hash: Option<String>,
}

impl LogEntry {
    /// Each command with what became of it.
    pub fn decided(&self) -> impl Iterator<Item = (&Value, &Value)> {
        self.commands.iter().zip(&self.outcomes)
    }
}

/// Reads the log in the data directory of a master that does not run.
pub(crate) fn read(mut command: Command, data_dir: &Path) -> anyhow::Result<Vec<LogEntry>> {
    command.args(["raft", "log", "-o", "json", "--data-dir"]).arg(data_dir).stdin(Stdio::null());
    let output = command.output().context("cannot start the binary under test")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let entries = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    entries.collect::<Result<_, _>>().context("the log of a master cannot be understood")
}
