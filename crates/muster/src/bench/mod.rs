//! `muster bench`: real masters as processes of their own, with durable logs, and simulated agents and
//! frameworks that speak the real protocol over real sockets; `spawn` has real agents, too, that run real processes.
//!
//! Every figure is a line `name value unit` (or JSON); the exit code is not 0 when a task was lost or started
//! twice.

mod agents;
mod alloc;
mod failover;
mod frameworks;
mod http;
mod launch;
mod ledger;
mod masters;
mod report;
mod spawn;
mod state;
mod wire;

use crate::cli::Output;
use clap::{Args, Subcommand, ValueEnum};
use frameworks::{Pace, Shared};
use muster_model::Resources;
use muster_proto::json::Codec;
use std::{process::ExitCode, sync::Arc};
use tokio::task::JoinSet;

/// Measure masters and agents on this machine.
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
    /// Tasks that real agents start and finish per second, beside what the machine does without them.
    Spawn(spawn::SpawnArgs),
    /// How long the state of a big cluster takes to read, and what launches feel of it.
    State(state::StateArgs),
    /// How long the offer loops take to offer a cluster, beside a plain pass of the same size; without masters.
    Alloc(alloc::AllocArgs),
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
    /// Simulated agents that share one connection, each with a stream of its own. One agent on each is what a real
    /// cluster has; more take less of this machine for themselves, and fewer of its descriptors.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    agents_per_connection: u16,
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

/// What simulated frameworks speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Api {
    /// Our own stream, as the SDK does.
    Grpc,
    /// The Mesos v1 HTTP API in JSON.
    HttpJson,
    /// The Mesos v1 HTTP API in protobuf.
    HttpProto,
}

impl Shape {
    /// Starts all simulated clients; they run until the set is shut down.
    fn start_clients(&self, api: Api, masters: &[String], pace: &Pace, shared: &Arc<Shared>) -> JoinSet<()> {
        let mut clients = self.start_agents(masters, shared);
        self.add_frameworks(&mut clients, 0, api, masters, pace, shared);
        clients
    }

    fn start_agents(&self, masters: &[String], shared: &Arc<Shared>) -> JoinSet<()> {
        let mut agents = JoinSet::new();
        let roomy = Resources::of(100_000_000, 10_000_000);
        let together = usize::from(self.agents_per_connection);
        for group in 0..self.agents.div_ceil(together) {
            let dialer = Arc::new(wire::Dialer::new(masters, self.agents_per_connection));
            for n in (group * together..self.agents).take(together) {
                agents.spawn(agents::run(n, group, dialer.clone(), roomy.clone(), shared.ledger.clone()));
            }
        }
        agents
    }

    /// Starts frameworks; the first of them is the `first`th, which its name tells.
    fn add_frameworks(
        &self,
        to: &mut JoinSet<()>,
        first: usize,
        api: Api,
        masters: &[String],
        pace: &Pace,
        shared: &Arc<Shared>,
    ) {
        for n in first..first + self.frameworks {
            let (masters, pace, shared) = (masters.to_vec(), pace.clone(), shared.clone());
            match api {
                Api::Grpc => to.spawn(frameworks::run(n, masters, pace, shared)),
                Api::HttpJson => to.spawn(http::run(n, masters, pace, shared, Codec::Json)),
                Api::HttpProto => to.spawn(http::run(n, masters, pace, shared, Codec::Protobuf)),
            };
        }
    }
}

/// Runs a benchmark.
pub(crate) async fn run(args: BenchArgs, output: Output) -> anyhow::Result<ExitCode> {
    let report = match args.which {
        Which::Launch(args) => launch::run(args).await?,
        Which::Failover(args) => failover::run(args).await?,
        Which::Spawn(args) => spawn::run(args).await?,
        Which::State(args) => state::run(args).await?,
        Which::Alloc(args) => alloc::run(&args)?,
    };
    report.print(output);
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
