//! Zip archives.

use super::{Rules, Unpacked, allowed};
use crate::{
    ImageError,
    limits::Metered,
    tree::{Attributes, Tree, clean, entry as wrong},
};
use ::zip::{ZipArchive, read::ZipFile};
use std::{
    ffi::OsStr,
    io::{self, Read, Seek, SeekFrom},
    os::unix::ffi::OsStrExt,
    time::{SystemTime, UNIX_EPOCH},
};

/// Bytes of the list of an archive's entries, for each entry that it may have.
const LISTED_BYTES: u64 = 256;
/// Bytes at its end in which that list is looked for.
const SEARCHED_BYTES: u64 = 1 << 20;
/// What a mode says of a file's kind.
const KIND: u32 = 0o170_000;

/// Unpacks a zip archive whose files are stored or deflated. Files are of now: a zip knows no time zone.
///
/// # Errors
/// The archive is damaged or encrypted, or an entry is refused, or something has more than it may.
pub fn zip(reader: impl Read + Seek, tree: &mut Tree, rules: &Rules) -> Result<Unpacked, ImageError> {
    let limits = &rules.limits;
    let most = limits.entries_max.saturating_mul(LISTED_BYTES).min(256 << 20) + SEARCHED_BYTES;
    let (reader, left) = Metered::new(reader, "the list of the archive's entries has", most, "entries_max");
    // The list is read as a whole.
    let mut archive = ZipArchive::new(Bounded(reader)).map_err(damaged)?;
    left.set(None);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(0);
    let mut done = Unpacked::default();
    for number in 0..archive.len() {
        done.count(limits)?;
        let mut found = archive.by_index(number).map_err(damaged)?;
        one(&mut found, tree, rules, &mut done, now)?;
    }
    Ok(done)
}

fn damaged(error: ::zip::result::ZipError) -> ImageError {
    match error {
        ::zip::result::ZipError::Io(error) => ImageError::read("the zip archive", error),
        other => ImageError::malformed("the zip archive", other),
    }
}

fn one<R: Read>(
    found: &mut ZipFile<'_, R>,
    tree: &mut Tree,
    rules: &Rules,
    done: &mut Unpacked,
    now: i64,
) -> Result<(), ImageError> {
    let path = clean(found.name_raw(), &rules.limits)?;
    let is_dir = found.name_raw().ends_with(b"/");
    if path.as_os_str().is_empty() {
        return if is_dir { Ok(()) } else { Err(wrong(&path, "has no name".into())) };
    }
    let said = found.unix_mode();
    let mode = said.map_or(if is_dir { 0o755 } else { 0o644 }, |mode| mode & 0o7777);
    let attributes = allowed(Attributes { mode, mtime: now, ..Attributes::default() }, rules);
    let kind = said.map_or(0, |mode| mode & KIND);
    match kind {
        _ if is_dir => tree.dir(&path, attributes),
        0 | 0o100_000 => {
            let room = done.room(&rules.limits);
            let (mut content, _) = Metered::new(found, "the archive unpacks to", room, "unpacked_bytes_max");
            done.bytes += tree.file(&path, &attributes, &mut content)?;
            Ok(())
        }
        0o120_000 => {
            let mut target = Vec::new();
            let most = rules.limits.path_bytes_max as u64;
            found
                .take(most + 1)
                .read_to_end(&mut target)
                .map_err(|error| ImageError::read("a link", error))?;
            if target.is_empty() || target.len() as u64 > most || target.contains(&0) {
                return Err(wrong(&path, "is a link to what is no name".into()));
            }
            tree.symlink(&path, &attributes, OsStr::from_bytes(&target))
        }
        _ => Err(wrong(&path, "is neither a file nor a directory nor a link".into())),
    }
}

/// What is read may be bounded, where it is read from not.
struct Bounded<R>(Metered<R>);

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read + Seek> Seek for Bounded<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.get_mut().seek(to)
    }
}
