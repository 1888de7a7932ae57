//! Roles, and how they share.

use super::{act, amount_text, args::Weight, ask, of};
use crate::cli::{Masters, Output};
use crate::output::{Rows, amounts, amounts_json, done};
use muster_proto::mesos::{
    WeightInfo,
    master::{
        Call,
        call::{self, Type},
    },
};
use serde_json::json;
use std::process::ExitCode;

pub(crate) async fn list(masters: &Masters, output: Output) -> anyhow::Result<ExitCode> {
    let answer = ask(masters, Type::GetRoles).await?;
    let mut rows = Rows::new(["ROLE", "WEIGHT", "FRAMEWORKS", "USED AND OFFERED"]);
    for role in answer.get_roles.unwrap_or_default().roles {
        let used = amounts(&role.resources);
        let frameworks: Vec<&str> = role.frameworks.iter().map(|id| id.value.as_str()).collect();
        let json = json!({
            "role": role.name, "weight": role.weight, "frameworks": frameworks, "resources": amounts_json(&used),
        });
        let row = [
            role.name.clone(),
            amount_text(role.weight),
            if frameworks.is_empty() { "-".into() } else { frameworks.join(",") },
            if used.is_empty() { "-".into() } else { used.to_string() },
        ];
        rows.push(row, json);
    }
    rows.print(output);
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn weigh(masters: &Masters, weights: &[Weight], output: Output) -> anyhow::Result<ExitCode> {
    let weight_infos = weights.iter().map(|it| WeightInfo { role: Some(it.role.clone()), weight: it.weight });
    let update = call::UpdateWeights { weight_infos: weight_infos.collect() };
    act(masters, Call { update_weights: Some(update), ..of(Type::UpdateWeights) }).await?;
    let said: Vec<String> =
        weights.iter().map(|it| format!("{} weighs {}", it.role, amount_text(it.weight))).collect();
    let json: Vec<_> = weights.iter().map(|it| json!({"role": it.role, "weight": it.weight})).collect();
    done(output, &format!("role {}", said.join(", ")), &json!(json));
    Ok(ExitCode::SUCCESS)
}
