//! A test's history holds what its clients did, and the faults of its cluster.

#![allow(clippy::unwrap_used)]

use muster_testkit::history::{Kind, Recorder, Who};
use muster_testkit::{Plan, TestCluster};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_are_in_the_history_with_what_clients_did() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::create(dir.path()).unwrap();
    let cluster = TestCluster::start(Plan { agents: 1, proxied: true, ..Plan::default() }).await.unwrap();
    cluster.record_faults(&recorder);
    let mut client = recorder.process();
    let (leader, term) = cluster.serving().await.unwrap();

    cluster.kill(&leader).unwrap();
    let asked = client.invoke("agents", &leader);
    asked.fail(cluster.agents_by(&leader).await.unwrap_err());
    let (heir, _) = cluster.serving_after(term).await.unwrap();
    cluster.restart(&leader).unwrap();
    cluster.caught_up(&leader).await.unwrap();
    cluster.ready().await.unwrap();
    let asked = client.invoke("agents", &heir);
    asked.ok(cluster.agent_names().len());
    drop(cluster.pause("a1").unwrap());
    drop(cluster.cut("m1", "m2").unwrap());
    // One that is not undone does not end.
    cluster.kill("a1").unwrap();
    drop(cluster);
    recorder.end().unwrap();

    let said: Vec<_> =
        recorder.entries().into_iter().map(|it| (it.process, it.kind, it.f, it.value)).collect();
    let nemesis = |f: &str, fault: &str, on: Value| {
        (Who::Nemesis, Kind::Info, format!("fault-{f}"), json!({"fault": fault, "on": on}))
    };
    let client = |kind, value: Value| (Who::Client(0), kind, "agents".to_owned(), value);
    let expected = [
        nemesis("begins", "kill", json!([leader])),
        client(Kind::Invoke, json!(leader)),
        client(Kind::Fail, json!(leader)),
        nemesis("ends", "kill", json!([leader])),
        client(Kind::Invoke, json!(heir)),
        client(Kind::Ok, json!(1)),
        nemesis("begins", "pause", json!(["a1"])),
        nemesis("ends", "pause", json!(["a1"])),
        nemesis("begins", "cut", json!(["m1", "m2"])),
        nemesis("ends", "cut", json!(["m1", "m2"])),
        nemesis("begins", "kill", json!(["a1"])),
    ];
    assert_eq!(said, expected);
    let edn = std::fs::read_to_string(dir.path().join("history.edn")).unwrap();
    let kill = format!(r#", :f :fault-begins, :value {{:fault "kill", :on ["{leader}"]}}}}"#);
    assert!(edn.lines().next().unwrap().ends_with(&kill), "{edn}");
    assert_eq!(edn.lines().count(), expected.len());
    let json = std::fs::read_to_string(dir.path().join("history.jsonl")).unwrap();
    assert_eq!(json.lines().count(), expected.len());
}
