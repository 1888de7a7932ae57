//! Launching: checked again here, whatever the leader believed.

use crate::{
    Agent, Change, Launch, Outcome, Refusal, Registry, Task,
    registry::{Context, Executor, ExecutorKey, Spent},
};
use muster_model::{
    AcceptOutcome, AgentId, BadTask, FrameworkId, Reason, Resources, Role, TaskKey, TaskOutcome, TaskSpec,
    TaskState,
};
use std::sync::Arc;

/// What a launch names, as the registry's own records have it: tables of a million tasks hold each text once.
struct Names {
    framework_id: FrameworkId,
    agent_id: AgentId,
    /// None for an agent that is not known.
    agent: Option<Arc<Agent>>,
    role: Role,
}

/// Why a task of a launch was not launched.
struct No {
    state: TaskState,
    reason: Reason,
    message: String,
}

impl No {
    fn error(message: String) -> Self {
        Self { state: TaskState::Error, reason: Reason::TaskInvalid, message }
    }
    fn dropped(reason: Reason, message: impl Into<String>) -> Self {
        Self { state: TaskState::Dropped, reason, message: message.into() }
    }
    fn outcome(self) -> TaskOutcome {
        TaskOutcome::Refused { state: self.state, reason: self.reason, message: self.message.into() }
    }
}

impl Registry {
    pub(crate) fn launch(&mut self, launch: &Launch, bad: &[BadTask], to: &mut Context<'_>) -> Outcome {
        let Some(names) = self.names(launch) else {
            return Outcome::Refused(match self.removed_frameworks.contains(&launch.framework_id) {
                true => Refusal::FrameworkRemoved(launch.framework_id.clone()),
                false => Refusal::UnknownFramework(launch.framework_id.clone()),
            });
        };
        if let Some(outcome) = self.remembered(launch, bad) {
            return Outcome::Launched(outcome);
        }
        let mut left = launch.offered.clone();
        let mut outcome = AcceptOutcome::default();
        for asked in BadTask::among(bad, &launch.tasks) {
            let (task_id, became) = match asked {
                Err(bad) => (&bad.task_id, No::error(bad.why.to_string()).outcome()),
                Ok(spec) => match self.check_launch(&names, spec, &left) {
                    Err(no) => (&spec.task_id, no.outcome()),
                    Ok(needed) => {
                        left.subtract(&needed);
                        (&spec.task_id, TaskOutcome::Launched(self.launch_task(&names, spec, to)))
                    }
                },
            };
            outcome.tasks.push((task_id.clone(), became));
        }
        self.remember_spent(launch, &names, &outcome, to);
        Outcome::Launched(outcome)
    }

    /// None when the framework does not live.
    fn names(&self, launch: &Launch) -> Option<Names> {
        let framework = self.frameworks.get(&launch.framework_id)?;
        let agent = self.agents.get(&launch.agent_id).cloned();
        let role = framework.info.roles.iter().find(|role| **role == launch.role);
        Some(Names {
            framework_id: framework.id.clone(),
            agent_id: agent.as_ref().map_or(&launch.agent_id, |agent| &agent.id).clone(),
            agent,
            role: role.unwrap_or(&launch.role).clone(),
        })
    }

    /// The answer to a repeated ACCEPT: as before for the tasks it had, DROPPED for others, unless they live.
    ///
    /// The leader uses the same function to answer early.
    pub fn remembered(&self, launch: &Launch, bad: &[BadTask]) -> Option<AcceptOutcome> {
        let spent = launch.offer_ids.iter().find_map(|id| self.spent(id))?;
        let ours = spent.framework_id == launch.framework_id;
        let tasks = BadTask::among(bad, launch.task_ids()).map(|asked| {
            let task_id = asked.unwrap_or_else(|bad| &bad.task_id);
            let before = spent.outcome.tasks.iter().find(|(id, _)| ours && id == task_id);
            let became = match before {
                Some((_, became)) => became.clone(),
                None => No::dropped(Reason::InvalidOffers, "the offers were used before").outcome(),
            };
            (task_id.clone(), became)
        });
        Some(AcceptOutcome { tasks: tasks.collect() })
    }

    /// Whether a task may be launched out of `left`, and what it takes: its own and a new executor's.
    fn check_launch(&self, names: &Names, spec: &TaskSpec, left: &Resources) -> Result<Resources, No> {
        let agent_id = &names.agent_id;
        let Some(agent) = &names.agent else {
            return Err(No::dropped(Reason::AgentRemoved, format!("agent {agent_id} is not known")));
        };
        if agent.lost_since().is_some() {
            return Err(No::dropped(
                Reason::AgentRemoved,
                format!("agent {agent_id} is {}", agent.state_name()),
            ));
        }
        if !agent.is_connected() {
            return Err(No::dropped(Reason::AgentDisconnected, format!("agent {agent_id} is disconnected")));
        }
        match self.duties.get(agent_id) {
            Some(duty) if duty.drain.is_some() => {
                return Err(No::dropped(Reason::AgentDraining, format!("agent {agent_id} is draining")));
            }
            Some(_) => {
                let message = format!("agent {agent_id} is deactivated");
                return Err(No::dropped(Reason::InvalidOffers, message));
            }
            None => {}
        }
        let key = names.task(spec);
        if self.tasks.contains(&key) {
            return Err(No::error(format!("task id {} is in use: choose another", spec.task_id)));
        }
        if spec.resources.is_empty() {
            return Err(No::error(format!("task {} asks for no resources", spec.task_id)));
        }
        let mut needed = spec.resources.clone();
        if let Some(executor) = &spec.executor {
            let key = names.executor(spec);
            match key.and_then(|key| self.executors.get(&key)) {
                // One that only its agent describes has nothing to compare with.
                Some(running) if !running.spec.sealed.is_empty() && running.spec != *executor => {
                    return Err(No::error(format!(
                        "executor {} runs on agent {agent_id} with another description",
                        executor.executor_id
                    )));
                }
                Some(_) => {}
                None => needed.add(&executor.resources),
            }
        }
        if !left.contains(&needed) {
            return Err(No::error(format!(
                "task {} needs {needed}, but the offers have {left} left",
                spec.task_id
            )));
        }
        let room = self.room_on(agent);
        if !room.contains(&needed) {
            let message =
                format!("task {} needs {needed}, but agent {agent_id} has {room} left", spec.task_id);
            return Err(No::dropped(Reason::InvalidOffers, message));
        }
        Ok(needed)
    }

    fn launch_task(
        &mut self,
        names: &Names,
        spec: &TaskSpec,
        to: &mut Context<'_>,
    ) -> muster_model::LaunchNumber {
        let account = Some((names.framework_id.clone(), names.role.clone()));
        if let (Some(executor), Some(key)) = (&spec.executor, names.executor(spec))
            && self.executors.update(&key, |running| running.tasks += 1).is_none()
        {
            self.hold(&names.agent_id, account.clone(), &executor.resources, to);
            let role = names.role.clone();
            self.executors.put(key.clone(), Executor { key, role, spec: executor.clone(), tasks: 1 });
        }
        let number = self.next_launch(to);
        let key = names.task(spec);
        let task = Task {
            key: key.clone(),
            name: spec.name.clone(),
            launch: number,
            agent_id: names.agent_id.clone(),
            role: names.role.clone(),
            resources: spec.resources.clone(),
            executor_id: spec.executor.as_ref().map(|executor| executor.executor_id.clone()),
            grace_ms: spec.grace_ms,
            sealed: spec.sealed.clone(),
            state: TaskState::Staging,
            accepted: false,
            held: true,
            kill: None,
            last_seq: 0,
            own_updates: 0,
            updates: Vec::new(),
            message: "".into(),
            launched: self.header.wall,
            updated: self.header.wall,
        };
        self.hold(&names.agent_id, account, &spec.resources, to);
        self.index.tasks_of_agent.entry(names.agent_id.clone()).or_default().insert(key.clone());
        let task = self.tasks.put(key, task);
        to.changes.push(Change::RunDue(task));
        number
    }

    fn remember_spent(&mut self, launch: &Launch, names: &Names, outcome: &AcceptOutcome, to: &Context<'_>) {
        if launch.offer_ids.is_empty() {
            return;
        }
        let seq = self.next_seq();
        let mut offer_ids = launch.offer_ids.clone();
        offer_ids.sort_unstable();
        offer_ids.dedup();
        for offer_id in &offer_ids {
            self.index.spent_offers.insert(offer_id.clone(), seq);
        }
        let mine = self.index.spent_of_framework.entry(names.framework_id.clone()).or_default();
        mine.insert(seq);
        let oldest = (mine.len() > self.header.limits.spent_offers_per_framework as usize)
            .then(|| mine.get_min().copied())
            .flatten();
        let spent = Spent {
            framework_id: names.framework_id.clone(),
            offer_ids,
            outcome: outcome.clone(),
            at: to.now,
        };
        self.spent.put(seq, spent);
        if let Some(oldest) = oldest {
            self.forget_spent(oldest);
        }
    }
}

impl Names {
    fn task(&self, spec: &TaskSpec) -> TaskKey {
        TaskKey { framework_id: self.framework_id.clone(), task_id: spec.task_id.clone() }
    }

    fn executor(&self, spec: &TaskSpec) -> Option<ExecutorKey> {
        Some(ExecutorKey {
            agent_id: self.agent_id.clone(),
            framework_id: self.framework_id.clone(),
            executor_id: spec.executor.as_ref()?.executor_id.clone(),
        })
    }
}
