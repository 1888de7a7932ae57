//! Schedulers: their stream up and down.

use crate::agent::{fence, wire_fence};
use crate::error::{Within, bounded, id, id_or_none, required, short};
use crate::framework::roles;
use crate::offer::{inverse_offers, offers, wire_inverse_offer, wire_offer};
use crate::offer_bytes::offers_frame;
use crate::operation::{
    asked_operation, operation_status, operations, wire_asked_operation, wire_operation,
    wire_operation_status,
};
use crate::task::{
    Place, asked_task, launch_number, reason, status, task_state, token, uuid, wire_launch_number,
    wire_reason, wire_state, wire_status, wire_token,
};
use crate::{WireError, framework_info, limits, resources, role_wants, v1, wire_resources};
use bytes::Bytes;
use muster_model::event::CallOutcome;
use muster_model::{
    AcceptOutcome, BadTask, Fence, OfferId, OperationId, Reason, RefusedTask, Role, SchedulerCall,
    SchedulerEvent, Session, TaskId, TaskOutcome, task::MESSAGE_BYTES_MAX,
};
use prost::Message;
use std::sync::Arc;
use v1::outcome::Outcome as WireOutcome;
use v1::scheduler_down_frame::Event as Down;
use v1::scheduler_frame::Call as Up;

/// How long declined or unused resources are not offered again when the caller does not say, in ms.
pub const REFUSE_MS_DEFAULT: u64 = 5_000;

/// What comes down a scheduler's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchedulerDown {
    /// Who leads now; answer with a subscribe.
    Leader {
        /// Its name.
        name: String,
        /// Its API, `host:port`.
        address: String,
    },
    /// This master lost its leader: dial another one; why.
    Redial(String),
    /// An event of the leader.
    Event(SchedulerEvent),
}

/// Reads a frame of a scheduler: the call's number and the call.
pub fn scheduler_call(frame: v1::SchedulerFrame) -> Result<(u64, SchedulerCall), WireError> {
    let call = match required("call", frame.call)? {
        Up::Subscribe(wire) => SchedulerCall::Subscribe {
            framework_id: id_or_none!(FrameworkId, "subscribe.framework_id", wire.framework_id)?,
            info: framework_info(&wire.framework_info).within("subscribe")?,
            wants: Box::new(role_wants(&wire.framework_info, &wire.offer_constraints).within("subscribe")?),
            token: token("subscribe.token", &wire.token)?,
            stream: wire.stream,
            suppressed_roles: roles("subscribe.suppressed_roles", &wire.suppressed_roles)?,
        },
        Up::Accept(wire) => accept(wire).within("accept")?,
        Up::Decline(wire) => SchedulerCall::Decline {
            offer_ids: offer_ids(&wire.offer_ids).within("decline")?,
            refuse_ms: wire.refuse_ms.unwrap_or(REFUSE_MS_DEFAULT),
        },
        Up::Revive(wire) => SchedulerCall::Revive { roles: roles("revive.roles", &wire.roles)? },
        Up::Suppress(wire) => SchedulerCall::Suppress { roles: roles("suppress.roles", &wire.roles)? },
        Up::Kill(wire) => SchedulerCall::Kill {
            task_id: id!(TaskId, "kill.task_id", wire.task_id)?,
            agent_id: id_or_none!(AgentId, "kill.agent_id", wire.agent_id)?,
            grace_ms: wire.grace_ms,
        },
        Up::Acknowledge(wire) => SchedulerCall::Acknowledge {
            task_id: id!(TaskId, "acknowledge.task_id", wire.task_id)?,
            uuid: uuid(&wire.uuid).within("acknowledge")?,
        },
        Up::Reconcile(wire) => {
            bounded("reconcile.tasks", &wire.tasks, limits::RECONCILE_TASKS_MAX)?;
            let read = |task: &v1::reconcile::Task| {
                let task_id = id!(TaskId, "reconcile.tasks.task_id", task.task_id)?;
                Ok((task_id, id_or_none!(AgentId, "reconcile.tasks.agent_id", task.agent_id)?))
            };
            SchedulerCall::Reconcile { tasks: wire.tasks.iter().map(read).collect::<Result<_, WireError>>()? }
        }
        Up::AcknowledgeOperation(wire) => SchedulerCall::AcknowledgeOperation {
            operation_id: id!(OperationId, "acknowledge_operation.operation_id", wire.operation_id)?,
            uuid: uuid(&wire.uuid).within("acknowledge_operation")?,
        },
        Up::ReconcileOperations(wire) => {
            let list = &wire.operations;
            bounded("reconcile_operations.operations", list, limits::RECONCILE_OPERATIONS_MAX)?;
            let operations = list.iter().map(asked_operation).collect::<Result<_, _>>();
            SchedulerCall::ReconcileOperations { operations: operations.within("reconcile_operations")? }
        }
        Up::Request(wire) => {
            bounded("request.needs", &wire.needs, limits::NEEDS_MAX)?;
            let needs = wire.needs.iter().map(|need| resources(&need.resources)).collect::<Result<_, _>>();
            SchedulerCall::Request { needs: needs.within("request.needs")? }
        }
        Up::Message(wire) => {
            short("message.data", &wire.data, limits::MESSAGE_BYTES_MAX)?;
            SchedulerCall::Message {
                agent_id: id!(AgentId, "message.agent_id", wire.agent_id)?,
                executor_id: id!(ExecutorId, "message.executor_id", wire.executor_id)?,
                data: wire.data.to_vec(),
            }
        }
        Up::Refused(wire) => refused(wire).within("refused")?,
        Up::Shutdown(wire) => SchedulerCall::Shutdown {
            agent_id: id!(AgentId, "shutdown.agent_id", wire.agent_id)?,
            executor_id: id!(ExecutorId, "shutdown.executor_id", wire.executor_id)?,
        },
        Up::AnswerInverse(wire) => SchedulerCall::AnswerInverse {
            offer_ids: offer_ids(&wire.offer_ids).within("answer_inverse")?,
            accepted: wire.accepted,
            refuse_ms: wire.refuse_ms.unwrap_or(REFUSE_MS_DEFAULT),
        },
        Up::Teardown(v1::Teardown {}) => SchedulerCall::Teardown,
        Up::Update(wire) => SchedulerCall::Update {
            info: framework_info(&wire.framework_info).within("update")?,
            wants: Box::new(role_wants(&wire.framework_info, &wire.offer_constraints).within("update")?),
            suppressed_roles: roles("update.suppressed_roles", &wire.suppressed_roles)?,
        },
    };
    Ok((frame.id, call))
}

fn refused(wire: v1::Refused) -> Result<SchedulerCall, WireError> {
    bounded("tasks", &wire.tasks, limits::TASKS_PER_ACCEPT_MAX)?;
    bounded("operations", &wire.operations, limits::OPERATIONS_PER_ACCEPT_MAX)?;
    let why = |text: String| short("message", text.as_bytes(), MESSAGE_BYTES_MAX).map(|()| text.into());
    let task = |it: v1::refused::Task| {
        Ok(RefusedTask {
            task_id: id!(TaskId, "task_id", it.task_id)?,
            agent_id: id_or_none!(AgentId, "agent_id", it.agent_id)?,
            reason: reason(it.reason)?.unwrap_or(Reason::TaskUnauthorized),
            why: why(it.message)?,
        })
    };
    let operation = |it: v1::refused::Operation| {
        Ok((id!(OperationId, "operation_id", it.operation_id)?, why(it.message)?))
    };
    let tasks = wire.tasks.into_iter().map(task).collect::<Result<_, WireError>>();
    let operations = wire.operations.into_iter().map(operation).collect::<Result<_, WireError>>();
    Ok(SchedulerCall::Refused { tasks: tasks.within("tasks")?, operations: operations.within("operations")? })
}

fn accept(wire: v1::Accept) -> Result<SchedulerCall, WireError> {
    if !wire.operations.is_empty() {
        if !wire.task_infos.is_empty() {
            return Err(WireError::new("operations", "and task_infos are both set; give one"));
        }
        return Ok(SchedulerCall::Operate {
            offer_ids: offer_ids(&wire.offer_ids)?,
            operations: operations(&wire.operations)?,
            refuse_ms: wire.refuse_ms.unwrap_or(REFUSE_MS_DEFAULT),
        });
    }
    bounded("task_infos", &wire.task_infos, limits::TASKS_PER_ACCEPT_MAX)?;
    let mut tasks = Vec::with_capacity(wire.task_infos.len());
    let (mut named, mut bad) = (Vec::with_capacity(wire.task_infos.len()), Vec::new());
    for (at, bytes) in (0..).zip(&wire.task_infos) {
        match asked_task(bytes, Place::Alone).within(format_args!("task_infos[{at}]"))? {
            (_, Ok((names, spec))) => {
                named.push(names);
                tasks.push(spec);
            }
            (task_id, Err(error)) => bad.push(BadTask { at, task_id, why: error.to_string().into() }),
        }
    }
    Ok(SchedulerCall::Accept {
        offer_ids: offer_ids(&wire.offer_ids)?,
        tasks,
        named,
        bad,
        refuse_ms: wire.refuse_ms.unwrap_or(REFUSE_MS_DEFAULT),
    })
}

fn offer_ids(texts: &[String]) -> Result<Vec<OfferId>, WireError> {
    bounded("offer_ids", texts, limits::OFFERS_PER_CALL_MAX)?;
    if texts.is_empty() {
        return Err(WireError::new("offer_ids", "is empty; name the offers"));
    }
    texts.iter().map(|text| id!(OfferId, "offer_ids", text)).collect()
}

/// Writes a frame of a scheduler, for whichever leader gets it; say in `fence` for which alone it is.
pub fn scheduler_frame(id: u64, call: &SchedulerCall) -> v1::SchedulerFrame {
    let texts = |roles: &[Role]| roles.iter().map(ToString::to_string).collect();
    let ids = |ids: &[OfferId]| ids.iter().map(ToString::to_string).collect();
    let or_empty = |agent_id: &Option<muster_model::AgentId>| {
        agent_id.as_ref().map(ToString::to_string).unwrap_or_default()
    };
    let call = match call {
        SchedulerCall::Subscribe { framework_id, token, stream, info, suppressed_roles, wants } => {
            Up::Subscribe(v1::Subscribe {
                framework_id: framework_id.as_ref().map(ToString::to_string).unwrap_or_default(),
                framework_info: Bytes::copy_from_slice(&info.sealed),
                suppressed_roles: texts(suppressed_roles),
                token: wire_token(*token),
                stream: *stream,
                offer_constraints: Bytes::copy_from_slice(&wants.constraints),
            })
        }
        SchedulerCall::Accept { offer_ids, tasks, refuse_ms, .. } => Up::Accept(v1::Accept {
            offer_ids: ids(offer_ids),
            task_infos: tasks.iter().map(|task| Bytes::copy_from_slice(&task.sealed)).collect(),
            refuse_ms: Some(*refuse_ms),
            operations: Vec::new(),
        }),
        SchedulerCall::Operate { offer_ids, operations, refuse_ms } => Up::Accept(v1::Accept {
            offer_ids: ids(offer_ids),
            task_infos: Vec::new(),
            refuse_ms: Some(*refuse_ms),
            operations: operations.iter().map(|(operation, _)| wire_operation(operation)).collect(),
        }),
        SchedulerCall::AcknowledgeOperation { operation_id, uuid } => {
            Up::AcknowledgeOperation(v1::AcknowledgeOperation {
                operation_id: operation_id.to_string(),
                uuid: Bytes::copy_from_slice(&uuid.0),
            })
        }
        SchedulerCall::ReconcileOperations { operations } => {
            let operations = operations.iter().map(wire_asked_operation).collect();
            Up::ReconcileOperations(v1::ReconcileOperations { operations })
        }
        SchedulerCall::Decline { offer_ids, refuse_ms } => {
            Up::Decline(v1::Decline { offer_ids: ids(offer_ids), refuse_ms: Some(*refuse_ms) })
        }
        SchedulerCall::Revive { roles } => Up::Revive(v1::Roles { roles: texts(roles) }),
        SchedulerCall::Suppress { roles } => Up::Suppress(v1::Roles { roles: texts(roles) }),
        SchedulerCall::Kill { task_id, agent_id, grace_ms } => Up::Kill(v1::Kill {
            task_id: task_id.to_string(),
            agent_id: or_empty(agent_id),
            grace_ms: *grace_ms,
        }),
        SchedulerCall::Acknowledge { task_id, uuid } => Up::Acknowledge(v1::Acknowledge {
            task_id: task_id.to_string(),
            uuid: Bytes::copy_from_slice(&uuid.0),
        }),
        SchedulerCall::Reconcile { tasks } => {
            let write = |(task_id, agent_id): &(TaskId, _)| v1::reconcile::Task {
                task_id: task_id.to_string(),
                agent_id: or_empty(agent_id),
            };
            Up::Reconcile(v1::Reconcile { tasks: tasks.iter().map(write).collect() })
        }
        SchedulerCall::Request { needs } => {
            let write = |need| v1::request::Need { resources: wire_resources(need) };
            Up::Request(v1::Request { needs: needs.iter().map(write).collect() })
        }
        SchedulerCall::Message { agent_id, executor_id, data } => Up::Message(v1::ExecutorMessage {
            framework_id: String::new(),
            agent_id: agent_id.to_string(),
            executor_id: executor_id.to_string(),
            data: Bytes::copy_from_slice(data),
        }),
        SchedulerCall::AnswerInverse { offer_ids, accepted, refuse_ms } => {
            let (accepted, refuse_ms) = (*accepted, Some(*refuse_ms));
            Up::AnswerInverse(v1::AnswerInverse { offer_ids: ids(offer_ids), accepted, refuse_ms })
        }
        SchedulerCall::Refused { tasks, operations } => {
            let task = |it: &RefusedTask| v1::refused::Task {
                task_id: it.task_id.to_string(),
                agent_id: or_empty(&it.agent_id),
                reason: wire_reason(it.reason).into(),
                message: it.why.to_string(),
            };
            let operation = |(id, why): &(OperationId, Arc<str>)| v1::refused::Operation {
                operation_id: id.to_string(),
                message: why.to_string(),
            };
            let (tasks, operations) = (tasks.iter().map(task), operations.iter().map(operation));
            Up::Refused(v1::Refused { tasks: tasks.collect(), operations: operations.collect() })
        }
        SchedulerCall::Teardown => Up::Teardown(v1::Teardown {}),
        SchedulerCall::Shutdown { agent_id, executor_id } => Up::Shutdown(v1::ShutdownExecutor {
            agent_id: agent_id.to_string(),
            executor_id: executor_id.to_string(),
        }),
        SchedulerCall::Update { info, suppressed_roles, wants } => Up::Update(v1::UpdateFramework {
            offer_constraints: Bytes::copy_from_slice(&wants.constraints),
            framework_info: Bytes::copy_from_slice(&info.sealed),
            suppressed_roles: texts(suppressed_roles),
        }),
    };
    v1::SchedulerFrame { id, call: Some(call), fence: None }
}

/// Reads a frame to a scheduler: from which leader, what.
pub fn scheduler_event(frame: v1::SchedulerDownFrame) -> Result<(Fence, SchedulerDown), WireError> {
    let fence = fence(frame.fence)?;
    let event = match required("event", frame.event)? {
        Down::Leader(wire) => {
            return Ok((fence, SchedulerDown::Leader { name: wire.name, address: wire.address }));
        }
        Down::Redial(why) => return Ok((fence, SchedulerDown::Redial(why))),
        Down::Subscribed(wire) => SchedulerEvent::Subscribed {
            framework_id: id!(FrameworkId, "subscribed.framework_id", wire.framework_id)?,
            session: Session(wire.session),
            heartbeat_ms: wire.heartbeat_ms,
        },
        Down::Offers(wire) => SchedulerEvent::Offers(offers(wire.offers)?),
        Down::Rescind(offer_id) => SchedulerEvent::Rescind(id!(OfferId, "rescind", offer_id)?),
        Down::InverseOffers(wire) => SchedulerEvent::InverseOffers(inverse_offers(wire.offers)?),
        Down::RescindInverse(offer_id) => {
            SchedulerEvent::RescindInverse(id!(OfferId, "rescind_inverse", offer_id)?)
        }
        Down::Update(wire) => SchedulerEvent::Update {
            task_id: id!(TaskId, "update.task_id", wire.task_id)?,
            agent_id: id_or_none!(AgentId, "update.agent_id", wire.agent_id)?,
            status: status(required("update.status", wire.status)?).within("update.status")?,
            uuid: (!wire.uuid.is_empty()).then(|| uuid(&wire.uuid)).transpose().within("update")?,
        },
        Down::Operation(wire) => {
            SchedulerEvent::Operation(Box::new(operation_status(wire).within("operation")?))
        }
        Down::Message(wire) => {
            short("message.data", &wire.data, limits::MESSAGE_BYTES_MAX)?;
            SchedulerEvent::Message {
                agent_id: id!(AgentId, "message.agent_id", wire.agent_id)?,
                executor_id: id!(ExecutorId, "message.executor_id", wire.executor_id)?,
                data: wire.data.to_vec(),
            }
        }
        Down::AgentLost(agent_id) => SchedulerEvent::AgentLost(id!(AgentId, "agent_lost", agent_id)?),
        Down::ExecutorLost(wire) => SchedulerEvent::ExecutorLost {
            agent_id: id!(AgentId, "executor_lost.agent_id", wire.agent_id)?,
            executor_id: id!(ExecutorId, "executor_lost.executor_id", wire.executor_id)?,
            status: wire.status,
        },
        Down::Error(why) => SchedulerEvent::Error(why),
        Down::Heartbeat(v1::Heartbeat {}) => SchedulerEvent::Heartbeat,
        Down::Outcome(wire) => {
            SchedulerEvent::Outcome { id: wire.id, outcome: outcome(wire.outcome).within("outcome")? }
        }
    };
    Ok((fence, SchedulerDown::Event(event)))
}

fn outcome(wire: Option<WireOutcome>) -> Result<CallOutcome, WireError> {
    Ok(match required("outcome", wire)? {
        WireOutcome::Done(_) => CallOutcome::Done,
        WireOutcome::Refused(why) => CallOutcome::Refused(why),
        WireOutcome::Busy(_) => CallOutcome::Busy,
        WireOutcome::Unknown(_) => CallOutcome::Unknown,
        WireOutcome::Accepted(wire) => {
            bounded("tasks", &wire.tasks, limits::TASKS_PER_ACCEPT_MAX)?;
            let tasks = wire.tasks.into_iter().map(task_outcome).collect::<Result<_, _>>();
            CallOutcome::Accepted(AcceptOutcome { tasks: tasks.within("tasks")? })
        }
    })
}

fn task_outcome(wire: v1::accept_outcome::Task) -> Result<(TaskId, TaskOutcome), WireError> {
    let task_id = id!(TaskId, "task_id", wire.task_id)?;
    let outcome = match wire.launched {
        Some(launch) => TaskOutcome::Launched(launch_number(launch)),
        None => TaskOutcome::Refused {
            state: task_state(wire.state)?,
            reason: reason(wire.reason)?.unwrap_or(Reason::TaskInvalid),
            message: wire.message.into(),
        },
    };
    Ok((task_id, outcome))
}

/// Writes a frame to a scheduler, as bytes.
pub fn scheduler_down_bytes(fence: Fence, event: &SchedulerEvent) -> Vec<u8> {
    match event {
        SchedulerEvent::Offers(offers) => offers_frame(fence, offers),
        _ => scheduler_down_frame(fence, event).encode_to_vec(),
    }
}

/// Writes a frame to a scheduler.
pub fn scheduler_down_frame(fence: Fence, event: &SchedulerEvent) -> v1::SchedulerDownFrame {
    let event = match event {
        SchedulerEvent::Subscribed { framework_id, session, heartbeat_ms } => {
            Down::Subscribed(v1::Subscribed {
                framework_id: framework_id.to_string(),
                session: session.0,
                heartbeat_ms: *heartbeat_ms,
            })
        }
        SchedulerEvent::Offers(offers) => {
            Down::Offers(v1::Offers { offers: offers.iter().map(wire_offer).collect() })
        }
        SchedulerEvent::Rescind(offer_id) => Down::Rescind(offer_id.to_string()),
        SchedulerEvent::InverseOffers(offers) => {
            Down::InverseOffers(v1::InverseOffers { offers: offers.iter().map(wire_inverse_offer).collect() })
        }
        SchedulerEvent::RescindInverse(offer_id) => Down::RescindInverse(offer_id.to_string()),
        SchedulerEvent::Update { task_id, agent_id, status, uuid } => Down::Update(v1::Update {
            task_id: task_id.to_string(),
            agent_id: agent_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            status: Some(wire_status(status)),
            uuid: uuid.map(|uuid| Bytes::copy_from_slice(&uuid.0)).unwrap_or_default(),
        }),
        SchedulerEvent::Message { agent_id, executor_id, data } => Down::Message(v1::ExecutorMessage {
            framework_id: String::new(),
            agent_id: agent_id.to_string(),
            executor_id: executor_id.to_string(),
            data: Bytes::copy_from_slice(data),
        }),
        SchedulerEvent::Operation(status) => Down::Operation(wire_operation_status(status)),
        SchedulerEvent::AgentLost(agent_id) => Down::AgentLost(agent_id.to_string()),
        SchedulerEvent::ExecutorLost { agent_id, executor_id, status } => {
            Down::ExecutorLost(v1::ExecutorLost {
                agent_id: agent_id.to_string(),
                executor_id: executor_id.to_string(),
                status: *status,
            })
        }
        SchedulerEvent::Error(why) => Down::Error(why.clone()),
        SchedulerEvent::Heartbeat => Down::Heartbeat(v1::Heartbeat {}),
        SchedulerEvent::Outcome { id, outcome } => {
            Down::Outcome(v1::Outcome { id: *id, outcome: Some(wire_outcome(outcome)) })
        }
    };
    v1::SchedulerDownFrame { fence: Some(wire_fence(fence)), event: Some(event) }
}

fn wire_outcome(outcome: &CallOutcome) -> WireOutcome {
    match outcome {
        CallOutcome::Done => WireOutcome::Done(v1::outcome::Done {}),
        CallOutcome::Accepted(accepted) => WireOutcome::Accepted(v1::AcceptOutcome {
            tasks: accepted.tasks.iter().map(wire_task_outcome).collect(),
        }),
        CallOutcome::Refused(why) => WireOutcome::Refused(why.clone()),
        CallOutcome::Busy => WireOutcome::Busy(v1::outcome::Busy {}),
        CallOutcome::Unknown => WireOutcome::Unknown(v1::outcome::Unknown {}),
    }
}

fn wire_task_outcome((task_id, outcome): &(TaskId, TaskOutcome)) -> v1::accept_outcome::Task {
    let mut wire = v1::accept_outcome::Task { task_id: task_id.to_string(), ..Default::default() };
    match outcome {
        TaskOutcome::Launched(launch) => wire.launched = Some(wire_launch_number(*launch)),
        TaskOutcome::Refused { state, reason, message } => {
            wire.state = wire_state(*state).into();
            wire.reason = wire_reason(*reason).into();
            wire.message = message.to_string();
        }
    }
    wire
}

/// Tells a scheduler who leads.
pub fn scheduler_leader_frame(fence: Fence, name: &str, address: &str) -> v1::SchedulerDownFrame {
    let leader = v1::Leader { name: name.into(), address: address.into() };
    v1::SchedulerDownFrame { fence: Some(wire_fence(fence)), event: Some(Down::Leader(leader)) }
}

/// Tells a scheduler to dial another master. The fence is the highest this master knows.
pub fn scheduler_redial_frame(fence: Fence, why: &str) -> v1::SchedulerDownFrame {
    v1::SchedulerDownFrame { fence: Some(wire_fence(fence)), event: Some(Down::Redial(why.into())) }
}
