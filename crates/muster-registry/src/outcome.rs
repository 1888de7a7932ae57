//! What became of a command. A refusal is a normal answer, not an error.

use crate::Disconnection;
use muster_model::{
    AcceptOutcome, AgentId, FrameworkId, Index, LaunchNumber, MachineName, OperationOutcome, Role, Session,
    Term,
};
use serde::Serialize;
use std::{fmt, sync::Arc};

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Outcome {
    /// Done, nothing to say.
    Done,
    /// A framework is subscribed.
    Subscribed {
        /// Its id.
        framework_id: FrameworkId,
        /// Its new session.
        session: Session,
    },
    /// An agent is admitted.
    Admitted {
        /// Its id.
        agent_id: AgentId,
        /// Its new session.
        session: Session,
        /// Launches it may forget: ended, and nobody waits for them.
        forget: Vec<LaunchNumber>,
        /// Of which launches the registry now has the updates up to which number.
        confirm: Vec<(LaunchNumber, u32)>,
        /// No launch below this index will ever be ordered of it again.
        low_mark: Index,
    },
    /// What became of the tasks of a launch (also when answered from memory).
    Launched(AcceptOutcome),
    /// What became of the operations of an ACCEPT (also when answered from memory).
    Operated(OperateOutcome),
    /// The registry has the update, or has no use for it: the agent forgets it.
    Confirmed,
    /// Not done.
    Refused(Refusal),
}

/// What became of the operations of an ACCEPT.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct OperateOutcome {
    /// The tasks of all launches, in order.
    pub tasks: AcceptOutcome,
    /// All that is no launch, in order.
    pub operations: Vec<OperationOutcome>,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Refusal {
    /// The entry was decided in another term than it was written in.
    StaleTerm {
        /// Decided in.
        decided: Term,
        /// Written in.
        written: Term,
    },
    /// No such framework.
    UnknownFramework(FrameworkId),
    /// The framework was removed; its id will never live again.
    FrameworkRemoved(FrameworkId),
    /// A framework may not change its principal.
    PrincipalChanged,
    /// No such agent.
    UnknownAgent(AgentId),
    /// The agent was marked gone; it must come back as a new one.
    AgentGone(AgentId),
    /// The session is not the newest.
    StaleSession,
    /// The disconnection that the deadline was for has ended, or the deadline lies ahead.
    NotDue(Option<Disconnection>),
    /// No such task.
    UnknownTask,
    /// The task waits for the acknowledgement of another update, or of none.
    NotTheHead,
    /// The agent still holds tasks that this would change (resources shrank below what is in use).
    ResourcesInUse(AgentId),
    /// A framework may not change its user without a new session, in which the change is ignored.
    UserChanged {
        /// As it is known.
        from: Arc<str>,
        /// As it would be.
        to: Arc<str>,
    },
    /// There are as many of these as there may be.
    Full(&'static str),
    /// The role has a quota already.
    QuotaSet(Role),
    /// The role has no quota.
    NoQuota(Role),
    /// The role has more than its limits would be.
    LimitsTooLow {
        /// Which.
        role: Role,
        /// What it has.
        consumed: Arc<str>,
        /// What they would be.
        limits: Arc<str>,
    },
    /// Roles would be guaranteed more than the cluster has.
    Overcommitted {
        /// By a first quota of a role.
        new: bool,
        /// How much.
        guaranteed: Arc<str>,
        /// What it has.
        capacity: Arc<str>,
    },
    /// The agent is offered like any other.
    NotDeactivated(AgentId),
    /// The agent is not empty yet.
    StillDraining(AgentId),
    /// The agent's machine is in the maintenance schedule, by this name.
    AgentScheduled(AgentId, MachineName),
    /// The agent's machine is down.
    MachineDown(MachineName),
    /// The machine is down, and must stay in the schedule.
    MachineIsDown(MachineName),
    /// The machine is not in the schedule.
    NotScheduled(MachineName),
    /// The machine is down already.
    NotDraining(MachineName),
    /// The machine is not down.
    NotDown(MachineName),
    /// Resources cannot be converted so, whatever is free; this says why.
    BadConversion(Arc<str>),
    /// What is to be converted is not free.
    NotFree(Arc<str>),
    /// No such operation, or not this status of it.
    UnknownOperation,
    /// The agent's tasks are not as it said: it must list them.
    TasksChanged,
}

/// How the refusal of a first quota begins that the cluster has not enough for.
pub const OVERCOMMITS: &str = "Quota guarantees overcommit the cluster (use 'force' to bypass this check)";

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StaleTerm { decided, written } => {
                write!(f, "decided in term {decided}, but written in term {written}")
            }
            Self::UnknownFramework(id) => write!(f, "framework {id} is not known"),
            // Existing clients match on this text to drop a stored framework id.
            Self::FrameworkRemoved(_) => f.write_str("Framework has been removed"),
            Self::PrincipalChanged => f.write_str("Changing framework's principal is not allowed."),
            Self::UnknownAgent(id) => write!(f, "agent {id} is not known"),
            Self::AgentGone(id) => {
                write!(f, "agent {id} was marked gone; start it with an empty work directory")
            }
            Self::StaleSession => f.write_str("a newer session exists"),
            Self::NotDue(_) => f.write_str("the disconnection ended, or its deadline lies ahead"),
            Self::UnknownTask => f.write_str("the task is not known"),
            Self::NotTheHead => f.write_str("this is not the update that waits for acknowledgement"),
            Self::UserChanged { from, to } => write!(
                f,
                "Updating 'FrameworkInfo.user' is unsupported; attempted to update from '{from}' to '{to}'"
            ),
            Self::Full(what) => write!(f, "there are as many {what} as there may be: remove some first"),
            // Mesos' words, here and below: operators' tools show them.
            Self::QuotaSet(role) => {
                write!(
                    f,
                    "Failed to validate set quota request: Cannot set quota for role '{role}' which already has \
                     quota"
                )
            }
            Self::NoQuota(role) => write!(f, "Failed to remove quota: Role '{role}' has no quota set"),
            Self::LimitsTooLow { role, consumed, limits } => write!(
                f,
                "Invalid QuotaConfig: Role '{role}' is already consuming '{consumed}'; this is more than the \
                 requested limits '{limits}' (use 'force' flag to bypass this check)"
            ),
            Self::Overcommitted { new: true, guaranteed, capacity } => write!(
                f,
                "{OVERCOMMITS}: Total quota guarantees '{guaranteed}' exceed cluster capacity '{capacity}'"
            ),
            Self::Overcommitted { new: false, guaranteed, capacity } => write!(
                f,
                "Invalid QuotaConfig: total quota guarantees '{guaranteed}' exceed cluster capacity '{capacity}' \
                 (use 'force' flag to bypass this check)"
            ),
            Self::NotDeactivated(_) => f.write_str("Agent is not deactivated"),
            Self::StillDraining(_) => f.write_str("Agent is still in the DRAINING state"),
            Self::AgentScheduled(id, name) => {
                write!(f, "Agent {id} is part of a maintenance schedule under Machine {name}")
            }
            Self::MachineDown(name) => {
                write!(f, "machine {name} is down for maintenance: start this agent when it is up again")
            }
            Self::MachineIsDown(name) => {
                write!(f, "Machine '{name}' is deactivated and cannot be removed from the schedule")
            }
            Self::NotScheduled(name) => {
                write!(f, "Machine '{name}' is not part of a maintenance schedule")
            }
            Self::NotDraining(name) => {
                write!(f, "Machine '{name}' is not in DRAINING mode and cannot be brought down")
            }
            Self::NotDown(name) => write!(f, "Machine '{name}' is not in DOWN mode and cannot be brought up"),
            Self::TasksChanged => f.write_str("the agent's tasks are not as it said"),
            Self::BadConversion(why) | Self::NotFree(why) => f.write_str(why),
            Self::UnknownOperation => f.write_str("the operation is not known, or was acknowledged before"),
            Self::ResourcesInUse(id) => {
                write!(
                    f,
                    "agent {id} came back with fewer resources than its tasks and reservations need; end them or \
                     restore the resources"
                )
            }
        }
    }
}
