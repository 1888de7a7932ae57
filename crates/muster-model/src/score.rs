//! The placement score of a need on a node: `h = alpha * f + (1 - alpha) * g`, in thousandths.
//!
//! `f`, the affinity, is the share of the need's weight that a node's free resources carry:
//! `sum(need_i * node_i) / sum(node_i)`, each kind first divided by the fleet's largest total of that
//! kind, so that units cancel. `g` is 1 minus the node's utilisation after the placement, so that a
//! higher score is better for both. See `docs/scheduling.md` for the worked example.

use crate::Resources;

/// A score in millionths of one; higher is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Score(pub u64);

const ONE: u128 = 1_000_000;

/// Scores placing `need` on a node that has `total` and of it `free`; `largest` is the fleet's largest
/// total of each kind; `alpha_milli` weighs affinity against balance (600 = 0.6).
///
/// Kinds that are not scalars take no part. A node without scalars scores 0.
pub fn score(
    need: &Resources,
    total: &Resources,
    free: &Resources,
    largest: &Resources,
    alpha_milli: u64,
) -> Score {
    let alpha = u128::from(alpha_milli.min(1000));
    let h = (alpha * affinity(need, total, largest) + (1000 - alpha) * balance(need, total, free)) / 1000;
    Score(h as u64)
}

/// `f`: the mean of the need, weighted by what the node has, in millionths.
pub fn affinity(need: &Resources, node: &Resources, largest: &Resources) -> u128 {
    let (mut weighted, mut weights) = (0u128, 0u128);
    for kind in node.names() {
        let scale = u128::from(largest.quantity(kind));
        if scale == 0 {
            continue;
        }
        let node_i = u128::from(node.quantity(kind)) * ONE / scale;
        let need_i = u128::from(need.quantity(kind)) * ONE / scale;
        weighted += need_i * node_i;
        weights += node_i;
    }
    weighted.checked_div(weights).unwrap_or(0)
}

/// `g`: 1 minus the node's mean utilisation with the need placed, in millionths.
pub fn balance(need: &Resources, total: &Resources, free: &Resources) -> u128 {
    let (mut used, mut kinds) = (0u128, 0u128);
    for kind in total.names() {
        let all = u128::from(total.quantity(kind));
        if all == 0 {
            continue;
        }
        let taken = all.saturating_sub(u128::from(free.quantity(kind))) + u128::from(need.quantity(kind));
        used += (taken * ONE / all).min(ONE);
        kinds += 1;
    }
    used.checked_div(kinds).map_or(0, |mean| ONE - mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The article's example: nodes (4 cpu, 8 mem) twice and (2, 4) twice, used 0.5, 0.5, 0.25, 0.25; a task
    /// of (2, 4); alpha 0.6.
    #[test]
    fn the_articles_example() {
        let (big, small, need) = (Resources::of(4000, 8), Resources::of(2000, 4), Resources::of(2000, 4));
        let free_big = Resources::of(2000, 4);
        let free_small = Resources::none()
            .with("cpus", crate::Value::Scalar(1500))
            .with("mem", crate::Value::Scalar(3000));
        // Largest node is (4, 8): the need is 0.5 of it in both kinds, whatever the node's weights are.
        assert_eq!(affinity(&need, &big, &big), 500_000);
        assert_eq!(affinity(&need, &small, &big), 500_000);
        // A half-used big node is full with the task on it; a quarter-used small one is overfull, capped.
        assert_eq!(balance(&need, &big, &free_big), 0);
        assert_eq!(balance(&need, &small, &free_small), 0);
        assert_eq!(score(&need, &big, &free_big, &big, 600), Score(300_000));
        // On an empty big node the same task leaves half of it.
        assert_eq!(score(&need, &big, &big, &big, 600), Score(500_000));
    }

    #[test]
    fn more_room_scores_higher() {
        let need = Resources::of(1000, 1);
        let total = Resources::of(4000, 8);
        let half = Resources::of(2000, 4);
        assert!(score(&need, &total, &total, &total, 600) > score(&need, &total, &half, &total, 600));
    }
}
