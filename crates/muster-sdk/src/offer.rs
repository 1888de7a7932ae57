//! Offers as a scheduler sees them.

use muster_model::event::OfferWithAgent;
use muster_model::{AgentId, Attribute, FrameworkId, OfferId, Resources, Role, Sealed};
use muster_proto::scheduler::REFUSE_MS_DEFAULT;
use muster_proto::{attributes, mesos};
use prost::Message;
use std::{sync::Arc, time::Duration};

/// Resources of one agent to use or to give back.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Its id.
    pub id: OfferId,
    /// To whom.
    pub framework_id: FrameworkId,
    /// In which role.
    pub role: Role,
    /// Of which agent.
    pub agent_id: AgentId,
    /// The agent's name.
    pub hostname: Arc<str>,
    /// The agent's port.
    pub port: u16,
    /// What.
    pub resources: Resources,
    agent_info: Sealed,
}

impl Offer {
    /// The agent's attributes; none when it has none that can be read.
    pub fn attributes(&self) -> Vec<Attribute> {
        let info = mesos::AgentInfo::decode(&*self.agent_info).unwrap_or_default();
        attributes(&info.attributes).unwrap_or_default()
    }
}

impl From<OfferWithAgent> for Offer {
    fn from(with_agent: OfferWithAgent) -> Self {
        let OfferWithAgent { offer, hostname, port, agent, .. } = with_agent;
        Self {
            id: offer.offer_id,
            framework_id: offer.framework_id,
            role: offer.role,
            agent_id: offer.agent_id,
            hostname,
            port,
            resources: Arc::unwrap_or_clone(offer.resources),
            agent_info: agent,
        }
    }
}

/// For how long what is not used is not offered again. Default 5 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filters {
    pub(crate) refuse_ms: u64,
}

impl Filters {
    /// Do not offer it again for this long.
    pub fn refuse(time: Duration) -> Self {
        Self { refuse_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX) }
    }

    /// Offer it again at once.
    pub fn none() -> Self {
        Self { refuse_ms: 0 }
    }
}

impl Default for Filters {
    fn default() -> Self {
        Self { refuse_ms: REFUSE_MS_DEFAULT }
    }
}
