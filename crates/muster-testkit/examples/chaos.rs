//! A chaos test in ten lines: the leader is cut off, another serves, and in the end all masters hold the same.
//!
//! `cargo build --bin muster && cargo run -p muster-testkit --example chaos`

use muster_testkit::{Plan, TestCluster};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cluster = TestCluster::start(Plan { proxied: true, ..Plan::default() }).await?;
    let (leader, term) = cluster.serving().await?;
    let cut = cluster.isolate(&leader)?;
    cut.bites().await?;
    let (heir, later) = cluster.serving_after(term).await?;
    println!("{leader} led in term {term}; cut off, it was replaced by {heir} in term {later}");
    drop(cut);
    cluster.ready().await?;
    let replicas = cluster.replicas().await?;
    anyhow::ensure!(replicas.iter().all(|one| one.state_hash == replicas[0].state_hash), "{replicas:?}");
    println!("all masters hold the same at index {}", replicas[0].applied);
    let end = cluster.end().await?;
    anyhow::ensure!(end.killed.is_empty() && end.left.is_empty(), "{end:?}");
    Ok(())
}
