//! Members that are stopped, killed all at once, and that lead in turn.

#![allow(clippy::unwrap_used)]

use muster_testkit::{Plan, TestCluster};

#[tokio::test]
async fn a_stopped_leader_hands_over_and_ends_well() {
    let cluster = TestCluster::start(Plan { agents: 1, ..Plan::steady() }).await.unwrap();
    let (leader, term) = cluster.serving().await.unwrap();
    assert!(cluster.stop(&leader).await.unwrap().success());
    assert!(cluster.pid(&leader).unwrap().is_none() && cluster.check().is_ok());
    let (heir, _) = cluster.serving_after(term).await.unwrap();
    assert_ne!(heir, leader);
    assert!(cluster.stop(&leader).await.is_err(), "it does not run");
    cluster.restart(&leader).unwrap();
    cluster.caught_up(&leader).await.unwrap();

    let (heir, term) = cluster.serving().await.unwrap();
    let next = cluster.master_names().into_iter().find(|name| *name != heir).unwrap();
    let later = cluster.transfer_leadership(&next).await.unwrap();
    assert!(later > term);
    assert_eq!(cluster.serving().await.unwrap(), (next.clone(), later));
    assert_eq!(cluster.transfer_leadership(&next).await.unwrap(), later, "it leads already");
    assert!(cluster.transfer_leadership("m9").await.is_err());
    assert!(!cluster.last_words(&next).unwrap().is_empty());
    cluster.end().await.unwrap();
}

#[tokio::test]
async fn all_masters_die_at_once_and_hold_the_same_afterwards() {
    let cluster = TestCluster::start(Plan { agents: 1, ..Plan::default() }).await.unwrap();
    let (_, term) = cluster.serving().await.unwrap();
    let masters = cluster.master_names();
    cluster.kill_all(&masters).unwrap();
    assert!(masters.iter().all(|name| cluster.pid(name).unwrap().is_none()));
    assert!(cluster.agents().await.is_err());
    cluster.restart_all(&masters).unwrap();
    cluster.serving_after(term).await.unwrap();
    cluster.ready().await.unwrap();
    let replicas = cluster.replicas().await.unwrap();
    assert!(replicas.iter().all(|one| one.state_hash == replicas[0].state_hash), "{replicas:?}");
    assert!(cluster.kill_all(["m1", "m9"]).is_err() && cluster.pid("m1").unwrap().is_some());
    cluster.end().await.unwrap();
}
