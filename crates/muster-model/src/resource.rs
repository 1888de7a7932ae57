//! Resources and their algebra: add, subtract, contains, exactly as Mesos defines them.
//!
//! Scalars count in thousandths (`cpus 0.5` is 500), so no float enters the replicated state.
//! Ranges and sets are sets of numbers and of texts.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{
    cmp::Ordering,
    collections::BTreeSet,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// A kind's amount.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Value {
    /// Thousandths of the unit (cpus, MB).
    Scalar(u64),
    /// Disjoint, ascending, not touching, both ends included.
    Ranges(Vec<(u64, u64)>),
    /// Named items.
    Set(BTreeSet<Arc<str>>),
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

    fn is_empty(&self) -> bool {
        match self {
            Self::Scalar(n) => *n == 0,
            Self::Ranges(ranges) => ranges.is_empty(),
            Self::Set(items) => items.is_empty(),
        }
    }

    fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Scalar(a), Self::Scalar(b)) => a >= b,
            (Self::Ranges(a), Self::Ranges(b)) => {
                b.iter().all(|(begin, end)| a.iter().any(|(from, to)| from <= begin && end <= to))
            }
            (Self::Set(a), Self::Set(b)) => b.is_subset(a),
            _ => false,
        }
    }

    fn add(&mut self, other: &Self) {
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

    fn subtract(&mut self, other: &Self) {
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

/// The name of a kind of resources. The usual ones take no memory of their own.
#[derive(Clone)]
enum Kind {
    Known(&'static str),
    Other(Arc<str>),
}

/// The kinds that every agent has.
const KNOWN: [&str; 5] = ["cpus", "disk", "gpus", "mem", "ports"];

impl Kind {
    fn new(name: &str) -> Self {
        match KNOWN.iter().find(|known| **known == name) {
            Some(known) => Self::Known(known),
            None => Self::Other(name.into()),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Known(name) => name,
            Self::Other(name) => name,
        }
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}
impl Eq for Kind {}
impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Kind {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}
impl Hash for Kind {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.as_str().hash(hasher);
    }
}

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
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(kind, _)| kind.as_str().cmp(name))
    }

    /// `cpus` in thousandths and `mem` in thousandths of a MB are the usual pair.
    pub fn of(cpus_milli: u64, mem_mb: u64) -> Self {
        Self::none()
            .with("cpus", Value::Scalar(cpus_milli))
            .with("mem", Value::Scalar(mem_mb.saturating_mul(1000)))
    }

    /// These and the given amount. A kind that is there already with another sort of value keeps it.
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.insert(name, value);
        self
    }

    /// Adds one amount.
    pub fn insert(&mut self, name: &str, value: Value) {
        if value.is_empty() {
            return;
        }
        match self.place(name) {
            Ok(at) => self.0[at].1.add(&value),
            Err(at) => self.0.insert(at, (Kind::new(name), value)),
        }
    }

    /// Whether nothing is here.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Kinds and amounts, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(kind, value)| (kind.as_str(), value))
    }

    /// The amount of a kind.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.place(name).ok().map(|at| &self.0[at].1)
    }

    /// A scalar kind's thousandths; 0 when absent or not a scalar.
    pub fn scalar(&self, name: &str) -> u64 {
        match self.get(name) {
            Some(Value::Scalar(n)) => *n,
            _ => 0,
        }
    }

    /// Whether all of `other` is in here. A kind with another sort of value is not contained.
    pub fn contains(&self, other: &Self) -> bool {
        other.iter().all(|(name, value)| self.get(name).is_some_and(|have| have.contains(value)))
    }

    /// Adds all of `other`; scalars saturate.
    pub fn add(&mut self, other: &Self) {
        for (kind, value) in &other.0 {
            match self.place(kind.as_str()) {
                Ok(at) => self.0[at].1.add(value),
                Err(at) => self.0.insert(at, (kind.clone(), value.clone())),
            }
        }
    }

    /// Takes away what of `other` is here; never goes below nothing.
    pub fn subtract(&mut self, other: &Self) {
        for (kind, value) in &other.0 {
            let Ok(at) = self.place(kind.as_str()) else { continue };
            self.0[at].1.subtract(value);
            if self.0[at].1.is_empty() {
                self.0.remove(at);
            }
        }
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

    /// Reads Mesos' flag syntax: `cpus:4;mem:8192;ports:[31000-32000];tags:{a,b}`. Errors name the item.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut all = Self::none();
        for item in text.split(';').map(str::trim).filter(|item| !item.is_empty()) {
            let wrong = |why: &str| format!("resource {item:?}: {why}");
            let (name, value) =
                item.split_once(':').ok_or_else(|| wrong("write NAME:VALUE, for example cpus:4"))?;
            let (name, value) = (name.trim(), value.trim());
            if name.is_empty() {
                return Err(wrong("the name is missing"));
            }
            if all.get(name).is_some() {
                return Err(wrong("the name occurs twice"));
            }
            let value = match value.as_bytes() {
                [b'[', .., b']'] => parse_ranges(&value[1..value.len() - 1]).map_err(|why| wrong(&why))?,
                [b'{', .., b'}'] => Value::Set(
                    value[1..value.len() - 1].split(',').map(|part| Arc::from(part.trim())).collect(),
                ),
                _ => Value::Scalar(parse_milli(value).map_err(|why| wrong(&why))?),
            };
            all.insert(name, value);
        }
        Ok(all)
    }
}

fn parse_ranges(text: &str) -> Result<Value, String> {
    let mut pairs = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (begin, end) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            text.trim().parse::<u64>().map_err(|_| format!("{part:?} is not a range like 31000-32000"))
        };
        let (begin, end) = (number(begin)?, number(end)?);
        if begin > end {
            return Err(format!("{part:?} begins after its end"));
        }
        pairs.push((begin, end));
    }
    Ok(Value::ranges(pairs))
}

/// Reads a decimal number of at most three decimals into thousandths.
fn parse_milli(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a number with at most three decimals, 0 or more");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) || whole.is_empty() {
        return Err(bad());
    }
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    let fraction: u64 = format!("{fraction:0<3}").parse().map_err(|_| bad())?;
    whole.checked_mul(1000).and_then(|n| n.checked_add(fraction)).ok_or_else(bad)
}

impl fmt::Display for Resources {
    /// The flag syntax that [`Resources::parse`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, value)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(";")?;
            }
            write!(f, "{name}:")?;
            match value {
                Value::Scalar(n) if n % 1000 == 0 => write!(f, "{}", n / 1000)?,
                Value::Scalar(n) => {
                    let text = format!("{}.{:03}", n / 1000, n % 1000);
                    f.write_str(text.trim_end_matches('0'))?;
                }
                Value::Ranges(ranges) => {
                    let texts: Vec<_> = ranges.iter().map(|(a, b)| format!("{a}-{b}")).collect();
                    write!(f, "[{}]", texts.join(","))?;
                }
                Value::Set(items) => {
                    let texts: Vec<_> = items.iter().map(|item| &**item).collect();
                    write!(f, "{{{}}}", texts.join(","))?;
                }
            }
        }
        Ok(())
    }
}

impl Serialize for Resources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
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
                    all.insert(kind.as_str(), value);
                }
                Ok(all)
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Kind;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a kind")
            }
            fn visit_str<E>(self, name: &str) -> Result<Kind, E> {
                Ok(Kind::new(name))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn r(text: &str) -> Resources {
        Resources::parse(text).unwrap()
    }

    #[test]
    fn thousandths_are_exact() {
        let mut sum = Resources::none();
        for _ in 0..10 {
            sum.add(&r("cpus:0.1"));
        }
        assert_eq!(sum, r("cpus:1"));
    }

    #[test]
    fn ports_split_and_merge() {
        let mut ports = r("ports:[1-10]");
        ports.subtract(&r("ports:[4-5]"));
        assert_eq!(ports, r("ports:[1-3,6-10]"));
        assert!(!ports.contains(&r("ports:[3-6]")));
        ports.add(&r("ports:[4-5]"));
        assert_eq!(ports, r("ports:[1-10]"));
    }

    #[test]
    fn text_round_trips() {
        for text in ["cpus:0.25;mem:128", "ports:[1-2,5-9]", "tags:{a,b}", ""] {
            assert_eq!(r(text).to_string(), text);
        }
    }

    #[test]
    fn bad_text_names_the_item() {
        for (text, part) in [
            ("cpus", "NAME:VALUE"),
            ("cpus:-1", "not a number"),
            ("cpus:1.2345", "three decimals"),
            ("ports:[9-1]", "begins after"),
            ("cpus:1;cpus:2", "twice"),
        ] {
            let error = Resources::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_kind_of_another_sort_is_not_contained() {
        assert!(!r("cpus:4").contains(&r("cpus:[1-2]")));
    }
}
