//! What roles may still have: up to their limits, and not what is kept for others' guarantees.

use crate::kinds::{Amounts, Kinds, add, subtract};
use muster_model::{Resources, Role, Value};
use muster_registry::Quota;
use std::collections::BTreeMap;

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

/// A role's quota, and how much of it is left, in rows that are as long as there are kinds.
#[derive(Debug)]
struct Left {
    role: Role,
    /// The most of what is not limited is [`u64::MAX`].
    limits: Amounts,
    /// What it lacks of what it is guaranteed.
    lacks: Amounts,
}

/// All quotas, as far as they are left.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    left: Vec<Left>,
    /// What nobody has and is kept for nobody.
    spare: Amounts,
}

/// The quotas that hold for a role: its own, and those of the roles above it.
pub(crate) type Own = Vec<usize>;

impl Quotas {
    /// Of these roles. A role's quota holds for all that its name stands above of.
    pub(crate) fn new(quotas: &BTreeMap<Role, Quota>, consumed: &Consumed, kinds: &mut Kinds) -> Self {
        for quota in quotas.values() {
            kinds.amounts(&quota.guarantees);
            quota.limits.keys().for_each(|kind| _ = kinds.place(kind));
        }
        let mut spare = kinds.amounts(&consumed.free);
        let left: Vec<Left> = quotas
            .iter()
            .map(|(role, Quota { guarantees, limits })| {
                let mut has = vec![0; kinds.len()];
                for all in [&consumed.by_role, &consumed.reserved] {
                    let own = all.iter().filter(|(it, _)| role.covers(it));
                    own.for_each(|(_, amounts)| add(&mut has, &kinds.known(amounts)));
                }
                let mut left = vec![u64::MAX; kinds.len()];
                for (kind, most) in limits {
                    if let Some(at) = kinds.find(kind) {
                        left[at] = most.saturating_sub(has[at]);
                    }
                }
                let mut lacks = kinds.known(guarantees);
                subtract(&mut lacks, &has);
                Left { role: role.clone(), limits: left, lacks }
            })
            .collect();
        spare.resize(kinds.len(), 0);
        left.iter().for_each(|it| subtract(&mut spare, &it.lacks));
        Self { left, spare }
    }

    /// Whether nothing is limited or guaranteed.
    pub(crate) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Which of them hold for a role.
    pub(crate) fn own(&self, role: &Role) -> Own {
        (0..self.left.len()).filter(|at| self.left[*at].role.covers(role)).collect()
    }

    /// Whether a role lacks something that it is guaranteed.
    pub(crate) fn lacks(&self, own: &Own) -> bool {
        own.iter().any(|at| self.left[*at].lacks.iter().any(|n| *n > 0))
    }

    /// Whether anybody does.
    pub(crate) fn anybody_lacks(&self) -> bool {
        self.left.iter().any(|it| it.lacks.iter().any(|n| *n > 0))
    }

    fn lacked(&self, own: &Own, kind: usize) -> u64 {
        own.iter().map(|at| self.left[*at].lacks[kind]).max().unwrap_or(0)
    }

    /// The most of a kind that a role may have of what is not reserved.
    pub(crate) fn most(&self, own: &Own, kind: usize) -> u64 {
        let limit = own.iter().map(|at| self.left[*at].limits[kind]).min().unwrap_or(u64::MAX);
        self.spare.get(kind).map_or(0, |spare| spare.saturating_add(self.lacked(own, kind))).min(limit)
    }

    /// Whether a role may have all of this, of which nothing is reserved.
    pub(crate) fn allow_all(&self, own: &Own, amounts: &[u64]) -> bool {
        (0..).zip(amounts).all(|(kind, n)| *n == 0 || *n <= self.most(own, kind))
    }

    /// How much of what is offered a role may have: reservations and what is no number whole, of the rest what its limits
    /// and others' guarantees leave.
    pub(crate) fn allow(&self, own: &Own, offered: &Resources, kinds: &Kinds) -> Resources {
        let mut allowed = offered.filtered(|label| label.is_some());
        for (name, label, value) in offered.iter_labelled() {
            match (label, value, kinds.find(name)) {
                (Some(_), ..) => {}
                (None, Value::Scalar(n), Some(kind)) => {
                    allowed.insert(name, Value::Scalar(self.most(own, kind).min(*n)));
                }
                (None, Value::Scalar(_), None) => {}
                (None, ..) => allowed.insert(name, value.clone()),
            }
        }
        allowed
    }

    /// A role got this of what is not reserved.
    pub(crate) fn take(&mut self, own: &Own, got: &[u64]) {
        // What it lacked was kept for it, the rest was spare.
        for (kind, n) in got.iter().enumerate() {
            let beyond = n.saturating_sub(self.lacked(own, kind));
            self.spare[kind] = self.spare[kind].saturating_sub(beyond);
        }
        for at in own {
            let it = &mut self.left[*at];
            subtract(&mut it.lacks, got);
            for (left, n) in it.limits.iter_mut().zip(got) {
                *left = if *left == u64::MAX { u64::MAX } else { left.saturating_sub(*n) };
            }
        }
    }
}
