//! The ground truth: what tasks themselves wrote, and what the masters hold when all is quiet.

use crate::history::Amounts;
use anyhow::Context;
use muster_testkit::LogEntry;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// What the history is compared with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// What tasks wrote about themselves, in order, by the agent that ran them.
    pub marks: BTreeMap<String, Vec<Mark>>,
    /// What each agent has.
    pub totals: BTreeMap<String, Amounts>,
    /// All tasks that the registry knows, ended ones too.
    pub tasks: Vec<KnownTask>,
    /// The frameworks that the registry knows, id to name.
    pub frameworks: BTreeMap<String, String>,
    /// Those that were torn down, id and name, once for each time.
    #[serde(default)]
    pub removed: Vec<(String, String)>,
    /// Each master's applied index and state hash.
    pub replicas: Vec<(String, u64, u64)>,
    /// Each master's log, which lies beside in files of its own.
    #[serde(skip)]
    pub logs: BTreeMap<String, Vec<LogEntry>>,
    /// Lines of the members' logs that tell of an error.
    pub error_lines: Vec<String>,
    /// Processes that were left over.
    pub left: Vec<String>,
}

/// A task's own word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The task.
    pub task: String,
    /// Whether it starts, or ends.
    pub starts: bool,
}

/// A task as the registry shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownTask {
    /// Its id.
    pub task: String,
    /// Its framework.
    pub framework_id: String,
    /// Whether it has ended.
    pub ended: bool,
}

/// The file that tasks write to.
pub const MARKS: &str = "marks";

/// A shell command line that runs for so long, and writes when it starts and when it ends. One `write` each, to
/// a file opened for appending, so that lines are whole and in order.
pub fn marking_command(marks: &Path, task: &str, ms: u64) -> String {
    let marks = marks.display();
    let seconds = format!("{}.{:03}", ms / 1000, ms % 1000);
    format!(
        "end() {{ echo \"end {task} $PWD\" >> '{marks}'; }}; trap 'end; exit 143' TERM; \
         echo \"start {task} $PWD\" >> '{marks}'; sleep {seconds}; end"
    )
}

/// Reads what tasks wrote. The agent is the one in whose directory the task ran, whatever anybody meant.
pub fn read_marks(dir: &Path) -> anyhow::Result<BTreeMap<String, Vec<Mark>>> {
    let text = match std::fs::read_to_string(dir.join(MARKS)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error.into()),
    };
    let mut marks: BTreeMap<String, Vec<Mark>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.splitn(3, ' ');
        let (word, task, cwd) = (words.next(), words.next(), words.next());
        let (Some(word), Some(task), Some(cwd)) = (word, task, cwd) else {
            anyhow::bail!("a task wrote {line:?}");
        };
        let inside = Path::new(cwd).strip_prefix(dir);
        let inside = inside.with_context(|| format!("a task ran outside of the cluster: {line:?}"))?;
        let agent = inside.iter().next().map(|part| part.to_string_lossy().into_owned());
        let mark = Mark { task: task.into(), starts: word == "start" };
        marks.entry(agent.unwrap_or_default()).or_default().push(mark);
    }
    Ok(marks)
}
