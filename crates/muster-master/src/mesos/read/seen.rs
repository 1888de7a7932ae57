//! What the answers are made of: the registry as it was at one moment, and what its leader held then.

use super::super::about::About;
use crate::admit::View;
use crate::route::LocalRoute;
use muster_leader::InverseAnswer;
use muster_model::{
    AgentId, ExecutorId, FrameworkId, InverseOffer, Offer, Resources, Role, task::ExecutorSpec,
};
use muster_registry::{Framework, Quota, Registry, Task};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// One moment of the leader.
pub(crate) struct Seen {
    /// What is committed.
    pub(crate) registry: Registry,
    /// What is offered.
    pub(crate) offers: Vec<Offer>,
    /// What frameworks are asked because of maintenance, and what they answered.
    pub(crate) inverse_offers: Vec<InverseOffer>,
    pub(crate) answers: Vec<InverseAnswer>,
    /// This master.
    pub(crate) about: Arc<About>,
    /// Its leadership.
    pub(crate) local: Arc<LocalRoute>,
    /// What of it is shown.
    pub(crate) view: View,
}

/// A custom executor that holds resources.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Executor<'a> {
    pub(crate) agent_id: &'a AgentId,
    pub(crate) framework_id: &'a FrameworkId,
    pub(crate) role: &'a Role,
    pub(crate) spec: &'a ExecutorSpec,
}

impl<'a> Executor<'a> {
    pub(crate) fn id(&self) -> &ExecutorId {
        &self.spec.executor_id
    }

    fn held(&self) -> Held<'a> {
        (Some(self.role), &self.spec.resources, 1)
    }
}

/// A moment, sorted by what is asked for: made once for each answer.
pub(crate) struct Sorted<'a> {
    pub(crate) seen: &'a Seen,
    executors: HashMap<&'a FrameworkId, Vec<Executor<'a>>>,
    executors_on: HashMap<&'a AgentId, Vec<Executor<'a>>>,
    offers: HashMap<&'a FrameworkId, Vec<&'a Offer>>,
    offers_on: HashMap<&'a AgentId, Vec<&'a Offer>>,
    /// Frameworks that are over, where it matters whose a task was.
    over: HashMap<&'a FrameworkId, &'a Framework>,
}

/// Resources by the role on whose account they are held; none for processes that no task stands for.
pub(crate) type ByRole<'a> = BTreeMap<Option<&'a Role>, Resources>;

impl<'a> Sorted<'a> {
    pub(crate) fn of(seen: &'a Seen) -> Self {
        let mut sorted = Self {
            seen,
            executors: HashMap::new(),
            executors_on: HashMap::new(),
            offers: HashMap::new(),
            offers_on: HashMap::new(),
            over: HashMap::new(),
        };
        if !seen.view.has_all_tasks() || !seen.view.has_all_executors() {
            let over = seen.registry.completed_frameworks().map(|it| (&it.framework.id, &it.framework));
            sorted.over = over.collect();
        }
        for (agent_id, framework_id, role, spec) in seen.registry.executors() {
            let executor = Executor { agent_id, framework_id, role, spec };
            sorted.executors.entry(framework_id).or_default().push(executor);
            sorted.executors_on.entry(agent_id).or_default().push(executor);
        }
        for offer in &seen.offers {
            sorted.offers.entry(&offer.framework_id).or_default().push(offer);
            sorted.offers_on.entry(&offer.agent_id).or_default().push(offer);
        }
        sorted
    }

    /// Tasks that are over by framework, oldest first. Made anew each time: what begins before needs none of it.
    pub(crate) fn completed_by_framework(&self) -> HashMap<&'a FrameworkId, Vec<&'a Task>> {
        let mut all: HashMap<_, Vec<_>> = HashMap::new();
        // They come newest first.
        for task in self.completed_tasks().rev() {
            all.entry(&task.key.framework_id).or_default().push(task);
        }
        all
    }

    fn framework(&self, id: &FrameworkId) -> Option<&'a Framework> {
        let seen: &'a Seen = self.seen;
        seen.registry.framework(id).or_else(|| self.over.get(id).copied())
    }

    /// Whether a task is shown.
    pub(crate) fn shows(&self, task: &Task) -> bool {
        let view = &self.seen.view;
        view.has_all_tasks() || view.task(task, self.framework(&task.key.framework_id))
    }

    /// Whether an executor is shown.
    pub(crate) fn shows_executor(&self, it: &Executor<'_>) -> bool {
        let view = &self.seen.view;
        view.has_all_executors() || view.executor(it.spec, self.framework(it.framework_id))
    }

    /// All tasks that are not over.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = &'a Task> {
        let seen: &'a Seen = self.seen;
        seen.registry.tasks().filter(|task| self.shows(task))
    }

    /// All that are, the newest first.
    pub(crate) fn completed_tasks(&self) -> impl DoubleEndedIterator<Item = &'a Task> {
        let seen: &'a Seen = self.seen;
        seen.registry.completed_tasks().filter(|task| self.shows(task))
    }

    /// All executors.
    pub(crate) fn all_executors(&self) -> impl Iterator<Item = Executor<'a>> {
        let seen: &'a Seen = self.seen;
        let all = seen.registry.executors();
        let all =
            all.map(|(agent_id, framework_id, role, spec)| Executor { agent_id, framework_id, role, spec });
        all.filter(|it| self.shows_executor(it))
    }
    pub(crate) fn executors(&self, id: &FrameworkId) -> &[Executor<'a>] {
        self.executors.get(id).map_or(&[], Vec::as_slice)
    }
    pub(crate) fn offers(&self, id: &FrameworkId) -> &[&'a Offer] {
        self.offers.get(id).map_or(&[], Vec::as_slice)
    }
    pub(crate) fn offers_on(&self, id: &AgentId) -> &[&'a Offer] {
        self.offers_on.get(id).map_or(&[], Vec::as_slice)
    }

    /// What a framework's tasks and executors hold, by role.
    pub(crate) fn used(&self, id: &'a FrameworkId) -> ByRole<'a> {
        let seen: &'a Seen = self.seen;
        let executors = self.executors(id).iter();
        sums(held(seen.registry.held_by_tasks_of(id)).chain(executors.map(Executor::held)))
    }

    /// What is held on an agent, by role.
    pub(crate) fn used_on(&self, id: &'a AgentId) -> ByRole<'a> {
        let registry = &self.seen.registry;
        let executors = self.executors_on.get(id).into_iter().flatten();
        let strays = registry.agent(id).into_iter().flat_map(|agent| agent.strays.values());
        sums(
            held(registry.held_by_tasks_on(id))
                .chain(executors.map(Executor::held))
                .chain(strays.map(|stray| (None, &stray.resources, 1))),
        )
    }

    /// All roles that frameworks are in or hold resources in, or that have a weight or a quota; and those above them.
    pub(crate) fn roles(&self) -> BTreeMap<String, InRole> {
        let mut roles: BTreeMap<String, InRole> = BTreeMap::new();
        for role in self.seen.weights().into_keys() {
            roles.entry(role).or_default();
        }
        for (role, settings) in self.seen.registry.role_settings() {
            roles.entry(role.to_string()).or_default().quota = settings.quota.clone();
        }
        for FrameworkSeen { framework, .. } in self.seen.frameworks() {
            for role in &framework.info.roles {
                roles.entry(role.to_string()).or_default().frameworks.push(framework.id.clone());
            }
        }
        for ((_, role), resources, n) in self.seen.registry.held_by_accounts() {
            roles.entry(role.to_string()).or_default().allocated.add(&resources.times(n));
        }
        for offer in &self.seen.offers {
            roles.entry(offer.role.to_string()).or_default().offered.add(&offer.resources);
        }
        for agent in self.seen.registry.agents().filter(|agent| agent.lost_since().is_none()) {
            for (role, reserved) in self.seen.registry.total_of(agent).reserved() {
                roles.entry(role.to_string()).or_default().reserved.add(&reserved.flattened());
            }
        }
        // What is in a role is in those above it, too.
        for (name, it) in roles.clone() {
            for (at, _) in name.match_indices('/') {
                let above = roles.entry(name[..at].to_owned()).or_default();
                above.allocated.add(&it.allocated);
                above.offered.add(&it.offered);
                above.reserved.add(&it.reserved);
            }
        }
        roles.retain(|name, _| self.seen.view.role(name));
        roles
    }
}

/// What is in a role and in those below it; of frameworks, those of its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct InRole {
    pub(crate) frameworks: Vec<FrameworkId>,
    pub(crate) allocated: Resources,
    pub(crate) offered: Resources,
    pub(crate) reserved: Resources,
    pub(crate) quota: Quota,
}

impl InRole {
    /// What counts against its quota.
    pub(crate) fn consumed(&self) -> Resources {
        self.allocated.unreserved().flattened().plus(&self.reserved)
    }
}

/// So many times these resources, on a role's account.
type Held<'a> = (Option<&'a Role>, &'a Resources, u64);

fn held<'a>(
    by_tasks: impl Iterator<Item = (&'a Role, &'a Resources, u64)>,
) -> impl Iterator<Item = Held<'a>> {
    by_tasks.map(|(role, resources, n)| (Some(role), resources, n))
}

fn sums<'a>(held: impl Iterator<Item = Held<'a>>) -> ByRole<'a> {
    let mut sums = ByRole::new();
    for (role, resources, n) in held {
        sums.entry(role).or_default().add(&resources.times(n));
    }
    sums
}

/// Offered resources by role.
pub(crate) fn offered<'a>(offers: &[&'a Offer]) -> ByRole<'a> {
    sums(offers.iter().map(|offer| (Some(&offer.role), &*offer.resources, 1)))
}

/// All of it together.
pub(crate) fn total(by_role: &ByRole<'_>) -> Resources {
    by_role.values().fold(Resources::none(), |sum, it| sum.plus(it))
}

/// A framework, and whether it is over and since when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameworkSeen<'a> {
    pub(crate) framework: &'a Framework,
    pub(crate) completed: Option<muster_model::WallTime>,
}

impl Seen {
    /// What the claims of roles weigh: as operators set it, else as configured.
    pub(crate) fn weights(&self) -> BTreeMap<String, f64> {
        let mut weights = self.about.weights.clone();
        let set = self.registry.role_settings();
        weights
            .extend(set.filter_map(|(role, it)| Some((role.to_string(), it.weight_milli? as f64 / 1000.0))));
        weights.retain(|role, _| self.view.role(role));
        weights
    }

    /// Frameworks that live, by id.
    pub(crate) fn frameworks(&self) -> impl Iterator<Item = FrameworkSeen<'_>> {
        let shown = self.registry.frameworks().filter(|it| self.view.framework(it));
        shown.map(|framework| FrameworkSeen { framework, completed: None })
    }

    /// Frameworks that are over, oldest first.
    pub(crate) fn completed_frameworks(&self) -> impl Iterator<Item = FrameworkSeen<'_>> {
        let shown = self.registry.completed_frameworks().filter(|it| self.view.framework(&it.framework));
        let mut all: Vec<_> = shown.collect();
        all.reverse();
        all.into_iter().map(|it| FrameworkSeen { framework: &it.framework, completed: Some(it.completed) })
    }
}
