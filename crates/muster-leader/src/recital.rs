//! Long answers, told in parts.
//!
//! A scheduler may ask for the state of every task it has, may come back to as many updates that wait for it, and may have
//! as many at once when machines are lost or taken down, hear of all their agents, and lose as many offers. A stream's queue
//! is bounded, and whoever lets it fill is cut off as one that does not read: so nobody is told more at once than a part
//! of what a queue holds, and the next part a little later, as tasks and agents stand by then.

use crate::{
    ConnId, Effect, Leader,
    leader::{Peer, answer, tell},
    operation::{done, reconciled},
    scheduler::master_status,
};
use muster_model::{
    AgentId, AskedOperation, CallOutcome, FrameworkId, OperationId, OperationStatus, Reason, SchedulerEvent,
    Session, Status, TaskId, TaskKey, TaskState, Timestamp, Uuid,
};
use muster_registry::{AgentState, DoneOperation, Registry, Task};
use std::{
    collections::{BTreeMap, VecDeque},
    vec,
};

/// How many events one stream is told in a part: far less than its queue holds. With the pause that is 12,500 in a
/// second, which a scheduler can be expected to take in; one that cannot is cut off when its queue is full.
const PART: usize = 250;
/// How many updates, and losses of agents, executors and offers, one stream is told as they come, between two parts: more
/// than what tasks make by themselves, and twice that, with a part each, is less than the shortest queue holds.
const LIVE: usize = 1_500;
/// Between two parts.
const PAUSE_MS: u64 = 20;
/// Answers that may be on their way to one stream.
const RECITALS_MAX: usize = 4;

const LATEST: &str = "Reconciliation: Latest task state";

/// An answer that is being told.
#[derive(Debug)]
pub(crate) struct Recital {
    conn: ConnId,
    framework_id: FrameworkId,
    session: Session,
    left: Left,
}

/// What of it is left.
#[derive(Debug)]
pub(crate) enum Left {
    /// The update that waits, of each task after this one.
    Updates(TaskId),
    /// The state of each task after this one; then the call is answered.
    All(TaskId, u64),
    /// The state of these; then the call is answered.
    Asked(vec::IntoIter<(TaskId, Option<AgentId>)>, u64),
    /// The status that waits, of each operation after this one.
    Operations(OperationId),
    /// The status of each operation after this one; then the call is answered.
    AllOperations(OperationId, u64),
    /// The status of these operations; then the call is answered.
    AskedOperations(vec::IntoIter<AskedOperation>, u64),
}

impl Left {
    /// Answers the call without telling anything.
    fn answer(&self, conn: ConnId, effects: &mut Vec<Effect>) {
        if let Some(call) = self.call() {
            answer(conn, call, CallOutcome::Done, effects);
        }
    }

    /// The call that is answered at its end.
    fn call(&self) -> Option<u64> {
        match self {
            Self::Updates(_) | Self::Operations(_) => None,
            Self::All(_, call)
            | Self::Asked(_, call)
            | Self::AllOperations(_, call)
            | Self::AskedOperations(_, call) => Some(*call),
        }
    }

    /// The same, of a call that waits for no answer any more.
    fn answered(mut self) -> Self {
        match &mut self {
            Self::Updates(_) | Self::Operations(_) => {}
            Self::All(_, call)
            | Self::Asked(_, call)
            | Self::AllOperations(_, call)
            | Self::AskedOperations(_, call) => *call = 0,
        }
        self
    }
}

/// All answers that are being told, in their order.
#[derive(Debug, Default)]
pub(crate) struct Recitals {
    open: VecDeque<Recital>,
    /// What these streams are still to be told beside that: in its order, but behind what is told as it comes.
    late: BTreeMap<ConnId, VecDeque<SchedulerEvent>>,
    due: Option<Timestamp>,
    /// What each stream may be told until all of them may be told a part again; a whole part where nothing is said.
    rooms: BTreeMap<ConnId, usize>,
    /// What each stream was told as it came, since then.
    live: BTreeMap<ConnId, usize>,
    renewed: Timestamp,
}

impl Recitals {
    /// What is not told to its end: the streams and calls that wait for it.
    pub(crate) fn unanswered(self) -> impl Iterator<Item = (ConnId, u64)> {
        self.open.into_iter().filter_map(|it| Some((it.conn, it.left.call()?)))
    }

    /// When the next parts are due.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Whether a stream will come to the update of this task that waits.
    fn will_tell(&self, conn: ConnId, task_id: &TaskId) -> bool {
        let comes = |left: &Left| matches!(left, Left::Updates(after) if after < task_id);
        self.open.iter().any(|it| it.conn == conn && comes(&it.left))
    }

    /// Whether a stream is still to be told of something that was.
    pub(crate) fn is_late(&self, conn: ConnId) -> bool {
        self.late.contains_key(&conn)
    }

    /// A stream's session is over.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.late.remove(&conn);
    }

    /// Whether a stream may be told of what is due, as it comes; it counts as told.
    fn may_tell(&mut self, conn: ConnId) -> bool {
        let live = self.live.entry(conn).or_default();
        let may = *live < LIVE;
        *live += usize::from(may);
        may
    }

    /// Tells something in parts, behind what is told so.
    fn later(&mut self, recital: Recital) {
        self.open.push_back(recital);
        self.due.get_or_insert(self.renewed);
    }

    /// Each stream may be told a part again, if it is time for that. Asked at each step.
    pub(crate) fn renew(&mut self, now: Timestamp) {
        if self.renewed <= now {
            self.rooms.clear();
            self.live.clear();
            self.renewed = now.plus_ms(PAUSE_MS);
        }
    }
}

impl Leader {
    /// Whether a stream has as many answers on their way as it may.
    pub(crate) fn is_told_much(&self, conn: ConnId) -> bool {
        self.recitals.open.iter().filter(|it| it.conn == conn).count() >= RECITALS_MAX
    }

    /// Begins to tell a framework's stream something long: at once what fits into its present part, unless another one
    /// is being told.
    pub(crate) fn recite(
        &mut self,
        registry: &Registry,
        conn: ConnId,
        left: Left,
        effects: &mut Vec<Effect>,
    ) {
        let (framework_id, session) = match self.conns.get(&conn).cloned() {
            Some(Peer::Framework(framework_id, session)) => (framework_id, session),
            // What there is to tell goes down the framework's own stream, if that is open.
            Some(Peer::Caller(framework_id, session)) => {
                left.answer(conn, effects);
                let own = self.frameworks.get(&framework_id).filter(|it| it.session == session);
                if let Some(own) = own.map(|it| it.conn) {
                    self.recite(registry, own, left.answered(), effects);
                }
                return;
            }
            _ => return,
        };
        let is_first = self.recitals.open.iter().all(|it| it.conn != conn);
        let mut recital = Recital { conn, framework_id, session, left };
        if is_first {
            let mut room = self.recitals.rooms.get(&conn).copied().unwrap_or(PART);
            let is_told = self.tell_part(registry, &mut recital, &mut room, effects);
            self.recitals.rooms.insert(conn, room);
            if is_told {
                return;
            }
        }
        self.recitals.later(recital);
    }

    /// Tells a framework of an update that is due: as it comes, or in parts where too many come at once.
    pub(crate) fn tell_update(
        &mut self,
        task: &TaskKey,
        agent_id: &AgentId,
        (uuid, status): (Uuid, &Status),
        effects: &mut Vec<Effect>,
    ) {
        let Some(it) = self.frameworks.get(&task.framework_id) else { return };
        let (conn, session) = (it.conn, it.session);
        if self.recitals.may_tell(conn) {
            let (task_id, agent_id) = (task.task_id.clone(), Some(agent_id.clone()));
            let event = SchedulerEvent::Update {
                task_id,
                agent_id,
                status: it.shown(status.clone()),
                uuid: Some(uuid),
            };
            tell(conn, event, effects);
        } else if !self.recitals.will_tell(conn, &task.task_id) {
            // It is the first that waits of its task, and is found as such.
            let framework_id = task.framework_id.clone();
            let left = Left::Updates(TaskId::new(""));
            self.recitals.later(Recital { conn, framework_id, session, left });
        }
    }

    /// Tells a framework's stream something else of which there may be many at once: the same way.
    pub(crate) fn tell_one_of_many(
        &mut self,
        conn: ConnId,
        event: SchedulerEvent,
        effects: &mut Vec<Effect>,
    ) {
        if self.recitals.may_tell(conn) {
            tell(conn, event, effects);
        } else {
            self.recitals.late.entry(conn).or_default().push_back(event);
            self.recitals.due.get_or_insert(self.recitals.renewed);
        }
    }

    /// Tells each stream what fits into a part, one answer after the other.
    pub(crate) fn tell_due_parts(&mut self, now: Timestamp, registry: &Registry, effects: &mut Vec<Effect>) {
        if self.recitals.due.is_none_or(|due| due > now) {
            return;
        }
        let mut rooms = std::mem::take(&mut self.recitals.rooms);
        let mut late = std::mem::take(&mut self.recitals.late);
        let mut in_time = Vec::new();
        late.retain(|conn, events| {
            let room = rooms.entry(*conn).or_insert(PART);
            let part = events.len().min(*room);
            *room -= part;
            // Not of an agent that came back meanwhile, and may be offered again.
            let holds = |event: &SchedulerEvent| match event {
                SchedulerEvent::AgentLost(id) => {
                    registry.agent(id).is_none_or(|agent| agent.lost_since().is_some())
                }
                _ => true,
            };
            events.drain(..part).filter(holds).for_each(|event| tell(*conn, event, effects));
            if events.is_empty() {
                in_time.push(*conn);
            }
            !events.is_empty()
        });
        let mut left = VecDeque::new();
        for mut recital in std::mem::take(&mut self.recitals.open) {
            let room = rooms.entry(recital.conn).or_insert(PART);
            if *room == 0 || !self.tell_part(registry, &mut recital, room, effects) {
                // What follows for this stream waits behind it.
                *room = 0;
                left.push_back(recital);
            }
        }
        let is_over = left.is_empty() && late.is_empty();
        self.recitals.due = (!is_over).then_some(self.recitals.renewed);
        self.recitals.open = left;
        self.recitals.late = late;
        in_time.into_iter().for_each(|conn| self.send_lingering(conn, effects));
        self.recitals.rooms = rooms;
    }

    /// Tells what there is room for; whether that was the last of it. Nothing is left for a session that has ended.
    fn tell_part(
        &self,
        registry: &Registry,
        recital: &mut Recital,
        room: &mut usize,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let before = effects.len();
        let Recital { conn, framework_id, session, left } = recital;
        let Some(session) = self.frameworks.get(framework_id).filter(|it| it.session == *session) else {
            return true;
        };
        let latest = |task: &Task| {
            let mut status = session.shown(master_status(task.state, Reason::Reconciliation, LATEST));
            // What its executor said of its health; not of one that nobody hears of now.
            if task.state != TaskState::Unreachable {
                status.sealed = registry.told(&task.key).cloned().unwrap_or_default();
            }
            let (task_id, agent_id) = (task.key.task_id.clone(), Some(task.agent_id.clone()));
            SchedulerEvent::Update { task_id, agent_id, status, uuid: None }
        };
        let is_last = match left {
            Left::Updates(after) => {
                let mut waiting =
                    tasks_after(registry, framework_id, after).filter(|task| !task.updates().is_empty());
                for task in waiting.by_ref().take(*room) {
                    if let Some(head) = task.updates().first() {
                        let (task_id, agent_id) = (task.key.task_id.clone(), Some(task.agent_id.clone()));
                        let status = session.shown(head.status.clone());
                        let event =
                            SchedulerEvent::Update { task_id, agent_id, status, uuid: Some(head.uuid) };
                        tell(*conn, event, effects);
                    }
                    *after = task.key.task_id.clone();
                }
                waiting.next().is_none()
            }
            Left::All(after, call) => {
                let mut tasks = tasks_after(registry, framework_id, after);
                for task in tasks.by_ref().take(*room) {
                    tell(*conn, latest(task), effects);
                    *after = task.key.task_id.clone();
                }
                let is_last = tasks.next().is_none();
                if is_last {
                    answer(*conn, *call, CallOutcome::Done, effects);
                }
                is_last
            }
            Left::Asked(tasks, call) => {
                for (task_id, agent_id) in tasks.by_ref().take(*room) {
                    let key = TaskKey { framework_id: framework_id.clone(), task_id: task_id.clone() };
                    let event = match registry.task(&key) {
                        Some(task) => latest(task),
                        None => {
                            let (state, message) = unknown(registry, agent_id.as_ref());
                            let status = session.shown(master_status(state, Reason::Reconciliation, message));
                            SchedulerEvent::Update { task_id, agent_id, status, uuid: None }
                        }
                    };
                    tell(*conn, event, effects);
                }
                let is_last = tasks.len() == 0;
                if is_last {
                    answer(*conn, *call, CallOutcome::Done, effects);
                }
                is_last
            }
            Left::Operations(after) => {
                let mut waiting = operations_after(registry, framework_id, after);
                for operation in waiting.by_ref().take(*room) {
                    tell(*conn, SchedulerEvent::Operation(Box::new(done(operation))), effects);
                    *after = operation.operation_id.clone();
                }
                waiting.next().is_none()
            }
            Left::AllOperations(after, call) => {
                let mut waiting = operations_after(registry, framework_id, after);
                for operation in waiting.by_ref().take(*room) {
                    let status = OperationStatus { uuid: None, ..done(operation) };
                    tell(*conn, SchedulerEvent::Operation(Box::new(status)), effects);
                    *after = operation.operation_id.clone();
                }
                let is_last = waiting.next().is_none();
                if is_last {
                    answer(*conn, *call, CallOutcome::Done, effects);
                }
                is_last
            }
            Left::AskedOperations(operations, call) => {
                for asked in operations.by_ref().take(*room) {
                    let status = reconciled(registry, framework_id, asked);
                    tell(*conn, SchedulerEvent::Operation(Box::new(status)), effects);
                }
                let is_last = operations.len() == 0;
                if is_last {
                    answer(*conn, *call, CallOutcome::Done, effects);
                }
                is_last
            }
        };
        *room = room.saturating_sub(effects.len() - before);
        is_last
    }
}

/// A framework's tasks after this one.
fn tasks_after<'a>(
    registry: &'a Registry,
    framework_id: &'a FrameworkId,
    after: &TaskId,
) -> impl Iterator<Item = &'a Task> + use<'a> {
    let (start, after) =
        (TaskKey { framework_id: framework_id.clone(), task_id: after.clone() }, after.clone());
    let own = registry.tasks_from(start).take_while(move |task| task.key.framework_id == *framework_id);
    own.filter(move |task| task.key.task_id != after)
}

/// A framework's operations after this one.
fn operations_after<'a>(
    registry: &'a Registry,
    framework_id: &'a FrameworkId,
    after: &OperationId,
) -> impl Iterator<Item = &'a DoneOperation> + use<'a> {
    let after = after.clone();
    registry.operations_of(framework_id).filter(move |operation| operation.operation_id > after)
}

/// What is said of a task that the registry does not have.
fn unknown(registry: &Registry, agent_id: Option<&AgentId>) -> (TaskState, &'static str) {
    match agent_id.and_then(|id| registry.agent(id)).map(|agent| agent.state) {
        Some(AgentState::Unreachable { .. }) => {
            (TaskState::Unreachable, "Reconciliation: Task is unreachable")
        }
        Some(AgentState::Gone { .. }) => (TaskState::GoneByOperator, "Reconciliation: Task is gone"),
        Some(_) => (TaskState::Gone, "Reconciliation: Task is gone"),
        None => (TaskState::Unknown, "Reconciliation: Task is unknown"),
    }
}
