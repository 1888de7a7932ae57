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
    quota::QuotaConfig,
    value::Scalar,
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, process::ExitCode};

pub(crate) async fn list(masters: &Masters, output: Output) -> anyhow::Result<ExitCode> {
    let answer = ask(masters, Type::GetQuota).await?;
    let mut rows = Rows::new(["ROLE", "GUARANTEES", "LIMITS"]);
    for quota in answer.get_quota.unwrap_or_default().status.configs {
        let json = json!({
            "role": quota.role, "guarantees": json_of(&quota.guarantees), "limits": json_of(&quota.limits),
        });
        rows.push([quota.role, text(&quota.guarantees), text(&quota.limits)], json);
    }
    rows.print(output);
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn set(args: &QuotaSetArgs, output: Output) -> anyhow::Result<ExitCode> {
    let QuotaSetArgs { role, guarantee, limit, force, masters } = args;
    let scalars = |amounts: &Option<Amounts>| -> BTreeMap<String, Scalar> {
        let amounts = amounts.iter().flat_map(|it| &it.0);
        amounts.map(|(name, amount)| (name.clone(), Scalar { value: *amount })).collect()
    };
    let quota = QuotaConfig { role: role.clone(), guarantees: scalars(guarantee), limits: scalars(limit) };
    let (guarantees, limits) = (quota.guarantees.clone(), quota.limits.clone());
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
fn text(amounts: &BTreeMap<String, Scalar>) -> String {
    let list: Vec<String> =
        amounts.iter().map(|(name, it)| format!("{name}:{}", amount_text(it.value))).collect();
    if list.is_empty() { "-".into() } else { list.join(";") }
}

fn json_of(amounts: &BTreeMap<String, Scalar>) -> Value {
    let entries: Map<String, Value> =
        amounts.iter().map(|(name, it)| (name.clone(), json!(it.value))).collect();
    Value::Object(entries)
}
