//! What can go wrong for a user of the SDK.

use muster_proto::WireError;

/// Why something was not done; the message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SdkError {
    /// A task's description breaks a rule.
    #[error("the task cannot be launched: {0}")]
    Task(WireError),
    /// The framework's description breaks a rule.
    #[error("the framework cannot subscribe: {0}")]
    Framework(WireError),
    /// An argument is of no use.
    #[error("{0}")]
    Argument(String),
    /// Too many calls wait for an answer.
    #[error("too many calls wait for the masters' answers; try again in a moment")]
    Busy,
    /// The driver has stopped.
    #[error("the driver has stopped; start a new one")]
    Stopped,
    /// The driver stopped for this reason.
    #[error("{0}")]
    Ended(String),
    /// A thread could not be started.
    #[error("could not start the driver's threads")]
    Start(#[source] std::io::Error),
    /// No master answered.
    #[error(
        "no master answered at {masters} ({why}); check the addresses, and that a majority of masters runs"
    )]
    Unreachable {
        /// Whom we asked.
        masters: String,
        /// What the last one said.
        why: String,
    },
    /// A master refused.
    #[error("{0}")]
    Refused(String),
}
