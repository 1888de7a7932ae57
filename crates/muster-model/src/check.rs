//! What an agent decides on of a task that it runs itself: how long the task may run, and how it is looked after.

use crate::{ExecutorId, LaunchNumber, TaskId, WallTime};
use serde::{Deserialize, Serialize};

/// How a task is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CheckKind {
    /// By a command that runs beside it.
    Command,
    /// By a GET request to one of its ports.
    Http,
    /// By a connection to one of its ports.
    Tcp,
}

/// When a check runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CheckTerms {
    /// How it looks.
    pub kind: CheckKind,
    /// It runs first this long after the task did, in ms.
    pub delay_ms: u64,
    /// And again this long after each result, in ms.
    pub interval_ms: u64,
    /// It is given up after this long, in ms; 0 = as late as the agent gives up any.
    pub timeout_ms: u64,
}

/// When a health check runs, and what its failures mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HealthTerms {
    /// When it runs.
    pub check: CheckTerms,
    /// So long after the task began to run failures before the first success do not count, in ms.
    pub grace_ms: u64,
    /// After this many failures in a row the task is killed; at least 1.
    pub failures_max: u32,
}

/// What an agent keeps to of a task that it runs itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskTerms {
    /// Its framework is told TASK_KILLING when a kill begins.
    pub tells_killing: bool,
    /// It is killed, and has failed, when it runs for longer, in ms.
    pub completion_ms: Option<u64>,
    /// Its health check.
    pub health: Option<HealthTerms>,
    /// Its check.
    pub check: Option<CheckTerms>,
}

impl TaskTerms {
    /// Whether there is nothing to keep to.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CheckResult {
    /// Nothing: it did not run yet, or could not, or took too long.
    Nothing(CheckKind),
    /// Its command ended with this status, a signal's as a shell tells it.
    Exit(i32),
    /// It was answered with this status.
    Status(u32),
    /// Whether it was connected.
    Connected(bool),
}

impl CheckResult {
    /// Whether this is how a healthy task looks.
    pub fn is_healthy(self) -> bool {
        match self {
            Self::Nothing(_) => false,
            Self::Exit(status) => status == 0,
            Self::Status(status) => (200..400).contains(&status),
            Self::Connected(connected) => connected,
        }
    }
}

/// What is told of a task that the agent runs itself, beside its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told<'a> {
    /// Its launch.
    pub launch: LaunchNumber,
    /// Its id.
    pub task_id: &'a TaskId,
    /// The built-in executor that it runs in: the number of its run, and its id.
    pub within: Option<(LaunchNumber, &'a ExecutorId)>,
    /// What its health check last said.
    pub healthy: Option<bool>,
    /// What its check last found; of a task with one always something.
    pub check: Option<CheckResult>,
    /// When this is told.
    pub wall: WallTime,
}
