//! The Mesos v1 scheduler API: its calls as ours, our events as its.

use crate::json::{Mesos, wire_parts};
use crate::{Form, mesos, v1, wire_resources_in};
use bytes::Bytes;
use mesos::scheduler::{self, Event, call, event};
use muster_model::event::OfferWithAgent;
use muster_model::{InverseOffer, Resources, Role, SchedulerEvent, WallTime};
use prost::Message;
pub use v1::scheduler_frame::Call as Up;

/// The longest time for which resources are refused, in seconds: a year (Mesos).
const REFUSE_SECONDS_MAX: f64 = 31_536_000.0;
/// How long they are refused when nothing is said, or nothing that is a time.
const REFUSE_SECONDS: f64 = 5.0;

/// What a scheduler asks over the Mesos API, as a frame of our own stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// To subscribe; the token is still to be drawn.
    Subscribe(v1::Subscribe),
    /// Something else of ours.
    Call(Call),
    /// Something that is taken and changes nothing, as Mesos takes it. Its answers go down the stream.
    Told(Vec<Event>),
    /// A type of call that nobody knows.
    Unknown,
    /// A call that is not supported yet.
    Unsupported(&'static str),
}

/// A call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// What it asks of the leader, if anything.
    pub frame: Option<Up>,
    /// What else it is answered, down the stream: of parts that are not carried out.
    pub told: Vec<Event>,
}

/// Checks what Mesos checks before anything else: that the parts are there which the call's type needs, and agree.
///
/// # Errors
/// In Mesos' words, what is missing or does not agree.
pub fn validate(call: &scheduler::Call) -> Result<call::Type, String> {
    let expecting = |what: &str| Err(format!("Expecting '{what}' to be present"));
    let Some(kind) = call.r#type.and_then(|kind| call::Type::try_from(kind).ok()) else {
        return expecting("type");
    };
    if kind == call::Type::Subscribe {
        let Some(subscribe) = &call.subscribe else { return expecting("subscribe") };
        let named = subscribe.framework_info.id.as_ref().filter(|id| !id.value.is_empty());
        let own = call.framework_id.as_ref().filter(|id| !id.value.is_empty());
        if named != own {
            return Err("'framework_id' differs from 'subscribe.framework_info.id'".into());
        }
        return Ok(kind);
    }
    if kind == call::Type::Unknown {
        return Ok(kind);
    }
    let Some(framework_id) = &call.framework_id else { return expecting("framework_id") };
    use call::Type;
    let part = match kind {
        Type::Accept => call.accept.is_none().then_some("accept"),
        Type::Decline => call.decline.is_none().then_some("decline"),
        Type::AcceptInverseOffers => call.accept_inverse_offers.is_none().then_some("accept_inverse_offers"),
        Type::DeclineInverseOffers => {
            call.decline_inverse_offers.is_none().then_some("decline_inverse_offers")
        }
        Type::Kill => call.kill.is_none().then_some("kill"),
        Type::Shutdown => call.shutdown.is_none().then_some("shutdown"),
        Type::Acknowledge => call.acknowledge.is_none().then_some("acknowledge"),
        Type::AcknowledgeOperationStatus => {
            call.acknowledge_operation_status.is_none().then_some("acknowledge_operation_status")
        }
        Type::Reconcile => call.reconcile.is_none().then_some("reconcile"),
        Type::ReconcileOperations => call.reconcile_operations.is_none().then_some("reconcile_operations"),
        Type::Message => call.message.is_none().then_some("message"),
        Type::Request => call.request.is_none().then_some("request"),
        Type::UpdateFramework => call.update_framework.is_none().then_some("update_framework"),
        Type::Subscribe | Type::Unknown | Type::Teardown | Type::Revive | Type::Suppress => None,
    };
    if let Some(part) = part {
        return expecting(part);
    }
    let uuids = [
        call.acknowledge.as_ref().filter(|_| kind == Type::Acknowledge).map(|it| &it.uuid),
        call.acknowledge_operation_status
            .as_ref()
            .filter(|_| kind == Type::AcknowledgeOperationStatus)
            .map(|it| &it.uuid),
    ];
    if uuids.into_iter().flatten().any(|uuid| uuid.len() != 16) {
        return Err("Not a valid UUID".into());
    }
    if kind == Type::AcknowledgeOperationStatus
        && call.acknowledge_operation_status.as_ref().is_some_and(|it| it.agent_id.is_none())
    {
        return expecting("agent_id");
    }
    if kind == Type::UpdateFramework
        && call
            .update_framework
            .as_ref()
            .is_some_and(|it| it.framework_info.id.as_ref() != Some(framework_id))
    {
        return Err("'framework_id' differs from 'update_framework.framework_info.id'".into());
    }
    Ok(kind)
}

/// Reads a call that was checked; `bytes` are what it was read of, so that descriptions stay as they were sent.
pub fn asked(call: &scheduler::Call, bytes: &Bytes, shown: Shown) -> Asked {
    use call::Type;
    let ask = |frame| Asked::Call(Call { frame: Some(frame), told: Vec::new() });
    let Some(kind) = call.r#type.and_then(|kind| Type::try_from(kind).ok()) else { return Asked::Unknown };
    match kind {
        Type::Unknown => Asked::Unknown,
        Type::Subscribe => Asked::Subscribe(subscribe(call, bytes)),
        Type::Teardown => ask(Up::Teardown(v1::Teardown {})),
        Type::Accept => accept(call, bytes, shown),
        Type::Decline => {
            let decline = call.decline.as_ref();
            let offer_ids = offer_ids(decline.map_or(&[][..], |decline| &decline.offer_ids));
            if offer_ids.is_empty() {
                return Asked::Told(Vec::new());
            }
            let refuse_ms = refuse_ms(decline.and_then(|decline| decline.filters.as_ref()));
            ask(Up::Decline(v1::Decline { offer_ids, refuse_ms: Some(refuse_ms) }))
        }
        Type::Revive => ask(Up::Revive(wishes(call.revive.as_ref().map(|it| &it.roles)))),
        Type::Suppress => ask(Up::Suppress(wishes(call.suppress.as_ref().map(|it| &it.roles)))),
        Type::Kill => {
            let kill = call.kill.clone().unwrap_or_default();
            let grace = kill.kill_policy.and_then(|policy| policy.grace_period);
            ask(Up::Kill(v1::Kill {
                task_id: kill.task_id.value,
                agent_id: kill.agent_id.map(|id| id.value).unwrap_or_default(),
                grace_ms: grace
                    .map(|grace| u64::try_from(grace.nanoseconds).unwrap_or(0).div_ceil(1_000_000)),
            }))
        }
        Type::Acknowledge => {
            let acknowledge = call.acknowledge.clone().unwrap_or_default();
            let (task_id, uuid) = (acknowledge.task_id.value, acknowledge.uuid);
            ask(Up::Acknowledge(v1::Acknowledge { task_id, uuid }))
        }
        Type::Reconcile => {
            let reconcile = call.reconcile.clone().unwrap_or_default();
            let task = |task: call::reconcile::Task| v1::reconcile::Task {
                task_id: task.task_id.value,
                agent_id: task.agent_id.map(|id| id.value).unwrap_or_default(),
            };
            ask(Up::Reconcile(v1::Reconcile { tasks: reconcile.tasks.into_iter().map(task).collect() }))
        }
        Type::Request => {
            let request = call.request.clone().unwrap_or_default();
            let need = |request: mesos::Request| v1::request::Need { resources: request.resources };
            ask(Up::Request(v1::Request { needs: request.requests.into_iter().map(need).collect() }))
        }
        Type::Message => {
            let message = call.message.clone().unwrap_or_default();
            ask(Up::Message(v1::ExecutorMessage {
                framework_id: String::new(),
                agent_id: message.agent_id.value,
                executor_id: message.executor_id.value,
                data: message.data,
            }))
        }
        Type::ReconcileOperations => {
            let reconcile = call.reconcile_operations.clone().unwrap_or_default();
            let operation = |it: call::reconcile_operations::Operation| v1::reconcile_operations::Operation {
                operation_id: it.operation_id.value,
                agent_id: it.agent_id.map(|id| id.value).unwrap_or_default(),
                resource_provider_id: it.resource_provider_id.map(|id| id.value).unwrap_or_default(),
            };
            let operations = reconcile.operations.into_iter().map(operation).collect();
            ask(Up::ReconcileOperations(v1::ReconcileOperations { operations }))
        }
        Type::AcknowledgeOperationStatus => {
            let it = call.acknowledge_operation_status.clone().unwrap_or_default();
            let (operation_id, uuid) = (it.operation_id.value, it.uuid);
            ask(Up::AcknowledgeOperation(v1::AcknowledgeOperation { operation_id, uuid }))
        }
        Type::AcceptInverseOffers => {
            let it = call.accept_inverse_offers.clone().unwrap_or_default();
            answer_inverse(&it.inverse_offer_ids, it.filters.as_ref(), true)
        }
        Type::DeclineInverseOffers => {
            let it = call.decline_inverse_offers.clone().unwrap_or_default();
            answer_inverse(&it.inverse_offer_ids, it.filters.as_ref(), false)
        }
        Type::Shutdown => {
            let shutdown = call.shutdown.clone().unwrap_or_default();
            ask(Up::Shutdown(v1::ShutdownExecutor {
                agent_id: shutdown.agent_id.value,
                executor_id: shutdown.executor_id.value,
            }))
        }
        Type::UpdateFramework => {
            let update = call.update_framework.clone().unwrap_or_default();
            ask(Up::Update(v1::UpdateFramework {
                framework_info: framework_info(bytes, UPDATE_FRAMEWORK),
                suppressed_roles: update.suppressed_roles,
                offer_constraints: offer_constraints(bytes, UPDATE_FRAMEWORK),
            }))
        }
    }
}

/// The numbers of the calls that describe a framework.
const SUBSCRIBE: u32 = 3;
const UPDATE_FRAMEWORK: u32 = 19;

/// The description as it was sent. A field that occurs twice merges, which for bytes is to append.
fn framework_info(bytes: &Bytes, call: u32) -> Bytes {
    const FRAMEWORK_INFO: u32 = 1;
    wire_parts(bytes, &[call, FRAMEWORK_INFO]).concat().into()
}

/// What is said of offers, likewise.
fn offer_constraints(bytes: &Bytes, call: u32) -> Bytes {
    const OFFER_CONSTRAINTS: u32 = 3;
    wire_parts(bytes, &[call, OFFER_CONSTRAINTS]).concat().into()
}

fn subscribe(call: &scheduler::Call, bytes: &Bytes) -> v1::Subscribe {
    let subscribe = call.subscribe.clone().unwrap_or_default();
    v1::Subscribe {
        framework_id: subscribe.framework_info.id.map(|id| id.value).unwrap_or_default(),
        framework_info: framework_info(bytes, SUBSCRIBE),
        suppressed_roles: subscribe.suppressed_roles,
        token: Bytes::new(),
        stream: true,
        offer_constraints: offer_constraints(bytes, SUBSCRIBE),
    }
}

/// Launches alone are asked for by their tasks; what is more goes as it was sent.
fn accept(call: &scheduler::Call, bytes: &Bytes, shown: Shown) -> Asked {
    const ACCEPT: u32 = 4;
    const OPERATIONS: u32 = 2;
    const LAUNCH: u32 = 2;
    const TASK_INFOS: u32 = 1;
    use mesos::offer::operation::Type;
    let accept = call.accept.clone().unwrap_or_default();
    let offer_ids = offer_ids(&accept.offer_ids);
    if offer_ids.is_empty() {
        return Asked::Told(accept.operations.iter().flat_map(|it| void(it, shown)).collect());
    }
    let known = |operation: &mesos::offer::Operation| operation.r#type() != Type::Unknown;
    let plain = |it: &mesos::offer::Operation| it.r#type() == Type::Launch && it.id.is_none();
    let parts = wire_parts(bytes, &[ACCEPT, OPERATIONS]);
    let all = accept.operations.iter().zip(parts).filter(|(operation, _)| known(operation));
    let (mut task_infos, mut operations) = (Vec::new(), Vec::new());
    if accept.operations.iter().filter(|it| known(it)).all(plain) {
        task_infos = all.flat_map(|(_, bytes)| wire_parts(&bytes, &[LAUNCH, TASK_INFOS])).collect();
    } else {
        operations = all.map(|(_, bytes)| bytes).collect();
    }
    let refuse_ms = Some(refuse_ms(accept.filters.as_ref()));
    let accept = v1::Accept { offer_ids, task_infos, refuse_ms, operations };
    Asked::Call(Call { frame: Some(Up::Accept(accept)), told: Vec::new() })
}

/// What is told of an operation that names no offers.
fn void(operation: &mesos::offer::Operation, shown: Shown) -> Vec<Event> {
    use mesos::task_status::Reason;
    let why = "No offers specified";
    let state = shown.state(mesos::TaskState::TaskDropped);
    let alone = operation.launch.iter().flat_map(|launch| &launch.task_infos);
    let grouped = operation.launch_group.iter().flat_map(|group| &group.task_group.tasks);
    let tasks: Vec<_> = alone.chain(grouped).collect();
    if tasks.is_empty() {
        return operation.id.clone().map(|id| operation_error(id, why.into())).into_iter().collect();
    }
    tasks.into_iter().map(|task| refused(task, state, Reason::InvalidOffers, why)).collect()
}

/// An update of the master's own: nothing to acknowledge.
fn refused(
    task: &mesos::TaskInfo,
    state: mesos::TaskState,
    reason: mesos::task_status::Reason,
    why: &str,
) -> Event {
    let status = mesos::TaskStatus {
        task_id: task.task_id.clone(),
        state: state.into(),
        message: Some(why.into()),
        source: Some(mesos::task_status::Source::Master.into()),
        reason: Some(reason.into()),
        agent_id: Some(task.agent_id.clone()),
        ..Default::default()
    };
    Event { update: Some(event::Update { status }), ..of(event::Type::Update) }
}

fn operation_error(id: mesos::OperationId, why: String) -> Event {
    operation_status(mesos::OperationStatus {
        operation_id: Some(id),
        state: mesos::OperationState::OperationError.into(),
        message: Some(why),
        ..Default::default()
    })
}

fn operation_status(status: mesos::OperationStatus) -> Event {
    Event {
        update_operation_status: Some(event::UpdateOperationStatus { status }),
        ..of(event::Type::UpdateOperationStatus)
    }
}

fn offer_ids(ids: &[mesos::OfferId]) -> Vec<String> {
    ids.iter().map(|id| id.value.clone()).collect()
}

fn answer_inverse(ids: &[mesos::OfferId], filters: Option<&mesos::Filters>, accepted: bool) -> Asked {
    let offer_ids = offer_ids(ids);
    if offer_ids.is_empty() {
        return Asked::Told(Vec::new());
    }
    let answer = v1::AnswerInverse { offer_ids, accepted, refuse_ms: Some(refuse_ms(filters)) };
    Asked::Call(Call { frame: Some(Up::AnswerInverse(answer)), told: Vec::new() })
}

/// For how long, as Mesos reads it.
fn refuse_ms(filters: Option<&mesos::Filters>) -> u64 {
    let seconds = filters.map_or(REFUSE_SECONDS, mesos::Filters::refuse_seconds);
    let seconds = if seconds >= 0.0 { seconds.min(REFUSE_SECONDS_MAX) } else { REFUSE_SECONDS };
    (seconds * 1000.0).round() as u64
}

fn wishes(roles: Option<&Vec<String>>) -> v1::Roles {
    v1::Roles { roles: roles.cloned().unwrap_or_default() }
}

/// How a framework is shown what it is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shown {
    /// MULTI_ROLE: with the role that they are offered to.
    pub multi_role: bool,
    /// RESERVATION_REFINEMENT: without the role that they are reserved for.
    pub refined: bool,
    /// PARTITION_AWARE: with the states that tell apart why a task is lost.
    pub partition_aware: bool,
}

impl Shown {
    /// A state as this framework is told it.
    fn state(self, state: mesos::TaskState) -> mesos::TaskState {
        use mesos::TaskState::*;
        match state {
            TaskDropped | TaskUnreachable | TaskGone | TaskGoneByOperator | TaskUnknown
                if !self.partition_aware =>
            {
                TaskLost
            }
            state => state,
        }
    }

    /// Resources as this framework is told them, for a role.
    fn resources(self, all: &Resources, role: Option<&Role>) -> Vec<mesos::Resource> {
        let form = if self.refined { Form::Refined } else { Form::Plain };
        let allocation = self.allocation(role);
        let mut list = wire_resources_in(all, form);
        list.iter_mut().for_each(|resource| resource.allocation_info.clone_from(&allocation));
        list
    }

    fn allocation(self, role: Option<&Role>) -> Option<mesos::resource::AllocationInfo> {
        let role = role.filter(|_| self.multi_role)?;
        Some(mesos::resource::AllocationInfo { role: Some(role.to_string()) })
    }

    /// As the framework of this description asks for.
    pub fn to(info: &mesos::FrameworkInfo) -> Self {
        use mesos::framework_info::capability::Type;
        let has = |kind: Type| info.capabilities.iter().any(|it| it.r#type == Some(kind.into()));
        Self {
            multi_role: has(Type::MultiRole),
            refined: has(Type::ReservationRefinement),
            partition_aware: has(Type::PartitionAware),
        }
    }
}

/// Writes an event; none for what the Mesos API has no word for.
pub fn event(
    event: &SchedulerEvent,
    master: &mesos::MasterInfo,
    shown: Shown,
    now: WallTime,
) -> Option<Event> {
    Some(match event {
        SchedulerEvent::Subscribed { framework_id, heartbeat_ms, .. } => Event {
            subscribed: Some(event::Subscribed {
                framework_id: mesos::FrameworkId { value: framework_id.to_string() },
                heartbeat_interval_seconds: Some(*heartbeat_ms as f64 / 1000.0),
                master_info: Some(master.clone()),
            }),
            ..of(event::Type::Subscribed)
        },
        SchedulerEvent::Offers(offers) => Event {
            offers: Some(event::Offers { offers: offers.iter().map(|it| offer(it, shown)).collect() }),
            ..of(event::Type::Offers)
        },
        SchedulerEvent::Rescind(offer_id) => Event {
            rescind: Some(event::Rescind { offer_id: mesos::OfferId { value: offer_id.to_string() } }),
            ..of(event::Type::Rescind)
        },
        SchedulerEvent::InverseOffers(offers) => Event {
            inverse_offers: Some(event::InverseOffers {
                inverse_offers: offers.iter().map(inverse_offer).collect(),
            }),
            ..of(event::Type::InverseOffers)
        },
        SchedulerEvent::RescindInverse(offer_id) => Event {
            rescind_inverse_offer: Some(event::RescindInverseOffer {
                inverse_offer_id: mesos::OfferId { value: offer_id.to_string() },
            }),
            ..of(event::Type::RescindInverseOffer)
        },
        SchedulerEvent::Update { task_id, agent_id, status, uuid } => {
            let mut status = status.clone();
            if status.wall == WallTime(0) {
                status.wall = now; // a word of the master's own
            }
            let status = crate::mesos_status(task_id, agent_id.as_ref(), &status, uuid.as_ref()).ok()?;
            Event { update: Some(event::Update { status }), ..of(event::Type::Update) }
        }
        SchedulerEvent::Operation(status) => {
            let write = |all: &Resources| shown.resources(all, status.role.as_ref());
            operation_status(crate::operation::mesos_operation_status(status, write))
        }
        SchedulerEvent::Message { agent_id, executor_id, data } => Event {
            message: Some(event::Message {
                agent_id: mesos::AgentId { value: agent_id.to_string() },
                executor_id: mesos::ExecutorId { value: executor_id.to_string() },
                data: data.clone().into(),
            }),
            ..of(event::Type::Message)
        },
        SchedulerEvent::AgentLost(agent_id) => Event {
            failure: Some(event::Failure {
                agent_id: Some(mesos::AgentId { value: agent_id.to_string() }),
                ..Default::default()
            }),
            ..of(event::Type::Failure)
        },
        SchedulerEvent::ExecutorLost { agent_id, executor_id, status } => Event {
            failure: Some(event::Failure {
                agent_id: Some(mesos::AgentId { value: agent_id.to_string() }),
                executor_id: Some(mesos::ExecutorId { value: executor_id.to_string() }),
                status: Some(*status),
            }),
            ..of(event::Type::Failure)
        },
        SchedulerEvent::Error(why) => error(why),
        SchedulerEvent::Heartbeat => of(event::Type::Heartbeat),
        SchedulerEvent::Outcome { .. } => return None,
    })
}

fn of(kind: event::Type) -> Event {
    Event { r#type: Some(kind.into()), ..Default::default() }
}

/// An event that says why the stream ends.
pub fn error(why: &str) -> Event {
    Event {
        r#type: Some(event::Type::Error.into()),
        error: Some(event::Error { message: why.into() }),
        ..Default::default()
    }
}

/// Writes an offer.
pub fn offer(it: &OfferWithAgent, shown: Shown) -> mesos::Offer {
    let OfferWithAgent { offer, hostname, port, agent: offer_agent, unavailability, executor_ids } = it;
    let agent = mesos::AgentInfo::decode(&**offer_agent).unwrap_or_default();
    let resources = shown.resources(&offer.resources, Some(&offer.role));
    let ip = crate::agent::ip(offer_agent, hostname).map(|ip| ip.to_string());
    mesos::Offer {
        id: mesos::OfferId { value: offer.offer_id.to_string() },
        framework_id: mesos::FrameworkId { value: offer.framework_id.to_string() },
        agent_id: mesos::AgentId { value: offer.agent_id.to_string() },
        hostname: hostname.to_string(),
        url: Some(url(hostname, ip, *port)),
        unavailability: unavailability.map(crate::maintenance::wire_unavailability),
        domain: agent.domain,
        resources,
        attributes: agent.attributes,
        allocation_info: shown.allocation(Some(&offer.role)),
        executor_ids: executor_ids.iter().map(|id| mesos::ExecutorId { value: id.to_string() }).collect(),
    }
}

/// Where an agent listens.
fn url(hostname: &str, ip: Option<String>, port: u16) -> mesos::Url {
    mesos::Url {
        scheme: "http".into(),
        address: mesos::Address { hostname: Some(hostname.into()), ip, port: i32::from(port) },
        path: Some("/slave(1)".into()),
        ..Default::default()
    }
}

/// Writes an inverse offer. It names no resources, which means all that the framework has there.
pub fn inverse_offer(it: &InverseOffer) -> mesos::InverseOffer {
    mesos::InverseOffer {
        id: mesos::OfferId { value: it.offer_id.to_string() },
        url: Some(url(&it.hostname, it.ip.map(|ip| ip.to_string()), it.port)),
        framework_id: mesos::FrameworkId { value: it.framework_id.to_string() },
        agent_id: Some(mesos::AgentId { value: it.agent_id.to_string() }),
        unavailability: crate::maintenance::wire_unavailability(it.unavailability),
        resources: Vec::new(),
    }
}

/// The table of events, for records that are there as bytes.
pub fn event_shape() -> &'static crate::json::Shape {
    Event::shape()
}
