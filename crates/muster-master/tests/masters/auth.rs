//! Who may ask masters what, over real sockets: credentials, rules, and what is told of what is not allowed.

use crate::events::task;
use crate::http::{Answer, send};
use crate::reads::until;
use crate::support::*;
use muster_master::{FollowerStreams, MasterConfig};
use muster_proto::v1::{self, scheduler_frame::Call as Up};
use muster_proto::{json::Codec, mesos};
use prost::Message;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tonic::Code;

/// `ops:secret-1`, `web:secret-2` and `eve:secret-3` in base64.
const OPS: &str = "Basic b3BzOnNlY3JldC0x";
const WEB: &str = "Basic d2ViOnNlY3JldC0y";
const EVE: &str = "Basic ZXZlOnNlY3JldC0z";

fn write(dir: &Path, name: &str, value: &Value) -> std::path::PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, value.to_string()).unwrap();
    path
}

fn credentials() -> Value {
    let one = |principal: &str, n: u8| json!({"principal": principal, "secret": format!("secret-{n}")});
    json!({"credentials": [one("ops", 1), one("web", 2), one("eve", 3)]})
}

/// Only `ops` may operate; `web` is in its role, and runs as `web`; `eve` may do nothing that is named here.
fn rules() -> Value {
    let some = |values: &[&str]| json!({ "values": values });
    let (any, none) = (json!({"type": "ANY"}), json!({"type": "NONE"}));
    let of = |field: &str, rules: &[(&Value, &Value)]| -> Value {
        let rule = |(principals, objects): &(&Value, &Value)| {
            let mut rule = json!({ "principals": principals });
            rule[field] = (*objects).clone();
            rule
        };
        rules.iter().map(rule).collect()
    };
    let (ops, web) = (some(&["ops"]), some(&["web"]));
    let only_ops = |field: &str| of(field, &[(&ops, &any), (&any, &none)]);
    json!({
        "register_frameworks": of("roles", &[(&web, &some(&["web/%"])), (&any, &none)]),
        "run_tasks": of("users", &[(&web, &web), (&any, &none)]),
        "reserve_resources": of("roles", &[(&any, &none)]),
        "teardown_frameworks": of("framework_principals", &[(&ops, &web), (&any, &none)]),
        "update_weights": of("roles", &[(&ops, &some(&["web"])), (&any, &none)]),
        "view_frameworks": only_ops("users"),
        "view_tasks": only_ops("users"),
        "view_roles": only_ops("roles"),
        "view_flags": only_ops("flags"),
        "set_log_level": only_ops("level"),
        "access_mesos_logs": only_ops("logs"),
        "get_endpoints": only_ops("paths"),
        "mark_agents_gone": only_ops("agents"),
        "update_maintenance_schedules": only_ops("machines"),
    })
}

/// Masters that all have one set of files, which lives as long as this.
struct Guarded {
    masters: Masters,
    _dir: tempfile::TempDir,
}

impl Guarded {
    async fn start(count: usize, rules: Option<Value>, change: impl Fn(&mut MasterConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let credentials = write(dir.path(), "credentials.json", &credentials());
        let acls = rules.map(|rules| write(dir.path(), "acls.json", &rules));
        let masters = Masters::configured(count, |config| {
            config.auth.credentials.clone_from(&credentials);
            config.auth.acls = acls.clone().unwrap_or_default();
            config.auth.frameworks = true;
            // Who waits for a leader asks by gRPC, which is a read.
            config.auth.readonly = count == 1;
            config.auth.readwrite = true;
            change(config);
        })
        .await;
        Self { masters, _dir: dir }
    }
}

async fn ask(address: &str, method: &str, path: &str, auth: Option<&str>, body: &str) -> Answer {
    let mut headers = vec![("Content-Type", "application/json"), ("Accept", "application/json")];
    headers.extend(auth.map(|auth| ("Authorization", auth)));
    send(address, method, path, &headers, body.as_bytes()).await
}

async fn status(address: &str, method: &str, path: &str, auth: Option<&str>, body: &str) -> u16 {
    ask(address, method, path, auth, body).await.status
}

async fn read(address: &str, path: &str, auth: &str) -> Value {
    let answer = ask(address, "GET", path, Some(auth), "").await;
    assert_eq!(answer.status, 200, "{path}");
    serde_json::from_str(&answer.text().await).unwrap()
}

async fn operate(address: &str, auth: &str, call: Value) -> (u16, Value) {
    let answer = ask(address, "POST", "/api/v1", Some(auth), &call.to_string()).await;
    let (status, text) = (answer.status, answer.text().await);
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Waits until it leads, or knows who does.
async fn ready(address: &str, status: u16) {
    let wait = async {
        while ask(address, "GET", "/state", Some(OPS), "").await.status != status {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("it knows who leads in time");
}

fn subscribe(role: &str, principal: Option<&str>) -> Value {
    let mut info = json!({"user": "web", "name": "n", "roles": [role], "failover_timeout": 600,
        "capabilities": [{"type": "MULTI_ROLE"}, {"type": "PARTITION_AWARE"}]});
    if let Some(principal) = principal {
        info["principal"] = json!(principal);
    }
    json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": info}})
}

/// A scheduler that shows who it is.
struct Client {
    address: String,
    auth: &'static str,
    events: Answer,
    stream: String,
    framework_id: String,
    /// Events that nobody waited for yet.
    stash: Vec<Value>,
}

impl Client {
    async fn subscribe(address: &str, auth: &'static str, role: &str) -> Self {
        let call = subscribe(role, None).to_string();
        let events = ask(address, "POST", "/api/v1/scheduler", Some(auth), &call).await;
        assert_eq!(events.status, 200);
        let stream = events.headers["mesos-stream-id"].clone();
        let (address, framework_id) = (address.to_owned(), String::new());
        let mut client = Self { address, auth, events, stream, framework_id, stash: Vec::new() };
        let subscribed = client.until("SUBSCRIBED").await;
        let id = subscribed["subscribed"]["framework_id"]["value"].as_str();
        client.framework_id = id.unwrap_or_else(|| panic!("{subscribed}")).into();
        client
    }

    async fn event(&mut self) -> Value {
        serde_json::from_slice(&self.events.record().await.expect("the stream goes on")).unwrap()
    }

    /// The first event that is wanted, whether it came already or comes yet.
    async fn wait(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut seen = 0;
        loop {
            if seen == self.stash.len() {
                let event = self.event().await;
                assert_ne!(event["type"], "ERROR", "{event}");
                self.stash.push(event);
            }
            if wanted(&self.stash[seen]) {
                return self.stash.remove(seen);
            }
            seen += 1;
        }
    }

    async fn until(&mut self, kind: &str) -> Value {
        self.wait(|event| event["type"] == kind).await
    }

    /// The next status of a task.
    async fn status(&mut self, task: &str) -> Value {
        let event = self.wait(|event| event["update"]["status"]["task_id"]["value"] == task).await;
        event["update"]["status"].clone()
    }

    async fn offer(&mut self) -> Value {
        self.until("OFFERS").await["offers"]["offers"][0].clone()
    }

    async fn call_as(&self, address: &str, auth: &str, mut call: Value) -> (u16, String) {
        call["framework_id"] = json!({"value": self.framework_id});
        let headers = [
            ("Content-Type", "application/json"),
            ("Mesos-Stream-Id", &self.stream),
            ("Authorization", auth),
        ];
        let body = call.to_string();
        let answer = send(address, "POST", "/api/v1/scheduler", &headers, body.as_bytes()).await;
        (answer.status, answer.text().await)
    }

    async fn call(&self, call: Value) {
        assert_eq!(self.call_as(&self.address, self.auth, call).await, (202, String::new()));
    }
}

fn accept(offer: &Value, operations: Value) -> Value {
    json!({"type": "ACCEPT", "accept": {"offer_ids": [offer["id"]], "filters": {"refuse_seconds": 0},
        "operations": operations}})
}

fn task_of(offer: &Value, id: &str, user: Option<&str>) -> Value {
    let mut task = task(offer, id, 0.5);
    if let Some(user) = user {
        task["command"]["user"] = json!(user);
    }
    task
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_path_asks_in_its_realm_who_asks() {
    let Guarded { masters, _dir } = Guarded::start(1, None, |_| {}).await;
    let address = masters.addresses().remove(0);
    ready(&address, 200).await;
    let scheduler = subscribe("web", None).to_string();
    let health = r#"{"type":"GET_HEALTH"}"#;
    for (method, path, body, realm) in [
        ("POST", "/api/v1/scheduler", scheduler.as_str(), "scheduler"),
        ("POST", "/master/api/v1/scheduler", &scheduler, "scheduler"),
        ("POST", "/api/v1", health, "readwrite"),
        ("POST", "/master/api/v1", health, "readwrite"),
        ("GET", "/weights", "", "readwrite"),
        ("GET", "/quota", "", "readwrite"),
        ("GET", "/maintenance/schedule", "", "readwrite"),
        ("POST", "/teardown", "", "readwrite"),
        ("POST", "/reserve", "", "readwrite"),
        ("POST", "/machine/down", "", "readwrite"),
        ("GET", "/state", "", "readonly"),
        ("GET", "/master/state-summary", "", "readonly"),
        ("GET", "/tasks", "", "readonly"),
        ("GET", "/slaves", "", "readonly"),
        ("GET", "/frameworks", "", "readonly"),
        ("GET", "/roles", "", "readonly"),
        ("GET", "/flags", "", "readonly"),
        ("GET", "/maintenance/status", "", "readonly"),
        ("GET", "/metrics/snapshot", "", "readonly"),
        ("GET", "/files/debug", "", "readonly"),
    ] {
        // `ops:secret-2`, and who is unknown.
        for wrong in
            [None, Some("Basic b3BzOnNlY3JldC0y"), Some("Basic eDp5"), Some("Bearer x"), Some("Basic")]
        {
            let answer = ask(&address, method, path, wrong, body).await;
            assert_eq!(answer.status, 401, "{path} {wrong:?}");
            let challenge = format!("Basic realm=\"mesos-master-{realm}\"");
            assert_eq!(answer.headers["www-authenticate"], challenge, "{path}");
        }
        let answer = ask(&address, method, path, Some(OPS), body).await;
        assert_ne!(answer.status, 401, "{path}");
    }
    for path in ["/health", "/version", "/master/version"] {
        assert_eq!(status(&address, "GET", path, None, "").await, 200, "{path}");
    }
    assert_eq!(status(&address, "GET", "/redirect", None, "").await, 307);
    assert_eq!(status(&address, "GET", "/nothing", None, "").await, 404);
    let flags = read(&address, "/flags", OPS).await["flags"].clone();
    for (flag, value) in [
        ("authenticate_http_frameworks", "true"),
        ("authenticate_http_readonly", "true"),
        ("authenticate_http_readwrite", "true"),
        ("http_framework_authenticators", "basic"),
    ] {
        assert_eq!(flags[flag], value, "{flag}");
    }
    assert!(!flags.to_string().contains("secret"), "{flags}");
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_framework_is_its_principals() {
    let Guarded { masters, _dir } = Guarded::start(1, None, |_| {}).await;
    let address = masters.addresses().remove(0);
    ready(&address, 200).await;
    let other = subscribe("web", Some("ops")).to_string();
    let answer = ask(&address, "POST", "/api/v1/scheduler", Some(WEB), &other).await;
    let (status, text) = (answer.status, answer.text().await);
    assert_eq!(status, 400);
    assert!(text.contains("'web' does not match principal 'ops' set in `FrameworkInfo`"), "{text}");
    // Who says nothing of itself is who it has shown that it is.
    let client = Client::subscribe(&address, WEB, "web").await;
    let shown = read(&address, "/frameworks", OPS).await["frameworks"][0].clone();
    assert_eq!(shown["principal"], "web", "{shown}");
    let (status, text) = client.call_as(&address, EVE, json!({"type": "TEARDOWN"})).await;
    assert_eq!(status, 400);
    assert!(text.contains("'eve' does not match principal 'web'"), "{text}");
    assert_eq!(client.call_as(&address, "Basic eDp5", json!({"type": "TEARDOWN"})).await.0, 401);
    client.call(json!({"type": "TEARDOWN"})).await;
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_counted_by_who_has_shown_who_it_is() {
    let limit = |config: &mut MasterConfig| {
        config.api.calls_per_second.insert("eve".into(), std::num::NonZeroU32::MIN);
    };
    let Guarded { masters, _dir } = Guarded::start(1, None, limit).await;
    let address = masters.addresses().remove(0);
    ready(&address, 200).await;
    let call = subscribe("web", None).to_string();
    let mut answers = Vec::new();
    while !answers.contains(&429) && answers.len() < 50 {
        answers.push(status(&address, "POST", "/api/v1/scheduler", Some(EVE), &call).await);
    }
    assert!(answers.contains(&429), "of fifty calls in a row one is too many: {answers:?}");
    for _ in 0..5 {
        assert_eq!(status(&address, "POST", "/api/v1/scheduler", Some(WEB), &call).await, 200);
    }
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_allowed_is_told_as_mesos_tells_it() {
    let Guarded { masters, _dir } = Guarded::start(1, Some(rules()), |_| {}).await;
    let address = masters.addresses().remove(0);
    ready(&address, 200).await;
    let mut agent = Agent::connect(&address, "machine-1").await;
    // A SUBSCRIBE is told on its stream, which ends.
    for (auth, role) in [(WEB, "other"), (EVE, "web/a"), (WEB, "web")] {
        let call = subscribe(role, None).to_string();
        let mut events = ask(&address, "POST", "/api/v1/scheduler", Some(auth), &call).await;
        assert_eq!(events.status, 200);
        let event: Value = serde_json::from_slice(&events.record().await.unwrap()).unwrap();
        assert_eq!(event["type"], "ERROR", "{event}");
        let why = event["error"]["message"].as_str().unwrap();
        assert!(why.starts_with("Not authorized") && why.contains(role), "{why}");
        assert_eq!(events.record().await, None);
    }
    let mut client = Client::subscribe(&address, WEB, "web/a").await;
    let mut moved = subscribe("other", Some("web"))["subscribe"].clone();
    moved["framework_info"]["id"] = json!({"value": client.framework_id});
    let (status, text) =
        client.call_as(&address, WEB, json!({"type": "UPDATE_FRAMEWORK", "update_framework": moved})).await;
    assert_eq!(status, 403);
    assert!(text.contains("'other'"), "{text}");

    // Of tasks and operations those are carried out that may be.
    let offer = client.offer().await;
    let reserved = json!([{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.0}, "role": "web/a",
        "reservation": {"principal": "web"}}]);
    let operations = json!([
        {"type": "LAUNCH", "launch": {"task_infos": [
            task_of(&offer, "as-root", Some("root")), task_of(&offer, "as-web", None)]}},
        {"type": "RESERVE", "id": {"value": "r1"}, "reserve": {"resources": reserved}},
        {"type": "RESERVE", "reserve": {"resources": reserved}},
    ]);
    client.call(accept(&offer, operations)).await;
    assert_eq!(agent.order().await.task_id, "as-web");
    assert_eq!(client.status("as-web").await["state"], "TASK_RUNNING");
    let operation =
        client.until("UPDATE_OPERATION_STATUS").await["update_operation_status"]["status"].clone();
    assert_eq!(
        (&operation["state"], &operation["operation_id"]["value"]),
        (&json!("OPERATION_ERROR"), &json!("r1"))
    );
    let update = client.status("as-root").await;
    assert_eq!(
        (&update["state"], &update["reason"], &update["source"]),
        (&json!("TASK_ERROR"), &json!("REASON_TASK_UNAUTHORIZED"), &json!("SOURCE_MASTER"))
    );
    assert_eq!(update["agent_id"], offer["agent_id"]);
    assert!(update.get("uuid").is_none(), "there is nothing to acknowledge: {update}");
    assert!(update["message"].as_str().unwrap().contains("'root'"), "{update}");

    // Launches alone go another way; and of a group all are refused for one.
    let offer = client.offer().await;
    let tasks = json!([task_of(&offer, "alone", Some("root"))]);
    client.call(accept(&offer, json!([{"type": "LAUNCH", "launch": {"task_infos": tasks}}]))).await;
    assert_eq!(client.status("alone").await["state"], "TASK_ERROR");
    let offer = client.offer().await;
    let executor = json!({"type": "CUSTOM", "executor_id": {"value": "e"}, "command": {"value": "x"},
        "framework_id": {"value": client.framework_id}, "resources": []});
    let group = json!({"tasks": [task_of(&offer, "g1", None), task_of(&offer, "g2", Some("root"))]});
    let launch = json!({"type": "LAUNCH_GROUP", "launch_group": {"executor": executor, "task_group": group}});
    client.call(accept(&offer, json!([launch]))).await;
    for id in ["g1", "g2"] {
        let update = client.status(id).await;
        assert_eq!(update["reason"], "REASON_TASK_GROUP_UNAUTHORIZED", "{update}");
    }
    client.offer().await; // what was offered is offered again
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_may_what_the_rules_say_and_see_no_more() {
    let Guarded { masters, _dir } = Guarded::start(1, Some(rules()), |_| {}).await;
    let address = masters.addresses().remove(0);
    ready(&address, 200).await;
    let mut agent = Agent::connect(&address, "machine-1").await;
    let mut watched = ask(&address, "POST", "/api/v1", Some(EVE), r#"{"type":"SUBSCRIBE"}"#).await;
    let first: Value = serde_json::from_slice(&watched.record().await.unwrap()).unwrap();
    assert_eq!(first["subscribed"]["get_state"]["get_frameworks"]["frameworks"], json!([]));
    let mut client = Client::subscribe(&address, WEB, "web/a").await;
    let offer = client.offer().await;
    let tasks = json!([task_of(&offer, "t1", None)]);
    client.call(accept(&offer, json!([{"type": "LAUNCH", "launch": {"task_infos": tasks}}]))).await;
    agent.order().await;
    client.until("UPDATE").await;

    // Whoever may not see something does not find it, wherever it looks.
    let count = |value: &Value| value.as_array().map_or(usize::MAX, Vec::len);
    for (auth, seen) in [(OPS, 1), (EVE, 0)] {
        let state = read(&address, "/state", auth).await;
        assert_eq!((count(&state["frameworks"]), count(&state["slaves"])), (seen, 1));
        assert_eq!(state.get("flags").is_some(), seen == 1);
        assert_eq!(count(&read(&address, "/tasks", auth).await["tasks"]), seen);
        assert_eq!(count(&read(&address, "/frameworks", auth).await["frameworks"]), seen);
        let summary = read(&address, "/state-summary", auth).await;
        assert_eq!(count(&summary["frameworks"]), seen);
        assert_eq!(summary["slaves"][0]["TASK_RUNNING"], json!(seen));
        let roles = read(&address, "/roles", auth).await;
        assert_eq!(count(&roles["roles"]) > 0, seen == 1, "{roles}");
        let (_, state) = operate(&address, auth, json!({"type": "GET_STATE"})).await;
        let state = &state["get_state"];
        assert_eq!(count(&state["get_tasks"]["tasks"]), seen);
        assert_eq!(count(&state["get_frameworks"]["frameworks"]), seen);
        assert_eq!(count(&state["get_agents"]["agents"]), 1);
        let allocated = &state["get_agents"]["agents"][0]["allocated_resources"];
        assert_eq!(allocated.as_array().is_some_and(|it| !it.is_empty()), seen == 1, "{allocated}");
        let (_, tasks) = operate(&address, auth, json!({"type": "GET_TASKS"})).await;
        assert_eq!(count(&tasks["get_tasks"]["tasks"]), seen);
    }
    for path in ["/flags", "/metrics/snapshot", "/files/debug", "/files/read?path=/master/log"] {
        assert_eq!(status(&address, "GET", path, Some(EVE), "").await, 403, "{path}");
        assert_ne!(status(&address, "GET", path, Some(OPS), "").await, 403, "{path}");
    }

    // Who may not do something is refused, and nothing is done.
    let level = json!({"level": 1, "duration": {"nanoseconds": 1}});
    let weights = |role: &str| json!([{"role": role, "weight": 2.0}]);
    let teardown = json!({"framework_id": {"value": client.framework_id}});
    for (call, part) in [
        ("GET_FLAGS", json!({})),
        ("SET_LOGGING_LEVEL", json!({"set_logging_level": level})),
        ("LIST_FILES", json!({"list_files": {"path": "/master/log"}})),
        ("READ_FILE", json!({"read_file": {"path": "/master/log", "offset": 0}})),
        ("UPDATE_WEIGHTS", json!({"update_weights": {"weight_infos": weights("web")}})),
        ("TEARDOWN", json!({ "teardown": teardown })),
        ("MARK_AGENT_GONE", json!({"mark_agent_gone": {"agent_id": offer["agent_id"]}})),
        ("UPDATE_MAINTENANCE_SCHEDULE", json!({"update_maintenance_schedule": {"schedule": {}}})),
        (
            "RESERVE_RESOURCES",
            json!({"reserve_resources": {"agent_id": offer["agent_id"], "resources": [
            {"name": "mem", "type": "SCALAR", "scalar": {"value": 1.0}, "role": "web/a",
             "reservation": {"principal": "eve"}}]}}),
        ),
    ] {
        let mut whole = part;
        whole["type"] = json!(call);
        assert_eq!(operate(&address, EVE, whole).await, (403, json!("")), "{call}");
    }
    let form = format!("frameworkId={}", client.framework_id);
    assert_eq!(status(&address, "POST", "/teardown", Some(EVE), &form).await, 403);
    assert_eq!(status(&address, "PUT", "/weights", Some(OPS), &weights("other").to_string()).await, 403);
    assert_eq!(status(&address, "PUT", "/weights", Some(OPS), &weights("web").to_string()).await, 200);
    let schedule =
        json!({"type": "UPDATE_MAINTENANCE_SCHEDULE", "update_maintenance_schedule": {"schedule": {}}});
    assert_eq!(operate(&address, OPS, schedule).await.0, 200);
    // A reservation is made in the name of who makes it.
    let mut mine = json!({"type": "RESERVE_RESOURCES", "reserve_resources": {"agent_id": offer["agent_id"],
        "resources": [{"name": "mem", "type": "SCALAR", "scalar": {"value": 1.0}, "role": "web/a",
            "reservation": {"principal": "eve"}}]}});
    let (status_, text) = operate(&address, OPS, mine.clone()).await;
    assert_eq!(status_, 400);
    assert!(text.as_str().unwrap().contains("'ops'"), "{text}");
    mine["reserve_resources"]["resources"][0]["reservation"]["principal"] = json!("ops");
    assert_eq!(operate(&address, OPS, mine).await.0, 403);

    // Events of what is not seen are not told: of all that happened only the agent.
    let mut own = ask(&address, "POST", "/api/v1", Some(OPS), r#"{"type":"SUBSCRIBE"}"#).await;
    own.record().await.unwrap();
    assert_eq!(status(&address, "POST", "/teardown", Some(OPS), &form).await, 200);
    loop {
        let event: Value = serde_json::from_slice(&own.record().await.unwrap()).unwrap();
        if event["type"] == "FRAMEWORK_REMOVED" {
            break;
        }
    }
    let _second = Agent::connect(&address, "machine-2").await;
    loop {
        let event: Value = serde_json::from_slice(&watched.record().await.unwrap()).unwrap();
        match event["type"].as_str().unwrap() {
            "AGENT_ADDED" => break,
            "HEARTBEAT" => {}
            other => panic!("{other} is told: {event}"),
        }
    }
    masters.stop().await;
}

/// Of three masters the leader and one that follows.
async fn two(masters: &Masters) -> (String, String) {
    let follower = masters.followers().await.remove(0);
    let leader = masters.address(&masters.leader().await);
    ready(&leader, 200).await;
    ready(&follower, 307).await;
    (leader, follower)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_ask_who_asks_and_hand_that_on() {
    let Guarded { masters, _dir } = Guarded::start(3, Some(rules()), |_| {}).await;
    let (leader, follower) = two(&masters).await;
    for path in ["/api/v1/scheduler", "/api/v1"] {
        assert_eq!(status(&follower, "POST", path, None, "").await, 401, "{path}");
        assert_eq!(status(&follower, "POST", path, Some(OPS), "").await, 307, "{path}");
    }
    let agent = Agent::connect(&follower, "machine-1").await;
    let mut client = Client::subscribe(&leader, WEB, "web/a").await;
    let offer = client.offer().await;
    // Calls that a follower hands on are judged as if they had come to the leader.
    let (status, _) = client.call_as(&follower, EVE, json!({"type": "TEARDOWN"})).await;
    assert_eq!(status, 400);
    let (status, _) = client.call_as(&follower, "Basic eDp5", json!({"type": "TEARDOWN"})).await;
    assert_eq!(status, 401);
    let tasks = json!([task_of(&offer, "t1", Some("root"))]);
    let call = accept(&offer, json!([{"type": "LAUNCH", "launch": {"task_infos": tasks}}]));
    assert_eq!(client.call_as(&follower, WEB, call).await, (202, String::new()));
    let update = client.until("UPDATE").await["update"]["status"].clone();
    assert_eq!(update["reason"], "REASON_TASK_UNAUTHORIZED", "{update}");
    drop(agent);
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_a_follower_carries_is_judged_there_and_at_the_leader() {
    let carry = |config: &mut MasterConfig| config.api.follower_streams = FollowerStreams::Forward;
    let Guarded { masters, _dir } = Guarded::start(3, Some(rules()), carry).await;
    let (leader, follower) = two(&masters).await;
    let mut agent = Agent::connect(&leader, "machine-1").await;
    let mut client = Client::subscribe(&follower, WEB, "web/a").await;
    // By the master that holds the stream, and by the leader, which does not.
    for (address, id) in [(&follower, "here"), (&leader, "there")] {
        let offer = client.offer().await;
        let tasks = json!([
            task_of(&offer, &format!("{id}-root"), Some("root")),
            task_of(&offer, &format!("{id}-web"), None)
        ]);
        let call = accept(&offer, json!([{"type": "LAUNCH", "launch": {"task_infos": tasks}}]));
        assert_eq!(client.call_as(address, WEB, call).await, (202, String::new()));
        assert_eq!(agent.order().await.task_id, format!("{id}-web"));
        let refused = client.status(&format!("{id}-root")).await;
        assert_eq!(refused["reason"], "REASON_TASK_UNAUTHORIZED", "{refused}");
        assert_eq!(client.call_as(address, EVE, json!({"type": "REVIVE"})).await.0, 400);
    }
    masters.stop().await;
}

fn with<T>(auth: Option<&str>, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(auth) = auth {
        request.metadata_mut().insert("authorization", auth.parse().unwrap());
    }
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_is_no_door_beside() {
    let Guarded { masters, _dir } = Guarded::start(1, Some(rules()), |_| {}).await;
    let address = masters.addresses().remove(0);
    ready(&address, 200).await;
    let mut agent = Agent::connect(&address, "machine-1").await;
    let mut client = operator(&address).await;
    let code = |result: Result<_, tonic::Status>| result.map(drop).map_err(|status| status.code());
    let list = v1::ListFrameworksRequest::default();
    for wrong in [None, Some("Basic eDp5")] {
        let answer = client.list_frameworks(with(wrong, list.clone())).await;
        assert_eq!(code(answer.map(drop)), Err(Code::Unauthenticated));
        let answer = client.teardown(with(wrong, v1::TeardownRequest::default())).await;
        assert_eq!(code(answer.map(drop)), Err(Code::Unauthenticated));
        let answer = client.transfer_leadership(with(wrong, v1::TransferLeadershipRequest::default())).await;
        assert_eq!(code(answer.map(drop)), Err(Code::Unauthenticated));
        let answer = client.get_raft_status(with(wrong, v1::GetRaftStatusRequest {})).await;
        assert_eq!(code(answer.map(drop)), Err(Code::Unauthenticated));
    }

    // A scheduler of the native stream is judged like one of the Mesos API.
    let stream = async |auth: Option<&str>, role: &str| {
        let (up, frames) = tokio::sync::mpsc::channel(16);
        let mut client = v1::scheduler_service_client::SchedulerServiceClient::new(channel(&address).await);
        let frames = tokio_stream::wrappers::ReceiverStream::new(frames);
        let down = client.session(with(auth, frames)).await?.into_inner();
        let call = subscribe(role, None).to_string();
        let call: mesos::scheduler::Call = Codec::Json.read(call.as_bytes()).unwrap();
        let info = call.subscribe.unwrap().framework_info;
        let call = v1::Subscribe { framework_info: info.encode_to_vec().into(), ..Default::default() };
        up.send(v1::SchedulerFrame { id: 1, call: Some(Up::Subscribe(call)), fence: None }).await.unwrap();
        Ok::<_, tonic::Status>((up, down))
    };
    use v1::scheduler_down_frame::Event as Down;
    assert_eq!(stream(None, "web/a").await.map(drop).map_err(|it| it.code()), Err(Code::Unauthenticated));
    let (_up, mut down) = stream(Some(EVE), "web/a").await.unwrap();
    let why = loop {
        match down.message().await.unwrap().expect("it is told why").event {
            Some(Down::Error(why)) => break why,
            Some(Down::Leader(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(why.starts_with("Not authorized"), "{why}");
    let (up, mut down) = stream(Some(WEB), "web/a").await.unwrap();
    let (mut framework_id, mut offer) = (String::new(), None);
    while offer.is_none() {
        match down.message().await.unwrap().expect("it goes on").event {
            Some(Down::Subscribed(it)) => framework_id = it.framework_id,
            Some(Down::Offers(it)) => offer = it.offers.into_iter().next(),
            _ => {}
        }
    }
    let offer = offer.unwrap();
    let mut root = Scheduler::task(&offer, "as-root", 0.5);
    root.command.as_mut().unwrap().user = Some("root".into());
    let tasks = [root, Scheduler::task(&offer, "as-web", 0.5)];
    let accept = v1::Accept {
        offer_ids: vec![offer.offer_id],
        task_infos: tasks.iter().map(|task| task.encode_to_vec().into()).collect(),
        ..Default::default()
    };
    up.send(v1::SchedulerFrame { id: 2, call: Some(Up::Accept(accept)), fence: None }).await.unwrap();
    assert_eq!(agent.order().await.task_id, "as-web");
    let update = loop {
        match down.message().await.unwrap().expect("it goes on").event {
            Some(Down::Update(update)) if update.task_id == "as-root" => break update,
            _ => {}
        }
    };
    let reason: i32 = mesos::task_status::Reason::TaskUnauthorized.into();
    assert_eq!(update.status.unwrap().reason, Some(reason));

    // What operators see and may.
    for (auth, seen) in [(OPS, 1), (EVE, 0)] {
        let all = client.list_frameworks(with(Some(auth), list.clone())).await.unwrap().into_inner();
        assert_eq!(all.frameworks.len(), seen);
        let all = client.list_tasks(with(Some(auth), v1::ListTasksRequest::default())).await.unwrap();
        assert_eq!(all.into_inner().tasks.len(), seen);
    }
    let teardown = v1::TeardownRequest { framework_id };
    let answer = client.teardown(with(Some(EVE), teardown.clone())).await;
    assert_eq!(code(answer.map(drop)), Err(Code::PermissionDenied));
    client.teardown(with(Some(OPS), teardown)).await.unwrap();
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_without_its_files_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let bad = write(dir.path(), "bad.json", &json!({"run_task": []}));
    for (change, parts) in [
        (
            Box::new(|config: &mut MasterConfig| config.auth.frameworks = true)
                as Box<dyn Fn(&mut MasterConfig)>,
            ["auth.frameworks is on", "auth.credentials"],
        ),
        (Box::new(|config| config.auth.acls.clone_from(&bad)), ["auth.acls", "run_tasks"]),
        (Box::new(|config| config.auth.credentials.clone_from(&bad)), ["auth.credentials", "\"principal\""]),
    ] {
        let mut config = MasterConfig { data_dir: dir.path().join("data"), ..Default::default() };
        config.listen = "127.0.0.1:0".into();
        change(&mut config);
        let error = muster_master::start(config).await.map(drop).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_files_everybody_may_everything() {
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    until(&address, 200).await;
    for auth in [None, Some(OPS), Some("Basic eDp5")] {
        assert_eq!(status(&address, "GET", "/flags", auth, "").await, 200);
        assert_eq!(status(&address, "POST", "/api/v1", auth, r#"{"type":"GET_STATE"}"#).await, 200);
    }
    masters.stop().await;
}
