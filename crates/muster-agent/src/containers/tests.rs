use super::asked::From as Source;
use super::{Asked, Containerizer, Maker, choose, engine::Docker};
use crate::command::Unfit;
use muster_container::{Engine, EngineAbout, Kind};
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
        (docker(|it| it.image = "-v".into()), "docker.image: is \"-v\""),
        (docker(|it| it.network = Some(Network::User.into())), "network_infos: 0 networks are named"),
        (
            docker(|it| it.port_mappings.push(PortMapping::default())),
            "docker.port_mappings: takes the network",
        ),
        (
            docker(|it| {
                it.network = Some(Network::Bridge.into());
                it.port_mappings.push(PortMapping { host_port: 70_000, ..Default::default() });
            }),
            "docker.port_mappings: host_port is 70000",
        ),
        (
            docker(|it| it.parameters.push(parameter("--init", ""))),
            "docker.parameters: \"--init\" is no option",
        ),
        (
            docker(|it| it.parameters.push(parameter("rm", "true"))),
            "docker.parameters: rm is the agent's own",
        ),
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

fn parameter(key: &str, value: &str) -> mesos::Parameter {
    mesos::Parameter { key: key.into(), value: value.into() }
}

#[expect(deprecated, reason = "frameworks still send it")]
fn set_volume_driver(docker: &mut container_info::DockerInfo, name: &str) {
    docker.volume_driver = Some(name.into());
}

#[test]
fn what_would_take_a_container_out_of_the_agents_hands_is_refused() {
    for (key, value) in [("help", "true"), ("name", "x"), ("env", "MUSTER_TASK_MARK=x")] {
        let why = docker(|it| it.parameters.push(parameter(key, value))).unwrap_err();
        assert!(why.starts_with("container.docker.parameters: "), "{why}");
    }
    assert!(docker(|it| it.parameters.push(parameter("env", "A=b"))).is_ok());
    let why = docker(|it| set_volume_driver(it, "--privileged")).unwrap_err();
    assert!(why.starts_with("container.docker.volume_driver: "), "{why}");
    let options = |key: &str, many: usize, driver: Option<&str>| {
        let parameter = vec![parameter(key, "/"); many];
        let of_volume = volume::source::DockerVolume {
            name: "data".into(),
            driver: driver.map(Into::into),
            driver_options: Some(mesos::Parameters { parameter }),
        };
        let mut named = Volume { host_path: None, ..host("", "/b") };
        named.source = Some(volume::Source {
            docker_volume: Some(of_volume),
            ..sourced(volume::source::Type::DockerVolume)
        });
        let docker = container_info::DockerInfo { image: "app".into(), ..Default::default() };
        let r#type = container_info::Type::Docker.into();
        Asked::read(&ContainerInfo {
            r#type,
            docker: Some(docker),
            volumes: vec![named],
            ..Default::default()
        })
    };
    assert!(options("device", 1, Some("local")).is_ok());
    for (asked, field) in [
        (options("a\0", 1, None), "driver_options"),
        (options("a", 1_000, None), "driver_options"),
        (options("a", 1, Some("a,b")), "driver"),
    ] {
        let why = asked.unwrap_err();
        assert!(why.starts_with(&format!("container.volumes[0].source.docker_volume.{field}: ")), "{why}");
    }
}

#[test]
fn what_only_an_engine_does_is_known_by_its_field() {
    use container_info::docker_info::{Network, PortMapping};
    assert_eq!(docker(|_| {}).unwrap().only_by_engine(), None);
    let mut named = Volume { host_path: None, ..host("", "/b") };
    named.source = Some(volume::Source {
        docker_volume: Some(volume::source::DockerVolume { name: "data".into(), ..Default::default() }),
        ..sourced(volume::source::Type::DockerVolume)
    });
    let mut info = ContainerInfo {
        r#type: container_info::Type::Docker.into(),
        docker: Some(container_info::DockerInfo { image: "app".into(), ..Default::default() }),
        volumes: vec![host("/a", "/b"), named],
        ..Default::default()
    };
    let by_volume = Asked::read(&info);
    info.volumes = vec![host("name", "/b")];
    // As in Mesos.
    assert!(Asked::read(&info).unwrap().volumes[0].source == Source::Sandbox("name".into()));
    set_volume_driver(info.docker.as_mut().unwrap(), "rexray/ebs:1");
    let by_host_path = Asked::read(&info);
    let driver = Some("rexray/ebs:1".to_owned());
    let named = Source::Named { name: "name".into(), driver, options: Vec::new() };
    assert!(by_host_path.as_ref().unwrap().volumes[0].source == named);
    set_volume_driver(info.docker.as_mut().unwrap(), "");
    info.volumes.clear();
    info.network_infos.push(NetworkInfo { name: Some("net".into()), ..Default::default() });
    info.docker.as_mut().unwrap().network = Some(Network::User.into());
    for (asked, field) in [
        (by_volume, "container.volumes[1].source.type DOCKER_VOLUME"),
        (by_host_path, "container.volumes[0].source.type DOCKER_VOLUME"),
        (Asked::read(&info), "container.docker.network USER (net)"),
        (docker(|it| it.network = Some(Network::None.into())), "container.docker.network NONE"),
        (
            docker(|it| {
                it.network = Some(Network::Bridge.into());
                it.port_mappings.push(PortMapping { host_port: 1, container_port: 2, protocol: None });
            }),
            "container.docker.network BRIDGE",
        ),
        (docker(|it| it.privileged = Some(true)), "container.docker.privileged"),
        (docker(|it| it.parameters.push(parameter("init", "true"))), "container.docker.parameters (init)"),
    ] {
        assert_eq!(asked.unwrap().only_by_engine().as_deref(), Some(field));
    }
}

#[test]
fn what_an_engine_does_not_do_is_known_by_its_field() {
    let value = Some(secret::Value { data: b"hidden".to_vec().into() });
    let secret = Secret { r#type: Some(secret::Type::Value.into()), value, ..Default::default() };
    let source = volume::Source { secret: Some(secret), ..sourced(volume::source::Type::Secret) };
    let of_secret = Volume { host_path: None, source: Some(source), ..host("", "/run/token") };
    let of_image = Volume { host_path: None, image: Some(docker_image("a")), ..host("", "/i") };
    for (volumes, field) in [
        (vec![host("/a", "/b"), of_secret], Some("container.volumes[1].source: SECRET")),
        (vec![of_image], Some("container.volumes[0].source: images")),
        (vec![host("/a", "/b")], None),
    ] {
        let asked = with(|info| info.volumes = volumes).unwrap();
        match (asked.not_by_engine(), field) {
            (Some(why), Some(field)) => assert!(why.starts_with(field), "{why}"),
            (why, field) => assert_eq!(why.as_deref(), field),
        }
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

#[test]
fn the_first_that_does_what_is_asked_for_makes_the_container() {
    use Containerizer::{Docker as ByDocker, Native};
    let engine = Engine { program: "/docker".into(), socket: "/socket".into() };
    let found = Docker { engine, about: EngineAbout { version: "1".into(), has_own_groups: true } };
    let native = || (Native, Ok(Maker::Runtime(Kind::Native)));
    let here = || (ByDocker, Ok(Maker::Engine(found.clone())));
    let silent = || (ByDocker, Err("it does not answer".to_owned()));
    let usual = docker(|_| {}).unwrap();
    let special = docker(|it| it.privileged = Some(true)).unwrap();
    let of_mesos = with(|it| it.hostname = Some("h".into())).unwrap();
    let seen = Asked { terminal: Some((24, 80)), ..usual.clone() };
    let chosen =
        |kinds: &[(Containerizer, Result<Maker, String>)], late: bool, asked: &Asked, is_within: bool| {
            let answers = kinds.iter().any(|(name, found)| *name == ByDocker && found.is_ok()) || late;
            match choose(kinds, answers.then_some(&found), asked, is_within) {
                Ok(Maker::Runtime(_)) => "native".to_owned(),
                Ok(Maker::Engine(_)) => "docker".to_owned(),
                Err(Unfit::Invalid(why)) => format!("invalid: {why}"),
                Err(Unfit::Here(why)) => format!("here: {why}"),
            }
        };
    for (kinds, late, asked, is_within, expected) in [
        (&[native(), here()] as &[_], false, &usual, false, "native"),
        (&[here(), native()], false, &usual, false, "docker"),
        (&[here(), native()], false, &usual, true, "native"),
        (&[here(), native()], false, &of_mesos, false, "native"),
        (&[native(), here()], false, &special, false, "docker"),
        (&[silent(), native()], false, &usual, false, "native"),
        (&[silent(), native()], true, &usual, false, "docker"),
        (&[silent(), native()], true, &special, false, "docker"),
        (
            &[native()],
            false,
            &special,
            false,
            "invalid: container.docker.privileged: only a Docker engine does this",
        ),
        (
            &[here(), native()],
            false,
            &special,
            true,
            "invalid: container.docker.privileged: a Docker engine runs no",
        ),
        (&[silent()], false, &special, false, "here: container.docker.privileged: only a Docker engine"),
        (
            &[silent()],
            false,
            &usual,
            false,
            "here: This agent cannot make containers: docker: it does not answer",
        ),
        (&[here(), native()], false, &seen, false, "native"),
        (&[here()], false, &seen, false, "invalid: container.tty_info: tasks of a Docker engine"),
        (&[here()], false, &of_mesos, false, "here: This agent makes no such containers"),
        (&[], false, &of_mesos, false, "here: This agent makes no such containers"),
    ] {
        let chosen = chosen(kinds, late, asked, is_within);
        assert!(chosen.starts_with(expected), "{expected}: {chosen}");
    }
}
