//! What the machine asks of its shell.

use crate::Record;
use muster_model::{AgentCall, AgentId, LaunchNumber, Sealed, Session, TaskKey};
use std::sync::Arc;

/// One thing to do. Effects are performed in order; those that take long report back by an `Input`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Keep these records, in order, and report `Synced` once they would survive a power cut. Several may
    /// be synced in one go; then the last ticket is reported.
    Checkpoint {
        /// Counts up.
        ticket: u64,
        /// What to keep.
        records: Vec<Record>,
    },
    /// Send on this stream, if it is still open.
    Send {
        /// The stream.
        stream: u64,
        /// The session to put on the frame.
        session: Session,
        /// What to say.
        call: AgentCall,
    },
    /// Open a stream to any master.
    Dial,
    /// Close this stream and open one to another master; the close is not reported.
    Redial {
        /// The stream.
        stream: u64,
        /// Why.
        reason: String,
    },
    /// Start a supervisor that holds the command. Reports `Started` or `Ended`.
    Start(Box<Start>),
    /// Let the held command go. Reports `Released`, then `Ended`.
    Release {
        /// Which.
        launch: LaunchNumber,
    },
    /// Never let the command go; end its supervisor, also one that is only about to start. Reports `Ended`.
    Abandon {
        /// Which.
        launch: LaunchNumber,
    },
    /// Signal the task's whole process group.
    Signal {
        /// Which.
        launch: LaunchNumber,
        /// With what.
        signal: Signal,
    },
    /// The launch is over: what the supervisor left behind for it may go.
    Remove {
        /// Which.
        launch: LaunchNumber,
        /// Its name.
        task: TaskKey,
    },
    /// The agent cannot go on; this says why. No other effect follows.
    Stop(String),
}

/// A supervisor to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// For which launch.
    pub launch: LaunchNumber,
    /// Its name.
    pub task: TaskKey,
    /// On which agent.
    pub agent_id: AgentId,
    /// The user to run as when the task names none.
    pub user: Arc<str>,
    /// The whole `mesos.v1.TaskInfo`.
    pub sealed: Sealed,
}

/// How a task is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ask.
    Term,
    /// Force.
    Kill,
}
