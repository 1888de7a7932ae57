//! `muster bench offers`: how many offers reach frameworks that decline all of them.

use super::{
    Api, Shape,
    floors::FloorFlags,
    frameworks::{Pace, Play, Shared},
    masters::Masters,
    report::Report,
    window::{Window, warm_up},
};
use clap::Args;
use std::{sync::atomic::Ordering, time::Duration};
use tokio::sync::mpsc;

#[derive(Debug, Args)]
pub(crate) struct OffersArgs {
    #[command(flatten)]
    shape: Shape,
    /// What frameworks speak.
    #[arg(long, value_enum, default_value_t = Api::Grpc)]
    api: Api,
    /// How long a framework keeps the first of its offers before it declines all that it has, in milliseconds. What it
    /// declines may be offered again at once.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    decline_after: u64,
    /// How long is measured, after a quarter of it as warm-up.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    secs: u64,
    #[command(flatten)]
    floors: FloorFlags,
}

pub(crate) async fn run(args: OffersArgs) -> anyhow::Result<Report> {
    args.shape.check()?;
    let mut report = Report::default();
    let floor = args.floors.echo(&mut report).await?;
    let mut masters = Masters::start(&args.shape).await?;
    let (moments, _unheard) = mpsc::channel(1);
    let declines = Some(Duration::from_millis(args.decline_after));
    let shared = Shared::playing(Play { declines, ..Play::default() }, moments);
    let mut clients = args.shape.start_agents(&masters.addresses, &shared);
    masters.agents_connected(args.shape.agents).await?;
    let pace = Pace::unpaced(1, 1);
    args.shape.add_frameworks(&mut clients, 0, args.api, &masters.addresses, &pace, &shared);
    let offers = || shared.ledger.offers.load(Ordering::Relaxed) as usize;
    let warm = Duration::from_secs_f64(args.secs as f64 / 4.0);
    warm_up(offers, args.shape.frameworks, warm).await?;
    let window = Window::of(&mut masters, &shared, Duration::from_secs(args.secs)).await?;
    let rate = window.offers / window.secs;
    report.figure("offers", rate, "offers/s");
    if let Some(floor) = floor {
        report.figure("of_floor_stream_echo", rate / floor, "ratio");
    }
    report.figure("master_rss_max", masters.rss_mib(), "MiB");
    window.tell_cpu(&mut report);
    clients.shutdown().await;
    Ok(report)
}
