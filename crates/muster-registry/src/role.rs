//! What operators set for roles.

use muster_model::{Resources, Role};
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

/// The scalars that count against quotas.
#[derive(Debug, Clone, Default)]
pub struct Consumed(BTreeMap<Role, Resources>);

impl Consumed {
    pub(crate) fn add(&mut self, role: &Role, scalars: &Resources) {
        match self.0.get_mut(role) {
            Some(sum) => sum.add(scalars),
            None => drop(self.0.insert(role.clone(), scalars.clone())),
        }
    }

    /// What counts against a role's quota: what is reserved for it and for the roles below it, and what is held in them
    /// of what nobody reserved.
    pub fn of(&self, role: &Role) -> Resources {
        let beginning_alike =
            self.0.range(role..).take_while(|(it, _)| it.as_str().starts_with(role.as_str()));
        let covered = beginning_alike.filter(|(it, _)| role.covers(it));
        covered.fold(Resources::none(), |sum, (_, scalars)| sum.plus(scalars))
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_consumed_below_a_role_is_consumed_in_it() {
        let role = |text| Role::parse(text).unwrap();
        let mut consumed = Consumed::default();
        for (text, cpus) in [("a", 1_000), ("a-b", 2_000), ("a/b", 4_000), ("a/b/c", 8_000), ("ab", 16_000)] {
            consumed.add(&role(text), &Resources::of(cpus, 0));
        }
        consumed.add(&role("a/b"), &Resources::of(500, 1));
        assert_eq!(consumed.of(&role("a")), Resources::of(13_500, 1));
        assert_eq!(consumed.of(&role("a/b")), Resources::of(12_500, 1));
        assert_eq!(consumed.of(&role("a-b")), Resources::of(2_000, 0));
        assert_eq!(consumed.of(&role("b")), Resources::none());
    }
}
