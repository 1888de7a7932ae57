//! What was fetched before, kept beside the sandboxes: one file for each URI and user, up to a size. What was used longest
//! ago goes first, and nothing goes that is being used.
//!
//! # On disk
//! `<digest of URI and user>`, whose mode is the fetched file's and whose time of change is when it was last used. It is
//! written under another name, synced and renamed, so that what has its name is whole, whenever the power went.

use super::{place::User, stream::Opened};
use crate::{AgentError, mesos::Fetched};
use muster_image::Digest;
use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
    time::SystemTime,
};
use tokio::sync::OwnedMutexGuard;

/// The name of something that is kept.
pub(super) fn key(value: &str, user: User) -> String {
    let who = user.map_or_else(String::new, |(uid, _)| uid.to_string());
    Digest::of(format!("{who}\n{value}").as_bytes()).hex()
}

/// All that is kept.
#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
    bytes_max: u64,
    counts: Arc<Fetched>,
    state: Mutex<State>,
    /// Who fetches what. Keys that nobody fetches take no room.
    lines: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

#[derive(Debug, Default)]
struct State {
    kept: BTreeMap<String, Kept>,
    /// Bytes of all that is kept or promised to what is being written.
    bytes: u64,
    /// Counts uses, and names what is being written.
    clock: u64,
}

#[derive(Debug)]
struct Kept {
    bytes: u64,
    mode: u32,
    used: u64,
    users: usize,
}

impl Cache {
    /// Finds what is there, and removes what is no part of it.
    pub(super) fn open(dir: &Path, bytes_max: u64, counts: Arc<Fetched>) -> Result<Arc<Self>, AgentError> {
        let wrong = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| AgentError::Prepare { doing, path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(wrong("make the directory", dir))?;
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).map_err(wrong("read the directory", dir))? {
            let entry = entry.map_err(wrong("read the directory", dir))?;
            let about = entry.metadata().map_err(wrong("look at", &entry.path()))?;
            let name = entry.file_name().into_string().unwrap_or_default();
            let is_key = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_key && about.is_file() {
                found.push((about.modified().unwrap_or(SystemTime::UNIX_EPOCH), name, about));
            } else if about.is_dir() {
                fs::remove_dir_all(entry.path()).map_err(wrong("remove", &entry.path()))?;
            } else {
                fs::remove_file(entry.path()).map_err(wrong("remove", &entry.path()))?;
            }
        }
        found.sort_by_key(|one| one.0);
        let mut state = State::default();
        for (_, name, about) in found {
            state.clock += 1;
            state.bytes += about.len();
            let mode = about.permissions().mode() & 0o755;
            state.kept.insert(name, Kept { bytes: about.len(), mode, used: state.clock, users: 0 });
        }
        counts.cache_total.store(bytes_max, Ordering::Relaxed);
        let cache = Arc::new(Self {
            dir: dir.to_owned(),
            bytes_max,
            counts,
            state: Mutex::new(state),
            lines: Mutex::default(),
        });
        cache.make_room(&mut cache.state(), 0);
        Ok(cache)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else fetches this.
    pub(super) async fn in_line(&self, key: &str) -> OwnedMutexGuard<()> {
        let line = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.retain(|_, line| line.strong_count() > 0);
            let found = lines.get(key).and_then(Weak::upgrade);
            found.unwrap_or_else(|| {
                let line = Arc::default();
                lines.insert(key.to_owned(), Arc::downgrade(&line));
                line
            })
        };
        line.lock_owned().await
    }

    /// What is kept under this name. It stays as long as the entry lives.
    pub(super) fn find(self: &Arc<Self>, key: &str) -> Option<Entry> {
        let mut state = self.state();
        state.clock += 1;
        let now = state.clock;
        let kept = state.kept.get_mut(key)?;
        let Ok(file) = File::open(self.dir.join(key)) else {
            // Somebody else removed it.
            let gone = kept.bytes;
            if kept.users == 0 {
                state.kept.remove(key);
                self.give_back(&mut state, gone);
            }
            return None;
        };
        let _ = file.set_modified(SystemTime::now()); // then it is older after a restart
        kept.used = now;
        kept.users += 1;
        Some(Entry { cache: self.clone(), key: key.to_owned(), file, mode: kept.mode })
    }

    /// Room for something of so many bytes, or more if it is not known how many. None: there is not so much.
    pub(super) fn room(self: &Arc<Self>, key: String, bytes: u64) -> Option<Room> {
        let mut state = self.state();
        if bytes > self.bytes_max || self.bytes_max == 0 || !self.make_room(&mut state, bytes) {
            return None;
        }
        self.take(&mut state, bytes);
        state.clock += 1;
        let path = self.dir.join(format!("new-{}", state.clock));
        drop(state);
        Some(Room { cache: self.clone(), key, path, bytes })
    }

    /// Removes what was used longest ago, until there is so much room.
    fn make_room(&self, state: &mut State, bytes: u64) -> bool {
        let idle: u64 = state.kept.values().filter(|kept| kept.users == 0).map(|kept| kept.bytes).sum();
        let least = state.bytes.saturating_sub(idle);
        if least.saturating_add(bytes) > self.bytes_max && bytes > 0 {
            return false; // nothing goes for what does not fit then
        }
        while state.bytes.saturating_add(bytes) > self.bytes_max {
            let oldest =
                state.kept.iter().filter(|(_, kept)| kept.users == 0).min_by_key(|(_, kept)| kept.used);
            let Some((key, gone)) = oldest.map(|(key, kept)| (key.clone(), kept.bytes)) else { return false };
            if let Err(error) = fs::remove_file(self.dir.join(&key))
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, key, "a cached file cannot be removed");
                return false;
            }
            state.kept.remove(&key);
            self.give_back(state, gone);
        }
        true
    }

    fn take(&self, state: &mut State, bytes: u64) {
        state.bytes += bytes;
        self.counts.cache_used.store(state.bytes, Ordering::Relaxed);
    }

    fn give_back(&self, state: &mut State, bytes: u64) {
        state.bytes = state.bytes.saturating_sub(bytes);
        self.counts.cache_used.store(state.bytes, Ordering::Relaxed);
    }
}

/// Something that is kept, and stays for as long as this.
#[derive(Debug)]
pub(super) struct Entry {
    cache: Arc<Cache>,
    key: String,
    file: File,
    mode: u32,
}

impl Entry {
    /// To be read once, from its beginning.
    pub(super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    pub(super) fn mode(&self) -> u32 {
        self.mode
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(kept) = self.cache.state().kept.get_mut(&self.key) {
            kept.users = kept.users.saturating_sub(1);
        }
    }
}

/// Why something is not kept.
#[derive(Debug)]
pub(super) enum Filling {
    /// It is longer than there is room for.
    NoRoom,
    /// It could not be read.
    Source(String),
    /// It could not be written.
    Cache(io::Error),
}

/// Room that is promised to what is being written.
#[derive(Debug)]
pub(super) struct Room {
    cache: Arc<Cache>,
    key: String,
    path: PathBuf,
    bytes: u64,
}

impl Room {
    /// Writes it, and keeps it.
    pub(super) fn fill(mut self, mut opened: Opened) -> Result<Entry, Filling> {
        // The agent can read it again.
        let mode = opened.mode | 0o600;
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&self.path);
        let mut file = file.map_err(Filling::Cache)?;
        let mut buffer = vec![0; 64 << 10];
        let mut written = 0_u64;
        loop {
            let read = match opened.read.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Filling::Source(error.to_string())),
            };
            written += read as u64;
            if written > self.bytes && !self.grow(written - self.bytes) {
                return Err(Filling::NoRoom);
            }
            file.write_all(&buffer[..read]).map_err(Filling::Cache)?;
        }
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(Filling::Cache)?;
        file.sync_all().map_err(Filling::Cache)?;
        let path = self.cache.dir.join(&self.key);
        let renamed = || -> io::Result<File> {
            fs::rename(&self.path, &path)?;
            File::open(&self.cache.dir)?.sync_all()?;
            File::open(&path)
        };
        let file = renamed().map_err(|error| {
            let _ = fs::remove_file(&path); // or it is found at the next start
            Filling::Cache(error)
        })?;
        let cache = self.cache.clone();
        let mut state = cache.state();
        cache.give_back(&mut state, self.bytes);
        self.bytes = 0; // nothing to give back any more
        cache.take(&mut state, written);
        state.clock += 1;
        let kept = Kept { bytes: written, mode, used: state.clock, users: 1 };
        if let Some(before) = state.kept.insert(self.key.clone(), kept) {
            cache.give_back(&mut state, before.bytes);
        }
        drop(state);
        Ok(Entry { cache, key: self.key.clone(), file, mode })
    }

    fn grow(&mut self, bytes: u64) -> bool {
        let mut state = self.cache.state();
        let has_room = self.cache.make_room(&mut state, bytes);
        if has_room {
            self.cache.take(&mut state, bytes);
            self.bytes += bytes;
        }
        has_room
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // renamed, or of no use
        self.cache.give_back(&mut self.cache.state(), self.bytes);
    }
}
