//! The operators' event stream: what changes in the registry, as it changes.
//!
//! The leader's loop says what each entry changed on its [`Tap`]. One task, [`Feed::run`], makes events of it, once for
//! all subscribers; each subscriber begins with a moment of the leader and goes on with the entries after it.
//!
//! # Laws
//! - A subscriber is told of every change after the moment it began with, once and in order, or its stream ends.
//! - Nobody waits for a subscriber: one that does not read is ended.

use super::parts::Part;
use super::read::{
    Counters, body,
    seen::{self, FrameworkSeen},
};
use super::{Mesos, operator_api, records};
use crate::admit::View;
use crate::route::LocalRoute;
use crate::tally::Tallies;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Response, header};
use mesos::master::{Event, event};
use muster_http::auth::Subject;
use muster_http::show::task::user;
use muster_model::{AgentId, FrameworkId, Index, Source, Status, TaskId, TaskKey, TaskState, Uuid};
use muster_proto::json::Codec;
use muster_proto::task::wire_state;
use muster_proto::{media::record, mesos, mesos_status};
use muster_raft::Raft;
use muster_registry::{Agent, Change, Duty, Framework, Registry, Task};
use prost::Message;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    io,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, broadcast, mpsc},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;

/// Subscribers at a time; another one ends the oldest (Mesos).
pub(super) const SUBSCRIBERS: usize = 1_000;
/// How often a subscriber hears that the leader lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Entries whose changes wait to become events, at most.
const TAPPED: usize = 4_096;
/// Events that wait for the slowest subscriber, at most.
const EVENTS: usize = 8_192;
/// How often it is looked whether a client that does not read is too far behind.
const LOOK: Duration = Duration::from_millis(250);
/// Records that wait for one client to read, at most.
const RECORDS: usize = 64;
/// A first record that is longer, in bytes, goes out in parts.
const FIRST_BYTES_MAX: usize = 1 << 20;

/// What the leader's loop says of what is applied.
#[derive(Debug, Clone)]
pub(crate) enum Applied {
    /// A term began: the registry as it is now.
    Began(Box<Registry>),
    /// What an entry changed.
    Changed(Index, Arc<Vec<Change>>),
}

/// Where the leader's loop says it, and counts. It never waits.
#[derive(Debug, Clone)]
pub(crate) struct Tap {
    applied: broadcast::Sender<Applied>,
    pub(crate) tallies: Tallies,
}

impl Tap {
    /// Says it to whoever listens.
    pub(crate) fn send(&self, applied: Applied) {
        let _ = self.applied.send(applied); // nobody may
    }
}

/// An event, or none where some were lost: written once in each codec that a subscriber speaks.
#[derive(Debug)]
struct Told {
    /// The entry that it comes from.
    index: Index,
    event: Option<Event>,
    /// Whose it is, where that decides who is told.
    of: Whose,
    json: OnceLock<Bytes>,
    protobuf: OnceLock<Bytes>,
}

/// The users that an event is about.
#[derive(Debug, Default)]
struct Whose {
    framework: Option<Arc<str>>,
    task: Option<String>,
}

impl Told {
    fn record(&self, event: &Event, codec: Codec) -> Bytes {
        let written = match codec {
            Codec::Json => &self.json,
            Codec::Protobuf => &self.protobuf,
        };
        written.get_or_init(|| record(&codec.write(event))).clone()
    }

    /// The record for who sees only a part; none if that part is empty.
    fn record_for(&self, view: &View, event: &Event, codec: Codec) -> Option<Bytes> {
        if view.has_all_events() {
            return Some(self.record(event, codec));
        }
        let framework = self.of.framework.as_deref();
        let is_seen = match event.r#type() {
            event::Type::TaskAdded | event::Type::TaskUpdated => {
                view.task_of(self.of.task.as_deref(), framework)
            }
            event::Type::FrameworkAdded | event::Type::FrameworkUpdated | event::Type::FrameworkRemoved => {
                view.framework_of(framework)
            }
            _ => true,
        };
        match &event.agent_added {
            Some(added) => {
                let mut added = added.clone();
                records::shown_to(view, &mut added.agent);
                let event = Event { agent_added: Some(added), ..event.clone() };
                Some(record(&codec.write(&event)))
            }
            None => is_seen.then(|| self.record(event, codec)),
        }
    }
}

/// Makes events of changes, and hands them to subscribers.
#[derive(Debug, Clone)]
pub(crate) struct Feed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tap: Tap,
    events: broadcast::Sender<Arc<Told>>,
    open: Mutex<Open>,
    counters: Counters,
    /// Whether it matters whose an event is.
    judged: bool,
}

#[derive(Debug, Default)]
struct Open {
    counted: u64,
    streams: VecDeque<(u64, CancellationToken)>,
}

impl Feed {
    /// One whose events are for everybody, or are `judged` for each subscriber.
    pub(crate) fn new(judged: bool) -> Self {
        Self(Arc::new(Inner {
            tap: Tap { applied: broadcast::Sender::new(TAPPED), tallies: Tallies::default() },
            events: broadcast::Sender::new(EVENTS),
            open: Mutex::default(),
            counters: Counters::default(),
            judged,
        }))
    }

    /// Where the leader's loop says what is applied.
    pub(crate) fn tap(&self) -> Tap {
        self.0.tap.clone()
    }

    pub(super) fn tallies(&self) -> &Tallies {
        &self.0.tap.tallies
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.0.counters
    }

    pub(super) fn subscribers(&self) -> usize {
        self.open().streams.len()
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a subscriber, from now on.
    fn enter(&self, stop: &CancellationToken) -> Place {
        let cut = stop.child_token();
        let mut open = self.open();
        open.counted += 1;
        let n = open.counted;
        open.streams.push_back((n, cut.clone()));
        if open.streams.len() > SUBSCRIBERS
            && let Some((_, oldest)) = open.streams.pop_front()
        {
            oldest.cancel();
        }
        Place { feed: self.clone(), n, cut, events: self.0.events.subscribe() }
    }

    /// Makes events of what is applied, until the master stops.
    pub(crate) async fn run(self, raft: Raft, stop: CancellationToken) {
        let mut tapped = self.0.tap.applied.subscribe();
        let mut known = Known::default();
        loop {
            let applied = tokio::select! {
                () = stop.cancelled() => return,
                applied = tapped.recv() => applied,
            };
            match applied {
                Ok(Applied::Began(registry)) => known = Known::of(&registry),
                Ok(Applied::Changed(index, changes)) => self.changed(&mut known, index, &changes, &raft),
                Err(broadcast::error::RecvError::Closed) => return,
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    tracing::warn!("changes came faster than events could be made: subscribers begin anew");
                    let registry = raft.registry();
                    known = Known::of(&registry);
                    self.tallies().begin(&registry); // frameworks may have come and gone unseen
                    self.tell(Index(0), None, Whose::default());
                }
            }
        }
    }

    fn changed(&self, known: &mut Known, index: Index, changes: &[Change], raft: &Raft) {
        let is_heard = self.0.events.receiver_count() > 0;
        for change in changes {
            let Some(mut what) = known.follow(index, change) else { continue };
            if let What::AgentAdded(agent, duty) = &mut what {
                *duty = raft.with_registry(|registry| registry.duty(&agent.id).cloned());
            }
            count(&self.0.counters, &what);
            match &what {
                What::Updated { task, status, .. } if status.state.is_terminal() => {
                    if let Some(tally) = self.tallies().of(&task.framework_id) {
                        tally.task_ended(status.state);
                    }
                }
                What::FrameworkRemoved(id, _) => self.tallies().over(id),
                _ => {}
            }
            if is_heard {
                let look = |key: &TaskKey| raft.with_registry(|it| it.task(key).map(|task| task.state));
                if let What::FrameworkRemoved(id, _) = &what {
                    self.tell_killed(index, &raft.registry(), id, raft);
                }
                if let Some(event) = what.event(look) {
                    let of = if self.0.judged { whose(&event, raft) } else { Whose::default() };
                    self.tell(index, Some(event), of);
                }
            }
        }
    }

    /// The tasks of a framework that is over are killed, which nobody is sent an update of.
    fn tell_killed(&self, index: Index, registry: &Registry, id: &FrameworkId, raft: &Raft) {
        for task in registry.tasks_of_framework(id).filter(|task| task.state == TaskState::Killed) {
            let status = Status {
                state: task.state,
                source: Source::Master,
                reason: Some(muster_model::Reason::FrameworkRemoved),
                message: task.message().into(),
                wall: task.updated,
                sealed: Default::default(),
            };
            let update =
                What::Updated { task: &task.key, agent_id: &task.agent_id, uuid: None, status: &status };
            if let Some(event) = update.event(|_| Some(task.state)) {
                let of = if self.0.judged { whose(&event, raft) } else { Whose::default() };
                self.tell(index, Some(event), of);
            }
        }
    }

    fn tell(&self, index: Index, event: Option<Event>, of: Whose) {
        let told = Told { index, event, of, json: OnceLock::new(), protobuf: OnceLock::new() };
        let _ = self.0.events.send(Arc::new(told)); // nobody may be there
    }
}

/// Finds out whose an event is, where it can still be known.
fn whose(event: &Event, raft: &Raft) -> Whose {
    let described =
        |it: &mesos::FrameworkInfo| Whose { framework: Some(it.user.as_str().into()), task: None };
    let added = event.framework_added.as_ref().map(|it| &it.framework.framework_info);
    let updated = event.framework_updated.as_ref().map(|it| &it.framework.framework_info);
    let removed = event.framework_removed.as_ref().map(|it| &it.framework_info);
    if let Some(info) = added.or(updated).or(removed) {
        return described(info);
    }
    let (framework_id, task_id) = match (&event.task_added, &event.task_updated) {
        (Some(added), _) => (&added.task.framework_id.value, &added.task.task_id.value),
        (None, Some(updated)) => (&updated.framework_id.value, &updated.status.task_id.value),
        (None, None) => return Whose::default(),
    };
    let key = TaskKey { framework_id: FrameworkId::new(framework_id), task_id: TaskId::new(task_id) };
    raft.with_registry(|registry| {
        let over = || registry.completed_frameworks().find(|it| it.framework.id == key.framework_id);
        let framework = registry.framework(&key.framework_id).or_else(|| over().map(|it| &it.framework));
        let over = || registry.completed_tasks_of_framework(&key.framework_id).find(|it| it.key == key);
        let task = registry.task(&key).or_else(over);
        let info = task.map(|it| mesos::TaskInfo::decode(&*it.sealed()).unwrap_or_default());
        Whose {
            // Of one that nobody knows any more nobody is told but who is told of all.
            framework: framework.filter(|_| info.is_some()).map(|it| it.info.user.clone()),
            task: info.as_ref().and_then(user).map(Into::into),
        }
    })
}

/// A subscriber's place: it is given up with this.
struct Place {
    feed: Feed,
    n: u64,
    cut: CancellationToken,
    events: broadcast::Receiver<Arc<Told>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.feed.open().streams.retain(|(n, _)| *n != self.n);
    }
}

/// What operators have been told of: what of it comes again is not new.
#[derive(Debug, Default)]
struct Known {
    agents: BTreeSet<AgentId>,
    frameworks: BTreeMap<FrameworkId, Arc<Framework>>,
}

/// What a change means to operators.
#[derive(Debug)]
enum What<'a> {
    TaskAdded(&'a Task),
    Updated {
        task: &'a TaskKey,
        agent_id: &'a AgentId,
        uuid: Option<Uuid>,
        status: &'a Status,
    },
    /// With what an operator set for it, if that is known.
    AgentAdded(&'a Agent, Option<Duty>),
    /// It came back in time: nothing is told.
    AgentBack,
    /// It is gone, or does not answer.
    AgentRemoved(&'a AgentId, bool),
    FrameworkAdded(&'a Framework),
    FrameworkUpdated(&'a Framework),
    FrameworkRemoved(&'a FrameworkId, Option<Arc<Framework>>),
}

impl Known {
    fn of(registry: &Registry) -> Self {
        let here = registry.agents().filter(|agent| records::is_here(agent));
        let frameworks = registry.frameworks().map(|it| (it.id.clone(), Arc::new(it.clone())));
        Self { agents: here.map(|agent| agent.id.clone()).collect(), frameworks: frameworks.collect() }
    }

    fn follow<'a>(&mut self, index: Index, change: &'a Change) -> Option<What<'a>> {
        Some(match change {
            // An order that is sent again is of a launch before.
            Change::RunDue(task) if task.launch.index == index => What::TaskAdded(task),
            Change::UpdateDue { task, agent_id, uuid, status } => {
                What::Updated { task, agent_id, uuid: Some(*uuid), status }
            }
            Change::AgentAdmitted(agent) if self.agents.insert(agent.id.clone()) => {
                What::AgentAdded(agent, None)
            }
            Change::AgentAdmitted(_) => What::AgentBack,
            Change::AgentUnreachable(id) if self.agents.remove(id) => What::AgentRemoved(id, true),
            Change::AgentRemoved(id) if self.agents.remove(id) => What::AgentRemoved(id, false),
            Change::FrameworkSubscribed(it) | Change::FrameworkUpdated(it) => {
                match self.frameworks.insert(it.id.clone(), it.clone()) {
                    Some(_) => What::FrameworkUpdated(it),
                    None => What::FrameworkAdded(it),
                }
            }
            Change::FrameworkRemoved(id) => What::FrameworkRemoved(id, self.frameworks.remove(id)),
            Change::RunDue(_)
            | Change::AgentUnreachable(_)
            | Change::AgentRemoved(_)
            | Change::TermBegan
            | Change::FrameworkDisconnected(..)
            | Change::AgentDisconnected(..)
            | Change::HeldChanged { .. }
            | Change::TotalChanged { .. }
            | Change::VolumesDestroyed(_)
            | Change::OperationDue(_)
            | Change::KillDue(_)
            | Change::ExecutorEnded { .. }
            | Change::ExecutorUnwanted { .. }
            | Change::StrayFound { .. }
            | Change::RoleSettings(..)
            | Change::AgentOfferable { .. }
            | Change::AgentShutDown(_)
            | Change::UnavailabilityChanged(_)
            | Change::TaskCompleted(_) => return None,
        })
    }
}

fn count(counters: &Counters, what: &What<'_>) {
    counters.count(|counts| match what {
        What::AgentAdded(..) => counts.agents_registered += 1,
        What::AgentBack => counts.agents_reregistered += 1,
        What::AgentRemoved(_, true) => counts.agents_unreachable += 1,
        What::AgentRemoved(_, false) => counts.agents_removed += 1,
        What::Updated { status, .. } if status.state.is_terminal() => {
            *counts.ended.entry((status.state, status.source, status.reason)).or_default() += 1;
        }
        What::Updated { .. }
        | What::TaskAdded(_)
        | What::FrameworkAdded(_)
        | What::FrameworkUpdated(_)
        | What::FrameworkRemoved(..) => {}
    });
}

impl What<'_> {
    /// The event; none for what there is no event of. `latest` says the newest state of a task.
    fn event(&self, latest: impl Fn(&TaskKey) -> Option<TaskState>) -> Option<Event> {
        let of = |kind: event::Type| Event { r#type: Some(kind.into()), ..Default::default() };
        let framework =
            |it: &Framework| records::framework(FrameworkSeen { framework: it, completed: None }, None);
        Some(match self {
            Self::TaskAdded(task) => Event {
                task_added: Some(event::TaskAdded { task: records::task(task, Vec::new()) }),
                ..of(event::Type::TaskAdded)
            },
            Self::Updated { task, agent_id, uuid, status } => Event {
                task_updated: Some(event::TaskUpdated {
                    framework_id: mesos::FrameworkId { value: task.framework_id.to_string() },
                    status: mesos_status(&task.task_id, Some(agent_id), status, uuid.as_ref()).ok()?,
                    state: wire_state(latest(task).unwrap_or(status.state)).into(),
                }),
                ..of(event::Type::TaskUpdated)
            },
            Self::AgentAdded(agent, duty) => Event {
                agent_added: Some(event::AgentAdded {
                    agent: records::agent(agent, &agent.info.resources, duty.as_ref(), None),
                }),
                ..of(event::Type::AgentAdded)
            },
            Self::AgentBack => return None,
            Self::AgentRemoved(id, _) => Event {
                agent_removed: Some(event::AgentRemoved {
                    agent_id: mesos::AgentId { value: id.to_string() },
                }),
                ..of(event::Type::AgentRemoved)
            },
            Self::FrameworkAdded(it) => Event {
                framework_added: Some(event::FrameworkAdded { framework: framework(it) }),
                ..of(event::Type::FrameworkAdded)
            },
            Self::FrameworkUpdated(it) => Event {
                framework_updated: Some(event::FrameworkUpdated { framework: framework(it) }),
                ..of(event::Type::FrameworkUpdated)
            },
            Self::FrameworkRemoved(id, it) => {
                let id = mesos::FrameworkId { value: id.to_string() };
                let framework_info = match it {
                    Some(it) => records::framework_info(it),
                    None => mesos::FrameworkInfo { id: Some(id), ..Default::default() },
                };
                Event {
                    framework_removed: Some(event::FrameworkRemoved { framework_info }),
                    ..of(event::Type::FrameworkRemoved)
                }
            }
        })
    }
}

/// Opens a stream of events.
pub(super) async fn subscribe(
    on: &Mesos,
    local: Arc<LocalRoute>,
    who: &Subject,
    codec: Codec,
) -> Response<Body> {
    // Before the moment that it begins with, so that nothing falls between.
    let place = on.feed.enter(&on.stop);
    let seen = match super::read::seen(on, local.clone(), who).await {
        Ok(seen) => seen,
        Err(refusal) => return *refusal,
    };
    let Some(turn) = on.writers.turn().await else { return body::too_many() };
    let (records, body) = mpsc::channel::<Bytes>(RECORDS);
    tokio::spawn(serve(on.clone(), local, place, seen, turn, codec, records));
    let body = ReceiverStream::new(body).map(Ok::<_, Infallible>);
    let mut response = Response::new(Body::from_stream(body));
    let kind = HeaderValue::from_static(codec.media_type());
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Serves one subscriber until either side ends. It ends in order: the client subscribes anew.
async fn serve(
    on: Mesos,
    local: Arc<LocalRoute>,
    mut place: Place,
    seen: seen::Seen,
    turn: OwnedSemaphorePermit,
    codec: Codec,
    records: mpsc::Sender<Bytes>,
) {
    let (begun, cut, view) = (seen.registry.applied(), place.cut.clone(), seen.view.clone());
    let first = {
        let (records, runtime) = (records.clone(), Handle::current());
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            subscribed(&seen, codec, |bytes| body::send(&runtime, &records, bytes)).is_ok()
        })
    };
    let going = async {
        if !first.await.unwrap_or(false) {
            return;
        }
        let heartbeat = Event { r#type: Some(event::Type::Heartbeat.into()), ..Default::default() };
        let heartbeat = record(&codec.write(&heartbeat));
        let mut beats = tokio::time::interval(HEARTBEAT);
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let next = tokio::select! {
                biased;
                _ = beats.tick() => Some(heartbeat.clone()), // the first one at once
                told = place.events.recv() => match told {
                    Ok(told) => match &told.event {
                        Some(event) if told.index > begun => told.record_for(&view, event, codec),
                        Some(_) => None, // it began with that
                        None => return,
                    },
                    Err(_) => return, // it does not read as fast as things happen
                },
            };
            let Some(next) = next else { continue };
            let is_taken = tokio::select! {
                biased;
                sent = records.send(next) => sent.is_ok(),
                () = overrun(&place.events) => false,
            };
            if !is_taken {
                return;
            }
        }
    };
    tokio::select! {
        () = going => {}
        () = cut.cancelled() => {}
        () = records.closed() => {}
        () = on.routes.gone(&local) => {}
    }
}

/// Waits until more waits for a subscriber than is kept: it will not be told all any more.
async fn overrun(events: &broadcast::Receiver<Arc<Told>>) {
    let mut looks = tokio::time::interval(LOOK);
    while events.len() <= EVENTS {
        looks.tick().await;
    }
}

/// Writes the first record: all there is.
fn subscribed(seen: &seen::Seen, codec: Codec, send: impl FnMut(Bytes) -> io::Result<()>) -> io::Result<()> {
    let sorted = seen::Sorted::of(seen);
    let kind = event::Type::Subscribed;
    let event = [
        Part::Enum { name: "type", number: 1, text: kind.as_str_name(), value: kind.into() },
        Part::Message {
            name: "subscribed",
            number: 2,
            parts: vec![
                Part::Message { name: "get_state", number: 1, parts: operator_api::state(&sorted) },
                Part::Double {
                    name: "heartbeat_interval_seconds",
                    number: 2,
                    value: HEARTBEAT.as_secs_f64(),
                },
            ],
        },
    ];
    super::parts::write_record(&event, codec, FIRST_BYTES_MAX, send)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::world::{framework, spec, world};
    use super::*;
    use muster_registry::Command;

    fn none(_: &TaskKey) -> Option<TaskState> {
        None
    }

    #[test]
    fn what_comes_again_is_not_new() {
        let world = world();
        let agent = Arc::new(world.registry.agents().next().unwrap().clone());
        let mut known = Known::default();
        let mut told = |change: Change| known.follow(Index(1), &change).map(|what| what.event(none));
        let kind = |told: Option<Option<Event>>| told.flatten().map(|event| event.r#type());
        use event::Type;
        let admitted = Change::AgentAdmitted(agent.clone());
        assert_eq!(kind(told(admitted.clone())), Some(Type::AgentAdded));
        assert_eq!(kind(told(admitted.clone())), None, "it is back in time");
        assert_eq!(kind(told(Change::AgentUnreachable(agent.id.clone()))), Some(Type::AgentRemoved));
        assert_eq!(kind(told(admitted)), Some(Type::AgentAdded), "it is back late");
        assert_eq!(kind(told(Change::AgentRemoved(agent.id.clone()))), Some(Type::AgentRemoved));
        assert_eq!(kind(told(Change::AgentRemoved(agent.id.clone()))), None, "it is gone already");
    }

    #[test]
    fn a_framework_is_told_with_its_description_to_the_last() {
        let mut world = world();
        let mut known = Known::of(&world.registry);
        let mut tell = |world: &mut super::super::world::World, command: Command| -> Vec<Event> {
            let changes = world.apply(command).changes;
            let index = Index(world.index);
            changes.iter().filter_map(|it| known.follow(index, it)?.event(none)).collect()
        };
        let added = tell(&mut world, Command::Subscribe(framework("new"))).remove(0).framework_added.unwrap();
        let id = FrameworkId::new(added.framework.framework_info.id.unwrap().value);
        let again = muster_registry::Subscribe { framework_id: Some(id.clone()), ..framework("newer") };
        let updated = tell(&mut world, Command::Subscribe(again)).remove(0).framework_updated.unwrap();
        assert_eq!(updated.framework.framework_info.name, "newer");
        let removed =
            tell(&mut world, Command::Teardown { framework_id: id }).remove(0).framework_removed.unwrap();
        assert_eq!((removed.framework_info.name.as_str(), removed.framework_info.hostname()), ("newer", "h"));
    }

    #[test]
    fn an_order_that_is_sent_again_is_no_new_task() {
        let mut world = world();
        let launched = world.launch(vec![spec("more", None)]);
        let mut known = Known::of(&world.registry);
        let run = launched.iter().find(|change| matches!(change, Change::RunDue(_))).unwrap();
        let added = known.follow(Index(world.index), run).unwrap().event(none).unwrap().task_added.unwrap();
        assert_eq!((added.task.name.as_str(), added.task.state()), ("more", mesos::TaskState::TaskStaging));
        assert!(known.follow(Index(world.index + 1), run).is_none());
    }

    #[test]
    fn an_event_is_written_once_for_all() {
        let event = Event { r#type: Some(event::Type::Heartbeat.into()), ..Default::default() };
        let (json, protobuf, of) = Default::default();
        let told = Told { index: Index(1), event: None, of, json, protobuf };
        let written = told.record(&event, Codec::Json);
        assert_eq!(&*written, b"20\n{\"type\":\"HEARTBEAT\"}");
        assert_eq!(written.as_ptr(), told.record(&event, Codec::Json).as_ptr());
        assert_eq!(&*told.record(&event, Codec::Protobuf), b"2\n\x08\x09");
    }

    #[test]
    fn the_oldest_subscriber_makes_room() {
        let (feed, stop) = (Feed::new(false), CancellationToken::new());
        let places: Vec<_> = (0..=SUBSCRIBERS).map(|_| feed.enter(&stop)).collect();
        assert_eq!(feed.subscribers(), SUBSCRIBERS);
        assert!(places[0].cut.is_cancelled() && !places[1].cut.is_cancelled());
        drop(places);
        assert_eq!(feed.subscribers(), 0);
    }
}
