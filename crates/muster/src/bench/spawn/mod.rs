//! `muster bench spawn`: how many real tasks agents start and finish in a second, beside how many processes this
//! machine starts without them, in turn and in the same run; and how long a launch takes from the order that reaches
//! an agent to the command that runs.

pub(super) mod floor;
mod framework;

use super::report::{Report, record, times};
use crate::{
    cluster::{Cluster, Plan, free_ports},
    sandboxes::agent::Agent,
    signals::Stop,
};
use anyhow::{Context, ensure};
use clap::Args;
use floor::Way;
use framework::Tasks;
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;

#[derive(Debug, Args)]
pub(crate) struct SpawnArgs {
    /// Masters: 1, 3 or 5 processes.
    #[arg(long, default_value_t = 3)]
    masters: usize,
    /// Real agents, each of which shall run a part of the tasks.
    #[arg(long, default_value_t = 1)]
    agents: usize,
    /// Tasks in all rounds together.
    #[arg(long, default_value_t = 5_000)]
    tasks: usize,
    /// Rounds: in each the machine is measured without a cluster, and then the agents.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,
    /// Processes that are started without a cluster in each round, for each way to do it.
    #[arg(long, default_value_t = 400)]
    floor_processes: usize,
    /// Launches that are timed, before the rounds; 0 = none.
    #[arg(long, default_value_t = 200)]
    timed: usize,
    /// How many of those are begun in a second.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// The program that is run, and its arguments, separated by spaces.
    #[arg(long, default_value = "/bin/true", value_name = "PROGRAM")]
    cmd: String,
    /// Run tasks without control groups.
    #[arg(long)]
    no_cgroups: bool,
    /// Where all data is; a temporary directory when not given. A disk that forgets measures nothing.
    #[arg(long, value_name = "DIR")]
    work_dir: Option<std::path::PathBuf>,
}

/// How long the tasks of one round may take.
const ROUND: Duration = Duration::from_secs(600);

impl SpawnArgs {
    /// Times tasks on one agent and nothing else: so many, so many of them in a second.
    pub(super) fn timed(
        masters: usize,
        rate: f64,
        timed: usize,
        work_dir: Option<std::path::PathBuf>,
    ) -> Self {
        let cmd = "/bin/true".into();
        Self {
            masters,
            agents: 1,
            tasks: timed,
            rounds: 0,
            floor_processes: 0,
            timed,
            rate,
            cmd,
            no_cgroups: false,
            work_dir,
        }
    }
}

pub(crate) async fn run(args: SpawnArgs) -> anyhow::Result<Report> {
    run_into(args, Report::default()).await
}

/// Measures, and adds to the report.
pub(super) async fn run_into(args: SpawnArgs, report: Report) -> anyhow::Result<Report> {
    let command: Vec<String> = args.cmd.split_whitespace().map(str::to_owned).collect();
    ensure!(!command.is_empty(), "--cmd is empty; give a program, for example /bin/true");
    ensure!(args.agents > 0 && args.tasks > 0, "--agents and --tasks must be at least 1");
    ensure!(args.rate > 0.0, "--rate is {}; give a number above 0", args.rate);
    ensure!(matches!(args.masters, 1 | 3 | 5), "--masters is {}; measure 1, 3 or 5 masters", args.masters);
    let (dir, _temporary) = match &args.work_dir {
        Some(dir) => (dir.clone(), None),
        None => {
            let temporary = tempfile::tempdir().context("cannot make a temporary directory")?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    let groups = if args.no_cgroups { String::new() } else { format!("muster-bench-{}", std::process::id()) };
    let agent_ports = free_ports(args.agents)?;
    let addresses: Vec<_> = agent_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let plan = Plan {
        dir,
        master_ports: free_ports(args.masters)?,
        agent_ports,
        agent_resources: "cpus:100000;mem:1000000".into(),
        agent_arguments: vec![format!("--cgroup-root={groups}")],
        temporary: true,
    };
    let mut stop = Stop::listen()?;
    let mut cluster = Cluster::start(&plan)?;
    let measured = tokio::select! {
        measured = measure(&args, &command, &mut cluster, &addresses, report) => measured,
        () = stop.asked() => Err(super::Interrupted.into()),
    };
    cluster.end().await; // and with it all that tasks have outside of its directory
    measured
}

async fn measure(
    args: &SpawnArgs,
    command: &[String],
    cluster: &mut Cluster,
    agents: &[String],
    mut report: Report,
) -> anyhow::Result<Report> {
    cluster.ready().await?;
    let mut tasks = Tasks::start(cluster.master_addresses(), command)?;
    timed(args, &mut tasks, agents, &mut report).await?;
    let (mut rates, mut ratios) = (Vec::new(), Vec::new());
    let mut floors: Vec<(String, Vec<f64>)> = Vec::new();
    let each = args.tasks.div_ceil(usize::from(args.rounds).max(1));
    for round in 1..=args.rounds {
        let mut best: f64 = 0.0;
        let mut n = 0;
        for (way, name) in [(Way::PosixSpawn, "posix_spawn"), (Way::ForkExec, "fork_exec")] {
            for threads in [1, 4] {
                let (command, processes) = (command.to_vec(), args.floor_processes.max(1));
                let rate = spawn_blocking(move || floor::rate(way, threads, processes, &command)).await??;
                match floors.get_mut(n) {
                    Some((_, rates)) => rates.push(rate),
                    None => floors.push((format!("floor_{name}_x{threads}"), vec![rate])),
                }
                best = best.max(rate);
                n += 1;
            }
        }
        let begun = Instant::now();
        tasks.launch(each, args.agents, ROUND).await?;
        let rate = each as f64 / begun.elapsed().as_secs_f64();
        eprintln!("round {round}: {rate:.0} tasks/s, {best:.0} processes/s without a cluster");
        rates.push(rate);
        ratios.push(rate / best);
    }
    if args.rounds > 0 {
        report.figure("tasks", median(&mut rates), "tasks/s");
    }
    for (name, rates) in &mut floors {
        report.figure(name, median(rates), "processes/s");
    }
    if args.rounds > 0 {
        report.figure("of_best_floor", median(&mut ratios), "ratio");
    }
    let (lost, doubled) = tasks.end().await?;
    report.judge(lost, doubled);
    Ok(report)
}

/// Launches one task after the other, at a pace that leaves the machine time.
async fn timed(
    args: &SpawnArgs,
    tasks: &mut Tasks,
    agents: &[String],
    report: &mut Report,
) -> anyhow::Result<()> {
    if args.timed == 0 {
        return Ok(());
    }
    let mut seen = times();
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / args.rate));
    for _ in 0..args.timed {
        ticks.tick().await;
        record(&mut seen, tasks.launch_one(ROUND).await?);
    }
    let which = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)];
    report.quantiles("running_seen", &seen, &which);
    // Each agent tells of its own; of several the slowest counts.
    let mut worst = [0.0_f64; 2];
    for address in agents {
        let metrics = Agent::new(None).metrics(address).await?;
        for (worst, name) in worst.iter_mut().zip(["p50", "p99"]) {
            *worst = worst.max(metrics.get(&format!("muster/launch_ms/{name}")).copied().unwrap_or(0.0));
        }
    }
    report.figure("order_to_exec_p50", worst[0], "ms");
    report.figure("order_to_exec_p99", worst[1], "ms");
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
