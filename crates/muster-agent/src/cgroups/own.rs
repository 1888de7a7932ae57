//! The agent's own groups, and what it can enforce with them.

use super::{Controller, Group, Layout, Mounts, Part, Version, files, v2};
use crate::{
    AgentError,
    disk::{LOCKED_MAX, lock_patiently},
};
use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// The group, beside those of all agents, that an agent moves to where it must not stay in one with others below it.
const AGENT: &str = "agent";

/// Whether something can be enforced, or why it cannot.
pub(crate) type Ability = Result<(), String>;

/// What can be enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Can {
    pub(crate) layout: Layout,
    /// Shares of the processors.
    pub(crate) cpu: Ability,
    /// Quotas of processor time.
    pub(crate) quota: Ability,
    pub(crate) memory: Ability,
    pub(crate) pids: Ability,
    /// Stopping all of a container at once, so that none escapes its end.
    pub(crate) freezer: Ability,
}

impl Can {
    /// Nothing, for this reason.
    fn nothing(layout: Layout, why: &str) -> Self {
        let no = || Err(why.to_owned());
        Self { layout, cpu: no(), quota: no(), memory: no(), pids: no(), freezer: no() }
    }
}

/// The groups of one agent. Its key is its own as long as this value lives.
#[derive(Debug)]
pub(crate) struct Cgroups {
    /// One directory for each hierarchy that can be used.
    parts: Vec<Part>,
    can: Can,
    _locks: Vec<File>,
}

impl Cgroups {
    /// Makes the agent's groups `<root>/<key>` and finds out what they are good for. An empty root means to have none.
    /// What cannot be made is no error: it cannot be enforced then. Another agent in it is.
    pub(crate) fn open(root: &Path, key: &str, mounts: &Mounts) -> Result<Self, AgentError> {
        if root.as_os_str().is_empty() {
            let can = Can::nothing(mounts.layout, "cgroup-root is empty; name a group, for example muster");
            return Ok(Self { parts: Vec::new(), can, _locks: Vec::new() });
        }
        if mounts.parts.is_empty() {
            let can =
                Can::nothing(mounts.layout, "no control groups are mounted; mount cgroup2 at /sys/fs/cgroup");
            return Ok(Self { parts: Vec::new(), can, _locks: Vec::new() });
        }
        let (mut parts, mut locks) = (Vec::new(), Vec::new());
        let mut broken: Vec<(BTreeSet<Controller>, String)> = Vec::new();
        for mount in &mounts.parts {
            match make(mount, root, key, mounts.here.as_deref()) {
                Ok((part, lost)) => {
                    locks.push(lock(&part.dir)?);
                    broken.extend(lost);
                    parts.push(part);
                }
                Err(why) => broken.push((mount.controllers.clone(), why.to_string())),
            }
        }
        let can = Can::with(mounts.layout, &parts, &broken);
        Ok(Self { parts, can, _locks: locks })
    }

    /// What can be enforced.
    pub(crate) fn can(&self) -> &Can {
        &self.can
    }

    /// Where the group of a container is, whether it is there or not; nothing where there are none.
    pub(crate) fn of(&self, name: &str) -> Vec<Part> {
        self.parts.iter().map(|part| part.below(name)).collect()
    }

    /// The names of all containers' groups that are there.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let entries =
            self.parts.iter().flat_map(|part| fs::read_dir(&part.dir).into_iter().flatten().flatten());
        let groups = entries.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir()));
        groups.filter_map(|it| it.file_name().into_string().ok()).collect()
    }

    /// The group of this name.
    pub(crate) fn group(&self, name: &str) -> Group {
        let is_there = |part: &Part| part.dir.is_dir();
        Group::at(self.of(name).into_iter().filter(is_there).collect())
    }

    /// Removes the agent's groups, unless a container is left in them, and their root, unless others are in it.
    pub(crate) fn remove(&self) {
        for part in &self.parts {
            if fs::remove_dir(&part.dir).is_ok()
                && let Some(root) = part.dir.parent()
            {
                let _ = fs::remove_dir(root); // refused while another agent is there
            }
        }
    }
}

impl Can {
    fn with(layout: Layout, parts: &[Part], broken: &[(BTreeSet<Controller>, String)]) -> Self {
        let find = |controller: Controller| {
            let found = parts.iter().find(|part| part.has(controller));
            found.ok_or_else(|| {
                let why = broken.iter().find(|(controllers, _)| controllers.contains(&controller));
                why.map_or_else(
                    || {
                        format!(
                            "the {} controller is not mounted, or not handed down to here",
                            controller.name()
                        )
                    },
                    |(_, why)| why.clone(),
                )
            })
        };
        let with = |controller: Controller, v1: &str, v2: &str| -> Ability {
            let part = find(controller)?;
            let file = if part.version == Version::V1 { v1 } else { v2 };
            if files::has(&part.dir, file) {
                return Ok(());
            }
            Err(format!("the kernel has no {file} in {}", part.dir.display()))
        };
        Self {
            layout,
            cpu: with(Controller::Cpu, "cpu.shares", "cpu.weight"),
            quota: with(Controller::Cpu, "cpu.cfs_quota_us", "cpu.max"),
            memory: with(Controller::Memory, "memory.limit_in_bytes", "memory.max"),
            pids: with(Controller::Pids, "pids.max", "pids.max"),
            freezer: with(Controller::Freezer, "freezer.state", "cgroup.freeze"),
        }
    }
}

type Lost = Option<(BTreeSet<Controller>, String)>;

/// Makes the agent's directory in one hierarchy. Also the controllers that it has not there, and why.
fn make(mount: &Part, root: &Path, key: &str, here: Option<&Path>) -> io::Result<(Part, Lost)> {
    let root = root.strip_prefix("/").unwrap_or(root);
    let mut dir = mount.dir.clone();
    let mut above: Vec<PathBuf> = Vec::new();
    for name in root.iter().chain([key.as_ref()]) {
        above.push(dir.clone());
        dir.push(name);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                let what = format!("cannot make the control group {}: {error}", dir.display());
                return Err(io::Error::new(error.kind(), what));
            }
            _ => {}
        }
        if mount.version == Version::V1 {
            super::v1::fill(&Part { dir: dir.clone(), ..mount.clone() })?;
        }
    }
    let mut part = Part { dir, ..mount.clone() };
    if mount.version == Version::V1 {
        return Ok((part, None));
    }
    above.push(part.dir.clone());
    let mut lost = None;
    for controller in [Controller::Cpu, Controller::Memory, Controller::Pids] {
        if !part.has(controller) {
            continue;
        }
        let agents = mount.dir.join(root).join(AGENT);
        let down = above.iter().try_for_each(|dir| match v2::hand_down(dir, controller) {
            // Nobody may be in a group that others below have controllers of: not even this process.
            Err(error) if is_busy(&error) && here.is_some_and(|here| here == dir) => {
                move_to(&agents).and_then(|()| v2::hand_down(dir, controller))
            }
            done => done,
        });
        if let Err(error) = down {
            part.controllers.remove(&controller);
            let (controllers, _) = lost.get_or_insert_with(|| (BTreeSet::new(), error.to_string()));
            controllers.insert(controller);
        }
    }
    if !part.has(Controller::Cpu) {
        part.controllers.remove(&Controller::Cpuacct);
    }
    Ok((part, lost))
}

fn is_busy(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ResourceBusy
}

fn move_to(group: &Path) -> io::Result<()> {
    match fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    files::write(group, "cgroup.procs", &std::process::id().to_string())
}

/// Holds the directory: it is the same one for every agent of this machine, whatever each has mounted where.
fn lock(dir: &Path) -> Result<File, AgentError> {
    let prepare =
        |source| AgentError::Prepare { doing: "lock the control group", path: dir.to_owned(), source };
    let file = File::open(dir).map_err(prepare)?;
    match lock_patiently(&file, LOCKED_MAX) {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(AgentError::CgroupInUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(prepare(source)),
    }
}
