//! Master to master: what openraft says to its peers, and what makes and mends a cluster.

pub(crate) mod client;
pub(crate) mod hail;
mod link;
pub(crate) mod service;
pub(crate) mod wire;

/// Messages are bounded by the log's reads (2 MiB, or one entry); gRPC's own limit stands above that.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Requests on their way to one peer.
pub(crate) const PIPELINE: usize = 64;
