use super::Asked;
use muster_proto::mesos::{
    self, CapabilityInfo, ContainerInfo, Image, LinuxInfo, NetworkInfo, RLimitInfo, Secret, TtyInfo, Volume,
    capability_info::Capability, container_info, image, r_limit_info, secret, volume,
};
use std::path::Path;

fn mesos() -> ContainerInfo {
    ContainerInfo { r#type: container_info::Type::Mesos.into(), ..Default::default() }
}

fn with(change: impl FnOnce(&mut ContainerInfo)) -> Result<Asked, String> {
    let mut info = mesos();
    change(&mut info);
    Asked::read(&info)
}

fn docker_image(name: &str) -> Image {
    let docker = image::Docker { name: name.into(), ..Default::default() };
    Image { r#type: image::Type::Docker.into(), docker: Some(docker), ..Default::default() }
}

fn host(source: &str, target: &str) -> Volume {
    Volume {
        mode: volume::Mode::Ro.into(),
        container_path: target.into(),
        host_path: Some(source.into()),
        ..Default::default()
    }
}

fn sourced(kind: volume::source::Type) -> volume::Source {
    volume::Source { r#type: Some(kind.into()), ..Default::default() }
}

fn docker(change: impl FnOnce(&mut container_info::DockerInfo)) -> Result<Asked, String> {
    let mut docker = container_info::DockerInfo { image: "app".into(), ..Default::default() };
    change(&mut docker);
    Asked::read(&ContainerInfo {
        r#type: container_info::Type::Docker.into(),
        docker: Some(docker),
        ..Default::default()
    })
}

#[test]
fn what_asks_for_nothing_is_a_process() {
    assert!(!with(|_| {}).unwrap().is_more_than_a_process());
    let named = with(|info| info.network_infos.push(NetworkInfo::default())).unwrap();
    assert!(!named.is_more_than_a_process(), "the machine's network is what a process has");
    assert!(with(|info| info.hostname = Some("h".into())).unwrap().is_more_than_a_process());
}

#[test]
fn what_is_asked_for_is_read() {
    let asked = with(|info| {
        info.mesos = Some(container_info::MesosInfo { image: Some(docker_image("dir:/images/a")) });
        info.volumes = vec![host("/a", "/b"), host("/c", "d/e")];
        info.rlimit_info = Some(RLimitInfo {
            rlimits: vec![r_limit_info::RLimit {
                r#type: Some(r_limit_info::r_limit::Type::RlmtCore.into()),
                soft: Some(1),
                hard: Some(2),
            }],
        });
        let capabilities = vec![Capability::Chown.into()];
        info.linux_info = Some(LinuxInfo {
            effective_capabilities: Some(CapabilityInfo { capabilities }),
            share_pid_namespace: Some(true),
            ..Default::default()
        });
    })
    .unwrap();
    assert_eq!(asked.image.as_deref(), Some("dir:/images/a"));
    assert_eq!(asked.volumes.len(), 2);
    assert_eq!(asked.volumes[1].target, Path::new("d/e"));
    assert!(asked.volumes[0].read_only && asked.shares_pids);
    assert_eq!(
        (&*asked.rlimits[0].name, asked.rlimits[0].soft, asked.rlimits[0].hard),
        ("RLIMIT_CORE", 1, 2)
    );
    assert_eq!(asked.capabilities, Some(vec!["CAP_CHOWN".to_owned()]));
    assert_eq!(docker(|_| {}).unwrap().image.as_deref(), Some("app"));
}

#[test]
fn a_terminal_takes_no_container() {
    let sized = |rows, columns| {
        let window_size = Some(mesos::tty_info::WindowSize { rows, columns });
        with(|it| it.tty_info = Some(TtyInfo { window_size })).unwrap().terminal
    };
    assert_eq!(sized(50, 200), Some((50, 200)));
    assert_eq!(sized(1, 1 << 16), Some((1, u16::MAX)));
    let usual = with(|it| it.tty_info = Some(TtyInfo::default())).unwrap();
    assert_eq!(usual.terminal, Some((24, 80)));
    assert!(!usual.is_more_than_a_process());
}

#[test]
fn what_is_not_done_is_refused_with_its_field() {
    use container_info::docker_info::{Network, PortMapping};
    use volume::source::{HostPath, SandboxPath, Type};
    let appc = Image { r#type: image::Type::Appc.into(), ..Default::default() };
    let volume = |change: &dyn Fn(&mut Volume)| {
        let mut one = host("/a", "/b");
        change(&mut one);
        with(|info| info.volumes.push(one))
    };
    let of_source =
        |source: volume::Source| volume(&|it| (it.host_path, it.source) = (None, Some(source.clone())));
    let reference = Secret { r#type: Some(secret::Type::Reference.into()), ..Default::default() };
    let capabilities = vec![Capability::SysAdmin.into()];
    let bidirectional =
        mesos::MountPropagation { mode: Some(mesos::mount_propagation::Mode::Bidirectional.into()) };
    for (asked, part) in [
        (docker(|it| it.network = Some(Network::Bridge.into())), "docker.network BRIDGE"),
        (docker(|it| it.privileged = Some(true)), "docker.privileged"),
        (docker(|it| it.port_mappings.push(PortMapping::default())), "docker.port_mappings"),
        (docker(|it| it.parameters.push(mesos::Parameter::default())), "docker.parameters"),
        (with(|it| it.mesos = Some(container_info::MesosInfo { image: Some(appc) })), "mesos.image.appc"),
        (with(|it| it.hostname = Some("a b".into())), "hostname"),
        (
            with(|it| {
                it.network_infos.push(NetworkInfo { name: Some("net".into()), ..Default::default() });
            }),
            "there is no network \"net\"",
        ),
        (
            with(|it| {
                let effective_capabilities = Some(CapabilityInfo { capabilities });
                it.linux_info = Some(LinuxInfo { effective_capabilities, ..Default::default() });
            }),
            "effective_capabilities: SYS_ADMIN",
        ),
        (volume(&|it| it.container_path = "../up".into()), "volumes[0].container_path"),
        (volume(&|it| it.container_path = "/".into()), "volumes[0].container_path"),
        (volume(&|it| it.host_path = Some("relative".into())), "volumes[0].host_path"),
        (volume(&|it| it.host_path = Some("/a/../b".into())), "volumes[0].host_path"),
        (volume(&|it| it.host_path = None), "volumes[0]: needs exactly one"),
        (of_source(sourced(Type::DockerVolume)), "DOCKER_VOLUME is not supported"),
        (
            of_source(volume::Source { secret: Some(reference), ..sourced(Type::Secret) }),
            "source.secret: is a reference",
        ),
        (
            of_source(volume::Source {
                sandbox_path: Some(SandboxPath { path: "../x".into(), ..Default::default() }),
                ..sourced(Type::SandboxPath)
            }),
            "source.sandbox_path.path",
        ),
        (
            of_source(volume::Source {
                host_path: Some(HostPath { path: "/a".into(), mount_propagation: Some(bidirectional) }),
                ..sourced(Type::HostPath)
            }),
            "BIDIRECTIONAL",
        ),
    ] {
        let why = asked.unwrap_err();
        assert!(why.starts_with("container.") && why.contains(part), "{part}: {why}");
    }
}

#[test]
fn a_secret_is_not_shown() {
    let value = Some(secret::Value { data: b"hidden".to_vec().into() });
    let secret = Secret { r#type: Some(secret::Type::Value.into()), value, ..Default::default() };
    let asked = with(|info| {
        let source = volume::Source { secret: Some(secret), ..sourced(volume::source::Type::Secret) };
        info.volumes.push(Volume { host_path: None, source: Some(source), ..host("", "/run/token") });
    })
    .unwrap();
    let shown = format!("{asked:?}");
    assert!(shown.contains("a secret at /run/token") && !shown.contains("hidden"), "{shown}");
}
