//! The log as openraft sees it: readable at once, durable when the writer says so.

use super::{Store, disk, disk::Scan, lock, mark::Mark, mark::MarkedVote, writer::Op};
use crate::{
    codec,
    types::{LogEntry, LogId, TypeConfig, Vote, log_id, term_of},
};
use futures::Stream;
use openraft::{
    OptionalSend, RaftLogReader,
    storage::{IOFlushed, LogState, RaftLogStorage},
};
use std::{
    collections::VecDeque,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

/// Recent entries kept decoded, by their encoded size, so that replication and apply do not read sled.
const CACHE_BYTES_MAX: usize = 8 << 20;
/// How much one read gives, so that a message between masters stays small.
const READ_BYTES_MAX: usize = 2 << 20;

/// What readers share with the appending side.
pub(crate) struct LogShared {
    state: Mutex<Entries>,
    tree: RwLock<Option<sled::Tree>>,
}

/// Every entry above the purge point, and the newest of them in memory.
struct Entries {
    purged: Option<LogId>,
    /// The index of `sizes[0]`.
    first: u64,
    /// Term and encoded bytes of each entry.
    sizes: VecDeque<(u64, u32)>,
    /// The index of `cache[0]`; everything that is not durable yet is in the cache.
    cache_first: u64,
    cache: VecDeque<LogEntry>,
    cache_bytes: usize,
    /// Entries below this index are on disk.
    durable_end: u64,
    committed: Option<LogId>,
}

impl Entries {
    fn end(&self) -> u64 {
        self.first + self.sizes.len() as u64
    }

    fn last(&self) -> Option<LogId> {
        match self.sizes.back() {
            Some((term, _)) => Some(log_id(*term, self.end() - 1)),
            None => self.purged,
        }
    }

    fn bytes_of(&self, index: u64) -> usize {
        index
            .checked_sub(self.first)
            .and_then(|at| self.sizes.get(at as usize))
            .map_or(0, |(_, bytes)| *bytes as usize)
    }

    fn evict(&mut self) {
        while self.cache_bytes > CACHE_BYTES_MAX
            && self.cache_first < self.durable_end
            && !self.cache.is_empty()
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        self.cache_bytes -= self.bytes_of(self.cache_first).min(self.cache_bytes);
        self.cache.pop_front();
        self.cache_first += 1;
    }
}

impl LogShared {
    pub(super) fn new(mark: &Mark, scan: &Scan, tree: sled::Tree) -> Self {
        let purged = mark.purged.map(|id| log_id(id.term, id.index));
        let first = purged.map_or(0, |id| id.index + 1);
        let sizes: VecDeque<_> = scan.entries.iter().map(|(id, bytes)| (term_of(id), *bytes)).collect();
        let end = first + sizes.len() as u64;
        let mut state = Entries {
            purged,
            first,
            sizes,
            cache_first: end,
            cache: VecDeque::new(),
            cache_bytes: 0,
            durable_end: end,
            committed: None,
        };
        // Written lazily, so it may point beyond what survived.
        state.committed = scan.committed.min(state.last()).max(purged);
        Self { state: Mutex::new(state), tree: RwLock::new(Some(tree)) }
    }

    /// Lets sled go; nothing can be read afterwards.
    pub(super) fn close(&self) {
        self.tree.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// How many bytes the entries above `after` and up to `upto` have.
    pub(crate) fn bytes_between(&self, after: Option<u64>, upto: u64) -> u64 {
        let state = lock(&self.state);
        let from = after.map_or(0, |index| index + 1).max(state.first) - state.first;
        let to = (upto + 1).max(state.first) - state.first;
        let count = to.saturating_sub(from) as usize;
        state.sizes.iter().skip(from as usize).take(count).map(|(_, bytes)| u64::from(*bytes)).sum()
    }

    /// The newest index that may be purged so that at most `tail` bytes up to `upto` stay behind.
    pub(crate) fn purge_point(&self, upto: u64, tail: u64) -> Option<u64> {
        let state = lock(&self.state);
        let mut left = 0;
        let mut index = upto.min(state.end().checked_sub(1)?);
        while index >= state.first {
            left += state.bytes_of(index) as u64;
            if left > tail {
                return Some(index);
            }
            index = index.checked_sub(1)?;
        }
        None
    }

    /// Entries from `start` on until `end`, or fewer once they exceed `bytes_max`, but at least one if there is one.
    async fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<LogEntry>> {
        let (start, end, cached) = {
            let state = lock(&self.state);
            let (start, end) = (start.max(state.first), end.min(state.end()));
            if start >= end {
                return Ok(Vec::new());
            }
            if start < state.cache_first {
                (start, end.min(state.cache_first), None)
            } else {
                let mut bytes = 0;
                let from = (start - state.cache_first) as usize;
                let wanted = state.cache.iter().skip(from).zip(start..end).take_while(|(_, index)| {
                    bytes += state.bytes_of(*index);
                    *index == start || bytes <= bytes_max
                });
                (start, end, Some(wanted.map(|(entry, _)| entry.clone()).collect()))
            }
        };
        match cached {
            Some(entries) => Ok(entries),
            None => self.read_disk(start, end, bytes_max).await,
        }
    }

    async fn read_disk(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<LogEntry>> {
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner).clone();
        let tree = tree.ok_or_else(|| io::Error::other("the store is closed"))?;
        let read = tokio::task::spawn_blocking(move || {
            let rows = disk::read_entries(&tree, start, end, bytes_max)?;
            rows.into_iter()
                .map(|(id, payload)| codec::decode_entry(id, payload).map_err(io::Error::other))
                .collect::<io::Result<Vec<_>>>()
        });
        let entries = read.await.map_err(io::Error::other)??;
        let still_there = lock(&self.state).first <= start;
        if entries.is_empty() && still_there {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("entry {start} is gone from the log"),
            ));
        }
        Ok(entries)
    }
}

/// The writing side.
pub(crate) struct LogStore {
    store: Arc<Store>,
}

impl LogStore {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = lock(&self.store.log.state);
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last() })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader { store: self.store.clone() }
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = MarkedVote {
            term: vote.leader_id.term,
            node_id: vote.leader_id.voted_for,
            committed: vote.committed,
        };
        self.store.change_mark(move |mark| mark.vote = Some(vote)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(id) = committed else { return Ok(()) };
        lock(&self.store.log.state).committed = Some(id);
        self.store.send(Op::Committed(id)).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(lock(&self.store.log.state).committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut rows = Vec::new();
        let end = {
            let mut state = lock(&self.store.log.state);
            for entry in entries {
                let payload = codec::encode_payload(&entry.payload).map_err(io::Error::other)?;
                if payload.len() > super::rows::ENTRY_BYTES_MAX {
                    return Err(io::Error::other("an entry is larger than the log can hold"));
                }
                state.sizes.push_back((term_of(&entry.log_id), payload.len() as u32));
                state.cache_bytes += payload.len();
                rows.push((entry.log_id, payload));
                state.cache.push_back(entry);
            }
            state.evict();
            state.end()
        };
        let log = self.store.log.clone();
        let done = Box::new(move |result: io::Result<()>| {
            if result.is_ok() {
                let mut state = lock(&log.state);
                state.durable_end = state.durable_end.max(end.min(state.end()));
                state.evict();
            }
            callback.io_completed(result);
        });
        self.store.send(Op::Append { entries: rows, done }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        {
            let mut state = lock(&self.store.log.state);
            let end = last.map_or(0, |id| id.index + 1).max(state.first);
            while state.end() > end {
                let bytes = state.sizes.pop_back().map_or(0, |(_, bytes)| bytes as usize);
                if state.cache.pop_back().is_some() {
                    state.cache_bytes -= bytes.min(state.cache_bytes);
                }
            }
            state.cache_first = state.cache_first.min(end);
            state.durable_end = state.durable_end.min(end);
        }
        self.store.ask(|done| Op::Truncate { after: last, done }).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        // openraft purges only behind a snapshot that it was told of; ours are durable before we tell.
        if self.store.newest_snapshot().is_none_or(|snapshot| snapshot.index < upto.index) {
            return Err(io::Error::other(format!("no durable snapshot covers the log up to {}", upto.index)));
        }
        self.store.ask(|done| Op::Purge { upto, done }).await?;
        let mut state = lock(&self.store.log.state);
        if state.purged.is_none_or(|old| old.index < upto.index) {
            state.purged = Some(upto);
        }
        while state.cache_first <= upto.index && !state.cache.is_empty() {
            state.drop_oldest();
        }
        while state.first <= upto.index && !state.sizes.is_empty() {
            state.sizes.pop_front();
            state.first += 1;
        }
        // A snapshot may reach beyond the last entry.
        state.first = state.first.max(upto.index + 1);
        state.cache_first = state.cache_first.max(state.first);
        state.durable_end = state.durable_end.max(state.first);
        Ok(())
    }
}

/// Reads the log; openraft holds one for each peer.
pub(crate) struct LogReader {
    store: Arc<Store>,
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(&at) => at,
        Bound::Excluded(&at) => at + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&at) => at + 1,
        Bound::Excluded(&at) => at,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<LogEntry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (mut start, end) = bounds(&range);
        let mut all = Vec::new();
        loop {
            let mut some = self.store.log.read(start, end, READ_BYTES_MAX).await?;
            let Some(last) = some.last() else { return Ok(all) };
            start = last.log_id.index + 1;
            all.append(&mut some);
        }
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<LogEntry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let store = self.store.clone();
        let reads = futures::stream::try_unfold(start, move |start| {
            let store = store.clone();
            async move {
                if start >= end {
                    return Ok(None);
                }
                let entries = store.log.read(start, end, READ_BYTES_MAX).await?;
                let next = entries.last().map(|entry| entry.log_id.index + 1);
                Ok::<_, io::Error>(
                    next.map(|next| (futures::stream::iter(entries.into_iter().map(Ok)), next)),
                )
            }
        });
        futures::TryStreamExt::try_flatten(reads)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let vote = lock(&self.store.mark).vote;
        Ok(vote.map(|vote| {
            let mut read = Vote::new(vote.term, vote.node_id);
            read.committed = vote.committed;
            read
        }))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<LogEntry>, io::Error> {
        self.store.log.read(start, end, READ_BYTES_MAX).await
    }
}
