//! The durable mark: who this data directory is and what it has acknowledged, in a small file beside sled.
//!
//! Two slots in different blocks; a write touches only the older one, so a torn write leaves the newer.
//! sled does not notice damage by itself (`stack-notes`): a log that ends below the mark is a damaged log.

use super::{StoreOptions, sync_dir};
use crate::codec::{self, CodecError};
use muster_fault::Point;
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

/// Its name in the data directory.
pub(crate) const MARK: &str = "mark";
const MAGIC: &[u8; 8] = b"MUSTERMK";
/// A multiple of every block size in use.
const SLOT_BYTES: usize = 64 * 1024;
/// magic, layout, sequence, length, checksum.
const HEAD_BYTES: usize = 8 + 4 + 8 + 4 + 4;
/// The layout of a data directory; a newer one is refused.
const LAYOUT: u32 = 1;

/// One configured member with the node id that its data directory drew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Founder {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) node_id: u64,
}

/// What the creator asks every member to keep before the cluster starts (`protocol` H28).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Founding {
    pub(crate) members: Vec<Founder>,
    /// The creator's count of attempts; a newer record replaces an older.
    pub(crate) sequence: u64,
}

/// A vote as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MarkedVote {
    pub(crate) term: u64,
    pub(crate) node_id: u64,
    pub(crate) committed: bool,
}

/// A log id as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct MarkedLog {
    pub(crate) term: u64,
    pub(crate) index: u64,
}

/// What must survive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Drawn when the directory was created, never used again elsewhere (`protocol` H27).
    pub(crate) node_id: u64,
    /// The configured name of the master whose directory this is.
    pub(crate) name: String,
    /// Of the cluster that it was founded in or joined.
    pub(crate) cluster_id: Option<String>,
    /// Raised only by an explicit recovery.
    pub(crate) incarnation: u32,
    /// Present at the founders.
    pub(crate) founding: Option<Founding>,
    /// Whether the cluster took it in as a learner.
    pub(crate) joined: bool,
    /// The node id and the reason of the damaged directory that this one replaces.
    pub(crate) damage: Option<(u64, String)>,
    /// Only here, never in sled.
    pub(crate) vote: Option<MarkedVote>,
    /// The last log id that was ever said to be stored.
    pub(crate) last: Option<MarkedLog>,
    /// Everything up to it is in a durable snapshot; rows at or below it are ignored.
    pub(crate) purged: Option<MarkedLog>,
}

impl Mark {
    /// Whether it has taken part in nothing yet: it may be founded.
    pub(crate) fn blank(&self) -> bool {
        self.vote.is_none() && self.last.is_none() && self.purged.is_none()
    }
}

/// Why a mark cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MarkError {
    #[error("layout {0} is newer than this version knows ({LAYOUT})")]
    Newer(u32),
    #[error("neither slot of the mark has a valid checksum")]
    Damaged,
    #[error("the mark does not decode")]
    Decode(#[source] CodecError),
    #[error("cannot read the mark")]
    Io(#[from] io::Error),
}

/// The open file of the mark.
pub(crate) struct MarkFile {
    file: File,
    sequence: u64,
    options: StoreOptions,
}

impl MarkFile {
    /// Creates the file with its first mark: durable, with its name, when this returns.
    pub(crate) fn create(dir: &Path, mark: &Mark, options: StoreOptions) -> io::Result<Self> {
        let path = dir.join(MARK);
        let temp = dir.join("mark.tmp");
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&temp)?;
        file.write_all_at(&vec![0; 2 * SLOT_BYTES], 0)?;
        let mut this = Self { file, sequence: 0, options };
        this.write(mark)?;
        this.sync_all()?;
        this.options.step(Point::MarkSynced)?;
        std::fs::rename(&temp, &path)?;
        this.options.step(Point::MarkRenamed)?;
        sync_dir(dir)?;
        Ok(this)
    }

    /// Opens the file and reads the newer valid slot.
    pub(crate) fn open(dir: &Path, options: StoreOptions) -> Result<(Self, Mark), MarkError> {
        let file = OpenOptions::new().read(true).write(true).open(dir.join(MARK))?;
        let mut best: Option<(u64, Vec<u8>)> = None;
        for slot in 0..2 {
            if let Some((sequence, body)) = read_slot(&file, slot)?
                && best.as_ref().is_none_or(|(newest, _)| sequence > *newest)
            {
                best = Some((sequence, body));
            }
        }
        let (sequence, body) = best.ok_or(MarkError::Damaged)?;
        let mark = codec::decode(&body).map_err(MarkError::Decode)?;
        Ok((Self { file, sequence, options }, mark))
    }

    /// Overwrites the older slot; durable when this returns.
    pub(crate) fn write(&mut self, mark: &Mark) -> io::Result<()> {
        let body = codec::encode(mark).map_err(io::Error::other)?;
        if HEAD_BYTES + body.len() > SLOT_BYTES {
            return Err(io::Error::other(format!(
                "the mark has {} bytes, more than a slot holds",
                body.len()
            )));
        }
        self.sequence += 1;
        let mut slot = Vec::with_capacity(HEAD_BYTES + body.len());
        slot.extend_from_slice(MAGIC);
        slot.extend_from_slice(&LAYOUT.to_le_bytes());
        slot.extend_from_slice(&self.sequence.to_le_bytes());
        slot.extend_from_slice(&(body.len() as u32).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&slot), &body);
        slot.extend_from_slice(&crc.to_le_bytes());
        slot.extend_from_slice(&body);
        self.options.step(Point::MarkWrite)?;
        self.file.write_all_at(&slot, self.sequence % 2 * SLOT_BYTES as u64)?;
        self.options.step(Point::MarkSync)?;
        if self.options.syncs() { self.file.sync_data() } else { Ok(()) }
    }

    fn sync_all(&self) -> io::Result<()> {
        if self.options.syncs() { self.file.sync_all() } else { Ok(()) }
    }
}

/// The sequence and the body of a slot, none when it is empty or torn.
fn read_slot(file: &File, slot: u64) -> Result<Option<(u64, Vec<u8>)>, MarkError> {
    let mut bytes = vec![0; SLOT_BYTES];
    let mut have = 0;
    while have < SLOT_BYTES {
        match file.read_at(&mut bytes[have..], slot * SLOT_BYTES as u64 + have as u64)? {
            0 => break,
            n => have += n,
        }
    }
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let length = word(20) as usize;
    if bytes[..8] != *MAGIC || HEAD_BYTES + length > have {
        return Ok(None);
    }
    let body = &bytes[HEAD_BYTES..HEAD_BYTES + length];
    if word(24) != crc32c::crc32c_append(crc32c::crc32c(&bytes[..24]), body) {
        return Ok(None);
    }
    // Checked after the checksum, so that a torn slot is never taken for a newer layout.
    if word(8) > LAYOUT {
        return Err(MarkError::Newer(word(8)));
    }
    let sequence = u64::from(word(12)) | u64::from(word(16)) << 32;
    Ok(Some((sequence, body.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(index: u64) -> Mark {
        Mark { node_id: 42, last: Some(MarkedLog { term: 1, index }), ..Mark::default() }
    }

    #[test]
    fn a_torn_write_leaves_the_mark_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = MarkFile::create(dir.path(), &mark(1), StoreOptions::default()).unwrap();
        file.write(&mark(2)).unwrap();
        let before = std::fs::read(dir.path().join(MARK)).unwrap();
        file.write(&mark(3)).unwrap();
        let after = std::fs::read(dir.path().join(MARK)).unwrap();
        drop(file);
        let changed: Vec<usize> = (0..before.len()).filter(|&at| before[at] != after[at]).collect();
        assert!(!changed.is_empty());
        // Every prefix of the write, byte by byte.
        for cut in 0..=changed.len() {
            let mut torn = before.clone();
            changed[..cut].iter().for_each(|&at| torn[at] = after[at]);
            std::fs::write(dir.path().join(MARK), &torn).unwrap();
            let (_, read) = MarkFile::open(dir.path(), StoreOptions::default()).unwrap();
            let expected = if cut == changed.len() { 3 } else { 2 };
            assert_eq!(read, mark(expected), "cut after {cut} changed bytes");
        }
    }

    #[test]
    fn slots_lie_in_different_blocks_and_alternate() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = MarkFile::create(dir.path(), &mark(1), StoreOptions::default()).unwrap();
        for index in 2..6 {
            let before = std::fs::read(dir.path().join(MARK)).unwrap();
            file.write(&mark(index)).unwrap();
            let after = std::fs::read(dir.path().join(MARK)).unwrap();
            let blocks: std::collections::BTreeSet<usize> =
                (0..after.len()).filter(|&at| before[at] != after[at]).map(|at| at / SLOT_BYTES).collect();
            assert_eq!(blocks.len(), 1, "one write touched {blocks:?}");
            let (_, read) = MarkFile::open(dir.path(), StoreOptions::default()).unwrap();
            assert_eq!(read, mark(index));
        }
    }

    #[test]
    fn damage_and_newer_layouts_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        MarkFile::create(dir.path(), &mark(1), StoreOptions::default()).unwrap();
        let good = std::fs::read(dir.path().join(MARK)).unwrap();
        let mut newer = good.clone();
        newer[SLOT_BYTES + 8] = 9;
        let body_end = SLOT_BYTES + HEAD_BYTES + newer[SLOT_BYTES + 20] as usize;
        let crc = crc32c::crc32c_append(
            crc32c::crc32c(&newer[SLOT_BYTES..SLOT_BYTES + 24]),
            &newer[SLOT_BYTES + HEAD_BYTES..body_end],
        );
        newer[SLOT_BYTES + 24..SLOT_BYTES + 28].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(dir.path().join(MARK), &newer).unwrap();
        assert!(matches!(MarkFile::open(dir.path(), StoreOptions::default()), Err(MarkError::Newer(9))));
        let mut bad = good;
        bad[SLOT_BYTES + 30] ^= 1;
        std::fs::write(dir.path().join(MARK), &bad).unwrap();
        assert!(matches!(MarkFile::open(dir.path(), StoreOptions::default()), Err(MarkError::Damaged)));
    }
}
