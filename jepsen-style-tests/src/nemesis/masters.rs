//! Faults of masters.

use super::process::MemberProcess;
use super::{Down, Fault, KILL, PAUSE, PROGRESS_TASKS, PROGRESS_TIME, deposed};
use crate::run::Field;
use anyhow::{Context, bail};
use std::time::{Duration, Instant};

/// Kills the leader, waits for service under a new one, starts the old one again, waits until it has caught
/// up.
pub async fn kill_leader(field: &Field) -> anyhow::Result<()> {
    let leader = field.cluster.leader().await?;
    kill_masters(field, &[leader]).await
}

/// Kills these masters at once. A quorum that is left must serve without them; where none is left nobody may
/// serve, and they are started again at once.
pub async fn kill_masters(field: &Field, names: &[String]) -> anyhow::Result<()> {
    let (leader, old_term) = field.cluster.serving().await?;
    let fault = Fault::begins(field, KILL, names);
    let mut pids = Vec::new();
    for name in names {
        pids.extend(field.cluster.pid(name)?);
    }
    let mut down = Some(Down::kill(&field.cluster, names)?);
    field.load.begin_epoch();
    let killed = Instant::now();
    let masters = field.cluster.master_names();
    let left: Vec<_> = masters.iter().filter(|name| !names.contains(name)).collect();
    let quorum = left.len() > masters.len() / 2;
    if !quorum {
        for name in &left {
            if field.cluster.agents_by(name).await.is_ok() {
                bail!("{name} answered a read that claims to be current while {names:?} were dead");
            }
        }
        let said = field.cluster.statuses().await;
        if let Some((name, _)) = said.iter().find(|(name, _)| names.contains(name)) {
            bail!("{name} was killed and still answers");
        }
        down.take().map_or(Ok(()), Down::restart)?;
    }
    let (new, term) = field.cluster.serving().await?;
    let serving = killed.elapsed();
    let changed = term > old_term && (new != leader || !quorum);
    if names.contains(&leader) && !changed {
        bail!("{leader} of term {old_term} was killed, and {new} leads in term {term}");
    }
    field.load.progress(PROGRESS_TASKS, PROGRESS_TIME).await.context("after killed masters")?;
    let progress = killed.elapsed();
    down.take().map_or(Ok(()), Down::restart)?;
    for name in names {
        field.cluster.caught_up(name).await?;
    }
    fault.ends(format!(
        "processes {pids:?} ended, {leader} led in term {old_term}; {new} served in term {term} after \
         {serving:.2?}, launches went on after {progress:.2?}, all were back after {:.2?}",
        killed.elapsed()
    ));
    Ok(())
}

/// Makes the leader stand still for so long, longer than an election takes, and go on.
pub async fn pause_leader(field: &Field, pause: Duration) -> anyhow::Result<()> {
    let leader = field.cluster.leader().await?;
    pause_master(field, &leader, pause).await
}

/// Makes the leader stand still until launches go on under another. Its connections are not broken by it: whoever
/// had one must find out.
pub async fn hang_leader(field: &Field) -> anyhow::Result<()> {
    let leader = field.cluster.leader().await?;
    stand_still(field, &leader, Duration::ZERO, true).await
}

/// Makes a master stand still for so long, longer than an election takes, and go on. A leader loses its office by
/// it; without a follower the others serve as before, and launches go on meanwhile.
pub async fn pause_master(field: &Field, name: &str, pause: Duration) -> anyhow::Result<()> {
    let follows = field.cluster.leader().await? != name;
    stand_still(field, name, pause, follows).await
}

async fn stand_still(field: &Field, name: &str, pause: Duration, progress: bool) -> anyhow::Result<()> {
    let (leader, old_term) = field.cluster.serving().await?;
    let fault = Fault::begins(field, PAUSE, &[name.to_owned()]);
    let process = MemberProcess::of(&field.cluster, name)?;
    let paused = field.cluster.pause(name)?;
    let stopped = Instant::now();
    field.load.begin_epoch();
    let (new, term) = field.cluster.serving().await?;
    let serving = stopped.elapsed();
    if name == leader && (new == leader || term <= old_term) {
        bail!("{leader} of term {old_term} stands still, and {new} leads in term {term}");
    }
    let mut launched = String::new();
    if progress {
        field.load.progress(PROGRESS_TASKS, PROGRESS_TIME).await.context("while a master stands still")?;
        launched = format!(", launches went on after {:.2?}", stopped.elapsed());
    }
    tokio::time::sleep(pause.saturating_sub(stopped.elapsed())).await;
    process.stands_still()?;
    drop(paused);
    let went_on = stopped.elapsed();
    // It still believes that it leads, or has just learnt better: either way it may not answer as leader.
    if deposed::answers(field, name).await? && field.cluster.serving().await?.0 != name {
        bail!("{name} was deposed while it stood still, and answered a read that claims to be current");
    }
    field.load.begin_epoch();
    field.load.progress(PROGRESS_TASKS, PROGRESS_TIME).await.context("after a paused master")?;
    field.cluster.caught_up(name).await?;
    fault.ends(format!(
        "process {} stood still for {went_on:.2?} while {leader} led in term {old_term}; {new} served in \
         term {term} after {serving:.2?}{launched}",
        process.pid()
    ));
    Ok(())
}
