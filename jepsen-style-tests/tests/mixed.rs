//! Masters, agents, frameworks and the network fail in turn, in a fixed order: a short slice of what `run --scenario mixed` does for longer.

use jepsen_style_tests::run::{Length, Options, run};
use jepsen_style_tests::scenarios::named;

/// Deals faults of all of them.
const FIXED_SEED: u64 = 33;
/// Half of the deck.
const ROUNDS: u32 = 9;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_and_the_network_fail_in_turn() -> anyhow::Result<()> {
    let mut options = Options::of_test(env!("CARGO_TARGET_TMPDIR"), FIXED_SEED);
    options.length = Some(Length::Rounds(ROUNDS));
    run(named("mixed")?, &options).await?.verdict()
}
