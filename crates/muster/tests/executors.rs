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
    let plan = Plan { agents: 1, resources: "cpus:3;mem:512;disk:1024".into(), ..Plan::default() };
    let cluster = TestCluster::start(plan).await.unwrap();
    half(&cluster, "volumes.py", "volumes-1", "write").await;
    both_die(&cluster).await;
    half(&cluster, "volumes.py", "volumes-1", "read").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_and_how_they_are_outlive_leaders_and_agents() {
    let plan = Plan { agents: 1, resources: "cpus:3;mem:512;disk:1024".into(), ..Plan::default() };
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

#[test]
fn a_command_has_the_terminal_of_who_runs_it() {
    use rustix::{
        pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
        termios::{Winsize, tcsetwinsize},
    };
    let local = Local::start();
    let _task = Task::start(&local);
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = openpt(flags).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    tcsetwinsize(&terminal, Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let end = std::fs::File::from(ioctl_tiocgptpeer(&terminal, flags).unwrap());
    let script = "trap 'exit 5' INT; stty size; echo $TERM; while true; do sleep 0.01; done";
    let mut command = local.muster(&["exec", "-it", "task-1", "--", "sh", "-c", script]);
    let mut child = command
        .env("TERM", "vt100")
        .stdin(end.try_clone().unwrap())
        .stdout(end.try_clone().unwrap())
        .stderr(end)
        .spawn()
        .unwrap();
    drop(command);
    let mut terminal = std::fs::File::from(terminal);
    let mut seen = String::new();
    while !seen.contains("vt100\r\n") {
        let mut bytes = [0; 256];
        let n = terminal.read(&mut bytes).unwrap();
        seen.push_str(&String::from_utf8_lossy(&bytes[..n]));
    }
    assert!(seen.contains("33 77\r\n"), "{seen}");
    // Typed, it is the command's to take and not that of who runs it.
    terminal.write_all(&[3]).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
}
