//! What happened in a while.

use super::{frameworks::Shared, masters::Masters, report::Report};
use anyhow::ensure;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How long clients may take until every framework has launched something.
const FIRST: Duration = Duration::from_secs(60);

/// All that is counted, at one moment.
pub(crate) struct Counts {
    at: Instant,
    started: u64,
    finished: u64,
    offers: u64,
    running: u64,
    master_cpu: Vec<f64>,
}

/// The same of a while.
pub(crate) struct Window {
    pub(crate) secs: f64,
    /// Tasks that agents started.
    pub(crate) started: f64,
    /// Tasks that frameworks saw finished.
    pub(crate) finished: f64,
    /// Offers that frameworks got.
    pub(crate) offers: f64,
    /// Tasks that frameworks saw running.
    pub(crate) running: f64,
    /// Of a core, for each master, in percent.
    pub(crate) master_cpu: Vec<f64>,
}

impl Counts {
    fn now(masters: &Masters, shared: &Shared) -> Self {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let ledger = &shared.ledger;
        Self {
            at: Instant::now(),
            started: ledger.started_count() as u64,
            finished: of(&ledger.finished),
            offers: of(&ledger.offers),
            running: of(&ledger.running),
            master_cpu: masters.cpu_secs(),
        }
    }
}

impl Window {
    /// Records for so long. Fails when a master ended meanwhile.
    pub(crate) async fn of(masters: &mut Masters, shared: &Shared, length: Duration) -> anyhow::Result<Self> {
        shared.start_recording();
        let before = Counts::now(masters, shared);
        tokio::time::sleep(length).await;
        let after = Counts::now(masters, shared);
        shared.stop_recording();
        masters.check()?;
        let secs = (after.at - before.at).as_secs_f64();
        let cpu = before.master_cpu.iter().zip(&after.master_cpu);
        Ok(Self {
            secs,
            started: (after.started - before.started) as f64,
            finished: (after.finished - before.finished) as f64,
            offers: (after.offers - before.offers) as f64,
            running: (after.running - before.running) as f64,
            master_cpu: cpu.map(|(before, after)| (after - before) / secs * 100.0).collect(),
        })
    }

    pub(crate) fn tell_cpu(&self, report: &mut Report) {
        for (n, percent) in (1..).zip(&self.master_cpu) {
            report.figure(&format!("master_cpu_m{n}"), *percent, "%");
        }
    }
}

/// Waits until there are as many of something as there are frameworks, and then for a while of warm-up. Fails when there is
/// nothing at all: whatever is measured then says nothing.
pub(crate) async fn warm_up(
    count: impl Fn() -> usize,
    frameworks: usize,
    length: Duration,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    while count() < frameworks && begun.elapsed() < FIRST {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ensure!(
        count() > 0,
        "nothing happened in the first {} s: no framework got an offer that it could use",
        FIRST.as_secs()
    );
    tokio::time::sleep(length).await;
    Ok(())
}
