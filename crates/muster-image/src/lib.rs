//! Keeps images on an agent's disk and makes root file systems of them.
//!
//! # Laws
//! - What is kept is what its digest says, and whole.
//! - No archive and no image writes outside of the directory that it is unpacked into, or more than the limits allow.
//!
//! # Nevers
//! - No credentials are shown to a registry: images come from this machine's disk, and from registries that are open.
//! - No namespace is made and no process started; mounts are values that others may perform.

mod below;
mod config;
mod decode;
mod digest;
mod error;
mod limits;
mod manifest;
mod mount;
mod reference;
mod rootfs;
mod sources;
mod store;
mod tree;
mod unpack;
mod users;

pub use config::{Command, ImageConfig, Process, process};
pub use decode::decoded;
pub use digest::{Digest, Hasher};
pub use error::ImageError;
pub use limits::Limits;
pub use mount::{Mount, probe_overlay};
pub use reference::{Remote, Source, Which};
pub use rootfs::{How, Rootfs};
pub use store::{Collected, Image, Keep, Layer, Settings, Store};
pub use tree::{Attributes, Owner, Tree};
pub use unpack::{Devices, Rules, Unpacked, tar, zip};
pub use users::{User, user};
