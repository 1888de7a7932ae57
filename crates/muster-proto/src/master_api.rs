//! The Mesos v1 operator API of a master: which calls are whole, and the answers that need nothing but the wire.

use crate::mesos;
use mesos::master::{Call, call::Type};
use muster_model::WallTime;

/// Checks what Mesos checks before anything else: that the part is there which the call's type needs.
///
/// # Errors
/// In Mesos' words, what is missing.
pub fn validate(call: &Call) -> Result<Type, String> {
    let expecting = |what: &str| Err(format!("Expecting '{what}' to be present"));
    let Some(kind) = call.r#type.and_then(|kind| Type::try_from(kind).ok()) else {
        return expecting("type");
    };
    match missing(call, kind) {
        Some(part) => expecting(part),
        None => Ok(kind),
    }
}

/// The part that this type of call needs and that is not there.
#[allow(deprecated)]
fn missing(call: &Call, kind: Type) -> Option<&'static str> {
    let (there, part) = match kind {
        Type::GetMetrics => (call.get_metrics.is_some(), "get_metrics"),
        Type::SetLoggingLevel => (call.set_logging_level.is_some(), "set_logging_level"),
        Type::ListFiles => (call.list_files.is_some(), "list_files"),
        Type::ReadFile => (call.read_file.is_some(), "read_file"),
        Type::UpdateWeights => (call.update_weights.is_some(), "update_weights"),
        Type::ReserveResources => (call.reserve_resources.is_some(), "reserve_resources"),
        Type::UnreserveResources => (call.unreserve_resources.is_some(), "unreserve_resources"),
        Type::CreateVolumes => (call.create_volumes.is_some(), "create_volumes"),
        Type::DestroyVolumes => (call.destroy_volumes.is_some(), "destroy_volumes"),
        Type::GrowVolume => (call.grow_volume.is_some(), "grow_volume"),
        Type::ShrinkVolume => (call.shrink_volume.is_some(), "shrink_volume"),
        Type::UpdateMaintenanceSchedule => {
            (call.update_maintenance_schedule.is_some(), "update_maintenance_schedule")
        }
        Type::StartMaintenance => (call.start_maintenance.is_some(), "start_maintenance"),
        Type::StopMaintenance => (call.stop_maintenance.is_some(), "stop_maintenance"),
        Type::UpdateQuota => (call.update_quota.is_some(), "update_quota"),
        Type::SetQuota => (call.set_quota.is_some(), "set_quota"),
        Type::RemoveQuota => (call.remove_quota.is_some(), "remove_quota"),
        Type::Teardown => (call.teardown.is_some(), "teardown"),
        Type::MarkAgentGone => (call.mark_agent_gone.is_some(), "mark_agent_gone"),
        Type::DrainAgent => (call.drain_agent.is_some(), "drain_agent"),
        Type::DeactivateAgent => (call.deactivate_agent.is_some(), "deactivate_agent"),
        Type::ReactivateAgent => (call.reactivate_agent.is_some(), "reactivate_agent"),
        Type::Unknown
        | Type::GetHealth
        | Type::GetFlags
        | Type::GetVersion
        | Type::GetLoggingLevel
        | Type::GetState
        | Type::GetAgents
        | Type::GetFrameworks
        | Type::GetExecutors
        | Type::GetOperations
        | Type::GetTasks
        | Type::GetRoles
        | Type::GetWeights
        | Type::GetMaster
        | Type::Subscribe
        | Type::GetMaintenanceStatus
        | Type::GetMaintenanceSchedule
        | Type::GetQuota => return None,
    };
    (!there).then_some(part)
}

/// A moment, in nanoseconds since the Unix epoch.
pub fn time(wall: WallTime) -> mesos::TimeInfo {
    let nanoseconds = wall.0.saturating_mul(1_000_000);
    mesos::TimeInfo { nanoseconds: i64::try_from(nanoseconds).unwrap_or(i64::MAX) }
}

/// A moment, in seconds since the Unix epoch.
pub fn seconds(wall: WallTime) -> f64 {
    wall.0 as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(kind: Type) -> Call {
        Call { r#type: Some(kind.into()), ..Default::default() }
    }

    #[test]
    fn a_call_has_the_part_that_its_type_needs() {
        assert_eq!(validate(&Call::default()), Err("Expecting 'type' to be present".into()));
        assert_eq!(validate(&call(Type::GetState)), Ok(Type::GetState));
        assert_eq!(validate(&call(Type::Teardown)), Err("Expecting 'teardown' to be present".into()));
        let whole = Call { get_metrics: Some(Default::default()), ..call(Type::GetMetrics) };
        assert_eq!(validate(&whole), Ok(Type::GetMetrics));
    }
}
