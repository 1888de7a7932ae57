//! Where images come from.

mod docker;
mod layout;
mod registry;

pub(crate) use registry::image as of_registry;

use crate::{
    Digest, Image, ImageError, Owner, Rules, Source, Store, Tree,
    below::open_in,
    decode::decoded,
    limits::Metered,
    manifest::{Configuration, document_fits},
    store::Record,
    tar,
};
use std::{
    fs::{self, DirBuilder, File},
    io::Read,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// An image of this machine's disk.
pub(crate) fn local(store: &Store, source: &Source, path: &Path) -> Result<Image, ImageError> {
    match source {
        Source::Oci(_, tag) => layout::image(store, path, tag.as_deref()),
        Source::OciArchive(_, tag) => {
            let opened = Opened::new(store, path)?;
            layout::image(store, &opened.0, tag.as_deref())
        }
        Source::DockerArchive(_, name) => {
            let opened = Opened::new(store, path)?;
            docker::image(store, &opened.0, name.as_deref())
        }
        Source::Dir(_) | Source::Registry(_) => {
            Err(ImageError::malformed("the image", "it is neither a layout nor an archive"))
        }
    }
}

/// An archive of an image, unpacked for as long as it is looked at.
struct Opened(PathBuf);

impl Opened {
    fn new(store: &Store, archive: &Path) -> Result<Self, ImageError> {
        let limits = &store.inner().settings.limits;
        let file = File::open(archive).map_err(ImageError::io("open", archive))?;
        if !file.metadata().is_ok_and(|about| about.is_file()) {
            return Err(ImageError::malformed(&archive.display().to_string(), "it is no file"));
        }
        let opened = Self(store.inner().tmp());
        DirBuilder::new().mode(0o700).create(&opened.0).map_err(ImageError::io("create", &opened.0))?;
        let mut tree = Tree::new(&opened.0, Owner::Writer)?;
        tar(decoded(file, limits)?, &mut tree, &Rules::archive(*limits))?;
        tree.finish()?;
        Ok(opened)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // What cannot be removed now is when the store is opened.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Reads a document below a directory, if it is not too long.
fn document(root: &Path, path: &Path, store: &Store) -> Result<Vec<u8>, ImageError> {
    let limits = &store.inner().settings.limits;
    let what = path.display().to_string();
    let file = open_in(root, path).map_err(ImageError::io("open", root.join(path)))?;
    document_fits(file.metadata().map_or(0, |about| about.len()), &what, limits)?;
    let (mut file, _) =
        Metered::new(file, "the document has", limits.document_bytes_max, "document_bytes_max");
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| ImageError::read(&what, error))?;
    Ok(bytes)
}

/// The image of this configuration. Each layer is at a path below `root`, with the digest that its blob should have.
fn assemble(
    store: &Store,
    root: &Path,
    config: &[u8],
    layers: &[(PathBuf, Option<Digest>)],
) -> Result<Image, ImageError> {
    let inner = store.inner();
    let read = Configuration::read(config, layers.len(), &inner.settings.limits)?;
    let mut held = Vec::new();
    for (diff_id, (path, blob)) in read.rootfs.diff_ids.iter().zip(layers) {
        let open = || open_in(root, path).map_err(ImageError::io("open", root.join(path)));
        held.push(inner.add_layer(diff_id, blob.as_ref(), open)?);
    }
    let id = Digest::of(config);
    inner.keep(Record { id, layers: read.rootfs.diff_ids, config: read.config.unwrap_or_default() }, held)
}
