//! A fault at every step: a plan is run once to count its steps, then once more for each of them.

use crate::{
    cluster::run,
    fault::{Fault, Step, What, When},
    plan::{Counts, Plan},
};

/// What a sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sweep {
    /// How many plans were run.
    pub runs: u64,
    /// What happened in all of them.
    pub counts: Counts,
    /// The plans that broke a law.
    pub failed: Vec<Plan>,
}

/// Runs a plan once for each step it makes and each fault that can strike there, with that fault added to its
/// own. Of a kind of step at most `most` are struck, spread over the run.
pub fn sweep(plan: &Plan, most: u64) -> Sweep {
    let mut sweep = Sweep::default();
    let steps = run(plan).steps;
    for (&step, &count) in &steps {
        let stride = count.div_ceil(most.max(1)).max(1);
        for n in (1..=count).step_by(stride as usize) {
            for &what in step.whats() {
                sweep.one(plan, step, n, what);
            }
        }
    }
    sweep
}

impl Sweep {
    fn one(&mut self, plan: &Plan, step: Step, n: u64, what: What) {
        let mut plan = plan.clone();
        // How much is lost, and how long it takes, differs from step to step.
        let pick = plan.seed.wrapping_mul(31).wrapping_add(n) % 1_000;
        plan.faults.push(Fault { when: When::Step(step, n), what, pick });
        let run = run(&plan);
        self.runs += 1;
        self.counts += run.counts;
        if run.failure.is_some() {
            self.failed.push(plan);
        }
    }
}
