//! The network is cut in several shapes: a short slice of what `run --scenario partitions` does for longer.

use jepsen_style_tests::run::{Length, Options, run};
use jepsen_style_tests::scenarios::named;

/// Deals the leader with the smaller part among them.
const FIXED_SEED: u64 = 1;
const ROUNDS: u32 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_is_cut_in_several_shapes() -> anyhow::Result<()> {
    let mut options = Options::of_test(env!("CARGO_TARGET_TMPDIR"), FIXED_SEED);
    options.length = Some(Length::Rounds(ROUNDS));
    run(named("partitions")?, &options).await?.verdict()
}
