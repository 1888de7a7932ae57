//! The supervisor: one small process for each task, which owns the task's exit status and log files, and
//! outlives the agent.
//!
//! The agent starts `supervise` with one end of a socket as its standard input and sends a [`Spec`]. The
//! supervisor makes the sandbox and starts `hold`, which becomes a session of its own and waits for one byte
//! before it becomes the task's command. The supervisor answers on that first socket and, so that an agent
//! that comes later finds it, on one in the runtime directory. Only the first socket can release the command,
//! and when it closes before that, the command never runs.

mod hold;
mod probe;
mod process;
mod spec;
mod supervise;
mod wire;

pub use hold::hold_main;
pub use supervise::supervise_main;

pub(crate) use process::{boot_id, end_marked, start_time};
pub(crate) use spec::{Ending, Exit, MARK, Place, Spec, read_exit};
pub(crate) use wire::{Found, Frames, FromSupervisor, Look, ToSupervisor, encode};
