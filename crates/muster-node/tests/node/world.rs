//! A machine and its disk, driven by lines of text.

use muster_model::{
    AgentCall, AgentEvent, AgentId, AgentInfo, CheckKind, CheckResult, CheckTerms, ExecutorCall,
    ExecutorEvent, ExecutorId, ExecutorName, ExecutorOrder, ExecutorUpdate, Fence, FrameworkId, HealthTerms,
    Index, LaunchNumber, MachineId, Reason, Resources, Sealed, Session, Source, Status, StatusUpdate,
    TaskGroup, TaskId, TaskKey, TaskState, TaskTerms, Term, Told, Uuid, VolumeMount, VolumeNumber, WallTime,
    event::RunOrder,
};
use muster_node::{Down, Effect, End, Input, Limited, Node, NodeConfig, Process, Record, Saved, Which};

pub(crate) fn config() -> NodeConfig {
    NodeConfig {
        info: AgentInfo {
            machine_id: MachineId::new("machine"),
            hostname: "host".into(),
            port: 1,
            resources: Resources::of(4_000, 1_024),
            attributes: Vec::new(),
        },
        sealed: Sealed::default(),
        token: muster_model::Token([7; 16]),
        grace_ms: 5_000,
        repeat_ms: 10_000,
        repeat_ms_max: 30_000,
        welcome_ms: 15_000,
        executor_registration_ms: 60_000,
        executor_reregistration_ms: 15_000,
        executor_grace_ms: 5_000,
        probes_max: 2,
        seal,
        tasks_max: 8,
        answered_max: 20,
        wall_at_zero_ms: 0,
    }
}

/// What is told of a task, to be read.
fn seal(told: &Told<'_>) -> Sealed {
    let within = told.within.map_or(String::new(), |(number, id)| format!(" in {id} as {number}"));
    let healthy = told.healthy.map_or("", |healthy| if healthy { " healthy" } else { " unhealthy" });
    let check = told.check.map_or(String::new(), |found| format!(" {found:?}"));
    Sealed::new(format!("{within}{healthy}{check}").trim().as_bytes())
}

/// `completion=1000 health=TCP,delay,interval,timeout,grace,failures check=HTTP,delay,interval,timeout killing`
fn terms(value: impl Fn(&str) -> Option<String>, tells_killing: bool) -> TaskTerms {
    let check = |text: &str| {
        let (kind, times) = text.split_once(',').unwrap();
        let times: Vec<u64> = times.split(',').map(|ms| ms.parse().unwrap()).collect();
        let kind = match kind {
            "COMMAND" => CheckKind::Command,
            "HTTP" => CheckKind::Http,
            _ => CheckKind::Tcp,
        };
        let terms = CheckTerms { kind, delay_ms: times[0], interval_ms: times[1], timeout_ms: times[2] };
        (terms, times)
    };
    TaskTerms {
        tells_killing,
        completion_ms: value("completion").map(|ms| ms.parse().unwrap()),
        health: value("health").map(|text| {
            let (check, times) = check(&text);
            HealthTerms { check, grace_ms: times[3], failures_max: u32::try_from(times[4]).unwrap() }
        }),
        check: value("check").map(|text| check(&text).0),
    }
}

pub(crate) fn launch(text: &str) -> LaunchNumber {
    let (index, n) = text.split_once('.').unwrap_or((text, "0"));
    LaunchNumber { incarnation: 1, index: Index(index.parse().unwrap()), n: n.parse().unwrap() }
}

pub(crate) fn key(launch: LaunchNumber) -> TaskKey {
    let place = if launch.n == 0 { String::new() } else { format!(".{}", launch.n) };
    TaskKey { framework_id: FrameworkId::new("f"), task_id: TaskId::new(format!("t{}{place}", launch.index)) }
}

pub(crate) fn process(launch: LaunchNumber) -> Process {
    Process { pid: launch.index.0 as u32, start_time: 1, boot_id: "boot".into() }
}

pub(crate) struct World {
    node: Node,
    now_ms: u64,
    fence: Fence,
    session: Session,
    stream: u64,
    /// Checkpoints that are not synced.
    waiting: Vec<(u64, Vec<Record>)>,
    synced: Saved,
}

impl Default for World {
    fn default() -> Self {
        Self {
            node: Node::recover(config(), Saved::default()),
            now_ms: 0,
            fence: Fence { incarnation: 1, term: Term(1) },
            session: Session(1),
            stream: 1,
            waiting: Vec::new(),
            synced: Saved::default(),
        }
    }
}

impl World {
    /// One line: what to do, then `key=value` words.
    pub(crate) fn obey(&mut self, line: &str) -> Vec<String> {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap();
        let rest: Vec<&str> = words.collect();
        let value = |key: &str| rest.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let number = |key: &str| value(key).map(|text| text.parse::<u64>().unwrap());
        let first = || launch(rest[0]);
        // Words that hold for this line only.
        let fence = Fence { term: number("term").map_or(self.fence.term, Term), ..self.fence };
        let session = number("session").map_or(self.session, Session);
        let stream = number("stream").unwrap_or(self.stream);
        let frame = |down| Input::Frame { stream, fence, session, down };
        let event = |event| frame(Down::Event(event));
        let input = match verb {
            "begin" => Input::Begin,
            "open" => {
                self.stream = stream;
                Input::StreamOpened { stream }
            }
            "close" => Input::StreamClosed { stream },
            "leader" => {
                self.fence = fence;
                Input::Frame {
                    stream,
                    fence,
                    session: Session(0),
                    down: Down::Leader { name: "m1".into(), address: "a:1".into() },
                }
            }
            "redial" => frame(Down::Redial("no leader".into())),
            "welcome" => {
                self.session = session;
                event(AgentEvent::Welcome {
                    agent_id: AgentId::new("S1"),
                    forget: value("forget")
                        .map(|list| list.split(',').map(launch).collect())
                        .unwrap_or_default(),
                    low_mark: Index(number("low").unwrap_or(0)),
                    ping_ms: 10_000,
                })
            }
            "list" => {
                let down = Down::Event(AgentEvent::ListAll);
                Input::Frame { stream, fence, session: Session(0), down }
            }
            "run" => event(AgentEvent::Run(Box::new(RunOrder {
                launch: first(),
                task: key(value("task").map_or_else(first, launch)),
                resources: Resources::of(100, 1),
                grace_ms: number("grace"),
                user: "".into(),
                killed: rest.contains(&"killed"),
                sealed: Sealed::default(),
                framework: Sealed::new(value("framework").unwrap_or_default().as_bytes()),
                executor: value("in").or(value("within")).map(|name| {
                    let built_in = value("within").is_some();
                    Box::new(ExecutorOrder { built_in, ..executor(name) })
                }),
                group: number("group").map(|size| TaskGroup {
                    first: LaunchNumber { n: 0, ..first() },
                    size: u32::try_from(size).unwrap(),
                }),
                volumes: value("volumes")
                    .map(|list| list.split(',').map(mount).collect())
                    .unwrap_or_default(),
                starting: rest.contains(&"starting"),
                terms: terms(|key| value(key).map(str::to_owned), rest.contains(&"killing")),
            }))),
            "found" | "missed" => {
                let which = if rest[1] == "health" { Which::Health } else { Which::Check };
                let what = rest.get(2).copied().filter(|word| !word.contains('='));
                let result = match (verb, what) {
                    ("missed", why) => Err(why.unwrap_or("too late").into()),
                    (_, Some(status)) => Ok(match which {
                        Which::Health => CheckResult::Exit(status.parse().unwrap()),
                        Which::Check => CheckResult::Status(status.parse().unwrap()),
                    }),
                    (_, None) => Ok(CheckResult::Connected(true)),
                };
                Input::Probed { launch: first(), which, number: number("probe").unwrap(), result }
            }
            "volumes" => event(AgentEvent::Volumes {
                keep: rest.iter().map(|text| VolumeNumber(text.parse().unwrap())).collect(),
            }),
            "kill" => {
                event(AgentEvent::Kill { launch: first(), task: key(first()), grace_ms: number("grace") })
            }
            "confirm" => event(AgentEvent::Confirm { launch: first(), seq: rest[1].parse().unwrap() }),
            "ping" => event(AgentEvent::Ping(rest[0].parse().unwrap())),
            "shutdown" => event(AgentEvent::ShutdownExecutor {
                framework_id: FrameworkId::new("f"),
                executor_id: ExecutorId::new(rest[0]),
            }),
            "forget-executor" => event(AgentEvent::ConfirmExecutor(first())),
            "tell" => event(AgentEvent::Message {
                framework_id: FrameworkId::new("f"),
                executor_id: ExecutorId::new(rest[0]),
                data: b"hello".to_vec(),
            }),
            "subscribe" => {
                let list = |key: &str| value(key).into_iter().flat_map(|list| list.split(','));
                let said = ExecutorCall::Subscribe {
                    tasks: list("tasks").map(TaskId::new).collect(),
                    updates: list("updates").map(said_of).collect(),
                };
                Input::Executor { call: number("call").unwrap(), from: name(rest[0]), said }
            }
            "says" => Input::Executor {
                call: number("call").unwrap(),
                from: name(rest[0]),
                said: match value("of") {
                    Some(text) => ExecutorCall::Update(said_of(text)),
                    None => ExecutorCall::Message(b"hello".to_vec()),
                },
            },
            "gone" => Input::ExecutorGone { stream: rest[0].parse().unwrap() },
            "reject" => event(AgentEvent::Rejected("gone".into())),
            "held" => Input::Started { launch: first(), process: process(first()) },
            "runs" => Input::Released { launch: first() },
            "mounted" => Input::Mounted {
                launch: first(),
                failed: rest.contains(&"not").then(|| "Failed to mount a volume".into()),
            },
            "ended" => Input::Ended { launch: first(), end: end(&rest[1..]) },
            "at" => {
                self.now_ms = rest[0].parse().unwrap();
                Input::Wake
            }
            "sync" => return self.sync(),
            "fail" => Input::CheckpointFailed("no space".into()),
            "crash" => {
                if rest.contains(&"unsynced") {
                    self.keep_waiting();
                }
                self.waiting.clear();
                self.node = Node::recover(config(), self.synced.clone());
                let processes = self.node.processes().map(|(launch, _)| format!("has a process: {launch}"));
                return processes.collect();
            }
            "show" => return self.show(),
            other => panic!("no such line: {other}"),
        };
        self.step(input)
    }

    fn keep_waiting(&mut self) -> Option<u64> {
        let ticket = self.waiting.last().map(|(ticket, _)| *ticket);
        for (_, records) in self.waiting.drain(..) {
            records.iter().for_each(|record| self.synced.apply(record));
        }
        ticket
    }

    fn sync(&mut self) -> Vec<String> {
        match self.keep_waiting() {
            Some(ticket) => self.step(Input::Synced { ticket }),
            None => vec!["nothing waits".into()],
        }
    }

    fn show(&self) -> Vec<String> {
        let saved = self.node.saved();
        let mut lines = vec![format!(
            "fence {}, low mark {}, answered {:?}",
            saved.fence,
            saved.low_mark.index,
            saved.answered.iter().map(ToString::to_string).collect::<Vec<_>>()
        )];
        lines.extend(saved.tasks.iter().map(|(launch, task)| {
            format!("{launch} {} with {} unconfirmed", task.state, task.updates.len())
        }));
        lines.extend(
            saved.executors.runs.iter().map(|(number, run)| {
                format!("executor {} as {number}, ended {:?}", run.intent.name, run.ended)
            }),
        );
        lines.push(format!("wakes at {:?}", self.node.wake_at()));
        lines
    }

    fn step(&mut self, input: Input) -> Vec<String> {
        let mut effects = Vec::new();
        self.node.step(self.now_ms, input, &mut effects);
        let mut lines = Vec::new();
        for effect in effects {
            if let Effect::Send { call: AgentCall::Executors { executors, all: true }, .. } = &effect
                && executors.is_empty()
            {
                continue; // with each welcome: shown where there are any
            }
            lines.push(match effect {
                Effect::Checkpoint { ticket, records } => {
                    let names: Vec<String> = records.iter().map(record_name).collect();
                    self.waiting.push((ticket, records));
                    format!("keep {}", names.join(", "))
                }
                Effect::Send { session, call, .. } => format!("say [{session}] {}", call_name(&call)),
                Effect::Dial => "dial".into(),
                Effect::Redial { reason, .. } => format!("dial another: {reason}"),
                Effect::Start(start) => {
                    let within = start.within.map(|it| format!(" within {}", it.executor.number));
                    let within = within.unwrap_or_default();
                    format!("start {}{within}{}", start.launch, shown_mounts(&start.volumes))
                }
                Effect::Mount { launch, number, volumes, used, .. } => {
                    let used: Vec<String> = used.iter().map(|it| format!(" beside {it}")).collect();
                    format!("mount of {launch} for {number}{}{}", shown_mounts(&volumes), used.concat())
                }
                Effect::KeepVolumes { incarnation, keep } => {
                    let keep: Vec<String> = keep.iter().map(ToString::to_string).collect();
                    format!("keep volumes of {incarnation}: {}", keep.join(", "))
                }
                Effect::Resize { number, resources } => format!("resize {number} to {resources}"),
                Effect::Release { launch } => format!("release {launch}"),
                Effect::Abandon { launch } => format!("abandon {launch}"),
                Effect::Signal { launch, signal } => format!("signal {launch} {signal:?}"),
                Effect::Remove { launch, .. } => format!("remove {launch}"),
                Effect::RemoveExit { launch } => format!("remove the exit of {launch}"),
                Effect::Probe(probe) => {
                    let (launch, which, number) = (probe.launch, probe.which, probe.number);
                    format!("probe {launch} {which:?} as {number} for {}", probe.timeout_ms)
                }
                Effect::StartExecutor(start) => {
                    let volumes = shown_mounts(&start.volumes);
                    format!("start {} as {}{volumes}", start.intent.name, start.intent.number)
                }
                Effect::Answer { call, answer } => format!("answer {call}: {answer:?}"),
                Effect::Tell { stream, event } => format!("tell {stream}: {}", event_name(&event)),
                Effect::HangUp { stream } => format!("hang up {stream}"),
                Effect::Stop(why) => format!("stop: {why}"),
            });
        }
        lines
    }
}

pub(crate) fn name(id: &str) -> ExecutorName {
    ExecutorName { framework_id: FrameworkId::new("f"), executor_id: ExecutorId::new(id) }
}

pub(crate) fn executor(id: &str) -> ExecutorOrder {
    ExecutorOrder {
        executor_id: ExecutorId::new(id),
        resources: Resources::of(100, 1),
        grace_ms: None,
        built_in: false,
        sealed: Sealed::default(),
    }
}

/// `t10/1/RUNNING`: of which task, the first byte of its uuid, the state.
fn said_of(text: &str) -> ExecutorUpdate {
    let [task, uuid, state] = text.split('/').collect::<Vec<_>>()[..] else { panic!("no update: {text}") };
    let state = match state {
        "STARTING" => TaskState::Starting,
        "RUNNING" => TaskState::Running,
        "FINISHED" => TaskState::Finished,
        "KILLED" => TaskState::Killed,
        other => panic!("no such state: {other}"),
    };
    update_of(task, uuid.parse().unwrap(), state)
}

pub(crate) fn update_of(task: &str, uuid: u8, state: TaskState) -> ExecutorUpdate {
    ExecutorUpdate {
        task_id: TaskId::new(task),
        uuid: Uuid([uuid; 16]),
        status: Status {
            state,
            source: Source::Executor,
            reason: None,
            message: "".into(),
            wall: WallTime(0),
            sealed: Sealed::new(*b"whole"),
        },
    }
}

fn event_name(event: &ExecutorEvent) -> String {
    match event {
        ExecutorEvent::Subscribed { number, .. } => format!("subscribed as {number}"),
        ExecutorEvent::Launch { .. } => "launch".into(),
        ExecutorEvent::LaunchGroup { tasks } => format!("launch group of {}", tasks.len()),
        ExecutorEvent::Kill { task_id, grace_ms: None } => format!("kill {task_id}"),
        ExecutorEvent::Kill { task_id, grace_ms: Some(ms) } => format!("kill {task_id} in {ms}"),
        ExecutorEvent::Acknowledged { task_id, uuid } => format!("acknowledged {task_id}/{}", uuid.0[0]),
        ExecutorEvent::Message(_) => "message".into(),
        ExecutorEvent::Shutdown => "shutdown".into(),
    }
}

fn end(words: &[&str]) -> End {
    match words {
        ["exit", code] => End::Exited(code.parse().unwrap()),
        ["signal", number] => End::Signaled(number.parse().unwrap()),
        ["unreleased"] => End::NotReleased,
        ["failed"] => End::StartFailed("no such program".into()),
        ["invalid"] => End::Invalid("no command".into()),
        ["unknown"] => End::Unknown,
        ["oom"] => End::Limited(Box::new(Limited {
            wait_status: 9,
            reason: Reason::ContainerLimitationMemory,
            message: "Memory limit exceeded".into(),
            sealed: Sealed::new(&b"limitation"[..]),
        })),
        other => panic!("no such end: {other:?}"),
    }
}

fn record_name(record: &Record) -> String {
    match record {
        Record::Snapshot(_) => "snapshot".into(),
        Record::Identity(id) => format!("identity {id}"),
        Record::Fence(fence) => format!("fence {fence}"),
        Record::LowMark(mark) => format!("low mark {}", mark.index),
        Record::Intent(intent) => format!("intent {}", intent.launch),
        Record::Refused { launch, .. } => format!("refused {launch}"),
        Record::Started { launch, .. } => format!("process of {launch}"),
        Record::KillWanted { launch, grace_ms } => format!("kill of {launch} in {grace_ms}"),
        Record::Update(update) => format!("update {}", update_name(update)),
        Record::Confirmed { launch, seq } => format!("confirmed {launch} {seq}"),
        Record::Forgotten { launch } => format!("forgotten {launch}"),
        Record::Executors(_) => "executors".into(),
        Record::Executor(intent) => format!("executor {} as {}", intent.name, intent.number),
        Record::InExecutor { launch, executor } => format!("{launch} in {executor}"),
        Record::Handed { launch } => format!("handed {launch}"),
        Record::ExecutorHeld { executor, .. } => format!("process of {executor}"),
        Record::ExecutorUnwanted { executor } => format!("unwanted {executor}"),
        Record::ExecutorEnded { executor, status } => format!("ended {executor} with {status}"),
        Record::ExecutorForgotten { executor } => format!("forgotten executor {executor}"),
        Record::Frameworks(_) => "frameworks".into(),
        Record::Groups(_) => "groups".into(),
        Record::Volumes(_) => "volumes".into(),
        Record::KilledGroups(_) => "killed groups".into(),
        Record::KilledGroup { first } => format!("killed group {first}"),
        Record::AllWatched(_) => "all watched".into(),
        Record::Terms { launch, .. } => format!("terms of {launch}"),
        Record::Ran { launch, wall } => format!("{launch} runs since {}", wall.0),
        Record::Health { launch, healthy } => format!("{launch} healthy: {healthy}"),
        Record::Found { launch, found } => format!("{launch} found {found:?}"),
        Record::EndedFor { launch, cause } => format!("{launch} ends for {cause:?}"),
        Record::AllBuiltIn(_) => "all built in".into(),
        Record::BuiltIn { executor } => format!("built in {executor}"),
        Record::Mounts { launch, volumes } => format!("{launch} uses{}", shown_mounts(volumes)),
        Record::InGroup { launch, group } => format!("{launch} in group {} of {}", group.first, group.size),
        Record::HandedGroup { launches } => {
            let launches: Vec<String> = launches.iter().map(ToString::to_string).collect();
            format!("handed group {}", launches.join(", "))
        }
        Record::Framework { framework_id, sealed } => {
            format!("framework {framework_id} {}", String::from_utf8_lossy(sealed))
        }
    }
}

fn update_name(update: &StatusUpdate) -> String {
    format!("{}#{} {}", update.launch, update.seq, update.status.state)
}

fn call_name(call: &AgentCall) -> String {
    match call {
        AgentCall::Hello(hello, ..) => {
            let tasks: Vec<String> = hello
                .tasks
                .iter()
                .map(|task| {
                    let alive = if task.alive { "alive" } else { "ended" };
                    let seqs: Vec<u32> = task.updates.iter().map(|update| update.seq).collect();
                    format!("{} {} {alive} {seqs:?}", task.launch, task.state)
                })
                .collect();
            let id = hello.agent_id.as_ref().map_or("new", AgentId::as_str);
            format!("hello {id} [{}]", tasks.join(", "))
        }
        AgentCall::HelloAsKnown(hello, living, _) => {
            let id = hello.agent_id.as_ref().expect("agents that are known have ids");
            assert!(hello.tasks.is_empty());
            format!("hello {id} with {} tasks as known", living.count())
        }
        AgentCall::Accepted(launches) => {
            let launches: Vec<String> = launches.iter().map(ToString::to_string).collect();
            format!("accepted {}", launches.join(", "))
        }
        AgentCall::Status(update) => {
            let reason = update.status.reason.map_or(String::new(), |reason| format!(" {}", reason.name()));
            let told = String::from_utf8_lossy(&update.status.sealed);
            let told = match told.is_empty() || update.status.sealed == Sealed::new(*b"whole") {
                true => String::new(),
                false => format!(" ({told})"),
            };
            format!("status {}{reason} {:?}{told}", update_name(update), update.status.message)
        }
        AgentCall::Ended(launch) => format!("ended {launch}"),
        AgentCall::Pong(n) => format!("pong {n}"),
        AgentCall::Message { executor_id, .. } => format!("message of {executor_id}"),
        AgentCall::Executors { executors, all } => {
            let shown = executors.iter().map(|known| match known.ended {
                None => format!("{} lives as {}", known.executor_id, known.number),
                Some(status) => format!("{} ended as {} with {status}", known.executor_id, known.number),
            });
            let shown: Vec<String> = shown.collect();
            format!("{} executors [{}]", if *all { "all" } else { "of" }, shown.join(", "))
        }
    }
}

/// `7:data`, or `7:data!` in the executor's own.
fn mount(text: &str) -> VolumeMount {
    let (number, path) = text.split_once(':').unwrap();
    VolumeMount {
        number: VolumeNumber(number.parse().unwrap()),
        container_path: path.trim_end_matches('!').into(),
        read_only: false,
        executor: path.ends_with('!'),
    }
}

fn shown_mounts(volumes: &[VolumeMount]) -> String {
    volumes.iter().map(|it| format!(" volume {} at {}", it.number, it.container_path)).collect()
}
