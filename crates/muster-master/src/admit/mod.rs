//! Whether a client may do what it asks: decided where its call comes in, before the leader's machine hears of it.
//!
//! Who a scheduler is, is settled when it subscribes: its description says its principal, which a realm that is closed
//! has made sure of. From then on its calls are judged by that principal. What of an ACCEPT is not authorised is taken
//! out of it, and goes to the leader beside the rest, since that alone can tell the framework wherever its stream is.
//!
//! # Laws
//! - Without rules nothing is decoded, copied or looked up here.
//! - What is left of a call is as it was sent.

mod native;
mod view;

pub(crate) use native::{Guard, Passed, known};
pub(crate) use view::View;

use bytes::Bytes;
use mesos::offer::operation::Type;
use mesos::task_status::Reason;
use muster_http::auth::{Action, Approver, Auth, Subject};
use muster_http::show::task::user;
use muster_leader::OperatorCall;
use muster_model::{Conversion, FrameworkId, Label, Role};
use muster_proto::framework::with_principal;
use muster_proto::operation::{asked_conversion, launch_some};
use muster_proto::{mesos, v1};
use muster_raft::Raft;
use muster_registry::Registry;
use prost::Message;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// How far a replica may be behind its leader before that is not waited for.
const BEHIND: Duration = Duration::from_secs(5);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(5);

/// As whom a framework's calls are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) principal: Option<Arc<str>>,
    /// The user of tasks that name none.
    pub(crate) user: Arc<str>,
}

impl Judged {
    /// As the registry knows it: what a framework says of itself later is not what it is run as.
    pub(crate) fn of(raft: &Raft, id: &FrameworkId) -> Option<Self> {
        raft.with_registry(|registry| {
            let info = &registry.framework(id)?.info;
            let principal = info.principal.clone().filter(|it| !it.is_empty());
            Some(Self { principal, user: info.user.clone() })
        })
    }

    /// The same, of one that has subscribed: this replica may be a little behind the leader. None if it stays so.
    pub(crate) async fn subscribed(raft: &Raft, id: &FrameworkId) -> Option<Self> {
        let until = Instant::now() + BEHIND;
        loop {
            let known = Self::of(raft, id);
            if known.is_some() || Instant::now() >= until {
                return known;
            }
            sleep(LOOK).await;
        }
    }

    fn approver(&self, auth: &Auth, action: Action) -> Approver {
        auth.acls().approver(action, self.principal.as_deref())
    }
}

/// Makes the principal that a scheduler has shown that of its description.
///
/// # Errors
/// The description says another one.
pub(crate) fn identify(
    who: &Subject,
    info: &mut mesos::FrameworkInfo,
    encoded: &mut Bytes,
) -> Result<(), String> {
    let Some(shown) = who.principal() else { return Ok(()) };
    match info.principal.as_deref() {
        Some(named) if named == shown => Ok(()),
        None | Some("") => {
            *encoded = with_principal(encoded, shown);
            info.principal = Some(shown.into());
            Ok(())
        }
        Some(named) => Err(mismatch(shown, named)),
    }
}

/// What is said of a framework that is another principal's.
pub(crate) fn mismatch(shown: &str, named: &str) -> String {
    format!("Authenticated principal '{shown}' does not match principal '{named}' set in `FrameworkInfo`")
}

/// Whether a framework may be in its roles.
///
/// # Errors
/// It may not; this says where.
#[allow(deprecated)]
pub(crate) fn registers(auth: &Auth, info: &mesos::FrameworkInfo) -> Result<(), String> {
    let principal = info.principal.as_deref().filter(|it| !it.is_empty());
    let approver = auth.acls().approver(Action::RegisterFramework, principal);
    let own = info.role.as_deref().or(info.roles.is_empty().then_some("*"));
    let mut roles = own.into_iter().chain(info.roles.iter().map(String::as_str));
    match roles.find(|role| !approver.allows(Some(role))) {
        None => Ok(()),
        Some(role) => {
            let who = match principal {
                Some(principal) => format!("principal '{principal}'"),
                None => "a framework without principal".into(),
            };
            Err(format!("Not authorized: {who} may not register frameworks with role '{role}'"))
        }
    }
}

/// Takes what is not authorised out of an ACCEPT; that is told beside it.
pub(crate) fn accept(auth: &Auth, by: &Judged, accept: &mut v1::Accept) -> Option<v1::Refused> {
    if auth.acls().are_open() {
        return None;
    }
    let mut judge = Judge { auth, by, run: by.approver(auth, Action::RunTask), refused: Default::default() };
    accept.task_infos.retain(|bytes| judge.may_run(bytes));
    accept.operations = std::mem::take(&mut accept.operations)
        .into_iter()
        .filter_map(|bytes| judge.operation(bytes))
        .collect();
    let is_refused = !judge.refused.tasks.is_empty() || !judge.refused.operations.is_empty();
    is_refused.then_some(judge.refused)
}

struct Judge<'a> {
    auth: &'a Auth,
    by: &'a Judged,
    run: Approver,
    refused: v1::Refused,
}

impl Judge<'_> {
    /// Whether a task may run as its user; one that may not is refused. What is no task is the leader's to refuse.
    fn may_run(&mut self, bytes: &Bytes) -> bool {
        if self.run.always() == Some(true) {
            return true;
        }
        let Ok(task) = mesos::TaskInfo::decode(bytes.clone()) else { return true };
        match self.problem(&task, None) {
            None => true,
            Some(why) => {
                self.refuse(&task, Reason::TaskUnauthorized, why);
                false
            }
        }
    }

    /// Why a task may not run, within the executor of its group.
    fn problem(&self, task: &mesos::TaskInfo, within: Option<&mesos::ExecutorInfo>) -> Option<String> {
        // The executor of a group is started as its own user, whoever its tasks name.
        let of_group = within.map(|it| {
            let named = it.command.as_ref().and_then(|it| it.user.as_deref());
            named.filter(|it| !it.is_empty()).unwrap_or(&self.by.user)
        });
        let own = user(task).filter(|it| !it.is_empty()).or(of_group).unwrap_or(&self.by.user);
        let user = [Some(own), of_group].into_iter().flatten().find(|user| !self.runs_as(user))?;
        let id = &task.task_id.value;
        Some(format!("Not authorized: task '{id}' may not be launched as user '{user}'"))
    }

    /// Whether this user is allowed. No name at all is the agent's own user, which is not known here.
    fn runs_as(&self, user: &str) -> bool {
        self.run.allows_known(Some(user).filter(|it| !it.is_empty()))
    }

    fn refuse(&mut self, task: &mesos::TaskInfo, reason: Reason, message: String) {
        self.refused.tasks.push(v1::refused::Task {
            task_id: task.task_id.value.clone(),
            agent_id: task.agent_id.value.clone(),
            reason: reason.into(),
            message,
        });
    }

    /// What is left of an operation, if anything is.
    fn operation(&mut self, bytes: Bytes) -> Option<Bytes> {
        let Ok(operation) = mesos::offer::Operation::decode(bytes.clone()) else { return Some(bytes) };
        match operation.r#type() {
            // With an id these are wrong, whoever asks.
            Type::Launch | Type::LaunchGroup if operation.id.is_some() => Some(bytes),
            Type::Launch => {
                let tasks = operation.launch.unwrap_or_default().task_infos;
                let problems: Vec<_> = tasks.iter().map(|task| self.problem(task, None)).collect();
                if problems.iter().all(Option::is_none) {
                    return Some(bytes);
                }
                let left = launch_some(&bytes, |at| problems.get(at).is_none_or(Option::is_none));
                for (task, why) in tasks.iter().zip(problems) {
                    if let Some(why) = why {
                        self.refuse(task, Reason::TaskUnauthorized, why);
                    }
                }
                Some(left)
            }
            Type::LaunchGroup => {
                let group = operation.launch_group.unwrap_or_default();
                let (tasks, executor) = (&group.task_group.tasks, &group.executor);
                let Some(why) = tasks.iter().find_map(|task| self.problem(task, Some(executor))) else {
                    return Some(bytes);
                };
                for task in tasks {
                    self.refuse(task, Reason::TaskGroupUnauthorized, why.clone());
                }
                None
            }
            // One that is wrong is refused for that.
            _ => match asked_conversion(&operation) {
                Some(asked) if !converts(&|action| self.by.approver(self.auth, action), &asked) => {
                    let message = format!("Not authorized to {} these resources", asked.name());
                    if let Some(id) = operation.id {
                        let refused = v1::refused::Operation { operation_id: id.value, message };
                        self.refused.operations.push(refused);
                    }
                    None
                }
                _ => Some(bytes),
            },
        }
    }
}

/// What a rule names of resources.
type Named = fn(&Label) -> Option<Arc<str>>;

/// Whether resources may be converted so: those of each role, or of each that made what is undone.
fn converts(approver: &dyn Fn(Action) -> Approver, conversion: &Conversion) -> bool {
    let role: Named = |label| label.reserved_role().map(|role| role.as_str().into());
    let reserver: Named = |label| label.reservations.last()?.principal.clone();
    let creator: Named = |label| label.volume.as_ref()?.principal.clone();
    let (action, object): (_, Named) = match conversion {
        Conversion::Reserve(_) => (Action::ReserveResources, role),
        Conversion::Unreserve(_) => (Action::UnreserveResources, reserver),
        Conversion::Create(_) => (Action::CreateVolume, role),
        Conversion::Destroy(_) => (Action::DestroyVolume, creator),
        Conversion::Rereserve { from, to } => {
            let undone = from.filtered(|label| label.is_some_and(Label::is_dynamic));
            return (undone.is_empty() || converts(approver, &Conversion::Unreserve(undone)))
                && converts(approver, &Conversion::Reserve(to.clone()));
        }
    };
    let approver = approver(action);
    approver.always().unwrap_or_else(|| {
        let mut labels = conversion.named().iter_labelled().map(|(_, label, _)| label);
        labels.all(|label| approver.allows(label.and_then(object).as_deref()))
    })
}

/// Whether an operator may ask for this.
pub(crate) fn operator(auth: &Auth, who: &Subject, call: &OperatorCall, registry: &Registry) -> bool {
    if auth.acls().are_open() && who.claims.is_none() {
        return true;
    }
    let whole = |action| auth.may(who, action, None);
    let roles = |action, roles: Vec<&Role>| {
        let approver = auth.approver(who, action);
        roles.iter().all(|role| approver.allows(Some(role.as_str())))
    };
    match call {
        // One that is not there is the log's to refuse.
        OperatorCall::Teardown(id) => registry.framework(id).is_none_or(|framework| {
            auth.may(who, Action::TeardownFramework, framework.info.principal.as_deref())
        }),
        OperatorCall::MarkGone(_) => whole(Action::MarkAgentGone),
        OperatorCall::SetWeights(weights) => {
            roles(Action::UpdateWeight, weights.iter().map(|(role, _)| role).collect())
        }
        OperatorCall::SetQuotas { quotas, .. } => {
            roles(Action::UpdateQuota, quotas.iter().map(|(role, _)| role).collect())
        }
        OperatorCall::RemoveQuota(role) => roles(Action::UpdateQuota, vec![role]),
        OperatorCall::Deactivate(_) => whole(Action::DeactivateAgent),
        OperatorCall::Reactivate(_) => whole(Action::ReactivateAgent),
        OperatorCall::Drain { .. } => whole(Action::DrainAgent),
        OperatorCall::SetSchedule(_) => whole(Action::UpdateMaintenanceSchedule),
        OperatorCall::StartMaintenance(_) => whole(Action::StartMaintenance),
        OperatorCall::StopMaintenance(_) => whole(Action::StopMaintenance),
        OperatorCall::Convert(_, conversion) => converts(&|action| auth.approver(who, action), conversion),
    }
}

#[cfg(test)]
mod tests;
