//! Tasks: descriptions, states, statuses, launch numbers.

use crate::check::terms;
use crate::error::{Within, bounded, id, required, short};
use crate::{WireError, limits, mesos, resources, v1};
use bytes::Bytes;
use mesos::task_status::{Reason as WireReason, Source as WireSource};
use muster_model::task::{ExecutorSpec, STATUS_BYTES_MAX};
use muster_model::{
    AgentId, FrameworkId, Index, LaunchNumber, Named, Reason, Resources, Sealed, Source, Status,
    StatusUpdate, TaskId, TaskKey, TaskSpec, TaskState, Token, Uuid, Value, WallTime,
};
use prost::Message;

/// Reads an encoded `mesos.v1.TaskInfo`; the bytes stay as they are.
pub fn task_spec(bytes: &[u8]) -> Result<TaskSpec, WireError> {
    short("task_info", bytes, limits::SEALED_BYTES_MAX)?;
    let info = mesos::TaskInfo::decode(bytes)
        .map_err(|error| WireError::new("task_info", format!("is not a mesos.v1.TaskInfo: {error}")))?;
    let task_id = id!(TaskId, "task_info.task_id", info.task_id.value)?;
    let (_, spec) =
        typed(&info, task_id.clone(), bytes, Place::Alone).within(format_args!("task {task_id}"))?;
    Ok(spec)
}

/// Whether a task is launched by itself or in a group, whose executor is told of its command, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Alone,
    InGroup,
}

/// A task of an ACCEPT: its id, and whom it names with its description, or what is wrong with it.
pub(crate) type AskedTask = (TaskId, Result<(Named, TaskSpec), WireError>);

/// Reads a task of an ACCEPT. What is no description at all is an error.
pub(crate) fn asked_task(bytes: &[u8], place: Place) -> Result<AskedTask, WireError> {
    short("task_info", bytes, limits::SEALED_BYTES_MAX)?;
    let info = mesos::TaskInfo::decode(bytes)
        .map_err(|error| WireError::new("task_info", format!("is not a mesos.v1.TaskInfo: {error}")))?;
    match id!(TaskId, "task_id", info.task_id.value) {
        Ok(task_id) => Ok((task_id.clone(), typed(&info, task_id, bytes, place))),
        // It is answered by the name it came with, as far as that may be one.
        Err(error) => {
            let text = &info.task_id.value;
            Ok((TaskId::new(&text[..text.floor_char_boundary(limits::NAME_BYTES_MAX)]), Err(error)))
        }
    }
}

fn typed(
    info: &mesos::TaskInfo,
    task_id: TaskId,
    bytes: &[u8],
    place: Place,
) -> Result<(Named, TaskSpec), WireError> {
    short("name", info.name.as_bytes(), limits::NAME_BYTES_MAX)?;
    let agent_id = id!(AgentId, "agent_id", info.agent_id.value)?;
    if let Some(labels) = &info.labels {
        bounded("labels", &labels.labels, limits::LABELS_MAX)?;
    }
    let needs = resources(&info.resources)?;
    if needs.is_empty() {
        return Err(WireError::new("resources", "is empty; a task needs some, for example cpus and mem"));
    }
    match (&info.command, &info.executor) {
        (None, None) => return Err(WireError::new("command", "is missing: give a command or an executor")),
        (Some(_), Some(_)) if place == Place::Alone => {
            return Err(WireError::new("command", "and executor are both set; give one"));
        }
        (Some(command), None) => runnable(command, info.container.is_some()).within("command")?,
        (_, Some(_)) => {}
    }
    if let Some(container) = &info.container {
        crate::container::check(container).within("container")?;
        // A group's tasks may; a task alone has nobody to share with.
        if place == Place::Alone && container.linux_info.as_ref().is_some_and(|it| !it.share_cgroups()) {
            let why = "is false, which only tasks of a group may say";
            return Err(WireError::new("container.linux_info.share_cgroups", why));
        }
    }
    let executor = info.executor.as_ref().map(|executor| executor_spec(executor, bytes)).transpose();
    if place == Place::Alone && info.executor.as_ref().is_some_and(is_built_in) {
        let why = "DEFAULT is for task groups: use LAUNCH_GROUP, or CUSTOM with a command";
        return Err(WireError::new("executor.type", why));
    }
    if place == Place::InGroup && info.executor.as_ref().is_some_and(is_built_in) {
        let command = info.command.as_ref();
        let command = command.ok_or_else(|| {
            WireError::new(
                "command",
                "is missing; the executor of type DEFAULT runs the command of each task",
            )
        })?;
        runnable(command, info.container.is_some()).within("command")?;
    }
    if let Ok(Some(executor)) = &executor
        && let Some(name) = overlap(&needs, &executor.resources)
    {
        return Err(WireError::new("resources", format!("of task and executor have the same {name}")));
    }
    let spec = TaskSpec {
        task_id,
        name: info.name.as_str().into(),
        resources: needs,
        executor: executor.within("executor")?,
        grace_ms: {
            terms(info)?;
            grace_ms(info.kill_policy.as_ref()).within("kill_policy")?
        },
        sealed: Sealed::new(bytes),
    };
    let framework_id = info.executor.as_ref().and_then(|executor| executor.framework_id.as_ref());
    let framework_id = framework_id.map(|id| FrameworkId::new(&*id.value));
    Ok((Named { agent_id, framework_id }, spec))
}

/// A kind of which both name the same item, as a port, which only one can have.
fn overlap<'a>(one: &'a Resources, other: &Resources) -> Option<&'a str> {
    let is_in = |(begin, end): &(u64, u64), ranges: &[(u64, u64)]| {
        ranges.iter().any(|(first, last)| begin <= last && first <= end)
    };
    let same = |one: &Value, other: &Value| match (one, other) {
        (Value::Ranges(one), Value::Ranges(other)) => one.iter().any(|range| is_in(range, other)),
        (Value::Set(one), Value::Set(other)) => !one.is_disjoint(other),
        _ => false,
    };
    let shared = |name: &str, value: &Value| {
        other.iter().any(|(their_name, theirs)| their_name == name && same(value, theirs))
    };
    one.iter().find(|(name, value)| shared(name, value)).map(|(name, _)| name)
}

pub(crate) fn runnable(command: &mesos::CommandInfo, in_container: bool) -> Result<(), WireError> {
    let has_value = command.value.as_ref().is_some_and(|value| !value.is_empty());
    match (has_value, command.shell()) {
        (true, _) => Ok(()),
        (false, true) => Err(WireError::new("value", "is missing; a shell needs a command line")),
        (false, false) if in_container => Ok(()),
        (false, false) => Err(WireError::new("value", "is missing; name the program to run")),
    }
}

pub(crate) fn executor_spec(
    executor: &mesos::ExecutorInfo,
    task_info: &[u8],
) -> Result<ExecutorSpec, WireError> {
    if !is_built_in(executor) {
        let command = executor.command.as_ref();
        runnable(required("command", command)?, executor.container.is_some()).within("command")?;
    }
    if let Some(container) = &executor.container {
        crate::container::check(container).within("container")?;
    }
    Ok(ExecutorSpec {
        executor_id: id!(ExecutorId, "executor_id", executor.executor_id.value)?,
        resources: resources(&executor.resources)?,
        sealed: Sealed::new(executor_bytes(task_info)?),
    })
}

/// Whether agents themselves run the tasks of an executor.
pub(crate) fn is_built_in(executor: &mesos::ExecutorInfo) -> bool {
    executor.r#type() == mesos::executor_info::Type::Default
}

/// The bytes of `TaskInfo.executor` as they were sent: decoding and encoding again would drop fields that
/// are unknown here. A field that occurs twice merges, which for bytes is to append.
fn executor_bytes(mut task_info: &[u8]) -> Result<Vec<u8>, WireError> {
    use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
    const EXECUTOR: u32 = 5;
    let wrong = |error: prost::DecodeError| WireError::new("", error);
    let mut found = Vec::new();
    while !task_info.is_empty() {
        let (tag, wire_type) = decode_key(&mut task_info).map_err(wrong)?;
        if (tag, wire_type) != (EXECUTOR, WireType::LengthDelimited) {
            skip_field(wire_type, tag, &mut task_info, DecodeContext::default()).map_err(wrong)?;
            continue;
        }
        let length = decode_varint(&mut task_info).map_err(wrong)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some((part, rest)) = task_info.split_at_checked(length) else {
            return Err(WireError::new("", "ends too early"));
        };
        found.extend_from_slice(part);
        task_info = rest;
    }
    Ok(found)
}

fn grace_ms(policy: Option<&mesos::KillPolicy>) -> Result<Option<u64>, WireError> {
    duration_ms(policy.and_then(|policy| policy.grace_period.as_ref()))
}

/// A grace in ms; less than a whole one counts as one.
pub(crate) fn duration_ms(grace: Option<&mesos::DurationInfo>) -> Result<Option<u64>, WireError> {
    let Some(grace) = grace else { return Ok(None) };
    let nanoseconds = u64::try_from(grace.nanoseconds)
        .map_err(|_| WireError::new("grace_period", "is negative, must be 0 or more"))?;
    Ok(Some(nanoseconds.div_ceil(1_000_000)))
}

macro_rules! same_names {
    ($(#[$doc:meta])* $read:ident, $write:ident, $model:ident, $wire:ty, { $($m:ident = $w:ident),+ $(,)? }) => {
        $(#[$doc])*
        pub fn $write(value: $model) -> $wire {
            match value { $($model::$m => <$wire>::$w),+ }
        }
        #[allow(unreachable_patterns)]
        fn $read(value: $wire) -> Option<$model> {
            match value { $(<$wire>::$w => Some($model::$m),)+ _ => None }
        }
    };
}

same_names!(
    /// The Mesos number of a state.
    model_state, wire_state, TaskState, mesos::TaskState, {
    Staging = TaskStaging, Starting = TaskStarting, Running = TaskRunning, Killing = TaskKilling,
    Finished = TaskFinished, Failed = TaskFailed, Killed = TaskKilled, Error = TaskError, Lost = TaskLost,
    Dropped = TaskDropped, Unreachable = TaskUnreachable, Gone = TaskGone,
    GoneByOperator = TaskGoneByOperator, Unknown = TaskUnknown,
});
same_names!(
    /// The Mesos number of a source.
    model_source, wire_source, Source, WireSource, { Master = Master, Agent = Agent, Executor = Executor }
);
same_names!(
    /// The Mesos number of a reason.
    model_reason, wire_reason, Reason, WireReason, {
    AgentDisconnected = AgentDisconnected, AgentRemoved = AgentRemoved,
    AgentRemovedByOperator = AgentRemovedByOperator, AgentReregistered = AgentReregistered,
    AgentRestarted = AgentRestarted, ContainerLaunchFailed = ContainerLaunchFailed,
    ExecutorTerminated = ExecutorTerminated, FrameworkRemoved = FrameworkRemoved,
    InvalidOffers = InvalidOffers, Reconciliation = Reconciliation, TaskInvalid = TaskInvalid,
    TaskKilledDuringLaunch = TaskKilledDuringLaunch,
    ExecutorRegistrationTimeout = ExecutorRegistrationTimeout,
    ExecutorReregistrationTimeout = ExecutorReregistrationTimeout, AgentDraining = AgentDraining,
    TaskGroupInvalid = TaskGroupInvalid, TaskUnauthorized = TaskUnauthorized,
    TaskGroupUnauthorized = TaskGroupUnauthorized, ContainerLimitationMemory = ContainerLimitationMemory,
    TaskCheckStatusUpdated = TaskCheckStatusUpdated,
    TaskHealthCheckStatusUpdated = TaskHealthCheckStatusUpdated,
    MaxCompletionTimeReached = MaxCompletionTimeReached,
});

/// Reads a state's Mesos number.
pub fn task_state(number: i32) -> Result<TaskState, WireError> {
    let known = mesos::TaskState::try_from(number).ok().and_then(model_state);
    known.ok_or_else(|| WireError::new("state", format!("{number} is no mesos.v1.TaskState")))
}

/// Reads a reason's Mesos number; none for a number that Mesos has and muster does not decide on.
pub fn reason(number: i32) -> Result<Option<Reason>, WireError> {
    WireReason::try_from(number)
        .map(model_reason)
        .map_err(|_| WireError::new("reason", format!("{number} is no mesos.v1.TaskStatus.Reason")))
}

pub(crate) fn status(wire: v1::TaskStatus) -> Result<Status, WireError> {
    short("message", wire.message.as_bytes(), muster_model::task::MESSAGE_BYTES_MAX)?;
    short("task_status", &wire.task_status, STATUS_BYTES_MAX)?;
    let source = WireSource::try_from(wire.source).ok().and_then(model_source);
    Ok(Status {
        state: task_state(wire.state)?,
        source: source.ok_or_else(|| {
            WireError::new("source", format!("{} is no mesos.v1.TaskStatus.Source", wire.source))
        })?,
        reason: wire.reason.map(reason).transpose()?.flatten(),
        message: wire.message.into(),
        wall: WallTime(wire.wall_ms),
        sealed: Sealed::new(&*wire.task_status),
    })
}

pub(crate) fn wire_status(status: &Status) -> v1::TaskStatus {
    v1::TaskStatus {
        state: wire_state(status.state).into(),
        source: wire_source(status.source).into(),
        reason: status.reason.map(|reason| wire_reason(reason).into()),
        message: status.message.to_string(),
        wall_ms: status.wall.0,
        task_status: Bytes::copy_from_slice(&status.sealed),
    }
}

/// The whole `mesos.v1.TaskStatus` of a status: what the speaker sent, with what the registry decided on
/// (state, source, reason, message) on top.
pub fn mesos_status(
    task_id: &TaskId,
    agent_id: Option<&AgentId>,
    status: &Status,
    uuid: Option<&Uuid>,
) -> Result<mesos::TaskStatus, WireError> {
    let mut whole = if status.sealed.is_empty() {
        let mut whole =
            mesos::TaskStatus { timestamp: Some(status.wall.0 as f64 / 1000.0), ..Default::default() };
        if let Some(uuid) = uuid.filter(|_| status.source == Source::Executor) {
            // Of a task with a process of its own, whose executor is its agent under the task's name.
            whole.executor_id = Some(mesos::ExecutorId { value: task_id.to_string() });
            whole.container_status = Some(crate::executor_api::container_status(uuid.launch()));
        }
        whole
    } else {
        let mut whole = mesos::TaskStatus::decode(&*status.sealed).map_err(|error| {
            WireError::new("task_status", format!("is not a mesos.v1.TaskStatus: {error}"))
        })?;
        whole.timestamp.get_or_insert(status.wall.0 as f64 / 1000.0);
        if status.source == Source::Master {
            // The master's word of what the executor said once: of that the task's condition counts still (Mesos).
            whole = mesos::TaskStatus {
                timestamp: Some(status.wall.0 as f64 / 1000.0),
                executor_id: whole.executor_id,
                healthy: whole.healthy,
                check_status: whole.check_status,
                container_status: whole.container_status,
                ..Default::default()
            };
        }
        whole
    };
    whole.task_id = mesos::TaskId { value: task_id.to_string() };
    whole.state = wire_state(status.state).into();
    whole.source = Some(wire_source(status.source).into());
    whole.uuid = uuid.map(|uuid| Bytes::copy_from_slice(&uuid.0));
    if let Some(agent_id) = agent_id {
        whole.agent_id = Some(mesos::AgentId { value: agent_id.to_string() });
    }
    if let Some(reason) = status.reason {
        whole.reason = Some(wire_reason(reason).into());
    }
    if !status.message.is_empty() {
        whole.message = Some(status.message.to_string());
    }
    Ok(whole)
}

pub(crate) fn launch_number(wire: v1::LaunchNumber) -> LaunchNumber {
    LaunchNumber { incarnation: wire.incarnation, index: Index(wire.index), n: wire.n }
}

/// Writes a launch number.
pub fn wire_launch_number(launch: LaunchNumber) -> v1::LaunchNumber {
    v1::LaunchNumber { incarnation: launch.incarnation, index: launch.index.0, n: launch.n }
}

pub(crate) fn launch_numbers(field: &str, list: &[v1::LaunchNumber]) -> Result<Vec<LaunchNumber>, WireError> {
    bounded(field, list, limits::LAUNCH_NUMBERS_MAX)?;
    Ok(list.iter().copied().map(launch_number).collect())
}

pub(crate) fn uuid(bytes: &[u8]) -> Result<Uuid, WireError> {
    let bytes = bytes.try_into();
    bytes.map(Uuid).map_err(|_| WireError::new("uuid", "must have 16 bytes; send back the update's own"))
}

/// What a new client drew; nothing if it drew nothing.
pub(crate) fn token(field: &str, bytes: &[u8]) -> Result<Option<Token>, WireError> {
    let read = |bytes: &[u8]| bytes.try_into().map(Token);
    (!bytes.is_empty()).then(|| read(bytes)).transpose().map_err(|_| {
        WireError::new(field, format!("has {} bytes, must have 16, drawn at random, or none", bytes.len()))
    })
}

pub(crate) fn wire_token(token: Option<Token>) -> Bytes {
    token.map(|token| Bytes::copy_from_slice(&token.0)).unwrap_or_default()
}

pub(crate) fn task_key(framework_id: &str, task_id: &str) -> Result<TaskKey, WireError> {
    Ok(TaskKey {
        framework_id: id!(FrameworkId, "framework_id", framework_id)?,
        task_id: id!(TaskId, "task_id", task_id)?,
    })
}

pub(crate) fn status_update(wire: v1::StatusUpdate) -> Result<StatusUpdate, WireError> {
    Ok(StatusUpdate {
        launch: launch_number(required("launch", wire.launch)?),
        task: task_key(&wire.framework_id, &wire.task_id)?,
        seq: wire.seq,
        uuid: uuid(&wire.uuid)?,
        status: status(required("status", wire.status)?).within("status")?,
    })
}

pub(crate) fn wire_status_update(update: &StatusUpdate) -> v1::StatusUpdate {
    v1::StatusUpdate {
        launch: Some(wire_launch_number(update.launch)),
        framework_id: update.task.framework_id.to_string(),
        task_id: update.task.task_id.to_string(),
        seq: update.seq,
        uuid: Bytes::copy_from_slice(&update.uuid.0),
        status: Some(wire_status(&update.status)),
    }
}
impl From<mesos::task_info::LimitsEntry> for mesos::task::LimitsEntry {
    fn from(limit: mesos::task_info::LimitsEntry) -> Self {
        Self { key: limit.key, value: limit.value }
    }
}
