//! The SDK against masters made for the purpose: real sockets, scripted words.

#![allow(clippy::unwrap_used)]

use muster_model::event::{CallOutcome, OfferWithAgent};
use muster_model::{
    AcceptOutcome, Fence, LaunchNumber, SchedulerCall, SchedulerEvent, Sealed, Session, TaskOutcome, Term,
    WallTime,
};
use muster_proto::scheduler::scheduler_leader_frame;
use muster_proto::v1::scheduler_service_server::{SchedulerService, SchedulerServiceServer};
use muster_proto::{mesos, scheduler_call, scheduler_down_frame, v1};
use muster_sdk::*;
use prost::Message;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status as Answer, Streaming};

/// One stream of a client, as the master sees it.
struct Client {
    up: Streaming<v1::SchedulerFrame>,
    down: mpsc::Sender<Result<v1::SchedulerDownFrame, Answer>>,
    fence: Fence,
}

impl Client {
    async fn call(&mut self) -> (u64, SchedulerCall) {
        let frame =
            tokio::time::timeout(Duration::from_secs(10), self.up.next()).await.unwrap().unwrap().unwrap();
        scheduler_call(frame).unwrap()
    }

    async fn send(&self, event: SchedulerEvent) {
        self.down.send(Ok(scheduler_down_frame(self.fence, &event))).await.unwrap();
    }

    async fn lead(&mut self, term: u64) {
        self.fence = Fence { incarnation: 1, term: Term(term) };
        self.down.send(Ok(scheduler_leader_frame(self.fence, "m", ""))).await.unwrap();
    }

    /// Takes the SUBSCRIBE, says who asked, and answers it.
    async fn subscribe(&mut self) -> Option<FrameworkId> {
        let (_, SchedulerCall::Subscribe { framework_id: asked, .. }) = self.call().await else {
            panic!("not a SUBSCRIBE")
        };
        let framework_id = FrameworkId::new("F1");
        self.send(SchedulerEvent::Subscribed { framework_id, session: Session(1), heartbeat_ms: 60_000 })
            .await;
        asked
    }

    async fn outcome(&self, id: u64, outcome: CallOutcome) {
        self.send(SchedulerEvent::Outcome { id, outcome }).await;
    }

    async fn offer(&self, id: &str) {
        let offer = muster_model::Offer {
            offer_id: OfferId::new(id),
            framework_id: FrameworkId::new("F1"),
            role: Role::any(),
            agent_id: AgentId::new("S1"),
            resources: Resources::of(1000, 512).into(),
        };
        let with_agent = OfferWithAgent {
            offer,
            hostname: "host".into(),
            port: 5051,
            agent: Sealed::default(),
            unavailability: None,
            executor_ids: Vec::new(),
        };
        self.send(SchedulerEvent::Offers(vec![with_agent])).await;
    }
}

struct Service(mpsc::Sender<Client>);

#[tonic::async_trait]
impl SchedulerService for Service {
    type SessionStream = ReceiverStream<Result<v1::SchedulerDownFrame, Answer>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SchedulerFrame>>,
    ) -> Result<Response<Self::SessionStream>, Answer> {
        let (down, frames) = mpsc::channel(16);
        let client = Client { up: request.into_inner(), down, fence: Fence::default() };
        self.0.send(client).await.map_err(|_| Answer::unavailable("gone"))?;
        Ok(Response::new(ReceiverStream::new(frames)))
    }
}

/// A master: its address and its clients as they come.
async fn master() -> (String, mpsc::Receiver<Client>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (clients_out, clients) = mpsc::channel(4);
    let server =
        tonic::transport::Server::builder().add_service(SchedulerServiceServer::new(Service(clients_out)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, clients)
}

async fn next<T>(queue: &mut mpsc::Receiver<T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), queue.recv()).await.unwrap().unwrap()
}

/// Launches one task on each offer and writes down what it is told.
struct Recorder(mpsc::Sender<String>);

impl Recorder {
    fn say(&self, text: String) {
        self.0.try_send(text).unwrap();
    }
}

impl Scheduler for Recorder {
    fn registered(&mut self, _: &SchedulerDriver, framework_id: &FrameworkId, _: &str) {
        self.say(format!("registered {framework_id}"));
    }
    fn reregistered(&mut self, _: &SchedulerDriver, _: &str) {
        self.say("reregistered".into());
    }
    fn disconnected(&mut self, _: &SchedulerDriver) {
        self.say("disconnected".into());
    }
    fn resource_offers(&mut self, driver: &SchedulerDriver, offers: Vec<Offer>) {
        for offer in &offers {
            let task = Task::command(format!("t-{}", offer.id), "echo hi").cpus(0.1).mem_mb(32).env("A", "b");
            driver.accept([offer], [task], Filters::none()).unwrap();
        }
    }
    fn status_update(&mut self, _: &SchedulerDriver, update: TaskUpdate) {
        self.say(format!("{} {} {}", update.task_id, update.status.state, update.status.message));
    }
    fn error(&mut self, _: &SchedulerDriver, message: &str) {
        self.say(format!("error {message}"));
    }
}

fn start(masters: &[&String]) -> (SchedulerDriver, mpsc::Receiver<String>) {
    let (out, told) = mpsc::channel(1000);
    let masters = masters.iter().map(|master| master.to_string());
    (SchedulerDriver::builder(masters).start(Framework::new("test"), Recorder(out)).unwrap(), told)
}

fn launched(task_id: &TaskId) -> CallOutcome {
    let tasks = vec![(task_id.clone(), TaskOutcome::Launched(LaunchNumber::default()))];
    CallOutcome::Accepted(AcceptOutcome { tasks })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offer_becomes_a_task_an_update_is_acknowledged_a_stop_tears_down() {
    let (address, mut clients) = master().await;
    let (driver, mut told) = start(&[&address]);
    let mut client = next(&mut clients).await;
    client.lead(1).await;
    assert_eq!(client.subscribe().await, None);
    assert_eq!(next(&mut told).await, "registered F1");

    client.offer("o1").await;
    let (id, SchedulerCall::Accept { offer_ids, tasks, refuse_ms, .. }) = client.call().await else {
        panic!("not an ACCEPT")
    };
    assert_eq!((offer_ids, refuse_ms), (vec![OfferId::new("o1")], 0));
    assert_eq!(tasks[0].resources, Resources::of(100, 32));
    let info = mesos::TaskInfo::decode(&*tasks[0].sealed).unwrap();
    assert_eq!(info.agent_id.value, "S1");
    assert_eq!(info.command.unwrap().environment.unwrap().variables[0].name, "A");
    client.outcome(id, launched(&tasks[0].task_id)).await;

    let status = Status {
        state: TaskState::Finished,
        source: Source::Agent,
        reason: None,
        message: "exited with 0".into(),
        wall: WallTime(1),
        sealed: Sealed::default(),
    };
    let (task_id, uuid) = (tasks[0].task_id.clone(), Some(Uuid([3; 16])));
    client.send(SchedulerEvent::Update { task_id: task_id.clone(), agent_id: None, status, uuid }).await;
    assert_eq!(next(&mut told).await, "t-o1 TASK_FINISHED exited with 0");
    let (id, call) = client.call().await;
    assert_eq!(call, SchedulerCall::Acknowledge { task_id, uuid: Uuid([3; 16]) });
    client.outcome(id, CallOutcome::Done).await;

    driver.stop(false);
    let (id, call) = client.call().await;
    assert_eq!(call, SchedulerCall::Teardown);
    client.outcome(id, CallOutcome::Done).await;
    driver.ended().await.unwrap();
    assert!(matches!(driver.revive(&[]), Err(SdkError::Stopped)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_framework_whose_first_answer_was_lost_is_known_by_its_token() {
    let (address, mut clients) = master().await;
    let (_driver, mut told) = start(&[&address]);
    let mut tokens = Vec::new();
    for term in 1..=3 {
        let mut client = next(&mut clients).await;
        client.lead(term).await;
        let (_, SchedulerCall::Subscribe { framework_id: None, token, .. }) = client.call().await else {
            panic!("not the SUBSCRIBE of a new framework")
        };
        tokens.push(token);
    }
    assert!(tokens[0].is_some() && tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
    let mut client = next(&mut clients).await;
    client.lead(4).await;
    client.subscribe().await;
    assert_eq!(next(&mut told).await, "registered F1");
    let (_other, _told) = start(&[&address]);
    let mut client = next(&mut clients).await;
    client.lead(4).await;
    let (_, SchedulerCall::Subscribe { token, .. }) = client.call().await else { panic!("not a SUBSCRIBE") };
    assert_ne!(token, tokens[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_master_is_left_for_another_and_the_accept_is_repeated_there() {
    let (first, mut at_first) = master().await;
    let (second, mut at_second) = master().await;
    let (driver, mut told) = start(&[&first, &second]);
    let mut client = next(&mut at_first).await;
    client.lead(1).await;
    client.subscribe().await;
    client.offer("o1").await;
    let (_, asked) = client.call().await;
    drop(client);

    let mut client = next(&mut at_second).await;
    client.lead(2).await;
    assert_eq!(client.subscribe().await, Some(FrameworkId::new("F1")));
    let (id, repeated) = client.call().await;
    assert_eq!(repeated, asked);
    let dropped = TaskOutcome::Refused {
        state: TaskState::Dropped,
        reason: Reason::InvalidOffers,
        message: "the offer is void".into(),
    };
    let tasks = vec![(TaskId::new("t-o1"), dropped)];
    client.outcome(id, CallOutcome::Accepted(AcceptOutcome { tasks })).await;
    for expected in ["registered F1", "disconnected", "reregistered", "t-o1 TASK_DROPPED the offer is void"] {
        assert_eq!(next(&mut told).await, expected);
    }
    driver.abort();
    driver.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_ends_the_driver_with_its_reason() {
    let (address, mut clients) = master().await;
    let (driver, mut told) = start(&[&address]);
    let mut client = next(&mut clients).await;
    client.lead(1).await;
    let (id, _) = client.call().await;
    client.outcome(id, CallOutcome::Refused("Framework has been removed".into())).await;
    assert_eq!(next(&mut told).await, "error Framework has been removed");
    let error = driver.ended().await.unwrap_err();
    assert_eq!(error.to_string(), "Framework has been removed");
}

/// Stops the driver from within, while the queues are as full as they get.
struct Flooded;

impl Scheduler for Flooded {
    fn status_update(&mut self, driver: &SchedulerDriver, update: TaskUpdate) {
        // More calls than are kept: the rest is refused, nothing blocks.
        while driver.kill(&update.task_id).is_ok() {}
        driver.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_queues_answer_busy_and_never_block() {
    let (address, mut clients) = master().await;
    let driver = SchedulerDriver::builder([&address]).start(Framework::new("test"), Flooded).unwrap();
    let mut client = next(&mut clients).await;
    client.lead(1).await;
    client.subscribe().await;
    let status = Status {
        state: TaskState::Running,
        source: Source::Agent,
        reason: None,
        message: "".into(),
        wall: WallTime(1),
        sealed: Sealed::default(),
    };
    for n in 0..10 {
        let uuid = Some(Uuid([n; 16]));
        let update = SchedulerEvent::Update {
            task_id: TaskId::new("t"),
            agent_id: None,
            status: status.clone(),
            uuid,
        };
        if client.down.send(Ok(scheduler_down_frame(client.fence, &update))).await.is_err() {
            break;
        }
    }
    tokio::time::timeout(Duration::from_secs(10), driver.ended()).await.unwrap().unwrap();
}

#[test]
fn what_breaks_a_rule_is_refused_before_it_is_sent() {
    let error =
        SchedulerDriver::builder(Vec::<String>::new()).start(Framework::new("x"), Flooded).unwrap_err();
    assert!(error.to_string().contains("name at least one host:port"), "{error}");
    let bad_role = Framework::new("x").role("a b");
    let error = SchedulerDriver::builder(["127.0.0.1:1"]).start(bad_role, Flooded).unwrap_err();
    assert!(error.to_string().contains("white space"), "{error}");
}
