//! What the HTTP APIs of masters and agents have in common: requests and answers, bodies that are written while they are
//! read, the shapes of the legacy answers, files, and who may ask what.
//!
//! # Laws
//! - What comes in is bounded before it is looked at; a refusal is an answer like any other.
//! - A body that cannot be ended is broken off, so that no client takes a part for the whole.
//! - Of the disk nothing is shown but what is [exposed](files::Exposes), whatever a path says and links point at.
//!
//! # Nevers
//! - No decision but what the [rules](auth) say: what is asked for and what becomes of it is the caller's.
//! - No blocking call on an async thread.

pub mod answer;
pub mod auth;
pub mod body;
pub mod endpoint;
pub mod files;
pub mod logging;
pub mod machine;
pub mod query;
pub mod request;
pub mod show;

/// The version of the Mesos API that is spoken here, which clients ask for.
pub const MESOS_VERSION: &str = "1.11.0";
