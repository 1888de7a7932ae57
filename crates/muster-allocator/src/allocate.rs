//! The decision: dominant-resource fairness over roles, and over the frameworks of each role.
//!
//! Ghodsi et al., "Dominant Resource Fairness", NSDI 2011: whoever's dominant share is smallest is next.
//!
//! What many asks have in common is decided once for all of them ([`Class`](crate::plan::Class)): what is free only becomes
//! less in a pass, and so do quotas; so what one of them may not have, none of them may later.

use crate::{
    Pass, Policy, Why,
    accounts::Accounts,
    bits::Bits,
    kinds::{Kinds, Row, add, add_in, share},
    plan::{Answers, Plan},
    quota::{Own, Quotas},
    room::{Given, Part, Room},
    sites::Sites,
    tree::Tree,
};
use muster_model::{
    Resources,
    score::{Score, score},
};
use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
};

/// What a pass goes by.
pub(crate) struct Standing<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) accounts: &'a Accounts,
    pub(crate) sites: &'a Sites,
    pub(crate) kinds: &'a Kinds,
    /// All that there is.
    pub(crate) fleet: &'a [u64],
    /// Where these kinds are, if there are any.
    pub(crate) cpus_and_mem: (Option<usize>, Option<usize>),
    /// The fleet's largest total of each kind, if anybody has needs.
    pub(crate) largest: &'a Resources,
    pub(crate) policy: &'a Policy,
    /// What is left of a room that was given whole.
    pub(crate) nothing: &'a Arc<Resources>,
}

/// Gives each room to one ask after the other, each time all of it that the ask may have: to the role with the smallest
/// weighted dominant share, and in it to the framework with the smallest; ties go by name. First come the roles that
/// lack something that they are guaranteed, until they do not. The pass is over when no room is left that anybody may
/// have. Adds to what is given.
pub(crate) fn allocate(
    rooms: &mut [Room],
    standing: &Standing<'_>,
    answers: &mut Answers,
    quotas: &mut Quotas,
    given: &mut Vec<Given>,
) -> Vec<Pass> {
    let kinds = standing.fleet.len();
    let mut has = vec![0; standing.plan.asks.len() * kinds];
    for (ask, row) in standing.plan.asks.iter().zip(has.chunks_exact_mut(kinds.max(1))) {
        add_in(row, &standing.accounts.row(ask.account).has);
    }
    let own = standing.plan.classes.iter().map(|class| quotas.own(&class.role)).collect();
    let mut round = Round { standing, rooms, answers, quotas, own, has, given };
    let roles = standing.accounts.roles();
    if !round.quotas.anybody_lacks() {
        return round.go(roles.iter().map(|(_, has)| has.as_slice()), false);
    }
    round.go(roles.iter().map(|(_, has)| has.as_slice()), true);
    let mut roles: BTreeMap<_, _> = roles.iter().map(|(role, has)| (role, has.clone())).collect();
    for given in &*round.given {
        let class = &standing.plan.classes[standing.plan.asks[given.ask as usize].class as usize];
        if let Some(has) = roles.get_mut(&class.role) {
            add(has, &given.amounts);
        }
    }
    let in_place = standing.accounts.roles().iter().map(|(role, _)| roles[role].as_slice());
    let passes = round.go(in_place, false);
    // Who got something of a room in both rounds is offered it together.
    given.sort_unstable_by_key(|given| (given.ask, given.room));
    given.dedup_by(|second, first| {
        let is_same = (second.ask, second.room) == (first.ask, first.room);
        if is_same {
            Arc::make_mut(&mut first.part).add(&second.part);
            first.amounts = standing.kinds.known(&first.part).into();
            first.is_plain &= second.is_plain;
            first.is_all = false;
        }
        is_same
    });
    passes
}

struct Round<'a> {
    standing: &'a Standing<'a>,
    rooms: &'a mut [Room],
    answers: &'a mut Answers,
    quotas: &'a mut Quotas,
    /// The quotas of each class.
    own: Vec<Own>,
    /// What each ask has, row after row.
    has: Vec<u64>,
    given: &'a mut Vec<Given>,
}

/// Rooms with their scores, the best first, and of equals the first.
type Best = BinaryHeap<(Score, Reverse<usize>)>;

/// What is found out in the course of a round.
struct Found {
    /// Rooms that are worth to be looked at.
    free: Bits,
    /// Of each class, rooms that it may have something of as far as is known; nothing is known yet of who has none.
    open: Vec<Option<Bits>>,
    /// Of each ask, from where on it looks: what was passed over stays passed over.
    cursor: Vec<usize>,
    /// Of each class with needs the best rooms first, as they scored when they were last looked at: scores only fall.
    best: Vec<Option<Best>>,
}

impl Round<'_> {
    /// One round over all who ask, or those only whose roles lack something. `roles` is what they have by their places.
    fn go<'b>(&mut self, roles: impl Iterator<Item = &'b [u64]>, lacking: bool) -> Vec<Pass> {
        let Standing { plan, fleet, accounts, .. } = *self.standing;
        let weight = Policy::WEIGHT_MILLI;
        let rows = self.has.chunks_exact(fleet.len().max(1));
        let shares = rows.map(|has| share(has, fleet, weight)).chain(std::iter::repeat(0));
        let asks = plan.asks.iter().zip(shares).map(|(ask, share)| (ask.leaf, share));
        let mut tree = Tree::new(&plan.shape, fleet, roles, asks);
        let mut found = Found {
            free: Bits::default(),
            open: vec![None; plan.classes.len()],
            cursor: vec![0; plan.asks.len()],
            best: (0..plan.classes.len()).map(|_| None).collect(),
        };
        let mut left = 0;
        for room in (0..self.rooms.len()).filter(|room| self.is_worth_it(*room)) {
            found.free.set(room, true);
            left += 1;
        }
        let mut got = vec![false; plan.asks.len()];
        let mut passes = Vec::new();
        while left > 0
            && let Some(i) = tree.first()
        {
            let class = plan.asks[i].class as usize;
            if lacking && !self.quotas.lacks(&self.own[class]) {
                tree.leave();
                continue;
            }
            let choice = match plan.classes[class].needs.is_empty() {
                true => self.first_open(i, &mut found),
                false => self.best_scored(i, &mut found),
            };
            let (room, part) = match choice {
                Ok(chosen) => chosen,
                Err(why) => {
                    if !got[i] {
                        let account = accounts.row(plan.asks[i].account).account.clone();
                        passes.push(Pass { account, why });
                    }
                    tree.leave();
                    continue;
                }
            };
            got[i] = true;
            self.give(i, room, part, &mut tree);
            if !self.is_worth_it(room) {
                found.free.set(room, false);
                left -= 1;
            }
        }
        passes
    }

    /// Whether what is left of a room is worth an offer to anybody.
    fn is_worth_it(&self, room: usize) -> bool {
        match self.standing.plan.is_any_content {
            true => !self.rooms[room].free.is_empty(),
            false => self.is_room_allocatable(room),
        }
    }

    /// Whether so much of each kind is worth an offer to who says nothing else.
    fn is_allocatable(&self, amount: &dyn Fn(usize) -> u64) -> bool {
        let Standing { policy, cpus_and_mem: (cpus, mem), .. } = *self.standing;
        cpus.map_or(0, amount) >= policy.min_cpus_milli || mem.map_or(0, amount) >= policy.min_mem_milli
    }

    fn is_room_allocatable(&self, at: usize) -> bool {
        let amounts = &self.rooms[at].amounts;
        self.is_allocatable(&|kind| amounts.get(kind).copied().unwrap_or(0))
    }

    fn give(&mut self, i: usize, at: usize, part: Part, tree: &mut Tree<'_>) {
        let Standing { plan, fleet, kinds, nothing, .. } = *self.standing;
        let own = &self.own[plan.asks[i].class as usize];
        let row = &mut self.has[i * fleet.len()..][..fleet.len()];
        let mut serve = |counted: &[u64]| {
            add_in(row, counted);
            tree.serve(counted, share(row, fleet, Policy::WEIGHT_MILLI));
        };
        let room = &mut self.rooms[at];
        let place = room.place;
        let (part, amounts, is_plain, is_all) = match part {
            Part::Whole => {
                serve(&room.amounts);
                if !self.quotas.is_empty() {
                    self.quotas.take(own, &room.amounts);
                }
                let amounts = std::mem::take(&mut room.amounts);
                let part = std::mem::replace(&mut room.free, nothing.clone());
                (part, amounts, true, std::mem::take(&mut room.is_rest))
            }
            Part::Some(part) => {
                let (amounts, is_plain): (Row, bool) = (kinds.known(&part).into(), part.is_plain());
                serve(&amounts);
                match self.quotas.is_empty() {
                    true => {}
                    false if is_plain => self.quotas.take(own, &amounts),
                    false => self.quotas.take(own, &kinds.known(&part.unreserved())),
                }
                room.free = Arc::new(room.free.minus(&part));
                room.amounts = kinds.known(&room.free).into();
                (room.is_plain, room.is_rest) = (room.free.is_plain(), false);
                (Arc::new(part), amounts, is_plain, false)
            }
        };
        self.given.push(Given { ask: i as u32, room: at as u32, place, part, amounts, is_plain, is_all });
    }

    /// What of a room the asks of a class may have and want, but for their filters, if that is worth an offer to them.
    fn part(&mut self, class: usize, at: usize) -> Option<Part> {
        let room = &self.rooms[at];
        let site = self.standing.sites.site(room.place);
        let (own, class) = (&self.own[class], &self.standing.plan.classes[class]);
        if (site.has_gpus && !class.gpus) || !class.wants(room.place, &site.about, self.answers) {
            return None;
        }
        let part = if room.is_plain {
            let amounts = &room.amounts;
            match self.quotas.is_empty() || self.quotas.allow_all(own, amounts) {
                true => Part::Whole,
                // Most often the role has all that it may have: nothing is copied of what is too little.
                false
                    if class.at_least.is_none()
                        && !self.is_allocatable(&|kind| {
                            self.quotas.most(own, kind).min(amounts.get(kind).copied().unwrap_or(0))
                        }) =>
                {
                    return None;
                }
                false => Part::Some(self.quotas.allow(own, &room.free, self.standing.kinds)),
            }
        } else {
            let mut usable = room.free.usable_by(&class.role);
            if !class.refined {
                usable = usable.filtered(|label| label.is_none_or(|label| !label.is_refined()));
            }
            if !self.quotas.is_empty() {
                usable = self.quotas.allow(own, &usable, self.standing.kinds);
            }
            Part::Some(usable)
        };
        let what = match &part {
            Part::Whole => &*room.free,
            Part::Some(some) => some,
        };
        let is_worth_it = match (&class.at_least, &part) {
            (None, Part::Whole) => self.is_room_allocatable(at),
            (None, Part::Some(some)) => self.standing.policy.is_allocatable(some),
            (Some(any), _) if any.is_empty() => !what.is_empty(),
            (Some(some), _) => {
                let all = what.quantities();
                some.iter().any(|least| all.contains(least))
            }
        };
        is_worth_it.then_some(part)
    }

    /// Whether a filter hides from an ask what it may have of a room.
    fn is_hidden(&self, i: usize, at: usize, part: &Part) -> bool {
        let room = &self.rooms[at];
        let what = match part {
            Part::Whole => &*room.free,
            Part::Some(some) => some,
        };
        self.standing.sites.site(room.place).hides(self.standing.plan.asks[i].account, what)
    }

    /// The first room from the ask's cursor on that it may have something of.
    fn first_open(&mut self, i: usize, found: &mut Found) -> Result<(usize, Part), Why> {
        let class = self.standing.plan.asks[i].class as usize;
        let mut why_not = Why::NotForIt;
        while let Some(at) = found.free.next(found.cursor[i], found.open[class].as_ref()) {
            found.cursor[i] = at + 1;
            match self.part(class, at) {
                None => found.close(class, at, self.rooms.len()),
                Some(part) if self.is_hidden(i, at, &part) => why_not = Why::Filtered,
                Some(part) => return Ok((at, part)),
            }
        }
        found.cursor[i] = self.rooms.len();
        Err(why_not)
    }

    /// The room with the best score for any of the ask's needs; ties go to the first.
    fn best_scored(&mut self, i: usize, found: &mut Found) -> Result<(usize, Part), Why> {
        let class = self.standing.plan.asks[i].class as usize;
        let mut best = match found.best[class].take() {
            Some(best) => best,
            None => {
                let free = (0..self.rooms.len()).filter(|at| found.free.has(*at));
                let scored =
                    free.filter_map(|at| self.scored(class, at).map(|(score, _)| (score, Reverse(at))));
                scored.collect::<Vec<_>>().into()
            }
        };
        let (mut chosen, mut hidden) = (None, Vec::new());
        while let Some((before, Reverse(at))) = best.pop() {
            if !found.free.has(at) {
                continue;
            }
            let Some((score, part)) = self.scored(class, at) else { continue };
            if score < before {
                best.push((score, Reverse(at)));
            } else if self.is_hidden(i, at, &part) {
                hidden.push((score, Reverse(at)));
            } else {
                // Something may be left of it for others.
                hidden.push((score, Reverse(at)));
                chosen = Some((at, part));
                break;
            }
        }
        best.extend(hidden);
        found.best[class] = Some(best);
        chosen.ok_or(Why::NeedsUnmet)
    }

    fn scored(&mut self, class: usize, at: usize) -> Option<(Score, Part)> {
        let part = self.part(class, at)?;
        let Standing { plan, policy, largest, sites, .. } = *self.standing;
        let room = &self.rooms[at];
        let what = match &part {
            Part::Whole => &*room.free,
            Part::Some(some) => some,
        };
        let all = if what.is_plain() { Cow::Borrowed(what) } else { Cow::Owned(what.flattened()) };
        let fitting = plan.classes[class].needs.iter().filter(|need| all.contains(need));
        let alpha = policy.affinity_weight_milli;
        let total = &sites.site(room.place).total;
        let best = fitting.map(|need| score(need, total, what, largest, alpha)).max();
        best.map(|score| (score, part))
    }
}

impl Found {
    /// Nobody of a class may have anything of a room.
    fn close(&mut self, class: usize, at: usize, rooms: usize) {
        self.open[class].get_or_insert_with(|| Bits::all(rooms)).set(at, false);
    }
}
