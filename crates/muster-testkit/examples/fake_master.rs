//! A framework's test without a cluster: its scheduler is offered resources, launches a task, survives a leader change
//! and hears how the task ended.
//!
//! `cargo run -p muster-testkit --example fake_master`

use muster_sdk::{
    Filters, Framework, Offer, Resources, Scheduler, SchedulerDriver, Task, TaskState, TaskUpdate,
};
use muster_testkit::fake::{FakeMaster, OfferSpec};

/// The scheduler under test: one task on each offer.
struct Mine;

impl Scheduler for Mine {
    fn resource_offers(&mut self, driver: &SchedulerDriver, offers: Vec<Offer>) {
        for offer in &offers {
            let task = Task::command(format!("on-{}", offer.hostname), "echo hello").cpus(0.5).mem_mb(64);
            if let Err(error) = driver.accept([offer], [task], Filters::default()) {
                eprintln!("{error}");
            }
        }
    }

    fn status_update(&mut self, _: &SchedulerDriver, update: TaskUpdate) {
        println!("{} is {}", update.task_id, update.status.state);
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let master = FakeMaster::start().await?;
    let driver = SchedulerDriver::builder([master.address()]).start(Framework::new("mine"), Mine)?;
    let mut session = master.subscribed().await?;
    session.offer(OfferSpec::new("host-1", Resources::of(4_000, 8_192)))?;
    let tasks = session.accepted().await?;
    session.update(&tasks[0].task_id, TaskState::Running)?; // acknowledged too late: it comes again
    master.fail_over();
    let mut session = master.subscribed().await?;
    let ended = session.update(&tasks[0].task_id, TaskState::Finished)?;
    session.acknowledged(&ended).await?;
    println!("{:?} went on in term {}", session.asked_id(), session.term());
    driver.stop(false);
    while session.next_call().await? != muster_testkit::fake::SchedulerCall::Teardown {}
    Ok(driver.ended().await?)
}
