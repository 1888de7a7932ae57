//! The registry under openraft: applies what is committed, feeds the open reign, takes and installs snapshots.

use crate::{
    clock::Clock,
    store::{Store, lock, snapshot},
    types::{LogId, LogPayload, Member, Proposal, SnapshotMeta, StoredMembership, TypeConfig, term_of},
};
use futures::{Stream, StreamExt};
use muster_fault::{Point, planted, point_async};
use muster_model::{Index, Term};
use muster_registry::{Change, Command, Outcome, Registry};
use openraft::{
    OptionalSend, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine},
};
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{mpsc, watch},
};

pub(crate) use crate::store::snapshot::SnapshotFile;
pub(crate) type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotFile>;

/// Entries taken at once.
const BATCH_ENTRIES: usize = 256;
/// The lock is given back after so long, at the end of an entry, so that those who look at the registry have their turn.
const HELD: Duration = Duration::from_millis(5);
/// Entries of so many bytes take some milliseconds.
const HEAVY_BYTES: usize = 256 << 10;
/// Batches that may wait for the leader to take them.
const REIGN_BATCHES: usize = 64;

/// Pairs of entries that a planted bug applies the wrong way round after a snapshot.
const DISORDERS: u32 = 16;

/// What a batch of committed entries did, in order.
#[derive(Debug, Clone)]
pub struct AppliedBatch {
    /// The entries that hold commands.
    pub entries: Vec<AppliedEntry>,
}

/// What one entry did.
#[derive(Debug, Clone)]
pub struct AppliedEntry {
    /// Where it is in the log.
    pub index: Index,
    /// The term of its log id.
    pub term: Term,
    /// Names its first command, if this leader decided it in this term.
    pub first_ticket: u64,
    /// What became of each command.
    pub outcomes: Vec<Outcome>,
    /// What changed.
    pub changes: Vec<Change>,
}

/// What openraft's machine and everyone else share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Beside the registry: whoever asks for it never waits until something is applied. Locked after `state`, never before.
    known: Mutex<Known>,
    pub(crate) clock: Clock,
}

/// What is asked for all the time.
#[derive(Default)]
struct Known {
    /// The last log id applied.
    last: Option<LogId>,
    reign: Option<OpenReign>,
    /// A process leads at most once in a term.
    begun: u64,
}

struct State {
    registry: Registry,
    last: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<SnapshotMeta>,
    /// A snapshot came in and nothing was applied since.
    installed: bool,
    /// What a planted bug applies after the entry that follows it, and how often it does so yet.
    late: Option<(Index, Term, Proposal)>,
    disorders: u32,
}

#[derive(Clone)]
struct OpenReign {
    term: u64,
    applied: mpsc::Sender<AppliedBatch>,
    /// Closes with the reign.
    open: watch::Sender<()>,
}

/// What a new reign starts with.
pub(crate) struct NewReign {
    pub(crate) applied: mpsc::Receiver<AppliedBatch>,
    /// Closes with the reign.
    pub(crate) open: watch::Receiver<()>,
}

impl Shared {
    /// Starts from an empty registry or from a snapshot.
    pub(crate) fn new(registry: Registry, snapshot: Option<SnapshotMeta>) -> Self {
        let clock = Clock::new(registry.clock());
        let last = snapshot.as_ref().and_then(|meta| meta.last_log_id);
        let membership = snapshot.as_ref().map(|meta| meta.last_membership.clone()).unwrap_or_default();
        let (installed, late, disorders) = Default::default();
        let state = State { registry, last, membership, snapshot, installed, late, disorders };
        let known = Known { last, ..Known::default() };
        Self { state: Mutex::new(state), known: Mutex::new(known), clock }
    }

    /// The registry and what is with it; apply waits meanwhile. Who waits for apply keeps no task from running that shares
    /// its thread.
    fn state(&self) -> MutexGuard<'_, State> {
        match self.state.try_lock() {
            Ok(state) => state,
            Err(_) => block_in_place(|| lock(&self.state)),
        }
    }

    /// Looks at the registry as it stands; apply waits meanwhile.
    pub(crate) fn with_registry<R>(&self, look: impl FnOnce(&Registry) -> R) -> R {
        look(&self.state().registry)
    }

    /// A frozen copy.
    pub(crate) fn registry(&self) -> Registry {
        self.state().registry.clone()
    }

    /// Replaces the registry of a replica that has applied nothing yet, once its cluster is known.
    pub(crate) fn found(&self, registry: Registry) {
        let mut state = self.state();
        if state.last.is_none() {
            state.registry = registry;
        }
    }

    /// The last log id applied.
    pub(crate) fn last(&self) -> Option<LogId> {
        lock(&self.known).last
    }

    /// Opens a reign: the registry as it is, and everything applied from then on. None when this process
    /// led in this term already.
    pub(crate) fn begin(&self, term: u64) -> Option<NewReign> {
        // Not in the middle of what is being applied: all of that is in the registry, or none.
        let _state = self.state();
        let mut known = lock(&self.known);
        if known.begun >= term {
            return None;
        }
        let (sender, applied) = mpsc::channel(REIGN_BATCHES);
        let (still_open, open) = watch::channel(());
        known.begun = term;
        known.reign = Some(OpenReign { term, applied: sender, open: still_open });
        Some(NewReign { applied, open })
    }

    /// Ends the reign of this term or of an earlier one: its stream of what is applied closes.
    pub(crate) fn end(&self, term: u64) {
        let mut known = lock(&self.known);
        if known.reign.as_ref().is_some_and(|reign| reign.term <= term) {
            known.reign = None;
        }
    }

    /// The term of the open reign.
    pub(crate) fn reigning(&self) -> Option<u64> {
        lock(&self.known).reign.as_ref().map(|reign| reign.term)
    }

    /// Whether this process began, and no longer has, a reign in this term.
    pub(crate) fn over(&self, term: u64) -> bool {
        let known = lock(&self.known);
        known.begun >= term && known.reign.as_ref().is_none_or(|reign| reign.term != term)
    }
}

/// The machine that openraft drives.
pub(crate) struct Machine {
    pub(crate) shared: Arc<Shared>,
    pub(crate) store: Arc<Store>,
}

type Responder = openraft::storage::ApplyResponder<TypeConfig>;

impl Machine {
    /// Applies under one lock what there is time for and says what to tell whom.
    fn apply_some(
        &self,
        batch: &mut VecDeque<Result<EntryResponder<TypeConfig>, io::Error>>,
        responders: &mut Vec<Responder>,
    ) -> io::Result<Option<Telling>> {
        let mut entries = Vec::new();
        let mut stamp = None;
        let mut state = lock(&self.shared.state);
        let reign = lock(&self.shared.known).reign.clone();
        let began = Instant::now();
        while let Some(item) = batch.pop_front() {
            let (entry, responder) = item?;
            let (index, term) = (Index(entry.log_id.index), Term(term_of(&entry.log_id)));
            match entry.payload {
                LogPayload::Blank => state.registry.skip(index),
                LogPayload::Membership(membership) => {
                    state.registry.skip(index);
                    state.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
                LogPayload::Normal(proposal) => {
                    let first_ticket = proposal.entry().first_ticket;
                    let is_own =
                        planted!(UnequalReplicas) && (self.store.mark().node_id ^ index.0).is_multiple_of(64);
                    if is_own || (planted!(SkipAfterSnapshot) && std::mem::take(&mut state.installed)) {
                        state.registry.skip(index);
                        continue;
                    }
                    if planted!(ReorderAfterSnapshot) && state.late.is_none() && state.disorders > 0 {
                        state.disorders -= 1;
                        state.registry.skip(index);
                        state.late = Some((index, term, proposal));
                        continue;
                    }
                    let applied = state.registry.apply(index, term, proposal.entry());
                    if let Some((index, term, late)) = state.late.take() {
                        state.registry.apply(index, term, late.entry());
                    }
                    stamp = Some((term.0, first_ticket));
                    if reign.is_some() {
                        let (outcomes, changes) = (applied.outcomes, applied.changes);
                        entries.push(AppliedEntry { index, term, first_ticket, outcomes, changes });
                    }
                }
            }
            state.last = Some(entry.log_id);
            responders.extend(responder);
            if began.elapsed() >= HELD {
                break;
            }
        }
        if let Some((term, first_ticket)) = stamp {
            self.shared.clock.applied(state.registry.clock(), term, first_ticket);
        }
        lock(&self.shared.known).last = state.last;
        let reign = reign.filter(|_| !entries.is_empty());
        Ok(reign.map(|OpenReign { term, applied: to, open }| Telling {
            term,
            to,
            open: open.subscribe(),
            batch: AppliedBatch { entries },
        }))
    }
}

/// Whether applying these may take so long that others must not wait for it.
fn is_heavy<'a>(payloads: impl IntoIterator<Item = &'a LogPayload>) -> bool {
    let mut bytes = 0;
    payloads.into_iter().any(|payload| {
        let LogPayload::Normal(proposal) = payload else { return false };
        bytes += proposal.bytes().len();
        bytes >= HEAVY_BYTES || proposal.entry().commands.iter().any(changes_much)
    })
}

/// Whether a command, short as it is, may change all agents, or all tasks of one of their owners.
fn changes_much(command: &Command) -> bool {
    matches!(
        command,
        Command::BeginTerm(_)
            | Command::Teardown { .. }
            | Command::ExpireFramework { .. }
            | Command::MarkUnreachable { .. }
            | Command::MarkGone { .. }
            | Command::StartMaintenance(_)
    )
}

/// Does something that takes long. Where there is one thread alone everybody waits for it.
fn block_in_place<R>(long: impl FnOnce() -> R) -> R {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(long),
        _ => long(),
    }
}

/// A batch on its way to the reign that was open when it was applied.
struct Telling {
    term: u64,
    to: mpsc::Sender<AppliedBatch>,
    open: watch::Receiver<()>,
    batch: AppliedBatch,
}

impl Telling {
    /// Waits until the leader has room, or its reign ends: apply never hangs on a leader that is none.
    async fn tell(mut self, shared: &Shared) {
        tokio::select! {
            sent = self.to.send(self.batch) => if sent.is_err() {
                // Whoever reigned let go of the stream.
                shared.end(self.term);
            },
            _ = self.open.changed() => {}
        }
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = lock(&self.shared.state);
        Ok((state.last, state.membership.clone()))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut batches = entries.ready_chunks(BATCH_ENTRIES);
        while let Some(batch) = batches.next().await {
            let mut batch = VecDeque::from(batch);
            let mut goes_on = false;
            while !batch.is_empty() {
                if std::mem::replace(&mut goes_on, true) {
                    tokio::task::yield_now().await;
                }
                let mut responders = Vec::new();
                point_async!(Point::Apply).await?;
                let told = match is_heavy(batch.iter().flatten().map(|(entry, _)| &entry.payload)) {
                    // The other tasks of this thread, heartbeats and votes among them, do not wait for it.
                    true => block_in_place(|| self.apply_some(&mut batch, &mut responders))?,
                    false => self.apply_some(&mut batch, &mut responders)?,
                };
                point_async!(Point::Applied).await?;
                if let Some(telling) = told {
                    telling.tell(&self.shared).await;
                }
                responders.into_iter().for_each(|responder| responder.send(()));
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let state = lock(&self.shared.state);
        Builder {
            shared: self.shared.clone(),
            store: self.store.clone(),
            meta: SnapshotMeta { last_log_id: state.last, last_membership: state.membership.clone() },
            registry: state.registry.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, file: SnapshotFile) -> Result<(), io::Error> {
        let id = meta.last_log_id.ok_or_else(|| io::Error::other("a snapshot of nothing"))?;
        let registry = match file.registry {
            Some(registry) => registry,
            None => {
                let path = file.path.clone();
                let read = tokio::task::spawn_blocking(move || snapshot::read(&path));
                read.await.map_err(io::Error::other)?.map_err(io::Error::other)?.1
            }
        };
        point_async!(Point::SnapshotInstall).await?;
        let dir = self.store.snapshot_dir();
        if file.path != dir.join(snapshot::file_name(&id)) {
            snapshot::publish(&file.path, &dir, &id, self.store.options())?;
            self.store.list_received(id).await?;
        }
        let old = {
            let mut state = lock(&self.shared.state);
            state.last = Some(id);
            lock(&self.shared.known).last = state.last;
            state.membership = meta.last_membership.clone();
            state.snapshot = Some(meta.clone());
            state.installed = true;
            state.disorders = DISORDERS;
            std::mem::replace(&mut state.registry, registry)
        };
        self.shared.clock.applied(self.shared.registry().clock(), term_of(&id), 0);
        // Freeing a large registry takes long.
        tokio::task::spawn_blocking(move || drop(old));
        tracing::info!(index = id.index, term = term_of(&id), "installed a snapshot");
        point_async!(Point::SnapshotInstalled).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let meta = lock(&self.shared.state).snapshot.clone();
        Ok(meta.and_then(|meta| {
            let id = meta.last_log_id?;
            let path = self.store.snapshot_dir().join(snapshot::file_name(&id));
            Some(Snapshot { meta, snapshot: SnapshotFile { path, registry: None } })
        }))
    }
}

/// Writes a frozen registry to a file, while apply goes on.
pub(crate) struct Builder {
    shared: Arc<Shared>,
    store: Arc<Store>,
    meta: SnapshotMeta,
    registry: Registry,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let meta = self.meta.clone();
        let id =
            meta.last_log_id.ok_or_else(|| io::Error::other("there is nothing to take a snapshot of"))?;
        let path = self.store.snapshot_dir().join(snapshot::file_name(&id));
        if self.store.newest_snapshot().is_none_or(|newest| newest.index < id.index)
            && let Err(error) = self.store.take_snapshot(&meta, self.registry.clone()).await
        {
            // openraft would stop for it: it is told of the snapshot that it knows already.
            tracing::warn!(index = id.index, %error, "could not take a snapshot; the log is kept until one is taken");
            let meta = lock(&self.shared.state).snapshot.clone().unwrap_or_default();
            return Ok(Snapshot { meta, snapshot: SnapshotFile { path, registry: None } });
        }
        let mut state = lock(&self.shared.state);
        if state.snapshot.as_ref().is_none_or(|old| old.last_log_id < meta.last_log_id) {
            state.snapshot = Some(meta.clone());
        }
        tracing::info!(index = id.index, "took a snapshot");
        Ok(Snapshot { meta, snapshot: SnapshotFile { path, registry: None } })
    }
}

/// The member with this node id.
pub(crate) fn member(membership: &StoredMembership, node_id: u64) -> Option<Member> {
    membership.get_node(&node_id).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_registry::{BeginTerm, Entry};

    fn payload(command: Command, bytes: usize) -> LogPayload {
        let entry = Entry { commands: vec![command], ..Entry::default() };
        LogPayload::Normal(Proposal::from_parts(entry, vec![0; bytes].into()))
    }

    #[test]
    fn what_takes_long_is_told_from_what_does_not() {
        let begin = payload(Command::BeginTerm(BeginTerm { reconnect_grace_ms: 1 }), 9);
        let some = |bytes| payload(Command::Tick, bytes);
        assert!(!is_heavy(&[]) && !is_heavy(&[LogPayload::Blank, some(HEAVY_BYTES - 1)]));
        assert!(is_heavy(&[some(HEAVY_BYTES)]), "a large entry");
        assert!(is_heavy(&vec![some(HEAVY_BYTES / 64); 64]), "many of some size");
        assert!(is_heavy(&[some(9), begin]), "one that changes every agent");
    }
}
