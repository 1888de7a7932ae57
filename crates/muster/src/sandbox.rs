//! The sandboxes of tasks, where they are on this machine.

use crate::agent::WORK_DIR_ATTRIBUTE;
use muster_model::AttributeValue;
use muster_sdk::{FrameworkId, Offer, TaskId};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The work directory that the offer's agent says it has.
pub(crate) fn work_dir(offer: &Offer) -> Option<PathBuf> {
    let attribute =
        offer.attributes().into_iter().find(|attribute| &*attribute.name == WORK_DIR_ATTRIBUTE)?;
    match attribute.value {
        AttributeValue::Text(text) => Some(PathBuf::from(&*text)),
        _ => None,
    }
}

/// Where an agent with this work directory keeps a task's launches.
pub(crate) fn of_task(work_dir: &Path, framework_id: &FrameworkId, task_id: &TaskId) -> PathBuf {
    work_dir.join("sandboxes").join(framework_id.as_str()).join(task_id.as_str())
}

/// The sandbox of a task's newest launch, if it is on this machine.
pub(crate) fn find(work_dir: &Path, framework_id: &FrameworkId, task_id: &TaskId) -> Option<PathBuf> {
    let launches = fs::read_dir(of_task(work_dir, framework_id, task_id)).ok()?;
    let launch = |path: &PathBuf| path.file_name()?.to_str()?.parse::<muster_model::LaunchNumber>().ok();
    launches.filter_map(|entry| entry.ok().map(|entry| entry.path())).max_by_key(launch)
}

/// A file that grows, shown as it does.
#[derive(Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    shown: u64,
}

/// The most that is shown at once.
const CHUNK_BYTES: u64 = 256 << 10;

impl Tail {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, shown: 0 }
    }

    /// Shows what is new, each line with the prefix; with `all`, an unfinished last line too. A file that is
    /// not there has nothing to show.
    pub(crate) fn show(&mut self, prefix: &str, all: bool, to: &mut impl Write) -> std::io::Result<()> {
        loop {
            let Ok(mut file) = File::open(&self.path) else { return Ok(()) };
            file.seek(SeekFrom::Start(self.shown))?;
            let mut new = Vec::new();
            file.take(CHUNK_BYTES).read_to_end(&mut new)?;
            let full = new.len() as u64 == CHUNK_BYTES;
            let mut end = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if all || (full && end == 0) {
                end = new.len();
            }
            if end == 0 {
                return Ok(());
            }
            self.shown += end as u64;
            for line in new[..end].split_inclusive(|byte| *byte == b'\n') {
                to.write_all(prefix.as_bytes())?;
                to.write_all(line)?;
            }
            if all && !full && !new.ends_with(b"\n") {
                to.write_all(b"\n")?;
            }
            to.flush()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_launch_is_found_by_number_not_by_text() {
        let dir = tempfile::tempdir().unwrap();
        let (framework, task) = (FrameworkId::new("f"), TaskId::new("t"));
        for launch in ["1.9.0", "1.10.0"] {
            fs::create_dir_all(of_task(dir.path(), &framework, &task).join(launch)).unwrap();
        }
        assert!(find(dir.path(), &framework, &task).unwrap().ends_with("1.10.0"));
        assert_eq!(find(dir.path(), &framework, &TaskId::new("other")), None);
    }

    #[test]
    fn whole_lines_are_shown_once_and_the_rest_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout");
        let mut tail = Tail::new(path.clone());
        let mut shown = Vec::new();
        tail.show("", false, &mut shown).unwrap();
        fs::write(&path, "one\ntw").unwrap();
        tail.show("t: ", false, &mut shown).unwrap();
        fs::write(&path, "one\ntwo").unwrap();
        tail.show("t: ", true, &mut shown).unwrap();
        tail.show("t: ", true, &mut shown).unwrap();
        assert_eq!(String::from_utf8(shown).unwrap(), "t: one\nt: two\n");
    }
}
