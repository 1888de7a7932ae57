//! Updates, acknowledgements and kills.

use crate::{Change, Kill, Outcome, QueuedUpdate, Refusal, Registry, Task, registry::Context, task::Rest};
use muster_fault::planted;
use muster_model::{
    AgentId, LaunchNumber, Reason, Sealed, Source, Status, StatusUpdate, TaskKey, TaskState, Uuid,
};
use std::sync::Arc;

/// The longest sealed status that is kept beyond its acknowledgement, in bytes: one with health, checks and addresses, but
/// not much data.
pub const TOLD_BYTES_MAX: usize = 4 << 10;
/// Updates that the registry makes are numbered from here, agents' from 1.
const OWN_UPDATES: u32 = 1 << 31;

impl Registry {
    pub(crate) fn accepted(&mut self, agent_id: &AgentId, launches: &[LaunchNumber]) -> Outcome {
        let Some(of_agent) = self.index.tasks_of_agent.get_mut(agent_id) else { return Outcome::Done };
        for launch in launches {
            let Some(origin) = of_agent.get(launch).cloned() else { continue };
            let Some(before) = self.tasks.get(&origin.key).filter(|task| !task.accepted) else { continue };
            let before = before.standing();
            if let Some(task) = self.tasks.update(&origin.key, |task| Arc::make_mut(task).accepted = true) {
                of_agent.restand(*launch, before, task.standing());
            }
        }
        Outcome::Done
    }

    pub(crate) fn status(
        &mut self,
        agent_id: &AgentId,
        update: &StatusUpdate,
        to: &mut Context<'_>,
    ) -> Outcome {
        let Some(task) = self.tasks.get(&update.task).filter(|task| task.launch == update.launch) else {
            if update.status.state.is_terminal() {
                self.ended(agent_id, update.launch, to);
            }
            return Outcome::Confirmed; // nobody waits for it any more
        };
        if task.agent_id != *agent_id || update.seq <= task.last_seq {
            return Outcome::Confirmed;
        }
        let mut task = (**task).clone();
        self.take_update(&mut task, update, to);
        self.put_task(task, to);
        Outcome::Confirmed
    }

    /// Takes an agent's update into a task's record.
    pub(crate) fn take_update(&mut self, task: &mut Task, update: &StatusUpdate, to: &mut Context<'_>) {
        task.accepted = true;
        task.last_seq = update.seq;
        let status = &update.status;
        if !task.state.is_terminal() {
            task.state = status.state;
            task.change(|rest| rest.message = status.message.clone());
            task.updated = self.header.wall;
            match (1..=TOLD_BYTES_MAX).contains(&status.sealed.len()) {
                true => drop(self.told.put(&task.key, status.sealed.clone())),
                false => drop(self.told.remove(&task.key)),
            }
            self.queue_update(task, update.uuid, status.clone(), to);
        }
        if status.state.is_terminal() || (planted!(CountTwice) && status.state == TaskState::Running) {
            self.let_go(task, to);
        }
    }

    /// Puts an update at the end of a task's queue. The head is never replaced; of the others the newest of
    /// each state is kept, and at the limit the oldest that is not the head makes room.
    fn queue_update(&self, task: &mut Task, uuid: Uuid, status: Status, to: &mut Context<'_>) {
        if !self.frameworks.contains(&task.key.framework_id) {
            return; // nobody will ever acknowledge it
        }
        let most = (self.header.limits.updates_per_task as usize).max(2);
        task.change(|Rest { updates, .. }| {
            if let Some(at) = updates.iter().skip(1).position(|it| it.status.state == status.state) {
                updates.remove(at + 1);
            }
            if updates.len() >= most {
                updates.remove(1);
            }
            updates.reserve_exact(1); // most tasks have one that waits
            updates.push(QueuedUpdate { uuid, status });
        });
        if task.updates().len() == 1 {
            to.changes.extend(head_due(task));
        }
    }

    /// An update that the registry itself makes.
    pub(crate) fn own_update(
        &self,
        task: &mut Task,
        state: TaskState,
        reason: Reason,
        message: &str,
        to: &mut Context<'_>,
    ) {
        task.state = state;
        task.change(|rest| rest.message = message.into());
        task.updated = self.header.wall;
        task.own_updates += 1;
        let status = Status {
            state,
            source: Source::Master,
            reason: Some(reason),
            message: message.into(),
            wall: self.header.wall,
            sealed: Sealed::default(),
        };
        let uuid = Uuid::of(task.launch, OWN_UPDATES + task.own_updates);
        self.queue_update(task, uuid, status, to);
    }

    pub(crate) fn ended(
        &mut self,
        agent_id: &AgentId,
        launch: LaunchNumber,
        to: &mut Context<'_>,
    ) -> Outcome {
        let mut ended = None;
        if self.agents.get(agent_id).is_some_and(|agent| agent.strays.contains_key(&launch)) {
            self.agents.update(agent_id, |agent| ended = agent.strays.remove(&launch));
        }
        if let Some(stray) = ended {
            self.release(agent_id, None, &stray.resources, to);
            to.emptied.push(agent_id.clone());
        }
        Outcome::Confirmed
    }

    pub(crate) fn acknowledge(&mut self, key: &TaskKey, uuid: Uuid, to: &mut Context<'_>) -> Outcome {
        let Some(task) = self.tasks.get(key) else { return Outcome::Refused(Refusal::UnknownTask) };
        if task.updates().first().is_none_or(|head| head.uuid != uuid) {
            return Outcome::Refused(Refusal::NotTheHead);
        }
        let mut task = (**task).clone();
        task.change(|rest| drop(rest.updates.remove(0)));
        to.changes.extend(head_due(&task));
        self.put_task(task, to);
        Outcome::Done
    }

    pub(crate) fn kill(&mut self, key: &TaskKey, grace_ms: Option<u64>, to: &mut Context<'_>) -> Outcome {
        let Some(task) = self.tasks.get(key) else { return Outcome::Refused(Refusal::UnknownTask) };
        if !task.held || planted!(LoseKill) {
            return Outcome::Done; // it ended already; the update is on its way
        }
        let before = task.standing();
        let connected = self.agents.get(&task.agent_id).is_some_and(|agent| agent.is_connected());
        let kill = Kill { index: to.index, grace_ms };
        let change = |task: &mut Arc<Task>| Arc::make_mut(task).change(|rest| rest.kill = Some(kill));
        if let Some(task) = self.tasks.update(key, change).cloned() {
            self.restand(&task, before);
            if connected {
                to.changes.push(Change::KillDue(task));
            }
        }
        Outcome::Done
    }
}

/// The change that tells a framework of the head of a task's queue.
fn head_due(task: &Task) -> Option<Change> {
    let head = task.updates().first()?;
    Some(Change::UpdateDue {
        task: task.key.clone(),
        agent_id: task.agent_id.clone(),
        uuid: head.uuid,
        status: head.status.clone(),
    })
}
