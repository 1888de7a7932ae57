//! What the machine asks of its shell.

use crate::{ExecutorIntent, Record, Which};
use muster_model::{
    AgentCall, AgentId, ExecutorEvent, ExecutorName, LaunchNumber, Resources, Sealed, Session, TaskKey,
    VolumeMount, VolumeNumber,
};
use std::{collections::BTreeSet, sync::Arc};

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
    /// Signal the whole process group of a task or executor.
    Signal {
        /// Which.
        launch: LaunchNumber,
        /// With what.
        signal: Signal,
    },
    /// The launch, or the run of an executor, is over: what the supervisor left behind for it may go.
    Remove {
        /// Which.
        launch: LaunchNumber,
        /// Its name; an executor's stands in the place of a task's.
        task: TaskKey,
    },
    /// Start a supervisor that holds an executor's command. Reports `Started` or `Ended` under its number.
    StartExecutor(Box<StartExecutor>),
    /// Make persistent volumes visible in the sandbox of an executor that runs. Reports `Mounted`.
    Mount {
        /// For which task.
        launch: LaunchNumber,
        /// Which run.
        number: LaunchNumber,
        /// The executor's name.
        name: ExecutorName,
        /// The volumes.
        volumes: Vec<VolumeMount>,
        /// What the executor and its other living tasks use: these stay where they are.
        used: BTreeSet<VolumeNumber>,
    },
    /// The tasks of an executor that runs are others now: it may use this from now on, its own share included.
    Resize {
        /// Which run.
        number: LaunchNumber,
        /// All that it holds.
        resources: Resources,
    },
    /// Remove what is left of all other volumes that were made in this incarnation.
    KeepVolumes {
        /// The incarnation.
        incarnation: u32,
        /// Which are there, or in use.
        keep: BTreeSet<VolumeNumber>,
    },
    /// Answer an executor's call.
    Answer {
        /// The call.
        call: u64,
        /// How.
        answer: ExecutorAnswer,
    },
    /// Send an event down an executor's stream, if it is still open.
    Tell {
        /// The stream.
        stream: u64,
        /// The event.
        event: ExecutorEvent,
    },
    /// End an executor's stream, after what was sent; the end is not reported.
    HangUp {
        /// The stream.
        stream: u64,
    },
    /// Look whether a task is well. Reports `Probed`, always, and not much later than its time.
    Probe(Box<Probe>),
    /// The launch of a task within a built-in executor is over: what its supervisor left behind may go, but for its
    /// sandbox, which is the executor's.
    RemoveExit {
        /// Which.
        launch: LaunchNumber,
    },
    /// The agent cannot go on; this says why. No other effect follows.
    Stop(String),
}

/// A look at a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Which task.
    pub launch: LaunchNumber,
    /// Which of its checks.
    pub which: Which,
    /// Names the probe in its report.
    pub number: u64,
    /// It is given up after this long, in ms.
    pub timeout_ms: u64,
    /// The whole `mesos.v1.TaskInfo`.
    pub sealed: Sealed,
}

/// The built-in executor that a task is started in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Within {
    /// What that is.
    pub executor: Arc<ExecutorIntent>,
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
    /// What it may use.
    pub resources: Resources,
    /// The whole `mesos.v1.TaskInfo`.
    pub sealed: Sealed,
    /// The persistent volumes that it uses, and those of an executor that it is within.
    pub volumes: Vec<VolumeMount>,
    /// The built-in executor that it is started in; none for a task of its own.
    pub within: Option<Within>,
}

/// A supervisor to start for an executor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartExecutor {
    /// What to start.
    pub intent: Arc<ExecutorIntent>,
    /// On which agent.
    pub agent_id: AgentId,
    /// What it may use: its own share, and those of the tasks that wait for it.
    pub resources: Resources,
    /// The persistent volumes that it and its first task use.
    pub volumes: Vec<VolumeMount>,
}

/// How an executor's call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutorAnswer {
    /// The stream is open; events follow.
    Subscribed,
    /// The call was taken.
    Accepted,
    /// No executor of this framework is here.
    NoFramework,
    /// No such executor of the framework is here.
    NoExecutor,
    /// It must subscribe first.
    NotSubscribed,
    /// Too many updates of the task wait: try again.
    Busy,
}

/// How a task is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ask.
    Term,
    /// Force.
    Kill,
}
