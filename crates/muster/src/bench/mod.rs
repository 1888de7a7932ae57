//! `muster bench`: real masters as processes of their own, with durable logs, and simulated agents and
//! frameworks that speak the real protocol over real sockets; `spawn` has real agents, too, that run real processes.
//!
//! Every figure is a line `name value unit` (or JSON); the exit code is not 0 when a task was lost or started
//! twice.

mod agent_processes;
mod agents;
mod alloc;
mod cables;
mod failover;
mod floors;
mod frameworks;
mod http;
mod idle;
mod latency;
mod launch;
mod ledger;
mod lifecycle;
mod list;
mod masters;
mod memory;
mod offers;
mod play;
mod preload;
mod recover;
mod report;
mod snapshot;
mod spawn;
mod state;
mod window;
mod wire;

use crate::{cli::Output, signals::Stop};
use anyhow::ensure;
use clap::{Args, Subcommand, ValueEnum};
use frameworks::{Pace, Shared};
use muster_proto::json::Codec;
use report::Report;
use std::{process::ExitCode, sync::Arc, time::Duration};
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
    /// Whole lives of tasks per second: launched, running, finished, acknowledged.
    Lifecycle(lifecycle::LifecycleArgs),
    /// Offers per second that reach frameworks which decline all of them.
    Offers(offers::OffersArgs),
    /// How long a task takes from its submission until it is seen running, at a fixed rate.
    Latency(latency::LatencyArgs),
    /// How long a killed leader is missed.
    Failover(failover::FailoverArgs),
    /// Tasks that real agents start and finish per second, beside what the machine does without them.
    Spawn(spawn::SpawnArgs),
    /// What this machine does without muster: syncs, a quorum's commits, streams, processes.
    Floors(floors::FloorsArgs),
    /// Memory that masters need for each agent and each task.
    Memory(memory::MemoryArgs),
    /// What connected agents cost masters that have nothing to do.
    Idle(idle::IdleArgs),
    /// How long masters that were all killed take to start from their snapshots.
    Recover(recover::RecoverArgs),
    /// What launches feel of snapshots that are written.
    Snapshot(snapshot::SnapshotArgs),
    /// How long a page of tasks takes to read.
    List(list::ListArgs),
    /// A part of the simulated agents: for `muster bench` itself.
    #[command(hide = true)]
    AgentsProcess(agent_processes::AgentsProcessArgs),
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
    #[arg(long, default_value_t = 1000, value_parser = positive)]
    agents: usize,
    /// Simulated agents that share one connection, each with a stream of its own. One agent on each is what a real
    /// cluster has; more take less of this machine for themselves, and fewer of its descriptors.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    agents_per_connection: u16,
    /// Processes that the simulated agents are spread over, beside this one; 0 = as many as open files ask for, none if
    /// this one may have enough.
    #[arg(long, value_name = "PROCESSES", default_value_t = 0)]
    agent_processes: u16,
    /// Simulated frameworks.
    #[arg(long, default_value_t = 64, value_parser = positive)]
    frameworks: usize,
    /// Offer loops of the leader; 0 = one for each core.
    #[arg(long, default_value_t = 0)]
    shards: u32,
    /// A setting of the masters, as in their file: `session.ping-ms=15000`. May be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<String>,
    /// Where the masters' data is: an empty directory, or none yet; a temporary directory when not given. A disk that forgets measures nothing.
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

/// Reads a number of at least 1.
fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("write a whole number from 1".into()),
    }
}

/// Reads a setting: its names and its value as in TOML.
fn setting(text: &str) -> Result<String, String> {
    let is_whole = text.split_once('=').is_some_and(|(key, _)| key.contains('.')) && !text.contains('\n');
    if is_whole {
        Ok(text.to_owned())
    } else {
        Err("write SECTION.KEY=VALUE, as in session.ping-ms=15000".into())
    }
}

impl Shape {
    /// Says what cannot be.
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            matches!(self.masters, 1 | 3 | 5),
            "--masters is {}; measure 1, 3 or 5 masters",
            self.masters
        );
        self.check_connections(self.masters)
    }

    /// The same for agents that dial only so many of the masters.
    fn check_connections(&self, dialled: usize) -> anyhow::Result<()> {
        let (each, max) = (self.connections().div_ceil(dialled), agent_processes::connections_max());
        ensure!(
            each <= max,
            "--agents is {}: that is {each} connections at a master, which may have {max} for agents; raise the limit of \
             open files (ulimit -Hn) or let agents share connections by --agents-per-connection",
            self.agents
        );
        Ok(())
    }

    /// How often each framework does what all together shall do so often in a second.
    fn every(&self, per_second: f64) -> Duration {
        Duration::from_secs_f64(self.frameworks as f64 / per_second)
    }

    /// Starts all simulated clients; they run until the set is shut down.
    fn start_clients(&self, api: Api, masters: &[String], pace: &Pace, shared: &Arc<Shared>) -> JoinSet<()> {
        let mut clients = self.start_agents(masters, shared);
        self.add_frameworks(&mut clients, 0, api, masters, pace, shared);
        clients
    }

    /// Starts the simulated agents, here or in processes of their own.
    fn start_agents(&self, masters: &[String], shared: &Arc<Shared>) -> JoinSet<()> {
        let (together, ledger) = (usize::from(self.agents_per_connection), &shared.ledger);
        let processes = match self.agent_processes {
            0 => agent_processes::needed(self.connections(), self.frameworks, agent_processes::descriptors()),
            given => usize::from(given),
        };
        if processes == 0 {
            return agent_processes::here(0..self.agents, masters, self.agents_per_connection, ledger);
        }
        let mut all = JoinSet::new();
        for range in agent_processes::split(self.agents, together, processes) {
            all.spawn(agent_processes::apart(range, masters, self, ledger));
        }
        all
    }

    /// Connections of all agents together.
    fn connections(&self) -> usize {
        self.agents.div_ceil(usize::from(self.agents_per_connection))
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

/// Ctrl-C or SIGTERM.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; nothing is left running")]
struct Interrupted;

/// Runs a benchmark.
pub(crate) async fn run(args: BenchArgs, output: Output) -> anyhow::Result<ExitCode> {
    crate::master::raise_open_files();
    if !args.which.has_real_agents() {
        crate::master::use_small_pages(); // tasks of real ones would inherit that
    }
    let report = match args.which {
        Which::AgentsProcess(args) => return agent_processes::run(args).await,
        which if which.has_real_agents() => measure(which).await?, // these end what agents have started themselves
        which => {
            let mut stop = Stop::listen()?;
            tokio::select! {
                report = measure(which) => report?,
                // Dropped, it takes its processes and its temporary directories with it.
                () = stop.asked() => return Err(Interrupted.into()),
            }
        }
    };
    report.print(output);
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Which {
    fn has_real_agents(&self) -> bool {
        match self {
            Self::Spawn(_) => true,
            Self::Latency(args) => args.has_real_agents(),
            _ => false,
        }
    }
}

async fn measure(which: Which) -> anyhow::Result<Report> {
    match which {
        Which::AgentsProcess(_) => anyhow::bail!("agents measure nothing"),
        // It computes and waits for nothing: on a thread of its own, so that Ctrl-C is heard.
        Which::Alloc(args) => tokio::task::spawn_blocking(move || alloc::run(&args)).await?,
        Which::Launch(args) => launch::run(args).await,
        Which::Lifecycle(args) => lifecycle::run(args).await,
        Which::Offers(args) => offers::run(args).await,
        Which::Latency(args) => latency::run(args).await,
        Which::Failover(args) => failover::run(args).await,
        Which::Spawn(args) => spawn::run(args).await,
        Which::Floors(args) => floors::run(args).await,
        Which::Memory(args) => memory::run(args).await,
        Which::Idle(args) => idle::run(args).await,
        Which::Recover(args) => recover::run(args).await,
        Which::Snapshot(args) => snapshot::run(args).await,
        Which::List(args) => list::run(args).await,
        Which::State(args) => state::run(args).await,
    }
}
