//! What operators and tools ask, by unary calls.

use crate::admit::{View, known, operator};
use crate::route::{Route, Routes, ToLeader};
use muster_http::{
    auth::{Auth, Realm, Subject},
    body::Writers,
};
use muster_leader::OperatorCall;
use muster_model::{AgentId, CallOutcome, FrameworkId, Resources, TaskId, TaskKey};
use muster_proto::{v1, wire_resources};
use muster_raft::{NotLeading, Raft, ReplaceError, TransferError};
use muster_registry::{Agent, DrainState, Duty, Framework, Registry, Task};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};
use tokio::sync::oneshot;
use tonic::{Code, Request, Response, Status, metadata::MetadataValue};

const PAGE: u32 = 1_000;
const PAGE_MAX: u32 = 10_000;

/// The operator's service of one master.
#[derive(Clone)]
pub(crate) struct Operator {
    pub(crate) raft: Raft,
    pub(crate) routes: Routes,
    /// Who asks, and what it may.
    pub(crate) auth: Arc<Auth>,
    /// Write long answers, and make lists.
    pub(crate) writers: Writers,
}

fn page(limit: u32) -> usize {
    (if limit == 0 { PAGE } else { limit.min(PAGE_MAX) }) as usize
}

impl Operator {
    /// Says who leads, if anyone does.
    fn not_leading(&self, error: &NotLeading) -> Status {
        let routed = self.routes.route.borrow().leader().map(|(_, leader)| leader.address.clone());
        let leader = error.leader.as_ref().map(|leader| leader.address.clone()).or(routed);
        let Some(leader) = leader else {
            return Status::unavailable("no leader is known yet: try again, or see `muster raft status`");
        };
        let mut status =
            Status::new(Code::FailedPrecondition, format!("this master does not lead: ask {leader}"));
        if let Ok(value) = MetadataValue::try_from(leader) {
            status.metadata_mut().insert("muster-leader", value);
        }
        status
    }

    /// A current registry, confirmed with a quorum.
    async fn read(&self) -> Result<Registry, Status> {
        self.raft.read().await.map_err(|error| self.not_leading(&error))
    }

    /// Answers out of a current registry, on a thread that may block: there may be a million tasks to go through.
    async fn list<Q: Send + 'static, A: Send + 'static>(
        &self,
        request: Request<Q>,
        list: impl FnOnce(&Registry, &View, Q) -> A + Send + 'static,
    ) -> Result<Response<A>, Status> {
        let view = View::of(&self.auth, &self.who(Realm::Readonly, &request)?);
        let registry = self.read().await?;
        let answer = self.writers.run(move || list(&registry, &view, request.into_inner())).await;
        let answer = answer.ok_or_else(|| Status::unavailable("too many read at once: try again"))?;
        Ok(Response::new(answer))
    }

    fn who<T>(&self, realm: Realm, request: &Request<T>) -> Result<Subject, Status> {
        known(&self.auth, realm, request.metadata())
    }

    async fn ask(&self, who: &Subject, call: OperatorCall) -> Result<(), Status> {
        if !self.raft.with_registry(|registry| operator(&self.auth, who, &call, registry)) {
            return Err(Status::permission_denied("not authorized"));
        }
        let Route::Local(local) = self.routes.route.borrow().clone() else {
            return Err(self.not_leading(&NotLeading { leader: None }));
        };
        let (answer, wait) = oneshot::channel();
        let lost =
            || Status::unavailable("leadership ended before the outcome was known: look whether it is done");
        local.inputs.send(ToLeader::Operator(call, answer)).await.map_err(|_| lost())?;
        let outcome = tokio::select! {
            biased;
            outcome = wait => outcome,
            () = self.routes.gone(&local) => return Err(lost()),
        };
        match outcome {
            Ok(CallOutcome::Done | CallOutcome::Accepted(_)) => Ok(()),
            // Only this says that it is not done: a failed precondition is no outcome that is not known.
            Ok(CallOutcome::Refused(why)) => Err(Status::failed_precondition(why)),
            Ok(CallOutcome::Busy) => Err(Status::unavailable("the leader is busy: try again")),
            Ok(CallOutcome::Unknown) | Err(_) => Err(lost()),
        }
    }
}

fn agent(registry: &Registry, agent: &Agent) -> v1::Agent {
    v1::Agent {
        agent_id: agent.id.to_string(),
        hostname: agent.info.hostname.to_string(),
        port: agent.info.port.into(),
        state: agent.state_name().into(),
        total: wire_resources(&registry.total_of(agent)),
        used: wire_resources(&registry.held_on(&agent.id)),
        tasks: registry.task_count_of_agent(&agent.id) as u64,
        machine_id: agent.info.machine_id.to_string(),
        registered_wall_ms: agent.registered.0,
        duty: registry.duty(&agent.id).map_or("", duty).into(),
        address: address(agent),
    }
}

/// Where an agent's own API is.
fn address(agent: &Agent) -> String {
    let port = agent.info.port;
    match muster_proto::agent::ip(&agent.sealed, &agent.info.hostname) {
        Some(ip) => SocketAddr::new(ip, port).to_string(),
        None => format!("{}:{port}", agent.info.hostname),
    }
}

/// What an operator wants of an agent that is not to be offered.
fn duty(duty: &Duty) -> &'static str {
    match duty.drain.as_ref().map(|drain| drain.state) {
        None => "deactivated",
        Some(DrainState::Draining) => "draining",
        Some(DrainState::Drained) => "drained",
    }
}

fn framework(framework: &Framework, connected: bool, used: &Resources, tasks: u64) -> v1::Framework {
    v1::Framework {
        framework_id: framework.id.to_string(),
        name: framework.info.name.to_string(),
        user: framework.info.user.to_string(),
        roles: framework.info.roles.iter().map(ToString::to_string).collect(),
        connected,
        failover_timeout_ms: framework.info.failover_timeout_ms,
        tasks,
        used: wire_resources(used),
        registered_wall_ms: framework.registered.0,
    }
}

fn task(task: &Task) -> v1::Task {
    v1::Task {
        framework_id: task.key.framework_id.to_string(),
        task_id: task.key.task_id.to_string(),
        name: task.name.to_string(),
        agent_id: task.agent_id.to_string(),
        state: muster_proto::task::wire_state(task.state).into(),
        resources: wire_resources(&task.resources),
        launch: Some(muster_proto::task::wire_launch_number(task.launch)),
        unacknowledged: task.updates().len() as u32,
        held: task.held,
        message: task.message().to_string(),
        launched_wall_ms: task.launched.0,
        updated_wall_ms: task.updated.0,
        executor_id: task.executor_id.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

fn agents(registry: &Registry, view: &View, asked: v1::ListAgentsRequest) -> Vec<v1::Agent> {
    let after = registry.agents_after(&AgentId::new(&asked.after));
    let shown = after.take(page(asked.limit)).map(|it| {
        let mut agent = agent(registry, it);
        view.retain(&mut agent.total);
        view.retain(&mut agent.used);
        agent
    });
    shown.collect()
}

fn frameworks(registry: &Registry, view: &View, asked: v1::ListFrameworksRequest) -> Vec<v1::Framework> {
    if asked.completed {
        let shown = registry.completed_frameworks().filter(|it| view.framework(&it.framework));
        let completed = shown.take(page(asked.limit));
        return completed.map(|it| framework(&it.framework, false, &Resources::none(), 0)).collect();
    }
    let after = registry.frameworks().skip_while(|it| it.id.as_str() <= asked.after.as_str());
    let some = after.filter(|it| view.framework(it)).take(page(asked.limit));
    let shown = some.map(|it| {
        let mut used = Resources::none();
        for (_, resources, n) in registry.held_by_tasks_of(&it.id) {
            used.add(&resources.times(n));
        }
        framework(it, it.is_connected(), &used, registry.task_count_of_framework(&it.id) as u64)
    });
    shown.collect()
}

fn tasks(registry: &Registry, view: &View, asked: v1::ListTasksRequest) -> Vec<v1::Task> {
    let over: BTreeMap<&FrameworkId, &Framework> = match view.has_all_tasks() || !asked.completed {
        true => BTreeMap::new(),
        false => registry.completed_frameworks().map(|it| (&it.framework.id, &it.framework)).collect(),
    };
    // Tasks of a framework of which nothing is known any more are for those who may see all.
    let shown = |it: &&Task| {
        let id = &it.key.framework_id;
        view.task(it, registry.framework(id).or_else(|| over.get(id).copied()))
    };
    let only = asked.framework_id.as_str();
    let framework_id = FrameworkId::new(only);
    let named = |it: &&Task| match asked.task_id.strip_suffix('*') {
        Some(begin) => it.key.task_id.as_str().starts_with(begin),
        None => asked.task_id.is_empty() || it.key.task_id.as_str() == asked.task_id,
    };
    let limit = page(asked.limit);
    if asked.completed {
        let shown = |it: &&Task| named(it) && shown(it);
        return match only.is_empty() {
            true => registry.completed_tasks().filter(shown).take(limit).map(task).collect(),
            false => {
                let all = registry.completed_tasks_of_framework(&framework_id);
                all.filter(shown).take(limit).map(task).collect()
            }
        };
    }
    let after_framework = if asked.after_framework_id.is_empty() { only } else { &asked.after_framework_id };
    let start = TaskKey {
        framework_id: FrameworkId::new(after_framework),
        task_id: TaskId::new(&asked.after_task_id),
    };
    let after = registry.tasks_from(start.clone()).filter(|it| it.key != start);
    // The tasks of one framework lie together: beyond them nothing more can match.
    let ours = after.take_while(|it| only.is_empty() || it.key.framework_id.as_str() == only);
    ours.filter(named).filter(shown).take(limit).map(task).collect()
}

fn status(status: muster_raft::Status) -> v1::GetRaftStatusResponse {
    let leader = status.leader.map(|it| v1::Leader { name: it.name, address: it.address });
    let members = status.members.into_iter().map(|it| v1::MemberStatus {
        name: it.member.name,
        address: it.member.address,
        node_id: it.node_id,
        voter: it.voter,
        matched_index: it.matched_index.map(|index| index.0),
    });
    v1::GetRaftStatusResponse {
        name: status.name,
        cluster_id: status.cluster_id,
        state: status.state.into(),
        leader,
        fence: Some(muster_proto::agent::wire_fence(status.fence)),
        last_log_index: status.last_log_index.0,
        committed_index: status.committed_index.0,
        applied_index: status.applied_index.0,
        snapshot_index: status.snapshot_index.0,
        purged_index: status.purged_index.0,
        members: members.collect(),
        state_hash: status.state_hash,
        node_id: status.node_id,
        note: status.note,
    }
}

#[tonic::async_trait]
impl v1::operator_service_server::OperatorService for Operator {
    async fn list_agents(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let list = |registry: &Registry, view: &View, asked| v1::ListAgentsResponse {
            agents: agents(registry, view, asked),
        };
        self.list(request, list).await
    }

    async fn list_frameworks(
        &self,
        request: Request<v1::ListFrameworksRequest>,
    ) -> Result<Response<v1::ListFrameworksResponse>, Status> {
        let list = |registry: &Registry, view: &View, asked| v1::ListFrameworksResponse {
            frameworks: frameworks(registry, view, asked),
        };
        self.list(request, list).await
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let list = |registry: &Registry, view: &View, asked| v1::ListTasksResponse {
            tasks: tasks(registry, view, asked),
        };
        self.list(request, list).await
    }

    async fn get_raft_status(
        &self,
        request: Request<v1::GetRaftStatusRequest>,
    ) -> Result<Response<v1::GetRaftStatusResponse>, Status> {
        self.who(Realm::Readonly, &request)?;
        Ok(Response::new(status(self.raft.status())))
    }

    async fn teardown(
        &self,
        request: Request<v1::TeardownRequest>,
    ) -> Result<Response<v1::TeardownResponse>, Status> {
        let who = self.who(Realm::Readwrite, &request)?;
        let id = FrameworkId::parse(&request.into_inner().framework_id)
            .map_err(|error| Status::invalid_argument(format!("framework_id {error}")))?;
        self.ask(&who, OperatorCall::Teardown(id)).await?;
        Ok(Response::new(v1::TeardownResponse {}))
    }

    async fn mark_agent_gone(
        &self,
        request: Request<v1::MarkAgentGoneRequest>,
    ) -> Result<Response<v1::MarkAgentGoneResponse>, Status> {
        let who = self.who(Realm::Readwrite, &request)?;
        let id = AgentId::parse(&request.into_inner().agent_id)
            .map_err(|error| Status::invalid_argument(format!("agent_id {error}")))?;
        self.ask(&who, OperatorCall::MarkGone(id)).await?;
        Ok(Response::new(v1::MarkAgentGoneResponse {}))
    }

    async fn replace_member(
        &self,
        request: Request<v1::ReplaceMemberRequest>,
    ) -> Result<Response<v1::ReplaceMemberResponse>, Status> {
        self.who(Realm::Readwrite, &request)?;
        let request = request.into_inner();
        self.raft.replace_member(&request.name, request.confirm).await.map_err(|error| match &error {
            ReplaceError::NotLeading(why) => self.not_leading(why),
            _ => self.member_error(error.to_string()),
        })?;
        Ok(Response::new(v1::ReplaceMemberResponse {}))
    }

    async fn transfer_leadership(
        &self,
        request: Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipResponse>, Status> {
        self.who(Realm::Readwrite, &request)?;
        let name = request.into_inner().name;
        let to = (!name.is_empty()).then_some(name.as_str());
        let name = self.raft.transfer_leadership(to).await.map_err(|error| match &error {
            TransferError::NotLeading(why) => self.not_leading(why),
            _ => self.member_error(error.to_string()),
        })?;
        Ok(Response::new(v1::TransferLeadershipResponse { name }))
    }
}

impl Operator {
    /// A membership call failed: on a follower the caller is sent to the leader.
    fn member_error(&self, why: String) -> Status {
        match &*self.routes.route.borrow() {
            Route::Local(_) => Status::failed_precondition(why),
            _ => self.not_leading(&NotLeading { leader: None }),
        }
    }
}
