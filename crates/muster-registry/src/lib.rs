//! The replicated machine: frameworks, agents and tasks, and the one function that changes them.
//!
//! Start reading at [`Registry::apply`]: it is the table of contents. What can be asked is in
//! [`command`], what became of it in [`outcome`], what it did in [`change`].
//!
//! # Laws
//! - [`Registry::apply`] is total and deterministic: equal registries and entries give equal registries,
//!   outcomes and changes, on every replica, for ever.
//! - What an agent's tasks, executors and strays hold never exceeds its total, and is let go only by the
//!   agent's word that the process ended or by the agent's own end ([`Registry::check_laws`]).
//! - What is reserved, and which volumes there are, can be made of what the agent came with; making it changes no sum.
//! - A task's updates reach its framework in order; the head of the queue is never replaced.
//! - A launch number names one launch for ever; a spent offer is answered from memory.
//! - [`Registry::state_hash`] is the sum of the hashes of all records, kept up by every change.
//! - Restoring [`Registry::records`] gives an equal registry.
//!
//! # Nevers
//! - No clock, no chance, no input or output, no float, no map without an order.
//! - No client's sealed bytes are opened.
//! - No variant of a persisted type is reordered, renumbered or reused.

mod agent;
mod apply;
mod carved;
pub mod change;
pub mod command;
mod duty;
mod framework;
mod laws;
pub mod outcome;
mod registry;
mod restore;
mod role;
mod snapshot;
mod table;
mod task;
mod task_table;

pub use agent::{Agent, AgentState, Stray};
pub use apply::{MACHINES_MAX, TOLD_BYTES_MAX};
pub use carved::{Carved, DoneOperation, Group};
pub use change::Change;
pub use command::{BeginTerm, Command, Entry, Launch, Limits, Operate, Subscribe};
pub use duty::{Drain, DrainState, Duty};
pub use framework::{CompletedFramework, Connection, Disconnection, Framework};
pub use outcome::{OVERCOMMITS, OperateOutcome, Outcome, Refusal};
pub use registry::{Account, Applied, Client, EventStream, Holding, Newcomer, Registry, Spent};
pub use restore::ReadyTask;
pub use role::{Consumed, Quota, ROLES_MAX, RoleSettings};
pub use snapshot::{Header, Record, RestoreError};
pub use task::{Kill, Known, Origin, QueuedUpdate, Shape, StoredTask, Task};
