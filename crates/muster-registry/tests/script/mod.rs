//! The language of the scenario files.

mod resources;

use muster_model::*;
use muster_registry::*;
use resources::parse;
use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

struct Script {
    registry: Registry,
    index: u64,
    term: u64,
    at: u64,
    frameworks: BTreeMap<String, FrameworkId>,
    agents: BTreeMap<String, AgentId>,
    launches: BTreeMap<String, LaunchNumber>,
}

/// Runs a scenario: keeps its comments and commands, writes what happens below each command.
pub(crate) fn run(text: &str) -> String {
    let mut script = Script {
        registry: Registry::new(ClusterId::new("c"), 1),
        index: 0,
        term: 0,
        at: 0,
        frameworks: BTreeMap::new(),
        agents: BTreeMap::new(),
        launches: BTreeMap::new(),
    };
    let mut out = String::new();
    for line in text.lines() {
        if line.starts_with("  ") {
            continue; // what was expected before
        }
        writeln!(out, "{line}").unwrap();
        if !line.is_empty() && !line.starts_with('#') {
            script.line(line, &mut out);
            script.registry.check_laws().unwrap_or_else(|law| panic!("{line}: {law}"));
            let records: Vec<_> = script.registry.records().collect();
            assert!(Registry::restore(records).unwrap() == script.registry, "{line}: restores equal");
        }
    }
    out
}

/// `name=value` words of a line.
struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    fn value(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }
    fn number(&self, name: &str) -> Option<u64> {
        self.value(name).map(|text| text.parse().unwrap())
    }
    fn list(&self, name: &str) -> Vec<&'a str> {
        self.value(name).map(|text| text.split(',').collect()).unwrap_or_default()
    }
}

impl Script {
    fn line(&mut self, line: &str, out: &mut String) {
        let words = Words(line.split_whitespace().collect());
        let arg = |n: usize| words.0.get(n).copied().unwrap_or_else(|| panic!("{line}: too few words"));
        let command = match arg(0) {
            "at" => {
                self.at = arg(1).parse().unwrap();
                return;
            }
            "show" => return self.show(out),
            "events" => {
                // Whether the token names the framework's newest event stream.
                let stream = token(arg(2).parse().unwrap());
                let session = self.registry.stream_session(&self.frameworks[arg(1)], stream);
                let text = session.map_or("nobody's".into(), |session| format!("session {session}"));
                return out.push_str(&format!("  {text}\n"));
            }
            "term" => {
                self.term += 1;
                Command::BeginTerm(BeginTerm { reconnect_grace_ms: words.number("grace").unwrap_or(60_000) })
            }
            "tick" => Command::Tick,
            "stale" => {
                // An entry that was decided in the term before the one it is written in.
                self.term += 1;
                let entry = self.entry(vec![Command::Tick]);
                let entry = Entry { term: Term(self.term - 1), ..entry };
                return self.commit(&entry, line, out);
            }
            "subscribe" => {
                let name = arg(1);
                let roles = words.list("roles");
                let roles = if roles.is_empty() { vec!["*"] } else { roles };
                let subscribe = Subscribe {
                    framework_id: self
                        .frameworks
                        .get(name)
                        .cloned()
                        .filter(|_| words.value("token").is_none()),
                    info: FrameworkInfo {
                        name: name.into(),
                        user: words.value("user").unwrap_or("u").into(),
                        principal: words.value("principal").map(Into::into),
                        roles: roles.into_iter().map(|role| Role::parse(role).unwrap()).collect(),
                        failover_timeout_ms: words.number("timeout").unwrap_or(0),
                        capabilities: Capabilities {
                            reservation_refinement: words.0.contains(&"refined"),
                            ..Default::default()
                        },
                        sealed: Sealed::default(),
                    },
                    suppressed_roles: Vec::new(),
                };
                match (words.number("token"), words.number("events")) {
                    (Some(n), _) => Command::FirstSubscribe(token(n), subscribe),
                    (None, Some(n)) => Command::StreamSubscribe(token(n), subscribe),
                    (None, None) => Command::Subscribe(subscribe),
                }
            }
            "disconnect" => {
                let framework_id = self.frameworks[arg(1)].clone();
                let session = self.registry.framework(&framework_id).map_or(Session(0), |it| it.session);
                Command::DisconnectFramework { framework_id, session }
            }
            "expire" => {
                let framework_id = self.frameworks[arg(1)].clone();
                let disconnected = match self.registry.framework(&framework_id).map(|it| it.connection) {
                    Some(Connection::Disconnected(it)) => it.index,
                    _ => Index(words.number("index").unwrap_or(0)),
                };
                Command::ExpireFramework { framework_id, disconnected }
            }
            "teardown" => Command::Teardown { framework_id: self.frameworks[arg(1)].clone() },
            "hello" => {
                let hello = Box::new(self.hello(arg(1), arg(2), &words));
                match (words.number("token"), words.value("ip")) {
                    (Some(n), None) => {
                        Command::FirstHello(token(n), Box::new(Hello { agent_id: None, ..*hello }))
                    }
                    (None, None) => Command::AdmitAgent(hello),
                    (n, Some(ip)) => {
                        Command::HelloFrom { ip: ip.parse().unwrap(), token: n.map(token), hello }
                    }
                }
            }
            "lose" => {
                let agent_id = self.agents[arg(1)].clone();
                let session = self.registry.agent(&agent_id).map_or(Session(0), |it| it.session);
                Command::DisconnectAgent { agent_id, session }
            }
            "unreachable" => {
                let agent_id = self.agents[arg(1)].clone();
                let disconnected = match self.registry.agent(&agent_id).map(|it| it.state) {
                    Some(AgentState::Disconnected(it)) => it.index,
                    _ => Index(0),
                };
                Command::MarkUnreachable { agent_id, disconnected }
            }
            "gone" => Command::MarkGone { agent_id: self.agents[arg(1)].clone() },
            "launch" => {
                let task = |word: &&str| {
                    let (id, resources) = word.split_once('=')?;
                    if ["offers", "offered", "executor", "role", "grace"].contains(&id) {
                        return None;
                    }
                    let executor = words.value("executor").map(|text| muster_model::task::ExecutorSpec {
                        executor_id: ExecutorId::new(text.split_once('/').map_or(text, |(id, _)| id)),
                        resources: Resources::parse("cpus:0.1").unwrap(),
                        sealed: Sealed::new(text.as_bytes()),
                    });
                    Some(TaskSpec {
                        task_id: TaskId::new(id),
                        name: id.into(),
                        resources: parse(resources),
                        executor,
                        grace_ms: words.number("grace"),
                        sealed: Sealed::new(*b"task"),
                    })
                };
                let agent_id = self.agents[arg(2)].clone();
                let offered = match words.value("offered") {
                    Some(text) => parse(text),
                    None => self.registry.total_of(self.registry.agent(&agent_id).unwrap()).into_owned(),
                };
                Command::Launch(Launch {
                    framework_id: self.frameworks[arg(1)].clone(),
                    agent_id,
                    role: words.value("role").map_or(Role::any(), |role| Role::parse(role).unwrap()),
                    offer_ids: words.list("offers").into_iter().map(OfferId::new).collect(),
                    offered,
                    tasks: words.0.iter().skip(3).filter_map(task).collect(),
                })
            }
            "operate" => self.operate(&words),
            "convert" => Command::Convert {
                agent_id: self.agents[arg(1)].clone(),
                conversion: conversion(arg(2).split_once('=').unwrap()).unwrap(),
            },
            "ack-operation" => {
                let framework_id = self.frameworks[arg(1)].clone();
                let operation_id = OperationId::new(arg(2));
                let known = self.registry.operation(&framework_id, &operation_id);
                let uuid = known.map_or(Uuid([9; 16]), |known| known.uuid);
                Command::AcknowledgeOperation { framework_id, operation_id, uuid }
            }
            "accepted" => Command::Accepted {
                agent_id: self.agents[arg(1)].clone(),
                launches: words.0[2..].iter().map(|task| self.launches[*task]).collect(),
            },
            "status" => {
                let (agent_id, update) = (self.agents[arg(1)].clone(), self.update(arg(2), arg(3), &words));
                Command::Status { agent_id, update: Box::new(update) }
            }
            "ended" => {
                Command::Ended { agent_id: self.agents[arg(1)].clone(), launch: self.launches[arg(2)] }
            }
            "executor" => {
                let (framework, executor) = arg(2).split_once('/').unwrap();
                let known = KnownExecutor {
                    number: self.launches[arg(3)],
                    framework_id: self.frameworks[framework].clone(),
                    executor_id: ExecutorId::new(executor),
                    resources: Resources::parse("cpus:0.1").unwrap(),
                    ended: words.number("ended").map(|status| status as i32),
                };
                let agent_id = self.agents[arg(1)].clone();
                Command::Executors { agent_id, executors: vec![known], all: words.0.contains(&"all") }
            }
            "executors" => {
                Command::Executors { agent_id: self.agents[arg(1)].clone(), executors: Vec::new(), all: true }
            }
            "ack" => {
                let task = self.key(arg(1));
                let head = self.registry.task(&task).and_then(|task| task.updates().first());
                Command::Acknowledge { task, uuid: head.map_or(Uuid([9; 16]), |head| head.uuid) }
            }
            "kill" => Command::Kill { task: self.key(arg(1)), grace_ms: words.number("grace") },
            "weights" => Command::SetWeights(
                words.0[1..].iter().filter_map(|word| word.split_once('=')).map(weight).collect(),
            ),
            "quota" => Command::SetQuotas {
                quotas: vec![(Role::parse(arg(1)).unwrap(), quota(&words))],
                force: words.0.contains(&"force"),
                new: words.0.contains(&"new"),
            },
            "no-quota" => Command::RemoveQuota(Role::parse(arg(1)).unwrap()),
            "deactivate" => Command::DeactivateAgent { agent_id: self.agents[arg(1)].clone() },
            "reactivate" => Command::ReactivateAgent { agent_id: self.agents[arg(1)].clone() },
            "drain" => Command::DrainAgent {
                agent_id: self.agents[arg(1)].clone(),
                max_grace_ms: words.number("grace"),
                mark_gone: words.0.contains(&"gone"),
            },
            // A window for each word: `host,host:ip@start`.
            "schedule" => Command::SetSchedule(words.0[1..].iter().map(|word| window(word)).collect()),
            "down" => Command::StartMaintenance(words.0[1..].iter().map(|word| machine(word)).collect()),
            "up" => Command::StopMaintenance(words.0[1..].iter().map(|word| machine(word)).collect()),
            "limits" => Command::Configure(Limits {
                completed_tasks_per_framework: words.number("completed-tasks").unwrap_or(1000) as u32,
                spent_offers_per_framework: words.number("spent").unwrap_or(1024) as u32,
                completed_frameworks: words.number("completed-frameworks").unwrap_or(50) as u32,
                lost_agents: words.number("lost-agents").unwrap_or(1000) as u32,
                updates_per_task: words.number("updates").unwrap_or(16) as u32,
                agent_timeout_ms: words.number("agent-timeout").unwrap_or(75_000),
                ..Default::default()
            }),
            other => panic!("{other}: no such command"),
        };
        let entry = self.entry(vec![command]);
        self.commit(&entry, line, out);
    }

    /// `operate F1 A1 offers=o1 role=web reserve:ID=cpus(web!ops):2 launch=t1/cpus:1 group=t2/cpus:1,t3/cpus:1`
    fn operate(&self, words: &Words<'_>) -> Command {
        let agent_id = self.agents[words.0[2]].clone();
        let total = || self.registry.total_of(self.registry.agent(&agent_id).unwrap()).into_owned();
        let executor = words.value("executor").map(|id| muster_model::task::ExecutorSpec {
            executor_id: ExecutorId::new(id),
            resources: Resources::parse("cpus:0.1").unwrap(),
            sealed: Sealed::new(id.as_bytes()),
        });
        let task = |text: &str| {
            let (id, resources) = text.split_once('/').unwrap();
            TaskSpec {
                task_id: TaskId::new(id),
                name: id.into(),
                resources: parse(resources),
                executor: executor.clone(),
                grace_ms: None,
                sealed: Sealed::new(*b"task"),
            }
        };
        let operation = |word: &&str| {
            let (what, text) = word.split_once('=')?;
            let (name, id) = what.split_once(':').map_or((what, None), |(name, id)| (name, Some(id)));
            let tasks = || text.split(',').filter(|text| text.contains('/')).map(task).collect();
            Some(match name {
                "launch" => Operation::Launch { tasks: tasks(), bad: Vec::new() },
                "group" => {
                    let bad = text.split(',').zip(0..).filter(|(text, _)| !text.contains('/'));
                    let why = "it is described wrongly";
                    let bad =
                        bad.map(|(id, at)| task::BadTask { at, task_id: TaskId::new(id), why: why.into() });
                    Operation::LaunchGroup { tasks: tasks(), bad: bad.collect() }
                }
                _ => Operation::Convert {
                    id: id.map(OperationId::new),
                    conversion: conversion((name, text))?,
                    sealed: Sealed::new(*b"operation"),
                },
            })
        };
        Command::Operate(Box::new(Operate {
            framework_id: self.frameworks[words.0[1]].clone(),
            role: words.value("role").map_or(Role::any(), |role| Role::parse(role).unwrap()),
            offer_ids: words.list("offers").into_iter().map(OfferId::new).collect(),
            offered: words.value("offered").map_or_else(total, parse),
            operations: words.0[3..].iter().filter_map(operation).collect(),
            agent_id,
        }))
    }

    fn entry(&self, commands: Vec<Command>) -> Entry {
        Entry { term: Term(self.term), at: Timestamp(self.at), wall: WallTime(0), first_ticket: 1, commands }
    }

    fn commit(&mut self, entry: &Entry, line: &str, out: &mut String) {
        self.index += 1;
        let applied = self.registry.apply(Index(self.index), Term(self.term), entry);
        for outcome in &applied.outcomes {
            let name = line.split_whitespace().nth(1).unwrap_or("");
            match outcome {
                Outcome::Subscribed { framework_id, .. } => {
                    self.frameworks.insert(name.into(), framework_id.clone());
                }
                Outcome::Admitted { agent_id, .. } => drop(self.agents.insert(name.into(), agent_id.clone())),
                Outcome::Launched(outcome) => {
                    for (id, became) in &outcome.tasks {
                        if let TaskOutcome::Launched(launch) = became {
                            self.launches.insert(id.to_string(), *launch);
                        }
                    }
                }
                Outcome::Operated(outcome) => {
                    for (id, became) in &outcome.tasks.tasks {
                        if let TaskOutcome::Launched(launch) = became {
                            self.launches.insert(id.to_string(), *launch);
                        }
                    }
                }
                _ => {}
            }
            writeln!(out, "  -> {}", Shown(outcome)).unwrap();
        }
        for change in &applied.changes {
            writeln!(out, "  * {}", Shown(change)).unwrap();
        }
    }

    fn key(&self, task: &str) -> TaskKey {
        let (framework, task) = task.split_once('/').unwrap_or(("F1", task));
        TaskKey { framework_id: self.frameworks[framework].clone(), task_id: TaskId::new(task) }
    }

    fn update(&self, task: &str, state: &str, words: &Words<'_>) -> StatusUpdate {
        let key = self.key(task);
        let former = words.value("launch").map(|text| text.parse().unwrap());
        let launch = former.unwrap_or_else(|| self.launches[key.task_id.as_str()]);
        let seq = words.number("seq").unwrap_or(1) as u32;
        StatusUpdate {
            launch,
            task: key,
            seq,
            uuid: Uuid::of(launch, seq),
            status: Status {
                state: parse_state(state),
                source: Source::Executor,
                reason: None,
                message: "".into(),
                wall: WallTime(0),
                sealed: Sealed::default(),
            },
        }
    }

    /// `hello A1 cpus:4;mem:8 new t1:RUNNING t2:FINISHED! t3:STARTING,RUNNING` lists t1 alive, t2 ended with its update,
    /// and t3 alive with its first two.
    fn hello(&self, name: &str, resources: &str, words: &Words<'_>) -> Hello {
        let is_new = words.0.contains(&"new");
        let tasks = words.0.iter().skip(3).filter_map(|word| {
            let (task, state) = word.split_once(':')?;
            let ended = state.ends_with('!');
            let state = state.trim_end_matches('!');
            let states: Vec<&str> = state.split(',').collect();
            let update = self.update(task, states.last()?, &Words(vec!["seq=9"]));
            let first_ones = states.iter().zip(["seq=1", "seq=2", "seq=3"]);
            let updates = match (ended, states.len()) {
                (true, _) => vec![update.clone()],
                (false, 1) => Vec::new(),
                (false, _) => first_ones.map(|(it, seq)| self.update(task, it, &Words(vec![seq]))).collect(),
            };
            Some(KnownTask {
                launch: update.launch,
                task: update.task,
                state: update.status.state,
                alive: !ended,
                resources: Resources::parse("cpus:1").unwrap(),
                updates,
            })
        });
        Hello {
            agent_id: if is_new { None } else { self.agents.get(name).cloned() },
            info: AgentInfo {
                machine_id: MachineId::new(words.value("machine").unwrap_or(name)),
                hostname: name.into(),
                port: 5051,
                resources: Resources::parse(resources).unwrap(),
                attributes: Vec::new(),
            },
            tasks: tasks.collect(),
            sealed: Sealed::default(),
        }
    }

    fn show(&self, out: &mut String) {
        for framework in self.registry.frameworks() {
            let connection = match framework.connection {
                Connection::Connected => "connected".into(),
                Connection::Disconnected(it) => {
                    format!("disconnected at #{} until {}", it.index, it.deadline.0)
                }
            };
            writeln!(out, "  framework {} session {} {connection}", framework.id, framework.session).unwrap();
        }
        for agent in self.registry.agents() {
            let held = self.registry.held_on(&agent.id);
            let state = match agent.state {
                AgentState::Disconnected(it) => {
                    format!("disconnected at #{} until {}", it.index, it.deadline.0)
                }
                _ => agent.state_name().into(),
            };
            let strays = agent.strays.len();
            let duty = match self.registry.duty(&agent.id) {
                None => String::new(),
                Some(Duty { drain: None }) => ", deactivated".into(),
                Some(Duty { drain: Some(drain) }) => format!(", {:?}", drain.state),
            };
            let away = self.registry.unavailability(&agent.id);
            let away = away.map_or(String::new(), |it| format!(", away from {}", it.start_ns));
            writeln!(out, "  agent {} {state}, holds [{held}], {strays} strays{duty}{away}", agent.id)
                .unwrap();
            if let Some(carved) = self.registry.carved(&agent.id) {
                let (total, numbers) = (self.registry.total_of(agent), &carved.volumes);
                writeln!(out, "    has [{total}], volumes {numbers:?}").unwrap();
            }
        }
        for task in self.registry.tasks() {
            let flags = [(task.held, "held"), (task.accepted, "accepted"), (task.kill().is_some(), "killed")];
            let flags: Vec<_> = flags.iter().filter(|(is, _)| *is).map(|(_, flag)| *flag).collect();
            let waiting: Vec<_> = task.updates().iter().map(|it| it.status.state.name()).collect();
            let flags = flags.join(" ");
            write!(out, "  task {} {} {flags} waiting {waiting:?}", task.key, task.state).unwrap();
            if let Some(group) = self.registry.group_of(task.launch) {
                write!(out, " in group {} of {}", group.first, group.size).unwrap();
            }
            let mounts = self.registry.mounts(&task.agent_id, &task.resources, false);
            for mount in mounts {
                write!(out, " volume {} at {}", mount.number, mount.container_path).unwrap();
            }
            out.push('\n');
        }
        for (role, RoleSettings { weight_milli, quota }) in self.registry.role_settings() {
            let weight = weight_milli.map_or("as configured".into(), |weight| weight.to_string());
            let Quota { guarantees, limits } = quota;
            writeln!(out, "  role {role} weight {weight}, at least [{guarantees}], at most {limits:?}")
                .unwrap();
        }
        for Window { machines, unavailability } in self.registry.windows() {
            let state = |it: &MachineName| if self.registry.is_down(it) { "down" } else { "draining" };
            let machines: Vec<_> = machines.iter().map(|it| format!("{it} {}", state(it))).collect();
            writeln!(out, "  from {}: {}", unavailability.start_ns, machines.join(", ")).unwrap();
        }
        for task in self.registry.completed_tasks() {
            writeln!(out, "  completed {} {}", task.key, task.state).unwrap();
        }
    }
}

/// `("reserve", "cpus(web!ops):2")`
fn conversion((name, text): (&str, &str)) -> Option<Conversion> {
    Some(match name {
        "reserve" => Conversion::Reserve(parse(text)),
        "unreserve" => Conversion::Unreserve(parse(text)),
        "create" => Conversion::Create(parse(text)),
        "destroy" => Conversion::Destroy(parse(text)),
        // `rereserve=cpus(web!):1>cpus(blue!):1`
        "rereserve" => {
            let (from, to) = text.split_once('>')?;
            Conversion::Rereserve { from: parse(from), to: parse(to) }
        }
        _ => return None,
    })
}

fn parse_state(text: &str) -> TaskState {
    use TaskState::*;
    [Staging, Starting, Running, Killing, Finished, Failed, Killed, Lost]
        .into_iter()
        .find(|state| state.name().strip_prefix("TASK_") == Some(text))
        .unwrap_or_else(|| panic!("{text}: no such state"))
}

/// `web=2500`: thousandths.
fn weight((role, weight): (&str, &str)) -> (Role, u64) {
    (Role::parse(role).unwrap(), weight.parse().unwrap())
}

/// `least=cpus:1 most=cpus:2`, each of which may be left out.
fn quota(words: &Words<'_>) -> Quota {
    let amounts = |name| Resources::parse(words.value(name).unwrap_or_default()).unwrap();
    let limit = |kind: &str| (kind.into(), amounts("most").scalar(kind));
    let kinds: Vec<String> = amounts("most").iter().map(|(kind, _)| kind.to_owned()).collect();
    let mut limits: BTreeMap<_, _> = kinds.iter().map(|kind| limit(kind)).collect();
    limits.extend(words.value("none").map(|kind| (kind.into(), 0)));
    Quota { guarantees: amounts("least"), limits }
}

/// `host`, `host:ip` or `:ip`.
fn machine(word: &str) -> MachineName {
    let (hostname, ip) = word.split_once(':').unwrap_or((word, ""));
    MachineName { hostname: (!hostname.is_empty()).then(|| hostname.into()), ip: ip.parse().ok() }
}

fn window(word: &str) -> Window {
    let (machines, start) = word.split_once('@').unwrap();
    let unavailability = Unavailability { start_ns: start.parse().unwrap(), duration_ns: None };
    Window { machines: machines.split(',').map(machine).collect(), unavailability }
}

/// Outcomes and changes in a line each, without what never matters here.
struct Shown<T>(T);

impl fmt::Display for Shown<&Outcome> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Outcome::Done => write!(f, "done"),
            Outcome::Subscribed { framework_id, session } => {
                write!(f, "subscribed {framework_id} session {session}")
            }
            Outcome::Admitted { agent_id, session, forget, confirm, low_mark } => {
                write!(f, "admitted {agent_id} session {session} low mark {low_mark}")?;
                forget.iter().try_for_each(|launch| write!(f, " forget {launch}"))?;
                confirm.iter().try_for_each(|(launch, seq)| write!(f, " confirm {launch}#{seq}"))
            }
            Outcome::Launched(outcome) => write!(f, "{}", tasks(outcome).join("; ")),
            Outcome::Operated(outcome) => {
                let operation = |it: &OperationOutcome| {
                    let id = it.id.as_ref().map_or("operation".into(), |id| format!("operation {id}"));
                    match &it.became {
                        OperationBecame::Finished(uuid) => format!("{id} finished {}", uuid.launch()),
                        OperationBecame::Refused(why) => format!("{id} refused ({why})"),
                    }
                };
                let operations = outcome.operations.iter().map(operation);
                let all: Vec<_> = operations.chain(tasks(&outcome.tasks)).collect();
                write!(f, "{}", all.join("; "))
            }
            Outcome::Confirmed => write!(f, "confirmed"),
            Outcome::Refused(refusal) => write!(f, "refused: {refusal}"),
        }
    }
}

fn tasks(outcome: &AcceptOutcome) -> Vec<String> {
    let tasks = outcome.tasks.iter().map(|(id, became)| match became {
        TaskOutcome::Launched(launch) => format!("{id} launched {launch}"),
        TaskOutcome::Refused { state, reason, message } => {
            format!("{id} {state} {} ({message})", reason.name())
        }
    });
    tasks.collect()
}

impl fmt::Display for Shown<&Change> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Change::TermBegan => write!(f, "term began"),
            Change::FrameworkSubscribed(it) => write!(f, "{} subscribed", it.id),
            Change::FrameworkUpdated(it) => write!(f, "{} described itself anew", it.id),
            Change::FrameworkDisconnected(id, session) => write!(f, "{id} session {session} ended"),
            Change::FrameworkRemoved(id) => write!(f, "{id} removed"),
            Change::AgentAdmitted(it) => write!(f, "{} admitted", it.id),
            Change::AgentDisconnected(id, session) => write!(f, "{id} session {session} ended"),
            Change::AgentUnreachable(id) => write!(f, "{id} unreachable"),
            Change::AgentRemoved(id) => write!(f, "{id} removed"),
            Change::HeldChanged { agent_id, account, freed, taken } => {
                let account = account.as_ref().map_or("nobody".into(), |(id, _)| id.to_string());
                write!(f, "{agent_id} for {account}: -[{freed}] +[{taken}]")
            }
            Change::RunDue(task) => write!(f, "run {} on {}", task.key, task.agent_id),
            Change::UpdateDue { task, status, .. } => {
                let reason = status.reason.map_or("", |reason| reason.name());
                write!(f, "tell {task} {} {reason}", status.state)
            }
            Change::KillDue(task) => write!(f, "kill {} on {}", task.key, task.agent_id),
            Change::StrayFound { agent_id, launch, task } => {
                write!(f, "kill stray {launch} ({task}) on {agent_id}")
            }
            Change::TaskCompleted(key) => write!(f, "{key} completed"),
            Change::ExecutorEnded { agent_id, framework_id, executor_id, status } => {
                write!(f, "executor {framework_id}/{executor_id} on {agent_id} ended with {status}")
            }
            Change::RoleSettings(role, settings) => {
                let RoleSettings { weight_milli, quota: Quota { guarantees, limits } } = &**settings;
                write!(f, "role {role}: weight {weight_milli:?}, at least [{guarantees}], at most {limits:?}")
            }
            Change::AgentOfferable { agent_id, offerable: true } => write!(f, "offer {agent_id}"),
            Change::AgentOfferable { agent_id, offerable: false } => write!(f, "offer {agent_id} no more"),
            Change::AgentShutDown(id) => write!(f, "stop {id}"),
            Change::UnavailabilityChanged(id) => write!(f, "{id} will be away at another time"),
            Change::TotalChanged { agent_id, total } => write!(f, "{agent_id} has [{total}]"),
            Change::VolumesDestroyed(id) => write!(f, "{id} has fewer volumes"),
            Change::OperationDue(it) => {
                write!(f, "tell {} operation {} done", it.framework_id, it.operation_id)
            }
            Change::ExecutorUnwanted { agent_id, framework_id, executor_id } => {
                write!(f, "end executor {framework_id}/{executor_id} on {agent_id}")
            }
        }
    }
}

/// What a client draws.
fn token(n: u64) -> Token {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    Token(bytes)
}
