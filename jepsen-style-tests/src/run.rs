//! A run: cluster, load, faults, rest, verdict.

use crate::client::{Client, Setting};
use crate::cluster::{self, Seen};
use crate::direct::Direct;
use crate::history::{Entry, Event, Phase, Recorder};
use crate::model::{MARKS, Truth};
use crate::nemesis::Dice;
use crate::operators::Operators;
use crate::over_http::OverHttp;
use crate::recording::{self, Recording};
use crate::register::Register;
use crate::report::Report;
use crate::scenarios::Scenario;
use crate::workload::{Churn, Load, Set, Workload};
use anyhow::{Context, bail};
use muster_testkit::{LogEntry, Plan, TestCluster};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// The variable that repeats a run's dice.
pub const SEED: &str = "MUSTER_SEED";
/// Launches before the first fault, and how long they may take.
const WARM_TASKS: u64 = 5;
const WARM_TIME: Duration = Duration::from_secs(30);
/// How long a round of faults may take; then it is broken off and undoes what it did.
const ROUND_TIME: Duration = Duration::from_secs(240);
/// How long a round of most scenarios takes on a slow machine.
const ROUND_USUAL: Duration = Duration::from_secs(15);
/// How long it may take until every task has ended after the last fault.
const REST_TIME: Duration = Duration::from_secs(30);
/// Frameworks that load the cluster.
const FRAMEWORKS: u16 = 3;
/// The one that holds a set.
const SET: &str = "s1";

/// What is said of a run beside its scenario.
#[derive(Debug, Clone)]
pub struct Options {
    /// Repeats the dice of another run.
    pub seed: u64,
    /// How long it breaks things; without it, as many rounds as the scenario says, under all the load there can be.
    pub length: Option<Length>,
    /// How many masters.
    pub masters: u16,
    /// Where a directory for the history and the report is made.
    pub out: PathBuf,
}

/// How long a run breaks things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Rounds of faults begin until so much time is over.
    Time(Duration),
    /// So many rounds.
    Rounds(u32),
}

impl Length {
    /// How long that is, at most or roughly.
    fn time(self) -> Duration {
        match self {
            Self::Time(time) => time,
            Self::Rounds(rounds) => ROUND_USUAL.saturating_mul(rounds),
        }
    }
}

impl Options {
    /// For a test: three masters, and this seed unless the environment has another.
    pub fn of_test(out: &str, seed: u64) -> Self {
        let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(seed);
        Self { seed, length: None, masters: 3, out: out.into() }
    }
}

/// What a nemesis works on.
#[derive(Debug)]
pub struct Field {
    /// The cluster.
    pub cluster: TestCluster,
    /// The load on it.
    pub load: Arc<Load>,
    /// The frameworks that make it, by name.
    pub clients: BTreeMap<String, Client>,
    /// The framework with tasks that are to run on, which has no place in the network.
    pub set: Client,
    /// The history.
    pub recorder: Recorder,
    /// What the leader said of the agents when it was last asked.
    pub seen: Seen,
    /// How many frameworks were let expire.
    pub expired: AtomicU64,
}

/// Runs a scenario against a cluster under load, and gives the verdict. What is found is in the report; an
/// error is what kept the run from being one.
pub async fn run(scenario: &Scenario, options: &Options) -> anyhow::Result<Report> {
    let seed = options.seed;
    let dir = options.out.join(format!("{}-{seed}", scenario.name));
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    eprintln!("{}: {SEED}={seed}, history in {}", scenario.name, dir.display());
    let begun = Instant::now();
    let mut plan = Plan {
        masters: options.masters,
        frameworks: FRAMEWORKS,
        master_config: scenario.master_config.into(),
        ..Plan::default()
    };
    scenario.needs.iter().for_each(|need| need.add_to(&mut plan));
    let cluster = TestCluster::start(plan).await?;
    let recorder = Recorder::create(&dir.join(crate::recording::HISTORY))?;
    let load = Arc::<Load>::default();
    let clients = start_clients(options, &cluster, &load, &recorder)?;
    let set = start_set(options, &cluster, &recorder)?;
    let register = Register::create(&cluster, &recorder).await?;
    let (seen, expired) = (Seen::default(), AtomicU64::new(0));
    let field = Field { cluster, load, clients, set, recorder, seen, expired };
    let done = load_and_break(scenario, options, &field, &register).await;
    if done.is_err() {
        // It may say what is wrong, and there may be nobody to answer.
        let _ = count_set(&field).await;
    }
    let error_lines = field.cluster.error_lines();
    keep_logs(&field.cluster, &dir);
    let history = field.recorder.entries();
    let title = format!("{}, seed {seed}, {} masters", scenario.name, options.masters);
    let Field { cluster, clients, set, .. } = field;
    drop((clients, set));
    let mut truth = match done {
        Ok(truth) => truth,
        Err(error) => {
            let marks = crate::model::read_marks(cluster.dir()).unwrap_or_default();
            cluster.kill_all(cluster.master_names())?;
            let slots = cluster::slot_marks(&cluster).unwrap_or_default();
            let (led, logs) = (cluster::led(&cluster), logs(&cluster, &dir));
            let broken_off = Some(format!("{error:#}"));
            let known = Truth { marks, slots, led, error_lines, logs, broken_off, ..Default::default() };
            let broken = Recording::complete(history, known);
            return Report::write(&title, begun.elapsed(), &broken, dir);
        }
    };
    truth.error_lines = error_lines;
    // A cluster that does not end in order is a finding like any other.
    match cluster.rest().await {
        Ok(end) => {
            truth.left = end.left;
            truth.left.extend(end.killed.into_iter().map(|name| format!("{name} did not end when asked")));
        }
        Err(error) => {
            truth.left.push(error.to_string());
            cluster.kill_all(cluster.master_names())?;
        }
    }
    truth.logs = logs(&cluster, &dir);
    Report::write(&title, begun.elapsed(), &Recording::complete(history, truth), dir)
}

fn start_clients(
    options: &Options,
    cluster: &TestCluster,
    load: &Arc<Load>,
    recorder: &Recorder,
) -> anyhow::Result<BTreeMap<String, Client>> {
    let churn = options.length.map_or_else(Churn::default, |length| Churn::lasting(length.time()));
    let churn = Workload::Churn(churn);
    let setting = Setting::lasting(cluster.dir().join(MARKS), churn, load.clone(), recorder.clone());
    let start = |(i, name): (u64, String)| {
        let client = Client::start(&name, cluster, setting.clone(), options.seed.wrapping_add(i))?;
        Ok((name, client))
    };
    (1..).zip(cluster.framework_names()).map(start).collect()
}

fn start_set(options: &Options, cluster: &TestCluster, recorder: &Recorder) -> anyhow::Result<Client> {
    let (marks, load) = (cluster.dir().join(MARKS), Arc::<Load>::default());
    let setting = Setting::lasting(marks, Workload::Set(Set::default()), load, recorder.clone());
    Client::start(SET, cluster, setting, options.seed)
}

async fn load_and_break(
    scenario: &Scenario,
    options: &Options,
    field: &Field,
    register: &Register,
) -> anyhow::Result<Truth> {
    let sampled = cluster::sample(&field.cluster, &field.recorder, &field.seen);
    let registered = register.keep_busy(&field.cluster, &field.recorder);
    let operators = Operators::default();
    let operated = operators.keep_busy(&field.cluster, &field.recorder, options.seed);
    let direct = Direct::new(&field.cluster, &field.recorder, options.seed);
    let directed = direct.keep_busy();
    let over_http = OverHttp::new(&field.cluster, &field.recorder, options.seed.wrapping_add(1));
    let requested = over_http.keep_busy();
    let broken = async {
        field.load.progress(WARM_TASKS, WARM_TIME).await.context("before any fault")?;
        rounds(scenario, options, field).await
    };
    tokio::select! {
        () = sampled => {}
        () = registered => {}
        () = operated => {}
        () = directed => {}
        () = requested => {}
        broken = broken => broken?,
    }
    field.load.stop();
    let open = field.load.idle(REST_TIME).await;
    let history = field.recorder.entries();
    for task in open.into_iter().filter(|task| !is_decided(&history, task)) {
        let (agent, needs) = Default::default();
        let process = task.split('-').next().unwrap_or_default().to_owned();
        field.recorder.record(&process, Event::Launch { phase: Phase::Unknown, task, agent, needs });
    }
    field.cluster.ready().await?;
    operators.finish(&field.cluster, &field.recorder).await?;
    tokio::join!(direct.finish(), over_http.finish());
    // What is never answered is in the verdict.
    field.load.all_answered(REST_TIME).await;
    field.set.reconcile(REST_TIME).await.context("in the end")?;
    count_set(field).await?;
    // The last acknowledgements may be on their way. If tasks are left all the same, the verdict says so.
    let _ = cluster::tasks_end(&field.cluster, None).await;
    let mut truth = cluster::truth(&field.cluster).await?;
    let replicas = field.cluster.replicas().await?;
    truth.replicas = replicas.into_iter().map(|one| (one.name, one.applied, one.state_hash)).collect();
    Ok(truth)
}

/// Waits until each slot of the set is as it is meant to be, counts what there is, and ends it. What is amiss is in the
/// verdict.
async fn count_set(field: &Field) -> anyhow::Result<()> {
    field.set.settle(REST_TIME).await;
    let id = field.set.framework_id().context("the set was never registered")?;
    field.recorder.record(SET, cluster::census(&field.cluster, SET, &id).await?);
    field.set.wind_up(REST_TIME).await;
    Ok(())
}

/// One round of faults after the other, each with a time limit.
async fn rounds(scenario: &Scenario, options: &Options, field: &Field) -> anyhow::Result<()> {
    let mut dice = Dice::new(options.seed);
    let begun = Instant::now();
    let more = |done: u32| match options.length {
        Some(Length::Time(time)) => begun.elapsed() < time,
        Some(Length::Rounds(rounds)) => done < rounds,
        None => done < scenario.rounds,
    };
    let mut done = 0;
    while more(done) {
        match tokio::time::timeout(ROUND_TIME, (scenario.round)(field, &mut dice)).await {
            Ok(round) => round?,
            Err(_) => bail!("a round of faults was not over after {} s", ROUND_TIME.as_secs()),
        }
        let frameworks = field.clients.keys().map(String::as_str).chain([SET]).collect();
        let back = cluster::all_back(&field.cluster, &frameworks).await.context("after a round of faults")?;
        let after_ms = u64::try_from(back.as_millis()).unwrap_or(u64::MAX);
        field.recorder.record("sampler", Event::Back { after_ms });
        field.set.reconcile(REST_TIME).await.context("after a round of faults")?;
        done += 1;
    }
    Ok(())
}

/// Whether the framework was told what became of a launch; its task may run on.
fn is_decided(history: &[Entry], wanted: &str) -> bool {
    let decides = |entry: &Entry| match &entry.event {
        Event::Launch { phase: Phase::Ok | Phase::Refused, task, .. } => task == wanted,
        _ => false,
    };
    history.iter().any(decides)
}

/// The masters' own logs, which are kept beside the history; a master whose disk is beyond reading has none.
fn logs(cluster: &TestCluster, dir: &Path) -> BTreeMap<String, Vec<LogEntry>> {
    let mut logs = BTreeMap::new();
    for name in cluster.master_names() {
        match cluster.applied_log(&name) {
            Ok(log) => {
                if let Err(error) = recording::write_log(dir, &name, &log) {
                    eprintln!("{error:#}");
                }
                logs.insert(name, log);
            }
            Err(error) => eprintln!("the log of {name} is not there: {error:#}"),
        }
    }
    logs
}

fn keep_logs(cluster: &TestCluster, dir: &Path) {
    for (name, log) in cluster.logs() {
        if let Err(error) = std::fs::copy(&log, dir.join(format!("{name}.log"))) {
            eprintln!("cannot keep {}: {error}", log.display());
        }
    }
}
