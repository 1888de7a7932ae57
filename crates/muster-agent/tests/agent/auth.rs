//! Who may ask an agent what, over HTTP.

use crate::{
    executor::{Ear, executor_info, in_executor, python},
    runner::cases,
    world::{World, launch},
};
use muster_http::auth::{Auth, Claims, Realm, Settings};
use muster_model::TaskState::{Finished, Running};
use muster_proto::executor_api::container_id;
use serde_json::{Value, json};
use std::fs;

cases!(
    an_executor_shows_the_token_that_it_was_given,
    each_path_asks_in_its_realm_who_asks,
    what_may_not_be_seen_is_left_out_or_refused,
);

const EXECUTOR: &str = "POST /api/v1/executor HTTP/1.1\r\nContent-Type: application/json";
pub(crate) const OPERATOR: &str = "POST /api/v1 HTTP/1.1\r\nContent-Type: application/json";
/// `ops:secret-1` and `eve:secret-3` in base64.
pub(crate) const OPS: &str = "Basic b3BzOnNlY3JldC0x";
pub(crate) const EVE: &str = "Basic ZXZlOnNlY3JldC0z";

pub(crate) fn shows(head: &str, shown: &str) -> String {
    format!("{head}\r\nAuthorization: {shown}")
}

impl World {
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Closes realms, with rules.
    pub(crate) fn guard(&self, closed: &[&str], acls: &Value) {
        let credentials = json!({"credentials": [
            {"principal": "ops", "secret": "secret-1"}, {"principal": "eve", "secret": "secret-3"}]});
        let credentials = self.file("credentials.json", &credentials.to_string());
        let key = self.file("key", "a key of an agent that is long enough");
        let acls = self.file("acls.json", &acls.to_string());
        let files = format!("credentials = '{credentials}'\nacls = '{acls}'\njwt-secret-key = '{key}'");
        let closed: String = closed.iter().map(|realm| format!("{realm} = true\n")).collect();
        self.add_to_config(&format!("[auth]\n{files}\n{closed}"));
    }

    /// A token for any claims, made with the agent's own key.
    fn token(&self, fid: &str, eid: &str, cid: &str) -> String {
        let closed = [Realm::Executor].into();
        let token_key = self.dir.path().join("key");
        let auth = Auth::load("mesos-agent", &Settings { closed, token_key, ..Default::default() }).unwrap();
        let claims = Claims { cid: cid.into(), eid: eid.into(), fid: fid.into() };
        format!("Bearer {}", auth.token(&claims).unwrap())
    }

    async fn code(&self, head: &str, body: &str) -> u16 {
        self.post(head, body).await.0
    }

    async fn seen(&self, path: &str, who: &str) -> Value {
        let (code, body) = self.post(&shows(&format!("GET {path} HTTP/1.1"), who), "").await;
        assert_eq!(code, 200, "{path}");
        serde_json::from_str(&body).unwrap()
    }
}

async fn an_executor_shows_the_token_that_it_was_given(mut world: World) {
    world.guard(&["executors", "readwrite"], &json!({}));
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    let executor = executor_info(python(""));
    ear.run(in_executor(1, &executor, "run")).await;
    ear.reaches(1, Running).await; // it has subscribed, and said so, with its token
    let message = r#"{"type":"MESSAGE","framework_id":{"value":"f1"},"executor_id":{"value":"e1"},
        "message":{"data":"aGk="}}"#;
    let own = container_id(launch(1));
    for (shown, code) in [
        (world.token("f1", "e1", &own), 202),
        (world.token("f1", "e2", &own), 403),
        (world.token("f2", "e1", &own), 403),
        (world.token("f1", "e1", "another container"), 403),
        ("Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.x".into(), 401),
        (OPS.into(), 401),
    ] {
        assert_eq!(world.code(&shows(EXECUTOR, &shown), message).await, code, "{shown}");
    }
    let whole = String::from_utf8(world.ask(EXECUTOR, message.as_bytes()).await).unwrap();
    assert!(whole.starts_with("HTTP/1.1 401 "), "{whole}");
    assert!(whole.contains("www-authenticate: Bearer realm=\"mesos-agent-executor\"\r\n"), "{whole}");
    // Of what is not there it is said so.
    let unknown = message.replace("e1", "nobody");
    let shown = world.token("f1", "nobody", "c");
    assert_eq!(world.code(&shows(EXECUTOR, &shown), &unknown).await, 400);

    // With it an executor may do what is its own to do by the agent's operator API, and nothing else.
    let shown = shows(OPERATOR, &world.token("f1", "e1", &own));
    let wait =
        |id: Value| json!({"type": "WAIT_NESTED_CONTAINER", "wait_nested_container": {"container_id": id}});
    let nested = |parent: &str| wait(json!({"value": "x", "parent": {"value": parent}})).to_string();
    assert_eq!(world.code(&shown, &nested(&own)).await, 404, "there is none within it");
    assert_eq!(world.code(&shown, &nested("other")).await, 403);
    let kill = json!({"type": "KILL_CONTAINER", "kill_container": {"container_id": {"value": own}}});
    assert_eq!(world.code(&shown, &kill.to_string()).await, 403);
    assert_eq!(world.code(&shown, r#"{"type":"GET_FLAGS"}"#).await, 403);
    let (code, tasks) = world.post(&shown, r#"{"type":"GET_TASKS"}"#).await;
    assert_eq!((code, tasks.contains("t1")), (200, false), "{tasks}");

    // The token outlives the agent, and a new executor of the same name has another.
    world.kill_agent();
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    ear.run(in_executor(2, &executor, "finish")).await;
    ear.reaches(2, Finished).await;
    assert_eq!(world.code(&shows(EXECUTOR, &world.token("f1", "e1", &own)), message).await, 202);
    ear.shut_down().await;
    ear.executor_ends().await;
}

async fn each_path_asks_in_its_realm_who_asks(mut world: World) {
    world.guard(&["readonly", "readwrite", "executors"], &json!({}));
    let (_stream, _) = world.join().await;
    for (method, path, realm) in [
        ("POST", "/api/v1", "readwrite"),
        ("POST", "/slave(1)/api/v1", "readwrite"),
        ("POST", "/api/v1/executor", "executor"),
        ("POST", "/api/v1/resource_provider", "resource-provider"),
        ("GET", "/state", "readonly"),
        ("GET", "/slave%281%29/state", "readonly"),
        ("GET", "/flags", "readonly"),
        ("GET", "/containers", "readonly"),
        ("GET", "/monitor/statistics", "readonly"),
        ("GET", "/metrics/snapshot", "readonly"),
        ("GET", "/files/debug", "readonly"),
    ] {
        let head = format!("{method} {path} HTTP/1.1\r\nContent-Type: application/json");
        let whole = String::from_utf8(world.ask(&head, b"{\"type\":\"GET_HEALTH\"}").await).unwrap();
        assert!(whole.starts_with("HTTP/1.1 401 "), "{path}: {whole}");
        assert!(whole.contains(&format!("realm=\"mesos-agent-{realm}\"")), "{path}: {whole}");
        if realm.starts_with("read") {
            let code = world.code(&shows(&head, OPS), r#"{"type":"GET_HEALTH"}"#).await;
            assert_eq!(code, 200, "{path}");
        }
    }
    for path in ["/health", "/version"] {
        assert_eq!(world.code(&format!("GET {path} HTTP/1.1"), "").await, 200, "{path}");
    }
    let flags = world.seen("/flags", OPS).await["flags"].clone();
    for flag in ["authenticate_http_executors", "authenticate_http_readonly", "authenticate_http_readwrite"] {
        assert_eq!(flags[flag], "true", "{flag}");
    }
}

async fn what_may_not_be_seen_is_left_out_or_refused(mut world: World) {
    let only_ops = |field: &str| {
        let mut rules = [json!({"principals": {"values": ["ops"]}}), json!({"principals": {"type": "ANY"}})];
        rules[0][field] = json!({"values": ["nobody"]});
        rules[1][field] = json!({"type": "NONE"});
        json!(rules)
    };
    let acls = json!({
        "view_frameworks": only_ops("users"),
        "view_containers": only_ops("users"),
        "access_sandboxes": only_ops("users"),
        "kill_nested_containers": only_ops("users"),
        "get_endpoints": [{"principals": {"values": ["eve"]}, "paths": {"values": ["/monitor/statistics"]}},
            {"principals": {"values": ["eve"]}, "paths": {"type": "NONE"}}],
        "access_mesos_logs": [{"principals": {"values": ["eve"]}, "logs": {"type": "NONE"}}],
        "set_log_level": [{"principals": {"values": ["eve"]}, "level": {"type": "NONE"}}],
    });
    world.guard(&["readonly", "readwrite"], &acls);
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    ear.run(in_executor(1, &executor_info(python("")), "run")).await;
    ear.reaches(1, Running).await;
    let sandbox = world.executors(1).canonicalize().unwrap().display().to_string();
    let by_name = "/frameworks/f1/executors/e1/runs/latest";
    for (who, seen) in [(OPS, 1), (EVE, 0)] {
        let count = |value: &Value| value.as_array().map_or(usize::MAX, Vec::len);
        assert_eq!(count(&world.seen("/state", who).await["frameworks"]), seen);
        let (_, state) = world.post(&shows(OPERATOR, who), r#"{"type":"GET_STATE"}"#).await;
        assert_eq!(state.contains("\"t1\""), seen == 1, "{state}");
        let (_, containers) = world.post(&shows(OPERATOR, who), r#"{"type":"GET_CONTAINERS"}"#).await;
        assert_eq!(containers.contains("\"e1\""), seen == 1, "{containers}");
        let monitored = world.seen("/monitor/statistics", who).await;
        assert_eq!(count(&monitored), seen);
        for path in ["/containers", "/metrics/snapshot", "/files/debug"] {
            let code = world.code(&shows(&format!("GET {path} HTTP/1.1"), who), "").await;
            assert_eq!(code, if seen == 1 { 200 } else { 403 }, "{path}");
        }
        for path in [sandbox.as_str(), by_name] {
            let browse = shows(&format!("GET /files/browse?path={path} HTTP/1.1"), who);
            assert_eq!(world.code(&browse, "").await, if seen == 1 { 200 } else { 403 }, "{path}");
            let list = json!({"type": "LIST_FILES", "list_files": {"path": path}}).to_string();
            assert_eq!(world.code(&shows(OPERATOR, who), &list).await, if seen == 1 { 200 } else { 403 });
        }
    }
    let head = shows(OPERATOR, EVE);
    let kill = json!({"type": "KILL_CONTAINER", "kill_container": {"container_id": {"value": container_id(launch(1))}}});
    assert_eq!(world.code(&head, &kill.to_string()).await, 403);
    let level =
        r#"{"type":"SET_LOGGING_LEVEL","set_logging_level":{"level":1,"duration":{"nanoseconds":1}}}"#;
    assert_eq!(world.code(&head, level).await, 403);
    let log = r#"{"type":"READ_FILE","read_file":{"path":"/slave/log","offset":0}}"#;
    assert_eq!(world.code(&head, log).await, 403);
    assert_eq!(world.code(&shows(OPERATOR, OPS), log).await, 200);
    ear.shut_down().await;
    ear.executor_ends().await;
}
