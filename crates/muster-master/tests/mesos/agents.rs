//! Agents as the recorder's were: they report every task running, and killed when told to.

use crate::support::{PATIENCE, channel};
use muster_proto::mesos;
use muster_proto::v1::{self, agent_down_frame::Frame as Down, agent_frame::Frame as Up};
use prost::Message;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;

/// An agent of the transcripts.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub hostname: &'static str,
    pub port: i32,
    pub attributes: &'static [(&'static str, &'static str)],
}

/// The two fake ones, in the order in which they were counted.
pub const FAKES: [Kind; 2] = [
    Kind { hostname: "fake2", port: 5151, attributes: &[] },
    Kind { hostname: "fake1", port: 5151, attributes: &[] },
];
/// The real one.
pub const REAL: Kind =
    Kind { hostname: "127.0.0.1", port: 5051, attributes: &[("rack", "r1"), ("zone", "a")] };

/// A connected agent.
pub struct Agent {
    pub id: String,
    /// It is there for as long as this is.
    _up: mpsc::Sender<v1::AgentFrame>,
}

impl Agent {
    /// Connects and waits to be welcomed.
    pub async fn connect(address: &str, kind: Kind) -> Self {
        let (up, frames) = mpsc::channel(64);
        let mut client = v1::agent_service_client::AgentServiceClient::new(channel(address).await);
        let down = client.session(ReceiverStream::new(frames)).await.unwrap().into_inner();
        let (welcomed, mut id) = mpsc::channel(1);
        tokio::spawn(serve(down, up.clone(), kind, welcomed));
        let id = timeout(PATIENCE, id.recv()).await.expect("a welcome in time").expect("a welcome");
        Self { id, _up: up }
    }
}

async fn serve(
    mut down: tonic::Streaming<v1::AgentDownFrame>,
    up: mpsc::Sender<v1::AgentFrame>,
    kind: Kind,
    welcomed: mpsc::Sender<String>,
) {
    // Until the master ends, or the test does.
    while let Ok(Some(frame)) = down.message().await {
        let session = frame.session;
        let answer = match frame.frame.unwrap() {
            Down::Leader(_) => Up::Hello(hello(kind)),
            Down::Welcome(welcome) => {
                let _ = welcomed.send(welcome.agent_id).await; // only the first one is waited for
                continue;
            }
            Down::Ping(n) => Up::Pong(n),
            Down::Run(order) => {
                let task = (order.framework_id, order.task_id);
                status(order.launch, task, 1, mesos::TaskState::TaskRunning)
            }
            Down::Kill(kill) => {
                let task = (kill.framework_id, kill.task_id);
                status(kill.launch, task, 2, mesos::TaskState::TaskKilled)
            }
            Down::Rejected(why) => panic!("{why}"),
            _ => continue,
        };
        let frame = v1::AgentFrame { session, frame: Some(answer), ..Default::default() };
        if up.send(frame).await.is_err() {
            return;
        }
    }
}

pub fn hello(kind: Kind) -> v1::Hello {
    use mesos::value::Type;
    let scalar = |name: &str, value| mesos::Resource {
        name: name.into(),
        r#type: Type::Scalar.into(),
        scalar: Some(mesos::value::Scalar { value }),
        ..Default::default()
    };
    let ports = mesos::Resource {
        name: "ports".into(),
        r#type: Type::Ranges.into(),
        ranges: Some(mesos::value::Ranges {
            range: vec![mesos::value::Range { begin: 31_000, end: 32_000 }],
        }),
        ..Default::default()
    };
    let attribute = |(name, text): &(&str, &str)| mesos::Attribute {
        name: (*name).into(),
        r#type: Type::Text.into(),
        text: Some(mesos::value::Text { value: (*text).into() }),
        ..Default::default()
    };
    let info = mesos::AgentInfo {
        hostname: kind.hostname.into(),
        port: Some(kind.port),
        resources: vec![ports, scalar("cpus", 8.0), scalar("mem", 16_384.0), scalar("disk", 10_000.0)],
        attributes: kind.attributes.iter().map(attribute).collect(),
        ..Default::default()
    };
    v1::Hello {
        machine_id: kind.hostname.into(),
        agent_info: info.encode_to_vec().into(),
        ..Default::default()
    }
}

fn status(
    launch: Option<v1::LaunchNumber>,
    (framework_id, task_id): (String, String),
    seq: u32,
    state: mesos::TaskState,
) -> Up {
    let mut uuid = [seq as u8; 16];
    uuid[..task_id.len().min(8)].copy_from_slice(&task_id.as_bytes()[..task_id.len().min(8)]);
    let status = v1::TaskStatus {
        state: state.into(),
        source: mesos::task_status::Source::Executor.into(),
        ..Default::default()
    };
    Up::Status(v1::StatusUpdate {
        launch,
        framework_id,
        task_id,
        seq,
        uuid: uuid.to_vec().into(),
        status: Some(status),
    })
}
