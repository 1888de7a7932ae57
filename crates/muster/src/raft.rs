//! `muster raft ...`.

use crate::cli::{Masters, Output};
use crate::lists::{client, patiently};
use crate::output::{Rows, done};
use anyhow::bail;
use muster_proto::v1;
use muster_sdk::MasterStatus;
use serde_json::json;
use std::process::ExitCode;

pub(crate) async fn status(masters: &Masters, output: Output) -> anyhow::Result<ExitCode> {
    let all = patiently(masters, client(masters).raft_status()).await;
    let answered = all.iter().filter(|master| master.status.is_ok()).count();
    let mut rows = Rows::new([
        "NAME",
        "ADDRESS",
        "STATE",
        "TERM",
        "LAST",
        "COMMITTED",
        "APPLIED",
        "LAG",
        "SNAPSHOT",
        "VOTER",
        "NOTE",
    ]);
    let leader =
        all.iter().filter_map(|master| master.status.as_ref().ok()).find(|said| said.state == "leader");
    let committed = leader.map(|leader| leader.committed_index);
    let voters: Vec<_> = leader.map(|leader| leader.members.clone()).unwrap_or_default();
    for master in &all {
        let (row, json) = row(master, committed, &voters);
        rows.push(row, json);
    }
    rows.print(output);
    if answered == 0 {
        bail!(
            "no master answered at {}; check the addresses, and that masters run",
            masters.masters.join(", ")
        );
    }
    if leader.is_none() {
        bail!("none of these masters leads; wait a second and ask again, or check that a majority runs");
    }
    Ok(ExitCode::SUCCESS)
}

fn row(
    master: &MasterStatus,
    committed: Option<u64>,
    members: &[v1::MemberStatus],
) -> ([String; 11], serde_json::Value) {
    let said = match &master.status {
        Ok(said) => said,
        Err(why) => {
            let mut row = std::array::from_fn(|_| "-".to_owned());
            row[1] = master.address.clone();
            row[2] = "no answer".into();
            row[10] = why.clone();
            return (row, json!({"address": master.address, "state": null, "error": why}));
        }
    };
    let fence = said.fence.unwrap_or_default();
    let lag = committed.map(|committed| committed.saturating_sub(said.applied_index));
    let voter = members.iter().find(|member| member.name == said.name).map(|member| member.voter);
    let json = json!({
        "name": said.name, "address": master.address, "state": said.state, "cluster_id": said.cluster_id,
        "leader": said.leader.as_ref().map(|leader| json!({"name": leader.name, "address": leader.address})),
        "incarnation": fence.incarnation, "term": fence.term, "last_log_index": said.last_log_index,
        "committed_index": said.committed_index, "applied_index": said.applied_index, "lag": lag,
        "snapshot_index": said.snapshot_index, "purged_index": said.purged_index, "voter": voter,
        "node_id": said.node_id, "state_hash": format!("{:016x}", said.state_hash), "note": said.note,
        "members": said.members.iter().map(|member| json!({
            "name": member.name, "address": member.address, "node_id": member.node_id, "voter": member.voter,
            "matched_index": member.matched_index,
        })).collect::<Vec<_>>(),
    });
    let row = [
        said.name.clone(),
        master.address.clone(),
        said.state.clone(),
        fence.term.to_string(),
        said.last_log_index.to_string(),
        said.committed_index.to_string(),
        said.applied_index.to_string(),
        lag.map_or("-".into(), |lag| lag.to_string()),
        said.snapshot_index.to_string(),
        voter.map_or("-", |voter| if voter { "yes" } else { "no" }).into(),
        said.note.clone(),
    ];
    (row, json)
}

pub(crate) async fn replace(
    masters: &Masters,
    name: &str,
    confirm: bool,
    output: Output,
) -> anyhow::Result<ExitCode> {
    patiently(masters, client(masters).replace_member(name, confirm)).await?;
    let sentence = format!("{name} is let back in; `muster raft status` shows when it votes again");
    done(output, &sentence, &json!({"name": name, "replaced": true}));
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn transfer(
    masters: &Masters,
    name: Option<&str>,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let name = patiently(masters, client(masters).transfer_leadership(name)).await?;
    done(output, &format!("{name} leads"), &json!({"leader": name}));
    Ok(ExitCode::SUCCESS)
}
