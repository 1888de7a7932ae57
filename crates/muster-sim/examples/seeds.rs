//! Runs seeds of the simulation, replays one, or strikes a small plan at each of its steps:
//! `cargo run --release -p muster-sim --example seeds -- --help`.
//!
//! A seed that fails is shrunk, and the line that replays what is left of it is printed.

#![allow(clippy::disallowed_methods)] // the time it takes is told

use clap::Parser;
use muster_sim::{Counts, Fault, Plan, Run, minimise, run, sweep, tell};
use std::{
    process::ExitCode,
    str::FromStr,
    time::{Duration, Instant},
};

/// The deterministic simulation: all machines of a cluster in one thread, from one seed.
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Stop after this many minutes, whatever is left.
    #[arg(long)]
    minutes: Option<u64>,
    /// Go on after a seed that failed.
    #[arg(long)]
    keep_going: bool,
    /// How many runs the shrinking of one failure may take.
    #[arg(long, default_value_t = 2_000)]
    shrink: usize,
    /// For each seed, a small calm plan is struck at each of its steps, at most so many of a kind.
    #[arg(long, value_name = "MOST")]
    sweep: Option<u64>,
    /// Run this seed alone and tell what came of it.
    #[arg(long, value_name = "SEED")]
    replay: Option<u64>,
    /// Of a replay: how many agents.
    #[arg(long)]
    agents: Option<usize>,
    /// Of a replay: how many frameworks.
    #[arg(long)]
    frameworks: Option<usize>,
    /// Of a replay: how many offer loops.
    #[arg(long)]
    shards: Option<u32>,
    /// Of a replay: for how many ms of virtual time faults strike.
    #[arg(long)]
    ms: Option<u64>,
    /// Of a replay: what goes wrong, separated by commas, or "none".
    #[arg(long)]
    faults: Option<Faults>,
    /// Let some tasks share executors.
    #[arg(long)]
    executors: bool,
    /// Of a replay: print all that happens.
    #[arg(long)]
    tell: bool,
}

/// A list of faults as text.
#[derive(Debug, Clone)]
struct Faults(Vec<Fault>);

impl FromStr for Faults {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let faults = text.split(',').filter(|text| !text.is_empty() && *text != "none");
        faults.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    std::panic::set_hook(Box::new(|_| {})); // a machine's panic is a broken law, and is told as such
    let lawful = match args.replay {
        Some(seed) => replay(&args, seed),
        None => all(&args),
    };
    if lawful { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one plan. Whether all laws held.
fn replay(args: &Args, seed: u64) -> bool {
    let mut plan = Plan::of(seed);
    plan.executors = args.executors;
    plan.agents = args.agents.unwrap_or(plan.agents);
    plan.frameworks = args.frameworks.unwrap_or(plan.frameworks);
    plan.shards = args.shards.unwrap_or(plan.shards);
    plan.ms = args.ms.unwrap_or(plan.ms);
    if let Some(Faults(faults)) = &args.faults {
        plan.faults = faults.clone();
    }
    println!("{plan}");
    let Run { trace, counts, failure, .. } = match args.tell {
        true => tell(&plan, &mut |line| println!("{line}")),
        false => run(&plan),
    };
    println!("trace {trace:016x}: {counts}");
    if let Some(failure) = &failure {
        println!("{failure}");
    }
    failure.is_none()
}

/// Runs many seeds. Whether all laws held in all of them.
fn all(args: &Args) -> bool {
    let began = Instant::now();
    let most = args.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let (mut runs, mut seeds, mut failed) = (0, 0, 0);
    let mut counts = Counts::default();
    for seed in args.from..args.from.saturating_add(args.seeds) {
        if most.is_some_and(|most| began.elapsed() >= most) {
            break;
        }
        let plans = match args.sweep {
            Some(most) => {
                let swept = sweep(&Plan { executors: args.executors, ..Plan::calm(seed) }, most);
                runs += swept.runs;
                counts += swept.counts;
                swept.failed
            }
            None => {
                let plan = Plan { executors: args.executors, ..Plan::of(seed) };
                let run = run(&plan);
                runs += 1;
                counts += run.counts;
                run.failure.map(|_| plan).into_iter().collect()
            }
        };
        seeds += 1;
        for plan in plans {
            failed += 1;
            shrink(&plan, args.shrink);
        }
        if failed > 0 && !args.keep_going {
            break;
        }
    }
    let took = began.elapsed();
    let a_minute = runs as f64 * 60.0 / took.as_secs_f64();
    println!("{seeds} seeds, {runs} runs in {:.1} s, {a_minute:.0} runs a minute", took.as_secs_f64());
    println!("{counts}");
    if failed > 0 {
        println!("{failed} runs failed");
    }
    failed == 0
}

fn shrink(plan: &Plan, runs: usize) {
    println!("seed {} failed; shrinking", plan.seed);
    if let Some((plan, Run { failure: Some(failure), trace, .. })) = minimise(plan, runs) {
        println!("{failure}\n  trace {trace:016x}: {plan}");
    }
}
