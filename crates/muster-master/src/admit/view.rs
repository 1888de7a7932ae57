//! What of the cluster somebody may see.

use super::{Action, Approver, Auth, Subject, mesos, user};
use muster_model::task::ExecutorSpec;
use muster_registry::{Framework, Task};
use prost::Message;

/// What somebody may see. Where there are no rules it costs nothing to ask.
#[derive(Debug, Clone)]
pub(crate) struct View {
    frameworks: Approver,
    tasks: Approver,
    executors: Approver,
    roles: Approver,
    quotas: Approver,
    /// The maintenance schedule, and how far it is.
    pub(crate) schedule: bool,
    pub(crate) status: bool,
    /// Settings.
    pub(crate) flags: bool,
}

impl Default for View {
    /// Everything.
    fn default() -> Self {
        Self {
            frameworks: Approver::ALL,
            tasks: Approver::ALL,
            executors: Approver::ALL,
            roles: Approver::ALL,
            quotas: Approver::ALL,
            schedule: true,
            status: true,
            flags: true,
        }
    }
}

impl View {
    /// What the rules let somebody see.
    pub(crate) fn of(auth: &Auth, who: &Subject) -> Self {
        let of = |action| auth.approver(who, action);
        Self {
            frameworks: of(Action::ViewFramework),
            tasks: of(Action::ViewTask),
            executors: of(Action::ViewExecutor),
            roles: of(Action::ViewRole),
            quotas: of(Action::GetQuota),
            schedule: auth.may(who, Action::GetMaintenanceSchedule, None),
            status: auth.may(who, Action::GetMaintenanceStatus, None),
            flags: auth.may(who, Action::ViewFlags, None),
        }
    }

    /// Whether all tasks are seen, whosever they are.
    pub(crate) fn has_all_tasks(&self) -> bool {
        self.frameworks.always() == Some(true) && self.tasks.always() == Some(true)
    }

    /// Whether all that events are of is seen.
    pub(crate) fn has_all_events(&self) -> bool {
        self.has_all_tasks() && self.has_all_roles()
    }

    /// Whether a framework is seen.
    pub(crate) fn framework(&self, framework: &Framework) -> bool {
        self.framework_of(Some(&framework.info.user))
    }

    /// Whether a framework of this user is seen; none if it is not known.
    pub(crate) fn framework_of(&self, user: Option<&str>) -> bool {
        self.frameworks.allows_known(user)
    }

    /// Whether a task is seen; its framework, if it is still known.
    pub(crate) fn task(&self, task: &Task, framework: Option<&Framework>) -> bool {
        if self.has_all_tasks() {
            return true;
        }
        let default = framework.map(|it| &*it.info.user);
        self.framework_of(default)
            && self.tasks.allows_what(|| {
                let info = mesos::TaskInfo::decode(&*task.sealed()).unwrap_or_default();
                let own = user(&info).filter(|it| !it.is_empty());
                own.or(default).map(str::to_owned)
            })
    }

    /// The same, of one that is described so.
    pub(crate) fn task_of(&self, own: Option<&str>, framework: Option<&str>) -> bool {
        self.framework_of(framework) && self.tasks.allows_known(own.filter(|it| !it.is_empty()).or(framework))
    }

    /// Whether all executors are seen.
    pub(crate) fn has_all_executors(&self) -> bool {
        self.frameworks.always() == Some(true) && self.executors.always() == Some(true)
    }

    /// Whether an executor is seen.
    pub(crate) fn executor(&self, spec: &ExecutorSpec, framework: Option<&Framework>) -> bool {
        let default = framework.map(|it| &*it.info.user);
        self.framework_of(default)
            && self.executors.allows_what(|| {
                let info = mesos::ExecutorInfo::decode(&*spec.sealed).unwrap_or_default();
                let own = info.command.and_then(|it| it.user).filter(|it| !it.is_empty());
                own.or(default.map(str::to_owned))
            })
    }

    /// Whether all roles are seen.
    pub(crate) fn has_all_roles(&self) -> bool {
        self.roles.always() == Some(true)
    }

    /// Whether a role is seen.
    pub(crate) fn role(&self, role: &str) -> bool {
        self.roles.allows(Some(role))
    }

    /// Whether a role's quota is seen.
    pub(crate) fn quota(&self, role: &str) -> bool {
        self.quotas.allows(Some(role))
    }

    /// Leaves those out that are of roles which are not seen.
    #[allow(deprecated)]
    pub(crate) fn retain(&self, resources: &mut Vec<mesos::Resource>) {
        if self.has_all_roles() {
            return;
        }
        resources.retain(|it| {
            let allocated = it.allocation_info.as_ref().and_then(|it| it.role.as_deref());
            let reserved = it.reservations.iter().filter_map(|it| it.role.as_deref());
            let old = it.role.as_deref().filter(|role| *role != "*");
            allocated.into_iter().chain(reserved).chain(old).all(|role| self.role(role))
        });
    }
}
