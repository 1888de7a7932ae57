//! The command line, without a cluster: what it knows, how it judges what was recorded, how it refuses.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// A small run in which everything was kept.
const HISTORY: &str = r#"{"at_us":1,"process":"f1","event":"registered","framework_id":"x-0001"}
{"at_us":2,"process":"sampler","event":"leads","leader":"m1","term":1}
{"at_us":3,"process":"f1","event":"launch","phase":"invoked","task":"f1-1","agent":"a1","needs":{"cpus":100}}
{"at_us":4,"process":"nemesis","event":"nemesis","fault":"kill","target":"m1","begins":true}
{"at_us":5,"process":"f1","event":"launch","phase":"ok","task":"f1-1"}
{"at_us":6,"process":"f1","event":"update","task":"f1-1","state":"TASK_FINISHED","terminal":true,"durable":true,"reason":""}
{"at_us":7,"process":"nemesis","event":"nemesis","fault":"kill","target":"m1","begins":false,"bit":"it ended"}
"#;
/// What makes it bad.
const BAD: &str = r#"{"at_us":8,"process":"sampler","event":"leads","leader":"m2","term":1}
{"at_us":9,"process":"f1","event":"disconnected"}
"#;
const TRUTH: &str = r#"{"marks":{"a1":[{"task":"f1-1","starts":true},{"task":"f1-1","starts":false}]},
 "totals":{"a1":{"cpus":1000}},"tasks":[{"task":"f1-1","framework_id":"x-0001","ended":true}],
 "frameworks":{"x-0001":"f1"},"replicas":[["m1",9,7],["m2",9,7]],"error_lines":[],"left":[]}"#;

/// A recording in a directory of its own.
fn recorded(name: &str, history: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("history.jsonl"), history).unwrap();
    std::fs::write(dir.join("truth.json"), TRUTH).unwrap();
    dir
}

/// The exit code, and all that it said.
fn told(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jepsen-style-tests"));
    let output = command.args(arguments).env_remove("MUSTER_SEED").output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[test]
fn scenarios_are_listed_one_a_line() {
    let (code, said) = told(&["list"]);
    assert_eq!(code, 0);
    assert_eq!(said.lines().count(), jepsen_style_tests::scenarios::ALL.len());
    assert!(said.contains("leader-kills ") && said.contains("mixed "), "{said}");
}

#[test]
fn every_scenario_can_run_where_everything_is_to_be_tested() {
    if std::env::var("CI").as_deref() != Ok("true") {
        return;
    }
    for scenario in jepsen_style_tests::scenarios::ALL {
        assert_eq!(scenario.missing(), None, "{}", scenario.name);
    }
}

#[test]
fn what_is_wrong_with_the_words_is_said() {
    let (code, said) = told(&["run", "--scenario", "leader-kill"]);
    assert_eq!(code, 2);
    assert!(said.contains("no scenario \"leader-kill\"") && said.contains("leader-kills, "), "{said}");
    let (code, said) = told(&["run", "--scenario", "mixed", "--time", "forever"]);
    assert!(code == 2 && said.contains("write it as 90s"), "{said}");
    let (code, said) = told(&["run", "--scenario", "mixed", "--nodes", "4"]);
    assert!(code == 2 && said.contains("3, 5"), "{said}");
    let (code, said) = told(&["check", "/nowhere/at-all"]);
    assert!(code == 2 && said.contains("/nowhere/at-all"), "{said}");
}

#[test]
fn a_recording_is_judged_again() {
    let dir = recorded("good", HISTORY);
    for path in [dir.clone(), dir.join("history.jsonl")] {
        let (code, said) = told(&["check", path.to_str().unwrap()]);
        assert!(code == 0 && !said.contains("BROKEN"), "{said}");
    }
    let (code, said) = told(&["shrink", dir.to_str().unwrap()]);
    assert!(code == 0 && said.contains("no bad prefix"), "{said}");
    std::fs::write(dir.join("history.jsonl"), "{\n").unwrap();
    let (code, said) = told(&["check", dir.to_str().unwrap()]);
    assert!(code == 2 && said.contains("history.jsonl:1"), "{said}");
    std::fs::remove_file(dir.join("truth.json")).unwrap();
    std::fs::write(dir.join("history.jsonl"), HISTORY).unwrap();
    let (code, said) = told(&["check", dir.to_str().unwrap()]);
    assert!(code == 2 && said.contains("truth.json"), "{said}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_bad_recording_is_shrunk_to_the_entry_that_breaks_it() {
    let dir = recorded("bad", &[HISTORY, BAD].concat());
    let (path, out) = (dir.to_str().unwrap(), dir.join("smallest.jsonl"));
    let (code, said) = told(&["check", path]);
    assert!(code == 1 && said.contains("BROKEN a term has one leader"), "{said}");
    let (code, said) = told(&["shrink", path, "--out", out.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(
        said.contains("checker: a term has one leader") && said.contains("m1 and m2 led in term 1"),
        "{said}"
    );
    assert!(said.contains("8 of 9 entries"), "{said}");
    // The beginning is a history of its own, and bad.
    std::fs::rename(&out, dir.join("history.jsonl")).unwrap();
    let (code, said) = told(&["shrink", path]);
    assert!(code == 1 && said.contains("8 of 8 entries"), "{said}");
    std::fs::remove_dir_all(dir).unwrap();
}
