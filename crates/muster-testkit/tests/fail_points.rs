//! Faults within members. They take a binary with the feature `faults`, which `scripts/test` builds and names.

#![allow(clippy::unwrap_used)]

use muster_testkit::{Plan, TestCluster};
use std::time::{Duration, Instant};

/// Whether there is such a binary; on a machine of continuous integration there must be.
fn has_faults() -> bool {
    let path = std::env::var_os("MUSTER_FAULTS_BIN");
    if path.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "MUSTER_FAULTS_BIN names no binary with the feature `faults`"
        );
        eprintln!(
            "skipped: MUSTER_FAULTS_BIN names no binary with the feature `faults`; scripts/test builds one"
        );
        return false;
    }
    true
}

fn plan() -> Plan {
    let exe = std::env::var_os("MUSTER_FAULTS_BIN").map(Into::into);
    Plan { agents: 1, faults: true, exe, ..Plan::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fail_point_ends_a_master_where_it_is_set_and_the_others_go_on() {
    if !has_faults() {
        return;
    }
    let cluster = TestCluster::start(plan()).await.unwrap();
    let (leader, term) = cluster.serving().await.unwrap();
    let points = cluster.fail_points(&leader).await.unwrap();
    let sync = points.iter().find(|point| point.name == "store.log.sync").unwrap();
    assert!(sync.reached > 0 && sync.setting.is_none(), "{sync:?}");

    // What cannot be understood is said, and changes nothing.
    let wrong = cluster.set_fail_point(&leader, "store.log.sink", "error").await.unwrap_err();
    assert!(format!("{wrong:#}").contains("store.log.sync"), "{wrong:#}");
    let wrong = cluster.set_fail_point(&leader, "store.log.sync", "explode").await.unwrap_err();
    assert!(format!("{wrong:#}").contains("begin with error"), "{wrong:#}");

    // The first failed sync ends a master: it acknowledges nothing afterwards.
    cluster.set_fail_point(&leader, "store.log.sync", "error,count=1").await.unwrap();
    let (new, _) = cluster.serving_after(term).await.unwrap();
    assert_ne!(new, leader);
    assert!(!cluster.ends(&leader).await.unwrap().success());
    assert!(cluster.last_words(&leader).unwrap().contains("fail point store.log.sync"));
    cluster.restart(&leader).unwrap();
    cluster.caught_up(&leader).await.unwrap();

    // A crash at a vote that is half kept: it comes back with it.
    cluster.set_fail_point(&leader, "store.mark.voted", "crash").await.unwrap();
    cluster.kill(&new).unwrap();
    let other = cluster.master_names().into_iter().find(|name| *name != leader && *name != new).unwrap();
    cluster.restart(&new).unwrap();
    cluster.serving().await.unwrap();
    cluster.caught_up(&other).await.unwrap();
    cluster.kill(&leader).unwrap();
    cluster.restart(&leader).unwrap();
    cluster.ready().await.unwrap();
    cluster.caught_up(&leader).await.unwrap();
    let replicas = cluster.replicas().await.unwrap();
    assert!(replicas.iter().all(|one| one.state_hash == replicas[0].state_hash), "{replicas:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_that_is_not_sent_ends_its_stream_and_the_client_comes_again() {
    if !has_faults() {
        return;
    }
    let master_config = "[session]\nping-ms = 500\n".to_owned();
    let cluster = TestCluster::start(Plan { master_config, ..plan() }).await.unwrap();
    // Pings and their answers.
    let agents = vec!["a1".to_owned()];
    for (names, point) in [(agents, "agent.send"), (cluster.master_names(), "master.agent.send")] {
        for name in &names {
            cluster.set_fail_point(name, point, "error,count=1").await.unwrap();
        }
        fires(&cluster, &names, point).await;
        for name in &names {
            cluster.clear_fail_point(name, point).await.unwrap();
        }
        cluster.ready().await.unwrap();
    }
}

/// Waits until one of these members has done at a point what it is set to.
async fn fires(cluster: &TestCluster, names: &[String], point: &str) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        for name in names {
            let points = cluster.fail_points(name).await.unwrap();
            if points.iter().any(|it| it.name == point && it.fired > 0) {
                return;
            }
        }
        assert!(Instant::now() < until, "nobody passed {point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_is_advanced_and_what_is_due_by_then_expires() {
    if !has_faults() {
        return;
    }
    // The time is told to a leader, and lost with its office.
    let cluster = TestCluster::start(Plan { master_config: Plan::STEADY.into(), ..plan() }).await.unwrap();
    cluster.kill("a1").unwrap();
    is_in_time(&cluster, "disconnected").await;
    // Far less than an agent may be away.
    cluster.advance_time(Duration::from_secs(10)).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let applied = async || cluster.status(&leader).await.unwrap().applied_index;
    // A leader writes an entry each second. The first may have been on its way already.
    let before = applied().await;
    while applied().await < before + 2 {
        tokio::task::yield_now().await;
    }
    is_in_time(&cluster, "disconnected").await;
    cluster.advance_time(Duration::from_secs(3_600)).await.unwrap();
    is_in_time(&cluster, "unreachable").await;
}

/// What the leader says of the one agent.
async fn state(cluster: &TestCluster) -> Result<String, String> {
    cluster.agents().await.map(|agents| agents[0].state.clone())
}

async fn is_in_time(cluster: &TestCluster, wanted: &str) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let state = state(cluster).await;
        if state.as_deref() == Ok(wanted) {
            return;
        }
        assert!(Instant::now() < until, "the agent is {state:?}, not {wanted}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bug_is_planted_in_all_members() {
    if !has_faults() {
        return;
    }
    let planted = Some("lose-kill".to_owned());
    let cluster = TestCluster::start(Plan { planted, ..plan() }).await.unwrap();
    for (name, log) in cluster.logs() {
        let text = std::fs::read_to_string(log).unwrap();
        assert!(text.contains("a bug is planted in this process") && text.contains("lose-kill"), "{name}");
    }
}
