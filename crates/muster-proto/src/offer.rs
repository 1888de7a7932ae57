//! Offers.

use crate::error::{Within, id, required, short};
use crate::offer_bytes::{read_each, wire_each};
use crate::{WireError, limits, v1};
use bytes::Bytes;
use muster_model::event::OfferWithAgent;
use muster_model::{ExecutorId, InverseOffer, Offer, Role, Sealed, Unavailability};

pub(crate) fn offer(wire: v1::Offer) -> Result<OfferWithAgent, WireError> {
    short("hostname", wire.hostname.as_bytes(), limits::NAME_BYTES_MAX)?;
    short("agent_info", &wire.agent_info, limits::SEALED_BYTES_MAX)?;
    Ok(OfferWithAgent {
        offer: Offer {
            offer_id: id!(OfferId, "offer_id", wire.offer_id)?,
            framework_id: id!(FrameworkId, "framework_id", wire.framework_id)?,
            role: Role::parse(&wire.role).map_err(|problem| WireError::new("role", problem))?,
            agent_id: id!(AgentId, "agent_id", wire.agent_id)?,
            resources: read_each(&wire.resources)?.into(),
        },
        hostname: wire.hostname.into(),
        port: u16::try_from(wire.port).map_err(|_| WireError::new("port", "is above 65535"))?,
        agent: Sealed::new(&*wire.agent_info),
        unavailability: wire.unavailability.map(unavailability),
        executor_ids: executor_ids(&wire.executor_ids)?,
    })
}

fn executor_ids(texts: &[String]) -> Result<Vec<ExecutorId>, WireError> {
    texts.iter().map(|text| id!(ExecutorId, "executor_ids", text)).collect()
}

fn unavailability(wire: v1::Unavailability) -> Unavailability {
    Unavailability { start_ns: wire.start_ns, duration_ns: wire.duration_ns }
}

fn wire_unavailability(it: Unavailability) -> v1::Unavailability {
    v1::Unavailability { start_ns: it.start_ns, duration_ns: it.duration_ns }
}

fn inverse_offer(wire: v1::InverseOffer) -> Result<InverseOffer, WireError> {
    short("hostname", wire.hostname.as_bytes(), limits::NAME_BYTES_MAX)?;
    let ip = match wire.ip.as_str() {
        "" => None,
        ip => Some(ip.parse().map_err(|_| WireError::new("ip", format!("{ip:?} is no address")))?),
    };
    Ok(InverseOffer {
        offer_id: id!(OfferId, "offer_id", wire.offer_id)?,
        framework_id: id!(FrameworkId, "framework_id", wire.framework_id)?,
        agent_id: id!(AgentId, "agent_id", wire.agent_id)?,
        unavailability: unavailability(required("unavailability", wire.unavailability)?),
        hostname: wire.hostname.into(),
        port: u16::try_from(wire.port).map_err(|_| WireError::new("port", "is above 65535"))?,
        ip,
    })
}

pub(crate) fn inverse_offers(list: Vec<v1::InverseOffer>) -> Result<Vec<InverseOffer>, WireError> {
    crate::error::bounded("inverse_offers", &list, limits::OFFERS_PER_EVENT_MAX)?;
    let read = |(i, wire)| inverse_offer(wire).within(format_args!("inverse_offers[{i}]"));
    list.into_iter().enumerate().map(read).collect()
}

pub(crate) fn wire_inverse_offer(it: &InverseOffer) -> v1::InverseOffer {
    v1::InverseOffer {
        offer_id: it.offer_id.to_string(),
        framework_id: it.framework_id.to_string(),
        agent_id: it.agent_id.to_string(),
        unavailability: Some(wire_unavailability(it.unavailability)),
        hostname: it.hostname.to_string(),
        port: it.port.into(),
        ip: it.ip.map(|ip| ip.to_string()).unwrap_or_default(),
    }
}

pub(crate) fn offers(list: Vec<v1::Offer>) -> Result<Vec<OfferWithAgent>, WireError> {
    crate::error::bounded("offers", &list, limits::OFFERS_PER_EVENT_MAX)?;
    list.into_iter().enumerate().map(|(i, wire)| offer(wire).within(format_args!("offers[{i}]"))).collect()
}

pub(crate) fn wire_offer(with_agent: &OfferWithAgent) -> v1::Offer {
    let OfferWithAgent { offer, hostname, port, agent, unavailability, executor_ids } = with_agent;
    v1::Offer {
        offer_id: offer.offer_id.to_string(),
        framework_id: offer.framework_id.to_string(),
        role: offer.role.to_string(),
        agent_id: offer.agent_id.to_string(),
        hostname: hostname.to_string(),
        resources: wire_each(&offer.resources),
        agent_info: Bytes::copy_from_slice(agent),
        port: u32::from(*port),
        unavailability: unavailability.map(wire_unavailability),
        executor_ids: executor_ids.iter().map(ToString::to_string).collect(),
    }
}
