//! The master's life: open, serve, follow the leadership, stop.

use crate::{
    MasterConfig, MasterError, accept,
    config::FollowerStreams,
    door::Door,
    lead::lead,
    link::{Heard, LinkDoor, Links, SILENCE, follow},
    mesos::{About, Feed, Forwarder, Mesos, Rates, Tap},
    operator::Operator,
    route::{LocalRoute, Route, Routes, UP_QUEUE},
    turns::Turns,
};
use muster_http::{
    auth::{Action, Auth, Realm},
    body::Writers,
};
use muster_proto::{
    limits::FRAME_BYTES_MAX,
    raw::{agent_service_server::AgentServiceServer, scheduler_service_server::SchedulerServiceServer},
    v1::{self, link_service_server::LinkServiceServer, operator_service_server::OperatorServiceServer},
};
use muster_raft::{Leadership, Raft};
use std::{
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    runtime::{Handle, Runtime},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Server;

/// How much of a stream may be on its way unread: many entries, or a link's bursts.
const WINDOW: u32 = 8 << 20;

/// A connection on which nothing came for this long is asked by HTTP/2 whether it lives, and ended if it does not say so within
/// 10 s. Longer than agents are silent between two pings: they need not be asked twice.
const UNHEARD: Duration = Duration::from_secs(20);

/// How often silence is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// How long a leader whose quorum does not answer keeps its clients: they wait, and nothing is decided for them. On a machine
/// that is too busy for a moment that is better than thousands that all come anew, which keep it busy.
const LAPSE: Duration = Duration::from_millis(700);

/// Threads of consensus: one may apply entries while another takes some in.
const CONSENSUS_THREADS: usize = 2;
/// Threads of links: one may write to one of them while another reads.
const LINK_THREADS: usize = 2;

/// A master that serves.
pub struct Serving {
    raft: Raft,
    address: SocketAddr,
    stop: CancellationToken,
    /// Of clients.
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    /// Of other masters.
    peer_server: JoinHandle<Result<(), tonic::transport::Error>>,
    /// Of their clients.
    link_server: JoinHandle<Result<(), tonic::transport::Error>>,
    leading: JoinHandle<()>,
    /// What listens.
    accepting: JoinHandle<Option<()>>,
    /// Nothing of it goes on once it is dropped.
    _stops: DropGuard,
    _threads: [Threads; 2],
}

/// A runtime for what must not wait behind clients: however many of them come at once, the system gives threads that mostly
/// wait the processor soon. Consensus has one, with its tasks, its timers and the connections of its peers; links have another,
/// since what one carries is that of thousands.
struct Threads {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Threads {
    fn start(name: &str, count: usize) -> Result<Self, MasterError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(count)
            .thread_name(name)
            .enable_all()
            .build();
        runtime
            .map(|runtime| Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
            .map_err(|error| MasterError::Failed(format!("cannot start the threads of {name}: {error}")))
    }

    /// Does something there.
    async fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, MasterError>> + Send + 'static,
    ) -> Result<T, MasterError> {
        let done = self.handle.spawn(task).await;
        done.map_err(|error| MasterError::Failed(format!("one of its own tasks: {error}")))?
    }
}

impl Drop for Threads {
    /// Not waited for: who drops it may be a task.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Opens the store, listens and serves. Everything goes on in the background.
pub async fn start(config: MasterConfig) -> Result<Serving, MasterError> {
    config.check()?;
    let listen = config.listen_address()?.to_owned();
    let auth = Arc::new(load(&config).await?);
    let consensus = Threads::start("consensus", CONSENSUS_THREADS)?;
    let linking = Threads::start("links", LINK_THREADS)?;
    let settings = config.raft();
    let open = async move {
        let wrong = |source| MasterError::Listen { address: listen.clone(), source };
        // The port comes first: a second master on it must not touch the data directory.
        let listener = accept::listen(&listen).await.map_err(wrong)?;
        let address = listener.local_addr().map_err(wrong)?;
        Ok((listener, address, Raft::open(settings).await?))
    };
    let (listener, address, raft) = consensus.run(open).await?;
    let stop = CancellationToken::new();
    let (publish, route) = watch::channel(Route::None);
    let (redial_out, redial) = watch::channel(0);
    let heard = Arc::new(Heard::new());
    let routes = Routes { route, redial, heard: heard.clone() };
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_not_serving::<SchedulerServiceServer<Door>>().await;
    tokio::spawn(report_health(health, routes.route.clone()));
    let door = Door {
        routes: routes.clone(),
        auth: auth.clone(),
        raft: raft.clone(),
        turns: Turns::default(),
        stop: stop.clone(),
    };
    let links = Links::default();
    let link = LinkDoor { routes: routes.clone(), links: links.clone(), stop: stop.clone() };
    let writers = Writers::default();
    let operator =
        Operator { raft: raft.clone(), routes: routes.clone(), auth: auth.clone(), writers: writers.clone() };
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(muster_proto::DESCRIPTORS)
        .build_v1()
        .map_err(|error| MasterError::Config(format!("the built-in descriptors are broken: {error}")))?;
    let feed = Feed::new(!auth.acls().are_open());
    tokio::spawn(feed.clone().run(raft.clone(), stop.clone()));
    let mesos = Mesos {
        raft: raft.clone(),
        routes: routes.clone(),
        auth,
        sessions: Default::default(),
        forwarder: Forwarder::new(),
        links,
        carries_streams: config.api.follower_streams == FollowerStreams::Forward,
        rates: Arc::new(Rates::new(&config.api.calls_per_second)),
        about: Arc::new(About::of(&config)),
        feed: feed.clone(),
        writers,
        files: muster_http::files::Files::new(muster_http::files::Log {
            name: "/master/log",
            path: config.log_file.clone(),
        }),
        stop: stop.clone(),
    };
    let mut services = tonic::service::Routes::new(
        AgentServiceServer::new(door.clone()).max_decoding_message_size(FRAME_BYTES_MAX),
    )
    .add_service(SchedulerServiceServer::new(door).max_decoding_message_size(FRAME_BYTES_MAX))
    .add_service(OperatorServiceServer::new(operator))
    .add_service(health_service)
    .add_service(reflection);
    // Whatever is no call of gRPC's is a request of the Mesos API.
    let router = std::mem::take(services.axum_router_mut());
    *services.axum_router_mut() = router.fallback(move |request| mesos.clone().answer(request));
    let link_service = LinkServiceServer::new(link)
        .max_decoding_message_size(2 * FRAME_BYTES_MAX)
        .max_encoding_message_size(2 * FRAME_BYTES_MAX);
    let (accept, sorted) = accept::sort(listener);
    let accepting = consensus.handle.spawn(stop.clone().run_until_cancelled_owned(accept));
    let peer_server = builder().add_service(raft.peer_service());
    let peer_server =
        peer_server.serve_with_incoming_shutdown(sorted.peers.connections(), stop.clone().cancelled_owned());
    let peer_server = consensus.handle.spawn(peer_server);
    let link_server = builder().add_service(link_service);
    let link_server =
        link_server.serve_with_incoming_shutdown(sorted.links.connections(), stop.clone().cancelled_owned());
    let link_server = linking.handle.spawn(link_server);
    let server = builder().accept_http1(true).add_routes(services);
    let server =
        server.serve_with_incoming_shutdown(sorted.clients.connections(), stop.clone().cancelled_owned());
    let server = tokio::spawn(server);
    let leading = linking.handle.spawn(follow_leadership(
        raft.clone(),
        config,
        publish,
        redial_out,
        heard,
        feed.tap(),
        stop.clone(),
    ));
    tracing::info!(%address, "serving");
    let _stops = stop.clone().drop_guard();
    Ok(Serving {
        raft,
        address,
        stop,
        server,
        peer_server,
        link_server,
        leading,
        accepting,
        _stops,
        _threads: [consensus, linking],
    })
}

/// A server with our limits.
fn builder() -> Server {
    Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .http2_keepalive_interval(Some(UNHEARD))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
}

/// Reads who may ask what.
async fn load(config: &MasterConfig) -> Result<Auth, MasterError> {
    let settings = config.auth.settings();
    let read = tokio::task::spawn_blocking(move || Auth::load("mesos-master", &settings)).await;
    let auth = read.map_err(|error| MasterError::Config(format!("auth: {error}")))??;
    if auth.acls().has(Action::RegisterAgent) {
        tracing::warn!("agents have no principals: rules of register_agents are not applied");
    }
    let is_closed = |realm| auth.is_closed(realm);
    if is_closed(Realm::Scheduler) || is_closed(Realm::Readwrite) || is_closed(Realm::Readonly) {
        tracing::warn!(
            "agents and other masters are let in without showing who they are: keep this port from everybody else \
             (docs/security.md)"
        );
    }
    Ok(auth)
}

impl Serving {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the replica must end by itself, and says why.
    pub async fn failed(&mut self) -> MasterError {
        let address = self.address.to_string();
        tokio::select! {
            why = self.raft.failed() => MasterError::Failed(why),
            _ = &mut self.accepting => MasterError::Failed("it listens no more".into()),
            ended = async { tokio::select! {
                ended = &mut self.server => ended,
                ended = &mut self.peer_server => ended,
                ended = &mut self.link_server => ended,
            }} => match ended {
                Ok(Err(source)) => MasterError::Serve { address, source },
                _ => MasterError::Failed("its server ended".into()),
            },
        }
    }

    /// Hands leadership over, then ends everything.
    pub async fn stop(self) {
        let Self {
            raft, stop, server, peer_server, link_server, leading, accepting, _stops, _threads, ..
        } = self;
        raft.shutdown().await;
        stop.cancel();
        let _ = accepting.await; // the address is free then
        let _ = leading.await;
        // Streams were cut; whatever still hangs on a connection is not waited for long.
        let servers = async { tokio::join!(server, peer_server, link_server) };
        let _ = tokio::time::timeout(Duration::from_secs(2), servers).await;
    }
}

/// Runs a master until `shutdown`, or until it must end by itself.
pub async fn run(config: MasterConfig, shutdown: impl Future<Output = ()>) -> Result<(), MasterError> {
    let mut serving = start(config).await?;
    tokio::select! {
        () = shutdown => {
            serving.stop().await;
            Ok(())
        }
        error = serving.failed() => Err(error),
    }
}

/// Leads while this master leads, links to the leader while another does, and tells clients to go elsewhere
/// when neither is possible for long.
async fn follow_leadership(
    raft: Raft,
    config: MasterConfig,
    publish: watch::Sender<Route>,
    redial: watch::Sender<u64>,
    heard: Arc<Heard>,
    tap: Tap,
    stop: CancellationToken,
) {
    let mut leadership = raft.leadership();
    // When clients were told to go elsewhere. The silence goes on then: links end by it.
    let mut told: Option<Instant> = None;
    loop {
        let now = leadership.borrow_and_update().clone();
        let changed = async {
            while leadership.changed().await.is_ok() {
                if !is_alike(&leadership.borrow_and_update(), &now) {
                    return true;
                }
            }
            false
        };
        let act = async {
            match &now {
                Leadership::Leading { fence, .. } => {
                    heard.remember(*fence);
                    heard.elected();
                    reign(&raft, &config, fence.term, &publish, &heard, &tap).await;
                    heard.has_begun();
                    heard.now();
                    std::future::pending::<()>().await;
                }
                Leadership::Following { leader: Some(leader), .. } => {
                    let leader = v1::Leader { name: leader.name.clone(), address: leader.address.clone() };
                    follow(leader, &publish, &heard).await;
                }
                Leadership::Following { leader: None, .. } | Leadership::Outside { .. } => {
                    std::future::pending::<()>().await;
                }
            }
        };
        // While there is no way to a leader for long, clients are told to go elsewhere.
        let watch_silence = async {
            loop {
                tokio::time::sleep(LOOK).await;
                // A leader that serves, or is about to, is its clients' way; one that lost its quorum is as good as none.
                let has_quorum =
                    matches!(*raft.leadership().borrow(), Leadership::Leading { quorum: true, .. });
                if has_quorum && (matches!(*publish.borrow(), Route::Local(_)) || heard.begins()) {
                    heard.now();
                }
                let since_told = told.map_or(SILENCE, |told| told.elapsed());
                if heard.silence().min(since_told) < SILENCE {
                    continue;
                }
                tracing::warn!("no way to a leader for 2 s: clients are told to dial another master");
                redial.send_modify(|count| *count += 1);
                told = Some(Instant::now());
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = act => {}
            () = watch_silence => {}
            going_on = changed => {
                if !going_on {
                    return;
                }
            }
        }
        heard.has_begun();
        publish.send_if_modified(|route| {
            let was_open = !matches!(route, Route::None);
            *route = Route::None;
            was_open
        });
    }
}

/// Whether nothing changed that ends what this master does at present.
fn is_alike(a: &Leadership, b: &Leadership) -> bool {
    match (a, b) {
        (Leadership::Leading { fence: a, .. }, Leadership::Leading { fence: b, .. }) => a == b,
        (Leadership::Following { leader: a, .. }, Leadership::Following { leader: b, .. }) => a == b,
        (Leadership::Outside { .. }, Leadership::Outside { .. }) => true,
        _ => false,
    }
}

/// Runs the leader's loop of one term on a thread of its own, until the reign ends. Clients come in while
/// `BeginTerm` is applied and a quorum answers (`protocol` A3, A5).
async fn reign(
    raft: &Raft,
    config: &MasterConfig,
    term: muster_model::Term,
    publish: &watch::Sender<Route>,
    heard: &Heard,
    tap: &Tap,
) {
    let reign = match raft.begin(term).await {
        Ok(reign) => reign,
        Err(error) => {
            tracing::info!(term = term.0, %error, "leadership ended before it began");
            return;
        }
    };
    let (inputs, inputs_in) = mpsc::channel(UP_QUEUE);
    let leader = v1::Leader {
        name: config.name.clone(),
        address: config.members.get(&config.name).cloned().unwrap_or_default(),
    };
    let fence = reign.fence;
    let local = Arc::new(LocalRoute { fence, leader, since: SystemTime::now(), inputs });
    // Cancelled when this master is told that it no longer leads, however late the loop's thread notices.
    let over = CancellationToken::new();
    let _guard = over.clone().drop_guard();
    let (serving, mut served) = watch::channel(false);
    let serve = Box::new(move || {
        serving.send_replace(true);
    });
    let (its_raft, config, tap) = (raft.clone(), config.leader(), tap.clone());
    let (done, mut ended) = tokio::sync::oneshot::channel();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        match runtime {
            Ok(runtime) => runtime.block_on(lead(its_raft, reign, config, inputs_in, serve, tap, over)),
            Err(error) => tracing::error!(%error, "cannot start the leader's thread"),
        }
        let _ = done.send(());
    };
    if let Err(error) = std::thread::Builder::new().name("leader".into()).spawn(run) {
        tracing::error!(%error, "cannot start the leader's thread");
        return;
    }
    let mut leadership = raft.leadership();
    let mut gate = Gate::default();
    loop {
        let quorum = matches!(*leadership.borrow_and_update(), Leadership::Leading { quorum: true, .. });
        let was_open = gate.open;
        let until = gate.look(*served.borrow(), quorum, Instant::now());
        if gate.open != was_open {
            if was_open {
                tracing::warn!(term = term.0, "no quorum answers: not serving until one does");
            }
            heard.has_begun();
            publish.send_replace(if gate.open { Route::Local(local.clone()) } else { Route::None });
        }
        tokio::select! {
            _ = &mut ended => break,
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
            Ok(()) = served.changed() => {}
            changed = leadership.changed() => {
                if changed.is_err() {
                    break;
                }
            }
        }
    }
}

/// Whether a leader has clients.
#[derive(Debug, Default)]
struct Gate {
    open: bool,
    /// Since when no quorum answers.
    lapsed: Option<Instant>,
}

impl Gate {
    /// The doors open when a quorum answers, and stay open through a [`LAPSE`] of it. When this is to be looked at again, if nothing
    /// changes before.
    fn look(&mut self, served: bool, quorum: bool, now: Instant) -> Option<Instant> {
        let lapsed = (!quorum).then(|| self.lapsed.unwrap_or(now));
        let until = lapsed.map(|since| since + LAPSE);
        self.lapsed = lapsed;
        self.open = served && until.is_none_or(|until| self.open && now < until);
        until.filter(|_| self.open)
    }
}

/// Health is SERVING while there is a way to a leader.
async fn report_health(health: tonic_health::server::HealthReporter, mut route: watch::Receiver<Route>) {
    loop {
        let open = !matches!(*route.borrow_and_update(), Route::None);
        match open {
            true => health.set_serving::<SchedulerServiceServer<Door>>().await,
            false => health.set_not_serving::<SchedulerServiceServer<Door>>().await,
        }
        if route.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn doors_stay_open_through_a_short_lapse_and_open_with_a_quorum_only() {
        let (mut gate, start) = (Gate::default(), Instant::now());
        assert_eq!((gate.look(true, false, start), gate.open), (None, false), "they do not open without one");
        assert_eq!((gate.look(false, true, start), gate.open), (None, false), "nor before it serves");
        assert_eq!((gate.look(true, true, start), gate.open), (None, true));
        // It comes and goes, each time for less than a lapse.
        for n in 0..10 {
            let at = start + LAPSE * n;
            assert_eq!((gate.look(true, false, at), gate.open), (Some(at + LAPSE), true));
            assert_eq!((gate.look(true, false, at + LAPSE - MS), gate.open), (Some(at + LAPSE), true));
            assert_eq!((gate.look(true, true, at + LAPSE - MS), gate.open), (None, true));
        }
        let at = start + LAPSE * 20;
        gate.look(true, false, at);
        assert_eq!((gate.look(true, false, at + LAPSE), gate.open), (None, false), "it lasts");
        assert_eq!((gate.look(true, false, at + LAPSE * 2), gate.open), (None, false));
        gate.look(true, true, at + LAPSE * 3);
        assert!(gate.open);
    }
}
