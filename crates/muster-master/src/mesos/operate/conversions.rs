//! Reservations and persistent volumes that operators make of what is free on an agent, or undo.

use super::super::answer::accepted;
use super::super::read::Query;
use super::{Asked, Checked, Mesos, carry_out, conflict, wrong};
use crate::route::LocalRoute;
use axum::body::Body;
use http::{Response, StatusCode};
use mesos::master::{Call, call::Type};
use muster_http::auth::Subject;
use muster_leader::OperatorCall;
use muster_model::{AgentId, Conversion, Label, Resources};
use muster_proto::{json::Codec, mesos, resources};

const UNKNOWN: &str = "No agent found with specified ID";

/// Carries a conversion out: it is taken once it is committed.
pub(super) async fn convert(
    on: &Mesos,
    local: &LocalRoute,
    who: &Subject,
    checked: Checked,
) -> Response<Body> {
    let answer = carry_out(on, local, who, checked).await;
    if answer.status() == StatusCode::OK { accepted() } else { answer }
}

/// A call of the operator API.
pub(super) fn asked(on: &Mesos, who: &Subject, kind: Type, call: &Call) -> Checked {
    let (agent_id, list, make): (_, _, fn(Resources) -> Conversion) = match kind {
        Type::ReserveResources => {
            let it = call.reserve_resources.clone().unwrap_or_default();
            if !it.source.is_empty() {
                let id = known(on, &it.agent_id.value)?;
                let from = named(&it.source)?;
                return check(on, who, id, &it.resources, |to| Conversion::Rereserve { from, to });
            }
            (it.agent_id, it.resources, Conversion::Reserve)
        }
        Type::UnreserveResources => {
            let it = call.unreserve_resources.clone().unwrap_or_default();
            (it.agent_id, it.resources, Conversion::Unreserve)
        }
        Type::CreateVolumes => {
            let it = call.create_volumes.clone().unwrap_or_default();
            (it.agent_id, it.volumes, Conversion::Create)
        }
        _ => {
            let it = call.destroy_volumes.clone().unwrap_or_default();
            (it.agent_id, it.volumes, Conversion::Destroy)
        }
    };
    let id = known(on, &agent_id.value)?;
    check(on, who, id, &list, make)
}

/// A legacy endpoint, with what it asks in a form.
pub(super) fn posted(on: &Mesos, who: &Subject, kind: Type, body: &[u8]) -> Checked {
    let form = Query::parse(&String::from_utf8_lossy(body));
    let missing = |name: &str| wrong(format!("Missing '{name}' query parameter in the request body"));
    let id = form.get("slaveId").ok_or_else(|| missing("slaveId"))?;
    let id = known(on, id)?;
    let (name, field) = match kind {
        Type::ReserveResources => ("resources", "reserve_resources"),
        Type::UnreserveResources => ("resources", "unreserve_resources"),
        Type::CreateVolumes => ("volumes", "create_volumes"),
        _ => ("volumes", "destroy_volumes"),
    };
    let array = |name: &str, list: &str| match serde_json::from_str::<Vec<&serde_json::value::RawValue>>(list)
    {
        Ok(_) => Ok(()),
        Err(error) => Err(wrong(format!(
            "Error in parsing '{name}' query parameter in the request body: Failed to parse a JSON array: {error}"
        ))),
    };
    let list = form.get(name).ok_or_else(|| missing(name))?;
    array(name, list)?;
    let source = match form.get("source").filter(|_| kind == Type::ReserveResources) {
        Some(source) => {
            array("source", source)?;
            format!(",\"source\":{source}")
        }
        None => String::new(),
    };
    // The same call of the operator API: its shape is read here, too.
    let id = serde_json::Value::from(id.as_str());
    let call = format!(
        "{{\"type\":\"{}\",\"{field}\":{{\"agent_id\":{{\"value\":{id}}},\"{name}\":{list}{source}}}}}",
        kind.as_str_name()
    );
    let call: Call = Codec::Json.read(call.as_bytes()).map_err(|error| {
        wrong(format!("Error in parsing '{name}' query parameter in the request body: {error}"))
    })?;
    asked(on, who, kind, &call)
}

fn known(on: &Mesos, id: &str) -> Result<AgentId, Box<Response<Body>>> {
    let id = AgentId::parse(id).map_err(|_| wrong(UNKNOWN))?;
    let is_here = on
        .raft
        .with_registry(|registry| registry.agent(&id).is_some_and(|agent| agent.lost_since().is_none()));
    if is_here { Ok(id) } else { Err(wrong(UNKNOWN)) }
}

/// Resources that an operator names.
fn named(list: &[mesos::Resource]) -> Result<Resources, Box<Response<Body>>> {
    if list.iter().any(|resource| resource.allocation_info.is_some()) {
        return Err(wrong("Invalid resources: 'allocation_info' must not be set"));
    }
    resources(list).map_err(|why| wrong(format!("Invalid resources: {why}")))
}

/// Who has shown who it is makes reservations and volumes in its own name (Mesos).
fn not_its_own(who: &Subject, conversion: &Conversion) -> Option<String> {
    let shown = who.principal()?;
    let (made, what) = match conversion {
        Conversion::Reserve(made) | Conversion::Rereserve { to: made, .. } => {
            (made, "the reserved resource in the request")
        }
        Conversion::Create(made) => (made, "the volume in the operation"),
        Conversion::Unreserve(_) | Conversion::Destroy(_) => return None,
    };
    let named = |label: &Label| match conversion {
        Conversion::Create(_) => label.volume.as_ref().and_then(|it| it.principal.clone()),
        _ => label.reservations.last().and_then(|it| it.principal.clone()),
    };
    let mut all = made.iter_labelled().map(|(_, label, _)| label.and_then(named));
    let other = all.find(|named| named.as_deref() != Some(shown))?;
    Some(format!(
        "It was attempted by principal '{shown}', but {what} has principal '{}' set",
        other.unwrap_or_default()
    ))
}

/// What is wrong whatever is free is refused here; the rest is decided in the log.
fn check(
    on: &Mesos,
    who: &Subject,
    id: AgentId,
    list: &[mesos::Resource],
    make: impl FnOnce(Resources) -> Conversion,
) -> Checked {
    let conversion = make(named(list)?);
    let why = on.raft.with_registry(|registry| {
        let agent = registry.agent(&id)?;
        registry.check_conversion(agent, &conversion).err().map(|why| why.to_string())
    });
    if let Some(why) = why.or_else(|| not_its_own(who, &conversion)) {
        return Err(wrong(format!("Invalid {} operation on agent {id}: {why}", conversion.name())));
    }
    Ok(Asked { call: OperatorCall::Convert(id, conversion), refused: Box::new(conflict) })
}
