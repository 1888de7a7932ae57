//! What breaks a rule is refused with the field and the fix.

#![allow(clippy::unwrap_used)]

use muster_model::{MachineId, Resources, Source, Status, TaskId, TaskState, Uuid, WallTime};
use muster_proto::mesos::value::{Range, Ranges, Scalar, Set, Type};
use muster_proto::*;
use prost::Message;

fn scalar(name: &str, value: f64) -> mesos::Resource {
    mesos::Resource {
        name: name.into(),
        r#type: Type::Scalar.into(),
        scalar: Some(Scalar { value }),
        ..Default::default()
    }
}

fn ports(pairs: &[(u64, u64)]) -> mesos::Resource {
    let range = pairs.iter().map(|&(begin, end)| Range { begin, end }).collect();
    mesos::Resource {
        name: "ports".into(),
        r#type: Type::Ranges.into(),
        ranges: Some(Ranges { range }),
        ..Default::default()
    }
}

fn task() -> mesos::TaskInfo {
    mesos::TaskInfo {
        name: "n".into(),
        task_id: mesos::TaskId { value: "t1".into() },
        agent_id: mesos::AgentId { value: "S1".into() },
        resources: vec![scalar("cpus", 0.1)],
        command: Some(mesos::CommandInfo { value: Some("true".into()), ..Default::default() }),
        ..Default::default()
    }
}

fn framework() -> mesos::FrameworkInfo {
    mesos::FrameworkInfo { user: "u".into(), name: "f".into(), ..Default::default() }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, WireError>, field: &str, problem: &str) {
    let error = result.unwrap_err();
    assert!(error.field.contains(field), "field of {error}");
    assert!(error.problem.contains(problem), "problem of {error}");
}

#[test]
fn several_entries_of_one_name_add_up() {
    let list = [scalar("cpus", 0.1), scalar("cpus", 0.2), ports(&[(1, 3)]), ports(&[(5, 6)])];
    assert_eq!(resources(&list), Ok(Resources::parse("cpus:0.3;ports:[1-3,5-6]").unwrap()));
}

#[test]
fn scalars_round_to_thousandths() {
    assert_eq!(resources(&[scalar("cpus", 0.1 + 0.2)]).unwrap().scalar("cpus"), 300);
    assert_eq!(resources(&[scalar("cpus", 0.0004)]), Ok(Resources::none()));
}

#[test]
#[allow(deprecated)]
fn bad_resources_name_the_entry() {
    refused(resources(&[scalar("cpus", 1.0), scalar("mem", -1.0)]), "resources[1].scalar", "0 or more");
    refused(resources(&[scalar("cpus", f64::NAN)]), "resources[0].scalar", "NaN");
    refused(resources(&[scalar("cpus", f64::INFINITY)]), "scalar", "at most");
    refused(resources(&[scalar("gpus", 0.5)]), "scalar", "whole number");
    refused(resources(&[scalar("", 1.0)]), "name", "missing");
    refused(resources(&[ports(&[(5, 1)])]), "ranges", "begins after");
    refused(resources(&[ports(&[(1, 5), (5, 9)])]), "ranges", "overlap");
    refused(resources(&[ports(&[(1, 2)]), scalar("ports", 1.0)]), "resources[1].type", "another type");
    let twice = Set { item: vec!["a".into(), "a".into()] };
    let set = mesos::Resource {
        name: "s".into(),
        r#type: Type::Set.into(),
        set: Some(twice),
        ..Default::default()
    };
    refused(resources(&[set]), "set", "twice");
    refused(resources(&[mesos::Resource { r#type: 9, ..scalar("x", 1.0) }]), "type", "not known");
    refused(resources(&[mesos::Resource { r#type: 1, ..scalar("x", 1.0) }]), "type", "only the value field");
    refused(resources(&[mesos::Resource { scalar: None, ..scalar("x", 1.0) }]), "scalar", "missing");
    refused(
        resources(&[mesos::Resource { role: Some("we b".into()), ..scalar("cpus", 1.0) }]),
        "resources[0].role",
        "white space",
    );
    let revocable = Some(mesos::resource::RevocableInfo {});
    refused(resources(&[mesos::Resource { revocable, ..scalar("cpus", 1.0) }]), "revocable", "not supported");
    refused(resources(&vec![scalar("cpus", 1.0); 257]), "resources", "at most 256");
}

#[test]
fn a_task_keeps_its_bytes_and_unknown_fields() {
    let mut bytes = mesos::TaskInfo {
        command: None,
        executor: Some(mesos::ExecutorInfo {
            executor_id: mesos::ExecutorId { value: "e".into() },
            command: Some(mesos::CommandInfo { value: Some("run".into()), ..Default::default() }),
            resources: vec![scalar("cpus", 0.5)],
            ..Default::default()
        }),
        kill_policy: Some(mesos::KillPolicy {
            grace_period: Some(mesos::DurationInfo { nanoseconds: 1_500_000_000 }),
        }),
        ..task()
    }
    .encode_to_vec();
    // A field of a newer Mesos, number 1000, inside the executor: a second occurrence merges.
    bytes.extend([0x2a, 3, 0xc0, 0x3e, 7]);
    let spec = task_spec(&bytes).unwrap();
    assert_eq!(&*spec.sealed, &*bytes);
    assert_eq!(spec.grace_ms, Some(1500));
    let executor = spec.executor.unwrap();
    assert_eq!(executor.resources.scalar("cpus"), 500);
    assert!(executor.sealed.ends_with(&[0xc0, 0x3e, 7]), "the unknown field is kept");
}

#[test]
fn bad_tasks_say_what_is_missing() {
    let check = |info: mesos::TaskInfo, field: &str, problem: &str| {
        refused(task_spec(&info.encode_to_vec()), field, problem)
    };
    check(mesos::TaskInfo { task_id: mesos::TaskId { value: "a/b".into() }, ..task() }, "task_id", "'/'");
    check(mesos::TaskInfo { agent_id: Default::default(), ..task() }, "agent_id", "empty");
    check(mesos::TaskInfo { resources: vec![], ..task() }, "resources", "empty");
    check(mesos::TaskInfo { command: None, ..task() }, "command", "give a command or an executor");
    check(mesos::TaskInfo { executor: Some(Default::default()), ..task() }, "command", "both");
    check(mesos::TaskInfo { command: Some(Default::default()), ..task() }, "command.value", "command line");
    let negative = Some(mesos::DurationInfo { nanoseconds: -1 });
    let kill_policy = Some(mesos::KillPolicy { grace_period: negative });
    check(mesos::TaskInfo { kill_policy, ..task() }, "kill_policy.grace_period", "negative");
    let with_ports = |own: &[(u64, u64)], executors: &[(u64, u64)]| mesos::TaskInfo {
        command: None,
        executor: Some(mesos::ExecutorInfo {
            executor_id: mesos::ExecutorId { value: "e".into() },
            command: task().command,
            resources: vec![ports(executors)],
            ..Default::default()
        }),
        resources: vec![ports(own)],
        ..task()
    };
    check(with_ports(&[(1, 2), (5, 9)], &[(9, 9)]), "resources", "of task and executor have the same ports");
    assert!(task_spec(&with_ports(&[(1, 2), (5, 8)], &[(3, 4), (9, 9)]).encode_to_vec()).is_ok());
    refused(task_spec(b"\xff\xff"), "task_info", "not a mesos.v1.TaskInfo");
    refused(task_spec(&vec![0; limits::SEALED_BYTES_MAX + 1]), "task_info", "at most");
}

#[test]
#[allow(deprecated)]
fn framework_roles_follow_multi_role() {
    let check = |info: mesos::FrameworkInfo| framework_info(&info.encode_to_vec());
    assert_eq!(check(framework()).unwrap().roles, [muster_model::Role::any()]);
    let multi = mesos::framework_info::Capability { r#type: Some(6) };
    let with = |roles: &[&str]| mesos::FrameworkInfo {
        roles: roles.iter().map(ToString::to_string).collect(),
        capabilities: vec![multi],
        ..framework()
    };
    let roles: Vec<_> = check(with(&["b", "a"])).unwrap().roles.iter().map(ToString::to_string).collect();
    assert_eq!(roles, ["a", "b"], "sorted");
    refused(check(with(&["a", "a"])), "roles", "twice");
    refused(check(with(&[])), "roles", "at least one");
    refused(check(with(&["a b"])), "roles", "white space");
    refused(check(mesos::FrameworkInfo { role: Some("x".into()), ..with(&["a"]) }), "role", "unset");
    refused(check(mesos::FrameworkInfo { capabilities: vec![], ..with(&["a"]) }), "roles", "MULTI_ROLE");
}

#[test]
fn failover_timeouts_are_times() {
    let check = |seconds| {
        let info = mesos::FrameworkInfo { failover_timeout: Some(seconds), ..framework() };
        framework_info(&info.encode_to_vec()).map(|info| info.failover_timeout_ms)
    };
    assert_eq!(check(1.5), Ok(1500));
    assert_eq!(check(-1.0), Ok(0));
    refused(check(1e10), "failover_timeout", "292 years");
    refused(check(f64::NAN), "failover_timeout", "NaN");
}

#[test]
fn calls_are_bounded_and_frames_complete() {
    let call = |call| scheduler_call(v1::SchedulerFrame { id: 1, call: Some(call), ..Default::default() });
    use v1::scheduler_frame::Call;
    refused(scheduler_call(v1::SchedulerFrame::default()), "call", "missing");
    refused(agent_call(v1::AgentFrame::default()), "frame", "missing");
    refused(scheduler_event(v1::SchedulerDownFrame::default()), "fence", "missing");
    let accept = v1::Accept {
        offer_ids: vec!["o".into()],
        task_infos: vec![bytes::Bytes::from_static(b"x"); 10_001],
        refuse_ms: None,
        operations: Vec::new(),
    };
    refused(call(Call::Accept(accept)), "accept.task_infos", "at most 10000");
    refused(call(Call::Decline(v1::Decline::default())), "decline.offer_ids", "empty");
    let acknowledge = v1::Acknowledge { task_id: "t".into(), uuid: bytes::Bytes::from_static(b"short") };
    refused(call(Call::Acknowledge(acknowledge)), "acknowledge.uuid", "16 bytes");
    let roles = v1::Roles { roles: vec!["a".into(); 65] };
    refused(call(Call::Revive(roles)), "revive.roles", "at most 64");
    let bad = v1::Accept {
        offer_ids: vec!["o".into()],
        task_infos: vec![task().encode_to_vec().into(), b"\xff".as_slice().into()],
        refuse_ms: None,
        operations: Vec::new(),
    };
    refused(call(Call::Accept(bad)), "accept.task_infos[1]", "not a mesos.v1.TaskInfo");
}

#[test]
fn a_bad_task_of_an_accept_leaves_the_others_be() {
    let named = |id: &str| mesos::TaskInfo { task_id: mesos::TaskId { value: id.into() }, ..task() };
    let infos = [named("t1"), mesos::TaskInfo { command: None, ..named("t2") }, named("t3")];
    let accept = v1::Accept {
        offer_ids: vec!["o".into()],
        task_infos: infos.iter().map(|info| info.encode_to_vec().into()).collect(),
        refuse_ms: None,
        operations: Vec::new(),
    };
    let call = Some(v1::scheduler_frame::Call::Accept(accept));
    let (_, call) = scheduler_call(v1::SchedulerFrame { id: 1, call, ..Default::default() }).unwrap();
    let muster_model::SchedulerCall::Accept { tasks, named, bad, .. } = call else { panic!("{call:?}") };
    let ids: Vec<_> = tasks.iter().map(|task| task.task_id.as_str()).collect();
    assert_eq!(ids, ["t1", "t3"]);
    assert!(named.len() == 2 && named.iter().all(|it| it.agent_id.as_str() == task().agent_id.value));
    assert_eq!((bad[0].at, bad[0].task_id.as_str()), (1, "t2"));
    assert!(bad[0].why.contains("command"), "{}", bad[0].why);
}

#[test]
fn agents_need_a_name_and_a_port() {
    let info = |hostname: &str, port| {
        let info = mesos::AgentInfo { hostname: hostname.into(), port, ..Default::default() };
        agent_info(MachineId::new("m"), &info.encode_to_vec())
    };
    assert_eq!(info("h", None).unwrap().port, 5051);
    refused(info("", None), "hostname", "missing");
    refused(info("h", Some(70_000)), "agent_info.port", "65535");
}

#[test]
fn a_whole_status_keeps_what_the_executor_said() {
    let sent = mesos::TaskStatus { healthy: Some(true), reason: Some(28), ..Default::default() };
    let mut status = Status {
        state: TaskState::Running,
        source: Source::Executor,
        reason: None,
        message: "".into(),
        wall: WallTime(1500),
        sealed: muster_model::Sealed::new(sent.encode_to_vec()),
    };
    let uuid = Uuid([7; 16]);
    let whole = mesos_status(&TaskId::new("t"), None, &status, Some(&uuid)).unwrap();
    assert_eq!((whole.healthy, whole.reason, whole.state), (Some(true), Some(28), 1));
    assert_eq!(whole.uuid.as_deref(), Some(&[7; 16][..]));
    status.source = Source::Master;
    let whole = mesos_status(&TaskId::new("t"), None, &status, None).unwrap();
    assert_eq!((whole.healthy, whole.reason, whole.timestamp), (Some(true), None, Some(1.5)));
    status.sealed = Default::default();
    let whole = mesos_status(&TaskId::new("t"), None, &status, None).unwrap();
    assert_eq!((whole.timestamp, whole.uuid), (Some(1.5), None));
}

fn operate(operations: &[mesos::offer::Operation]) -> Vec<muster_model::Operation> {
    let accept = v1::Accept {
        offer_ids: vec!["o".into()],
        operations: operations.iter().map(|it| it.encode_to_vec().into()).collect(),
        ..Default::default()
    };
    let call = Some(v1::scheduler_frame::Call::Accept(accept));
    let (_, call) = scheduler_call(v1::SchedulerFrame { id: 1, call, ..Default::default() }).unwrap();
    let muster_model::SchedulerCall::Operate { operations, .. } = call else { panic!("{call:?}") };
    operations.into_iter().map(|(operation, _)| operation).collect()
}

fn group(change: impl FnOnce(&mut mesos::offer::operation::LaunchGroup)) -> mesos::offer::Operation {
    let executor = mesos::ExecutorInfo {
        executor_id: mesos::ExecutorId { value: "e".into() },
        r#type: Some(mesos::executor_info::Type::Custom.into()),
        command: Some(mesos::CommandInfo { value: Some("run".into()), ..Default::default() }),
        resources: vec![scalar("cpus", 0.1), scalar("mem", 32.0), scalar("disk", 8.0)],
        ..Default::default()
    };
    let task = mesos::TaskInfo { command: None, ..task() };
    let task_group = mesos::TaskGroupInfo { tasks: vec![task] };
    let mut group = mesos::offer::operation::LaunchGroup { executor, task_group };
    change(&mut group);
    let kind = mesos::offer::operation::Type::LaunchGroup;
    mesos::offer::Operation { r#type: Some(kind.into()), launch_group: Some(group), ..Default::default() }
}

#[test]
fn a_groups_tasks_run_in_its_executor() {
    let operations = operate(&[group(|_| {})]);
    let [muster_model::Operation::LaunchGroup { tasks, bad }] = operations.as_slice() else { panic!() };
    assert!(bad.is_empty(), "{bad:?}");
    let info = mesos::TaskInfo::decode(&*tasks[0].sealed).unwrap();
    assert_eq!(info.executor.unwrap().executor_id.value, "e", "the executor is told of it");
    assert_eq!(tasks[0].executor.as_ref().unwrap().executor_id.as_str(), "e");
}

#[test]
fn a_task_of_a_group_may_have_a_command_which_its_executor_carries_out() {
    let command = || Some(mesos::CommandInfo { value: Some("sleep 1".into()), ..Default::default() });
    let operations = operate(&[group(|it| it.task_group.tasks[0].command = command())]);
    let [muster_model::Operation::LaunchGroup { tasks, bad }] = operations.as_slice() else { panic!() };
    assert!(bad.is_empty(), "{bad:?}");
    let info = mesos::TaskInfo::decode(&*tasks[0].sealed).unwrap();
    assert_eq!((info.command, info.executor.unwrap().executor_id.value.as_str()), (command(), "e"));
    // One that stands alone has the one or the other.
    let both = mesos::TaskInfo { command: command(), ..info_with_executor() };
    refused(task_spec(&both.encode_to_vec()), "command", "both set");
}

fn info_with_executor() -> mesos::TaskInfo {
    let executor = group(|_| {}).launch_group.unwrap().executor;
    mesos::TaskInfo { executor: Some(executor), ..task() }
}

#[test]
fn a_default_executor_is_for_groups_and_has_no_command() {
    let default = |it: &mut mesos::offer::operation::LaunchGroup| {
        it.executor.r#type = Some(mesos::executor_info::Type::Default.into());
        it.task_group.tasks[0].command = it.executor.command.take();
    };
    let operations = operate(&[group(default)]);
    let [muster_model::Operation::LaunchGroup { tasks, bad }] = operations.as_slice() else { panic!() };
    assert!(bad.is_empty() && tasks.len() == 1, "{bad:?}");
    let mut alone = mesos::TaskInfo { command: None, ..info_with_executor() };
    alone.executor.as_mut().unwrap().r#type = Some(mesos::executor_info::Type::Default.into());
    refused(task_spec(&alone.encode_to_vec()), "executor.type", "LAUNCH_GROUP");
}

#[test]
fn what_is_wrong_with_a_group_is_wrong_with_all_its_tasks() {
    use mesos::executor_info::Type;
    let other = |it: &mut mesos::offer::operation::LaunchGroup| {
        let mut other = it.executor.clone();
        other.executor_id.value = "other".into();
        it.task_group.tasks[0].executor = Some(other);
    };
    for (operation, part) in [
        (group(|it| drop(it.executor.resources.pop())), "uses no disk"),
        (group(|it| it.executor.resources[1] = scalar("mem", 31.0)), "less memory"),
        (group(|it| it.executor.resources[0] = scalar("cpus", 0.001)), "less CPUs"),
        (group(|it| it.executor.r#type = None), "must be set"),
        (
            group(|it| it.executor.r#type = Some(Type::Default.into())),
            "DEFAULT runs the command of each task",
        ),
        (
            group(|it| {
                it.executor.r#type = Some(Type::Default.into());
                it.task_group.tasks[0].command = it.executor.command.clone();
            }),
            "command' must not be set for 'DEFAULT'",
        ),
        (group(|it| it.task_group.tasks[0].check = Some(Default::default())), "check.type"),
        (group(other), "differs"),
        (group(|it| it.executor.command = None), "command"),
    ] {
        let operations = operate(&[operation]);
        let [muster_model::Operation::LaunchGroup { tasks, bad }] = operations.as_slice() else { panic!() };
        assert!(tasks.is_empty() && bad.len() == 1 && bad[0].why.contains(part), "{part}: {bad:?}");
    }
}

#[test]
fn a_bad_operation_leaves_the_others_be() {
    use mesos::offer::operation::{Reserve, Type};
    let reserve = |resources| mesos::offer::Operation {
        r#type: Some(Type::Reserve.into()),
        id: Some(mesos::OperationId { value: "r1".into() }),
        reserve: Some(Reserve { resources, source: Vec::new() }),
        ..Default::default()
    };
    let reservation = |role: &str| mesos::resource::ReservationInfo {
        role: Some(role.into()),
        r#type: Some(mesos::resource::reservation_info::Type::Dynamic.into()),
        ..Default::default()
    };
    let cpus = |role: &str| mesos::Resource { reservations: vec![reservation(role)], ..scalar("cpus", 1.0) };
    let unknown = mesos::offer::Operation::default();
    let grow = mesos::offer::Operation { r#type: Some(Type::GrowVolume.into()), ..Default::default() };
    let all = operate(&[unknown, reserve(vec![cpus("*")]), grow, reserve(vec![cpus("web")])]);
    let bad = |at: usize| match &all[at] {
        muster_model::Operation::Bad { why, .. } => why.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(all.len(), 3, "one of no known type is passed over");
    assert!(bad(0).contains("Invalid resources") && bad(1).contains("GROW_VOLUME is not supported"));
    let muster_model::Operation::Convert { id, conversion, sealed } = &all[2] else { panic!() };
    assert_eq!((id.as_ref().unwrap().as_str(), conversion.name()), ("r1", "RESERVE"));
    assert_eq!(mesos::offer::Operation::decode(&**sealed).unwrap(), reserve(vec![cpus("web")]));
}
