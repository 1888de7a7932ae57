//! Reading the log of a directory that no master uses: every entry, and what it did to the registry.

use super::{
    LOG_DIR, SNAPSHOTS, StoreOptions,
    disk::{self, Disk},
    hold,
    mark::{MARK, MarkError, MarkFile},
    proof::{self, Proof},
    snapshot,
};
use crate::{
    codec,
    error::OpenError,
    types::{LogPayload, Member, term_of},
};
use muster_model::{ClusterId, Index, Term};
use muster_registry::{Entry, Outcome, Registry};
use std::{collections::VecDeque, fs::File, io, path::Path};

/// How much is read at once.
const READ_BYTES: usize = 2 << 20;

/// The entries of a log, oldest first, each applied to the registry as it stood before it.
///
/// What the directory's master knew to be committed comes first; what follows was stored and may have been replaced
/// by other entries in the end. Entries older than the oldest snapshot that is left are given without what they did.
pub struct Replay {
    registry: Registry,
    /// The registry stands here; what lies at or below it cannot be applied.
    base: u64,
    committed: u64,
    next: u64,
    end: u64,
    read: VecDeque<(crate::types::LogId, bytes::Bytes)>,
    disk: Disk,
    /// Read instead of the log itself, which sled would rewrite. Removed after the disk is closed.
    _copy: Proof,
    _held: File,
}

/// One entry of a log.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// Its index.
    pub index: Index,
    /// The term in which it was written.
    pub term: Term,
    /// Whether the master knew that it is committed.
    pub is_committed: bool,
    /// What it says.
    pub content: Content,
    /// What it did: the outcome of each command, and the hash of the registry after it. None for an entry that the
    /// oldest snapshot covers.
    pub applied: Option<(Vec<Outcome>, u64)>,
}

/// What an entry says.
#[derive(Debug, Clone)]
pub enum Content {
    /// Nothing: a leader's first.
    Blank,
    /// Who the masters are, and which of them vote.
    Members(Vec<(Member, bool)>),
    /// What is to be done.
    Commands(Box<Entry>),
}

/// Opens the log of a data directory for reading. Nothing in it is changed; a copy of its log is made beside it, and
/// removed when the replay is dropped.
///
/// # Errors
/// The directory is in use, is no master's data directory, or is damaged.
pub fn replay(dir: &Path) -> Result<Replay, OpenError> {
    let unusable = |source| OpenError::Directory { path: dir.into(), source };
    if !dir.join(MARK).is_file() {
        let source = io::Error::new(io::ErrorKind::NotFound, "it holds no file `mark`: no master wrote it");
        return Err(unusable(source));
    }
    let held = hold(dir)?;
    proof::discard(dir).map_err(unusable)?;
    let options = StoreOptions::default();
    let corrupted = |why: String| OpenError::Corrupted { path: dir.into(), why };
    let (_, mark) = MarkFile::open(dir, options.clone()).map_err(|error| match error {
        MarkError::Io(source) => unusable(source),
        MarkError::Newer(layout) => OpenError::Newer { path: dir.into(), what: format!("layout {layout}") },
        other => corrupted(other.to_string()),
    })?;
    let copy = Proof::of(dir, &dir.join(LOG_DIR), &options)?;
    let first = mark.purged.map_or(0, |purged| purged.index + 1);
    let opened = Disk::open(copy.path(), first, options);
    let (disk, scan) = opened.map_err(|error| corrupted(format!("the log does not open: {error}")))?;
    if let Some(problem) = scan.problem.filter(disk::is_newer) {
        return Err(OpenError::Newer { path: dir.into(), what: problem.to_string() });
    }
    let cluster_id = mark.cluster_id.as_deref().unwrap_or("unfounded");
    let mut registry = Registry::new(ClusterId::new(cluster_id), mark.incarnation);
    let mut base = 0;
    if let Some(purged) = mark.purged {
        // Behind the purge point entries are missing: an older snapshot leads to no entry that is there.
        let fit = scan.snapshots.iter().filter(|(index, ..)| *index >= purged.index);
        let readable = fit.into_iter().find_map(|&(index, term, length, crc)| {
            let path = dir.join(SNAPSHOTS).join(snapshot::file_name(&crate::types::log_id(term, index)));
            snapshot::read_listed(&path, length, crc).ok().map(|(_, registry)| (index, registry))
        });
        let (index, oldest) = readable.ok_or_else(|| {
            corrupted(format!("no readable snapshot covers the log up to {}", purged.index))
        })?;
        (base, registry) = (index, oldest);
    }
    let committed = scan.committed.map_or(base, |id| id.index.max(base));
    let end = first + scan.entries.len() as u64;
    Ok(Replay {
        registry,
        base,
        committed,
        next: first,
        end,
        read: VecDeque::new(),
        disk,
        _copy: copy,
        _held: held,
    })
}

impl Replay {
    fn step(&mut self) -> io::Result<Option<Replayed>> {
        if self.read.is_empty() && self.next < self.end {
            self.read = disk::read_entries(&self.disk.tree(), self.next, self.end, READ_BYTES)?.into();
        }
        let Some((id, payload)) = self.read.pop_front() else { return Ok(None) };
        self.next = id.index + 1;
        let (index, term) = (Index(id.index), Term(term_of(&id)));
        let entry = codec::decode_entry(id, payload).map_err(io::Error::other)?;
        let is_new = id.index > self.base || self.base == 0;
        let (content, outcomes) = match entry.payload {
            LogPayload::Blank => (Content::Blank, Vec::new()),
            LogPayload::Membership(membership) => {
                let voters: Vec<u64> = membership.voter_ids().collect();
                let member = |(id, member): (&u64, &Member)| (member.clone(), voters.contains(id));
                (Content::Members(membership.nodes().map(member).collect()), Vec::new())
            }
            LogPayload::Normal(proposal) => {
                let entry = proposal.entry().clone();
                let outcomes = is_new.then(|| self.registry.apply(index, term, &entry).outcomes);
                (Content::Commands(Box::new(entry)), outcomes.unwrap_or_default())
            }
        };
        if is_new {
            self.registry.skip(index);
        }
        let applied = is_new.then(|| (outcomes, self.registry.state_hash()));
        Ok(Some(Replayed { index, term, is_committed: id.index <= self.committed, content, applied }))
    }
}

impl Iterator for Replay {
    type Item = io::Result<Replayed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}
