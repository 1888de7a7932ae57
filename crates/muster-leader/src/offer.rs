//! Outstanding offers, found by id, by framework and by agent; and how grants become offers.

use crate::{Effect, Leader};
use muster_allocator::{Grant, ShardOutput};
use muster_model::{AgentId, FrameworkId, Offer, OfferId, Resources, Role, Timestamp, event::OfferWithAgent};
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

/// All offers that stand.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    by_id: BTreeMap<OfferId, Outstanding>,
    by_framework: BTreeMap<FrameworkId, BTreeSet<OfferId>>,
    by_agent: BTreeMap<AgentId, BTreeSet<OfferId>>,
    by_deadline: BTreeSet<(Timestamp, OfferId)>,
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
            self.by_id.values().for_each(|outstanding| sums.add(outstanding, Resources::add));
            sums
        });
    }

    /// What stands by shard and role, if that changed since it was asked for.
    pub(crate) fn changed_sums(&mut self) -> Option<&BTreeMap<u32, BTreeMap<Role, Resources>>> {
        let sums = self.sums.as_mut()?;
        std::mem::take(&mut sums.changed).then_some(&sums.by_shard)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Offer> {
        self.by_id.values().map(|outstanding| &outstanding.offer)
    }
    pub(crate) fn get(&self, id: &OfferId) -> Option<&Outstanding> {
        self.by_id.get(id)
    }

    /// How many stand for a framework.
    pub(crate) fn count_of(&self, id: &FrameworkId) -> usize {
        self.by_framework.get(id).map_or(0, BTreeSet::len)
    }

    pub(crate) fn insert(&mut self, outstanding: Outstanding) {
        let offer = &outstanding.offer;
        let id = offer.offer_id.clone();
        self.by_framework.entry(offer.framework_id.clone()).or_default().insert(id.clone());
        self.by_agent.entry(offer.agent_id.clone()).or_default().insert(id.clone());
        self.by_deadline.insert((outstanding.deadline, id.clone()));
        if let Some(sums) = &mut self.sums {
            sums.add(&outstanding, Resources::add);
        }
        self.by_id.insert(id, outstanding);
    }

    pub(crate) fn take(&mut self, id: &OfferId) -> Option<Outstanding> {
        let outstanding = self.by_id.remove(id)?;
        remove(&mut self.by_framework, &outstanding.offer.framework_id, id);
        remove(&mut self.by_agent, &outstanding.offer.agent_id, id);
        self.by_deadline.remove(&(outstanding.deadline, id.clone()));
        if let Some(sums) = &mut self.sums {
            sums.add(&outstanding, Resources::subtract);
        }
        Some(outstanding)
    }

    pub(crate) fn take_of_framework(&mut self, id: &FrameworkId) -> Vec<Outstanding> {
        let ids = self.by_framework.remove(id).unwrap_or_default();
        ids.iter().filter_map(|id| self.take(id)).collect()
    }

    /// Those of a framework that are in none of these roles.
    pub(crate) fn take_of_framework_but(
        &mut self,
        id: &FrameworkId,
        roles: &BTreeSet<Role>,
    ) -> Vec<Outstanding> {
        let ids = self.by_framework.get(id).cloned().unwrap_or_default();
        let is_out = |id: &OfferId| self.get(id).is_some_and(|it| !roles.contains(&it.offer.role));
        let out: Vec<OfferId> = ids.into_iter().filter(is_out).collect();
        out.iter().filter_map(|id| self.take(id)).collect()
    }

    /// Frameworks that were offered something of an agent.
    pub(crate) fn frameworks_on(&self, id: &AgentId) -> impl Iterator<Item = &FrameworkId> {
        let ids = self.by_agent.get(id).into_iter().flatten();
        ids.filter_map(|id| self.get(id)).map(|it| &it.offer.framework_id)
    }

    pub(crate) fn take_all(&mut self) -> Vec<Outstanding> {
        let ids: Vec<OfferId> = self.by_id.keys().cloned().collect();
        ids.iter().filter_map(|id| self.take(id)).collect()
    }

    pub(crate) fn take_of_agent(&mut self, id: &AgentId) -> Vec<Outstanding> {
        let ids = self.by_agent.remove(id).unwrap_or_default();
        ids.iter().filter_map(|id| self.take(id)).collect()
    }

    /// Those of an agent, by id.
    pub(crate) fn of_agent(&self, id: &AgentId) -> Vec<OfferId> {
        self.by_agent.get(id).into_iter().flatten().cloned().collect()
    }

    pub(crate) fn take_due(&mut self, now: Timestamp) -> Option<Outstanding> {
        let (deadline, id) = self.by_deadline.first()?.clone();
        if deadline > now { None } else { self.take(&id) }
    }

    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
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

fn remove<K: Ord>(sets: &mut BTreeMap<K, BTreeSet<OfferId>>, key: &K, id: &OfferId) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(id);
        if set.is_empty() {
            sets.remove(key);
        }
    }
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
            let agent = registry
                .agent(&grant.agent_id)
                .filter(|agent| self.agents.contains_key(&agent.id) && registry.is_offerable(&agent.id));
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
        let offer_id = OfferId::new(format!("{}-O{}-{shard}-{}", registry.cluster_id(), self.term, grant.n));
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
                resources: Resources::of(1000, 1),
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
}
