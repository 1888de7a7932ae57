//! Which members were down, and when, by the nemesis's own word.

use crate::history::{Entry, Event, Phase};
use crate::nemesis::{AWAY, EXPIRE, GONE, KILL, RESTART};
use std::collections::{BTreeMap, BTreeSet};

/// Faults that end a process, or keep it away until it counts as lost. Whoever stands still or is cut off for less long
/// loses nothing by it.
const ENDS: [&str; 3] = [KILL, RESTART, AWAY];
/// What is told of a task on an agent that never comes back, as an operator said.
pub(super) const GONE_BY_OPERATOR: &str = "TASK_GONE_BY_OPERATOR";

/// When a process was ended on purpose, by places in the history.
#[derive(Debug)]
pub(super) struct Outages<'a>(Vec<Outage<'a>>);

#[derive(Debug)]
struct Outage<'a> {
    fault: &'a str,
    target: &'a str,
    from: usize,
    to: usize,
}

impl<'a> Outages<'a> {
    /// Those of a history. One that did not end lasts.
    pub(super) fn of(history: &'a [Entry]) -> Self {
        Self::by(history, &ENDS)
    }

    fn by(history: &'a [Entry], faults: &[&str]) -> Self {
        let mut all: Vec<Outage<'a>> = Vec::new();
        for (at, entry) in history.iter().enumerate() {
            let Event::Nemesis { fault, target, begins, .. } = &entry.event else { continue };
            if !faults.contains(&&**fault) {
                continue;
            }
            if *begins {
                all.push(Outage { fault, target, from: at, to: usize::MAX });
            } else if let Some(open) = all
                .iter_mut()
                .rev()
                .find(|one| one.to == usize::MAX && one.fault == fault && one.target == target)
            {
                open.to = at;
            }
        }
        Self(all)
    }

    /// Whether a member was ended between two places in the history.
    pub(super) fn hit(&self, name: &str, from: usize, to: usize) -> bool {
        self.0
            .iter()
            .any(|one| one.from <= to && one.to >= from && one.target.split(',').any(|it| it == name))
    }
}

/// The frameworks that a fault of this name was done to, once for each time.
pub(super) fn targets<'a>(history: &'a [Entry], wanted: &'a str) -> impl Iterator<Item = &'a str> {
    history.iter().filter_map(move |entry| match &entry.event {
        Event::Nemesis { fault, target, begins: true, .. } if fault == wanted => Some(&**target),
        _ => None,
    })
}

/// The tasks whose end their frameworks were told to be that their agent never comes back, and of whose agent an operator
/// said so meanwhile.
pub(super) fn gone(history: &[Entry]) -> BTreeSet<&str> {
    let marked = Outages::by(history, &[GONE]);
    let (mut launched, mut gone) = (BTreeMap::new(), BTreeSet::new());
    for (at, entry) in history.iter().enumerate() {
        match &entry.event {
            Event::Launch { phase: Phase::Invoked, task, agent, .. } => {
                launched.insert(&**task, (at, &**agent));
            }
            Event::Update { task, state, durable: true, .. }
                if state == GONE_BY_OPERATOR
                    && launched.get(&**task).is_some_and(|(from, agent)| marked.hit(agent, *from, at)) =>
            {
                gone.insert(&**task);
            }
            _ => {}
        }
    }
    gone
}

/// The tasks that their frameworks asked to end.
pub(super) fn killed(history: &[Entry]) -> BTreeSet<&str> {
    let killed = history.iter().filter_map(|entry| match &entry.event {
        Event::Kill { task } => Some(&**task),
        _ => None,
    });
    killed.collect()
}

/// The frameworks that are torn down on purpose.
pub(super) fn ended_frameworks(history: &[Entry]) -> BTreeSet<&str> {
    let operated = history.iter().filter_map(|entry| match &entry.event {
        Event::Operate { framework, .. } => Some(&**framework),
        _ => None,
    });
    targets(history, EXPIRE).chain(operated).collect()
}
