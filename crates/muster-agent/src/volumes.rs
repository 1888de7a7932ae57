//! Persistent volumes: a directory of each below the work directory, and links to them in sandboxes.
//!
//! A directory goes by its volume's number, which no other volume ever has. It is made when the first task uses it, and
//! goes when the registry knows the volume no more.

use muster_model::{VolumeMount, VolumeNumber};
use rustix::fs::{AtFlags, Mode, OFlags};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    io::{self, ErrorKind},
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, MetadataExt, chown},
        },
    },
    path::{Path, PathBuf},
};
use tracing::warn;

/// The incarnation stands in a number above these bits.
const COUNT_BITS: u32 = 40;
/// What is about to be removed has this before its number.
const GONE: &str = "gone-";

/// Makes volumes visible in a sandbox that is there. They belong to whom the sandbox belongs to. One of a task that is
/// over makes way; those `used` do not.
pub(crate) fn mount(
    root: &Path,
    sandbox: &Path,
    mounts: &[VolumeMount],
    used: &BTreeSet<VolumeNumber>,
) -> Result<(), String> {
    let stays = |number| used.contains(&number) || mounts.iter().any(|mount| mount.number == number);
    // A volume of a task that is over.
    let makes_way = |there: &OsStr| {
        let number = Path::new(there).strip_prefix(root).ok().and_then(|it| it.to_str()?.parse().ok());
        number.is_some_and(|number| !stays(VolumeNumber(number)))
    };
    for mount in mounts {
        let to = root.join(mount.number.to_string());
        let done = make(&to, sandbox).and_then(|()| link(sandbox, &mount.container_path, &to, &makes_way));
        done.map_err(|error| format!("Failed to mount a volume at '{}': {error}", mount.container_path))?;
    }
    Ok(())
}

/// A volume's directory, of the sandbox' owner.
fn make(path: &Path, sandbox: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    let (is, wanted) = (fs::metadata(path)?, fs::metadata(sandbox)?);
    match (is.uid(), is.gid()) == (wanted.uid(), wanted.gid()) {
        true => Ok(()),
        false => chown(path, Some(wanted.uid()), Some(wanted.gid())),
    }
}

/// Links a path below the sandbox to a directory. What is there of the path must be directories: a link that a task made
/// leads nowhere else.
fn link(sandbox: &Path, at: &str, to: &Path, makes_way: &dyn Fn(&OsStr) -> bool) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir: OwnedFd = rustix::fs::open(sandbox, flags, Mode::empty())?;
    let (above, name) = at.rsplit_once('/').unwrap_or(("", at));
    for part in above.split('/').filter(|part| !part.is_empty()) {
        match rustix::fs::mkdirat(&dir, part, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                let owner = fs::metadata(sandbox)?;
                let (uid, gid) =
                    (rustix::fs::Uid::from_raw(owner.uid()), rustix::fs::Gid::from_raw(owner.gid()));
                rustix::fs::chownat(&dir, part, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        dir = rustix::fs::openat(&dir, part, flags, Mode::empty())?;
    }
    match rustix::fs::symlinkat(to, &dir, name) {
        Err(rustix::io::Errno::EXIST) => {
            let there = rustix::fs::readlinkat(&dir, name, Vec::new())?;
            let there = OsStr::from_bytes(there.as_bytes());
            if there == to.as_os_str() {
                return Ok(());
            }
            if !makes_way(there) {
                return Err(io::Error::new(ErrorKind::AlreadyExists, "something else is there"));
            }
            rustix::fs::unlinkat(&dir, name, AtFlags::empty())?;
            Ok(rustix::fs::symlinkat(to, &dir, name)?)
        }
        done => Ok(done?),
    }
}

/// Sets aside the directories of volumes of an incarnation that are not among those to keep, and returns all that are
/// set aside: to be removed in peace. Those of former incarnations stay: after a recovery from a backup the registry
/// need not know them.
pub(crate) fn set_aside(root: &Path, incarnation: u32, keep: &BTreeSet<VolumeNumber>) -> Vec<PathBuf> {
    let mut gone = Vec::new();
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with(GONE) {
            gone.push(entry.path());
            continue;
        }
        let Ok(number) = name.parse::<u64>() else { continue };
        if number >> COUNT_BITS != u64::from(incarnation) || keep.contains(&VolumeNumber(number)) {
            continue;
        }
        let aside = root.join(format!("{GONE}{number}"));
        match fs::rename(entry.path(), &aside) {
            Ok(()) => gone.push(aside),
            Err(error) => warn!(number, %error, "cannot set a volume aside"),
        }
    }
    gone
}

/// Removes what was set aside.
pub(crate) fn remove(paths: &[PathBuf]) {
    for path in paths {
        if let Err(error) = fs::remove_dir_all(path)
            && error.kind() != ErrorKind::NotFound
        {
            warn!(path = %path.display(), %error, "cannot remove a volume");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64, path: &str) -> VolumeMount {
        VolumeMount {
            number: VolumeNumber(number),
            container_path: path.into(),
            read_only: false,
            executor: false,
        }
    }

    #[test]
    fn what_one_task_writes_the_next_one_reads() {
        let dir = tempfile::tempdir().unwrap();
        let (root, one, two) = (dir.path().join("volumes"), dir.path().join("one"), dir.path().join("two"));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&two).unwrap();
        mount(&root, &one, &[at(7, "data"), at(8, "deep/er/data")], &BTreeSet::new()).unwrap();
        fs::write(one.join("data/file"), "kept").unwrap();
        fs::remove_dir_all(&one).unwrap();
        mount(&root, &two, &[at(7, "elsewhere")], &BTreeSet::new()).unwrap();
        mount(&root, &two, &[at(7, "elsewhere")], &BTreeSet::new()).unwrap(); // again changes nothing
        assert_eq!(fs::read_to_string(two.join("elsewhere/file")).unwrap(), "kept");
        let used = BTreeSet::from([VolumeNumber(7)]);
        let why = mount(&root, &two, &[at(8, "elsewhere")], &used).unwrap_err();
        assert!(why.contains("something else is there"), "{why}");
        // Both at one place is no order of tasks that follow each other.
        mount(&root, &two, &[at(7, "elsewhere"), at(8, "elsewhere")], &BTreeSet::new()).unwrap_err();
    }

    #[test]
    fn a_volume_of_a_task_that_is_over_makes_way() {
        let dir = tempfile::tempdir().unwrap();
        let (root, sandbox) = (dir.path().join("volumes"), dir.path().join("sandbox"));
        fs::create_dir(&sandbox).unwrap();
        mount(&root, &sandbox, &[at(7, "data")], &BTreeSet::new()).unwrap();
        fs::write(sandbox.join("data/file"), "kept").unwrap();
        mount(&root, &sandbox, &[at(8, "data")], &BTreeSet::new()).unwrap();
        assert!(!sandbox.join("data/file").exists());
        assert_eq!(fs::read_to_string(root.join("7/file")).unwrap(), "kept");
        // What a task put there is nobody's to remove.
        fs::write(sandbox.join("own"), "").unwrap();
        mount(&root, &sandbox, &[at(8, "own")], &BTreeSet::new()).unwrap_err();
    }

    #[test]
    fn a_link_of_a_task_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (root, sandbox, other) =
            (dir.path().join("volumes"), dir.path().join("sandbox"), dir.path().join("other"));
        fs::create_dir(&sandbox).unwrap();
        fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&other, sandbox.join("out")).unwrap();
        mount(&root, &sandbox, &[at(7, "out/data")], &BTreeSet::new()).unwrap_err();
        assert!(!other.join("data").exists());
    }

    #[test]
    fn only_what_this_incarnation_knows_no_more_goes() {
        let dir = tempfile::tempdir().unwrap();
        let number = |incarnation: u64, n: u64| incarnation << COUNT_BITS | n;
        let all = [number(1, 5), number(2, 6), number(2, 7)];
        for it in all {
            fs::create_dir(dir.path().join(it.to_string())).unwrap();
        }
        fs::create_dir(dir.path().join("gone-9")).unwrap();
        fs::create_dir(dir.path().join("something")).unwrap();
        let gone = set_aside(dir.path(), 2, &BTreeSet::from([VolumeNumber(all[1])]));
        assert_eq!(gone.len(), 2, "{gone:?}");
        remove(&gone);
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut kept = vec![all[0].to_string(), all[1].to_string(), "something".into()];
        kept.sort();
        assert_eq!(left, kept);
    }
}
