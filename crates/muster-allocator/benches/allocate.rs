//! What the offer loops' machine costs: `cargo bench -p muster-allocator`.
//!
//! The shape is that of `muster bench alloc`, which also measures its floor.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../../muster/src/bench/alloc/fleet.rs"]
mod fleet;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use fleet::Fleet;
use muster_allocator::{Grant, Refused, Shard, ShardId, ShardInput};
use muster_model::Timestamp;

/// As in the binary that is shipped.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A shard that has offered all that is free.
struct Loop {
    shard: Shard,
    granted: Vec<Grant>,
    now: Timestamp,
}

impl Loop {
    fn new(fleet: &Fleet) -> Self {
        let mut shard = Shard::new(fleet.view(ShardId { index: 0, count: 1 }), fleet.policy.clone());
        let granted = shard.step(Timestamp(0), fleet.wish_all()).grants;
        Self { shard, granted, now: Timestamp(0) }
    }

    /// The last of what stands, declined.
    fn declined(&mut self, count: usize) -> Vec<ShardInput> {
        self.now = self.now.plus_ms(1_000);
        let until = self.now.plus_ms(5_000);
        let grants = self.granted.drain(self.granted.len() - count..);
        let refused = |grant: Grant| (grant.n, Some(Refused { resources: grant.resources, until }));
        grants.map(refused).map(|(n, refused)| ShardInput::Returned(n, refused)).collect()
    }
}

/// One pass, after all that stood of so many agents was declined; that is not measured.
fn passes(c: &mut Criterion) {
    let mut group = c.benchmark_group("pass");
    group.sample_size(20);
    for (name, quota, constraints) in
        [("plain", false, false), ("quota", true, false), ("constraints", false, true)]
    {
        let fleet = Fleet::new(10_000, 200, quota, constraints).unwrap();
        for dirty in [100, 10_000] {
            let mut it = Loop::new(&fleet);
            group.bench_function(BenchmarkId::new(name, dirty), |b| {
                b.iter_custom(|times| {
                    let mut took = std::time::Duration::ZERO;
                    for _ in 0..times {
                        let declined = it.declined(dirty.min(it.granted.len()));
                        let now = it.now;
                        it.shard.take_in(now, declined);
                        let began = std::time::Instant::now();
                        let output = it.shard.pass();
                        took += began.elapsed();
                        it.granted.extend(output.grants);
                    }
                    took
                });
            });
        }
    }
    group.finish();
}

/// What is declined, taken in.
fn declines(c: &mut Criterion) {
    let fleet = Fleet::new(10_000, 200, false, false).unwrap();
    let mut it = Loop::new(&fleet);
    c.bench_function("declines/1000", |b| {
        b.iter_custom(|times| {
            let mut took = std::time::Duration::ZERO;
            for _ in 0..times {
                let declined = it.declined(1_000);
                let now = it.now;
                let began = std::time::Instant::now();
                it.shard.take_in(now, declined);
                took += began.elapsed();
                it.granted.extend(it.shard.pass().grants);
            }
            took
        });
    });
    c.bench_function("fold/view_of_10000_agents", |b| {
        b.iter_batched(|| (), |()| fleet.view(ShardId { index: 0, count: 1 }), BatchSize::LargeInput);
    });
}

criterion_group!(benches, passes, declines);
criterion_main!(benches);
