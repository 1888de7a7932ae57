//! The shapes of answers, from a registry that commands made.

#![allow(clippy::unwrap_used)]

use super::super::operator_api;
use super::super::parts;
use super::*;
use crate::MasterConfig;
use crate::mesos::world::{World, key, label, spec, world};
use mesos::master::{call::Type, response};
use muster_model::{
    AgentId, ExecutorId, FrameworkId, Index, KnownExecutor, LaunchNumber, Offer, OfferId, Resources, Role,
    TaskState,
};
use muster_proto::{executor_api::container_id, json::Codec, mesos};
use muster_registry::{Command, Registry};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The keys and values of an object, in their order.
#[derive(Debug)]
struct Ordered(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Ordered;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

fn keys(text: &str) -> Vec<String> {
    let Ordered(entries) = serde_json::from_str(text).unwrap();
    entries.into_iter().map(|(key, _)| key).collect()
}

/// The text that stands at a key.
fn at(text: &str, key: &str) -> String {
    let Ordered(entries) = serde_json::from_str(text).unwrap();
    entries.into_iter().find(|(it, _)| it == key).unwrap_or_else(|| panic!("{key}: {text}")).1.get().into()
}

/// The texts of a list.
fn items(text: &str) -> Vec<String> {
    serde_json::from_str::<Vec<Box<RawValue>>>(text).unwrap().iter().map(|it| it.get().to_owned()).collect()
}

fn seen(registry: Registry) -> Seen {
    let mut config = MasterConfig::default();
    config.allocator.weights.insert("gold".into(), 2.5);
    let offer = Offer {
        offer_id: OfferId::new("c-O1-0-7"),
        framework_id: FrameworkId::new("c-0000"),
        role: Role::parse("web").unwrap(),
        agent_id: AgentId::new("c-S0"),
        resources: Resources::parse("cpus:1;ports:[32000-32000]").unwrap().into(),
    };
    Seen { offers: vec![offer], ..Seen::alone(registry, &config) }
}

fn legacy(what: OfLeader, query: &str) -> String {
    legacy_of(&seen(world().registry), what, query)
}

fn legacy_of(seen: &Seen, what: OfLeader, query: &str) -> String {
    let mut out = Vec::new();
    answer(&mut out, what, &Query::parse(query), seen).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_task_is_shown_as_mesos_shows_it() {
    assert_eq!(
        legacy(OfLeader::Tasks, "task_id=run"),
        concat!(
            r#"{"tasks":[{"id":"run","name":"run","framework_id":"c-0000","executor_id":"","slave_id":"c-S0","#,
            r#""state":"TASK_RUNNING","resources":{"disk":0.0,"mem":64.0,"gpus":0.0,"cpus":0.5,"#,
            r#""ports":"[31000-31001]"},"role":"web","statuses":[{"state":"TASK_RUNNING","timestamp":1234.25,"#,
            r#""container_status":{"container_id":{"value":"box"},"network_infos":[{"ip_addresses":"#,
            r#"[{"protocol":"IPv4","ip_address":"10.0.0.5"}]}]}}],"user":"nobody","#,
            r#""labels":[{"key":"a","value":"b"}],"discovery":{"visibility":"EXTERNAL","name":"www"}}]}"#,
        )
    );
    // Of one that was acknowledged the registry knows its state, when it came to it, and where it is.
    let text = legacy(OfLeader::Tasks, "task_id=ok");
    let task = items(&at(&text, "tasks")).remove(0);
    let launch = world().registry.task(&key("run")).unwrap().launch;
    let status = status_in(LaunchNumber { n: launch.n + 1, ..launch }, "TASK_FINISHED", 1_004_000);
    assert_eq!(at(&task, "statuses"), status);
    // Nothing was heard yet of one that is staging.
    let text = legacy(OfLeader::Tasks, "task_id=wait");
    let task = items(&at(&text, "tasks")).remove(0);
    assert_eq!((at(&task, "statuses"), at(&task, "executor_id")), ("[]".into(), "\"e\"".into()));
}

/// The one status of a task in this run's container.
fn status_in(run: LaunchNumber, state: &str, ms: u64) -> String {
    let container = container_id(run);
    format!(
        concat!(
            r#"[{{"state":"{}","timestamp":{:?},"container_status":{{"container_id":{{"value":"{}"}},"#,
            r#""network_infos":[{{"ip_addresses":[{{"protocol":"IPv4","ip_address":"10.0.0.5"}}]}}]}}}}]"#,
        ),
        state,
        ms as f64 / 1000.0,
        container
    )
}

#[test]
fn the_container_of_a_task_outlives_the_acknowledgement() {
    let mut world = world();
    let statuses = |world: &World, task: &str| {
        let text = legacy_of(&seen(world.registry.clone()), OfLeader::Tasks, &format!("task_id={task}"));
        at(&items(&at(&text, "tasks")).remove(0), "statuses")
    };
    world.acknowledge("run", 1);
    let launch = world.registry.task(&key("run")).unwrap().launch;
    let ms = world.registry.task(&key("run")).unwrap().updated.0;
    assert_eq!(statuses(&world, "run"), status_in(launch, "TASK_RUNNING", ms));
    let tasks = asked(&seen(world.registry.clone()), Type::GetTasks).get_tasks.unwrap().tasks;
    let status = &tasks.iter().find(|task| task.name == "run").unwrap().statuses[0];
    assert_eq!(status.executor_id.as_ref().unwrap().value, "run", "its own");
    assert_eq!(status.source(), mesos::task_status::Source::Executor);

    // In an executor it is that one's, which its agent tells.
    world.status("wait", TaskState::Running, 1);
    world.acknowledge("wait", 1);
    assert!(!statuses(&world, "wait").contains("container_status"), "nobody knows it");
    let run = LaunchNumber { n: 7, ..launch };
    let executor = |ended| KnownExecutor {
        number: run,
        framework_id: FrameworkId::new("c-0000"),
        executor_id: ExecutorId::new("e"),
        resources: Resources::parse("cpus:0.25").unwrap(),
        ended,
    };
    let agent_id = AgentId::new("c-S0");
    world.commit(Command::Executors {
        agent_id: agent_id.clone(),
        executors: vec![executor(None)],
        all: false,
    });
    let ms = world.registry.task(&key("wait")).unwrap().updated.0;
    assert_eq!(statuses(&world, "wait"), status_in(run, "TASK_RUNNING", ms));
    world.commit(Command::Executors { agent_id, executors: vec![executor(Some(0))], all: false });
    assert!(!statuses(&world, "wait").contains("container_status"), "it is over");
}

#[test]
fn tasks_are_paged_by_the_time_of_their_launch() {
    let mut world = world();
    for n in 0..120 {
        // They fit, one after the other.
        let id = format!("n{n}");
        world.launch(vec![spec(&id, None)]);
        world.status(&id, TaskState::Finished, 1);
    }
    let seen = seen(world.registry);
    let ids = |query: &str| -> Vec<String> {
        let text = legacy_of(&seen, OfLeader::Tasks, query);
        items(&at(&text, "tasks")).iter().map(|task| at(task, "id").trim_matches('"').to_owned()).collect()
    };
    assert_eq!(ids("").len(), 100, "by default");
    assert_eq!(ids("limit=many").len(), 100, "what is no number is the default");
    assert_eq!(ids("limit=-1").len(), 123);
    assert_eq!(ids("limit=2"), ["n119", "n118"], "the newest first");
    assert_eq!(ids("limit=2&order=desc&offset=1"), ["n118", "n117"]);
    let oldest = ids("limit=3&order=asc");
    assert_eq!(oldest.iter().map(String::as_str).collect::<Vec<_>>(), ["run", "ok", "wait"]);
    assert_eq!(ids("limit=1&order=asc&offset=3"), ["n0"]);
    assert_eq!(ids("offset=1000"), [""; 0]);
    assert_eq!(ids("framework_id=c-0000&limit=-1").len(), 123);
    assert_eq!(ids("framework_id=c-0000&limit=2&offset=118"), ["n1", "n0"]);
    assert_eq!(ids("framework_id=c-0000&order=asc&limit=2&offset=2"), ["wait", "n0"]);
    assert_eq!(ids("framework_id=c-0000&task_id=run"), ["run"]);
    assert_eq!(ids("framework_id=c-0001"), [""; 0]);
    assert_eq!(ids("task_id=ok"), ["ok"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_answer_is_whole() {
    use http_body_util::BodyExt;
    let mut world = world();
    for n in 0..2_000 {
        let id = format!("n{n}");
        world.launch(vec![spec(&id, None)]);
        world.status(&id, TaskState::Finished, 1);
    }
    let registry = world.registry;
    for gzip in [false, true] {
        let seen = seen(registry.clone());
        let write = move |out: &mut dyn io::Write| answer(out, OfLeader::State, &Query::default(), &seen);
        let wrapped = Wrapped { gzip, jsonp: None };
        let mut body = body::Writers::default().answer("application/json", wrapped, write).await.into_body();
        let (mut all, mut pieces) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            all.extend(frame.unwrap().into_data().unwrap());
            pieces += 1;
        }
        if gzip {
            let mut unpacked = Vec::new();
            io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*all), &mut unpacked).unwrap();
            all = unpacked;
        } else {
            assert!(pieces > 5, "{pieces} pieces of {} bytes", all.len());
        }
        let framework = items(&at(std::str::from_utf8(&all).unwrap(), "frameworks")).remove(0);
        assert_eq!(items(&at(&framework, "tasks")).len(), 2_002);
    }
}

#[test]
fn an_agent_is_shown_as_mesos_shows_it() {
    let text = legacy(OfLeader::Agents, "");
    assert_eq!(keys(&text), ["slaves", "recovered_slaves"]);
    let agent = items(&at(&text, "slaves")).remove(0);
    assert_eq!(
        agent,
        concat!(
            r#"{"id":"c-S0","hostname":"10.0.0.5","port":5051,"attributes":{"rack":"r1"},"#,
            r#""pid":"slave(1)@10.0.0.5:5051","registered_time":1002.0,"#,
            r#""resources":{"disk":0.0,"mem":1024.0,"gpus":0.0,"cpus":4.0,"ports":"[31000-32000]"},"#,
            r#""used_resources":{"disk":0.0,"mem":128.0,"gpus":0.0,"cpus":1.25,"ports":"[31000-31001]"},"#,
            r#""offered_resources":{"disk":0.0,"mem":0.0,"gpus":0.0,"cpus":1.0,"ports":"[32000-32000]"},"#,
            r#""reserved_resources":{},"#,
            r#""unreserved_resources":{"disk":0.0,"mem":1024.0,"gpus":0.0,"cpus":4.0,"ports":"[31000-32000]"},"#,
            r#""active":true,"deactivated":false,"version":"1.11.0","#,
            r#""capabilities":["MULTI_ROLE","HIERARCHICAL_ROLE","RESERVATION_REFINEMENT","AGENT_OPERATION_FEEDBACK","AGENT_DRAINING"],"reserved_resources_full":{},"#,
            r#""unreserved_resources_full":["#,
            r#"{"name":"cpus","type":"SCALAR","scalar":{"value":4.0},"role":"*"},"#,
            r#"{"name":"mem","type":"SCALAR","scalar":{"value":1024.0},"role":"*"},"#,
            r#"{"name":"ports","type":"RANGES","ranges":{"range":[{"begin":31000,"end":32000}]},"role":"*"}],"#,
            r#""used_resources_full":["#,
            r#"{"name":"cpus","type":"SCALAR","scalar":{"value":1.25},"role":"*","allocation_info":{"role":"web"}},"#,
            r#"{"name":"mem","type":"SCALAR","scalar":{"value":128.0},"role":"*","allocation_info":{"role":"web"}},"#,
            r#"{"name":"ports","type":"RANGES","ranges":{"range":[{"begin":31000,"end":31001}]},"role":"*","#,
            r#""allocation_info":{"role":"web"}}],"#,
            r#""offered_resources_full":["#,
            r#"{"name":"cpus","type":"SCALAR","scalar":{"value":1.0},"role":"*","allocation_info":{"role":"web"}},"#,
            r#"{"name":"ports","type":"RANGES","ranges":{"range":[{"begin":32000,"end":32000}]},"role":"*","#,
            r#""allocation_info":{"role":"web"}}]}"#,
        )
    );
    assert_eq!(legacy(OfLeader::Agents, "slave_id=nope"), r#"{"slaves":[],"recovered_slaves":[]}"#);
    assert_eq!(legacy(OfLeader::Agents, "slave_id=c-S0"), text);
}

/// The keys of a framework, as measured.
const FRAMEWORK: [&str; 25] = [
    "id",
    "name",
    "used_resources",
    "offered_resources",
    "capabilities",
    "hostname",
    "webui_url",
    "active",
    "connected",
    "recovered",
    "user",
    "failover_timeout",
    "checkpoint",
    "registered_time",
    "unregistered_time",
    "principal",
    "resources",
    "roles",
    "tasks",
    "unreachable_tasks",
    "completed_tasks",
    "offers",
    "executors",
    "labels",
    "offer_constraints",
];

#[test]
fn a_framework_is_shown_as_mesos_shows_it() {
    let text = legacy(OfLeader::Frameworks, "");
    assert_eq!(keys(&text), ["frameworks", "completed_frameworks", "unregistered_frameworks"]);
    let framework = items(&at(&text, "frameworks")).remove(0);
    assert_eq!(keys(&framework), FRAMEWORK);
    for (key, value) in [
        ("id", r#""c-0000""#),
        ("used_resources", r#"{"disk":0.0,"mem":128.0,"gpus":0.0,"cpus":1.25,"ports":"[31000-31001]"}"#),
        ("capabilities", r#"["MULTI_ROLE","PARTITION_AWARE"]"#),
        ("webui_url", r#""http://h:1/""#),
        ("active", "true"),
        ("failover_timeout", "60.0"),
        ("checkpoint", "true"),
        ("registered_time", "1001.0"),
        ("unregistered_time", "0.0"),
        ("principal", r#""p""#),
        ("roles", r#"["web"]"#),
        ("unreachable_tasks", "[]"),
        ("labels", r#"[{"key":"a","value":"b"}]"#),
        ("offer_constraints", "{}"),
    ] {
        assert_eq!(at(&framework, key), value, "{key}");
    }
    assert_eq!(
        at(&framework, "offers"),
        concat!(
            r#"[{"id":"c-O1-0-7","framework_id":"c-0000","allocation_info":{"role":"web"},"slave_id":"c-S0","#,
            r#""resources":{"disk":0.0,"mem":0.0,"gpus":0.0,"cpus":1.0,"ports":"[32000-32000]"}}]"#
        )
    );
    assert_eq!(
        at(&framework, "executors"),
        concat!(
            r#"[{"executor_id":"e","name":"an executor","framework_id":"c-0000","#,
            r#""resources":{"disk":0.0,"mem":0.0,"gpus":0.0,"cpus":0.25},"role":"web","slave_id":"c-S0"}]"#
        )
    );
    let ids = |list: &str| -> Vec<String> {
        items(&at(&framework, list)).iter().map(|task| at(task, "id")).collect()
    };
    assert_eq!(
        (ids("tasks"), ids("completed_tasks")),
        (vec![r#""run""#.into(), r#""wait""#.into()], vec![r#""ok""#.into()])
    );
    let former = items(&at(&text, "completed_frameworks")).remove(0);
    assert_eq!((at(&former, "active"), at(&former, "unregistered_time")), ("false".into(), "1005.0".into()));
    let one = legacy(OfLeader::Frameworks, "framework_id=c-0001");
    assert_eq!(
        (items(&at(&one, "frameworks")).len(), items(&at(&one, "completed_frameworks")).len()),
        (0, 1)
    );
}

#[test]
fn tasks_of_an_agent_that_does_not_answer_are_shown_apart() {
    let mut world = world();
    let agent_id = AgentId::new("c-S0");
    let session = world.registry.agent(&agent_id).unwrap().session;
    world.commit(Command::DisconnectAgent { agent_id: agent_id.clone(), session });
    let disconnected = Index(world.index);
    let state = legacy_of(&seen(world.registry.clone()), OfLeader::State, "");
    assert_eq!(
        (at(&state, "activated_slaves"), at(&state, "deactivated_slaves")),
        ("0.0".into(), "1.0".into())
    );
    world.index += 1_000_000; // time passes with it
    world.commit(Command::MarkUnreachable { agent_id, disconnected });
    let seen = seen(world.registry);
    let state = legacy_of(&seen, OfLeader::State, "");
    assert_eq!((at(&state, "unreachable_slaves"), at(&state, "slaves")), ("1.0".into(), "[]".into()));
    let framework = items(&at(&state, "frameworks")).remove(0);
    assert_eq!(at(&framework, "tasks"), "[]");
    assert_eq!(items(&at(&framework, "unreachable_tasks")).len(), 2);
    let mesos::master::Response { get_tasks: Some(tasks), .. } = asked(&seen, Type::GetTasks) else {
        panic!()
    };
    assert_eq!((tasks.tasks.len(), tasks.unreachable_tasks.len(), tasks.completed_tasks.len()), (0, 2, 1));
}

#[test]
fn state_has_the_keys_that_were_measured() {
    let state = legacy(OfLeader::State, "");
    let measured = [
        "version",
        "build_date",
        "build_time",
        "build_user",
        "start_time",
        "elected_time",
        "id",
        "pid",
        "hostname",
        "capabilities",
        "activated_slaves",
        "deactivated_slaves",
        "unreachable_slaves",
        "leader",
        "leader_info",
        "cluster",
        "flags",
        "slaves",
        "recovered_slaves",
        "frameworks",
        "completed_frameworks",
        "orphan_tasks",
        "unregistered_frameworks",
    ];
    assert_eq!(keys(&state), measured);
    assert_eq!(at(&state, "activated_slaves"), "1.0");
    assert_eq!(at(&state, "leader"), r#""master@127.0.0.1:5050""#);
    assert_eq!(
        at(&state, "leader_info"),
        r#"{"id":"c","pid":"master@127.0.0.1:5050","port":5050,"hostname":"127.0.0.1"}"#
    );
    assert_eq!(at(&state, "frameworks"), at(&legacy(OfLeader::Frameworks, ""), "frameworks"));
    // Its agents are those of /slaves, without the lists of messages.
    let (plain, full) = (at(&state, "slaves"), at(&legacy(OfLeader::Agents, ""), "slaves"));
    assert!(full.starts_with(plain.trim_end_matches("}]")), "{plain}");
    assert!(!plain.contains("_full"), "{plain}");
    assert!(!state.contains(r#""pid":"""#), "readers fail on it");
}

#[test]
fn the_summary_counts_tasks() {
    let text = legacy(OfLeader::StateSummary, "");
    assert_eq!(keys(&text), ["hostname", "cluster", "slaves", "frameworks"]);
    for (list, others) in [("slaves", "framework_ids"), ("frameworks", "slave_ids")] {
        let it = items(&at(&text, list)).remove(0);
        let counts =
            ["TASK_STAGING", "TASK_RUNNING", "TASK_FINISHED", "TASK_FAILED"].map(|name| at(&it, name));
        assert_eq!(counts, ["1", "1", "1", "0"]);
        let id = if list == "slaves" { r#"["c-0000"]"# } else { r#"["c-S0"]"# };
        assert_eq!(at(&it, others), id);
    }
}

#[test]
fn roles_are_shown_as_mesos_shows_them() {
    assert_eq!(
        legacy(OfLeader::Roles, ""),
        concat!(
            r#"{"roles":[{"name":"gold","weight":2.5,"quota":{"role":"gold","guarantee":{},"limit":{},"consumed":{}},"#,
            r#""resources":{},"allocated":{},"offered":{},"reserved":{},"frameworks":[]},"#,
            r#"{"name":"web","weight":1.0,"quota":{"role":"web","guarantee":{},"limit":{},"#,
            r#""consumed":{"cpus":1.25,"mem":128.0,"ports":2.0}},"#,
            r#""resources":{"cpus":2.25,"mem":128.0,"ports":3.0},"#,
            r#""allocated":{"cpus":1.25,"mem":128.0,"ports":2.0},"offered":{"cpus":1.0,"ports":1.0},"reserved":{},"#,
            r#""frameworks":["c-0000"]}]}"#
        )
    );
    assert_eq!(legacy(OfLeader::Weights, ""), r#"[{"role":"gold","weight":2.5}]"#);
    for nothing in [OfLeader::Quota, OfLeader::MaintenanceSchedule, OfLeader::MaintenanceStatus] {
        assert_eq!(legacy(nothing, ""), "{}");
    }
}

/// The answer to a call, which both codecs give alike.
fn asked(seen: &Seen, kind: Type) -> mesos::master::Response {
    let of = Sorted::of(seen);
    let read = |codec: Codec| -> mesos::master::Response {
        let mut out = Vec::new();
        parts::write(&operator_api::parts(kind, &of), codec, &mut out).unwrap();
        codec.read(&out).unwrap()
    };
    let (json, protobuf) = (read(Codec::Json), read(Codec::Protobuf));
    // Unset fields that JSON shows with their defaults are set when they are read again: compared as JSON.
    assert_eq!(Codec::Json.write(&json), Codec::Json.write(&protobuf));
    protobuf
}

#[test]
fn calls_that_read_are_answered_in_both_codecs() {
    let seen = seen(world().registry);
    let state = asked(&seen, Type::GetState).get_state.unwrap();
    assert_eq!(Some(state.get_tasks.clone().unwrap()), asked(&seen, Type::GetTasks).get_tasks);
    assert_eq!(Some(state.get_agents.clone().unwrap()), asked(&seen, Type::GetAgents).get_agents);
    assert_eq!(Some(state.get_frameworks.clone().unwrap()), asked(&seen, Type::GetFrameworks).get_frameworks);
    assert_eq!(Some(state.get_executors.clone().unwrap()), asked(&seen, Type::GetExecutors).get_executors);

    let tasks = state.get_tasks.unwrap();
    let run = tasks.tasks.iter().find(|it| it.name == "run").unwrap();
    assert_eq!(run.state(), mesos::TaskState::TaskRunning);
    assert_eq!(run.resources[0].allocation_info.as_ref().unwrap().role(), "web");
    assert_eq!(
        run.statuses[0].container_status.as_ref().unwrap().container_id.as_ref().unwrap().value,
        "box"
    );
    assert_eq!(run.status_update_uuid(), [1; 16]);
    assert_eq!(run.labels, Some(label()));
    assert_eq!(tasks.completed_tasks[0].name, "ok");
    let agent = &state.get_agents.unwrap().agents[0];
    assert_eq!((agent.pid(), agent.active), ("slave(1)@10.0.0.5:5051", true));
    assert_eq!(agent.agent_info.id.as_ref().unwrap().value, "c-S0");
    let frameworks = state.get_frameworks.unwrap();
    assert_eq!(frameworks.frameworks[0].framework_info.id.as_ref().unwrap().value, "c-0000");
    assert_eq!(frameworks.frameworks[0].offers[0].id.value, "c-O1-0-7");
    assert!(frameworks.completed_frameworks[0].unregistered_time.is_some());
    let executor = &state.get_executors.unwrap().executors[0];
    assert_eq!((executor.agent_id.value.as_str(), executor.executor_info.name()), ("c-S0", "an executor"));

    let roles = asked(&seen, Type::GetRoles).get_roles.unwrap().roles;
    assert_eq!(roles.iter().map(|role| role.name.as_str()).collect::<Vec<_>>(), ["gold", "web"]);
    assert_eq!(roles[1].resources.len(), 2, "ports are no scalars");
    let weights = asked(&seen, Type::GetWeights).get_weights.unwrap().weight_infos;
    assert_eq!((weights[0].role(), weights[0].weight), ("gold", 2.5));
    let master = asked(&seen, Type::GetMaster).get_master.unwrap();
    assert_eq!((master.start_time, master.elected_time), (Some(1.0), Some(1.5)));
    let master = master.master_info.unwrap();
    assert_eq!((master.id.as_str(), master.ip, master.port), ("c", 16_777_343, 5050));
    for kind in
        [Type::GetQuota, Type::GetMaintenanceSchedule, Type::GetMaintenanceStatus, Type::GetOperations]
    {
        let answer = asked(&seen, kind);
        let kind = response::Type::from_str_name(kind.as_str_name()).unwrap();
        assert_eq!(answer.r#type(), kind);
    }
}
