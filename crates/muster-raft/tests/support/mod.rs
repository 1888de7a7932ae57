//! A cluster of real replicas in one process, over loopback sockets.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod proxy;

use muster_model::{ClusterId, Index, Term};
use muster_raft::{Leadership, Raft, RaftConfig, Reign, caller};
use muster_registry::{BeginTerm, Command, Outcome, Registry};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;

/// Nothing here takes longer, unless it hangs.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Waits for something, but not for ever.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("took too long: {what}"))
}

/// Asks again and again until the answer is there.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// One running replica with its server and the task that leads when it may.
pub struct Replica {
    pub raft: Raft,
    server: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    leader: JoinHandle<()>,
    reign: Arc<Mutex<Option<Arc<Proposals>>>>,
    /// All that were accepted.
    connections: Arc<Mutex<Vec<OwnedFd>>>,
}

/// What a test needs of a reign.
pub struct Proposals {
    pub term: Term,
    /// The registry once the first command of the reign was applied.
    pub began: Mutex<Option<Registry>>,
    reign: tokio::sync::Mutex<Vec<(u64, oneshot::Sender<Outcome>)>>,
    proposer: muster_raft::Proposer,
}

impl Proposals {
    /// Proposes a command and waits for its outcome; none when the reign ended first.
    pub async fn propose(&self, command: Command) -> Option<Outcome> {
        let (done, outcome) = oneshot::channel();
        {
            let mut waiting = self.reign.lock().await;
            let ticket = self.proposer.propose(command).ok()?;
            waiting.push((ticket, done));
        }
        outcome.await.ok()
    }

    /// Proposes without waiting.
    pub fn propose_only(&self, command: Command) -> Result<u64, muster_raft::Full> {
        self.proposer.propose(command)
    }
}

/// Leads whenever this replica may: begins, feeds outcomes to who waits.
async fn lead(raft: Raft, current: Arc<Mutex<Option<Arc<Proposals>>>>) {
    let mut leadership = raft.leadership();
    loop {
        let now = leadership.borrow_and_update().clone();
        if let Leadership::Leading { fence, quorum: true } = now
            && let Ok(Reign { mut applied, proposer, .. }) = raft.begin(fence.term).await
        {
            let proposals = Arc::new(Proposals {
                term: fence.term,
                began: Mutex::new(None),
                reign: Default::default(),
                proposer,
            });
            if let Err(error) = proposals.proposer.propose(begin_term()) {
                panic!("{error}");
            }
            let mut began = false;
            while let Some(batch) = applied.recv().await {
                for entry in batch.entries.iter().filter(|entry| entry.term == fence.term) {
                    let mut waiting = proposals.reign.lock().await;
                    for (n, outcome) in entry.outcomes.iter().enumerate() {
                        let ticket = entry.first_ticket + n as u64;
                        if let Some(at) = waiting.iter().position(|(wanted, _)| *wanted == ticket) {
                            waiting.swap_remove(at).1.send(outcome.clone()).ok();
                        }
                    }
                    drop(waiting);
                    if !began {
                        began = true;
                        *proposals.began.lock().unwrap() = Some(raft.registry());
                        *current.lock().unwrap() = Some(proposals.clone());
                    }
                }
            }
            *current.lock().unwrap() = None;
            proposals.reign.lock().await.clear();
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// A leader that is only slow stays one: for tests that name it and go on.
pub fn leases_of_seconds(config: &mut RaftConfig) {
    (config.election_ms_min, config.election_ms_max) = (2_500, 3_000);
}

pub fn begin_term() -> Command {
    Command::BeginTerm(BeginTerm { reconnect_grace_ms: 1_000 })
}

/// The replicas of a test, some of them running.
pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub members: Vec<(String, String)>,
    listeners: BTreeMap<usize, std::net::TcpListener>,
    pub running: BTreeMap<usize, Replica>,
    pub tune: fn(&mut RaftConfig),
    /// Wires between replicas, by who dials whom; none without a partition.
    pub wires: BTreeMap<(usize, usize), proxy::Wire>,
}

impl Cluster {
    /// Names and free addresses for `count` replicas; none runs.
    pub fn new(count: usize) -> Self {
        Self::in_dir(count, tempfile::tempdir().unwrap())
    }

    pub fn in_dir(count: usize, dir: tempfile::TempDir) -> Self {
        if std::env::var_os("RUST_LOG").is_some() {
            let filter = tracing_subscriber::EnvFilter::from_default_env();
            tracing_subscriber::fmt().with_env_filter(filter).try_init().ok();
        }
        let mut listeners = BTreeMap::new();
        let mut members = Vec::new();
        for n in 0..count {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            members.push((format!("m{}", n + 1), listener.local_addr().unwrap().to_string()));
            listeners.insert(n, listener);
        }
        Self { dir, members, listeners, running: BTreeMap::new(), tune: |_| {}, wires: BTreeMap::new() }
    }

    /// `count` replicas, started in order.
    pub async fn started(count: usize) -> Self {
        let mut cluster = Self::new(count);
        for n in 0..count {
            cluster.start(n).await;
        }
        cluster
    }

    /// So many that keep their leader through seconds in which it stands still, started in order.
    pub async fn steady(count: usize) -> Self {
        let mut cluster = Self::new(count);
        cluster.tune = leases_of_seconds;
        for n in 0..count {
            cluster.start(n).await;
        }
        cluster
    }

    /// Has whoever leads commit a command that may be done twice; where the log is then.
    pub async fn tick(&self) -> Index {
        let ticked = async {
            loop {
                let (n, leader) = self.leader().await;
                if let Some(outcome) = leader.propose(Command::Tick).await {
                    assert_eq!(outcome, Outcome::Done);
                    return self.raft(n).registry().applied();
                }
                tokio::task::yield_now().await; // That reign is over.
            }
        };
        within("a tick", ticked).await
    }

    /// Puts a wire between any two, before they start.
    pub async fn wire(&mut self) {
        for from in 0..self.members.len() {
            for to in (0..self.members.len()).filter(|to| *to != from) {
                self.wires.insert((from, to), proxy::Wire::to(self.members[to].1.clone()).await);
            }
        }
    }

    /// Cuts all wires from and to a replica, or heals them.
    pub fn isolate(&self, n: usize, cut: bool) {
        for ((from, to), wire) in &self.wires {
            match (*from == n || *to == n, cut) {
                (true, true) => wire.cut(),
                (true, false) => wire.heal(),
                _ => {}
            }
        }
    }

    pub fn data_dir(&self, n: usize) -> PathBuf {
        self.dir.path().join(format!("m{}", n + 1))
    }

    pub fn config(&self, n: usize) -> RaftConfig {
        let mut members = self.members.clone();
        for ((from, to), wire) in &self.wires {
            if *from == n {
                members[*to].1 = wire.address.clone();
            }
        }
        let mut config = RaftConfig::new(self.members[n].0.clone(), members, self.data_dir(n));
        (self.tune)(&mut config);
        config
    }

    async fn listener(&mut self, n: usize) -> TcpListener {
        if let Some(listener) = self.listeners.remove(&n) {
            return TcpListener::from_std(listener).unwrap();
        }
        let address: SocketAddr = self.members[n].1.parse().unwrap();
        within("binding the address again", async {
            loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await
    }

    pub async fn start(&mut self, n: usize) {
        self.start_with(n, self.config(n)).await;
    }

    pub async fn start_with(&mut self, n: usize, config: RaftConfig) {
        let raft = Raft::open(config).await.unwrap();
        let listener = self.listener(n).await;
        self.running.insert(n, run(raft, listener));
    }

    /// Ends a replica as a crash would: no hand-over.
    pub async fn kill(&mut self, n: usize) {
        let replica = self.running.remove(&n).unwrap();
        replica.kill().await;
    }

    /// Ends all of them.
    pub async fn end(mut self) -> tempfile::TempDir {
        let all: Vec<usize> = self.running.keys().copied().collect();
        for n in all {
            self.kill(n).await;
        }
        self.dir
    }

    /// The replica that leads, once its first command was applied.
    pub async fn leader(&self) -> (usize, Arc<Proposals>) {
        eventually("a leader", || {
            self.running.iter().find_map(|(n, replica)| Some((*n, replica.proposals()?)))
        })
        .await
    }

    pub fn raft(&self, n: usize) -> &Raft {
        &self.running[&n].raft
    }

    /// Waits until all running replicas have applied the same, at least up to `index`.
    pub async fn agree(&self, index: Index) -> Registry {
        eventually("equal replicas", || {
            let all: Vec<Registry> = self.running.values().map(|replica| replica.raft.registry()).collect();
            let first = all.first()?;
            let equal = all.iter().all(|registry| {
                (registry.applied(), registry.state_hash()) == (first.applied(), first.state_hash())
            });
            (equal && first.applied() >= index).then(|| first.clone())
        })
        .await
    }

    pub fn cluster_id(&self, n: usize) -> ClusterId {
        self.raft(n).registry().cluster_id().clone()
    }
}

impl proxy::Wire {
    /// As if nobody listened at the other end, for good.
    pub fn refuse(&self) {
        self.cut();
        self.accept.abort();
    }

    /// Nothing gets through any more, and nobody's connection ends.
    pub fn stall(&self) {
        self.state.lock().unwrap().stalled.send_replace(true);
    }

    pub fn dials(&self) -> u64 {
        self.state.lock().unwrap().dials
    }
}

impl Replica {
    pub fn proposals(&self) -> Option<Arc<Proposals>> {
        self.reign.lock().unwrap().clone()
    }

    pub async fn kill(self) {
        self.stop.send(()).ok();
        within("stopping a replica", self.raft.abandon()).await;
        // Its connections as well: those of a process that ended would be gone, whatever the other side does.
        for connection in self.connections.lock().unwrap().drain(..) {
            // One that has ended has nothing to shut down.
            let _ = rustix::net::shutdown(connection, rustix::net::Shutdown::Both);
        }
        within("closing the connections", self.server).await.ok();
        self.leader.abort();
        self.leader.await.ok();
    }
}

/// Accepts connections for ever.
async fn accept(
    listener: TcpListener,
    peers: mpsc::Sender<std::io::Result<TcpStream>>,
    connections: Arc<Mutex<Vec<OwnedFd>>>,
) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        connections.lock().unwrap().push(stream.as_fd().try_clone_to_owned().unwrap());
        let peers = peers.clone();
        tokio::spawn(async move {
            // With Nagle's algorithm every answer would wait for a delayed acknowledgement, 40 ms.
            stream.set_nodelay(true).unwrap();
            // Clients that a test dials with are served as well. A connection may end before it says anything.
            if caller(&mut stream).await.is_ok() {
                peers.send(Ok(stream)).await.ok();
            }
        });
    }
}

/// Serves a replica at its address and leads when it may.
pub fn run(raft: Raft, listener: TcpListener) -> Replica {
    let (stop, stopped) = oneshot::channel::<()>();
    let router = tonic::transport::Server::builder()
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(8 << 20)
        .add_service(raft.peer_service());
    let connections: Arc<Mutex<Vec<OwnedFd>>> = Arc::default();
    let accepted = connections.clone();
    let server = tokio::spawn(async move {
        let ended = async { drop(stopped.await) };
        let (peers, incoming) = mpsc::channel(16);
        let served = router.serve_with_incoming_shutdown(ReceiverStream::new(incoming), ended);
        tokio::select! {
            served = served => served.unwrap(),
            () = accept(listener, peers, accepted) => unreachable!(),
        }
    });
    let reign = Arc::default();
    let leader = tokio::spawn(lead(raft.clone(), Arc::clone(&reign)));
    Replica { raft, server, stop, leader, reign, connections }
}
