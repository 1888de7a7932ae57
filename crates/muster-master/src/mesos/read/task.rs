//! Tasks as the legacy answers show them, and `/tasks`.

use super::super::records::{self, statuses};
use super::resources::Amounts;
use super::seen::Seen;
use super::{List, Query, Raw};
use muster_proto::mesos;
use muster_registry::Task;
use prost::Message;
use serde::{Serialize, Serializer, ser::SerializeMap};

/// A task.
pub(super) struct Shown<'a>(pub(super) &'a Task);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let task = self.0;
        let info = mesos::TaskInfo::decode(&*task.sealed).unwrap_or_default();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", task.key.task_id.as_str())?;
        map.serialize_entry("name", &*task.name)?;
        map.serialize_entry("framework_id", task.key.framework_id.as_str())?;
        map.serialize_entry("executor_id", task.executor_id.as_ref().map_or("", |id| id.as_str()))?;
        map.serialize_entry("slave_id", task.agent_id.as_str())?;
        map.serialize_entry("state", task.state.name())?;
        map.serialize_entry("resources", &Amounts(&task.resources))?;
        map.serialize_entry("role", task.role.as_str())?;
        map.serialize_entry("statuses", &List(|| statuses(task).into_iter().map(Status)))?;
        if !info.limits.is_empty() {
            let limits = info.limits.iter().map(|(name, limit)| (name, Limit(limit.value)));
            map.serialize_entry("limits", &limits.collect::<std::collections::BTreeMap<_, _>>())?;
        }
        if let Some(user) = records::user(&info) {
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
        map.end()
    }
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

struct Status(mesos::TaskStatus);

impl Serialize for Status {
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
pub(super) struct Labels<'a>(pub(super) &'a mesos::Labels);

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

/// What `/tasks` was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    limit: usize,
    offset: usize,
    oldest_first: bool,
    framework_id: Option<String>,
    task_id: Option<String>,
}

/// Tasks of one answer where no number is asked for, or none that is one (Mesos).
const LIMIT: usize = 100;

impl Asked {
    pub(super) fn of(query: &Query) -> Self {
        let number = |name| query.get(name).and_then(|text| text.parse::<i64>().ok());
        Self {
            // A negative one is a very large one, as in Mesos.
            limit: number("limit").map_or(LIMIT, |n| usize::try_from(n).unwrap_or(usize::MAX)),
            offset: number("offset").map_or(0, |n| usize::try_from(n).unwrap_or(usize::MAX)),
            oldest_first: query.get("order") == Some("asc"),
            framework_id: query.get("framework_id").map(Into::into),
            task_id: query.get("task_id").map(Into::into),
        }
    }

    /// The tasks that are meant, by the time of their launch.
    fn tasks<'a>(&self, seen: &'a Seen) -> Vec<&'a Task> {
        let is_meant = |task: &&Task| {
            let is = |asked: &Option<String>, it: &str| asked.as_deref().is_none_or(|asked| asked == it);
            is(&self.framework_id, task.key.framework_id.as_str())
                && is(&self.task_id, task.key.task_id.as_str())
        };
        let mut tasks: Vec<_> =
            seen.registry.tasks().chain(seen.registry.completed_tasks()).filter(is_meant).collect();
        tasks.sort_by(|a, b| (a.launched, a.launch, &a.key).cmp(&(b.launched, b.launch, &b.key)));
        if !self.oldest_first {
            tasks.reverse();
        }
        tasks
    }
}

/// `/tasks`.
pub(super) struct Tasks<'a>(pub(super) &'a Seen, pub(super) &'a Asked);

impl Serialize for Tasks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tasks = self.1.tasks(self.0);
        let page = || tasks.iter().skip(self.1.offset).take(self.1.limit).map(|task| Shown(task));
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("tasks", &List(page))?;
        map.end()
    }
}
