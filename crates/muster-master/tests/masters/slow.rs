//! Clients of the HTTP API that do not read, or slowly: what is kept for them is bounded, and nobody waits for them.

use crate::events::{Client, accept, subscribe};
use crate::http::{Answer, send_narrow};
use crate::reads::read;
use crate::support::*;
use muster_proto::{
    mesos,
    v1::{self, agent_frame::Frame as Up},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::{sleep, timeout};

const JSON: [(&str, &str); 2] = [("Content-Type", "application/json"), ("Accept", "application/json")];

fn cpus(value: f64) -> mesos::Resource {
    let scalar = Some(mesos::value::Scalar { value });
    mesos::Resource { name: "cpus".into(), scalar, ..Default::default() }
}

/// Takes its orders, whatever becomes of them.
async fn agent_of(address: &str) -> tokio::task::JoinHandle<()> {
    let mut agent = Agent::connect_with(address, "machine-1", vec![cpus(100.0)]).await;
    tokio::spawn(async move { while agent.orders.recv().await.is_some() {} })
}

/// So many small tasks on an offer, each with a label of this length.
fn tasks(offer: &Value, name: &str, count: usize, label: usize) -> Vec<Value> {
    let label = "x".repeat(label);
    let task = |n| {
        json!({"name": "t", "task_id": {"value": format!("{name}-{n}")}, "agent_id": offer["agent_id"],
            "command": {"value": "true"}, "labels": {"labels": [{"key": "k", "value": label}]},
            "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.001}}]})
    };
    (0..count).map(task).collect()
}

/// A scheduler's stream that takes in little before somebody reads; and the framework's id.
async fn narrow(address: &str) -> (Answer, String) {
    let body = subscribe(None).to_string();
    let mut stream = send_narrow(address, "POST", "/api/v1/scheduler", &JSON, body.as_bytes()).await;
    let subscribed = event(&mut stream).await.unwrap();
    let id = subscribed["subscribed"]["framework_id"]["value"].as_str().unwrap().to_owned();
    (stream, id)
}

async fn event(stream: &mut Answer) -> Option<Value> {
    Some(serde_json::from_slice(&stream.record().await?).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_that_reads_slowly_is_told_why_it_is_ended_and_little_is_kept_for_it() {
    const BYTES: usize = 256 << 10;
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    let agent = Agent::connect_with(&address, "machine-1", vec![cpus(1.0)]).await;
    let mut good = Client::subscribe(&address, None).await;
    let agent_id = good.offer().await["agent_id"]["value"].as_str().unwrap().to_owned();
    let (mut slow, id) = narrow(&address).await;
    let hurry = Arc::new(AtomicBool::new(false));
    let hurries = hurry.clone();
    let reader = tokio::spawn(async move {
        let (mut told, mut why) = (0, None);
        while let Some(event) = event(&mut slow).await {
            assert!(why.is_none(), "nothing follows the ERROR: {event}");
            match event["type"].as_str() {
                Some("MESSAGE") => told += 1,
                Some("ERROR") => why = event["error"]["message"].as_str().map(str::to_owned),
                _ => {}
            }
            if !hurries.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(100)).await; // it is slow
            }
        }
        (told, why)
    });
    let message = |framework_id: &str, bytes| {
        Up::Message(v1::ExecutorMessage {
            framework_id: framework_id.into(),
            agent_id: agent_id.clone(),
            executor_id: "e".into(),
            data: vec![7; bytes].into(),
        })
    };
    let mut sent = 0;
    let flood = async {
        loop {
            agent.say(message(&id, BYTES)).await;
            sent += 1;
            let all = read(&address, "/frameworks").await["frameworks"].as_array().unwrap().clone();
            let connected = |id: &str| all.iter().any(|it| it["id"] == id && it["connected"] == true);
            assert!(connected(&good.framework_id), "the one that reads keeps its session");
            if !connected(&id) {
                return;
            }
            assert!(sent < 1_000, "{sent} messages of {BYTES} bytes were taken for one that does not read");
        }
    };
    timeout(2 * PATIENCE, flood).await.expect("it is cut off");
    hurry.store(true, Ordering::Relaxed);
    let (told, why) = timeout(PATIENCE, reader).await.expect("its stream ends").unwrap();
    assert_eq!(why.as_deref(), Some("the stream was not read fast enough and is ended"));
    assert!(told < sent, "{told} of {sent}");
    // The other one goes on, on the stream that it has.
    agent.say(message(&good.framework_id, 3)).await;
    assert_eq!(good.until("MESSAGE").await["message"]["data"], "BwcH");
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_answered_whatever_its_client_has_not_read() {
    // More than what fits in between, and less than what may wait.
    const MESSAGES: usize = 3_000;
    const BYTES: usize = 3_000;
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    let agent = Agent::connect_with(&address, "machine-1", vec![cpus(1.0)]).await;
    let mut good = Client::subscribe(&address, None).await;
    let agent_id = good.offer().await["agent_id"]["value"].as_str().unwrap().to_owned();
    let (mut unread, id) = narrow(&address).await;
    let message = |framework_id: &str, data: Vec<u8>| {
        Up::Message(v1::ExecutorMessage {
            framework_id: framework_id.into(),
            agent_id: agent_id.clone(),
            executor_id: "e".into(),
            data: data.into(),
        })
    };
    for _ in 0..MESSAGES {
        agent.say(message(&id, vec![7; BYTES])).await;
    }
    // What came after them has arrived.
    agent.say(message(&good.framework_id, vec![7])).await;
    good.until("MESSAGE").await;
    let stream = unread.headers["mesos-stream-id"].clone();
    let headers = [JSON[0], JSON[1], ("Mesos-Stream-Id", stream.as_str())];
    let kill = json!({"type": "KILL", "framework_id": {"value": id}, "kill": {"task_id": {"value": "t"}}});
    let answer =
        crate::http::send(&address, "POST", "/api/v1/scheduler", &headers, kill.to_string().as_bytes()).await;
    assert_eq!(answer.status, 202);
    // Nor is one left waiting when the stream has ended and is not read to its end.
    let _newer = Client::subscribe(&address, Some(&id)).await;
    let answer =
        crate::http::send(&address, "POST", "/api/v1/scheduler", &headers, kill.to_string().as_bytes()).await;
    assert_eq!(answer.status, 400);
    let mut told = 0;
    while told < MESSAGES {
        let event = event(&mut unread).await.expect("all of it is there to be read");
        told += usize::from(event["type"] == "MESSAGE");
    }
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_stream_that_is_not_read_ends_and_others_are_told_all() {
    const AT_ONCE: usize = 1_000;
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    let _agent = agent_of(&address).await;
    let mut client = Client::subscribe(&address, None).await;
    let mut offer = client.offer().await;
    let ask = br#"{"type":"SUBSCRIBE"}"#;
    let mut unread = send_narrow(&address, "POST", "/api/v1", &JSON, ask).await;
    let mut read_along = crate::http::send(&address, "POST", "/api/v1", &JSON, ask).await;
    let listener = tokio::spawn(async move {
        let mut added = Vec::new();
        while let Some(event) = event(&mut read_along).await {
            if event["type"] == "TASK_ADDED" {
                let id = event["task_added"]["task"]["task_id"]["value"].as_str().unwrap().to_owned();
                let is_last = id == "last-0";
                added.push(id);
                if is_last {
                    return added;
                }
            }
        }
        panic!("the stream that is read ended after {} tasks", added.len());
    });
    let mut launched = 0;
    let flood = async {
        while read(&address, "/metrics/snapshot").await["master/operator_event_stream_subscribers"] == 2.0 {
            assert!(launched < 40 * AT_ONCE, "{launched} tasks were told to one that does not read");
            let name = format!("t{launched}");
            client.call(accept(&offer, tasks(&offer, &name, AT_ONCE, 1))).await;
            launched += AT_ONCE;
            offer = client.offer().await;
        }
    };
    timeout(3 * PATIENCE, flood).await.expect("it is ended");
    client.call(accept(&offer, tasks(&offer, "last", 1, 1))).await;
    let added = timeout(PATIENCE, listener).await.expect("it is told all in time").unwrap();
    assert_eq!(added.len(), launched + 1, "each once");
    assert_eq!(added.iter().collect::<BTreeSet<_>>().len(), launched + 1, "each once");
    // What was on its way to the other one comes, and then the end, in order.
    let mut came = 0;
    while event(&mut unread).await.is_some() {
        came += 1;
    }
    assert!(came < 2 * launched, "{came} events of {launched} tasks");
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_answer_that_is_half_read_delays_no_launch_and_is_of_its_moment() {
    const TASKS: usize = 4_000;
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    let _agent = agent_of(&address).await;
    let mut client = Client::subscribe(&address, None).await;
    let mut offer = client.offer().await;
    for n in 0..4 {
        client.call(accept(&offer, tasks(&offer, &format!("t{n}"), TASKS / 4, 3_000))).await;
        offer = client.offer().await;
    }
    let mut state = send_narrow(&address, "GET", "/state", &[], b"").await;
    assert_eq!((state.status, state.headers["transfer-encoding"].as_str()), (200, "chunked"));
    let mut body = Vec::new();
    while body.len() < 100_000 {
        body.extend(state.chunk().await.expect("the answer goes on"));
    }
    // While the rest is not read yet.
    client.call(accept(&offer, tasks(&offer, "later", 1, 1))).await;
    let running = async {
        loop {
            let update = client.until("UPDATE").await["update"]["status"].clone();
            if update["task_id"]["value"] == "later-0" {
                return update;
            }
        }
    };
    let update = timeout(PATIENCE, running).await.expect("it runs in time");
    assert_eq!(update["state"], "TASK_RUNNING");
    let unread = body.len();
    loop {
        let chunk = state.chunk().await.expect("the answer ends in order");
        if chunk.is_empty() {
            break;
        }
        body.extend(chunk);
    }
    // More than what fits in between: so the end was written after the launch, and shows what was before it.
    assert!(body.len() - unread > 8 << 20, "{} bytes", body.len());
    let state: Value = serde_json::from_slice(&body).unwrap();
    let ids = state["frameworks"][0]["tasks"].as_array().unwrap();
    assert_eq!(ids.len(), TASKS);
    assert!(ids.iter().all(|task| task["id"] != "later-0"));
    masters.stop().await;
}
