//! The stream to a master: dialled in random order, with pauses that grow and have chance in them.

use crate::{AgentConfig, launches::LaunchTimes};
use futures::stream;
use muster_fault::{Point, point_async};
use muster_model::{AgentCall, AgentEvent, Fence, Session};
use muster_node::{Down as Said, Input};
use muster_proto::{
    AgentDown,
    agent::wire_fence,
    agent_event, agent_frame,
    limits::FRAME_BYTES_MAX,
    v1::{AgentDownFrame, AgentFrame, agent_service_client::AgentServiceClient},
};
use rand::{RngExt, seq::SliceRandom};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinHandle, time};
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};
use tracing::{debug, info, warn};

/// Calls that may wait for the network; beyond that the stream is given up, and the next hello says it all.
const CALLS_WAITING_MAX: usize = 8_192;
const CONNECT: Duration = Duration::from_secs(1);
/// How long a master may take to accept a stream.
const OPEN: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(5);
/// A stream that lived this long was a good one: dialling starts afresh.
const GOOD: Duration = Duration::from_secs(3);

/// The present stream, open or on its way.
pub(crate) struct Link {
    config: Arc<AgentConfig>,
    inputs: mpsc::Sender<Input>,
    times: Arc<LaunchTimes>,
    stream: u64,
    calls: Option<mpsc::Sender<(Fence, Session, AgentCall)>>,
    dialling: Option<JoinHandle<()>>,
    /// Tries in a row that led to no good stream.
    tries: u32,
    /// When the present stream was asked for.
    since: Instant,
    /// The master that was last connected: another one is preferred.
    last: Arc<Mutex<Option<String>>>,
}

impl Link {
    pub(crate) fn new(
        config: Arc<AgentConfig>,
        inputs: mpsc::Sender<Input>,
        times: Arc<LaunchTimes>,
    ) -> Self {
        let (since, last) = (Instant::now(), Arc::default());
        Self { config, inputs, times, stream: 0, calls: None, dialling: None, tries: 0, since, last }
    }

    /// Opens the next stream, and drops the present one.
    pub(crate) fn dial(&mut self) {
        self.close();
        self.tries = if self.stream == 0 || self.since.elapsed() > GOOD { 0 } else { self.tries + 1 };
        self.since = Instant::now();
        self.stream += 1;
        let (calls, waiting) = mpsc::channel(CALLS_WAITING_MAX);
        self.calls = Some(calls);
        let dialler = Dialler {
            config: self.config.clone(),
            inputs: self.inputs.clone(),
            times: self.times.clone(),
            stream: self.stream,
            last: self.last.clone(),
        };
        self.dialling = Some(tokio::spawn(dialler.serve(self.tries, waiting)));
    }

    /// Queues a call for a leader; false when the stream has to be taken for closed.
    pub(crate) fn send(&mut self, stream: u64, leader: Fence, session: Session, call: AgentCall) -> bool {
        if stream != self.stream {
            return true; // of a stream that was dropped meanwhile
        }
        let sent = self.calls.as_ref().is_some_and(|calls| calls.try_send((leader, session, call)).is_ok());
        if !sent {
            self.close();
        }
        sent
    }

    pub(crate) fn close(&mut self) {
        self.calls = None;
        if let Some(dialling) = self.dialling.take() {
            dialling.abort();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

struct Dialler {
    config: Arc<AgentConfig>,
    inputs: mpsc::Sender<Input>,
    times: Arc<LaunchTimes>,
    stream: u64,
    last: Arc<Mutex<Option<String>>>,
}

type Client = AgentServiceClient<Channel>;
type Down = Streaming<AgentDownFrame>;
/// What waits for the network; an attempt that came to nothing gives it back.
type Waiting = Arc<tokio::sync::Mutex<mpsc::Receiver<(Fence, Session, AgentCall)>>>;

impl Dialler {
    /// Tries until a stream is open, then serves it to its end.
    async fn serve(self, mut tries: u32, waiting: mpsc::Receiver<(Fence, Session, AgentCall)>) {
        let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
        let down = loop {
            if tries > 0 {
                time::sleep(self.pause(tries)).await;
            }
            if let Some(down) = self.try_all(&waiting).await {
                break down;
            }
            tries += 1;
        };
        drop(waiting); // by now the stream's alone: when it ends, calls find it closed
        self.carry(down).await;
        // The loop is gone when this fails: nobody to tell.
        let _ = self.inputs.send(Input::StreamClosed { stream: self.stream }).await;
    }

    /// Half of the pause is certain, half is chance, so that agents that lost one master do not come as one.
    fn pause(&self, tries: u32) -> Duration {
        let full = self.config.dial_ms.saturating_mul(1 << tries.min(20)).min(self.config.dial_ms_max);
        Duration::from_millis(rand::rng().random_range(full / 2..=full))
    }

    /// One round over the masters, the last one connected at the end. A master that takes the connection and refuses the
    /// stream, as one that is about to end does, is no better than one that is not there.
    async fn try_all(&self, waiting: &Waiting) -> Option<Down> {
        let mut masters = self.config.masters.clone();
        masters.shuffle(&mut rand::rng());
        let last = self.last.lock().ok().and_then(|last| last.clone());
        masters.sort_by_key(|master| Some(master) == last.as_ref());
        for master in masters {
            let client = match connect(&master).await {
                Ok(client) => client,
                Err(error) => {
                    debug!(master, error = cause(&error), "cannot connect to a master");
                    continue;
                }
            };
            match time::timeout(OPEN, open(client, waiting.clone())).await {
                Ok(Ok(down)) => {
                    info!(master, "connected to a master");
                    if let Ok(mut last) = self.last.lock() {
                        *last = Some(master);
                    }
                    return Some(down);
                }
                Ok(Err(error)) => info!(master, error = error.message(), "a master refused the stream"),
                Err(_) => info!(master, "a master did not answer in time"),
            }
        }
        None
    }

    async fn carry(&self, mut down: Down) {
        if self.inputs.send(Input::StreamOpened { stream: self.stream }).await.is_err() {
            return;
        }
        loop {
            let frame = match down.message().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return info!("the master closed the stream"),
                Err(error) => return info!(error = error.message(), "the stream broke"),
            };
            let (fence, session, down) = match agent_event(frame) {
                Ok((fence, session, AgentDown::Leader { name, address })) => {
                    (fence, session, Said::Leader { name, address })
                }
                Ok((fence, session, AgentDown::Redial(why))) => (fence, session, Said::Redial(why)),
                Ok((fence, session, AgentDown::Event(event))) => (fence, session, Said::Event(event)),
                Err(error) => return warn!(%error, "a frame cannot be read"),
            };
            if let Said::Event(AgentEvent::Run(order)) = &down {
                self.times.ordered(order.launch);
            }
            if self.inputs.send(Input::Frame { stream: self.stream, fence, session, down }).await.is_err() {
                return;
            }
        }
    }
}

/// Opens the stream; what waits goes up on it.
async fn open(mut client: Client, waiting: Waiting) -> Result<Down, Status> {
    let waiting = waiting.lock_owned().await;
    let frames = stream::unfold(waiting, async |mut waiting| {
        let (leader, session, call) = waiting.recv().await?;
        if let Err(error) = point_async!(Point::AgentSend).await {
            warn!(%error, "the stream to the master ends");
            return None;
        }
        let frame = AgentFrame { fence: Some(wire_fence(leader)), ..agent_frame(session, &call) };
        Some((frame, waiting))
    });
    Ok(client.session(frames).await?.into_inner())
}

async fn connect(master: &str) -> Result<Client, tonic::transport::Error> {
    let channel = Endpoint::from_shared(format!("http://{master}"))?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .connect()
        .await?;
    let client = AgentServiceClient::new(channel);
    Ok(client.max_decoding_message_size(FRAME_BYTES_MAX).max_encoding_message_size(FRAME_BYTES_MAX))
}

/// The innermost reason: `connection refused` rather than `transport error`.
fn cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
