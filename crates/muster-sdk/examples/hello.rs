//! The first scheduler: prints each callback and launches `echo Hello, World!` on each offer.
//!
//! `cargo run --example hello -p muster-sdk -- 127.0.0.1:5050,127.0.0.1:5051,127.0.0.1:5052`

use muster_sdk::{
    AgentId, ExecutorId, Filters, Framework, FrameworkId, Offer, OfferId, Scheduler, SchedulerDriver,
    SdkError, Task, TaskUpdate,
};

struct Hello;

impl Scheduler for Hello {
    fn registered(&mut self, _: &SchedulerDriver, framework_id: &FrameworkId, master: &str) {
        println!("registered {framework_id} at {master}");
    }

    fn reregistered(&mut self, _: &SchedulerDriver, master: &str) {
        println!("reregistered at {master}");
    }

    fn disconnected(&mut self, _: &SchedulerDriver) {
        println!("disconnected");
    }

    fn resource_offers(&mut self, driver: &SchedulerDriver, offers: Vec<Offer>) {
        for offer in &offers {
            println!("offer {} of {}: {}", offer.id, offer.hostname, offer.resources);
            let task =
                Task::command(format!("hello-{}", offer.id), "echo Hello, World!").cpus(0.1).mem_mb(32);
            if let Err(error) = driver.accept([offer], [task], Filters::default()) {
                println!("not launched: {error}");
            }
        }
    }

    fn offer_rescinded(&mut self, _: &SchedulerDriver, offer_id: OfferId) {
        println!("offer rescinded {offer_id}");
    }

    fn status_update(&mut self, _: &SchedulerDriver, update: TaskUpdate) {
        println!("status {} {} {}", update.task_id, update.status.state, update.status.message);
    }

    fn framework_message(
        &mut self,
        _: &SchedulerDriver,
        agent: AgentId,
        executor: ExecutorId,
        data: Vec<u8>,
    ) {
        println!("message of {executor} on {agent}: {} bytes", data.len());
    }

    fn executor_lost(&mut self, _: &SchedulerDriver, agent: AgentId, executor: ExecutorId, status: i32) {
        println!("executor lost: {executor} on {agent}, status {status}");
    }

    fn agent_lost(&mut self, _: &SchedulerDriver, agent: AgentId) {
        println!("agent lost: {agent}");
    }

    fn error(&mut self, _: &SchedulerDriver, message: &str) {
        println!("error: {message}");
    }
}

fn main() -> Result<(), SdkError> {
    let masters = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:5050".into());
    SchedulerDriver::builder(masters.split(',')).start(Framework::new("hello"), Hello)?.join()
}
