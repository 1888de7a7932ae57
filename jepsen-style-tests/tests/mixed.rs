//! Masters and agents fail in turn, in a fixed order: a short slice of what `run --scenario mixed` does for
//! hours.

use jepsen_style_tests::run::{Options, run};
use jepsen_style_tests::scenarios::named;
use std::time::Duration;

/// Unless the environment has another.
const FIXED_SEED: u64 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masters_and_agents_fail_in_turn() -> anyhow::Result<()> {
    let mut options = Options::of_test(env!("CARGO_TARGET_TMPDIR"));
    if std::env::var_os(jepsen_style_tests::run::SEED).is_none() {
        options.seed = FIXED_SEED;
    }
    options.time = Some(Duration::from_secs(20));
    run(named("mixed")?, &options).await?.verdict()
}
