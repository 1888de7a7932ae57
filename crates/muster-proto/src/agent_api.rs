//! The Mesos v1 operator API of an agent: which calls are whole.

use crate::mesos;
use mesos::agent::{Call, call::Type};
use muster_model::ExecutorId;

/// The longest id of a container, in bytes (Mesos).
const CONTAINER_ID_BYTES_MAX: usize = 242;
/// How deep containers are nested, at most.
const NESTED_MAX: usize = 32;

/// Checks what Mesos checks before anything else: that the part is there which the call's type needs, and that ids of
/// containers can be such.
///
/// # Errors
/// In Mesos' words, what is missing or wrong.
pub fn validate(call: &Call) -> Result<Type, String> {
    let expecting = |what: &str| Err(format!("Expecting '{what}' to be present"));
    let Some(kind) = call.r#type.and_then(|kind| Type::try_from(kind).ok()) else {
        return expecting("type");
    };
    if let Some(part) = missing(call, kind) {
        return expecting(part);
    }
    if let Some((part, id)) = container(call, kind) {
        container_id(id, 0).map_err(|why| format!("'{part}.container_id' is invalid: {why}"))?;
        if part.contains("nested") && id.parent.is_none() {
            return expecting(&format!("{part}.container_id.parent"));
        }
    }
    Ok(kind)
}

/// The part that this type of call needs and that is not there.
#[allow(deprecated)]
fn missing(call: &Call, kind: Type) -> Option<&'static str> {
    let (there, part) = match kind {
        Type::GetMetrics => (call.get_metrics.is_some(), "get_metrics"),
        Type::SetLoggingLevel => (call.set_logging_level.is_some(), "set_logging_level"),
        Type::ListFiles => (call.list_files.is_some(), "list_files"),
        Type::ReadFile => (call.read_file.is_some(), "read_file"),
        Type::LaunchNestedContainer => (call.launch_nested_container.is_some(), "launch_nested_container"),
        Type::WaitNestedContainer => (call.wait_nested_container.is_some(), "wait_nested_container"),
        Type::KillNestedContainer => (call.kill_nested_container.is_some(), "kill_nested_container"),
        Type::RemoveNestedContainer => (call.remove_nested_container.is_some(), "remove_nested_container"),
        Type::LaunchNestedContainerSession => {
            (call.launch_nested_container_session.is_some(), "launch_nested_container_session")
        }
        Type::AttachContainerInput => (call.attach_container_input.is_some(), "attach_container_input"),
        Type::AttachContainerOutput => (call.attach_container_output.is_some(), "attach_container_output"),
        Type::LaunchContainer => (call.launch_container.is_some(), "launch_container"),
        Type::WaitContainer => (call.wait_container.is_some(), "wait_container"),
        Type::KillContainer => (call.kill_container.is_some(), "kill_container"),
        Type::RemoveContainer => (call.remove_container.is_some(), "remove_container"),
        Type::AddResourceProviderConfig => {
            (call.add_resource_provider_config.is_some(), "add_resource_provider_config")
        }
        Type::UpdateResourceProviderConfig => {
            (call.update_resource_provider_config.is_some(), "update_resource_provider_config")
        }
        Type::RemoveResourceProviderConfig => {
            (call.remove_resource_provider_config.is_some(), "remove_resource_provider_config")
        }
        Type::MarkResourceProviderGone => {
            (call.mark_resource_provider_gone.is_some(), "mark_resource_provider_gone")
        }
        Type::Unknown
        | Type::GetHealth
        | Type::GetFlags
        | Type::GetVersion
        | Type::GetLoggingLevel
        | Type::GetState
        | Type::GetContainers
        | Type::GetFrameworks
        | Type::GetExecutors
        | Type::GetOperations
        | Type::GetTasks
        | Type::GetAgent
        | Type::GetResourceProviders
        | Type::PruneImages => return None,
    };
    (!there).then_some(part)
}

/// The container that a call is about, and the part that names it.
#[allow(deprecated)]
pub fn container(call: &Call, kind: Type) -> Option<(&'static str, &mesos::ContainerId)> {
    Some(match kind {
        Type::LaunchNestedContainer => {
            ("launch_nested_container", &call.launch_nested_container.as_ref()?.container_id)
        }
        Type::WaitNestedContainer => {
            ("wait_nested_container", &call.wait_nested_container.as_ref()?.container_id)
        }
        Type::KillNestedContainer => {
            ("kill_nested_container", &call.kill_nested_container.as_ref()?.container_id)
        }
        Type::RemoveNestedContainer => {
            ("remove_nested_container", &call.remove_nested_container.as_ref()?.container_id)
        }
        Type::LaunchNestedContainerSession => {
            ("launch_nested_container_session", &call.launch_nested_container_session.as_ref()?.container_id)
        }
        Type::AttachContainerOutput => {
            ("attach_container_output", &call.attach_container_output.as_ref()?.container_id)
        }
        Type::LaunchContainer => ("launch_container", &call.launch_container.as_ref()?.container_id),
        Type::WaitContainer => ("wait_container", &call.wait_container.as_ref()?.container_id),
        Type::KillContainer => ("kill_container", &call.kill_container.as_ref()?.container_id),
        Type::RemoveContainer => ("remove_container", &call.remove_container.as_ref()?.container_id),
        _ => return None,
    })
}

fn container_id(id: &mesos::ContainerId, depth: usize) -> Result<(), String> {
    let is_valid = id.value.len() <= CONTAINER_ID_BYTES_MAX
        && !id.value.contains(['.', ' '])
        && ExecutorId::parse(&id.value).is_ok();
    if !is_valid {
        return Err(format!("'ContainerID.value' '{}' contains invalid characters", id.value));
    }
    match &id.parent {
        None => Ok(()),
        Some(_) if depth >= NESTED_MAX => Err("'ContainerID.parent' is nested too deeply".into()),
        Some(parent) => {
            container_id(parent, depth + 1).map_err(|why| format!("'ContainerID.parent' is invalid: {why}"))
        }
    }
}

/// A container's id as texts have it: that of its parent, a dot, its own.
pub fn container_text(id: &mesos::ContainerId) -> String {
    match &id.parent {
        Some(parent) => format!("{}.{}", container_text(parent), id.value),
        None => id.value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(kind: Type) -> Call {
        Call { r#type: Some(kind.into()), ..Default::default() }
    }

    fn id(value: &str, parent: Option<&str>) -> mesos::ContainerId {
        let parent = parent.map(|value| Box::new(id(value, None)));
        mesos::ContainerId { value: value.into(), parent }
    }

    #[test]
    fn a_call_has_the_part_that_its_type_needs() {
        assert_eq!(validate(&Call::default()), Err("Expecting 'type' to be present".into()));
        assert_eq!(validate(&call(Type::GetContainers)), Ok(Type::GetContainers));
        let missing = Err("Expecting 'wait_container' to be present".into());
        assert_eq!(validate(&call(Type::WaitContainer)), missing);
    }

    #[test]
    #[allow(deprecated)]
    fn a_container_has_an_id() {
        use mesos::agent::call::{KillNestedContainer, WaitContainer};
        let wait = |id| Call {
            wait_container: Some(WaitContainer { container_id: id }),
            ..call(Type::WaitContainer)
        };
        assert_eq!(validate(&wait(id("a-b", Some("c")))), Ok(Type::WaitContainer));
        for bad in ["", "a.b", "a b", "a/b", ".."] {
            let why = validate(&wait(id(bad, None))).unwrap_err();
            assert!(
                why.starts_with("'wait_container.container_id' is invalid: 'ContainerID.value'"),
                "{why}"
            );
            assert!(validate(&wait(id("a", Some(bad)))).unwrap_err().contains("'ContainerID.parent'"));
        }
        let kill = |id| Call {
            kill_nested_container: Some(KillNestedContainer { container_id: id, signal: None }),
            ..call(Type::KillNestedContainer)
        };
        let why = "Expecting 'kill_nested_container.container_id.parent' to be present";
        assert_eq!(validate(&kill(id("a", None))), Err(why.into()));
        assert_eq!(container_text(&id("a", Some("b"))), "b.a");
    }
}
