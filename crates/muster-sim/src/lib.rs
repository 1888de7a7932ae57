//! A whole cluster in one thread, from one seed: the registry, the leader, the shards, agents and scheduler
//! drivers, over a toy totally-ordered log and a network that delays, breaks, repeats and forges.
//!
//! [`Plan::of`] draws from a seed what a run is made of and what goes wrong in it; [`run`] carries it out:
//! faults strike for a while, then nothing goes wrong any more and everything must come to its end.
//! [`minimise`] shrinks a plan that fails to what the failure needs, [`tell`] shows all that happens in it,
//! [`sweep`] strikes a small plan at each of its steps in turn. `cargo run --release -p muster-sim --example
//! seeds -- --help` does all of it.
//!
//! # Laws
//! - One plan gives one run, to the last event ([`Run::trace`]); as text it is one line of arguments.
//! - Everything that decides is the real machine; only shells, the log and processes are imitated.
//! - Faults have dice of their own: without one of them the rest goes on as alike as it can.
//! - What must hold is in [`Law`], one line each; the first that does not ends the run.
//!
//! # Nevers
//! - No clock, no thread, no chance but the seed's.
//! - Nothing is forged that the rules (`docs/rules.md`) do not say must be survived.

mod agent;
mod cluster;
mod dice;
mod executor;
mod fault;
mod forge;
mod framework;
mod masters;
mod minimise;
mod plan;
mod sweep;
mod world;

pub use cluster::{run, tell};
pub use fault::{Fault, Step, What, When};
pub use minimise::minimise;
pub use plan::{Counts, Failure, Law, Plan, Planted, Run};
pub use sweep::{Sweep, sweep};
