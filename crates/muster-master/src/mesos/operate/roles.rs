//! Weights and quotas of roles.

use super::super::read::seen::Seen;
use super::{Asked, Checked, conflict, list, read_json, wrong};
use mesos::master::{Call, call::UpdateWeights};
use mesos::quota::{
    QuotaConfig, QuotaInfo, QuotaRequest, QuotaStatus,
    quota_config::{GuaranteesEntry, LimitsEntry},
};
use muster_leader::OperatorCall;
use muster_model::{Resources, Role, Value};
use muster_proto::{mesos, wire_resources};
use muster_registry::{OVERCOMMITS, Quota, Refusal};
use std::collections::{BTreeMap, BTreeSet};

/// The most of a kind that a quota may name, in its unit: an exabyte in MB for memory and disk, else a trillion.
const MEGABYTES_MAX: f64 = 1_099_511_627_776.0;
const OTHERS_MAX: f64 = 1e12;
/// The largest weight. The smallest is a thousandth.
const WEIGHT_MAX: f64 = 1e12;
/// Kinds that a quota may name.
const KINDS_MAX: usize = 64;

pub(super) fn update_weights(call: &Call) -> Checked {
    weights(call.update_weights.clone().unwrap_or_default())
}

pub(super) fn put_weights(body: &[u8]) -> Checked {
    weights(list("weight_infos", body)?)
}

fn weights(asked: UpdateWeights) -> Checked {
    let mut weights = Vec::with_capacity(asked.weight_infos.len());
    for info in asked.weight_infos {
        let (role, weight) = (info.role().trim(), info.weight);
        let invalid = |why: String| {
            wrong(format!("Failed to validate update weights request JSON: Invalid role '{role}': {why}"))
        };
        let parsed = Role::parse(role).map_err(invalid)?;
        if weight.is_nan() || weight <= 0.0 {
            return Err(wrong(format!(
                "Failed to validate update weights request JSON for role '{role}': Invalid weight '{weight}': \
                 Weights must be positive"
            )));
        }
        weights.push((parsed, milli(weight.min(WEIGHT_MAX)).max(1)));
    }
    Ok(Asked::of(OperatorCall::SetWeights(weights)))
}

/// Rounded to thousandths.
fn milli(value: f64) -> u64 {
    (value * 1000.0).round() as u64
}

pub(super) fn update_quota(call: &Call) -> Checked {
    let asked = call.update_quota.clone().unwrap_or_default();
    let mut quotas = Vec::with_capacity(asked.quota_configs.len());
    for config in &asked.quota_configs {
        if config.role.contains('/') {
            let role = &config.role;
            return Err(wrong(format!("Updating quota on nested role '{role}' is not supported yet")));
        }
        quotas.push(quota(config).map_err(|why| wrong(format!("Invalid QuotaConfig: {why}")))?);
    }
    let force = asked.force.unwrap_or(false);
    Ok(Asked::of(OperatorCall::SetQuotas { quotas, force, new: false }))
}

fn quota(config: &QuotaConfig) -> Result<(Role, Quota), String> {
    let role = Role::parse(&config.role).map_err(|why| format!("Invalid 'QuotaConfig.role': {why}"))?;
    // Of a kind that comes twice the last counts.
    let mut asked = [BTreeMap::new(), BTreeMap::new()];
    asked[0].extend(config.guarantees.iter().map(|it| (it.key().to_owned(), it.value.unwrap_or_default())));
    asked[1].extend(config.limits.iter().map(|it| (it.key().to_owned(), it.value.unwrap_or_default())));
    for (field, amounts) in ["guarantees", "limits"].into_iter().zip(&asked) {
        if amounts.len() > KINDS_MAX {
            return Err(format!("Invalid 'QuotaConfig.{field}': more than {KINDS_MAX} kinds of resources"));
        }
        is_small(amounts).map_err(|why| format!("Invalid 'QuotaConfig.{field}': {why}"))?;
    }
    let guarantees = amounts(&asked[0], "guarantee")?;
    let limits = amounts(&asked[1], "limit")?;
    if guarantees.iter().any(|(kind, least)| limits.get(kind).is_some_and(|most| least > most)) {
        return Err(format!(
            "'QuotaConfig.guarantees' {} is not contained within the 'QuotaConfig.limits' {}",
            shown(&guarantees),
            shown(&limits)
        ));
    }
    let least = |sum: Resources, (kind, amount): (&String, &u64)| sum.with(kind, Value::Scalar(*amount));
    let guarantees = guarantees.iter().fold(Resources::none(), least);
    let limits = limits.into_iter().map(|(kind, most)| (kind.into(), most)).collect();
    Ok((role, Quota { guarantees, limits }))
}

fn is_small(amounts: &BTreeMap<String, mesos::value::Scalar>) -> Result<(), String> {
    for (kind, amount) in amounts {
        let (most, words) = match kind.as_str() {
            "mem" | "disk" => (MEGABYTES_MAX, "1 exabyte"),
            _ => (OTHERS_MAX, "1 trillion"),
        };
        if amount.value > most {
            let value = amount.value;
            return Err(format!(
                "{{'{kind}': {value}}} is invalid: values greater than {words} ({most}) are not supported"
            ));
        }
    }
    Ok(())
}

/// In thousandths, by kind.
fn amounts(
    amounts: &BTreeMap<String, mesos::value::Scalar>,
    what: &str,
) -> Result<BTreeMap<String, u64>, String> {
    let read = |(kind, amount): (&String, &mesos::value::Scalar)| {
        let value = amount.value;
        let why = match value {
            value if value.is_nan() => "NaN not supported",
            value if value.is_infinite() => "Infinite values not supported",
            value if value.is_subnormal() => "Subnormal values not supported",
            value if value < 0.0 => "Negative values not supported",
            _ => return Ok((kind.clone(), milli(value))),
        };
        Err(format!("Invalid {what} configuration {{'{kind}': {value}}}: {why}"))
    };
    amounts.iter().map(read).collect()
}

/// As Mesos writes a map of amounts: `{ cpus: 5 }`.
fn shown(amounts: &BTreeMap<String, u64>) -> String {
    let each: Vec<_> =
        amounts.iter().map(|(kind, milli)| format!("{kind}: {}", *milli as f64 / 1000.0)).collect();
    format!("{{ {} }}", each.join(", "))
}

pub(super) fn set_quota(call: &Call) -> Checked {
    #[allow(deprecated)]
    let asked = call.set_quota.clone().unwrap_or_default();
    new_quota(&asked.quota_request)
}

pub(super) fn post_quota(body: &[u8]) -> Checked {
    new_quota(&read_json(body)?)
}

/// A guarantee that is a limit at the same time, of a role that has none yet.
fn new_quota(asked: &QuotaRequest) -> Checked {
    let invalid = |why: String| wrong(format!("Failed to validate set quota request: {why}"));
    let role =
        Role::parse(asked.role()).map_err(|why| invalid(format!("QuotaInfo with invalid role: {why}")))?;
    let guarantees = guarantees(&asked.guarantee).map_err(invalid)?;
    if role.as_str().contains('/') {
        return Err(wrong(format!("Setting quota on nested role '{role}' is not supported yet")));
    }
    let limits = guarantees.iter().map(|(kind, _)| (kind.into(), guarantees.scalar(kind))).collect();
    let quotas = vec![(role, Quota { guarantees, limits })];
    let call = OperatorCall::SetQuotas { quotas, force: asked.force.unwrap_or(false), new: true };
    let refused = |why: String| if why.starts_with(OVERCOMMITS) { conflict(why) } else { *wrong(why) };
    Ok(Asked { call, refused: Box::new(refused) })
}

#[allow(deprecated)]
fn guarantees(list: &[mesos::Resource]) -> Result<Resources, String> {
    if list.is_empty() {
        return Err("QuotaInfo with empty 'guarantee'".into());
    }
    let (mut sum, mut names) = (Resources::none(), BTreeSet::new());
    for resource in list {
        let is_reserved = resource.role.as_deref().is_some_and(|role| role != "*")
            || resource.reservation.is_some()
            || !resource.reservations.is_empty();
        if is_reserved {
            return Err("QuotaInfo must not contain any ReservationInfo".into());
        }
        if resource.disk.is_some() {
            return Err("QuotaInfo must not contain DiskInfo".into());
        }
        if resource.revocable.is_some() {
            return Err("QuotaInfo must not contain RevocableInfo".into());
        }
        let Some(scalar) =
            resource.scalar.as_ref().filter(|_| resource.r#type() == mesos::value::Type::Scalar)
        else {
            return Err("QuotaInfo must not include non-scalar resources".into());
        };
        if !names.insert(&resource.name) {
            return Err(format!("QuotaInfo contains duplicate resource name '{}'", resource.name));
        }
        let one = BTreeMap::from([(resource.name.clone(), *scalar)]);
        is_small(&one).map_err(|why| format!("QuotaInfo with invalid resource: {why}"))?;
        let amount = amounts(&one, "guarantee")?.into_values().next().unwrap_or(0);
        sum.insert(&resource.name, Value::Scalar(amount));
    }
    Ok(sum)
}

pub(super) fn remove_quota(call: &Call) -> Checked {
    #[allow(deprecated)]
    let role = call.remove_quota.clone().unwrap_or_default().role;
    match Role::parse(&role) {
        Ok(role) => Ok(Asked::of(OperatorCall::RemoveQuota(role))),
        Err(_) => Err(wrong(format!("Failed to remove quota: Role '{role}' has no quota set"))),
    }
}

/// The role stands behind the endpoint's name.
pub(super) fn delete_quota(path: &str) -> Checked {
    let below = path.strip_prefix("/master").unwrap_or(path).strip_prefix("/quota/").unwrap_or_default();
    let path = format!("/master/quota/{below}");
    if below.is_empty() {
        return Err(wrong(format!("Failed to parse remove quota request for path '{path}': name the role")));
    }
    let none = format!("Failed to remove quota for path '{path}': Role '{below}' has no quota set");
    let Ok(role) = Role::parse(below) else { return Err(wrong(none)) };
    let without = Refusal::NoQuota(role.clone()).to_string();
    let refused = move |why: String| *wrong(if why == without { none } else { why });
    Ok(Asked { call: OperatorCall::RemoveQuota(role), refused: Box::new(refused) })
}

/// The quotas that are set, by role: in both forms.
#[allow(deprecated)]
pub(in super::super) fn quota_status(seen: &Seen) -> QuotaStatus {
    let mut status = QuotaStatus::default();
    let set = seen.registry.role_settings().filter(|(_, settings)| !settings.quota.is_empty());
    let set = set.filter(|(role, _)| seen.view.quota(role.as_str()));
    for (role, settings) in set {
        let Quota { guarantees, limits } = &settings.quota;
        status.infos.push(QuotaInfo {
            role: Some(role.to_string()),
            guarantee: wire_resources(guarantees),
            ..Default::default()
        });
        let scalar = |milli: u64| Some(mesos::value::Scalar { value: milli as f64 / 1000.0 });
        status.configs.push(QuotaConfig {
            role: role.to_string(),
            guarantees: guarantees
                .iter()
                .map(|(kind, _)| GuaranteesEntry {
                    key: Some(kind.into()),
                    value: scalar(guarantees.scalar(kind)),
                })
                .collect(),
            limits: limits
                .iter()
                .map(|(kind, most)| LimitsEntry { key: Some(kind.to_string()), value: scalar(*most) })
                .collect(),
        });
    }
    status
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use http::StatusCode;

    fn json(body: &str) -> Call {
        muster_proto::json::Codec::Json.read(body.as_bytes()).unwrap()
    }

    async fn refused(checked: Checked) -> (StatusCode, String) {
        let response = *checked.map(|asked| asked.call).unwrap_err();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_quota_is_told() {
        let config = |config: &str| {
            let call = format!(
                r#"{{"type":"UPDATE_QUOTA","update_quota":{{"quota_configs":[{{"role":"web",{config}}}]}}}}"#
            );
            update_quota(&json(&call))
        };
        for (asked, why) in [
            (
                r#""limits":{"cpus":{"value":-1}}"#,
                "Invalid limit configuration {'cpus': -1}: Negative values",
            ),
            (r#""guarantees":{"mem":{"value":1e13}}"#, "values greater than 1 exabyte (1099511627776)"),
            (r#""guarantees":{"cpus":{"value":1.5}},"limits":{"cpus":{"value":0}}"#, "{ cpus: 1.5 } is not"),
        ] {
            let (status, text) = refused(config(asked)).await;
            assert_eq!(status, StatusCode::BAD_REQUEST);
            assert!(text.starts_with("Invalid QuotaConfig: ") && text.contains(why), "{text}");
        }
        // A limit of nothing is one, and a guarantee of nothing is none.
        let asked = config(r#""guarantees":{"mem":{"value":0}},"limits":{"cpus":{"value":0}}"#)
            .unwrap_or_else(|_| panic!());
        let limits = BTreeMap::from([("cpus".into(), 0)]);
        let quotas = vec![(Role::parse("web").unwrap(), Quota { guarantees: Resources::none(), limits })];
        assert_eq!(asked.call, OperatorCall::SetQuotas { quotas, force: false, new: false });
        let nested = r#"{"type":"UPDATE_QUOTA","update_quota":{"quota_configs":[{"role":"a/b"}]}}"#;
        let (_, text) = refused(update_quota(&json(nested))).await;
        assert_eq!(text, "Updating quota on nested role 'a/b' is not supported yet");
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_guarantee_is_told() {
        let scalar = r#""type":"SCALAR","scalar":{"value":1}"#;
        for (guarantee, why) in [
            ("".into(), "QuotaInfo with empty 'guarantee'"),
            (
                format!(r#"{{"name":"cpus","role":"a",{scalar}}}"#),
                "QuotaInfo must not contain any ReservationInfo",
            ),
            (r#"{"name":"ports","type":"RANGES"}"#.into(), "QuotaInfo must not include non-scalar resources"),
            (
                format!(r#"{{"name":"cpus",{scalar}}},{{"name":"cpus",{scalar}}}"#),
                "QuotaInfo contains duplicate resource name 'cpus'",
            ),
        ] {
            let body = format!(r#"{{"role":"web","guarantee":[{guarantee}]}}"#);
            let (status, text) = refused(post_quota(body.as_bytes())).await;
            assert_eq!(
                (status, text),
                (StatusCode::BAD_REQUEST, format!("Failed to validate set quota request: {why}"))
            );
        }
        let body = format!(r#"{{"role":"web","guarantee":[{{"name":"cpus",{scalar}}}],"force":true}}"#);
        let asked = post_quota(body.as_bytes()).unwrap_or_else(|_| panic!());
        let quota = Quota {
            guarantees: Resources::parse("cpus:1").unwrap(),
            limits: BTreeMap::from([("cpus".into(), 1_000)]),
        };
        let quotas = vec![(Role::parse("web").unwrap(), quota)];
        assert_eq!(asked.call, OperatorCall::SetQuotas { quotas, force: true, new: true });
    }

    #[tokio::test]
    async fn weights_are_more_than_nothing() {
        let (_, text) = refused(put_weights(br#"[{"role":" web ","weight":0}]"#)).await;
        assert!(text.ends_with("for role 'web': Invalid weight '0': Weights must be positive"), "{text}");
        let (_, text) = refused(put_weights(br#"{"role":"web","weight":1}"#)).await;
        assert!(text.starts_with("Failed to parse body into a JSON array"), "{text}");
        let asked = put_weights(br#"[{"role":"web","weight":2.5},{"role":"a/b","weight":0.0001}]"#);
        let weights = [("web", 2_500), ("a/b", 1)].map(|(role, weight)| (Role::parse(role).unwrap(), weight));
        let asked = asked.unwrap_or_else(|_| panic!());
        assert_eq!(asked.call, OperatorCall::SetWeights(weights.to_vec()));
    }
}
