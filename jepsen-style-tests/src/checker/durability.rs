//! What was committed stays: some master has it always, and nobody ever has anything else in its place.

use super::logs::committed;
use crate::history::{Entry, Event, Held};
use crate::model::Truth;
use std::collections::BTreeMap;

/// Looks at the masters' logs, in order: when, and what was seen.
fn looks(history: &[Entry]) -> impl Iterator<Item = (u64, &BTreeMap<String, Held>)> {
    history.iter().filter_map(|entry| match &entry.event {
        Event::Logs { masters } => Some((entry.at_us, masters)),
        _ => None,
    })
}

/// The furthest entry that a master was seen to have applied, so that a majority had it, and who has less by now.
#[derive(Default)]
struct Furthest<'a> {
    index: u64,
    by: &'a str,
    at_us: u64,
    /// The disk of each master when that was seen.
    disks: BTreeMap<&'a str, u64>,
    /// How far the logs reach that end before it.
    short: BTreeMap<&'a str, u64>,
}

impl<'a> Furthest<'a> {
    /// What masters say after it was seen. One that does not take part yet may not have read its log, unless it has
    /// another disk.
    fn compare(&mut self, masters: &'a BTreeMap<String, Held>) {
        for (name, held) in masters {
            let has_new_disk = self.disks.get(&**name).is_some_and(|disk| *disk != held.disk);
            if held.last < self.index && (held.takes_part || has_new_disk) {
                self.short.insert(name, held.last);
            } else {
                self.short.remove(&**name);
            }
        }
    }

    fn is_lost(&self) -> bool {
        !self.disks.is_empty() && self.disks.keys().all(|name| self.short.contains_key(name))
    }

    fn advance(&mut self, at_us: u64, masters: &'a BTreeMap<String, Held>) {
        self.disks.extend(masters.iter().map(|(name, held)| (&**name, held.disk)));
        let most = masters.iter().max_by_key(|(_, held)| held.applied);
        if let Some((name, held)) = most.filter(|(_, held)| held.applied > self.index) {
            (self.index, self.by, self.at_us) = (held.applied, &**name, at_us);
            self.short.clear();
        }
    }
}

/// What one master has applied a majority has stored. Some of these may lose their disks; that all of them have less is
/// a loss.
pub fn committed_kept(history: &[Entry], _: &Truth) -> Vec<String> {
    let mut furthest = Furthest::default();
    for (at_us, masters) in looks(history) {
        furthest.compare(masters);
        if furthest.is_lost() {
            let Furthest { index, by, at_us: seen, short, .. } = furthest;
            return vec![format!(
                "{by} had applied entry {index} at {seen} us, and at {at_us} us it is lost: the logs end with {short:?}"
            )];
        }
        furthest.advance(at_us, masters);
    }
    Vec::new()
}

/// What a master holds after an entry is what every master holds there, whenever it is asked, and what comes of the logs.
/// The first difference of each master is told.
pub fn one_state_at_an_index(history: &[Entry], truth: &Truth) -> Vec<String> {
    let mut known: BTreeMap<u64, (String, &str)> = BTreeMap::new();
    let mut wrong: BTreeMap<&str, String> = BTreeMap::new();
    for (at_us, masters) in looks(history) {
        // What has applied nothing knows nothing of its cluster.
        for (name, held) in masters.iter().filter(|(_, held)| held.applied > 0) {
            let hash = &*held.state_hash;
            let (who, expected) =
                known.entry(held.applied).or_insert_with(|| (format!("{name} at {at_us} us"), hash));
            if hash != *expected {
                let index = held.applied;
                wrong.entry(name).or_insert_with(|| {
                    format!("{name} held {hash} after entry {index} at {at_us} us, and {who} {expected}")
                });
            }
        }
    }
    for (name, log) in &truth.logs {
        for entry in committed(log) {
            let (Some(hash), Some((who, seen))) = (&entry.state_hash, known.get(&entry.index)) else {
                continue;
            };
            if hash != seen {
                let index = entry.index;
                wrong.entry(name).or_insert_with(|| {
                    format!("by the log of {name} it is {hash} after entry {index}, and {who} held {seen}")
                });
            }
        }
    }
    wrong.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::samples::{entry, good, refuses};

    fn held(disk: u64, last: u64, applied: u64) -> Held {
        Held { disk, takes_part: true, last, applied, state_hash: format!("{applied:02}") }
    }

    fn look(masters: [Held; 2]) -> Entry {
        let masters = ["m1", "m2"].map(str::to_owned).into_iter().zip(masters).collect();
        entry("sampler", Event::Logs { masters })
    }

    fn lost(looks: Vec<Entry>) -> Vec<String> {
        let (mut history, truth) = good();
        history.extend(looks);
        committed_kept(&history, &truth)
    }

    #[test]
    fn an_entry_that_no_master_has_any_more_is_seen() {
        let before = look([held(1, 812, 812), held(2, 811, 810)]);
        // Rolled back, or another disk.
        for after in [held(1, 300, 300), Held { takes_part: false, ..held(9, 0, 0) }] {
            let wrong = lost(vec![before.clone(), look([after, held(2, 300, 300)])]);
            assert!(wrong.iter().any(|one| one.contains("m1 had applied entry 812")), "{wrong:?}");
        }
        // One after the other.
        let alone =
            |name: &str, held| entry("sampler", Event::Logs { masters: [(name.to_owned(), held)].into() });
        let two = vec![before, alone("m2", held(2, 300, 300)), alone("m1", held(1, 300, 300))];
        assert_eq!(lost(two).len(), 1);
    }

    #[test]
    fn what_one_master_has_is_not_lost() {
        let before = look([held(1, 812, 812), held(2, 811, 810)]);
        for after in [
            // One lost its disk, the other has it by now.
            look([held(9, 0, 0), held(2, 812, 811)]),
            // It was killed, and reads its log.
            look([Held { takes_part: false, ..held(1, 0, 0) }, held(2, 811, 811)]),
            // Both begin again, with what they had.
            look([held(1, 812, 700), held(2, 812, 650)]),
            // It was behind all the time.
            look([held(1, 820, 815), held(2, 400, 400)]),
        ] {
            assert_eq!(lost(vec![before.clone(), after]), Vec::<String>::new());
        }
    }

    #[test]
    fn two_states_at_one_index_are_seen() {
        let other = |index| Held { state_hash: "99".into(), ..held(1, index, index) };
        refuses(one_state_at_an_index, "m1 held 99 after entry 4", |history, _| {
            history.push(look([held(1, 4, 4), held(2, 4, 4)]));
            history.push(look([other(4), held(2, 5, 5)]));
        });
        refuses(one_state_at_an_index, "m2 held 04 after entry 4", |history, _| {
            history.push(look([other(4), held(2, 4, 4)]));
        });
        refuses(one_state_at_an_index, "by the log of m1 it is 04 after entry 4", |history, _| {
            history.push(look([other(4), held(2, 3, 3)]));
        });
        // Nobody has applied anything, and each knows another cluster.
        let (mut history, truth) = good();
        history.push(look([held(1, 4, 4), held(2, 4, 4)]));
        history.push(look([other(0), held(2, 0, 0)]));
        assert_eq!(one_state_at_an_index(&history, &truth), Vec::<String>::new());
    }
}
