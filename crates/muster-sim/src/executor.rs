//! An executor: an imitated process that speaks the executor API with its agent, and runs several tasks.

use crate::{
    agent::{Agent, AgentEvent},
    plan::Law,
    world::{Event, World},
};
use muster_model::{
    ExecutorCall, ExecutorEvent, ExecutorName, ExecutorUpdate, LaunchNumber, Sealed, Source, Status, TaskId,
    TaskState, Uuid, WallTime,
};
use muster_node::{End, ExecutorAnswer, Input};
use std::collections::{BTreeMap, VecDeque};

/// What an executor remembers, beyond any crash of its agent.
#[derive(Debug)]
pub(crate) struct Executor {
    name: ExecutorName,
    /// Its stream, while its agent lives.
    stream: Option<u64>,
    /// Told and not read.
    inbox: VecDeque<ExecutorEvent>,
    tasks: BTreeMap<TaskId, Task>,
    /// Not acknowledged, in order.
    updates: Vec<ExecutorUpdate>,
}

#[derive(Debug)]
struct Task {
    launch: LaunchNumber,
    is_over: bool,
    is_acknowledged: bool,
    /// Updates so far.
    said: u32,
}

impl Executor {
    pub(crate) fn new(name: ExecutorName) -> Self {
        Self { name, stream: None, inbox: VecDeque::new(), tasks: BTreeMap::new(), updates: Vec::new() }
    }

    /// Tasks that are not over.
    pub(crate) fn running(&self) -> u64 {
        self.tasks.values().filter(|task| !task.is_over).count() as u64
    }

    /// Its agent is gone, and with it what was on its way.
    pub(crate) fn cut_off(&mut self) {
        self.stream = None;
        self.inbox.clear();
    }

    fn subscribe(&self) -> ExecutorCall {
        let unheard = self.tasks.iter().filter(|(_, task)| !task.is_acknowledged);
        ExecutorCall::Subscribe {
            tasks: unheard.map(|(id, _)| id.clone()).collect(),
            updates: self.updates.clone(),
        }
    }
}

impl Agent {
    /// The executor reads what it was told, or looks for its agent.
    pub(crate) fn executor_acts(&mut self, world: &mut World, number: LaunchNumber) {
        let Some(executor) = self.executors.get_mut(&number) else { return };
        if !self.processes.get(&number).is_some_and(|it| it.released && it.end.is_none()) {
            return;
        }
        if executor.stream.is_none() {
            return self.executor_subscribes(world, number);
        }
        let life = self.life;
        while self.life == life
            && let Some(event) = self.executors.get_mut(&number).and_then(|it| it.inbox.pop_front())
        {
            self.executor_hears(world, number, event);
        }
    }

    fn executor_subscribes(&mut self, world: &mut World, number: LaunchNumber) {
        let Some(executor) = self.executors.get_mut(&number) else { return };
        if self.node.is_some() {
            self.calls += 1;
            let (call, from, said) = (self.calls, executor.name.clone(), executor.subscribe());
            self.calling = Some((call, number));
            self.step(world, Input::Executor { call, from, said });
            self.calling = None;
        }
        if self.executors.get(&number).is_some_and(|it| it.stream.is_none()) {
            let at = world.now_ms + self.dice.between(50, 800);
            world.at(at, Event::Agent(self.n, AgentEvent::ExecutorActs(number)));
        } else {
            self.look_at_idle(world, number);
        }
    }

    fn look_at_idle(&mut self, world: &mut World, number: LaunchNumber) {
        let at = world.now_ms + self.dice.between(1_500, 5_000);
        world.at(at, Event::Agent(self.n, AgentEvent::ExecutorIdle(number)));
    }

    /// An executor that has had nothing to do for a while ends.
    pub(crate) fn executor_idle(&mut self, world: &mut World, number: LaunchNumber) {
        let Some(executor) = self.executors.get(&number) else { return };
        let is_idle = executor.running() == 0 && executor.updates.is_empty() && executor.inbox.is_empty();
        if is_idle {
            self.end(world, number, End::Exited(0));
        } else {
            self.look_at_idle(world, number);
        }
    }

    pub(crate) fn answered(&mut self, call: u64, answer: ExecutorAnswer) {
        if let (ExecutorAnswer::Subscribed, Some((calling, number))) = (answer, self.calling)
            && calling == call
            && let Some(executor) = self.executors.get_mut(&number)
        {
            executor.stream = Some(call);
        }
    }

    pub(crate) fn told(&mut self, world: &mut World, stream: u64, event: ExecutorEvent) {
        let found = self.executors.iter_mut().find(|(_, it)| it.stream == Some(stream));
        if let Some((number, executor)) = found {
            executor.inbox.push_back(event);
            let acts = AgentEvent::ExecutorActs(*number);
            world.soon(20, Event::Agent(self.n, acts));
        }
    }

    fn executor_hears(&mut self, world: &mut World, number: LaunchNumber, event: ExecutorEvent) {
        match event {
            ExecutorEvent::Subscribed { .. } | ExecutorEvent::Message(_) => {}
            ExecutorEvent::Launch { task } => self.executor_launches(world, number, &task),
            ExecutorEvent::LaunchGroup { tasks } => {
                self.check_group(world, &tasks);
                let life = self.life;
                for task in &tasks {
                    // It may die of one of them, and its agent of what it says.
                    let lives = self.processes.get(&number).is_some_and(|it| it.end.is_none());
                    if self.life == life && lives {
                        self.executor_launches(world, number, task);
                    }
                }
            }
            ExecutorEvent::Kill { task_id, .. } => {
                self.executor_ends_task(world, number, &task_id, TaskState::Killed);
            }
            ExecutorEvent::Acknowledged { task_id, uuid } => {
                let Some(executor) = self.executors.get_mut(&number) else { return };
                executor.updates.retain(|update| update.uuid != uuid);
                if let Some(task) = executor.tasks.get_mut(&task_id) {
                    task.is_acknowledged = true;
                }
            }
            ExecutorEvent::Shutdown => self.end(world, number, End::Exited(0)),
        }
    }

    /// A group comes as a whole.
    fn check_group(&mut self, world: &mut World, tasks: &[Sealed]) {
        let Some(saved) = self.node.as_ref().map(muster_node::Node::saved) else { return };
        let launch_of = |sealed: &Sealed| {
            let text = String::from_utf8_lossy(sealed).into_owned();
            let (_, id) = text.split_once(':')?;
            saved.tasks.iter().find(|(_, task)| task.task.task_id.as_str() == id).map(|(launch, _)| *launch)
        };
        let told: Vec<_> = tasks.iter().filter_map(launch_of).collect();
        let group = told.first().and_then(|launch| saved.groups.get(launch));
        let is_whole = group.is_some_and(|group| group.launches().eq(told.iter().copied()));
        let n = self.n;
        world.demand(is_whole, Law::Started, || {
            format!("agent {n} tells of {told:?} as of the group {group:?}")
        });
    }

    fn executor_launches(&mut self, world: &mut World, number: LaunchNumber, sealed: &Sealed) {
        let text = String::from_utf8_lossy(sealed).into_owned();
        let (kind, id) = text.split_once(':').unwrap_or(("task", &text));
        let task_id = TaskId::new(id);
        let known = self.node.as_ref().and_then(|node| {
            node.saved()
                .tasks
                .iter()
                .find(|(_, task)| task.task.task_id == task_id)
                .map(|(launch, _)| *launch)
        });
        let Some(launch) = known else {
            return world.demand(false, Law::Started, || format!("{id} is handed and not known"));
        };
        world.counts.started += 1;
        let is_new = self.handed.insert(launch);
        let n = self.n;
        world.demand(is_new, Law::Started, || format!("launch {launch} handed twice on agent {n}"));
        let Some(executor) = self.executors.get_mut(&number) else { return };
        let task = Task { launch, is_over: false, is_acknowledged: false, said: 0 };
        executor.tasks.insert(task_id.clone(), task);
        self.check_room(world);
        if self.dice.percent(3) {
            return self.end(world, number, End::Exited(1));
        }
        if kind != "endless" {
            let at = world.now_ms + self.dice.between(10, 4_000);
            world.at(at, Event::Agent(self.n, AgentEvent::TaskOver(number, task_id.clone())));
        }
        self.executor_says(world, number, &task_id, TaskState::Running);
    }

    /// A task in an executor comes to its end.
    pub(crate) fn executor_ends_task(
        &mut self,
        world: &mut World,
        number: LaunchNumber,
        task_id: &TaskId,
        state: TaskState,
    ) {
        if self.processes.get(&number).is_none_or(|it| it.end.is_some()) {
            return;
        }
        let task = self.executors.get_mut(&number).and_then(|it| it.tasks.get_mut(task_id));
        if let Some(task) = task.filter(|task| !task.is_over) {
            task.is_over = true;
            self.executor_says(world, number, task_id, state);
        }
    }

    fn executor_says(&mut self, world: &mut World, number: LaunchNumber, task_id: &TaskId, state: TaskState) {
        let Some(executor) = self.executors.get_mut(&number) else { return };
        let Some(task) = executor.tasks.get_mut(task_id) else { return };
        task.said += 1;
        let update = ExecutorUpdate {
            task_id: task_id.clone(),
            uuid: Uuid::of(task.launch, task.said),
            status: Status {
                state,
                source: Source::Executor,
                reason: None,
                message: "".into(),
                wall: WallTime(0),
                sealed: Sealed::default(),
            },
        };
        executor.updates.push(update.clone());
        if executor.stream.is_some() && self.node.is_some() {
            self.calls += 1;
            let (call, from) = (self.calls, executor.name.clone());
            self.step(world, Input::Executor { call, from, said: ExecutorCall::Update(update) });
        }
    }
}
