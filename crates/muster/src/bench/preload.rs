//! What a registry holds before anything is measured.

use super::{
    Api, Shape,
    frameworks::{Pace, Play, Shared},
    play::Fate,
};
use anyhow::{bail, ensure};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// How long nothing may go on before it is given up.
const STALLED: Duration = Duration::from_secs(60);
/// Completed tasks that a registry keeps of a framework, and of all.
const COMPLETED_EACH: usize = 1_000;
pub(crate) const COMPLETED_MAX: usize = 100_000;

/// Launches so many tasks that run on, a hundred at a time. Their frameworks go away afterwards; the tasks are kept for
/// them. Nothing is launched by `shared` until it is told to go on.
pub(crate) async fn running(
    shape: &Shape,
    masters: &[String],
    shared: &Arc<Shared>,
    tasks: usize,
) -> anyhow::Result<()> {
    let mut frameworks = JoinSet::new();
    let pace = Pace::unpaced(100, 1);
    shape.add_frameworks(&mut frameworks, 0, Api::Grpc, masters, &pace, shared);
    let before = shared.ledger.started_count();
    reached(|| shared.ledger.started_count() - before, tasks, "run").await?;
    shared.settle().await;
    frameworks.shutdown().await;
    Ok(())
}

/// Has so many tasks run to their end, by as many frameworks as it takes for a registry to keep them all.
pub(crate) async fn completed(
    shape: &Shape,
    masters: &[String],
    shared: &Arc<Shared>,
    tasks: usize,
) -> anyhow::Result<()> {
    ensure!(
        tasks <= COMPLETED_MAX,
        "--completed is {tasks}; a registry keeps {COMPLETED_MAX} completed tasks, so give no more"
    );
    let count = tasks.div_ceil(COMPLETED_EACH);
    let play =
        Play { fate: Fate::Ends, tasks_max: Some(tasks.div_ceil(count.max(1)) as u64), ..Play::default() };
    let shared = shared.beside(play);
    let mut frameworks = JoinSet::new();
    let shape = Shape { frameworks: count, ..shape.clone() };
    shape.add_frameworks(&mut frameworks, 0, Api::Grpc, masters, &Pace::unpaced(100, 1), &shared);
    let over = || {
        let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed) as usize;
        of(&shared.ledger.finished) + of(&shared.ledger.failed)
    };
    let before = over();
    reached(|| over() - before, tasks, "are over").await?;
    shared.settle().await;
    frameworks.shutdown().await;
    Ok(())
}

/// Waits until as many are there, as long as there are more and more of them.
async fn reached(count: impl Fn() -> usize, goal: usize, what: &str) -> anyhow::Result<()> {
    let (mut seen, mut moved) = (count(), Instant::now());
    while seen < goal {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = count();
        if now != seen {
            (seen, moved) = (now, Instant::now());
        }
        if moved.elapsed() > STALLED {
            bail!("{seen} of {goal} tasks {what}, and no more since {} s", STALLED.as_secs());
        }
    }
    Ok(())
}
