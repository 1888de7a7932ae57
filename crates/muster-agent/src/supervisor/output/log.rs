//! An output file of a sandbox that the supervisor writes, up to a size: then it becomes `NAME.1`, what had that name
//! `NAME.2`, and so on.
//!
//! The directory is the task's user's, who may put anything there at any moment. So nothing is opened that was not just
//! made, names are only moved and removed, and no link is followed. Whatever is there, no more is written than is to be
//! kept.
//!
//! Who follows a file finds it again by what it is, not by its name: at no moment does a larger number stand for a newer
//! file, and there is always one called `NAME`.

use super::super::{sandbox, spec::Rotation};
use rustix::{
    fs::{AtFlags, linkat, renameat, unlinkat},
    io::Errno,
};
use std::{
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    rc::Rc,
};

/// A file that output is added to.
pub(super) struct Log {
    dir: Rc<OwnedFd>,
    name: &'static str,
    user: Option<(u32, u32)>,
    /// None: it may grow.
    rotation: Option<Rotation>,
    file: File,
    size: u64,
    /// It is empty, or its last line is whole.
    ends_line: bool,
    lost: Option<Lost>,
}

/// What could not be written, and is not told yet.
struct Lost {
    bytes: u64,
    why: String,
}

/// What becomes of the next bytes.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// So many are written.
    Write(usize),
    /// A new file is begun.
    Rotate,
}

impl Log {
    pub(super) fn open(
        dir: &Rc<OwnedFd>,
        name: &'static str,
        user: Option<(u32, u32)>,
        rotation: Option<Rotation>,
    ) -> io::Result<Self> {
        let file = sandbox::log(dir, name, user)?;
        let size = file.metadata()?.len();
        Ok(Self { dir: dir.clone(), name, user, rotation, file, size, ends_line: size == 0, lost: None })
    }

    /// Adds bytes. What cannot be written is dropped and counted, and said where it is missing once something can.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.tell_lost();
        if let Some(lost) = &mut self.lost {
            lost.bytes += bytes.len() as u64;
        } else if let Err((left, error)) = self.add(bytes) {
            self.lost = Some(Lost { bytes: left as u64, why: error.to_string() });
        }
    }

    /// Says what is lost, if anything is and it can.
    pub(super) fn tell_lost(&mut self) {
        let Some(lost) = &self.lost else { return };
        let begin = if self.ends_line { "" } else { "\n" };
        let line =
            format!("{begin}muster: {} bytes of {} are lost here: {}\n", lost.bytes, self.name, lost.why);
        if self.add(line.as_bytes()).is_ok() {
            self.lost = None;
        }
    }

    /// Adds bytes; the error comes with how many of them were not.
    fn add(&mut self, mut bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        while !bytes.is_empty() {
            let left = bytes.len();
            let failed = move |error| (left, error);
            let now = match self.rotation {
                None => bytes,
                Some(rotation) => match step(bytes, self.size, rotation.bytes, self.ends_line) {
                    Step::Write(n) => &bytes[..n],
                    Step::Rotate => {
                        self.rotate(rotation.keep).map_err(failed)?;
                        continue;
                    }
                },
            };
            match self.file.write(now) {
                Ok(0) => return Err(failed(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    self.size += n as u64;
                    self.ends_line = bytes[n - 1] == b'\n';
                    bytes = &bytes[n..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// Begins a new file, and keeps so many older ones.
    fn rotate(&mut self, keep: u32) -> io::Result<()> {
        let (dir, name) = (&*self.dir, self.name);
        let of = |n: u32| format!("{name}.{n}");
        let next = format!(".{name}.next");
        // Made first: where there is no room for it, all stays as it is.
        let file = sandbox::new_log(dir, &next, self.user)?;
        for n in (1..keep).rev() {
            let _ = renameat(dir, of(n), dir, of(n + 1)); // it may be missing; what stays is replaced
        }
        if keep > 0 {
            let first = of(1);
            let mut linked = linkat(dir, name, dir, &first, AtFlags::empty());
            if linked == Err(Errno::EXIST) {
                let _ = unlinkat(dir, &first, AtFlags::empty());
                linked = linkat(dir, name, dir, &first, AtFlags::empty());
            }
            if linked.is_err() {
                let _ = renameat(dir, name, dir, &first); // not all file systems have links; else it is not kept
            }
        }
        if let Err(error) = renameat(dir, &next, dir, name) {
            let _ = unlinkat(dir, &next, AtFlags::empty());
            return Err(error.into());
        }
        (self.file, self.size, self.ends_line) = (file, 0, true);
        Ok(())
    }
}

/// What becomes of the next bytes of a file that has `size` bytes of at most `max`, so that lines stay whole where they
/// can.
fn step(bytes: &[u8], size: u64, max: u64, ends_line: bool) -> Step {
    let room = usize::try_from(max.max(1).saturating_sub(size)).unwrap_or(usize::MAX);
    let Some(fits) = bytes.get(..room).filter(|fits| fits.len() < bytes.len()) else {
        return Step::Write(bytes.len());
    };
    match fits.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => Step::Write(at + 1),
        None if size > 0 && (ends_line || room == 0) => Step::Rotate,
        None => Step::Write(room),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, fs, path::Path};

    fn log(dir: &Path, bytes: u64, keep: u32) -> Log {
        let dir: OwnedFd = File::open(dir).unwrap().into();
        Log::open(&Rc::new(dir), "stdout", None, Some(Rotation { bytes, keep })).unwrap()
    }

    /// All files, by name; those that hold nothing are told as such.
    fn files(dir: &Path) -> BTreeMap<String, String> {
        let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
        entries
            .map(|it| {
                (it.file_name().into_string().unwrap(), fs::read_to_string(it.path()).unwrap_or_default())
            })
            .collect()
    }

    fn expected(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn lines_stay_whole_where_they_can() {
        for (bytes, size, ends_line, then) in [
            ("1234\n", 0, true, Step::Write(5)),
            ("1234\n", 5, true, Step::Write(5)),
            ("12\n34\n", 5, true, Step::Write(3)),
            ("34567\n", 8, true, Step::Rotate),
            ("34567\n", 8, false, Step::Write(2)),
            ("x", 10, false, Step::Rotate),
            ("x", 12, false, Step::Rotate),
            ("12345678901", 0, true, Step::Write(10)),
        ] {
            assert_eq!(step(bytes.as_bytes(), size, 10, ends_line), then, "{bytes:?} after {size}");
        }
        assert_eq!(step(b"x", 0, 0, true), Step::Write(1), "there is no file without room");
    }

    #[test]
    fn no_more_is_kept_than_was_asked_for_and_all_of_that() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 10, 2);
        for n in 1..=9 {
            log.write(format!("line {n}\n").as_bytes());
        }
        let kept = [("stdout.2", "line 7\n"), ("stdout.1", "line 8\n"), ("stdout", "line 9\n")];
        assert_eq!(files(dir.path()), expected(&kept));
        log.write(b"0123456789012345678901234567890\n!");
        let kept = [("stdout.2", "0123456789"), ("stdout.1", "0123456789"), ("stdout", "0\n!")];
        assert_eq!(files(dir.path()), expected(&kept));
    }

    #[test]
    fn without_older_files_one_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 10, 0);
        log.write(b"line 1\nline 2\n");
        assert_eq!(files(dir.path()), expected(&[("stdout", "line 2\n")]));
    }

    /// The directory is its user's.
    #[test]
    fn whatever_is_in_the_way_leads_nowhere_and_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (sandbox, elsewhere) = (dir.path().join("sandbox"), dir.path().join("elsewhere"));
        fs::create_dir(&sandbox).unwrap();
        fs::write(&elsewhere, "as it was").unwrap();
        let link = |name: &str| std::os::unix::fs::symlink(&elsewhere, sandbox.join(name)).unwrap();
        let mut log = log(&sandbox, 10, 2);
        ["stdout.1", "stdout.2", ".stdout.next"].into_iter().for_each(link);
        log.write(b"line 1\nline 2\n");
        let found = files(&sandbox);
        assert_eq!((&*found["stdout.1"], &*found["stdout"]), ("line 1\n", "line 2\n"));
        assert!(!found.contains_key(".stdout.next"));
        fs::remove_file(sandbox.join("stdout")).unwrap();
        link("stdout");
        log.write(b"line 3\n");
        assert_eq!(files(&sandbox)["stdout"], "line 3\n");
        assert!(sandbox.join("stdout").symlink_metadata().unwrap().is_file());
        fs::remove_file(sandbox.join("stdout.1")).unwrap();
        fs::create_dir(sandbox.join("stdout.1")).unwrap();
        fs::remove_file(sandbox.join("stdout.2")).ok();
        fs::create_dir_all(sandbox.join("stdout.2/full")).unwrap();
        log.write(b"line 4\n");
        assert_eq!(files(&sandbox)["stdout"], "line 4\n", "what cannot be kept is not");
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "as it was");
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 1_000, 1);
        log.write(b"begun");
        let file = std::mem::replace(&mut log.file, File::options().write(true).open("/dev/full").unwrap());
        log.write(b" and lost\n");
        log.write(b"lost\n");
        log.tell_lost();
        log.file = file;
        log.write(b"written\n");
        let text = &files(dir.path())["stdout"];
        let marker = "muster: 15 bytes of stdout are lost here: No space left on device (os error 28)";
        assert_eq!(*text, format!("begun\n{marker}\nwritten\n"));
        log.file = File::options().write(true).open("/dev/full").unwrap();
        log.write(b"lost\n");
        log.file = File::options().append(true).open(dir.path().join("stdout")).unwrap();
        log.tell_lost();
        assert!(files(dir.path())["stdout"].ends_with(&format!("written\n{}\n", marker.replace("15", "5"))));
    }

    /// Where no new file can be made, nothing more is written.
    #[test]
    fn a_file_that_cannot_be_rotated_grows_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 10, 1);
        fs::create_dir_all(dir.path().join(".stdout.next/full")).unwrap();
        log.write(b"line 1\nline 2\n");
        log.write(b"line 3\n");
        assert_eq!(files(dir.path())["stdout"], "line 1\n");
        fs::remove_dir_all(dir.path().join(".stdout.next")).unwrap();
        log.write(b"line 4\n");
        assert!(files(dir.path())["stdout"].ends_with("line 4\n"));
    }
}
