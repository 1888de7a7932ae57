//! A run: cluster, load, faults, rest, verdict.

use crate::client::Client;
use crate::history::{Entry, Event, Phase, Recorder};
use crate::model::MARKS;
use crate::report::Report;
use crate::workload::{Churn, Load};
use crate::{checker, cluster};
use anyhow::Context;
use muster_testkit::{Plan, TestCluster};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The variable that repeats a run's dice.
const SEED: &str = "MUSTER_SEED";
/// Launches before the first fault, and how long they may take.
const WARM_TASKS: u64 = 5;
const WARM_TIME: Duration = Duration::from_secs(30);
/// How long it may take until every task has ended after the last fault.
const REST_TIME: Duration = Duration::from_secs(30);

/// What a scenario is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Its name.
    pub name: &'static str,
    /// The cluster.
    pub plan: Plan,
    /// How many frameworks load it.
    pub frameworks: u64,
    /// With what.
    pub churn: Churn,
    /// Where a directory for the history and the report is made.
    pub out: PathBuf,
}

/// What a nemesis works on.
#[derive(Debug)]
pub struct Field {
    /// The cluster.
    pub cluster: TestCluster,
    /// The load on it.
    pub load: Arc<Load>,
    /// The history.
    pub recorder: Recorder,
}

/// Runs the faults against a cluster under load, and gives the verdict.
pub async fn run(
    setup: Setup,
    faults: impl AsyncFnOnce(&Field) -> anyhow::Result<()>,
) -> anyhow::Result<Report> {
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    let dir = setup.out.join(format!("{}-{seed}", setup.name));
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    eprintln!("{}: {SEED}={seed}, history in {}", setup.name, dir.display());
    let begun = Instant::now();
    let field = Field {
        cluster: TestCluster::start(setup.plan.clone()).await?,
        load: Arc::default(),
        recorder: Recorder::create(&dir.join("history.jsonl"))?,
    };
    let done = load_and_break(&setup, &field, seed, faults).await;
    let mut truth = match done {
        Ok(truth) => truth,
        Err(error) => {
            keep_logs(&field.cluster, &dir);
            return Err(error.context(format!("{SEED}={seed}, see {}", dir.display())));
        }
    };
    truth.error_lines = field.cluster.error_lines();
    keep_logs(&field.cluster, &dir);
    // A cluster that does not end in order is a finding like any other.
    match field.cluster.end().await {
        Ok(end) => {
            truth.left = end.left;
            truth.left.extend(end.killed.into_iter().map(|name| format!("{name} did not end when asked")));
        }
        Err(error) => truth.left.push(error.to_string()),
    }
    let history = field.recorder.entries();
    let verdict = checker::check(&history, &truth);
    Report::new(setup.name, seed, begun.elapsed(), &history, &truth, verdict, dir)
}

async fn load_and_break(
    setup: &Setup,
    field: &Field,
    seed: u64,
    faults: impl AsyncFnOnce(&Field) -> anyhow::Result<()>,
) -> anyhow::Result<crate::model::Truth> {
    let masters = field.cluster.masters();
    let mut clients = Vec::new();
    for i in 1..=setup.frameworks {
        let marks = field.cluster.dir().join(MARKS);
        let (load, recorder) = (field.load.clone(), field.recorder.clone());
        let seed = seed.wrapping_add(i);
        let name = format!("f{i}");
        clients.push(Client::start(
            &name,
            masters.clone(),
            marks,
            setup.churn.clone(),
            load,
            recorder,
            seed,
        )?);
    }
    let sampled = cluster::sample(&field.cluster, &field.recorder);
    let broken = async {
        field.load.progress(WARM_TASKS, WARM_TIME).await.context("before any fault")?;
        faults(field).await
    };
    tokio::select! {
        () = sampled => {}
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
    let mut truth = cluster::truth(&field.cluster).await?;
    let replicas = field.cluster.replicas().await?;
    truth.replicas = replicas.into_iter().map(|one| (one.name, one.applied, one.state_hash)).collect();
    Ok(truth)
}

/// Whether the framework was told what became of a launch; its task may run on.
fn is_decided(history: &[Entry], wanted: &str) -> bool {
    let decides = |entry: &Entry| match &entry.event {
        Event::Launch { phase: Phase::Ok | Phase::Refused, task, .. } => task == wanted,
        _ => false,
    };
    history.iter().any(decides)
}

fn keep_logs(cluster: &TestCluster, dir: &Path) {
    for (name, log) in cluster.logs() {
        if let Err(error) = std::fs::copy(&log, dir.join(format!("{name}.log"))) {
            eprintln!("cannot keep {}: {error}", log.display());
        }
    }
}
