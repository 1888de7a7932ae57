//! What the shell tells the machine, and what the machine asks of the shell.

use muster_allocator::{ShardInput, ShardOutput};
use muster_model::{
    AgentId, Call, CallOutcome, Conversion, Event, FrameworkId, Index, MachineName, Role, Timestamp, Window,
};
use muster_registry::{Change, Command, Outcome, Quota};
use std::sync::Arc;

/// A client's stream, numbered by the shell in the order of opening; never used again.
pub type ConnId = u64;

/// What the shell tells the machine.
#[derive(Debug, Clone)]
pub enum Input {
    /// A client asks something.
    Call {
        /// On which stream.
        conn: ConnId,
        /// What.
        call: Call,
    },
    /// A client's stream ended, or the link that carried it.
    Closed(ConnId),
    /// An operator asks something; the answer is an [`Effect::Answer`] of the same id.
    Operator {
        /// Chosen by the shell.
        id: u64,
        /// What.
        call: OperatorCall,
    },
    /// Entries were applied, in order. The registry given to a step holds at least what was told so far; it
    /// may be ahead.
    Applied(Vec<Committed>),
    /// A shard finished its pass.
    Allocated(u32, ShardOutput),
    /// It is time (`Leader::wake_at`).
    Wake,
}

/// An applied entry.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Its place in the log.
    pub index: Index,
    /// The ticket of the first command, if this leader proposed the entry.
    pub first_ticket: Option<u64>,
    /// The outcomes.
    pub outcomes: Vec<Outcome>,
    /// The changes.
    pub changes: Arc<Vec<Change>>,
}

/// What an operator may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperatorCall {
    /// End a framework.
    Teardown(FrameworkId),
    /// An agent never comes back.
    MarkGone(AgentId),
    /// Weigh the claims of roles, in thousandths.
    SetWeights(Vec<(Role, u64)>),
    /// Set quotas of roles; see [`Command::SetQuotas`].
    SetQuotas {
        /// The quotas, each within its own limits.
        quotas: Vec<(Role, Quota)>,
        /// Also where roles have more already, or the cluster has less.
        force: bool,
        /// Only of roles that have none.
        new: bool,
    },
    /// Take a role's quota away.
    RemoveQuota(Role),
    /// Do not offer an agent.
    Deactivate(AgentId),
    /// Offer it again.
    Reactivate(AgentId),
    /// Empty an agent.
    Drain {
        /// Which.
        agent_id: AgentId,
        /// The longest time that a task may take to end by itself, in ms; none = as long as it says.
        max_grace_ms: Option<u64>,
        /// Whether it is marked gone once it is empty.
        mark_gone: bool,
    },
    /// Put a maintenance schedule in the place of the former one.
    SetSchedule(Vec<Window>),
    /// Machines in the schedule are down.
    StartMaintenance(Vec<MachineName>),
    /// Machines that were down are up.
    StopMaintenance(Vec<MachineName>),
    /// Reserve resources of an agent that nobody holds, or make a volume of them, or undo that.
    Convert(AgentId, Conversion),
}

/// What the machine asks of the shell.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Put a command in the log. Proposals are numbered 1, 2, 3 ... in this order (the proposer's tickets).
    Propose(Command),
    /// Send an event down a stream. A stream that is full is closed by the shell.
    Send(ConnId, Event),
    /// End a stream, after what was sent.
    Close(ConnId),
    /// Run a shard's pass with these inputs; its output comes back as [`Input::Allocated`].
    Allocate {
        /// Which shard.
        shard: u32,
        /// Registry time.
        now: Timestamp,
        /// What happened since its last pass.
        inputs: Vec<ShardInput>,
    },
    /// Answer an operator.
    Answer {
        /// The operator's call.
        id: u64,
        /// Done, not done, or not known.
        outcome: CallOutcome,
    },
    /// `BeginTerm` is applied: clients may be told who leads.
    Serve,
}
