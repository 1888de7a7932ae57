//! Frameworks as they describe themselves.

use crate::{Role, Sealed};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The `FrameworkInfo.capabilities` that change what muster does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Capabilities {
    /// PARTITION_AWARE: knows UNREACHABLE, DROPPED, GONE and the like.
    pub partition_aware: bool,
    /// TASK_KILLING_STATE: wants TASK_KILLING.
    pub task_killing_state: bool,
    /// MULTI_ROLE: uses `roles`, sees allocation info.
    pub multi_role: bool,
    /// RESERVATION_REFINEMENT: reads and writes reservations in the newer form, and may use such as refine others.
    pub reservation_refinement: bool,
    /// GPU_RESOURCES: is offered agents that have gpus.
    pub gpu_resources: bool,
}

/// Capabilities as they are stored. The first three were there first and took a byte each; the later ones share the
/// third byte, so that what was stored before reads as it did.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Stored {
    partition_aware: bool,
    task_killing_state: bool,
    more: u8,
}

const MULTI_ROLE: u8 = 1;
const RESERVATION_REFINEMENT: u8 = 1 << 1;
const GPU_RESOURCES: u8 = 1 << 2;

impl From<Stored> for Capabilities {
    fn from(stored: Stored) -> Self {
        Self {
            partition_aware: stored.partition_aware,
            task_killing_state: stored.task_killing_state,
            multi_role: stored.more & MULTI_ROLE != 0,
            reservation_refinement: stored.more & RESERVATION_REFINEMENT != 0,
            gpu_resources: stored.more & GPU_RESOURCES != 0,
        }
    }
}

impl From<Capabilities> for Stored {
    fn from(all: Capabilities) -> Self {
        let bit = |is: bool, bit: u8| if is { bit } else { 0 };
        Self {
            partition_aware: all.partition_aware,
            task_killing_state: all.task_killing_state,
            more: bit(all.multi_role, MULTI_ROLE)
                | bit(all.reservation_refinement, RESERVATION_REFINEMENT)
                | bit(all.gpu_resources, GPU_RESOURCES),
        }
    }
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
