//! What a run found: files for machines, words and a page for people.

mod html;
mod text;
mod timeline;

pub use text::{render as text, smallest as smallest_text};

use crate::edn;
use crate::recording::{HISTORY, Recording, TRUTH};
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A run's verdict and what it rests on.
#[derive(Debug)]
pub struct Report {
    /// For people.
    pub text: String,
    good: bool,
    dir: PathBuf,
}

impl Report {
    /// Writes all that there is to a run beside its history.
    pub(crate) fn write(
        title: &str,
        took: Duration,
        recording: &Recording,
        dir: PathBuf,
    ) -> anyhow::Result<Self> {
        let title = format!("{title}, {:.1} s", took.as_secs_f64());
        let text = format!("{title}\n{}", text::render(recording));
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write(TRUTH, serde_json::to_string_pretty(&recording.truth)?)?;
        write("history.edn", edn::write(&recording.history))?;
        write("report.txt", text.clone())?;
        write("report.html", html::render(&title, recording))?;
        Ok(Self { text, good: recording.is_good(), dir })
    }

    /// Whether every promise was kept.
    pub fn is_good(&self) -> bool {
        self.good
    }

    /// Where it is, with the history and the logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Prints the report; fails when a promise is broken. What a good run wrote is removed, unless
    /// `MUSTER_KEEP` is set. For tests.
    pub fn verdict(self) -> anyhow::Result<()> {
        eprintln!("{}", self.text);
        if !self.good {
            bail!("a promise is broken:\n{}\nits {HISTORY} is in {}", self.text, self.dir.display());
        }
        if std::env::var_os("MUSTER_KEEP").is_none() {
            std::fs::remove_dir_all(&self.dir)?;
        }
        Ok(())
    }
}
