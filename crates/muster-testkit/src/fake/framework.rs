//! What a fake master knows of one framework, and how it answers its calls.

use anyhow::{Context, bail, ensure};
use muster_model::event::CallOutcome;
use muster_model::{
    AcceptOutcome, AgentId, BadTask, FrameworkInfo, LaunchNumber, Offer, OfferId, Reason, Resources,
    SchedulerCall, SchedulerEvent, Sealed, Source, Status, TaskId, TaskOutcome, TaskSpec, TaskState, Uuid,
    WallTime,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Offers that stand and tasks that are remembered, each.
const OFFERS_MAX: usize = 10_000;
const TASKS_MAX: usize = 10_000;
/// Updates of one task that wait for their acknowledgement.
const UPDATES_MAX: usize = 100;

/// A framework, over leader changes.
#[derive(Debug)]
pub(crate) struct Framework {
    pub(crate) info: FrameworkInfo,
    /// Torn down: it may not subscribe again.
    pub(crate) removed: bool,
    offers: BTreeMap<OfferId, Offer>,
    tasks: BTreeMap<TaskId, Task>,
}

#[derive(Debug)]
struct Task {
    launch: LaunchNumber,
    agent_id: AgentId,
    state: TaskState,
    /// Updates so far.
    seq: u32,
    /// Those that are not acknowledged.
    waiting: VecDeque<(Uuid, Status)>,
}

impl Framework {
    pub(crate) fn new(info: FrameworkInfo) -> Self {
        Self { info, removed: false, offers: BTreeMap::new(), tasks: BTreeMap::new() }
    }

    pub(crate) fn offered(&mut self, offer: Offer) -> anyhow::Result<()> {
        ensure!(self.offers.len() < OFFERS_MAX, "{OFFERS_MAX} offers stand already: rescind some");
        self.offers.insert(offer.offer_id.clone(), offer);
        Ok(())
    }

    pub(crate) fn rescinded(&mut self, offer_id: &OfferId) -> anyhow::Result<()> {
        self.offers.remove(offer_id).with_context(|| format!("offer {offer_id} does not stand"))?;
        Ok(())
    }

    /// Leaders forget their offers.
    pub(crate) fn void_offers(&mut self) {
        self.offers.clear();
    }

    /// Does what a call asks for: what a real master would answer, and the events that come before the answer.
    pub(crate) fn carry_out(
        &mut self,
        call: &SchedulerCall,
        next_launch: impl FnMut() -> LaunchNumber,
    ) -> (CallOutcome, Vec<SchedulerEvent>) {
        let mut events = Vec::new();
        match call {
            SchedulerCall::Accept { offer_ids, tasks, bad, .. } => {
                let tasks = self.accept(offer_ids, tasks, bad, next_launch);
                return (CallOutcome::Accepted(AcceptOutcome { tasks }), events);
            }
            SchedulerCall::Decline { offer_ids, .. } => {
                offer_ids.iter().for_each(|id| drop(self.offers.remove(id)));
            }
            SchedulerCall::Kill { task_id, .. } if !self.tasks.contains_key(task_id) => {
                events.push(self.latest(task_id));
            }
            SchedulerCall::Acknowledge { task_id, uuid } => {
                if let Some(task) = self.tasks.get_mut(task_id) {
                    task.waiting.retain(|(waiting, _)| waiting != uuid);
                }
            }
            SchedulerCall::Reconcile { tasks } if tasks.is_empty() => {
                events.extend(self.tasks.keys().map(|task_id| self.latest(task_id)));
            }
            SchedulerCall::Reconcile { tasks } => {
                events.extend(tasks.iter().map(|(task_id, _)| self.latest(task_id)));
            }
            SchedulerCall::Teardown => self.removed = true,
            SchedulerCall::Operate { .. }
            | SchedulerCall::AcknowledgeOperation { .. }
            | SchedulerCall::ReconcileOperations { .. } => {
                let why = "the fake master carries out no operations but launches";
                return (CallOutcome::Refused(why.into()), events);
            }
            SchedulerCall::Subscribe { .. }
            | SchedulerCall::Revive { .. }
            | SchedulerCall::Suppress { .. }
            | SchedulerCall::Kill { .. }
            | SchedulerCall::Request { .. }
            | SchedulerCall::Update { .. }
            | SchedulerCall::Refused { .. }
            | SchedulerCall::Message { .. }
            | SchedulerCall::AnswerInverse { .. }
            | SchedulerCall::Shutdown { .. } => {}
        }
        (CallOutcome::Done, events)
    }

    fn accept(
        &mut self,
        offer_ids: &[OfferId],
        tasks: &[TaskSpec],
        bad: &[BadTask],
        mut next_launch: impl FnMut() -> LaunchNumber,
    ) -> Vec<(TaskId, TaskOutcome)> {
        let all_stand = offer_ids.iter().all(|id| self.offers.contains_key(id));
        let used: Vec<_> = offer_ids.iter().filter_map(|id| self.offers.remove(id)).collect();
        let agent_id = used.first().filter(|_| all_stand).map(|offer| offer.agent_id.clone());
        let mut left = used.iter().fold(Resources::none(), |sum, offer| sum.plus(&offer.resources));
        let outcomes = BadTask::among(bad, tasks).map(|asked| match asked {
            Ok(task) => {
                let outcome = self.launch(task, agent_id.as_ref(), &mut left, &mut next_launch);
                (task.task_id.clone(), outcome)
            }
            Err(bad) => {
                let outcome = refused(TaskState::Error, Reason::TaskInvalid, bad.why.clone());
                (bad.task_id.clone(), outcome)
            }
        });
        outcomes.collect()
    }

    fn launch(
        &mut self,
        task: &TaskSpec,
        agent_id: Option<&AgentId>,
        left: &mut Resources,
        next_launch: &mut impl FnMut() -> LaunchNumber,
    ) -> TaskOutcome {
        let Some(agent_id) = agent_id else {
            // The call was carried out before, or its offers are of a former leader.
            return match self.tasks.get(&task.task_id) {
                Some(known) => TaskOutcome::Launched(known.launch),
                None => {
                    let why = "the offer is no longer valid: wait for the next one";
                    refused(TaskState::Dropped, Reason::InvalidOffers, why)
                }
            };
        };
        if self.tasks.contains_key(&task.task_id) {
            return refused(TaskState::Error, Reason::TaskInvalid, "the task's id is in use already");
        }
        if !left.contains(&task.resources) {
            let why = format!("the task needs {}, what is left of the offers is {left}", task.resources);
            return refused(TaskState::Error, Reason::TaskInvalid, why);
        }
        if self.tasks.len() >= TASKS_MAX {
            let why = format!("a fake master remembers at most {TASKS_MAX} tasks");
            return refused(TaskState::Dropped, Reason::TaskInvalid, why);
        }
        left.subtract(&task.resources);
        let launch = next_launch();
        let (agent_id, state) = (agent_id.clone(), TaskState::Staging);
        let waiting = VecDeque::new();
        self.tasks.insert(task.task_id.clone(), Task { launch, agent_id, state, seq: 0, waiting });
        TaskOutcome::Launched(launch)
    }

    /// The answer to a question after a task.
    fn latest(&self, task_id: &TaskId) -> SchedulerEvent {
        let (state, agent_id, message) = match self.tasks.get(task_id) {
            Some(task) => (task.state, Some(task.agent_id.clone()), "Reconciliation: Latest task state"),
            None => (TaskState::Unknown, None, "Reconciliation: Task is unknown"),
        };
        let aware = self.info.capabilities.partition_aware;
        let status = Status {
            state: if aware { state } else { state.for_partition_unaware() },
            source: Source::Master,
            reason: Some(Reason::Reconciliation),
            message: message.into(),
            wall: WallTime(0),
            sealed: Sealed::default(),
        };
        SchedulerEvent::Update { task_id: task_id.clone(), agent_id, status, uuid: None }
    }

    /// A new update of a launched task, to be sent, and to be repeated until it is acknowledged.
    pub(crate) fn update(
        &mut self,
        task_id: &TaskId,
        status: Status,
    ) -> anyhow::Result<(Uuid, SchedulerEvent)> {
        let Some(task) = self.tasks.get_mut(task_id) else {
            let some: Vec<_> = self.tasks.keys().take(10).collect();
            bail!("task {task_id} was not launched; launched were {some:?}");
        };
        ensure!(
            task.waiting.len() < UPDATES_MAX,
            "{UPDATES_MAX} updates of task {task_id} wait for their acknowledgements: read the scheduler's calls"
        );
        task.seq += 1;
        task.state = status.state;
        let uuid = Uuid::of(task.launch, task.seq);
        task.waiting.push_back((uuid, status.clone()));
        let agent_id = Some(task.agent_id.clone());
        Ok((uuid, SchedulerEvent::Update { task_id: task_id.clone(), agent_id, status, uuid: Some(uuid) }))
    }

    /// All updates that are not acknowledged, those of a task in order.
    pub(crate) fn unacknowledged(&self) -> Vec<SchedulerEvent> {
        let of_task = |(task_id, task): (&TaskId, &Task)| {
            let (task_id, agent_id) = (task_id.clone(), task.agent_id.clone());
            let update = move |(uuid, status): &(Uuid, Status)| SchedulerEvent::Update {
                task_id: task_id.clone(),
                agent_id: Some(agent_id.clone()),
                status: status.clone(),
                uuid: Some(*uuid),
            };
            task.waiting.iter().map(update).collect::<Vec<_>>()
        };
        self.tasks.iter().flat_map(of_task).collect()
    }
}

fn refused(state: TaskState, reason: Reason, message: impl Into<Arc<str>>) -> TaskOutcome {
    TaskOutcome::Refused { state, reason, message: message.into() }
}
