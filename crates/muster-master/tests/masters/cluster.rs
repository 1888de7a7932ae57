//! Masters over real sockets and stores, with clients that speak the bare frames.

use crate::support::*;
use muster_proto::mesos;
use muster_proto::v1::{self, scheduler_down_frame::Event as Down, scheduler_frame::Call as Up};
use prost::Message;
use tokio::time::timeout;
use tonic::Code;

fn cpus(offer: &v1::Offer) -> f64 {
    let all = offer.resources.iter().map(|bytes| mesos::Resource::decode(bytes.clone()).unwrap());
    all.filter(|it| it.name == "cpus").map(|it| it.scalar.unwrap().value).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_runs_through_links_and_outlives_the_leader() {
    let mut masters = Masters::start(3).await;
    let followers = masters.followers().await;
    // The agent and the scheduler are linked to different followers.
    let mut agent = Agent::connect(&followers[0], "machine-1").await;
    let mut scheduler = Scheduler::connect(&followers[1]).await;
    scheduler.subscribe().await;
    let framework_id = scheduler.framework_id.clone();
    let offer = scheduler.offer().await;
    let task = Scheduler::task(&offer, "t1", 1.0);
    let launched = scheduler.launch(&offer, &task).await;
    assert!(launched.launched.is_some(), "{launched:?}");
    let order = agent.order().await;
    assert_eq!(order.launch, launched.launched);
    assert_eq!(order.task_info, task.encode_to_vec(), "the description arrives as it was sent");
    assert_eq!(scheduler.update("t1").await, RUNNING);
    // The rest of the offer comes back at once.
    let rest = scheduler.offer().await;
    assert_eq!(cpus(&rest), 3.0);
    // The leader stops: nobody who was linked to a follower connects anew.
    let leader = masters.leader().await;
    let (serving, _) = masters.running.remove(&leader).unwrap();
    timeout(PATIENCE, serving.stop()).await.expect("it stops");
    scheduler.subscribe().await;
    assert_eq!(scheduler.framework_id, framework_id, "the framework keeps its id");
    let offer = scheduler.offer().await;
    assert_eq!(offer.agent_id, rest.agent_id, "the agent keeps its id");
    assert_eq!(cpus(&offer), 3.0, "the task still holds its part");
    // An offer of the former term is void, a repeated ACCEPT of it is answered as before, nothing starts twice.
    let again = scheduler.launch(&rest, &Scheduler::task(&rest, "t2", 1.0)).await;
    assert_eq!(again.reason, mesos::task_status::Reason::InvalidOffers as i32, "{again:?}");
    let again =
        scheduler.launch(&v1::Offer { offer_id: order_offer(&launched), ..offer.clone() }, &task).await;
    assert_eq!(again.launched, launched.launched, "the task lives under its id");
    assert!(agent.orders.try_recv().is_err(), "nothing was ordered again");
    // A kill reaches the agent.
    scheduler
        .call(Up::Kill(v1::Kill { task_id: "t1".into(), agent_id: String::new(), grace_ms: Some(5) }))
        .await;
    let kill = timeout(PATIENCE, agent.kills.recv()).await.unwrap().unwrap();
    assert_eq!((kill.launch, kill.grace_ms), (launched.launched, Some(5)));
    drop(agent.up);
    masters.stop().await;
}

/// The id of an offer that nobody knows.
fn order_offer(_: &v1::accept_outcome::Task) -> String {
    "unknown-O1-0-1".into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_frames_and_calls_are_refused_by_name() {
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    let mut scheduler = Scheduler::connect(&address).await;
    scheduler.until(|event| matches!(event, Down::Leader(_)).then_some(())).await;
    let accept =
        v1::Accept { offer_ids: vec!["x".into()], task_infos: vec![], refuse_ms: None, ..Default::default() };
    let id = scheduler.call(Up::Accept(accept)).await;
    match scheduler.outcome(id).await {
        v1::outcome::Outcome::Refused(why) => assert!(why.contains("subscribe first"), "{why}"),
        other => panic!("{other:?}"),
    }
    scheduler.up.send(v1::SchedulerFrame { id: 9, call: None, ..Default::default() }).await.unwrap();
    let error =
        scheduler.until(|event| if let Down::Error(error) = event { Some(error) } else { None }).await;
    assert!(error.contains("call"), "{error}");
    assert!(scheduler.down.message().await.unwrap().is_none(), "the stream ended");
    let error = operator(&address)
        .await
        .teardown(v1::TeardownRequest { framework_id: "nope".into() })
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("nope"), "{error}");
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_meant_for_another_leader_is_not_heard() {
    let masters = Masters::start(3).await;
    let (leader, follower) = (masters.leader().await, masters.followers().await.remove(0));
    // By the leader itself, and by way of a link to it.
    for address in [masters.address(&leader), follower] {
        let mut scheduler = Scheduler::connect(&address).await;
        let first =
            timeout(PATIENCE, scheduler.down.message()).await.expect("a frame in time").unwrap().unwrap();
        let (now, event) = (first.fence.unwrap(), first.event.unwrap());
        assert!(matches!(event, Down::Leader(_)), "{event:?}");
        scheduler.stash.push(event);
        let subscribe = |name: &str, framework_id: &str, fence| {
            let info = mesos::FrameworkInfo { user: "root".into(), name: name.into(), ..Default::default() };
            let call = Up::Subscribe(v1::Subscribe {
                framework_id: framework_id.into(),
                framework_info: info.encode_to_vec().into(),
                ..Default::default()
            });
            v1::SchedulerFrame { id: 0, call: Some(call), fence: Some(fence) }
        };
        // Frames of one stream are heard in order: carried out, either would be before the one that is answered.
        for term in [now.term - 1, now.term + 1] {
            scheduler.up.send(subscribe("late", "", v1::Fence { term, ..now })).await.unwrap();
        }
        scheduler.subscribe().await;
        assert_eq!(names(&masters.address(&leader)).await, ["test"]);
        scheduler.up.send(subscribe("now", &scheduler.framework_id, now)).await.unwrap();
        scheduler.until(|event| matches!(event, Down::Subscribed(_)).then_some(())).await;
        assert_eq!(names(&masters.address(&leader)).await, ["now"]);
        scheduler.call(Up::Teardown(v1::Teardown {})).await;
        while scheduler.down.message().await.is_ok_and(|frame| frame.is_some()) {}
    }
    masters.stop().await;
}

/// The names of all frameworks, by this master.
async fn names(address: &str) -> Vec<String> {
    let all = operator(address).await.list_frameworks(v1::ListFrameworksRequest::default()).await.unwrap();
    all.into_inner().frameworks.into_iter().map(|it| it.name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_task_of_an_accept_stands_for_itself() {
    let masters = Masters::start(1).await;
    let address = masters.addresses().remove(0);
    let mut agent = Agent::connect(&address, "machine-1").await;
    let mut scheduler = Scheduler::connect(&address).await;
    scheduler.subscribe().await;
    let offer = scheduler.offer().await;
    let good = Scheduler::task(&offer, "good", 1.0);
    let no_command = mesos::TaskInfo { command: None, ..Scheduler::task(&offer, "no-command", 1.0) };
    let elsewhere = mesos::TaskInfo {
        agent_id: mesos::AgentId { value: "another-S7".into() },
        ..Scheduler::task(&offer, "elsewhere", 1.0)
    };
    let accept = v1::Accept {
        offer_ids: vec![offer.offer_id.clone()],
        task_infos: [no_command, elsewhere, good].iter().map(|it| it.encode_to_vec().into()).collect(),
        refuse_ms: Some(0),
        ..Default::default()
    };
    // Twice: a repetition is answered alike.
    for _ in 0..2 {
        let id = scheduler.call(Up::Accept(accept.clone())).await;
        let v1::outcome::Outcome::Accepted(outcome) = scheduler.outcome(id).await else {
            panic!("not accepted")
        };
        let ids: Vec<_> = outcome.tasks.iter().map(|it| it.task_id.as_str()).collect();
        assert_eq!(ids, ["no-command", "elsewhere", "good"]);
        for (task, why) in outcome.tasks.iter().zip(["command", "another-S7"]) {
            assert_eq!(task.state, mesos::TaskState::TaskError as i32, "{task:?}");
            assert_eq!(task.reason, mesos::task_status::Reason::TaskInvalid as i32, "{task:?}");
            assert!(task.message.contains(why), "{task:?}");
        }
        assert!(outcome.tasks[2].launched.is_some(), "{:?}", outcome.tasks[2]);
    }
    assert_eq!(agent.order().await.task_id, "good");
    assert_eq!(scheduler.update("good").await, RUNNING);
    // Nothing leaked: all but the good one's part is offered again.
    let rest = scheduler.offer().await;
    assert_eq!(cpus(&rest), 3.0);
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_says_who_leads() {
    let masters = Masters::start(3).await;
    let leader = masters.leader().await;
    let follower = masters.followers().await.remove(0);
    let error = operator(&follower).await.list_agents(v1::ListAgentsRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    let hint = error.metadata().get("muster-leader").unwrap().to_str().unwrap();
    assert_eq!(hint, masters.running[&leader].1);
    let agents = operator(hint).await.list_agents(v1::ListAgentsRequest::default()).await.unwrap();
    assert!(agents.into_inner().agents.is_empty());
    masters.stop().await;
}
