//! Crashes at every step of every order, damage of every kind, failed syncs.

use super::*;
use crate::{
    codec,
    types::{LogEntry, LogPayload, Proposal, StoredMembership, TypeConfig, Vote, term_of},
};
use muster_model::{AgentId, ClusterId, Index, Term};
use muster_registry::{Command, Entry};
use openraft::{
    RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
    type_config::TypeConfigExt,
};
use std::collections::BTreeMap;

fn entry(term: u64, index: u64, bytes: usize) -> LogEntry {
    let commands = vec![Command::MarkGone { agent_id: AgentId::new("x".repeat(bytes)) }];
    let entry = Entry { term: Term(term), first_ticket: index, commands, ..Entry::default() };
    let bytes = codec::encode_entry(&entry).unwrap();
    LogEntry { log_id: log_id(term, index), payload: LogPayload::Normal(Proposal::from_parts(entry, bytes)) }
}

async fn append(log: &mut LogStore, entries: Vec<LogEntry>) -> io::Result<()> {
    let (tx, rx) = TypeConfig::oneshot();
    log.append(entries, IOFlushed::signal(tx)).await?;
    rx.await.unwrap()
}

fn open_here(dir: &Path) -> Opened {
    open(dir, "m1", false, StoreOptions::default()).unwrap()
}

async fn entries_of(store: &Arc<Store>) -> Vec<LogEntry> {
    let mut log = store.log_store();
    log.get_log_reader().await.try_get_log_entries(..).await.unwrap()
}

async fn take_snapshot(store: &Arc<Store>, term: u64, index: u64) {
    take_snapshot_of(store, term, index, Registry::new(ClusterId::new("c1"), 1)).await;
}

async fn take_snapshot_of(store: &Arc<Store>, term: u64, index: u64, mut registry: Registry) {
    registry.skip(Index(index));
    let meta =
        SnapshotMeta { last_log_id: Some(log_id(term, index)), last_membership: StoredMembership::default() };
    snapshot::write(&store.snapshot_dir(), &meta, &registry, store.options()).unwrap();
    store.list_received(log_id(term, index)).await.unwrap();
}

/// Copies a directory with the files of one moment: sled removes some by itself, so that one may be gone before it is copied,
/// or a file that was copied name one that is not there any more. It is copied anew then.
fn copy_dir(from: &Path, to: &Path) {
    assert!(from.is_dir(), "{}", from.display());
    loop {
        let before = list(from);
        let copy = |(name, is_dir): (&PathBuf, &bool)| match is_dir {
            true => is_there(std::fs::create_dir_all(to.join(name))).is_some(),
            false => is_there(std::fs::copy(from.join(name), to.join(name))).is_some(),
        };
        if before.as_ref().is_some_and(|all| all.iter().all(copy)) && list(from) == before {
            return;
        }
        let _ = std::fs::remove_dir_all(to); // there may be none
    }
}

/// All that is in a directory and below, itself too: names from there, and whether they are directories; none if one of
/// those was removed meanwhile.
fn list(dir: &Path) -> Option<BTreeMap<PathBuf, bool>> {
    let mut found = BTreeMap::from([(PathBuf::new(), true)]);
    let mut below = vec![PathBuf::new()];
    while let Some(part) = below.pop() {
        for file in is_there(std::fs::read_dir(dir.join(&part)))? {
            let file = file.unwrap();
            let (name, is_dir) = (part.join(file.file_name()), is_there(file.file_type())?.is_dir());
            found.insert(name.clone(), is_dir);
            if is_dir {
                below.push(name);
            }
        }
    }
    Some(found)
}

fn is_there<T>(found: io::Result<T>) -> Option<T> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        found => Some(found.unwrap()),
    }
}

/// What a crash at some moment must not lose.
#[derive(Clone, Default)]
struct Promise {
    entries: BTreeMap<u64, LogEntry>,
    vote: Option<u64>,
}

/// A directory as a crash would leave it, at which step, and what was acknowledged by then.
type Copied = (PathBuf, &'static str, Promise);

/// Runs a script of all orders and copies the directory at each step, with what was acknowledged by then.
struct Script {
    store: Arc<Store>,
    log: LogStore,
    promise: Arc<Mutex<Promise>>,
}

impl Script {
    async fn append(&mut self, entries: Vec<LogEntry>) {
        append(&mut self.log, entries.clone()).await.unwrap();
        lock(&self.promise).entries.extend(entries.into_iter().map(|it| (it.log_id.index, it)));
    }

    async fn vote(&mut self, term: u64) {
        self.log.save_vote(&Vote::new(term, 7)).await.unwrap();
        lock(&self.promise).vote = Some(term);
    }

    async fn truncate(&mut self, after: LogId) {
        lock(&self.promise).entries.retain(|index, _| *index <= after.index);
        self.log.truncate_after(Some(after)).await.unwrap();
    }

    async fn purge(&mut self, upto: LogId) {
        lock(&self.promise).entries.retain(|index, _| *index > upto.index);
        self.log.purge(upto).await.unwrap();
    }
}

async fn run_script(dir: &Path, hook: StepHook, promise: Arc<Mutex<Promise>>) {
    let options = StoreOptions { hook: Some(hook), ..StoreOptions::default() };
    let opened = open(dir, "m1", false, options).unwrap();
    let log = opened.store.log_store();
    let mut script = Script { store: opened.store, log, promise };
    script.vote(1).await;
    script.append(vec![entry(1, 0, 10)]).await;
    script.append((1..5).map(|n| entry(1, n, 200)).collect()).await;
    script.append(vec![entry(1, 5, 64 << 10), entry(1, 6, 1 << 20)]).await;
    script.vote(2).await;
    // A new leader replaces the tail, in fewer rows.
    script.truncate(log_id(1, 4)).await;
    script.append((5..8).map(|n| entry(2, n, 100)).collect()).await;
    take_snapshot(&script.store, 2, 6).await;
    script.purge(log_id(2, 3)).await;
    script.append((8..12).map(|n| entry(2, n, 70_000)).collect()).await;
    take_snapshot(&script.store, 2, 10).await;
    script.purge(log_id(2, 9)).await;
    script.vote(3).await;
    // A snapshot from another replica reaches beyond the log.
    take_snapshot(&script.store, 3, 40).await;
    script.purge(log_id(3, 40)).await;
    script.append((41..44).map(|n| entry(3, n, 300)).collect()).await;
    script.store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_loses_nothing_that_was_acknowledged() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("live");
    let promise = Arc::new(Mutex::new(Promise::default()));
    let copies: Arc<Mutex<Vec<Copied>>> = Arc::default();
    let hook: StepHook = Arc::new({
        let (live, root) = (dir.clone(), root.path().to_owned());
        let (promise, copies) = (promise.clone(), copies.clone());
        move |step| {
            let mut copies = lock(&copies);
            let copy = root.join(format!("crash-{}", copies.len()));
            copy_dir(&live, &copy);
            copies.push((copy, step.name(), lock(&promise).clone()));
            Ok(())
        }
    });
    run_script(&dir, hook, promise.clone()).await;
    let mut copies = std::mem::take(&mut *lock(&copies));
    let steps: std::collections::BTreeSet<&str> = copies.iter().map(|(_, step, _)| *step).collect();
    for step in [
        Point::AppendDurable,
        Point::TruncateMarked,
        Point::PurgeMarked,
        Point::SnapshotRenamed,
        Point::Catalogue,
    ] {
        assert!(steps.contains(step.name()), "{step} was never reached");
    }
    copies.push((dir, "the end", lock(&promise).clone()));
    for (copy, step, promise) in copies {
        check_promise(&copy, step, &promise).await;
    }
}

async fn check_promise(dir: &Path, step: &str, promise: &Promise) {
    let opened = open_here(dir);
    let mark = opened.store.mark();
    assert_eq!(mark.damage, None, "after a crash at {step:?} ({})", dir.display());
    assert!(mark.vote.map(|vote| vote.term) >= promise.vote, "the vote is lost after a crash at {step:?}");
    let found = entries_of(&opened.store).await;
    let indexes: Vec<u64> = found.iter().map(|entry| entry.log_id.index).collect();
    assert!(indexes.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a gap after {step:?}: {indexes:?}");
    let covered = opened.snapshot.as_ref().and_then(|(meta, _)| meta.last_log_id).map_or(0, |id| id.index);
    for (index, promised) in &promise.entries {
        match found.iter().find(|entry| entry.log_id.index == *index) {
            Some(entry) => assert_eq!(entry, promised, "after a crash at {step:?}"),
            None => assert!(covered >= *index, "entry {index} is lost after a crash at {step:?}"),
        }
    }
    // It goes on from there.
    let next = found.last().map_or(covered, |entry| entry.log_id.index) + 1;
    let mut log = opened.store.log_store();
    append(&mut log, vec![entry(9, next, 10)]).await.unwrap();
    opened.store.close().await;
}

/// A directory with a log of ten entries, closed.
async fn sample(dir: &Path) {
    let store = open_here(dir).store;
    let mut log = store.log_store();
    log.save_vote(&Vote::new(1, 7)).await.unwrap();
    append(&mut log, (0..10).map(|n| entry(1, n, 100_000)).collect()).await.unwrap();
    store.close().await;
}

type Damage = Box<dyn Fn(&Path)>;

fn change_log(dir: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let path = dir.join(LOG_DIR).join("db");
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// All files with their bytes; the lock is held, not written.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for file in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match file.file_type().unwrap().is_dir() {
            true => all.extend(contents(&file.path())),
            false if file.file_name() == "lock" => {}
            false => drop(all.insert(file.path(), std::fs::read(file.path()).unwrap())),
        }
    }
    all
}

fn with_sled(dir: &Path, change: impl FnOnce(&sled::Db)) {
    let db = sled::Config::new()
        .path(dir.join(LOG_DIR))
        .segment_size(8 << 20)
        .flush_every_ms(None)
        .open()
        .unwrap();
    change(&db);
    db.flush().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_of_any_kind_is_set_aside_and_never_votes_again() {
    let flip = |db: &sled::Db| {
        let key = rows::log_key(4, 1);
        let mut value = db.get(key).unwrap().unwrap().to_vec();
        value[5_000] ^= 4;
        db.insert(key, value).unwrap();
    };
    let kinds: Vec<(&str, Damage)> = vec![
        ("a flipped bit in a row", Box::new(move |dir| with_sled(dir, flip))),
        ("a gap", Box::new(|dir| with_sled(dir, |db| drop(db.remove(rows::log_key(5, 0)).unwrap())))),
        (
            "a part that is missing",
            Box::new(|dir| with_sled(dir, |db| drop(db.remove(rows::log_key(9, 1)).unwrap()))),
        ),
        (
            "a short log",
            Box::new(|dir| {
                with_sled(dir, |db| {
                    (0..2).for_each(|part| drop(db.remove(rows::log_key(9, part)).unwrap()));
                });
            }),
        ),
        (
            "an entry of another term",
            Box::new(|dir| {
                with_sled(dir, |db| {
                    let payload = codec::encode_payload(&entry(4, 9, 100_000).payload).unwrap();
                    rows::cut(&log_id(4, 9), &payload)
                        .for_each(|(key, value)| drop(db.insert(key, value).unwrap()));
                });
            }),
        ),
        ("no mark", Box::new(|dir| std::fs::remove_file(dir.join(MARK)).unwrap())),
        ("a damaged mark", Box::new(|dir| std::fs::write(dir.join(MARK), vec![1; 200_000]).unwrap())),
        ("no log", Box::new(|dir| std::fs::remove_dir_all(dir.join(LOG_DIR)).unwrap())),
        ("an empty log file", Box::new(|dir| std::fs::write(dir.join(LOG_DIR).join("db"), b"").unwrap())),
        (
            "a log of noise",
            Box::new(|dir| std::fs::write(dir.join(LOG_DIR).join("db"), vec![0x5a; 1 << 20]).unwrap()),
        ),
        (
            "a garbled log",
            Box::new(|dir| {
                change_log(dir, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 0x5a));
            }),
        ),
        ("half a log", Box::new(|dir| change_log(dir, |bytes| bytes.truncate(bytes.len() / 2)))),
        (
            "a hole in the log",
            Box::new(|dir| {
                change_log(dir, |bytes| {
                    let at = bytes.len() / 2;
                    bytes[at..at + 200_000].fill(0);
                });
            }),
        ),
    ];
    for (kind, damage) in kinds {
        let dir = tempfile::tempdir().unwrap();
        sample(dir.path()).await;
        let (_, before) = MarkFile::open(dir.path(), StoreOptions::default()).unwrap();
        damage(dir.path());
        // Alone, there is nobody to catch up from: nothing is touched, however often it is tried.
        let untouched = contents(dir.path());
        for _ in 0..2 {
            let refused = open(dir.path(), "m1", true, StoreOptions::default()).err();
            assert!(matches!(refused, Some(OpenError::Corrupted { .. })), "{kind}: {refused:?}");
            assert!(contents(dir.path()) == untouched, "{kind}: something changed");
        }
        let store = open_here(dir.path()).store;
        let mark = store.mark();
        let (replaced, why) = mark.damage.clone().unwrap_or_else(|| panic!("{kind} was not noticed"));
        assert_ne!(mark.node_id, before.node_id, "{kind}");
        assert!(mark.blank(), "{kind}");
        assert!(!why.is_empty());
        if !kind.contains("mark") {
            assert_eq!(replaced, before.node_id, "{kind}");
        }
        assert!(dir.path().join("damaged-1").exists(), "{kind}");
        store.close().await;
        // Opened again it is a sound, empty directory that remembers why.
        let store = open_here(dir.path()).store;
        assert_eq!(store.mark(), mark, "{kind}");
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_does_not_cost_the_snapshots_of_a_replica_that_is_alone() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path()).await;
    let store = open_here(dir.path()).store;
    take_snapshot(&store, 1, 9).await;
    store.log_store().purge(log_id(1, 9)).await.unwrap();
    store.close().await;
    // No entry is missing, but the list of the snapshots is.
    with_sled(dir.path(), |db| drop(db.remove(rows::snapshot_key(9)).unwrap()));
    let untouched = contents(dir.path());
    let refused = open(dir.path(), "m1", true, StoreOptions::default()).err();
    assert!(matches!(refused, Some(OpenError::Corrupted { .. })), "{refused:?}");
    assert!(contents(dir.path()) == untouched);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_copied_is_not_opened_where_nobody_else_has_it() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path()).await;
    let untouched = contents(dir.path());
    // A disk without room, or a crash right there, which leaves the copy behind.
    let hook: StepHook = Arc::new(|step| match step {
        Point::ProofCopied => Err(io::Error::from(io::ErrorKind::StorageFull)),
        _ => Ok(()),
    });
    let options = StoreOptions { hook: Some(hook), ..StoreOptions::default() };
    let refused = open(dir.path(), "m1", true, options.clone()).err().unwrap();
    assert!(matches!(refused, OpenError::Proof { .. }), "{refused}");
    assert!(contents(dir.path()) == untouched);
    copy_dir(&dir.path().join(LOG_DIR), &dir.path().join("log.proof"));
    // Others have the data of one that is not alone: it starts without.
    open(dir.path(), "m1", false, options).unwrap().store.close().await;
    copy_dir(&dir.path().join(LOG_DIR), &dir.path().join("log.proof"));
    let store = open(dir.path(), "m1", true, StoreOptions::default()).unwrap().store;
    assert_eq!(entries_of(&store).await.len(), 10);
    assert!(!dir.path().join("log.proof").exists());
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_does_not_let_the_log_be_opened_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path()).await;
    let untouched = contents(dir.path());
    let (device_error, too_many_files) = (5, 24);
    for refusal in [
        io::Error::from(io::ErrorKind::StorageFull),
        io::Error::from(io::ErrorKind::ReadOnlyFilesystem),
        io::Error::from(io::ErrorKind::PermissionDenied),
        io::Error::from_raw_os_error(device_error),
        io::Error::from_raw_os_error(too_many_files),
    ] {
        let words = refusal.to_string();
        let refusal = Mutex::new(Some(refusal));
        let hook: StepHook = Arc::new(move |step| match step {
            Point::Open => lock(&refusal).take().map_or(Ok(()), Err),
            _ => Ok(()),
        });
        let options = StoreOptions { hook: Some(hook), ..StoreOptions::default() };
        match open(dir.path(), "m1", false, options).err().unwrap() {
            OpenError::Directory { source, .. } => assert_eq!(source.to_string(), words),
            other => panic!("{words}: {other}"),
        }
        assert!(contents(dir.path()) == untouched, "{words}: something changed");
    }
    let store = open_here(dir.path()).store;
    assert_eq!(store.mark().damage, None);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_survives_damage_to_one_slot_of_the_mark() {
    for slot in 0..2 {
        let dir = tempfile::tempdir().unwrap();
        let store = open_here(dir.path()).store;
        let mut log = store.log_store();
        for term in [1, 2] {
            log.save_vote(&Vote::new(term, 7)).await.unwrap();
        }
        append(&mut log, vec![entry(2, 0, 10)]).await.unwrap();
        log.save_vote(&Vote::new(3, 8)).await.unwrap();
        store.close().await;
        let mut bytes = std::fs::read(dir.path().join(MARK)).unwrap();
        // Somewhere in its body.
        bytes[slot * (64 << 10) + 40] ^= 16;
        std::fs::write(dir.path().join(MARK), bytes).unwrap();
        let store = open_here(dir.path()).store;
        let vote = store.mark().vote.map(|vote| (vote.term, vote.node_id));
        assert_eq!(vote, Some((3, 8)), "slot {slot}");
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_longer_than_the_mark_is_no_damage_and_a_torn_end_of_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path()).await;
    with_sled(dir.path(), |db| {
        for index in [10, 11] {
            let payload = codec::encode_payload(&entry(1, index, 100_000).payload).unwrap();
            rows::cut(&log_id(1, index), &payload)
                .for_each(|(key, value)| drop(db.insert(key, value).unwrap()));
        }
        db.remove(rows::log_key(11, 1)).unwrap();
    });
    let store = open_here(dir.path()).store;
    assert_eq!(store.mark().damage, None);
    assert_eq!(entries_of(&store).await.len(), 11);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purged_log_without_its_snapshot_is_damage_and_an_older_one_that_covers_it_is_not() {
    for both in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        sample(dir.path()).await;
        let store = open_here(dir.path()).store;
        take_snapshot(&store, 1, 5).await;
        take_snapshot(&store, 1, 8).await;
        store.log_store().purge(log_id(1, 4)).await.unwrap();
        store.close().await;
        let snapshots = dir.path().join(SNAPSHOTS);
        let bad = snapshots.join(snapshot::file_name(&log_id(1, 8)));
        let mut bytes = std::fs::read(&bad).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&bad, bytes).unwrap();
        if both {
            std::fs::remove_file(snapshots.join(snapshot::file_name(&log_id(1, 5)))).unwrap();
        }
        let opened = open_here(dir.path());
        assert_eq!(opened.store.mark().damage.is_some(), both);
        let covered = opened.snapshot.and_then(|(meta, _)| meta.last_log_id);
        assert_eq!(covered, (!both).then(|| log_id(1, 5)));
        opened.store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_replayed_from_the_snapshot_that_its_first_entry_follows() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_here(dir.path()).store;
    let mut log = store.log_store();
    log.save_vote(&Vote::new(1, 7)).await.unwrap();
    append(&mut log, (0..13).map(|n| entry(1, n, 100)).collect()).await.unwrap();
    let registry = |index: u64| Registry::new(ClusterId::new(format!("as-of-{index}")), 1);
    for index in [5, 9] {
        take_snapshot_of(&store, 1, index, registry(index)).await;
    }
    log.purge(log_id(1, 9)).await.unwrap();
    let in_use = replay::replay(dir.path()).err().unwrap();
    assert!(matches!(in_use, OpenError::InUse { .. }), "{in_use}");
    store.close().await;
    let untouched = contents(dir.path());
    let replayed: Vec<_> = replay::replay(dir.path()).unwrap().map(Result::unwrap).collect();
    assert!(contents(dir.path()) == untouched);
    assert_eq!(replayed.iter().map(|it| it.index.0).collect::<Vec<_>>(), [10, 11, 12]);
    // Not from the older one, from which entries are missing.
    let mut expected = registry(9);
    for (one, index) in replayed.iter().zip(10..) {
        let said = match &one.content {
            replay::Content::Commands(said) => said,
            other => panic!("{other:?}"),
        };
        let outcomes = expected.apply(Index(index), Term(1), said).outcomes;
        assert_eq!(one.applied, Some((outcomes, expected.state_hash())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_sync_nothing_is_acknowledged() {
    for failing in [Point::AppendWritten, Point::AppendDurable] {
        let dir = tempfile::tempdir().unwrap();
        let armed = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let hook: StepHook = Arc::new({
            let armed = armed.clone();
            move |step| match step == failing && armed.load(std::sync::atomic::Ordering::SeqCst) {
                true => Err(io::Error::other("injected")),
                false => Ok(()),
            }
        });
        let options = StoreOptions { hook: Some(hook), ..StoreOptions::default() };
        let store = open(dir.path(), "m1", false, options).unwrap().store;
        let mut log = store.log_store();
        append(&mut log, vec![entry(1, 0, 10)]).await.unwrap();
        armed.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(append(&mut log, vec![entry(1, 1, 10)]).await.is_err());
        armed.store(false, std::sync::atomic::Ordering::SeqCst);
        assert!(append(&mut log, vec![entry(1, 2, 10)]).await.is_err(), "a later sync would lie");
        assert!(log.save_vote(&Vote::new(5, 7)).await.is_err());
        assert!(log.truncate_after(None).await.is_err());
        assert!(store.failed().borrow().is_some());
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_not_ours_to_use_is_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_here(dir.path()).store;
    let refused = |what: &str| {
        let error = open(dir.path(), "m1", false, StoreOptions::default()).err().unwrap().to_string();
        assert!(error.contains(what), "{error}");
    };
    refused("in use by another process");
    store.close().await;
    let error = open(dir.path(), "m2", false, StoreOptions::default()).err().unwrap().to_string();
    assert!(error.contains("belongs to the master m1, not to m2"), "{error}");
    sample(dir.path()).await;
    with_sled(dir.path(), |db| {
        let key = rows::log_key(9, 1);
        let mut value = db.get(key).unwrap().unwrap().to_vec();
        value[0] = 9;
        rows::reseal(&key, &mut value);
        db.insert(key, value).unwrap();
    });
    refused("newer version");
    assert!(!dir.path().join("damaged-1").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_entries_and_purges_leave_the_blobs_folder_empty() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_here(dir.path()).store;
    let mut log = store.log_store();
    let mut next = 0;
    for round in 0..6 {
        for size in [200, 10_000, 24_000, 64 << 10, 1 << 20] {
            let entries: Vec<LogEntry> = (next..next + 4).map(|n| entry(1, n, size)).collect();
            next += 4;
            append(&mut log, entries).await.unwrap();
        }
        take_snapshot(&store, 1, next - 1).await;
        log.purge(log_id(1, next - 3)).await.unwrap();
        assert_eq!(store.failed().borrow().clone(), None, "round {round}");
    }
    let blobs = dir.path().join(LOG_DIR).join("blobs");
    let count = std::fs::read_dir(blobs).map(Iterator::count).unwrap_or(0);
    assert_eq!(count, 0);
    let kept = std::fs::read_dir(store.snapshot_dir()).unwrap().count();
    assert_eq!(kept, SNAPSHOTS_KEPT);
    assert_eq!(entries_of(&store).await.first().map(|it| term_of(&it.log_id)), Some(1));
    store.close().await;
}
