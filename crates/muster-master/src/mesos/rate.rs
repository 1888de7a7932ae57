//! How many calls a principal may make: each master counts what comes to it, with a bucket for each principal that is
//! named and one for all others together, so that what is kept is bounded by the configuration.

use governor::{
    DefaultDirectRateLimiter, Quota,
    clock::{Clock, DefaultClock},
};
use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

/// Stands for all principals that are not named, and for who has none.
const OTHERS: &str = "*";

/// The limits of a master. As many calls as a second's may come at once.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    clock: DefaultClock,
    of: BTreeMap<String, DefaultDirectRateLimiter>,
}

impl Rates {
    /// Of calls a second, by principal.
    pub(crate) fn new(per_second: &BTreeMap<String, NonZeroU32>) -> Self {
        let limiter = |n: NonZeroU32| DefaultDirectRateLimiter::direct(Quota::per_second(n));
        let of = per_second.iter().map(|(principal, n)| (principal.clone(), limiter(*n))).collect();
        Self { clock: DefaultClock::default(), of }
    }

    /// Whether anybody is limited.
    pub(super) fn are_there(&self) -> bool {
        !self.of.is_empty()
    }

    /// Counts a call.
    ///
    /// # Errors
    /// It is one too many: after so long it would not be.
    pub(super) fn count(&self, principal: Option<&str>) -> Result<(), Duration> {
        let own = principal.and_then(|principal| self.of.get(principal));
        let Some(limiter) = own.or_else(|| self.of.get(OTHERS)) else { return Ok(()) };
        limiter.check().map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many calls of many are taken at once.
    fn taken(rates: &Rates, principal: Option<&str>) -> usize {
        (0..50).filter(|_| rates.count(principal).is_ok()).count()
    }

    #[test]
    fn who_is_named_has_its_own_bucket_and_all_others_share_one() {
        // A call a second is the most that a slow test may be given besides.
        let one = NonZeroU32::MIN;
        let rates = Rates::new(&[("a".to_owned(), one), (OTHERS.to_owned(), one)].into());
        assert!(rates.are_there());
        assert!((1..10).contains(&taken(&rates, Some("a"))));
        assert!((1..10).contains(&taken(&rates, Some("b"))), "a's calls do not count for b");
        let wait =
            [Some("c"), Some("c"), None, None].map(|who| rates.count(who)).into_iter().find_map(Result::err);
        assert!(wait.is_some_and(|wait| wait <= Duration::from_secs(1)), "the others have had their share");
        assert_eq!(taken(&Rates::default(), Some("a")), 50);
        let others_free = Rates::new(&[("a".to_owned(), one)].into());
        assert_eq!(taken(&others_free, None), 50);
    }
}
