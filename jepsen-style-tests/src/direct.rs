//! A framework without the SDK: it speaks the frameworks' protocol itself, so that it hears what became of each of its
//! calls, and repeats none. It keeps an offer at hand for a while before it uses it, and stays for longer than an
//! election takes with a leader that says nothing: what it asks then is asked of one that is deposed.

use crate::client::{Told, amounts};
use crate::history::{Amounts, Event, Phase, Recorder};
use crate::model::{MARKS, marking_command};
use crate::register::open;
use muster_model::event::OfferWithAgent;
use muster_model::{
    CallOutcome, Fence, FrameworkId, Reason, Resources, SchedulerEvent, Status, TaskOutcome, Uuid,
};
use muster_proto::agent::wire_fence;
use muster_proto::mesos::framework_info::{Capability, capability::Type};
use muster_proto::v1::scheduler_frame::Call;
use muster_proto::{SchedulerDown, mesos, scheduler_event, v1, wire_resources};
use muster_testkit::TestCluster;
use prost::Message;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
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
/// A task that nobody launched.
const NOBODYS: &str = "nobodys";
/// How long the masters keep it when it is gone: longer than any run is without it.
const FAILOVER_S: f64 = 600.0;
/// What each task needs.
const TASK_CPUS_MILLI: u64 = 100;
const TASK_MEM_MB: u64 = 16;
/// How long tasks run, and those that are to be killed: longer than a run waits for them.
const RUN_MS: std::ops::RangeInclusive<u64> = 0..=600;
const ENDLESS_MS: u64 = 600_000;
const KILL_ONE_IN: u32 = 4;
/// Tasks that are open at once, and launched on one offer.
const OPEN_MAX: usize = 6;
const TOGETHER_MAX: usize = 2;
/// For how long it keeps an offer at hand, and how long it takes no other.
const REST: Duration = Duration::from_millis(250);
const HOLD_MS: std::ops::RangeInclusive<u64> = 20..=500;
/// How long what it does not want is not to be offered again.
const REFUSE_MS: std::ops::RangeInclusive<u64> = 100..=400;
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
    recorder: Recorder,
    masters: Vec<String>,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    marks: PathBuf,
    rng: SmallRng,
    /// By which its first SUBSCRIBE is known again.
    token: [u8; 16],
    framework_id: Option<FrameworkId>,
    launched: u64,
    /// Those of which no end was told.
    tasks: BTreeMap<String, Open>,
    /// When it may take another offer at hand.
    rested: Instant,
    /// It launches nothing more, and what it has is to end.
    is_ending: bool,
    /// It has asked since, on the present stream, and was answered.
    is_told: bool,
}

#[derive(Debug)]
struct Open {
    /// Nothing was heard of it.
    undecided: bool,
    /// It never ends by itself.
    kill: bool,
    /// It was asked to end, on the present stream.
    kill_asked: bool,
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
            marks: cluster.dir().join(MARKS),
            rng: SmallRng::seed_from_u64(seed),
            token: rand::random(),
            framework_id: None,
            launched: 0,
            tasks: BTreeMap::new(),
            rested: Instant::now(),
            is_ending: false,
            is_told: false,
        };
        Self { recorder: recorder.clone(), masters: cluster.masters(), known: Mutex::new(known) }
    }

    /// Launches and kills until this is dropped.
    pub async fn keep_busy(&self) {
        let mut known = self.known.lock().await;
        self.go_round(&mut known).await;
    }

    /// Ends all that it launched, and waits for that. What does not end is in the verdict.
    pub async fn finish(&self) {
        let mut known = self.known.lock().await;
        known.is_ending = true;
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
                self.disconnected(&stream);
                return over;
            }
        }
    }

    fn disconnected(&self, stream: &Stream) {
        if stream.is_subscribed {
            self.record(Event::Disconnected);
        }
    }

    fn record(&self, event: Event) {
        self.recorder.record(DIRECT, event);
    }

    fn hear(
        &self,
        known: &mut Known,
        stream: &mut Stream,
        master: &str,
        frame: v1::SchedulerDownFrame,
    ) -> Result<(), Over> {
        let Ok((fence, down)) = scheduler_event(frame) else {
            self.record(Event::Error { message: format!("{master} says what cannot be read") });
            return Err(Over::Broken);
        };
        match down {
            SchedulerDown::Redial(_) => Err(Over::Broken),
            _ if fence < stream.fence => Ok(()),
            SchedulerDown::Leader { name, address } => {
                // What was on its way to another one is unknown.
                self.disconnected(stream);
                (stream.fence, stream.leader, stream.is_subscribed) = (fence, name, false);
                stream.asked.clear();
                stream.held.clear();
                if address != master && known.rng.random_ratio(1, 2) {
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
                self.record(match &known.framework_id {
                    Some(id) if *id == framework_id => Event::Reregistered,
                    _ => Event::Registered { framework_id: framework_id.to_string(), begun_us: None },
                });
                known.framework_id = Some(framework_id);
                stream.is_subscribed = true;
                // A SUBSCRIBE that was said twice is answered once.
                stream.asked.retain(|_, asked| !matches!(asked, Asked::Subscribe));
                known.tasks.values_mut().for_each(|open| open.kill_asked = false);
                self.ask(known, stream)?;
                self.kill(known, stream)
            }
            SchedulerEvent::Error(message) => {
                self.record(Event::Error { message });
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
        let done = |call: &str, task: &str, which: String| {
            let (call, task, by) = (call.into(), task.into(), stream.leader.clone());
            self.record(Event::Answered { call, task, which, by });
        };
        match (asked, outcome) {
            // Another stream, after a pause.
            (Asked::Subscribe, CallOutcome::Busy | CallOutcome::Unknown) => return Err(Over::Broken),
            (Asked::Subscribe, CallOutcome::Refused(message)) => {
                self.record(Event::Error { message });
                return Err(Over::Broken);
            }
            (Asked::Accept(_), CallOutcome::Accepted(accepted)) => {
                for (task_id, became) in accepted.tasks {
                    let launched = match became {
                        TaskOutcome::Launched(number) => Some(number),
                        TaskOutcome::Refused { .. } => None,
                    };
                    if let Some(number) = launched {
                        done(ACCEPT, task_id.as_str(), number.to_string());
                    }
                    self.decide(known, task_id.as_str(), launched.is_some());
                }
            }
            // It was said once: who does not carry it out now never will.
            (Asked::Accept(tasks), CallOutcome::Refused(_) | CallOutcome::Busy) => {
                tasks.iter().for_each(|task| self.decide(known, task, false));
            }
            (Asked::Kill(task), CallOutcome::Done) => done(KILL, &task, String::new()),
            (Asked::Kill(task), _) => {
                if let Some(open) = known.tasks.get_mut(&task) {
                    open.kill_asked = false;
                }
            }
            (Asked::Acknowledge(task, uuid), CallOutcome::Done) => {
                done(ACKNOWLEDGE, &task, uuid.to_string());
            }
            // A new leader tells it again, and what is unknown is asked then.
            (Asked::Acknowledge(task, uuid), CallOutcome::Busy) => stream.acknowledge(task, uuid)?,
            (Asked::Reconcile, CallOutcome::Done) => known.is_told = known.is_ending,
            (Asked::Reconcile, CallOutcome::Busy) => self.ask(known, stream)?,
            _ => {}
        }
        Ok(())
    }

    /// A launch is decided, unless it was before.
    fn decide(&self, known: &mut Known, task: &str, is_launched: bool) {
        let Some(open) = known.tasks.get_mut(task) else { return };
        if !std::mem::replace(&mut open.undecided, false) {
            return;
        }
        let phase = if is_launched { Phase::Ok } else { Phase::Refused };
        let (agent, needs) = (String::new(), Amounts::new());
        self.record(Event::Launch { phase, task: task.into(), agent, needs });
        if !is_launched {
            known.tasks.remove(task);
        }
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
        let (state, durable) = (status.state, uuid.is_some());
        let reason = status.reason.map_or("", |reason| reason.name());
        self.record(Event::Update {
            task: task.into(),
            state: state.name().into(),
            terminal: state.is_terminal(),
            durable,
            reason: format!("{reason} {}", status.message).trim_start().into(),
            uuid: uuid.map(|uuid| uuid.to_string()),
        });
        let told = Told { state, durable, answer: !durable && status.reason == Some(Reason::Reconciliation) };
        self.decide(known, task, told.is_launched());
        if durable && state.is_terminal() {
            known.tasks.remove(task);
        }
        if let Some(uuid) = uuid {
            stream.acknowledge(task.into(), uuid)?;
        }
        self.kill(known, stream)
    }

    /// What became of launches that nobody answered: what is not known now never will be. In the end, about one that
    /// nobody launched as well: the answer comes after all updates that were not acknowledged.
    fn ask(&self, known: &Known, stream: &mut Stream) -> Result<(), Over> {
        let undecided = known.tasks.iter().filter(|(_, open)| open.undecided);
        let mut tasks: Vec<String> = undecided.map(|(task, _)| task.clone()).collect();
        tasks.extend(known.is_ending.then(|| NOBODYS.to_owned()));
        if tasks.is_empty() {
            return Ok(()); // no names would stand for all
        }
        let asked = |task: &String| v1::reconcile::Task { task_id: task.clone(), agent_id: String::new() };
        let tasks = tasks.iter().map(asked).collect();
        stream.ask(Asked::Reconcile, Call::Reconcile(v1::Reconcile { tasks }))
    }

    /// Asks for the kills that are due and were not asked for on this stream.
    fn kill(&self, known: &mut Known, stream: &mut Stream) -> Result<(), Over> {
        let is_ending = known.is_ending;
        for (task, open) in &mut known.tasks {
            if !(open.kill || is_ending) || open.undecided || open.kill_asked {
                continue;
            }
            open.kill_asked = true;
            self.record(Event::Kill { task: task.clone() });
            let kill = v1::Kill { task_id: task.clone(), ..Default::default() };
            stream.ask(Asked::Kill(task.clone()), Call::Kill(kill))?;
        }
        Ok(())
    }

    fn offered(
        &self,
        known: &mut Known,
        stream: &mut Stream,
        offers: Vec<OfferWithAgent>,
    ) -> Result<(), Over> {
        let since_us = self.recorder.now_us();
        for offer in offers {
            let fits = offer.offer.resources.contains(&needs());
            if fits && known.may_launch() && known.rested <= Instant::now() {
                known.rested = Instant::now() + REST;
                let until = Instant::now() + Duration::from_millis(known.rng.random_range(HOLD_MS));
                stream.held.push(Held { offer, since_us, until });
                continue;
            }
            let refuse_ms = Some(known.rng.random_range(REFUSE_MS));
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
            let mut left = offer.resources.clone();
            let (mut names, mut task_infos) = (BTreeSet::new(), Vec::new());
            for _ in 0..known.rng.random_range(1..=TOGETHER_MAX) {
                if !left.contains(&needs()) || !known.may_launch() {
                    break;
                }
                left.subtract(&needs());
                let task = known.task();
                let (phase, agent) = (Phase::Invoked, hostname.to_string());
                self.record(Event::Launch { phase, task: task.clone(), agent, needs: amounts(&needs()) });
                let info = known.describe(&task, &offer.agent_id.to_string());
                task_infos.push(info.encode_to_vec().into());
                names.insert(task);
            }
            let (offer_id, refuse_ms) = (offer.offer_id.to_string(), Some(known.rng.random_range(REFUSE_MS)));
            if names.is_empty() {
                stream.say(0, Call::Decline(v1::Decline { offer_ids: vec![offer_id], refuse_ms }))?;
                continue;
            }
            let (agent, holds) = (hostname.to_string(), amounts(&offer.resources));
            self.record(Event::Accepts { offer: offer_id.clone(), agent, holds, since_us });
            let accept = v1::Accept { offer_ids: vec![offer_id], task_infos, refuse_ms };
            stream.ask(Asked::Accept(names), Call::Accept(accept))?;
        }
        Ok(())
    }
}

impl Known {
    /// Nothing is left of what it launched, and nothing more is launched.
    fn is_over(&self) -> bool {
        self.is_ending && self.is_told && self.tasks.is_empty()
    }

    fn may_launch(&self) -> bool {
        !self.is_ending && self.tasks.len() < OPEN_MAX
    }

    /// Another task, by name.
    fn task(&mut self) -> String {
        self.launched += 1;
        let task = format!("{DIRECT}-{}", self.launched);
        let kill = self.rng.random_ratio(1, KILL_ONE_IN);
        self.tasks.insert(task.clone(), Open { undecided: true, kill, kill_asked: false });
        task
    }

    fn describe(&mut self, task: &str, agent_id: &str) -> mesos::TaskInfo {
        let is_killed = self.tasks.get(task).is_some_and(|open| open.kill);
        let ms = if is_killed { ENDLESS_MS } else { self.rng.random_range(RUN_MS) };
        let command = marking_command(&self.marks, task, ms);
        mesos::TaskInfo {
            name: task.into(),
            task_id: mesos::TaskId { value: task.into() },
            agent_id: mesos::AgentId { value: agent_id.into() },
            resources: wire_resources(&needs()),
            command: Some(mesos::CommandInfo { value: Some(command), ..Default::default() }),
            ..Default::default()
        }
    }

    fn subscribe(&self) -> v1::Subscribe {
        let capability = Capability { r#type: Some(Type::PartitionAware.into()) };
        let info = mesos::FrameworkInfo {
            name: DIRECT.into(),
            failover_timeout: Some(FAILOVER_S),
            capabilities: vec![capability],
            ..Default::default()
        };
        let token = if self.framework_id.is_none() { self.token.to_vec() } else { Vec::new() };
        v1::Subscribe {
            framework_id: self.framework_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            framework_info: info.encode_to_vec().into(),
            suppressed_roles: Vec::new(),
            token: token.into(),
            stream: false,
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

/// What each task needs.
fn needs() -> Resources {
    Resources::of(TASK_CPUS_MILLI, TASK_MEM_MB)
}
