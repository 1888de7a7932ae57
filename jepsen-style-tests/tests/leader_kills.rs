//! The leader dies, or stands still, under load: nothing acknowledged is lost, nothing happens twice.

use jepsen_style_tests::scenario::{Setup, run};
use jepsen_style_tests::{nemesis, workload::Churn};
use muster_testkit::Plan;
use std::time::Duration;

fn setup(name: &'static str) -> Setup {
    let out = env!("CARGO_TARGET_TMPDIR").into();
    Setup { name, plan: Plan::default(), frameworks: 3, churn: Churn::default(), out }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_killed_ten_times_in_a_row() -> anyhow::Result<()> {
    run(setup("leader-kills"), async |field| nemesis::kill_leaders(field, 10).await).await?.verdict()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_stands_still_longer_than_an_election_takes() -> anyhow::Result<()> {
    let pause = Duration::from_secs(2);
    run(setup("leader-pauses"), async |field| nemesis::pause_leaders(field, 3, pause).await).await?.verdict()
}
