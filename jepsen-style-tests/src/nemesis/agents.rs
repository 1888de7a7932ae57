//! Faults of agents. What runs on a killed agent goes on under its supervisor; the agent finds it again.

use super::process::MemberProcess;
use super::{Down, Fault, KILL, PAUSE, PROGRESS_TIME};
use crate::run::Field;
use anyhow::Context;
use std::time::{Duration, Instant};

/// Launches that count as progress of an agent that is back.
const PROGRESS_TASKS: u64 = 2;

/// Kills these agents at once, leaves them dead until the leader knows of it and for so long at least, starts
/// them again, and waits until each has started new tasks.
pub async fn kill_agents(field: &Field, names: &[String], dead: Duration) -> anyhow::Result<()> {
    field.cluster.ready().await?;
    let fault = Fault::begins(field, KILL, names);
    let mut pids = Vec::new();
    for name in names {
        pids.extend(field.cluster.pid(name)?);
    }
    let down = Down::kill(&field.cluster, names)?;
    let killed = Instant::now();
    for name in names {
        field.seen.agent(name, |agent| !agent.registered).await.context("an agent is dead")?;
    }
    let noticed = killed.elapsed();
    tokio::time::sleep(dead.saturating_sub(killed.elapsed())).await;
    down.restart()?;
    back(field, names).await?;
    fault.ends(format!(
        "processes {pids:?} ended, the leader knew after {noticed:.2?}; they took tasks again after {:.2?}",
        killed.elapsed()
    ));
    Ok(())
}

/// Makes these agents stand still until the leader knows of it and for so long at least, lets them go on, and
/// waits until each has started new tasks.
pub async fn pause_agents(field: &Field, names: &[String], pause: Duration) -> anyhow::Result<()> {
    field.cluster.ready().await?;
    let fault = Fault::begins(field, PAUSE, names);
    let mut paused = Vec::new();
    for name in names {
        let process = MemberProcess::of(&field.cluster, name)?;
        paused.push((process, field.cluster.pause(name)?));
    }
    let stopped = Instant::now();
    for name in names {
        field.seen.agent(name, |agent| !agent.registered).await.context("an agent stands still")?;
    }
    let noticed = stopped.elapsed();
    tokio::time::sleep(pause.saturating_sub(stopped.elapsed())).await;
    for (process, _) in &paused {
        process.stands_still()?;
    }
    let pids: Vec<_> = paused.iter().map(|(process, _)| process.pid()).collect();
    drop(paused);
    let went_on = stopped.elapsed();
    back(field, names).await?;
    fault.ends(format!(
        "processes {pids:?} stood still for {went_on:.2?}, the leader knew after {noticed:.2?}; they took \
         tasks again after {:.2?}",
        stopped.elapsed()
    ));
    Ok(())
}

/// Waits until the leader has these agents again, and until each has started tasks that are new.
pub(super) async fn back(field: &Field, names: &[String]) -> anyhow::Result<()> {
    for name in names {
        field.seen.agent(name, |agent| agent.registered).await.context("after a fault of an agent")?;
    }
    field.load.begin_epoch();
    for name in names {
        field.load.progress_on(name, PROGRESS_TASKS, PROGRESS_TIME).await?;
    }
    Ok(())
}
