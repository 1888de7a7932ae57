//! The supervisor: one small process for each task, which owns the task's exit status and log files, and
//! outlives the agent.
//!
//! The agent starts one launch helper ([`helper_main`]) and sends it one end of a new socket for each launch; the helper
//! forks a supervisor, to which the agent sends a [`Spec`]. The supervisor makes the sandbox and forks the held child,
//! which becomes a session of its own and waits for one byte before it becomes the task's command. The supervisor
//! answers on that first socket and, so that an agent that comes later finds it, on one in the runtime directory. Only
//! the first socket can release the command, and when it closes before that, the command never runs.
//!
//! Standard output and error are files that the task itself writes, unless they are limited or a terminal's: then
//! `output` copies them.
//!
//! `sys.rs` has all that is unsafe, `held.rs` what a way to run commands must do, `posix.rs` the one with plain
//! processes, `contained.rs` the one with containers, `engine.rs` the one with containers that a
//! Docker engine makes.

mod client;
mod contained;
mod engine;
mod held;
mod helper;
mod output;
mod posix;
mod probe;
mod process;
mod runner;
mod sandbox;
mod session;
mod spec;
mod stragglers;
mod supervise;
mod sys;
mod task;
mod terminal;
mod wire;

pub use helper::{LAUNCH_HELPER, helper_main};

pub(crate) use contained::{Contained, SecretFile, Staged};
pub(crate) use engine::ByEngine;
pub(crate) use process::{boot_id, end_marked, start_time};
pub(crate) use spec::{Ending, Exit, MARK, Outputs, Place, Rotation, Spec, read_exit};
pub(crate) use wire::{Found, Frames, FromSupervisor, Look, SessionSpec, ToSupervisor, encode};
