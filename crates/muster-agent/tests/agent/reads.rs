//! What operators and tools read of an agent.

use crate::{
    runner::cases,
    world::{World, key, launch, order, shell},
};
use futures::future::join_all;
use muster_model::{AgentCall, AgentEvent, TaskState, VolumeMount, VolumeNumber, event::RunOrder};
use muster_proto::{executor_api::container_id, json::Codec, mesos};
use serde_json::{Value, json};
use std::fs;

cases!(
    a_task_is_seen_from_its_start_to_its_end,
    what_is_over_is_still_shown_after_the_agent_came_back_if_it_is_not_confirmed,
    files_of_sandboxes_are_shown_and_no_others,
    volumes_are_shown_in_the_sandboxes_of_those_that_use_them,
    containers_are_waited_for_and_killed,
    whoever_waits_while_a_task_ends_is_told_how,
    calls_of_operators_are_checked_as_mesos_checks_them,
    what_is_not_there_is_said_so,
);

const JSON: &str = "POST /slave%281%29/api/v1 HTTP/1.1\r\nContent-Type: application/json";

impl World {
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (code, body) = self.post(&format!("GET {path} HTTP/1.1"), "").await;
        assert_eq!(code, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(crate) async fn call(&self, call: Value) -> (u16, String) {
        self.post(JSON, &call.to_string()).await
    }

    pub(crate) async fn answer(&self, call: Value) -> Value {
        let (code, body) = self.call(call.clone()).await;
        assert_eq!(code, 200, "{call}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Waits until something that is read holds.
    pub(crate) async fn until<T>(&self, path: &str, holds: impl Fn(&Value) -> Option<T>) -> T {
        loop {
            if let Some(it) = holds(&self.get(path).await) {
                return it;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

async fn a_task_is_seen_from_its_start_to_its_end(mut world: World) {
    let (mut stream, _) = world.join().await;
    assert_eq!(world.get("/state").await["frameworks"], json!([]));
    world.run(&mut stream, 1, "echo $$ > up; while [ ! -e go ]; do sleep 0.01; done; exit 4").await;
    world.update(&mut stream, 1).await;
    let pid: u64 = world.line(&world.sandbox(1).join("up")).await.parse().unwrap();
    let state = world.get("/slave(1)/state").await;
    let executor = &state["frameworks"][0]["executors"][0];
    assert_eq!((&executor["id"], &executor["container"]), (&json!("t1"), &json!(container_id(launch(1)))));
    assert_eq!(executor["directory"], world.sandbox(1).canonicalize().unwrap().display().to_string());
    assert_eq!(executor["tasks"][0]["state"], "TASK_RUNNING");
    assert_eq!(state["unreserved_resources_allocated"]["cpus"], 0.1);
    assert_eq!(state["id"], "c1-S1");

    let containers = world.get("/containers").await;
    assert_eq!(containers[0]["status"]["executor_pid"], pid);
    assert!(containers[0]["statistics"]["mem_rss_bytes"].as_u64().unwrap() > 0);
    assert_eq!(world.get("/containers?container_id=other").await, json!([]));
    let monitored = world.get("/monitor/statistics").await;
    assert_eq!(monitored[0]["statistics"]["cpus_soft_limit"], 0.1);
    let metrics = world.get("/metrics/snapshot").await;
    for (name, value) in [
        ("slave/tasks_running", 1.0),
        ("slave/executors_running", 1.0),
        ("slave/frameworks_active", 1.0),
        ("slave/cpus_total", 4.0),
        ("slave/cpus_used", 0.1),
        ("slave/registered", 1.0),
        ("containerizer/fetcher/task_fetches_succeeded", 1.0),
        ("slave/tasks_failed", 0.0),
    ] {
        assert_eq!(metrics[name], value, "{name}");
    }
    let tasks = world.answer(json!({"type": "GET_TASKS"})).await;
    assert_eq!(tasks["get_tasks"]["launched_tasks"][0]["task_id"]["value"], "t1");

    fs::write(world.sandbox(1).join("go"), "").unwrap();
    let last = world.unconfirmed(&mut stream, 1).await;
    assert_eq!(last.status.state, TaskState::Failed);
    // As long as its end is not confirmed the executor is there.
    let tasks = world.answer(json!({"type": "GET_TASKS"})).await;
    assert_eq!(tasks["get_tasks"]["terminated_tasks"][0]["state"], "TASK_FAILED");
    stream.say(&AgentEvent::Confirm { launch: launch(1), seq: last.seq }).await;
    let over = world
        .until("/state", |state| {
            let over = &state["completed_frameworks"][0]["completed_executors"][0];
            (!over.is_null()).then(|| over.clone())
        })
        .await;
    let task = &over["completed_tasks"][0];
    assert_eq!(task["state"], "TASK_FAILED");
    let states: Vec<&Value> = task["statuses"].as_array().unwrap().iter().map(|it| &it["state"]).collect();
    assert_eq!(states.last(), Some(&&json!("TASK_FAILED")));
    let metrics = world.get("/metrics/snapshot").await;
    assert_eq!(
        (&metrics["slave/tasks_failed"], &metrics["slave/executors_terminated"]),
        (&json!(1.0), &json!(1.0))
    );
    let whole = world.answer(json!({"type": "GET_STATE"})).await;
    assert_eq!(whole["get_state"]["get_tasks"]["completed_tasks"][0]["name"], "");
    let frameworks = world.answer(json!({"type": "GET_FRAMEWORKS"})).await;
    assert_eq!(
        frameworks["get_frameworks"]["completed_frameworks"][0]["framework_info"]["id"]["value"],
        "f1"
    );
}

async fn what_is_over_is_still_shown_after_the_agent_came_back_if_it_is_not_confirmed(mut world: World) {
    let (mut stream, _) = world.join().await;
    world.run(&mut stream, 1, "true").await;
    while !world.unconfirmed(&mut stream, 1).await.status.state.is_terminal() {}
    world.kill_agent();
    let _stream = world.join().await;
    let tasks = world.answer(json!({"type": "GET_TASKS"})).await;
    assert_eq!(tasks["get_tasks"]["terminated_tasks"][0]["state"], "TASK_FINISHED");
    let states = tasks["get_tasks"]["terminated_tasks"][0]["statuses"].as_array().unwrap();
    assert_eq!(states.last().unwrap()["state"], "TASK_FINISHED");
}

async fn files_of_sandboxes_are_shown_and_no_others(mut world: World) {
    let (mut stream, _) = world.join().await;
    let secret = world.dir.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let text =
        format!("echo hello; ln -s {} link; mkdir d; ln -s ../stdout d/in; echo > ready", secret.display());
    world.run(&mut stream, 1, &text).await;
    world.outcome(&mut stream, 1).await;
    let directory = world.sandbox(1).canonicalize().unwrap().display().to_string();
    let list = world.answer(json!({"type": "LIST_FILES", "list_files": {"path": directory}})).await;
    let names: Vec<String> = list["list_files"]["file_infos"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["path"].as_str().unwrap().trim_start_matches(&*directory).to_owned())
        .collect();
    assert_eq!(names, ["/d", "/link", "/ready", "/stderr", "/stdout"]);
    let read = async |path: String| {
        world.call(json!({"type": "READ_FILE", "read_file": {"path": path, "offset": 1, "length": 3}})).await
    };
    let container = container_id(launch(1));
    for path in [
        format!("{directory}/stdout"),
        format!("{directory}/d/in"),
        format!("{directory}/d/../stdout"),
        "/frameworks/f1/executors/t1/runs/latest/stdout".into(),
        format!("/agents/c1-S1/frameworks/f1/executors/t1/runs/{container}/stdout"),
    ] {
        let (code, body) = read(path.clone()).await;
        assert_eq!(code, 200, "{path}: {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&body["read_file"]["size"], &body["read_file"]["data"]), (&json!(6), &json!("ZWxs")));
    }
    let work_dir = world.work_dir().canonicalize().unwrap().display().to_string();
    for path in [
        format!("{directory}/link"),
        format!("{directory}/../../../../meta/agent.log"),
        format!("{directory}/d/../../stdout"),
        format!("{work_dir}/meta/agent.log"),
        format!("{work_dir}/sandboxes/../meta/agent.log"),
        "/etc/passwd".into(),
        "/frameworks/../../etc/passwd".into(),
        secret.display().to_string(),
    ] {
        let (code, body) = read(path.clone()).await;
        assert!([400, 404].contains(&code), "{path}: {code} {body}");
        let (code, _) = world.post(&format!("GET /files/download?path={path} HTTP/1.1"), "").await;
        assert!([400, 404].contains(&code), "{path}: {code}");
    }
    let browsed = world.get(&format!("/files/browse?path={directory}/d")).await;
    assert_eq!(browsed[0]["path"], format!("{directory}/d/in"));
    let (code, body) = world.post(&format!("GET /files/download?path={directory}/stdout HTTP/1.1"), "").await;
    assert_eq!((code, body.as_str()), (200, "hello\n"));
    // The log of this agent is a file.
    let log = world.get("/files/read?path=/slave/log&offset=0").await;
    assert!(log["data"].as_str().unwrap().contains("agent starts"), "{log}");
    let shown = world.get("/files/debug").await;
    assert_eq!(shown["/frameworks/f1/executors/t1/runs/latest"], directory.as_str());
}

async fn volumes_are_shown_in_the_sandboxes_of_those_that_use_them(mut world: World) {
    let (mut stream, _) = world.join().await;
    let volume = |number: u64, at: &str| VolumeMount {
        number: VolumeNumber(1 << 40 | number),
        container_path: at.into(),
        read_only: false,
        executor: false,
    };
    let text = "echo kept > deep/er/file; mkdir deep/er/below; ln -s /etc/passwd deep/er/out; echo > up;
        while [ ! -e go ]; do sleep 0.01; done";
    let order_of = |n, what: &str, volumes| RunOrder { volumes, ..order(n, &shell(what)) };
    let run = order_of(1, text, vec![volume(7, "deep/er"), volume(8, "data")]);
    stream.say(&AgentEvent::Run(Box::new(run))).await;
    // One that uses no volume, and links to what others use.
    let root = world.work_dir().canonicalize().unwrap().join("volumes");
    let text = format!("ln -s {}/{} data; echo > up; sleep 1000", root.display(), 1u64 << 40 | 7);
    world.run(&mut stream, 2, &text).await;
    for n in [1, 2] {
        world.line(&world.sandbox(n).join("up")).await;
    }
    let directory = |n| world.sandbox(n).canonicalize().unwrap().display().to_string();
    let (own, other) = (directory(1), directory(2));
    let browse = async |path: String| {
        let list = world.get(&format!("/files/browse?path={path}")).await;
        let entry = |it: &Value| {
            let name = it["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
            (name, it["mode"].as_str().unwrap().chars().next().unwrap())
        };
        list.as_array().unwrap().iter().map(entry).collect::<Vec<_>>()
    };
    let entries = |list: &[(&str, char)]| -> Vec<(String, char)> {
        list.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect()
    };
    let sandbox = [("data", 'd'), ("deep", 'd'), ("stderr", '-'), ("stdout", '-'), ("up", '-')];
    assert_eq!(browse(own.clone()).await, entries(&sandbox));
    assert_eq!(browse(format!("{own}/deep")).await, entries(&[("er", 'd')]));
    let inside = [("below", 'd'), ("file", '-'), ("out", 'l')];
    assert_eq!(browse(format!("{own}/deep/er")).await, entries(&inside));
    assert_eq!(browse("/frameworks/f1/executors/t1/runs/latest/deep//er/.".into()).await, entries(&inside));
    let code =
        async |path: String| world.post(&format!("GET /files/download?path={path} HTTP/1.1"), "").await;
    assert_eq!(code(format!("{own}/deep/er/file")).await, (200, "kept\n".into()));
    assert!(browse(other.clone()).await.contains(&("data".into(), 'l')), "a link, no volume");
    for path in [
        format!("{own}/deep/er/out"),
        format!("{own}/deep/er/../er/file"),
        format!("{own}/deep/er/../{}/file", 1u64 << 40 | 8),
        format!("{other}/data"),
        format!("{other}/data/file"),
        format!("{}/{}/file", root.display(), 1u64 << 40 | 7),
        own.replace("/t1/", "/t2/") + "/deep/er/file",
        own.replace("/f1/", "/f2/") + "/deep/er/file",
    ] {
        let (code, body) = code(path.clone()).await;
        assert!([400, 404].contains(&code), "{path}: {code} {body}");
    }
    // Whoever does not use it any more does not show it: it may be another's.
    fs::write(world.sandbox(1).join("go"), "").unwrap();
    world.outcome(&mut stream, 1).await;
    for (path, code) in [("deep/er/file", 400), ("stdout", 200)] {
        let head = format!("GET /files/download?path={own}/{path} HTTP/1.1");
        assert_eq!(world.post(&head, "").await.0, code, "{path}");
    }
}

async fn containers_are_waited_for_and_killed(mut world: World) {
    let (mut stream, _) = world.join().await;
    world.run(&mut stream, 1, "trap 'exit 7' USR1; echo > up; while :; do sleep 0.01; done").await;
    world.run(&mut stream, 2, "echo > up; sleep 1000").await;
    for n in [1, 2] {
        world.update(&mut stream, n).await;
        world.line(&world.sandbox(n).join("up")).await;
    }
    let id = |n| json!({"value": container_id(launch(n))});
    let wait = |n| json!({"type": "WAIT_CONTAINER", "wait_container": {"container_id": id(n)}});
    let kill = |n, signal: Option<i32>| json!({"type": "KILL_CONTAINER", "kill_container": {"container_id": id(n), "signal": signal}});
    let remove = |id: Value| json!({"type": "REMOVE_CONTAINER", "remove_container": {"container_id": id}});
    assert_eq!(world.call(remove(id(1))).await.0, 500);
    let (first, second, _) = tokio::join!(world.answer(wait(1)), world.answer(wait(2)), async {
        assert_eq!(world.call(kill(1, Some(10))).await, (200, String::new()));
        assert_eq!(world.call(kill(2, None)).await, (200, String::new()));
    });
    assert_eq!(first["wait_container"], json!({"exit_status": 7 << 8}));
    assert_eq!(second["wait_container"], json!({"exit_status": 9}));
    assert_eq!(world.outcome(&mut stream, 1).await.1, "Command exited with status 7");
    assert_eq!(world.outcome(&mut stream, 2).await.1, "Command terminated with signal SIGKILL");
    let gone = container_id(launch(1));
    let why = format!("Container '{gone}' cannot be found (or is already killed)");
    assert_eq!(world.call(kill(1, None)).await, (404, why));
    assert_eq!(world.call(kill(2, Some(0))).await.0, 400);
    // What was confirmed is taken in before what is said afterwards is answered.
    stream.say(&AgentEvent::Ping(1)).await;
    while stream.hear().await.unwrap().1 != AgentCall::Pong(1) {}
    assert_eq!(world.call(wait(1)).await, (404, format!("Container {gone} cannot be found")));
    assert_eq!(world.call(remove(json!({"value": "x", "parent": id(1)}))).await.0, 200);
    assert_eq!(world.call(remove(json!({"value": "x"}))).await.0, 500);
}

/// Some ask before the end is shown, some after, and some in between.
async fn whoever_waits_while_a_task_ends_is_told_how(mut world: World) {
    let (mut stream, _) = world.join().await;
    for n in 1..=10 {
        world.run(&mut stream, n, "while [ ! -e go ]; do sleep 0.001; done; exit 3").await;
        world.update(&mut stream, n).await;
        fs::write(world.sandbox(n).join("go"), "").unwrap();
        let id = json!({"value": container_id(launch(n))});
        let wait = json!({"type": "WAIT_CONTAINER", "wait_container": {"container_id": id}});
        for told in join_all((0..200).map(|_| world.answer(wait.clone()))).await {
            assert_eq!(told["wait_container"], json!({"exit_status": 3 << 8}));
        }
        world.outcome(&mut stream, n).await;
    }
}

async fn calls_of_operators_are_checked_as_mesos_checks_them(mut world: World) {
    let _stream = world.join().await;
    let json = "Content-Type: application/json";
    for (head, body, code, text) in [
        ("", "{}", 400, "Expecting 'Content-Type' to be present"),
        ("Content-Type: text/plain", "{}", 415, "application/x-protobuf or application/recordio"),
        ("Content-Type: application/recordio", "", 400, "Expecting 'Message-Content-Type' to be set"),
        (
            "Content-Type: application/json\r\nMessage-Content-Type: application/json",
            "{}",
            415,
            "'Message-Content-Type' to be not set",
        ),
        ("Content-Type: application/json\r\nAccept: text/html", "{", 406, "Expecting 'Accept' to allow"),
        (
            "Content-Type: application/json\r\nMessage-Accept: application/json",
            "{",
            406,
            "'Message-Accept' to be not set",
        ),
        (json, "{", 400, "Failed to parse body into JSON"),
        (json, "{}", 400, "Failed to validate agent::Call: Expecting 'type' to be present"),
        (json, r#"{"type":"READ_FILE"}"#, 400, "Expecting 'read_file' to be present"),
        (
            json,
            r#"{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"a/b"}}}"#,
            400,
            "'wait_container.container_id' is invalid",
        ),
        (
            "Content-Type: application/recordio\r\nMessage-Content-Type: application/json",
            "21\n{\"type\":\"GET_HEALTH\"} ",
            415,
            "is not supported for GET_HEALTH call",
        ),
        (
            "Content-Type: application/recordio\r\nMessage-Content-Type: application/json",
            "30\n{",
            400,
            "Received EOF",
        ),
        (
            "Content-Type: application/json\r\nAccept: application/recordio",
            r#"{"type":"GET_HEALTH"}"#,
            406,
            "Streaming response is not supported for GET_HEALTH call",
        ),
        (
            json,
            r#"{"type":"ATTACH_CONTAINER_INPUT","attach_container_input":{}}"#,
            415,
            "Expecting 'Content-Type' to be application/recordio",
        ),
        (json, r#"{"type":"UNKNOWN"}"#, 501, "UNKNOWN"),
    ] {
        let line = if head.is_empty() { String::new() } else { format!("\r\n{head}") };
        let (answered, said) = world.post(&format!("POST /api/v1/operator HTTP/1.1{line}"), body).await;
        assert_eq!(answered, code, "{head} {body}: {said}");
        assert!(said.contains(text), "{head} {body}: {said}");
    }
    assert_eq!(world.post("GET /api/v1 HTTP/1.1", "").await.0, 405);
    // In protobuf, and compressed.
    let call = Codec::Protobuf.write(&mesos::agent::Call {
        r#type: Some(mesos::agent::call::Type::GetVersion.into()),
        ..Default::default()
    });
    let head =
        "POST /api/v1 HTTP/1.1\r\nContent-Type: application/x-protobuf\r\nAccept: application/x-protobuf";
    let answer = world.ask(head, &call).await;
    let at = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
    let answer: mesos::agent::Response = Codec::Protobuf.read(&answer[at..]).unwrap();
    assert_eq!(answer.get_version.unwrap().version_info.version, "1.11.0");
}

async fn what_is_not_there_is_said_so(mut world: World) {
    let (mut stream, _) = world.join().await;
    stream.say(&AgentEvent::Run(Box::new(order(1, &shell("sleep 1000"))))).await;
    world.update(&mut stream, 1).await;
    let id = json!({"value": "x", "parent": {"value": container_id(launch(1))}});
    for (call, code) in [
        (json!({"type": "LAUNCH_NESTED_CONTAINER", "launch_nested_container": {"container_id": id}}), 501),
        (json!({"type": "LAUNCH_CONTAINER", "launch_container": {"container_id": {"value": "x"}}}), 501),
        (json!({"type": "ATTACH_CONTAINER_OUTPUT", "attach_container_output": {"container_id": id}}), 404),
        (json!({"type": "PRUNE_IMAGES"}), 501),
        (
            json!({"type": "SET_LOGGING_LEVEL", "set_logging_level": {"level": 1, "duration": {"nanoseconds": 1}}}),
            501,
        ),
        (
            json!({"type": "REMOVE_RESOURCE_PROVIDER_CONFIG",
            "remove_resource_provider_config": {"type": "t", "name": "n"}}),
            501,
        ),
        (
            json!({"type": "MARK_RESOURCE_PROVIDER_GONE",
            "mark_resource_provider_gone": {"resource_provider_id": {"value": "x"}}}),
            404,
        ),
        (json!({"type": "WAIT_NESTED_CONTAINER", "wait_nested_container": {"container_id": id}}), 404),
        (json!({"type": "KILL_NESTED_CONTAINER", "kill_nested_container": {"container_id": id}}), 404),
    ] {
        let (answered, said) = world.call(call.clone()).await;
        assert_eq!(answered, code, "{call}: {said}");
        assert!(!said.is_empty(), "{call}");
    }
    for (kind, part) in
        [("GET_OPERATIONS", "get_operations"), ("GET_RESOURCE_PROVIDERS", "get_resource_providers")]
    {
        assert_eq!(world.answer(json!({"type": kind})).await, json!({"type": kind, part: {}}));
    }
    assert_eq!(world.answer(json!({"type": "GET_LOGGING_LEVEL"})).await["get_logging_level"]["level"], 0);
    let (code, _) = world.post("POST /api/v1/resource_provider HTTP/1.1", "{}").await;
    assert_eq!(code, 501);
    for path in ["/nope", "/slave(1)/metrics/snapshot", "/slave(1)/files/browse?path=/", "/master/state", "/"]
    {
        assert_eq!(world.post(&format!("GET {path} HTTP/1.1"), "").await.0, 404, "{path}");
    }
    assert_eq!(world.post("GET /containers?x=1 HTTP/1.1", "").await.0, 400);
    assert_eq!(world.post("PUT /state HTTP/1.1", "").await.0, 405);
    stream.say(&AgentEvent::Kill { launch: launch(1), task: key(1), grace_ms: None }).await;
    world.outcome(&mut stream, 1).await;
}
