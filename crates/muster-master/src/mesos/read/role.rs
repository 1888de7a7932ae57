//! `/roles`, and `/weights`.

use super::super::about::About;
use super::List;
use super::resources::Counts;
use super::seen::{InRole, Sorted};
use muster_model::Resources;
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::collections::BTreeMap;

/// `/roles`.
pub(super) struct Roles<'a>(pub(super) &'a Sorted<'a>);

impl Serialize for Roles<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (roles, about) = (self.0.roles(), &self.0.seen.about);
        let role = |(name, it)| Shown { name: String::as_str(name), it, about };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("roles", &List(|| roles.iter().map(role)))?;
        map.end()
    }
}

struct Shown<'a> {
    name: &'a str,
    it: &'a InRole,
    about: &'a About,
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { name, it, about } = self;
        let none = Resources::none();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", name)?;
        map.serialize_entry("weight", &about.weight(name))?;
        map.serialize_entry("quota", &Quota { role: name, consumed: &it.allocated })?;
        map.serialize_entry("resources", &Counts(&it.allocated.plus(&it.offered)))?;
        map.serialize_entry("allocated", &Counts(&it.allocated))?;
        map.serialize_entry("offered", &Counts(&it.offered))?;
        map.serialize_entry("reserved", &Counts(&none))?;
        map.serialize_entry("frameworks", &List(|| it.frameworks.iter().map(|id| id.as_str())))?;
        map.end()
    }
}

/// No role has a quota as yet.
struct Quota<'a> {
    role: &'a str,
    consumed: &'a Resources,
}

impl Serialize for Quota<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let none = Resources::none();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("role", self.role)?;
        map.serialize_entry("guarantee", &Counts(&none))?;
        map.serialize_entry("limit", &Counts(&none))?;
        map.serialize_entry("consumed", &Counts(self.consumed))?;
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
