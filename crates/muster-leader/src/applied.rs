//! What came out of the log: answers first, then what follows from the changes.

use crate::{
    Committed, ConnId, Effect, Leader,
    leader::{AgentSession, FrameworkSession, Peer, Waiting, answer, tell},
    recital::Left,
};
use muster_model::{
    AgentEvent, AgentId, CallOutcome, Event, FrameworkId, OperationId, Role, SchedulerEvent, Session, TaskId,
    Timestamp, Wants,
};
use muster_registry::{Change, Command, OperateOutcome, Outcome, Refusal, Registry};
use std::collections::{BTreeMap, BTreeSet};

impl Leader {
    pub(crate) fn applied(
        &mut self,
        now: Timestamp,
        registry: &Registry,
        entries: Vec<Committed>,
        effects: &mut Vec<Effect>,
    ) {
        for entry in entries {
            let first = entry.first_ticket;
            if !self.serving && first.is_some() {
                self.began = entry.index; // `BeginTerm` comes first
            }
            if self.serving {
                self.shards.changed(entry.index, &entry.changes);
            }
            for (outcome, ticket) in entry.outcomes.into_iter().zip(first.unwrap_or(0)..) {
                if let Some(waiting) = first.and_then(|_| self.waiting.remove(&ticket)) {
                    self.came_out(now, registry, waiting, outcome, effects);
                }
            }
            if self.serving {
                entry.changes.iter().for_each(|change| self.follow(registry, change, effects));
            }
        }
        self.timers.applied_at = registry.clock();
    }

    fn came_out(
        &mut self,
        now: Timestamp,
        registry: &Registry,
        waiting: Waiting,
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) {
        self.counts.came_out(&waiting, &outcome);
        match waiting {
            Waiting::Nobody => {}
            Waiting::BeginTerm => {
                self.serving = true;
                self.shards.reset(registry);
                self.heed_quotas(registry);
                self.timers.begin(now, &self.config);
                // Ahead of all that is proposed while it serves, so ahead of every disconnection of this term.
                let limits = self.config.limits(registry.limits());
                if limits != *registry.limits() {
                    self.propose(Command::Configure(limits), Waiting::Nobody, effects);
                }
                effects.push(Effect::Serve);
            }
            Waiting::Tick => self.timers.tick_waits = false,
            Waiting::Subscribe { conn, call, suppressed, wants } => {
                self.subscribed(registry, conn, call, (suppressed, wants), outcome, effects);
                self.recite(registry, conn, Left::Updates(TaskId::new("")), effects);
                self.recite(registry, conn, Left::Operations(OperationId::new("")), effects);
            }
            Waiting::Hello { conn } => self.admitted(registry, conn, outcome, effects),
            Waiting::Accept(accepting) => {
                let outcome = match outcome {
                    Outcome::Launched(tasks) => Ok(OperateOutcome { tasks, operations: Vec::new() }),
                    Outcome::Operated(outcome) => Ok(outcome),
                    Outcome::Refused(refusal) => Err(refusal.to_string()),
                    _ => Err("refused".into()),
                };
                self.accepted(now, registry, *accepting, outcome, effects);
            }
            Waiting::Confirm { agent_id, session, launch, seq } => {
                if matches!(outcome, Outcome::Confirmed)
                    && self.agents.get(&agent_id).is_some_and(|it| it.session == session)
                {
                    self.confirm(now, agent_id, launch, seq, effects);
                }
            }
            Waiting::ExecutorsEnded { agent_id, session, numbers } => {
                if matches!(outcome, Outcome::Confirmed)
                    && self.agents.get(&agent_id).is_some_and(|it| it.session == session)
                {
                    for number in numbers {
                        self.order(&agent_id, AgentEvent::ConfirmExecutor(number), effects);
                    }
                }
            }
            Waiting::Call { conn, call } | Waiting::Acknowledge { conn, call, .. } => {
                answer(conn, call, told(&outcome), effects);
            }
            Waiting::Kill { conn, call, task_id } => match outcome {
                // A kill of a task that is not known is answered like a question after it (Mesos v1).
                Outcome::Refused(Refusal::UnknownTask) => {
                    let asked = vec![(task_id, None)].into_iter();
                    self.recite(registry, conn, Left::Asked(asked, call), effects);
                }
                _ => answer(conn, call, CallOutcome::Done, effects),
            },
            Waiting::Reconcile { conn, call, tasks } => {
                let left = match tasks.is_empty() {
                    true => Left::All(TaskId::new(""), call),
                    false => Left::Asked(tasks.into_iter(), call),
                };
                self.recite(registry, conn, left, effects);
            }
            Waiting::ReconcileOperations { conn, call, operations } => {
                let left = match operations.is_empty() {
                    true => Left::AllOperations(OperationId::new(""), call),
                    false => Left::AskedOperations(operations.into_iter(), call),
                };
                self.recite(registry, conn, left, effects);
            }
            Waiting::Update { conn, call, framework_id, session, wants } => {
                if matches!(outcome, Outcome::Done) {
                    self.updated(registry, &framework_id, session, wants, effects);
                }
                answer(conn, call, told(&outcome), effects);
            }
            Waiting::Operator { id } | Waiting::Convert { id, .. } => {
                effects.push(Effect::Answer { id, outcome: told(&outcome) });
            }
        }
    }

    /// Whether anybody has a quota decides how offers are counted.
    fn heed_quotas(&mut self, registry: &Registry) {
        let quotas = registry.role_settings().any(|(_, settings)| !settings.quota.is_empty());
        self.offers.count_by_role(quotas);
        self.shards.take_turns(quotas);
    }

    fn subscribed(
        &mut self,
        registry: &Registry,
        conn: ConnId,
        call: u64,
        (suppressed, wants): (BTreeSet<Role>, BTreeMap<Role, Wants>),
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) {
        let Outcome::Subscribed { framework_id, session } = outcome else {
            if let Outcome::Refused(refusal) = outcome {
                tell(conn, SchedulerEvent::Error(refusal.to_string()), effects);
            }
            self.end_sessions_on(conn, effects);
            self.conns.remove(&conn);
            effects.push(Effect::Close(conn));
            return;
        };
        if let Some(former) = self.frameworks.get(&framework_id) {
            let (former, former_session) = (former.conn, former.session);
            if former_session > session {
                return; // a newer one came out of the log already
            }
            self.end_framework_session(&framework_id, former_session);
            if former != conn {
                self.conns.remove(&former);
                tell(former, SchedulerEvent::Error("Framework failed over".into()), effects);
                effects.push(Effect::Close(former));
            }
        }
        if !self.conns.contains_key(&conn) {
            // The stream ended while its SUBSCRIBE was on its way.
            self.propose(Command::DisconnectFramework { framework_id, session }, Waiting::Nobody, effects);
            return;
        }
        let Some(framework) = registry.framework(&framework_id) else {
            // Torn down by an entry that is applied already and will be told of soon.
            self.conns.remove(&conn);
            effects.push(Effect::Close(conn));
            return;
        };
        self.conns.insert(conn, Peer::Framework(framework_id.clone(), session));
        let it = FrameworkSession {
            conn,
            session,
            roles: framework.info.roles.iter().cloned().collect(),
            suppressed,
            needs: Vec::new(),
            wants,
            capabilities: framework.info.capabilities,
        };
        let heartbeat_ms = self.config.heartbeat_ms;
        let event = SchedulerEvent::Subscribed { framework_id: framework_id.clone(), session, heartbeat_ms };
        tell(conn, event, effects);
        answer(conn, call, CallOutcome::Done, effects);
        self.frameworks.insert(framework_id.clone(), it);
        self.wish(&framework_id);
    }

    /// A framework described itself anew: what it is offered follows.
    fn updated(
        &mut self,
        registry: &Registry,
        id: &FrameworkId,
        session: Session,
        wants: BTreeMap<Role, Wants>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(framework) = registry.framework(id) else { return };
        let Some(it) = self.frameworks.get_mut(id).filter(|it| it.session == session) else { return };
        let former = it.suppressed.clone();
        it.roles = framework.info.roles.iter().cloned().collect();
        it.suppressed = framework.suppressed_roles.iter().cloned().collect();
        it.wants = wants;
        it.capabilities = framework.info.capabilities;
        let (roles, suppressed) = (it.roles.clone(), it.suppressed.clone());
        let revived: BTreeSet<Role> = former.difference(&suppressed).cloned().collect();
        for outstanding in self.offers.take_of_framework_but(id, &roles) {
            self.tell_rescinded(&outstanding.offer, effects);
            self.shards.returned(&outstanding, None);
        }
        if !revived.is_empty() {
            self.shards.revive(id, &revived);
        }
        self.wish(id);
    }

    fn admitted(&mut self, registry: &Registry, conn: ConnId, outcome: Outcome, effects: &mut Vec<Effect>) {
        let (agent_id, session, forget, confirm, low_mark) = match outcome {
            Outcome::Admitted { agent_id, session, forget, confirm, low_mark } => {
                (agent_id, session, forget, confirm, low_mark)
            }
            // It said what is known, and something came in between. A session that it has goes on until it has said all.
            Outcome::Refused(Refusal::TasksChanged) => {
                if self.conns.remove(&conn).is_some() {
                    if let Some((id, it)) = self.agents.iter().find(|(_, it)| it.conn == conn) {
                        self.conns.insert(conn, Peer::Agent(id.clone(), it.session));
                    }
                    self.list_all(conn, effects);
                }
                return;
            }
            Outcome::Refused(refusal) => {
                self.end_sessions_on(conn, effects);
                self.conns.remove(&conn);
                let event = AgentEvent::Rejected(refusal.to_string());
                effects.push(Effect::Send(conn, Event::Agent { session: Session(0), event }));
                effects.push(Effect::Close(conn));
                return;
            }
            _ => return,
        };
        if let Some(former) = self.agents.get(&agent_id) {
            let (former, former_session) = (former.conn, former.session);
            if former_session > session {
                return;
            }
            self.end_agent_session(&agent_id, former_session, effects);
            if former != conn {
                self.conns.remove(&former);
                effects.push(Effect::Close(former));
            }
        }
        if !self.conns.contains_key(&conn) {
            self.propose(Command::DisconnectAgent { agent_id, session }, Waiting::Nobody, effects);
            return;
        }
        self.conns.insert(conn, Peer::Agent(agent_id.clone(), session));
        self.agents
            .insert(agent_id.clone(), AgentSession { conn, session, pings: 0, missed: 0, confirms: vec![] });
        let ping_ms = self.config.ping_ms;
        let welcome = AgentEvent::Welcome { agent_id: agent_id.clone(), forget, low_mark, ping_ms };
        self.order(&agent_id, welcome, effects);
        for (launch, seq) in confirm {
            self.order(&agent_id, AgentEvent::Confirm { launch, seq }, effects);
        }
        self.tell_volumes(registry, &agent_id, effects);
    }

    /// A stream whose new SUBSCRIBE or hello was refused loses the session it had before, too.
    fn end_sessions_on(&mut self, conn: ConnId, effects: &mut Vec<Effect>) {
        let framework = self.frameworks.iter().find(|(_, it)| it.conn == conn);
        if let Some((framework_id, session)) = framework.map(|(id, it)| (id.clone(), it.session)) {
            self.end_framework_session(&framework_id, session);
            self.propose(Command::DisconnectFramework { framework_id, session }, Waiting::Nobody, effects);
        }
        let agent = self.agents.iter().find(|(_, it)| it.conn == conn);
        if let Some((agent_id, session)) = agent.map(|(id, it)| (id.clone(), it.session)) {
            self.end_agent_session(&agent_id, session, effects);
            self.propose(Command::DisconnectAgent { agent_id, session }, Waiting::Nobody, effects);
        }
    }

    /// What clients must be told of a change.
    fn follow(&mut self, registry: &Registry, change: &Change, effects: &mut Vec<Effect>) {
        match change {
            Change::RunDue(task) => self.order_run(registry, task, effects),
            Change::KillDue(task) => {
                let grace_ms = task.kill().and_then(|kill| kill.grace_ms);
                let (launch, task_key) = (task.launch, task.key.clone());
                let kill = AgentEvent::Kill { launch, task: task_key, grace_ms };
                self.order(&task.agent_id, kill, effects);
            }
            Change::StrayFound { agent_id, launch, task } => {
                let kill = AgentEvent::Kill { launch: *launch, task: task.clone(), grace_ms: None };
                self.order(agent_id, kill, effects);
            }
            Change::UpdateDue { task, agent_id, uuid, status } => {
                self.tell_update(task, agent_id, (*uuid, status), effects);
            }
            Change::ExecutorEnded { agent_id, framework_id, executor_id, status } => {
                if let Some(conn) = self.frameworks.get(framework_id).map(|it| it.conn) {
                    let (agent_id, executor_id) = (agent_id.clone(), executor_id.clone());
                    let event = SchedulerEvent::ExecutorLost { agent_id, executor_id, status: *status };
                    self.tell_one_of_many(conn, event, effects);
                }
            }
            Change::ExecutorUnwanted { agent_id, framework_id, executor_id } => {
                let (framework_id, executor_id) = (framework_id.clone(), executor_id.clone());
                self.order(agent_id, AgentEvent::ShutdownExecutor { framework_id, executor_id }, effects);
            }
            Change::TotalChanged { agent_id, .. } => self.total_changed(registry, agent_id, effects),
            Change::VolumesDestroyed(agent_id) => self.tell_volumes(registry, agent_id, effects),
            Change::OperationDue(operation) => self.operation_due(operation, effects),
            Change::FrameworkRemoved(id) => self.framework_removed(id, effects),
            Change::AgentDisconnected(id, session) => self.end_agent_session(id, *session, effects),
            Change::AgentUnreachable(id) => self.agent_lost(id, effects),
            Change::AgentRemoved(id) => {
                if let Some(it) = self.agents.remove(id) {
                    self.conns.remove(&it.conn);
                    let why = "this agent was marked gone: start it with an empty work directory".into();
                    let event = AgentEvent::Rejected(why);
                    effects.push(Effect::Send(it.conn, Event::Agent { session: it.session, event }));
                    effects.push(Effect::Close(it.conn));
                }
                self.agent_lost(id, effects);
            }
            // Whoever is offered less by it must not sit on what it has; who is offered more gets it at once.
            Change::RoleSettings(role, settings) => {
                let is_used = registry.frameworks().any(|it| it.info.roles.contains(role));
                if is_used || !settings.quota.is_empty() {
                    self.rescind_all(effects);
                }
                self.heed_quotas(registry);
            }
            Change::AgentOfferable { agent_id, offerable: false } => {
                self.rescind_of_agent(agent_id, effects);
            }
            Change::UnavailabilityChanged(id) => {
                self.rescind_of_agent(id, effects);
                self.inverse.forget_agent(id);
            }
            Change::AgentShutDown(id) => {
                if let Some(it) = self.agents.remove(id) {
                    self.conns.remove(&it.conn);
                    let why = "its machine is down for maintenance: start this agent when it is up again";
                    let event = AgentEvent::Rejected(why.into());
                    effects.push(Effect::Send(it.conn, Event::Agent { session: it.session, event }));
                    effects.push(Effect::Close(it.conn));
                }
            }
            Change::TermBegan
            | Change::AgentOfferable { .. }
            | Change::FrameworkSubscribed(_)
            | Change::FrameworkUpdated(_)
            | Change::FrameworkDisconnected(..)
            | Change::AgentAdmitted(_)
            | Change::HeldChanged { .. }
            | Change::TaskCompleted(_) => {}
        }
    }

    fn framework_removed(&mut self, id: &FrameworkId, effects: &mut Vec<Effect>) {
        self.inverse.forget_framework(id);
        let Some(session) = self.frameworks.get(id) else { return };
        let (conn, session) = (session.conn, session.session);
        self.end_framework_session(id, session);
        self.conns.remove(&conn);
        effects.push(Effect::Close(conn));
    }

    fn agent_lost(&mut self, id: &AgentId, effects: &mut Vec<Effect>) {
        self.rescind_of_agent(id, effects);
        self.inverse.forget_agent(id);
        for conn in self.frameworks.values().map(|it| it.conn).collect::<Vec<_>>() {
            self.tell_one_of_many(conn, SchedulerEvent::AgentLost(id.clone()), effects);
        }
    }
}

/// How whoever asked is told what came of it.
fn told(outcome: &Outcome) -> CallOutcome {
    match outcome {
        Outcome::Refused(refusal) => CallOutcome::Refused(refusal.to_string()),
        _ => CallOutcome::Done,
    }
}
