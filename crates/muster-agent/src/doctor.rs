//! What this machine lets an agent do, and how to mend what it does not.

use crate::{
    AgentConfig, AgentError,
    cgroups::Can,
    containers::{Containerizer, Maker, kinds},
    limits::Enforcer,
};
use serde::Serialize;
use std::{fs, path::Path};

/// One thing that an agent can or cannot do here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub name: &'static str,
    /// Whether it can.
    pub works: bool,
    /// Whether the configuration asks for it.
    pub needed: bool,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where it works.
    pub fix: &'static str,
}

const GROUPS: &str =
    "run the agent as root, or give its user the groups below cgroup-root; under systemd set Delegate=yes";
const MEMORY: &str = "mount the memory controller (kernel command line cgroup_enable=memory), and run the agent as root \
                      or with groups of its own; or set allow-unenforced-limits";

/// Looks at this machine with the eyes of an agent of this configuration. It makes a control group, and removes it.
pub fn examine(config: &AgentConfig) -> Result<Vec<Finding>, AgentError> {
    config.check()?;
    let enforcer = Enforcer::open(config, &format!("doctor-{}", std::process::id()))?;
    let can = enforcer.can().clone();
    enforcer.cgroups().remove();
    let must = !config.allow_unenforced_limits;
    let mut all = vec![finding(
        "cgroups",
        (can.layout != crate::cgroups::Layout::None).then(String::new).ok_or_else(String::new),
        false,
        "mount cgroup2 at /sys/fs/cgroup",
    )];
    all[0].found = can.layout.name().into();
    for (name, ability, needed, fix) in [
        ("memory limits", &can.memory, must, MEMORY),
        ("cpu shares", &can.cpu, false, GROUPS),
        ("cpu quotas", &can.quota, must && config.cgroup_cpu_quota, GROUPS),
        ("process limits", &can.pids, must && config.pids_max > 0, GROUPS),
        ("freezer", &can.freezer, false, GROUPS),
    ] {
        let found = ability.clone().map(|()| "can be enforced".to_owned());
        all.push(finding(name, found, needed, fix));
    }
    let is_root = rustix::process::geteuid().is_root();
    let uid = format!("user {}", rustix::process::geteuid().as_raw());
    let root = if is_root { Ok(uid) } else { Err(uid) };
    all.push(finding(
        "root",
        root,
        false,
        "run the agent as root: it runs tasks as their users, and makes groups",
    ));
    all.push(finding(
        "user namespaces",
        user_namespaces(),
        false,
        "sysctl user.max_user_namespaces=10000, and kernel.unprivileged_userns_clone=1 where there is one",
    ));
    let has_pid = Path::new("/proc/self/ns/pid").exists();
    let pid = if has_pid { Ok("the kernel has them".into()) } else { Err("the kernel has none".into()) };
    all.push(finding("pid namespaces", pid, false, "run a kernel with CONFIG_PID_NS"));
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has_overlay = filesystems.lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay");
    let overlay =
        if has_overlay { Ok("the kernel has it".into()) } else { Err("not in /proc/filesystems".into()) };
    all.push(finding("overlayfs", overlay, false, "modprobe overlay"));
    for (containerizer, found) in kinds(config) {
        let (name, fix) = match containerizer {
            Containerizer::Oci => ("containerizer oci", "install runc, and run the agent as root"),
            Containerizer::Docker => (
                "containerizer docker",
                "start the Docker engine, name its socket and its command line by docker.socket and docker.program, and run \
                 the agent as root",
            ),
            _ => ("containerizer native", "run the agent as root"),
        };
        all.push(finding(name, found.as_ref().map(Maker::found).map_err(String::clone), false, fix));
    }
    Ok(all)
}

fn finding(name: &'static str, found: Result<String, String>, needed: bool, fix: &'static str) -> Finding {
    match found {
        Ok(found) => Finding { name, works: true, needed, found, fix: "" },
        Err(found) => Finding { name, works: false, needed, found, fix },
    }
}

fn user_namespaces() -> Result<String, String> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    if !Path::new("/proc/self/ns/user").exists() {
        return Err("the kernel has none".into());
    }
    if number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0)
        && !rustix::process::geteuid().is_root()
    {
        return Err("kernel.unprivileged_userns_clone is 0".into());
    }
    match number("/proc/sys/user/max_user_namespaces") {
        Some(0) => Err("user.max_user_namespaces is 0".into()),
        _ => Ok("the kernel has them".into()),
    }
}

/// What can be enforced, by name, with the reason where it cannot.
pub(crate) fn enforced(can: &Can) -> [(&'static str, Result<(), &str>); 5] {
    [
        ("cpu", &can.cpu),
        ("cpu_quota", &can.quota),
        ("freezer", &can.freezer),
        ("memory", &can.memory),
        ("pids", &can.pids),
    ]
    .map(|(name, ability)| (name, ability.as_ref().copied().map_err(String::as_str)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_work_and_is_asked_for_is_told_with_its_fix() {
        let config = AgentConfig { cgroup_root: "".into(), pids_max: 9, ..Default::default() };
        let broken = |config: &AgentConfig| -> Vec<&'static str> {
            let all = examine(config).unwrap();
            assert!(all.iter().all(|it| it.works == it.fix.is_empty()), "{all:?}");
            all.into_iter().filter(|it| it.needed && !it.works).map(|it| it.name).collect()
        };
        assert_eq!(broken(&config), ["memory limits", "process limits"]);
        assert_eq!(broken(&AgentConfig { allow_unenforced_limits: true, ..config }), [""; 0]);
    }
}
