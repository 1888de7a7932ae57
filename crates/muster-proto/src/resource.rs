//! Resources and attributes.

mod label;

pub(crate) use label::container_path;

use crate::error::{bounded, required, short};
use crate::{WireError, limits, mesos};
use label::{reservations, volume, wire_label};
use mesos::value::Type;
use muster_model::{Attribute, AttributeValue, Label, Resources, Value};
use std::{collections::BTreeSet, sync::Arc};

/// Reads resources. Several entries of one kind are added up; scalars are rounded to thousandths.
///
/// Reservations are read in both of Mesos' forms. Revocable, shared and provider resources and disks with a source of
/// their own are refused.
pub fn resources(list: &[mesos::Resource]) -> Result<Resources, WireError> {
    bounded("resources", list, limits::RESOURCES_MAX)?;
    let mut all = Resources::none();
    for (i, entry) in list.iter().enumerate() {
        let wrong = |error: WireError| error.within(format!("resources[{i}]"));
        let label = kind(entry).map_err(wrong)?;
        let value = value(entry.r#type, &entry.scalar, &entry.ranges, &entry.set, true).map_err(wrong)?;
        if entry.name == "gpus" && !matches!(value, Value::Scalar(n) if n % 1000 == 0) {
            return Err(wrong(WireError::new("scalar", "gpus must be a whole number")));
        }
        if all.iter().any(|(name, have)| name == entry.name && !have.is_like(&value)) {
            let problem = format!("{:?} has another type than an earlier entry of that name", entry.name);
            return Err(wrong(WireError::new("type", problem)));
        }
        all.insert_labelled(&entry.name, label.map(Arc::new), value);
    }
    Ok(all)
}

/// Checks the name, and reads what sets the amount apart.
fn kind(entry: &mesos::Resource) -> Result<Option<Label>, WireError> {
    if entry.name.is_empty() {
        return Err(WireError::new("name", "is missing"));
    }
    short("name", entry.name.as_bytes(), limits::NAME_BYTES_MAX)?;
    if entry.name.contains('\0') {
        return Err(WireError::new("name", "contains a zero byte"));
    }
    let not_yet = |field: &str, what: &str| {
        Err(WireError::new(field, format!("{what} are not supported; leave it unset")))
    };
    match entry {
        e if e.revocable.is_some() => return not_yet("revocable", "revocable resources"),
        e if e.shared.is_some() => return not_yet("shared", "shared resources"),
        e if e.provider_id.is_some() => return not_yet("provider_id", "resource providers"),
        _ => {}
    }
    let label = Label { reservations: reservations(entry)?, volume: volume(entry)? };
    if label.volume.is_some() && label.reservations.is_empty() {
        let problem = "Persistent volumes cannot be created from unreserved resources";
        return Err(WireError::new("disk.persistence", problem));
    }
    Ok((label != Label::default()).then_some(label))
}

fn value(
    kind: i32,
    scalar: &Option<mesos::value::Scalar>,
    ranges: &Option<mesos::value::Ranges>,
    set: &Option<mesos::value::Set>,
    disjoint: bool,
) -> Result<Value, WireError> {
    let only = |field: &str, others: [bool; 2]| {
        if others.contains(&true) {
            return Err(WireError::new(field, "only the value field of the type may be set"));
        }
        Ok(())
    };
    match Type::try_from(kind) {
        Ok(Type::Scalar) => {
            only("type", [ranges.is_some(), set.is_some()])?;
            milli(required("scalar", scalar.as_ref())?.value).map(Value::Scalar)
        }
        Ok(Type::Ranges) => {
            only("type", [scalar.is_some(), set.is_some()])?;
            pairs(required("ranges", ranges.as_ref())?, disjoint).map(Value::ranges)
        }
        Ok(Type::Set) => {
            only("type", [scalar.is_some(), ranges.is_some()])?;
            items(required("set", set.as_ref())?).map(Value::Set)
        }
        Ok(Type::Text) => {
            Err(WireError::new("type", "TEXT is no type of a resource; use SCALAR, RANGES or SET"))
        }
        Err(_) => Err(WireError::new("type", format!("{kind} is not known; use SCALAR, RANGES or SET"))),
    }
}

/// A float of the wire in thousandths.
pub(crate) fn milli(value: f64) -> Result<u64, WireError> {
    if value.is_nan() || value < 0.0 {
        return Err(WireError::new("scalar", format!("is {value}, must be 0 or more")));
    }
    if value > limits::SCALAR_MAX {
        return Err(WireError::new(
            "scalar",
            format!("is {value}, at most {} is allowed", limits::SCALAR_MAX),
        ));
    }
    Ok((value * 1000.0).round() as u64)
}

fn pairs(ranges: &mesos::value::Ranges, disjoint: bool) -> Result<Vec<(u64, u64)>, WireError> {
    bounded("ranges", &ranges.range, limits::RANGES_MAX)?;
    let mut pairs: Vec<_> = ranges.range.iter().map(|range| (range.begin, range.end)).collect();
    if let Some((begin, end)) = pairs.iter().find(|(begin, end)| begin > end) {
        return Err(WireError::new("ranges", format!("{begin}-{end} begins after its end")));
    }
    if disjoint {
        pairs.sort_unstable();
        if let Some(two) = pairs.windows(2).find(|two| two[1].0 <= two[0].1) {
            let ((a, b), (c, d)) = (two[0], two[1]);
            return Err(WireError::new("ranges", format!("{a}-{b} and {c}-{d} overlap")));
        }
    }
    Ok(pairs)
}

fn items(set: &mesos::value::Set) -> Result<BTreeSet<Arc<str>>, WireError> {
    bounded("set", &set.item, limits::SET_ITEMS_MAX)?;
    let mut items = BTreeSet::new();
    for item in &set.item {
        short("set", item.as_bytes(), limits::TEXT_BYTES_MAX)?;
        if !items.insert(Arc::from(item.as_str())) {
            return Err(WireError::new("set", format!("{item:?} occurs twice")));
        }
    }
    Ok(items)
}

/// How the reservations of what is sent are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As `reservations`: to frameworks with RESERVATION_REFINEMENT, and among ourselves.
    Refined,
    /// As `role` and `reservation`: to other frameworks. They are offered nothing that has more than one.
    Plain,
    /// Both, where both can: to operators.
    Both,
}

/// Writes resources as we do among ourselves.
pub fn wire_resources(resources: &Resources) -> Vec<mesos::Resource> {
    wire_resources_in(resources, Form::Refined)
}

/// Writes resources.
pub fn wire_resources_in(resources: &Resources, form: Form) -> Vec<mesos::Resource> {
    resources.iter_labelled().map(|(name, label, value)| wire_resource(name, label, value, form)).collect()
}

pub(crate) fn wire_resource(name: &str, label: Option<&Label>, value: &Value, form: Form) -> mesos::Resource {
    let mut entry = mesos::Resource { name: name.into(), ..Default::default() };
    wire_label(&mut entry, label, form);
    match value {
        Value::Scalar(n) => {
            entry.r#type = Type::Scalar.into();
            entry.scalar = Some(wire_scalar(*n));
        }
        Value::Ranges(pairs) => {
            entry.r#type = Type::Ranges.into();
            entry.ranges = Some(wire_ranges(pairs));
        }
        Value::Set(items) => {
            entry.r#type = Type::Set.into();
            entry.set = Some(mesos::value::Set { item: items.iter().map(|item| item.to_string()).collect() });
        }
    }
    entry
}

fn wire_scalar(milli: u64) -> mesos::value::Scalar {
    mesos::value::Scalar { value: milli as f64 / 1000.0 }
}

fn wire_ranges(pairs: &[(u64, u64)]) -> mesos::value::Ranges {
    let range = pairs.iter().map(|&(begin, end)| mesos::value::Range { begin, end }).collect();
    mesos::value::Ranges { range }
}

/// Reads an agent's attributes.
pub fn attributes(list: &[mesos::Attribute]) -> Result<Vec<Attribute>, WireError> {
    bounded("attributes", list, limits::ATTRIBUTES_MAX)?;
    let read = |(i, entry)| attribute(entry).map_err(|error| error.within(format!("attributes[{i}]")));
    list.iter().enumerate().map(read).collect()
}

fn attribute(entry: &mesos::Attribute) -> Result<Attribute, WireError> {
    if entry.name.is_empty() {
        return Err(WireError::new("name", "is missing"));
    }
    short("name", entry.name.as_bytes(), limits::NAME_BYTES_MAX)?;
    let value = match Type::try_from(entry.r#type) {
        Ok(Type::Scalar) => AttributeValue::Scalar(milli(required("scalar", entry.scalar.as_ref())?.value)?),
        Ok(Type::Ranges) => AttributeValue::Ranges(pairs(required("ranges", entry.ranges.as_ref())?, false)?),
        Ok(Type::Text) => {
            let text = &required("text", entry.text.as_ref())?.value;
            short("text", text.as_bytes(), limits::TEXT_BYTES_MAX)?;
            AttributeValue::Text(text.as_str().into())
        }
        _ => return Err(WireError::new("type", "use SCALAR, RANGES or TEXT")),
    };
    Ok(Attribute { name: entry.name.as_str().into(), value })
}

/// Writes attributes.
pub fn wire_attributes(list: &[Attribute]) -> Vec<mesos::Attribute> {
    let write = |attribute: &Attribute| {
        let mut entry = mesos::Attribute { name: attribute.name.to_string(), ..Default::default() };
        match &attribute.value {
            AttributeValue::Scalar(n) => {
                entry.r#type = Type::Scalar.into();
                entry.scalar = Some(wire_scalar(*n));
            }
            AttributeValue::Ranges(pairs) => {
                entry.r#type = Type::Ranges.into();
                entry.ranges = Some(wire_ranges(pairs));
            }
            AttributeValue::Text(text) => {
                entry.r#type = Type::Text.into();
                entry.text = Some(mesos::value::Text { value: text.to_string() });
            }
        }
        entry
    };
    list.iter().map(write).collect()
}
