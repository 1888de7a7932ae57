//! Admit, disconnect, lose and forget agents.

use crate::{
    Agent, AgentState, Change, Disconnection, Outcome, Refusal, Registry, Stray, Task, registry::Context,
};
use muster_model::{
    AgentId, Hello, Index, KnownTask, LaunchNumber, LaunchSum, Reason, Resources, Session, TaskState,
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// What a hello's answer gathers.
#[derive(Default)]
struct Answer {
    forget: Vec<LaunchNumber>,
    confirm: Vec<(LaunchNumber, u32)>,
}

impl Registry {
    pub(crate) fn admit_agent(&mut self, hello: &Hello, ip: Option<IpAddr>, to: &mut Context<'_>) -> Outcome {
        self.admit(hello, ip, false, to)
    }

    /// An agent whose tasks go on: none of them is looked at.
    pub(crate) fn admit_as_known(
        &mut self,
        hello: &Hello,
        tasks: LaunchSum,
        ip: Option<IpAddr>,
        to: &mut Context<'_>,
    ) -> Outcome {
        match &hello.agent_id {
            Some(id) if self.are_as_known(id, tasks) => self.admit(hello, ip, true, to),
            _ => Outcome::Refused(Refusal::TasksChanged),
        }
    }

    /// Whether it is nothing new that an agent has these tasks and that they live: the table of `protocol` D15 has nothing
    /// to do for any of them.
    pub fn are_as_known(&self, id: &AgentId, tasks: LaunchSum) -> bool {
        let is_settled = |agent: &Arc<Agent>| {
            let is_away = matches!(agent.state, AgentState::Unreachable { .. } | AgentState::Gone { .. });
            !is_away && agent.strays.is_empty()
        };
        self.agents.get(id).is_some_and(is_settled)
            && self.index.tasks_of_agent.get(id).is_some_and(|its| its.are_settled(tasks))
    }

    fn admit(&mut self, hello: &Hello, ip: Option<IpAddr>, as_known: bool, to: &mut Context<'_>) -> Outcome {
        if let Some(name) = self.down_machine(&hello.info.hostname, ip) {
            return Outcome::Refused(Refusal::MachineDown(name));
        }
        let known = hello.agent_id.as_ref().and_then(|id| self.agents.get(id)).cloned();
        if let Some(agent) = &known {
            if matches!(agent.state, AgentState::Gone { .. }) {
                return Outcome::Refused(Refusal::AgentGone(agent.id.clone()));
            }
            let total = match self.carved.get(&agent.id) {
                Some(carved) => carved.of(&hello.info.resources),
                None => Some(hello.info.resources.clone()),
            };
            if total.is_none_or(|total| !total.contains(&self.held_on(&agent.id))) {
                return Outcome::Refused(Refusal::ResourcesInUse(agent.id.clone()));
            }
        }
        let machine = &hello.info.machine_id;
        if let Some(other) = self.index.agent_of_machine.get(machine).cloned()
            && known.as_ref().is_none_or(|agent| agent.id != other)
        {
            // One machine has one agent: this one came with an empty disk, the old one is no more.
            self.remove_agent(&other, TaskState::Lost, Reason::AgentRemoved, to);
        }
        let id = match &known {
            Some(agent) => agent.id.clone(),
            None => {
                let n = self.header.agents_counted;
                self.header.agents_counted += 1;
                AgentId::new(format!("{}-S{n}", self.header.cluster_id))
            }
        };
        let was_unreachable =
            known.as_ref().is_some_and(|agent| matches!(agent.state, AgentState::Unreachable { .. }));
        if let Some(agent) = &known {
            if let AgentState::Unreachable { since } = agent.state {
                self.index.lost_agents.remove(&(since, agent.id.clone()));
            }
            if agent.info.machine_id != *machine {
                self.index.agent_of_machine.remove(&agent.info.machine_id);
            }
        }
        self.index.agent_of_machine.insert(machine.clone(), id.clone());
        let session = self.next_session();
        let agent = Agent {
            id: id.clone(),
            info: Arc::new(hello.info.clone()),
            sealed: hello.sealed.clone(),
            session,
            state: AgentState::Connected,
            strays: known.as_ref().map(|agent| agent.strays.clone()).unwrap_or_default(),
            registered: known.as_ref().map_or(self.header.wall, |agent| agent.registered),
        };
        let agent = self.agents.put(id.clone(), agent);
        match ip {
            Some(ip) => drop(self.addresses.put(id.clone(), ip)),
            None => drop(self.addresses.remove(&id)),
        }
        to.changes.push(Change::AgentAdmitted(agent.clone()));
        if !self.is_offerable(&id) {
            to.changes.push(Change::AgentOfferable { agent_id: id.clone(), offerable: false });
        }
        if self.carved.contains(&id) {
            let total = self.total_of(&agent).into_owned();
            to.changes.push(Change::TotalChanged { agent_id: id.clone(), total });
        }
        let mut answer = Answer::default();
        if !as_known {
            to.settling = true;
            answer = self.settle(&id, hello, was_unreachable, to);
            to.settling = false;
        }
        Outcome::Admitted {
            low_mark: self.low_mark(&id, to.index),
            agent_id: id,
            session,
            forget: answer.forget,
            confirm: answer.confirm,
        }
    }

    /// The table of `protocol` D15: what the registry has of this agent against what its hello lists.
    fn settle(&mut self, id: &AgentId, hello: &Hello, was_unreachable: bool, to: &mut Context<'_>) -> Answer {
        let mut answer = Answer::default();
        let mut listed: BTreeMap<LaunchNumber, &KnownTask> =
            hello.tasks.iter().map(|task| (task.launch, task)).collect();
        for task in self.copies_of_agent(id) {
            match listed.get(&task.launch).copied() {
                // Let go of before, yet alive: it is held again as a stray until it ends.
                Some(known) if known.alive && !task.held => {}
                Some(known) => {
                    listed.remove(&task.launch);
                    self.settle_listed(task, known, was_unreachable, &mut answer, to);
                }
                None => self.settle_missing(task, was_unreachable, to),
            }
        }
        self.settle_strays(id, listed, &mut answer, to);
        answer
    }

    /// A task of ours that the agent lists.
    fn settle_listed(
        &mut self,
        mut task: Task,
        known: &KnownTask,
        was_unreachable: bool,
        answer: &mut Answer,
        to: &mut Context<'_>,
    ) {
        task.accepted = true;
        let mut updates: Vec<_> =
            known.updates.iter().filter(|update| update.launch == task.launch).collect();
        updates.sort_by_key(|update| update.seq);
        if let Some(last) = updates.last() {
            answer.confirm.push((task.launch, last.seq));
        }
        updates.retain(|update| update.seq > task.last_seq);
        // What its agent tells of it says that it is back, and how it came there: a word of ours would come before that.
        let is_back = was_unreachable && task.state == TaskState::Unreachable && known.alive;
        if is_back && updates.is_empty() {
            let message = "its agent is back";
            self.own_update(&mut task, known.state, Reason::AgentReregistered, message, to);
        }
        for update in updates {
            self.take_update(&mut task, update, to);
        }
        if !known.alive && !task.state.is_terminal() {
            // It ended, and its reports were confirmed once already, or lost with a torn record.
            let message = "the agent has no process of it and no report";
            self.own_update(&mut task, TaskState::Lost, Reason::AgentRestarted, message, to);
        }
        if !known.alive {
            self.let_go(&mut task, to);
        }
        let over = task.state.is_terminal() || task.kill().is_some();
        let ended = !known.alive;
        if ended && known.updates.is_empty() {
            answer.forget.push(task.launch);
        }
        // Most that an agent lists when it comes back is as it is known.
        let same = self.tasks.get(&task.key).filter(|before| ***before == task && !task.is_done()).cloned();
        if let Some(task) = same.or_else(|| self.put_task(task, to))
            && over
            && task.held
        {
            to.changes.push(Change::KillDue(task));
        }
    }

    /// A task of ours that the agent does not list.
    fn settle_missing(&mut self, mut task: Task, was_unreachable: bool, to: &mut Context<'_>) {
        if !task.held {
            return; // it ended and was confirmed: only its framework has to acknowledge
        }
        let order_is_out = task.accepted || was_unreachable;
        if !order_is_out && !task.state.is_terminal() {
            // A kill travels with the order: the agent answers TASK_KILLED without starting it.
            if let Some(task) = self.put_task(task, to) {
                to.changes.push(Change::RunDue(task));
            }
            return;
        }
        if !task.state.is_terminal() {
            let (state, message) = match task.accepted {
                true => (TaskState::Lost, "the agent no longer knows of it"),
                false => (TaskState::Dropped, "it never reached its agent"),
            };
            self.own_update(&mut task, state, Reason::Reconciliation, message, to);
        }
        self.let_go(&mut task, to);
        self.put_task(task, to);
    }

    /// What the agent lists and no live task stands for: the living are killed, held till they end.
    fn settle_strays(
        &mut self,
        id: &AgentId,
        listed: BTreeMap<LaunchNumber, &KnownTask>,
        answer: &mut Answer,
        to: &mut Context<'_>,
    ) {
        let former: Vec<LaunchNumber> =
            self.agents.get(id).map(|agent| agent.strays.keys().copied().collect()).unwrap_or_default();
        for launch in former {
            if listed.get(&launch).is_none_or(|known| !known.alive) {
                self.ended(id, launch, to);
            }
        }
        for (launch, known) in listed {
            if let Some(last) = known.updates.iter().map(|update| update.seq).max() {
                answer.confirm.push((launch, last));
            }
            if !known.alive {
                answer.forget.push(launch);
                continue;
            }
            let stray = Stray { task: known.task.clone(), resources: known.resources.clone() };
            let mut is_new = false;
            self.agents.update(id, |agent| {
                // What it was first listed with is held until it ends, whatever it is listed with later.
                is_new = !agent.strays.contains_key(&launch);
                agent.strays.entry(launch).or_insert(stray);
            });
            if is_new {
                self.hold(id, None, &known.resources, to);
            }
            let (agent_id, task) = (id.clone(), known.task.clone());
            to.changes.push(Change::StrayFound { agent_id, launch, task });
        }
    }

    pub(crate) fn disconnect_agent(
        &mut self,
        id: &AgentId,
        session: Session,
        to: &mut Context<'_>,
    ) -> Outcome {
        let Some(agent) = self.agents.get(id) else {
            return Outcome::Refused(Refusal::UnknownAgent(id.clone()));
        };
        if agent.session != session || !agent.is_connected() {
            return Outcome::Refused(Refusal::StaleSession);
        }
        let disconnection = Disconnection::new(to.index, to.now, self.header.limits.agent_timeout_ms);
        self.agents.update(id, |agent| agent.state = AgentState::Disconnected(disconnection));
        to.changes.push(Change::AgentDisconnected(id.clone(), session));
        Outcome::Done
    }

    pub(crate) fn mark_unreachable(
        &mut self,
        id: &AgentId,
        disconnected: Index,
        to: &mut Context<'_>,
    ) -> Outcome {
        let Some(agent) = self.agents.get(id) else {
            return Outcome::Refused(Refusal::UnknownAgent(id.clone()));
        };
        match agent.state {
            AgentState::Disconnected(it) if it.index == disconnected && it.deadline <= to.now => {}
            AgentState::Disconnected(it) => return Outcome::Refused(Refusal::NotDue(Some(it))),
            _ => return Outcome::Refused(Refusal::NotDue(None)),
        }
        self.agents.update(id, |agent| agent.state = AgentState::Unreachable { since: to.now });
        self.index.lost_agents.insert((to.now, id.clone()));
        to.changes.push(Change::AgentUnreachable(id.clone()));
        let tasks: Vec<_> =
            self.copies_of_agent(id).into_iter().filter(|task| !task.state.is_terminal()).collect();
        for mut task in tasks {
            let message = "its agent does not answer";
            self.own_update(&mut task, TaskState::Unreachable, Reason::AgentRemoved, message, to);
            self.put_task(task, to);
        }
        Outcome::Done
    }

    pub(crate) fn mark_gone(&mut self, id: &AgentId, to: &mut Context<'_>) -> Outcome {
        match self.agents.get(id) {
            None => Outcome::Refused(Refusal::UnknownAgent(id.clone())),
            Some(agent) if matches!(agent.state, AgentState::Gone { .. }) => Outcome::Done,
            Some(_) => {
                self.remove_agent(id, TaskState::GoneByOperator, Reason::AgentRemovedByOperator, to);
                Outcome::Done
            }
        }
    }

    /// An agent ceases to be, and with it all that its tasks and strays held.
    pub(crate) fn remove_agent(
        &mut self,
        id: &AgentId,
        state: TaskState,
        reason: Reason,
        to: &mut Context<'_>,
    ) {
        let Some(agent) = self.agents.get(id).cloned() else { return };
        if let Some(since) = agent.lost_since() {
            self.index.lost_agents.remove(&(since, id.clone()));
        }
        if self.index.agent_of_machine.get(&agent.info.machine_id) == Some(id) {
            self.index.agent_of_machine.remove(&agent.info.machine_id);
        }
        self.duties.remove(id);
        self.addresses.remove(id);
        self.remove_executors(id, to);
        let tasks = self.copies_of_agent(id);
        for mut task in tasks {
            if !task.state.is_terminal() {
                self.own_update(&mut task, state, reason, "its agent is gone", to);
            }
            self.let_go(&mut task, to);
            self.put_task(task, to);
        }
        let strays: Resources =
            agent.strays.values().fold(Resources::none(), |sum, it| sum.plus(&it.resources));
        self.release(id, None, &strays, to);
        self.carved.remove(id);
        self.agents.update(id, |agent| {
            agent.strays.clear();
            agent.state = AgentState::Gone { since: to.now };
        });
        self.index.lost_agents.insert((to.now, id.clone()));
        to.changes.push(Change::AgentRemoved(id.clone()));
    }
}
