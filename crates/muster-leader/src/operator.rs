//! What operators ask.

use crate::{Effect, Leader, OperatorCall, leader::Waiting};
use muster_model::{CallOutcome, Timestamp};
use muster_registry::{Command, Registry};

impl Leader {
    pub(crate) fn operator_call(
        &mut self,
        now: Timestamp,
        registry: &Registry,
        id: u64,
        call: OperatorCall,
        effects: &mut Vec<Effect>,
    ) {
        if !self.serving || self.is_busy() {
            return effects.push(Effect::Answer { id, outcome: CallOutcome::Busy });
        }
        let command = match call {
            OperatorCall::Teardown(framework_id) => Command::Teardown { framework_id },
            OperatorCall::MarkGone(agent_id) => Command::MarkGone { agent_id },
            OperatorCall::SetWeights(weights) => Command::SetWeights(weights),
            OperatorCall::SetQuotas { quotas, force, new } => Command::SetQuotas { quotas, force, new },
            OperatorCall::RemoveQuota(role) => Command::RemoveQuota(role),
            OperatorCall::Deactivate(agent_id) => Command::DeactivateAgent { agent_id },
            OperatorCall::Reactivate(agent_id) => Command::ReactivateAgent { agent_id },
            OperatorCall::Drain { agent_id, max_grace_ms, mark_gone } => {
                Command::DrainAgent { agent_id, max_grace_ms, mark_gone }
            }
            OperatorCall::SetSchedule(windows) => Command::SetSchedule(windows),
            OperatorCall::StartMaintenance(machines) => Command::StartMaintenance(machines),
            OperatorCall::StopMaintenance(machines) => Command::StopMaintenance(machines),
            OperatorCall::Convert(agent_id, conversion) => {
                return self.convert(now, registry, id, agent_id, conversion, effects);
            }
        };
        self.propose(command, Waiting::Operator { id }, effects);
    }
}
