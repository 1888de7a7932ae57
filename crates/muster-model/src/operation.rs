//! What an ACCEPT may ask for besides launches: reservations made and undone, persistent volumes made and destroyed.

use crate::{AgentId, BadTask, Label, OperationId, Resources, Role, Sealed, TaskSpec, Uuid};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// Turns resources of an agent into others, as much of each kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Conversion {
    /// These come to be reserved as they say.
    Reserve(Resources),
    /// These lose their last reservation.
    Unreserve(Resources),
    /// These volumes come to be.
    Create(Resources),
    /// These volumes cease to be.
    Destroy(Resources),
    /// Reserve what is reserved otherwise, or not at all: in one step, so that nobody else gets it in between.
    Rereserve {
        /// As it is.
        from: Resources,
        /// As it is to be.
        to: Resources,
    },
}

impl Conversion {
    /// What it names: as it is to be for what is made, as it is for what is undone.
    pub fn named(&self) -> &Resources {
        match self {
            Self::Reserve(it) | Self::Unreserve(it) | Self::Create(it) | Self::Destroy(it) => it,
            Self::Rereserve { to, .. } => to,
        }
    }

    /// What it takes.
    pub fn consumed(&self) -> Resources {
        match self {
            Self::Reserve(it) => it.relabelled(|label| label.and_then(Label::unreserved)),
            Self::Create(it) => it.relabelled(|label| label.and_then(Label::without_volume)),
            Self::Unreserve(it) | Self::Destroy(it) => it.clone(),
            Self::Rereserve { from, .. } => from.clone(),
        }
    }

    /// What it gives for that.
    pub fn converted(&self) -> Resources {
        match self {
            Self::Unreserve(it) => it.relabelled(|label| label.and_then(Label::unreserved)),
            Self::Destroy(it) => it.relabelled(|label| label.and_then(Label::without_volume)),
            Self::Reserve(it) | Self::Create(it) => it.clone(),
            Self::Rereserve { to, .. } => to.clone(),
        }
    }

    /// The Mesos name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reserve(_) | Self::Rereserve { .. } => "RESERVE",
            Self::Unreserve(_) => "UNRESERVE",
            Self::Create(_) => "CREATE",
            Self::Destroy(_) => "DESTROY",
        }
    }
}

/// One of the things that an ACCEPT asks for, each out of what those before it left of the offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Launch tasks, each by itself.
    Launch {
        /// The tasks.
        tasks: Vec<TaskSpec>,
        /// Tasks that are described wrongly, by place; the others are launched without them.
        bad: Vec<BadTask>,
    },
    /// Launch tasks together, all of them or none.
    LaunchGroup {
        /// The tasks; all name one executor.
        tasks: Vec<TaskSpec>,
        /// Tasks that are described wrongly, by place: then none is launched.
        bad: Vec<BadTask>,
    },
    /// Convert resources.
    Convert {
        /// The framework's name for it; without one it is told nothing of what became of it.
        id: Option<OperationId>,
        /// What to do.
        conversion: Conversion,
        /// The whole `mesos.v1.Offer.Operation`.
        sealed: Sealed,
    },
    /// Something that is described wrongly, or cannot be done here.
    Bad {
        /// The framework's name for it.
        id: Option<OperationId>,
        /// What is wrong.
        why: Arc<str>,
    },
}

impl Operation {
    /// Its tasks and those that are described wrongly.
    pub fn tasks(&self) -> (&[TaskSpec], &[BadTask]) {
        match self {
            Self::Launch { tasks, bad } | Self::LaunchGroup { tasks, bad } => (tasks, bad),
            Self::Convert { .. } | Self::Bad { .. } => (&[], &[]),
        }
    }
}

/// What became of an operation that is no launch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OperationOutcome {
    /// The framework's name for it.
    pub id: Option<OperationId>,
    /// What became of it.
    pub became: OperationBecame,
}

/// Done or not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OperationBecame {
    /// It is done; this names its status, which the framework acknowledges if it named the operation.
    Finished(Uuid),
    /// It is not done, and why.
    Refused(Arc<str>),
}

/// An operation's state, as far as an operation comes to it here: it is done once it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OperationState {
    /// Done.
    Finished,
    /// Not done, and never will be.
    Error,
    /// Not known here.
    Unknown,
    /// Not known here, and its agent does not answer.
    Unreachable,
    /// Not known here, and its agent is gone.
    GoneByOperator,
}

impl OperationState {
    /// The Mesos name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Finished => "OPERATION_FINISHED",
            Self::Error => "OPERATION_ERROR",
            Self::Unknown => "OPERATION_UNKNOWN",
            Self::Unreachable => "OPERATION_UNREACHABLE",
            Self::GoneByOperator => "OPERATION_GONE_BY_OPERATOR",
        }
    }
}

impl fmt::Display for OperationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a framework is told of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationStatus {
    /// The framework's name for it.
    pub id: OperationId,
    /// Its state.
    pub state: OperationState,
    /// For people.
    pub message: Arc<str>,
    /// On which agent, where known.
    pub agent_id: Option<AgentId>,
    /// What to acknowledge, or none.
    pub uuid: Option<Uuid>,
    /// What came of it.
    pub converted: Resources,
    /// The role that the resources are for, where known.
    pub role: Option<Role>,
    /// The resource provider that was asked about.
    pub provider: Option<Arc<str>>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{Reservation, Value, Volume, VolumeId};

    fn disk(roles: &[&str], volume: Option<Volume>) -> Resources {
        let of = |role: &&str| Reservation {
            dynamic: true,
            role: Role::parse(role).unwrap(),
            principal: None,
            labels: Vec::new(),
        };
        let label = Label { reservations: roles.iter().map(of).collect(), volume };
        let mut all = Resources::none();
        all.insert_labelled("disk", Some(Arc::new(label)), Value::Scalar(5_000));
        all
    }

    #[test]
    fn what_is_made_is_undone_by_its_opposite() {
        let (outer, inner) = (disk(&["a"], None), disk(&["a", "a/b"], None));
        assert_eq!(Conversion::Reserve(outer.clone()).consumed(), Resources::parse("disk:5").unwrap());
        assert_eq!(Conversion::Reserve(inner.clone()).consumed(), outer);
        assert_eq!(Conversion::Unreserve(inner.clone()).converted(), outer);
        let volume = Volume {
            id: VolumeId::new("db"),
            principal: None,
            container_path: "data".into(),
            read_only: false,
        };
        let made = disk(&["a", "a/b"], Some(volume));
        assert_eq!(Conversion::Create(made.clone()).consumed(), inner);
        assert_eq!(Conversion::Destroy(made).converted(), inner);
    }
}
