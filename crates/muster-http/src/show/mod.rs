//! The shapes of the legacy answers: keys come in the order in which Mesos sends them, doubles have a fraction.

pub mod resources;
pub mod task;
pub mod text;

use crate::MESOS_VERSION;
use muster_proto::json::{Codec, Mesos};
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::collections::BTreeMap;

/// A list that is made while it is written.
pub struct List<F>(pub F);

impl<F: Fn() -> I, I: Iterator<Item: Serialize>> Serialize for List<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// A message in Mesos' JSON, within an answer of another shape.
pub struct Raw<'a, M>(pub &'a M);

impl<M: Mesos> Serialize for Raw<'_, M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = String::from_utf8(Codec::Json.write(self.0).into()).map_err(serde::ser::Error::custom)?;
        let raw = serde_json::value::RawValue::from_string(text).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// Writes when and by whom it was built. That is not kept: builds of one source are alike.
///
/// # Errors
/// The serializer's.
pub fn build<M: SerializeMap>(map: &mut M) -> Result<(), M::Error> {
    map.serialize_entry("build_date", "1970-01-01 00:00:00")?;
    map.serialize_entry("build_time", &0.0)?;
    map.serialize_entry("build_user", "muster")
}

/// `/version`.
pub struct Version;

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        build(&mut map)?;
        map.serialize_entry("muster", env!("CARGO_PKG_VERSION"))?;
        map.serialize_entry("version", MESOS_VERSION)?;
        map.end()
    }
}

/// `/flags`.
pub struct Flags<'a>(pub &'a BTreeMap<&'static str, String>);

impl Serialize for Flags<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("flags", self.0)?;
        map.end()
    }
}
