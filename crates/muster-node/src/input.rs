//! What the shell tells the machine.

use crate::{Probed, Process, Which};
use muster_model::{AgentEvent, ExecutorCall, ExecutorName, Fence, LaunchNumber, Reason, Sealed, Session};
use std::sync::Arc;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Recovery is over: what became of the recorded processes was reported. Dial.
    Begin,
    /// A stream to some master is open. Numbers count up.
    StreamOpened {
        /// The stream.
        stream: u64,
    },
    /// A stream ended by itself.
    StreamClosed {
        /// The stream.
        stream: u64,
    },
    /// A frame came down.
    Frame {
        /// On which stream.
        stream: u64,
        /// The leader that speaks.
        fence: Fence,
        /// The agent's session it belongs to.
        session: Session,
        /// What it says.
        down: Down,
    },
    /// All checkpoints up to this ticket are durable.
    Synced {
        /// The ticket.
        ticket: u64,
    },
    /// A checkpoint could not be made durable.
    CheckpointFailed(String),
    /// A supervisor holds the command of a launch, or of the executor of that number; so in what follows.
    Started {
        /// Which.
        launch: LaunchNumber,
        /// The held process.
        process: Process,
    },
    /// The command was let go and runs.
    Released {
        /// Which.
        launch: LaunchNumber,
    },
    /// The task is over: no process of it is left.
    Ended {
        /// Which.
        launch: LaunchNumber,
        /// How.
        end: End,
    },
    /// The volumes of a task are visible to its executor, or this says why not.
    Mounted {
        /// Which task.
        launch: LaunchNumber,
        /// What went wrong, if anything did.
        failed: Option<Arc<str>>,
    },
    /// A probe came to its end.
    Probed {
        /// Of which task.
        launch: LaunchNumber,
        /// Which of its checks.
        which: Which,
        /// The probe's number.
        number: u64,
        /// What it found, or why it found nothing.
        result: Probed,
    },
    /// Time passed.
    Wake,
    /// An executor says something over the executor API. Answered by [`crate::Effect::Answer`] in the same step.
    Executor {
        /// The shell's number for it. A SUBSCRIBE opens the stream of this number.
        call: u64,
        /// Who it says it is.
        from: ExecutorName,
        /// What it says.
        said: ExecutorCall,
    },
    /// An executor's stream broke.
    ExecutorGone {
        /// The stream.
        stream: u64,
    },
}

/// What comes down a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Down {
    /// Who leads. Answered by a hello.
    Leader {
        /// Its name.
        name: String,
        /// Its API's address.
        address: String,
    },
    /// This master lost its leader for too long: dial another one.
    Redial(String),
    /// From the leader.
    Event(AgentEvent),
}

/// How a launch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With this exit status.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// The command was never let go.
    NotReleased,
    /// It could not be started; this says why.
    StartFailed(Arc<str>),
    /// Its description cannot be run by this agent; this says why.
    Invalid(Arc<str>),
    /// Its supervisor is gone and left no exit status.
    Unknown,
    /// It was ended since it used more than it may.
    Limited(Box<Limited>),
}

/// An end by a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limited {
    /// As `wait` gives it.
    pub wait_status: i32,
    /// Which limit.
    pub reason: Reason,
    /// The limit, and what was used.
    pub message: Arc<str>,
    /// A `mesos.v1.TaskStatus` that tells the limit.
    pub sealed: Sealed,
}

impl End {
    /// As `wait` gives it; -1 where nobody knows.
    pub fn wait_status(&self) -> i32 {
        match self {
            Self::Exited(code) => (code & 0xff) << 8,
            Self::Signaled(signal) => signal & 0x7f,
            Self::Limited(limited) => limited.wait_status,
            Self::NotReleased | Self::StartFailed(_) | Self::Invalid(_) | Self::Unknown => -1,
        }
    }
}
