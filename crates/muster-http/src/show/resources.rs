//! Resources and attributes as the legacy answers show them.

use muster_model::{Attribute, AttributeValue, Resources, Value};
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::{borrow::Cow, fmt::Write};

/// The kinds that are always shown, in Mesos' order.
const ALWAYS: [&str; 4] = ["disk", "mem", "gpus", "cpus"];

/// A sum of resources, reserved or not: numbers and texts by kind.
pub struct Amounts<'a>(pub &'a Resources);

impl Serialize for Amounts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let all = plain(self.0);
        let mut map = serializer.serialize_map(None)?;
        for name in ALWAYS {
            map.serialize_entry(name, &units(all.scalar(name)))?;
        }
        for (name, value) in all.iter() {
            match value {
                _ if ALWAYS.contains(&name) => {}
                Value::Scalar(milli) => map.serialize_entry(name, &units(*milli))?,
                Value::Ranges(ranges) => map.serialize_entry(name, &ranges_text(ranges))?,
                Value::Set(items) => {
                    let items: Vec<&str> = items.iter().map(|item| &**item).collect();
                    map.serialize_entry(name, &format!("{{{}}}", items.join(", ")))?;
                }
            }
        }
        map.end()
    }
}

/// A sum of resources in which ranges and sets count what is in them, as `/roles` shows it.
pub struct Counts<'a>(pub &'a Resources);

impl Serialize for Counts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let count = |value: &Value| match value {
            Value::Scalar(milli) => units(*milli),
            Value::Ranges(ranges) => ranges.iter().map(|(begin, end)| (end - begin) as f64 + 1.0).sum(),
            Value::Set(items) => items.len() as f64,
        };
        let all = plain(self.0);
        serializer.collect_map(all.iter().map(|(name, value)| (name, count(value))))
    }
}

/// Everything as if it were plain, which it mostly is.
fn plain(resources: &Resources) -> Cow<'_, Resources> {
    if resources.is_plain() { Cow::Borrowed(resources) } else { Cow::Owned(resources.flattened()) }
}

/// Thousandths in whole units.
pub fn units(milli: u64) -> f64 {
    milli as f64 / 1000.0
}

/// `[31000-32000]`, `[1-2, 5-6]`.
fn ranges_text(ranges: &[(u64, u64)]) -> String {
    let mut text = String::from("[");
    for (i, (begin, end)) in ranges.iter().enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        let _ = write!(text, "{comma}{begin}-{end}");
    }
    text.push(']');
    text
}

/// An agent's attributes: numbers and texts by name.
pub struct Attributes<'a>(pub &'a [Attribute]);

impl Serialize for Attributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for attribute in self.0 {
            match &attribute.value {
                AttributeValue::Scalar(milli) => map.serialize_entry(&*attribute.name, &units(*milli))?,
                AttributeValue::Ranges(ranges) => {
                    map.serialize_entry(&*attribute.name, &ranges_text(ranges))?;
                }
                AttributeValue::Text(text) => map.serialize_entry(&*attribute.name, &**text)?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn json(value: impl Serialize) -> String {
        serde_json::to_string(&value).unwrap()
    }

    #[test]
    fn amounts_are_numbers_with_a_fraction_and_texts() {
        let all = Resources::parse("cpus:0.5;mem:64;ports:[1-2,5-6];tags:{a,b};fpga:2").unwrap();
        assert_eq!(
            json(Amounts(&all)),
            r#"{"disk":0.0,"mem":64.0,"gpus":0.0,"cpus":0.5,"fpga":2.0,"ports":"[1-2, 5-6]","tags":"{a, b}"}"#
        );
        assert_eq!(json(Amounts(&Resources::none())), r#"{"disk":0.0,"mem":0.0,"gpus":0.0,"cpus":0.0}"#);
    }

    #[test]
    fn roles_count_ports() {
        let all = Resources::parse("cpus:8;ports:[31000-32000];tags:{a,b}").unwrap();
        assert_eq!(json(Counts(&all)), r#"{"cpus":8.0,"ports":1001.0,"tags":2.0}"#);
    }

    #[test]
    fn attributes_are_by_name() {
        let named = |name: &str, value| Attribute { name: name.into(), value };
        let all = [
            named("rack", AttributeValue::Text("r1".into())),
            named("slots", AttributeValue::Scalar(2500)),
            named("vlans", AttributeValue::Ranges(vec![(1, 4)])),
        ];
        assert_eq!(json(Attributes(&all)), r#"{"rack":"r1","slots":2.5,"vlans":"[1-4]"}"#);
    }
}
