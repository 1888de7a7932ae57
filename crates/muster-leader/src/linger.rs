//! Offers that travel in company.
//!
//! Whoever has an offer at hand is in no hurry for the next one, and a frame that travels alone is what costs: such
//! offers go out together, right after whatever else the framework is told, or by themselves before long. A framework
//! that has none at hand gets its offers at once.

use crate::{
    ConnId, Effect, Leader,
    leader::{Peer, tell},
    offer::{OFFERS_PER_EVENT, events},
};
use muster_model::{Event, FrameworkId, OfferId, SchedulerEvent, Timestamp, event::OfferWithAgent};
use std::collections::{BTreeMap, VecDeque};

/// How long an offer waits for company, at most about half as long again.
const LINGER_MS: u64 = 20;

/// What waits, by the stream it will go down.
#[derive(Debug, Default)]
pub(crate) struct Lingering {
    offers: BTreeMap<ConnId, Vec<OfferWithAgent>>,
    due: VecDeque<(Timestamp, ConnId)>,
}

impl Lingering {
    /// Whether the offer has not been told to its framework yet.
    pub(crate) fn contains(&self, conn: ConnId, id: &OfferId) -> bool {
        self.offers.get(&conn).is_some_and(|offers| offers.iter().any(|it| it.offer.offer_id == *id))
    }
    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.offers.remove(&conn);
    }
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.due.front().map(|(due, _)| *due)
    }
    fn count(&self, conn: ConnId) -> usize {
        self.offers.get(&conn).map_or(0, Vec::len)
    }

    fn add(&mut self, now: Timestamp, conn: ConnId, offers: Vec<OfferWithAgent>) {
        let waiting = self.offers.entry(conn).or_default();
        if waiting.is_empty() {
            // Rounded up: many frameworks share a wake-up.
            let due = Timestamp((now.0 + LINGER_MS).next_multiple_of(LINGER_MS / 2));
            self.due.push_back((due, conn));
        }
        waiting.extend(offers);
    }
}

impl Leader {
    /// Offers that now stand, on their way to their framework.
    pub(crate) fn tell_offers(
        &mut self,
        now: Timestamp,
        id: &FrameworkId,
        offers: Vec<OfferWithAgent>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(conn) = self.frameworks.get(id).map(|session| session.conn) else { return };
        self.lingering.add(now, conn, offers);
        if self.lingering.count(conn) >= OFFERS_PER_EVENT {
            self.send_lingering(conn, effects);
        } else {
            self.hurry(id, effects);
        }
    }

    /// Sends what waits for a framework if it has no other offer at hand.
    pub(crate) fn hurry(&mut self, id: &FrameworkId, effects: &mut Vec<Effect>) {
        let Some(conn) = self.frameworks.get(id).map(|session| session.conn) else { return };
        let waiting = self.lingering.count(conn);
        if waiting > 0 && self.offers.count_of(id) <= waiting {
            self.send_lingering(conn, effects);
        }
    }

    /// Sends what waits to whoever is told something in these effects.
    pub(crate) fn send_in_company(&mut self, from: usize, effects: &mut Vec<Effect>) {
        if self.lingering.offers.is_empty() {
            return;
        }
        for at in from..effects.len() {
            if let Effect::Send(conn, Event::Scheduler(_)) = &effects[at] {
                self.send_lingering(*conn, effects);
            }
        }
    }

    pub(crate) fn send_due_offers(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        while let Some((_, conn)) = self.lingering.due.pop_front_if(|(due, _)| *due <= now) {
            self.send_lingering(conn, effects);
        }
    }

    /// Sends what waits, but not before what is late: it may be of resources whose former offer was taken back.
    pub(crate) fn send_lingering(&mut self, conn: ConnId, effects: &mut Vec<Effect>) {
        if self.recitals.is_late(conn) {
            return;
        }
        let Some(mut offers) = self.lingering.offers.remove(&conn) else { return };
        if !matches!(self.conns.get(&conn), Some(Peer::Framework(..))) {
            return;
        }
        offers.retain(|it| self.offers.get(&it.offer.offer_id).is_some());
        for some in events(offers) {
            tell(conn, SchedulerEvent::Offers(some), effects);
        }
    }
}
