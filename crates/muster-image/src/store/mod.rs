//! The store: layers on the disk, each once, and what images are made of.
//!
//! ```text
//! layers/<diff id>/   one layer: `fs`, what it adds, and `layer.json`, what it removes
//! images/<id>.json    an image: its configuration and the diff ids of its layers
//! tmp/                what is not finished; gone when the store is opened
//! lock                held by the agent whose store it is
//! ```
//!
//! # Laws
//! - What is in `layers` and `images` is whole: it was written in `tmp`, synced, and then renamed.
//! - A layer is known by the digest of what it unpacked from, which was checked; so it is never written a second time.
//! - One key is worked on by one at a time; whoever waits finds it done.
//! - No count is kept on the disk: what is used is what containers and images in hand name.

mod collect;
mod flights;
mod layer;
mod record;

pub use collect::{Collected, Keep};
pub use layer::Layer;
pub use record::Image;

pub(crate) use layer::{is_root, is_whiteout};
pub(crate) use record::Record;

use crate::{Digest, ImageError, Limits, Source, sources};
use flights::Flights;
use rustix::fs::{FlockOperation, flock};
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Semaphore;

/// What a store does with what it is asked for.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The most of everything.
    pub limits: Limits,
    /// The registry of images that name none, `HOST[:PORT]`.
    pub default_registry: String,
    /// Directories below which images of this machine may be named; none: no image of this machine is used.
    pub roots: Vec<PathBuf>,
    /// Registries that are spoken to without TLS, `HOST[:PORT]`, beside those of this machine.
    pub insecure_registries: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            default_registry: "registry-1.docker.io".into(),
            roots: Vec::new(),
            insecure_registries: Vec::new(),
        }
    }
}

/// The images of one agent. Clones are of the same store.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

/// How many images are read from registries at once.
const PULLS_MAX: usize = 16;

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) dir: PathBuf,
    pub(crate) settings: Settings,
    flights: Flights,
    /// Layers that are in somebody's hand.
    leases: Mutex<BTreeMap<Digest, Weak<Lease>>>,
    counter: AtomicU64,
    /// Turns of those that read from registries; each takes a thread, for as long as the server takes.
    pulls: Arc<Semaphore>,
    _lock: File,
}

/// Keeps a layer from being collected.
#[derive(Debug)]
pub(crate) struct Lease;

impl Store {
    /// Opens a store, made if it is not there. What was not finished is removed.
    ///
    /// # Errors
    /// The directory cannot be used, or another agent uses it.
    pub fn open(dir: &Path, settings: Settings) -> Result<Self, ImageError> {
        private_dir(dir)?;
        let path = dir.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(ImageError::io("open", &path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| ImageError::io("have for this agent alone", &path)(error.into()))?;
        let tmp = dir.join("tmp");
        match fs::remove_dir_all(&tmp) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(ImageError::io("remove", tmp)(error));
            }
            _ => {}
        }
        for name in ["tmp", "layers", "images"] {
            private_dir(&dir.join(name))?;
        }
        Ok(Self(Arc::new(Inner {
            dir: dir.to_owned(),
            settings,
            flights: Flights::default(),
            leases: Mutex::default(),
            counter: AtomicU64::new(0),
            pulls: Arc::new(Semaphore::new(PULLS_MAX)),
            _lock: lock,
        })))
    }

    /// Gets an image: all its layers are in the store when this returns, and stay as long as the [`Image`] is held.
    ///
    /// # Errors
    /// The name is none, or there is no such image, or it is damaged or refused.
    pub async fn pull(&self, name: &str) -> Result<Image, ImageError> {
        let source = Source::parse(name, &self.0.settings.default_registry)?;
        match (&source, self.0.permitted(name, &source)?) {
            (Source::Dir(_), Some(path)) => Ok(Image::of_dir(path)),
            (_, Some(path)) => {
                let store = self.clone();
                blocking(move || sources::local(&store, &source, &path)).await
            }
            (_, None) => match source {
                Source::Registry(remote) => {
                    let store = self.clone();
                    // Given up with this future, so that who waits for nothing keeps no thread and no turn.
                    let wanted = Arc::new(());
                    let mark = Arc::downgrade(&wanted);
                    let turn = self.0.pulls.clone().acquire_owned().await;
                    blocking(move || {
                        let _turn = turn; // to the end, also of one that is given up
                        sources::of_registry(&store, &remote, mark)
                    })
                    .await
                }
                _ => Err(ImageError::malformed("the image", "it is of no place")),
            },
        }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.0
    }
}

/// Work that blocks, on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(ImageError::Stopped(error.to_string())))
}

impl Inner {
    /// Where a local image is, if images may be there.
    fn permitted(&self, name: &str, source: &Source) -> Result<Option<PathBuf>, ImageError> {
        let Some(path) = source.path() else { return Ok(None) };
        // Said before the path is looked at: who may not use it learns nothing of it.
        let refused = || ImageError::Name {
            name: name.to_owned(),
            why: format!(
                "is not below a directory that this agent takes images from ({})",
                match self.settings.roots.is_empty() {
                    true => "there is none; images.roots names them".to_owned(),
                    false => format!("images.roots: {:?}", self.settings.roots),
                }
            ),
        };
        if !self.settings.roots.iter().any(|root| path.starts_with(root)) {
            return Err(refused());
        }
        let real = fs::canonicalize(path).map_err(ImageError::io("find", path))?;
        let allowed = self.settings.roots.iter().filter_map(|root| fs::canonicalize(root).ok());
        match allowed.into_iter().any(|root| real.starts_with(root)) {
            true => Ok(Some(real)),
            false => Err(refused()),
        }
    }

    /// A place for something that is not finished.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.dir.join("tmp").join(self.counter.fetch_add(1, Ordering::Relaxed).to_string())
    }

    pub(crate) fn flights(&self) -> &Flights {
        &self.flights
    }

    fn image_path(&self, id: &Digest) -> PathBuf {
        self.dir.join("images").join(format!("{}.json", id.hex()))
    }

    /// Records an image whose layers are there, and holds them.
    pub(crate) fn keep(&self, record: Record, held: Vec<Layer>) -> Result<Image, ImageError> {
        self.write_json(&self.image_path(&record.id), &record)?;
        Ok(Image::of_layers(record, held))
    }

    pub(crate) fn lease(&self, diff_id: &Digest) -> Arc<Lease> {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.retain(|_, lease| lease.strong_count() > 0);
        let held = leases.get(diff_id).and_then(Weak::upgrade);
        held.unwrap_or_else(|| {
            let lease = Arc::new(Lease);
            leases.insert(diff_id.clone(), Arc::downgrade(&lease));
            lease
        })
    }

    /// What cannot be read is as if it were not there: it is made again.
    fn read_json<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, ImageError> {
        match fs::read(path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)
                .inspect_err(
                    |error| tracing::warn!(path = %path.display(), %error, "damaged record of an image"),
                )
                .ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ImageError::io("read", path)(error)),
        }
    }

    fn write_json(&self, path: &Path, value: &impl serde::Serialize) -> Result<(), ImageError> {
        let bytes = serde_json::to_vec(value).map_err(|error| ImageError::malformed("a record", error))?;
        let tmp = self.tmp();
        let mut file = File::create_new(&tmp).map_err(ImageError::io("create", &tmp))?;
        let written = file.write_all(&bytes).and_then(|()| file.sync_all());
        written.map_err(ImageError::io("write", &tmp))?;
        rename(&tmp, path)
    }
}

/// Puts what is finished where it belongs, for good.
fn rename(from: &Path, to: &Path) -> Result<(), ImageError> {
    fs::rename(from, to).map_err(ImageError::io("rename to", to))?;
    let parent = to.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(ImageError::io("sync", parent))
}

/// A directory of this agent's alone: what images bring may give rights to who can reach it.
fn private_dir(path: &Path) -> Result<(), ImageError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(ImageError::io("create", path))
}
