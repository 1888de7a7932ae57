//! What goes wrong with images, told so that who asked for one can put it right.

use std::{error::Error, fmt::Write as _, io, path::PathBuf};
use thiserror::Error;

/// Why there is no image, no layer or no root file system.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The name of an image cannot be understood, or may not be used here.
    #[error("the image name {name:?} {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it, and what would be right.
        why: String,
    },
    /// Some bytes are not those that were promised.
    #[error("{what} has the digest {found}, and {expected} was promised: it is damaged or was changed")]
    Digest {
        /// What was read.
        what: String,
        /// The digest of its bytes.
        found: String,
        /// The digest that it should have.
        expected: String,
    },
    /// An entry of an archive is refused.
    #[error("the archive's entry {entry:?} {why}")]
    Entry {
        /// Its name, as far as it can be shown.
        entry: String,
        /// Why it is refused.
        why: String,
    },
    /// Something is larger than this agent allows.
    #[error("{what} more than {most}, the limit of this agent ({key})")]
    TooMuch {
        /// What has or needs too much, with its verb.
        what: String,
        /// How much is allowed.
        most: String,
        /// The limit's name, a field of [`crate::Limits`].
        key: &'static str,
    },
    /// Something is not of the form that it should have.
    #[error("{what} cannot be read: {why}")]
    Malformed {
        /// What was read.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no such image where it was looked for.
    #[error("{what} is not there: {why}")]
    Missing {
        /// What was looked for.
        what: String,
        /// Where, and what is there.
        why: String,
    },
    /// A server did not give what it was asked for.
    #[error("{url}: {why}")]
    Server {
        /// What was asked for, without anything secret.
        url: String,
        /// What came instead.
        why: String,
    },
    /// The operating system refused.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An archive or a blob could not be read to its end.
    #[error("cannot read {what}")]
    Read {
        /// What was read.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// Work on another thread did not come to its end.
    #[error("the work was given up: {0}")]
    Stopped(String),
}

impl ImageError {
    /// It, and all that it came of, in one line.
    pub fn told(&self) -> String {
        let mut text = self.to_string();
        let mut next: Option<&dyn Error> = self.source();
        while let Some(error) = next {
            let _ = write!(text, ": {error}");
            next = error.source();
        }
        text
    }

    /// Of what was read: an error that one of our own readers gave is told as what it is.
    pub(crate) fn read(what: &str, source: io::Error) -> Self {
        match source.downcast::<Self>() {
            Ok(own) => own,
            Err(source) => Self::Read { what: what.to_owned(), source },
        }
    }

    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }

    pub(crate) fn malformed(what: &str, why: impl ToString) -> Self {
        Self::Malformed { what: what.to_owned(), why: why.to_string() }
    }
}
