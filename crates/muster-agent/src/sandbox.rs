//! Sandboxes of ended tasks: kept up to a number, the oldest go first.

use crate::mesos::Gone;
use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};
use tracing::warn;

/// Sandboxes that may go, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Sandboxes {
    ended: VecDeque<PathBuf>,
    max: usize,
    counts: Arc<Gone>,
}

impl Sandboxes {
    /// Finds those on the disk; `lives` tells which belong to tasks that are not over.
    pub(crate) fn find(root: &Path, max: usize, lives: impl Fn(&Path) -> bool) -> Self {
        let below = |path: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(path).into_iter().flatten();
            entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect()
        };
        let mut found: Vec<(SystemTime, PathBuf)> = below(root)
            .iter()
            .flat_map(|framework| below(framework))
            .flat_map(|task| below(&task))
            .filter(|path| !lives(path))
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        found.sort();
        let all =
            Self { ended: found.into_iter().map(|(_, path)| path).collect(), max, counts: Arc::default() };
        all.count();
        all
    }

    /// A task is over. Returns what is to be removed.
    pub(crate) fn ended(&mut self, path: PathBuf) -> Vec<PathBuf> {
        self.ended.push_back(path);
        let excess = self.ended.len().saturating_sub(self.max);
        let gone = self.ended.drain(..excess).collect();
        self.count();
        gone
    }

    fn count(&self) {
        self.counts.kept.store(self.ended.len() as u64, Ordering::Relaxed);
    }

    /// What became of all that are over.
    pub(crate) fn counts(&self) -> Arc<Gone> {
        self.counts.clone()
    }
}

/// Removes sandboxes, and the directories of their task and framework once these are empty.
pub(crate) fn remove(paths: &[PathBuf], counts: &Gone) {
    for path in paths {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                warn!(path = %path.display(), %error, "cannot remove a sandbox");
            }
            _ => drop(counts.removed.fetch_add(1, Ordering::Relaxed)),
        }
        for parent in path.ancestors().skip(1).take(2) {
            let _ = fs::remove_dir(parent); // refused while another sandbox is in it
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_and_leave_no_empty_directory() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> =
            ["f1/a/1.1.0", "f1/b/1.2.0", "f2/a/1.3.0"].iter().map(|path| dir.path().join(path)).collect();
        for path in &paths {
            fs::create_dir_all(path).unwrap();
            fs::write(path.join("stdout"), "x").unwrap();
        }
        let mut sandboxes = Sandboxes::find(dir.path(), 2, |path| *path == paths[2]);
        assert_eq!(sandboxes.ended.len(), 2);
        let gone = sandboxes.ended(paths[2].clone());
        assert_eq!(gone.len(), 1);
        remove(&gone, &sandboxes.counts());
        assert!(!gone[0].exists() && !gone[0].parent().unwrap().exists());
        assert!(paths[2].exists() && dir.path().join("f1").exists());
    }
}
