//! The thread that writes: it drains what is queued into one group, makes it durable, moves the mark, and
//! only then answers, in order. The first failed sync ends it: nothing is acknowledged afterwards.

use super::{
    StoreOptions,
    disk::Disk,
    mark::{Mark, MarkFile, MarkedLog},
    rows,
};
use crate::types::{LogId, term_of};
use bytes::Bytes;
use muster_fault::Point;
use std::{
    io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot, watch};

/// A group that holds so much takes no further append, so that no entry waits long for the sync of those that it shares one with.
const GROUP_BYTES_MAX: usize = 1 << 20;
const GROUP_OPS_MAX: usize = 1_024;
/// Rows deleted behind the purge point between two groups.
const SWEEP_ROWS: usize = 64;

/// A group that takes so long is told of: by default a leader whose quorum does not answer for 300 ms ends.
const SLOW: Duration = Duration::from_millis(200);
/// How often at most.
const SLOW_TOLD_EVERY: Duration = Duration::from_secs(10);

/// Told once what became of an append.
pub(crate) type Callback = Box<dyn FnOnce(io::Result<()>) + Send>;
type Reply = oneshot::Sender<io::Result<()>>;

/// What the thread can be asked.
pub(crate) enum Op {
    /// Store entries that follow the last one.
    Append { entries: Vec<(LogId, Bytes)>, done: Callback },
    /// Remember this with the next group; not durable by itself.
    Committed(LogId),
    /// Change the mark: a vote, the founding, a join.
    Mark { change: Box<dyn FnOnce(&mut Mark) + Send>, done: Reply },
    /// Drop everything after this id.
    Truncate { after: Option<LogId>, done: Reply },
    /// Forget everything up to this id: a durable snapshot holds it.
    Purge { upto: LogId, done: Reply },
    /// List a durable snapshot, and drop others from the list.
    Catalogue { index: u64, value: Vec<u8>, drop: Vec<u64>, done: Reply },
    /// Write what is queued and end.
    Stop { done: oneshot::Sender<()> },
}

/// What the thread owns.
pub(crate) struct Writer {
    pub(crate) disk: Disk,
    pub(crate) mark_file: MarkFile,
    pub(crate) mark: Mark,
    /// A copy for readers, updated once the file is durable.
    pub(crate) shared_mark: Arc<Mutex<Mark>>,
    pub(crate) failed: watch::Sender<Option<String>>,
    pub(crate) options: StoreOptions,
    pub(crate) committed: Option<LogId>,
    /// Whether rows at or below the purge point may still be there.
    pub(crate) sweeping: bool,
    pub(crate) slow: Slow,
}

/// Groups that took long, since it was told of one.
#[derive(Default)]
pub(crate) struct Slow {
    groups: u64,
    told: Option<Instant>,
}

impl Slow {
    /// Whether a group is to be told of that took so long, and of how many.
    fn tell(&mut self, took: Duration, now: Instant) -> Option<u64> {
        if took < SLOW {
            return None;
        }
        self.groups += 1;
        if self.told.is_some_and(|told| now.duration_since(told) < SLOW_TOLD_EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.groups))
    }
}

impl Writer {
    /// Works until it is told to stop or everyone who could ask is gone.
    pub(crate) fn run(mut self, mut ops: mpsc::Receiver<Op>) {
        let mut held: Option<Op> = None;
        loop {
            let op = match held.take() {
                Some(op) => Some(op),
                None if self.sweeping && !self.is_failed() => match ops.try_recv() {
                    Ok(op) => Some(op),
                    Err(mpsc::error::TryRecvError::Disconnected) => None,
                    Err(mpsc::error::TryRecvError::Empty) => {
                        self.guarded(Self::sweep).ok();
                        continue;
                    }
                },
                None => ops.blocking_recv(),
            };
            match op {
                None => break,
                Some(Op::Append { entries, done }) => held = self.group(entries, done, &mut ops),
                Some(Op::Committed(id)) => self.committed = Some(id),
                Some(Op::Mark { change, done }) => {
                    let result = self.guarded(|this| {
                        let mut mark = this.mark.clone();
                        change(&mut mark);
                        // Into both slots: a slot that is damaged later is taken for torn, and the other one
                        // must know as much. Of appends the log tells, of a vote nothing else.
                        this.write_mark(mark.clone())?;
                        this.options.step(Point::VoteMarked)?;
                        this.write_mark(mark)?;
                        this.options.step(Point::VoteKept)
                    });
                    done.send(result).ok();
                }
                Some(Op::Truncate { after, done }) => {
                    let result = self.guarded(|this| this.truncate(after));
                    done.send(result).ok();
                }
                Some(Op::Purge { upto, done }) => {
                    let result = self.guarded(|this| this.purge(upto));
                    done.send(result).ok();
                }
                Some(Op::Catalogue { index, value, drop, done }) => {
                    let result = self.guarded(|this| this.catalogue(index, value, &drop));
                    done.send(result).ok();
                }
                Some(Op::Stop { done }) => {
                    self.guarded(Self::write_committed).ok();
                    drop(self);
                    done.send(()).ok();
                    return;
                }
            }
        }
    }

    /// Collects the appends that wait, up to the first other operation, and answers all of them after one sync.
    fn group(
        &mut self,
        entries: Vec<(LogId, Bytes)>,
        done: Callback,
        ops: &mut mpsc::Receiver<Op>,
    ) -> Option<Op> {
        let mut held = None;
        let mut bytes: usize = entries.iter().map(|(_, payload)| payload.len()).sum();
        let mut all = entries;
        let mut callbacks = vec![done];
        while bytes < GROUP_BYTES_MAX && callbacks.len() < GROUP_OPS_MAX {
            match ops.try_recv() {
                Ok(Op::Append { entries, done }) => {
                    bytes += entries.iter().map(|(_, payload)| payload.len()).sum::<usize>();
                    all.extend(entries);
                    callbacks.push(done);
                }
                Ok(Op::Committed(id)) => self.committed = Some(id),
                Ok(other) => {
                    held = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        let result = self.guarded(|this| this.append(&all));
        for callback in callbacks {
            callback(match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
        if self.sweeping && result.is_ok() {
            self.guarded(Self::sweep).ok();
        }
        held
    }

    fn is_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    /// Runs one piece of work. After the first failure, a panic of sled included, nothing works any more.
    fn guarded(&mut self, work: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if let Some(why) = self.failed.borrow().as_ref() {
            return Err(io::Error::other(format!("the store has failed: {why}")));
        }
        let result = catch_unwind(AssertUnwindSafe(|| work(self)))
            .unwrap_or_else(|_| Err(io::Error::other("sled panicked; see the output of the process")));
        if let Err(error) = &result {
            self.failed.send_replace(Some(format!("its data cannot be stored: {error}")));
        }
        result
    }

    fn append(&mut self, entries: &[(LogId, Bytes)]) -> io::Result<()> {
        let Some((last, _)) = entries.last() else { return Ok(()) };
        let mut batch = sled::Batch::default();
        for (id, payload) in entries {
            rows::cut(id, payload).for_each(|(key, value)| batch.insert(&key, value));
        }
        if let Some(id) = self.committed.take() {
            batch.insert(&[rows::COMMITTED], committed_value(id));
        }
        self.options.step(Point::Append)?;
        let begun = Instant::now();
        self.disk.apply(batch)?;
        let written = Instant::now();
        self.options.step(Point::AppendWritten)?;
        self.disk.sync()?;
        let synced = Instant::now();
        self.options.step(Point::AppendDurable)?;
        self.write_mark(Mark { last: Some(marked(last)), ..self.mark.clone() })?;
        self.options.step(Point::AppendMarked)?;
        let ended = Instant::now();
        if let Some(groups) = self.slow.tell(ended - begun, ended) {
            let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(
                write_ms = ms(written - begun),
                sync_ms = ms(synced - written),
                mark_ms = ms(ended - synced),
                bytes = entries.iter().map(|(_, payload)| payload.len()).sum::<usize>(),
                groups,
                "the log was slow to become durable; where a quorum is that slow the leader ends"
            );
        }
        Ok(())
    }

    fn truncate(&mut self, after: Option<LogId>) -> io::Result<()> {
        let last = after.as_ref().map(marked).max(self.mark.purged);
        self.options.step(Point::Truncate)?;
        self.write_mark(Mark { last, ..self.mark.clone() })?;
        self.options.step(Point::TruncateMarked)?;
        let from = after.map_or(0, |id| id.index + 1);
        while self
            .disk
            .remove_rows((Bound::Included(rows::log_key(from, 0).to_vec()), end_of_log()), 1_024)?
        {}
        self.options.step(Point::TruncateDeleted)?;
        self.disk.sync()?;
        self.options.step(Point::TruncateDurable)?;
        Ok(())
    }

    fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let purged = Some(marked(&upto)).max(self.mark.purged);
        self.options.step(Point::Purge)?;
        // By index: after a snapshot the purge point may lie beyond the last entry.
        let last = match (self.mark.last, purged) {
            (Some(last), Some(point)) if last.index > point.index => Some(last),
            (_, point) => point,
        };
        self.write_mark(Mark { last, purged, ..self.mark.clone() })?;
        self.options.step(Point::PurgeMarked)?;
        self.sweeping = true;
        Ok(())
    }

    /// Deletes some rows behind the purge point; durable with whatever is synced next.
    fn sweep(&mut self) -> io::Result<()> {
        let Some(purged) = self.mark.purged else {
            self.sweeping = false;
            return Ok(());
        };
        let end = Bound::Excluded(rows::log_key(purged.index + 1, 0).to_vec());
        self.sweeping =
            self.disk.remove_rows((Bound::Included(rows::log_key(0, 0).to_vec()), end), SWEEP_ROWS)?;
        self.options.step(Point::PurgeDeleted)?;
        if !self.sweeping {
            self.disk.sync()?;
        }
        Ok(())
    }

    fn catalogue(&mut self, index: u64, value: Vec<u8>, drop: &[u64]) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        batch.insert(&rows::snapshot_key(index), value);
        drop.iter().for_each(|&old| batch.remove(&rows::snapshot_key(old)));
        self.options.step(Point::Catalogue)?;
        self.disk.apply(batch)?;
        self.disk.sync()?;
        self.options.step(Point::CatalogueDurable)?;
        Ok(())
    }

    fn write_committed(&mut self) -> io::Result<()> {
        let Some(id) = self.committed.take() else { return Ok(()) };
        let mut batch = sled::Batch::default();
        batch.insert(&[rows::COMMITTED], committed_value(id));
        self.disk.apply(batch)?;
        self.disk.sync()
    }

    fn write_mark(&mut self, mark: Mark) -> io::Result<()> {
        self.mark_file.write(&mark)?;
        *self.shared_mark.lock().unwrap_or_else(PoisonError::into_inner) = mark.clone();
        self.mark = mark;
        Ok(())
    }
}

fn committed_value(id: LogId) -> Vec<u8> {
    rows::seal(&[rows::COMMITTED], term_of(&id), 1, &id.index.to_be_bytes())
}

fn end_of_log() -> Bound<Vec<u8>> {
    Bound::Excluded(vec![rows::LOG + 1])
}

/// A log id as the mark keeps it.
pub(crate) fn marked(id: &LogId) -> MarkedLog {
    MarkedLog { term: term_of(id), index: id.index }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_groups_are_told_of_and_not_all_the_time() {
        let mut slow = Slow::default();
        let start = Instant::now();
        assert_eq!(slow.tell(SLOW - Duration::from_millis(1), start), None);
        assert_eq!(slow.tell(SLOW, start), Some(1));
        assert_eq!(slow.tell(SLOW * 2, start + SLOW), None);
        assert_eq!(slow.tell(SLOW / 2, start + SLOW_TOLD_EVERY), None);
        assert_eq!(slow.tell(SLOW, start + SLOW_TOLD_EVERY), Some(2), "with the one in between");
    }
}
