//! What agents say of executors.
//!
//! An executor holds its resources while a held task runs in it, and beyond that while its agent says that it lives:
//! it may wait for more tasks, and nothing else can have what it holds before no process of it is left.

use crate::{
    Change, Outcome, Registry,
    registry::{Context, Executor, ExecutorKey},
};
use muster_model::{AgentId, ExecutorId, FrameworkId, KnownExecutor, LaunchNumber, Role, task::ExecutorSpec};
use std::collections::BTreeSet;

impl Registry {
    pub(crate) fn executors_of(
        &mut self,
        agent_id: &AgentId,
        executors: &[KnownExecutor],
        all: bool,
        to: &mut Context<'_>,
    ) -> Outcome {
        if self.agents.get(agent_id).is_none_or(|agent| agent.is_gone()) {
            return Outcome::Confirmed; // what they held ceased to exist with their agent
        }
        // Ends first: another run may have begun under the same name.
        for known in executors {
            if let Some(status) = known.ended {
                self.executor_ended(key(agent_id, known), known.number, status, to);
            }
        }
        for known in executors.iter().filter(|known| known.ended.is_none()) {
            self.executor_lives(key(agent_id, known), known, to);
        }
        if all {
            for key in self.unlisted_executors(agent_id, executors) {
                self.living.remove(&key);
                self.release_idle(&key, to);
            }
        }
        Outcome::Confirmed
    }

    /// Executors that are held as living, and that their agent does not list as such.
    fn unlisted_executors(&self, agent_id: &AgentId, executors: &[KnownExecutor]) -> Vec<ExecutorKey> {
        let listed: BTreeSet<ExecutorKey> = executors
            .iter()
            .filter(|known| known.ended.is_none())
            .map(|known| key(agent_id, known))
            .collect();
        self.living_on(agent_id).filter(|key| !listed.contains(*key)).cloned().collect()
    }

    fn living_on(&self, agent_id: &AgentId) -> impl Iterator<Item = &ExecutorKey> {
        let first = ExecutorKey {
            agent_id: agent_id.clone(),
            framework_id: FrameworkId::new(""),
            executor_id: ExecutorId::new(""),
        };
        let agent_id = agent_id.clone();
        self.living.range(first..).map(|(key, _)| key).take_while(move |key| key.agent_id == agent_id)
    }

    /// The executors of a framework on an agent, by id.
    pub fn executors_on(
        &self,
        agent_id: &AgentId,
        framework_id: &FrameworkId,
    ) -> impl Iterator<Item = &ExecutorId> {
        let (agent_id, framework_id) = (agent_id.clone(), framework_id.clone());
        let first = ExecutorKey {
            agent_id: agent_id.clone(),
            framework_id: framework_id.clone(),
            executor_id: ExecutorId::new(""),
        };
        let from_there = self.executors.range(first..).map(|(key, _)| key);
        let there =
            from_there.take_while(move |key| key.agent_id == agent_id && key.framework_id == framework_id);
        there.map(|key| &key.executor_id)
    }

    /// The frameworks that hold something on an agent.
    pub fn frameworks_on(&self, agent_id: &AgentId) -> BTreeSet<&FrameworkId> {
        let first = ExecutorKey {
            agent_id: agent_id.clone(),
            framework_id: FrameworkId::new(""),
            executor_id: ExecutorId::new(""),
        };
        let executors = self.executors.range(first..).map(|(key, _)| key);
        let executors = executors.take_while(|key| key.agent_id == *agent_id).map(|key| &key.framework_id);
        let tasks = self.tasks_of_agent(agent_id).filter(|task| task.held);
        tasks.map(|task| &task.key.framework_id).chain(executors).collect()
    }

    fn executor_lives(&mut self, key: ExecutorKey, known: &KnownExecutor, to: &mut Context<'_>) {
        if !self.frameworks.contains(&key.framework_id) {
            to.changes.push(unwanted(&key));
        }
        if self.living.get(&key).is_some_and(|number| **number >= known.number) {
            return;
        }
        if !self.executors.contains(&key) {
            // Not of this registry's making: held all the same, until it ends.
            let spec = ExecutorSpec {
                executor_id: key.executor_id.clone(),
                resources: known.resources.clone(),
                sealed: Default::default(),
            };
            let role = Role::any();
            let account = Some((key.framework_id.clone(), role.clone()));
            self.hold(&key.agent_id, account, &spec.resources, to);
            self.executors.put(key.clone(), Executor { key: key.clone(), role, spec, tasks: 0 });
        }
        self.living.put(key, known.number);
    }

    fn executor_ended(&mut self, key: ExecutorKey, number: LaunchNumber, status: i32, to: &mut Context<'_>) {
        if self.living.get(&key).is_none_or(|newest| **newest > number) {
            return; // known already, or of a former run
        }
        self.living.remove(&key);
        self.release_idle(&key, to);
        let ExecutorKey { agent_id, framework_id, executor_id } = key;
        to.changes.push(Change::ExecutorEnded { agent_id, framework_id, executor_id, status });
    }

    /// Lets an executor's own resources go if nothing holds it any more.
    pub(crate) fn release_idle(&mut self, key: &ExecutorKey, to: &mut Context<'_>) {
        let Some(executor) = self.executors.get(key) else { return };
        if executor.tasks > 0 || self.living.contains(key) {
            return;
        }
        let account = Some((key.framework_id.clone(), executor.role.clone()));
        let resources = executor.spec.resources.clone();
        self.executors.remove(key);
        self.release(&key.agent_id, account, &resources, to);
    }

    /// The executors that a framework leaves behind must end.
    pub(crate) fn abandon_executors(&self, framework_id: &FrameworkId, to: &mut Context<'_>) {
        let theirs = self.living.iter().map(|(key, _)| key).filter(|key| key.framework_id == *framework_id);
        for key in theirs {
            if self.agents.get(&key.agent_id).is_some_and(|agent| agent.is_connected()) {
                to.changes.push(unwanted(key));
            }
        }
    }

    /// The executors of an agent cease to exist with it.
    pub(crate) fn remove_executors(&mut self, agent_id: &AgentId, to: &mut Context<'_>) {
        let keys: Vec<ExecutorKey> = self.living_on(agent_id).cloned().collect();
        for key in keys {
            self.living.remove(&key);
            self.release_idle(&key, to);
        }
    }

    /// Whether this registry knows already all that an agent says of executors: then it need not be said again.
    pub fn knows_executors(&self, agent_id: &AgentId, executors: &[KnownExecutor], all: bool) -> bool {
        // An end never is: that it lives may still be on its way through the log, and would be held for ever.
        let is_known = |known: &KnownExecutor| {
            let number = self.living.get(&key(agent_id, known));
            known.ended.is_none() && number.is_some_and(|number| **number >= known.number)
        };
        executors.iter().all(is_known) && (!all || self.unlisted_executors(agent_id, executors).is_empty())
    }

    /// What an executor of a live framework was described as, and what it holds.
    pub fn executor_of(
        &self,
        agent_id: &AgentId,
        framework_id: &FrameworkId,
        executor_id: &ExecutorId,
    ) -> Option<&ExecutorSpec> {
        let key = ExecutorKey {
            agent_id: agent_id.clone(),
            framework_id: framework_id.clone(),
            executor_id: executor_id.clone(),
        };
        self.executors.get(&key).map(|executor| &executor.spec)
    }
}

fn key(agent_id: &AgentId, known: &KnownExecutor) -> ExecutorKey {
    ExecutorKey {
        agent_id: agent_id.clone(),
        framework_id: known.framework_id.clone(),
        executor_id: known.executor_id.clone(),
    }
}

fn unwanted(key: &ExecutorKey) -> Change {
    Change::ExecutorUnwanted {
        agent_id: key.agent_id.clone(),
        framework_id: key.framework_id.clone(),
        executor_id: key.executor_id.clone(),
    }
}
