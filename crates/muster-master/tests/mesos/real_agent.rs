//! The agent that the real one of the transcripts was: it says of each task what that one said, when the test wants it.

use crate::agents::{REAL, hello};
use crate::support::{PATIENCE, channel};
use crate::transcript::{Body, Transcript, record};
use muster_proto::json::Codec;
use muster_proto::mesos;
use muster_proto::v1::{self, agent_down_frame::Frame as Down, agent_frame::Frame as Up};
use prost::Message;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;

/// Where operators were told of all tasks, whole.
const TOLD: [&str; 2] = ["op-events-real-tasks", "op-events-rest"];

/// What was said of each task, in order.
fn recorded() -> BTreeMap<String, VecDeque<mesos::TaskStatus>> {
    let mut said = BTreeMap::<String, VecDeque<_>>::new();
    for name in TOLD {
        let Some(Body::Chunks(chunks, _)) = Transcript::named(name).events else {
            panic!("{name}: no events")
        };
        for chunk in &chunks {
            let event: Value = serde_json::from_slice(record(chunk)).unwrap();
            let status = &event["task_updated"]["status"];
            if let Some(task) = status["task_id"]["value"].as_str() {
                let event = serde_json::json!({ "type": "UPDATE", "update": { "status": status } });
                let event: mesos::scheduler::Event = Codec::Json.read(event.to_string().as_bytes()).unwrap();
                said.entry(task.to_owned()).or_default().push_back(event.update.unwrap().status);
            }
        }
    }
    said
}

/// What it was ordered.
#[derive(Debug)]
pub enum Order {
    Run(String),
    Kill(String),
}

enum Came {
    Welcome(String, u64),
    Run(v1::RunOrder),
    Kill(v1::KillOrder),
}

/// It is connected for as long as this is.
pub struct RealAgent {
    pub id: String,
    session: u64,
    up: mpsc::Sender<v1::AgentFrame>,
    came: mpsc::Receiver<Came>,
    /// What is left to say of each task.
    left: BTreeMap<String, VecDeque<mesos::TaskStatus>>,
    runs: BTreeMap<String, (v1::RunOrder, u32)>,
}

impl RealAgent {
    pub async fn connect(address: &str) -> Self {
        let (up, frames) = mpsc::channel(64);
        let mut client = v1::agent_service_client::AgentServiceClient::new(channel(address).await);
        let down = client.session(ReceiverStream::new(frames)).await.unwrap().into_inner();
        let (tell, mut came) = mpsc::channel(64);
        tokio::spawn(serve(down, up.clone(), tell));
        let first = timeout(PATIENCE, came.recv()).await.expect("a welcome in time");
        let Some(Came::Welcome(id, session)) = first else { panic!("no welcome") };
        Self { id, session, up, came, left: recorded(), runs: BTreeMap::new() }
    }

    /// The next order.
    pub async fn ordered(&mut self) -> Order {
        match timeout(PATIENCE, self.came.recv()).await.expect("an order in time") {
            Some(Came::Run(run)) => {
                let task = run.task_id.clone();
                self.runs.insert(task.clone(), (run, 0));
                Order::Run(task)
            }
            Some(Came::Kill(kill)) => Order::Kill(kill.task_id),
            Some(Came::Welcome(..)) | None => panic!("the master does not welcome it twice, nor leave it"),
        }
    }

    /// Says what was said next of a task; false when that was all.
    pub async fn say_next(&mut self, task: &str) -> bool {
        let (run, seq) = self.runs.get_mut(task).expect("it was ordered");
        let Some(status) = self.left.get_mut(task).and_then(VecDeque::pop_front) else { return false };
        *seq += 1;
        let update = v1::StatusUpdate {
            launch: run.launch,
            framework_id: run.framework_id.clone(),
            task_id: task.to_owned(),
            seq: *seq,
            uuid: status.uuid.clone().expect("an agent's status has one"),
            status: Some(v1::TaskStatus {
                state: status.state,
                source: status.source.unwrap(),
                reason: status.reason,
                message: status.message.clone().unwrap_or_default(),
                wall_ms: (status.timestamp.unwrap() * 1000.0) as u64,
                task_status: status.encode_to_vec().into(),
            }),
        };
        self.send(Up::Status(update)).await;
        true
    }

    /// Whether it said more of a task before it was told to kill it.
    pub fn has_more_of_its_own_accord(&self, task: &str) -> bool {
        let next = self.left.get(task).and_then(VecDeque::front);
        next.is_some_and(|status| status.state() != mesos::TaskState::TaskKilling)
    }

    /// The executor that was started for a task lives, or ended with this status.
    pub async fn executor(&mut self, task: &str, ended: Option<i32>) {
        let (run, _) = &self.runs[task];
        let executor = v1::KnownExecutor {
            number: run.launch,
            framework_id: run.framework_id.clone(),
            executor_id: "dex".into(),
            resources: Vec::new(),
            ended,
        };
        self.send(Up::Executors(v1::KnownExecutors { executors: vec![executor], all: false })).await;
    }

    async fn send(&self, frame: Up) {
        let frame = v1::AgentFrame { session: self.session, frame: Some(frame), ..Default::default() };
        self.up.send(frame).await.unwrap();
    }
}

async fn serve(
    mut down: tonic::Streaming<v1::AgentDownFrame>,
    up: mpsc::Sender<v1::AgentFrame>,
    tell: mpsc::Sender<Came>,
) {
    // Until the master ends, or the test does.
    while let Ok(Some(frame)) = down.message().await {
        let session = frame.session;
        let said = match frame.frame.unwrap() {
            Down::Leader(_) => Err(Up::Hello(hello(REAL))),
            Down::Ping(n) => Err(Up::Pong(n)),
            Down::Welcome(welcome) => Ok(Came::Welcome(welcome.agent_id, session)),
            Down::Run(run) => Ok(Came::Run(run)),
            Down::Kill(kill) => Ok(Came::Kill(kill)),
            _ => continue,
        };
        let is_heard = match said {
            Ok(came) => tell.send(came).await.is_ok(),
            Err(frame) => {
                let frame = v1::AgentFrame { session, frame: Some(frame), ..Default::default() };
                up.send(frame).await.is_ok()
            }
        };
        if !is_heard {
            return;
        }
    }
}
