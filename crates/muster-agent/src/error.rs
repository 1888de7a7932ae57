//! Why an agent cannot start or cannot go on.

use std::{io, path::PathBuf};
use thiserror::Error;

/// Why an agent cannot start or cannot go on. Each message says what to do.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The configuration is wrong.
    #[error("agent configuration: {0}")]
    Config(String),
    /// A file that says who may ask what is missing or wrong.
    #[error(transparent)]
    Auth(#[from] muster_http::auth::AuthError),
    /// The configuration file cannot be read.
    #[error("cannot read the agent configuration {}", path.display())]
    ReadConfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another agent uses the work directory.
    #[error(
        "the work directory {} is in use by another agent; stop that one, or give this one a work-dir of its own",
        .0.display()
    )]
    WorkDirInUse(PathBuf),
    /// Another agent uses the control groups.
    #[error(
        "the control group {} is in use by another agent; stop that one, or give this one a cgroup-root of its own",
        .0.display()
    )]
    CgroupInUse(PathBuf),
    /// A directory or file of the agent cannot be used.
    #[error("cannot {doing} {}; check that it can be written by this user and that the disk has room", path.display())]
    Prepare {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The checkpoint log is of a version that this one does not know.
    #[error(
        "the checkpoint log {} has format {found}, this version reads up to {known}; run a muster that is as new as \
         the one that wrote it",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u8,
        /// The newest known here.
        known: u8,
    },
    /// Tasks of a former agent of this work directory do not end.
    #[error(
        "tasks of a former agent are left under {} and do not end; end their processes, then start again",
        .0.display()
    )]
    Leftovers(PathBuf),
    /// The launch helper of a former agent, or a supervisor that it was asked for, does not end.
    #[error(
        "a former agent's launch helper holds {} and does not end; end that process, then start again",
        .0.display()
    )]
    Launching(PathBuf),
    /// The address of the executor API is not to be had.
    #[error("cannot listen on {address}; choose another port, or another listen-ip")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The machine cannot go on.
    #[error("{0}")]
    Stopped(String),
    /// The operating system refused something that an agent needs.
    #[error("cannot {doing}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
}
