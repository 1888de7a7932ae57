//! sled, opened the one way that keeps what it acknowledges, and nothing else of it.

use super::{
    StoreOptions,
    rows::{self, Assembler, LogError, RowError},
    sync_dir,
};
use crate::types::{LogId, log_id};
use bytes::Bytes;
use muster_fault::Point;
use std::{
    fs::File,
    io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Fixed for a directory's life: a page over a quarter of it would go to `blobs/`, unsynced.
const SEGMENT_BYTES: usize = 8 << 20;
const CACHE_BYTES: u64 = 16 << 20;
/// How long another handle of this process may take to let the file go.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// An open sled database with a second handle of its file.
pub(crate) struct Disk {
    db: sled::Db,
    file: File,
    blobs: PathBuf,
    options: StoreOptions,
}

/// What the rows say.
#[derive(Default)]
pub(crate) struct Scan {
    /// Every entry above the purge point, gapless, with its length.
    pub(crate) entries: Vec<(LogId, u32)>,
    /// What was wrong with the row after the last good entry.
    pub(crate) problem: Option<LogError>,
    pub(crate) committed: Option<LogId>,
    /// Listed snapshots: index, term, length and checksum of the file.
    pub(crate) snapshots: Vec<(u64, u64, u64, u32)>,
    /// Whether rows at or below the purge point are left.
    pub(crate) leftovers: bool,
}

impl Disk {
    /// Opens the database and reads all of it from index `first` on, on a thread of its own: a damaged file makes sled panic.
    ///
    /// What was read may not be on disk yet: [`Self::sync`] comes before anybody acts on it.
    pub(crate) fn open(path: &Path, first: u64, options: StoreOptions) -> io::Result<(Self, Scan)> {
        let path = path.to_owned();
        let opening = thread::Builder::new().name("muster-log-open".into()).spawn(move || {
            catch_unwind(AssertUnwindSafe(|| {
                let disk = Self::open_sled(&path, options)?;
                let scan = disk.scan(first)?;
                Ok((disk, scan))
            }))
        })?;
        match opening.join() {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(panicked()),
        }
    }

    fn open_sled(path: &Path, options: StoreOptions) -> io::Result<Self> {
        options.step(Point::Open)?;
        let config = sled::Config::new()
            .path(path)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None);
        let deadline = Instant::now() + LOCK_WAIT;
        let db = loop {
            match config.open() {
                // sled reports a lock that another handle still holds as an error of input and output.
                Err(sled::Error::Io(error))
                    if error.to_string().contains("lock") && Instant::now() < deadline =>
                {
                    thread::sleep(Duration::from_millis(10));
                }
                other => break other.map_err(to_io)?,
            }
        };
        let file = File::open(path.join("db"))?;
        if let Ok(conf) = File::open(path.join("conf")) {
            conf.sync_all()?;
        }
        sync_dir(path)?;
        Ok(Self { db, file, blobs: path.join("blobs"), options })
    }

    /// A handle for readers.
    pub(crate) fn tree(&self) -> sled::Tree {
        (*self.db).clone()
    }

    /// Writes a batch; not durable before [`Self::sync`].
    pub(crate) fn apply(&self, batch: sled::Batch) -> io::Result<()> {
        self.db.apply_batch(batch).map_err(to_io)
    }

    /// Makes all that was written durable: the one function that every acknowledgement goes through.
    /// sled's own `flush` keeps neither the file's size nor the disk's cache.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.db.flush().map_err(to_io)?;
        self.options.step(Point::LogSync)?;
        if self.options.syncs() {
            self.file.sync_data()?;
        }
        match std::fs::read_dir(&self.blobs).map(|mut blobs| blobs.next().is_none()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(io::Error::other(
                "sled wrote a page to its blobs folder, which it never syncs; nothing more is acknowledged",
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes up to `limit` rows of a range; says whether more may be there.
    pub(crate) fn remove_rows(
        &self,
        range: (Bound<Vec<u8>>, Bound<Vec<u8>>),
        limit: usize,
    ) -> io::Result<bool> {
        let mut batch = sled::Batch::default();
        let mut count = 0;
        for key in self.db.range(range).keys().take(limit) {
            batch.remove(key.map_err(to_io)?);
            count += 1;
        }
        if count > 0 {
            self.apply(batch)?;
        }
        Ok(count == limit)
    }

    /// Reads every row.
    fn scan(&self, first: u64) -> io::Result<Scan> {
        let mut scan = Scan {
            leftovers: self.db.range(rows::log_key(0, 0)..rows::log_key(first, 0)).next().is_some(),
            ..Scan::default()
        };
        let mut assembler = Assembler::default();
        for row in self.db.range(rows::log_key(first, 0).to_vec()..vec![rows::LOG + 1]) {
            let (key, value) = row.map_err(to_io)?;
            match assembler.take(&key, &value) {
                Ok(None) => {}
                Ok(Some((id, payload))) => scan.entries.push((id, payload.len() as u32)),
                Err(error) => {
                    scan.problem = Some(error);
                    break;
                }
            }
        }
        scan.problem = scan.problem.or_else(|| assembler.unfinished());
        if let Some(value) = self.db.get([rows::COMMITTED]).map_err(to_io)?
            && let Ok((term, _, piece)) = rows::open(&[rows::COMMITTED], &value)
            && let Ok(index) = piece.try_into()
        {
            scan.committed = Some(log_id(term, u64::from_be_bytes(index)));
        }
        for row in self.db.scan_prefix([rows::SNAPSHOT]) {
            let (key, value) = row.map_err(to_io)?;
            // A row that does not verify lists nothing: its snapshot counts as absent.
            if let Ok((term, _, piece)) = rows::open(&key, &value)
                && let Some(listed) = parse_snapshot(&key, term, piece)
            {
                scan.snapshots.push(listed);
            }
        }
        Ok(scan)
    }
}

/// What a damaged file makes of sled.
pub(crate) fn panicked() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "sled panicked while opening")
}

fn parse_snapshot(key: &[u8], term: u64, piece: &[u8]) -> Option<(u64, u64, u64, u32)> {
    let index = u64::from_be_bytes(key.get(1..9)?.try_into().ok()?);
    let length = u64::from_be_bytes(piece.get(..8)?.try_into().ok()?);
    let crc = u32::from_be_bytes(piece.get(8..12)?.try_into().ok()?);
    Some((index, term, length, crc))
}

/// The catalogue row of a snapshot file.
pub(crate) fn snapshot_row(index: u64, term: u64, length: u64, crc: u32) -> Vec<u8> {
    let mut piece = length.to_be_bytes().to_vec();
    piece.extend_from_slice(&crc.to_be_bytes());
    rows::seal(&rows::snapshot_key(index), term, 1, &piece)
}

/// Reads entries from `start` on, until `end` or until they exceed `bytes_max` (but at least one).
pub(crate) fn read_entries(
    tree: &sled::Tree,
    start: u64,
    end: u64,
    bytes_max: usize,
) -> io::Result<Vec<(LogId, Bytes)>> {
    let mut entries: Vec<(LogId, Bytes)> = Vec::new();
    let mut assembler = Assembler::default();
    let mut bytes = 0;
    for row in tree.range(rows::log_key(start, 0)..rows::log_key(end, 0)) {
        let (key, value) = row.map_err(to_io)?;
        let entry = assembler
            .take(&key, &value)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        let Some((id, payload)) = entry else { continue };
        if id.index != start + entries.len() as u64
            || (!entries.is_empty() && bytes + payload.len() > bytes_max)
        {
            break;
        }
        bytes += payload.len();
        entries.push((id, payload));
    }
    Ok(entries)
}

/// Whether a failure to read says something of what is stored. Others say that the machine did not let us, for want of
/// room, files, rights or a device that works: nothing may be set aside for that.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::InvalidData
            | Kind::InvalidInput
            | Kind::UnexpectedEof
            | Kind::NotFound
            | Kind::AlreadyExists
            | Kind::IsADirectory
            | Kind::NotADirectory
            | Kind::Other
    )
}

/// Whether a problem means a newer version rather than damage.
pub(crate) fn is_newer(problem: &LogError) -> bool {
    matches!(problem, LogError::Row { source: RowError::Newer(_), .. })
}

fn to_io(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}
