//! `muster bench launch`.

use super::{
    Shape,
    floors::FloorFlags,
    frameworks::Shared,
    masters::Masters,
    play::{Accepts, Fate, Play},
    preload,
    report::Report,
    window::{Window, warm_up},
};
use clap::Args;
use std::{sync::PoisonError, time::Duration};
use tokio::sync::mpsc;

#[derive(Debug, Args)]
pub(crate) struct LaunchArgs {
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    accepts: Accepts,
    /// Agents report each task running, which its framework sees and acknowledges: three commands in the log for each task. When
    /// not given, agents say that they took the orders, and nothing more.
    #[arg(long)]
    running: bool,
    /// Tasks per second of all frameworks together; 0 = as many as possible.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// How long is measured, after a quarter of it as warm-up.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    secs: u64,
    /// Tasks that run already before anything is measured.
    #[arg(long, default_value_t = 0)]
    preload: usize,
    #[command(flatten)]
    floors: FloorFlags,
}

pub(crate) async fn run(args: LaunchArgs) -> anyhow::Result<Report> {
    args.shape.check()?;
    let mut report = Report::default();
    let load = args.accepts.load(args.shape.frameworks);
    let floor = args.floors.commits(args.shape.work_dir.as_deref(), load, &mut report).await?;
    let mut masters = Masters::start(&args.shape).await?;
    let (moments, _unheard) = mpsc::channel(1);
    let fate = if args.running { Fate::Runs } else { Fate::Taken };
    let shared = Shared::playing(Play { fate, ..Play::default() }, moments);
    let mut clients = args.shape.start_agents(&masters.addresses, &shared);
    if args.preload > 0 {
        let loading = shared.beside(Play::default());
        preload::running(&args.shape, &masters.addresses, &loading, args.preload).await?;
    }
    let mut pace = args.accepts.pace();
    if args.rate > 0 {
        pace.every = args.shape.every(args.rate as f64 / args.accepts.tasks_per_accept as f64);
    }
    args.shape.add_frameworks(&mut clients, 0, args.accepts.api, &masters.addresses, &pace, &shared);
    let (ledger, before) = (&shared.ledger, shared.ledger.started_count());
    let warm = Duration::from_secs_f64(args.secs as f64 / 4.0);
    warm_up(|| ledger.started_count() - before, args.shape.frameworks, warm).await?;
    let window = Window::of(&mut masters, &shared, Duration::from_secs(args.secs)).await?;
    shared.settle().await;
    let launches = window.started / window.secs;
    report.figure("launches", launches, "tasks/s");
    if let Some(floor) = floor {
        report.figure("of_floor_quorum", launches / floor, "ratio");
    }
    for (name, times) in [("latency", &shared.answered), ("running_seen", &shared.latency)] {
        let times = times.lock().unwrap_or_else(PoisonError::into_inner);
        if !times.is_empty() {
            report.quantiles(name, &times, &[("p50", 0.5), ("p99", 0.99)]);
        }
    }
    report.figure("offers", window.offers / window.secs, "offers/s");
    report.figure("master_rss_max", masters.rss_mib(), "MiB");
    window.tell_cpu(&mut report);
    let (lost, doubled) = ledger.judge();
    report.judge(lost, doubled);
    clients.shutdown().await;
    Ok(report)
}
