//! What the kit promises about itself.

use crate::{Plan, TestCluster, leftovers};
use muster_sdk::{Filters, Framework, Offer, Scheduler, SchedulerDriver, Task, TaskState, TaskUpdate};
use std::time::Duration;
use tokio::sync::mpsc;

/// Launches one task that runs for ever, and tells of its state.
struct Endless {
    launched: bool,
    tries: usize,
    states: mpsc::Sender<TaskState>,
}

impl Scheduler for Endless {
    fn resource_offers(&mut self, driver: &SchedulerDriver, offers: Vec<Offer>) {
        for offer in offers {
            if !std::mem::replace(&mut self.launched, true) {
                self.tries += 1;
                let task =
                    Task::command(format!("endless{}", self.tries), "sleep 100000").cpus(0.1).mem_mb(16);
                driver.accept([&offer], [task], Filters::default()).unwrap();
            }
        }
    }

    fn status_update(&mut self, _: &SchedulerDriver, update: TaskUpdate) {
        // Where leadership moved meanwhile, its offer was void.
        self.launched &= update.status.state != TaskState::Dropped;
        self.states.blocking_send(update.status.state).unwrap();
    }
}

async fn with_a_task(plan: Plan) -> (TestCluster, SchedulerDriver) {
    let cluster = TestCluster::start(plan).await.unwrap();
    let (states, mut told) = mpsc::channel(16);
    let framework = Framework::new("endless").failover_timeout(Duration::from_secs(600));
    let driver = SchedulerDriver::builder(cluster.masters());
    let driver = driver.start(framework, Endless { launched: false, tries: 0, states }).unwrap();
    while told.recv().await.unwrap() != TaskState::Running {}
    // Nobody listens any more.
    driver.abort();
    (cluster, driver)
}

#[tokio::test]
async fn a_dropped_cluster_leaves_neither_processes_nor_files() {
    let (cluster, _driver) = with_a_task(Plan { masters: 1, agents: 1, ..Plan::default() }).await;
    let dir = cluster.dir().to_owned();
    let sleeps = |dir| leftovers::of(dir).iter().any(|process| process.command.contains("sleep 100000"));
    // The task outlives its agent.
    cluster.kill("a1").unwrap();
    assert!(sleeps(&dir));
    drop(cluster);
    assert!(leftovers::of(&dir).is_empty() && !dir.exists());
}

#[tokio::test]
async fn members_are_killed_paused_and_restarted_and_all_end_in_order() {
    let (cluster, _driver) = with_a_task(Plan { agents: 1, ..Plan::default() }).await;
    let (leader, term) = cluster.serving().await.unwrap();
    cluster.kill(&leader).unwrap();
    assert!(cluster.pid(&leader).unwrap().is_none());
    let (second, second_term) = cluster.serving().await.unwrap();
    assert!(second != leader && second_term > term);
    cluster.restart(&leader).unwrap();
    cluster.caught_up(&leader).await.unwrap();

    let paused = cluster.pause(&second).unwrap();
    assert!(cluster.agents_by(&second).await.is_err());
    assert_ne!(cluster.leader().await.unwrap(), second);
    drop(paused);
    cluster.caught_up(&second).await.unwrap();

    let replicas = cluster.replicas().await.unwrap();
    assert!(replicas.iter().all(|one| one.state_hash == replicas[0].state_hash), "{replicas:?}");
    assert_eq!(cluster.error_lines(), Vec::<String>::new());
    assert!(cluster.kill("m9").is_err() && cluster.restart(&leader).is_err());
    let end = cluster.end().await.unwrap();
    assert!(end.killed.is_empty() && end.left.is_empty(), "{end:?}");
}

#[tokio::test]
async fn a_master_that_is_asked_to_end_calls_nothing_an_error() {
    let cluster = TestCluster::start(Plan { agents: 1, ..Plan::default() }).await.unwrap();
    for name in [cluster.master_names(), cluster.master_names()].concat() {
        cluster.serving().await.unwrap();
        assert!(cluster.stop(&name).await.unwrap().success());
        cluster.restart(&name).unwrap();
        cluster.caught_up(&name).await.unwrap();
    }
    assert_eq!(cluster.error_lines(), Vec::<String>::new());
}
