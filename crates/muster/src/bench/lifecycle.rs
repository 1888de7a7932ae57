//! `muster bench lifecycle`: tasks from their launch to the acknowledgement that they finished.

use super::{
    Shape,
    floors::FloorFlags,
    frameworks::Shared,
    masters::Masters,
    play::{Accepts, Fate, Play},
    report::Report,
    window::{Window, warm_up},
};
use clap::Args;
use std::{
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::sync::mpsc;

#[derive(Debug, Args)]
pub(crate) struct LifecycleArgs {
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    accepts: Accepts,
    /// How long is measured, after a quarter of it as warm-up.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    secs: u64,
    #[command(flatten)]
    floors: FloorFlags,
}

pub(crate) async fn run(args: LifecycleArgs) -> anyhow::Result<Report> {
    args.shape.check()?;
    let mut report = Report::default();
    let load = args.accepts.load(args.shape.frameworks);
    let floor = args.floors.commits(args.shape.work_dir.as_deref(), load, &mut report).await?;
    let mut masters = Masters::start(&args.shape).await?;
    let (moments, _unheard) = mpsc::channel(1);
    let shared = Shared::playing(Play { fate: Fate::Ends, ..Play::default() }, moments);
    let pace = args.accepts.pace();
    let mut clients = args.shape.start_clients(args.accepts.api, &masters.addresses, &pace, &shared);
    let ledger = &shared.ledger;
    let finished = || ledger.finished.load(Ordering::Relaxed) as usize;
    let warm = Duration::from_secs_f64(args.secs as f64 / 4.0);
    warm_up(finished, args.shape.frameworks, warm).await?;
    let window = Window::of(&mut masters, &shared, Duration::from_secs(args.secs)).await?;
    shared.settle().await;
    let rate = window.finished / window.secs;
    report.figure("lifecycles", rate, "tasks/s");
    if let Some(floor) = floor {
        report.figure("of_floor_quorum", rate / floor, "ratio");
    }
    for (name, times) in [("running_seen", &shared.latency), ("finished_seen", &shared.lifetime)] {
        let times = times.lock().unwrap_or_else(PoisonError::into_inner);
        report.quantiles(name, &times, &[("p50", 0.5), ("p99", 0.99)]);
    }
    report.figure("master_rss_max", masters.rss_mib(), "MiB");
    window.tell_cpu(&mut report);
    let ended_otherwise = ledger.failed.load(Ordering::Relaxed);
    report.figure("ended_otherwise", ended_otherwise as f64, "tasks");
    let (lost, doubled) = ledger.judge();
    // Those that started and whose end nobody heard of are lost as well.
    report.judge(lost.max(shared.unended()), doubled);
    clients.shutdown().await;
    Ok(report)
}
