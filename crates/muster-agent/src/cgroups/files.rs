//! The files of a group.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Writes a value to a file that must be there. The error names both.
pub(super) fn write(dir: &Path, name: &str, value: &str) -> io::Result<()> {
    let path = dir.join(name);
    // A value is taken whole, by one write.
    let written = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&path)
        .and_then(|mut it| it.write_all(value.as_bytes()));
    written.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot write {value:?} to {}: {error}", path.display()))
    })
}

/// Whether there is such a file.
pub(super) fn has(dir: &Path, name: &str) -> bool {
    dir.join(name).exists()
}

/// What stands in a file, without the line's end.
pub(super) fn text(dir: &Path, name: &str) -> Option<String> {
    Some(fs::read_to_string(dir.join(name)).ok()?.trim_end().to_owned())
}

/// A number that stands in a file alone; `max` is no number.
pub(super) fn number(dir: &Path, name: &str) -> Option<u64> {
    text(dir, name)?.parse().ok()
}

/// The number after a key, of which each has a line of its own.
pub(super) fn keyed(dir: &Path, name: &str, key: &str) -> Option<u64> {
    let text = text(dir, name)?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// A group and all below it, the deepest first.
pub(super) fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![dir.to_owned()];
    let mut next = 0;
    while let Some(dir) = all.get(next) {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let below: Vec<PathBuf> =
            entries.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir())).map(|it| it.path()).collect();
        all.extend(below);
        next += 1;
    }
    all.reverse();
    all
}

/// The processes of a group and of all below it.
pub(super) fn processes(dir: &Path) -> Vec<u32> {
    let texts = tree(dir).into_iter().filter_map(|it| text(&it, "cgroup.procs"));
    texts.flat_map(|it| it.lines().filter_map(|line| line.parse().ok()).collect::<Vec<u32>>()).collect()
}
