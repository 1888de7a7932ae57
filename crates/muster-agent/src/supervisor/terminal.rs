//! Terminals.

use rustix::{
    fs::{Gid, Uid, fchown},
    io,
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use std::os::fd::{AsFd, OwnedFd};

/// Lines, and characters of a line.
pub(super) type Size = (u16, u16);

/// What ends the input of a terminal, as if it were typed.
pub(super) const END_OF_INPUT: u8 = 4;

/// A new terminal: our end of it, and that of what runs in it, which is its user's. It is nobody's own as yet.
pub(super) fn open(size: Size, user: Option<(u32, u32)>) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    resize(&ours, size)?;
    let theirs = peer(&ours)?;
    if let Some((uid, gid)) = user {
        fchown(&theirs, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok((ours, theirs))
}

/// The other end of one.
pub(super) fn peer(ours: &OwnedFd) -> io::Result<OwnedFd> {
    ioctl_tiocgptpeer(ours, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
}

/// Sets its size; who runs in it is signalled.
pub(super) fn resize(terminal: impl AsFd, (rows, columns): Size) -> io::Result<()> {
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
}
