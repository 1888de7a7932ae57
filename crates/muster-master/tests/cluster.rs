//! Masters over real sockets and stores, with clients that speak the bare frames.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

use muster_master::{MasterConfig, Serving, start};
use muster_proto::{
    mesos,
    v1::{
        self, agent_down_frame::Frame as AgentDown, agent_frame::Frame as AgentUp,
        operator_service_client::OperatorServiceClient, scheduler_down_frame::Event as Down,
        scheduler_frame::Call as Up,
    },
};
use prost::Message;
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming, transport::Channel};

const PATIENCE: Duration = Duration::from_secs(30);

/// Three masters in this process, each with a directory of its own.
struct Masters {
    running: BTreeMap<String, (Serving, String)>,
    _dirs: Vec<tempfile::TempDir>,
}

impl Masters {
    async fn start(count: usize) -> Self {
        let listeners: Vec<_> =
            (0..count).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let members: BTreeMap<String, String> = listeners
            .iter()
            .enumerate()
            .map(|(n, it)| (format!("m{}", n + 1), it.local_addr().unwrap().to_string()))
            .collect();
        drop(listeners);
        let mut masters = Self { running: BTreeMap::new(), _dirs: Vec::new() };
        for (name, address) in &members {
            let dir = tempfile::tempdir().unwrap();
            let mut config = MasterConfig {
                name: name.clone(),
                members: members.clone(),
                data_dir: dir.path().into(),
                ..Default::default()
            };
            config.session.reconnect_grace_ms = 60_000;
            masters.running.insert(name.clone(), (start(config).await.unwrap(), address.clone()));
            masters._dirs.push(dir);
        }
        masters
    }

    fn addresses(&self) -> Vec<String> {
        self.running.values().map(|(_, address)| address.clone()).collect()
    }

    /// The name of the leader, once all who run agree on it.
    async fn leader(&self) -> String {
        timeout(PATIENCE, self.agreed_leader()).await.expect("a leader in time")
    }

    async fn agreed_leader(&self) -> String {
        loop {
            let mut leaders = Vec::new();
            for address in self.addresses() {
                let status = operator(&address).await.get_raft_status(v1::GetRaftStatusRequest {}).await;
                let leader = status.ok().and_then(|it| it.into_inner().leader);
                leaders.extend(leader.map(|it| it.name));
            }
            if leaders.len() == self.running.len()
                && leaders.iter().all(|it| *it == leaders[0])
                && self.running.contains_key(&leaders[0])
            {
                return leaders.remove(0);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn followers(&self) -> Vec<String> {
        let leader = self.leader().await;
        self.running.iter().filter(|(name, _)| **name != leader).map(|(_, it)| it.1.clone()).collect()
    }

    async fn stop(self) {
        for (serving, _) in self.running.into_values() {
            serving.stop().await;
        }
    }
}

async fn channel(address: &str) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

async fn operator(address: &str) -> OperatorServiceClient<Channel> {
    OperatorServiceClient::new(channel(address).await)
}

struct Scheduler {
    up: mpsc::Sender<v1::SchedulerFrame>,
    down: Streaming<v1::SchedulerDownFrame>,
    framework_id: String,
    calls: u64,
    /// Events that nobody waited for yet.
    stash: Vec<Down>,
}

impl Scheduler {
    async fn connect(address: &str) -> Self {
        let (up, frames) = mpsc::channel(16);
        let mut client = v1::scheduler_service_client::SchedulerServiceClient::new(channel(address).await);
        let down = client.session(ReceiverStream::new(frames)).await.unwrap().into_inner();
        Self { up, down, framework_id: String::new(), calls: 0, stash: Vec::new() }
    }

    async fn call(&mut self, call: Up) -> u64 {
        self.calls += 1;
        self.up.send(v1::SchedulerFrame { id: self.calls, call: Some(call) }).await.unwrap();
        self.calls
    }

    async fn event(&mut self) -> Down {
        loop {
            let frame = timeout(PATIENCE, self.down.message()).await.expect("an event in time").unwrap();
            match frame.expect("the stream is open").event.unwrap() {
                Down::Heartbeat(_) => {}
                event => return event,
            }
        }
    }

    /// The first event that is wanted, whether it came already or comes yet.
    async fn until<T>(&mut self, mut wanted: impl FnMut(Down) -> Option<T>) -> T {
        let mut seen = 0;
        let search = async {
            loop {
                if seen == self.stash.len() {
                    let event = self.event().await;
                    self.stash.push(event);
                }
                if let Some(it) = wanted(self.stash[seen].clone()) {
                    self.stash.remove(seen);
                    return it;
                }
                seen += 1;
            }
        };
        timeout(2 * PATIENCE, search).await.expect("the event in time")
    }

    async fn outcome(&mut self, id: u64) -> v1::outcome::Outcome {
        self.until(|event| match event {
            Down::Outcome(outcome) if outcome.id == id => outcome.outcome,
            _ => None,
        })
        .await
    }

    /// Waits to hear who leads, and subscribes there.
    async fn subscribe(&mut self) {
        self.until(|event| matches!(event, Down::Leader(_)).then_some(())).await;
        let info = mesos::FrameworkInfo {
            user: "root".into(),
            name: "test".into(),
            failover_timeout: Some(600.0),
            ..Default::default()
        };
        let framework_info = info.encode_to_vec().into();
        let framework_id = self.framework_id.clone();
        self.call(Up::Subscribe(v1::Subscribe { framework_id, framework_info, suppressed_roles: vec![] }))
            .await;
        self.stash.retain(|event| matches!(event, Down::Leader(_))); // of the former session
        self.framework_id = self
            .until(|event| match event {
                Down::Subscribed(it) => Some(it.framework_id),
                Down::Error(error) => panic!("{error}"),
                _ => None,
            })
            .await;
    }

    async fn offer(&mut self) -> v1::Offer {
        self.until(|event| match event {
            Down::Offers(offers) => offers.offers.into_iter().next(),
            _ => None,
        })
        .await
    }

    fn task(offer: &v1::Offer, id: &str, cpus: f64) -> mesos::TaskInfo {
        mesos::TaskInfo {
            name: id.into(),
            task_id: mesos::TaskId { value: id.into() },
            agent_id: mesos::AgentId { value: offer.agent_id.clone() },
            resources: vec![mesos::Resource {
                name: "cpus".into(),
                r#type: mesos::value::Type::Scalar.into(),
                scalar: Some(mesos::value::Scalar { value: cpus }),
                ..Default::default()
            }],
            command: Some(mesos::CommandInfo { value: Some("true".into()), ..Default::default() }),
            ..Default::default()
        }
    }

    /// Launches one task and returns what became of it.
    async fn launch(&mut self, offer: &v1::Offer, task: &mesos::TaskInfo) -> v1::accept_outcome::Task {
        let accept = v1::Accept {
            offer_ids: vec![offer.offer_id.clone()],
            task_infos: vec![task.encode_to_vec().into()],
            refuse_ms: Some(0),
        };
        let id = self.call(Up::Accept(accept)).await;
        match self.outcome(id).await {
            v1::outcome::Outcome::Accepted(mut outcome) => outcome.tasks.remove(0),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for an update of a task and acknowledges it.
    async fn update(&mut self, task: &str) -> i32 {
        let update = self
            .until(|event| match event {
                Down::Update(update) if update.task_id == task => Some(update),
                _ => None,
            })
            .await;
        let task_id = update.task_id.clone();
        self.call(Up::Acknowledge(v1::Acknowledge { task_id, uuid: update.uuid })).await;
        update.status.unwrap().state
    }
}

/// An agent that reports every task running at once, and finished when told to.
struct Agent {
    up: mpsc::Sender<v1::AgentFrame>,
    orders: mpsc::Receiver<v1::RunOrder>,
    kills: mpsc::Receiver<v1::KillOrder>,
}

impl Agent {
    /// Connects and answers hellos for as long as the stream lives, listing the tasks it was ordered to run.
    async fn connect(address: &str, machine: &str) -> Self {
        let (up, frames) = mpsc::channel(64);
        let mut client = v1::agent_service_client::AgentServiceClient::new(channel(address).await);
        let mut down = client.session(ReceiverStream::new(frames)).await.unwrap().into_inner();
        let (orders_out, orders) = mpsc::channel(64);
        let (kills_out, kills) = mpsc::channel(64);
        let (send, machine) = (up.clone(), machine.to_owned());
        tokio::spawn(async move {
            let (mut agent_id, mut tasks) = (String::new(), Vec::<v1::KnownTask>::new());
            while let Ok(Some(frame)) = down.message().await {
                let session = frame.session;
                let up = |frame| v1::AgentFrame { session, frame: Some(frame) };
                match frame.frame.unwrap() {
                    AgentDown::Leader(_) => {
                        let hello = hello(&agent_id, &machine, tasks.clone());
                        send.send(up(AgentUp::Hello(hello))).await.unwrap();
                    }
                    AgentDown::Welcome(welcome) => agent_id = welcome.agent_id,
                    AgentDown::Ping(n) => send.send(up(AgentUp::Pong(n))).await.unwrap(),
                    AgentDown::Run(order) => {
                        tasks.push(v1::KnownTask {
                            launch: order.launch,
                            framework_id: order.framework_id.clone(),
                            task_id: order.task_id.clone(),
                            state: mesos::TaskState::TaskRunning.into(),
                            alive: true,
                            resources: order.resources.clone(),
                            updates: vec![],
                        });
                        let status = status(&order, session, mesos::TaskState::TaskRunning, 1);
                        send.send(status).await.unwrap();
                        orders_out.send(order).await.unwrap();
                    }
                    AgentDown::Kill(kill) => kills_out.send(kill).await.unwrap(),
                    AgentDown::Rejected(why) => panic!("{why}"),
                    _ => {}
                }
            }
        });
        Self { up, orders, kills }
    }

    async fn order(&mut self) -> v1::RunOrder {
        timeout(PATIENCE, self.orders.recv()).await.expect("an order in time").unwrap()
    }
}

fn hello(agent_id: &str, machine: &str, tasks: Vec<v1::KnownTask>) -> v1::Hello {
    let scalar = |name: &str, value| mesos::Resource {
        name: name.into(),
        r#type: mesos::value::Type::Scalar.into(),
        scalar: Some(mesos::value::Scalar { value }),
        ..Default::default()
    };
    let info = mesos::AgentInfo {
        hostname: "host".into(),
        port: Some(5051),
        resources: vec![scalar("cpus", 4.0), scalar("mem", 1000.0)],
        ..Default::default()
    };
    v1::Hello {
        agent_id: agent_id.into(),
        machine_id: machine.into(),
        agent_info: info.encode_to_vec().into(),
        tasks,
    }
}

fn status(order: &v1::RunOrder, session: u64, state: mesos::TaskState, seq: u32) -> v1::AgentFrame {
    let mut uuid = [7; 16];
    uuid[0] = seq as u8;
    let status = v1::TaskStatus {
        state: state.into(),
        source: mesos::task_status::Source::Executor.into(),
        ..Default::default()
    };
    let update = v1::StatusUpdate {
        launch: order.launch,
        framework_id: order.framework_id.clone(),
        task_id: order.task_id.clone(),
        seq,
        uuid: uuid.to_vec().into(),
        status: Some(status),
    };
    v1::AgentFrame { session, frame: Some(AgentUp::Status(update)) }
}

const RUNNING: i32 = mesos::TaskState::TaskRunning as i32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_runs_through_links_and_outlives_the_leader() {
    let mut masters = Masters::start(3).await;
    let followers = masters.followers().await;
    // The agent and the scheduler are linked to different followers.
    let mut agent = Agent::connect(&followers[0], "machine-1").await;
    let mut scheduler = Scheduler::connect(&followers[1]).await;
    scheduler.subscribe().await;
    let framework_id = scheduler.framework_id.clone();
    let offer = scheduler.offer().await;
    let task = Scheduler::task(&offer, "t1", 1.0);
    let launched = scheduler.launch(&offer, &task).await;
    assert!(launched.launched.is_some(), "{launched:?}");
    let order = agent.order().await;
    assert_eq!(order.launch, launched.launched);
    assert_eq!(order.task_info, task.encode_to_vec(), "the description arrives as it was sent");
    assert_eq!(scheduler.update("t1").await, RUNNING);
    // The rest of the offer comes back at once.
    let rest = scheduler.offer().await;
    let cpus = rest.resources.iter().find(|it| it.name == "cpus").unwrap();
    assert_eq!(cpus.scalar.as_ref().unwrap().value, 3.0);
    // The leader stops: nobody who was linked to a follower connects anew.
    let leader = masters.leader().await;
    let (serving, _) = masters.running.remove(&leader).unwrap();
    timeout(PATIENCE, serving.stop()).await.expect("it stops");
    scheduler.subscribe().await;
    assert_eq!(scheduler.framework_id, framework_id, "the framework keeps its id");
    let offer = scheduler.offer().await;
    assert_eq!(offer.agent_id, rest.agent_id, "the agent keeps its id");
    let cpus = offer.resources.iter().find(|it| it.name == "cpus").unwrap();
    assert_eq!(cpus.scalar.as_ref().unwrap().value, 3.0, "the task still holds its part");
    // An offer of the former term is void, a repeated ACCEPT of it is answered as before, nothing starts twice.
    let again = scheduler.launch(&rest, &Scheduler::task(&rest, "t2", 1.0)).await;
    assert_eq!(again.reason, mesos::task_status::Reason::InvalidOffers as i32, "{again:?}");
    let again =
        scheduler.launch(&v1::Offer { offer_id: order_offer(&launched), ..offer.clone() }, &task).await;
    assert_eq!(again.launched, launched.launched, "the task lives under its id");
    assert!(agent.orders.try_recv().is_err(), "nothing was ordered again");
    // A kill reaches the agent.
    scheduler
        .call(Up::Kill(v1::Kill { task_id: "t1".into(), agent_id: String::new(), grace_ms: Some(5) }))
        .await;
    let kill = timeout(PATIENCE, agent.kills.recv()).await.unwrap().unwrap();
    assert_eq!((kill.launch, kill.grace_ms), (launched.launched, Some(5)));
    drop(agent.up);
    masters.stop().await;
}

/// The id of an offer that nobody knows.
fn order_offer(_: &v1::accept_outcome::Task) -> String {
    "unknown-O1-0-1".into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_frames_and_calls_are_refused_by_name() {
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    let mut scheduler = Scheduler::connect(&address).await;
    scheduler.until(|event| matches!(event, Down::Leader(_)).then_some(())).await;
    let accept = v1::Accept { offer_ids: vec!["x".into()], task_infos: vec![], refuse_ms: None };
    let id = scheduler.call(Up::Accept(accept)).await;
    match scheduler.outcome(id).await {
        v1::outcome::Outcome::Refused(why) => assert!(why.contains("subscribe first"), "{why}"),
        other => panic!("{other:?}"),
    }
    scheduler.up.send(v1::SchedulerFrame { id: 9, call: None }).await.unwrap();
    let error =
        scheduler.until(|event| if let Down::Error(error) = event { Some(error) } else { None }).await;
    assert!(error.contains("call"), "{error}");
    assert!(scheduler.down.message().await.unwrap().is_none(), "the stream ended");
    let error = operator(&address)
        .await
        .teardown(v1::TeardownRequest { framework_id: "nope".into() })
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("nope"), "{error}");
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_says_who_leads() {
    let masters = Masters::start(3).await;
    let leader = masters.leader().await;
    let follower = masters.followers().await.remove(0);
    let error = operator(&follower).await.list_agents(v1::ListAgentsRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    let hint = error.metadata().get("muster-leader").unwrap().to_str().unwrap();
    assert_eq!(hint, masters.running[&leader].1);
    let agents = operator(hint).await.list_agents(v1::ListAgentsRequest::default()).await.unwrap();
    assert!(agents.into_inner().agents.is_empty());
    masters.stop().await;
}
