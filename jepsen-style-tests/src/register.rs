//! A register made of what there is: a framework's failover timeout. Who subscribes writes it, who lists the
//! frameworks reads it. So a checker that others wrote can say whether reads that claim to be current are.

use crate::history::{Event, Phase, Recorder};
use anyhow::bail;
use muster_proto::v1::scheduler_down_frame::Event as Down;
use muster_proto::v1::scheduler_service_client::SchedulerServiceClient;
use muster_proto::{limits, mesos, v1};
use muster_testkit::TestCluster;
use prost::Message;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

/// Its framework's name, and whose it is in the history.
pub const REGISTER: &str = "register";
/// The value 0, as a failover timeout: longer than any run is without it.
const ZERO_S: u64 = 100_000;
/// Those who write at once.
const WRITERS: usize = 2;
/// Between two writes, and two reads of one master.
const WRITE_PAUSE: Duration = Duration::from_millis(700);
const READ_PAUSE: Duration = Duration::from_millis(400);
/// How long the masters may take to let one make it.
const CREATION_TIME: Duration = Duration::from_secs(30);
/// How long a write may take; its outcome is unknown then.
const WRITE_TIME: Duration = Duration::from_secs(4);

/// A register that exists, with the value 0.
#[derive(Debug)]
pub struct Register {
    framework_id: String,
    next: AtomicU64,
}

/// What became of a write.
enum Written {
    Done {
        framework_id: String,
    },
    /// Not done, and never will be.
    Not(String),
    Unknown,
}

impl Register {
    /// Makes it, also while leadership moves.
    pub async fn create(cluster: &TestCluster, recorder: &Recorder) -> anyhow::Result<Self> {
        let begun = Instant::now();
        for master in cluster.masters().iter().cycle() {
            let (framework_id, why) = match write(master, "", 0).await {
                Written::Done { framework_id } => (Some(framework_id), String::new()),
                Written::Not(why) => (None, why),
                // It may have been made, or may be yet: another try would make another one.
                Written::Unknown => (Self::find(cluster).await, "it did not say".into()),
            };
            if let Some(framework_id) = framework_id {
                let event = Event::Registered { framework_id: framework_id.clone(), begun_us: None };
                recorder.record(REGISTER, event);
                return Ok(Self { framework_id, next: AtomicU64::new(1) });
            }
            if begun.elapsed() > CREATION_TIME {
                bail!("no master takes the register's framework, the last one {master}: {why}");
            }
            tokio::time::sleep(READ_PAUSE).await;
        }
        bail!("there are no masters")
    }

    /// The framework of a write whose outcome nobody said. None: nothing of it was seen for longer than a write takes.
    async fn find(cluster: &TestCluster) -> Option<String> {
        let until = Instant::now() + 2 * WRITE_TIME;
        while Instant::now() < until {
            for master in cluster.master_names() {
                let all = cluster.frameworks_by(&master).await.unwrap_or_default(); // only a leader answers
                if let Some(found) = all.into_iter().find(|one| one.name == REGISTER) {
                    return Some(found.framework_id);
                }
            }
            tokio::time::sleep(READ_PAUSE).await;
        }
        None
    }

    /// Writes and reads it, from all sides, until this is dropped.
    pub async fn keep_busy(&self, cluster: &TestCluster, recorder: &Recorder) {
        let writers = (0..WRITERS).map(|n| self.keep_writing(n, cluster, recorder));
        let names = cluster.master_names();
        let readers = names.iter().map(|name| self.keep_reading(name, cluster, recorder));
        tokio::join!(futures::future::join_all(writers), futures::future::join_all(readers));
    }

    async fn keep_writing(&self, n: usize, cluster: &TestCluster, recorder: &Recorder) {
        let masters = cluster.masters();
        let process = format!("{REGISTER}-w{n}");
        // Each begins at another master, and follows no hint: links of followers are tried, too.
        for master in masters.iter().cycle().skip(n) {
            let value = self.next.fetch_add(1, Ordering::Relaxed);
            let record = |phase| recorder.record(&process, Event::Write { phase, value });
            record(Phase::Invoked);
            match write(master, &self.framework_id, value).await {
                Written::Done { .. } => record(Phase::Ok),
                Written::Not(_) => record(Phase::Refused),
                Written::Unknown => record(Phase::Unknown),
            }
            tokio::time::sleep(WRITE_PAUSE).await;
        }
    }

    async fn keep_reading(&self, master: &str, cluster: &TestCluster, recorder: &Recorder) {
        let process = format!("{REGISTER}-r-{master}");
        let record = |phase, value| recorder.record(&process, Event::Read { phase, value });
        loop {
            record(Phase::Invoked, None);
            let read = cluster.frameworks_by(master).await.ok().and_then(|all| self.value(&all));
            record(if read.is_some() { Phase::Ok } else { Phase::Refused }, read);
            tokio::time::sleep(READ_PAUSE).await;
        }
    }

    fn value(&self, frameworks: &[v1::Framework]) -> Option<u64> {
        let own = frameworks.iter().find(|one| one.framework_id == self.framework_id)?;
        (own.failover_timeout_ms / 1_000).checked_sub(ZERO_S)
    }
}

/// Subscribes once, on one stream: nobody repeats it, so that what is written late was asked for late.
async fn write(master: &str, framework_id: &str, value: u64) -> Written {
    let until = Instant::now() + WRITE_TIME;
    let (calls, frames) = mpsc::channel(1);
    let mut down = match timeout_at(until, open(master, ReceiverStream::new(frames))).await {
        Ok(Ok(down)) => down,
        Ok(Err(why)) => return Written::Not(why),
        Err(_) => return Written::Not("it cannot be reached".into()),
    };
    let mut is_asked = false;
    loop {
        let not = |why: String| if is_asked { Written::Unknown } else { Written::Not(why) };
        let event = match timeout_at(until, down.message()).await {
            Ok(Ok(Some(frame))) => frame.event,
            Ok(Ok(None)) => return not("it ended the stream".into()),
            Ok(Err(status)) => return not(status.message().into()),
            Err(_) => return not("it says nothing".into()),
        };
        match event {
            Some(Down::Leader(_)) if !is_asked => {
                is_asked = true;
                if calls.send(subscribe(framework_id, value)).await.is_err() {
                    return Written::Unknown;
                }
            }
            Some(Down::Subscribed(told)) => return Written::Done { framework_id: told.framework_id },
            Some(Down::Redial(why) | Down::Error(why)) => return not(why),
            Some(Down::Leader(_)) => return Written::Unknown,
            Some(Down::Outcome(v1::Outcome { outcome: Some(outcome), .. })) => match outcome {
                v1::outcome::Outcome::Refused(why) => return Written::Not(why),
                v1::outcome::Outcome::Busy(_) => return Written::Not("it is busy".into()),
                _ => return Written::Unknown,
            },
            _ => {}
        }
    }
}

/// Opens a framework's stream to this master.
pub(crate) async fn open(
    master: &str,
    frames: ReceiverStream<v1::SchedulerFrame>,
) -> Result<Streaming<v1::SchedulerDownFrame>, String> {
    let endpoint = Endpoint::from_shared(format!("http://{master}")).map_err(|error| error.to_string())?;
    let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
    let mut client =
        SchedulerServiceClient::new(channel).max_decoding_message_size(limits::DOWN_FRAME_BYTES_MAX);
    let session = client.session(frames).await.map_err(|status| status.message().to_owned())?;
    Ok(session.into_inner())
}

fn subscribe(framework_id: &str, value: u64) -> v1::SchedulerFrame {
    let info = mesos::FrameworkInfo {
        name: REGISTER.into(),
        user: REGISTER.into(),
        // Values are counted, so they stay far below what a double holds.
        failover_timeout: Some((ZERO_S + value) as f64),
        ..Default::default()
    };
    let subscribe = v1::Subscribe {
        framework_id: framework_id.into(),
        framework_info: info.encode_to_vec().into(),
        // It launches nothing.
        suppressed_roles: vec!["*".into()],
        ..Default::default()
    };
    v1::SchedulerFrame {
        id: 1,
        call: Some(v1::scheduler_frame::Call::Subscribe(subscribe)),
        ..Default::default()
    }
}
