//! Where clients' streams end: agents' and schedulers' alike.

use crate::route::{DOWN_QUEUE, Down, Kind, LinkItem, Route, Routes, Sink, ToLeader};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use muster_model::{AgentEvent, Call, Event, Fence, SchedulerEvent, Session};
use muster_proto::{WireError, v1};
use prost::Message;
use std::{
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

static CLIENTS: AtomicU64 = AtomicU64::new(0);

/// A number for a client's stream, never used again in this process.
pub(crate) fn next_client() -> u64 {
    CLIENTS.fetch_add(1, Ordering::Relaxed) + 1
}

/// What the two kinds of streams differ in.
pub(crate) trait Frames: Send + 'static {
    type Up: Message + Default + Send + 'static;
    type Down: Message + Default + Send + 'static;
    const KIND: Kind;
    fn call(frame: Self::Up) -> Result<Call, WireError>;
    fn event(fence: Fence, event: Event) -> Option<Self::Down>;
    fn leader(fence: Fence, leader: &v1::Leader) -> Self::Down;
    fn redial(why: &str) -> Self::Down;
    /// Says why the stream ends.
    fn refusal(fence: Fence, why: String) -> Event;
}

pub(crate) struct Agents;

impl Frames for Agents {
    type Up = v1::AgentFrame;
    type Down = v1::AgentDownFrame;
    const KIND: Kind = Kind::Agent;
    fn call(frame: Self::Up) -> Result<Call, WireError> {
        muster_proto::agent_call(frame).map(|(session, call)| Call::Agent { session, call })
    }
    fn event(fence: Fence, event: Event) -> Option<Self::Down> {
        match event {
            Event::Agent { session, event } => Some(muster_proto::agent_down_frame(fence, session, &event)),
            Event::Scheduler(_) => None,
        }
    }
    fn leader(fence: Fence, leader: &v1::Leader) -> Self::Down {
        muster_proto::agent::agent_leader_frame(fence, &leader.name, &leader.address)
    }
    fn redial(why: &str) -> Self::Down {
        muster_proto::agent::agent_redial_frame(Fence::default(), why)
    }
    fn refusal(_: Fence, why: String) -> Event {
        Event::Agent { session: Session(0), event: AgentEvent::Rejected(why) }
    }
}

pub(crate) struct Schedulers;

impl Frames for Schedulers {
    type Up = v1::SchedulerFrame;
    type Down = v1::SchedulerDownFrame;
    const KIND: Kind = Kind::Scheduler;
    fn call(frame: Self::Up) -> Result<Call, WireError> {
        muster_proto::scheduler_call(frame).map(|(id, call)| Call::Scheduler { id, call })
    }
    fn event(fence: Fence, event: Event) -> Option<Self::Down> {
        match event {
            Event::Scheduler(event) => Some(muster_proto::scheduler_down_frame(fence, &event)),
            Event::Agent { .. } => None,
        }
    }
    fn leader(fence: Fence, leader: &v1::Leader) -> Self::Down {
        muster_proto::scheduler::scheduler_leader_frame(fence, &leader.name, &leader.address)
    }
    fn redial(why: &str) -> Self::Down {
        muster_proto::scheduler::scheduler_redial_frame(Fence::default(), why)
    }
    fn refusal(_: Fence, why: String) -> Event {
        Event::Scheduler(SchedulerEvent::Error(why))
    }
}

/// Encodes an event for a client of a link.
pub(crate) fn encode(kind: Kind, fence: Fence, event: Event) -> Option<Bytes> {
    match kind {
        Kind::Agent => Agents::event(fence, event).map(|frame| frame.encode_to_vec().into()),
        Kind::Scheduler => Schedulers::event(fence, event).map(|frame| frame.encode_to_vec().into()),
    }
}

/// Decodes a frame of a client of a link.
pub(crate) fn decode(kind: Kind, frame: Bytes) -> Result<Call, WireError> {
    let wrong = |error: prost::DecodeError| WireError::new("frame", error);
    match kind {
        Kind::Agent => v1::AgentFrame::decode(frame).map_err(wrong).and_then(Agents::call),
        Kind::Scheduler => v1::SchedulerFrame::decode(frame).map_err(wrong).and_then(Schedulers::call),
    }
}

pub(crate) fn refusal(kind: Kind, fence: Fence, why: String) -> Event {
    match kind {
        Kind::Agent => Agents::refusal(fence, why),
        Kind::Scheduler => Schedulers::refusal(fence, why),
    }
}

/// The doors of this master.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub(crate) routes: Routes,
    /// Ends all streams when the master stops.
    pub(crate) stop: CancellationToken,
}

type DownStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Door {
    fn open<F: Frames>(&self, incoming: Streaming<F::Up>) -> Response<DownStream<F::Down>> {
        let (down, queue) = mpsc::channel(DOWN_QUEUE);
        let cut = self.stop.child_token();
        tokio::spawn(client::<F>(incoming, down, cut.clone(), self.routes.clone()));
        let ended = cut.clone();
        let frames = ReceiverStream::new(queue)
            .take_while(|down| std::future::ready(!matches!(down, Down::Close)))
            .filter_map(|down| std::future::ready(to_frame::<F>(down)))
            .take_until(cut.clone().cancelled_owned());
        // However the stream ends, its client's task ends too.
        let guard = ended.drop_guard();
        let frames = frames.map(move |frame| {
            let _ = &guard;
            frame
        });
        Response::new(Box::pin(frames))
    }
}

fn to_frame<F: Frames>(down: Down) -> Option<Result<F::Down, Status>> {
    match down {
        Down::Event(fence, event) => F::event(fence, *event).map(Ok),
        Down::Frame(bytes) => Some(
            F::Down::decode(bytes)
                .map_err(|error| Status::internal(format!("frame from the leader: {error}"))),
        ),
        Down::Leader(fence, leader) => Some(Ok(F::leader(fence, &leader))),
        Down::Redial(why) => Some(Ok(F::redial(&why))),
        Down::Close => None,
    }
}

/// A client's place on the current route.
enum Place {
    Nowhere,
    Local(Fence, mpsc::Sender<ToLeader>),
    Remote(mpsc::Sender<LinkItem>),
}

/// Carries one client's frames up, along whatever route there is.
async fn client<F: Frames>(
    mut incoming: Streaming<F::Up>,
    down: mpsc::Sender<Down>,
    cut: CancellationToken,
    mut routes: Routes,
) {
    loop {
        let id = next_client();
        let route = routes.route.borrow_and_update().clone();
        let place = enter::<F>(&route, id, &down, &cut).await;
        if let Some((fence, leader)) = route.leader()
            && down.send(Down::Leader(fence, leader.clone())).await.is_err()
        {
            return leave(place, id).await;
        }
        loop {
            tokio::select! {
                biased;
                () = cut.cancelled() => return leave(place, id).await,
                changed = routes.route.changed() => {
                    if changed.is_err() {
                        cut.cancel();
                        return leave(place, id).await;
                    }
                    break;
                }
                Ok(()) = routes.redial.changed() => {
                    // A full queue means that the client does not read: it is cut off anyway.
                    let why = "this master has lost its leader: dial another one".to_owned();
                    if down.try_send(Down::Redial(why)).is_err() {
                        cut.cancel();
                    }
                }
                frame = incoming.next() => {
                    let going_on = match frame {
                        Some(Ok(frame)) => carry::<F>(&place, id, frame, &down).await,
                        Some(Err(_)) | None => false,
                    };
                    if !going_on {
                        cut_after_queue(&down, &cut);
                        return leave(place, id).await;
                    }
                }
            }
        }
        leave(place, id).await;
    }
}

fn cut_after_queue(down: &mpsc::Sender<Down>, cut: &CancellationToken) {
    if down.try_send(Down::Close).is_err() {
        cut.cancel();
    }
}

async fn enter<F: Frames>(
    route: &Route,
    id: u64,
    down: &mpsc::Sender<Down>,
    cut: &CancellationToken,
) -> Place {
    let sink = Sink::Local(down.clone(), cut.clone());
    match route {
        Route::None => Place::Nowhere,
        Route::Local(local) => match local.inputs.send(ToLeader::Opened(id, sink)).await {
            Ok(()) => Place::Local(local.fence, local.inputs.clone()),
            Err(_) => Place::Nowhere,
        },
        Route::Remote(remote) => match remote.up.send(LinkItem::Open(id, F::KIND, sink)).await {
            Ok(()) => Place::Remote(remote.up.clone()),
            Err(_) => Place::Nowhere,
        },
    }
}

/// Carries a frame up; false when the stream must end.
async fn carry<F: Frames>(place: &Place, id: u64, frame: F::Up, down: &mpsc::Sender<Down>) -> bool {
    match place {
        Place::Nowhere => true, // between leaders a link holds no frames: it drops them
        Place::Local(fence, inputs) => match F::call(frame) {
            Ok(call) => {
                // A loop that ended has dropped its clients: the next leader hears their hello.
                let _ = inputs.send(ToLeader::Call(id, call)).await;
                true
            }
            Err(error) => {
                tracing::info!(client = id, %error, "client sent a bad frame");
                let event = Box::new(F::refusal(*fence, error.to_string()));
                let _ = down.try_send(Down::Event(*fence, event)); // the stream ends in any case
                false
            }
        },
        Place::Remote(up) => {
            let _ = up.send(LinkItem::Frame(id, frame.encode_to_vec().into())).await;
            true
        }
    }
}

async fn leave(place: Place, id: u64) {
    // A loop or link that ended has forgotten the client already.
    match place {
        Place::Nowhere => {}
        Place::Local(_, inputs) => drop(inputs.send(ToLeader::Closed(id)).await),
        Place::Remote(up) => drop(up.send(LinkItem::Close(id)).await),
    }
}

#[tonic::async_trait]
impl v1::agent_service_server::AgentService for Door {
    type SessionStream = DownStream<v1::AgentDownFrame>;
    async fn session(
        &self,
        request: Request<Streaming<v1::AgentFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Ok(self.open::<Agents>(request.into_inner()))
    }
}

#[tonic::async_trait]
impl v1::scheduler_service_server::SchedulerService for Door {
    type SessionStream = DownStream<v1::SchedulerDownFrame>;
    async fn session(
        &self,
        request: Request<Streaming<v1::SchedulerFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Ok(self.open::<Schedulers>(request.into_inner()))
    }
}
