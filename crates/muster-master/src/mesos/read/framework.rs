//! Frameworks as the legacy answers show them, and `/frameworks`.

use super::super::records;
use super::List;
use super::resources::Amounts;
use super::seen::{Executor, FrameworkSeen, Sorted, offered, total};
use super::show::task::{Command, Labels};
use super::show::text::{Object, Text};
use super::task;
use muster_model::{Offer, Resources, TaskState};
use muster_proto::{master_api::seconds, mesos};
use muster_registry::Task;
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::{collections::BTreeMap, io};

/// Writes what every answer shows of a framework; what it holds and is offered.
pub(super) fn summary<M: SerializeMap>(
    it: FrameworkSeen<'_>,
    info: &mesos::FrameworkInfo,
    of: &Sorted<'_>,
    map: &mut M,
) -> Result<Resources, M::Error> {
    let FrameworkSeen { framework, completed } = it;
    let is_connected = completed.is_none() && framework.is_connected();
    map.serialize_entry("id", framework.id.as_str())?;
    map.serialize_entry("name", &*framework.info.name)?;
    let (used, offered) = (total(&of.used(&framework.id)), total(&offered(of.offers(&framework.id))));
    map.serialize_entry("used_resources", &Amounts(&used))?;
    map.serialize_entry("offered_resources", &Amounts(&offered))?;
    let capabilities = || info.capabilities.iter().filter_map(capability);
    map.serialize_entry("capabilities", &List(capabilities))?;
    map.serialize_entry("hostname", info.hostname())?;
    map.serialize_entry("webui_url", info.webui_url())?;
    map.serialize_entry("active", &is_connected)?;
    map.serialize_entry("connected", &is_connected)?;
    map.serialize_entry("recovered", &false)?;
    Ok(used.plus(&offered))
}

fn capability(it: &mesos::framework_info::Capability) -> Option<&'static str> {
    use mesos::framework_info::capability::Type;
    it.r#type.and_then(|kind| Type::try_from(kind).ok()).map(|kind| kind.as_str_name())
}

/// Writes a framework with all that is its.
fn full<'a>(
    it: FrameworkSeen<'a>,
    of: &Sorted<'a>,
    completed: &[&'a Task],
    writer: &mut task::Writer<'a>,
    text: &mut Text<'_>,
) -> io::Result<()> {
    let (framework, id) = (it.framework, &it.framework.id);
    let info = records::framework_info(framework);
    let mut map = text.object();
    let resources = summary(it, &info, of, &mut map)?;
    map.serialize_entry("user", &*framework.info.user)?;
    map.serialize_entry("failover_timeout", &(framework.info.failover_timeout_ms as f64 / 1000.0))?;
    map.serialize_entry("checkpoint", &info.checkpoint())?;
    map.serialize_entry("registered_time", &seconds(framework.registered))?;
    map.serialize_entry("unregistered_time", &it.completed.map_or(0.0, seconds))?;
    if let Some(principal) = &framework.info.principal {
        map.serialize_entry("principal", &**principal)?;
    }
    map.serialize_entry("resources", &Amounts(&resources))?;
    let roles = || framework.info.roles.iter().map(|role| role.as_str());
    match framework.info.capabilities.multi_role {
        true => map.serialize_entry("roles", &List(roles))?,
        false => map.serialize_entry("role", roles().next().unwrap_or("*"))?,
    }
    let is_over = it.completed.is_some();
    let live = || of.seen.registry.tasks_of_framework(id).filter(|task| of.shows(task));
    let is_unreachable = |task: &&Task| task.state == TaskState::Unreachable;
    let tasks = live().filter(|task| !is_over && !is_unreachable(task));
    let unreachable = live().filter(|task| !is_over && is_unreachable(task));
    // Of a framework that is over nothing more is told: what is left of its tasks is being ended.
    let left = live().filter(|_| is_over);
    let completed = completed.iter().copied().chain(left);
    let mut write = |text: &mut Text<'_>, task: &'a Task| writer.write(task, text.end());
    map.list("tasks", tasks, &mut write)?;
    map.list("unreachable_tasks", unreachable, &mut write)?;
    map.list("completed_tasks", completed, &mut write)?;
    map.values("offers", of.offers(id).iter().map(|offer| Offered(offer)))?;
    map.values("executors", of.executors(id).iter().filter(|it| of.shows_executor(it)).map(Custom))?;
    if let Some(labels) = &info.labels {
        map.serialize_entry("labels", &Labels(labels))?;
    }
    map.serialize_entry("offer_constraints", &BTreeMap::<&str, ()>::new())?;
    Ok(map.end()?)
}

struct Offered<'a>(&'a Offer);

impl Serialize for Offered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", self.0.offer_id.as_str())?;
        map.serialize_entry("framework_id", self.0.framework_id.as_str())?;
        map.serialize_entry("allocation_info", &BTreeMap::from([("role", self.0.role.as_str())]))?;
        map.serialize_entry("slave_id", self.0.agent_id.as_str())?;
        map.serialize_entry("resources", &Amounts(&self.0.resources))?;
        map.end()
    }
}

struct Custom<'a>(&'a Executor<'a>);

impl Serialize for Custom<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use mesos::executor_info::Type;
        let info = records::executor_info(self.0);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("executor_id", self.0.id().as_str())?;
        map.serialize_entry("name", info.name())?;
        map.serialize_entry("framework_id", self.0.framework_id.as_str())?;
        if let Some(command) = &info.command {
            map.serialize_entry("command", &Command(command))?;
        }
        map.serialize_entry("resources", &Amounts(&self.0.spec.resources))?;
        map.serialize_entry("role", self.0.role.as_str())?;
        if let Some(labels) = &info.labels {
            map.serialize_entry("labels", &Labels(labels))?;
        }
        if let Some(kind) = info.r#type.and_then(|kind| Type::try_from(kind).ok()) {
            map.serialize_entry("type", kind.as_str_name())?;
        }
        map.serialize_entry("slave_id", self.0.agent_id.as_str())?;
        map.end()
    }
}

/// Writes the frameworks that live and those that are over, or the one that is meant.
pub(super) fn lists<'a>(of: &Sorted<'a>, only: Option<&str>, map: &mut Object<'_, '_>) -> io::Result<()> {
    let is_meant = |it: &FrameworkSeen<'_>| only.is_none_or(|id| it.framework.id.as_str() == id);
    let mut writer = task::Writer::new(&of.seen.registry);
    let completed = of.completed_by_framework();
    let mut write = |text: &mut Text<'_>, it: FrameworkSeen<'a>| {
        let completed = completed.get(&it.framework.id).map_or(&[][..], Vec::as_slice);
        full(it, of, completed, &mut writer, text)
    };
    map.list("frameworks", of.seen.frameworks().filter(is_meant), &mut write)?;
    map.list("completed_frameworks", of.seen.completed_frameworks().filter(is_meant), &mut write)
}

/// Writes `/frameworks`.
pub(super) fn frameworks(of: &Sorted<'_>, only: Option<&str>, out: &mut dyn io::Write) -> io::Result<()> {
    let mut text = Text::to(out);
    let mut map = text.object();
    lists(of, only, &mut map)?;
    map.serialize_entry("unregistered_frameworks", &[(); 0])?;
    map.end()?;
    text.flush()
}
