//! Masters that want to know who asks, and the command line that tells them.

#![allow(clippy::unwrap_used)]

use muster_testkit::{Plan, TestCluster};
use std::fs;
use std::process::{Command, Output, Stdio};

fn muster(masters: &[String], args: &[&str], credential: Option<&str>) -> Output {
    let binary = std::env::var_os("MUSTER_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_muster").into());
    let mut command = Command::new(binary);
    command.args(args).env("MUSTER_MASTER", masters.join(",")).env_remove("MUSTER_LOG").stdin(Stdio::null());
    command.envs(credential.map(|credential| ("MUSTER_CREDENTIAL", credential)));
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_is_told_by_a_flag_or_a_variable() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let credentials = r#"{"credentials": [{"principal": "ops", "secret": "of ops"}]}"#;
    let credentials = file("credentials.json", credentials);
    // What only reads stays open: the test's own cluster asks how it is.
    let config = format!("[auth]\nframeworks = true\nreadwrite = true\ncredentials = {credentials:?}\n");
    let plan = Plan { agents: 1, master_config: config, ..Plan::default() };
    let cluster = TestCluster::start(plan).await.unwrap();
    cluster.serving().await.unwrap();
    let masters = cluster.masters();
    let (right, wrong) = (file("secret", "of ops\n"), file("wrong", "x"));
    let (right, wrong) = (format!("ops:{right}"), format!("ops:{wrong}"));

    let teardown = ["framework", "teardown", "nobody"];
    for credential in [None, Some(wrong.as_str())] {
        let output = muster(&masters, &teardown, credential);
        assert!(!output.status.success());
        assert!(said(&output).contains("wants to know who asks"), "{}", said(&output));
    }
    let output = muster(&masters, &teardown, Some(&right));
    assert!(said(&output).contains("nobody") && !said(&output).contains("who asks"), "{}", said(&output));
    let output = muster(&masters, &[&teardown[..], &["--credential", &right]].concat(), None);
    assert!(!said(&output).contains("who asks"), "{}", said(&output));
    let output = muster(&masters, &teardown, Some("ops"));
    assert!(said(&output).contains("PRINCIPAL:FILE"), "{}", said(&output));

    // A framework of the SDK.
    let output = muster(&masters, &["run", "--", "true"], Some(&right));
    assert!(output.status.success(), "{}", said(&output));
    cluster.end().await.unwrap();
}
