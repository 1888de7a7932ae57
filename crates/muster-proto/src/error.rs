//! Why a message from outside was not taken.

use std::fmt;

/// A message from outside broke a rule: which field, and what is wrong with it in words that say what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct WireError {
    /// The path of the field, `task_infos[3].resources[0].scalar`.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl WireError {
    /// An error of this field.
    pub fn new(field: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self { field: field.into(), problem: problem.to_string() }
    }

    /// The same, seen from the message that holds the field.
    pub(crate) fn within(mut self, outer: impl fmt::Display) -> Self {
        self.field = if self.field.is_empty() {
            outer.to_string()
        } else if self.field.starts_with('[') {
            format!("{outer}{}", self.field)
        } else {
            format!("{outer}.{}", self.field)
        };
        self
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// Names the outer field of an inner error.
pub(crate) trait Within<T> {
    fn within(self, outer: impl fmt::Display) -> Result<T, WireError>;
}

impl<T> Within<T> for Result<T, WireError> {
    fn within(self, outer: impl fmt::Display) -> Result<T, WireError> {
        self.map_err(|error| error.within(outer))
    }
}

/// Takes a part that must be there.
pub(crate) fn required<T>(field: &str, part: Option<T>) -> Result<T, WireError> {
    part.ok_or_else(|| WireError::new(field, "is missing"))
}

/// Refuses a list that is longer than its limit.
pub(crate) fn bounded<T>(field: &str, list: &[T], limit: usize) -> Result<(), WireError> {
    if list.len() <= limit {
        return Ok(());
    }
    Err(WireError::new(field, format!("has {} entries, at most {limit} are allowed; send fewer", list.len())))
}

/// Refuses bytes or a text that are longer than their limit.
pub(crate) fn short(field: &str, bytes: &[u8], limit: usize) -> Result<(), WireError> {
    if bytes.len() <= limit {
        return Ok(());
    }
    Err(WireError::new(field, format!("has {} bytes, at most {limit} are allowed", bytes.len())))
}

/// Reads an id with its type's own rule.
macro_rules! id {
    ($kind:ident, $field:expr, $text:expr) => {
        muster_model::$kind::parse(&$text).map_err(|problem| $crate::WireError::new($field, problem))
    };
}
/// Reads an id that may be left empty.
macro_rules! id_or_none {
    ($kind:ident, $field:expr, $text:expr) => {
        if $text.is_empty() { Ok(None) } else { $crate::error::id!($kind, $field, $text).map(Some) }
    };
}
pub(crate) use {id, id_or_none};
