//! Schedulers of the Mesos v1 HTTP API: their streams, their calls, and what becomes of both when leaders change.

use crate::http::{Answer, send};
use crate::support::*;
use muster_master::FollowerStreams;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{sleep, timeout};

const PATH: &str = "/api/v1/scheduler";
const JSON: [(&str, &str); 2] = [("Content-Type", "application/json"), ("Accept", "application/json")];

/// A scheduler as its client library sees it.
pub(crate) struct Client {
    pub(crate) address: String,
    events: Answer,
    stream: String,
    pub(crate) framework_id: String,
}

pub(crate) fn subscribe(framework_id: Option<&str>) -> Value {
    let mut info = json!({"user": "root", "name": "test", "roles": ["web"], "failover_timeout": 600,
        "capabilities": [{"type": "MULTI_ROLE"}, {"type": "PARTITION_AWARE"}]});
    let mut call = json!({"type": "SUBSCRIBE"});
    if let Some(id) = framework_id {
        info["id"] = json!({"value": id});
        call["framework_id"] = json!({"value": id});
    }
    call["subscribe"] = json!({ "framework_info": info });
    call
}

impl Client {
    /// Subscribes at this address, which need not lead; follows redirects and waits while nobody leads, as clients do.
    pub(crate) async fn subscribe(address: &str, framework_id: Option<&str>) -> Self {
        let mut address = address.to_owned();
        let open = async {
            loop {
                let body = subscribe(framework_id).to_string();
                let answer = send(&address, "POST", PATH, &JSON, body.as_bytes()).await;
                match answer.status {
                    200 => return answer,
                    307 => address = location(&answer, "/master/api/v1/scheduler"),
                    503 => sleep(Duration::from_millis(20)).await,
                    other => panic!("{other}: {}", answer.text().await),
                }
            }
        };
        let events = timeout(PATIENCE, open).await.expect("subscribed in time");
        let stream = events.headers["mesos-stream-id"].clone();
        let mut client = Self { address, events, stream, framework_id: String::new() };
        let subscribed = client.event().await.unwrap();
        assert_eq!(subscribed["type"], "SUBSCRIBED", "{subscribed}");
        let id = subscribed["subscribed"]["framework_id"]["value"].as_str().unwrap();
        client.framework_id = id.to_owned();
        let heartbeat = client.next().await.unwrap();
        assert_eq!(heartbeat, json!({"type": "HEARTBEAT"}), "at once");
        client
    }

    async fn next(&mut self) -> Option<Value> {
        let record = self.events.record().await?;
        Some(serde_json::from_slice(&record).unwrap())
    }

    /// The next event but heartbeats.
    pub(crate) async fn event(&mut self) -> Option<Value> {
        loop {
            let event = self.next().await?;
            if event["type"] != "HEARTBEAT" {
                return Some(event);
            }
        }
    }

    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        loop {
            let event = self.event().await.unwrap_or_else(|| panic!("the stream ended before {kind}"));
            if event["type"] == kind {
                return event;
            }
        }
    }

    /// An offer, and the agent it is of.
    pub(crate) async fn offer(&mut self) -> Value {
        self.until("OFFERS").await["offers"]["offers"][0].clone()
    }

    pub(crate) async fn call_at(&self, address: &str, mut call: Value) -> (u16, String) {
        call["framework_id"] = json!({"value": self.framework_id});
        let headers = [JSON[0], JSON[1], ("Mesos-Stream-Id", self.stream.as_str())];
        let answer = send(address, "POST", PATH, &headers, call.to_string().as_bytes()).await;
        (answer.status, answer.text().await)
    }

    pub(crate) async fn call(&self, call: Value) {
        let (status, text) = self.call_at(&self.address, call.clone()).await;
        assert_eq!((status, text.as_str()), (202, ""), "{call}");
    }

    pub(crate) async fn acknowledge(&self, update: &Value) {
        let status = &update["update"]["status"];
        self.call(json!({"type": "ACKNOWLEDGE", "acknowledge": {"agent_id": status["agent_id"],
            "task_id": status["task_id"], "uuid": status["uuid"]}}))
            .await;
    }
}

/// Where a redirect points: relative to the scheme, with the name of the process.
fn location(answer: &Answer, path: &str) -> String {
    let location = &answer.headers["location"];
    location
        .strip_prefix("//")
        .and_then(|it| it.strip_suffix(path))
        .unwrap_or_else(|| panic!("{location}"))
        .to_owned()
}

pub(crate) fn task(offer: &Value, id: &str, cpus: f64) -> Value {
    json!({"name": id, "task_id": {"value": id}, "agent_id": offer["agent_id"],
        "command": {"value": "true"}, "labels": {"labels": [{"key": "a", "value": "b"}]},
        "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": cpus}}]})
}

pub(crate) fn accept(offer: &Value, tasks: Vec<Value>) -> Value {
    json!({"type": "ACCEPT", "accept": {"offer_ids": [offer["id"]], "filters": {"refuse_seconds": 0},
        "operations": [{"type": "LAUNCH", "launch": {"task_infos": tasks}}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_subscribes_launches_and_is_told() {
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    masters.leader().await;
    let mut agent = Agent::connect(&address, "machine-1").await;
    let mut client = Client::subscribe(&address, None).await;
    let offer = client.offer().await;
    for key in ["id", "framework_id", "agent_id", "hostname", "url", "resources", "allocation_info"] {
        assert!(offer.get(key).is_some(), "{key} in {offer}");
    }
    assert_eq!(offer["allocation_info"], json!({"role": "web"}));
    assert_eq!(offer["url"]["path"], "/slave(1)");
    client.call(accept(&offer, vec![task(&offer, "t1", 1.0), task(&offer, "t2", 1000.0)])).await;
    let order = agent.order().await;
    assert_eq!(order.task_id, "t1");
    // What is too large is refused by name, and nothing of it is acknowledged.
    let update = client.until("UPDATE").await;
    let (refused, running) = match update["update"]["status"]["task_id"]["value"].as_str() {
        Some("t2") => (update, client.until("UPDATE").await),
        _ => (client.until("UPDATE").await, update),
    };
    let status = &refused["update"]["status"];
    assert_eq!((&status["state"], &status["reason"]), (&json!("TASK_ERROR"), &json!("REASON_TASK_INVALID")));
    assert!(status.get("uuid").is_none(), "{status}");
    let status = &running["update"]["status"];
    assert_eq!(status["state"], "TASK_RUNNING");
    assert_eq!(status["uuid"].as_str().map(str::len), Some(24), "16 bytes: {status}");
    client.acknowledge(&running).await;
    // Repeated, late and unknown acknowledgements are nothing to fail for.
    client.acknowledge(&running).await;
    client.call(json!({"type": "RECONCILE", "reconcile": {"tasks": []}})).await;
    let told = client.until("UPDATE").await;
    assert_eq!(told["update"]["status"]["reason"], "REASON_RECONCILIATION");
    assert!(told["update"]["status"].get("uuid").is_none(), "{told}");
    client.call(json!({"type": "KILL", "kill": {"task_id": {"value": "t1"}}})).await;
    timeout(PATIENCE, agent.kills.recv()).await.unwrap().unwrap();
    client.call(json!({"type": "TEARDOWN"})).await;
    assert_eq!(
        client.call_at(&address, json!({"type": "REVIVE"})).await,
        (400, "Framework cannot be found".into())
    );
    // Its id is of no use any more, which is told on a stream.
    let id = client.framework_id.clone();
    let body = subscribe(Some(&id)).to_string();
    let mut answer = send(&address, "POST", PATH, &JSON, body.as_bytes()).await;
    let event: Value = serde_json::from_slice(&answer.record().await.unwrap()).unwrap();
    assert_eq!(event, json!({"type": "ERROR", "error": {"message": "Framework has been removed"}}));
    assert_eq!(answer.record().await, None, "and ends");
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_subscription_ends_the_former_and_its_calls() {
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    masters.leader().await;
    let mut former = Client::subscribe(&address, None).await;
    let newer = Client::subscribe(&address, Some(&former.framework_id.clone())).await;
    assert_eq!(newer.framework_id, former.framework_id);
    let error = former.until("ERROR").await;
    assert_eq!(error["error"]["message"], "Framework failed over");
    assert!(former.event().await.is_none(), "the former stream ends");
    let (status, text) = former.call_at(&address, json!({"type": "REVIVE"})).await;
    assert!(status == 400 && text.contains("didn't match the stream ID"), "{status} {text}");
    newer.call(json!({"type": "REVIVE"})).await;
    // Who closes its stream is not subscribed.
    let Client { framework_id, stream, events, .. } = newer;
    drop(events);
    let call = json!({"type": "REVIVE", "framework_id": {"value": framework_id}}).to_string();
    let headers = [JSON[0], ("Mesos-Stream-Id", stream.as_str())];
    let refused = async {
        loop {
            let answer = send(&address, "POST", PATH, &headers, call.as_bytes()).await;
            match answer.status {
                202 => sleep(Duration::from_millis(10)).await, // the master has not noticed yet
                status => return (status, answer.text().await),
            }
        }
    };
    let refused = timeout(PATIENCE, refused).await.unwrap();
    assert_eq!(refused, (403, "Framework is not subscribed".into()));
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_work_at_any_master_and_outlive_the_leader() {
    let mut masters = Masters::start(3).await;
    let followers = masters.followers().await;
    let mut agent = Agent::connect(&followers[0], "machine-1").await;
    let mut client = Client::subscribe(&followers[0], None).await;
    assert!(!followers.contains(&client.address), "it was sent to the leader");
    let offer = client.offer().await;
    let launch = accept(&offer, vec![task(&offer, "t1", 1.0)]);
    assert_eq!(client.call_at(&followers[1], launch).await, (202, String::new()), "a follower hands it on");
    assert_eq!(agent.order().await.task_id, "t1");
    let running = client.until("UPDATE").await;
    // The leader stops: the stream ends in order, and what is called goes to the next one.
    let leader = masters.leader().await;
    let (serving, _) = masters.running.remove(&leader).unwrap();
    timeout(PATIENCE, serving.stop()).await.expect("it stops");
    while client.event().await.is_some() {}
    client.address = followers[0].clone();
    client.call(json!({"type": "KILL", "kill": {"task_id": {"value": "t1"}}})).await;
    timeout(PATIENCE, agent.kills.recv()).await.unwrap().unwrap();
    // It subscribes again, with its id, and is told what it has not acknowledged.
    let mut again = Client::subscribe(&followers[0], Some(&client.framework_id)).await;
    assert_eq!(again.framework_id, client.framework_id);
    let told = again.until("UPDATE").await;
    assert_eq!(told["update"]["status"]["uuid"], running["update"]["status"]["uuid"]);
    let (status, text) = client.call_at(&followers[0], json!({"type": "REVIVE"})).await;
    assert!(status == 400 && text.contains("didn't match the stream ID"), "{status} {text}");
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_a_follower_carries_outlives_the_leader() {
    let mut masters =
        Masters::configured(3, |config| config.api.follower_streams = FollowerStreams::Forward).await;
    let followers = masters.followers().await;
    let mut agent = Agent::connect(&followers[0], "machine-1").await;
    let mut client = Client::subscribe(&followers[1], None).await;
    assert_eq!(client.address, followers[1], "it was not sent elsewhere");
    let offer = client.offer().await;
    client.call(accept(&offer, vec![task(&offer, "t1", 1.0)])).await;
    assert_eq!(agent.order().await.task_id, "t1");
    let running = client.until("UPDATE").await;
    // Calls at another master reach the leader, and their answers the stream.
    let ask = json!({"type": "RECONCILE", "reconcile": {"tasks": [{"task_id": {"value": "t9"}}]}});
    assert_eq!(client.call_at(&followers[0], ask.clone()).await, (202, String::new()));
    let told = client.until("UPDATE").await;
    assert_eq!(told["update"]["status"]["state"], "TASK_UNKNOWN", "{told}");
    let leader = masters.leader().await;
    let (serving, _) = masters.running.remove(&leader).unwrap();
    timeout(PATIENCE, serving.stop()).await.expect("it stops");
    // The same stream: the next leader tells it what waits, and offers.
    let told = client.until("UPDATE").await;
    assert_eq!(told["update"]["status"]["uuid"], running["update"]["status"]["uuid"]);
    client.acknowledge(&told).await;
    let offer = client.offer().await;
    client.call(accept(&offer, vec![task(&offer, "t2", 1.0)])).await;
    assert_eq!(agent.order().await.task_id, "t2");
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_call_is_refused_in_order() {
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    // It serves from here on.
    let _client = Client::subscribe(&address, None).await;
    let asked = async |method: &str, headers: &[(&str, &str)], body: &str| {
        let answer = send(&address, method, PATH, headers, body.as_bytes()).await;
        (answer.status, answer.text().await)
    };
    assert_eq!(asked("GET", &[], "").await.0, 405);
    assert_eq!(asked("POST", &[], "{}").await, (400, "Expecting 'Content-Type' to be present".into()));
    assert_eq!(asked("POST", &[("Content-Type", "text/plain")], "{}").await.0, 415);
    let (status, text) = asked("POST", &JSON, "{").await;
    assert!(status == 400 && text.starts_with("Failed to parse body into JSON: "), "{text}");
    let (status, text) = asked("POST", &JSON, "{}").await;
    assert_eq!((status, &*text), (400, "Failed to validate scheduler::Call: Expecting 'type' to be present"));
    let body = subscribe(None).to_string();
    assert_eq!(asked("POST", &[JSON[0], ("Accept", "text/html")], &body).await.0, 406);
    let (status, text) = asked("POST", &[JSON[0], ("Mesos-Stream-Id", "x")], &body).await;
    assert!(status == 400 && text.contains("should not include"), "{text}");
    let huge = "x".repeat(5 << 20);
    assert_eq!(asked("POST", &JSON, &huge).await.0, 413);
    // Refused on the stream.
    let mut bad = subscribe(None);
    bad["subscribe"]["framework_info"]["roles"] = json!(["a//b"]);
    let mut answer = send(&address, "POST", PATH, &JSON, bad.to_string().as_bytes()).await;
    let event: Value = serde_json::from_slice(&answer.record().await.unwrap()).unwrap();
    assert_eq!(event["type"], "ERROR", "{event}");
    assert_eq!(answer.record().await, None);
    masters.stop().await;
}
