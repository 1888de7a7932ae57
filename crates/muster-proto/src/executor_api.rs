//! The Mesos v1 executor API: an executor's calls as ours, what it is told as its events.
//!
//! Descriptions and statuses stay the bytes that they came as, with fields that nobody here knows: what is added to
//! them is put behind, as protobuf allows.

use crate::error::short;
use crate::json::{Mesos, wire_parts};
use crate::task::{reason, task_state};
use crate::{WireError, error::id, limits, mesos};
use bytes::Bytes;
use mesos::executor::{Call, Event, call, event};
use muster_model::task::{MESSAGE_BYTES_MAX, STATUS_BYTES_MAX};
use muster_model::{
    AgentId, ExecutorCall, ExecutorEvent, ExecutorName, ExecutorUpdate, LaunchNumber, Sealed, Source, Status,
    Uuid, WallTime,
};
use prost::Message;
use std::sync::Arc;

/// The longest `data` of a status, in bytes.
const DATA_BYTES_MAX: usize = 64 << 10;

/// What an executor says over the Mesos API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A call of ours.
    Call(ExecutorCall),
    /// It lives; nothing else.
    Heartbeat,
    /// A type of call that nobody knows.
    Unknown,
}

/// Checks what Mesos checks before anything else: that the parts are there which the call's type needs, and agree.
///
/// # Errors
/// In Mesos' words, what is missing or does not agree.
pub fn validate(call: &Call) -> Result<call::Type, String> {
    let expecting = |what: &str| Err(format!("Expecting '{what}' to be present"));
    let Some(kind) = call.r#type.and_then(|kind| call::Type::try_from(kind).ok()) else {
        return expecting("type");
    };
    match kind {
        call::Type::Subscribe if call.subscribe.is_none() => expecting("subscribe"),
        call::Type::Update => match &call.update {
            None => expecting("update"),
            Some(update) => validate_status(call, &update.status).map(|()| kind),
        },
        call::Type::Message if call.message.is_none() => expecting("message"),
        _ => Ok(kind),
    }
}

fn validate_status(call: &Call, status: &mesos::TaskStatus) -> Result<(), String> {
    let Some(uuid) = &status.uuid else { return Err("Expecting 'uuid' to be present".into()) };
    if uuid.len() != 16 {
        return Err("Not a valid UUID".into());
    }
    let (executor, framework) = (&call.executor_id.value, &call.framework_id.value);
    if let Some(named) = &status.executor_id
        && named != &call.executor_id
    {
        return Err(format!(
            "ExecutorID in Call: {executor} does not match ExecutorID in TaskStatus: {}",
            named.value
        ));
    }
    let of = format!("from executor {executor} of framework {framework}");
    if status.source != Some(mesos::task_status::Source::Executor.into()) {
        return Err(format!("Received Call {of} with invalid source, expecting 'SOURCE_EXECUTOR'"));
    }
    if status.state == i32::from(mesos::TaskState::TaskStaging) {
        return Err(format!("Received TASK_STAGING {of} which is not allowed"));
    }
    match &status.check_status {
        Some(check) => validate_check(check),
        None => Ok(()),
    }
}

fn validate_check(check: &mesos::CheckStatusInfo) -> Result<(), String> {
    use mesos::check_info::Type;
    let kind = check.r#type.and_then(|kind| Type::try_from(kind).ok());
    let missing = match kind {
        None => return Err("CheckStatusInfo must specify 'type'".into()),
        Some(Type::Unknown) => return Err("'UNKNOWN' is not a valid check's status type".into()),
        Some(Type::Command) => check.command.is_none().then_some("command"),
        Some(Type::Http) => check.http.is_none().then_some("http"),
        Some(Type::Tcp) => check.tcp.is_none().then_some("tcp"),
    };
    match missing {
        Some(field) => {
            Err(format!("Expecting '{field}' to be set for {} check's status", field.to_uppercase()))
        }
        None => Ok(()),
    }
}

/// Who an executor says it is.
///
/// # Errors
/// An id that is none, which no executor here has.
pub fn name(call: &Call) -> Result<ExecutorName, WireError> {
    Ok(ExecutorName {
        framework_id: id!(FrameworkId, "framework_id", call.framework_id.value)?,
        executor_id: id!(ExecutorId, "executor_id", call.executor_id.value)?,
    })
}

/// Reads a call that was checked; `bytes` are what it was read of, so that statuses stay as they were sent.
///
/// # Errors
/// What is too long, or is no id.
pub fn said(call: &Call, bytes: &Bytes) -> Result<Said, WireError> {
    const SUBSCRIBE: u32 = 4;
    const UNACKNOWLEDGED_UPDATES: u32 = 2;
    const UPDATE: u32 = 5;
    const STATUS: u32 = 1;
    let Ok(kind) = validate(call) else { return Ok(Said::Unknown) };
    Ok(match kind {
        call::Type::Unknown => Said::Unknown,
        call::Type::Heartbeat => Said::Heartbeat,
        call::Type::Subscribe => {
            let listed = call.subscribe.iter().flat_map(|subscribe| &subscribe.unacknowledged_tasks);
            let tasks = listed.map(|task| id!(TaskId, "unacknowledged_tasks.task_id", task.task_id.value));
            let statuses = wire_parts(bytes, &[SUBSCRIBE, UNACKNOWLEDGED_UPDATES, STATUS]);
            Said::Call(ExecutorCall::Subscribe {
                tasks: tasks.collect::<Result<_, _>>()?,
                updates: statuses.iter().map(|status| update(status)).collect::<Result<_, _>>()?,
            })
        }
        call::Type::Update => {
            Said::Call(ExecutorCall::Update(update(&wire_parts(bytes, &[UPDATE, STATUS]).concat())?))
        }
        call::Type::Message => {
            let data = call.message.as_ref().map(|message| message.data.to_vec()).unwrap_or_default();
            short("message.data", &data, limits::MESSAGE_BYTES_MAX)?;
            Said::Call(ExecutorCall::Message(data))
        }
    })
}

/// Reads a status, and keeps the whole of it sealed.
fn update(bytes: &[u8]) -> Result<ExecutorUpdate, WireError> {
    short("status", bytes, STATUS_BYTES_MAX)?;
    let status = mesos::TaskStatus::decode(bytes)
        .map_err(|error| WireError::new("status", format!("is not a mesos.v1.TaskStatus: {error}")))?;
    short("status.data", status.data(), DATA_BYTES_MAX)?;
    let uuid =
        <[u8; 16]>::try_from(status.uuid()).map_err(|_| WireError::new("status.uuid", "has no 16 bytes"))?;
    let message: Arc<str> = match status.message() {
        long if long.len() > MESSAGE_BYTES_MAX => long[..long.floor_char_boundary(MESSAGE_BYTES_MAX)].into(),
        message => message.into(),
    };
    Ok(ExecutorUpdate {
        task_id: id!(TaskId, "status.task_id", status.task_id.value)?,
        uuid: Uuid(uuid),
        status: Status {
            state: task_state(status.state)?,
            source: Source::Executor,
            reason: status.reason.map(reason).transpose()?.flatten(),
            message,
            wall: WallTime((status.timestamp().max(0.0) * 1000.0) as u64),
            sealed: Sealed::new(bytes),
        },
    })
}

/// The container that a run is shown as: a uuid in form, and the same after each restart.
pub fn container_id(number: LaunchNumber) -> String {
    text(number, 0)
}

fn text(number: LaunchNumber, seq: u32) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(36);
    for (at, byte) in Uuid::of(number, seq).0.into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push(char::from(HEX[usize::from(byte >> 4)]));
        text.push(char::from(HEX[usize::from(byte & 15)]));
    }
    text
}

/// A status of a task in this run, with the container that it runs in, unless it names one itself.
pub fn with_container(status: &Sealed, number: LaunchNumber) -> Sealed {
    if has(status, CONTAINER_STATUS) {
        return status.clone();
    }
    let mut bytes = status.to_vec();
    bytes.extend(part(CONTAINER_STATUS, &container_status(number).encode_to_vec()));
    Sealed::new(bytes)
}

/// What is told of the container of a run.
pub fn container_status(number: LaunchNumber) -> mesos::ContainerStatus {
    let container_id = mesos::ContainerId { value: container_id(number), ..Default::default() };
    mesos::ContainerStatus { container_id: Some(container_id), ..Default::default() }
}

/// The container of a task that its agent runs within an executor's.
pub fn nested_container(number: LaunchNumber, launch: LaunchNumber) -> mesos::ContainerId {
    let parent = mesos::ContainerId { value: container_id(number), ..Default::default() };
    mesos::ContainerId { value: text(launch, NESTED), parent: Some(Box::new(parent)) }
}

/// What is told of it.
pub fn nested_container_status(number: LaunchNumber, launch: LaunchNumber) -> mesos::ContainerStatus {
    mesos::ContainerStatus { container_id: Some(nested_container(number, launch)), ..Default::default() }
}

/// Tells the container of a task from that of a run that is named by the same launch.
const NESTED: u32 = u32::MAX;

const CONTAINER_STATUS: u32 = 13;

/// Writes an event as protobuf's bytes. `agent` is the agent's encoded description.
pub fn event(event: &ExecutorEvent, agent: &[u8]) -> Vec<u8> {
    let of = |kind: event::Type| Event { r#type: Some(kind.into()), ..Default::default() };
    let task_id = |id: &muster_model::TaskId| mesos::TaskId { value: id.to_string() };
    match event {
        ExecutorEvent::Subscribed { number, executor, framework_id, framework, agent_id } => {
            subscribed(*number, executor, framework_id, framework, agent_id, agent)
        }
        ExecutorEvent::Launch { task } => {
            const LAUNCH: u32 = 4;
            const TASK: u32 = 1;
            let mut bytes = of(event::Type::Launch).encode_to_vec();
            bytes.extend(part(LAUNCH, &part(TASK, task)));
            bytes
        }
        ExecutorEvent::LaunchGroup { tasks } => {
            const LAUNCH_GROUP: u32 = 8;
            const TASK_GROUP: u32 = 1;
            const TASKS: u32 = 1;
            let tasks: Vec<u8> = tasks.iter().flat_map(|task| part(TASKS, task)).collect();
            let mut bytes = of(event::Type::LaunchGroup).encode_to_vec();
            bytes.extend(part(LAUNCH_GROUP, &part(TASK_GROUP, &tasks)));
            bytes
        }
        ExecutorEvent::Kill { task_id: id, grace_ms } => {
            let grace = grace_ms.map(|ms| mesos::DurationInfo {
                nanoseconds: i64::try_from(ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX),
            });
            let kill_policy = grace.map(|grace| mesos::KillPolicy { grace_period: Some(grace) });
            let kill = event::Kill { task_id: task_id(id), kill_policy };
            Event { kill: Some(kill), ..of(event::Type::Kill) }.encode_to_vec()
        }
        ExecutorEvent::Acknowledged { task_id: id, uuid } => {
            let uuid = uuid.0.to_vec().into();
            let acknowledged = event::Acknowledged { task_id: task_id(id), uuid };
            Event { acknowledged: Some(acknowledged), ..of(event::Type::Acknowledged) }.encode_to_vec()
        }
        ExecutorEvent::Message(data) => {
            let message = event::Message { data: data.clone().into() };
            Event { message: Some(message), ..of(event::Type::Message) }.encode_to_vec()
        }
        ExecutorEvent::Shutdown => of(event::Type::Shutdown).encode_to_vec(),
    }
}

/// A sign of life, which some executors take for an error: rarely sent.
pub fn heartbeat() -> Vec<u8> {
    Event { r#type: Some(event::Type::Heartbeat.into()), ..Default::default() }.encode_to_vec()
}

/// An event's table, to write it with.
pub fn event_shape() -> &'static crate::json::Shape {
    Event::shape()
}

fn subscribed(
    number: LaunchNumber,
    executor: &[u8],
    framework_id: &muster_model::FrameworkId,
    framework: &[u8],
    agent_id: &AgentId,
    agent: &[u8],
) -> Vec<u8> {
    const SUBSCRIBED: u32 = 2;
    const EXECUTOR_INFO: u32 = 1;
    const EXECUTOR_FRAMEWORK_ID: u32 = 8;
    const FRAMEWORK_INFO: u32 = 2;
    const FRAMEWORK_INFO_ID: u32 = 3;
    const AGENT_INFO: u32 = 3;
    const AGENT_INFO_ID: u32 = 6;
    const CONTAINER_ID: u32 = 4;
    let with = |info: &[u8], number: u32, id: &str| {
        let id = mesos::FrameworkId { value: id.into() }.encode_to_vec();
        if has(info, number) { info.to_vec() } else { [info.to_vec(), part(number, &id)].concat() }
    };
    let container = mesos::ContainerId { value: container_id(number), ..Default::default() };
    let inner = [
        part(EXECUTOR_INFO, &with(executor, EXECUTOR_FRAMEWORK_ID, framework_id.as_str())),
        part(FRAMEWORK_INFO, &with(framework, FRAMEWORK_INFO_ID, framework_id.as_str())),
        part(AGENT_INFO, &with(agent, AGENT_INFO_ID, agent_id.as_str())),
        part(CONTAINER_ID, &container.encode_to_vec()),
    ]
    .concat();
    let mut bytes =
        Event { r#type: Some(event::Type::Subscribed.into()), ..Default::default() }.encode_to_vec();
    bytes.extend(part(SUBSCRIBED, &inner));
    bytes
}

/// Whether a message has a part of this number.
fn has(bytes: &[u8], number: u32) -> bool {
    !wire_parts(&Bytes::copy_from_slice(bytes), &[number]).is_empty()
}

/// A part of a message as a field of this number.
fn part(number: u32, bytes: &[u8]) -> Vec<u8> {
    use prost::encoding::{WireType, encode_key, encode_varint};
    let mut field = Vec::with_capacity(bytes.len() + 8);
    encode_key(number, WireType::LengthDelimited, &mut field);
    encode_varint(bytes.len() as u64, &mut field);
    field.extend_from_slice(bytes);
    field
}
