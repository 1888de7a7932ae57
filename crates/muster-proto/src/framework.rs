//! Frameworks.

use crate::error::{bounded, short};
use crate::{WireError, limits, mesos};
use bytes::Bytes;
use mesos::framework_info::capability::Type;
use muster_model::{Capabilities, FrameworkInfo, Role, Sealed};
use prost::Message;

/// Reads an encoded `mesos.v1.FrameworkInfo`; the bytes stay as they are.
pub fn framework_info(bytes: &[u8]) -> Result<FrameworkInfo, WireError> {
    short("framework_info", bytes, limits::SEALED_BYTES_MAX)?;
    let info = mesos::FrameworkInfo::decode(bytes).map_err(|error| {
        WireError::new("framework_info", format!("is not a mesos.v1.FrameworkInfo: {error}"))
    })?;
    typed(&info, bytes).map_err(|error| error.within("framework_info"))
}

/// The description with this principal instead; the rest stays as it was sent.
pub fn with_principal(encoded: &[u8], principal: &str) -> Bytes {
    const PRINCIPAL: u32 = 8;
    let mut whole = encoded.to_vec();
    // Of a field that occurs twice the last counts.
    crate::operation::put_field(PRINCIPAL, principal.as_bytes(), &mut whole);
    whole.into()
}

fn typed(info: &mesos::FrameworkInfo, bytes: &[u8]) -> Result<FrameworkInfo, WireError> {
    short("name", info.name.as_bytes(), limits::NAME_BYTES_MAX)?;
    short("user", info.user.as_bytes(), limits::NAME_BYTES_MAX)?;
    if let Some(principal) = &info.principal {
        short("principal", principal.as_bytes(), limits::NAME_BYTES_MAX)?;
    }
    if let Some(labels) = &info.labels {
        bounded("labels", &labels.labels, limits::LABELS_MAX)?;
    }
    let has = |capability: Type| info.capabilities.iter().any(|c| c.r#type == Some(capability.into()));
    let capabilities = Capabilities {
        partition_aware: has(Type::PartitionAware),
        task_killing_state: has(Type::TaskKillingState),
        multi_role: has(Type::MultiRole),
        reservation_refinement: has(Type::ReservationRefinement),
        gpu_resources: has(Type::GpuResources),
    };
    Ok(FrameworkInfo {
        name: info.name.as_str().into(),
        user: info.user.as_str().into(),
        principal: info.principal.as_deref().map(Into::into),
        roles: framework_roles(info, capabilities.multi_role)?,
        failover_timeout_ms: failover_timeout_ms(info.failover_timeout())?,
        capabilities,
        sealed: Sealed::new(bytes),
    })
}

#[allow(deprecated)]
fn framework_roles(info: &mesos::FrameworkInfo, multi_role: bool) -> Result<Vec<Role>, WireError> {
    if !multi_role {
        if !info.roles.is_empty() {
            return Err(WireError::new("roles", "needs the capability MULTI_ROLE; set it, or use `role`"));
        }
        let role = Role::parse(info.role()).map_err(|problem| WireError::new("role", problem))?;
        return Ok(vec![role]);
    }
    if info.role.is_some() {
        return Err(WireError::new("role", "must be unset with the capability MULTI_ROLE; use `roles`"));
    }
    if info.roles.is_empty() {
        return Err(WireError::new("roles", "is empty; name at least one role, for example \"*\""));
    }
    let mut roles = self::roles("roles", &info.roles)?;
    roles.sort_unstable();
    match roles.windows(2).find(|two| two[0] == two[1]) {
        Some(two) => Err(WireError::new("roles", format!("{} occurs twice", two[0]))),
        None => Ok(roles),
    }
}

/// Reads role names, in the order given.
pub(crate) fn roles(field: &str, texts: &[String]) -> Result<Vec<Role>, WireError> {
    bounded(field, texts, limits::ROLES_MAX)?;
    texts.iter().map(|text| Role::parse(text).map_err(|problem| WireError::new(field, problem))).collect()
}

/// Seconds of the wire in ms: negative is 0, beyond 64-bit nanoseconds is refused (Mesos' rule).
fn failover_timeout_ms(seconds: f64) -> Result<u64, WireError> {
    if seconds.is_nan() || seconds > i64::MAX as f64 / 1e9 {
        let problem = format!("is {seconds} seconds, which is not a time below 292 years");
        return Err(WireError::new("failover_timeout", problem));
    }
    Ok((seconds.max(0.0) * 1000.0).round() as u64)
}
