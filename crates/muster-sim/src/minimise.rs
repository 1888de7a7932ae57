//! From a plan that fails to one that fails alike with as little as possible.

use crate::{
    cluster::run,
    fault::{Fault, When},
    plan::{Law, Plan, Run},
};

/// Shrinks a plan whose run breaks a law: faults are left out (delta debugging), the run is shortened,
/// agents, frameworks and shards are taken away, while the same law still breaks. Gives the plan and its run;
/// none if the plan's own run breaks no law. Takes at most `runs` runs.
pub fn minimise(plan: &Plan, runs: usize) -> Option<(Plan, Run)> {
    let first = run(plan);
    let law = first.failure.as_ref()?.law;
    let mut search = Search { law, best: plan.clone(), run: first, left: runs };
    // What struck nobody is not needed, and what came later cannot be.
    let struck = search.run.struck.clone();
    search.attempt(Plan { faults: struck, ..plan.clone() });
    loop {
        let before = search.best.clone();
        search.shorten();
        search.fewer_faults();
        search.smaller();
        if search.best == before {
            return Some((search.best, search.run));
        }
    }
}

struct Search {
    law: Law,
    best: Plan,
    run: Run,
    /// How many runs are left.
    left: usize,
}

impl Search {
    /// Takes the plan if it breaks the same law.
    fn attempt(&mut self, plan: Plan) -> bool {
        if self.left == 0 || plan == self.best {
            return false;
        }
        self.left -= 1;
        let run = run(&plan);
        let is_alike = run.failure.as_ref().is_some_and(|failure| failure.law == self.law);
        if is_alike {
            (self.best, self.run) = (plan, run);
        }
        is_alike
    }

    /// Leaves out chunks of the faults, halves at first, then ever smaller ones.
    fn fewer_faults(&mut self) {
        let mut chunk = self.best.faults.len().div_ceil(2);
        while chunk > 0 {
            let mut at = 0;
            while at < self.best.faults.len() {
                let mut faults = self.best.faults.clone();
                faults.drain(at..(at + chunk).min(faults.len()));
                if !self.attempt(Plan { faults, ..self.best.clone() }) {
                    at += chunk;
                }
            }
            chunk /= 2;
        }
    }

    /// Ends the run soon after the failure, then ever sooner.
    fn shorten(&mut self) {
        let at_ms = self.run.failure.as_ref().map_or(0, |failure| failure.at_ms);
        if at_ms < self.best.ms {
            self.attempt(self.best_of(at_ms + 1));
        }
        let mut cut = self.best.ms / 2;
        while cut >= 100 {
            if !self.attempt(self.best_of(self.best.ms.saturating_sub(cut))) {
                cut /= 2;
            }
            cut = cut.min(self.best.ms / 2);
        }
    }

    fn best_of(&self, ms: u64) -> Plan {
        let in_time = |fault: &&Fault| !matches!(fault.when, When::At(at) if at > ms);
        let faults = self.best.faults.iter().filter(in_time).copied().collect();
        Plan { ms, faults, ..self.best.clone() }
    }

    fn smaller(&mut self) {
        for shards in 1..self.best.shards {
            if self.attempt(Plan { shards, ..self.best.clone() }) {
                break;
            }
        }
        for agents in 1..self.best.agents {
            if self.attempt(Plan { agents, ..self.best.clone() }) {
                break;
            }
        }
        for frameworks in 1..self.best.frameworks {
            if self.attempt(Plan { frameworks, ..self.best.clone() }) {
                break;
            }
        }
    }
}
