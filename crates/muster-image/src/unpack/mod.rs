//! Unpacking archives that nobody need trust.
//!
//! # Laws
//! - Nothing is written outside of the [`Tree`]: names are neither absolute nor have `..`, and none is followed through a
//!   link, whoever made it.
//! - Hard links name what is in the tree. Symbolic links are made and never followed.
//! - What an archive may make of the disk and of memory is bounded by [`Limits`], whatever its headers claim.
//! - What is refused is refused with the entry's name. What was unpacked until then is the caller's to remove.

mod tar;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod zip;

pub use self::{tar::tar, zip::zip};

use crate::{ImageError, Limits, tree::Attributes};
use std::{collections::BTreeSet, path::PathBuf};

/// What becomes of devices in an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// The archive is refused.
    Refuse,
    /// They are left out: a container gets its devices from its own description.
    LeaveOut,
    /// They are made; needs root.
    Make,
}

/// How an archive is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The most of everything.
    pub limits: Limits,
    /// What becomes of devices.
    pub devices: Devices,
    /// Whether it is a layer of an image: `.wh.` names remove what lies below, and the root has attributes.
    pub is_layer: bool,
    /// Whether files keep the set-user-id, set-group-id and sticky bits, and what else gives rights.
    pub keep_rights: bool,
}

impl Rules {
    /// Of a layer of an image.
    pub fn layer(limits: Limits) -> Self {
        Self { limits, devices: Devices::LeaveOut, is_layer: true, keep_rights: true }
    }

    /// Of an archive that a command names for its sandbox.
    pub fn archive(limits: Limits) -> Self {
        Self { limits, devices: Devices::Refuse, is_layer: false, keep_rights: false }
    }
}

/// What an archive came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Its entries.
    pub entries: u64,
    /// The bytes of its files.
    pub bytes: u64,
    /// What a layer removes of those below it.
    pub whiteouts: BTreeSet<PathBuf>,
    /// Directories of which nothing is seen of the layers below it.
    pub opaques: BTreeSet<PathBuf>,
}

impl Unpacked {
    /// Counts one entry more.
    fn count(&mut self, limits: &Limits) -> Result<(), ImageError> {
        self.entries += 1;
        match self.entries > limits.entries_max {
            true => Err(ImageError::TooMuch {
                what: "the archive has".into(),
                most: format!("{} entries", limits.entries_max),
                key: "entries_max",
            }),
            false => Ok(()),
        }
    }

    /// Bytes that may still be written.
    fn room(&self, limits: &Limits) -> u64 {
        limits.unpacked_bytes_max.saturating_sub(self.bytes)
    }
}

/// What an entry is allowed of what it says.
fn allowed(mut attributes: Attributes, rules: &Rules) -> Attributes {
    attributes.mode &= if rules.keep_rights { 0o7777 } else { 0o777 };
    if !rules.keep_rights {
        attributes.xattrs.clear();
    }
    attributes
}
