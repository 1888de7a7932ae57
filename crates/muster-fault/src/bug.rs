//! Bugs that can be planted.

use std::fmt;
use std::str::FromStr;

/// A mistake that breaks a promise. Each is made in the one place that keeps the promise otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // `about` says it, to people too
pub enum Bug {
    SkipSync,
    VoteForAll,
    AckBeforeCommit,
    AckLaunchBeforeCommit,
    ForgetOfferTerm,
    DropUpdates,
    RestartLaunch,
    LoseKill,
    StaleReads,
    SkipAfterSnapshot,
    ReorderAfterSnapshot,
    CountTwice,
    ForgetLaunches,
    UnequalReplicas,
    KeepFrameworks,
}

impl Bug {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::SkipSync,
        Self::VoteForAll,
        Self::AckBeforeCommit,
        Self::AckLaunchBeforeCommit,
        Self::ForgetOfferTerm,
        Self::DropUpdates,
        Self::RestartLaunch,
        Self::LoseKill,
        Self::StaleReads,
        Self::SkipAfterSnapshot,
        Self::ReorderAfterSnapshot,
        Self::CountTwice,
        Self::ForgetLaunches,
        Self::UnequalReplicas,
        Self::KeepFrameworks,
    ];

    /// Its name, as it is chosen by.
    pub fn name(self) -> &'static str {
        match self {
            Self::SkipSync => "skip-sync",
            Self::VoteForAll => "vote-for-all",
            Self::AckBeforeCommit => "ack-before-commit",
            Self::AckLaunchBeforeCommit => "ack-launch-before-commit",
            Self::ForgetOfferTerm => "forget-offer-term",
            Self::DropUpdates => "drop-updates",
            Self::RestartLaunch => "restart-launch",
            Self::LoseKill => "lose-kill",
            Self::StaleReads => "stale-reads",
            Self::SkipAfterSnapshot => "skip-after-snapshot",
            Self::ReorderAfterSnapshot => "reorder-after-snapshot",
            Self::CountTwice => "count-twice",
            Self::ForgetLaunches => "forget-launches",
            Self::UnequalReplicas => "unequal-replicas",
            Self::KeepFrameworks => "keep-frameworks",
        }
    }

    /// What is wrong with a process that has it.
    pub fn about(self) -> &'static str {
        match self {
            Self::SkipSync => "the store acknowledges what is not synced",
            Self::VoteForAll => "a replica votes for everybody who asks, twice in a term too",
            Self::AckBeforeCommit => "an agent's update is confirmed before it is committed",
            Self::AckLaunchBeforeCommit => {
                "a framework is told what came of its ACCEPT before that is committed"
            }
            Self::ForgetOfferTerm => "an offer of a former term, or one used before, is taken",
            Self::DropUpdates => "a new leader forgets updates that wait for an acknowledgement",
            Self::RestartLaunch => "an agent starts a launch again when its order comes once more",
            Self::LoseKill => "a kill is answered and not kept",
            Self::StaleReads => "a master that led answers reads without asking whether it still does",
            Self::SkipAfterSnapshot => "the first entry after an installed snapshot is not applied",
            Self::ReorderAfterSnapshot => {
                "entries after an installed snapshot are applied two by two, the later one first"
            }
            Self::CountTwice => "a task's resources are offered again while it runs",
            Self::ForgetLaunches => "a new leader forgets launches that their agent has not accepted",
            Self::UnequalReplicas => "replicas come to states that depend on themselves",
            Self::KeepFrameworks => "a framework whose failover timeout runs out is kept",
        }
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Bug {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = || Self::ALL.iter().map(|bug| bug.name()).collect::<Vec<_>>().join(", ");
        let found = Self::ALL.iter().find(|bug| bug.name() == name);
        found.copied().ok_or_else(|| format!("there is no bug {name:?} to plant; there are {}", known()))
    }
}
