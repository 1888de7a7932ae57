//! What operators set for roles.

use muster_model::Resources;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Roles that may have settings.
pub const ROLES_MAX: usize = 10_000;

/// How a role shares with others. One with nothing set has none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RoleSettings {
    /// The weight of its claim, in thousandths, more than 0; none = the configuration's.
    pub weight_milli: Option<u64>,
    /// What it may have at least and at most.
    pub quota: Quota,
}

/// What a role may have at least and at most, of scalars, with all that its frameworks hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Quota {
    /// What is kept free for it while it has less.
    pub guarantees: Resources,
    /// In thousandths; of a kind that is not named it may have any amount.
    pub limits: BTreeMap<Arc<str>, u64>,
}

impl RoleSettings {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.weight_milli.is_none() && self.quota.is_empty()
    }
}

impl Quota {
    /// Whether it neither guarantees nor limits anything.
    pub fn is_empty(&self) -> bool {
        self.guarantees.is_empty() && self.limits.is_empty()
    }

    /// Whether a role that has this much is within its limits.
    pub fn allows(&self, has: &Resources) -> bool {
        self.limits.iter().all(|(kind, most)| has.scalar(kind) <= *most)
    }
}

/// Amounts in a sentence, as Mesos writes them: `cpus:1.5; mem:64`.
pub(crate) struct Listed<I>(pub(crate) I);

impl<'a, I: Iterator<Item = (&'a str, u64)> + Clone> fmt::Display for Listed<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (kind, milli) in self.0.clone() {
            let text = format!("{}.{:03}", milli / 1000, milli % 1000);
            write!(f, "{between}{kind}:{}", text.trim_end_matches('0').trim_end_matches('.'))?;
            between = "; ";
        }
        if between.is_empty() { f.write_str("{}") } else { Ok(()) }
    }
}
