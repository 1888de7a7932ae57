//! What is told of a file, and of the entries of a directory.

use super::{LISTED_MAX, Refused, below::open_in};
use muster_proto::mesos;
use rustix::fs::{AtFlags, Dir, FileType, OFlags, Stat, fstat, statat};
use std::{collections::BTreeMap, fs, os::fd::OwnedFd};

/// The entries of a directory, by name. A link is told as what it points to, if that lies below here. Those that lead
/// `elsewhere` stand in the place of what is there under their names.
pub(super) fn list(
    directory: &OwnedFd,
    path: &str,
    elsewhere: impl Iterator<Item = (String, OwnedFd)>,
) -> Result<Vec<mesos::FileInfo>, Refused> {
    let failed = |error: rustix::io::Errno| Refused::Failed(format!("Failed to list '{path}': {error}.\n"));
    let mut files = BTreeMap::new();
    let (users, groups) = (Names::read("/etc/passwd"), Names::read("/etc/group"));
    for entry in Dir::read_from(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // A name that is no text cannot be asked for.
        let Ok(name) = entry.file_name().to_str() else { continue };
        if matches!(name, "." | "..") {
            continue;
        }
        if files.len() >= LISTED_MAX {
            return Err(Refused::Invalid(format!("'{path}' has more than {LISTED_MAX} entries.\n")));
        }
        // What is gone meanwhile is not listed.
        let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let stat = if FileType::from_raw_mode(stat.st_mode).is_symlink() {
            let target = open_in(directory, name, OFlags::PATH | OFlags::CLOEXEC);
            target.and_then(fstat).unwrap_or(stat)
        } else {
            stat
        };
        files.insert(name.to_owned(), info(format!("{path}/{name}"), &stat, &users, &groups));
    }
    for (name, entry) in elsewhere {
        if let Ok(stat) = fstat(&entry) {
            files.insert(name.clone(), info(format!("{path}/{name}"), &stat, &users, &groups));
        }
    }
    Ok(files.into_values().collect())
}

#[allow(clippy::unnecessary_cast)] // the fields differ in width between machines
fn info(path: String, stat: &Stat, users: &Names, groups: &Names) -> mesos::FileInfo {
    let nanoseconds = (stat.st_mtime as i64).saturating_mul(1_000_000_000);
    mesos::FileInfo {
        path,
        nlink: i32::try_from(stat.st_nlink).ok(),
        size: u64::try_from(stat.st_size).ok(),
        mtime: Some(mesos::TimeInfo { nanoseconds }),
        mode: Some(stat.st_mode as u32),
        uid: Some(users.of(stat.st_uid)),
        gid: Some(groups.of(stat.st_gid)),
    }
}

/// The names of users or groups by number.
struct Names(BTreeMap<u32, String>);

impl Names {
    fn read(file: &str) -> Self {
        let text = fs::read_to_string(file).unwrap_or_default();
        let named = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some((fields.nth(1)?.parse().ok()?, name))
        };
        // The first name of a number counts.
        Self(text.lines().rev().filter_map(named).collect())
    }

    fn of(&self, number: u32) -> String {
        self.0.get(&number).cloned().unwrap_or_else(|| number.to_string())
    }
}

/// A mode as `ls` writes it.
pub fn mode_text(mode: u32) -> String {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::RegularFile | FileType::Unknown => '-',
    };
    let bits = (0..9).map(|bit| match (mode & (0o400 >> bit) != 0, bit % 3) {
        (false, _) => '-',
        (true, 0) => 'r',
        (true, 1) => 'w',
        (true, _) => 'x',
    });
    std::iter::once(kind).chain(bits).collect()
}
