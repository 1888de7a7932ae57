//! The agent's shell: it drives [`muster_node::Node`], runs tasks as real processes, keeps checkpoints, and
//! holds a stream to the leader through any master.
//!
//! On a port of its own it serves the executor API (`executors/`) to the executors that run tasks for their frameworks,
//! and to operators and tools what Mesos' agents show (`mesos/`).
//!
//! Each task, and each executor, has a supervisor process of its own that outlives the agent, forked by a small launch
//! helper ([`helper_main`]); see `supervisor/mod.rs` for how a command is held and let go.
//!
//! # On disk
//! ```text
//! <work-dir>/lock                                     held while an agent runs
//! <work-dir>/meta/agent.log                           the machine's records, a checksum each (disk/log.rs)
//! <work-dir>/meta/launching                           held while a launch helper has something to do (supervisor/helper.rs)
//! <work-dir>/meta/exits/<launch>-<pid>                how a task ended, from its supervisor, where no agent kept it
//! <work-dir>/volumes/<number>/         persistent volumes, to which links lead from sandboxes
//! <work-dir>/fetched/<digest>          what was fetched and is kept (fetch/cache.rs)
//! <work-dir>/sandboxes/<framework>/<task>/<launch>/   working directory, stdout, stderr; an executor's likewise,
//!                                                     under its own id and the launch that it was started for
//! <runtime-dir>/<fingerprint>/<launch>-<pid>.sock     a supervisor; the fingerprint is of the work directory
//! <mount of each controller>/<cgroup-root>/<fingerprint>/<launch>   a task's or executor's control group
//! ```
//!
//! # Laws
//! - A checkpoint is synced before anything that depends on it leaves this process; one sync serves all that
//!   wait. A failed sync ends the agent.
//! - One agent uses a work directory, and its runtime directory is its alone.
//! - An end is reported when no process of the task is left.
//! - An agent whose checkpoints are missing or damaged ends every task of its runtime directory before it
//!   registers, as a new agent.
//!
//! # Nevers
//! - No decision: what to start, answer, repeat or forget is the machine's.
//! - No unbounded queue, and the loop never waits for one that waits for the loop.
//! - No async runtime in a supervisor.

mod anyone;
mod cgroups;
mod checks;
mod command;
mod config;
mod containers;
mod disk;
mod doctor;
mod error;
mod executors;
mod fetch;
mod history;
mod launches;
mod limits;
mod link;
mod logs;
mod mesos;
mod probe;
mod sandbox;
mod service;
mod sessions;
mod supervisor;
mod supervisors;
mod volumes;

pub use config::AgentConfig;
pub use containers::{Containerizer, DockerSection, ImageSection};
pub use doctor::{Finding, examine};
pub use error::AgentError;
pub use logs::LogSection;
pub use service::run;
pub use supervisor::{LAUNCH_HELPER, helper_main};
pub use supervisors::{Launcher, end_tasks};
