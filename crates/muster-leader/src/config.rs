//! What an operator may set.

use muster_allocator::Policy;
use muster_registry::Limits;

/// Settings of the leader's machine. Times in ms of registry time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How many offer loops share the agents.
    pub shards: u32,
    /// How offers are shared out.
    pub policy: Policy,
    /// How long whoever a leader change cut off has at least to come back.
    pub reconnect_grace_ms: u64,
    /// How long an agent that is disconnected may stay away before it is unreachable. It is a replicated limit, which a
    /// leader that begins sets to this where it differs.
    pub agent_timeout_ms: u64,
    /// How long an offer stands before it is taken back.
    pub offer_timeout_ms: u64,
    /// How often schedulers hear that the leader lives.
    pub heartbeat_ms: u64,
    /// How often agents are pinged.
    pub ping_ms: u64,
    /// How many pings in a row an agent may miss before its session is ended.
    pub missed_pings_max: u32,
    /// How many commands may wait for their outcome before calls are answered Busy.
    pub in_flight_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shards: 2,
            policy: Policy::default(),
            reconnect_grace_ms: 60_000,
            agent_timeout_ms: Limits::default().agent_timeout_ms,
            offer_timeout_ms: 60_000,
            heartbeat_ms: 15_000,
            ping_ms: 5_000,
            missed_pings_max: 3,
            in_flight_max: 16_384,
        }
    }
}

impl Config {
    /// The replicated limits as this leader wants them; those that no operator may set stay as they are. The newest
    /// leader's word counts, from its first disconnection on: what is disconnected before keeps its deadline.
    pub(crate) fn limits(&self, now: &Limits) -> Limits {
        Limits { agent_timeout_ms: self.agent_timeout_ms, ..*now }
    }
}

/// A filter never hides agents for longer than this (Mesos: a year).
pub(crate) const REFUSE_MS_MAX: u64 = 31_536_000_000;
/// Time passes in the log at least this often.
pub(crate) const TICK_MS: u64 = 1_000;
