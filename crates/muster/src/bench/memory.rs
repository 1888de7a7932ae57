//! `muster bench memory`: what masters need for agents, running tasks and completed tasks.
//!
//! Agents dial one master alone that does not lead, where there are several: so the growth of the others tells what an
//! agent costs who only knows it, and that of the leader what it costs who offers it. Spread over all masters, as those of
//! a real cluster are, they tell how large the largest of them is.

use super::{
    Shape,
    frameworks::{Play, Shared},
    masters::Masters,
    preload,
    report::Report,
};
use anyhow::ensure;
use clap::Args;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long masters may take to give back what they needed for a while.
const CALM: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct MemoryArgs {
    #[command(flatten)]
    shape: Shape,
    /// Tasks that run.
    #[arg(long, default_value_t = 100_000, value_parser = super::positive)]
    tasks: usize,
    /// Tasks that are over, after that: at most 100,000, more no registry keeps.
    #[arg(long, default_value_t = 100_000)]
    completed: usize,
    /// Agents dial all masters, as in a real cluster; what one of them costs is not told then.
    #[arg(long)]
    spread: bool,
}

pub(crate) async fn run(args: MemoryArgs) -> anyhow::Result<Report> {
    let most = preload::COMPLETED_MAX;
    ensure!(
        args.completed <= most,
        "--completed is {}; a registry keeps at most {most} completed tasks",
        args.completed
    );
    let dialled = if args.spread { args.shape.masters } else { 1 };
    args.shape.check_connections(dialled)?;
    let mut report = Report::default();
    let mut masters = Masters::start(&args.shape).await?;
    let leader = masters.leader().await?;
    // A follower where there is one.
    let linked = (leader + 1) % masters.addresses.len();
    let (moments, _unheard) = mpsc::channel(1);
    let shared = Shared::new(moments);
    let empty = calm(&masters).await;
    let dialled = if args.spread { &masters.addresses } else { &masters.addresses[linked..=linked] };
    let mut agents = args.shape.start_agents(dialled, &shared);
    masters.agents_connected(args.shape.agents).await?;
    let connected = calm(&masters).await;
    let loading = shared.beside(Play::default());
    preload::running(&args.shape, &masters.addresses, &loading, args.tasks).await?;
    masters.caught_up().await?;
    let tasks = shared.ledger.started_count();
    let running = calm(&masters).await;
    preload::completed(&args.shape, &masters.addresses, &shared, args.completed).await?;
    masters.caught_up().await?;
    let completed = calm(&masters).await;
    ensure!(
        masters.leader().await? == leader,
        "the leader changed meanwhile, so that its memory says nothing; measure again on a quieter machine"
    );
    report.figure("tasks", tasks as f64, "tasks");
    if !args.spread {
        let per_agent = growth(&empty, &connected, args.shape.agents);
        report.figure("agent_leader", per_agent[leader], "B");
        report.figure("agent_connected", per_agent[linked], "B");
        if let Some(known) = (0..per_agent.len()).find(|n| *n != leader && *n != linked) {
            report.figure("agent_known", per_agent[known], "B");
        }
    }
    let mut largest = |name: &str, growth: Vec<f64>| {
        report.figure(&format!("{name}_leader"), growth[leader], "B");
        report.figure(&format!("{name}_max"), growth.into_iter().fold(f64::MIN, f64::max), "B");
    };
    largest("running_task", growth(&connected, &running, tasks));
    if args.completed > 0 {
        largest("completed_task", growth(&running, &completed, shared.ledger.started_count() - tasks));
    }
    for (name, rss) in [("empty", &empty), ("full", &completed)] {
        let largest = rss.iter().copied().fold(0.0, f64::max);
        report.figure(&format!("master_rss_{name}"), largest / f64::from(1 << 20), "MiB");
    }
    let (lost, doubled) = shared.ledger.judge();
    report.judge(lost, doubled);
    agents.shutdown().await;
    Ok(report)
}

/// What each master has after a while without work.
async fn calm(masters: &Masters) -> Vec<f64> {
    tokio::time::sleep(CALM).await;
    masters.rss()
}

/// For each of so many, by master, in bytes.
fn growth(before: &[f64], after: &[f64], count: usize) -> Vec<f64> {
    before.iter().zip(after).map(|(before, after)| (after - before) / count as f64).collect()
}
