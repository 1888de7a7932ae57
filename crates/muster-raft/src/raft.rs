//! The handle to one replica, and what runs behind it.

use crate::{
    config::RaftConfig,
    error::{NotLeading, OpenError},
    leadership::{self, Leadership},
    machine::{AppliedBatch, Machine, Shared, member},
    member as cluster,
    peer::{
        client::{Heard, Network},
        service::{Peers, Receiving},
    },
    proposer::{self, Proposer},
    store::{self, Store, StoreOptions, lock},
    stranger::{self, Strangers},
    suspicion::{self, Suspected},
    types::{Member, TypeConfig},
};
use muster_fault::planted;
use muster_model::{ClusterId, Fence, Term, Timestamp};
use muster_registry::Registry;
use openraft::{ReadPolicy, SnapshotPolicy, async_runtime::watch::WatchReceiver};
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

/// openraft with our types.
pub(crate) type Core = openraft::Raft<TypeConfig, Machine>;

/// Readers that may wait for the next round.
const READERS_MAX: usize = 4_096;
/// How often it is asked whether a snapshot is due.
const SNAPSHOT_CHECK: Duration = Duration::from_millis(200);

/// A replica. Cheap to clone; all clones are one replica.
#[derive(Clone)]
pub struct Raft {
    node: Arc<Node>,
    reads: mpsc::Sender<oneshot::Sender<Result<Registry, NotLeading>>>,
}

/// The time during which this replica leads: what there is, what comes, and the way to add to it.
#[derive(Debug)]
pub struct Reign {
    /// Goes with everything that this leader says.
    pub fence: Fence,
    /// Everything applied after that, in order. It ends with the reign; what was proposed and not seen here
    /// by then has an unknown outcome.
    pub applied: mpsc::Receiver<AppliedBatch>,
    /// Takes commands in.
    pub proposer: Proposer,
}

/// What all tasks of a replica share.
pub(crate) struct Node {
    pub(crate) config: Arc<RaftConfig>,
    pub(crate) store: Arc<Store>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) heard: Arc<Heard>,
    pub(crate) strangers: Strangers,
    pub(crate) suspected: Suspected,
    pub(crate) leadership: watch::Sender<Leadership>,
    /// Since when this replica leads, as it sees it.
    pub(crate) leading_since: Mutex<Option<Instant>>,
    /// Members that an operator confirmed to be lost.
    pub(crate) confirmed: Mutex<HashSet<String>>,
    /// Held while the identity of this replica may change.
    pub(crate) entering: tokio::sync::Mutex<()>,
    /// Held while the voters change; counts the changes.
    pub(crate) changing: Arc<tokio::sync::Mutex<u64>>,
    pub(crate) receiving: Receiving,
    /// Held while leadership is handed to somebody.
    pub(crate) handing_over: tokio::sync::Mutex<()>,
    /// What opened the replica: all of consensus runs there.
    pub(crate) runtime: tokio::runtime::Handle,
    core: RwLock<Option<Core>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    stopping: AtomicBool,
}

impl Raft {
    /// Opens the data directory and starts what can be started; founding and joining go on in the background. All of it runs on
    /// the runtime of the caller, whoever uses the handle later: let it be one on which nothing else keeps the threads busy, and
    /// serve the [peers](Self::peer_service) there.
    pub async fn open(config: RaftConfig) -> Result<Self, OpenError> {
        Self::open_with(config, None).await
    }

    pub(crate) async fn open_with(
        config: RaftConfig,
        hook: Option<store::StepHook>,
    ) -> Result<Self, OpenError> {
        config.check()?;
        let config = Arc::new(config);
        let options = StoreOptions {
            #[cfg(feature = "fault-no-sync")]
            no_sync: config.no_sync,
            hook,
        };
        let opened = tokio::task::spawn_blocking({
            let config = config.clone();
            move || store::open(&config.data_dir, &config.name, config.members.len() == 1, options)
        });
        let failed = |why: String| OpenError::Start { path: config.data_dir.clone(), why };
        let opened = opened.await.map_err(|error| failed(error.to_string()))??;
        let mark = opened.store.mark();
        if let (Some(expected), Some(found)) = (&config.cluster_id, &mark.cluster_id)
            && expected != found
        {
            opened.store.close().await;
            let (path, found, expected) = (config.data_dir.clone(), found.clone(), expected.clone());
            return Err(OpenError::OtherCluster { path, found, expected });
        }
        let took = opened.took;
        let (meta, registry) = match opened.snapshot {
            Some((meta, registry)) => (Some(meta), registry),
            None => (None, unfounded(&mark)),
        };
        let node = Arc::new(Node {
            config: config.clone(),
            store: opened.store,
            shared: Arc::new(Shared::new(registry, meta)),
            heard: Arc::default(),
            strangers: Strangers::default(),
            suspected: Suspected::default(),
            leadership: watch::Sender::new(Leadership::Outside { note: "starting".into() }),
            leading_since: Mutex::new(None),
            confirmed: Mutex::default(),
            entering: tokio::sync::Mutex::new(()),
            changing: Arc::default(),
            receiving: Receiving::default(),
            handing_over: tokio::sync::Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
            core: RwLock::new(None),
            tasks: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        if !mark.blank() || mark.joined {
            let _entering = node.entering.lock().await;
            let begun = Instant::now();
            if let Err(why) = node.start().await {
                node.store.close().await;
                return Err(failed(why));
            }
            node.tell_start(took, begun.elapsed());
        } else {
            node.spawn(cluster::enter(node.clone()));
        }
        node.spawn(stranger::watch(node.clone()));
        let (reads, asked) = mpsc::channel(READERS_MAX);
        node.spawn(answer_reads(node.clone(), asked));
        Ok(Self { node, reads })
    }

    /// The service that the other masters talk to: mount it on a server of the connections that come in at this master's
    /// address from a [`Caller::Peer`](crate::Caller).
    pub fn peer_service(&self) -> crate::PeerServer {
        Peers::server(self.node.clone())
    }

    /// Who leads, as far as this replica knows.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.node.leadership.subscribe()
    }

    /// Opens the reign of this term: once in a process and term, while this replica leads in it.
    pub async fn begin(&self, term: Term) -> Result<Reign, NotLeading> {
        let not_leading = || NotLeading { leader: self.node.leader() };
        let core = self.node.core().ok_or_else(not_leading)?;
        if leadership::leads(&core) != Some(term.0) {
            return Err(not_leading());
        }
        let begun = self.node.shared.begin(term.0).ok_or_else(not_leading)?;
        let fence = Fence { incarnation: self.node.store.mark().incarnation, term };
        let proposer = proposer::start(core, &self.node, term.0, begun.open);
        Ok(Reign { fence, applied: begun.applied, proposer })
    }

    /// Registry time now (`protocol` B6).
    pub fn now(&self) -> Timestamp {
        self.node.shared.clock.now()
    }

    /// Looks at the registry as it stands: what was applied last and perhaps not told yet. Apply waits
    /// meanwhile, so look quickly; nothing is copied, neither now nor by the next apply.
    pub fn with_registry<R>(&self, look: impl FnOnce(&Registry) -> R) -> R {
        self.node.shared.with_registry(look)
    }

    /// A frozen copy of what this replica has applied; it may be behind.
    pub fn registry(&self) -> Registry {
        self.node.shared.registry()
    }

    /// A frozen copy that holds everything acknowledged before the call. Callers that wait together share a round.
    pub async fn read(&self) -> Result<Registry, NotLeading> {
        let not_leading = || NotLeading { leader: self.node.leader() };
        let (done, answer) = oneshot::channel();
        self.reads.send(done).await.map_err(|_| not_leading())?;
        answer.await.map_err(|_| not_leading())?
    }

    /// Resolves with the reason when this replica can no longer keep anything: the process must end.
    pub async fn failed(&self) -> String {
        let mut failed = self.node.store.failed();
        let why = failed.wait_for(Option::is_some).await.map(|why| why.clone());
        match why {
            Ok(Some(why)) => why,
            _ => std::future::pending().await,
        }
    }

    /// Hands leadership over, stops, and lets the data directory go.
    pub async fn shutdown(self) {
        if self.node.core().is_some_and(|core| leadership::leads(&core).is_some()) {
            // Without anybody to hand over to, the others find out by themselves.
            self.transfer_leadership(None).await.ok();
        }
        self.node.stop().await;
    }

    /// Stops without handing leadership over, as a crash would, but lets the data directory go.
    pub async fn abandon(self) {
        self.node.stop().await;
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

/// The registry of a replica whose cluster is not known yet, or of which no snapshot exists.
fn unfounded(mark: &store::mark::Mark) -> Registry {
    let cluster_id = mark.cluster_id.as_deref().unwrap_or("unfounded");
    Registry::new(ClusterId::new(cluster_id), mark.incarnation)
}

async fn answer_reads(
    node: Arc<Node>,
    mut asked: mpsc::Receiver<oneshot::Sender<Result<Registry, NotLeading>>>,
) {
    let mut readers = Vec::new();
    while asked.recv_many(&mut readers, READERS_MAX).await > 0 {
        let answer = match node.core() {
            // The index is asked for after the readers came, so that it covers what they know of.
            Some(_) if planted!(StaleReads) && lock(&node.leading_since).is_some() => {
                Ok(node.shared.registry())
            }
            Some(core) => match core.ensure_linearizable(ReadPolicy::ReadIndex).await {
                Ok(_) => Ok(node.shared.registry()),
                Err(_) => Err(NotLeading { leader: node.leader() }),
            },
            None => Err(NotLeading { leader: None }),
        };
        for reader in readers.drain(..) {
            reader.send(answer.clone()).ok();
        }
    }
}

impl Node {
    /// openraft, once it runs.
    pub(crate) fn core(&self) -> Option<Core> {
        self.core.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The leader that is known, if it is another one.
    pub(crate) fn leader(&self) -> Option<Member> {
        let core = self.core()?;
        let metrics = core.server_metrics().borrow_watched().clone();
        let id = metrics.current_leader.filter(|id| *id != metrics.id)?;
        let mut leader = member(&metrics.membership_config, id)?;
        if let Some(address) = self.config.address_of(&leader.name) {
            leader.address = address.into();
        }
        Some(leader)
    }

    /// Runs a task until the replica stops.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        tasks.retain(|task| !task.is_finished());
        if !self.stopping.load(Ordering::Acquire) {
            tasks.push(self.runtime.spawn(task));
        }
    }

    /// What comes of a call of openraft, unless the replica stops first.
    pub(crate) async fn unless_stopped<T: Send + 'static>(
        &self,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (done, answer) = oneshot::channel();
        self.spawn(async move { drop(done.send(call.await)) });
        answer.await.ok()
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Says what a member that is in no cluster needs.
    pub(crate) fn note(&self, note: String) {
        self.leadership.send_if_modified(|leadership| {
            let changed = !matches!(leadership, Leadership::Outside { note: old } if *old == note);
            if changed {
                tracing::info!(%note, "not in a cluster");
                *leadership = Leadership::Outside { note };
            }
            changed
        });
    }

    /// Starts openraft under the identity in the mark. The caller holds `entering`.
    pub(crate) async fn start(self: &Arc<Self>) -> Result<Core, String> {
        if let Some(core) = self.core() {
            return Ok(core);
        }
        let mark = self.store.mark();
        self.shared.found(unfounded(&mark));
        let config = self.raft_config().validate().map_err(|error| error.to_string())?;
        let network = Network::new(self.config.clone(), mark.clone(), self.heard.clone());
        let machine = Machine { shared: self.shared.clone(), store: self.store.clone() };
        let core = Core::new(mark.node_id, Arc::new(config), network, self.store.log_store(), machine)
            .await
            .map_err(|error| error.to_string())?;
        *self.core.write().unwrap_or_else(PoisonError::into_inner) = Some(core.clone());
        self.spawn(leadership::watch(self.clone(), core.clone()));
        if !mark.blank() {
            self.spawn(suspicion::at_start(self.clone(), core.clone()));
        }
        self.spawn(keep_log_short(self.clone(), core.clone()));
        Ok(core)
    }

    /// Says where the time of a start went.
    fn tell_start(&self, took: store::Took, applying: Duration) {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (snapshot, applied) = (self.store.newest_snapshot(), self.shared.last());
        let (snapshot, applied) = (snapshot.map_or(0, |id| id.index), applied.map_or(0, |id| id.index));
        tracing::info!(
            log_ms = ms(took.log),
            snapshot_ms = ms(took.snapshot),
            replay_ms = ms(applying),
            replayed = applied.saturating_sub(snapshot),
            "opened the data directory and replayed what is known to be committed above the snapshot"
        );
    }

    fn raft_config(&self) -> openraft::Config {
        openraft::Config {
            cluster_name: self.store.mark().cluster_id.unwrap_or_default(),
            heartbeat_interval: self.config.heartbeat_ms,
            election_timeout_min: self.config.election_ms_min,
            election_timeout_max: self.config.election_ms_max,
            // A leader that restarts leads again only in a new term (`protocol` A1).
            enable_leader_restore: Some(false),
            enable_pre_vote: Some(true),
            // A follower whose disk forgot what it had synced is sent it again. Without this the leader gives up
            // on it for good, or panics in a debug build.
            allow_log_reversion: Some(true),
            broadcast_submitted_on_append: Some(true),
            max_payload_entries: 1_024,
            install_snapshot_timeout: 600_000,
            // Snapshots and purges are triggered by us, by bytes.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX / 4,
            replication_lag_threshold: self.config.snapshot_entries.saturating_mul(10).max(1_000_000),
            ..openraft::Config::default()
        }
    }

    async fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // Nobody starts it any more, nor joins.
        let _entering = self.entering.lock().await;
        self.shared.end(u64::MAX);
        let core = self.core.write().unwrap_or_else(PoisonError::into_inner).take();
        // Whoever waits for openraft goes first: it calls a call that it cannot answer any more an error.
        self.leadership.send_replace(Leadership::Outside { note: "stopped".into() });
        let tasks: Vec<_> = lock(&self.tasks).drain(..).collect();
        for task in tasks {
            task.abort();
            task.await.ok();
        }
        if let Some(core) = core {
            core.shutdown().await.ok();
        }
        self.shared.end(u64::MAX);
        self.store.close().await;
    }
}

/// Takes a snapshot when the log has grown, and purges behind the newest one.
async fn keep_log_short(node: Arc<Node>, core: Core) {
    let mut tick = tokio::time::interval(SNAPSHOT_CHECK);
    loop {
        tick.tick().await;
        let Some(applied) = node.shared.last() else { continue };
        let newest = node.store.newest_snapshot();
        let since = newest.map(|id| id.index);
        let entries = applied.index - since.unwrap_or(0).min(applied.index);
        let bytes = node.store.log().bytes_between(since, applied.index);
        let due = entries >= node.config.snapshot_entries || bytes >= node.config.snapshot_bytes;
        let too_early = node.store.snapshot_problem().is_some_and(|(_, too_early)| too_early);
        if due && !too_early {
            core.trigger().snapshot().await.ok();
        }
        if let Some(upto) = since
            && let Some(point) = node.store.log().purge_point(upto, node.config.log_tail_bytes)
        {
            core.trigger().purge_log(point).await.ok();
        }
    }
}
