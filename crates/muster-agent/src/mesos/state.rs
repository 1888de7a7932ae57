//! `/state`.

use super::messages::{CAPABILITIES, shown_resources, statuses};
use super::seen::{Executor, Framework, Seen, is_multi_role, roles};
use crate::{doctor::enforced, history::TaskSeen};
use mesos::executor_info::Type;
use muster_http::{
    MESOS_VERSION,
    machine::seconds,
    show::{
        self, List, Raw,
        resources::{Amounts, Attributes},
        task::{Labels, Task},
    },
};
use muster_proto::mesos;
use prost::Message;
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::collections::BTreeMap;

/// `/state`.
pub(super) struct State<'a>(pub(super) &'a Seen);

impl Serialize for State<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (seen, about) = (self.0, &*self.0.about);
        let info = mesos::AgentInfo::decode(&*about.sealed).unwrap_or_default();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("version", MESOS_VERSION)?;
        show::build(&mut map)?;
        map.serialize_entry("start_time", &seconds(about.started))?;
        map.serialize_entry("id", agent_id(seen))?;
        map.serialize_entry("pid", &about.pid())?;
        map.serialize_entry("hostname", &*about.info.hostname)?;
        map.serialize_entry("capabilities", &List(|| CAPABILITIES.iter().map(|it| it.as_str_name())))?;
        if let Some(domain) = &info.domain {
            map.serialize_entry("domain", &Raw(domain))?;
        }
        // What is reserved the registry knows, and this agent does not.
        let total = shown_resources(&about.info.resources);
        map.serialize_entry("resources", &Amounts(&about.info.resources))?;
        map.serialize_entry("reserved_resources", &BTreeMap::<&str, ()>::new())?;
        map.serialize_entry("unreserved_resources", &Amounts(&about.info.resources))?;
        map.serialize_entry("reserved_resources_full", &BTreeMap::<&str, ()>::new())?;
        map.serialize_entry("unreserved_resources_full", &List(|| total.iter().map(Raw)))?;
        map.serialize_entry("reserved_resources_allocated", &BTreeMap::<&str, ()>::new())?;
        map.serialize_entry("unreserved_resources_allocated", &Amounts(&seen.used()))?;
        map.serialize_entry("resource_providers", &[(); 0])?;
        map.serialize_entry("attributes", &Attributes(&about.info.attributes))?;
        if let Some(leader) = &seen.history.leader {
            let host = leader.rsplit_once(':').map_or(leader.as_str(), |(host, _)| host);
            map.serialize_entry("master_hostname", host)?;
        }
        // What Mesos' agents do not tell: which limits hold here, or why they do not.
        let containers = about.containers.iter().map(|(name, found)| match found {
            Ok(found) => (*name, found.clone()),
            Err(why) => (*name, format!("no: {why}")),
        });
        map.serialize_entry("containerizers", &containers.collect::<BTreeMap<_, _>>())?;
        let can =
            enforced(about.enforcer.can()).map(|(name, ability)| (name, ability.err().unwrap_or("yes")));
        map.serialize_entry("cgroups", about.enforcer.can().layout.name())?;
        map.serialize_entry("limits_enforced", &BTreeMap::from(can))?;
        if let Some(log) = &about.log_file {
            map.serialize_entry("external_log_file", &log.display().to_string())?;
        }
        if seen.view.flags {
            map.serialize_entry("flags", &about.flags)?;
        }
        let frameworks = seen.frameworks();
        let of = |is_over: bool| {
            let such = frameworks.iter().filter(move |it| it.is_over == is_over);
            such.map(|it| Shown(seen, it))
        };
        map.serialize_entry("frameworks", &List(|| of(false)))?;
        map.serialize_entry("completed_frameworks", &List(|| of(true)))?;
        map.end()
    }
}

fn agent_id(seen: &Seen) -> &str {
    seen.history.agent_id.as_ref().map_or("", |id| id.as_str())
}

struct Shown<'a>(&'a Seen, &'a Framework<'a>);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(seen, it) = *self;
        let info = &it.info;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", it.id.as_str())?;
        map.serialize_entry("name", &info.name)?;
        map.serialize_entry("user", &info.user)?;
        map.serialize_entry("failover_timeout", &info.failover_timeout())?;
        map.serialize_entry("checkpoint", &info.checkpoint())?;
        map.serialize_entry("hostname", info.hostname())?;
        if let Some(principal) = &info.principal {
            map.serialize_entry("principal", principal)?;
        }
        match is_multi_role(info) {
            true => map.serialize_entry("roles", &info.roles)?,
            false => map.serialize_entry("role", &roles(info).concat())?,
        }
        let shown = |executor| Ran { seen, framework_id: it.id.as_str(), executor };
        map.serialize_entry("executors", &List(|| it.executors.iter().map(shown)))?;
        map.serialize_entry("completed_executors", &List(|| it.completed.iter().map(shown)))?;
        map.end()
    }
}

/// An executor.
struct Ran<'a> {
    seen: &'a Seen,
    framework_id: &'a str,
    executor: &'a Executor<'a>,
}

impl Serialize for Ran<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { seen, framework_id, executor } = *self;
        let info = &executor.info;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", executor.id())?;
        map.serialize_entry("name", info.name())?;
        map.serialize_entry("source", info.source())?;
        map.serialize_entry("container", &executor.container_id())?;
        map.serialize_entry("directory", &seen.sandbox(framework_id, executor).display().to_string())?;
        map.serialize_entry("resources", &Amounts(&executor.resources()))?;
        map.serialize_entry("role", &executor.role)?;
        if let Some(labels) = &info.labels {
            map.serialize_entry("labels", &Labels(labels))?;
        }
        if let Some(kind) = info.r#type.and_then(|kind| Type::try_from(kind).ok()) {
            map.serialize_entry("type", kind.as_str_name())?;
        }
        let shown = |task| OfExecutor { seen, executor, task };
        map.serialize_entry("tasks", &List(|| executor.launched().map(shown)))?;
        map.serialize_entry("queued_tasks", &List(|| executor.queued().map(|task| Queued(seen, task))))?;
        let done = || executor.done.iter().copied().chain(executor.terminated()).map(shown);
        map.serialize_entry("completed_tasks", &List(done))?;
        map.end()
    }
}

/// A task that was started, or handed to its executor.
struct OfExecutor<'a> {
    seen: &'a Seen,
    executor: &'a Executor<'a>,
    task: &'a TaskSeen,
}

impl Serialize for OfExecutor<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let intent = &*self.task.intent;
        let info = muster_proto::container::shown_task(&intent.sealed);
        let shown = Task {
            id: intent.task.task_id.as_str(),
            name: &info.name,
            framework_id: intent.task.framework_id.as_str(),
            executor_id: if self.executor.is_custom { self.executor.id() } else { "" },
            agent_id: agent_id(self.seen),
            state: self.task.state,
            resources: &intent.resources,
            role: &self.seen.role(&info, &intent.task.framework_id),
            statuses: &statuses(self.seen, self.task),
            info: &info,
        };
        shown.serialize(serializer)
    }
}

/// A task that waits.
struct Queued<'a>(&'a Seen, &'a TaskSeen);

impl Serialize for Queued<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(seen, task) = *self;
        let intent = &*task.intent;
        let info = muster_proto::container::shown_task(&intent.sealed);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", intent.task.task_id.as_str())?;
        map.serialize_entry("name", &info.name)?;
        map.serialize_entry("slave_id", agent_id(seen))?;
        map.serialize_entry("resources", &Amounts(&intent.resources))?;
        map.serialize_entry("role", &seen.role(&info, &intent.task.framework_id))?;
        if let Some(command) = &info.command {
            map.serialize_entry("command", &show::task::Command(command))?;
        }
        if let Some(executor) = &info.executor {
            map.serialize_entry("executor_id", &executor.executor_id.value)?;
        }
        if let Some(discovery) = &info.discovery {
            map.serialize_entry("discovery", &Raw(discovery))?;
        }
        map.end()
    }
}
