//! Offers: a grant with an id, in the leader's memory only.

use crate::{AgentId, FrameworkId, OfferId, Resources, Role, Unavailability};
use std::{net::IpAddr, sync::Arc};

/// Resources of one agent promised to one framework in one role, for this term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its id; used at most once.
    pub offer_id: OfferId,
    /// To whom.
    pub framework_id: FrameworkId,
    /// In which role.
    pub role: Role,
    /// Of which agent.
    pub agent_id: AgentId,
    /// What. Whoever has the offer in hand has the same.
    pub resources: Arc<Resources>,
}

/// A question to a framework that has something on an agent whose machine will be away: whether that is all right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InverseOffer {
    /// Its id, which no offer has.
    pub offer_id: OfferId,
    /// To whom.
    pub framework_id: FrameworkId,
    /// About which agent.
    pub agent_id: AgentId,
    /// When it will be away.
    pub unavailability: Unavailability,
    /// The agent's name.
    pub hostname: Arc<str>,
    /// The agent's port.
    pub port: u16,
    /// The agent's address, if it says one.
    pub ip: Option<IpAddr>,
}
