//! Which master to dial next, and when.

use std::collections::VecDeque;

/// How many addresses are remembered at most: those given, and leaders that were named.
const MASTERS_MAX: usize = 32;

/// The masters in the order they are tried.
#[derive(Debug)]
pub(crate) struct Masters {
    order: VecDeque<String>,
    /// Dials in a row that led to no subscription.
    failures: u32,
    backoff_ms_min: u64,
    backoff_ms_max: u64,
    chance: u64,
}

impl Masters {
    pub(crate) fn new(given: &[String], backoff_ms_min: u64, backoff_ms_max: u64, seed: u64) -> Self {
        let mut order = VecDeque::new();
        for address in given.iter().take(MASTERS_MAX) {
            if !order.contains(address) {
                order.push_back(address.clone());
            }
        }
        Self { order, failures: 0, backoff_ms_min, backoff_ms_max, chance: seed }
    }

    /// The one to dial now.
    pub(crate) fn next(&self) -> Option<&str> {
        self.order.front().map(String::as_str)
    }

    /// The one just dialled did not serve: it goes last. Says how long to wait before the next dial: not at
    /// all until each was tried once.
    pub(crate) fn failed(&mut self) -> u64 {
        self.order.rotate_left(1.min(self.order.len()));
        self.failures = self.failures.saturating_add(1);
        let round = self.failures as usize / self.order.len().max(1);
        if round == 0 {
            return 0;
        }
        let doublings = (round - 1).min(20) as u32;
        let full = self.backoff_ms_min.saturating_mul(1 << doublings).min(self.backoff_ms_max);
        full / 2 + self.draw() % (full / 2 + 1)
    }

    /// A subscription holds: the count begins anew.
    pub(crate) fn served(&mut self) {
        self.failures = 0;
    }

    /// The leader is there: it is tried next, after the master dialled now.
    pub(crate) fn hint(&mut self, leader: &str) {
        if leader.is_empty() || self.order.front().is_some_and(|dialled| dialled == leader) {
            return;
        }
        match self.order.iter().position(|address| address == leader) {
            Some(at) => drop(self.order.remove(at)),
            None if self.order.len() >= MASTERS_MAX => return,
            None => {}
        }
        self.order.insert(1.min(self.order.len()), leader.into());
    }

    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Masters {
        Masters::new(&["a".into(), "b".into(), "c".into(), "a".into()], 100, 400, 7)
    }

    #[test]
    fn each_is_tried_once_before_any_wait() {
        let mut masters = three();
        let mut seen = Vec::new();
        let waits: Vec<_> = (0..3)
            .map(|_| {
                seen.push(masters.next().unwrap().to_owned());
                masters.failed()
            })
            .collect();
        assert_eq!(seen, ["a", "b", "c"]);
        assert_eq!(waits[..2], [0, 0]);
        assert!((50..=100).contains(&waits[2]), "{waits:?}");
    }

    #[test]
    fn waits_double_to_their_limit_and_begin_anew() {
        let mut masters = three();
        for _ in 0..60 {
            assert!(masters.failed() <= 400);
        }
        assert!(masters.failed() >= 200);
        masters.served();
        assert_eq!(masters.failed(), 0);
    }

    #[test]
    fn a_named_leader_is_next() {
        let mut masters = three();
        masters.hint("c");
        masters.failed();
        assert_eq!(masters.next(), Some("c"));
        masters.hint("d");
        masters.failed();
        assert_eq!(masters.next(), Some("d"));
    }
}
