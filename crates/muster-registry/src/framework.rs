//! A framework's record.

use muster_model::{FrameworkId, FrameworkInfo, Index, Role, Session, Timestamp, WallTime};
use serde::{Deserialize, Serialize};

/// A framework that lives.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Framework {
    /// Its id.
    pub id: FrameworkId,
    /// Its description, as of its newest subscription.
    pub info: FrameworkInfo,
    /// Roles it asked no offers for when it last subscribed.
    pub suppressed_roles: Vec<Role>,
    /// Its newest session.
    pub session: Session,
    /// Whether that session's stream is open, as far as the log knows.
    pub connection: Connection,
    /// When it first subscribed, for display.
    pub registered: WallTime,
}

impl Framework {
    /// Whether its newest session is open.
    pub fn is_connected(&self) -> bool {
        self.connection == Connection::Connected
    }
}

/// Whether a session is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Connection {
    /// Its stream is open.
    Connected,
    /// Its stream ended, and this is what that began.
    Disconnected(Disconnection),
}

/// A disconnection: a committed fact with a deadline (`protocol` B7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Disconnection {
    /// Names it: the log index that committed it.
    pub index: Index,
    /// When.
    pub since: Timestamp,
    /// From when on its deadline may be acted upon.
    pub deadline: Timestamp,
    /// Whether a change of leader has already been allowed for in the deadline: this happens once.
    pub graced: bool,
}

impl Disconnection {
    pub(crate) fn new(index: Index, now: Timestamp, timeout_ms: u64) -> Self {
        Self { index, since: now, deadline: now.plus_ms(timeout_ms), graced: false }
    }

    /// A leader began: who is cut off has at least `grace_ms` from now, once for each disconnection.
    pub(crate) fn grace(mut self, now: Timestamp, grace_ms: u64) -> Self {
        if !self.graced {
            self.deadline = self.deadline.max(now.plus_ms(grace_ms));
            self.graced = true;
        }
        self
    }
}

/// A framework that was torn down.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CompletedFramework {
    /// As it was last.
    pub framework: Framework,
    /// When it ended, for display.
    pub completed: WallTime,
}
