//! ACCEPTs that have more than launches of single tasks: each operation works on what those before it left.

use super::{
    convert::Asking,
    launch::{Names, No, USED_BEFORE, remembered_task},
};
use crate::{
    Change, DoneOperation, Group, Operate, OperateOutcome, Outcome, Refusal, Registry, registry::Context,
};
use muster_model::{
    AcceptOutcome, BadTask, Conversion, FrameworkId, LaunchNumber, Operation, OperationBecame, OperationId,
    OperationOutcome, Reason, Resources, Sealed, TaskGroup, TaskOutcome, TaskSpec, TaskState, Uuid,
};
use std::collections::BTreeSet;

/// The most operations of a framework that wait for its acknowledgement.
const OPERATIONS_MAX: usize = 1_000;

impl Registry {
    pub(crate) fn operate(&mut self, operate: &Operate, to: &mut Context<'_>) -> Outcome {
        let names = match self.names(&operate.framework_id, &operate.agent_id, &operate.role) {
            Ok(names) => names,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        if let Some(outcome) = self.remembered_operations(operate) {
            return Outcome::Operated(outcome);
        }
        let mut left = operate.offered.clone();
        let mut outcome = OperateOutcome::default();
        for operation in &operate.operations {
            match operation {
                Operation::Launch { tasks, bad } => {
                    self.launch_each(&names, tasks, bad, &mut left, &mut outcome.tasks, to);
                }
                Operation::LaunchGroup { tasks, bad } => {
                    self.launch_group(&names, tasks, bad, &mut left, &mut outcome.tasks, to);
                }
                Operation::Convert { id, conversion, sealed } => {
                    let became = self.convert_offered(&names, id.as_ref(), conversion, sealed, &mut left, to);
                    let became = match became {
                        Ok(uuid) => OperationBecame::Finished(uuid),
                        Err(why) => OperationBecame::Refused(why.into()),
                    };
                    outcome.operations.push(OperationOutcome { id: id.clone(), became });
                }
                Operation::Bad { id, why } => {
                    let became = OperationBecame::Refused(why.clone());
                    outcome.operations.push(OperationOutcome { id: id.clone(), became });
                }
            }
        }
        if let Some(seq) = self.remember_spent(&names, &operate.offer_ids, &outcome.tasks, to)
            && !outcome.operations.is_empty()
        {
            self.spent_operations.put(seq, outcome.operations.clone());
        }
        Outcome::Operated(outcome)
    }

    /// The answer to a repeated ACCEPT, as [`Registry::remembered`] gives it for one that only launches.
    pub fn remembered_operations(&self, operate: &Operate) -> Option<OperateOutcome> {
        let (seq, spent) = self.spent_by(&operate.offer_ids)?;
        let ours = spent.framework_id == operate.framework_id;
        let before = self.spent_operations.get(&seq).filter(|_| ours);
        let mut before = before.iter().flat_map(|all| all.iter());
        let mut outcome = OperateOutcome::default();
        for operation in &operate.operations {
            let (tasks, bad) = operation.tasks();
            let asked = BadTask::among(bad, tasks.iter().map(|task| &task.task_id));
            outcome.tasks.tasks.extend(asked.map(|asked| remembered_task(spent, ours, asked)));
            if let Operation::Convert { id, .. } | Operation::Bad { id, .. } = operation {
                let known = before.next().filter(|known| known.id == *id).cloned();
                let used = || OperationBecame::Refused(USED_BEFORE.into());
                outcome
                    .operations
                    .push(known.unwrap_or_else(|| OperationOutcome { id: id.clone(), became: used() }));
            }
        }
        Some(outcome)
    }

    /// Converts resources out of what is left of the offers.
    fn convert_offered(
        &mut self,
        names: &Names,
        id: Option<&OperationId>,
        conversion: &Conversion,
        sealed: &Sealed,
        left: &mut Resources,
        to: &mut Context<'_>,
    ) -> Result<Uuid, String> {
        let agent = self.check_agent(names).map_err(|no| no.message)?;
        let key = id.map(|id| (names.framework_id.clone(), id.clone()));
        if let Some(key) = &key {
            if self.operations.contains(key) {
                return Err(format!("operation id {} is in use: choose another, or acknowledge it", key.1));
            }
            if self.operations_of(&names.framework_id).take(OPERATIONS_MAX).count() >= OPERATIONS_MAX {
                return Err(format!(
                    "{OPERATIONS_MAX} operations wait for acknowledgement: acknowledge some"
                ));
            }
        }
        let Some(framework) = self.frameworks.get(&names.framework_id) else {
            return Err(Refusal::UnknownFramework(names.framework_id.clone()).to_string());
        };
        self.check(agent, conversion, &Asking::Framework(framework, &names.role))?;
        let (consumed, converted) = (conversion.consumed(), conversion.converted());
        if !left.contains(&consumed) {
            return Err(format!("'{left}' does not contain '{consumed}'"));
        }
        let room = self.room_on(agent);
        if !room.contains(&consumed) {
            return Err(format!("agent {} has only '{room}' left, not '{consumed}'", agent.id));
        }
        self.convert(agent, conversion, to);
        left.convert(&consumed, &converted);
        let uuid = Uuid::of_operation(self.next_launch(to));
        if let Some(key) = key {
            let operation = DoneOperation {
                framework_id: key.0.clone(),
                operation_id: key.1.clone(),
                agent_id: names.agent_id.clone(),
                role: names.role.clone(),
                uuid,
                conversion: conversion.clone(),
                sealed: sealed.clone(),
                done: self.header.wall,
            };
            let operation = self.operations.put(key, operation);
            to.changes.push(Change::OperationDue(operation));
        }
        Ok(uuid)
    }

    pub(crate) fn acknowledge_operation(
        &mut self,
        framework_id: &FrameworkId,
        operation_id: &OperationId,
        uuid: Uuid,
    ) -> Outcome {
        let key = (framework_id.clone(), operation_id.clone());
        match self.operations.get(&key) {
            Some(operation) if operation.uuid == uuid => {
                self.operations.remove(&key);
                Outcome::Done
            }
            _ => Outcome::Refused(Refusal::UnknownOperation),
        }
    }

    pub(crate) fn forget_operations_of(&mut self, id: &FrameworkId) {
        let keys: Vec<_> =
            self.operations_of(id).map(|it| (it.framework_id.clone(), it.operation_id.clone())).collect();
        keys.iter().for_each(|key| drop(self.operations.remove(key)));
    }

    /// Launches tasks together, all of them or none.
    fn launch_group(
        &mut self,
        names: &Names,
        tasks: &[TaskSpec],
        bad: &[BadTask],
        left: &mut Resources,
        outcome: &mut AcceptOutcome,
        to: &mut Context<'_>,
    ) {
        match self.check_group(names, tasks, bad, left) {
            Ok(needed) => {
                left.subtract(&needed);
                let mut first = None;
                for spec in tasks {
                    let number = self.launch_task(names, spec, to);
                    first.get_or_insert(number);
                    outcome.tasks.push((spec.task_id.clone(), TaskOutcome::Launched(number)));
                }
                if let Some(first) = first {
                    let size = tasks.len() as u32;
                    self.groups.put(first, Group { size, left: size });
                }
            }
            Err(no) => {
                let no = no.outcome();
                for asked in BadTask::among(bad, tasks) {
                    let task_id = asked.map_or_else(|bad| &bad.task_id, |spec| &spec.task_id);
                    outcome.tasks.push((task_id.clone(), no.clone()));
                }
            }
        }
    }

    /// Whether all tasks of a group may be launched out of `left`, and what they and a new executor take.
    fn check_group(
        &self,
        names: &Names,
        tasks: &[TaskSpec],
        bad: &[BadTask],
        left: &Resources,
    ) -> Result<Resources, No> {
        let invalid = |no: No| match no.state {
            TaskState::Error => No { reason: Reason::TaskGroupInvalid, ..no },
            _ => no,
        };
        let agent = self.check_agent(names)?;
        if let Some(bad) = bad.first() {
            return Err(invalid(No::error(bad.why.to_string())));
        }
        let (mut needed, mut new_executor) = (Resources::none(), None);
        let mut ids = BTreeSet::new();
        for spec in tasks {
            if !ids.insert(&spec.task_id) {
                return Err(invalid(No::error(format!(
                    "task id {} occurs twice in the group",
                    spec.task_id
                ))));
            }
            new_executor = self.check_task(names, spec).map_err(invalid)?;
            needed.add(&spec.resources);
        }
        if let Some(executor) = new_executor {
            needed.add(&executor.resources);
        }
        self.check_room(agent, &needed, left, &"the task group").map_err(invalid)?;
        Ok(needed)
    }

    /// A task is over: when it was the last of its group that was not, the group is forgotten.
    pub(super) fn leave_group(&mut self, launch: LaunchNumber) {
        let Some(TaskGroup { first, .. }) = self.group_of(launch) else { return };
        let left = self.groups.update(&first, |group| group.left = group.left.saturating_sub(1));
        if left.is_some_and(|group| group.left == 0) {
            self.groups.remove(&first);
        }
    }
}
