//! Three of the bugs that can be planted: the suite must find each. `scripts/planted` tries all.

#![allow(clippy::unwrap_used)]

use std::process::Command;

/// Plants one, if there is a binary to plant it in; where all must be tested there has to be. One of these promises must
/// be found broken.
fn found(bug: &str, by: &[&str]) {
    if std::env::var_os("MUSTER_FAULTS_BIN").is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must have a binary with bugs to plant");
        println!(
            "skipped: MUSTER_FAULTS_BIN names no binary with the feature `faults`; scripts/test builds one"
        );
        return;
    }
    let out =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("planted-{}", std::process::id()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_jepsen-style-tests"));
    let output = command.args(["planted", "--bug", bug, "--out"]).arg(&out).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() && by.iter().any(|promise| said.contains(promise)), "{said}");
    std::fs::remove_dir_all(out).unwrap();
}

#[test]
fn reads_that_nobody_confirms_are_found() {
    // A leader that nobody hears does not know that there is another one, and answers.
    found("stale-reads", &["service returns", "reads that claim to be current are"]);
}

#[test]
fn an_offer_of_a_former_term_is_found() {
    found("forget-offer-term", &["an offer is used once, in its own term"]);
}

#[test]
fn a_task_that_starts_twice_is_found() {
    found("restart-launch", &["no task is started twice"]);
}
