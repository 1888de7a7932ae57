//! Each fault of a disk bites, and nothing is left of it.

use super::thin::ThinDisk;
use super::{Disks, disks_missing};
use crate::{Damage, Plan, SyncFault, TestCluster, tracing_missing};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Whether the test can be done here. Where all must be done it fails if it cannot.
fn may_run(missing: Option<String>) -> bool {
    let Some(missing) = missing else { return true };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must have what this test needs: {missing}");
    println!("skipped: {missing}");
    false
}

fn loops_below(dir: &Path) -> Vec<String> {
    let backing = std::fs::read_dir("/sys/block")
        .unwrap()
        .filter_map(|block| std::fs::read_to_string(block.unwrap().path().join("loop/backing_file")).ok());
    backing.filter(|file| file.starts_with(&*dir.to_string_lossy())).collect()
}

fn plan() -> Plan {
    Plan { agents: 0, ..Plan::default() }
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_nothing_else() {
    if !may_run(disks_missing()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disks = Disks::make(dir.path(), ["m1".into(), "m2".into()].into_iter()).unwrap();
    for name in ["m1", "m2"] {
        let seen = disks.of(name).unwrap().seen();
        std::fs::write(seen.join("synced"), name).unwrap();
        std::fs::File::open(seen.join("synced")).unwrap().sync_all().unwrap();
        std::fs::File::open(&seen).unwrap().sync_all().unwrap();
        std::fs::write(seen.join("unsynced"), name).unwrap();
    }
    assert_eq!(loops_below(dir.path()).len(), 2);
    // Nobody else sees them.
    assert!(std::fs::read_dir(dir.path().join("m1")).unwrap().next().is_none());
    disks.cut(&["m1", "m2"]).unwrap();
    for name in ["m1", "m2"] {
        let disk = disks.of(name).unwrap();
        assert!(std::fs::write(disk.seen().join("late"), name).is_err());
        disk.power_returns().unwrap();
        assert_eq!(std::fs::read_to_string(disk.seen().join("synced")).unwrap(), name);
        assert!(!disk.seen().join("unsynced").exists() && !disk.seen().join("late").exists());
        std::fs::write(disk.seen().join("late"), name).unwrap();
    }
    assert!(disks.of("m3").is_err());
    drop(disks);
    assert_eq!(loops_below(dir.path()), Vec::<String>::new());
}

#[tokio::test]
async fn all_masters_come_back_from_a_power_cut_and_nothing_is_left_of_their_disks() {
    if !may_run(disks_missing()) {
        return;
    }
    let cluster = TestCluster::start(Plan { disks: true, agents: 1, ..Plan::default() }).await.unwrap();
    let (_, term) = cluster.serving().await.unwrap();
    let dir = cluster.dir().to_owned();
    let masters = cluster.master_names();
    cluster.power_cut(&masters).unwrap();
    assert!(masters.iter().all(|name| cluster.pid(name).unwrap().is_none()) && cluster.check().is_ok());
    cluster.restart_all(&masters).unwrap();
    cluster.serving_after(term).await.unwrap();
    cluster.ready().await.unwrap();
    let replicas = cluster.replicas().await.unwrap();
    assert!(replicas.iter().all(|one| one.state_hash == replicas[0].state_hash), "{replicas:?}");
    assert!(cluster.power_cut(["a1"]).is_err() && cluster.pid("a1").unwrap().is_some());
    drop(cluster);
    assert!(loops_below(&dir).is_empty() && !dir.exists());
}

#[tokio::test]
async fn a_master_on_a_full_or_read_only_disk_comes_back_when_the_disk_is_well() {
    if !may_run(disks_missing()) {
        return;
    }
    let cluster = TestCluster::start(Plan { disks: true, ..plan() }).await.unwrap();
    let (leader, _) = cluster.serving().await.unwrap();
    let name = cluster.master_names().into_iter().find(|name| *name != leader).unwrap();

    let full = cluster.fill_disk(&name).unwrap();
    assert!(full.bytes() > 100 << 20, "{}", full.bytes());
    let extra = cluster.data_dir(&name).unwrap().join("extra");
    assert!(std::fs::write(&extra, vec![1; 4096]).is_err(), "there is room on a full disk");
    let _ = std::fs::remove_file(&extra);
    drop(full);
    std::fs::write(&extra, vec![1; 4096]).unwrap();
    std::fs::remove_file(extra).unwrap();

    let read_only = cluster.read_only(&name).unwrap();
    assert!(!cluster.ends(&name).await.unwrap().success());
    assert!(std::fs::File::create(cluster.data_dir(&name).unwrap().join("extra")).is_err());
    drop(read_only);
    cluster.restart(&name).unwrap();
    cluster.caught_up(&name).await.unwrap();
    cluster.votes(&name).await.unwrap();
    cluster.end().await.unwrap();
}

#[test]
fn a_thin_disk_says_once_that_it_lost_something() {
    if !may_run(disks_missing()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disks = Disks::make(dir.path(), ["m1".into()].into_iter()).unwrap();
    let disk = disks.of("m1").unwrap();
    let file = || disk.seen().join("file");
    std::fs::write(file(), "what was there").unwrap();
    let thin = ThinDisk::make(disk.clone(), Arc::default()).unwrap();
    assert_eq!(std::fs::read_to_string(file()).unwrap(), "what was there");
    let more = std::fs::File::create(disk.seen().join("more")).unwrap();
    (&more).write_all(&vec![1; 8 << 20]).unwrap();
    let (mut syncs, mut failed) = (0, 0);
    // The kernel tells of it once or twice, and then no more.
    while syncs == failed && syncs < 10 {
        syncs += 1;
        failed += usize::from(more.sync_data().is_err());
    }
    assert!((1..10).contains(&failed), "{failed} of {syncs} syncs failed");
    drop((more, thin));
    assert_eq!(std::fs::read_to_string(file()).unwrap(), "what was there");
    std::fs::write(disk.seen().join("again"), vec![1; 8 << 20]).unwrap();
    std::fs::File::open(disk.seen().join("again")).unwrap().sync_all().unwrap();
    drop(disks);
    assert_eq!(loops_below(dir.path()), Vec::<String>::new());
}

#[tokio::test]
async fn syncs_that_fail_or_kill_end_a_master_and_others_do_not() {
    if !may_run(tracing_missing()) {
        return;
    }
    let cluster = TestCluster::start(plan()).await.unwrap();
    let (leader, _) = cluster.serving().await.unwrap();
    let name = cluster.master_names().into_iter().find(|name| *name != leader).unwrap();
    for fault in [SyncFault::Lies, SyncFault::Slow(Duration::from_millis(20))] {
        let bad = cluster.fault_syncs(&name, fault).await.unwrap();
        // A leader commits a tick each second.
        while bad.count() < 2 {
            cluster.check().unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    for fault in [SyncFault::Fails, SyncFault::Kills(3)] {
        let bad = cluster.fault_syncs(&name, fault).await.unwrap();
        let status = cluster.ends(&name).await.unwrap();
        assert!(!status.success(), "{fault:?}: {status}");
        drop(bad);
        cluster.restart(&name).unwrap();
        cluster.caught_up(&name).await.unwrap();
        cluster.votes(&name).await.unwrap();
    }
    assert!(cluster.fault_syncs("m9", SyncFault::Fails).await.is_err());
    cluster.end().await.unwrap();
}

#[tokio::test]
async fn a_master_that_lost_its_disk_does_not_vote_until_it_was_let_back_in() {
    let cluster = TestCluster::start(plan()).await.unwrap();
    let (leader, _) = cluster.serving().await.unwrap();
    let name = cluster.master_names().into_iter().find(|name| *name != leader).unwrap();
    assert!(cluster.replace(&name).await.is_err(), "it is well");
    assert!(cluster.lose_disk(&name).is_err() && cluster.damage(&name, Damage::Flip, 1).is_err(), "it runs");
    cluster.kill(&name).unwrap();
    let one = cluster.damage(&name, Damage::Flip, 7).unwrap();
    // The same seed finds the same bit, and turns it back.
    assert_eq!(cluster.damage(&name, Damage::Flip, 7).unwrap(), one);
    let cut = cluster.damage(&name, Damage::Truncate, 7).unwrap();
    let length = cluster.dir().join(&name).join(&cut.file).metadata().unwrap().len();
    assert_eq!((length, cut.damage), (cut.at, Damage::Truncate));
    cluster.lose_disk(&name).unwrap();
    assert!(std::fs::read_dir(cluster.dir().join(&name)).unwrap().next().is_none());
    cluster.restart(&name).unwrap();
    cluster.replace(&name).await.unwrap();
    assert!(cluster.lose_disk("a1").is_err());
    let replicas = cluster.replicas().await.unwrap();
    assert!(replicas.iter().all(|one| one.state_hash == replicas[0].state_hash), "{replicas:?}");
    cluster.end().await.unwrap();
}
