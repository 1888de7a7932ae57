//! Clusters of one, three and five replicas over loopback sockets: founding, leading, failing, catching up.

#![allow(clippy::unwrap_used)]

mod support;

use muster_model::{Capabilities, FrameworkInfo, Index, Role, Sealed, Term};
use muster_raft::{Leadership, Raft, RaftConfig, ReplaceError, TransferError};
use muster_registry::{Command, Outcome, Record, Registry, Subscribe};
use std::time::Duration;
use support::{Cluster, eventually, leases_of_seconds, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_replica_founds_itself_and_keeps_what_it_committed() {
    let mut cluster = Cluster::started(1).await;
    let at = cluster.tick().await;
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
        let at = cluster.tick().await;
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
        at = cluster.tick().await;
    }
    let before = cluster.agree(at).await;
    let (old, reign) = cluster.leader().await;
    let old_term = reign.term;
    cluster.kill(old).await;
    let (_, leader) = cluster.leader().await;
    assert!(leader.term > old_term);
    let at = cluster.tick().await;
    let after = cluster.agree(at).await;
    assert!(after.clock() >= before.clock());
    cluster.start(old).await;
    let at = cluster.tick().await;
    cluster.agree(at).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_sees_what_was_acknowledged() {
    let cluster = Cluster::steady(3).await;
    let at = cluster.tick().await;
    let (n, _) = cluster.leader().await;
    let read = within("a read", cluster.raft(n).read()).await.unwrap();
    assert!(read.applied() >= at);
    let follower = (0..3).find(|other| *other != n).unwrap();
    eventually("who leads", || {
        matches!(&*cluster.raft(follower).leadership().borrow(),
            Leadership::Following { leader: Some(leader), .. } if leader.name == format!("m{}", n + 1))
        .then_some(())
    })
    .await;
    let refused = within("a refusal", cluster.raft(follower).read()).await.unwrap_err();
    assert_eq!(refused.leader.unwrap().name, format!("m{}", n + 1));
    cluster.end().await;
}

fn subscribe(name: &str) -> Command {
    let info = FrameworkInfo {
        name: name.into(),
        user: "root".into(),
        principal: None,
        roles: vec![Role::any()],
        failover_timeout_ms: 0,
        capabilities: Capabilities::default(),
        sealed: Sealed::default(),
    };
    Command::Subscribe(Subscribe { framework_id: None, info, suppressed_roles: Vec::new() })
}

fn framework_names(registry: &Registry) -> Vec<String> {
    let name = |record| match record {
        Record::Framework(framework) => Some(framework.info.name.to_string()),
        _ => None,
    };
    registry.records().filter_map(name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_deposed_leader_proposes_never_commits() {
    let mut cluster = Cluster::new(3);
    cluster.wire().await;
    for n in 0..3 {
        cluster.start(n).await;
    }
    cluster.tick().await;
    let (old, reign) = cluster.leader().await;
    cluster.isolate(old, true);
    let lost = tokio::spawn({
        let reign = reign.clone();
        async move { reign.propose(subscribe("deposed")).await }
    });
    // It stops acting by itself, while the others elect another.
    eventually("the old leader stops acting", || {
        let now = cluster.raft(old).leadership().borrow().clone();
        (!matches!(now, Leadership::Leading { quorum: true, .. })).then_some(())
    })
    .await;
    assert!(within("a read without a quorum", cluster.raft(old).read()).await.is_err());
    reign.propose_only(subscribe("deposed-later")).unwrap();
    let (_, new) = eventually("another leader", || {
        cluster.running.iter().filter(|(n, _)| **n != old).find_map(|(n, it)| Some((*n, it.proposals()?)))
    })
    .await;
    assert!(new.term > reign.term);
    assert!(matches!(new.propose(subscribe("kept")).await, Some(Outcome::Subscribed { .. })));
    cluster.isolate(old, false);
    assert_eq!(within("the outcome", lost).await.unwrap(), None, "unknown, never a refusal");
    let at = cluster.tick().await;
    let registry = cluster.agree(at).await;
    assert_eq!(framework_names(&registry), ["kept"]);
    cluster.end().await;
}

/// Nobody stands for election in a test because nothing was heard.
fn leases_without_end(config: &mut RaftConfig) {
    (config.election_ms_min, config.election_ms_max) = (300_000, 600_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_gone_is_replaced_before_its_lease_ends() {
    let mut cluster = Cluster::new(5);
    cluster.tune = leases_without_end;
    for n in 0..5 {
        cluster.start(n).await;
    }
    let mut at = cluster.tick().await;
    cluster.agree(at).await;
    for _ in 0..2 {
        let (old, reign) = cluster.leader().await;
        cluster.kill(old).await;
        let (_, new) = cluster.leader().await;
        assert!(new.term > reign.term);
        at = cluster.tick().await;
        cluster.agree(at).await;
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_whose_stream_did_not_break_off_finds_out_when_it_is_asked() {
    let mut cluster = Cluster::new(3);
    cluster.tune = leases_without_end;
    cluster.wire().await;
    for n in 0..3 {
        cluster.start(n).await;
    }
    let at = cluster.tick().await;
    cluster.agree(at).await;
    let (old, reign) = cluster.leader().await;
    let (first, other) = ((old + 1) % 3, (old + 2) % 3);
    cluster.wires[&(old, other)].stall();
    cluster.wires[&(first, old)].refuse();
    cluster.wires[&(other, old)].refuse();
    cluster.kill(old).await;
    let (_, new) = cluster.leader().await;
    assert!(new.term > reign.term);
    let at = cluster.tick().await;
    cluster.agree(at).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_start_of_all_of_them_nobody_waits_for_a_leader() {
    let mut cluster = Cluster::new(3);
    cluster.tune = leases_without_end;
    for n in 0..3 {
        cluster.start(n).await;
    }
    let at = cluster.tick().await;
    cluster.agree(at).await;
    let (_, reign) = cluster.leader().await;
    for n in 0..3 {
        cluster.kill(n).await;
    }
    for n in 0..3 {
        cluster.start(n).await;
    }
    let (_, new) = cluster.leader().await;
    assert!(new.term > reign.term);
    let at = cluster.tick().await;
    cluster.agree(at).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_one_follower_takes_for_dead_leads_on() {
    let mut cluster = Cluster::new(3);
    cluster.tune = leases_without_end;
    cluster.wire().await;
    for n in 0..3 {
        cluster.start(n).await;
    }
    let at = cluster.tick().await;
    cluster.agree(at).await;
    let (leader, reign) = cluster.leader().await;
    let (misled, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let asked = cluster.wires[&(misled, other)].dials();
    cluster.wires[&(misled, leader)].refuse();
    cluster.wires[&(leader, misled)].cut();
    eventually("the follower asks for votes", || {
        (cluster.wires[&(misled, other)].dials() > asked).then_some(())
    })
    .await;
    cluster.wires[&(leader, misled)].heal();
    let at = cluster.tick().await;
    cluster.agree(at).await;
    assert_eq!(cluster.leader().await.1.term, reign.term);
    assert!(matches!(reign.propose(subscribe("kept")).await, Some(Outcome::Subscribed { .. })));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_restarts_at_once_leads_only_in_a_new_term() {
    let mut cluster = Cluster::started(3).await;
    cluster.tick().await;
    let (old, reign) = cluster.leader().await;
    let term = reign.term;
    cluster.kill(old).await;
    cluster.start(old).await;
    let mut leadership = cluster.raft(old).leadership();
    let watched = tokio::spawn(async move {
        let leading =
            |now: &Leadership| matches!(now, Leadership::Leading { fence, .. } if fence.term <= term);
        leadership.wait_for(leading).await.is_ok()
    });
    let (_, leader) = cluster.leader().await;
    assert!(leader.term > term);
    let at = cluster.tick().await;
    cluster.agree(at).await;
    cluster.end().await;
    assert!(!watched.await.unwrap(), "it led again in term {term}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_longer_than_the_log_catches_up_by_snapshot() {
    let mut cluster = Cluster::new(3);
    cluster.tune = |config| {
        leases_of_seconds(config);
        config.snapshot_entries = 20;
        config.log_tail_bytes = 100;
    };
    for n in 0..3 {
        cluster.start(n).await;
    }
    cluster.tick().await;
    let (leader, _) = cluster.leader().await;
    let away = (0..3).find(|n| *n != leader).unwrap();
    let last = cluster.raft(away).status().last_log_index;
    cluster.kill(away).await;
    for n in 0..60 {
        let (_, reign) = cluster.leader().await;
        within("a subscription", reign.propose(subscribe(&format!("f{n}")))).await.unwrap();
    }
    let (leader, _) = cluster.leader().await;
    eventually("the purge", || {
        (cluster.raft(leader).status().purged_index > Index(last.0 + 30)).then_some(())
    })
    .await;
    cluster.start(away).await;
    let at = cluster.tick().await;
    let registry = cluster.agree(at).await;
    assert_eq!(framework_names(&registry).len(), 60);
    assert!(cluster.raft(away).status().snapshot_index > last);
    // It restarts from that snapshot.
    cluster.kill(away).await;
    cluster.start(away).await;
    let at = cluster.tick().await;
    cluster.agree(at).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_cannot_be_written_stops_nobody_and_is_taken_later() {
    let mut cluster = Cluster::new(1);
    cluster.tune = |config| {
        config.snapshot_entries = 20;
        config.log_tail_bytes = 100;
    };
    cluster.start(0).await;
    let (_, reign) = cluster.leader().await;
    let subscribe_some = async |name: &str| {
        for n in 0..30 {
            within("a subscription", reign.propose(subscribe(&format!("{name}{n}")))).await.unwrap();
        }
    };
    // A disk that takes no file there, whoever asks.
    let snapshots = cluster.data_dir(0).join("snapshots");
    std::fs::remove_dir_all(&snapshots).unwrap();
    std::fs::write(&snapshots, b"").unwrap();
    subscribe_some("a").await;
    eventually("what is wrong", || cluster.raft(0).status().note.contains("no snapshot").then_some(())).await;
    subscribe_some("b").await;
    let status = cluster.raft(0).status();
    assert_eq!((status.state, status.snapshot_index), ("leader", Index(0)));
    // Room again.
    std::fs::remove_file(&snapshots).unwrap();
    std::fs::create_dir(&snapshots).unwrap();
    eventually("a snapshot and the purge behind it", || {
        let status = cluster.raft(0).status();
        (status.note.is_empty() && status.purged_index > Index(0)).then_some(())
    })
    .await;
    assert_eq!(cluster.leader().await.1.term, reign.term, "leadership was never lost");
    cluster.kill(0).await;
    cluster.start(0).await;
    cluster.tick().await;
    assert_eq!(framework_names(&cluster.raft(0).registry()).len(), 60);
    cluster.end().await;
}

fn voters(cluster: &Cluster, n: usize) -> Vec<(String, u64)> {
    let status = cluster.raft(n).status();
    status.members.iter().filter(|it| it.voter).map(|it| (it.member.name.clone(), it.node_id)).collect()
}

/// Waits until a replica votes under another node id than before, and the old id is gone.
async fn replaced(cluster: &Cluster, n: usize, old: u64) {
    eventually("the promotion", || {
        let (leader, _) = cluster.running.iter().find(|(_, it)| it.proposals().is_some())?;
        let voters = voters(cluster, *leader);
        let name = &cluster.members[n].0;
        let there = voters.iter().any(|(voter, id)| voter == name && *id != old);
        (there && voters.len() == cluster.members.len() && voters.iter().all(|(_, id)| *id != old))
            .then_some(())
    })
    .await;
    let at = cluster.tick().await;
    cluster.agree(at).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_disk_asks_and_is_promoted_once_an_operator_confirms() {
    let mut cluster = Cluster::steady(3).await;
    cluster.tick().await;
    let (leader, _) = cluster.leader().await;
    let lost = (0..3).find(|n| *n != leader).unwrap();
    let (name, old) = (cluster.members[lost].0.clone(), cluster.raft(lost).status().node_id);
    cluster.kill(lost).await;
    std::fs::remove_dir_all(cluster.data_dir(lost)).unwrap();
    cluster.start(lost).await;
    eventually("what it needs", || {
        let status = cluster.raft(lost).status();
        (status.note.contains("empty data directory") && status.note.contains("muster raft replace"))
            .then_some(())
    })
    .await;
    assert_eq!(voters(&cluster, leader).iter().find(|(voter, _)| *voter == name).unwrap().1, old);
    let unconfirmed = replace(&cluster, &name, false).await.unwrap_err();
    assert!(matches!(unconfirmed, ReplaceError::Heard { .. }), "{unconfirmed}");
    replace(&cluster, &name, true).await.unwrap();
    replaced(&cluster, lost, old).await;
    cluster.end().await;
}

/// What is answered by whoever leads, by now.
async fn replace(cluster: &Cluster, name: &str, confirm: bool) -> Result<(), ReplaceError> {
    loop {
        let leader = cluster.leader().await.0;
        match cluster.raft(leader).replace_member(name, confirm).await {
            Err(ReplaceError::NotLeading(_)) => {}
            answer => return answer,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_is_replaced_only_while_all_other_voters_answer() {
    let mut cluster = Cluster::new(5);
    // Who was heard within four times the longest, 3 s, counts as there: below, 4 s are waited for.
    cluster.tune = |config| (config.election_ms_min, config.election_ms_max) = (600, 750);
    for n in 0..5 {
        cluster.start(n).await;
    }
    cluster.tick().await;
    let (leader, _) = cluster.leader().await;
    let mut others = (0..5).filter(|n| *n != leader);
    let (lost, away) = (others.next().unwrap(), others.next().unwrap());
    let (name, old) = (cluster.members[lost].0.clone(), cluster.raft(lost).status().node_id);
    cluster.kill(lost).await;
    cluster.kill(away).await;
    std::fs::remove_dir_all(cluster.data_dir(lost)).unwrap();
    let leader = cluster.leader().await.0;
    within("silence of the one that is away", async {
        // What was heard a moment ago counts as an answer.
        let away = &cluster.members[away].0;
        loop {
            match replace(&cluster, away, false).await {
                Err(ReplaceError::Heard { silent_s: 0..4, .. }) => {
                    tokio::time::sleep(Duration::from_millis(20)).await; // all replicas are in this process
                }
                answer => break assert!(matches!(answer, Err(ReplaceError::Heard { .. })), "{answer:?}"),
            }
        }
    })
    .await;
    cluster.start(lost).await;
    replace(&cluster, &name, true).await.unwrap();
    eventually("the reason why not", || {
        cluster.raft(lost).status().note.contains("one replacement at a time").then_some(())
    })
    .await;
    assert_eq!(voters(&cluster, leader).iter().find(|(voter, _)| *voter == name).unwrap().1, old);
    cluster.start(away).await;
    replaced(&cluster, lost, old).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_disk_reports_itself_and_is_replaced_without_an_operator() {
    let mut cluster = Cluster::started(3).await;
    let at = cluster.tick().await;
    cluster.agree(at).await;
    let (leader, _) = cluster.leader().await;
    let lost = (0..3).find(|n| *n != leader).unwrap();
    let old = cluster.raft(lost).status().node_id;
    cluster.kill(lost).await;
    std::fs::write(cluster.data_dir(lost).join("log").join("db"), b"").unwrap();
    cluster.start(lost).await;
    assert!(cluster.data_dir(lost).join("damaged-1").join("mark").exists());
    replaced(&cluster, lost, old).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_disk_forgot_what_it_synced_is_sent_it_again() {
    let mut cluster = Cluster::steady(3).await;
    let at = cluster.tick().await;
    cluster.agree(at).await;
    let (leader, reign) = cluster.leader().await;
    let liar = (0..3).find(|n| *n != leader).unwrap();
    // What its disk really holds: what it held now.
    cluster.kill(liar).await;
    let (data, held) = (cluster.data_dir(liar), cluster.data_dir(liar).with_extension("held"));
    assert!(std::process::Command::new("cp").arg("-r").args([&data, &held]).status().unwrap().success());
    cluster.start(liar).await;
    let mut at = at;
    for _ in 0..10 {
        at = cluster.tick().await;
    }
    cluster.agree(at).await;
    cluster.kill(liar).await;
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&held, &data).unwrap();
    cluster.start(liar).await;
    let at = cluster.tick().await;
    cluster.agree(at).await;
    assert_eq!(cluster.leader().await.1.term, reign.term, "the leader did not mind");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creator_with_a_new_disk_creates_no_second_cluster() {
    let mut cluster = Cluster::new(3);
    cluster.tune = |config| config.replace_silence_ms = 500;
    for n in 0..3 {
        cluster.start(n).await;
    }
    cluster.tick().await;
    let (id, old) = (cluster.cluster_id(1), cluster.raft(0).status().node_id);
    cluster.kill(0).await;
    std::fs::remove_dir_all(cluster.data_dir(0)).unwrap();
    cluster.start(0).await;
    replaced(&cluster, 0, old).await;
    assert_eq!(cluster.cluster_id(0), id);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_in_the_middle_of_the_creation_does_no_harm() {
    for (crashing, after_ms) in [(0, 0), (0, 3), (0, 8), (0, 20), (1, 2), (1, 10), (2, 5), (2, 15)] {
        let mut cluster = Cluster::started(3).await;
        // Not to wait for anything: to crash at another moment each time.
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        cluster.kill(crashing).await;
        cluster.start(crashing).await;
        let at = cluster.tick().await;
        cluster.agree(at).await;
        let ids: Vec<_> = (0..3).map(|n| cluster.cluster_id(n)).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        cluster.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarting_all_of_them_at_once_is_safe() {
    let mut cluster = Cluster::started(3).await;
    let (_, reign) = cluster.leader().await;
    within("a subscription", reign.propose(subscribe("kept"))).await.unwrap();
    for n in 0..3 {
        cluster.kill(n).await;
    }
    for n in 0..3 {
        cluster.start(n).await;
    }
    let at = cluster.tick().await;
    assert_eq!(framework_names(&cluster.agree(at).await), ["kept"]);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn master_lists_that_differ_found_nothing_and_say_so() {
    let mut cluster = Cluster::new(3);
    let mut other = cluster.config(1);
    other.members.rotate_left(1);
    cluster.start(0).await;
    cluster.start_with(1, other).await;
    cluster.start(2).await;
    for n in [0, 1] {
        eventually("the difference", || {
            cluster.raft(n).status().note.contains("the master lists differ").then_some(())
        })
        .await;
    }
    // Corrected, they found one cluster: nothing was begun.
    cluster.kill(1).await;
    cluster.start(1).await;
    let at = cluster.tick().await;
    cluster.agree(at).await;
    assert_eq!(cluster.cluster_id(0), cluster.cluster_id(1));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused() {
    use muster_proto::raft::{
        FoundRequest, FoundingRecord, Member, Target, VoteRequest, VoteValue,
        peer_service_client::PeerServiceClient,
    };
    let mut cluster = Cluster::started(3).await;
    cluster.tick().await;
    let status = cluster.raft(1).status();
    let mut client = PeerServiceClient::connect(format!("http://{}", cluster.members[1].1)).await.unwrap();
    let ours = Target {
        cluster_id: status.cluster_id.clone(),
        incarnation: 1,
        to_node: status.node_id,
        from_node: 9,
    };
    for target in [
        Target { cluster_id: "another".into(), ..ours.clone() },
        Target { incarnation: 2, ..ours.clone() },
        Target { to_node: status.node_id ^ 1, ..ours.clone() },
    ] {
        let vote = VoteValue { term: 1_000, node: 9, committed: false };
        let request = VoteRequest { target: Some(target), vote: Some(vote), ..VoteRequest::default() };
        let refused = client.vote(request).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    }
    assert!(cluster.raft(1).status().fence.term < Term(1_000));
    let members = cluster
        .members
        .iter()
        .zip([7, status.node_id, 8])
        .map(|((name, address), node_id)| Member { name: name.clone(), address: address.clone(), node_id });
    let record = FoundingRecord { cluster_id: "another".into(), members: members.collect(), sequence: 99 };
    let answer = client.found(FoundRequest { record: Some(record) }).await.unwrap().into_inner();
    assert!(!answer.stored && answer.why_not.contains("already takes part"), "{}", answer.why_not);
    // A directory of another cluster is refused at the start.
    cluster.kill(2).await;
    let mut config = cluster.config(2);
    config.cluster_id = Some("another".into());
    let error = Raft::open(config).await.err().unwrap().to_string();
    assert!(error.contains(&status.cluster_id) && error.contains("another"), "{error}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_whose_sender_is_gone_makes_room_for_the_next() {
    use muster_proto::raft::{SnapshotChunk, Target, VoteValue, peer_service_client::PeerServiceClient};
    let cluster = Cluster::steady(3).await;
    cluster.tick().await;
    let (leader, reign) = cluster.leader().await;
    let to = (leader + 1) % 3;
    let (status, sender) = (cluster.raft(to).status(), cluster.raft(leader).status().node_id);
    let client = PeerServiceClient::connect(format!("http://{}", cluster.members[to].1)).await.unwrap();
    let begin = |term: u64| {
        let (chunks, stream) = tokio::sync::mpsc::channel(2);
        let target = Target {
            cluster_id: status.cluster_id.clone(),
            incarnation: 1,
            to_node: status.node_id,
            from_node: sender,
        };
        let vote = VoteValue { term, node: sender, committed: true };
        let data = b"a part of it".as_slice().into();
        let first =
            SnapshotChunk { target: Some(target), vote: Some(vote), data, ..SnapshotChunk::default() };
        chunks.try_send(first).unwrap();
        let mut client = client.clone();
        let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
        (chunks, tokio::spawn(async move { client.install_snapshot(stream).await }))
    };
    let dir = cluster.data_dir(to).join("snapshots");
    let incoming = || {
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("incoming")).collect::<Vec<_>>()
    };
    let (_silent, silent) = begin(reign.term.0);
    eventually("its file", || (incoming().len() == 1).then_some(())).await;
    let (next, wrong) = begin(reign.term.0);
    drop(next); // that is all of it
    let replaced = within("the answer to the first", silent).await.unwrap().unwrap_err();
    assert_eq!(replaced.code(), tonic::Code::Aborted, "{replaced}");
    let unreadable = within("the answer to the next", wrong).await.unwrap().unwrap_err();
    assert_eq!(unreadable.code(), tonic::Code::DataLoss, "{unreadable}");
    // A former leader takes nobody's place.
    let (_old, old) = begin(0);
    let refused = within("the answer to the former leader", old).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    // Nothing stays of one whose sender hangs up.
    let (_chunks, dropped) = begin(reign.term.0);
    eventually("its file", || (incoming().len() == 1).then_some(())).await;
    dropped.abort();
    eventually("no file", || incoming().is_empty().then_some(())).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_told_to_stop_hands_over_first() {
    let mut cluster = Cluster::steady(3).await;
    let at = cluster.tick().await;
    cluster.agree(at).await;
    let (old, reign) = cluster.leader().await;
    let named = (0..3).find(|n| *n != old).unwrap();
    let heir = cluster.raft(old).transfer_leadership(Some(&cluster.members[named].0)).await.unwrap();
    assert_eq!(heir, cluster.members[named].0);
    let (new, second) = eventually("the heir", || {
        cluster
            .running
            .iter()
            .find_map(|(n, it)| Some((*n, it.proposals()?)).filter(|(_, it)| it.term > reign.term))
    })
    .await;
    assert_eq!(new, named);
    cluster.tick().await;
    let replica = cluster.running.remove(&new).unwrap();
    within("the hand-over", replica.raft.clone().shutdown()).await;
    let (_, third) = cluster.leader().await;
    assert!(third.term > second.term);
    replica.kill().await;
    cluster.tick().await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_who_is_gone_is_handed_anything() {
    let mut cluster = Cluster::steady(3).await;
    let at = cluster.tick().await;
    cluster.agree(at).await;
    let (leader, _) = cluster.leader().await;
    let [dead, alive] = [1, 2].map(|n| (leader + n) % 3);
    // Heard a moment ago, and with as long a log as the other.
    cluster.kill(dead).await;
    let heir = cluster.raft(leader).transfer_leadership(None).await.unwrap();
    assert_eq!(heir, cluster.members[alive].0);
    cluster.tick().await;
    cluster.kill(leader).await;
    let left = cluster.raft(alive).transfer_leadership(None).await.unwrap_err();
    assert!(matches!(left, TransferError::Silent(_)), "{left}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_heir_that_ends_before_it_leads_is_not_waited_for() {
    let mut cluster = Cluster::new(3);
    // Nobody else comes to lead meanwhile.
    cluster.tune = |config| (config.election_ms_min, config.election_ms_max) = (40_000, 41_000);
    cluster.wire().await;
    for n in 0..3 {
        cluster.start(n).await;
    }
    let at = cluster.tick().await;
    cluster.agree(at).await;
    let (leader, reign) = cluster.leader().await;
    let heir = (leader + 1) % 3;
    let name = cluster.members[heir].0.clone();
    // It hears that it is to lead, and nobody hears it ask for votes.
    for ((from, _), wire) in &cluster.wires {
        if *from == heir {
            wire.cut();
        }
    }
    let (old, wanted) = (cluster.raft(leader).clone(), name.clone());
    let handed = tokio::spawn(async move { old.transfer_leadership(Some(&wanted)).await });
    eventually("a candidate", || (cluster.raft(heir).status().fence.term > reign.term).then_some(())).await;
    cluster.kill(heir).await;
    let ended = within("the hand-over", handed).await.unwrap();
    assert!(matches!(&ended, Err(TransferError::Silent(it)) if *it == name), "{ended:?}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_voter_begins_anew_when_its_reign_ended_by_itself() {
    let cluster = Cluster::new(1);
    let raft = Raft::open(cluster.config(0)).await.unwrap();
    let mut leadership = raft.leadership();
    let mut last = Term(0);
    for _ in 0..3 {
        let newer = |now: &Leadership| matches!(now, Leadership::Leading { fence, quorum: true } if fence.term > last);
        let now = within("leading", leadership.wait_for(newer)).await.unwrap().clone();
        let Leadership::Leading { fence, .. } = now else { unreachable!() };
        last = fence.term;
        let mut reign = raft.begin(last).await.unwrap();
        reign.proposer.propose(support::begin_term()).unwrap();
        let batch = within("a batch", reign.applied.recv()).await.unwrap();
        assert_eq!(batch.entries[0].term, last);
        // Whoever reigned is gone, as when its thread panics.
        drop(reign);
    }
    raft.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tickets_count_commands_in_the_order_they_were_proposed() {
    let mut cluster = Cluster::new(1);
    cluster.tune = |config| config.max_entry_bytes = 2_000;
    let raft = Raft::open(cluster.config(0)).await.unwrap();
    let mut leadership = raft.leadership();
    let leading = |now: &Leadership| matches!(now, Leadership::Leading { quorum: true, .. });
    let now = within("leading", leadership.wait_for(leading)).await.unwrap().clone();
    let Leadership::Leading { fence, .. } = now else { unreachable!() };
    let mut reign = raft.begin(fence.term).await.unwrap();
    assert!(raft.begin(fence.term).await.is_err(), "a process leads at most once in a term");
    reign.proposer.propose(support::begin_term()).unwrap();
    for n in 2..=500 {
        assert_eq!(reign.proposer.propose(subscribe(&format!("f{n}"))).unwrap(), n);
    }
    let mut seen = 0;
    while seen < 500 {
        let batch = within("a batch", reign.applied.recv()).await.unwrap();
        for entry in batch.entries {
            assert_eq!((entry.term, entry.first_ticket), (fence.term, seen + 1));
            assert!(entry.outcomes.len() <= 1_024);
            seen += entry.outcomes.len() as u64;
        }
        assert_eq!(raft.with_registry(Registry::incarnation), 1);
    }
    let names = framework_names(&raft.registry());
    assert_eq!(names, (2..=500).map(|n| format!("f{n}")).collect::<Vec<_>>());
    assert!(raft.now() >= raft.registry().clock());
    raft.shutdown().await;
    assert!(reign.applied.recv().await.is_none(), "the stream ends with the reign");
    assert!(reign.proposer.propose(Command::Tick).is_err());
}
