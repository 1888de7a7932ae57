//! The agent's disk: its directories, the checkpoint log, and the one thread that writes it.

mod log;
mod workdir;
mod writer;

pub(crate) use log::{Log, Opened};
pub(crate) use workdir::WorkDir;
pub(crate) use writer::{Durable, Writer};
