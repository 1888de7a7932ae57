//! What agents say.

use crate::{
    ConnId, Effect, Leader,
    leader::{Peer, Waiting, tell},
};
use muster_model::{AgentCall, AgentEvent, Event, RunOrder, SchedulerEvent, Session};
use muster_registry::{Command, Registry, Task};

impl Leader {
    pub(crate) fn agent_call(
        &mut self,
        conn: ConnId,
        session: Session,
        call: AgentCall,
        effects: &mut Vec<Effect>,
    ) {
        if let AgentCall::Hello(hello) = call {
            if matches!(self.conns.get(&conn), Some(Peer::Arriving)) {
                return; // one hello is on its way already
            }
            self.conns.insert(conn, Peer::Arriving);
            return self.propose(Command::AdmitAgent(Box::new(hello)), Waiting::Hello { conn }, effects);
        }
        let Some(Peer::Agent(agent_id, current)) = self.conns.get(&conn).cloned() else { return };
        if session != current || self.agents.get(&agent_id).is_none_or(|it| it.session != session) {
            return; // a late word of an older session changes nothing
        }
        // Updates are not refused for being many: beyond twice the limit the agent is cut off and repeats all.
        if self.waiting.len() >= 2 * self.config.in_flight_max {
            effects.push(Effect::Close(conn));
            return;
        }
        match call {
            AgentCall::Hello(_) => {}
            AgentCall::Accepted(launches) => {
                self.propose(Command::Accepted { agent_id, launches }, Waiting::Nobody, effects);
            }
            AgentCall::Status(update) => {
                let (launch, seq) = (update.launch, update.seq);
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
                if let Some(to) = self.frameworks.get(&framework_id) {
                    tell(to.conn, SchedulerEvent::Message { agent_id, executor_id, data }, effects);
                }
            }
        }
    }

    pub(crate) fn order(
        &self,
        agent_id: &muster_model::AgentId,
        event: AgentEvent,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(to) = self.agents.get(agent_id) {
            effects.push(Effect::Send(to.conn, Event::Agent { session: to.session, event }));
        }
    }

    pub(crate) fn order_run(&self, registry: &Registry, task: &Task, effects: &mut Vec<Effect>) {
        let framework = registry.framework(&task.key.framework_id);
        let order = RunOrder {
            launch: task.launch,
            task: task.key.clone(),
            resources: task.resources.clone(),
            grace_ms: task.grace_ms,
            user: framework.map_or_else(|| "".into(), |framework| framework.info.user.clone()),
            killed: task.kill.is_some() || framework.is_none(),
            sealed: task.sealed.clone(),
        };
        self.order(&task.agent_id, AgentEvent::Run(Box::new(order)), effects);
    }
}
