mod cached;
mod server;
mod straight;

use super::*;
use crate::AgentConfig;
use std::{fs, path::PathBuf};
use tempfile::TempDir;

/// A sandbox, and who fetches into it.
struct Bench {
    dir: TempDir,
    fetcher: Fetcher,
}

impl Bench {
    fn new(change: impl FnOnce(&mut AgentConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = AgentConfig { fetch_mb_max: 1, fetch_cache_mb: 1, ..Default::default() };
        change(&mut config);
        let fetcher = Fetcher::open(&config, &dir.path().join("fetched")).unwrap();
        Self { dir, fetcher }
    }

    fn sandbox(&self) -> PathBuf {
        self.dir.path().join("sandbox")
    }

    async fn fetch(&self, uri: command_info::Uri) -> Result<(), String> {
        self.fetcher.fetch(&[uri], &self.sandbox(), None).await
    }

    async fn refused(&self, uri: command_info::Uri) -> String {
        self.fetch(uri).await.unwrap_err()
    }

    fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.sandbox().join(name)).ok()
    }
}

fn uri(value: impl std::fmt::Display) -> command_info::Uri {
    command_info::Uri { value: value.to_string(), ..Default::default() }
}
