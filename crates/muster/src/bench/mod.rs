//! `muster bench`: real masters as processes of their own, with durable logs, and simulated agents and
//! frameworks that speak the real protocol over real sockets.
//!
//! Every figure is a line `name value unit` (or JSON); the exit code is not 0 when a task was lost or started
//! twice.

mod agents;
mod failover;
mod frameworks;
mod launch;
mod ledger;
mod masters;
mod report;

use crate::cli::Output;
use clap::{Args, Subcommand};
use frameworks::{Pace, Shared};
use muster_model::Resources;
use std::{process::ExitCode, sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

/// Measure masters on this machine.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    which: Which,
}

#[derive(Debug, Subcommand)]
enum Which {
    /// Durable launches per second, and how long a launch takes.
    Launch(launch::LaunchArgs),
    /// How long a killed leader is missed.
    Failover(failover::FailoverArgs),
}

/// What every benchmark's cluster is made of.
#[derive(Debug, Clone, Args)]
pub(crate) struct Shape {
    /// Masters: 1, 3 or 5 processes.
    #[arg(long, default_value_t = 3)]
    masters: usize,
    /// Simulated agents.
    #[arg(long, default_value_t = 1000)]
    agents: usize,
    /// Simulated frameworks.
    #[arg(long, default_value_t = 64)]
    frameworks: usize,
    /// Offer loops of the leader; 0 = one for each core.
    #[arg(long, default_value_t = 0)]
    shards: u32,
    /// Where the masters' data is; a temporary directory when not given. A disk that forgets measures nothing.
    #[arg(long, value_name = "DIR")]
    work_dir: Option<std::path::PathBuf>,
}

/// A connection to a master, as an agent or a scheduler opens it.
async fn dial(master: &str) -> Result<Channel, tonic::Status> {
    let wrong = |error: tonic::transport::Error| tonic::Status::unavailable(error.to_string());
    let endpoint = Endpoint::from_shared(format!("http://{master}")).map_err(wrong)?;
    endpoint.tcp_nodelay(true).connect_timeout(Duration::from_secs(2)).connect().await.map_err(wrong)
}

impl Shape {
    /// Starts all simulated clients; they run until the set is shut down.
    fn start_clients(&self, masters: &[String], pace: &Pace, shared: &Arc<Shared>) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        let roomy = Resources::of(100_000_000, 10_000_000);
        for n in 0..self.agents {
            clients.spawn(agents::run(n, masters.to_vec(), roomy.clone(), shared.ledger.clone()));
        }
        for n in 0..self.frameworks {
            clients.spawn(frameworks::run(n, masters.to_vec(), pace.clone(), shared.clone()));
        }
        clients
    }
}

/// Runs a benchmark.
pub(crate) async fn run(args: BenchArgs, output: Output) -> anyhow::Result<ExitCode> {
    let report = match args.which {
        Which::Launch(args) => launch::run(args).await?,
        Which::Failover(args) => failover::run(args).await?,
    };
    report.print(output);
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
