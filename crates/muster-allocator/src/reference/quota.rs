//! What roles may still have, by names.

use muster_model::{Resources, Role, Value};
use muster_registry::Quota;
use std::{collections::BTreeMap, sync::Arc};

/// What counts against quotas, in scalars that are not reserved unless it says otherwise.
#[derive(Debug, Default)]
pub(crate) struct Consumed {
    /// What each role's own frameworks have of what is not reserved.
    pub(crate) by_role: BTreeMap<Role, Resources>,
    /// What is reserved for each role, used or not.
    pub(crate) reserved: BTreeMap<Role, Resources>,
    /// What nobody has, of all agents.
    pub(crate) free: Resources,
}

/// A role's quota, and how much of it is left.
#[derive(Debug)]
struct Left {
    role: Role,
    /// Of the kinds that are limited.
    limits: BTreeMap<Arc<str>, u64>,
    /// What it lacks of what it is guaranteed.
    lacks: Resources,
}

/// All quotas, as far as they are left.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    left: Vec<Left>,
    /// What nobody has and is kept for nobody.
    spare: Resources,
}

impl Quotas {
    /// Of these roles. A role's quota holds for all that its name stands above of.
    pub(crate) fn new(quotas: &BTreeMap<Role, Quota>, consumed: &Consumed) -> Self {
        let left: Vec<Left> = quotas
            .iter()
            .map(|(role, Quota { guarantees, limits })| {
                let of = |all: &BTreeMap<Role, Resources>| {
                    let own = all.iter().filter(|(it, _)| role.covers(it));
                    own.fold(Resources::none(), |sum, (_, has)| sum.plus(has))
                };
                let has = of(&consumed.by_role).plus(&of(&consumed.reserved));
                let limits =
                    limits.iter().map(|(kind, most)| (kind.clone(), most.saturating_sub(has.scalar(kind))));
                Left { role: role.clone(), limits: limits.collect(), lacks: guarantees.minus(&has) }
            })
            .collect();
        let mut quotas = Self { left, spare: consumed.free.clone() };
        for i in 0..quotas.left.len() {
            let lacks = quotas.left[i].lacks.clone();
            quotas.spare.subtract(&lacks);
        }
        quotas
    }

    /// Whether nothing is limited or guaranteed.
    pub(crate) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Whether a role lacks something that it is guaranteed.
    pub(crate) fn lacks(&self, role: &Role) -> bool {
        self.left.iter().any(|it| it.role.covers(role) && !it.lacks.is_empty())
    }

    /// Whether anybody does.
    pub(crate) fn anybody_lacks(&self) -> bool {
        self.left.iter().any(|it| !it.lacks.is_empty())
    }

    /// How much of what is offered a role may have: reservations and what is no number whole, of the rest what its limits
    /// and others' guarantees leave.
    pub(crate) fn allow(&self, role: &Role, offered: &Resources) -> Resources {
        let mut allowed = offered.filtered(|label| label.is_some());
        for (kind, value) in offered.unreserved().iter() {
            let Value::Scalar(amount) = value else {
                allowed.insert(kind, value.clone());
                continue;
            };
            let own = || self.left.iter().filter(|it| it.role.covers(role));
            let limit = own().filter_map(|it| it.limits.get(kind)).min();
            let lacks = own().map(|it| it.lacks.scalar(kind)).max().unwrap_or(0);
            let most = self.spare.scalar(kind).saturating_add(lacks);
            let most = limit.map_or(most, |limit| most.min(*limit));
            allowed.insert(kind, Value::Scalar(most.min(*amount)));
        }
        allowed
    }

    /// A role got this.
    pub(crate) fn take(&mut self, role: &Role, got: &Resources) {
        let got = got.unreserved().quantities();
        // What it lacked was kept for it, the rest was spare.
        for (kind, _) in got.iter() {
            let own = self.left.iter().filter(|it| it.role.covers(role));
            let lacks = own.map(|it| it.lacks.scalar(kind)).max().unwrap_or(0);
            let beyond = Value::Scalar(got.scalar(kind).saturating_sub(lacks));
            self.spare.subtract(&Resources::none().with(kind, beyond));
        }
        for it in self.left.iter_mut().filter(|it| it.role.covers(role)) {
            it.lacks.subtract(&got);
            for (kind, left) in &mut it.limits {
                *left = left.saturating_sub(got.scalar(kind));
            }
        }
    }
}
