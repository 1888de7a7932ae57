//! Operations on resources: ACCEPTs that have some, their statuses, and what operators convert.

use crate::{
    ConnId, Effect, Leader,
    leader::{Accepting, Waiting, tell},
    scheduler::{Asked, Taken, refused, void_task},
};
use muster_model::{
    AcceptOutcome, AgentId, AskedOperation, BadTask, Conversion, FrameworkId, Named, OfferId, Operation,
    OperationBecame, OperationOutcome, OperationState, OperationStatus, Resources, Role, SchedulerEvent,
    TaskOutcome, TaskSpec, Timestamp,
};
use muster_registry::{Agent, AgentState, Command, DoneOperation, Operate, OperateOutcome, Registry};

/// What an operator takes out of a framework's offers is not offered to it again for so long (Mesos).
const OPERATOR_REFUSE_MS: u64 = 5_000;

/// Of an operation whose offers do not stand.
const VOID: &str = "the offer is no longer valid: wait for the next one";

impl Leader {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn operate(
        &mut self,
        registry: &Registry,
        conn: ConnId,
        call: u64,
        framework_id: FrameworkId,
        offer_ids: Vec<OfferId>,
        operations: Vec<(Operation, Vec<Named>)>,
        refuse_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let standing = self.standing(&framework_id, &offer_ids);
        let Some(Taken { offers, agent_id, role }) = self.take_offers(&standing, &offer_ids, None) else {
            let operate = Operate {
                framework_id: framework_id.clone(),
                agent_id: AgentId::new(""),
                role: Role::any(),
                offer_ids,
                offered: Resources::none(),
                operations: operations.into_iter().map(|(operation, _)| operation).collect(),
            };
            let outcome = self.operate_void(registry, &operate);
            self.tell_operations(registry, &framework_id, &outcome.operations, effects);
            return self.tell_accepted(conn, call, &framework_id, None, outcome.tasks, effects);
        };
        let offered = offers.iter().fold(Resources::none(), |sum, it| sum.plus(&it.offer.resources));
        let on_agent = |(operation, named)| on(operation, named, &framework_id, &agent_id);
        let operations: Vec<Operation> = operations.into_iter().map(on_agent).collect();
        let accepting = Accepting {
            conn,
            call,
            framework_id: framework_id.clone(),
            agent_id: agent_id.clone(),
            offers,
            offered: offered.clone(),
            tasks: operations.iter().flat_map(|it| it.tasks().0).cloned().collect(),
            consumed: operations.iter().filter_map(consumed).collect(),
            kinds: operations.iter().filter_map(kind).collect(),
            refuse_ms,
        };
        let operate = Operate { framework_id, agent_id, role, offer_ids, offered, operations };
        self.propose(Command::Operate(Box::new(operate)), Waiting::Accept(Box::new(accepting)), effects);
    }

    /// An ACCEPT whose offers do not stand: answered from the memory of spent offers, else void (`protocol` C10).
    fn operate_void(&mut self, registry: &Registry, operate: &Operate) -> OperateOutcome {
        self.give_back(&operate.framework_id, &operate.offer_ids);
        if let Some(outcome) = registry.remembered_operations(operate) {
            return outcome;
        }
        let mut outcome = OperateOutcome::default();
        for operation in &operate.operations {
            let (tasks, bad) = operation.tasks();
            let asked = BadTask::among(bad, tasks.iter().map(|task| &task.task_id));
            let void = |asked| void_task(registry, &operate.framework_id, asked);
            outcome.tasks.tasks.extend(asked.map(void));
            if let Operation::Convert { id, .. } | Operation::Bad { id, .. } = operation {
                let became = OperationBecame::Refused(VOID.into());
                outcome.operations.push(OperationOutcome { id: id.clone(), became });
            }
        }
        outcome
    }

    /// Tells a framework what became of the operations that it named and that are not done, and once more of those
    /// that are done and that it has not acknowledged.
    pub(crate) fn tell_operations(
        &self,
        registry: &Registry,
        framework_id: &FrameworkId,
        operations: &[OperationOutcome],
        effects: &mut Vec<Effect>,
    ) {
        let Some(session) = self.frameworks.get(framework_id) else { return };
        for operation in operations {
            let Some(id) = &operation.id else { continue };
            let status = match &operation.became {
                OperationBecame::Refused(why) => Some(OperationStatus {
                    id: id.clone(),
                    state: OperationState::Error,
                    message: why.clone(),
                    agent_id: None,
                    uuid: None,
                    converted: Resources::none(),
                    role: None,
                    provider: None,
                }),
                OperationBecame::Finished(uuid) => {
                    registry.operation(framework_id, id).filter(|it| it.uuid == *uuid).map(done)
                }
            };
            if let Some(status) = status {
                tell(session.conn, SchedulerEvent::Operation(Box::new(status)), effects);
            }
        }
    }

    /// An operation is done.
    pub(crate) fn operation_due(&self, operation: &DoneOperation, effects: &mut Vec<Effect>) {
        if let Some(session) = self.frameworks.get(&operation.framework_id) {
            tell(session.conn, SchedulerEvent::Operation(Box::new(done(operation))), effects);
        }
    }

    /// An operator's conversion: offers that stand in its way are taken back first.
    pub(crate) fn convert(
        &mut self,
        now: Timestamp,
        registry: &Registry,
        id: u64,
        agent_id: AgentId,
        conversion: Conversion,
        effects: &mut Vec<Effect>,
    ) {
        self.make_room(now, registry, &agent_id, &conversion.consumed(), effects);
        let waiting = Waiting::Convert { id, kind: conversion.name() };
        self.propose(Command::Convert { agent_id, conversion }, waiting, effects);
    }

    /// Takes back offers of an agent that hold what is needed, one by one, until that is free.
    fn make_room(
        &mut self,
        now: Timestamp,
        registry: &Registry,
        agent_id: &AgentId,
        needed: &Resources,
        effects: &mut Vec<Effect>,
    ) {
        let Some(agent) = registry.agent(agent_id) else { return };
        let mut free = self.free_on(registry, agent);
        for id in self.offers.of_agent(agent_id) {
            let holds_some = self.offers.get(&id).is_some_and(|it| {
                let resources = &it.offer.resources;
                resources.minus(needed) != **resources
            });
            if free.contains(needed) || !holds_some {
                continue;
            }
            let Some(outstanding) = self.offers.take(&id) else { continue };
            let resources = outstanding.offer.resources.clone();
            free.add(&resources);
            self.tell_rescinded(&outstanding.offer, effects);
            self.shards.returned(&outstanding, refused(now, resources, OPERATOR_REFUSE_MS));
        }
    }

    /// What of an agent is neither held nor offered.
    pub(crate) fn free_on(&self, registry: &Registry, agent: &Agent) -> Resources {
        let mut free = registry.total_of(agent).minus(&registry.held_on(&agent.id));
        for id in self.offers.of_agent(&agent.id) {
            if let Some(outstanding) = self.offers.get(&id) {
                free.subtract(&outstanding.offer.resources);
            }
        }
        free
    }

    /// What there is of an agent changed its shape: an offer that was made meanwhile of what is no more is void.
    pub(crate) fn total_changed(
        &mut self,
        registry: &Registry,
        agent_id: &AgentId,
        effects: &mut Vec<Effect>,
    ) {
        self.shards.reshaped(agent_id);
        let Some(agent) = registry.agent(agent_id) else { return };
        let mut free = registry.total_of(agent).minus(&registry.held_on(agent_id));
        for id in self.offers.of_agent(agent_id) {
            let Some(outstanding) = self.offers.get(&id) else { continue };
            if free.contains(&outstanding.offer.resources) {
                free.subtract(&outstanding.offer.resources);
            } else if let Some(outstanding) = self.offers.take(&id) {
                self.tell_rescinded(&outstanding.offer, effects);
                self.shards.returned(&outstanding, None);
            }
        }
    }
}

/// What is said of an operation that is done.
pub(crate) fn done(operation: &DoneOperation) -> OperationStatus {
    OperationStatus {
        id: operation.operation_id.clone(),
        state: OperationState::Finished,
        message: "".into(),
        agent_id: Some(operation.agent_id.clone()),
        uuid: Some(operation.uuid),
        converted: operation.conversion.converted(),
        role: Some(operation.role.clone()),
        provider: None,
    }
}

/// What is said of an operation that a framework asks about.
pub(crate) fn reconciled(
    registry: &Registry,
    framework_id: &FrameworkId,
    asked: AskedOperation,
) -> OperationStatus {
    if let Some(operation) = registry.operation(framework_id, &asked.id) {
        return OperationStatus { uuid: None, ..done(operation) };
    }
    let agent = asked.agent_id.as_ref().and_then(|id| registry.agent(id)).map(|agent| agent.state);
    let state = match agent {
        Some(AgentState::Unreachable { .. }) => OperationState::Unreachable,
        Some(AgentState::Gone { .. }) => OperationState::GoneByOperator,
        _ => OperationState::Unknown,
    };
    let message = match asked.agent_id {
        Some(_) => "Reconciliation: Operation is unknown",
        None => "Reconciliation: Operation is unknown and no 'agent_id' was provided",
    };
    OperationStatus {
        id: asked.id,
        state,
        message: message.into(),
        agent_id: asked.agent_id,
        uuid: None,
        converted: Resources::none(),
        role: None,
        provider: asked.provider,
    }
}

/// What an operation that is no launch takes, once it is done.
fn consumed(operation: &Operation) -> Option<Resources> {
    match operation {
        Operation::Launch { .. } | Operation::LaunchGroup { .. } => None,
        Operation::Convert { conversion, .. } => Some(conversion.consumed()),
        Operation::Bad { .. } => Some(Resources::none()),
    }
}

/// What an operation that is no launch is called; nothing where that is not known of a bad one.
fn kind(operation: &Operation) -> Option<&'static str> {
    match operation {
        Operation::Launch { .. } | Operation::LaunchGroup { .. } => None,
        Operation::Convert { conversion, .. } => Some(conversion.name()),
        Operation::Bad { .. } => Some(""),
    }
}

/// On offers of this agent: tasks that name another one are bad.
fn on(operation: Operation, named: Vec<Named>, framework_id: &FrameworkId, agent_id: &AgentId) -> Operation {
    let sorted = |tasks: Vec<TaskSpec>, bad: Vec<BadTask>| {
        let asked = Asked { tasks, named, bad }.on(framework_id, agent_id);
        (asked.tasks, asked.bad)
    };
    match operation {
        Operation::Launch { tasks, bad } => {
            let (tasks, bad) = sorted(tasks, bad);
            Operation::Launch { tasks, bad }
        }
        Operation::LaunchGroup { tasks, bad } => {
            let (tasks, bad) = sorted(tasks, bad);
            Operation::LaunchGroup { tasks, bad }
        }
        other => other,
    }
}

impl Accepting {
    /// What is left of the offers, but for what was made of them: that is offered again at once.
    pub(crate) fn left(&mut self, tasks: &AcceptOutcome, operations: &[OperationOutcome]) -> Resources {
        let mut left = std::mem::take(&mut self.offered);
        for (task_id, became) in &tasks.tasks {
            if let TaskOutcome::Launched(_) = became
                && let Some(spec) = self.tasks.iter().find(|spec| spec.task_id == *task_id)
            {
                left.subtract(&spec.resources);
            }
        }
        for (consumed, outcome) in self.consumed.iter().zip(operations) {
            if let OperationBecame::Finished(_) = outcome.became {
                left.subtract(consumed);
            }
        }
        left
    }
}
