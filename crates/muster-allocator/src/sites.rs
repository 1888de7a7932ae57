//! The shard's agents as a pass needs them: each in a place of its own, with what is granted and filtered there.

use crate::{
    AgentView, View,
    bits::Bits,
    kinds::{Kinds, Row},
    nouns::{About, Filter},
};
use muster_model::{AgentId, Resources, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// An agent.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) id: AgentId,
    pub(crate) about: Arc<About>,
    pub(crate) total: Resources,
    pub(crate) has_gpus: bool,
    pub(crate) offerable: bool,
    /// What is not held of it.
    pub(crate) rest: Arc<Resources>,
    /// That in numbers.
    pub(crate) amounts: Row,
    /// Whether nothing of it is under a label.
    pub(crate) is_plain: bool,
    /// The numbers of the grants that stand.
    pub(crate) grants: Vec<u64>,
    /// They are all that is not held.
    pub(crate) is_all_granted: bool,
    /// What was declined, by the places of accounts, ascending.
    filters: Vec<(u32, Filter)>,
    /// When it is looked at for filters that have ended.
    looked_at: Option<Timestamp>,
    /// The view knows more of it by now.
    is_stale: bool,
    /// The agent is no more, but grants of it stand.
    is_gone: bool,
    is_dirty: bool,
}

impl Site {
    /// Whether a filter of an account hides these resources.
    pub(crate) fn hides(&self, account: u32, part: &Resources) -> bool {
        if self.filters.is_empty() {
            return false;
        }
        let start = self.filters.partition_point(|(of, _)| *of < account);
        let own = self.filters[start..].iter().take_while(|(of, _)| *of == account);
        own.into_iter().any(|(_, filter)| filter.refused.contains(part))
    }

    fn update(&mut self, agent: &AgentView, kinds: &mut Kinds) {
        if self.total != agent.total {
            self.total = agent.total.clone();
        }
        self.about = agent.about.clone();
        self.offerable = agent.offerable;
        self.has_gpus = self.total.quantity("gpus") > 0;
        self.rest = Arc::new(self.total.minus(&agent.held));
        self.amounts = kinds.amounts(&self.rest).into();
        self.is_plain = self.rest.is_plain();
        self.is_all_granted = false;
        self.is_stale = false;
    }
}

/// All agents of the shard.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    places: BTreeMap<AgentId, u32>,
    all: Vec<Site>,
    /// Places of agents that are no more.
    empty: Vec<u32>,
    /// Those that may have something to offer.
    dirty: Vec<u32>,
    all_dirty: bool,
    /// Those of which something may be free.
    open: Bits,
    /// When each one that has filters is to be looked at.
    looks: BTreeSet<(Timestamp, u32)>,
}

impl Sites {
    pub(crate) fn site(&self, place: u32) -> &Site {
        &self.all[place as usize]
    }

    pub(crate) fn site_mut(&mut self, place: u32) -> &mut Site {
        &mut self.all[place as usize]
    }

    pub(crate) fn find(&self, id: &AgentId) -> Option<u32> {
        self.places.get(id).copied()
    }

    /// Starts again from a view: places, grants and filters stay.
    pub(crate) fn reset(&mut self, view: &View) {
        let gone: Vec<AgentId> =
            self.places.keys().filter(|id| !view.agents().contains_key(*id)).cloned().collect();
        gone.iter().for_each(|id| self.remove(id));
        view.agents().keys().for_each(|id| _ = self.changed(id));
    }

    /// The view knows something new of an agent. Its place.
    pub(crate) fn changed(&mut self, id: &AgentId) -> u32 {
        if let Some(place) = self.find(id) {
            let site = self.site_mut(place);
            (site.is_stale, site.is_gone) = (true, false);
            self.open.set(place as usize, true);
            return place;
        }
        let site = Site {
            id: id.clone(),
            about: Arc::new(About { hostname: "".into(), attributes: Vec::new() }),
            total: Resources::none(),
            has_gpus: false,
            offerable: false,
            rest: Arc::default(),
            amounts: Row::default(),
            is_plain: true,
            grants: Vec::new(),
            is_all_granted: false,
            filters: Vec::new(),
            looked_at: None,
            is_stale: true,
            is_gone: false,
            is_dirty: false,
        };
        let place = match self.empty.pop() {
            Some(place) => {
                self.all[place as usize] = site;
                place
            }
            None => {
                self.all.push(site);
                self.all.len() as u32 - 1
            }
        };
        self.places.insert(id.clone(), place);
        self.open.set(place as usize, true);
        place
    }

    /// An agent is no more. Its place stays while grants of it stand.
    pub(crate) fn remove(&mut self, id: &AgentId) {
        let Some(place) = self.find(id) else { return };
        self.forget_filters(place);
        let site = self.site_mut(place);
        (site.is_gone, site.offerable) = (true, false);
        self.give_up(place);
    }

    fn give_up(&mut self, place: u32) {
        let site = &mut self.all[place as usize];
        if site.is_gone && site.grants.is_empty() {
            site.is_dirty = false;
            self.open.set(place as usize, false);
            self.places.remove(&site.id);
            self.empty.push(place);
        }
    }

    /// A grant is over.
    pub(crate) fn returned(&mut self, place: u32, grant: u64) {
        let site = &mut self.all[place as usize];
        site.grants.retain(|it| *it != grant);
        site.is_all_granted = false;
        self.open.set(place as usize, true);
        if site.is_gone {
            self.give_up(place);
        } else {
            self.dirty(place);
        }
    }

    /// The view may know something new of each.
    pub(crate) fn all_stale(&mut self) {
        for (place, site) in self.all.iter_mut().enumerate() {
            site.is_stale = true;
            self.open.set(place, !site.is_gone);
        }
    }

    /// Nothing of it is free until something is returned or the view knows something new.
    pub(crate) fn all_granted(&mut self, place: u32) {
        self.all[place as usize].is_all_granted = true;
        self.open.set(place as usize, false);
    }

    /// It may have something to offer.
    pub(crate) fn dirty(&mut self, place: u32) {
        let site = &mut self.all[place as usize];
        if !site.is_dirty {
            site.is_dirty = true;
            self.dirty.push(place);
        }
    }

    /// Each of them may.
    pub(crate) fn all_dirty(&mut self) {
        self.all_dirty = true;
    }

    /// Takes those that may have something to offer, by their agents' names, each as the view knows it. `afresh` is told
    /// whose description may be another.
    pub(crate) fn take_dirty(
        &mut self,
        view: &View,
        kinds: &mut Kinds,
        mut afresh: impl FnMut(u32),
    ) -> Vec<u32> {
        let mut dirty = std::mem::take(&mut self.dirty);
        if std::mem::take(&mut self.all_dirty) {
            let mut next = 0;
            while let Some(place) = self.open.next(next, None) {
                if !std::mem::replace(&mut self.all[place].is_dirty, true) {
                    dirty.push(place as u32);
                }
                next = place + 1;
            }
        }
        if dirty.len() > self.places.len() / 8 {
            // To walk along all is quicker than to sort.
            dirty.clear();
            dirty.extend(self.places.values().filter(|place| self.all[**place as usize].is_dirty));
        } else {
            // A place that was given up and taken again may be in it twice.
            dirty.retain(|place| std::mem::take(&mut self.all[*place as usize].is_dirty));
            dirty.sort_unstable_by(|a, b| self.site(*a).id.cmp(&self.site(*b).id));
        }
        for &place in &dirty {
            let site = &mut self.all[place as usize];
            site.is_dirty = false;
            if site.is_stale
                && let Some(agent) = view.agents().get(&site.id)
            {
                site.update(agent, kinds);
                afresh(place);
            }
        }
        dirty
    }

    /// Takes back the memory of what was taken.
    pub(crate) fn give_back(&mut self, mut dirty: Vec<u32>) {
        if self.dirty.is_empty() {
            dirty.clear();
            self.dirty = dirty;
        }
    }

    /// An account wants nothing the like until then.
    pub(crate) fn filter(&mut self, place: u32, account: u32, new: Filter) {
        let site = &mut self.all[place as usize];
        if site.is_gone {
            return;
        }
        // A newer refusal of more makes an older one of less needless.
        site.filters.retain(|(of, old)| {
            *of != account || old.until > new.until || !new.refused.contains(&old.refused)
        });
        let at = site.filters.partition_point(|(of, _)| *of <= account);
        site.filters.insert(at, (account, new));
        self.look_again(place);
    }

    /// It is looked at when the first of its filters ends.
    fn look_again(&mut self, place: u32) {
        let site = &mut self.all[place as usize];
        let next = site.filters.iter().map(|(_, filter)| filter.until).min();
        let before = std::mem::replace(&mut site.looked_at, next);
        if next != before {
            before.map(|at| self.looks.remove(&(at, place)));
            self.looks.extend(next.map(|at| (at, place)));
        }
    }

    fn keep_filters(&mut self, place: u32, keep: impl Fn(u32, &Filter) -> bool) {
        let site = &mut self.all[place as usize];
        site.filters.retain(|(account, filter)| keep(*account, filter));
        self.look_again(place);
    }

    fn forget_filters(&mut self, place: u32) {
        self.keep_filters(place, |_, _| false);
    }

    /// Forgets filters of accounts.
    pub(crate) fn forget_filters_of(&mut self, is_theirs: impl Fn(u32) -> bool) {
        for place in 0..self.all.len() as u32 {
            if self.site(place).filters.iter().any(|(account, _)| is_theirs(*account)) {
                self.keep_filters(place, |account, _| !is_theirs(account));
            }
        }
    }

    /// Forgets the filters that have ended, and marks their agents.
    pub(crate) fn end_filters(&mut self, now: Timestamp) {
        while let Some((until, place)) = self.looks.first().copied() {
            if until > now {
                return;
            }
            self.keep_filters(place, |_, filter| filter.until > now);
            self.dirty(place);
        }
    }

    /// When the next filter ends.
    pub(crate) fn next_end(&self) -> Option<Timestamp> {
        self.looks.first().map(|(until, _)| *until)
    }

    /// Accounts moved: filters name their new places.
    pub(crate) fn move_accounts(&mut self, moved: &[Option<u32>]) {
        for site in &mut self.all {
            for (account, _) in &mut site.filters {
                *account = moved[*account as usize].unwrap_or(*account);
            }
            site.filters.sort_by_key(|(account, _)| *account);
        }
    }

    /// The accounts that have filters.
    pub(crate) fn filtered_accounts(&self) -> impl Iterator<Item = u32> {
        self.all.iter().flat_map(|site| &site.filters).map(|(account, _)| *account)
    }
}
