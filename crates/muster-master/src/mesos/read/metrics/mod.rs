//! `/metrics/snapshot`: numbers under Mesos' names, where they mean the same. What is counted is counted since this master
//! started, and while it led; what is measured of the cluster is the leader's, and 0 elsewhere, as in Mesos.

mod counted;

use super::super::{Leads, Mesos, about::About};
use super::resources::units;
use super::seen::InRole;
use crate::route::Looked;
use crate::tally::{ENDED, Tallies};
use muster_leader::Counts as Reigns;
use muster_model::{FrameworkId, Offer, Reason, Resources, Role, Source, TaskState};
use muster_registry::{AgentState, Registry};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

/// What happened while this master led.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<Counts>);

#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub(crate) agents_registered: u64,
    pub(crate) agents_reregistered: u64,
    pub(crate) agents_removed: u64,
    pub(crate) agents_unreachable: u64,
    /// Tasks that came to an end, by how and why.
    pub(crate) ended: BTreeMap<(TaskState, Source, Option<Reason>), u64>,
}

impl Counters {
    pub(crate) fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn now(&self) -> Counts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the numbers are made of.
pub(crate) struct Gathered {
    about: Arc<About>,
    counts: Counts,
    subscribers: usize,
    is_in_cluster: bool,
    tallies: Tallies,
    /// What was counted in all reigns of this master.
    reigns: Reigns,
    /// Words that wait for the leader's loop.
    waiting: usize,
    /// Commands on their way through the log.
    proposed: usize,
    /// Roles that frameworks want no offers for at present.
    suppressed: BTreeMap<FrameworkId, BTreeSet<Role>>,
    /// What the leader has; none on others.
    led: Option<Looked>,
}

/// Gathers what there is, without asking a quorum: numbers are read when a cluster is ill, too.
pub(crate) async fn gather(on: &Mesos) -> Gathered {
    let (mut led, waiting) = match on.leads() {
        Leads::Here(local) => {
            let waiting = local.inputs.max_capacity() - local.inputs.capacity();
            (super::look(&local).await, waiting)
        }
        Leads::There(_) | Leads::Nobody => (None, 0),
    };
    let tallies = on.feed.tallies().clone();
    let mut reigns = tallies.former();
    if let Some(led) = &led {
        reigns.add(&led.counts);
    }
    let leadership = on.raft.leadership();
    let is_in_cluster = !matches!(*leadership.borrow(), muster_raft::Leadership::Outside { .. });
    Gathered {
        about: on.about.clone(),
        counts: on.feed.counters().now(),
        subscribers: on.feed.subscribers(),
        is_in_cluster,
        tallies,
        reigns,
        waiting,
        proposed: led.as_ref().map_or(0, |led| led.proposed),
        suppressed: led.as_mut().map(|led| std::mem::take(&mut led.suppressed)).unwrap_or_default(),
        led,
    }
}

/// Scalars that are measured, and whether the allocator names them, too.
const SCALARS: [(&str, bool); 4] = [("cpus", true), ("disk", true), ("gpus", false), ("mem", true)];
/// States in which a task is counted as it is.
const ACTIVE: [TaskState; 6] = [
    TaskState::Staging,
    TaskState::Starting,
    TaskState::Running,
    TaskState::Killing,
    TaskState::Unreachable,
    TaskState::Unknown, // none ever is
];
/// `TASK_RUNNING` as names have it: `running`.
fn short(state: TaskState) -> String {
    state.name().trim_start_matches("TASK_").to_lowercase()
}

#[derive(Default)]
struct Numbers(BTreeMap<String, f64>);

impl Numbers {
    fn put(&mut self, name: impl Into<String>, value: f64) {
        self.0.insert(name.into(), value);
    }

    fn count(&mut self, name: impl Into<String>, value: u64) {
        self.put(name, value as f64);
    }
}

impl Gathered {
    /// All numbers, by name.
    pub(crate) fn all(&self) -> BTreeMap<String, f64> {
        let mut all = Numbers::default();
        all.put("master/elected", if self.led.is_some() { 1.0 } else { 0.0 });
        all.put("master/uptime_secs", self.about.since.elapsed().as_secs_f64());
        all.count("master/operator_event_stream_subscribers", self.subscribers as u64);
        all.count("registrar/log/ensemble_size", self.about.masters as u64);
        all.put("registrar/log/recovered", if self.is_in_cluster { 1.0 } else { 0.0 });
        self.counted(&mut all);
        self.words(&mut all);
        self.timers(&mut all);
        let (none, no_offers) = (Registry::new(muster_model::ClusterId::new("none"), 0), Vec::new());
        let (registry, offers) =
            self.led.as_ref().map_or((&none, &no_offers), |led| (&led.registry, &led.offers));
        all.count("master/outstanding_offers", offers.len() as u64);
        agents(registry, &mut all);
        let active = active(registry);
        frameworks(registry, &active, &mut all);
        self.frameworks(registry, &active, &mut all);
        self.operations(&self.reigns, registry, &mut all);
        self.resources(registry, offers, &mut all);
        muster_http::machine::system(&mut all.0);
        all.0
    }

    fn counted(&self, all: &mut Numbers) {
        let counts = &self.counts;
        all.count("master/slave_registrations", counts.agents_registered);
        all.count("master/slave_reregistrations", counts.agents_reregistered);
        // One that does not answer is removed, too (Mesos).
        all.count("master/slave_removals", counts.agents_removed + counts.agents_unreachable);
        all.count("master/slave_removals/reason_unhealthy", counts.agents_unreachable);
        all.count("master/slave_unreachable_completed", counts.agents_unreachable);
        let mut ended = counts.ended.clone();
        for ((state, reason), n) in self.tallies.refused_so_far() {
            *ended.entry((state, Source::Master, Some(reason))).or_default() += n;
        }
        for state in ENDED {
            let of = ended.iter().filter(|((it, ..), _)| *it == state);
            all.count(format!("master/tasks_{}", short(state)), of.map(|(_, n)| n).sum());
        }
        for ((state, source, reason), n) in &ended {
            let (state, source) = (state.name().to_lowercase(), format!("{source:?}").to_lowercase());
            let Some(reason) = reason.map(|reason| reason.name().to_lowercase()) else { continue };
            all.count(format!("master/{state}/source_{source}/{reason}"), *n);
        }
    }

    fn resources(&self, registry: &Registry, offers: &[Offer], all: &mut Numbers) {
        let sum = |sum: Resources, it: Resources| sum.plus(&it);
        let here = registry.agents().filter(|agent| agent.lost_since().is_none());
        let total = here.map(|agent| agent.info.resources.quantities()).fold(Resources::none(), sum);
        let (mut used, mut roles) = (Resources::none(), BTreeMap::<String, InRole>::new());
        let held: Vec<_> = registry.held_by_accounts().collect();
        for ((_, role), resources, n) in &held {
            let all_of_a_kind = resources.times(*n);
            used.add(&all_of_a_kind);
            roles.entry(role.to_string()).or_default().allocated.add(&all_of_a_kind);
        }
        for stray in registry.agents().flat_map(|agent| agent.strays.values()) {
            used.add(&stray.resources);
        }
        let mut taken = used.clone();
        for offer in offers {
            taken.add(&offer.resources);
            roles.entry(offer.role.to_string()).or_default().offered.add(&offer.resources);
        }
        let share = |part: &Resources, name: &str| match total.scalar(name) {
            0 => 0.0,
            all => part.quantity(name) as f64 / all as f64,
        };
        for (name, is_allocated) in SCALARS {
            all.put(format!("master/{name}_total"), units(total.scalar(name)));
            all.put(format!("master/{name}_used"), units(used.quantity(name)));
            all.put(format!("master/{name}_percent"), share(&used, name));
            // Nothing is revocable as yet.
            for what in ["total", "used", "percent"] {
                all.put(format!("master/{name}_revocable_{what}"), 0.0);
            }
            if is_allocated {
                let of = format!("allocator/mesos/resources/{name}");
                all.put(format!("{of}/total"), units(total.scalar(name)));
                all.put(format!("{of}/offered_or_allocated"), units(taken.quantity(name)));
            }
        }
        let all_consumed = registry.consumed_with(&held);
        for (role, settings) in registry.role_settings() {
            let (has, quota) = (all_consumed.of(role), &settings.quota);
            for (kind, least) in
                quota.guarantees.iter().map(|(kind, _)| (kind, quota.guarantees.scalar(kind)))
            {
                let of = format!("allocator/mesos/quota/roles/{role}/resources/{kind}");
                all.put(format!("{of}/guarantee"), units(least));
                all.put(format!("{of}/offered_or_allocated"), units(has.scalar(kind)));
            }
            for (kind, most) in &quota.limits {
                let of = format!("allocator/mesos/quota/roles/{role}/resources/{kind}");
                all.put(format!("{of}/limit"), units(*most));
                all.put(format!("{of}/offered_or_allocated"), units(has.scalar(kind)));
            }
        }
        // Of all roles together by no name: what is used, and what is reserved whether it is used or not (Mesos).
        let here = registry.agents().filter(|agent| agent.lost_since().is_none());
        let reserved = here.flat_map(|agent| registry.total_of(agent).reserved().into_values());
        let reserved = reserved.map(|it| it.flattened()).fold(Resources::none(), sum);
        consumed("", &used.unreserved().flattened().plus(&reserved), all);
        for role in roles.keys() {
            if let Ok(of) = Role::parse(role) {
                consumed(role, &all_consumed.of(&of), all);
            }
        }
        for (role, it) in &roles {
            let all_of_it = it.allocated.plus(&it.offered);
            let dominant = SCALARS.iter().map(|(name, _)| share(&all_of_it, name)).fold(0.0, f64::max);
            all.put(format!("allocator/mesos/roles/{role}/shares/dominant"), dominant);
        }
    }
}

/// What a role has of what its quota counts.
fn consumed(role: &str, has: &Resources, all: &mut Numbers) {
    for (name, _) in SCALARS.iter().filter(|(name, _)| has.scalar(name) > 0) {
        all.put(
            format!("allocator/mesos/quota/roles/{role}/resources/{name}/consumed"),
            units(has.scalar(name)),
        );
    }
}

fn agents(registry: &Registry, all: &mut Numbers) {
    let count = |is: fn(&AgentState) -> bool| registry.agents().filter(|it| is(&it.state)).count() as u64;
    let connected = count(|it| matches!(it, AgentState::Connected));
    let disconnected = count(|it| matches!(it, AgentState::Disconnected(_)));
    let active = registry.agents().filter(|agent| registry.is_offerable(&agent.id)).count() as u64;
    all.count("master/slaves_active", active);
    all.count("master/slaves_connected", connected);
    all.count("master/slaves_inactive", connected + disconnected - active);
    all.count("master/slaves_disconnected", disconnected);
    all.count("master/slaves_unreachable", count(|it| matches!(it, AgentState::Unreachable { .. })));
}

fn frameworks(registry: &Registry, active: &Active<'_>, all: &mut Numbers) {
    for (at, state) in ACTIVE.iter().enumerate().filter(|(_, state)| **state != TaskState::Unknown) {
        all.count(format!("master/tasks_{}", short(*state)), active.values().map(|counts| counts[at]).sum());
    }
    let (mut connected, mut disconnected) = (0, 0);
    for framework in registry.frameworks() {
        *if framework.is_connected() { &mut connected } else { &mut disconnected } += 1;
    }
    all.count("master/frameworks_active", connected);
    all.count("master/frameworks_connected", connected);
    all.count("master/frameworks_inactive", disconnected);
    all.count("master/frameworks_disconnected", disconnected);
}

/// How many tasks of a framework are in each active state.
type Active<'a> = BTreeMap<&'a FrameworkId, [u64; ACTIVE.len()]>;

fn active(registry: &Registry) -> Active<'_> {
    let mut all: Vec<(&FrameworkId, [u64; ACTIVE.len()])> = Vec::new();
    for task in registry.tasks() {
        // They come framework by framework.
        let id = &task.key.framework_id;
        let counts = match all.last_mut() {
            Some((last, counts)) if *last == id => counts,
            _ => &mut all.push_mut((id, [0; ACTIVE.len()])).1,
        };
        if let Some(at) = ACTIVE.iter().position(|state| *state == task.state) {
            counts[at] += 1;
        }
    }
    all.into_iter().collect()
}
