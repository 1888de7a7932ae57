//! Members whose clock is wrong, or that are short of something. What a machine lacks for it is said, and the test
//! passes there, but fails under `CI=true`.

#![allow(clippy::unwrap_used)]

mod common;

use common::{eventually, lacks};
use muster_testkit::{Plan, TestCluster, cgroups_missing, clocks};
use std::fs;

async fn small(plan: Plan) -> TestCluster {
    TestCluster::start(Plan { masters: 1, agents: 1, ..plan }).await.unwrap()
}

#[tokio::test]
async fn a_wall_clock_is_wrong_until_its_handle_is_dropped() {
    if lacks(clocks::missing()) {
        return;
    }
    let cluster = small(Plan { clocks: true, ..Plan::default() }).await;
    // Log lines begin with the date and the hour.
    let hour = |name: &str| cluster.last_words(name).unwrap().chars().take(13).collect::<String>();
    let skewed = cluster.skew("a1", 50 * 3600).unwrap();
    let right = hour("m1");
    cluster.kill("a1").unwrap();
    cluster.restart("a1").unwrap();
    eventually(|| hour("a1") > right).await;
    let wrong = hour("a1");
    drop(skewed);
    cluster.kill("a1").unwrap();
    cluster.restart("a1").unwrap();
    eventually(|| hour("a1") < wrong).await;
    assert!(cluster.skew("m9", 1).is_err());
    let true_ones = small(Plan::default()).await;
    assert!(true_ones.skew("m1", 1).unwrap_err().to_string().contains("Plan::clocks"));
}

#[tokio::test]
async fn a_limit_of_open_files_is_lowered_and_raised_again() {
    let cluster = small(Plan::default()).await;
    let pid = cluster.pid("m1").unwrap().unwrap();
    let limit = || {
        let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = text.lines().find(|line| line.starts_with("Max open files")).unwrap().to_owned();
        line.split_whitespace().nth(3).unwrap().parse::<u64>().unwrap()
    };
    let before = limit();
    let few = cluster.few_files("m1", 500).unwrap();
    assert_eq!(limit(), few.limit());
    assert!(few.limit() >= 500 && !few.is_short().unwrap());
    drop(few);
    assert_eq!(limit(), before);
}

#[tokio::test]
async fn a_starved_master_waits_and_is_let_go() {
    if lacks(cgroups_missing()) {
        return;
    }
    let cluster = small(Plan::default()).await;
    let pid = cluster.pid("m1").unwrap().unwrap();
    let group = || fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let before = group();
    let starved = cluster.starve("m1", 1).unwrap();
    assert_ne!(group(), before);
    eventually(|| starved.waited().unwrap() > 0).await;
    drop(starved);
    assert_eq!(group(), before);
    assert!(cluster.starve("a1", 1).is_err() && cluster.starve("m1", 0).is_err());
    cluster.serving().await.unwrap();
}
