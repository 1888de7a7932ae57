//! Operations of an ACCEPT, and their statuses.

use crate::error::{Within, bounded, id, id_or_none, required, short};
use crate::json::wire_parts;
use crate::task::{Place, asked_task, is_built_in, uuid};
use crate::{WireError, limits, mesos, resources, v1, wire_resources};
use bytes::Bytes;
use mesos::executor_info::Type as ExecutorType;
use mesos::offer::{Operation as Wire, operation::Type};
use muster_model::task::ExecutorSpec;
use muster_model::{
    AskedOperation, BadTask, Conversion, Named, Operation, OperationState, OperationStatus, Resources, Role,
    Sealed, TaskSpec,
};
use prost::Message;
use std::sync::Arc;

const LAUNCH: u32 = 2;
const LAUNCH_GROUP: u32 = 7;
const TASK_INFOS: u32 = 1;
const EXECUTOR: u32 = 1;
const TASK_GROUP: u32 = 2;
const TASKS: u32 = 1;
/// `TaskInfo.executor`.
const TASK_EXECUTOR: u32 = 5;

/// The least that an executor of a task group has (Mesos): thousandths of a cpu and of a MB.
const EXECUTOR_CPUS_MIN: u64 = 10;
const EXECUTOR_MEM_MIN: u64 = 32_000;

/// Reads operations of an ACCEPT, each with whom its tasks name. Those of a type that nobody knows are left
/// out, as Mesos does.
pub(crate) fn operations(list: &[Bytes]) -> Result<Vec<(Operation, Vec<Named>)>, WireError> {
    bounded("operations", list, limits::OPERATIONS_PER_ACCEPT_MAX)?;
    let (mut all, mut tasks) = (Vec::with_capacity(list.len()), 0);
    for (i, bytes) in list.iter().enumerate() {
        let Some((operation, agents)) = operation(bytes).within(format_args!("operations[{i}]"))? else {
            continue;
        };
        let (good, bad) = operation.tasks();
        tasks += good.len() + bad.len();
        all.push((operation, agents));
    }
    if tasks > limits::TASKS_PER_ACCEPT_MAX {
        let problem = format!("have {tasks} tasks, at most {} are allowed", limits::TASKS_PER_ACCEPT_MAX);
        return Err(WireError::new("operations", problem));
    }
    Ok(all)
}

fn operation(bytes: &Bytes) -> Result<Option<(Operation, Vec<Named>)>, WireError> {
    let wire = Wire::decode(bytes.clone())
        .map_err(|error| WireError::new("", format!("is not a mesos.v1.Offer.Operation: {error}")))?;
    let kind = wire.r#type();
    match kind {
        Type::Unknown => return Ok(None),
        Type::Launch => return launch(&wire, bytes).map(Some),
        Type::LaunchGroup => return launch_group(&wire, bytes).map(Some),
        _ => {}
    }
    let (id, asked) = match wire.id.as_ref().map(|id| id!(OperationId, "id", id.value)).transpose() {
        Ok(id) => (id, conversion(&wire, kind)),
        Err(why) => (None, Err(why.to_string())),
    };
    let asked = asked.and_then(|it| match short("operation", bytes, limits::SEALED_BYTES_MAX) {
        Ok(()) => Ok(it),
        Err(why) => Err(why.to_string()),
    });
    let operation = match asked {
        Ok(conversion) => Operation::Convert { id, conversion, sealed: Sealed::new(&**bytes) },
        Err(why) => Operation::Bad { id, why: why.into() },
    };
    Ok(Some((operation, Vec::new())))
}

/// How an operation converts resources, or why it does not.
fn conversion(wire: &Wire, kind: Type) -> Result<Conversion, String> {
    let read = |list: Option<&Vec<mesos::Resource>>| {
        let list = list.ok_or_else(|| format!("the part of {} is missing", kind.as_str_name()))?;
        resources(list).map_err(|why| format!("Invalid resources: {why}"))
    };
    match kind {
        Type::Reserve if wire.reserve.as_ref().is_some_and(|it| !it.source.is_empty()) => {
            // Operators' calls alone take it, in Mesos, too.
            Err("'source' of RESERVE is not supported: leave it unset, or ask an operator".into())
        }
        Type::Reserve => read(wire.reserve.as_ref().map(|it| &it.resources)).map(Conversion::Reserve),
        Type::Unreserve => read(wire.unreserve.as_ref().map(|it| &it.resources)).map(Conversion::Unreserve),
        Type::Create => read(wire.create.as_ref().map(|it| &it.volumes)).map(Conversion::Create),
        Type::Destroy => read(wire.destroy.as_ref().map(|it| &it.volumes)).map(Conversion::Destroy),
        other => Err(format!("{} is not supported", other.as_str_name())),
    }
}

/// Tasks as they are read: good ones with whom they name, and bad ones by place.
#[derive(Default)]
struct Read {
    tasks: Vec<TaskSpec>,
    named: Vec<Named>,
    bad: Vec<BadTask>,
}

impl Read {
    /// Reads tasks; `wrong` is what is wrong with all of them.
    fn of(list: &[Bytes], place: Place, wrong: Option<&str>) -> Result<Self, WireError> {
        let mut read = Self::default();
        for (at, bytes) in (0..).zip(list) {
            let (task_id, task) = asked_task(bytes, place).within(format_args!("tasks[{at}]"))?;
            match (task, wrong) {
                (Ok((named, spec)), None) => {
                    read.named.push(named);
                    read.tasks.push(spec);
                }
                (Ok(_), Some(why)) => read.bad.push(BadTask { at, task_id, why: why.into() }),
                (Err(why), _) => read.bad.push(BadTask { at, task_id, why: why.to_string().into() }),
            }
        }
        Ok(read)
    }
}

fn launch(wire: &Wire, bytes: &Bytes) -> Result<(Operation, Vec<Named>), WireError> {
    let wrong = wire.id.is_some().then_some("an operation of type LAUNCH must have no 'id'");
    let Read { tasks, named, bad } =
        Read::of(&wire_parts(bytes, &[LAUNCH, TASK_INFOS]), Place::Alone, wrong)?;
    Ok((Operation::Launch { tasks, bad }, named))
}

fn launch_group(wire: &Wire, bytes: &Bytes) -> Result<(Operation, Vec<Named>), WireError> {
    let group = required("launch_group", wire.launch_group.as_ref())?;
    let executor = wire_parts(bytes, &[LAUNCH_GROUP, EXECUTOR]).concat();
    let wrong = match wire.id {
        Some(_) => Some("an operation of type LAUNCH_GROUP must have no 'id'".into()),
        None => group_problem(group),
    };
    let infos = wire_parts(bytes, &[LAUNCH_GROUP, TASK_GROUP, TASKS]);
    let with_executor = infos.iter().zip(&group.task_group.tasks).map(|(bytes, task)| match task.executor {
        Some(_) => bytes.clone(),
        None => {
            let mut whole = bytes.to_vec();
            put_field(TASK_EXECUTOR, &executor, &mut whole);
            whole.into()
        }
    });
    let with_executor: Vec<Bytes> = with_executor.collect();
    let Read { tasks, named, bad } = Read::of(&with_executor, Place::InGroup, wrong.as_deref())?;
    Ok((Operation::LaunchGroup { tasks, bad }, named))
}

/// What is wrong with a task group as a whole (Mesos v1).
fn group_problem(group: &mesos::offer::operation::LaunchGroup) -> Option<String> {
    use mesos::container_info::Type as Container;
    let executor = &group.executor;
    let name = &executor.executor_id.value;
    let is_docker = |it: Option<&mesos::ContainerInfo>| it.is_some_and(|it| it.r#type() == Container::Docker);
    for task in &group.task_group.tasks {
        let id = &task.task_id.value;
        if task.executor.as_ref().is_some_and(|other| other != executor) {
            return Some(format!("The executor of task '{id}' differs from executor '{name}' of its group"));
        }
        if is_docker(task.container.as_ref()) {
            return Some(format!("Docker ContainerInfo is not supported on task '{id}' of a group"));
        }
    }
    if is_docker(executor.container.as_ref()) {
        return Some("Docker ContainerInfo is not supported on the executor of a group".into());
    }
    if matches!(executor.r#type(), ExecutorType::Unknown) {
        return Some("'ExecutorInfo.type' must be set to DEFAULT or CUSTOM for a task group".into());
    }
    if is_built_in(executor) {
        if executor.command.is_some() {
            return Some("'ExecutorInfo.command' must not be set for 'DEFAULT' executor".into());
        }
        if let Some(container) = &executor.container {
            if container.r#type() != Container::Mesos {
                return Some("'ExecutorInfo.container.type' must be 'MESOS' for 'DEFAULT' executor".into());
            }
            if container.mesos.as_ref().is_some_and(|it| it.image.is_some()) {
                return Some(
                    "'ExecutorInfo.container.mesos.image' must not be set for 'DEFAULT' executor".into(),
                );
            }
        }
    }
    let has = match resources(&executor.resources) {
        Ok(has) => has,
        Err(why) => return Some(format!("Executor '{name}' has invalid resources: {why}")),
    };
    let (cpus, mem) = (has.quantity("cpus"), has.quantity("mem"));
    if cpus < EXECUTOR_CPUS_MIN {
        return Some(format!("Executor '{name}' uses less CPUs than the minimum required (0.01)"));
    }
    if mem < EXECUTOR_MEM_MIN {
        return Some(format!("Executor '{name}' uses less memory than the minimum required (32MB)"));
    }
    (has.quantity("disk") == 0).then(|| format!("Executor '{name}' uses no disk"))
}

/// How an operation converts resources; none for one that does not, or is wrong.
pub fn asked_conversion(wire: &Wire) -> Option<Conversion> {
    conversion(wire, wire.r#type()).ok()
}

/// A LAUNCH of some of the tasks of another one, by place. They stay as they were sent.
pub fn launch_some(bytes: &Bytes, is_kept: impl Fn(usize) -> bool) -> Bytes {
    let mut infos = Vec::new();
    for (at, task) in wire_parts(bytes, &[LAUNCH, TASK_INFOS]).iter().enumerate() {
        if is_kept(at) {
            put_field(TASK_INFOS, task, &mut infos);
        }
    }
    let mut whole = Wire { r#type: Some(Type::Launch.into()), ..Default::default() }.encode_to_vec();
    put_field(LAUNCH, &infos, &mut whole);
    whole.into()
}

/// Appends a field of bytes to an encoded message.
pub(crate) fn put_field(number: u32, bytes: &[u8], to: &mut Vec<u8>) {
    use prost::encoding::{WireType, encode_key, encode_varint};
    encode_key(number, WireType::LengthDelimited, to);
    encode_varint(bytes.len() as u64, to);
    to.extend_from_slice(bytes);
}

/// Writes an operation; one that is described wrongly has nothing to be written.
pub(crate) fn wire_operation(operation: &Operation) -> Bytes {
    let of = |kind: Type| Wire { r#type: Some(kind.into()), ..Default::default() }.encode_to_vec();
    let infos = |number, tasks: &[TaskSpec]| {
        let mut bytes = Vec::new();
        tasks.iter().for_each(|task| put_field(number, &task.sealed, &mut bytes));
        bytes
    };
    match operation {
        Operation::Launch { tasks, .. } => {
            let mut bytes = of(Type::Launch);
            put_field(LAUNCH, &infos(TASK_INFOS, tasks), &mut bytes);
            bytes.into()
        }
        Operation::LaunchGroup { tasks, .. } => {
            let executor: Option<&ExecutorSpec> = tasks.first().and_then(|task| task.executor.as_ref());
            let mut group = Vec::new();
            put_field(EXECUTOR, executor.map_or(&[][..], |executor| &executor.sealed), &mut group);
            put_field(TASK_GROUP, &infos(TASKS, tasks), &mut group);
            let mut bytes = of(Type::LaunchGroup);
            put_field(LAUNCH_GROUP, &group, &mut bytes);
            bytes.into()
        }
        Operation::Convert { sealed, .. } => Bytes::copy_from_slice(sealed),
        Operation::Bad { .. } => of(Type::Unknown).into(),
    }
}

/// The whole `mesos.v1.Offer.Operation` of a conversion.
pub fn mesos_operation(id: Option<&str>, conversion: &Conversion) -> Wire {
    use mesos::offer::operation::{Create, Destroy, Reserve, Unreserve};
    let named = wire_resources(conversion.named());
    let id = id.map(|id| mesos::OperationId { value: id.into() });
    let of = |kind: Type| Wire { r#type: Some(kind.into()), id: id.clone(), ..Default::default() };
    match conversion {
        Conversion::Reserve(_) => {
            Wire { reserve: Some(Reserve { resources: named, source: Vec::new() }), ..of(Type::Reserve) }
        }
        Conversion::Rereserve { from, .. } => {
            let source = wire_resources(from);
            Wire { reserve: Some(Reserve { resources: named, source }), ..of(Type::Reserve) }
        }
        Conversion::Unreserve(_) => {
            Wire { unreserve: Some(Unreserve { resources: named }), ..of(Type::Unreserve) }
        }
        Conversion::Create(_) => Wire { create: Some(Create { volumes: named }), ..of(Type::Create) },
        Conversion::Destroy(_) => Wire { destroy: Some(Destroy { volumes: named }), ..of(Type::Destroy) },
    }
}

pub(crate) fn asked_operation(
    wire: &v1::reconcile_operations::Operation,
) -> Result<AskedOperation, WireError> {
    short("resource_provider_id", wire.resource_provider_id.as_bytes(), limits::NAME_BYTES_MAX)?;
    Ok(AskedOperation {
        id: id!(OperationId, "operation_id", wire.operation_id)?,
        agent_id: id_or_none!(AgentId, "agent_id", wire.agent_id)?,
        provider: text(&wire.resource_provider_id),
    })
}

pub(crate) fn wire_asked_operation(asked: &AskedOperation) -> v1::reconcile_operations::Operation {
    v1::reconcile_operations::Operation {
        operation_id: asked.id.to_string(),
        agent_id: asked.agent_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        resource_provider_id: asked.provider.as_deref().unwrap_or_default().into(),
    }
}

fn text(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.into())
}

/// The Mesos number of a state.
pub fn wire_operation_state(state: OperationState) -> mesos::OperationState {
    match state {
        OperationState::Finished => mesos::OperationState::OperationFinished,
        OperationState::Error => mesos::OperationState::OperationError,
        OperationState::Unknown => mesos::OperationState::OperationUnknown,
        OperationState::Unreachable => mesos::OperationState::OperationUnreachable,
        OperationState::GoneByOperator => mesos::OperationState::OperationGoneByOperator,
    }
}

fn operation_state(number: i32) -> Result<OperationState, WireError> {
    Ok(match mesos::OperationState::try_from(number) {
        Ok(mesos::OperationState::OperationFinished) => OperationState::Finished,
        Ok(mesos::OperationState::OperationError) => OperationState::Error,
        Ok(mesos::OperationState::OperationUnknown) => OperationState::Unknown,
        Ok(mesos::OperationState::OperationUnreachable) => OperationState::Unreachable,
        Ok(mesos::OperationState::OperationGoneByOperator) => OperationState::GoneByOperator,
        _ => return Err(WireError::new("state", format!("{number} is no state of an operation here"))),
    })
}

pub(crate) fn operation_status(wire: v1::OperationStatus) -> Result<OperationStatus, WireError> {
    short("message", wire.message.as_bytes(), limits::PROBLEM_BYTES_MAX)?;
    let role = |text: &str| Role::parse(text).map_err(|problem| WireError::new("role", problem));
    Ok(OperationStatus {
        id: id!(OperationId, "operation_id", wire.operation_id)?,
        state: operation_state(wire.state)?,
        message: wire.message.into(),
        agent_id: id_or_none!(AgentId, "agent_id", wire.agent_id)?,
        uuid: (!wire.uuid.is_empty()).then(|| uuid(&wire.uuid)).transpose()?,
        converted: resources(&wire.converted)?,
        role: (!wire.role.is_empty()).then(|| role(&wire.role)).transpose()?,
        provider: text(&wire.resource_provider_id),
    })
}

pub(crate) fn wire_operation_status(status: &OperationStatus) -> v1::OperationStatus {
    v1::OperationStatus {
        operation_id: status.id.to_string(),
        state: wire_operation_state(status.state).into(),
        message: status.message.to_string(),
        agent_id: status.agent_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        uuid: status.uuid.map(|uuid| Bytes::copy_from_slice(&uuid.0)).unwrap_or_default(),
        converted: wire_resources(&status.converted),
        role: status.role.as_ref().map(ToString::to_string).unwrap_or_default(),
        resource_provider_id: status.provider.as_deref().unwrap_or_default().into(),
    }
}

/// The whole `mesos.v1.OperationStatus`; `write` writes resources as who is told reads them.
pub fn mesos_operation_status(
    status: &OperationStatus,
    write: impl Fn(&Resources) -> Vec<mesos::Resource>,
) -> mesos::OperationStatus {
    mesos::OperationStatus {
        operation_id: Some(mesos::OperationId { value: status.id.to_string() }),
        state: wire_operation_state(status.state).into(),
        message: Some(status.message.to_string()).filter(|text| !text.is_empty()),
        converted_resources: write(&status.converted),
        uuid: status.uuid.map(|uuid| mesos::Uuid { value: uuid.0.to_vec().into() }),
        agent_id: status.agent_id.as_ref().map(|id| mesos::AgentId { value: id.to_string() }),
        resource_provider_id: status
            .provider
            .as_ref()
            .map(|id| mesos::ResourceProviderId { value: id.to_string() }),
    }
}
