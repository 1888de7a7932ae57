//! What this replica answers to the other masters. Who asks for another cluster, incarnation or node id is
//! refused, votes included (`protocol` H27).

use super::{MESSAGE_BYTES_MAX, PIPELINE, wire};
use crate::{
    machine::{Snapshot, SnapshotFile},
    member,
    raft::{Core, Node},
    store::snapshot,
    suspicion,
};
use futures::{StreamExt, stream::FuturesOrdered};
use muster_fault::{Point, planted, point_async};
use muster_proto::raft::{
    self as proto,
    peer_service_server::{PeerService, PeerServiceServer},
};
use openraft::raft::TransferLeaderRequest;
use std::{path::PathBuf, sync::Arc};
use tokio::{
    io::AsyncWriteExt,
    sync::{mpsc, watch},
    task::unconstrained,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// The service, to be mounted on a tonic router.
pub type PeerServer = PeerServiceServer<Peers>;

/// Answers the other masters.
pub struct Peers {
    node: Arc<Node>,
}

impl Peers {
    pub(crate) fn server(node: Arc<Node>) -> PeerServer {
        PeerServiceServer::new(Self { node })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// Refuses what is meant for someone else.
fn check(node: &Node, target: Option<&proto::Target>) -> Result<(), Status> {
    let target = target.ok_or_else(|| Status::invalid_argument("the request names no target"))?;
    let mark = node.store.mark();
    let refused = |what: String| Err(Status::failed_precondition(what));
    match &mark.cluster_id {
        None => return refused(format!("{} is in no cluster yet", node.config.name)),
        Some(cluster_id) if *cluster_id != target.cluster_id => {
            node.strangers.meet(target.from_node, &target.cluster_id);
            return refused(format!(
                "{} is in the cluster {cluster_id}, not {}",
                node.config.name, target.cluster_id
            ));
        }
        Some(_) => {}
    }
    if mark.incarnation != target.incarnation {
        return refused(format!("{} is in incarnation {}", node.config.name, mark.incarnation));
    }
    if mark.node_id != target.to_node {
        return refused(format!("{} has a new node id: its old disk is gone", node.config.name));
    }
    if mark.founding.is_none() && !mark.joined {
        return refused(format!("{} was not taken in yet", node.config.name));
    }
    node.heard.hear(target.from_node);
    Ok(())
}

/// openraft, for a request that is meant for this replica. The first one starts it: by then its cluster exists.
async fn core_for(node: &Arc<Node>, target: Option<&proto::Target>) -> Result<Core, Status> {
    check(node, target)?;
    if let Some(core) = node.core() {
        return Ok(core);
    }
    let _entering = node.entering.lock().await;
    // The record may have been replaced while we waited.
    check(node, target)?;
    if node.stopping() {
        return Err(stopping());
    }
    node.start().await.map_err(Status::internal)
}

/// What openraft answers, unless this replica stops first.
async fn answered<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    node: &Node,
    call: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, Status> {
    node.unless_stopped(call).await.ok_or_else(stopping)?.map_err(stopped)
}

fn stopping() -> Status {
    Status::unavailable("stopping")
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("consensus stopped: {error}"))
}

fn invalid(error: wire::WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

#[tonic::async_trait]
impl PeerService for Peers {
    type AppendStream = ReceiverStream<Result<proto::AppendResponse, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<proto::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        if self.node.stopping() {
            return Err(stopping());
        }
        let (answers, stream) = mpsc::channel(PIPELINE);
        self.node.spawn(append_all(self.node.clone(), request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteResponse>, Status> {
        let request = request.into_inner();
        let core = core_for(&self.node, request.target.as_ref()).await?;
        point_async!(Point::VoteReceive).await.map_err(stopped)?;
        let pre_vote = request.pre_vote;
        if let (true, Some(target)) = (pre_vote, &request.target) {
            suspicion::pre_vote_asked(&self.node, &core, target.from_node);
        }
        let request = wire::from_vote_request(request).map_err(invalid)?;
        let wanted = request.clone();
        let asked =
            async move { if pre_vote { core.pre_vote(request).await } else { core.vote(request).await } };
        let mut answer = answered(&self.node, asked).await?;
        if planted!(VoteForAll) {
            answer.vote_granted = true;
            answer.vote = wanted.vote;
        }
        point_async!(Point::VoteAnswer).await.map_err(stopped)?;
        Ok(Response::new(wire::to_vote_response(&answer)))
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferLeaderRequest>,
    ) -> Result<Response<proto::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        let core = core_for(&self.node, request.target.as_ref()).await?;
        let from = wire::from_vote(request.from).map_err(invalid)?;
        let last = request.last_log.map(wire::from_log_id);
        let request = TransferLeaderRequest::new(from, request.to_node, last);
        let taken = async move { core.handle_transfer_leader(request).await };
        let refused = match answered(&self.node, taken).await? {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        Ok(Response::new(proto::TransferLeaderResponse { refused }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<proto::SnapshotChunk>>,
    ) -> Result<Response<proto::SnapshotResponse>, Status> {
        let mut chunks = request.into_inner();
        let first =
            chunks.message().await?.ok_or_else(|| Status::invalid_argument("the snapshot is empty"))?;
        let core = core_for(&self.node, first.target.as_ref()).await?;
        point_async!(Point::SnapshotReceive).await.map_err(stopped)?;
        let vote = wire::from_vote(first.vote).map_err(invalid)?;
        let number = self.node.receiving.enter(vote.leader_id.term)?;
        let node = self.node.clone();
        // To its end, whether or not anybody waits for it: what was written must not stay.
        let received = async move {
            let _turn = node.receiving.turn.lock().await;
            let path = node.store.snapshot_dir().join(format!("incoming-{number}.part"));
            let result = install(&node, core, vote, (first.data, chunks), (number, path.clone())).await;
            // Renamed when it was installed; else nobody wants it. Who stops may be about to rename it, and finds it at the next start.
            if !node.stopping() {
                tokio::fs::remove_file(&path).await.ok();
            }
            result
        };
        self.node.unless_stopped(received).await.ok_or_else(stopping)?
    }

    async fn identify(
        &self,
        _request: Request<proto::IdentifyRequest>,
    ) -> Result<Response<proto::IdentifyResponse>, Status> {
        // Who ends is not there any more, for those who would wait for it.
        if self.node.stopping() {
            return Err(stopping());
        }
        let mark = self.node.store.mark();
        let started = !mark.blank() || mark.joined;
        Ok(Response::new(proto::IdentifyResponse {
            name: self.node.config.name.clone(),
            node_id: mark.node_id,
            blank: !started && mark.damage.is_none(),
            started,
            cluster_id: mark.cluster_id.unwrap_or_default(),
        }))
    }

    async fn found(
        &self,
        request: Request<proto::FoundRequest>,
    ) -> Result<Response<proto::FoundResponse>, Status> {
        let record = request.into_inner().record.ok_or_else(|| Status::invalid_argument("no record"))?;
        let (stored, why_not) = match member::accept_founding(&self.node, record).await {
            Ok(()) => (true, String::new()),
            Err(why_not) => (false, why_not),
        };
        Ok(Response::new(proto::FoundResponse { stored, why_not }))
    }

    async fn join(
        &self,
        request: Request<proto::JoinRequest>,
    ) -> Result<Response<proto::JoinResponse>, Status> {
        let node = self.node.clone();
        let taken_in = async move { member::take_in(&node, request.into_inner()).await };
        self.node.unless_stopped(taken_in).await.map(Response::new).ok_or_else(stopping)
    }
}

/// Snapshots that come in, one at a time.
///
/// One that is on its way makes room for the next: whoever sends it may be gone without a word, and a new leader may have no
/// quorum without the master that receives it.
#[derive(Default)]
pub(crate) struct Receiving {
    turn: tokio::sync::Mutex<()>,
    /// The term of the newest one's sender, and its number.
    newest: watch::Sender<(u64, u64)>,
}

impl Receiving {
    /// The number of another one. A leader that was replaced takes nobody's place.
    fn enter(&self, term: u64) -> Result<u64, Status> {
        let mut number = None;
        self.newest.send_if_modified(|newest| {
            if newest.0 <= term {
                *newest = (term, newest.1 + 1);
                number = Some(newest.1);
            }
            number.is_some()
        });
        number.ok_or_else(|| Status::failed_precondition("a later leader has sent a snapshot"))
    }
}

/// Receives a snapshot into a file, verifies all of it, makes it durable and hands it over.
async fn install(
    node: &Node,
    core: Core,
    vote: crate::types::Vote,
    (first, mut chunks): (bytes::Bytes, Streaming<proto::SnapshotChunk>),
    (number, path): (u64, PathBuf),
) -> Result<Response<proto::SnapshotResponse>, Status> {
    let io = |error: std::io::Error| Status::internal(format!("cannot store the snapshot: {error}"));
    let mut newest = node.receiving.newest.subscribe();
    let mut file = tokio::fs::File::create(&path).await.map_err(io)?;
    file.write_all(&first).await.map_err(io)?;
    let (syncs, mut unsynced) = (node.store.options().syncs(), first.len() as u64);
    loop {
        let chunk = tokio::select! {
            chunk = chunks.message() => chunk?,
            _ = newest.wait_for(|newest| newest.1 != number) => {
                return Err(Status::aborted("a later snapshot takes its place"));
            }
        };
        let Some(chunk) = chunk else { break };
        file.write_all(&chunk.data).await.map_err(io)?;
        unsynced += chunk.data.len() as u64;
        if syncs && unsynced >= snapshot::SYNC_BYTES {
            file.sync_data().await.map_err(io)?;
            unsynced = 0;
        }
    }
    // What was written last may be on its way to the file still.
    file.flush().await.map_err(io)?;
    point_async!(Point::SnapshotReceived).await.map_err(io)?;
    if syncs {
        file.sync_all().await.map_err(io)?;
    }
    drop(file);
    point_async!(Point::SnapshotStored).await.map_err(io)?;
    let read = tokio::task::spawn_blocking({
        let path = path.clone();
        move || snapshot::read(&path)
    });
    let read = read.await.map_err(|error| Status::internal(error.to_string()))?;
    let (meta, registry) = read.map_err(|error| Status::data_loss(error.to_string()))?;
    let ours = node.store.mark().cluster_id.unwrap_or_default();
    if registry.cluster_id().as_str() != ours {
        return Err(Status::failed_precondition(format!(
            "the snapshot is of the cluster {}, not of {ours}",
            registry.cluster_id()
        )));
    }
    let snapshot = Snapshot { meta, snapshot: SnapshotFile { path, registry: Some(registry) } };
    let answer = core.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
    Ok(Response::new(proto::SnapshotResponse { vote: Some(wire::to_vote(&answer.vote)) }))
}

/// Hands appends to openraft as they come and answers them in order.
async fn append_all(
    node: Arc<Node>,
    mut requests: Streaming<proto::AppendRequest>,
    answers: mpsc::Sender<Result<proto::AppendResponse, Status>>,
) {
    let mut waiting = FuturesOrdered::new();
    let mut leader = None;
    let end = loop {
        tokio::select! {
            Some((sequence, answer)) = next_in_order(&mut waiting), if !waiting.is_empty() => {
                let answer = match answer {
                    Ok(answer) => Ok(wire::to_append_response(sequence, answer)),
                    Err(error) => break Some(stopped(error)),
                };
                if let Err(error) = point_async!(Point::AppendAnswer).await {
                    break Some(stopped(error));
                }
                if answers.send(answer).await.is_err() {
                    break None;
                }
            }
            request = requests.message(), if waiting.len() < PIPELINE => {
                let request = match request {
                    Ok(Some(request)) => request,
                    Ok(None) | Err(_) => break None,
                };
                let from = request.target.as_ref().map(|target| target.from_node);
                let core = match core_for(&node, request.target.as_ref()).await {
                    Ok(core) => core,
                    Err(status) => break Some(status),
                };
                let sequence = request.sequence;
                if let Err(error) = point_async!(Point::AppendReceive).await {
                    break Some(stopped(error));
                }
                match wire::from_append(request) {
                    Ok(request) => {
                        leader = from.map(|from| (from, request.vote));
                        waiting.push_back(async move { (sequence, core.append_entries(request).await) });
                    }
                    Err(error) => {
                        // An entry that this version does not understand must stop it, never be skipped.
                        node.store.fail(format!("cannot take an entry of the leader in: {error}"));
                        break Some(invalid(error));
                    }
                }
            }
        }
    };
    match (end, leader) {
        (Some(end), _) => drop(answers.send(Err(end)).await),
        (None, Some((leader, vote))) => suspicion::stream_ended(&node, leader, vote),
        (None, None) => {}
    }
}

/// The next answer. openraft takes a request in when it is first polled, and they are polled in their order, unless tokio
/// makes some wait because their task has had its turn: others would overtake those.
async fn next_in_order<F: Future>(waiting: &mut FuturesOrdered<F>) -> Option<F::Output> {
    unconstrained(waiting.next()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_enter_in_their_order_however_many_come_at_once() {
        const COUNT: usize = 1_000;
        let (enter, mut entered) = mpsc::channel(COUNT);
        let mut waiting = FuturesOrdered::new();
        for n in 0..COUNT {
            let enter = enter.clone();
            waiting.push_back(async move { enter.send(n).await });
        }
        while next_in_order(&mut waiting).await.is_some() {}
        drop(enter);
        for n in 0..COUNT {
            assert_eq!(entered.recv().await, Some(n));
        }
    }
}
