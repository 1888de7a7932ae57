//! muster-raft
