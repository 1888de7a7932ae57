//! Many at once: a framework that asks for the state of many tasks, or has updates of many, is told them in parts, so that
//! no stream's queue fills up; many agents are not all pinged, nor marked as lost, at the same moment.

#![allow(clippy::unwrap_used)]

use muster_allocator::{Grant, ShardOutput};
use muster_leader::{Committed, Config, Effect, Input, Leader, OperatorCall};
use muster_model::{
    AgentCall, AgentEvent, AgentInfo, Call, CallOutcome, ClusterId, Event, FrameworkInfo, Hello, Index,
    MachineId, OfferId, Resources, Role, SchedulerCall, SchedulerEvent, Session, TaskId, TaskSpec, Term,
    Timestamp, Token, WallTime,
};
use muster_registry::{Agent, AgentState, Command, Entry, Launch, Registry};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

const ASKED: usize = 625;

/// The least of a shell: what is proposed is committed at once.
struct Shell {
    leader: Leader,
    registry: Registry,
    proposed: Vec<Command>,
    index: u64,
    tickets: u64,
    now: Timestamp,
    told: Vec<SchedulerEvent>,
    /// Agents' connections that were welcomed, pinged and closed.
    welcomed: Vec<(u64, Session)>,
    pinged: Vec<(u64, u64)>,
    closed: Vec<u64>,
    /// How many agents the newest entry marks unreachable.
    marked: usize,
}

impl Shell {
    fn new() -> Self {
        let mut effects = Vec::new();
        let config = Config { shards: 1, ..Config::default() };
        let leader = Leader::new(config, Term(1), &mut effects);
        let registry = Registry::new(ClusterId::new("c"), 1);
        let mut shell = Self {
            leader,
            registry,
            proposed: Vec::new(),
            index: 0,
            tickets: 1,
            now: Timestamp(0),
            told: Vec::new(),
            welcomed: Vec::new(),
            pinged: Vec::new(),
            closed: Vec::new(),
            marked: 0,
        };
        shell.take(effects);
        shell
    }

    fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.leader.step(self.now, &self.registry, input, &mut effects);
        self.take(effects);
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Propose(command) => self.proposed.push(command),
                Effect::Send(1, Event::Scheduler(event)) => self.told.push(event),
                Effect::Send(conn, Event::Agent { session, event: AgentEvent::Welcome { .. } }) => {
                    self.welcomed.push((conn, session));
                }
                Effect::Send(conn, Event::Agent { event: AgentEvent::Ping(n), .. }) => {
                    self.pinged.push((conn, n))
                }
                Effect::Close(conn) => self.closed.push(conn),
                _ => {}
            }
        }
        let commands = std::mem::take(&mut self.proposed);
        if commands.is_empty() {
            return;
        }
        self.marked = commands.iter().filter(|it| matches!(it, Command::MarkUnreachable { .. })).count();
        let first_ticket = self.tickets;
        self.tickets += commands.len() as u64;
        self.commit(commands, Some(first_ticket));
    }

    /// An entry, of this leader's proposals or of another one's.
    fn commit(&mut self, commands: Vec<Command>, ticket: Option<u64>) {
        self.index += 1;
        let first_ticket = ticket.unwrap_or(0);
        let entry = Entry { term: Term(1), at: self.now, wall: WallTime(0), first_ticket, commands };
        let applied = self.registry.apply(Index(self.index), Term(1), &entry);
        self.step(Input::Applied(vec![Committed {
            index: Index(self.index),
            first_ticket: ticket,
            outcomes: applied.outcomes,
            changes: Arc::new(applied.changes),
        }]));
    }

    /// Agents say hello on these connections.
    fn agents(&mut self, conns: std::ops::RangeInclusive<u64>) {
        for conn in conns {
            let mut token = [0; 16];
            token[..8].copy_from_slice(&conn.to_le_bytes());
            let info = AgentInfo {
                machine_id: MachineId::new(format!("m{conn}")),
                hostname: format!("a{conn}").into(),
                port: 1,
                resources: Resources::of(1_000_000, 1 << 20),
                attributes: Vec::new(),
            };
            let hello = Hello { agent_id: None, info, tasks: Vec::new(), sealed: Default::default() };
            let call = AgentCall::Hello(hello, Some(Token(token)), None);
            self.step(Input::Call { conn, call: Call::Agent { session: Session(0), call } });
        }
    }

    fn call(&mut self, id: u64, call: SchedulerCall) {
        self.step(Input::Call { conn: 1, call: Call::Scheduler { id, call } });
    }

    fn subscribe(&mut self) {
        let info = FrameworkInfo {
            name: "f".into(),
            user: "u".into(),
            principal: None,
            roles: vec![Role::any()],
            failover_timeout_ms: 1_000,
            capabilities: Default::default(),
            sealed: Default::default(),
        };
        self.call(
            1,
            SchedulerCall::Subscribe {
                framework_id: None,
                token: None,
                stream: false,
                info,
                wants: Default::default(),
                suppressed_roles: Vec::new(),
            },
        );
    }

    /// What is told when the machine is woken next; and how long it waited for that.
    fn wake(&mut self) -> (u64, Vec<SchedulerEvent>) {
        let due = self.leader.wake_at().unwrap();
        let waited = due.since_ms(self.now);
        self.now = due;
        self.step(Input::Wake);
        (waited, std::mem::take(&mut self.told))
    }
}

fn updates(events: &[SchedulerEvent]) -> usize {
    events.iter().filter(|event| matches!(event, SchedulerEvent::Update { .. })).count()
}

fn is_offers(event: &SchedulerEvent) -> bool {
    matches!(event, SchedulerEvent::Offers(_))
}

fn is_done(event: &SchedulerEvent, call: u64) -> bool {
    matches!(event, SchedulerEvent::Outcome { id, outcome: CallOutcome::Done } if *id == call)
}

#[test]
fn the_state_of_many_tasks_is_told_in_parts_and_then_answered() {
    let mut shell = Shell::new();
    shell.subscribe();
    assert!(shell.told.iter().any(|event| is_done(event, 1)), "{:?}", shell.told);
    shell.told.clear();

    let tasks: Vec<_> = (0..ASKED).map(|n| (TaskId::new(format!("t{n}")), None)).collect();
    shell.call(2, SchedulerCall::Reconcile { tasks: tasks.clone() });
    assert_eq!(updates(&shell.told), 250);
    assert!(!shell.told.iter().any(|event| is_done(event, 2)));
    shell.told.clear();
    // A second question waits for its turn, a fifth one is too many.
    for call in 3..=5 {
        shell.call(call, SchedulerCall::Reconcile { tasks: tasks[..1].to_vec() });
    }
    assert_eq!(shell.told, []);
    shell.call(6, SchedulerCall::Reconcile { tasks: tasks[..1].to_vec() });
    let busy = SchedulerEvent::Outcome { id: 6, outcome: CallOutcome::Busy };
    assert_eq!(std::mem::take(&mut shell.told), [busy]);

    let (waited, told) = shell.wake();
    assert!(waited <= 20 && updates(&told) == 250, "{waited} {}", updates(&told));
    // The end of it has room for all that waited, in its order.
    let (_, told) = shell.wake();
    assert_eq!(updates(&told), 128);
    let done: Vec<_> = (2..=5).map(|call| told.iter().position(|event| is_done(event, call))).collect();
    assert!(done.is_sorted() && done[0] == Some(125) && done[3] == Some(told.len() - 1), "{done:?}");
}

#[test]
fn many_short_questions_at_once_are_answered_in_parts_too() {
    let mut shell = Shell::new();
    shell.subscribe();
    shell.told.clear();
    let tasks: Vec<_> = (0..150).map(|n| (TaskId::new(format!("t{n}")), None)).collect();
    for call in 2..=5 {
        shell.call(call, SchedulerCall::Reconcile { tasks: tasks.clone() });
    }
    let (mut told, mut parts) = (std::mem::take(&mut shell.told), 1);
    assert!(updates(&told) <= 250, "{}", updates(&told));
    while !told.iter().any(|event| is_done(event, 5)) {
        let (waited, part) = shell.wake();
        assert!(waited > 0 && updates(&part) <= 250, "{waited} {}", updates(&part));
        told.extend(part);
        parts += 1;
    }
    assert_eq!((updates(&told), parts), (600, 3));
    assert!((2..=5).all(|call| told.iter().filter(|event| is_done(event, call)).count() == 1));
}

#[test]
fn whoever_waits_for_the_rest_of_an_answer_is_told_when_leadership_ends() {
    let mut shell = Shell::new();
    shell.subscribe();
    let tasks: Vec<_> = (0..ASKED).map(|n| (TaskId::new(format!("t{n}")), None)).collect();
    shell.call(2, SchedulerCall::Reconcile { tasks });
    let mut effects = Vec::new();
    shell.leader.resign(&mut effects);
    let unknown = |effect: &Effect| {
        matches!(
            effect,
            Effect::Send(
                1,
                Event::Scheduler(SchedulerEvent::Outcome { id: 2, outcome: CallOutcome::Unknown })
            )
        )
    };
    assert_eq!(effects.iter().filter(|effect| unknown(effect)).count(), 1);
}

#[test]
fn updates_of_many_tasks_at_once_are_told_in_parts() {
    const TASKS: usize = 9_000;
    let mut shell = Shell::new();
    shell.subscribe();
    shell.agents(2..=2);
    let framework_id = shell.registry.frameworks().next().unwrap().id.clone();
    let agent = shell.registry.agents().next().unwrap();
    let (agent_id, offered) = (agent.id.clone(), agent.info.resources.clone());
    let task = |n: usize| TaskSpec {
        task_id: TaskId::new(format!("t{n}")),
        name: "t".into(),
        resources: Resources::of(10, 1),
        executor: None,
        grace_ms: None,
        sealed: Default::default(),
    };
    let launch = Command::Launch(Launch {
        framework_id,
        agent_id: agent_id.clone(),
        role: Role::any(),
        offer_ids: vec![OfferId::new("c-O1-0-1")],
        offered,
        tasks: (0..TASKS).map(task).collect(),
    });
    shell.commit(vec![launch], None);
    assert_eq!(shell.registry.tasks().count(), TASKS);
    shell.told.clear();
    // Its machine is gone, and all of its tasks with it.
    shell.step(Input::Closed(2));
    shell.commit(vec![Command::MarkGone { agent_id }], None);

    let told = std::mem::take(&mut shell.told);
    assert_eq!(updates(&told), 1_500);
    let mut known = BTreeSet::new();
    let mut take = |told: Vec<SchedulerEvent>| {
        for event in told {
            if let SchedulerEvent::Update { task_id, status, uuid, .. } = event {
                assert!(uuid.is_some() && status.state.is_terminal(), "{status:?}");
                known.insert(task_id);
            }
        }
        known.len()
    };
    take(told);
    // What else is due meanwhile waits for its turn, or is told as it comes; nothing is left out.
    while take(Vec::new()) < TASKS {
        let (_, part) = shell.wake();
        assert!(updates(&part) <= 250, "{}", updates(&part));
        take(part);
    }
}

#[test]
fn the_loss_of_many_agents_at_once_is_told_in_parts() {
    const AGENTS: u64 = 5_000;
    let mut shell = Shell::new();
    shell.subscribe();
    shell.agents(2..=AGENTS + 1);
    shell.told.clear();
    let gone: Vec<_> = shell.registry.agents().map(|agent| agent.id.clone()).collect();
    shell.commit(gone.iter().map(|id| Command::MarkGone { agent_id: id.clone() }).collect(), None);

    let lost = |told: Vec<SchedulerEvent>| {
        let id = |event| match event {
            SchedulerEvent::AgentLost(id) => Some(id),
            _ => None,
        };
        told.into_iter().filter_map(id).collect::<Vec<_>>()
    };
    let mut known = lost(std::mem::take(&mut shell.told));
    assert_eq!(known.len(), 1_500);
    while known.len() < gone.len() && shell.now < Timestamp(1_000) {
        let part = lost(shell.wake().1);
        assert!(part.len() <= 250, "{}", part.len());
        known.extend(part);
    }
    assert_eq!(known, gone);
    // Who is not there any more is told nothing.
    shell.agents(AGENTS + 2..=2 * AGENTS + 1);
    let gone: Vec<_> =
        shell.registry.agents().filter(|agent| agent.is_connected()).map(|agent| agent.id.clone()).collect();
    shell.commit(gone.iter().map(|id| Command::MarkGone { agent_id: id.clone() }).collect(), None);
    shell.step(Input::Closed(1));
    shell.told.clear();
    let until = shell.now.plus_ms(1_000);
    while shell.now < until {
        assert_eq!(lost(shell.wake().1), []);
    }
}

#[test]
fn offers_that_are_taken_back_at_once_are_told_in_parts() {
    const AGENTS: u64 = 5_000;
    let mut shell = Shell::new();
    shell.subscribe();
    shell.agents(2..=AGENTS + 1);
    let framework_id = shell.registry.frameworks().next().unwrap().id.clone();
    let grant = |(agent, n): (&Agent, u64)| Grant {
        n,
        framework_id: framework_id.clone(),
        role: Role::any(),
        agent_id: agent.id.clone(),
        resources: Arc::new(agent.info.resources.clone()),
    };
    let pass = |shell: &Shell, first: u64| {
        let grants = shell.registry.agents().zip(first..).map(grant).collect();
        Input::Allocated(0, ShardOutput { grants, passes: Vec::new(), wake_at: None })
    };
    shell.step(pass(&shell, 1));
    while shell.leader.offer_count() < AGENTS as usize || !shell.told.iter().any(is_offers) {
        let (_, told) = shell.wake();
        shell.told.extend(told);
    }
    shell.told.clear();
    // Whoever is offered less by it must not sit on what it has.
    let call = OperatorCall::SetWeights(vec![(Role::any(), 2_000)]);
    shell.step(Input::Operator { id: 1, call });

    let rescinded = |told: Vec<SchedulerEvent>| {
        let id = |event| match event {
            SchedulerEvent::Rescind(id) => Some(id),
            _ => None,
        };
        told.into_iter().filter_map(id).collect::<Vec<_>>()
    };
    let known = rescinded(std::mem::take(&mut shell.told));
    assert_eq!(known.len(), 1_500);
    let mut known: BTreeSet<_> = known.into_iter().collect();
    // What is offered anew of the same agents comes behind it.
    shell.step(pass(&shell, AGENTS + 1));
    let until = shell.now.plus_ms(1_000);
    let mut is_offered = shell.told.iter().any(is_offers);
    while !is_offered && shell.now < until {
        let (_, told) = shell.wake();
        is_offered = told.iter().any(is_offers);
        let part = rescinded(told);
        assert!(part.len() <= 250, "{}", part.len());
        known.extend(part);
    }
    assert_eq!((is_offered, known.len()), (true, AGENTS as usize));
}

#[test]
fn agents_that_are_lost_at_once_are_marked_a_part_at_a_time() {
    const AGENTS: u64 = 5_000;
    let mut shell = Shell::new();
    shell.agents(1..=AGENTS);
    (2..=AGENTS).for_each(|conn| shell.step(Input::Closed(conn)));
    let is_lost = |shell: &Shell| {
        let lost = |agent: &&Agent| matches!(agent.state, AgentState::Unreachable { .. });
        shell.registry.agents().filter(lost).count() as u64
    };
    let session = shell.welcomed[0].1;
    while is_lost(&shell) < AGENTS - 1 {
        shell.marked = 0;
        shell.wake();
        assert!(shell.marked <= 2_000, "{} at once", shell.marked);
        for (conn, n) in std::mem::take(&mut shell.pinged) {
            shell.step(Input::Call { conn, call: Call::Agent { session, call: AgentCall::Pong(n) } });
        }
    }
    assert!(shell.closed.is_empty(), "{:?}", shell.closed);
}

#[test]
fn many_agents_are_pinged_in_parts_and_each_as_often_as_ever() {
    const AGENTS: u64 = 5_000;
    let (ping_ms, missed_max) = (Config::default().ping_ms, Config::default().missed_pings_max);
    let mut shell = Shell::new();
    shell.agents(1..=AGENTS);
    assert_eq!(shell.welcomed.len() as u64, AGENTS);
    let sessions: BTreeMap<_, _> = shell.welcomed.drain(..).collect();
    // The first never answers.
    let mut at: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let rounds = u64::from(missed_max) + 2;
    while shell.now.0 < rounds * ping_ms {
        shell.wake();
        let pinged = std::mem::take(&mut shell.pinged);
        assert!(pinged.len() as u64 <= AGENTS / 50, "{} at once", pinged.len());
        for (conn, n) in pinged {
            at.entry(conn).or_default().push(shell.now.0);
            if conn != 1 {
                let call = Call::Agent { session: sessions[&conn], call: AgentCall::Pong(n) };
                shell.step(Input::Call { conn, call });
            }
        }
    }
    assert_eq!(shell.closed, [1], "who missed {missed_max}");
    assert_eq!(at[&1].len(), missed_max as usize);
    for (conn, at) in at.iter().filter(|(conn, _)| **conn != 1) {
        assert!(at.len() as u64 >= rounds - 1, "{conn}: {at:?}");
        // One that ends may move the others by a part.
        let is_due = |two: &[u64]| (two[1] - two[0]).abs_diff(ping_ms) <= ping_ms / 50;
        assert!(at.windows(2).all(is_due), "{conn}: {at:?}");
    }
}
