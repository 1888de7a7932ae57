//! A framework: the real driver machine, and a scheduler that launches, declines and kills at random. What it
//! knows of its tasks outlives its process.

use crate::{
    agent::BUILT_IN,
    dice::{Dice, token},
    fault::{Fault, Step, What},
    forge::{Heard, Present},
    plan::{Law, Plan},
    world::{Client, DownFrame, Event, World},
};
use muster_driver::{Callback, Config, Down, Driver, Effect, Input};
use muster_model::{
    Call, Capabilities, Event as Frame, ExecutorId, Fence, FrameworkId, FrameworkInfo, LaunchNumber, OfferId,
    Operation, Resources, Role, SchedulerCall, Sealed, Session, TaskId, TaskKey, TaskSpec, TaskState, Uuid,
    event::OfferWithAgent, task::ExecutorSpec,
};
use std::collections::{BTreeMap, BTreeSet};

/// How long a framework's scheduler may stay away, in ms; the first of them may stay away for longer.
const FAILOVER_MS: [u64; 3] = [40_000, 12_000, 4_000];
/// How late masters and frameworks may hear of each other's end: what the failover law allows for.
const HEARS_LATE_MS: u64 = 3_000;
/// How often a framework that winds up asks again for the end of what lives.
const CHORE_MS: u64 = 5_000;

#[derive(Debug, Clone)]
pub(crate) enum FrameworkEvent {
    Wake(u64),
    /// The scheduler wants a task ended.
    Kill(TaskId),
    /// Another scheduler goes on, if this life is still the newest.
    Return(u64),
    /// It wants offers again.
    Revive,
    /// It looks after what lives.
    Chore,
}

#[derive(Debug)]
pub(crate) struct Framework {
    n: usize,
    seed: u64,
    dice: Dice,
    driver: Option<Driver>,
    /// Counts schedulers.
    life: u64,
    id: Option<FrameworkId>,
    /// The driver's dials and their streams.
    streams: BTreeMap<u64, u64>,
    /// The highest fence its driver knows.
    fence: Fence,
    wake_at: Option<u64>,
    tasks: u64,
    /// Offers kept for later.
    offers: Vec<OfferId>,
    living: BTreeSet<TaskId>,
    /// Terminal updates by task, as the framework saw them.
    ended: BTreeMap<TaskId, TaskState>,
    seen: BTreeMap<TaskId, Vec<Uuid>>,
    /// The newest state that a living task was told to have.
    told: BTreeMap<TaskId, TaskState>,
    is_subscribed: bool,
    /// When the newest frame that it had in a subscription was sent.
    heard_at: u64,
    /// Nobody will go on under its id.
    is_over: bool,
    /// It tears itself down.
    is_stopping: bool,
    /// Operators asked that it be torn down.
    is_condemned: bool,
    /// Nothing goes wrong any more: one more task, and then nothing new is launched.
    is_done: bool,
    /// The last task, once there was an offer for it.
    last: Option<TaskId>,
    /// Whether some of its tasks share executors.
    executors: bool,
}

impl Framework {
    pub(crate) fn new(n: usize, plan: &Plan) -> Self {
        Self {
            n,
            seed: plan.seed,
            dice: Dice::of(plan.seed, "framework", n),
            driver: None,
            life: 0,
            id: None,
            streams: BTreeMap::new(),
            fence: Fence::default(),
            wake_at: None,
            tasks: 0,
            offers: Vec::new(),
            living: BTreeSet::new(),
            ended: BTreeMap::new(),
            seen: BTreeMap::new(),
            told: BTreeMap::new(),
            is_subscribed: false,
            heard_at: 0,
            is_over: false,
            is_stopping: false,
            is_condemned: false,
            is_done: false,
            last: None,
            executors: plan.executors,
        }
    }

    fn config(&self) -> Config {
        let role = if self.n.is_multiple_of(2) { "a" } else { "b" };
        let info = FrameworkInfo {
            name: format!("sim-{}", self.n).into(),
            user: "u".into(),
            principal: None,
            roles: vec![Role::parse(role).unwrap_or_else(|_| Role::any())],
            failover_timeout_ms: self.failover_ms(),
            capabilities: Capabilities { partition_aware: self.n.is_multiple_of(2), ..Default::default() },
            sealed: Sealed::default(),
        };
        let mut config = Config::new(vec!["m1:1".into(), "m2:1".into(), "m3:1".into()], info);
        config.seed = self.seed ^ self.n as u64;
        config.token = Some(token(1, self.n, self.life));
        config.framework_id = self.id.clone();
        config.answer_ms_max = 4_000;
        config
    }

    fn failover_ms(&self) -> u64 {
        FAILOVER_MS[self.n % FAILOVER_MS.len()]
    }

    pub(crate) fn start(&mut self, world: &mut World) {
        self.driver = Some(Driver::new(self.config()));
        self.fence = Fence::default();
        self.wake_at = None;
        self.step(world, Input::Start);
    }

    /// The scheduler's process dies. Another one comes before long, late, or never.
    pub(crate) fn away(&mut self, world: &mut World, fault: Fault) {
        let mut dice = fault.dice();
        if dice.percent(10) {
            self.is_stopping = true;
            return self.step(world, Input::Stop { failover: false });
        }
        if self.driver.take().is_none() {
            return;
        }
        world.counts.failovers += 1;
        self.life += 1;
        self.offers.clear();
        self.is_subscribed = false;
        for stream in std::mem::take(&mut self.streams).into_values() {
            world.give_up(stream);
        }
        let ms = match dice.between(0, 8) {
            0 => {
                self.is_over = true;
                return;
            }
            // Too late for some, in spite of the grace that a change of leader brings.
            1 | 2 => dice.between(1_000, 4 * self.failover_ms()),
            _ => dice.between(1, 3_000),
        };
        world.at(world.now_ms + ms, Event::Framework(self.n, FrameworkEvent::Return(self.life)));
    }

    /// Operators ask that it be torn down, if it lives; its id.
    pub(crate) fn condemn(&mut self) -> Option<FrameworkId> {
        let id = self.living_id().cloned()?;
        self.is_condemned = true;
        Some(id)
    }

    /// Launches one more task, and ends what lives.
    pub(crate) fn wind_up(&mut self, world: &mut World) {
        self.is_done = true;
        self.revive(world);
        self.chore(world);
    }

    fn revive(&mut self, world: &mut World) {
        self.step(world, Input::Call(SchedulerCall::Revive { roles: Vec::new() }));
    }

    fn chore(&mut self, world: &mut World) {
        for task_id in self.living.clone() {
            self.kill(world, task_id);
        }
        // What it waits for may have been answered while nobody listened.
        let tasks = self.living.iter().map(|task_id| (task_id.clone(), None)).collect::<Vec<_>>();
        if !tasks.is_empty() {
            self.step(world, Input::Call(SchedulerCall::Reconcile { tasks }));
        }
        world.at(world.now_ms + CHORE_MS, Event::Framework(self.n, FrameworkEvent::Chore));
    }

    fn kill(&mut self, world: &mut World, task_id: TaskId) {
        let call = SchedulerCall::Kill { task_id, agent_id: None, grace_ms: Some(500) };
        self.step(world, Input::Call(call));
    }

    pub(crate) fn happen(&mut self, world: &mut World, event: FrameworkEvent) {
        match event {
            // One that was set for later and overtaken by an earlier one is void.
            FrameworkEvent::Wake(life) if life == self.life && self.wake_at == Some(world.now_ms) => {
                self.wake_at = None;
                self.step(world, Input::Tick);
            }
            FrameworkEvent::Wake(_) => {}
            FrameworkEvent::Kill(task_id) if self.living.contains(&task_id) => self.kill(world, task_id),
            FrameworkEvent::Kill(_) => {}
            FrameworkEvent::Return(life) if life == self.life && self.driver.is_none() => self.start(world),
            FrameworkEvent::Return(_) => {}
            FrameworkEvent::Revive => self.revive(world),
            FrameworkEvent::Chore => self.chore(world),
        }
    }

    fn dial_of(&self, stream: u64) -> Option<u64> {
        self.streams.iter().find(|(_, it)| **it == stream).map(|(dial, _)| *dial)
    }

    pub(crate) fn opened(&mut self, world: &mut World, stream: u64) {
        if let Some(dial) = self.dial_of(stream) {
            self.step(world, Input::Connected { dial });
        }
    }

    pub(crate) fn broken(&mut self, world: &mut World, stream: u64) {
        if let Some(dial) = self.dial_of(stream) {
            self.streams.remove(&dial);
            self.step(world, Input::Broken { dial, why: "broken".into() });
        }
    }

    pub(crate) fn frame(
        &mut self,
        world: &mut World,
        stream: u64,
        fence: Fence,
        frame: DownFrame,
        sent_at: u64,
    ) {
        let Some(dial) = self.dial_of(stream) else { return };
        if matches!(frame, DownFrame::Leader) {
            self.fence = self.fence.max(fence);
        }
        self.take(world, dial, fence, frame);
        if self.is_subscribed && fence == self.fence {
            self.heard_at = self.heard_at.max(sent_at);
        }
    }

    /// A frame that does not come from where it seems to.
    pub(crate) fn forged(&mut self, world: &mut World, heard: Heard) {
        let Some((&dial, _)) = self.streams.last_key_value() else { return };
        // A stream of before had an earlier dial.
        let dial = self.dial_of(heard.stream).unwrap_or(dial - 1);
        self.take(world, dial, heard.fence, heard.frame);
    }

    /// What its driver holds for true, if it has a stream.
    pub(crate) fn present(&self) -> Option<Present> {
        let (_, &stream) = self.streams.last_key_value()?;
        Some(Present { client: Client::Framework(self.n), stream, fence: self.fence, session: Session(0) })
    }

    fn take(&mut self, world: &mut World, dial: u64, fence: Fence, frame: DownFrame) {
        let down = match frame {
            DownFrame::Leader => Down::Leader { name: "m1".into(), address: "m1:1".into() },
            DownFrame::Event(event) => match &*event {
                Frame::Scheduler(event) => Down::Event(event.clone()),
                Frame::Agent { .. } => return,
            },
        };
        self.step(world, Input::Frame { dial, fence, down });
    }

    /// Whether a fault struck that ended this life.
    fn struck(&mut self, world: &mut World, step: Step) -> bool {
        let Some(fault) = world.strike(step) else { return false };
        match fault.what {
            What::Cut => {
                if let Some((_, &stream)) = self.streams.last_key_value() {
                    world.breaks(stream);
                }
                false
            }
            _ => {
                self.away(world, fault);
                true
            }
        }
    }

    fn step(&mut self, world: &mut World, input: Input) {
        let Some(driver) = self.driver.as_mut() else { return };
        let mut effects = Vec::new();
        driver.step(world.now_ms, input, &mut effects);
        let life = self.life;
        for effect in effects {
            match effect {
                Effect::Dial { dial, .. } => {
                    self.streams.insert(dial, world.open(Client::Framework(self.n)));
                }
                Effect::Hangup { dial } => {
                    if let Some(stream) = self.streams.remove(&dial) {
                        world.give_up(stream);
                    }
                }
                Effect::Send { id, mut call } => {
                    if let SchedulerCall::Subscribe { token: named, stream, .. } = &mut call
                        && !self.seed.wrapping_add(self.n as u64).is_multiple_of(2)
                    {
                        // Of these the registry knows the event stream: their tasks are told to be starting.
                        *stream = true;
                        named.get_or_insert(token(1, self.n, self.life));
                    }
                    if let Some((_, &stream)) = self.streams.last_key_value() {
                        world.up(stream, Call::Scheduler { id, call });
                        self.struck(world, Step::Called);
                    }
                }
                Effect::Callback(callback) => {
                    if !self.struck(world, Step::Told) {
                        self.callback(world, callback);
                    }
                }
                Effect::Refused { .. } => {}
                Effect::Ended { error } => self.over(world, error),
            }
            if self.life != life {
                return;
            }
        }
        let Some(at) = self.driver.as_ref().and_then(Driver::wake_at) else { return };
        let at = at.max(world.now_ms + 1);
        if self.wake_at.is_none_or(|waits| waits > at) {
            self.wake_at = Some(at);
            world.at(at, Event::Framework(self.n, FrameworkEvent::Wake(self.life)));
        }
    }

    /// The masters want no more of it: right only if it stayed away for too long.
    fn over(&mut self, world: &mut World, error: Option<String>) {
        let removed = error.as_deref().is_some_and(|why| why.contains("has been removed"));
        world.demand(removed || self.is_stopping, Law::Served, || {
            format!("framework {} was turned away: {error:?}", self.n)
        });
        self.driver = None;
        self.life += 1;
        self.is_over = true;
        for stream in std::mem::take(&mut self.streams).into_values() {
            world.give_up(stream);
        }
    }

    fn callback(&mut self, world: &mut World, callback: Callback) {
        match callback {
            Callback::Registered { framework_id, .. } => {
                self.is_subscribed = true;
                let id = self.id.get_or_insert_with(|| framework_id.clone()).clone();
                world.demand(id == framework_id, Law::Ids, || {
                    format!("framework {} was {id} and is {framework_id}", self.n)
                });
                // Another scheduler does not know what became of its predecessor's calls.
                if self.life > 0 {
                    let tasks = self.living.iter().map(|task_id| (task_id.clone(), None)).collect();
                    self.step(world, Input::Call(SchedulerCall::Reconcile { tasks }));
                }
            }
            Callback::Reregistered { .. } => {
                self.is_subscribed = true;
                let id = self.driver.as_ref().and_then(Driver::framework_id).cloned();
                world.demand(id == self.id, Law::Ids, || {
                    format!("framework {} was {:?} and is {id:?}", self.n, self.id)
                });
            }
            Callback::Offers(offers) => {
                for offer in offers {
                    self.offer(world, offer);
                }
            }
            Callback::Rescinded(offer_id) => self.offers.retain(|it| *it != offer_id),
            Callback::Disconnected => {
                self.is_subscribed = false;
                self.offers.clear();
            }
            Callback::Update { task_id, status, uuid, .. } => {
                let is_news = !status.state.is_terminal() && status.state != TaskState::Unknown;
                if let Some(uuid) = uuid {
                    self.update(world, &task_id, status.state, uuid);
                    self.step(world, Input::Handled { task_id: task_id.clone(), uuid });
                } else if !is_news {
                    self.living.remove(&task_id);
                }
                // A task that was given up for lost may come back.
                if is_news && uuid.is_some() && self.living.insert(task_id.clone()) {
                    self.ended.remove(&task_id);
                    if self.is_done {
                        self.kill(world, task_id);
                    }
                }
            }
            Callback::Error(_) => {} // the driver ends: see `over`
            _ => {}
        }
    }

    fn update(&mut self, world: &mut World, task_id: &TaskId, state: TaskState, uuid: Uuid) {
        let seen = self.seen.entry(task_id.clone()).or_default();
        if seen.contains(&uuid) {
            // At least once; but in order: only the newest may come again.
            world.demand(seen.last() == Some(&uuid), Law::Order, || {
                format!("framework {}: an update of {task_id} came again after a later one", self.n)
            });
            return;
        }
        // Agents number from 1, the registry from 2^31: each in order.
        let later = seen.iter().find(|it| alike(**it, uuid) && number(**it) > number(uuid));
        world.demand(later.is_none(), Law::Order, || {
            format!("framework {}: update {} of {task_id} came after {:?}", self.n, number(uuid), later)
        });
        seen.push(uuid);
        let rank = |state| {
            [TaskState::Starting, TaskState::Running, TaskState::Killing].iter().position(|it| *it == state)
        };
        let before = self.told.get(task_id).copied();
        let is_back = rank(state).is_some_and(|now| before.and_then(rank).is_some_and(|was| was > now));
        world.demand(!is_back, Law::Order, || {
            format!("framework {}: {task_id} is {} after {before:?}", self.n, state.name())
        });
        if rank(state).is_some() {
            self.told.insert(task_id.clone(), state);
        }
        // LOST for a framework that is not partition-aware may be UNREACHABLE, and the task may come back.
        if state.is_terminal() {
            self.ended.insert(task_id.clone(), state);
            self.living.remove(task_id);
        }
    }

    fn offer(&mut self, world: &mut World, offer: OfferWithAgent) {
        let offer_id = offer.offer.offer_id;
        let refuse_ms = self.dice.between(0, 3_000);
        if self.last.is_some() || !self.is_done && self.dice.percent(20) {
            let call = SchedulerCall::Decline { offer_ids: vec![offer_id], refuse_ms };
            return self.step(world, Input::Call(call));
        }
        if !self.is_done && self.dice.percent(10) {
            return self.offers.push(offer_id); // kept until it is rescinded
        }
        if !self.is_done && self.dice.percent(5) {
            self.step(world, Input::Call(SchedulerCall::Suppress { roles: Vec::new() }));
            let at = world.now_ms + self.dice.between(10, 3_000);
            world.at(at, Event::Framework(self.n, FrameworkEvent::Revive));
        }
        let cpus = offer.offer.resources.scalar("cpus") / 1_000;
        // Sometimes one task more than there is room for.
        let count = if self.is_done { 1 } else { self.dice.between(1, cpus.max(1) + 2) };
        let mut tasks: Vec<TaskSpec> = (0..count).map(|_| self.task(world)).collect();
        // What is reserved for it is for one task; there may be nothing else.
        let reserved = offer.offer.resources.filtered(|label| label.is_some());
        if let Some(task) = tasks.first_mut()
            && reserved.quantity("cpus") >= 1_000
            && (cpus == 0 || self.dice.percent(50))
        {
            task.resources = reserved;
        }
        if self.is_done {
            self.last = tasks.first().map(|task| task.task_id.clone());
        }
        self.living.extend(tasks.iter().map(|task| task.task_id.clone()));
        let (offer_ids, named, bad) = (vec![offer_id], Vec::new(), Vec::new());
        let call = match self.group(&tasks) {
            Some(tasks) => {
                let operations = vec![(Operation::LaunchGroup { tasks, bad }, named)];
                SchedulerCall::Operate { offer_ids, operations, refuse_ms }
            }
            None => SchedulerCall::Accept { offer_ids, tasks, named, bad, refuse_ms },
        };
        self.step(world, Input::Call(call));
    }

    /// The same tasks as a group, now and then: all of them in the executor of one, if that has one.
    fn group(&mut self, tasks: &[TaskSpec]) -> Option<Vec<TaskSpec>> {
        let executor = tasks.iter().find_map(|task| task.executor.clone())?;
        let is_group = self.dice.percent(40);
        if is_group && self.dice.percent(50) {
            return Some(self.pod(tasks));
        }
        is_group.then(|| {
            let within = |task: &TaskSpec| {
                let text = String::from_utf8_lossy(&task.sealed).into_owned();
                // By its name its executor finds it again.
                let text = if text.contains(':') { text } else { format!("{text}:{}", task.task_id) };
                let sealed = Sealed::new(text.into_bytes());
                TaskSpec { executor: Some(executor.clone()), sealed, ..task.clone() }
            };
            tasks.iter().map(within).collect()
        })
    }

    /// The same tasks as a group that the agent runs itself. Now and then the first of them fails, and the others would
    /// run for ever without that.
    fn pod(&mut self, tasks: &[TaskSpec]) -> Vec<TaskSpec> {
        let executor = ExecutorSpec {
            executor_id: ExecutorId::new(format!("pod{}", self.dice.between(0, 2))),
            resources: Resources::of(10, 10),
            sealed: Sealed::new(*BUILT_IN),
        };
        let one_fails = self.dice.percent(50);
        let within = |(i, task): (usize, &TaskSpec)| {
            let text = String::from_utf8_lossy(&task.sealed).into_owned();
            let kind = match text.split(':').next() {
                _ if one_fails && i == 0 => "failing",
                _ if one_fails => "endless",
                Some("endless") => "endless",
                _ => ["task", "watched", "hurried"][self.dice.between(0, 3) as usize],
            };
            let sealed = Sealed::new(format!("{kind}:{}", task.task_id).into_bytes());
            TaskSpec { executor: Some(executor.clone()), sealed, ..task.clone() }
        };
        tasks.iter().enumerate().map(within).collect()
    }

    fn task(&mut self, world: &mut World) -> TaskSpec {
        self.tasks += 1;
        let task_id = TaskId::new(format!("f{}-{}", self.n, self.tasks));
        let is_endless = self.dice.percent(20);
        if is_endless || self.dice.percent(15) {
            let at = world.now_ms + self.dice.between(0, 4_000);
            world.at(at, Event::Framework(self.n, FrameworkEvent::Kill(task_id.clone())));
        }
        let kind = if is_endless { "endless" } else { "task" };
        // No chance is taken of a plan without executors: its runs stay as they were.
        let executor = (self.executors && self.dice.percent(50)).then(|| ExecutorSpec {
            executor_id: ExecutorId::new(format!("e{}", self.dice.between(0, 2))),
            resources: Resources::of(10, 10),
            sealed: Sealed::new(*b"executor"),
        });
        let sealed = match &executor {
            // By its name its executor finds it again.
            Some(_) => Sealed::new(format!("{kind}:{task_id}").into_bytes()),
            None => Sealed::new(kind.as_bytes()),
        };
        TaskSpec {
            task_id,
            name: "task".into(),
            resources: Resources::of(1_000, 100),
            executor,
            grace_ms: None,
            sealed,
        }
    }

    /// Whether the framework has this id, and somebody may still go on under it.
    pub(crate) fn is(&self, id: &FrameworkId) -> bool {
        self.id.as_ref() == Some(id)
    }

    /// A framework of this id was torn down.
    pub(crate) fn check_removed(&self, world: &mut World) {
        let away_ms = world.now_ms.saturating_sub(self.heard_at);
        let may_be = self.is_stopping || self.is_condemned || away_ms + HEARS_LATE_MS >= self.failover_ms();
        world.demand(may_be, Law::Failover, || {
            format!("framework {} was torn down after {away_ms} ms of {}", self.n, self.failover_ms())
        });
    }

    /// Whether its last task was launched, and none is known to live.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_over || (self.living.is_empty() && self.is_subscribed && self.last.is_some())
    }

    /// The id under which it goes on.
    pub(crate) fn living_id(&self) -> Option<&FrameworkId> {
        self.id.as_ref().filter(|_| !self.is_over)
    }

    /// Every launched task of this framework came to an end that it saw.
    pub(crate) fn check_end(&self, world: &mut World, launched: &BTreeMap<LaunchNumber, TaskKey>) {
        if self.is_over {
            return;
        }
        world.demand(self.last.is_some(), Law::End, || format!("framework {} gets no offers", self.n));
        for key in launched.values().filter(|key| self.id.as_ref() == Some(&key.framework_id)) {
            world.demand(self.ended.contains_key(&key.task_id), Law::End, || {
                format!("framework {} saw no end of {key}", self.n)
            });
        }
        world.demand(self.living.is_empty(), Law::End, || {
            format!("framework {} waits for {:?}", self.n, self.living)
        });
    }
}

/// An update's number within its launch ([`Uuid::of`]).
fn number(uuid: Uuid) -> u32 {
    let [.., a, b, c, d] = uuid.0;
    u32::from_be_bytes([a, b, c, d])
}

/// Whether two updates are of one launch and numbered by the same machine.
fn alike(a: Uuid, b: Uuid) -> bool {
    a.0[..12] == b.0[..12] && (number(a) < 1 << 31) == (number(b) < 1 << 31)
}
