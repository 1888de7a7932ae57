//! Simulated frameworks: they launch as fast as offers and their limits allow.

pub(crate) use super::play::Play;
use super::{
    ledger::Ledger,
    play::Fate,
    wire::{Connection, Duplex, Pause, StreamError},
};
use hdrhistogram::Histogram;
use muster_model::{
    AgentId, CallOutcome, Fence, FrameworkId, FrameworkInfo, OfferId, Resources, SchedulerCall,
    SchedulerEvent, Sealed, TaskId, TaskOutcome, TaskSpec, TaskState,
};
use muster_proto::{SchedulerDown, mesos, v1};
use prost::Message;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Until what a leader was too busy for is said again.
const BUSY: Duration = Duration::from_millis(50);

/// How a framework launches.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// Tasks in one ACCEPT.
    pub(crate) tasks_per_accept: usize,
    /// ACCEPTs on their way at a time.
    pub(crate) in_flight: usize,
    /// At least this long between ACCEPTs; zero for as fast as possible.
    pub(crate) every: Duration,
    /// What a task needs.
    pub(crate) task: Resources,
}

/// How long nothing new may come until all has come, where nothing is missing, and where something is.
const QUIET: Duration = Duration::from_secs(1);
const QUIET_MAX: Duration = Duration::from_secs(20);

/// What all frameworks share.
pub(crate) struct Shared {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) play: Play,
    /// Tasks of others in the same ledger that run on.
    open_before: u64,
    /// Whether new tasks are launched.
    pub(crate) launching: AtomicBool,
    /// ACCEPTs that are not answered.
    pub(crate) asking: AtomicU64,
    /// Times are recorded of what was asked for between these two, whenever it comes.
    recording: Mutex<(Option<Instant>, Option<Instant>)>,
    /// From ACCEPT to its answer.
    pub(crate) answered: Mutex<Histogram<u64>>,
    /// From ACCEPT to TASK_RUNNING seen.
    pub(crate) latency: Mutex<Histogram<u64>>,
    /// From ACCEPT to TASK_FINISHED seen.
    pub(crate) lifetime: Mutex<Histogram<u64>>,
    /// What happened when, for failovers.
    pub(crate) moments: mpsc::Sender<Moment>,
}

impl Shared {
    /// New tasks are launched, times are not recorded yet.
    pub(crate) fn new(moments: mpsc::Sender<Moment>) -> Arc<Self> {
        Self::playing(Play::default(), moments)
    }

    /// The same for those who do something else.
    pub(crate) fn playing(play: Play, moments: mpsc::Sender<Moment>) -> Arc<Self> {
        Arc::new(Self::fresh(Arc::default(), play, moments))
    }

    /// Others that keep the same ledger.
    pub(crate) fn beside(&self, play: Play) -> Arc<Self> {
        let of = Self::fresh(self.ledger.clone(), play, self.moments.clone());
        Arc::new(of)
    }

    fn fresh(ledger: Arc<Ledger>, play: Play, moments: mpsc::Sender<Moment>) -> Self {
        if play.fate == Fate::Taken {
            ledger.trust_agents();
        }
        Self {
            open_before: ledger.open(),
            ledger,
            play,
            launching: AtomicBool::new(true),
            asking: AtomicU64::new(0),
            recording: Mutex::default(),
            answered: Mutex::new(super::report::times()),
            latency: Mutex::new(super::report::times()),
            lifetime: Mutex::new(super::report::times()),
            moments,
        }
    }

    /// Begins to record times, without those of before.
    pub(crate) fn start_recording(&self) {
        for recorded in [&self.answered, &self.latency, &self.lifetime] {
            recorded.lock().unwrap_or_else(PoisonError::into_inner).reset();
        }
        *self.recording.lock().unwrap_or_else(PoisonError::into_inner) = (Some(Instant::now()), None);
    }

    /// What is asked for from now on is not recorded.
    pub(crate) fn stop_recording(&self) {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(Instant::now());
    }

    /// An ACCEPT was answered which was sent then.
    pub(crate) fn saw_answer(&self, asked: Instant) {
        self.took(&self.answered, asked);
    }

    /// A framework heard that a task runs which was asked for then.
    pub(crate) fn saw_running(&self, asked: Instant) {
        self.ledger.running.fetch_add(1, Ordering::Relaxed);
        self.took(&self.latency, asked);
    }

    /// A framework heard that a task is over which was asked for then.
    pub(crate) fn saw_end(&self, asked: Instant, is_finished: bool) {
        let count = if is_finished { &self.ledger.finished } else { &self.ledger.failed };
        count.fetch_add(1, Ordering::Relaxed);
        self.took(&self.lifetime, asked);
    }

    fn took(&self, times: &Mutex<Histogram<u64>>, since: Instant) {
        let (from, to) = *self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        if from.is_some_and(|from| since >= from) && to.is_none_or(|to| since <= to) {
            super::report::record(&mut times.lock().unwrap_or_else(PoisonError::into_inner), since.elapsed());
        }
    }

    /// Nothing new is launched; waits until what is on its way has arrived, so that it can be judged. As long as anything is
    /// missing that is a while without anything new.
    pub(crate) async fn settle(&self) {
        self.launching.store(false, Ordering::Relaxed);
        let (mut seen, mut quiet) = (self.ledger.progress(), Instant::now());
        while quiet.elapsed() < QUIET_MAX {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = self.ledger.progress();
            if now != seen {
                (seen, quiet) = (now, Instant::now());
            } else if quiet.elapsed() >= QUIET && !self.misses_something() {
                return;
            }
        }
    }

    fn misses_something(&self) -> bool {
        let is_late =
            || self.asking.load(Ordering::Relaxed) > 0 || self.ledger.judge() != (0, 0) || self.unended() > 0;
        !self.ledger.is_broken() && is_late()
    }

    /// Tasks that are to end, and of whose end nobody has heard.
    pub(crate) fn unended(&self) -> u64 {
        if self.play.fate == Fate::Ends { self.ledger.open().saturating_sub(self.open_before) } else { 0 }
    }
}

/// Something a failover is timed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The framework heard of a leader that serves: its first entry is committed.
    Leader(usize, Fence, Instant),
    /// It is subscribed there.
    Subscribed(usize, Fence, Instant),
    /// It got its first offer there.
    Offered(usize, Fence, Instant),
}

impl Moment {
    fn parts(self) -> (Fence, Instant) {
        let (Self::Leader(_, fence, at) | Self::Subscribed(_, fence, at) | Self::Offered(_, fence, at)) =
            self;
        (fence, at)
    }

    /// Under which leader.
    pub(crate) fn fence(self) -> Fence {
        self.parts().0
    }

    /// When.
    pub(crate) fn at(self) -> Instant {
        self.parts().1
    }
}

type Stream = Duplex<v1::SchedulerFrame, v1::SchedulerDownFrame>;

fn send(stream: &mut Stream, id: u64, call: &SchedulerCall) -> Result<(), StreamError> {
    stream.send(&muster_proto::scheduler_frame(id, call))
}

struct Framework {
    number: usize,
    pace: Pace,
    shared: Arc<Shared>,
    framework_id: Option<FrameworkId>,
    fence: Fence,
    offered_in: Fence,
    offers: VecDeque<(OfferId, AgentId, Arc<Resources>)>,
    /// ACCEPTs on their way, with what a repetition after a leader change needs.
    accepts: HashMap<u64, (Instant, SchedulerCall)>,
    /// Acknowledgements that are not answered. One that was not taken is said again, as the SDK does: its task would wait
    /// for ever.
    acks: HashMap<u64, SchedulerCall>,
    /// Calls that the leader was too busy for, and when they are said again.
    busy: Vec<u64>,
    again: Instant,
    running: HashMap<String, Instant>,
    /// Tasks that are to end and are not over.
    open: HashMap<String, Instant>,
    calls: u64,
    tasks: u64,
    next_at: Instant,
    subscribed: bool,
}

/// Runs a framework until it is aborted.
pub(crate) async fn run(number: usize, masters: Vec<String>, pace: Pace, shared: Arc<Shared>) {
    let mut framework = Framework {
        number,
        pace,
        shared,
        framework_id: None,
        fence: Fence::default(),
        offered_in: Fence::default(),
        offers: VecDeque::new(),
        accepts: HashMap::new(),
        acks: HashMap::new(),
        busy: Vec::new(),
        again: Instant::now(),
        running: HashMap::new(),
        open: HashMap::new(),
        calls: 0,
        tasks: 0,
        next_at: Instant::now(),
        subscribed: false,
    };
    let (mut dial, mut pause) = (number, Pause::new());
    loop {
        let master = &masters[dial % masters.len()];
        let _ended = framework.session(master).await;
        dial += 1;
        pause.wait(framework.subscribed).await;
        framework.subscribed = false;
    }
}

impl Framework {
    async fn session(&mut self, master: &str) -> Result<(), StreamError> {
        let connection = Connection::dial(master).await?;
        let mut stream: Stream = connection.open("/muster.v1.SchedulerService/Session").await?;
        loop {
            let wait = self.next_at.saturating_duration_since(Instant::now());
            let paced = self.next_at > Instant::now() && self.can_launch();
            tokio::select! {
                frame = stream.next() => {
                    let Some(frame) = frame? else { return Ok(()) };
                    let (fence, event) = muster_proto::scheduler_event(frame)
                        .map_err(|error| StreamError::Damaged(error.to_string()))?;
                    if fence < self.fence && fence != Fence::default() {
                        continue;
                    }
                    self.fence = self.fence.max(fence);
                    match event {
                        SchedulerDown::Leader { .. } => self.meet(&mut stream)?,
                        SchedulerDown::Redial(_) => return Ok(()),
                        SchedulerDown::Event(event) => self.event(event, &mut stream)?,
                    }
                }
                () = tokio::time::sleep(wait), if paced => {}
                () = tokio::time::sleep_until(self.again.into()), if !self.busy.is_empty() => self.say_again(&mut stream)?,
            }
            self.launch(&mut stream)?;
        }
    }

    fn say_again(&mut self, up: &mut Stream) -> Result<(), StreamError> {
        for id in std::mem::take(&mut self.busy) {
            if let Some(call) = self.accepts.get(&id).map(|(_, call)| call).or_else(|| self.acks.get(&id)) {
                send(up, id, call)?;
            }
        }
        Ok(())
    }

    fn meet(&mut self, up: &mut Stream) -> Result<(), StreamError> {
        self.moment(Moment::Leader(self.number, self.fence, Instant::now()));
        self.offers.clear();
        self.subscribed = false;
        let info = mesos::FrameworkInfo {
            user: "bench".into(),
            name: format!("bench-{}", self.number),
            failover_timeout: Some(3600.0),
            ..Default::default()
        };
        let bytes = info.encode_to_vec();
        let info: FrameworkInfo =
            muster_proto::framework_info(&bytes).map_err(|error| StreamError::Damaged(error.to_string()))?;
        let framework_id = self.framework_id.clone();
        let call = SchedulerCall::Subscribe {
            framework_id,
            token: None,
            stream: false,
            info,
            wants: Default::default(),
            suppressed_roles: vec![],
        };
        send(up, 0, &call)
    }

    fn moment(&self, moment: Moment) {
        let _ = self.shared.moments.try_send(moment); // nobody may be listening
    }

    fn event(&mut self, event: SchedulerEvent, up: &mut Stream) -> Result<(), StreamError> {
        match event {
            SchedulerEvent::Subscribed { framework_id, .. } => {
                self.framework_id = Some(framework_id);
                self.subscribed = true;
                self.moment(Moment::Subscribed(self.number, self.fence, Instant::now()));
                // What was on its way when the leader died is asked again: the registry answers as before.
                // Updates that were not acknowledged are told again.
                self.acks.clear();
                self.busy.clear();
                for (id, (_, call)) in &self.accepts {
                    send(up, *id, call)?;
                }
            }
            SchedulerEvent::Offers(offers) => {
                if self.offered_in != self.fence {
                    if self.offered_in == Fence::default() {
                        self.next_at = Instant::now() + self.pace.phase(self.number);
                    }
                    self.offered_in = self.fence;
                    self.moment(Moment::Offered(self.number, self.fence, Instant::now()));
                }
                if let Some(after) = self.shared.play.declines
                    && self.offers.is_empty()
                {
                    self.next_at = Instant::now() + after;
                }
                self.shared.ledger.offers.fetch_add(offers.len() as u64, Ordering::Relaxed);
                let offers =
                    offers.into_iter().map(|it| (it.offer.offer_id, it.offer.agent_id, it.offer.resources));
                self.offers.extend(offers);
            }
            SchedulerEvent::Rescind(id) => self.offers.retain(|(offer_id, ..)| *offer_id != id),
            SchedulerEvent::Update { task_id, status, uuid, .. } => {
                if status.state == TaskState::Running
                    && let Some(asked) = self.running.remove(task_id.as_str())
                {
                    self.shared.saw_running(asked);
                }
                if status.state.is_terminal()
                    && let Some(asked) = self.open.remove(task_id.as_str())
                {
                    self.shared.saw_end(asked, status.state == TaskState::Finished);
                }
                if let Some(uuid) = uuid {
                    self.calls += 1;
                    let call = SchedulerCall::Acknowledge { task_id, uuid };
                    send(up, self.calls, &call)?;
                    self.acks.insert(self.calls, call);
                }
            }
            SchedulerEvent::Outcome { id, outcome } => match outcome {
                CallOutcome::Accepted(outcome) => {
                    if !self.answered(id) {
                        return Ok(()); // it was asked again, and both are answered
                    }
                    for (task_id, became) in outcome.tasks {
                        match became {
                            TaskOutcome::Launched(launch) => self.shared.ledger.acknowledged(launch),
                            TaskOutcome::Refused { .. } => {
                                self.running.remove(task_id.as_str());
                                self.open.remove(task_id.as_str());
                            }
                        }
                    }
                }
                CallOutcome::Busy | CallOutcome::Unknown => {
                    if self.busy.is_empty() {
                        self.again = Instant::now() + BUSY;
                    }
                    self.busy.push(id);
                }
                CallOutcome::Done | CallOutcome::Refused(_) if self.acks.remove(&id).is_some() => {}
                CallOutcome::Done | CallOutcome::Refused(_) => {
                    self.answered(id);
                }
            },
            SchedulerEvent::Error(why) => return Err(StreamError::Refused(why)),
            _ => {}
        }
        Ok(())
    }

    /// An ACCEPT is answered; whether it was not before.
    fn answered(&mut self, id: u64) -> bool {
        let Some((asked, _)) = self.accepts.remove(&id) else { return false };
        self.shared.asking.fetch_sub(1, Ordering::Relaxed);
        self.shared.saw_answer(asked);
        true
    }

    fn can_launch(&self) -> bool {
        self.subscribed
            && self.accepts.len() < self.pace.in_flight
            && !self.offers.is_empty()
            && self.shared.play.has_room(self.tasks, self.open.len(), &self.pace)
            && self.shared.launching.load(Ordering::Relaxed)
    }

    fn launch(&mut self, up: &mut Stream) -> Result<(), StreamError> {
        if self.shared.play.declines.is_some() {
            return self.decline(up);
        }
        while self.can_launch() && (self.pace.every.is_zero() || self.next_at <= Instant::now()) {
            let Some((offer_id, agent_id, left)) = self.offers.pop_front() else { break };
            let mut left = Arc::unwrap_or_clone(left);
            let mut tasks = Vec::new();
            let most = self.shared.play.tasks_max.map_or(u64::MAX, |max| max.saturating_sub(self.tasks));
            let most = usize::try_from(most).unwrap_or(usize::MAX).min(self.pace.tasks_per_accept);
            while tasks.len() < most && left.contains(&self.pace.task) {
                left.subtract(&self.pace.task);
                tasks.push(self.task(&agent_id));
            }
            if tasks.is_empty() {
                let decline = SchedulerCall::Decline { offer_ids: vec![offer_id], refuse_ms: 5_000 };
                send(up, 0, &decline)?;
                continue;
            }
            let asked = self.pace.due(&mut self.next_at, self.shared.play.by_clock);
            if self.shared.play.fate != Fate::Taken {
                self.running.extend(tasks.iter().map(|task| (task.task_id.to_string(), asked)));
            }
            if self.shared.play.fate == Fate::Ends {
                self.open.extend(tasks.iter().map(|task| (task.task_id.to_string(), asked)));
            }
            self.calls += 1;
            let (offer_ids, named, bad) = (vec![offer_id], Vec::new(), Vec::new());
            let call = SchedulerCall::Accept { offer_ids, tasks, named, bad, refuse_ms: 0 };
            self.shared.asking.fetch_add(1, Ordering::Relaxed);
            let sent = send(up, self.calls, &call);
            self.accepts.insert(self.calls, (asked, call));
            sent?;
        }
        Ok(())
    }

    /// Gives all offers back, to be offered again at once.
    fn decline(&mut self, up: &mut Stream) -> Result<(), StreamError> {
        if !self.can_launch() || self.next_at > Instant::now() {
            return Ok(());
        }
        let offer_ids: Vec<_> = self.offers.drain(..).map(|(offer_id, ..)| offer_id).collect();
        send(up, 0, &SchedulerCall::Decline { offer_ids, refuse_ms: 0 })
    }

    fn task(&mut self, agent_id: &AgentId) -> TaskSpec {
        self.tasks += 1;
        let info = task_info(self.shared.play.task_id(self.tasks), agent_id.as_str(), &self.pace.task);
        TaskSpec {
            task_id: TaskId::new(&info.task_id.value),
            name: info.name.as_str().into(),
            resources: self.pace.task.clone(),
            executor: None,
            grace_ms: None,
            sealed: Sealed::new(info.encode_to_vec()),
        }
    }
}

/// An offer that waits to be used.
#[derive(Debug)]
pub(crate) struct Offered {
    pub(crate) id: String,
    pub(crate) agent: String,
    pub(crate) resources: Resources,
}

/// A task description of about 300 bytes.
pub(crate) fn task_info(id: String, agent_id: &str, needs: &Resources) -> mesos::TaskInfo {
    let label =
        |n: usize| mesos::Label { key: format!("label-{n}"), value: Some("a value of some length".into()) };
    mesos::TaskInfo {
        name: format!("bench {id}"),
        task_id: mesos::TaskId { value: id },
        agent_id: mesos::AgentId { value: agent_id.to_owned() },
        resources: muster_proto::wire_resources(needs),
        command: Some(mesos::CommandInfo { value: Some("sleep 1000".into()), ..Default::default() }),
        labels: Some(mesos::Labels { labels: (0..4).map(label).collect() }),
        ..Default::default()
    }
}
