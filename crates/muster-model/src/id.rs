//! Names of things. Each kind has its own type, so that a mix-up does not compile.
//!
//! A name of up to 23 bytes, which is what the registry's own are, stands where it is used, without memory of its
//! own: tables of a million tasks compare names without following pointers.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::{borrow::Borrow, fmt};

/// Why a text from outside is not an id. `Display` says what to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdError {
    /// The text is empty.
    Empty,
    /// The text is longer than [`ID_BYTES_MAX`] bytes.
    TooLong(usize),
    /// `.` or `..`, which would name another directory in a sandbox path.
    Dots,
    /// A control character, `/` or `\`.
    Character(char),
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "is empty"),
            Self::TooLong(n) => write!(f, "has {n} bytes, at most {ID_BYTES_MAX} are allowed"),
            Self::Dots => write!(f, "is '.' or '..'"),
            Self::Character(c) => write!(f, "contains {c:?}, which is not allowed"),
        }
    }
}

impl std::error::Error for IdError {}

/// The longest id, in bytes: a file name's limit, since ids become directory names (Mesos v1 rule).
pub const ID_BYTES_MAX: usize = 255;

fn check(text: &str) -> Result<(), IdError> {
    match text {
        "" => Err(IdError::Empty),
        "." | ".." => Err(IdError::Dots),
        t if t.len() > ID_BYTES_MAX => Err(IdError::TooLong(t.len())),
        t if t.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'/' && b != b'\\') => Ok(()),
        t => match t.chars().find(|c| c.is_control() || matches!(c, '/' | '\\')) {
            Some(c) => Err(IdError::Character(c)),
            None => Ok(()),
        },
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(SmolStr);

        impl $name {
            /// Takes a text from outside; refuses what could not be a file name.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check(text).map(|()| Self(text.into()))
            }
            /// Wraps a text that this system made itself.
            pub fn new(text: impl AsRef<str>) -> Self {
                Self(text.as_ref().into())
            }
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// A cluster, drawn once at its creation; the prefix of every id the registry counts.
    ClusterId
);
id!(
    /// A framework: `<cluster>-0001`.
    FrameworkId
);
id!(
    /// An agent: `<cluster>-S42`.
    AgentId
);
id!(
    /// A task, named by its framework; unique among the framework's tasks that are not forgotten.
    TaskId
);
id!(
    /// An executor, named by its framework.
    ExecutorId
);
id!(
    /// An offer: `<cluster>-O<term>-<shard>-<n>`. Never enters the log but as spent.
    OfferId
);
id!(
    /// An operation on resources, named by its framework.
    OperationId
);
id!(
    /// A persistent volume, named by its creator; unique among the volumes of its role on its agent.
    VolumeId
);
id!(
    /// The machine an agent runs on, from its `machine-id` or its configuration.
    MachineId
);

/// A role: `*`, or path components joined by `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Role(SmolStr);

impl Role {
    /// Checks the Mesos rules for roles and says which one is broken.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self(text.into()));
        }
        if text.len() > ID_BYTES_MAX {
            return Err(format!("role has {} bytes, at most {ID_BYTES_MAX} are allowed", text.len()));
        }
        for part in text.split('/') {
            let problem = match part {
                "" => "has an empty component",
                "." | ".." | "*" => "has a component '.', '..' or '*'",
                p if p.starts_with('-') => "has a component that starts with '-'",
                p if p.chars().any(|c| c.is_whitespace() || c.is_control()) => "contains white space",
                _ => continue,
            };
            return Err(format!("role {text:?} {problem}"));
        }
        Ok(Self(text.into()))
    }
    /// Whether it is the other role, or one above it: `a` covers `a` and `a/b`.
    pub fn covers(&self, other: &Self) -> bool {
        match other.as_str().strip_prefix(self.as_str()) {
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }
    /// The role of everyone, `*`.
    pub fn any() -> Self {
        Self("*".into())
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A task's full name: task ids are unique only within their framework.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskKey {
    /// Whose task.
    pub framework_id: FrameworkId,
    /// Its id there.
    pub task_id: TaskId,
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.framework_id, self.task_id)
    }
}
impl fmt::Debug for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An executor's full name: ids are unique within their framework.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExecutorName {
    /// Whose.
    pub framework_id: FrameworkId,
    /// Its id there.
    pub executor_id: ExecutorId,
}

impl fmt::Display for ExecutorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.framework_id, self.executor_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_from_outside_are_file_names() {
        assert!(TaskId::parse("web.1").is_ok());
        assert_eq!(TaskId::parse(""), Err(IdError::Empty));
        assert_eq!(TaskId::parse(".."), Err(IdError::Dots));
        assert_eq!(TaskId::parse("a/b"), Err(IdError::Character('/')));
        assert_eq!(TaskId::parse("a\nb"), Err(IdError::Character('\n')));
        assert_eq!(TaskId::parse(&"x".repeat(256)), Err(IdError::TooLong(256)));
    }

    #[test]
    fn roles_are_paths() {
        for good in ["*", "web", "eng/web", "a-b"] {
            assert!(Role::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "a/*", "-a", "a b", ".."] {
            assert!(Role::parse(bad).is_err(), "{bad}");
        }
    }
}
