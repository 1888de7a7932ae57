//! An agent's record.

use crate::Disconnection;
use muster_model::{
    AgentId, AgentInfo, LaunchNumber, Resources, Sealed, Session, TaskKey, Timestamp, WallTime,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// An agent that was admitted once and is not forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Its description, as of its newest hello. Shared: every agent's record changes when a term begins.
    pub info: Arc<AgentInfo>,
    /// Its whole `mesos.v1.AgentInfo`.
    pub sealed: Sealed,
    /// Its newest session.
    pub session: Session,
    /// Whether it answers.
    pub state: AgentState,
    /// Processes it listed as alive that no live task stands for; held until they end.
    pub strays: BTreeMap<LaunchNumber, Stray>,
    /// When it was first admitted, for display.
    pub registered: WallTime,
}

/// Whether an agent answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AgentState {
    /// Its newest session is open. Only such an agent is offered.
    Connected,
    /// Its session ended; it may come back before the deadline.
    Disconnected(Disconnection),
    /// It stayed away too long. It may still come back.
    Unreachable {
        /// Since when.
        since: Timestamp,
    },
    /// An operator said it never comes back, or another agent of its machine took its place.
    Gone {
        /// Since when.
        since: Timestamp,
    },
}

/// A process that holds resources although no live task stands for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stray {
    /// What it was called.
    pub task: TaskKey,
    /// What it holds.
    pub resources: Resources,
}

impl Agent {
    /// Whether it may be ordered to start tasks.
    pub fn is_connected(&self) -> bool {
        self.state == AgentState::Connected
    }

    /// Whether it will never come back.
    pub fn is_gone(&self) -> bool {
        matches!(self.state, AgentState::Gone { .. })
    }

    /// Since when it is unreachable or gone.
    pub fn lost_since(&self) -> Option<Timestamp> {
        match self.state {
            AgentState::Unreachable { since } | AgentState::Gone { since } => Some(since),
            AgentState::Connected | AgentState::Disconnected(_) => None,
        }
    }

    /// A word for people: registered, disconnected, unreachable, gone.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            AgentState::Connected => "registered",
            AgentState::Disconnected(_) => "disconnected",
            AgentState::Unreachable { .. } => "unreachable",
            AgentState::Gone { .. } => "gone",
        }
    }
}
