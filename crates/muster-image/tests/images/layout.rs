//! Writing layers, layouts and archives.

use flate2::{Compression, write::GzEncoder};
use muster_image::Digest;
use std::{fs, io::Write, path::Path};

/// One entry of a layer.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Dir(String, u32),
    File(String, Vec<u8>),
    Link(String, String),
    Symlink(String, String),
}

pub(crate) fn file(name: &str, content: &str) -> Entry {
    Entry::File(name.into(), content.into())
}

pub(crate) fn dir(name: &str) -> Entry {
    Entry::Dir(name.into(), 0o755)
}

pub(crate) fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_mode(0o644);
        header.set_size(0);
        match entry {
            Entry::Dir(name, mode) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(*mode);
                builder.append_data(&mut header, name, &[][..]).unwrap();
            }
            Entry::File(name, content) => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, name, &content[..]).unwrap();
            }
            Entry::Link(name, to) => {
                header.set_entry_type(tar::EntryType::Link);
                builder.append_link(&mut header, name, to).unwrap();
            }
            Entry::Symlink(name, to) => {
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, name, to).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An image as it is to be written: what its documents are, and its blobs.
pub(crate) struct Made {
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) blobs: Vec<Vec<u8>>,
    pub(crate) tars: Vec<Vec<u8>>,
}

pub(crate) fn described(bytes: &[u8]) -> String {
    format!("\"digest\":\"{}\",\"size\":{}", Digest::of(bytes), bytes.len())
}

pub(crate) fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// An image of these layers, every second of which is packed.
pub(crate) fn image(layers: &[Vec<Entry>]) -> Made {
    let tars: Vec<Vec<u8>> = layers.iter().map(|layer| tar(layer)).collect();
    let packed = tars.iter().enumerate();
    let blobs: Vec<Vec<u8>> =
        packed.map(|(i, tar)| if i % 2 == 0 { gzip(tar) } else { tar.clone() }).collect();
    let diff_ids: Vec<String> = tars.iter().map(|tar| format!("\"{}\"", Digest::of(tar))).collect();
    let config = format!(
        r#"{{"os":"linux","architecture":"{}","config":{{"Cmd":["/bin/run"],"Env":["A=b"],"Entrypoint":null}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        arch(),
        diff_ids.join(",")
    );
    let layers: Vec<String> = blobs.iter().map(|blob| format!("{{{}}}", described(blob))).collect();
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{{}}},"layers":[{}]}}"#,
        described(config.as_bytes()),
        layers.join(",")
    );
    Made { config: config.into(), manifest: manifest.into(), blobs, tars }
}

impl Made {
    /// Writes it as a layout of one tag.
    pub(crate) fn write_oci(&self, dir: &Path, tag: &str) {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        for blob in self.blobs.iter().chain([&self.config, &self.manifest]) {
            fs::write(blobs.join(Digest::of(blob).hex()), blob).unwrap();
        }
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{{},"annotations":{{"org.opencontainers.image.ref.name":"{tag}"}}}}]}}"#,
            described(&self.manifest)
        );
        fs::write(dir.join("index.json"), index).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }

    /// Writes it as `docker save` does.
    pub(crate) fn write_docker(&self, path: &Path, name: &str) {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            builder.append_data(&mut header, name, bytes).unwrap();
        };
        let mut layers = Vec::new();
        for (i, tar) in self.tars.iter().enumerate() {
            add(&format!("{i}/layer.tar"), tar);
            layers.push(format!("\"{i}/layer.tar\""));
        }
        add("config.json", &self.config);
        let manifest =
            format!(r#"[{{"Config":"config.json","RepoTags":["{name}"],"Layers":[{}]}}]"#, layers.join(","));
        add("manifest.json", manifest.as_bytes());
        fs::write(path, builder.into_inner().unwrap()).unwrap();
    }
}

/// Packs a directory.
pub(crate) fn pack(dir: &Path, to: &Path) {
    let mut builder = tar::Builder::new(fs::File::create(to).unwrap());
    builder.append_dir_all(".", dir).unwrap();
    builder.finish().unwrap();
}
