//! `muster bench snapshot`: what launches feel of snapshots that are written meanwhile.

use super::{
    Api, Shape,
    frameworks::{Pace, Play, Shared},
    masters::Masters,
    preload,
    report::Report,
    window::{Window, warm_up},
};
use anyhow::bail;
use clap::Args;
use muster_sdk::OperatorClient;
use std::{
    collections::BTreeSet,
    sync::{PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// So many entries are in no log: no snapshot is taken.
const NEVER: u64 = u32::MAX as u64;

#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    #[command(flatten)]
    shape: Shape,
    /// Tasks that run already, and are in every snapshot.
    #[arg(long, default_value_t = 100_000, value_parser = super::positive)]
    tasks: usize,
    /// Entries of the log after which masters take a snapshot, in the second half of the run; in the first they take none.
    #[arg(long, value_name = "ENTRIES", default_value_t = 200, value_parser = clap::value_parser!(u64).range(20..))]
    snapshot_every: u64,
    /// Tasks per second of all frameworks together, in both halves.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// How long each half is.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    secs: u64,
}

pub(crate) async fn run(args: SnapshotArgs) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let mut masters = Masters::start_with(&args.shape, Some(NEVER)).await?;
    let (moments, _unheard) = mpsc::channel(1);
    let shared = Shared::playing(Play { by_clock: true, ..Play::default() }, moments);
    let mut clients = args.shape.start_agents(&masters.addresses, &shared);
    let loading = shared.beside(Play::default());
    preload::running(&args.shape, &masters.addresses, &loading, args.tasks).await?;
    report.figure("tasks", args.tasks as f64, "tasks");
    let mut p99 = Vec::new();
    for (name, every) in [("quiet", NEVER), ("during", args.snapshot_every)] {
        if every != NEVER {
            masters.kill_all()?;
            masters.set_snapshots(every);
            masters.restart_all()?;
            masters.agents_connected(args.shape.agents).await?;
        }
        let half = shared.beside(shared.play);
        let pace = Pace { every: args.shape.every(args.rate as f64), ..Pace::unpaced(1, 4_096) };
        let mut frameworks = tokio::task::JoinSet::new();
        args.shape.add_frameworks(&mut frameworks, 0, Api::Grpc, &masters.addresses, &pace, &half);
        let running = || shared.ledger.running.load(Ordering::Relaxed);
        let before = running();
        let warm = Duration::from_secs_f64(args.secs as f64 / 4.0);
        warm_up(|| (running() - before) as usize, args.shape.frameworks, warm).await?;
        let (length, addresses) = (Duration::from_secs(args.secs), masters.addresses.clone());
        let (window, taken) =
            tokio::join!(Window::of(&mut masters, &half, length), taken(&addresses, length));
        let window = window?;
        half.settle().await;
        frameworks.shutdown().await;
        report.figure(&format!("seen_running_{name}"), window.running / window.secs, "tasks/s");
        {
            let latency = half.latency.lock().unwrap_or_else(PoisonError::into_inner);
            let which = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)];
            report.quantiles(&format!("running_seen_{name}"), &latency, &which);
            p99.push(latency.value_at_quantile(0.99) as f64);
        }
        report.figure(&format!("snapshots_{name}"), taken as f64, "snapshots");
    }
    if let [quiet, beside] = p99[..]
        && quiet > 0.0
    {
        report.figure("of_quiet_p99", beside / quiet, "ratio");
    }
    report.figure("master_rss_max", masters.rss_mib(), "MiB");
    let (lost, doubled) = shared.ledger.judge();
    report.judge(lost, doubled);
    clients.shutdown().await;
    Ok(report)
}

/// Snapshots that masters take in a while, all together.
async fn taken(masters: &[String], length: Duration) -> usize {
    let until = Instant::now() + length;
    let (mut first, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut client = OperatorClient::new(masters.to_vec());
    while Instant::now() < until {
        for said in client.raft_status().await {
            if let Ok(status) = said.status {
                let newest = (said.address, status.snapshot_index);
                if !first.iter().any(|(address, _)| *address == newest.0) {
                    first.insert(newest.clone());
                }
                seen.insert(newest);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    seen.difference(&first).count()
}

/// Waits until every master has a snapshot that is at most so many entries behind the end of the log.
pub(crate) async fn newest(masters: &Masters, behind: u64, patience: Duration) -> anyhow::Result<()> {
    let until = Instant::now() + patience;
    let mut client = OperatorClient::new(masters.addresses.clone());
    while Instant::now() < until {
        let all = client.raft_status().await;
        let said: Vec<_> = all.iter().filter_map(|it| it.status.as_ref().ok()).collect();
        let committed = said.iter().map(|it| it.committed_index).max().unwrap_or(0);
        if said.len() == masters.addresses.len()
            && said.iter().all(|it| it.snapshot_index > 0 && it.snapshot_index + behind >= committed)
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!(
        "a master has no snapshot of the last {behind} entries after {} s; give a smaller --snapshot-every or more --tasks",
        patience.as_secs()
    )
}
