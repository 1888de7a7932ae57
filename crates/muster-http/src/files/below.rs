//! Opening what lies below a directory, and nothing else.

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, open, openat, openat2},
    io::{Errno, Result},
};
use std::{os::fd::OwnedFd, path::Path};

/// How often a path is tried again that changed while the kernel resolved it.
const TRIES: usize = 16;
const STEP: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens `rest` below the directory `root` below `within`. In `root` nothing may be a link; links in `rest` may point to
/// what lies below `root`.
pub(super) fn open_below(within: &Path, root: &str, rest: &str, flags: OFlags) -> Result<OwnedFd> {
    let within = open(within, STEP, Mode::empty())?;
    let strict = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let root = resolve(&within, root, STEP, strict | ResolveFlags::NO_SYMLINKS)?;
    open_in(&root, rest, flags)
}

/// Opens what lies below a directory.
pub(super) fn open_in(root: &OwnedFd, rest: &str, flags: OFlags) -> Result<OwnedFd> {
    resolve(root, rest, flags, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
}

fn resolve(from: &OwnedFd, path: &str, flags: OFlags, how: ResolveFlags) -> Result<OwnedFd> {
    let names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    let path = if names.is_empty() { ".".to_owned() } else { names.join("/") };
    for _ in 0..TRIES {
        match openat2(from, &*path, flags, Mode::empty(), how) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOSYS | Errno::PERM) => return step_by_step(from, &names, flags),
            done => return done,
        }
    }
    Err(Errno::AGAIN)
}

/// Where the kernel cannot: without links.
pub(super) fn step_by_step(from: &OwnedFd, names: &[&str], flags: OFlags) -> Result<OwnedFd> {
    if names.contains(&"..") {
        return Err(Errno::XDEV);
    }
    let Some((last, above)) = names.split_last() else {
        return openat(from, ".", flags, Mode::empty());
    };
    let mut at: Option<OwnedFd> = None;
    for name in above {
        // Of a link the link itself would be opened, which is no directory.
        let next = openat(at.as_ref().unwrap_or(from), *name, STEP | OFlags::NOFOLLOW, Mode::empty())?;
        at = Some(next);
    }
    openat(at.as_ref().unwrap_or(from), *last, flags | OFlags::NOFOLLOW, Mode::empty())
}

/// Whether this kernel resolves paths below a directory.
#[cfg(test)]
pub(super) fn kernel_can() -> bool {
    let here = open(".", STEP, Mode::empty());
    here.is_ok_and(|here| openat2(&here, ".", STEP, Mode::empty(), ResolveFlags::BENEATH).is_ok())
}
