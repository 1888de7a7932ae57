//! The thread that owns the log: it drains what waits, writes it, syncs once, and says how far it came.

use super::Log;
use muster_node::Record;
use std::{io, thread};
use tokio::sync::{mpsc, watch};

/// Checkpoints that may wait; the agent's loop waits beyond that.
const WAITING_MAX: usize = 1_024;

/// How far the log is durable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Durable {
    /// All checkpoints up to this ticket.
    pub(crate) ticket: u64,
    /// Why none will follow.
    pub(crate) failed: Option<String>,
}

/// The way to the thread.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: mpsc::Sender<(u64, Vec<Record>)>,
    durable: watch::Receiver<Durable>,
    thread: thread::JoinHandle<()>,
}

impl Writer {
    /// Starts the thread; it ends when the writer is dropped.
    pub(crate) fn start(log: Log) -> io::Result<Self> {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let (said, durable) = watch::channel(Durable::default());
        let thread =
            thread::Builder::new().name("checkpoints".into()).spawn(move || write(log, waiting, &said))?;
        Ok(Self { queue, durable, thread })
    }

    /// Writes what waits and closes the log.
    pub(crate) async fn end(self) {
        drop(self.queue);
        let thread = self.thread;
        // A thread that panicked has nothing more to write.
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }

    /// Queues a checkpoint; waits while too many do. The thread waits for nobody, so this cannot hang.
    pub(crate) async fn checkpoint(&self, ticket: u64, records: Vec<Record>) {
        // A thread that is gone has said why: `durable` tells.
        let _ = self.queue.send((ticket, records)).await;
    }

    /// The next news.
    pub(crate) async fn durable(&mut self) -> Durable {
        match self.durable.changed().await {
            Ok(()) => self.durable.borrow_and_update().clone(),
            Err(_) => Durable { ticket: 0, failed: Some("its thread ended".into()) },
        }
    }
}

fn write(mut log: Log, mut waiting: mpsc::Receiver<(u64, Vec<Record>)>, said: &watch::Sender<Durable>) {
    while let Some((mut ticket, records)) = waiting.blocking_recv() {
        let mut batches = vec![records];
        while let Ok((next, records)) = waiting.try_recv() {
            ticket = next;
            batches.push(records);
        }
        let failed = log.append(&batches).err().map(|error| error.to_string());
        let stop = failed.is_some();
        said.send_modify(|durable| match failed {
            Some(_) => durable.failed = failed,
            None => durable.ticket = ticket,
        });
        if stop {
            return; // a failed sync is never tried again: the second one lies
        }
    }
}
