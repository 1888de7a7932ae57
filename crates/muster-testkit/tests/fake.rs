//! Schedulers of the SDK against a fake master: what it scripts reaches them, and what they must survive they do.

#![allow(clippy::unwrap_used)]

use muster_sdk::{
    AgentId, Filters, Framework, FrameworkId, Offer, OfferId, Resources, Scheduler, SchedulerDriver, Task,
    TaskId, TaskState, TaskUpdate,
};
use muster_testkit::fake::{CallOutcome, FakeMaster, FakeSession, OfferSpec, SchedulerCall, SchedulerEvent};
use std::time::Duration;
use tokio::sync::mpsc;

/// Launches a task on each offer, and writes down what it is told.
struct Recorder(mpsc::Sender<String>);

impl Recorder {
    fn say(&self, text: String) {
        self.0.try_send(text).unwrap();
    }
}

impl Scheduler for Recorder {
    fn registered(&mut self, _: &SchedulerDriver, framework_id: &FrameworkId, _: &str) {
        self.say(format!("registered {framework_id}"));
    }
    fn reregistered(&mut self, _: &SchedulerDriver, master: &str) {
        self.say(format!("reregistered at {master}"));
    }
    fn disconnected(&mut self, _: &SchedulerDriver) {
        self.say("disconnected".into());
    }
    fn resource_offers(&mut self, driver: &SchedulerDriver, offers: Vec<Offer>) {
        for offer in &offers {
            let task = Task::command(format!("on-{}", offer.hostname), "echo hi").cpus(1.0).mem_mb(32);
            driver.accept([offer], [task], Filters::none()).unwrap();
        }
    }
    fn offer_rescinded(&mut self, _: &SchedulerDriver, offer_id: OfferId) {
        self.say(format!("rescinded {offer_id}"));
    }
    fn status_update(&mut self, _: &SchedulerDriver, update: TaskUpdate) {
        self.say(format!("{} {}", update.task_id, update.status.state));
    }
    fn agent_lost(&mut self, _: &SchedulerDriver, agent_id: AgentId) {
        self.say(format!("lost {agent_id}"));
    }
    fn error(&mut self, _: &SchedulerDriver, message: &str) {
        self.say(format!("error {message}"));
    }
}

/// What the scheduler was told.
struct Told(mpsc::Receiver<String>);

impl Told {
    async fn next(&mut self) -> String {
        tokio::time::timeout(Duration::from_secs(10), self.0.recv()).await.unwrap().unwrap()
    }
}

fn start(masters: &[&FakeMaster]) -> (SchedulerDriver, Told) {
    let (out, told) = mpsc::channel(1000);
    let masters = masters.iter().map(|master| master.address());
    (SchedulerDriver::builder(masters).start(Framework::new("test"), Recorder(out)).unwrap(), Told(told))
}

fn task(id: &str) -> TaskId {
    TaskId::new(id)
}

fn one_offer() -> OfferSpec {
    OfferSpec::new("h1", Resources::of(1_000, 64))
}

/// A driver with its first session, in which it launched `on-h1`.
async fn launched(master: &FakeMaster) -> (SchedulerDriver, Told, FakeSession) {
    let (driver, mut told) = start(&[master]);
    let mut session = master.subscribed().await.unwrap();
    assert_eq!(told.next().await, "registered fake-0001");
    session.offer(one_offer()).unwrap();
    let tasks = session.accepted().await.unwrap();
    assert_eq!(tasks[0].task_id.as_str(), "on-h1");
    (driver, told, session)
}

/// Nothing else was told: a last word comes next.
async fn nothing_else(session: &FakeSession, told: &mut Told) {
    let agent_id = AgentId::new("last-word");
    session.agent_lost(&agent_id).unwrap();
    assert_eq!(told.next().await, "lost last-word");
}

#[tokio::test]
async fn offers_become_tasks_updates_are_acknowledged_and_a_stop_tears_down() {
    let master = FakeMaster::start().await.unwrap();
    let (driver, mut told, mut session) = launched(&master).await;
    assert_eq!((session.asked_id(), &*session.info().name), (None, "test"));
    let task_id = task("on-h1");
    for state in [TaskState::Running, TaskState::Finished] {
        let update = session.update(&task_id, state).unwrap();
        session.acknowledged(&update).await.unwrap();
        assert_eq!(told.next().await, format!("on-h1 {state}"));
    }
    // An offer that is too small, one that is taken back, and a question.
    session.offer(OfferSpec::new("h2", Resources::of(500, 64))).unwrap();
    session.accepted().await.unwrap();
    assert_eq!(told.next().await, "on-h2 TASK_ERROR");
    let offer_id = session.offer(OfferSpec::new("h3", Resources::of(1_000, 64))).unwrap();
    session.rescind(&offer_id).unwrap();
    assert!(session.rescind(&offer_id).is_err());
    session.accepted().await.unwrap();
    assert_eq!(told.next().await, format!("rescinded {offer_id}"));
    assert_eq!(told.next().await, "on-h3 TASK_DROPPED");
    driver.reconcile([]).unwrap();
    assert!(matches!(session.next_call().await.unwrap(), SchedulerCall::Reconcile { .. }));
    assert_eq!(told.next().await, "on-h1 TASK_FINISHED");

    driver.stop(false);
    assert_eq!(session.next_call().await.unwrap(), SchedulerCall::Teardown);
    driver.ended().await.unwrap();
}

#[tokio::test]
async fn after_a_leader_change_it_subscribes_and_acknowledges_under_the_same_id() {
    let master = FakeMaster::start().await.unwrap();
    let (driver, mut told, first) = launched(&master).await;
    let update = first.update(&task("on-h1"), TaskState::Running).unwrap();
    assert_eq!(told.next().await, "on-h1 TASK_RUNNING");
    let (framework_id, mut session) = (first.framework_id().clone(), first);
    for term in [2, 3] {
        // The acknowledgement is on its way: the update is told no second time.
        let asked = session.next_unanswered().await.unwrap();
        assert!(matches!(asked.call, SchedulerCall::Acknowledge { uuid, .. } if uuid == update.uuid));
        // Once the stream stays, once it breaks.
        if term == 2 {
            master.fail_over()
        } else {
            master.crash()
        }
        let ended = session.offer(one_offer()).unwrap_err();
        assert!(ended.to_string().contains("has ended: take the next one"), "{ended}");
        session = master.subscribed().await.unwrap();
        assert_eq!((session.asked_id(), session.term().0), (Some(&framework_id), term));
        assert_eq!(told.next().await, "disconnected");
        assert_eq!(told.next().await, format!("reregistered at {}", master.address()));
    }
    session.acknowledged(&update).await.unwrap();
    nothing_else(&session, &mut told).await;
    driver.abort();
    driver.ended().await.unwrap();
}

#[tokio::test]
async fn an_update_without_acknowledgement_comes_again_after_a_leader_change() {
    let master = FakeMaster::start().await.unwrap();
    let (out, told) = mpsc::channel(1000);
    let builder = SchedulerDriver::builder([master.address()]).explicit_acknowledgements();
    let driver = builder.start(Framework::new("test"), Recorder(out)).unwrap();
    let mut told = Told(told);
    let mut session = master.subscribed().await.unwrap();
    session.offer(one_offer()).unwrap();
    session.accepted().await.unwrap();
    let update = session.update(&task("on-h1"), TaskState::Running).unwrap();
    assert_eq!([told.next().await, told.next().await][1], "on-h1 TASK_RUNNING");
    master.fail_over();
    let mut session = master.subscribed().await.unwrap();
    assert_eq!([told.next().await, told.next().await, told.next().await][2], "on-h1 TASK_RUNNING");
    driver.acknowledge_update(&update.task_id, Some(update.uuid)).unwrap();
    session.acknowledged(&update).await.unwrap();
    master.fail_over();
    let session = master.subscribed().await.unwrap();
    assert_eq!(told.next().await, "disconnected");
    assert_eq!(told.next().await, format!("reregistered at {}", master.address()));
    nothing_else(&session, &mut told).await;
}

#[tokio::test]
async fn what_the_old_leader_says_is_ignored() {
    let master = FakeMaster::start().await.unwrap();
    let (_driver, mut told, session) = launched(&master).await;
    session.send_stale(SchedulerEvent::AgentLost(AgentId::new("stale"))).unwrap();
    session.send_stale(SchedulerEvent::Error("stale".into())).unwrap();
    nothing_else(&session, &mut told).await;
}

#[tokio::test]
async fn a_kill_is_repeated_after_a_leader_change() {
    let master = FakeMaster::start().await.unwrap();
    let (driver, mut told, mut session) = launched(&master).await;
    driver.kill(&task("on-h1")).unwrap();
    let asked = session.next_unanswered().await.unwrap();
    assert!(matches!(&asked.call, SchedulerCall::Kill { task_id, .. } if task_id.as_str() == "on-h1"));
    master.fail_over();
    assert!(session.answer(&asked, CallOutcome::Done).is_err(), "it is not its leader any more");

    let mut session = master.subscribed().await.unwrap();
    assert_eq!(session.killed().await.unwrap().as_str(), "on-h1");
    let update = session.update(&task("on-h1"), TaskState::Killed).unwrap();
    // Answered, so it is not repeated: the acknowledgement is the next call.
    assert!(
        matches!(session.next_call().await.unwrap(), SchedulerCall::Acknowledge { uuid, .. } if uuid == update.uuid)
    );
    for expected in ["disconnected", &format!("reregistered at {}", master.address()), "on-h1 TASK_KILLED"] {
        assert_eq!(told.next().await, expected);
    }
}

#[tokio::test]
async fn an_accept_of_unknown_outcome_is_asked_again_and_launches_once() {
    let master = FakeMaster::start().await.unwrap();
    let (_driver, mut told) = start(&[&master]);
    let mut session = master.subscribed().await.unwrap();
    assert_eq!(told.next().await, "registered fake-0001");
    session.offer(one_offer()).unwrap();
    // Not done and busy; done, but nobody said so; asked again.
    let asked = session.next_unanswered().await.unwrap();
    session.answer(&asked, CallOutcome::Busy).unwrap();
    let again = session.next_unanswered().await.unwrap();
    let done = session.carry_out(&again).unwrap();
    session.answer(&again, CallOutcome::Unknown).unwrap();
    let last = session.next_unanswered().await.unwrap();
    assert_eq!((&asked, &again), (&again, &last));
    assert_eq!(session.carry_out(&last).unwrap(), done, "the same launch");
    session.answer(&last, done).unwrap();
    let update = session.update(&task("on-h1"), TaskState::Running).unwrap();
    session.acknowledged(&update).await.unwrap();
    assert_eq!(told.next().await, "on-h1 TASK_RUNNING");
}

#[tokio::test]
async fn a_repeated_update_may_be_told_twice_and_is_acknowledged_each_time() {
    let master = FakeMaster::start().await.unwrap();
    let (_driver, mut told, mut session) = launched(&master).await;
    let update = session.update(&task("on-h1"), TaskState::Running).unwrap();
    session.acknowledged(&update).await.unwrap();
    session.repeat(&update).unwrap();
    session.acknowledged(&update).await.unwrap();
    assert_eq!([told.next().await, told.next().await], ["on-h1 TASK_RUNNING"; 2]);
    nothing_else(&session, &mut told).await;
}

#[tokio::test]
async fn an_error_ends_the_driver_and_a_second_scheduler_ends_the_first() {
    let master = FakeMaster::start().await.unwrap();
    let (first, mut told, session) = launched(&master).await;
    let (out, _second_told) = mpsc::channel(1000);
    let second = SchedulerDriver::builder([master.address()]).framework_id(session.framework_id().clone());
    let second = second.start(Framework::new("test"), Recorder(out)).unwrap();
    let heir = master.subscribed().await.unwrap();
    assert_eq!(told.next().await, "error Framework failed over");
    assert_eq!(first.ended().await.unwrap_err().to_string(), "Framework failed over");
    assert!(session.heartbeat().is_err());
    heir.error("enough").unwrap();
    assert_eq!(second.ended().await.unwrap_err().to_string(), "enough");
}

#[tokio::test]
async fn the_second_master_of_two_leads_when_the_first_is_gone() {
    let first = FakeMaster::start().await.unwrap();
    let second = first.join().await.unwrap();
    // The follower names the leader, and carries the stream to it.
    let (_driver, mut told) = start(&[&second]);
    let session = second.subscribed().await.unwrap();
    assert_eq!(told.next().await, "registered fake-0001");
    first.fail_over_to(&second);
    let again = second.subscribed().await.unwrap();
    assert_eq!((again.term().0, again.asked_id()), (2, Some(session.framework_id())));
    assert_eq!(told.next().await, "disconnected");
    assert_eq!(told.next().await, format!("reregistered at {}", second.address()));

    second.fail_over_to(&first);
    let at_first = second.subscribed().await.unwrap();
    assert_eq!([told.next().await, told.next().await][1], format!("reregistered at {}", first.address()));
    // The driver knows the leader by now and dials it; its end makes the other one lead.
    at_first.redial("dial another one").unwrap();
    let moved = second.subscribed().await.unwrap();
    assert_eq!(moved.term().0, 3);
    drop(first);
    let last = second.subscribed().await.unwrap();
    assert_eq!((last.term().0, last.asked_id()), (4, Some(session.framework_id())));
}

#[tokio::test]
async fn waits_end_and_say_what_was_missing() {
    let master = FakeMaster::start().await.unwrap();
    master.patience(Duration::from_millis(1));
    let none = master.subscribed().await.unwrap_err();
    assert_eq!(none.to_string(), "no scheduler subscribed within 1ms");
    master.patience(Duration::from_secs(10));
    let (driver, _told, mut session) = launched(&master).await;
    let unknown = session.update(&task("other"), TaskState::Running).unwrap_err();
    assert_eq!(unknown.to_string(), "task other was not launched; launched were [on-h1]");
    driver.kill(&task("on-h1")).unwrap();
    let wrong = session.accepted().await.unwrap_err();
    assert!(wrong.to_string().starts_with("waited for an ACCEPT, but the scheduler called Kill"), "{wrong}");
    master.patience(Duration::from_millis(1));
    let silent = session.killed().await.unwrap_err();
    assert_eq!(silent.to_string(), "waited for a KILL, but the scheduler called nothing within 1ms");
    master.patience(Duration::from_secs(10));
    session.break_stream().unwrap();
    let ended = session.next_call().await.unwrap_err();
    assert!(ended.to_string().ends_with("the session ended: the test broke the stream"), "{ended}");
}

#[tokio::test]
async fn a_subscription_is_refused_as_scripted() {
    let master = FakeMaster::start().await.unwrap();
    master.answer_subscription(CallOutcome::Busy).unwrap();
    master.answer_subscription(CallOutcome::Refused("not you".into())).unwrap();
    let (driver, mut told) = start(&[&master]);
    assert_eq!(told.next().await, "error not you");
    assert_eq!(driver.ended().await.unwrap_err().to_string(), "not you");
}
