//! A supervisor's end of a connection to an agent.

use super::{Frames, FromSupervisor, encode};
use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
};

/// A connection to an agent.
pub(super) struct Client {
    pub(super) stream: UnixStream,
    pub(super) frames: Frames,
    /// The first one, 0, may release.
    pub(super) number: u64,
}

impl Client {
    pub(super) fn new(stream: UnixStream, number: u64) -> Self {
        Self { stream, frames: Frames::default(), number }
    }

    pub(super) fn is_first(&self) -> bool {
        self.number == 0
    }

    /// Reads what is there; false when the other side is gone.
    pub(super) fn fill(&mut self) -> bool {
        let mut bytes = [0; 16 << 10];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(n) => {
                self.frames.push(&bytes[..n]);
                true
            }
            Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }

    pub(super) fn say(&mut self, message: &FromSupervisor) -> io::Result<()> {
        self.stream.write_all(&encode(message)?)
    }
}
