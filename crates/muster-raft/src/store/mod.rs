//! What survives a power cut: the log in sled, the durable mark beside it, the snapshot files.
//!
//! The only folder that names sled. Every acknowledgement goes through [`writer`]; what the directory must
//! look like after a crash at any point, and what counts as damage, is decided in [`open`].

pub(crate) mod disk;
pub(crate) mod log;
pub(crate) mod mark;
mod proof;
pub(crate) mod replay;
pub(crate) mod rows;
pub(crate) mod snapshot;
#[cfg(test)]
mod tests;
pub(crate) mod writer;

use crate::{
    error::OpenError,
    types::{LogId, SnapshotMeta, log_id},
};
use disk::{Disk, Scan};
use log::{LogShared, LogStore};
use mark::{MARK, Mark, MarkError, MarkFile};
use muster_fault::{Point, planted, point};
use muster_registry::Registry;
use proof::Proof;
use rustix::process::setpriority_process;
use snapshot::{Fingerprint, SNAPSHOTS, SnapshotError};
use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot, watch};
use writer::{Op, Writer};

/// The folder of sled in the data directory.
const LOG_DIR: &str = "log";
/// Operations that may wait for the writer.
const OPS_MAX: usize = 1_024;
/// How long after a snapshot that failed the next one is tried, at first and at most.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(1);
const SNAPSHOT_PAUSE_MAX: Duration = Duration::from_secs(60);
/// How much the thread that writes a snapshot stands back, as by `nice`.
const SNAPSHOT_NICE: i32 = 10;
/// Snapshots kept.
const SNAPSHOTS_KEPT: usize = 2;

/// Called at each step of each order, for tests that crash or fail there.
pub(crate) type StepHook = Arc<dyn Fn(Point) -> io::Result<()> + Send + Sync>;

/// What tests change.
#[derive(Clone, Default)]
pub(crate) struct StoreOptions {
    #[cfg(feature = "fault-no-sync")]
    pub(crate) no_sync: bool,
    pub(crate) hook: Option<StepHook>,
}

impl StoreOptions {
    /// Whether durable means durable: always, but in the control run of the power-cut test.
    pub(crate) fn syncs(&self) -> bool {
        if planted!(SkipSync) {
            return false;
        }
        #[cfg(feature = "fault-no-sync")]
        return !self.no_sync;
        #[cfg(not(feature = "fault-no-sync"))]
        true
    }

    pub(crate) fn step(&self, point: Point) -> io::Result<()> {
        point!(point)?;
        self.hook.as_ref().map_or(Ok(()), |hook| hook(point))
    }
}

/// Locks and takes what is there, also after a panic elsewhere.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// An open data directory.
pub(crate) struct Store {
    dir: PathBuf,
    /// Held while the directory is ours.
    held: Mutex<Option<File>>,
    ops: mpsc::Sender<Op>,
    mark: Arc<Mutex<Mark>>,
    failed: watch::Sender<Option<String>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    log: Arc<LogShared>,
    /// Durable snapshots, oldest first.
    snapshots: Mutex<Vec<LogId>>,
    /// Why the last snapshot could not be taken.
    snapshot_problem: Mutex<Option<Problem>>,
    options: StoreOptions,
}

/// A snapshot that could not be taken.
struct Problem {
    why: String,
    pause: Duration,
    /// When the next one may be tried.
    until: Instant,
}

/// A snapshot that was read.
pub(crate) type Restored = (SnapshotMeta, Registry);

/// What [`open`] found.
pub(crate) struct Opened {
    pub(crate) store: Arc<Store>,
    /// The newest snapshot that can be read, with its contents.
    pub(crate) snapshot: Option<Restored>,
    pub(crate) took: Took,
}

/// How long the parts of an opening took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Took {
    /// Opening the log and reading it, and what its sync takes longer than reading the snapshot.
    pub(crate) log: Duration,
    /// Reading the snapshot.
    pub(crate) snapshot: Duration,
}

/// Opens a data directory or makes a new one. A damaged one is set aside and replaced by an empty one with
/// a new node id (`protocol` H29), but for a replica that is `alone`: nobody else has its data, so that a damaged
/// directory of it is left bit for bit as it was.
pub(crate) fn open(dir: &Path, name: &str, alone: bool, options: StoreOptions) -> Result<Opened, OpenError> {
    let directory = |source| OpenError::Directory { path: dir.into(), source };
    std::fs::create_dir_all(dir).map_err(directory)?;
    let held = hold(dir)?;
    proof::discard(dir).map_err(directory)?;
    let found = match inspect(dir, name, alone, &options) {
        Ok(found) => found,
        Err(Trouble::Refuse(error)) => return Err(error),
        Err(Trouble::Io(source)) => return Err(directory(source)),
        Err(Trouble::Damaged { why, .. }) if alone => {
            return Err(OpenError::Corrupted { path: dir.into(), why });
        }
        Err(Trouble::Damaged { why, mark }) => {
            tracing::error!(path = %dir.display(), %why, "the data directory is damaged; setting it aside");
            set_aside(dir, name, mark, &why, &options).map_err(directory)?;
            inspect(dir, name, alone, &options).map_err(|trouble| trouble.refused(dir))?
        }
    };
    start(dir, held, found, options).map_err(directory)
}

/// Takes the lock that keeps other processes out.
fn hold(dir: &Path) -> Result<File, OpenError> {
    let directory = |source| OpenError::Directory { path: dir.into(), source };
    let file = File::create(dir.join("lock")).map_err(directory)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: dir.into() }),
        Err(TryLockError::Error(source)) => Err(directory(source)),
    }
}

/// Why a directory cannot be used as it is.
enum Trouble {
    Refuse(OpenError),
    Damaged { why: String, mark: Option<Box<Mark>> },
    Io(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Trouble {
    fn refused(self, dir: &Path) -> OpenError {
        match self {
            Self::Refuse(error) => error,
            Self::Damaged { why, .. } => OpenError::Corrupted { path: dir.into(), why },
            Self::Io(source) => OpenError::Directory { path: dir.into(), source },
        }
    }
}

struct Found {
    disk: Disk,
    scan: Scan,
    mark: Mark,
    mark_file: MarkFile,
    snapshot: Option<Restored>,
    snapshots: Vec<LogId>,
    took: Took,
}

fn inspect(dir: &Path, name: &str, alone: bool, options: &StoreOptions) -> Result<Found, Trouble> {
    let log_dir = dir.join(LOG_DIR);
    let (mark_file, mark) = open_mark(dir, name, &log_dir, options)?;
    if mark.name != name {
        let (path, found, expected) = (dir.into(), mark.name, name.into());
        return Err(Trouble::Refuse(OpenError::OtherName { path, found, expected }));
    }
    let damaged = |why: String| Trouble::Damaged { why, mark: Some(Box::new(mark.clone())) };
    let unopened = |error: io::Error| match disk::is_damage(&error) {
        true => damaged(format!("the log does not open: {error}")),
        false => Trouble::Io(error),
    };

    // Opening it would make an empty one in its place.
    if !log_dir.exists() && !mark.blank() {
        return Err(damaged("the log is missing".into()));
    }
    let first = mark.purged.map_or(0, |purged| purged.index + 1);
    let mut took = Took::default();
    let begun = Instant::now();
    let proved = if alone && !mark.blank() {
        let copy = Proof::of(dir, &log_dir, options).map_err(Trouble::Refuse)?;
        Some(judge(dir, &mark, copy.scan(first, options).map_err(unopened)?, &mut took)?)
    } else {
        None
    };
    let opened = match Disk::open(&log_dir, first, options.clone()) {
        // Nothing was acknowledged yet: a power cut may have left a half-made database.
        Err(error) if disk::is_damage(&error) && mark.blank() && log_dir.exists() => {
            std::fs::remove_dir_all(&log_dir)?;
            Disk::open(&log_dir, first, options.clone())
        }
        other => other,
    };
    let (disk, mut scan) = opened.map_err(unopened)?;
    sync_dir(dir)?;
    // sled wrote zeros over all of its file that was free, which keeps the disk for as long as a snapshot keeps a core.
    let (synced, judged) = thread::scope(|scope| {
        let syncing =
            thread::Builder::new().name("muster-log-open".into()).spawn_scoped(scope, || disk.sync());
        let judged = match proved {
            Some((_, snapshots)) => {
                check_log(&mark, &mut scan, first).map_err(damaged).map(|()| (scan, snapshots))
            }
            None => judge(dir, &mark, scan, &mut took),
        };
        (syncing.and_then(|syncing| syncing.join().unwrap_or_else(|_| Err(disk::panicked()))), judged)
    });
    synced.map_err(unopened)?;
    let (scan, snapshots) = judged?;
    took.log = begun.elapsed().saturating_sub(took.snapshot);
    snapshots.drop_unlisted(&dir.join(SNAPSHOTS))?;
    let Snapshots { newest: snapshot, listed: snapshots } = snapshots;
    Ok(Found { disk, scan, mark, mark_file, snapshot, snapshots, took })
}

/// Compares what was read with the mark and with the snapshots that are there. Changes nothing on disk.
fn judge(dir: &Path, mark: &Mark, mut scan: Scan, took: &mut Took) -> Result<(Scan, Snapshots), Trouble> {
    let damaged = |why: String| Trouble::Damaged { why, mark: Some(Box::new(mark.clone())) };
    let newer = |what: String| Trouble::Refuse(OpenError::Newer { path: dir.into(), what });
    if let Some(problem) = scan.problem.as_ref().filter(|problem| disk::is_newer(problem)) {
        return Err(newer(problem.to_string()));
    }
    let first = mark.purged.map_or(0, |purged| purged.index + 1);
    check_log(mark, &mut scan, first).map_err(damaged)?;
    let begun = Instant::now();
    let snapshots = read_snapshots(&dir.join(SNAPSHOTS), &scan).map_err(|error| match error {
        SnapshotError::Newer(_) | SnapshotError::Record(crate::codec::CodecError::Newer(_)) => {
            newer(error.to_string())
        }
        SnapshotError::Io(error) if !disk::is_damage(&error) => Trouble::Io(error),
        other => damaged(other.to_string()),
    })?;
    took.snapshot = begun.elapsed();
    let covered = snapshots.newest.as_ref().and_then(|(meta, _)| meta.last_log_id).map(|id| id.index);
    if let Some(purged) = mark.purged
        && covered.is_none_or(|covered| covered < purged.index)
    {
        return Err(damaged(format!("no readable snapshot covers the log up to {}", purged.index)));
    }
    Ok((scan, snapshots))
}

fn open_mark(
    dir: &Path,
    name: &str,
    log_dir: &Path,
    options: &StoreOptions,
) -> Result<(MarkFile, Mark), Trouble> {
    match MarkFile::open(dir, options.clone()) {
        Ok(found) => Ok(found),
        Err(MarkError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            if log_dir.exists() || dir.join(SNAPSHOTS).exists() {
                return Err(Trouble::Damaged { why: "the mark is missing".into(), mark: None });
            }
            options.step(Point::Created)?;
            let mark = Mark { node_id: draw_node_id(), name: name.into(), ..Mark::default() };
            Ok((MarkFile::create(dir, &mark, options.clone())?, mark))
        }
        Err(MarkError::Io(error)) => Err(Trouble::Io(error)),
        Err(MarkError::Newer(layout)) => {
            Err(Trouble::Refuse(OpenError::Newer { path: dir.into(), what: format!("layout {layout}") }))
        }
        Err(error) => Err(Trouble::Damaged { why: error.to_string(), mark: None }),
    }
}

/// Drawn once for each directory; never 0, which stands for none on the wire.
fn draw_node_id() -> u64 {
    rand::random_range(1..=u64::MAX)
}

/// Compares the log with the mark. What lies above the mark was never acknowledged, so a problem there only
/// ends the log; at or below it, it is damage.
fn check_log(mark: &Mark, scan: &mut Scan, first: u64) -> Result<(), String> {
    if mark.blank() {
        // It has taken part in nothing: what it may have begun to write counts for nothing either.
        *scan = Scan { snapshots: std::mem::take(&mut scan.snapshots), ..Scan::default() };
        return Ok(());
    }
    let gap = scan.entries.iter().zip(first..).position(|((id, _), expected)| id.index != expected);
    if let Some(gap) = gap {
        scan.entries.truncate(gap);
    }
    let end = first + scan.entries.len() as u64;
    let Some(last) = mark.last.filter(|last| last.index >= first) else { return Ok(()) };
    if last.index >= end {
        return Err(match &scan.problem {
            Some(problem) => problem.to_string(),
            None => {
                format!("the log ends before entry {end}, but entries up to {} were acknowledged", last.index)
            }
        });
    }
    let found = scan.entries[(last.index - first) as usize].0;
    if crate::types::term_of(&found) != last.term {
        return Err(format!("entry {} is not the one that was acknowledged", last.index));
    }
    Ok(())
}

/// The snapshots of a directory.
struct Snapshots {
    /// The newest listed one that can be read.
    newest: Option<Restored>,
    /// All that are listed and there, oldest first.
    listed: Vec<LogId>,
}

fn read_snapshots(dir: &Path, scan: &Scan) -> Result<Snapshots, SnapshotError> {
    let mut listed: Vec<LogId> = Vec::new();
    let mut newest = None;
    for &(index, term, length, crc) in scan.snapshots.iter().rev() {
        let id = log_id(term, index);
        let path = dir.join(snapshot::file_name(&id));
        if newest.is_none() {
            match snapshot::read_listed(&path, length, crc) {
                Ok(found) => newest = Some(found),
                Err(SnapshotError::Newer(layout)) => return Err(SnapshotError::Newer(layout)),
                Err(SnapshotError::Io(error)) if !disk::is_damage(&error) => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a snapshot cannot be read");
                    continue;
                }
            }
        }
        listed.push(id);
    }
    listed.reverse();
    Ok(Snapshots { newest, listed })
}

impl Snapshots {
    /// Removes files that are not listed: what a crash left half-done.
    fn drop_unlisted(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        for file in std::fs::read_dir(dir)? {
            let file = file?;
            if !self.listed.iter().any(|id| file.file_name() == *snapshot::file_name(id)) {
                std::fs::remove_file(file.path())?;
            }
        }
        Ok(())
    }
}

/// Moves what is damaged to `damaged-<n>/` and leaves an empty directory with a new node id. The old mark is
/// replaced last, so that a crash in between only finds the damage again.
fn set_aside(
    dir: &Path,
    name: &str,
    mark: Option<Box<Mark>>,
    why: &str,
    options: &StoreOptions,
) -> io::Result<()> {
    let aside = (1..)
        .map(|n| dir.join(format!("damaged-{n}")))
        .find(|path| !path.exists())
        .ok_or_else(|| io::Error::other("no free name for the damaged files"))?;
    std::fs::create_dir(&aside)?;
    for part in [LOG_DIR, SNAPSHOTS] {
        if dir.join(part).exists() {
            std::fs::rename(dir.join(part), aside.join(part))?;
        }
    }
    if dir.join(MARK).exists() {
        std::fs::copy(dir.join(MARK), aside.join(MARK))?;
    }
    sync_dir(&aside)?;
    sync_dir(dir)?;
    options.step(Point::SetAside)?;
    let old = mark.map(|mark| *mark).unwrap_or_default();
    // A directory that was never used keeps the word of the one it replaced itself.
    let damage = match old.damage {
        Some(damage) if old.last.is_none() && old.vote.is_none() => damage,
        _ => (old.node_id, why.to_owned()),
    };
    let fresh = Mark {
        node_id: draw_node_id(),
        name: name.into(),
        cluster_id: old.cluster_id,
        incarnation: old.incarnation,
        damage: Some(damage),
        ..Mark::default()
    };
    MarkFile::create(dir, &fresh, options.clone())?;
    Ok(())
}

fn start(dir: &Path, held: File, found: Found, options: StoreOptions) -> io::Result<Opened> {
    let Found { disk, scan, mark, mark_file, snapshot, snapshots, took } = found;
    let (ops, queue) = mpsc::channel(OPS_MAX);
    let failed = watch::Sender::new(None);
    let shared_mark = Arc::new(Mutex::new(mark.clone()));
    // Rows beyond the last good entry were never acknowledged: the first append must not meet them.
    let first = mark.purged.map_or(0, |purged| purged.index + 1);
    let end = first + scan.entries.len() as u64;
    let beyond = std::ops::Bound::Included(rows::log_key(end, 0).to_vec());
    while disk.remove_rows((beyond.clone(), std::ops::Bound::Excluded(vec![rows::LOG + 1])), 1_024)? {}
    disk.sync()?;
    let log = Arc::new(LogShared::new(&mark, &scan, disk.tree()));
    let writer = Writer {
        disk,
        mark_file,
        mark,
        shared_mark: shared_mark.clone(),
        failed: failed.clone(),
        options: options.clone(),
        committed: None,
        sweeping: scan.leftovers,
        slow: writer::Slow::default(),
    };
    let thread = thread::Builder::new().name("muster-log".into()).spawn(move || writer.run(queue))?;
    let store = Store {
        dir: dir.into(),
        held: Mutex::new(Some(held)),
        ops,
        mark: shared_mark,
        failed,
        thread: Mutex::new(Some(thread)),
        log,
        snapshots: Mutex::new(snapshots),
        snapshot_problem: Mutex::default(),
        options,
    };
    Ok(Opened { store: Arc::new(store), snapshot, took })
}

impl Store {
    /// The mark as it is on disk.
    pub(crate) fn mark(&self) -> Mark {
        lock(&self.mark).clone()
    }

    /// Changes the mark; durable when this returns.
    pub(crate) async fn change_mark(
        &self,
        change: impl FnOnce(&mut Mark) + Send + 'static,
    ) -> io::Result<()> {
        self.ask(|done| Op::Mark { change: Box::new(change), done }).await
    }

    /// The log, for openraft.
    pub(crate) fn log_store(self: &Arc<Self>) -> LogStore {
        LogStore::new(self.clone())
    }

    /// The part of the log that readers share.
    pub(crate) fn log(&self) -> &Arc<LogShared> {
        &self.log
    }

    /// Says what ended the store, once something did.
    pub(crate) fn failed(&self) -> watch::Receiver<Option<String>> {
        self.failed.subscribe()
    }

    /// Ends the store: nothing is acknowledged afterwards.
    pub(crate) fn fail(&self, why: String) {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            if first {
                *failed = Some(why);
            }
            first
        });
    }

    /// The folder of the snapshots.
    pub(crate) fn snapshot_dir(&self) -> PathBuf {
        self.dir.join(SNAPSHOTS)
    }

    pub(crate) fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// The newest durable snapshot.
    pub(crate) fn newest_snapshot(&self) -> Option<LogId> {
        lock(&self.snapshots).last().copied()
    }

    /// Writes a registry to a durable snapshot file and lists it. A failure is no end: nothing that was
    /// acknowledged depends on it, only the log stays long. It is tried again later, less and less often.
    pub(crate) async fn take_snapshot(&self, meta: &SnapshotMeta, registry: Registry) -> io::Result<()> {
        let (dir, options, meta) = (self.snapshot_dir(), self.options.clone(), meta.clone());
        let id = meta.last_log_id;
        let taken = async {
            let (done, written) = oneshot::channel();
            thread::Builder::new().name("muster-snapshot".into()).spawn(move || {
                // Nobody waits for it. Of a thread alone, in spite of the name; one that may not be nice is not.
                let _ = setpriority_process(None, SNAPSHOT_NICE);
                drop(done.send(snapshot::write(&dir, &meta, &registry, &options)));
            })?;
            let written = written.await.map_err(|_| io::Error::other("its thread panicked"))??;
            // The list is part of the log: a failure there has ended the store.
            self.list_snapshot(id.ok_or_else(closed)?, written).await
        };
        let result: io::Result<()> = taken.await;
        let mut problem = lock(&self.snapshot_problem);
        *problem = result.as_ref().err().map(|error| {
            let pause =
                problem.as_ref().map_or(SNAPSHOT_PAUSE, |old| (old.pause * 2).min(SNAPSHOT_PAUSE_MAX));
            Problem { why: error.to_string(), pause, until: Instant::now() + pause }
        });
        result
    }

    /// Why the last snapshot could not be taken; whether it is too early to try again.
    pub(crate) fn snapshot_problem(&self) -> Option<(String, bool)> {
        lock(&self.snapshot_problem).as_ref().map(|it| (it.why.clone(), Instant::now() < it.until))
    }

    /// Lists a durable snapshot file and drops all but the last two.
    async fn list_snapshot(&self, id: LogId, (length, crc): Fingerprint) -> io::Result<()> {
        let mut kept = lock(&self.snapshots).clone();
        kept.retain(|old| old.index != id.index);
        kept.push(id);
        kept.sort_by_key(|id| id.index);
        let gone: Vec<LogId> = kept.drain(..kept.len().saturating_sub(SNAPSHOTS_KEPT)).collect();
        let drop = gone.iter().map(|id| id.index).collect();
        let value = disk::snapshot_row(id.index, crate::types::term_of(&id), length, crc);
        self.ask(|done| Op::Catalogue { index: id.index, value, drop, done }).await?;
        *lock(&self.snapshots) = kept;
        for old in gone {
            tokio::fs::remove_file(self.snapshot_dir().join(snapshot::file_name(&old))).await.ok();
        }
        Ok(())
    }

    /// The same of one that came from another master.
    pub(crate) async fn list_received(&self, id: LogId) -> io::Result<()> {
        let path = self.snapshot_dir().join(snapshot::file_name(&id));
        let found = tokio::task::spawn_blocking(move || snapshot::fingerprint(&path));
        self.list_snapshot(id, found.await.map_err(io::Error::other)??).await
    }

    pub(crate) async fn ask(&self, op: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Op) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.send(op(done)).await?;
        answer.await.map_err(|_| closed())?
    }

    pub(crate) async fn send(&self, op: Op) -> io::Result<()> {
        self.ops.send(op).await.map_err(|_| closed())
    }

    /// Writes what is queued, closes sled and lets the directory go.
    pub(crate) async fn close(&self) {
        self.log.close();
        let (done, ended) = oneshot::channel();
        if self.ops.send(Op::Stop { done }).await.is_ok() {
            ended.await.ok();
        }
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            tokio::task::spawn_blocking(move || thread.join().ok()).await.ok();
        }
        lock(&self.held).take();
    }
}

fn closed() -> io::Error {
    io::Error::other("the store is closed")
}
