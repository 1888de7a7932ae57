//! The machine.

use crate::calls::{Answered, Calls, Told, launches};
use crate::masters::Masters;
use muster_model::event::{CallOutcome, OfferWithAgent};
use muster_model::{
    AgentId, ExecutorId, Fence, FrameworkId, FrameworkInfo, OfferId, Reason, Resources, Role, SchedulerCall,
    SchedulerEvent, Sealed, Source, Status, TaskId, TaskOutcome, TaskState, Token, Uuid, WallTime,
};
use std::collections::BTreeSet;

/// How the driver is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// The masters, `host:port`, in the order they are tried at first.
    pub masters: Vec<String>,
    /// The framework.
    pub info: FrameworkInfo,
    /// The id it had before, when it fails over to this process.
    pub framework_id: Option<FrameworkId>,
    /// Drawn for this driver alone: by it a framework without an id is known again when it repeats its SUBSCRIBE.
    pub token: Option<Token>,
    /// Acknowledge each update as soon as its callback has returned.
    pub auto_acknowledge: bool,
    /// Where back-off jitter comes from.
    pub seed: u64,
    /// How long a dial may take.
    pub dial_ms_max: u64,
    /// How long a master may take to name the leader, and the leader to answer a subscription.
    pub answer_ms_max: u64,
    /// The shortest and the longest wait after every master was tried in vain.
    pub backoff_ms: (u64, u64),
    /// Wait before a call is repeated that was answered by "busy" or "unknown".
    pub again_ms: u64,
    /// How long a stop may take to see calls through.
    pub stop_ms_max: u64,
    /// Unanswered calls at most; more are refused.
    pub calls_max: usize,
}

impl Config {
    /// The usual times and bounds.
    pub fn new(masters: Vec<String>, info: FrameworkInfo) -> Self {
        Self {
            masters,
            info,
            framework_id: None,
            token: None,
            auto_acknowledge: true,
            seed: 0,
            dial_ms_max: 2_000,
            answer_ms_max: 10_000,
            backoff_ms: (50, 2_000),
            again_ms: 50,
            stop_ms_max: 10_000,
            calls_max: 10_000,
        }
    }
}

/// The most acknowledgements that wait for an answer; further ones are left to the update's repetition.
const ACKNOWLEDGEMENTS_MAX: usize = 1_000_000;
/// Silence of this many heartbeats means that the stream is dead.
const HEARTBEATS_MISSED_MAX: u64 = 5;

/// What a master says to a framework that was torn down (Mesos clients match on this text as well).
const REMOVED: &str = "Framework has been removed";

/// What comes down the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Down {
    /// Who leads.
    Leader {
        /// Its name.
        name: String,
        /// Its API, `host:port`.
        address: String,
    },
    /// Dial another master; why.
    Redial(String),
    /// An event of the leader.
    Event(SchedulerEvent),
}

/// What the machine is told. `dial` names the stream, as the [`Effect::Dial`] that asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Begin.
    Start,
    /// Time passed.
    Tick,
    /// The stream is open.
    Connected {
        /// Which.
        dial: u64,
    },
    /// The stream could not be opened, or ended.
    Broken {
        /// Which.
        dial: u64,
        /// Why.
        why: String,
    },
    /// A frame came.
    Frame {
        /// On which stream.
        dial: u64,
        /// From which leader.
        fence: Fence,
        /// What.
        down: Down,
    },
    /// The framework asks.
    Call(SchedulerCall),
    /// The callback of this update has returned.
    Handled {
        /// Of which task.
        task_id: TaskId,
        /// Which update.
        uuid: Uuid,
    },
    /// Stop once all calls are answered; unless the framework is to fail over, tear it down.
    Stop {
        /// Whether another driver will go on under the same id.
        failover: bool,
    },
    /// Stop now, whatever is on its way.
    Abort,
}

/// What the framework is told, one at a time, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callback {
    /// The first subscription holds.
    Registered {
        /// The framework's id.
        framework_id: FrameworkId,
        /// The leader, `host:port`.
        master: String,
    },
    /// A further subscription holds, with the same id. Offers of before are void.
    Reregistered {
        /// The leader, `host:port`.
        master: String,
    },
    /// The subscription is lost; the driver looks for the leader.
    Disconnected,
    /// Offers.
    Offers(Vec<OfferWithAgent>),
    /// An offer is void.
    Rescinded(OfferId),
    /// A task's status.
    Update {
        /// Of which task.
        task_id: TaskId,
        /// Its agent, where known.
        agent_id: Option<AgentId>,
        /// What.
        status: Status,
        /// What to acknowledge, if it must be.
        uuid: Option<Uuid>,
    },
    /// Bytes from an executor.
    Message {
        /// On which agent.
        agent_id: AgentId,
        /// From which executor.
        executor_id: ExecutorId,
        /// The bytes.
        data: Vec<u8>,
    },
    /// An agent is lost.
    AgentLost(AgentId),
    /// An executor ended.
    ExecutorLost {
        /// On which agent.
        agent_id: AgentId,
        /// Which.
        executor_id: ExecutorId,
        /// Its wait status.
        status: i32,
    },
    /// The master ends the framework's stream for good; the driver stops.
    Error(String),
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Open a stream.
    Dial {
        /// Its number.
        dial: u64,
        /// `host:port`.
        address: String,
    },
    /// Close the stream.
    Hangup {
        /// Which.
        dial: u64,
    },
    /// Send a call on the open stream.
    Send {
        /// Its number, 0 when no answer is wanted.
        id: u64,
        /// The call.
        call: SchedulerCall,
    },
    /// Tell the framework.
    Callback(Callback),
    /// A call was not carried out, for the log.
    Refused {
        /// Which, by name.
        call: &'static str,
        /// Why.
        why: String,
    },
    /// It is over.
    Ended {
        /// None for an orderly stop.
        error: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// Dial at this time.
    Idle { at: u64 },
    /// A stream is being opened.
    Dialling { until: u64 },
    /// The stream is open, the leader not yet named.
    Leaderless { until: u64 },
    /// A subscription is on its way to this leader.
    Subscribing { until: u64, id: u64 },
    /// The subscription holds; silence until then means it is dead.
    Subscribed { until: u64, heartbeat_ms: u64 },
    /// It is over.
    Ended,
}

/// The scheduler driver.
#[derive(Debug)]
pub struct Driver {
    config: Config,
    masters: Masters,
    link: Link,
    dial: u64,
    /// The highest fence seen.
    fence: Fence,
    leader: String,
    framework_id: Option<FrameworkId>,
    /// Whether the framework was told of a first subscription.
    registered: bool,
    suppressed: BTreeSet<Role>,
    /// Roles whose REVIVE is not answered yet nor on its way.
    revived: BTreeSet<Role>,
    /// Which roles want offers is to be told at this time.
    roles_at: Option<u64>,
    needs: Vec<Resources>,
    needs_at: Option<u64>,
    calls: Calls,
    stop: Option<Stop>,
}

#[derive(Debug, Clone, Copy)]
struct Stop {
    until: u64,
    /// Whether a TEARDOWN is still to be sent once all else is answered.
    teardown: bool,
}

impl Driver {
    /// A driver that waits for [`Input::Start`].
    pub fn new(config: Config) -> Self {
        let (shortest, longest) = config.backoff_ms;
        Self {
            masters: Masters::new(&config.masters, shortest, longest, config.seed),
            link: Link::Idle { at: u64::MAX },
            dial: 0,
            fence: Fence::default(),
            leader: String::new(),
            framework_id: config.framework_id.clone(),
            registered: false,
            suppressed: BTreeSet::new(),
            revived: BTreeSet::new(),
            roles_at: None,
            needs: Vec::new(),
            needs_at: None,
            calls: Calls::default(),
            stop: None,
            config,
        }
    }

    /// The framework's id, once it has one.
    pub fn framework_id(&self) -> Option<&FrameworkId> {
        self.framework_id.as_ref()
    }

    /// The leader that it heard of last, and speaks to.
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// Whether one more call can be kept.
    pub fn has_room(&self) -> bool {
        self.calls.count() < self.config.calls_max
    }

    /// When [`Input::Tick`] is due.
    pub fn wake_at(&self) -> Option<u64> {
        let (link, subscribed) = match self.link {
            Link::Ended => return None,
            Link::Idle { at } => (at, false),
            Link::Dialling { until } | Link::Leaderless { until } | Link::Subscribing { until, .. } => {
                (until, false)
            }
            Link::Subscribed { until, .. } => (until, true),
        };
        let sends = [self.calls.wake_at(), self.roles_at, self.needs_at].into_iter().flatten().min();
        let sends = sends.filter(|_| subscribed);
        let stop = self.stop.map(|stop| stop.until);
        [Some(link), sends, stop].into_iter().flatten().min().filter(|at| *at != u64::MAX)
    }

    /// Takes one input.
    pub fn step(&mut self, now_ms: u64, input: Input, effects: &mut Vec<Effect>) {
        if self.link == Link::Ended {
            return;
        }
        let before = effects.len();
        match input {
            Input::Start => self.link = Link::Idle { at: now_ms },
            Input::Tick => {}
            Input::Connected { dial } => self.connected(now_ms, dial),
            Input::Broken { dial, why: _ } if dial == self.dial => self.lost(now_ms, false, effects),
            Input::Broken { .. } => {}
            Input::Frame { dial, fence, down } => self.frame(now_ms, dial, fence, down, effects),
            Input::Call(call) => self.call(now_ms, call, effects),
            Input::Handled { task_id, uuid } if self.config.auto_acknowledge => {
                self.acknowledge(task_id, uuid, effects);
            }
            Input::Handled { .. } => {}
            Input::Stop { failover } => self.stop(now_ms, failover),
            Input::Abort => self.end(None, effects),
        }
        self.due(now_ms, effects);
        if self.stop.is_some() {
            // Who stops wants to hear no more, but of a refusal.
            let mut place = 0;
            effects.retain(|effect| {
                place += 1;
                place <= before || !matches!(effect, Effect::Callback(callback) if !matches!(callback, Callback::Error(_)))
            });
        }
    }

    /// All that time or a change of state makes due.
    fn due(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        match self.link {
            Link::Ended => return,
            Link::Dialling { until }
            | Link::Leaderless { until }
            | Link::Subscribing { until, .. }
            | Link::Subscribed { until, .. }
                if until <= now_ms =>
            {
                self.lost(now_ms, true, effects);
            }
            _ => {}
        }
        if self.stopped(now_ms, effects) {
            return;
        }
        match self.link {
            Link::Idle { at } if at <= now_ms => self.dial(now_ms, effects),
            Link::Subscribed { .. } => self.flush(now_ms, effects),
            _ => {}
        }
    }

    fn dial(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let Some(address) = self.masters.next() else {
            return self.end(Some("no master is given; name at least one host:port".into()), effects);
        };
        self.dial += 1;
        effects.push(Effect::Dial { dial: self.dial, address: address.into() });
        self.link = Link::Dialling { until: now_ms.saturating_add(self.config.dial_ms_max) };
    }

    fn connected(&mut self, now_ms: u64, dial: u64) {
        if dial == self.dial && matches!(self.link, Link::Dialling { .. }) {
            self.link = Link::Leaderless { until: now_ms.saturating_add(self.config.answer_ms_max) };
        }
    }

    /// The stream is of no more use: the next master, at once or after a wait.
    fn lost(&mut self, now_ms: u64, hangup: bool, effects: &mut Vec<Effect>) {
        if matches!(self.link, Link::Idle { .. } | Link::Ended) {
            return;
        }
        if hangup {
            effects.push(Effect::Hangup { dial: self.dial });
        }
        self.unsubscribed(effects);
        let wait = self.masters.failed();
        self.link = Link::Idle { at: now_ms.saturating_add(wait) };
    }

    /// Whatever was on its way is unknown now.
    fn unsubscribed(&mut self, effects: &mut Vec<Effect>) {
        if matches!(self.link, Link::Subscribed { .. }) {
            effects.push(Effect::Callback(Callback::Disconnected));
        }
        for told in self.calls.unsend() {
            self.untold(told);
        }
    }

    /// What was told was not taken: it is owed again. Needs are told in each subscription anyway.
    fn untold(&mut self, told: Told) {
        if let Told::Roles(roles) = told {
            self.revived.extend(roles.into_iter().filter(|role| !self.suppressed.contains(role)));
        }
    }

    fn frame(&mut self, now_ms: u64, dial: u64, fence: Fence, down: Down, effects: &mut Vec<Effect>) {
        if dial != self.dial || matches!(self.link, Link::Idle { .. } | Link::Ended) {
            return;
        }
        match down {
            // A master without a leader knows no new fence: its word is not the leader's.
            Down::Redial(_) => self.lost(now_ms, true, effects),
            _ if fence < self.fence => {}
            Down::Leader { address, .. } => {
                self.fence = fence;
                self.masters.hint(&address);
                self.leader = address;
                self.unsubscribed(effects);
                self.subscribe(now_ms, effects);
            }
            Down::Event(event) if fence == self.fence => self.event(now_ms, event, effects),
            // A leader that was not announced: nothing was asked of it.
            Down::Event(_) => {}
        }
    }

    fn subscribe(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let id = self.calls.next_id();
        let call = SchedulerCall::Subscribe {
            framework_id: self.framework_id.clone(),
            token: self.config.token.filter(|_| self.framework_id.is_none()),
            stream: false,
            info: self.config.info.clone(),
            wants: Default::default(),
            suppressed_roles: self.suppressed.iter().cloned().collect(),
        };
        effects.push(Effect::Send { id, call });
        self.link = Link::Subscribing { until: now_ms.saturating_add(self.config.answer_ms_max), id };
    }

    fn event(&mut self, now_ms: u64, event: SchedulerEvent, effects: &mut Vec<Effect>) {
        if let Link::Subscribed { until, heartbeat_ms } = &mut self.link {
            *until = now_ms.saturating_add(heartbeat_ms.saturating_mul(HEARTBEATS_MISSED_MAX));
        }
        match event {
            SchedulerEvent::Error(why) => self.error(why, effects),
            SchedulerEvent::Subscribed { framework_id, heartbeat_ms, .. } => {
                self.subscribed(now_ms, framework_id, heartbeat_ms, effects);
            }
            SchedulerEvent::Outcome { id, outcome } => self.outcome(now_ms, id, outcome, effects),
            SchedulerEvent::Heartbeat => {}
            _ if !matches!(self.link, Link::Subscribed { .. }) => {}
            SchedulerEvent::Update { task_id, uuid: Some(uuid), .. }
                if self.calls.is_acknowledging(&task_id, uuid) => {}
            event => effects.extend(callback(event).map(Effect::Callback)),
        }
    }

    /// The master wants no more of this framework.
    fn error(&mut self, why: String, effects: &mut Vec<Effect>) {
        // The answer to our own TEARDOWN was lost: it was carried out.
        if self.calls.is_tearing_down() && why.contains(REMOVED) {
            return self.end(None, effects);
        }
        effects.push(Effect::Callback(Callback::Error(why.clone())));
        self.end(Some(why), effects);
    }

    fn subscribed(
        &mut self,
        now_ms: u64,
        framework_id: FrameworkId,
        heartbeat_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        if !matches!(self.link, Link::Subscribing { .. }) {
            return;
        }
        let heartbeat_ms = heartbeat_ms.max(100);
        let until = now_ms.saturating_add(heartbeat_ms.saturating_mul(HEARTBEATS_MISSED_MAX));
        self.link = Link::Subscribed { until, heartbeat_ms };
        self.masters.served();
        self.framework_id = Some(framework_id.clone());
        let master = self.leader.clone();
        effects.push(Effect::Callback(if self.registered {
            Callback::Reregistered { master }
        } else {
            Callback::Registered { framework_id, master }
        }));
        self.registered = true;
        // Suppressed roles came with the SUBSCRIBE.
        self.roles_at = (!self.revived.is_empty()).then_some(now_ms);
        if !self.needs.is_empty() {
            self.needs_at = Some(now_ms);
        }
    }

    fn outcome(&mut self, now_ms: u64, id: u64, outcome: CallOutcome, effects: &mut Vec<Effect>) {
        if let Link::Subscribing { id: subscribe_id, .. } = self.link
            && id == subscribe_id
        {
            return self.subscribe_outcome(now_ms, outcome, effects);
        }
        if !matches!(self.link, Link::Subscribed { .. }) {
            return;
        }
        match outcome {
            CallOutcome::Busy | CallOutcome::Unknown => {
                let at = now_ms.saturating_add(self.config.again_ms);
                match self.calls.again(id, at) {
                    Some(Told::Needs) => self.needs_at = Some(at),
                    Some(told) => {
                        self.untold(told);
                        self.roles_at = Some(at);
                    }
                    None => {}
                }
            }
            CallOutcome::Done => {
                if let Some(Answered::Call(SchedulerCall::Teardown)) = self.calls.answered(id) {
                    self.end(None, effects);
                }
            }
            CallOutcome::Accepted(accepted) => {
                let Some(Answered::Call(SchedulerCall::Accept { .. } | SchedulerCall::Operate { .. })) =
                    self.calls.answered(id)
                else {
                    return;
                };
                for (task_id, outcome) in accepted.tasks {
                    if let TaskOutcome::Refused { state, reason, message } = outcome {
                        self.not_launched(task_id, state, reason, &message, effects);
                    }
                }
            }
            CallOutcome::Refused(why) => self.refused(id, why, effects),
        }
    }

    fn subscribe_outcome(&mut self, now_ms: u64, outcome: CallOutcome, effects: &mut Vec<Effect>) {
        match outcome {
            CallOutcome::Refused(why) => self.error(why, effects),
            CallOutcome::Busy | CallOutcome::Unknown => self.lost(now_ms, true, effects),
            CallOutcome::Done | CallOutcome::Accepted(_) => {}
        }
    }

    fn refused(&mut self, id: u64, why: String, effects: &mut Vec<Effect>) {
        let Some(Answered::Call(call)) = self.calls.answered(id) else { return };
        effects.push(Effect::Refused { call: name(&call), why: why.clone() });
        let launches = launches(&call);
        match call {
            SchedulerCall::Accept { offer_ids, .. } | SchedulerCall::Operate { offer_ids, .. } => {
                for task_id in launches {
                    self.not_launched(task_id, TaskState::Error, Reason::TaskInvalid, &why, effects);
                }
                // Nothing was used: the offers go back at once.
                effects
                    .push(Effect::Send { id: 0, call: SchedulerCall::Decline { offer_ids, refuse_ms: 0 } });
            }
            SchedulerCall::Teardown => {
                self.end(Some(format!("the framework was not torn down: {why}")), effects)
            }
            _ => {}
        }
    }

    fn not_launched(
        &self,
        task_id: TaskId,
        state: TaskState,
        reason: Reason,
        message: &str,
        effects: &mut Vec<Effect>,
    ) {
        let aware = self.config.info.capabilities.partition_aware;
        let status = Status {
            state: if aware { state } else { state.for_partition_unaware() },
            source: Source::Master,
            reason: Some(reason),
            message: message.into(),
            wall: WallTime(0),
            sealed: Sealed::default(),
        };
        effects.push(Effect::Callback(Callback::Update { task_id, agent_id: None, status, uuid: None }));
    }

    fn call(&mut self, now_ms: u64, call: SchedulerCall, effects: &mut Vec<Effect>) {
        let subscribed = matches!(self.link, Link::Subscribed { .. });
        let mut refuse = |call: &SchedulerCall, why: &str| {
            effects.push(Effect::Refused { call: name(call), why: why.into() });
        };
        if self.stop.is_some() {
            return refuse(&call, "the driver is stopping");
        }
        match call {
            SchedulerCall::Subscribe { .. } => refuse(&call, "the driver subscribes by itself"),
            SchedulerCall::Update { .. } => {
                refuse(&call, "the driver keeps the description it was made with")
            }
            SchedulerCall::Refused { .. } => refuse(&call, "masters alone say that"),
            SchedulerCall::AcknowledgeOperation { .. } | SchedulerCall::ReconcileOperations { .. } => {
                refuse(&call, "the driver hears of no operations; name them over the Mesos API")
            }
            SchedulerCall::Teardown => self.stop(now_ms, false),
            SchedulerCall::Acknowledge { task_id, uuid } => self.acknowledge(task_id, uuid, effects),
            // Offers are void without the subscription they came in.
            SchedulerCall::Decline { .. } if subscribed => effects.push(Effect::Send { id: 0, call }),
            SchedulerCall::Decline { .. } => {}
            SchedulerCall::Message { .. }
            | SchedulerCall::Shutdown { .. }
            | SchedulerCall::AnswerInverse { .. }
                if subscribed =>
            {
                effects.push(Effect::Send { id: 0, call });
            }
            SchedulerCall::Message { .. }
            | SchedulerCall::Shutdown { .. }
            | SchedulerCall::AnswerInverse { .. } => {
                refuse(&call, "not connected, and messages are sent at most once")
            }
            SchedulerCall::Suppress { roles } => {
                for role in self.all_if_none(roles) {
                    self.revived.remove(&role);
                    self.suppressed.insert(role);
                }
                self.roles_at = Some(now_ms);
            }
            SchedulerCall::Revive { roles } => {
                for role in self.all_if_none(roles) {
                    self.suppressed.remove(&role);
                    self.revived.insert(role);
                }
                self.roles_at = Some(now_ms);
            }
            SchedulerCall::Request { needs } => {
                self.needs = needs;
                self.needs_at = Some(now_ms);
            }
            SchedulerCall::Accept { .. }
            | SchedulerCall::Operate { .. }
            | SchedulerCall::Kill { .. }
            | SchedulerCall::Reconcile { .. } => {
                if self.has_room() {
                    self.calls.add(call);
                } else {
                    self.no_room(call, effects);
                }
            }
        }
    }

    fn no_room(&self, call: SchedulerCall, effects: &mut Vec<Effect>) {
        let why = format!("{} calls wait for an answer already", self.config.calls_max);
        effects.push(Effect::Refused { call: name(&call), why: why.clone() });
        for task_id in launches(&call) {
            self.not_launched(task_id, TaskState::Dropped, Reason::InvalidOffers, &why, effects);
        }
    }

    fn all_if_none(&self, roles: Vec<Role>) -> Vec<Role> {
        if roles.is_empty() { self.config.info.roles.clone() } else { roles }
    }

    fn acknowledge(&mut self, task_id: TaskId, uuid: Uuid, effects: &mut Vec<Effect>) {
        if self.calls.acknowledgement_count() < ACKNOWLEDGEMENTS_MAX {
            self.calls.add(SchedulerCall::Acknowledge { task_id, uuid });
        } else {
            let why = "too many wait already; the update will come again".into();
            effects.push(Effect::Refused { call: "ACKNOWLEDGE", why });
        }
    }

    /// Sends all that is due in this subscription.
    fn flush(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.roles_at.is_some_and(|at| at <= now_ms) {
            self.roles_at = None;
            self.tell_roles(effects);
        }
        if self.needs_at.is_some_and(|at| at <= now_ms) {
            self.needs_at = None;
            let id = self.calls.tell(Told::Needs);
            effects.push(Effect::Send { id, call: SchedulerCall::Request { needs: self.needs.clone() } });
        }
        effects.extend(self.calls.due(now_ms).map(|(id, call)| Effect::Send { id, call }));
    }

    /// Tells which roles want offers and which do not.
    fn tell_roles(&mut self, effects: &mut Vec<Effect>) {
        let roles: Vec<_> = std::mem::take(&mut self.revived).into_iter().collect();
        if !roles.is_empty() {
            let id = self.calls.tell(Told::Roles(roles.clone()));
            effects.push(Effect::Send { id, call: SchedulerCall::Revive { roles } });
        }
        if !self.suppressed.is_empty() {
            let id = self.calls.tell(Told::Roles(Vec::new()));
            let roles = self.suppressed.iter().cloned().collect();
            effects.push(Effect::Send { id, call: SchedulerCall::Suppress { roles } });
        }
    }

    fn stop(&mut self, now_ms: u64, failover: bool) {
        if self.stop.is_none() {
            let until = now_ms.saturating_add(self.config.stop_ms_max);
            // A framework that never was one leaves nothing behind.
            let teardown = !failover && (self.framework_id.is_some() || self.subscribing());
            self.stop = Some(Stop { until, teardown });
        }
    }

    fn subscribing(&self) -> bool {
        matches!(self.link, Link::Subscribing { .. } | Link::Subscribed { .. })
    }

    /// Carries a stop on. True once it is over.
    fn stopped(&mut self, now_ms: u64, effects: &mut Vec<Effect>) -> bool {
        let Some(Stop { until, teardown }) = self.stop else { return false };
        let subscribed = matches!(self.link, Link::Subscribed { .. });
        if until <= now_ms {
            let left = teardown || !self.calls.is_empty();
            let why =
                "no master answered in time; the framework may still be running: see `muster framework list`";
            self.end(left.then(|| why.into()), effects);
        } else if teardown && subscribed {
            // The teardown is the last word: what else waits would be undone by it.
            self.stop = Some(Stop { until, teardown: false });
            self.calls.add(SchedulerCall::Teardown);
        } else if !teardown && self.calls.is_empty() {
            self.end(None, effects);
        }
        self.link == Link::Ended
    }

    fn end(&mut self, error: Option<String>, effects: &mut Vec<Effect>) {
        if !matches!(self.link, Link::Idle { .. } | Link::Ended) {
            effects.push(Effect::Hangup { dial: self.dial });
        }
        self.link = Link::Ended;
        effects.push(Effect::Ended { error });
    }
}

/// What the framework is told of an event, if anything.
fn callback(event: SchedulerEvent) -> Option<Callback> {
    Some(match event {
        SchedulerEvent::Offers(offers) => Callback::Offers(offers),
        SchedulerEvent::Rescind(offer_id) => Callback::Rescinded(offer_id),
        SchedulerEvent::Update { task_id, agent_id, status, uuid } => {
            Callback::Update { task_id, agent_id, status, uuid }
        }
        SchedulerEvent::Message { agent_id, executor_id, data } => {
            Callback::Message { agent_id, executor_id, data }
        }
        SchedulerEvent::AgentLost(agent_id) => Callback::AgentLost(agent_id),
        SchedulerEvent::ExecutorLost { agent_id, executor_id, status } => {
            Callback::ExecutorLost { agent_id, executor_id, status }
        }
        // Of maintenance the framework is not told: it need not answer; operations the driver asks for none.
        SchedulerEvent::InverseOffers(_)
        | SchedulerEvent::RescindInverse(_)
        | SchedulerEvent::Operation(_)
        | SchedulerEvent::Subscribed { .. }
        | SchedulerEvent::Error(_)
        | SchedulerEvent::Heartbeat
        | SchedulerEvent::Outcome { .. } => return None,
    })
}

/// A call's name, for logs.
fn name(call: &SchedulerCall) -> &'static str {
    match call {
        SchedulerCall::Subscribe { .. } => "SUBSCRIBE",
        SchedulerCall::Accept { .. } | SchedulerCall::Operate { .. } => "ACCEPT",
        SchedulerCall::Decline { .. } => "DECLINE",
        SchedulerCall::Revive { .. } => "REVIVE",
        SchedulerCall::Suppress { .. } => "SUPPRESS",
        SchedulerCall::Kill { .. } => "KILL",
        SchedulerCall::Acknowledge { .. } => "ACKNOWLEDGE",
        SchedulerCall::Reconcile { .. } => "RECONCILE",
        SchedulerCall::AcknowledgeOperation { .. } => "ACKNOWLEDGE_OPERATION_STATUS",
        SchedulerCall::ReconcileOperations { .. } => "RECONCILE_OPERATIONS",
        SchedulerCall::Request { .. } => "REQUEST",
        SchedulerCall::Message { .. } => "MESSAGE",
        SchedulerCall::Shutdown { .. } => "SHUTDOWN",
        SchedulerCall::AnswerInverse { accepted: true, .. } => "ACCEPT_INVERSE_OFFERS",
        SchedulerCall::AnswerInverse { accepted: false, .. } => "DECLINE_INVERSE_OFFERS",
        SchedulerCall::Refused { .. } => "REFUSED",
        SchedulerCall::Teardown => "TEARDOWN",
        SchedulerCall::Update { .. } => "UPDATE_FRAMEWORK",
    }
}
