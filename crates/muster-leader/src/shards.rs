//! The leader's side of the offer loops: one batch at a time to each, so that no channel can fill up.

use crate::{Effect, offer::Outstanding};
use muster_allocator::{Refused, ShardInput, Wishes};
use muster_model::{AgentId, FrameworkId, Index, Resources, Role, Timestamp};
use muster_registry::{Change, Registry};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Beyond this many waiting batches of changes a shard starts again from the registry.
const CHANGES_WAITING_MAX: usize = 4_096;

#[derive(Debug)]
pub(crate) struct Shards {
    shards: Vec<Waiting>,
    /// Grants (shard, number) that go back once the shards have heard why they cannot be offered.
    early: Vec<(u32, u64)>,
    /// Where there are quotas the shards take turns, so that each knows of all that the others granted: this one is next.
    turn: Option<usize>,
}

#[derive(Debug, Default)]
struct Waiting {
    running: bool,
    inputs: Vec<ShardInput>,
    changes: usize,
    /// Its view holds all changes up to this entry: those that are told of later are not folded again.
    view_at: Index,
    wake_at: Option<Timestamp>,
    /// Agents of which there came to be something else since its pass began: it may grant what is no more.
    reshaped: BTreeSet<AgentId>,
}

impl Shards {
    pub(crate) fn new(count: u32) -> Self {
        Self {
            shards: (0..count.max(1)).map(|_| Waiting::default()).collect(),
            early: Vec::new(),
            turn: None,
        }
    }

    fn tell_all(&mut self, input: impl Fn() -> ShardInput) {
        self.shards.iter_mut().for_each(|shard| shard.inputs.push(input()));
    }

    /// Starts every shard from the registry.
    pub(crate) fn reset(&mut self, registry: &Registry) {
        self.shards.iter_mut().for_each(|shard| shard.reset(registry));
    }

    pub(crate) fn changed(&mut self, index: Index, changes: &Arc<Vec<Change>>) {
        if changes.is_empty() {
            return;
        }
        for shard in self.shards.iter_mut().filter(|shard| index > shard.view_at) {
            shard.inputs.push(ShardInput::Changed(changes.clone()));
            shard.changes += 1;
        }
        for (shard, grant) in std::mem::take(&mut self.early) {
            self.returned_grant(shard, grant, None);
        }
    }

    /// A grant on an agent whose end is known here, but not yet committed. Given back at once it would be granted
    /// again at once, over and over: it goes back with the next change.
    pub(crate) fn returned_early(&mut self, shard: u32, grant: u64) {
        self.early.push((shard, grant));
    }

    pub(crate) fn wish(&mut self, id: &FrameworkId, wishes: Option<Wishes>) {
        self.tell_all(|| ShardInput::Wish(id.clone(), wishes.clone()));
    }

    /// Whether the shards take turns.
    pub(crate) fn take_turns(&mut self, turns: bool) {
        self.turn = turns.then(|| self.turn.unwrap_or(0));
    }

    /// Tells each shard what stands of the others' grants. `by_shard` is what stands of each.
    pub(crate) fn elsewhere(&mut self, by_shard: &BTreeMap<u32, BTreeMap<Role, Resources>>) {
        if self.shards.len() < 2 {
            return;
        }
        for (index, shard) in (0..).zip(&mut self.shards) {
            let mut sums: BTreeMap<Role, Resources> = BTreeMap::new();
            for (role, sum) in by_shard.iter().filter(|(other, _)| **other != index).flat_map(|(_, it)| it) {
                sums.entry(role.clone()).or_default().add(sum);
            }
            shard.inputs.retain(|input| !matches!(input, ShardInput::Elsewhere(_)));
            shard.inputs.push(ShardInput::Elsewhere(sums));
        }
    }

    pub(crate) fn revive(&mut self, id: &FrameworkId, roles: &BTreeSet<Role>) {
        self.tell_all(|| ShardInput::Revive(id.clone(), roles.clone()));
    }

    pub(crate) fn returned(&mut self, outstanding: &Outstanding, refused: Option<Refused>) {
        self.returned_grant(outstanding.shard, outstanding.grant, refused);
    }

    pub(crate) fn returned_grant(&mut self, shard: u32, grant: u64, refused: Option<Refused>) {
        if let Some(shard) = self.shards.get_mut(shard as usize) {
            shard.inputs.push(ShardInput::Returned(grant, refused));
        }
    }

    /// What there is of an agent changed its shape.
    pub(crate) fn reshaped(&mut self, agent_id: &AgentId) {
        for shard in self.shards.iter_mut().filter(|shard| shard.running) {
            shard.reshaped.insert(agent_id.clone());
        }
    }

    /// A shard's pass is over. Of these agents it knew less than is known here.
    pub(crate) fn done(&mut self, shard: u32, wake_at: Option<Timestamp>) -> BTreeSet<AgentId> {
        let Some(shard) = self.shards.get_mut(shard as usize) else { return BTreeSet::new() };
        shard.running = false;
        shard.wake_at = wake_at;
        std::mem::take(&mut shard.reshaped)
    }

    pub(crate) fn next_wake(&self) -> Option<Timestamp> {
        self.shards.iter().filter(|shard| !shard.running).filter_map(|shard| shard.wake_at).min()
    }

    /// Sends each shard that is not running what waits for it.
    pub(crate) fn flush(&mut self, now: Timestamp, registry: &Registry, effects: &mut Vec<Effect>) {
        let count = self.shards.len();
        let first = self.turn.unwrap_or(0);
        for at in (0..count).map(|n| (first + n) % count) {
            if self.turn.is_some() && self.shards.iter().any(|shard| shard.running) {
                return;
            }
            let (index, shard) = (at as u32, &mut self.shards[at]);
            if shard.changes > CHANGES_WAITING_MAX {
                shard.reset(registry);
            }
            let due = shard.wake_at.is_some_and(|at| at <= now);
            if shard.running || (shard.inputs.is_empty() && !due) {
                continue;
            }
            self.turn = self.turn.map(|_| (at + 1) % count);
            shard.running = true;
            shard.changes = 0;
            let inputs = std::mem::take(&mut shard.inputs);
            effects.push(Effect::Allocate { shard: index, now, inputs });
        }
    }
}

impl Waiting {
    /// All changes so far are in the registry, of which this is a frozen copy: it stands for them.
    fn reset(&mut self, registry: &Registry) {
        self.inputs.retain(|input| !matches!(input, ShardInput::Changed(_) | ShardInput::Reset(_)));
        self.inputs.insert(0, ShardInput::Reset(Box::new(registry.clone())));
        self.changes = 0;
        self.view_at = registry.applied();
    }
}
