//! A fake master for those who write frameworks: it speaks the masters' API, and says what a test has it say.
//!
//! ```
//! # async fn test() -> anyhow::Result<()> {
//! use muster_sdk::{Filters, Framework, Offer, Resources, Scheduler, SchedulerDriver, Task, TaskState};
//! use muster_testkit::fake::{FakeMaster, OfferSpec};
//! # struct Mine;
//! # impl Scheduler for Mine {}
//! let master = FakeMaster::start().await?;
//! let driver = SchedulerDriver::builder([master.address()]).start(Framework::new("mine"), Mine)?;
//! let mut session = master.subscribed().await?;
//! session.offer(OfferSpec::new("host-1", Resources::of(4_000, 8_192)))?;
//! let tasks = session.accepted().await?;
//! let update = session.update(&tasks[0].task_id, TaskState::Running)?;
//! session.acknowledged(&update).await?;
//! master.fail_over();
//! let mut session = master.subscribed().await?; // under the same id
//! # Ok(())
//! # }
//! ```
//!
//! # Laws
//! - A call is answered when the test reads it, as a master would answer it; whoever wants to answer it otherwise
//!   reads it with [`FakeSession::next_unanswered`].
//! - Tasks and updates without acknowledgement outlive a leader change, offers do not. Such updates are repeated
//!   after each subscription. An ACCEPT that is repeated launches nothing twice.
//! - All waits end: after [`FakeMaster::patience`] they say what was missing.
//!
//! # Nevers
//! - No offer, update or heartbeat that the test did not ask for; suppressed roles and filters are not heeded.
//! - No clock, no chance, no file: a test's run is the script's.

mod core;
mod framework;
mod grpc;
mod session;

pub use self::core::FakeCall;
pub use muster_model::{CallOutcome, SchedulerCall, SchedulerEvent};
pub use session::{FakeSession, FakeUpdate, OfferSpec};

use self::core::Shared;
use anyhow::Context;
use std::time::Duration;
use tokio::sync::oneshot;

/// A master of a cluster in which nothing happens but what a test scripts. It ends when it is dropped.
pub struct FakeMaster {
    shared: Shared,
    master: u64,
    address: String,
    /// Dropped, it ends the server.
    _stop: oneshot::Sender<()>,
}

impl FakeMaster {
    /// The one master of a new cluster, leader in term 1, on a free port of loopback. Fails where there is no
    /// such port. Needs a tokio runtime, and serves while that one runs.
    pub async fn start() -> anyhow::Result<Self> {
        Self::serve(Shared::new())
    }

    /// A further master of the same cluster, which follows. It names the leader to whoever dials it.
    pub async fn join(&self) -> anyhow::Result<Self> {
        Self::serve(self.shared.clone())
    }

    fn serve(shared: Shared) -> anyhow::Result<Self> {
        let (incoming, address) = grpc::listen().context("no port of 127.0.0.1 can be listened on")?;
        let address = address.to_string();
        let master = shared.lock().add_master(address.clone());
        let (stop, stopped) = oneshot::channel();
        grpc::serve(incoming, shared.clone(), master, stopped);
        Ok(Self { shared, master, address, _stop: stop })
    }

    /// Where it listens, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How long the waits of this cluster's masters and sessions last. Default: 10 seconds.
    pub fn patience(&self, patience: Duration) {
        self.shared.lock().patience = patience;
    }

    /// How often heartbeats are promised to sessions from now on; [`FakeSession::heartbeat`] sends one. Drivers
    /// give up a stream after some in a row are missing. Default: an hour, so that tests need send none.
    pub fn heartbeats_every(&self, heartbeat: Duration) {
        self.shared.lock().heartbeat = heartbeat;
    }

    /// The next session of a scheduler, at whichever master of the cluster: each subscription is one, also when it
    /// comes on the same stream after a leader change. Those that ended meanwhile are passed over.
    pub async fn subscribed(&self) -> anyhow::Result<FakeSession> {
        let patience = self.shared.lock().patience;
        let next = tokio::time::timeout(patience, self.shared.next_subscribed()).await;
        let next = next.with_context(|| format!("no scheduler subscribed within {patience:?}"))?;
        Ok(FakeSession::new(self.shared.clone(), next))
    }

    /// Answers the next SUBSCRIBE so, instead of letting it hold; called again, the one after it.
    pub fn answer_subscription(&self, outcome: CallOutcome) -> anyhow::Result<()> {
        self.shared.lock().script(outcome)
    }

    /// A leader change: the same master leads in the next term. Streams stay; each scheduler is told, and must
    /// subscribe again under its id. Offers are void, and calls that the test did not read are lost.
    pub fn fail_over(&self) {
        self.shared.lock().lead_again();
    }

    /// The same, and another master of the cluster leads.
    pub fn fail_over_to(&self, heir: &Self) {
        self.shared.lock().lead(heir.master);
    }

    /// The streams of this master break, and another term begins: as when its process is killed and started again.
    pub fn crash(&self) {
        let mut core = self.shared.lock();
        core.break_streams(self.master, "the master crashed: take the next session with `subscribed`");
        core.lead_again();
    }
}

impl Drop for FakeMaster {
    fn drop(&mut self) {
        self.shared.lock().remove_master(self.master);
    }
}

impl std::fmt::Debug for FakeMaster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeMaster").field("address", &self.address).finish_non_exhaustive()
    }
}
