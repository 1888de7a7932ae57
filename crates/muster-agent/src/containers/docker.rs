//! What a `mesos.v1.ContainerInfo` of type DOCKER asks for beside what any container can be: only an engine does that.

use super::asked::{Asked, From};
use muster_container::{Network, Port};
use muster_proto::mesos::{ContainerInfo, Parameter, container_info::docker_info};

/// Ports of one container.
const PORTS_MAX: usize = 256;
/// Other options of one container, and bytes of each.
pub(super) const PARAMETERS_MAX: usize = 256;
pub(super) const PARAMETER_BYTES_MAX: usize = 16 << 10;
const IMAGE_BYTES_MAX: usize = 1_024;

/// Options of the engine's command line that would take a container out of the agent's hands: it would not be made, go,
/// start again, be another one's or be out of the agent's control group.
const OWN: [&str; 8] = ["attach", "cgroup-parent", "cidfile", "help", "name", "pull", "restart", "rm"];
/// The variables by which an agent knows the processes of its tasks, and what they are told of it.
const OWN_VARIABLES: &str = "MUSTER_";

/// What an engine is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OfEngine {
    pub(crate) network: Network,
    pub(crate) ports: Vec<Port>,
    pub(crate) privileged: bool,
    /// Other options of its command line.
    pub(crate) parameters: Vec<(String, String)>,
    /// Whether the image is pulled though it is there.
    pub(crate) force_pull: bool,
    pub(crate) volume_driver: Option<String>,
}

impl OfEngine {
    /// Reads the part of type DOCKER: the image, and the rest. The error names the field and says what would be right.
    pub(super) fn read(info: &ContainerInfo) -> Result<(String, Self), String> {
        let docker =
            info.docker.as_ref().ok_or("container.docker: is missing, and container.type is DOCKER")?;
        let image = &docker.image;
        let is_odd = |c: char| c.is_whitespace() || c.is_control();
        if image.is_empty()
            || image.starts_with('-')
            || image.contains(is_odd)
            || image.len() > IMAGE_BYTES_MAX
        {
            return Err(format!("container.docker.image: is {image:?}, must be the name of an image"));
        }
        let network = network(info, docker.network())?;
        let has_ports = matches!(network, Network::Bridge | Network::Named(_));
        if !docker.port_mappings.is_empty() && !has_ports {
            return Err("container.docker.port_mappings: takes the network BRIDGE or USER".into());
        }
        if docker.port_mappings.len() > PORTS_MAX || docker.parameters.len() > PARAMETERS_MAX {
            return Err(format!(
                "container.docker: at most {PORTS_MAX} port_mappings and {PARAMETERS_MAX} parameters are allowed"
            ));
        }
        let parameters: Result<_, _> = docker.parameters.iter().map(parameter).collect();
        let ports: Result<_, _> = docker.port_mappings.iter().map(port).collect();
        #[expect(deprecated, reason = "frameworks still send it")]
        let volume_driver = docker.volume_driver.clone().filter(|driver| !driver.is_empty());
        if let Some(driver) = volume_driver.as_ref().filter(|driver| !is_driver(driver)) {
            return Err(format!("container.docker.volume_driver: {driver:?} is no name of a driver"));
        }
        let of_engine = Self {
            network,
            ports: ports?,
            privileged: docker.privileged(),
            parameters: parameters?,
            force_pull: docker.force_pull_image(),
            volume_driver,
        };
        Ok((image.clone(), of_engine))
    }
}

impl Asked {
    /// What of it only an engine does, by the field.
    pub(super) fn only_by_engine(&self) -> Option<String> {
        let named = self.volumes.iter().position(|volume| matches!(volume.source, From::Named { .. }));
        if let Some(i) = named {
            return Some(format!("container.volumes[{i}].source.type DOCKER_VOLUME"));
        }
        let of_engine = self.engine.as_ref()?;
        let field = match &of_engine.network {
            Network::Host => None,
            Network::None => Some("network NONE".into()),
            Network::Bridge => Some("network BRIDGE".into()),
            Network::Named(name) => Some(format!("network USER ({name})")),
        };
        let field = field
            .or_else(|| (!of_engine.ports.is_empty()).then(|| "port_mappings".to_owned()))
            .or_else(|| of_engine.privileged.then(|| "privileged".to_owned()))
            .or_else(|| of_engine.parameters.first().map(|(key, _)| format!("parameters ({key})")))
            .or_else(|| of_engine.volume_driver.as_ref().map(|it| format!("volume_driver ({it})")));
        field.map(|field| format!("container.docker.{field}"))
    }

    /// What of it an engine does not do, in words.
    pub(super) fn not_by_engine(&self) -> Option<String> {
        self.volumes.iter().enumerate().find_map(|(i, volume)| {
            let what = match volume.source {
                From::Secret(_) => {
                    "SECRET is not given by a Docker engine, which has no file in memory alone; name a \
                                    variable of type SECRET"
                }
                From::Image(_) => "images are not mounted by a Docker engine; name a volume of another kind",
                From::Parent(_) => "PARENT is not given by a Docker engine; name SELF",
                From::Host(_) | From::Sandbox(_) | From::Named { .. } => return None,
            };
            Some(format!("container.volumes[{i}].source: {what}"))
        })
    }
}

fn network(info: &ContainerInfo, named: docker_info::Network) -> Result<Network, String> {
    use docker_info::Network as Wire;
    let names: Vec<&String> = info.network_infos.iter().filter_map(|it| it.name.as_ref()).collect();
    match (named, &*names) {
        (Wire::User, [name]) => match is_name(name) {
            true => Ok(Network::Named((*name).clone())),
            false => Err(format!("container.network_infos: {name:?} is no name of a network")),
        },
        (Wire::User, _) => Err(format!(
            "container.network_infos: {} networks are named, must be one where container.docker.network is USER",
            names.len()
        )),
        (_, [name, ..]) => Err(format!(
            "container.network_infos: {name:?} is named, which takes container.docker.network USER"
        )),
        (Wire::Host, []) => Ok(Network::Host),
        (Wire::Bridge, []) => Ok(Network::Bridge),
        (Wire::None, []) => Ok(Network::None),
    }
}

/// Names of networks and volumes, and such as are no options.
pub(super) fn is_name(name: &str) -> bool {
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    first && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// Names of drivers of volumes, which may be those of images with their places.
pub(super) fn is_driver(name: &str) -> bool {
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ':' | '@');
    first && name.len() <= IMAGE_BYTES_MAX && name.chars().all(is_part)
}

fn port(mapping: &docker_info::PortMapping) -> Result<Port, String> {
    let number = |field: &str, number: u32| match u16::try_from(number) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("container.docker.port_mappings: {field} is {number}, must be 1 to {}", u16::MAX)),
    };
    let protocol = mapping.protocol.as_deref().filter(|it| !it.is_empty()).unwrap_or("tcp").to_lowercase();
    if !["tcp", "udp", "sctp"].contains(&&*protocol) {
        return Err(format!(
            "container.docker.port_mappings: protocol is {protocol:?}, must be tcp, udp or sctp"
        ));
    }
    Ok(Port {
        host: number("host_port", mapping.host_port)?,
        container: number("container_port", mapping.container_port)?,
        protocol,
    })
}

fn parameter(parameter: &Parameter) -> Result<(String, String), String> {
    let Parameter { key, value } = parameter;
    let is_option = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if key.is_empty() || key.starts_with('-') || !key.chars().all(is_option) {
        return Err(format!(
            "container.docker.parameters: {key:?} is no option of docker run; write it without dashes before it"
        ));
    }
    if OWN.contains(&&**key) {
        return Err(format!("container.docker.parameters: {key} is the agent's own; leave it out"));
    }
    if key == "env" && value.starts_with(OWN_VARIABLES) {
        return Err(format!(
            "container.docker.parameters: variables that begin with {OWN_VARIABLES} are the agent's own; leave them out"
        ));
    }
    if value.len() > PARAMETER_BYTES_MAX || value.contains('\0') {
        return Err(format!(
            "container.docker.parameters: the value of {key} must have no NUL and at most {PARAMETER_BYTES_MAX} bytes"
        ));
    }
    Ok((key.clone(), value.clone()))
}
