//! Consensus and durability: a replicated log under the registry.
//!
//! [`Raft`] is one replica: it opens a data directory, finds its cluster, follows or leads. Who leads opens a
//! [`Reign`]: the ordered stream of everything applied from then on, and a [`Proposer`].
//! Behind it: openraft; a log in sled with a durable mark beside it (`store`); one gRPC service between
//! masters (`peer`); founding, joining and replacing members (`member`).
//!
//! # Laws
//! - Nothing is acknowledged, to a peer or to a caller, before it would survive a power cut: rows synced, then
//!   the mark, then the answer, in order.
//! - The first failed sync ends the replica ([`Raft::failed`]); it acknowledges nothing afterwards.
//! - A directory whose log ends below its mark, has a gap, a bad row or no snapshot for what it purged is
//!   damaged: it is set aside, and never votes again under its node id.
//! - At most one leader in a term, and a process leads at most once in a term.
//! - What was proposed under one leadership commits under no other; one reign's commands commit in the order
//!   in which they were proposed.
//! - Registry time advances only through entries, at the pace of the leader's monotonic clock.
//!
//! # Nevers
//! - Only `store` names sled, only `codec` names bincode; no other crate sees openraft.
//! - No wall clock in any decision. No lease answers a read.
//! - No request of another cluster, incarnation or node id is answered; a replica whose configured peers are by
//!   majority of another cluster stops ([`Raft::failed`]).
//! - No command that this version does not understand is skipped: it stops the replica.

mod clock;
mod codec;
mod config;
mod error;
#[cfg(test)]
mod golden;
mod leadership;
mod machine;
mod member;
mod pace;
mod peer;
mod proposer;
mod raft;
mod status;
mod store;
mod stranger;
mod suspicion;
mod types;

pub use codec::read_entry;
pub use config::RaftConfig;
pub use error::{Full, NotLeading, OpenError, ReplaceError, TransferError};
pub use leadership::Leadership;
pub use machine::{AppliedBatch, AppliedEntry};
pub use peer::{
    hail::{Caller, Dialer, caller, may_be_hail},
    service::{PeerServer, Peers},
};
pub use proposer::Proposer;
pub use raft::{Raft, Reign};
pub use status::{MemberStatus, Status};
pub use store::replay::{Content, Replay, Replayed, replay};
pub use types::Member;
