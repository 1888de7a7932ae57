//! A task's directory, and the files that its output goes to.

use super::Spec;
use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, Uid, fchown, fcntl_setfl, fstat, open as open_path, openat,
        statat, unlinkat,
    },
    io::Errno,
};
use std::{
    fs::{self, File},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, chown},
    },
    path::Path,
};

/// How often what is above a sandbox may vanish while that is made: the agent removes what held nothing but a sandbox that
/// it removed, in which another one of the same framework or task may be about to be.
const VANISHES_MAX: u32 = 32;

/// Makes the sandbox and opens it.
pub(super) fn open(spec: &Spec) -> io::Result<OwnedFd> {
    make(spec).map_err(doing(spec, "make the sandbox"))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open_path(&spec.sandbox, flags, Mode::empty()).map_err(|it| doing(spec, "open")(it.into()))
}

/// Opens an output file of a task. What bears its name by then was put there by the task's user (fetched in an archive, say)
/// and is not trusted: no link is followed, and what is no file goes.
pub(super) fn log(dir: &OwnedFd, name: &str, user: Option<(u32, u32)>) -> io::Result<File> {
    // A pipe would keep us waiting for who reads it.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let is_other = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(about) => FileType::from_raw_mode(about.st_mode) != FileType::RegularFile,
        Err(Errno::NOENT) => false,
        Err(error) => return Err(error.into()),
    };
    if is_other {
        unlinkat(dir, name, AtFlags::empty())?;
    }
    let file = openat(dir, name, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644))?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is no file"));
    }
    fcntl_setfl(&file, OFlags::APPEND)?;
    give(&file, user)?;
    Ok(file.into())
}

/// Makes an output file in the place of whatever has its name.
pub(super) fn new_log(dir: &OwnedFd, name: &str, user: Option<(u32, u32)>) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND | OFlags::CLOEXEC;
    let make = || openat(dir, name, flags, Mode::from_raw_mode(0o644));
    let mut made = make();
    if made.as_ref().err() == Some(&Errno::EXIST) {
        if unlinkat(dir, name, AtFlags::empty()) == Err(Errno::ISDIR) {
            unlinkat(dir, name, AtFlags::REMOVEDIR)?;
        }
        made = make();
    }
    let file = made?;
    give(&file, user)?;
    Ok(file.into())
}

fn give(file: &OwnedFd, user: Option<(u32, u32)>) -> io::Result<()> {
    if let Some((uid, gid)) = user {
        fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(())
}

/// Says of an error what could not be done with the sandbox.
pub(super) fn doing(spec: &Spec, what: &str) -> impl FnOnce(io::Error) -> io::Error {
    let what = format!("{what} {}", spec.sandbox.display());
    move |error| io::Error::new(error.kind(), format!("Failed to {what}: {error}"))
}

fn make(spec: &Spec) -> io::Result<()> {
    make_directory(&spec.sandbox)?;
    match spec.user {
        Some((uid, gid)) => chown(&spec.sandbox, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

/// Makes it, and all above it that is missing.
fn make_directory(path: &Path) -> io::Result<()> {
    let mut left = VANISHES_MAX;
    loop {
        let error = match path.parent().map_or(Ok(()), fs::create_dir_all) {
            Ok(()) => match fs::DirBuilder::new().mode(0o755).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => error,
                _ => return Ok(()),
            },
            Err(error) => error,
        };
        // What is above it was there and is not, or it is told to be there by who then does not find it.
        let is_above = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists);
        if !is_above || left == 0 {
            return Err(error);
        }
        left -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FileType, mknodat};
    use std::{io::Write, sync::Barrier};

    #[test]
    fn a_sandbox_is_made_though_what_is_above_it_is_removed_as_long_as_it_is_empty() {
        const TIMES: u32 = 2_000;
        let dir = tempfile::tempdir().unwrap();
        let sandbox = dir.path().join("framework/task/run");
        let together = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..TIMES {
                    together.wait();
                    // As often as the sandboxes of so many tasks go at once.
                    for _ in 0..4 {
                        sandbox.ancestors().skip(1).take(2).for_each(|parent| drop(fs::remove_dir(parent)));
                    }
                }
            });
            let make = |_| {
                together.wait();
                make_directory(&sandbox).and_then(|()| fs::remove_dir(&sandbox))
            };
            let failed: Vec<_> = (0..TIMES).map(make).filter_map(Result::err).collect();
            assert!(failed.is_empty(), "{} of {TIMES}, first {:?}", failed.len(), failed[0]);
        });
    }

    #[test]
    fn what_bears_the_name_of_an_output_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = dir.path().join("sandbox");
        fs::create_dir(&sandbox).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "as it was").unwrap();
        let fd: OwnedFd = File::open(&sandbox).unwrap().into();
        std::os::unix::fs::symlink(&elsewhere, sandbox.join("stdout")).unwrap();
        log(&fd, "stdout", None).unwrap().write_all(b"one").unwrap();
        log(&fd, "stdout", None).unwrap().write_all(b" two").unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "as it was");
        assert_eq!(fs::read_to_string(sandbox.join("stdout")).unwrap(), "one two", "a file is added to");
        mknodat(&fd, "stderr", FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        log(&fd, "stderr", None).unwrap().write_all(b"three").unwrap();
        assert_eq!(fs::read_to_string(sandbox.join("stderr")).unwrap(), "three");
        fs::create_dir(sandbox.join("dir")).unwrap();
        assert!(log(&fd, "dir", None).is_err());
    }
}
