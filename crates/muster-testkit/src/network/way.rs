//! One direction between two members. Whatever one sends the other passes here, whoever of them dialled.

use crate::Traffic;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The bytes from one member to another.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) from: String,
    pub(crate) to: String,
    weather: watch::Sender<Weather>,
    carried: AtomicU64,
    held: AtomicU64,
    delayed: AtomicU64,
    reset: AtomicU64,
}

/// What becomes of bytes at present. Faults add to it and take away what they added, so that they may
/// overlap.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    /// How many faults cut it. Nothing passes unless it is none.
    cuts: usize,
    latency: Duration,
    jitter: Duration,
}

/// Bytes on their way.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) bytes: Vec<u8>,
    due: Option<Instant>,
    held: bool,
}

impl Way {
    pub(crate) fn new(from: &str, to: &str) -> Arc<Self> {
        Arc::new(Self {
            from: from.into(),
            to: to.into(),
            weather: watch::Sender::default(),
            carried: AtomicU64::default(),
            held: AtomicU64::default(),
            delayed: AtomicU64::default(),
            reset: AtomicU64::default(),
        })
    }

    pub(crate) fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }

    pub(crate) fn heal(&self) {
        self.weather.send_modify(|weather| weather.cuts -= 1);
    }

    pub(crate) fn delay(&self, latency: Duration, jitter: Duration) {
        self.weather.send_modify(|weather| {
            weather.latency += latency;
            weather.jitter += jitter;
        });
    }

    pub(crate) fn hurry(&self, latency: Duration, jitter: Duration) {
        self.weather.send_modify(|weather| {
            weather.latency -= latency;
            weather.jitter -= jitter;
        });
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.weather.borrow().cuts > 0
    }

    /// Waits until it is cut.
    pub(crate) async fn cut_off(&self) {
        // Fails only without a sender, which is ours.
        let _ = self.weather.subscribe().wait_for(|weather| weather.cuts > 0).await;
    }

    /// Waits until nothing cuts it.
    pub(crate) async fn open(&self) {
        let _ = self.weather.subscribe().wait_for(|weather| weather.cuts == 0).await;
    }

    /// Takes bytes in: they are due after the latency of this moment.
    pub(crate) fn take(&self, bytes: &[u8]) -> Chunk {
        let Weather { cuts, latency, jitter } = *self.weather.borrow();
        let late = latency + jitter.mul_f64(rand::random());
        let mut chunk = Chunk { bytes: bytes.to_vec(), due: None, held: false };
        if !late.is_zero() {
            chunk.due = Some(Instant::now() + late);
            self.delayed.fetch_add(chunk.len(), Relaxed);
        }
        if cuts > 0 {
            self.hold(&mut chunk);
        }
        chunk
    }

    /// Waits until these bytes may arrive.
    pub(crate) async fn pass(&self, chunk: &mut Chunk) {
        if let Some(due) = chunk.due {
            tokio::time::sleep_until(due).await;
        }
        if self.is_cut() {
            self.hold(chunk);
            self.open().await;
        }
    }

    /// These bytes have arrived.
    pub(crate) fn arrived(&self, chunk: &Chunk) {
        self.carried.fetch_add(chunk.len(), Relaxed);
    }

    /// A connection of it was reset.
    pub(crate) fn was_reset(&self) {
        self.reset.fetch_add(1, Relaxed);
    }

    fn hold(&self, chunk: &mut Chunk) {
        if !std::mem::replace(&mut chunk.held, true) {
            self.held.fetch_add(chunk.len(), Relaxed);
        }
    }

    /// What passed so far, and what did not.
    pub(crate) fn traffic(&self) -> Traffic {
        Traffic {
            carried: self.carried.load(Relaxed),
            held: self.held.load(Relaxed),
            delayed: self.delayed.load(Relaxed),
            reset: self.reset.load(Relaxed),
            ..Traffic::default()
        }
    }
}

impl Chunk {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}
