//! Writing a tree of files below one directory, and nowhere else.
//!
//! Names are walked one part after the other from a descriptor of the root, and no part is ever followed if it is a link:
//! neither what an archive says nor what another process does meanwhile leads out. Names are of parts that are neither
//! empty nor `.` nor `..`; [`clean`] makes them so, or refuses.

use crate::ImageError;
use rustix::{
    fs::{
        AtFlags, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmod, chownat,
        fchmod, fchown, fsetxattr, fstat, futimens, linkat, mkdirat, mknodat, open, openat, statat,
        symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

const STEP: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Whose everything is that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Whose it is said to be; needs root.
    AsSaid,
    /// This user's and group's, whatever is said.
    Fixed(u32, u32),
    /// The user's who writes.
    Writer,
}

/// What is said of a file beside its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The bits of its mode, without its kind.
    pub mode: u32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When it was changed, in seconds since 1970.
    pub mtime: i64,
    /// Extended attributes, by name.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// A directory that a tree is written into.
#[derive(Debug)]
pub struct Tree {
    root: Arc<OwnedFd>,
    owner: Owner,
    /// The directory that was last written in.
    last: Option<(PathBuf, Arc<OwnedFd>)>,
    /// Directories and what they shall be in the end: until then they must be writable.
    dirs: BTreeMap<PathBuf, Attributes>,
    /// Directories that nobody named, made because something lies in them.
    implicit: BTreeSet<PathBuf>,
}

impl Tree {
    /// Writes into a directory that is there.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn new(root: &Path, owner: Owner) -> Result<Self, ImageError> {
        let root = open(root, STEP, Mode::empty())
            .map_err(|error| ImageError::io("open the directory", root)(error.into()))?;
        Ok(Self {
            root: Arc::new(root),
            owner,
            last: None,
            dirs: BTreeMap::new(),
            implicit: BTreeSet::from([PathBuf::new()]),
        })
    }

    /// Makes a directory, or gives one that is there these attributes. An empty path is the root's.
    ///
    /// # Errors
    /// The name leads through a link or a file, or the system refuses.
    pub fn dir(&mut self, path: &Path, attributes: Attributes) -> Result<(), ImageError> {
        if !path.as_os_str().is_empty() {
            let (parent, name) = self.parent(path)?;
            match kind_at(&parent, &name).map_err(|error| refused(path, error))? {
                Some(FileType::Directory) => {}
                found => {
                    if found.is_some() {
                        self.remove(path)?;
                    }
                    mkdirat(&parent, &*name, Mode::RWXU).map_err(|error| refused(path, error))?;
                }
            }
        }
        self.implicit.remove(path);
        self.dirs.insert(path.to_owned(), attributes);
        Ok(())
    }

    /// Makes a directory that nobody named.
    pub(crate) fn implicit_dir(&mut self, path: &Path) -> Result<(), ImageError> {
        self.dir(path, Attributes { mode: 0o755, ..Attributes::default() })?;
        self.implicit.insert(path.to_owned());
        Ok(())
    }

    /// Writes a file, in the place of what is there. Returns how many bytes it has.
    ///
    /// # Errors
    /// The content cannot be read, the name leads through a link or a file, or the system refuses.
    pub fn file(
        &mut self,
        path: &Path,
        attributes: &Attributes,
        content: &mut dyn Read,
    ) -> Result<u64, ImageError> {
        let (parent, name) = self.free(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&parent, &*name, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(fd.map_err(|error| refused(path, error))?);
        let bytes = copy(content, &mut file, path)?;
        if let Some((uid, gid)) = self.ids(attributes) {
            fchown(&file, Some(uid), Some(gid)).map_err(|error| refused(path, error))?;
        }
        fchmod(&file, mode(attributes)).map_err(|error| refused(path, error))?;
        for (name, value) in &attributes.xattrs {
            match fsetxattr(&file, &**name, value, XattrFlags::empty()) {
                // What a file system does not keep is not the image's fault.
                Ok(()) | Err(Errno::NOTSUP) => {}
                Err(error) => return Err(refused(path, error)),
            }
        }
        futimens(&file, &times(attributes)).map_err(|error| refused(path, error))?;
        Ok(bytes)
    }

    /// Makes a symbolic link, in the place of what is there. Where it points to is nobody's business: nothing here
    /// follows it.
    ///
    /// # Errors
    /// As [`Tree::file`].
    pub fn symlink(
        &mut self,
        path: &Path,
        attributes: &Attributes,
        target: &OsStr,
    ) -> Result<(), ImageError> {
        let (parent, name) = self.free(path)?;
        symlinkat(target, &parent, &*name).map_err(|error| refused(path, error))?;
        self.own(&parent, &name, path, attributes)?;
        utimensat(&parent, &*name, &times(attributes), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| refused(path, error))
    }

    /// Makes another name of a file that is in the tree already.
    ///
    /// # Errors
    /// As [`Tree::file`]; also when there is no such file, or it is a directory.
    pub fn hard_link(&mut self, path: &Path, target: &Path) -> Result<(), ImageError> {
        let wrong = |why: &str| entry(path, format!("is a hard link to {:?}, {why}", target.display()));
        if path == target {
            return Err(wrong("which is itself"));
        }
        let (from, old) = self.existing_parent(target)?.ok_or_else(|| wrong("which is not there"))?;
        match kind_at(&from, &old).map_err(|error| refused(target, error))? {
            None => return Err(wrong("which is not there")),
            Some(FileType::Directory) => return Err(wrong("which is a directory")),
            Some(_) => {}
        }
        let (parent, name) = self.free(path)?;
        linkat(&from, &*old, &parent, &*name, AtFlags::empty()).map_err(|error| refused(path, error))
    }

    /// Makes a named pipe, in the place of what is there.
    ///
    /// # Errors
    /// As [`Tree::file`].
    pub fn fifo(&mut self, path: &Path, attributes: &Attributes) -> Result<(), ImageError> {
        self.node(path, attributes, FileType::Fifo, 0)
    }

    /// Makes a device, in the place of what is there. Needs root.
    ///
    /// # Errors
    /// As [`Tree::file`].
    pub fn device(
        &mut self,
        path: &Path,
        attributes: &Attributes,
        is_block: bool,
        number: (u32, u32),
    ) -> Result<(), ImageError> {
        let kind = if is_block { FileType::BlockDevice } else { FileType::CharacterDevice };
        self.node(path, attributes, kind, rustix::fs::makedev(number.0, number.1))
    }

    fn node(
        &mut self,
        path: &Path,
        attributes: &Attributes,
        kind: FileType,
        device: u64,
    ) -> Result<(), ImageError> {
        let (parent, name) = self.free(path)?;
        mknodat(&parent, &*name, kind, Mode::RUSR | Mode::WUSR, device)
            .map_err(|error| refused(path, error))?;
        self.own(&parent, &name, path, attributes)?;
        // By a descriptor of the thing itself: what has its name by now may be another, and a link.
        let opened =
            openat(&parent, &*name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        let opened = opened.map_err(|error| refused(path, error))?;
        let stat = fstat(&opened).map_err(|error| refused(path, error))?;
        if FileType::from_raw_mode(stat.st_mode) != kind {
            return Err(entry(path, "was replaced while it was made".into()));
        }
        let by_number = format!("/proc/self/fd/{}", opened.as_raw_fd());
        chmod(&*by_number, mode(attributes)).map_err(|error| refused(path, error))
    }

    /// What is at a path; of a link, that it is one.
    ///
    /// # Errors
    /// The system refuses to look.
    pub fn kind(&mut self, path: &Path) -> Result<Option<FileType>, ImageError> {
        let Some((parent, name)) = self.existing_parent(path)? else { return Ok(None) };
        kind_at(&parent, &name).map_err(|error| refused(path, error))
    }

    /// Removes what is at a path, with all that is in it. If nothing is, nothing happens.
    ///
    /// # Errors
    /// The system refuses.
    pub fn remove(&mut self, path: &Path) -> Result<(), ImageError> {
        let Some((parent, name)) = self.existing_parent(path)? else { return Ok(()) };
        self.forget(path, true);
        remove_at(&parent, &name).map_err(|error| refused(path, error))
    }

    /// Removes all that is in a directory. If there is none, nothing happens.
    ///
    /// # Errors
    /// The system refuses.
    pub fn clear(&mut self, path: &Path) -> Result<(), ImageError> {
        let Some(dir) = self.open_dir(path, OFlags::RDONLY)? else { return Ok(()) };
        let entries = Dir::read_from(&dir).map_err(|error| refused(path, error))?;
        let mut names: Vec<OsString> = Vec::new();
        for found in entries {
            let found = found.map_err(|error| refused(path, error))?;
            let name = found.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        self.forget(path, false);
        for name in names {
            remove_at(&dir, &name).map_err(|error| refused(path, error))?;
        }
        Ok(())
    }

    /// Opens a directory of the tree, if there is one.
    pub(crate) fn open_dir(&mut self, path: &Path, how: OFlags) -> Result<Option<OwnedFd>, ImageError> {
        let flags = how | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = if path.as_os_str().is_empty() {
            openat(&*self.root, ".", flags, Mode::empty())
        } else {
            let Some((parent, name)) = self.existing_parent(path)? else { return Ok(None) };
            openat(&parent, &*name, flags, Mode::empty())
        };
        match opened {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(refused(path, error)),
        }
    }

    /// Gives all directories what they shall have. Returns those that nobody named, the root by an empty path.
    ///
    /// # Errors
    /// The system refuses.
    pub fn finish(mut self) -> Result<BTreeSet<PathBuf>, ImageError> {
        // Those within come after those around them, so backwards.
        for (path, attributes) in std::mem::take(&mut self.dirs).into_iter().rev() {
            let Some(dir) = self.open_dir(&path, OFlags::RDONLY)? else { continue };
            if let Some((uid, gid)) = self.ids(&attributes) {
                fchown(&dir, Some(uid), Some(gid)).map_err(|error| refused(&path, error))?;
            }
            fchmod(&dir, mode(&attributes)).map_err(|error| refused(&path, error))?;
            futimens(&dir, &times(&attributes)).map_err(|error| refused(&path, error))?;
        }
        Ok(self.implicit)
    }

    fn own(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        path: &Path,
        attributes: &Attributes,
    ) -> Result<(), ImageError> {
        let Some((uid, gid)) = self.ids(attributes) else { return Ok(()) };
        chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| refused(path, error))
    }

    fn ids(&self, attributes: &Attributes) -> Option<(Uid, Gid)> {
        let (uid, gid) = match self.owner {
            Owner::AsSaid => (attributes.uid, attributes.gid),
            Owner::Fixed(uid, gid) => (uid, gid),
            Owner::Writer => return None,
        };
        Some((Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    /// The directory that something goes into, and its name there, which is free.
    fn free(&mut self, path: &Path) -> Result<(Arc<OwnedFd>, OsString), ImageError> {
        let (parent, name) = self.parent(path)?;
        if kind_at(&parent, &name).map_err(|error| refused(path, error))?.is_some() {
            self.forget(path, true);
            remove_at(&parent, &name).map_err(|error| refused(path, error))?;
        }
        Ok((parent, name))
    }

    /// What was known of what is at a path, and in it, is so no more.
    fn forget(&mut self, path: &Path, itself: bool) {
        let gone = |other: &PathBuf| other.starts_with(path) && (itself || other != path);
        self.last.take_if(|(last, _)| gone(last));
        let below: Vec<PathBuf> = self
            .dirs
            .range(path.to_owned()..)
            .map(|(it, _)| it)
            .take_while(|it| it.starts_with(path))
            .cloned()
            .collect();
        for path in below.iter().filter(|it| gone(it)) {
            self.dirs.remove(path);
        }
        self.implicit.retain(|it| !gone(it));
    }

    /// The directory that something goes into, made if it is not there, and its name there.
    fn parent(&mut self, path: &Path) -> Result<(Arc<OwnedFd>, OsString), ImageError> {
        match self.walk(path, true)? {
            Some(found) => Ok(found),
            None => Err(entry(path, "has no directory to lie in".into())),
        }
    }

    fn existing_parent(&mut self, path: &Path) -> Result<Option<(Arc<OwnedFd>, OsString)>, ImageError> {
        self.walk(path, false)
    }

    fn walk(&mut self, path: &Path, make: bool) -> Result<Option<(Arc<OwnedFd>, OsString)>, ImageError> {
        let name = path.file_name().ok_or_else(|| entry(path, "has no name".into()))?.to_owned();
        let above = path.parent().unwrap_or(Path::new(""));
        if let Some((last, fd)) = &self.last
            && last == above
        {
            return Ok(Some((fd.clone(), name)));
        }
        let mut at = self.root.clone();
        let mut so_far = PathBuf::new();
        for part in above.iter() {
            so_far.push(part);
            let next = match openat(&at, part, STEP, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::NOENT) if make => {
                    mkdirat(&at, part, Mode::RWXU).map_err(|error| refused(&so_far, error))?;
                    let attributes = Attributes { mode: 0o755, ..Attributes::default() };
                    self.dirs.insert(so_far.clone(), attributes);
                    self.implicit.insert(so_far.clone());
                    openat(&at, part, STEP, Mode::empty()).map_err(|error| refused(&so_far, error))?
                }
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::NOTDIR | Errno::LOOP) if !make => return Ok(None),
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let why = format!("goes through {:?}, which is a link or a file", so_far.display());
                    return Err(entry(path, why));
                }
                Err(error) => return Err(refused(path, error)),
            };
            at = Arc::new(next);
        }
        self.last = Some((above.to_owned(), at.clone()));
        Ok(Some((at, name)))
    }
}

fn kind_at(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<Option<FileType>> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove_at(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {
            let path = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name);
            std::fs::remove_dir_all(path)
        }
        Err(error) => Err(error.into()),
    }
}

fn copy(from: &mut dyn Read, to: &mut File, path: &Path) -> Result<u64, ImageError> {
    let mut buffer = vec![0; 64 << 10];
    let mut bytes = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ImageError::read(&path.display().to_string(), error)),
        };
        to.write_all(&buffer[..read]).map_err(|error| refused(path, error))?;
        bytes += read as u64;
    }
}

fn mode(attributes: &Attributes) -> Mode {
    Mode::from_raw_mode(attributes.mode & 0o7777)
}

fn times(attributes: &Attributes) -> Timestamps {
    let time = Timespec { tv_sec: attributes.mtime, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

fn refused(path: &Path, error: impl Into<io::Error>) -> ImageError {
    ImageError::io("write", path)(error.into())
}

pub(crate) fn entry(path: &Path, why: String) -> ImageError {
    ImageError::Entry { entry: path.display().to_string(), why }
}

/// The name of an archive's entry as a path below a root: without `.` and doubled slashes. Empty if it is the root.
///
/// # Errors
/// It is absolute, has `..`, a NUL, or is longer or deeper than it may be.
pub(crate) fn clean(name: &[u8], limits: &crate::Limits) -> Result<PathBuf, ImageError> {
    let shown = || String::from_utf8_lossy(&name[..name.len().min(128)]).into_owned();
    let wrong = |why: String| Err(ImageError::Entry { entry: shown(), why });
    if name.len() > limits.path_bytes_max {
        return wrong(format!("has a name of more than {} bytes (path_bytes_max)", limits.path_bytes_max));
    }
    if name.first() == Some(&b'/') {
        return wrong("has an absolute name".into());
    }
    if name.contains(&0) {
        return wrong("has a NUL in its name".into());
    }
    let mut path = PathBuf::new();
    let mut depth = 0;
    for part in name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")) {
        if part == b".." {
            return wrong("has .. in its name".into());
        }
        depth += 1;
        if depth > limits.depth_max {
            return wrong(format!("lies more than {} directories deep (depth_max)", limits.depth_max));
        }
        path.push(OsStr::from_bytes(part));
    }
    Ok(path)
}
