//! What comes late.
//!
//! A client opens one stream after the other. When the way to a master stands still, the client goes to another one;
//! what it had said before may still come, and must not begin a session: a hello of then does not list what was
//! started since, and a SUBSCRIBE of then would end the driver as if another had taken its place.

use crate::ConnId;
use muster_model::{FrameworkId, MachineId, Token};
use muster_registry::Registry;
use std::collections::BTreeMap;

/// Entries kept beyond twice what the registry knows.
const SPARE: usize = 64;

/// The newest stream on which each client asked for a session in this term.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    agents: BTreeMap<MachineId, ConnId>,
    frameworks: BTreeMap<FrameworkId, ConnId>,
    /// Frameworks that had no id yet.
    newcomers: BTreeMap<Token, ConnId>,
}

impl Newest {
    /// Whether this machine's agent has said hello on a newer stream; if not, this one is the newest.
    pub(crate) fn is_late_hello(&mut self, registry: &Registry, machine: &MachineId, conn: ConnId) -> bool {
        if self.agents.len() > 2 * registry.agent_count() + SPARE {
            self.agents.retain(|machine, _| registry.agent_of_machine(machine).is_some());
        }
        is_late(&mut self.agents, machine, conn)
    }

    /// Whether this framework has subscribed on a newer stream; if not, this one is the newest.
    pub(crate) fn is_late_subscribe(&mut self, registry: &Registry, id: &FrameworkId, conn: ConnId) -> bool {
        if self.frameworks.len() > 2 * registry.framework_count() + SPARE {
            self.frameworks.retain(|id, _| registry.framework(id).is_some());
        }
        is_late(&mut self.frameworks, id, conn)
    }

    /// The same of a framework that says no id and drew this token: it may have subscribed with it, or with the id that
    /// it got by it.
    pub(crate) fn is_late_first(&mut self, registry: &Registry, token: Token, conn: ConnId) -> bool {
        if self.newcomers.len() > 2 * registry.framework_count() + SPARE {
            self.newcomers.retain(|token, _| registry.framework_of(*token).is_some());
        }
        let known = registry.framework_of(token);
        known.is_some_and(|id| self.is_late_subscribe(registry, id, conn))
            | is_late(&mut self.newcomers, &token, conn)
    }
}

fn is_late<K: Ord + Clone>(newest: &mut BTreeMap<K, ConnId>, key: &K, conn: ConnId) -> bool {
    let newest = newest.entry(key.clone()).or_insert(conn);
    *newest = conn.max(*newest);
    *newest > conn
}
