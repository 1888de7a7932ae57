//! What `alloc` is measured against: the plain DRF pass and nothing else. No roles, weights, filters, attributes or
//! names: four numbers for each agent and each framework, and a binary heap.

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

/// Kinds of resources that are counted.
const KINDS: usize = 4;

/// A fleet of numbers.
pub(super) struct Floor {
    agents: Vec<[u64; KINDS]>,
    /// The agents in the order in which they are given.
    order: Vec<u32>,
    total: [u64; KINDS],
    frameworks: usize,
}

impl Floor {
    /// Of agents that are all alike, in random order.
    pub(super) fn new(agents: usize, frameworks: usize) -> Self {
        let agents = vec![[22_000, 3_072_000, 4_096_000, 1_000]; agents];
        let mut order: Vec<u32> = (0..agents.len() as u32).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, rand::random_range(0..=last));
        }
        let mut total = [0; KINDS];
        for agent in &agents {
            for (all, one) in total.iter_mut().zip(agent) {
                *all += one;
            }
        }
        Self { agents, order, total, frameworks }
    }

    /// One pass: each agent whole to the framework with the smallest dominant share, in millionths. How long it took, in
    /// seconds, and how many agents the first framework got.
    pub(super) fn pass(&self) -> (f64, usize) {
        let began = Instant::now();
        let mut used = vec![[0; KINDS]; self.frameworks];
        let mut given = Vec::with_capacity(self.agents.len());
        let mut heap: BinaryHeap<_> = (0..self.frameworks as u32).map(|n| Reverse((0, n))).collect();
        for &agent in &self.order {
            let Some(mut first) = heap.peek_mut() else { break };
            let framework = first.0.1;
            let has: &mut [u64; KINDS] = &mut used[framework as usize];
            let mut dominant = 0;
            for (kind, amount) in self.agents[agent as usize].iter().enumerate() {
                has[kind] += amount;
                dominant = dominant.max(has[kind] * 1_000_000 / self.total[kind]);
            }
            first.0.0 = dominant;
            given.push((framework, agent));
        }
        let of_first = given.iter().filter(|(framework, _)| *framework == 0).count();
        (began.elapsed().as_secs_f64(), of_first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_shares_equally() {
        assert_eq!(Floor::new(1_000, 10).pass().1, 100);
    }
}
