//! The documents that describe an image: index, manifest, configuration. Those of the OCI and of Docker are alike in all
//! that is read here; what is not read may be whatever it likes.

use crate::{Digest, ImageConfig, ImageError, Limits, limits::bytes_text};
use serde::Deserialize;

/// How an OCI layout names a tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Images that one index may list.
const LISTED_MAX: usize = 1_024;

/// What a document says of other bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

impl Descriptor {
    /// The tag that it goes by in a layout.
    pub(crate) fn name(&self) -> Option<&str> {
        self.annotations.get(REF_NAME).map(String::as_str)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

/// A manifest, or a list of some.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

/// What a document turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Manifest {
    /// Of one image.
    Image { config: Descriptor, layers: Vec<Descriptor> },
    /// Of several, of which one is to be chosen.
    Index(Vec<Descriptor>),
}

impl Manifest {
    /// Reads either.
    pub(crate) fn read(bytes: &[u8], what: &str, limits: &Limits) -> Result<Self, ImageError> {
        let document: Document =
            serde_json::from_slice(bytes).map_err(|error| ImageError::malformed(what, error))?;
        if document.schema_version != 2 {
            let why = format!(
                "it is of schema version {}, and 2 is understood; push the image anew with a tool of this decade",
                document.schema_version
            );
            return Err(ImageError::malformed(what, why));
        }
        match (document.manifests, document.config) {
            (Some(all), None) if all.len() <= LISTED_MAX => Ok(Self::Index(all)),
            (Some(all), None) => Err(ImageError::malformed(
                what,
                format!("it lists {} images, more than {LISTED_MAX}", all.len()),
            )),
            (None, Some(config)) => {
                layers_fit(document.layers.len(), limits)?;
                Ok(Self::Image { config, layers: document.layers })
            }
            _ => Err(ImageError::malformed(
                what,
                "it is neither the manifest of an image nor a list of manifests",
            )),
        }
    }
}

fn layers_fit(layers: usize, limits: &Limits) -> Result<(), ImageError> {
    match layers > limits.layers_max {
        true => Err(ImageError::TooMuch {
            what: "the image has".into(),
            most: format!("{} layers", limits.layers_max),
            key: "layers_max",
        }),
        false => Ok(()),
    }
}

/// A document is only read if it is not too long.
pub(crate) fn document_fits(size: u64, what: &str, limits: &Limits) -> Result<(), ImageError> {
    match size > limits.document_bytes_max {
        true => Err(ImageError::TooMuch {
            what: format!("{what} has"),
            most: bytes_text(limits.document_bytes_max),
            key: "document_bytes_max",
        }),
        false => Ok(()),
    }
}

/// The image of a list that runs on this machine. Where nothing is said of a platform, any does.
pub(crate) fn choose<'a>(all: &'a [Descriptor], what: &str) -> Result<&'a Descriptor, ImageError> {
    let (architecture, variants) = here();
    let fits = |it: &&Descriptor| {
        it.platform.as_ref().is_some_and(|it| it.os == "linux" && it.architecture == architecture)
    };
    let variant = |it: &Descriptor| it.platform.as_ref().map_or("", |it| it.variant.as_str()).to_owned();
    let best = all.iter().filter(fits).filter_map(|it| {
        let place = variants.iter().position(|known| *known == variant(it))?;
        Some((place, it))
    });
    if let Some((_, found)) = best.min_by_key(|(place, _)| *place) {
        return Ok(found);
    }
    if let [one] = all
        && one.platform.is_none()
    {
        return Ok(one);
    }
    let said =
        all.iter().filter_map(|it| it.platform.as_ref()).map(|it| format!("{}/{}", it.os, it.architecture));
    let said: Vec<String> = said.take(16).collect();
    Err(ImageError::Missing {
        what: format!("an image of {what} for linux/{architecture}"),
        why: if said.is_empty() {
            "no platform is named".into()
        } else {
            format!("there is {}", said.join(", "))
        },
    })
}

/// This machine as images name it, and the variants that it runs, the best first.
fn here() -> (&'static str, &'static [&'static str]) {
    match std::env::consts::ARCH {
        "x86_64" => ("amd64", &["", "v1"]),
        "aarch64" => ("arm64", &["v8", ""]),
        "arm" => ("arm", &["v7", "v6", "", "v5"]),
        "x86" => ("386", &[""]),
        other => (other, &[""]),
    }
}

/// The configuration of an image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Configuration {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    pub(crate) config: Option<ImageConfig>,
    pub(crate) rootfs: RootFs,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct RootFs {
    pub(crate) diff_ids: Vec<Digest>,
}

impl Configuration {
    /// Reads one, of an image that has so many layers.
    pub(crate) fn read(bytes: &[u8], layers: usize, limits: &Limits) -> Result<Self, ImageError> {
        const WHAT: &str = "the image's configuration";
        let read: Self = serde_json::from_slice(bytes).map_err(|error| ImageError::malformed(WHAT, error))?;
        layers_fit(read.rootfs.diff_ids.len(), limits)?;
        if read.rootfs.diff_ids.len() != layers {
            let why =
                format!("it tells of {} layers, and the manifest of {layers}", read.rootfs.diff_ids.len());
            return Err(ImageError::malformed(WHAT, why));
        }
        let (architecture, _) = here();
        let other = |said: &str, here: &str| !said.is_empty() && said != here;
        if other(&read.os, "linux") || other(&read.architecture, architecture) {
            let why = format!("it is for {}/{}", read.os, read.architecture);
            return Err(ImageError::Missing { what: format!("an image for linux/{architecture}"), why });
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(platforms: &[(&str, &str, &str)]) -> Vec<Descriptor> {
        let one = |(i, (os, architecture, variant)): (usize, &(&str, &str, &str))| Descriptor {
            media_type: String::new(),
            digest: Digest::of(&[i as u8]),
            size: 1,
            platform: (!os.is_empty()).then(|| Platform {
                os: (*os).into(),
                architecture: (*architecture).into(),
                variant: (*variant).into(),
            }),
            annotations: Default::default(),
        };
        platforms.iter().enumerate().map(one).collect()
    }

    #[test]
    fn the_image_for_this_machine_is_chosen() {
        let (here, variants) = here();
        let all = listed(&[
            ("windows", here, ""),
            ("linux", "other", ""),
            ("linux", here, "v99"),
            ("linux", here, variants[0]),
            ("unknown", "unknown", ""),
        ]);
        assert_eq!(choose(&all, "app").unwrap(), &all[3]);
        let alone = listed(&[("", "", "")]);
        assert_eq!(choose(&alone, "app").unwrap(), &alone[0]);
        let why = choose(&all[..2], "app").unwrap_err().to_string();
        assert!(why.contains(&format!("for linux/{here}")) && why.contains("linux/other"), "{why}");
    }

    #[test]
    fn what_is_no_manifest_is_said() {
        let limits = Limits { layers_max: 1, ..Limits::default() };
        let digest = Digest::of(b"");
        let one = format!("{{\"digest\":\"{digest}\",\"size\":0}}");
        for (text, part) in [
            ("[]", "the manifest cannot be read"),
            ("{\"schemaVersion\":1}", "schema version 1"),
            ("{\"schemaVersion\":2}", "neither"),
            (&format!("{{\"schemaVersion\":2,\"config\":{one},\"layers\":[{one},{one}]}}"), "layers_max"),
            ("{\"schemaVersion\":2,\"config\":{\"digest\":\"md5:1\",\"size\":0}}", "sha256:HEX"),
        ] {
            let why = Manifest::read(text.as_bytes(), "the manifest", &limits).unwrap_err().to_string();
            assert!(why.contains(part), "{text}: {why}");
        }
        for (text, part) in [
            ("{\"rootfs\":{\"diff_ids\":[]}}", "of 0 layers, and the manifest of 1"),
            (&format!("{{\"os\":\"plan9\",\"rootfs\":{{\"diff_ids\":[\"{digest}\"]}}}}"), "plan9"),
        ] {
            let why = Configuration::read(text.as_bytes(), 1, &limits).unwrap_err().to_string();
            assert!(why.contains(part), "{text}: {why}");
        }
    }
}
