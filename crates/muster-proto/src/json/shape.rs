//! What a message looks like: the tables that the build script makes of the descriptors.

/// A message: its name and its fields in the order of declaration.
#[derive(Debug)]
pub struct Shape {
    pub(super) name: &'static str,
    pub(super) fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) number: u32,
    pub(super) label: Label,
    pub(super) kind: Kind,
    /// What JSON shows where the field is unset.
    pub(super) default: Option<&'static str>,
}

/// How often a field may stand in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    Optional,
    Required,
    Repeated,
}

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Double,
    String,
    Bytes,
    Enum(&'static Names),
    Message(&'static Shape),
    /// Of texts to what the entry's second field holds.
    Map(&'static Shape),
}

/// The numbers and names of an enum.
#[derive(Debug)]
pub(super) struct Names(pub(super) &'static [(i32, &'static str)]);

impl Names {
    pub(super) fn name(&self, number: i32) -> Option<&'static str> {
        self.0.iter().find(|(it, _)| *it == number).map(|(_, name)| *name)
    }
    pub(super) fn number(&self, name: &str) -> Option<i32> {
        self.0.iter().find(|(_, it)| *it == name).map(|(number, _)| *number)
    }
}

impl Shape {
    /// Its full name, `mesos.v1.scheduler.Call`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its name without the package, `Call`.
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

include!(concat!(env!("OUT_DIR"), "/shapes.rs"));
