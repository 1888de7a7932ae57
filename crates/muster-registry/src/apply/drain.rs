//! Agents that are not to be offered, and such as are emptied.

use crate::{Change, Drain, DrainState, Duty, Kill, Outcome, Refusal, Registry, Task, registry::Context};
use muster_model::{AgentId, Reason, TaskState};

impl Registry {
    pub(crate) fn deactivate_agent(&mut self, id: &AgentId, to: &mut Context<'_>) -> Outcome {
        if let Some(refusal) = self.is_out_of_reach(id) {
            return Outcome::Refused(refusal);
        }
        if !self.duties.contains(id) {
            self.set_duty(id, Duty::default(), to);
        }
        Outcome::Done
    }

    pub(crate) fn reactivate_agent(&mut self, id: &AgentId, to: &mut Context<'_>) -> Outcome {
        let Some(duty) = self.duties.get(id) else {
            return Outcome::Refused(Refusal::NotDeactivated(id.clone()));
        };
        if duty.is_draining() {
            return Outcome::Refused(Refusal::StillDraining(id.clone()));
        }
        self.duties.remove(id);
        if self.is_offerable(id) {
            to.changes.push(Change::AgentOfferable { agent_id: id.clone(), offerable: true });
        }
        Outcome::Done
    }

    /// An agent takes no more tasks, and those that it has are killed. Asked again, it is begun again.
    pub(crate) fn drain_agent(
        &mut self,
        id: &AgentId,
        max_grace_ms: Option<u64>,
        mark_gone: bool,
        to: &mut Context<'_>,
    ) -> Outcome {
        if let Some(refusal) = self.is_out_of_reach(id) {
            return Outcome::Refused(refusal);
        }
        if let Some(name) = self.scheduled_as(id) {
            return Outcome::Refused(Refusal::AgentScheduled(id.clone(), name));
        }
        let drain = Drain { max_grace_ms, mark_gone, started: self.header.wall, state: DrainState::Draining };
        self.set_duty(id, Duty { drain: Some(drain) }, to);
        let connected = self.agents.get(id).is_some_and(|agent| agent.is_connected());
        let held = self.copies_of_agent(id).into_iter().filter(|task| task.held);
        for mut task in held {
            let kill = Kill { index: to.index, grace_ms: grace_of(&task, max_grace_ms) };
            let is_sooner = |former: Kill| match (former.grace_ms.or(task.grace_ms), kill.grace_ms) {
                (Some(former), Some(grace)) => grace < former,
                (None, grace) => grace.is_some(),
                (Some(_), None) => false,
            };
            if task.kill().is_some_and(|former| !is_sooner(former)) {
                continue;
            }
            task.change(|rest| rest.kill = Some(kill));
            if let Some(task) = self.put_task(task, to)
                && connected
            {
                to.changes.push(Change::KillDue(task));
            }
        }
        to.emptied.push(id.clone());
        Outcome::Done
    }

    /// Nothing can be asked of an agent that will never come back.
    fn is_out_of_reach(&self, id: &AgentId) -> Option<Refusal> {
        let is_here = self.agents.get(id).is_some_and(|agent| !agent.is_gone());
        (!is_here).then(|| Refusal::UnknownAgent(id.clone()))
    }

    fn set_duty(&mut self, id: &AgentId, duty: Duty, to: &mut Context<'_>) {
        let was_offerable = self.is_offerable(id);
        self.duties.put(id.clone(), duty);
        if was_offerable {
            to.changes.push(Change::AgentOfferable { agent_id: id.clone(), offerable: false });
        }
    }

    /// Agents on which something ended may be empty by now.
    pub(crate) fn finish_drains(&mut self, to: &mut Context<'_>) {
        for id in std::mem::take(&mut to.emptied) {
            let Some(drain) = self.draining(&id) else { continue };
            if self.has_something(&id) {
                continue;
            }
            if drain.mark_gone {
                self.remove_agent(&id, TaskState::GoneByOperator, Reason::AgentRemovedByOperator, to);
            } else {
                self.duties.update(&id, |duty| {
                    duty.drain = duty.drain.take().map(|it| Drain { state: DrainState::Drained, ..it });
                });
            }
        }
    }

    fn draining(&self, id: &AgentId) -> Option<&Drain> {
        self.duties.get(id).filter(|duty| duty.is_draining())?.drain.as_ref()
    }

    /// Whether an agent has tasks, or such as wait for an acknowledgement, or strays.
    pub(crate) fn has_something(&self, id: &AgentId) -> bool {
        self.index.tasks_of_agent.contains_key(id)
            || self.agents.get(id).is_some_and(|agent| !agent.strays.is_empty())
    }
}

/// How long a task of a draining agent may take to end by itself: as it says, but no longer than any may.
fn grace_of(task: &Task, max_grace_ms: Option<u64>) -> Option<u64> {
    max_grace_ms.filter(|most| task.grace_ms.is_none_or(|own| *most < own))
}
