//! `muster bench alloc`: the offer loops alone, in this process, on as many threads as there are shards.
//!
//! The shards are the ones that a leader's loop drives ([`muster_allocator::Shard`]), and they are driven as it does. In
//! each cycle frameworks decline what they were offered, for 5 s, and all that is free is offered anew.

mod fleet;
mod floor;
mod loops;

use super::report::Report;
use clap::Args;
use fleet::Fleet;
use floor::Floor;
use loops::{Cycle, Loops};
use std::collections::BTreeMap;

/// Cycles before those that count.
const WARM_UP: usize = 2;

#[derive(Debug, Args)]
pub(crate) struct AllocArgs {
    /// Agents.
    #[arg(long, default_value_t = 10_000, value_parser = at_least_one)]
    agents: usize,
    /// Frameworks, spread over ten roles.
    #[arg(long, default_value_t = 200, value_parser = at_least_one)]
    frameworks: usize,
    /// Every second role has a guarantee and a limit.
    #[arg(long, conflicts_with = "shards")]
    quota: bool,
    /// Every second framework says which agents it wants, by an attribute.
    #[arg(long)]
    constraints: bool,
    /// The part of the agents of which offers are declined in each cycle: 1 = of all.
    #[arg(long, default_value_t = 1.0, value_parser = part)]
    dirty: f64,
    /// Offer loops, each on a thread of its own; with more than one also one alone is measured.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    shards: u32,
    /// Cycles that count, after two that do not.
    #[arg(long, default_value_t = 9, value_parser = at_least_one)]
    cycles: usize,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("must be a number of at least 1".into()),
    }
}

fn part(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(part) if part > 0.0 && part <= 1.0 => Ok(part),
        _ => Err("must be more than 0 and at most 1".into()),
    }
}

/// What cycles took.
#[derive(Default)]
struct Taken(Vec<Cycle>);

impl Taken {
    fn median(&self, of: impl Fn(&Cycle) -> f64) -> f64 {
        median(self.0.iter().map(of).collect())
    }

    /// Microseconds of a core for each offer, of all threads.
    fn us_per_offer(&self) -> f64 {
        self.median(|cycle| (cycle.declines_cpu + cycle.pass_cpu) * 1e6 / cycle.offers.max(1) as f64)
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(0.0)
}

/// Runs in this process alone: there are no masters.
pub(crate) fn run(args: &AllocArgs) -> anyhow::Result<Report> {
    let fleet = Fleet::new(args.agents, args.frameworks, args.quota, args.constraints)?;
    let dirty = ((args.agents as f64 * args.dirty).ceil() as usize).clamp(1, args.agents);
    let floor = Floor::new(dirty, args.frameworks);
    let mut many = Loops::start(&fleet, args.shards)?;
    let mut one = if args.shards > 1 { Some(Loops::start(&fleet, 1)?) } else { None };
    let (mut of_many, mut of_one, mut floors) = (Taken::default(), Taken::default(), Vec::new());
    let mut error = 0.0_f64;
    for n in 0..WARM_UP + args.cycles {
        let cycle = many.cycle(dirty)?;
        let alone = one.as_mut().map(|one| one.cycle(dirty)).transpose()?;
        let (took, of_first) = floor.pass();
        anyhow::ensure!(of_first <= dirty, "the floor gave more than there is");
        if n < WARM_UP {
            continue;
        }
        of_many.0.push(cycle);
        of_one.0.extend(alone);
        floors.push(took);
        if let Some(one) = &one {
            error = error.max(share_error(&many.offered(), &one.offered(), args.agents));
        }
    }
    let floor_ms = median(floors) * 1e3;
    let pass_ms = of_many.median(|cycle| cycle.pass) * 1e3;
    let mut report = Report::default();
    report.figure("pass", pass_ms, "ms");
    // What of it was not spent waiting for a core.
    report.figure("pass_cpu", of_many.median(|cycle| cycle.pass_cpu) * 1e3, "ms");
    report.figure("declines", of_many.median(|cycle| cycle.declines) * 1e3, "ms");
    report.figure("offers_per_cycle", of_many.median(|cycle| cycle.offers as f64), "offers");
    report.figure("floor_plain_drf", floor_ms, "ms");
    report.figure("pass_to_floor", pass_ms / floor_ms, "times");
    report.figure("cpu_per_offer", of_many.us_per_offer(), "us");
    if one.is_some() {
        let alone_ms = of_one.median(|cycle| cycle.pass) * 1e3;
        report.figure("pass_of_one_shard", alone_ms, "ms");
        report.figure("speedup", alone_ms / pass_ms, "times");
        report.figure("cpu_per_offer_to_one_shard", of_many.us_per_offer() / of_one.us_per_offer(), "times");
        report.figure("largest_share_error", error * 100.0, "percent of the fleet");
    }
    report.judge(0, many.doubled() + one.map_or(0, |one| one.doubled()));
    Ok(report)
}

/// The largest difference between what frameworks are offered, as a part of the fleet.
fn share_error(many: &BTreeMap<String, u64>, one: &BTreeMap<String, u64>, agents: usize) -> f64 {
    let fleet = 24_000 * agents as u64;
    let cpus = |all: &BTreeMap<String, u64>, of: &String| all.get(of).copied().unwrap_or(0);
    let names = many.keys().chain(one.keys());
    let errors = names.map(|it| cpus(many, it).abs_diff(cpus(one, it)));
    errors.max().unwrap_or(0) as f64 / fleet as f64
}
