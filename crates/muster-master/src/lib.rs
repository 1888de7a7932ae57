//! A master: serves gRPC, drives the leader's machine while it leads, carries clients to the leader while not.
//!
//! Connections come in as far as there are files for them ([`accept`]).
//!
//! A client's stream ends at a [`door`]; its frames go along the current [`route`]: to the leader's loop in
//! this process, or over one [`link`] stream to the master that leads. [`lead`] runs the machine of
//! `muster-leader` on a thread of its own; each allocator shard has one too.
//!
//! # Laws
//! - Clients hear that a leader leads only when its `BeginTerm` is applied.
//! - Between leaders frames are dropped, never held: the hello that follows repeats what matters.
//! - Every queue is bounded; a client whose queue is full is cut off, and nobody else waits for it.
//!
//! # Nevers
//! - Nothing is decided here. Nothing blocks an async thread. No lock is held across an await.

mod accept;
mod admit;
pub mod config;
mod door;
mod error;
mod lead;
mod link;
mod mesos;
mod operator;
mod route;
mod serve;
mod tally;
mod turns;

pub use config::{FollowerStreams, MasterConfig};
pub use error::MasterError;
#[doc(hidden)]
pub use mesos::write_state;
/// Says how this process' level of logging is set, for those who ask for another one.
pub use muster_http::logging::on_level as on_logging_level;
pub use serve::{Serving, run, start};
