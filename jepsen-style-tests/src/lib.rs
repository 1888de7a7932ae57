//! Real processes, real faults, recorded histories, checkers.
//!
//! A run starts a cluster ([`cluster`]), lets frameworks ([`client`]) put load on it ([`workload`]) while a
//! [`nemesis`] breaks things, then heals and asks what the cluster holds ([`model::Truth`]). What every
//! process saw is in the [`history`]; each [`checker`] is a function of those two and says what is wrong.
//!
//! # Laws
//! - A history is only appended to. An outcome that nobody was told stays unknown until the registry settles it.
//! - A checker reads nothing but the history and the ground truth, and refuses a history made to break it.
//! - A nemesis undoes itself and writes down what shows that it bit.
//!
//! # Nevers
//! - No checker believes a framework where a task's own words can be had.
//! - Nothing here looks into a master's memory or disk.

pub mod checker;
pub mod client;
pub mod cluster;
pub mod history;
pub mod model;
pub mod nemesis;
pub mod report;
pub mod scenario;
pub mod workload;
