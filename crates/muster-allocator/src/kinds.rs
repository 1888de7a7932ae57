//! Scalars as numbers in a row: what fairness and quotas count by, without names.

use muster_model::{Resources, Value};
use std::{cmp::Ordering, sync::Arc};

/// The kinds that are counted, each by its place. A row of amounts may be shorter: what is not there is nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kinds(Vec<String>);

/// Thousandths of each kind.
pub(crate) type Amounts = Vec<u64>;

/// Those of what is free of an agent, or granted: each place that counts it has the same.
pub(crate) type Row = Arc<[u64]>;

impl Kinds {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A kind's place; one that is new gets the next.
    pub(crate) fn place(&mut self, name: &str) -> usize {
        self.find(name).unwrap_or_else(|| {
            self.0.push(name.into());
            self.0.len() - 1
        })
    }

    /// A kind's place, if it has one.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        // There are few.
        self.0.iter().position(|kind| kind == name)
    }

    /// The scalars, whatever they are under; kinds that are new get their places.
    pub(crate) fn amounts(&mut self, of: &Resources) -> Amounts {
        let mut amounts: Amounts = vec![0; self.len()];
        for (name, value) in of.iter() {
            if let Value::Scalar(n) = value {
                let at = self.place(name);
                amounts.resize(self.len(), 0);
                amounts[at] = amounts[at].saturating_add(*n);
            }
        }
        amounts
    }

    /// The scalars of kinds that have their places.
    pub(crate) fn known(&self, of: &Resources) -> Amounts {
        let mut amounts: Amounts = vec![0; self.len()];
        for (name, value) in of.iter() {
            if let (Value::Scalar(n), Some(at)) = (value, self.find(name)) {
                amounts[at] = amounts[at].saturating_add(*n);
            }
        }
        amounts
    }

    /// The same with names.
    pub(crate) fn resources(&self, amounts: &[u64]) -> Resources {
        let named = self.0.iter().zip(amounts);
        named.fold(Resources::none(), |all, (name, n)| all.with(name, Value::Scalar(*n)))
    }
}

/// Adds a row to another.
pub(crate) fn add(to: &mut Amounts, amounts: &[u64]) {
    if to.len() < amounts.len() {
        to.resize(amounts.len(), 0);
    }
    add_in(to, amounts);
}

/// Adds a row to one that is at least as long.
pub(crate) fn add_in(to: &mut [u64], amounts: &[u64]) {
    to.iter_mut().zip(amounts).for_each(|(all, n)| *all = all.saturating_add(*n));
}

/// Takes a row from another; nothing goes below nothing.
pub(crate) fn subtract(from: &mut [u64], amounts: &[u64]) {
    from.iter_mut().zip(amounts).for_each(|(all, n)| *all = all.saturating_sub(*n));
}

/// Whether nothing is in a row.
pub(crate) fn is_nothing(amounts: &[u64]) -> bool {
    amounts.iter().all(|n| *n == 0)
}

/// A dominant share in parts of 10^12 of the fleet, divided by the weight.
pub(crate) fn share(has: &[u64], fleet: &[u64], weight_milli: u64) -> u128 {
    // Which kind dominates is found by products; one division is left.
    let wide = |n: u64| u128::from(n);
    let mut most: (u64, u64) = (0, 1);
    for (&has, &all) in has.iter().zip(fleet).filter(|(_, all)| **all > 0) {
        if (wide(has) * wide(most.1)).cmp(&(wide(most.0) * wide(all))) == Ordering::Greater {
            most = (has, all);
        }
    }
    let dominant = wide(most.0) * 1_000_000_000_000 / wide(most.1);
    if weight_milli == 1000 { dominant } else { dominant * 1000 / wide(weight_milli.max(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_that_of_the_kind_of_which_most_is_had() {
        assert_eq!(share(&[1, 30], &[10, 100], 1000), 300_000_000_000);
        assert_eq!(share(&[4, 30], &[10, 100], 2000), 200_000_000_000);
        assert_eq!(share(&[4, 30, 7], &[0, 0], 1000), 0, "of what is not there nothing is had");
        assert_eq!(share(&[u64::MAX], &[1], 1), u128::from(u64::MAX) * 1_000_000_000_000 * 1000);
        assert_eq!(share(&[1], &[3], 0), 333_333_333_333_000, "a weight of nothing is the smallest");
    }

    #[test]
    fn rows_of_different_lengths_add_up() {
        let (mut kinds, mut row) = (Kinds::default(), Amounts::new());
        let some = Resources::of(1000, 2);
        add(&mut row, &kinds.amounts(&some));
        add(&mut row, &kinds.amounts(&Resources::none().with("disk", Value::Scalar(5))));
        assert_eq!(kinds.resources(&row), some.with("disk", Value::Scalar(5)));
        subtract(&mut row, &[2000, 2000, 4]);
        assert_eq!((row.clone(), is_nothing(&row)), (vec![0, 0, 1], false));
    }
}
