//! What hostile bytes may do: be refused in words. Each function takes any bytes and fails when a promise breaks.
//!
//! `fuzz` beside this crate's sources has a target for each, which libFuzzer drives; the test replays what was found
//! and kept in `corpus`, so that nobody needs libFuzzer for that.
//!
//! # Laws
//! - [`json`], [`protobuf`]: a body is a message or is refused; what was read is written and read again as the same; the
//!   way to a leader's call or to a refusal has no panic.
//! - [`apply`]: whatever entries a log holds, the registry takes them: its laws hold after each, two registries that took
//!   the same are equal, and a snapshot restores it.

use bytes::Bytes;
use muster_model::{ClusterId, Index};
use muster_proto::{
    executor_api,
    json::{Codec, Mesos, from_json},
    master_api, mesos,
    scheduler_api::{self, Asked, Shown},
    scheduler_call, v1,
};
use muster_registry::Registry;

/// The first byte says which call the rest is to be, in JSON.
pub fn json(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    match kind % 3 {
        0 => _ = read_as_json::<mesos::scheduler::Call>(body).map(scheduler),
        1 => _ = read_as_json::<mesos::master::Call>(body).map(|(call, _)| master_api::validate(&call)),
        _ => _ = read_as_json::<mesos::executor::Call>(body).map(|(call, _)| executor_api::validate(&call)),
    }
}

/// The first byte says which call the rest is to be, in protobuf.
pub fn protobuf(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    match kind % 3 {
        0 => _ = read_as_protobuf::<mesos::scheduler::Call>(body).map(scheduler),
        1 => _ = read_as_protobuf::<mesos::master::Call>(body).map(|(call, _)| master_api::validate(&call)),
        _ => {
            _ = read_as_protobuf::<mesos::executor::Call>(body).map(|(call, _)| executor_api::validate(&call))
        }
    }
}

/// A message with its protobuf bytes, if that is what the body is.
fn read_as_json<M: Mesos + PartialEq>(body: &[u8]) -> Option<(M, Bytes)> {
    let bytes: Bytes = from_json(M::shape(), body).ok()?.into();
    let message: M = Codec::Protobuf.read(&bytes).ok()?;
    written_again(&message);
    Some((message, bytes))
}

fn read_as_protobuf<M: Mesos + PartialEq>(body: &[u8]) -> Option<(M, Bytes)> {
    let message: M = Codec::Protobuf.read(body).ok()?;
    written_again(&message);
    Some((message, Bytes::copy_from_slice(body)))
}

/// What was read is written in both forms, and each is read again. Compared are the bytes, since no number is equal to
/// itself that is none.
fn written_again<M: Mesos>(message: &M) {
    let bytes = message.encode_to_vec();
    for codec in [Codec::Json, Codec::Protobuf] {
        let again: M = match codec.read(&codec.write(message)) {
            Ok(again) => again,
            Err(why) => panic!("what was written is not read again: {why}"),
        };
        if codec == Codec::Protobuf {
            assert_eq!(again.encode_to_vec(), bytes, "it is another message");
        }
    }
}

/// A scheduler's call on its way to a leader.
fn scheduler((call, bytes): (mesos::scheduler::Call, Bytes)) {
    if scheduler_api::validate(&call).is_err() {
        return;
    }
    let up = match scheduler_api::asked(&call, &bytes, Shown::default()) {
        Asked::Subscribe(subscribe) => v1::scheduler_frame::Call::Subscribe(subscribe),
        Asked::Call(scheduler_api::Call { frame: Some(up), .. }) => up,
        _ => return,
    };
    let _ = scheduler_call(v1::SchedulerFrame { id: 1, call: Some(up), fence: None });
}

/// So many entries are taken in at most.
const ENTRIES_MAX: usize = 64;

/// A log: each entry as it is stored, behind its length in two bytes, the smaller first. What is no entry is left out.
pub fn apply(data: &[u8]) {
    let (mut one, mut other) = (registry(), registry());
    for (record, at) in records(data).take(ENTRIES_MAX).zip(1..) {
        let Ok(Some(entry)) = muster_raft::read_entry(record) else { continue };
        let (index, term) = (Index(at), entry.term);
        let applied = one.apply(index, term, &entry);
        assert_eq!(applied.outcomes.len(), entry.commands.len(), "each command has an outcome");
        assert_eq!(applied, other.apply(index, term, &entry), "replicas do the same");
        if let Err(law) = one.check_laws() {
            panic!("after entry {at}: {law}");
        }
    }
    assert!(one == other && one.state_hash() == other.state_hash(), "replicas are equal");
    match Registry::restore(one.records()) {
        Ok(restored) => assert!(restored == one, "a snapshot restores it"),
        Err(why) => panic!("{why}"),
    }
}

fn registry() -> Registry {
    Registry::new(ClusterId::new("c1"), 1)
}

fn records(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (record, rest) = rest.split_at(length);
        data = rest;
        Some(record)
    })
}
