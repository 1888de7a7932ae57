//! What operators do to masters that run, through the command line: look, hand over, replace, also while one of the
//! masters is dead or stands still.

#![allow(clippy::unwrap_used)]

use muster_testkit::{Plan, TestCluster};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Far above what a silent master is waited for, far below what an answer may take.
const SOON: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(30);

fn muster(masters: &[String], args: &[&str]) -> Command {
    let binary = std::env::var_os("MUSTER_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_muster").into());
    let mut command = Command::new(binary);
    command.args(args).env("MUSTER_MASTER", masters.join(",")).env_remove("MUSTER_LOG").stdin(Stdio::null());
    command
}

fn run(masters: &[String], args: &[&str]) -> Output {
    muster(masters, args).output().unwrap()
}

#[track_caller]
fn json(masters: &[String], args: &[&str]) -> Value {
    let output = run(masters, &[args, &["-o", "json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// One sentence on standard error that has all these parts, and no success.
#[track_caller]
fn refused(masters: &[String], args: &[&str], parts: &[&str]) {
    let output = run(masters, args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors: Vec<_> = said.lines().filter(|line| line.starts_with("muster: ")).collect();
    assert!(!output.status.success() && errors.len() == 1, "{args:?}: {:?}: {said}", output.status);
    let missing: Vec<_> = parts.iter().filter(|part| !errors[0].contains(**part)).collect();
    assert!(missing.is_empty(), "{missing:?} is missing in {:?}", errors[0]);
}

/// `muster raft status` of one master; null while it does not answer.
#[track_caller]
fn status(masters: &[String], name: &str) -> Value {
    let all = json(masters, &["raft", "status"]);
    let found = all.as_array().unwrap().iter().find(|master| master["name"] == name);
    found.cloned().unwrap_or_default()
}

/// Asks until it holds.
#[track_caller]
fn eventually(what: &str, mut look: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !look() {
        assert!(Instant::now() < until, "never: {what}");
    }
}

/// A `muster run` of endless tasks.
struct Tasks(Child);

impl Tasks {
    fn start(masters: &[String], count: usize) -> Self {
        Self::of(masters, count, "sleep 1000")
    }

    fn of(masters: &[String], count: usize, what: &str) -> Self {
        let count_arg = count.to_string();
        let mut command = muster(masters, &["run", "-n", &count_arg, "--", what]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = child.stderr.take().unwrap();
        let this = Self(child);
        let mut lines = BufReader::new(said).lines().map(Result::unwrap);
        assert_eq!(lines.by_ref().filter(|line| line.contains("running")).take(count).count(), count);
        std::thread::spawn(move || lines.for_each(drop));
        this
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ids and states of all tasks.
#[track_caller]
fn tasks(masters: &[String]) -> Vec<(String, String)> {
    let all = json(masters, &["ps"]);
    let field = |task: &Value, name: &str| task[name].as_str().unwrap().to_owned();
    all.as_array().unwrap().iter().map(|task| (field(task, "task_id"), field(task, "state"))).collect()
}

async fn cluster(agents: u16) -> (TestCluster, Vec<String>) {
    let cluster = TestCluster::start(Plan { agents, ..Plan::steady() }).await.unwrap();
    let masters = cluster.masters();
    (cluster, masters)
}

fn others(cluster: &TestCluster, leader: &str) -> [String; 2] {
    let names: Vec<_> = cluster.master_names().into_iter().filter(|name| name != leader).collect();
    names.try_into().unwrap()
}

fn address(cluster: &TestCluster, name: &str) -> String {
    let at = cluster.master_names().iter().position(|other| other == name).unwrap();
    cluster.masters()[at].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_where_the_operator_says() {
    let (cluster, masters) = cluster(0).await;
    let (leader, term) = cluster.serving().await.unwrap();
    let [heir, dead] = others(&cluster, &leader);
    refused(&masters, &["raft", "transfer", "m9"], &["no other voting master called m9"]);

    let moved = run(&masters, &["raft", "transfer", &heir]);
    let said = String::from_utf8_lossy(&moved.stderr);
    assert!(moved.status.success() && said.contains(&format!("{heir} leads")), "{said}");
    let (now, new_term) = cluster.serving().await.unwrap();
    assert!(now == heir && new_term > term, "{now} leads in {new_term} after {term}");
    assert_eq!(status(&masters, &heir)["state"], "leader");
    // It has what was asked for already: nothing moves.
    assert_eq!(json(&masters, &["raft", "transfer", &heir])["leader"], heir.as_str());
    assert_eq!(cluster.serving().await.unwrap(), (heir.clone(), new_term));

    // Nobody who is not there is handed anything: the leader would have stopped for it.
    cluster.kill(&dead).unwrap();
    refused(&masters, &["raft", "transfer", &dead], &[&dead, "does not answer"]);
    cluster.restart(&dead).unwrap();
    cluster.caught_up(&dead).await.unwrap();
    let paused = cluster.pause(&dead).unwrap();
    refused(&masters, &["raft", "transfer", &dead], &[&dead, "does not answer"]);
    assert_eq!(cluster.serving().await.unwrap(), (heir.clone(), new_term));

    // Without a name, to one that is there.
    cluster.kill(&dead).unwrap();
    drop(paused);
    assert_eq!(json(&masters, &["raft", "transfer"])["leader"], leader.as_str());
    assert_eq!(cluster.leader().await.unwrap(), leader);
    assert!(cluster.error_lines().is_empty(), "{:?}", cluster.error_lines());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_lost_its_disk_is_replaced_and_no_task_is_lost() {
    let (cluster, masters) = cluster(1).await;
    let _tasks = Tasks::start(&masters, 3);
    let before = tasks(&masters);
    assert_eq!(before.len(), 3);
    let (leader, _) = cluster.serving().await.unwrap();
    let [lost, well] = others(&cluster, &leader);

    refused(&masters, &["raft", "replace", "m9", "--confirm"], &["no master called m9"]);
    refused(
        &masters,
        &["raft", "replace", &leader, "--confirm"],
        &[&leader, "leads", "hand leadership over"],
    );
    for confirm in [&[] as &[&str], &["--confirm"]] {
        let args = [&["raft", "replace", &well], confirm].concat();
        refused(&masters, &args, &[&well, "is well", "nothing to replace"]);
    }

    let old = status(&masters, &lost)["node_id"].as_u64().unwrap();
    cluster.kill(&lost).unwrap();
    std::fs::remove_dir_all(cluster.dir().join(&lost)).unwrap();
    cluster.restart(&lost).unwrap();
    eventually("it says what it needs", || {
        let note = status(&masters, &lost)["note"].as_str().unwrap_or_default().to_owned();
        note.contains(&format!("muster raft replace {lost} --confirm"))
    });
    refused(&masters, &["raft", "replace", &lost], &[&lost, "was heard", "--confirm"]);
    assert_eq!(json(&masters, &["raft", "replace", &lost, "--confirm"])["replaced"], true);
    eventually("it votes again", || {
        let now = status(&masters, &lost);
        let leader = status(&masters, &leader);
        let (new, members) = (&now["node_id"], leader["members"].as_array());
        new.as_u64().is_some_and(|new| new != old)
            && members.is_some_and(|members| members.len() == 3)
            && members.into_iter().flatten().any(|it| it["node_id"] == *new && it["voter"] == true)
    });
    cluster.caught_up(&lost).await.unwrap();
    assert_eq!(tasks(&masters), before);
    // It counts: with it and without another one there is a quorum, and it can lead with all there is.
    cluster.kill(&well).unwrap();
    assert_eq!(json(&masters, &["raft", "transfer", &lost])["leader"], lost.as_str());
    assert_eq!(tasks(&masters), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_stands_still_is_not_waited_for() {
    // Its successor is to be there soon, too.
    let master_config = "[raft]\nelection-ms-min = 500\nelection-ms-max = 750\n".into();
    let cluster = TestCluster::start(Plan { agents: 1, master_config, ..Plan::default() }).await.unwrap();
    let (leader, _) = cluster.serving().await.unwrap();
    let [first, second] = others(&cluster, &leader);
    let masters = |order: [&String; 3]| order.map(|name| address(&cluster, name)).to_vec();
    let _tasks = Tasks::start(&masters([&leader, &first, &second]), 1);
    let answers_soon = |masters: &[String]| {
        let began = Instant::now();
        assert_eq!(tasks(masters).len(), 1);
        assert!(began.elapsed() < SOON, "it was waited for: {:?}", began.elapsed());
    };

    let paused = cluster.pause(&first).unwrap();
    answers_soon(&masters([&first, &second, &leader]));
    let began = Instant::now();
    let all = json(&masters([&first, &second, &leader]), &["raft", "status"]);
    assert!(all[0]["state"].is_null(), "{all}");
    assert!([&all[1], &all[2]].iter().any(|it| it["state"] == "leader"), "{all}");
    assert!(began.elapsed() < SOON, "it was waited for: {:?}", began.elapsed());
    drop(paused);

    cluster.caught_up(&first).await.unwrap();
    let paused = cluster.pause(&leader).unwrap();
    answers_soon(&masters([&leader, &first, &second]));
    // The answer came from another one: the leader still stands.
    assert_ne!(cluster.serving().await.unwrap().0, leader);
    drop(paused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_a_master_that_does_not_run_is_shown_with_what_it_did() {
    let (cluster, masters) = cluster(1).await;
    let tasks = Tasks::start(&masters, 2);
    let [one, other] = others(&cluster, &cluster.leader().await.unwrap());
    let log = |name: &str| {
        let dir = cluster.dir().join(name);
        let args = ["raft", "log", "-o", "json", "--data-dir", dir.to_str().unwrap()];
        let output = muster(&masters, &args).output().unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let entries: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (entries, String::from_utf8(output.stderr).unwrap())
    };
    let (entries, why) = log(&one);
    assert!(entries.is_empty() && why.contains("in use by another process"), "{why}");

    cluster.caught_up(&one).await.unwrap();
    let last = cluster.status(&one).await.unwrap();
    // Killed at once, so that nothing is added to either.
    cluster.kill_all([&one, &other]).unwrap();
    let (entries, why) = log(&one);
    assert_eq!(why, "");
    let indexes: Vec<u64> = entries.iter().map(|entry| entry["index"].as_u64().unwrap()).collect();
    assert_eq!(indexes, (0..indexes.len() as u64).collect::<Vec<_>>());
    assert!(indexes.len() as u64 > last.applied_index);
    let at = &entries[usize::try_from(last.applied_index).unwrap()];
    assert_eq!(at["state_hash"], format!("{:016x}", last.state_hash));
    let launched =
        |entry: &Value| entry["outcomes"].to_string().matches(r#"{"Launched":{"incarnation""#).count();
    assert_eq!(entries.iter().map(launched).sum::<usize>(), 2, "{entries:?}");

    // The same on the other, as far as both have it.
    let (others, _) = log(&other);
    for (mine, theirs) in entries.iter().zip(&others) {
        assert_eq!(mine["state_hash"], theirs["state_hash"]);
    }
    // Nothing was changed: it starts again and catches up.
    cluster.restart_all([&one, &other]).unwrap();
    cluster.caught_up(&one).await.unwrap();
    drop(tasks);
}

/// The only agent.
#[track_caller]
fn agent(masters: &[String]) -> Value {
    let all = json(masters, &["agent", "list"]);
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
    all[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_are_taken_out_of_use_and_back() {
    let (cluster, masters) = cluster(1).await;
    let tasks_run = Tasks::start(&masters, 2);
    let id = agent(&masters)["agent_id"].as_str().unwrap().to_owned();
    for verb in ["drain", "deactivate", "reactivate"] {
        refused(&masters, &["agent", verb, "nobody"], &["agent nobody: "]);
    }
    refused(&masters, &["agent", "drain", "nobody"], &["Unknown agent"]);
    refused(&masters, &["agent", "reactivate", &id], &[&id, "not deactivated"]);

    // By the address of one that follows alone.
    let [follower, _] = others(&cluster, &cluster.leader().await.unwrap());
    let by_follower = [address(&cluster, &follower)];
    let deactivated = json(&by_follower, &["agent", "deactivate", &id]);
    assert_eq!((&deactivated["agent_id"], &deactivated["deactivated"]), (&id.as_str().into(), &true.into()));
    let now = agent(&masters);
    assert_eq!((&now["duty"], &now["tasks"]), (&"deactivated".into(), &2.into()), "its tasks run on");
    assert_eq!(json(&masters, &["agent", "reactivate", &id])["deactivated"], false);
    assert_eq!(agent(&masters)["duty"], "");

    assert_eq!(json(&masters, &["agent", "drain", &id, "--max-grace", "2s"])["draining"], true);
    eventually("it is empty", || agent(&masters)["duty"] == "drained");
    assert!(tasks(&masters).is_empty());
    drop(tasks_run);
    // That outlives the leader.
    let (leader, term) = cluster.serving().await.unwrap();
    cluster.kill(&leader).unwrap();
    cluster.serving_after(term).await.unwrap();
    eventually("it is back", || agent(&masters)["state"] == "registered");
    assert_eq!(agent(&masters)["duty"], "drained");
    let said = run(&masters, &["agent", "reactivate", &id]);
    assert!(
        said.status.success() && String::from_utf8_lossy(&said.stderr).contains("offered again"),
        "{said:?}"
    );
    assert!(run(&masters, &["run", "--", "true"]).status.success());

    json(&masters, &["agent", "drain", &id, "--mark-gone"]);
    eventually("it is gone", || json(&masters, &["agent", "list"])[0]["state"] == "gone");
    cluster.ends("a1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_have_weights_and_quotas() {
    let (cluster, masters) = cluster(1).await;
    assert_eq!(json(&masters, &["quota", "list"]), Value::Array(Vec::new()));
    refused(&masters, &["role", "weigh", "web=0"], &["web", "positive"]);
    json(&masters, &["role", "weigh", "web=2.5", "batch=0.5"]);
    let weight = |role: &str| {
        let all = json(&masters, &["role", "list"]);
        let found = all.as_array().unwrap().iter().find(|it| it["role"] == role).cloned();
        found.unwrap_or_else(|| panic!("{role}: {all}"))["weight"].as_f64().unwrap()
    };
    assert_eq!((weight("web"), weight("batch")), (2.5, 0.5));

    refused(&masters, &["quota", "remove", "web"], &["role web", "no quota"]);
    // More than there is, unless it is wanted all the same.
    let much = ["quota", "set", "web", "--guarantee", "cpus:1000"];
    refused(&masters, &much, &["role web"]);
    json(&masters, &[&much[..], &["--force"]].concat());
    json(&masters, &["quota", "set", "web", "--guarantee", "cpus:0.5;mem:64", "--limit", "cpus:1;mem:128"]);
    let quota = |masters: &[String]| json(masters, &["quota", "list"]);
    let wanted: Value = serde_json::from_str(
        r#"[{"role": "web", "guarantees": {"cpus": 0.5, "mem": 64.0}, "limits": {"cpus": 1.0, "mem": 128.0}}]"#,
    )
    .unwrap();
    assert_eq!(quota(&masters), wanted, "in the place of what was set before");
    let table = String::from_utf8(run(&masters, &["quota", "list"]).stdout).unwrap();
    assert!(table.contains("cpus:0.5;mem:64") && table.contains("LIMITS"), "{table}");

    let (leader, term) = cluster.serving().await.unwrap();
    cluster.kill(&leader).unwrap();
    cluster.serving_after(term).await.unwrap();
    assert_eq!((quota(&masters), weight("web")), (wanted, 2.5), "by the next leader");
    json(&masters, &["quota", "remove", "web"]);
    assert_eq!(quota(&masters), Value::Array(Vec::new()));
    // With nobody to ask it says so.
    cluster.kill_all(cluster.master_names().iter().filter(|name| **name != leader)).unwrap();
    refused(&masters, &["role", "list"], &["no leader found", "check the addresses"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_goes_down_and_up_again() {
    let (cluster, masters) = cluster(1).await;
    let pids = tempfile::tempdir().unwrap();
    let note = |name: &str, how: &str| {
        format!("{how} echo $$ > {}/{name}; while :; do sleep 0.1; done", pids.path().display())
    };
    let [gentle, stubborn] = [("gentle", ""), ("stubborn", "trap '' TERM;")]
        .map(|(name, how)| Tasks::of(&masters, 1, &note(name, how)));
    let alive = |name: &str| {
        let pid = std::fs::read_to_string(pids.path().join(name)).unwrap_or_default();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    };
    let before = tasks(&masters);
    eventually("both run", || alive("gentle") && alive("stubborn"));
    let id = agent(&masters)["agent_id"].clone();

    refused(&masters, &["maintenance", "start", "a1"], &["a1", "not part of a maintenance schedule"]);
    refused(&masters, &["maintenance", "cancel", "a1"], &["a1", "not in the schedule"]);
    json(&masters, &["maintenance", "plan", "a1", "other@10.9.9.9", "--in", "10m", "--for", "2h"]);
    let planned = json(&masters, &["maintenance", "list"]);
    assert_eq!(
        (&planned[0]["hostname"], &planned[0]["state"]),
        (&"a1".into(), &"scheduled".into()),
        "{planned}"
    );
    assert_eq!((&planned[1]["ip"], &planned[1]["duration_secs"]), (&"10.9.9.9".into(), &7_200.into()));
    json(&masters, &["maintenance", "cancel", "other@10.9.9.9"]);
    assert_eq!(tasks(&masters), before, "a plan hurts nobody");

    json(&masters, &["maintenance", "start", "a1"]);
    assert_eq!(json(&masters, &["maintenance", "list"])[0]["state"], "down");
    assert!(!cluster.ends("a1").await.unwrap().success(), "it stops and says why");
    assert!(cluster.last_words("a1").unwrap().contains("down for maintenance"));
    eventually("what can end when it is asked to has", || !alive("gentle"));
    assert!(alive("stubborn"));
    eventually("they are told that they are lost", || {
        let all = json(&masters, &["ps", "--all"]);
        let lost = all.as_array().unwrap().iter().filter(|task| task["state"] == "TASK_LOST");
        lost.count() == before.len()
    });
    // Over the change of leaders it stays down, and what comes back is refused.
    let (leader, term) = cluster.serving().await.unwrap();
    cluster.kill(&leader).unwrap();
    cluster.serving_after(term).await.unwrap();
    cluster.restart("a1").unwrap();
    assert!(!cluster.ends("a1").await.unwrap().success());
    refused(&masters, &["maintenance", "cancel", "a1"], &["a1"]);

    json(&masters, &["maintenance", "stop", "a1"]);
    assert_eq!(json(&masters, &["maintenance", "list"]), Value::Array(Vec::new()));
    cluster.restart("a1").unwrap();
    eventually("it is back", || agent(&masters)["state"] == "registered");
    assert_eq!(agent(&masters)["agent_id"], id, "the same agent");
    eventually("none of its former tasks runs", || !alive("stubborn"));
    eventually("nothing is held for them", || agent(&masters)["used"] == Value::Object(Default::default()));
    assert!(run(&masters, &["run", "--", "true"]).status.success());
    drop((gentle, stubborn));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_task_writes_is_followed_over_restarts_and_leaders() {
    let (cluster, masters) = cluster(1).await;
    let dir = tempfile::tempdir().unwrap();
    let words = dir.path().display();
    let _task = Tasks::of(
        &masters,
        1,
        &format!(
            "mkdir -p deep/er; echo kept > deep/er/file; n=0; until [ -e {words}/end ]; do \
             if [ -e {words}/$n ]; then echo line $n; n=$((n + 1)); fi; sleep 0.05; done"
        ),
    );
    let mut logs = muster(&masters, &["logs", "--follow", "--stdout", "task-1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(logs.stdout.take().unwrap()).lines();
    let mut said = |n: usize| {
        std::fs::write(dir.path().join(n.to_string()), "").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), format!("line {n}"));
    };
    said(0);
    cluster.kill("a1").unwrap();
    cluster.restart("a1").unwrap();
    said(1);
    let (leader, term) = cluster.serving().await.unwrap();
    cluster.kill(&leader).unwrap();
    cluster.serving_after(term).await.unwrap();
    said(2);
    std::fs::write(dir.path().join("end"), "").unwrap();
    assert!(lines.next().is_none(), "it is over");
    assert!(logs.wait().unwrap().success());

    let text = |args: &[&str]| {
        let output = run(&masters, args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(text(&["logs", "--stdout", "task*"]), "line 0\nline 1\nline 2\n");
    assert_eq!(text(&["logs", "--stdout", "-n", "1", "task-1"]), "line 2\n");
    assert_eq!(text(&["files", "cat", "task-1", "deep/er/file"]), "kept\n");
    let listed = json(&masters, &["files", "ls", "task-1"]);
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["deep", "stderr", "stdout"]);
    let copy = dir.path().join("copy");
    text(&["files", "cp", "task-1", "--to", copy.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(copy.join("deep/er/file")).unwrap(), "kept\n");
    refused(&masters, &["logs", "nobody"], &["no task \"nobody\"", "muster ps --all"]);
    refused(&masters, &["files", "cat", "task-1", "../../x"], &["task-1"]);
}
