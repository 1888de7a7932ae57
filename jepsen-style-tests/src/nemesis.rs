//! What goes wrong, on purpose.

use crate::history::Event;
use crate::scenario::Field;
use anyhow::{Context, bail};
use std::time::{Duration, Instant};

/// Launches that count as progress after a fault.
const PROGRESS_TASKS: u64 = 15;
/// How long service may take to come back. An election takes less than a second; the machine may be busy.
const PROGRESS_TIME: Duration = Duration::from_secs(30);

/// Kills the leader, waits for service under a new one, starts the old one again, waits until it has caught
/// up; so many times.
pub async fn kill_leaders(field: &Field, times: usize) -> anyhow::Result<()> {
    for _ in 0..times {
        let (old, old_term) = field.cluster.serving().await?;
        begins(field, "kill", &old);
        let pid = field.cluster.pid(&old)?;
        field.cluster.kill(&old)?;
        field.load.begin_epoch();
        let killed = Instant::now();
        let (new, term) = field.cluster.serving().await?;
        let serving = killed.elapsed();
        if new == old || term <= old_term {
            bail!("{old} of term {old_term} was killed, and {new} leads in term {term}");
        }
        field.load.progress(PROGRESS_TASKS, PROGRESS_TIME).await.context("after a killed leader")?;
        let progress = killed.elapsed();
        field.cluster.restart(&old)?;
        field.cluster.caught_up(&old).await?;
        let bit = format!(
            "process {pid:?} of term {old_term} ended; {new} served in term {term} after {serving:?}, launches \
             went on after {progress:?}, it was back after {:?}",
            killed.elapsed()
        );
        ends(field, "kill", &old, bit);
    }
    Ok(())
}

/// Makes the leader stand still for so long, longer than an election takes, and go on; so many times.
pub async fn pause_leaders(field: &Field, times: usize, pause: Duration) -> anyhow::Result<()> {
    for _ in 0..times {
        let (old, old_term) = field.cluster.serving().await?;
        begins(field, "pause", &old);
        let paused = field.cluster.pause(&old)?;
        let stopped = Instant::now();
        field.load.begin_epoch();
        let (new, term) = field.cluster.serving().await?;
        let serving = stopped.elapsed();
        if new == old || term <= old_term {
            bail!("{old} of term {old_term} stands still, and {new} leads in term {term}");
        }
        tokio::time::sleep(pause.saturating_sub(stopped.elapsed())).await;
        drop(paused);
        let went_on = stopped.elapsed();
        // It still believes that it leads, or has just learnt better: either way it may not answer as leader.
        if field.cluster.agents_by(&old).await.is_ok() && field.cluster.serving().await?.0 != old {
            bail!("{old} was deposed while it stood still, and answered a read that claims to be current");
        }
        field.load.begin_epoch();
        field.load.progress(PROGRESS_TASKS, PROGRESS_TIME).await.context("after a paused leader")?;
        field.cluster.caught_up(&old).await?;
        let bit = format!(
            "it stood still for {went_on:?} in term {old_term}; {new} served in term {term} after {serving:?}"
        );
        ends(field, "pause", &old, bit);
    }
    Ok(())
}

fn begins(field: &Field, fault: &str, target: &str) {
    let (fault, target) = (fault.into(), target.into());
    field.recorder.record("nemesis", Event::Nemesis { fault, target, begins: true, bit: None });
}

fn ends(field: &Field, fault: &str, target: &str, bit: String) {
    let (fault, target) = (fault.into(), target.into());
    field.recorder.record("nemesis", Event::Nemesis { fault, target, begins: false, bit: Some(bit) });
}
