//! Faults of the network. Each lasts as long as its handle.

use crate::network::{Network, cable::Cable, way::Way};
use anyhow::bail;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a fault may take to bite.
const BITE_TIME: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(25);

/// What passed from one member to another, and what did not, since the cluster was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that arrived.
    pub carried: u64,
    /// Bytes that a cut held back, at each end no more than its kernel keeps and about a MiB here. They
    /// arrive when it heals, unless their connection has ended.
    pub held: u64,
    /// Bytes that were made late.
    pub delayed: u64,
    /// Connections that were reset, whoever had dialled.
    pub reset: u64,
    /// Connections that the first one dialled and that are there now.
    pub live: usize,
    /// What the first one dials now and gets no answer to.
    pub hanging: usize,
}

/// Directions in which nothing passes. They heal when this is dropped.
///
/// It is like a network that drops: what was connected stays so and hears nothing, what is dialled hangs.
/// Bytes that were held back go on when it heals.
#[derive(Debug)]
#[must_use = "it heals at once"]
pub struct Cut {
    ways: Vec<Arc<Way>>,
    cables: Vec<Arc<Cable>>,
    held_before: u64,
}

impl Cut {
    pub(crate) fn new(network: &Network, ways: Vec<Arc<Way>>) -> Self {
        let held_before = held(&ways);
        ways.iter().for_each(|way| way.cut());
        Self { cables: network.cables_of(&ways), held_before, ways }
    }

    /// Bytes that it held back.
    pub fn held(&self) -> u64 {
        held(&self.ways) - self.held_before
    }

    /// Dials that get no answer now.
    pub fn hanging(&self) -> usize {
        self.cables.iter().map(|cable| cable.hanging()).sum()
    }

    /// Waits until somebody has felt it. A fault that nobody felt proves nothing.
    pub async fn bites(&self) -> anyhow::Result<()> {
        let until = Instant::now() + BITE_TIME;
        while self.held() == 0 && self.hanging() == 0 {
            if Instant::now() >= until {
                let ways: Vec<_> =
                    self.ways.iter().map(|way| format!("{} to {}", way.from, way.to)).collect();
                bail!("nobody sent or dialled for {} s: {}", BITE_TIME.as_secs(), ways.join(", "));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.ways.iter().for_each(|way| way.heal());
    }
}

fn held(ways: &[Arc<Way>]) -> u64 {
    ways.iter().map(|way| way.traffic().held).sum()
}

/// Directions in which everything is late. They are as fast as before when this is dropped; what is on its
/// way by then still takes its time.
#[derive(Debug)]
#[must_use = "it is over at once"]
pub struct Delayed {
    ways: Vec<Arc<Way>>,
    latency: Duration,
    jitter: Duration,
}

impl Delayed {
    pub(crate) fn new(ways: Vec<Arc<Way>>, latency: Duration, jitter: Duration) -> Self {
        ways.iter().for_each(|way| way.delay(latency, jitter));
        Self { ways, latency, jitter }
    }
}

impl Drop for Delayed {
    fn drop(&mut self) {
        self.ways.iter().for_each(|way| way.hurry(self.latency, self.jitter));
    }
}
