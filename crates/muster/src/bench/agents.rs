//! Simulated agents: the real protocol over real sockets, no processes.

use super::{
    ledger::Ledger,
    wire::{Dialer, Duplex, StreamError},
};
use muster_model::{
    AgentCall, AgentEvent, AgentInfo, Fence, Hello, KnownTask, LaunchNumber, MachineId, Resources, Sealed,
    Session, Source, Status, StatusUpdate, TaskState, Uuid, WallTime,
};
use muster_proto::{AgentDown, mesos, v1};
use prost::Message;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

type Stream = Duplex<v1::AgentFrame, v1::AgentDownFrame>;

/// One agent's memory, kept across its streams as a real one keeps it on disk.
struct Agent {
    number: usize,
    info: AgentInfo,
    sealed: Sealed,
    agent_id: Option<muster_model::AgentId>,
    fence: Fence,
    tasks: BTreeMap<LaunchNumber, KnownTask>,
    ledger: Arc<Ledger>,
}

/// Runs an agent until it is aborted: it reports every task as running at once, and before that as starting where that
/// is wanted.
/// The first master it goes to is the `first`th.
pub(crate) async fn run(
    number: usize,
    first: usize,
    dialer: Arc<Dialer>,
    resources: Resources,
    ledger: Arc<Ledger>,
) {
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
        ledger,
    };
    let mut dial = first;
    loop {
        let _ended = agent.session(&dialer, dial).await;
        dial += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Agent {
    async fn session(&mut self, dialer: &Dialer, dial: usize) -> Result<(), StreamError> {
        let connection = dialer.dial(dial).await?;
        let mut stream: Stream = connection.open("/muster.v1.AgentService/Session").await?;
        while let Some(frame) = stream.next().await? {
            let (fence, session, event) =
                muster_proto::agent_event(frame).map_err(|error| StreamError::Damaged(error.to_string()))?;
            if fence < self.fence && fence != Fence::default() {
                continue;
            }
            self.fence = self.fence.max(fence);
            let event = match event {
                AgentDown::Leader { .. } => {
                    let hello = AgentCall::Hello(self.hello(), None, None);
                    send(&mut stream, Session(0), &hello)?;
                    continue;
                }
                AgentDown::Redial(_) => return Ok(()),
                AgentDown::Event(event) => event,
            };
            for call in self.event(event) {
                send(&mut stream, session, &call)?;
            }
        }
        Ok(())
    }

    fn hello(&self) -> Hello {
        Hello {
            agent_id: self.agent_id.clone(),
            info: self.info.clone(),
            tasks: self.tasks.values().cloned().collect(),
            sealed: self.sealed.clone(),
        }
    }

    fn event(&mut self, event: AgentEvent) -> Vec<AgentCall> {
        match event {
            AgentEvent::Welcome { agent_id, forget, .. } => {
                self.agent_id = Some(agent_id);
                self.ledger.taken_in(self.fence, self.number);
                forget.iter().for_each(|launch| drop(self.tasks.remove(launch)));
                vec![]
            }
            AgentEvent::Run(order) => {
                if self.tasks.contains_key(&order.launch) {
                    return vec![]; // heard of before: the hello told of it
                }
                self.ledger.started(order.launch, self.number);
                let states = if order.starting {
                    &[TaskState::Starting, TaskState::Running][..]
                } else {
                    &[TaskState::Running]
                };
                let updates: Vec<_> = (1..)
                    .zip(states)
                    .map(|(seq, state)| update(order.launch, order.task.clone(), *state, seq))
                    .collect();
                let known = KnownTask {
                    launch: order.launch,
                    task: order.task,
                    state: TaskState::Running,
                    alive: true,
                    resources: order.resources,
                    updates: updates.clone(),
                };
                self.tasks.insert(order.launch, known);
                updates.into_iter().map(AgentCall::Status).collect()
            }
            AgentEvent::Kill { launch, task, .. } => {
                self.tasks.remove(&launch);
                vec![AgentCall::Status(update(launch, task, TaskState::Killed, 3))]
            }
            AgentEvent::Confirm { launch, seq } => {
                if let Some(known) = self.tasks.get_mut(&launch) {
                    known.updates.retain(|update| update.seq > seq);
                }
                vec![]
            }
            AgentEvent::Ping(n) => vec![AgentCall::Pong(n)],
            AgentEvent::Message { .. }
            | AgentEvent::Rejected(_)
            | AgentEvent::ShutdownExecutor { .. }
            | AgentEvent::ConfirmExecutor(_)
            | AgentEvent::Volumes { .. } => vec![],
        }
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
