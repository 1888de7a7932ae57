//! Wall clocks of members that are wrong: libfaketime is loaded before a member and reads what the time is to be off
//! from a file, each time anew. Monotonic clocks stay true.

use crate::history::Fault;
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};

/// Where the library is installed.
const DIRS: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu/faketime",
    "/usr/lib/aarch64-linux-gnu/faketime",
    "/usr/lib64/faketime",
    "/usr/lib/faketime",
    "/usr/local/lib/faketime",
];
/// The one for programs with threads.
const LIBRARY: &str = "libfaketimeMT.so.1";

fn library() -> Option<PathBuf> {
    DIRS.iter().map(|dir| Path::new(dir).join(LIBRARY)).find(|path| path.is_file())
}

/// What this machine lacks for [`Plan::clocks`](crate::Plan::clocks); nothing if it lacks nothing.
pub fn missing() -> Option<String> {
    library().is_none().then(|| format!("there is no {LIBRARY} in {}: install libfaketime", DIRS.join(", ")))
}

/// A member's clock.
fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.clock"))
}

/// Makes a clock that is right, and gives the variables with which a member goes by it.
pub(crate) fn make(dir: &Path, name: &str) -> anyhow::Result<Vec<(String, String)>> {
    let library = library().with_context(|| missing().unwrap_or_default())?;
    let file = file(dir, name);
    set(&file, 0)?;
    let variables = [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
    ];
    Ok(variables.map(|(name, value)| (name.to_owned(), value)).into())
}

/// Replaced as a whole, so that nobody reads half of it.
fn set(file: &Path, seconds: i64) -> anyhow::Result<()> {
    let new = file.with_extension("clock-new");
    std::fs::write(&new, format!("{seconds:+}\n")).context("cannot set a clock")?;
    std::fs::rename(&new, file).context("cannot set a clock")
}

/// A member whose wall clock is wrong. It is right again when this is dropped.
#[derive(Debug)]
#[must_use = "the clock is right at once"]
pub struct Skewed {
    file: PathBuf,
    pub(crate) recorded: Fault,
}

impl Skewed {
    pub(crate) fn new(dir: &Path, name: &str, seconds: i64) -> anyhow::Result<Self> {
        let file = file(dir, name);
        if !file.is_file() {
            bail!("{name} goes by the machine's clock: start the cluster with Plan::clocks");
        }
        let skewed = Self { file, recorded: Fault::default() };
        skewed.set(seconds)?;
        Ok(skewed)
    }

    /// Sets it off by another amount, in seconds.
    pub fn set(&self, seconds: i64) -> anyhow::Result<()> {
        set(&self.file, seconds)
    }
}

impl Drop for Skewed {
    fn drop(&mut self) {
        if let Err(error) = set(&self.file, 0) {
            eprintln!("a clock stays wrong: {error:#}");
        }
    }
}
