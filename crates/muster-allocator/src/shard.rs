//! The machine of one shard: its view, its outstanding grants, its filters.

use crate::{
    Grant, Pass, Policy, Refused, ShardInput, ShardOutput, View, Wishes,
    accounts::Accounts,
    allocate::{Standing, allocate},
    kinds::{Kinds, Row},
    nouns::Filter,
    plan::{Answers, Plan},
    quota::{Consumed, Quotas},
    room::{Given, Room},
    sites::Sites,
    view::{add, reserved_part, subtract},
};
use muster_model::{FrameworkId, Resources, Role, Timestamp};
use muster_registry::{Account, Change};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A grant that stands: to whom, of whom, what.
#[derive(Debug)]
struct Granted {
    account: u32,
    site: u32,
    resources: Arc<Resources>,
    /// In numbers.
    amounts: Row,
    /// Whether nothing of it is under a label.
    is_plain: bool,
}

/// A shard of the agents and its offer loop's state. Names are looked up where something is told; within, agents and
/// accounts are known by their places, and scalars are rows of numbers.
#[derive(Debug)]
pub struct Shard {
    view: View,
    policy: Policy,
    wishes: BTreeMap<FrameworkId, Arc<Wishes>>,
    kinds: Kinds,
    accounts: Accounts,
    sites: Sites,
    granted: BTreeMap<u64, Granted>,
    /// What each role has granted of what is reserved.
    granted_reserved: BTreeMap<Role, Resources>,
    /// What the other shards have granted, where there are quotas.
    elsewhere: BTreeMap<Role, Resources>,
    grants_counted: u64,
    /// The rooms of a pass and what it gave: empty between two passes, but the memory is kept.
    rooms: Vec<Room>,
    given: Vec<Given>,
    /// Who asks for what, unless that changed.
    plan: Option<Plan>,
    answers: Answers,
    /// The fleet's largest total of each kind, unless that changed.
    largest: Option<Resources>,
}

impl Shard {
    /// A shard that starts from a view.
    pub fn new(view: View, policy: Policy) -> Self {
        let mut shard = Self {
            view: View::empty(view.shard()),
            policy,
            wishes: BTreeMap::new(),
            kinds: Kinds::default(),
            accounts: Accounts::default(),
            sites: Sites::default(),
            granted: BTreeMap::new(),
            granted_reserved: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            grants_counted: 0,
            rooms: Vec::new(),
            given: Vec::new(),
            plan: None,
            answers: Answers::default(),
            largest: None,
        };
        shard.reset(view);
        shard
    }

    fn reset(&mut self, view: View) {
        self.view = view;
        self.largest = None;
        self.sites.reset(&self.view);
        self.sites.all_dirty();
        self.count();
    }

    /// Counts anew what everyone has. Accounts that have filters or want something keep their places.
    fn count(&mut self) {
        let mut accounts = Accounts::default();
        (self.kinds, self.plan) = (Kinds::default(), None);
        for (account, held) in self.view.held() {
            let place = accounts.place(account);
            accounts.takes(place, &self.kinds.amounts(held));
        }
        for grant in self.granted.values_mut() {
            grant.account = accounts.place(&self.accounts.row(grant.account).account);
            grant.amounts = self.kinds.amounts(&grant.resources).into();
            accounts.takes(grant.account, &grant.amounts);
        }
        for (framework_id, wishes) in &self.wishes {
            wishes.roles.iter().for_each(|role| _ = accounts.place(&(framework_id.clone(), role.clone())));
        }
        let filtered: BTreeSet<u32> = self.sites.filtered_accounts().collect();
        let places = (0..self.accounts.len() as u32)
            .map(|old| filtered.contains(&old).then(|| accounts.place(&self.accounts.row(old).account)));
        self.sites.move_accounts(&places.collect::<Vec<_>>());
        self.accounts = accounts;
        self.accounts.all_of_use();
        // Rows of numbers are of the former kinds.
        self.sites.all_stale();
    }

    /// Takes what happened in, and allocates what became free.
    pub fn step(&mut self, now: Timestamp, inputs: impl IntoIterator<Item = ShardInput>) -> ShardOutput {
        self.take_in(now, inputs);
        self.pass()
    }

    /// The first half of a [step](Self::step): what happened.
    pub fn take_in(&mut self, now: Timestamp, inputs: impl IntoIterator<Item = ShardInput>) {
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
                        self.sites.all_dirty();
                    }
                    self.elsewhere = by_role;
                }
                ShardInput::Reset(registry) => self.reset(View::of(&registry, self.view.shard())),
            }
        }
        self.sites.end_filters(now);
        if self.accounts.has_grown() {
            self.count();
        }
    }

    fn fold(&mut self, change: &Change) {
        self.view.fold(change);
        match change {
            Change::AgentAdmitted(agent) => {
                self.largest = None;
                self.agent_changed(&agent.id, true);
            }
            Change::AgentOfferable { agent_id, offerable } => self.agent_changed(agent_id, *offerable),
            Change::AgentDisconnected(id, _) | Change::AgentUnreachable(id) => self.agent_changed(id, false),
            Change::TermBegan => self.sites.all_stale(),
            Change::TotalChanged { agent_id, .. } => {
                self.largest = None;
                self.agent_changed(agent_id, true);
            }
            Change::HeldChanged { agent_id, account, freed, taken } => {
                if let Some(account) = account {
                    let place = self.accounts.place(account);
                    self.accounts.gives(place, &self.kinds.amounts(freed));
                    self.accounts.takes(place, &self.kinds.amounts(taken));
                }
                self.agent_changed(agent_id, !freed.is_empty());
                if !freed.is_empty() {
                    self.quota_freed();
                }
            }
            Change::RoleSettings(..) => {
                self.plan = None;
                self.sites.all_dirty();
            }
            Change::AgentRemoved(id) => {
                self.largest = None;
                self.sites.remove(id);
            }
            _ => {}
        }
    }

    /// The view knows something new of an agent, of which there may be more to offer.
    fn agent_changed(&mut self, id: &muster_model::AgentId, more: bool) {
        let place = match self.view.agents().contains_key(id) {
            true => Some(self.sites.changed(id)),
            false => None, // another shard's
        };
        if let Some(place) = place.filter(|_| more) {
            self.sites.dirty(place);
        }
    }

    fn wish(&mut self, framework_id: FrameworkId, wishes: Option<Wishes>) {
        self.plan = None;
        match wishes {
            Some(wishes) => {
                self.wishes.insert(framework_id, Arc::new(wishes));
                self.sites.all_dirty();
            }
            None => {
                self.wishes.remove(&framework_id);
                let accounts = &self.accounts;
                self.sites.forget_filters_of(|place| accounts.row(place).account.0 == framework_id);
            }
        }
    }

    fn revive(&mut self, framework_id: &FrameworkId, roles: &BTreeSet<Role>) {
        let accounts = roles.iter().map(|role| self.accounts.find(&(framework_id.clone(), role.clone())));
        let accounts: BTreeSet<u32> = accounts.flatten().collect();
        self.sites.forget_filters_of(|place| accounts.contains(&place));
        self.sites.all_dirty();
    }

    fn returned(&mut self, n: u64, refused: Option<Refused>) {
        let Some(Granted { account, site, resources, amounts, is_plain }) = self.granted.remove(&n) else {
            return;
        };
        self.accounts.gives(account, &amounts);
        if !is_plain {
            let role = &self.accounts.row(account).account.1;
            subtract(&mut self.granted_reserved, role, &reserved_part(&resources));
        }
        self.sites.returned(site, n);
        self.quota_freed();
        if let Some(Refused { resources, until }) = refused.filter(|it| !it.resources.is_empty()) {
            self.sites.filter(site, account, Filter { refused: resources, until });
        }
    }

    /// What counts against quotas.
    fn consumed(&self) -> Consumed {
        let mut by_role = self.accounts.roles_named(&self.kinds);
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

    fn quotas(&mut self) -> Quotas {
        match self.view.quotas().is_empty() {
            true => Quotas::default(),
            false => {
                let consumed = self.consumed();
                Quotas::new(self.view.quotas(), &consumed, &mut self.kinds)
            }
        }
    }

    /// Where there are quotas, what one agent's resources were given back for may be had of any other.
    fn quota_freed(&mut self) {
        if !self.view.quotas().is_empty() {
            self.sites.all_dirty();
        }
    }

    /// The other half of a [step](Self::step): allocates what became free.
    pub fn pass(&mut self) -> ShardOutput {
        let (grants, passes) = self.allocate();
        ShardOutput { grants, passes, wake_at: self.sites.next_end() }
    }

    /// The agents that may have something to offer, each with what of it is free.
    fn find_rooms(&mut self) {
        let answers = &mut self.answers;
        let dirty = self.sites.take_dirty(&self.view, &mut self.kinds, |place| answers.forget(place));
        self.rooms.reserve(dirty.len());
        for &place in &dirty {
            let site = self.sites.site(place);
            if !site.offerable || site.is_all_granted || site.rest.is_empty() {
                continue;
            }
            if site.grants.is_empty() {
                self.rooms.push(Room::new(place, site, None, &self.kinds));
                continue;
            }
            let mut rest = Resources::clone(&site.rest);
            let granted = site.grants.iter().filter_map(|n| self.granted.get(n));
            granted.for_each(|granted| rest.subtract(&granted.resources));
            match rest.is_empty() {
                true => self.sites.all_granted(place),
                false => self.rooms.push(Room::new(place, site, Some(rest), &self.kinds)),
            }
        }
        self.sites.give_back(dirty);
    }

    fn plan(&mut self) -> Plan {
        let kept = self.plan.take().filter(|plan| plan.shape.roles() == self.accounts.roles().len());
        kept.unwrap_or_else(|| {
            let (set, policy) = (self.view.weights(), &self.policy.weights);
            Plan::new(&self.wishes, &mut self.accounts, &mut self.answers, |role| {
                set.get(role).or_else(|| policy.get(role)).copied().unwrap_or(Policy::WEIGHT_MILLI)
            })
        })
    }

    fn allocate(&mut self) -> (Vec<Grant>, Vec<Pass>) {
        self.find_rooms();
        if self.rooms.is_empty() || self.wishes.is_empty() {
            self.rooms.clear();
            return Default::default();
        }
        debug_assert!(self.is_counted(), "sums are kept up");
        let plan = self.plan();
        if plan.is_any_choosy && self.largest.is_none() {
            self.largest = Some(self.view.largest());
        }
        // First what all agents have: that may be of kinds that nobody here has or ever got, and quotas count all kinds.
        let mut fleet = self.kinds.amounts(self.view.fleet());
        let mut quotas = self.quotas();
        fleet.resize(self.kinds.len(), 0);
        let none = Arc::default();
        let standing = Standing {
            plan: &plan,
            accounts: &self.accounts,
            sites: &self.sites,
            kinds: &self.kinds,
            fleet: &fleet,
            cpus_and_mem: (self.kinds.find("cpus"), self.kinds.find("mem")),
            largest: self.largest.as_ref().unwrap_or(&none),
            policy: &self.policy,
            nothing: &none,
        };
        let mut given = std::mem::take(&mut self.given);
        let passes = allocate(&mut self.rooms, &standing, &mut self.answers, &mut quotas, &mut given);
        let mut grants = Vec::with_capacity(given.len());
        grants.extend(given.drain(..).map(|given| self.grant(plan.asks[given.ask as usize].account, given)));
        self.rooms.clear();
        (self.plan, self.given) = (Some(plan), given);
        (grants, passes)
    }

    fn grant(&mut self, account: u32, given: Given) -> Grant {
        let Given { place, part: resources, amounts, is_plain, is_all, .. } = given;
        self.grants_counted += 1;
        let n = self.grants_counted;
        self.accounts.takes(account, &amounts);
        let (framework_id, role) = self.accounts.row(account).account.clone();
        if !is_plain {
            add(&mut self.granted_reserved, &role, &reserved_part(&resources));
        }
        let site = self.sites.site_mut(place);
        site.grants.push(n);
        let agent_id = site.id.clone();
        if is_all {
            self.sites.all_granted(place);
        }
        let grant = Grant { n, framework_id, role, agent_id, resources: resources.clone() };
        self.granted.insert(n, Granted { account, site: place, resources, amounts, is_plain });
        grant
    }

    /// Whether the sums are what counting gives.
    fn is_counted(&self) -> bool {
        let (mut has, mut role_has) = (self.view.held().clone(), BTreeMap::new());
        for grant in self.granted.values() {
            let account: &Account = &self.accounts.row(grant.account).account;
            add(&mut has, account, &grant.resources.quantities());
        }
        has.iter().for_each(|((_, role), resources)| add(&mut role_has, role, resources));
        (has, role_has) == (self.accounts.named(&self.kinds), self.accounts.roles_named(&self.kinds))
    }

    /// How many accounts have a place.
    #[cfg(test)]
    pub(crate) fn accounts_kept(&self) -> usize {
        self.accounts.len()
    }

    /// How many grants there were.
    #[cfg(test)]
    pub(crate) fn grants_counted(&self) -> u64 {
        self.grants_counted
    }

    /// The shard's view.
    pub fn view(&self) -> &View {
        &self.view
    }
}
