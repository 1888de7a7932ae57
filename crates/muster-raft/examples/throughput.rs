//! How many commands a second three replicas on one machine commit, with every entry synced.
//!
//! `cargo run --release -p muster-raft --example throughput -- [callers] [seconds] [data dir]`

#[path = "../tests/support/mod.rs"]
mod support;

use muster_model::{AgentId, FrameworkId, Resources, Role};
use muster_registry::{Command, Launch};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use support::Cluster;

/// About as large as a launch of one task, and refused at once: what is measured is the road, not the registry.
fn command(n: u64) -> Command {
    Command::Launch(Launch {
        framework_id: FrameworkId::new(format!("0123456789abcdef-{n:0150}")),
        agent_id: AgentId::new("0123456789abcdef-S42"),
        role: Role::any(),
        offer_ids: Vec::new(),
        offered: Resources::default(),
        tasks: Vec::new(),
    })
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number =
        |at: usize, default: u64| arguments.get(at).and_then(|it| it.parse().ok()).unwrap_or(default);
    let (callers, seconds) = (number(1, 64), number(2, 5));
    let dir = match arguments.get(3) {
        Some(path) => tempfile::tempdir_in(path),
        None => tempfile::tempdir_in("."),
    };
    let mut cluster = Cluster::in_dir(3, dir.expect("a temporary directory"));
    for n in 0..3 {
        cluster.start(n).await;
    }
    let (_, leader) = cluster.leader().await;
    let stop = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let (leader, stop) = (leader.clone(), stop.clone());
            tokio::spawn(async move {
                let mut took = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    if leader.propose(command(caller)).await.is_none() {
                        break;
                    }
                    took.push(asked.elapsed());
                }
                took
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.unwrap_or_default());
    }
    let rate = took.len() as f64 / begun.elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |share: f64| took.get((took.len() as f64 * share) as usize).copied().unwrap_or_default();
    println!(
        "{callers} callers: {rate:.0} commands/s, p50 {:?}, p99 {:?}, max {:?}",
        at(0.5),
        at(0.99),
        at(0.9999)
    );
    let mut failovers = Vec::new();
    for _ in 0..number(4, 0) {
        let (old, reign) = cluster.leader().await;
        let killed = Instant::now();
        // Its sockets close at once, as those of a killed process do; what it still does is not waited for.
        let replica = cluster.running.remove(&old).expect("the leader runs");
        let ending = tokio::spawn(replica.kill());
        while cluster.leader().await.1.term <= reign.term {}
        failovers.push(killed.elapsed());
        ending.await.expect("the old leader ends");
        cluster.start(old).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    failovers.sort_unstable();
    if let (Some(median), Some(longest)) = (failovers.get(failovers.len() / 2), failovers.last()) {
        println!("{} failovers to the first commit: median {median:?}, longest {longest:?}", failovers.len());
    }
    cluster.end().await;
}
