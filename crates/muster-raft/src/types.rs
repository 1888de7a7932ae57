//! openraft's types with ours filled in. Standard leader ids: one leader for each term (`protocol` A1).

use bytes::Bytes;
use muster_registry::Entry;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use std::{fmt, sync::Arc};

openraft::declare_raft_types!(
    /// The types of our Raft.
    pub(crate) TypeConfig:
        D = Proposal,
        R = (),
        NodeId = u64,
        Node = Member,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
);

pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type LogEntry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type LogPayload = openraft::alias::PayloadOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, Member>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// A master as the membership knows it; its node id is the key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The configured name: m1, m2, m3.
    pub name: String,
    /// host:port.
    pub address: String,
}

/// An entry and its bytes, encoded once and shared by the log, the wire and apply.
#[derive(Clone)]
pub(crate) struct Proposal(Arc<(Entry, Bytes)>);

impl Proposal {
    /// Joins an entry with the bytes that encode it.
    pub(crate) fn from_parts(entry: Entry, bytes: Bytes) -> Self {
        Self(Arc::new((entry, bytes)))
    }
    /// The entry.
    pub(crate) fn entry(&self) -> &Entry {
        &self.0.0
    }
    /// The bytes, as on disk.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0.1
    }
}

impl PartialEq for Proposal {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.1 == other.0.1
    }
}
impl Eq for Proposal {}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands of term {}", self.entry().commands.len(), self.entry().term)
    }
}

// openraft asks for serde; nothing of ours stores a proposal this way (see `codec`).
impl Serialize for Proposal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.entry().serialize(serializer).map_err(ser::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Proposal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entry = Entry::deserialize(deserializer)?;
        let bytes = crate::codec::encode_entry(&entry).map_err(de::Error::custom)?;
        Ok(Self::from_parts(entry, bytes))
    }
}

/// A log id of a term and an index.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

/// The term of a log id.
pub(crate) fn term_of(id: &LogId) -> u64 {
    id.leader_id.term
}
