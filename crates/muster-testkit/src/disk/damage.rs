//! Damage to what a stopped master has on its disk.

use anyhow::{Context, bail};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What is not a master's data: its lock, what it has set aside already, and what the file system keeps.
const NO_DATA: [&str; 3] = ["lock", "damaged-", "lost+found"];
/// Only pieces of a file that hold something are worth damaging.
const PIECE_BYTES: usize = 512;

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// One bit of it is turned over.
    Flip,
    /// Its end is gone, at least one byte that held something.
    Truncate,
}

/// What was damaged, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// What was done.
    pub damage: Damage,
    /// The file, below the data directory.
    pub file: PathBuf,
    /// The byte that was changed, or where the file ends now.
    pub at: u64,
}

impl fmt::Display for Damaged {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = match self.damage {
            Damage::Flip => "a bit flipped in byte",
            Damage::Truncate => "cut off at byte",
        };
        write!(out, "{} {done} {}", self.file.display(), self.at)
    }
}

/// Does it to a file and a place of it that the seed chooses.
pub(crate) fn damage(dir: &Path, damage: Damage, seed: u64) -> anyhow::Result<Damaged> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut files = Vec::new();
    find(dir, &mut files)?;
    // Whatever order the file system has them in.
    files.sort();
    let path = files.choose(&mut rng).with_context(|| format!("there is no data in {}", dir.display()))?;
    let bytes = std::fs::read(path)?;
    let at = match damage {
        Damage::Flip => {
            let at = pick(&bytes, &mut rng);
            let turned = bytes[at] ^ (1 << rng.random_range(0..8));
            let file = File::options().write(true).open(path)?;
            file.write_all_at(&[turned], at as u64)?;
            file.sync_all()?;
            at
        }
        Damage::Truncate => {
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            let at = rng.random_range(0..=end);
            let file = File::options().write(true).open(path)?;
            file.set_len(at as u64)?;
            file.sync_all()?;
            at
        }
    };
    let file = path.strip_prefix(dir).unwrap_or(path).to_owned();
    Ok(Damaged { damage, file, at: at as u64 })
}

/// A byte of a piece that holds something.
fn pick(bytes: &[u8], rng: &mut SmallRng) -> usize {
    let held = bytes.chunks(PIECE_BYTES).enumerate().filter(|(_, piece)| piece.iter().any(|byte| *byte != 0));
    let pieces: Vec<_> = held.map(|(n, piece)| (n * PIECE_BYTES, piece.len())).collect();
    pieces.choose(rng).map_or(0, |(from, length)| from + rng.random_range(0..*length))
}

/// Everything is gone, as on a new disk.
pub(crate) fn lose(dir: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }?;
    }
    Ok(())
}

/// All files with data in them.
fn find(dir: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        if NO_DATA.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => find(&entry.path(), found)?,
            false if entry.metadata()?.len() > 0 => found.push(entry.path()),
            false => {}
        }
    }
    if found.len() > FILES_MAX {
        bail!("there are more than {FILES_MAX} files below {}", dir.display());
    }
    Ok(())
}

/// More files than a master has.
const FILES_MAX: usize = 1_000;
