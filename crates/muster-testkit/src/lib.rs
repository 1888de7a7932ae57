//! Real clusters for tests: masters and agents as processes of the shipped binary on loopback, with handles
//! to kill, stop, pause and restart each of them, to cut and delay the network between them, and to break disks.
//! `docs/chaos.md` is for those who write tests with it. Who writes a framework needs no cluster for most of its tests:
//! see [`fake`].
//!
//! ```no_run
//! # async fn chaos() -> anyhow::Result<()> {
//! use muster_testkit::{Plan, TestCluster};
//! let cluster = TestCluster::start(Plan::default()).await?;
//! let leader = cluster.leader().await?;
//! cluster.kill(&leader)?;
//! cluster.serving().await?;
//! cluster.restart(&leader)?;
//! cluster.caught_up(&leader).await?;
//! cluster.end().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The binary is the one that `MUSTER_BIN` names (`scripts/test` sets it), else `debug/muster` of the target
//! directory that the test itself was built into.
//!
//! # Laws
//! - Everything a cluster writes is below one temporary directory of its own, and its ports were free.
//! - When a [`TestCluster`] is dropped none of its processes is left, nor any task of its agents: not after a
//!   panic either. When the test's process dies, masters and agents die with it.
//! - A fault ends with its handle: a [`Paused`] process goes on, a [`Cut`] heals and what was [`Delayed`] is
//!   in time again when the handle is dropped; one with [`LittleMemory`] that lives on has as much as all others.
//! - A fault that a member may end of says so to [`TestCluster::check`], which otherwise fails when one ends.
//! - Disks of masters are mounted in a mount namespace of their own: nobody else sees them, and they go with the
//!   last process that does.
//! - A cut is like a network that drops, never like one that refuses: what is connected stays so, what is
//!   dialled hangs. Bytes that it holds back are counted and bounded, and go on in order when it heals.
//!
//! # Nevers
//! - Only processes that this cluster started, or that its agents did, are ever signalled.
//! - Nothing is read behind the masters' backs: leaders, agents and hashes are what the operator service
//!   says.
//! - No fault touches what this cluster's own members do not use. Those of the network that need root are made only in
//!   namespaces that this program moved into for it ([`hosts`]), those of disks only on disks of the masters' own.

mod ask;
mod binary;
pub mod clocks;
mod cluster;
mod disk;
mod fail_points;
pub mod fake;
mod fault;
pub mod history;
pub mod hosts;
mod leftovers;
mod limits;
mod log;
mod network;
mod plan;
mod ports;
mod process;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use clocks::Skewed;
pub use cluster::{ClusterEnd, Replica, TestCluster};
pub use disk::damage::{Damage, Damaged};
pub use disk::disks_missing;
pub use disk::fault::{FullDisk, ReadOnlyDisk};
pub use disk::sync::{BadSyncs, SyncFault, tracing_missing};
pub use disk::thin::ThinDisk;
pub use fail_points::FailPoint;
pub use fault::{Cut, Delayed, Lossy, Throttled, Traffic, Unplugged};
pub use limits::{FewFiles, LittleMemory, Starved, cgroups_missing};
pub use log::LogEntry;
pub use muster_proto::v1;
pub use plan::Plan;
pub use process::Paused;

/// Resources as the masters answer them; what cannot be read is left out.
pub fn resources(list: &[muster_proto::mesos::Resource]) -> muster_model::Resources {
    muster_proto::resources(list).unwrap_or_default()
}
