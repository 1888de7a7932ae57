//! Into the sandbox: files, and what archives have in them.

use super::{
    cache::Entry,
    stream::{Mark, Opened, Told, Watched, open_as},
    uri::Wanted,
};
use muster_image::{Attributes, ImageError, Limits, Owner, Rules, Tree, decoded, tar, zip};
use muster_proto::mesos::command_info;
use std::{
    fs,
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, chown},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// User and group, if not the agent's.
pub(crate) type User = Option<(u32, u32)>;

/// What is unpacked by the ends of its name, as in Mesos; and tar archives that are packed with zstd.
const TARS: [&str; 9] =
    [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst"];

/// What is in a file that is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tar,
    Zip,
    /// One file alone, which has the same name but for the end.
    Gzip,
}

fn kind(name: &Path) -> Option<Kind> {
    let name = name.to_string_lossy();
    let ends = |end: &str| name.len() > end.len() && name.ends_with(end);
    match () {
        () if TARS.iter().any(|end| ends(end)) => Some(Kind::Tar),
        () if ends(".zip") => Some(Kind::Zip),
        () if ends(".gz") => Some(Kind::Gzip),
        () => None,
    }
}

/// Makes a sandbox of this user's.
pub(crate) fn make(sandbox: &Path, user: User) -> io::Result<()> {
    if let Some(parent) = sandbox.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::DirBuilder::new().recursive(true).mode(0o755).create(sandbox)?;
    match user {
        Some((uid, gid)) => chown(sandbox, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

/// Where something goes, and what becomes of it there.
#[derive(Debug)]
pub(super) struct Place {
    sandbox: PathBuf,
    name: PathBuf,
    user: User,
    is_executable: bool,
    kind: Option<Kind>,
    limits: Limits,
}

impl Place {
    pub(super) fn new(
        uri: &command_info::Uri,
        wanted: &Wanted,
        sandbox: &Path,
        user: User,
        unpacked_bytes_max: u64,
    ) -> Self {
        // What can be run is no archive, as in Mesos.
        let unpacks = uri.extract() && !uri.executable();
        Self {
            sandbox: sandbox.to_owned(),
            name: wanted.name.clone(),
            user,
            is_executable: uri.executable(),
            kind: kind(&wanted.name).filter(|_| unpacks),
            limits: Limits { unpacked_bytes_max, ..Limits::default() },
        }
    }

    /// Writes it, and unpacks it beside.
    pub(super) fn straight(&self, mut opened: Opened, mark: &Mark) -> Result<(), String> {
        self.file(&self.name, opened.mode, &mut opened.read)?;
        let Some(kind) = self.kind else { return Ok(()) };
        // As the user: what has its name by now may be another.
        let archive = open_as(&self.sandbox.join(&self.name), self.user)?;
        self.unpack(kind, Watched::new(archive, mark.clone()))
    }

    /// What is unpacked is not copied, as in Mesos.
    pub(super) fn cached(&self, entry: &Entry, mark: &Mark) -> Result<(), String> {
        let file = entry.file().map_err(|error| format!("it cannot be read from the cache: {error}"))?;
        let mut file = Watched::new(file, mark.clone());
        match self.kind {
            Some(kind) => self.unpack(kind, file),
            None => self.file(&self.name, entry.mode(), &mut file),
        }
    }

    fn tree(&self) -> Result<Tree, String> {
        let owner = self.user.map_or(Owner::Writer, |(uid, gid)| Owner::Fixed(uid, gid));
        Tree::new(&self.sandbox, owner).map_err(told)
    }

    fn file(&self, name: &Path, mode: u32, read: &mut dyn Read) -> Result<(), String> {
        let mut tree = self.tree()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let attributes = Attributes {
            mode: if self.is_executable { 0o755 } else { mode },
            mtime: i64::try_from(now).unwrap_or(0),
            ..Attributes::default()
        };
        if let Err(error) = tree.file(name, &attributes, read) {
            let _ = tree.remove(name); // a part of it is of no use
            return Err(told(error));
        }
        tree.finish().map(drop).map_err(told)
    }

    fn unpack(&self, kind: Kind, archive: Watched) -> Result<(), String> {
        let unpacked = match kind {
            Kind::Tar => {
                let mut tree = self.tree()?;
                let stream = decoded(archive, &self.limits).map_err(told)?;
                tar(stream, &mut tree, &Rules::archive(self.limits)).and_then(|_| tree.finish())
            }
            Kind::Zip => {
                let mut tree = self.tree()?;
                zip(archive, &mut tree, &Rules::archive(self.limits)).and_then(|_| tree.finish())
            }
            Kind::Gzip => {
                let stream = decoded(archive, &self.limits).map_err(told)?;
                let most = self.limits.unpacked_bytes_max;
                let mut stream = Bounded { inner: stream, left: most, most };
                return self.file(&self.name.with_extension(""), super::MODE, &mut stream);
            }
        };
        unpacked.map(drop).map_err(told)
    }
}

/// What went wrong, with our own name of a limit.
fn told(error: ImageError) -> String {
    match error {
        ImageError::TooMuch { what, most, key: "unpacked_bytes_max" } => {
            format!("{what} more than {most}, the limit of this agent (fetch-unpacked-mb-max)")
        }
        ImageError::Read { source, .. } if source.get_ref().is_some_and(|it| it.is::<Told>()) => {
            source.to_string()
        }
        other => other.told(),
    }
}

/// Reads no more than may be unpacked.
struct Bounded<R> {
    inner: R,
    left: u64,
    most: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => {
                let most = self.most >> 20;
                let why = format!(
                    "it unpacks to more than {most} MB, the limit of this agent (fetch-unpacked-mb-max)"
                );
                return Err(Told(why).into());
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unpacked_is_told_by_its_name() {
        for (name, expected) in [
            ("a.tar", Some(Kind::Tar)),
            ("d/a.tar.gz", Some(Kind::Tar)),
            ("a.txz", Some(Kind::Tar)),
            ("a.zip", Some(Kind::Zip)),
            ("a.txt.gz", Some(Kind::Gzip)),
            (".gz", None),
            ("a.jar", None),
        ] {
            assert_eq!(kind(Path::new(name)), expected, "{name}");
        }
    }
}
