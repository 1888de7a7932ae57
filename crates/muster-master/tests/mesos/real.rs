//! What was recorded around a real agent, event by event: an agent that says what the real one said makes a muster master
//! tell what Mesos told.

use crate::cases::But;
use crate::differs_in;
use crate::ids::Ids;
use crate::real_agent::Order;
use crate::replay::Seen;
use crate::seen;
use crate::stage::{Scene, Stage};
use crate::story::recorded_events;
use crate::transcript::{Body, Transcript, record};
use crate::wire;
use serde_json::{Value, json};

const HOST: &str = "127.0.0.1";

/// The events that came after a recorded call.
fn events_after(name: &str) -> Vec<Value> {
    let Some(Body::Chunks(chunks, _)) = Transcript::named(name).events else { return Vec::new() };
    chunks.iter().map(|chunk| serde_json::from_slice(record(chunk)).unwrap()).collect()
}

/// Compares events; offers are gathered, tasks are told one by one.
fn compare(name: &str, stage: &Stage, mesos: Vec<Value>, muster: Vec<Value>, buts: &'static [But]) {
    let seen = Seen {
        mesos: seen::events(mesos, false, &Ids::recorded()),
        muster: seen::events(muster, false, &stage.ids),
        changed_nothing: true,
    };
    if let Err(why) = differs_in(&seen, buts) {
        panic!("{name}: {why}");
    }
}

/// Sends a recorded call, whose answer is as it was.
async fn replayed(stage: &Stage, name: &str) {
    let came = stage.send_recorded(name).await;
    let recorded = &Transcript::named(name).only().answer.clone();
    let mesos = seen::answer(recorded, &Ids::recorded(), "nobody");
    assert_eq!(seen::answer(&came, &stage.ids, "nobody"), mesos, "{name}");
}

fn logged(stage: &Stage) -> usize {
    stage.stream.as_ref().unwrap().log.len()
}

/// What came on the framework's stream since then.
fn since(stage: &Stage, mark: usize) -> Vec<Value> {
    stage.stream.as_ref().unwrap().log[mark..].to_vec()
}

fn is_starting(event: &Value) -> bool {
    event["update"]["status"]["state"] == "TASK_STARTING"
}

/// Waits for the next offer.
async fn next_offer(stage: &mut Stage) {
    stage.forget_offers();
    stage.offered([HOST]).await;
}

/// Says what was said next of a task, and acknowledges it.
async fn say_and_settle(stage: &mut Stage, task: &str) {
    assert!(stage.agent().say_next(task).await, "{task}: there is more");
    let status = stage.update(task).await;
    stage.acknowledge(&status).await;
}

async fn weigh(stage: &Stage, weight: f64) {
    let call = json!({ "type": "UPDATE_WEIGHTS", "update_weights": { "weight_infos": [
        { "role": "web", "weight": weight }] } });
    let mut request = Transcript::named("op-UPDATE_WEIGHTS").only().request.clone();
    request.set_body(call.to_string().into_bytes());
    let answer = wire::send(&stage.address, &request.to_bytes()).await.whole().await;
    assert_eq!(answer.status(), 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_agents_tasks_are_told_of_as_mesos_told() {
    let mut stage = Stage::set(Scene::Real).await;
    // To operators.
    let recorded = recorded_events("op-events-real-tasks");
    let told = stage.told_operators(recorded.len() - 1).await; // but for a heartbeat
    const NOT_KEPT: &[But] =
        &[But::At("others[].framework_added.framework", &["reregistered_time", "unregistered_time"])];
    compare("op-events-real-tasks", &stage, recorded, told, NOT_KEPT);
    // To the framework, after its first offer and the first update of each.
    let first = since(&stage, 0).iter().position(|event| event["type"] == "OFFERS").unwrap();
    let told = since(&stage, first + 1).into_iter().filter(|event| !is_starting(event)).collect();
    compare("real-updates", &stage, recorded_events("real-updates"), told, &[]);
    revived(&mut stage).await;
    unreserved(&mut stage).await;
    group(&mut stage).await;
    killed(&mut stage).await;
    let recorded = recorded_events("op-events-rest");
    let count = recorded.iter().filter(|event| event["type"] != "HEARTBEAT").count();
    let told = stage.told_operators(count).await;
    compare("op-events-rest", &stage, recorded, told, &[]);
    stage.end().await;
}

/// Before the call operators changed weights twice, which takes all offers back.
async fn revived(stage: &mut Stage) {
    let mark = logged(stage);
    for weight in [2.0, 1.0] {
        weigh(stage, weight).await;
        next_offer(stage).await;
    }
    replayed(stage, "real-revive").await;
    stage.told().await.unwrap();
    let is_ours = |event: &Value| event["type"] != "UPDATE";
    let told = since(stage, mark).into_iter().filter(is_ours).collect();
    compare("real-revive", stage, events_after("real-revive"), told, &[]);
}

async fn unreserved(stage: &mut Stage) {
    let cpu = json!({ "name": "cpus", "type": "SCALAR", "scalar": { "value": 1.0 },
        "reservations": [{ "type": "DYNAMIC", "role": "web", "principal": "golden" }] });
    let accept = json!({ "offer_ids": [{ "value": stage.take_offer(HOST) }], "filters": { "refuse_seconds": 0 },
        "operations": [{ "type": "RESERVE", "reserve": { "resources": [cpu] } }] });
    stage.call(json!({ "type": "ACCEPT", "accept": accept })).await;
    stage.offered([HOST]).await;
    let mark = logged(stage);
    replayed(stage, "real-accept-unreserve").await;
    next_offer(stage).await;
    let told = since(stage, mark);
    compare("real-accept-unreserve", stage, events_after("real-accept-unreserve"), told, &[]);
}

/// Two tasks in the default executor, as a real agent told of them.
async fn group(stage: &mut Stage) {
    let name = "real-accept-task-group";
    let mark = logged(stage);
    replayed(stage, name).await;
    let ordered = stage.ordered(2).await;
    stage.agent().executor("g1", None).await;
    for task in ordered {
        stage.agent().say_next(&task).await;
    }
    let starting = [stage.update("g1").await, stage.update("g2").await];
    next_offer(stage).await;
    let told = since(stage, mark).into_iter().filter(is_starting).collect();
    compare(name, stage, events_after(name), told, &[]);
    for status in &starting {
        stage.acknowledge(status).await;
    }
    for task in ["g1", "g2", "g1"] {
        say_and_settle(stage, task).await;
    }
    next_offer(stage).await;
    // What its last task and the executor leave is then offered at once.
    stage.call(json!({ "type": "SUPPRESS" })).await;
    say_and_settle(stage, "g2").await;
    stage.agent().executor("g1", Some(0)).await;
    let stream = stage.stream.as_mut().unwrap();
    stream.until(|event| (event["type"] == "FAILURE").then_some(())).await;
    stage.call(json!({ "type": "REVIVE" })).await;
    next_offer(stage).await;
    let told = since(stage, mark).into_iter().filter(|event| !is_starting(event)).collect();
    let name = "real-task-group-updates";
    // Mesos' nested containers have lost their address when they ended.
    let but = &[But::At("others[].update.status.container_status", &["network_infos"])];
    compare(name, stage, recorded_events(name), told, but);
}

async fn killed(stage: &mut Stage) {
    let mark = logged(stage);
    replayed(stage, "real-kill").await;
    let order = stage.agent().ordered().await;
    assert!(matches!(&order, Order::Kill(task) if task == "run"), "{order:?}");
    say_and_settle(stage, "run").await;
    compare("real-kill", stage, events_after("real-kill"), since(stage, mark), &[]);
    let mark = logged(stage);
    say_and_settle(stage, "run").await;
    next_offer(stage).await;
    assert!(!stage.agent().say_next("run").await, "all is said");
    compare("real-kill-updates", stage, recorded_events("real-kill-updates"), since(stage, mark), &[]);
}
