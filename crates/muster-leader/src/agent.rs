//! What agents say.

use crate::{
    ConnId, Effect, Leader,
    leader::{AgentSession, Peer, Waiting, tell},
};
use muster_fault::planted;
use muster_model::{
    AgentCall, AgentEvent, AgentId, Event, ExecutorOrder, Hello, KnownExecutor, LaunchNumber, LaunchSum,
    RunOrder, SchedulerEvent, Session, Timestamp, Token, VolumeMount,
};
use muster_registry::{Command, Registry, Task};
use std::net::IpAddr;

/// How long a confirmation waits for an order to go with, at most about half as long again.
const CONFIRM_MS: u64 = 400;
/// How many wait for one agent.
const CONFIRMS_MAX: usize = 64;

impl AgentSession {
    fn tell_confirms(&mut self, effects: &mut Vec<Effect>) {
        for (launch, seq) in self.confirms.drain(..) {
            let event = AgentEvent::Confirm { launch, seq };
            effects.push(Effect::Send(self.conn, Event::Agent { session: self.session, event }));
        }
    }
}

impl Leader {
    pub(crate) fn agent_call(
        &mut self,
        registry: &Registry,
        conn: ConnId,
        session: Session,
        call: AgentCall,
        effects: &mut Vec<Effect>,
    ) {
        let call = match call {
            AgentCall::Hello(hello, token, ip) => {
                return self.hello(registry, conn, hello, None, (token, ip), effects);
            }
            AgentCall::HelloAsKnown(hello, tasks, ip) => {
                return self.hello(registry, conn, hello, Some(tasks), (None, ip), effects);
            }
            call => call,
        };
        let Some(Peer::Agent(agent_id, current)) = self.conns.get(&conn).cloned() else {
            self.counts.dropped += 1;
            return;
        };
        if session != current || self.agents.get(&agent_id).is_none_or(|it| it.session != session) {
            self.counts.dropped += 1;
            return; // a late word of an older session changes nothing
        }
        // Updates are not refused for being many: beyond twice the limit the agent is cut off and repeats all.
        let is_pong = matches!(call, AgentCall::Pong(_));
        if !is_pong && self.waiting.len() >= 2 * self.config.in_flight_max {
            effects.push(Effect::Close(conn));
            return;
        }
        match call {
            AgentCall::Hello(..) | AgentCall::HelloAsKnown(..) => {}
            AgentCall::Accepted(launches) => {
                self.propose(Command::Accepted { agent_id, launches }, Waiting::Nobody, effects);
            }
            AgentCall::Status(update) => {
                let (launch, seq) = (update.launch, update.seq);
                let is_known = registry.task(&update.task).is_some_and(|task| task.launch == launch);
                self.counts.updates.count(is_known);
                if planted!(AckBeforeCommit) {
                    self.order(&agent_id, AgentEvent::Confirm { launch, seq }, effects);
                }
                let waiting = Waiting::Confirm { agent_id: agent_id.clone(), session, launch, seq };
                self.propose(Command::Status { agent_id, update: Box::new(update) }, waiting, effects);
            }
            AgentCall::Ended(launch) => {
                self.propose(Command::Ended { agent_id, launch }, Waiting::Nobody, effects);
            }
            AgentCall::Pong(n) => {
                if let Some(it) = self.agents.get_mut(&agent_id)
                    && n == it.pings
                {
                    it.missed = 0;
                }
            }
            AgentCall::Message { framework_id, executor_id, data } => {
                let to = self.frameworks.get(&framework_id);
                self.counts.messages_up.count(to.is_some());
                if let Some(to) = to {
                    tell(to.conn, SchedulerEvent::Message { agent_id, executor_id, data }, effects);
                }
            }
            AgentCall::Executors { executors, all } => {
                self.executors(registry, agent_id, session, executors, all, effects);
            }
        }
    }

    /// An agent says who it is; and what tasks it has, unless it says that they are as known.
    fn hello(
        &mut self,
        registry: &Registry,
        conn: ConnId,
        hello: Hello,
        as_known: Option<LaunchSum>,
        (token, ip): (Option<Token>, Option<IpAddr>),
        effects: &mut Vec<Effect>,
    ) {
        match self.conns.get(&conn) {
            Some(Peer::Arriving) => return, // one hello is on its way already
            // A new agent that heard of two leaders in a row answers both. Its first hello was carried out and the
            // welcome is on its way: carried out as well, the second would make another agent of its machine,
            // and this one gone for ever.
            Some(Peer::Agent(agent_id, current))
                if hello.agent_id.is_none()
                    && self.agents.get(agent_id).is_some_and(|it| it.session == *current) =>
            {
                return;
            }
            _ => {}
        }
        if self.newest.is_late_hello(registry, &hello.info.machine_id, conn) {
            return effects.push(Effect::Close(conn));
        }
        let is_known = |tasks| hello.agent_id.as_ref().is_some_and(|id| registry.are_as_known(id, tasks));
        if as_known.is_some_and(|tasks| !is_known(tasks)) {
            return self.list_all(conn, effects);
        }
        let (token, hello) = (token.filter(|_| hello.agent_id.is_none()), Box::new(hello));
        let command = match (as_known, ip, token) {
            (Some(tasks), ip, _) => Command::HelloAsKnown { ip, hello, tasks },
            (None, Some(ip), token) => Command::HelloFrom { ip, token, hello },
            (None, None, Some(token)) => Command::FirstHello(token, hello),
            (None, None, None) => Command::AdmitAgent(hello),
        };
        self.conns.insert(conn, Peer::Arriving);
        self.propose(command, Waiting::Hello { conn }, effects);
    }

    /// An agent's tasks are not known as it said: it lists them.
    pub(crate) fn list_all(&self, conn: ConnId, effects: &mut Vec<Effect>) {
        effects.push(Effect::Send(conn, Event::Agent { session: Session(0), event: AgentEvent::ListAll }));
    }

    /// What an agent says of its executors, also after each welcome: what is known already needs no command.
    fn executors(
        &mut self,
        registry: &Registry,
        agent_id: AgentId,
        session: Session,
        executors: Vec<KnownExecutor>,
        all: bool,
        effects: &mut Vec<Effect>,
    ) {
        if !registry.knows_executors(&agent_id, &executors, all) {
            let numbers = executors.iter().filter(|it| it.ended.is_some()).map(|it| it.number).collect();
            let waiting = Waiting::ExecutorsEnded { agent_id: agent_id.clone(), session, numbers };
            return self.propose(Command::Executors { agent_id, executors, all }, waiting, effects);
        }
        for KnownExecutor { framework_id, executor_id, .. } in executors {
            if registry.framework(&framework_id).is_none() {
                self.order(&agent_id, AgentEvent::ShutdownExecutor { framework_id, executor_id }, effects);
            }
        }
    }

    /// Sends an agent an event, after the confirmations that waited for one.
    pub(crate) fn order(&mut self, agent_id: &AgentId, event: AgentEvent, effects: &mut Vec<Effect>) {
        if let Some(to) = self.agents.get_mut(agent_id) {
            to.tell_confirms(effects);
            effects.push(Effect::Send(to.conn, Event::Agent { session: to.session, event }));
        }
    }

    /// Tells an agent that an update is in the registry: not at once, but with the next order, so that a stream's
    /// frame of its own is spent on it only when no order comes. Until then the agent remembers a little longer.
    pub(crate) fn confirm(
        &mut self,
        now: Timestamp,
        agent_id: AgentId,
        launch: LaunchNumber,
        seq: u32,
        effects: &mut Vec<Effect>,
    ) {
        let Some(to) = self.agents.get_mut(&agent_id) else { return };
        to.confirms.push((launch, seq));
        match to.confirms.len() {
            // Rounded up: many agents share a wake-up.
            1 => {
                let due = Timestamp((now.0 + CONFIRM_MS).next_multiple_of(CONFIRM_MS / 2));
                self.confirms_due.push_back((due, agent_id));
            }
            CONFIRMS_MAX.. => to.tell_confirms(effects),
            _ => {}
        }
    }

    pub(crate) fn tell_due_confirms(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        while let Some((_, agent_id)) = self.confirms_due.pop_front_if(|(due, _)| *due <= now) {
            if let Some(to) = self.agents.get_mut(&agent_id) {
                to.tell_confirms(effects);
            }
        }
    }

    /// Tells an agent which volumes there are: it may remove all others.
    pub(crate) fn tell_volumes(
        &mut self,
        registry: &Registry,
        agent_id: &AgentId,
        effects: &mut Vec<Effect>,
    ) {
        self.order(agent_id, AgentEvent::Volumes { keep: registry.volumes_on(agent_id) }, effects);
    }

    pub(crate) fn order_run(&mut self, registry: &Registry, task: &Task, effects: &mut Vec<Effect>) {
        let framework = registry.framework(&task.key.framework_id);
        let order = RunOrder {
            launch: task.launch,
            task: task.key.clone(),
            resources: task.resources.clone(),
            grace_ms: task.grace_ms,
            user: framework.map_or_else(|| "".into(), |framework| framework.info.user.clone()),
            killed: task.kill().is_some() || framework.is_none(),
            sealed: task.sealed(),
            framework: framework.map(|framework| framework.info.sealed.clone()).unwrap_or_default(),
            executor: task.executor_id.as_ref().and_then(|executor_id| {
                let spec = registry.executor_of(&task.agent_id, &task.key.framework_id, executor_id)?;
                Some(Box::new(ExecutorOrder {
                    executor_id: executor_id.clone(),
                    resources: spec.resources.clone(),
                    grace_ms: None,
                    built_in: false,
                    sealed: spec.sealed.clone(),
                }))
            }),
            group: registry.group_of(task.launch),
            volumes: mounts(registry, task),
            starting: registry.speaks_mesos(&task.key.framework_id),
            terms: Default::default(),
        };
        self.order(&task.agent_id, AgentEvent::Run(Box::new(order)), effects);
    }
}

/// The volumes that a task and its executor use.
fn mounts(registry: &Registry, task: &Task) -> Vec<VolumeMount> {
    let mut mounts = registry.mounts(&task.agent_id, &task.resources, false);
    let executor = task.executor_id.as_ref();
    let executor = executor.and_then(|id| registry.executor_of(&task.agent_id, &task.key.framework_id, id));
    mounts.extend(executor.into_iter().flat_map(|it| registry.mounts(&task.agent_id, &it.resources, true)));
    mounts
}
