//! A custom executor of the Mesos v1 API, from its scheduler through a master and an agent, each a process of its own; and
//! looking into a task that runs.

#![allow(clippy::unwrap_used)]

use muster_testkit::{Plan, TestCluster};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

/// A port that is free with the one that the agent gets, below those that connections are given as their own end.
fn base_port() -> u16 {
    loop {
        let chance = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), ());
        let base = 12_000 + (chance % 20_000) as u16;
        if [base, base + 100].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
            return base;
        }
    }
}

/// `muster local`; its cluster ends with it.
struct Local {
    child: Child,
    master: String,
}

impl Local {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_muster"))
            .args(["local", "-o", "json", "--masters", "1", "--agents", "1"])
            .args(["--resources", "cpus:3;mem:512", "--base-port", &base_port().to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut why = String::new();
            child.stderr.as_mut().unwrap().read_to_string(&mut why).unwrap();
            panic!("not ready: {why}");
        }
        let ready: Value = serde_json::from_str(&line).unwrap();
        let master = ready["masters"][0]["address"].as_str().unwrap().to_owned();
        Self { child, master }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

#[test]
fn a_scheduler_runs_tasks_in_its_own_executor() {
    let local = Local::start();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    let executor = crates.join("../muster-agent/tests/agent/executor.py");
    let done = Command::new("python3")
        .arg(crates.join("tests/executors/scheduler.py"))
        .arg(&local.master)
        .arg(format!("exec python3 {}", executor.display()))
        .output()
        .unwrap();
    let (told, why) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{told}\n{why}");
    let events = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let updates = events.map(|it| it["update"]["status"].clone());
    let statuses = updates.filter(|it| it["uuid"].is_string());
    let running: Vec<Value> = statuses.filter(|it| it["state"] == "TASK_RUNNING").collect();
    assert_eq!(running.len(), 4, "two tasks, and a group of two: {told}");
    for status in &running[..2] {
        // All that the executor said, the container that the agent added, and nothing that neither did.
        assert_eq!((&status["healthy"], &status["source"]), (&Value::Bool(true), &"SOURCE_EXECUTOR".into()));
        assert_eq!(status["labels"]["labels"][0]["key"], "a");
        assert!(status["data"].is_string() && status["executor_id"].is_null(), "{status}");
        assert_eq!(status["container_status"], running[0]["container_status"]);
        assert!(status["container_status"]["container_id"]["value"].is_string(), "{status}");
        let network = &status["container_status"]["network_infos"][0];
        assert!(network["ip_addresses"][0]["ip_address"].is_string(), "{status}");
    }
}

#[test]
fn a_volume_outlives_the_task_that_made_use_of_it() {
    let local = Local::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/executors/volumes.py");
    let done = Command::new("python3").arg(script).arg(&local.master).output().unwrap();
    let (told, why) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{told}\n{why}");
}

/// Runs one half of a script at the master that leads; the framework goes by a name of its own.
async fn half(cluster: &TestCluster, script: &str, id: &str, part: &str) {
    let leader = cluster.leader().await.unwrap();
    let at = cluster.master_names().iter().position(|name| *name == leader).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/executors").join(script);
    let mut command = Command::new("python3");
    command.arg(script).args([&cluster.masters()[at], id, part]);
    let done = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let (told, why) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{part}: {told}\n{why}");
}

/// The leader and the agent are killed; another master leads, and the agent comes back.
async fn both_die(cluster: &TestCluster) {
    let (leader, term) = cluster.serving().await.unwrap();
    cluster.kill(&leader).unwrap();
    cluster.kill("a1").unwrap();
    cluster.serving_after(term).await.unwrap();
    cluster.restart("a1").unwrap();
    cluster.ready().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_outlives_leaders_and_agents() {
    let plan = Plan { agents: 1, resources: "cpus:3;mem:512;disk:1024".into(), ..Plan::steady() };
    let cluster = TestCluster::start(plan).await.unwrap();
    half(&cluster, "volumes.py", "volumes-1", "write").await;
    both_die(&cluster).await;
    half(&cluster, "volumes.py", "volumes-1", "read").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_and_how_they_are_outlive_leaders_and_agents() {
    let plan = Plan { agents: 1, resources: "cpus:3;mem:512;disk:1024".into(), ..Plan::steady() };
    let cluster = TestCluster::start(plan).await.unwrap();
    half(&cluster, "pods.py", "pods-1", "launch").await;
    both_die(&cluster).await;
    half(&cluster, "pods.py", "pods-1", "end").await;
}

impl Local {
    fn muster(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command.args(args).env("MUSTER_MASTER", &self.master).env_remove("MUSTER_LOG");
        command
    }
}

/// A task that runs until its launcher is told to end.
struct Task(Child);

impl Task {
    fn start(local: &Local) -> Self {
        let run = ["run", "--", "sleep", "1000"];
        let task = Self(local.muster(&run).stdout(Stdio::null()).spawn().unwrap());
        let is_running = || {
            let listed = local.muster(&["ps", "-o", "json"]).output().unwrap();
            String::from_utf8_lossy(&listed.stdout).contains("TASK_RUNNING")
        };
        while !is_running() {
            std::thread::yield_now();
        }
        task
    }
}

impl Task {
    /// The task `writer` of `output.py`.
    fn writer(local: &Local, command: &str, kind: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/executors/output.py");
        let mut python = Command::new("python3");
        python.arg(script).args([&local.master, command, kind]).stdout(Stdio::piped());
        let mut child = python.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains("TASK_RUNNING")), "it does not run");
        std::thread::spawn(move || lines.for_each(drop));
        Self(child)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.0),
            rustix::process::Signal::TERM,
        );
        let _ = self.0.wait();
    }
}

#[test]
fn a_command_is_run_beside_a_task_and_its_exit_code_is_ours() {
    let local = Local::start();
    let _task = Task::start(&local);
    let script = "echo $MESOS_TASK_ID; cat; echo problem >&2; exit 7";
    let exec = |flags: &[&str], script: &str| {
        local.muster(&[&["exec"], flags, &["task-1", "--", "sh", "-c", script]].concat())
    };
    let mut child = exec(&["-i"], script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"from here\n").unwrap();
    let done = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert_eq!((done.status.code(), &*out, &*err), (Some(7), "task-1\nfrom here\n", "problem\n"));
    // Without --interactive there is nothing to read.
    let done = exec(&[], "cat; kill -9 $$").stdin(Stdio::null()).output().unwrap();
    assert_eq!(done.status.code(), Some(128 + 9), "{}", String::from_utf8_lossy(&done.stderr));
    for (command, part) in [
        (exec(&["-t"], "true"), "no terminal"),
        (local.muster(&["exec", "nobody", "--", "true"]), "no task \"nobody\""),
        (local.muster(&["exec", "task-1", "--", "/no/such"]), "Failed to run /no/such"),
        (local.muster(&["attach", "task-1", "none"]), "no session \"none\""),
    ] {
        let mut command = command;
        let done = command.stdin(Stdio::null()).output().unwrap();
        let why = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && why.contains(part), "{why}");
    }

    // A session that two see: the one who joins ends its input for itself alone.
    let script = "echo ready; read line; echo got $line; read line; echo got $line";
    let piped = |command: &mut Command| command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut one = piped(&mut exec(&["-i", "--session", "shared"], script));
    let mut heard = BufReader::new(one.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(heard.next().as_deref(), Some("ready"));
    let mut other = piped(&mut local.muster(&["attach", "-i", "task-1", "shared"]));
    other.stdin.take().unwrap().write_all(b"a line\n").unwrap();
    assert_eq!(heard.next().as_deref(), Some("got a line"));
    one.stdin.take().unwrap().write_all(b"another\n").unwrap();
    assert_eq!(heard.next().as_deref(), Some("got another"));
    assert_eq!(one.wait().unwrap().code(), Some(0));
    let other = other.wait_with_output().unwrap();
    let seen = String::from_utf8_lossy(&other.stdout);
    assert!(other.status.success() && seen.ends_with("got another\n"), "{seen}");
}

/// A command at a terminal of 33 lines of 77 characters, and that.
fn at_terminal(mut command: Command) -> (Child, std::fs::File) {
    use rustix::{
        pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
        termios::{Winsize, tcsetwinsize},
    };
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = openpt(flags).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    tcsetwinsize(&terminal, Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let end = std::fs::File::from(ioctl_tiocgptpeer(&terminal, flags).unwrap());
    let streams = command.stdin(end.try_clone().unwrap()).stdout(end.try_clone().unwrap()).stderr(end);
    (streams.env("TERM", "vt100").spawn().unwrap(), terminal.into())
}

/// What a terminal shows until it has shown this.
fn shown(terminal: &mut std::fs::File, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let mut bytes = [0; 256];
        let n = terminal.read(&mut bytes).unwrap();
        seen.push_str(&String::from_utf8_lossy(&bytes[..n]));
    }
    seen
}

#[test]
fn who_joins_and_does_not_read_is_told_that_it_was_cut_off() {
    let local = Local::start();
    let _task = Task::start(&local);
    let script = "echo ready; read line; head -c 30000000 /dev/zero; read line";
    let mut exec = local.muster(&["exec", "-i", "--session", "shared", "task-1", "--", "sh", "-c", script]);
    let mut one = exec.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    one.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let mut attach = local.muster(&["attach", "-i", "task-1", "shared"]);
    let streams = attach.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut joined = streams.spawn().unwrap();
    // It listens before it hands anything on.
    joined.stdin.as_mut().unwrap().write_all(b"begin\n").unwrap();
    let mut left = 30_000_000;
    let mut bytes = vec![0; 1 << 20];
    while left > 0 {
        left -= one.stdout.as_mut().unwrap().read(&mut bytes).unwrap().min(left);
    }
    // One that took nothing for so long, and now looks.
    let mut why = String::new();
    std::io::copy(joined.stdout.as_mut().unwrap(), &mut std::io::sink()).unwrap();
    joined.stderr.as_mut().unwrap().read_to_string(&mut why).unwrap();
    assert!(
        !joined.wait().unwrap().success() && why.contains("cut off") && why.contains("it goes on"),
        "{why}"
    );
    one.stdin.take().unwrap().write_all(b"end\n").unwrap();
    assert_eq!(one.wait().unwrap().code(), Some(0));
}

#[test]
fn a_command_has_the_terminal_of_who_runs_it() {
    let local = Local::start();
    let _task = Task::start(&local);
    let script = "trap 'exit 5' INT; stty size; echo $TERM; while true; do sleep 0.01; done";
    let (mut child, mut terminal) =
        at_terminal(local.muster(&["exec", "-it", "task-1", "--", "sh", "-c", script]));
    let seen = shown(&mut terminal, "vt100\r\n");
    assert!(seen.contains("33 77\r\n"), "{seen}");
    // Typed, it is the command's to take and not that of who runs it.
    terminal.write_all(&[3]).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

/// What a task answers that says what it reads and how large its terminal is. Typed before that is this one's, a line is
/// lost: so it is typed again.
fn answered(terminal: &mut std::fs::File) -> String {
    loop {
        terminal.write_all(b"a line\r").unwrap();
        let seen = shown(terminal, "a line\r\n");
        if seen.contains("33 77\r\n") {
            return seen;
        }
    }
}

#[test]
fn the_terminal_of_a_task_is_joined_left_and_joined_again() {
    let local = Local::start();
    let script =
        "trap 'exit 5' INT; while true; do if read line; then echo got $line at $(stty size); fi; done";
    let mut task = Task::writer(&local, script, "terminal");
    let (mut child, mut terminal) = at_terminal(local.muster(&["attach", "-it", "writer"]));
    let seen = answered(&mut terminal);
    assert!(seen.contains("got a line at 33 77\r\n"), "{seen}");
    terminal.write_all(&[0x10, 0x11]).unwrap();
    assert!(child.wait().unwrap().success(), "it was left");
    assert!(task.0.try_wait().unwrap().is_none(), "the task goes on");
    // Who looks on alone sees how it ends, and so does who ends it.
    let mut alone =
        local.muster(&["attach", "writer"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let heard = BufReader::new(alone.stdout.take().unwrap()).lines().map(Result::unwrap);
    let (sender, heard_alone) = std::sync::mpsc::channel();
    let hearing = std::thread::spawn(move || heard.for_each(|line| sender.send(line).unwrap_or_default()));
    let (mut child, mut terminal) = at_terminal(local.muster(&["attach", "-it", "writer"]));
    let mut lines = Vec::new();
    while lines.is_empty() {
        answered(&mut terminal);
        lines.extend(heard_alone.try_iter());
    }
    // The line ends a read that a shell begins in the very moment of the signal, which does not interrupt it then.
    terminal.write_all(b"\x03\r").unwrap();
    task.0.wait().unwrap();
    // Its code, unless the agent was told first that it need not keep that.
    let code = child.wait().unwrap().code();
    assert!([Some(5), Some(1)].contains(&code), "{code:?}");
    hearing.join().unwrap();
    assert!([Some(5), Some(1)].contains(&alone.wait().unwrap().code()));
    lines.extend(heard_alone.try_iter());
    assert!(lines.iter().any(|line| line.contains("^C")), "{lines:?}");
    let logs = local.muster(&["logs", "--stdout", "writer"]).output().unwrap();
    let logs = String::from_utf8_lossy(&logs.stdout).into_owned();
    assert!(logs.contains("got a line at 33 77\r\n"), "{logs}");
    let why = local.muster(&["attach", "writer"]).output().unwrap();
    assert!(String::from_utf8_lossy(&why.stderr).contains("is over"));
}

#[test]
fn what_is_rotated_is_followed_from_its_beginning_to_its_end() {
    let local = Local::start();
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    // As it is written, and faster.
    let script = format!(
        "n=0; while [ $n -lt 1500 ]; do n=$((n + 1)); echo $n; done; until [ -e {} ]; do sleep 0.01; done; \
         seq 1501 30000",
        go.display()
    );
    let mut task = Task::writer(&local, &script, "rotated");
    let mut logs =
        local.muster(&["logs", "-f", "--stdout", "writer"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(logs.stdout.take().unwrap()).lines().map(Result::unwrap);
    for n in 1..=1_500 {
        assert_eq!(lines.next(), Some(n.to_string()));
    }
    std::fs::write(&go, "").unwrap();
    for n in 1_501..=30_000 {
        assert_eq!(lines.next(), Some(n.to_string()));
    }
    assert_eq!(lines.next(), None);
    assert!(logs.wait().unwrap().success());
    task.0.wait().unwrap();
    let text = |args: &[&str]| {
        let done = local.muster(&[&["logs", "--stdout", "writer"], args].concat()).output().unwrap();
        String::from_utf8(done.stdout).unwrap()
    };
    let numbers = |from: u32| (from..=30_000).map(|n| format!("{n}\n")).collect::<String>();
    assert_eq!(text(&["-n", "2"]), numbers(29_999));
    assert_eq!(text(&["-n", "2000"]), numbers(28_001));
    assert_eq!(text(&[]), numbers(1));
}
