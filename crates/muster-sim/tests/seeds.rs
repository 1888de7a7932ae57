//! A slice of the seeds, steps and planted bugs; `examples/seeds.rs` runs as many as one likes.

use muster_sim::{Counts, Fault, Law, Plan, Planted, Step, What, When, minimise, run, sweep};

/// Runs a plan in which every law must hold; the message is the line that replays it.
fn lawful(plan: &Plan) -> Counts {
    let run = run(plan);
    assert_eq!(run.failure, None, "cargo run -p muster-sim --example seeds -- {plan}");
    run.counts
}

#[test]
fn everything_comes_to_its_end_whatever_goes_wrong() {
    let seeds = 1..=40;
    let mut counts = Counts::default();
    seeds.clone().for_each(|seed| counts += lawful(&Plan::of(seed)));
    // A simulation in which nothing happens proves nothing.
    let seeds = seeds.count() as u64;
    assert!(counts.terms > 5 * seeds && counts.crashes > 4 * seeds && counts.breaks > 4 * seeds, "{counts}");
    assert!(counts.launches > 30 * seeds && counts.acknowledged > counts.launches, "{counts}");
    assert!(counts.started <= counts.launches && counts.started > counts.launches * 9 / 10, "{counts}");
    assert!(
        counts.failovers > seeds / 2
            && counts.removed > seeds / 4
            && counts.forged > 4 * seeds
            && counts.operated > seeds / 2
            && counts.restored > seeds,
        "{counts}"
    );
}

#[test]
fn every_step_may_be_the_last() {
    let swept = sweep(&Plan::calm(1), 6);
    let failed: Vec<String> = swept.failed.iter().map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(swept.runs > 6 * Step::ALL.len() as u64 / 2, "{}", swept.runs);
    assert!(swept.counts.crashes > swept.runs / 4 && swept.counts.terms > swept.runs, "{}", swept.counts);
}

#[test]
fn tasks_in_executors_come_to_their_end_whatever_goes_wrong() {
    let mut counts = Counts::default();
    (1..=40).for_each(|seed| counts += lawful(&Plan { executors: true, ..Plan::of(seed) }));
    assert!(counts.started > counts.launches * 6 / 10, "{counts}");
    let swept = sweep(&Plan { executors: true, ..Plan::calm(2) }, 4);
    let failed: Vec<String> = swept.failed.iter().map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn every_kind_of_step_is_made_and_every_fault_strikes() {
    let runs: Vec<_> = (1..=20).map(|seed| run(&Plan::of(seed))).collect();
    for step in Step::ALL {
        assert!(runs.iter().any(|run| run.steps.contains_key(step)), "{}", step.name());
    }
    for what in What::ALL {
        let struck = runs.iter().flat_map(|run| &run.struck).any(|fault| fault.what == *what);
        assert!(struck, "{}", what.name());
    }
}

#[test]
fn a_seed_replays_to_the_last_event() {
    let plan = Plan::of(7);
    assert_eq!(run(&plan), run(&plan));
    assert_ne!(run(&plan).trace, run(&Plan::of(8)).trace);
}

#[test]
fn a_fault_left_out_leaves_the_rest_as_it_was_until_then() {
    let mut plan = Plan { faults: Vec::new(), ..Plan::calm(3) };
    let late = Fault { when: When::At(4_000), what: What::Cut, pick: 1 };
    plan.faults.push(late);
    let with = told_until(&plan, 3_999);
    plan.faults.clear();
    assert_eq!(with, told_until(&plan, 3_999));
}

fn told_until(plan: &Plan, ms: u64) -> Vec<String> {
    let mut lines = Vec::new();
    muster_sim::tell(plan, &mut |line| lines.push(line.to_owned()));
    let at = |line: &String| line.trim_start().split(' ').next().and_then(|at| at.parse::<u64>().ok());
    lines.retain(|line| at(line).is_some_and(|at| at <= ms));
    assert!(lines.len() > 100);
    lines
}

/// A planted bug is found by one of the first seeds, and shrunk to faults that it all needs.
fn found_and_shrunk(planted: Planted, law: Law, by: &[What]) {
    let small = |seed| Plan { agents: 1, frameworks: 1, ms: 8_000, planted: Some(planted), ..Plan::of(seed) };
    let plans = (1..100).map(small);
    let fails = |plan: &Plan| run(plan).failure.is_some_and(|failure| failure.law == law);
    let found = plans.into_iter().find(fails).expect("no seed found the planted bug");
    let (least, last) = minimise(&found, 1_000).expect("it failed, and fails again");
    assert_eq!(last.failure.map(|failure| failure.law), Some(law));
    assert!(least.faults.len() < found.faults.len() / 4, "{least}");
    assert!(least.faults.iter().any(|fault| by.contains(&fault.what)), "{least}");
    for n in 0..least.faults.len() {
        let mut without = least.clone();
        without.faults.remove(n);
        assert!(!fails(&without), "{} is not needed: {least}", least.faults[n]);
    }
    // Its line replays it, to the last event.
    let line = least.to_string();
    let faults = line.rsplit_once("--faults ").expect("a plan names its faults").1;
    let faults = faults.split(',').map(|text| text.parse().expect("faults round trip")).collect();
    assert_eq!(run(&Plan { faults, ..least.clone() }).trace, last.trace);
    // Without the bug nothing is wrong.
    lawful(&Plan { planted: None, ..least });
}

#[test]
fn a_shell_that_starts_a_repeated_order_again_is_found() {
    found_and_shrunk(Planted::StartsTwice, Law::Started, &[What::Again, What::Stale]);
}

#[test]
fn a_shell_that_syncs_too_late_is_found() {
    found_and_shrunk(Planted::SyncsLate, Law::Kept, &[What::Crash]);
}
