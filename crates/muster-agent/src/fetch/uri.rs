//! What a URI means: where something is, what it is called in the sandbox, what it must be.

use hyper::Uri;
use muster_image::Digest;
use muster_proto::mesos::command_info;
use std::path::{Component, Path, PathBuf};

/// How a URI says what digest its file has.
const SHA256: &str = "#sha256=";

/// One thing that a command names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) source: Source,
    /// Its name below the sandbox: of plain parts only.
    pub(super) name: PathBuf,
    /// The digest that it must have.
    pub(super) sha256: Option<Digest>,
}

/// Where something is fetched from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Path(PathBuf),
    /// By `http` or `https`.
    Server(Uri),
}

impl Wanted {
    pub(super) fn of(uri: &command_info::Uri) -> Result<Self, String> {
        let value = uri.value.trim();
        let (value, sha256) = match value.rsplit_once(SHA256) {
            Some((value, hex)) => {
                let digest = Digest::parse(&format!("sha256:{}", hex.to_ascii_lowercase()));
                (value, Some(digest.map_err(|why| format!("after {SHA256} {why}"))?))
            }
            None => (value, None),
        };
        let source = source(value)?;
        let name = output(uri.output_file.as_deref(), value, &source)?;
        Ok(Self { source, name, sha256 })
    }
}

pub(super) fn source(value: &str) -> Result<Source, String> {
    if let Some(path) = value.strip_prefix("file://") {
        let path = path.strip_prefix("localhost").unwrap_or(path);
        if path.starts_with('/') {
            return Ok(Source::Path(path.into()));
        }
        return Err("a file:// URI names a path of this machine, as in file:///path".into());
    }
    if value.starts_with('/') {
        return Ok(Source::Path(value.into()));
    }
    let scheme = value.split_once("://").map_or("a relative path", |(scheme, _)| scheme);
    if !["http", "https"].iter().any(|it| it.eq_ignore_ascii_case(scheme)) {
        return Err(format!("{scheme} is not supported: name a path, file://, http:// or https://"));
    }
    let uri: Uri = value.parse().map_err(|error| format!("is no URI: {error}"))?;
    match uri.host() {
        Some(host) if !host.is_empty() => Ok(Source::Server(uri)),
        _ => Err("names no host".into()),
    }
}

/// The name that it gets in the sandbox: never out of it.
fn output(named: Option<&str>, value: &str, source: &Source) -> Result<PathBuf, String> {
    let last = match source {
        Source::Server(uri) => uri.path(),
        Source::Path(_) => value,
    };
    let name = match named.filter(|name| !name.is_empty()) {
        Some(name) => name,
        None => last.rsplit_once('/').map(|(_, name)| name).unwrap_or_default(),
    };
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    let path: PathBuf = Path::new(name).components().filter(|part| *part != Component::CurDir).collect();
    match Path::new(name).components().all(is_plain) && !name.contains('\0') && !name.ends_with('/') {
        true if !path.as_os_str().is_empty() => Ok(path),
        _ => Err(format!("{name:?} is no name for a file in the sandbox; give an output_file")),
    }
}

/// A URI as it may be shown: without what it has of a password.
pub(super) fn shown(value: &str) -> String {
    let Some((scheme, rest)) = value.split_once("://") else { return value.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{}", &rest[end..]),
        None => value.to_owned(),
    }
}

/// Where a server sends us that was asked for this.
pub(super) fn elsewhere(from: &Uri, location: &str) -> Result<Uri, String> {
    let scheme = from.scheme_str().unwrap_or("http");
    let authority = from.authority().map(|it| it.as_str()).unwrap_or_default();
    // Who asks is not told to where it is sent, unless that is the same place.
    let is_scheme =
        |it: &str| !it.is_empty() && it.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let whole = if location.split_once("://").is_some_and(|(before, _)| is_scheme(before)) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", from.path())
    } else {
        let above = from.path().rsplit_once('/').map_or("", |(above, _)| above);
        format!("{scheme}://{authority}{above}/{location}")
    };
    match source(&whole).map_err(|why| format!("it sends us to '{}': {why}", shown(&whole)))? {
        Source::Server(uri) => Ok(uri),
        Source::Path(_) => Err("it sends us to a path of this machine".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(value: &str) -> command_info::Uri {
        command_info::Uri { value: value.into(), ..Default::default() }
    }

    #[test]
    fn names_stay_in_the_sandbox() {
        let name = |uri: &command_info::Uri| Wanted::of(uri).map(|it| it.name.display().to_string());
        assert_eq!(name(&uri("http://host:1/a/b.sh?x=/y")).as_deref(), Ok("b.sh"));
        assert_eq!(name(&uri("/opt/run?")).as_deref(), Ok("run?"));
        let named = |name: &str| command_info::Uri { output_file: Some(name.into()), ..uri("/a/b") };
        assert_eq!(name(&named("here")).as_deref(), Ok("here"));
        assert_eq!(name(&named("./a/x")).as_deref(), Ok("a/x"));
        let wrong = ["../x", "/etc/x", "a/../../x", "a/..", "a/", ".", "a\0b"].map(named);
        for wrong in wrong.into_iter().chain([uri("http://host"), uri("http://host/"), uri("/a/..")]) {
            assert!(name(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_not_fetched_is_said() {
        for (value, part) in [
            ("hdfs://host/x", "hdfs is not supported"),
            ("ftp://host/x", "ftp is not supported"),
            ("relative/x", "a relative path is not supported"),
            ("file://host/x", "file:///path"),
            ("http:///x", "no URI"),
            ("/a#sha256=12", "64 hexadecimal digits"),
        ] {
            let why = Wanted::of(&uri(value)).unwrap_err();
            assert!(why.contains(part), "{value}: {why}");
        }
        assert_eq!(source("file:///a"), Ok(Source::Path("/a".into())));
    }

    #[test]
    fn a_digest_is_read_where_it_is_said_to_be_one() {
        let hex = "AB".repeat(32);
        let wanted = Wanted::of(&uri(&format!("/opt/a#1#sha256={hex}"))).unwrap();
        assert_eq!((wanted.source, wanted.name), (Source::Path("/opt/a#1".into()), "a#1".into()));
        assert_eq!(wanted.sha256.unwrap().hex(), hex.to_lowercase());
        assert_eq!(Wanted::of(&uri("http://h/a#other")).unwrap().sha256, None);
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(shown("https://me:secret@host:1/a@b?c"), "https://host:1/a@b?c");
        assert_eq!(shown("/a/b@c"), "/a/b@c");
    }

    #[test]
    fn where_a_server_sends_us_is_read_as_it_is_meant() {
        let from: Uri = "https://host:1/a/b?c".parse().unwrap();
        for (location, expected) in [
            ("http://other/x", "http://other/x"),
            ("//other/x", "https://other/x"),
            ("/x?y", "https://host:1/x?y"),
            ("?y", "https://host:1/a/b?y"),
            ("x/y", "https://host:1/a/x/y"),
            ("/get?url=http://other/x", "https://host:1/get?url=http://other/x"),
            ("get?url=http://other/x", "https://host:1/a/get?url=http://other/x"),
        ] {
            assert_eq!(elsewhere(&from, location).unwrap().to_string(), expected, "{location}");
        }
        for wrong in ["file:///etc/passwd", "ftp://other/x", "http://"] {
            assert!(elsewhere(&from, wrong).is_err(), "{wrong}");
        }
    }
}
