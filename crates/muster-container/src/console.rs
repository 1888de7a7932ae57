//! The terminal that a runtime makes for a process, as it hands it over: by a socket (`--console-socket`).

use crate::ContainerError;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};
use std::{
    fs::{self, File},
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
};

/// How long a runtime that is done may take to have handed it over.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// The socket's name in the bundle.
const NAME: &str = "console.sock";

/// A socket that a terminal comes by.
pub(crate) struct Console {
    listener: UnixListener,
    path: PathBuf,
    /// A socket's whole path has at most 107 bytes: hence below a descriptor of this process.
    short: String,
    _dir: File,
}

impl Console {
    /// In a directory that is nobody else's.
    pub(crate) fn listen(dir: &Path) -> Result<Self, ContainerError> {
        let path = dir.join(NAME);
        let failed = |error| ContainerError::io("listen for a terminal at", &path)(error);
        let _ = fs::remove_file(&path); // of another attempt
        let opened = File::open(dir).map_err(failed)?;
        let short = format!("/proc/{}/fd/{}/{NAME}", std::process::id(), opened.as_raw_fd());
        let listener = UnixListener::bind(&short).map_err(failed)?;
        Ok(Self { listener, path, short, _dir: opened })
    }

    /// Where the runtime connects to.
    pub(crate) fn path(&self) -> &str {
        &self.short
    }

    /// The terminal; the runtime is done.
    pub(crate) fn take(self) -> Result<OwnedFd, ContainerError> {
        let taken = self.receive();
        taken.map_err(ContainerError::io("take over a terminal at", &self.path))
    }

    fn receive(&self) -> io::Result<OwnedFd> {
        readable(&self.listener)?;
        let (stream, _) = self.listener.accept()?;
        readable(&stream)?;
        let (mut byte, mut space) = ([0; 4096], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
        let mut received = RecvAncillaryBuffer::new(&mut space);
        recvmsg(&stream, &mut [IoSliceMut::new(&mut byte)], &mut received, RecvFlags::CMSG_CLOEXEC)?;
        let sent = received.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut sent) => sent.next(),
            _ => None,
        });
        sent.ok_or_else(|| io::Error::other("there is none in what the runtime sent"))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // it goes with the bundle
    }
}

fn readable(fd: impl AsFd) -> io::Result<()> {
    match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&PATIENCE))? {
        0 => Err(io::Error::new(io::ErrorKind::TimedOut, "the runtime sent none")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::{
        io::{IoSlice, Read, Write},
        os::unix::net::UnixStream,
    };

    #[test]
    fn a_terminal_comes_by_a_socket_with_a_long_path() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("long".repeat(50));
        fs::create_dir(&long).unwrap();
        let console = Console::listen(&long).unwrap();
        let runtime = UnixStream::connect(console.path()).unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut sent = SendAncillaryBuffer::new(&mut space);
        let fds = [theirs.as_fd()];
        assert!(sent.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(&runtime, &[IoSlice::new(b"/dev/pts/ptmx")], &mut sent, SendFlags::empty()).unwrap();
        let taken = console.take().unwrap();
        File::from(taken).write_all(b"x").unwrap();
        let mut byte = [0];
        ours.read_exact(&mut byte).unwrap();
        assert_eq!((&byte, long.join(NAME).exists()), (b"x", false));
    }
}
