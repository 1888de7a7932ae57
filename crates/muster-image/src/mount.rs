//! Mounts as values: what is to be mounted is decided and recorded by one, and performed by whoever has the mount
//! namespace.

use crate::ImageError;
use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_remount, unmount},
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::CString,
    fs,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// What a file system is told has to fit a page.
const OPTIONS_BYTES_MAX: usize = 4_095;

/// One mount. Its target is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mount {
    /// Directories seen one through the other.
    Overlay {
        /// What is not written to, the topmost first.
        lower: Vec<PathBuf>,
        /// Where what is written goes.
        upper: PathBuf,
        /// What the overlay needs beside it, on the same file system.
        work: PathBuf,
        /// Where it is seen.
        target: PathBuf,
    },
    /// A file or directory seen at another place, too.
    Bind {
        /// What is seen.
        source: PathBuf,
        /// Where.
        target: PathBuf,
        /// Whether it can only be read there.
        read_only: bool,
        /// Whether what is mounted in it is seen, too.
        recursive: bool,
    },
}

impl Mount {
    /// Where it is seen.
    pub fn target(&self) -> &Path {
        match self {
            Self::Overlay { target, .. } | Self::Bind { target, .. } => target,
        }
    }

    /// Mounts it, in the mount namespace of the calling thread.
    ///
    /// # Errors
    /// The system refuses.
    pub fn perform(&self) -> Result<(), ImageError> {
        let done = match self {
            Self::Overlay { lower, upper, work, target } => overlay(lower, upper, work, target),
            Self::Bind { source, target, read_only, recursive } => {
                let bound = match recursive {
                    true => mount_bind_recursive(&**source, &**target),
                    false => mount_bind(&**source, &**target),
                };
                bound.and_then(|()| match read_only {
                    true => mount_remount(&**target, MountFlags::BIND | MountFlags::RDONLY, c"").inspect_err(
                        |_| {
                            let _ = unmount(&**target, UnmountFlags::DETACH);
                        },
                    ),
                    false => Ok(()),
                })
            }
        };
        done.map_err(|error| ImageError::io("mount", self.target())(error.into()))
    }

    /// Takes it away again. If it is not there, nothing happens.
    ///
    /// # Errors
    /// The system refuses.
    pub fn undo(&self) -> Result<(), ImageError> {
        match unmount(self.target(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
            Err(error) => Err(ImageError::io("unmount", self.target())(error.into())),
        }
    }
}

fn overlay(lower: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> rustix::io::Result<()> {
    let plain = |path: &Path| path.as_os_str().as_bytes().to_owned();
    let all = || lower.iter().map(|path| &**path).chain([upper, work]);
    let is_plain =
        all().all(|path| !plain(path).iter().any(|byte| matches!(byte, b':' | b',' | b'\\' | b'"')));
    let options = |name: &dyn Fn(&Path) -> rustix::io::Result<Vec<u8>>| {
        let mut text = b"lowerdir=".to_vec();
        for (i, path) in lower.iter().enumerate() {
            text.extend_from_slice(if i == 0 { b"" } else { b":" });
            text.extend(name(path)?);
        }
        for (key, path) in [(&b",upperdir="[..], upper), (b",workdir=", work)] {
            text.extend_from_slice(key);
            text.extend(name(path)?);
        }
        Ok::<_, Errno>(text)
    };
    let mut held: Vec<OwnedFd> = Vec::new();
    let mut text = options(&|path| Ok(plain(path)))?;
    if !is_plain || text.len() > OPTIONS_BYTES_MAX {
        // By number: short, and without what has a meaning in options.
        for path in all() {
            held.push(open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?);
        }
        let numbered = std::cell::Cell::new(0);
        text = options(&|_| {
            let number = held[numbered.replace(numbered.get() + 1)].as_raw_fd();
            Ok(format!("/proc/self/fd/{number}").into_bytes())
        })?;
    }
    let text = CString::new(text).map_err(|_| Errno::INVAL)?;
    mount("overlay", target, "overlay", MountFlags::empty(), &*text)
}

/// Whether overlays can be made below a directory; else why not. Mounts one for a moment, in the mount namespace of the
/// calling thread.
///
/// # Errors
/// They cannot; the error says why, and that images are copied instead.
pub fn probe_overlay(dir: &Path) -> Result<(), ImageError> {
    let place = dir.join("overlay-probe");
    let made = |name: &str| {
        let path = place.join(name);
        fs::create_dir_all(&path).map_err(ImageError::io("create", &path)).map(|()| path)
    };
    let tried = (|| {
        let mount = Mount::Overlay {
            lower: vec![made("lower")?],
            upper: made("upper")?,
            work: made("work")?,
            target: made("root")?,
        };
        mount.undo()?; // of one who was killed between
        mount.perform()?;
        mount.undo()
    })();
    let _ = fs::remove_dir_all(&place);
    tried
}
