//! A framework: the real driver machine, and a scheduler that launches, declines and kills at random.

use crate::cluster::{Client, DownFrame, Event, World};
use muster_driver::{Callback, Config, Down, Driver, Effect, Input};
use muster_model::{
    Call, Capabilities, Event as Frame, Fence, FrameworkInfo, LaunchNumber, OfferId, Resources, Role,
    SchedulerCall, Sealed, TaskId, TaskKey, TaskSpec, TaskState, Uuid, event::OfferWithAgent,
};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
pub(crate) struct Framework {
    n: usize,
    driver: Driver,
    /// The driver's dial and our stream.
    streams: BTreeMap<u64, u64>,
    wake_at: Option<u64>,
    tasks: u64,
    /// Offers kept for later.
    offers: Vec<OfferId>,
    living: BTreeSet<TaskId>,
    /// Terminal updates by task, as the framework saw them.
    ended: BTreeMap<TaskId, TaskState>,
    seen: BTreeMap<TaskId, Vec<Uuid>>,
    /// Nothing new is launched.
    pub(crate) is_done: bool,
}

impl Framework {
    pub(crate) fn new(n: usize, seed: u64) -> Self {
        let info = FrameworkInfo {
            name: format!("sim-{n}").into(),
            user: "u".into(),
            principal: None,
            roles: vec![
                Role::parse(if n.is_multiple_of(2) { "a" } else { "b" }).unwrap_or_else(|_| Role::any()),
            ],
            failover_timeout_ms: 3_600_000,
            capabilities: Capabilities { partition_aware: n.is_multiple_of(2), ..Default::default() },
            sealed: Sealed::default(),
        };
        let mut config = Config::new(vec!["m1:1".into(), "m2:1".into(), "m3:1".into()], info);
        config.seed = seed ^ n as u64;
        Self {
            n,
            driver: Driver::new(config),
            streams: BTreeMap::new(),
            wake_at: None,
            tasks: 0,
            offers: Vec::new(),
            living: BTreeSet::new(),
            ended: BTreeMap::new(),
            seen: BTreeMap::new(),
            is_done: false,
        }
    }

    pub(crate) fn start(&mut self, world: &mut World) {
        self.step(world, Input::Start);
    }

    pub(crate) fn wake(&mut self, world: &mut World) {
        self.step(world, Input::Tick);
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

    pub(crate) fn frame(&mut self, world: &mut World, stream: u64, fence: Fence, frame: DownFrame) {
        let Some(dial) = self.dial_of(stream) else { return };
        let down = match frame {
            DownFrame::Leader => Down::Leader { name: "m1".into(), address: "m1:1".into() },
            DownFrame::Event(event) => match *event {
                Frame::Scheduler(event) => Down::Event(event),
                Frame::Agent { .. } => return,
            },
        };
        self.step(world, Input::Frame { dial, fence, down });
    }

    /// Kills some of what lives.
    pub(crate) fn kill_some(&mut self, world: &mut World) {
        let some: Vec<TaskId> = self.living.iter().take(2).cloned().collect();
        for task_id in some {
            let call = SchedulerCall::Kill { task_id, agent_id: None, grace_ms: Some(500) };
            self.step(world, Input::Call(call));
        }
    }

    fn step(&mut self, world: &mut World, input: Input) {
        let mut effects = Vec::new();
        self.driver.step(world.now_ms, input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Dial { dial, .. } => {
                    world.open(Client::Framework(self.n));
                    if let Some(stream) = world.stream_of(Client::Framework(self.n)) {
                        self.streams.insert(dial, stream);
                    }
                }
                Effect::Hangup { dial } => {
                    if let Some(stream) = self.streams.remove(&dial) {
                        world.give_up(stream);
                    }
                }
                Effect::Send { id, call } => {
                    if let Some((_, &stream)) = self.streams.last_key_value() {
                        world.up(stream, Call::Scheduler { id, call });
                    }
                }
                Effect::Callback(callback) => self.callback(world, callback),
                Effect::Refused { .. } => {}
                Effect::Ended { error } => panic!("framework {} ended: {error:?}", self.n),
            }
        }
        if let Some(at) = self.driver.wake_at()
            && self.wake_at.is_none_or(|waits| waits > at || waits <= world.now_ms)
        {
            let at = at.max(world.now_ms + 1);
            self.wake_at = Some(at);
            world.at(at, Event::WakeFramework(self.n));
        }
    }

    fn callback(&mut self, world: &mut World, callback: Callback) {
        match callback {
            Callback::Offers(offers) => {
                for offer in offers {
                    self.offer(world, offer);
                }
            }
            Callback::Rescinded(offer_id) => self.offers.retain(|it| *it != offer_id),
            Callback::Disconnected => self.offers.clear(),
            Callback::Update { task_id, status, uuid, .. } => {
                if let Some(uuid) = uuid {
                    self.update(&task_id, status.state, uuid);
                    self.step(world, Input::Handled { task_id, uuid });
                } else if status.state.is_terminal() {
                    self.living.remove(&task_id);
                }
            }
            Callback::Error(why) => panic!("framework {}: {why}", self.n),
            _ => {}
        }
    }

    fn update(&mut self, task_id: &TaskId, state: TaskState, uuid: Uuid) {
        let seen = self.seen.entry(task_id.clone()).or_default();
        if seen.contains(&uuid) {
            // At least once; but in order: only the newest may come again.
            assert_eq!(seen.last(), Some(&uuid), "an update of {task_id} came again after a later one");
            return;
        }
        seen.push(uuid);
        // LOST for a framework that is not partition-aware may be UNREACHABLE, and the task may come back.
        if state.is_terminal() {
            self.ended.insert(task_id.clone(), state);
            self.living.remove(task_id);
        }
    }

    fn offer(&mut self, world: &mut World, offer: OfferWithAgent) {
        let offer_id = offer.offer.offer_id;
        let refuse_ms = world.dice.between(0, 3_000);
        if self.is_done || world.dice.percent(20) {
            let call = SchedulerCall::Decline { offer_ids: vec![offer_id], refuse_ms };
            return self.step(world, Input::Call(call));
        }
        if world.dice.percent(10) {
            return self.offers.push(offer_id); // kept until it is rescinded
        }
        let cpus = offer.offer.resources.scalar("cpus") / 1_000;
        // Sometimes one task more than there is room for.
        let count = world.dice.between(1, cpus.max(1) + 2);
        let tasks: Vec<TaskSpec> = (0..count).map(|_| self.task()).collect();
        self.living.extend(tasks.iter().map(|task| task.task_id.clone()));
        let (offer_ids, agent_ids, bad) = (vec![offer_id], Vec::new(), Vec::new());
        let call = SchedulerCall::Accept { offer_ids, tasks, agent_ids, bad, refuse_ms };
        self.step(world, Input::Call(call));
    }

    fn task(&mut self) -> TaskSpec {
        self.tasks += 1;
        TaskSpec {
            task_id: TaskId::new(format!("t{}", self.tasks)),
            name: "task".into(),
            resources: Resources::of(1_000, 100),
            executor: None,
            grace_ms: None,
            sealed: Sealed::new(*b"task"),
        }
    }

    /// Whether no task is known to live.
    pub(crate) fn is_settled(&self) -> bool {
        self.living.is_empty()
    }

    /// Every launched task of this framework came to an end that it saw.
    pub(crate) fn check_end(&self, seed: u64, launched: &BTreeMap<LaunchNumber, TaskKey>) {
        let mine = launched.values().filter(|key| Some(&key.framework_id) == self.driver.framework_id());
        for key in mine {
            assert!(
                self.ended.contains_key(&key.task_id),
                "seed {seed}: framework {} saw no end of {key}",
                self.n
            );
        }
        assert!(self.living.is_empty(), "seed {seed}: framework {} waits for {:?}", self.n, self.living);
    }
}
