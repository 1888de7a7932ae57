//! Subscribe, disconnect, expire, tear down.

use crate::{
    Change, CompletedFramework, Connection, Disconnection, EventStream, Framework, Kill, Outcome, Refusal,
    Registry, Subscribe, registry::Context,
};
use muster_fault::planted;
use muster_model::{FrameworkId, FrameworkInfo, Index, Role, Session, TaskState, Token};

impl Registry {
    pub(crate) fn subscribe(&mut self, subscribe: &Subscribe, to: &mut Context<'_>) -> Outcome {
        let known = subscribe.framework_id.as_ref();
        if let Some(id) = known
            && self.removed_frameworks.contains(id)
        {
            return Outcome::Refused(Refusal::FrameworkRemoved(id.clone()));
        }
        let former = known.and_then(|id| self.frameworks.get(id)).cloned();
        let mut info = subscribe.info.clone();
        if let Some(former) = &former {
            if former.info.principal != info.principal {
                return Outcome::Refused(Refusal::PrincipalChanged);
            }
            info.user = former.info.user.clone(); // kept from the first subscription on, as Mesos does
        }
        let id = match known {
            // An id that this registry does not know is taken as it is, as Mesos does.
            Some(id) => id.clone(),
            None => self.next_framework_id(),
        };
        self.streams.remove(&id); // a former session's
        let framework = Framework {
            id: id.clone(),
            info,
            suppressed_roles: subscribe.suppressed_roles.clone(),
            session: self.next_session(),
            connection: Connection::Connected,
            registered: former.map_or(self.header.wall, |former| former.registered),
        };
        let framework = self.frameworks.put(id.clone(), framework);
        to.changes.push(Change::FrameworkSubscribed(framework.clone()));
        Outcome::Subscribed { framework_id: id, session: framework.session }
    }

    /// Counts on, past ids that frameworks chose themselves.
    fn next_framework_id(&mut self) -> FrameworkId {
        loop {
            let n = self.header.frameworks_counted;
            self.header.frameworks_counted += 1;
            let id = FrameworkId::new(format!("{}-{n:04}", self.header.cluster_id));
            if !self.frameworks.contains(&id) && !self.removed_frameworks.contains(&id) {
                return id;
            }
        }
    }

    /// Subscribes over an event stream, which is named by the token from now on.
    pub(crate) fn stream_subscribe(
        &mut self,
        token: Token,
        subscribe: &Subscribe,
        to: &mut Context<'_>,
    ) -> Outcome {
        let outcome = match subscribe.framework_id {
            Some(_) => self.subscribe(subscribe, to),
            None => self.first_subscribe(token, subscribe, to),
        };
        if let Outcome::Subscribed { framework_id, session } = &outcome {
            self.streams.put(framework_id.clone(), EventStream { session: *session, token });
        }
        outcome
    }

    /// Takes a new description of a framework in; its session and its event stream stay.
    pub(crate) fn update_framework(
        &mut self,
        id: &FrameworkId,
        info: &FrameworkInfo,
        suppressed_roles: &[Role],
        to: &mut Context<'_>,
    ) -> Outcome {
        let Some(former) = self.frameworks.get(id) else {
            return Outcome::Refused(Refusal::UnknownFramework(id.clone()));
        };
        if former.info.principal != info.principal {
            return Outcome::Refused(Refusal::PrincipalChanged);
        }
        if former.info.user != info.user {
            let (from, to) = (former.info.user.clone(), info.user.clone());
            return Outcome::Refused(Refusal::UserChanged { from, to });
        }
        let framework = Framework {
            info: info.clone(),
            suppressed_roles: suppressed_roles.to_vec(),
            ..(**former).clone()
        };
        let framework = self.frameworks.put(id.clone(), framework);
        to.changes.push(Change::FrameworkUpdated(framework));
        Outcome::Done
    }

    pub(crate) fn disconnect_framework(
        &mut self,
        id: &FrameworkId,
        session: Session,
        to: &mut Context<'_>,
    ) -> Outcome {
        let Some(framework) = self.frameworks.get(id) else {
            return Outcome::Refused(Refusal::UnknownFramework(id.clone()));
        };
        if framework.session != session || !framework.is_connected() {
            return Outcome::Refused(Refusal::StaleSession);
        }
        let disconnection = Disconnection::new(to.index, to.now, framework.info.failover_timeout_ms);
        self.frameworks.update(id, |it| it.connection = Connection::Disconnected(disconnection));
        to.changes.push(Change::FrameworkDisconnected(id.clone(), session));
        Outcome::Done
    }

    pub(crate) fn expire_framework(
        &mut self,
        id: &FrameworkId,
        disconnected: Index,
        to: &mut Context<'_>,
    ) -> Outcome {
        let Some(framework) = self.frameworks.get(id) else {
            return Outcome::Refused(Refusal::UnknownFramework(id.clone()));
        };
        match framework.connection {
            Connection::Disconnected(_) if planted!(KeepFrameworks) => Outcome::Done,
            Connection::Disconnected(it) if it.index == disconnected && it.deadline <= to.now => {
                self.teardown(id, to)
            }
            Connection::Disconnected(it) => Outcome::Refused(Refusal::NotDue(Some(it))),
            Connection::Connected => Outcome::Refused(Refusal::NotDue(None)),
        }
    }

    pub(crate) fn teardown(&mut self, id: &FrameworkId, to: &mut Context<'_>) -> Outcome {
        let Some(framework) = self.frameworks.remove(id) else {
            return Outcome::Refused(match self.removed_frameworks.contains(id) {
                true => Refusal::FrameworkRemoved(id.clone()),
                false => Refusal::UnknownFramework(id.clone()),
            });
        };
        self.streams.remove(id);
        to.changes.push(Change::FrameworkRemoved(id.clone()));
        self.removed_frameworks.put(id.clone(), to.now);
        let completed = CompletedFramework { framework: (*framework).clone(), completed: self.header.wall };
        let seq = self.next_seq();
        self.completed_frameworks.put(seq, completed);
        let tasks: Vec<_> = self.tasks_of_framework(id).cloned().collect();
        for mut task in tasks {
            // Shown as killed, held until the agent reports the end (`protocol` C13).
            if !task.state.is_terminal() {
                task.state = TaskState::Killed;
                task.change(|rest| rest.message = "the framework was removed".into());
                task.updated = self.header.wall;
            }
            task.change(|rest| rest.updates.clear());
            let wanted = task.held && task.kill().is_none();
            if wanted {
                let kill = Kill { index: to.index, grace_ms: None };
                task.change(|rest| rest.kill = Some(kill));
            }
            let agent_id = task.agent_id.clone();
            let task = self.put_task(task, to);
            if let Some(task) = task
                && wanted
                && self.agents.get(&agent_id).is_some_and(|agent| agent.is_connected())
            {
                to.changes.push(Change::KillDue(task));
            }
        }
        self.abandon_executors(id, to);
        self.forget_spent_of(id);
        self.forget_operations_of(id);
        Outcome::Done
    }
}
