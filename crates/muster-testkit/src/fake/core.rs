//! The masters behind the doors: streams, terms, frameworks. Knows of no wire.

use super::framework::Framework;
use anyhow::{Context, ensure};
use muster_model::event::CallOutcome;
use muster_model::{
    AgentId, Fence, FrameworkId, FrameworkInfo, Index, LaunchNumber, OfferId, Role, SchedulerCall,
    SchedulerEvent, Session, Term,
};
use muster_proto::SchedulerDown;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};

/// Streams at once, frameworks in all, sessions that nobody took yet, outcomes scripted ahead, hosts.
const STREAMS_MAX: usize = 64;
const FRAMEWORKS_MAX: usize = 1_000;
const SESSIONS_WAITING_MAX: usize = 64;
const SCRIPTED_MAX: usize = 1_000;
const HOSTS_MAX: usize = 10_000;
/// Events that a scheduler did not read yet, and its calls that the test did not read yet, for each stream.
const DOWN_WAITING_MAX: usize = 4_096;
const CALLS_WAITING_MAX: usize = 4_096;

/// What goes down a stream.
pub(crate) type Down = (Fence, SchedulerDown);

/// A scheduler's call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeCall {
    /// The number that its outcome carries; 0 asks for none.
    pub id: u64,
    /// The call.
    pub call: SchedulerCall,
}

/// A stream as its door holds it.
pub(crate) struct Opened {
    pub(crate) stream: u64,
    pub(crate) down: mpsc::Receiver<Down>,
    /// Ends with the stream.
    pub(crate) ended: oneshot::Receiver<()>,
}

/// A subscription, to be taken by the test.
#[derive(Debug)]
pub(crate) struct Subscribed {
    pub(crate) stream: u64,
    pub(crate) session: Session,
    pub(crate) fence: Fence,
    pub(crate) framework_id: FrameworkId,
    pub(crate) asked_id: Option<FrameworkId>,
    pub(crate) info: FrameworkInfo,
    pub(crate) suppressed_roles: Vec<Role>,
    pub(crate) calls: mpsc::Receiver<Result<FakeCall, String>>,
}

struct Stream {
    master: u64,
    down: mpsc::Sender<Down>,
    subscription: Option<Subscription>,
    /// Dropped with the stream, which its door waits for.
    _open: oneshot::Sender<()>,
}

struct Subscription {
    session: Session,
    framework_id: FrameworkId,
    calls: mpsc::Sender<Result<FakeCall, String>>,
}

/// One cluster of fake masters.
pub(crate) struct Core {
    fence: Fence,
    leader: u64,
    masters: BTreeMap<u64, String>,
    streams: BTreeMap<u64, Stream>,
    frameworks: BTreeMap<FrameworkId, Framework>,
    hosts: BTreeMap<String, AgentId>,
    subscribed: VecDeque<Subscribed>,
    scripted: VecDeque<CallOutcome>,
    /// Counts masters, streams, sessions and offers, so that no number is ever used twice.
    last_number: u64,
    launches: u64,
    pub(crate) heartbeat: Duration,
    pub(crate) patience: Duration,
}

/// What doors, masters and sessions share.
#[derive(Clone)]
pub(crate) struct Shared {
    core: Arc<Mutex<Core>>,
    /// Told when a session waits to be taken.
    subscribed: Arc<Notify>,
}

impl Shared {
    pub(crate) fn new() -> Self {
        let core = Core {
            fence: Fence { incarnation: 1, term: Term(1) },
            leader: 0,
            masters: BTreeMap::new(),
            streams: BTreeMap::new(),
            frameworks: BTreeMap::new(),
            hosts: BTreeMap::new(),
            subscribed: VecDeque::new(),
            scripted: VecDeque::new(),
            last_number: 0,
            launches: 0,
            heartbeat: Duration::from_secs(3_600),
            patience: Duration::from_secs(10),
        };
        Self { core: Arc::new(Mutex::new(core)), subscribed: Arc::new(Notify::new()) }
    }

    /// Nothing that holds the lock waits or panics half-way.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A scheduler's call, or why its frame cannot be read.
    pub(crate) fn called(&self, stream: u64, call: Result<(u64, SchedulerCall), String>) {
        let mut core = self.lock();
        match call {
            Ok((id, call)) => core.call(stream, FakeCall { id, call }),
            Err(why) => core.error(stream, &why),
        }
        if !core.subscribed.is_empty() {
            self.subscribed.notify_one();
        }
    }

    /// The next subscription that still holds.
    pub(crate) async fn next_subscribed(&self) -> Subscribed {
        loop {
            if let Some(next) = self.lock().take_subscribed() {
                return next;
            }
            self.subscribed.notified().await;
        }
    }
}

impl Core {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// A further master; the first one leads.
    pub(crate) fn add_master(&mut self, address: String) -> u64 {
        let master = self.next_number();
        if self.masters.is_empty() {
            self.leader = master;
        }
        self.masters.insert(master, address);
        master
    }

    /// A master is gone. When it led, another one does.
    pub(crate) fn remove_master(&mut self, master: u64) {
        self.masters.remove(&master);
        self.break_streams(master, "the master was dropped");
        if let Some(&heir) = self.masters.keys().next()
            && self.leader == master
        {
            self.lead(heir);
        }
    }

    /// A new term under this master: streams stay, and are told.
    pub(crate) fn lead(&mut self, leader: u64) {
        self.fence.term.0 += 1;
        self.leader = leader;
        self.frameworks.values_mut().for_each(Framework::void_offers);
        for stream in self.streams.values_mut() {
            stream.unsubscribe("the leader changed: take the next session with `subscribed`");
        }
        let leader = self.leader_word();
        let all: Vec<_> = self.streams.keys().copied().collect();
        for stream in all {
            // A stream with a full queue ends of it.
            let _ = self.send(stream, self.fence, leader.clone());
        }
    }

    pub(crate) fn lead_again(&mut self) {
        self.lead(self.leader);
    }

    /// Ends all streams of a master.
    pub(crate) fn break_streams(&mut self, master: u64, why: &str) {
        let its = self.streams.iter().filter(|(_, stream)| stream.master == master).map(|(id, _)| *id);
        for stream in its.collect::<Vec<_>>() {
            self.end(stream, why);
        }
    }

    fn leader_word(&self) -> SchedulerDown {
        let address = self.masters.get(&self.leader).cloned().unwrap_or_default();
        SchedulerDown::Leader { name: format!("fake-m{}", self.leader), address }
    }

    /// A scheduler opened a stream at a master's door.
    pub(crate) fn opened(&mut self, master: u64) -> Result<Opened, String> {
        if !self.masters.contains_key(&master) {
            return Err("the fake master was dropped".into());
        }
        if self.streams.len() >= STREAMS_MAX {
            return Err(format!("a fake master takes at most {STREAMS_MAX} streams"));
        }
        let (down, queue) = mpsc::channel(DOWN_WAITING_MAX);
        let (open, ended) = oneshot::channel();
        let stream = self.next_number();
        self.streams.insert(stream, Stream { master, down, subscription: None, _open: open });
        self.send(stream, self.fence, self.leader_word()).map_err(|error| error.to_string())?;
        Ok(Opened { stream, down: queue, ended })
    }

    /// The stream is over.
    pub(crate) fn end(&mut self, stream: u64, why: &str) {
        if let Some(mut stream) = self.streams.remove(&stream) {
            stream.unsubscribe(why);
        }
    }

    /// Says why, and ends the stream.
    pub(crate) fn error(&mut self, stream: u64, why: &str) {
        let _ = self.send(stream, self.fence, SchedulerDown::Event(SchedulerEvent::Error(why.into())));
        self.end(stream, why);
    }

    /// Queues a word for a stream. One that is full ends.
    pub(crate) fn send(&mut self, stream: u64, fence: Fence, down: SchedulerDown) -> anyhow::Result<()> {
        let open = self.streams.get(&stream).context("the scheduler's stream has ended")?;
        if open.down.try_send((fence, down)).is_err() {
            let why =
                format!("the scheduler reads nothing: {DOWN_WAITING_MAX} events wait, or its stream ended");
            self.end(stream, &why);
            anyhow::bail!(why);
        }
        Ok(())
    }

    pub(crate) fn tell(&mut self, stream: u64, event: SchedulerEvent) -> anyhow::Result<()> {
        self.send(stream, self.fence, SchedulerDown::Event(event))
    }

    /// Answers a call, if it asks for an answer.
    pub(crate) fn answer(&mut self, stream: u64, id: u64, outcome: CallOutcome) -> anyhow::Result<()> {
        if id == 0 {
            return Ok(());
        }
        self.tell(stream, SchedulerEvent::Outcome { id, outcome })
    }

    fn call(&mut self, stream: u64, asked: FakeCall) {
        let SchedulerCall::Subscribe { framework_id, info, suppressed_roles, .. } = asked.call else {
            let Some(open) = self.streams.get(&stream) else { return };
            let Some(subscription) = &open.subscription else {
                let _ = self.answer(stream, asked.id, CallOutcome::Refused("subscribe first".into()));
                return;
            };
            if let Err(mpsc::error::TrySendError::Full(_)) = subscription.calls.try_send(Ok(asked)) {
                self.error(stream, &format!("the test left {CALLS_WAITING_MAX} calls unread"));
            }
            return;
        };
        if let Some(outcome) = self.scripted.pop_front() {
            // A stream that ended meanwhile needs no answer.
            let _ = self.answer(stream, asked.id, outcome);
            return;
        }
        if let Err(error) = self.subscribe(stream, asked.id, framework_id, info, suppressed_roles) {
            self.error(stream, &error.to_string());
        }
    }

    fn subscribe(
        &mut self,
        stream: u64,
        call: u64,
        asked_id: Option<FrameworkId>,
        info: FrameworkInfo,
        suppressed_roles: Vec<Role>,
    ) -> anyhow::Result<()> {
        let Some(open) = self.streams.get(&stream) else { return Ok(()) };
        if asked_id.is_none() && open.subscription.is_some() {
            // A second SUBSCRIBE of one stream makes no second framework.
            return self.answer(stream, call, CallOutcome::Done);
        }
        ensure!(
            self.subscribed.len() < SESSIONS_WAITING_MAX,
            "{SESSIONS_WAITING_MAX} sessions wait for the test to take them with `subscribed`"
        );
        let framework_id = match &asked_id {
            Some(framework_id) => framework_id.clone(),
            None => FrameworkId::new(format!("fake-{:04}", self.frameworks.len() + 1)),
        };
        let room = self.frameworks.len() < FRAMEWORKS_MAX || self.frameworks.contains_key(&framework_id);
        ensure!(room, "a fake master knows at most {FRAMEWORKS_MAX} frameworks");
        let framework =
            self.frameworks.entry(framework_id.clone()).or_insert_with(|| Framework::new(info.clone()));
        ensure!(!framework.removed, "Framework has been removed");
        framework.info = info.clone();
        framework.void_offers();
        let unacknowledged = framework.unacknowledged();
        self.fail_framework_over(&framework_id, stream);

        let (calls, calls_in) = mpsc::channel(CALLS_WAITING_MAX);
        let session = Session(self.next_number());
        let subscription = Subscription { session, framework_id: framework_id.clone(), calls };
        if let Some(open) = self.streams.get_mut(&stream) {
            open.unsubscribe("the scheduler subscribed again: take the next session with `subscribed`");
            open.subscription = Some(subscription);
        }
        let heartbeat_ms = u64::try_from(self.heartbeat.as_millis()).unwrap_or(u64::MAX);
        let event = SchedulerEvent::Subscribed { framework_id: framework_id.clone(), session, heartbeat_ms };
        self.tell(stream, event)?;
        self.answer(stream, call, CallOutcome::Done)?;
        for update in unacknowledged {
            self.tell(stream, update)?;
        }
        self.subscribed.push_back(Subscribed {
            stream,
            session,
            fence: self.fence,
            framework_id,
            asked_id,
            info,
            suppressed_roles,
            calls: calls_in,
        });
        Ok(())
    }

    /// Another scheduler goes on under the id: the former one is told so, and its stream ends.
    fn fail_framework_over(&mut self, framework_id: &FrameworkId, heir: u64) {
        let has_it = |stream: &Stream| {
            stream
                .subscription
                .as_ref()
                .is_some_and(|subscription| subscription.framework_id == *framework_id)
        };
        let former = self.streams.iter().find(|(id, stream)| **id != heir && has_it(stream));
        if let Some(former) = former.map(|(id, _)| *id) {
            self.error(former, "Framework failed over");
        }
    }

    fn take_subscribed(&mut self) -> Option<Subscribed> {
        while let Some(next) = self.subscribed.pop_front() {
            if self.holds(next.stream, next.session) {
                return Some(next);
            }
        }
        None
    }

    /// Whether a stream is still subscribed with this session.
    pub(crate) fn holds(&self, stream: u64, session: Session) -> bool {
        let subscription = self.streams.get(&stream).and_then(|stream| stream.subscription.as_ref());
        subscription.is_some_and(|subscription| subscription.session == session)
    }

    /// The next subscription is answered so.
    pub(crate) fn script(&mut self, outcome: CallOutcome) -> anyhow::Result<()> {
        ensure!(self.scripted.len() < SCRIPTED_MAX, "{SCRIPTED_MAX} outcomes are scripted already");
        self.scripted.push_back(outcome);
        Ok(())
    }

    pub(crate) fn framework(&mut self, framework_id: &FrameworkId) -> anyhow::Result<&mut Framework> {
        self.frameworks.get_mut(framework_id).with_context(|| format!("no framework {framework_id}"))
    }

    /// Does what a call asks for, and tells the scheduler what comes before the answer.
    pub(crate) fn carry_out(
        &mut self,
        stream: u64,
        framework_id: &FrameworkId,
        call: &SchedulerCall,
    ) -> anyhow::Result<CallOutcome> {
        let (incarnation, mut launches) = (self.fence.incarnation, self.launches);
        let next_launch = || {
            launches += 1;
            LaunchNumber { incarnation, index: Index(launches), n: 0 }
        };
        let (outcome, events) = self.framework(framework_id)?.carry_out(call, next_launch);
        self.launches = launches;
        for event in events {
            self.tell(stream, event)?;
        }
        Ok(outcome)
    }

    pub(crate) fn next_offer_id(&mut self) -> OfferId {
        let number = self.next_number();
        OfferId::new(format!("fake-O{}-0-{number}", self.fence.term))
    }

    /// The agent on a host, always the same.
    pub(crate) fn agent_on(&mut self, hostname: &str) -> anyhow::Result<AgentId> {
        if let Some(agent_id) = self.hosts.get(hostname) {
            return Ok(agent_id.clone());
        }
        ensure!(self.hosts.len() < HOSTS_MAX, "a fake master knows at most {HOSTS_MAX} hosts");
        let agent_id = AgentId::new(format!("fake-S{}", self.hosts.len() + 1));
        self.hosts.insert(hostname.into(), agent_id.clone());
        Ok(agent_id)
    }
}

impl Stream {
    /// Calls come no more; the test reads why.
    fn unsubscribe(&mut self, why: &str) {
        if let Some(subscription) = self.subscription.take() {
            // Whoever holds the other end of a full queue learns that it ended.
            let _ = subscription.calls.try_send(Err(why.into()));
        }
    }
}
