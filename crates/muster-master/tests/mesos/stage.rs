//! What was there when something was recorded: masters, agents, a framework with its stream, offers, tasks.

use crate::agents::{Agent, FAKES, Kind, REAL};
use crate::ids::{Id, Ids};
use crate::seen;
use crate::story::Story;
use crate::support::{Masters, PATIENCE};
use crate::transcript::{Message, Transcript};
use crate::wire::{self, Answer};
use muster_master::{MasterConfig, Serving, start};
use muster_proto::json::Codec;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use tokio::time::timeout;

/// A state to bring a cluster to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    /// A leader and two fake agents.
    Leader,
    /// A leader and an agent with attributes.
    RealAgent,
    /// A master that does not lead, of three.
    Follower,
    /// A master that knows no leader.
    Leaderless,
    /// As `Leader`, to be changed by what is asked.
    Operated,
    /// As `Operated`, with a quota of a role.
    WithQuota,
    /// As `Operated`, with a machine in the maintenance schedule.
    Scheduled,
    /// As `Scheduled`, and the machine is down.
    Down,
    /// As `Leader`, with a framework that is subscribed and was offered both agents.
    Subscribed,
    /// The framework's t1 and t2 run on fake2, which was not acknowledged yet.
    Launched,
    /// It was acknowledged; the rest of fake2 is offered, and fake1.
    Running,
    /// As `Running`, about the offer that t1 and t2 were launched on.
    Spent,
    /// As `Running`, and t2 was killed, which was not acknowledged yet.
    Killed,
    /// A leader and a real agent, of whose tasks one runs; see [`Story`].
    Real,
    /// As `Subscribed`, then another scheduler of the framework subscribed; about the former one.
    TakenOver,
    /// As `Subscribed`, then the framework was torn down.
    TornDown,
}

impl Scene {
    /// Whether it is only looked at: what is asked and answered then changes nothing.
    pub fn is_nobodys(self) -> bool {
        matches!(self, Self::Leader | Self::RealAgent | Self::Follower | Self::Leaderless | Self::Real)
    }
}

/// A cluster in that state.
pub struct Stage {
    /// The master to ask.
    pub address: String,
    /// The one that leads.
    pub leader: String,
    pub ids: Ids,
    /// The framework's stream, if it has one.
    pub stream: Option<Stream>,
    /// Of a real agent.
    pub story: Option<Story>,
    framework: Option<Framework>,
    offers: BTreeMap<String, String>,
    uuid: Option<String>,
    masters: Masters,
    /// The only one of its masters that runs.
    alone: Option<(Serving, tempfile::TempDir)>,
    _agents: Vec<Agent>,
}

#[derive(Debug, Clone)]
struct Framework {
    id: String,
    stream_id: String,
}

/// A scheduler's stream that is open.
pub struct Stream {
    answer: Answer,
    codec: Codec,
    waiting: VecDeque<Value>,
    /// All that came, in order.
    pub log: Vec<Value>,
}

impl Stream {
    pub fn of(answer: Answer) -> Self {
        let codec = seen::codec(answer.head.header("Content-Type"));
        Self { answer, codec, waiting: VecDeque::new(), log: Vec::new() }
    }

    /// The next event; none when the stream ended in order.
    pub async fn next(&mut self) -> Result<Option<Value>, String> {
        if let Some(event) = self.waiting.pop_front() {
            return Ok(Some(event));
        }
        let event = self.answer.chunk().await?.map(|chunk| seen::event(self.codec, &chunk));
        self.log.extend(event.clone());
        Ok(event)
    }

    /// The first event that is wanted; those before it are passed over.
    pub async fn until<T>(&mut self, wanted: impl Fn(&Value) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.next().await.unwrap().expect("the stream is open");
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("it is told in time")
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// An address that nobody has, and what keeps it.
fn free() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

async fn alone(config: MasterConfig) -> (Serving, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let serving = start(MasterConfig { data_dir: dir.path().into(), ..config }).await.unwrap();
    (serving, dir)
}

impl Stage {
    pub async fn set(scene: Scene) -> Self {
        let mut stage = match scene {
            Scene::Leaderless => return Self::leaderless().await,
            Scene::Follower => return Self::masters(3, &[]).await,
            Scene::RealAgent => return Self::masters(1, &[REAL]).await,
            Scene::Real => return Self::told_the_story().await,
            _ => Self::masters(1, &FAKES).await,
        };
        let before: &[&str] = match scene {
            Scene::WithQuota => &["op-UPDATE_QUOTA"],
            Scene::Scheduled => &["op-UPDATE_MAINTENANCE_SCHEDULE"],
            Scene::Down => &["op-UPDATE_MAINTENANCE_SCHEDULE", "op-START_MAINTENANCE"],
            _ => &[],
        };
        for name in before {
            stage.operate(name).await;
        }
        if matches!(scene, Scene::Leader | Scene::Operated) || !before.is_empty() {
            return stage;
        }
        stage.subscribe().await;
        match scene {
            Scene::TakenOver => stage.take_over().await,
            Scene::TornDown => stage.call(json!({ "type": "TEARDOWN" })).await,
            Scene::Launched | Scene::Running | Scene::Spent | Scene::Killed => {
                let launched_on = stage.offers["fake2"].clone();
                stage.launch().await;
                if scene != Scene::Launched {
                    stage.settle().await;
                }
                if scene == Scene::Spent {
                    stage.offers.insert("fake2".into(), launched_on);
                }
                if scene == Scene::Killed {
                    stage.call(json!({ "type": "KILL", "kill": { "task_id": { "value": "t2" } } })).await;
                    stage.uuid = Some(text(&stage.update("t2").await["uuid"]));
                }
            }
            _ => {}
        }
        stage
    }

    pub async fn end(self) {
        drop((self.stream, self.story));
        if let Some((serving, _dir)) = self.alone {
            serving.stop().await;
        }
        self.masters.stop().await;
    }

    pub async fn masters(count: usize, kinds: &[Kind]) -> Self {
        let masters = Masters::start(count).await;
        let leader = masters.address(&masters.leader().await);
        let address = match count {
            1 => leader.clone(),
            _ => masters.followers().await.remove(0),
        };
        // It is told who leads a little after it could say so to the other masters.
        while wire::send(&address, b"GET /redirect HTTP/1.1\r\nHost: m\r\n\r\n")
            .await
            .head
            .line
            .contains("503")
        {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let mut agents = Vec::new();
        for kind in kinds {
            agents.push(Agent::connect(&leader, *kind).await);
        }
        let hosts =
            agents.iter().zip(kinds).map(|(agent, kind)| (agent.id.clone(), kind.hostname.to_owned()));
        let ids = Ids::of(hosts.collect());
        Self { address, leader, ids, _agents: agents, ..Self::of(masters) }
    }

    fn of(masters: Masters) -> Self {
        Self {
            address: String::new(),
            leader: "nobody".into(),
            ids: Ids::default(),
            stream: None,
            story: None,
            framework: None,
            offers: BTreeMap::new(),
            uuid: None,
            masters,
            alone: None,
            _agents: Vec::new(),
        }
    }

    /// One of three, of whom the others never come.
    async fn leaderless() -> Self {
        let mut stage = Self::of(Masters::start(0).await);
        let addresses = [free(), free(), free()];
        let members: BTreeMap<String, String> =
            (1..).zip(&addresses).map(|(n, it)| (format!("m{n}"), it.1.clone())).collect();
        stage.address = members["m2"].clone();
        drop(addresses);
        stage.alone = Some(alone(MasterConfig { name: "m2".into(), members, ..Default::default() }).await);
        stage
    }

    /// A single master that tells schedulers so often that it lives.
    pub async fn with_heartbeats(heartbeat_ms: u64) -> Self {
        let mut stage = Self::of(Masters::start(0).await);
        let mut config = MasterConfig::default();
        let (listener, address) = free();
        drop(listener);
        config.members.insert("m1".into(), address.clone());
        config.session.heartbeat_ms = heartbeat_ms;
        stage.alone = Some(alone(config).await);
        stage.address = address;
        stage
    }

    /// Asks what was recorded of an operator.
    async fn operate(&self, name: &str) {
        let request = Transcript::named(name).only().request.clone();
        let answer = wire::send(&self.address, &request.to_bytes()).await.whole().await;
        assert_eq!(answer.status(), 200, "{name}: {answer:?}");
    }

    /// Subscribes with the bytes that were recorded, and waits for offers of all agents.
    async fn subscribe(&mut self) {
        let request = Transcript::named("sched-subscribe-json").only().request.clone();
        self.subscribe_with(&request, FAKES.map(|kind| kind.hostname)).await;
    }

    /// Subscribes with this, and waits for offers of these agents.
    pub async fn subscribe_with(&mut self, request: &Message, hosts: impl IntoIterator<Item = &str>) {
        let (framework, stream) = self.subscribed(request).await;
        (self.framework, self.stream) = (Some(framework), Some(stream));
        self.offered(hosts).await;
    }

    async fn subscribed(&self, request: &Message) -> (Framework, Stream) {
        let answer = self.led(request).await;
        let stream_id = answer.head.header("Mesos-Stream-Id").expect("a stream has an id").to_owned();
        let mut stream = Stream::of(answer);
        let id = stream
            .until(|event| {
                assert_ne!(event["type"], "ERROR", "{event}");
                let id = &event["subscribed"]["framework_id"]["value"];
                id.as_str().map(str::to_owned)
            })
            .await;
        (Framework { id, stream_id }, stream)
    }

    /// Sends a SUBSCRIBE once somebody leads.
    pub async fn led(&self, subscribe: &Message) -> Answer {
        let answered = async {
            loop {
                let answer = wire::send(&self.address, &subscribe.to_bytes()).await;
                if answer.head.status() != 503 {
                    break answer;
                }
            }
        };
        let answer = timeout(PATIENCE, answered).await.expect("a leader in time");
        assert_eq!(answer.head.status(), 200, "{:?}", answer.head);
        answer
    }

    /// Another scheduler takes the framework's id over. What is called goes by the former stream's id.
    async fn take_over(&mut self) {
        let request = Transcript::named("sched-subscribe-removed-id").only().request.clone();
        let request = self.request(&request);
        let (_, stream) = self.subscribed(&request).await;
        let mut former = self.stream.replace(stream).expect("there was one");
        let why = former.until(|event| event["error"]["message"].as_str().map(str::to_owned)).await;
        assert_eq!(why, "Framework failed over");
        assert_eq!(former.next().await, Ok(None), "the former stream ends");
    }

    /// Waits until these agents are offered, and takes note of the offers.
    pub async fn offered(&mut self, hosts: impl IntoIterator<Item = &str>) {
        for host in hosts {
            let stream = self.stream.as_mut().expect("a stream is open");
            while !self.offers.contains_key(host) {
                let offers = stream.until(|event| event["offers"]["offers"].as_array().cloned()).await;
                let named = |offer: &Value| (text(&offer["hostname"]), text(&offer["id"]["value"]));
                self.offers.extend(offers.iter().map(named));
            }
        }
    }

    /// The offer of an agent, which is used.
    pub fn take_offer(&mut self, host: &str) -> String {
        self.offers.remove(host).expect("it was offered")
    }

    pub fn forget_offers(&mut self) {
        self.offers.clear();
    }

    /// Launches t1 and t2 with the bytes that were recorded.
    async fn launch(&mut self) {
        let request = Transcript::named("sched-accept-launch").only().request.clone();
        let request = self.request(&request);
        let answer = wire::send(&self.address, &request.to_bytes()).await.whole().await;
        assert_eq!(answer.status(), 202, "{answer:?}");
        self.offers.remove("fake2");
        let status = self.update("t1").await;
        self.uuid = Some(text(&status["uuid"]));
    }

    /// Acknowledges that t1 and t2 run, and waits for the offer of what they leave.
    async fn settle(&mut self) {
        // Both updates go by in whatever order, so they are told again to whoever asks.
        for task in ["t1", "t2"] {
            let uuid = match (task, &self.uuid) {
                ("t1", Some(uuid)) => uuid.clone(),
                _ => text(&self.update(task).await["uuid"]),
            };
            let agent_id = self.agent_id("fake2");
            let acknowledge =
                json!({ "agent_id": { "value": agent_id }, "task_id": { "value": task }, "uuid": uuid });
            self.call(json!({ "type": "ACKNOWLEDGE", "acknowledge": acknowledge })).await;
        }
        self.uuid = None;
        self.offered(["fake2"]).await;
    }

    /// Waits for an update of a task. Events of other kinds or tasks are kept for later.
    pub async fn update(&mut self, task: &str) -> Value {
        let stream = self.stream.as_mut().expect("a stream is open");
        let mut passed = VecDeque::new();
        let told = async {
            loop {
                let event = stream.next().await.unwrap().expect("the stream is open");
                let status = &event["update"]["status"];
                if status["task_id"]["value"] == task {
                    return status.clone();
                }
                passed.push_back(event);
            }
        };
        let status = timeout(PATIENCE, told).await.unwrap_or_else(|_| panic!("{task} is told of in time"));
        passed.append(&mut stream.waiting);
        stream.waiting = passed;
        status
    }

    fn agent_id(&self, host: &str) -> String {
        self.ids.agent(host).expect("the agent is there")
    }

    /// Makes a call of the framework, which is accepted.
    pub async fn call(&self, mut call: Value) {
        let framework = self.framework.as_ref().expect("a framework is there");
        call["framework_id"] = json!({ "value": framework.id });
        let body = call.to_string();
        let head = format!(
            "POST /api/v1/scheduler HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Mesos-Stream-Id: {}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            framework.stream_id,
            body.len()
        );
        let answer = wire::send(&self.address, [head, body].concat().as_bytes()).await.whole().await;
        assert_eq!(answer.status(), 202, "{call}: {answer:?}");
    }

    /// A recorded request, with the ids that there are here.
    pub fn request(&self, recorded: &Message) -> Message {
        let mut request = recorded.clone();
        let Ok(body) = std::str::from_utf8(recorded.whole()) else { return request };
        let ids = Ids::recorded();
        // The offer of the agent that is named; an ACCEPT or DECLINE that names none was about fake1's, or the only one's.
        let mut host = self.offers.keys().next().cloned().unwrap_or_default();
        ids.swap(body, |text, id| {
            if let Id::Agent(Some(named)) = id {
                host = named;
            }
            text.into()
        });
        let mut body = ids.swap(body, |recorded, id| {
            let ours = match id {
                Id::Framework => self.framework.as_ref().map(|it| it.id.clone()),
                Id::Offer => self.offers.get(&host).cloned(),
                Id::Agent(Some(host)) => self.ids.agent(&host),
                Id::Agent(None) | Id::Bare => None,
            };
            ours.unwrap_or_else(|| recorded.into())
        });
        if let Some(uuid) = &self.uuid {
            const KEY: &str = r#""uuid": ""#;
            if let Some(at) = body.find(KEY) {
                let start = at + KEY.len();
                let end = start + body[start..].find('"').expect("a text ends");
                body.replace_range(start..end, uuid);
            }
        }
        if let Some(framework) = &self.framework {
            request.set_header("Mesos-Stream-Id", &framework.stream_id);
        }
        if !recorded.whole().is_empty() {
            request.set_body(body.into_bytes());
        }
        request
    }
}

/// Events of the framework's stream.
impl Stage {
    /// All that was told before this, offers of this moment perhaps not. It is asked of a task that nobody knows, and
    /// its answer is waited for.
    pub async fn told(&mut self) -> Result<Vec<Value>, String> {
        const NOBODYS: &str = "nobody's";
        let tasks = json!({ "tasks": [{ "task_id": { "value": NOBODYS } }] });
        self.call(json!({ "type": "RECONCILE", "reconcile": tasks })).await;
        let stream = self.stream.as_mut().expect("a stream is open");
        let mut told = Vec::new();
        loop {
            let event = stream.next().await?.ok_or("the stream ended")?;
            if event["update"]["status"]["task_id"]["value"] == NOBODYS {
                return Ok(told);
            }
            told.push(event);
        }
    }
}
