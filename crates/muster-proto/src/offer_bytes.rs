//! Frames of offers, written without the messages in between, and resources of offers read so: so many offers are told that
//! making those, and their texts, is most of what it costs to tell one.
//!
//! What is written is what the generated code writes, byte for byte; a law of the tests.

use crate::{
    Form, WireError,
    agent::wire_fence,
    error::bounded,
    limits, mesos,
    resource::{milli, resources, wire_resource},
    v1,
};
use bytes::Bytes;
use muster_model::{Fence, Label, Offer, Resources, Value, event::OfferWithAgent};
use prost::Message;

/// What an offer takes beside its agent's description, as a guess.
const OFFER_BYTES: usize = 300;

/// A frame to a scheduler.
pub(crate) fn offers_frame(fence: Fence, offers: &[OfferWithAgent]) -> Vec<u8> {
    let mut to = Vec::with_capacity(offers.iter().map(|it| it.agent.len() + OFFER_BYTES).sum::<usize>() + 64);
    bytes(&mut to, 1, &wire_fence(fence).encode_to_vec());
    nested(&mut to, 4, |to| offers.iter().for_each(|it| nested(to, 1, |to| offer(to, it))));
    to
}

fn offer(to: &mut Vec<u8>, it: &OfferWithAgent) {
    let OfferWithAgent { offer, hostname, port, agent, unavailability, executor_ids } = it;
    let Offer { offer_id, framework_id, role, agent_id, resources } = offer;
    let texts = [offer_id.as_str(), framework_id.as_str(), role.as_str(), agent_id.as_str(), hostname];
    for (field, text) in (1..).zip(texts).filter(|(_, text)| !text.is_empty()) {
        bytes(to, field, text.as_bytes());
    }
    for (name, label, value) in resources.iter_labelled() {
        nested(to, 6, |to| resource(to, name, label, value));
    }
    if !agent.is_empty() {
        bytes(to, 7, agent);
    }
    if *port > 0 {
        number(to, 8, u64::from(*port));
    }
    if let Some(it) = unavailability {
        let wire = v1::Unavailability { start_ns: it.start_ns, duration_ns: it.duration_ns };
        bytes(to, 12, &wire.encode_to_vec());
    }
    executor_ids.iter().for_each(|id| bytes(to, 13, id.as_str().as_bytes()));
}

fn resource(to: &mut Vec<u8>, name: &str, label: Option<&Label>, value: &Value) {
    match (label, value) {
        (None, Value::Scalar(milli)) => {
            bytes(to, 1, name.as_bytes());
            number(to, 2, 0); // SCALAR
            nested(to, 3, |to| {
                to.push(1 << 3 | FIXED);
                to.extend_from_slice(&(*milli as f64 / 1000.0).to_le_bytes());
            });
        }
        (None, Value::Ranges(pairs)) => {
            bytes(to, 1, name.as_bytes());
            number(to, 2, 1); // RANGES
            nested(to, 4, |to| {
                for (begin, end) in pairs {
                    nested(to, 1, |to| {
                        number(to, 1, *begin);
                        number(to, 2, *end);
                    });
                }
            });
        }
        // Few have these.
        _ => to.extend_from_slice(&wire_resource(name, label, value, Form::Refined).encode_to_vec()),
    }
}

/// How a field is written: eight bytes, or a length and so many bytes.
const FIXED: u8 = 1;
const LENGTH: u8 = 2;

fn number(to: &mut Vec<u8>, field: u8, n: u64) {
    to.push(field << 3);
    varint(to, n);
}

fn bytes(to: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    to.push(field << 3 | LENGTH);
    varint(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

/// A field whose length is known once it is written. One byte is left for it; what is longer is moved.
fn nested(to: &mut Vec<u8>, field: u8, write: impl FnOnce(&mut Vec<u8>)) {
    to.push(field << 3 | LENGTH);
    let at = to.len();
    to.push(0);
    write(to);
    let length = to.len() - at - 1;
    match u8::try_from(length) {
        Ok(length) if length < 0x80 => to[at] = length,
        _ => {
            let mut long = Vec::with_capacity(10);
            varint(&mut long, length as u64);
            to.splice(at..=at, long);
        }
    }
}

fn varint(to: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        to.push(n as u8 | 0x80);
        n >>= 7;
    }
    to.push(n as u8);
}

/// Writes an offer's resources, each for itself.
pub(crate) fn wire_each(resources: &Resources) -> Vec<Bytes> {
    let write = |(name, label, value): (&str, Option<&Label>, &Value)| {
        let mut to = Vec::new();
        resource(&mut to, name, label, value);
        to.into()
    };
    resources.iter_labelled().map(write).collect()
}

/// Reads an offer's resources.
pub(crate) fn read_each(list: &[Bytes]) -> Result<Resources, WireError> {
    bounded("resources", list, limits::RESOURCES_MAX)?;
    if let Some(all) = read_usual(list) {
        return Ok(all);
    }
    let read = |(i, bytes): (usize, &Bytes)| {
        mesos::Resource::decode(bytes.clone())
            .map_err(|error| WireError::new("", error).within(format_args!("resources[{i}]")))
    };
    resources(&list.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?)
}

/// Reads what most offers hold: plain amounts and ranges, by name, as they are written here. None: something is otherwise, or
/// wrong, which reading them the long way finds out.
fn read_usual(list: &[Bytes]) -> Option<Resources> {
    let (mut all, mut last) = (Resources::none(), "");
    for bytes in list {
        let mut rest = &**bytes;
        let name = std::str::from_utf8(nested_in(&mut rest, 1)?).ok()?;
        let is_name = name > last && name.len() <= limits::NAME_BYTES_MAX && !name.contains('\0');
        if !is_name || name == "gpus" {
            return None;
        }
        let value = match number_in(&mut rest, 2)? {
            0 => Value::Scalar(milli(units(nested_in(&mut rest, 3)?)?).ok()?),
            1 => Value::ranges(pairs(nested_in(&mut rest, 4)?)?),
            _ => return None,
        };
        if !rest.is_empty() {
            return None;
        }
        all.insert(name, value);
        last = name;
    }
    Some(all)
}

fn units(mut scalar: &[u8]) -> Option<f64> {
    key(&mut scalar, 1, FIXED)?;
    Some(f64::from_le_bytes(scalar.try_into().ok()?))
}

/// Ranges that ascend and do not overlap.
fn pairs(mut ranges: &[u8]) -> Option<Vec<(u64, u64)>> {
    let mut pairs: Vec<(u64, u64)> = Vec::new();
    while !ranges.is_empty() {
        let mut range = nested_in(&mut ranges, 1)?;
        let (begin, end) = (number_in(&mut range, 1)?, number_in(&mut range, 2)?);
        let is_next = pairs.last().is_none_or(|last| begin > last.1);
        if !range.is_empty() || begin > end || !is_next || pairs.len() == limits::RANGES_MAX {
            return None;
        }
        pairs.push((begin, end));
    }
    Some(pairs)
}

/// The bytes of this field, if it is next.
fn nested_in<'a>(from: &mut &'a [u8], field: u8) -> Option<&'a [u8]> {
    key(from, field, LENGTH)?;
    let length = prost::decode_length_delimiter(&mut *from).ok()?;
    from.split_off(..length)
}

/// The number of this field, if it is next.
fn number_in(from: &mut &[u8], field: u8) -> Option<u64> {
    key(from, field, 0)?;
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let byte = *from.split_off_first()?;
        if shift == 63 && byte > 1 {
            return None; // longer than a number
        }
        n |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(n);
        }
    }
    None
}

fn key(from: &mut &[u8], field: u8, kind: u8) -> Option<()> {
    (*from.split_off_first()? == field << 3 | kind).then_some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn the_long_way(list: &[Bytes]) -> Result<Resources, String> {
        let read = |bytes: &Bytes| mesos::Resource::decode(bytes.clone()).map_err(|error| error.to_string());
        let list = list.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        resources(&list).map_err(|error| error.to_string())
    }

    #[test]
    fn the_short_way_is_taken_for_plain_amounts() {
        let all = Resources::parse("cpus:24;disk:1000;mem:4096.5;ports:[31000-32000,40000-40000]").unwrap();
        assert_eq!(read_usual(&wire_each(&all)), Some(all));
        let none = Resources::none();
        assert_eq!(read_usual(&wire_each(&none)), Some(none));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let mut list = wire_each(&Resources::of(1000, 1));
        list.push(list[0].slice(..3));
        assert!(read_each(&list).unwrap_err().to_string().starts_with("resources[2]"), "{list:?}");
        let many = vec![list[0].clone(); limits::RESOURCES_MAX + 1];
        assert!(read_each(&many).unwrap_err().to_string().contains("at most"));
    }

    proptest! {
        /// Whatever comes is read as it is read the long way, or not at all.
        #[test]
        fn both_ways_agree(
            text in prop::sample::select(vec!["cpus:1;mem:5", "gpus:1;mem:2", "a:[1-3,7-9];b:1", "a:{x,y};c:2", "cpus(web):1"]),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..3),
            swap in any::<bool>(),
        ) {
            let mut list = wire_each(&Resources::parse(text).unwrap());
            for (entry, at, byte) in changes {
                let entry = entry.get(&list).clone();
                let (place, mut bytes) = (list.iter().position(|it| *it == entry).unwrap(), entry.to_vec());
                let at = at.index(bytes.len());
                bytes[at] = byte;
                list[place] = bytes.into();
            }
            if swap {
                list.reverse();
            }
            if let Some(read) = read_usual(&list) {
                prop_assert_eq!(the_long_way(&list), Ok(read));
            }
        }
    }
}
