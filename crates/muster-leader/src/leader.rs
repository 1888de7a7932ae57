//! The machine: its state and its step.

use crate::{
    Config, ConnId, Counts, Effect, Input, inverse::Inverse, late::Newest, linger::Lingering, offer::Offers,
    recital::Recitals, shards::Shards,
};
use muster_model::{
    AgentId, AskedOperation, Call, CallOutcome, Capabilities, Event, FrameworkId, Index, LaunchNumber, Offer,
    OfferId, Resources, Role, SchedulerEvent, Session, TaskId, TaskSpec, Term, Timestamp, Wants,
};
use muster_registry::{BeginTerm, Command, Registry};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The leader of one term.
#[derive(Debug)]
pub struct Leader {
    pub(crate) config: Config,
    pub(crate) term: Term,
    pub(crate) serving: bool,
    /// Where its term begins in the log.
    pub(crate) began: Index,
    pub(crate) conns: BTreeMap<ConnId, Peer>,
    pub(crate) frameworks: BTreeMap<FrameworkId, FrameworkSession>,
    pub(crate) agents: BTreeMap<AgentId, AgentSession>,
    /// When confirmations that no order took along go out.
    pub(crate) confirms_due: VecDeque<(Timestamp, AgentId)>,
    pub(crate) offers: Offers,
    pub(crate) inverse: Inverse,
    pub(crate) lingering: Lingering,
    pub(crate) recitals: Recitals,
    pub(crate) newest: Newest,
    pub(crate) shards: Shards,
    tickets: u64,
    pub(crate) waiting: BTreeMap<u64, Waiting>,
    pub(crate) timers: crate::time::Timers,
    pub(crate) counts: Counts,
}

/// Who is at the other end of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Its SUBSCRIBE or hello is on its way through the log.
    Arriving,
    /// A framework, in this session.
    Framework(FrameworkId, Session),
    /// An agent, in this session.
    Agent(AgentId, Session),
    /// Who calls as this framework in this session, whose own stream is elsewhere or gone.
    Caller(FrameworkId, Session),
}

/// A framework's open session.
#[derive(Debug)]
pub(crate) struct FrameworkSession {
    pub(crate) conn: ConnId,
    pub(crate) session: Session,
    pub(crate) roles: BTreeSet<Role>,
    pub(crate) suppressed: BTreeSet<Role>,
    pub(crate) needs: Vec<Resources>,
    pub(crate) wants: BTreeMap<Role, Wants>,
    pub(crate) capabilities: Capabilities,
}

/// An agent's open session.
#[derive(Debug)]
pub(crate) struct AgentSession {
    pub(crate) conn: ConnId,
    pub(crate) session: Session,
    pub(crate) pings: u64,
    pub(crate) missed: u32,
    /// What it may forget, on its way with the next order.
    pub(crate) confirms: Vec<(LaunchNumber, u32)>,
}

/// What waits for the outcome of a command.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// Nobody.
    Nobody,
    BeginTerm,
    Tick,
    Subscribe {
        conn: ConnId,
        call: u64,
        suppressed: BTreeSet<Role>,
        wants: BTreeMap<Role, Wants>,
    },
    Hello {
        conn: ConnId,
    },
    Accept(Box<Accepting>),
    Confirm {
        agent_id: AgentId,
        session: Session,
        launch: LaunchNumber,
        seq: u32,
    },
    ExecutorsEnded {
        agent_id: AgentId,
        session: Session,
        numbers: Vec<LaunchNumber>,
    },
    Call {
        conn: ConnId,
        call: u64,
    },
    Acknowledge {
        conn: ConnId,
        call: u64,
        /// It is of an operation's status, not of a task's.
        operation: bool,
    },
    Kill {
        conn: ConnId,
        call: u64,
        task_id: TaskId,
    },
    Reconcile {
        conn: ConnId,
        call: u64,
        tasks: Vec<(TaskId, Option<AgentId>)>,
    },
    Update {
        conn: ConnId,
        call: u64,
        framework_id: FrameworkId,
        session: Session,
        wants: BTreeMap<Role, Wants>,
    },
    ReconcileOperations {
        conn: ConnId,
        call: u64,
        operations: Vec<AskedOperation>,
    },
    Operator {
        id: u64,
    },
    Convert {
        id: u64,
        kind: &'static str,
    },
}

/// An ACCEPT on its way through the log.
#[derive(Debug)]
pub(crate) struct Accepting {
    pub(crate) conn: ConnId,
    pub(crate) call: u64,
    pub(crate) framework_id: FrameworkId,
    pub(crate) agent_id: AgentId,
    /// The offers it uses, none for a repetition.
    pub(crate) offers: Vec<crate::offer::Outstanding>,
    pub(crate) offered: Resources,
    pub(crate) tasks: Vec<TaskSpec>,
    /// What each of its operations that is no launch takes.
    pub(crate) consumed: Vec<Resources>,
    /// What they are called.
    pub(crate) kinds: Vec<&'static str>,
    pub(crate) refuse_ms: u64,
}

impl Leader {
    /// A leader of `term`; its first effect proposes `BeginTerm`.
    pub fn new(config: Config, term: Term, effects: &mut Vec<Effect>) -> Self {
        let mut leader = Self {
            shards: Shards::new(config.shards),
            config,
            term,
            serving: false,
            began: Index(0),
            conns: BTreeMap::new(),
            frameworks: BTreeMap::new(),
            agents: BTreeMap::new(),
            confirms_due: VecDeque::new(),
            offers: Offers::default(),
            inverse: Inverse::default(),
            lingering: Lingering::default(),
            recitals: Recitals::default(),
            newest: Newest::default(),
            tickets: 0,
            waiting: BTreeMap::new(),
            timers: Default::default(),
            counts: Counts::default(),
        };
        let begin = BeginTerm { reconnect_grace_ms: leader.config.reconnect_grace_ms };
        leader.propose(Command::BeginTerm(begin), Waiting::BeginTerm, effects);
        leader
    }

    /// Takes one input. `now` is registry time; `registry` is as of the newest applied entry.
    pub fn step(&mut self, now: Timestamp, registry: &Registry, input: Input, effects: &mut Vec<Effect>) {
        let from = effects.len();
        self.recitals.renew(now);
        match input {
            Input::Applied(entries) => self.applied(now, registry, entries, effects),
            Input::Call { conn, .. } if !self.serving => effects.push(Effect::Close(conn)),
            Input::Call { conn, call: Call::Scheduler { id, call } } => {
                self.scheduler_call(now, registry, conn, id, call, effects);
            }
            Input::Call { conn, call: Call::Agent { session, call } } => {
                self.agent_call(registry, conn, session, call, effects);
            }
            Input::Call { conn, call: Call::Resume { id, framework_id, stream } } => {
                let outcome = self.resume(registry, conn, framework_id, stream);
                answer(conn, id, outcome, effects);
            }
            Input::Closed(conn) => self.closed(conn, effects),
            Input::Operator { id, call } => self.operator_call(now, registry, id, call, effects),
            Input::Allocated(shard, output) => self.allocated(now, registry, shard, output, effects),
            Input::Wake => self.wake(now, registry, effects),
        }
        self.send_in_company(from, effects);
        if let Some(sums) = self.offers.changed_sums() {
            self.shards.elsewhere(sums);
        }
        self.shards.flush(now, registry, effects);
    }

    /// Leadership ended: whoever waits is told that the outcome is unknown.
    pub fn resign(self, effects: &mut Vec<Effect>) {
        for (conn, call) in self.recitals.unanswered() {
            answer(conn, call, CallOutcome::Unknown, effects);
        }
        for waiting in self.waiting.into_values() {
            match waiting {
                Waiting::Subscribe { conn, call, .. }
                | Waiting::Call { conn, call }
                | Waiting::Acknowledge { conn, call, .. }
                | Waiting::Kill { conn, call, .. }
                | Waiting::Update { conn, call, .. }
                | Waiting::Reconcile { conn, call, .. }
                | Waiting::ReconcileOperations { conn, call, .. } => {
                    answer(conn, call, CallOutcome::Unknown, effects)
                }
                Waiting::Accept(accepting) => {
                    answer(accepting.conn, accepting.call, CallOutcome::Unknown, effects);
                }
                Waiting::Operator { id } | Waiting::Convert { id, .. } => {
                    effects.push(Effect::Answer { id, outcome: CallOutcome::Unknown });
                }
                Waiting::Nobody
                | Waiting::BeginTerm
                | Waiting::Tick
                | Waiting::Hello { .. }
                | Waiting::Confirm { .. }
                | Waiting::ExecutorsEnded { .. } => {}
            }
        }
    }

    pub(crate) fn propose(&mut self, command: Command, waiting: Waiting, effects: &mut Vec<Effect>) {
        self.tickets += 1;
        self.waiting.insert(self.tickets, waiting);
        effects.push(Effect::Propose(command));
    }

    /// Whether too much waits for the log to take another call.
    pub(crate) fn is_busy(&self) -> bool {
        self.waiting.len() >= self.config.in_flight_max
    }

    /// A stream ended.
    fn closed(&mut self, conn: ConnId, effects: &mut Vec<Effect>) {
        match self.conns.remove(&conn) {
            None | Some(Peer::Arriving) => {} // its outcome finds nobody and disconnects the session
            Some(Peer::Caller(..)) => {}      // the session is another stream's
            Some(Peer::Framework(framework_id, session)) => {
                self.end_framework_session(&framework_id, session);
                self.propose(
                    Command::DisconnectFramework { framework_id, session },
                    Waiting::Nobody,
                    effects,
                );
            }
            Some(Peer::Agent(agent_id, session)) => {
                self.end_agent_session(&agent_id, session, effects);
                self.propose(Command::DisconnectAgent { agent_id, session }, Waiting::Nobody, effects);
            }
        }
    }

    /// Forgets a framework's session: its offers go back without a filter, it gets no more.
    pub(crate) fn end_framework_session(&mut self, id: &FrameworkId, session: Session) {
        let Some(conn) = self.frameworks.get(id).filter(|it| it.session == session).map(|it| it.conn) else {
            return;
        };
        self.frameworks.remove(id);
        self.lingering.forget(conn);
        self.recitals.forget(conn);
        self.inverse.end_session(id);
        self.shards.wish(id, None);
        for outstanding in self.offers.take_of_framework(id) {
            self.shards.returned(&outstanding, None);
        }
    }

    /// Forgets an agent's session: its offers are void.
    pub(crate) fn end_agent_session(&mut self, id: &AgentId, session: Session, effects: &mut Vec<Effect>) {
        if self.agents.get(id).is_none_or(|it| it.session != session) {
            return;
        }
        self.agents.remove(id);
        self.rescind_of_agent(id, effects);
    }

    pub(crate) fn rescind_of_agent(&mut self, id: &AgentId, effects: &mut Vec<Effect>) {
        for outstanding in self.offers.take_of_agent(id) {
            self.tell_rescinded(&outstanding.offer, effects);
            self.shards.returned(&outstanding, None);
        }
        self.rescind_inverse_of(id, effects);
    }

    pub(crate) fn rescind_all(&mut self, effects: &mut Vec<Effect>) {
        for outstanding in self.offers.take_all() {
            self.tell_rescinded(&outstanding.offer, effects);
            self.shards.returned(&outstanding, None);
        }
    }

    pub(crate) fn tell_rescinded(&mut self, offer: &Offer, effects: &mut Vec<Effect>) {
        let conn = self.frameworks.get(&offer.framework_id).map(|it| it.conn);
        if let Some(conn) = conn.filter(|conn| !self.lingering.contains(*conn, &offer.offer_id)) {
            self.tell_one_of_many(conn, SchedulerEvent::Rescind(offer.offer_id.clone()), effects);
        }
    }

    /// How many offers stand, for metrics.
    pub fn offer_count(&self) -> usize {
        self.offers.len()
    }
    /// How many frameworks and agents have open sessions, for metrics.
    pub fn session_count(&self) -> (usize, usize) {
        (self.frameworks.len(), self.agents.len())
    }
    /// What was counted since the term began.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
    /// The roles that frameworks want no offers for.
    pub fn suppressed(&self) -> impl Iterator<Item = (FrameworkId, BTreeSet<Role>)> {
        let suppressed = self.frameworks.iter().filter(|(_, it)| !it.suppressed.is_empty());
        suppressed.map(|(id, it)| (id.clone(), it.suppressed.clone()))
    }
    /// Whether an offer stands.
    pub fn stands(&self, id: &OfferId) -> bool {
        self.offers.get(id).is_some()
    }
    /// The offers that stand, by shard and in the order they were made, for laws and tests.
    pub fn offers(&self) -> impl Iterator<Item = &Offer> {
        self.offers.iter()
    }
}

/// Sends an event to a scheduler.
pub(crate) fn tell(conn: ConnId, event: SchedulerEvent, effects: &mut Vec<Effect>) {
    effects.push(Effect::Send(conn, Event::Scheduler(event)));
}

/// Answers a scheduler's call, if it asked for an answer.
pub(crate) fn answer(conn: ConnId, call: u64, outcome: CallOutcome, effects: &mut Vec<Effect>) {
    if call != 0 {
        tell(conn, SchedulerEvent::Outcome { id: call, outcome }, effects);
    }
}
