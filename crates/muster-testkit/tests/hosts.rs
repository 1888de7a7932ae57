//! Members on hosts of their own: what the kernel does to packets. Takes root; elsewhere it says so and passes, but
//! fails under `CI=true`.
//!
//! Hosts need a process that is in namespaces of its own, which no test is: the test runs itself again in them.

#![allow(clippy::unwrap_used)]

mod common;

use common::{eventually, lacks};
use muster_testkit::hosts::Weather;
use muster_testkit::{Plan, TestCluster, hosts};
use std::net::{SocketAddr, UdpSocket};
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
    if lacks(hosts::missing()) {
        return false;
    }
    let exe = std::env::current_exe().unwrap();
    let arguments = ["--exact", test, "--nocapture", "--test-threads=1"];
    let status = Command::new(exe).args(arguments).env(INSIDE, "1").status().unwrap();
    assert!(status.success(), "{status}");
    false
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

/// Numbered datagrams, less than the kernel keeps for one who does not read.
const DATAGRAMS: u32 = 150;

/// Sends them, and gives those that arrive, in the order in which they do: all when so many are awaited, else those that
/// are there before a pause.
fn exchange(from: &UdpSocket, to: &UdpSocket, awaited: u32) -> Vec<u32> {
    send(from);
    receive(to, awaited)
}

fn send(from: &UdpSocket) {
    for number in 0..DATAGRAMS {
        from.send(&number.to_be_bytes()).unwrap();
    }
}

fn receive(to: &UdpSocket, awaited: u32) -> Vec<u32> {
    let mut arrived = Vec::new();
    let mut bytes = [0; 4];
    while arrived.len() < awaited as usize && to.recv(&mut bytes).is_ok() {
        arrived.push(u32::from_be_bytes(bytes));
    }
    arrived
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_are_late_and_overtake_each_other_and_are_lost() {
    if !inside("packets_are_late_and_overtake_each_other_and_are_lost") || lacks(hosts::weather_missing()) {
        return;
    }
    let cluster =
        TestCluster::start(Plan { agents: 1, frameworks: 1, hosts: true, ..Plan::default() }).await.unwrap();
    let address: SocketAddr = cluster.masters_of("f1").unwrap()[0].parse().unwrap();
    let socket = |name, ip| cluster.within(name, || UdpSocket::bind((ip, 0))).unwrap().unwrap();
    let (from, to) = (socket("f1", "0.0.0.0".into()), socket("m1", address.ip().to_string()));
    from.connect(to.local_addr().unwrap()).unwrap();
    to.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let in_order: Vec<_> = (0..DATAGRAMS).collect();
    assert_eq!(exchange(&from, &to, DATAGRAMS), in_order);

    let weather =
        Weather { latency: Duration::from_millis(5), jitter: Duration::from_millis(30), lost: 0, seed: 1 };
    let storm = cluster.storm("m1", weather).unwrap();
    let begun = Instant::now();
    let mut arrived = exchange(&from, &to, DATAGRAMS);
    assert!(begun.elapsed() >= weather.latency);
    assert_ne!(arrived, in_order);
    arrived.sort_unstable();
    assert_eq!(arrived, in_order);
    let packets = storm.packets().unwrap();
    assert!(packets.overtook > 0 && packets.passed >= DATAGRAMS.into(), "{packets:?}");
    assert_eq!((packets.lost, packets.crowded_out), (0, 0), "{packets:?}");
    // It is one at a time, and not every weather is one.
    assert!(cluster.storm("m1", weather).is_err());
    assert!(cluster.storm("m2", Weather { lost: 100, ..weather }).is_err());
    assert!(cluster.storm("m2", Weather { latency: Duration::from_secs(60), ..weather }).is_err());
    assert!(cluster.storm("m9", weather).is_err());
    // TCP mends all of it.
    cluster.serving().await.unwrap();
    drop(storm);
    assert_eq!(exchange(&from, &to, DATAGRAMS), in_order);

    let storm = cluster.storm("m1", Weather { lost: 50, ..weather }).unwrap();
    send(&from);
    let mut arrived = 0;
    to.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    eventually(|| {
        arrived += receive(&to, DATAGRAMS).len() as u64;
        arrived + storm.packets().unwrap().lost >= DATAGRAMS.into()
    })
    .await;
    let packets = storm.packets().unwrap();
    assert!(arrived < DATAGRAMS.into() && packets.lost >= u64::from(DATAGRAMS) - arrived, "{packets:?}");
    drop(storm);

    // What waits when it ends goes on.
    let late = Weather { latency: Duration::from_secs(10), jitter: Duration::ZERO, ..weather };
    let storm = cluster.storm("m1", late).unwrap();
    assert_eq!(exchange(&from, &to, 0), Vec::<u32>::new());
    eventually(|| storm.packets().unwrap().held >= DATAGRAMS.into()).await;
    drop(storm);
    to.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut bytes = [0; 4];
    for number in in_order {
        to.recv(&mut bytes).unwrap();
        assert_eq!(u32::from_be_bytes(bytes), number);
    }
    cluster.ready().await.unwrap();
    assert_eq!(cluster.error_lines(), Vec::<String>::new());
    let end = cluster.end().await.unwrap();
    assert!(end.killed.is_empty() && end.left.is_empty(), "{end:?}");
}
