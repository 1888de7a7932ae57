//! openraft's network: for each peer a connection with the append stream, one for votes, one for snapshots.

use super::{
    MESSAGE_BYTES_MAX, PIPELINE,
    hail::{Caller, Dialer},
    link::{Item, Link},
    wire,
};
use crate::{
    config::{RaftConfig, endpoint},
    machine::{Snapshot, SnapshotFile},
    store::{lock, mark::Mark},
    types::{LogId, Member, TypeConfig, Vote},
};
use futures::{FutureExt, Stream, StreamExt, stream::BoxStream};
use muster_fault::{Point, point_async};
use muster_proto::raft::{self as proto, AppendResponse, peer_service_client::PeerServiceClient};
use openraft::{
    OptionalSend,
    base::BoxFuture,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{
        Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
        RaftNetworkFactory,
    },
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
        TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{io::AsyncReadExt, sync::mpsc, time::timeout};
use tonic::{Status, transport::Channel};

/// How long to wait before an unreachable peer is tried again.
const BACKOFF: Duration = Duration::from_millis(20);
const CONNECT: Duration = Duration::from_secs(1);
const SNAPSHOT_CHUNK_BYTES: usize = 256 * 1024;
/// A snapshot transfer without progress is given up after this.
const SNAPSHOT_PROGRESS: Duration = Duration::from_secs(30);
/// Installing a snapshot at the other end may take this long.
const SNAPSHOT_INSTALL: Duration = Duration::from_secs(600);
/// HTTP/2 windows: an entry of 1 MiB must not wait for window updates.
const WINDOW_BYTES: u32 = 8 << 20;

/// When each peer was last heard.
#[derive(Default)]
pub(crate) struct Heard(Mutex<HashMap<u64, Instant>>);

impl Heard {
    pub(crate) fn hear(&self, node_id: u64) {
        lock(&self.0).insert(node_id, Instant::now());
    }
    pub(crate) fn last(&self, node_id: u64) -> Option<Instant> {
        lock(&self.0).get(&node_id).copied()
    }
    /// When any of them was.
    pub(crate) fn newest(&self) -> Option<Instant> {
        lock(&self.0).values().max().copied()
    }
}

/// A connection that is dialled when it is used.
pub(crate) fn dial(address: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint = endpoint(address)?
        .connect_timeout(CONNECT)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    Ok(endpoint.connect_with_connector_lazy(Dialer::new(address, Caller::Peer)))
}

/// A client of a peer's service with our limits.
pub(crate) fn client(channel: Channel) -> PeerServiceClient<Channel> {
    PeerServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// Makes the clients; one connection for each peer.
pub(crate) struct Network {
    pub(crate) config: Arc<RaftConfig>,
    pub(crate) mark: Mark,
    pub(crate) heard: Arc<Heard>,
    peers: HashMap<(u64, String), Arc<Peer>>,
}

/// What the clients of one peer share.
struct Peer {
    target: proto::Target,
    address: String,
    channel: Option<Channel>,
    link: Mutex<Option<Arc<Link>>>,
    setup: Duration,
    idle: Duration,
    heard: Arc<Heard>,
    /// The last index that it said to hold to a leader of this term.
    holds: Mutex<(u64, u64)>,
}

impl Network {
    pub(crate) fn new(config: Arc<RaftConfig>, mark: Mark, heard: Arc<Heard>) -> Self {
        Self { config, mark, heard, peers: HashMap::new() }
    }

    fn peer(&self, target: u64, node: &Member) -> Arc<Peer> {
        // The configuration knows better than a membership that was written before an address changed.
        let address = self.config.address_of(&node.name).unwrap_or(&node.address).to_owned();
        let election = Duration::from_millis(self.config.election_ms_max);
        Arc::new(Peer {
            target: proto::Target {
                cluster_id: self.mark.cluster_id.clone().unwrap_or_default(),
                incarnation: self.mark.incarnation,
                to_node: target,
                from_node: self.mark.node_id,
            },
            channel: dial(&address).ok(),
            address,
            link: Mutex::new(None),
            setup: CONNECT.max(election),
            idle: (election * 4).max(Duration::from_secs(1)),
            heard: self.heard.clone(),
            holds: Mutex::default(),
        })
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerClient;

    async fn new_client(&mut self, target: u64, node: &Member) -> PeerClient {
        let address = self.config.address_of(&node.name).unwrap_or(&node.address).to_owned();
        let fresh = self.peer(target, node);
        PeerClient(self.peers.entry((target, address)).or_insert(fresh).clone())
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Member) -> PeerClient {
        PeerClient(self.peer(target, node))
    }
}

impl Peer {
    fn unreachable(&self, why: impl std::fmt::Display) -> Unreachable<TypeConfig> {
        Unreachable::from_string(format!("{}: {why}", self.address))
    }

    fn client(&self) -> Result<PeerServiceClient<Channel>, Unreachable<TypeConfig>> {
        let channel = self.channel.clone().ok_or_else(|| self.unreachable("not an address"))?;
        Ok(client(channel))
    }

    /// It holds the log up to there, as it says to the leader of this term.
    fn holds(&self, term: u64, id: Option<LogId>) {
        let Some(index) = id.map(|id| id.index) else { return };
        let mut holds = lock(&self.holds);
        *holds = if holds.0 == term { (term, index.max(holds.1)) } else { (term, index) };
    }

    /// It does not hold this entry. In one term nobody but its leader takes any away.
    fn lacks(&self, term: u64, id: LogId) {
        let mut holds = lock(&self.holds);
        if holds.0 == term && id.index <= holds.1 {
            tracing::error!(
                address = %self.address,
                node_id = self.target.to_node,
                acknowledged = holds.1,
                lacks = id.index,
                "a master has lost what it had acknowledged and is sent it again: its disk does not keep what it \
                 synced; replace that disk"
            );
            // Said once.
            *holds = Default::default();
        }
    }

    /// The open stream, or a new one.
    fn link(&self) -> Result<Arc<Link>, Unreachable<TypeConfig>> {
        let mut slot = lock(&self.link);
        if let Some(link) = slot.as_ref().filter(|link| link.is_open()) {
            return Ok(link.clone());
        }
        // On a connection of its own, which ends with it: over one that carries nothing back a leader would be heard
        // for ever, hear nobody, and be replaced by nobody.
        let channel = dial(&self.address).map_err(|error| self.unreachable(error))?;
        let link = Arc::new(Link::open(channel, self.setup, self.idle));
        *slot = Some(link.clone());
        Ok(link)
    }

    /// A unary call within its time.
    async fn call<T>(
        &self,
        option: &RPCOption,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, RPCError<TypeConfig>> {
        match timeout(option.soft_ttl(), call).await {
            Ok(Ok(response)) => {
                self.heard.hear(self.target.to_node);
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(self.unreachable(status).into()),
            Err(_) => Err(self.unreachable("no answer in time").into()),
        }
    }
}

/// openraft's handle to one peer.
pub(crate) struct PeerClient(Arc<Peer>);

impl NetBackoff<TypeConfig> for PeerClient {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(BACKOFF)))
    }
}

/// The appends of one caller on the shared stream.
struct Lane<S> {
    peer: Arc<Peer>,
    /// The stream that carries what waits, and its end.
    link: Option<(Arc<Link>, futures::future::BoxFuture<'static, String>)>,
    input: Option<S>,
    waiting: VecDeque<(u64, Option<LogId>, Option<LogId>)>,
    answer: mpsc::Sender<AppendResponse>,
    answers: mpsc::Receiver<AppendResponse>,
    over: bool,
}

type LaneItem = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

impl<S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin> Lane<S> {
    fn fail(&mut self, why: impl std::fmt::Display) -> Poll<Option<LaneItem>> {
        self.over = true;
        Poll::Ready(Some(Err(self.peer.unreachable(why).into())))
    }

    fn send(&mut self, request: AppendEntriesRequest<TypeConfig>) -> Result<(), String> {
        let (term, previous) = (request.vote.leader_id.term, request.prev_log_id);
        let last = request.entries.last().map(|entry| entry.log_id).or(previous);
        let request =
            wire::to_append(self.peer.target.clone(), request).map_err(|error| error.to_string())?;
        let link = match &self.link {
            Some((link, _)) if link.is_open() => link.clone(),
            // What is on its way on a stream that ended gets no answer.
            Some(_) if !self.waiting.is_empty() => return Err("the stream ended".into()),
            _ => {
                let link = self.peer.link().map_err(|error| error.to_string())?;
                self.link = Some((link.clone(), link.ended().boxed()));
                link
            }
        };
        self.waiting.push_back((term, previous, last));
        if link.send(Item { request, answer: self.answer.clone() }) {
            Ok(())
        } else {
            Err("the stream is over, or the peer does not keep up".into())
        }
    }

    fn answered(&mut self, response: AppendResponse) -> LaneItem {
        self.peer.heard.hear(self.peer.target.to_node);
        let (term, previous, last) = self.waiting.pop_front().unwrap_or_default();
        match wire::from_append_response(response) {
            Ok(AppendEntriesResponse::Success) => {
                self.peer.holds(term, last);
                Ok(Ok(last))
            }
            Ok(AppendEntriesResponse::PartialSuccess(matched)) => {
                self.peer.holds(term, matched);
                self.over = matched != last;
                Ok(Ok(matched))
            }
            Ok(AppendEntriesResponse::HigherVote(vote)) => {
                self.over = true;
                Ok(Err(StreamAppendError::HigherVote(vote)))
            }
            Ok(AppendEntriesResponse::Conflict) => {
                self.over = true;
                match previous {
                    Some(previous) => {
                        self.peer.lacks(term, previous);
                        Ok(Err(StreamAppendError::Conflict(previous)))
                    }
                    None => Err(self.peer.unreachable("a conflict before the first entry").into()),
                }
            }
            Err(error) => {
                self.over = true;
                Err(self.peer.unreachable(error).into())
            }
        }
    }
}

impl<S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin> Stream for Lane<S> {
    type Item = LaneItem;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<LaneItem>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        while this.waiting.len() < PIPELINE {
            let Some(input) = this.input.as_mut() else { break };
            match input.poll_next_unpin(context) {
                Poll::Ready(Some(request)) => {
                    if let Err(why) = this.send(request) {
                        return this.fail(why);
                    }
                }
                Poll::Ready(None) => this.input = None,
                Poll::Pending => break,
            }
        }
        if this.input.is_none() && this.waiting.is_empty() {
            return Poll::Ready(None);
        }
        match this.answers.poll_recv(context) {
            Poll::Ready(Some(response)) => return Poll::Ready(Some(this.answered(response))),
            Poll::Ready(None) => return this.fail("the stream ended"),
            Poll::Pending => {}
        }
        match &mut this.link {
            Some((_, ended)) if !this.waiting.is_empty() => match ended.poll_unpin(context) {
                Poll::Ready(why) => this.fail(why),
                Poll::Pending => Poll::Pending,
            },
            _ => Poll::Pending,
        }
    }
}

impl NetStreamAppend<TypeConfig> for PeerClient {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, LaneItem>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        // The option's limit is one heartbeat: far too short for a stream that lives on. The link has limits
        // of its own, for being opened and for being silent while an answer is due.
        let (answer, answers) = mpsc::channel(PIPELINE);
        let (peer, input, waiting) = (self.0.clone(), Some(input), VecDeque::new());
        let lane = Lane { peer, link: None, input, waiting, answer, answers, over: false };
        async move { Ok(lane.boxed()) }.boxed()
    }
}

impl NetVote<TypeConfig> for PeerClient {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(request, option, false).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(request, option, true).await
    }
}

impl PeerClient {
    async fn ask_vote(
        &self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
        pre_vote: bool,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = wire::to_vote_request(self.0.target.clone(), &request, pre_vote);
        let mut client = self.0.client()?;
        point_async!(Point::VoteSend).await.map_err(|error| self.0.unreachable(error))?;
        let response = self.0.call(&option, client.vote(request)).await?;
        wire::from_vote_response(response).map_err(|error| NetworkError::from_string(error).into())
    }
}

impl NetTransferLeader<TypeConfig> for PeerClient {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let sent = proto::TransferLeaderRequest {
            target: Some(self.0.target.clone()),
            from: Some(wire::to_vote(request.from_leader())),
            to_node: *request.to_node_id(),
            last_log: request.last_log_id().map(wire::to_log_id),
        };
        let mut client = self.0.client()?;
        let response = self.0.call(&option, client.transfer_leader(sent)).await?;
        if response.refused.is_empty() {
            return Ok(Ok(()));
        }
        tracing::info!(peer = %self.0.address, why = %response.refused, "the peer does not take over");
        Ok(Err(TransferLeaderError::LogNotFlushed { expected: request.last_log_id().copied(), actual: None }))
    }
}

impl NetSnapshot<TypeConfig> for PeerClient {
    type SnapshotData = SnapshotFile;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut client = self.0.client()?;
        let (chunks, sent) = mpsc::channel(4);
        let target = self.0.target.clone();
        let file = tokio::fs::File::open(&snapshot.snapshot.path)
            .await
            .map_err(NetworkError::<TypeConfig>::from_string)?;
        let reading = tokio::spawn(send_file(file, target, wire::to_vote(&vote), chunks));
        let request = client.install_snapshot(tokio_stream::wrappers::ReceiverStream::new(sent));
        let result = tokio::select! {
            closed = cancel => Err(closed.into()),
            response = timeout(SNAPSHOT_INSTALL, request) => match response {
                Ok(Ok(response)) => {
                    self.0.heard.hear(self.0.target.to_node);
                    wire::from_vote(response.into_inner().vote)
                        .map(SnapshotResponse::new)
                        .map_err(|error| NetworkError::<TypeConfig>::from_string(error).into())
                }
                Ok(Err(status)) => Err(self.0.unreachable(status).into()),
                Err(_) => Err(self.0.unreachable("the snapshot was not installed in time").into()),
            },
        };
        reading.abort();
        result
    }
}

async fn send_file(
    mut file: tokio::fs::File,
    target: proto::Target,
    vote: proto::VoteValue,
    chunks: mpsc::Sender<proto::SnapshotChunk>,
) {
    let mut first = Some((target, vote));
    loop {
        let mut data = bytes::BytesMut::with_capacity(SNAPSHOT_CHUNK_BYTES);
        match file.read_buf(&mut data).await {
            Ok(0) => return,
            Err(error) => return tracing::warn!(%error, "cannot read the snapshot that is being sent"),
            Ok(_) => {}
        }
        if let Err(error) = point_async!(Point::SnapshotSend).await {
            return tracing::warn!(%error, "cannot send a snapshot");
        }
        let (target, vote) = first.take().unzip();
        let chunk = proto::SnapshotChunk { target, vote, meta: Default::default(), data: data.freeze() };
        match timeout(SNAPSHOT_PROGRESS, chunks.send(chunk)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
}
