//! Masters cut off from one another, and clients that do not read: who is served by whom meanwhile.

use crate::{events::Client, support::*};
use muster_proto::v1::{self, scheduler_down_frame::Event as Down, scheduler_frame::Call as Up};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// Who has not answered after this long does not serve.
const ANSWER: Duration = Duration::from_secs(2);

async fn is_told_to_redial(client: &mut Scheduler) {
    client.until(|event| matches!(event, Down::Redial(_)).then_some(())).await;
}

/// Polls until the master serves reads that claim to be current, or until it refuses to.
async fn reads(address: &str, served: bool) {
    let poll = async {
        loop {
            let mut client = operator(address).await;
            let answer = timeout(ANSWER, client.list_agents(v1::ListAgentsRequest::default())).await;
            if matches!(answer, Ok(Ok(_))) == served {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, poll).await.unwrap_or_else(|_| panic!("{address} should serve: {served}"));
}

/// Polls until one of the masters serves such reads: its address.
async fn serving(masters: &Masters) -> String {
    let poll = async {
        loop {
            for address in masters.addresses() {
                let mut client = operator(&address).await;
                let answer = timeout(ANSWER, client.list_agents(v1::ListAgentsRequest::default())).await;
                if matches!(answer, Ok(Ok(_))) {
                    return address;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, poll).await.expect("somebody serves in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_quorum_stops_serving_and_serves_again() {
    let masters = Masters::quick(3).await;
    let leader = masters.address(&masters.leader().await);
    let mut agent = Agent::connect(&leader, "machine-1").await;
    let mut scheduler = Scheduler::connect(&leader).await;
    scheduler.subscribe().await;
    let offer = scheduler.offer().await;
    reads(&leader, true).await;
    // Nobody hears anybody: no other leader comes up either.
    masters.cut(|_, _| true);
    reads(&leader, false).await;
    // The offer is in the framework's hands, and worth nothing.
    let accept = Up::Accept(v1::Accept {
        offer_ids: vec![offer.offer_id.clone()],
        task_infos: vec![prost::Message::encode_to_vec(&Scheduler::task(&offer, "t1", 1.0)).into()],
        refuse_ms: Some(0),
        ..Default::default()
    });
    let call = scheduler.call(accept).await;
    // Who has no way to a leader for 2 s is told so, by a former leader, too.
    let told = async {
        loop {
            match scheduler.event().await {
                Down::Redial(_) => return,
                Down::Outcome(it) if it.id == call => {
                    assert!(matches!(it.outcome, Some(v1::outcome::Outcome::Unknown(_))), "{it:?}");
                }
                Down::Offers(_) => panic!("an offer without a quorum"),
                _ => {}
            }
        }
    };
    timeout(PATIENCE, told).await.expect("told to dial another master");
    assert!(agent.orders.try_recv().is_err(), "an order without a quorum");
    masters.cut(|_, _| false);
    // The former leader or another one, by its own word: what all remember of it is no answer.
    let leader = serving(&masters).await;
    // Both dial whoever leads by now; the framework keeps its id.
    let mut again = Scheduler::connect(&leader).await;
    again.framework_id = scheduler.framework_id.clone();
    again.subscribe().await;
    assert_eq!(again.framework_id, scheduler.framework_id);
    let _agent = Agent::connect(&leader, "machine-2").await;
    let fresh = again.offer().await;
    assert_ne!(fresh.offer_id, offer.offer_id);
    let launched = again.launch(&fresh, &Scheduler::task(&fresh, "t2", 1.0)).await;
    assert!(launched.launched.is_some(), "{launched:?}");
    assert_eq!(again.update("t2").await, RUNNING);
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_call_at_a_leader_that_is_cut_off_is_answered() {
    let masters = Masters::quick(3).await;
    let old = masters.leader().await;
    let mut scheduler = Scheduler::connect(&masters.address(&old)).await;
    scheduler.subscribe().await;
    let mut client = operator(&masters.address(&old)).await;
    masters.cut(|from, to| from == old || to == old);
    let request = v1::TeardownRequest { framework_id: scheduler.framework_id.clone() };
    let refused = timeout(PATIENCE, client.teardown(request)).await.expect("an answer").unwrap_err();
    let codes = [tonic::Code::Unavailable, tonic::Code::FailedPrecondition];
    assert!(codes.contains(&refused.code()), "{refused}");
    masters.cut(|_, _| false);
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_teardown_that_was_carried_out_is_not_refused() {
    let masters = Masters::quick(3).await;
    let old = masters.leader().await;
    let client = Client::subscribe(&masters.address(&old), None).await;
    let framework_id = client.framework_id.clone();
    masters.cut(|from, to| from == old || to == old);
    let address = masters.address(&old);
    let torn_down = tokio::spawn(async move { client.call_at(&address, json!({"type": "TEARDOWN"})).await });
    // It is carried out in another way, before its caller can know what became of it.
    let gone = async {
        loop {
            let leader = serving(&masters).await;
            let request = v1::TeardownRequest { framework_id: framework_id.clone() };
            // A leader that has not begun yet, or is none any more, says so, and nothing of what became of it.
            let _ = operator(&leader).await.teardown(request).await;
            let found = operator(&leader).await.list_frameworks(v1::ListFrameworksRequest::default()).await;
            if found.is_ok_and(|it| it.get_ref().frameworks.iter().all(|it| it.framework_id != framework_id))
            {
                return;
            }
        }
    };
    timeout(PATIENCE, gone).await.expect("it is torn down");
    masters.cut(|_, _| false);
    let (status, text) = timeout(PATIENCE, torn_down).await.expect("an answer").unwrap();
    assert!(status == 202 || status == 503, "{status}: {text}");
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_leader_that_is_cut_off_are_sent_to_the_others() {
    let masters = Masters::quick(3).await;
    let old = masters.leader().await;
    let mut scheduler = Scheduler::connect(&masters.address(&old)).await;
    scheduler.subscribe().await;
    masters.cut(|from, to| from == old || to == old);
    is_told_to_redial(&mut scheduler).await;
    // One of the others leads by now, and the other is a link to it.
    for other in masters.running.keys().filter(|name| **name != old) {
        let mut again = Scheduler::connect(&masters.address(other)).await;
        again.framework_id = scheduler.framework_id.clone();
        again.subscribe().await;
        assert_eq!(again.framework_id, scheduler.framework_id, "by way of {other}");
    }
    masters.cut(|_, _| false);
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_cannot_reach_its_leader_sends_its_clients_to_the_others() {
    let masters = Masters::wired(3).await;
    let leader = masters.leader().await;
    let followers: Vec<_> = masters.running.keys().filter(|name| **name != leader).cloned().collect();
    let mut far = Scheduler::connect(&masters.address(&followers[0])).await;
    let mut near = Scheduler::connect(&masters.address(&followers[1])).await;
    far.subscribe().await;
    near.subscribe().await;
    // The leader still reaches this follower, which goes on following it: only its way up is gone.
    masters.cut(|from, to| from == followers[0] && to == leader);
    is_told_to_redial(&mut far).await;
    assert_eq!(masters.leader().await, leader, "nobody else was elected");
    let mut again = Scheduler::connect(&masters.address(&followers[1])).await;
    again.framework_id = far.framework_id.clone();
    again.subscribe().await;
    // Who is linked elsewhere notices nothing.
    let call = near.call(Up::Revive(v1::Roles { roles: vec![] })).await;
    assert!(matches!(near.outcome(call).await, v1::outcome::Outcome::Done(_)));
    assert!(!near.stash.iter().any(|event| matches!(event, Down::Redial(_))), "told to go for nothing");
    // The way up comes back: the follower takes clients as before.
    masters.cut(|_, _| false);
    Scheduler::connect(&masters.address(&followers[0])).await.subscribe().await;
    // Who comes now is not told what the others were told: clients would never settle anywhere again.
    let mut late = Scheduler::connect(&masters.address(&followers[0])).await;
    late.subscribe().await;
    let call = late.call(Up::Revive(v1::Roles { roles: vec![] })).await;
    assert!(matches!(late.outcome(call).await, v1::outcome::Outcome::Done(_)));
    assert!(!late.stash.iter().any(|event| matches!(event, Down::Redial(_))), "told to go for nothing");
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_is_not_told_that_nothing_was_done_when_nobody_knows() {
    let masters = Masters::quick(3).await;
    let leader = masters.leader().await;
    let mut scheduler = Scheduler::connect(&masters.address(&leader)).await;
    scheduler.subscribe().await;
    let mut asked = operator(&masters.address(&leader)).await;
    // The call is in the leader's log, and nobody else hears of it until another one leads.
    masters.cut(|from, to| from == leader || to == leader);
    let teardown = v1::TeardownRequest { framework_id: scheduler.framework_id.clone() };
    let answer = tokio::spawn(async move { asked.teardown(teardown).await });
    let others: Vec<_> = masters.running.keys().filter(|name| **name != leader).cloned().collect();
    let led = async {
        loop {
            let status = operator(&masters.address(&others[0]))
                .await
                .get_raft_status(v1::GetRaftStatusRequest {})
                .await;
            let leads = status.unwrap().into_inner().leader.map(|it| it.name);
            if leads.is_some_and(|name| others.contains(&name)) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, led).await.expect("another leader");
    masters.cut(|_, _| false);
    let error = timeout(PATIENCE, answer).await.expect("an answer").unwrap().unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable, "{error}");
    masters.stop().await;
}

/// A scheduler that never reads is cut off; one beside it on the same way is served all along.
async fn who_does_not_read_is_cut_off(masters: &Masters, address: &str) {
    let leader = masters.address(&masters.leader().await);
    let mut good = Scheduler::connect(address).await;
    good.subscribe().await;
    let mut slow = Scheduler::connect_with_window(address, 65_535).await;
    slow.subscribe().await;
    // Each call is answered, and nobody takes the answers.
    let sent = Arc::new(AtomicU64::new(0));
    let (up, counted) = (slow.up.clone(), sent.clone());
    let flood = tokio::spawn(async move {
        let decline = Up::Decline(v1::Decline { offer_ids: vec!["x".repeat(200)], refuse_ms: None });
        loop {
            let id = counted.fetch_add(1, Ordering::Relaxed) + 1;
            if up
                .send(v1::SchedulerFrame { id, call: Some(decline.clone()), ..Default::default() })
                .await
                .is_err()
            {
                return;
            }
        }
    });
    let cut_off = async {
        loop {
            let call = good.call(Up::Revive(v1::Roles { roles: vec![] })).await;
            assert!(matches!(good.outcome(call).await, v1::outcome::Outcome::Done(_)));
            let request = v1::ListFrameworksRequest::default();
            let list = operator(&leader).await.list_frameworks(request).await.unwrap().into_inner();
            let connected = |id: &str| list.frameworks.iter().any(|it| it.framework_id == id && it.connected);
            assert!(connected(&good.framework_id), "the one that reads lost its session");
            if !connected(&slow.framework_id) {
                return;
            }
        }
    };
    timeout(2 * PATIENCE, cut_off).await.expect("cut off");
    flood.abort();
    // What was kept for it is bounded by the queues on its way, not by what it asked: reading at last, it finds
    // that much, and the end.
    let asked = sent.load(Ordering::Relaxed);
    assert!(asked < 200_000, "{asked} calls were answered to a client that reads none");
    let mut kept = 0;
    let drained = async {
        while let Ok(Some(_)) = slow.down.message().await {
            kept += 1;
        }
    };
    timeout(PATIENCE, drained).await.expect("its stream ends");
    assert!(kept < 50_000, "{kept} frames were kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_cut_off_at_the_leaders_door() {
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    who_does_not_read_is_cut_off(&masters, &address).await;
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_cut_off_at_its_link() {
    let masters = Masters::start(3).await;
    let follower = masters.followers().await.remove(0);
    who_does_not_read_is_cut_off(&masters, &follower).await;
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_slowly_is_told_all_up_to_where_it_is_cut_off() {
    const TASKS: usize = 20_000;
    let masters = Masters::start(1).await;
    let mut slow = Scheduler::connect_with_window(&masters.addresses().remove(0), 65_535).await;
    slow.subscribe().await;
    let mut calls = Vec::new();
    for n in 0..4 {
        let task = |i| v1::reconcile::Task { task_id: format!("{n}-{i}"), ..Default::default() };
        let tasks = (0..TASKS).map(task).collect();
        calls.push(slow.call(Up::Reconcile(v1::Reconcile { tasks })).await);
    }
    let mut told = 0;
    let read = async {
        while let Ok(Some(frame)) = slow.down.message().await {
            match frame.event.unwrap() {
                Down::Update(update) => {
                    assert_eq!(
                        update.task_id,
                        format!("{}-{}", told / TASKS, told % TASKS),
                        "after {told} updates"
                    );
                    told += 1;
                }
                Down::Outcome(outcome) => {
                    // That of the SUBSCRIBE comes first.
                    let Some(n) = calls.iter().position(|call| *call == outcome.id) else { continue };
                    assert_eq!(told, (n + 1) * TASKS, "call {n} is answered before all was told");
                }
                _ => {}
            }
            if told % 5 == 0 {
                sleep(Duration::from_millis(1)).await; // it is slow
            }
        }
    };
    timeout(2 * PATIENCE, read).await.expect("its stream ends");
    assert!(told < 4 * TASKS, "it was not cut off");
    masters.stop().await;
}
