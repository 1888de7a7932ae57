//! Agents that are not to be offered, and such as are emptied.

use super::{Asked, Checked, bad, wrong};
use muster_leader::OperatorCall;
use muster_model::AgentId;
use muster_proto::mesos::{self, master::Call};
use muster_registry::Refusal;

const UNKNOWN: &str = "Unknown agent";

pub(super) fn drain(call: &Call) -> Checked {
    let asked = call.drain_agent.clone().unwrap_or_default();
    let max_grace_ms = asked.max_grace_period.map(|grace| {
        let seconds = u64::try_from(grace.seconds).unwrap_or(0).saturating_mul(1_000);
        seconds.saturating_add(u64::try_from(grace.nanos).unwrap_or(0).div_ceil(1_000_000))
    });
    let mark_gone = asked.mark_gone.unwrap_or(false);
    of(&asked.agent_id, |agent_id| OperatorCall::Drain { agent_id, max_grace_ms, mark_gone })
}

pub(super) fn deactivate(call: &Call) -> Checked {
    of(&call.deactivate_agent.clone().unwrap_or_default().agent_id, OperatorCall::Deactivate)
}

pub(super) fn reactivate(call: &Call) -> Checked {
    let id = call.reactivate_agent.clone().unwrap_or_default().agent_id;
    match AgentId::parse(&id.value) {
        Ok(id) => Ok(Asked::of(OperatorCall::Reactivate(id))),
        Err(_) => Err(wrong("Agent is not deactivated")),
    }
}

fn of(id: &mesos::AgentId, call: impl FnOnce(AgentId) -> OperatorCall) -> Checked {
    let Ok(id) = AgentId::parse(&id.value) else { return Err(wrong(UNKNOWN)) };
    let unknown = Refusal::UnknownAgent(id.clone()).to_string();
    let refused = move |why: String| bad(if why == unknown { UNKNOWN.into() } else { why });
    Ok(Asked { call: call(id), refused: Box::new(refused) })
}
