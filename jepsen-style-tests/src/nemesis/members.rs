//! Faults that are none: members are restarted in order while the cluster is under load.

use super::process::MemberProcess;
use super::{Down, Fault, PROGRESS_TASKS, PROGRESS_TIME, RESTART, agents};
use crate::run::Field;
use anyhow::Context;
use std::time::{Duration, Instant};

/// How long a member may take to end when asked.
const END_TIME: Duration = Duration::from_secs(15);

/// Asks a master or an agent to end, starts it again when it has, and waits until it is back at work.
pub async fn restart_member(field: &Field, name: &str) -> anyhow::Result<()> {
    field.cluster.ready().await?;
    let names = [name.to_owned()];
    let fault = Fault::begins(field, RESTART, &names);
    let process = MemberProcess::of(&field.cluster, name)?;
    let asked = Instant::now();
    let down = Down::of(&field.cluster, &names);
    process.end_in_order(END_TIME).await?;
    let ended = asked.elapsed();
    let is_agent = field.cluster.agent_names().iter().any(|agent| agent == name);
    if is_agent {
        field.seen.agent(name, |agent| !agent.registered).await.context("an agent has ended")?;
    }
    // It has ended; this buries it.
    field.cluster.kill(name)?;
    down.restart()?;
    if is_agent {
        agents::back(field, &names).await?;
    } else {
        field.cluster.caught_up(name).await?;
        field.load.begin_epoch();
        field.load.progress(PROGRESS_TASKS, PROGRESS_TIME).await.context("after a restarted master")?;
    }
    fault.ends(format!(
        "process {} ended in order after {ended:.2?}, process {} was back after {:.2?}",
        process.pid(),
        field.cluster.pid(name)?.unwrap_or_default(),
        asked.elapsed()
    ));
    Ok(())
}

/// Restarts every member in order, one after the other: the masters, then the agents.
pub async fn restart_all(field: &Field) -> anyhow::Result<()> {
    for name in field.cluster.master_names().iter().chain(&field.cluster.agent_names()) {
        restart_member(field, name).await?;
    }
    Ok(())
}
