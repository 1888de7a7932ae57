//! Quotas of roles.

use super::args::{Amounts, QuotaSetArgs};
use super::{act, amount_text, ask, of};
use crate::cli::{Masters, Output};
use crate::output::{Rows, done};
use anyhow::Context;
use muster_proto::mesos::{
    master::{
        Call,
        call::{self, Type},
    },
    quota::{
        QuotaConfig,
        quota_config::{GuaranteesEntry, LimitsEntry},
    },
    value::Scalar,
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, process::ExitCode};

pub(crate) async fn list(masters: &Masters, output: Output) -> anyhow::Result<ExitCode> {
    let answer = ask(masters, Type::GetQuota).await?;
    let mut rows = Rows::new(["ROLE", "GUARANTEES", "LIMITS"]);
    for quota in answer.get_quota.unwrap_or_default().status.configs {
        let pair = |key: &str, value: Option<Scalar>| (key.to_owned(), value.unwrap_or_default().value);
        let guarantees = quota.guarantees.iter().map(|it| pair(it.key(), it.value)).collect();
        let limits = quota.limits.iter().map(|it| pair(it.key(), it.value)).collect();
        let json = json!({
            "role": quota.role, "guarantees": json_of(&guarantees), "limits": json_of(&limits),
        });
        rows.push([quota.role, text(&guarantees), text(&limits)], json);
    }
    rows.print(output);
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn set(args: &QuotaSetArgs, output: Output) -> anyhow::Result<ExitCode> {
    let QuotaSetArgs { role, guarantee, limit, force, masters } = args;
    let all = |amounts: &Option<Amounts>| -> BTreeMap<String, f64> {
        amounts.iter().flat_map(|it| it.0.clone()).collect()
    };
    let (guarantees, limits) = (all(guarantee), all(limit));
    let scalar = |value: &f64| Some(Scalar { value: *value });
    let guaranteed = guarantees
        .iter()
        .map(|(name, amount)| GuaranteesEntry { key: Some(name.clone()), value: scalar(amount) });
    let limited =
        limits.iter().map(|(name, amount)| LimitsEntry { key: Some(name.clone()), value: scalar(amount) });
    let quota =
        QuotaConfig { role: role.clone(), guarantees: guaranteed.collect(), limits: limited.collect() };
    let update = call::UpdateQuota { force: Some(*force), quota_configs: vec![quota] };
    act(masters, Call { update_quota: Some(update), ..of(Type::UpdateQuota) })
        .await
        .with_context(|| format!("role {role}"))?;
    let sentence =
        format!("role {role} is guaranteed {}, and limited to {}", text(&guarantees), text(&limits));
    let json = json!({"role": role, "guarantees": json_of(&guarantees), "limits": json_of(&limits)});
    done(output, &sentence, &json);
    Ok(ExitCode::SUCCESS)
}

#[allow(deprecated)] // the call that says so when there is none
pub(crate) async fn remove(masters: &Masters, role: &str, output: Output) -> anyhow::Result<ExitCode> {
    let remove = call::RemoveQuota { role: role.into() };
    let call = Call { remove_quota: Some(remove), ..of(Type::RemoveQuota) };
    act(masters, call).await.with_context(|| format!("role {role}"))?;
    done(output, &format!("role {role} has no quota any more"), &json!({"role": role, "removed": true}));
    Ok(ExitCode::SUCCESS)
}

/// `cpus:4;mem:1024`; a dash for nothing.
fn text(amounts: &BTreeMap<String, f64>) -> String {
    let list: Vec<String> =
        amounts.iter().map(|(name, amount)| format!("{name}:{}", amount_text(*amount))).collect();
    if list.is_empty() { "-".into() } else { list.join(";") }
}

fn json_of(amounts: &BTreeMap<String, f64>) -> Value {
    let entries: Map<String, Value> =
        amounts.iter().map(|(name, amount)| (name.clone(), json!(amount))).collect();
    Value::Object(entries)
}
