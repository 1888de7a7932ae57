//! What goes wrong with containers.

use std::{io, path::PathBuf};
use thiserror::Error;

/// Why a container is not made, not started or not removed.
#[derive(Debug, Error)]
pub enum ContainerError {
    /// What is asked for is no bundle.
    #[error("the container cannot be described: {0}")]
    Bundle(String),
    /// A runtime says no.
    #[error("{runtime} cannot {doing} the container: {why}")]
    Runtime {
        /// Its name.
        runtime: String,
        /// What it was to do.
        doing: &'static str,
        /// Its own words.
        why: String,
    },
    /// There is no such program.
    #[error("there is no OCI runtime {0:?} here; install runc or crun, or name one by oci-runtime")]
    NoProgram(String),
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ContainerError {
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}
