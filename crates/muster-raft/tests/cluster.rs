//! Clusters of one and three replicas over loopback sockets: founding, leading, failing, catching up.

mod support;

use muster_model::{Index, Term};
use muster_raft::Leadership;
use muster_registry::{Command, Outcome};
use support::{Cluster, eventually, within};

async fn tick(cluster: &Cluster) -> Index {
    let (n, leader) = cluster.leader().await;
    assert_eq!(within("a tick", leader.propose(Command::Tick)).await, Some(Outcome::Done));
    cluster.raft(n).registry().applied()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_replica_founds_itself_and_keeps_what_it_committed() {
    let mut cluster = Cluster::started(1).await;
    let at = tick(&cluster).await;
    let id = cluster.cluster_id(0);
    cluster.kill(0).await;
    cluster.start(0).await;
    let (_, leader) = cluster.leader().await;
    assert!(leader.term > Term(1));
    assert_eq!(cluster.cluster_id(0), id);
    assert!(cluster.raft(0).registry().applied() > at);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_found_themselves_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut cluster = Cluster::new(3);
        for n in order {
            cluster.start(n).await;
            if n != order[2] {
                assert!(
                    matches!(*cluster.raft(n).leadership().borrow(), Leadership::Outside { .. }),
                    "nobody is in a cluster before all are there"
                );
            }
        }
        let at = tick(&cluster).await;
        cluster.agree(at).await;
        assert_eq!(cluster.cluster_id(0), cluster.cluster_id(2));
        cluster.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_has_the_same_data() {
    let mut cluster = Cluster::started(3).await;
    let mut at = Index(0);
    for _ in 0..20 {
        at = tick(&cluster).await;
    }
    let before = cluster.agree(at).await;
    let (old, reign) = cluster.leader().await;
    let old_term = reign.term;
    cluster.kill(old).await;
    let (_, leader) = cluster.leader().await;
    assert!(leader.term > old_term);
    let at = tick(&cluster).await;
    let after = cluster.agree(at).await;
    assert!(after.clock() >= before.clock());
    cluster.start(old).await;
    let at = tick(&cluster).await;
    cluster.agree(at).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_sees_what_was_acknowledged() {
    let cluster = Cluster::started(3).await;
    let at = tick(&cluster).await;
    let (n, _) = cluster.leader().await;
    let read = within("a read", cluster.raft(n).read()).await.unwrap();
    assert!(read.applied() >= at);
    let follower = (0..3).find(|other| *other != n).unwrap();
    let refused = within("a refusal", cluster.raft(follower).read()).await.unwrap_err();
    assert_eq!(refused.leader.unwrap().name, format!("m{}", n + 1));
    eventually("who leads", || {
        matches!(&*cluster.raft(follower).leadership().borrow(),
            Leadership::Following { leader: Some(leader), .. } if leader.name == format!("m{}", n + 1))
        .then_some(())
    })
    .await;
    cluster.end().await;
}
