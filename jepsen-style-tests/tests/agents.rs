//! Agents are away for too long, and never come back: a short slice of what the scenarios do for longer.

use jepsen_style_tests::run::{Length, Options, run};
use jepsen_style_tests::scenarios::named;

async fn slice(name: &str, rounds: u32) -> anyhow::Result<()> {
    let mut options = Options::of_test(env!("CARGO_TARGET_TMPDIR"), 1);
    options.length = Some(Length::Rounds(rounds));
    run(named(name)?, &options).await?.verdict()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_are_away_for_longer_than_they_may_be() -> anyhow::Result<()> {
    slice("agent-timeouts", 2).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_marked_gone_and_another_takes_its_place() -> anyhow::Result<()> {
    slice("agent-gone", 1).await
}
