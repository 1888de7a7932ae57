//! The Mesos v1 executor API: `POST /api/v1/executor`, on a port of its own.
//!
//! Each call is an input of the machine and is answered by an effect of the same step. A SUBSCRIBE opens a stream: what
//! the machine tells its executor goes down it as records, until it breaks, is hung up, or is not read.
//!
//! # Laws
//! - Each event is one record and one chunk.
//! - Nothing is decided here: who an executor is, and what it may say, the machine knows.
//! - The loop waits for no executor: one that does not read is cut off, and subscribes again.

mod serve;

use bytes::Bytes;
use muster_http::auth::Claims;
use muster_model::{ExecutorEvent, ExecutorName, LaunchNumber};
use muster_node::{ExecutorAnswer, Input};
use muster_proto::{executor_api, json::Codec, media::record};
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tracing::{info, warn};

/// Records that wait for an executor to read: all tasks that an agent may hold come at once.
const RECORDS_WAITING_MAX: usize = 65_536;
/// How often an executor is told that its agent lives. Rarely, for there are executors that end by a word they do not
/// know.
const HEARTBEAT: Duration = Duration::from_secs(30 * 60);

/// A call on its way through the loop.
struct Waiting {
    answer: oneshot::Sender<Result<ExecutorAnswer, NotItsOwn>>,
    /// What the token of its sender says, where executors have such.
    claims: Option<Claims>,
    /// What a SUBSCRIBE opens.
    stream: Option<Stream>,
}

/// A call was made with the token of another executor, or of another run of it.
#[derive(Debug)]
struct NotItsOwn;

/// An executor's stream.
#[derive(Clone)]
struct Stream {
    codec: Codec,
    records: mpsc::Sender<Bytes>,
}

impl Stream {
    /// False when it has to be taken for broken.
    fn send(&self, event: Vec<u8>) -> bool {
        let message = self.codec.write_encoded(executor_api::event_shape(), event.into());
        self.records.try_send(record(&message)).is_ok()
    }
}

/// What the requests and the loop share, and answers the requests.
#[derive(Clone)]
pub(crate) struct Api {
    calls: Arc<AtomicU64>,
    waiting: Arc<Mutex<HashMap<u64, Waiting>>>,
    inputs: mpsc::Sender<Input>,
}

impl Api {
    fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loop's side of the executor API.
pub(crate) struct Executors {
    api: Api,
    streams: BTreeMap<u64, Stream>,
    /// The agent's encoded description, which executors are shown.
    agent: Bytes,
    server: Option<JoinHandle<()>>,
}

impl Executors {
    pub(crate) fn new(agent: Bytes, inputs: mpsc::Sender<Input>) -> Self {
        let api = Api { calls: Arc::default(), waiting: Arc::default(), inputs };
        Self { api, streams: BTreeMap::new(), agent, server: None }
    }

    /// The requests' side.
    pub(crate) fn api(&self) -> Api {
        self.api.clone()
    }

    /// Serves from now on, with whatever else is served: the machine knows of every executor that lives.
    pub(crate) fn serve(&mut self, listener: TcpListener, routes: axum::Router) {
        self.server = Some(tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                warn!(%error, "the HTTP API ends");
            }
        }));
    }

    /// Whether a call comes from the executor that it names, of which this is the present run; one that does not is
    /// answered so. Of what is not there the machine says that.
    pub(crate) fn is_its_own(&self, call: u64, from: &ExecutorName, number: Option<LaunchNumber>) -> bool {
        let mut all = self.api.waiting();
        let claims = all.get(&call).and_then(|it| it.claims.as_ref());
        let (Some(claims), Some(number)) = (claims, number) else { return true };
        let is_its_own = claims.fid == from.framework_id.as_str()
            && claims.eid == from.executor_id.as_str()
            && claims.cid == executor_api::container_id(number);
        if !is_its_own && let Some(waiting) = all.remove(&call) {
            let _ = waiting.answer.send(Err(NotItsOwn)); // who asked may be gone
        }
        is_its_own
    }

    /// Answers a call; a SUBSCRIBE that was taken has a stream from now on.
    pub(crate) fn answer(&mut self, call: u64, answer: ExecutorAnswer) {
        let Some(waiting) = self.api.waiting().remove(&call) else { return };
        if let (ExecutorAnswer::Subscribed, Some(stream)) = (answer, waiting.stream) {
            self.streams.insert(call, stream);
        }
        let _ = waiting.answer.send(Ok(answer)); // who asked may be gone
    }

    /// Sends an event; false when the stream broke, or has to be taken for broken.
    pub(crate) fn tell(&mut self, stream: u64, event: &ExecutorEvent) -> bool {
        let Some(open) = self.streams.get(&stream) else { return true }; // its end is on the way to the machine
        let sent = open.send(executor_api::event(event, &self.agent));
        if !sent {
            info!(stream, "an executor's stream broke, or is not read");
            self.streams.remove(&stream);
        }
        sent
    }

    /// Ends a stream in order, after what was sent.
    pub(crate) fn hang_up(&mut self, stream: u64) {
        self.streams.remove(&stream);
    }
}

impl Drop for Executors {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }
}

/// Listens where the configuration says.
pub(crate) async fn listen(
    config: &crate::AgentConfig,
) -> Result<(TcpListener, SocketAddr), crate::AgentError> {
    let address = SocketAddr::new(config.listen_ip, config.port);
    let failed = |source| crate::AgentError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
