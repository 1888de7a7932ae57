//! What a framework wants of offers: `FrameworkInfo.offer_filters` and `OfferConstraints`.

use crate::error::{bounded, short};
use crate::resource::milli;
use crate::{WireError, limits, mesos};
use mesos::scheduler::attribute_constraint::predicate::Predicate as WirePredicate;
use mesos::scheduler::attribute_constraint::selector::{PseudoattributeType, Selector as WireSelector};
use mesos::scheduler::{AttributeConstraint, OfferConstraints};
use muster_model::{
    Constraint, Constraints, Pattern, Predicate, Resources, Role, RoleWants, Sealed, Selector, Value, Wants,
};
use prost::Message;
use std::collections::BTreeMap;

/// Reads what an encoded `mesos.v1.FrameworkInfo` and an encoded `OfferConstraints` (none = nothing is said) want.
///
/// # Errors
/// One of them is none, names a role that is not the framework's, or says what means nothing.
pub fn role_wants(info: &[u8], constraints: &[u8]) -> Result<RoleWants, WireError> {
    let info = mesos::FrameworkInfo::decode(info).map_err(|error| {
        WireError::new("framework_info", format!("is no mesos.v1.FrameworkInfo: {error}"))
    })?;
    short("offer_constraints", constraints, limits::SEALED_BYTES_MAX)?;
    let said = OfferConstraints::decode(constraints).map_err(|error| {
        WireError::new("offer_constraints", format!("is no mesos.v1.scheduler.OfferConstraints: {error}"))
    })?;
    let mut by_role: BTreeMap<Role, Wants> = BTreeMap::new();
    for filters in &info.offer_filters {
        let role = role_of(&info, filters.key());
        let role = role.map_err(|error| error.within("framework_info.offer_filters"))?;
        let least = filters.value.as_ref().and_then(|it| it.min_allocatable_resources.as_ref());
        let Some(least) = least else { continue };
        let read = || {
            bounded("quantities", &least.quantities, limits::NEEDS_MAX)?;
            least.quantities.iter().map(quantities).collect::<Result<Vec<_>, _>>()
        };
        let at_least = read().map_err(|error| error.within("framework_info.offer_filters"))?;
        by_role.entry(role).or_default().at_least = Some(at_least);
    }
    for constraints in &said.role_constraints {
        let field = |error: WireError| error.within("offer_constraints.role_constraints");
        let role = role_of(&info, constraints.key()).map_err(field)?;
        let said = constraints.value.as_ref().map(|it| &*it.groups).unwrap_or_default();
        by_role.entry(role).or_default().agents = Some(groups(said).map_err(field)?);
    }
    Ok(RoleWants { by_role, constraints: Sealed::new(constraints) })
}

/// A role of the framework's.
fn role_of(info: &mesos::FrameworkInfo, name: &str) -> Result<Role, WireError> {
    #[allow(deprecated)]
    let own = if info.role.is_some() || info.roles.is_empty() {
        info.role() == name
    } else {
        info.roles.iter().any(|it| it == name)
    };
    let role = Role::parse(name).map_err(|problem| WireError::new("role", problem))?;
    if own { Ok(role) } else { Err(WireError::new("role", format!("{role} is not one of the framework's"))) }
}

fn quantities(wire: &mesos::offer_filters::ResourceQuantities) -> Result<Resources, WireError> {
    let mut all = Resources::none();
    for it in &wire.quantities {
        short("quantities", it.key().as_bytes(), limits::NAME_BYTES_MAX)?;
        all.insert(it.key(), Value::Scalar(milli(it.value.unwrap_or_default().value)?));
    }
    Ok(all)
}

type WireGroup = mesos::scheduler::offer_constraints::role_constraints::Group;

fn groups(wire: &[WireGroup]) -> Result<Constraints, WireError> {
    let full = |field: &str, len: usize| match len {
        0 => Err(WireError::new(field, "is empty; leave the role out to be offered any agent")),
        _ => Ok(()),
    };
    full("groups", wire.len())?;
    bounded("groups", wire, limits::CONSTRAINTS_MAX)?;
    let group = |group: &WireGroup| {
        full("attribute_constraints", group.attribute_constraints.len())?;
        bounded("attribute_constraints", &group.attribute_constraints, limits::CONSTRAINTS_MAX)?;
        group.attribute_constraints.iter().map(constraint).collect()
    };
    Ok(Constraints(wire.iter().map(group).collect::<Result<_, _>>()?))
}

fn constraint(wire: &AttributeConstraint) -> Result<Constraint, WireError> {
    let unset = |field: &str| WireError::new(field, "is unset, or unknown to this version");
    let selector = match &wire.selector.selector {
        Some(WireSelector::AttributeName(name)) => {
            short("attribute_name", name.as_bytes(), limits::NAME_BYTES_MAX)?;
            Selector::Attribute(name.as_str().into())
        }
        Some(WireSelector::PseudoattributeType(kind)) => match PseudoattributeType::try_from(*kind) {
            Ok(PseudoattributeType::Hostname) => Selector::Hostname,
            Ok(PseudoattributeType::Region | PseudoattributeType::Zone) => Selector::Domain,
            Ok(PseudoattributeType::Unknown) | Err(_) => return Err(unset("selector")),
        },
        None => return Err(unset("selector")),
    };
    let text = |text: &str| short("value", text.as_bytes(), limits::TEXT_BYTES_MAX).map(|()| text.into());
    let pattern = |text: &str| {
        short("regex", text.as_bytes(), limits::TEXT_BYTES_MAX)?;
        Pattern::parse(text).map_err(|why| WireError::new("regex", why))
    };
    let predicate = match &wire.predicate.predicate {
        Some(WirePredicate::Exists(_)) => Predicate::Exists,
        Some(WirePredicate::NotExists(_)) => Predicate::NotExists,
        Some(WirePredicate::TextEquals(it)) => Predicate::TextEquals(text(&it.value)?),
        Some(WirePredicate::TextNotEquals(it)) => Predicate::TextNotEquals(text(&it.value)?),
        Some(WirePredicate::TextMatches(it)) => Predicate::TextMatches(pattern(&it.regex)?),
        Some(WirePredicate::TextNotMatches(it)) => Predicate::TextNotMatches(pattern(&it.regex)?),
        None => return Err(unset("predicate")),
    };
    Ok(Constraint { selector, predicate })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::json::Codec;

    fn read(info: &str, constraints: &str) -> Result<RoleWants, String> {
        let said = format!(
            r#"{{"type":"SUBSCRIBE","subscribe":{{"framework_info":{info},"offer_constraints":{constraints}}}}}"#
        );
        let call: mesos::scheduler::Call = Codec::Json.read(said.as_bytes()).unwrap();
        let said = call.subscribe.unwrap();
        let constraints = said.offer_constraints.unwrap_or_default().encode_to_vec();
        role_wants(&said.framework_info.encode_to_vec(), &constraints).map_err(|error| error.to_string())
    }

    const WEB: &str = r#"{"user":"u","name":"n","roles":["web"],"capabilities":[{"type":"MULTI_ROLE"}],
        "offer_filters":{"web":{"min_allocatable_resources":{"quantities":[{"quantities":{"cpus":{"value":2}}}]}}}}"#;

    #[test]
    fn what_is_wanted_is_read_by_role() {
        let constraints = r#"{"role_constraints":{"web":{"groups":[{"attribute_constraints":[
            {"selector":{"attribute_name":"rack"},"predicate":{"text_equals":{"value":"r1"}}},
            {"selector":{"pseudoattribute_type":"HOSTNAME"},"predicate":{"text_matches":{"regex":"h[0-9]"}}}]}]}}}"#;
        let wants = read(WEB, constraints).unwrap();
        let web = &wants.by_role[&Role::parse("web").unwrap()];
        assert_eq!(web.at_least, Some(vec![Resources::parse("cpus:2").unwrap()]));
        let rack = muster_model::Attribute {
            name: "rack".into(),
            value: muster_model::AttributeValue::Text("r1".into()),
        };
        let agents = web.agents.as_ref().unwrap();
        assert!(agents.allow("h1", std::slice::from_ref(&rack)));
        assert!(!agents.allow("h1", &[]));
        assert!(!agents.allow("x1", &[rack]));
    }

    #[test]
    fn what_means_nothing_is_refused_by_name() {
        let web = |group: &str| format!(r#"{{"role_constraints":{{"web":{{"groups":[{group}]}}}}}}"#);
        let one = |constraint: &str| web(&format!(r#"{{"attribute_constraints":[{constraint}]}}"#));
        let cases = [
            (web(""), "groups"),
            (web("{}"), "attribute_constraints"),
            (one(r#"{"selector":{},"predicate":{"exists":{}}}"#), "selector"),
            (one(r#"{"selector":{"attribute_name":"a"},"predicate":{}}"#), "predicate"),
            (
                one(r#"{"selector":{"attribute_name":"a"},"predicate":{"text_matches":{"regex":"("}}}"#),
                "regex",
            ),
            (r#"{"role_constraints":{"db":{"groups":[]}}}"#.into(), "db is not one of the framework's"),
        ];
        for (constraints, named) in cases {
            let why = read(WEB, &constraints).unwrap_err();
            assert!(why.contains(named), "{why}");
        }
    }
}
