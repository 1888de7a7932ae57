//! Inverse offers: frameworks with something on an agent that will be away are asked whether that is all right.
//!
//! Nothing happens by the answers; operators look at them before they say that a machine is down. Like offers they live
//! in the leader's memory: the next leader asks again.

use crate::{Effect, Leader, leader::tell};
use muster_model::{AgentId, FrameworkId, InverseOffer, OfferId, SchedulerEvent, Timestamp, WallTime};
use muster_registry::Registry;
use std::collections::{BTreeMap, BTreeSet};

/// A framework and an agent on which it has something.
type Pair = (AgentId, FrameworkId);

/// What a framework answered last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InverseAnswer {
    /// About which agent.
    pub agent_id: AgentId,
    /// Whose answer.
    pub framework_id: FrameworkId,
    /// Whether it is all right.
    pub accepted: bool,
    /// When it answered, for display.
    pub at: WallTime,
}

/// All inverse offers, at most one for each framework and agent, and the answers.
#[derive(Debug, Default)]
pub(crate) struct Inverse {
    standing: BTreeMap<Pair, Standing>,
    pair_of: BTreeMap<OfferId, Pair>,
    /// Until when whoever answered is not asked again.
    filters: BTreeMap<Pair, Timestamp>,
    answers: BTreeMap<Pair, InverseAnswer>,
    counted: u64,
}

#[derive(Debug)]
struct Standing {
    offer: InverseOffer,
    /// When it is taken back.
    deadline: Timestamp,
}

impl Inverse {
    /// A framework answers; of what does not stand, or is another one's, nothing is taken.
    pub(crate) fn answered(
        &mut self,
        framework_id: &FrameworkId,
        id: &OfferId,
        accepted: bool,
        at: WallTime,
        until: Timestamp,
    ) {
        let Some(pair) = self.pair_of.get(id).filter(|(_, whose)| whose == framework_id).cloned() else {
            return;
        };
        self.take(&pair);
        let (agent_id, framework_id) = pair.clone();
        self.answers.insert(pair.clone(), InverseAnswer { agent_id, framework_id, accepted, at });
        self.filters.insert(pair, until);
    }

    fn take(&mut self, pair: &Pair) -> Option<InverseOffer> {
        let standing = self.standing.remove(pair)?;
        self.pair_of.remove(&standing.offer.offer_id);
        Some(standing.offer)
    }

    fn take_where(&mut self, is: impl Fn(&Pair) -> bool) -> Vec<InverseOffer> {
        let pairs: Vec<Pair> = self.standing.keys().filter(|pair| is(pair)).cloned().collect();
        pairs.iter().filter_map(|pair| self.take(pair)).collect()
    }

    /// A framework wants to be asked again at once.
    pub(crate) fn revive(&mut self, id: &FrameworkId) {
        self.filters.retain(|(_, whose), _| whose != id);
    }

    /// A framework's stream ended: nobody is there who was asked.
    pub(crate) fn end_session(&mut self, id: &FrameworkId) {
        self.take_where(|(_, whose)| whose == id);
        self.revive(id);
    }

    pub(crate) fn forget_framework(&mut self, id: &FrameworkId) {
        self.end_session(id);
        self.answers.retain(|(_, whose), _| whose != id);
    }

    /// An agent will be away at another time, or is lost: what was answered does not hold any more.
    pub(crate) fn forget_agent(&mut self, id: &AgentId) {
        self.take_where(|(of, _)| of == id);
        self.filters.retain(|(of, _), _| of != id);
        self.answers.retain(|(of, _), _| of != id);
    }
}

impl Leader {
    pub(crate) fn rescind_inverse_of(&mut self, id: &AgentId, effects: &mut Vec<Effect>) {
        let taken = self.inverse.take_where(|(of, _)| of == id);
        taken.into_iter().for_each(|offer| self.tell_inverse_rescinded(offer, effects));
    }

    fn tell_inverse_rescinded(&mut self, offer: InverseOffer, effects: &mut Vec<Effect>) {
        if let Some(conn) = self.frameworks.get(&offer.framework_id).map(|it| it.conn) {
            self.tell_one_of_many(conn, SchedulerEvent::RescindInverse(offer.offer_id), effects);
        }
    }

    /// Once a second: asks whoever should be asked and was not, and takes back what nobody answered for long.
    pub(crate) fn look_at_inverse(&mut self, now: Timestamp, registry: &Registry, effects: &mut Vec<Effect>) {
        self.inverse.filters.retain(|_, until| *until > now);
        let overdue: Vec<Pair> = self
            .inverse
            .standing
            .iter()
            .filter(|(_, it)| it.deadline <= now)
            .map(|(it, _)| it.clone())
            .collect();
        for pair in overdue {
            if let Some(offer) = self.inverse.take(&pair) {
                self.tell_inverse_rescinded(offer, effects);
            }
        }
        let mut asked: BTreeMap<FrameworkId, Vec<InverseOffer>> = BTreeMap::new();
        for (agent_id, unavailability) in registry.unavailable_agents() {
            let Some(agent) = registry.agent(agent_id).filter(|it| registry.is_offerable(&it.id)) else {
                continue;
            };
            let holders: BTreeSet<&FrameworkId> = registry
                .frameworks_on(agent_id)
                .into_iter()
                .chain(self.offers.frameworks_on(agent_id))
                .collect();
            for framework_id in holders {
                let pair = (agent_id.clone(), framework_id.clone());
                let is_asked =
                    self.inverse.standing.contains_key(&pair) || self.inverse.filters.contains_key(&pair);
                if is_asked || !self.frameworks.contains_key(framework_id) {
                    continue;
                }
                self.inverse.counted += 1;
                let (cluster, n) = (registry.cluster_id(), self.inverse.counted);
                let offer = InverseOffer {
                    offer_id: OfferId::new(format!("{cluster}-I{}-{n}", self.term)),
                    framework_id: framework_id.clone(),
                    agent_id: agent_id.clone(),
                    unavailability,
                    hostname: agent.info.hostname.clone(),
                    port: agent.info.port,
                    ip: registry.address(agent_id),
                };
                let deadline = now.plus_ms(self.config.offer_timeout_ms);
                self.inverse.pair_of.insert(offer.offer_id.clone(), pair.clone());
                self.inverse.standing.insert(pair, Standing { offer: offer.clone(), deadline });
                asked.entry(framework_id.clone()).or_default().push(offer);
            }
        }
        for (framework_id, offers) in asked {
            let Some(session) = self.frameworks.get(&framework_id) else { continue };
            for some in offers.chunks(crate::offer::OFFERS_PER_EVENT) {
                tell(session.conn, SchedulerEvent::InverseOffers(some.to_vec()), effects);
            }
        }
    }

    /// The inverse offers that stand.
    pub fn inverse_offers(&self) -> impl Iterator<Item = &InverseOffer> {
        self.inverse.standing.values().map(|it| &it.offer)
    }
    /// What frameworks answered to inverse offers.
    pub fn inverse_answers(&self) -> impl Iterator<Item = &InverseAnswer> {
        self.inverse.answers.values()
    }
}
