//! The agent's machine: what an agent does with orders, kills, ended processes and a changing leader.
//! It decides; the shell (`muster-agent`) performs its [`Effect`]s and reports back with [`Input`]s.
//!
//! The road of a task: order -> [`Record::Intent`] synced -> `Accepted` sent and [`Effect::Start`] (a
//! supervisor that holds the command) -> [`Record::Started`] synced -> [`Effect::Release`] -> TASK_RUNNING
//! -> [`Input::Ended`] -> terminal update, repeated until confirmed -> forgotten. A task that names an executor is
//! handed to that, which is started as a task is (`executor.rs`); the executor of task groups that agents have built in
//! is this machine (`pod.rs`), which looks after all tasks that it runs itself (`check.rs`).
//!
//! # Laws
//! - The state that matters is the fold of the records ([`Saved::apply`]): a machine rebuilt from what was
//!   synced carries on where the former one stopped.
//! - A launch is released at most once, by one order, whatever is delivered twice, lost or repeated.
//! - Every order that is answered, started or not, is on the answered list, synced before the answer; the
//!   list outlives the task's record and is pruned only below the leader's low mark.
//! - An update is synced before it is sent, and repeated until the registry confirms it.
//! - A frame of an older fence, another stream or another session changes nothing.
//!
//! # Nevers
//! - No clock, no IO, no chance, no waiting: time comes with each step, effects leave as values.
//! - A launch with a recorded process is never started again: without a living process it has ended. Nor is one
//!   handed again that is recorded as handed.
//! - A sealed message is never opened here.

mod check;
mod connection;
pub mod effect;
mod executor;
mod group;
mod hello;
pub mod input;
pub mod node;
mod pod;
pub mod record;
mod sizes;
mod task;
mod volume;

pub use check::{Probed, Which};
pub use effect::{Effect, ExecutorAnswer, Probe, Signal, Start, StartExecutor, Within};
pub use input::{Down, End, Input, Limited};
pub use node::{Node, NodeConfig, Seal};
pub use record::{
    Cause, ExecutorIntent, ExecutorRecord, Executors, InExecutor, Intent, LowMark, Process, Record, Saved,
    TaskRecord, Watched,
};
