//! A framework without the SDK: it speaks the frameworks' protocol itself, so that it hears what became of each of its
//! calls, and repeats none. It keeps an offer at hand for a while before it uses it, and stays for longer than an
//! election takes with a leader that says nothing: what it asks then is asked of one that is deposed.

use crate::history::{Event, Recorder};
use crate::jobs::{Jobs, NOBODYS};
use crate::register::open;
use muster_model::event::OfferWithAgent;
use muster_model::{CallOutcome, Fence, FrameworkId, SchedulerEvent, Status, TaskOutcome, Uuid};
use muster_proto::agent::wire_fence;
use muster_proto::v1::scheduler_frame::Call;
use muster_proto::{SchedulerDown, scheduler_event, v1};
use muster_testkit::TestCluster;
use prost::Message;
use rand::RngExt;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;

/// Its name.
pub const DIRECT: &str = "d1";
/// Its calls whose answers are in the history.
pub const ACCEPT: &str = "accept";
/// Asks for a task's end.
pub const KILL: &str = "kill";
/// Takes an update as received.
pub const ACKNOWLEDGE: &str = "acknowledge";
/// For how long it keeps an offer at hand, and how long it takes no other.
const REST: Duration = Duration::from_millis(250);
const HOLD_MS: std::ops::RangeInclusive<u64> = 20..=500;
/// How long a master may take to take a stream, and how long a leader may say nothing.
const DIAL_TIME: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_secs(5);
/// From a stream that ended to the next.
const DIAL_PAUSE: Duration = Duration::from_millis(100);
/// Calls that wait to be said on one stream.
const CALLS_MAX: usize = 256;
/// How long its tasks may take to end when nothing goes wrong any more.
const END_TIME: Duration = Duration::from_secs(30);

/// The framework. What it knows outlasts its streams.
#[derive(Debug)]
pub struct Direct {
    masters: Vec<String>,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    jobs: Jobs,
    /// By which its first SUBSCRIBE is known again.
    token: [u8; 16],
    framework_id: Option<FrameworkId>,
    /// When it may take another offer at hand.
    rested: Instant,
    /// It has asked since, on the present stream, and was answered.
    is_told: bool,
}

/// One stream, as far as it is under one leader.
struct Stream {
    calls: mpsc::Sender<v1::SchedulerFrame>,
    /// The leader that it heard of last, and speaks to.
    fence: Fence,
    leader: String,
    is_subscribed: bool,
    last_id: u64,
    /// Calls that are not answered.
    asked: BTreeMap<u64, Asked>,
    held: Vec<Held>,
}

enum Asked {
    Subscribe,
    Accept(BTreeSet<String>),
    Kill(String),
    Acknowledge(String, Uuid),
    Reconcile,
}

/// An offer at hand.
struct Held {
    offer: OfferWithAgent,
    since_us: u64,
    /// When it is used.
    until: Instant,
}

/// Why a stream is of no more use.
enum Over {
    /// It is broken, or its master does not know the leader.
    Broken,
    /// This master leads, and is to be dialled itself.
    Elsewhere(String),
    /// All that was launched has ended, and all that was asked is answered.
    Done,
}

impl Direct {
    /// Of these dice.
    pub fn new(cluster: &TestCluster, recorder: &Recorder, seed: u64) -> Self {
        let known = Known {
            jobs: Jobs::new(DIRECT, cluster, recorder, seed),
            token: rand::random(),
            framework_id: None,
            rested: Instant::now(),
            is_told: false,
        };
        Self { masters: cluster.masters(), known: Mutex::new(known) }
    }

    /// Launches and kills until this is dropped.
    pub async fn keep_busy(&self) {
        let mut known = self.known.lock().await;
        self.go_round(&mut known).await;
    }

    /// Ends all that it launched, and waits for that. What does not end is in the verdict.
    pub async fn finish(&self) {
        let mut known = self.known.lock().await;
        known.jobs.is_ending = true;
        let _ = timeout(END_TIME, self.go_round(&mut known)).await;
    }

    /// One stream after the other: to all masters in turn, and at times to the leader that one of them named.
    async fn go_round(&self, known: &mut Known) {
        let mut turn = self.masters.iter().cycle();
        let mut named = None;
        while let Some(master) = named.take().or_else(|| turn.next().cloned()) {
            match self.follow(known, &master).await {
                Over::Done => return,
                Over::Elsewhere(leader) => named = Some(leader),
                Over::Broken => {}
            }
            tokio::time::sleep(DIAL_PAUSE).await;
        }
    }

    /// A stream to one master, to its end.
    async fn follow(&self, known: &mut Known, master: &str) -> Over {
        let (calls, frames) = mpsc::channel(CALLS_MAX);
        let Ok(Ok(mut down)) = timeout(DIAL_TIME, open(master, ReceiverStream::new(frames))).await else {
            return Over::Broken;
        };
        known.is_told = false;
        let mut stream = Stream {
            calls,
            fence: Fence::default(),
            leader: String::new(),
            is_subscribed: false,
            last_id: 0,
            asked: BTreeMap::new(),
            held: Vec::new(),
        };
        let mut silent = Instant::now() + SILENCE;
        loop {
            if known.is_over() && stream.asked.is_empty() {
                return Over::Done;
            }
            let due = stream.held.iter().map(|held| held.until).min();
            let heard = tokio::select! {
                heard = timeout_at(silent, down.message()) => Some(heard),
                () = sleep_until(due.unwrap_or(silent)), if due.is_some() => None,
            };
            let went = match heard {
                None => self.use_offers(known, &mut stream),
                Some(Ok(Ok(Some(frame)))) => {
                    silent = Instant::now() + SILENCE;
                    self.hear(known, &mut stream, master, frame)
                }
                Some(_) => Err(Over::Broken),
            };
            if let Err(over) = went {
                known.disconnected(&stream);
                return over;
            }
        }
    }

    fn hear(
        &self,
        known: &mut Known,
        stream: &mut Stream,
        master: &str,
        frame: v1::SchedulerDownFrame,
    ) -> Result<(), Over> {
        let Ok((fence, down)) = scheduler_event(frame) else {
            known.jobs.record(Event::Error { message: format!("{master} says what cannot be read") });
            return Err(Over::Broken);
        };
        match down {
            SchedulerDown::Redial(_) => Err(Over::Broken),
            _ if fence < stream.fence => Ok(()),
            SchedulerDown::Leader { name, address } => {
                // What was on its way to another one is unknown.
                known.disconnected(stream);
                (stream.fence, stream.leader, stream.is_subscribed) = (fence, name, false);
                stream.asked.clear();
                stream.held.clear();
                if address != master && known.jobs.rng.random_ratio(1, 2) {
                    return Err(Over::Elsewhere(address));
                }
                stream.ask(Asked::Subscribe, Call::Subscribe(known.subscribe()))
            }
            SchedulerDown::Event(event) if fence == stream.fence => self.told(known, stream, event),
            SchedulerDown::Event(_) => Ok(()),
        }
    }

    fn told(&self, known: &mut Known, stream: &mut Stream, event: SchedulerEvent) -> Result<(), Over> {
        match event {
            SchedulerEvent::Subscribed { framework_id, .. } => {
                known.jobs.record(match &known.framework_id {
                    Some(id) if *id == framework_id => Event::Reregistered,
                    _ => Event::Registered { framework_id: framework_id.to_string(), begun_us: None },
                });
                known.framework_id = Some(framework_id);
                stream.is_subscribed = true;
                // A SUBSCRIBE that was said twice is answered once.
                stream.asked.retain(|_, asked| !matches!(asked, Asked::Subscribe));
                known.jobs.kills_failed();
                self.ask(known, stream)?;
                self.kill(known, stream)
            }
            SchedulerEvent::Error(message) => {
                known.jobs.record(Event::Error { message });
                Err(Over::Broken)
            }
            SchedulerEvent::Outcome { id, outcome } => self.answered(known, stream, id, outcome),
            _ if !stream.is_subscribed => Ok(()),
            SchedulerEvent::Offers(offers) => {
                self.offered(known, stream, offers)?;
                self.kill(known, stream)
            }
            SchedulerEvent::Rescind(id) => {
                stream.held.retain(|held| held.offer.offer.offer_id != id);
                Ok(())
            }
            SchedulerEvent::Update { task_id, status, uuid, .. } => {
                self.updated(known, stream, task_id.as_str(), &status, uuid)
            }
            SchedulerEvent::Heartbeat
            | SchedulerEvent::InverseOffers(_)
            | SchedulerEvent::RescindInverse(_)
            | SchedulerEvent::Operation(_)
            | SchedulerEvent::Message { .. }
            | SchedulerEvent::AgentLost(_)
            | SchedulerEvent::ExecutorLost { .. } => Ok(()),
        }
    }

    fn answered(
        &self,
        known: &mut Known,
        stream: &mut Stream,
        id: u64,
        outcome: CallOutcome,
    ) -> Result<(), Over> {
        let Some(asked) = stream.asked.remove(&id) else { return Ok(()) };
        let by = stream.leader.clone();
        let done = |jobs: &Jobs, call: &str, task: &str, which: String| {
            let (call, task, by) = (call.into(), task.into(), by.clone());
            jobs.record(Event::Answered { call, task, which, by });
        };
        match (asked, outcome) {
            // Another stream, after a pause.
            (Asked::Subscribe, CallOutcome::Busy | CallOutcome::Unknown) => return Err(Over::Broken),
            (Asked::Subscribe, CallOutcome::Refused(message)) => {
                known.jobs.record(Event::Error { message });
                return Err(Over::Broken);
            }
            (Asked::Accept(_), CallOutcome::Accepted(accepted)) => {
                for (task_id, became) in accepted.tasks {
                    let launched = match became {
                        TaskOutcome::Launched(number) => Some(number),
                        TaskOutcome::Refused { .. } => None,
                    };
                    if let Some(number) = launched {
                        done(&known.jobs, ACCEPT, task_id.as_str(), number.to_string());
                    }
                    known.jobs.decide(task_id.as_str(), launched.is_some());
                }
            }
            // It was said once: who does not carry it out now never will.
            (Asked::Accept(tasks), CallOutcome::Refused(_) | CallOutcome::Busy) => {
                tasks.iter().for_each(|task| known.jobs.decide(task, false));
            }
            (Asked::Kill(task), CallOutcome::Done) => done(&known.jobs, KILL, &task, String::new()),
            (Asked::Kill(task), _) => known.jobs.kill_failed(&task),
            (Asked::Acknowledge(task, uuid), CallOutcome::Done) => {
                done(&known.jobs, ACKNOWLEDGE, &task, uuid.to_string());
            }
            // A new leader tells it again, and what is unknown is asked then.
            (Asked::Acknowledge(task, uuid), CallOutcome::Busy) => stream.acknowledge(task, uuid)?,
            (Asked::Reconcile, CallOutcome::Done) => known.is_told = known.jobs.is_ending,
            (Asked::Reconcile, CallOutcome::Busy) => self.ask(known, stream)?,
            _ => {}
        }
        Ok(())
    }

    fn updated(
        &self,
        known: &mut Known,
        stream: &mut Stream,
        task: &str,
        status: &Status,
        uuid: Option<Uuid>,
    ) -> Result<(), Over> {
        if task == NOBODYS {
            return Ok(());
        }
        let named = uuid.map(|uuid| uuid.to_string());
        known.jobs.updated(task, status.state, status.reason, &status.message, named);
        if let Some(uuid) = uuid {
            stream.acknowledge(task.into(), uuid)?;
        }
        self.kill(known, stream)
    }

    /// What became of launches that nobody answered: what is not known now never will be. In the end, about one that
    /// nobody launched as well: the answer comes after all updates that were not acknowledged.
    fn ask(&self, known: &Known, stream: &mut Stream) -> Result<(), Over> {
        let mut tasks: Vec<String> = known.jobs.undecided().cloned().collect();
        tasks.extend(known.jobs.is_ending.then(|| NOBODYS.to_owned()));
        if tasks.is_empty() {
            return Ok(()); // no names would stand for all
        }
        let asked = |task: &String| v1::reconcile::Task { task_id: task.clone(), agent_id: String::new() };
        let tasks = tasks.iter().map(asked).collect();
        stream.ask(Asked::Reconcile, Call::Reconcile(v1::Reconcile { tasks }))
    }

    /// Asks for the kills that are due and were not asked for on this stream.
    fn kill(&self, known: &mut Known, stream: &mut Stream) -> Result<(), Over> {
        for task in known.jobs.kills_due() {
            let kill = v1::Kill { task_id: task.clone(), ..Default::default() };
            stream.ask(Asked::Kill(task), Call::Kill(kill))?;
        }
        Ok(())
    }

    fn offered(
        &self,
        known: &mut Known,
        stream: &mut Stream,
        offers: Vec<OfferWithAgent>,
    ) -> Result<(), Over> {
        let since_us = known.jobs.now_us();
        for offer in offers {
            if known.jobs.takes(&offer.offer.resources) && known.rested <= Instant::now() {
                known.rested = Instant::now() + REST;
                let until = Instant::now() + Duration::from_millis(known.jobs.rng.random_range(HOLD_MS));
                stream.held.push(Held { offer, since_us, until });
                continue;
            }
            let refuse_ms = Some(known.jobs.refuse_ms());
            let decline = v1::Decline { offer_ids: vec![offer.offer.offer_id.to_string()], refuse_ms };
            stream.say(0, Call::Decline(decline))?;
        }
        Ok(())
    }

    /// Launches on the offers that were at hand for long enough.
    fn use_offers(&self, known: &mut Known, stream: &mut Stream) -> Result<(), Over> {
        let now = Instant::now();
        let (due, later): (Vec<Held>, _) =
            std::mem::take(&mut stream.held).into_iter().partition(|held| held.until <= now);
        stream.held = later;
        for Held { offer, since_us, .. } in due {
            let (hostname, offer) = (offer.hostname, offer.offer);
            let agent = (offer.agent_id.as_str(), &*hostname);
            let infos = known.jobs.launch(offer.offer_id.as_str(), &offer.resources, agent, since_us);
            let (offer_id, refuse_ms) = (offer.offer_id.to_string(), Some(known.jobs.refuse_ms()));
            if infos.is_empty() {
                stream.say(0, Call::Decline(v1::Decline { offer_ids: vec![offer_id], refuse_ms }))?;
                continue;
            }
            let names = infos.iter().map(|info| info.task_id.value.clone()).collect();
            let task_infos = infos.iter().map(|info| info.encode_to_vec().into()).collect();
            let offer_ids = vec![offer_id];
            let accept = v1::Accept { offer_ids, task_infos, refuse_ms, operations: Vec::new() };
            stream.ask(Asked::Accept(names), Call::Accept(accept))?;
        }
        Ok(())
    }
}

impl Known {
    /// Nothing is left of what it launched, and nothing more is launched.
    fn is_over(&self) -> bool {
        self.jobs.is_ending && self.is_told && self.jobs.is_empty()
    }

    fn disconnected(&self, stream: &Stream) {
        if stream.is_subscribed {
            self.jobs.record(Event::Disconnected);
        }
    }

    fn subscribe(&self) -> v1::Subscribe {
        let token = if self.framework_id.is_none() { self.token.to_vec() } else { Vec::new() };
        v1::Subscribe {
            framework_id: self.framework_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            framework_info: self.jobs.framework().encode_to_vec().into(),
            suppressed_roles: Vec::new(),
            token: token.into(),
            stream: false,
            ..Default::default()
        }
    }
}

impl Stream {
    /// Says a call whose outcome it wants to hear.
    fn ask(&mut self, asked: Asked, call: Call) -> Result<(), Over> {
        self.last_id += 1;
        self.asked.insert(self.last_id, asked);
        self.say(self.last_id, call)
    }

    /// Says a call to the leader that it heard of last. A stream that does not take it is of no use.
    fn say(&self, id: u64, call: Call) -> Result<(), Over> {
        let frame = v1::SchedulerFrame { id, call: Some(call), fence: Some(wire_fence(self.fence)) };
        self.calls.try_send(frame).map_err(|_| Over::Broken)
    }

    fn acknowledge(&mut self, task: String, uuid: Uuid) -> Result<(), Over> {
        let acknowledge = v1::Acknowledge { task_id: task.clone(), uuid: uuid.0.to_vec().into() };
        self.ask(Asked::Acknowledge(task, uuid), Call::Acknowledge(acknowledge))
    }
}
