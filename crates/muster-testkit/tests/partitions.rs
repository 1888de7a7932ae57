//! Masters and agents that do not hear each other, without root.

#![allow(clippy::unwrap_used)]

use muster_sdk::{
    Filters, Framework, FrameworkId, Offer, Scheduler, SchedulerDriver, Task, TaskState, TaskUpdate,
};
use muster_testkit::{Plan, TestCluster};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

async fn proxied(plan: Plan) -> TestCluster {
    TestCluster::start(Plan { proxied: true, ..plan }).await.unwrap()
}

fn but(names: Vec<String>, name: &str) -> Vec<String> {
    names.into_iter().filter(|other| other != name).collect()
}

/// All masters come to hold the same.
async fn equal(cluster: &TestCluster) {
    for name in cluster.master_names() {
        cluster.caught_up(&name).await.unwrap();
    }
    let replicas = cluster.replicas().await.unwrap();
    assert!(replicas.iter().all(|one| one.state_hash == replicas[0].state_hash), "{replicas:?}");
}

/// What a cluster must be like when all faults are over.
async fn ends_well(cluster: TestCluster) {
    equal(&cluster).await;
    assert_eq!(cluster.error_lines(), Vec::<String>::new());
    let end = cluster.end().await.unwrap();
    assert!(end.killed.is_empty() && end.left.is_empty(), "{end:?}");
}

#[tokio::test]
async fn a_leader_that_is_cut_off_is_replaced_and_comes_back_as_one_of_many() {
    let cluster = proxied(Plan { agents: 2, ..Plan::default() }).await;
    let (leader, term) = cluster.serving().await.unwrap();
    let others = but(cluster.master_names(), &leader);
    let cut = cluster.partition(&[&[&leader], &[&others[0], &others[1]]]).unwrap();
    cut.bites().await.unwrap();
    cluster.serves_no_more(&leader).await.unwrap();
    let (heir, later) = cluster.serving_after(term).await.unwrap();
    assert!(heir != leader && later > term && cut.held() > 0);
    // The agents found the new leader, and the old one still says nothing.
    cluster.ready().await.unwrap();
    assert!(cluster.agents_by(&leader).await.is_err());
    // The kit reaches it past the cut.
    cluster.status(&leader).await.unwrap();

    drop(cut);
    cluster.caught_up(&leader).await.unwrap();
    ends_well(cluster).await;
}

#[tokio::test]
async fn a_leader_that_nobody_hears_is_replaced() {
    let cluster = proxied(Plan { agents: 0, ..Plan::default() }).await;
    let (leader, term) = cluster.serving().await.unwrap();
    let others = but(cluster.master_names(), &leader);
    let cuts: Vec<_> = others.iter().map(|other| cluster.cut(&leader, other).unwrap()).collect();
    for cut in &cuts {
        cut.bites().await.unwrap();
    }
    let (heir, _) = cluster.serving_after(term).await.unwrap();
    assert_ne!(heir, leader);
    cluster.serves_no_more(&leader).await.unwrap();
    for other in &others {
        // One direction only.
        let (away, back) =
            (cluster.traffic(&leader, other).unwrap(), cluster.traffic(other, &leader).unwrap());
        assert!(away.held > 0 && back.held == 0, "{away:?} {back:?}");
    }
    drop(cuts);
    ends_well(cluster).await;
}

#[tokio::test]
async fn a_leader_that_hears_nobody_is_replaced() {
    let cluster = proxied(Plan { agents: 0, ..Plan::default() }).await;
    let (leader, term) = cluster.serving().await.unwrap();
    let others = but(cluster.master_names(), &leader);
    let cuts: Vec<_> = others.iter().map(|other| cluster.cut(other, &leader).unwrap()).collect();
    for cut in &cuts {
        cut.bites().await.unwrap();
    }
    cluster.serves_no_more(&leader).await.unwrap();
    // The others heard it well at first: it must let go of connections on which nobody answers.
    let (successor, _) = cluster.serving_after(term).await.unwrap();
    assert_ne!(successor, leader);
    drop(cuts);
    ends_well(cluster).await;
}

/// Launches one task on each agent, and tells where one runs.
struct OneEach {
    launched: BTreeSet<String>,
    tries: usize,
    running: mpsc::Sender<String>,
}

impl Scheduler for OneEach {
    fn resource_offers(&mut self, driver: &SchedulerDriver, offers: Vec<Offer>) {
        for offer in offers {
            let agent = offer.hostname.to_string();
            if self.launched.insert(agent.clone()) {
                self.tries += 1;
                let task =
                    Task::command(format!("{agent}.{}", self.tries), "sleep 100000").cpus(0.1).mem_mb(16);
                driver.accept([&offer], [task], Filters::default()).unwrap();
            } else {
                driver.decline([&offer], Filters::default()).unwrap();
            }
        }
    }

    fn status_update(&mut self, _: &SchedulerDriver, update: TaskUpdate) {
        let task = update.task_id.to_string();
        let (agent, _) = task.rsplit_once('.').unwrap();
        if update.status.state == TaskState::Running {
            self.running.blocking_send(agent.to_owned()).unwrap();
        } else if update.status.state == TaskState::Dropped {
            self.launched.remove(agent); // its offer was void by then: an agent that finds another way is offered anew
        }
    }
}

#[tokio::test]
async fn agents_that_do_not_reach_the_leader_run_tasks_through_the_other_masters() {
    let master_config = Plan::STEADY.to_owned() + "[session]\nping-ms = 500\n";
    let cluster = proxied(Plan { agents: 3, master_config, ..Plan::default() }).await;
    // At least one agent is linked to the leader itself.
    let linked = |name: &str| cluster.traffic("a1", name).unwrap().live > 0;
    let near = cluster.master_names().into_iter().find(|name| linked(name)).unwrap();
    cluster.transfer_leadership(&near).await.unwrap();
    let agents = cluster.agent_names();
    let cuts: Vec<_> = agents.iter().map(|agent| cluster.cut_both(agent, &near).unwrap()).collect();
    cuts[0].bites().await.unwrap();

    let (running, mut told) = mpsc::channel(16);
    let framework = Framework::new("one-each").failover_timeout(Duration::from_secs(600));
    let scheduler = OneEach { launched: BTreeSet::new(), tries: 0, running };
    let driver = SchedulerDriver::builder(cluster.masters()).start(framework, scheduler).unwrap();
    let mut runs = BTreeSet::new();
    while runs.len() < agents.len() {
        runs.insert(told.recv().await.unwrap());
    }
    driver.abort();
    assert_eq!(cluster.leader().await.unwrap(), near);
    let elsewhere = but(cluster.master_names(), &near);
    assert!(elsewhere.iter().any(|name| linked(name)), "a1 has found another way");

    drop(cuts);
    ends_well(cluster).await;
}

/// Tells of each subscription and of being turned away.
struct Told(mpsc::Sender<String>);

impl Scheduler for Told {
    fn registered(&mut self, _: &SchedulerDriver, framework_id: &FrameworkId, _: &str) {
        self.0.blocking_send(framework_id.to_string()).unwrap();
    }

    fn error(&mut self, _: &SchedulerDriver, message: &str) {
        self.0.blocking_send(message.into()).unwrap();
    }
}

#[tokio::test]
async fn what_was_said_over_a_link_that_was_cut_is_not_heard_late() {
    let cluster = proxied(Plan { agents: 0, ..Plan::steady() }).await;
    let leader = cluster.leader().await.unwrap();
    let follower = but(cluster.master_names(), &leader).remove(0);
    let address = |name: &str| {
        let place = cluster.master_names().iter().position(|other| other == name).unwrap();
        vec![cluster.masters()[place].clone()]
    };
    let start = |masters: Vec<String>, id: Option<&str>| {
        let (say, told) = mpsc::channel(16);
        let framework = Framework::new("told").failover_timeout(Duration::from_secs(600));
        let mut builder = SchedulerDriver::builder(masters);
        if let Some(id) = id {
            builder = builder.framework_id(FrameworkId::new(id));
        }
        (builder.start(framework, Told(say)).unwrap(), told)
    };
    let (lasting, mut lasting_told) = start(address(&leader), None);
    let id = lasting_told.recv().await.unwrap();
    // The follower has its link, or it would have nothing to say hello over: one scheduler came through it.
    let (first, mut first_told) = start(address(&follower), None);
    assert_ne!(first_told.recv().await.unwrap(), id);
    first.stop(true);
    first.ended().await.unwrap();

    // Another scheduler says hello over the follower's link just when that is cut, and is gone when it heals.
    let before = no_way(&cluster, &follower);
    let cut = cluster.cut_both(&follower, &leader).unwrap();
    let (gone, _gone_told) = start(address(&follower), Some(&id));
    let hello = 200;
    let until = Instant::now() + Duration::from_secs(30);
    while cluster.traffic(&follower, &leader).unwrap().held < hello {
        assert!(Instant::now() < until, "it never said hello");
        tokio::task::yield_now().await;
    }
    while no_way(&cluster, &follower) == before {
        assert!(Instant::now() < until, "the follower still waits for its leader");
        tokio::task::yield_now().await;
    }
    gone.abort();
    let _ = gone.ended().await; // it was given up
    drop(cut);

    // A third one gets through on the same way: whatever was before it has arrived.
    let (other, mut other_told) = start(address(&follower), None);
    assert_ne!(other_told.recv().await.unwrap(), id);
    assert!(lasting_told.try_recv().is_err(), "the first one was turned away");
    lasting.stop(true);
    lasting.ended().await.unwrap();
    other.abort();
    ends_well(cluster).await;
}

/// How often a master has said that it has no way to a leader; also at its start, where that takes long.
fn no_way(cluster: &TestCluster, name: &str) -> usize {
    let log = std::fs::read_to_string(cluster.dir().join(format!("{name}.log"))).unwrap();
    log.matches("no way to a leader").count()
}

/// A request to a master's Mesos API, with some headers; what comes back is for the caller to read, or not.
fn ask(address: &str, path: &str, headers: &str, body: Option<&str>) -> TcpStream {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let (method, body) = (if body.is_some() { "POST" } else { "GET" }, body.unwrap_or_default());
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Content-Type: application/json\r\n\
         Accept: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all((head + body).as_bytes()).unwrap();
    connection
}

/// Reads until this was said; what came up to then.
fn heard(connection: &mut TcpStream, wanted: &str) -> String {
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains(wanted) {
        let mut some = [0; 4096];
        let n = connection.read(&mut some).unwrap();
        assert!(n > 0, "{}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&some[..n]);
    }
    String::from_utf8(heard).unwrap()
}

/// The first line of an answer.
fn status(mut connection: TcpStream) -> String {
    heard(&mut connection, "\r\n").lines().next().unwrap().to_owned()
}

fn after<'a>(text: &'a str, what: &str, end: char) -> &'a str {
    text.split_once(what).unwrap().1.split(end).next().unwrap()
}

#[tokio::test]
async fn a_call_that_was_handed_on_over_a_cut_is_not_carried_out_late() {
    const CALLS: &str = "/api/v1/scheduler";
    // More than the pings of a link in the meantime, and read at once.
    const LONG: usize = 1_000;
    let cluster = proxied(Plan { agents: 0, ..Plan::steady() }).await;
    let leader = cluster.leader().await.unwrap();
    let follower = but(cluster.master_names(), &leader).remove(0);
    let address = |name: &str| {
        let place = cluster.master_names().iter().position(|other| other == name).unwrap();
        cluster.masters()[place].clone()
    };
    let (at_leader, at_follower) = (address(&leader), address(&follower));
    let subscribe = r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"late"}}}"#;
    let until = Instant::now() + Duration::from_secs(30);
    while !status(ask(&at_leader, "/redirect", "", None)).contains("307") {
        assert!(Instant::now() < until, "the leader does not serve");
    }
    let mut events = ask(&at_leader, CALLS, "", Some(subscribe));
    let said = heard(&mut events, "heartbeat_interval_seconds");
    let stream = format!("Mesos-Stream-Id: {}\r\n", after(&said.to_lowercase(), "mesos-stream-id: ", '\r'));
    let id = after(&said, r#""framework_id":{"value":""#, '"').to_owned();
    let call = |kind: &str, padding: usize| {
        format!(r#"{{"type":"{kind}","framework_id":{{"value":"{id}"}}{}}}"#, " ".repeat(padding))
    };
    let by_follower = |call: &str| ask(&at_follower, CALLS, &stream, Some(call));
    while status(by_follower(&call("REVIVE", 0))) != "HTTP/1.1 202 Accepted" {
        assert!(Instant::now() < until, "the follower hands nothing on");
    }

    // What is asked just when the way is cut, by one who is gone when it heals.
    let before_cut = no_way(&cluster, &follower);
    let cut = cluster.cut_both(&follower, &leader).unwrap();
    let before = cluster.traffic(&follower, &leader).unwrap().held;
    let gone = by_follower(&call("TEARDOWN", LONG));
    while cluster.traffic(&follower, &leader).unwrap().held < before + LONG as u64 {
        assert!(Instant::now() < until, "it was not handed on");
        tokio::task::yield_now().await;
    }
    drop(gone);
    // How often it had said so when a call was last sent there.
    let mut told;
    loop {
        told = no_way(&cluster, &follower) - before_cut;
        if !status(ask(&at_follower, "/redirect", "", None)).contains("307") {
            break;
        }
        assert!(Instant::now() < until, "the follower still knows a way to its leader");
    }
    assert!(told <= 2, "clients were told {told} times that there is no way, and calls still went there");
    // Who can help nobody says so at once: each would be kept for a third of the time otherwise.
    for _ in 0..6 {
        assert_eq!(status(by_follower(&call("REVIVE", 0))), "HTTP/1.1 503 Service Unavailable");
        assert!(Instant::now() < until, "the follower keeps calls that it cannot hand on");
    }
    drop(cut);

    // Another one comes through after it, and finds the framework as it was.
    while status(by_follower(&call("REVIVE", 0))) != "HTTP/1.1 202 Accepted" {
        assert!(Instant::now() < until, "the follower hands nothing on any more");
    }
    // The same of a way that the leader knows nothing of any more.
    let late = format!("{stream}muster-forwarded: 1f-7\r\n");
    let late = ask(&at_leader, CALLS, &late, Some(&call("TEARDOWN", 0)));
    assert_eq!(status(late), "HTTP/1.1 421 Misdirected Request");
    let there = heard(&mut ask(&at_leader, "/frameworks", "", None), r#""unregistered_frameworks""#);
    let (_, there) = there.split_once(r#""frameworks":["#).unwrap_or_else(|| panic!("{there}"));
    assert!(there.contains(&format!(r#""id":"{id}""#)), "{there}");
    let alive = ask(&at_leader, CALLS, &stream, Some(&call("REVIVE", 0)));
    assert_eq!(status(alive), "HTTP/1.1 202 Accepted");
    drop(events);
    ends_well(cluster).await;
}

#[tokio::test]
async fn late_and_broken_connections_do_not_stop_service() {
    let cluster = proxied(Plan { agents: 1, ..Plan::default() }).await;
    let was = cluster.leader().await.unwrap();
    let others = but(cluster.master_names(), &was);
    let delayed = cluster.delay_around(&was, Duration::from_millis(5), Duration::from_millis(10)).unwrap();
    let mut reset = 0;
    for other in &others {
        reset += cluster.reset(&was, other).unwrap();
    }
    assert!(reset > 0);
    let (leader, _) = cluster.serving().await.unwrap();
    for other in &others {
        cluster.caught_up(other).await.unwrap();
    }
    cluster.caught_up(&leader).await.unwrap();
    let late = others.iter().map(|other| cluster.traffic(other, &was).unwrap().delayed);
    assert!(late.sum::<u64>() > 0);
    drop(delayed);
    cluster.ready().await.unwrap();
    ends_well(cluster).await;
}

#[tokio::test]
async fn five_masters_serve_through_a_bridge_and_in_a_ring() {
    let cluster = proxied(Plan { masters: 5, agents: 0, ..Plan::default() }).await;
    let bridge = cluster.bridge("m3").unwrap();
    bridge.bites().await.unwrap();
    cluster.serving().await.unwrap();
    drop(bridge);
    let ring = cluster.ring().unwrap();
    ring.bites().await.unwrap();
    cluster.serving().await.unwrap();
    drop(ring);
    ends_well(cluster).await;
}

#[tokio::test]
async fn what_cannot_be_cut_is_said() {
    let cluster = proxied(Plan { masters: 1, agents: 2, ..Plan::default() }).await;
    let said = |cut: anyhow::Result<muster_testkit::Cut>| cut.unwrap_err().to_string();
    assert_eq!(said(cluster.cut("m1", "m9")), "there is no m9 in this cluster");
    assert_eq!(said(cluster.cut("a1", "a2")), "nothing goes from a1 to a2 in this cluster");
    assert!(said(cluster.ring()).contains("takes five masters"));
    assert!(said(cluster.bridge("a1")).contains("no master a1"));
    assert!(cluster.partition(&[&["m1", "a1"], &["a2"]]).is_ok());
    let direct = TestCluster::start(Plan { masters: 1, agents: 1, ..Plan::default() }).await.unwrap();
    assert!(said(direct.isolate("m1")).contains("Plan::proxied"));
}
