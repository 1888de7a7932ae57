//! Power cuts.

use super::super::{Dice, Down, POWER_CUT};
use super::{DiskFault, equal, progress};
use crate::run::Field;
use anyhow::{Context, bail};
use std::time::{Duration, Instant};

/// The latest moment of a cut, so that it falls anywhere between two syncs.
const MOMENT_MAX: Duration = Duration::from_millis(400);

/// Cuts the power of these masters, all at one moment that the dice choose. A quorum that is left must serve without
/// them; each must come back by itself with the disk that it had, and hold what the others hold.
pub async fn cut_power(field: &Field, dice: &mut Dice, names: &[String]) -> anyhow::Result<()> {
    let (leader, old_term) = field.cluster.serving().await?;
    let moment = dice.time(Duration::ZERO, MOMENT_MAX);
    let fault = DiskFault::begins(field, POWER_CUT, names).await?;
    tokio::time::sleep(moment).await;
    let down = Down::of(&field.cluster, names);
    field.cluster.power_cut(names)?;
    let cut = Instant::now();
    let masters = field.cluster.master_names();
    let quorum = masters.len() - names.len() > masters.len() / 2;
    if quorum {
        progress(field, "while masters have no power").await?;
        down.restart()?;
    } else {
        if field.cluster.agents().await.is_ok() {
            bail!("somebody leads while {} of {} masters have no power", names.len(), masters.len());
        }
        down.restart()?;
    }
    let (new, term) = field.cluster.serving().await?;
    let serving = cut.elapsed();
    if names.contains(&leader) && term <= old_term {
        bail!("the power of {leader}, which led in term {old_term}, was cut, and {new} leads in term {term}");
    }
    progress(field, "after a power cut").await?;
    fault.same_disks().await.context("after a power cut")?;
    for name in names {
        equal(field, name).await?;
    }
    fault.ends(format!(
        "{moment:.2?} after the fault began the power of {} of {} masters was cut, and what was not synced was \
         gone; {new} served in term {term} after {serving:.2?}, all voted with their own disks after {:.2?}",
        names.len(),
        masters.len(),
        cut.elapsed()
    ))
}
