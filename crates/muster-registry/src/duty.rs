//! What operators set for agents.

use muster_model::WallTime;
use serde::{Deserialize, Serialize};

/// An agent that is not to be offered. One that is has none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Duty {
    /// How it is emptied, if it is.
    pub drain: Option<Drain>,
}

/// How an agent is emptied: its tasks are killed, and none are launched.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Drain {
    /// No task may take longer than this to end by itself, in ms; none = as long as it says.
    pub max_grace_ms: Option<u64>,
    /// Whether it is marked gone once it is empty.
    pub mark_gone: bool,
    /// Since when, for display.
    pub started: WallTime,
    /// Whether it is empty.
    pub state: DrainState,
}

/// How far an agent is emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DrainState {
    /// It has tasks, or tasks whose last update is not acknowledged, or strays.
    Draining,
    /// It has none.
    Drained,
}

impl Duty {
    /// Whether it is on its way to being empty.
    pub fn is_draining(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.state == DrainState::Draining)
    }
}
