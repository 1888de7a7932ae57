//! Leadership that is handed on under load, as before maintenance. Nobody fails.

use super::{Dice, Fault, PROGRESS_TASKS, PROGRESS_TIME, TRANSFER, but};
use crate::run::Field;
use anyhow::{Context, bail};
use std::time::{Duration, Instant};

/// Transfers in a row.
const TRANSFERS: u32 = 5;
/// How long a leader waits for the answer of a member that is to be replaced.
const SILENT: Duration = Duration::from_secs(1);

/// Hands leadership on several times in a row, to whom the dice say. Each time the new leader must serve, in a
/// later term. A member that is there cannot be replaced meanwhile.
pub async fn transfer_leadership(field: &Field, dice: &mut Dice) -> anyhow::Result<()> {
    let masters = field.cluster.master_names();
    let fault = Fault::begins(field, TRANSFER, &masters);
    let begun = Instant::now();
    let mut terms = Vec::new();
    for _ in 0..TRANSFERS {
        let (leader, term) = field.cluster.serving().await?;
        let next = dice.pick_one(&but(&masters, &leader))?;
        let asked = Instant::now();
        let later = match field.cluster.transfer_leadership(&next).await {
            Ok(later) => later,
            // A leader that was about to lose its office hands nothing over.
            Err(error) => match field.cluster.serving().await? {
                (name, later) if later > term => {
                    terms.push(format!("{name} in term {later} by itself"));
                    continue;
                }
                _ => return Err(error),
            },
        };
        if later <= term {
            bail!("{leader} of term {term} handed over to {next}, which leads in term {later}");
        }
        terms.push(format!("{next} in term {later} after {:.0?}", asked.elapsed()));
        for present in [next, dice.pick_one(&masters)?] {
            let asked = Instant::now();
            let is_let = field.cluster.operator().replace_member(&present, true).await.is_ok();
            // Who stands still for as long as it is waited for is not there.
            if is_let && asked.elapsed() < SILENT {
                bail!("{present} was let be replaced while it was there");
            }
        }
    }
    if terms.iter().all(|one| one.ends_with("by itself")) {
        bail!("nobody handed over: {}", terms.join(", "));
    }
    field.load.begin_epoch();
    field.load.progress(PROGRESS_TASKS, PROGRESS_TIME).await.context("after leadership was handed on")?;
    for name in &masters {
        field.cluster.caught_up(name).await?;
    }
    fault.ends(format!("{} in {:.2?}", terms.join(", "), begun.elapsed()));
    Ok(())
}
