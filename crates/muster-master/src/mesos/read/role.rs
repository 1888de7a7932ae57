//! `/roles`, and `/weights`.

use super::List;
use super::resources::{Counts, units};
use super::seen::{InRole, Sorted};
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::collections::BTreeMap;

/// `/roles`.
pub(super) struct Roles<'a>(pub(super) &'a Sorted<'a>);

impl Serialize for Roles<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (roles, weights) = (self.0.roles(), self.0.seen.weights());
        let weight = |name: &String| weights.get(name).copied().unwrap_or(1.0);
        let role = |(name, it)| Shown { name: String::as_str(name), it, weight: weight(name) };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("roles", &List(|| roles.iter().map(role)))?;
        map.end()
    }
}

struct Shown<'a> {
    name: &'a str,
    it: &'a InRole,
    weight: f64,
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { name, it, weight } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", name)?;
        map.serialize_entry("weight", weight)?;
        map.serialize_entry("quota", &Shares { role: name, it })?;
        map.serialize_entry("resources", &Counts(&it.allocated.plus(&it.offered)))?;
        map.serialize_entry("allocated", &Counts(&it.allocated))?;
        map.serialize_entry("offered", &Counts(&it.offered))?;
        map.serialize_entry("reserved", &Counts(&it.reserved))?;
        map.serialize_entry("frameworks", &List(|| it.frameworks.iter().map(|id| id.as_str())))?;
        map.end()
    }
}

/// What a role may have at least and at most, and what it has.
struct Shares<'a> {
    role: &'a str,
    it: &'a InRole,
}

impl Serialize for Shares<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let limits: BTreeMap<_, _> =
            self.it.quota.limits.iter().map(|(kind, most)| (&**kind, units(*most))).collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("role", self.role)?;
        map.serialize_entry("guarantee", &Counts(&self.it.quota.guarantees))?;
        map.serialize_entry("limit", &limits)?;
        map.serialize_entry("consumed", &Counts(&self.it.consumed()))?;
        map.end()
    }
}

/// `/weights`: those that were set.
pub(super) struct Weights<'a>(pub(super) &'a BTreeMap<String, f64>);

impl Serialize for Weights<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(role, weight)| Weight { role, weight: *weight }))
    }
}

#[derive(Serialize)]
struct Weight<'a> {
    role: &'a str,
    weight: f64,
}
