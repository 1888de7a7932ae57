//! What a real agent of Mesos 1.11 was recorded to answer (`muster-master/tests/mesos-wire`), asked of an agent of ours that
//! runs the same tasks.
//!
//! Answers are compared line by line, each the path of a value and the value, in the order in which they came. What
//! differs from run to run becomes a word; where muster differs by intent, the table says in what.

use crate::{
    master::AgentStream,
    runner::cases,
    world::{World, launch},
};
use muster_model::{
    AgentEvent, AgentId, FrameworkId, Index, Resources, Sealed, TaskId, TaskKey, event::RunOrder,
};
use muster_proto::{
    json::Codec,
    mesos::{self, CommandInfo, TaskInfo, framework_info::capability},
};
use prost::Message;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

cases!(an_agent_answers_as_mesos_does, an_executor_is_told_what_mesos_tells_it,);

const CLUSTER: &str = "88ffdd40-8dcb-43d8-829e-213dbdd3dde8";

/// A transcript, and the paths of values that differ by intent.
type Replayed = (&'static str, &'static [&'static str]);

const REPLAYED: &[Replayed] = &[
    ("agent-executor-err", &[]),
    ("agent-http-containers", &[]),
    ("agent-http-files_browse_path_", &[]),
    ("agent-http-health", &[]),
    // Flags of Mesos that mean nothing here.
    ("agent-http-flags", &[".flags"]),
    (
        "agent-http-metrics_snapshot",
        &[
            // Sandboxes are kept by their number, not by their age.
            ".slave/executor_directory_max_allowed_age_secs",
            // Which limits hold here, Mesos' agents do not tell.
            ".muster/can_contain/images",
            ".muster/can_contain/native",
            ".muster/can_contain/oci",
            ".muster/can_enforce/cpu",
            ".muster/can_enforce/cpu_quota",
            ".muster/can_enforce/freezer",
            ".muster/can_enforce/memory",
            ".muster/can_enforce/pids",
            ".muster/launch_ms/count",
            ".muster/launch_ms/max",
            ".muster/launch_ms/p50",
            ".muster/launch_ms/p90",
            ".muster/launch_ms/p99",
        ],
    ),
    ("agent-http-monitor_statistics", &[]),
    (
        "agent-http-state",
        &[
            ".git_sha",
            ".git_tag",
            ".flags",
            ".external_log_file", // it logs to one
            ".cgroups",           // which limits hold here
            ".containerizers",
            ".limits_enforced",
            ".capabilities", // what this agent can do
            // No addresses of containers: they are the agent's.
            ".frameworks[].executors[].tasks[].statuses[].container_status.network_infos",
            ".frameworks[].completed_executors[].completed_tasks[].statuses[].container_status.network_infos",
        ],
    ),
    ("agent-op-GET_AGENT", &[]),
    ("agent-op-GET_CONTAINERS", &[]),
    // A command is its own executor, and holds nothing beside what its task does.
    (
        "agent-op-GET_EXECUTORS",
        &[
            ".get_executors.executors[].executor_info.command",
            ".get_executors.executors[].executor_info.resources",
            ".get_executors.completed_executors[].executor_info.command",
            ".get_executors.completed_executors[].executor_info.resources",
        ],
    ),
    ("agent-op-GET_HEALTH", &[]),
];

/// JSON with the fields of objects in their order.
enum Json {
    Object(Vec<(String, Json)>),
    List(Vec<Json>),
    Leaf(serde_json::Value),
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Json;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Json::Object(fields))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Json::List(items))
            }
            fn visit_str<E>(self, text: &str) -> Result<Json, E> {
                Ok(Json::Leaf(text.into()))
            }
            fn visit_bool<E>(self, it: bool) -> Result<Json, E> {
                Ok(Json::Leaf(it.into()))
            }
            fn visit_u64<E>(self, it: u64) -> Result<Json, E> {
                Ok(Json::Leaf(it.into()))
            }
            fn visit_i64<E>(self, it: i64) -> Result<Json, E> {
                Ok(Json::Leaf(it.into()))
            }
            fn visit_f64<E>(self, it: f64) -> Result<Json, E> {
                Ok(Json::Leaf(it.into()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl Json {
    /// A line for each value; `own` are the paths that are left out.
    fn lines(&self, path: &str, own: &[&str], lines: &mut Vec<String>) {
        if own.contains(&path) {
            return;
        }
        match self {
            Self::Object(fields) => {
                lines.push(format!("{path} {{}}"));
                fields.iter().for_each(|(name, it)| it.lines(&format!("{path}.{name}"), own, lines));
            }
            Self::List(items) => {
                lines.push(format!("{path} [{}]", items.len()));
                let mut each: Vec<Vec<String>> = items
                    .iter()
                    .map(|it| {
                        let mut lines = Vec::new();
                        it.lines(&format!("{path}[]"), own, &mut lines);
                        lines
                    })
                    .collect();
                // The order of kinds of resources means nothing.
                if path.ends_with("resources") || path.ends_with("resources_full") {
                    each.sort();
                }
                lines.extend(each.concat());
            }
            Self::Leaf(value) => lines.push(format!("{path} = {}", leaf(path, value))),
        }
    }
}

/// A value, or the word for one that differs from run to run.
fn leaf(path: &str, value: &serde_json::Value) -> String {
    let name = path.rsplit('.').next().unwrap();
    let in_container = path.contains("container_id") || name == "container";
    let is_of_executor = path.contains("xecutors[].resources.") || path.contains("resources_allocated.");
    match value {
        serde_json::Value::String(text) => match name {
            _ if in_container => {
                format!("<uuid of {}>", text.split('-').map(str::len).fold(0, |a, b| a * 100 + b))
            }
            "directory" => format!("<path {}>", text.starts_with('/')),
            "pid" => format!("<pid {}>", text.starts_with("slave(1)@127.0.0.1:")),
            "build_date" | "build_user" | "master_hostname" => "<text>".into(),
            _ => format!("{text:?}"),
        },
        serde_json::Value::Number(number) => {
            let is_varying = [
                "build_time",
                "start_time",
                "timestamp",
                "executor_pid",
                "port",
                "cpus_soft_limit",
                "cpus_system_time_secs",
                "cpus_user_time_secs",
                "mem_limit_bytes",
                "mem_rss_bytes",
                "mem_soft_limit_bytes",
            ]
            .contains(&name);
            // Of a metric its name counts.
            let is_metric = name.contains('/');
            match is_varying || is_metric || is_of_executor {
                true => format!("<number with a fraction: {}>", number.is_f64()),
                false => number.to_string(),
            }
        }
        other => other.to_string(),
    }
}

/// The head of a recorded request, without what depends on where and how it is sent, and its body.
fn request(recorded: &str) -> (String, &str) {
    let (head, body) = recorded.split_once("\r\n\r\n").unwrap();
    let is_kept = |line: &&str| !line.starts_with("Host:") && !line.starts_with("Content-Length:");
    (head.split("\r\n").filter(is_kept).collect::<Vec<_>>().join("\r\n"), body.trim_end())
}

/// What a client sees of an answer, as lines.
fn seen(answer: &str, own: &[&str]) -> Vec<String> {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let mut heads = head.split("\r\n");
    let mut lines = vec![heads.next().unwrap().to_owned()];
    let kind = heads.find(|it| it.to_lowercase().starts_with("content-type:")).map(str::to_lowercase);
    lines.push(kind.clone().unwrap_or_default());
    if kind.is_some_and(|kind| kind.contains("json")) {
        serde_json::from_str::<Json>(body.trim_end()).unwrap().lines("", own, &mut lines);
    } else {
        lines.push(body.trim_end().to_owned());
    }
    lines
}

fn info(id: &str, command: &str, labels: &[(&str, &str)]) -> TaskInfo {
    let label =
        |(key, value): &(&str, &str)| mesos::Label { key: (*key).into(), value: Some((*value).into()) };
    TaskInfo {
        name: id.into(),
        task_id: mesos::TaskId { value: id.into() },
        command: Some(CommandInfo { value: Some(command.into()), ..Default::default() }),
        labels: (!labels.is_empty()).then(|| mesos::Labels { labels: labels.iter().map(label).collect() }),
        ..Default::default()
    }
}

fn framework() -> mesos::FrameworkInfo {
    mesos::FrameworkInfo {
        user: "root".into(),
        name: "golden".into(),
        failover_timeout: Some(60.0),
        checkpoint: Some(true),
        hostname: Some("h".into()),
        principal: Some("golden".into()),
        roles: vec!["web".into()],
        capabilities: vec![mesos::framework_info::Capability {
            r#type: Some(capability::Type::MultiRole.into()),
        }],
        ..Default::default()
    }
}

async fn start(stream: &mut AgentStream, n: u64, info: &TaskInfo) {
    let key = TaskKey {
        framework_id: FrameworkId::new(format!("{CLUSTER}-0004")),
        task_id: TaskId::new(&info.task_id.value),
    };
    let order = RunOrder {
        launch: launch(n),
        task: key,
        resources: Resources::parse("cpus:0.5;mem:64").unwrap(),
        grace_ms: None,
        user: "".into(),
        killed: false,
        sealed: Sealed::new(info.encode_to_vec()),
        framework: Sealed::new(framework().encode_to_vec()),
        executor: None,
        group: None,
        volumes: Vec::new(),
        starting: true,
        terms: Default::default(),
    };
    stream.say(&AgentEvent::Run(Box::new(order))).await;
}

/// Starts an agent as it was when it was recorded.
async fn join(world: &mut World, cluster: &str, attributes: &str) -> AgentStream {
    let text = fs::read_to_string(world.config()).unwrap();
    // That one had no control groups (`isolation` was posix/cpu and posix/mem).
    let text = text
        .replace("cpus:4;mem:1024", "cpus:8;mem:16384;disk:10000;ports:[31000-32000]")
        .replace(&format!("cgroup-root = {:?}", world.groups), "cgroup-root = ''")
        .replace("allow-unenforced-limits = false", "allow-unenforced-limits = true")
        .replace("'here'", "'127.0.0.1'");
    fs::write(world.config(), format!("{text}attributes = '{attributes}'\n")).unwrap();
    world.start();
    let (mut stream, _) = world.hello(1).await;
    stream.session = muster_model::Session(1);
    let agent_id = AgentId::new(format!("{cluster}-S0"));
    let welcome = AgentEvent::Welcome { agent_id, forget: Vec::new(), low_mark: Index(0), ping_ms: 30_000 };
    stream.say(&welcome).await;
    stream
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../muster-master/tests/mesos-wire")
}

fn recorded(name: &str) -> String {
    fs::read_to_string(directory().join(format!("{name}.txt"))).unwrap()
}

async fn an_agent_answers_as_mesos_does(mut world: World) {
    let mut stream = join(&mut world, CLUSTER, "rack:r1;zone:a").await;
    start(&mut stream, 1, &info("ok", "true", &[])).await;
    world.outcome(&mut stream, 1).await;
    start(&mut stream, 2, &info("fail", "exit 3", &[])).await;
    world.outcome(&mut stream, 2).await;
    start(&mut stream, 3, &info("run", "sleep 1000", &[("a", "b")])).await;
    while world.update(&mut stream, 3).await.status.state != muster_model::TaskState::Running {}
    // What was confirmed is taken in before what is said afterwards is answered.
    stream.say(&AgentEvent::Ping(1)).await;
    while stream.hear().await.unwrap().1 != muster_model::AgentCall::Pong(1) {}

    let transcripts: BTreeSet<String> = fs::read_dir(directory())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("agent-"))
        .collect();
    assert_eq!(transcripts, REPLAYED.iter().map(|(name, _)| format!("{name}.txt")).collect());
    let mut wrong = Vec::new();
    for (name, own) in REPLAYED {
        let text = recorded(name);
        let (asked, mesos) = text.split_once("=== RESPONSE\n").unwrap();
        let asked = asked.split_once("=== REQUEST\n").unwrap().1;
        let (plain, body) = request(asked);
        // With the name of the process, too, but for what is another process'.
        let prefixed = plain.replacen(" /", " /slave%281%29/", 1);
        let is_own = !["/metrics", "/files"].iter().any(|of_another| plain.contains(of_another));
        for head in [Some(plain), Some(prefixed).filter(|_| is_own)].into_iter().flatten() {
            let muster = world.ask(&head, body.as_bytes()).await;
            let muster = String::from_utf8(muster).unwrap();
            let (mesos, muster) = (seen(mesos, own), seen(&muster, own));
            if mesos != muster {
                let only = |one: &[String], other: &[String], sign: char| {
                    let all = one.iter().filter(|line| !other.contains(line));
                    all.map(|line| format!("{sign}{line}\n")).collect::<String>()
                };
                let (less, more) = (only(&mesos, &muster, '-'), only(&muster, &mesos, '+'));
                let order = if less.is_empty() && more.is_empty() { "in another order" } else { "" };
                wrong.push(format!("{name}: {order}\n{less}{more}"));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The stream of an executor.
struct Events(BufReader<TcpStream>);

impl Events {
    async fn subscribe(world: &World, head: &str, body: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", world.port)).await.unwrap();
        let request = format!("{head}\r\nHost: here\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut events = Self(BufReader::new(stream));
        assert_eq!(events.line().await, "HTTP/1.1 200 OK");
        while !events.line().await.is_empty() {}
        events
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }

    /// The next event: one record and one chunk.
    async fn next(&mut self) -> String {
        let length = usize::from_str_radix(&self.line().await, 16).unwrap();
        let mut chunk = vec![0; length + 2];
        self.0.read_exact(&mut chunk).await.unwrap();
        let chunk = String::from_utf8(chunk).unwrap();
        let (length, event) = chunk.trim_end().split_once('\n').unwrap();
        assert_eq!(length.parse(), Ok(event.len()));
        event.to_owned()
    }
}

/// As lines, without the command, which is ours.
fn event_lines(event: &str) -> Vec<String> {
    let (mut lines, own) =
        (Vec::new(), [".subscribed.executor_info.command", ".launch.task.executor.command"]);
    serde_json::from_str::<Json>(event).unwrap().lines("", &own, &mut lines);
    lines
}

/// A recorded call of an executor: its request, and the answer.
type Called<'a> = (&'a str, &'a str);

async fn call(world: &World, (asked, answer): Called<'_>) {
    let (head, body) = request(asked);
    let came = String::from_utf8(world.ask(&head, body.as_bytes()).await).unwrap();
    assert_eq!(seen(&came, &[]), seen(answer, &[]), "{body}");
}

async fn an_executor_is_told_what_mesos_tells_it(mut world: World) {
    const CLUSTER: &str = "ad5ce564-3455-4c87-8ad5-2701bc9dcdfa";
    let (of_stream, of_calls) = (recorded("executor-subscribe-stream"), recorded("executor-calls"));
    let (environment, rest) = of_stream.split_once("=== REQUEST\n").unwrap();
    let (subscribe, answer) = rest.split_once("=== RESPONSE\n").unwrap();
    let mut events: VecDeque<&str> = answer.lines().filter(|line| line.starts_with('{')).collect();
    let mut calls: VecDeque<Called<'_>> = of_calls
        .split("=== REQUEST\n")
        .skip(1)
        .map(|exchange| exchange.split_once("=== RESPONSE\n").unwrap())
        .collect();
    // The task, its executor and its framework as they were told of.
    let event = |text: &str| Codec::Json.read::<mesos::executor::Event>(text.as_bytes()).unwrap();
    let subscribed = event(events[0]).subscribed.unwrap();
    let mut task = event(events[1]).launch.unwrap().task;
    let value = "env > environment; echo > up; exec sleep 1000";
    let executor = mesos::ExecutorInfo {
        command: Some(CommandInfo { value: Some(value.into()), ..Default::default() }),
        ..task.executor.clone().unwrap()
    };
    task.executor = Some(executor.clone());
    let framework = mesos::FrameworkInfo { id: None, ..subscribed.framework_info };

    let mut stream = join(&mut world, CLUSTER, "").await;
    let framework_id = FrameworkId::new(format!("{CLUSTER}-0000"));
    let executor_id = muster_model::ExecutorId::new("ex1");
    let key = TaskKey { framework_id: framework_id.clone(), task_id: TaskId::new("cx") };
    let half = Resources::parse("cpus:0.5;mem:64").unwrap();
    let order = RunOrder {
        launch: launch(1),
        task: key.clone(),
        resources: half.clone(),
        grace_ms: None,
        user: "".into(),
        killed: false,
        sealed: Sealed::new(task.encode_to_vec()),
        framework: Sealed::new(framework.encode_to_vec()),
        executor: Some(Box::new(muster_model::ExecutorOrder {
            executor_id: executor_id.clone(),
            resources: half,
            grace_ms: None,
            built_in: false,
            sealed: Sealed::new(executor.encode_to_vec()),
        })),
        group: None,
        volumes: Vec::new(),
        starting: true,
        terms: Default::default(),
    };
    stream.say(&AgentEvent::Run(Box::new(order))).await;
    let sandbox = world.work_dir().join(format!("sandboxes/{framework_id}/ex1/1.1.0"));
    world.line(&sandbox.join("up")).await;
    let ours = fs::read_to_string(sandbox.join("environment")).unwrap();
    let ours: BTreeMap<&str, &str> = ours.lines().filter_map(|line| line.split_once('=')).collect();
    let told = environment.lines().filter(|line| !line.starts_with(['#', '=']));
    for (name, value) in told.filter_map(|line| line.split_once('=')) {
        let own = ours.get(name).unwrap_or_else(|| panic!("{name} is not set"));
        match name {
            // Where the agent is, and where it put the sandbox.
            "MESOS_AGENT_ENDPOINT" | "MESOS_SLAVE_PID" | "MESOS_DIRECTORY" | "MESOS_SANDBOX" => {}
            "MESOS_CHECKPOINT" => assert_eq!(*own, "1", "every framework's tasks are checkpointed"),
            _ => assert_eq!(*own, value, "{name}"),
        }
    }

    let (head, body) = request(subscribe);
    let mut told = Events::subscribe(&world, &head, body).await;
    let mut expect = async |what: &str| {
        let (came, mesos) = (told.next().await, events.pop_front().unwrap());
        assert!(mesos.contains(what), "{mesos}");
        assert_eq!(event_lines(&came), event_lines(mesos));
    };
    expect("SUBSCRIBED").await;
    expect("LAUNCH").await;
    while calls.len() > 1 {
        call(&world, calls.pop_front().unwrap()).await;
    }
    expect("ACKNOWLEDGED").await;
    let message = AgentEvent::Message {
        framework_id: framework_id.clone(),
        executor_id: executor_id.clone(),
        data: b"hello".to_vec(),
    };
    stream.say(&message).await;
    expect("MESSAGE").await;
    stream.say(&AgentEvent::Kill { launch: launch(1), task: key, grace_ms: None }).await;
    expect("KILL").await;
    call(&world, calls.pop_front().unwrap()).await;
    expect("ACKNOWLEDGED").await;
    stream.say(&AgentEvent::ShutdownExecutor { framework_id, executor_id }).await;
    expect("SHUTDOWN").await;
}
