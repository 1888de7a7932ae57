//! What this machine has, and who it is.

use crate::{AgentConfig, AgentError, config::parse_attributes, disk::WorkDir};
use muster_model::{AgentInfo, MachineId, Resources, Sealed, Value};
use muster_proto::{agent::with_ip, mesos, resource::wire_attributes, wire_resources};
use std::{
    fs,
    net::{IpAddr, ToSocketAddrs},
};

const GB_IN_MB: u64 = 1024;

/// The agent's description: as configured, and the rest as found.
pub(crate) fn describe(config: &AgentConfig, dir: &WorkDir) -> Result<(AgentInfo, Sealed), AgentError> {
    let resources = resources(config, dir)?;
    let attributes = parse_attributes(&config.attributes).map_err(AgentError::Config)?;
    let hostname = if config.hostname.is_empty() { hostname() } else { config.hostname.clone() };
    let wire = mesos::AgentInfo {
        hostname: hostname.clone(),
        port: Some(config.port.into()),
        resources: wire_resources(&resources),
        attributes: wire_attributes(&attributes),
        ..Default::default()
    };
    let info = AgentInfo {
        machine_id: machine_id(config, dir)?,
        hostname: hostname.as_str().into(),
        port: config.port,
        resources,
        attributes,
    };
    // A name that stands for nothing here: then it is at least where this agent listens.
    let listens = Some(config.listen_ip).filter(|ip| !ip.is_unspecified());
    let ip = if config.ip.is_empty() { ip_of(&hostname).or(listens) } else { config.ip.parse().ok() };
    Ok((info, Sealed::new(with_ip(&wire, ip))))
}

fn resources(config: &AgentConfig, dir: &WorkDir) -> Result<Resources, AgentError> {
    let mut resources = Resources::parse(&config.resources).map_err(AgentError::Config)?;
    let named = resources.clone();
    // A kind that is named with nothing, as in `disk:0`, is not there and not probed.
    let missing = |name: &str| {
        named.get(name).is_none()
            && !config
                .resources
                .split(';')
                .any(|item| item.split(':').next().is_some_and(|key| key.trim() == name))
    };
    if missing("cpus") {
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        resources.insert("cpus", Value::Scalar(cpus * 1000));
    }
    if missing("mem") {
        resources.insert("mem", Value::Scalar(all_but(memory_mb(), GB_IN_MB) * 1000));
    }
    if missing("disk") {
        resources.insert("disk", Value::Scalar(all_but(disk_mb(dir)?, 5 * GB_IN_MB) * 1000));
    }
    if missing("ports") {
        resources.insert("ports", Value::ranges([(31_000, 32_000)]));
    }
    Ok(resources)
}

/// All but a reserve, or half where that is more.
fn all_but(amount: u64, reserve: u64) -> u64 {
    amount.saturating_sub(reserve).max(amount / 2)
}

fn memory_mb() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kb = text.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    kb.unwrap_or(0) / 1024
}

fn disk_mb(dir: &WorkDir) -> Result<u64, AgentError> {
    let path = dir.sandboxes();
    let disk = rustix::fs::statvfs(&path).map_err(|error| AgentError::Prepare {
        doing: "find the size of the disk of",
        path,
        source: error.into(),
    })?;
    // The whole and not what is free: an agent must not come back with less because its tasks have used some.
    Ok(disk.f_blocks.saturating_mul(disk.f_frsize) >> 20)
}

fn hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".into() } else { name }
}

/// The address that a name stands for here, the first of IPv4 before others; none if it stands for nothing.
fn ip_of(hostname: &str) -> Option<IpAddr> {
    let all: Vec<IpAddr> = (hostname, 0).to_socket_addrs().ok()?.map(|address| address.ip()).collect();
    all.iter().find(|ip| ip.is_ipv4()).or(all.first()).copied()
}

/// The machine with a fingerprint of the work directory's path: two agents of one machine differ, and an
/// agent whose work directory was wiped is known again.
fn machine_id(config: &AgentConfig, dir: &WorkDir) -> Result<MachineId, AgentError> {
    if !config.machine_id.is_empty() {
        return MachineId::parse(&config.machine_id)
            .map_err(|error| AgentError::Config(format!("machine-id {:?} {error}", config.machine_id)));
    }
    let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let machine = match machine.trim() {
        "" => hostname(),
        id => id.to_owned(),
    };
    let id = format!("{machine}-{}", dir.fingerprint);
    MachineId::parse(&id).map_err(|error| {
        AgentError::Config(format!("the machine's id {id:?} {error}; set machine-id in the configuration"))
    })
}
