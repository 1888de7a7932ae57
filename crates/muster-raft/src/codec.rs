//! The bytes on disk and in snapshots: the only module that names bincode.
//!
//! A format byte stands before every record. Types are append-only (`house-style` 8): a changed struct is a
//! new variant, and the golden bytes in `golden/v1` decode for ever.

use crate::types::{LogEntry, LogId, LogPayload, Member, Membership, Proposal, log_id, term_of};
use muster_model::{Term, Timestamp, WallTime};
use muster_registry::{Command, Entry};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The newest format that this version writes and reads.
pub(crate) const FORMAT: u8 = 1;

/// No record is larger: a length read from a damaged record must not become an allocation.
const RECORD_BYTES_MAX: usize = 1 << 30;

/// What a record's second byte says it is.
const KIND_BLANK: u8 = 0;
const KIND_ENTRY: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    /// No bytes at all, or fewer than a record's head.
    #[error("the record is cut short")]
    Short,
    /// Written by a newer version.
    #[error("the record has format {0}; this version reads formats up to {FORMAT}: upgrade muster")]
    Newer(u8),
    /// A kind of log record that this version does not know.
    #[error("the log record is of unknown kind {0}: upgrade muster")]
    Kind(u8),
    /// The bytes do not decode.
    #[error("the record does not decode: {0}")]
    Decode(String),
    /// The value does not encode.
    #[error("the record does not encode: {0}")]
    Encode(String),
}

fn settings() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<RECORD_BYTES_MAX>()
}

fn append<T: Serialize + ?Sized>(value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
    bincode::serde::encode_into_std_write(value, bytes, settings())
        .map(|_| ())
        .map_err(|error| CodecError::Encode(error.to_string()))
}

fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, CodecError> {
    let (value, used) = bincode::serde::borrow_decode_from_slice(bytes, settings())
        .map_err(|error| CodecError::Decode(error.to_string()))?;
    if used == bytes.len() {
        Ok(value)
    } else {
        Err(CodecError::Decode(format!("{} bytes are left over", bytes.len() - used)))
    }
}

/// Any record but a log entry: a format byte, then the value.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![FORMAT];
    append(value, &mut bytes)?;
    Ok(bytes)
}

/// The inverse of [`encode`]; all bytes must be used. What is only looked at may be borrowed of them.
pub(crate) fn decode<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        None => Err(CodecError::Short),
        Some((&FORMAT, body)) => parse(body),
        Some((&format, _)) => Err(CodecError::Newer(format)),
    }
}

/// The configuration of a cluster as it is stored: our own layout, not the library's.
#[derive(Serialize, Deserialize)]
struct StoredMembers {
    configs: Vec<Vec<u64>>,
    nodes: Vec<(u64, Member)>,
}

/// A membership as it is stored.
pub(crate) fn encode_membership(membership: &Membership) -> Result<Vec<u8>, CodecError> {
    encode(&StoredMembers {
        configs: membership.get_joint_config().iter().map(|set| set.iter().copied().collect()).collect(),
        nodes: membership.nodes().map(|(id, node)| (*id, node.clone())).collect(),
    })
}

/// The inverse of [`encode_membership`].
pub(crate) fn decode_membership(bytes: &[u8]) -> Result<Membership, CodecError> {
    let stored: StoredMembers = decode(bytes)?;
    let configs: Vec<BTreeSet<u64>> =
        stored.configs.into_iter().map(|set| set.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, Member> = stored.nodes.into_iter().collect();
    if configs.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|error| CodecError::Decode(error.to_string()))
}

/// What a log entry carries, as it is on disk and on the wire between masters.
pub(crate) fn encode_payload(payload: &LogPayload) -> Result<bytes::Bytes, CodecError> {
    match payload {
        LogPayload::Blank => Ok(bytes::Bytes::from_static(&[FORMAT, KIND_BLANK])),
        LogPayload::Normal(proposal) => Ok(proposal.bytes().clone()),
        LogPayload::Membership(membership) => {
            let mut bytes = vec![FORMAT, KIND_MEMBERSHIP];
            bytes.extend_from_slice(&encode_membership(membership)?);
            Ok(bytes.into())
        }
    }
}

/// The inverse of [`encode_payload`], with the log id that the entry was stored under.
pub(crate) fn decode_entry(id: LogId, bytes: bytes::Bytes) -> Result<LogEntry, CodecError> {
    let payload = match bytes.as_ref() {
        [FORMAT, KIND_BLANK] => LogPayload::Blank,
        [FORMAT, KIND_ENTRY, body @ ..] => {
            let entry = parse(body)?;
            LogPayload::Normal(Proposal::from_parts(entry, bytes))
        }
        [FORMAT, KIND_MEMBERSHIP, body @ ..] => LogPayload::Membership(decode_membership(body)?),
        [FORMAT, kind, ..] => return Err(CodecError::Kind(*kind)),
        [format, ..] if *format != FORMAT => return Err(CodecError::Newer(*format)),
        _ => return Err(CodecError::Short),
    };
    Ok(LogEntry { log_id: log_id(term_of(&id), id.index), payload })
}

/// Reads a log record, for tools and tests; none where it holds no entry of ours (a blank or a membership).
///
/// # Errors
/// The bytes are no such record, in words.
pub fn read_entry(record: &[u8]) -> Result<Option<Entry>, String> {
    let entry = decode_entry(log_id(0, 0), bytes::Bytes::copy_from_slice(record));
    match entry.map_err(|error| error.to_string())?.payload {
        LogPayload::Normal(proposal) => Ok(Some(proposal.entry().clone())),
        LogPayload::Blank | LogPayload::Membership(_) => Ok(None),
    }
}

/// Encodes a whole entry.
pub(crate) fn encode_entry(entry: &Entry) -> Result<bytes::Bytes, CodecError> {
    let mut bytes = vec![FORMAT, KIND_ENTRY];
    append(entry, &mut bytes)?;
    Ok(bytes.into())
}

/// Collects commands into an entry and encodes each of them once, so that the entry's size is known exactly
/// before the next command is taken in.
#[derive(Debug, Default)]
pub(crate) struct EntryBuilder {
    commands: Vec<Command>,
    bodies: Vec<u8>,
    /// Where the last command's bytes begin.
    last: usize,
}

impl EntryBuilder {
    /// Takes a command in.
    pub(crate) fn push(&mut self, command: Command) -> Result<(), CodecError> {
        self.last = self.bodies.len();
        append(&command, &mut self.bodies)?;
        self.commands.push(command);
        Ok(())
    }

    /// Gives the last command back; once after each push.
    pub(crate) fn pop(&mut self) -> Option<Command> {
        self.bodies.truncate(self.last);
        self.commands.pop()
    }

    /// How many commands it holds.
    pub(crate) fn len(&self) -> usize {
        self.commands.len()
    }

    /// How many bytes they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bodies.len()
    }

    /// The entry with its bytes. The layout is that of [`Entry`]: its fields in order, the commands last.
    pub(crate) fn finish(
        self,
        term: Term,
        at: Timestamp,
        wall: WallTime,
        first_ticket: u64,
    ) -> Result<Proposal, CodecError> {
        let mut bytes = Vec::with_capacity(self.bodies.len() + 48);
        bytes.extend_from_slice(&[FORMAT, KIND_ENTRY]);
        append(&(term, at, wall, first_ticket, self.commands.len() as u64), &mut bytes)?;
        bytes.extend_from_slice(&self.bodies);
        let entry = Entry { term, at, wall, first_ticket, commands: self.commands };
        Ok(Proposal::from_parts(entry, bytes.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_registry::BeginTerm;

    #[test]
    fn an_entry_built_piece_by_piece_is_the_entry_encoded_whole() {
        for count in [0, 1, 3, 300] {
            let mut builder = EntryBuilder::default();
            for n in 0..count {
                let command = if n % 2 == 0 { Command::Tick } else { begin(n) };
                builder.push(command).unwrap();
            }
            let proposal = builder.finish(Term(7), Timestamp(70_000), WallTime(u64::MAX), 251).unwrap();
            assert_eq!(proposal.bytes(), &encode_entry(proposal.entry()).unwrap());
            let entry = decode_entry(log_id(7, 3), proposal.bytes().clone()).unwrap();
            assert!(matches!(entry.payload, LogPayload::Normal(again) if again.entry() == proposal.entry()));
        }
    }

    fn begin(n: u64) -> Command {
        Command::BeginTerm(BeginTerm { reconnect_grace_ms: n * 1_000 })
    }

    #[test]
    fn a_newer_format_is_named() {
        let error = decode::<u64>(&[FORMAT + 1, 0]).unwrap_err();
        assert!(error.to_string().contains("upgrade muster"), "{error}");
        assert!(matches!(decode::<u64>(&[]), Err(CodecError::Short)));
        assert!(matches!(decode_entry(log_id(1, 1), vec![FORMAT, 77].into()), Err(CodecError::Kind(77))));
    }

    #[test]
    fn a_membership_round_trips() {
        let member = |n: u64| (n, Member { name: format!("m{n}"), address: format!("h{n}:5050") });
        let configs = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 2, 4])];
        let nodes = BTreeMap::from([member(1), member(2), member(3), member(4), member(5)]);
        let membership = Membership::new(configs, nodes).unwrap();
        let payload = encode_payload(&LogPayload::Membership(membership.clone())).unwrap();
        let entry = decode_entry(log_id(2, 9), payload).unwrap();
        assert_eq!(entry.payload, LogPayload::Membership(membership));
    }
}
