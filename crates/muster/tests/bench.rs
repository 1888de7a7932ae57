//! `muster bench` with tiny numbers: real masters, and every figure that is promised. How fast anything is says nothing here.

#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::{
    collections::BTreeMap,
    process::{Command, Output, Stdio},
};

const MUSTER: &str = env!("CARGO_BIN_EXE_muster");

fn bench(args: &[&str]) -> Command {
    let mut command = Command::new(MUSTER);
    command.arg("bench").args(args).stdin(Stdio::null());
    command
}

/// Figures by name, of a run that found nothing lost.
fn figures(args: &[&str]) -> BTreeMap<String, f64> {
    let output = bench(args).args(["-o", "json"]).output().unwrap();
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
