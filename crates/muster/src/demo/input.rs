//! The files to sum.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};

/// Muster's own sources, where they were when this program was built.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// As many of our own sources as make a demonstration of some seconds.
const SOURCES_MAX: usize = 150;
const FILES_MAX: usize = 10_000;
/// Directories that hold no sources.
const SKIPPED: [&str; 2] = ["target", "node_modules"];

/// One file for each task. More tasks than files take the files again from the first.
pub(super) fn files(dir: Option<&Path>, tasks: Option<u32>) -> anyhow::Result<Vec<PathBuf>> {
    let found = match dir {
        Some(dir) => below(dir, FILES_MAX)?,
        None if Path::new(SOURCES).is_dir() => below(Path::new(SOURCES), SOURCES_MAX)?,
        None => below(Path::new("."), SOURCES_MAX)?,
    };
    if found.is_empty() {
        let dir = dir.unwrap_or(Path::new("."));
        bail!("{} holds no readable file; give a directory with some by --input", dir.display());
    }
    let count = tasks.map_or(found.len(), |tasks| tasks as usize);
    Ok(found.into_iter().cycle().take(count).collect())
}

fn below(dir: &Path, max: usize) -> anyhow::Result<Vec<PathBuf>> {
    let dir =
        dir.canonicalize().with_context(|| format!("cannot read {}; give another --input", dir.display()))?;
    let walk = walkdir::WalkDir::new(&dir).sort_by_file_name().into_iter().filter_entry(|entry| {
        let name = entry.file_name().to_string_lossy();
        entry.depth() == 0 || !(name.starts_with('.') || SKIPPED.contains(&name.as_ref()))
    });
    let files = walk.filter_map(Result::ok).filter(|entry| entry.file_type().is_file());
    let readable = files.map(walkdir::DirEntry::into_path).filter(|path| std::fs::File::open(path).is_ok());
    Ok(readable.filter(|path| path.to_str().is_some()).take(max).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_tasks_than_files_begin_again() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", ".hidden"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        assert_eq!(files(Some(dir.path()), None).unwrap().len(), 2);
        let three = files(Some(dir.path()), Some(3)).unwrap();
        assert_eq!(three[0], three[2]);
        assert_eq!(files(Some(dir.path()), Some(1)).unwrap().len(), 1);
    }

    #[test]
    fn nothing_to_sum_is_said() {
        let dir = tempfile::tempdir().unwrap();
        assert!(files(Some(dir.path()), None).unwrap_err().to_string().contains("--input"));
        assert!(files(Some(Path::new("/no/such/place")), None).unwrap_err().to_string().contains("/no/such"));
    }
}
