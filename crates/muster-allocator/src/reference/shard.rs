//! The plain machine of one shard.

use super::{
    allocate::{Ask, Room, Standing, allocate},
    quota::{Consumed, Quotas},
};
use crate::{
    Grant, Pass, Policy, Refused, ShardInput, ShardOutput, View, Wishes,
    nouns::Filter,
    view::{add, reserved_part, subtract},
};
use muster_model::{AgentId, FrameworkId, Resources, Role, Timestamp};
use muster_registry::{Account, Change};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A shard of the agents and its offer loop's state.
#[derive(Debug)]
pub(crate) struct Shard {
    view: View,
    policy: Policy,
    wishes: BTreeMap<FrameworkId, Arc<Wishes>>,
    /// Whoever has nothing in common with a filter costs nothing: filters are kept by agent.
    filters: BTreeMap<AgentId, BTreeMap<Account, Vec<Filter>>>,
    granted: BTreeMap<u64, Grant>,
    granted_on: BTreeMap<AgentId, Resources>,
    /// The scalars that each account has, held or granted, and those of each role together.
    has: BTreeMap<Account, Resources>,
    role_has: BTreeMap<Role, Resources>,
    /// What each role has granted of what is reserved.
    granted_reserved: BTreeMap<Role, Resources>,
    /// What the other shards have granted, where there are quotas.
    elsewhere: BTreeMap<Role, Resources>,
    grants_counted: u64,
    /// Agents that may have something to offer.
    dirty: BTreeSet<AgentId>,
}

impl Shard {
    /// A shard that starts from a view.
    pub(crate) fn new(view: View, policy: Policy) -> Self {
        let mut shard = Self {
            view,
            policy,
            wishes: BTreeMap::new(),
            filters: BTreeMap::new(),
            granted: BTreeMap::new(),
            granted_on: BTreeMap::new(),
            has: BTreeMap::new(),
            role_has: BTreeMap::new(),
            granted_reserved: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            grants_counted: 0,
            dirty: BTreeSet::new(),
        };
        shard.count();
        shard.all_dirty();
        shard
    }

    /// Counts anew what everyone has.
    fn count(&mut self) {
        (self.has, self.role_has) = self.counted();
    }

    fn counted(&self) -> (BTreeMap<Account, Resources>, BTreeMap<Role, Resources>) {
        let (mut has, mut role_has) = (self.view.held().clone(), BTreeMap::new());
        for grant in self.granted.values() {
            let account = (grant.framework_id.clone(), grant.role.clone());
            add(&mut has, &account, &grant.resources.quantities());
        }
        has.iter().for_each(|((_, role), resources)| add(&mut role_has, role, resources));
        (has, role_has)
    }

    fn takes(&mut self, account: &Account, taken: &Resources) {
        add(&mut self.has, account, taken);
        add(&mut self.role_has, &account.1, taken);
    }

    fn gives(&mut self, account: &Account, freed: &Resources) {
        subtract(&mut self.has, account, freed);
        subtract(&mut self.role_has, &account.1, freed);
    }

    /// Takes what happened in, and allocates what became free.
    pub(crate) fn step(
        &mut self,
        now: Timestamp,
        inputs: impl IntoIterator<Item = ShardInput>,
    ) -> ShardOutput {
        for input in inputs {
            match input {
                ShardInput::Changed(changes) => changes.iter().for_each(|change| self.fold(change)),
                ShardInput::Wish(framework_id, wishes) => self.wish(framework_id, wishes),
                ShardInput::Revive(framework_id, roles) => self.revive(&framework_id, &roles),
                ShardInput::Returned(n, refused) => self.returned(n, refused),
                ShardInput::Elsewhere(by_role) => {
                    let gives = |(role, before): (&Role, &Resources)| {
                        by_role.get(role).is_none_or(|now| !now.contains(before))
                    };
                    if self.elsewhere.iter().any(gives) {
                        self.all_dirty();
                    }
                    self.elsewhere = by_role;
                }
                ShardInput::Reset(registry) => {
                    self.view = View::of(&registry, self.view.shard());
                    let view = &self.view;
                    self.filters.retain(|id, _| view.agents().contains_key(id));
                    self.count();
                    self.all_dirty();
                }
            }
        }
        self.end_filters(now);
        let (grants, passes) = self.allocate();
        let filters = self.filters.values().flat_map(BTreeMap::values).flatten();
        ShardOutput { grants, passes, wake_at: filters.map(|filter| filter.until).min() }
    }

    fn all_dirty(&mut self) {
        self.dirty = self.view.agents().keys().cloned().collect();
    }

    fn fold(&mut self, change: &Change) {
        self.view.fold(change);
        match change {
            Change::AgentAdmitted(agent) => self.dirty.extend([agent.id.clone()]),
            Change::AgentOfferable { agent_id, offerable: true } => self.dirty.extend([agent_id.clone()]),
            Change::TotalChanged { agent_id, .. } => self.dirty.extend([agent_id.clone()]),
            Change::HeldChanged { agent_id, account, freed, taken } => {
                if let Some(account) = account {
                    self.gives(account, &freed.quantities());
                    self.takes(account, &taken.quantities());
                }
                if !freed.is_empty() {
                    self.dirty.extend([agent_id.clone()]);
                    self.quota_freed();
                }
            }
            Change::RoleSettings(..) => self.all_dirty(),
            Change::AgentRemoved(id) => {
                self.filters.remove(id);
            }
            _ => {}
        }
    }

    fn wish(&mut self, framework_id: FrameworkId, wishes: Option<Wishes>) {
        match wishes {
            Some(wishes) => {
                self.wishes.insert(framework_id, Arc::new(wishes));
                self.all_dirty();
            }
            None => {
                self.wishes.remove(&framework_id);
                self.filters
                    .values_mut()
                    .for_each(|by_account| by_account.retain(|(id, _), _| *id != framework_id));
            }
        }
    }

    fn revive(&mut self, framework_id: &FrameworkId, roles: &BTreeSet<Role>) {
        for by_account in self.filters.values_mut() {
            by_account.retain(|(id, role), _| id != framework_id || !roles.contains(role));
        }
        self.all_dirty();
    }

    fn returned(&mut self, n: u64, refused: Option<Refused>) {
        let Some(grant) = self.granted.remove(&n) else { return };
        let account = (grant.framework_id, grant.role);
        subtract(&mut self.granted_on, &grant.agent_id, &grant.resources);
        self.gives(&account, &grant.resources.quantities());
        if !grant.resources.is_plain() {
            subtract(&mut self.granted_reserved, &account.1, &reserved_part(&grant.resources));
        }
        self.dirty.insert(grant.agent_id.clone());
        self.quota_freed();
        let is_there = self.view.agents().contains_key(&grant.agent_id);
        if let Some(Refused { resources, until }) = refused.filter(|it| is_there && !it.resources.is_empty())
        {
            let filters = self.filters.entry(grant.agent_id).or_default().entry(account).or_default();
            // A newer refusal of more makes an older one of less needless.
            filters.retain(|old| old.until > until || !resources.contains(&old.refused));
            filters.push(Filter { refused: resources, until });
        }
    }

    fn end_filters(&mut self, now: Timestamp) {
        for (agent_id, by_account) in &mut self.filters {
            for filters in by_account.values_mut() {
                let before = filters.len();
                filters.retain(|filter| filter.until > now);
                if filters.len() < before {
                    self.dirty.insert(agent_id.clone());
                }
            }
        }
    }

    /// The rooms of the agents that changed since the last pass.
    fn rooms(&mut self) -> Vec<Room> {
        let dirty = std::mem::take(&mut self.dirty);
        let agents = dirty.into_iter().filter_map(|id| self.view.agents().get_key_value(&id));
        let offerable = agents.filter(|(_, agent)| agent.offerable);
        let rooms = offerable.map(|(id, agent)| {
            let mut free = agent.total.minus(&agent.held);
            if let Some(granted) = self.granted_on.get(id) {
                free.subtract(granted);
            }
            Room { agent_id: id.clone(), about: agent.about.clone(), total: agent.total.clone(), free }
        });
        rooms.filter(|room| !room.free.is_empty()).collect()
    }

    /// What counts against quotas.
    fn consumed(&self) -> Consumed {
        let mut by_role = self.role_has.clone();
        for (role, reserved) in self.view.held_reserved().iter().chain(&self.granted_reserved) {
            subtract(&mut by_role, role, reserved);
        }
        for (role, granted) in &self.elsewhere {
            add(&mut by_role, role, granted);
        }
        let mut free = self.view.fleet().minus(self.view.held_by_nobody());
        by_role.values().chain(self.view.reserved().values()).for_each(|it| free.subtract(it));
        Consumed { by_role, reserved: self.view.reserved().clone(), free }
    }

    fn quotas(&self) -> Quotas {
        match self.view.quotas().is_empty() {
            true => Quotas::default(),
            false => Quotas::new(self.view.quotas(), &self.consumed()),
        }
    }

    /// Where there are quotas, what one agent's resources were given back for may be had of any other.
    fn quota_freed(&mut self) {
        if !self.view.quotas().is_empty() {
            self.all_dirty();
        }
    }

    fn allocate(&mut self) -> (Vec<Grant>, Vec<Pass>) {
        let mut rooms = self.rooms();
        if rooms.is_empty() || self.wishes.is_empty() {
            return Default::default();
        }
        debug_assert!((self.has.clone(), self.role_has.clone()) == self.counted(), "sums are kept up");
        let mut asks = Vec::new();
        for (framework_id, wishes) in &self.wishes {
            for role in &wishes.roles {
                let account = (framework_id.clone(), role.clone());
                let has = self.has.get(&account).cloned().unwrap_or_default();
                asks.push(Ask { account, has, wishes: wishes.clone() });
            }
        }
        let largest = match asks.iter().all(|ask| ask.wishes.needs.is_empty()) {
            true => Resources::none(),
            false => self.view.largest(),
        };
        let hidden = |ask: &Ask, room: &Room, part: &Resources| {
            let filters =
                self.filters.get(&room.agent_id).and_then(|by_account| by_account.get(&ask.account));
            filters.is_some_and(|filters| filters.iter().any(|filter| filter.refused.contains(part)))
        };
        let standing = Standing {
            roles: &self.role_has,
            fleet: self.view.fleet(),
            largest: &largest,
            policy: &self.policy,
            weights: self.view.weights(),
            hidden: &hidden,
        };
        let (given, passes) = allocate(&mut rooms, &mut asks, &standing, &mut self.quotas());
        let grants = given.into_iter();
        let grants = grants.map(|(ask, room, part)| self.grant(&asks[ask].account, &rooms[room], part));
        (grants.collect(), passes)
    }

    fn grant(&mut self, account: &Account, room: &Room, resources: Resources) -> Grant {
        self.grants_counted += 1;
        add(&mut self.granted_on, &room.agent_id, &resources);
        self.takes(account, &resources.quantities());
        if !resources.is_plain() {
            add(&mut self.granted_reserved, &account.1, &reserved_part(&resources));
        }
        let grant = Grant {
            n: self.grants_counted,
            framework_id: account.0.clone(),
            role: account.1.clone(),
            agent_id: room.agent_id.clone(),
            resources: resources.into(),
        };
        self.granted.insert(grant.n, grant.clone());
        grant
    }
}
