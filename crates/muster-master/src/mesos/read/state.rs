//! `/state` and `/state-summary`.

use super::super::{MESOS_VERSION, about::seconds, records};
use super::seen::{FrameworkSeen, Sorted};
use super::show::text::Text;
use super::{List, agent, framework};
use muster_model::{AgentId, FrameworkId, TaskState};
use muster_registry::{Agent, AgentState};
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::{
    collections::{BTreeSet, HashMap},
    io,
};

/// Writes `/state`.
pub(super) fn state(of: &Sorted<'_>, out: &mut dyn io::Write) -> io::Result<()> {
    let seen = of.seen;
    let about = &seen.about;
    let (host, port) = about.host();
    let count =
        |is: fn(&AgentState) -> bool| seen.registry.agents().filter(|agent| is(&agent.state)).count() as f64;
    let mut text = Text::to(out);
    let mut map = text.object();
    map.serialize_entry("version", MESOS_VERSION)?;
    muster_http::show::build(&mut map)?;
    map.serialize_entry("start_time", &seconds(about.started))?;
    map.serialize_entry("elected_time", &seconds(seen.local.since))?;
    map.serialize_entry("id", seen.registry.cluster_id().as_str())?;
    map.serialize_entry("pid", &about.pid())?;
    map.serialize_entry("hostname", host)?;
    let here = seen.registry.agents().filter(|agent| records::is_here(agent));
    let (active, inactive): (Vec<_>, Vec<_>) = here.partition(|it| seen.registry.is_offerable(&it.id));
    map.serialize_entry("capabilities", &["AGENT_UPDATE", "AGENT_DRAINING", "QUOTA_V2"])?;
    map.serialize_entry("activated_slaves", &(active.len() as f64))?;
    map.serialize_entry("deactivated_slaves", &(inactive.len() as f64))?;
    map.serialize_entry("unreachable_slaves", &count(|it| matches!(it, AgentState::Unreachable { .. })))?;
    map.serialize_entry("leader", &about.pid())?;
    let leader =
        LeaderInfo { id: seen.registry.cluster_id().as_str(), pid: about.pid(), port, hostname: host };
    map.serialize_entry("leader_info", &leader)?;
    map.serialize_entry("cluster", seen.registry.cluster_id().as_str())?;
    if let Some(log) = &about.log_file {
        map.serialize_entry("external_log_file", &log.display().to_string())?;
    }
    if seen.view.flags {
        map.serialize_entry("flags", &about.flags)?;
    }
    map.values("slaves", agent::plain(of))?;
    map.serialize_entry("recovered_slaves", &[(); 0])?;
    framework::lists(of, None, &mut map)?;
    map.serialize_entry("orphan_tasks", &[(); 0])?;
    map.serialize_entry("unregistered_frameworks", &[(); 0])?;
    map.end()?;
    text.flush()
}

#[derive(Serialize)]
struct LeaderInfo<'a> {
    id: &'a str,
    pid: String,
    port: u16,
    hostname: &'a str,
}

/// The states that are counted, in Mesos' order.
const COUNTED: [TaskState; 10] = [
    TaskState::Staging,
    TaskState::Starting,
    TaskState::Running,
    TaskState::Killing,
    TaskState::Finished,
    TaskState::Killed,
    TaskState::Failed,
    TaskState::Lost,
    TaskState::Error,
    TaskState::Unreachable,
];

/// Tasks by state.
#[derive(Default)]
struct Tasks<'a> {
    counts: [u64; COUNTED.len()],
    agents: BTreeSet<&'a AgentId>,
    frameworks: BTreeSet<&'a FrameworkId>,
    /// The framework of the one that was counted last: tasks that live come framework by framework.
    last: Option<&'a FrameworkId>,
}

impl Tasks<'_> {
    fn count(&mut self, state: TaskState) {
        // The four ways of being lost for ever have no counter of their own there.
        let place = |state| COUNTED.iter().position(|it| *it == state);
        let counted = place(state).or_else(|| place(state.for_partition_unaware()));
        if let Some(count) = counted.and_then(|at| self.counts.get_mut(at)) {
            *count += 1;
        }
    }

    fn fields<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        COUNTED.iter().zip(self.counts).try_for_each(|(state, n)| map.serialize_entry(state.name(), &n))
    }
}

/// `/state-summary`.
pub(super) struct Summary<'a>(pub(super) &'a Sorted<'a>);

impl Serialize for Summary<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (of, seen) = (self.0, self.0.seen);
        let (mut on, mut by) = (HashMap::<_, Tasks<'_>>::new(), HashMap::<_, Tasks<'_>>::new());
        for task in of.tasks().chain(of.completed_tasks()) {
            let (agent_id, framework_id) = (&task.agent_id, &task.key.framework_id);
            let on = on.entry(agent_id).or_default();
            on.count(task.state);
            let by = by.entry(framework_id).or_default();
            by.count(task.state);
            if on.last.replace(framework_id) != Some(framework_id) {
                on.frameworks.insert(framework_id);
                by.agents.insert(agent_id);
            }
        }
        let none = Tasks::default();
        let agents = || {
            let here = seen.registry.agents().filter(|agent| records::is_here(agent));
            here.map(|agent| AgentSummary { agent, of, tasks: on.get(&agent.id).unwrap_or(&none) })
        };
        let frameworks = || {
            seen.frameworks().map(|it| FrameworkSummary {
                it,
                of,
                tasks: by.get(&it.framework.id).unwrap_or(&none),
            })
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("hostname", seen.about.host().0)?;
        map.serialize_entry("cluster", seen.registry.cluster_id().as_str())?;
        map.serialize_entry("slaves", &List(agents))?;
        map.serialize_entry("frameworks", &List(frameworks))?;
        map.end()
    }
}

struct AgentSummary<'a> {
    agent: &'a Agent,
    of: &'a Sorted<'a>,
    tasks: &'a Tasks<'a>,
}

impl Serialize for AgentSummary<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        agent::fields(self.agent, self.of, &mut map)?;
        self.tasks.fields(&mut map)?;
        map.serialize_entry("framework_ids", &List(|| self.tasks.frameworks.iter().map(|id| id.as_str())))?;
        map.end()
    }
}

struct FrameworkSummary<'a> {
    it: FrameworkSeen<'a>,
    of: &'a Sorted<'a>,
    tasks: &'a Tasks<'a>,
}

impl Serialize for FrameworkSummary<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let info = records::framework_info(self.it.framework);
        let mut map = serializer.serialize_map(None)?;
        framework::summary(self.it, &info, self.of, &mut map)?;
        self.tasks.fields(&mut map)?;
        map.serialize_entry("slave_ids", &List(|| self.tasks.agents.iter().map(|id| id.as_str())))?;
        map.end()
    }
}
