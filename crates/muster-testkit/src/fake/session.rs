//! One subscription of a scheduler, as the test plays its master.

use super::core::{Core, FakeCall, Shared, Subscribed};
use anyhow::{Context, bail, ensure};
use muster_model::event::{CallOutcome, OfferWithAgent};
use muster_model::{
    AgentId, Fence, FrameworkId, FrameworkInfo, Offer, OfferId, Resources, Role, SchedulerCall,
    SchedulerEvent, Sealed, Source, Status, TaskId, TaskSpec, TaskState, Term, Uuid, WallTime,
};
use muster_proto::SchedulerDown;
use std::collections::VecDeque;
use std::sync::Arc;

/// Calls that came while another was waited for.
const KEPT_MAX: usize = 4_096;
/// The port that agents of a fake cluster are said to have.
const AGENT_PORT: u16 = 5_051;

/// Resources to offer.
#[derive(Debug, Clone)]
pub struct OfferSpec {
    hostname: Arc<str>,
    resources: Resources,
    role: Option<Role>,
    agent_info: Sealed,
}

impl OfferSpec {
    /// These resources of the agent on this host, in the framework's first role. One host has one agent.
    pub fn new(hostname: impl Into<Arc<str>>, resources: Resources) -> Self {
        Self { hostname: hostname.into(), resources, role: None, agent_info: Sealed::default() }
    }

    /// In this role.
    pub fn role(mut self, role: Role) -> Self {
        self.role = Some(role);
        self
    }

    /// With this encoded `mesos.v1.AgentInfo`, which has the agent's attributes.
    pub fn agent_info(mut self, info: impl Into<Arc<[u8]>> + AsRef<[u8]>) -> Self {
        self.agent_info = Sealed::new(info);
        self
    }
}

/// A status update that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeUpdate {
    /// Of which task.
    pub task_id: TaskId,
    /// What the scheduler acknowledges.
    pub uuid: Uuid,
    event: SchedulerEvent,
}

/// One subscription of a scheduler. It ends with its stream, with a leader change, and when the scheduler subscribes
/// again; from then on all methods fail and say so. Dropping it ends nothing.
pub struct FakeSession {
    shared: Shared,
    of: Subscribed,
    kept: VecDeque<FakeCall>,
    /// Why it ended, when that was read.
    ended: Option<String>,
}

impl std::fmt::Debug for FakeSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeSession")
            .field("framework_id", &self.of.framework_id)
            .field("term", &self.of.fence.term)
            .finish_non_exhaustive()
    }
}

impl FakeSession {
    pub(crate) fn new(shared: Shared, of: Subscribed) -> Self {
        Self { shared, of, kept: VecDeque::new(), ended: None }
    }

    /// The framework's id.
    pub fn framework_id(&self) -> &FrameworkId {
        &self.of.framework_id
    }

    /// The id that the scheduler subscribed with: none when it was new.
    pub fn asked_id(&self) -> Option<&FrameworkId> {
        self.of.asked_id.as_ref()
    }

    /// How the framework described itself.
    pub fn info(&self) -> &FrameworkInfo {
        &self.of.info
    }

    /// The roles that it subscribed with and wants no offers for.
    pub fn suppressed_roles(&self) -> &[Role] {
        &self.of.suppressed_roles
    }

    /// In which term of its leader it holds.
    pub fn term(&self) -> Term {
        self.of.fence.term
    }

    /// The core, if this session still holds.
    fn holding(&self) -> anyhow::Result<std::sync::MutexGuard<'_, Core>> {
        let core = self.shared.lock();
        ensure!(
            core.holds(self.of.stream, self.of.session),
            "the session of term {} has ended: take the next one with `subscribed`",
            self.of.fence.term
        );
        Ok(core)
    }

    /// Offers resources.
    pub fn offer(&self, spec: OfferSpec) -> anyhow::Result<OfferId> {
        self.offers([spec])?.pop().context("an offer has an id")
    }

    /// Offers resources of several agents in one event.
    pub fn offers(&self, specs: impl IntoIterator<Item = OfferSpec>) -> anyhow::Result<Vec<OfferId>> {
        let mut core = self.holding()?;
        let (mut offer_ids, mut event) = (Vec::new(), Vec::new());
        for OfferSpec { hostname, resources, role, agent_info } in specs {
            let role = role.or_else(|| self.of.info.roles.first().cloned()).unwrap_or_else(Role::any);
            let offer = Offer {
                offer_id: core.next_offer_id(),
                framework_id: self.of.framework_id.clone(),
                role,
                agent_id: core.agent_on(&hostname)?,
                resources: resources.into(),
            };
            core.framework(&self.of.framework_id)?.offered(offer.clone())?;
            offer_ids.push(offer.offer_id.clone());
            event.push(OfferWithAgent {
                offer,
                hostname,
                port: AGENT_PORT,
                agent: agent_info,
                unavailability: None,
                executor_ids: Vec::new(),
            });
        }
        core.tell(self.of.stream, SchedulerEvent::Offers(event))?;
        Ok(offer_ids)
    }

    /// Takes an offer back that stands.
    pub fn rescind(&self, offer_id: &OfferId) -> anyhow::Result<()> {
        let mut core = self.holding()?;
        core.framework(&self.of.framework_id)?.rescinded(offer_id)?;
        core.tell(self.of.stream, SchedulerEvent::Rescind(offer_id.clone()))
    }

    /// Sends a state of a launched task, as its agent would, and keeps it until it is acknowledged.
    pub fn update(&self, task_id: &TaskId, state: TaskState) -> anyhow::Result<FakeUpdate> {
        let status = Status {
            state,
            source: Source::Agent,
            reason: None,
            message: "".into(),
            wall: WallTime(0),
            sealed: Sealed::default(),
        };
        self.update_with(task_id, status)
    }

    /// The same with all that a status has.
    pub fn update_with(&self, task_id: &TaskId, status: Status) -> anyhow::Result<FakeUpdate> {
        let mut core = self.holding()?;
        let (uuid, event) = core.framework(&self.of.framework_id)?.update(task_id, status)?;
        core.tell(self.of.stream, event.clone())?;
        Ok(FakeUpdate { task_id: task_id.clone(), uuid, event })
    }

    /// Sends an update once more: masters do until they have its acknowledgement.
    pub fn repeat(&self, update: &FakeUpdate) -> anyhow::Result<()> {
        self.send(update.event.clone())
    }

    /// Says that an agent is lost. Its tasks take updates of their own.
    pub fn agent_lost(&self, agent_id: &AgentId) -> anyhow::Result<()> {
        self.send(SchedulerEvent::AgentLost(agent_id.clone()))
    }

    /// The id of the agent on a host.
    pub fn agent_on(&self, hostname: &str) -> anyhow::Result<AgentId> {
        self.shared.lock().agent_on(hostname)
    }

    /// Sends a heartbeat.
    pub fn heartbeat(&self) -> anyhow::Result<()> {
        self.send(SchedulerEvent::Heartbeat)
    }

    /// Sends any event, as it is.
    pub fn send(&self, event: SchedulerEvent) -> anyhow::Result<()> {
        self.holding()?.tell(self.of.stream, event)
    }

    /// Sends an event as the leader of the term before would, who does not know yet that it leads no more:
    /// schedulers must ignore it.
    pub fn send_stale(&self, event: SchedulerEvent) -> anyhow::Result<()> {
        let stale = Fence { term: Term(self.of.fence.term.0.saturating_sub(1)), ..self.of.fence };
        self.holding()?.send(self.of.stream, stale, SchedulerDown::Event(event))
    }

    /// Tells the scheduler to dial another master. The stream stays until the scheduler leaves it.
    pub fn redial(&self, why: &str) -> anyhow::Result<()> {
        self.holding()?.send(self.of.stream, Fence::default(), SchedulerDown::Redial(why.into()))
    }

    /// Says that the master wants no more of this framework, and ends the stream: drivers stop.
    pub fn error(&self, why: &str) -> anyhow::Result<()> {
        self.holding()?.error(self.of.stream, why);
        Ok(())
    }

    /// Ends the stream without a word. The term stays.
    pub fn break_stream(&self) -> anyhow::Result<()> {
        self.holding()?.end(self.of.stream, "the test broke the stream");
        Ok(())
    }

    /// The next call, which is answered: launched, done. Fails after [`FakeMaster::patience`](super::FakeMaster::patience),
    /// and when the session ends first.
    pub async fn next_call(&mut self) -> anyhow::Result<SchedulerCall> {
        let asked = self.wait("any call").await?;
        self.carry_out_and_answer(&asked)?;
        Ok(asked.call)
    }

    /// The next call, which waits for [`FakeSession::answer`]. Nothing of it is carried out.
    pub async fn next_unanswered(&mut self) -> anyhow::Result<FakeCall> {
        self.wait("any call").await
    }

    /// The tasks of the next call, which must be an ACCEPT, and is answered.
    pub async fn accepted(&mut self) -> anyhow::Result<Vec<TaskSpec>> {
        match self.expect("an ACCEPT").await? {
            SchedulerCall::Accept { tasks, .. } => Ok(tasks),
            other => bail!("waited for an ACCEPT, but the scheduler called {other:?}"),
        }
    }

    /// The offers of the next call, which must be a DECLINE, and is answered.
    pub async fn declined(&mut self) -> anyhow::Result<Vec<OfferId>> {
        match self.expect("a DECLINE").await? {
            SchedulerCall::Decline { offer_ids, .. } => Ok(offer_ids),
            other => bail!("waited for a DECLINE, but the scheduler called {other:?}"),
        }
    }

    /// The task of the next call, which must be a KILL, and is answered. An update that the task ended is the test's.
    pub async fn killed(&mut self) -> anyhow::Result<TaskId> {
        match self.expect("a KILL").await? {
            SchedulerCall::Kill { task_id, .. } => Ok(task_id),
            other => bail!("waited for a KILL, but the scheduler called {other:?}"),
        }
    }

    async fn expect(&mut self, what: &str) -> anyhow::Result<SchedulerCall> {
        let asked = self.wait(what).await?;
        self.carry_out_and_answer(&asked)?;
        Ok(asked.call)
    }

    /// Waits for the acknowledgement of an update, and answers it. Other calls that come before it are kept, in
    /// order and unanswered, for those who wait for them.
    pub async fn acknowledged(&mut self, update: &FakeUpdate) -> anyhow::Result<()> {
        let meant = SchedulerCall::Acknowledge { task_id: update.task_id.clone(), uuid: update.uuid };
        if let Some(at) = self.kept.iter().position(|asked| asked.call == meant)
            && let Some(asked) = self.kept.remove(at)
        {
            return self.carry_out_and_answer(&asked);
        }
        let what = format!("the acknowledgement of an update of task {}", update.task_id);
        loop {
            let asked = self.receive(&what).await?;
            if asked.call == meant {
                return self.carry_out_and_answer(&asked);
            }
            ensure!(self.kept.len() < KEPT_MAX, "{KEPT_MAX} calls came, but not {what}");
            self.kept.push_back(asked);
        }
    }

    /// Answers a call; one that asks for no answer gets none.
    pub fn answer(&self, asked: &FakeCall, outcome: CallOutcome) -> anyhow::Result<()> {
        self.holding()?.answer(self.of.stream, asked.id, outcome)
    }

    /// Does what a call asks for, and gives back what its answer would be. With another answer, or none, the
    /// scheduler does not know that it is done: answer [`CallOutcome::Unknown`], or change the leader.
    pub fn carry_out(&self, asked: &FakeCall) -> anyhow::Result<CallOutcome> {
        self.holding()?.carry_out(self.of.stream, &self.of.framework_id, &asked.call)
    }

    fn carry_out_and_answer(&self, asked: &FakeCall) -> anyhow::Result<()> {
        let outcome = self.carry_out(asked)?;
        self.answer(asked, outcome)
    }

    async fn wait(&mut self, what: &str) -> anyhow::Result<FakeCall> {
        match self.kept.pop_front() {
            Some(asked) => Ok(asked),
            None => self.receive(what).await,
        }
    }

    async fn receive(&mut self, what: &str) -> anyhow::Result<FakeCall> {
        let patience = self.shared.lock().patience;
        if self.ended.is_none() {
            match tokio::time::timeout(patience, self.of.calls.recv()).await {
                Err(_) => bail!("waited for {what}, but the scheduler called nothing within {patience:?}"),
                Ok(Some(Ok(asked))) => return Ok(asked),
                Ok(Some(Err(why))) => self.ended = Some(why),
                Ok(None) => self.ended = Some("its queue was full".into()),
            }
        }
        let why = self.ended.as_deref().unwrap_or_default();
        bail!("waited for {what}, but the session ended: {why}")
    }
}
