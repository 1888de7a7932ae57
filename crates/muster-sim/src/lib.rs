//! A whole cluster in one thread, from one seed: the registry, the leader, the shards, agents and scheduler
//! drivers, over a toy totally-ordered log and a network that delays, breaks and forgets.
//!
//! [`Cluster::new`] takes a seed, [`Cluster::run`] lets chaos reign for a while, [`Cluster::heal`] stops it and
//! requires that everything comes to its end. Broken laws panic with the virtual time and the seed.
//!
//! # Laws
//! - One seed gives one run, to the last event ([`Cluster::trace`]).
//! - Everything that decides is the real machine; only shells, the log and processes are imitated.
//! - Checked all the time: registry laws, equal replicas, offers within what is free, each launch started at
//!   most once, agents never overfull.
//!
//! # Nevers
//! - No clock, no thread, no chance but the seed's.

mod agent;
mod cluster;
mod dice;
mod framework;
mod masters;

pub use cluster::Cluster;
