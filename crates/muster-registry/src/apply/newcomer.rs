//! Clients that come for the first time, and perhaps once more because the answer was lost.

use crate::{AgentState, Client, Newcomer, Outcome, Registry, Subscribe, registry::Context};
use muster_model::{FrameworkId, Hello, Timestamp, Token};
use std::net::IpAddr;

impl Registry {
    pub(crate) fn first_subscribe(
        &mut self,
        token: Token,
        subscribe: &Subscribe,
        to: &mut Context<'_>,
    ) -> Outcome {
        let known = self.framework_of(token).cloned();
        let is_new = known.is_none();
        let outcome = self.subscribe(&Subscribe { framework_id: known, ..subscribe.clone() }, to);
        if is_new && let Outcome::Subscribed { framework_id, .. } = &outcome {
            self.remember_newcomer(token, Client::Framework(framework_id.clone()), to.now);
        }
        outcome
    }

    pub(crate) fn first_hello(
        &mut self,
        token: Token,
        hello: &Hello,
        ip: Option<IpAddr>,
        to: &mut Context<'_>,
    ) -> Outcome {
        let lives = |agent: &crate::Agent| !matches!(agent.state, AgentState::Gone { .. });
        let known = match self.newcomer(token) {
            Some(Client::Agent(id)) if self.agents.get(id).is_some_and(|agent| lives(agent)) => {
                Some(id.clone())
            }
            _ => None,
        };
        let is_new = known.is_none();
        let outcome = self.admit_agent(&Hello { agent_id: known, ..hello.clone() }, ip, to);
        if is_new && let Outcome::Admitted { agent_id, .. } = &outcome {
            self.remember_newcomer(token, Client::Agent(agent_id.clone()), to.now);
        }
        outcome
    }

    /// The framework that came with this token, while it lives.
    pub fn framework_of(&self, token: Token) -> Option<&FrameworkId> {
        match self.newcomer(token)? {
            Client::Framework(id) => self.frameworks.contains(id).then_some(id),
            Client::Agent(_) => None,
        }
    }

    fn newcomer(&self, token: Token) -> Option<&Client> {
        let seq = self.index.newcomers.get(&token)?;
        self.newcomers.get(seq).map(|newcomer| &newcomer.client)
    }

    fn remember_newcomer(&mut self, token: Token, client: Client, at: Timestamp) {
        // What it became before is no more.
        if let Some(former) = self.index.newcomers.get(&token).copied() {
            self.forget_newcomer(former);
        }
        let seq = self.next_seq();
        self.newcomers.put(seq, Newcomer { token, client, at });
        self.index.newcomers.insert(token, seq);
    }

    pub(crate) fn forget_newcomer(&mut self, seq: u64) {
        if let Some(newcomer) = self.newcomers.remove(&seq) {
            self.index.newcomers.remove(&newcomer.token);
        }
    }
}
