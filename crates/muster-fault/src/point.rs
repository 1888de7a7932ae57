//! The dangerous places.

use std::fmt;
use std::str::FromStr;

/// A place where a process may be made to fail, be late or crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // `about` says it, to people too
pub enum Point {
    Open,
    Created,
    MarkSynced,
    MarkRenamed,
    Append,
    AppendWritten,
    AppendDurable,
    AppendMarked,
    LogSync,
    MarkWrite,
    MarkSync,
    VoteMarked,
    VoteKept,
    Truncate,
    TruncateMarked,
    TruncateDeleted,
    TruncateDurable,
    Purge,
    PurgeMarked,
    PurgeDeleted,
    Catalogue,
    CatalogueDurable,
    SnapshotWritten,
    SnapshotSynced,
    SnapshotRenamed,
    SnapshotDurable,
    SetAside,
    ProofCopied,
    VoteSend,
    VoteReceive,
    VoteAnswer,
    AppendSend,
    AppendReceive,
    AppendAnswer,
    SnapshotSend,
    SnapshotReceive,
    SnapshotReceived,
    SnapshotStored,
    SnapshotInstall,
    SnapshotInstalled,
    Apply,
    Applied,
    CheckpointWrite,
    CheckpointSync,
    CheckpointDurable,
    AgentLogNew,
    AgentLogSynced,
    AgentLogRenamed,
    AgentLogTorn,
    AgentLogCut,
    AgentLogAside,
    TaskStart,
    TaskRelease,
    ExitWrite,
    ExitSync,
    ExitSynced,
    AgentSend,
    ToAgent,
    ToFramework,
    ToLink,
}

impl Point {
    /// All of them, in the order of their declaration.
    pub const ALL: &[Self] = &[
        Self::Open,
        Self::Created,
        Self::MarkSynced,
        Self::MarkRenamed,
        Self::Append,
        Self::AppendWritten,
        Self::AppendDurable,
        Self::AppendMarked,
        Self::LogSync,
        Self::MarkWrite,
        Self::MarkSync,
        Self::VoteMarked,
        Self::VoteKept,
        Self::Truncate,
        Self::TruncateMarked,
        Self::TruncateDeleted,
        Self::TruncateDurable,
        Self::Purge,
        Self::PurgeMarked,
        Self::PurgeDeleted,
        Self::Catalogue,
        Self::CatalogueDurable,
        Self::SnapshotWritten,
        Self::SnapshotSynced,
        Self::SnapshotRenamed,
        Self::SnapshotDurable,
        Self::SetAside,
        Self::ProofCopied,
        Self::VoteSend,
        Self::VoteReceive,
        Self::VoteAnswer,
        Self::AppendSend,
        Self::AppendReceive,
        Self::AppendAnswer,
        Self::SnapshotSend,
        Self::SnapshotReceive,
        Self::SnapshotReceived,
        Self::SnapshotStored,
        Self::SnapshotInstall,
        Self::SnapshotInstalled,
        Self::Apply,
        Self::Applied,
        Self::CheckpointWrite,
        Self::CheckpointSync,
        Self::CheckpointDurable,
        Self::AgentLogNew,
        Self::AgentLogSynced,
        Self::AgentLogRenamed,
        Self::AgentLogTorn,
        Self::AgentLogCut,
        Self::AgentLogAside,
        Self::TaskStart,
        Self::TaskRelease,
        Self::ExitWrite,
        Self::ExitSync,
        Self::ExitSynced,
        Self::AgentSend,
        Self::ToAgent,
        Self::ToFramework,
        Self::ToLink,
    ];

    /// Its name, as it is set by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "store.open",
            Self::Created => "store.created",
            Self::MarkSynced => "store.mark.synced",
            Self::MarkRenamed => "store.mark.renamed",
            Self::Append => "store.append",
            Self::AppendWritten => "store.append.written",
            Self::AppendDurable => "store.append.durable",
            Self::AppendMarked => "store.append.marked",
            Self::LogSync => "store.log.sync",
            Self::MarkWrite => "store.mark.write",
            Self::MarkSync => "store.mark.sync",
            Self::VoteMarked => "store.mark.voted",
            Self::VoteKept => "store.mark.kept",
            Self::Truncate => "store.truncate",
            Self::TruncateMarked => "store.truncate.marked",
            Self::TruncateDeleted => "store.truncate.deleted",
            Self::TruncateDurable => "store.truncate.durable",
            Self::Purge => "store.purge",
            Self::PurgeMarked => "store.purge.marked",
            Self::PurgeDeleted => "store.purge.deleted",
            Self::Catalogue => "store.catalogue",
            Self::CatalogueDurable => "store.catalogue.durable",
            Self::SnapshotWritten => "store.snapshot.written",
            Self::SnapshotSynced => "store.snapshot.synced",
            Self::SnapshotRenamed => "store.snapshot.renamed",
            Self::SnapshotDurable => "store.snapshot.durable",
            Self::SetAside => "store.set-aside",
            Self::ProofCopied => "store.proof.copied",
            Self::VoteSend => "raft.vote.send",
            Self::VoteReceive => "raft.vote.receive",
            Self::VoteAnswer => "raft.vote.answer",
            Self::AppendSend => "raft.append.send",
            Self::AppendReceive => "raft.append.receive",
            Self::AppendAnswer => "raft.append.answer",
            Self::SnapshotSend => "raft.snapshot.send",
            Self::SnapshotReceive => "raft.snapshot.receive",
            Self::SnapshotReceived => "raft.snapshot.received",
            Self::SnapshotStored => "raft.snapshot.stored",
            Self::SnapshotInstall => "raft.snapshot.install",
            Self::SnapshotInstalled => "raft.snapshot.installed",
            Self::Apply => "raft.apply",
            Self::Applied => "raft.applied",
            Self::CheckpointWrite => "agent.checkpoint.write",
            Self::CheckpointSync => "agent.checkpoint.sync",
            Self::CheckpointDurable => "agent.checkpoint.durable",
            Self::AgentLogNew => "agent.log.new",
            Self::AgentLogSynced => "agent.log.synced",
            Self::AgentLogRenamed => "agent.log.renamed",
            Self::AgentLogTorn => "agent.log.torn",
            Self::AgentLogCut => "agent.log.cut",
            Self::AgentLogAside => "agent.log.aside",
            Self::TaskStart => "agent.task.start",
            Self::TaskRelease => "agent.task.release",
            Self::ExitWrite => "agent.exit.write",
            Self::ExitSync => "agent.exit.sync",
            Self::ExitSynced => "agent.exit.synced",
            Self::AgentSend => "agent.send",
            Self::ToAgent => "master.agent.send",
            Self::ToFramework => "master.framework.send",
            Self::ToLink => "master.link.send",
        }
    }

    /// Where it is.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Open => "before a log is opened",
            Self::Created => "a data directory is new, it has no mark yet",
            Self::MarkSynced => "a first mark is synced under a temporary name",
            Self::MarkRenamed => "it has its name, the folder is not synced",
            Self::Append => "before entries are written to the log",
            Self::AppendWritten => "entries are written and not synced",
            Self::AppendDurable => "entries are synced, the mark does not say so yet",
            Self::AppendMarked => "the mark says so, nobody was answered",
            Self::LogSync => "before the log is synced",
            Self::MarkWrite => {
                "before the mark is written: a vote, the last entry, a membership of the cluster"
            }
            Self::MarkSync => "the mark is written and not synced",
            Self::VoteMarked => "a vote is in one slot of the mark, not in both",
            Self::VoteKept => "it is in both, nobody was answered",
            Self::Truncate => "before a tail that a new leader replaces is dropped",
            Self::TruncateMarked => "the mark says that it is dropped, its rows are there",
            Self::TruncateDeleted => "its rows are deleted and not synced",
            Self::TruncateDurable => "they are, nobody was answered",
            Self::Purge => "before the log is forgotten up to a snapshot",
            Self::PurgeMarked => "the mark says so, rows are left",
            Self::PurgeDeleted => "some of these rows are deleted",
            Self::Catalogue => "before a snapshot is listed",
            Self::CatalogueDurable => "it is listed, nobody was answered",
            Self::SnapshotWritten => "a snapshot's file is written and not synced",
            Self::SnapshotSynced => "it is synced under its temporary name",
            Self::SnapshotRenamed => "it has its name, the folder is not synced",
            Self::SnapshotDurable => "the folder is synced, the snapshot is not listed",
            Self::SetAside => "a damaged data directory was moved aside, its successor is not there yet",
            Self::ProofCopied => "a lone master's log was copied, to be tried on the copy",
            Self::VoteSend => "before a peer is asked for its vote",
            Self::VoteReceive => "a peer asks for our vote",
            Self::VoteAnswer => "our vote is given and kept, the peer does not know",
            Self::AppendSend => "before entries or a heartbeat go to a peer",
            Self::AppendReceive => "entries or a heartbeat came from a peer",
            Self::AppendAnswer => "they are stored, the peer does not know",
            Self::SnapshotSend => "before each piece of a snapshot goes to a peer",
            Self::SnapshotReceive => "a peer's snapshot begins to come",
            Self::SnapshotReceived => "it is in a file, not synced",
            Self::SnapshotStored => "it is synced, before it is read and verified",
            Self::SnapshotInstall => "it is here whole, before it is installed",
            Self::SnapshotInstalled => "it is installed, nobody was told",
            Self::Apply => "before committed entries are applied",
            Self::Applied => "they are applied, nobody was told",
            Self::CheckpointWrite => "before an agent writes down what it must not forget",
            Self::CheckpointSync => "it is written and not synced",
            Self::CheckpointDurable => "it is synced, nothing was done about it yet",
            Self::AgentLogNew => "before an agent's new log is written, its first or a shorter one",
            Self::AgentLogSynced => "it is synced under a temporary name",
            Self::AgentLogRenamed => "it has its name, the folder is not synced",
            Self::AgentLogTorn => "before the torn end of a log is cut off",
            Self::AgentLogCut => "it is cut off, which is not synced",
            Self::AgentLogAside => "a damaged log was put aside, its successor is not there yet",
            Self::TaskStart => "before a supervisor is started for a task",
            Self::TaskRelease => "before the task's command is let go",
            Self::ExitWrite => "before a supervisor writes down how its task ended",
            Self::ExitSync => "it is written and not synced",
            Self::ExitSynced => "it is synced, the folder is not",
            Self::AgentSend => "before an agent's word goes to a master",
            Self::ToAgent => "before a master's word goes to an agent",
            Self::ToFramework => "before a master's word goes to a framework",
            Self::ToLink => "before a leader's words go to another master, for the clients there",
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = || Self::ALL.iter().map(|point| point.name()).collect::<Vec<_>>().join(", ");
        let found = Self::ALL.iter().find(|point| point.name() == name);
        found.copied().ok_or_else(|| format!("there is no fail point {name:?}; there are {}", known()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_found_by_their_names_and_lie_in_their_order() {
        for (n, point) in Point::ALL.iter().enumerate() {
            assert_eq!(*point as usize, n);
            assert_eq!(point.name().parse(), Ok(*point));
        }
        let error = "store.apend".parse::<Point>().unwrap_err();
        assert!(error.contains("store.apend") && error.contains("store.append.durable"), "{error}");
    }
}
