//! What operators set, over HTTP/1.1: that it acts, and that it outlives leaders.

use crate::events::{Client, accept, task};
use crate::http::send;
use crate::reads::{ask, call, get, read, until};
use crate::support::*;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Asks for something that is done.
async fn done(address: &str, asked: Value) {
    assert_eq!(call(address, asked.clone()).await, (200, String::new()), "{asked}");
}

async fn refused(address: &str, asked: Value, begins: &str) {
    let (status, text) = call(address, asked.clone()).await;
    assert!(status == 400 && text.starts_with(begins), "{asked}: {status} {text}");
}

async fn legacy(address: &str, method: &str, path: &str, body: &Value) -> (u16, String) {
    let answer = send(address, method, path, &[], body.to_string().as_bytes()).await;
    (answer.status, answer.text().await)
}

fn drain(agent: &Value, mark_gone: bool) -> Value {
    let grace = json!({"seconds": 1, "nanos": 500_000_000});
    json!({"type": "DRAIN_AGENT",
        "drain_agent": {"agent_id": agent, "max_grace_period": grace, "mark_gone": mark_gone}})
}

fn of_agent(kind: &str, agent: &Value) -> Value {
    json!({"type": kind, kind.to_lowercase(): {"agent_id": agent}})
}

/// Waits until the only agent is shown so.
async fn until_agent(address: &str, is: impl Fn(&Value) -> bool) -> Value {
    let shown = async {
        loop {
            let agents = ask(address, "GET_AGENTS").await;
            match agents["agents"].get(0) {
                Some(agent) if is(agent) => return agent.clone(),
                _ => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    timeout(PATIENCE, shown).await.expect("it is shown so in time")
}

/// The first offer and the first update that come, in whatever order.
async fn offer_and_update(client: &mut Client) -> (Value, Value) {
    let (mut offer, mut update) = (None, None);
    while offer.is_none() || update.is_none() {
        let event = client.event().await.expect("the stream is open");
        match event["type"].as_str() {
            Some("OFFERS") => offer = Some(event["offers"]["offers"][0].clone()),
            Some("UPDATE") => update = Some(event),
            _ => {}
        }
    }
    (offer.unwrap(), update.unwrap())
}

fn schedule(start: u64) -> Value {
    json!({"windows": [{"machine_ids": [{"hostname": "host"}, {"hostname": "other", "ip": "10.0.0.9"}],
        "unavailability": {"start": {"nanoseconds": start}, "duration": {"nanoseconds": 3_600}}}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_operators_set_outlives_the_leader() {
    let mut masters = Masters::start(3).await;
    let leader = masters.leader().await;
    let address = masters.address(&leader);
    until(&address, 200).await;
    let _agent = Agent::connect(&masters.followers().await.remove(0), "machine-1").await;
    let agent = until_agent(&address, |agent| agent["active"] == true).await["agent_info"]["id"].clone();
    let weights = json!([{"role": "web", "weight": 2.5}, {"role": "web/a", "weight": 0.5}]);
    assert_eq!(legacy(&address, "PUT", "/weights", &weights).await, (200, String::new()));
    let quota =
        json!([{"role": "web", "guarantees": {"cpus": {"value": 1}}, "limits": {"cpus": {"value": 2.5}}}]);
    done(&address, json!({"type": "UPDATE_QUOTA", "update_quota": {"quota_configs": quota}})).await;
    assert_eq!(legacy(&address, "POST", "/maintenance/schedule", &schedule(100)).await, (200, String::new()));
    done(&address, of_agent("DEACTIVATE_AGENT", &agent)).await;

    masters.running.remove(&leader).unwrap().0.stop().await;
    let address = masters.address(&masters.leader().await);
    until(&address, 200).await;
    assert_eq!(read(&address, "/weights").await, weights);
    assert_eq!(
        read(&address, "/quota").await,
        json!({"infos": [{"role": "web", "guarantee": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.0}}]}],
            "configs": [{"role": "web", "guarantees": {"cpus": {"value": 1.0}}, "limits": {"cpus": {"value": 2.5}}}]})
    );
    let roles = read(&address, "/roles").await;
    let web = &roles["roles"][0];
    assert_eq!((&web["name"], &web["weight"]), (&json!("web"), &json!(2.5)), "{roles}");
    assert_eq!(web["quota"]["guarantee"], json!({"cpus": 1.0}));
    assert_eq!(web["quota"]["limit"], json!({"cpus": 2.5}));
    assert_eq!(read(&address, "/maintenance/schedule").await, schedule(100));
    let machines = json!([{"id": {"hostname": "host"}}, {"id": {"hostname": "other", "ip": "10.0.0.9"}}]);
    assert_eq!(read(&address, "/maintenance/status").await, json!({"draining_machines": machines}));
    // It is back, and is not offered: whoever subscribes is offered nothing before it is said so.
    let back = until_agent(&address, |agent| agent["deactivated"] == true).await;
    assert_eq!(back["active"], false);
    done(
        &address,
        json!({"type": "UPDATE_MAINTENANCE_SCHEDULE", "update_maintenance_schedule": {"schedule": {}}}),
    )
    .await;
    let mut client = Client::subscribe(&address, None).await;
    client.call(json!({"type": "REVIVE"})).await;
    done(&address, of_agent("REACTIVATE_AGENT", &agent)).await;
    assert_eq!(client.offer().await["agent_id"], agent);
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_drained_and_offered_again() {
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    masters.leader().await;
    let mut agent = Agent::connect(&address, "machine-1").await;
    let mut client = Client::subscribe(&address, None).await;
    let offer = client.offer().await;
    let id = offer["agent_id"].clone();
    client.call(accept(&offer, vec![task(&offer, "t1", 1.0)])).await;
    let order = agent.order().await;
    let (rest, running) = offer_and_update(&mut client).await;
    client.acknowledge(&running).await;
    done(&address, drain(&id, false)).await;
    assert_eq!(client.until("RESCIND").await["rescind"]["offer_id"], rest["id"]);
    let shown = ask(&address, "GET_AGENTS").await["agents"][0].clone();
    assert_eq!((&shown["active"], &shown["deactivated"]), (&json!(false), &json!(true)));
    let config = json!({"max_grace_period": {"nanoseconds": 1_500_000_000}, "mark_gone": false});
    assert_eq!(shown["drain_info"], json!({"state": "DRAINING", "config": config}));
    assert!(shown["estimated_drain_start_time"]["nanoseconds"].as_u64() > Some(1_500_000_000_000_000_000));
    refused(&address, of_agent("REACTIVATE_AGENT", &id), "Agent is still in the DRAINING state").await;
    assert_eq!(agent.kill(&order).await.grace_ms, Some(1_500));
    let killed = client.until("UPDATE").await;
    assert_eq!(killed["update"]["status"]["state"], "TASK_KILLED");
    // It has something until that is acknowledged.
    assert_eq!(ask(&address, "GET_AGENTS").await["agents"][0]["drain_info"]["state"], "DRAINING");
    client.acknowledge(&killed).await;
    let drained = read(&address, "/slaves").await["slaves"][0].clone();
    assert_eq!(drained["drain_info"], json!({"state": "DRAINED", "config": config}));
    assert_eq!((&drained["active"], &drained["deactivated"]), (&json!(false), &json!(true)));
    let state = read(&address, "/state").await;
    assert_eq!((&state["activated_slaves"], &state["deactivated_slaves"]), (&json!(0.0), &json!(1.0)));
    done(&address, of_agent("REACTIVATE_AGENT", &id)).await;
    assert_eq!(client.offer().await["agent_id"], id);
    assert!(ask(&address, "GET_AGENTS").await["agents"][0].get("drain_info").is_none());
    refused(&address, of_agent("REACTIVATE_AGENT", &id), "Agent is not deactivated").await;
    // One that is empty is gone at once, where that is asked for.
    done(&address, drain(&id, true)).await;
    assert_eq!(client.until("FAILURE").await["failure"]["agent_id"], id);
    assert_eq!(ask(&address, "GET_AGENTS").await["agents"], json!([]));
    refused(&address, drain(&id, false), "Unknown agent").await;
    refused(&address, of_agent("DEACTIVATE_AGENT", &json!({"value": "nope"})), "Unknown agent").await;
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_go_down_and_come_back() {
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    masters.leader().await;
    let mut agent = Agent::connect(&address, "machine-1").await;
    let mut client = Client::subscribe(&address, None).await;
    let offer = client.offer().await;
    assert!(offer.get("unavailability").is_none());
    let id = offer["agent_id"].clone();
    client.call(accept(&offer, vec![task(&offer, "t1", 1.0)])).await;
    agent.order().await;
    let (_, running) = offer_and_update(&mut client).await;
    client.acknowledge(&running).await;
    let update = json!({"type": "UPDATE_MAINTENANCE_SCHEDULE", "update_maintenance_schedule": {"schedule": schedule(100)}});
    done(&address, update).await;
    refused(
        &address,
        drain(&id, false),
        &format!("Agent {} is part of a maintenance", id["value"].as_str().unwrap()),
    )
    .await;
    // What it had is rescinded, and comes back with a word of it.
    client.until("RESCIND").await;
    let unavailability = json!({"start": {"nanoseconds": 100}, "duration": {"nanoseconds": 3_600}});
    assert_eq!(client.offer().await["unavailability"], unavailability);
    let asked = client.until("INVERSE_OFFERS").await["inverse_offers"]["inverse_offers"][0].clone();
    assert_eq!((&asked["agent_id"], &asked["unavailability"]), (&id, &unavailability));
    assert_eq!(asked["framework_id"]["value"], client.framework_id);
    let shown = ask(&address, "GET_FRAMEWORKS").await;
    assert_eq!(shown["frameworks"][0]["inverse_offers"][0], asked);
    client
        .call(json!({"type": "DECLINE_INVERSE_OFFERS",
            "decline_inverse_offers": {"inverse_offer_ids": [asked["id"]], "filters": {"refuse_seconds": 0}}}))
        .await;
    // Asked again, it changes its mind.
    let again = client.until("INVERSE_OFFERS").await["inverse_offers"]["inverse_offers"][0].clone();
    let status = async |address: &str| {
        let status = ask(address, "GET_MAINTENANCE_STATUS").await;
        status["status"]["draining_machines"][0]["statuses"].clone()
    };
    assert_eq!(status(&address).await[0]["status"], "DECLINE");
    client
        .call(json!({"type": "ACCEPT_INVERSE_OFFERS",
            "accept_inverse_offers": {"inverse_offer_ids": [again["id"]], "filters": {"refuse_seconds": 600}}}))
        .await;
    let accepted = status(&address).await;
    assert_eq!((accepted.as_array().map(Vec::len), &accepted[0]["status"]), (Some(1), &json!("ACCEPT")));
    assert_eq!(accepted[0]["framework_id"]["value"], client.framework_id);

    let host = json!([{"hostname": "HOST"}]);
    assert_eq!(legacy(&address, "POST", "/machine/up", &host).await.0, 400, "it is not down");
    assert_eq!(legacy(&address, "POST", "/machine/down", &host).await, (200, String::new()));
    let mut told = [client.until("UPDATE").await, client.until("FAILURE").await];
    let status = told[0]["update"]["status"].take();
    assert_eq!((&status["state"], &status["reason"]), (&json!("TASK_LOST"), &json!("REASON_AGENT_REMOVED")));
    assert_eq!(told[1]["failure"]["agent_id"], id);
    let down = read(&address, "/maintenance/status").await;
    assert_eq!(down["down_machines"], json!([{"hostname": "host"}]));
    assert_eq!(read(&address, "/slaves").await["slaves"], json!([]));
    // None comes from there before it is up.
    let mut late = Agent::connect(&address, "machine-1").await;
    assert_eq!(timeout(PATIENCE, late.orders.recv()).await.unwrap(), None, "it is refused");
    let stop = json!({"type": "STOP_MAINTENANCE", "stop_maintenance": {"machines": host}});
    done(&address, stop.clone()).await;
    refused(&address, stop, "Machine '{\"hostname\":\"HOST\"}' is not part of a maintenance schedule").await;
    let left = json!([{"hostname": "other", "ip": "10.0.0.9"}]);
    assert_eq!(read(&address, "/maintenance/schedule").await["windows"][0]["machine_ids"], left);
    let _back = Agent::connect(&address, "machine-1").await;
    assert!(client.offer().await.get("unavailability").is_none());
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_and_weights_are_checked() {
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    masters.leader().await;
    until(&address, 200).await;
    let set = |force: bool| {
        let guarantee = json!([{"name": "cpus", "type": "SCALAR", "scalar": {"value": 3}}]);
        json!({"role": "web", "guarantee": guarantee, "force": force})
    };
    let (status, text) = legacy(&address, "POST", "/quota", &set(false)).await;
    assert!(status == 409 && text.starts_with("Quota guarantees overcommit the cluster"), "{status} {text}");
    assert_eq!(legacy(&address, "POST", "/quota", &set(true)).await, (200, String::new()));
    let call = json!({"type": "SET_QUOTA", "set_quota": {"quota_request": set(true)}});
    let has = "Failed to validate set quota request: Cannot set quota for role 'web' which already has quota";
    refused(&address, call, has).await;
    let amounts = json!({"cpus": {"value": 3.0}});
    let config = json!([{"role": "web", "guarantees": amounts, "limits": amounts}]);
    assert_eq!(ask(&address, "GET_QUOTA").await["status"]["configs"], config);
    let more = json!({"quota_configs": [{"role": "other", "guarantees": amounts}]});
    let more = json!({"type": "UPDATE_QUOTA", "update_quota": more});
    refused(
        &address,
        more,
        "Invalid QuotaConfig: total quota guarantees 'cpus:6' exceed cluster capacity '{}'",
    )
    .await;
    let metrics = read(&address, "/metrics/snapshot").await;
    assert_eq!(metrics["allocator/mesos/quota/roles/web/resources/cpus/limit"], 3.0);
    let remove = json!({"type": "REMOVE_QUOTA", "remove_quota": {"role": "web"}});
    assert_eq!(legacy(&address, "DELETE", "/master/quota/web", &json!("")).await, (200, String::new()));
    refused(&address, remove, "Failed to remove quota: Role 'web' has no quota set").await;
    let (status, text) = legacy(&address, "DELETE", "/quota/web", &json!("")).await;
    assert_eq!(
        (status, &*text),
        (400, "Failed to remove quota for path '/master/quota/web': Role 'web' has no quota set")
    );
    for (method, path) in
        [("DELETE", "/weights"), ("PUT", "/quota"), ("GET", "/machine/down"), ("PUT", "/machine/up")]
    {
        assert_eq!(legacy(&address, method, path, &json!([])).await.0, 405, "{method} {path}");
    }
    assert_eq!(get(&address, "/quota").await.text().await, "{}");
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offer_holds_no_more_than_a_limit_leaves() {
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    masters.leader().await;
    until(&address, 200).await;
    let limit = |cpus: f64| {
        let quota = json!([{"role": "web", "limits": {"cpus": {"value": cpus}}}]);
        json!({"type": "UPDATE_QUOTA", "update_quota": {"quota_configs": quota}})
    };
    done(&address, limit(1.5)).await;
    let mut agent = Agent::connect(&address, "machine-1").await;
    let mut client = Client::subscribe(&address, None).await;
    let cpus = |offer: &Value| {
        let resources = offer["resources"].as_array().unwrap();
        let cpus = resources.iter().find(|it| it["name"] == "cpus");
        cpus.map_or(0.0, |it| it["scalar"]["value"].as_f64().unwrap())
    };
    let offer = client.offer().await;
    assert_eq!(cpus(&offer), 1.5, "{offer}");
    client.call(accept(&offer, vec![task(&offer, "t1", 1.0)])).await;
    let (rest, running) = offer_and_update(&mut client).await;
    client.acknowledge(&running).await;
    agent.order().await;
    assert!(cpus(&rest) <= 0.5, "{rest}");
    refused(&address, limit(0.5), "Invalid QuotaConfig: Role 'web' is already consuming 'cpus:1'").await;
    // Another limit: what stands is rescinded, and the next offer holds what is left by it.
    done(&address, limit(3.0)).await;
    client.until("RESCIND").await;
    let mut next = client.offer().await;
    while cpus(&next) < 2.0 {
        next = client.offer().await;
    }
    assert_eq!(cpus(&next), 2.0, "{next}");
    masters.stop().await;
}
