//! Frameworks: their ids, who speaks for them, and their end.

use super::faults::{ended_frameworks, targets};
use crate::history::{Entry, Event};
use crate::model::{Truth, slot_of};
use crate::nemesis::DUPLICATE;
use crate::nemesis::frameworks::{FAILED_OVER, REMOVED};
use std::collections::{BTreeMap, BTreeSet};

/// The ids that frameworks were told, by name; the first that each was told.
fn told(history: &[Entry]) -> BTreeMap<&str, &str> {
    let mut ids = BTreeMap::new();
    for entry in history {
        if let Event::Registered { framework_id, .. } = &entry.event {
            ids.entry(&*entry.process).or_insert(&**framework_id);
        }
    }
    ids
}

/// Each framework got one id, whichever scheduler speaks for it, and the registry knows it by that id and by no other.
/// A scheduler is turned away only when another one of its framework came, and one of a framework that was torn down.
pub fn framework_ids(history: &[Entry], truth: &Truth) -> Vec<String> {
    let ids = told(history);
    let expired = ended_frameworks(history);
    // How many more words of each kind are explained.
    let mut explained: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let duplicated = targets(history, DUPLICATE).map(|name| (name, FAILED_OVER));
    for word in duplicated.chain(expired.iter().map(|name| (*name, REMOVED))) {
        *explained.entry(word).or_default() += 1;
    }
    let mut wrong = Vec::new();
    for entry in history {
        let name = &*entry.process;
        match &entry.event {
            Event::Registered { framework_id, .. } if ids.get(name) != Some(&&**framework_id) => {
                wrong.push(format!("{name} was {} and became {framework_id}", ids[name]));
            }
            Event::Error { message } => {
                let words = [FAILED_OVER, REMOVED].into_iter().find(|words| message.contains(words));
                match words.and_then(|words| explained.get_mut(&(name, words))) {
                    Some(left @ 1..) => *left -= 1,
                    _ => wrong.push(format!("{name} was turned away: {message}")),
                }
            }
            _ => {}
        }
    }
    let lasting = ids.iter().filter(|(name, _)| !expired.contains(*name));
    let had: BTreeMap<&str, &str> = lasting.map(|(name, id)| (*id, *name)).collect();
    let have: BTreeMap<&str, &str> = truth.frameworks.iter().map(|(id, name)| (&**id, &**name)).collect();
    // What the registry has in the end is not known of a run that broke off.
    if truth.broken_off.is_none() && had != have {
        wrong.push(format!("frameworks were told {had:?}, the registry has {have:?}"));
    }
    wrong
}

/// Frameworks that were gone for longer than they may be, or that operators ended, were torn down, each once, with all their tasks, and no
/// others were. Nobody is registered under such an id again.
pub fn torn_down_once(history: &[Entry], truth: &Truth) -> Vec<String> {
    let ids = told(history);
    let expired = ended_frameworks(history);
    let mut wrong = Vec::new();
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, name) in &truth.removed {
        *times.entry(id).or_default() += 1;
        if !expired.contains(&**name) {
            wrong.push(format!("{name} ({id}) was torn down, and nobody meant it to be"));
        }
    }
    for name in expired {
        let Some(id) = ids.get(name) else { continue };
        match times.get(id) {
            Some(1) => {}
            times => wrong.push(format!("{name} ({id}) was torn down {} times", times.unwrap_or(&0))),
        }
        let own = history.iter().filter(|entry| entry.process == name);
        if own.filter(|entry| matches!(entry.event, Event::Registered { .. })).count() > 1 {
            wrong.push(format!("{name} ({id}) was registered again after it was torn down"));
        }
        for task in truth.tasks.iter().filter(|task| task.framework_id == *id && !task.ended) {
            wrong.push(format!("{} of {name}, which was torn down, is still there", task.task));
        }
        // Those of sets are known by their processes: one that is killed as it begins may have no last line.
        let own = |task: &&str| slot_of(task).is_some_and(|(set, _)| set == name);
        let alive = truth.alive.iter().map(|task| &**task).filter(own);
        let running = running(truth, name).filter(|task| slot_of(task).is_none()).chain(alive);
        wrong.extend(running.map(|task| format!("{task} of {name}, which was torn down, runs on")));
    }
    wrong
}

/// Tasks of a framework that wrote their first line and not their last.
fn running<'a>(truth: &'a Truth, name: &'a str) -> impl Iterator<Item = &'a str> {
    let marks = || truth.marks.values().flatten();
    let ended: BTreeSet<&str> = marks().filter(|mark| !mark.starts).map(|mark| &*mark.task).collect();
    let own = move |task: &str| task.rsplit_once('-').is_some_and(|(framework, _)| framework == name);
    marks()
        .filter(|mark| mark.starts)
        .map(|mark| &*mark.task)
        .filter(move |task| own(task) && !ended.contains(task))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::samples::{entry, good, known, launch, mark, refuses};
    use crate::history::Phase;
    use crate::nemesis::EXPIRE;

    fn fault(fault: &str, target: &str, begins: bool) -> Entry {
        let bit = (!begins).then(|| "yes".to_owned());
        entry("nemesis", Event::Nemesis { fault: fault.into(), target: target.into(), begins, bit })
    }

    fn registered(name: &str, id: &str) -> Entry {
        entry(name, Event::Registered { framework_id: id.into(), begun_us: None })
    }

    fn turned_away(name: &str, message: &str) -> Entry {
        entry(name, Event::Error { message: message.into() })
    }

    /// A framework that expired as it should.
    fn expires(history: &mut Vec<Entry>, truth: &mut Truth) {
        history.extend([fault(EXPIRE, "e1", true), registered("e1", "x-0002")]);
        history.extend([turned_away("e1", "Framework has been removed"), fault(EXPIRE, "e1", false)]);
        truth.removed.push(("x-0002".into(), "e1".into()));
        let launched = [Phase::Invoked, Phase::Ok].map(|phase| launch("e1-1", phase));
        history.extend(launched.map(|launch| Entry { process: "e1".into(), ..launch }));
        truth.marks.get_mut("a1").unwrap().extend([mark("e1-1", true), mark("e1-1", false)]);
        truth.tasks.push(crate::model::KnownTask { framework_id: "x-0002".into(), ..known("e1-1", true) });
        // Nobody kept the masters' logs.
        truth.logs.clear();
    }

    #[test]
    fn a_framework_with_a_new_id_or_none_is_seen() {
        refuses(framework_ids, "f1 was x-0001 and became x-0002", |history, _| {
            history.push(registered("f1", "x-0002"));
        });
        refuses(framework_ids, "the registry has {}", |_, truth| truth.frameworks.clear());
        refuses(framework_ids, "the registry has", |_, truth| {
            truth.frameworks.insert("x-0000".into(), "f1".into());
        });
    }

    #[test]
    fn only_a_scheduler_that_another_took_over_from_may_be_turned_away() {
        let (mut history, truth) = good();
        history.extend([fault(DUPLICATE, "f1", true), registered("f1", "x-0001")]);
        history.push(turned_away("f1", "Framework failed over"));
        assert_eq!(framework_ids(&history, &truth), Vec::<String>::new());
        // Once.
        history.push(turned_away("f1", "Framework failed over"));
        assert_eq!(framework_ids(&history, &truth).len(), 1);
        refuses(framework_ids, "f1 was turned away: Framework failed over", |history, _| {
            history.extend([fault(DUPLICATE, "f2", true), turned_away("f1", "Framework failed over")]);
        });
        refuses(framework_ids, "f1 was turned away: Framework has been removed", |history, _| {
            history.push(turned_away("f1", "Framework has been removed"));
        });
    }

    #[test]
    fn a_framework_that_expired_is_torn_down_once_and_for_good() {
        let (mut history, mut truth) = good();
        expires(&mut history, &mut truth);
        for (name, wrong) in crate::checker::check(&history, &truth) {
            assert!(wrong.is_empty(), "{name}: {wrong:?}");
        }
        let spoils = |names: &str, spoil: fn(&mut Vec<Entry>, &mut Truth)| {
            refuses(torn_down_once, names, |history, truth| {
                expires(history, truth);
                spoil(history, truth);
            });
        };
        spoils("e1 (x-0002) was torn down 0 times", |_, truth| truth.removed.clear());
        spoils("e1 (x-0002) was torn down 2 times", |_, truth| truth.removed.push(truth.removed[0].clone()));
        spoils("f1 (x-0001) was torn down, and nobody", |_, truth| {
            truth.removed.push(("x-0001".into(), "f1".into()));
        });
        spoils("was registered again", |history, _| history.push(registered("e1", "x-0002")));
        spoils("e1-1 of e1, which was torn down, runs on", |_, truth| {
            truth.marks.get_mut("a1").unwrap().pop();
        });
        spoils("e1-1.1 of e1, which was torn down, runs on", |_, truth| truth.alive.push("e1-1.1".into()));
        spoils("e1-1 of e1, which was torn down, is still there", |_, truth| {
            truth.tasks.iter_mut().filter(|task| task.task == "e1-1").for_each(|task| task.ended = false);
        });
    }
}
