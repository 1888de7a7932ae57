//! What goes out comes back the same, for every frame.

#![allow(clippy::unwrap_used)]

use muster_model::event::{CallOutcome, OfferWithAgent, RunOrder};
use muster_model::*;
use muster_proto::agent::agent_leader_frame;
use muster_proto::scheduler::scheduler_redial_frame;
use muster_proto::*;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use prost::Message;
use std::sync::Arc;

/// Through the bytes and back.
fn over_the_wire<M: Message + Default>(message: M) -> M {
    M::decode(&*message.encode_to_vec()).unwrap()
}

fn text() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9._-]{0,12}"
}

fn any_resources() -> impl Strategy<Value = Resources> {
    let value = prop_oneof![
        (1u64..1_000_000_000).prop_map(Value::Scalar),
        vec((0u64..60_000, 0u64..500), 1..5)
            .prop_map(|pairs| Value::ranges(pairs.into_iter().map(|(begin, n)| (begin, begin + n)))),
        btree_set("[a-z]{1,4}", 1..4)
            .prop_map(|items| Value::Set(items.iter().map(|item| Arc::from(item.as_str())).collect())),
    ];
    proptest::collection::btree_map(text(), value, 0..4).prop_map(|kinds| {
        kinds
            .iter()
            .filter(|(name, _)| *name != "gpus")
            .fold(Resources::none(), |all, (name, value)| all.with(name, value.clone()))
    })
}

fn reservation(role: &str, dynamic: bool) -> Reservation {
    // The older form has no more words for what an agent came with.
    let labels = if dynamic { vec![("k".into(), Some("v".into())), ("l".into(), None)] } else { Vec::new() };
    let principal = dynamic.then(|| "ops".into());
    Reservation { dynamic, role: Role::parse(role).unwrap(), principal, labels }
}

fn any_labelled() -> impl Strategy<Value = Resources> {
    let stacks = prop::sample::select(vec![vec!["a"], vec!["a", "a/b"], vec!["a", "a/b", "a/b/c"]]);
    (any_resources(), stacks, any::<bool>(), option::of(Just(false))).prop_map(
        |(plain, stack, dynamic, volume)| {
            let reservations: Vec<_> =
                stack.iter().enumerate().map(|(i, role)| reservation(role, dynamic || i > 0)).collect();
            let label = Label { reservations: reservations.clone(), volume: None };
            let mut all = plain.plus(&plain.relabelled(|_| Some(label.clone())));
            if let Some(read_only) = volume {
                let volume = Volume {
                    id: VolumeId::new("db"),
                    principal: Some("ops".into()),
                    container_path: "data/db".into(),
                    read_only,
                };
                let label = Label { reservations, volume: Some(volume) };
                all.insert_labelled("disk", Some(Arc::new(label)), Value::Scalar(10_000));
            }
            all
        },
    )
}

fn any_launch() -> impl Strategy<Value = LaunchNumber> {
    (1u32..4, any::<u64>(), any::<u32>()).prop_map(|(incarnation, index, n)| LaunchNumber {
        incarnation,
        index: Index(index),
        n,
    })
}

fn any_state() -> impl Strategy<Value = TaskState> {
    use TaskState::*;
    prop::sample::select(vec![
        Staging,
        Starting,
        Running,
        Killing,
        Finished,
        Failed,
        Killed,
        Error,
        Lost,
        Dropped,
        Unreachable,
        Gone,
        GoneByOperator,
        Unknown,
    ])
}

fn any_reason() -> impl Strategy<Value = Reason> {
    use Reason::*;
    prop::sample::select(vec![
        AgentDisconnected,
        AgentRemoved,
        AgentRemovedByOperator,
        AgentReregistered,
        AgentRestarted,
        ContainerLaunchFailed,
        ExecutorTerminated,
        FrameworkRemoved,
        InvalidOffers,
        Reconciliation,
        TaskInvalid,
        TaskKilledDuringLaunch,
        TaskUnauthorized,
        TaskGroupUnauthorized,
        ContainerLimitationMemory,
    ])
}

fn any_status() -> impl Strategy<Value = Status> {
    let source = prop::sample::select(vec![Source::Master, Source::Agent, Source::Executor]);
    (any_state(), source, option::of(any_reason()), text(), any::<u64>(), vec(any::<u8>(), 0..20)).prop_map(
        |(state, source, reason, message, wall, sealed)| Status {
            state,
            source,
            reason,
            message: message.into(),
            wall: WallTime(wall),
            sealed: Sealed::new(sealed),
        },
    )
}

fn any_key() -> impl Strategy<Value = TaskKey> {
    (text(), text()).prop_map(|(f, t)| TaskKey { framework_id: FrameworkId::new(f), task_id: TaskId::new(t) })
}

fn any_update() -> impl Strategy<Value = StatusUpdate> {
    (any_launch(), any_key(), any::<u32>(), any_status()).prop_map(|(launch, task, seq, status)| {
        StatusUpdate { launch, task, seq, uuid: Uuid::of(launch, seq), status }
    })
}

fn any_agent_info() -> impl Strategy<Value = (AgentInfo, Sealed)> {
    (text(), text(), any::<u16>(), any_resources(), text()).prop_map(
        |(machine, hostname, port, total, rack)| {
            let attribute = Attribute { name: "rack".into(), value: AttributeValue::Text(rack.into()) };
            let wire = mesos::AgentInfo {
                hostname: hostname.clone(),
                port: Some(port.into()),
                resources: wire_resources(&total),
                attributes: muster_proto::resource::wire_attributes(std::slice::from_ref(&attribute)),
                ..Default::default()
            };
            let info = AgentInfo {
                machine_id: MachineId::new(machine),
                hostname: hostname.into(),
                port,
                resources: total,
                attributes: vec![attribute],
            };
            (info, Sealed::new(wire.encode_to_vec()))
        },
    )
}

fn any_hello() -> impl Strategy<Value = Hello> {
    let known =
        (any_launch(), any_key(), any_state(), any::<bool>(), any_resources(), vec(any_update(), 0..3))
            .prop_map(|(launch, task, state, alive, resources, updates)| KnownTask {
                launch,
                task,
                state,
                alive,
                resources,
                updates,
            });
    (option::of(text()), any_agent_info(), vec(known, 0..3)).prop_map(|(agent_id, (info, sealed), tasks)| {
        Hello { agent_id: agent_id.map(AgentId::new), info, tasks, sealed }
    })
}

fn any_token() -> impl Strategy<Value = Option<Token>> {
    option::of(any::<[u8; 16]>().prop_map(Token))
}

fn any_agent_call() -> impl Strategy<Value = AgentCall> {
    prop_oneof![
        (any_hello(), any_token()).prop_map(|(hello, token)| {
            let ip = muster_proto::agent::ip(&hello.sealed, &hello.info.hostname);
            AgentCall::Hello(hello, token, ip)
        }),
        (any_hello(), text(), any::<u32>(), any::<u64>()).prop_map(|(hello, id, count, sum)| {
            let ip = muster_proto::agent::ip(&hello.sealed, &hello.info.hostname);
            let hello = Hello { agent_id: Some(AgentId::new(id)), tasks: Vec::new(), ..hello };
            AgentCall::HelloAsKnown(hello, LaunchSum::new(count, sum), ip)
        }),
        vec(any_launch(), 0..5).prop_map(AgentCall::Accepted),
        any_update().prop_map(AgentCall::Status),
        any_launch().prop_map(AgentCall::Ended),
        any::<u64>().prop_map(AgentCall::Pong),
        (text(), text(), vec(any::<u8>(), 0..9)).prop_map(|(f, e, data)| AgentCall::Message {
            framework_id: FrameworkId::new(f),
            executor_id: ExecutorId::new(e),
            data,
        }),
        (any_launch(), text(), text(), any_resources(), option::of(any::<i32>())).prop_map(
            |(number, f, e, resources, ended)| one_executor(KnownExecutor {
                number,
                framework_id: FrameworkId::new(f),
                executor_id: ExecutorId::new(e),
                resources,
                ended,
            })
        ),
    ]
}

fn one_executor(executor: KnownExecutor) -> AgentCall {
    let all = executor.ended.is_none();
    AgentCall::Executors { executors: vec![executor], all }
}

fn any_agent_event() -> impl Strategy<Value = AgentEvent> {
    prop_oneof![
        (text(), vec(any_launch(), 0..3), any::<u64>(), any::<u64>()).prop_map(
            |(id, forget, low_mark, ping_ms)| AgentEvent::Welcome {
                agent_id: AgentId::new(id),
                forget,
                low_mark: Index(low_mark),
                ping_ms,
            }
        ),
        (
            any_launch(),
            any_key(),
            any_resources(),
            option::of(any::<u64>()),
            any::<bool>(),
            vec(any::<u8>(), 0..9)
        )
            .prop_map(|(launch, task, resources, grace_ms, killed, sealed)| {
                AgentEvent::Run(Box::new(RunOrder {
                    launch,
                    task,
                    resources,
                    grace_ms,
                    user: "nobody".into(),
                    killed,
                    sealed: Sealed::new(sealed),
                    framework: Sealed::default(),
                    executor: None,
                    group: killed.then_some(TaskGroup { first: launch, size: 2 }),
                    volumes: vec![VolumeMount {
                        number: VolumeNumber(grace_ms.unwrap_or(7)),
                        container_path: "data/db".into(),
                        read_only: killed,
                        executor: !killed,
                    }],
                    starting: !killed,
                    terms: Default::default(),
                }))
            }),
        (any_launch(), any_key(), text(), any_resources(), option::of(0u64..1 << 40), vec(any::<u8>(), 0..9))
            .prop_map(|(launch, task, id, resources, grace_ms, framework)| {
                AgentEvent::Run(Box::new(in_executor(launch, task, &id, resources, grace_ms, framework)))
            }),
        (text(), text()).prop_map(|(f, e)| AgentEvent::ShutdownExecutor {
            framework_id: FrameworkId::new(f),
            executor_id: ExecutorId::new(e),
        }),
        any_launch().prop_map(AgentEvent::ConfirmExecutor),
        vec(any::<u64>().prop_map(VolumeNumber), 0..4).prop_map(|keep| AgentEvent::Volumes { keep }),
        (any_launch(), any_key(), option::of(any::<u64>()))
            .prop_map(|(launch, task, grace_ms)| AgentEvent::Kill { launch, task, grace_ms }),
        (any_launch(), any::<u32>()).prop_map(|(launch, seq)| AgentEvent::Confirm { launch, seq }),
        any::<u64>().prop_map(AgentEvent::Ping),
        Just(AgentEvent::ListAll),
        text().prop_map(AgentEvent::Rejected),
    ]
}

/// What is told of the executor is read of the task's description: so the two agree.
fn in_executor(
    launch: LaunchNumber,
    task: TaskKey,
    id: &str,
    resources: Resources,
    grace_ms: Option<u64>,
    framework: Vec<u8>,
) -> RunOrder {
    let info = mesos::ExecutorInfo {
        executor_id: mesos::ExecutorId { value: id.into() },
        resources: wire_resources(&resources),
        command: Some(mesos::CommandInfo { value: Some("true".into()), ..Default::default() }),
        shutdown_grace_period: grace_ms
            .map(|ms| mesos::DurationInfo { nanoseconds: i64::try_from(ms).unwrap() * 1_000_000 }),
        ..Default::default()
    };
    let wire = mesos::TaskInfo { executor: Some(info.clone()), ..Default::default() };
    RunOrder {
        launch,
        task,
        resources: Resources::none(),
        grace_ms: None,
        user: "nobody".into(),
        killed: false,
        sealed: Sealed::new(wire.encode_to_vec()),
        framework: Sealed::new(framework),
        executor: Some(Box::new(ExecutorOrder {
            executor_id: ExecutorId::new(id),
            resources,
            grace_ms,
            built_in: false,
            sealed: Sealed::new(info.encode_to_vec()),
        })),
        group: None,
        volumes: Vec::new(),
        starting: false,
        terms: Default::default(),
    }
}

fn task_info(task_id: &str, needs: &Resources) -> Vec<u8> {
    mesos::TaskInfo {
        name: "n".into(),
        task_id: mesos::TaskId { value: task_id.into() },
        agent_id: mesos::AgentId { value: "S1".into() },
        resources: wire_resources(needs),
        command: Some(mesos::CommandInfo { value: Some("true".into()), ..Default::default() }),
        ..Default::default()
    }
    .encode_to_vec()
}

fn any_spec() -> impl Strategy<Value = TaskSpec> {
    (text(), 1u64..9000, 1u64..9000)
        .prop_map(|(id, cpus, mem)| task_spec(&task_info(&id, &Resources::of(cpus, mem))).unwrap())
}

fn any_framework_info() -> impl Strategy<Value = FrameworkInfo> {
    (text(), btree_set(text(), 1..4), 0u32..1_000_000).prop_map(|(name, roles, seconds)| {
        let multi_role = mesos::framework_info::capability::Type::MultiRole;
        let wire = mesos::FrameworkInfo {
            user: "u".into(),
            name,
            failover_timeout: Some(seconds.into()),
            roles: roles.into_iter().collect(),
            capabilities: vec![mesos::framework_info::Capability { r#type: Some(multi_role.into()) }],
            ..Default::default()
        };
        framework_info(&wire.encode_to_vec()).unwrap()
    })
}

fn any_operation() -> impl Strategy<Value = (Operation, Vec<Named>)> {
    let conversion = (any_labelled(), 0u8..4).prop_map(|(all, which)| match which {
        0 => Conversion::Reserve(all),
        1 => Conversion::Unreserve(all),
        2 => Conversion::Create(all),
        _ => Conversion::Destroy(all),
    });
    prop_oneof![
        vec(any_spec(), 1..3).prop_map(|tasks| {
            let named = tasks.iter().map(|_| AgentId::new("S1").into()).collect();
            (Operation::Launch { tasks, bad: Vec::new() }, named)
        }),
        (option::of(text()), conversion).prop_map(|(id, conversion)| {
            let wire = muster_proto::operation::mesos_operation(id.as_deref(), &conversion);
            let id = id.map(OperationId::new);
            let sealed = Sealed::new(wire.encode_to_vec());
            (Operation::Convert { id, conversion, sealed }, Vec::new())
        }),
    ]
}

fn any_scheduler_call() -> impl Strategy<Value = SchedulerCall> {
    let offer_ids = || vec(text().prop_map(OfferId::new), 1..4);
    let some_roles = || vec(text().prop_map(|role| Role::parse(&role).unwrap()), 0..3);
    let agent = || option::of(text().prop_map(AgentId::new));
    prop_oneof![
        (option::of(text()), any_token(), any::<bool>(), any_framework_info(), some_roles()).prop_map(
            |(id, token, stream, info, suppressed_roles)| {
                let framework_id = id.map(FrameworkId::new);
                let wants = Box::default();
                SchedulerCall::Subscribe { framework_id, token, stream, info, suppressed_roles, wants }
            }
        ),
        (offer_ids(), vec(any_spec(), 0..3), any::<u64>()).prop_map(|(offer_ids, tasks, refuse_ms)| {
            // As a master reads it: with the agents that the tasks name.
            let named = tasks.iter().map(|_| AgentId::new("S1").into()).collect();
            SchedulerCall::Accept { offer_ids, tasks, named, bad: Vec::new(), refuse_ms }
        }),
        (offer_ids(), any::<u64>())
            .prop_map(|(offer_ids, refuse_ms)| SchedulerCall::Decline { offer_ids, refuse_ms }),
        some_roles().prop_map(|roles| SchedulerCall::Revive { roles }),
        some_roles().prop_map(|roles| SchedulerCall::Suppress { roles }),
        (text(), agent(), option::of(any::<u64>())).prop_map(|(task_id, agent_id, grace_ms)| {
            SchedulerCall::Kill { task_id: TaskId::new(task_id), agent_id, grace_ms }
        }),
        (text(), any_launch()).prop_map(|(task_id, launch)| SchedulerCall::Acknowledge {
            task_id: TaskId::new(task_id),
            uuid: Uuid::of(launch, 1),
        }),
        vec((text().prop_map(TaskId::new), agent()), 0..4)
            .prop_map(|tasks| SchedulerCall::Reconcile { tasks }),
        vec(any_resources(), 0..3).prop_map(|needs| SchedulerCall::Request { needs }),
        (text(), text(), vec(any::<u8>(), 0..9)).prop_map(|(agent, executor, data)| SchedulerCall::Message {
            agent_id: AgentId::new(agent),
            executor_id: ExecutorId::new(executor),
            data,
        }),
        Just(SchedulerCall::Teardown),
        (offer_ids(), vec(any_operation(), 1..4), any::<u64>()).prop_map(
            |(offer_ids, operations, refuse_ms)| SchedulerCall::Operate { offer_ids, operations, refuse_ms }
        ),
        (text(), any_launch()).prop_map(|(id, launch)| SchedulerCall::AcknowledgeOperation {
            operation_id: OperationId::new(id),
            uuid: Uuid::of_operation(launch),
        }),
        vec((text().prop_map(OperationId::new), agent(), option::of(text())), 0..4).prop_map(|all| {
            let asked = |(id, agent_id, provider): (_, _, Option<String>)| AskedOperation {
                id,
                agent_id,
                provider: provider.map(Into::into),
            };
            SchedulerCall::ReconcileOperations { operations: all.into_iter().map(asked).collect() }
        }),
        (any_framework_info(), some_roles()).prop_map(|(info, suppressed_roles)| {
            let wants = Box::default();
            SchedulerCall::Update { info, suppressed_roles, wants }
        }),
        (offer_ids(), any::<bool>(), any::<u64>()).prop_map(|(offer_ids, accepted, refuse_ms)| {
            SchedulerCall::AnswerInverse { offer_ids, accepted, refuse_ms }
        }),
        (text(), text()).prop_map(|(agent, executor)| SchedulerCall::Shutdown {
            agent_id: AgentId::new(agent),
            executor_id: ExecutorId::new(executor),
        }),
        (vec((text(), option::of(text()), text()), 0..3), vec((text(), text()), 0..3)).prop_map(
            |(tasks, operations)| {
                let task = |(task, agent, why): (String, Option<String>, String)| RefusedTask {
                    task_id: TaskId::new(task),
                    agent_id: agent.map(AgentId::new),
                    reason: Reason::TaskGroupUnauthorized,
                    why: why.into(),
                };
                let operation = |(id, why): (String, String)| (OperationId::new(id), why.into());
                SchedulerCall::Refused {
                    tasks: tasks.into_iter().map(task).collect(),
                    operations: operations.into_iter().map(operation).collect(),
                }
            }
        ),
    ]
}

fn any_offer() -> impl Strategy<Value = OfferWithAgent> {
    let unavailability = option::of(any_unavailability());
    (text(), text(), text(), text(), any_labelled(), any_agent_info(), unavailability).prop_map(
        |(offer, framework, role, agent, resources, (info, sealed), unavailability)| OfferWithAgent {
            offer: Offer {
                offer_id: OfferId::new(offer),
                framework_id: FrameworkId::new(framework),
                role: Role::parse(&role).unwrap(),
                agent_id: AgentId::new(agent),
                resources: resources.into(),
            },
            hostname: info.hostname,
            port: info.port,
            agent: sealed,
            unavailability,
            executor_ids: vec![ExecutorId::new("e1"), ExecutorId::new("e2")],
        },
    )
}

fn any_unavailability() -> impl Strategy<Value = Unavailability> {
    (any::<i64>(), option::of(any::<i64>()))
        .prop_map(|(start_ns, duration_ns)| Unavailability { start_ns, duration_ns })
}

fn any_inverse_offer() -> impl Strategy<Value = InverseOffer> {
    (text(), text(), text(), any_unavailability(), text(), any::<u16>(), option::of(any::<[u8; 4]>()))
        .prop_map(|(offer, framework, agent, unavailability, hostname, port, ip)| InverseOffer {
            offer_id: OfferId::new(offer),
            framework_id: FrameworkId::new(framework),
            agent_id: AgentId::new(agent),
            unavailability,
            hostname: hostname.into(),
            port,
            ip: ip.map(Into::into),
        })
}

fn any_outcome() -> impl Strategy<Value = CallOutcome> {
    let task = prop_oneof![
        any_launch().prop_map(TaskOutcome::Launched),
        (any_state(), any_reason(), text()).prop_map(|(state, reason, message)| TaskOutcome::Refused {
            state,
            reason,
            message: message.into(),
        }),
    ];
    prop_oneof![
        Just(CallOutcome::Done),
        vec((text().prop_map(TaskId::new), task), 0..4)
            .prop_map(|tasks| CallOutcome::Accepted(AcceptOutcome { tasks })),
        text().prop_map(CallOutcome::Refused),
        Just(CallOutcome::Busy),
        Just(CallOutcome::Unknown),
    ]
}

fn any_scheduler_event() -> impl Strategy<Value = SchedulerEvent> {
    prop_oneof![
        (text(), any::<u64>(), any::<u64>()).prop_map(|(id, session, heartbeat_ms)| {
            SchedulerEvent::Subscribed {
                framework_id: FrameworkId::new(id),
                session: Session(session),
                heartbeat_ms,
            }
        }),
        vec(any_offer(), 0..3).prop_map(SchedulerEvent::Offers),
        text().prop_map(|id| SchedulerEvent::Rescind(OfferId::new(id))),
        vec(any_inverse_offer(), 0..3).prop_map(SchedulerEvent::InverseOffers),
        text().prop_map(|id| SchedulerEvent::RescindInverse(OfferId::new(id))),
        (text(), option::of(text()), any_status(), option::of(any_launch())).prop_map(
            |(task_id, agent_id, status, launch)| SchedulerEvent::Update {
                task_id: TaskId::new(task_id),
                agent_id: agent_id.map(AgentId::new),
                status,
                uuid: launch.map(|launch| Uuid::of(launch, 1)),
            }
        ),
        text().prop_map(|id| SchedulerEvent::AgentLost(AgentId::new(id))),
        (text(), any_labelled(), option::of(any_launch()), option::of(text())).prop_map(
            |(id, converted, launch, provider)| SchedulerEvent::Operation(Box::new(OperationStatus {
                id: OperationId::new(&id),
                state: if launch.is_some() { OperationState::Finished } else { OperationState::Unreachable },
                message: id.into(),
                agent_id: launch.map(|_| AgentId::new("S1")),
                uuid: launch.map(Uuid::of_operation),
                converted,
                role: launch.map(|_| Role::any()),
                provider: provider.map(Into::into),
            }))
        ),
        (text(), text(), any::<i32>()).prop_map(|(agent, executor, status)| SchedulerEvent::ExecutorLost {
            agent_id: AgentId::new(agent),
            executor_id: ExecutorId::new(executor),
            status,
        }),
        text().prop_map(SchedulerEvent::Error),
        Just(SchedulerEvent::Heartbeat),
        (any::<u64>(), any_outcome()).prop_map(|(id, outcome)| SchedulerEvent::Outcome { id, outcome }),
    ]
}

fn any_fence() -> impl Strategy<Value = Fence> {
    (any::<u32>(), any::<u64>()).prop_map(|(incarnation, term)| Fence { incarnation, term: Term(term) })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn resources_round_trip(all in any_resources()) {
        prop_assert_eq!(resources(&wire_resources(&all)), Ok(all));
    }

    #[test]
    #[allow(deprecated)]
    fn labels_round_trip_in_every_form(all in any_labelled()) {
        for form in [Form::Refined, Form::Plain, Form::Both] {
            let wire = wire_resources_in(&all, form);
            let has_role = |it: &mesos::Resource| it.role.is_some();
            prop_assert!(form != Form::Refined || !wire.iter().any(has_role));
            prop_assert_eq!(resources(&wire), Ok(all.clone()));
        }
    }

    #[test]
    fn agent_calls_round_trip(session in any::<u64>(), call in any_agent_call()) {
        let frame = over_the_wire(agent_frame(Session(session), &call));
        prop_assert_eq!(agent_call(frame), Ok((Session(session), call)));
    }

    #[test]
    fn agent_events_round_trip(fence in any_fence(), session in any::<u64>(), event in any_agent_event()) {
        let frame = over_the_wire(agent_down_frame(fence, Session(session), &event));
        prop_assert_eq!(agent_event(frame), Ok((fence, Session(session), AgentDown::Event(event))));
    }

    #[test]
    fn scheduler_calls_round_trip(id in any::<u64>(), call in any_scheduler_call()) {
        let frame = over_the_wire(scheduler_frame(id, &call));
        prop_assert_eq!(scheduler_call(frame), Ok((id, call)));
    }

    #[test]
    fn scheduler_events_round_trip(fence in any_fence(), event in any_scheduler_event()) {
        let frame = scheduler_down_frame(fence, &event);
        prop_assert_eq!(scheduler_down_bytes(fence, &event), frame.encode_to_vec());
        if let Some(v1::scheduler_down_frame::Event::Offers(wire)) = &frame.event
            && let SchedulerEvent::Offers(offers) = &event
        {
            for (wire, it) in wire.offers.iter().zip(offers) {
                let resources = wire_resources(&it.offer.resources);
                let bytes: Vec<_> = resources.iter().map(Message::encode_to_vec).collect();
                prop_assert_eq!(&wire.resources, &bytes);
            }
        }
        let frame = over_the_wire(frame);
        prop_assert_eq!(scheduler_event(frame), Ok((fence, SchedulerDown::Event(event))));
    }

    #[test]
    fn noise_never_panics(bytes in vec(any::<u8>(), 0..200)) {
        let _ = task_spec(&bytes);
        let _ = framework_info(&bytes);
        let _ = agent_info(MachineId::new("m"), &bytes);
        if let Ok(frame) = v1::SchedulerFrame::decode(&*bytes) { let _ = scheduler_call(frame); }
        if let Ok(frame) = v1::AgentFrame::decode(&*bytes) { let _ = agent_call(frame); }
    }
}

#[test]
fn leader_and_redial_frames_say_so() {
    let fence = Fence { incarnation: 1, term: Term(8) };
    let (_, session, down) = agent_event(over_the_wire(agent_leader_frame(fence, "m3", "h:5050"))).unwrap();
    assert_eq!(session, Session(0));
    assert_eq!(down, AgentDown::Leader { name: "m3".into(), address: "h:5050".into() });
    let (_, down) = scheduler_event(over_the_wire(scheduler_redial_frame(fence, "no leader"))).unwrap();
    assert_eq!(down, SchedulerDown::Redial("no leader".into()));
}
