//! Faults of the network between the members. Frameworks reach the masters past all of them.

use super::{CUT, Fault, PROGRESS_TASKS, PROGRESS_TIME, deposed};
use crate::run::Field;
use anyhow::{Context, bail};
use muster_testkit::Cut;
use std::time::{Duration, Instant};

/// What of the leader's network is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Both directions, to masters and agents.
    Both,
    /// What the other masters send it: it is heard and hears nobody.
    Hearing,
    /// What it sends the other masters: it hears all and is not heard.
    Speaking,
}

/// Cuts the leader off for at least so long. Another must serve and launch meanwhile; when all hear each other again the
/// old one is one of many.
pub async fn cut_leader(field: &Field, side: Side, time: Duration) -> anyhow::Result<()> {
    let (leader, old_term) = field.cluster.serving().await?;
    let fault = Fault::begins(field, CUT, std::slice::from_ref(&leader));
    let cuts = cuts(field, &leader, side)?;
    let cut = Instant::now();
    for one in &cuts {
        one.bites().await?;
    }
    let (new, term) = field.cluster.serving_after(old_term).await?;
    let serving = cut.elapsed();
    if new == leader {
        bail!("{leader} leads in term {term} though its network is cut ({side:?})");
    }
    field.load.begin_epoch();
    field.load.progress(PROGRESS_TASKS, PROGRESS_TIME).await.context("while the leader is cut off")?;
    let launched = cut.elapsed();
    tokio::time::sleep(time.saturating_sub(launched)).await;
    if deposed::answers(field, &leader).await? {
        bail!("{leader} was deposed while it was cut off, and answered a read that claims to be current");
    }
    let held: u64 = cuts.iter().map(Cut::held).sum();
    let hanging: usize = cuts.iter().map(Cut::hanging).sum();
    drop(cuts);
    let lasted = cut.elapsed();
    field.load.begin_epoch();
    field.load.progress(PROGRESS_TASKS, PROGRESS_TIME).await.context("after the network was whole again")?;
    field.cluster.caught_up(&leader).await?;
    fault.ends(format!(
        "{side:?} of {leader}, which led in term {old_term}, for {lasted:.2?}: {held} bytes were held back, {hanging} \
         dials hung at its end; {new} served in term {term} after {serving:.2?}, launches went on after {launched:.2?}"
    ));
    Ok(())
}

fn cuts(field: &Field, leader: &str, side: Side) -> anyhow::Result<Vec<Cut>> {
    if side == Side::Both {
        return Ok(vec![field.cluster.isolate(leader)?]);
    }
    let masters = field.cluster.master_names();
    let others = masters.iter().filter(|name| *name != leader);
    let cut = |other: &String| match side {
        Side::Speaking => field.cluster.cut(leader, other),
        _ => field.cluster.cut(other, leader),
    };
    others.map(cut).collect()
}
