//! `muster bench` with tiny numbers: real masters, and every figure that is promised. How fast anything is says nothing here.

#![allow(clippy::unwrap_used)]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::Read,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

const MUSTER: &str = env!("CARGO_BIN_EXE_muster");

fn bench(args: &[&str]) -> Command {
    let mut command = Command::new(MUSTER);
    command.arg("bench").args(args).stdin(Stdio::null());
    command
}

/// Figures by name, of a run that found nothing lost.
fn figures(args: &[&str]) -> BTreeMap<String, f64> {
    // What leads stays in office, however busy the machine is with the load: what a change of leader does to launches is no
    // loss, and is not told from one.
    let steady = ["--set", "raft.election-ms-min=1500", "--set", "raft.election-ms-max=2000"];
    let steady = if matches!(args[0], "floors" | "spawn") { &[][..] } else { &steady };
    let output = bench(args).args(steady).args(["-o", "json"]).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", said(&output));
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let all = all.iter().map(|it| {
        assert!(!it["unit"].as_str().unwrap().is_empty());
        (it["name"].as_str().unwrap().to_owned(), it["value"].as_f64().unwrap())
    });
    all.collect()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// All of these are above nothing.
#[track_caller]
fn have(figures: &BTreeMap<String, f64>, names: &[&str]) {
    for name in names {
        assert!(figures.get(*name).is_some_and(|value| *value > 0.0), "{name}: {figures:?}");
    }
}

#[test]
fn floors_are_measured_alone() {
    let found = figures(&["floors", "--each-ms", "50"]);
    have(&found, &["floor_fdatasync", "floor_quorum_c1", "floor_quorum_c1024", "floor_quorum_c64_x100"]);
    have(&found, &["floor_stream_echo", "floor_posix_spawn_x4", "floor_fork_exec_x1"]);
    let one = figures(&["floors", "--each-ms", "50", "--only", "fdatasync"]);
    have(&one, &["floor_fdatasync"]);
    assert!(one.keys().all(|name| name.starts_with("floor_fdatasync")), "{one:?}");
}

#[test]
fn launches_have_their_floor_beside_them() {
    for api in ["grpc", "http-json", "http-proto"] {
        let found = figures(&["launch", "--agents", "4", "--frameworks", "2", "--secs", "1", "--api", api]);
        have(&found, &["launches", "floor_fdatasync", "floor_quorum", "of_floor_quorum", "latency_p99"]);
        assert_eq!((found["tasks_lost"], found["tasks_doubled"]), (0.0, 0.0));
    }
}

#[test]
fn lives_of_tasks_are_counted_to_their_end() {
    for api in ["grpc", "http-json", "http-proto"] {
        let args = ["lifecycle", "--agents", "4", "--frameworks", "2", "--secs", "1", "--no-floors"];
        let found = figures(&[&args[..], &["--tasks-per-accept", "5", "--api", api]].concat());
        have(&found, &["lifecycles", "running_seen_p50", "finished_seen_p99"]);
        assert_eq!((found["tasks_lost"], found["tasks_doubled"], found["ended_otherwise"]), (0.0, 0.0, 0.0));
        assert!(!found.contains_key("floor_quorum"), "floors that nobody asked for: {found:?}");
    }
}

#[test]
fn offers_come_again_and_again_to_whoever_declines_them() {
    for api in ["grpc", "http-json"] {
        let found = figures(&["offers", "--agents", "8", "--frameworks", "2", "--secs", "1", "--api", api]);
        have(&found, &["offers", "floor_stream_echo", "of_floor_stream_echo"]);
    }
}

#[test]
fn latency_is_that_of_all_tasks_that_are_due() {
    let args = ["latency", "--agents", "4", "--frameworks", "2", "--secs", "2", "--no-floors"];
    let found = figures(&[&args[..], &["--rate", "10"]].concat());
    have(&found, &["seen_running", "running_seen_p50", "running_seen_p999"]);
    let found =
        figures(&["latency", "--executor", "command", "--masters", "1", "--secs", "1", "--no-floors"]);
    have(&found, &["running_seen_p50", "running_seen_p99", "order_to_exec_p50"]);
}

#[test]
fn masters_that_hold_tasks_already_are_measured() {
    let args = ["launch", "--agents", "4", "--frameworks", "2", "--secs", "1", "--no-floors"];
    have(&figures(&[&args[..], &["--preload", "300"]].concat()), &["launches"]);
}

#[test]
fn memory_is_that_of_agents_and_of_tasks() {
    let args = ["memory", "--agents", "30", "--frameworks", "2", "--tasks", "500", "--completed", "1100"];
    let found = figures(&args);
    have(&found, &["master_rss_full"]);
    // Of so few the kernel may have taken back more meanwhile.
    for name in ["agent_connected", "agent_known", "running_task_max", "completed_task_max"] {
        assert!(found.contains_key(name), "{name}: {found:?}");
    }
    assert!(found["tasks"] >= 500.0, "{found:?}");
}

#[test]
fn idle_agents_stay_connected() {
    have(&figures(&["idle", "--agents", "10", "--secs", "2"]), &["leader_cpu", "master_rss_max"]);
}

#[test]
fn masters_that_are_all_killed_know_all_tasks_again() {
    let args = ["recover", "--agents", "4", "--frameworks", "2", "--tasks", "2500", "--trials", "2"];
    let found = figures(&[&args[..], &["--snapshot-every", "20"]].concat());
    have(&found, &["snapshot_size", "floor_read_median", "leader_median", "serving_max"]);
    assert!(found["tasks"] >= 2500.0 && found["tasks_lost"] == 0.0, "{found:?}");
}

#[test]
fn snapshots_are_taken_in_the_second_half_alone() {
    let args =
        ["snapshot", "--agents", "4", "--frameworks", "2", "--tasks", "300", "--rate", "30", "--secs", "3"];
    let found = figures(&[&args[..], &["--snapshot-every", "20"]].concat());
    have(&found, &["snapshots_during", "of_quiet_p99", "running_seen_quiet_p99", "running_seen_during_p99"]);
    assert_eq!(found["snapshots_quiet"], 0.0);
}

#[test]
fn pages_of_tasks_are_whole() {
    let args =
        ["list", "--agents", "4", "--frameworks", "2", "--tasks", "1200", "--page", "300", "--secs", "2"];
    let found = figures(&args);
    have(&found, &["page", "list_grpc_p99", "list_http_p99"]);
    assert_eq!(found["page"], 300.0);
}

#[test]
fn what_cannot_be_measured_is_said() {
    for (args, part) in [
        (&["launch", "--masters", "2"][..], "--masters is 2; measure 1, 3 or 5 masters"),
        (&["launch", "--agents", "0"], "'--agents <AGENTS>': write a whole number from 1"),
        (&["launch", "--tasks-per-accept", "0"], "write a whole number from 1"),
        (&["offers", "--agents", "200000"], "--agents is 200000: that is 66667 connections at a master"),
        (&["memory", "--completed", "100001"], "keeps at most 100000 completed tasks"),
        (
            &["latency", "--executor", "command", "--rate", "1000"],
            "--rate is 1000; of real commands at most 50",
        ),
        (&["spawn", "--masters", "4"], "--masters is 4; measure 1, 3 or 5 masters"),
    ] {
        let output = bench(args).output().unwrap();
        assert!(!output.status.success() && said(&output).contains(part), "{args:?}: {}", said(&output));
    }
}

#[test]
fn agents_in_processes_of_their_own_are_in_the_same_ledger() {
    let args = ["lifecycle", "--agents", "7", "--frameworks", "2", "--secs", "1", "--no-floors"];
    let found = figures(&[&args[..], &["--agent-processes", "3", "--agents-per-connection", "2"]].concat());
    have(&found, &["lifecycles", "finished_seen_p99"]);
}

/// A run whose temporary files are all in one directory.
struct Running {
    child: Child,
    dir: tempfile::TempDir,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = bench(args)
            .env("TMPDIR", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, dir }
    }

    /// Processes below it, with their arguments.
    fn processes(&self) -> Vec<(i32, Vec<String>)> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let read = |file| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            let parent = format!("PPid:\t{}\n", self.child.id());
            if read("status").contains(&parent) {
                found.push((pid, read("cmdline").split('\0').map(str::to_owned).collect()));
            }
        }
        found
    }

    /// Waits until it has this many such processes.
    fn wait_for(&mut self, count: usize, argument: &str) -> Vec<i32> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            assert!(self.child.try_wait().unwrap().is_none(), "it ended");
            assert!(Instant::now() < until, "it never has {count} processes with {argument}");
            let of = self.processes().into_iter().filter(|(_, args)| args.iter().any(|it| it == argument));
            let pids: Vec<_> = of.map(|(pid, _)| pid).collect();
            if pids.len() == count {
                return pids;
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its children die with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_is_interrupted_leaves_nothing_behind() {
    for (args, what) in [
        (
            &["launch", "--agents", "4", "--agent-processes", "2", "--secs", "60", "--no-floors"][..],
            "agents-process",
        ),
        (&["spawn", "--tasks", "100000", "--timed", "0"], "agent"),
    ] {
        let mut running = Running::start(args);
        let some = if what == "agent" { 1 } else { 2 };
        running.wait_for(3, "master");
        running.wait_for(some, what);
        let pids: Vec<_> = running.processes().into_iter().map(|(pid, _)| pid).collect();
        kill_process(Pid::from_child(&running.child), Signal::INT).unwrap();
        let status = running.child.wait().unwrap();
        let mut text = String::new();
        running.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(!status.success() && text.contains("muster: interrupted"), "{status}: {text}");
        let left: Vec<_> = std::fs::read_dir(running.dir.path()).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        let until = Instant::now() + Duration::from_secs(10);
        while pids.iter().any(|pid| Path::new("/proc").join(pid.to_string()).exists()) {
            assert!(Instant::now() < until, "some of {pids:?} still run");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_process_of_agents_that_dies_fails_the_run() {
    let args = [
        "launch",
        "--agents",
        "4",
        "--agent-processes",
        "2",
        "--frameworks",
        "2",
        "--secs",
        "2",
        "--no-floors",
    ];
    let mut running = Running::start(&args);
    let agents = running.wait_for(2, "agents-process");
    kill_process(Pid::from_raw(agents[0]).unwrap(), Signal::KILL).unwrap();
    let status = running.child.wait().unwrap();
    let mut text = String::new();
    running.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(!status.success() && text.contains("the process of agents"), "{status}: {text}");
}

#[test]
fn a_big_state_is_read_while_tasks_are_launched() {
    let args = ["state", "--agents", "4", "--frameworks", "2", "--running", "500", "--completed", "300"];
    let found =
        figures(&[&args[..], &["--rate", "10", "--secs", "1", "--rounds", "1", "--clients", "2"]].concat());
    have(&found, &["answers", "answer_size", "whole_median", "launches_alone", "latency_p99_while_read"]);
}

#[test]
fn real_tasks_are_measured_beside_processes() {
    let args = [
        "spawn",
        "--masters",
        "1",
        "--tasks",
        "10",
        "--rounds",
        "1",
        "--timed",
        "2",
        "--floor-processes",
        "8",
    ];
    have(&figures(&args), &["tasks", "of_best_floor", "floor_posix_spawn_x4", "order_to_exec_p50"]);
}
