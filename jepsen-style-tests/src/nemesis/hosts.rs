//! Faults of a host's network that take the kernel: packets lost, a cable pulled, a line that is too thin.

use super::{CABLE, Dice, Fault, LOSS, PROGRESS_TASKS, PROGRESS_TIME, THROTTLE, partitions};
use crate::run::Field;
use anyhow::{Context, bail};
use std::time::{Duration, Instant};

/// How many in a hundred packets are lost.
const PERCENT: std::ops::RangeInclusive<usize> = 5..=25;
/// What a line lets through that is too thin for the load, in thousand bits a second.
const THIN_KBIT: u32 = 128;

/// One of these. Each comes once before any comes again.
pub async fn host_faults(field: &Field, dice: &mut Dice, time: Duration) -> anyhow::Result<()> {
    match dice.deal(3) {
        0 => lose_packets(field, dice, time).await,
        1 => pull_cable(field, time).await,
        _ => throttle(field, time).await,
    }
}

/// The leader's host loses packets both ways for so long. Launches go on.
pub async fn lose_packets(field: &Field, dice: &mut Dice, time: Duration) -> anyhow::Result<()> {
    field.cluster.ready().await?;
    let (leader, term) = field.cluster.serving().await?;
    let percent = PERCENT.start() - 1 + dice.count(PERCENT.end() - PERCENT.start() + 1);
    let percent = u8::try_from(percent)?;
    let fault = Fault::begins(field, LOSS, std::slice::from_ref(&leader));
    let lossy = field.cluster.lose(&leader, percent)?;
    let begun = Instant::now();
    field.load.begin_epoch();
    field.load.progress(PROGRESS_TASKS, PROGRESS_TIME).await.context("while packets are lost")?;
    let launched = begun.elapsed();
    tokio::time::sleep(time.saturating_sub(launched)).await;
    let lost = lossy.lost()?;
    if lost == 0 {
        bail!("{leader} lost none of its packets in {:.2?}", begun.elapsed());
    }
    drop(lossy);
    let lasted = begun.elapsed();
    partitions::whole_again(field).await.context("after packets were lost")?;
    let (new, later) = field.cluster.serving().await?;
    fault.ends(format!(
        "{lost} packets, {percent} in a hundred, of {leader} were lost in {lasted:.2?}; launches went on after \
         {launched:.2?}, {new} leads in term {later} (before: {term})"
    ));
    Ok(())
}

/// The leader's cable is pulled for at least so long: nobody reaches it, and another must serve.
pub async fn pull_cable(field: &Field, time: Duration) -> anyhow::Result<()> {
    field.cluster.ready().await?;
    let (leader, term) = field.cluster.serving().await?;
    let fault = Fault::begins(field, CABLE, std::slice::from_ref(&leader));
    let unplugged = field.cluster.unplug(&leader)?;
    let begun = Instant::now();
    let (new, later) = field.cluster.serving_after(term).await?;
    let serving = begun.elapsed();
    field.load.begin_epoch();
    field.load.progress(PROGRESS_TASKS, PROGRESS_TIME).await.context("while the leader's cable is pulled")?;
    let launched = begun.elapsed();
    tokio::time::sleep(time.saturating_sub(launched)).await;
    if field.cluster.statuses().await.iter().any(|(name, _)| *name == leader) {
        bail!("{leader} answers though its cable is pulled");
    }
    drop(unplugged);
    let lasted = begun.elapsed();
    partitions::whole_again(field).await.context("after the cable was plugged in again")?;
    fault.ends(format!(
        "{leader}, which led in term {term}, answered nobody for {lasted:.2?}; {new} served in term {later} after \
         {serving:.2?}, launches went on after {launched:.2?}"
    ));
    Ok(())
}

/// The leader is sent no more than a thin line lets through for so long. Whether it goes on to lead is open; service
/// must come back.
pub async fn throttle(field: &Field, time: Duration) -> anyhow::Result<()> {
    field.cluster.ready().await?;
    let (leader, term) = field.cluster.serving().await?;
    let fault = Fault::begins(field, THROTTLE, std::slice::from_ref(&leader));
    let slow = field.cluster.throttle(&leader, THIN_KBIT)?;
    tokio::time::sleep(time).await;
    let held_up = slow.held_up()?;
    if held_up == 0 {
        bail!("in {time:.2?} no packet to {leader} had to wait");
    }
    drop(slow);
    let begun = Instant::now();
    partitions::whole_again(field).await.context("after the leader's line was thin")?;
    let (new, later) = field.cluster.serving().await?;
    fault.ends(format!(
        "{held_up} packets to {leader} had to wait in {time:.2?}; {new} leads in term {later} (before: {term}), all took \
         part {:.2?} after it",
        begun.elapsed()
    ));
    Ok(())
}
