//! Tasks as the legacy answers show them, and `/tasks`.

use super::super::records::statuses;
use super::seen::Sorted;
use super::{List, Query, show};
use muster_registry::{Registry, Task};
use serde::{Serialize, Serializer, ser::SerializeMap};

/// A task, and the registry that it is in.
pub(super) struct Shown<'a>(pub(super) &'a Task, pub(super) &'a Registry);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let task = self.0;
        let info = muster_proto::container::shown_task(&task.sealed());
        let shown = show::task::Task {
            id: task.key.task_id.as_str(),
            name: &task.name,
            framework_id: task.key.framework_id.as_str(),
            executor_id: task.executor_id.as_ref().map_or("", |id| id.as_str()),
            agent_id: task.agent_id.as_str(),
            state: task.state,
            resources: &task.resources,
            role: task.role.as_str(),
            statuses: &statuses(task, self.1),
            info: &info,
        };
        shown.serialize(serializer)
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
    fn tasks<'a>(&self, of: &Sorted<'a>) -> Vec<&'a Task> {
        let is_meant = |task: &&Task| {
            let is = |asked: &Option<String>, it: &str| asked.as_deref().is_none_or(|asked| asked == it);
            is(&self.framework_id, task.key.framework_id.as_str())
                && is(&self.task_id, task.key.task_id.as_str())
        };
        let registry = &of.seen.registry;
        let all = registry.tasks().chain(registry.completed_tasks()).filter(is_meant);
        let mut tasks: Vec<_> = all.filter(|task| of.shows(task)).collect();
        tasks.sort_by(|a, b| (a.launched, a.launch, &a.key).cmp(&(b.launched, b.launch, &b.key)));
        if !self.oldest_first {
            tasks.reverse();
        }
        tasks
    }
}

/// `/tasks`.
pub(super) struct Tasks<'a>(pub(super) &'a Sorted<'a>, pub(super) &'a Asked);

impl Serialize for Tasks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tasks = self.1.tasks(self.0);
        let page = || {
            tasks.iter().skip(self.1.offset).take(self.1.limit).map(|task| Shown(task, &self.0.seen.registry))
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("tasks", &List(page))?;
        map.end()
    }
}
