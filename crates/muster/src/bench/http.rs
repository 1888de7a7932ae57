//! Simulated frameworks that speak the Mesos v1 HTTP API: a stream of records, and a request for each call.

use super::{
    frameworks::{Offered, Pace, Shared, task_info},
    play::Fate,
    wire::{Pause, StreamError},
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use mesos::scheduler::{Call, Event, call, event};
use muster_model::Resources;
use muster_proto::{json::Codec, media::Records, mesos};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};
use tokio::sync::{Semaphore, mpsc};

const PATH: &str = "/api/v1/scheduler";
const STREAM_ID: &str = "mesos-stream-id";
const ACKNOWLEDGING_MAX: usize = 8;

/// Requests over connections that are kept and used again, as client libraries do it.
type Requests = Client<HttpConnector, Full<Bytes>>;

struct Framework {
    number: usize,
    codec: Codec,
    pace: Pace,
    shared: Arc<Shared>,
    requests: Requests,
    /// Acknowledgements on their way at a time: a client library has few connections, not one for each.
    acknowledging: Arc<Semaphore>,
    framework_id: Option<mesos::FrameworkId>,
    offers: VecDeque<Offered>,
    /// When the ACCEPTs were sent of tasks that are not seen running.
    running: HashMap<String, Instant>,
    /// Tasks that are to end and are not over.
    open: HashMap<String, Instant>,
    in_flight: usize,
    tasks: u64,
    next_at: Instant,
    is_offered: bool,
    /// Whether a leader took its SUBSCRIBE on the stream that it has.
    subscribed: bool,
}

/// Where a framework is subscribed.
struct Subscription {
    address: String,
    stream_id: http::HeaderValue,
    events: Events,
}

/// Runs a framework until it is aborted.
pub(crate) async fn run(number: usize, masters: Vec<String>, pace: Pace, shared: Arc<Shared>, codec: Codec) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let mut framework = Framework {
        number,
        codec,
        pace,
        shared,
        requests: Client::builder(TokioExecutor::new()).build(connector),
        acknowledging: Arc::new(Semaphore::new(ACKNOWLEDGING_MAX)),
        framework_id: None,
        offers: VecDeque::new(),
        running: HashMap::new(),
        open: HashMap::new(),
        in_flight: 0,
        tasks: 0,
        next_at: Instant::now(),
        is_offered: false,
        subscribed: false,
    };
    let (mut dial, mut pause) = (number, Pause::new());
    loop {
        framework.subscribed = false;
        let _ended = framework.session(masters[dial % masters.len()].clone()).await;
        dial += 1;
        pause.wait(framework.subscribed).await;
    }
}

impl Framework {
    async fn session(&mut self, master: String) -> Result<(), StreamError> {
        let mut to = self.subscribe(master).await?;
        self.offers.clear();
        self.in_flight = 0;
        let (answers, mut answered) = mpsc::channel(64);
        loop {
            let wait = self.next_at.saturating_duration_since(Instant::now());
            let paced = self.next_at > Instant::now() && self.can_launch();
            tokio::select! {
                event = to.events.next(self.codec) => {
                    let Some(event) = event? else { return Ok(()) };
                    self.event(event, &to)?;
                }
                Some(tasks) = answered.recv() => {
                    self.in_flight = self.in_flight.saturating_sub(1);
                    self.shared.ledger.accepted.fetch_add(tasks, Ordering::Relaxed);
                }
                () = tokio::time::sleep(wait), if paced => {}
            }
            self.launch(&to, &answers);
        }
    }

    /// Subscribes with whoever leads.
    async fn subscribe(&self, mut address: String) -> Result<Subscription, StreamError> {
        let info = mesos::FrameworkInfo {
            user: "bench".into(),
            name: format!("bench-{}", self.number),
            failover_timeout: Some(3600.0),
            id: self.framework_id.clone(),
            ..Default::default()
        };
        let call = Call {
            subscribe: Some(call::Subscribe { framework_info: info, ..Default::default() }),
            framework_id: self.framework_id.clone(),
            ..of(call::Type::Subscribe)
        };
        // A leader that changes meanwhile is found in a few steps, or by the next try.
        for _ in 0..4 {
            let response = self.post(&address, None, &call).await?;
            let header = |name: &str| response.headers().get(name).cloned();
            match response.status() {
                StatusCode::OK => {
                    let stream_id = header(STREAM_ID)
                        .ok_or_else(|| StreamError::Damaged("the answer names no stream".into()))?;
                    let events = Events { body: response.into_body(), records: Records::default() };
                    return Ok(Subscription { address, stream_id, events });
                }
                StatusCode::TEMPORARY_REDIRECT => {
                    let location = header("location").unwrap_or(http::HeaderValue::from_static(""));
                    let location = location.to_str().unwrap_or_default().trim_start_matches("//");
                    address = location.split('/').next().unwrap_or_default().to_owned();
                }
                other => return Err(StreamError::Status(other)),
            }
        }
        Err(StreamError::Status(StatusCode::TEMPORARY_REDIRECT))
    }

    fn request(
        &self,
        address: &str,
        stream_id: Option<&http::HeaderValue>,
        call: &Call,
    ) -> Result<Request<Full<Bytes>>, StreamError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{address}{PATH}"))
            .header(header::CONTENT_TYPE, self.codec.media_type())
            .header(header::ACCEPT, self.codec.media_type());
        if let Some(stream_id) = stream_id {
            request = request.header(STREAM_ID, stream_id);
        }
        Ok(request.body(Full::new(self.codec.write(call)))?)
    }

    async fn post(
        &self,
        address: &str,
        stream_id: Option<&http::HeaderValue>,
        call: &Call,
    ) -> Result<Response<Incoming>, StreamError> {
        let request = self.request(address, stream_id, call)?;
        self.requests.request(request).await.map_err(|error| StreamError::Damaged(error.to_string()))
    }

    /// Sends a call; how many tasks of it were taken is told when it is answered.
    fn call(
        &self,
        to: &Subscription,
        call: Call,
        tasks: Option<(u64, Instant, mpsc::Sender<u64>)>,
    ) -> Result<(), StreamError> {
        let call = Call { framework_id: self.framework_id.clone(), ..call };
        let request = self.request(&to.address, Some(&to.stream_id), &call)?;
        let (requests, shared) = (self.requests.clone(), self.shared.clone());
        if tasks.is_some() {
            shared.asking.fetch_add(1, Ordering::Relaxed);
        }
        // ACCEPTs are bounded by how many may be in flight.
        let few = tasks.is_none().then(|| self.acknowledging.clone());
        tokio::spawn(async move {
            let mut taken = false;
            let _turn = match few {
                Some(few) => few.acquire_owned().await.ok(),
                None => None,
            };
            if let Ok(response) = requests.request(request).await {
                taken = response.status() == StatusCode::ACCEPTED;
                let _ = response.into_body().collect().await; // so that the connection can be used again
            }
            if let Some((tasks, asked, answers)) = tasks {
                if taken && tasks > 0 {
                    shared.saw_answer(asked);
                }
                let _ = answers.send(if taken { tasks } else { 0 }).await; // the session may be over
                shared.asking.fetch_sub(1, Ordering::Relaxed);
            }
        });
        Ok(())
    }

    fn event(&mut self, event: Event, to: &Subscription) -> Result<(), StreamError> {
        if let Some(subscribed) = event.subscribed {
            self.framework_id = Some(subscribed.framework_id);
            self.subscribed = true;
        }
        if let Some(offers) = event.offers {
            self.shared.ledger.offers.fetch_add(offers.offers.len() as u64, Ordering::Relaxed);
            if !self.is_offered {
                self.is_offered = true;
                self.next_at = Instant::now() + self.pace.phase(self.number);
            }
            if let Some(after) = self.shared.play.declines
                && self.offers.is_empty()
            {
                self.next_at = Instant::now() + after;
            }
            for offer in offers.offers {
                let resources = muster_proto::resources(&offer.resources)
                    .map_err(|error| StreamError::Damaged(error.to_string()))?;
                self.offers.push_back(Offered { id: offer.id.value, agent: offer.agent_id.value, resources });
            }
        }
        if let Some(rescind) = event.rescind {
            self.offers.retain(|offer| offer.id != rescind.offer_id.value);
        }
        if let Some(event::Update { status }) = event.update {
            self.update(status, to)?;
        }
        match event.error {
            Some(error) => Err(StreamError::Refused(error.message)),
            None => Ok(()),
        }
    }

    fn update(&mut self, status: mesos::TaskStatus, to: &Subscription) -> Result<(), StreamError> {
        if status.state() != mesos::TaskState::TaskStarting
            && let Some(asked) = self.running.remove(&status.task_id.value)
        {
            self.shared.ledger.told.fetch_add(1, Ordering::Relaxed);
            if status.state() == mesos::TaskState::TaskRunning {
                self.shared.saw_running(asked);
            }
        }
        let is_live = matches!(
            status.state(),
            mesos::TaskState::TaskStaging | mesos::TaskState::TaskStarting | mesos::TaskState::TaskRunning
        );
        if !is_live && let Some(asked) = self.open.remove(&status.task_id.value) {
            self.shared.saw_end(asked, status.state() == mesos::TaskState::TaskFinished);
        }
        let Some(uuid) = status.uuid else { return Ok(()) };
        let acknowledge = call::Acknowledge {
            agent_id: status.agent_id.unwrap_or_default(),
            task_id: status.task_id,
            uuid,
        };
        self.call(to, Call { acknowledge: Some(acknowledge), ..of(call::Type::Acknowledge) }, None)
    }

    fn can_launch(&self) -> bool {
        self.in_flight < self.pace.in_flight
            && !self.offers.is_empty()
            && self.shared.play.has_room(self.tasks, self.open.len(), &self.pace)
            && self.shared.launching.load(Ordering::Relaxed)
    }

    fn launch(&mut self, to: &Subscription, answers: &mpsc::Sender<u64>) {
        if self.shared.play.declines.is_some() {
            if self.can_launch() && self.next_at <= Instant::now() {
                self.decline(to, answers);
            }
            return;
        }
        while self.can_launch() && (self.pace.every.is_zero() || self.next_at <= Instant::now()) {
            let Some(offer) = self.offers.pop_front() else { break };
            let task_infos = self.tasks_for(&offer);
            let count = task_infos.len() as u64;
            let asked = self.pace.due(&mut self.next_at, self.shared.play.by_clock);
            if self.shared.play.fate != Fate::Taken {
                self.running.extend(task_infos.iter().map(|task| (task.task_id.value.clone(), asked)));
            }
            if self.shared.play.fate == Fate::Ends {
                self.open.extend(task_infos.iter().map(|task| (task.task_id.value.clone(), asked)));
            }
            let launch = mesos::offer::Operation {
                r#type: Some(mesos::offer::operation::Type::Launch.into()),
                launch: Some(mesos::offer::operation::Launch { task_infos }),
                ..Default::default()
            };
            let accept = call::Accept {
                offer_ids: vec![mesos::OfferId { value: offer.id }],
                operations: vec![launch],
                filters: Some(mesos::Filters { refuse_seconds: Some(0.0) }),
            };
            let call = Call { accept: Some(accept), ..of(call::Type::Accept) };
            if self.call(to, call, Some((count, asked, answers.clone()))).is_ok() {
                self.in_flight += 1;
            }
        }
    }

    /// Gives all offers back, to be offered again at once.
    fn decline(&mut self, to: &Subscription, answers: &mpsc::Sender<u64>) {
        let offer_ids = self.offers.drain(..).map(|offer| mesos::OfferId { value: offer.id }).collect();
        let filters = Some(mesos::Filters { refuse_seconds: Some(0.0) });
        let decline = Some(call::Decline { offer_ids, filters });
        let call = Call { decline, ..of(call::Type::Decline) };
        // One request at a time: what comes meanwhile goes with the next.
        if self.call(to, call, Some((0, Instant::now(), answers.clone()))).is_ok() {
            self.in_flight += 1;
        }
    }

    /// As many as fit. Offers of the benchmark's agents always have room.
    fn tasks_for(&mut self, offer: &Offered) -> Vec<mesos::TaskInfo> {
        let mut left: Resources = offer.resources.clone();
        let mut tasks = Vec::new();
        while tasks.len() < self.pace.tasks_per_accept && left.contains(&self.pace.task) {
            left.subtract(&self.pace.task);
            self.tasks += 1;
            tasks.push(task_info(self.shared.play.task_id(self.tasks), &offer.agent, &self.pace.task));
        }
        tasks
    }
}

fn of(kind: call::Type) -> Call {
    Call { r#type: Some(kind.into()), ..Default::default() }
}

/// The events of a stream.
struct Events {
    body: Incoming,
    records: Records,
}

impl Events {
    /// The next event; none at the stream's end. Nothing is lost when this is not awaited to its end.
    async fn next(&mut self, codec: Codec) -> Result<Option<Event>, StreamError> {
        let damaged = |error: &dyn std::fmt::Display| StreamError::Damaged(error.to_string());
        loop {
            if let Some(record) = self.records.next_whole().map_err(|error| damaged(&error))? {
                return codec.read(&record).map(Some).map_err(|error| damaged(&error));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(damaged(&error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.records.push(&data);
                    }
                }
            }
        }
    }
}
