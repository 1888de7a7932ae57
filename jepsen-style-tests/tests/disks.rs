//! Disks of masters fail in a few ways: a short slice of what `run --scenario mixed-disks` does for longer.

use jepsen_style_tests::run::{Length, Options, run};
use jepsen_style_tests::scenarios::named;

/// So many rounds, if this machine has what they need. Where all must be tested it has to.
async fn slice(name: &str, rounds: u32) -> anyhow::Result<()> {
    let scenario = named(name)?;
    if let Some(missing) = scenario.missing() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must have what {name} needs: {missing}");
        println!("skipped: {missing}");
        return Ok(());
    }
    let mut options = Options::of_test(env!("CARGO_TARGET_TMPDIR"), 1);
    options.length = Some(Length::Rounds(rounds));
    run(scenario, &options).await?.verdict()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_masters_lose_their_power_twice() -> anyhow::Result<()> {
    slice("power-cut-all", 2).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_does_not_sync_ends_its_master() -> anyhow::Result<()> {
    slice("disk-sync-fails", 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_not_taken_for_a_damaged_one() -> anyhow::Result<()> {
    slice("disk-full", 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_lied_harms_nobody_else() -> anyhow::Result<()> {
    slice("disk-lies", 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_noticed_or_does_no_harm() -> anyhow::Result<()> {
    slice("disk-damaged", 3).await
}
