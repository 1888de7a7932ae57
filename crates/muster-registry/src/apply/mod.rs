//! How each command is carried out, by noun; and what all of them share.

mod agent;
mod convert;
mod drain;
mod executor;
mod framework;
mod launch;
mod maintenance;
mod newcomer;
mod operate;
mod prune;
mod role;
mod task;

use crate::{
    Account, Agent, AgentState, BeginTerm, Change, Connection, Disconnection, Outcome, Registry, Task,
    registry::Context,
    task::{AgentTasks, Standing},
};
use muster_fault::planted;
use muster_model::{AgentId, Index, LaunchNumber, Resources, Session};
use std::sync::Arc;

pub use maintenance::MACHINES_MAX;
pub(crate) use maintenance::scheduled;
pub use task::TOLD_BYTES_MAX;

impl Registry {
    /// A leader begins: whoever was connected was connected to another one.
    pub(crate) fn begin_term(&mut self, begin: &BeginTerm, to: &mut Context<'_>) -> Outcome {
        let grace = begin.reconnect_grace_ms;
        let timeouts: Vec<_> =
            self.frameworks.values().map(|it| (it.id.clone(), it.info.failover_timeout_ms)).collect();
        for (id, timeout_ms) in timeouts {
            self.frameworks.update(&id, |framework| {
                let disconnection = match framework.connection {
                    Connection::Connected => Disconnection::new(to.index, to.now, timeout_ms),
                    Connection::Disconnected(disconnection) => disconnection,
                };
                framework.connection = Connection::Disconnected(disconnection.grace(to.now, grace));
            });
        }
        let timeout_ms = self.header.limits.agent_timeout_ms;
        let ids: Vec<_> =
            self.agents.values().filter(|it| it.lost_since().is_none()).map(|it| it.id.clone()).collect();
        for id in ids {
            self.agents.update(&id, |agent| {
                let disconnection = match agent.state {
                    AgentState::Disconnected(disconnection) => disconnection,
                    _ => Disconnection::new(to.index, to.now, timeout_ms),
                };
                agent.state = AgentState::Disconnected(disconnection.grace(to.now, grace));
            });
        }
        if planted!(DropUpdates) {
            self.drop_updates(to);
        }
        if planted!(ForgetLaunches) {
            self.forget_launches(to);
        }
        to.changes.push(Change::TermBegan);
        Outcome::Done
    }

    /// A planted bug.
    fn drop_updates(&mut self, to: &mut Context<'_>) {
        let tasks: Vec<_> = self.tasks.values().map(|task| (**task).clone()).collect();
        for mut task in tasks {
            task.change(|rest| rest.updates.clear());
            self.put_task(task, to);
        }
    }

    /// A planted bug.
    fn forget_launches(&mut self, to: &mut Context<'_>) {
        let waiting = self.tasks.values().filter(|task| !task.accepted);
        for mut task in waiting.map(|task| (**task).clone()).collect::<Vec<_>>() {
            self.let_go(&mut task, to);
            self.leave_group(task.launch);
            self.tasks.remove(&task.key);
            self.told.remove(&task.key);
        }
    }

    pub(crate) fn next_session(&mut self) -> Session {
        self.header.sessions_counted += 1;
        Session(self.header.sessions_counted)
    }

    /// The next place in the order of completed and spent records.
    pub(crate) fn next_seq(&mut self) -> u64 {
        self.header.records_counted += 1;
        self.header.records_counted
    }

    pub(crate) fn next_launch(&self, to: &mut Context<'_>) -> LaunchNumber {
        let launch = LaunchNumber { incarnation: self.header.incarnation, index: to.index, n: to.launches };
        to.launches += 1;
        launch
    }

    /// What an agent has left.
    pub(crate) fn room_on(&self, agent: &Agent) -> Resources {
        let total = self.total_of(agent);
        match self.index.held_on_agent.get(&agent.id) {
            Some(held) => total.minus(held),
            None => total.into_owned(),
        }
    }

    /// Takes resources of an agent, on an account.
    pub(crate) fn hold(
        &mut self,
        agent_id: &AgentId,
        account: Option<Account>,
        taken: &Resources,
        to: &mut Context<'_>,
    ) {
        if taken.is_empty() {
            return;
        }
        self.index.held_on_agent.entry(agent_id.clone()).or_default().add(taken);
        let (agent_id, taken, freed) = (agent_id.clone(), taken.clone(), Resources::none());
        to.changes.push(Change::HeldChanged { agent_id, account, freed, taken });
    }

    /// Lets resources of an agent go.
    pub(crate) fn release(
        &mut self,
        agent_id: &AgentId,
        account: Option<Account>,
        freed: &Resources,
        to: &mut Context<'_>,
    ) {
        if freed.is_empty() {
            return;
        }
        if let Some(held) = self.index.held_on_agent.get_mut(agent_id) {
            held.subtract(freed);
            if held.is_empty() {
                self.index.held_on_agent.remove(agent_id);
            }
        }
        let (agent_id, freed, taken) = (agent_id.clone(), freed.clone(), Resources::none());
        to.changes.push(Change::HeldChanged { agent_id, account, freed, taken });
    }

    /// Puts a task's record in its place; one that is done leaves the live tasks.
    pub(crate) fn put_task(&mut self, task: Task, to: &mut Context<'_>) -> Option<Arc<Task>> {
        if !task.is_done() {
            let task = Arc::new(task);
            if let Some(before) = self.tasks.put(&task.key, task.clone()) {
                self.restand(&task, before.standing());
            }
            return Some(task);
        }
        let before = self.tasks.remove(&task.key).map_or(Standing::Free, |before| before.standing());
        self.told.remove(&task.key);
        if let Some(tasks) = self.index.tasks_of_agent.get_mut(&task.agent_id) {
            tasks.remove(task.launch, before);
            if tasks.is_empty() {
                self.index.tasks_of_agent.remove(&task.agent_id);
                to.emptied.push(task.agent_id.clone());
            }
        }
        to.changes.push(Change::TaskCompleted(task.key.clone()));
        self.leave_group(task.launch);
        self.keep_completed(task);
        None
    }

    /// A task stood with its agent in another way before.
    pub(crate) fn restand(&mut self, task: &Task, before: Standing) {
        let after = task.standing();
        if before != after
            && let Some(tasks) = self.index.tasks_of_agent.get_mut(&task.agent_id)
        {
            tasks.restand(task.launch, before, after);
        }
    }

    /// Lets a task's resources go; with the last of its tasks an executor's, unless that lives on.
    pub(crate) fn let_go(&mut self, task: &mut Task, to: &mut Context<'_>) {
        if !std::mem::take(&mut task.held) {
            return;
        }
        let account = Some((task.key.framework_id.clone(), task.role.clone()));
        self.release(&task.agent_id, account, &task.resources, to);
        let Some(executor_id) = &task.executor_id else { return };
        let key = crate::registry::ExecutorKey {
            agent_id: task.agent_id.clone(),
            framework_id: task.key.framework_id.clone(),
            executor_id: executor_id.clone(),
        };
        self.executors.update(&key, |it| it.tasks = it.tasks.saturating_sub(1));
        if to.settling
            && self.executors.get(&key).is_some_and(|it| it.tasks == 0)
            && !self.living.contains(&key)
        {
            // It may live; its agent says so next, or does not.
            self.living.put(key, LaunchNumber::default());
        } else {
            self.release_idle(&key, to);
        }
    }

    /// The lowest index at which a launch stands that may still be ordered of an agent.
    pub(crate) fn low_mark(&self, agent_id: &AgentId, now: Index) -> Index {
        if !self.index.tasks_of_agent.get(agent_id).is_some_and(AgentTasks::any_open) {
            return now;
        }
        let waiting = self.tasks_of_agent(agent_id).filter(|task| !task.accepted && task.held);
        waiting.map(|task| task.launch.index).min().unwrap_or(now)
    }
}
