//! What schedulers call.

use crate::{
    ConnId, Effect, Leader,
    config::REFUSE_MS_MAX,
    leader::{Accepting, FrameworkSession, Peer, Waiting, answer, tell},
    offer::Outstanding,
};
use muster_allocator::{Refused, Wishes};
use muster_fault::planted;
use muster_model::{
    AcceptOutcome, AgentEvent, AgentId, BadTask, CallOutcome, Event, FrameworkId, Index, Named, OfferId,
    OperationBecame, OperationId, OperationOutcome, Reason, RefusedTask, Resources, Role, SchedulerCall,
    SchedulerEvent, Sealed, Source, Status, TaskId, TaskKey, TaskOutcome, TaskSpec, TaskState, Timestamp,
    Token, WallTime,
};
use muster_registry::{Command, Connection, Entry, Launch, OperateOutcome, Outcome, Registry, Subscribe};
use std::{collections::BTreeSet, sync::Arc};

/// What a caller is told whose framework holds no stream (Mesos v1).
const NOT_SUBSCRIBED: &str = "Framework is not subscribed";

impl Leader {
    pub(crate) fn scheduler_call(
        &mut self,
        now: Timestamp,
        registry: &Registry,
        conn: ConnId,
        id: u64,
        call: SchedulerCall,
        effects: &mut Vec<Effect>,
    ) {
        if let SchedulerCall::Refused { tasks, operations } = call {
            // Nothing is asked of the log, so it has not to wait for it.
            return self.tell_refused(registry, conn, tasks, operations, effects);
        }
        if self.is_busy() {
            return answer(conn, id, CallOutcome::Busy, effects);
        }
        if let SchedulerCall::Subscribe { framework_id, token, stream, info, suppressed_roles, wants } = call
        {
            if matches!(self.conns.get(&conn), Some(Peer::Arriving)) {
                // A client that heard of two leaders in a row answers both: the first SUBSCRIBE to arrive is
                // carried out, and what it leads to answers the second as well.
                return;
            }
            if framework_id.is_none() && self.is_subscribed(registry, conn) {
                // The second of those two, come late: it would make a second framework of one scheduler.
                return answer(conn, id, CallOutcome::Done, effects);
            }
            let is_late = match (&framework_id, token) {
                (Some(id), _) => self.newest.is_late_subscribe(registry, id, conn),
                (None, Some(token)) => self.newest.is_late_first(registry, token, conn),
                (None, None) => false,
            };
            if is_late {
                // Another scheduler whose SUBSCRIBE was merely overtaken dials again.
                return effects.push(Effect::Close(conn));
            }
            // A stream that subscribes again begins anew: its former session ends with the new one's commit.
            self.conns.insert(conn, Peer::Arriving);
            let suppressed = suppressed_roles.iter().cloned().collect();
            let subscribe = Subscribe { framework_id, info, suppressed_roles };
            let is_first = subscribe.framework_id.is_none();
            let command = match token {
                Some(token) if stream => Command::StreamSubscribe(token, subscribe),
                Some(token) if is_first => Command::FirstSubscribe(token, subscribe),
                _ => Command::Subscribe(subscribe),
            };
            let waiting = Waiting::Subscribe { conn, call: id, suppressed, wants: wants.by_role };
            return self.propose(command, waiting, effects);
        }
        let framework_id = match self.conns.get(&conn) {
            Some(Peer::Framework(framework_id, _) | Peer::Caller(framework_id, _)) => framework_id.clone(),
            // It subscribes again, and what it calls meanwhile may be in the log already: it is not refused.
            Some(Peer::Arriving) => return answer(conn, id, CallOutcome::Busy, effects),
            _ => {
                self.counts.dropped += 1;
                return answer(conn, id, CallOutcome::Refused("subscribe first".into()), effects);
            }
        };
        if !self.is_subscribed(registry, conn) {
            self.counts.dropped += 1;
            let why = "another scheduler of this framework subscribed".into();
            return answer(conn, id, CallOutcome::Refused(why), effects);
        }
        match call {
            SchedulerCall::Subscribe { .. } | SchedulerCall::Refused { .. } => {}
            SchedulerCall::Accept { offer_ids, tasks, named, bad, refuse_ms } => {
                let asked = Asked { tasks, named, bad };
                let refuse_ms = refuse_ms.min(REFUSE_MS_MAX);
                self.accept(
                    now,
                    registry,
                    conn,
                    id,
                    framework_id.clone(),
                    offer_ids,
                    asked,
                    refuse_ms,
                    effects,
                );
                self.hurry(&framework_id, effects);
            }
            SchedulerCall::Operate { offer_ids, operations, refuse_ms } => {
                let refuse_ms = refuse_ms.min(REFUSE_MS_MAX);
                let whose = framework_id.clone();
                self.operate(registry, conn, id, whose, offer_ids, operations, refuse_ms, effects);
                self.hurry(&framework_id, effects);
            }
            SchedulerCall::Decline { offer_ids, refuse_ms } => {
                self.decline(now, &framework_id, &offer_ids, refuse_ms.min(REFUSE_MS_MAX));
                answer(conn, id, CallOutcome::Done, effects);
                self.hurry(&framework_id, effects);
            }
            SchedulerCall::AnswerInverse { offer_ids, accepted, refuse_ms } => {
                let until = now.plus_ms(refuse_ms.min(REFUSE_MS_MAX));
                let at = registry.wall();
                offer_ids.iter().for_each(|id| self.inverse.answered(&framework_id, id, accepted, at, until));
                answer(conn, id, CallOutcome::Done, effects);
            }
            SchedulerCall::Revive { roles } => {
                self.inverse.revive(&framework_id);
                let outcome = self.suppress(&framework_id, roles, false);
                answer(conn, id, outcome, effects);
            }
            SchedulerCall::Suppress { roles } => {
                let outcome = self.suppress(&framework_id, roles, true);
                answer(conn, id, outcome, effects);
            }
            SchedulerCall::Kill { task_id, agent_id: _, grace_ms } => {
                let task = TaskKey { framework_id, task_id: task_id.clone() };
                let waiting = Waiting::Kill { conn, call: id, task_id };
                self.propose(Command::Kill { task, grace_ms }, waiting, effects);
            }
            SchedulerCall::Acknowledge { task_id, uuid } => {
                let task = TaskKey { framework_id, task_id };
                let waiting = Waiting::Acknowledge { conn, call: id, operation: false };
                self.propose(Command::Acknowledge { task, uuid }, waiting, effects);
            }
            SchedulerCall::AcknowledgeOperation { operation_id, uuid } => {
                let command = Command::AcknowledgeOperation { framework_id, operation_id, uuid };
                self.propose(command, Waiting::Acknowledge { conn, call: id, operation: true }, effects);
            }
            SchedulerCall::Reconcile { .. } | SchedulerCall::ReconcileOperations { .. }
                if self.is_told_much(conn) =>
            {
                answer(conn, id, CallOutcome::Busy, effects);
            }
            SchedulerCall::Reconcile { tasks } => {
                // Answered from a registry that has applied an entry of now: so the answer is current.
                self.propose(Command::Tick, Waiting::Reconcile { conn, call: id, tasks }, effects);
            }
            SchedulerCall::ReconcileOperations { operations } => {
                let waiting = Waiting::ReconcileOperations { conn, call: id, operations };
                self.propose(Command::Tick, waiting, effects);
            }
            SchedulerCall::Request { needs } => {
                if let Some(session) = self.frameworks.get_mut(&framework_id) {
                    session.needs = needs;
                }
                self.wish(&framework_id);
                answer(conn, id, CallOutcome::Done, effects);
            }
            SchedulerCall::Shutdown { agent_id, executor_id } => {
                // Without a word of it where the agent is away, as in Mesos.
                self.order(&agent_id, AgentEvent::ShutdownExecutor { framework_id, executor_id }, effects);
                answer(conn, id, CallOutcome::Done, effects);
            }
            SchedulerCall::Message { agent_id, executor_id, data } => {
                let to = self.agents.get(&agent_id);
                self.counts.messages_down.count(to.is_some());
                let outcome = match to {
                    None => CallOutcome::Refused(format!("agent {agent_id} is not connected")),
                    Some(to) => {
                        let event = AgentEvent::Message { framework_id, executor_id, data };
                        effects.push(Effect::Send(to.conn, Event::Agent { session: to.session, event }));
                        CallOutcome::Done
                    }
                };
                answer(conn, id, outcome, effects);
            }
            SchedulerCall::Update { info, suppressed_roles, wants } => {
                let Some(session) = registry.framework(&framework_id).map(|it| it.session) else {
                    return answer(conn, id, CallOutcome::Refused(NOT_SUBSCRIBED.into()), effects);
                };
                let command =
                    Command::UpdateFramework { framework_id: framework_id.clone(), info, suppressed_roles };
                let wants = wants.by_role;
                let waiting = Waiting::Update { conn, call: id, framework_id, session, wants };
                self.propose(command, waiting, effects);
            }
            SchedulerCall::Teardown => {
                self.propose(Command::Teardown { framework_id }, Waiting::Call { conn, call: id }, effects);
            }
        }
    }

    /// Tells a framework of what was refused of its ACCEPT before that came here.
    fn tell_refused(
        &self,
        registry: &Registry,
        conn: ConnId,
        tasks: Vec<RefusedTask>,
        operations: Vec<(OperationId, Arc<str>)>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Peer::Framework(framework_id, _) | Peer::Caller(framework_id, _)) = self.conns.get(&conn)
        else {
            return;
        };
        let Some(session) = self.frameworks.get(framework_id).filter(|_| self.is_subscribed(registry, conn))
        else {
            return;
        };
        for RefusedTask { task_id, agent_id, reason, why } in tasks {
            let status = master_status(TaskState::Error, reason, &why);
            let event = SchedulerEvent::Update { task_id, agent_id, status, uuid: None };
            tell(session.conn, event, effects);
        }
        let refused = |(id, why)| OperationOutcome { id: Some(id), became: OperationBecame::Refused(why) };
        let operations: Vec<_> = operations.into_iter().map(refused).collect();
        self.tell_operations(registry, framework_id, &operations, effects);
    }

    /// Whether the stream is that of a framework's newest session, or calls for it.
    fn is_subscribed(&self, registry: &Registry, conn: ConnId) -> bool {
        match self.conns.get(&conn) {
            Some(Peer::Framework(framework_id, session)) => {
                self.frameworks.get(framework_id).is_some_and(|it| it.session == *session)
            }
            Some(Peer::Caller(framework_id, session)) => {
                registry.framework(framework_id).is_some_and(|it| it.session == *session)
            }
            _ => false,
        }
    }

    /// Takes in who calls for a session whose own stream is elsewhere, or ended with the leader before this one
    /// (`protocol` E23). A session whose stream ended in this term is over until the framework subscribes again.
    pub(crate) fn resume(
        &mut self,
        registry: &Registry,
        conn: ConnId,
        framework_id: FrameworkId,
        stream: Token,
    ) -> CallOutcome {
        let session = registry.stream_session(&framework_id, stream);
        let goes_on = registry.framework(&framework_id).is_some_and(|it| match it.connection {
            Connection::Connected => true,
            Connection::Disconnected(disconnection) => disconnection.index == self.began,
        });
        match session {
            Some(session) if goes_on && !self.conns.contains_key(&conn) => {
                self.conns.insert(conn, Peer::Caller(framework_id, session));
                CallOutcome::Done
            }
            _ => CallOutcome::Refused(NOT_SUBSCRIBED.into()),
        }
    }

    /// Tells the shards what a framework wants by now.
    pub(crate) fn wish(&mut self, id: &FrameworkId) {
        let Some(session) = self.frameworks.get(id) else { return };
        let wishes = Wishes {
            roles: session.wanted_roles(),
            needs: session.needs.clone(),
            wants: session.wants.clone(),
            refined: session.capabilities.reservation_refinement,
            gpus: session.capabilities.gpu_resources,
        };
        self.shards.wish(id, Some(wishes));
    }

    fn suppress(&mut self, id: &FrameworkId, roles: Vec<Role>, suppress: bool) -> CallOutcome {
        let Some(session) = self.frameworks.get_mut(id) else { return CallOutcome::Done };
        let roles: BTreeSet<Role> =
            if roles.is_empty() { session.roles.clone() } else { roles.into_iter().collect() };
        if let Some(role) = roles.difference(&session.roles).next() {
            return CallOutcome::Refused(format!("role {role} is not one of the framework's roles"));
        }
        if suppress {
            session.suppressed.extend(roles);
        } else {
            session.suppressed.retain(|role| !roles.contains(role));
            self.shards.revive(id, &roles);
        }
        self.wish(id);
        CallOutcome::Done
    }

    fn decline(&mut self, now: Timestamp, id: &FrameworkId, offer_ids: &[OfferId], refuse_ms: u64) {
        for offer_id in offer_ids {
            if self.offers.get(offer_id).is_none_or(|it| it.offer.framework_id != *id) {
                continue;
            }
            let Some(outstanding) = self.offers.take(offer_id) else { continue };
            let refused = refused(now, outstanding.offer.resources.clone(), refuse_ms);
            self.shards.returned(&outstanding, refused);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn accept(
        &mut self,
        now: Timestamp,
        registry: &Registry,
        conn: ConnId,
        call: u64,
        framework_id: FrameworkId,
        offer_ids: Vec<OfferId>,
        asked: Asked,
        refuse_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let standing = self.standing(&framework_id, &offer_ids);
        if !standing.is_empty() && asked.tasks.is_empty() && asked.bad.is_empty() {
            self.decline(now, &framework_id, &offer_ids, refuse_ms);
            return answer(conn, call, CallOutcome::Accepted(AcceptOutcome::default()), effects);
        }
        let forgiven = planted!(ForgetOfferTerm)
            .then(|| asked.named.first().map(|named| named.agent_id.clone()))
            .flatten();
        let Some(Taken { offers, agent_id, role }) = self.take_offers(&standing, &offer_ids, forgiven) else {
            let outcome = self.accept_void(registry, &framework_id, &offer_ids, asked);
            return self.tell_accepted(conn, call, &framework_id, None, outcome, effects);
        };
        let mut offered =
            offers.iter().fold(Resources::none(), |sum, outstanding| sum.plus(&outstanding.offer.resources));
        if planted!(ForgetOfferTerm)
            && offers.is_empty()
            && let Some(agent) = registry.agent(&agent_id)
        {
            offered = agent.info.resources.clone();
        }
        let Asked { tasks, bad, .. } = asked.on(&framework_id, &agent_id);
        let launch = Launch {
            framework_id: framework_id.clone(),
            agent_id: agent_id.clone(),
            role,
            offer_ids,
            offered: offered.clone(),
            tasks: tasks.clone(),
        };
        let (consumed, kinds) = (Vec::new(), Vec::new());
        let accepting = Accepting {
            conn,
            call,
            framework_id,
            agent_id,
            offers,
            offered,
            tasks,
            consumed,
            kinds,
            refuse_ms,
        };
        let command = if bad.is_empty() { Command::Launch(launch) } else { Command::LaunchSome(launch, bad) };
        if planted!(AckLaunchBeforeCommit) {
            self.answer_ahead(now, registry, conn, call, &command, effects);
        }
        self.propose(command, Waiting::Accept(Box::new(accepting)), effects);
    }

    /// A planted bug: answers an ACCEPT as if it came out of the log next.
    fn answer_ahead(
        &self,
        now: Timestamp,
        registry: &Registry,
        conn: ConnId,
        call: u64,
        command: &Command,
        effects: &mut Vec<Effect>,
    ) {
        let commands = vec![command.clone()];
        let entry = Entry { term: self.term, at: now, commands, ..Entry::default() };
        let next = Index(registry.applied().0 + 1);
        let outcomes = registry.clone().apply(next, self.term, &entry).outcomes;
        if let Some(Outcome::Launched(outcome)) = outcomes.into_iter().next() {
            answer(conn, call, CallOutcome::Accepted(outcome), effects);
        }
    }

    /// Takes the offers of an ACCEPT away that stand; none if none do. Of those whose ACCEPT is undecided, and of those that
    /// are forgiven, the agent alone is known: the log has the answer, or will have it before this command.
    pub(crate) fn take_offers(
        &mut self,
        standing: &[Outstanding],
        offer_ids: &[OfferId],
        forgiven: Option<AgentId>,
    ) -> Option<Taken> {
        let Some(first) = standing.first() else {
            let undecided = offer_ids.iter().find_map(|id| self.offers.accepting(id)).cloned();
            let agent_id = undecided.or(forgiven)?;
            return Some(Taken { offers: Vec::new(), agent_id, role: Role::any() });
        };
        let (agent_id, role) = (first.offer.agent_id.clone(), first.offer.role.clone());
        let offers = offer_ids.iter().filter_map(|id| self.offers.take(id)).collect::<Vec<_>>();
        offers.iter().for_each(|outstanding| self.offers.begin_accept(outstanding));
        Some(Taken { offers, agent_id, role })
    }

    /// The offers, if all of them stand, are this framework's, and are of one agent and role; else none.
    pub(crate) fn standing(&self, framework_id: &FrameworkId, offer_ids: &[OfferId]) -> Vec<Outstanding> {
        let unique: BTreeSet<_> = offer_ids.iter().collect();
        let found: Vec<_> = unique.iter().filter_map(|id| self.offers.get(id)).cloned().collect();
        let alike = found.iter().all(|it| {
            it.offer.framework_id == *framework_id
                && it.offer.agent_id == found[0].offer.agent_id
                && it.offer.role == found[0].offer.role
        });
        if alike && found.len() == offer_ids.len() { found } else { Vec::new() }
    }

    /// An ACCEPT whose offers do not stand: answered from the memory of spent offers, else void (`protocol` C10).
    fn accept_void(
        &mut self,
        registry: &Registry,
        framework_id: &FrameworkId,
        offer_ids: &[OfferId],
        asked: Asked,
    ) -> AcceptOutcome {
        self.give_back(framework_id, offer_ids);
        let launch = Launch {
            framework_id: framework_id.clone(),
            agent_id: AgentId::new(""),
            role: Role::any(),
            offer_ids: offer_ids.to_vec(),
            offered: Resources::none(),
            tasks: asked.tasks,
        };
        if let Some(outcome) = registry.remembered(&launch, &asked.bad) {
            return outcome;
        }
        let tasks = BadTask::among(&asked.bad, launch.task_ids());
        AcceptOutcome { tasks: tasks.map(|asked| void_task(registry, framework_id, asked)).collect() }
    }

    /// Gives back those of a framework's offers that stand, without a filter.
    pub(crate) fn give_back(&mut self, framework_id: &FrameworkId, offer_ids: &[OfferId]) {
        for offer_id in offer_ids {
            if self.offers.get(offer_id).is_some_and(|it| it.offer.framework_id == *framework_id)
                && let Some(outstanding) = self.offers.take(offer_id)
            {
                self.shards.returned(&outstanding, None);
            }
        }
    }

    /// An ACCEPT came out of the log: what is left of its offers goes back.
    pub(crate) fn accepted(
        &mut self,
        now: Timestamp,
        registry: &Registry,
        mut accepting: Accepting,
        outcome: Result<OperateOutcome, String>,
        effects: &mut Vec<Effect>,
    ) {
        let left = match &outcome {
            Ok(outcome) => accepting.left(&outcome.tasks, &outcome.operations),
            Err(_) => std::mem::take(&mut accepting.offered),
        };
        let mut refused = refused(now, left.into(), accepting.refuse_ms);
        for outstanding in &accepting.offers {
            self.offers.end_accept(&outstanding.offer.offer_id);
            self.shards.returned(outstanding, refused.take());
        }
        let Accepting { conn, call, framework_id, agent_id, .. } = accepting;
        match outcome {
            Ok(outcome) => {
                let done = |it: &OperationOutcome| matches!(it.became, OperationBecame::Finished(_));
                // Those that are done now are told of by their change.
                let refused: Vec<_> = outcome.operations.into_iter().filter(|it| !done(it)).collect();
                self.tell_operations(registry, &framework_id, &refused, effects);
                self.tell_accepted(conn, call, &framework_id, Some(agent_id), outcome.tasks, effects);
            }
            Err(why) => answer(conn, call, CallOutcome::Refused(why), effects),
        }
    }

    /// Answers an ACCEPT; a caller that asked for no answer is told of refused tasks by updates.
    pub(crate) fn tell_accepted(
        &self,
        conn: ConnId,
        call: u64,
        framework_id: &FrameworkId,
        agent_id: Option<AgentId>,
        outcome: AcceptOutcome,
        effects: &mut Vec<Effect>,
    ) {
        if call != 0 {
            answer(conn, call, CallOutcome::Accepted(outcome.clone()), effects);
        }
        // A caller has no stream of its own on which it could be told.
        if call != 0 && !matches!(self.conns.get(&conn), Some(Peer::Caller(..))) {
            return;
        }
        let Some(session) = self.frameworks.get(framework_id) else { return };
        for (task_id, became) in outcome.tasks {
            if let TaskOutcome::Refused { state, reason, message } = became {
                let status = session.shown(master_status(state, reason, &message));
                let agent_id = agent_id.clone();
                let event = SchedulerEvent::Update { task_id, agent_id, status, uuid: None };
                tell(session.conn, event, effects);
            }
        }
    }
}

/// Offers that an ACCEPT uses up: none for a repetition.
pub(crate) struct Taken {
    pub(crate) offers: Vec<Outstanding>,
    pub(crate) agent_id: AgentId,
    pub(crate) role: Role,
}

/// What becomes of a task of an ACCEPT whose offers do not stand.
pub(crate) fn void_task(
    registry: &Registry,
    framework_id: &FrameworkId,
    asked: Result<&TaskId, &BadTask>,
) -> (TaskId, TaskOutcome) {
    let task_id = asked.unwrap_or_else(|bad| &bad.task_id).clone();
    let key = TaskKey { framework_id: framework_id.clone(), task_id: task_id.clone() };
    let outcome = match registry.task(&key) {
        Some(task) => TaskOutcome::Launched(task.launch),
        None => TaskOutcome::Refused {
            state: TaskState::Dropped,
            reason: Reason::InvalidOffers,
            message: "the offer is no longer valid: wait for the next one".into(),
        },
    };
    (task_id, outcome)
}

/// The tasks that an ACCEPT asks for.
pub(crate) struct Asked {
    pub(crate) tasks: Vec<TaskSpec>,
    /// What they name, in their order, or nothing.
    pub(crate) named: Vec<Named>,
    pub(crate) bad: Vec<BadTask>,
}

impl Asked {
    /// On offers of this agent: tasks that name another one are bad, too, and those whose executor another framework has.
    pub(crate) fn on(self, framework_id: &FrameworkId, agent_id: &AgentId) -> Self {
        let is_ours = |named: &Named| named.framework_id.as_ref().is_none_or(|it| it == framework_id);
        if self.named.iter().all(|named| named.agent_id == *agent_id && is_ours(named)) {
            return self;
        }
        let (mut tasks, mut bad) = (Vec::new(), Vec::new());
        let good = self.tasks.into_iter().zip(self.named);
        for (at, asked) in (0..).zip(BadTask::among(&self.bad, good)) {
            match asked {
                Ok((spec, named)) if named.agent_id == *agent_id && is_ours(&named) => tasks.push(spec),
                Ok((TaskSpec { task_id, .. }, named)) => {
                    let why = match named.framework_id.filter(|it| it != framework_id) {
                        Some(other) => format!(
                            "ExecutorInfo has an invalid FrameworkID (Actual: {other} vs Expected: {framework_id})"
                        ),
                        None => format!(
                            "task {task_id} names agent {}, but the offers are of agent {agent_id}",
                            named.agent_id
                        ),
                    };
                    bad.push(BadTask { at, task_id, why: why.into() });
                }
                Err(known) => bad.push(known.clone()),
            }
        }
        Self { tasks, named: Vec::new(), bad }
    }
}

impl FrameworkSession {
    fn wanted_roles(&self) -> BTreeSet<Role> {
        self.roles.difference(&self.suppressed).cloned().collect()
    }

    /// A status as this framework is shown it.
    pub(crate) fn shown(&self, mut status: Status) -> Status {
        if !self.capabilities.partition_aware {
            status.state = status.state.for_partition_unaware();
        }
        status
    }
}

pub(crate) fn refused(now: Timestamp, resources: Arc<Resources>, refuse_ms: u64) -> Option<Refused> {
    (refuse_ms > 0).then(|| Refused { resources, until: now.plus_ms(refuse_ms) })
}

pub(crate) fn master_status(state: TaskState, reason: Reason, message: &str) -> Status {
    Status {
        state,
        source: Source::Master,
        reason: Some(reason),
        message: message.into(),
        wall: WallTime(0),
        sealed: Sealed::default(),
    }
}
