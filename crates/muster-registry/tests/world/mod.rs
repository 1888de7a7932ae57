//! Random commands that make sense often enough: they name what the registry has, and sometimes what it had.

use muster_model::*;
use muster_registry::*;

/// One random choice: what to do, and three numbers to choose by.
pub(crate) type Dice = (u8, u8, u8, u8);

/// A registry and the log that made it.
pub(crate) struct World {
    pub(crate) registry: Registry,
    pub(crate) log: Vec<(Index, Term, Entry)>,
    launches: Vec<(AgentId, LaunchNumber, TaskKey)>,
    term: u64,
    at: u64,
}

fn pick<T>(all: &[T], n: u8) -> Option<&T> {
    all.get(usize::from(n) % all.len().max(1))
}

impl World {
    pub(crate) fn new() -> Self {
        let registry = Registry::new(ClusterId::new("c"), 1);
        let mut world = Self { registry, log: Vec::new(), launches: Vec::new(), term: 0, at: 0 };
        world.commit(Command::BeginTerm(BeginTerm { reconnect_grace_ms: 5_000 }));
        let limits = Limits {
            completed_tasks_per_framework: 4,
            completed_tasks: 9,
            completed_frameworks: 2,
            completed_framework_ids_ms: 200_000,
            lost_agents: 2,
            lost_agents_ms: 300_000,
            spent_offers_ms: 30_000,
            spent_offers_per_framework: 3,
            agent_timeout_ms: 10_000,
            updates_per_task: 3,
        };
        world.commit(Command::Configure(limits));
        world
    }

    fn commit(&mut self, command: Command) -> Applied {
        if let Command::BeginTerm(_) = command {
            self.term += 1;
        }
        let (index, term) = (Index(self.log.len() as u64 + 1), Term(self.term));
        let entry = Entry {
            term,
            at: Timestamp(self.at),
            wall: WallTime(7),
            first_ticket: 0,
            commands: vec![command],
        };
        let briefly = self.briefly(&entry.commands[0]).and_then(|(command, is_known)| {
            let mut registry = self.registry.clone();
            let applied = registry.apply(index, term, &Entry { commands: vec![command], ..entry.clone() });
            registry.check_laws().unwrap();
            if !is_known {
                assert_eq!(applied.outcomes, [Outcome::Refused(Refusal::TasksChanged)]);
            }
            is_known.then(|| (registry.state_hash(), applied))
        });
        let applied = self.registry.apply(index, term, &entry);
        if let Some(briefly) = briefly {
            assert_eq!(
                briefly,
                (self.registry.state_hash(), applied.clone()),
                "a hello is the same without its tasks"
            );
        }
        for outcome in &applied.outcomes {
            let (launched, framework_id, agent_id) = match (outcome, &entry.commands[0]) {
                (Outcome::Launched(outcome), Command::Launch(it)) => {
                    (outcome, &it.framework_id, &it.agent_id)
                }
                (Outcome::Operated(outcome), Command::Operate(it)) => {
                    (&outcome.tasks, &it.framework_id, &it.agent_id)
                }
                _ => continue,
            };
            for (task_id, became) in &launched.tasks {
                if let TaskOutcome::Launched(number) = became {
                    let key = TaskKey { framework_id: framework_id.clone(), task_id: task_id.clone() };
                    self.launches.push((agent_id.clone(), *number, key));
                }
            }
        }
        self.log.push((index, term, entry));
        applied
    }

    /// The same hello without its tasks, if these live; and whether it says nothing new of them.
    fn briefly(&self, command: &Command) -> Option<(Command, bool)> {
        let (ip, hello) = match command {
            Command::AdmitAgent(hello) => (None, hello),
            Command::HelloFrom { ip, token: None, hello } => (Some(*ip), hello),
            _ => return None,
        };
        let tasks = LaunchSum::of_living(&hello.tasks)?;
        let is_known = self.registry.are_as_known(hello.agent_id.as_ref()?, tasks);
        let hello = Box::new(Hello { tasks: Vec::new(), ..(**hello).clone() });
        Some((Command::HelloAsKnown { ip, hello, tasks }, is_known))
    }

    /// Does what the dice say, and returns what it changed.
    pub(crate) fn play(&mut self, (what, a, b, c): Dice) -> Applied {
        self.at += u64::from(c) * 40;
        let frameworks: Vec<FrameworkId> = self.registry.frameworks().map(|it| it.id.clone()).collect();
        let agents: Vec<AgentId> = self.registry.agents().map(|it| it.id.clone()).collect();
        let (framework, agent) = (pick(&frameworks, a).cloned(), pick(&agents, b).cloned());
        let command = match (what % 23, framework, agent) {
            (0, framework, _) if c > 60 => subscribe(framework.filter(|_| c.is_multiple_of(2)), a),
            (0, ..) => Command::BeginTerm(BeginTerm { reconnect_grace_ms: 5_000 }),
            (1, framework, _) => match (subscribe(framework.filter(|_| !c.is_multiple_of(3)), a), b % 4) {
                (Command::Subscribe(subscribe), 0) => {
                    Command::FirstSubscribe(token(c), Subscribe { framework_id: None, ..subscribe })
                }
                (Command::Subscribe(subscribe), 1) => Command::StreamSubscribe(token(c), subscribe),
                (command, _) => command,
            },
            (2, _, agent) if a.is_multiple_of(4) => {
                let hello = self.hello(agent, b, c);
                Command::FirstHello(token(b), Box::new(Hello { agent_id: None, ..hello }))
            }
            (3, _, agent) if a.is_multiple_of(2) => Command::HelloFrom {
                ip: [10, 0, 0, c % 3].into(),
                token: None,
                hello: Box::new(self.hello(agent.filter(|_| !b.is_multiple_of(4)), b, c)),
            },
            // It lists what it should have, and that all of it goes on.
            (2 | 3, _, Some(agent)) if a % 4 == 1 => {
                let mut hello = self.hello(Some(agent.clone()), b, 0);
                let held = self.registry.tasks_of_agent(&agent).filter(|task| task.held);
                hello.tasks = held.map(living).collect();
                Command::AdmitAgent(Box::new(hello))
            }
            (2 | 3, _, agent) => {
                Command::AdmitAgent(Box::new(self.hello(agent.filter(|_| !b.is_multiple_of(4)), b, c)))
            }
            (4, Some(framework_id), _) => {
                let session = self.registry.framework(&framework_id).map_or(Session(0), |it| it.session);
                Command::DisconnectFramework { framework_id, session }
            }
            (5, Some(framework_id), _) => {
                match self.registry.framework(&framework_id).map(|it| it.connection) {
                    Some(Connection::Disconnected(it)) => {
                        Command::ExpireFramework { framework_id, disconnected: it.index }
                    }
                    _ if c > 250 => Command::Teardown { framework_id },
                    _ => Command::Tick,
                }
            }
            (6, _, Some(agent_id)) => {
                let session = self.registry.agent(&agent_id).map_or(Session(0), |it| it.session);
                Command::DisconnectAgent { agent_id, session }
            }
            (7, _, Some(agent_id)) => match self.registry.agent(&agent_id).map(|it| it.state) {
                Some(AgentState::Disconnected(it)) => {
                    Command::MarkUnreachable { agent_id, disconnected: it.index }
                }
                _ if c > 240 => Command::MarkGone { agent_id },
                _ => Command::Tick,
            },
            (8..=10, Some(framework_id), Some(agent_id)) => Command::Launch(Launch {
                framework_id,
                agent_id,
                role: Role::any(),
                offer_ids: vec![OfferId::new(format!("o{}", c % 24)), OfferId::new(format!("p{}", a % 24))],
                offered: Resources::parse("cpus:3;mem:64").unwrap(),
                tasks: (0..=b % 3).map(|n| task(c.wrapping_add(n) % 16, a)).collect(),
            }),
            (11 | 12, ..) => match pick(&self.launches, a) {
                Some((agent_id, launch, key)) => Command::Status {
                    agent_id: agent_id.clone(),
                    update: Box::new(update(*launch, key, b, u32::from(c % 6) + 1)),
                },
                None => Command::Tick,
            },
            (13, ..) => match pick(&self.launches, a) {
                Some((agent_id, launch, _)) if c.is_multiple_of(2) => {
                    Command::Accepted { agent_id: agent_id.clone(), launches: vec![*launch] }
                }
                Some((agent_id, launch, _)) => Command::Ended { agent_id: agent_id.clone(), launch: *launch },
                None => Command::Tick,
            },
            (14, ..) => {
                let waiting: Vec<_> = self.registry.tasks().filter(|it| !it.updates().is_empty()).collect();
                match pick(&waiting, a) {
                    Some(it) => Command::Acknowledge { task: it.key.clone(), uuid: it.updates()[0].uuid },
                    None => Command::Tick,
                }
            }
            (19 | 20, Some(framework_id), Some(agent_id)) => {
                let role = self.registry.framework(&framework_id).map(|it| it.info.roles[0].clone());
                let role = role.unwrap_or(Role::any());
                Command::Operate(Box::new(Operate {
                    framework_id,
                    offered: self.free(&agent_id),
                    agent_id,
                    offer_ids: vec![OfferId::new(format!("o{}", c % 24))],
                    operations: (0..=b % 3).map(|n| operation(&role, a.wrapping_add(n * 7), c)).collect(),
                    role,
                }))
            }
            (21, _, Some(agent_id)) => {
                let role = Role::parse(if a.is_multiple_of(2) { "a" } else { "b" }).unwrap();
                Command::Convert { agent_id, conversion: conversion(&role, b, c) }
            }
            (22, ..) => {
                let done: Vec<_> = self.registry.operations().collect();
                match pick(&done, a) {
                    Some(it) => Command::AcknowledgeOperation {
                        framework_id: it.framework_id.clone(),
                        operation_id: it.operation_id.clone(),
                        uuid: if c > 20 { it.uuid } else { Uuid([c; 16]) },
                    },
                    None => Command::Tick,
                }
            }
            (15, ..) => match pick(&self.launches, a) {
                Some((_, _, key)) => Command::Kill { task: key.clone(), grace_ms: None },
                None => Command::Tick,
            },
            (16, ..) => match b % 4 {
                0 => Command::SetWeights(vec![(role(a), u64::from(c)), (role(a.wrapping_add(1)), 1000)]),
                1 => Command::RemoveQuota(role(a)),
                _ => Command::SetQuotas {
                    quotas: vec![(role(a), quota(b, c))],
                    force: c.is_multiple_of(2),
                    new: c.is_multiple_of(3),
                },
            },
            (17, _, Some(agent_id)) => match a % 8 {
                0..=2 => Command::DeactivateAgent { agent_id },
                3 | 4 => Command::ReactivateAgent { agent_id },
                _ => Command::DrainAgent {
                    agent_id,
                    max_grace_ms: c.is_multiple_of(3).then_some(u64::from(c)),
                    mark_gone: c.is_multiple_of(7),
                },
            },
            (18, ..) => match a % 4 {
                0 | 1 => Command::SetSchedule((0..b % 3).map(|n| window(c.wrapping_add(n), b)).collect()),
                2 => Command::StartMaintenance(vec![machine(c)]),
                _ => Command::StopMaintenance(vec![machine(c)]),
            },
            _ => Command::Tick,
        };
        self.commit(command)
    }

    fn free(&self, id: &AgentId) -> Resources {
        let total = self.registry.agent(id).map(|agent| self.registry.total_of(agent).into_owned());
        total.unwrap_or_default().minus(&self.registry.held_on(id))
    }

    /// A hello that lists some of what the agent was ever ordered, alive or ended.
    fn hello(&self, agent_id: Option<AgentId>, b: u8, c: u8) -> Hello {
        let machine = agent_id.as_ref().and_then(|id| self.registry.agent(id)).map(|it| &it.info.machine_id);
        let tasks = self.launches.iter().enumerate().filter_map(|(n, (agent, launch, key))| {
            let luck = (n as u8).wrapping_mul(31).wrapping_add(c);
            if Some(agent) != agent_id.as_ref() || luck.is_multiple_of(3) {
                return None;
            }
            let alive = luck % 3 == 1;
            Some(KnownTask {
                launch: *launch,
                task: key.clone(),
                state: TaskState::Running,
                alive,
                resources: Resources::parse("cpus:1;mem:16").unwrap(),
                updates: if luck.is_multiple_of(5) || !alive {
                    vec![update(*launch, key, luck, 7)]
                } else {
                    vec![]
                },
            })
        });
        Hello {
            info: AgentInfo {
                machine_id: machine.cloned().unwrap_or_else(|| MachineId::new(format!("m{}", b % 6))),
                hostname: "h".into(),
                port: 1,
                resources: Resources::parse(if c > 250 {
                    "cpus:6;mem:100"
                } else {
                    "cpus:4;mem:100;disk:20"
                })
                .unwrap(),
                attributes: Vec::new(),
            },
            tasks: tasks.collect(),
            sealed: Sealed::default(),
            agent_id,
        }
    }
}

fn living(task: &Task) -> KnownTask {
    KnownTask {
        launch: task.launch,
        task: task.key.clone(),
        state: task.state,
        alive: true,
        resources: task.resources.clone(),
        updates: Vec::new(),
    }
}

/// One of few, so that they come again.
fn token(luck: u8) -> Token {
    Token([luck % 8; 16])
}

fn subscribe(framework_id: Option<FrameworkId>, a: u8) -> Command {
    Command::Subscribe(Subscribe {
        framework_id,
        info: FrameworkInfo {
            name: "f".into(),
            user: "u".into(),
            principal: None,
            roles: vec![Role::parse(if a.is_multiple_of(2) { "a" } else { "b" }).unwrap()],
            failover_timeout_ms: u64::from(a) * 100,
            capabilities: Capabilities::default(),
            sealed: Sealed::default(),
        },
        suppressed_roles: Vec::new(),
    })
}

fn role(luck: u8) -> Role {
    Role::parse(["a", "b", "a/b"][usize::from(luck) % 3]).unwrap()
}

fn quota(b: u8, c: u8) -> Quota {
    let scalars = |n: u8| Resources::parse(if n.is_multiple_of(2) { "cpus:2" } else { "" }).unwrap();
    let limit = (c.is_multiple_of(5)).then(|| ("cpus".into(), u64::from(b) * 100));
    Quota { guarantees: scalars(b / 4), limits: limit.into_iter().collect() }
}

/// One of few, by name, address or both.
fn machine(luck: u8) -> MachineName {
    MachineName {
        hostname: (!luck.is_multiple_of(2)).then(|| "H".into()),
        ip: (luck % 4 != 1).then(|| [10, 0, 0, luck % 3].into()),
    }
}

fn window(luck: u8, b: u8) -> Window {
    let unavailability = Unavailability { start_ns: i64::from(b), duration_ns: None };
    Window { machines: vec![machine(luck)], unavailability }
}

/// Reservations and volumes of few sizes and names, so that they meet.
fn conversion(role: &Role, a: u8, c: u8) -> Conversion {
    let below = Role::parse(&format!("{role}/x")).unwrap();
    let roles = if a.is_multiple_of(5) { vec![role.clone(), below] } else { vec![role.clone()] };
    let reservation = |role| Reservation { dynamic: true, role, principal: None, labels: Vec::new() };
    let volume = Volume {
        id: VolumeId::new(format!("v{}", c % 2)),
        principal: None,
        container_path: format!("p{}", c % 3).into(),
        read_only: false,
    };
    let of = |name: &str, volume: Option<Volume>, units: u64| {
        let reservations = roles.iter().cloned().map(reservation).collect();
        let mut all = Resources::none();
        let label = Label { reservations, volume };
        all.insert_labelled(name, Some(std::sync::Arc::new(label)), Value::Scalar(units * 1000));
        all
    };
    match a % 9 {
        8 => {
            let from = of("cpus", None, 1);
            let other = Role::parse("other").unwrap();
            let label = Label { reservations: vec![reservation(other)], volume: None };
            let to = from.relabelled(|_| Some(label.clone()));
            if c.is_multiple_of(2) {
                Conversion::Rereserve { from, to }
            } else {
                Conversion::Rereserve { from: to, to: from }
            }
        }
        0 | 1 => Conversion::Reserve(of("cpus", None, 1)),
        2 | 3 => Conversion::Reserve(of("disk", None, 4)),
        4 => Conversion::Create(of("disk", Some(volume), 4)),
        5 => Conversion::Destroy(of("disk", Some(volume), 4)),
        6 => Conversion::Unreserve(of("cpus", None, 1)),
        _ => Conversion::Unreserve(of("disk", None, 2)),
    }
}

fn operation(role: &Role, a: u8, c: u8) -> Operation {
    match a % 8 {
        0 => Operation::Launch { tasks: vec![task(c % 16, 1)], bad: Vec::new() },
        1 => Operation::LaunchGroup {
            tasks: (0..=c % 3).map(|n| task(c.wrapping_add(n) % 16, 4)).collect(),
            bad: Vec::new(),
        },
        2 => {
            // On what a conversion made.
            let named = conversion(role, c, a).named().clone();
            Operation::Launch {
                tasks: vec![TaskSpec { resources: named, ..task(c % 16, 1) }],
                bad: Vec::new(),
            }
        }
        _ => Operation::Convert {
            id: c.is_multiple_of(3).then(|| OperationId::new(format!("op{}", c % 9))),
            conversion: conversion(role, a, c),
            sealed: Sealed::default(),
        },
    }
}

fn task(id: u8, luck: u8) -> TaskSpec {
    TaskSpec {
        task_id: TaskId::new(format!("t{id}")),
        name: "t".into(),
        resources: Resources::parse("cpus:1;mem:16").unwrap(),
        executor: (luck.is_multiple_of(4)).then(|| muster_model::task::ExecutorSpec {
            executor_id: ExecutorId::new(format!("e{}", luck % 8)),
            resources: Resources::parse("cpus:0.5").unwrap(),
            sealed: Sealed::default(),
        }),
        grace_ms: None,
        sealed: Sealed::new(*b"sealed"),
    }
}

fn update(launch: LaunchNumber, key: &TaskKey, luck: u8, seq: u32) -> StatusUpdate {
    let state = [TaskState::Running, TaskState::Starting, TaskState::Finished, TaskState::Failed];
    StatusUpdate {
        launch,
        task: key.clone(),
        seq,
        uuid: Uuid::of(launch, seq),
        status: Status {
            state: state[usize::from(luck) % 4],
            source: Source::Executor,
            reason: None,
            message: "m".into(),
            wall: WallTime(1),
            sealed: Sealed::default(),
        },
    }
}
