//! The plain decision.

use super::{quota::Quotas, tree::Tree};
use crate::{About, Pass, Policy, Why, Wishes};
use muster_model::{
    AgentId, Resources, Role, Wants,
    score::{Score, score},
};
use muster_registry::Account;
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Free resources of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Room {
    /// Which agent.
    pub(crate) agent_id: AgentId,
    /// What is told of it.
    pub(crate) about: Arc<About>,
    /// All it has.
    pub(crate) total: Resources,
    /// What is free of it.
    pub(crate) free: Resources,
}

/// A framework that wants offers in a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Who, and in which role.
    pub(crate) account: Account,
    /// The scalars it has already, offers included.
    pub(crate) has: Resources,
    /// What it wants.
    pub(crate) wishes: Arc<Wishes>,
}

impl Ask {
    fn wants(&self) -> Option<&Wants> {
        self.wishes.wants.get(&self.account.1)
    }

    /// Whether it wants anything of this agent.
    fn takes_agent(&self, room: &Room) -> bool {
        let wanted = self.wants().and_then(|wants| wants.agents.as_ref());
        (self.wishes.gpus || room.total.quantity("gpus") == 0)
            && wanted.is_none_or(|agents| agents.allow(&room.about.hostname, &room.about.attributes))
    }

    /// What of a room it may have, if that is worth an offer to it.
    fn part_of<'a>(&self, room: &'a Room, quotas: &Quotas, policy: &Policy) -> Option<Cow<'a, Resources>> {
        let role = &self.account.1;
        // Most rooms are looked at and not taken: nothing is copied of a plain one.
        let mut part = match room.free.is_plain() {
            true => Cow::Borrowed(&room.free),
            false if self.wishes.refined => Cow::Owned(room.free.usable_by(role)),
            false => {
                let usable = room.free.usable_by(role);
                Cow::Owned(usable.filtered(|label| label.is_none_or(|label| !label.is_refined())))
            }
        };
        if !quotas.is_empty() {
            part = Cow::Owned(quotas.allow(role, &part));
        }
        let is_worth_it = match self.wants().and_then(|wants| wants.at_least.as_ref()) {
            None => policy.is_allocatable(&part),
            Some(any) if any.is_empty() => !part.is_empty(),
            Some(some) => {
                let all = part.quantities();
                some.iter().any(|least| all.contains(least))
            }
        };
        is_worth_it.then_some(part)
    }
}

/// What a pass goes by.
pub(crate) struct Standing<'a> {
    /// What each role's own frameworks have, offers included.
    pub(crate) roles: &'a BTreeMap<Role, Resources>,
    /// All that there is.
    pub(crate) fleet: &'a Resources,
    /// The fleet's largest total of each kind, if anybody has needs.
    pub(crate) largest: &'a Resources,
    pub(crate) policy: &'a Policy,
    /// The weights that operators set.
    pub(crate) weights: &'a BTreeMap<Role, u64>,
    /// Whether a filter hides these resources of a room from an ask.
    pub(crate) hidden: &'a dyn Fn(&Ask, &Room, &Resources) -> bool,
}

/// What a pass gave: which ask, of which room, what.
pub(crate) type Given = (usize, usize, Resources);

/// Gives each room to one ask after the other, each time all of it that the ask may have: to the role with the smallest
/// weighted dominant share, and in it to the framework with the smallest; ties go by name. First come the roles that
/// lack something that they are guaranteed, until they do not. The pass is over when no room is left that anybody may
/// have; rooms and asks leave it with what they have by then.
pub(crate) fn allocate(
    rooms: &mut [Room],
    asks: &mut [Ask],
    standing: &Standing<'_>,
    quotas: &mut Quotas,
) -> (Vec<Given>, Vec<Pass>) {
    let mut given = Vec::new();
    if !quotas.anybody_lacks() {
        let passes = Round { standing, rooms, asks }.go(standing.roles, quotas, false, &mut given);
        return (given, passes);
    }
    Round { standing, rooms, asks }.go(standing.roles, quotas, true, &mut given);
    let mut roles = standing.roles.clone();
    for (i, _, part) in &given {
        roles.entry(asks[*i].account.1.clone()).or_default().add(&part.quantities());
    }
    let passes = Round { standing, rooms, asks }.go(&roles, quotas, false, &mut given);
    // Who got something of a room in both rounds is offered it together.
    let mut together: BTreeMap<(usize, usize), Resources> = BTreeMap::new();
    for (ask, room, part) in given {
        together.entry((ask, room)).or_default().add(&part);
    }
    (together.into_iter().map(|((ask, room), part)| (ask, room, part)).collect(), passes)
}

struct Round<'a> {
    standing: &'a Standing<'a>,
    rooms: &'a mut [Room],
    asks: &'a mut [Ask],
}

impl Round<'_> {
    /// One round over all who ask, or those only whose roles lack something.
    fn go(
        self,
        roles: &BTreeMap<Role, Resources>,
        quotas: &mut Quotas,
        lacking: bool,
        given: &mut Vec<Given>,
    ) -> Vec<Pass> {
        let Self { standing, rooms, asks } = self;
        let Standing { fleet, policy, .. } = *standing;
        let weight = |role: &Role| {
            let set = standing.weights.get(role).or_else(|| policy.weights.get(role));
            set.copied().unwrap_or(Policy::WEIGHT_MILLI)
        };
        // Somebody may be content with less than others.
        let few = asks.iter().any(|ask| ask.wants().is_some_and(|wants| wants.at_least.is_some()));
        let is_worth_it = |free: &Resources| if few { !free.is_empty() } else { policy.is_allocatable(free) };
        let mut free: BTreeSet<usize> = (0..rooms.len()).filter(|&i| is_worth_it(&rooms[i].free)).collect();
        let mut cursor = vec![0; asks.len()];
        let mut got = vec![false; asks.len()];
        let mut passes = Vec::new();
        let mut tree = Tree::new(asks, roles, fleet, weight);
        while !free.is_empty()
            && let Some(i) = tree.next()
        {
            let ask = &asks[i];
            if lacking && !quotas.lacks(&ask.account.1) {
                continue;
            }
            let part = |room| part_for(ask, room, standing, quotas);
            let choice = match ask.wishes.needs.is_empty() {
                true => first_open(rooms, &free, &mut cursor[i], part),
                false => best_scored(rooms, &free, ask, standing, part),
            };
            let (room, part) = match choice {
                Ok(chosen) => chosen,
                Err(why) => {
                    if !got[i] {
                        passes.push(Pass { account: ask.account.clone(), why });
                    }
                    continue;
                }
            };
            got[i] = true;
            if !quotas.is_empty() {
                quotas.take(&ask.account.1, &part);
            }
            let counted = part.quantities();
            asks[i].has.add(&counted);
            tree.serve(i, &asks[i], &counted);
            rooms[room].free.subtract(&part);
            if !is_worth_it(&rooms[room].free) {
                free.remove(&room);
            }
            given.push((i, room, part));
        }
        passes
    }
}

/// What of a room an ask may have and wants.
fn part_for<'a>(
    ask: &Ask,
    room: &'a Room,
    standing: &Standing<'_>,
    quotas: &Quotas,
) -> Result<Cow<'a, Resources>, Why> {
    if !ask.takes_agent(room) {
        return Err(Why::NotForIt);
    }
    let part = ask.part_of(room, quotas, standing.policy).ok_or(Why::NotForIt)?;
    if (standing.hidden)(ask, room, &part) { Err(Why::Filtered) } else { Ok(part) }
}

/// The first room from the ask's cursor on that it may have something of. What was passed over stays passed over.
fn first_open<'a>(
    rooms: &'a [Room],
    free: &BTreeSet<usize>,
    cursor: &mut usize,
    part: impl Fn(&'a Room) -> Result<Cow<'a, Resources>, Why>,
) -> Result<(usize, Resources), Why> {
    let mut why_not = Why::NotForIt;
    for &i in free.range(*cursor..) {
        match part(&rooms[i]) {
            Ok(part) => {
                *cursor = i + 1;
                return Ok((i, part.into_owned()));
            }
            Err(Why::Filtered) => why_not = Why::Filtered,
            Err(_) => {}
        }
    }
    *cursor = rooms.len();
    Err(why_not)
}

/// The room with the best score for any of the ask's needs; ties go to the first.
fn best_scored<'a>(
    rooms: &'a [Room],
    free: &BTreeSet<usize>,
    ask: &Ask,
    standing: &Standing<'_>,
    part: impl Fn(&'a Room) -> Result<Cow<'a, Resources>, Why>,
) -> Result<(usize, Resources), Why> {
    let alpha = standing.policy.affinity_weight_milli;
    let mut best: Option<(Score, usize, Cow<'a, Resources>)> = None;
    for &i in free {
        let (room, Ok(part)) = (&rooms[i], part(&rooms[i])) else { continue };
        let all = if part.is_plain() { part.clone() } else { Cow::Owned(part.flattened()) };
        let fitting = ask.wishes.needs.iter().filter(|need| all.contains(need));
        let scores = fitting.map(|need| score(need, &room.total, &part, standing.largest, alpha));
        if let Some(score) = scores.max()
            && best.as_ref().is_none_or(|(most, ..)| score > *most)
        {
            best = Some((score, i, part));
        }
    }
    best.map(|(_, i, part)| (i, part.into_owned())).ok_or(Why::NeedsUnmet)
}
