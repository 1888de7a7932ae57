//! What a framework's author writes.

use crate::{Offer, SchedulerDriver};
use muster_model::{AgentId, ExecutorId, FrameworkId, OfferId, Status, TaskId, Uuid};

/// A task's status as a scheduler is told it.
#[derive(Debug, Clone)]
pub struct TaskUpdate {
    /// The task.
    pub task_id: TaskId,
    /// Its agent, where known.
    pub agent_id: Option<AgentId>,
    /// Its state, why, and since when.
    pub status: Status,
    /// What [`SchedulerDriver::acknowledge`] takes; none when nothing is to be acknowledged.
    pub uuid: Option<Uuid>,
}

/// A framework's scheduler. Every callback may be left out.
///
/// Callbacks come one at a time on a thread of their own. They may block, but offers grow old meanwhile.
#[allow(unused_variables)]
pub trait Scheduler: Send + 'static {
    /// The framework is subscribed for the first time and has this id from now on.
    fn registered(&mut self, driver: &SchedulerDriver, framework_id: &FrameworkId, master: &str) {}

    /// The framework is subscribed again, with the same id, after a leader change or a broken connection.
    /// Offers of before are void.
    fn reregistered(&mut self, driver: &SchedulerDriver, master: &str) {}

    /// The connection to the leader is lost. The driver looks for the new leader by itself.
    fn disconnected(&mut self, driver: &SchedulerDriver) {}

    /// Resources to use or decline. What is neither is taken back after a while.
    fn resource_offers(&mut self, driver: &SchedulerDriver, offers: Vec<Offer>) {}

    /// An offer is void.
    fn offer_rescinded(&mut self, driver: &SchedulerDriver, offer_id: OfferId) {}

    /// A task's status. May come twice.
    fn status_update(&mut self, driver: &SchedulerDriver, update: TaskUpdate) {}

    /// Bytes from an executor. At most once.
    fn framework_message(
        &mut self,
        driver: &SchedulerDriver,
        agent_id: AgentId,
        executor_id: ExecutorId,
        data: Vec<u8>,
    ) {
    }

    /// An executor ended; `status` is its wait status. Its tasks have updates of their own.
    fn executor_lost(
        &mut self,
        driver: &SchedulerDriver,
        agent_id: AgentId,
        executor_id: ExecutorId,
        status: i32,
    ) {
    }

    /// An agent is lost. Its tasks have updates of their own.
    fn agent_lost(&mut self, driver: &SchedulerDriver, agent_id: AgentId) {}

    /// The masters want no more of this framework; the driver stops.
    fn error(&mut self, driver: &SchedulerDriver, message: &str) {}
}
