//! Real processes, real faults, recorded histories, checkers.
//!
//! A [`run`](run::run) of a [scenario](scenarios) starts a cluster ([`cluster`]), lets frameworks
//! ([`client`], [`direct`], [`over_http`]) put load on it ([`workload`]) while a [`nemesis`] breaks things, then heals and asks what the
//! cluster holds ([`model::Truth`]). What every process saw is in the [`history`]; each [`checker`] is a
//! function of those two and says what is wrong. Both are kept as a [`recording`], which gives the same
//! verdict any time again; [`shrink`] says where it goes bad, and the [`report`] shows it.
//!
//! # Laws
//! - A history is only appended to. An outcome that nobody was told stays unknown until the registry settles
//!   it.
//! - A checker reads nothing but the history and the ground truth, and refuses a history made to break it.
//! - A nemesis has a time limit, undoes itself and writes down what shows that it bit.
//! - The same recording has the same verdict, wherever it is read.
//!
//! # Nevers
//! - No checker believes a framework where a task's own words can be had.
//! - Nothing here looks into a master's memory or disk.

pub mod checker;
pub mod child;
mod churn;
pub mod client;
pub mod cluster;
pub mod direct;
pub mod edn;
pub mod history;
mod jobs;
pub mod model;
pub mod needs;
pub mod nemesis;
pub mod operators;
pub mod over_http;
pub mod planted;
mod questions;
pub mod recording;
pub mod register;
pub mod report;
pub mod run;
pub mod scenarios;
mod set;
pub mod shrink;
pub mod soak;
pub mod workload;
