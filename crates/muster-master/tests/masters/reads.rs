//! What operators and tools read of masters, over HTTP/1.1.

use crate::http::{Answer, send};
use crate::support::*;
use muster_proto::json::Codec;
use muster_proto::mesos;
use muster_proto::v1::{self, scheduler_frame::Call as Up};
use prost::Message;
use serde_json::{Value, json};
use std::io::Read;
use std::time::Duration;
use tokio::time::{sleep, timeout};

const JSON: [(&str, &str); 2] = [("Content-Type", "application/json"), ("Accept", "application/json")];

/// What the leader alone answers.
const OF_LEADER: [&str; 10] = [
    "/state",
    "/state-summary",
    "/slaves",
    "/frameworks",
    "/tasks",
    "/roles",
    "/quota",
    "/weights",
    "/maintenance/schedule",
    "/maintenance/status",
];

pub(crate) async fn get(address: &str, path: &str) -> Answer {
    send(address, "GET", path, &[], b"").await
}

/// Waits until a master answers so what its leader would answer.
pub(crate) async fn until(address: &str, status: u16) {
    let wait = async {
        while get(address, "/state").await.status != status {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("it knows who leads in time");
}

pub(crate) async fn read(address: &str, path: &str) -> Value {
    let answer = get(address, path).await;
    assert_eq!(answer.status, 200, "{path}");
    assert_eq!(answer.headers["content-type"], "application/json", "{path}");
    serde_json::from_str(&answer.text().await).unwrap()
}

pub(crate) async fn post(address: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let answer = send(address, "POST", path, headers, body.as_bytes()).await;
    (answer.status, answer.text().await)
}

/// Asks the operator API.
pub(crate) async fn call(address: &str, call: Value) -> (u16, String) {
    post(address, "/api/v1", &JSON, &call.to_string()).await
}

/// The part of an answer that is named like its call.
pub(crate) async fn ask(address: &str, kind: &str) -> Value {
    let (status, text) = call(address, json!({ "type": kind })).await;
    assert_eq!(status, 200, "{kind}: {text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["type"], kind);
    answer[kind.to_lowercase()].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_is_found_at_the_leader() {
    let mut masters = Masters::start(3).await;
    let (leader, follower) = (masters.leader().await, masters.followers().await.remove(0));
    let leader = masters.address(&leader);
    until(&leader, 200).await;
    // A follower knows the way once its link is there.
    until(&follower, 307).await;
    for path in OF_LEADER {
        for path in [path.to_owned(), format!("/master{path}"), format!("{path}/")] {
            assert_eq!(get(&leader, &path).await.status, 200, "{path}");
        }
        let answer = get(&follower, &format!("{path}?x=1&y=2")).await;
        let location = format!("//{leader}/master{path}?x=1&y=2");
        assert_eq!((answer.status, &answer.headers["location"]), (307, &location));
        let answer = get(&follower, &format!("/master{path}")).await;
        assert_eq!(answer.headers["location"], format!("//{leader}/master{path}"));
    }
    for path in ["/teardown", "/reserve", "/machine/down", "/api/v1", "/api/v1/operator"] {
        let answer = send(&follower, "POST", path, &[], b"no call at all").await;
        let location = format!("//{leader}/master{path}");
        assert_eq!((answer.status, &answer.headers["location"]), (307, &location));
    }
    for address in [&leader, &follower] {
        for path in ["/redirect", "/master/redirect"] {
            let answer = get(address, path).await;
            assert_eq!((answer.status, &answer.headers["location"]), (307, &format!("//{leader}")));
        }
        for path in ["/health", "/master/health"] {
            for method in ["GET", "POST", "PUT"] {
                let answer = send(address, method, path, &[], b"").await;
                assert_eq!((answer.status, answer.text().await.as_str()), (200, ""));
            }
        }
        assert_eq!(read(address, "/version").await["version"], "1.11.0");
        let port = address.rsplit_once(':').unwrap().1;
        assert_eq!(read(address, "/master/flags").await["flags"]["port"], port);
        let elected = read(address, "/metrics/snapshot").await["master/elected"].as_f64();
        assert_eq!(elected, Some(if *address == leader { 1.0 } else { 0.0 }));
        for path in ["/", "/nope", "/agents", "/master/nope", "/redirect/x", "/master/metrics/snapshot"] {
            let answer = get(address, path).await;
            assert_eq!((answer.status, answer.text().await.as_str()), (404, "404 Not Found."), "{path}");
        }
    }
    // Alone, a master knows of no leader.
    let others: Vec<_> = masters.running.keys().skip(1).cloned().collect();
    for name in others {
        masters.running.remove(&name).unwrap().0.stop().await;
    }
    let alone = masters.addresses().remove(0);
    until(&alone, 503).await;
    for path in OF_LEADER.into_iter().chain(["/redirect", "/api/v1"]) {
        let answer = get(&alone, path).await;
        assert_eq!((answer.status, answer.text().await.as_str()), (503, "No leader elected"), "{path}");
    }
    assert_eq!(call(&alone, json!({"type": "GET_HEALTH"})).await, (503, "No leader elected".into()));
    for path in ["/health", "/version", "/flags", "/metrics/snapshot"] {
        assert_eq!(get(&alone, path).await.status, 200, "{path}");
    }
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_seen_by_all_who_read() {
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    let mut agent = Agent::connect(&address, "machine-1").await;
    let mut scheduler = Scheduler::connect(&address).await;
    scheduler.subscribe().await;
    let offer = scheduler.offer().await;
    // Offers are seen while they stand.
    let framework_id = scheduler.framework_id.clone();
    let frameworks = read(&address, &format!("/frameworks?framework_id={framework_id}")).await;
    let shown = &frameworks["frameworks"][0];
    assert_eq!(shown["offers"][0]["id"], offer.offer_id);
    assert_eq!(shown["offered_resources"]["cpus"].as_f64(), Some(4.0));
    assert!(scheduler.launch(&offer, &Scheduler::task(&offer, "t1", 1.5)).await.launched.is_some());
    agent.order().await;
    assert_eq!(scheduler.update("t1").await, RUNNING);
    scheduler.outcome(scheduler.calls).await; // acknowledged: nothing changes any more

    let tasks = read(&address, "/tasks?order=asc&limit=-1").await;
    let task = &tasks["tasks"][0];
    assert_eq!((task["id"].as_str(), task["state"].as_str()), (Some("t1"), Some("TASK_RUNNING")));
    assert_eq!(task["slave_id"], offer.agent_id);
    assert_eq!(read(&address, "/tasks?task_id=t2").await["tasks"], json!([]));
    let agents = read(&address, &format!("/slaves?slave_id={}", offer.agent_id)).await;
    let shown = &agents["slaves"][0];
    assert_eq!((shown["pid"].as_str(), shown["active"].as_bool()), (Some("slave(1)@host:5051"), Some(true)));
    assert_eq!(shown["used_resources"]["cpus"].as_f64(), Some(1.5));
    let state = read(&address, "/state").await;
    assert_eq!(state["frameworks"][0]["tasks"][0], *task);
    assert_eq!(state["slaves"][0]["used_resources"], shown["used_resources"]);
    assert_eq!(state["leader"], format!("master@{address}"));
    let summary = read(&address, "/state-summary").await;
    assert_eq!(summary["frameworks"][0]["TASK_RUNNING"].as_u64(), Some(1));
    let roles = read(&address, "/roles").await;
    assert_eq!(roles["roles"][0]["frameworks"], json!([framework_id]));
    assert_eq!(roles["roles"][0]["allocated"]["cpus"].as_f64(), Some(1.5));

    // The operator API shows the same.
    let tasks = ask(&address, "GET_TASKS").await;
    assert_eq!(tasks["tasks"][0]["task_id"]["value"], "t1");
    let whole = ask(&address, "GET_STATE").await;
    assert_eq!(whole["get_tasks"], tasks);
    assert_eq!(whole["get_agents"]["agents"][0]["agent_info"]["id"]["value"], offer.agent_id);
    assert_eq!(whole["get_frameworks"]["frameworks"][0]["framework_info"]["id"]["value"], framework_id);
    assert_eq!(whole["get_executors"]["executors"], json!([]));

    let metrics = read(&address, "/metrics/snapshot").await;
    for (name, value) in [
        ("master/elected", 1.0),
        ("master/slaves_active", 1.0),
        ("master/slave_registrations", 1.0),
        ("master/frameworks_connected", 1.0),
        ("master/tasks_running", 1.0),
        ("master/cpus_total", 4.0),
        ("master/cpus_used", 1.5),
        ("master/cpus_percent", 0.375),
    ] {
        assert_eq!(metrics[name].as_f64(), Some(value), "{name}");
    }
    assert!(metrics["master/uptime_secs"].as_f64().unwrap() > 0.0);
    let (status, text) = call(&address, json!({"type": "GET_METRICS", "get_metrics": {}})).await;
    assert_eq!(status, 200);
    let answer: Value = serde_json::from_str(&text).unwrap();
    let named = answer["get_metrics"]["metrics"].as_array().unwrap();
    assert!(named.iter().any(|it| it["name"] == "master/tasks_running" && it["value"] == 1.0));

    // The same answer in other wrappings.
    let plain = get(&address, "/state").await.text().await;
    let answer = send(&address, "GET", "/state", &[("Accept-Encoding", "gzip")], b"").await;
    assert_eq!(answer.headers["content-encoding"], "gzip");
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(&*answer.bytes().await).read_to_string(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain);
    let answer = get(&address, "/state?jsonp=cb").await;
    assert_eq!(answer.headers["content-type"], "text/javascript");
    assert_eq!(answer.text().await, format!("cb({plain})"));
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_operators_are_checked_as_mesos_checks_them() {
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    until(&address, 200).await;
    assert_eq!(
        call(&address, json!({"type": "GET_HEALTH"})).await,
        (200, r#"{"type":"GET_HEALTH","get_health":{"healthy":true}}"#.into())
    );
    let health = r#"{"type": "GET_HEALTH"}"#;
    let json = ("Content-Type", "application/json");
    // Without a word about the answer it is JSON.
    for accept in [None, Some("*/*"), Some("application/*")] {
        let headers: Vec<_> = [json].into_iter().chain(accept.map(|it| ("Accept", it))).collect();
        let answer = send(&address, "POST", "/master/api/v1", &headers, health.as_bytes()).await;
        assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, "application/json"));
    }
    let protobuf = ("Content-Type", "application/x-protobuf");
    let headers = [protobuf, ("Accept", "application/x-protobuf")];
    let answer = send(&address, "POST", "/api/v1", &headers, &[0x08, 0x01]).await;
    assert_eq!(answer.bytes().await, [0x08, 0x01, 0x12, 0x02, 0x08, 0x01]);

    let answer = get(&address, "/api/v1").await;
    assert_eq!((answer.status, answer.headers["allow"].as_str()), (405, "POST"));
    let text = "405 Method Not Allowed. Expecting one of { 'POST' }, but received 'GET'.";
    assert_eq!(answer.text().await, text);
    for (headers, body, status, begins) in [
        (&[][..], health, 400, "Expecting 'Content-Type' to be present"),
        (
            &[("Content-Type", "text/plain")],
            health,
            415,
            "Expecting 'Content-Type' of application/json or application/x-protobuf",
        ),
        (&[json], "{", 400, "Failed to parse body into JSON"),
        (&[json], "{}", 400, "Failed to validate master::Call: Expecting 'type' to be present"),
        (
            &[json],
            r#"{"type": "FROB"}"#,
            400,
            "Failed to validate master::Call: Expecting 'type' to be present",
        ),
        (
            &[json],
            r#"{"type": "GET_METRICS"}"#,
            400,
            "Failed to validate master::Call: Expecting 'get_metrics' to be present",
        ),
        (&[json, ("Accept", "text/html")], health, 406, "Expecting 'Accept' to allow"),
    ] {
        let (it, text) = post(&address, "/api/v1", headers, body).await;
        assert_eq!(it, status, "{body}: {text}");
        assert!(text.starts_with(begins), "{body}: {text}");
    }
    for (it, status, text) in [
        (
            json!({"type": "TEARDOWN", "teardown": {"framework_id": {"value": "nope"}}}),
            400,
            "No framework found with specified ID",
        ),
        (
            json!({"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": {"value": "nope"}}}),
            404,
            "Agent 'nope' not found",
        ),
        (json!({"type": "LIST_FILES", "list_files": {"path": "/master/log"}}), 404, ""),
        (json!({"type": "READ_FILE", "read_file": {"path": "/nope", "offset": 0}}), 404, ""),
        (
            json!({"type": "DRAIN_AGENT", "drain_agent": {"agent_id": {"value": "nope"}}}),
            400,
            "Unknown agent",
        ),
    ] {
        assert_eq!(call(&address, it.clone()).await, (status, text.into()), "{it}");
    }
    let kinds =
        ["GET_VERSION", "GET_FLAGS", "GET_LOGGING_LEVEL", "GET_AGENTS", "GET_FRAMEWORKS", "GET_ROLES"];
    for kind in kinds.into_iter().chain(["GET_MASTER", "GET_QUOTA", "GET_OPERATIONS"]) {
        assert!(ask(&address, kind).await.is_object(), "{kind}");
    }
    assert_eq!(
        call(&address, json!({"type": "GET_WEIGHTS"})).await,
        (200, r#"{"type":"GET_WEIGHTS"}"#.into())
    );
    let unset = r#"{"type":"GET_MAINTENANCE_SCHEDULE","get_maintenance_schedule":{"schedule":{}}}"#;
    assert_eq!(call(&address, json!({"type": "GET_MAINTENANCE_SCHEDULE"})).await, (200, unset.into()));
    assert_eq!(get(&address, "/quota").await.text().await, "{}");
    assert_eq!(get(&address, "/weights").await.text().await, "[]");
    assert_eq!(send(&address, "POST", "/reserve", &[], b"[]").await.status, 400);
    assert_eq!(get(&address, "/teardown").await.status, 405);
    assert_eq!(send(&address, "DELETE", "/state", &[], b"").await.status, 405);
    masters.stop().await;
}

/// An operator's event stream.
struct Events {
    answer: Answer,
    codec: Codec,
}

impl Events {
    async fn subscribe(address: &str, codec: Codec) -> Self {
        let headers = [("Content-Type", "application/json"), ("Accept", codec.media_type())];
        let answer = send(address, "POST", "/api/v1", &headers, br#"{"type": "SUBSCRIBE"}"#).await;
        assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, codec.media_type()));
        assert!(!answer.headers.contains_key("mesos-stream-id"));
        Self { answer, codec }
    }

    /// The next event; none when the stream ends in order.
    async fn next(&mut self) -> Option<mesos::master::Event> {
        let record = self.answer.record().await?;
        Some(self.codec.read(&record).unwrap())
    }

    /// The next event but heartbeats.
    async fn event(&mut self) -> Option<mesos::master::Event> {
        loop {
            let event = self.next().await?;
            if event.r#type() != mesos::master::event::Type::Heartbeat {
                return Some(event);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_stream_shows_what_comes_and_goes() {
    use mesos::master::event::Type;
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    until(&address, 200).await;
    let (mut events, mut binary) =
        (Events::subscribe(&address, Codec::Json).await, Events::subscribe(&address, Codec::Protobuf).await);
    for stream in [&mut events, &mut binary] {
        let subscribed = stream.next().await.unwrap().subscribed.expect("SUBSCRIBED comes first");
        assert_eq!(subscribed.heartbeat_interval_seconds, Some(15.0));
        assert!(subscribed.get_state.unwrap().get_agents.unwrap().agents.is_empty());
        assert_eq!(stream.next().await.unwrap().r#type(), Type::Heartbeat, "at once");
    }
    assert_eq!(read(&address, "/metrics/snapshot").await["master/operator_event_stream_subscribers"], 2.0);

    let mut agent = Agent::connect(&address, "machine-1").await;
    let added = events.event().await.unwrap().agent_added.unwrap().agent;
    assert_eq!(added.pid(), "slave(1)@host:5051");
    let agent_id = added.agent_info.id.unwrap().value;
    let mut scheduler = Scheduler::connect(&address).await;
    scheduler.subscribe().await;
    let added = events.event().await.unwrap().framework_added.unwrap().framework;
    assert!(added.connected);
    assert_eq!(added.framework_info.id.unwrap().value, scheduler.framework_id);

    let offer = scheduler.offer().await;
    assert!(scheduler.launch(&offer, &Scheduler::task(&offer, "t1", 1.0)).await.launched.is_some());
    let task = events.event().await.unwrap().task_added.unwrap().task;
    assert_eq!((task.task_id.value.as_str(), task.state()), ("t1", mesos::TaskState::TaskStaging));
    agent.order().await;
    let updated = events.event().await.unwrap().task_updated.unwrap();
    assert_eq!(updated.framework_id.value, scheduler.framework_id);
    assert_eq!(
        (updated.status.state(), updated.state()),
        (mesos::TaskState::TaskRunning, updated.status.state())
    );
    assert_eq!(scheduler.update("t1").await, RUNNING);

    // One that comes later begins with what there is, and is not told of it again.
    let mut late = Events::subscribe(&address, Codec::Json).await;
    let state = late.next().await.unwrap().subscribed.unwrap().get_state.unwrap();
    assert_eq!(state.get_tasks.unwrap().tasks[0].task_id.value, "t1");
    assert_eq!(state.get_agents.unwrap().agents.len(), 1);

    // A scheduler that subscribes again is no new framework.
    let mut other = Scheduler::connect(&address).await;
    other.framework_id.clone_from(&scheduler.framework_id);
    other.subscribe().await;
    assert!(events.event().await.unwrap().framework_updated.is_some());

    other.call(Up::Teardown(v1::Teardown {})).await;
    let killed = events.event().await.unwrap().task_updated.unwrap();
    assert_eq!((killed.status.task_id.value.as_str(), killed.state()), ("t1", mesos::TaskState::TaskKilled));
    let removed = events.event().await.unwrap().framework_removed.unwrap();
    assert_eq!(removed.framework_info.name, "test");
    let gone = json!({"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": {"value": agent_id}}});
    for _ in 0..2 {
        assert_eq!(call(&address, gone.clone()).await, (200, String::new()), "also when it is gone already");
    }
    assert_eq!(events.event().await.unwrap().agent_removed.unwrap().agent_id.value, agent_id);

    let mut kinds = Vec::new();
    for _ in 0..8 {
        kinds.push(binary.event().await.unwrap().r#type());
    }
    let told =
        [Type::AgentAdded, Type::FrameworkAdded, Type::TaskAdded, Type::TaskUpdated, Type::FrameworkUpdated];
    let told = told.into_iter().chain([Type::TaskUpdated, Type::FrameworkRemoved, Type::AgentRemoved]);
    assert_eq!(kinds, told.collect::<Vec<_>>(), "the same in the other codec");
    let mut kinds = Vec::new();
    for _ in 0..4 {
        kinds.push(late.event().await.unwrap().r#type());
    }
    let told = [Type::FrameworkUpdated, Type::TaskUpdated, Type::FrameworkRemoved, Type::AgentRemoved];
    assert_eq!(kinds, told);

    // The stream ends in order with the reign.
    masters.stop().await;
    assert!(events.event().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_one_subscribes_each_task_is_told_once() {
    const ROUNDS: usize = 24;
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    let mut agent = Agent::connect(&address, "machine-1").await;
    let mut scheduler = Scheduler::connect(&address).await;
    scheduler.subscribe().await;
    let mut streams = Vec::new();
    for round in 0..ROUNDS {
        let codec = if round % 2 == 0 { Codec::Json } else { Codec::Protobuf };
        let address = address.clone();
        streams.push(tokio::spawn(async move { Events::subscribe(&address, codec).await }));
        let offer = scheduler.offer().await;
        let task = |n: usize| Scheduler::task(&offer, &format!("t{round}-{n}"), 0.01).encode_to_vec().into();
        let accept = v1::Accept {
            offer_ids: vec![offer.offer_id.clone()],
            task_infos: (0..4).map(task).collect(),
            refuse_ms: Some(0),
            ..Default::default()
        };
        let id = scheduler.call(Up::Accept(accept)).await;
        scheduler.outcome(id).await;
        for _ in 0..4 {
            agent.order().await;
        }
    }
    let streams = futures::future::join_all(streams).await;
    scheduler.call(Up::Teardown(v1::Teardown {})).await;
    for stream in streams {
        let mut stream = stream.unwrap();
        let state = stream.next().await.unwrap().subscribed.unwrap().get_state.unwrap();
        let mut told: Vec<_> =
            state.get_tasks.unwrap().tasks.into_iter().map(|it| it.task_id.value).collect();
        loop {
            let event = stream.event().await.unwrap();
            told.extend(event.task_added.map(|it| it.task.task_id.value));
            if event.framework_removed.is_some() {
                break;
            }
        }
        told.sort();
        let mut all: Vec<_> =
            (0..ROUNDS).flat_map(|round| (0..4).map(move |n| format!("t{round}-{n}"))).collect();
        all.sort();
        assert_eq!(told, all);
    }
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frameworks_are_torn_down_by_form_and_by_call() {
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    for by_form in [true, false] {
        let mut scheduler = Scheduler::connect(&address).await;
        scheduler.subscribe().await;
        let id = scheduler.framework_id.clone();
        let teardown = || async {
            if by_form {
                return post(&address, "/master/teardown", &[], &format!("frameworkId={id}")).await;
            }
            call(&address, json!({"type": "TEARDOWN", "teardown": {"framework_id": {"value": id}}})).await
        };
        assert_eq!(teardown().await, (200, String::new()));
        let frameworks = read(&address, &format!("/frameworks?framework_id={id}")).await;
        assert_eq!(frameworks["frameworks"], json!([]));
        assert_eq!(frameworks["completed_frameworks"][0]["active"], false);
        assert_eq!(teardown().await, (400, "No framework found with specified ID".into()));
    }
    let (status, text) = post(&address, "/teardown", &[], "x=1").await;
    assert_eq!((status, text.as_str()), (400, "Missing 'frameworkId' query parameter in the request body"));
    masters.stop().await;
}
