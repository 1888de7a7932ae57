//! Disks that take no writes.

use super::super::{DISK_DIES, DISK_FULL, Down, READ_ONLY};
use super::rest::back_somehow;
use super::{DiskFault, LOOK, equal, progress, status};
use crate::run::Field;
use anyhow::{Context, bail};
use std::time::{Duration, Instant};

/// How long a master may take to find out.
const ANSWER_TIME: Duration = Duration::from_secs(90);
/// What a master must say that ends: the kernel's own words. What is on its way to a device that fails meets another
/// error than what comes later.
const NO_ROOM: &[&str] = &["No space left on device"];
const NO_WRITES: &[&str] = &["Read-only file system", "Input/output error"];
const NOT_WRITTEN: &[&str] = &[NO_ROOM[0], NO_WRITES[1]];
/// What it notes that has room in its log still, and none for a snapshot.
const NO_SNAPSHOT: &str = "no snapshot";

/// The disk of a master is full. It may go on while its log has room, and notes that it cannot take a snapshot; or it ends
/// with a word that says why. Started again while the disk stays full it does one of these, too. Once there is room it
/// is the member that it was. The others serve.
pub async fn disk_full(field: &Field, name: &str) -> anyhow::Result<()> {
    let names = [name.to_owned()];
    field.cluster.serving().await?;
    let fault = DiskFault::begins(field, DISK_FULL, &names).await?;
    let down = Down::of(&field.cluster, &names);
    let full = field.cluster.fill_disk(name)?;
    let (bytes, began) = (full.bytes(), Instant::now());
    let first = answer(field, &fault, 0, NO_ROOM, true).await?;
    progress(field, "while the disk of a master is full").await?;
    let mut bit = format!("{bytes} bytes of room were taken; {first}");
    if has_ended(field, name)? {
        let before = fault.said(name)?.len();
        field.cluster.restart(name)?;
        field.cluster.may_end(name)?;
        bit += ", started again ";
        bit += &answer(field, &fault, before, NO_ROOM, true).await?;
    }
    drop(full);
    comes_back(field, fault, down, name, bit, began).await
}

/// The disk of a master takes no writes: it must end with a word that says why, when it is started again, too, and is the
/// member that it was once the disk is well. The others serve.
pub async fn disk_read_only(field: &Field, name: &str) -> anyhow::Result<()> {
    let names = [name.to_owned()];
    field.cluster.serving().await?;
    let fault = DiskFault::begins(field, READ_ONLY, &names).await?;
    let down = Down::of(&field.cluster, &names);
    let read_only = field.cluster.read_only(name)?;
    let began = Instant::now();
    let first = answer(field, &fault, 0, NO_WRITES, false).await?;
    progress(field, "without a master whose disk takes nothing").await?;
    let before = fault.said(name)?.len();
    field.cluster.restart(name)?;
    let again = answer(field, &fault, before, &NO_WRITES[..1], false).await?;
    drop(read_only);
    let bit = format!("the disk took no writes; {first}, started again {again}");
    comes_back(field, fault, down, name, bit, began).await
}

/// The disk under a master has less room behind it than it says, so that some of what is written never gets there: at the
/// first sync of its log that tells of it the master must end with a word that says why; while only snapshots meet it, it
/// notes that. With what can be read of it on a sound disk it comes back, as the member that it was or as a new one. The
/// others serve.
pub async fn disk_dies(field: &Field, name: &str) -> anyhow::Result<()> {
    let names = [name.to_owned()];
    field.cluster.serving().await?;
    let fault = DiskFault::begins(field, DISK_DIES, &names).await?;
    let down = Down::kill(&field.cluster, &names)?;
    let thin = field.cluster.thin_disk(name)?;
    progress(field, "without a master that is down").await?;
    field.cluster.restart(name)?;
    let began = Instant::now();
    let bit = answer(field, &fault, 0, NOT_WRITTEN, true).await?;
    progress(field, "without a master whose disk died").await?;
    drop(thin);
    down.restart()?;
    let how = back_somehow(field, &fault, name).await.context("after a disk that died")?;
    fault.ends(format!("writes got lost on their way: {bit}; {how} after {:.2?}", began.elapsed()))
}

/// Waits until the master has ended and said why, beyond so many lines that it had said before, or goes on, if it may,
/// and notes what it cannot do.
async fn answer(
    field: &Field,
    fault: &DiskFault<'_>,
    before: usize,
    words: &[&str],
    may_go_on: bool,
) -> anyhow::Result<String> {
    let name = fault.names.first().context("a fault of nobody")?;
    let began = Instant::now();
    loop {
        if let Some(ended) = field.cluster.ended(name)? {
            let said = fault.said(name)?.into_iter().skip(before).collect::<Vec<_>>().join(" | ");
            if ended.success() || !words.iter().any(|word| said.contains(word)) {
                bail!("{name} ended with {ended} and said none of {words:?}: {said}");
            }
            return Ok(format!("it ended after {:.2?} ({ended})", began.elapsed()));
        }
        let said = field.cluster.statuses().await;
        let note = status(&said, name).map(|own| &*own.note).unwrap_or_default();
        if may_go_on && note.contains(NO_SNAPSHOT) {
            return Ok(format!("it went on and noted after {:.2?}: {note}", began.elapsed()));
        }
        if began.elapsed() >= ANSWER_TIME {
            bail!("{name} neither ended nor noted anything for {} s: {note:?}", ANSWER_TIME.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether a master has ended, also if nobody has looked since.
fn has_ended(field: &Field, name: &str) -> anyhow::Result<bool> {
    Ok(field.cluster.pid(name)?.is_none() || field.cluster.ended(name)?.is_some())
}

async fn comes_back(
    field: &Field,
    fault: DiskFault<'_>,
    down: Down<'_>,
    name: &str,
    bit: String,
    began: Instant,
) -> anyhow::Result<()> {
    match has_ended(field, name)? {
        false => down.are_up(),
        true => down.restart()?,
    }
    fault.same_disks().await.context("after a disk that took nothing")?;
    equal(field, name).await?;
    progress(field, "after a disk that took nothing").await?;
    fault.ends(format!("{bit}; it voted again after {:.2?}", began.elapsed()))
}
