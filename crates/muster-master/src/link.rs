//! Links: the streams of a follower's clients, multiplexed to the leader and back. A pipe: it decides nothing
//! and remembers only who is on it.

use crate::{
    door::{decode, encode, next_client, refusal},
    route::{Down, Kind, LinkItem, RemoteRoute, Route, Routes, Sink, ToLeader, UP_QUEUE, weight},
};
use futures::{Stream, StreamExt};
use muster_fault::{Point, point_async};
use muster_model::{Event, Fence};
use muster_proto::v1::{self, link_down, link_service_client::LinkServiceClient, link_up};
use muster_raft::{Caller, Dialer};
use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataValue};

/// Frames that wait on one link's shared stream, at most, but for those of [`CLIENT_LEAST`].
const LINK_QUEUE: usize = 16_384;
/// Frames of one client on a shared stream, at most: one slow client never fills it.
const CLIENT_SHARE: usize = 4_096;
/// So many of each client may wait however full the stream is: thousands that are all told something at once do not read
/// slowly.
const CLIENT_LEAST: usize = 64;
/// A frame that is longer counts as several.
const FRAME_BYTES: usize = 4 << 10;
/// Items in one message of a link, at most.
const ITEMS_AT_ONCE: usize = 256;
/// A message of a link that holds this much takes no further item: with its last frame it stays below the limit.
const BYTES_AT_ONCE: usize = 64 << 10;
/// How often a link is tried.
const PING: Duration = Duration::from_millis(250);
/// A leader hears no more of a link on which nothing came for this long. What the network held back all the time may
/// come from clients that have found another way since: their hello would be taken for their newest. So this and
/// [`PING`] are less than [`SILENCE`] together, after which clients go elsewhere.
const LATE: Duration = Duration::from_millis(1_500);
/// A call that is handed on beside a link is late once so many pings more have come over the link.
const PINGS_LATE: u64 = 12;
/// Names a link to the leader that it leads to.
const LINK: &str = "muster-link";
/// With the refusal of a leader that was elected and does not serve yet.
const BEGINS: &str = "muster-begins";
/// How long that is as good as a round trip: with tens of thousands of agents a new leader is busy for some seconds, and
/// clients that all went elsewhere meanwhile would keep it so.
const BEGINS_MAX: Duration = Duration::from_secs(10);
/// A link without a completed round trip for this long tells its clients to dial another master.
pub(crate) const SILENCE: Duration = Duration::from_secs(2);
/// How long to wait between attempts to link to a leader that does not serve yet.
const RETRY: Duration = Duration::from_millis(20);

// ---- the leader's side ----

/// What goes down a link, encoded by the link's own task.
enum LinkEvent {
    Event(u64, Box<Event>),
    Close(u64),
}

/// What waits on a link, bounded by what is counted of it.
#[derive(Debug, Clone)]
struct LinkQueue {
    events: mpsc::UnboundedSender<LinkEvent>,
    queued: Arc<AtomicUsize>,
}

/// The way down to one client of a link.
#[derive(Debug, Clone)]
pub(crate) struct LinkSink {
    client: u64,
    queue: LinkQueue,
    queued: Arc<AtomicUsize>,
}

impl std::fmt::Debug for LinkEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkEvent")
    }
}

/// What an event takes of its client's share: a long one as much as several.
fn share(event: &Event) -> usize {
    1 + weight(event) / FRAME_BYTES
}

impl LinkSink {
    pub(crate) fn send(&self, event: Event) -> bool {
        let most = match self.queue.queued.load(Ordering::Relaxed) {
            0..LINK_QUEUE => CLIENT_SHARE,
            _ => CLIENT_LEAST,
        };
        self.queued.load(Ordering::Relaxed) < most && self.send_more(event)
    }

    /// The same to a client that has had its share; false when the link is over.
    fn send_more(&self, event: Event) -> bool {
        let share = share(&event);
        self.queue.queued.fetch_add(share, Ordering::Relaxed);
        self.queued.fetch_add(share, Ordering::Relaxed);
        self.queue.events.send(LinkEvent::Event(self.client, Box::new(event))).is_ok()
    }

    pub(crate) fn close(self) {
        let _ = self.queue.events.send(LinkEvent::Close(self.client)); // a link that is over closes them all
    }
}

/// The links to this master that live. A call that a follower hands on beside its link names it: what the network held
/// back while the link died is not carried out when it comes at last, long after somebody else was asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Links(Arc<std::sync::Mutex<HashMap<u128, Beat>>>);

/// The last ping of a link.
#[derive(Debug)]
struct Beat {
    pings: u64,
    heard: Instant,
}

/// A link's place among those that live, until it is dropped.
struct Listed {
    links: Links,
    token: u128,
}

impl Links {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u128, Beat>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn list(&self, token: u128) -> Listed {
        self.lock().insert(token, Beat { pings: 0, heard: Instant::now() });
        Listed { links: self.clone(), token }
    }

    /// Whether what its sender calls this ([`Beside`]) is a link that lives, and was said of it lately.
    pub(crate) fn is_timely(&self, beside: &str) -> bool {
        let Some((token, pings)) = read_beside(beside) else { return false };
        self.lock().get(&token).is_some_and(|beat| {
            beat.heard.elapsed() <= LATE && beat.pings.saturating_sub(pings) <= PINGS_LATE
        })
    }
}

impl Listed {
    fn beats(&self, pings: u64) {
        self.links.lock().insert(self.token, Beat { pings, heard: Instant::now() });
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.links.lock().remove(&self.token);
    }
}

/// What a follower calls its link: a number that it drew, and how many pings it has sent by now.
#[derive(Debug)]
pub(crate) struct Beside {
    token: u128,
    pings: AtomicU64,
}

impl std::fmt::Display for Beside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}-{}", self.token, self.pings.load(Ordering::Relaxed))
    }
}

fn read_beside(text: &str) -> Option<(u128, u64)> {
    let (token, pings) = text.split_once('-')?;
    Some((u128::from_str_radix(token, 16).ok()?, pings.parse().ok()?))
}

/// Takes links in, on the master that leads.
#[derive(Debug, Clone)]
pub(crate) struct LinkDoor {
    pub(crate) routes: Routes,
    pub(crate) links: Links,
    pub(crate) stop: CancellationToken,
}

type DownLink = Pin<Box<dyn Stream<Item = Result<v1::LinkDowns, Status>> + Send>>;

fn down_item(client: u64, item: link_down::Item) -> v1::LinkDown {
    v1::LinkDown { client, item: Some(item) }
}

#[tonic::async_trait]
impl v1::link_service_server::LinkService for LinkDoor {
    type LinkStream = DownLink;

    async fn link(&self, request: Request<Streaming<v1::LinkUps>>) -> Result<Response<DownLink>, Status> {
        let Route::Local(local) = self.routes.route.borrow().clone() else {
            let mut refusal = Status::failed_precondition("this master does not lead");
            // One that lost its quorum before it served is not worth waiting for.
            if self.routes.heard.begins() && self.routes.heard.silence() < SILENCE {
                refusal.metadata_mut().insert(BEGINS, MetadataValue::from_static("1"));
            }
            return Err(refusal);
        };
        let token = request.metadata().get(LINK).and_then(|token| token.to_str().ok());
        let token = token.and_then(|token| u128::from_str_radix(token, 16).ok());
        let token = token.ok_or_else(|| Status::invalid_argument("the link does not name itself"))?;
        let (queue, events) = mpsc::unbounded_channel();
        let queue = LinkQueue { events: queue, queued: Arc::default() };
        let (down, frames) = mpsc::channel(LINK_QUEUE);
        let cut = self.stop.child_token();
        let fence = local.fence;
        let first = down_item(0, link_down::Item::Leading(muster_proto::agent::wire_fence(fence)));
        let first = v1::LinkDowns { items: vec![first] };
        down.try_send(Ok(first)).map_err(|_| Status::internal("the link is full"))?;
        let clients: Clients = Arc::default();
        tokio::spawn(link_down_task(fence, events, queue.queued.clone(), down.clone(), clients.clone()));
        let routes = self.routes.route.clone();
        let listed = self.links.list(token);
        let up = link_up_task(
            request.into_inner(),
            listed,
            fence,
            local.inputs.clone(),
            queue,
            down,
            clients,
            routes,
            cut.clone(),
        );
        let guard = cut.drop_guard();
        // However the link ends: it tells the leader of all its clients' ends before it is over.
        tokio::spawn(up);
        let frames = ReceiverStream::new(frames).map(move |frame| {
            let _ = &guard;
            frame
        });
        Ok(Response::new(Box::pin(frames)))
    }
}

/// Who is on a link: the follower's number, and what this leader knows it by.
type Clients = Arc<std::sync::Mutex<HashMap<u64, LinkClient>>>;

#[derive(Clone)]
struct LinkClient {
    conn: u64,
    kind: Kind,
    queued: Arc<AtomicUsize>,
}

fn find(clients: &Clients, client: u64) -> Option<LinkClient> {
    clients.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(&client).cloned()
}

/// Encodes what goes down and passes it on.
async fn link_down_task(
    fence: Fence,
    mut events: mpsc::UnboundedReceiver<LinkEvent>,
    queued: Arc<AtomicUsize>,
    down: mpsc::Sender<Result<v1::LinkDowns, Status>>,
    clients: Clients,
) {
    let mut waiting = Vec::with_capacity(ITEMS_AT_ONCE);
    while events.recv_many(&mut waiting, ITEMS_AT_ONCE).await > 0 {
        if let Err(error) = point_async!(Point::ToLink).await {
            tracing::warn!(%error, "a link ends");
            let _ = down.send(Err(Status::unavailable(error.to_string()))).await; // the other side may be gone
            return;
        }
        let (mut items, mut bytes) = (Vec::with_capacity(waiting.len()), 0);
        for event in waiting.drain(..) {
            let (client, item) = match event {
                LinkEvent::Event(client, event) => {
                    queued.fetch_sub(share(&event), Ordering::Relaxed);
                    let Some(known) = find(&clients, client) else { continue };
                    known.queued.fetch_sub(share(&event), Ordering::Relaxed);
                    let Some(frame) = encode(known.kind, fence, *event) else { continue };
                    bytes += frame.len();
                    (client, link_down::Item::Frame(frame))
                }
                LinkEvent::Close(client) => (client, link_down::Item::Close(link_up::Close {})),
            };
            items.push(down_item(client, item));
            if bytes >= BYTES_AT_ONCE {
                bytes = 0;
                if down.send(Ok(v1::LinkDowns { items: std::mem::take(&mut items) })).await.is_err() {
                    return;
                }
            }
        }
        if !items.is_empty() && down.send(Ok(v1::LinkDowns { items })).await.is_err() {
            return;
        }
    }
}

/// Decodes what comes up and hands it to the leader's loop.
#[allow(clippy::too_many_arguments)]
async fn link_up_task(
    mut incoming: Streaming<v1::LinkUps>,
    listed: Listed,
    fence: Fence,
    inputs: mpsc::Sender<ToLeader>,
    queue: LinkQueue,
    down: mpsc::Sender<Result<v1::LinkDowns, Status>>,
    clients: Clients,
    mut routes: watch::Receiver<Route>,
    cut: CancellationToken,
) {
    let mut items = Vec::new().into_iter();
    loop {
        let Some(v1::LinkUp { client, item }) = items.next() else {
            let ups = tokio::select! {
                biased;
                // First: when this process stood still, what is there by now is late as well.
                () = sleep(LATE) => {
                    tracing::info!("nothing was heard on a link for 1.5 s: it ends");
                    break;
                }
                () = cut.cancelled() => break,
                ups = incoming.next() => ups,
                // This master no longer leads: the link ends, and with it what it carried.
                _ = routes.wait_for(|route| !matches!(route, Route::Local(local) if local.fence == fence)) => break,
            };
            let Some(Ok(ups)) = ups else { break };
            items = ups.items.into_iter();
            continue;
        };
        let Some(item) = item else { break };
        let passed = match item {
            link_up::Item::Ping(n) => {
                listed.beats(n);
                let items = vec![down_item(0, link_down::Item::Pong(n))];
                down.send(Ok(v1::LinkDowns { items })).await.is_ok()
            }
            link_up::Item::Open(open) => {
                let kind = match open.kind() {
                    link_up::Kind::Agent => Kind::Agent,
                    link_up::Kind::Scheduler => Kind::Scheduler,
                    link_up::Kind::Unspecified => continue,
                };
                let known = LinkClient { conn: next_client(), kind, queued: Arc::default() };
                let sink = LinkSink { client, queue: queue.clone(), queued: known.queued.clone() };
                let conn = known.conn;
                clients.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(client, known);
                inputs.send(ToLeader::Opened(conn, Sink::Link(sink))).await.is_ok()
            }
            link_up::Item::Frame(bytes) => match find(&clients, client) {
                None => true,
                Some(known) => match decode(known.kind, fence, bytes) {
                    Ok(None) => true,
                    Ok(Some(call)) => inputs.send(ToLeader::Call(known.conn, call)).await.is_ok(),
                    Err(error) => {
                        let sink = LinkSink { client, queue: queue.clone(), queued: known.queued };
                        sink.send_more(refusal(known.kind, error.to_string()));
                        sink.close();
                        inputs.send(ToLeader::Closed(known.conn)).await.is_ok()
                    }
                },
            },
            link_up::Item::Close(_) => {
                let known = clients.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&client);
                match known {
                    Some(known) => inputs.send(ToLeader::Closed(known.conn)).await.is_ok(),
                    None => true,
                }
            }
        };
        if !passed {
            break;
        }
    }
    drop(listed);
    let left: Vec<_> = clients
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .drain()
        .map(|(_, known)| known.conn)
        .collect();
    for conn in left {
        if inputs.send(ToLeader::Closed(conn)).await.is_err() {
            return;
        }
    }
}

// ---- the follower's side ----

/// What this master remembers of leaders, across all of them.
#[derive(Debug)]
pub(crate) struct Heard(std::sync::Mutex<Remembered>);

#[derive(Debug)]
struct Remembered {
    /// The last round trip with a leader.
    heard: Instant,
    newest: Fence,
    /// When this master was elected, until it has served or is deposed.
    elected: Option<Instant>,
}

impl Heard {
    pub(crate) fn new() -> Self {
        let (heard, newest) = (Instant::now(), Fence::default());
        Self(std::sync::Mutex::new(Remembered { heard, newest, elected: None }))
    }
    fn lock(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
    /// A round trip with a leader was completed: silence is counted from now.
    pub(crate) fn now(&self) {
        self.lock().heard = Instant::now();
    }
    pub(crate) fn silence(&self) -> Duration {
        self.lock().heard.elapsed()
    }
    /// Remembers the newest leader; false for one that is older than another it has heard of (`protocol` A4).
    pub(crate) fn remember(&self, fence: Fence) -> bool {
        let newest = &mut self.lock().newest;
        *newest = (*newest).max(fence);
        *newest == fence
    }
    /// This master was elected and will serve.
    pub(crate) fn elected(&self) {
        self.lock().elected = Some(Instant::now());
    }
    /// It serves, or it leads no more.
    pub(crate) fn has_begun(&self) {
        self.lock().elected = None;
    }
    /// Whether it was elected a while ago at most and is about to serve.
    pub(crate) fn begins(&self) -> bool {
        self.lock().elected.is_some_and(|at| at.elapsed() < BEGINS_MAX)
    }
}

/// Keeps a link to this leader for as long as the future is polled, publishing the route while it works.
///
/// `heard` is kept fresh by completed round trips.
pub(crate) async fn follow(leader: v1::Leader, publish: &watch::Sender<Route>, heard: &Heard) {
    loop {
        if let Ok(endpoint) = tonic::transport::Endpoint::from_shared(format!("http://{}", leader.address)) {
            let endpoint = endpoint.connect_timeout(Duration::from_millis(500));
            if let Err(status) = once(&leader, endpoint, publish, heard).await {
                if status.metadata().contains_key(BEGINS) {
                    heard.now();
                }
                tracing::debug!(leader = leader.name, %status, "link to the leader is not open");
            }
            publish.send_if_modified(|route| {
                let was_open = !matches!(route, Route::None);
                *route = Route::None;
                was_open
            });
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn once(
    leader: &v1::Leader,
    endpoint: tonic::transport::Endpoint,
    publish: &watch::Sender<Route>,
    heard: &Heard,
) -> Result<(), Status> {
    let unavailable = |error: tonic::transport::Error| Status::unavailable(error.to_string());
    let channel =
        timeout(SILENCE, endpoint.connect_with_connector(Dialer::new(&leader.address, Caller::Link)))
            .await
            .map_err(|_| Status::deadline_exceeded("no connection within 2 s"))?
            .map_err(unavailable)?;
    let (up, frames) = mpsc::channel::<v1::LinkUps>(UP_QUEUE / ITEMS_AT_ONCE);
    let mut client = LinkServiceClient::new(channel)
        .max_decoding_message_size(2 * muster_proto::limits::FRAME_BYTES_MAX)
        .max_encoding_message_size(2 * muster_proto::limits::FRAME_BYTES_MAX);
    let beside = Arc::new(Beside { token: uuid::Uuid::new_v4().as_u128(), pings: AtomicU64::new(0) });
    let mut request = Request::new(ReceiverStream::new(frames));
    let token = format!("{:x}", beside.token).parse();
    request.metadata_mut().insert(LINK, token.map_err(|_| Status::internal("a number is no metadata"))?);
    let answer = timeout(SILENCE, client.link(request))
        .await
        .map_err(|_| Status::deadline_exceeded("no answer within 2 s"))??;
    let mut down = answer.into_inner();
    let first = timeout(SILENCE, down.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no first frame within 2 s"))??;
    let mut first = first.unwrap_or_default().items.into_iter();
    let Some(v1::LinkDown { item: Some(link_down::Item::Leading(fence)), .. }) = first.next() else {
        return Err(Status::internal("the link's first frame does not say who leads"));
    };
    let fence =
        muster_proto::agent::fence(Some(fence)).map_err(|error| Status::internal(error.to_string()))?;
    if !heard.remember(fence) {
        return Err(Status::failed_precondition("this leader was deposed"));
    }
    let (items_in, mut items) = mpsc::channel::<LinkItem>(UP_QUEUE);
    heard.now();
    publish.send_replace(Route::Remote(Arc::new(RemoteRoute {
        fence,
        leader: leader.clone(),
        up: items_in,
        beside: beside.clone(),
    })));
    let mut clients: HashMap<u64, Sink> = HashMap::new();
    let mut ping = interval(PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pings = 0;
    let mut waiting = Vec::with_capacity(ITEMS_AT_ONCE);
    loop {
        tokio::select! {
            frames = down.message() => {
                let Some(v1::LinkDowns { items }) = frames? else {
                    return Err(Status::unavailable("the leader ended the link"));
                };
                for v1::LinkDown { client, item } in items {
                    match item {
                        Some(link_down::Item::Pong(_)) => heard.now(),
                        Some(link_down::Item::Frame(bytes)) => pass_down(&mut clients, client, bytes),
                        Some(link_down::Item::Close(_)) => {
                            if let Some(sink) = clients.remove(&client) {
                                sink.close();
                            }
                        }
                        Some(link_down::Item::Leading(_)) | None => {}
                    }
                }
            }
            n = items.recv_many(&mut waiting, ITEMS_AT_ONCE) => {
                if n == 0 {
                    return Ok(());
                }
                let (mut items, mut bytes) = (Vec::with_capacity(n), 0);
                for item in waiting.drain(..) {
                    if let LinkItem::Frame(_, frame) = &item {
                        bytes += frame.len();
                    }
                    items.push(up_item(item, &mut clients));
                    if bytes >= BYTES_AT_ONCE {
                        bytes = 0;
                        let items = std::mem::take(&mut items);
                        up.send(v1::LinkUps { items }).await.map_err(|_| closed())?;
                    }
                }
                if !items.is_empty() {
                    up.send(v1::LinkUps { items }).await.map_err(|_| closed())?;
                }
            }
            _ = ping.tick() => {
                if heard.silence() > SILENCE {
                    return Err(Status::deadline_exceeded("the leader did not answer for 2 s"));
                }
                pings += 1;
                beside.pings.store(pings, Ordering::Relaxed);
                let ping = v1::LinkUp { client: 0, item: Some(link_up::Item::Ping(pings)) };
                let _ = up.try_send(v1::LinkUps { items: vec![ping] }); // a full stream is silence, and is counted as such
            }
        }
    }
}

fn closed() -> Status {
    Status::unavailable("the link is closed")
}

fn up_item(item: LinkItem, clients: &mut HashMap<u64, Sink>) -> v1::LinkUp {
    let (client, item) = match item {
        LinkItem::Open(client, kind, sink) => {
            clients.insert(client, sink);
            let kind = match kind {
                Kind::Agent => link_up::Kind::Agent,
                Kind::Scheduler => link_up::Kind::Scheduler,
            };
            (client, link_up::Item::Open(link_up::Open { kind: kind.into() }))
        }
        LinkItem::Frame(client, frame) => (client, link_up::Item::Frame(frame)),
        LinkItem::Close(client) => {
            clients.remove(&client);
            (client, link_up::Item::Close(link_up::Close {}))
        }
    };
    v1::LinkUp { client, item: Some(item) }
}

fn pass_down(clients: &mut HashMap<u64, Sink>, client: u64, bytes: bytes::Bytes) {
    let Some(Sink::Local(down, cut, room)) = clients.get(&client) else { return };
    let held = room.take(bytes.len());
    if held.is_none_or(|held| down.try_send(Down::Frame(bytes, held)).is_err()) {
        cut.cancel(); // it does not keep up: only it is cut off
        clients.remove(&client);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use muster_model::{AgentEvent, Session, Term};
    use v1::link_service_server::{LinkService, LinkServiceServer};

    #[tokio::test(start_paused = true)]
    async fn what_is_said_beside_a_link_is_late_when_the_link_is() {
        let links = Links::default();
        let beside = Beside { token: u128::MAX - 1, pings: AtomicU64::new(0) };
        assert!(!links.is_timely(&beside.to_string()), "there is no such link");
        let listed = links.list(beside.token);
        let said = beside.to_string();
        assert!(links.is_timely(&said));
        for ping in 1..=PINGS_LATE {
            listed.beats(ping);
            beside.pings.store(ping, Ordering::Relaxed);
            assert!(links.is_timely(&said));
        }
        listed.beats(PINGS_LATE + 1);
        assert!(!links.is_timely(&said), "said long ago, over a way of its own");
        assert!(links.is_timely(&beside.to_string()));
        tokio::time::advance(LATE * 2).await;
        assert!(!links.is_timely(&beside.to_string()), "nothing was heard of the link");
        listed.beats(PINGS_LATE + 2);
        assert!(links.is_timely(&beside.to_string()));
        drop(listed);
        assert!(!links.is_timely(&beside.to_string()), "it is over");
        for other in ["", "1", "-", "x-1", "1-x", "1-1-1"] {
            assert!(!links.is_timely(other), "{other:?}");
        }
    }

    #[tokio::test]
    async fn a_full_link_cuts_off_only_who_has_much_on_it() {
        let (events, queued) = mpsc::unbounded_channel();
        let queue = LinkQueue { events, queued: Arc::default() };
        let sink = |client| LinkSink { client, queue: queue.clone(), queued: Arc::default() };
        let event = || Event::Agent { session: Session(1), event: AgentEvent::Ping(1) };
        let fill = |sink: &LinkSink| (0..=LINK_QUEUE).take_while(|_| sink.send(event())).count();
        let slow: Vec<_> = (0..LINK_QUEUE / CLIENT_SHARE).map(|n| sink(n as u64)).collect();
        assert!(slow.iter().all(|sink| fill(sink) == CLIENT_SHARE), "what one client may have at most");
        let others: Vec<_> = (0..CLIENT_SHARE).map(|n| sink(1_000 + n as u64)).collect();
        assert!(others.iter().all(|sink| fill(sink) == CLIENT_LEAST), "the link is full, and they read");
        assert_eq!(queued.len(), LINK_QUEUE + CLIENT_SHARE * CLIENT_LEAST);
        // Once it was passed on there is room again.
        let clients: Clients = Arc::default();
        let (down, mut frames) = mpsc::channel(LINK_QUEUE);
        for sink in slow.iter().chain(&others) {
            let known = LinkClient { conn: sink.client, kind: Kind::Agent, queued: sink.queued.clone() };
            clients.lock().unwrap().insert(sink.client, known);
        }
        let total = queue.queued.clone();
        drop(others);
        slow[0].clone().close();
        tokio::spawn(link_down_task(Fence::default(), queued, total.clone(), down, clients));
        while frames
            .recv()
            .await
            .unwrap()
            .unwrap()
            .items
            .iter()
            .all(|down| !matches!(down.item, Some(link_down::Item::Close(_))))
        {}
        assert_eq!(total.load(Ordering::Relaxed), 0);
        assert!(slow.iter().all(|sink| sink.send(event())));
    }

    /// Of a stream on which nothing comes.
    struct Nothing;

    impl tonic::codec::Decoder for Nothing {
        type Item = v1::LinkUps;
        type Error = Status;

        fn decode(&mut self, _: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<v1::LinkUps>, Status> {
            Ok(None)
        }
    }

    #[tokio::test]
    async fn the_leader_hears_of_the_end_of_every_client_of_a_link_that_is_cut() {
        const CLIENTS: u64 = 1_000;
        let silence = futures::stream::pending::<Result<bytes::Bytes, std::convert::Infallible>>();
        let incoming = Streaming::new_request(Nothing, axum::body::Body::from_stream(silence), None, None);
        let (inputs, mut heard) = mpsc::channel(8);
        let (leader, fence) = (v1::Leader::default(), Fence::default());
        let local = crate::route::LocalRoute {
            fence,
            leader,
            since: std::time::SystemTime::now(),
            inputs: inputs.clone(),
        };
        let (_publish, routes) = watch::channel(Route::Local(Arc::new(local)));
        let (events, _queued) = mpsc::unbounded_channel();
        let queue = LinkQueue { events, queued: Arc::default() };
        let (down, _frames) = mpsc::channel(8);
        let clients: Clients = Arc::default();
        for client in 0..CLIENTS {
            let known = LinkClient { conn: client, kind: Kind::Agent, queued: Arc::default() };
            clients.lock().unwrap().insert(client, known);
        }
        let cut = CancellationToken::new();
        let listed = Links::default().list(1);
        let up = link_up_task(incoming, listed, fence, inputs, queue, down, clients, routes, cut.clone());
        tokio::spawn(up);
        cut.cancel();
        let mut closed = std::collections::BTreeSet::new();
        while (closed.len() as u64) < CLIENTS {
            match timeout(Duration::from_secs(20), heard.recv()).await.unwrap().unwrap() {
                ToLeader::Closed(conn) => assert!(closed.insert(conn)),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_elected_leader_is_waited_for_until_it_serves_or_takes_too_long() {
        let heard = Heard::new();
        assert!(!heard.begins());
        heard.elected();
        assert!(heard.begins());
        heard.has_begun();
        assert!(!heard.begins(), "it served: only its pongs count from now on");
        heard.elected();
        tokio::time::advance(BEGINS_MAX).await;
        assert!(!heard.begins());
    }

    /// The door of a master that does not serve, and what it has heard.
    fn door_of_none() -> (LinkDoor, Arc<Heard>) {
        let heard = Arc::new(Heard::new());
        let (route, redial) = (watch::channel(Route::None).1, watch::channel(0).1);
        let routes = Routes { route, redial, heard: heard.clone() };
        (LinkDoor { routes, links: Links::default(), stop: CancellationToken::new() }, heard)
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_is_told_of_a_leader_that_begins_while_that_has_its_quorum() {
        let (door, heard) = door_of_none();
        let told = async || {
            let nothing = Streaming::new_request(Nothing, axum::body::Body::empty(), None, None);
            let refused = door.link(Request::new(nothing)).await.err().unwrap();
            refused.metadata().contains_key(BEGINS)
        };
        assert!(!told().await, "it was not elected");
        heard.elected();
        assert!(told().await);
        tokio::time::advance(SILENCE).await;
        assert!(!told().await, "it lost its quorum");
        heard.now();
        assert!(told().await);
        heard.has_begun();
        assert!(!told().await, "it serves, or leads no more");
    }

    #[tokio::test]
    async fn who_links_to_a_leader_that_begins_has_heard_of_it() {
        let (door, of_leader) = door_of_none();
        let listener = crate::accept::listen("127.0.0.1:0").await.unwrap();
        let leader = v1::Leader { name: "m1".into(), address: listener.local_addr().unwrap().to_string() };
        let (accept, callers) = crate::accept::sort(listener);
        tokio::spawn(accept);
        let service = LinkServiceServer::new(door);
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(callers.links.connections()));
        let ours = Heard::new();
        let since = ours.lock().heard;
        let (publish, route) = watch::channel(Route::None);
        let heard = async {
            while ours.lock().heard == since {
                // However long it takes, it has a quorum and begins.
                of_leader.elected();
                of_leader.now();
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = follow(leader, &publish, &ours) => unreachable!("it goes on for ever"),
            heard = timeout(Duration::from_secs(20), heard) => heard.unwrap(),
        }
        assert!(matches!(*route.borrow(), Route::None), "there is no way to it yet");
    }

    #[test]
    fn a_link_remembers_the_newest_leader() {
        let heard = Heard::new();
        let fence = |incarnation, term| Fence { incarnation, term: Term(term) };
        assert!(heard.remember(fence(1, 5)));
        assert!(heard.remember(fence(1, 5)), "the same leader, dialled again");
        assert!(!heard.remember(fence(1, 4)), "one that was deposed and does not know it yet");
        assert!(heard.remember(fence(2, 1)), "a recovered cluster begins a new incarnation");
        assert!(!heard.remember(fence(1, 9)));
    }
}
