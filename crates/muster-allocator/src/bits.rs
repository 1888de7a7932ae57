//! A set of small numbers, a bit for each.

/// Numbers that are in it or not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    /// All numbers below this are in it, and maybe some beyond.
    pub(crate) fn all(count: usize) -> Self {
        Self(vec![u64::MAX; count.div_ceil(64)])
    }

    pub(crate) fn has(&self, n: usize) -> bool {
        self.0.get(n / 64).is_some_and(|word| word >> (n % 64) & 1 == 1)
    }

    pub(crate) fn set(&mut self, n: usize, is_in: bool) {
        if n / 64 >= self.0.len() {
            if !is_in {
                return;
            }
            self.0.resize(n / 64 + 1, 0);
        }
        let bit = 1 << (n % 64);
        match is_in {
            true => self.0[n / 64] |= bit,
            false => self.0[n / 64] &= !bit,
        }
    }

    /// The first number from one on that is in it, and in the other if there is one.
    pub(crate) fn next(&self, from: usize, other: Option<&Self>) -> Option<usize> {
        let both = |at: usize| self.0[at] & other.map_or(u64::MAX, |other| other.0[at]);
        let mut at = from / 64;
        let mut word = if at < self.0.len() { both(at) & u64::MAX << (from % 64) } else { return None };
        while word == 0 {
            at += 1;
            if at >= self.0.len() {
                return None;
            }
            word = both(at);
        }
        Some(at * 64 + word.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_one_is_in_both() {
        let (mut some, mut others) = (Bits::default(), Bits::all(300));
        for n in [0, 63, 64, 200, 299] {
            some.set(n, true);
        }
        others.set(64, false);
        let all = |other| {
            let mut at = 0;
            std::iter::from_fn(|| some.next(at, other).inspect(|n| at = n + 1)).collect::<Vec<_>>()
        };
        assert_eq!(all(None), [0, 63, 64, 200, 299]);
        assert_eq!(all(Some(&others)), [0, 63, 200, 299]);
        assert_eq!((some.has(64), some.has(65), some.has(9_999)), (true, false, false));
        assert!(some.next(9_999, None).is_none());
        some.set(9_999, false);
        assert!(Bits::default().next(0, None).is_none());
    }
}
