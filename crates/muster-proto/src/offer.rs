//! Offers.

use crate::error::{Within, id, short};
use crate::{WireError, limits, resources, v1, wire_resources};
use bytes::Bytes;
use muster_model::event::OfferWithAgent;
use muster_model::{Offer, Role, Sealed};

pub(crate) fn offer(wire: v1::Offer) -> Result<OfferWithAgent, WireError> {
    short("hostname", wire.hostname.as_bytes(), limits::NAME_BYTES_MAX)?;
    short("agent_info", &wire.agent_info, limits::SEALED_BYTES_MAX)?;
    Ok(OfferWithAgent {
        offer: Offer {
            offer_id: id!(OfferId, "offer_id", wire.offer_id)?,
            framework_id: id!(FrameworkId, "framework_id", wire.framework_id)?,
            role: Role::parse(&wire.role).map_err(|problem| WireError::new("role", problem))?,
            agent_id: id!(AgentId, "agent_id", wire.agent_id)?,
            resources: resources(&wire.resources)?,
        },
        hostname: wire.hostname.into(),
        port: u16::try_from(wire.port).map_err(|_| WireError::new("port", "is above 65535"))?,
        agent: Sealed::new(&*wire.agent_info),
    })
}

pub(crate) fn offers(list: Vec<v1::Offer>) -> Result<Vec<OfferWithAgent>, WireError> {
    crate::error::bounded("offers", &list, limits::OFFERS_PER_EVENT_MAX)?;
    list.into_iter().enumerate().map(|(i, wire)| offer(wire).within(format_args!("offers[{i}]"))).collect()
}

pub(crate) fn wire_offer(with_agent: &OfferWithAgent) -> v1::Offer {
    let OfferWithAgent { offer, hostname, port, agent } = with_agent;
    v1::Offer {
        offer_id: offer.offer_id.to_string(),
        framework_id: offer.framework_id.to_string(),
        role: offer.role.to_string(),
        agent_id: offer.agent_id.to_string(),
        hostname: hostname.to_string(),
        resources: wire_resources(&offer.resources),
        agent_info: Bytes::copy_from_slice(agent),
        port: u32::from(*port),
    }
}
