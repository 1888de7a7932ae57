//! Many seeds of a whole cluster. `MUSTER_SIM_SEED=n` runs one seed; `MUSTER_SIM_SEEDS=n` that many.

use muster_sim::Cluster;

fn run(seed: u64) -> (u64, usize, (u64, usize, u64)) {
    let shards = 1 + (seed % 3) as u32;
    let mut cluster = Cluster::new(seed, 4, 3, shards);
    cluster.run(120_000);
    let launched = cluster.heal();
    (cluster.trace(), launched, cluster.counts())
}

#[test]
fn everything_comes_to_its_end_whatever_goes_wrong() {
    if let Some(seed) = std::env::var("MUSTER_SIM_SEED").ok().and_then(|text| text.parse().ok()) {
        println!("seed {seed}: {:?}", run(seed));
        return;
    }
    let seeds = std::env::var("MUSTER_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let (mut terms, mut launches, mut crashes) = (0, 0, 0);
    for seed in 0..seeds {
        println!("MUSTER_SIM_SEED={seed}"); // shown when the next lines panic
        let (_, launched, (led, started, crashed)) = run(seed);
        assert!(started <= launched, "seed {seed}: {started} of {launched} launches were started");
        terms += led;
        launches += launched;
        crashes += crashed;
    }
    // A simulation in which nothing happens proves nothing.
    assert!(terms > 10 * seeds && launches as u64 > 100 * seeds && crashes > 10 * seeds);
}

#[test]
fn a_seed_replays_to_the_last_event() {
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).0, run(8).0);
}
