//! What was made of an agent's resources while it was there: reservations and persistent volumes.

use crate::{Agent, Registry};
use muster_model::{
    AgentId, Conversion, FrameworkId, Label, LaunchNumber, OperationId, Resources, Role, Sealed, TaskGroup,
    Uuid, VolumeId, VolumeMount, VolumeNumber, WallTime,
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap};

/// What was made of an agent's resources. What it was made of is known by the labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Carved {
    /// What is there now.
    pub made: Resources,
    /// The numbers of the volumes among it, by role and name.
    pub volumes: BTreeMap<(Role, VolumeId), VolumeNumber>,
}

impl Carved {
    /// What the agent has to come with for this to be made of it.
    pub fn origin(&self) -> Resources {
        self.made.relabelled(|label| label.and_then(|label| label.origin()))
    }

    /// All that there is of an agent that comes with these resources; none if this cannot be made of them.
    pub(crate) fn of(&self, given: &Resources) -> Option<Resources> {
        let mut total = given.clone();
        total.convert(&self.origin(), &self.made).then_some(total)
    }

    /// The number of the volume under a label.
    fn volume(&self, label: &Label) -> Option<VolumeNumber> {
        let (role, volume) = (label.reserved_role()?, label.volume.as_ref()?);
        self.volumes.get(&(role.clone(), volume.id.clone())).copied()
    }
}

/// An operation that is done, until its framework has acknowledged that.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DoneOperation {
    /// Whose.
    pub framework_id: FrameworkId,
    /// Its framework's name for it.
    pub operation_id: OperationId,
    /// On which agent.
    pub agent_id: AgentId,
    /// In which role.
    pub role: Role,
    /// What to acknowledge.
    pub uuid: Uuid,
    /// What was done.
    pub conversion: Conversion,
    /// The whole `mesos.v1.Offer.Operation`.
    pub sealed: Sealed,
    /// When, for display.
    pub done: WallTime,
}

/// Tasks that were launched together, while any of them is not over.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Group {
    /// How many they were.
    pub size: u32,
    /// How many are not over.
    pub left: u32,
}

impl Registry {
    /// All that there is of an agent: what it came with, and what was made of it.
    pub fn total_of<'a>(&self, agent: &'a Agent) -> Cow<'a, Resources> {
        let given = &agent.info.resources;
        // It was looked at when the agent came that what was made can be made of what it came with.
        match self.carved.get(&agent.id).and_then(|carved| carved.of(given)) {
            Some(total) => Cow::Owned(total),
            None => Cow::Borrowed(given),
        }
    }

    /// What was made of an agent's resources.
    pub fn carved(&self, id: &AgentId) -> Option<&Carved> {
        self.carved.get(id).map(|carved| &**carved)
    }

    /// The numbers of the volumes that there are on an agent, ascending.
    pub fn volumes_on(&self, id: &AgentId) -> Vec<VolumeNumber> {
        let volumes = self.carved(id).into_iter().flat_map(|carved| carved.volumes.values().copied());
        let mut numbers: Vec<_> = volumes.collect();
        numbers.sort_unstable();
        numbers
    }

    /// The volumes among resources that are used on an agent, by a task or by its executor.
    pub fn mounts(&self, id: &AgentId, used: &Resources, executor: bool) -> Vec<VolumeMount> {
        let Some(carved) = self.carved.get(id) else { return Vec::new() };
        let mount = |label: &Label| {
            let volume = label.volume.as_ref()?;
            Some(VolumeMount {
                number: carved.volume(label)?,
                container_path: volume.container_path.clone(),
                read_only: volume.read_only,
                executor,
            })
        };
        used.iter_labelled().filter_map(|(_, label, _)| label.and_then(mount)).collect()
    }

    /// The group that a launch belongs to, while it has a task that is not over.
    pub fn group_of(&self, launch: LaunchNumber) -> Option<TaskGroup> {
        let (first, group) = self.groups.at_or_before(&launch)?;
        Some(TaskGroup { first: *first, size: group.size }).filter(|group| group.has(launch))
    }

    /// Operations that are done and not acknowledged, by framework and name.
    pub fn operations(&self) -> impl Iterator<Item = &DoneOperation> {
        self.operations.values().map(|operation| &**operation)
    }

    /// Those of a framework, by name.
    pub fn operations_of<'a>(&'a self, id: &'a FrameworkId) -> impl Iterator<Item = &'a DoneOperation> {
        let first = (id.clone(), OperationId::new(""));
        self.operations
            .range(first..)
            .map(|(_, operation)| &**operation)
            .take_while(move |operation| operation.framework_id == *id)
    }

    /// One of a framework's.
    pub fn operation(&self, id: &FrameworkId, operation_id: &OperationId) -> Option<&DoneOperation> {
        self.operations.get(&(id.clone(), operation_id.clone())).map(|operation| &**operation)
    }
}
