//! What the leader's loop counts for metrics: what clients call and are told, and how long decisions take.
//!
//! # Laws
//! - Counting takes no lock for a call or an event, and decides nothing.
//! - What is kept of frameworks is bounded by how many there are, and [`OVER`] that are over.

use muster_leader::Counts;
use muster_model::{
    AgentCall, CallOutcome, Event, FrameworkId, OfferId, Operation, Reason, SchedulerCall, SchedulerEvent,
    TaskOutcome, TaskState,
};
use muster_registry::Registry;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Frameworks that are over and still counted, at most (Mesos keeps as many).
const OVER: usize = 50;
/// Times of which percentiles are taken, at most: the newest.
const SAMPLES: usize = 1_000;

/// Numbers of one kind, by name. The names are Mesos'.
macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident: $($variant:ident = $text:literal),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $($variant),+ }

        impl $name {
            /// All of them, in order.
            pub(crate) const NAMES: &'static [&'static str] = &[$($text),+];
        }
    };
}

numbers! {
    /// What schedulers call.
    CallKind:
    Accept = "accept", AcceptInverseOffers = "accept_inverse_offers", Acknowledge = "acknowledge",
    AcknowledgeOperationStatus = "acknowledge_operation_status", Decline = "decline",
    DeclineInverseOffers = "decline_inverse_offers", Kill = "kill", Message = "message",
    Reconcile = "reconcile", ReconcileOperations = "reconcile_operations", Request = "request",
    Revive = "revive", Shutdown = "shutdown", Subscribe = "subscribe", Suppress = "suppress",
    Teardown = "teardown", UpdateFramework = "update_framework",
}

numbers! {
    /// What schedulers are told.
    EventKind:
    Error = "error", Failure = "failure", Heartbeat = "heartbeat", InverseOffers = "inverse_offers",
    Message = "message", Offers = "offers", Rescind = "rescind",
    RescindInverseOffer = "rescind_inverse_offer", Subscribed = "subscribed", Update = "update",
    UpdateOperationStatus = "update_operation_status",
}

numbers! {
    /// What is asked for in ACCEPT.
    OperationKind:
    Create = "create", Destroy = "destroy", Launch = "launch", LaunchGroup = "launch_group",
    Reserve = "reserve", Unreserve = "unreserve",
}

numbers! {
    /// What becomes of offers.
    OfferKind:
    Accepted = "accepted", Declined = "declined", Rescinded = "rescinded", Sent = "sent",
}

numbers! {
    /// Words that clients say, as Mesos calls them between processes.
    MessageKind:
    DeclineOffers = "decline_offers", ExecutorToFramework = "executor_to_framework",
    ExitedExecutor = "exited_executor", FrameworkToExecutor = "framework_to_executor", KillTask = "kill_task",
    LaunchTasks = "launch_tasks", OperationStatusUpdateAcknowledgement = "operation_status_update_acknowledgement",
    ReconcileOperations = "reconcile_operations", ReconcileTasks = "reconcile_tasks",
    RegisterFramework = "register_framework", RegisterAgent = "register_slave",
    ReregisterFramework = "reregister_framework", ReregisterAgent = "reregister_slave",
    ResourceRequest = "resource_request", ReviveOffers = "revive_offers", StatusUpdate = "status_update",
    StatusUpdateAcknowledgement = "status_update_acknowledgement", SuppressOffers = "suppress_offers",
    UnregisterFramework = "unregister_framework",
}

const CALLS: usize = CallKind::NAMES.len();
const EVENTS: usize = EventKind::NAMES.len();
const OPERATIONS: usize = OperationKind::NAMES.len();
const OFFERS: usize = OfferKind::NAMES.len();
const MESSAGES: usize = MessageKind::NAMES.len();

/// States in which tasks end.
pub(crate) const ENDED: [TaskState; 8] = [
    TaskState::Finished,
    TaskState::Failed,
    TaskState::Killed,
    TaskState::Error,
    TaskState::Lost,
    TaskState::Dropped,
    TaskState::Gone,
    TaskState::GoneByOperator,
];

/// Counts of one kind.
#[derive(Debug)]
struct Numbers<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Numbers<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> Numbers<N> {
    fn add(&self, at: usize, n: usize) {
        if let Some(number) = self.0.get(at) {
            number.fetch_add(n as u64, Relaxed);
        }
    }

    /// All of them, with these names.
    fn named(&self, names: &'static [&'static str]) -> impl Iterator<Item = (&'static str, u64)> {
        names.iter().copied().zip(self.0.iter().map(|number| number.load(Relaxed)))
    }
}

/// Of one framework.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    calls: Numbers<CALLS>,
    events: Numbers<EVENTS>,
    operations: Numbers<OPERATIONS>,
    offers: Numbers<OFFERS>,
    ended: Numbers<{ ENDED.len() }>,
}

impl Tally {
    pub(crate) fn calls(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.calls.named(CallKind::NAMES)
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.events.named(EventKind::NAMES)
    }

    pub(crate) fn operations(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.operations.named(OperationKind::NAMES)
    }

    pub(crate) fn offers(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.offers.named(OfferKind::NAMES)
    }

    /// Its tasks that ended, by state.
    pub(crate) fn ended(&self) -> impl Iterator<Item = (TaskState, u64)> {
        ENDED.into_iter().zip(self.ended.0.iter().map(|number| number.load(Relaxed)))
    }

    pub(crate) fn task_ended(&self, state: TaskState) {
        if let Some(at) = ENDED.iter().position(|it| *it == state) {
            self.ended.add(at, 1);
        }
    }

    /// It calls. `stands` says of an offer whether it stands.
    pub(crate) fn called(&self, call: &SchedulerCall, stands: impl Fn(&OfferId) -> bool) {
        let Some(kind) = call_kind(call) else { return };
        self.calls.add(kind as usize, 1);
        let standing = |ids: &[OfferId]| ids.iter().filter(|id| stands(id)).count();
        match call {
            // Without anything to do with them offers are given back.
            SchedulerCall::Accept { offer_ids, tasks, bad, .. } if tasks.is_empty() && bad.is_empty() => {
                self.offers.add(OfferKind::Declined as usize, standing(offer_ids));
            }
            SchedulerCall::Accept { offer_ids, tasks, bad, .. } => {
                self.offers.add(OfferKind::Accepted as usize, standing(offer_ids));
                self.operations.add(OperationKind::Launch as usize, tasks.len() + bad.len());
            }
            SchedulerCall::Operate { offer_ids, operations, .. } => {
                self.offers.add(OfferKind::Accepted as usize, standing(offer_ids));
                operations.iter().for_each(|(operation, _)| self.asked(operation));
            }
            SchedulerCall::Decline { offer_ids, .. } => {
                self.offers.add(OfferKind::Declined as usize, standing(offer_ids));
            }
            _ => {}
        }
    }

    fn asked(&self, operation: &Operation) {
        use muster_model::Conversion;
        let (kind, n) = match operation {
            // Each task is one: whether a client launches them by one operation or by several is told alike.
            Operation::Launch { tasks, bad } => (OperationKind::Launch, tasks.len() + bad.len()),
            Operation::LaunchGroup { .. } => (OperationKind::LaunchGroup, 1),
            Operation::Convert {
                conversion: Conversion::Reserve(_) | Conversion::Rereserve { .. }, ..
            } => (OperationKind::Reserve, 1),
            Operation::Convert { conversion: Conversion::Unreserve(_), .. } => (OperationKind::Unreserve, 1),
            Operation::Convert { conversion: Conversion::Create(_), .. } => (OperationKind::Create, 1),
            Operation::Convert { conversion: Conversion::Destroy(_), .. } => (OperationKind::Destroy, 1),
            Operation::Bad { .. } => return,
        };
        self.operations.add(kind as usize, n);
    }

    /// It is told something.
    pub(crate) fn told(&self, event: &SchedulerEvent) {
        let count = |kind: EventKind| self.events.add(kind as usize, 1);
        match event {
            SchedulerEvent::Subscribed { .. } => {
                count(EventKind::Subscribed);
                // That it subscribed is known by this alone when it is new.
                self.calls.add(CallKind::Subscribe as usize, 1);
            }
            SchedulerEvent::Offers(offers) => {
                count(EventKind::Offers);
                self.offers.add(OfferKind::Sent as usize, offers.len());
            }
            SchedulerEvent::Rescind(_) => {
                count(EventKind::Rescind);
                self.offers.add(OfferKind::Rescinded as usize, 1);
            }
            SchedulerEvent::InverseOffers(_) => count(EventKind::InverseOffers),
            SchedulerEvent::RescindInverse(_) => count(EventKind::RescindInverseOffer),
            SchedulerEvent::Update { .. } => count(EventKind::Update),
            SchedulerEvent::Operation(_) => count(EventKind::UpdateOperationStatus),
            SchedulerEvent::Message { .. } => count(EventKind::Message),
            SchedulerEvent::AgentLost(_) | SchedulerEvent::ExecutorLost { .. } => count(EventKind::Failure),
            SchedulerEvent::Error(_) => count(EventKind::Error),
            SchedulerEvent::Heartbeat => count(EventKind::Heartbeat),
            // Of each task that was refused it is told by an update.
            SchedulerEvent::Outcome { outcome: CallOutcome::Accepted(became), .. } => {
                for (_, task) in &became.tasks {
                    if let TaskOutcome::Refused { state, .. } = task {
                        count(EventKind::Update);
                        self.task_ended(*state);
                    }
                }
            }
            SchedulerEvent::Outcome { .. } => {}
        }
    }
}

fn call_kind(call: &SchedulerCall) -> Option<CallKind> {
    Some(match call {
        SchedulerCall::Subscribe { .. } => return None, // counted when it is done
        SchedulerCall::Refused { .. } => return None,   // a part of an ACCEPT
        SchedulerCall::Accept { .. } | SchedulerCall::Operate { .. } => CallKind::Accept,
        SchedulerCall::Decline { .. } => CallKind::Decline,
        SchedulerCall::Revive { .. } => CallKind::Revive,
        SchedulerCall::Suppress { .. } => CallKind::Suppress,
        SchedulerCall::Kill { .. } => CallKind::Kill,
        SchedulerCall::Acknowledge { .. } => CallKind::Acknowledge,
        SchedulerCall::Reconcile { .. } => CallKind::Reconcile,
        SchedulerCall::Request { .. } => CallKind::Request,
        SchedulerCall::Message { .. } => CallKind::Message,
        SchedulerCall::Shutdown { .. } => CallKind::Shutdown,
        SchedulerCall::AnswerInverse { accepted: true, .. } => CallKind::AcceptInverseOffers,
        SchedulerCall::AnswerInverse { accepted: false, .. } => CallKind::DeclineInverseOffers,
        SchedulerCall::AcknowledgeOperation { .. } => CallKind::AcknowledgeOperationStatus,
        SchedulerCall::ReconcileOperations { .. } => CallKind::ReconcileOperations,
        SchedulerCall::Teardown => CallKind::Teardown,
        SchedulerCall::Update { .. } => CallKind::UpdateFramework,
    })
}

/// What Mesos calls a scheduler's call between processes.
fn message_of(call: &SchedulerCall) -> Option<MessageKind> {
    Some(match call {
        SchedulerCall::Subscribe { framework_id: None, .. } => MessageKind::RegisterFramework,
        SchedulerCall::Subscribe { .. } => MessageKind::ReregisterFramework,
        SchedulerCall::Accept { .. } | SchedulerCall::Operate { .. } => MessageKind::LaunchTasks,
        SchedulerCall::Decline { .. } => MessageKind::DeclineOffers,
        SchedulerCall::Revive { .. } => MessageKind::ReviveOffers,
        SchedulerCall::Suppress { .. } => MessageKind::SuppressOffers,
        SchedulerCall::Kill { .. } => MessageKind::KillTask,
        SchedulerCall::Acknowledge { .. } => MessageKind::StatusUpdateAcknowledgement,
        SchedulerCall::Reconcile { .. } => MessageKind::ReconcileTasks,
        SchedulerCall::Request { .. } => MessageKind::ResourceRequest,
        SchedulerCall::Message { .. } => MessageKind::FrameworkToExecutor,
        SchedulerCall::AcknowledgeOperation { .. } => MessageKind::OperationStatusUpdateAcknowledgement,
        SchedulerCall::ReconcileOperations { .. } => MessageKind::ReconcileOperations,
        SchedulerCall::Teardown => MessageKind::UnregisterFramework,
        SchedulerCall::Shutdown { .. }
        | SchedulerCall::Refused { .. }
        | SchedulerCall::AnswerInverse { .. }
        | SchedulerCall::Update { .. } => return None,
    })
}

/// Times of one kind.
#[derive(Debug, Default)]
pub(crate) struct Timer(Mutex<Times>);

/// The newest of some times, in ms, and how many there were.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times {
    pub(crate) count: u64,
    newest: VecDeque<f64>,
}

impl Timer {
    pub(crate) fn took(&self, time: Duration) {
        let mut times = lock(&self.0);
        times.count += 1;
        if times.newest.len() == SAMPLES {
            times.newest.pop_front();
        }
        times.newest.push_back(time.as_secs_f64() * 1_000.0);
    }

    pub(crate) fn times(&self) -> Times {
        lock(&self.0).clone()
    }
}

impl Times {
    pub(crate) fn last(&self) -> Option<f64> {
        self.newest.back().copied()
    }

    /// The newest, from the shortest to the longest.
    pub(crate) fn sorted(&self) -> Vec<f64> {
        let mut sorted: Vec<f64> = self.newest.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// How long decisions take.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// A round of the allocator.
    pub(crate) allocation_run: Timer,
    /// From when a round is wanted until it begins.
    pub(crate) allocation_latency: Timer,
    /// From when something is proposed until a majority has it and it is applied here.
    pub(crate) store: Timer,
}

/// All that is counted. A clone counts on the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tallies(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    messages: Numbers<MESSAGES>,
    dropped: AtomicU64,
    frameworks: Mutex<Frameworks>,
    /// Tasks that were not launched.
    refused: Mutex<BTreeMap<(TaskState, Reason), u64>>,
    /// Of reigns that are over.
    former: Mutex<Counts>,
    timers: Timers,
}

#[derive(Debug, Default)]
struct Frameworks {
    by_id: HashMap<FrameworkId, Arc<Tally>>,
    /// Oldest first.
    over: VecDeque<FrameworkId>,
}

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tallies {
    pub(crate) fn timers(&self) -> &Timers {
        &self.0.timers
    }

    /// A reign began: who is not known any more is not counted any more.
    pub(crate) fn begin(&self, registry: &Registry) {
        let mut frameworks = lock(&self.0.frameworks);
        let is_over = |id: &FrameworkId| registry.framework(id).is_none();
        // They come newest first.
        let over = registry.completed_frameworks().map(|it| &it.framework.id).filter(|id| is_over(id));
        frameworks.over = over.take(OVER).cloned().collect::<Vec<_>>().into_iter().rev().collect();
        let Frameworks { by_id, over } = &mut *frameworks;
        by_id.retain(|id, _| !is_over(id) || over.contains(id));
        for framework in registry.frameworks() {
            by_id.entry(framework.id.clone()).or_default();
        }
    }

    /// The counts of a framework, which begin with this if there are none.
    pub(crate) fn begun(&self, id: &FrameworkId) -> Arc<Tally> {
        lock(&self.0.frameworks).by_id.entry(id.clone()).or_default().clone()
    }

    /// The counts of a framework, if there are any.
    pub(crate) fn of(&self, id: &FrameworkId) -> Option<Arc<Tally>> {
        lock(&self.0.frameworks).by_id.get(id).cloned()
    }

    /// A framework is over.
    pub(crate) fn over(&self, id: &FrameworkId) {
        let mut frameworks = lock(&self.0.frameworks);
        frameworks.over.push_back(id.clone());
        if frameworks.over.len() > OVER
            && let Some(oldest) = frameworks.over.pop_front()
        {
            frameworks.by_id.remove(&oldest);
        }
    }

    pub(crate) fn called(&self, call: &SchedulerCall) {
        if let Some(kind) = message_of(call) {
            self.message(kind);
        }
    }

    pub(crate) fn agent_said(&self, call: &AgentCall) {
        match call {
            AgentCall::Hello(hello, ..) if hello.agent_id.is_none() => {
                self.message(MessageKind::RegisterAgent)
            }
            AgentCall::Hello(..) | AgentCall::HelloAsKnown(..) => self.message(MessageKind::ReregisterAgent),
            AgentCall::Status(_) => self.message(MessageKind::StatusUpdate),
            AgentCall::Message { .. } => self.message(MessageKind::ExecutorToFramework),
            AgentCall::Executors { executors, .. } => {
                let ended = executors.iter().filter(|it| it.ended.is_some()).count();
                self.0.messages.add(MessageKind::ExitedExecutor as usize, ended);
            }
            AgentCall::Accepted(_) | AgentCall::Ended(_) | AgentCall::Pong(_) => {}
        }
    }

    fn message(&self, kind: MessageKind) {
        self.0.messages.add(kind as usize, 1);
    }

    /// What all clients said, by Mesos' names.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.messages.named(MessageKind::NAMES)
    }

    /// What became of an ACCEPT: tasks that were not launched have ended by that.
    pub(crate) fn answered(&self, outcome: &CallOutcome) {
        let CallOutcome::Accepted(became) = outcome else { return };
        for (_, task) in &became.tasks {
            if let TaskOutcome::Refused { state, reason, .. } = task {
                *lock(&self.0.refused).entry((*state, *reason)).or_default() += 1;
            }
        }
    }

    pub(crate) fn refused_so_far(&self) -> BTreeMap<(TaskState, Reason), u64> {
        lock(&self.0.refused).clone()
    }

    /// A word of a client that was cut off.
    pub(crate) fn dropped(&self) {
        self.0.dropped.fetch_add(1, Relaxed);
    }

    pub(crate) fn dropped_so_far(&self) -> u64 {
        self.0.dropped.load(Relaxed)
    }

    /// A reign is over.
    pub(crate) fn keep(&self, counts: &Counts) {
        lock(&self.0.former).add(counts);
    }

    /// What was counted in reigns that are over.
    pub(crate) fn former(&self) -> Counts {
        lock(&self.0.former).clone()
    }
}

/// The framework's event, if it is one.
pub(crate) fn of_scheduler(event: &Event) -> Option<&SchedulerEvent> {
    match event {
        Event::Scheduler(event) => Some(event),
        Event::Agent { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frameworks_that_are_over_are_forgotten_in_the_end() {
        let (tallies, id) = (Tallies::default(), |n: usize| FrameworkId::new(format!("f{n}")));
        let lives = tallies.begun(&id(0));
        for n in 1..=OVER + 7 {
            tallies.begun(&id(n)).told(&SchedulerEvent::Heartbeat);
            tallies.over(&id(n));
        }
        assert_eq!(lock(&tallies.0.frameworks).by_id.len(), OVER + 1);
        assert!(tallies.of(&id(7)).is_none() && tallies.of(&id(8)).is_some());
        lives.called(&SchedulerCall::Teardown, |_| true);
        let calls = tallies.of(&id(0)).into_iter().flat_map(|it| it.calls().collect::<Vec<_>>());
        assert_eq!(calls.filter(|(_, n)| *n > 0).collect::<Vec<_>>(), [("teardown", 1)]);
    }

    #[test]
    fn an_offer_is_counted_by_what_becomes_of_it() {
        let tally = Tally::default();
        let offer_ids = vec![OfferId::new("stands"), OfferId::new("does not")];
        let stands = |id: &OfferId| id.as_str() == "stands";
        let empty = SchedulerCall::Accept {
            offer_ids: offer_ids.clone(),
            tasks: Vec::new(),
            named: Vec::new(),
            bad: Vec::new(),
            refuse_ms: 0,
        };
        tally.called(&empty, stands);
        tally.called(&SchedulerCall::Decline { offer_ids: offer_ids.clone(), refuse_ms: 0 }, stands);
        let operations = vec![(Operation::LaunchGroup { tasks: Vec::new(), bad: Vec::new() }, Vec::new())];
        tally.called(&SchedulerCall::Operate { offer_ids, operations, refuse_ms: 0 }, stands);
        let offers: Vec<_> = tally.offers().collect();
        assert_eq!(offers, [("accepted", 1), ("declined", 2), ("rescinded", 0), ("sent", 0)]);
        assert_eq!(tally.operations().find(|(_, n)| *n > 0), Some(("launch_group", 1)));
    }

    #[test]
    fn the_newest_times_are_kept_and_all_are_counted() {
        let timer = Timer::default();
        (0..SAMPLES as u64 + 5).for_each(|ms| timer.took(Duration::from_millis(ms)));
        let times = timer.times();
        assert_eq!((times.count, times.last()), (1_005, Some(1_004.0)));
        assert_eq!((times.sorted().len(), times.sorted().first().copied()), (SAMPLES, Some(5.0)));
    }
}
