//! What `docker save` writes: `manifest.json` lists images by their configuration, names and layers.

use super::{assemble, document};
use crate::{Digest, Image, ImageError, Store, tree::clean};
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

pub(super) fn image(store: &Store, root: &Path, name: Option<&str>) -> Result<Image, ImageError> {
    const WHAT: &str = "manifest.json";
    let limits = &store.inner().settings.limits;
    let bytes = document(root, Path::new(WHAT), store)?;
    let mut all: Vec<Saved> =
        serde_json::from_slice(&bytes).map_err(|error| ImageError::malformed(WHAT, error))?;
    let has = |saved: &Saved, name: &str| {
        let full = if name.rsplit('/').next().is_some_and(|last| last.contains(':')) {
            name.to_owned()
        } else {
            format!("{name}:latest")
        };
        saved.repo_tags.iter().flatten().any(|tag| *tag == full)
    };
    let found = match name {
        Some(name) => all.iter().position(|saved| has(saved, name)),
        None => (all.len() == 1).then_some(0),
    };
    let Some(found) = found else {
        let tags: Vec<&str> =
            all.iter().flat_map(|it| it.repo_tags.iter().flatten()).map(String::as_str).take(16).collect();
        let what =
            name.map_or("one image that could be meant without a name".to_owned(), |it| format!("{it:?}"));
        return Err(ImageError::Missing { what, why: format!("the archive has {}", tags.join(", ")) });
    };
    let saved = all.swap_remove(found);
    let inside = |path: &str| clean(path.as_bytes(), limits);
    let config = document(root, &inside(&saved.config)?, store)?;
    let layers: Result<Vec<(PathBuf, Option<Digest>)>, ImageError> =
        saved.layers.iter().map(|path| inside(path).map(|path| (path, None))).collect();
    assemble(store, root, &config, &layers?)
}
