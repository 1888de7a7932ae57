//! Opening files below a directory as a process would whose root it is.

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat, openat2},
    io::{Errno, Result},
};
use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Component, Path},
};

/// How often a path is tried again that changed while the kernel resolved it.
const TRIES: usize = 16;
const STEP: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens a regular file to read it. Links lead to what is below `root`, and nothing leads out of it.
pub(crate) fn open_in(root: &Path, path: &Path) -> io::Result<File> {
    let root = open(root, STEP, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    let opened = loop {
        match openat2(&root, path, flags, Mode::empty(), how) {
            Err(Errno::AGAIN | Errno::INTR) if tries < TRIES => tries += 1,
            // Where the kernel cannot: without links.
            Err(Errno::NOSYS | Errno::PERM) => break step_by_step(&root, path, flags),
            done => break done,
        }
    }?;
    match FileType::from_raw_mode(fstat(&opened)?.st_mode).is_file() {
        true => Ok(File::from(opened)),
        false => Err(io::Error::other("it is no file")),
    }
}

fn step_by_step(root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let mut at: Option<OwnedFd> = None;
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else { return Err(Errno::XDEV) };
        let how = if parts.peek().is_some() { STEP } else { flags };
        at = Some(openat(at.as_ref().unwrap_or(root), name, how | OFlags::NOFOLLOW, Mode::empty())?);
    }
    at.ok_or(Errno::ISDIR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Read, os::unix::fs::symlink};

    #[test]
    fn nothing_leads_out() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        fs::create_dir_all(root.join("a")).unwrap();
        fs::write(outer.path().join("secret"), "secret").unwrap();
        fs::write(root.join("secret"), "inner").unwrap();
        symlink("/secret", root.join("a/absolute")).unwrap();
        symlink("../../../../secret", root.join("a/up")).unwrap();
        for path in ["secret", "a/absolute", "a/up", "../secret"] {
            let mut text = String::new();
            open_in(&root, Path::new(path)).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "inner", "{path}");
        }
        let fd = open(&root, STEP, Mode::empty()).unwrap();
        let read = OFlags::RDONLY | OFlags::CLOEXEC;
        assert!(step_by_step(&fd, Path::new("secret"), read).is_ok());
        for path in ["a/absolute", "a/up", "../secret", "/secret"] {
            assert!(step_by_step(&fd, Path::new(path), read).is_err(), "{path}");
        }
        assert!(open_in(&root, Path::new("a")).is_err(), "a directory is no file");
    }
}
