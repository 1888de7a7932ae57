//! Who is offered what: a pure function of free resources and wishes, run for each shard of the agents.
//!
//! [`View`] is a shard's projection of the registry, `allocate` the decision, [`Shard`] the machine that
//! folds changes into the view, keeps filters and outstanding grants, and allocates what became free.
//!
//! # Laws
//! - `changes.fold(View::of(before)) == View::of(after)`.
//! - Shards own disjoint agents ([`ShardId::owns`]), so that no resource is granted twice.
//! - A grant never exceeds what its agent has free beyond all outstanding grants.
//! - Allocating again without a change in between grants nothing.
//!
//! # Nevers
//! - No clock: filters end by the time they are told. No floats. No period: a shard runs when told of something.

mod accounts;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod alike;
mod allocate;
mod bits;
mod kinds;
mod nouns;
mod plan;
mod quota;
#[cfg(test)]
mod reference;
mod room;
mod shard;
mod sites;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod tree;
mod view;

pub use nouns::{About, Grant, Pass, Policy, Refused, ShardInput, ShardOutput, Why, Wishes};
pub use shard::Shard;
pub use view::{AgentView, ShardId, View};
