//! The scheduler driver's machine: finds its way among the masters, subscribes, subscribes again under the
//! same id after every leader change, and sees every durable call through to its answer.
//!
//! A shell performs the [`Effect`]s and tells [`Driver::step`] what happened as an [`Input`].
//!
//! # Laws
//! - A frame of an older fence than the highest seen changes nothing, nor does one of a stream given up.
//! - An ACCEPT, KILL, ACKNOWLEDGE, RECONCILE or TEARDOWN is repeated after each subscription until it is
//!   answered. That a repeated ACCEPT launches once is the registry's promise (`protocol` C10).
//! - A KILL is sent only after the ACCEPT that launches its task is answered.
//! - Roles suppressed and needs requested hold across leader changes.
//! - Each task of an ACCEPT that is not launched becomes one status update, without uuid.
//!
//! # Nevers
//! - No clock, no chance of its own: time comes with each step, chance from the seed.
//! - Nothing grows without bound: calls are refused at [`Config::calls_max`].
//! - A framework message is never sent twice.

mod calls;
mod driver;
mod masters;

pub use driver::{Callback, Config, Down, Driver, Effect, Input};
