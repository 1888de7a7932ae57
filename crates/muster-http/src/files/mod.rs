//! Files that are shown over HTTP: sandboxes and logs. Only what is exposed, and never more of it than was asked for.
//!
//! A path is first looked up among what is exposed; what is left of it is resolved by the kernel below that place
//! (`openat2`, `RESOLVE_BENEATH`), so that neither `..` nor a link that points elsewhere leads out, also while a task
//! changes its sandbox. A kernel that cannot do that follows no links there.
//!
//! # Laws
//! - Whatever a path says, what is opened lies below an exposed place.
//! - Only regular files are read, and none that would block.
//! - What is read at once and listed at once is bounded.

mod below;
mod info;
mod serve;

pub use info::mode_text;
pub use serve::{PATHS, What, answer};

use below::open_below;
use http::{HeaderName, HeaderValue};
use muster_proto::mesos;
use rustix::{
    fs::{AtFlags, Mode, OFlags, StatxFlags, fstat, statx},
    io::{Errno, pread},
};
use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::task::spawn_blocking;

/// The most that is read at once, in pages of the machine (Mesos).
const PAGES_MAX: usize = 16;
/// The most entries of a directory that are listed; of a larger one nothing is.
const LISTED_MAX: usize = 50_000;

/// Where an exposed path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Into a directory.
    Dir {
        /// A directory that is trusted.
        within: PathBuf,
        /// The exposed one below it: names with slashes between, none of which may be a link.
        root: String,
        /// What is left of the path.
        rest: String,
    },
    /// To a file.
    File(PathBuf),
}

/// Says what is exposed.
pub trait Exposes: Send + Sync + 'static {
    /// Where a path without slashes at its end leads; none if it is not exposed.
    fn find(&self, path: &str) -> Option<Place>;
    /// Entries of an exposed directory that lead elsewhere, whatever is there on the disk: by name, and where.
    fn entries(&self, path: &str) -> Vec<(String, Place)> {
        let _ = path;
        Vec::new()
    }
    /// All that is exposed: by which path, and where it really is.
    fn all(&self) -> Vec<(String, PathBuf)>;
}

/// A log that a process writes, under the name by which tools ask for it.
#[derive(Debug, Clone)]
pub struct Log {
    /// The exposed path.
    pub name: &'static str,
    /// Where it really is; none if the process writes none.
    pub path: Option<PathBuf>,
}

impl Exposes for Log {
    fn find(&self, path: &str) -> Option<Place> {
        self.path.clone().filter(|_| path == self.name).map(Place::File)
    }
    fn all(&self) -> Vec<(String, PathBuf)> {
        self.path.iter().map(|path| (self.name.to_owned(), path.clone())).collect()
    }
}

/// The file that this process logs to, if its standard error is one.
pub fn own_log() -> Option<PathBuf> {
    let path = std::fs::read_link("/proc/self/fd/2").ok()?;
    std::fs::metadata(&path).is_ok_and(|it| it.is_file()).then_some(path)
}

/// Why nothing is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It is not there, or not exposed.
    NotFound,
    /// It cannot be shown; this says why.
    Invalid(String),
    /// The operating system refused.
    Failed(String),
}

/// What is read of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// How long the whole file is, in bytes.
    pub size: u64,
    /// Where `data` begins.
    pub offset: u64,
    /// The bytes.
    pub data: Vec<u8>,
    /// Which file it is: the same when it has another name, another one when another file took its name. It is told as
    /// [`FILE_HEADER`], so that who follows a file finds it again.
    pub file: String,
}

/// The header that says which file was read.
pub const FILE_HEADER: HeaderName = HeaderName::from_static("muster-file");

impl Part {
    /// The value of [`FILE_HEADER`].
    pub fn file_header(&self) -> HeaderValue {
        HeaderValue::try_from(&self.file).unwrap_or(HeaderValue::from_static("")) // it is digits
    }
}

/// What is exposed, and the ways to look at it.
#[derive(Clone)]
pub struct Files(Arc<dyn Exposes>);

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Files")
    }
}

impl Files {
    /// Shows this and nothing else.
    pub fn new(exposes: impl Exposes) -> Self {
        Self(Arc::new(exposes))
    }

    /// The entries of a directory, by path; of what is no directory there are none, as in Mesos.
    ///
    /// # Errors
    /// It is not shown.
    pub async fn list(&self, path: String) -> Result<Vec<mesos::FileInfo>, Refused> {
        self.blocking(move |exposes| {
            let fd = open(exposes, &path)?;
            match is_dir(&fd)? {
                true => {
                    let path = path.trim_end_matches('/');
                    let entries = exposes.entries(path).into_iter();
                    // What is not there yet is not listed.
                    let opened = entries.filter_map(|(name, place)| Some((name, open_place(&place).ok()?)));
                    info::list(&fd, path, opened)
                }
                false => Ok(Vec::new()),
            }
        })
        .await
    }

    /// A part of a file. Without an offset only its size is told; without a length as much as may be.
    ///
    /// # Errors
    /// It is not shown.
    pub async fn read(
        &self,
        path: String,
        offset: Option<u64>,
        length: Option<u64>,
    ) -> Result<Part, Refused> {
        self.blocking(move |exposes| {
            let (fd, size) = open_file(exposes, &path, "Cannot read a directory.\n")?;
            let offset = offset.unwrap_or(size).min(size);
            let most = PAGES_MAX * rustix::param::page_size();
            let length = length.map_or(most, |length| usize::try_from(length).unwrap_or(most).min(most));
            let length = usize::try_from(size - offset).unwrap_or(length).min(length);
            let data = read_at(&fd, offset, length)
                .map_err(|error| Refused::Failed(format!("Failed to read '{path}': {error}.\n")))?;
            Ok(Part { size, offset, data, file: identity(&fd) })
        })
        .await
    }

    /// Opens a file to read the whole of it: also its size as it is now, and its name.
    ///
    /// # Errors
    /// It is not shown.
    pub async fn open(&self, path: String) -> Result<(File, u64, String), Refused> {
        self.blocking(move |exposes| {
            let (fd, size) = open_file(exposes, &path, "Cannot download a directory.\n")?;
            let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
            Ok((File::from(fd), size, name))
        })
        .await
    }

    async fn all(&self) -> Result<Vec<(String, PathBuf)>, Refused> {
        self.blocking(|exposes| Ok(exposes.all())).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Exposes) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        let exposes = self.0.clone();
        let done = spawn_blocking(move || work(&*exposes)).await;
        done.unwrap_or_else(|error| Err(Refused::Failed(format!("The files cannot be read: {error}.\n"))))
    }
}

/// How what is shown is opened: a pipe or a terminal must not hold the reader.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

fn open(exposes: &dyn Exposes, path: &str) -> Result<OwnedFd, Refused> {
    let refused = |errno: Errno| match errno {
        Errno::NOENT | Errno::NOTDIR => Refused::NotFound,
        // It leads out, by `..` or by a link, or in a circle.
        Errno::XDEV | Errno::LOOP => Refused::Invalid(format!("'{path}' is inaccessible.\n")),
        Errno::NAMETOOLONG | Errno::INVAL => Refused::Invalid(format!("'{path}' is no path.\n")),
        Errno::NXIO | Errno::NODEV => Refused::Invalid(format!("'{path}' is no file.\n")),
        other => Refused::Failed(format!("Failed to open '{path}': {other}.\n")),
    };
    let place = exposes.find(path.trim_end_matches('/')).ok_or(Refused::NotFound)?;
    open_place(&place).map_err(refused)
}

fn open_place(place: &Place) -> rustix::io::Result<OwnedFd> {
    match place {
        Place::File(real) => rustix::fs::open(real, READ, Mode::empty()),
        Place::Dir { within, root, rest } => open_below(within, root, rest, READ),
    }
}

fn is_dir(fd: &OwnedFd) -> Result<bool, Refused> {
    let stat =
        fstat(fd).map_err(|error| Refused::Failed(format!("Failed to look at the file: {error}.\n")))?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}

/// A regular file, and its size.
fn open_file(exposes: &dyn Exposes, path: &str, directory: &str) -> Result<(OwnedFd, u64), Refused> {
    let fd = open(exposes, path)?;
    let stat =
        fstat(&fd).map_err(|error| Refused::Failed(format!("Failed to look at '{path}': {error}.\n")))?;
    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    if kind.is_dir() {
        return Err(Refused::Invalid(directory.into()));
    }
    if !kind.is_file() {
        return Err(Refused::Invalid(format!("'{path}' is no file.\n")));
    }
    Ok((fd, u64::try_from(stat.st_size).unwrap_or(0)))
}

/// What tells a file from all others: also from one that has its number after it, where the file system knows when files
/// were made.
fn identity(fd: &OwnedFd) -> String {
    match statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::BTIME) {
        Ok(it) => {
            let made = it.stx_btime;
            let device = (it.stx_dev_major, it.stx_dev_minor);
            format!("{:x}.{:x}-{:x}-{:x}.{:x}", device.0, device.1, it.stx_ino, made.tv_sec, made.tv_nsec)
        }
        Err(_) => fstat(fd).map(|it| format!("{:x}-{:x}", it.st_dev, it.st_ino)).unwrap_or_default(),
    }
}

fn read_at(fd: &OwnedFd, mut offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let (mut data, mut read) = (vec![0; length], 0);
    while let Some(left) = data.get_mut(read..).filter(|left| !left.is_empty()) {
        match pread(fd, left, offset) {
            Ok(0) => break, // it became shorter
            Ok(n) => (read, offset) = (read + n, offset + n as u64),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    data.truncate(read);
    Ok(data)
}

/// Whether this is one name of a directory's entry.
pub fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

/// What is left of a path below a directory, without the slash between; none if it lies elsewhere.
pub fn below<'a>(path: &'a str, directory: &Path) -> Option<&'a str> {
    path.strip_prefix(directory.to_str()?)?.strip_prefix('/')
}

#[cfg(test)]
mod tests;
