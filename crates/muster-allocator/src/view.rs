//! A shard's projection of the registry.

use muster_model::{AgentId, Resources, Value};
use muster_registry::{Account, Agent, AgentState, Change, Registry};
use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
};

/// One of `count` shards, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardId {
    /// Which.
    pub index: u32,
    /// Of how many.
    pub count: u32,
}

impl ShardId {
    /// Whether the agent belongs to this shard. Each agent belongs to exactly one.
    pub fn owns(self, agent_id: &AgentId) -> bool {
        let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
        agent_id.as_str().hash(&mut hasher);
        hasher.finish() % u64::from(self.count.max(1)) == u64::from(self.index)
    }
}

/// FNV-1a with a final mix: ids that differ in their last digit spread over all shards.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    fn finish(&self) -> u64 {
        let x = (self.0 ^ (self.0 >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        x ^ (x >> 33)
    }
}

/// An agent of the shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentView {
    /// All it has.
    pub total: Resources,
    /// What is held of it.
    pub held: Resources,
    /// Whether it may be offered: it said hello in this term.
    pub offerable: bool,
}

/// What a shard knows: its own agents in full, and of the whole fleet the sums that fairness needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    shard: ShardId,
    agents: BTreeMap<AgentId, AgentView>,
    /// The totals of every shard's agents.
    totals: BTreeMap<AgentId, Resources>,
    fleet: Resources,
    /// What each account holds on every shard's agents.
    held: BTreeMap<Account, Resources>,
}

impl View {
    /// Of an empty registry.
    pub fn empty(shard: ShardId) -> Self {
        let fleet = Resources::none();
        Self { shard, agents: BTreeMap::new(), totals: BTreeMap::new(), fleet, held: BTreeMap::new() }
    }

    /// The projection of a registry.
    pub fn of(registry: &Registry, shard: ShardId) -> Self {
        let mut view = Self::empty(shard);
        for agent in registry.agents() {
            if !matches!(agent.state, AgentState::Gone { .. }) {
                view.admit(agent, agent.is_connected());
            }
        }
        for holding in registry.holdings() {
            let none = Resources::none();
            view.hold(&holding.agent_id, holding.account.as_ref(), &none, &holding.resources);
        }
        view
    }

    /// Takes one committed change in.
    pub fn fold(&mut self, change: &Change) {
        match change {
            Change::TermBegan => self.agents.values_mut().for_each(|agent| agent.offerable = false),
            Change::AgentAdmitted(agent) => self.admit(agent, true),
            Change::AgentDisconnected(id, _) | Change::AgentUnreachable(id) => {
                if let Some(agent) = self.agents.get_mut(id) {
                    agent.offerable = false;
                }
            }
            Change::AgentRemoved(id) => self.remove(id),
            Change::HeldChanged { agent_id, account, freed, taken } => {
                self.hold(agent_id, account.as_ref(), freed, taken);
            }
            _ => {}
        }
    }

    fn admit(&mut self, agent: &Agent, offerable: bool) {
        let total = &agent.info.resources;
        if let Some(before) = self.totals.insert(agent.id.clone(), total.clone()) {
            self.subtract_from_fleet(&before);
        }
        self.add_to_fleet(total);
        if self.shard.owns(&agent.id) {
            let held = self.agents.remove(&agent.id).map(|before| before.held).unwrap_or_default();
            self.agents.insert(agent.id.clone(), AgentView { total: total.clone(), held, offerable });
        }
    }

    fn remove(&mut self, id: &AgentId) {
        if let Some(total) = self.totals.remove(id) {
            self.subtract_from_fleet(&total);
        }
        self.agents.remove(id);
    }

    // Only scalars count for fairness: ranges and sets of different agents are different things.
    fn add_to_fleet(&mut self, total: &Resources) {
        for (kind, value) in total.iter() {
            if let Value::Scalar(_) = value {
                self.fleet.insert(kind, value.clone());
            }
        }
    }

    fn subtract_from_fleet(&mut self, total: &Resources) {
        self.fleet.subtract(&scalars(total));
    }

    fn hold(&mut self, id: &AgentId, account: Option<&Account>, freed: &Resources, taken: &Resources) {
        if let Some(agent) = self.agents.get_mut(id) {
            agent.held.subtract(freed);
            agent.held.add(taken);
        }
        let Some(account) = account else { return };
        let held = self.held.entry(account.clone()).or_default();
        held.subtract(&scalars(freed));
        held.add(&scalars(taken));
        if held.is_empty() {
            self.held.remove(account);
        }
    }

    /// The shard's agents, by id.
    pub fn agents(&self) -> &BTreeMap<AgentId, AgentView> {
        &self.agents
    }
    /// The sum of all agents' scalars, of every shard.
    pub fn fleet(&self) -> &Resources {
        &self.fleet
    }
    /// The scalars that each account holds, on every shard.
    pub fn held(&self) -> &BTreeMap<Account, Resources> {
        &self.held
    }
    /// Which shard this is the view of.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The fleet's largest total of each scalar kind.
    pub fn largest(&self) -> Resources {
        let mut largest: BTreeMap<&str, u64> = BTreeMap::new();
        for total in self.totals.values() {
            for (kind, _) in total.iter() {
                let most = largest.entry(kind).or_default();
                *most = (*most).max(total.scalar(kind));
            }
        }
        largest.into_iter().fold(Resources::none(), |all, (kind, most)| all.with(kind, Value::Scalar(most)))
    }
}

/// The scalars alone.
pub(crate) fn scalars(all: &Resources) -> Resources {
    all.iter()
        .filter(|(_, value)| matches!(value, Value::Scalar(_)))
        .fold(Resources::none(), |sum, (kind, value)| sum.with(kind, value.clone()))
}
