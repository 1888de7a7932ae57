//! Offers: no resource is in two that stand at once, nor in one that stands and a task that runs.

use super::logs::{committed, launch_of, longest, term_of};
use crate::history::{Amounts, Entry, Event, Phase, Usage};
use crate::model::Truth;
use serde_json::Value;
use std::collections::BTreeMap;

/// What was held of an agent for a time, for certain.
#[derive(Debug)]
struct Held<'a> {
    what: &'a str,
    agent: &'a str,
    amounts: &'a Amounts,
    /// The leadership that an offer is of; none for a task, which all know of.
    term: Option<u64>,
    from_us: u64,
    to_us: u64,
}

impl Held<'_> {
    fn is_beside(&self, other: &Self) -> bool {
        self.agent == other.agent && (self.term.is_none() || other.term.is_none() || self.term == other.term)
    }

    fn stands_at(&self, at_us: u64) -> bool {
        (self.from_us..=self.to_us).contains(&at_us)
    }
}

/// The scalars of resources as the log has them.
fn amounts(resources: &Value) -> Amounts {
    let scalar = |(kind, value): (&String, &Value)| Some((kind.clone(), value.get("Scalar")?.as_u64()?));
    resources.as_object().into_iter().flatten().filter_map(scalar).collect()
}

/// The offers that stood when their ACCEPT came to their leader, each used alone, with what they held by the log's word.
fn stood(truth: &Truth) -> BTreeMap<&str, Amounts> {
    let mut stood = BTreeMap::new();
    for entry in committed(longest(truth)) {
        for (command, outcome) in entry.decided() {
            let Some(launch) = launch_of(command).filter(|_| outcome.get("Launched").is_some()) else {
                continue;
            };
            let offers = launch.get("offer_ids").and_then(Value::as_array);
            let Some([Value::String(offer)]) = offers.map(Vec::as_slice) else { continue };
            // An ACCEPT that came again names an offer that is gone: nothing is in it.
            let held = launch.get("offered").map(amounts).unwrap_or_default();
            if !held.is_empty() && term_of(offer) == Some(entry.term) {
                stood.entry(&**offer).or_insert(held);
            }
        }
    }
    stood
}

/// The offers of this history that stood from when their framework was told of them until it used them.
fn offers<'a>(history: &'a [Entry], stood: &'a BTreeMap<&str, Amounts>) -> Vec<Held<'a>> {
    let mut seen: BTreeMap<&str, Held> = BTreeMap::new();
    for entry in history {
        let Event::Accepts { offer, agent, since_us, .. } = &entry.event else { continue };
        let Some(amounts) = stood.get(&**offer) else { continue };
        let (term, from_us, to_us) = (term_of(offer), *since_us, entry.at_us);
        seen.entry(offer).or_insert(Held { what: offer, agent, amounts, term, from_us, to_us });
    }
    seen.into_values().collect()
}

/// The tasks that were killed, which had not ended before they were asked to: from when they were seen to be launched.
fn tasks(history: &[Entry]) -> Vec<Held<'_>> {
    let mut known: BTreeMap<&str, (Held, Option<u64>)> = BTreeMap::new();
    let mut held = Vec::new();
    for entry in history {
        match &entry.event {
            Event::Launch { phase: Phase::Invoked, task, agent, needs } => {
                let open = Held {
                    what: task,
                    agent,
                    amounts: needs,
                    term: None,
                    from_us: u64::MAX,
                    to_us: u64::MAX,
                };
                known.insert(task, (open, None));
            }
            Event::Update { task, state, terminal, durable: true, .. } => {
                let Some((open, asked_us)) = known.get_mut(&**task) else { continue };
                open.from_us = open.from_us.min(entry.at_us);
                if *terminal
                    && let (true, Some(asked_us)) = (state == "TASK_KILLED", *asked_us)
                    && let Some((open, _)) = known.remove(&**task)
                {
                    held.push(Held { to_us: asked_us, ..open });
                }
            }
            Event::Kill { task } => {
                if let Some((_, asked_us)) = known.get_mut(&**task) {
                    asked_us.get_or_insert(entry.at_us);
                }
            }
            _ => {}
        }
    }
    held.retain(|one| one.from_us <= one.to_us);
    held
}

/// What is in the offers of an agent that stand at one moment under one leader, and in the tasks that it runs, is never
/// more than it has; and an offer holds what its framework was told.
///
/// Frameworks learn late that an offer is void: two that believe to have the same resources at hand prove nothing. Only
/// what certainly stood counts. An offer whose ACCEPT its leader took into the log as one of an offer that stands did
/// so from before its framework was told of it until after that said ACCEPT; what was declined or taken back is left
/// out. A task certainly holds what it needs from its first update on, and if it was killed, until that was asked for.
pub fn offers_apart(history: &[Entry], truth: &Truth) -> Vec<String> {
    let stood = stood(truth);
    let mut wrong = Vec::new();
    for entry in history {
        if let Event::Accepts { offer, holds, .. } = &entry.event
            && let Some(used) = stood.get(&**offer).filter(|used| *used != holds)
        {
            wrong.push(format!("{offer} was told to hold {holds:?}, and held {used:?}"));
        }
    }
    let (offers, tasks) = (offers(history, &stood), tasks(history));
    for offer in &offers {
        let Some(total) = truth.totals.get(offer.agent) else { continue };
        let beside: Vec<&Held> = offers.iter().chain(&tasks).filter(|other| other.is_beside(offer)).collect();
        // All that stand at once do so when the last of them begins: an offer, or a task beside an offer.
        let begin = beside.iter().filter(|other| other.term.is_none()).map(|task| task.from_us);
        let moments = begin.filter(|at_us| offer.stands_at(*at_us)).chain([offer.from_us]);
        let found = moments.filter_map(|at_us| Some((at_us, too_much(&beside, total, at_us)?))).min();
        wrong.extend(found.map(|(at_us, what)| format!("{what} of {} at {at_us} us", offer.agent)));
    }
    wrong
}

/// What stands at a moment, and holds more than there is together.
fn too_much(all: &[&Held], total: &Amounts, at_us: u64) -> Option<String> {
    let standing = || all.iter().filter(move |held| held.stands_at(at_us));
    let mut usage = Usage { total: total.clone(), ..Default::default() };
    for (kind, amount) in standing().flat_map(|held| held.amounts) {
        *usage.used.entry(kind.clone()).or_default() += amount;
    }
    let names: Vec<&str> = standing().map(|held| held.what).collect();
    (!usage.over().is_empty()).then(|| format!("{names:?} hold {usage:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::samples::{entry, good, launch, update};
    use serde_json::json;

    const FIRST: &str = "x-O1-0-1";
    const SECOND: &str = "x-O1-0-2";

    fn accepts(framework: &str, offer: &str, cpus: u64, since_us: u64, at_us: u64) -> Entry {
        let (offer, agent, holds) = (offer.into(), "a1".into(), [("cpus".into(), cpus)].into());
        Entry { at_us, ..entry(framework, Event::Accepts { offer, agent, holds, since_us }) }
    }

    /// Entries 3 and 4 use an offer each, of which the log says that they held so much.
    fn complaints(cpus: [u64; 2], then: impl IntoIterator<Item = Entry>) -> Vec<String> {
        let (mut history, mut truth) = good();
        for log in truth.logs.values_mut() {
            for (entry, cpus) in log[3..5].iter_mut().zip(cpus) {
                entry.commands[0]["Launch"]["offered"] =
                    json!({"cpus": {"Scalar": cpus}, "ports": {"Ranges": [[1, 2]]}});
            }
        }
        history.extend(then);
        offers_apart(&history, &truth)
    }

    fn at(at_us: u64, entry: Entry) -> Entry {
        Entry { at_us, ..entry }
    }

    #[test]
    fn two_offers_that_hold_more_than_there_is_are_seen() {
        let both = [accepts("f1", FIRST, 600, 10, 50), accepts("f2", SECOND, 500, 40, 60)];
        let wrong = complaints([600, 500], both.clone());
        assert!(wrong.len() == 1 && wrong[0].contains(FIRST) && wrong[0].contains(SECOND), "{wrong:?}");
        assert!(wrong[0].contains("of a1 at 40 us"), "{wrong:?}");
        // Whoever is told first.
        let wrong =
            complaints([600, 500], [accepts("f2", SECOND, 500, 1, 60), accepts("f1", FIRST, 600, 10, 50)]);
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        // Together no more than there is.
        let both = [accepts("f1", FIRST, 600, 10, 50), accepts("f2", SECOND, 400, 40, 60)];
        assert_eq!(complaints([600, 400], both), Vec::<String>::new());
    }

    #[test]
    fn offers_one_after_the_other_are_no_two_at_once() {
        let both = [accepts("f1", FIRST, 600, 10, 30), accepts("f2", SECOND, 500, 40, 60)];
        assert_eq!(complaints([600, 500], both), Vec::<String>::new());
    }

    #[test]
    fn what_did_not_stand_for_certain_proves_nothing() {
        // One of them was void when it was used, and is not in the log.
        let both = [accepts("f1", FIRST, 600, 10, 50), accepts("f2", "x-O1-0-9", 500, 40, 60)];
        assert_eq!(complaints([600, 500], both), Vec::<String>::new());
        // It came again to a leader that had it no more, or one of another term took it: that is another promise.
        for spoil in [json!({"offered": {}}), json!({"offer_ids": ["x-O2-0-2"]})] {
            let (mut history, mut truth) = good();
            for log in truth.logs.values_mut() {
                for entry in &mut log[3..5] {
                    entry.commands[0]["Launch"]["offered"] = json!({"cpus": {"Scalar": 600}});
                }
                for (name, value) in spoil.as_object().unwrap() {
                    log[4].commands[0]["Launch"][name] = value.clone();
                }
            }
            history.extend([accepts("f1", FIRST, 600, 10, 50), accepts("f2", SECOND, 600, 40, 60)]);
            history.push(accepts("f2", "x-O2-0-2", 600, 40, 60));
            assert_eq!(offers_apart(&history, &truth), Vec::<String>::new());
        }
        // Tried again later, by a framework that tries what it used before.
        let both = [accepts("f1", FIRST, 600, 10, 20), accepts("f1", FIRST, 600, 10, 70)];
        let both = both.into_iter().chain([accepts("f2", SECOND, 500, 40, 60)]);
        assert_eq!(complaints([600, 500], both), Vec::<String>::new());
    }

    #[test]
    fn an_offer_of_what_a_task_holds_is_seen() {
        let runs = |killed_us| {
            let kill = entry("f1", Event::Kill { task: "t9".into() });
            let begins = [at(1, launch("t9", Phase::Invoked)), at(5, update("t9", "TASK_RUNNING", true))];
            let ends = [at(killed_us, kill), at(90, update("t9", "TASK_KILLED", true))];
            begins.into_iter().chain(ends).chain([accepts("f2", SECOND, 500, 40, 60)])
        };
        let wrong = complaints([600, 500], runs(50));
        assert!(wrong.len() == 1 && wrong[0].contains("t9"), "{wrong:?}");
        // It may have ended before the offer was made.
        assert_eq!(complaints([600, 500], runs(30)), Vec::<String>::new());
    }

    #[test]
    fn an_offer_that_holds_something_else_than_was_told_is_seen() {
        let wrong = complaints([600, 500], [accepts("f1", FIRST, 700, 10, 50)]);
        assert!(wrong.len() == 1 && wrong[0].contains("was told to hold"), "{wrong:?}");
    }
}
