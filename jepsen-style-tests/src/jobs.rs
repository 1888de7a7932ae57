//! The tasks of a framework that speaks to the masters without the SDK, and what it writes down of them.

use crate::client::{Told, amounts};
use crate::history::{Amounts, Event, Phase, Recorder};
use crate::model::{MARKS, marking_command};
use muster_model::{Reason, Resources, TaskState};
use muster_proto::mesos::framework_info::{Capability, capability::Type};
use muster_proto::{mesos, wire_resources};
use muster_testkit::TestCluster;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A task that nobody launched.
pub(crate) const NOBODYS: &str = "nobodys";
/// How long the masters keep the framework when it is gone: longer than any run is without it.
const FAILOVER_S: f64 = 600.0;
/// What each task needs.
const TASK_CPUS_MILLI: u64 = 100;
const TASK_MEM_MB: u64 = 16;
/// How long tasks run, and those that are to be killed: longer than a run waits for them.
const RUN_MS: std::ops::RangeInclusive<u64> = 0..=600;
const ENDLESS_MS: u64 = 600_000;
const KILL_ONE_IN: u32 = 4;
/// Tasks that are open at once, and launched on one offer.
const OPEN_MAX: usize = 6;
const TOGETHER_MAX: usize = 2;
/// How long what it does not want is not to be offered again.
const REFUSE_MS: std::ops::RangeInclusive<u64> = 100..=400;

/// What a framework launched, as far as no end was told of it.
#[derive(Debug)]
pub(crate) struct Jobs {
    name: &'static str,
    recorder: Recorder,
    marks: PathBuf,
    pub(crate) rng: SmallRng,
    launched: u64,
    open: BTreeMap<String, Open>,
    /// It launches nothing more, and what it has is to end.
    pub(crate) is_ending: bool,
}

#[derive(Debug)]
struct Open {
    /// Nothing was heard of it.
    undecided: bool,
    /// It never ends by itself.
    kill: bool,
    /// It was asked to end, since it was last said that this may be forgotten.
    kill_asked: bool,
}

impl Jobs {
    /// Of a framework of this name and these dice.
    pub(crate) fn new(name: &'static str, cluster: &TestCluster, recorder: &Recorder, seed: u64) -> Self {
        Self {
            name,
            recorder: recorder.clone(),
            marks: cluster.dir().join(MARKS),
            rng: SmallRng::seed_from_u64(seed),
            launched: 0,
            open: BTreeMap::new(),
            is_ending: false,
        }
    }

    pub(crate) fn record(&self, event: Event) {
        self.recorder.record(self.name, event);
    }

    /// When it is, for what is told later.
    pub(crate) fn now_us(&self) -> u64 {
        self.recorder.now_us()
    }

    /// How the framework describes itself.
    pub(crate) fn framework(&self) -> mesos::FrameworkInfo {
        mesos::FrameworkInfo {
            name: self.name.into(),
            failover_timeout: Some(FAILOVER_S),
            capabilities: vec![Capability { r#type: Some(Type::PartitionAware.into()) }],
            ..Default::default()
        }
    }

    /// Whether nothing is left of what was launched.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether it may launch on what is offered.
    pub(crate) fn takes(&self, offered: &Resources) -> bool {
        !self.is_ending && self.open.len() < OPEN_MAX && offered.contains(&needs())
    }

    /// For how long the rest of an offer, or one that is declined, is not to be offered again, in ms.
    pub(crate) fn refuse_ms(&mut self) -> u64 {
        self.rng.random_range(REFUSE_MS)
    }

    /// Tasks for an offer of which it was told then, and that it is about to use; none if it has no room.
    pub(crate) fn launch(
        &mut self,
        offer: &str,
        offered: &Resources,
        (agent_id, hostname): (&str, &str),
        since_us: u64,
    ) -> Vec<mesos::TaskInfo> {
        let mut left = offered.clone();
        let mut infos = Vec::new();
        for _ in 0..self.rng.random_range(1..=TOGETHER_MAX) {
            if !self.takes(&left) {
                break;
            }
            left.subtract(&needs());
            self.launched += 1;
            let task = format!("{}-{}", self.name, self.launched);
            let kill = self.rng.random_ratio(1, KILL_ONE_IN);
            let (phase, agent) = (Phase::Invoked, hostname.to_owned());
            self.record(Event::Launch { phase, task: task.clone(), agent, needs: amounts(&needs()) });
            let ms = if kill { ENDLESS_MS } else { self.rng.random_range(RUN_MS) };
            infos.push(self.describe(&task, agent_id, ms));
            self.open.insert(task, Open { undecided: true, kill, kill_asked: false });
        }
        if !infos.is_empty() {
            let (offer, agent, holds) = (offer.to_owned(), hostname.to_owned(), amounts(offered));
            self.record(Event::Accepts { offer, agent, holds, since_us });
        }
        infos
    }

    fn describe(&self, task: &str, agent_id: &str, ms: u64) -> mesos::TaskInfo {
        let command = marking_command(&self.marks, task, ms);
        mesos::TaskInfo {
            name: task.into(),
            task_id: mesos::TaskId { value: task.into() },
            agent_id: mesos::AgentId { value: agent_id.into() },
            resources: wire_resources(&needs()),
            command: Some(mesos::CommandInfo { value: Some(command), ..Default::default() }),
            ..Default::default()
        }
    }

    /// A launch is decided, unless it was before.
    pub(crate) fn decide(&mut self, task: &str, is_launched: bool) {
        let Some(open) = self.open.get_mut(task) else { return };
        if !std::mem::replace(&mut open.undecided, false) {
            return;
        }
        let phase = if is_launched { Phase::Ok } else { Phase::Refused };
        let (agent, needs) = (String::new(), Amounts::new());
        self.record(Event::Launch { phase, task: task.into(), agent, needs });
        if !is_launched {
            self.open.remove(task);
        }
    }

    /// The framework is told of a task; with a uuid the update waits for an acknowledgement.
    pub(crate) fn updated(
        &mut self,
        task: &str,
        state: TaskState,
        reason: Option<Reason>,
        message: &str,
        uuid: Option<String>,
    ) {
        let durable = uuid.is_some();
        let name = reason.map_or("", |reason| reason.name());
        self.record(Event::Update {
            task: task.into(),
            state: state.name().into(),
            terminal: state.is_terminal(),
            durable,
            reason: format!("{name} {message}").trim_start().into(),
            uuid,
        });
        let told = Told { state, durable, answer: !durable && reason == Some(Reason::Reconciliation) };
        self.decide(task, told.is_launched());
        if durable && state.is_terminal() {
            self.open.remove(task);
        }
    }

    /// Those of which nothing was heard.
    pub(crate) fn undecided(&self) -> impl Iterator<Item = &String> {
        self.open.iter().filter(|(_, open)| open.undecided).map(|(task, _)| task)
    }

    /// The tasks whose end is to be asked for now; they count as asked for.
    pub(crate) fn kills_due(&mut self) -> Vec<String> {
        let is_ending = self.is_ending;
        let due = self
            .open
            .iter_mut()
            .filter(|(_, open)| (open.kill || is_ending) && !open.undecided && !open.kill_asked);
        let due: Vec<String> = due
            .map(|(task, open)| {
                open.kill_asked = true;
                task.clone()
            })
            .collect();
        due.iter().for_each(|task| self.record(Event::Kill { task: task.clone() }));
        due
    }

    /// A kill was not said, or nobody knows: it is asked for again.
    pub(crate) fn kill_failed(&mut self, task: &str) {
        if let Some(open) = self.open.get_mut(task) {
            open.kill_asked = false;
        }
    }

    /// None of the kills may have been said.
    pub(crate) fn kills_failed(&mut self) {
        self.open.values_mut().for_each(|open| open.kill_asked = false);
    }
}

/// What each task needs.
fn needs() -> Resources {
    Resources::of(TASK_CPUS_MILLI, TASK_MEM_MB)
}
