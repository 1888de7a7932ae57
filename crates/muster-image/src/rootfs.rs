//! The root file system of one container.
//!
//! It is made of an image in a directory of the container's own: as an overlay, which costs nothing, or as a copy where
//! an overlay cannot show the same. What has to be mounted is a value; the container's record is written before anything
//! else, so that its layers are known to be used whatever happens.

use crate::{
    Attributes, Digest, Image, ImageError, Layer, Mount, Owner, Tree,
    store::{is_root, is_whiteout},
};
use rustix::{
    fs::{FileType, lgetxattr, llistxattr},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

const RECORD: &str = "rootfs.json";
/// Bytes of an extended attribute, and of the list of their names.
const XATTR_BYTES_MAX: usize = 64 << 10;

/// How a root file system is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// As an overlay of the image's layers.
    Overlay,
    /// As a copy.
    Copy,
}

/// A root file system that is made, but for what is to be mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Where it is seen once `mounts` are performed.
    pub root: PathBuf,
    /// How it was made.
    pub how: How,
    /// What is to be mounted for it, in order.
    pub mounts: Vec<Mount>,
    /// The layers that it needs as long as it is there.
    pub layers: Vec<Digest>,
    /// The directory that all of it is in.
    dir: PathBuf,
}

impl Rootfs {
    /// Makes a root file system in `dir`, which is made and must not have one yet. An overlay is made if `overlay` says
    /// that they can be, and this image can be one.
    ///
    /// # Errors
    /// The directory cannot be used, or has one, or the image cannot be copied.
    pub fn prepare(image: &Image, dir: &Path, overlay: bool) -> Result<Self, ImageError> {
        fs::create_dir_all(dir).map_err(ImageError::io("create", dir))?;
        let dir = fs::canonicalize(dir).map_err(ImageError::io("find", dir))?;
        let root = dir.join("root");
        let how = if overlay && can_overlay(image) { How::Overlay } else { How::Copy };
        let mounts = match how {
            How::Copy => Vec::new(),
            How::Overlay => vec![Mount::Overlay {
                lower: lower(image),
                upper: dir.join("upper"),
                work: dir.join("work"),
                target: root.clone(),
            }],
        };
        let made = Self { root, how, mounts, layers: image.used(), dir };
        made.write()?;
        new_dir(&made.root)?;
        match how {
            How::Overlay => {
                new_dir(&made.dir.join("work"))?;
                let upper = made.dir.join("upper");
                new_dir(&upper)?;
                like(&upper, &top(image))?;
            }
            How::Copy => copy(image, &made.root)?,
        }
        Ok(made)
    }

    /// The root file system that was made in a directory, if one was.
    ///
    /// # Errors
    /// Its record cannot be read.
    pub fn read(dir: &Path) -> Result<Option<Self>, ImageError> {
        let path = dir.join(RECORD);
        match fs::read(&path) {
            Ok(bytes) => {
                let what = path.display().to_string();
                serde_json::from_slice(&bytes).map(Some).map_err(|error| ImageError::malformed(&what, error))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ImageError::io("read", path)(error)),
        }
    }

    /// Mounts what is to be mounted, in the mount namespace of the calling thread.
    ///
    /// # Errors
    /// The system refuses; nothing is left mounted.
    pub fn mount(&self) -> Result<(), ImageError> {
        for mount in &self.mounts {
            if let Err(error) = mount.perform() {
                let _ = self.unmount();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes away what was mounted, in the mount namespace of the calling thread.
    ///
    /// # Errors
    /// The system refuses.
    pub fn unmount(&self) -> Result<(), ImageError> {
        self.mounts.iter().rev().try_for_each(Mount::undo)
    }

    /// Takes away all of it: what was mounted here, and then what is on the disk. Its record goes last.
    ///
    /// # Errors
    /// The system refuses, or something is mounted in it still.
    pub fn undo(&self) -> Result<(), ImageError> {
        self.unmount()?;
        for name in ["root", "upper", "work"] {
            let path = self.dir.join(name);
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(ImageError::io("remove", path)(error));
                }
                _ => {}
            }
        }
        let path = self.dir.join(RECORD);
        fs::remove_file(&path).map_err(ImageError::io("remove", path))
    }

    fn write(&self) -> Result<(), ImageError> {
        let bytes = serde_json::to_vec(self).map_err(|error| ImageError::malformed("a record", error))?;
        let (path, tmp) = (self.dir.join(RECORD), self.dir.join("rootfs.tmp"));
        let written =
            File::create(&tmp).and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
        written.map_err(ImageError::io("write", &tmp))?;
        fs::rename(&tmp, &path).map_err(ImageError::io("rename to", &path))?;
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(ImageError::io("sync", &self.dir))
    }
}

/// Whether an overlay shows what the image says: every layer has marked what it removes, and removes it from directories
/// that are there below, since an overlay lists the marks of others; and those above others name all their directories,
/// since of those that they do not name what lies below would count.
fn can_overlay(image: &Image) -> bool {
    let above = image.layers().get(1..).unwrap_or_default();
    let has_lower = image.dir().is_some() || telling(image).next().is_some();
    let mut seen = BTreeSet::new();
    // An overlay takes no directory twice.
    let is_each_one_once = telling(image).all(|layer| seen.insert(layer.diff_id()));
    has_lower
        && is_each_one_once
        && image.layers().iter().all(Layer::is_for_overlay)
        && above.iter().all(|it| !it.has_implicit())
        && (0..image.layers().len()).all(|i| removes_from_what_is_there(image.layers(), i))
}

/// The layers that say anything: builders write empty ones, and the same again and again.
fn telling(image: &Image) -> impl DoubleEndedIterator<Item = &Layer> {
    image.layers().iter().filter(|layer| !layer.is_empty())
}

fn removes_from_what_is_there(layers: &[Layer], number: usize) -> bool {
    let above = |path: &Path| path.parent().unwrap_or(Path::new("")).to_owned();
    layers[number].whiteouts().all(|path| is_merged(layers, number, &above(path)))
}

/// Whether a directory of a layer is seen together with one of a layer below it.
fn is_merged(layers: &[Layer], number: usize, dir: &Path) -> bool {
    let parts: Vec<&Path> = dir.ancestors().collect();
    if parts.iter().any(|part| layers[number].hides(part)) {
        return false;
    }
    for layer in layers[..number].iter().rev() {
        let kind = |part: &Path| fs::symlink_metadata(layer.content().join(part)).map(|about| about.is_dir());
        let found: Vec<Option<bool>> = parts.iter().map(|part| kind(part).ok()).collect();
        if found.contains(&Some(false)) {
            return false;
        }
        if found.iter().all(Option::is_some) {
            return true;
        }
        if parts.iter().any(|part| layer.hides(part)) {
            return false;
        }
    }
    false
}

fn lower(image: &Image) -> Vec<PathBuf> {
    let layers = telling(image).rev().map(Layer::content);
    image.dir().cloned().into_iter().chain(layers).collect()
}

/// The directory that says what the root is like.
fn top(image: &Image) -> PathBuf {
    let said = image.layers().iter().rev().find(|layer| !layer.is_implicit(Path::new("")));
    let said = said.or(image.layers().first()).map(Layer::content);
    image.dir().cloned().or(said).unwrap_or_else(|| "/".into())
}

fn new_dir(path: &Path) -> Result<(), ImageError> {
    DirBuilder::new().mode(0o755).create(path).map_err(ImageError::io("create", path))
}

fn like(path: &Path, other: &Path) -> Result<(), ImageError> {
    let about = fs::metadata(other).map_err(ImageError::io("look at", other))?;
    if is_root() {
        chown(path, Some(about.uid()), Some(about.gid())).map_err(ImageError::io("give away", path))?;
    }
    let mode = fs::Permissions::from_mode(about.mode() & 0o7777);
    fs::set_permissions(path, mode).map_err(ImageError::io("change", path))
}

fn copy(image: &Image, root: &Path) -> Result<(), ImageError> {
    let mut tree = Tree::new(root, if is_root() { Owner::AsSaid } else { Owner::Writer })?;
    if let Some(dir) = image.dir() {
        add(dir, &mut tree, |_| false)?;
    }
    for layer in image.layers() {
        for path in layer.whiteouts() {
            tree.remove(path)?;
        }
        for path in layer.opaques() {
            tree.clear(path)?;
        }
        add(&layer.content(), &mut tree, |path| layer.is_implicit(path))?;
    }
    tree.finish().map(|_| ())
}

/// Adds all of a directory to a tree. Of those that are implicit only what they are called is added.
fn add(from: &Path, tree: &mut Tree, is_implicit: impl Fn(&Path) -> bool) -> Result<(), ImageError> {
    let mut names: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let full = from.join(&path);
        let about = fs::symlink_metadata(&full).map_err(ImageError::io("look at", &full))?;
        let kind = about.file_type();
        let attributes = Attributes {
            mode: about.mode() & 0o7777,
            uid: about.uid(),
            gid: about.gid(),
            mtime: about.mtime(),
            xattrs: if kind.is_file() { xattrs(&full)? } else { Vec::new() },
        };
        if kind.is_dir() {
            match is_implicit(&path) {
                false => tree.dir(&path, attributes)?,
                true if path.as_os_str().is_empty() => {}
                true if tree.kind(&path)? == Some(FileType::Directory) => {}
                true => tree.implicit_dir(&path)?,
            }
            let list = || {
                fs::read_dir(&full)?
                    .map(|entry| entry.map(|entry| path.join(entry.file_name())))
                    .collect::<io::Result<_>>()
            };
            let mut inner: Vec<PathBuf> = list().map_err(ImageError::io("list", &full))?;
            todo.append(&mut inner);
            continue;
        }
        if about.nlink() > 1 {
            if let Some(first) = names.get(&(about.dev(), about.ino())) {
                tree.hard_link(&path, first)?;
                continue;
            }
            names.insert((about.dev(), about.ino()), path.clone());
        }
        if kind.is_file() {
            let mut file = File::open(&full).map_err(ImageError::io("open", &full))?;
            tree.file(&path, &attributes, &mut file)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&full).map_err(ImageError::io("read", &full))?;
            tree.symlink(&path, &attributes, target.as_os_str())?;
        } else if kind.is_fifo() {
            tree.fifo(&path, &attributes)?;
        } else if (kind.is_char_device() || kind.is_block_device())
            && !is_whiteout(FileType::from_raw_mode(about.mode()), about.rdev())
        {
            let number = (rustix::fs::major(about.rdev()), rustix::fs::minor(about.rdev()));
            tree.device(&path, &attributes, kind.is_block_device(), number)?;
        }
    }
    Ok(())
}

fn xattrs(path: &Path) -> Result<Vec<(String, Vec<u8>)>, ImageError> {
    let failed = |error: Errno| ImageError::io("read the attributes of", path)(error.into());
    let mut list = Vec::with_capacity(XATTR_BYTES_MAX);
    match llistxattr(path, rustix::buffer::spare_capacity(&mut list)) {
        Ok(_) => {}
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    }
    let names = list.split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok());
    let mut all = Vec::new();
    for name in names.filter(|name| *name == "security.capability" || name.starts_with("user.")) {
        let mut value = Vec::with_capacity(XATTR_BYTES_MAX);
        lgetxattr(path, name, rustix::buffer::spare_capacity(&mut value)).map_err(failed)?;
        all.push((name.to_owned(), value));
    }
    Ok(all)
}
