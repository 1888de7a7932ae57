//! Frameworks as they describe themselves.

use crate::{Role, Sealed};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The `FrameworkInfo.capabilities` that change what muster does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Capabilities {
    /// PARTITION_AWARE: knows UNREACHABLE, DROPPED, GONE and the like.
    pub partition_aware: bool,
    /// TASK_KILLING_STATE: wants TASK_KILLING.
    pub task_killing_state: bool,
    /// MULTI_ROLE: uses `roles`, sees allocation info.
    pub multi_role: bool,
}

/// What is decided on of a `mesos.v1.FrameworkInfo`, and the whole of it sealed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FrameworkInfo {
    /// Display name.
    pub name: Arc<str>,
    /// The user tasks run as by default. Kept from the first subscription on.
    pub user: Arc<str>,
    /// Who it authenticates as. May not change.
    pub principal: Option<Arc<str>>,
    /// The roles it is offered resources for, at least one, sorted, no doubles.
    pub roles: Vec<Role>,
    /// How long it may stay disconnected before it is torn down, in ms.
    pub failover_timeout_ms: u64,
    /// Its capabilities.
    pub capabilities: Capabilities,
    /// The whole `mesos.v1.FrameworkInfo` as it was sent.
    pub sealed: Sealed,
}
