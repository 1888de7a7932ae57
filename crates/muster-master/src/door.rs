//! Where clients' streams end: agents' and schedulers' alike.

use crate::admit::{Guard, Passed};
use crate::route::{DOWN_QUEUE, Down, Kind, LinkItem, Route, Routes, Sink, ToLeader};
use crate::turns::{TURN, Turn, Turns};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use muster_fault::{Point, point_async};
use muster_http::auth::Auth;
use muster_model::{AgentEvent, Call, Event, Fence, SchedulerEvent, Session};
use muster_proto::{
    WireError,
    agent::wire_fence,
    raw::{agent_service_server, scheduler_service_server},
    v1,
};
use muster_raft::Raft;
use prost::Message;
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

static CLIENTS: AtomicU64 = AtomicU64::new(0);

/// A number for a client's stream, never used again in this process.
pub(crate) fn next_client() -> u64 {
    CLIENTS.fetch_add(1, Ordering::Relaxed) + 1
}

/// Encodes an event for a client; none for one that is not meant for its kind.
pub(crate) fn encode(kind: Kind, fence: Fence, event: Event) -> Option<Bytes> {
    let frame = match (kind, event) {
        (Kind::Agent, Event::Agent { session, event }) => {
            muster_proto::agent_down_frame(fence, session, &event).encode_to_vec()
        }
        (Kind::Scheduler, Event::Scheduler(event)) => muster_proto::scheduler_down_bytes(fence, &event),
        _ => return None,
    };
    Some(frame.into())
}

/// Decodes a client's frame; none when it is meant for another leader than that of `fence`. Such a one comes late: the
/// network held it back while leaders changed, and a hello of then does not know what came since.
pub(crate) fn decode(kind: Kind, fence: Fence, frame: Bytes) -> Result<Option<Call>, WireError> {
    let wrong = |error: prost::DecodeError| WireError::new("frame", error);
    let is_for_another = |meant: &Option<v1::Fence>| meant.is_some_and(|meant| meant != wire_fence(fence));
    match kind {
        Kind::Agent => {
            let frame = v1::AgentFrame::decode(frame).map_err(wrong)?;
            if is_for_another(&frame.fence) {
                return Ok(None);
            }
            muster_proto::agent_call(frame).map(|(session, call)| Some(Call::Agent { session, call }))
        }
        Kind::Scheduler => {
            let frame = v1::SchedulerFrame::decode(frame).map_err(wrong)?;
            if is_for_another(&frame.fence) {
                return Ok(None);
            }
            muster_proto::scheduler_call(frame).map(|(id, call)| Some(Call::Scheduler { id, call }))
        }
    }
}

/// Says why a client's stream ends.
pub(crate) fn refusal(kind: Kind, why: String) -> Event {
    match kind {
        Kind::Agent => Event::Agent { session: Session(0), event: AgentEvent::Rejected(why) },
        Kind::Scheduler => Event::Scheduler(SchedulerEvent::Error(why)),
    }
}

fn leader_frame(kind: Kind, fence: Fence, leader: &v1::Leader) -> Bytes {
    let (name, address) = (&leader.name, &leader.address);
    let frame = match kind {
        Kind::Agent => muster_proto::agent::agent_leader_frame(fence, name, address).encode_to_vec(),
        Kind::Scheduler => {
            muster_proto::scheduler::scheduler_leader_frame(fence, name, address).encode_to_vec()
        }
    };
    frame.into()
}

fn redial_frame(kind: Kind, why: &str) -> Bytes {
    let fence = Fence::default();
    let frame = match kind {
        Kind::Agent => muster_proto::agent::agent_redial_frame(fence, why).encode_to_vec(),
        Kind::Scheduler => muster_proto::scheduler::scheduler_redial_frame(fence, why).encode_to_vec(),
    };
    frame.into()
}

/// The doors of this master.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) routes: Routes,
    /// Who may come in as a scheduler, and what it may ask.
    pub(crate) auth: Arc<Auth>,
    pub(crate) raft: Raft,
    pub(crate) turns: Turns,
    /// Ends all streams when the master stops.
    pub(crate) stop: CancellationToken,
}

type DownStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

impl Door {
    fn open(&self, kind: Kind, incoming: Streaming<Bytes>, guard: Option<Guard>) -> Response<DownStream> {
        let (down, queue) = mpsc::channel(DOWN_QUEUE);
        let cut = self.stop.child_token();
        // Frameworks are few, and what agents come for.
        let turn = (kind == Kind::Agent).then(|| (self.turns.clone(), Turn::default()));
        let its_turn = turn.as_ref().map(|(_, turn)| turn.clone());
        tokio::spawn(client(kind, incoming, down, cut.clone(), self.routes.clone(), guard.clone(), turn));
        let ended = cut.clone();
        let frames = ReceiverStream::new(queue)
            .take_while(|down| std::future::ready(!matches!(down, Down::Close)))
            .inspect(move |down| {
                guard.iter().for_each(|guard| guard.note(down));
                its_turn.iter().for_each(|turn| turn.note(down));
            })
            .filter_map(move |down| std::future::ready(to_frame(kind, down)))
            .then(move |frame| send(kind, frame))
            .take_until(cut.cancelled_owned());
        // However the stream ends, its client's task ends too.
        let guard = ended.drop_guard();
        let frames = frames.map(move |frame| {
            let _ = &guard;
            frame
        });
        Response::new(Box::pin(frames))
    }
}

/// Lets a frame go down to its client.
async fn send(kind: Kind, frame: Bytes) -> Result<Bytes, Status> {
    let point = match kind {
        Kind::Agent => Point::ToAgent,
        Kind::Scheduler => Point::ToFramework,
    };
    point_async!(point).await.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(frame)
}

fn to_frame(kind: Kind, down: Down) -> Option<Bytes> {
    match down {
        // It makes room once it is on its way.
        Down::Event(fence, event, held) => {
            let frame = encode(kind, fence, *event);
            drop(held);
            frame
        }
        Down::Frame(bytes, held) => {
            drop(held);
            Some(bytes)
        }
        Down::Leader(fence, leader) => Some(leader_frame(kind, fence, &leader)),
        Down::Redial(why) => Some(redial_frame(kind, &why)),
        Down::Close => None,
    }
}

/// A client's place on the current route.
pub(crate) enum Place {
    Nowhere,
    Local(Fence, mpsc::Sender<ToLeader>),
    Remote(mpsc::Sender<LinkItem>),
}

/// Carries one client's frames up, along whatever route there is.
async fn client(
    kind: Kind,
    mut incoming: Streaming<Bytes>,
    down: mpsc::Sender<Down>,
    cut: CancellationToken,
    mut routes: Routes,
    guard: Option<Guard>,
    turns: Option<(Turns, Turn)>,
) {
    // What clients were told before this one came is not for it.
    routes.redial.mark_unchanged();
    loop {
        let route = routes.route.borrow_and_update().clone();
        let (mut place, mut id) = (Place::Nowhere, 0);
        // Until it is told who leads, and then until it has had its time for an answer.
        let mut waits = route.leader().is_some();
        let mut turn_ends = None;
        let next = async {
            if let Some((turns, turn)) = &turns {
                turn.begin(turns.next().await);
            }
        };
        tokio::pin!(next);
        let leaves = async |place, id| {
            turns.iter().for_each(|(_, turn)| turn.end());
            leave(place, id).await;
        };
        loop {
            tokio::select! {
                biased;
                // Before any frame: what comes before it is told who leads is for nobody.
                () = &mut next, if waits => {
                    waits = false;
                    turn_ends = turns.as_ref().map(|_| Instant::now() + TURN);
                    // Numbered now: the leader takes the order of numbers for that in which its clients were told.
                    id = next_client();
                    place = enter(&route, kind, id, &down, &cut).await;
                    if let Some((fence, leader)) = route.leader()
                        && down.try_send(Down::Leader(fence, leader.clone())).is_err()
                    {
                        cut.cancel(); // it does not read
                        return leaves(place, id).await;
                    }
                }
                () = elapsed(turn_ends), if turn_ends.is_some() => {
                    turn_ends = None;
                    turns.iter().for_each(|(_, turn)| turn.end());
                }
                // Then this, since it is what happens: when a frame is there, nothing else has to be set up.
                frame = incoming.next() => {
                    let going_on = match frame {
                        Some(Ok(frame)) => match &guard {
                            None => carry(&place, kind, id, frame, &down).await,
                            Some(guard) => carry_checked(guard, &route, &place, id, frame, &down).await,
                        },
                        Some(Err(_)) | None => false,
                    };
                    if !going_on {
                        cut_after_queue(&down, &cut);
                        return leaves(place, id).await;
                    }
                    // One that never pauses must not keep the others from being looked at.
                    if cut.is_cancelled() || routes.route.has_changed().unwrap_or(true) {
                        break;
                    }
                }
                () = cut.cancelled() => return leaves(place, id).await,
                changed = routes.route.changed() => {
                    if changed.is_err() {
                        cut.cancel();
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
            }
        }
        leaves(place, id).await;
        if cut.is_cancelled() {
            return;
        }
    }
}

async fn elapsed(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

fn cut_after_queue(down: &mpsc::Sender<Down>, cut: &CancellationToken) {
    if down.try_send(Down::Close).is_err() {
        cut.cancel();
    }
}

/// Takes a place on a route, with this way down.
pub(crate) async fn enter(
    route: &Route,
    kind: Kind,
    id: u64,
    down: &mpsc::Sender<Down>,
    cut: &CancellationToken,
) -> Place {
    let sink = Sink::local(down.clone(), cut.clone());
    match route {
        Route::None => Place::Nowhere,
        Route::Local(local) => match local.inputs.send(ToLeader::Opened(id, sink)).await {
            Ok(()) => Place::Local(local.fence, local.inputs.clone()),
            Err(_) => Place::Nowhere,
        },
        Route::Remote(remote) => match remote.up.send(LinkItem::Open(id, kind, sink)).await {
            Ok(()) => Place::Remote(remote.up.clone()),
            Err(_) => Place::Nowhere,
        },
    }
}

/// Carries a frame up; false when the stream must end.
async fn carry(place: &Place, kind: Kind, id: u64, frame: Bytes, down: &mpsc::Sender<Down>) -> bool {
    match place {
        Place::Nowhere => true, // between leaders a link holds no frames: it drops them
        Place::Local(fence, inputs) => match decode(kind, *fence, frame) {
            Ok(None) => true,
            Ok(Some(call)) => {
                // A loop that ended has dropped its clients: the next leader hears their hello.
                let _ = inputs.send(ToLeader::Call(id, call)).await;
                true
            }
            Err(error) => {
                tracing::info!(client = id, %error, "client sent a bad frame");
                let event = Box::new(refusal(kind, error.to_string()));
                let _ = down.try_send(Down::Event(*fence, event, None)); // the stream ends in any case
                false
            }
        },
        Place::Remote(up) => {
            let _ = up.send(LinkItem::Frame(id, frame)).await;
            true
        }
    }
}

/// Carries a scheduler's frame up as far as it may ask for it; false when the stream must end.
async fn carry_checked(
    guard: &Guard,
    route: &Route,
    place: &Place,
    id: u64,
    frame: Bytes,
    down: &mpsc::Sender<Down>,
) -> bool {
    match guard.pass(frame).await {
        Passed::On(frames) => {
            for frame in frames {
                if !carry(place, Kind::Scheduler, id, frame, down).await {
                    return false;
                }
            }
            true
        }
        Passed::Told(event, is_end) => {
            let fence = route.leader().map(|(fence, _)| fence).unwrap_or_default();
            // A full queue means that the client does not read.
            down.try_send(Down::Event(fence, event, None)).is_ok() && !is_end
        }
    }
}

/// Gives a place back.
pub(crate) async fn leave(place: Place, id: u64) {
    // A loop or link that ended has forgotten the client already.
    match place {
        Place::Nowhere => {}
        Place::Local(_, inputs) => drop(inputs.send(ToLeader::Closed(id)).await),
        Place::Remote(up) => drop(up.send(LinkItem::Close(id)).await),
    }
}

#[tonic::async_trait]
impl agent_service_server::AgentService for Door {
    type SessionStream = DownStream;
    async fn session(&self, request: Request<Streaming<Bytes>>) -> Result<Response<DownStream>, Status> {
        Ok(self.open(Kind::Agent, request.into_inner(), None))
    }
}

#[tonic::async_trait]
impl scheduler_service_server::SchedulerService for Door {
    type SessionStream = DownStream;
    async fn session(&self, request: Request<Streaming<Bytes>>) -> Result<Response<DownStream>, Status> {
        let guard = Guard::of(&self.auth, &self.raft, request.metadata())?;
        Ok(self.open(Kind::Scheduler, request.into_inner(), guard))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{link::Heard, route::LocalRoute, turns::AT_ONCE};
    use muster_proto::raw::BytesCodec;
    use std::{collections::VecDeque, convert::Infallible, time::SystemTime};
    use tokio::{sync::watch, time::timeout};
    use tonic::codec::Codec;

    /// A leader in this process, and what comes to it.
    struct Led {
        routes: Routes,
        _publish: watch::Sender<Route>,
        _redial: watch::Sender<u64>,
        inputs: mpsc::Receiver<ToLeader>,
        turns: Turns,
        cut: CancellationToken,
    }

    impl Led {
        fn new() -> Self {
            let (inputs, inputs_in) = mpsc::channel(4 * AT_ONCE);
            let (fence, leader) = (Fence::default(), v1::Leader::default());
            let local = LocalRoute { fence, leader, since: SystemTime::now(), inputs };
            let (publish, route) = watch::channel(Route::Local(Arc::new(local)));
            let (redial_out, redial) = watch::channel(0);
            let routes = Routes { route, redial, heard: Arc::new(Heard::new()) };
            let (turns, cut) = (Turns::default(), CancellationToken::new());
            Self { routes, _publish: publish, _redial: redial_out, inputs: inputs_in, turns, cut }
        }

        /// A client that says nothing; what goes down to it, and its turn.
        fn client(&self, kind: Kind) -> (mpsc::Receiver<Down>, Turn) {
            let silence = futures::stream::pending::<Result<Bytes, Infallible>>();
            let body = axum::body::Body::from_stream(silence);
            let incoming = Streaming::new_request(BytesCodec.decoder(), body, None, None);
            let (down, queue) = mpsc::channel(4);
            let turn = Turn::default();
            let turns = (kind == Kind::Agent).then(|| (self.turns.clone(), turn.clone()));
            let (cut, routes) = (self.cut.clone(), self.routes.clone());
            tokio::spawn(client(kind, incoming, down, cut, routes, None, turns));
            (queue, turn)
        }

        async fn opened(&mut self) -> bool {
            let input = timeout(TURN / 10, self.inputs.recv()).await;
            matches!(input, Ok(Some(ToLeader::Opened(..))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn agents_are_told_who_leads_when_others_were_answered_and_frameworks_at_once() {
        let mut led = Led::new();
        let mut agents: VecDeque<_> = (0..2 * AT_ONCE + 1).map(|_| led.client(Kind::Agent)).collect();
        for _ in 0..AT_ONCE {
            assert!(led.opened().await);
        }
        assert!(!led.opened().await, "the others wait");
        let _framework = led.client(Kind::Scheduler);
        assert!(led.opened().await, "a framework does not");
        let (mut down, turn) = agents.pop_front().unwrap();
        let told = down.recv().await.unwrap();
        assert!(matches!(told, Down::Leader(..)));
        turn.note(&told);
        assert!(!led.opened().await, "it was asked, and has not been answered");
        turn.note(&Down::Frame(Bytes::new(), None));
        assert!(led.opened().await);
        // Those that say nothing keep nobody waiting for longer than their turn.
        tokio::time::sleep(TURN).await;
        for _ in 0..AT_ONCE {
            assert!(led.opened().await);
        }
        assert!(!led.opened().await);
    }
}
