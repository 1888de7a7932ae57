//! Offers: a grant with an id, in the leader's memory only.

use crate::{AgentId, FrameworkId, OfferId, Resources, Role};

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
    /// What.
    pub resources: Resources,
}
