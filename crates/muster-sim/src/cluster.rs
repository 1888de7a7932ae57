//! One run: the event loop, the faults, and the end that everything must come to.

use crate::{
    agent::Agent,
    dice::Dice,
    fault::{Fault, What},
    forge::Present,
    framework::Framework,
    masters::Masters,
    plan::{Failure, Law, Plan, Run},
    world::{Client, Event, World},
};
use muster_leader::OperatorCall;
use muster_model::{AgentId, Conversion, Label, Reservation, Resources, Role};
use muster_registry::Quota;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// How long everything has to come to its end once nothing goes wrong any more, in ms of virtual time.
const HEAL_MS: u64 = 300_000;
/// How often the end is looked for.
const LOOK_MS: u64 = 1_000;

/// Carries a plan out. A machine's panic is a broken law like any other.
pub fn run(plan: &Plan) -> Run {
    carry_out(plan, None)
}

/// Carries a plan out and tells all that happens, one line each.
pub fn tell(plan: &Plan, each: &mut dyn FnMut(&str)) -> Run {
    carry_out(plan, Some(each))
}

fn carry_out(plan: &Plan, mut each: Option<&mut dyn FnMut(&str)>) -> Run {
    let mut cluster = Cluster::new(plan);
    let ran = catch_unwind(AssertUnwindSafe(|| cluster.run(plan.ms, &mut each)));
    let Cluster { mut world, masters, trace, .. } = cluster;
    if let Err(panic) = ran {
        let what = panic.downcast_ref::<String>().cloned();
        let what = what.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.into()));
        world.failure = Some(Failure {
            law: Law::Panic,
            at_ms: world.now_ms,
            what: what.unwrap_or_else(|| "a machine panicked".into()),
        });
    }
    let mut counts = world.counts;
    counts.virtual_ms = world.now_ms;
    counts.entries = masters.entries();
    counts.terms = masters.terms();
    counts.launches = masters.launched.len() as u64;
    Run { trace: trace.0, counts, steps: world.steps, struck: world.struck, failure: world.failure }
}

/// One of the two roles that frameworks have.
fn role(dice: &mut Dice) -> Role {
    Role::parse(if dice.percent(50) { "a" } else { "b" }).unwrap_or_else(|_| Role::any())
}

fn reservation(role: &Role) -> Reservation {
    Reservation { dynamic: true, role: role.clone(), principal: None, labels: Vec::new() }
}

#[derive(Debug)]
struct Cluster {
    world: World,
    masters: Masters,
    agents: Vec<Agent>,
    frameworks: Vec<Framework>,
    trace: Trace,
}

/// A running hash (FNV, by words) of the text of all that happens.
#[derive(Debug)]
struct Trace(u64);

impl Write for Trace {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let (words, rest) = text.as_bytes().as_chunks::<8>();
        let last = rest.iter().fold(text.len() as u64, |word, byte| word << 8 | u64::from(*byte));
        for word in words.iter().map(|word| u64::from_le_bytes(*word)).chain([last]) {
            self.0 = (self.0 ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
        Ok(())
    }
}

impl Cluster {
    fn new(plan: &Plan) -> Self {
        let mut world = World::new(plan);
        let mut masters = Masters::new(plan);
        let mut agents: Vec<_> = (0..plan.agents.max(1)).map(|n| Agent::new(n, plan)).collect();
        let mut frameworks: Vec<_> = (0..plan.frameworks.max(1)).map(|n| Framework::new(n, plan)).collect();
        masters.elect(&mut world, 0);
        agents.iter_mut().for_each(|agent| agent.boot(&mut world));
        frameworks.iter_mut().for_each(|framework| framework.start(&mut world));
        Self { world, masters, agents, frameworks, trace: Trace(0) }
    }

    /// Faults strike for `ms`; then everything must come to its end.
    fn run(&mut self, ms: u64, each: &mut Option<&mut dyn FnMut(&str)>) {
        self.pass(ms, each);
        self.world.calm();
        for n in 0..self.agents.len() {
            self.agents[n].resume(&mut self.world);
        }
        for n in 0..self.frameworks.len() {
            self.frameworks[n].wind_up(&mut self.world);
        }
        let until = self.world.now_ms + HEAL_MS;
        while self.world.failure.is_none() && self.world.now_ms < until && !self.is_over() {
            self.pass(LOOK_MS, each);
            self.restore();
        }
        if self.world.failure.is_none() {
            self.check_end();
        }
    }

    /// Operators take all agents back, once they are empty where that is what they wait for, and undo what they reserved
    /// and limited.
    fn restore(&mut self) {
        let registry = self.masters.registry();
        let out =
            registry.agents().filter(|it| registry.duty(&it.id).is_some_and(|duty| !duty.is_draining()));
        let out: Vec<AgentId> = out.map(|agent| agent.id.clone()).collect();
        let mut dice = Dice::of(self.world.now_ms, "restore", 0);
        for agent_id in out {
            self.masters.operate(&mut self.world, &OperatorCall::Reactivate(agent_id), &mut dice);
        }
        let registry = self.masters.registry();
        let made = registry.agents().filter(|agent| agent.is_connected());
        let made =
            made.filter_map(|agent| Some((agent.id.clone(), registry.carved(&agent.id)?.made.clone())));
        let undone = made.map(|(id, made)| OperatorCall::Convert(id, Conversion::Unreserve(made)));
        let limited = registry.role_settings().filter(|(_, settings)| !settings.quota.is_empty());
        let free = limited.map(|(role, _)| OperatorCall::RemoveQuota(role.clone()));
        let calls: Vec<OperatorCall> = undone.chain(free).collect();
        for call in calls {
            self.masters.operate(&mut self.world, &call, &mut dice);
        }
    }

    /// Lets this much virtual time pass, or less if a law breaks.
    fn pass(&mut self, ms: u64, each: &mut Option<&mut dyn FnMut(&str)>) {
        let until = self.world.now_ms + ms;
        while let Some(event) = self.world.next(until) {
            self.world.counts.events += 1;
            let _ = write!(self.trace, "{} {event:?}", self.world.now_ms); // a hash takes everything
            if let Some(each) = each {
                each(&format!("{:>7} {event:?}", self.world.now_ms));
            }
            self.happen(event);
            if self.world.failure.is_some() {
                return;
            }
        }
        self.world.now_ms = until;
    }

    fn happen(&mut self, event: Event) {
        let world = &mut self.world;
        match event {
            Event::Opened { stream } => {
                let Some(it) = world.streams.get(&stream) else { return };
                match it.client {
                    Client::Agent(n) => self.agents[n].opened(world, stream),
                    Client::Framework(n) => self.frameworks[n].opened(world, stream),
                }
                self.masters.attach(world, stream);
            }
            Event::Up { stream, reign, call } => {
                if let Some(at) = world.held_back(stream) {
                    world.at(at, Event::Up { stream, reign, call });
                } else if world.reaches_masters(stream) {
                    self.masters.call(world, stream, reign, (*call).clone());
                }
            }
            Event::Down { stream, fence, frame, sent_at } => {
                let Some(it) = world.streams.get(&stream) else { return };
                let client = it.client;
                if let Some(at) = world.held_back(stream) {
                    return world.at(at, Event::Down { stream, fence, frame, sent_at });
                }
                match client {
                    Client::Agent(n) => self.agents[n].frame(world, stream, fence, frame),
                    Client::Framework(n) => self.frameworks[n].frame(world, stream, fence, frame, sent_at),
                }
            }
            Event::Broken { stream, client } => match client {
                Client::Agent(n) => self.agents[n].broken(world, stream),
                Client::Framework(n) => self.frameworks[n].broken(world, stream),
            },
            Event::Ended { stream } => match world.held_back(stream) {
                Some(at) => world.at(at, Event::Ended { stream }),
                None => world.cut(stream),
            },
            Event::Noticed { stream } => world.noticed(stream),
            Event::Masters(event) => self.masters.happen(world, event),
            Event::Agent(n, event) => self.agents[n].happen(world, event),
            Event::Framework(n, event) => self.frameworks[n].happen(world, event),
            Event::Fault(fault) => self.fault(fault),
        }
        // Streams that clients gave up are the masters' to forget.
        while let Some((stream, reign)) = self.world.ended.pop() {
            self.masters.closed(&mut self.world, stream, reign);
        }
        for id in std::mem::take(&mut self.masters.removed) {
            if let Some(framework) = self.frameworks.iter().find(|framework| framework.is(&id)) {
                framework.check_removed(&mut self.world);
            }
        }
    }

    /// Something goes wrong. A fault that finds nobody does nothing.
    fn fault(&mut self, fault: Fault) {
        let world = &mut self.world;
        if world.is_calm {
            return;
        }
        world.struck.push(fault);
        let mut dice = fault.dice();
        let agent = dice.between(0, self.agents.len() as u64) as usize;
        let framework = dice.between(0, self.frameworks.len() as u64) as usize;
        let streams: Vec<u64> = world.streams.keys().copied().collect();
        let stream = dice.one_of(&streams).unwrap_or(0);
        match fault.what {
            What::Elect => self.masters.elect(world, fault.pick),
            What::Cut => world.breaks(stream),
            What::Stick => world.sticks(stream, dice.between(500, 12_000)),
            What::Lag => world.lags(stream, dice.between(500, 8_000), dice.between(20, 1_500)),
            What::Crash => self.agents[agent].crash(world, fault),
            What::Wipe => self.agents[agent].wipe(world, fault),
            What::Isolate => self.agents[agent].isolate(world, dice.between(1_000, 40_000)),
            What::Disk => self.agents[agent].stall(world, dice.between(20, 4_000)),
            What::Log => self.masters.stall(world, dice.between(20, 5_000)),
            What::Away => self.frameworks[framework].away(world, fault),
            What::Teardown => {
                if let Some(id) = self.frameworks[framework].condemn() {
                    self.masters.operate(world, &OperatorCall::Teardown(id), &mut dice);
                }
            }
            What::Gone => {
                if let Some(id) = self.agents[agent].condemn() {
                    self.masters.operate(world, &OperatorCall::MarkGone(id), &mut dice);
                }
            }
            What::Duty => {
                if let Some(agent_id) = self.agents[agent].id() {
                    let max_grace_ms = dice.percent(50).then(|| dice.between(0, 3_000));
                    let call = match dice.between(0, 3) {
                        0 => OperatorCall::Deactivate(agent_id),
                        1 => OperatorCall::Reactivate(agent_id),
                        _ => OperatorCall::Drain { agent_id, max_grace_ms, mark_gone: false },
                    };
                    self.masters.operate(world, &call, &mut dice);
                }
            }
            What::Carve => {
                if let Some(agent_id) = self.agents[agent].id() {
                    let (role, cpus) = (role(&mut dice), 1_000 * dice.between(1, 3));
                    let room = Resources::of(cpus, cpus / 10);
                    let reserved = room.relabelled(|_| Some(Label::reserved(reservation(&role))));
                    let conversion = match dice.percent(65) {
                        true => Conversion::Reserve(reserved),
                        false => Conversion::Unreserve(reserved),
                    };
                    self.masters.operate(world, &OperatorCall::Convert(agent_id, conversion), &mut dice);
                }
            }
            What::Quota => {
                let role = role(&mut dice);
                let limit = BTreeMap::from([("cpus".into(), 1_000 * dice.between(1, 5))]);
                let quota = match dice.between(0, 3) {
                    0 => Quota { guarantees: Resources::of(1_000, 100), limits: BTreeMap::new() },
                    1 => Quota { guarantees: Resources::of(1_000, 100), limits: limit },
                    _ => Quota { guarantees: Resources::none(), limits: limit },
                };
                let call = match dice.percent(70) {
                    true => OperatorCall::SetQuotas { quotas: vec![(role, quota)], force: true, new: false },
                    false => OperatorCall::RemoveQuota(role),
                };
                self.masters.operate(world, &call, &mut dice);
            }
            What::Stale | What::Again | What::Late | What::Twice => self.forge(fault),
        }
    }

    /// A frame comes that nobody sends at present. One is looked for that the fault fits.
    fn forge(&mut self, fault: Fault) {
        let mut dice = fault.dice();
        let clients: Vec<Present> = self
            .agents
            .iter()
            .filter_map(Agent::present)
            .chain(self.frameworks.iter().filter_map(Framework::present))
            .collect();
        let Some(now) = dice.one_of(&clients) else { return };
        let world = &mut self.world;
        let reign = world.streams.get(&now.stream).map_or(0, |it| it.reign);
        let (history, dice) = (&world.history, &mut dice);
        let (heard, said) = match fault.what {
            What::Stale => (history.stale(dice, now), None),
            What::Again => (history.again(dice, now), None),
            What::Late => (None, history.late(dice, now, reign)),
            _ => (None, history.twice(dice, now, reign)),
        };
        if let Some(heard) = heard {
            world.counts.forged += 1;
            match now.client {
                Client::Agent(n) => self.agents[n].forged(world, heard),
                Client::Framework(n) => self.frameworks[n].forged(world, heard),
            }
        }
        if let Some(said) = said {
            world.counts.forged += 1;
            self.masters.forged(world, said);
        }
    }

    /// Whether nothing is left to wait for.
    fn is_over(&self) -> bool {
        let registry = self.masters.registry();
        let living: Vec<_> = self.frameworks.iter().filter_map(Framework::living_id).collect();
        self.masters.is_led()
            && registry.task_count() == 0
            && self.frameworks.iter().all(Framework::is_settled)
            && registry.frameworks().count() == living.len()
            && living.iter().all(|id| registry.framework(id).is_some_and(|it| it.is_connected()))
            && registry.agents().filter(|agent| agent.is_connected()).count() == self.agents.len()
            && registry.agents().all(|agent| agent.strays.is_empty() && registry.duty(&agent.id).is_none())
            // Executors live on for a while.
            && registry.agents().all(|agent| registry.held_on(&agent.id).is_empty())
            && registry.agents().all(|agent| agent.is_gone() || registry.carved(&agent.id).is_none())
            && registry.role_settings().all(|(_, settings)| settings.quota.is_empty())
    }

    fn check_end(&mut self) {
        self.masters.check_end(&mut self.world);
        let registry = self.masters.registry();
        let world = &mut self.world;
        let left: Vec<_> =
            registry.tasks().map(|task| format!("{} {} {:?}", task.key, task.state, task.launch)).collect();
        world.demand(left.is_empty(), Law::End, || format!("these tasks came to no end: {left:?}"));
        for agent in registry.agents() {
            let held = registry.held_on(&agent.id);
            world.demand(held.is_empty(), Law::End, || format!("{} still holds {held}", agent.id));
        }
        for agent in registry.agents().filter(|agent| agent.is_connected()) {
            let (total, came) = (registry.total_of(agent), &agent.info.resources);
            world.demand(*total == *came, Law::End, || {
                format!("{} came with {came} and has {total} when all is undone", agent.id)
            });
        }
        let out = registry.agents().filter(|it| registry.duty(&it.id).is_some());
        let out: Vec<_> = out.map(|it| (&it.id, registry.duty(&it.id))).collect();
        world.demand(out.is_empty(), Law::End, || {
            format!("these agents were not drained or taken back: {out:?}")
        });
        // One that was set up anew became another one; the former is gone.
        let agents: Vec<_> = registry.agents().map(|agent| (agent.id.clone(), agent.state)).collect();
        let connected = registry.agents().filter(|agent| agent.is_connected()).count();
        let lawful = registry.agents().all(|it| it.is_connected() || it.state_name() == "gone");
        world.demand(lawful && connected == self.agents.len(), Law::Ids, || format!("agents: {agents:?}"));
        let living: BTreeSet<String> = registry.frameworks().map(|it| it.id.to_string()).collect();
        let expected: BTreeSet<String> =
            self.frameworks.iter().filter_map(Framework::living_id).map(ToString::to_string).collect();
        world.demand(living == expected, Law::Failover, || {
            format!("frameworks {living:?} live at the end, and {expected:?} should")
        });
        self.agents.iter().for_each(|agent| agent.check_end(world));
        self.frameworks.iter().for_each(|framework| framework.check_end(world, &self.masters.launched));
    }
}
