//! The leader dies, or stands still, under load: nothing acknowledged is lost, nothing happens twice.

use jepsen_style_tests::run::{Options, run};
use jepsen_style_tests::scenarios::named;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_killed_ten_times_in_a_row() -> anyhow::Result<()> {
    let options = Options::of_test(env!("CARGO_TARGET_TMPDIR"), 1);
    run(named("leader-kills")?, &options).await?.verdict()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_stands_still_longer_than_an_election_takes() -> anyhow::Result<()> {
    let options = Options::of_test(env!("CARGO_TARGET_TMPDIR"), 1);
    run(named("leader-pauses")?, &options).await?.verdict()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masters_that_carry_event_streams_of_the_mesos_api_are_killed() -> anyhow::Result<()> {
    let options = Options::of_test(env!("CARGO_TARGET_TMPDIR"), 1);
    run(named("http-forward-kills")?, &options).await?.verdict()
}
