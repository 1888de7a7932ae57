//! A custom executor of the Mesos v1 API, from its scheduler through a master and an agent, each a process of its own.

#![allow(clippy::unwrap_used)]

use muster_testkit::{Plan, TestCluster};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read},
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
