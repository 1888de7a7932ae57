//! Tar archives, and the layers of images.

use super::{Devices, Rules, Unpacked, allowed};
use crate::{
    ImageError, Limits,
    limits::{Left, Metered, bytes_text},
    tree::{Attributes, Tree, clean, entry as wrong},
};
use ::tar::{Archive, Entry, EntryType};
use std::{
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// How a layer says that something below it is gone (image-spec, `layer.md`).
const WHITEOUT: &[u8] = b".wh.";
/// How it says that nothing below it is seen of a directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The extended attributes that are kept, as pax headers name them.
const XATTR: &str = "SCHILY.xattr.";
/// Extended attributes of one file.
const XATTRS_MAX: usize = 32;

/// Unpacks a tar archive, which is not compressed, and reads to the end of what it stands in.
///
/// # Errors
/// The archive is damaged, or an entry is refused, or something has more than it may.
pub fn tar(reader: impl Read, tree: &mut Tree, rules: &Rules) -> Result<Unpacked, ImageError> {
    let limits = &rules.limits;
    let (stream, _) =
        Metered::new(reader, "the archive has", limits.unpacked_bytes_max, "unpacked_bytes_max");
    let key = "header_bytes_max";
    let (stream, headers) = Metered::new(stream, "an entry's header has", limits.header_bytes_max, key);
    let mut archive = Archive::new(stream);
    let mut done = Unpacked::default();
    let damaged = |error| ImageError::read("the archive", error);
    for found in archive.entries().map_err(damaged)? {
        let mut found = found.map_err(damaged)?;
        headers.set(None);
        done.count(limits)?;
        one(&mut found, tree, rules, &mut done)?;
        // Before the next header is looked for: there, little may be read.
        io::copy(&mut found, &mut io::sink()).map_err(damaged)?;
        headers.set(Some(limits.header_bytes_max));
    }
    drain(archive.into_inner(), &headers).map_err(damaged)?;
    Ok(done)
}

/// What follows an archive is padding, and belongs to its digest.
fn drain(mut rest: impl Read, headers: &Left) -> io::Result<u64> {
    headers.set(None);
    io::copy(&mut rest, &mut io::sink())
}

fn one(
    found: &mut Entry<'_, impl Read>,
    tree: &mut Tree,
    rules: &Rules,
    done: &mut Unpacked,
) -> Result<(), ImageError> {
    let kind = found.header().entry_type();
    if kind == EntryType::XGlobalHeader {
        return Ok(());
    }
    let path = clean(&found.path_bytes(), &rules.limits)?;
    if path.as_os_str().is_empty() {
        return match (kind, rules.is_layer) {
            (EntryType::Directory, true) => tree.dir(&path, allowed(attributes(found, &path)?, rules)),
            (EntryType::Directory, false) => Ok(()), // the directory that it is unpacked into stays as it is
            _ => Err(wrong(&path, "has no name".into())),
        };
    }
    if rules.is_layer && whiteout(&path, done)? {
        return Ok(());
    }
    let attributes = allowed(attributes(found, &path)?, rules);
    match kind {
        EntryType::Directory => tree.dir(&path, attributes),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let room = done.room(&rules.limits);
            let (mut content, _) = Metered::new(found, "the archive unpacks to", room, "unpacked_bytes_max");
            done.bytes += tree.file(&path, &attributes, &mut content).map_err(|error| whole(error, rules))?;
            Ok(())
        }
        EntryType::Symlink => {
            let target = target(found, &path, &rules.limits)?;
            tree.symlink(&path, &attributes, OsStr::from_bytes(&target))
        }
        EntryType::Link => {
            let target = clean(&target(found, &path, &rules.limits)?, &rules.limits)?;
            tree.hard_link(&path, &target)
        }
        EntryType::Fifo => tree.fifo(&path, &attributes),
        EntryType::Char | EntryType::Block => device(found, &path, tree, &attributes, rules),
        other => {
            let why = format!("is of the kind {:?}, which is not unpacked", char::from(other.as_byte()));
            Err(wrong(&path, why))
        }
    }
}

/// The limit is told as it is set, not as what was left of it.
fn whole(error: ImageError, rules: &Rules) -> ImageError {
    match error {
        ImageError::TooMuch { what, key: key @ "unpacked_bytes_max", .. } => {
            ImageError::TooMuch { what, most: bytes_text(rules.limits.unpacked_bytes_max), key }
        }
        other => other,
    }
}

/// Takes note of what a layer removes. Whether that was it.
fn whiteout(path: &Path, done: &mut Unpacked) -> Result<bool, ImageError> {
    let Some(name) = path.file_name().map(OsStr::as_bytes) else { return Ok(false) };
    let Some(gone) = name.strip_prefix(WHITEOUT) else { return Ok(false) };
    let above = path.parent().unwrap_or(Path::new("")).to_owned();
    if name == OPAQUE {
        done.opaques.insert(above);
        return Ok(true);
    }
    if gone.starts_with(WHITEOUT) {
        return Ok(true); // what union file systems keep for themselves
    }
    if matches!(gone, b"" | b"." | b"..") {
        return Err(wrong(path, "removes nothing that has a name".into()));
    }
    done.whiteouts.insert(above.join(OsStr::from_bytes(gone)));
    Ok(true)
}

fn target(found: &Entry<'_, impl Read>, path: &Path, limits: &Limits) -> Result<Vec<u8>, ImageError> {
    let target = found.link_name_bytes().ok_or_else(|| wrong(path, "is a link to nothing".into()))?;
    if target.len() > limits.path_bytes_max {
        let why =
            format!("is a link to a name of more than {} bytes (path_bytes_max)", limits.path_bytes_max);
        return Err(wrong(path, why));
    }
    if target.is_empty() || target.contains(&0) {
        return Err(wrong(path, "is a link to what is no name".into()));
    }
    Ok(target.into_owned())
}

fn device(
    found: &Entry<'_, impl Read>,
    path: &Path,
    tree: &mut Tree,
    attributes: &Attributes,
    rules: &Rules,
) -> Result<(), ImageError> {
    match rules.devices {
        Devices::LeaveOut => Ok(()),
        Devices::Refuse => Err(wrong(path, "is a device, which is not allowed here".into())),
        Devices::Make => {
            let number = |part: io::Result<Option<u32>>| {
                part.ok().flatten().ok_or_else(|| wrong(path, "is a device without a number".into()))
            };
            let header = found.header();
            let number = (number(header.device_major())?, number(header.device_minor())?);
            // To an overlay it would be a whiteout.
            if number == (0, 0) {
                return Err(wrong(path, "is the device 0:0, which is none".into()));
            }
            tree.device(path, attributes, header.entry_type() == EntryType::Block, number)
        }
    }
}

fn attributes(found: &mut Entry<'_, impl Read>, path: &Path) -> Result<Attributes, ImageError> {
    let xattrs = xattrs(found, path)?;
    let header = found.header();
    let id = |id: io::Result<u64>| {
        id.ok()
            .and_then(|id| u32::try_from(id).ok())
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| wrong(path, "has no user or group that there could be".into()))
    };
    let damaged = |_| wrong(path, "has a damaged header".into());
    Ok(Attributes {
        mode: header.mode().map_err(damaged)? & 0o7777,
        uid: id(header.uid())?,
        gid: id(header.gid())?,
        mtime: i64::try_from(header.mtime().map_err(damaged)?).unwrap_or(0),
        xattrs,
    })
}

/// Those that a program needs: capabilities, and what users say. Never `trusted.`: that is how an overlay is steered.
fn xattrs(found: &mut Entry<'_, impl Read>, path: &Path) -> Result<Vec<(String, Vec<u8>)>, ImageError> {
    let damaged = |_| wrong(path, "has damaged pax headers".into());
    let mut all = Vec::new();
    let Some(headers) = found.pax_extensions().map_err(damaged)? else { return Ok(all) };
    for header in headers {
        let header = header.map_err(damaged)?;
        let Some(name) = header.key().ok().and_then(|key| key.strip_prefix(XATTR)) else { continue };
        if name == "security.capability" || name.starts_with("user.") && !name.starts_with("user.overlay.") {
            all.push((name.to_owned(), header.value_bytes().to_owned()));
        }
        if all.len() > XATTRS_MAX {
            return Err(wrong(path, format!("has more than {XATTRS_MAX} extended attributes")));
        }
    }
    Ok(all)
}
