//! What is forgotten, by count and by registry time, alike on every replica (`protocol` G25).

use crate::{AgentState, Registry, Task, registry::Context};
use muster_model::{FrameworkId, Reason, TaskState};

/// The most that one entry forgets of each kind, so that no entry takes long to apply.
const AT_ONCE: usize = 64;
/// How long the token of a client that came without an id is remembered, in ms: much longer than it takes to ask again.
const NEWCOMERS_MS: u64 = 3_600_000;
/// How many are remembered at most.
const NEWCOMERS_MAX: usize = 65_536;

impl Registry {
    pub(crate) fn prune(&mut self, to: &mut Context<'_>) {
        self.prune_spent(to);
        self.prune_newcomers(to);
        self.prune_completed_frameworks(to);
        self.prune_agents(to);
    }

    fn prune_spent(&mut self, to: &Context<'_>) {
        for _ in 0..AT_ONCE {
            let Some((&seq, spent)) = self.spent.first() else { return };
            if to.now.since_ms(spent.at) < self.header.limits.spent_offers_ms {
                return;
            }
            self.forget_spent(seq);
        }
    }

    pub(crate) fn forget_spent(&mut self, seq: u64) {
        let Some(spent) = self.spent.remove(&seq) else { return };
        self.spent_operations.remove(&seq);
        for offer_id in &spent.offer_ids {
            self.index.spent_offers.remove(offer_id);
        }
        if let Some(mine) = self.index.spent_of_framework.get_mut(&spent.framework_id) {
            mine.remove(&seq);
            if mine.is_empty() {
                self.index.spent_of_framework.remove(&spent.framework_id);
            }
        }
    }

    fn prune_newcomers(&mut self, to: &Context<'_>) {
        for _ in 0..AT_ONCE {
            let Some((&seq, newcomer)) = self.newcomers.first() else { return };
            let too_old = to.now.since_ms(newcomer.at) >= NEWCOMERS_MS;
            if !too_old && self.newcomers.len() <= NEWCOMERS_MAX {
                return;
            }
            self.forget_newcomer(seq);
        }
    }

    pub(crate) fn forget_spent_of(&mut self, id: &FrameworkId) {
        let mine: Vec<u64> = self.index.spent_of_framework.get(id).into_iter().flatten().copied().collect();
        for seq in mine {
            self.forget_spent(seq);
        }
    }

    /// Keeps a task that is over, and forgets the oldest beyond the limits.
    pub(crate) fn keep_completed(&mut self, task: Task) {
        let seq = self.next_seq();
        let framework_id = task.key.framework_id.clone();
        let mine = self.index.completed_of_framework.entry(framework_id).or_default();
        mine.insert(seq);
        let oldest = (mine.len() > self.header.limits.completed_tasks_per_framework as usize)
            .then(|| mine.get_min().copied())
            .flatten();
        self.completed_tasks.put(seq, task);
        if let Some(oldest) = oldest {
            self.forget_completed(oldest);
        }
        if self.completed_tasks.len() > self.header.limits.completed_tasks as usize
            && let Some((&oldest, _)) = self.completed_tasks.first()
        {
            self.forget_completed(oldest);
        }
    }

    fn forget_completed(&mut self, seq: u64) {
        let Some(task) = self.completed_tasks.remove(&seq) else { return };
        if let Some(mine) = self.index.completed_of_framework.get_mut(&task.key.framework_id) {
            mine.remove(&seq);
            if mine.is_empty() {
                self.index.completed_of_framework.remove(&task.key.framework_id);
            }
        }
    }

    fn prune_completed_frameworks(&mut self, to: &Context<'_>) {
        if self.completed_frameworks.len() > self.header.limits.completed_frameworks as usize
            && let Some((&oldest, _)) = self.completed_frameworks.first()
        {
            self.completed_frameworks.remove(&oldest);
        }
        // The ids are remembered for long and are few: looked through only when time has passed for one.
        let keep_ms = self.header.limits.completed_framework_ids_ms;
        if to.now.0 < keep_ms {
            return;
        }
        let over = self.removed_frameworks.iter().filter(|(_, at)| to.now.since_ms(***at) >= keep_ms);
        let over: Vec<_> = over.take(AT_ONCE).map(|(id, _)| id.clone()).collect();
        for id in over {
            self.removed_frameworks.remove(&id);
        }
    }

    fn prune_agents(&mut self, to: &mut Context<'_>) {
        for _ in 0..AT_ONCE {
            let Some((since, id)) = self.index.lost_agents.get_min().cloned() else { return };
            let limits = &self.header.limits;
            let too_old = to.now.since_ms(since) >= limits.lost_agents_ms;
            let too_many = self.index.lost_agents.len() > limits.lost_agents as usize;
            if !too_old && !too_many {
                return;
            }
            let id = match too_old {
                true => id,
                // Those without tasks first.
                false => {
                    let lost = self.index.lost_agents.iter();
                    let idle = lost.map(|(_, id)| id).find(|id| !self.index.tasks_of_agent.contains_key(*id));
                    idle.cloned().unwrap_or(id)
                }
            };
            if self.agents.get(&id).is_some_and(|agent| matches!(agent.state, AgentState::Unreachable { .. }))
            {
                self.remove_agent(&id, TaskState::Gone, Reason::AgentRemoved, to);
            }
            if let Some(agent) = self.agents.remove(&id)
                && let Some(since) = agent.lost_since()
            {
                self.index.lost_agents.remove(&(since, id));
            }
        }
    }
}
