//! Agents: their description, their stream up and down.

use crate::check::terms_of;
use crate::error::{Within, bounded, id, id_or_none, required, short};
use crate::kept::{Keep, kept};
use crate::resource::container_path;
use crate::task::{
    duration_ms, executor_spec, is_built_in, launch_number, launch_numbers, status_update, task_key,
    task_state, token, wire_launch_number, wire_state, wire_status_update, wire_token,
};
use crate::{WireError, attributes, limits, mesos, resources, v1, wire_resources};
use bytes::Bytes;
use muster_model::{
    AgentCall, AgentEvent, AgentInfo, ExecutorOrder, Fence, Hello, Index, KnownExecutor, KnownTask,
    LaunchNumber, LaunchSum, MachineId, Sealed, Session, TaskGroup, Term, Token, VolumeMount, VolumeNumber,
};
use prost::Message;
use std::net::IpAddr;
use v1::agent_down_frame::Frame as Down;
use v1::agent_frame::Frame as Up;

/// What agents of muster can do of what agents of Mesos can.
pub const CAPABILITIES: [mesos::agent_info::capability::Type; 5] = [
    mesos::agent_info::capability::Type::MultiRole,
    mesos::agent_info::capability::Type::HierarchicalRole,
    mesos::agent_info::capability::Type::ReservationRefinement,
    mesos::agent_info::capability::Type::AgentOperationFeedback,
    mesos::agent_info::capability::Type::AgentDraining,
];

/// What comes down an agent's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentDown {
    /// Who leads now; answer with a hello.
    Leader {
        /// Its name.
        name: String,
        /// Its API, `host:port`.
        address: String,
    },
    /// This master lost its leader: dial another one; why.
    Redial(String),
    /// An event of the leader.
    Event(AgentEvent),
}

/// Reads an encoded `mesos.v1.AgentInfo` of an agent on this machine; the bytes stay as they are.
pub fn agent_info(machine_id: MachineId, bytes: &[u8]) -> Result<AgentInfo, WireError> {
    short("agent_info", bytes, limits::SEALED_BYTES_MAX)?;
    let info = mesos::AgentInfo::decode(bytes)
        .map_err(|error| WireError::new("agent_info", format!("is not a mesos.v1.AgentInfo: {error}")))?;
    if info.hostname.is_empty() {
        return Err(WireError::new("agent_info.hostname", "is missing"));
    }
    short("agent_info.hostname", info.hostname.as_bytes(), limits::NAME_BYTES_MAX)?;
    Ok(AgentInfo {
        machine_id,
        hostname: info.hostname.as_str().into(),
        port: port(info.port().into()).within("agent_info")?,
        resources: resources(&info.resources).within("agent_info")?,
        attributes: attributes(&info.attributes).within("agent_info")?,
    })
}

/// The address that an agent is reached by: as it says in its description, else its name if that is one.
pub fn ip(agent_info: &[u8], hostname: &str) -> Option<IpAddr> {
    let extra = v1::AgentExtra::decode(agent_info).unwrap_or_default();
    extra.ip.parse().or_else(|_| hostname.parse()).ok()
}

/// The domain that an encoded `mesos.v1.AgentInfo` says, if it says one.
pub fn domain(agent_info: &[u8]) -> Option<mesos::DomainInfo> {
    const DOMAIN: u32 = 10;
    let mut domain = Vec::new();
    let keep = |number| if number == DOMAIN { Keep::All } else { Keep::Nothing };
    kept(agent_info, &mut domain, &keep).ok()?;
    mesos::AgentInfo::decode(&*domain).ok()?.domain
}

/// An encoded `mesos.v1.AgentInfo` that says this address, too.
pub fn with_ip(info: &mesos::AgentInfo, ip: Option<IpAddr>) -> Vec<u8> {
    let extra = v1::AgentExtra { ip: ip.map(|ip| ip.to_string()).unwrap_or_default() };
    let mut bytes = info.encode_to_vec();
    bytes.extend(extra.encode_to_vec());
    bytes
}

fn port(number: i64) -> Result<u16, WireError> {
    u16::try_from(number).map_err(|_| WireError::new("port", format!("is {number}, must be 0 to 65535")))
}

/// Reads a frame of an agent.
pub fn agent_call(frame: v1::AgentFrame) -> Result<(Session, AgentCall), WireError> {
    let call = match required("frame", frame.frame)? {
        Up::Hello(wire) => {
            let token = token("hello.token", &wire.token)?;
            let hello = hello(wire).within("hello")?;
            let ip = ip(&hello.sealed, &hello.info.hostname);
            AgentCall::Hello(hello, token, ip)
        }
        Up::HelloAsKnown(wire) => hello_as_known(wire).within("hello_as_known")?,
        Up::Accepted(wire) => AgentCall::Accepted(launch_numbers("accepted", &wire.launches)?),
        Up::Status(wire) => AgentCall::Status(status_update(wire).within("status")?),
        Up::Ended(wire) => AgentCall::Ended(launch_number(wire)),
        Up::Pong(n) => AgentCall::Pong(n),
        Up::Message(wire) => {
            short("message.data", &wire.data, limits::MESSAGE_BYTES_MAX)?;
            AgentCall::Message {
                framework_id: id!(FrameworkId, "message.framework_id", wire.framework_id)?,
                executor_id: id!(ExecutorId, "message.executor_id", wire.executor_id)?,
                data: wire.data.to_vec(),
            }
        }
        Up::Executors(wire) => {
            bounded("executors", &wire.executors, limits::HELLO_TASKS_MAX)?;
            let known = |(i, it)| known_executor(it).within(format_args!("executors[{i}]"));
            let executors = wire.executors.into_iter().enumerate().map(known).collect::<Result<_, _>>()?;
            AgentCall::Executors { executors, all: wire.all }
        }
    };
    Ok((Session(frame.session), call))
}

fn known_executor(wire: v1::KnownExecutor) -> Result<KnownExecutor, WireError> {
    Ok(KnownExecutor {
        number: launch_number(required("number", wire.number)?),
        framework_id: id!(FrameworkId, "framework_id", wire.framework_id)?,
        executor_id: id!(ExecutorId, "executor_id", wire.executor_id)?,
        resources: resources(&wire.resources)?,
        ended: wire.ended,
    })
}

fn hello_as_known(wire: v1::HelloAsKnown) -> Result<AgentCall, WireError> {
    let hello = hello(required("hello", wire.hello)?).within("hello")?;
    if hello.agent_id.is_none() {
        return Err(WireError::new(
            "hello.agent_id",
            "is missing: an agent that is not known yet has no tasks",
        ));
    }
    if !hello.tasks.is_empty() {
        return Err(WireError::new("hello.tasks", "must be empty: `tasks` and `sum` stand for them"));
    }
    let ip = ip(&hello.sealed, &hello.info.hostname);
    Ok(AgentCall::HelloAsKnown(hello, LaunchSum::new(wire.tasks, wire.sum), ip))
}

fn hello(wire: v1::Hello) -> Result<Hello, WireError> {
    bounded("tasks", &wire.tasks, limits::HELLO_TASKS_MAX)?;
    let machine_id = id!(MachineId, "machine_id", wire.machine_id)?;
    let known = |(i, task)| known_task(task).within(format_args!("tasks[{i}]"));
    Ok(Hello {
        agent_id: id_or_none!(AgentId, "agent_id", wire.agent_id)?,
        info: agent_info(machine_id, &wire.agent_info)?,
        tasks: wire.tasks.into_iter().enumerate().map(known).collect::<Result<_, _>>()?,
        sealed: Sealed::new(&*wire.agent_info),
    })
}

fn known_task(wire: v1::KnownTask) -> Result<KnownTask, WireError> {
    bounded("updates", &wire.updates, limits::UPDATES_PER_TASK_MAX)?;
    Ok(KnownTask {
        launch: launch_number(required("launch", wire.launch)?),
        task: task_key(&wire.framework_id, &wire.task_id)?,
        state: task_state(wire.state)?,
        alive: wire.alive,
        resources: resources(&wire.resources)?,
        updates: wire.updates.into_iter().map(status_update).collect::<Result<_, _>>().within("updates")?,
    })
}

/// Writes a frame of an agent, for whichever leader gets it; say in `fence` for which alone it is.
pub fn agent_frame(session: Session, call: &AgentCall) -> v1::AgentFrame {
    let frame = match call {
        AgentCall::Hello(hello, token, _) => Up::Hello(wire_hello(hello, *token)),
        AgentCall::HelloAsKnown(hello, tasks, _) => Up::HelloAsKnown(v1::HelloAsKnown {
            hello: Some(wire_hello(hello, None)),
            tasks: tasks.count(),
            sum: tasks.sum(),
        }),
        AgentCall::Accepted(launches) => {
            Up::Accepted(v1::LaunchNumbers { launches: wire_launches(launches) })
        }
        AgentCall::Status(update) => Up::Status(wire_status_update(update)),
        AgentCall::Ended(launch) => Up::Ended(wire_launch_number(*launch)),
        AgentCall::Pong(n) => Up::Pong(*n),
        AgentCall::Message { framework_id, executor_id, data } => Up::Message(v1::ExecutorMessage {
            framework_id: framework_id.to_string(),
            agent_id: String::new(),
            executor_id: executor_id.to_string(),
            data: Bytes::copy_from_slice(data),
        }),
        AgentCall::Executors { executors, all } => Up::Executors(v1::KnownExecutors {
            executors: executors.iter().map(wire_known_executor).collect(),
            all: *all,
        }),
    };
    v1::AgentFrame { session: session.0, frame: Some(frame), fence: None }
}

fn wire_hello(hello: &Hello, token: Option<Token>) -> v1::Hello {
    v1::Hello {
        agent_id: hello.agent_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        machine_id: hello.info.machine_id.to_string(),
        agent_info: Bytes::copy_from_slice(&hello.sealed),
        tasks: hello.tasks.iter().map(wire_known_task).collect(),
        token: wire_token(token),
    }
}

fn wire_known_executor(executor: &KnownExecutor) -> v1::KnownExecutor {
    v1::KnownExecutor {
        number: Some(wire_launch_number(executor.number)),
        framework_id: executor.framework_id.to_string(),
        executor_id: executor.executor_id.to_string(),
        resources: wire_resources(&executor.resources),
        ended: executor.ended,
    }
}

fn wire_launches(launches: &[LaunchNumber]) -> Vec<v1::LaunchNumber> {
    launches.iter().copied().map(wire_launch_number).collect()
}

fn wire_known_task(task: &KnownTask) -> v1::KnownTask {
    v1::KnownTask {
        launch: Some(wire_launch_number(task.launch)),
        framework_id: task.task.framework_id.to_string(),
        task_id: task.task.task_id.to_string(),
        state: wire_state(task.state).into(),
        alive: task.alive,
        resources: wire_resources(&task.resources),
        updates: task.updates.iter().map(wire_status_update).collect(),
    }
}

/// Reads a frame to an agent: from which leader, of which session, what.
pub fn agent_event(frame: v1::AgentDownFrame) -> Result<(Fence, Session, AgentDown), WireError> {
    let fence = fence(frame.fence)?;
    let event = match required("frame", frame.frame)? {
        Down::Leader(wire) => AgentDown::Leader { name: wire.name, address: wire.address },
        Down::Redial(why) => AgentDown::Redial(why),
        Down::Welcome(wire) => AgentDown::Event(AgentEvent::Welcome {
            agent_id: id!(AgentId, "welcome.agent_id", wire.agent_id)?,
            forget: launch_numbers("welcome.forget", &wire.forget)?,
            low_mark: Index(wire.low_mark),
            ping_ms: wire.ping_ms,
        }),
        Down::ListAll(_) => AgentDown::Event(AgentEvent::ListAll),
        Down::Run(wire) => AgentDown::Event(AgentEvent::Run(Box::new(run_order(wire).within("run")?))),
        Down::Kill(wire) => AgentDown::Event(AgentEvent::Kill {
            launch: launch_number(required("kill.launch", wire.launch)?),
            task: task_key(&wire.framework_id, &wire.task_id).within("kill")?,
            grace_ms: wire.grace_ms,
        }),
        Down::Confirm(wire) => AgentDown::Event(AgentEvent::Confirm {
            launch: launch_number(required("confirm.launch", wire.launch)?),
            seq: wire.seq,
        }),
        Down::Ping(n) => AgentDown::Event(AgentEvent::Ping(n)),
        Down::Message(wire) => {
            short("message.data", &wire.data, limits::MESSAGE_BYTES_MAX)?;
            AgentDown::Event(AgentEvent::Message {
                framework_id: id!(FrameworkId, "message.framework_id", wire.framework_id)?,
                executor_id: id!(ExecutorId, "message.executor_id", wire.executor_id)?,
                data: wire.data.to_vec(),
            })
        }
        Down::Rejected(why) => AgentDown::Event(AgentEvent::Rejected(why)),
        Down::ShutdownExecutor(wire) => AgentDown::Event(AgentEvent::ShutdownExecutor {
            framework_id: id!(FrameworkId, "shutdown_executor.framework_id", wire.framework_id)?,
            executor_id: id!(ExecutorId, "shutdown_executor.executor_id", wire.executor_id)?,
        }),
        Down::ConfirmExecutor(wire) => AgentDown::Event(AgentEvent::ConfirmExecutor(launch_number(wire))),
        Down::Volumes(wire) => {
            bounded("volumes.keep", &wire.keep, limits::VOLUMES_MAX)?;
            let keep = wire.keep.into_iter().map(VolumeNumber).collect();
            AgentDown::Event(AgentEvent::Volumes { keep })
        }
    };
    Ok((fence, Session(frame.session), event))
}

fn run_order(wire: v1::RunOrder) -> Result<muster_model::event::RunOrder, WireError> {
    short("user", wire.user.as_bytes(), limits::NAME_BYTES_MAX)?;
    short("task_info", &wire.task_info, limits::SEALED_BYTES_MAX)?;
    short("framework_info", wire.framework_info(), limits::SEALED_BYTES_MAX)?;
    let terms = terms_of(&wire.task_info, wire.framework_info());
    Ok(muster_model::event::RunOrder {
        launch: launch_number(required("launch", wire.launch)?),
        task: task_key(&wire.framework_id, &wire.task_id)?,
        resources: resources(&wire.resources)?,
        grace_ms: wire.grace_ms,
        user: wire.user.into(),
        killed: wire.killed,
        executor: match wire.framework_info {
            Some(_) => executor_order(&wire.task_info).within("task_info")?.map(Box::new),
            None => None,
        },
        framework: wire.framework_info.as_deref().map(Sealed::new).unwrap_or_default(),
        sealed: Sealed::new(&*wire.task_info),
        group: wire.group.map(task_group).transpose().within("group")?,
        volumes: volume_mounts(&wire.volumes)?,
        starting: wire.starting,
        terms,
    })
}

fn task_group(wire: v1::TaskGroup) -> Result<TaskGroup, WireError> {
    if wire.size == 0 || wire.size as usize > limits::TASKS_PER_ACCEPT_MAX {
        let problem = format!("is {}, must be 1 to {}", wire.size, limits::TASKS_PER_ACCEPT_MAX);
        return Err(WireError::new("size", problem));
    }
    Ok(TaskGroup { first: launch_number(required("first", wire.first)?), size: wire.size })
}

fn volume_mounts(list: &[v1::VolumeMount]) -> Result<Vec<VolumeMount>, WireError> {
    bounded("volumes", list, limits::VOLUMES_MAX)?;
    let mount = |(i, wire): (usize, &v1::VolumeMount)| {
        let path = container_path(&wire.container_path).within(format_args!("volumes[{i}]"))?;
        Ok(VolumeMount {
            number: VolumeNumber(wire.number),
            container_path: path.into(),
            read_only: wire.read_only,
            executor: wire.executor,
        })
    };
    list.iter().enumerate().map(mount).collect()
}

fn wire_volume_mount(mount: &VolumeMount) -> v1::VolumeMount {
    v1::VolumeMount {
        number: mount.number.0,
        container_path: mount.container_path.to_string(),
        read_only: mount.read_only,
        executor: mount.executor,
    }
}

/// The executor that a task names.
fn executor_order(task_info: &[u8]) -> Result<Option<ExecutorOrder>, WireError> {
    let info = mesos::TaskInfo::decode(task_info)
        .map_err(|error| WireError::new("", format!("is not a mesos.v1.TaskInfo: {error}")))?;
    let Some(executor) = &info.executor else { return Ok(None) };
    let spec = executor_spec(executor, task_info).within("executor")?;
    Ok(Some(ExecutorOrder {
        executor_id: spec.executor_id,
        resources: spec.resources,
        grace_ms: duration_ms(executor.shutdown_grace_period.as_ref()).within("executor")?,
        built_in: is_built_in(executor),
        sealed: spec.sealed,
    }))
}

/// Writes a frame to an agent.
pub fn agent_down_frame(fence: Fence, session: Session, event: &AgentEvent) -> v1::AgentDownFrame {
    let frame = match event {
        AgentEvent::Welcome { agent_id, forget, low_mark, ping_ms } => Down::Welcome(v1::Welcome {
            agent_id: agent_id.to_string(),
            forget: wire_launches(forget),
            low_mark: low_mark.0,
            ping_ms: *ping_ms,
        }),
        AgentEvent::ListAll => Down::ListAll(v1::ListAll {}),
        AgentEvent::Run(order) => Down::Run(v1::RunOrder {
            launch: Some(wire_launch_number(order.launch)),
            framework_id: order.task.framework_id.to_string(),
            task_id: order.task.task_id.to_string(),
            resources: wire_resources(&order.resources),
            grace_ms: order.grace_ms,
            user: order.user.to_string(),
            killed: order.killed,
            task_info: Bytes::copy_from_slice(&order.sealed),
            framework_info: (order.executor.is_some() || !order.framework.is_empty())
                .then(|| Bytes::copy_from_slice(&order.framework)),
            group: order.group.map(|group| v1::TaskGroup {
                first: Some(wire_launch_number(group.first)),
                size: group.size,
            }),
            volumes: order.volumes.iter().map(wire_volume_mount).collect(),
            starting: order.starting,
        }),
        AgentEvent::Kill { launch, task, grace_ms } => Down::Kill(v1::KillOrder {
            launch: Some(wire_launch_number(*launch)),
            framework_id: task.framework_id.to_string(),
            task_id: task.task_id.to_string(),
            grace_ms: *grace_ms,
        }),
        AgentEvent::Confirm { launch, seq } => {
            Down::Confirm(v1::Confirm { launch: Some(wire_launch_number(*launch)), seq: *seq })
        }
        AgentEvent::Ping(n) => Down::Ping(*n),
        AgentEvent::Message { framework_id, executor_id, data } => Down::Message(v1::ExecutorMessage {
            framework_id: framework_id.to_string(),
            agent_id: String::new(),
            executor_id: executor_id.to_string(),
            data: Bytes::copy_from_slice(data),
        }),
        AgentEvent::Rejected(why) => Down::Rejected(why.clone()),
        AgentEvent::ShutdownExecutor { framework_id, executor_id } => {
            Down::ShutdownExecutor(v1::ExecutorName {
                framework_id: framework_id.to_string(),
                executor_id: executor_id.to_string(),
            })
        }
        AgentEvent::ConfirmExecutor(number) => Down::ConfirmExecutor(wire_launch_number(*number)),
        AgentEvent::Volumes { keep } => {
            Down::Volumes(v1::Volumes { keep: keep.iter().map(|number| number.0).collect() })
        }
    };
    v1::AgentDownFrame { fence: Some(wire_fence(fence)), session: session.0, frame: Some(frame) }
}

/// Tells an agent who leads.
pub fn agent_leader_frame(fence: Fence, name: &str, address: &str) -> v1::AgentDownFrame {
    let leader = v1::Leader { name: name.into(), address: address.into() };
    v1::AgentDownFrame { fence: Some(wire_fence(fence)), session: 0, frame: Some(Down::Leader(leader)) }
}

/// Tells an agent to dial another master. The fence is the highest this master knows.
pub fn agent_redial_frame(fence: Fence, why: &str) -> v1::AgentDownFrame {
    v1::AgentDownFrame { fence: Some(wire_fence(fence)), session: 0, frame: Some(Down::Redial(why.into())) }
}

/// Reads a fence.
pub fn fence(wire: Option<v1::Fence>) -> Result<Fence, WireError> {
    let wire = required("fence", wire)?;
    Ok(Fence { incarnation: wire.incarnation, term: Term(wire.term) })
}

/// Writes a fence.
pub fn wire_fence(fence: Fence) -> v1::Fence {
    v1::Fence { incarnation: fence.incarnation, term: fence.term.0 }
}
