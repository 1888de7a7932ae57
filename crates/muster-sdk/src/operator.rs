//! What operators and tools ask of the masters.

use crate::SdkError;
use crate::credential::{Credential, Shows};
use crate::stream::{chain, said};
use futures::stream::{FuturesUnordered, StreamExt};
use muster_proto::v1::operator_service_client::OperatorServiceClient;
use muster_proto::{limits, v1};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

/// How long the leader is looked for.
const SEARCH_TIME: Duration = Duration::from_secs(10);
/// How long one master may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long one master may take to say how it is.
const STATUS_TIME: Duration = Duration::from_millis(1_500);
/// The others are asked as well when one has said nothing for this long.
const HEDGE: Duration = Duration::from_millis(300);
const DIAL_TIME: Duration = Duration::from_secs(1);
/// The wait after all masters were asked in vain.
const PAUSE: Duration = Duration::from_millis(100);
/// The metadata in which a master that does not lead names the leader.
const LEADER_HINT: &str = "muster-leader";
const PAGE: u32 = 1_000;

/// Asks the leader, wherever it is.
#[derive(Debug)]
pub struct OperatorClient {
    masters: Vec<String>,
    leader: Option<String>,
    channels: BTreeMap<String, Channel>,
    search_time: Duration,
    credential: Shows,
}

/// What one master says of itself.
#[derive(Debug)]
pub struct MasterStatus {
    /// Its address, as given.
    pub address: String,
    /// Its answer, or why there is none.
    pub status: Result<v1::GetRaftStatusResponse, String>,
}

type Client = OperatorServiceClient<InterceptedService<Channel, Shows>>;

impl OperatorClient {
    /// A client of these masters, `host:port` each. It dials when it is asked.
    pub fn new(masters: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            masters: masters.into_iter().map(Into::into).collect(),
            leader: None,
            channels: BTreeMap::new(),
            search_time: SEARCH_TIME,
            credential: Shows::default(),
        }
    }

    /// Asks as this principal.
    pub fn credential(mut self, credential: Option<Credential>) -> Self {
        self.credential = Shows(credential);
        self
    }

    /// Gives up the search for a leader after this time.
    pub fn search_time(mut self, time: Duration) -> Self {
        self.search_time = time;
        self
    }

    fn client(&mut self, address: &str) -> Result<Client, String> {
        let channel = match self.channels.get(address) {
            Some(channel) => channel.clone(),
            None => {
                let endpoint = Endpoint::from_shared(format!("http://{address}"))
                    .map_err(|_| format!("{address:?} is not an address like 127.0.0.1:5050"))?
                    .connect_timeout(DIAL_TIME)
                    .timeout(ANSWER_TIME)
                    .tcp_nodelay(true);
                let channel = endpoint.connect_lazy();
                self.channels.insert(address.to_owned(), channel.clone());
                channel
            }
        };
        let client = OperatorServiceClient::with_interceptor(channel, self.credential.clone());
        Ok(client.max_decoding_message_size(limits::DOWN_FRAME_BYTES_MAX))
    }

    /// Asks for what changes nothing. A master that takes long is waited for, but the others are asked meanwhile: it
    /// may stand still. The first answer counts.
    async fn ask<Q, A, F>(&mut self, request: Q, call: F) -> Result<A, SdkError>
    where
        Q: Clone,
        F: AsyncFn(Client, Request<Q>) -> Result<Response<A>, Status>,
    {
        self.search(request, call, HEDGE).await
    }

    /// Asks for a change: of one master at a time, and of one that just answered as the leader.
    async fn act<Q, A, F>(&mut self, request: Q, call: F) -> Result<A, SdkError>
    where
        Q: Clone,
        F: AsyncFn(Client, Request<Q>) -> Result<Response<A>, Status>,
    {
        let look = v1::ListAgentsRequest { after: String::new(), limit: 1 };
        self.ask(look, async |mut client, look| client.list_agents(look).await).await?;
        self.search(request, call, 2 * ANSWER_TIME).await
    }

    /// Asks the leader: follows hints, tries the other masters, until one answers or the time is up. The next one
    /// is asked when one says that it does not lead, or has said nothing for `hedge`.
    async fn search<Q, A, F>(&mut self, request: Q, call: F, hedge: Duration) -> Result<A, SdkError>
    where
        Q: Clone,
        F: AsyncFn(Client, Request<Q>) -> Result<Response<A>, Status>,
    {
        let deadline = Instant::now() + self.search_time;
        let mut why = String::from("none is given");
        let mut round: VecDeque<String> = self.leader.iter().cloned().collect();
        round.extend(self.masters.iter().filter(|master| self.leader.as_ref() != Some(master)).cloned());
        let mut hinted = 0;
        let mut asked = FuturesUnordered::new();
        let mut silent: BTreeSet<String> = BTreeSet::new();
        let mut next_at = Instant::now();
        loop {
            let now = Instant::now();
            if round.is_empty() && (asked.is_empty() || now >= next_at) {
                self.leader = None;
                hinted = 0;
                if now + PAUSE < deadline {
                    round.extend(self.masters.iter().cloned());
                    next_at = now + PAUSE;
                } else if asked.is_empty() {
                    return Err(SdkError::Unreachable { masters: self.masters.join(", "), why });
                } else {
                    next_at = now + ANSWER_TIME;
                }
            }
            let (address, answer) = tokio::select! {
                Some(answered) = asked.next(), if !asked.is_empty() => answered,
                () = tokio::time::sleep_until(next_at) => {
                    let Some(address) = round.pop_front() else { continue };
                    if silent.insert(address.clone()) {
                        let client = self.client(&address).map_err(SdkError::Argument)?;
                        let answer = call(client, Request::new(request.clone()));
                        asked.push(async move { (address, answer.await) });
                        next_at = Instant::now() + hedge;
                    }
                    continue;
                }
            };
            silent.remove(&address);
            match answer {
                Ok(answer) => {
                    self.leader = Some(address);
                    return Ok(answer.into_inner());
                }
                Err(status) if is_about_leadership(&status) => {
                    why = format!("{address}: {}", words(&status));
                    let hint = status.metadata().get(LEADER_HINT).and_then(|hint| hint.to_str().ok());
                    // A few hints are followed at once; masters that point at each other are not.
                    if let Some(hint) = hint.filter(|hint| hinted < 3 && **hint != *address) {
                        hinted += 1;
                        round.push_front(hint.to_owned());
                    }
                    next_at = Instant::now();
                }
                Err(status) => return Err(SdkError::Refused(said(&status))),
            }
        }
    }

    /// All agents.
    pub async fn agents(&mut self) -> Result<Vec<v1::Agent>, SdkError> {
        let mut all: Vec<v1::Agent> = Vec::new();
        loop {
            let after = all.last().map(|agent| agent.agent_id.clone()).unwrap_or_default();
            let request = v1::ListAgentsRequest { after, limit: PAGE };
            let page =
                self.ask(request, async |mut client, request| client.list_agents(request).await).await?;
            if page.agents.is_empty() {
                return Ok(all);
            }
            all.extend(page.agents);
        }
    }

    /// All frameworks, or the newest completed ones instead.
    pub async fn frameworks(&mut self, completed: bool) -> Result<Vec<v1::Framework>, SdkError> {
        let mut all: Vec<v1::Framework> = Vec::new();
        loop {
            let after = all.last().map(|framework| framework.framework_id.clone()).unwrap_or_default();
            let request = v1::ListFrameworksRequest { after, limit: PAGE, completed };
            let page =
                self.ask(request, async |mut client, request| client.list_frameworks(request).await).await?;
            let more = !page.frameworks.is_empty() && !completed;
            all.extend(page.frameworks);
            if !more {
                return Ok(all);
            }
        }
    }

    /// All tasks of a framework, or of all when none is named.
    pub async fn tasks(&mut self, framework_id: Option<&str>) -> Result<Vec<v1::Task>, SdkError> {
        self.tasks_named(framework_id, "").await
    }

    /// Those of them that have this id; a `*` at its end stands for any end.
    pub async fn tasks_named(
        &mut self,
        framework_id: Option<&str>,
        task_id: &str,
    ) -> Result<Vec<v1::Task>, SdkError> {
        let mut all: Vec<v1::Task> = Vec::new();
        loop {
            let request = v1::ListTasksRequest {
                framework_id: framework_id.unwrap_or_default().into(),
                after_framework_id: all.last().map(|task| task.framework_id.clone()).unwrap_or_default(),
                after_task_id: all.last().map(|task| task.task_id.clone()).unwrap_or_default(),
                limit: PAGE,
                completed: false,
                task_id: task_id.into(),
            };
            let page =
                self.ask(request, async |mut client, request| client.list_tasks(request).await).await?;
            if page.tasks.is_empty() {
                return Ok(all);
            }
            all.extend(page.tasks);
        }
    }

    /// The newest completed tasks of a framework, or of all.
    pub async fn completed_tasks(
        &mut self,
        framework_id: Option<&str>,
        limit: u32,
    ) -> Result<Vec<v1::Task>, SdkError> {
        self.completed_tasks_named(framework_id, "", limit).await
    }

    /// Those of them that have this id; a `*` at its end stands for any end.
    pub async fn completed_tasks_named(
        &mut self,
        framework_id: Option<&str>,
        task_id: &str,
        limit: u32,
    ) -> Result<Vec<v1::Task>, SdkError> {
        let request = v1::ListTasksRequest {
            framework_id: framework_id.unwrap_or_default().into(),
            limit,
            completed: true,
            task_id: task_id.into(),
            ..Default::default()
        };
        let page = self.ask(request, async |mut client, request| client.list_tasks(request).await).await?;
        Ok(page.tasks)
    }

    /// Ends a framework and all its tasks.
    pub async fn teardown(&mut self, framework_id: &str) -> Result<(), SdkError> {
        let request = v1::TeardownRequest { framework_id: framework_id.into() };
        self.act(request, async |mut client, request| client.teardown(request).await).await.map(drop)
    }

    /// Says that an agent will never come back.
    pub async fn mark_agent_gone(&mut self, agent_id: &str) -> Result<(), SdkError> {
        let request = v1::MarkAgentGoneRequest { agent_id: agent_id.into() };
        self.act(request, async |mut client, request| client.mark_agent_gone(request).await).await.map(drop)
    }

    /// Lets a member with an empty or damaged disk back in. `confirm`: its old disk will never come back.
    pub async fn replace_member(&mut self, name: &str, confirm: bool) -> Result<(), SdkError> {
        let request = v1::ReplaceMemberRequest { name: name.into(), confirm };
        self.act(request, async |mut client, request| client.replace_member(request).await).await.map(drop)
    }

    /// Hands leadership to this member, or to the best one. Says to whom.
    pub async fn transfer_leadership(&mut self, name: Option<&str>) -> Result<String, SdkError> {
        let request = v1::TransferLeadershipRequest { name: name.unwrap_or_default().into() };
        let answer =
            self.act(request, async |mut client, request| client.transfer_leadership(request).await).await?;
        Ok(answer.name)
    }

    /// What each given master says of itself; asked all at once, answered by any, leader or not.
    pub async fn raft_status(&mut self) -> Vec<MasterStatus> {
        let mut asked = Vec::new();
        for address in self.masters.clone() {
            let client = self.client(&address);
            asked.push(async move {
                let status = match client {
                    Err(problem) => Err(problem),
                    Ok(mut client) => {
                        let answer = client.get_raft_status(v1::GetRaftStatusRequest {});
                        match tokio::time::timeout(STATUS_TIME, answer).await {
                            Ok(answer) => answer.map(Response::into_inner).map_err(|status| words(&status)),
                            Err(_) => Err(format!("no answer for {} ms", STATUS_TIME.as_millis())),
                        }
                    }
                };
                MasterStatus { address, status }
            });
        }
        futures::future::join_all(asked).await
    }
}

/// Whether another master may answer what this one did not.
fn is_about_leadership(status: &Status) -> bool {
    // A leader's own refusal has the same code, but names nobody else.
    (status.code() == Code::FailedPrecondition && status.metadata().contains_key(LEADER_HINT))
        || status.code() == Code::Unavailable
        // A connection that breaks under a call has no code of its own.
        || (status.code() == Code::Unknown && std::error::Error::source(status).is_some())
        || (status.code() == Code::Cancelled && std::error::Error::source(status).is_some())
}

/// A status in words that say what broke, not in which layer.
fn words(status: &Status) -> String {
    let text = match std::error::Error::source(status) {
        Some(cause) if status.message().is_empty() || status.message().contains("transport") => chain(cause),
        _ => said(status),
    };
    text.replace("tcp connect error", "no connection")
}
