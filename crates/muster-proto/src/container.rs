//! What a `ContainerInfo` must be wherever its task runs, and secrets, which are shown to nobody.

use crate::{
    WireError,
    error::Within,
    kept::{Keep, kept},
    mesos::{
        self, CommandInfo, ContainerInfo, Environment, ExecutorInfo, Secret, TaskInfo, container_info, volume,
    },
};
use prost::{DecodeError, Message};

/// Checks what does not depend on the agent.
pub(crate) fn check(info: &ContainerInfo) -> Result<(), WireError> {
    if info.r#type() == container_info::Type::Docker {
        let Some(docker) = &info.docker else {
            return Err(WireError::new("docker", "is missing; a container of type DOCKER needs it"));
        };
        if docker.parameters.iter().any(|parameter| parameter.key == "name") {
            return Err(WireError::new("docker.parameters", "has the key \"name\", which is not allowed"));
        }
    }
    for (i, volume) in info.volumes.iter().enumerate() {
        check_volume(volume).within(format_args!("volumes[{i}]"))?;
    }
    Ok(())
}

fn check_volume(volume: &mesos::Volume) -> Result<(), WireError> {
    use volume::source::Type;
    let named = [volume.host_path.is_some(), volume.image.is_some(), volume.source.is_some()];
    if named.into_iter().filter(|it| *it).count() != 1 {
        return Err(WireError::new("", "needs exactly one of host_path, image and source"));
    }
    let Some(source) = &volume.source else { return Ok(()) };
    let (field, is_there) = match source.r#type() {
        Type::DockerVolume => ("docker_volume", source.docker_volume.is_some()),
        Type::HostPath => ("host_path", source.host_path.is_some()),
        Type::SandboxPath => ("sandbox_path", source.sandbox_path.is_some()),
        Type::Secret => ("secret", source.secret.is_some()),
        Type::CsiVolume => ("csi_volume", source.csi_volume.is_some()),
        Type::Unknown => return Err(WireError::new("source.type", "is missing or not known")),
    };
    match is_there {
        true => Ok(()),
        false => {
            Err(WireError::new(format!("source.{field}"), "is missing; source.type says that it is there"))
        }
    }
}

/// A task that is to be shown, without the values of its secrets; an empty one if it cannot be read.
pub fn shown_task(sealed: &[u8]) -> TaskInfo {
    let mut info = TaskInfo::decode(sealed).unwrap_or_default();
    of_task(&mut info);
    info
}

/// Appends to `out` those fields of an encoded `TaskInfo` that tell what [`shown_task`] shows of a task beside its name, where
/// it runs and what it runs: limits, labels, discovery, container, health check and kill policy, and the users of its
/// command and of its executor's. They are an encoded `TaskInfo` again, and mostly a short one, which many tasks have in common.
///
/// # Errors
/// The bytes are no message.
pub fn shown_fields(sealed: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    const EXECUTOR: u32 = 5;
    const COMMAND: u32 = 7;
    const HEALTH_CHECK: u32 = 8;
    const CONTAINER: u32 = 9;
    const LABELS: u32 = 10;
    const DISCOVERY: u32 = 11;
    const KILL_POLICY: u32 = 12;
    const LIMITS: u32 = 15;
    const USER: u32 = 5;
    kept(sealed, out, &|number| match number {
        HEALTH_CHECK | CONTAINER | LABELS | DISCOVERY | KILL_POLICY | LIMITS => Keep::All,
        COMMAND => Keep::At(&[USER]),
        EXECUTOR => Keep::At(&[COMMAND, USER]),
        _ => Keep::Nothing,
    })
}

/// An executor that is to be shown, likewise.
pub fn shown_executor(sealed: &[u8]) -> ExecutorInfo {
    let mut info = ExecutorInfo::decode(sealed).unwrap_or_default();
    of_executor(&mut info);
    info
}

fn of_task(info: &mut TaskInfo) {
    info.container.iter_mut().for_each(of_container);
    info.command.iter_mut().for_each(of_command);
    info.executor.iter_mut().for_each(of_executor);
    info.health_check.iter_mut().filter_map(|it| it.command.as_mut()).for_each(of_command);
    let checks = info.check.iter_mut().filter_map(|it| it.command.as_mut());
    checks.for_each(|it| of_command(&mut it.command));
}

fn of_executor(info: &mut ExecutorInfo) {
    info.container.iter_mut().for_each(of_container);
    info.command.iter_mut().for_each(of_command);
}

fn of_command(command: &mut CommandInfo) {
    let variables = command.environment.iter_mut().flat_map(|Environment { variables }| variables);
    variables.filter_map(|variable| variable.secret.as_mut()).for_each(hide);
}

fn of_container(container: &mut ContainerInfo) {
    let own = container.mesos.iter_mut().filter_map(|mesos| mesos.image.as_mut());
    let images = container.volumes.iter_mut().filter_map(|volume| volume.image.as_mut()).chain(own);
    for docker in images.filter_map(|image| image.docker.as_mut()) {
        docker.config.iter_mut().for_each(hide);
        #[expect(deprecated, reason = "Mesos takes it no more, and a task may have it all the same")]
        docker.credential.iter_mut().for_each(|credential| credential.secret = None);
    }
    for source in container.volumes.iter_mut().filter_map(|volume| volume.source.as_mut()) {
        source.secret.iter_mut().for_each(hide);
        let csi = source.csi_volume.iter_mut().filter_map(|csi| csi.static_provisioning.as_mut());
        for csi in csi {
            csi.node_stage_secrets.iter_mut().filter_map(|it| it.value.as_mut()).for_each(hide);
            csi.node_publish_secrets.iter_mut().filter_map(|it| it.value.as_mut()).for_each(hide);
        }
    }
}

fn hide(secret: &mut Secret) {
    if let Some(value) = &mut secret.value {
        value.data.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesos::{Parameter, Volume, container_info::DockerInfo, environment::Variable, secret};

    fn volume() -> Volume {
        Volume { mode: volume::Mode::Rw.into(), container_path: "a".into(), ..Default::default() }
    }

    fn with(volume: Volume) -> ContainerInfo {
        ContainerInfo {
            r#type: container_info::Type::Mesos.into(),
            volumes: vec![volume],
            ..Default::default()
        }
    }

    fn of_secret(secret: Option<Secret>) -> Volume {
        let kind = Some(volume::source::Type::Secret.into());
        Volume { source: Some(volume::Source { r#type: kind, secret, ..Default::default() }), ..volume() }
    }

    #[test]
    fn what_is_wrong_everywhere_is_named() {
        let docker = |key: Option<&str>| ContainerInfo {
            r#type: container_info::Type::Docker.into(),
            docker: key.map(|key| DockerInfo {
                image: "i".into(),
                parameters: vec![Parameter { key: key.into(), value: "v".into() }],
                ..Default::default()
            }),
            ..Default::default()
        };
        let host = || Volume { host_path: Some("/h".into()), ..volume() };
        for (info, part) in [
            (docker(None), "docker: is missing"),
            (docker(Some("name")), "docker.parameters"),
            (with(volume()), "volumes[0]"),
            (with(Volume { image: Some(mesos::Image::default()), ..host() }), "exactly one"),
            (with(of_secret(None)), "volumes[0].source.secret: is missing"),
            (with(Volume { source: Some(volume::Source::default()), ..volume() }), "source.type"),
        ] {
            let why = check(&info).unwrap_err().to_string();
            assert!(why.contains(part), "{part}: {why}");
        }
        assert!(check(&docker(Some("other"))).is_ok());
        assert!(check(&with(host())).is_ok());
        assert!(check(&with(of_secret(Some(Secret::default())))).is_ok());
    }

    #[test]
    #[expect(deprecated, reason = "a field that Mesos takes no more")]
    fn secrets_are_nowhere_in_what_is_shown() {
        let secret = || Secret {
            r#type: Some(secret::Type::Value.into()),
            value: Some(secret::Value { data: b"hidden".to_vec().into() }),
            ..Default::default()
        };
        let command = || CommandInfo {
            environment: Some(Environment {
                variables: vec![Variable { name: "A".into(), secret: Some(secret()), ..Default::default() }],
            }),
            ..Default::default()
        };
        let container = || {
            let credential = mesos::Credential { principal: "who".into(), secret: Some("hidden".into()) };
            let docker = mesos::image::Docker {
                config: Some(secret()),
                credential: Some(credential),
                ..Default::default()
            };
            let image = mesos::Image { docker: Some(docker), ..Default::default() };
            let mut container = with(of_secret(Some(secret())));
            container.volumes.push(Volume { image: Some(image.clone()), ..volume() });
            container.mesos = Some(container_info::MesosInfo { image: Some(image) });
            container
        };
        let executor =
            || ExecutorInfo { command: Some(command()), container: Some(container()), ..Default::default() };
        let info = TaskInfo {
            command: Some(command()),
            container: Some(container()),
            executor: Some(executor()),
            health_check: Some(mesos::HealthCheck { command: Some(command()), ..Default::default() }),
            check: Some(mesos::CheckInfo {
                command: Some(mesos::check_info::Command { command: command() }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let has = |bytes: &[u8]| bytes.windows(6).any(|part| part == b"hidden");
        assert!(has(&info.encode_to_vec()));
        assert!(!has(&shown_task(&info.encode_to_vec()).encode_to_vec()));
        assert!(!has(&shown_executor(&executor().encode_to_vec()).encode_to_vec()));
    }

    #[test]
    fn the_fields_that_are_shown_tell_what_the_whole_tells() {
        let command = |user: Option<&str>| CommandInfo {
            value: Some("a command".into()),
            user: user.map(Into::into),
            ..Default::default()
        };
        let executor = |user| ExecutorInfo {
            command: Some(command(user)),
            data: Some(b"of an executor".to_vec().into()),
            ..Default::default()
        };
        let label = mesos::Label { key: "k".into(), value: Some("v".into()) };
        let whole = TaskInfo {
            name: "n".into(),
            resources: vec![mesos::Resource { name: "cpus".into(), ..Default::default() }],
            command: Some(command(Some("u"))),
            executor: Some(executor(Some("e"))),
            labels: Some(mesos::Labels { labels: vec![label] }),
            kill_policy: Some(Default::default()),
            check: Some(Default::default()),
            data: Some(b"of a task".to_vec().into()),
            ..Default::default()
        };
        let fields = |info: &[u8]| {
            let mut out = Vec::new();
            shown_fields(info, &mut out).map(|()| TaskInfo::decode(&*out).unwrap_or_default())
        };
        let user = |user: &str| CommandInfo { user: Some(user.into()), ..Default::default() };
        let expected = TaskInfo {
            command: Some(user("u")),
            executor: Some(ExecutorInfo { command: Some(user("e")), ..Default::default() }),
            labels: whole.labels.clone(),
            kill_policy: Some(Default::default()),
            ..Default::default()
        };
        assert_eq!(fields(&whole.encode_to_vec()), Ok(expected));
        let plain =
            TaskInfo { command: Some(command(None)), executor: Some(executor(None)), ..Default::default() };
        assert_eq!(fields(&plain.encode_to_vec()), Ok(TaskInfo::default()));
        // A message that comes in parts is one: what it says last counts.
        let parts =
            [user("first"), user("last")].map(|it| TaskInfo { command: Some(it), ..Default::default() });
        let parts = parts.map(|it| it.encode_to_vec()).concat();
        assert_eq!(fields(&parts).map(|it| it.command), Ok(Some(user("last"))));
        assert!(fields(&whole.encode_to_vec()[..20]).is_err());
        assert!(fields(&[0x3b]).is_err(), "a group");
    }
}
