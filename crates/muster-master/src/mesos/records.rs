//! The registry's records as messages of the operator API.

use super::MESOS_VERSION;
use super::about::seconds;
use super::read::seen::{ByRole, Executor, FrameworkSeen, Seen, Sorted, offered};
use crate::admit::View;
use mesos::master::response::{get_agents, get_executors, get_frameworks};
use muster_http::show::task::user;
use muster_model::{
    AgentId, LaunchNumber, Offer, OperationState, OperationStatus, Resources, Role, TaskState,
    event::OfferWithAgent,
};
use muster_proto::master_api::{self, time};
use muster_proto::operation::{mesos_operation, mesos_operation_status};
use muster_proto::scheduler_api::{self, Shown};
use muster_proto::task::wire_state;
use muster_proto::{Form, container, executor_api, mesos, mesos_status, wire_resources, wire_resources_in};
use muster_registry::{Agent, DoneOperation, Drain, DrainState, Duty, Framework, Registry, Task};
use prost::Message;
use std::net::IpAddr;

pub(super) use muster_proto::agent::CAPABILITIES as AGENT_CAPABILITIES;

/// Where an agent listens, as Mesos names its process.
pub(super) fn agent_pid(agent: &Agent) -> String {
    let ip = muster_proto::agent::ip(&agent.sealed, &agent.info.hostname);
    let host = ip.map_or_else(|| agent.info.hostname.to_string(), |ip| ip.to_string());
    format!("slave(1)@{host}:{}", agent.info.port)
}

/// An agent's whole description.
pub(super) fn agent_info(agent: &Agent) -> mesos::AgentInfo {
    let info = mesos::AgentInfo::decode(&*agent.sealed).unwrap_or_default();
    mesos::AgentInfo {
        id: Some(mesos::AgentId { value: agent.id.to_string() }),
        hostname: agent.info.hostname.to_string(),
        port: Some(agent.info.port.into()),
        ..info
    }
}

/// A framework's whole description.
pub(super) fn framework_info(framework: &Framework) -> mesos::FrameworkInfo {
    let info = mesos::FrameworkInfo::decode(&*framework.info.sealed).unwrap_or_default();
    mesos::FrameworkInfo {
        id: Some(mesos::FrameworkId { value: framework.id.to_string() }),
        user: framework.info.user.to_string(),
        name: framework.info.name.to_string(),
        ..info
    }
}

/// Resources as they are shown to operators: with their reservations in both forms.
pub(super) fn shown_resources(resources: &Resources) -> Vec<mesos::Resource> {
    wire_resources_in(resources, Form::Both)
}

/// The same, with the roles on whose account they are held.
pub(super) fn shown_by_role(by_role: &ByRole<'_>) -> Vec<mesos::Resource> {
    let shown = by_role.iter().flat_map(|(role, resources)| {
        let mut list = shown_resources(resources);
        list.iter_mut().for_each(|resource| resource.allocation_info = role.map(allocation));
        list
    });
    shown.collect()
}

fn allocation(role: &Role) -> mesos::resource::AllocationInfo {
    mesos::resource::AllocationInfo { role: Some(role.to_string()) }
}

/// How an agent is emptied.
pub(super) fn drain_info(drain: &Drain) -> mesos::DrainInfo {
    let state = match drain.state {
        DrainState::Draining => mesos::DrainState::Draining,
        DrainState::Drained => mesos::DrainState::Drained,
    };
    let nanoseconds = |ms: u64| i64::try_from(ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    let max_grace_period = drain.max_grace_ms.map(|ms| mesos::DurationInfo { nanoseconds: nanoseconds(ms) });
    let config = mesos::DrainConfig { max_grace_period, mark_gone: Some(drain.mark_gone) };
    mesos::DrainInfo { state: state.into(), config }
}

/// An agent, with what of it is held and offered where `of` says so.
pub(super) fn agent(
    agent: &Agent,
    total: &Resources,
    duty: Option<&Duty>,
    of: Option<&Sorted<'_>>,
) -> get_agents::Agent {
    let drain = duty.and_then(|duty| duty.drain.as_ref());
    let (allocated, offered) = match of {
        Some(of) => (shown_by_role(&of.used_on(&agent.id)), shown_by_role(&offered(of.offers_on(&agent.id)))),
        None => Default::default(),
    };
    let capability =
        |it: mesos::agent_info::capability::Type| mesos::agent_info::Capability { r#type: Some(it.into()) };
    let mut shown = get_agents::Agent {
        agent_info: agent_info(agent),
        active: agent.is_connected() && duty.is_none(),
        deactivated: Some(duty.is_some()),
        version: MESOS_VERSION.into(),
        pid: Some(agent_pid(agent)),
        registered_time: Some(time(agent.registered)),
        total_resources: shown_resources(total),
        allocated_resources: allocated,
        offered_resources: offered,
        capabilities: AGENT_CAPABILITIES.map(capability).into(),
        drain_info: drain.map(drain_info),
        estimated_drain_start_time: drain.map(|drain| time(drain.started)),
        ..Default::default()
    };
    if let Some(of) = of {
        shown_to(&of.seen.view, &mut shown);
    }
    shown
}

/// Leaves of an agent out what is of roles that are not seen.
pub(super) fn shown_to(view: &View, agent: &mut get_agents::Agent) {
    view.retain(&mut agent.total_resources);
    view.retain(&mut agent.allocated_resources);
    view.retain(&mut agent.offered_resources);
}

/// A framework, with what it holds and is offered where `of` says so.
pub(super) fn framework(it: FrameworkSeen<'_>, of: Option<&Sorted<'_>>) -> get_frameworks::Framework {
    let FrameworkSeen { framework, completed } = it;
    let is_connected = completed.is_none() && framework.is_connected();
    let mut shown = get_frameworks::Framework {
        framework_info: framework_info(framework),
        active: is_connected,
        connected: is_connected,
        recovered: false,
        registered_time: Some(time(framework.registered)),
        unregistered_time: completed.map(time),
        ..Default::default()
    };
    if let Some(of) = of {
        let how = Shown::to(&shown.framework_info);
        let offers = of.offers(&framework.id);
        shown.offers = offers.iter().filter_map(|it| offer(it, &of.seen.registry, how)).collect();
        let asked = of.seen.inverse_offers.iter().filter(|it| it.framework_id == framework.id);
        shown.inverse_offers = asked.map(scheduler_api::inverse_offer).collect();
        shown.offered_resources = shown_by_role(&offered(offers));
        shown.allocated_resources = shown_by_role(&of.used(&framework.id));
    }
    shown
}

/// An offer as its framework was sent it; none when its agent is not known any more.
fn offer(it: &Offer, registry: &Registry, how: Shown) -> Option<mesos::Offer> {
    let agent = registry.agent(&it.agent_id)?;
    let with_agent = OfferWithAgent {
        offer: it.clone(),
        hostname: agent.info.hostname.clone(),
        port: agent.info.port,
        agent: agent.sealed.clone(),
        unavailability: registry.unavailability(&agent.id),
        executor_ids: registry.executors_on(&agent.id, &it.framework_id).cloned().collect(),
    };
    Some(scheduler_api::offer(&with_agent, how))
}

/// An executor.
pub(super) fn executor(it: &Executor<'_>) -> get_executors::Executor {
    get_executors::Executor {
        executor_info: executor_info(it),
        agent_id: mesos::AgentId { value: it.agent_id.to_string() },
    }
}

/// An executor's whole description.
pub(super) fn executor_info(it: &Executor<'_>) -> mesos::ExecutorInfo {
    let info = muster_proto::container::shown_executor(&it.spec.sealed);
    mesos::ExecutorInfo {
        framework_id: Some(mesos::FrameworkId { value: it.framework_id.to_string() }),
        executor_id: mesos::ExecutorId { value: it.id().to_string() },
        ..info
    }
}

/// The statuses that the registry has of a task: those that wait for an acknowledgement, and the state that it came to,
/// with the container that it is in.
pub(super) fn statuses(task: &Task, registry: &Registry) -> Vec<mesos::TaskStatus> {
    let waiting = task.updates().iter().filter_map(|update| {
        mesos_status(&task.key.task_id, Some(&task.agent_id), &update.status, Some(&update.uuid)).ok()
    });
    let mut statuses: Vec<_> = waiting.collect();
    let state: i32 = wire_state(task.state).into();
    if is_heard(task) && statuses.last().is_none_or(|last| last.state != state) {
        let told = registry.told(&task.key).and_then(|told| mesos::TaskStatus::decode(&**told).ok());
        let mut status = mesos::TaskStatus {
            task_id: mesos::TaskId { value: task.key.task_id.to_string() },
            state,
            agent_id: Some(mesos::AgentId { value: task.agent_id.to_string() }),
            message: (!task.message().is_empty()).then(|| task.message().to_string()),
            timestamp: Some(master_api::seconds(task.updated)),
            ..Default::default()
        };
        // To others it came by its executor's word alone, or perhaps without one.
        if is_of_executor(task) {
            status.source = Some(mesos::task_status::Source::Executor.into());
            status.executor_id = Some(mesos::ExecutorId { value: executor_of(task).to_owned() });
            status.container_status = container_of(task, registry).map(executor_api::container_status);
        }
        if let Some(told) = told.filter(|_| task.state != TaskState::Unreachable) {
            (status.healthy, status.check_status, status.labels) =
                (told.healthy, told.check_status, told.labels);
            // Its addresses may be of its executor's own making; which container it is, is known here as long as it lives.
            if let (Some(container), Some(told)) = (&mut status.container_status, told.container_status) {
                container.network_infos = told.network_infos;
            }
        }
        statuses.push(status);
    }
    let ip = address(registry, &task.agent_id);
    statuses.iter_mut().for_each(|status| add_address(status, || ip));
    statuses
}

/// The name of its executor, which its agent is for a task with a process of its own, under the task's name.
fn executor_of(task: &Task) -> &str {
    task.executor_id.as_ref().map_or(task.key.task_id.as_str(), |id| id.as_str())
}

/// Whether anything was heard of a task.
pub(super) fn is_heard(task: &Task) -> bool {
    task.state != TaskState::Staging
}

/// Whether a task came to its state by its executor's word.
fn is_of_executor(task: &Task) -> bool {
    matches!(task.state, TaskState::Starting | TaskState::Running | TaskState::Killing | TaskState::Finished)
}

/// The run that the container of a task is named by which its executor told of, as long as that lives.
pub(super) fn container_of(task: &Task, registry: &Registry) -> Option<LaunchNumber> {
    match &task.executor_id {
        _ if !is_of_executor(task) => None,
        None => Some(task.launch),
        Some(id) => registry.run_of_executor(&task.agent_id, &task.key.framework_id, id),
    }
}

/// Where an agent's containers are: in its own network.
pub(super) fn address(registry: &Registry, agent_id: &AgentId) -> Option<IpAddr> {
    let named = || registry.agent(agent_id).and_then(|agent| agent.info.hostname.parse().ok());
    registry.address(agent_id).or_else(named)
}

/// Says where a status' container is, if it has one and nobody says otherwise.
pub(super) fn add_address(status: &mut mesos::TaskStatus, address: impl FnOnce() -> Option<IpAddr>) {
    if let Some(container) = status.container_status.as_mut().filter(|it| it.network_infos.is_empty())
        && let Some(ip) = address()
    {
        container.network_infos = vec![network(ip)];
    }
}

fn network(ip: IpAddr) -> mesos::NetworkInfo {
    let protocol = match ip {
        IpAddr::V4(_) => mesos::network_info::Protocol::IPv4,
        IpAddr::V6(_) => mesos::network_info::Protocol::IPv6,
    };
    let address =
        mesos::network_info::IpAddress { protocol: Some(protocol.into()), ip_address: Some(ip.to_string()) };
    mesos::NetworkInfo { ip_addresses: vec![address], ..Default::default() }
}

/// What a task's description is shown for beside its record; nothing if it is none.
fn shown_fields(task: &Task) -> mesos::TaskInfo {
    let (mut sealed, mut fields) = (Vec::new(), Vec::new());
    task.append_sealed(&mut sealed);
    match container::shown_fields(&sealed, &mut fields) {
        Ok(()) => container::shown_task(&fields),
        Err(_) => mesos::TaskInfo::default(),
    }
}

/// A task.
pub(super) fn task(task: &Task, statuses: Vec<mesos::TaskStatus>) -> mesos::Task {
    let info = shown_fields(task);
    let mut resources = wire_resources(&task.resources);
    resources.iter_mut().for_each(|it| it.allocation_info = Some(allocation(&task.role)));
    let head = task.updates().first();
    let told = match head {
        Some(head) => Some(head.status.state),
        None => Some(task.state).filter(|state| *state != TaskState::Staging),
    };
    let user = user(&info).map(Into::into);
    mesos::Task {
        name: task.name.to_string(),
        task_id: mesos::TaskId { value: task.key.task_id.to_string() },
        framework_id: mesos::FrameworkId { value: task.key.framework_id.to_string() },
        executor_id: task.executor_id.as_ref().map(|id| mesos::ExecutorId { value: id.to_string() }),
        agent_id: mesos::AgentId { value: task.agent_id.to_string() },
        state: wire_state(task.state).into(),
        resources,
        statuses,
        status_update_state: told.map(|state| wire_state(state).into()),
        status_update_uuid: head.map(|head| head.uuid.0.to_vec().into()),
        labels: info.labels,
        discovery: info.discovery,
        container: info.container,
        user,
        health_check: info.health_check,
        kill_policy: info.kill_policy,
        limits: info.limits.into_iter().map(Into::into).collect(),
    }
}

/// An operation that is done and not acknowledged.
pub(super) fn operation(it: &DoneOperation) -> mesos::Operation {
    let status = OperationStatus {
        id: it.operation_id.clone(),
        state: OperationState::Finished,
        message: "".into(),
        agent_id: Some(it.agent_id.clone()),
        uuid: Some(it.uuid),
        converted: it.conversion.converted(),
        role: Some(it.role.clone()),
        provider: None,
    };
    let status = mesos_operation_status(&status, shown_resources);
    let id = it.operation_id.as_str();
    let info = mesos::offer::Operation::decode(&*it.sealed);
    mesos::Operation {
        framework_id: Some(mesos::FrameworkId { value: it.framework_id.to_string() }),
        agent_id: Some(mesos::AgentId { value: it.agent_id.to_string() }),
        info: info.unwrap_or_else(|_| mesos_operation(Some(id), &it.conversion)),
        latest_status: status.clone(),
        statuses: vec![status],
        uuid: mesos::Uuid { value: it.uuid.0.to_vec().into() },
    }
}

/// The roles that there are.
pub(super) fn roles(of: &Sorted<'_>) -> Vec<mesos::Role> {
    let weights = of.seen.weights();
    let roles = of.roles().into_iter().map(|(name, it)| mesos::Role {
        weight: weights.get(&name).copied().unwrap_or(1.0),
        name,
        frameworks: it.frameworks.iter().map(|id| mesos::FrameworkId { value: id.to_string() }).collect(),
        resources: wire_resources(&it.allocated.plus(&it.offered).quantities()),
    });
    roles.collect()
}

/// The weights that were set.
pub(super) fn weights(seen: &Seen) -> Vec<mesos::WeightInfo> {
    let weight = |(role, weight)| mesos::WeightInfo { role: Some(role), weight };
    seen.weights().into_iter().map(weight).collect()
}

/// The master that leads.
pub(super) fn master(seen: &Seen) -> mesos::master::response::GetMaster {
    mesos::master::response::GetMaster {
        master_info: Some(super::session::master_info(
            seen.registry.cluster_id().as_str(),
            &seen.local.leader,
        )),
        start_time: Some(seconds(seen.about.started)),
        elected_time: Some(seconds(seen.local.since)),
    }
}

/// The version that is spoken.
pub(super) fn version() -> mesos::VersionInfo {
    mesos::VersionInfo { version: MESOS_VERSION.into(), ..Default::default() }
}

/// Whether an agent belongs to the cluster at present.
pub(super) fn is_here(agent: &Agent) -> bool {
    agent.lost_since().is_none()
}
