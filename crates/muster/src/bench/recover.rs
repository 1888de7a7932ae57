//! `muster bench recover`: all masters are killed, and start again from their snapshots.

use super::{
    Shape,
    frameworks::Shared,
    masters::Masters,
    preload,
    report::{Report, median_max},
    snapshot,
};
use anyhow::{Context, bail};
use clap::Args;
use muster_sdk::OperatorClient;
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// How long the newest snapshot may be behind the log's end before a start is measured.
const SNAPSHOT: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    #[command(flatten)]
    shape: Shape,
    /// Tasks that run when the masters are killed.
    #[arg(long, default_value_t = 100_000, value_parser = super::positive)]
    tasks: usize,
    /// Entries of the log after which masters take a snapshot.
    #[arg(long, value_name = "ENTRIES", default_value_t = 200, value_parser = clap::value_parser!(u64).range(20..))]
    snapshot_every: u64,
    /// How often all masters are killed and started.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    trials: u16,
}

pub(crate) async fn run(args: RecoverArgs) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let mut masters = Masters::start_with(&args.shape, Some(args.snapshot_every)).await?;
    let (moments, _unheard) = mpsc::channel(1);
    let shared = Shared::new(moments);
    let mut agents = args.shape.start_agents(&masters.addresses, &shared);
    preload::running(&args.shape, &masters.addresses, &shared, args.tasks).await?;
    // Nobody but the masters is measured.
    agents.shutdown().await;
    snapshot::newest(&masters, 2 * args.snapshot_every, SNAPSHOT).await?;
    let (mut leading, mut serving, mut reads) = (Vec::new(), Vec::new(), Vec::new());
    let acknowledged = shared.ledger.launched();
    let (mut lost, mut size) = (0, 0.0);
    for n in 1..=args.trials {
        masters.kill_all()?;
        let read = Instant::now();
        size = read_newest(&masters.data_dir(0).join("snapshots"))?;
        reads.push(read.elapsed());
        let begun = Instant::now();
        masters.restart_all()?;
        let leader = masters.leader().await?;
        leading.push(begun.elapsed());
        let known = tasks(&masters, leader).await?;
        serving.push(begun.elapsed());
        eprintln!("start {n}: {known} tasks are known after {:.0} ms", begun.elapsed().as_secs_f64() * 1e3);
        lost = lost.max(acknowledged.saturating_sub(known));
        masters.caught_up().await?;
    }
    report.figure("tasks", acknowledged as f64, "tasks");
    report.figure("snapshot_size", size, "MiB");
    for (name, times) in [("floor_read", reads), ("leader", leading), ("serving", serving)] {
        if let Some((median, max)) = median_max(times) {
            report.figure(&format!("{name}_median"), median, "ms");
            report.figure(&format!("{name}_max"), max, "ms");
        }
    }
    report.figure("master_rss_max", masters.rss_mib(), "MiB");
    let (before, doubled) = shared.ledger.judge();
    report.judge(before.max(lost), doubled);
    Ok(report)
}

/// The tasks that the leader knows and that are not over, by a read that a quorum confirmed.
async fn tasks(masters: &Masters, leader: usize) -> anyhow::Result<u64> {
    let mut client = OperatorClient::new(vec![masters.addresses[leader].clone()]).search_time(SNAPSHOT);
    let frameworks = client.frameworks(false).await.context("the new leader does not answer")?;
    Ok(frameworks.iter().map(|framework| framework.tasks).sum())
}

/// Reads the newest file of a folder to its end: no start takes less. Its size in MiB.
fn read_newest(dir: &Path) -> anyhow::Result<f64> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot look into {}", dir.display()))? {
        let entry = entry?;
        files.push((entry.metadata()?.modified()?, entry.path()));
    }
    let Some((_, newest)) = files.into_iter().max() else {
        bail!("there is no snapshot in {}", dir.display());
    };
    let bytes = fs::read(&newest).with_context(|| format!("cannot read {}", newest.display()))?;
    Ok(bytes.len() as f64 / f64::from(1 << 20))
}
