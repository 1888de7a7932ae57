//! Weights and quotas: all that is asked for at once, or none of it.

use crate::{
    Account, Change, Consumed, Outcome, Quota, Refusal, Registry, RoleSettings,
    registry::Context,
    role::{Listed, ROLES_MAX},
};
use muster_model::{Resources, Role};
use std::collections::BTreeMap;

impl Registry {
    pub(crate) fn set_weights(&mut self, weights: &[(Role, u64)], to: &mut Context<'_>) -> Outcome {
        if !self.has_room_for(weights.iter().map(|(role, _)| role)) {
            return Outcome::Refused(Refusal::Full("roles with settings"));
        }
        for (role, weight_milli) in weights {
            let weight_milli = Some((*weight_milli).max(1));
            self.set_role(role, |settings| settings.weight_milli = weight_milli, to);
        }
        Outcome::Done
    }

    /// Sets quotas. With `new`, as a guarantee that no role has yet.
    pub(crate) fn set_quotas(
        &mut self,
        quotas: &[(Role, Quota)],
        force: bool,
        new: bool,
        to: &mut Context<'_>,
    ) -> Outcome {
        if !self.has_room_for(quotas.iter().map(|(role, _)| role)) {
            return Outcome::Refused(Refusal::Full("roles with settings"));
        }
        let all_consumed = (!force && !new).then(|| self.consumed());
        for (role, quota) in quotas {
            if new && !self.quota(role).is_empty() {
                return Outcome::Refused(Refusal::QuotaSet(role.clone()));
            }
            let Some(consumed) = all_consumed.as_ref().map(|all| all.of(role)) else { continue };
            if !quota.allows(&consumed) {
                let limits = Listed(quota.limits.iter().map(|(kind, most)| (&**kind, *most)));
                return Outcome::Refused(Refusal::LimitsTooLow {
                    role: role.clone(),
                    consumed: listed(&consumed).into(),
                    limits: limits.to_string().into(),
                });
            }
        }
        let guaranteed = self.guaranteed_with(quotas);
        let capacity = self.capacity();
        if !force && !capacity.contains(&guaranteed) {
            let (guaranteed, capacity) = (listed(&guaranteed).into(), listed(&capacity).into());
            return Outcome::Refused(Refusal::Overcommitted { new, guaranteed, capacity });
        }
        for (role, quota) in quotas {
            self.set_role(role, |settings| settings.quota = quota.clone(), to);
        }
        Outcome::Done
    }

    pub(crate) fn remove_quota(&mut self, role: &Role, to: &mut Context<'_>) -> Outcome {
        if self.quota(role).is_empty() {
            return Outcome::Refused(Refusal::NoQuota(role.clone()));
        }
        self.set_role(role, |settings| settings.quota = Quota::default(), to);
        Outcome::Done
    }

    fn has_room_for<'a>(&self, roles: impl Iterator<Item = &'a Role>) -> bool {
        let more: std::collections::BTreeSet<_> = roles.filter(|role| !self.roles.contains(role)).collect();
        self.roles.len() + more.len() <= ROLES_MAX
    }

    fn set_role(&mut self, role: &Role, set: impl FnOnce(&mut RoleSettings), to: &mut Context<'_>) {
        let former = self.roles.get(role).map(|it| (**it).clone()).unwrap_or_default();
        let mut settings = former.clone();
        set(&mut settings);
        if settings == former {
            return;
        }
        let settings = match settings.is_empty() {
            true => self.roles.remove(role).map(|_| settings.into()),
            false => Some(self.roles.put(role.clone(), settings)),
        };
        to.changes.extend(settings.map(|settings| Change::RoleSettings(role.clone(), settings)));
    }

    fn quota(&self, role: &Role) -> Quota {
        self.roles.get(role).map(|it| it.quota.clone()).unwrap_or_default()
    }

    /// What counts against the quotas of all roles: it goes through all tasks and agents, once for all roles.
    pub fn consumed(&self) -> Consumed {
        self.consumed_with(&self.held_by_accounts().collect::<Vec<_>>())
    }

    /// The same where it is known already what [is held by accounts](Self::held_by_accounts).
    pub fn consumed_with(&self, held: &[(Account, &Resources, u64)]) -> Consumed {
        let mut consumed = Consumed::default();
        for ((_, role), resources, n) in held {
            consumed.add(role, &resources.unreserved().quantities().times(*n));
        }
        for agent in self.agents.values().filter(|agent| !agent.is_gone()) {
            for (role, reserved) in self.total_of(agent).reserved() {
                consumed.add(&role, &reserved.quantities());
            }
        }
        consumed
    }

    /// What all roles together are guaranteed, once these have these quotas.
    fn guaranteed_with(&self, quotas: &[(Role, Quota)]) -> Resources {
        let mut all: BTreeMap<&Role, &Resources> =
            self.roles.iter().map(|(role, settings)| (role, &settings.quota.guarantees)).collect();
        all.extend(quotas.iter().map(|(role, quota)| (role, &quota.guarantees)));
        all.values().fold(Resources::none(), |sum, it| sum.plus(it))
    }

    /// The scalars of all agents that belong to the cluster, also of those that are disconnected: they may be back soon.
    fn capacity(&self) -> Resources {
        let here = self.agents.values().filter(|agent| agent.lost_since().is_none());
        here.fold(Resources::none(), |sum, agent| sum.plus(&agent.info.resources.quantities()))
    }
}

fn listed(resources: &Resources) -> String {
    let kinds: Vec<_> = resources.iter().map(|(kind, _)| (kind, resources.scalar(kind))).collect();
    Listed(kinds.iter().copied()).to_string()
}
