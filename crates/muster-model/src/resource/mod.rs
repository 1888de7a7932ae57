//! Resources and their algebra: add, subtract, contains, exactly as Mesos defines them.
//!
//! Scalars count in thousandths (`cpus 0.5` is 500), so no float enters the replicated state.
//! Ranges and sets are sets of numbers and of texts. What is reserved, or is a volume, stands under a [`Label`] of its
//! own, apart from what is plain.

mod kind;
mod label;
#[cfg(test)]
mod tests;
mod text;
mod value;

pub use label::{Label, Reservation, Volume};
pub use value::Value;

use crate::Role;
use kind::Kind;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Amounts by kind. Empty amounts are absent, so that equal resources compare equal.
///
/// There are few kinds: a sorted list is smaller than a tree and faster to copy.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resources(Vec<(Kind, Value)>);

impl Resources {
    /// Nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Where a kind is, or where it belongs.
    fn place(&self, name: &str, label: Option<&Label>) -> Result<usize, usize> {
        self.0.binary_search_by(|(kind, _)| kind.order(name, label))
    }

    /// The same of a kind that is looked for at `near` first: resources mostly meet others of the same kinds.
    fn place_near(&self, kind: &Kind, near: usize) -> Result<usize, usize> {
        match self.0.get(near) {
            Some((here, _)) if here.is_plainly(kind) => Ok(near),
            _ => self.place(kind.name(), kind.label.as_deref()),
        }
    }

    /// `cpus` in thousandths and `mem` in thousandths of a MB are the usual pair.
    pub fn of(cpus_milli: u64, mem_mb: u64) -> Self {
        Self::none()
            .with("cpus", Value::Scalar(cpus_milli))
            .with("mem", Value::Scalar(mem_mb.saturating_mul(1000)))
    }

    /// These and the given plain amount. A kind that is there already with another sort of value keeps it.
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.insert(name, value);
        self
    }

    /// Adds one plain amount.
    pub fn insert(&mut self, name: &str, value: Value) {
        self.insert_labelled(name, None, value);
    }

    /// Adds one amount under a label, or a plain one.
    pub fn insert_labelled(&mut self, name: &str, label: Option<Arc<Label>>, value: Value) {
        if value.is_empty() {
            return;
        }
        match self.place(name, label.as_deref()) {
            Ok(at) => self.0[at].1.add(&value),
            Err(at) => self.0.insert(at, (Kind::new(name, label), value)),
        }
    }

    /// Whether nothing is here.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and amounts, by name, whatever they are under: a name may come more than once.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(kind, value)| (kind.name(), value))
    }

    /// Names, labels and amounts, by name; what is plain first.
    pub fn iter_labelled(&self) -> impl Iterator<Item = (&str, Option<&Label>, &Value)> {
        self.0.iter().map(|(kind, value)| (kind.name(), kind.label.as_deref(), value))
    }

    /// Names, each once.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let is_first = |i: usize| i == 0 || self.0[i - 1].0.name() != self.0[i].0.name();
        (0..self.0.len()).filter(move |&i| is_first(i)).map(|i| self.0[i].0.name())
    }

    /// The plain amount of a kind.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.get_labelled(name, None)
    }

    /// The amount of a kind under a label, or the plain one.
    pub fn get_labelled(&self, name: &str, label: Option<&Label>) -> Option<&Value> {
        self.place(name, label).ok().map(|at| &self.0[at].1)
    }

    /// A scalar kind's plain thousandths; 0 when absent or not a scalar.
    pub fn scalar(&self, name: &str) -> u64 {
        match self.get(name) {
            Some(Value::Scalar(n)) => *n,
            _ => 0,
        }
    }

    /// A scalar kind's thousandths, whatever they are under.
    pub fn quantity(&self, name: &str) -> u64 {
        let start = self.0.partition_point(|(kind, _)| kind.name() < name);
        let all = self.0[start..].iter().take_while(|(kind, _)| kind.name() == name);
        all.fold(0, |sum: u64, (_, value)| match value {
            Value::Scalar(n) => sum.saturating_add(*n),
            _ => sum,
        })
    }

    /// The scalars alone, as if all were plain: what fairness and quota count.
    pub fn quantities(&self) -> Self {
        let mut sum = Self(Vec::with_capacity(self.0.len()));
        for (kind, value) in self.0.iter().filter(|(_, value)| matches!(value, Value::Scalar(_))) {
            sum.add_one(&kind.under(None), value);
        }
        sum
    }

    /// So many of these. Scalars alone grow, and saturate: a range or a set that is held twice is the same range.
    pub fn times(&self, n: u64) -> Self {
        if n == 0 {
            return Self::none();
        }
        let mut all = self.clone();
        for (_, value) in &mut all.0 {
            if let Value::Scalar(thousandths) = value {
                *thousandths = thousandths.saturating_mul(n);
            }
        }
        all
    }

    /// Everything as if it were plain.
    pub fn flattened(&self) -> Self {
        let mut sum = Self(Vec::with_capacity(self.0.len()));
        self.0.iter().for_each(|(kind, value)| sum.add_one(&kind.under(None), value));
        sum
    }

    /// Whether nothing here is under a label.
    pub fn is_plain(&self) -> bool {
        self.0.iter().all(|(kind, _)| kind.label.is_none())
    }

    /// What of these is plain or under a label that is to be kept.
    pub fn filtered(&self, keep: impl Fn(Option<&Label>) -> bool) -> Self {
        Self(self.0.iter().filter(|(kind, _)| keep(kind.label.as_deref())).cloned().collect())
    }

    /// What is plain.
    pub fn unreserved(&self) -> Self {
        self.filtered(|label| label.is_none())
    }

    /// What a role may use: what is plain, and what is reserved for the role or for one above it.
    pub fn usable_by(&self, role: &Role) -> Self {
        self.filtered(|label| label.is_none_or(|label| label.is_usable_by(role)))
    }

    /// What is reserved, by the role that it is reserved for.
    pub fn reserved(&self) -> BTreeMap<Role, Self> {
        let mut all: BTreeMap<Role, Self> = BTreeMap::new();
        for (kind, value) in &self.0 {
            if let Some(role) = kind.label.as_ref().and_then(|label| label.reserved_role()) {
                all.entry(role.clone()).or_default().0.push((kind.clone(), value.clone()));
            }
        }
        all
    }

    /// The same amounts under the labels that the function gives for theirs.
    pub fn relabelled(&self, to: impl Fn(Option<&Label>) -> Option<Label>) -> Self {
        let mut all = Self::none();
        for (kind, value) in &self.0 {
            all.add_one(&kind.under(to(kind.label.as_deref()).map(Arc::new)), value);
        }
        all
    }

    /// Whether all of `other` is in here. A kind with another sort of value is not contained, nor a part of a volume.
    pub fn contains(&self, other: &Self) -> bool {
        // What is shared is often asked of itself.
        std::ptr::eq(self, other)
            || other.0.iter().enumerate().all(|(near, (kind, value))| match self.place_near(kind, near) {
                Ok(at) if kind.is_whole() => self.0[at].1 == *value,
                Ok(at) => self.0[at].1.contains(value),
                Err(_) => false,
            })
    }

    fn add_one(&mut self, kind: &Kind, value: &Value) {
        self.add_at(self.place(kind.name(), kind.label.as_deref()), kind, value);
    }

    fn add_at(&mut self, place: Result<usize, usize>, kind: &Kind, value: &Value) {
        match place {
            Ok(at) => self.0[at].1.add(value),
            Err(at) => self.0.insert(at, (kind.clone(), value.clone())),
        }
    }

    /// Adds all of `other`; scalars saturate.
    pub fn add(&mut self, other: &Self) {
        for (near, (kind, value)) in other.0.iter().enumerate() {
            self.add_at(self.place_near(kind, near), kind, value);
        }
    }

    /// Takes away what of `other` is here; never goes below nothing.
    pub fn subtract(&mut self, other: &Self) {
        for (near, (kind, value)) in other.0.iter().enumerate() {
            let Ok(at) = self.place_near(kind, near) else { continue };
            self.0[at].1.subtract(value);
            if self.0[at].1.is_empty() {
                self.0.remove(at);
            }
        }
    }

    /// Puts one thing in the place of another that is here, and says whether it was.
    pub fn convert(&mut self, from: &Self, to: &Self) -> bool {
        let can = self.contains(from);
        if can {
            self.subtract(from);
            self.add(to);
        }
        can
    }

    /// These with `other` added.
    pub fn plus(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        sum.add(other);
        sum
    }

    /// These without `other`.
    pub fn minus(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        rest.subtract(other);
        rest
    }
}

impl Serialize for Resources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(kind, value)| (kind, value)))
    }
}

impl<'de> Deserialize<'de> for Resources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Resources;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("amounts by kind")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Resources, A::Error> {
                // The length was read from outside: room is made for what a real agent has, at most.
                let mut all = Resources(Vec::with_capacity(map.size_hint().unwrap_or(0).min(8)));
                while let Some((kind, value)) = map.next_entry::<Kind, Value>()? {
                    if !value.is_empty() {
                        all.add_one(&kind, &value);
                    }
                }
                Ok(all)
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}
