//! Connections that break, and bytes that are late. Neither cuts anybody off: service goes on.

use super::{DELAY, Dice, Fault, PROGRESS_TASKS, PROGRESS_TIME, RESET, but, partitions};
use crate::run::Field;
use anyhow::{Context, bail};
use std::time::{Duration, Instant};

/// How often all connections are broken, and the time between two of those.
const STRIKES: u32 = 8;
const BETWEEN: Duration = Duration::from_millis(250);
/// The most that bytes are late, as far as it is certain and as far as it is chance: together less than an
/// election's timeout.
const LATENCY_MAX: Duration = Duration::from_millis(60);
const JITTER_MAX: Duration = Duration::from_millis(60);

/// Breaks all connections of a master, the leader every other time, again and again under load.
pub async fn reset_connections(field: &Field, dice: &mut Dice) -> anyhow::Result<()> {
    let (leader, term) = field.cluster.serving().await?;
    let masters = field.cluster.master_names();
    let name = if dice.count(2) == 1 { leader } else { dice.pick_one(&masters)? };
    strike(field, &name, term).await
}

/// The same, of the leader.
pub async fn strike_leader(field: &Field) -> anyhow::Result<()> {
    let (leader, term) = field.cluster.serving().await?;
    strike(field, &leader, term).await
}

async fn strike(field: &Field, name: &str, term: u64) -> anyhow::Result<()> {
    let fault = Fault::begins(field, RESET, &[name.to_owned()]);
    let masters = but(&field.cluster.master_names(), name);
    let others = [masters, field.cluster.agent_names(), field.cluster.framework_names()].concat();
    let (begun, mut broken) = (Instant::now(), 0);
    for _ in 0..STRIKES {
        for other in &others {
            broken += field.cluster.reset(other, name)?;
        }
        tokio::time::sleep(BETWEEN).await;
    }
    if broken == 0 {
        bail!("{name} had no connection to break in {:.2?}", begun.elapsed());
    }
    partitions::whole_again(field).await.context("after connections were reset")?;
    let (new, later) = field.cluster.serving().await?;
    fault.ends(format!(
        "{broken} connections of {name} were reset in {STRIKES} strikes; {new} leads in term {later} (before: \
         {term}), all took part {:.2?} after the first",
        begun.elapsed()
    ));
    Ok(())
}

/// Makes all that the leader sends and is sent late, by chance more or less, for so long. Launches go on.
pub async fn delay_leader(field: &Field, dice: &mut Dice, time: Duration) -> anyhow::Result<()> {
    delay(field, dice, 1, time).await
}

/// The same with a quarter of that: its quorum may hang on a single follower, whose answers are late, too.
pub async fn delay_leader_a_little(field: &Field, dice: &mut Dice, time: Duration) -> anyhow::Result<()> {
    delay(field, dice, 4, time).await
}

async fn delay(field: &Field, dice: &mut Dice, part: u32, time: Duration) -> anyhow::Result<()> {
    let (leader, term) = field.cluster.serving().await?;
    let latency = dice.time(Duration::from_millis(5), LATENCY_MAX / part);
    let jitter = dice.time(Duration::ZERO, JITTER_MAX / part);
    let fault = Fault::begins(field, DELAY, std::slice::from_ref(&leader));
    let others = but(&field.cluster.master_names(), &leader);
    let late = || {
        let bytes = others.iter().map(|other| Ok(field.cluster.traffic(&leader, other)?.delayed));
        bytes.sum::<anyhow::Result<u64>>()
    };
    let before = late()?;
    let delayed = field.cluster.delay_around(&leader, latency, jitter)?;
    let begun = Instant::now();
    field.load.begin_epoch();
    field.load.progress(PROGRESS_TASKS, PROGRESS_TIME).await.context("while the leader's network is slow")?;
    let launched = begun.elapsed();
    tokio::time::sleep(time.saturating_sub(launched)).await;
    let bytes = late()? - before;
    if bytes == 0 {
        bail!("{leader} sent the other masters nothing for {:.2?}", begun.elapsed());
    }
    drop(delayed);
    let lasted = begun.elapsed();
    partitions::whole_again(field).await.context("after the leader's network was slow")?;
    let (new, later) = field.cluster.serving().await?;
    fault.ends(format!(
        "{bytes} bytes from {leader} to the other masters were late by {latency:.0?} and up to {jitter:.0?} more for \
         {lasted:.2?}; launches went on after {launched:.2?}, {new} leads in term {later} (before: {term})"
    ));
    Ok(())
}
