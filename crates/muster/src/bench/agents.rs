//! Simulated agents: the real protocol over real sockets, no processes.

use super::{
    ledger::Ledger,
    play::Fate,
    wire::{Connection, Dialer, Duplex, Pause, StreamError},
};
use muster_model::{
    AgentCall, AgentEvent, AgentInfo, Fence, Hello, KnownTask, LaunchNumber, LaunchSum, MachineId, Resources,
    RunOrder, Sealed, Session, Source, Status, StatusUpdate, TaskState, Uuid, WallTime,
};
use muster_proto::{AgentDown, mesos, v1};
use prost::Message;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

type Stream = Duplex<v1::AgentFrame, v1::AgentDownFrame>;

/// One agent's memory, kept across its streams as a real one keeps it on disk.
struct Agent {
    number: usize,
    info: AgentInfo,
    sealed: Sealed,
    agent_id: Option<muster_model::AgentId>,
    fence: Fence,
    /// Those that are not over, or of whose end it is not confirmed that the registry knows.
    tasks: BTreeMap<LaunchNumber, Task>,
    /// The others. Nothing is taken out: a benchmark ends.
    over: HashSet<LaunchNumber>,
    /// Orders that are not said to be taken yet, where that is all that is said, and in which session.
    taken: Vec<LaunchNumber>,
    session: Session,
    /// Whether a leader welcomed it on the stream that it has.
    welcomed: bool,
    ledger: Arc<Ledger>,
}

/// A task, and how many updates there were of it.
struct Task {
    known: KnownTask,
    updates: u32,
}

/// Runs an agent until it is aborted: it reports every task at once as what its id says ([`Fate`]), before that as
/// starting where that is wanted.
pub(crate) async fn run(number: usize, dialer: Arc<Dialer>, resources: Resources, ledger: Arc<Ledger>) {
    let info = mesos::AgentInfo {
        hostname: format!("sim-{number}"),
        port: Some(5051),
        resources: muster_proto::wire_resources(&resources),
        ..Default::default()
    };
    let mut agent = Agent {
        number,
        info: AgentInfo {
            machine_id: MachineId::new(format!("sim-{number}")),
            hostname: info.hostname.as_str().into(),
            port: 5051,
            resources,
            attributes: Vec::new(),
        },
        sealed: Sealed::new(info.encode_to_vec()),
        agent_id: None,
        fence: Fence::default(),
        tasks: BTreeMap::new(),
        over: HashSet::new(),
        taken: Vec::new(),
        session: Session(0),
        welcomed: false,
        ledger,
    };
    let (mut master, mut pause) = (None, Pause::new());
    loop {
        agent.welcomed = false;
        agent.taken.clear(); // the hello tells of them
        let (dialled, connection) = dialer.dial(master).await;
        master = Some(dialled);
        if let Ok(connection) = connection {
            let _ended = agent.session(&connection).await;
        }
        pause.wait(agent.welcomed).await;
    }
}

impl Agent {
    async fn session(&mut self, connection: &Connection) -> Result<(), StreamError> {
        let mut stream: Stream = connection.open("/muster.v1.AgentService/Session").await?;
        while let Some(frame) = self.next(&mut stream).await? {
            let (fence, session, event) =
                muster_proto::agent_event(frame).map_err(|error| StreamError::Damaged(error.to_string()))?;
            if fence < self.fence && fence != Fence::default() {
                continue;
            }
            self.fence = self.fence.max(fence);
            let event = match event {
                AgentDown::Leader { .. } => {
                    send(&mut stream, Session(0), &self.hello())?;
                    continue;
                }
                AgentDown::Event(AgentEvent::ListAll) => {
                    send(&mut stream, Session(0), &self.whole_hello())?;
                    continue;
                }
                AgentDown::Redial(_) => return Ok(()),
                AgentDown::Event(event) => event,
            };
            self.session = session;
            for call in self.event(event) {
                send(&mut stream, session, &call)?;
            }
        }
        Ok(())
    }

    /// The next frame. Before that is waited for, the orders that came together are said to be taken, together.
    async fn next(&mut self, stream: &mut Stream) -> Result<Option<v1::AgentDownFrame>, StreamError> {
        if let Some(frame) = stream.whole()? {
            return Ok(Some(frame));
        }
        if !self.taken.is_empty() {
            send(stream, self.session, &AgentCall::Accepted(std::mem::take(&mut self.taken)))?;
        }
        stream.next().await
    }

    /// What it says first, as real agents do: no more than a sum of its tasks, where it has no more to say of them.
    fn hello(&self) -> AgentCall {
        let living = LaunchSum::of_living(self.known());
        match living.filter(|_| self.agent_id.is_some() && !self.tasks.is_empty()) {
            Some(tasks) => AgentCall::HelloAsKnown(self.bare_hello(), tasks, None),
            None => self.whole_hello(),
        }
    }

    fn whole_hello(&self) -> AgentCall {
        let tasks = self.known().cloned().collect();
        AgentCall::Hello(Hello { tasks, ..self.bare_hello() }, None, None)
    }

    fn bare_hello(&self) -> Hello {
        Hello {
            agent_id: self.agent_id.clone(),
            info: self.info.clone(),
            tasks: Vec::new(),
            sealed: self.sealed.clone(),
        }
    }

    fn known(&self) -> impl Iterator<Item = &KnownTask> {
        self.tasks.values().map(|task| &task.known)
    }

    fn forget(&mut self, launch: LaunchNumber) {
        if self.tasks.remove(&launch).is_some() {
            self.over.insert(launch);
        }
    }

    fn run(&mut self, order: RunOrder) -> Vec<AgentCall> {
        if self.tasks.contains_key(&order.launch) || self.over.contains(&order.launch) {
            return vec![]; // heard of before: the hello told of it
        }
        self.ledger.started(order.launch, self.number);
        let fate = Fate::of(order.task.task_id.as_str());
        let known = KnownTask {
            launch: order.launch,
            task: order.task,
            state: TaskState::Staging,
            alive: true,
            resources: order.resources,
            updates: Vec::new(),
        };
        let mut task = Task { known, updates: 0 };
        let states: &[_] = match fate {
            Fate::Taken => &[],
            Fate::Runs => &[TaskState::Starting, TaskState::Running],
            Fate::Ends => &[TaskState::Starting, TaskState::Running, TaskState::Finished],
        };
        if fate == Fate::Taken {
            self.taken.push(order.launch);
        }
        let told = states.iter().filter(|state| order.starting || **state != TaskState::Starting);
        let calls = told.map(|state| AgentCall::Status(task.update(*state))).collect();
        self.tasks.insert(order.launch, task);
        calls
    }

    fn event(&mut self, event: AgentEvent) -> Vec<AgentCall> {
        match event {
            AgentEvent::Welcome { agent_id, forget, .. } => {
                self.agent_id = Some(agent_id);
                self.ledger.taken_in(self.fence, self.number);
                self.welcomed = true;
                for launch in forget {
                    self.forget(launch);
                }
                vec![]
            }
            AgentEvent::Run(order) => self.run(*order),
            AgentEvent::Kill { launch, task, .. } => {
                let Some(mine) = self.tasks.get_mut(&launch) else {
                    // Never heard of, or over.
                    let never = !self.over.contains(&launch);
                    let dropped = never.then(|| update(launch, task, TaskState::Dropped, 1));
                    return dropped.into_iter().map(AgentCall::Status).collect();
                };
                let killed = mine.known.alive.then(|| mine.update(TaskState::Killed));
                killed.into_iter().map(AgentCall::Status).collect()
            }
            AgentEvent::Confirm { launch, seq } => {
                if let Some(task) = self.tasks.get_mut(&launch) {
                    task.known.updates.retain(|update| update.seq > seq);
                    if !task.known.alive && task.known.updates.is_empty() {
                        self.forget(launch);
                    }
                }
                vec![]
            }
            AgentEvent::Ping(n) => vec![AgentCall::Pong(n)],
            AgentEvent::Message { .. }
            | AgentEvent::ListAll
            | AgentEvent::Rejected(_)
            | AgentEvent::ShutdownExecutor { .. }
            | AgentEvent::ConfirmExecutor(_)
            | AgentEvent::Volumes { .. } => vec![],
        }
    }
}

impl Task {
    fn update(&mut self, state: TaskState) -> StatusUpdate {
        self.updates += 1;
        let update = update(self.known.launch, self.known.task.clone(), state, self.updates);
        (self.known.state, self.known.alive) = (state, !state.is_terminal());
        self.known.updates.push(update.clone());
        update
    }
}

fn update(launch: LaunchNumber, task: muster_model::TaskKey, state: TaskState, seq: u32) -> StatusUpdate {
    let status = Status {
        state,
        source: Source::Executor,
        reason: None,
        message: "".into(),
        wall: WallTime(0),
        sealed: Sealed::default(),
    };
    StatusUpdate { launch, task, seq, uuid: Uuid::of(launch, seq), status }
}

fn send(stream: &mut Stream, session: Session, call: &AgentCall) -> Result<(), StreamError> {
    stream.send(&muster_proto::agent_frame(session, call))
}
