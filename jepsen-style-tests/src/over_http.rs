//! A framework that speaks the Mesos v1 HTTP API: a stream of events, and a request for each call, which goes to any
//! master, leader or not, as any address is as good as the other. It writes JSON on one stream and protobuf on the
//! next.
//!
//! It names itself, since who subscribes without an id becomes another framework each time. What a call came to it
//! hears by the status of the answer; what became of its tasks by their updates, and where nobody said whether an ACCEPT
//! was carried out, by asking.

use crate::direct::{ACKNOWLEDGE, KILL};
use crate::history::{Event as Seen, Recorder};
use crate::jobs::{Jobs, NOBODYS};
use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use muster_model::Uuid;
use muster_proto::json::Codec;
use muster_proto::media::Records;
use muster_proto::mesos;
use muster_proto::mesos::scheduler::{Call, Event, call};
use muster_proto::task::{reason, task_state};
use muster_testkit::TestCluster;
use rand::RngExt;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// Its name.
pub const OVER_HTTP: &str = "h1";
const PATH: &str = "/api/v1/scheduler";
const STREAM_ID: &str = "mesos-stream-id";
/// How long a master may take to answer: longer than it tries to hand a call to a leader.
const CALL_TIME: Duration = Duration::from_secs(15);
/// How long it may take to take a stream.
const DIAL_TIME: Duration = Duration::from_secs(3);
/// So many heartbeats may be missed.
const HEARTBEATS: f64 = 2.5;
/// From a stream that ended to the next, and from a call that was not carried out to the same again.
const PAUSE: Duration = Duration::from_millis(100);
/// After an ACCEPT that nobody answered it waits for longer than any master keeps it, before it asks.
const KEPT: Duration = Duration::from_secs(11);
/// From an offer that it takes to the next that it takes.
const REST: Duration = Duration::from_millis(150);
/// One in so many calls goes to another master than the stream's.
const ELSEWHERE_ONE_IN: u32 = 3;
/// Answers that wait to be looked at.
const ANSWERS_MAX: usize = 256;
/// How long its tasks may take to end when nothing goes wrong any more.
const END_TIME: Duration = Duration::from_secs(45);

type Requests = Client<HttpConnector, Full<Bytes>>;

/// The framework. What it knows outlasts its streams.
#[derive(Debug)]
pub struct OverHttp {
    masters: Vec<String>,
    /// How it dials whom the masters name by these addresses.
    own_way: BTreeMap<String, String>,
    requests: Requests,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    jobs: Jobs,
    /// Drawn by itself.
    framework_id: String,
    is_registered: bool,
    streams: u64,
    /// When it may take another offer.
    rested: Instant,
    doubt: Doubt,
    /// It has asked since, and was answered.
    is_told: bool,
}

/// Whether something is to be asked about, and when.
#[derive(Debug, Default)]
struct Doubt {
    /// ACCEPTs that were sent and not answered. Of a stream that ended nobody hears the answers any more.
    accepting: u32,
    /// When it asks what became of its tasks.
    ask_at: Option<Instant>,
}

/// One stream.
struct Stream {
    /// The master that it comes from.
    address: String,
    codec: Codec,
    stream_id: header::HeaderValue,
    body: Incoming,
    records: Records,
    answers: mpsc::Sender<Answered>,
    /// Calls that are not answered.
    open: usize,
    is_subscribed: bool,
    silent_after: Duration,
}

/// What was asked, and the status that came, if one did, with who was asked.
type Answered = (Asked, Option<StatusCode>, String);

#[derive(Debug, Clone)]
enum Asked {
    /// Of these offers.
    Accept(Vec<mesos::OfferId>),
    Decline(Box<call::Decline>),
    Kill(String),
    Acknowledge(Box<call::Acknowledge>),
    Reconcile,
}

/// All that was launched has ended, and all that was asked is answered.
struct Done;

impl OverHttp {
    /// Of these dice.
    pub fn new(cluster: &TestCluster, recorder: &Recorder, seed: u64) -> Self {
        let known = Known {
            jobs: Jobs::new(OVER_HTTP, cluster, recorder, seed),
            framework_id: format!("{OVER_HTTP}-{:08x}", rand::random::<u32>()),
            is_registered: false,
            streams: 0,
            rested: Instant::now(),
            doubt: Doubt::default(),
            is_told: false,
        };
        let requests = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        Self {
            masters: cluster.masters(),
            own_way: cluster.named_masters(),
            requests,
            known: Mutex::new(known),
        }
    }

    /// Launches and kills until this is dropped.
    pub async fn keep_busy(&self) {
        let mut known = self.known.lock().await;
        self.go_round(&mut known).await;
    }

    /// Ends all that it launched, and waits for that. What does not end is in the verdict.
    pub async fn finish(&self) {
        let mut known = self.known.lock().await;
        known.jobs.is_ending = true;
        let _ = timeout(END_TIME, self.go_round(&mut known)).await;
    }

    /// One stream after the other, of all masters in turn. Why one ended, or never began, does not matter.
    async fn go_round(&self, known: &mut Known) {
        for master in self.masters.iter().cycle() {
            let was = self.follow(known, master).await;
            if let Ok(Done) = was {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A stream, to its end.
    async fn follow(&self, known: &mut Known, master: &str) -> anyhow::Result<Done> {
        let (answers, mut answered) = mpsc::channel(ANSWERS_MAX);
        let mut stream = self.subscribe(known, master, answers).await?;
        let over = self.live(known, &mut stream, &mut answered).await;
        if stream.is_subscribed {
            known.jobs.record(Seen::Disconnected);
        }
        over
    }

    async fn live(
        &self,
        known: &mut Known,
        stream: &mut Stream,
        answered: &mut mpsc::Receiver<Answered>,
    ) -> anyhow::Result<Done> {
        let mut silent = Instant::now() + DIAL_TIME;
        loop {
            if known.is_over() && stream.open == 0 {
                return Ok(Done);
            }
            let ask_at = known.doubt.asks_at().filter(|_| stream.is_subscribed);
            tokio::select! {
                heard = timeout_at(silent, stream.next()) => {
                    let event = heard.context("nothing was heard for too long")??;
                    self.told(known, stream, event)?;
                    silent = Instant::now() + stream.silent_after;
                }
                Some((asked, status, by)) = answered.recv() => {
                    stream.open -= 1;
                    self.answered(known, stream, asked, status, by);
                }
                () = sleep_until(ask_at.unwrap_or(silent)), if ask_at.is_some() => {
                    known.doubt.ask_at = None;
                    self.ask(known, stream);
                }
            }
            if stream.is_subscribed {
                self.kill(known, stream);
            }
        }
    }

    /// Subscribes at this master, or where it points.
    async fn subscribe(
        &self,
        known: &mut Known,
        master: &str,
        answers: mpsc::Sender<Answered>,
    ) -> anyhow::Result<Stream> {
        known.streams += 1;
        known.doubt.begins_stream();
        let codec = if known.streams % 2 == 1 { Codec::Json } else { Codec::Protobuf };
        let id = Some(mesos::FrameworkId { value: known.framework_id.clone() });
        let framework_info = mesos::FrameworkInfo { id: id.clone(), ..known.jobs.framework() };
        let subscribe = call::Subscribe { framework_info, ..Default::default() };
        let call = Call { subscribe: Some(subscribe), framework_id: id, ..of(call::Type::Subscribe) };
        let mut address = master.to_owned();
        for _ in 0..2 {
            let request = request(&address, codec, None, &call)?;
            let response = timeout(DIAL_TIME, self.requests.request(request)).await??;
            match response.status() {
                StatusCode::OK => {
                    return Ok(Stream {
                        address,
                        codec,
                        stream_id: header_of(&response, STREAM_ID)?.clone(),
                        body: response.into_body(),
                        records: Records::default(),
                        answers,
                        open: 0,
                        is_subscribed: false,
                        silent_after: DIAL_TIME,
                    });
                }
                StatusCode::TEMPORARY_REDIRECT => {
                    let location = header_of(&response, "location")?.to_str()?;
                    let there = location.trim_start_matches("//").split('/').next().unwrap_or_default();
                    // Not by the cable between two masters: the framework has its own way.
                    address = self.own_way.get(there).context("a master points to nobody")?.clone();
                }
                other => bail!("{address} answers {other}"),
            }
        }
        bail!("{master} points to {address}, which does not lead")
    }

    /// Sends a call to one of the masters; the answer comes by itself.
    fn call(&self, known: &mut Known, stream: &mut Stream, asked: Asked, call: Call) {
        let rng = &mut known.jobs.rng;
        let elsewhere = rng.random_ratio(1, ELSEWHERE_ONE_IN);
        let at = rng.random_range(0..self.masters.len());
        let to = if elsewhere { self.masters[at].clone() } else { stream.address.clone() };
        self.send(known, stream, to, asked, call);
    }

    /// Sends a call to this master; the answer comes by itself.
    fn send(&self, known: &Known, stream: &mut Stream, to: String, asked: Asked, call: Call) {
        let framework_id = Some(mesos::FrameworkId { value: known.framework_id.clone() });
        let call = Call { framework_id, ..call };
        let request = request(&to, stream.codec, Some(&stream.stream_id), &call);
        let (requests, answers) = (self.requests.clone(), stream.answers.clone());
        stream.open += 1;
        tokio::spawn(async move {
            let status = async { anyhow::Ok(requests.request(request?).await?.status()) };
            let status = timeout(CALL_TIME, status).await.ok().and_then(Result::ok);
            let _ = answers.send((asked, status, to)).await; // the stream may be over
        });
    }

    fn answered(
        &self,
        known: &mut Known,
        stream: &mut Stream,
        asked: Asked,
        status: Option<StatusCode>,
        by: String,
    ) {
        let done = status == Some(StatusCode::ACCEPTED);
        let record = |call: &str, task: String, which: String| {
            known.jobs.record(Seen::Answered { call: call.into(), task, which, by: by.clone() });
        };
        match asked {
            Asked::Kill(task) if done => record(KILL, task, String::new()),
            Asked::Kill(task) => known.jobs.kill_failed(&task),
            Asked::Acknowledge(it) if done => {
                let uuid = it.uuid.as_ref().try_into().ok().map(Uuid);
                record(ACKNOWLEDGE, it.task_id.value, uuid.map(|uuid| uuid.to_string()).unwrap_or_default());
            }
            // To be said again, unless a new stream tells of it again.
            Asked::Acknowledge(it) if stream.is_subscribed => self.acknowledge(known, stream, it),
            // What it came to is told by updates.
            // No master has it any more by then; an offer that it did not use is not to be held for nothing.
            Asked::Accept(offer_ids) => {
                known.doubt.answered(status);
                if !done {
                    self.decline(known, stream, Box::new(call::Decline { offer_ids, filters: None }));
                }
            }
            // To be said again, unless a new stream made its offers void.
            Asked::Decline(it) if !done && stream.is_subscribed => self.decline(known, stream, it),
            Asked::Reconcile if !done => known.doubt.ask_after(PAUSE),
            Asked::Acknowledge(_) | Asked::Decline(_) | Asked::Reconcile => {}
        }
    }

    fn told(&self, known: &mut Known, stream: &mut Stream, event: Event) -> anyhow::Result<()> {
        if let Some(subscribed) = event.subscribed {
            let framework_id = subscribed.framework_id.value;
            known.jobs.record(match known.is_registered && framework_id == known.framework_id {
                true => Seen::Reregistered,
                false => Seen::Registered { framework_id, begun_us: None },
            });
            known.is_registered = true;
            stream.is_subscribed = true;
            if let Some(seconds) = subscribed.heartbeat_interval_seconds {
                stream.silent_after = Duration::try_from_secs_f64(seconds * HEARTBEATS).unwrap_or(DIAL_TIME);
            }
            known.jobs.kills_failed();
            known.is_told = false;
        }
        if let Some(offers) = event.offers {
            let since_us = known.jobs.now_us();
            for offer in offers.offers {
                self.offered(known, stream, offer, since_us)?;
            }
        }
        if let Some(update) = event.update {
            self.updated(known, stream, update.status)?;
        }
        if let Some(error) = event.error {
            known.jobs.record(Seen::Error { message: error.message.clone() });
            bail!(error.message);
        }
        Ok(())
    }

    fn offered(
        &self,
        known: &mut Known,
        stream: &mut Stream,
        offer: mesos::Offer,
        since_us: u64,
    ) -> anyhow::Result<()> {
        let offered = muster_proto::resources(&offer.resources)?;
        let filters = Some(mesos::Filters { refuse_seconds: Some(known.jobs.refuse_ms() as f64 / 1000.0) });
        let mut task_infos = Vec::new();
        if known.rested <= Instant::now() {
            let agent = (&*offer.agent_id.value, &*offer.hostname);
            task_infos = known.jobs.launch(&offer.id.value, &offered, agent, since_us);
        }
        let offer_ids = vec![offer.id];
        if task_infos.is_empty() {
            let decline = call::Decline { offer_ids, filters };
            let call = Call { decline: Some(decline.clone()), ..of(call::Type::Decline) };
            self.call(known, stream, Asked::Decline(Box::new(decline)), call);
            return Ok(());
        }
        known.rested = Instant::now() + REST;
        let launch = mesos::offer::Operation {
            r#type: Some(mesos::offer::operation::Type::Launch.into()),
            launch: Some(mesos::offer::operation::Launch { task_infos }),
            ..Default::default()
        };
        let accept = call::Accept { offer_ids: offer_ids.clone(), operations: vec![launch], filters };
        known.doubt.accepting += 1;
        let call = Call { accept: Some(accept), ..of(call::Type::Accept) };
        self.call(known, stream, Asked::Accept(offer_ids), call);
        Ok(())
    }

    fn updated(
        &self,
        known: &mut Known,
        stream: &mut Stream,
        status: mesos::TaskStatus,
    ) -> anyhow::Result<()> {
        let task = &*status.task_id.value;
        if task == NOBODYS {
            known.is_told = known.jobs.is_ending;
            return Ok(());
        }
        let uuid = match &status.uuid {
            None => None,
            Some(uuid) => Some(Uuid(uuid.as_ref().try_into().context("a uuid has 16 bytes")?).to_string()),
        };
        let state = task_state(status.state)?;
        let why = status.reason.map(reason).transpose()?.flatten();
        known.jobs.updated(task, state, why, status.message(), uuid);
        if let Some(uuid) = status.uuid {
            let (agent_id, task_id) = (status.agent_id.unwrap_or_default(), status.task_id);
            self.acknowledge(known, stream, Box::new(call::Acknowledge { agent_id, task_id, uuid }));
        }
        Ok(())
    }

    /// Declines once more, where its stream comes from: nobody else is to wait for an offer that is not used.
    fn decline(&self, known: &Known, stream: &mut Stream, it: Box<call::Decline>) {
        let call = Call { decline: Some((*it).clone()), ..of(call::Type::Decline) };
        self.send(known, stream, stream.address.clone(), Asked::Decline(it), call);
    }

    fn acknowledge(&self, known: &mut Known, stream: &mut Stream, it: Box<call::Acknowledge>) {
        let call = Call { acknowledge: Some((*it).clone()), ..of(call::Type::Acknowledge) };
        self.call(known, stream, Asked::Acknowledge(it), call);
    }

    /// What became of launches that nobody told of: what is not known now never will be. In the end, about one that
    /// nobody launched as well: the answer comes after all updates that were not acknowledged.
    fn ask(&self, known: &mut Known, stream: &mut Stream) {
        let mut tasks: Vec<String> = known.jobs.undecided().cloned().collect();
        tasks.extend(known.jobs.is_ending.then(|| NOBODYS.to_owned()));
        if tasks.is_empty() {
            return; // no names would stand for all
        }
        let task = |name| call::reconcile::Task { task_id: mesos::TaskId { value: name }, agent_id: None };
        let reconcile = call::Reconcile { tasks: tasks.into_iter().map(task).collect() };
        let call = Call { reconcile: Some(reconcile), ..of(call::Type::Reconcile) };
        self.call(known, stream, Asked::Reconcile, call);
    }

    fn kill(&self, known: &mut Known, stream: &mut Stream) {
        for task in known.jobs.kills_due() {
            let kill = call::Kill { task_id: mesos::TaskId { value: task.clone() }, ..Default::default() };
            let call = Call { kill: Some(kill), ..of(call::Type::Kill) };
            self.call(known, stream, Asked::Kill(task), call);
        }
    }
}

impl Doubt {
    /// What was still on its way may come to something.
    fn begins_stream(&mut self) {
        let wait = if std::mem::take(&mut self.accepting) > 0 { KEPT } else { Duration::ZERO };
        self.ask_after(wait);
    }

    /// An ACCEPT was answered, or given up: who did not answer at all may have kept it.
    fn answered(&mut self, status: Option<StatusCode>) {
        self.accepting = self.accepting.saturating_sub(1);
        match status {
            Some(StatusCode::ACCEPTED) => {}
            Some(_) => self.ask_after(Duration::ZERO),
            None => self.ask_after(KEPT),
        }
    }

    /// Asks, but not before so long from now.
    fn ask_after(&mut self, wait: Duration) {
        let at = Instant::now() + wait;
        self.ask_at = Some(self.ask_at.map_or(at, |later| later.max(at)));
    }

    /// When it asks. An ACCEPT that is on its way may be carried out after an answer that nobody knows its tasks, so its
    /// own answer is waited for first.
    fn asks_at(&self) -> Option<Instant> {
        self.ask_at.filter(|_| self.accepting == 0)
    }
}

impl Known {
    /// Nothing is left of what it launched, and nothing more is launched.
    fn is_over(&self) -> bool {
        self.jobs.is_ending && self.is_told && self.jobs.is_empty()
    }
}

impl Stream {
    /// The next event. Nothing is lost when this is not awaited to its end.
    async fn next(&mut self) -> anyhow::Result<Event> {
        loop {
            if let Some(record) = self.records.next_whole()? {
                return Ok(self.codec.read(&record)?);
            }
            let frame = self.body.frame().await.context("the stream ended")??;
            if let Ok(data) = frame.into_data() {
                self.records.push(&data);
            }
        }
    }
}

fn of(kind: call::Type) -> Call {
    Call { r#type: Some(kind.into()), ..Default::default() }
}

fn request(
    address: &str,
    codec: Codec,
    stream_id: Option<&header::HeaderValue>,
    call: &Call,
) -> anyhow::Result<Request<Full<Bytes>>> {
    let mut request = Request::post(format!("http://{address}{PATH}"))
        .header(header::CONTENT_TYPE, codec.media_type())
        .header(header::ACCEPT, codec.media_type());
    if let Some(stream_id) = stream_id {
        request = request.header(STREAM_ID, stream_id);
    }
    Ok(request.body(Full::new(codec.write(call)))?)
}

fn header_of<'a>(response: &'a Response<Incoming>, name: &str) -> anyhow::Result<&'a header::HeaderValue> {
    response.headers().get(name).with_context(|| format!("the answer has no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_may_still_be_carried_out_is_not_asked_about() {
        let mut doubt = Doubt { accepting: 2, ask_at: None };
        doubt.answered(Some(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(doubt.asks_at(), None, "the other ACCEPT is on its way");
        doubt.answered(Some(StatusCode::ACCEPTED));
        assert_eq!(doubt.asks_at(), Some(Instant::now()));
        doubt.accepting = 1;
        doubt.answered(None);
        assert_eq!(doubt.asks_at(), Some(Instant::now() + KEPT), "a master may have kept it");
        doubt.accepting = 1;
        doubt.begins_stream();
        assert_eq!(doubt.asks_at(), Some(Instant::now() + KEPT), "nobody hears its answer");
    }
}
