//! What of an agent somebody may see.

use super::seen::{Executor, Framework, Seen};
use muster_http::auth::{Action, Approver, Auth, Subject};
use muster_http::show::task::user;
use muster_proto::mesos;
use prost::Message;

/// What somebody may see. Where there are no rules it costs nothing to ask.
#[derive(Debug, Clone)]
pub(crate) struct View {
    frameworks: Approver,
    executors: Approver,
    tasks: Approver,
    /// Settings.
    pub(super) flags: bool,
}

impl View {
    /// What the rules let somebody see.
    pub(super) fn of(auth: &Auth, who: &Subject) -> Self {
        Self {
            frameworks: auth.approver(who, Action::ViewFramework),
            executors: auth.approver(who, Action::ViewExecutor),
            tasks: auth.approver(who, Action::ViewTask),
            flags: auth.may(who, Action::ViewFlags, None),
        }
    }

    /// The containers that it may see, whatever else.
    pub(super) fn of_containers(auth: &Auth, who: &Subject) -> Self {
        Self { executors: auth.approver(who, Action::ViewContainer), ..Self::all() }
    }

    /// Everything.
    pub(super) fn all() -> Self {
        Self { frameworks: Approver::ALL, executors: Approver::ALL, tasks: Approver::ALL, flags: true }
    }

    /// Leaves out what is not seen.
    pub(super) fn retain(&self, all: &mut Vec<Framework<'_>>) {
        let is_all = |approver: &Approver| approver.always() == Some(true);
        if is_all(&self.frameworks) && is_all(&self.executors) && is_all(&self.tasks) {
            return;
        }
        all.retain(|it| self.frameworks.allows(Some(&it.info.user)));
        for Framework { info, executors, completed, .. } in all {
            for list in [executors, completed] {
                list.retain(|it| self.executors.allows(Some(user_of(it, info))));
                for Executor { tasks, done, .. } in list {
                    for tasks in [tasks, done] {
                        tasks.retain(|task| {
                            self.tasks.allows_what(|| {
                                let described =
                                    mesos::TaskInfo::decode(&*task.intent.sealed).unwrap_or_default();
                                let own = user(&described).filter(|it| !it.is_empty());
                                Some(own.unwrap_or(&info.user).to_owned())
                            })
                        });
                    }
                }
            }
        }
    }
}

/// The user that an executor runs as.
pub(super) fn user_of<'a>(executor: &'a Executor<'_>, framework: &'a mesos::FrameworkInfo) -> &'a str {
    let own = executor.info.command.as_ref().and_then(|it| it.user.as_deref());
    own.filter(|it| !it.is_empty()).unwrap_or(&framework.user)
}

/// The user of the executor of this name, or in this container; none where nobody knows it any more.
pub(super) fn user_among(seen: &Seen, is_it: impl Fn(&str, &Executor<'_>) -> bool) -> Option<String> {
    seen.frameworks().iter().find_map(|framework| {
        let all = framework.executors.iter().chain(framework.completed.iter().rev());
        let found = all.into_iter().find(|it| is_it(framework.id.as_str(), it))?;
        Some(user_of(found, &framework.info).to_owned())
    })
}
