//! Masters and agents fail in turn, in a fixed order: a short slice of what `run --scenario mixed` does for longer.

use jepsen_style_tests::run::{Length, Options, SEED, run};
use jepsen_style_tests::scenarios::named;

/// Deals each kind of fault once, and last that all masters are killed at once.
const FIXED_SEED: u64 = 33;
/// All of them.
const ROUNDS: u32 = 9;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masters_and_agents_fail_in_turn() -> anyhow::Result<()> {
    let mut options = Options::of_test(env!("CARGO_TARGET_TMPDIR"));
    if std::env::var_os(SEED).is_none() {
        options.seed = FIXED_SEED;
    }
    options.length = Some(Length::Rounds(ROUNDS));
    run(named("mixed")?, &options).await?.verdict()
}
