//! Containers: what is asked for becomes an OCI bundle, and an OCI runtime makes a container of it.
//!
//! [`Bundle`] is the value of what is asked for, and its [`Bundle::spec`] is pure. [`Runtime`] is what runtimes differ
//! in: [`Native`] is the library of youki in this process, [`Oci`] a program such as runc. A [`Container`] is one that
//! was made, with its command held until it is started. An [`Engine`] is no such runtime: it makes containers of its own,
//! whose parent it is, of images of its own.
//!
//! # Laws
//! - Whoever creates a container is its parent: it must be a subreaper, and gets the command's status by `waitpid`.
//! - Process 1 of a container's own pid namespace is [`pause_main`]: it reaps what is left to it and ends with who
//!   created the container, and the kernel ends the rest with it. So signals reach the command, which is not process 1,
//!   and nothing outlives its supervisor.
//! - Limits are in the bundle, beside what is written to the container's control group by others.
//!
//! # Nevers
//! - No threads: creating a container forks, and changes the calling process's directory for a moment.
//! - Nothing is mounted where the machine could see it, if [`own_mounts`] was called before.
//! - No network namespace is made: a container has the machine's network.

mod bundle;
mod console;
mod container;
mod engine;
mod error;
mod groups;
mod mounts;
mod native;
mod oci;
mod pause;
mod runtime;

pub use bundle::{Base, Bind, Bundle, DEFAULT_CAPABILITIES, Ids, Limits, Pids, Process, Rlimit};
pub use container::{Container, Made};
pub use engine::{
    Engine, EngineAbout, EngineError, EngineImage, EngineMount, EngineSource, EngineSpec, EngineState,
    Network, Port, env_memory, fits_a_line,
};
pub use error::ContainerError;
pub use groups::{remove_empty_groups, remove_groups};
pub use mounts::{bind_root, own_mounts};
pub use native::Native;
pub use oci::Oci;
pub use pause::{Pause, pause_main};
pub use runtime::{Io, Kind, Place, Runtime, Started, find_program};
