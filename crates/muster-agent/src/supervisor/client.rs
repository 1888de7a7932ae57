//! A supervisor's end of a connection to an agent.

use super::{Frames, FromSupervisor, encode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    collections::VecDeque,
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

    /// Whether the other side is gone, also where nothing is read.
    pub(super) fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.stream, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut fds, Some(&now)), Ok(1..))
    }

    /// Sends of what is to be said as much as is taken. False: the other side is gone.
    pub(super) fn flush(&mut self, said: &mut VecDeque<u8>) -> bool {
        pour(said, &mut self.stream).is_ok()
    }
}

/// Writes of these bytes as many as are taken without waiting. The error: nobody takes any.
pub(super) fn pour(bytes: &mut VecDeque<u8>, to: &mut impl Write) -> io::Result<()> {
    while !bytes.is_empty() {
        let (first, _) = bytes.as_slices();
        match to.write(first) {
            Ok(n) => drop(bytes.drain(..n)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
