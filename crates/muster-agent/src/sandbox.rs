//! Sandboxes of ended tasks: kept for a time, and up to a number; for less long where the disk fills up.
//!
//! The rule is Mesos' (`gc_delay`, `gc_disk_headroom`): with `used` the part of the disk that is taken, what is older than
//! `delay * max(0, 1 - headroom - used)` goes.

use crate::mesos::Gone;
use rustix::{
    fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, statvfs, utimensat},
    io::Errno,
};
use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tracing::{info, warn};

/// Between two looks at the disk.
const LOOK: Duration = Duration::from_secs(30);

/// What is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    /// So many.
    pub(crate) max: usize,
    /// For so long, on an empty disk.
    pub(crate) delay: Duration,
    /// The part of the disk that is to stay free.
    pub(crate) headroom: f64,
}

impl Policy {
    /// The age up to which sandboxes stay, with this part of the disk in use.
    fn age_max(&self, used: f64) -> Duration {
        self.delay.mul_f64((1.0 - self.headroom - used).clamp(0.0, 1.0))
    }
}

#[derive(Debug)]
struct Ended {
    path: PathBuf,
    /// When this agent saw it, and how old it was then: a wall clock that jumps makes nothing older.
    seen: Instant,
    age: Duration,
}

/// Sandboxes that may go.
#[derive(Debug, Clone)]
pub(crate) struct Sandboxes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    policy: Policy,
    /// Oldest first.
    ended: Mutex<VecDeque<Ended>>,
    /// There are more than may be.
    excess: Notify,
    counts: Arc<Gone>,
}

impl Sandboxes {
    /// Finds those on the disk; `lives` tells which belong to tasks that are not over.
    pub(crate) fn find(root: &Path, policy: Policy, lives: impl Fn(&Path) -> bool) -> Self {
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
        let ended = found.into_iter().map(|(changed, path)| Ended {
            path,
            seen: Instant::now(),
            age: changed.elapsed().unwrap_or_default(), // of the future: as new as can be
        });
        let shared = Shared {
            root: root.into(),
            policy,
            ended: Mutex::new(ended.collect()),
            excess: Notify::new(),
            counts: Arc::default(),
        };
        shared.count(&shared.ended());
        Self(Arc::new(shared))
    }

    /// A task is over. Its sandbox is as old as it is kept: an agent that comes after this one goes by what the disk says.
    pub(crate) fn ended(&self, path: PathBuf) {
        touch(&path);
        let mut ended = self.0.ended();
        ended.push_back(Ended { path, seen: Instant::now(), age: Duration::ZERO });
        self.0.count(&ended);
        if ended.len() > self.0.policy.max {
            self.0.excess.notify_one();
        }
    }

    /// What became of all that are over.
    pub(crate) fn counts(&self) -> Arc<Gone> {
        self.0.counts.clone()
    }

    /// Removes what is not kept, as long as this is awaited.
    pub(crate) async fn tend(self) {
        loop {
            let shared = self.0.clone();
            if spawn_blocking(move || shared.collect()).await.is_err() {
                sleep(LOOK).await;
            }
            let _ = timeout(LOOK, self.0.excess.notified()).await; // or time for a look at the disk
        }
    }
}

/// Makes a sandbox one that changed just now.
fn touch(path: &Path) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
    };
    match utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) | Err(Errno::NOENT) => {} // a task that was never started has none
        Err(error) => warn!(path = %path.display(), %error, "cannot say of a sandbox that its task ended"),
    }
}

impl Shared {
    fn ended(&self) -> MutexGuard<'_, VecDeque<Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, ended: &VecDeque<Ended>) {
        self.counts.kept.store(ended.len() as u64, Ordering::Relaxed);
    }

    fn collect(&self) {
        // As `df` has it: what is reserved for others is not there at all.
        let used = statvfs(&self.root).map_or(0.0, |disk| {
            let used = disk.f_blocks.saturating_sub(disk.f_bfree);
            used as f64 / (used + disk.f_bavail).max(1) as f64
        });
        self.collect_at(used); // where the file system does not say, age and number count alone
    }

    /// Removes what is not kept with this part of the disk in use.
    fn collect_at(&self, used: f64) {
        let age_max = self.policy.age_max(used);
        let now = Instant::now();
        let gone: Vec<PathBuf> = {
            let mut ended = self.ended();
            let excess = ended.len().saturating_sub(self.policy.max);
            let is_old = |it: &&Ended| it.age + now.saturating_duration_since(it.seen) > age_max;
            let count = ended.iter().take_while(is_old).count().max(excess);
            let gone = ended.drain(..count).map(|it| it.path).collect();
            self.count(&ended);
            gone
        };
        if !gone.is_empty() {
            let used = format!("{:.0} %", used * 100.0);
            info!(
                sandboxes = gone.len(),
                disk_used = used,
                age_max_s = age_max.as_secs(),
                "removing sandboxes"
            );
        }
        for path in gone {
            self.remove(&path);
        }
    }

    /// Removes a sandbox, and the directories of its task and framework once these are empty.
    fn remove(&self, path: &Path) {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                warn!(path = %path.display(), %error, "cannot remove a sandbox");
            }
            _ => drop(self.counts.removed.fetch_add(1, Ordering::Relaxed)),
        }
        for parent in path.ancestors().skip(1).take(2) {
            let _ = fs::remove_dir(parent); // refused while another sandbox is in it
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn make(root: &Path, names: &[&str]) -> Vec<PathBuf> {
        let paths: Vec<PathBuf> = names.iter().map(|name| root.join(name)).collect();
        for path in &paths {
            fs::create_dir_all(path).unwrap();
            fs::write(path.join("stdout"), "x").unwrap();
        }
        paths
    }

    #[test]
    fn the_oldest_go_and_leave_no_empty_directory() {
        let dir = tempfile::tempdir().unwrap();
        let paths = make(dir.path(), &["f1/a/1.1.0", "f1/b/1.2.0", "f2/a/1.3.0"]);
        let policy = Policy { max: 2, delay: HOUR, headroom: 0.1 };
        let sandboxes = Sandboxes::find(dir.path(), policy, |path| *path == paths[2]);
        let oldest = sandboxes.0.ended()[0].path.clone();
        sandboxes.0.collect_at(0.0);
        sandboxes.ended(paths[2].clone());
        assert_eq!(sandboxes.counts().kept.load(Ordering::Relaxed), 3);
        sandboxes.0.collect_at(0.0);
        assert!(!oldest.exists() && !oldest.parent().unwrap().exists());
        assert!(paths[2].exists() && dir.path().join("f1").exists());
        assert_eq!(sandboxes.counts().removed.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_age_of_a_sandbox_counts_from_the_end_of_its_task_for_the_next_agent_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = make(dir.path(), &["f/long/1.1.0"]).remove(0);
        let day_ago = SystemTime::now() - 24 * HOUR;
        fs::File::open(&path).unwrap().set_modified(day_ago).unwrap();
        let policy = Policy { max: 10, delay: 12 * HOUR, headroom: 0.1 };
        let sandboxes = Sandboxes::find(dir.path(), policy, |_| true);
        sandboxes.ended(path.clone());
        sandboxes.0.collect_at(0.3);
        assert!(path.exists());
        let next = Sandboxes::find(dir.path(), policy, |_| false);
        assert_eq!(next.counts().kept.load(Ordering::Relaxed), 1);
        next.0.collect_at(0.3);
        assert!(path.exists());
    }

    #[test]
    fn what_is_old_goes_and_sooner_on_a_disk_that_fills_up() {
        let dir = tempfile::tempdir().unwrap();
        let paths = make(dir.path(), &["f/old/1.1.0", "f/new/1.2.0"]);
        let day_ago = SystemTime::now() - 24 * HOUR;
        fs::File::open(&paths[0]).unwrap().set_modified(day_ago).unwrap();
        let policy = Policy { max: 10, delay: 48 * HOUR, headroom: 0.1 };
        let sandboxes = Sandboxes::find(dir.path(), policy, |_| false);
        sandboxes.0.collect_at(0.3); // 0.6 of two days
        assert!(paths[0].exists() && paths[1].exists());
        sandboxes.0.collect_at(0.5); // 0.4 of them
        assert!(!paths[0].exists() && paths[1].exists());
        sandboxes.0.collect_at(0.95); // no room is left
        assert!(!paths[1].exists());
    }
}
