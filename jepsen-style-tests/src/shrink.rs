//! Where a history goes bad.

use crate::checker::{self, Checker};
use crate::history::Entry;
use crate::model::Truth;
use std::collections::BTreeSet;

/// The smallest beginning of a history in which a checker finds what it finds in the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smallest {
    /// The promise that is broken.
    pub promise: &'static str,
    /// What the checker says.
    pub complaint: String,
    /// How many entries that beginning has. None are needed where the truth alone shows it.
    pub entries: usize,
}

/// The smallest of all checkers. None, if none objects.
pub fn smallest(history: &[Entry], truth: &Truth) -> Option<Smallest> {
    let checkers = checker::those_for(truth).iter();
    let all = checkers.filter_map(|(promise, checker)| of(promise, *checker, history, truth));
    all.min_by_key(|smallest| smallest.entries)
}

/// Of one checker. A beginning counts as bad when a complaint about the whole holds in it: what is merely not
/// yet done in a beginning is no breach, and what is done later makes none undone. So it is found by halving.
fn of(promise: &'static str, checker: Checker, history: &[Entry], truth: &Truth) -> Option<Smallest> {
    let whole: BTreeSet<String> = checker(history, truth).into_iter().collect();
    let complaint = |entries: usize| {
        checker(&history[..entries], truth).into_iter().find(|complaint| whole.contains(complaint))
    };
    let mut found = whole.iter().next()?.clone();
    let (mut good, mut bad) = (0, history.len());
    if let Some(complaint) = complaint(0) {
        return Some(Smallest { promise, complaint, entries: 0 });
    }
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        match complaint(middle) {
            Some(complaint) => (bad, found) = (middle, complaint),
            None => good = middle,
        }
    }
    Some(Smallest { promise, complaint: found, entries: bad })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::samples::{good, known, launch, update};
    use crate::history::Phase;

    #[test]
    fn a_good_history_has_no_bad_beginning() {
        let (history, truth) = good();
        assert_eq!(smallest(&history, &truth), None);
    }

    #[test]
    fn the_entry_that_breaks_a_promise_is_found_among_many() {
        for at in 0..8 {
            let (mut history, truth) = good();
            let end = history.len();
            history.extend((0..8).map(|_| update("t2", "TASK_KILLED", true)));
            history[end + at] = update("t2", "TASK_RUNNING", true);
            let found = smallest(&history, &truth).unwrap();
            assert_eq!((found.promise, found.entries), ("updates of a task come in order", end + at + 1));
            assert!(found.complaint.contains("t2: TASK_RUNNING after TASK_KILLED"), "{found:?}");
        }
    }

    #[test]
    fn what_is_only_not_yet_done_is_no_breach() {
        let (mut history, truth) = good();
        // Early on the end of t1 is not told either, but that is made good; that of t9 never is.
        history.insert(8, launch("t9", Phase::Invoked));
        history.insert(9, launch("t9", Phase::Ok));
        let found = smallest(&history, &truth).unwrap();
        assert_eq!(found.entries, 10, "{found:?}");
        assert!(found.complaint.contains("t9"), "{found:?}");
    }

    #[test]
    fn the_truth_alone_may_show_it() {
        let (history, mut truth) = good();
        truth.tasks.push(known("t9", false));
        assert_eq!(smallest(&history, &truth).unwrap().entries, 0);
    }
}
