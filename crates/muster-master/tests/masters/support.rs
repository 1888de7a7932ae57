//! Masters in this process, over real sockets and stores, and clients that speak the bare frames.
#![allow(unreachable_pub)]

#[path = "../../../muster-raft/tests/support/proxy.rs"]
mod proxy;

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
use proxy::Wire;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

pub const PATIENCE: Duration = Duration::from_secs(30);

/// Masters in this process, each with a directory of its own.
pub struct Masters {
    pub running: BTreeMap<String, (Serving, String)>,
    /// Wires between masters, by who dials whom: their clients come in beside them.
    wires: BTreeMap<(String, String), Wire>,
    _dirs: Vec<tempfile::TempDir>,
}

impl Masters {
    /// Masters that keep their leader through seconds in which it stands still, until it ends.
    pub async fn start(count: usize) -> Self {
        Self::configured(count, |_| {}).await
    }

    /// The same with a wire between any two, which can be cut.
    pub async fn wired(count: usize) -> Self {
        Self::start_with(count, true, steady).await
    }

    /// The same, and a leader that is cut off is replaced soon, but none that a busy machine keeps waiting.
    pub async fn quick(count: usize) -> Self {
        let change = |config: &mut MasterConfig| {
            (config.raft.election_ms_min, config.raft.election_ms_max) = (600, 900);
        };
        Self::start_with(count, true, change).await
    }

    /// Masters as [`Self::start`] has them, with other settings.
    pub async fn configured(count: usize, change: impl Fn(&mut MasterConfig)) -> Self {
        let change = |config: &mut MasterConfig| {
            steady(config);
            change(config);
        };
        Self::start_with(count, false, change).await
    }

    async fn start_with(count: usize, wired: bool, change: impl Fn(&mut MasterConfig)) -> Self {
        let listeners: Vec<_> = (0..count).map(|_| listener()).collect();
        let members: BTreeMap<String, String> = listeners
            .iter()
            .enumerate()
            .map(|(n, it)| (format!("m{}", n + 1), it.local_addr().unwrap().to_string()))
            .collect();
        drop(listeners);
        let mut masters = Self { running: BTreeMap::new(), wires: BTreeMap::new(), _dirs: Vec::new() };
        for (name, address) in &members {
            let dir = tempfile::tempdir().unwrap();
            let mut config =
                MasterConfig { name: name.clone(), data_dir: dir.path().into(), ..Default::default() };
            config.members.clear();
            for (other, target) in &members {
                let mut seen = target.clone();
                if wired && other != name {
                    let wire = Wire::to(seen).await;
                    seen = wire.address.clone();
                    masters.wires.insert((name.clone(), other.clone()), wire);
                }
                config.members.insert(other.clone(), seen);
            }
            config.session.reconnect_grace_ms = 60_000;
            change(&mut config);
            masters.running.insert(name.clone(), (start(config).await.unwrap(), address.clone()));
            masters._dirs.push(dir);
        }
        masters
    }

    /// Cuts the wires for which this holds of who dials whom, and heals the others.
    pub fn cut(&self, which: impl Fn(&str, &str) -> bool) {
        for ((from, to), wire) in &self.wires {
            if which(from, to) { wire.cut() } else { wire.heal() }
        }
    }

    pub fn address(&self, name: &str) -> String {
        self.running[name].1.clone()
    }

    pub fn addresses(&self) -> Vec<String> {
        self.running.values().map(|(_, address)| address.clone()).collect()
    }

    /// The name of the leader, once it serves.
    pub async fn serving(&self) -> String {
        let leader = self.leader().await;
        let channel = Channel::from_shared(format!("http://{}", self.address(&leader))).unwrap();
        let mut health = HealthClient::new(channel.connect().await.unwrap());
        let service = HealthCheckRequest { service: "muster.v1.SchedulerService".into() };
        let mut states = health.watch(service).await.unwrap().into_inner();
        let serves = async {
            while states.message().await.unwrap().expect("it says more").status() != ServingStatus::Serving {}
        };
        timeout(PATIENCE, serves).await.expect("it serves in time");
        leader
    }

    /// The name of the leader, once all who run agree on it.
    pub async fn leader(&self) -> String {
        timeout(PATIENCE, self.agreed_leader()).await.expect("a leader in time")
    }

    pub async fn agreed_leader(&self) -> String {
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

    pub async fn followers(&self) -> Vec<String> {
        let leader = self.leader().await;
        self.running.iter().filter(|(name, _)| **name != leader).map(|(_, it)| it.1.clone()).collect()
    }

    pub async fn stop(self) {
        for (serving, _) in self.running.into_values() {
            serving.stop().await;
        }
    }
}

fn steady(config: &mut MasterConfig) {
    (config.raft.election_ms_min, config.raft.election_ms_max) = (2_500, 3_000);
}

/// A listener on a port that the kernel does not hand to outgoing connections: one of those would take it before a
/// master does.
fn listener() -> std::net::TcpListener {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next().and_then(|first| first.parse::<u16>().ok());
    let ports = u64::from(first.unwrap_or(32_768).saturating_sub(10_240).max(1_000));
    let chance = std::hash::RandomState::new();
    let port = |n: u32| 10_240 + std::hash::BuildHasher::hash_one(&chance, n) % ports;
    let bound = (0..1_000).find_map(|n| std::net::TcpListener::bind(("127.0.0.1", port(n) as u16)).ok());
    bound.expect("a free port")
}

pub async fn channel(address: &str) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

pub async fn operator(address: &str) -> OperatorServiceClient<Channel> {
    OperatorServiceClient::new(channel(address).await)
}

pub struct Scheduler {
    pub up: mpsc::Sender<v1::SchedulerFrame>,
    pub down: Streaming<v1::SchedulerDownFrame>,
    pub framework_id: String,
    pub calls: u64,
    /// Events that nobody waited for yet.
    pub stash: Vec<Down>,
}

impl Scheduler {
    pub async fn connect(address: &str) -> Self {
        Self::connect_on(channel(address).await).await
    }

    /// One that takes no more than this many bytes before it reads.
    pub async fn connect_with_window(address: &str, window: u32) -> Self {
        let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
        let endpoint = endpoint.initial_stream_window_size(window).initial_connection_window_size(window);
        Self::connect_on(endpoint.connect().await.unwrap()).await
    }

    async fn connect_on(channel: Channel) -> Self {
        let (up, frames) = mpsc::channel(16);
        let mut client = v1::scheduler_service_client::SchedulerServiceClient::new(channel);
        let down = client.session(ReceiverStream::new(frames)).await.unwrap().into_inner();
        Self { up, down, framework_id: String::new(), calls: 0, stash: Vec::new() }
    }

    pub async fn call(&mut self, call: Up) -> u64 {
        self.calls += 1;
        self.up
            .send(v1::SchedulerFrame { id: self.calls, call: Some(call), ..Default::default() })
            .await
            .unwrap();
        self.calls
    }

    pub async fn event(&mut self) -> Down {
        loop {
            let frame = timeout(PATIENCE, self.down.message()).await.expect("an event in time").unwrap();
            match frame.expect("the stream is open").event.unwrap() {
                Down::Heartbeat(_) => {}
                event => return event,
            }
        }
    }

    /// The first event that is wanted, whether it came already or comes yet.
    pub async fn until<T>(&mut self, mut wanted: impl FnMut(Down) -> Option<T>) -> T {
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

    pub async fn outcome(&mut self, id: u64) -> v1::outcome::Outcome {
        self.until(|event| match event {
            Down::Outcome(outcome) if outcome.id == id => outcome.outcome,
            _ => None,
        })
        .await
    }

    /// Waits to hear who leads, and subscribes there.
    pub async fn subscribe(&mut self) {
        self.until(|event| matches!(event, Down::Leader(_)).then_some(())).await;
        self.answer().await;
    }

    /// Answers the word of who leads, and again when that changes before the answer is taken.
    async fn answer(&mut self) {
        let info = mesos::FrameworkInfo {
            user: "root".into(),
            name: "test".into(),
            failover_timeout: Some(600.0),
            ..Default::default()
        };
        loop {
            self.call(Up::Subscribe(v1::Subscribe {
                framework_id: self.framework_id.clone(),
                framework_info: info.encode_to_vec().into(),
                ..Default::default()
            }))
            .await;
            self.stash.retain(|event| matches!(event, Down::Leader(_))); // of the former session
            let taken = self.until(|event| match event {
                Down::Subscribed(it) => Some(Some(it.framework_id)),
                Down::Leader(_) => Some(None),
                Down::Error(error) => panic!("{error}"),
                _ => None,
            });
            if let Some(framework_id) = taken.await {
                self.framework_id = framework_id;
                return;
            }
        }
    }

    /// An offer of whoever leads: leaders may change again before there is one.
    pub async fn offer(&mut self) -> v1::Offer {
        loop {
            let came = self.until(|event| match event {
                Down::Offers(offers) => Some(offers.offers.into_iter().next()),
                Down::Leader(_) => Some(None),
                _ => None,
            });
            match came.await {
                Some(offer) => return offer,
                None => self.answer().await,
            }
        }
    }

    pub fn task(offer: &v1::Offer, id: &str, cpus: f64) -> mesos::TaskInfo {
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
    pub async fn launch(&mut self, offer: &v1::Offer, task: &mesos::TaskInfo) -> v1::accept_outcome::Task {
        let accept = v1::Accept {
            offer_ids: vec![offer.offer_id.clone()],
            task_infos: vec![task.encode_to_vec().into()],
            refuse_ms: Some(0),
            ..Default::default()
        };
        let id = self.call(Up::Accept(accept)).await;
        match self.outcome(id).await {
            v1::outcome::Outcome::Accepted(mut outcome) => outcome.tasks.remove(0),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for an update of a task and acknowledges it.
    pub async fn update(&mut self, task: &str) -> i32 {
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
pub struct Agent {
    pub up: mpsc::Sender<v1::AgentFrame>,
    pub orders: mpsc::Receiver<v1::RunOrder>,
    pub kills: mpsc::Receiver<v1::KillOrder>,
    /// The newest session that it was told of.
    session: Arc<AtomicU64>,
}

impl Agent {
    /// Connects and answers hellos for as long as the stream lives, listing the tasks it was ordered to run.
    pub async fn connect(address: &str, machine: &str) -> Self {
        Self::connect_with(address, machine, default_resources()).await
    }

    /// The same, of an agent that has these resources.
    pub async fn connect_with(address: &str, machine: &str, resources: Vec<mesos::Resource>) -> Self {
        let (up, frames) = mpsc::channel(64);
        let mut client = v1::agent_service_client::AgentServiceClient::new(channel(address).await);
        let mut down = client.session(ReceiverStream::new(frames)).await.unwrap().into_inner();
        let (orders_out, orders) = mpsc::channel(64);
        let (kills_out, kills) = mpsc::channel(64);
        let (send, machine) = (up.clone(), machine.to_owned());
        let newest = Arc::new(AtomicU64::new(0));
        let told = newest.clone();
        tokio::spawn(async move {
            let (mut agent_id, mut tasks) = (String::new(), Vec::<v1::KnownTask>::new());
            while let Ok(Some(frame)) = down.message().await {
                let session = frame.session;
                told.store(session, Ordering::Relaxed);
                let up = |frame| v1::AgentFrame { session, frame: Some(frame), ..Default::default() };
                match frame.frame.unwrap() {
                    AgentDown::Leader(_) => {
                        let hello = hello(&agent_id, &machine, tasks.clone(), resources.clone());
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
        Self { up, orders, kills, session: newest }
    }

    /// Reports that an ordered task was killed, once it is told to kill it.
    pub async fn kill(&mut self, order: &v1::RunOrder) -> v1::KillOrder {
        let kill = timeout(PATIENCE, self.kills.recv()).await.expect("a kill in time").unwrap();
        let session = self.session.load(Ordering::Relaxed);
        self.up.send(status(order, session, mesos::TaskState::TaskKilled, 2)).await.unwrap();
        kill
    }

    /// Says something else in its newest session.
    pub async fn say(&self, frame: AgentUp) {
        let session = self.session.load(Ordering::Relaxed);
        self.up.send(v1::AgentFrame { session, frame: Some(frame), ..Default::default() }).await.unwrap();
    }

    pub async fn order(&mut self) -> v1::RunOrder {
        timeout(PATIENCE, self.orders.recv()).await.expect("an order in time").unwrap()
    }
}

fn default_resources() -> Vec<mesos::Resource> {
    let scalar = |name: &str, value| mesos::Resource {
        name: name.into(),
        r#type: mesos::value::Type::Scalar.into(),
        scalar: Some(mesos::value::Scalar { value }),
        ..Default::default()
    };
    vec![scalar("cpus", 4.0), scalar("mem", 1000.0)]
}

fn hello(
    agent_id: &str,
    machine: &str,
    tasks: Vec<v1::KnownTask>,
    resources: Vec<mesos::Resource>,
) -> v1::Hello {
    let info =
        mesos::AgentInfo { hostname: "host".into(), port: Some(5051), resources, ..Default::default() };
    v1::Hello {
        agent_id: agent_id.into(),
        machine_id: machine.into(),
        agent_info: info.encode_to_vec().into(),
        tasks,
        ..Default::default()
    }
}

pub fn status(order: &v1::RunOrder, session: u64, state: mesos::TaskState, seq: u32) -> v1::AgentFrame {
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
    v1::AgentFrame { session, frame: Some(AgentUp::Status(update)), ..Default::default() }
}

pub const RUNNING: i32 = mesos::TaskState::TaskRunning as i32;
