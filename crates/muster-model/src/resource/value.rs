//! Amounts and their algebra.

use serde::{Deserialize, Deserializer, Serialize};
use std::{collections::BTreeSet, sync::Arc};

/// A kind's amount.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Value {
    /// Thousandths of the unit (cpus, MB).
    Scalar(u64),
    /// Disjoint, ascending, not touching, both ends included.
    Ranges(#[serde(deserialize_with = "disjoint")] Vec<(u64, u64)>),
    /// Named items.
    Set(BTreeSet<Arc<str>>),
}

/// Ranges as they must be, whatever was stored: the algebra counts on it.
fn disjoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(u64, u64)>, D::Error> {
    let pairs = Vec::<(u64, u64)>::deserialize(deserializer)?;
    let apart = |two: &[(u64, u64)]| two[0].1.checked_add(1).is_some_and(|next| next < two[1].0);
    if pairs.iter().all(|(begin, end)| begin <= end) && pairs.windows(2).all(apart) {
        return Ok(pairs);
    }
    match Value::ranges(pairs) {
        Value::Ranges(merged) => Ok(merged),
        Value::Scalar(_) | Value::Set(_) => Ok(Vec::new()),
    }
}

impl Value {
    /// Ranges in any order, merged; an empty or reversed pair is left out.
    pub fn ranges(pairs: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().filter(|(begin, end)| begin <= end).collect();
        pairs.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(pairs.len());
        for (begin, end) in pairs {
            match merged.last_mut() {
                Some(last) if begin <= last.1.saturating_add(1) => last.1 = last.1.max(end),
                _ => merged.push((begin, end)),
            }
        }
        Self::Ranges(merged)
    }

    /// Whether the other is of the same sort: only such add up.
    pub fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Scalar(n) => *n == 0,
            Self::Ranges(ranges) => ranges.is_empty(),
            Self::Set(items) => items.is_empty(),
        }
    }

    pub(super) fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Scalar(a), Self::Scalar(b)) => a >= b,
            (Self::Ranges(a), Self::Ranges(b)) => {
                b.iter().all(|(begin, end)| a.iter().any(|(from, to)| from <= begin && end <= to))
            }
            (Self::Set(a), Self::Set(b)) => b.is_subset(a),
            _ => false,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        match (self, other) {
            (Self::Scalar(a), Self::Scalar(b)) => *a = a.saturating_add(*b),
            (this @ Self::Ranges(_), Self::Ranges(b)) => {
                if let Self::Ranges(a) = &*this {
                    *this = Self::ranges(a.iter().chain(b).copied());
                }
            }
            (Self::Set(a), Self::Set(b)) => a.extend(b.iter().cloned()),
            _ => {}
        }
    }

    pub(super) fn subtract(&mut self, other: &Self) {
        match (self, other) {
            (Self::Scalar(a), Self::Scalar(b)) => *a = a.saturating_sub(*b),
            (Self::Ranges(a), Self::Ranges(b)) => {
                for &(begin, end) in b {
                    let mut left = Vec::with_capacity(a.len() + 1);
                    for &(from, to) in a.iter() {
                        if to < begin || from > end {
                            left.push((from, to));
                            continue;
                        }
                        if from < begin {
                            left.push((from, begin - 1));
                        }
                        if to > end {
                            left.push((end + 1, to));
                        }
                    }
                    *a = left;
                }
            }
            (Self::Set(a), Self::Set(b)) => a.retain(|item| !b.contains(item)),
            _ => {}
        }
    }
}
