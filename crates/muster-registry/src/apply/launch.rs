//! Launching: checked again here, whatever the leader believed.

use crate::{
    Agent, Change, Launch, Origin, Outcome, Refusal, Registry, Shape, Task,
    registry::{Context, Executor, ExecutorKey, Spent},
};
use muster_model::{
    AcceptOutcome, AgentId, BadTask, FrameworkId, LaunchNumber, OfferId, Reason, Resources, Role, TaskId,
    TaskKey, TaskOutcome, TaskSpec, TaskState, task::ExecutorSpec,
};
use std::{fmt, sync::Arc};

/// Of offers that an ACCEPT used, what another one is told.
pub(super) const USED_BEFORE: &str = "the offers were used before";

/// What a launch names, as the registry's own records have it: tables of a million tasks hold each text once.
pub(super) struct Names {
    pub(super) framework_id: FrameworkId,
    pub(super) agent_id: AgentId,
    /// None for an agent that is not known.
    pub(super) agent: Option<Arc<Agent>>,
    pub(super) role: Role,
}

/// Why a task of a launch was not launched.
pub(super) struct No {
    pub(super) state: TaskState,
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl No {
    pub(super) fn error(message: String) -> Self {
        Self { state: TaskState::Error, reason: Reason::TaskInvalid, message }
    }
    pub(super) fn dropped(reason: Reason, message: impl Into<String>) -> Self {
        Self { state: TaskState::Dropped, reason, message: message.into() }
    }
    pub(super) fn outcome(self) -> TaskOutcome {
        TaskOutcome::Refused { state: self.state, reason: self.reason, message: self.message.into() }
    }
}

impl Registry {
    pub(crate) fn launch(&mut self, launch: &Launch, bad: &[BadTask], to: &mut Context<'_>) -> Outcome {
        let names = match self.names(&launch.framework_id, &launch.agent_id, &launch.role) {
            Ok(names) => names,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        if let Some(outcome) = self.remembered(launch, bad) {
            return Outcome::Launched(outcome);
        }
        let mut left = launch.offered.clone();
        let mut outcome = AcceptOutcome::default();
        self.launch_each(&names, &launch.tasks, bad, &mut left, &mut outcome, to);
        self.remember_spent(&names, &launch.offer_ids, &outcome, to);
        Outcome::Launched(outcome)
    }

    /// Launches tasks, each by itself, out of what is left.
    pub(super) fn launch_each(
        &mut self,
        names: &Names,
        tasks: &[TaskSpec],
        bad: &[BadTask],
        left: &mut Resources,
        outcome: &mut AcceptOutcome,
        to: &mut Context<'_>,
    ) {
        for asked in BadTask::among(bad, tasks) {
            let (task_id, became) = match asked {
                Err(bad) => (&bad.task_id, No::error(bad.why.to_string()).outcome()),
                Ok(spec) => match self.check_launch(names, spec, left) {
                    Err(no) => (&spec.task_id, no.outcome()),
                    Ok(needed) => {
                        left.subtract(&needed);
                        (&spec.task_id, TaskOutcome::Launched(self.launch_task(names, spec, to)))
                    }
                },
            };
            outcome.tasks.push((task_id.clone(), became));
        }
    }

    /// Refused when the framework does not live.
    pub(super) fn names(
        &self,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
        role: &Role,
    ) -> Result<Names, Refusal> {
        let Some(framework) = self.frameworks.get(framework_id) else {
            return Err(match self.removed_frameworks.contains(framework_id) {
                true => Refusal::FrameworkRemoved(framework_id.clone()),
                false => Refusal::UnknownFramework(framework_id.clone()),
            });
        };
        let agent = self.agents.get(agent_id).cloned();
        let role = framework.info.roles.iter().find(|it| *it == role).unwrap_or(role);
        Ok(Names {
            framework_id: framework.id.clone(),
            agent_id: agent.as_ref().map_or(agent_id, |agent| &agent.id).clone(),
            agent,
            role: role.clone(),
        })
    }

    /// The answer to a repeated ACCEPT: as before for the tasks it had, DROPPED for others, unless they live.
    ///
    /// The leader uses the same function to answer early.
    pub fn remembered(&self, launch: &Launch, bad: &[BadTask]) -> Option<AcceptOutcome> {
        let (_, spent) = self.spent_by(&launch.offer_ids)?;
        let ours = spent.framework_id == launch.framework_id;
        let tasks = BadTask::among(bad, launch.task_ids());
        Some(AcceptOutcome { tasks: tasks.map(|asked| remembered_task(spent, ours, asked)).collect() })
    }

    /// The agent of a launch, if it can be told of it.
    pub(super) fn check_agent<'a>(&self, names: &'a Names) -> Result<&'a Agent, No> {
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
        Ok(agent)
    }

    /// Whether a task may be launched but for room, and the new executor that it needs.
    pub(super) fn check_task<'a>(
        &self,
        names: &Names,
        spec: &'a TaskSpec,
    ) -> Result<Option<&'a ExecutorSpec>, No> {
        if self.tasks.contains(&names.task(spec)) {
            return Err(No::error(format!("task id {} is in use: choose another", spec.task_id)));
        }
        if spec.resources.is_empty() {
            return Err(No::error(format!("task {} asks for no resources", spec.task_id)));
        }
        let Some(executor) = &spec.executor else { return Ok(None) };
        match names.executor(spec).and_then(|key| self.executors.get(&key)) {
            // One that only its agent describes has nothing to compare with.
            Some(running) if !running.spec.sealed.is_empty() && running.spec != *executor => {
                Err(No::error(format!(
                    "executor {} runs on agent {} with another description",
                    executor.executor_id, names.agent_id
                )))
            }
            Some(_) => Ok(None),
            None => Ok(Some(executor)),
        }
    }

    /// Whether a task may be launched out of `left`, and what it takes: its own and a new executor's.
    fn check_launch(&self, names: &Names, spec: &TaskSpec, left: &Resources) -> Result<Resources, No> {
        let agent = self.check_agent(names)?;
        let mut needed = spec.resources.clone();
        if let Some(executor) = self.check_task(names, spec)? {
            needed.add(&executor.resources);
        }
        self.check_room(agent, &needed, left, &format_args!("task {}", spec.task_id))?;
        Ok(needed)
    }

    /// Whether what somebody needs is left of the offers, and free.
    pub(super) fn check_room(
        &self,
        agent: &Agent,
        needed: &Resources,
        left: &Resources,
        who: &dyn fmt::Display,
    ) -> Result<(), No> {
        if !left.contains(needed) {
            return Err(No::error(format!("{who} needs {needed}, but the offers have {left} left")));
        }
        let room = self.room_on(agent);
        if !room.contains(needed) {
            let message = format!("{who} needs {needed}, but agent {} has {room} left", agent.id);
            return Err(No::dropped(Reason::InvalidOffers, message));
        }
        Ok(())
    }

    pub(super) fn launch_task(
        &mut self,
        names: &Names,
        spec: &TaskSpec,
        to: &mut Context<'_>,
    ) -> LaunchNumber {
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
        let shape = Shape {
            role: names.role.clone(),
            resources: spec.resources.clone(),
            executor_id: spec.executor.as_ref().map(|executor| executor.executor_id.clone()),
            grace_ms: spec.grace_ms,
        };
        let named = (key.clone(), spec.name.clone().into());
        let agent_id = names.agent_id.clone();
        let mut origin = Origin::new(named, number, agent_id, shape, &spec.sealed, self.header.wall);
        self.alike.share(&mut origin);
        let task = Task::new(origin);
        self.hold(&names.agent_id, account, &spec.resources, to);
        self.index.tasks_of_agent.entry(names.agent_id.clone()).or_default().insert(&task);
        let task = Arc::new(task);
        self.tasks.put(&key, task.clone());
        to.changes.push(Change::RunDue(task));
        number
    }

    /// The spent ACCEPT that used any of these offers, and its place.
    pub(super) fn spent_by(&self, offer_ids: &[OfferId]) -> Option<(u64, &Spent)> {
        let seq = offer_ids.iter().find_map(|id| self.index.spent_offers.get(id))?;
        self.spent.get(seq).map(|spent| (*seq, &**spent))
    }

    /// Remembers what became of the tasks of an ACCEPT; its place, unless there is nothing to know it again by.
    pub(super) fn remember_spent(
        &mut self,
        names: &Names,
        offer_ids: &[OfferId],
        outcome: &AcceptOutcome,
        to: &Context<'_>,
    ) -> Option<u64> {
        if offer_ids.is_empty() {
            return None;
        }
        let seq = self.next_seq();
        let mut offer_ids = offer_ids.to_vec();
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
        Some(seq)
    }
}

/// What is remembered of a task that is asked for again.
pub(super) fn remembered_task(
    spent: &Spent,
    ours: bool,
    asked: Result<&TaskId, &BadTask>,
) -> (TaskId, TaskOutcome) {
    let task_id = asked.unwrap_or_else(|bad| &bad.task_id);
    let before = spent.outcome.tasks.iter().find(|(id, _)| ours && id == task_id);
    let became = match before {
        Some((_, became)) => became.clone(),
        None => No::dropped(Reason::InvalidOffers, USED_BEFORE).outcome(),
    };
    (task_id.clone(), became)
}

impl Names {
    pub(super) fn task(&self, spec: &TaskSpec) -> TaskKey {
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
