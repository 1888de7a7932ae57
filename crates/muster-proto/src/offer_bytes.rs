//! Frames of offers, written without the messages in between: so many offers are told that making those, and their texts,
//! is most of what it costs to tell one.
//!
//! What is written is what the generated code writes, byte for byte; a law of the tests.

use crate::{Form, agent::wire_fence, resource::wire_resource, v1};
use muster_model::{Fence, Label, Offer, Value, event::OfferWithAgent};
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
