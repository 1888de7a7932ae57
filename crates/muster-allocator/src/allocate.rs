//! The decision: dominant-resource fairness over roles, and over the frameworks of each role.
//!
//! Ghodsi et al., "Dominant Resource Fairness", NSDI 2011: whoever's dominant share is smallest is next.

use muster_model::{AgentId, FrameworkId, Resources, Role, Timestamp, score::score};
use muster_registry::Account;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

/// How to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The weight of a role's claim, in thousandths; 1000 where none is given.
    pub weights: BTreeMap<Role, u64>,
    /// How affinity weighs against balance in the placement score, in thousandths.
    pub affinity_weight_milli: u64,
    /// A room with fewer thousandths of a cpu than this ...
    pub min_cpus_milli: u64,
    /// ... and less memory than this many thousandths of a MB is not worth offering.
    pub min_mem_milli: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            weights: BTreeMap::new(),
            affinity_weight_milli: 600,
            min_cpus_milli: 10,
            min_mem_milli: 32_000,
        }
    }
}

impl Policy {
    /// Whether resources are worth an offer.
    pub fn is_allocatable(&self, free: &Resources) -> bool {
        free.scalar("cpus") >= self.min_cpus_milli || free.scalar("mem") >= self.min_mem_milli
    }
}

/// Free resources of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Which agent.
    pub agent_id: AgentId,
    /// All it has.
    pub total: Resources,
    /// What is free of it.
    pub free: Resources,
}

/// A framework that wants offers in a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Who, and in which role.
    pub account: Account,
    /// The scalars it has already, offers included.
    pub has: Resources,
    /// What it said it needs: only rooms with space for one of these, best score first. Empty = anything.
    pub needs: Vec<Resources>,
}

/// All of a room for one framework.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Counted by the shard.
    pub n: u64,
    /// To whom.
    pub framework_id: FrameworkId,
    /// In which role.
    pub role: Role,
    /// Of which agent.
    pub agent_id: AgentId,
    /// What.
    pub resources: Resources,
}

/// Who got nothing in a pass though something was free, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// Who.
    pub account: Account,
    /// Why.
    pub why: Why,
}

/// Why nothing was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// All that is free is hidden by the framework's filters until the first of them ends.
    Filtered,
    /// Nothing free has space for what it needs.
    NeedsUnmet,
}

/// A dominant share in parts of 10^12 of the fleet, divided by the weight.
fn share(has: &Resources, fleet: &Resources, weight_milli: u64) -> u128 {
    let dominant = has.iter().filter_map(|(kind, _)| {
        let all = u128::from(fleet.scalar(kind));
        (u128::from(has.scalar(kind)) * 1_000_000_000_000).checked_div(all)
    });
    dominant.max().unwrap_or(0) * 1000 / u128::from(weight_milli.max(1))
}

/// A role's frameworks in the order of their shares, and what the role has in all.
struct Queue {
    has: Resources,
    weight: u64,
    order: BinaryHeap<Reverse<(u128, usize)>>,
}

/// Gives each room whole to one ask: to the role with the smallest weighted dominant share, and in it to the
/// framework with the smallest; ties go by name. `roles` is what each role has, offers included; `hidden` says
/// whether a filter hides a room from an ask. The pass is over when no room is left; asks leave it with what they
/// have by then.
pub fn allocate(
    rooms: &[Room],
    asks: &mut [Ask],
    roles: &BTreeMap<Role, Resources>,
    fleet: &Resources,
    largest: &Resources,
    policy: &Policy,
    hidden: &dyn Fn(&Ask, &Room) -> bool,
) -> (Vec<(usize, usize)>, Vec<Pass>) {
    let mut free: BTreeSet<usize> =
        (0..rooms.len()).filter(|&i| policy.is_allocatable(&rooms[i].free)).collect();
    let mut cursor = vec![0; asks.len()];
    let mut got = vec![false; asks.len()];
    let mut passes = Vec::new();
    let mut queues: BTreeMap<Role, Queue> = BTreeMap::new();
    for (i, ask) in asks.iter().enumerate() {
        let role = &ask.account.1;
        let queue = queues.entry(role.clone()).or_insert_with(|| Queue {
            has: roles.get(role).cloned().unwrap_or_default(),
            weight: policy.weights.get(role).copied().unwrap_or(1000),
            order: BinaryHeap::new(),
        });
        queue.order.push(Reverse((share(&ask.has, fleet, 1000), i)));
    }
    let mut order: BTreeSet<(u128, Role)> =
        queues.iter().map(|(role, queue)| (share(&queue.has, fleet, queue.weight), role.clone())).collect();
    let mut grants = Vec::new();
    while !free.is_empty()
        && let Some((role_share, role)) = order.pop_first()
    {
        let Some(queue) = queues.get_mut(&role) else { break };
        let Some(Reverse((ask_share, i))) = queue.order.pop() else { continue };
        let ask = &mut asks[i];
        let choice = match ask.needs.is_empty() {
            true => first_open(rooms, &free, &mut cursor[i], |room| !hidden(ask, room)),
            false => best_scored(rooms, &free, ask, largest, policy, hidden),
        };
        let room = match choice {
            Ok(room) => room,
            Err(why) => {
                if !got[i] {
                    passes.push(Pass { account: ask.account.clone(), why });
                }
                order.insert((role_share, role));
                continue;
            }
        };
        free.remove(&room);
        got[i] = true;
        grants.push((i, room));
        ask.has.add(&rooms[room].free);
        queue.has.add(&rooms[room].free);
        let share_now = share(&ask.has, fleet, 1000);
        debug_assert!(ask_share <= share_now);
        queue.order.push(Reverse((share_now, i)));
        order.insert((share(&queue.has, fleet, queue.weight), role));
    }
    (grants, passes)
}

/// The first room from the ask's cursor on that it may have. What was passed over stays passed over.
fn first_open(
    rooms: &[Room],
    free: &BTreeSet<usize>,
    cursor: &mut usize,
    open: impl Fn(&Room) -> bool,
) -> Result<usize, Why> {
    for &i in free.range(*cursor..) {
        if open(&rooms[i]) {
            *cursor = i + 1;
            return Ok(i);
        }
    }
    *cursor = rooms.len();
    Err(Why::Filtered)
}

/// The room with the best score for any of the ask's needs; ties go to the first.
fn best_scored(
    rooms: &[Room],
    free: &BTreeSet<usize>,
    ask: &Ask,
    largest: &Resources,
    policy: &Policy,
    hidden: &dyn Fn(&Ask, &Room) -> bool,
) -> Result<usize, Why> {
    let alpha = policy.affinity_weight_milli;
    let scored = free.iter().filter(|&&i| !hidden(ask, &rooms[i])).filter_map(|&i| {
        let room = &rooms[i];
        let fitting = ask.needs.iter().filter(|need| room.free.contains(need));
        let best = fitting.map(|need| score(need, &room.total, &room.free, largest, alpha)).max()?;
        Some((best, Reverse(i)))
    });
    scored.max().map(|(_, Reverse(i))| i).ok_or(Why::NeedsUnmet)
}

/// What a framework declined, and until when it is not offered again unless there is something new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) refused: Resources,
    pub(crate) until: Timestamp,
}
