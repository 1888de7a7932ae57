//! `muster bench idle`: what agents cost that do nothing but stay connected.

use super::{Shape, frameworks::Shared, masters::Masters, report::Report, window::Window};
use clap::Args;
use std::time::Duration;
use tokio::sync::mpsc;

#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    shape: Shape,
    /// How long is measured, after a tenth of it in which what connecting took dies down.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    secs: u64,
}

pub(crate) async fn run(args: IdleArgs) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let mut masters = Masters::start(&args.shape).await?;
    let (moments, _unheard) = mpsc::channel(1);
    let shared = Shared::new(moments);
    let mut agents = args.shape.start_agents(&masters.addresses, &shared);
    masters.agents_connected(args.shape.agents).await?;
    tokio::time::sleep(Duration::from_secs_f64(args.secs as f64 / 10.0)).await;
    let window = Window::of(&mut masters, &shared, Duration::from_secs(args.secs)).await?;
    masters.agents_connected(args.shape.agents).await?; // they still are
    let leader = masters.leader().await?;
    report.figure("leader_cpu", window.master_cpu.get(leader).copied().unwrap_or_default(), "%");
    window.tell_cpu(&mut report);
    report.figure("master_rss_max", masters.rss_mib(), "MiB");
    agents.shutdown().await;
    Ok(report)
}
