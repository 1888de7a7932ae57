//! Write a scheduler: implement [`Scheduler`], start a [`SchedulerDriver`], answer offers with tasks.
//!
//! ```no_run
//! use muster_sdk::{Filters, Framework, Offer, Scheduler, SchedulerDriver, Task};
//!
//! struct Hello;
//!
//! impl Scheduler for Hello {
//!     fn resource_offers(&mut self, driver: &SchedulerDriver, offers: Vec<Offer>) {
//!         for offer in &offers {
//!             let task = Task::command(format!("hello-{}", offer.id), "echo hello").cpus(0.1).mem_mb(32);
//!             if let Err(error) = driver.accept([offer], [task], Filters::default()) {
//!                 eprintln!("{error}");
//!             }
//!         }
//!     }
//! }
//!
//! let driver = SchedulerDriver::builder(["127.0.0.1:5050"]).start(Framework::new("hello"), Hello)?;
//! driver.join()?;
//! # Ok::<(), muster_sdk::SdkError>(())
//! ```
//!
//! # Laws
//! - Callbacks run one at a time, in order, on a thread of their own: they may block.
//! - No method of [`SchedulerDriver`] but [`SchedulerDriver::join`] blocks; a full queue is [`SdkError::Busy`].
//! - With automatic acknowledgement an update is acknowledged after its callback has returned.
//!
//! # Nevers
//! - Nothing is decided here: `muster_driver` decides, this performs.
//! - No queue is unbounded.

mod credential;
mod error;
mod framework;
mod handle;
mod offer;
mod operator;
mod scheduler;
mod service;
mod stream;
mod task;

pub use credential::Credential;
pub use error::SdkError;
pub use framework::Framework;
pub use handle::{Builder, SchedulerDriver};
pub use muster_model::{
    AgentId, ExecutorId, FrameworkId, OfferId, Reason, Resources, Role, Source, Status, TaskId, TaskState,
    Uuid,
};
pub use offer::{Filters, Offer};
pub use operator::{MasterStatus, OperatorClient};
pub use scheduler::{Scheduler, TaskUpdate};
pub use task::Task;
