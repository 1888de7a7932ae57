//! The volatile machine of one term: sessions, offers, deadlines. It lives in one process and is lost freely.
//!
//! [`Leader::step`] takes one input at a time and returns effects; [`Leader::wake_at`] says when it wants to be
//! woken. The shell (`muster-master`) performs the effects and never decides.
//!
//! # Laws
//! - Its first command is `BeginTerm`; before that is applied it sends nothing and answers nothing.
//! - Nothing durable is answered before its outcome is applied here.
//! - An offer id is used at most once, by the framework and in the term it was made for.
//! - A session is begun by the newest stream of its client: a hello or SUBSCRIBE on an older one comes late.
//! - What it knows at `BeginTerm` it takes from the registry alone.
//! - Every map is bounded by the registry, by the connected clients, or by a limit in [`Config`].
//!
//! # Nevers
//! - No clock (registry time comes in), no chance, no input or output, no logging.
//! - Offers, filters and heartbeats never enter the log.

mod agent;
mod applied;
mod config;
mod counts;
mod inverse;
mod late;
mod leader;
mod linger;
mod offer;
mod operation;
mod operator;
mod recital;
mod scheduler;
mod shards;
mod time;
mod wire;

pub use config::Config;
pub use counts::{Counts, Pair};
pub use inverse::InverseAnswer;
pub use leader::Leader;
pub use wire::{Committed, ConnId, Effect, Input, OperatorCall};
