//! The handle that schedulers hold, and the threads behind it.

use crate::credential::{Credential, Shows};
use crate::service::Service;
use crate::{Filters, Framework, Offer, Scheduler, SdkError, Task, TaskUpdate};
use muster_driver::{Callback, Config, Driver};
use muster_model::{AgentId, ExecutorId, FrameworkId, Resources, Role, SchedulerCall, TaskId, Token, Uuid};
use muster_proto::limits;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Calls, callbacks and acknowledgements that wait, each.
const CALLS_WAITING_MAX: usize = 10_000;
const CALLBACKS_WAITING_MAX: usize = 1_024;
/// Room that is left in a frame for what is not a task.
const FRAME_BYTES_SPARE: usize = 256 << 10;

/// How the driver is to stop.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StopWord {
    None,
    Stop { failover: bool },
    Abort,
}

/// Sets up a [`SchedulerDriver`].
#[derive(Debug, Clone)]
pub struct Builder {
    masters: Vec<String>,
    framework_id: Option<FrameworkId>,
    auto_acknowledge: bool,
    credential: Option<Credential>,
}

impl Builder {
    /// Goes on under the id that the framework had before, in another process.
    pub fn framework_id(mut self, framework_id: FrameworkId) -> Self {
        self.framework_id = Some(framework_id);
        self
    }

    /// Subscribes as this principal.
    pub fn credential(mut self, credential: Option<Credential>) -> Self {
        self.credential = credential;
        self
    }

    /// Leaves acknowledgement to the framework: see [`SchedulerDriver::acknowledge`].
    pub fn explicit_acknowledgements(mut self) -> Self {
        self.auto_acknowledge = false;
        self
    }

    /// Starts the driver: it subscribes, and calls back until it stops.
    pub fn start(self, framework: Framework, scheduler: impl Scheduler) -> Result<SchedulerDriver, SdkError> {
        if self.masters.is_empty() {
            return Err(SdkError::Argument("no master is given; name at least one host:port".into()));
        }
        let mut config = Config::new(self.masters, framework.build().map_err(SdkError::Framework)?);
        config.framework_id = self.framework_id;
        config.auto_acknowledge = self.auto_acknowledge;
        config.seed = rand::random();
        config.token = Some(Token(rand::random()));
        SchedulerDriver::spawn(config, Shows(self.credential), scheduler)
    }
}

/// A handle to a running driver; clones are cheap.
#[derive(Debug, Clone)]
pub struct SchedulerDriver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    calls: mpsc::Sender<SchedulerCall>,
    stop: watch::Sender<StopWord>,
    /// None while it runs.
    ended: watch::Receiver<Option<Result<(), String>>>,
}

impl SchedulerDriver {
    /// A driver that finds its leader by way of these masters, `host:port` each.
    pub fn builder(masters: impl IntoIterator<Item = impl Into<String>>) -> Builder {
        Builder {
            masters: masters.into_iter().map(Into::into).collect(),
            framework_id: None,
            auto_acknowledge: true,
            credential: None,
        }
    }

    fn spawn(config: Config, shows: Shows, scheduler: impl Scheduler) -> Result<Self, SdkError> {
        let (calls, calls_in) = mpsc::channel(CALLS_WAITING_MAX);
        let (callbacks, callbacks_in) = mpsc::channel(CALLBACKS_WAITING_MAX);
        let (handled, handled_in) = mpsc::channel(CALLBACKS_WAITING_MAX);
        let (stop, stop_in) = watch::channel(StopWord::None);
        let (ended_out, ended) = watch::channel(None);
        let service = Service {
            driver: Driver::new(config),
            calls: calls_in,
            handled: handled_in,
            stop: stop_in,
            callbacks,
            shows,
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SdkError::Start)?;
        let driver = Self(Arc::new(Inner { calls, stop, ended }));
        let told = driver.clone();
        let teller = std::thread::Builder::new()
            .name("scheduler".into())
            .spawn(move || call_back(scheduler, &told, callbacks_in, handled))
            .map_err(SdkError::Start)?;
        std::thread::Builder::new()
            .name("driver".into())
            .spawn(move || {
                let ended = runtime.block_on(service.run());
                runtime.shutdown_background();
                // The last callback comes before the end is known.
                let ended = match teller.join() {
                    Ok(()) => ended,
                    Err(_) => Err("a callback of the scheduler panicked".into()),
                };
                ended_out.send_replace(Some(ended));
            })
            .map_err(SdkError::Start)?;
        Ok(driver)
    }

    fn call(&self, call: SchedulerCall) -> Result<(), SdkError> {
        self.0.calls.try_send(call).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SdkError::Busy,
            mpsc::error::TrySendError::Closed(_) => SdkError::Stopped,
        })
    }

    /// Launches tasks with the resources of offers, all of one agent and one role. What is left over is not
    /// offered again for the filters' time. A task that is not launched gets a status update that says why.
    pub fn accept<'a>(
        &self,
        offers: impl IntoIterator<Item = &'a Offer>,
        tasks: impl IntoIterator<Item = Task>,
        filters: Filters,
    ) -> Result<(), SdkError> {
        let offers: Vec<_> = offers.into_iter().collect();
        let Some(first) = offers.first() else {
            return Err(SdkError::Argument("no offer is given; tasks run on offers".into()));
        };
        if offers.iter().any(|offer| (&offer.agent_id, &offer.role) != (&first.agent_id, &first.role)) {
            return Err(SdkError::Argument("the offers must all be of one agent and one role".into()));
        }
        let build = |task: Task| task.build(&first.agent_id).map_err(SdkError::Task);
        let tasks = tasks.into_iter().map(build).collect::<Result<Vec<_>, _>>()?;
        let bytes: usize = tasks.iter().map(|task| task.sealed.len() + 8).sum();
        if bytes > limits::FRAME_BYTES_MAX - FRAME_BYTES_SPARE || tasks.len() > limits::TASKS_PER_ACCEPT_MAX {
            let why =
                format!("{} tasks of {bytes} bytes are too many for one call; use more offers", tasks.len());
            return Err(SdkError::Argument(why));
        }
        let offer_ids = offers.iter().map(|offer| offer.id.clone()).collect();
        let (named, bad) = (Vec::new(), Vec::new()); // checked above
        self.call(SchedulerCall::Accept { offer_ids, tasks, named, bad, refuse_ms: filters.refuse_ms })
    }

    /// Gives offers back.
    pub fn decline<'a>(
        &self,
        offers: impl IntoIterator<Item = &'a Offer>,
        filters: Filters,
    ) -> Result<(), SdkError> {
        let offer_ids: Vec<_> = offers.into_iter().map(|offer| offer.id.clone()).collect();
        if offer_ids.is_empty() {
            return Ok(());
        }
        for some in offer_ids.chunks(limits::OFFERS_PER_CALL_MAX) {
            self.call(SchedulerCall::Decline { offer_ids: some.to_vec(), refuse_ms: filters.refuse_ms })?;
        }
        Ok(())
    }

    /// Ends a task. Asked for until it is recorded, over leader changes too.
    pub fn kill(&self, task_id: &TaskId) -> Result<(), SdkError> {
        self.call(SchedulerCall::Kill { task_id: task_id.clone(), agent_id: None, grace_ms: None })
    }

    /// Wants offers again in these roles, without filters. No roles = all.
    pub fn revive(&self, roles: &[Role]) -> Result<(), SdkError> {
        self.call(SchedulerCall::Revive { roles: roles.to_vec() })
    }

    /// Wants no offers in these roles. No roles = all.
    pub fn suppress(&self, roles: &[Role]) -> Result<(), SdkError> {
        self.call(SchedulerCall::Suppress { roles: roles.to_vec() })
    }

    /// Takes an update as received. Only with [`Builder::explicit_acknowledgements`].
    pub fn acknowledge(&self, update: &TaskUpdate) -> Result<(), SdkError> {
        self.acknowledge_update(&update.task_id, update.uuid)
    }

    /// The same, of an update that is not at hand any more.
    pub fn acknowledge_update(&self, task_id: &TaskId, uuid: Option<Uuid>) -> Result<(), SdkError> {
        match uuid {
            Some(uuid) => self.call(SchedulerCall::Acknowledge { task_id: task_id.clone(), uuid }),
            None => Ok(()),
        }
    }

    /// Asks for the latest status of tasks, of all when none are named. Two such questions are at the leader at a time;
    /// what more are asked follow as these are answered.
    pub fn reconcile(
        &self,
        tasks: impl IntoIterator<Item = (TaskId, Option<AgentId>)>,
    ) -> Result<(), SdkError> {
        let tasks: Vec<_> = tasks.into_iter().collect();
        if tasks.len() > limits::RECONCILE_TASKS_MAX {
            return Err(SdkError::Argument(format!("name at most {} tasks", limits::RECONCILE_TASKS_MAX)));
        }
        self.call(SchedulerCall::Reconcile { tasks })
    }

    /// Says what is needed, one entry for each placement, so that agents are ranked for it.
    pub fn request(&self, needs: impl IntoIterator<Item = Resources>) -> Result<(), SdkError> {
        let needs: Vec<_> = needs.into_iter().collect();
        if needs.len() > limits::NEEDS_MAX {
            return Err(SdkError::Argument(format!("name at most {} needs", limits::NEEDS_MAX)));
        }
        self.call(SchedulerCall::Request { needs })
    }

    /// Hands bytes to an executor, at most once.
    pub fn send_framework_message(
        &self,
        agent_id: &AgentId,
        executor_id: &ExecutorId,
        data: Vec<u8>,
    ) -> Result<(), SdkError> {
        if data.len() > limits::MESSAGE_BYTES_MAX {
            return Err(SdkError::Argument(format!(
                "a message has at most {} bytes",
                limits::MESSAGE_BYTES_MAX
            )));
        }
        self.call(SchedulerCall::Message {
            agent_id: agent_id.clone(),
            executor_id: executor_id.clone(),
            data,
        })
    }

    /// Stops once all calls are answered. With `failover` the framework and its tasks stay, for another driver
    /// to go on with under the same id; without, it is torn down with all its tasks.
    pub fn stop(&self, failover: bool) {
        self.0.stop.send_if_modified(|word| {
            let first = matches!(word, StopWord::None);
            if first {
                *word = StopWord::Stop { failover };
            }
            first
        });
    }

    /// Stops now. The masters see a broken connection.
    pub fn abort(&self) {
        self.0.stop.send_replace(StopWord::Abort);
    }

    /// Blocks until the driver has stopped and the last callback has returned. Not for callbacks, nor for
    /// async code, which has [`SchedulerDriver::ended`].
    pub fn join(&self) -> Result<(), SdkError> {
        futures::executor::block_on(self.ended())
    }

    /// Waits until the driver has stopped and the last callback has returned.
    pub async fn ended(&self) -> Result<(), SdkError> {
        let mut ended = self.0.ended.clone();
        let ended = ended.wait_for(Option::is_some).await.map(|ended| ended.clone());
        match ended {
            Ok(Some(Ok(()))) => Ok(()),
            Ok(Some(Err(why))) => Err(SdkError::Ended(why)),
            Ok(None) | Err(_) => Err(SdkError::Ended("the driver's thread is gone".into())),
        }
    }
}

/// Runs the callbacks, one at a time.
fn call_back(
    mut scheduler: impl Scheduler,
    driver: &SchedulerDriver,
    mut callbacks: mpsc::Receiver<Callback>,
    handled: mpsc::Sender<(TaskId, Uuid)>,
) {
    while let Some(callback) = callbacks.blocking_recv() {
        match callback {
            Callback::Registered { framework_id, master } => {
                scheduler.registered(driver, &framework_id, &master);
            }
            Callback::Reregistered { master } => scheduler.reregistered(driver, &master),
            Callback::Disconnected => scheduler.disconnected(driver),
            Callback::Offers(offers) => {
                scheduler.resource_offers(driver, offers.into_iter().map(Offer::from).collect());
            }
            Callback::Rescinded(offer_id) => scheduler.offer_rescinded(driver, offer_id),
            Callback::Update { task_id, agent_id, status, uuid } => {
                let update = TaskUpdate { task_id: task_id.clone(), agent_id, status, uuid };
                scheduler.status_update(driver, update);
                if let Some(uuid) = uuid {
                    // Fails only when the driver has ended.
                    let _ = handled.blocking_send((task_id, uuid));
                }
            }
            Callback::Message { agent_id, executor_id, data } => {
                scheduler.framework_message(driver, agent_id, executor_id, data);
            }
            Callback::AgentLost(agent_id) => scheduler.agent_lost(driver, agent_id),
            Callback::ExecutorLost { agent_id, executor_id, status } => {
                scheduler.executor_lost(driver, agent_id, executor_id, status);
            }
            Callback::Error(why) => scheduler.error(driver, &why),
        }
    }
}
