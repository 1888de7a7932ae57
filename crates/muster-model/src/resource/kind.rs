//! Kinds of resources: a name, and the label where there is one.
//!
//! A plain kind is stored as its name. One with a label is stored as the name, a zero byte and the label as JSON: names
//! have no zero byte in them, so that what was stored before there were labels reads as it did.

use super::label::Label;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// What stands between a name and its label.
pub(super) const MARK: char = '\0';

/// The name of a kind. The usual ones take no memory of their own.
#[derive(Clone)]
enum Name {
    Known(&'static str),
    Other(Arc<str>),
}

/// The kinds that every agent has.
static KNOWN: [&str; 5] = ["cpus", "disk", "gpus", "mem", "ports"];

/// A kind: ordered by its name, plain before what is under labels.
#[derive(Clone)]
pub(super) struct Kind {
    name: Name,
    pub(super) label: Option<Arc<Label>>,
}

impl Kind {
    pub(super) fn new(name: &str, label: Option<Arc<Label>>) -> Self {
        let name = match known(name) {
            Some(known) => Name::Known(known),
            None => Name::Other(name.into()),
        };
        Self { name, label }
    }

    pub(super) fn name(&self) -> &str {
        match &self.name {
            Name::Known(name) => name,
            Name::Other(name) => name,
        }
    }

    /// The same name under another label.
    pub(super) fn under(&self, label: Option<Arc<Label>>) -> Self {
        Self { name: self.name.clone(), label }
    }

    /// Whether it is the same, as far as that is told without reading it: both are plain and of a name that all know.
    pub(super) fn is_plainly(&self, other: &Self) -> bool {
        match (&self.name, &other.name) {
            (Name::Known(a), Name::Known(b)) => {
                std::ptr::eq(*a, *b) && self.label.is_none() && other.label.is_none()
            }
            _ => false,
        }
    }

    /// Where it stands against a name and a label.
    pub(super) fn order(&self, name: &str, label: Option<&Label>) -> Ordering {
        self.name().cmp(name).then_with(|| match (self.label.as_deref(), label) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(a), Some(b)) if std::ptr::eq(a, b) => Ordering::Equal,
            (Some(a), Some(b)) => a.order(b),
        })
    }

    /// Whether its amount can only be had whole.
    pub(super) fn is_whole(&self) -> bool {
        self.label.as_ref().is_some_and(|label| label.volume.is_some())
    }
}

fn known(name: &str) -> Option<&'static str> {
    KNOWN.iter().find(|known| **known == name).copied()
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name() && self.label == other.label
    }
}
impl Eq for Kind {}
impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Kind {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name()).then_with(|| self.label.cmp(&other.label))
    }
}
impl Hash for Kind {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.name().hash(hasher);
        if let Some(label) = &self.label {
            label.hash(hasher);
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(label) = &self.label else { return serializer.serialize_str(self.name()) };
        let label = serde_json::to_string(&**label).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&format!("{}{MARK}{label}", self.name()))
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Kind;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a kind")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Kind, E> {
                if let Some(name) = known(text) {
                    return Ok(Kind { name: Name::Known(name), label: None });
                }
                match text.split_once(MARK) {
                    None => Ok(Kind::new(text, None)),
                    Some((name, label)) => {
                        let label = serde_json::from_str(label).map_err(de::Error::custom)?;
                        Ok(Kind::new(name, Some(Arc::new(label))))
                    }
                }
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}
