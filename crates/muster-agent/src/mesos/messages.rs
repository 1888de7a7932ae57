//! What is shown as messages of the operator API.

use super::{
    seen::{Executor, Seen},
    statistics::{Machine, status},
};
use crate::history::TaskSeen;
use mesos::agent::response::{
    GetAgent, GetContainers, GetExecutors, GetFrameworks, GetState, GetTasks, get_containers, get_executors,
    get_frameworks,
};
use muster_model::Resources;
use muster_node::Process;
use muster_proto::{executor_api::nested_container, mesos, mesos_status, task::wire_state, wire_resources};
use prost::Message;

/// What agents of muster can do of what agents of Mesos can.
pub(super) use muster_proto::agent::CAPABILITIES;

/// Resources as they are shown: with the role that they are reserved for, which is none as yet.
#[allow(deprecated)]
pub(super) fn shown_resources(resources: &Resources) -> Vec<mesos::Resource> {
    let mut list = wire_resources(resources);
    list.iter_mut().for_each(|resource| resource.role = Some("*".into()));
    list
}

fn allocated(resources: &Resources, role: &str) -> Vec<mesos::Resource> {
    let mut list = wire_resources(resources);
    for resource in &mut list {
        resource.allocation_info = Some(mesos::resource::AllocationInfo { role: Some(role.into()) });
    }
    list
}

/// This agent's whole description.
pub(super) fn agent(seen: &Seen) -> GetAgent {
    let mut info = mesos::AgentInfo::decode(&*seen.about.sealed).unwrap_or_default();
    info.id = seen.history.agent_id.as_ref().map(|id| mesos::AgentId { value: id.to_string() });
    GetAgent { agent_info: Some(info), ..Default::default() }
}

/// What was said of a task.
pub(super) fn statuses(seen: &Seen, task: &TaskSeen) -> Vec<mesos::TaskStatus> {
    let said = task.statuses.iter().filter_map(|update| {
        let (id, agent_id) = (&update.task.task_id, seen.history.agent_id.as_ref());
        mesos_status(id, agent_id, &update.status, Some(&update.uuid)).ok()
    });
    said.collect()
}

/// A task.
fn task(seen: &Seen, of: &Executor<'_>, task: &TaskSeen) -> mesos::Task {
    let intent = &*task.intent;
    let info = muster_proto::container::shown_task(&intent.sealed);
    let last = task.statuses.last();
    let role = seen.role(&info, &intent.task.framework_id);
    mesos::Task {
        name: info.name.clone(),
        task_id: mesos::TaskId { value: intent.task.task_id.to_string() },
        framework_id: mesos::FrameworkId { value: intent.task.framework_id.to_string() },
        executor_id: of.is_custom.then(|| of.info.executor_id.clone()),
        agent_id: mesos::AgentId {
            value: seen.history.agent_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        },
        state: wire_state(task.state).into(),
        resources: allocated(&intent.resources, &role),
        statuses: statuses(seen, task),
        status_update_state: last.map(|last| wire_state(last.status.state).into()),
        status_update_uuid: last.map(|last| last.uuid.0.to_vec().into()),
        user: muster_http::show::task::user(&info).map(Into::into),
        labels: info.labels,
        discovery: info.discovery,
        container: info.container,
        health_check: info.health_check,
        kill_policy: info.kill_policy,
        limits: info.limits.into_iter().map(Into::into).collect(),
    }
}

/// All tasks, by how far they came.
pub(super) fn tasks(seen: &Seen) -> GetTasks {
    let mut all = GetTasks::default();
    for framework in seen.frameworks() {
        for executor in &framework.executors {
            let shown = |it| task(seen, executor, it);
            all.queued_tasks.extend(executor.queued().map(shown));
            all.launched_tasks.extend(executor.launched().map(shown));
            all.terminated_tasks.extend(executor.terminated().map(shown));
            all.completed_tasks.extend(executor.done.iter().copied().map(shown));
        }
        for executor in &framework.completed {
            all.completed_tasks.extend(executor.done.iter().map(|it| task(seen, executor, it)));
        }
    }
    all
}

/// An executor's whole description, with what it holds on whose account.
fn executor(it: &Executor<'_>) -> get_executors::Executor {
    let resources = allocated(&it.own, &it.role);
    get_executors::Executor { executor_info: mesos::ExecutorInfo { resources, ..it.info.clone() } }
}

/// All executors.
pub(super) fn executors(seen: &Seen) -> GetExecutors {
    let mut all = GetExecutors::default();
    for framework in seen.frameworks() {
        all.executors.extend(framework.executors.iter().map(executor));
        all.completed_executors.extend(framework.completed.iter().map(executor));
    }
    all
}

/// All frameworks of which something is here, and those of which something was.
pub(super) fn frameworks(seen: &Seen) -> GetFrameworks {
    let mut all = GetFrameworks::default();
    for framework in seen.frameworks() {
        let list = match framework.is_over {
            true => &mut all.completed_frameworks,
            false => &mut all.frameworks,
        };
        list.push(get_frameworks::Framework { framework_info: framework.info });
    }
    all
}

/// All there is.
pub(super) fn state(seen: &Seen) -> GetState {
    GetState {
        get_tasks: Some(tasks(seen)),
        get_executors: Some(executors(seen)),
        get_frameworks: Some(frameworks(seen)),
    }
}

/// The containers that live, with what is measured of them.
pub(super) fn containers(seen: &Seen, nested: bool) -> GetContainers {
    let machine = Machine::now(seen);
    let mut containers = Vec::new();
    for framework in seen.frameworks() {
        for it in &framework.executors {
            let mut show =
                |container_id: mesos::ContainerId, number, process: Option<&Process>, holds: &Resources| {
                    containers.push(get_containers::Container {
                        framework_id: Some(mesos::FrameworkId { value: framework.id.to_string() }),
                        executor_id: Some(it.info.executor_id.clone()),
                        executor_name: Some(it.info.name().to_owned()),
                        container_id: container_id.clone(),
                        container_status: Some(status(container_id, process)),
                        resource_statistics: process.and_then(|process| machine.of(number, process, holds)),
                    });
                };
            // What has no process, and never has, has no container.
            if it.process.is_some() || it.built_in {
                let container_id = mesos::ContainerId { value: it.container_id(), ..Default::default() };
                show(container_id, it.number, it.process, &it.resources());
            }
            for task in it.launched().filter(|_| nested && it.built_in) {
                let id = nested_container(it.number, task.intent.launch);
                show(id, task.intent.launch, task.process.as_ref(), &task.intent.resources);
            }
        }
    }
    GetContainers { containers }
}
