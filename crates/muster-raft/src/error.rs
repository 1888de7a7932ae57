//! What can go wrong, said in one sentence that names the thing and the fix.

use std::{io, path::PathBuf};

/// Why a replica does not start. Nothing was overwritten.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration contradicts itself.
    #[error("the master list is wrong: {0}")]
    Config(String),
    /// The directory cannot be made or read.
    #[error(
        "cannot use the data directory {path}; check that it exists and is writable, and that its disk has room \
         and no errors"
    )]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "the data directory {path} is in use by another process; stop that one or use another --data-dir"
    )]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// Written by a newer version.
    #[error("the data directory {path} was written by a newer version of muster ({what}); use that version")]
    Newer {
        /// Which.
        path: PathBuf,
        /// What is newer.
        what: String,
    },
    /// It belongs to another cluster.
    #[error(
        "the data directory {path} belongs to the cluster {found}, not to {expected}; \
         use the directory of that cluster or an empty one"
    )]
    OtherCluster {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// It belongs to another master.
    #[error(
        "the data directory {path} belongs to the master {found}, not to {expected}; use the directory of {expected}"
    )]
    OtherName {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// Damaged, and there is no other replica to catch up from.
    #[error(
        "the data directory {path} is damaged ({why}) and no other master has its data; \
         restore it from a backup, or use an empty directory to start a new cluster"
    )]
    Corrupted {
        /// Which.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// The only copy of a log is not opened before another copy of it proved sound.
    #[error(
        "cannot copy the log of the data directory {path} to see whether it is sound before it is opened; \
         make as much room beside it as the log takes"
    )]
    Proof {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Consensus refused to start.
    #[error("cannot start consensus on the data directory {path}: {why}")]
    Start {
        /// Which.
        path: PathBuf,
        /// What was said.
        why: String,
    },
}

/// This replica does not lead, or not any more, or not in that term.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this master does not lead{}", leader.as_ref().map(|it| format!("; {} at {} does", it.name, it.address)).unwrap_or_default())]
pub struct NotLeading {
    /// Who does, when known.
    pub leader: Option<crate::Member>,
}

/// The proposer's queue is full: try again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Too much is queued.
    #[error("too many commands wait to be replicated; try again")]
    Queue,
    /// The leadership that this proposer belonged to is over.
    #[error("the leadership is over")]
    Over,
}

/// Why leadership was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This one does not lead.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// No such voter.
    #[error("there is no other voting master called {0}")]
    Unknown(String),
    /// There is nobody to hand over to.
    #[error("no other voting master is caught up")]
    Nobody,
    /// The named one is not there to take over; where none was named, no other is.
    #[error("{0} does not answer; start it first, or name another master")]
    Silent(String),
    /// The named one did not, another one did.
    #[error("{wanted} did not take over, {leader} leads now")]
    Another {
        /// Who was named.
        wanted: String,
        /// Who leads.
        leader: String,
    },
    /// It did not happen in time.
    #[error("{0} did not take over in time; it may be too far behind")]
    TimedOut(String),
}

/// Why a member is not replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// This one does not lead.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// No such member.
    #[error("there is no master called {0} in this cluster")]
    Unknown(String),
    /// It is there, with the disk that it votes with.
    #[error("{0} is well and has its disk: there is nothing to replace; if its disk is to go, stop it first")]
    Well(String),
    /// It is alive, or was a moment ago, and nobody confirmed.
    #[error(
        "{name} was heard {silent_s} s ago; stop it, or say that its old disk never comes back (--confirm)"
    )]
    Heard {
        /// Which.
        name: String,
        /// How long ago.
        silent_s: u64,
    },
    /// It is this one.
    #[error("{0} leads; hand leadership over first")]
    Leads(String),
}
