//! Operators: frameworks are started to be torn down, by two operators at once, each of whom asks one master after the
//! other and repeats nothing by itself. All masters are asked meanwhile whether the framework is there.

use crate::client::{Client, Setting};
use crate::history::{Event, Phase, Recorder};
use crate::model::MARKS;
use crate::workload::{Load, Set, Workload};
use anyhow::{Context, bail};
use muster_proto::v1;
use muster_proto::v1::operator_service_client::OperatorServiceClient;
use muster_testkit::TestCluster;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

/// What a call is, in the history.
pub const TEARDOWN: &str = "teardown";
/// What the masters say of a framework that was torn down.
const REMOVED: &str = "has been removed";
/// What they say of one that never was there.
const NOT_KNOWN: &str = "is not known";
/// What a master says that neither leads nor knows who does.
const NEVER_ASKED: &str = "no leader is known yet";
/// Operators that ask at once.
const OPERATORS: usize = 2;
/// Frameworks that are torn down at most: the masters show the last fifty.
const FRAMEWORKS_MAX: u32 = 20;
/// Between two calls of an operator, and two looks at one master.
const CALL_PAUSE: Duration = Duration::from_millis(200);
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// For how long a framework that was torn down is looked for.
const AFTERWARDS: Duration = Duration::from_millis(1_500);
/// How long a call may take; its outcome is unknown then.
const CALL_TIME: Duration = Duration::from_secs(4);
/// How long one may take that is said to a master that is not to answer it.
const PROBE_TIME: Duration = Duration::from_millis(800);
/// How long a framework may take to run its tasks, and then to be torn down, once nothing goes wrong any more.
const END_TIME: Duration = Duration::from_secs(30);

/// The operators of a run.
#[derive(Debug, Default)]
pub struct Operators {
    /// The framework that is next, or that is being torn down.
    victim: AsyncMutex<Option<Victim>>,
    /// Its id, once it may be looked for.
    target: Mutex<Option<String>>,
    count: Mutex<u32>,
}

#[derive(Debug)]
struct Victim {
    client: Client,
    load: Arc<Load>,
    id: Option<String>,
}

/// What became of a call.
enum Became {
    Done,
    /// Not done: it was before.
    Removed,
    /// Not done, and never will be.
    Not,
    Unknown,
}

impl Operators {
    /// Starts frameworks and tears them down, until this is dropped.
    pub async fn keep_busy(&self, cluster: &TestCluster, recorder: &Recorder, seed: u64) {
        let ends = async {
            while let Some(seed) = self.another(seed) {
                if let Err(error) = self.start(cluster, recorder, seed).await {
                    recorder.record("operators", Event::Error { message: format!("{error:#}") });
                    break;
                }
                // It may take longer than any fault does: then it is torn down when all is over.
                if self.tear_down(cluster, recorder, Duration::MAX).await.is_err() {
                    break;
                }
                tokio::time::sleep(AFTERWARDS).await;
                *self.victim.lock().await = None;
            }
            std::future::pending::<()>().await;
        };
        let names = cluster.master_names();
        let looks = names.iter().map(|name| self.keep_looking(name, cluster, recorder));
        tokio::join!(ends, futures::future::join_all(looks));
    }

    /// Tears down the framework that is left.
    pub async fn finish(&self, cluster: &TestCluster, recorder: &Recorder) -> anyhow::Result<()> {
        if self.victim.lock().await.is_some() {
            self.tear_down(cluster, recorder, END_TIME).await?;
        }
        *self.victim.lock().await = None;
        Ok(())
    }

    fn another(&self, seed: u64) -> Option<u64> {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        (*count <= FRAMEWORKS_MAX).then(|| seed.wrapping_add(u64::from(*count)))
    }

    fn target(&self) -> Option<String> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn start(&self, cluster: &TestCluster, recorder: &Recorder, seed: u64) -> anyhow::Result<()> {
        let name = format!("o{}", self.count.lock().unwrap_or_else(PoisonError::into_inner));
        let (marks, load) = (cluster.dir().join(MARKS), Arc::<Load>::default());
        let set = Set { slots: 2, killed: 0, ..Set::default() };
        let setting = Setting::lasting(marks, Workload::Set(set), load.clone(), recorder.clone());
        let mut victim = self.victim.lock().await;
        let client = Client::start(&name, cluster, setting, seed)?;
        *victim = Some(Victim { client, load, id: None });
        Ok(())
    }

    /// Waits until the framework's tasks run, and has it torn down by all operators at once.
    async fn tear_down(
        &self,
        cluster: &TestCluster,
        recorder: &Recorder,
        within: Duration,
    ) -> anyhow::Result<()> {
        let mut victim = self.victim.lock().await;
        let victim = victim.as_mut().context("no framework is to be torn down")?;
        let name = victim.client.name().to_owned();
        let id = match &victim.id {
            Some(id) => id.clone(),
            None => {
                let open = victim.load.idle(within).await;
                if !open.is_empty() {
                    bail!("{open:?} of {name} do not run after {} s", within.as_secs());
                }
                let id = victim.client.framework_id().with_context(|| format!("{name} has no id"))?;
                *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.clone());
                victim.id.insert(id).clone()
            }
        };
        let operators = (0..OPERATORS).map(|n| ask_all(n, &name, &id, cluster, recorder));
        let asked = timeout(within, futures::future::join_all(operators)).await;
        asked.map(drop).with_context(|| format!("{name} was not torn down within {} s", within.as_secs()))
    }

    async fn keep_looking(&self, master: &str, cluster: &TestCluster, recorder: &Recorder) {
        let process = format!("operators-r-{master}");
        loop {
            if let Some(target) = self.target() {
                let look = |phase, there| {
                    recorder.record(&process, Event::Look { phase, target: target.clone(), there });
                };
                look(Phase::Invoked, None);
                let read = cluster.frameworks_by(master).await.ok();
                let there = read.map(|all| all.iter().any(|one| one.framework_id == target));
                look(if there.is_some() { Phase::Ok } else { Phase::Refused }, there);
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }
}

/// Asks one master after the other until it is done, or was before.
async fn ask_all(n: usize, name: &str, id: &str, cluster: &TestCluster, recorder: &Recorder) {
    let process = format!("operators-w{n}");
    let masters = cluster.masters();
    for master in masters.iter().cycle().skip(n) {
        let record = |phase, already| {
            let (call, framework, target) = (TEARDOWN.into(), name.into(), id.into());
            recorder.record(&process, Event::Operate { phase, call, framework, target, already });
        };
        record(Phase::Invoked, false);
        match tear_down_by(master, id).await {
            Became::Done => return record(Phase::Ok, false),
            Became::Removed => return record(Phase::Refused, true),
            Became::Not => record(Phase::Refused, false),
            Became::Unknown => record(Phase::Unknown, false),
        }
        tokio::time::sleep(CALL_PAUSE).await;
    }
}

/// Asks this master, once.
async fn tear_down_by(master: &str, id: &str) -> Became {
    match call(master, id, CALL_TIME).await {
        Called::Never => Became::Not,
        Called::Answered(Ok(())) => Became::Done,
        Called::Answered(Err(status)) => refused(&status),
        Called::Unanswered => Became::Unknown,
    }
}

/// Asks this master, once and with little patience, to tear down a framework that nobody knows. Done where it answers as
/// who has asked the log.
pub(crate) async fn tear_down_nobody(master: &str, id: &str) -> Phase {
    match call(master, id, PROBE_TIME).await {
        Called::Never => Phase::Refused,
        Called::Answered(Ok(())) => Phase::Ok,
        Called::Answered(Err(status)) => match refused(&status) {
            Became::Not if status.message().contains(NOT_KNOWN) => Phase::Ok,
            Became::Done | Became::Removed => Phase::Ok,
            Became::Not => Phase::Refused,
            Became::Unknown => Phase::Unknown,
        },
        Called::Unanswered => Phase::Unknown,
    }
}

/// How far a call came.
enum Called {
    /// It was never said.
    Never,
    Answered(Result<(), Status>),
    Unanswered,
}

async fn call(master: &str, id: &str, within: Duration) -> Called {
    let Ok(endpoint) = Endpoint::from_shared(format!("http://{master}")) else { return Called::Never };
    let Ok(Ok(channel)) = timeout(within, endpoint.connect()).await else { return Called::Never };
    let mut client = OperatorServiceClient::new(channel);
    match timeout(within, client.teardown(v1::TeardownRequest { framework_id: id.into() })).await {
        Ok(answer) => Called::Answered(answer.map(drop)),
        Err(_) => Called::Unanswered,
    }
}

fn refused(status: &Status) -> Became {
    match status.code() {
        Code::FailedPrecondition if status.message().contains(REMOVED) => Became::Removed,
        Code::FailedPrecondition => Became::Not,
        Code::Unavailable if status.message().starts_with(NEVER_ASKED) => Became::Not,
        _ => Became::Unknown,
    }
}
