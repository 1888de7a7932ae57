//! A master that is away for so long that only a snapshot brings it back.

use super::{Down, Fault, PROGRESS_TASKS, PROGRESS_TIME};
use crate::run::Field;
use anyhow::{Context, bail};
use std::time::Instant;

/// A master is dead until the others have forgotten the log that it would need.
pub const BEHIND: &str = "behind";
/// How often launches are waited for until they have.
const TRIES: usize = 40;

/// Kills a follower, waits until the others' logs no longer reach back to where it was, and starts it again: it must
/// take a snapshot in, and then be equal to the others.
pub async fn fall_behind(field: &Field, name: &str) -> anyhow::Result<()> {
    let names = [name.to_owned()];
    let was_at = field.cluster.status(name).await?.last_log_index;
    let fault = Fault::begins(field, BEHIND, &names);
    let down = Down::kill(&field.cluster, &names)?;
    let killed = Instant::now();
    let mut forgotten = 0;
    for _ in 0..TRIES {
        field.load.begin_epoch();
        field.load.progress(PROGRESS_TASKS, PROGRESS_TIME).await.context("while a master is away")?;
        let (leader, _) = field.cluster.serving().await?;
        forgotten = field.cluster.status(&leader).await?.purged_index;
        if forgotten > was_at {
            break;
        }
    }
    if forgotten <= was_at {
        bail!("{name} was at entry {was_at}, and the others have forgotten no more than entry {forgotten}");
    }
    down.restart()?;
    field.cluster.caught_up(name).await?;
    let snapshot = field.cluster.status(name).await?.snapshot_index;
    if snapshot < forgotten {
        bail!(
            "{name} is back from entry {was_at} with a snapshot up to {snapshot}, and entry {forgotten} was forgotten"
        );
    }
    field.load.begin_epoch();
    field.load.progress(PROGRESS_TASKS, PROGRESS_TIME).await.context("after a master came back")?;
    fault.ends(format!(
        "{name} was at entry {was_at}; the others forgot up to entry {forgotten}; it was back after {:.2?} with a \
         snapshot up to entry {snapshot}",
        killed.elapsed()
    ));
    Ok(())
}
