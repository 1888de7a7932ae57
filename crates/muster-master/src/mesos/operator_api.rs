//! `POST /api/v1`: the operator API. The checks come in Mesos' order; then each call is answered from one moment of the
//! leader, or put in the log.

use super::answer::{bad, plain};
use super::parts::{Item, Items, Part, write};
use super::read::{
    self,
    body::Wrapped,
    not_yet,
    seen::{Seen, Sorted},
};
use super::{Mesos, events, operate, records, request};
use crate::route::LocalRoute;
use axum::body::Body;
use http::{Request, Response, StatusCode};
use mesos::master::{Call, call::Type, response};
use muster_http::auth::{Action, Subject, forbidden};
use muster_http::logging;
use muster_leader::OperatorCall;
use muster_model::{AgentId, FrameworkId, TaskState};
use muster_proto::json::Codec;
use muster_proto::{master_api::validate, mesos};
use muster_registry::{Agent, Task};
use std::sync::Arc;

/// Answers a POST; a refusal is an answer like any other.
pub(super) async fn answer(
    on: &Mesos,
    local: Arc<LocalRoute>,
    who: &Subject,
    request: Request<Body>,
) -> Response<Body> {
    match try_answer(on, local, who, request).await {
        Ok(response) => response,
        Err(refusal) => *refusal,
    }
}

async fn try_answer(
    on: &Mesos,
    local: Arc<LocalRoute>,
    who: &Subject,
    request: Request<Body>,
) -> Result<Response<Body>, Box<Response<Body>>> {
    let (head, body) = request.into_parts();
    let spoken = request::spoken(&head.headers)?;
    let body = request::body(&head.headers, body).await?;
    let call: Call = spoken.read(&body).map_err(|error| Box::new(bad(error.to_string())))?;
    let kind =
        validate(&call).map_err(|why| Box::new(bad(format!("Failed to validate master::Call: {why}"))))?;
    let codec = request::wanted(&head.headers)?;
    let answer = Answer { on, who, codec, gzip: read::takes_gzip(&head.headers) };
    Ok(answer.to(kind, &call, local).await)
}

/// How a call is answered.
struct Answer<'a> {
    on: &'a Mesos,
    who: &'a Subject,
    codec: Codec,
    gzip: bool,
}

impl Answer<'_> {
    async fn to(&self, kind: Type, call: &Call, local: Arc<LocalRoute>) -> Response<Body> {
        if let Some(answer) = operate::call(self.on, &local, self.who, kind, call).await {
            return answer;
        }
        if !self.may(kind) {
            return forbidden();
        }
        match kind {
            Type::Unknown => plain(StatusCode::NOT_IMPLEMENTED, "Received 'UNKNOWN' call"),
            Type::Subscribe => events::subscribe(self.on, local, self.who, self.codec).await,
            Type::Teardown => {
                let id = call.teardown.as_ref().map_or("", |it| &it.framework_id.value);
                teardown(self.on, &local, self.who, id).await
            }
            Type::MarkAgentGone => {
                let id = call.mark_agent_gone.as_ref().map_or("", |it| &it.agent_id.value);
                mark_gone(self.on, &local, self.who, id).await
            }
            Type::ListFiles => self.list_files(call.list_files.clone().unwrap_or_default().path).await,
            Type::ReadFile => self.read_file(call.read_file.clone().unwrap_or_default()).await,
            Type::SetLoggingLevel => {
                let asked = call.set_logging_level.unwrap_or_default();
                logging::set(asked.level, asked.duration.nanoseconds)
            }
            Type::GetMetrics => {
                let gathered = read::gather(self.on).await;
                self.whole(move || metrics(&gathered.all())).await
            }
            Type::GetHealth | Type::GetFlags | Type::GetVersion | Type::GetLoggingLevel => {
                let response = self.here(kind);
                self.whole(move || response).await
            }
            Type::GetState
            | Type::GetAgents
            | Type::GetFrameworks
            | Type::GetExecutors
            | Type::GetOperations
            | Type::GetTasks
            | Type::GetRoles
            | Type::GetWeights
            | Type::GetMaster
            | Type::GetMaintenanceStatus
            | Type::GetMaintenanceSchedule
            | Type::GetQuota => match read::seen(self.on, local, self.who).await {
                Ok(seen) => self.seen(kind, seen).await,
                Err(refusal) => *refusal,
            },
            Type::GrowVolume | Type::ShrinkVolume => not_yet(kind.as_str_name()),
            Type::ReserveResources
            | Type::UnreserveResources
            | Type::CreateVolumes
            | Type::DestroyVolumes
            | Type::UpdateWeights
            | Type::UpdateMaintenanceSchedule
            | Type::StartMaintenance
            | Type::StopMaintenance
            | Type::SetQuota
            | Type::RemoveQuota
            | Type::UpdateQuota
            | Type::DrainAgent
            | Type::DeactivateAgent
            | Type::ReactivateAgent => not_yet(kind.as_str_name()), // carried out above
        }
    }

    /// Whether it may be asked at all. What is set is judged where it is carried out, and what is read shows what may be
    /// seen.
    fn may(&self, kind: Type) -> bool {
        let action = match kind {
            Type::GetFlags => Action::ViewFlags,
            Type::SetLoggingLevel => Action::SetLogLevel,
            Type::ListFiles | Type::ReadFile => Action::AccessMesosLog,
            _ => return true,
        };
        self.on.auth.may(self.who, action, None)
    }

    async fn list_files(&self, path: String) -> Response<Body> {
        match self.on.files.list(path).await {
            Ok(file_infos) => {
                let list_files = Some(response::ListFiles { file_infos });
                let r#type = Some(response::Type::ListFiles.into());
                self.whole(move || mesos::master::Response { r#type, list_files, ..Default::default() }).await
            }
            Err(refused) => *Box::<Response<Body>>::from(refused),
        }
    }

    async fn read_file(&self, asked: mesos::master::call::ReadFile) -> Response<Body> {
        match self.on.files.read(asked.path, Some(asked.offset), asked.length).await {
            Ok(part) => {
                let read_file = Some(response::ReadFile { size: part.size, data: part.data.into() });
                let r#type = Some(response::Type::ReadFile.into());
                self.whole(move || mesos::master::Response { r#type, read_file, ..Default::default() }).await
            }
            Err(refused) => *Box::<Response<Body>>::from(refused),
        }
    }

    /// What needs nothing of the registry.
    fn here(&self, kind: Type) -> mesos::master::Response {
        let of = |kind: response::Type| mesos::master::Response {
            r#type: Some(kind.into()),
            ..Default::default()
        };
        match kind {
            Type::GetFlags => {
                let flag = |(name, value): (&&str, &String)| mesos::Flag {
                    name: (*name).into(),
                    value: Some(value.clone()),
                };
                let flags = self.on.about.flags.iter().map(flag).collect();
                let get_flags = Some(response::GetFlags { flags });
                mesos::master::Response { get_flags, ..of(response::Type::GetFlags) }
            }
            Type::GetVersion => {
                let get_version = Some(response::GetVersion { version_info: records::version() });
                mesos::master::Response { get_version, ..of(response::Type::GetVersion) }
            }
            Type::GetLoggingLevel => {
                let get_logging_level = Some(response::GetLoggingLevel { level: logging::level() });
                mesos::master::Response { get_logging_level, ..of(response::Type::GetLoggingLevel) }
            }
            _ => {
                let get_health = Some(response::GetHealth { healthy: true });
                mesos::master::Response { get_health, ..of(response::Type::GetHealth) }
            }
        }
    }

    async fn whole(
        &self,
        response: impl FnOnce() -> mesos::master::Response + Send + 'static,
    ) -> Response<Body> {
        let codec = self.codec;
        let write = move |out: &mut dyn std::io::Write| out.write_all(&codec.write(&response()));
        self.on.writers.answer(codec.media_type(), self.wrapped(), write).await
    }

    async fn seen(&self, kind: Type, seen: Seen) -> Response<Body> {
        let codec = self.codec;
        let write = move |out: &mut dyn std::io::Write| {
            let of = Sorted::of(&seen);
            write(&parts(kind, &of), codec, out)
        };
        self.on.writers.answer(codec.media_type(), self.wrapped(), write).await
    }

    fn wrapped(&self) -> Wrapped {
        Wrapped { gzip: self.gzip, jsonp: None }
    }
}

fn metrics(all: &std::collections::BTreeMap<String, f64>) -> mesos::master::Response {
    let metric = |(name, value): (&String, &f64)| mesos::Metric { name: name.clone(), value: Some(*value) };
    mesos::master::Response {
        r#type: Some(response::Type::GetMetrics.into()),
        get_metrics: Some(response::GetMetrics { metrics: all.iter().map(metric).collect() }),
        ..Default::default()
    }
}

/// The answer to a call that reads, from one moment.
pub(super) fn parts<'a>(kind: Type, of: &'a Sorted<'a>) -> Vec<Part<'a>> {
    let seen = of.seen;
    let is = |kind: response::Type| Part::Enum {
        name: "type",
        number: 1,
        text: kind.as_str_name(),
        value: kind.into(),
    };
    let message = |name, number, parts| Part::Message { name, number, parts };
    let one = |name, item| Part::One { name, number: 1, item };
    match kind {
        Type::GetState => vec![is(response::Type::GetState), message("get_state", 9, state(of))],
        Type::GetAgents => vec![is(response::Type::GetAgents), message("get_agents", 10, agents(of))],
        Type::GetFrameworks => {
            vec![is(response::Type::GetFrameworks), message("get_frameworks", 11, frameworks(of))]
        }
        Type::GetExecutors => {
            vec![is(response::Type::GetExecutors), message("get_executors", 12, executors(of))]
        }
        Type::GetTasks => vec![is(response::Type::GetTasks), message("get_tasks", 13, tasks(of))],
        Type::GetRoles => {
            let roles = list("roles", 1, move || records::roles(of).into_iter().map(|it| Item::of(&it)));
            vec![is(response::Type::GetRoles), message("get_roles", 14, vec![roles])]
        }
        // Without any it is not there at all, in Mesos.
        Type::GetWeights if seen.weights().is_empty() => vec![is(response::Type::GetWeights)],
        Type::GetWeights => {
            let weights = move || records::weights(seen).into_iter().map(|it| Item::of(&it));
            let weights = list("weight_infos", 1, weights);
            vec![is(response::Type::GetWeights), message("get_weights", 15, vec![weights])]
        }
        Type::GetMaster => {
            let item = Item::of(&records::master(seen));
            vec![is(response::Type::GetMaster), Part::One { name: "get_master", number: 16, item }]
        }
        Type::GetMaintenanceStatus => {
            let status = vec![one("status", Item::of(&operate::cluster_status(seen)))];
            vec![is(response::Type::GetMaintenanceStatus), message("get_maintenance_status", 17, status)]
        }
        Type::GetMaintenanceSchedule => {
            let schedule = vec![one("schedule", Item::of(&operate::schedule(seen)))];
            vec![
                is(response::Type::GetMaintenanceSchedule),
                message("get_maintenance_schedule", 18, schedule),
            ]
        }
        Type::GetQuota => {
            let status = vec![one("status", Item::of(&operate::quota_status(seen)))];
            vec![is(response::Type::GetQuota), message("get_quota", 19, status)]
        }
        Type::GetOperations => {
            let operations = move || {
                let all = seen.registry.operations().filter(|it| seen.view.role(it.role.as_str()));
                all.map(|it| Item::of(&records::operation(it)))
            };
            let operations = list("operations", 1, operations);
            vec![is(response::Type::GetOperations), message("get_operations", 20, vec![operations])]
        }
        _ => Vec::new(),
    }
}

fn list<'a, I>(name: &'static str, number: u32, items: impl Fn() -> I + 'a) -> Part<'a>
where
    I: Iterator<Item = Item> + 'a,
{
    let items: Items<'a> = Box::new(move || Box::new(items()) as Box<dyn Iterator<Item = Item> + 'a>);
    Part::List { name, number, items }
}

/// All there is: what `GET_STATE` answers, and what an event stream begins with.
pub(super) fn state<'a>(of: &'a Sorted<'a>) -> Vec<Part<'a>> {
    vec![
        Part::Message { name: "get_tasks", number: 1, parts: tasks(of) },
        Part::Message { name: "get_executors", number: 2, parts: executors(of) },
        Part::Message { name: "get_frameworks", number: 3, parts: frameworks(of) },
        Part::Message { name: "get_agents", number: 4, parts: agents(of) },
    ]
}

fn tasks<'a>(of: &'a Sorted<'a>) -> Vec<Part<'a>> {
    let registry = &of.seen.registry;
    let item = |task: &Task| Item::of(&records::task(task, records::statuses(task, registry)));
    // What is left of a framework that is over has no framework to be shown with.
    let lives = move |task: &&Task| registry.framework(&task.key.framework_id).is_some();
    let is_unreachable = |task: &&Task| task.state == TaskState::Unreachable;
    vec![
        list("tasks", 2, move || {
            of.tasks().filter(lives).filter(move |task| !is_unreachable(task)).map(item)
        }),
        list("unreachable_tasks", 5, move || {
            of.tasks().filter(lives).filter(move |task| is_unreachable(task)).map(item)
        }),
        list("completed_tasks", 3, move || {
            of.completed_tasks().rev().chain(of.tasks().filter(move |task| !lives(task))).map(item)
        }),
    ]
}

fn executors<'a>(of: &'a Sorted<'a>) -> Vec<Part<'a>> {
    let executors = move || of.all_executors().map(|it| Item::of(&records::executor(&it)));
    vec![list("executors", 1, executors)]
}

fn frameworks<'a>(of: &'a Sorted<'a>) -> Vec<Part<'a>> {
    let item = move |it| Item::of(&records::framework(it, Some(of)));
    vec![
        list("frameworks", 1, move || of.seen.frameworks().map(item)),
        list("completed_frameworks", 2, move || of.seen.completed_frameworks().map(item)),
    ]
}

fn agents<'a>(of: &'a Sorted<'a>) -> Vec<Part<'a>> {
    let agents = move || {
        let here = of.seen.registry.agents().filter(|agent| records::is_here(agent));
        let duty = |agent: &Agent| of.seen.registry.duty(&agent.id);
        let total = |agent| of.seen.registry.total_of(agent);
        here.map(move |agent| Item::of(&records::agent(agent, &total(agent), duty(agent), Some(of))))
    };
    vec![list("agents", 1, agents), list("recovered_agents", 2, std::iter::empty)]
}

/// Ends a framework.
pub(super) async fn teardown(on: &Mesos, local: &LocalRoute, who: &Subject, id: &str) -> Response<Body> {
    let unknown = |_| bad("No framework found with specified ID");
    match FrameworkId::parse(id) {
        Ok(id) => read::ask(on, local, who, OperatorCall::Teardown(id), unknown).await,
        Err(_) => unknown(String::new()),
    }
}

/// Says that an agent never comes back.
async fn mark_gone(on: &Mesos, local: &LocalRoute, who: &Subject, id: &str) -> Response<Body> {
    let unknown = |_| plain(StatusCode::NOT_FOUND, format!("Agent '{id}' not found"));
    match AgentId::parse(id) {
        Ok(agent_id) => read::ask(on, local, who, OperatorCall::MarkGone(agent_id), unknown).await,
        Err(_) => unknown(String::new()),
    }
}
