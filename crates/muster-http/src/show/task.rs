//! Tasks as the legacy answers show them.

use super::{List, Raw, resources::Amounts};
use muster_model::{Resources, TaskState};
use muster_proto::mesos;
use serde::{Serialize, Serializer, ser::SerializeMap};

/// A task.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Whose it is.
    pub framework_id: &'a str,
    /// The executor that it names; nothing for one with a process of its own.
    pub executor_id: &'a str,
    /// Where it runs.
    pub agent_id: &'a str,
    /// What it came to.
    pub state: TaskState,
    /// What it holds.
    pub resources: &'a Resources,
    /// On whose account.
    pub role: &'a str,
    /// What was said of it.
    pub statuses: &'a [mesos::TaskStatus],
    /// Its whole description.
    pub info: &'a mesos::TaskInfo,
}

impl Serialize for Task<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", self.id)?;
        map.serialize_entry("name", self.name)?;
        map.serialize_entry("framework_id", self.framework_id)?;
        map.serialize_entry("executor_id", self.executor_id)?;
        map.serialize_entry("slave_id", self.agent_id)?;
        map.serialize_entry("state", self.state.name())?;
        map.serialize_entry("resources", &Amounts(self.resources))?;
        map.serialize_entry("role", self.role)?;
        map.serialize_entry("statuses", &List(|| self.statuses.iter().map(Status)))?;
        described(self.info, &mut map)?;
        map.end()
    }
}

/// What a task's description is shown for beside what is known of the task itself: an object, which is often empty.
#[derive(Debug, Clone, Copy)]
pub struct Described<'a>(pub &'a mesos::TaskInfo);

impl Serialize for Described<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        described(self.0, &mut map)?;
        map.end()
    }
}

fn described<M: SerializeMap>(info: &mesos::TaskInfo, map: &mut M) -> Result<(), M::Error> {
    if !info.limits.is_empty() {
        let limits = info.limits.iter();
        let limits = limits.map(|it| (it.key(), Limit(it.value.unwrap_or_default().value)));
        map.serialize_entry("limits", &limits.collect::<std::collections::BTreeMap<_, _>>())?;
    }
    if let Some(user) = user(info) {
        map.serialize_entry("user", user)?;
    }
    if let Some(labels) = &info.labels {
        map.serialize_entry("labels", &Labels(labels))?;
    }
    if let Some(discovery) = &info.discovery {
        map.serialize_entry("discovery", &Raw(discovery))?;
    }
    if let Some(container) = &info.container {
        map.serialize_entry("container", &Raw(container))?;
    }
    if let Some(health_check) = &info.health_check {
        map.serialize_entry("health_check", &Raw(health_check))?;
    }
    Ok(())
}

/// The user that a task asks to run as, if it does.
pub fn user(info: &mesos::TaskInfo) -> Option<&str> {
    let executors = info.executor.as_ref().and_then(|executor| executor.command.as_ref());
    let commands = [info.command.as_ref(), executors];
    commands.into_iter().flatten().find_map(|command| command.user.as_deref())
}

/// A limit may be without bounds, for which JSON has no number.
struct Limit(f64);

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.is_finite() {
            true => serializer.serialize_f64(self.0),
            false => serializer.serialize_str("Infinity"),
        }
    }
}

/// What was said of a task at one time.
pub struct Status<'a>(pub &'a mesos::TaskStatus);

impl Serialize for Status<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let status = &self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(
            "state",
            mesos::TaskState::try_from(status.state).map_or("", |it| it.as_str_name()),
        )?;
        map.serialize_entry("timestamp", &status.timestamp.unwrap_or_default())?;
        if let Some(labels) = &status.labels {
            map.serialize_entry("labels", &Labels(labels))?;
        }
        if let Some(container_status) = &status.container_status {
            map.serialize_entry("container_status", &Raw(container_status))?;
        }
        if let Some(healthy) = status.healthy {
            map.serialize_entry("healthy", &healthy)?;
        }
        map.end()
    }
}

/// Labels as a plain list.
pub struct Labels<'a>(pub &'a mesos::Labels);

impl Serialize for Labels<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.labels.iter().map(Label))
    }
}

struct Label<'a>(&'a mesos::Label);

impl Serialize for Label<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("key", &self.0.key)?;
        if let Some(value) = &self.0.value {
            map.serialize_entry("value", value)?;
        }
        map.end()
    }
}

/// A command.
pub struct Command<'a>(pub &'a mesos::CommandInfo);

impl Serialize for Command<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let command = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("shell", &command.shell())?;
        if let Some(value) = &command.value {
            map.serialize_entry("value", value)?;
        }
        map.serialize_entry("argv", &command.arguments)?;
        if let Some(environment) = &command.environment {
            map.serialize_entry("environment", &Raw(environment))?;
        }
        map.serialize_entry("uris", &List(|| command.uris.iter().map(Uri)))?;
        map.end()
    }
}

struct Uri<'a>(&'a mesos::command_info::Uri);

impl Serialize for Uri<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("value", &self.0.value)?;
        map.serialize_entry("executable", &self.0.executable())?;
        map.end()
    }
}
