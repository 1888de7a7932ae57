//! A shard's projection of the registry.

use crate::About;
use muster_model::{AgentId, Resources, Role, Value};
use muster_registry::{Account, Agent, AgentState, Change, Quota, Registry, RoleSettings};
use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    sync::Arc,
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
    /// What frameworks choose it by beside.
    pub about: Arc<About>,
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
    /// What each role's frameworks hold of what is reserved.
    held_reserved: BTreeMap<Role, Resources>,
    /// What nobody's account holds: strays.
    held_by_nobody: Resources,
    /// What is reserved for each role on every shard's agents.
    reserved: BTreeMap<Role, Resources>,
    /// The weights that operators set, in thousandths.
    weights: BTreeMap<Role, u64>,
    quotas: BTreeMap<Role, Quota>,
}

impl View {
    /// Of an empty registry.
    pub fn empty(shard: ShardId) -> Self {
        Self {
            shard,
            agents: BTreeMap::new(),
            totals: BTreeMap::new(),
            fleet: Resources::none(),
            held: BTreeMap::new(),
            held_reserved: BTreeMap::new(),
            held_by_nobody: Resources::none(),
            reserved: BTreeMap::new(),
            weights: BTreeMap::new(),
            quotas: BTreeMap::new(),
        }
    }

    /// The projection of a registry.
    pub fn of(registry: &Registry, shard: ShardId) -> Self {
        let mut view = Self::empty(shard);
        for agent in registry.agents() {
            if !matches!(agent.state, AgentState::Gone { .. }) {
                view.admit(agent, registry.is_offerable(&agent.id));
                view.reshape(&agent.id, &registry.total_of(agent));
            }
        }
        for (role, settings) in registry.role_settings() {
            view.set_role(role, settings);
        }
        for (id, agent) in &mut view.agents {
            agent.held = registry.held_on(id);
        }
        for (account, resources, n) in registry.held_by_accounts() {
            add(&mut view.held, &account, &resources.quantities().times(n));
            if !resources.is_plain() {
                add(&mut view.held_reserved, &account.1, &reserved_part(resources).quantities().times(n));
            }
        }
        for stray in registry.agents().flat_map(|agent| agent.strays.values()) {
            view.held_by_nobody.add(&stray.resources.quantities());
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
            Change::AgentOfferable { agent_id, offerable } => {
                if let Some(agent) = self.agents.get_mut(agent_id) {
                    agent.offerable = *offerable;
                }
            }
            Change::AgentRemoved(id) => self.remove(id),
            Change::RoleSettings(role, settings) => self.set_role(role, settings),
            Change::TotalChanged { agent_id, total } => self.reshape(agent_id, total),
            Change::HeldChanged { agent_id, account, freed, taken } => {
                self.hold(agent_id, account.as_ref(), freed, taken);
            }
            _ => {}
        }
    }

    fn admit(&mut self, agent: &Agent, offerable: bool) {
        let total = &agent.info.resources;
        self.set_total(&agent.id, total);
        if self.shard.owns(&agent.id) {
            let (hostname, attributes) = (&agent.info.hostname, &agent.info.attributes);
            let about = || Arc::new(About { hostname: hostname.clone(), attributes: attributes.clone() });
            match self.agents.get_mut(&agent.id) {
                Some(view) => {
                    view.total.clone_from(total);
                    view.offerable = offerable;
                    if (&view.about.hostname, &view.about.attributes) != (hostname, attributes) {
                        view.about = about();
                    }
                }
                None => {
                    let (total, held, about) = (total.clone(), Resources::none(), about());
                    self.agents.insert(agent.id.clone(), AgentView { total, held, offerable, about });
                }
            }
        }
    }

    fn set_role(&mut self, role: &Role, settings: &RoleSettings) {
        match settings.weight_milli {
            Some(weight) => _ = self.weights.insert(role.clone(), weight),
            None => _ = self.weights.remove(role),
        }
        match settings.quota.is_empty() {
            true => _ = self.quotas.remove(role),
            false => _ = self.quotas.insert(role.clone(), settings.quota.clone()),
        }
    }

    /// What there is of an agent changed its shape.
    fn reshape(&mut self, id: &AgentId, total: &Resources) {
        self.set_total(id, total);
        if let Some(agent) = self.agents.get_mut(id) {
            agent.total = total.clone();
        }
    }

    fn set_total(&mut self, id: &AgentId, total: &Resources) {
        // So it is of all agents that come back to a new leader.
        if self.totals.get(id) == Some(total) {
            return;
        }
        self.forget_total(id);
        self.totals.insert(id.clone(), total.clone());
        self.fleet.add(&total.quantities());
        for (role, reserved) in total.reserved() {
            add(&mut self.reserved, &role, &reserved.quantities());
        }
    }

    fn forget_total(&mut self, id: &AgentId) {
        let Some(total) = self.totals.remove(id) else { return };
        self.fleet.subtract(&total.quantities());
        for (role, reserved) in total.reserved() {
            subtract(&mut self.reserved, &role, &reserved.quantities());
        }
    }

    fn remove(&mut self, id: &AgentId) {
        self.forget_total(id);
        self.agents.remove(id);
    }

    fn hold(&mut self, id: &AgentId, account: Option<&Account>, freed: &Resources, taken: &Resources) {
        if let Some(agent) = self.agents.get_mut(id) {
            agent.held.subtract(freed);
            agent.held.add(taken);
        }
        let Some(account) = account else {
            self.held_by_nobody.subtract(&freed.quantities());
            self.held_by_nobody.add(&taken.quantities());
            return;
        };
        subtract(&mut self.held, account, &freed.quantities());
        add(&mut self.held, account, &taken.quantities());
        if !freed.is_plain() || !taken.is_plain() {
            subtract(&mut self.held_reserved, &account.1, &reserved_part(freed));
            add(&mut self.held_reserved, &account.1, &reserved_part(taken));
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
    /// What each role's frameworks hold of what is reserved, of every shard.
    pub(crate) fn held_reserved(&self) -> &BTreeMap<Role, Resources> {
        &self.held_reserved
    }
    /// What strays hold, of every shard.
    pub(crate) fn held_by_nobody(&self) -> &Resources {
        &self.held_by_nobody
    }
    /// What is reserved for each role, of every shard's agents.
    pub(crate) fn reserved(&self) -> &BTreeMap<Role, Resources> {
        &self.reserved
    }
    /// The weights that operators set, in thousandths.
    pub(crate) fn weights(&self) -> &BTreeMap<Role, u64> {
        &self.weights
    }
    /// The quotas that operators set.
    pub(crate) fn quotas(&self) -> &BTreeMap<Role, Quota> {
        &self.quotas
    }
    /// Which shard this is the view of.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The fleet's largest total of each scalar kind.
    pub fn largest(&self) -> Resources {
        let mut largest: BTreeMap<&str, u64> = BTreeMap::new();
        for total in self.totals.values() {
            for kind in total.names() {
                let most = largest.entry(kind).or_default();
                *most = (*most).max(total.quantity(kind));
            }
        }
        largest.into_iter().fold(Resources::none(), |all, (kind, most)| all.with(kind, Value::Scalar(most)))
    }
}

/// The scalars of what is reserved.
pub(crate) fn reserved_part(all: &Resources) -> Resources {
    all.filtered(|label| label.is_some()).quantities()
}

pub(crate) fn add<K: Ord + Clone>(sums: &mut BTreeMap<K, Resources>, key: &K, taken: &Resources) {
    match sums.get_mut(key) {
        Some(sum) => sum.add(taken),
        None if taken.is_empty() => {}
        None => drop(sums.insert(key.clone(), taken.clone())),
    }
}

pub(crate) fn subtract<K: Ord + Clone>(sums: &mut BTreeMap<K, Resources>, key: &K, freed: &Resources) {
    if let Some(sum) = sums.get_mut(key) {
        sum.subtract(freed);
        if sum.is_empty() {
            sums.remove(key);
        }
    }
}
