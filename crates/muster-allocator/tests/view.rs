//! The law of views, for random logs: folding every change equals looking at the registry afterwards.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

#[path = "../../muster-registry/tests/world/mod.rs"]
mod world;

use muster_allocator::{ShardId, View};
use proptest::prelude::*;
use world::{Dice, World};

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..Default::default() })]

    #[test]
    fn folding_changes_equals_looking(
        dice in proptest::collection::vec(any::<Dice>(), 0..240),
        start in any::<prop::sample::Index>(),
    ) {
        let mut world = World::new();
        let start = start.index(dice.len() + 1);
        let shards = [(0, 1), (0, 3), (1, 3), (2, 3)].map(|(index, count)| ShardId { index, count });
        let mut views: Vec<View> = shards.iter().map(|&shard| View::of(&world.registry, shard)).collect();
        for (n, roll) in dice.into_iter().enumerate() {
            if n == start {
                views = shards.iter().map(|&shard| View::of(&world.registry, shard)).collect();
            }
            for change in world.play(roll).changes {
                views.iter_mut().for_each(|view| view.fold(&change));
            }
            for (view, &shard) in views.iter().zip(&shards) {
                prop_assert_eq!(view, &View::of(&world.registry, shard));
            }
        }
    }
}
