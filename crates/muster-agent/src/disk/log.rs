//! The checkpoint log: records in the order they were decided, a checksum each, one sync for many.
//!
//! A file starts with a magic text and a format byte. A frame is `length u32, crc32c u32, body`, little
//! endian, the body a bincode `Vec<Record>` that counts as a whole or not at all. A compacted log is a new file
//! with one snapshot, put in place by a rename.

use crate::AgentError;
use muster_fault::{Point, point};
use muster_node::{Record, Saved};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 7] = b"MUSTERA";
const FORMAT: u8 = 1;
const HEADER_BYTES: usize = MAGIC.len() + 1;
const FRAME_HEAD_BYTES: usize = 8;
/// A log is compacted beyond this size, if its snapshot is at most a quarter of it.
const COMPACT_BYTES: u64 = 8 << 20;

/// An open log, and the fold of what is in it.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Not compacted again before the log has this size.
    compact_at: u64,
    saved: Saved,
}

/// What opening a log found.
#[derive(Debug)]
pub(crate) enum Opened {
    /// No log: a new agent.
    New,
    /// A log, whole but perhaps for a last write that was cut short and never acknowledged.
    Read(Box<Saved>),
    /// Damage before the end: what was answered is not known any more.
    Damaged,
}

/// What the bytes of a log hold.
enum Content {
    /// Frames up to this many bytes; the rest is a write that was cut short.
    Whole {
        saved: Box<Saved>,
        bytes: usize,
    },
    Damaged,
}

impl Log {
    /// Opens the log for appending. A damaged one is put aside, under a name of its own, and a new one begun.
    pub(crate) fn open(path: &Path) -> Result<(Self, Opened), AgentError> {
        let fail = |doing: &'static str| {
            let path = path.to_owned();
            move |source| AgentError::Prepare { doing, path, source }
        };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Also after a first start that was cut short before its rename.
                let log = Self::create(path, Saved::default()).map_err(fail("create the checkpoint log"))?;
                return Ok((log, Opened::New));
            }
            Err(error) => return Err(fail("read the checkpoint log")(error)),
        };
        match read(path, &bytes)? {
            Content::Whole { saved, bytes: whole } => {
                let file =
                    OpenOptions::new().append(true).open(path).map_err(fail("open the checkpoint log"))?;
                if whole < bytes.len() {
                    cut(&file, whole as u64).map_err(fail("cut the torn end of the checkpoint log"))?;
                }
                let log = Self {
                    path: path.to_owned(),
                    file,
                    bytes: whole as u64,
                    compact_at: COMPACT_BYTES,
                    saved: (*saved).clone(),
                };
                Ok((log, Opened::Read(saved)))
            }
            Content::Damaged => {
                let aside =
                    (1..).map(|n| path.with_extension(format!("damaged-{n}"))).find(|path| !path.exists());
                let aside = aside.unwrap_or_else(|| path.with_extension("damaged"));
                let put = fs::rename(path, aside).and_then(|()| point!(Point::AgentLogAside));
                put.map_err(fail("put aside the damaged checkpoint log"))?;
                let log = Self::create(path, Saved::default()).map_err(fail("create the checkpoint log"))?;
                Ok((log, Opened::Damaged))
            }
        }
    }

    /// A new log that starts with this, under another name first.
    fn create(path: &Path, saved: Saved) -> io::Result<Self> {
        let fresh = path.with_extension("new");
        let mut bytes = MAGIC.to_vec();
        bytes.push(FORMAT);
        if saved != Saved::default() {
            frame(&saved.snapshot(), &mut bytes)?;
        }
        point!(Point::AgentLogNew)?;
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(&fresh)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        point!(Point::AgentLogSynced)?;
        fs::rename(&fresh, path)?;
        point!(Point::AgentLogRenamed)?;
        if let Some(parent) = path.parent() {
            File::open(parent)?.sync_all()?;
        }
        let file = OpenOptions::new().append(true).open(path)?;
        let bytes = bytes.len() as u64;
        Ok(Self { path: path.to_owned(), file, bytes, compact_at: COMPACT_BYTES.max(bytes * 4), saved })
    }

    /// Appends batches and syncs once. After an error the log must not be used again: what a failed sync left
    /// is not known.
    pub(crate) fn append(&mut self, batches: &[Vec<Record>]) -> io::Result<()> {
        let records = batches.concat();
        // One frame: of a write that was cut short an early page may be missing and a later one whole.
        let mut bytes = Vec::new();
        frame(&records, &mut bytes)?;
        for record in &records {
            self.saved.apply(record);
        }
        point!(Point::CheckpointWrite)?;
        self.file.write_all(&bytes)?;
        point!(Point::CheckpointSync)?;
        self.file.sync_data()?;
        point!(Point::CheckpointDurable)?;
        self.bytes += bytes.len() as u64;
        if self.bytes > self.compact_at {
            *self = Self::create(&self.path, std::mem::take(&mut self.saved))?;
        }
        Ok(())
    }
}

/// Cuts a log off after so many bytes; durable when this returns.
fn cut(file: &File, bytes: u64) -> io::Result<()> {
    point!(Point::AgentLogTorn)?;
    file.set_len(bytes)?;
    point!(Point::AgentLogCut)?;
    file.sync_all()
}

fn frame(records: &Vec<Record>, bytes: &mut Vec<u8>) -> io::Result<()> {
    let body =
        bincode::serde::encode_to_vec(records, bincode::config::standard()).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(())
}

fn read(path: &Path, bytes: &[u8]) -> Result<Content, AgentError> {
    // The header was synced before the file got its name.
    if bytes.len() < HEADER_BYTES || !bytes.starts_with(MAGIC) {
        return Ok(Content::Damaged);
    }
    let format = bytes[MAGIC.len()];
    if format != FORMAT {
        return Err(AgentError::NewerFormat { path: path.to_owned(), found: format, known: FORMAT });
    }
    let mut saved = Saved::default();
    let mut at = HEADER_BYTES;
    while at < bytes.len() {
        match frame_at(&bytes[at..]) {
            Some((records, length)) => {
                for record in &records {
                    saved.apply(record);
                }
                at += length;
            }
            None if is_torn(&bytes[at..]) => break,
            None => return Ok(Content::Damaged),
        }
    }
    Ok(Content::Whole { saved: Box::new(saved), bytes: at })
}

/// The frame at the start of these bytes, if it is whole.
fn frame_at(bytes: &[u8]) -> Option<(Vec<Record>, usize)> {
    let length = u32::from_le_bytes(*bytes.first_chunk::<4>()?) as usize;
    let sum = u32::from_le_bytes(*bytes.get(4..)?.first_chunk::<4>()?);
    let body = bytes.get(FRAME_HEAD_BYTES..FRAME_HEAD_BYTES.checked_add(length)?)?;
    if length == 0 || crc32c::crc32c(body) != sum {
        return None;
    }
    let (records, _) = bincode::serde::decode_from_slice(body, bincode::config::standard()).ok()?;
    Some((records, FRAME_HEAD_BYTES + length))
}

/// Whether what cannot be read is the end of a write that was cut short: no whole frame follows anywhere. A
/// write is cut short only at the end, since each is synced before the next begins.
fn is_torn(bytes: &[u8]) -> bool {
    (1..bytes.len()).all(|from| frame_at(&bytes[from..]).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_model::{
        AgentId, CheckKind, CheckResult, CheckTerms, ExecutorId, ExecutorName, Fence, FrameworkId,
        HealthTerms, Index, LaunchNumber, Reason, Resources, Sealed, Source, Status, StatusUpdate, TaskGroup,
        TaskId, TaskKey, TaskState, TaskTerms, Term, Uuid, VolumeMount, VolumeNumber, WallTime,
    };
    use muster_node::{Cause, ExecutorIntent, Intent, LowMark, Process};

    fn fence(term: u64) -> Vec<Record> {
        vec![Record::Fence(Fence { incarnation: 1, term: Term(term) })]
    }

    fn written(terms: std::ops::RangeInclusive<u64>) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.log");
        let (mut log, opened) = Log::open(&path).unwrap();
        assert!(matches!(opened, Opened::New));
        for term in terms {
            log.append(&[fence(term)]).unwrap();
        }
        (dir, path)
    }

    fn term(path: &Path) -> Option<u64> {
        match Log::open(path).unwrap().1 {
            Opened::Read(saved) => Some(saved.fence.term.0),
            Opened::New => Some(0),
            Opened::Damaged => None,
        }
    }

    #[test]
    fn what_was_appended_is_read() {
        let (_dir, path) = written(1..=3);
        assert_eq!(term(&path), Some(3));
    }

    #[test]
    fn a_torn_tail_is_cut_and_the_log_goes_on() {
        let (_dir, path) = written(1..=3);
        let whole = fs::read(&path).unwrap();
        let (_dir2, shorter) = written(1..=2);
        let before = fs::read(&shorter).unwrap().len();
        for cut in before..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(term(&path), Some(2), "cut at {cut}");
            let (mut log, _) = Log::open(&path).unwrap();
            log.append(&[fence(9)]).unwrap();
            drop(log);
            assert_eq!(term(&path), Some(9), "cut at {cut}");
        }
    }

    #[test]
    fn a_last_write_is_torn_wherever_its_pages_are_missing() {
        let (_dir, path) = written(1..=2);
        let before = fs::read(&path).unwrap().len();
        let (mut log, _) = Log::open(&path).unwrap();
        log.append(&[fence(3), fence(4), fence(5)]).unwrap();
        drop(log);
        let whole = fs::read(&path).unwrap();
        for from in before..whole.len() {
            for to in from + 1..=whole.len() {
                let mut bytes = whole.clone();
                bytes[from..to].fill(0);
                fs::write(&path, &bytes).unwrap();
                let expected = if bytes == whole { 5 } else { 2 };
                assert_eq!(term(&path), Some(expected), "zeros from {from} to {to}");
            }
        }
    }

    #[test]
    fn a_tail_of_zeros_is_torn() {
        let (_dir, path) = written(1..=2);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(&[0; 100]);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(term(&path), Some(2));
    }

    #[test]
    fn damage_before_the_end_is_told_from_a_torn_tail_and_put_aside() {
        let (_dir, path) = written(1..=3);
        let whole = fs::read(&path).unwrap();
        let (_dir2, shorter) = written(1..=2);
        for at in 0..fs::read(&shorter).unwrap().len() {
            if at == MAGIC.len() {
                continue; // the format byte: told apart below
            }
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(term(&path), None, "flipped at {at}");
            assert_eq!(term(&path), Some(0), "a new log after damage at {at}");
        }
        assert!(path.with_extension("damaged-1").exists());
    }

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let (_dir, path) = written(1..=1);
        let mut bytes = fs::read(&path).unwrap();
        bytes[MAGIC.len()] = 9;
        fs::write(&path, &bytes).unwrap();
        let error = Log::open(&path).unwrap_err().to_string();
        assert!(error.contains("format 9"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn compaction_keeps_the_fold() {
        let (_dir, path) = written(1..=2);
        let (mut log, _) = Log::open(&path).unwrap();
        log.compact_at = log.bytes + 200;
        for term in 3..=60 {
            log.append(&[fence(term)]).unwrap();
        }
        assert!(log.bytes < 58 * 14, "{} bytes: it was never compacted", log.bytes);
        drop(log);
        assert_eq!(term(&path), Some(60));
    }

    /// One of each, in the order of their variants. Only ever added to.
    fn one_of_each() -> Vec<Record> {
        let launch = LaunchNumber { incarnation: 1, index: Index(700), n: 2 };
        let task = TaskKey { framework_id: FrameworkId::new("f"), task_id: TaskId::new("t") };
        let status = Status {
            state: TaskState::Running,
            source: Source::Executor,
            reason: Some(Reason::TaskInvalid),
            message: "m".into(),
            wall: WallTime(5),
            sealed: Sealed::new(*b"ab"),
        };
        let update = StatusUpdate { launch, task: task.clone(), seq: 1, uuid: Uuid::of(launch, 1), status };
        vec![
            Record::Snapshot(Box::default()),
            Record::Identity(AgentId::new("c-S1")),
            Record::Fence(Fence { incarnation: 1, term: Term(300) }),
            Record::LowMark(LowMark { incarnation: 1, index: Index(699) }),
            Record::Intent(Box::new(Intent {
                launch,
                task: task.clone(),
                resources: Resources::parse("cpus:1;ports:[1-2];s:{a}").unwrap(),
                grace_ms: Some(9),
                user: "u".into(),
                sealed: Sealed::new(*b"xyz"),
            })),
            Record::Started { launch, process: Process { pid: 4, start_time: 5, boot_id: "b".into() } },
            Record::KillWanted { launch, grace_ms: 6 },
            Record::Update(Box::new(update)),
            Record::Confirmed { launch, seq: 0 },
            Record::Refused { launch: LaunchNumber { n: 3, ..launch }, task },
            Record::Forgotten { launch: LaunchNumber { n: 3, ..launch } },
        ]
    }

    /// Of executors, likewise: one of each, in the order of their variants.
    fn one_of_each_of_executors() -> Vec<Record> {
        let executor = LaunchNumber { incarnation: 1, index: Index(700), n: 2 };
        let launch = LaunchNumber { n: 4, ..executor };
        let name = ExecutorName { framework_id: FrameworkId::new("f"), executor_id: ExecutorId::new("e") };
        vec![
            Record::Executors(Box::default()),
            Record::Executor(Box::new(ExecutorIntent {
                number: executor,
                name,
                resources: Resources::parse("cpus:1").unwrap(),
                grace_ms: Some(9),
                user: "u".into(),
                framework: Sealed::new(*b"fw"),
                sealed: Sealed::new(*b"xyz"),
            })),
            Record::InExecutor { launch, executor },
            Record::Handed { launch },
            Record::ExecutorHeld {
                executor,
                process: Process { pid: 4, start_time: 5, boot_id: "b".into() },
            },
            Record::ExecutorUnwanted { executor },
            Record::ExecutorEnded { executor, status: 256 },
            Record::ExecutorForgotten { executor: LaunchNumber { n: 3, ..executor } },
        ]
    }

    /// The records and the compacted log that they make have these bytes, and are read back from them.
    fn golden(all: &Vec<Record>, file: expect_test::ExpectFile) {
        let mut saved = Saved::default();
        all.iter().for_each(|record| saved.apply(record));
        let mut bytes = Vec::new();
        frame(all, &mut bytes).unwrap();
        frame(&saved.snapshot(), &mut bytes).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        file.assert_eq(&hex);
        let (records, length) = frame_at(&bytes).unwrap();
        assert_eq!(records, *all);
        let (records, _) = frame_at(&bytes[length..]).unwrap();
        let mut again = Saved::default();
        records.iter().for_each(|record| again.apply(record));
        assert_eq!(again, saved, "a compacted log has all of it");
    }

    #[test]
    fn golden_bytes_of_executors() {
        golden(&one_of_each_of_executors(), expect_test::expect_file!["golden/log-executors-1.hex"]);
    }

    /// Of frameworks and groups, likewise: one of each, in the order of their variants.
    fn one_of_each_of_groups() -> Vec<Record> {
        let first = LaunchNumber { incarnation: 1, index: Index(700), n: 2 };
        let second = LaunchNumber { n: 3, ..first };
        let group = TaskGroup { first, size: 2 };
        vec![
            Record::Frameworks(Box::default()),
            Record::Framework { framework_id: FrameworkId::new("f"), sealed: Sealed::new(*b"fw") },
            Record::Groups(Box::default()),
            Record::InGroup { launch: first, group },
            Record::InGroup { launch: second, group },
            Record::HandedGroup { launches: vec![first, second] },
        ]
    }

    #[test]
    fn golden_bytes_of_volumes() {
        let launch = LaunchNumber { incarnation: 1, index: Index(700), n: 2 };
        let volume = VolumeMount {
            number: VolumeNumber(1 << 40 | 7),
            container_path: "data/db".into(),
            read_only: false,
            executor: true,
        };
        let all = vec![Record::Volumes(Box::default()), Record::Mounts { launch, volumes: vec![volume] }];
        golden(&all, expect_test::expect_file!["golden/log-volumes-1.hex"]);
    }

    #[test]
    fn golden_bytes_of_killed_groups() {
        let first = LaunchNumber { incarnation: 1, index: Index(700), n: 2 };
        let all = vec![Record::KilledGroups(Box::default()), Record::KilledGroup { first }];
        golden(&all, expect_test::expect_file!["golden/log-killed-groups-1.hex"]);
    }

    /// Of tasks that the agent looks after and of built-in executors, one of each, in the order of their variants.
    #[test]
    fn golden_bytes_of_watched_and_built_in() {
        let launch = LaunchNumber { incarnation: 1, index: Index(700), n: 2 };
        let check = CheckTerms { kind: CheckKind::Http, delay_ms: 1, interval_ms: 300, timeout_ms: 70_000 };
        let terms = TaskTerms {
            tells_killing: true,
            completion_ms: Some(9),
            health: Some(HealthTerms { check, grace_ms: 2, failures_max: 3 }),
            check: Some(CheckTerms { kind: CheckKind::Tcp, ..check }),
        };
        let all = vec![
            Record::AllWatched(Box::default()),
            Record::Terms { launch, terms: Box::new(terms) },
            Record::Ran { launch, wall: WallTime(5) },
            Record::Health { launch, healthy: true },
            Record::Found { launch, found: CheckResult::Nothing(CheckKind::Command) },
            Record::Found { launch, found: CheckResult::Exit(-1) },
            Record::Found { launch, found: CheckResult::Status(200) },
            Record::Found { launch, found: CheckResult::Connected(true) },
            Record::EndedFor { launch, cause: Cause::Completion },
            Record::EndedFor { launch, cause: Cause::Unhealthy },
            Record::AllBuiltIn(Box::default()),
            Record::BuiltIn { executor: launch },
        ];
        golden(&all, expect_test::expect_file!["golden/log-watched-1.hex"]);
    }

    #[test]
    fn golden_bytes_of_frameworks_and_groups() {
        golden(&one_of_each_of_groups(), expect_test::expect_file!["golden/log-groups-1.hex"]);
    }

    /// The bytes of released versions are never edited.
    #[test]
    fn golden_bytes_of_format_1() {
        let mut saved = Saved::default();
        one_of_each().iter().for_each(|record| saved.apply(record));
        let mut bytes = Vec::new();
        frame(&one_of_each(), &mut bytes).unwrap();
        frame(&vec![Record::Snapshot(Box::new(saved))], &mut bytes).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        expect_test::expect_file!["golden/log-1.hex"].assert_eq(&hex);
        let (records, _) = frame_at(&bytes).unwrap();
        assert_eq!(records, one_of_each());
    }
}
