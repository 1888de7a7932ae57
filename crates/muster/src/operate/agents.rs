//! Agents that are taken out of use, and back.

use super::{act, args::DrainArgs, of};
use crate::cli::{Masters, Output};
use crate::output::done;
use anyhow::Context;
use muster_proto::mesos::{
    self,
    master::call::{self, Type},
};
use serde_json::json;
use std::process::ExitCode;

fn id(agent_id: &str) -> mesos::AgentId {
    mesos::AgentId { value: agent_id.into() }
}

pub(crate) async fn drain(args: &DrainArgs, output: Output) -> anyhow::Result<ExitCode> {
    let DrainArgs { agent_id, max_grace, mark_gone, masters } = args;
    let max_grace_period = max_grace.map(|grace| prost_types::Duration {
        seconds: i64::try_from(grace.as_secs()).unwrap_or(i64::MAX),
        nanos: 0,
    });
    let drain = call::DrainAgent { agent_id: id(agent_id), max_grace_period, mark_gone: Some(*mark_gone) };
    let call = mesos::master::Call { drain_agent: Some(drain), ..of(Type::DrainAgent) };
    act(masters, call).await.with_context(|| format!("agent {agent_id}"))?;
    let then = if *mark_gone { "; once the last has ended it is gone" } else { "" };
    let sentence = format!("agent {agent_id} is offered no more, and its tasks are killed{then}");
    done(output, &sentence, &json!({"agent_id": agent_id, "draining": true, "mark_gone": mark_gone}));
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn deactivate(
    masters: &Masters,
    agent_id: &str,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let deactivate = call::DeactivateAgent { agent_id: id(agent_id) };
    let call = mesos::master::Call { deactivate_agent: Some(deactivate), ..of(Type::DeactivateAgent) };
    act(masters, call).await.with_context(|| format!("agent {agent_id}"))?;
    let sentence = format!("agent {agent_id} is offered no more; its tasks run on");
    done(output, &sentence, &json!({"agent_id": agent_id, "deactivated": true}));
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn reactivate(
    masters: &Masters,
    agent_id: &str,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let reactivate = call::ReactivateAgent { agent_id: id(agent_id) };
    let call = mesos::master::Call { reactivate_agent: Some(reactivate), ..of(Type::ReactivateAgent) };
    act(masters, call).await.with_context(|| format!("agent {agent_id}"))?;
    done(
        output,
        &format!("agent {agent_id} is offered again"),
        &json!({"agent_id": agent_id, "deactivated": false}),
    );
    Ok(ExitCode::SUCCESS)
}
