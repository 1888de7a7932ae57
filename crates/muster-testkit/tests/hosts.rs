//! Members on hosts of their own: what the kernel does to packets. Takes root; elsewhere it says so and passes, but
//! fails under `CI=true`.
//!
//! Hosts need a process that is in namespaces of its own, which no test is: the test runs itself again in them.

#![allow(clippy::unwrap_used)]

use muster_testkit::{Plan, TestCluster, hosts};
use std::process::Command;
use std::time::{Duration, Instant};

/// Set in the process that is in namespaces of its own.
const INSIDE: &str = "MUSTER_TEST_INSIDE";

/// Runs this very test in namespaces of its own; true there.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        hosts::enter().unwrap();
        return true;
    }
    if let Some(missing) = hosts::missing() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "skipped under CI: {missing}");
        eprintln!("skipped: {missing}");
        return false;
    }
    let exe = std::env::current_exe().unwrap();
    let arguments = ["--exact", test, "--nocapture", "--test-threads=1"];
    let status = Command::new(exe).args(arguments).env(INSIDE, "1").status().unwrap();
    assert!(status.success(), "{status}");
    false
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < until, "never");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_are_dropped_one_way_and_lost_and_cables_pulled() {
    if !inside("packets_are_dropped_one_way_and_lost_and_cables_pulled") {
        return;
    }
    let plan = Plan { agents: 1, frameworks: 1, hosts: true, ..Plan::default() };
    let cluster = TestCluster::start(plan).await.unwrap();
    let (leader, term) = cluster.serving().await.unwrap();
    let others: Vec<_> = cluster.master_names().into_iter().filter(|name| *name != leader).collect();
    assert!(cluster.traffic(&leader, &others[0]).unwrap().carried > 0);

    // It hears nobody, in the face of TCP: no acknowledgement comes, either.
    let cuts: Vec<_> = others.iter().map(|other| cluster.cut(other, &leader).unwrap()).collect();
    for cut in &cuts {
        cut.bites().await.unwrap();
    }
    let (heir, later) = cluster.serving_after(term).await.unwrap();
    assert_ne!(heir, leader);
    cluster.serves_no_more(&leader).await.unwrap();
    let (to, from) =
        (cluster.traffic(&others[0], &leader).unwrap(), cluster.traffic(&leader, &others[0]).unwrap());
    assert!(to.held > 0 && from.held == 0, "{to:?} {from:?}");
    // Two cuts of one direction heal when both are over.
    let twice = cluster.cut(&others[0], &leader).unwrap();
    drop(twice);
    assert!(cuts[0].held() > 0);
    drop(cuts);
    cluster.caught_up(&leader).await.unwrap();

    let lossy = cluster.lose(&heir, 20).unwrap();
    assert!(cluster.lose(&heir, 20).is_err() && cluster.lose(&leader, 100).is_err());
    for other in cluster.master_names() {
        cluster.caught_up(&other).await.unwrap();
    }
    eventually(|| lossy.lost().unwrap() > 0).await;
    drop(lossy);

    let (leader, term) = cluster.serving().await.unwrap();
    let unplugged = cluster.unplug(&leader).unwrap();
    let (heir, _) = cluster.serving_after(term.max(later)).await.unwrap();
    assert!(heir != leader && cluster.statuses().await.iter().all(|(name, _)| *name != leader));
    drop(unplugged);
    let plugged = Instant::now();
    cluster.caught_up(&leader).await.unwrap();

    let slow = cluster.throttle(&heir, 64).unwrap();
    // It is asked more than so little lets through.
    while slow.held_up().unwrap() == 0 {
        assert!(cluster.statuses().await.len() <= 3 && plugged.elapsed() < Duration::from_secs(60));
    }
    drop(slow);
    cluster.ready().await.unwrap();
    let (leader, _) = cluster.serving().await.unwrap();
    let other = cluster.master_names().into_iter().find(|name| *name != leader).unwrap();
    assert!(cluster.reset(&leader, &other).unwrap() > 0);
    assert!(cluster.traffic(&other, &leader).unwrap().reset > 0);
    // A framework's place is a host, too.
    let address = cluster.masters_of("f1").unwrap().remove(0);
    let reaches =
        || std::net::TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(1)).is_ok();
    assert!(cluster.within("f1", reaches).unwrap());
    let cut = cluster.isolate("f1").unwrap();
    assert!(!cluster.within("f1", reaches).unwrap() && reaches() && cut.held() > 0);
    drop(cut);
    cluster.ready().await.unwrap();
    for name in cluster.master_names() {
        cluster.caught_up(&name).await.unwrap();
    }
    let replicas = cluster.replicas().await.unwrap();
    assert!(replicas.iter().all(|one| one.state_hash == replicas[0].state_hash), "{replicas:?}");
    assert_eq!(cluster.error_lines(), Vec::<String>::new());
    let end = cluster.end().await.unwrap();
    assert!(end.killed.is_empty() && end.left.is_empty(), "{end:?}");
}
