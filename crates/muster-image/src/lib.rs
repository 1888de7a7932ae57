//! Keeps images on an agent's disk and makes root file systems of them; what it downloads and unpacks with serves the
//! fetcher, too.

mod config;
mod decode;
mod digest;
mod error;
mod limits;
mod reference;
mod tree;
mod unpack;
mod users;

pub use config::{Command, ImageConfig, Process, process};
pub use decode::decoded;
pub use digest::{Digest, Hasher};
pub use error::ImageError;
pub use limits::Limits;
pub use reference::{Remote, Source, Which};
pub use tree::{Attributes, Owner, Tree};
pub use unpack::{Devices, Rules, Unpacked, tar, zip};
pub use users::{User, user};
