//! What the store writes down, and the image that a caller gets.

use super::Layer;
use crate::{Digest, ImageConfig};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// An image as it is recorded: fields are added, never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The digest of its configuration.
    pub(crate) id: Digest,
    /// The diff ids of its layers, the lowest first.
    pub(crate) layers: Vec<Digest>,
    pub(crate) config: ImageConfig,
}

/// An image that is on the disk. Its layers stay there while it, or a clone, is held.
#[derive(Debug, Clone)]
pub struct Image {
    content: Content,
    config: ImageConfig,
}

#[derive(Debug, Clone)]
enum Content {
    Layers(Digest, Vec<Layer>),
    Dir(PathBuf),
}

impl Image {
    pub(crate) fn of_layers(record: Record, layers: Vec<Layer>) -> Self {
        Self { content: Content::Layers(record.id, layers), config: record.config }
    }

    pub(crate) fn of_dir(path: PathBuf) -> Self {
        Self { content: Content::Dir(path), config: ImageConfig::default() }
    }

    /// The digest of its configuration; none of an unpacked directory.
    pub fn id(&self) -> Option<&Digest> {
        match &self.content {
            Content::Layers(id, _) => Some(id),
            Content::Dir(_) => None,
        }
    }

    /// What it says of its process.
    pub fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// Its layers, the lowest first. None if it is an unpacked directory.
    pub fn layers(&self) -> &[Layer] {
        match &self.content {
            Content::Layers(_, layers) => layers,
            Content::Dir(_) => &[],
        }
    }

    /// The unpacked directory that it is.
    pub fn dir(&self) -> Option<&PathBuf> {
        match &self.content {
            Content::Layers(..) => None,
            Content::Dir(path) => Some(path),
        }
    }

    /// What is to be named to [`Store::collect`](super::Store::collect) as long as a container uses this image, also after
    /// a restart.
    pub fn used(&self) -> Vec<Digest> {
        self.layers().iter().map(|layer| layer.diff_id().clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The form on the disk: never edited, only added to.
    #[test]
    fn records_of_every_version_are_read() {
        let id = Digest::of(b"config");
        let first = format!(
            r#"{{"id":"{id}","layers":["{id}"],"config":{{"User":"app","Env":["A=b"],"Entrypoint":["run"],"Cmd":[],"WorkingDir":"/srv"}}}}"#
        );
        let record = Record {
            id: id.clone(),
            layers: vec![id.clone()],
            config: ImageConfig {
                user: "app".into(),
                env: vec!["A=b".into()],
                entrypoint: vec!["run".into()],
                cmd: Vec::new(),
                working_dir: "/srv".into(),
            },
        };
        assert_eq!(serde_json::from_str::<Record>(&first).unwrap(), record);
        assert_eq!(serde_json::to_string(&record).unwrap(), first);
    }
}
