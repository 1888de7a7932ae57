//! Faults that take more of a machine than every one has, most of them root. What is missing is said, and the test
//! passes there, but fails under `CI=true`.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

/// The program's word that the machine lacks something.
const SKIPPED: i32 = 3;

/// Runs so many rounds of a scenario, in a program of its own, which may move into namespaces of its own.
fn keeps(scenario: &str, seed: u64, rounds: u32) {
    let out = env!("CARGO_TARGET_TMPDIR");
    let words = ["run", "--scenario", scenario, "--out", out];
    let output = Command::new(env!("CARGO_BIN_EXE_jepsen-style-tests"))
        .args(words)
        .args(["--seed", &seed.to_string(), "--rounds", &rounds.to_string()])
        .output()
        .unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    eprintln!("{said}");
    match output.status.code() {
        Some(SKIPPED) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "skipped under CI");
            return;
        }
        code => assert_eq!(code, Some(0), "its history is in {out}"),
    }
    if std::env::var_os("MUSTER_KEEP").is_none() {
        std::fs::remove_dir_all(Path::new(out).join(format!("{scenario}-{seed}"))).unwrap();
    }
}

#[test]
fn packets_are_lost_cables_pulled_and_lines_too_thin() {
    keeps("host-faults", 1, 3);
}

#[test]
fn packets_are_late_and_out_of_order() {
    keeps("host-weather", 1, 2);
}

#[test]
fn wall_clocks_jump_about() {
    keeps("clocks", 1, 1);
}

#[test]
fn the_leader_gets_hardly_any_processor_time() {
    keeps("starved-leader", 1, 1);
}

#[test]
fn the_kernel_kills_masters_for_their_memory() {
    keeps("little-memory", 1, 3);
}

#[test]
fn two_faults_are_on_at_once() {
    keeps("composed", 1, 2);
}
