//! Faults of a host's network that take the kernel: packets lost, late or out of order, a cable pulled, a line that is
//! too thin.

use super::{CABLE, Dice, Fault, LOSS, PROGRESS_TASKS, PROGRESS_TIME, THROTTLE, WEATHER, but, partitions};
use crate::run::Field;
use anyhow::{Context, bail};
use muster_testkit::hosts::{Storm, Weather};
use std::time::{Duration, Instant};

/// How many in a hundred packets are lost.
const PERCENT: std::ops::RangeInclusive<usize> = 5..=25;
/// What a line lets through that is too thin for the load, in thousand bits a second.
const THIN_KBIT: u32 = 128;
/// By how much packets are late at least, and beyond that by chance: the first is less than the second, so that they
/// overtake each other, and both together less than an election's timeout.
const LATENCY: Duration = Duration::from_millis(5);
const JITTER: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_millis(30);
/// The most in a hundred packets that are lost then.
const LOST_MAX: usize = 5;
/// Between two looks at what became of packets.
const LOOK: Duration = Duration::from_millis(50);

/// One of these. Each comes once before any comes again.
pub async fn host_faults(field: &Field, dice: &mut Dice, time: Duration) -> anyhow::Result<()> {
    match dice.deal("host", 3) {
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

/// Packets into one host or two are late, overtake each other and get lost for at least so long: the leader's, a
/// follower's, an agent's, or the leader's and another one's; each once before any comes again. Launches go on.
pub async fn storms(field: &Field, dice: &mut Dice, time: Duration) -> anyhow::Result<()> {
    field.cluster.ready().await?;
    let (leader, term) = field.cluster.serving().await?;
    let followers = but(&field.cluster.master_names(), &leader);
    let agents = field.cluster.agent_names();
    let names = match dice.deal("storm", 4) {
        0 => vec![leader],
        1 => vec![dice.pick_one(&followers)?],
        2 => vec![dice.pick_one(&agents)?],
        _ => vec![leader, dice.pick_one(&[followers, agents].concat())?],
    };
    let fault = Fault::begins(field, WEATHER, &names);
    let mut storms = Vec::new();
    for name in &names {
        let jitter = dice.time(*JITTER.start(), *JITTER.end());
        let lost = u8::try_from(dice.count(LOST_MAX))?;
        let weather = Weather { latency: LATENCY, jitter, lost, seed: dice.seed() };
        storms.push((name, weather, field.cluster.storm(name, weather)?));
    }
    let begun = Instant::now();
    field.load.begin_epoch();
    field.load.progress(PROGRESS_TASKS, PROGRESS_TIME).await.context("while packets are late")?;
    let launched = begun.elapsed();
    tokio::time::sleep(time.saturating_sub(launched)).await;
    let mut seen = Vec::new();
    for (name, Weather { jitter, lost, .. }, storm) in &storms {
        let became = bites(name, storm).await?;
        let late = *jitter + LATENCY;
        seen.push(format!("{name}, up to {late:.0?} late, {lost} in a hundred lost: {became}"));
    }
    drop(storms);
    let lasted = begun.elapsed();
    partitions::whole_again(field).await.context("after packets were late")?;
    let (new, later) = field.cluster.serving().await?;
    fault.ends(format!(
        "for {lasted:.2?} packets came late to {}; launches went on after {launched:.2?}, {new} leads in term {later} \
         (before: {term})",
        seen.join("; ")
    ));
    Ok(())
}

/// Waits until a storm has put packets of a connection out of order, and lost some; what it did.
async fn bites(name: &str, storm: &Storm) -> anyhow::Result<String> {
    let until = Instant::now() + PROGRESS_TIME;
    loop {
        let packets = storm.packets()?;
        if packets.overtook > 0 && packets.lost > 0 {
            let crowded_out = match packets.crowded_out {
                0 => String::new(),
                count => format!(", {count} found no room"),
            };
            return Ok(format!(
                "{} held up, {} overtook others of their connection, {} lost{crowded_out}",
                packets.held, packets.overtook, packets.lost
            ));
        }
        if Instant::now() >= until {
            bail!("the weather at {name} did nothing worth its name: {packets:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
}
