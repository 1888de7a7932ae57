//! An OCI image layout (image-spec, `image-layout.md`).

use super::{assemble, document};
use crate::{
    Digest, Image, ImageError, Store,
    manifest::{Descriptor, Manifest, choose, document_fits},
};
use std::path::{Path, PathBuf};

/// How many lists may stand in lists.
const NESTED_MAX: usize = 3;

pub(super) fn image(store: &Store, root: &Path, tag: Option<&str>) -> Result<Image, ImageError> {
    let limits = &store.inner().settings.limits;
    let index = document(root, Path::new("index.json"), store)?;
    let Manifest::Index(all) = Manifest::read(&index, "index.json", limits)? else {
        return Err(ImageError::malformed("index.json", "it is no list of manifests"));
    };
    let all = tagged(all, tag)?;
    let mut chosen = choose(&all, "the layout")?.clone();
    for _ in 0..NESTED_MAX {
        let bytes = blob(store, root, &chosen)?;
        match Manifest::read(&bytes, &chosen.digest.to_string(), limits)? {
            Manifest::Index(all) => chosen = choose(&all, "the layout")?.clone(),
            Manifest::Image { config, layers } => {
                let config = blob(store, root, &config)?;
                let layers: Vec<_> =
                    layers.iter().map(|layer| (path(&layer.digest), Some(layer.digest.clone()))).collect();
                return assemble(store, root, &config, &layers);
            }
        }
    }
    Err(ImageError::malformed("index.json", format!("its lists are more than {NESTED_MAX} deep")))
}

/// Those that a tag names; without a tag there must be one image only, for whatever platforms.
fn tagged(all: Vec<Descriptor>, tag: Option<&str>) -> Result<Vec<Descriptor>, ImageError> {
    let names = || {
        let names: Vec<&str> = all.iter().filter_map(Descriptor::name).take(16).collect();
        if names.is_empty() { "no tag at all".to_owned() } else { names.join(", ") }
    };
    let missing = |what: String| ImageError::Missing { what, why: format!("the layout has {}", names()) };
    let Some(tag) = tag else {
        let mut named: Vec<&str> = all.iter().filter_map(Descriptor::name).collect();
        named.dedup();
        return match all.is_empty() || named.len() > 1 {
            true => Err(missing("one image that could be meant without a tag".into())),
            false => Ok(all),
        };
    };
    let found: Vec<Descriptor> = all.iter().filter(|it| it.name() == Some(tag)).cloned().collect();
    if found.is_empty() { Err(missing(format!("the tag {tag:?}"))) } else { Ok(found) }
}

fn path(digest: &Digest) -> PathBuf {
    Path::new("blobs/sha256").join(digest.hex())
}

/// A document that another one describes.
fn blob(store: &Store, root: &Path, described: &Descriptor) -> Result<Vec<u8>, ImageError> {
    document_fits(described.size, "a document of the image", &store.inner().settings.limits)?;
    let bytes = document(root, &path(&described.digest), store)?;
    Digest::of(&bytes).must_be(&described.digest, || "a document of the image".into())?;
    Ok(bytes)
}
