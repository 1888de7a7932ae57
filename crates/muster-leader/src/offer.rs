//! Outstanding offers, found by id, by framework and by agent; and how grants become offers.

use crate::{Effect, Leader};
use muster_allocator::{Grant, ShardOutput};
use muster_model::{
    AgentId, FrameworkId, Offer, OfferId, Resources, Role, Term, Timestamp, event::OfferWithAgent,
};
use muster_registry::Registry;
use std::collections::{BTreeMap, BTreeSet};

/// Offers in one event.
pub(crate) const OFFERS_PER_EVENT: usize = 500;
/// An event that holds this many bytes of agents' descriptions and of executors' ids takes no further offer. One description is at most 1 MiB,
/// so that a frame stays well below what a link carries.
const EVENT_BYTES: usize = 1 << 20;

/// An offer that stands, and the grant it came from.
#[derive(Debug, Clone)]
pub(crate) struct Outstanding {
    pub(crate) offer: Offer,
    pub(crate) shard: u32,
    pub(crate) grant: u64,
    pub(crate) deadline: Timestamp,
}

impl Outstanding {
    fn number(&self) -> Number {
        Number { shard: self.shard, grant: self.grant }
    }
}

/// What sets an offer's id apart from all others of its term: the shard, and the number of the grant it came from. Offers
/// are kept by these; ids are long texts that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Number {
    shard: u32,
    grant: u64,
}

impl Number {
    /// An offer's id.
    fn id(self, registry: &Registry, term: Term) -> OfferId {
        OfferId::new(format!("{}-O{term}-{}-{}", registry.cluster_id(), self.shard, self.grant))
    }

    /// What is said at the end of an id, whose beginning may be any.
    fn said(id: &OfferId) -> Option<Self> {
        let mut parts = id.as_str().rsplitn(3, '-');
        let (grant, shard) = (parts.next()?, parts.next()?);
        Some(Self { shard: shard.parse().ok()?, grant: grant.parse().ok()? })
    }
}

/// All offers that stand.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    /// Of each shard, by grant: these are numbered as they come, and so the first is due first.
    by_shard: Vec<BTreeMap<u64, Outstanding>>,
    by_framework: BTreeMap<FrameworkId, BTreeSet<Number>>,
    /// Of each agent that was offered: the place is kept for its next offer, until the agent goes.
    by_agent: BTreeMap<AgentId, Vec<Number>>,
    /// Offers whose ACCEPT is on its way through the log, with their agent.
    accepting: BTreeMap<OfferId, AgentId>,
    /// While somebody has a quota: what stands.
    sums: Option<Sums>,
}

/// What stands of what is not reserved, in scalars, by shard and role.
#[derive(Debug, Default)]
struct Sums {
    by_shard: BTreeMap<u32, BTreeMap<Role, Resources>>,
    /// Nobody was told of it since it changed.
    changed: bool,
}

impl Sums {
    fn add(&mut self, outstanding: &Outstanding, sign: fn(&mut Resources, &Resources)) {
        let roles = self.by_shard.entry(outstanding.shard).or_default();
        let sum = roles.entry(outstanding.offer.role.clone()).or_default();
        sign(sum, &outstanding.offer.resources.unreserved().quantities());
        self.changed = true;
    }
}

impl Offers {
    /// Counts from now on, or no more, what stands by shard and role.
    pub(crate) fn count_by_role(&mut self, count: bool) {
        if count == self.sums.is_some() {
            return;
        }
        self.sums = count.then(|| {
            let mut sums = Sums { changed: true, ..Sums::default() };
            let all = self.by_shard.iter().flat_map(BTreeMap::values);
            all.for_each(|outstanding| sums.add(outstanding, Resources::add));
            sums
        });
    }

    /// What stands by shard and role, if that changed since it was asked for.
    pub(crate) fn changed_sums(&mut self) -> Option<&BTreeMap<u32, BTreeMap<Role, Resources>>> {
        let sums = self.sums.as_mut()?;
        std::mem::take(&mut sums.changed).then_some(&sums.by_shard)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_shard.iter().map(BTreeMap::len).sum()
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Offer> {
        self.by_shard.iter().flat_map(BTreeMap::values).map(|outstanding| &outstanding.offer)
    }
    pub(crate) fn get(&self, id: &OfferId) -> Option<&Outstanding> {
        self.numbered(Number::said(id)?).filter(|it| it.offer.offer_id == *id)
    }

    fn numbered(&self, number: Number) -> Option<&Outstanding> {
        self.by_shard.get(number.shard as usize)?.get(&number.grant)
    }

    /// How many stand for a framework.
    pub(crate) fn count_of(&self, id: &FrameworkId) -> usize {
        self.by_framework.get(id).map_or(0, BTreeSet::len)
    }

    pub(crate) fn insert(&mut self, mut outstanding: Outstanding) {
        let (offer, number) = (&outstanding.offer, outstanding.number());
        match self.by_framework.get_mut(&offer.framework_id) {
            Some(numbers) => _ = numbers.insert(number),
            None => _ = self.by_framework.insert(offer.framework_id.clone(), [number].into()),
        }
        match self.by_agent.get_mut(&offer.agent_id) {
            Some(numbers) => numbers.push(number),
            None => _ = self.by_agent.insert(offer.agent_id.clone(), vec![number]),
        }
        if let Some(sums) = &mut self.sums {
            sums.add(&outstanding, Resources::add);
        }
        let shard = number.shard as usize;
        if self.by_shard.len() <= shard {
            self.by_shard.resize_with(shard + 1, BTreeMap::new);
        }
        // Time as it is seen here may step back a little: who comes later is due later all the same.
        if let Some(last) = self.by_shard[shard].values().next_back() {
            debug_assert!(last.grant < outstanding.grant);
            outstanding.deadline = outstanding.deadline.max(last.deadline);
        }
        self.by_shard[shard].insert(number.grant, outstanding);
    }

    pub(crate) fn take(&mut self, id: &OfferId) -> Option<Outstanding> {
        let number = self.get(id)?.number();
        self.take_numbered(number)
    }

    fn take_numbered(&mut self, number: Number) -> Option<Outstanding> {
        let outstanding = self.by_shard.get_mut(number.shard as usize)?.remove(&number.grant)?;
        let Offer { framework_id, agent_id, .. } = &outstanding.offer;
        if let Some(numbers) = self.by_framework.get_mut(framework_id) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_framework.remove(framework_id);
            }
        }
        if let Some(numbers) = self.by_agent.get_mut(agent_id) {
            numbers.retain(|it| *it != number);
        }
        if let Some(sums) = &mut self.sums {
            sums.add(&outstanding, Resources::subtract);
        }
        Some(outstanding)
    }

    pub(crate) fn take_of_framework(&mut self, id: &FrameworkId) -> Vec<Outstanding> {
        let numbers = self.by_framework.remove(id).unwrap_or_default();
        numbers.into_iter().filter_map(|number| self.take_numbered(number)).collect()
    }

    /// Those of a framework that are in none of these roles.
    pub(crate) fn take_of_framework_but(
        &mut self,
        id: &FrameworkId,
        roles: &BTreeSet<Role>,
    ) -> Vec<Outstanding> {
        let numbers = self.by_framework.get(id).into_iter().flatten().copied();
        let is_out =
            |number: &Number| self.numbered(*number).is_some_and(|it| !roles.contains(&it.offer.role));
        let out: Vec<Number> = numbers.filter(is_out).collect();
        out.into_iter().filter_map(|number| self.take_numbered(number)).collect()
    }

    /// Those of an agent.
    fn on(&self, id: &AgentId) -> impl Iterator<Item = &Outstanding> {
        self.by_agent.get(id).into_iter().flatten().filter_map(|number| self.numbered(*number))
    }

    /// Frameworks that were offered something of an agent.
    pub(crate) fn frameworks_on(&self, id: &AgentId) -> impl Iterator<Item = &FrameworkId> {
        self.on(id).map(|it| &it.offer.framework_id)
    }

    pub(crate) fn take_all(&mut self) -> Vec<Outstanding> {
        let all: Vec<Number> =
            self.by_shard.iter().flat_map(BTreeMap::values).map(Outstanding::number).collect();
        all.into_iter().filter_map(|number| self.take_numbered(number)).collect()
    }

    /// Those of an agent that goes, or of which they are void.
    pub(crate) fn take_of_agent(&mut self, id: &AgentId) -> Vec<Outstanding> {
        let numbers = self.by_agent.remove(id).unwrap_or_default();
        numbers.into_iter().filter_map(|number| self.take_numbered(number)).collect()
    }

    /// Those of an agent, in the order they were made.
    pub(crate) fn of_agent(&self, id: &AgentId) -> Vec<OfferId> {
        self.on(id).map(|it| it.offer.offer_id.clone()).collect()
    }

    pub(crate) fn take_due(&mut self, now: Timestamp) -> Option<Outstanding> {
        let first = self.first_due().filter(|first| first.deadline <= now)?.number();
        self.take_numbered(first)
    }

    fn first_due(&self) -> Option<&Outstanding> {
        let firsts = self.by_shard.iter().filter_map(|offers| offers.values().next());
        firsts.min_by_key(|it| it.deadline)
    }

    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.first_due().map(|it| it.deadline)
    }

    pub(crate) fn begin_accept(&mut self, outstanding: &Outstanding) {
        self.accepting.insert(outstanding.offer.offer_id.clone(), outstanding.offer.agent_id.clone());
    }
    pub(crate) fn end_accept(&mut self, id: &OfferId) {
        self.accepting.remove(id);
    }
    /// The agent of an offer whose ACCEPT is undecided.
    pub(crate) fn accepting(&self, id: &OfferId) -> Option<&AgentId> {
        self.accepting.get(id)
    }
}

/// Offers in events of bounded size, in order.
pub(crate) fn events(offers: Vec<OfferWithAgent>) -> Vec<Vec<OfferWithAgent>> {
    let (mut events, mut bytes) = (Vec::<Vec<_>>::new(), 0);
    for offer in offers {
        let ids = offer.executor_ids.iter().map(|id| id.as_str().len());
        let size = offer.agent.len() + ids.sum::<usize>();
        match events.last_mut() {
            Some(event) if event.len() < OFFERS_PER_EVENT && bytes < EVENT_BYTES => event.push(offer),
            _ => {
                events.push(vec![offer]);
                bytes = 0;
            }
        }
        bytes += size;
    }
    events
}

impl Leader {
    /// A shard's pass is done: its grants become offers, or go back if the world moved on meanwhile.
    pub(crate) fn allocated(
        &mut self,
        now: Timestamp,
        registry: &Registry,
        shard: u32,
        output: ShardOutput,
        effects: &mut Vec<Effect>,
    ) {
        let reshaped = self.shards.done(shard, output.wake_at);
        let mut offers: BTreeMap<FrameworkId, Vec<OfferWithAgent>> = BTreeMap::new();
        for grant in output.grants {
            let wanted = self.frameworks.get(&grant.framework_id).is_some_and(|session| {
                session.roles.contains(&grant.role) && !session.suppressed.contains(&grant.role)
            });
            if !wanted {
                self.shards.returned_grant(shard, grant.n, None);
                continue;
            }
            let agent = registry.offerable(&grant.agent_id);
            let agent = agent.filter(|agent| self.agents.contains_key(&agent.id));
            let Some(agent) = agent else {
                self.shards.returned_early(shard, grant.n);
                continue;
            };
            if reshaped.contains(&agent.id) && !self.free_on(registry, agent).contains(&grant.resources) {
                // The shard hears of the change before of this.
                self.shards.returned_grant(shard, grant.n, None);
                continue;
            }
            let outstanding = self.outstanding(now, registry, shard, grant);
            let offer = OfferWithAgent {
                offer: outstanding.offer.clone(),
                hostname: agent.info.hostname.clone(),
                port: agent.info.port,
                agent: agent.sealed.clone(),
                unavailability: registry.unavailability(&agent.id),
                executor_ids: registry
                    .executors_on(&agent.id, &outstanding.offer.framework_id)
                    .cloned()
                    .collect(),
            };
            offers.entry(offer.offer.framework_id.clone()).or_default().push(offer);
            self.offers.insert(outstanding);
        }
        for (framework_id, offers) in offers {
            self.tell_offers(now, &framework_id, offers, effects);
        }
    }

    fn outstanding(&self, now: Timestamp, registry: &Registry, shard: u32, grant: Grant) -> Outstanding {
        let offer_id = Number { shard, grant: grant.n }.id(registry, self.term);
        Outstanding {
            offer: Offer {
                offer_id,
                framework_id: grant.framework_id,
                role: grant.role,
                agent_id: grant.agent_id,
                resources: grant.resources,
            },
            shard,
            grant: grant.n,
            deadline: now.plus_ms(self.config.offer_timeout_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_model::{Resources, Role, Sealed};

    fn offers(count: usize, bytes: usize) -> Vec<OfferWithAgent> {
        let offer = |n: usize| OfferWithAgent {
            offer: Offer {
                offer_id: OfferId::new(format!("o{n}")),
                framework_id: FrameworkId::new("f"),
                role: Role::any(),
                agent_id: AgentId::new(format!("a{n}")),
                resources: Resources::of(1000, 1).into(),
            },
            hostname: "h".into(),
            port: 5051,
            agent: Sealed::new(vec![7; bytes]),
            unavailability: None,
            executor_ids: Vec::new(),
        };
        (0..count).map(offer).collect()
    }

    #[test]
    fn offers_come_in_events_of_bounded_size() {
        for (count, bytes, most) in [(1_201, 100, 500), (40, 100 << 10, 11), (3, 1 << 20, 1), (0, 0, 0)] {
            let all = offers(count, bytes);
            let events = events(all.clone());
            assert_eq!(events.iter().map(Vec::len).max().unwrap_or(0), most);
            assert_eq!(events.concat(), all, "nothing is left out, and the order is kept");
        }
    }

    fn outstanding(id: &str, shard: u32, grant: u64, deadline: u64) -> Outstanding {
        let offer = Offer { offer_id: OfferId::new(id), ..offers(1, 1)[0].offer.clone() };
        Outstanding { offer, shard, grant, deadline: Timestamp(deadline) }
    }

    #[test]
    fn an_offer_is_found_by_its_whole_id() {
        let mut all = Offers::default();
        all.insert(outstanding("c-1-O2-1-7", 1, 7, 9));
        for id in
            ["c-1-O2-1-7", "c-1-O2-1-07", "c-1-O2-1-+7", "c-1-O1-1-7", "c-1-O2-0-7", "1-7", "7", "c-1-O2-1-"]
        {
            assert_eq!(all.get(&OfferId::new(id)).is_some(), id == "c-1-O2-1-7", "{id}");
        }
        assert!(all.take(&OfferId::new("c-1-O1-1-7")).is_none());
        assert!(all.take(&OfferId::new("c-1-O2-1-7")).is_some());
        assert_eq!((all.len(), all.count_of(&FrameworkId::new("f"))), (0, 0));
        assert!(all.by_framework.is_empty() && all.take_of_agent(&AgentId::new("a0")).is_empty());
        assert!(all.by_agent.is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn offers_are_due_by_their_deadlines_whatever_their_shard() {
        let mut all = Offers::default();
        for (shard, grant, deadline) in [(1, 1, 10), (0, 1, 20), (1, 2, 30), (0, 2, 30)] {
            all.insert(outstanding(&format!("c-O1-{shard}-{grant}"), shard, grant, deadline));
        }
        let mut due = Vec::new();
        while let Some(at) = all.next_deadline() {
            assert!(all.take_due(Timestamp(at.0 - 1)).is_none());
            due.extend(all.take_due(at).map(|it| (it.deadline.0, it.offer.offer_id.to_string())));
        }
        assert_eq!(due.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [10, 20, 30, 30], "{due:?}");
    }
}
