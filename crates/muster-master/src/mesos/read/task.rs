//! Tasks as the legacy answers show them, and `/tasks`.

use super::super::records::{self, statuses};
use super::Query;
use super::alike::Alike;
use super::resources::Amounts;
use super::seen::Sorted;
use super::show::task::{Described, Status};
use super::show::text::Text;
use muster_model::{AgentId, FrameworkId, TaskState};
use muster_proto::{container, executor_api::container_id, master_api::seconds};
use muster_registry::{Registry, Shape, Task};
use serde::{Serialize, ser::SerializeMap};
use std::{collections::HashMap, io, net::IpAddr};

/// Writes the tasks of one answer.
///
/// There may be hundreds of thousands of them, so that nothing is made that is not shown, and what many have in common
/// is made once.
pub(super) struct Writer<'a> {
    registry: &'a Registry,
    /// What their descriptions are shown for.
    described: Alike,
    /// What they hold, and in which role: of the last one's shape.
    shape: Option<(&'a Shape, Vec<u8>)>,
    /// Where the containers of agents are that have come up.
    addresses: HashMap<&'a AgentId, Option<IpAddr>>,
    sealed: Vec<u8>,
    fields: Vec<u8>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(registry: &'a Registry) -> Self {
        Self {
            registry,
            described: Alike::new(),
            shape: None,
            addresses: HashMap::new(),
            sealed: Vec::new(),
            fields: Vec::new(),
        }
    }

    /// Appends a task: what [`show::task::Task`](super::show::task::Task) shows.
    ///
    /// # Errors
    /// None that a task could cause: a serializer's, which has no other way out.
    pub(super) fn write(&mut self, task: &'a Task, out: &mut Vec<u8>) -> io::Result<()> {
        let executor_id = task.executor_id.as_ref().map_or("", |id| id.as_str());
        for (key, text) in [
            ("{\"id\":", task.key.task_id.as_str()),
            (",\"name\":", &task.name),
            (",\"framework_id\":", task.key.framework_id.as_str()),
            (",\"executor_id\":", executor_id),
            (",\"slave_id\":", task.agent_id.as_str()),
            (",\"state\":", task.state.name()),
        ] {
            entry(out, key, text)?;
        }
        self.shape(task, out)?;
        out.extend_from_slice(b",\"statuses\":[");
        self.statuses(task, out)?;
        out.push(b']');
        self.description(task, out)?;
        out.push(b'}');
        Ok(())
    }

    fn shape(&mut self, task: &'a Task, out: &mut Vec<u8>) -> io::Result<()> {
        // Of equal ones the registry keeps one.
        let shape: &'a Shape = task;
        match &self.shape {
            Some((known, text)) if std::ptr::eq(*known, shape) => out.extend_from_slice(text),
            _ => {
                let from = out.len();
                entry(out, ",\"resources\":", &Amounts(&shape.resources))?;
                entry(out, ",\"role\":", shape.role.as_str())?;
                let (known, text) = self.shape.get_or_insert_with(|| (shape, Vec::new()));
                *known = shape;
                text.clear();
                text.extend_from_slice(out.get(from..).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Appends what [`statuses`] has of a task.
    fn statuses(&mut self, task: &'a Task, out: &mut Vec<u8>) -> io::Result<()> {
        let is_plain = task.updates().is_empty()
            && (task.state == TaskState::Unreachable || self.registry.told(&task.key).is_none());
        if !is_plain {
            for (at, status) in statuses(task, self.registry).iter().enumerate() {
                entry(out, if at == 0 { "" } else { "," }, &Status(status))?;
            }
            return Ok(());
        }
        // It is the state that it came to, with the container that it is in.
        if !records::is_heard(task) {
            return Ok(());
        }
        entry(out, "{\"state\":", task.state.name())?;
        entry(out, ",\"timestamp\":", &seconds(task.updated))?;
        if let Some(run) = records::container_of(task, self.registry) {
            entry(out, ",\"container_status\":{\"container_id\":{\"value\":", &container_id(run))?;
            out.push(b'}');
            let address = || records::address(self.registry, &task.agent_id);
            if let Some(ip) = self.addresses.entry(&task.agent_id).or_insert_with(address) {
                let protocol = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
                entry(out, ",\"network_infos\":[{\"ip_addresses\":[{\"protocol\":", protocol)?;
                entry(out, ",\"ip_address\":", ip)?;
                out.extend_from_slice(b"}]}]");
            }
            out.push(b'}');
        }
        out.push(b'}');
        Ok(())
    }

    fn description(&mut self, task: &Task, out: &mut Vec<u8>) -> io::Result<()> {
        let Self { described, sealed, fields, .. } = self;
        sealed.clear();
        fields.clear();
        task.append_sealed(sealed);
        // What is no description shows nothing.
        if container::shown_fields(sealed, fields).is_err() || fields.is_empty() {
            return Ok(());
        }
        described.append(fields, out, |out| {
            let from = out.len();
            serde_json::to_writer(&mut *out, &Described(&container::shown_task(fields)))?;
            // Its entries go on where those of the task end.
            out.pop();
            match out.get_mut(from..) {
                Some([brace, _, ..]) => *brace = b',',
                _ => out.truncate(from),
            }
            Ok(())
        })
    }
}

/// Appends a key as it stands, and a value.
fn entry(out: &mut Vec<u8>, key: &str, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
    out.extend_from_slice(key.as_bytes());
    serde_json::to_writer(out, value).map_err(io::Error::from)
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
/// Tasks that are looked through together for those of a page, at least.
const MANY: usize = 64;

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

    /// The tasks of the page, by the time of their launch.
    fn page<'a>(&self, of: &Sorted<'a>) -> Vec<&'a Task> {
        let registry = &of.seen.registry;
        let framework_id = self.framework_id.as_deref().map(FrameworkId::new);
        match &framework_id {
            Some(id) => {
                let live = registry.tasks_of_framework(id);
                self.page_of(of, live.chain(registry.completed_tasks_of_framework(id)))
            }
            None => self.page_of(of, registry.tasks().chain(registry.completed_tasks())),
        }
    }

    /// What of these tasks is meant and on the page. No more is kept and sorted than what comes up to its end.
    fn page_of<'a>(&self, of: &Sorted<'a>, tasks: impl Iterator<Item = &'a Task>) -> Vec<&'a Task> {
        let is_meant =
            |task: &&Task| self.task_id.as_deref().is_none_or(|id| id == task.key.task_id.as_str());
        let in_order = |a: &(_, _, &Task), b: &(_, _, &Task)| {
            let order = (a.0, a.1, &a.2.key).cmp(&(b.0, b.1, &b.2.key));
            if self.oldest_first { order } else { order.reverse() }
        };
        let end = self.offset.saturating_add(self.limit);
        let cut = |meant: &mut Vec<_>| {
            if end < meant.len() {
                meant.select_nth_unstable_by(end, in_order);
                meant.truncate(end);
            }
        };
        let many = end.saturating_mul(2).max(MANY);
        let mut meant = Vec::new();
        for task in tasks.filter(is_meant).filter(|task| of.shows(task)) {
            // With what they are sorted by: looking at the tasks for each comparison takes long.
            meant.push((task.launched, task.launch, task));
            if meant.len() >= many {
                cut(&mut meant);
            }
        }
        cut(&mut meant);
        meant.sort_unstable_by(in_order);
        meant.iter().skip(self.offset).map(|(_, _, task)| *task).collect()
    }
}

/// Writes `/tasks`.
pub(super) fn tasks(of: &Sorted<'_>, asked: &Asked, out: &mut dyn io::Write) -> io::Result<()> {
    let page = asked.page(of).into_iter();
    let mut writer = Writer::new(&of.seen.registry);
    let mut text = Text::to(out);
    let mut object = text.object();
    object.list("tasks", page, |text, task| writer.write(task, text.end()))?;
    object.end()?;
    text.flush()
}
