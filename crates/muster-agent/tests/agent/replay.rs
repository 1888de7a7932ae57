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
use muster_proto::mesos::{self, CommandInfo, TaskInfo, framework_info::capability};
use prost::Message;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::{collections::BTreeSet, fs, path::Path};

cases!(an_agent_answers_as_mesos_does,);

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
    // Sandboxes are kept by their number, not by their age.
    ("agent-http-metrics_snapshot", &[".slave/executor_directory_max_allowed_age_secs"]),
    ("agent-http-monitor_statistics", &[]),
    (
        "agent-http-state",
        &[
            ".git_sha",
            ".git_tag",
            ".flags",
            ".external_log_file", // it logs to one
            ".capabilities",      // what this agent can do
            // No addresses of containers: they are the agent's.
            ".frameworks[].executors[].tasks[].statuses",
            ".frameworks[].completed_executors[].completed_tasks[].statuses",
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
    };
    stream.say(&AgentEvent::Run(Box::new(order))).await;
}

async fn an_agent_answers_as_mesos_does(mut world: World) {
    let text = fs::read_to_string(world.config()).unwrap();
    let text = text
        .replace("cpus:4;mem:1024", "cpus:8;mem:16384;disk:10000;ports:[31000-32000]")
        .replace("'here'", "'127.0.0.1'");
    fs::write(world.config(), format!("{text}attributes = 'rack:r1;zone:a'\n")).unwrap();
    world.start();
    let (mut stream, _) = world.hello(1).await;
    stream.session = muster_model::Session(1);
    let agent_id = AgentId::new(format!("{CLUSTER}-S0"));
    let welcome = AgentEvent::Welcome { agent_id, forget: Vec::new(), low_mark: Index(0), ping_ms: 30_000 };
    stream.say(&welcome).await;
    start(&mut stream, 1, &info("ok", "true", &[])).await;
    world.outcome(&mut stream, 1).await;
    start(&mut stream, 2, &info("fail", "exit 3", &[])).await;
    world.outcome(&mut stream, 2).await;
    start(&mut stream, 3, &info("run", "sleep 1000", &[("a", "b")])).await;
    world.update(&mut stream, 3).await;
    // What was confirmed is taken in before what is said afterwards is answered.
    stream.say(&AgentEvent::Ping(1)).await;
    while stream.hear().await.unwrap().1 != muster_model::AgentCall::Pong(1) {}

    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../muster-master/tests/mesos-wire");
    let recorded: BTreeSet<String> = fs::read_dir(&directory)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("agent-"))
        .collect();
    assert_eq!(recorded, REPLAYED.iter().map(|(name, _)| format!("{name}.txt")).collect());
    let mut wrong = Vec::new();
    for (name, own) in REPLAYED {
        let text = fs::read_to_string(directory.join(format!("{name}.txt"))).unwrap();
        let (asked, mesos) = text.split_once("=== RESPONSE\n").unwrap();
        let asked = asked.split_once("=== REQUEST\n").unwrap().1;
        let (head, body) = asked.split_once("\r\n\r\n").unwrap();
        let body = body.trim_end();
        let head: Vec<&str> = head
            .split("\r\n")
            .filter(|line| !line.starts_with("Host:") && !line.starts_with("Content-Length:"))
            .collect();
        // With the name of the process, too, but for what is another process'.
        let plain = head.join("\r\n");
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
