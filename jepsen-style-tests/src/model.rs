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
    /// Why the run broke off, if it did: most of what follows is not known then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken_off: Option<String>,
    /// What tasks wrote about themselves, in order, by the agent that ran them.
    pub marks: BTreeMap<String, Vec<Mark>>,
    /// What the tasks of sets wrote, in order over all agents.
    #[serde(default)]
    pub slots: Vec<Mark>,
    /// Those of them that have a process when all is over.
    #[serde(default)]
    pub alive: Vec<String>,
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
    /// Which master began to lead in which term, by the line that each of them logs then.
    #[serde(default)]
    pub led: Vec<(String, u64)>,
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

/// Whether a process with this command line is that task's.
pub fn is_command_of(line: &str, task: &str) -> bool {
    line.starts_with("sh -c ") && line.contains(&format!("\"start {task} $PWD\""))
}

/// A set's tasks are called `SET-SLOT.N`: the set, and the slot.
pub fn slot_of(task: &str) -> Option<(&str, u32)> {
    let (set, rest) = task.rsplit_once('-')?;
    let (slot, _) = rest.split_once('.')?;
    Some((set, slot.parse().ok()?))
}

/// Reads what tasks wrote. The agent is the one in whose directory the task ran, whatever anybody meant.
pub fn read_marks(dir: &Path) -> anyhow::Result<BTreeMap<String, Vec<Mark>>> {
    let mut marks: BTreeMap<String, Vec<Mark>> = BTreeMap::new();
    for (agent, mark) in read_marks_in_order(dir)? {
        marks.entry(agent).or_default().push(mark);
    }
    Ok(marks)
}

/// The same, in the order in which it was written, with its agent.
pub fn read_marks_in_order(dir: &Path) -> anyhow::Result<Vec<(String, Mark)>> {
    let text = match std::fs::read_to_string(dir.join(MARKS)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error.into()),
    };
    let mut marks = Vec::new();
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
        marks.push((agent.unwrap_or_default(), mark));
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_known_by_its_name_and_its_command() {
        assert_eq!(slot_of("s1-3.12"), Some(("s1", 3)));
        assert_eq!([slot_of("f1-3"), slot_of("s1-a.1"), slot_of("nobody")], [None, None, None]);
        let line = format!("sh -c {}", marking_command(Path::new("/tmp/x/marks"), "s1-3.12", 5));
        assert!(is_command_of(&line, "s1-3.12"));
        assert!(!is_command_of(&line, "s1-3.1") && !is_command_of("sleep 5", "s1-3.12"));
    }
}
