//! Who listens, and what is told to it.

use super::{Output, Session};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::mpsc;

/// What is told to one who listens.
#[derive(Debug)]
pub(crate) struct Listening {
    outputs: mpsc::Receiver<Output>,
    is_cut: Arc<AtomicBool>,
    /// What is to last as long as somebody listens.
    _session: Option<Arc<Session>>,
}

impl Listening {
    /// The next piece; none when there are no more.
    pub(crate) async fn next(&mut self) -> Option<Output> {
        self.outputs.recv().await
    }

    /// Whether there are no more since this one did not read them in time, or nobody is there to tell them.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }
}

/// The other end of that.
#[derive(Debug)]
pub(super) struct Mouth {
    pub(super) outputs: mpsc::Sender<Output>,
    is_cut: Arc<AtomicBool>,
}

impl Mouth {
    pub(super) fn new(waiting_max: usize, session: Option<Arc<Session>>) -> (Self, Listening) {
        let (sender, outputs) = mpsc::channel(waiting_max);
        let is_cut = Arc::new(AtomicBool::new(false));
        (Self { outputs: sender, is_cut: is_cut.clone() }, Listening { outputs, is_cut, _session: session })
    }

    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
    }
}
