//! Data directories of another cluster among running masters: the stranger stops and says so, the others go on.

#![allow(clippy::unwrap_used)]

mod support;

use muster_raft::Raft;
use std::path::Path;
use support::{Cluster, eventually, within};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(file.file_name());
        match file.file_type().unwrap().is_dir() {
            true => copy(&file.path(), &target),
            false => drop(std::fs::copy(file.path(), target).unwrap()),
        }
    }
}

/// A cluster that ran and ended, and its id.
async fn ended() -> (tempfile::TempDir, String) {
    let cluster = Cluster::started(3).await;
    cluster.tick().await;
    let id = cluster.cluster_id(0).to_string();
    (cluster.end().await, id)
}

/// Puts the directory of another cluster's master in the place of this one's.
fn mix_up(cluster: &Cluster, n: usize, other: &tempfile::TempDir) {
    let dir = cluster.data_dir(n);
    std::fs::remove_dir_all(&dir).unwrap();
    copy(&other.path().join(dir.file_name().unwrap()), &dir);
}

fn is_well(raft: &Raft) -> bool {
    futures::FutureExt::now_or_never(raft.failed()).is_none()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_stops_and_says_so_while_the_majority_commits_on() {
    let (other, theirs) = ended().await;
    let mut cluster = Cluster::steady(3).await;
    cluster.tick().await;
    let ours = cluster.cluster_id(0).to_string();
    let (leader, reign) = cluster.leader().await;
    let n = (0..3).find(|n| *n != leader).unwrap();
    cluster.kill(n).await;
    mix_up(&cluster, n, &other);
    let mark = cluster.data_dir(n).join("mark");
    let before = std::fs::read(&mark).unwrap();
    cluster.start(n).await;
    let why = within("the stranger stops", cluster.raft(n).failed()).await;
    let path = cluster.data_dir(n);
    let (name, address) = &cluster.members[leader];
    for part in [&theirs, &ours, path.to_str().unwrap(), &format!("{name} at {address}"), "empty one"] {
        assert!(why.contains(part), "{part} is missing in {why}");
    }
    // Neither vote nor log of it moved, and nobody else noticed more than that.
    assert_eq!(std::fs::read(&mark).unwrap(), before);
    cluster.tick().await;
    let (still, now) = cluster.leader().await;
    assert_eq!((still, now.term), (leader, reign.term), "leadership did not move");
    assert!((0..3).filter(|other| *other != n).all(|n| is_well(cluster.raft(n))));
    cluster.kill(n).await;
    cluster.tick().await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stranger_stops_nobody() {
    let (other, theirs) = ended().await;
    let mut cluster = Cluster::started(3).await;
    cluster.tick().await;
    let ids = [cluster.cluster_id(0).to_string(), String::new(), theirs];
    // The stranger meets one master alone: nobody knows which of the two is right.
    for n in 0..3 {
        cluster.kill(n).await;
    }
    mix_up(&cluster, 2, &other);
    for n in [0, 2] {
        cluster.start(n).await;
    }
    for n in [0, 2] {
        let other = format!("{} at {} of the cluster", cluster.members[2 - n].0, cluster.members[2 - n].1);
        eventually("what each says of the other", || {
            let note = cluster.raft(n).status().note;
            (note.contains(&other) && note.contains(&ids[2 - n])).then_some(())
        })
        .await;
    }
    assert!(is_well(cluster.raft(0)) && is_well(cluster.raft(2)));
    // A majority now stands against it.
    cluster.start(1).await;
    within("the stranger stops", cluster.raft(2).failed()).await;
    cluster.tick().await;
    assert!(is_well(cluster.raft(0)) && is_well(cluster.raft(1)));
    cluster.kill(2).await;
    eventually("the note goes with the stranger", || cluster.raft(0).status().note.is_empty().then_some(()))
        .await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_ran_alone_does_not_lead_among_others() {
    let alone = Cluster::started(1).await;
    alone.tick().await;
    let theirs = alone.cluster_id(0).to_string();
    let dir = alone.end().await;
    let mut cluster = Cluster::started(3).await;
    cluster.tick().await;
    let ours = cluster.cluster_id(0).to_string();
    cluster.kill(0).await;
    eventually("another leader", || {
        cluster.running.values().any(|replica| replica.proposals().is_some()).then_some(())
    })
    .await;
    mix_up(&cluster, 0, &dir);
    cluster.start(0).await;
    let why = within("the stranger stops", cluster.raft(0).failed()).await;
    assert!(why.contains(&theirs) && why.contains(&ours), "{why}");
    cluster.kill(0).await;
    cluster.tick().await;
    cluster.end().await;
}
