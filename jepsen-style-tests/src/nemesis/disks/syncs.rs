//! Syncs that fail, take long, lie, or are the last that a master does.

use super::super::{Down, SYNC_FAILS, SYNC_KILLS, SYNC_LIES, SYNC_SLOW};
use super::rest::back_somehow;
use super::{DiskFault, equal, progress};
use crate::run::Field;
use anyhow::{Context, bail};
use muster_testkit::SyncFault;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

/// What a master must say of a disk that does not sync.
const WORD: &str = "Input/output error";
/// How many launches go on over a lying disk.
const LIES: u32 = 4;

/// All syncs of a master fail: it must end at once, with a word that says why, and come back with the disk that it has
/// when that is well again. The others serve.
pub async fn sync_fails(field: &Field, name: &str) -> anyhow::Result<()> {
    let (leader, old_term) = field.cluster.serving().await?;
    let names = [name.to_owned()];
    let fault = DiskFault::begins(field, SYNC_FAILS, &names).await?;
    let down = Down::of(&field.cluster, &names);
    let bad = field.cluster.fault_syncs(name, SyncFault::Fails).await?;
    let began = Instant::now();
    let status = field.cluster.ends(name).await?;
    let ended = began.elapsed();
    let (failed, words) = (bad.count(), fault.words()?);
    drop(bad);
    if status.success() || failed == 0 || !words.contains(WORD) {
        bail!("{failed} syncs of {name} failed, it ended with {status} and said: {words}");
    }
    progress(field, "without a master whose disk failed").await?;
    let (new, term) = field.cluster.serving().await?;
    if name == leader && term <= old_term {
        bail!("{leader} of term {old_term} ended, and {new} leads in term {term}");
    }
    down.restart()?;
    fault.same_disks().await.context("after syncs that failed")?;
    equal(field, name).await?;
    fault.ends(format!(
        "{failed} syncs failed, {name} ended after {ended:.2?} ({status}); {new} served in term {term}, it voted \
         again after {:.2?}",
        began.elapsed()
    ))
}

/// All syncs of a master take so much longer, a follower's or a leader's: launches go on.
pub async fn slow_syncs(field: &Field, name: &str, slow: Duration) -> anyhow::Result<()> {
    let (leader, term) = field.cluster.serving().await?;
    let names = [name.to_owned()];
    let fault = DiskFault::begins(field, SYNC_SLOW, &names).await?;
    let bad = field.cluster.fault_syncs(name, SyncFault::Slow(slow)).await?;
    let began = Instant::now();
    progress(field, "while syncs are slow").await?;
    let (launched, late) = (began.elapsed(), bad.count());
    drop(bad);
    if late == 0 {
        bail!("{name} synced nothing while its syncs were to be slow");
    }
    progress(field, "after slow syncs").await?;
    fault.same_disks().await.context("after slow syncs")?;
    let what = if name == leader { "the leader's" } else { "a follower's" };
    let (new, now) = field.cluster.serving().await?;
    fault.ends(format!(
        "{late} of {what} syncs were {slow:.0?} late, launches went on after {launched:.2?}; {leader} led in term \
         {term} before, {new} in term {now} after"
    ))
}

/// A master is killed as its store begins its nth sync from now on, and its power is cut: it comes back by itself.
pub async fn sync_kills(field: &Field, name: &str, nth: usize) -> anyhow::Result<()> {
    let names = [name.to_owned()];
    field.cluster.serving().await?;
    let fault = DiskFault::begins(field, SYNC_KILLS, &names).await?;
    let down = Down::of(&field.cluster, &names);
    let bad = field.cluster.fault_syncs(name, SyncFault::Kills(u16::try_from(nth)?)).await?;
    let status = field.cluster.ends(name).await?;
    drop(bad);
    if status.signal() != Some(9) {
        bail!("{name} was to be killed at its {nth}. sync and ended with {status}: {}", fault.words()?);
    }
    field.cluster.power_cut(&names)?;
    let ended = Instant::now();
    progress(field, "without a master that died of a sync").await?;
    down.restart()?;
    fault.same_disks().await.context("after a crash at a sync")?;
    equal(field, name).await?;
    fault.ends(format!(
        "{name} was killed at its {nth}. sync and its power was cut; it voted again after {:.2?}",
        ended.elapsed()
    ))
}

/// The syncs of one master lie while launches go on, then its power is cut. The others serve before it may come back:
/// with what it had, or as a new member that noticed its loss.
pub async fn lie_about_syncs(field: &Field, name: &str) -> anyhow::Result<()> {
    let (_, term) = field.cluster.serving().await?;
    let names = [name.to_owned()];
    let fault = DiskFault::begins(field, SYNC_LIES, &names).await?;
    let down = Down::of(&field.cluster, &names);
    let bad = field.cluster.fault_syncs(name, SyncFault::Lies).await?;
    for _ in 0..LIES {
        progress(field, "while a disk lies").await?;
    }
    let lies = bad.count();
    if lies == 0 {
        bail!("{name} synced nothing while its disk was to lie");
    }
    field.cluster.power_cut(&names)?;
    drop(bad);
    let cut = Instant::now();
    progress(field, "without a master whose disk lied").await?;
    down.restart()?;
    let how = back_somehow(field, &fault, name).await.context("after a disk that lied")?;
    let (new, now) = field.cluster.serving().await?;
    fault.ends(format!(
        "{lies} syncs of {name} were lies, then its power was cut; {how} after {:.2?}. Term {term} before, {new} \
         leads in term {now} after",
        cut.elapsed()
    ))
}
