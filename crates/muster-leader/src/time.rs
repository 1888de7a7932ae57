//! Deadlines. One that fires is not obeyed here: it proposes a command, and the log decides.

use crate::{
    Config, Effect, Leader,
    config::TICK_MS,
    leader::{Waiting, tell},
};
use muster_model::{AgentEvent, AgentId, Event, SchedulerEvent, Timestamp};
use muster_registry::{AgentState, Command, Connection, Registry};
use std::collections::VecDeque;

/// Agents are pinged in so many parts, spread over the time between two pings: what tens of thousands answer at once would
/// keep everything else waiting.
const PING_PARTS: usize = 50;
/// No part is smaller than this.
const PING_PART_MIN: usize = 64;

/// How much of what is overdue is proposed at a look, and so in a second: of each agent that is lost every framework is
/// told, and of all of its tasks.
const OVERDUE_MAX: usize = 2_000;

/// When what is next due.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// Registry time of the newest applied entry.
    pub(crate) applied_at: Timestamp,
    pub(crate) tick_waits: bool,
    next_heartbeat: Timestamp,
    /// The next part of them.
    next_ping: Timestamp,
    /// Who is to be pinged before a new round begins, how many at a time, and when it does.
    to_ping: VecDeque<AgentId>,
    ping_part: usize,
    next_ping_round: Timestamp,
    next_look: Timestamp,
}

impl Timers {
    pub(crate) fn begin(&mut self, now: Timestamp, config: &Config) {
        self.next_heartbeat = now.plus_ms(config.heartbeat_ms);
        self.next_ping = now.plus_ms(config.ping_ms);
        self.next_look = now.plus_ms(TICK_MS);
    }
}

impl Leader {
    /// When the machine wants to be woken, in registry time. None before it serves.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let timers = &self.timers;
        let tick = (!timers.tick_waits).then(|| timers.applied_at.plus_ms(TICK_MS));
        let fixed = [timers.next_heartbeat, timers.next_ping, timers.next_look].into_iter();
        let fixed = fixed
            .chain(self.confirms_due.front().map(|(due, _)| *due))
            .chain(self.lingering.next_due())
            .chain(self.recitals.next_due());
        let all = fixed.chain(tick).chain(self.offers.next_deadline()).chain(self.shards.next_wake());
        if self.serving { all.min() } else { None }
    }

    pub(crate) fn wake(&mut self, now: Timestamp, registry: &Registry, effects: &mut Vec<Effect>) {
        if !self.serving {
            return;
        }
        if !self.timers.tick_waits && now.since_ms(self.timers.applied_at) >= TICK_MS {
            self.timers.tick_waits = true;
            self.propose(Command::Tick, Waiting::Tick, effects);
        }
        if self.timers.next_heartbeat <= now {
            self.timers.next_heartbeat = now.plus_ms(self.config.heartbeat_ms);
            for session in self.frameworks.values() {
                tell(session.conn, SchedulerEvent::Heartbeat, effects);
            }
        }
        if self.timers.next_ping <= now {
            self.ping(now, effects);
        }
        if self.timers.next_look <= now {
            self.timers.next_look = now.plus_ms(TICK_MS);
            self.look_for_deadlines(now, registry, effects);
            self.look_at_inverse(now, registry, effects);
        }
        self.tell_due_confirms(now, effects);
        self.send_due_offers(now, effects);
        self.tell_due_parts(now, registry, effects);
        while let Some(outstanding) = self.offers.take_due(now) {
            self.tell_rescinded(&outstanding.offer, effects);
            self.shards.returned(&outstanding, None);
        }
    }

    fn ping(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let (timers, ping_ms) = (&mut self.timers, self.config.ping_ms);
        if timers.to_ping.is_empty() {
            timers.to_ping = self.agents.keys().cloned().collect();
            timers.ping_part = timers.to_ping.len().div_ceil(PING_PARTS).max(PING_PART_MIN);
            timers.next_ping_round = now.plus_ms(ping_ms);
        }
        let part = timers.ping_part.min(timers.to_ping.len());
        let due: Vec<_> = timers.to_ping.drain(..part).collect();
        // Never sooner than that, however late this one is: who is pinged has the time to answer.
        timers.next_ping = now.plus_ms(ping_ms / PING_PARTS as u64);
        if timers.to_ping.is_empty() {
            timers.next_ping = timers.next_ping.max(timers.next_ping_round);
        }
        let mut silent = Vec::new();
        for id in due {
            let Some(it) = self.agents.get_mut(&id) else { continue };
            if it.missed >= self.config.missed_pings_max {
                silent.push((id, it.session, it.conn));
                continue;
            }
            it.pings += 1;
            it.missed += 1;
            let event = AgentEvent::Ping(it.pings);
            effects.push(Effect::Send(it.conn, Event::Agent { session: it.session, event }));
        }
        for (agent_id, session, conn) in silent {
            self.conns.remove(&conn);
            effects.push(Effect::Close(conn));
            self.end_agent_session(&agent_id, session, effects);
            self.propose(Command::DisconnectAgent { agent_id, session }, Waiting::Nobody, effects);
        }
    }

    /// Proposes what is overdue, as much as there is room for; the rest at the next looks. Apply refuses what was proposed
    /// twice.
    fn look_for_deadlines(&mut self, now: Timestamp, registry: &Registry, effects: &mut Vec<Effect>) {
        let mut room = self.config.in_flight_max.saturating_sub(self.waiting.len()).min(OVERDUE_MAX);
        for framework in registry.frameworks() {
            if let Connection::Disconnected(it) = framework.connection
                && it.deadline <= now
                && room > 0
            {
                room -= 1;
                let (framework_id, disconnected) = (framework.id.clone(), it.index);
                let command = Command::ExpireFramework { framework_id, disconnected };
                self.propose(command, Waiting::Nobody, effects);
            }
        }
        for agent in registry.agents() {
            if let AgentState::Disconnected(it) = agent.state
                && it.deadline <= now
                && room > 0
            {
                room -= 1;
                let (agent_id, disconnected) = (agent.id.clone(), it.index);
                self.propose(Command::MarkUnreachable { agent_id, disconnected }, Waiting::Nobody, effects);
            }
        }
    }
}
