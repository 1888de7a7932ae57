//! Reservations, persistent volumes and task groups, out of offers and by operators, over the Mesos v1 HTTP API.

use crate::events::{Client, task};
use crate::http::send;
use crate::reads::{ask, call, post, read};
use crate::support::*;
use muster_proto::mesos;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{sleep, timeout};

fn scalar(name: &str, value: f64) -> Value {
    json!({"name": name, "type": "SCALAR", "scalar": {"value": value}})
}

/// Reserved in the older form, which a framework without RESERVATION_REFINEMENT speaks.
fn reserved(name: &str, value: f64) -> Value {
    let mut resource = scalar(name, value);
    (resource["role"], resource["reservation"]) = (json!("web"), json!({"principal": "ops"}));
    resource
}

fn volume(value: f64, path: &str) -> Value {
    let mut disk = reserved("disk", value);
    disk["disk"] = json!({"persistence": {"id": "db", "principal": "ops"},
        "volume": {"mode": "RW", "container_path": path}});
    disk
}

fn accept(offer: &Value, operations: Vec<Value>) -> Value {
    json!({"type": "ACCEPT", "accept": {"offer_ids": [offer["id"]], "filters": {"refuse_seconds": 0},
        "operations": operations}})
}

fn reserve(id: &str, resources: Vec<Value>) -> Value {
    json!({"type": "RESERVE", "id": {"value": id}, "reserve": {"resources": resources}})
}

/// Of an offer, what stands there of this name: the amount and for which role it is reserved.
fn amounts(offer: &Value, name: &str) -> Vec<(f64, String)> {
    let all = offer["resources"].as_array().unwrap();
    let amount = |it: &Value| (it["scalar"]["value"].as_f64().unwrap(), it["role"].as_str().unwrap().into());
    all.iter().filter(|it| it["name"] == name).map(amount).collect()
}

fn on_disk(mb: f64) -> Vec<mesos::Resource> {
    let scalar = |name: &str, value| mesos::Resource {
        name: name.into(),
        scalar: Some(mesos::value::Scalar { value }),
        ..Default::default()
    };
    vec![scalar("cpus", 4.0), scalar("mem", 1000.0), scalar("disk", mb)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_framework_reserves_is_its_own_and_outlives_the_leader() {
    let mut masters = Masters::start(3).await;
    let followers = masters.followers().await;
    let mut agent = Agent::connect_with(&followers[0], "machine-1", on_disk(100.0)).await;
    let mut client = Client::subscribe(&followers[0], None).await;
    let offer = client.offer().await;
    let mut launched = task(&offer, "t1", 0.5);
    launched["resources"] = json!([reserved("cpus", 1.0), volume(40.0, "elsewhere")]);
    client
        .call(accept(
            &offer,
            vec![
                reserve("r1", vec![reserved("cpus", 2.0), reserved("disk", 40.0)]),
                json!({"type": "CREATE", "id": {"value": "v1"}, "create": {"volumes": [volume(40.0, "data")]}}),
                json!({"type": "LAUNCH", "launch": {"task_infos": [launched]}}),
                reserve("too-much", vec![reserved("cpus", 9.0)]),
            ],
        ))
        .await;
    // The agent is told of the volume by its number, at the place where the task wants it.
    let order = agent.order().await;
    assert_eq!(order.task_id, "t1");
    assert_eq!(order.volumes.len(), 1, "{order:?}");
    assert_eq!(order.volumes[0].container_path, "elsewhere");
    let mut told = std::collections::BTreeMap::new();
    while told.len() < 3 {
        let status =
            client.until("UPDATE_OPERATION_STATUS").await["update_operation_status"]["status"].clone();
        told.insert(status["operation_id"]["value"].as_str().unwrap().to_owned(), status);
    }
    let (r1, v1, too_much) = (&told["r1"], &told["v1"], &told["too-much"]);
    assert_eq!((&r1["state"], &v1["state"]), (&json!("OPERATION_FINISHED"), &json!("OPERATION_FINISHED")));
    assert_eq!(r1["uuid"]["value"].as_str().map(str::len), Some(24), "16 bytes: {r1}");
    assert_eq!(too_much["state"], "OPERATION_ERROR");
    assert!(too_much.get("uuid").is_none() && too_much.get("agent_id").is_none(), "{too_much}");
    let acknowledge = |status: &Value| {
        json!({"type": "ACKNOWLEDGE_OPERATION_STATUS", "acknowledge_operation_status": {
            "agent_id": status["agent_id"], "operation_id": status["operation_id"],
            "uuid": status["uuid"]["value"]}})
    };
    client.call(acknowledge(r1)).await;
    client.call(acknowledge(r1)).await;
    // What is left is offered: reserved and plain apart.
    let offer = client.offer().await;
    assert_eq!(amounts(&offer, "cpus"), [(2.0, "*".into()), (1.0, "web".into())]);
    assert_eq!(amounts(&offer, "disk"), [(60.0, "*".into())]);
    let leader = client.address.clone();
    let shown = read(&leader, "/slaves").await["slaves"][0].clone();
    assert_eq!(shown["reserved_resources"]["web"]["cpus"], 2.0, "{shown}");
    assert_eq!(shown["unreserved_resources"]["disk"], 60.0, "{shown}");
    assert_eq!(shown["resources"]["disk"], 100.0, "{shown}");
    let full = shown["reserved_resources_full"]["web"].as_array().unwrap();
    assert!(full.iter().any(|it| it["disk"]["persistence"]["id"] == "db"), "{shown}");
    let operations = ask(&leader, "GET_OPERATIONS").await["operations"].clone();
    assert_eq!(operations.as_array().unwrap().len(), 1, "r1 is acknowledged: {operations}");
    assert_eq!(operations[0]["info"]["create"]["volumes"][0]["disk"]["persistence"]["id"], "db");
    // All of it is so under the next leader; and what waits is told again.
    let name = masters.leader().await;
    let (serving, _) = masters.running.remove(&name).unwrap();
    timeout(PATIENCE, serving.stop()).await.expect("it stops");
    while client.event().await.is_some() {}
    let mut again = Client::subscribe(&followers[0], Some(&client.framework_id)).await;
    let repeated = again.until("UPDATE_OPERATION_STATUS").await["update_operation_status"]["status"].clone();
    assert_eq!(&repeated, v1);
    again.call(acknowledge(&repeated)).await;
    let offer = again.offer().await;
    assert_eq!(amounts(&offer, "cpus"), [(2.0, "*".into()), (1.0, "web".into())]);
    // Explicitly asked for: what is known no more, and what never was.
    again
        .call(json!({"type": "RECONCILE_OPERATIONS", "reconcile_operations": {"operations": [
            {"operation_id": {"value": "v1"}, "agent_id": offer["agent_id"]}]}}))
        .await;
    let status = again.until("UPDATE_OPERATION_STATUS").await["update_operation_status"]["status"].clone();
    assert_eq!(status["state"], "OPERATION_UNKNOWN", "{status}");
    // A volume in use is not destroyed.
    let destroy =
        json!({"type": "DESTROY", "id": {"value": "d1"}, "destroy": {"volumes": [volume(40.0, "x")]}});
    let unreserve = json!({"type": "UNRESERVE", "id": {"value": "u1"},
        "unreserve": {"resources": [reserved("cpus", 1.0)]}});
    again.call(accept(&offer, vec![destroy, unreserve])).await;
    let mut states = std::collections::BTreeMap::new();
    while states.len() < 2 {
        let status =
            again.until("UPDATE_OPERATION_STATUS").await["update_operation_status"]["status"].clone();
        states.insert(status["operation_id"]["value"].as_str().unwrap().to_owned(), status["state"].clone());
    }
    assert_eq!(states["d1"], "OPERATION_ERROR");
    assert_eq!(states["u1"], "OPERATION_FINISHED");
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_launched_whole_or_not_at_all() {
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    masters.leader().await;
    let mut agent = Agent::connect_with(&address, "machine-1", on_disk(100.0)).await;
    let mut client = Client::subscribe(&address, None).await;
    let offer = client.offer().await;
    let executor = |kind: &str, disk: f64| {
        json!({"executor_id": {"value": "e1"}, "type": kind, "command": {"value": "run"},
            "resources": [scalar("cpus", 0.1), scalar("mem", 32.0), scalar("disk", disk)]})
    };
    let group = |offer: &Value, executor: Value, ids: [&str; 2], cpus: f64| {
        let task = |id: &str| {
            let mut task = task(offer, id, cpus);
            task.as_object_mut().unwrap().remove("command");
            task
        };
        accept(
            offer,
            vec![json!({"type": "LAUNCH_GROUP", "launch_group": {"executor": executor,
                "task_group": {"tasks": [task(ids[0]), task(ids[1])]}}})],
        )
    };
    let refused = [
        (executor("CUSTOM", 0.0), 1.0, "uses no disk"),
        (executor("DEFAULT", 8.0), 1.0, "DEFAULT"),
        (executor("CUSTOM", 8.0), 3.0, "but the offers have"),
    ];
    let mut offer = offer;
    for (executor, cpus, why) in refused {
        client.call(group(&offer, executor, ["a", "b"], cpus)).await;
        for _ in 0..2 {
            let status = client.until("UPDATE").await["update"]["status"].clone();
            assert_eq!(
                (&status["state"], &status["reason"]),
                (&json!("TASK_ERROR"), &json!("REASON_TASK_GROUP_INVALID"))
            );
            assert!(status["message"].as_str().unwrap().contains(why), "{status}");
        }
        offer = client.offer().await;
    }
    client.call(group(&offer, executor("CUSTOM", 8.0), ["t1", "t2"], 1.0)).await;
    let (one, two) = (agent.order().await, agent.order().await);
    assert_eq!((one.task_id.as_str(), two.task_id.as_str()), ("t1", "t2"));
    let of = one.group.unwrap();
    assert_eq!((of.first, of.size), (one.launch, 2));
    assert_eq!(two.group, one.group);
    assert!(one.framework_info.is_some(), "they run in an executor");
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_reserve_what_nobody_holds() {
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    masters.leader().await;
    let _agent = Agent::connect_with(&address, "machine-1", on_disk(100.0)).await;
    let mut client = Client::subscribe(&address, None).await;
    let offer = client.offer().await;
    let id = offer["agent_id"]["value"].as_str().unwrap();
    let dynamic = |name: &str, value: f64| {
        let mut resource = scalar(name, value);
        resource["reservations"] = json!([{"type": "DYNAMIC", "role": "web", "principal": "ops"}]);
        resource
    };
    let reserve = |id: &str, resource: Value| {
        json!({"type": "RESERVE_RESOURCES", "reserve_resources": {"agent_id": {"value": id},
            "resources": [resource]}})
    };
    for (asked, status, begins) in [
        (reserve("nope", dynamic("cpus", 1.0)), 400, "No agent found with specified ID"),
        (reserve(id, scalar("cpus", 1.0)), 400, "Invalid RESERVE operation on agent"),
        (reserve(id, dynamic("cpus", 9.0)), 409, "'"),
        (reserve(id, dynamic("cpus", 1.0)), 202, ""),
    ] {
        let (it, text) = call(&address, asked.clone()).await;
        assert!(it == status && text.starts_with(begins), "{asked}: {it} {text}");
    }
    // The offer that stood in the way is void, and what is reserved is offered to the role.
    client.until("RESCIND").await;
    let reserved = async {
        loop {
            let offer = client.offer().await;
            if amounts(&offer, "cpus").contains(&(1.0, "web".into())) {
                return;
            }
            client
                .call(json!({"type": "DECLINE", "decline": {"offer_ids": [offer["id"]],
                "filters": {"refuse_seconds": 0}}}))
                .await;
        }
    };
    timeout(PATIENCE, reserved).await.expect("it is offered in time");
    // The same by the legacy endpoints.
    let form = |name: &str, list: Value| {
        let list: String = list.to_string().bytes().map(|byte| format!("%{byte:02x}")).collect();
        format!("slaveId={id}&{name}={list}")
    };
    let mut made = dynamic("disk", 10.0);
    made["disk"] = json!({"persistence": {"id": "db"}, "volume": {"mode": "RW", "container_path": "data"}});
    for (path, body) in [
        ("/reserve", form("resources", json!([dynamic("disk", 10.0)]))),
        ("/master/create-volumes", form("volumes", json!([made.clone()]))),
    ] {
        assert_eq!(post(&address, path, &[], &body).await, (202, String::new()), "{path}");
    }
    let (status, text) = post(&address, "/unreserve", &[], &form("resources", json!([made.clone()]))).await;
    assert!(status == 400 && text.contains("destroy the persistent volume first"), "{status} {text}");
    for (path, body) in [
        ("/destroy-volumes", form("volumes", json!([made]))),
        ("/unreserve", form("resources", json!([dynamic("disk", 10.0)]))),
    ] {
        assert_eq!(post(&address, path, &[], &body).await, (202, String::new()), "{path}");
    }
    // What is reserved is reserved for another role, in one step: by the call, and back by the form.
    let other = |name: &str, value: f64| {
        let mut resource = dynamic(name, value);
        resource["reservations"][0]["role"] = json!("blue");
        resource
    };
    let again = |from: Value, to: Value| {
        json!({"type": "RESERVE_RESOURCES", "reserve_resources": {"agent_id": {"value": id},
            "source": [from], "resources": [to]}})
    };
    for (asked, status, part) in [
        (again(dynamic("cpus", 1.0), other("cpus", 2.0)), 400, "is not as much as"),
        (again(other("cpus", 1.0), dynamic("cpus", 1.0)), 409, "does not contain"),
        (again(dynamic("cpus", 1.0), other("cpus", 1.0)), 202, ""),
    ] {
        let (it, text) = call(&address, asked.clone()).await;
        assert!(it == status && text.contains(part), "{asked}: {it} {text}");
    }
    let reserved = read(&address, "/slaves").await["slaves"][0]["reserved_resources"].clone();
    assert_eq!((&reserved["blue"]["cpus"], reserved.get("web")), (&json!(1.0), None), "{reserved}");
    let source = json!([other("cpus", 1.0)]).to_string();
    let source: String = source.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let back = format!("{}&source={source}", form("resources", json!([dynamic("cpus", 1.0)])));
    assert_eq!(post(&address, "/reserve", &[], &back).await, (202, String::new()));
    let (status, text) = post(&address, "/reserve", &[], &format!("{back}%5d")).await;
    assert!(status == 400 && text.contains("'source'"), "{status} {text}");
    let (status, text) = post(&address, "/reserve", &[], "slaveId=nope&resources=[]").await;
    assert_eq!((status, text.as_str()), (400, "No agent found with specified ID"));
    let (status, text) = post(&address, "/reserve", &[], "resources=[]").await;
    assert_eq!((status, text.as_str()), (400, "Missing 'slaveId' query parameter in the request body"));
    assert_eq!(send(&address, "GET", "/reserve", &[], b"").await.status, 405);
    let shown = async {
        while read(&address, "/slaves").await["slaves"][0]["reserved_resources"]["web"]["cpus"] != 1.0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, shown).await.expect("it is shown in time");
    masters.stop().await;
}
