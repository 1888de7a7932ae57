//! One layer on the disk.

use super::{Inner, Lease, rename};
use crate::{
    Digest, ImageError, Owner, Rules, Tree, decode::decoded, digest::Hashed, limits::Metered, tar,
    unpack::Unpacked,
};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};
use rustix::fs::{
    AtFlags, CWD, FileType, OFlags, Timespec, Timestamps, UTIME_NOW, XattrFlags, fsetxattr, syncfs, utimensat,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

const ABOUT: &str = "layer.json";
const CONTENT: &str = "fs";
/// How an overlay is told that nothing of what lies below is seen of a directory.
const OPAQUE: &str = "trusted.overlay.opaque";

/// A layer that is whole. It stays on the disk while this is held.
#[derive(Debug, Clone)]
pub struct Layer {
    diff_id: Digest,
    dir: PathBuf,
    about: Arc<About>,
    _lease: Arc<Lease>,
}

/// What is written beside a layer: fields are added, never changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    /// Whether what it removes is also in it as an overlay wants it.
    overlay: bool,
    entries: u64,
    bytes: u64,
    whiteouts: BTreeSet<Name>,
    opaques: BTreeSet<Name>,
    /// Directories that it did not name: of them what lies below counts.
    implicit: BTreeSet<Name>,
}

/// A path of a layer, written so that any bytes can be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
struct Name(PathBuf);

const ESCAPED: &AsciiSet = &CONTROLS.add(b'%').add(b'"').add(b'\\');

impl From<String> for Name {
    fn from(text: String) -> Self {
        let bytes: Vec<u8> = percent_decode_str(&text).collect();
        Self(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        percent_encode(name.0.as_os_str().as_bytes(), ESCAPED).to_string()
    }
}

impl Layer {
    /// The digest of the archive that it is, not compressed.
    pub fn diff_id(&self) -> &Digest {
        &self.diff_id
    }

    /// Where its files are.
    pub fn content(&self) -> PathBuf {
        self.dir.join(CONTENT)
    }

    /// Whether an overlay may be made with it above others: what it removes is marked in it.
    pub fn is_for_overlay(&self) -> bool {
        self.about.overlay
    }

    /// Whether it has directories that it says nothing of; its root is not meant.
    pub fn has_implicit(&self) -> bool {
        self.about.implicit.iter().any(|name| !name.0.as_os_str().is_empty())
    }

    /// Whether it says nothing at all.
    pub fn is_empty(&self) -> bool {
        self.about.entries == 0
    }

    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        self.about.bytes
    }

    /// What it removes of the layers below.
    pub(crate) fn whiteouts(&self) -> impl Iterator<Item = &Path> {
        self.about.whiteouts.iter().map(|name| &*name.0)
    }

    /// Directories of which it removes all that the layers below have in them.
    pub(crate) fn opaques(&self) -> impl Iterator<Item = &Path> {
        self.about.opaques.iter().map(|name| &*name.0)
    }

    /// Whether it hides what lies below in a directory, or is no directory where one is.
    pub(crate) fn hides(&self, path: &Path) -> bool {
        let name = Name(path.to_owned());
        self.about.opaques.contains(&name) || self.about.whiteouts.contains(&name)
    }

    pub(crate) fn is_implicit(&self, path: &Path) -> bool {
        self.about.implicit.contains(&Name(path.to_owned()))
    }
}

impl Inner {
    /// A layer that is there; it was used now.
    pub(crate) fn layer(&self, diff_id: &Digest) -> Result<Option<Layer>, ImageError> {
        // Held before it is looked for: whoever collects looks at leases after it took the layer's turn.
        let lease = self.lease(diff_id);
        let dir = self.dir.join("layers").join(diff_id.hex());
        let path = dir.join(ABOUT);
        let Some(about) = self.read_json::<About>(&path)? else { return Ok(None) };
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let now = Timestamps { last_access: now, last_modification: now };
        utimensat(CWD, &path, &now, AtFlags::empty())
            .map_err(|error| ImageError::io("touch", &path)(error.into()))?;
        Ok(Some(Layer { diff_id: diff_id.clone(), dir, about: Arc::new(about), _lease: lease }))
    }

    /// A layer, unpacked from this blob if it is not there. The blob's bytes are what `blob` says, if anything is said of
    /// them, and what comes out of them is what the diff id says: else nothing is kept.
    pub(crate) fn add_layer<R: Read>(
        &self,
        diff_id: &Digest,
        blob: Option<&Digest>,
        open: impl FnOnce() -> Result<R, ImageError>,
    ) -> Result<Layer, ImageError> {
        let _turn = self.flights().turn_blocking(&diff_id.to_string());
        if let Some(layer) = self.layer(diff_id)? {
            return Ok(layer);
        }
        let tmp = self.tmp();
        let done = self.unpack(&tmp, diff_id, blob, open()?).and_then(|()| {
            let to = self.dir.join("layers").join(diff_id.hex());
            if to.exists() {
                // Its record is damaged: what it was is not known.
                let gone = self.tmp();
                fs::rename(&to, &gone).map_err(ImageError::io("put aside", &to))?;
                fs::remove_dir_all(&gone).map_err(ImageError::io("remove", &gone))?;
            }
            rename(&tmp, &to)
        });
        if let Err(error) = done {
            // What cannot be removed now is when the store is opened.
            let _ = fs::remove_dir_all(&tmp);
            return Err(error);
        }
        let missing =
            || ImageError::Missing { what: format!("the layer {diff_id}"), why: "it was removed".into() };
        self.layer(diff_id)?.ok_or_else(missing)
    }

    fn unpack(
        &self,
        tmp: &Path,
        diff_id: &Digest,
        blob: Option<&Digest>,
        from: impl Read,
    ) -> Result<(), ImageError> {
        let limits = &self.settings.limits;
        let content = tmp.join(CONTENT);
        DirBuilder::new().mode(0o700).create(tmp).map_err(ImageError::io("create", tmp))?;
        DirBuilder::new().mode(0o755).create(&content).map_err(ImageError::io("create", &content))?;
        let owner = if is_root() { Owner::AsSaid } else { Owner::Writer };
        let mut tree = Tree::new(&content, owner)?;
        let (from, _) = Metered::new(from, "the layer has", limits.blob_bytes_max, "blob_bytes_max");
        let mut packed = Hashed::new(from);
        let mut unpacked = Hashed::new(decoded(&mut packed, limits)?);
        let done = tar(&mut unpacked, &mut tree, &Rules::layer(*limits))?;
        let (found, rest) = unpacked.finish();
        drop(rest);
        found.must_be(diff_id, || "the content of a layer".into())?;
        // What follows the packed stream belongs to the blob.
        io::copy(&mut packed, &mut io::sink()).map_err(|error| ImageError::read("the layer", error))?;
        if let Some(blob) = blob {
            packed.finish().0.must_be(blob, || "a layer".into())?;
        }
        let overlay = mark(&mut tree, &done)?;
        let implicit = tree.finish()?;
        let names = |all: BTreeSet<PathBuf>| all.into_iter().map(Name).collect();
        let about = About {
            overlay,
            entries: done.entries,
            bytes: done.bytes,
            whiteouts: names(done.whiteouts),
            opaques: names(done.opaques),
            implicit: names(implicit),
        };
        let bytes =
            serde_json::to_vec(&about).map_err(|error| ImageError::malformed("a layer's record", error))?;
        let path = tmp.join(ABOUT);
        let mut file = File::create_new(&path).map_err(ImageError::io("create", &path))?;
        file.write_all(&bytes).map_err(ImageError::io("write", &path))?;
        // All of it at once: a layer has too many files to sync each.
        syncfs(&file).map_err(|error| ImageError::io("sync", &path)(error.into()))
    }

    /// When a layer was last used, of those that nobody holds; none if it is held or not there.
    pub(super) fn layer_used(&self, diff_id: &Digest) -> Option<SystemTime> {
        let path = self.dir.join("layers").join(diff_id.hex()).join(ABOUT);
        fs::metadata(path).and_then(|about| about.modified()).ok()
    }
}

/// Marks what a layer removes as an overlay wants it: devices 0:0, and directories that are opaque. Whether it could be
/// done: not by everybody, and not on every file system. What the layer has itself under a name that it removes stays,
/// and nothing of below is seen of it.
fn mark(tree: &mut Tree, done: &Unpacked) -> Result<bool, ImageError> {
    let mut opaques: BTreeSet<&Path> = done.opaques.iter().map(|path| &**path).collect();
    for path in &done.whiteouts {
        if lies_below_none(tree, path)? {
            continue;
        }
        match tree.kind(path)? {
            Some(FileType::Directory) => drop(opaques.insert(path)),
            Some(_) => {}
            None => {
                if let Err(error) = tree.device(path, &Default::default(), false, (0, 0)) {
                    return refused(error);
                }
            }
        }
    }
    for path in opaques {
        if lies_below_none(tree, path)? {
            continue;
        }
        // A directory of which nothing else is said is made: it hides what is below.
        let dir = match tree.open_dir(path, OFlags::RDONLY)? {
            Some(dir) => dir,
            None if tree.kind(path)?.is_none() => {
                tree.implicit_dir(path)?;
                let missing =
                    || ImageError::malformed("a layer", format!("{} is no directory", path.display()));
                tree.open_dir(path, OFlags::RDONLY)?.ok_or_else(missing)?
            }
            None => continue,
        };
        if let Err(error) = fsetxattr(&dir, OPAQUE, b"y", XattrFlags::empty()) {
            return refused(ImageError::io("mark", path)(error.into()));
        }
    }
    Ok(true)
}

/// Whether the layer has something else where a directory would be around this path: that hides all of below.
fn lies_below_none(tree: &mut Tree, path: &Path) -> Result<bool, ImageError> {
    for dir in path.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()) {
        if tree.kind(dir)?.is_some_and(|kind| kind != FileType::Directory) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Without the right, or a file system that can, the layer is for copying only.
fn refused(error: ImageError) -> Result<bool, ImageError> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    match &error {
        ImageError::Io { source, .. }
            if matches!(source.kind(), PermissionDenied | Unsupported | InvalidInput) =>
        {
            Ok(false)
        }
        _ => Err(error),
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this is how the store marks that something is gone.
pub(crate) fn is_whiteout(kind: FileType, device: u64) -> bool {
    kind == FileType::CharacterDevice && device == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    /// The form on the disk: never edited, only added to.
    #[test]
    fn records_of_every_version_are_read() {
        let first = r#"{"overlay":true,"entries":3,"bytes":7,"whiteouts":["a/%FFb"],"opaques":["c"],"implicit":["d/%25"]}"#;
        let name = |bytes: &[u8]| BTreeSet::from([Name(PathBuf::from(OsStr::from_bytes(bytes)))]);
        let about = About {
            overlay: true,
            entries: 3,
            bytes: 7,
            whiteouts: name(b"a/\xffb"),
            opaques: name(b"c"),
            implicit: name(b"d/%"),
        };
        assert_eq!(serde_json::from_str::<About>(first).unwrap(), about);
        assert_eq!(serde_json::to_string(&about).unwrap(), first);
    }
}
