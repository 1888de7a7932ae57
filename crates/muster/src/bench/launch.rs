//! `muster bench launch`.

use super::{
    Api, Shape,
    floors::{FloorFlags, Load},
    frameworks::{Pace, Shared},
    masters::Masters,
    report::Report,
};
use clap::Args;
use muster_model::Resources;
use std::{
    sync::{PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

#[derive(Debug, Args)]
pub(crate) struct LaunchArgs {
    #[command(flatten)]
    shape: Shape,
    /// What frameworks speak.
    #[arg(long, value_enum, default_value_t = Api::Grpc)]
    api: Api,
    /// Tasks in one ACCEPT.
    #[arg(long, default_value_t = 1)]
    tasks_per_accept: usize,
    /// ACCEPTs of one framework on their way at a time.
    #[arg(long, default_value_t = 1)]
    inflight: usize,
    /// Tasks per second of all frameworks together; 0 = as many as possible.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// How long is measured, after a quarter of it as warm-up.
    #[arg(long, default_value_t = 10)]
    secs: u64,
    #[command(flatten)]
    floors: FloorFlags,
}

pub(crate) async fn run(args: LaunchArgs) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let clients = args.shape.frameworks * args.inflight;
    let load = Load { clients, records: args.tasks_per_accept };
    let floor = args.floors.commits(args.shape.work_dir.as_deref(), load, &mut report).await?;
    let masters = Masters::start(&args.shape).await?;
    let (moments, _unheard) = mpsc::channel(1);
    let shared = Shared::new(moments);
    let ledger = &shared.ledger;
    let per_second = args.rate as f64 / args.shape.frameworks as f64 / args.tasks_per_accept as f64;
    let pace = Pace {
        tasks_per_accept: args.tasks_per_accept,
        in_flight: args.inflight,
        every: if args.rate == 0 { Duration::ZERO } else { Duration::from_secs_f64(1.0 / per_second) },
        task: Resources::of(10, 1),
    };
    let mut clients = args.shape.start_clients(args.api, &masters.addresses, &pace, &shared);
    let settle = Instant::now();
    while ledger.started_count() < args.shape.frameworks && settle.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs_f64(args.secs as f64 / 4.0)).await;
    let count = || (ledger.started_count(), ledger.offers.load(Ordering::Relaxed), masters.cpu_secs());
    shared.recording.store(true, Ordering::Relaxed);
    let (began, before) = (Instant::now(), count());
    tokio::time::sleep(Duration::from_secs(args.secs)).await;
    let (secs, after) = (began.elapsed().as_secs_f64(), count());
    shared.recording.store(false, Ordering::Relaxed);
    shared.settle().await;
    let launches = (after.0 - before.0) as f64 / secs;
    report.figure("launches", launches, "tasks/s");
    if let Some(floor) = floor {
        report.figure("of_floor_quorum", launches / floor, "ratio");
    }
    {
        let latency = shared.latency.lock().unwrap_or_else(PoisonError::into_inner);
        report.quantiles("latency", &latency, &[("p50", 0.5), ("p99", 0.99)]);
    }
    report.figure("offers", (after.1 - before.1) as f64 / secs, "offers/s");
    report.figure("master_rss_max", masters.rss_mib(), "MiB");
    for (n, (before, after)) in before.2.iter().zip(&after.2).enumerate() {
        report.figure(&format!("master_cpu_m{}", n + 1), (after - before) / secs * 100.0, "%");
    }
    let (lost, doubled) = ledger.judge();
    report.judge(lost, doubled);
    clients.shutdown().await;
    Ok(report)
}
