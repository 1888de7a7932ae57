//! Fetching what a command names into its sandbox, before the command is held.
//!
//! Files of this machine (`file://` or a path) are opened as the user that the command runs as, so that nobody gets at
//! what is not theirs; `http://` and `https://` are read here. Everything else is refused in words. A file whose URI ends
//! in `#sha256=HEX` must have that digest.
//!
//! What says `cache` is kept beside the sandboxes ([`cache`]) and copied from there; what does not fit there is fetched
//! as if it did not say so.
//!
//! # Laws
//! - Nothing is written outside of the sandbox, whatever an archive, a name or another process of the user says.
//! - What is given up ends soon: a thread that reads for it finds so with its next read.
//! - A thread of the runtime's is never waited for while a server is slow: such threads are counted (`fetches-max`).

mod cache;
mod http;
mod place;
mod stream;
#[cfg(test)]
mod tests;
mod uri;

pub(crate) use place::make;

use crate::{AgentConfig, AgentError, mesos::Fetched};
use cache::{Cache, Entry, Filling};
use http::Client;
use muster_proto::mesos::command_info;
use place::{Place, User};
use std::{
    fs::File,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use stream::{Alive, Checked, Opened, Pump, carried, from_file, from_server, open_as};
use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
    time::timeout,
};
use tracing::warn;
use uri::{Source, Wanted};

/// Things that one command may name.
const URIS_MAX: usize = 256;

/// Fetches for all commands of this agent.
#[derive(Debug)]
pub(crate) struct Fetcher {
    client: Client,
    cache: Arc<Cache>,
    counts: Arc<Fetched>,
    /// Downloads and copies that go on at once.
    turns: Semaphore,
    /// How long all that one command names may take.
    time: Duration,
    /// The longest file, in bytes.
    file_bytes: u64,
    /// What an archive may unpack to, in bytes.
    unpacked_bytes: u64,
}

impl Fetcher {
    /// Finds again what is cached in this directory.
    ///
    /// # Errors
    /// The file of `fetch-ca-file` cannot be read, or the directory not be used.
    pub(crate) fn open(config: &AgentConfig, cache: &Path) -> Result<Self, AgentError> {
        let counts = Arc::<Fetched>::default();
        Ok(Self {
            client: Client::new(&config.fetch_ca_file)?,
            cache: Cache::open(cache, config.fetch_cache_mb << 20, counts.clone())?,
            counts,
            turns: Semaphore::new(config.fetches_max),
            time: Duration::from_millis(config.fetch_ms_max),
            file_bytes: config.fetch_mb_max << 20,
            unpacked_bytes: config.fetch_unpacked_mb_max << 20,
        })
    }

    /// What was fetched so far.
    pub(crate) fn counts(&self) -> Arc<Fetched> {
        self.counts.clone()
    }

    /// Fetches all of it, in order, as this user and group, if not the agent's. The error says which could not be, and
    /// why.
    pub(crate) async fn fetch(
        &self,
        uris: &[command_info::Uri],
        sandbox: &Path,
        user: User,
    ) -> Result<(), String> {
        let done = self.all(uris, sandbox, user).await;
        let count = if done.is_ok() { &self.counts.succeeded } else { &self.counts.failed };
        count.fetch_add(1, Ordering::Relaxed);
        done
    }

    async fn all(&self, uris: &[command_info::Uri], sandbox: &Path, user: User) -> Result<(), String> {
        if uris.is_empty() {
            return Ok(());
        }
        if uris.len() > URIS_MAX {
            return Err(format!(
                "Failed to fetch: {} URIs are named, at most {URIS_MAX} are allowed",
                uris.len()
            ));
        }
        make(sandbox, user).map_err(|error| format!("Failed to make the sandbox: {error}"))?;
        let all = async {
            for uri in uris {
                let done = self.one(uri, sandbox, user).await;
                done.map_err(|why| format!("Failed to fetch '{}': {why}", uri::shown(&uri.value)))?;
            }
            Ok(())
        };
        timeout(self.time, all)
            .await
            .unwrap_or_else(|_| Err(format!("Failed to fetch all URIs within {} ms", self.time.as_millis())))
    }

    async fn one(&self, uri: &command_info::Uri, sandbox: &Path, user: User) -> Result<(), String> {
        let wanted = Wanted::of(uri)?;
        let place = Place::new(uri, &wanted, sandbox, user, self.unpacked_bytes);
        if uri.cache()
            && let Some(entry) = self.cached(&wanted, &uri.value, user).await?
        {
            let (_turn, alive) = (self.turn().await?, Alive::new());
            let mark = alive.mark();
            return ended(spawn_blocking(move || place.cached(&entry, &mark)).await);
        }
        let _turn = self.turn().await?;
        let alive = Alive::new();
        let (opened, pump) = self.source(&wanted, user, &alive).await?;
        let mark = alive.mark();
        let work = spawn_blocking(move || place.straight(opened, &mark));
        ended(carried(pump, work).await)
    }

    async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, String> {
        self.turns.acquire().await.map_err(|error| error.to_string()) // never closed
    }

    /// What is kept of it, fetched first if it is not there. None: it does not fit.
    async fn cached(&self, wanted: &Wanted, value: &str, user: User) -> Result<Option<Entry>, String> {
        let key = cache::key(value.trim(), user);
        // One download for each key, however many ask for it.
        let _in_line = self.cache.in_line(&key).await;
        if let Some(found) = self.cache.find(&key) {
            return Ok(Some(found));
        }
        let _turn = self.turn().await?;
        let alive = Alive::new();
        let (opened, pump) = self.source(wanted, user, &alive).await?;
        let Some(room) = self.cache.room(key, opened.bytes.unwrap_or(0)) else { return Ok(None) };
        let work = spawn_blocking(move || room.fill(opened));
        match carried(pump, work).await {
            Ok(Ok(entry)) => Ok(Some(entry)),
            Ok(Err(Filling::NoRoom)) => Ok(None),
            Ok(Err(Filling::Source(why))) => Err(why),
            Ok(Err(Filling::Cache(error))) => {
                warn!(%error, "the cache of fetched files cannot be written; fetching without it");
                Ok(None)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Opens what is wanted. What comes from a server comes while its pump runs.
    async fn source(
        &self,
        wanted: &Wanted,
        user: User,
        alive: &Alive,
    ) -> Result<(Opened, Option<Pump>), String> {
        let check = |opened: Opened| Checked::of(opened, self.file_bytes, wanted.sha256.clone());
        match &wanted.source {
            Source::Path(path) => {
                let (path, mark) = (path.clone(), alive.mark());
                let opened = spawn_blocking(move || from_file(open_as(&path, user)?, mark)).await;
                Ok((check(opened.map_err(|error| error.to_string())??)?, None))
            }
            Source::Server(from) => {
                let response = self.client.get(from.clone(), wanted.sha256.is_some()).await?;
                let (opened, pump) = from_server(response);
                Ok((check(opened)?, Some(pump)))
            }
        }
    }
}

fn ended(done: Result<Result<(), String>, JoinError>) -> Result<(), String> {
    done.unwrap_or_else(|error| Err(error.to_string()))
}

/// The mode of a file that is fetched from elsewhere.
const MODE: u32 = 0o644;

/// What a file of this machine gives to its copy: nobody but the owner may write to it.
fn mode_of(file: &File) -> std::io::Result<u32> {
    Ok(file.metadata()?.permissions().mode() & 0o755)
}
