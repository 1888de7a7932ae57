//! Calls on their way: kept until answered, repeated after each subscription.

use muster_model::{Role, SchedulerCall, TaskId, TaskSpec, Uuid};
use std::collections::{BTreeMap, BTreeSet};

/// RECONCILEs that are on the stream at a time: while the answer to one is told, the leader has the next. Any more it
/// would answer by "busy" in the end, which costs it, and the calls behind, as much as all the names in them.
const RECONCILES_MAX: usize = 2;

/// What a number stood for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// These roles were revived (or none: it was a SUPPRESS).
    Roles(Vec<Role>),
    /// The needs.
    Needs,
}

/// What was answered.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // looked at once, and gone
pub(crate) enum Answered {
    Call(SchedulerCall),
    Told,
}

/// Unanswered calls by number, which is the order they were asked in.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    last_id: u64,
    pending: BTreeMap<u64, SchedulerCall>,
    /// Of the pending: to be sent now, or as soon as a subscription holds.
    ready: BTreeSet<u64>,
    /// Of the pending: on the stream. Only these can be answered.
    sent: BTreeSet<u64>,
    /// Of the pending: to be sent at a time, since the masters were busy.
    delayed: BTreeSet<(u64, u64)>,
    /// How many of the pending are RECONCILEs whose turn it is.
    reconciling: usize,
    /// Of the pending: RECONCILEs that wait until one of those is answered.
    reconciles_waiting: BTreeSet<u64>,
    /// Of the pending: KILLs by the ACCEPT that is about to launch their task.
    after: BTreeMap<u64, Vec<u64>>,
    /// Tasks of pending ACCEPTs, and which.
    launching: BTreeSet<(TaskId, u64)>,
    /// Pending ACKNOWLEDGEs.
    acknowledging: BTreeMap<(TaskId, Uuid), u64>,
    /// What tells a state is not kept but told again as a whole.
    told: BTreeMap<u64, Told>,
}

impl Calls {
    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Unanswered calls, acknowledgements not counted.
    pub(crate) fn count(&self) -> usize {
        self.pending.len() - self.acknowledging.len()
    }

    pub(crate) fn acknowledgement_count(&self) -> usize {
        self.acknowledging.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Keeps a call until it is answered. An ACKNOWLEDGE that is kept already is not kept twice.
    pub(crate) fn add(&mut self, call: SchedulerCall) {
        let id = self.next_id();
        match &call {
            SchedulerCall::Acknowledge { task_id, uuid } => {
                if self.is_acknowledging(task_id, *uuid) {
                    return;
                }
                self.acknowledging.insert((task_id.clone(), *uuid), id);
            }
            SchedulerCall::Accept { .. } | SchedulerCall::Operate { .. } => {
                self.launching.extend(launches(&call).into_iter().map(|task_id| (task_id, id)));
            }
            SchedulerCall::Kill { task_id, .. } => {
                if let Some(accept) = self.launches_before(task_id, id) {
                    self.after.entry(accept).or_default().push(id);
                    self.pending.insert(id, call);
                    return;
                }
            }
            SchedulerCall::Reconcile { .. } => {
                self.reconciles_waiting.insert(id);
                self.pending.insert(id, call);
                return self.reconcile();
            }
            _ => {}
        }
        self.ready.insert(id);
        self.pending.insert(id, call);
    }

    /// The newest pending ACCEPT before this number that launches the task.
    fn launches_before(&self, task_id: &TaskId, id: u64) -> Option<u64> {
        let of_task = (task_id.clone(), 0)..(task_id.clone(), id);
        self.launching.range(of_task).next_back().map(|(_, accept)| *accept)
    }

    /// RECONCILEs have their turn in the order they came.
    fn reconcile(&mut self) {
        while self.reconciling < RECONCILES_MAX
            && let Some(id) = self.reconciles_waiting.pop_first()
        {
            self.reconciling += 1;
            self.ready.insert(id);
        }
    }

    /// Whether this update was handled and its acknowledgement is on its way.
    pub(crate) fn is_acknowledging(&self, task_id: &TaskId, uuid: Uuid) -> bool {
        self.acknowledging.contains_key(&(task_id.clone(), uuid))
    }

    /// Whether a TEARDOWN waits for its answer.
    pub(crate) fn is_tearing_down(&self) -> bool {
        self.pending.last_key_value().is_some_and(|(_, call)| *call == SchedulerCall::Teardown)
    }

    /// A number for a call that tells a state.
    pub(crate) fn tell(&mut self, told: Told) -> u64 {
        let id = self.next_id();
        self.told.insert(id, told);
        id
    }

    /// The stream is gone: all that was sent waits again. Gives back what was told and not answered.
    pub(crate) fn unsend(&mut self) -> Vec<Told> {
        self.delayed.clear();
        self.sent.clear();
        self.ready = self.pending.keys().copied().collect();
        for waiting in self.after.values().flatten().chain(&self.reconciles_waiting) {
            self.ready.remove(waiting);
        }
        std::mem::take(&mut self.told).into_values().collect()
    }

    /// All that is due, in the order asked; it counts as sent.
    pub(crate) fn due(&mut self, now_ms: u64) -> impl Iterator<Item = (u64, SchedulerCall)> + '_ {
        while let Some(&(at, id)) = self.delayed.first()
            && at <= now_ms
        {
            self.delayed.pop_first();
            self.ready.insert(id);
        }
        let due = std::mem::take(&mut self.ready);
        self.sent.extend(&due);
        let pending = &self.pending;
        due.into_iter().filter_map(|id| pending.get(&id).map(|call| (id, call.clone())))
    }

    /// When the next delayed call is due.
    pub(crate) fn wake_at(&self) -> Option<u64> {
        self.delayed.first().map(|(at, _)| *at)
    }

    /// A final answer came: forgets the call and says what it was.
    pub(crate) fn answered(&mut self, id: u64) -> Option<Answered> {
        if self.told.remove(&id).is_some() {
            return Some(Answered::Told);
        }
        if !self.sent.remove(&id) {
            return None;
        }
        let call = self.pending.remove(&id)?;
        match &call {
            SchedulerCall::Acknowledge { task_id, uuid } => {
                self.acknowledging.remove(&(task_id.clone(), *uuid));
            }
            SchedulerCall::Accept { .. } | SchedulerCall::Operate { .. } => {
                for task_id in launches(&call) {
                    self.launching.remove(&(task_id, id));
                }
                for kill in self.after.remove(&id).unwrap_or_default() {
                    self.release(kill);
                }
            }
            SchedulerCall::Reconcile { .. } => {
                self.reconciling -= 1;
                self.reconcile();
            }
            _ => {}
        }
        Some(Answered::Call(call))
    }

    /// A KILL need not wait for that ACCEPT any more; it may have to wait for an earlier one.
    fn release(&mut self, kill: u64) {
        let Some(SchedulerCall::Kill { task_id, .. }) = self.pending.get(&kill) else { return };
        match self.launches_before(task_id, kill) {
            Some(accept) => self.after.entry(accept).or_default().push(kill),
            None => drop(self.ready.insert(kill)),
        }
    }

    /// The call is to be sent again at that time. Gives back what tells a state.
    pub(crate) fn again(&mut self, id: u64, at: u64) -> Option<Told> {
        if self.sent.remove(&id) {
            self.delayed.insert((at, id));
        }
        self.told.remove(&id)
    }
}

/// The tasks that a call is to launch.
pub(crate) fn launches(call: &SchedulerCall) -> Vec<TaskId> {
    let ids = |tasks: &[TaskSpec]| tasks.iter().map(|task| task.task_id.clone()).collect::<Vec<_>>();
    match call {
        SchedulerCall::Accept { tasks, .. } => ids(tasks),
        SchedulerCall::Operate { operations, .. } => {
            operations.iter().flat_map(|(operation, _)| ids(operation.tasks().0)).collect()
        }
        _ => Vec::new(),
    }
}
