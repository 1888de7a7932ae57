//! `muster bench latency`: from the moment a task should be submitted until its framework sees it running, at a fixed rate.

use super::{
    Api, Shape,
    floors::{FloorFlags, Load},
    frameworks::{Pace, Play, Shared},
    masters::Masters,
    report::Report,
    spawn,
    window::{Window, warm_up},
};
use anyhow::ensure;
use clap::{Args, ValueEnum};
use std::{
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::sync::mpsc;

/// ACCEPTs of a framework on their way: enough that none waits for another.
const IN_FLIGHT: usize = 4_096;
/// Tasks that are begun on a real agent in a second, one after the other.
const COMMANDS: u64 = 20;
const COMMANDS_MAX: u64 = 50;

#[derive(Debug, Args)]
pub(crate) struct LatencyArgs {
    #[command(flatten)]
    shape: Shape,
    /// What frameworks speak.
    #[arg(long, value_enum, default_value_t = Api::Grpc)]
    api: Api,
    /// What runs the tasks.
    #[arg(long, value_enum, default_value_t = Executor::Simulated)]
    executor: Executor,
    /// Tasks per second of all frameworks together; 1,000 when not given, and 20 of real commands, which are begun one
    /// after the other.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// How long is measured, after a quarter of it as warm-up.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    secs: u64,
    #[command(flatten)]
    floors: FloorFlags,
}

/// What runs tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Executor {
    /// Simulated agents, which start nothing.
    Simulated,
    /// One real agent, which runs `/bin/true`.
    Command,
}

impl LatencyArgs {
    pub(crate) fn has_real_agents(&self) -> bool {
        self.executor == Executor::Command
    }

    /// Says what cannot be.
    fn check(&self) -> anyhow::Result<()> {
        self.shape.check()?;
        if self.executor == Executor::Command {
            let rate = self.rate.unwrap_or(COMMANDS);
            ensure!(
                rate <= COMMANDS_MAX,
                "--rate is {rate}; of real commands at most {COMMANDS_MAX} are begun in a second"
            );
            ensure!(self.api == Api::Grpc, "--api: real commands are launched over grpc only; leave it out");
        }
        Ok(())
    }
}

pub(crate) async fn run(args: LatencyArgs) -> anyhow::Result<Report> {
    args.check()?;
    let mut report = Report::default();
    let alone = Load { clients: 1, records: 1 };
    args.floors.commits(args.shape.work_dir.as_deref(), alone, &mut report).await?;
    match args.executor {
        Executor::Simulated => simulated(&args, report).await,
        Executor::Command => {
            let rate = args.rate.unwrap_or(COMMANDS);
            let timed = usize::try_from(rate * args.secs)?;
            let shape = &args.shape;
            let spawn = spawn::SpawnArgs::timed(shape.masters, rate as f64, timed, shape.work_dir.clone());
            spawn::run_into(spawn, report).await
        }
    }
}

async fn simulated(args: &LatencyArgs, mut report: Report) -> anyhow::Result<Report> {
    let mut masters = Masters::start(&args.shape).await?;
    let (moments, _unheard) = mpsc::channel(1);
    let shared = Shared::playing(Play { by_clock: true, ..Play::default() }, moments);
    let mut pace = Pace::unpaced(1, IN_FLIGHT);
    pace.every = args.shape.every(args.rate.unwrap_or(1_000) as f64);
    let mut clients = args.shape.start_clients(args.api, &masters.addresses, &pace, &shared);
    let running = || shared.ledger.running.load(Ordering::Relaxed) as usize;
    let warm = Duration::from_secs_f64(args.secs as f64 / 4.0);
    warm_up(running, args.shape.frameworks, warm).await?;
    let window = Window::of(&mut masters, &shared, Duration::from_secs(args.secs)).await?;
    shared.settle().await;
    report.figure("seen_running", window.running / window.secs, "tasks/s");
    for (name, times) in [("accepted", &shared.answered), ("running_seen", &shared.latency)] {
        let times = times.lock().unwrap_or_else(PoisonError::into_inner);
        report.quantiles(name, &times, &[("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)]);
    }
    window.tell_cpu(&mut report);
    let (lost, doubled) = shared.ledger.judge();
    report.judge(lost, doubled);
    clients.shutdown().await;
    Ok(report)
}
