//! The binary as its users know it: real processes, one cluster for each test.

#![allow(clippy::unwrap_used)]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const MUSTER: &str = env!("CARGO_BIN_EXE_muster");

/// A port that is free with the two after it, below those that connections are given as their own end.
fn base_port() -> u16 {
    loop {
        let chance = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), ());
        let base = 12_000 + (chance % 20_000) as u16;
        if (base..base + 3).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return base;
        }
    }
}

/// `muster local`, ready.
struct Local {
    child: Child,
    masters: String,
    ready: Value,
}

impl Local {
    fn start() -> Self {
        let base_port = base_port();
        let mut child = Command::new(MUSTER)
            .args([
                "local",
                "-o",
                "json",
                "--resources",
                "cpus:2;mem:512",
                "--base-port",
                &base_port.to_string(),
            ])
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
        let addresses = ready["masters"].as_array().unwrap().iter().map(|m| m["address"].as_str().unwrap());
        Self { masters: addresses.collect::<Vec<_>>().join(","), child, ready }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(MUSTER);
        command.args(args).env("MUSTER_MASTER", &self.masters);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until no process of the cluster listens any more.
    fn is_gone(&self) {
        let until = Instant::now() + Duration::from_secs(10);
        while self.masters.split(',').any(|master| TcpStream::connect(master).is_ok()) {
            assert!(Instant::now() < until, "a master still listens");
            std::thread::yield_now();
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // Its children die with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One sentence on standard error, no success.
#[track_caller]
fn refused(output: &Output, part: &str) {
    let said = text(&output.stderr);
    let errors: Vec<_> = said.lines().filter(|line| line.starts_with("muster: ")).collect();
    assert!(!output.status.success() && errors.len() == 1 && errors[0].contains(part), "{said}");
}

#[test]
fn a_local_cluster_runs_commands_and_leaves_nothing_behind() {
    let mut local = Local::start();
    assert_eq!(local.ready["agents"].as_array().unwrap().len(), 3);

    let twice = local.run(&["run", "-n", "2", "--", "echo hi; echo oh >&2; exit 3"]);
    assert_eq!(twice.status.code(), Some(3), "{}", text(&twice.stderr));
    assert_eq!(text(&twice.stdout).matches(": hi\n").count(), 2, "{}", text(&twice.stdout));
    assert_eq!(text(&twice.stderr).matches(": oh\n").count(), 2, "{}", text(&twice.stderr));
    let once = local.run(&["run", "--name", "one", "--", "sh", "-c", "echo $0 $1", "a b"]);
    assert_eq!((once.status.code(), text(&once.stdout).trim()), (Some(0), "a b"), "{}", text(&once.stderr));

    let tasks = local.json(&["ps", "--all", "-o", "json"]);
    assert_eq!(tasks.as_array().unwrap().len(), 3, "{tasks}");
    let completed = local.json(&["framework", "list", "--completed", "-o", "json"]);
    assert_eq!(completed.as_array().unwrap().len(), 2, "{completed}");
    let agents = local.json(&["agent", "list", "-o", "json"]);
    assert_eq!(agents[0]["total"]["cpus"], 2.0);
    let masters = local.json(&["raft", "status", "-o", "json"]);
    let leaders = masters.as_array().unwrap().iter().filter(|master| master["state"] == "leader");
    assert_eq!(leaders.count(), 1, "{masters}");

    let (_, port) = local.masters.split(',').next().unwrap().rsplit_once(':').unwrap();
    refused(&local.run(&["local", "--base-port", port]), "--base-port");
    refused(&local.run(&["agent", "gone", "nobody"]), "nobody");
    refused(&local.run(&["framework", "teardown", "nobody"]), "nobody");
    refused(&local.run(&["raft", "transfer", "m9"]), "m9");
    refused(&local.run(&["run", "--role", "a b", "--", "true"]), "white space");

    // A task that runs for ever ends with the cluster.
    let mut endless = local.command(&["run", "--", "sleep 1000"]);
    let mut endless = endless.stderr(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(endless.stderr.take().unwrap()).lines();
    assert!(said.map(Result::unwrap).any(|line| line.contains("running")));
    local.signal(Signal::TERM);
    assert!(local.child.wait().unwrap().success());
    local.is_gone();
    assert!(!endless.wait().unwrap().success());
    let dir = local.ready["dir"].as_str().unwrap();
    assert!(!std::path::Path::new(dir).exists());
}

#[test]
fn ctrl_c_kills_the_tasks_of_a_run_over_a_leader_change() {
    let local = Local::start();
    let mut run =
        local.command(&["run", "-n", "2", "--", "sleep 1000"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(run.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(said.by_ref().filter(|line| line.contains("running")).take(2).count(), 2);
    let moved = local.json(&["raft", "transfer", "-o", "json"]);
    assert!(moved["leader"].is_string(), "{moved}");
    assert!(said.any(|line| line.contains("connected to the new leader")));
    kill_process(Pid::from_child(&run), Signal::INT).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(143));
    assert_eq!(local.json(&["ps", "-o", "json"]).as_array().unwrap().len(), 0);
}

#[test]
fn the_children_of_a_killed_local_die_with_it() {
    let mut local = Local::start();
    local.signal(Signal::KILL);
    local.child.wait().unwrap();
    local.is_gone();
    // Nobody is left to remove it.
    std::fs::remove_dir_all(local.ready["dir"].as_str().unwrap()).unwrap();
}

#[test]
fn the_demo_loses_nothing_and_doubles_nothing() {
    let demo = Command::new(MUSTER).args(["demo", "--tasks", "40", "-o", "json"]).output().unwrap();
    assert!(demo.status.success(), "{}{}", text(&demo.stdout), text(&demo.stderr));
    let report: Value = serde_json::from_slice(&demo.stdout).unwrap();
    assert_eq!(report["digests_equal"], 40, "{report}");
    for time in ["new_leader_ms", "subscribed_again_ms", "first_offer_ms"] {
        assert!(report["failover"][time].is_u64(), "{report}");
    }
    assert_eq!(report["failover"]["rejoined"], true, "{report}");
}

#[test]
fn bad_input_is_one_sentence() {
    let run = |args: &[&str]| Command::new(MUSTER).args(args).env_remove("MUSTER_MASTER").output().unwrap();
    refused(&run(&["local", "--masters", "2"]), "1, 3 or 5");
    refused(&run(&["local", "--base-port", "65500"]), "--base-port");
    refused(&run(&["demo", "--input", "/no/such/dir"]), "/no/such/dir");
    refused(&run(&["run", "--cpus", "0", "--", "true"]), "--cpus");
    refused(&run(&["raft", "status", "--master", "127.0.0.1:1"]), "check the addresses");
    refused(&run(&["master", "--name", "m9", "--members", "m1=127.0.0.1:1"]), "m9");
    refused(&run(&["agent", "--config", "/no/such/file"]), "/no/such/file");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let members = format!("m1={address}");
    let data_dir = dir.path().join("m1");
    let args = ["master", "--name", "m1", "--members", &members, "--data-dir", data_dir.to_str().unwrap()];
    refused(&run(&args), &address);
}
