//! Snapshot files: a head and the registry's records, in chunks with a checksum each.
//!
//! Written to a temporary name, synced, renamed, the folder synced; then listed in sled. The last two are kept.

use super::{Restored, StoreOptions, sync_dir};
use crate::{
    codec::{self, CodecError},
    types::{LogId, SnapshotMeta, StoredMembership, log_id, term_of},
};
use muster_fault::Point;
use muster_registry::{Known, ReadyTask, Record, Registry};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// The folder in the data directory.
pub(crate) const SNAPSHOTS: &str = "snapshots";
const MAGIC: &[u8; 8] = b"MUSTSNAP";
const LAYOUT: u32 = 1;
const CHUNK_BYTES: usize = 256 * 1024;
/// What is written of a file between two syncs. All of it at once would keep the disk for as long as it takes, and the log's syncs
/// with it: leaders lost their quorum by snapshots of 100 MiB.
pub(crate) const SYNC_BYTES: u64 = 1 << 20;
/// How long whoever writes a snapshot rests at most at each sync. It rests for as long as it worked, so that half of its processor
/// and of the disk are left to those who do something for clients, whatever the system makes of its priority.
const REST_MAX: Duration = Duration::from_millis(100);
/// Records that are made ready while others are put in their places, and how many such batches may wait.
const BATCH_RECORDS: usize = 256;
const BATCHES_AHEAD: usize = 8;
/// A length beyond this was never written.
const CHUNK_BYTES_MAX: usize = 1 << 30;

/// The first record of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    term: u64,
    index: u64,
    membership_log: Option<(u64, u64)>,
    membership: Vec<u8>,
}

/// Why a file is not a snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// Reading failed.
    #[error("cannot read the snapshot")]
    Io(#[from] io::Error),
    /// Not one of ours.
    #[error("the file is no snapshot")]
    Magic,
    /// Written by a newer version.
    #[error("the snapshot has layout {0}; this version reads layouts up to {LAYOUT}: upgrade muster")]
    Newer(u32),
    /// Damaged.
    #[error("a chunk's checksum does not match")]
    Checksum,
    /// Cut short, or longer than its end says.
    #[error("the snapshot is cut short")]
    Short,
    /// A record does not decode.
    #[error("a record of the snapshot is unreadable: {0}")]
    Record(#[from] CodecError),
    /// The records make no registry.
    #[error("the snapshot's records are out of order")]
    Order,
}

/// A snapshot file and what it covers.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotFile {
    pub(crate) path: PathBuf,
    /// The registry in it, when it was read already.
    pub(crate) registry: Option<Registry>,
}

/// The name of the file that covers everything up to this id.
pub(crate) fn file_name(id: &LogId) -> String {
    format!("{:020}-{}.snap", id.index, term_of(id))
}

/// Length and checksum of a whole file.
pub(crate) type Fingerprint = (u64, u32);

/// Those of a file, for the catalogue.
pub(crate) fn fingerprint(path: &Path) -> io::Result<Fingerprint> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut length, mut crc) = (0, 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((length, crc)),
            n => {
                length += n as u64;
                crc = crc32c::crc32c_append(crc, &buffer[..n]);
            }
        }
    }
}

/// Writes a registry under its name and says what the file is like; durable when this returns. A failure leaves nothing behind.
pub(crate) fn write(
    dir: &Path,
    meta: &SnapshotMeta,
    registry: &Registry,
    options: &StoreOptions,
) -> io::Result<Fingerprint> {
    let id = meta.last_log_id.ok_or_else(|| io::Error::other("there is nothing to take a snapshot of"))?;
    let temp = dir.join(format!("{}.writing", file_name(&id)));
    let written = write_file(&temp, &id, meta, registry, options);
    let published = written.and_then(|written| publish(&temp, dir, &id, options).map(|_| written));
    if published.is_err() {
        // It may be what filled the disk.
        std::fs::remove_file(&temp).ok();
    }
    published
}

fn write_file(
    temp: &Path,
    id: &LogId,
    meta: &SnapshotMeta,
    registry: &Registry,
    options: &StoreOptions,
) -> io::Result<Fingerprint> {
    let membership = codec::encode_membership(meta.last_membership.membership()).map_err(io::Error::other)?;
    let head = Head {
        term: term_of(id),
        index: id.index,
        membership_log: meta.last_membership.log_id().as_ref().map(|id| (term_of(id), id.index)),
        membership,
    };
    let file = Steady::new(File::create(temp)?, options.syncs());
    let mut chunks = ChunkWriter::new(BufWriter::new(Passing::new(file)))?;
    chunks.record(&codec::encode(&head).map_err(io::Error::other)?)?;
    for record in registry.records() {
        chunks.record(&codec::encode(&record).map_err(io::Error::other)?)?;
    }
    let Passing { of: Steady { file, .. }, length, crc } = chunks.finish()?;
    options.step(Point::SnapshotWritten)?;
    if options.syncs() {
        file.sync_all()?;
    }
    options.step(Point::SnapshotSynced)?;
    Ok((length, crc))
}

/// Gives a complete, synced file its name.
pub(crate) fn publish(temp: &Path, dir: &Path, id: &LogId, options: &StoreOptions) -> io::Result<PathBuf> {
    let path = dir.join(file_name(id));
    std::fs::rename(temp, &path)?;
    options.step(Point::SnapshotRenamed)?;
    if options.syncs() {
        sync_dir(dir)?;
    }
    options.step(Point::SnapshotDurable)?;
    Ok(path)
}

/// Reads and verifies a whole file.
pub(crate) fn read(path: &Path) -> Result<Restored, SnapshotError> {
    read_file(path).map(|(read, _)| read)
}

/// The same of a file that must have this length and checksum. It is read once.
pub(crate) fn read_listed(path: &Path, length: u64, crc: u32) -> Result<Restored, SnapshotError> {
    match read_file(path) {
        Ok((read, found)) if found == (length, crc) => Ok(read),
        Ok(_) => Err(SnapshotError::Checksum),
        // What says that a newer version wrote it is only believed of a file that is as it was listed.
        Err(SnapshotError::Newer(_) | SnapshotError::Record(codec::CodecError::Newer(_)))
            if fingerprint(path)? != (length, crc) =>
        {
            Err(SnapshotError::Checksum)
        }
        Err(error) => Err(error),
    }
}

/// What is in a file, and its length and checksum.
fn read_file(path: &Path) -> Result<(Restored, Fingerprint), SnapshotError> {
    let mut reader = ChunkReader::new(BufReader::new(Passing::new(File::open(path)?)))?;
    let head: Head = codec::decode(reader.record()?.ok_or(SnapshotError::Short)?)?;
    let membership = codec::decode_membership(&head.membership)?;
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(head.term, head.index)),
        last_membership: StoredMembership::new(
            head.membership_log.map(|(term, index)| log_id(term, index)),
            membership,
        ),
    };
    // Making records ready takes about as long as putting them in their places.
    let (to, ready) = mpsc::sync_channel(BATCHES_AHEAD);
    let (read, restored) = thread::scope(|scope| {
        let reading = scope.spawn(move || read_records(reader, &to));
        let restored = Registry::restore_ready(ready.into_iter().flatten());
        (reading.join(), restored)
    });
    let (reader, known) = read.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let registry = restored.map_err(|_| SnapshotError::Order)?.knowing(known);
    let Passing { length, crc, .. } = reader.from.into_inner();
    Ok(((meta, registry), (length, crc)))
}

/// Reads all that is left and makes it ready, as long as somebody takes it.
fn read_records<R: Read>(
    mut reader: ChunkReader<R>,
    to: &mpsc::SyncSender<Vec<Record<ReadyTask>>>,
) -> Result<(ChunkReader<R>, Known), SnapshotError> {
    let mut known = Known::default();
    let mut batch = Vec::with_capacity(BATCH_RECORDS);
    while let Some(bytes) = reader.record()? {
        batch.push(known.ready(codec::decode(bytes)?));
        if batch.len() == BATCH_RECORDS {
            let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH_RECORDS));
            if to.send(full).is_err() {
                // The records are out of order, which whoever took them says.
                return Ok((reader, known));
            }
        }
    }
    to.send(batch).ok();
    Ok((reader, known))
}

/// Takes length and checksum of all that is read or written.
struct Passing<T> {
    of: T,
    length: u64,
    crc: u32,
}

impl<T> Passing<T> {
    fn new(of: T) -> Self {
        Self { of, length: 0, crc: 0 }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }
}

impl<R: Read> Read for Passing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.of.read(buffer)?;
        self.take(&buffer[..n]);
        Ok(n)
    }
}

impl<W: Write> Write for Passing<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.of.write(data)?;
        self.take(&data[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.of.flush()
    }
}

/// A file that comes to the disk as it is written, and leaves others time meanwhile.
struct Steady {
    file: File,
    syncs: bool,
    unsynced: u64,
    /// When the last rest ended.
    rested: Instant,
}

impl Steady {
    fn new(file: File, syncs: bool) -> Self {
        Self { file, syncs, unsynced: 0, rested: Instant::now() }
    }
}

impl Write for Steady {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.file.write(data)?;
        self.unsynced += n as u64;
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            if self.syncs {
                self.file.sync_data()?;
            }
            thread::sleep(self.rested.elapsed().min(REST_MAX));
            self.rested = Instant::now();
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

struct ChunkWriter<W> {
    to: W,
    chunk: Vec<u8>,
    records: u64,
}

impl<W: Write> ChunkWriter<BufWriter<W>> {
    fn new(mut to: BufWriter<W>) -> io::Result<Self> {
        to.write_all(MAGIC)?;
        to.write_all(&LAYOUT.to_le_bytes())?;
        Ok(Self { to, chunk: Vec::with_capacity(CHUNK_BYTES), records: 0 })
    }

    fn record(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.chunk.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.chunk.extend_from_slice(bytes);
        self.records += 1;
        if self.chunk.len() >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.chunk.is_empty() {
            self.chunk_out()?;
            self.chunk.clear();
        }
        Ok(())
    }

    fn chunk_out(&mut self) -> io::Result<()> {
        self.to.write_all(&(self.chunk.len() as u32).to_le_bytes())?;
        self.to.write_all(&crc32c::crc32c(&self.chunk).to_le_bytes())?;
        self.to.write_all(&self.chunk)
    }

    /// The end: an empty chunk, then how many records there were.
    fn finish(mut self) -> io::Result<W> {
        self.flush()?;
        let count = self.records.to_le_bytes();
        self.to.write_all(&0u32.to_le_bytes())?;
        self.to.write_all(&crc32c::crc32c(&count).to_le_bytes())?;
        self.to.write_all(&count)?;
        self.to.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

struct ChunkReader<R> {
    from: R,
    chunk: Vec<u8>,
    at: usize,
    records: u64,
    ended: bool,
}

impl<R: Read> ChunkReader<R> {
    fn new(mut from: R) -> Result<Self, SnapshotError> {
        let mut magic = [0; 8];
        from.read_exact(&mut magic).map_err(short)?;
        if magic != *MAGIC {
            return Err(SnapshotError::Magic);
        }
        match u32::from_le_bytes(read_array(&mut from)?) {
            LAYOUT => Ok(Self { from, chunk: Vec::new(), at: 0, records: 0, ended: false }),
            newer => Err(SnapshotError::Newer(newer)),
        }
    }

    /// The next record; none at the proper end.
    fn record(&mut self) -> Result<Option<&[u8]>, SnapshotError> {
        if self.at == self.chunk.len() && !self.ended {
            self.next_chunk()?;
        }
        if self.ended {
            return Ok(None);
        }
        let rest = &self.chunk[self.at..];
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(SnapshotError::Short)?;
        let length = u32::from_le_bytes(*length) as usize;
        let bytes = rest.get(..length).ok_or(SnapshotError::Short)?;
        self.at += 4 + length;
        self.records += 1;
        Ok(Some(bytes))
    }

    fn next_chunk(&mut self) -> Result<(), SnapshotError> {
        let length = u32::from_le_bytes(read_array(&mut self.from)?) as usize;
        let crc = u32::from_le_bytes(read_array(&mut self.from)?);
        if length == 0 {
            let count: [u8; 8] = read_array(&mut self.from)?;
            if crc32c::crc32c(&count) != crc {
                return Err(SnapshotError::Checksum);
            }
            if u64::from_le_bytes(count) != self.records || self.from.read(&mut [0])? != 0 {
                return Err(SnapshotError::Short);
            }
            self.ended = true;
            return Ok(());
        }
        if length > CHUNK_BYTES_MAX {
            return Err(SnapshotError::Checksum);
        }
        self.chunk.clear();
        self.at = 0;
        // Reads what is there before it believes the length.
        let read = (&mut self.from).take(length as u64).read_to_end(&mut self.chunk)?;
        if read != length {
            return Err(SnapshotError::Short);
        }
        if crc32c::crc32c(&self.chunk) != crc {
            return Err(SnapshotError::Checksum);
        }
        Ok(())
    }
}

fn read_array<const N: usize>(from: &mut impl Read) -> Result<[u8; N], SnapshotError> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).map_err(short)?;
    Ok(bytes)
}

fn short(error: io::Error) -> SnapshotError {
    if error.kind() == io::ErrorKind::UnexpectedEof { SnapshotError::Short } else { SnapshotError::Io(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_model::{ClusterId, Index, Term, Timestamp};
    use muster_registry::{Command, Entry};

    fn sample(dir: &Path) -> (PathBuf, Registry) {
        let mut registry = Registry::new(ClusterId::new("c1"), 1);
        let entry =
            Entry { term: Term(1), at: Timestamp(500), commands: vec![Command::Tick], ..Entry::default() };
        registry.apply(Index(3), Term(1), &entry);
        let meta =
            SnapshotMeta { last_log_id: Some(log_id(1, 3)), last_membership: StoredMembership::default() };
        write(dir, &meta, &registry, &StoreOptions::default()).unwrap();
        (dir.join(file_name(&log_id(1, 3))), registry)
    }

    #[test]
    fn a_snapshot_reads_back_equal() {
        let dir = tempfile::tempdir().unwrap();
        let (path, registry) = sample(dir.path());
        let (meta, again) = read(&path).unwrap();
        assert_eq!(meta.last_log_id, Some(log_id(1, 3)));
        assert_eq!(again.state_hash(), registry.state_hash());
        assert_eq!(again.clock(), registry.clock());
    }

    #[test]
    fn a_snapshot_with_tasks_reads_back_equal() {
        let dir = tempfile::tempdir().unwrap();
        let registry = crate::golden::registry();
        assert!(registry.task_count() > 0);
        let meta =
            SnapshotMeta { last_log_id: Some(log_id(1, 3)), last_membership: StoredMembership::default() };
        let (length, crc) = write(dir.path(), &meta, &registry, &StoreOptions::default()).unwrap();
        let path = dir.path().join(file_name(&log_id(1, 3)));
        assert_eq!(fingerprint(&path).unwrap(), (length, crc));
        let (_, again) = read_listed(&path, length, crc).unwrap();
        assert_eq!(again, registry);
        assert_eq!(again.state_hash(), registry.state_hash());
        again.check_laws().unwrap();
    }

    #[test]
    fn little_of_a_file_waits_for_its_sync() {
        let mut steady = Steady::new(tempfile::tempfile().unwrap(), true);
        for length in [1, SYNC_BYTES / 3, SYNC_BYTES - 1, SYNC_BYTES, 3 * SYNC_BYTES + 1] {
            steady.write_all(&vec![7; length as usize]).unwrap();
            assert!(steady.unsynced < SYNC_BYTES, "{} after {length} more", steady.unsynced);
        }
        let written = 1 + SYNC_BYTES / 3 + SYNC_BYTES - 1 + SYNC_BYTES + 3 * SYNC_BYTES + 1;
        assert_eq!(steady.file.metadata().unwrap().len(), written);
    }

    #[test]
    fn only_the_listed_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (path, _) = sample(dir.path());
        let (length, crc) = fingerprint(&path).unwrap();
        assert!(read_listed(&path, length, crc).is_ok());
        assert!(matches!(read_listed(&path, length + 1, crc), Err(SnapshotError::Checksum)));
        assert!(matches!(read_listed(&path, length, crc ^ 1), Err(SnapshotError::Checksum)));
        // One of a newer version is told from one whose layout was damaged.
        let mut newer = std::fs::read(&path).unwrap();
        newer[MAGIC.len()] += 1;
        std::fs::write(&path, &newer).unwrap();
        assert!(matches!(read_listed(&path, length, crc), Err(SnapshotError::Checksum)));
        let (length, crc) = fingerprint(&path).unwrap();
        assert!(matches!(read_listed(&path, length, crc), Err(SnapshotError::Newer(2))));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, _) = sample(dir.path());
        let good = std::fs::read(&path).unwrap();
        let (length, crc) = fingerprint(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bad).unwrap();
            assert!(read(&path).is_err(), "bit {bit}");
            let listed = read_listed(&path, length, crc);
            assert!(!matches!(listed, Ok(_) | Err(SnapshotError::Newer(_))), "bit {bit}");
        }
        for length in 0..good.len() {
            std::fs::write(&path, &good[..length]).unwrap();
            assert!(read(&path).is_err(), "cut to {length}");
        }
        let mut longer = good;
        longer.push(0);
        std::fs::write(&path, &longer).unwrap();
        assert!(read(&path).is_err());
    }
}
