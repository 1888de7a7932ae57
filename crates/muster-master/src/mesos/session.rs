//! A scheduler's event stream: what the leader tells it, as records of the Mesos API.
//!
//! A session is a client of the leader like one that came by gRPC, along whatever route there is. It keeps the stream
//! open across leaders where this master carries streams (`api.follower-streams`), and subscribes again on its client's
//! behalf; else the stream ends in order with the reign, and the client looks for the next leader.
//!
//! What the leader says is taken in as it comes, and waits here for the client to read: a client may read nothing until its
//! call is answered, and the answer comes down the same way as all that it has not read.

use super::{Mesos, answer::plain, records, scheduler::STREAM_ID};
use crate::{
    door::{Place, enter, leave, next_client},
    route::{DOWN_QUEUE, Down, Held, Kind, LinkItem, ToLeader},
};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use muster_model::{
    AgentId, Call, CallOutcome, Event, FrameworkId, SchedulerEvent, Source, Status, TaskId, TaskOutcome,
    Token, WallTime,
};
use muster_proto::{
    SchedulerDown, WireError,
    json::Codec,
    media, mesos,
    scheduler_api::{self, Shown, Up, error, event},
    scheduler_call, scheduler_event, v1,
};
use prost::Message;
use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;

/// Records that are on their way to a client, at most. As many as the leader's queue for it may hold wait behind them.
const RECORDS: usize = 64;
/// Calls of one framework that wait to be handed to the leader, at most.
const CALLS: usize = 1_024;
/// How long a client that is cut off for not reading may take to read why.
const LAST_WORD: Duration = Duration::from_secs(2);

/// The streams that are held here, by framework.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sessions(Arc<Mutex<HashMap<FrameworkId, Handle>>>);

/// The way to a session.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    stream: Token,
    pub(super) shown: Shown,
    calls: mpsc::Sender<Asking>,
}

#[derive(Debug)]
struct Asking {
    call: scheduler_api::Call,
    /// What was taken out of it.
    refused: Option<v1::Refused>,
    answer: oneshot::Sender<Answer>,
}

/// What comes of a call; an error is one that nobody could take.
pub(super) type Answer = Result<CallOutcome, WireError>;

/// A call was not taken.
#[derive(Debug)]
pub(super) enum NotTaken {
    /// Too many wait.
    Busy,
    /// The session is over, or ended while the call was on its way.
    Over,
}

impl Sessions {
    /// The session that holds this stream.
    pub(super) fn of(&self, id: &FrameworkId, stream: Token) -> Option<Handle> {
        self.lock().get(id).filter(|it| it.stream == stream).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<FrameworkId, Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a session, unless another one took its place.
    fn forget(&self, id: &FrameworkId, stream: Token) {
        let mut sessions = self.lock();
        if sessions.get(id).is_some_and(|it| it.stream == stream) {
            sessions.remove(id);
        }
    }
}

impl Handle {
    /// Hands a call to the leader and waits for what comes of it.
    pub(super) async fn call(
        &self,
        call: scheduler_api::Call,
        refused: Option<v1::Refused>,
    ) -> Result<Answer, NotTaken> {
        let (answer, outcome) = oneshot::channel();
        self.calls.try_send(Asking { call, refused, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotTaken::Busy,
            mpsc::error::TrySendError::Closed(_) => NotTaken::Over,
        })?;
        outcome.await.map_err(|_| NotTaken::Over)
    }
}

/// The text of a stream's name: a UUID.
pub(super) fn stream_text(stream: Token) -> String {
    uuid::Uuid::from_bytes(stream.0).to_string()
}

/// The stream that a text names, if it is one.
pub(super) fn stream_of(text: &[u8]) -> Option<Token> {
    uuid::Uuid::try_parse_ascii(text).ok().map(|id| Token(*id.as_bytes()))
}

/// Opens a stream. What is wrong with the framework's description, and that it may not register, is told on it, as Mesos
/// does.
pub(super) fn open(
    on: &Mesos,
    subscribe: v1::Subscribe,
    info: &mesos::FrameworkInfo,
    codec: Codec,
    registered: Result<(), String>,
) -> Response<Body> {
    let stream = Token(*uuid::Uuid::new_v4().as_bytes());
    let (records, body) = mpsc::channel::<Bytes>(RECORDS);
    let subscribe = v1::Subscribe { token: Bytes::copy_from_slice(&stream.0), ..subscribe };
    let out = Out { codec, shown: Shown::to(info), records, unread: VecDeque::new() };
    let read = || scheduler_call(frame(0, Up::Subscribe(subscribe.clone()))).map_err(|why| why.to_string());
    match registered.and_then(|()| read()) {
        Ok(_) => drop(tokio::spawn(Session::new(on.clone(), stream, subscribe, out).run())),
        // There is room for the first record.
        Err(why) => drop(out.records.try_send(record(codec, &error(&why)))),
    }
    let body = ReceiverStream::new(body).map(Ok::<_, Infallible>);
    let mut response = plain(StatusCode::OK, "");
    *response.body_mut() = Body::from_stream(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(codec.media_type()));
    if let Ok(stream) = HeaderValue::try_from(stream_text(stream)) {
        headers.insert(STREAM_ID, stream);
    }
    response
}

/// A frame for whichever leader gets it: a stream to another one is over before this one's begins.
fn frame(id: u64, call: Up) -> v1::SchedulerFrame {
    v1::SchedulerFrame { id, call: Some(call), fence: None }
}

/// What a master of Mesos says that it can do with quotas.
const QUOTA_V2: i32 = 3;

/// A master as clients know it.
pub(super) fn master_info(id: &str, leader: &v1::Leader) -> mesos::MasterInfo {
    let address = &leader.address;
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "5050"));
    let port: u16 = port.parse().unwrap_or(5050);
    let ip = host.parse::<std::net::Ipv4Addr>().ok();
    use mesos::master_info::capability::Type;
    // QUOTA_V2 has a number and, in v1, no name.
    let kinds = [Type::AgentUpdate.into(), Type::AgentDraining.into(), QUOTA_V2];
    let capability = |kind| mesos::master_info::Capability { r#type: Some(kind) };
    mesos::MasterInfo {
        id: id.to_owned(),
        ip: ip.map_or(0, |ip| u32::from_le_bytes(ip.octets())),
        port: port.into(),
        pid: Some(format!("master@{address}")),
        hostname: Some(host.to_owned()),
        version: Some(super::MESOS_VERSION.into()),
        address: Some(mesos::Address {
            hostname: Some(host.to_owned()),
            ip: ip.map(|ip| ip.to_string()),
            port: port.into(),
        }),
        capabilities: kinds.map(capability).into(),
        ..Default::default()
    }
}

/// A record of the stream.
fn record(codec: Codec, event: &mesos::scheduler::Event) -> Bytes {
    media::record(&codec.write(event))
}

fn now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The way down to the client.
struct Out {
    codec: Codec,
    shown: Shown,
    records: mpsc::Sender<Bytes>,
    /// What waits for the client to read, with the room that it takes of what may wait.
    unread: VecDeque<(Bytes, Held)>,
}

impl Out {
    /// An event is to be read after all that waits.
    fn pass(&mut self, event: &mesos::scheduler::Event, held: Held) -> Result<(), End> {
        if self.unread.len() >= DOWN_QUEUE {
            return Err(End::Slow);
        }
        self.unread.push_back((record(self.codec, event), held));
        Ok(())
    }

    /// Sends what waits, as far as the client reads.
    async fn send(&mut self) -> Result<(), End> {
        while !self.unread.is_empty() {
            let place = self.records.reserve().await.map_err(|_| End::Over)?;
            if let Some((record, _)) = self.unread.pop_front() {
                place.send(record);
            }
        }
        Ok(())
    }

    /// The same until the client is gone; may be left off at any time.
    async fn tend(&mut self) -> End {
        match self.send().await {
            Ok(()) => self.records.closed().await,
            Err(end) => return end,
        }
        End::Over
    }
}

/// Why a session does not go on.
enum End {
    /// The client is gone, or was told all there is to tell.
    Over,
    /// The client does not read.
    Slow,
    /// There is another leader, or none.
    Moved,
}

/// A client of the leader that is at the other end of a stream.
struct Session {
    on: Mesos,
    stream: Token,
    subscribe: v1::Subscribe,
    out: Out,
    framework_id: Option<FrameworkId>,
    calls: mpsc::Sender<Asking>,
    asked: mpsc::Receiver<Asking>,
    /// Calls on their way, by number.
    waiting: HashMap<u64, Waiting>,
    counted: u64,
}

struct Waiting {
    answer: oneshot::Sender<Answer>,
    /// The framework's new description, which holds when this is done.
    update: Option<v1::UpdateFramework>,
    /// The tasks that it asks for: those that are refused are told with the agents that they name.
    task_infos: Vec<Bytes>,
    told: Vec<mesos::scheduler::Event>,
}

/// A session's place with one leader.
struct Seat {
    place: Place,
    conn: u64,
    master: mesos::MasterInfo,
    /// Whether the leader has taken the SUBSCRIBE: until then no call is handed on.
    is_subscribed: bool,
}

impl Session {
    fn new(on: Mesos, stream: Token, subscribe: v1::Subscribe, out: Out) -> Self {
        let (calls, asked) = mpsc::channel(CALLS);
        Self {
            on,
            stream,
            subscribe,
            out,
            framework_id: None,
            calls,
            asked,
            waiting: HashMap::new(),
            counted: 0,
        }
    }

    /// Subscribes, with one leader after the other, until the stream ends.
    async fn run(mut self) {
        let mut routes = self.on.routes.clone();
        routes.redial.mark_unchanged();
        let end = loop {
            let route = routes.route.borrow_and_update().clone();
            let (down, mut queue) = mpsc::channel(DOWN_QUEUE);
            let cut = self.on.stop.child_token();
            let conn = next_client();
            let place = enter(&route, Kind::Scheduler, conn, &down, &cut).await;
            drop(down); // what is left of it is the leader's
            let leader = route.leader().map(|(_, leader)| leader.clone()).unwrap_or_default();
            let master = master_info(&self.on.cluster_id(), &leader);
            let mut seat = Seat { place, conn, master, is_subscribed: false };
            let end = tokio::select! {
                biased;
                end = self.serve(&mut seat, &mut queue, &cut) => end,
                _ = routes.route.changed() => End::Moved,
                // This master has lost its leader for long: the client looks for one elsewhere.
                _ = routes.redial.changed() => End::Over,
            };
            leave(seat.place, conn).await;
            // Whether they were carried out is not known; who asked may ask again.
            self.waiting.clear();
            match end {
                End::Moved if self.on.carries_streams && !self.on.stop.is_cancelled() => {}
                end => break end,
            }
        };
        if let Some(id) = &self.framework_id {
            self.on.sessions.forget(id, self.stream);
        }
        // Nobody takes calls in any more. Who waits for one may read nothing until it is answered.
        self.asked.close();
        while self.asked.try_recv().is_ok() {}
        if let End::Slow = end {
            return self.say_why_it_is_slow().await;
        }
        tokio::select! {
            _ = self.out.send() => {}
            () = self.on.stop.cancelled() => {}
        }
    }

    async fn serve(
        &mut self,
        seat: &mut Seat,
        queue: &mut mpsc::Receiver<Down>,
        cut: &CancellationToken,
    ) -> End {
        if let Place::Nowhere = seat.place {
            // Until the route changes, or the client has enough of it.
            return self.out.tend().await;
        }
        if self.say(seat, Up::Subscribe(self.subscribe.clone()), 0).await.is_err() {
            return End::Over;
        }
        loop {
            tokio::select! {
                biased;
                () = cut.cancelled() => return if self.on.stop.is_cancelled() { End::Over } else { End::Slow },
                end = self.out.tend() => return end,
                down = queue.recv() => {
                    let (event, held) = match down {
                        Some(Down::Event(_, event, held)) => (Some(*event), held),
                        Some(Down::Frame(bytes, held)) => (read(bytes), held),
                        Some(Down::Leader(..) | Down::Redial(_)) => (None, None),
                        // The leader wants no more of it; or is gone, and its route with it.
                        Some(Down::Close) => return End::Over,
                        None => return End::Moved,
                    };
                    if let Some(Event::Scheduler(event)) = event
                        && let Err(end) = self.told(seat, event, held)
                    {
                        return end;
                    }
                }
                Some(Asking { call, refused, answer }) = self.asked.recv(), if seat.is_subscribed => {
                    self.counted += 1;
                    let id = self.counted;
                    let Some(frame) = call.frame else {
                        let _ = answer.send(Ok(CallOutcome::Done)); // who asked may be gone
                        for event in &call.told {
                            if let Err(end) = self.out.pass(event, None) {
                                return end;
                            }
                        }
                        continue;
                    };
                    let update = if let Up::Update(update) = &frame { Some(update.clone()) } else { None };
                    let task_infos = match &frame {
                        Up::Accept(accept) => accept.task_infos.clone(),
                        _ => Vec::new(),
                    };
                    let told = call.told;
                    match self.say(seat, frame, id).await {
                        Ok(()) => {
                            self.waiting.insert(id, Waiting { answer, update, task_infos, told });
                            if let Some(refused) = refused {
                                // It can be read, as the call could of which it was taken.
                                let _ = self.say(seat, Up::Refused(refused), 0).await;
                            }
                        }
                        Err(why) => drop(answer.send(Err(why))),
                    }
                }
            }
        }
    }

    /// Hands a frame to the leader. One that leads no more, or a link that broke, ends the session by its route.
    async fn say(&self, seat: &Seat, call: Up, id: u64) -> Result<(), WireError> {
        let frame = frame(id, call);
        match &seat.place {
            Place::Nowhere => {}
            Place::Local(_, inputs) => {
                let (id, call) = scheduler_call(frame)?;
                let _ = inputs.send(ToLeader::Call(seat.conn, Call::Scheduler { id, call })).await;
            }
            Place::Remote(up) => {
                let bytes = frame.encode_to_vec();
                scheduler_call(frame)?; // a leader would end the stream for it
                let _ = up.send(LinkItem::Frame(seat.conn, bytes.into())).await;
            }
        }
        Ok(())
    }

    /// A client that does not read is told why it is cut off, if it reads that.
    async fn say_why_it_is_slow(&self) {
        let why = error("the stream was not read fast enough and is ended");
        let last = self.out.records.send(record(self.out.codec, &why));
        let _ = tokio::time::timeout(LAST_WORD, last).await;
    }

    /// Passes an event on.
    fn told(&mut self, seat: &mut Seat, event: SchedulerEvent, held: Held) -> Result<(), End> {
        match event {
            SchedulerEvent::Outcome { id, outcome } => {
                let Some(waiting) = self.waiting.remove(&id) else { return Ok(()) };
                let Waiting { answer, update, task_infos, told } = waiting;
                if let (Some(update), CallOutcome::Done) = (update, &outcome) {
                    self.describe_anew(update);
                }
                let refused = self.refused(&outcome, &task_infos);
                // The answer comes first: what it leads to is known to lead from it.
                let _ = answer.send(Ok(outcome)); // who asked may be gone
                for event in told.iter().chain(&refused) {
                    self.out.pass(event, None)?;
                }
                Ok(())
            }
            SchedulerEvent::Subscribed { ref framework_id, .. } => {
                seat.is_subscribed = true;
                let is_first = self.framework_id.is_none();
                self.framework_id = Some(framework_id.clone());
                self.subscribe.framework_id = framework_id.to_string();
                if !is_first {
                    return Ok(()); // the client does not notice
                }
                let (stream, shown, calls) = (self.stream, self.out.shown, self.calls.clone());
                // Before the client can know of it.
                self.on.sessions.lock().insert(framework_id.clone(), Handle { stream, shown, calls });
                self.pass_on(seat, &event, held)?;
                self.pass_on(seat, &SchedulerEvent::Heartbeat, None)
            }
            SchedulerEvent::Error(_) => {
                self.pass_on(seat, &event, held)?;
                Err(End::Over)
            }
            event => self.pass_on(seat, &event, held),
        }
    }

    /// From now on the framework is shown what its new description asks for, by the next leaders, too.
    fn describe_anew(&mut self, update: v1::UpdateFramework) {
        let info = mesos::FrameworkInfo::decode(update.framework_info.clone()).unwrap_or_default();
        self.out.shown = Shown::to(&info);
        self.subscribe.framework_info = update.framework_info;
        self.subscribe.suppressed_roles = update.suppressed_roles;
        if let Some(id) = &self.framework_id
            && let Some(handle) = self.on.sessions.lock().get_mut(id).filter(|it| it.stream == self.stream)
        {
            handle.shown = self.out.shown;
        }
    }

    /// Updates of the tasks that an ACCEPT did not launch.
    fn refused(&self, outcome: &CallOutcome, task_infos: &[Bytes]) -> Vec<mesos::scheduler::Event> {
        let CallOutcome::Accepted(became) = outcome else { return Vec::new() };
        // Nothing is decoded while nothing is refused.
        let mut asked = None;
        let mut named = |task_id: &TaskId| {
            let asked = asked.get_or_insert_with(|| {
                let decoded =
                    task_infos.iter().filter_map(|bytes| mesos::TaskInfo::decode(bytes.clone()).ok());
                decoded.map(|info| (info.task_id.value, info.agent_id.value)).collect::<HashMap<_, _>>()
            });
            asked.get(task_id.as_str()).map(AgentId::new)
        };
        let refused = became.tasks.iter().filter_map(|(task_id, became)| {
            let TaskOutcome::Refused { state, reason, message } = became else { return None };
            let is_aware = self.out.shown.partition_aware;
            let status = Status {
                state: if is_aware { *state } else { state.for_partition_unaware() },
                source: Source::Master,
                reason: Some(*reason),
                message: message.clone(),
                wall: now(),
                sealed: Default::default(),
            };
            let (task_id, agent_id) = (task_id.clone(), named(task_id));
            let update = SchedulerEvent::Update { task_id, agent_id, status, uuid: None };
            event(&update, &mesos::MasterInfo::default(), self.out.shown, now())
        });
        refused.collect()
    }

    fn pass_on(&mut self, seat: &Seat, said: &SchedulerEvent, held: Held) -> Result<(), End> {
        let Some(mut event) = event(said, &seat.master, self.out.shown, now()) else { return Ok(()) };
        if let Some(mesos::scheduler::event::Update { status }) = &mut event.update
            && let SchedulerEvent::Update { agent_id: Some(agent_id), .. } = said
        {
            let look = || self.on.raft.with_registry(|registry| records::address(registry, agent_id));
            records::add_address(status, look);
        }
        self.out.pass(&event, held)
    }
}

/// A frame that came over a link. What a leader sends can be read.
fn read(bytes: Bytes) -> Option<Event> {
    let frame = v1::SchedulerDownFrame::decode(bytes).ok()?;
    match scheduler_event(frame) {
        Ok((_, SchedulerDown::Event(event))) => Some(Event::Scheduler(event)),
        _ => None,
    }
}
