//! Members whose clock is wrong, or that are short of something. What a machine lacks for it is said, and the test
//! passes there, but fails under `CI=true`.

#![allow(clippy::unwrap_used)]

mod common;

use common::{eventually, lacks};
use muster_testkit::{Plan, TestCluster, cgroups_missing, clocks};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use tokio::io::AsyncReadExt;

/// More memory than a master takes, and less than one takes to begin, in bytes.
const AMPLE: u64 = 4 << 30;
const SCARCE: u64 = 4 << 20;
const SIGKILL: i32 = 9;

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
async fn a_master_keeps_its_last_files_for_itself() {
    let cluster = small(Plan::default()).await;
    let address = cluster.masters().remove(0);
    let few = cluster.few_files("m1", 8).unwrap();
    for _ in 0..32 {
        // Neither taken nor left waiting.
        let mut turned_away = tokio::net::TcpStream::connect(&address).await.unwrap();
        let read = turned_away.read(&mut [0; 64]).await;
        assert!(matches!(&read, Ok(0)) || read.is_err(), "{read:?}");
        assert!(!few.is_short().unwrap());
    }
    drop(few);
    // A client that nobody knows yet is let in again.
    cluster.serving().await.unwrap();
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

#[tokio::test]
async fn a_master_that_takes_more_memory_than_it_may_is_killed_and_comes_back() {
    if lacks(cgroups_missing()) {
        return;
    }
    let cluster = small(Plan::default()).await;
    assert!(cluster.little_memory("m1", AMPLE).unwrap_err().to_string().contains("kill it first"));
    cluster.kill("m1").unwrap();
    assert!(cluster.little_memory("a1", AMPLE).is_err());
    // Enough: it lives, and lives on when the limit is gone.
    let little = cluster.little_memory("m1", AMPLE).unwrap();
    cluster.ready().await.unwrap();
    let pid = cluster.pid("m1").unwrap().unwrap();
    let group = || fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let limited = group();
    assert!(little.used().unwrap() > SCARCE && little.killed().unwrap() == 0);
    drop(little);
    assert_ne!(group(), limited);
    cluster.ready().await.unwrap();
    // Less than it takes to begin.
    cluster.kill("m1").unwrap();
    let little = cluster.little_memory("m1", SCARCE).unwrap();
    assert_eq!(cluster.ends("m1").await.unwrap().signal(), Some(SIGKILL));
    assert_eq!(little.killed().unwrap(), 1);
    drop(little);
    cluster.restart("m1").unwrap();
    cluster.ready().await.unwrap();
    assert_eq!(cluster.error_lines(), Vec::<String>::new());
}
