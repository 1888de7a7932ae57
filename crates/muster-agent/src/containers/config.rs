//! What is configured of containers.

use super::KEEP;
use crate::AgentError;
use muster_image::{Keep, Limits, Settings};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// What runs tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Containerizer {
    /// Plain processes.
    Posix,
    /// The runtime that is built in.
    Native,
    /// An OCI runtime that is installed.
    Oci,
    /// A Docker engine.
    Docker,
}

impl Containerizer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Posix => "posix",
            Self::Native => "native",
            Self::Oci => "oci",
            Self::Docker => "docker",
        }
    }
}

/// Where images come from, and how much of them is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ImageSection {
    /// Directories of this machine below which images may be named.
    pub roots: Vec<PathBuf>,
    /// The registry of images that name none, `HOST[:PORT]`.
    pub default_registry: String,
    /// Registries that are spoken to without TLS, `HOST[:PORT]`, beside those of this machine.
    pub insecure_registries: Vec<String>,
    /// Bytes of one layer once it is decompressed, in MB.
    pub unpacked_mb_max: u64,
    /// Bytes of one layer as it comes, in MB.
    pub blob_mb_max: u64,
    /// How long layers are kept that nothing uses, in ms.
    pub keep_ms: u64,
    /// What they leave free on the disk, in MB; with less they go before their time.
    pub free_mb: u64,
}

impl Default for ImageSection {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            roots: Vec::new(),
            default_registry: Settings::default().default_registry,
            insecure_registries: Vec::new(),
            unpacked_mb_max: limits.unpacked_bytes_max >> 20,
            blob_mb_max: limits.blob_bytes_max >> 20,
            keep_ms: u64::try_from(KEEP.as_millis()).unwrap_or(u64::MAX),
            free_mb: 5 * 1024,
        }
    }
}

impl ImageSection {
    pub(super) fn settings(&self) -> Settings {
        Settings {
            limits: Limits {
                unpacked_bytes_max: self.unpacked_mb_max << 20,
                blob_bytes_max: self.blob_mb_max << 20,
                ..Limits::default()
            },
            default_registry: self.default_registry.clone(),
            roots: self.roots.clone(),
            insecure_registries: self.insecure_registries.clone(),
        }
    }

    pub(super) fn keep(&self) -> Keep {
        Keep { unused: Duration::from_millis(self.keep_ms), free_bytes: self.free_mb << 20 }
    }

    /// Checks all values.
    pub(crate) fn check(&self) -> Result<(), AgentError> {
        let wrong = |text: String| Err(AgentError::Config(text));
        if let Some(root) = self.roots.iter().find(|root| !root.is_absolute()) {
            return wrong(format!("images.roots: {root:?} must be an absolute path"));
        }
        if self.default_registry.is_empty() {
            return wrong("images.default-registry is empty, must be HOST[:PORT]".into());
        }
        for (name, value, least, most) in [
            ("unpacked-mb-max", self.unpacked_mb_max, 1, 1 << 24),
            ("blob-mb-max", self.blob_mb_max, 1, 1 << 24),
            ("keep-ms", self.keep_ms, 0, 365 * 24 * 3_600_000),
            ("free-mb", self.free_mb, 0, 1 << 30),
        ] {
            if !(least..=most).contains(&value) {
                return wrong(format!("images.{name} is {value}, must be {least} to {most}"));
            }
        }
        Ok(())
    }
}

/// The Docker engine, and what it may be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct DockerSection {
    /// Its command line, a path or a name on the PATH.
    pub program: String,
    /// Its socket.
    pub socket: PathBuf,
    /// Whether containers may be privileged.
    pub privileged: bool,
    /// Whether options of its command line may be named (`parameters`).
    pub parameters: bool,
    /// How long it may take to pull an image, in ms.
    pub pull_ms_max: u64,
}

impl Default for DockerSection {
    fn default() -> Self {
        Self {
            program: "docker".into(),
            socket: "/var/run/docker.sock".into(),
            privileged: true,
            parameters: true,
            pull_ms_max: 1_800_000,
        }
    }
}

impl DockerSection {
    /// Checks all values.
    pub(crate) fn check(&self) -> Result<(), AgentError> {
        let wrong = |text: String| Err(AgentError::Config(text));
        if self.program.is_empty() {
            return wrong("docker.program is empty; name docker, or the path of it".into());
        }
        if !self.socket.is_absolute() {
            return wrong(format!("docker.socket: {:?} must be an absolute path", self.socket));
        }
        if !(1_000..=24 * 3_600_000).contains(&self.pull_ms_max) {
            return wrong(format!("docker.pull-ms-max is {}, must be 1000 to 86400000", self.pull_ms_max));
        }
        Ok(())
    }
}
