//! Agents as the legacy answers show them, and `/slaves`.

use super::super::{MESOS_VERSION, records};
use super::resources::{Amounts, Attributes};
use super::seen::{Sorted, offered, total};
use super::{List, Raw};
use muster_model::Resources;
use muster_proto::{master_api::seconds, mesos};
use muster_registry::Agent;
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::{borrow::Cow, collections::BTreeMap};

/// Writes what an agent is and holds.
pub(super) fn fields<M: SerializeMap>(agent: &Agent, of: &Sorted<'_>, map: &mut M) -> Result<(), M::Error> {
    map.serialize_entry("id", agent.id.as_str())?;
    map.serialize_entry("hostname", &*agent.info.hostname)?;
    map.serialize_entry("port", &agent.info.port)?;
    map.serialize_entry("attributes", &Attributes(&agent.info.attributes))?;
    if let Some(domain) = &muster_proto::agent::domain(&agent.sealed) {
        map.serialize_entry("domain", &Raw(domain))?;
    }
    map.serialize_entry("pid", &records::agent_pid(agent))?;
    map.serialize_entry("registered_time", &seconds(agent.registered))?;
    let all = of.seen.registry.total_of(agent);
    map.serialize_entry("resources", &Amounts(&all))?;
    map.serialize_entry("used_resources", &Amounts(&of.seen.registry.held_on(&agent.id)))?;
    map.serialize_entry("offered_resources", &Amounts(&total(&offered(of.offers_on(&agent.id)))))?;
    let mut reserved = all.reserved();
    reserved.retain(|role, _| of.seen.view.role(role.as_str()));
    let reserved: BTreeMap<_, _> = reserved.iter().map(|(role, it)| (role.as_str(), Amounts(it))).collect();
    map.serialize_entry("reserved_resources", &reserved)?;
    let unreserved = if all.is_plain() { all } else { Cow::Owned(all.unreserved()) };
    map.serialize_entry("unreserved_resources", &Amounts(&unreserved))?;
    let duty = of.seen.registry.duty(&agent.id);
    map.serialize_entry("active", &(agent.is_connected() && duty.is_none()))?;
    map.serialize_entry("deactivated", &duty.is_some())?;
    map.serialize_entry("version", MESOS_VERSION)?;
    let capabilities = || records::AGENT_CAPABILITIES.iter().map(|it| it.as_str_name());
    map.serialize_entry("capabilities", &List(capabilities))?;
    let Some(drain) = duty.and_then(|duty| duty.drain.as_ref()) else { return Ok(()) };
    map.serialize_entry("drain_info", &Raw(&records::drain_info(drain)))?;
    map.serialize_entry("estimated_drain_start_time_seconds", &seconds(drain.started))
}

/// An agent as `/state` shows it.
struct Plain<'a>(&'a Agent, &'a Sorted<'a>);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        fields(self.0, self.1, &mut map)?;
        map.end()
    }
}

/// The agents that belong to the cluster, without their resources as messages (as Mesos does it there).
pub(super) fn plain<'a>(of: &'a Sorted<'a>) -> impl Iterator<Item: Serialize> {
    let agents = of.seen.registry.agents().filter(|agent| records::is_here(agent));
    agents.map(move |agent| Plain(agent, of))
}

/// An agent, with its resources a second time as the messages they are.
struct Full<'a>(&'a Agent, &'a Sorted<'a>);

impl Serialize for Full<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(agent, of) = *self;
        let mut map = serializer.serialize_map(None)?;
        fields(agent, of, &mut map)?;
        let all = of.seen.registry.total_of(agent);
        let unreserved = records::shown_resources(&all.unreserved());
        let mut reserved = all.reserved();
        reserved.retain(|role, _| of.seen.view.role(role.as_str()));
        let shown = |it: &Resources| Shown(records::shown_resources(it));
        let reserved: BTreeMap<_, _> = reserved.iter().map(|(role, it)| (role.as_str(), shown(it))).collect();
        let mut used = records::shown_by_role(&of.used_on(&agent.id));
        let mut offered = records::shown_by_role(&offered(of.offers_on(&agent.id)));
        of.seen.view.retain(&mut used);
        of.seen.view.retain(&mut offered);
        map.serialize_entry("reserved_resources_full", &reserved)?;
        map.serialize_entry("unreserved_resources_full", &List(|| unreserved.iter().map(Raw)))?;
        map.serialize_entry("used_resources_full", &List(|| used.iter().map(Raw)))?;
        map.serialize_entry("offered_resources_full", &List(|| offered.iter().map(Raw)))?;
        map.end()
    }
}

/// Resources as the messages they are.
struct Shown(Vec<mesos::Resource>);

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        List(|| self.0.iter().map(Raw)).serialize(serializer)
    }
}

/// The agents that belong to the cluster, or the one that is meant.
pub(super) fn agents<'a>(of: &'a Sorted<'a>, only: Option<&str>) -> impl Serialize {
    List(move || {
        let agents = of.seen.registry.agents().filter(|agent| records::is_here(agent));
        agents
            .filter(move |agent| only.is_none_or(|id| agent.id.as_str() == id))
            .map(move |agent| Full(agent, of))
    })
}

/// `/slaves`.
pub(super) struct Agents<'a> {
    pub(super) of: &'a Sorted<'a>,
    pub(super) only: Option<&'a str>,
}

impl Serialize for Agents<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("slaves", &agents(self.of, self.only))?;
        // An agent is known with all it has, from the first term on: none is only half known.
        map.serialize_entry("recovered_slaves", &[(); 0])?;
        map.end()
    }
}
