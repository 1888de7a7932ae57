//! What is told to a shard, and what it tells.

use muster_model::{AgentId, Attribute, FrameworkId, Resources, Role, Timestamp, Wants};
use muster_registry::{Account, Change, Registry};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// How to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The weight of a role's claim, in thousandths; 1000 where none is given.
    pub weights: BTreeMap<Role, u64>,
    /// How affinity weighs against balance in the placement score, in thousandths.
    pub affinity_weight_milli: u64,
    /// A room with fewer thousandths of a cpu than this ...
    pub min_cpus_milli: u64,
    /// ... and less memory than this many thousandths of a MB is not worth offering.
    pub min_mem_milli: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            weights: BTreeMap::new(),
            affinity_weight_milli: 600,
            min_cpus_milli: 10,
            min_mem_milli: 32_000,
        }
    }
}

impl Policy {
    /// The weight of a role of which nobody says one.
    pub const WEIGHT_MILLI: u64 = 1000;

    /// Whether resources are worth an offer to who says nothing else.
    pub fn is_allocatable(&self, free: &Resources) -> bool {
        free.quantity("cpus") >= self.min_cpus_milli || free.quantity("mem") >= self.min_mem_milli
    }
}

/// What frameworks choose agents by, beside their resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Its host name.
    pub hostname: Arc<str>,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
}

/// What a framework wants offers for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The roles it wants offers in: subscribed and not suppressed.
    pub roles: BTreeSet<Role>,
    /// What it said it needs: only rooms with space for one of these, best score first. Empty = anything.
    pub needs: Vec<Resources>,
    /// What it wants in a role beside.
    pub wants: BTreeMap<Role, Wants>,
    /// Whether it can make use of reservations that refine others (RESERVATION_REFINEMENT).
    pub refined: bool,
    /// Whether it is offered agents that have gpus (GPU_RESOURCES).
    pub gpus: bool,
}

/// Resources of a room for one framework.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Counted by the shard.
    pub n: u64,
    /// To whom.
    pub framework_id: FrameworkId,
    /// In which role.
    pub role: Role,
    /// Of which agent.
    pub agent_id: AgentId,
    /// What.
    pub resources: Arc<Resources>,
}

/// Who got nothing in a pass though something was free, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// Who.
    pub account: Account,
    /// Why.
    pub why: Why,
}

/// Why nothing was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// All that is free is hidden by the framework's filters until the first of them ends.
    Filtered,
    /// Nothing free has space for what it needs.
    NeedsUnmet,
    /// What is free is reserved for other roles, beyond the role's quota, kept for others, too little, or on agents that it
    /// does not want.
    NotForIt,
}

/// What wakes a shard.
#[derive(Debug, Clone)]
pub enum ShardInput {
    /// The registry changed.
    Changed(Arc<Vec<Change>>),
    /// A framework's wishes, or that it has none any more.
    Wish(FrameworkId, Option<Wishes>),
    /// Forget a framework's filters in these roles.
    Revive(FrameworkId, BTreeSet<Role>),
    /// A grant is over: what it held is free but for what the registry holds by now.
    Returned(u64, Option<Refused>),
    /// What stands that other shards have granted to each role, in scalars, of what is not reserved. Told where there are
    /// quotas, as it changes.
    Elsewhere(BTreeMap<Role, Resources>),
    /// Start again from this registry: outstanding grants stay. What the shard sees of it is made by the shard, on its own
    /// thread: with many agents that takes long, and nobody else has to wait for it.
    Reset(Box<Registry>),
}

/// What a framework gave back, and until when it wants nothing the like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What was not used.
    pub resources: Arc<Resources>,
    /// Until when it is not offered again.
    pub until: Timestamp,
}

/// What a shard decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardOutput {
    /// Who gets what.
    pub grants: Vec<Grant>,
    /// Who gets nothing, and why.
    pub passes: Vec<Pass>,
    /// When a filter ends, so that the shard wants to run again.
    pub wake_at: Option<Timestamp>,
}

/// What a framework declined, and until when it is not offered again unless there is something new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) refused: Arc<Resources>,
    pub(crate) until: Timestamp,
}
