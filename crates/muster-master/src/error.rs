//! What can keep a master from running.

use std::path::PathBuf;

/// Each names the thing and the fix.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration {path}: check that it exists and is readable")]
    ReadConfig {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The configuration has a wrong key or value.
    #[error("configuration {path}: {problem}")]
    ParseConfig {
        /// Which file.
        path: PathBuf,
        /// What and where.
        problem: String,
    },
    /// The settings do not fit together.
    #[error("{0}")]
    Config(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: another process may use the port, choose another with --listen")]
    Listen {
        /// Which address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file that says who may ask what is missing or wrong.
    #[error(transparent)]
    Auth(#[from] muster_http::auth::AuthError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Open(#[from] muster_raft::OpenError),
    /// The server ended.
    #[error("the server on {address} ended")]
    Serve {
        /// Which address.
        address: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The replica may not go on: what was acknowledged is safe, and only a restart shows what is on disk.
    #[error("the replica stopped itself: {0}")]
    Failed(String),
}
