//! What an image is called, and where it is to be had.

use crate::{Digest, ImageError};
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Bytes of a name.
const NAME_BYTES_MAX: usize = 4_096;

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `dir:PATH`: an unpacked root file system. It has no configuration.
    Dir(PathBuf),
    /// `oci:PATH[:TAG]`: an OCI image layout directory.
    Oci(PathBuf, Option<String>),
    /// `oci-archive:PATH[:TAG]`: a tar archive of one.
    OciArchive(PathBuf, Option<String>),
    /// `docker-archive:PATH[:NAME:TAG]`: what `docker save` writes.
    DockerArchive(PathBuf, Option<String>),
    /// `[docker://][HOST[:PORT]/]REPOSITORY[:TAG|@DIGEST]`: a registry.
    Registry(Remote),
}

/// An image of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The registry, `HOST[:PORT]`.
    pub host: String,
    /// The repository, parts with slashes between.
    pub repository: String,
    /// Which of its images.
    pub which: Which,
}

/// Which image of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The one that has this tag now.
    Tag(String),
    /// This one, for ever.
    Digest(Digest),
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl Source {
    /// Reads the name of an image. One without a registry is of `default_registry`.
    ///
    /// # Errors
    /// It is no name; the error says why, and how one is written.
    pub fn parse(name: &str, default_registry: &str) -> Result<Self, ImageError> {
        let wrong = |why: String| ImageError::Name { name: name.chars().take(256).collect(), why };
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(wrong(format!(
                "is empty, longer than {NAME_BYTES_MAX} bytes or has control characters"
            )));
        }
        let local = |rest: &str, tagged: bool| {
            let (path, tag) = match rest.split_once(':').filter(|_| tagged) {
                Some((path, tag)) => (path, Some(tag.to_owned()).filter(|tag| !tag.is_empty())),
                None => (rest, None),
            };
            match path.starts_with('/') {
                true => Ok((PathBuf::from(path), tag)),
                false => Err(wrong("names no absolute path, as in oci:/srv/images/app:1.0".into())),
            }
        };
        if let Some(rest) = name.strip_prefix("dir:") {
            return local(rest, false).map(|(path, _)| Self::Dir(path));
        }
        if let Some(rest) = name.strip_prefix("oci:") {
            return local(rest, true).map(|(path, tag)| Self::Oci(path, tag));
        }
        if let Some(rest) = name.strip_prefix("oci-archive:") {
            return local(rest, true).map(|(path, tag)| Self::OciArchive(path, tag));
        }
        if let Some(rest) = name.strip_prefix("docker-archive:") {
            return local(rest, true).map(|(path, tag)| Self::DockerArchive(path, tag));
        }
        let rest = name.strip_prefix("docker://").unwrap_or(name);
        Remote::parse(rest, default_registry).map(Self::Registry).map_err(wrong)
    }

    /// The path on this machine that it names.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Dir(path)
            | Self::Oci(path, _)
            | Self::OciArchive(path, _)
            | Self::DockerArchive(path, _) => Some(path),
            Self::Registry(_) => None,
        }
    }
}

impl Remote {
    fn parse(text: &str, default_registry: &str) -> Result<Self, String> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(Digest::parse(digest)?)),
            None => (text, None),
        };
        // A first part is a host if it cannot be one of a repository.
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
            _ => (default_registry, name),
        };
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (path, None),
        };
        check_host(host)?;
        let part = |part: &str| {
            let ends = part.starts_with(['.', '_', '-']) || part.ends_with(['.', '_', '-']);
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
            !part.is_empty() && !ends && part.chars().all(fits)
        };
        if path.len() > 255 || !path.split('/').all(part) {
            return Err(format!(
                "has the repository {path:?}: its parts are of a-z, 0-9, and . _ - between them"
            ));
        }
        let which = match (digest, tag) {
            (Some(digest), _) => Which::Digest(digest),
            (None, tag) => {
                let tag = tag.unwrap_or("latest");
                let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
                if tag.is_empty() || tag.len() > 128 || tag.starts_with(['.', '-']) || !tag.chars().all(fits)
                {
                    return Err(format!(
                        "has the tag {tag:?}: up to 128 letters, digits, and . _ - after the first"
                    ));
                }
                Which::Tag(tag.to_owned())
            }
        };
        // The one registry whose short names mean a longer one.
        let docker = matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io");
        let repository = match docker && !path.contains('/') {
            true => format!("library/{path}"),
            false => path.to_owned(),
        };
        let host = if docker { "registry-1.docker.io" } else { host }.to_owned();
        Ok(Self { host, repository, which })
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = if matches!(self.which, Which::Tag(_)) { ':' } else { '@' };
        write!(f, "{}/{}{between}{}", self.host, self.repository, self.which)
    }
}

/// Checks `HOST[:PORT]`.
pub(crate) fn check_host(host: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let authority = host.parse::<hyper::http::uri::Authority>();
    match authority {
        Ok(it) if host.chars().all(fits) && !it.host().is_empty() => Ok(()),
        _ => Err(format!("has the registry {host:?}, which is not HOST[:PORT]")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(name: &str) -> Result<Source, ImageError> {
        Source::parse(name, "registry.example.org")
    }

    #[test]
    fn names_are_read() {
        let remote = |name: &str| match parse(name).unwrap() {
            Source::Registry(remote) => remote.to_string(),
            other => panic!("{other:?}"),
        };
        for (name, full) in [
            ("app", "registry.example.org/app:latest"),
            ("team/app:1.0", "registry.example.org/team/app:1.0"),
            ("localhost/app", "localhost/app:latest"),
            ("127.0.0.1:5000/a/b:x", "127.0.0.1:5000/a/b:x"),
            ("docker://host.example:5000/app", "host.example:5000/app:latest"),
            ("docker.io/busybox", "registry-1.docker.io/library/busybox:latest"),
            ("docker.io/team/app", "registry-1.docker.io/team/app:latest"),
        ] {
            assert_eq!(remote(name), full, "{name}");
        }
        assert_eq!(remote(&format!("app:1.0@{DIGEST}")), format!("registry.example.org/app@{DIGEST}"));
        let path = || PathBuf::from("/a/b");
        assert_eq!(parse("dir:/a/b").unwrap(), Source::Dir(path()));
        assert_eq!(parse("oci:/a/b:1").unwrap(), Source::Oci(path(), Some("1".into())));
        assert_eq!(parse("oci-archive:/a/b").unwrap(), Source::OciArchive(path(), None));
        let named = Source::DockerArchive(path(), Some("team/app:1".into()));
        assert_eq!(parse("docker-archive:/a/b:team/app:1").unwrap(), named);
    }

    #[test]
    fn what_is_no_name_is_said() {
        for (name, part) in [
            ("", "is empty"),
            ("oci:relative", "no absolute path"),
            ("App", "repository \"App\""),
            ("a//b", "repository \"a//b\""),
            ("a/../b", "repository"),
            ("app:..", "the tag"),
            ("app@sha256:1", "64 hexadecimal digits"),
            ("host:x:y/app", "the registry"),
            ("user@host.example/app", "sha256:HEX"),
        ] {
            let why = parse(name).unwrap_err().to_string();
            assert!(why.contains(part), "{name}: {why}");
        }
    }
}
