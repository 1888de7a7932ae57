//! Commands that are run beside a task, with their streams over HTTP.

use crate::{
    auth::{EVE, OPERATOR, OPS, shows},
    limits::name_of_group,
    pods::{Ear, in_pod},
    runner::cases,
    world::{World, alive, launch, order, shell},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use muster_model::{AgentEvent, TaskState};
use muster_proto::{
    executor_api::{container_id, nested_container},
    media::{Records, record},
};
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    fs,
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;

cases!(
    a_command_is_run_beside_a_task_with_its_streams,
    a_terminal_is_one_and_has_a_size,
    a_session_ends_with_its_connection_and_all_it_started_with_it,
    a_session_ends_with_its_task_and_with_its_agent,
    who_does_not_read_holds_up_nobody_else,
    a_session_is_signalled_and_killed,
    others_listen_and_are_cut_off,
    a_session_is_in_the_group_and_of_the_user_of_its_task,
    a_task_of_a_pod_is_looked_into,
    what_cannot_be_is_refused,
    rules_say_who_may_look_into_what,
);

const BEGINS: &str = "while [ ! -e go ]; do sleep 0.01; done";

/// A nested container's id, in that of a launch.
pub(crate) fn id(name: &str, n: u64) -> Value {
    json!({"value": name, "parent": {"value": container_id(launch(n))}})
}

pub(crate) fn session(id: &Value, script: &str) -> Value {
    json!({"type": "LAUNCH_NESTED_CONTAINER_SESSION",
        "launch_nested_container_session": {"container_id": id, "command": {"value": script}}})
}

pub(crate) fn with_tty(mut call: Value, rows: u32, columns: u32) -> Value {
    call["launch_nested_container_session"]["container"] =
        json!({"type": "MESOS", "tty_info": {"window_size": {"rows": rows, "columns": columns}}});
    call
}

/// What comes of a session.
pub(crate) struct Stream {
    body: Incoming,
    records: Records,
}

impl Stream {
    /// The next message, without heartbeats; none at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(record) = self.records.next_whole().unwrap() {
                let message: Value = serde_json::from_slice(&record).unwrap();
                match message["type"].as_str().unwrap() {
                    "DATA" => return Some(message["data"].clone()),
                    _ => continue,
                }
            }
            let frame = self.body.frame().await?.ok()?;
            self.records.push(frame.data_ref().unwrap());
        }
    }

    /// Whether what comes breaks off rather than ends.
    pub(crate) async fn is_broken(&mut self) -> bool {
        loop {
            match self.body.frame().await {
                None => return false,
                Some(Err(_)) => return true,
                Some(Ok(_)) => {}
            }
        }
    }

    /// All that comes until the text has come to its standard output, or all.
    pub(crate) async fn until(&mut self, text: Option<&str>) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        while text.is_none_or(|text| !String::from_utf8_lossy(&out).contains(text)) {
            let Some(data) = self.next().await else {
                assert_eq!(text, None, "{:?}", String::from_utf8_lossy(&out));
                break;
            };
            let bytes = base64::Engine::decode(
                &base64::engine::general_purpose::STANDARD,
                data["data"].as_str().unwrap(),
            );
            let to = if data["type"] == "STDERR" { &mut err } else { &mut out };
            to.extend(bytes.unwrap());
        }
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }
}

/// The input of a session.
pub(crate) struct Input {
    sender: mpsc::Sender<Bytes>,
    response: tokio::task::JoinHandle<(u16, String)>,
}

impl Input {
    async fn say(&self, attach: Value) {
        let call = json!({"type": "ATTACH_CONTAINER_INPUT", "attach_container_input": attach});
        self.sender.send(record(call.to_string().as_bytes())).await.unwrap();
    }

    pub(crate) async fn give(&self, text: &str) {
        let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        let io = json!({"type": "DATA", "data": {"type": "STDIN", "data": data}});
        self.say(json!({"type": "PROCESS_IO", "process_io": io})).await;
    }

    pub(crate) async fn resize(&self, rows: u32, columns: u32) {
        let size = json!({"window_size": {"rows": rows, "columns": columns}});
        let control = json!({"type": "CONTROL", "control": {"type": "TTY_INFO", "tty_info": size}});
        self.say(json!({"type": "PROCESS_IO", "process_io": control})).await;
    }

    pub(crate) async fn end(self) -> (u16, String) {
        drop(self.sender);
        self.response.await.unwrap()
    }
}

impl World {
    async fn send(&self, headers: &[(&str, &str)], body: BoxBody<Bytes, Infallible>) -> Response<Incoming> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::post("/api/v1").header("Host", "agent");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        sender.send_request(request.body(body).unwrap()).await.unwrap()
    }

    pub(crate) async fn stream(&self, call: &Value) -> Result<Stream, (u16, String)> {
        let accept = [
            ("Content-Type", "application/json"),
            ("Accept", "application/recordio"),
            ("Message-Accept", "application/json"),
        ];
        let response = self.send(&accept, Full::new(call.to_string().into()).boxed()).await;
        if response.status() == 200 {
            assert_eq!(response.headers()["content-type"], "application/recordio");
            assert_eq!(response.headers()["message-content-type"], "application/json");
            return Ok(Stream { body: response.into_body(), records: Records::default() });
        }
        let code = response.status().as_u16();
        let words = response.into_body().collect().await.unwrap().to_bytes();
        Err((code, String::from_utf8(words.to_vec()).unwrap()))
    }

    pub(crate) async fn look(&self, call: &Value) -> Stream {
        self.stream(call).await.map_err(|why| panic!("{why:?}")).unwrap()
    }

    pub(crate) async fn input(&self, id: &Value) -> Input {
        let (sender, receiver) = mpsc::channel::<Bytes>(8);
        let frames = tokio_stream::StreamExt::map(ReceiverStream::new(receiver), |it| {
            Ok::<_, Infallible>(Frame::data(it))
        });
        let (port, body) = (self.port, StreamBody::new(frames).boxed());
        let response = tokio::spawn(async move {
            let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let request = Request::post("/api/v1")
                .header("Host", "agent")
                .header("Content-Type", "application/recordio")
                .header("Message-Content-Type", "application/json")
                .body(body)
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            let code = response.status().as_u16();
            let words = response.into_body().collect().await.unwrap().to_bytes();
            (code, String::from_utf8(words.to_vec()).unwrap())
        });
        let input = Input { sender, response };
        input.say(json!({"type": "CONTAINER_ID", "container_id": id})).await;
        input
    }

    pub(crate) async fn wait_status(&self, id: &Value) -> Value {
        let wait = json!({"type": "WAIT_CONTAINER", "wait_container": {"container_id": id}});
        self.answer(wait).await["wait_container"]["exit_status"].clone()
    }

    /// Waits until the pipe that a process has at a number holds all that it can. A file has the process's own.
    ///
    /// A shell that writes to a file by a word of its own has the file at that number meanwhile, and for a moment nothing.
    async fn until_full(&self, pid: &Path, number: u32) {
        let pid = self.line(pid).await;
        let how = fs::OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
            .clone();
        loop {
            if let Ok(pipe) = how.open(format!("/proc/{pid}/fd/{number}"))
                && pipe.metadata().unwrap().file_type().is_fifo()
            {
                let size = rustix::pipe::fcntl_getpipe_size(&pipe).unwrap();
                // A piece that does not fit into what is left of its last page takes another one.
                if rustix::io::ioctl_fionread(&pipe).unwrap() as usize > size / 2 {
                    return;
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    async fn of_container(&self, kind: &str, mut more: Value, id: &Value) -> u16 {
        more["container_id"] = id.clone();
        self.call(json!({"type": kind, kind.to_lowercase(): more})).await.0
    }

    async fn running(&mut self) -> crate::master::AgentStream {
        let (mut stream, _) = self.join().await;
        self.run(&mut stream, 1, &format!("export HAS=this; {BEGINS}")).await;
        assert_eq!(self.update(&mut stream, 1).await.status.state, TaskState::Running);
        stream
    }
}

async fn a_command_is_run_beside_a_task_with_its_streams(mut world: World) {
    let mut stream = world.running().await;
    let name = id("s1", 1);
    let mut call = session(&name, "pwd; echo $MESOS_TASK_ID $OWN; echo problem >&2; cat; exit 3");
    call["launch_nested_container_session"]["command"]["environment"] =
        json!({"variables": [{"name": "OWN", "value": "mine"}]});
    let mut out = world.look(&call).await;
    // One of its name is there.
    assert_eq!(world.stream(&call).await.err().unwrap().0, 202);
    let input = world.input(&name).await;
    input.give("hello ").await;
    input.give("there").await;
    input.give("").await;
    let sandbox = world.sandbox(1).canonicalize().unwrap();
    let expected = format!("{}\nt1 mine\nhello there", sandbox.display());
    assert_eq!(out.until(None).await, (expected, "problem\n".into()));
    assert_eq!(input.end().await, (200, String::new()));
    assert_eq!(world.wait_status(&name).await, 3 << 8);
    assert_eq!(world.of_container("REMOVE_CONTAINER", json!({}), &name).await, 200);
    assert_eq!(world.of_container("WAIT_CONTAINER", json!({}), &name).await, 404);
    // The task knows nothing of it.
    assert_eq!(world.stdout(1), "");
    fs::write(world.sandbox(1).join("go"), "").unwrap();
    assert_eq!(world.update(&mut stream, 1).await.status.state, TaskState::Finished);
}

async fn a_terminal_is_one_and_has_a_size(mut world: World) {
    world.running().await;
    let name = id("s1", 1);
    let script = "trap 'exit 7' INT; test -t 0 && test -t 1 && stty -echo; stty size; read line; stty size; \
                  echo got $line; cat; echo to error >&2; while true; do sleep 0.01; done";
    let mut out = world.look(&with_tty(session(&name, script), 40, 100)).await;
    assert_eq!(out.until(Some("\n")).await.0, "40 100\r\n");
    let input = world.input(&name).await;
    input.resize(50, 200).await;
    let beat = json!({"type": "HEARTBEAT", "heartbeat": {"interval": {"nanoseconds": 1}}});
    input.say(json!({"type": "PROCESS_IO", "process_io": {"type": "CONTROL", "control": beat}})).await;
    input.give("a line\n").await;
    assert_eq!(out.until(Some("line\r\n")).await.0, "50 200\r\ngot a line\r\n");
    // Its end, as if it were typed, and with it `cat`; then what interrupts.
    input.give("").await;
    assert_eq!(out.until(Some("error\r\n")).await.0, "to error\r\n", "all of it is its terminal's");
    let typed = world.input(&name).await;
    typed.give("\u{3}").await;
    out.until(None).await;
    assert_eq!(world.wait_status(&name).await, 7 << 8);
    // With it both calls that give to it are over, though they would give more.
    for input in [input, typed] {
        assert_eq!(input.response.await.unwrap(), (200, String::new()));
    }
}

async fn a_session_ends_with_its_connection_and_all_it_started_with_it(mut world: World) {
    world.running().await;
    for (number, tty) in [(1, false), (2, true)] {
        let name = id(&format!("s{number}"), 1);
        let script = "sleep 1000 & echo $! > child; echo $$ > self; echo begun; sleep 1000";
        let call = session(&name, script);
        let mut out = world.look(&if tty { with_tty(call, 24, 80) } else { call }).await;
        out.until(Some("begun")).await;
        let sandbox = world.sandbox(1);
        let pids = [world.line(&sandbox.join("self")).await, world.line(&sandbox.join("child")).await];
        assert!(pids.iter().all(|pid| alive(pid)));
        drop(out);
        for pid in &pids {
            world.gone(pid).await;
        }
        assert_eq!(world.wait_status(&name).await, 9);
        for file in ["self", "child"] {
            fs::remove_file(sandbox.join(file)).unwrap();
        }
    }
}

async fn a_session_ends_with_its_task_and_with_its_agent(mut world: World) {
    let mut stream = world.running().await;
    let sandbox = world.sandbox(1);
    let begin = async |world: &World, name: &str, file: &Path| {
        let script = format!("echo $$ > {}; sleep 1000", file.display());
        let out = world.look(&session(&id(name, 1), &script)).await;
        (out, world.line(file).await)
    };
    let (out, first) = begin(&world, "s1", &sandbox.join("first")).await;
    world.kill_agent();
    world.gone(&first).await;
    drop(out);
    (stream, _) = {
        drop(stream);
        world.join().await
    };
    assert_eq!(world.of_container("WAIT_CONTAINER", json!({}), &id("s1", 1)).await, 404);
    let (mut out, second) = begin(&world, "s2", &sandbox.join("second")).await;
    fs::write(sandbox.join("go"), "").unwrap();
    out.until(None).await;
    assert_eq!(world.unconfirmed(&mut stream, 1).await.status.state, TaskState::Finished);
    assert!(!alive(&second));
    assert_eq!(world.wait_status(&id("s2", 1)).await, 9);
}

async fn who_does_not_read_holds_up_nobody_else(mut world: World) {
    let mut stream = world.running().await;
    let name = id("s1", 1);
    // Writes more than all that waits anywhere, and says how far it came.
    let script = "echo $$ > pid; i=0; while [ $i -lt 400 ]; do head -c 65536 /dev/zero; i=$((i + 1)); echo $i > at; done";
    let mut out = world.look(&session(&name, script)).await;
    world.until_full(&world.sandbox(1).join("pid"), 1).await;
    // Others go on, with the same supervisor too.
    let (others, _) = world.look(&session(&id("s2", 1), "echo well")).await.until(None).await;
    assert_eq!(others, "well\n");
    assert_eq!(world.get("/containers").await.as_array().unwrap().len(), 1);
    let at = world.line(&world.sandbox(1).join("at")).await;
    assert!(at.parse::<u32>().unwrap() < 400, "all of it waits somewhere");
    assert_eq!(out.until(None).await.0.len(), 400 * 65_536);
    fs::write(world.sandbox(1).join("go"), "").unwrap();
    assert_eq!(world.update(&mut stream, 1).await.status.state, TaskState::Finished);
}

async fn a_session_is_signalled_and_killed(mut world: World) {
    world.running().await;
    for (name, signal, status) in [("s1", Some(15), 15), ("s2", None, 9)] {
        let name = id(name, 1);
        let _out = world.look(&session(&name, "exec sleep 1000")).await;
        assert_eq!(world.of_container("REMOVE_CONTAINER", json!({}), &name).await, 500, "it runs");
        let more = signal.map_or(json!({}), |signal| json!({"signal": signal}));
        assert_eq!(world.of_container("KILL_CONTAINER", more, &name).await, 200);
        assert_eq!(world.wait_status(&name).await, status);
        assert_eq!(world.of_container("KILL_CONTAINER", json!({}), &name).await, 404);
    }
    // Also one that does not read what it is given.
    let name = id("s3", 1);
    let _out = world.look(&session(&name, "echo $$ > pid; exec sleep 1000")).await;
    let input = world.input(&name).await;
    let big = "x".repeat(1 << 20);
    let stuffed = async {
        loop {
            input.give(&big).await;
        }
    };
    let pid = world.sandbox(1).join("pid");
    tokio::select! {
        () = stuffed => unreachable!("it never ends"),
        () = world.until_full(&pid, 0) => {}
    }
    assert_eq!(world.of_container("KILL_CONTAINER", json!({}), &name).await, 200);
    assert_eq!(world.wait_status(&name).await, 9);
    assert_eq!(input.end().await.0, 200);
}

async fn others_listen_and_are_cut_off(mut world: World) {
    world.running().await;
    let name = id("s1", 1);
    let attach =
        json!({"type": "ATTACH_CONTAINER_OUTPUT", "attach_container_output": {"container_id": name}});
    let mut out =
        world.look(&session(&name, "read line; echo $line; read line; head -c 30000000 /dev/zero")).await;
    let mut listener = world.look(&attach).await;
    let mut sleeper = world.look(&attach).await;
    let input = world.input(&name).await;
    input.give("both\n").await;
    assert_eq!(out.until(Some("\n")).await.0, "both\n");
    assert_eq!(listener.until(Some("\n")).await.0, "both\n");
    // One that does not read is no reason for the others to wait.
    input.give("all\n").await;
    assert_eq!(out.until(None).await.0.len(), 30_000_000);
    assert!(sleeper.is_broken().await, "it is not told as an end");
    assert_eq!(world.wait_status(&name).await, 0);
    assert_eq!(world.stream(&attach).await.err().unwrap().0, 404, "it is over");
}

async fn a_session_is_in_the_group_and_of_the_user_of_its_task(mut world: World) {
    if !crate::limits::may_run() {
        return;
    }
    fs::set_permissions(world.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (mut stream, _) = world.join().await;
    let run = AgentEvent::Run(Box::new(muster_model::event::RunOrder {
        user: "nobody".into(),
        ..order(1, &shell(BEGINS))
    }));
    stream.say(&run).await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, TaskState::Running);
    let script = "id -u; echo $$; cat /proc/self/cgroup; test -t 0 && test -w $(tty) && echo own";
    let call = with_tty(session(&id("s1", 1), script), 24, 80);
    let text = world.look(&call).await.until(None).await.0;
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("65534"));
    assert!(text.contains("own\r\n"), "{text}");
    let below = name_of_group(&world, "memory", 1);
    assert!(lines.any(|line| line.contains(&below)), "{text} has no {below}");
}

async fn a_task_of_a_pod_is_looked_into(mut world: World) {
    let (stream, _) = world.join().await;
    let mut ear = Ear::new(stream);
    ear.run(in_pod(1, 0, 1, BEGINS)).await;
    ear.states(1, 0, TaskState::Running).await;
    let executor = nested_container(launch(1), muster_model::LaunchNumber { n: 0, ..launch(1) });
    let parent = json!({"value": executor.value, "parent": {"value": executor.parent.unwrap().value}});
    let name = json!({"value": "s1", "parent": parent});
    let (out, _) = world.look(&session(&name, "pwd")).await.until(None).await;
    assert!(out.trim_end().ends_with("tasks/t10"), "{out}");
    // The executor itself has no process that one could be beside.
    let (code, why) = world.stream(&session(&id("s2", 1), "pwd")).await.err().unwrap();
    assert_eq!(code, 400);
    assert!(why.contains("name the container of a task"), "{why}");
}

async fn what_cannot_be_is_refused(mut world: World) {
    world.running().await;
    let name = id("s1", 1);
    let with = |change: fn(&mut Value)| {
        let mut call = session(&name, "true");
        change(&mut call["launch_nested_container_session"]);
        call
    };
    for (call, part) in [
        (session(&json!({"value": "x", "parent": {"value": "none"}}), "true"), "Unable to find parent"),
        (with(|it| drop(it.as_object_mut().unwrap().remove("command"))), "no command"),
        (with(|it| it["command"]["user"] = "somebody".into()), "leave command.user out"),
        (with(|it| it["command"]["uris"] = json!([{"value": "/x"}])), "command.uris"),
        (
            with(|it| it["command"] = json!({"shell": false, "value": "/no/such/program"})),
            "Failed to run /no/such/program: No such file",
        ),
        (
            with(|it| {
                it["container"] = json!({"type": "MESOS", "hostname": "h", "volumes": [
                {"mode": "RW", "container_path": "p"}]})
            }),
            "only container.tty_info",
        ),
        (
            with(|it| it["container"] = json!({"type": "MESOS", "linux_info": {"share_cgroups": false}})),
            "share_cgroups must be true",
        ),
    ] {
        let (code, why) = world.stream(&call).await.err().expect("it is refused");
        assert_eq!(code, 400, "{call}: {why}");
        assert!(why.contains(part), "{call}: {why}");
        assert_eq!(world.of_container("WAIT_CONTAINER", json!({}), &name).await, 404, "{call}");
    }
    let attach = |id: Value| json!({"type": "ATTACH_CONTAINER_OUTPUT", "attach_container_output": {"container_id": id}});
    let task = json!({"value": container_id(launch(1))});
    assert_eq!(world.stream(&attach(task.clone())).await.err().unwrap().0, 500);
    assert_eq!(world.stream(&attach(name.clone())).await.err().unwrap().0, 404);
    assert_eq!(world.input(&name).await.end().await.0, 404);
    let _out = world.look(&session(&name, "exec cat")).await;
    let nested = json!({"value": "deeper", "parent": name});
    assert_eq!(world.stream(&session(&nested, "true")).await.err().unwrap().0, 400);
    let input = world.input(&name).await;
    input.say(json!({"type": "CONTAINER_ID", "container_id": name})).await;
    let (code, why) = input.end().await;
    assert_eq!((code, why.contains("process_io")), (400, true), "{why}");
}

async fn rules_say_who_may_look_into_what(mut world: World) {
    let no_user = json!([{"principals": {"values": ["eve"]}, "users": {"type": "NONE"}}]);
    let acls = json!({
        "launch_nested_container_sessions_under_parent_with_user": no_user,
        "attach_containers_input": no_user,
        "attach_containers_output": no_user,
        "kill_nested_containers": no_user,
    });
    world.guard(&["readwrite"], &acls);
    world.running().await;
    let name = id("s1", 1);
    let call = session(&name, "exec sleep 1000");
    let attach =
        json!({"type": "ATTACH_CONTAINER_OUTPUT", "attach_container_output": {"container_id": name}});
    let kill = json!({"type": "KILL_CONTAINER", "kill_container": {"container_id": name}}).to_string();
    let body = |call: &Value| Full::new(call.to_string().into()).boxed();
    let headers = |who| [("Content-Type", "application/json"), ("Authorization", who)];
    let code = async |world: &World, who, call: &Value| world.send(&headers(who), body(call)).await.status();
    assert_eq!(world.send(&headers("none")[..1], body(&call)).await.status(), 401);
    assert_eq!(code(&world, EVE, &call).await, 403);
    let out = world.send(&headers(OPS), body(&call)).await;
    assert_eq!(out.status(), 200);
    assert_eq!(out.headers()["content-type"], "application/json");
    assert_eq!(code(&world, EVE, &attach).await, 403);
    assert_eq!(code(&world, OPS, &attach).await, 200);
    let input = json!({"type": "ATTACH_CONTAINER_INPUT", "attach_container_input":
        {"type": "CONTAINER_ID", "container_id": name}});
    for (who, expected) in [(EVE, 403), (OPS, 200)] {
        let headers = [
            ("Content-Type", "application/recordio"),
            ("Message-Content-Type", "application/json"),
            ("Authorization", who),
        ];
        let first = Full::new(record(input.to_string().as_bytes())).boxed();
        assert_eq!(world.send(&headers, first).await.status(), expected);
    }
    assert_eq!(world.post(&shows(OPERATOR, EVE), &kill).await.0, 403);
    assert_eq!(world.post(&shows(OPERATOR, OPS), &kill).await.0, 200);
}
